"""Deadlines and expiries: who waits too long is cancelled or dead, who runs too long is stopped, and nobody starts too late."""

import pytest

from scheduler.errors import Invalid
from scheduler.keys import STATES
from scheduler.outcomes import Ack, TypePolicy
from scheduler.times import rfc3339
from tests.helpers import (
    ENDED,
    QUEUE,
    WORKER,
    acked,
    buried,
    claimed,
    enqueued,
    events,
    in_state,
    keys,
    look,
    nacked,
    new,
    race,
    raw,
    released,
    state_of,
    states_of,
    swept,
    take,
    taken,
)

HOUR = 3_600_000
BY = ({"deadline_in_ms": 60_000}, {"expires_in_ms": 60_000})


async def expiries(redis) -> dict[str, int]:
    """What stands there of jobs."""
    found = await redis.zrange(keys().at("expiries"), 0, -1, withscores=True)
    return {member.decode(): int(score) for member, score in found if not member.startswith(b":")}


async def faults(store, *, repair: bool = False) -> list[tuple[str, str, bool]]:
    return [(fault.id, fault.what, fault.repaired) async for fault in store.verify(QUEUE, repair=repair)]


# -- before the first start ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", BY, ids=("deadline", "expiry"))
@pytest.mark.parametrize("state", ["ready", "scheduled", "blocked"])
async def test_what_has_not_started_in_time_is_cancelled_as_expired(store, clock, redis, state, by):
    await in_state(store, state, **by)
    clock.advance(59.999)
    assert (0, False) == await store.expire(QUEUE)
    assert state == await state_of(store)

    clock.advance(0.001)
    assert (1, False) == await store.expire(QUEUE)

    job = await look(store)
    assert ("cancelled", "expired", clock.now, 0) == (job.state, job.reason, job.finished_at, job.attempt)
    assert ["a"] == await events(redis, "cancel")
    assert "1" == (await store.census(QUEUE)).counters["cancelled"]
    assert {} == await expiries(redis)


@pytest.mark.parametrize("by", BY, ids=("deadline", "expiry"))
async def test_a_paused_queue_lets_its_jobs_expire_too(store, clock, by):
    await store.configure(QUEUE, {"paused": "1"})
    await enqueued(store, "a", **by)
    clock.advance(60)

    assert [] == await take(store)
    assert (1, False) == await store.expire(QUEUE)
    assert "cancelled" == await state_of(store)


@pytest.mark.parametrize("by", BY, ids=("deadline", "expiry"))
async def test_a_claim_gives_no_job_whose_time_is_over_though_no_sweep_came(store, clock, redis, by):
    await enqueued(store, "late", "later", **by)
    await enqueued(store, "scheduled", delay_ms=50_000, **by)
    clock.advance(60)
    await enqueued(store, "fresh", **by)

    assert ["fresh"] == [job.key for job in await take(store, 10)]
    assert ["cancelled"] * 3 == await states_of(store, "late", "later", "scheduled")
    assert "expired" == (await look(store, "late")).reason
    assert ["late", "later", "scheduled"] == sorted(await events(redis, "cancel"))
    assert "3" == (await store.census(QUEUE)).counters["cancelled"]


async def test_a_claim_that_met_only_late_jobs_asks_to_come_again_at_once(store, clock):
    await enqueued(store, "a", "b", expires_in_ms=1)
    clock.advance(1)
    await enqueued(store, "c")

    claim = await store.claim(QUEUE, worker=WORKER, count=2)
    assert ([], 1) == (claim.jobs, claim.wait_ms)
    assert ["c"] == [job.key for job in await take(store, 2)]


async def test_late_jobs_with_groups_use_no_turn_and_no_slot(store, clock):
    await store.configure(QUEUE, {"concurrency": "1"})
    for n in range(5):
        await enqueued(store, f"late{n}", group=f"g{n % 2}", expires_in_ms=1_000)
    clock.advance(1)
    await enqueued(store, "fresh", group="g0")

    given = [job.key for _ in range(10) for job in await take(store, 5)]
    assert ["fresh"] == given
    assert {"cancelled"} == set(await states_of(store, *(f"late{n}" for n in range(5))))
    assert [] == await faults(store)


async def test_jobs_in_lanes_expire_out_of_them(store, clock):
    await store.configure(QUEUE, {"paused": "1"})
    await enqueued(store, "a", group="g", deadline_in_ms=1_000)
    clock.advance(1)
    assert (1, False) == await store.expire(QUEUE)
    assert [] == await faults(store)


async def test_the_earlier_of_deadline_and_expiry_holds(store, clock, redis):
    await enqueued(store, "a", deadline_in_ms=5_000, expires_in_ms=3_000)
    await enqueued(store, "b", deadline_in_ms=2_000, expires_in_ms=3_000)
    assert {"a": clock.now + 3_000, "b": clock.now + 2_000} == await expiries(redis)
    job = await look(store)
    assert (clock.now + 5_000, clock.now + 3_000) == (job.deadline_ms, job.expires_ms)


async def test_an_expiry_means_nothing_to_a_job_that_has_started(store, clock):
    job = await claimed(store, expires_in_ms=60_000, retry={"immediate": 0})
    clock.advance(60)
    await store.expire(QUEUE)
    assert "retrying" == await nacked(store, job)
    clock.advance(HOUR / 1000)
    await store.expire(QUEUE)
    assert 2 == (await taken(store)).attempt


async def test_an_attempt_that_is_given_back_is_no_start(store, clock, redis):
    job = await claimed(store, expires_in_ms=60_000)
    until = clock.now + 60_000
    assert "scheduled" == await released(store, job, 120_000, "snooze")
    assert {"a": until} == await expiries(redis)
    clock.advance(60)
    assert (1, False) == await store.expire(QUEUE)
    assert ("cancelled", "expired") == ((await look(store)).state, (await look(store)).reason)


async def test_a_job_that_is_given_back_after_its_expiry_is_cancelled(store, clock, redis):
    """The member that stood there while it ran went when it was due, as it meant nothing then."""
    job = await claimed(store, expires_in_ms=60_000, lease_ms=600_000)
    clock.advance(60)
    await store.expire(QUEUE)
    assert {} == await expiries(redis)
    assert "ready" == await released(store, job)
    await store.expire(QUEUE)
    assert ("cancelled", "expired") == ((await look(store)).state, (await look(store)).reason)


# -- after it --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["sweep", "claim"])
async def test_what_waits_for_another_attempt_beyond_its_deadline_is_dead(store, clock, redis, how):
    assert "ready" == await nacked(store, await claimed(store, deadline_in_ms=60_000))
    clock.advance(60)
    assert [] == await (take(store) if how == "claim" else _expired(store))

    job = await look(store)
    assert ("dead", "deadline", 1) == (job.state, job.reason, job.attempt)
    assert ["ValueError", "DeadlineExceeded"] == [error.kind for error in job.errors]
    assert "dead: deadline" == job.errors[-1].next
    assert ["a"] == await events(redis, "bury")
    assert "1" == (await store.census(QUEUE)).counters["dead"]
    [group] = (await store.groups(QUEUE))[0]
    assert ("DeadlineExceeded", 1) == (group.kind, group.count)
    assert [] == await faults(store)


async def _expired(store):
    assert (1, False) == await store.expire(QUEUE)
    return []


async def test_an_attempt_ends_with_the_deadline_when_that_is_earlier_than_its_timeout(store, clock):
    job = await claimed(store, deadline_in_ms=10_000, timeout_ms=60_000)
    assert (clock.now + 10_000, True) == (job.timeout_ends_ms, job.ends_by_deadline)
    assert clock.now + 15_000 == job.lease_ends_ms

    other = await claimed(store, "b", deadline_in_ms=60_000, timeout_ms=10_000)
    assert (clock.now + 10_000, False) == (other.timeout_ends_ms, other.ends_by_deadline)


async def test_an_attempt_that_fails_at_the_deadline_is_dead_by_it(store, clock, redis):
    job = await claimed(store, deadline_in_ms=10_000)
    clock.advance(10)
    await store.expire(QUEUE)
    assert "running" == await state_of(store)
    assert "dead" == await nacked(store, job, "DeadlineExceeded", "stopped at the job's deadline")
    found = await look(store)
    assert ("deadline", "dead: deadline") == (found.reason, found.errors[-1].next)
    assert "dead" == await nacked(store, job)
    assert {} == await expiries(redis)


async def test_a_backoff_that_lasts_beyond_the_deadline_is_not_waited_for(store):
    job = await claimed(store, deadline_in_ms=10_000)
    assert "dead" == await nacked(store, job, retry_in_ms=10_000)
    assert "deadline" == (await look(store)).reason
    job = await claimed(store, "b", deadline_in_ms=10_000)
    assert "retrying" == await nacked(store, job, retry_in_ms=9_999)


async def test_a_lease_that_ran_out_at_the_deadline_is_no_crash(store, clock):
    await claimed(store, deadline_in_ms=20_000, lease_ms=600_000)
    await store.reclaim(QUEUE)
    clock.advance(25)
    assert 1 == await swept(store, clock)
    job = await look(store)
    assert ("dead", "deadline", 0) == (job.state, job.reason, job.crashes)
    assert [("DeadlineExceeded", "still running at the job's deadline")] == [
        (error.kind, error.message) for error in job.errors
    ]


async def test_a_crash_after_which_no_time_is_left_is_dead_by_the_deadline(store, clock):
    await store.reclaim(QUEUE)
    await claimed(store, deadline_in_ms=32_000, lease_ms=30_000)
    clock.advance(33)
    assert 1 == await swept(store, clock)
    assert ("dead", "deadline") == ((await look(store)).state, (await look(store)).reason)


async def test_what_was_asked_to_stop_is_cancelled_as_asked_at_its_deadline_too(store, clock):
    job = await claimed(store, deadline_in_ms=10_000)
    await store.cancel(QUEUE, ["a"])
    clock.advance(10)
    assert "cancelled" == await nacked(store, job)
    assert "asked" == (await look(store)).reason


async def test_an_ack_after_the_deadline_wins(store, clock):
    job = await claimed(store, deadline_in_ms=10_000)
    clock.advance(12)
    assert "succeeded" == await acked(store, job)


@pytest.mark.parametrize("by", BY, ids=("deadline", "expiry"))
@pytest.mark.parametrize("state", ENDED)
async def test_what_ended_in_time_is_kept_as_long_as_any(store, clock, redis, state, by):
    await in_state(store, state, **by)
    assert {} == await expiries(redis)
    clock.advance(61)
    await store.expire(QUEUE)
    assert state == await state_of(store)


@pytest.mark.parametrize("state", ENDED)
async def test_a_retention_of_its_own_begins_with_the_end(store, clock, redis, state):
    await in_state(store, state, deadline_in_ms=60_000, retention_ms=HOUR)
    assert {"a": clock.now + HOUR} == await expiries(redis)
    clock.advance(60)
    await store.expire(QUEUE)
    assert state == await state_of(store)
    clock.advance(HOUR / 1000)
    await store.expire(QUEUE)
    assert await state_of(store) is None


async def test_what_expired_keeps_its_own_retention(store, clock):
    await enqueued(store, "a", expires_in_ms=1_000, retention_ms=5_000)
    clock.advance(1)
    await store.expire(QUEUE)
    assert "cancelled" == await state_of(store)
    clock.advance(66)
    await store.expire(QUEUE)
    await store.expire(QUEUE)
    assert await state_of(store) is None


# -- later words ---------------------------------------------------------------------------------------------------------


async def test_a_replay_drops_a_deadline_that_has_passed(store, clock, redis):
    assert "dead" == await buried(store, await claimed(store, deadline_in_ms=60_000, expires_in_ms=30_000))
    clock.advance(60)
    assert ["ready"] == await store.replay(QUEUE, [("a", None)])
    job = await look(store)
    assert (None, None) == (job.deadline_ms, job.expires_ms)
    assert {} == await expiries(redis)
    assert 1 == (await taken(store)).attempt


@pytest.mark.parametrize("payload", [None, b"[1]"])
async def test_a_replay_keeps_a_deadline_to_come_and_no_expiry(store, clock, redis, payload):
    assert "dead" == await buried(
        store, await claimed(store, deadline_in_ms=60_000, expires_in_ms=30_000, group="g")
    )
    until = clock.now + 60_000
    clock.advance(31)
    assert ["ready"] == await store.replay(QUEUE, [("a", payload)])
    job = await look(store)
    assert (until, None, "g", payload or b"{}") == (job.deadline_ms, job.expires_ms, job.group, job.payload)
    assert {"a": until} == await expiries(redis)
    assert until == (await taken(store)).timeout_ends_ms


async def test_a_change_keeps_the_deadline(store, clock):
    await enqueued(store, "a", deadline_in_ms=60_000)
    assert "scheduled" == await store.update(QUEUE, "a", run_at_ms=clock.now + HOUR, payload=b"[1]")
    clock.advance(60)
    assert (1, False) == await store.expire(QUEUE)
    assert "cancelled" == await state_of(store)


async def test_a_purged_job_leaves_no_expiry(store, redis):
    await enqueued(store, "a", deadline_in_ms=60_000)
    assert ["gone"] == await store.purge(QUEUE, ["a"])
    assert {} == await expiries(redis)


async def test_a_copy_has_no_deadline(store):
    await enqueued(store, "a", deadline_in_ms=60_000, expires_in_ms=60_000)
    assert not (await look(store)).like("b").timed


# -- asking for one --------------------------------------------------------------------------------------------------------


async def test_a_deadline_is_a_time_or_a_duration(store, clock):
    await enqueued(store, "a", deadline_ms=clock.now + 1)
    await enqueued(store, "b", deadline_in_ms=1)
    assert [clock.now + 1] * 2 == [(await look(store, key)).deadline_ms for key in "ab"]


@pytest.mark.parametrize("before_ms", [0, 1, 10**12])
async def test_a_deadline_in_the_past_is_refused_and_nothing_stored(store, clock, before_ms):
    job = new("a", deadline_ms=clock.now - before_ms)
    with pytest.raises(Invalid) as refused:
        await store.enqueue_one(job)
    assert ["/deadline"] == [fault.path for fault in refused.value.faults]
    assert await state_of(store) is None

    fine, past = await store.enqueue_each([new("fine"), job])
    assert (True, True) == (fine.created, isinstance(past, Invalid))


async def test_a_request_that_is_repeated_after_its_deadline_is_the_standing_job(store, clock):
    job = new("a", deadline_ms=clock.now + 1_000)
    await store.enqueue_one(job)
    clock.advance(2)
    assert "exists" == (await store.enqueue_one(job)).outcome


async def test_the_same_words_later_are_the_same_request_and_others_are_not(store, clock):
    await store.enqueue_one(new("a", deadline_in_ms=60_000))
    clock.advance(1)
    again = [
        new("a", deadline_in_ms=60_000),
        new("a", deadline_in_ms=61_000),
        new("a", expires_in_ms=60_000),
        new("a"),
    ]
    found = await store.enqueue(QUEUE, again)
    assert ["exists", "conflict", "conflict", "conflict"] == [one.outcome for one in found]


async def test_ten_years_are_the_most(store, clock):
    with pytest.raises(Invalid) as refused:
        await store.enqueue_one(new("a", deadline_ms=clock.now + 315_576_000_001))
    assert ["/deadline"] == [fault.path for fault in refused.value.faults]


async def test_an_id_that_is_used_again_after_its_tombstone_has_its_own_expiry(store, clock, redis):
    await acked(store, await claimed(store, retention_ms=0))
    clock.advance(60)
    await enqueued(store, "a", expires_in_ms=1_000)
    assert {"a": clock.now + 1_000} == await expiries(redis)
    clock.advance(1)
    await store.expire(QUEUE)
    assert ("cancelled", "expired") == ((await look(store)).state, (await look(store)).reason)


# -- many, at once, and damaged ------------------------------------------------------------------------------------------------


async def test_many_expire_page_by_page(store, clock):
    for n in range(0, 250, 50):
        await enqueued(store, *(f"j{m}" for m in range(n, n + 50)), expires_in_ms=1_000)
    clock.advance(1)
    assert [(100, True), (100, True), (50, False)] == [await store.expire(QUEUE) for _ in range(3)]
    assert 250 == (await store.census(QUEUE)).counts["cancelled"]


async def test_of_claims_and_sweeps_at_once_each_job_ends_once(store, clock, redis):
    await enqueued(store, *(f"late{n}" for n in range(60)), expires_in_ms=1_000)
    clock.advance(1)
    await race(*(call for _ in range(10) for call in (store.expire(QUEUE), take(store, 10))))
    while (await store.expire(QUEUE))[1]:
        pass
    counts = (await store.census(QUEUE)).counts
    assert {state: 60 if state == "cancelled" else 0 for state in STATES} == counts
    assert 60 == len(await events(redis, "cancel"))


async def test_verify_finds_a_deadline_that_nothing_keeps_and_repairs_it(store, clock, redis):
    await enqueued(store, "a", expires_in_ms=60_000)
    await redis.zrem(keys().at("expiries"), "a")
    fault = "has a deadline that nothing keeps"
    assert [("a", fault, False)] == await faults(store)
    assert [("a", fault, True)] == await faults(store, repair=True)
    assert {"a": clock.now + 60_000} == await expiries(redis)
    assert [] == await faults(store)


async def test_a_member_that_is_no_jobs_any_more_goes_when_it_is_due(store, clock, redis):
    await in_state(store, "succeeded", "done")
    await redis.zadd(keys().at("expiries"), {"done": clock.now, "nobody": clock.now})
    assert (2, False) == await store.expire(QUEUE)
    assert ("succeeded", {}) == (await state_of(store, "done"), await expiries(redis))


@pytest.mark.parametrize(
    "rules", ["deadline:", "deadline:x", "deadline:+", "deadline:-5", "expires:+1.5", "expires:1e999"]
)
async def test_rules_that_are_none_are_refused(store, rules):
    with pytest.raises(Exception, match="INVALID rules"):
        await raw(store, "enqueue", 1, "a", "send", "{}", *[""] * 5, rules, "", "", "")


async def test_what_is_overdue_is_found_by_one_look_a_queue(store, clock):
    await enqueued(store, "a", expires_in_ms=1_000)
    assert [] == await store.overdue([QUEUE, "none"])
    clock.advance(1)
    assert [QUEUE] == await store.overdue([QUEUE, "none"])


async def test_a_deadline_is_shown_in_documents(store, clock):
    await enqueued(store, "a", deadline_ms=clock.now + 1_000, expires_in_ms=500)
    shown = (await look(store)).document()
    assert (rfc3339(clock.now + 1_000), rfc3339(clock.now + 500)) == (shown["deadline"], shown["expires_at"])


async def test_a_type_timeout_is_cut_by_the_deadline_as_well(store, clock):
    await store.configure_type(QUEUE, "send", TypePolicy(60_000))
    job = await claimed(store, deadline_in_ms=5_000)
    assert clock.now + 5_000 == job.timeout_ends_ms
    assert ["succeeded"] == await store.ack(QUEUE, [Ack("a", job.token, b"1")], worker=WORKER)

"""running -> ready | retrying | dead | cancelled: what a silent worker held."""

import pytest

from scheduler.job import State
from scheduler.outcomes import Extend, TypePolicy
from tests.helpers import (
    QUEUE,
    STATES,
    WORKER,
    acked,
    buried,
    claimed,
    enqueued,
    events,
    in_every_state,
    keys,
    look,
    nacked,
    on_real_servers,
    race,
    released,
    snapshot,
    state_of,
    swept,
    take,
    taken,
)


@pytest.fixture(autouse=True)
async def _swept_regularly(redis):
    """These tests are about leases; what a gap between sweeps does stands in test_grace.py."""
    await redis.hset(keys().at("counters"), mapping={"swept_at": str(1_800_000_000_000)})


async def sweep(store, clock, seconds: float = 31) -> int:
    """Lets time go by, sweeping regularly; answers how many were reclaimed."""
    found = 0
    for step in [10] * int(seconds // 10) + [seconds % 10]:
        clock.advance(step)
        found += (await store.reclaim(QUEUE)).reclaimed
    return found


async def crash(store, clock, key: str = "a") -> str | None:
    await taken(store, key, lease_ms=1000)
    assert 1 == await sweep(store, clock, 1)
    return await state_of(store, key)


async def test_a_job_whose_lease_ran_out_is_ready_at_once_and_has_used_its_attempt(store, clock):
    await claimed(store)

    assert 1 == await sweep(store, clock, 30)

    job = await look(store)
    assert (State.READY, 1, 1, None) == (job.state, job.attempt, job.crashes, job.run_at)
    [error] = job.errors
    assert (1, "LeaseExpired", "the lease of worker-1 ran out", "retry at once", clock.now) == (
        error.attempt,
        error.kind,
        error.message,
        error.next,
        error.at_ms,
    )
    assert 2 == (await taken(store, worker="worker-2")).attempt


async def test_a_lease_that_stands_is_left_alone(store, clock, redis):
    await claimed(store)

    assert 0 == await sweep(store, clock, 29.999)
    assert "running" == await state_of(store)


async def test_a_row_of_crashes_is_dead_when_it_reaches_its_limit(store, clock):
    await enqueued(store, "a")

    assert ["ready", "ready", "dead"] == [await crash(store, clock) for _ in range(3)]
    job = await look(store)
    assert ("crashes", 3, 3, "dead: crashes") == (job.reason, job.crashes, job.attempt, job.errors[-1].next)


async def test_crashes_use_up_attempts_too(store, clock):
    await enqueued(store, "a", retry={"max_attempts": 2, "max_crashes": 10})

    assert ["ready", "dead"] == [await crash(store, clock) for _ in range(2)]
    assert "attempts" == (await look(store)).reason


async def test_when_both_limits_are_reached_the_crashes_are_the_reason(store, clock):
    await enqueued(store, "a", retry={"max_attempts": 2, "max_crashes": 2})

    assert ["ready", "dead"] == [await crash(store, clock) for _ in range(2)]
    assert "crashes" == (await look(store)).reason


@pytest.mark.parametrize("settle", [nacked, released])
async def test_any_settlement_starts_the_count_again(store, clock, settle):
    await enqueued(store, "a", retry={"max_attempts": 100})
    assert ["ready", "ready"] == [await crash(store, clock) for _ in range(2)]
    await settle(store, await taken(store))
    clock.advance(3600)
    await store.reclaim(QUEUE)

    assert ["ready", "ready", "dead"] == [await crash(store, clock) for _ in range(3)]


async def test_the_limit_of_crashes_is_the_strongest_word(store, clock):
    await store.configure_type(QUEUE, "send", TypePolicy(retry={"max_crashes": 2}))
    await enqueued(store, "a", retry={"max_crashes": 1})

    assert "dead" == await crash(store, clock)


async def test_a_lease_that_ended_at_the_timeout_is_a_failure_and_no_crash(store, clock):
    await enqueued(store, "a", timeout_ms=2000, retry={"immediate": 0, "jitter": 0})
    await taken(store)

    assert 0 == await sweep(store, clock, 6.999)
    assert 1 == await sweep(store, clock, 0.001)
    job = await look(store)
    assert (State.RETRYING, 0, 1, clock.now + 2000) == (job.state, job.crashes, job.attempt, job.run_at)
    assert ("TimeoutError", "still running at its timeout", "retry in 2.0 s") == (
        job.errors[0].kind,
        job.errors[0].message,
        job.errors[0].next,
    )


async def test_a_lease_that_ended_before_the_timeout_is_a_crash_however_late_it_is_found(store, clock):
    await enqueued(store, "a", timeout_ms=60_000)
    await taken(store)

    clock.advance(600)
    assert 1 == await sweep(store, clock, 30)
    assert ("LeaseExpired", 1) == ((await look(store)).errors[0].kind, (await look(store)).crashes)


async def test_the_last_attempt_that_runs_into_its_timeout_is_dead(store, clock):
    await enqueued(store, "a", timeout_ms=1000, retry={"max_attempts": 1})
    await taken(store)
    await sweep(store, clock, 10)

    assert (State.DEAD, "attempts", 0) == (
        (await look(store)).state,
        (await look(store)).reason,
        (await look(store)).crashes,
    )


async def test_a_job_that_was_asked_to_stop_is_cancelled_when_its_worker_dies(store, clock):
    await claimed(store)
    await store.cancel(QUEUE, ["a"])
    await sweep(store, clock, 30)

    assert (State.CANCELLED, "asked") == ((await look(store)).state, (await look(store)).reason)
    assert [] == await take(store)


async def test_only_running_jobs_are_reclaimed(store, clock, redis):
    await in_every_state(store, [state for state in STATES if state != "running"])
    clock.advance(300)
    await store.reclaim(QUEUE)
    before = await snapshot(redis)

    assert 0 == (await store.reclaim(QUEUE)).reclaimed
    assert before == await snapshot(redis)


async def test_a_sweep_repeated_finds_nothing_more(store, clock, redis):
    await claimed(store)
    await sweep(store, clock, 30)
    before = await snapshot(redis)

    found = await store.reclaim(QUEUE, period_ms=20_000)
    assert (0, False) == (found.reclaimed, found.more)
    assert before == await snapshot(redis)


async def test_a_sweep_is_bounded_and_says_whether_more_is_left(store, clock):
    await enqueued(store, *(f"k{n}" for n in range(25)))
    await take(store, 25)
    clock.advance(31)
    await store.reclaim(QUEUE, limit=1)
    clock.advance(11)

    found = [(s.reclaimed, s.more) for s in [await store.reclaim(QUEUE, limit=10) for _ in range(3)]]
    assert [(10, True), (10, True), (5, False)] == found


async def test_what_ran_out_first_is_reclaimed_first(store, clock):
    await enqueued(store, "late", "early")
    await take(store, 1, lease_ms=20_000)
    await take(store, 1, lease_ms=10_000)
    clock.advance(21)
    await store.reclaim(QUEUE)
    clock.advance(11)

    assert 1 == (await store.reclaim(QUEUE, limit=1)).reclaimed
    assert ["running", "ready"] == [await state_of(store, key) for key in ("late", "early")]
    await store.reclaim(QUEUE)


async def test_what_was_reclaimed_is_lost_to_its_worker(store, clock):
    job = await claimed(store)
    await sweep(store, clock, 30)

    assert ["stale"] == await store.extend(QUEUE, [Extend("a", job.token, 30_000)])
    assert ["stale"] * 4 == [await verb(store, job) for verb in (acked, nacked, buried, released)]
    assert "ready" == await state_of(store)


@pytest.mark.unverified
async def test_a_running_job_without_a_record_is_let_go_and_the_others_go_on(store, clock, redis):
    await enqueued(store, "gone", "a")
    await take(store, 2)
    await redis.hdel(keys().at("jobs"), "gone")

    assert 2 == await sweep(store, clock, 30)
    assert (0, 0) == (await redis.zcard(keys().at("running")), await redis.hlen(keys().at("leases")))
    assert "ready" == await state_of(store)


@pytest.mark.parametrize("lease", [None, "damaged"])
async def test_a_running_job_without_a_lease_is_run_again(store, clock, redis, lease):
    await claimed(store, priority=5)
    await (
        redis.hdel(keys().at("leases"), "a") if lease is None else redis.hset(keys().at("leases"), "a", lease)
    )

    assert 1 == await sweep(store, clock, 30)
    assert "ready" == await state_of(store)
    assert 1 == (await taken(store)).attempt


async def test_a_sweep_says_when_leases_and_running_jobs_differ_in_number(store, redis, clock):
    await claimed(store)
    assert (await store.reclaim(QUEUE)).uneven is False

    await redis.hset(keys().at("leases"), "stray", "1|w|1|1|1|1||1|0|")
    assert (await store.reclaim(QUEUE)).uneven is True
    assert {"stray"} == {fault.id async for fault in store.verify(QUEUE, repair=True)}


async def test_a_sweep_counts_reports_and_rings(store, clock, redis):
    await enqueued(store, "a", "b")
    await take(store, 2)
    await redis.unlink(keys().at("bell"))
    await sweep(store, clock, 30)

    assert "2" == (await store.census(QUEUE)).counters["reclaim"]
    assert ["a", "b"] == sorted(await events(redis, "reclaim"))
    assert 1 == await redis.llen(keys().at("bell"))


@on_real_servers
async def test_eight_watchdogs_reclaim_a_lease_once(store, another_store, clock):
    await enqueued(store, *(f"k{n}" for n in range(200)))
    await take(store, 200)
    clock.advance(31)
    await store.reclaim(QUEUE)
    clock.advance(11)

    sweeps = await race(*((store, another_store)[n % 2].reclaim(QUEUE, limit=50) for n in range(8)))

    assert 200 == sum(found.reclaimed for found in sweeps)
    assert {1} == {job.crashes for job in await store.inspect(QUEUE, [f"k{n}" for n in range(200)])}
    await store.purge_page(QUEUE, "ready", limit=500)


@on_real_servers
async def test_a_sweep_and_an_ack_at_once_end_in_one_of_two_ways(store, another_store, clock):
    for n in range(10):
        job = await claimed(store, f"k{n}", lease_ms=1000, retry={"max_attempts": 1})
        clock.advance(2)
        found, answer = await race(store.reclaim(QUEUE, period_ms=20_000), acked(another_store, job))

        assert (found.reclaimed, answer, await state_of(store, job.key)) in [
            (1, "stale", "dead"),
            (0, "succeeded", "succeeded"),
        ]


async def test_worker_names_itself_in_the_event(store, clock, redis):
    await claimed(store)
    clock.advance(31)
    await store.reclaim(QUEUE, worker="watchdog-1")
    clock.advance(11)
    await store.reclaim(QUEUE, worker="watchdog-1")

    [(_, entry)] = await redis.xrevrange(keys().at("events"), count=1)
    assert (b"reclaim", b"watchdog-1", b"ready") == (entry[b"kind"], entry[b"worker"], entry[b"states"])
    assert WORKER == (await look(store)).worker or (await look(store)).state is State.READY


async def test_a_crash_that_several_jobs_shared_ends_none_of_them(store, clock):
    for key in ("a", "b"):
        await enqueued(store, key, retry={"max_crashes": 1})
    assert 2 == len(await take(store, 2, worker="w"))
    clock.advance(31)
    await swept(store, clock)

    assert [("ready", 1), ("ready", 1)] == [
        ((job := await look(store, key)).state.value, job.crashes) for key in ("a", "b")
    ]


async def test_after_a_crash_a_job_is_given_alone_and_dies_of_its_own_crashes_only(store, clock):
    await enqueued(store, "a", "b", "c", retry={"max_crashes": 2})
    assert 3 == len(await take(store, 3, worker="w"))
    clock.advance(31)
    await swept(store, clock)
    await enqueued(store, "d", priority=-1)

    # One after the other, and then what never crashed.
    [first] = await take(store, 10, worker="w1")
    [second] = await take(store, 10, worker="w2")
    [third] = await take(store, 10, worker="w3")
    assert ["a", "b", "c"] == [first.key, second.key, third.key]
    assert [1, 1, 1] == [one.crashes for one in (first, second, third)]
    assert ["succeeded"] * 2 == [
        await acked(store, one, worker=w) for one, w in ((first, "w1"), (second, "w2"))
    ]
    clock.advance(31)
    await swept(store, clock)

    dead = await look(store, "c")
    assert ("dead", "crashes", 2) == (dead.state.value, dead.reason, dead.crashes)
    assert ["d"] == [one.key for one in await take(store, 10)]


async def test_a_crash_alone_at_the_first_ends_a_job_that_may_have_none(store, clock):
    await claimed(store, "a", retry={"max_crashes": 1})
    clock.advance(31)
    await swept(store, clock)

    job = await look(store, "a")
    assert ("dead", "crashes") == (job.state.value, job.reason)

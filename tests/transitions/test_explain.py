"""Why a job waits, each reason by itself and together; read only. The sentences are joined with who works."""

import pytest

from scheduler.errors import NotFound
from scheduler.explain import explain
from scheduler.presence import Presence
from scheduler.times import rfc3339
from tests.helpers import (
    QUEUE,
    WORKER,
    acked,
    claimed,
    enqueued,
    in_every_state,
    in_state,
    keys,
    nacked,
    released,
    snapshot,
    take,
)
from tests.transitions.test_breaker import guard, opened
from tests.transitions.test_limits import limit


@pytest.fixture
def presence(store):
    return Presence(store)


async def signed(presence, *types, name="w-1", queue=QUEUE):
    await presence.sign(name, {"queues": [queue], "types": list(types), "concurrency": 10}, 60_000)


async def told(store, presence, key="a"):
    """The explanation of a job for which a worker is there."""
    await signed(presence)
    return await explain(store, presence, QUEUE, key)


async def codes(store, presence, key="a"):
    return [reason.code for reason in (await told(store, presence, key)).reasons]


async def only(store, presence, key="a"):
    [reason] = (await told(store, presence, key)).reasons
    return reason


async def test_a_job_that_is_not_known_is_not_found(store, presence):
    with pytest.raises(NotFound):
        await explain(store, presence, QUEUE, "a")


async def test_every_state_has_its_reason_and_nothing_changes(store, presence, redis):
    await in_every_state(store)
    await signed(presence)
    before = await snapshot(redis)

    assert {
        "scheduled": "scheduled",
        "blocked": "blocked_by",
        "ready": "behind",
        "running": "running",
        "retrying": "retry_wait",
        "succeeded": "ended",
        "cancelled": "ended",
        "dead": "ended",
    } == {
        state: (await explain(store, presence, QUEUE, state)).reasons[0].code
        for state in (await store.census(QUEUE)).counts
    }
    assert before == await snapshot(redis)


async def test_what_waits_for_its_time_says_until_when(store, presence, clock):
    await enqueued(store, "a", delay_ms=5_000)

    reason = await only(store, presence)
    assert ("scheduled", clock.now + 5_000) == (reason.code, reason.until_ms)
    assert None is (await told(store, presence)).position


async def test_what_waits_for_its_backoff_says_until_when_and_after_how_many_runs(store, presence, clock):
    job = await claimed(store, retry={"immediate": 0})
    await nacked(store, job, retry_in_ms=7_000)

    reason = await only(store, presence)
    assert ("retry_wait", clock.now + 7_000) == (reason.code, reason.until_ms)
    assert "1 run so far" in reason.message


async def test_what_runs_says_where_and_whether_it_was_asked_to_stop(store, presence):
    await claimed(store, worker="w-7")
    assert "attempt 1 runs on w-7;" in (await only(store, presence)).message

    await store.cancel(QUEUE, ["a"])
    assert "asked to stop" in (await only(store, presence)).message


async def test_what_has_ended_says_how_and_when_also_when_it_is_gone_but_known(store, presence, clock):
    at = rfc3339(clock.now)
    await in_state(store, "dead")
    await in_state(store, "succeeded", "b", retention_ms=0)

    assert f"it is dead (permanent), since {at}" == (await only(store, presence)).message
    assert f"it is succeeded, since {at}" == (await only(store, presence, "b")).message


async def test_in_a_plain_queue_the_place_in_line_is_exact(store, presence):
    await enqueued(store, "a", "b", "c")

    first, third = await told(store, presence, "a"), await told(store, presence, "c")
    assert (1, True) == (first.position, first.exact)
    assert (3, True) == (third.position, third.exact)
    assert ["it is the next: a worker takes it as soon as one has a free slot"] == [
        r.message for r in first.reasons
    ]
    assert [("behind", "2 jobs are before it")] == [(r.code, r.message) for r in third.reasons]


async def test_a_queue_that_is_paused_holds_what_is_ready_and_what_will_be(store, presence):
    await enqueued(store, "a")
    await enqueued(store, "later", delay_ms=1_000)
    await store.configure(QUEUE, {"paused": "1"})

    assert ["queue_paused"] == await codes(store, presence)
    assert ["scheduled", "queue_paused"] == await codes(store, presence, "later")


async def test_a_type_and_a_group_that_are_paused_are_both_said(store, presence, redis):
    await limit(redis, types={"send": "|||||1|"}, groups={"g": "|||||1"})
    await enqueued(store, "a", group="g")
    await enqueued(store, "b", type="other", group="g")

    assert ["type_paused", "group_paused"] == await codes(store, presence)
    assert [] == await take(store, 10)
    assert ["type_paused", "group_paused"] == await codes(store, presence)
    reason = await only(store, presence, "b")
    assert ("group_paused", "group g is paused", None) == (reason.code, reason.message, reason.until_ms)


@pytest.mark.parametrize(
    ("limits", "scope"),
    [
        ({"queue": {"rate": "1|10000|0"}}, "the queue mail"),
        ({"types": {"send": "||1|10000|0||"}}, "type send"),
        ({"groups": {"g": "||1|10000|0|"}}, "group g"),
    ],
    ids=["queue", "type", "group"],
)
async def test_a_rate_says_when_the_next_one_may_start(store, presence, redis, clock, limits, scope):
    await limit(redis, **limits)
    await enqueued(store, "a", "b", group="g")
    assert 1 == len(await take(store, 10))

    reason = (await told(store, presence, "b")).reasons[0]
    assert ("rate_limited", clock.now + 10_000) == (reason.code, reason.until_ms)
    assert reason.message.startswith(scope)

    clock.advance(10)
    assert ["behind"] == await codes(store, presence, "b")


async def test_a_hold_that_a_handler_asked_for_says_until_when(store, presence, redis, clock):
    await limit(redis)
    await enqueued(store, "a")
    await redis.hset(keys().at("meters"), "hold tsend", clock.now + 9_000)

    reason = await only(store, presence)
    assert ("rate_limited", clock.now + 9_000) == (reason.code, reason.until_ms)


@pytest.mark.parametrize(
    ("limits", "scope"),
    [
        ({"queue": {"concurrency": "2"}}, "the queue mail"),
        ({"types": {"send": "|2|||||"}}, "type send"),
        ({"groups": {"g": "|2||||"}}, "group g"),
    ],
    ids=["queue", "type", "group"],
)
async def test_a_limit_without_a_slot_says_who_has_them(store, presence, redis, limits, scope):
    await limit(redis, **limits)
    await enqueued(store, "a", "b", "c", group="g")
    jobs = await take(store, 10)
    assert 2 == len(jobs)

    reason = (await told(store, presence, "c")).reasons[0]
    assert "concurrency_limited" == reason.code
    assert f"of {scope} 2 run and 2 may: mail:a on {WORKER}, mail:b on {WORKER}" == reason.message
    assert [("mail:a", WORKER), ("mail:b", WORKER)] == [(who.id, who.worker) for who in reason.holders]

    await acked(store, jobs[0])
    assert "concurrency_limited" not in await codes(store, presence, "c")


async def test_of_many_who_run_ten_are_named_and_the_rest_is_counted(store, presence, redis):
    await limit(redis, types={"send": "|12|||||"})
    await enqueued(store, *(f"a{n:02}" for n in range(12)), "b")
    await take(store, 20)

    reason = await only(store, presence, "b")
    assert 10 == len(reason.holders)
    assert reason.message.endswith("and 2 more")


async def test_groups_whose_turn_is_earlier_are_counted(store, presence):
    for group in ("a", "b", "c"):
        await enqueued(store, f"{group}0", f"{group}1", group=group)

    reasons = (await told(store, presence, "c0")).reasons
    assert [
        ("group_turn", "groups take turns: about 2 of them come before its own"),
        ("behind", "about 2 jobs are before it"),
    ] == [(r.code, r.message) for r in reasons]
    assert ["behind"] == await codes(store, presence, "a0")
    last = await told(store, presence, "c1")
    assert (6, False) == (last.position, last.exact)


async def test_the_place_in_line_is_the_one_in_which_groups_are_served(store, presence):
    for group in ("a", "b", "c"):
        await enqueued(store, *(f"{group}{n}" for n in range(12)), group=group)
    names = ("a0", "b1", "c2", "a3", "b9", "c11")
    places = {name: (await told(store, presence, name)).position for name in names}

    served = [job.key for job in await take(store, 36)]
    assert {name: served.index(name) + 1 for name in places} == places


async def test_other_types_of_its_group_count_as_far_as_they_are_before_it(store, presence, redis):
    await limit(redis)
    await enqueued(store, "x0", "x1", type="other")
    await enqueued(store, "a")
    await enqueued(store, "x2", type="other")

    assert 3 == (await told(store, presence)).position


async def test_a_lane_that_waits_for_its_type_stands_behind_those_of_other_groups(store, presence, redis):
    await limit(redis, types={"send": "|1|||||"})
    for group in ("a", "b", "c"):
        await enqueued(store, f"{group}0", group=group)
    await take(store, 1)
    assert [] == await take(store, 10)

    assert {"b0": 1, "c0": 2} == {key: (await told(store, presence, key)).position for key in ("b0", "c0")}
    assert ["concurrency_limited", "group_turn", "behind"] == await codes(store, presence, "c0")


async def test_without_a_worker_of_its_queue_nobody_will_take_it(store, presence):
    await enqueued(store, "a")
    await signed(presence, queue="other")

    reasons = (await explain(store, presence, QUEUE, "a")).reasons
    assert [("no_worker", "no worker has signed for the queue mail lately")] == [
        (r.code, r.message) for r in reasons
    ]


async def test_workers_without_its_type_are_no_help_and_one_that_does_not_say_is(store, presence):
    await enqueued(store, "a")
    await signed(presence, "other")
    reasons = (await explain(store, presence, QUEUE, "a")).reasons
    assert [("no_handler", "the only worker of the queue mail has no handler for send")] == [
        (r.code, r.message) for r in reasons
    ]

    await signed(presence, "send", "other", name="w-2")
    assert ["behind"] == [r.code for r in (await explain(store, presence, QUEUE, "a")).reasons]


async def test_what_was_given_back_for_want_of_a_handler_says_so(store, presence, clock):
    await released(store, await claimed(store), why="no_handler")

    reason = await only(store, presence)
    assert ("no_handler", clock.now + 1_000) == (reason.code, reason.until_ms)
    assert "given back once" in reason.message


async def test_a_job_that_is_not_filed_yet_has_a_place_all_the_same(store, presence, redis):
    await enqueued(store, "a", "b")
    await limit(redis, types={"send": "||||||"})

    found = await told(store, presence, "b")
    assert (2, False) == (found.position, found.exact)


async def test_an_open_breaker_says_until_when_and_a_half_open_one_that_others_are_its_probes(
    store, presence, clock
):
    await guard(store)
    await opened(store)
    await enqueued(store, "a", "b", "c")

    reason = (await told(store, presence, "a")).reasons[0]
    assert ("breaker_open", clock.now + 30_000) == (reason.code, reason.until_ms)
    assert {"breaker_open": 3} == (await store.demand(QUEUE)).held

    clock.advance(30)
    assert ["behind"] == await codes(store, presence, "a")
    found = await store.demand(QUEUE)
    assert (2, {"breaker_open": 1}) == (found.runnable, found.held)
    assert 2 == len(await take(store, 10))
    reason = (await told(store, presence, "c")).reasons[0]
    assert ("breaker_open", None) == (reason.code, reason.until_ms)
    assert "half open" in reason.message
    assert {"breaker_open": 1} == (await store.demand(QUEUE)).held

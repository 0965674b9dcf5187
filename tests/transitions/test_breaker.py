"""A type's breaker: opens where too much fails, lets probes through after a while, and uses nobody's attempts meanwhile."""

import pytest
from msgspec.structs import replace

from scheduler.job import NewJob
from scheduler.limits import Breaker
from scheduler.outcomes import TypePolicy
from tests.helpers import (
    QUEUE,
    acked,
    buried,
    enqueued,
    events,
    keys,
    nacked,
    released,
    rings,
    swept,
    take,
)

BREAKER = Breaker(percent=50, window_ms=60_000, minimum=4, open_ms=30_000, probes=2)
DAY = 86_400


GUARDED = TypePolicy(retry={"immediate": 0, "base": DAY * 1000, "max_delay": DAY * 1000}, breaker=BREAKER)


async def guard(store, policy=GUARDED):
    """The type `send` has a breaker; jobs wait long after a failure, so that none comes back in between."""
    await store.configure_type(QUEUE, "send", policy)


async def state(store, breaker=BREAKER):
    [found] = (await store.breakers(QUEUE, {"send": breaker})).values()
    return found.state


async def ended(store, *how):
    """As many runs of the type that end like this, one after the other."""
    for ending in how:
        [job] = await take(store, types=["send"])
        await ending(store, job)


async def opened(store):
    await enqueued(store, *(f"bad{n}" for n in range(4)))
    await ended(store, *[nacked] * 4)
    assert "open" == await state(store)


async def names(store, count=10):
    return [job.key for job in await take(store, count)]


async def test_it_opens_when_enough_failed_and_the_jobs_wait_without_an_attempt(store, redis, clock):
    await guard(store)
    await enqueued(store, *(f"a{n}" for n in range(9)))
    await ended(store, acked, nacked, nacked)
    assert "closed" == await state(store)

    await ended(store, acked)

    assert "open" == await state(store)
    assert ["send"] == await events(redis, "breaker")
    await enqueued(store, "x", type="other")
    assert ["x"] == await names(store)
    clock.advance(29.999)
    assert [] == await names(store)
    clock.advance(0.001)
    assert "half_open" == await state(store)
    assert [1, 1] == [job.attempt for job in await take(store, 10)]


async def test_it_does_not_open_before_the_least_number_or_below_the_rate(store):
    await guard(store)
    await enqueued(store, *(f"a{n}" for n in range(9)))

    await ended(store, *[nacked] * 3)
    assert "closed" == await state(store)

    await store.reset(QUEUE, "send")
    await ended(store, acked, acked, acked, nacked, nacked)
    assert "closed" == await state(store)


async def test_what_failed_long_ago_counts_no_more(store, clock):
    await guard(store)
    await enqueued(store, *(f"a{n}" for n in range(9)))
    await ended(store, *[nacked] * 3)
    clock.advance(300)

    await ended(store, nacked, nacked, nacked)
    assert "closed" == await state(store)
    await ended(store, nacked)

    assert "open" == await state(store)


async def test_what_failed_in_the_window_before_counts_by_its_share(store, clock):
    await guard(store)
    await enqueued(store, *(f"a{n}" for n in range(9)))
    await ended(store, *[nacked] * 3)
    clock.advance(90)  # half of the window before is over: one and a half of three

    await ended(store, nacked, nacked)
    [found] = (await store.breakers(QUEUE, {"send": BREAKER})).values()
    assert ("closed", 4) == (found.state, found.failures)
    await ended(store, nacked)

    assert "open" == await state(store)


async def test_when_all_probes_do_well_it_closes_and_the_others_follow_at_once(store, redis, clock):
    await guard(store)
    await opened(store)
    await enqueued(store, *(f"a{n}" for n in range(5)))
    assert [] == await names(store)
    clock.advance(30)

    first, second = await take(store, 10)
    assert [] == await take(store, 10)
    await acked(store, first)
    assert ("half_open", []) == (await state(store), await names(store))
    await redis.unlink(keys().at("bell"))
    await acked(store, second)

    assert ("closed", 1) == (await state(store), await rings(redis))
    assert ["a2", "a3", "a4"] == await names(store)
    assert ["send", "send"] == await events(redis, "breaker")


async def test_a_probe_that_fails_opens_it_again(store, clock):
    await guard(store)
    await opened(store)
    await enqueued(store, *(f"a{n}" for n in range(5)))
    clock.advance(30)
    first, second = await take(store, 10)

    await nacked(store, first)
    assert ("open", []) == (await state(store), await names(store))
    # The other probe was of a time that is over: it closes nothing.
    await acked(store, second)
    assert ("open", []) == (await state(store), await names(store))

    clock.advance(30)
    assert ["a2", "a3"] == await names(store)


async def test_a_probe_whose_worker_was_killed_opens_it_again(store, clock):
    await guard(store)
    await opened(store)
    await enqueued(store, "a", "b", "c")
    clock.advance(30)
    assert ["a", "b"] == await names(store)
    clock.advance(60)

    assert 2 == await swept(store, clock)

    assert ("open", []) == (await state(store), await names(store))
    clock.advance(30)
    # Whichever of them ended its worker: each is given alone.
    assert (["a"], ["b"]) == (await names(store), await names(store))


@pytest.mark.parametrize("ending", [released, buried])
async def test_a_probe_that_tells_nothing_makes_room_for_another(store, clock, ending):
    await guard(store)
    await opened(store)
    await enqueued(store, "a", "b", "c")
    clock.advance(30)
    probe, _ = await take(store, 10)
    assert [] == await names(store)

    await ending(store, probe)

    assert "half_open" == await state(store)
    assert [probe.key if ending is released else "c"] == await names(store)


async def test_what_is_permanent_given_back_or_cancelled_counts_neither_way(store):
    await guard(store)
    await enqueued(store, *(f"a{n}" for n in range(12)), retry={"non_retryable": ["Refused"]})

    async def refused(store, job):
        assert "dead" == await nacked(store, job, kind="Refused")

    async def cancelled(store, job):
        await store.cancel(QUEUE, [job.key])
        assert "cancelled" == await nacked(store, job)

    await ended(store, *[buried, refused, cancelled] * 2, *[released] * 3, *[nacked] * 3)

    [found] = (await store.breakers(QUEUE, {"send": BREAKER})).values()
    assert ("closed", 0, 3) == (found.state, found.successes, found.failures)


async def test_crashes_and_timeouts_are_failures(store, clock):
    await guard(store)
    await enqueued(store, "a", "b", "c", "d", timeout_ms=10_000)
    await take(store, 2)
    await take(store, 2, lease_ms=5_000)
    clock.advance(60)

    assert 4 == await swept(store, clock)

    assert "open" == await state(store)


async def test_what_ran_when_it_opened_tells_no_probe(store, clock):
    await guard(store)
    await enqueued(store, "slow0", "slow1")
    slow = await take(store, 2)
    await opened(store)
    await enqueued(store, "a", "b", "c")
    clock.advance(30)
    assert ["a", "b"] == await names(store)

    await nacked(store, slow[0])
    await acked(store, slow[1])

    assert ("half_open", []) == (await state(store), await names(store))


async def test_a_reset_closes_it_and_rings(store, redis):
    await guard(store)
    await opened(store)
    await enqueued(store, "a", "b", "c")
    assert [] == await names(store)
    await redis.unlink(keys().at("bell"))

    assert await store.reset(QUEUE, "send")

    assert ("closed", 1) == (await state(store), await rings(redis))
    assert ["a", "b", "c"] == await names(store)
    assert not await store.reset(QUEUE, "send")
    assert ["send"] == await events(redis, "reset")


async def test_one_that_is_lifted_holds_nobody_and_begins_anew_when_set_again(store):
    await guard(store)
    await opened(store)
    await enqueued(store, "a", "b")
    assert [] == await names(store)

    await store.configure_type(QUEUE, "send", TypePolicy())
    assert ["a", "b"] == await names(store)
    await guard(store)

    assert "closed" == await state(store)


async def test_what_code_declares_holds_until_a_user_says_otherwise(store):
    await guard(store)
    await store.configure_type(QUEUE, "send", TypePolicy(breaker=BREAKER), declared=True)
    await store.configure_type(QUEUE, "send", None)
    await enqueued(store, *(f"bad{n}" for n in range(4)), retry={"immediate": 0})
    await ended(store, *[nacked] * 4)

    assert "open" == await state(store)


async def test_probes_and_a_limit_of_the_type_hold_together(store, clock):
    await guard(store, replace(GUARDED, concurrency=1))
    await opened(store)
    await enqueued(store, "a", "b", "c")
    clock.advance(30)

    [probe] = await take(store, 10)
    assert [] == await names(store)
    await acked(store, probe)
    assert ["b"] == await names(store)


async def test_a_worker_that_takes_only_this_type_is_told_when_to_come_again(store, clock):
    await guard(store)
    await opened(store)
    await enqueued(store, "a", "b", "c")
    await take(store, 10, types=["send"])
    clock.advance(27)

    assert 3000 == (await store.claim(QUEUE, worker="w", turn=1, types=["send"])).wait_ms
    clock.advance(3)
    assert ["a", "b"] == [job.key for job in await take(store, 10, types=["send"])]


async def test_groups_take_turns_behind_a_breaker_too(store, clock):
    await guard(store)
    await opened(store)
    for group in ("x", "y"):
        await enqueued(store, *(f"{group}{n}" for n in range(3)), group=group)
    assert [] == await names(store)
    clock.advance(30)

    for job in await take(store, 10):
        await acked(store, job)

    assert ["x1", "y1", "x2", "y2"] == await names(store)


async def test_a_clock_that_went_back_keeps_nobody_waiting_for_the_old_time(store, clock):
    await guard(store)
    await opened(store)
    await enqueued(store, "a")
    clock.advance(-3600)

    assert "half_open" == await state(store)
    assert ["a"] == await names(store)


async def test_nothing_is_counted_in_a_queue_without_a_breaker(store, redis):
    await store.configure_type(QUEUE, "send", TypePolicy(concurrency=5))
    await enqueued(store, "a", "b")
    await ended(store, acked, nacked)

    assert None is await redis.hget(keys().at("meters"), "breaker send")


# -- what a handler slows -----------------------------------------------------------------------------------------


async def test_a_retry_after_of_a_type_holds_the_type_and_no_other(store, redis, clock):
    await enqueued(store, "a", "b", "c")
    await enqueued(store, "x", type="other")
    [job] = await take(store)

    assert "retrying" == await nacked(store, job, retry_in_ms=20_000, scope="type")

    assert ["x"] == await names(store)
    clock.advance(19.999)
    assert [] == await names(store)
    clock.advance(0.001)
    assert {"a", "b", "c"} == set(await names(store))
    assert {} == await redis.hgetall(keys().at("meters"))


async def test_a_retry_after_of_a_group_holds_the_group_and_no_other(store, clock):
    await enqueued(store, "a", "b", group="g")
    [job] = await take(store)
    await enqueued(store, "x", group="other")
    await enqueued(store, "y")

    await nacked(store, job, retry_in_ms=20_000, scope="group")

    assert {"x", "y"} == set(await names(store))
    clock.advance(20)
    assert {"a", "b"} == set(await names(store))


async def test_a_shorter_one_does_not_shorten_it_and_a_repeat_does_not_lengthen_it(store, clock):
    await enqueued(store, "a", "b", "c")
    first, second = await take(store, 2)
    await nacked(store, first, retry_in_ms=20_000, scope="type")
    await nacked(store, second, retry_in_ms=5_000, scope="type")
    clock.advance(10)
    await nacked(store, first, retry_in_ms=20_000, scope="type")
    assert [] == await names(store)

    clock.advance(10)
    assert 3 == len(await names(store))


async def test_a_job_without_a_group_slows_nobody_by_its_group(store, redis):
    await enqueued(store, "a", "b")
    [job] = await take(store)

    await nacked(store, job, retry_in_ms=20_000, scope="group")

    assert ["b"] == await names(store)
    assert None is await redis.hget(keys().at("config"), "lanes")


async def test_a_worker_is_told_when_a_slowed_type_may_go_on(store, clock):
    await enqueued(store, "a", "b")
    [job] = await take(store)
    await nacked(store, job, retry_in_ms=3_000, scope="type")

    assert 3000 == (await store.claim(QUEUE, worker="w", turn=1)).wait_ms


async def test_a_queue_gets_its_lanes_with_all_that_waits_in_it(store, clock):
    await store.enqueue(QUEUE, [NewJob(type="send", key=f"a{n}", queue=QUEUE) for n in range(600)])
    [job] = await take(store)
    await nacked(store, job, retry_in_ms=3_000, scope="type")
    clock.advance(3)

    found = [key for _ in range(12) for key in await names(store, 100)]

    assert 600 == len(set(found))

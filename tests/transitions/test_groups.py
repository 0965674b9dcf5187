"""Who runs next in a queue with groups: they take turns, in order of their weights."""

import pytest

from scheduler.job import Unique
from scheduler.outcomes import Nack
from tests.helpers import QUEUE, acked, damaged, enqueued, faults, keys, new, states_of, take


async def test_groups_take_turns(store):
    await enqueued(store, *(f"a{n}" for n in range(5)), group="a")
    await enqueued(store, "b0", "b1", group="b")
    await enqueued(store, "c0", group="c")

    assert ["a0", "b0", "c0", "a1", "b1", "a2", "a3", "a4"] == [job.key for job in await take(store, 10)]


async def test_one_at_a_time_is_the_same(store):
    await enqueued(store, *(f"a{n}" for n in range(5)), group="a")
    await enqueued(store, "b0", "b1", group="b")
    await enqueued(store, "c0", group="c")

    found = []
    for _ in range(8):
        [job] = await take(store)
        found.append(job.key)
        await acked(store, job)
    assert ["a0", "b0", "c0", "a1", "b1", "a2", "a3", "a4"] == found
    assert [] == await take(store)


async def test_jobs_that_stood_there_before_are_filed(store):
    await enqueued(store, "x", "y", "z")
    await enqueued(store, "a0", "a1", group="a")

    assert ["x", "a0", "y", "a1", "z"] == [job.key for job in await take(store, 10)]


@pytest.mark.parametrize("priority", [-100, 100])
async def test_a_job_that_moves_while_the_queue_is_filed_takes_no_others_with_it(store, redis, priority):
    for n in range(3):
        await store.enqueue(QUEUE, [new(f"k{n}.{i}") for i in range(300)])
    await enqueued(store, "a", group="a")
    await take(store)
    last = (await redis.hget(keys().at("counters"), "filed")).decode().split()[1]
    await store.update(QUEUE, last, priority=priority)

    found = 1
    for _ in range(4):
        found += len(await take(store, 250))
    assert 901 == found
    assert [] == await faults(store)


async def test_a_job_that_the_call_of_the_first_group_makes_ready_is_filed_too(store):
    unique = Unique(key="k", on_conflict="replace")
    await store.enqueue(QUEUE, [new("x", unique=unique, delay_ms=60_000)])
    await store.enqueue(QUEUE, [new("y", unique=unique), new("a", group="a")])

    assert ["x", "a"] == [job.key for job in await take(store, 10)]


async def test_a_claim_that_its_bytes_end_leaves_the_rest_in_turn(store):
    for n in range(14):
        await enqueued(store, f"a{n}", group="a", payload=b'"' + 700_000 * b"x" + b'"')
        if n < 3:
            await enqueued(store, f"b{n}", group="b", payload=b'"' + 700_000 * b"y" + b'"')

    found = []
    while jobs := await take(store, 20):
        assert len(jobs) <= 6
        found += [job.key for job in jobs]
        assert [] == await faults(store)
    assert ["a0", "b0", "a1", "b1", "a2", "b2", *(f"a{n}" for n in range(3, 14))] == found


async def test_a_line_goes_on_where_its_booked_turns_end(store):
    await enqueued(store, *(f"a{n:02}" for n in range(25)), group="a")
    await enqueued(store, *(f"b{n:02}" for n in range(25)), group="b")

    found = []
    for count in (3, 14, 5, 1, 20, 20):
        found += [job.key for job in await take(store, count)]
        assert [] == await faults(store)
    assert [f"{group}{n:02}" for n in range(25) for group in "ab"] == found


async def test_the_best_job_of_a_call_is_first_wherever_it_stands_in_it(store):
    jobs = [new(f"a{n:02}", group="a", priority=n // 11) for n in range(12)]
    await store.enqueue(QUEUE, jobs)

    assert ["a11", *(f"a{n:02}" for n in range(11))] == [job.key for job in await take(store, 20)]


async def test_a_line_that_ends_where_a_claim_read_it_has_nobody_behind_its_booked_turns(store):
    await enqueued(store, *(f"a{n:02}" for n in range(18)), group="a")

    await take(store, 10)
    assert [] == await faults(store)


async def test_with_the_last_job_that_waits_all_turns_are_forgotten(store, redis):
    await enqueued(store, "a", group="a")
    await enqueued(store, "b", group="b")

    await take(store, 2)
    assert 0 == await redis.exists(keys().at("turns"))


async def test_a_group_that_comes_back_gains_nothing(store):
    """One job of it waits at any time: whenever it runs the next one comes."""
    await enqueued(store, *(f"b{n}" for n in range(5)), group="b")
    found: list[str] = []
    for _ in range(10):
        served = sum(key.startswith("a") for key in found)
        if not found or found[-1].startswith("a"):
            await enqueued(store, f"a{served}", group="a")
        found += [job.key for job in await take(store)]

    assert ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3", "a4", "b4"] == found


async def test_what_is_damaged_or_late_uses_its_turn_and_holds_up_nobody(store, clock):
    await enqueued(store, "a0", group="a")
    await enqueued(store, "a1", group="a", expires_in_ms=1000)
    await enqueued(store, "a2", "a3", group="a")
    await enqueued(store, "b0", "b1", group="b")
    await damaged(store, "b0")
    assert [] == await faults(store)
    clock.advance(2)

    assert ["a0", "b1", "a2", "a3"] == [job.key for job in await take(store, 10)]
    assert ["cancelled", "dead"] == await states_of(store, "a1", "b0")


@pytest.mark.parametrize("scope", ["type", "group"])
async def test_a_run_that_slows_its_group_down_makes_lanes_of_the_lines(store, clock, scope):
    await enqueued(store, *(f"a{n}" for n in range(12)), group="a", type="slow")
    await enqueued(store, "b0", "b1", group="b")
    [job] = await take(store)
    nack = Nack(job.key, job.token, "E", "too many requests", retry_in_ms=5000, scope=scope)
    await store.nack(QUEUE, [nack], worker="w")

    assert ["b0", "b1"] == [job.key for job in await take(store, 20)]
    assert [] == await take(store, 20)
    clock.advance(6)
    assert {f"a{n}" for n in range(12)} == {job.key for job in await take(store, 20)}


async def test_a_claim_that_names_types_makes_lanes_of_the_lines(store):
    await enqueued(store, *(f"a{n}" for n in range(12)), group="a", type="slow")
    await enqueued(store, "b0", "b1", group="b")

    assert ["b0", "b1"] == [job.key for job in await take(store, 20, types=["send"])]
    assert [f"a{n}" for n in range(12)] == [job.key for job in await take(store, 20)]

"""Limits of a queue, its types and its groups: exact, true at once, and nothing that is held is forgotten."""

import pytest

from tests.helpers import (
    QUEUE,
    acked,
    enqueued,
    keys,
    nacked,
    new,
    released,
    rings,
    swept,
    take,
)


async def limit(redis, *, queue=None, types=None, groups=None):
    """Policies as `configure` writes them."""
    if await redis.hget(keys().at("config"), "lanes") != b"2":
        await redis.delete(*(keys().at(part) for part in ("lanes", "heads", "turns")))
        await redis.hdel(keys().at("counters"), "filed", "counted")
    await redis.hset(keys().at("config"), mapping={"lanes": "2", "slots": "1", **(queue or {})})
    for name, line in (types or {}).items():
        await redis.hset(keys().at("types"), name, line + "\n")
    for name, line in (groups or {}).items():
        await redis.hset(keys().at("groups"), name, line)
    for scope in ["q", "*", *(f"t{name}" for name in types or {}), *(f"g{name}" for name in groups or {})]:
        await redis.zadd(keys().at("waits"), {scope: 0}, xx=scope != "*")


async def names(store, count=10, **options):
    return [job.key for job in await take(store, count, **options)]


async def test_of_a_type_no_more_run_than_its_concurrency(store, redis):
    await limit(redis, types={"send": "|2|||||"})
    await enqueued(store, *(f"a{n}" for n in range(5)))
    await enqueued(store, "x", "y", type="other")

    first = await take(store, 10)
    assert ["a0", "a1", "x", "y"] == [job.key for job in first]
    assert [] == await take(store, 10)

    assert "succeeded" == await acked(store, first[0])
    assert ["a2"] == await names(store)


@pytest.mark.parametrize("ending", [acked, nacked, released])
async def test_a_slot_comes_back_however_a_run_ends_and_rings(store, redis, ending):
    await limit(redis, types={"send": "|1|||||"})
    await enqueued(store, "a", "b", retry={"immediate": 0})
    [job] = await take(store)
    assert [] == await take(store)
    await redis.unlink(keys().at("bell"))

    await ending(store, job)

    assert 1 == await rings(redis)
    assert 1 == len(await take(store, 10))


async def test_a_slot_comes_back_with_the_lease_of_a_worker_that_is_gone(store, redis, clock):
    await limit(redis, types={"send": "|1|||||"})
    await enqueued(store, "a", "b")
    await take(store, 10)
    clock.advance(60)

    assert 1 == await swept(store, clock)
    assert ["a"] == await names(store)


async def test_of_the_queue_and_of_each_group_no_more_run_either(store, redis):
    await limit(redis, queue={"concurrency": "4", "group_concurrency": "2"}, groups={"big": "1|3||||"})
    await enqueued(store, *(f"a{n}" for n in range(4)), group="a")
    await enqueued(store, *(f"b{n}" for n in range(4)), group="big")

    found = await take(store, 10)
    assert ["a0", "b0", "a1", "b1"] == [job.key for job in found]
    assert [] == await names(store)
    for job in found[1::2]:
        await acked(store, job)
    assert ["b2", "b3"] == await names(store)
    await acked(store, found[0])
    assert ["a2"] == await names(store)


async def test_a_rate_starts_one_each_interval_and_burst_more_at_once(store, redis, clock):
    await limit(redis, types={"send": "||10|1000|2|"})
    await enqueued(store, *(f"a{n}" for n in range(9)))

    assert ["a0", "a1", "a2"] == await names(store)
    assert [] == await names(store)
    clock.advance(0.099)
    assert [] == await names(store)
    clock.advance(0.001)
    assert ["a3"] == await names(store)
    clock.advance(0.2)
    assert ["a4", "a5"] == await names(store)
    clock.advance(60)
    assert ["a6", "a7", "a8"] == await names(store)


async def test_a_worker_is_told_when_the_rate_lets_the_next_one_start(store, redis, clock):
    await limit(redis, queue={"rate": "10|1000|0"})
    await enqueued(store, "a", "b")
    assert ["a"] == await names(store, 1)

    assert 100 == (await store.claim(QUEUE, worker="w", turn=1)).wait_ms


async def test_a_cost_uses_more_of_a_rate(store, redis, clock):
    await limit(redis, types={"send": "||10|1000|0|"})
    await enqueued(store, "dear", cost=5)
    await enqueued(store, "next")

    assert ["dear"] == await names(store)
    clock.advance(0.499)
    assert [] == await names(store)
    clock.advance(0.001)
    assert ["next"] == await names(store)


async def test_another_rate_holds_at_once_for_what_waits(store, redis, clock):
    await limit(redis, types={"send": "||1|3600000|0|"})
    await enqueued(store, "a", "b", "c")
    assert ["a"] == await names(store)
    assert [] == await names(store)

    await limit(redis, types={"send": "||10|1000|0|"})
    assert [] == await names(store)
    clock.advance(0.1)
    assert ["b"] == await names(store)
    await limit(redis, types={"send": "||||||"})
    assert ["c"] == await names(store)


async def test_another_default_for_groups_holds_at_once_for_all_of_them(store, redis):
    await limit(redis, queue={"group_concurrency": "1"})
    for group in ("a", "b", "c"):
        await enqueued(store, *(f"{group}{n}" for n in range(3)), group=group)
    assert ["a0", "b0", "c0"] == await names(store)
    assert [] == await names(store)

    await limit(redis, queue={"group_concurrency": "2"})
    assert ["a1", "b1", "c1"] == await names(store)


async def test_a_type_or_a_group_that_is_paused_holds_back_no_other(store, redis):
    await enqueued(store, "a", "b", type="first", group="x")
    await enqueued(store, "c", "d", group="x")
    await enqueued(store, "e", type="first", group="y")
    await limit(redis, types={"first": "|||||1|"}, groups={"y": "|||||1"})

    assert ["c", "d"] == await names(store)
    await limit(redis, types={"first": "||||||"})
    assert ["a", "b"] == await names(store)
    await limit(redis, groups={"y": "|||||"})
    assert ["e"] == await names(store)


async def test_a_worker_can_ask_for_some_types_only(store, redis):
    await enqueued(store, "a", "b", type="first")
    await enqueued(store, "c", "d", type="second", group="x")
    await enqueued(store, "e", type="second", group="y")

    assert ["c", "e"] == await names(store, 2, types=["second", "third"])
    assert ["a", "b", "d"] == await names(store, 10, types=["first", "second"])
    assert [] == await names(store, types=["second"])


async def test_what_is_held_can_be_cancelled_and_deleted_and_changed(store, redis):
    await limit(redis, types={"send": "|1|||||"})
    await enqueued(store, "a", "b", "c", "d")
    [job] = await take(store)
    assert [] == await take(store)

    await store.update(QUEUE, "d", priority=9)
    assert ["cancelled"] == await store.cancel(QUEUE, ["b"])
    await acked(store, job)
    assert ["d"] == await names(store)
    await store.purge(QUEUE, ["c"])


async def test_running_jobs_count_that_were_claimed_before_there_was_a_limit(store, redis):
    await enqueued(store, "a", "b", "c")
    [job] = await take(store)

    await limit(redis, types={"send": "|1|||||"})
    assert [] == await take(store, 10)
    await acked(store, job)
    assert ["b"] == await names(store)


async def test_a_job_behind_more_held_types_than_one_call_looks_at_is_not_forgotten(store, redis):
    held = [f"type-{n}" for n in range(1100)]
    await limit(redis, types=dict.fromkeys(held, "|||||1|"))
    for start in range(0, len(held), 500):
        await store.enqueue(QUEUE, [new(f"k-{name}", type=name) for name in held[start : start + 500]])
    await enqueued(store, "free", type="other")

    found: list[str] = []
    for _ in range(5):
        found += await names(store, 1)
    assert ["free"] == found


async def test_a_slot_comes_back_when_a_running_job_has_lost_its_record(store, redis, clock):
    await limit(redis, types={"send": "|1|||||"})
    await enqueued(store, "a", "b")
    await take(store)
    await redis.hdel(keys().at("jobs"), "a")
    clock.advance(60)

    assert 1 == await swept(store, clock)
    assert ["b"] == await names(store)

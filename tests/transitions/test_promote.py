"""scheduled, retrying -> ready: what is due, and `run` by name."""

from scheduler.job import State
from tests.helpers import (
    QUEUE,
    STATES,
    claimed,
    damaged,
    enqueued,
    events,
    in_every_state,
    keys,
    look,
    nacked,
    new,
    on_real_servers,
    race,
    snapshot,
    states_of,
    take,
    taken,
)


async def test_what_is_due_becomes_ready_and_what_is_not_waits(store, clock):
    await enqueued(store, "a", "b", delay_ms=1000)
    await enqueued(store, "c", delay_ms=1001)
    await enqueued(store, "d", retry={"immediate": 0})
    await nacked(store, await taken(store, "d"), retry_in_ms=1000)

    clock.advance(0.999)
    assert (0, False) == await store.promote(QUEUE)
    clock.advance(0.001)
    assert (3, False) == await store.promote(QUEUE)
    assert ["ready", "ready", "scheduled", "ready"] == await states_of(store, *"abcd")
    assert ["a", "b", "d"] == sorted(job.key for job in await take(store, 5))


async def test_promoting_again_changes_nothing(store, clock, redis):
    await enqueued(store, "a", delay_ms=1000)
    clock.advance(1)
    await store.promote(QUEUE)
    before = await snapshot(redis)

    assert (0, False) == await store.promote(QUEUE)
    assert before == await snapshot(redis)


async def test_a_page_is_bounded_and_says_whether_more_are_due(store, clock):
    await enqueued(store, *(f"k{n}" for n in range(25)), delay_ms=1000)
    clock.advance(1)

    assert [(10, True), (10, True), (5, False), (0, False)] == [
        await store.promote(QUEUE, limit=10) for _ in range(4)
    ]


async def test_large_payloads_are_not_read_and_end_no_page(store, clock):
    await store.enqueue(QUEUE, [new(f"k{n}", payload=b"x" * 1024 * 1024, delay_ms=1) for n in range(8)])
    clock.advance(1)

    assert [(8, False), (0, False)] == [await store.promote(QUEUE) for _ in range(2)]


async def test_on_a_queue_that_is_not_there_nothing_is_due(store, redis):
    before = await snapshot(redis)

    assert (0, False) == await store.promote("nowhere")
    assert ["missing", "missing"] == await store.promote_ids("nowhere", ["a", "b"])
    assert before == await snapshot(redis)


async def test_a_job_that_is_run_is_ready_and_its_planned_time_is_gone(store):
    await enqueued(store, "a", delay_ms=3_600_000)

    assert ["ready"] == await store.promote_ids(QUEUE, ["a"])
    assert (State.READY, None) == ((await look(store)).state, (await look(store)).run_at)
    assert 1 == (await taken(store)).attempt


async def test_a_retrying_job_that_is_run_does_not_wait_for_its_backoff(store, clock):
    await nacked(store, await claimed(store, retry={"immediate": 0}))

    assert ["ready"] == await store.promote_ids(QUEUE, ["a"])
    assert 2 == (await taken(store)).attempt
    clock.advance(3600)
    assert [] == await take(store)


async def test_only_a_scheduled_or_retrying_job_is_run(store, redis):
    states = [state for state in STATES if state not in {"scheduled", "retrying"}]
    await in_every_state(store, states)
    before = await snapshot(redis)

    refused = ["already" if state == "ready" else state for state in states]
    assert refused == await store.promote_ids(QUEUE, states)
    assert ["missing"] == await store.promote_ids(QUEUE, ["nobody"])
    assert before == await snapshot(redis)


async def test_a_run_repeated_says_where_the_job_is_now(store, redis):
    await enqueued(store, "a", delay_ms=1000)
    await store.promote_ids(QUEUE, ["a"])
    before = await snapshot(redis)

    assert ["already"] == await store.promote_ids(QUEUE, ["a"])
    assert before == await snapshot(redis)


async def test_one_id_twice_is_run_once(store):
    await enqueued(store, "a", "b", delay_ms=1000)

    assert ["ready", "ready", "ready"] == await store.promote_ids(QUEUE, ["a", "b", "a"])
    assert ["a", "b"] == [job.key for job in await take(store, 5)]


async def test_promoting_rings_and_reports(store, clock, redis):
    await enqueued(store, "a", delay_ms=3_600_000)
    clock.advance(3600)
    assert 0 == await redis.llen(keys().at("bell"))
    await store.promote(QUEUE)

    assert 1 == await redis.llen(keys().at("bell"))
    assert ["a"] == await events(redis, "promote")


@on_real_servers
async def test_of_many_at_once_each_job_is_promoted_once(store, another_store, clock):
    await enqueued(store, *(f"k{n}" for n in range(200)), delay_ms=1000)
    clock.advance(1)

    counts = await race(*((store, another_store)[n % 2].promote(QUEUE, limit=30) for n in range(20)))
    assert 200 == sum(count for count, _ in counts)
    assert 200 == (await store.census(QUEUE)).counts["ready"]
    await store.purge_page(QUEUE, "ready", limit=500)


async def test_a_damaged_record_is_promoted_and_buried_by_the_claim(store, clock, redis):
    await enqueued(store, "a", delay_ms=1000)
    await damaged(store, "a", "damaged")
    clock.advance(1)

    assert (1, False) == await store.promote(QUEUE)
    assert [] == await take(store)
    assert ["dead"] == await states_of(store, "a")

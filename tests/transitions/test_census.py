"""A queue at a glance; read only."""

import pytest

from scheduler.errors import NotFound
from tests.helpers import (
    QUEUE,
    STATES,
    acked,
    claimed,
    enqueued,
    in_every_state,
    in_state,
    raw,
    snapshot,
    take,
)


async def test_each_state_is_counted_and_nothing_changes(store, redis):
    await in_every_state(store)
    await enqueued(store, "another", "and-another")
    before = await snapshot(redis)

    counts = (await store.census(QUEUE)).counts
    assert {state: 3 if state == "ready" else 1 for state in STATES} == counts
    assert before == await snapshot(redis)


async def test_counts_are_the_lengths_of_the_lists(store):
    await in_every_state(store)

    assert (await store.census(QUEUE)).counts == {
        state: len((await store.list(QUEUE, state))[0]) for state in STATES
    }


async def test_a_queue_that_is_not_there_is_not_found(store, redis):
    before = await snapshot(redis)

    with pytest.raises(NotFound):
        await store.census("nowhere")
    assert before == await snapshot(redis)


async def test_a_queue_is_there_though_it_is_empty(store):
    await in_state(store, "dead")
    await store.purge(QUEUE, ["a"])

    assert dict.fromkeys(STATES, 0) == (await store.census(QUEUE)).counts


async def test_configuration_and_counters_come_along(store, clock):
    await store.configure(QUEUE, {"paused": "1"})
    await store.configure(QUEUE, {"paused": ""})
    await acked(store, await claimed(store))

    census = await store.census(QUEUE)
    assert (clock.now, 2, {"created": str(clock.now), "version": "2"}) == (
        census.now,
        census.version,
        census.config,
    )
    assert ("1", "1") == (census.counters["enqueue"], census.counters["ack"])


async def test_the_oldest_wait_is_empty_when_nothing_is_ready(store):
    await enqueued(store, "a")
    assert (await store.census(QUEUE)).oldest_ready_at is not None
    await take(store)

    assert (await store.census(QUEUE)).oldest_ready_at is None


async def test_the_reply_tells_fields_from_counters_by_their_number(store, clock):
    await store.configure(QUEUE, {"paused": "1"})

    reply = await raw(store, "census")
    assert (str(clock.now).encode(), 1, [0] * 8, b"", 3) == (
        reply[0],
        reply[1],
        reply[2:10],
        reply[10],
        reply[11],
    )
    assert 12 + 2 * 3 == len(reply)

"""A whole queue -> gone."""

import pytest

from scheduler.outcomes import Ack, Extend, Nack
from scheduler.store import Store
from tests.helpers import QUEUE, WORKER, claimed, enqueued, in_every_state, race, snapshot, take
from tests.transitions.cases import world


async def left(redis):
    """The keys of the queue that are there."""
    return [name for name in await snapshot(redis) if "{scheduler:mail}" in name]


@pytest.mark.unverified
async def test_nothing_of_the_queue_is_left(store, redis, clock):
    await world(store, clock)
    assert len(await left(redis)) > 20

    assert "running" == await store.obliterate(QUEUE)
    assert len(await left(redis)) > 20
    assert "gone" == await store.obliterate(QUEUE, force=True)

    assert ([], []) == (await left(redis), await store.queues())
    assert "missing" == await store.obliterate(QUEUE, force=True)


async def test_without_a_running_job_it_needs_no_force(store, redis):
    await enqueued(store, "a")

    assert "gone" == await store.obliterate(QUEUE)
    assert [] == await left(redis)


async def test_settlements_that_come_later_find_nothing(store, redis):
    tokens = await in_every_state(store)
    held = tokens["running"]
    assert "gone" == await store.obliterate(QUEUE, force=True)

    assert ["missing"] == await store.ack(QUEUE, [Ack("running", held, b"1")], worker=WORKER)
    assert ["missing"] == await store.nack(QUEUE, [Nack("running", held, "E", "no")], worker=WORKER)
    assert ["missing"] == await store.extend(QUEUE, [Extend("running", held, 1000)])
    assert [] == await left(redis)


async def test_a_token_is_not_given_again_after_it(store, clock):
    before = await claimed(store)
    await store.obliterate(QUEUE, force=True)
    clock.advance(0.001)
    [after] = await _again(store)

    assert after.token > before.token
    assert ["stale"] == await store.ack(QUEUE, [Ack("a", before.token, b"1")], worker=WORKER)


async def _again(store):
    await enqueued(store, "a")
    return await take(store)


async def test_the_queue_may_begin_again_at_once(store):
    await enqueued(store, "a")
    await store.obliterate(QUEUE)
    await enqueued(store, "a")

    assert [QUEUE] == await store.queues()
    assert 1 == (await store.census(QUEUE)).counts["ready"]


async def test_a_queue_that_begins_anew_meanwhile_stays_registered(store, clients, clock, monkeypatch):
    await enqueued(store, "a")
    other, real, names = Store(clients, now=clock), store._read, iter("bcdefgh")

    async def slow(ask):
        await enqueued(other, next(names))
        return await real(ask)

    with monkeypatch.context() as patched:
        patched.setattr(store, "_read", slow)
        assert "gone" == await store.obliterate(QUEUE)

    assert [QUEUE] == await store.queues()


async def test_a_queue_that_somebody_else_struck_out_is_found_by_the_scan(store, redis):
    await enqueued(store, "a")
    await redis.delete("{scheduler}:queues")
    assert [] == await store.queues()

    assert (0, [QUEUE]) == await store.stray_queues(0)
    assert ([QUEUE], (0, [])) == (await store.queues(), await store.stray_queues(0))


async def test_of_ten_at_once_one_does_it_and_no_job_is_half_gone(store):
    for round_ in range(5):
        await enqueued(store, f"a{round_}")
        outcomes = await race(
            *(store.obliterate(QUEUE, force=True) for _ in range(10)), take(store, 5), return_exceptions=False
        )
        assert 1 == outcomes[:10].count("gone")

"""A queue that holds no more waiting jobs than its `max_length`, nor more bytes of them than its `max_bytes`."""

import pytest

from scheduler.errors import Invalid, QueueFull, StoreRefused
from scheduler.outcomes import Ack
from scheduler.producing import LONGEST_PAUSE
from tests.helpers import QUEUE, WORKER, buried, claimed, enqueued, keys, nacked, new, race, take


async def outcomes(store, *names, **fields):
    return [one.outcome for one in await store.enqueue(QUEUE, [new(name, **fields) for name in names])]


async def limited(store, most):
    await store.configure(QUEUE, {"max_length": str(most)})


async def test_what_finds_no_room_is_not_taken_in_and_the_others_are(store):
    await limited(store, 3)
    await enqueued(store, "a", delay_ms=60_000)

    assert ["ready", "ready", "full", "full"] == await outcomes(store, "b", "c", "d", "e")
    assert ["full"] == await outcomes(store, "f", delay_ms=5)
    assert [None] == await store.inspect(QUEUE, ["d"])
    counts = (await store.census(QUEUE)).counts
    assert (2, 1) == (counts["ready"], counts["scheduled"])


async def test_a_standing_job_is_found_though_the_queue_is_full(store):
    await limited(store, 1)
    await enqueued(store, "a")

    assert ["exists", "full", "exists"] == await outcomes(store, "a", "b", "a")


async def test_running_retrying_and_ended_jobs_take_no_room(store):
    await limited(store, 1)
    await claimed(store, "runs")
    job = await claimed(store, "fails", retry={"immediate": 0})
    await nacked(store, job)
    done = await claimed(store, "done")
    await store.ack(QUEUE, [Ack("done", done.token, b"1")], worker=WORKER)

    assert ["ready", "full"] == await outcomes(store, "a", "b")
    await take(store)
    assert ["ready"] == await outcomes(store, "b")


async def test_of_a_hundred_at_once_as_many_are_taken_in_as_there_is_room(store):
    await limited(store, 30)

    found = await race(*(store.enqueue_one(new(f"j{n}")) for n in range(100)), return_exceptions=True)

    assert 70 == sum(isinstance(one, QueueFull) for one in found)
    assert 30 == (await store.census(QUEUE)).counts["ready"]


async def test_a_lower_limit_keeps_what_stands_and_none_lets_everybody_in(store):
    await enqueued(store, "a", "b", "c")
    await limited(store, 1)
    assert ["full"] == await outcomes(store, "d")
    assert 3 == (await store.census(QUEUE)).counts["ready"]
    await limited(store, 0)
    await take(store, 3)
    assert ["full"] == await outcomes(store, "d")
    await store.configure(QUEUE, {"max_length": ""})
    assert ["ready"] == await outcomes(store, "d")


async def test_the_pause_comes_of_how_fast_the_queue_drained(store, clock):
    await limited(store, 1_000)
    assert LONGEST_PAUSE == (await store.no_room(QUEUE)).retry_after
    for n in range(30):
        job = await claimed(store, f"j{n}", retention_ms=60_000 if n % 2 else None)
        await store.ack(QUEUE, [Ack(job.key, job.token, b"1")], worker=WORKER)
    # Thirty a minute: a hundredth of a thousand takes twenty seconds.
    assert 20 == (await store.no_room(QUEUE)).retry_after
    clock.advance(61)
    assert LONGEST_PAUSE == (await store.no_room(QUEUE)).retry_after


async def test_many_are_each_told(store):
    await limited(store, 2)

    found = await store.enqueue_each([new(f"j{n}") for n in range(4)] + [new("k", queue="other")])

    assert ["ready", "ready"] == [one.outcome for one in found[:2]]
    assert ["mail", "mail"] == [one.queue for one in found[2:4]]
    assert all(isinstance(one, QueueFull) and 1 <= one.retry_after <= LONGEST_PAUSE for one in found[2:4])
    assert "ready" == found[4].outcome


@pytest.mark.parametrize("value", ["-1", "1.5", "many"])
async def test_a_limit_that_is_no_number_is_refused(store, value):
    with pytest.raises((StoreRefused, Invalid)):
        await store.configure(QUEUE, {"max_length": value})


async def weighed(store):
    return int((await store.census(QUEUE)).counters.get("bytes_unfinished", 0))


async def test_where_the_unfinished_jobs_have_max_bytes_no_more_are_taken_in(store):
    assert ["ready"] == await outcomes(store, "a", payload=b'"%s"' % (b"x" * 1000))
    await store.configure(QUEUE, {"max_bytes": str(2 * await weighed(store) + 100)})

    assert ["ready", "full"] == await outcomes(store, "b", "c", payload=b'"%s"' % (b"x" * 1000))
    assert ["full"] == await outcomes(store, "d", payload=b'"%s"' % (b"x" * 1000), delay_ms=60_000)
    assert ["ready"] == await outcomes(store, "small")
    [job] = await take(store)
    assert ["full"] == await outcomes(store, "c", payload=b'"%s"' % (b"x" * 1000))
    await store.ack(QUEUE, [Ack(job.key, job.token, b"1")], worker=WORKER)
    assert ["ready"] == await outcomes(store, "c", payload=b'"%s"' % (b"x" * 1000))


async def test_a_job_that_is_larger_than_max_bytes_is_taken_in_where_nothing_else_waits(store):
    await store.configure(QUEUE, {"max_bytes": "100"})

    assert ["ready", "full"] == await outcomes(store, "a", "b", payload=b'"%s"' % (b"x" * 1000))


async def test_the_count_of_bytes_is_nothing_again_when_all_is_done(store):
    await enqueued(store, "gone", "changed", "cancelled", "dies", "later", payload=b'"some text"')
    await store.purge(QUEUE, ["gone"])
    await store.update(QUEUE, "changed", payload=b'"a good deal more text than before"')
    assert ["cancelled"] == await store.cancel(QUEUE, ["cancelled"])
    for job in await take(store, 10):
        if job.key == "dies":
            await buried(store, job)
        else:
            await store.ack(QUEUE, [Ack(job.key, job.token, b"1")], worker=WORKER)
    assert 0 == await weighed(store)

    assert ["ready"] == await store.replay(QUEUE, [("dies", None)])
    assert await weighed(store) > 0


@pytest.mark.unverified
async def test_a_count_of_bytes_that_is_wrong_is_found_and_put_right(store, redis):
    await enqueued(store, "a")
    right = await weighed(store)
    await redis.hset(keys().at("counters"), "bytes_unfinished", 7)

    [fault] = [one async for one in store.verify(QUEUE, repair=True)]
    assert ("bytes_unfinished", True) == (fault.id, fault.repaired)
    assert right == await weighed(store)
    assert [] == [one async for one in store.verify(QUEUE)]


async def test_a_draining_queue_says_so_and_gives_out_what_stands(store):
    await enqueued(store, "a")
    await store.configure(QUEUE, {"draining": "1"})

    with pytest.raises(QueueFull, match="is draining") as refused:
        await store.enqueue_one(new("b"))
    again = await store.enqueue(QUEUE, [new("a"), new("c")])

    assert (True, LONGEST_PAUSE) == (refused.value.draining, refused.value.retry_after)
    assert ["exists", "full"] == [one.outcome for one in again]
    assert ["a"] == [job.key for job in await take(store)]

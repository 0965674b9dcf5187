"""Who is woken, and when: the bell, and the one worker that watches the time."""

from tests.helpers import (
    QUEUE,
    acked,
    claimed,
    enqueued,
    nacked,
    new,
    released,
    rings,
    take,
    taken,
)

LONG = range(4000, 6001)
"""How long a worker waits that nobody wakes: 5 s, a fifth more or less."""


async def waits(store, worker="w1"):
    """An idle worker's claim gives nothing and says when to come again, in ms."""
    found = await store.claim(QUEUE, worker=worker)
    assert [] == found.jobs
    return found.wait_ms


async def idle(store) -> None:
    """A queue in which nothing waits."""
    await acked(store, await claimed(store, "first"))


async def test_the_bell_holds_one_ring_however_many_jobs_come(store, redis):
    await enqueued(store, "a", "b")
    await enqueued(store, "c")

    assert 1 == await rings(redis)


async def test_jobs_that_are_there_already_do_not_ring(store, redis):
    await enqueued(store, "a")
    await rings(redis)
    await store.enqueue(QUEUE, [new("a")])

    assert 0 == await rings(redis)


async def test_a_claim_rings_on_when_more_is_runnable(store, redis):
    await enqueued(store, "a", "b", "c")
    await rings(redis)

    await take(store, 2)
    assert 1 == await rings(redis)
    await take(store, 2)
    assert 0 == await rings(redis)


async def test_a_claim_that_gives_something_has_nothing_to_wait_for(store):
    await enqueued(store, "a")

    assert 0 == (await store.claim(QUEUE, worker="w1")).wait_ms


async def test_an_idle_worker_comes_again_in_about_five_seconds(store, clock):
    await idle(store)
    found = set()
    for _ in range(20):
        clock.advance(0.137)
        found.add(await waits(store))

    assert all(wait in LONG for wait in found)
    assert 10 < len(found)


async def test_one_worker_watches_the_time_of_the_next_due_job_and_the_others_do_not(store):
    await idle(store)
    await enqueued(store, "a", delay_ms=2000)

    assert 2000 == await waits(store, "w1")
    assert await waits(store, "w2") in LONG
    assert await waits(store, "w3") in LONG
    assert 2000 == await waits(store, "w1")


async def test_who_will_not_wait_so_long_does_not_watch(store):
    await idle(store)
    await enqueued(store, "a", delay_ms=2000)
    for patience in (0, 1999):
        hasty = store.claim_call(
            QUEUE, worker="hasty", turn="", count=1, lease_ms=30_000, patience_ms=patience
        )
        assert (await store.run(hasty)).wait_ms in LONG

    assert 2000 == await waits(store, "w1")


async def test_a_retrying_job_is_watched_like_a_scheduled_one(store):
    await nacked(store, await claimed(store, retry={"immediate": 0}), retry_in_ms=1500)
    await enqueued(store, "b", delay_ms=2000)

    assert 1500 == await waits(store)


async def test_what_is_due_later_than_anybody_waits_is_not_watched(store):
    await idle(store)
    await enqueued(store, "a", delay_ms=6001)

    assert await waits(store, "w1") in LONG
    assert await waits(store, "w2") in LONG


async def test_a_timekeeper_that_does_not_come_is_replaced(store, clock):
    await idle(store)
    await enqueued(store, "a", delay_ms=2000)
    await enqueued(store, "b", delay_ms=3000)
    assert 2000 == await waits(store, "w1")
    clock.advance(2.499)
    await taken(store, "a", worker="w2")  # woken by chance
    assert await waits(store, "w2") in LONG

    clock.advance(0.001)
    assert 500 == await waits(store, "w2")


async def test_what_is_due_before_the_timekeeper_wakes_rings(store, redis):
    await idle(store)
    await enqueued(store, "a", delay_ms=3000)
    await waits(store, "w1")
    await rings(redis)

    await enqueued(store, "later", delay_ms=4000)
    await enqueued(store, "same", delay_ms=3000)
    assert 0 == await rings(redis)
    await enqueued(store, "earlier", delay_ms=2000)
    assert 1 == await rings(redis)


async def test_without_a_timekeeper_what_is_due_soon_rings_and_what_is_due_later_does_not(store, redis):
    await idle(store)
    await rings(redis)

    await enqueued(store, "late", delay_ms=6001)
    assert 0 == await rings(redis)
    await enqueued(store, "soon", delay_ms=6000)
    assert 1 == await rings(redis)


async def test_a_retry_rings_like_an_enqueue(store, redis):
    job = await claimed(store)
    await rings(redis)
    await nacked(store, job)
    assert 1 == await rings(redis)

    job = await taken(store)
    await nacked(store, job, retry_in_ms=5000)
    assert 1 == await rings(redis)

    job = await claimed(store, "b")
    await rings(redis)
    await released(store, job, delay_ms=600_000)
    assert 0 == await rings(redis)


async def test_a_timekeeper_that_takes_a_job_hands_the_watch_on(store, redis):
    await idle(store)
    await enqueued(store, "due", delay_ms=3000)
    assert 3000 == await waits(store, "w1")
    await enqueued(store, "now")
    await rings(redis)
    await taken(store, "now", worker="w1")

    # Somebody else is woken, and watches.
    assert 1 == await rings(redis)
    assert 3000 == await waits(store, "w2")


async def test_another_worker_that_takes_the_last_job_wakes_nobody(store, redis):
    await idle(store)
    await enqueued(store, "due", delay_ms=3000)
    await waits(store, "w1")
    await enqueued(store, "now")
    await rings(redis)
    await taken(store, "now", worker="w2")

    assert 0 == await rings(redis)


async def test_on_a_paused_queue_nobody_watches_the_time(store):
    await idle(store)
    await enqueued(store, "a", delay_ms=2000)
    await store.configure(QUEUE, {"paused": "1"})

    assert await waits(store) in LONG


async def test_what_is_due_now_is_given_at_once_whoever_watches(store, clock):
    await idle(store)
    await enqueued(store, "a", delay_ms=2000)
    await waits(store, "w1")
    clock.advance(2)

    assert ["a"] == [job.key for job in await take(store, worker="w2")]

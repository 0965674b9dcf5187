"""Who comes first: place and priority, aging, and places that are kept."""

import pytest

from scheduler.outcomes import Note
from tests.helpers import (
    QUEUE,
    buried,
    claimed,
    enqueued,
    look,
    nacked,
    new,
    race,
    released,
    swept,
    take,
    taken,
)

STRICT = str(6 * 10**13)


async def order(store, count: int = 500) -> list[str]:
    return [job.key for job in await take(store, count)]


async def test_equal_ones_start_as_they_came(store):
    names = [f"{n * 31 % 100}-{n}" for n in range(100)]
    await enqueued(store, *names[:50])
    for name in names[50:]:
        await enqueued(store, name)

    assert names == await order(store)


async def test_higher_priority_starts_first_and_equal_ones_keep_their_order(store):
    for n, priority in enumerate([0, 5, -5, 5, 100, 0, -100]):
        await enqueued(store, f"{priority}/{n}".replace("/", "."), priority=priority)

    assert ["100.4", "5.1", "5.3", "0.0", "0.5", "-5.2", "-100.6"] == await order(store)


async def test_waiting_raises_a_job_by_one_level_a_minute(store, clock):
    await enqueued(store, "low")
    clock.advance(59.999)
    await enqueued(store, "before", priority=1)
    clock.advance(0.002)
    await enqueued(store, "behind", priority=1)

    assert ["before", "low", "behind"] == await order(store)


async def test_strict_priority_never_ages(store, clock):
    await store.configure(QUEUE, {"step": STRICT})
    await enqueued(store, "low", priority=-100)
    clock.advance(365 * 86_400)
    await enqueued(store, "high", priority=-99)
    await enqueued(store, "highest", priority=100)
    await enqueued(store, "highest-too", priority=100)

    assert ["highest", "highest-too", "high", "low"] == await order(store)


async def test_a_score_is_exact_at_the_ends_of_its_range(store, clock):
    await store.configure(QUEUE, {"step": STRICT})
    for priority in (100, -100):
        for n in range(3):
            await enqueued(store, f"{'high' if priority > 0 else 'low'}-{n}", priority=priority)

    assert [f"{rank}-{n}" for rank in ("high", "low") for n in range(3)] == await order(store)


async def test_the_place_of_a_due_job_is_its_due_time(store, clock):
    await enqueued(store, "scheduled", delay_ms=1000)
    await enqueued(store, "early")
    clock.advance(2)
    await enqueued(store, "late")

    assert ["early", "scheduled", "late"] == await order(store)


async def test_a_due_job_of_higher_priority_comes_before_what_is_ready(store, clock):
    await enqueued(store, "ready")
    await enqueued(store, "scheduled", delay_ms=1000, priority=1)
    clock.advance(1)

    assert ["scheduled"] == await order(store, 1)
    assert ["ready"] == await order(store)


async def test_a_due_job_of_lower_priority_comes_behind_what_is_ready(store, clock):
    await enqueued(store, "scheduled", delay_ms=1000, priority=-1)
    clock.advance(2)
    await enqueued(store, "ready")

    assert ["ready", "scheduled"] == [*await order(store, 1), *await order(store, 1)]


async def test_a_job_given_back_keeps_its_place(store):
    await enqueued(store, "a", "b", "c")
    first = await taken(store, "a")

    assert "ready" == await released(store, first)
    assert ["a", "b", "c"] == await order(store)


async def test_a_failed_job_that_is_tried_at_once_keeps_its_place(store):
    await enqueued(store, "a", "b")
    assert "ready" == await nacked(store, await taken(store, "a"))

    assert ["a", "b"] == await order(store)


async def test_a_job_whose_worker_died_keeps_its_place(store, clock):
    await enqueued(store, "a", "b")
    await taken(store, "a")
    clock.advance(31)
    assert 1 == await swept(store, clock)

    # It crashed: it is given alone, and first.
    assert (["a"], ["b"]) == (await order(store), await order(store))


async def test_a_retrying_job_is_placed_at_the_end_of_its_backoff(store, clock):
    await enqueued(store, "a", retry={"immediate": 0})
    assert "retrying" == await nacked(store, await taken(store, "a"), retry_in_ms=1000)
    clock.advance(0.9)
    await enqueued(store, "earlier")
    clock.advance(0.2)
    await enqueued(store, "later")

    assert ["earlier", "a", "later"] == await order(store)


async def test_a_job_that_is_run_by_hand_is_placed_now(store, clock):
    await enqueued(store, "a", delay_ms=3_600_000)
    await enqueued(store, "first")
    clock.advance(1)
    assert ["ready"] == await store.promote_ids(QUEUE, ["a"])
    await enqueued(store, "last")

    assert ["first", "a", "last"] == await order(store)


async def test_a_replayed_job_is_placed_now_by_its_priority(store, clock):
    await buried(store, await claimed(store, "a", priority=2))
    await enqueued(store, "normal")
    clock.advance(1)
    assert ["ready"] == await store.replay(QUEUE, [("a", None)])
    await enqueued(store, "high", priority=2)

    assert ["a", "high", "normal"] == await order(store)


async def test_a_priority_that_was_changed_decides(store):
    await enqueued(store, "a", "b", "c")

    assert "ready" == await store.update(QUEUE, "c", priority=1)
    assert "ready" == await store.update(QUEUE, "a", priority=-1)
    assert ["c", "b", "a"] == await order(store)


async def test_a_priority_that_was_changed_and_changed_back_leaves_the_place(store):
    await enqueued(store, "a", "b", "c")
    await store.update(QUEUE, "b", priority=7)
    await store.update(QUEUE, "b", priority=0)

    assert ["a", "b", "c"] == await order(store)


@pytest.mark.parametrize("lead", [1, 60, 3600])
async def test_places_only_rise_though_the_clock_goes_back(store, clock, lead):
    await enqueued(store, "first")
    clock.advance(-lead)
    await enqueued(store, "second")
    clock.advance(2 * lead)
    await enqueued(store, "third")

    assert ["first", "second", "third"] == await order(store)


async def test_concurrent_enqueues_have_a_place_each(store, redis, backend):
    count = 20 if backend == "fake" else 100
    await race(*(store.enqueue(QUEUE, [new(f"k{n}")]) for n in range(count)))

    places = {score for _, score in await redis.zrange("{scheduler:mail}:ready", 0, -1, withscores=True)}
    assert count == len(places)


async def test_the_oldest_wait_is_that_of_the_first_in_line(store, clock):
    assert await store.enqueue(QUEUE, [new("a", delay_ms=5000)])
    assert None is (await store.census(QUEUE)).oldest_ready_at
    began = clock.now
    await enqueued(store, "b", priority=-3)
    clock.advance(2)
    await enqueued(store, "c", priority=-3)

    assert began == (await store.census(QUEUE)).oldest_ready_at


async def test_notes_do_not_move_a_job(store):
    await enqueued(store, "a", "b")
    job = await taken(store, "a")
    await store.note(QUEUE, [Note("a", job.token, "progress", b"1")])
    await released(store, job)

    assert "a" == (await taken(store, "a")).key
    assert b"1" == (await look(store)).progress


async def test_a_change_of_the_step_counts_for_what_becomes_ready_after_it(store, clock):
    await enqueued(store, "aging", priority=1)
    await store.configure(QUEUE, {"step": STRICT})
    clock.advance(1)
    await enqueued(store, "strict", priority=1)
    await enqueued(store, "plain")

    assert ["strict", "aging", "plain"] == await order(store)


async def test_a_new_priority_under_another_step_keeps_the_time_of_waiting(store, clock):
    """Its score was made with the step of then: what is told of its place now is when it came."""
    came = clock.now
    await enqueued(store, "old", priority=3)
    clock.advance(5)
    await store.configure(QUEUE, {"step": STRICT})
    assert came == (await store.census(QUEUE)).oldest_ready_at
    await enqueued(store, "new", priority=2)

    await store.update(QUEUE, "old", priority=2)

    assert came == (await store.census(QUEUE)).oldest_ready_at
    assert ["old", "new"] == await order(store)

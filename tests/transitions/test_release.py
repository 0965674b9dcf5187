"""running -> ready | scheduled | dead | cancelled: given back unfinished."""

import pytest

from scheduler.job import State
from scheduler.outcomes import Release
from tests.helpers import (
    QUEUE,
    STATES,
    WORKER,
    acked,
    claimed,
    enqueued,
    events,
    in_every_state,
    look,
    nacked,
    on_real_servers,
    race,
    released,
    snapshot,
    swept,
    take,
    taken,
)


async def unhandled(store, clock, **options) -> tuple[str, float]:
    """Releases the next job as no handler was found for it; its state now, and how long it waits in s."""
    state = await released(store, await taken(store), why="no_handler", **options)
    job = await look(store)
    waits = (job.run_at - clock.now) / 1000 if job.run_at else 0
    clock.advance(waits)
    return state, waits


async def test_a_released_job_is_ready_and_has_used_no_attempt(store):
    job = await claimed(store)

    assert "ready" == await released(store, job)

    shown = await look(store)
    assert (State.READY, 0, 0, ()) == (shown.state, shown.attempt, shown.snoozes, shown.errors)
    assert 1 == (await taken(store)).attempt


async def test_a_release_with_a_delay_is_scheduled(store, clock):
    assert "scheduled" == await released(store, await claimed(store), delay_ms=1500)

    shown = await look(store)
    assert (State.SCHEDULED, clock.now + 1500, 0) == (shown.state, shown.run_at, shown.attempt)
    clock.advance(1.499)
    assert [] == await take(store)
    clock.advance(0.001)
    assert 1 == (await taken(store)).attempt


async def test_a_snooze_is_counted_and_uses_no_attempt(store, clock):
    await enqueued(store, "a", retry={"max_attempts": 1})
    for _ in range(3):
        assert "scheduled" == await released(store, await taken(store), delay_ms=1000, why="snooze")
        clock.advance(1)

    assert (3, 0) == ((await look(store)).snoozes, (await look(store)).attempt)
    await acked(store, await taken(store))
    assert (3, 1) == ((await look(store)).snoozes, (await look(store)).attempt)


async def test_a_release_among_failures_takes_off_only_its_own_attempt(store):
    await nacked(store, await claimed(store))
    await released(store, await taken(store))

    assert (1, 1) == ((await look(store)).attempt, len((await look(store)).errors))
    assert 2 == (await taken(store)).attempt


async def test_without_a_handler_the_delay_grows_to_a_minute_and_then_the_job_is_dead(store, clock):
    await enqueued(store, "a")
    began = clock.now
    found = []
    while (await look(store)).state is not State.DEAD:
        found.append(await unhandled(store, clock))

    states, waits = zip(*found, strict=True)
    assert [1, 2, 4, 8, 16, 32, 60, 60] == list(waits[:8])
    assert {"scheduled"} == set(states[:-1])
    assert began + 600_000 <= clock.now < began + 660_000
    job = await look(store)
    assert ("no_handler", "NoHandler", "no worker has a handler for send") == (
        job.reason,
        job.errors[-1].kind,
        job.errors[-1].message,
    )
    assert 1 == len(job.errors)


async def test_no_attempt_is_used_while_no_handler_is_found(store, clock):
    await enqueued(store, "a", retry={"max_attempts": 1})
    for _ in range(5):
        await unhandled(store, clock)

    assert ((), 0) == ((await look(store)).errors, (await look(store)).attempt)
    assert 1 == (await taken(store)).attempt


async def test_with_no_patience_an_unhandled_job_is_dead_at_once(store, clock):
    await enqueued(store, "a")

    assert ("dead", 0) == await unhandled(store, clock, no_handler_after_ms=0)
    assert "no_handler" == (await look(store)).reason


@pytest.mark.parametrize("settle", [released, nacked])
async def test_whoever_takes_it_ends_the_row_of_releases_for_lack_of_a_handler(store, clock, settle):
    await enqueued(store, "a")
    waits = [(await unhandled(store, clock))[1] for _ in range(3)]
    await settle(store, await taken(store))

    assert [1, 2, 4, 1] == [*waits, (await unhandled(store, clock))[1]]


async def test_a_job_that_was_asked_to_stop_is_cancelled_however_it_is_released(store, clock):
    for key, why in {"a": "", "b": "snooze", "c": "no_handler"}.items():
        job = await claimed(store, key)
        await store.cancel(QUEUE, [key])
        assert "cancelled" == await released(store, job, delay_ms=1000, why=why, no_handler_after_ms=0)
        assert ("cancelled", "asked") == ((await look(store, key)).state, (await look(store, key)).reason)
    clock.advance(100)
    assert [] == await take(store)


async def test_a_release_ends_a_row_of_crashes(store, clock):
    await claimed(store)
    clock.advance(31)
    await swept(store, clock)
    await released(store, await taken(store))

    assert (0, 1) == ((await look(store)).crashes, (await look(store)).attempt)


async def test_only_a_running_job_is_released(store, redis):
    tokens = await in_every_state(store)
    before = await snapshot(redis)

    assert ["stale"] * 8 == await store.release(
        QUEUE, [Release(s, tokens[s] + 1) for s in STATES], worker=WORKER
    )
    assert ["missing"] == await store.release(QUEUE, [Release("nobody", 1)], worker=WORKER)
    assert before == await snapshot(redis)


@pytest.mark.parametrize(("delay", "why"), [(0, ""), (1000, ""), (1000, "snooze"), (0, "no_handler")])
async def test_a_release_repeated_is_answered_again_and_changes_nothing(store, redis, clock, delay, why):
    job = await claimed(store)
    state = await released(store, job, delay, why)
    before = await snapshot(redis)
    clock.advance(0.5)

    assert state == await released(store, job, delay, why)
    assert before == await snapshot(redis)


async def test_a_release_repeated_after_the_next_claim_is_stale(store):
    job = await claimed(store)
    await released(store, job)
    again = await taken(store)

    assert "stale" == await released(store, job)
    assert "succeeded" == await acked(store, again)


async def test_releases_count_and_report(store, redis):
    await enqueued(store, "a", "b")
    await store.release(QUEUE, [Release(job.key, job.token) for job in await take(store, 2)], worker=WORKER)

    assert "2" == (await store.census(QUEUE)).counters["release"]
    assert ["a", "b"] == await events(redis, "release")


@on_real_servers
async def test_of_many_at_once_one_counts(store, another_store):
    job = await claimed(store)

    assert {"ready"} == set(await race(*(released(each, job) for each in [store, another_store] * 10)))
    assert "1" == (await store.census(QUEUE)).counters["release"]

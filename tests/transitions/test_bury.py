"""running -> dead | cancelled: the move to the dead-letter queue."""

import pytest

from scheduler.job import State
from scheduler.outcomes import Bury
from tests.helpers import (
    QUEUE,
    STATES,
    WORKER,
    acked,
    buried,
    claimed,
    enqueued,
    events,
    in_every_state,
    look,
    nacked,
    on_real_servers,
    race,
    snapshot,
    swept,
    take,
    taken,
)


async def test_a_buried_job_is_dead_at_once_with_attempts_left(store, clock):
    job = await claimed(store)
    clock.advance(1)

    assert "dead" == await buried(store, job)

    dead = await look(store)
    assert (State.DEAD, "permanent", 1, clock.now) == (
        dead.state,
        dead.reason,
        dead.attempt,
        dead.finished_at,
    )
    assert ("Permanent", "no", "dead: permanent") == (
        dead.errors[0].kind,
        dead.errors[0].message,
        dead.errors[0].next,
    )
    assert (WORKER, clock.now - 1000, job.token) == (dead.worker, dead.started_at, dead.token)
    assert [] == await take(store)


@pytest.mark.parametrize("reason", ["permanent", "no_handler", "bad_payload", "corrupt"])
async def test_it_says_why(store, reason):
    await buried(store, await claimed(store), reason=reason)

    assert (reason, f"dead: {reason}") == ((await look(store)).reason, (await look(store)).errors[0].next)


async def test_a_job_that_was_asked_to_stop_is_cancelled(store):
    job = await claimed(store)
    await store.cancel(QUEUE, ["a"])

    assert "cancelled" == await buried(store, job)
    assert (State.CANCELLED, "asked") == ((await look(store)).state, (await look(store)).reason)


async def test_only_a_running_job_is_buried(store, redis):
    tokens = await in_every_state(store)
    before = await snapshot(redis)

    assert ["stale"] * 8 == await store.bury(
        QUEUE, [Bury(s, tokens[s] + 1, "E", "m") for s in STATES], worker=WORKER
    )
    assert ["missing"] == await store.bury(QUEUE, [Bury("nobody", 1, "E", "m")], worker=WORKER)
    assert before == await snapshot(redis)


async def test_a_bury_repeated_is_answered_again_and_changes_nothing(store, redis, clock):
    job = await claimed(store)
    await buried(store, job)
    before = await snapshot(redis)
    clock.advance(1)

    assert "dead" == await buried(store, job)
    assert before == await snapshot(redis)


async def test_a_bury_is_no_repeat_of_a_nack(store):
    job = await claimed(store, retry={"max_attempts": 1})
    assert "dead" == await nacked(store, job)

    assert "stale" == await buried(store, job)


async def test_a_bury_repeated_after_the_replayed_job_ran_is_stale(store):
    job = await claimed(store)
    await buried(store, job)
    await store.replay(QUEUE, [("a", None)])
    assert "dead" == await buried(store, job)  # not claimed since
    again = await taken(store)

    assert "stale" == await buried(store, job)
    assert "succeeded" == await acked(store, again)


async def test_a_bury_ends_a_row_of_crashes(store, clock):
    await claimed(store)
    clock.advance(31)
    await swept(store, clock)
    await buried(store, await taken(store))

    assert (0, 2) == ((await look(store)).crashes, len((await look(store)).errors))


async def test_burying_counts_and_reports(store, redis):
    await enqueued(store, "a", "b")
    await store.bury(
        QUEUE, [Bury(job.key, job.token, "E", "m") for job in await take(store, 2)], worker=WORKER
    )

    census = await store.census(QUEUE)
    assert ("2", "2", 2) == (census.counters["bury"], census.counters["dead"], census.counts["dead"])
    assert ["a", "b"] == await events(redis, "bury")


@on_real_servers
async def test_of_many_at_once_one_counts(store, another_store):
    job = await claimed(store)

    assert {"dead"} == set(await race(*(buried(each, job) for each in [store, another_store] * 10)))
    assert 1 == len((await look(store)).errors)

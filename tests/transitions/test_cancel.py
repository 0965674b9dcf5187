"""scheduled, blocked, ready, retrying -> cancelled; a running one is asked to stop."""

import pytest

from scheduler.job import State
from scheduler.outcomes import Extend, Note
from tests.helpers import (
    ENDED,
    QUEUE,
    acked,
    buried,
    claimed,
    enqueued,
    events,
    in_every_state,
    in_state,
    look,
    nacked,
    new,
    on_real_servers,
    race,
    released,
    snapshot,
    state_of,
    states_of,
    swept,
    take,
    taken,
)


async def cancel(store, key: str = "a"):
    [answer] = await store.cancel(QUEUE, [key])
    return answer


@pytest.mark.parametrize("state", ["scheduled", "blocked", "ready", "retrying"])
async def test_a_job_that_does_not_run_is_cancelled_and_never_starts(store, clock, state):
    await in_state(store, state)
    clock.advance(1)

    assert "cancelled" == await cancel(store)

    job = await look(store)
    assert (State.CANCELLED, "asked", clock.now, None) == (job.state, job.reason, job.finished_at, job.run_at)
    clock.advance(7200)
    await store.promote(QUEUE)
    assert [] == await take(store)


async def test_a_running_job_is_asked_and_goes_on(store, redis):
    job = await claimed(store)

    assert "running" == await cancel(store)
    assert "running" == await state_of(store)
    assert ["cancel"] == await store.extend(QUEUE, [Extend("a", job.token, 60_000)])
    assert ["cancel"] == await store.note(QUEUE, [Note("a", job.token, "progress", b"1")])


@pytest.mark.parametrize("settle", [nacked, buried, released])
async def test_whatever_then_ends_the_run_but_ack_leads_to_cancelled(store, clock, settle):
    job = await claimed(store)
    await cancel(store)

    assert "cancelled" == await settle(store, job)
    assert (State.CANCELLED, "asked") == ((await look(store)).state, (await look(store)).reason)
    clock.advance(7200)
    assert [] == await take(store)


async def test_it_is_cancelled_when_its_worker_dies(store, clock):
    await claimed(store)
    await cancel(store)
    clock.advance(31)
    await swept(store, clock)

    assert (State.CANCELLED, "asked") == ((await look(store)).state, (await look(store)).reason)


async def test_the_ack_of_a_job_that_was_asked_wins(store):
    job = await claimed(store)
    await cancel(store)

    assert "succeeded" == await acked(store, job)


async def test_the_request_does_not_outlive_the_run(store):
    job = await claimed(store)
    await cancel(store)
    await buried(store, job)
    assert "cancelled" == await state_of(store)
    await store.purge(QUEUE, ["a"])
    again = await claimed(store)

    assert ["running"] == await store.extend(QUEUE, [Extend("a", again.token, 60_000)])


async def test_a_cancelled_job_stays_cancelled_and_nothing_changes(store, redis, clock):
    await in_state(store, "cancelled")
    before = await snapshot(redis)
    clock.advance(1)

    assert "cancelled" == await cancel(store)
    assert before == await snapshot(redis)


async def test_asking_a_running_job_again_changes_nothing(store, redis):
    await claimed(store)
    await cancel(store)
    before = await snapshot(redis)

    assert "running" == await cancel(store)
    assert before == await snapshot(redis)


async def test_an_ended_job_is_not_cancelled(store, redis):
    await in_every_state(store, ENDED)
    before = await snapshot(redis)

    assert list(ENDED) == await store.cancel(QUEUE, ENDED)
    assert ["missing"] == await store.cancel(QUEUE, ["nobody"])
    assert before == await snapshot(redis)


async def test_a_job_that_is_gone_but_known_says_how_it_ended(store):
    await acked(store, await claimed(store, retention_ms=0))

    assert "succeeded" == await cancel(store)


async def test_one_id_twice_is_answered_twice(store, redis):
    await enqueued(store, "a")

    assert ["cancelled", "cancelled"] == await store.cancel(QUEUE, ["a", "a"])
    assert ["a"] == await events(redis, "cancel")


async def test_a_cancelled_job_keeps_its_errors_and_may_be_purged(store):
    await nacked(store, await claimed(store, retry={"immediate": 0}))
    await cancel(store)

    assert 1 == len((await look(store)).errors)
    assert ["gone"] == await store.purge(QUEUE, ["a"])


async def test_the_lease_keeps_everything_else_when_a_job_is_asked_to_stop(store, redis):
    job = await claimed(store, timeout_ms=5000, priority=3, retention_ms=7)
    before = await redis.hget("{scheduler:mail}:leases", "a")
    await cancel(store)

    asked = before.replace(b"|0|", b"|1|") + b"|1800000000000"
    assert asked == await redis.hget("{scheduler:mail}:leases", "a")
    assert "cancelled" == await released(store, job)


async def test_five_hundred_are_cancelled_in_one_call(store):
    await store.enqueue(QUEUE, [new(f"k{n}") for n in range(500)])

    assert ["cancelled"] * 500 == await store.cancel(QUEUE, [f"k{n}" for n in range(500)])
    assert (500, "500", "500") == (
        (c := await store.census(QUEUE)).counts["cancelled"],
        c.counters["cancel"],
        c.counters["cancelled"],
    )


@on_real_servers
async def test_a_cancel_and_a_claim_at_once_end_in_one_of_two_ways(store, another_store):
    for n in range(20):
        await enqueued(store, f"k{n}")
        answer, jobs = await race(cancel(store, f"k{n}"), take(another_store))

        assert (answer, len(jobs)) in [("cancelled", 0), ("running", 1)]
        for job in jobs:
            assert "cancelled" == await nacked(store, job)
    assert {"cancelled"} == set(await states_of(store, *(f"k{n}" for n in range(20))))


async def test_a_taken_job_cancelled_and_given_back_is_not_given_again(store):
    await enqueued(store, "a", "b")
    job = await taken(store, "a")
    await cancel(store)
    await released(store, job)

    assert ["b"] == [job.key for job in await take(store, 5)]

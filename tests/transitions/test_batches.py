"""Batches: a job that is held, joined by any number of others, and runs when it was opened and all of them have ended."""

from __future__ import annotations

import pytest

from scheduler.errors import Invalid, StoreUnavailable
from scheduler.job import NewJob
from scheduler.outcomes import Ack, Bury
from scheduler.store import Store
from tests.helpers import QUEUE, WORKER, Clock, enqueued, keys, state_of, states_of, taken

LAST = f"{QUEUE}:last"


async def batch(store: Store, on_failure: str = "continue") -> None:
    job = NewJob(type="send", queue=QUEUE, key="last", hold=True, on_failure=on_failure)
    assert "blocked" == (await store.enqueue_one(job)).outcome


def member(key: str, queue: str = "parts", **fields: object) -> NewJob:
    return NewJob(type="send", queue=queue, key=key, joins=[LAST], **fields)  # type: ignore[arg-type]


async def end(store: Store, count: int, *, good: bool = True) -> int:
    """Ends up to so many members."""
    jobs = (await store.claim("parts", worker=WORKER, count=count)).jobs
    if not jobs:
        return 0
    if good:
        await store.ack("parts", [Ack(job.key, job.token, b"1") for job in jobs], worker=WORKER)
    else:
        await store.bury("parts", [Bury(job.key, job.token, "No", "no") for job in jobs], worker=WORKER)
    await store.relay("parts")
    return len(jobs)


async def counts(store: Store) -> tuple[int, int, int]:
    page = await store.parents(QUEUE, "last", limit=1)
    return page.pending, page.succeeded, page.failed


async def test_it_runs_when_it_was_opened_and_all_have_ended(store):
    await batch(store)
    await store.enqueue_each([member("a"), member("b"), member("c")])
    assert (4, 0, 0) == await counts(store)
    await end(store, 1)
    await end(store, 1, good=False)
    assert (2, 1, 1) == await counts(store)

    assert "blocked" == await store.open(QUEUE, "last")
    assert "blocked" == await store.open(QUEUE, "last")
    await end(store, 1)

    assert "ready" == await state_of(store, "last")
    assert (0, 2, 1) == await counts(store)
    assert {"parts:a": b"1", "parts:b": None, "parts:c": b"1"} == await store.results_of_parents(
        QUEUE, "last"
    )


async def test_it_is_not_over_before_it_was_opened(store):
    await batch(store)
    await store.enqueue_one(member("a"))
    await end(store, 1)
    assert "blocked" == await state_of(store, "last")

    assert "ready" == await store.open(QUEUE, "last")
    assert "ready" == await store.open(QUEUE, "last")


@pytest.mark.parametrize(("policy", "good", "state"), [
    ("continue", False, "ready"), ("cancel", False, "cancelled"), ("failure", False, "ready"), ("failure", True, "cancelled"),
])  # fmt: skip
async def test_what_a_failure_means_is_said_by_it(store, policy, good, state):
    await batch(store, policy)
    await store.enqueue_one(member("a"))
    await store.open(QUEUE, "last")

    await end(store, 1, good=good)

    assert state == await state_of(store, "last")


async def test_nobody_joins_what_waits_no_more(store):
    await batch(store)
    await store.open(QUEUE, "last")

    with pytest.raises(Invalid) as caught:
        await store.enqueue_one(member("a"))
    assert ["/before/0"] == [fault.path for fault in caught.value.faults]
    [refused, gone] = await store.enqueue_each(
        [member("b"), NewJob(type="send", queue="parts", joins=["no:no"], key="c")]
    )
    assert isinstance(refused, Invalid)
    assert isinstance(gone, Invalid)
    assert "is missing" in str(gone)
    assert [] == [job for job in await store.inspect("parts", ["a", "b", "c"]) if job]


async def test_the_same_member_again_is_found_and_counts_once(store):
    await batch(store)
    await store.enqueue_one(member("a"))
    assert "exists" == (await store.enqueue_one(member("a"))).outcome
    assert (2, 0, 0) == await counts(store)
    await store.open(QUEUE, "last")
    await end(store, 1)

    assert "exists" == (await store.enqueue_one(member("a"))).outcome


async def test_one_that_was_announced_and_never_came_is_not_waited_for_for_ever(
    store, clock: Clock, monkeypatch
):
    await batch(store)
    await store.enqueue_one(member("a"))
    call = store.run

    async def dies(asked):
        if asked.script == "enqueue":
            raise StoreUnavailable("gone")
        return await call(asked)

    monkeypatch.setattr(store, "run", dies)
    with pytest.raises(StoreUnavailable):
        await store.enqueue("parts", [member("never")])
    monkeypatch.undo()
    await store.open(QUEUE, "last")
    await end(store, 1)
    assert "blocked" == await state_of(store, "last")

    clock.advance(31)
    await store.relay(QUEUE)

    assert "ready" == await state_of(store, "last")
    assert (0, 1, 1) == await counts(store)


async def test_a_batch_that_is_never_opened_waits_and_can_be_cancelled(store, clock: Clock):
    await batch(store)
    await store.enqueue_one(member("a"))
    clock.advance(3600)
    await store.relay(QUEUE)
    assert "blocked" == await state_of(store, "last")

    await store.cancel(QUEUE, ["last"])
    await end(store, 1)

    assert ["cancelled"] == await states_of(store, "last")
    await store.purge(QUEUE, ["last"])
    assert not await store.clients.commands.exists(keys().at("awaits"))


async def test_a_held_job_may_wait_for_named_ones_too(store):
    await enqueued(store, "a")
    job = NewJob(type="send", queue=QUEUE, key="last", hold=True, after=[f"{QUEUE}:a"])
    await store.enqueue_one(job)
    await store.ack(QUEUE, [Ack("a", (await taken(store, "a")).token)], worker=WORKER)
    await store.relay(QUEUE)
    assert "blocked" == await state_of(store, "last")

    assert "ready" == await store.open(QUEUE, "last")


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.parametrize("backend", ("valkey",), indirect=True)
async def test_a_batch_of_100_000_is_kept_in_bounded_calls(store, redis):
    await batch(store)
    await redis.config_resetstat()
    for first in range(0, 100_000, 5_000):
        await store.enqueue_each([member(f"m{n}") for n in range(first, first + 5_000)])
    await store.open(QUEUE, "last")
    while await end(store, 500):
        pass

    assert "ready" == await state_of(store, "last")
    assert (0, 100_000, 0) == await counts(store)
    assert {} == await store.results_of_parents(QUEUE, "last")
    slow = await redis.slowlog_get(10)
    assert [] == [entry for entry in slow if entry["duration"] > 500_000]
    await store.purge(QUEUE, ["last"])
    while (await store.expire(QUEUE))[1] or await redis.exists(keys().at("awaits")):
        pass

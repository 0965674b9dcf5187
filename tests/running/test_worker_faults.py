"""A worker that is stopped, loses replies, or loses its lease."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from scheduler.errors import StoreUnavailable
from scheduler.job import State
from scheduler.joining import Call
from scheduler.store import Store
from tests.running.conftest import QUEUE, Bench

pytestmark = pytest.mark.parametrize("backend", ("fake", "valkey"), indirect=True)


class Leaky(Store):
    """A store that now and then loses the reply of a turn after the server has carried it out, or the request."""

    lose_replies: set[int]
    lose_requests: set[int]
    turns = 0

    async def run_all(self, calls: Sequence[Call[Any]]) -> list[Any]:
        if not any(call.script == "claim" for call in calls):
            return await super().run_all(calls)
        self.turns += 1
        if self.turns in self.lose_requests:
            raise StoreUnavailable("lost request", unknown=True)
        replies = await super().run_all(calls)
        if self.turns in self.lose_replies:
            raise StoreUnavailable("lost reply", unknown=True)
        return replies


async def leaky(bench: Bench, replies: set[int], requests: set[int]) -> Leaky:
    store = Leaky(bench.store.clients)
    store.lose_replies, store.lose_requests = replies, requests
    await store.connect()
    return store


@pytest.mark.parametrize("lost", [{1}, {2}, {3}, {1, 2, 3}, {2, 4, 6}, set(range(1, 12, 2))], ids=str)
async def test_a_lost_reply_makes_nothing_run_twice(bench: Bench, lost: set[int]):
    starts: list[str] = []

    async def work(ctx) -> None:
        starts.append(ctx.id)
        await asyncio.sleep(0)

    bench.handler("work", work)
    keys = [await bench.enqueue("work") for _ in range(12)]
    bench.work(concurrency=3, store=await leaky(bench, lost, set()))
    jobs = [await bench.ended(key) for key in keys]

    assert sorted(f"{QUEUE}:{key}" for key in keys) == sorted(starts)
    assert {(State.SUCCEEDED, 1, 0)} == {(job.state, job.attempt, job.crashes) for job in jobs}


async def test_a_lost_reply_leaves_no_log_line_twice(bench: Bench):
    async def work(ctx) -> None:
        for n in range(3):
            ctx.log(f"line {n}")
            await asyncio.sleep(0.02)

    bench.handler("work", work)
    keys = [await bench.enqueue("work") for _ in range(4)]
    bench.work(concurrency=10, store=await leaky(bench, set(range(2, 30, 2)), set()))
    for key in keys:
        await bench.ended(key)

    logs = [await bench.store.log(QUEUE, key) for key in keys]
    assert [["line 0", "line 1", "line 2"]] * 4 == [[line.text for line in lines] for lines, _ in logs]


async def test_a_lost_request_is_sent_again(bench: Bench):
    async def work(ctx) -> None: ...

    bench.handler("work", work)
    keys = [await bench.enqueue("work") for _ in range(5)]
    bench.work(concurrency=2, store=await leaky(bench, set(), {1, 2, 4}))

    assert {1} == {(await bench.ended(key)).attempt for key in keys}


async def test_stopping_lets_short_jobs_finish_and_gives_long_ones_back(bench: Bench):
    async def short(ctx) -> None:
        await asyncio.sleep(0.3)

    async def long(ctx) -> None:
        await asyncio.sleep(60)

    bench.handler("short", short)
    bench.handler("long", long)
    shorts = [await bench.enqueue("short") for _ in range(3)]
    longs = [await bench.enqueue("long") for _ in range(3)]
    worker = bench.work()
    await bench.until(lambda: len(worker.fetchers[QUEUE].running) == 6)
    later = await bench.enqueue("short")
    began = asyncio.get_running_loop().time()
    await bench.stop(worker)

    assert asyncio.get_running_loop().time() - began < 3
    assert {State.SUCCEEDED} == {(await bench.job(key)).state for key in shorts}
    back = [await bench.job(key) for key in longs]
    assert {(State.READY, 0, 0)} == {(job.state, job.attempt, job.crashes) for job in back}
    assert (await bench.job(later)).state in {State.READY, State.SUCCEEDED}


async def test_a_second_stop_ends_at_once_still_releasing(bench: Bench):
    async def long(ctx) -> None:
        await asyncio.sleep(60)

    bench.handler("long", long)
    key = await bench.enqueue("long")
    worker = bench.work(grace_ms=60_000)
    await bench.until(lambda: worker.fetchers[QUEUE].running)
    worker.stop()
    began = asyncio.get_running_loop().time()
    await bench.stop(worker)

    assert asyncio.get_running_loop().time() - began < 2.5
    job = await bench.job(key)
    assert (State.READY, 0) == (job.state, job.attempt)


async def test_what_was_claimed_for_a_worker_that_stops_is_given_back(bench: Bench):
    async def work(ctx) -> None: ...

    class Slow(Leaky):
        async def run_all(self, calls: Sequence[Call[Any]]) -> list[Any]:
            replies = await super().run_all(calls)
            if any(call.script == "claim" for call in calls) and self.turns == 1:
                answered.set()
                await asyncio.sleep(0.2)
            return replies

    answered = asyncio.Event()
    bench.handler("work", work)
    key = await bench.enqueue("work")
    store = Slow(bench.store.clients)
    store.lose_replies = store.lose_requests = set()
    await store.connect()
    worker = bench.work(store=store)
    await answered.wait()
    await bench.stop(worker)
    job = await bench.job(key)

    assert (State.READY, 0) == (job.state, job.attempt)


async def test_a_lost_lease_stops_the_handler_and_its_outcome_is_not_stored(bench: Bench):
    stopped = asyncio.Event()

    async def work(ctx) -> str:
        if ctx.attempt == 1:
            try:
                await asyncio.sleep(60)
            finally:
                stopped.set()
        return f"attempt {ctx.attempt}"

    bench.handler("work", work)
    worker = bench.work()
    key = await bench.enqueue("work")
    await bench.until(lambda: worker.fetchers[QUEUE].running)
    # A watchdog that lives in the future finds the lease run out, as if nobody had extended it.
    future = Store(bench.store.clients, now=lambda: round(time.time() * 1000) + offset)
    await future.connect()
    offset = 60_000
    await future.reclaim(QUEUE, lease_ms=1_500)
    offset += 5_000
    assert 1 == (await future.reclaim(QUEUE, lease_ms=1_500)).reclaimed
    job = await bench.ended(key)

    assert (b'"attempt 2"', 2) == (job.result, job.attempt)
    await bench.until(stopped.is_set)


async def test_a_worker_comes_back_after_the_scripts_are_gone(bench: Bench):
    async def work(ctx) -> None: ...

    bench.handler("work", work)
    bench.work()
    await bench.ended(await bench.enqueue("work"))
    for _ in range(10):
        await bench.store.clients.commands.script_flush()
        await bench.ended(await bench.enqueue("work"))


async def test_a_retry_at_once_in_a_turn_whose_replies_were_lost_is_no_lost_lease(bench: Bench, caplog):
    caplog.set_level("WARNING")
    starts: list[int] = []

    async def fails_once(ctx) -> None:
        starts.append(ctx.attempt)
        if ctx.attempt == 1:
            raise ValueError("the first time")

    class Once(Leaky):
        """Loses the replies of the first turn that tells an outcome, which claims the same job again."""

        async def run_all(self, calls: Sequence[Call[Any]]) -> list[Any]:
            replies = await Store.run_all(self, calls)
            if any(call.script == "nack" for call in calls) and not self.turns:
                self.turns = 1
                raise StoreUnavailable("lost reply", unknown=True)
            return replies

    bench.handler("fails_once", fails_once)
    store = Once(bench.store.clients)
    await store.connect()
    bench.work(concurrency=3, store=store)
    job = await bench.ended(await bench.enqueue("fails_once"))

    assert ([1, 2], 2, 0) == (starts, job.attempt, job.crashes)
    assert 1 == store.turns
    assert not [record for record in caplog.records if "too late" in record.getMessage()]

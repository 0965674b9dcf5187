"""Queues of one worker share its slots by their weights, while all have work."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from scheduler.job import NewJob
from tests.running.conftest import Bench

pytestmark = pytest.mark.parametrize("backend", ("fake", "valkey"), indirect=True)


async def fill(bench: Bench, queue: str, count: int, type: str = "work") -> None:
    await bench.store.enqueue(
        queue, [NewJob(type=type, queue=queue, key=f"{queue}-{n}") for n in range(count)]
    )


@pytest.mark.parametrize(
    ("concurrency", "share"), [(8, {"a": 6, "b": 2}), (4, {"a": 3, "b": 1}), (12, {"a": 9, "b": 3})]
)
async def test_slots_are_shared_by_weight(bench: Bench, concurrency, share):
    running: Counter[str] = Counter()
    go = asyncio.Event()

    async def work(ctx) -> None:
        running[ctx.queue] += 1
        await go.wait()

    bench.handler("work", work)
    for queue in ("a", "b"):
        await fill(bench, queue, 20)
    bench.work(concurrency=concurrency, queues={"a": 3, "b": 1})
    await bench.until(lambda: running.total() == concurrency)
    found = dict(running)
    go.set()

    assert share == found


@pytest.mark.parametrize("concurrency", [1, 2, 5])
async def test_few_slots_are_taken_in_turns_by_weight(bench: Bench, concurrency):
    order: list[str] = []

    async def work(ctx) -> None:
        order.append(ctx.queue)
        await asyncio.sleep(0.001)

    bench.handler("work", work)
    for queue in ("a", "b", "c"):
        await fill(bench, queue, 60)
    bench.work(concurrency=concurrency, queues={"a": 4, "b": 2, "c": 1})
    await bench.until(lambda: len(order) == 180)

    # While all three have work: until 60 of the heaviest are begun.
    early = Counter(order[:70])
    assert early["a"] >= early["b"] >= early["c"] >= 5, early
    assert early["a"] >= 28, early


async def test_a_queue_without_work_leaves_its_share_to_the_others(bench: Bench):
    running: Counter[str] = Counter()
    go = asyncio.Event()

    async def work(ctx) -> None:
        running[ctx.queue] += 1
        await go.wait()

    bench.handler("work", work)
    await fill(bench, "b", 20)
    bench.work(concurrency=8, queues={"a": 7, "b": 1})
    await bench.until(lambda: running["b"] == 8)

    # What comes for the other then waits for a slot, and takes the next ones.
    await fill(bench, "a", 5)
    go.set()
    await bench.until(lambda: running == {"a": 5, "b": 20})


async def test_long_jobs_of_one_queue_do_not_hold_up_the_slots_of_another(bench: Bench):
    short = 0
    go = asyncio.Event()

    async def work(ctx) -> None:
        nonlocal short
        if ctx.queue == "long":
            await go.wait()
        else:
            short += 1

    bench.handler("work", work)
    for queue in ("long", "short"):
        await fill(bench, queue, 50)
    bench.work(concurrency=2, queues={"long": 1, "short": 1})
    await bench.until(lambda: short == 50)
    go.set()

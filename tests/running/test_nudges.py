"""A running job that is asked to stop hears of it at once, and not with the next heartbeat."""

from __future__ import annotations

import asyncio
import time

import pytest

from scheduler.job import State
from scheduler.nudges import channel
from tests.running.conftest import QUEUE, Bench

pytestmark = pytest.mark.parametrize("backend", ("fake", "redis", "valkey"), indirect=True)
LATE = 2.0
"""Seconds: far below the heartbeat of these workers, every ten. On a quiet machine it takes some milliseconds."""


async def subscribed(bench: Bench) -> bool:
    [(_, count)] = await bench.store.clients.commands.pubsub_numsub(channel("scheduler"))
    return count > 0


async def stopped_after(bench: Bench, kind: str) -> float:
    worker = bench.work(lease_ms=30_000)
    key = await bench.enqueue(kind)
    await bench.until(lambda: worker.left() == [f"{QUEUE}:{key}"])
    await bench.until(lambda: bench.started)  # type: ignore[attr-defined]
    await bench.until(lambda: subscribed(bench))
    began = time.monotonic()

    assert ["running"] == await bench.store.cancel(QUEUE, [key])
    asked = await bench.job(key)
    assert asked.cancel_requested_at is not None or asked.state is State.CANCELLED
    job = await bench.ended(key)
    assert (State.CANCELLED, "asked", 1) == (job.state, job.reason, job.attempt)
    return time.monotonic() - began


async def test_a_coroutine_is_cancelled_at_once(bench: Bench):
    async def wait(ctx) -> None:
        bench.started = True  # type: ignore[attr-defined]
        await asyncio.sleep(60)

    bench.started = False  # type: ignore[attr-defined]
    bench.handler("wait", wait)
    assert await stopped_after(bench, "wait") < LATE


async def test_a_thread_sees_it_at_once(bench: Bench):
    def wait(ctx) -> None:
        bench.started = True  # type: ignore[attr-defined]
        end = time.monotonic() + 60
        while not ctx.cancelled and time.monotonic() < end:
            time.sleep(0.005)
        raise RuntimeError("stopped")

    bench.started = False  # type: ignore[attr-defined]
    bench.handler("wait", wait)
    assert await stopped_after(bench, "wait") < LATE

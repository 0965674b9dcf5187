"""From the call of enqueue to the handler's first line, one job at a time into an idle worker."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

from redis.asyncio import Redis

from tests.bench import bare
from tests.bench.common import Bench, Budget, Line

APART = 0.01
"""Seconds between two jobs: long enough that everything sleeps again."""


async def bench(bench: Bench) -> list[Line]:
    app = bench.app()
    client = Redis.from_url(bench.url)
    jobs, warm = bench.size(1_000, 50), bench.size(50, 5)
    handles = []
    with (
        bench.worker(100),
        bench.process("tests.bench.bare", "latency", bench.url, ready="ready"),
    ):
        for _ in range(warm + jobs):
            handles.append(await app.enqueue("stamp", {"sent": time.monotonic_ns()}))
            await asyncio.sleep(APART)
            await client.rpush(bare.SENT, time.monotonic_ns())
            await asyncio.sleep(APART)
        ours = [await handle.result(10) / 1e6 for handle in handles[warm:]]
        found: Any = await client.lrange(bare.TOOK, warm, -1)
    theirs = [int(took) / 1e6 for took in found]
    await client.aclose()
    await app.close()
    return [
        Line(
            "idle: enqueue → handler, p50", "ms",
            statistics.median(ours), statistics.median(theirs), "RPUSH → BLPOP",
            Budget(most=0.58, why="Bee-Queue"),
        ),
        Line(
            "idle: enqueue → handler, p99", "ms",
            _p99(ours), _p99(theirs), "RPUSH → BLPOP",
            Budget(most=1.9, why="huey"),
        ),
    ]  # fmt: skip


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]

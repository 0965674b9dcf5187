"""Draining a backlog with real worker processes, and what a job costs worker and server.

The workers stand still (SIGSTOP) while the queue is filled and others are measured, so start-up is no part of it.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from scheduler.job import NewJob, new_key
from scheduler.keys import Keys
from scheduler.store import Store
from tests.bench import bare
from tests.bench.app import QUEUE
from tests.bench.common import PAYLOAD, Bench, Budget, Line, Process, empty, until

Fill = Callable[[int, int], Awaitable[None]]

POLLS = ("info", "flushall", "zcard", "config|resetstat")
"""Commands of the measurement itself."""


@dataclass(frozen=True)
class Run:
    """One drained backlog."""

    rate: float
    worker_cpu: float
    """Seconds for 10,000 jobs, of all workers."""
    server_cpu: float
    """Microseconds a job, enqueueing included."""
    commands: float
    """A job, those inside scripts included."""


async def bench(bench: Bench) -> list[Line]:
    app = bench.app()
    store = await app.store()
    client = Redis.from_url(bench.url)
    sha = await client.script_load(bare.ENQUEUE)

    async def fill_ours(jobs: int, batch: int) -> None:
        for _ in range(jobs // batch):
            made = [NewJob(type="send", payload=PAYLOAD, queue=QUEUE, key=new_key()) for _ in range(batch)]
            await store.enqueue(QUEUE, made)

    async def fill_bare(jobs: int, batch: int) -> None:
        for n in range(0, jobs, batch):
            pipe: Any = client.pipeline(transaction=False)
            for turn in range(n, n + batch):
                pipe.evalsha(sha, 2, bare.JOBS, bare.READY, turn, PAYLOAD, turn)
            await pipe.execute()

    jobs, rounds = bench.size(30_000, 2_000), bench.size(5, 2)
    ended = Keys(app.settings.namespace, QUEUE).at("succeeded")
    lines: list[Line] = []
    costs: list[Line] = []
    for concurrency in (10, 100):
        with ExitStack() as stack:
            start = stack.enter_context
            ours = [start(bench.worker(concurrency)) for _ in range(2)]
            theirs = [
                start(bench.process("tests.bench.bare", "drain", bench.url, str(concurrency), ready="ready"))
                for _ in range(2)
            ]
            found: dict[tuple[str, int], list[Run]] = {}
            for process in (*ours, *theirs):
                process.pause()
            for turn in range(-1, rounds):  # the first one warms up
                for count in (1, 2):
                    for who, workers, fill, key in (
                        ("ours", ours, fill_ours, ended),
                        ("bare", theirs, fill_bare, bare.ENDED),
                    ):
                        run = await drained(store, workers[:count], fill, key, jobs, concurrency)
                        if turn >= 0:
                            found.setdefault((who, count), []).append(run)
        middle = {
            key: Run(*(statistics.median(values) for values in zip(*map(_values, runs), strict=True)))
            for key, runs in found.items()
        }
        lines += _rates(concurrency, middle)
        costs += _costs(concurrency, middle["ours", 1], middle["bare", 1])
    await client.aclose()
    await app.close()
    return lines + costs


async def drained(
    store: Store, workers: Sequence[Process], fill: Fill, ended: str, jobs: int, batch: int
) -> Run:
    """Fills the queue, lets the workers go, and waits until all has ended."""
    redis = store.clients.commands
    await empty(redis)
    await redis.config_resetstat()
    server = await _server_cpu(redis)
    await fill(jobs, batch)
    before = [worker.cpu for worker in workers]
    began = time.perf_counter()
    for worker in workers:
        worker.resume()

    async def all_ended() -> bool:
        return int(await redis.zcard(ended)) >= jobs

    await until(all_ended)
    took = time.perf_counter() - began
    spent = sum(worker.cpu - cpu for worker, cpu in zip(workers, before, strict=True))
    server = await _server_cpu(redis) - server
    stats: Any = await redis.info("commandstats")
    calls = sum(row["calls"] for name, row in stats.items() if name.removeprefix("cmdstat_") not in POLLS)
    await asyncio.sleep(
        0.05
    )  # until they wait for more: a worker that is stopped within a turn would hold a claim
    for worker in workers:
        worker.pause()
    return Run(jobs / took, spent / jobs * 10_000, server / jobs * 1e6, calls / jobs)


async def _server_cpu(redis: Redis) -> float:
    info: Any = await redis.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def _values(run: Run) -> tuple[float, ...]:
    return run.rate, run.worker_cpu, run.server_cpu, run.commands


def _rates(concurrency: int, middle: dict[tuple[str, int], Run]) -> list[Line]:
    budgets = {
        1: Budget(least=23_200, why="8 × dramatiq, 2 × BullMQ, 1.2 × Bee-Queue; stretch 29,000"),
        2: Budget(least=29_550, why="1.5 × Bee-Queue; stretch 39,400"),
    }
    return [
        Line(
            f"drain, {count} worker{'s' * (count - 1)}, concurrency {concurrency}",
            "/s",
            middle["ours", count].rate,
            middle["bare", count].rate,
            "batched prototype",
            budgets[count] if concurrency == 100 else None,
        )
        for count in (1, 2)
    ]


def _costs(concurrency: int, ours: Run, prototype: Run) -> list[Line]:
    at = f"concurrency {concurrency}"
    worker = Budget(most=0.3) if concurrency == 100 else None
    server = Budget(most=25) if concurrency == 100 else Budget(most=54, why="BullMQ")
    return [
        Line(
            f"worker CPU per 10,000 jobs, {at}",
            "s",
            ours.worker_cpu,
            prototype.worker_cpu,
            "prototype",
            worker,
        ),
        Line(f"server CPU per job, {at}", "µs", ours.server_cpu, prototype.server_cpu, "prototype", server),
        Line(f"commands per job, {at}", "", ours.commands, prototype.commands, "prototype"),
    ]

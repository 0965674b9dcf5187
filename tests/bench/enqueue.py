"""Enqueueing from one process: one at a time, 50 in flight, and in bulk."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from redis.asyncio import Redis

from tests.bench import bare
from tests.bench.common import FIELDS, PAYLOAD, Bench, Budget, Line, empty, in_turn

IN_FLIGHT = 50
BULK = 500

Call = Callable[[int], Awaitable[None]]
"""Enqueues so many jobs."""

Way = Callable[[Call, int], Awaitable[None]]
"""How the calls for so many jobs follow each other."""


async def one_at_a_time(call: Call, jobs: int) -> None:
    for _ in range(jobs):
        await call(1)


async def in_flight(call: Call, jobs: int) -> None:
    await asyncio.gather(*(one_at_a_time(call, jobs // IN_FLIGHT) for _ in range(IN_FLIGHT)))


async def in_bulk(call: Call, jobs: int) -> None:
    for _ in range(jobs // BULK):
        await call(BULK)


async def bench(bench: Bench) -> list[Line]:
    app = bench.app()
    client = Redis.from_url(bench.url)
    sha = await client.script_load(bare.ENQUEUE)
    ids = itertools.count()

    async def ours(_: int) -> None:
        await app.enqueue("send", FIELDS)

    async def plain(_: int) -> None:
        made = next(ids)
        await client.evalsha(sha, 2, bare.JOBS, bare.READY, made, PAYLOAD, made)

    async def ours_in_bulk(count: int) -> None:
        await app.enqueue_many([{"type": "send", "payload": FIELDS}] * count)

    async def plain_in_bulk(count: int) -> None:
        pipe: Any = client.pipeline(transaction=False)
        for made in itertools.islice(ids, count):
            pipe.evalsha(sha, 2, bare.JOBS, bare.READY, made, PAYLOAD, made)
        await pipe.execute()

    async def rate(way: Way, call: Call, jobs: int) -> float:
        # An empty server for each turn, with the queue already known to it.
        await empty(client)
        await ours(1)
        began = time.perf_counter()
        await way(call, jobs)
        return jobs / (time.perf_counter() - began)

    async def rates(way: Way, mine: Call, theirs: Call, jobs: int, rounds: int) -> list[float]:
        works = [partial(rate, way, call, jobs) for call in (mine, theirs)]
        await in_turn(1, *works)  # warms up
        return await in_turn(rounds, *works)

    single, plain_single = await rates(one_at_a_time, ours, plain, bench.size(500, 100), bench.size(25, 3))
    flying, plain_flying = await rates(in_flight, ours, plain, bench.size(5_000, 500), bench.size(9, 3))
    bulk, plain_bulk = await rates(
        in_bulk, ours_in_bulk, plain_in_bulk, bench.size(20_000, 1_000), bench.size(7, 3)
    )
    await client.aclose()
    await app.close()
    as_bare, bullmq = Budget(least=0.9, of_ratio=True), Budget(least=15_000, why="BullMQ; stretch 35,000")
    return [
        Line("enqueue, one at a time", "/s", single, plain_single, "EVALSHA", as_bare),
        Line("enqueue, 50 in flight", "/s", flying, plain_flying, "EVALSHA, 50 in flight", bullmq),
        Line(
            "enqueue, 500 a call", "/s", bulk, plain_bulk, "EVALSHA, pipelines of 500",
            Budget(least=64_000, why="Asynq"),
        ),
    ]  # fmt: skip

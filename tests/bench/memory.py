"""Bytes of the server's memory for a job that waits, and for one that has ended with its result kept."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from scheduler.job import NewJob, new_key
from scheduler.outcomes import Ack
from tests.bench import bare
from tests.bench.app import QUEUE
from tests.bench.common import PAYLOAD, Bench, Budget, Line, empty

BATCH = 500


async def bench(bench: Bench) -> list[Line]:
    app = bench.app()
    store = await app.store()
    client = Redis.from_url(bench.url)
    jobs = bench.size(50_000, 5_000)

    async def used() -> int:
        info: Any = await client.info("memory")
        return int(info["used_memory"])

    async def enqueue(count: int) -> None:
        made = [NewJob(type="send", payload=PAYLOAD, queue=QUEUE, key=new_key()) for _ in range(count)]
        await store.enqueue(QUEUE, made)

    async def finish(turn: int) -> int:
        claim = await store.claim(QUEUE, worker="bench", turn=turn, count=BATCH)
        if claim.jobs:
            await store.ack(QUEUE, [Ack(job.key, job.token, b'"sent"') for job in claim.jobs], worker="bench")
        return len(claim.jobs)

    # Once before, so that buffers and scripts are there.
    await enqueue(BATCH)
    await finish(1)
    await empty(client)
    await enqueue(1)
    before = await used()
    for _ in range(jobs // BATCH):
        await enqueue(BATCH)
    waiting = (await used() - before) / jobs
    turn = 2
    while await finish(turn):
        turn += 1
    ended = (await used() - before) / jobs

    await empty(client)
    sha = await client.script_load(bare.ENQUEUE)
    before = await used()
    for n in range(0, jobs, BATCH):
        pipe: Any = client.pipeline(transaction=False)
        for turn in range(n, n + BATCH):
            pipe.evalsha(sha, 2, bare.JOBS, bare.READY, new_key(), PAYLOAD, turn)
        await pipe.execute()
    plain = (await used() - before) / jobs
    await client.aclose()
    await app.close()
    most = 400 if bench.kind == "valkey" else 450
    return [
        Line("memory of a waiting job", "bytes", waiting, plain, "HSET + ZADD", Budget(most=most)),
        Line("memory of an ended job", "bytes", ended),
    ]

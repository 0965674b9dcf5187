"""What a claim costs the server while few, many or very many jobs wait."""

from __future__ import annotations

import asyncio
from functools import partial

from scheduler.job import NewJob, new_key
from scheduler.outcomes import Ack
from scheduler.store import Store
from tests.bench.common import PAYLOAD, Bench, Budget, Line, in_turn, script_usec

COUNT = 10
CALLS = 20


async def bench(bench: Bench) -> list[Line]:
    app = bench.app()
    store = await app.store()
    sizes = (1_000, 10_000) if bench.short else (1_000, 100_000, 1_000_000)
    queues = [f"waiting-{size}" for size in sizes]
    for queue, size in zip(queues, sizes, strict=True):
        await asyncio.gather(*(_fill(store, queue, size // 2) for _ in range(2)))
    turns = dict.fromkeys(queues, 0)

    async def claims(queue: str) -> float:
        """Microseconds of script time for a claimed job; the backlog is as it was afterwards."""
        held = []
        before = await script_usec(store.clients.commands)
        for _ in range(CALLS):
            turns[queue] += 1
            claim = await store.claim(queue, worker="bench", turn=turns[queue], count=COUNT)
            held += claim.jobs
        spent = await script_usec(store.clients.commands) - before
        assert COUNT * CALLS == len(held)
        await store.ack(queue, [Ack(job.key, job.token) for job in held], worker="bench")
        await _fill(store, queue, len(held))
        return spent / len(held)

    found = await in_turn(bench.size(25, 3), *(partial(claims, queue) for queue in queues))
    await app.close()
    first = found[0]
    return [
        Line(
            f"claim of {COUNT}, per job, {size:,} waiting",
            "µs",
            usec,
            first,
            f"with {sizes[0]:,}",
            Budget(most=1.5, of_ratio=True) if size == sizes[-1] else None,
        )
        for size, usec in zip(sizes[1:], found[1:], strict=True)
    ]


async def _fill(store: Store, queue: str, jobs: int) -> None:
    for n in range(0, jobs, 500):
        count = min(500, jobs - n)
        made = [NewJob(type="send", payload=PAYLOAD, queue=queue, key=new_key()) for _ in range(count)]
        await store.enqueue(queue, made)

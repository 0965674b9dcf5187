"""What a claim costs the server in a queue with lanes: limits, jobs that they hold, and many groups."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from scheduler.job import NewJob, new_key
from scheduler.limits import Rate
from scheduler.outcomes import Ack, TypePolicy
from scheduler.store import Store
from tests.bench.common import PAYLOAD, Bench, Budget, Line, in_turn, script_usec

COUNT = 100
CALLS = 10


async def bench(bench: Bench) -> list[Line]:
    app = bench.app()
    store = await app.store()
    held, groups = (10_000, 1_000) if bench.short else (100_000, 10_000)
    waiting = 10 * COUNT
    slow = TypePolicy(rate=Rate(1, 86_400_000))
    for queue in ("limited", "held"):
        await store.configure_type(queue, "slow", slow)
    await store.configure("bounded", {"group_concurrency": "1000"})
    await _fill(store, "held", held, type="slow")
    await _fill(store, "held", 1)
    group: dict[str, Callable[[int], str | None]] = {
        "plain": lambda n: None,
        "limited": lambda n: None,
        "held": lambda n: None,
        "one group": lambda n: "g0",
        "groups": lambda n: f"g{n % groups}",
        "bounded": lambda n: f"g{n % groups}",
    }
    for queue, of in group.items():
        # As many wait in the plain queue as in that of many groups: it is the lanes that are compared, not the backlog.
        jobs = 2 * groups if queue in {"plain", "groups", "bounded"} else waiting
        await _fill(store, queue.replace(" ", "-"), jobs, group=of)
    turns = dict.fromkeys(group, 0)
    served = dict.fromkeys(group, 0)

    async def claims(queue: str) -> float:
        """Microseconds of script time for a claimed job; the backlog is as it was afterwards."""
        name = queue.replace(" ", "-")
        taken = []
        before = await script_usec(store.clients.commands)
        for _ in range(CALLS):
            turns[queue] += 1
            claim = await store.claim(name, worker="bench", turn=turns[queue], count=COUNT)
            taken += claim.jobs
        spent = await script_usec(store.clients.commands) - before
        for n in range(0, len(taken), COUNT):
            done = [Ack(job.key, job.token) for job in taken[n : n + COUNT]]
            await store.ack(name, done, worker="bench")
        first = served[queue]
        served[queue] += len(taken)
        await _fill(store, name, len(taken), group=lambda n: group[queue](first + n))
        return spent / len(taken)

    for queue in group:  # what stood there before is filed, what has no room is set aside
        await claims(queue)
    found = dict(
        zip(
            group, await in_turn(bench.size(25, 3), *(partial(claims, queue) for queue in group)), strict=True
        )
    )
    await app.close()
    shown = {
        "limited": "limits on another type",
        "held": f"{held:,} jobs held by a rate in front",
        "one group": "all in one group",
        "groups": f"{groups:,} groups in turn",
        "bounded": f"{groups:,} groups in turn, each with a limit",
    }
    budget = Budget(most=1.5, of_ratio=True)
    return [
        Line(
            f"claim of {COUNT}, per job, {said}",
            "µs",
            found[queue],
            found["plain"],
            "in a plain queue",
            budget if queue in {"held", "groups"} else None,
        )
        for queue, said in shown.items()
    ]


async def _fill(
    store: Store,
    queue: str,
    jobs: int,
    *,
    type: str = "send",
    group: Callable[[int], str | None] = lambda n: None,
) -> None:
    for n in range(0, jobs, 500):
        made = [
            NewJob(type=type, payload=PAYLOAD, queue=queue, key=new_key(), group=group(n + k))
            for k in range(min(500, jobs - n))
        ]
        await store.enqueue(queue, made)
        await asyncio.sleep(0)

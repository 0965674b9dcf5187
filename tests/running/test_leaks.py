"""Ten thousand jobs over a network that fails all the time: each runs once, and nothing is left lying about."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from scheduler.clients import open_clients
from scheduler.doorbell import Doorbell
from scheduler.errors import StoreUnavailable
from scheduler.events import Follower, wait_ended
from scheduler.handlers import Handlers, make_handler
from scheduler.job import NewJob, State
from scheduler.settings import Settings
from scheduler.store import Store
from scheduler.worker import Worker
from tests.conftest import Servers
from tests.helpers import QUEUE, faults
from tests.proxy import Action, Proxy, Request

JOBS, ROUND = 10_000, 500
TROUBLE = 0.03
"""Of the requests so many are lost, or their replies."""


def tally() -> tuple[int, int, int]:
    """What this process holds: tasks, files, threads."""
    gc.collect()
    return len(asyncio.all_tasks()), len([*Path("/proc/self/fd").iterdir()]), threading.active_count()


def memory() -> float:
    """MiB that are in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def in_trouble(proxy: Proxy, chance: random.Random) -> None:
    """Now and then resets every connection, and holds everything for a moment."""
    while True:
        await asyncio.sleep(chance.uniform(0.2, 1.0))
        proxy.reset_all()
        await asyncio.sleep(chance.uniform(0.2, 1.0))
        proxy.hold()
        await asyncio.sleep(chance.uniform(0.0, 0.1))
        proxy.let_go()


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is no /proc here")
@pytest.mark.parametrize("backend", ("valkey",), indirect=True)
@pytest.mark.parametrize("seed", [1, 2])
async def test_ten_thousand_jobs_through_a_bad_network_leave_nothing_behind(
    servers: Servers, backend: str, clients: object, seed: int
):
    chance = random.Random(seed)
    starts: Counter[str] = Counter()

    def plan(request: Request) -> Action:
        if chance.random() > TROUBLE:
            return Action.PASS
        return chance.choice([Action.CUT_BEFORE, Action.CUT_AFTER, Action.DROP_REPLY])

    async def quick(ctx) -> None:
        starts[ctx.claimed.key] += 1

    def threaded(ctx) -> None:
        starts[ctx.claimed.key] += 1

    async def fails_once(ctx) -> None:
        starts[ctx.claimed.key] += 1
        if ctx.attempt == 1:
            raise ValueError("the first time")

    types = {"quick": quick, "threaded": threaded, "fails_once": fails_once}
    handlers = Handlers()
    for name, function in types.items():
        handlers.add(make_handler(name, function, queue=QUEUE))

    await asyncio.to_thread(gc.collect)  # the loop keeps a thread for such calls
    at_first = tally()
    watching = Store(await open_clients(servers.url(backend), name="test"))
    async with Proxy(servers.url(backend)) as proxy:
        at_work = await open_clients(proxy.url, name="soak")
        store = Store(at_work)
        doorbell, follower = Doorbell(at_work, "scheduler"), Follower(at_work, "scheduler")
        await store.connect()
        settings = Settings(lease_ms=60_000, watchdog_interval_ms=1_000, grace_ms=2_000)
        worker = Worker(store, handlers, settings, doorbell=doorbell, queues=[QUEUE], concurrency=50)
        working = asyncio.create_task(worker.run())
        proxy.plan = plan
        trouble = asyncio.create_task(in_trouble(proxy, chance))

        async def persist(keys: list[str]) -> None:
            jobs = [
                NewJob(type=name, queue=QUEUE, key=key)
                for key, name in zip(keys, chance.choices(list(types), [8, 1, 1], k=len(keys)), strict=True)
            ]
            while True:
                try:
                    await store.enqueue(QUEUE, jobs)
                except StoreUnavailable:
                    await asyncio.sleep(0.02)
                else:
                    return

        async def follow(key: str) -> None:
            with contextlib.suppress(StoreUnavailable):
                await wait_ended(store, follower, QUEUE, key, 30)

        used: list[float] = []
        busiest = 0
        for first in range(0, JOBS, ROUND):
            keys = [f"j{n}" for n in range(first, first + ROUND)]
            await persist(keys)
            async with asyncio.timeout(60):
                await asyncio.gather(*(follow(key) for key in chance.sample(keys, 20)))
                while (await watching.census(QUEUE)).counts["succeeded"] < first + ROUND:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            used.append(memory())
            busiest = max(busiest, proxy.open)

        trouble.cancel()
        proxy.plan = None
        proxy.let_go()
        worker.stop()
        async with asyncio.timeout(10):
            await working
        await doorbell.close()
        await follower.close()
        await store.close()
        jobs = [job for n in range(0, JOBS, 500) for job in await _some(watching, n)]
        found = await faults(watching)
        lost = proxy.connections
        assert 0 == proxy.open
    await watching.close()
    await asyncio.sleep(0.1)  # what was closed is taken down in the next turns of the loop

    assert {(State.SUCCEEDED, 0)} == {(job.state, job.crashes) for job in jobs}
    assert {key: n for key, n in starts.items() if n != 1} == {
        job.id.partition(":")[2]: 2 for job in jobs if job.type == "fails_once"
    }
    assert [] == found
    assert lost > 100, "the network was not that bad"
    assert busiest <= 32 + 1 + 8 + 4 + 2
    assert at_first == tally()
    # By the fifth round everything has been used once; what grows after that grows for ever.
    assert used[-1] - used[4] < 8, used


async def _some(store: Store, first: int) -> list[Any]:
    return [job for job in await store.inspect(QUEUE, [f"j{n}" for n in range(first, first + 500)]) if job]

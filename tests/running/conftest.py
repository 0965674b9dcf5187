"""A worker in this process, on real time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from scheduler.clients import Clients
from scheduler.doorbell import Doorbell
from scheduler.events import Follower, wait_ended
from scheduler.handlers import Handlers, make_handler
from scheduler.job import Job, NewJob, new_key
from scheduler.settings import Settings
from scheduler.store import Store
from scheduler.worker import Worker

QUEUE = "mail"
FAST = Settings(lease_ms=1_500, watchdog_interval_ms=500, grace_ms=1_000)


@dataclass
class Bench:
    """A store, and workers on it that are stopped after the test."""

    store: Store
    doorbell: Doorbell
    follower: Follower
    settings: Settings = FAST
    handlers: Handlers = field(default_factory=Handlers)
    workers: list[tuple[Worker, asyncio.Task[None]]] = field(default_factory=list)

    def handler(self, type: str, function: Callable[..., Any], **options: Any) -> None:
        self.handlers.add(make_handler(type, function, queue=QUEUE, **options))

    def work(
        self,
        *,
        concurrency: int = 10,
        store: Store | None = None,
        handlers: Handlers | None = None,
        queues: Sequence[str] | Mapping[str, int] = (QUEUE,),
        **settings: Any,
    ) -> Worker:
        worker = Worker(
            store or self.store,
            handlers or self.handlers,
            replace(self.settings, **settings),
            doorbell=self.doorbell,
            queues=queues,
            concurrency=concurrency,
        )
        self.workers.append((worker, asyncio.create_task(worker.run())))
        return worker

    async def stop(self, worker: Worker) -> None:
        worker.stop()
        [task] = [task for other, task in self.workers if other is worker]
        async with asyncio.timeout(10):
            await task

    async def enqueue(self, type: str, payload: bytes = b"{}", **fields: Any) -> str:
        key = fields.pop("key", None) or new_key()
        await self.store.enqueue(QUEUE, [NewJob(type=type, payload=payload, queue=QUEUE, key=key, **fields)])
        return str(key)

    async def ended(self, key: str, seconds: float = 10) -> Job:
        job = await wait_ended(self.store, self.follower, QUEUE, key, seconds)
        assert job.state.ended, job
        return job

    async def job(self, key: str) -> Job:
        return await self.store.job(QUEUE, key)

    async def until(self, check: Callable[[], Any], seconds: float = 10) -> None:
        """Until `check` (plain or a coroutine function) is true."""
        async with asyncio.timeout(seconds):
            while True:
                value = check()
                if asyncio.iscoroutine(value):
                    value = await value
                if value:
                    return
                await asyncio.sleep(0.005)


@pytest.fixture
async def bench(clients: Clients) -> AsyncIterator[Bench]:
    store = Store(clients)
    await store.connect()
    bench = Bench(store, Doorbell(clients, "scheduler"), Follower(clients, "scheduler"))
    yield bench
    for worker, task in bench.workers:
        worker.stop()
        worker.stop()
        with contextlib.suppress(asyncio.CancelledError):
            async with asyncio.timeout(10):
                await task
    await bench.doorbell.close()
    await bench.follower.close()
    assert [] == [fault async for fault in store.verify(QUEUE)]

"""The table of periodic duties: any process may do them, any number of times."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import SchedulerError, StoreUnavailable
from .job import Job
from .logs import get_logger
from .outcomes import Swept
from .settings import Settings
from .store import Store
from .tasks import Pulse, cancel_all, forever

log = get_logger(__name__)


Died = Callable[[str, Job | None], Awaitable[None]]
"""Called with the id of a job that is dead, and the job as it stands (None: unknown)."""


async def _report_dead(store: Store, queue: str, keys: Sequence[str], died: Died | None) -> None:
    """Says which jobs are dead, for each its reason and its last error."""
    found: Sequence[Job | None] = [None] * len(keys)
    # What is dead is said also when it cannot be read now.
    with contextlib.suppress(SchedulerError):
        found = await store.inspect(queue, keys)
    for key, job in zip(keys, found, strict=True):
        if died is not None:
            await died(f"{queue}:{key}", job)
            continue
        fields: dict[str, Any] = {"job": f"{queue}:{key}"}
        if job is not None:
            fields |= {"type": job.type, "attempt": job.attempt, "reason": job.reason}
            if job.errors:
                fields |= {"kind": job.errors[-1].kind, "message": job.errors[-1].message[:500]}
        log.error("a job is dead", **fields)


async def _expire(store: Store, queue: str, died: Died | None) -> None:
    """Ends what waited beyond its deadline, and lets go what retention does not keep, until nothing is left of it."""
    more = True
    while more:
        _, more, dead = await store.expire_telling(queue)
        await _report_dead(store, queue, dead, died)


async def _report(store: Store, queue: str, swept: Swept, died: Died | None) -> None:
    """Says which workers went silent with which jobs, and which of these are dead by it."""
    by_worker: dict[str, list[str]] = {}
    for key, _, worker in swept.jobs:
        by_worker.setdefault(worker, []).append(f"{queue}:{key}")
    await _report_dead(store, queue, [key for key, state, _ in swept.jobs if state == "dead"], died)
    for worker, ids in by_worker.items():
        # Names of our own workers are host:pid:number.
        pid = worker.split(":")[1] if worker.count(":") == 2 else None
        log.warning(
            "reclaimed the jobs of a silent worker",
            worker=worker, pid=pid, queue=queue, count=len(ids), jobs=ids[:20],
        )  # fmt: skip


async def sweep(
    store: Store,
    queue: str,
    settings: Settings,
    *,
    worker: str = "",
    only_if_due: bool = False,
    died: Died | None = None,
) -> int:
    """The watchdog's round on one queue: run-out leases, due jobs, retention, word of what ended. In how many ms to come back."""
    due_only = only_if_due
    while True:
        swept = await store.reclaim(
            queue,
            worker=worker,
            lease_ms=settings.lease_ms,
            period_ms=settings.watchdog_interval_ms,
            only_if_due=due_only,
        )
        await _report(store, queue, swept, died)
        if not swept.more:
            break
        due_only = False
    if swept.uneven:
        async for fault in store.verify(queue, repair=True, structures=("leases", "running")):
            log.warning("repaired", queue=queue, job=fault.id, fault=fault.what)
    if not swept.done:
        return swept.wait_ms
    more = True
    while more:
        _, more = await store.promote(queue)
    await _expire(store, queue, died)
    await store.relay(queue)
    return swept.wait_ms


@dataclass(frozen=True, slots=True)
class Duty:
    """One row: what is done, and how often (seconds)."""

    name: str
    every: float
    do: Callable[[], Awaitable[float | None]]
    """Answers when to come back, in seconds, if sooner than `every`."""


class Upkeep:
    """Does the duties until it is cancelled. A duty that fails is tried again."""

    def __init__(self, duties: list[Duty]) -> None:
        self._duties = duties
        self.pulses = {duty.name: Pulse(duty.name, patience=3 * duty.every) for duty in duties}

    async def run(self) -> None:
        tasks = [asyncio.create_task(self._repeat(duty), name=duty.name) for duty in self._duties]
        try:
            await asyncio.gather(*tasks)
        finally:
            await cancel_all(tasks)

    async def _repeat(self, duty: Duty) -> None:
        async def step() -> float:
            sooner = await duty.do()
            pause = duty.every if sooner is None else min(duty.every, sooner)
            # Two processes that began together do not stay together.
            return pause * random.uniform(0.95, 1.0)

        await asyncio.sleep(random.uniform(0, min(duty.every, 1.0)))
        await forever(self.pulses[duty.name], step)


def watchdog(
    store: Store,
    settings: Settings,
    queues: Callable[[], Awaitable[list[str]]],
    *,
    worker: str = "",
    died: Died | None = None,
) -> Duty:
    """Sweeps what is due of these queues."""

    async def do() -> float:
        waits = [settings.watchdog_interval_ms]
        failed: Exception | None = None
        for queue in await _names():
            try:
                waits.append(await sweep(store, queue, settings, worker=worker, only_if_due=True, died=died))
            except StoreUnavailable as error:
                # The embedded server's keeper starts it again; when that is gone too, we do.
                await store.clients.revive()
                raise error from None
            except Exception as error:  # noqa: BLE001 - one queue's trouble (a newer level, a right) is not the others'
                failed = error
        if failed is not None:
            raise failed
        return max(0.05, min(waits) / 1000)

    async def _names() -> list[str]:
        try:
            return await queues()
        except StoreUnavailable:
            await store.clients.revive()
            raise

    return Duty("watchdog", settings.watchdog_interval_ms / 1000, do)


def expiries(store: Store, queues: Callable[[], Awaitable[list[str]]], *, died: Died | None = None) -> Duty:
    """Ends what waits beyond its deadline, also where a queue is paused or nobody works: a second after it, or soon after."""

    async def do() -> float:
        names = await queues()
        failed: Exception | None = None
        for queue in await store.overdue(names):
            try:
                await _expire(store, queue, died)
            except StoreUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - as above
                failed = error
        if failed is not None:
            raise failed
        # One look a second, of as many queues as cost the server next to nothing.
        return max(1.0, len(names) / 1_000)

    return Duty("expiries", 10.0, do)


def strays(store: Store) -> Duty:
    """Finds queues that are not registered, one page of keys a minute."""
    cursor = 0

    async def do() -> None:
        nonlocal cursor
        cursor, found = await store.stray_queues(cursor)
        if found:
            log.info("registered queues", queues=found)

    return Duty("strays", 60.0, do)

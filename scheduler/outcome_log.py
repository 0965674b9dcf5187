"""Says how attempts ended: a line of the log for each failure and each death, and the hooks of the app for the dead."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .errors import SchedulerError
from .failures import failure_of
from .handlers import Handlers, name_of
from .job import Claimed, Job
from .logs import get_logger
from .outcomes import Ack, Bury, Nack, Release, Settlement
from .tasks import cancel_all
from .threads import Threads

log = get_logger(__name__)

SHOWN = 500
"""Characters of an error's message in a line of the log. The job keeps all of it."""

MOST_TYPES = 10_000
"""Types without a handler that are remembered, so that each is said once. Beyond that none is said any more."""

MOST_HOOKS = 20
"""Hooks that run at once in a worker."""

HOOK_SECONDS = 30.0
"""How long a hook may take."""


class Queue(Protocol):
    """Where the jobs are looked up whose end is reported."""

    queue: str

    async def due_times(self, keys: Sequence[str]) -> list[float | None]: ...

    async def found(self, keys: Sequence[str]) -> list[Job | None]: ...


@dataclass(slots=True)
class Report:
    """One attempt that failed, or was given back for want of a handler."""

    settlement: Settlement
    claimed: Claimed | None = None
    """None for a success that could not be told as one: nobody kept what it was of."""
    state: str = ""
    id: str = ""

    @property
    def type(self) -> str:
        return self.claimed.record.type if self.claimed is not None and self.claimed.record else ""

    @property
    def attempt(self) -> int | None:
        return None if self.claimed is None else self.claimed.attempt


class OutcomeLog:
    """Reports outcomes once the store has them. What is looked up for a line never delays a turn."""

    def __init__(self, handlers: Handlers, threads: Threads, *, successes: bool = False) -> None:
        self._handlers, self._threads = handlers, threads
        self._hooks: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(MOST_HOOKS)
        self._successes = successes
        self._expected: dict[int, Report] = {}
        self._unhandled: set[tuple[str, str]] = set()
        self._ready: dict[Queue, list[Report]] = {}
        self._task: asyncio.Task[None] | None = None

    def expect(self, claimed: Claimed, settlement: Settlement) -> None:
        """An attempt has ended and its outcome is sent."""
        plain = isinstance(settlement, Ack) or (
            isinstance(settlement, Release) and settlement.why != "no_handler"
        )
        if plain and not self._successes:
            return
        self._expected[settlement.token] = Report(settlement, claimed)

    def add(self, queue: Queue, settlement: Settlement, state: str) -> None:
        """The store has an outcome: the state that the job is in by it."""
        report = self._expected.pop(settlement.token, None) if self._expected else None
        if state in {"stale", "missing"}:
            return
        if report is None:
            if not isinstance(settlement, Nack | Bury):
                return
            report = Report(settlement)
        # What is told may be another outcome than the handler's: an ack may bring jobs that are refused.
        report.settlement, report.state, report.id = settlement, state, f"{queue.queue}:{settlement.key}"
        self._ready.setdefault(queue, []).append(report)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._report(), name="outcomes")

    async def close(self) -> None:
        """Waits until everything is reported and the hooks have ended, a second at most."""
        end = asyncio.get_running_loop().time() + 1
        if self._task is not None:
            await asyncio.wait([self._task], timeout=1)
        if self._hooks:
            await asyncio.wait(self._hooks, timeout=max(0.0, end - asyncio.get_running_loop().time()))
        for hook in list(self._hooks):
            log.warning("not finished when the worker ended", what=hook.get_name())
        await cancel_all(list(self._hooks))

    async def _report(self) -> None:
        while self._ready:
            queue, reports = self._ready.popitem()
            try:
                await self._of_queue(queue, reports)
            except Exception as error:  # noqa: BLE001 - a report never ends anything
                log.warning("outcomes could not be reported in full", queue=queue.queue, error=str(error))

    async def _of_queue(self, queue: Queue, reports: list[Report]) -> None:
        waiting = [one for one in reports if one.state == "retrying"]
        dead = [one for one in reports if one.state == "dead"]
        due = dict(zip(map(id, waiting), await _looked_up(queue.due_times, waiting), strict=True))
        found = dict(zip(map(id, dead), await _looked_up(queue.found, dead), strict=True))
        for one in reports:
            if one.state == "dead":
                await self.died(one.id, found[id(one)], report=one)
            elif isinstance(one.settlement, Nack):
                seconds = due.get(id(one))
                following = "retry at once" if one.state == "ready" else one.state
                if one.state == "retrying":
                    following = "retry later" if seconds is None else f"retry in {seconds:.1f} s"
                log.warning("an attempt failed", **_fields(one), next=following)
            elif isinstance(one.settlement, Release) and one.settlement.why == "no_handler":
                if (queue.queue, one.type) not in self._unhandled and len(self._unhandled) < MOST_TYPES:
                    self._unhandled.add((queue.queue, one.type))
                    log.warning(
                        "no handler for a type: its jobs are left to other workers",
                        type=one.type, queue=queue.queue, job=one.id,
                    )  # fmt: skip
            else:
                log.debug(
                    "an attempt ended",
                    job=one.id,
                    type=one.type,
                    attempt=one.attempt,
                    state=one.state,
                )

    async def died(self, job_id: str, job: Job | None, *, report: Report | None = None) -> None:
        """Says that a job is dead, and calls the hooks of the app."""
        fields: dict[str, Any] = {"job": job_id} if report is None else _fields(report)
        if job is not None:
            fields |= {"type": job.type, "attempt": job.attempt, "reason": job.reason}
            if report is None and job.errors:
                fields |= {"kind": job.errors[-1].kind, "message": job.errors[-1].message[:SHOWN]}
        elif report is not None and isinstance(report.settlement, Bury):
            fields["reason"] = report.settlement.reason or "permanent"
        log.error("a job is dead", **fields)
        if job is None:
            return
        for hook in self._handlers.hooks_for(job.type):
            # Behind everything else: a hook that hangs delays no report and no sweep.
            task = asyncio.create_task(self._hook(hook, job), name=f"on_dead of {job_id}")
            self._hooks.add(task)
            task.add_done_callback(self._hooks.discard)

    async def _hook(self, hook: Callable[[Job], Any], job: Job) -> None:
        async with self._places:
            await call_hook(hook, job, self._threads)


async def call_hook(hook: Callable[[Job], Any], job: Job, threads: Threads) -> None:
    """Calls a hook with a dead job: `def` in a thread. What it raises is logged, whatever it is."""
    try:
        async with asyncio.timeout(HOOK_SECONDS):
            done = hook(job) if inspect.iscoroutinefunction(hook) else await threads.run(hook, job)
            if inspect.isawaitable(done):
                await done
    except BaseException as error:  # a hook ends nothing but itself
        if issubclass(type(error), asyncio.CancelledError):
            raise
        failed = failure_of(error)
        log.error(
            "a hook for dead jobs failed", job=job.id, type=job.type, hook=name_of(hook), kind=failed.kind,
            message=failed.message[:SHOWN], where=failed.where,
        )  # fmt: skip


async def _looked_up(
    look: Callable[[Sequence[str]], Awaitable[list[Any]]], reports: Sequence[Report]
) -> list[Any]:
    if not reports:
        return []
    try:
        return await look([one.settlement.key for one in reports])
    except SchedulerError:
        return [None] * len(reports)


def _fields(report: Report) -> dict[str, Any]:
    its = report.settlement
    fields: dict[str, Any] = {
        "job": report.id,
        "type": report.type,
        "attempt": report.attempt,
    }
    if isinstance(its, Nack | Bury):
        fields |= {"kind": its.kind, "message": its.message[:SHOWN]}
        if its.where:
            fields["where"] = its.where
    return fields

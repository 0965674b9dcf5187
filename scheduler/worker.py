"""The worker: one fetcher a queue keeps the free slots filled, one heartbeat holds the leases."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, TypeVar

from .context import Context
from .doorbell import Doorbell
from .errors import SchedulerError, StoreFull, StoreUnavailable
from .execute import execute
from .handlers import Handlers
from .heartbeat import Heartbeat
from .job import Claimed
from .logs import get_logger
from .settings import Settings
from .store import (
    BATCH,
    Ack,
    Bury,
    Call,
    Claim,
    Extend,
    Nack,
    Note,
    Release,
    Settlement,
    Store,
    TypePolicy,
    batches,
)
from .tasks import cancel_all
from .upkeep import Upkeep, sweep, watchdog

log = get_logger(__name__)

T = TypeVar("T")

ABANDON_AFTER = 5.0
"""Seconds of grace after its timeout for a handler that swallows its cancellation; then its slot is taken back."""


def worker_name() -> str:
    """A name that is new at every start: host, process, and a random part."""
    host = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in socket.gethostname())[
        :80
    ]
    return f"{host or 'host'}:{os.getpid()}:{secrets.token_hex(4)}"


class Running:
    """One attempt in this process."""

    __slots__ = ("claimed", "context", "started", "task")

    def __init__(self, claimed: Claimed, context: Context) -> None:
        self.claimed = claimed
        self.context = context
        self.started = monotonic()
        self.task: asyncio.Task[None] | None = None


class Fetcher:
    """One queue's line: what runs, what is finished and not yet told, and which claim is under way."""

    def __init__(self, worker: Worker, queue: str) -> None:
        self.worker = worker
        self.queue = queue
        self.running: dict[int, Running] = {}
        """By token: a job whose lease was lost may be here twice, and each attempt ends on its own."""
        self.settled: list[Settlement] = []
        self.notes: list[Note | Extend] = []
        self.changed = asyncio.Event()
        self.starved = False
        """It waits for a free slot, not for a job."""
        self.turn = 1
        self.reserved = 0
        """Slots kept for the claim under way; its answer may be late, but not lost: the same turn is asked again."""

    async def run(self) -> None:
        """Fills slots and tells outcomes, until the worker stops and everything is told."""
        pause = 0.05
        while not self.done:
            self.changed.clear()
            if self.reserved == 0 and not self.worker.stopping:
                self.reserved = self.worker.reserve()
            settled, notes = self.settled, self.notes
            self.starved = self.reserved == 0 and not self.worker.stopping
            if not settled and not notes and self.reserved == 0:
                await self.changed.wait()
                continue
            self.settled, self.notes = [], []
            try:
                claim = await self.take_turn(settled, notes)
                pause = 0.05
            except SchedulerError as error:
                # Nothing is forgotten: every settlement is safe to repeat, and so is the claim by its turn.
                self.settled = settled + self.settled
                self.notes = notes + self.notes
                self.worker.trouble(self.queue, error)
                await self.nap(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, 1.0)
                continue
            self.worker.well(self.queue)
            if claim is not None and not claim.jobs:
                await self.idle(claim.wait_ms / 1000)

    @property
    def done(self) -> bool:
        worker = self.worker
        return worker.stopping and not (self.running or self.settled or self.reserved)

    async def nap(self, seconds: float) -> None:
        """A pause that stopping ends."""
        if self.worker.giving_up.is_set():
            await asyncio.sleep(min(seconds, 0.05))
            return
        try:
            async with asyncio.timeout(seconds):
                await self.worker.giving_up.wait()
        except TimeoutError:
            pass

    async def idle(self, seconds: float) -> None:
        """Waits for the bell, for something finished, or for the time that the claim named."""
        bell = asyncio.ensure_future(self.worker.doorbell.wait(self.queue, seconds))
        changed = asyncio.ensure_future(self.changed.wait())
        try:
            await asyncio.wait({bell, changed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            bell.cancel()
            changed.cancel()

    async def take_turn(self, settled: list[Settlement], notes: list[Note | Extend]) -> Claim | None:
        """One pipeline: what handlers told, what is finished, then a claim for the free slots."""
        calls = self.calls_for(settled, notes)
        claiming = self.reserved > 0
        if claiming:
            calls.append(
                self.worker.store.claim_call(
                    self.queue,
                    worker=self.worker.name,
                    turn=self.turn,
                    count=self.reserved,
                    lease_ms=self.worker.settings.lease_ms,
                    period_ms=self.worker.settings.watchdog_interval_ms,
                )
            )
        replies = await self.worker.store.run_all(calls)
        failed: SchedulerError | None = None
        for call, reply in zip(calls, replies, strict=True):
            if isinstance(reply, SchedulerError):
                if call.script == "note" and isinstance(reply, StoreFull):
                    continue
                failed = failed or reply
        claim = replies[-1] if claiming else None
        if isinstance(claim, Claim):
            self.turn += 1
            self.begin(claim)
            self.worker.release_slots(self.reserved - len(claim.jobs))
            self.reserved = 0
            if claim.sweep:
                self.worker.sweep_soon(self.queue)
        if failed is not None:
            raise failed
        return claim

    def calls_for(self, settled: list[Settlement], notes: list[Note | Extend]) -> list[Call[Any]]:
        store, worker = self.worker.store, self.worker.name
        patience = self.worker.settings.no_handler_after_ms

        def cut(items: Sequence[Any], kind: type[T], size: Callable[[T], int]) -> Iterator[list[T]]:
            return batches([item for item in items if isinstance(item, kind)], size)

        calls: list[Call[Any]] = []
        calls += [
            store.note_call(self.queue, b) for b in cut(notes, Note, lambda note: len(note.value) + 100)
        ]
        calls += [store.extend_call(self.queue, b) for b in cut(notes, Extend, _light)]
        calls += [
            store.ack_call(self.queue, b, worker=worker)
            for b in cut(settled, Ack, lambda ack: len(ack.result) + 100)
        ]
        calls += [store.nack_call(self.queue, b, worker=worker) for b in cut(settled, Nack, _weight)]
        calls += [store.bury_call(self.queue, b, worker=worker) for b in cut(settled, Bury, _weight)]
        calls += [
            store.release_call(self.queue, b, worker=worker, no_handler_after_ms=patience)
            for b in cut(settled, Release, _light)
        ]
        return calls

    def begin(self, claim: Claim) -> None:
        """Starts what was claimed, or gives it back at once when the worker stops by now."""
        worker = self.worker
        for claimed in claim.jobs:
            if worker.stopping:
                self.settled.append(Release(claimed.key, claimed.token))
                worker.release_slots(1)
                continue
            running = Running(claimed, Context(claimed, worker.tell))
            self.running[claimed.token] = running
            running.task = asyncio.create_task(self.attempt(running))

    async def attempt(self, running: Running) -> None:
        """One attempt: run it, hand its outcome to the next turn, free its slot."""
        claimed, worker = running.claimed, self.worker
        settlement: Settlement | None = None
        try:
            settlement = await execute(
                claimed,
                running.context,
                worker.handlers,
                worker.threads,
                max_result=worker.settings.max_result,
            )
        except asyncio.CancelledError:
            settlement = None if running.context.lost else Release(claimed.key, claimed.token)
        except Exception as error:
            log.exception("an attempt failed outside its handler", job=claimed.id)
            settlement = Nack(
                claimed.key, claimed.token, type(error).__name__, "the worker failed: see its log"
            )
        finally:
            self.end(running, settlement)

    def end(self, running: Running, settlement: Settlement | None) -> None:
        """Takes an attempt out; one that was abandoned or lost before has nothing more to say."""
        if self.running.pop(running.claimed.token, None) is None:
            return
        if settlement is not None:
            self.settled.append(settlement)
        self.worker.release_slots(1)
        self.changed.set()

    def lose(self, token: int) -> None:
        """The lease is somebody else's: stop the handler and tell nothing."""
        running = self.running.get(token)
        if running is None or running.context.lost:
            return
        log.warning("lease lost", job=running.claimed.id)
        running.context.lost = running.context.cancelled = True
        if running.task is not None:
            running.task.cancel()

    def stop_job(self, token: int) -> None:
        """Somebody asked the job to stop."""
        running = self.running.get(token)
        if running is None or running.context.cancelled:
            return
        running.context.cancelled = True
        if running.task is not None:
            running.task.cancel()

    def abandon_overdue(self, now: float) -> None:
        """Takes back the slots of handlers that did not stop at their timeout, or when they were cancelled."""
        for running in list(self.running.values()):
            claimed = running.claimed
            if now - running.started > claimed.timeout_ms / 1000 + ABANDON_AFTER:
                log.error("abandoned a handler that does not stop", job=claimed.id)
                self.worker.abandoned += 1
                message = f"did not stop at its timeout of {claimed.timeout_ms / 1000:g} s; abandoned"
                self.end(
                    running,
                    None
                    if running.context.lost
                    else Nack(claimed.key, claimed.token, "TimeoutError", message),
                )


def _light(_: object) -> int:
    return 100


def _weight(item: Nack | Bury) -> int:
    return len(item.message) + len(item.trace) + 200


class Worker:
    """Runs handlers for some queues until it is told to stop."""

    def __init__(
        self,
        store: Store,
        handlers: Handlers,
        settings: Settings,
        *,
        doorbell: Doorbell,
        queues: Sequence[str] = (),
        concurrency: int | None = None,
    ) -> None:
        self.store = store
        self.handlers = handlers
        self.settings = settings
        self.doorbell = doorbell
        self.name = worker_name()
        self.concurrency = concurrency or settings.concurrency
        self.queues = list(queues) or handlers.queues() or ["default"]
        self.threads = ThreadPoolExecutor(max_workers=self.concurrency, thread_name_prefix="handler")
        self.fetchers = {queue: Fetcher(self, queue) for queue in self.queues}
        self.free = self.concurrency
        self.stopping = False
        self.giving_up = asyncio.Event()
        self.abandoned = 0
        self.heartbeat = Heartbeat(self)
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._sweeps: dict[str, asyncio.Task[Any]] = {}
        self._in_trouble: set[str] = set()

    # -- slots: the semaphore of the process --------------------------------------------------------------------

    def reserve(self) -> int:
        """Takes free slots for a claim: all of them, or a fair share while other queues ask too."""
        hungry = sum(1 for fetcher in self.fetchers.values() if fetcher.reserved == 0)
        share = min(self.free, BATCH, max(1, self.free // max(1, hungry)) if self.free else 0)
        self.free -= share
        return share

    def release_slots(self, count: int) -> None:
        if count <= 0:
            return
        self.free += count
        for fetcher in self.fetchers.values():
            if fetcher.starved:
                fetcher.changed.set()

    # -- life -----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Claim nothing more; let handlers finish within the grace. Called again: end at once, still releasing."""
        if self._stop.is_set():
            self.giving_up.set()
        self.stopping = True
        self._stop.set()
        for fetcher in self.fetchers.values():
            fetcher.changed.set()

    async def run(self) -> None:
        """Works until `stop` was called and everything is told or given back."""
        await self.declare()
        log.info(
            "worker started",
            worker=self.name,
            queues=self.queues,
            types=sorted(h.type for h in self.handlers),
            concurrency=self.concurrency,
        )
        self.heartbeat.start()
        upkeep = Upkeep([watchdog(self.store, self.settings, self._queues, worker=self.name)])
        duties = [
            asyncio.create_task(upkeep.run(), name="upkeep"),
            asyncio.create_task(self._watch(), name="watch"),
        ]
        fetchers = [
            asyncio.create_task(fetcher.run(), name=f"fetch {queue}")
            for queue, fetcher in self.fetchers.items()
        ]
        try:
            await self._stop.wait()
            await self._finish(fetchers)
        finally:
            await cancel_all([*duties, *fetchers, *self._sweeps.values()])
            await self.heartbeat.stop()
            self.threads.shutdown(wait=False, cancel_futures=True)
            log.info("worker stopped", worker=self.name)

    async def _queues(self) -> list[str]:
        return self.queues

    async def declare(self) -> None:
        """Tells each queue the policies that this code declares, until the store hears it."""
        pause = 0.1
        while not self._stop.is_set():
            try:
                for queue in self.queues:
                    standing = await self.store.types(queue)
                    for handler in self.handlers:
                        policy = TypePolicy(handler.timeout_ms, handler.retry)
                        before = standing.get(handler.type, (TypePolicy(), TypePolicy()))[1]
                        if policy.record() != before.record():
                            await self.store.configure_type(queue, handler.type, policy, declared=True)
            except StoreUnavailable as error:
                self.trouble("", error)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, 1.0)
            else:
                self.well("")
                return

    async def _finish(self, fetchers: list[asyncio.Task[None]]) -> None:
        told = asyncio.gather(*fetchers, return_exceptions=True)
        grace = self.settings.grace_ms / 1000
        giving_up = asyncio.ensure_future(self.giving_up.wait())
        try:
            if await self._within(told, grace, giving_up):
                return
            self._cancel_running()
            if await self._within(told, 1.0):
                return
            # Handlers that do not even stop now are left behind; their jobs are given back all the same.
            for fetcher in self.fetchers.values():
                for running in list(fetcher.running.values()):
                    fetcher.end(running, Release(running.claimed.key, running.claimed.token))
            await self._within(told, 0.8)
        finally:
            giving_up.cancel()

    @staticmethod
    async def _within(
        told: asyncio.Future[Any], seconds: float, sooner: asyncio.Future[Any] | None = None
    ) -> bool:
        waited = {told} if sooner is None else {told, sooner}
        done, _ = await asyncio.wait(waited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return told in done

    def _cancel_running(self) -> None:
        self.giving_up.set()
        for fetcher in self.fetchers.values():
            for running in list(fetcher.running.values()):
                running.context.stopping = running.context.cancelled = True
                if running.task is not None:
                    running.task.cancel()

    async def _watch(self) -> None:
        while True:
            self.heartbeat.loop_turned()
            now = monotonic()
            for fetcher in self.fetchers.values():
                fetcher.abandon_overdue(now)
            await asyncio.sleep(0.5)

    # -- what others tell -----------------------------------------------------------------------------------------

    def tell(self, claimed: Claimed, field: str, value: Any) -> None:
        """A handler's progress, log line, checkpoint or extension: goes out with the next turn. From any thread."""
        note = (
            Extend(claimed.key, claimed.token, value)
            if field == "extend"
            else Note(claimed.key, claimed.token, field, value)
        )
        self._loop.call_soon_threadsafe(self._take_note, claimed.queue, note)

    def _take_note(self, queue: str, note: Note | Extend) -> None:
        fetcher = self.fetchers[queue]
        if isinstance(note, Note) and note.field == "progress":
            # Only the newest progress of a job is worth a line.
            fetcher.notes = [
                n
                for n in fetcher.notes
                if not (isinstance(n, Note) and n.field == "progress" and n.key == note.key)
            ]
        fetcher.notes.append(note)
        fetcher.changed.set()

    def heard(self, queue: str, held: Sequence[Extend], replies: Sequence[str]) -> None:
        """What a heartbeat was answered: leases that are lost, jobs that were asked to stop."""
        fetcher = self.fetchers[queue]
        for item, reply in zip(held, replies, strict=True):
            if reply == "cancel":
                fetcher.stop_job(item.token)
            elif reply in {"stale", "missing"}:
                fetcher.lose(item.token)

    def sweep_soon(self, queue: str) -> None:
        """Sweeps a queue whose sweep a claim has called due."""
        task = self._sweeps.get(queue)
        if task is None or task.done():
            self._sweeps[queue] = asyncio.create_task(self._sweep(queue))

    async def _sweep(self, queue: str) -> None:
        try:
            await sweep(self.store, queue, self.settings, worker=self.name, only_if_due=True)
        except SchedulerError as error:
            log.debug("sweep failed", queue=queue, error=str(error))

    def trouble(self, queue: str, error: SchedulerError) -> None:
        """Says once that the store fails, not at every try."""
        if queue not in self._in_trouble:
            self._in_trouble.add(queue)
            log.warning(
                "the store fails; handlers run on, and outcomes are told when it is back",
                queue=queue,
                error=str(error),
            )

    def well(self, queue: str) -> None:
        if queue in self._in_trouble:
            self._in_trouble.discard(queue)
            log.info("the store is back", queue=queue)

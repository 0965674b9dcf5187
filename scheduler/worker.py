"""The worker process: a crew of fetchers, one a queue, a heartbeat that holds the leases, and an order to stop in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import socket
import threading
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any

from . import __version__
from .attempt import bind_logging, contain_tasks
from .calling import BATCH
from .declared import declare_schedules
from .doorbell import Doorbell
from .errors import SchedulerError, StoreUnavailable
from .fetcher import Crew, Fetcher, Line
from .handlers import Handler, Handlers
from .heartbeat import BaseHeartbeat, Heartbeat
from .job import Claimed
from .logs import get_logger
from .operations import Operations
from .outcomes import Ack, Extend, Note, Release, TypePolicy
from .presence import Presence
from .scheduling import Schedules
from .settings import Settings
from .store import Store
from .tasks import Pulse, cancel_all, forever, wait_or_raise
from .ticker import Ticker
from .upkeep import Duty, Upkeep, expiries, sweep, watchdog

log = get_logger(__name__)


def worker_name() -> str:
    """A name that is new at every start: host, process, and a random part."""
    host = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in socket.gethostname())[
        :80
    ]
    return f"{host or 'host'}:{os.getpid()}:{secrets.token_hex(4)}"


async def declare(store: Store, queue: str, handlers: Iterable[Handler]) -> None:
    """Tells a queue the policies that this code declares, those that it does not know yet."""
    standing = await store.types(queue)
    for handler in handlers:
        policy = handler.policy
        before = standing.get(handler.type, (TypePolicy(), TypePolicy()))[1]
        if policy.record() != before.record():
            await store.configure_type(queue, handler.type, policy, declared=True)


async def declare_anew(store: Store, queue: str, handlers: Iterable[Handler]) -> None:
    """Tells a queue that has lost what was declared, as one that was obliterated and began anew has; begins none.

    What another release of the code declares there stays.
    """
    standing = await store.types(queue)
    lost = [
        handler
        for handler in handlers
        if handler.type not in standing or not standing[handler.type][1].record()
        if handler.policy.record()
    ]
    if lost and await store.run(store.census_call(queue)) is not None:
        await declare(store, queue, lost)


class BaseWorker:
    """Runs handlers for some queues until it is told to stop, whoever claims and settles for it."""

    def __init__(
        self,
        handlers: Handlers,
        settings: Settings,
        *,
        queues: Sequence[str] | Mapping[str, int] = (),
        concurrency: int | None = None,
    ) -> None:
        self.handlers = handlers
        self.settings = settings
        self.name = worker_name()
        self.concurrency = concurrency or settings.concurrency
        weights = queues if isinstance(queues, Mapping) else dict.fromkeys(queues, 1)
        weights = weights or dict.fromkeys(handlers.queues() or ["default"], 1)
        self.queues = list(weights)
        self.crew = Crew(handlers, settings, name=self.name, concurrency=self.concurrency, tell=self.tell)
        self.fetchers = self.crew.fetchers
        self.fetchers.update({queue: self.line(queue, weight) for queue, weight in weights.items()})
        self.heartbeat = self.beat()
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._stop = asyncio.Event()

    # -- how it claims and settles --------------------------------------------------------------------------------

    def line(self, queue: str, weight: int) -> Line:
        """The line of one of its queues."""
        raise NotImplementedError

    def beat(self) -> BaseHeartbeat:
        """What holds its leases."""
        raise NotImplementedError

    async def declare(self) -> None:
        """Tells each queue the policies that this code declares, until it is heard."""
        raise NotImplementedError

    def duties(self) -> list[asyncio.Task[Any]]:
        """Begins what is to be done beside the work."""
        return []

    async def leave(self) -> None:
        """Ends what is left when everything is told."""

    # -- life -----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Claim nothing more; let handlers finish within the grace. Called again: end at once, still releasing."""
        if self._stop.is_set():
            self.crew.giving_up.set()
        self.crew.stopping = True
        self._stop.set()
        for fetcher in self.fetchers.values():
            for running in list(fetcher.running.values()):
                if running.task is None:  # nothing begins any more
                    fetcher.end(running, Release(running.claimed.key, running.claimed.token))
            fetcher.changed.set()

    async def run(self) -> None:
        """Works until `stop` was called and everything is told or given back. Raises what ended one of its loops."""
        contain_tasks(self._loop)
        bind_logging()
        await self.declare()
        log.info(
            "worker started",
            worker=self.name,
            queues=self.queues,
            types=sorted(h.type for h in self.handlers),
            concurrency=self.concurrency,
        )
        self.heartbeat.start()
        modules = [handler.home[0] for handler in self.handlers if handler.process]
        warming = (
            asyncio.create_task(self.crew.places.processes.warm(modules), name="warm") if modules else None
        )
        duties = [
            *self.duties(),
            asyncio.create_task(forever(Pulse("watch"), self._watch), name="watch"),
        ]
        fetchers = [
            asyncio.create_task(self._fetch(fetcher), name=f"fetch {queue}")
            for queue, fetcher in self.fetchers.items()
        ]
        try:
            await wait_or_raise(self._stop, [*duties, *fetchers])
            await self._finish(fetchers)
        finally:
            await cancel_all([*duties, *fetchers, *([warming] if warming is not None else [])])
            await self.heartbeat.stop()
            await self.crew.outcomes.close()
            await self.leave()
            await asyncio.to_thread(self.crew.places.close)
            log.info("worker stopped", worker=self.name)

    @staticmethod
    async def _fetch(fetcher: Line) -> None:
        # What it holds is kept outside of its loop, so that a loop begun anew goes on with it.
        await forever(Pulse(f"fetch {fetcher.queue}"), fetcher.run, done=lambda: fetcher.done)

    async def _finish(self, fetchers: list[asyncio.Task[None]]) -> None:
        told = asyncio.gather(*fetchers, return_exceptions=True)
        grace = self.settings.grace_ms / 1000
        giving_up = asyncio.ensure_future(self.crew.giving_up.wait())
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
        self.crew.giving_up.set()
        for fetcher in self.fetchers.values():
            for running in list(fetcher.running.values()):
                running.context.stopping = running.context.cancelled = True
                if running.task is not None:
                    running.task.cancel()

    async def _watch(self) -> float:
        self.heartbeat.loop_turned()
        now = monotonic()
        for fetcher in self.fetchers.values():
            fetcher.abandon_overdue(now)
        return 0.5

    # -- what others tell -----------------------------------------------------------------------------------------

    def tell(self, claimed: Claimed, field: str, value: Any) -> None:
        """A handler's progress, log line, checkpoint or extension: goes out with the next turn. From any thread."""
        if field == "add":
            return  # goes out with the ack
        note = (
            Extend(claimed.key, claimed.token, value)
            if field == "extend"
            else Note(
                claimed.key, claimed.token, field, value, self._number(claimed) if field == "log" else 0
            )
        )
        if threading.get_ident() == self._thread:
            # At once: a handler that ends now must not be told of before what it has told.
            self._take_note(claimed.queue, note)
        else:
            self._loop.call_soon_threadsafe(self._take_note, claimed.queue, note)

    def _number(self, claimed: Claimed) -> int:
        """The next number of a log line of this run: a turn that is sent again leaves no line twice."""
        running = self.fetchers[claimed.queue].running.get(claimed.token)
        return 0 if running is None else next(running.lines)

    def _take_note(self, queue: str, note: Note | Extend) -> None:
        fetcher = self.fetchers[queue]
        fetcher.notes.append(note)
        fetcher.changed.set()

    def left(self) -> list[str]:
        """Ids of the jobs whose handlers run now. From any thread."""
        return [
            running.claimed.id for line in self.fetchers.values() for running in list(line.running.values())
        ]

    def held(self) -> list[tuple[str, list[Extend]]]:
        """The leases of everything that runs now, in batches; what is finished is not among them. From any thread."""
        found = []
        for queue, fetcher in self.fetchers.items():
            # A copy in one step: the loop goes on changing the dictionary while a thread looks.
            running = list(fetcher.running.values())
            held = [(r.claimed.key, r.claimed.token) for r in running]
            # An ack that adds jobs may have to wait until its queue has room for them.
            held += [(s.key, s.token) for s in list(fetcher.settled) if isinstance(s, Ack) and s.added]
            items = [Extend(key, token, self.settings.lease_ms) for key, token in held]
            found += [(queue, items[n : n + BATCH]) for n in range(0, len(items), BATCH)]
        return found

    def heard(self, queue: str, held: Sequence[Extend], replies: Sequence[str]) -> None:
        """What a heartbeat was answered: leases that are lost, jobs that were asked to stop."""
        fetcher = self.fetchers[queue]
        for item, reply in zip(held, replies, strict=True):
            if reply == "cancel":
                fetcher.stop_job(item.token)
            elif reply in {"stale", "missing"}:
                fetcher.lose(item.token)


class Worker(BaseWorker):
    """A worker beside a store: it claims and settles there itself, and does its share of the periodic duties."""

    def __init__(
        self,
        store: Store,
        handlers: Handlers,
        settings: Settings,
        *,
        doorbell: Doorbell,
        queues: Sequence[str] | Mapping[str, int] = (),
        concurrency: int | None = None,
    ) -> None:
        self.store, self._doorbell = store, doorbell
        self.presence = Presence(store)
        self._sweeps: dict[str, asyncio.Task[Any]] = {}
        self._relays: dict[str, asyncio.Task[Any]] = {}
        super().__init__(handlers, settings, queues=queues, concurrency=concurrency)
        self._operations = Operations(store, self.name)
        self._schedules = Schedules(store, max_payload=settings.max_payload)
        self._ticker = Ticker(store, self._schedules)

    def line(self, queue: str, weight: int) -> Line:
        return Fetcher(
            self.crew, queue, weight, store=self.store, doorbell=self._doorbell, sweep_soon=self.sweep_soon,
            relay_soon=self.relay_soon,
        )  # fmt: skip

    def beat(self) -> Heartbeat:
        return Heartbeat(self.store, self.settings.lease_ms, held=self.held, heard=self.heard)

    def duties(self) -> list[asyncio.Task[Any]]:
        upkeep = Upkeep(
            [
                watchdog(
                    self.store, self.settings, self._queues, worker=self.name, died=self.crew.outcomes.died
                ),
                expiries(self.store, self._queues, died=self.crew.outcomes.died),
                self._operations.duty(),
                Duty("presence", self.settings.lease_ms / 3000, self._sign),
                Duty("declarations", 60.0, self._declare_anew),
            ]
        )
        return [
            asyncio.create_task(upkeep.run(), name="upkeep"),
            asyncio.create_task(self._ticker.run(), name="schedules"),
            asyncio.create_task(self.store.nudges.hear(self._nudged), name="nudges"),
        ]

    async def leave(self) -> None:
        await cancel_all([*self._sweeps.values(), *self._relays.values()])
        await self._operations.close()
        # A server that is away must not hold up the end, which has used nearly all of its two seconds by now.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await self.presence.leave(self.name)

    async def _queues(self) -> list[str]:
        return self.queues

    async def _sign(self) -> None:
        said = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": __version__,
            "queues": self.queues,
            "types": sorted(handler.type for handler in self.handlers),
            "concurrency": self.concurrency,
        }
        await self.presence.sign(self.name, said, self.settings.lease_ms)

    async def declare(self) -> None:
        """Tells each queue the policies that this code declares, until the store hears it."""
        pause = 0.1
        while not self._stop.is_set():
            try:
                for queue in self.queues:
                    await declare(self.store, queue, self.handlers)
                await declare_schedules(
                    self.store, self._schedules, self.handlers.app, self.handlers.schedules
                )
            except StoreUnavailable as error:
                self.crew.trouble("", error)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, 1.0)
            else:
                self.crew.well("")
                return

    async def _declare_anew(self) -> None:
        for queue in self.queues:
            await declare_anew(self.store, queue, self.handlers)

    def _nudged(self, ids: list[str]) -> None:
        """Jobs were asked to stop: where one runs here, the heartbeat asks about the leases of this worker now."""
        mine = set(self.left())
        if not mine.isdisjoint(ids):
            self.heartbeat.soon()

    def sweep_soon(self, queue: str) -> None:
        """Sweeps a queue whose sweep a claim has called due."""
        task = self._sweeps.get(queue)
        if task is None or task.done():
            self._sweeps[queue] = asyncio.create_task(self._sweep(queue))

    def relay_soon(self, queue: str) -> None:
        """Tells those who wait for jobs that ended, when a claim has said that there is word for them."""
        task = self._relays.get(queue)
        if task is None or task.done():
            self._relays[queue] = asyncio.create_task(self._behind("relay", queue, self.store.relay(queue)))

    async def _sweep(self, queue: str) -> None:
        died = self.crew.outcomes.died
        doing = sweep(self.store, queue, self.settings, worker=self.name, only_if_due=True, died=died)
        await self._behind("sweep", queue, doing)

    @staticmethod
    async def _behind(what: str, queue: str, doing: Coroutine[Any, Any, object]) -> None:
        try:
            await doing
        except SchedulerError as error:
            log.debug("failed behind the work", what=what, queue=queue, error=str(error))
        except Exception:
            # The watchdog does it again; but it is to be known.
            log.exception("failed behind the work", what=what, queue=queue)

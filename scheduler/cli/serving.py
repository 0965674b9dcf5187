"""What the processes do: the API, a worker, or both in one, from their parts being opened to their end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from .. import forks
from ..app import Scheduler
from ..clients import open_clients
from ..doorbell import Doorbell
from ..errors import SchedulerError, StoreUnavailable
from ..events import Follower
from ..logs import get_logger
from ..settings import Settings
from ..store import Store
from ..tasks import Pulse, cancel_all, forever, wait_or_raise
from ..upkeep import Upkeep, expiries, strays, watchdog
from ..worker import Worker
from .common import wait_for
from .ending import AFTER_WORK, Ending
from .program import Mistake

log = get_logger(__name__)

CLOSING = 1.0
"""Seconds that lifespans have for closing, however much of the grace the handlers took."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a process shares: one store, one bell, one follower."""

    store: Store
    doorbell: Doorbell
    follower: Follower


@contextlib.asynccontextmanager
async def opened(settings: Settings, *, name: str) -> AsyncIterator[Parts]:
    """The parts, closed in the reverse order. Redis need not be there yet."""
    clients = await open_clients(settings.redis_url, name=name, durability=settings.durability)
    store = Store(clients, settings.namespace)
    doorbell, follower = Doorbell(clients, settings.namespace), Follower(clients, settings.namespace)
    try:
        yield Parts(store, doorbell, follower)
    finally:
        await doorbell.close()
        await follower.close()
        await store.close()


_ending: Ending | None = None


def on_signals(stop: Callable[[], None]) -> None:
    """SIGINT and SIGTERM call `stop`; the second one calls it again. The first one sets the deadline of the process."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    if _ending is not None:
        _ending.on_signals()


@contextlib.contextmanager
def ending(settings: Settings) -> Iterator[Ending]:
    """This process ends within its grace and two seconds after a signal, and soon after its work."""
    global _ending  # noqa: PLW0603 - a process has one end
    _ending = Ending(settings.grace_ms / 1000)
    forks.guard()
    try:
        yield _ending
    except BaseException:
        _ending.status = 1
        raise
    finally:
        _ending.within(AFTER_WORK)


async def upkeep_of_all(store: Store, settings: Settings) -> None:
    """The watchdog's round over every queue there is, and the search for unregistered ones."""
    await Upkeep(
        [watchdog(store, settings, store.queues), expiries(store, store.queues), strays(store)]
    ).run()


async def work(
    app: Scheduler,
    settings: Settings,
    queues: Mapping[str, int],
    *,
    parent: int | None = None,
    ready: int | None = None,
) -> None:
    """One worker process, until a signal. To the descriptor `ready` it writes when its lifespans are open."""
    with ending(settings):
        await _work_opened(app, settings, queues, parent=parent, ready=ready)


async def _work_opened(
    app: Scheduler, settings: Settings, queues: Mapping[str, int], *, parent: int | None, ready: int | None
) -> None:
    async with opened(settings, name="scheduler-worker") as parts:
        stop = asyncio.Event()
        on_signals(stop.set)
        orphan = asyncio.ensure_future(_stop_when_orphaned(parent)) if parent is not None else None
        try:
            names = list(queues) or app.handlers.queues() or ["default"]
            if not await ready_unless_stopped(parts.store, stop, queue=names[0]):
                return
            for name in names[1:]:
                await check_rights_of(parts.store, name)
            await within_lifespans(
                app, parts, settings, stop, lambda: _work(app, parts, settings, stop, queues, ready)
            )
        finally:
            if orphan is not None:
                orphan.cancel()


async def _work(
    app: Scheduler, parts: Parts, settings: Settings, stop: asyncio.Event, queues: Mapping[str, int], ready: int | None
) -> None:  # fmt: skip
    if ready is not None:
        with contextlib.suppress(OSError):  # who started us is gone
            os.write(ready, b"1")
            os.close(ready)
    own = Worker(parts.store, app.handlers, settings, doorbell=parts.doorbell, queues=queues)
    if _ending is not None:
        _ending.left = own.left

    def end() -> None:
        stop.set()
        own.stop()

    on_signals(end)
    await own.run()


async def within_lifespans(
    app: Scheduler, parts: Parts, settings: Settings, stop: asyncio.Event, work: Callable[[], Awaitable[None]]
) -> None:
    """Does the work with the app's resources open. None of them holds up the end of the process.

    A signal while they are opened ends that, and nothing is worked. To close they have the rest of the grace, at least
    CLOSING seconds, or until another signal. `work` sees to the signals in between, and sets `stop` at the first.
    """
    loop = asyncio.get_running_loop()
    opened = failed = False
    limit = asyncio.timeout(None)

    def end_at(when: float) -> None:
        # It may be ending already, by an earlier signal.
        with contextlib.suppress(RuntimeError):
            limit.reschedule(when)

    def hurry() -> None:
        stop.set()
        end_at(loop.time())

    async def tell_when_asked() -> float:
        await stop.wait()
        return loop.time()

    asked = asyncio.ensure_future(tell_when_asked())
    try:
        async with limit:
            on_signals(hurry)
            if stop.is_set():
                return
            async with app.at_work(parts.store, parts.follower):
                opened = True
                try:
                    await work()
                except BaseException:
                    failed = True
                    raise
                finally:
                    on_signals(hurry)
                    since = asked.result() if asked.done() else loop.time()
                    end_at(max(since + settings.grace_ms / 1000, loop.time() + CLOSING))
    except Exception as error:
        if failed:
            raise
        if not (isinstance(error, TimeoutError) and limit.expired()):
            # What is around the work is the user's: his lifespans.
            raise Mistake(f"a lifespan failed when it {'closed' if opened else 'opened'}", error) from error
        log.warning(
            "a lifespan did not close in time and was left"
            if opened
            else "stopped while a lifespan was opened"
        )
    finally:
        asked.cancel()


async def ready_unless_stopped(store: Store, stop: asyncio.Event, *, queue: str = "default") -> bool:
    """Waits for the store, and says so; False when it is time to stop before it came."""
    waiting = asyncio.ensure_future(wait_for(store, queue=queue, say=log.warning))
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if waiting.done():
        waiting.result()
        return True
    await cancel_all([waiting])
    return False


async def check_rights_of(store: Store, queue: str) -> None:
    """Raises StoreRefused for a queue whose keys this user may not use, and for nothing else."""
    with contextlib.suppress(StoreUnavailable):
        await store.connect(queue=queue)


async def _stop_when_orphaned(parent: int) -> None:
    while os.getppid() == parent:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.5)
    log.warning("the parent process is gone: stopping")
    signal.raise_signal(signal.SIGTERM)


async def serve(
    settings: Settings, app: Scheduler | None = None, say: Callable[[int], None] | None = None
) -> None:
    """The API until a signal; with an app a worker beside it. `say` is told the port when both are there."""
    with ending(settings):
        await _serve(settings, app, say)


async def _serve(settings: Settings, app: Scheduler | None, say: Callable[[int], None] | None) -> None:
    from ..api import make_app  # noqa: PLC0415 - a worker does without
    from ..api import serve as served  # noqa: PLC0415

    async with opened(settings, name="scheduler-api") as parts:
        web_app = make_app(parts.store, settings, doorbell=parts.doorbell, follower=parts.follower)
        stop = asyncio.Event()
        on_signals(stop.set)
        try:
            async with served(web_app, settings) as site:
                upkeep = asyncio.create_task(_upkeep(parts, settings), name="upkeep")
                try:
                    if app is not None and await ready_unless_stopped(parts.store, stop):
                        await _work_beside(
                            app, parts, settings, stop, lambda: say and say(urlsplit(site.name).port or 0)
                        )
                    else:
                        await wait_or_raise(stop, [upkeep])
                finally:
                    await cancel_all([upkeep])
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise SchedulerError(
                    f"port {settings.port} is taken: set SCHEDULER_PORT (or --port) to another one"
                ) from error
            if isinstance(error, socket.gaierror) or error.errno in {errno.EACCES, errno.EADDRNOTAVAIL}:
                raise SchedulerError(
                    f"cannot bind {settings.host}:{settings.port}: {error.strerror}; see SCHEDULER_HOST and SCHEDULER_PORT"
                ) from error
            raise


async def _work_beside(
    app: Scheduler, parts: Parts, settings: Settings, stop: asyncio.Event, say: Callable[[], object]
) -> None:
    """A worker in the process of the API, until `stop`. What ends the worker before that ends the process."""

    async def work() -> None:
        own = Worker(parts.store, app.handlers, settings, doorbell=parts.doorbell)
        if _ending is not None:
            _ending.left = own.left
        on_signals(stop.set)
        working = asyncio.create_task(own.run(), name="worker")
        say()
        try:
            await wait_or_raise(stop, [working])
        finally:
            on_signals(own.stop)
            own.stop()
            await asyncio.wait({working}, timeout=settings.grace_ms / 1000 + 3)
            if working.done():
                working.result()
            else:
                await cancel_all([working])

    await within_lifespans(app, parts, settings, stop, work)


async def _upkeep(parts: Parts, settings: Settings) -> None:
    async def step() -> None:
        await wait_for(parts.store, say=log.warning)
        await upkeep_of_all(parts.store, settings)

    # A store that refuses may be put right while this process serves.
    await forever(Pulse("upkeep", patience=0.0, longest=5.0), step)

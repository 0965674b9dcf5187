"""The same client for code without an event loop: a thin face over a loop in a thread."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from ..graph import Piece
from ..loop_thread import LoopThread
from .client import Client, Flow, Gathered, Handle, Queue, Works, line_of
from .lines import Outcome, plain_windows
from .link import HttpLink
from .schedules import Schedule
from .transport import PATIENCE, TIMEOUT

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F")


class _Face(Generic[F]):
    """What stands before something whose calls are awaited."""

    def __init__(self, thread: LoopThread, faced: F) -> None:
        self._thread, self._faced = thread, faced

    def __repr__(self) -> str:
        return repr(self._faced)


def _waits(
    call: Callable[Concatenate[F, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[_Face[F], P], T]:
    """The same call, with its arguments and their types, which waits."""

    @functools.wraps(call)
    def plain(self: _Face[F], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._thread.run(call(self._faced, *args, **kwargs))

    return plain


def _each(
    call: Callable[Concatenate[F, P], AsyncIterator[T]],
) -> Callable[Concatenate[_Face[F], P], Iterator[T]]:
    """The same call, whose items come one after the other."""

    @functools.wraps(call)
    def plain(self: _Face[F], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return _one_by_one(self._thread, call(self._faced, *args, **kwargs))

    return plain


def _makes(
    call: Callable[Concatenate[F, P], Coroutine[Any, Any, Handle]],
) -> Callable[Concatenate[_Face[F], P], SyncHandle]:
    """The same call, whose handle waits too."""

    @functools.wraps(call)
    def plain(self: _Face[F], /, *args: P.args, **kwargs: P.kwargs) -> SyncHandle:
        return SyncHandle(self._thread, self._thread.run(call(self._faced, *args, **kwargs)))

    return plain


def _one_by_one(thread: LoopThread, items: AsyncIterator[T]) -> Iterator[T]:
    end: Any = object()

    async def following() -> Any:
        return await anext(items, end)

    try:
        while (item := thread.run(following())) is not end:
            yield item
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            with contextlib.suppress(RuntimeError):
                thread.run(close())


class SyncClient(_Face[Client]):
    """The REST API for code without an event loop: `Client`'s calls, which wait.

        with SyncClient("http://localhost:8080") as jobs:
            print(jobs.enqueue("email.send", {"to": "a@example.com"}).result(timeout=90))

    It may be used by several threads at once. After a fork the child makes its own.
    """

    def __init__(
        self,
        url: str = "http://localhost:8080",
        key: str | None = None,
        *,
        timeout: float = TIMEOUT,
        patience: float = PATIENCE,
    ) -> None:
        super().__init__(LoopThread(), Client(url, key, timeout=timeout, patience=patience))
        self._closing = threading.Lock()

    def __repr__(self) -> str:
        return super().__repr__().replace("Client", "SyncClient")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes its connections and ends its thread. What other threads wait for raises RuntimeError."""
        with self._closing:
            if self._thread.alive:
                self._thread.run(self._faced.close())
                self._thread.stop()

    # -- enqueueing -----------------------------------------------------------------------------------------------

    enqueue = _makes(Client.enqueue)

    def flow(
        self,
        jobs: Piece | Iterable[Mapping[str, Any]],
        *,
        id: str | None = None,
        queue: str | None = None,
        on_failure: str | None = None,
    ) -> SyncFlow:
        """A graph of jobs that wait for each other, all of it or nothing: see `Client.flow`."""
        made = self._faced.flow(jobs, id=id, queue=queue, on_failure=on_failure)
        return SyncFlow(self._thread, self._thread.run(made))

    def enqueue_many(self, jobs: Iterable[Mapping[str, Any]]) -> list[SyncHandle]:
        """Many jobs and the handles of all: see `Client.enqueue_many`. They are taken from their source in this thread."""
        gathered = Gathered(self._faced.transport)
        for outcome in self.enqueue_each(jobs):
            gathered.add(outcome)
        return [SyncHandle(self._thread, handle) for handle in gathered.handles()]

    def enqueue_each(self, jobs: Iterable[Mapping[str, Any]]) -> Iterator[Outcome]:
        """Many jobs, sent while the outcomes are read: see `Client.enqueue_many`."""
        link = HttpLink(self._faced.transport)
        for some in plain_windows(line_of(number, asked) for number, asked in enumerate(jobs)):
            yield from self._thread.run(link.send(some))

    # -- looking --------------------------------------------------------------------------------------------------

    def job(self, id: str) -> SyncHandle:
        """The handle of a job. Nothing is asked."""
        return SyncHandle(self._thread, self._faced.job(id))

    def schedule(self, name: str) -> SyncSchedule:
        """A schedule by its name. Nothing is asked."""
        return SyncSchedule(self._thread, self._faced.schedule(name))

    schedules = _each(Client.schedules)

    def flow_with(self, id: str) -> SyncFlow:
        """The handle of a flow by its id. Nothing is asked."""
        return SyncFlow(self._thread, self._faced.flow_with(id))

    def queue(self, name: str) -> SyncQueue:
        """A queue by its name. Nothing is asked."""
        return SyncQueue(self._thread, self._faced.queue(name))

    jobs = _each(Client.jobs)
    queues = _each(Client.queues)
    stats = _each(Client.stats)
    workers = _each(Client.workers)

    # -- operations -----------------------------------------------------------------------------------------------

    operate = _waits(Client.operate)
    operation = _waits(Client.operation)
    operations = _each(Client.operations)
    stop_operation = _waits(Client.stop_operation)

    # -- working --------------------------------------------------------------------------------------------------

    lease = _waits(Client.lease)
    settle = _waits(Client.settle)

    def work(
        self, app: Works, *, queues: Sequence[str] | Mapping[str, int] = (), concurrency: int | None = 10
    ) -> None:
        """Works until Ctrl-C: then handlers have the grace to finish. See `Client.work`."""
        self._thread.run(self._faced.work(app, queues=queues, concurrency=concurrency), finish=True)


class SyncHandle(_Face[Handle]):
    """A job, for code without an event loop: see `Handle`."""

    def __init__(self, thread: LoopThread, handle: Handle) -> None:
        super().__init__(thread, handle)
        self.id = handle.id
        self.duplicate = handle.duplicate
        self.warnings = handle.warnings

    refresh = _waits(Handle.refresh)
    cancel = _waits(Handle.cancel)
    result = _waits(Handle.result)
    ended = _waits(Handle.ended)
    run = _waits(Handle.run)
    open = _waits(Handle.open)
    replay = _waits(Handle.replay)
    update = _waits(Handle.update)
    copy = _makes(Handle.copy)
    delete = _waits(Handle.delete)
    explain = _waits(Handle.explain)
    log = _each(Handle.log)


class SyncSchedule(_Face[Schedule]):
    """A schedule, for code without an event loop: see `Schedule`."""

    def __init__(self, thread: LoopThread, schedule: Schedule) -> None:
        super().__init__(thread, schedule)
        self.name = schedule.name

    put = _waits(Schedule.put)
    show = _waits(Schedule.show)
    pause = _waits(Schedule.pause)
    resume = _waits(Schedule.resume)
    trigger = _waits(Schedule.trigger)
    preview = _waits(Schedule.preview)
    delete = _waits(Schedule.delete)


class SyncFlow(_Face[Flow]):
    """A flow, for code without an event loop: see `Flow`."""

    def __init__(self, thread: LoopThread, flow: Flow) -> None:
        super().__init__(thread, flow)
        self.id, self.duplicate = flow.id, flow.duplicate
        self.jobs = {name: SyncHandle(thread, handle) for name, handle in flow.jobs.items()}

    refresh = _waits(Flow.refresh)
    cancel = _waits(Flow.cancel)
    replay = _waits(Flow.replay)
    wait = _waits(Flow.wait)


class SyncQueue(_Face[Queue]):
    """A queue, for code without an event loop: see `Queue`."""

    def __init__(self, thread: LoopThread, queue: Queue) -> None:
        super().__init__(thread, queue)
        self.name = queue.name

    show = _waits(Queue.show)
    demand = _waits(Queue.demand)
    pause = _waits(Queue.pause)
    drain = _waits(Queue.drain)
    resume = _waits(Queue.resume)
    configure = _waits(Queue.configure)
    create = _waits(Queue.create)
    types = _each(Queue.types)
    set_type = _waits(Queue.set_type)
    pause_type = _waits(Queue.pause_type)
    resume_type = _waits(Queue.resume_type)
    reset_breaker = _waits(Queue.reset_breaker)
    set_group = _waits(Queue.set_group)
    group = _waits(Queue.group)
    groups = _each(Queue.groups)
    dead = _each(Queue.dead)
    dead_groups = _each(Queue.dead_groups)
    replay_dead = _waits(Queue.replay_dead)
    purge_dead = _waits(Queue.purge_dead)
    purge = _waits(Queue.purge)
    obliterate = _waits(Queue.obliterate)

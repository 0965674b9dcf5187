"""The same client for code without an event loop: a thin face over a loop in a thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from ..documents import Leased, Listed
from ..fields import (
    DemandShown,
    ExplainShown,
    GroupPolicyShown,
    GroupShown,
    LineShown,
    OperationShown,
    QueueShown,
    QueueStats,
    SettledItem,
    TypeShown,
    WorkerShown,
)
from ..job import Job, State
from ..loop_thread import LoopThread
from .client import Client, Gathered, Handle, Queue, Works, line_of
from .lines import Outcome, plain_windows
from .link import HttpLink
from .transport import PATIENCE, TIMEOUT

T = TypeVar("T")


def _each(thread: LoopThread, items: AsyncIterator[T]) -> Iterator[T]:
    """The items of an asynchronous iterator, one after the other."""
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


class SyncClient:
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
        self._client = Client(url, key, timeout=timeout, patience=patience)
        self._thread = LoopThread()
        self._closing = threading.Lock()

    def __repr__(self) -> str:
        return repr(self._client).replace("Client", "SyncClient")

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
                self._thread.run(self._client.close())
                self._thread.stop()

    # -- enqueueing -----------------------------------------------------------------------------------------------

    def enqueue(self, type: str, payload: Any = None, **options: Any) -> SyncHandle:
        """A new job, and its handle: see `Client.enqueue`."""
        return self._handle(self._thread.run(self._client.enqueue(type, payload, **options)))

    def enqueue_many(self, jobs: Iterable[Mapping[str, Any]]) -> list[SyncHandle]:
        """Many jobs and the handles of all: see `Client.enqueue_many`. They are taken from their source in this thread."""
        gathered = Gathered(self._client.transport)
        for outcome in self.enqueue_each(jobs):
            gathered.add(outcome)
        return [self._handle(handle) for handle in gathered.handles()]

    def enqueue_each(self, jobs: Iterable[Mapping[str, Any]]) -> Iterator[Outcome]:
        """Many jobs, sent while the outcomes are read: see `Client.enqueue_many`."""
        link = HttpLink(self._client.transport)
        for some in plain_windows(line_of(number, asked) for number, asked in enumerate(jobs)):
            yield from self._thread.run(link.send(some))

    # -- looking --------------------------------------------------------------------------------------------------

    def job(self, id: str) -> SyncHandle:
        """The handle of a job. Nothing is asked."""
        return self._handle(self._client.job(id))

    def jobs(self, **filters: Any) -> Iterator[Job]:
        """All jobs for which this holds: see `Client.jobs`."""
        return _each(self._thread, self._client.jobs(**filters))

    def queue(self, name: str) -> SyncQueue:
        """A queue by its name. Nothing is asked."""
        return SyncQueue(self._thread, self._client.queue(name))

    def queues(self) -> Iterator[QueueShown]:
        """All queues, by name."""
        return _each(self._thread, self._client.queues())

    def stats(self, queue: str | None = None) -> Iterator[QueueStats]:
        """What went through the queues, or one of them."""
        return _each(self._thread, self._client.stats(queue))

    def workers(self) -> Iterator[WorkerShown]:
        """Who works, by name, and on what."""
        return _each(self._thread, self._client.workers())

    # -- operations -----------------------------------------------------------------------------------------------

    def operate(
        self,
        act: Literal["cancel", "purge", "run", "replay"],
        queue: str,
        filter: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> OperationShown:
        """Begins an act over all jobs of a queue that match: see `Client.operate`."""
        return self._thread.run(self._client.operate(act, queue, filter, **options))

    def operation(self, id: str) -> OperationShown:
        """How far an operation is."""
        return self._thread.run(self._client.operation(id))

    def operations(self, queue: str | None = None) -> Iterator[OperationShown]:
        """Operations, the newest first."""
        return _each(self._thread, self._client.operations(queue))

    def stop_operation(self, id: str) -> OperationShown:
        """Stops an operation between two pages."""
        return self._thread.run(self._client.stop_operation(id))

    # -- working --------------------------------------------------------------------------------------------------

    def lease(self, queue: str, **asked: Any) -> list[Leased]:
        """Claims jobs: see `Client.lease`."""
        return self._thread.run(self._client.lease(queue, **asked))

    def settle(self, queue: str, **items: Any) -> list[SettledItem]:
        """Tells what became of leased jobs: see `Client.settle`."""
        return self._thread.run(self._client.settle(queue, **items))

    def work(
        self, app: Works, *, queues: Sequence[str] | Mapping[str, int] = (), concurrency: int | None = 10
    ) -> None:
        """Works until Ctrl-C: then handlers have the grace to finish. See `Client.work`."""
        self._thread.run(self._client.work(app, queues=queues, concurrency=concurrency), finish=True)

    def _handle(self, handle: Handle) -> SyncHandle:
        return SyncHandle(self._thread, handle)


class SyncHandle:
    """A job, for code without an event loop: see `Handle`."""

    def __init__(self, thread: LoopThread, handle: Handle) -> None:
        self._thread, self._handle = thread, handle
        self.id = handle.id
        self.duplicate = handle.duplicate

    def __repr__(self) -> str:
        return repr(self._handle)

    def refresh(self) -> Job:
        return self._thread.run(self._handle.refresh())

    def cancel(self) -> Job:
        return self._thread.run(self._handle.cancel())

    def result(self, timeout: float | None = None) -> Any:
        """What the handler returned. Raises JobDead, JobCancelled, or TimeoutError after so many seconds."""
        return self._thread.run(self._handle.result(timeout))

    def ended(self, timeout: float | None = None) -> Job:
        return self._thread.run(self._handle.ended(timeout))

    def run(self) -> Job:
        return self._thread.run(self._handle.run())

    def replay(self, **edits: Any) -> Job:
        return self._thread.run(self._handle.replay(**edits))

    def update(self, **changes: Any) -> Job:
        return self._thread.run(self._handle.update(**changes))

    def copy(self, **changes: Any) -> SyncHandle:
        return SyncHandle(self._thread, self._thread.run(self._handle.copy(**changes)))

    def delete(self) -> None:
        self._thread.run(self._handle.delete())

    def explain(self) -> ExplainShown:
        return self._thread.run(self._handle.explain())

    def log(self) -> Iterator[LineShown]:
        return _each(self._thread, self._handle.log())


class SyncQueue:
    """A queue, for code without an event loop: see `Queue`."""

    def __init__(self, thread: LoopThread, queue: Queue) -> None:
        self._thread, self._queue = thread, queue
        self.name = queue.name

    def __repr__(self) -> str:
        return repr(self._queue)

    def show(self) -> QueueShown:
        return self._thread.run(self._queue.show())

    def demand(self) -> DemandShown:
        return self._thread.run(self._queue.demand())

    def pause(self) -> QueueShown:
        return self._thread.run(self._queue.pause())

    def resume(self) -> QueueShown:
        return self._thread.run(self._queue.resume())

    def configure(self, **changes: Any) -> QueueShown:
        return self._thread.run(self._queue.configure(**changes))

    def create(self, **fields: Any) -> QueueShown:
        return self._thread.run(self._queue.create(**fields))

    def types(self) -> Iterator[TypeShown]:
        return _each(self._thread, self._queue.types())

    def set_type(self, type: str, **policy: Any) -> TypeShown:
        return self._thread.run(self._queue.set_type(type, **policy))

    def pause_type(self, type: str) -> TypeShown:
        return self._thread.run(self._queue.pause_type(type))

    def resume_type(self, type: str) -> TypeShown:
        return self._thread.run(self._queue.resume_type(type))

    def reset_breaker(self, type: str) -> TypeShown:
        return self._thread.run(self._queue.reset_breaker(type))

    def set_group(self, group: str, **policy: Any) -> GroupPolicyShown:
        return self._thread.run(self._queue.set_group(group, **policy))

    def group(self, group: str) -> GroupPolicyShown:
        return self._thread.run(self._queue.group(group))

    def groups(self) -> Iterator[GroupPolicyShown]:
        return _each(self._thread, self._queue.groups())

    def dead(self, **filters: Any) -> Iterator[Listed]:
        return _each(self._thread, self._queue.dead(**filters))

    def dead_groups(self) -> Iterator[GroupShown]:
        return _each(self._thread, self._queue.dead_groups())

    def replay_dead(self, **which: Any) -> OperationShown:
        return self._thread.run(self._queue.replay_dead(**which))

    def purge_dead(self, **which: Any) -> OperationShown:
        return self._thread.run(self._queue.purge_dead(**which))

    def purge(self, state: State | str, **which: Any) -> OperationShown:
        return self._thread.run(self._queue.purge(state, **which))

    def obliterate(self, *, force: bool = False) -> None:
        self._thread.run(self._queue.obliterate(force=force))

"""Jobs that were enqueued, as those who enqueued them hold them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from .clients import open_clients
from .errors import Fault, Invalid, JobCancelled, JobDead, StoreRefused, WrongState
from .events import Follower, wait_ended
from .job import Job, State, split_id
from .settings import Settings
from .store import Store

if TYPE_CHECKING:
    from .shown import FlowShown


class Handle:
    """A job that was enqueued: where it is, and what came of it."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[tuple[Store, Follower]]],
        job_id: str,
        *,
        duplicate: bool = False,
    ) -> None:
        self._connect = connect
        self.id = job_id
        self.duplicate = duplicate
        """The job stood before: the same request had been enqueued, or another one of its unique key."""

    def __repr__(self) -> str:
        return f"<job {self.id}>"

    async def refresh(self) -> Job:
        """The job as it is now. Raises NotFound once its retention is over."""
        queue, key = handle_parts(self.id)
        store, _ = await self._connect()
        return await store.job(queue, key)

    async def open(self) -> Job:
        """Lets a held job go: it runs when all have ended that it waits for. Raises WrongState when it was not held."""
        queue, key = handle_parts(self.id)
        store, _ = await self._connect()
        outcome = await store.open(queue, key)
        job = await store.job(queue, key)
        if outcome == "not held":
            raise WrongState(f"job {self.id} is {job.state}: it was not enqueued with hold", job.state)
        return job

    async def cancel(self) -> Job:
        """Cancels it, or asks it to stop when it runs. Raises WrongState when it has succeeded or died."""
        queue, key = handle_parts(self.id)
        store, _ = await self._connect()
        [state] = await store.cancel(queue, [key])
        if state not in {"cancelled", "running"}:
            raise WrongState(f"job {self.id} is {state}: it cannot be cancelled", state)
        return await store.job(queue, key)

    async def result(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - the word of the standard library
        """What the handler returned. Raises JobDead, JobCancelled, or TimeoutError after so many seconds."""
        queue, key = handle_parts(self.id)
        store, follower = await self._connect()
        job = await wait_ended(store, follower, queue, key, 10 * 365 * 86_400 if timeout is None else timeout)
        if job.state is State.DEAD:
            raise JobDead(job)
        if job.state is State.CANCELLED:
            raise JobCancelled(job)
        if job.state is not State.SUCCEEDED:
            raise TimeoutError(f"job {self.id} is {job.state} after {timeout} s")
        return msgspec.json.decode(job.result) if job.result else None


class FlowDoor(Protocol):
    """What a handle of a flow needs."""

    async def show(self, queue: str, key: str, wait: float = 0) -> FlowShown: ...
    async def cancel(self, queue: str, key: str) -> FlowShown: ...
    async def replay(self, queue: str, key: str) -> FlowShown: ...


LONGEST_WAIT = 30.0
"""Seconds that one look at a flow waits for its end; then the next one does."""


class FlowHandle:
    """A flow that was put in: how far it is, and its jobs by name."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[FlowDoor]],
        flow_id: str,
        *,
        jobs: Mapping[str, Handle] | None = None,
        duplicate: bool = False,
    ) -> None:
        self._connect = connect
        self.id = flow_id
        self.jobs = dict(jobs or {})
        """Handles of its jobs, by their names."""
        self.duplicate = duplicate
        """It stood before: the same request had put it in."""

    def __repr__(self) -> str:
        return f"<flow {self.id}>"

    async def refresh(self) -> FlowShown:
        """The flow with its jobs, as it is now. Raises NotFound a day after its end."""
        return await (await self._connect()).show(*handle_parts(self.id))

    async def cancel(self) -> FlowShown:
        """Cancels all of it that has not ended, or asks it to stop. Raises WrongState when it has ended otherwise."""
        return await (await self._connect()).cancel(*handle_parts(self.id))

    async def replay(self) -> FlowShown:
        """Runs what is dead in it again, and what was cancelled for that. Raises WrongState when nothing is."""
        return await (await self._connect()).replay(*handle_parts(self.id))

    async def wait(self, timeout: float | None = None) -> FlowShown:  # noqa: ASYNC109 - as in Handle.result
        """The flow once it has ended, whatever came of it. Raises TimeoutError after so many seconds."""
        loop = asyncio.get_running_loop()
        until = None if timeout is None else loop.time() + timeout
        door = await self._connect()
        while True:
            left = LONGEST_WAIT if until is None else max(0.0, until - loop.time())
            began = loop.time()
            flow = await door.show(*handle_parts(self.id), min(left, LONGEST_WAIT))
            if flow.state != "running":
                return flow
            if until is not None and loop.time() >= until:
                raise TimeoutError(f"flow {self.id} is {flow.state} after {timeout} s")
            if loop.time() - began < min(left, LONGEST_WAIT) / 2:
                await asyncio.sleep(min(left, 0.5))  # it stops, and does not let us wait


class SyncFlowHandle:
    """A flow that was put in, for code without an event loop."""

    def __init__(self, flow: FlowHandle, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._flow, self._run = flow, run
        self.id, self.duplicate = flow.id, flow.duplicate
        self.jobs = {name: SyncHandle(handle, run) for name, handle in flow.jobs.items()}

    def __repr__(self) -> str:
        return f"<flow {self.id}>"

    def refresh(self) -> FlowShown:
        """The flow with its jobs, as it is now. Raises NotFound a day after its end."""
        flow: FlowShown = self._run(self._flow.refresh())
        return flow

    def cancel(self) -> FlowShown:
        """Cancels all of it that has not ended, or asks it to stop. Raises WrongState when it has ended otherwise."""
        flow: FlowShown = self._run(self._flow.cancel())
        return flow

    def replay(self) -> FlowShown:
        """Runs what is dead in it again, and what was cancelled for that. Raises WrongState when nothing is."""
        flow: FlowShown = self._run(self._flow.replay())
        return flow

    def wait(self, timeout: float | None = None) -> FlowShown:
        """The flow once it has ended, whatever came of it. Raises TimeoutError after so many seconds."""
        flow: FlowShown = self._run(self._flow.wait(timeout))
        return flow


class SyncHandle:
    """A job that was enqueued, for code without an event loop."""

    def __init__(self, handle: Handle, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._handle, self._run = handle, run
        self.id = handle.id
        self.duplicate = handle.duplicate

    def __repr__(self) -> str:
        return f"<job {self.id}>"

    def refresh(self) -> Job:
        """The job as it is now. Raises NotFound once its retention is over."""
        job: Job = self._run(self._handle.refresh())
        return job

    def open(self) -> Job:
        """Lets a held job go: it runs when all have ended that it waits for. Raises WrongState when it was not held."""
        job: Job = self._run(self._handle.open())
        return job

    def cancel(self) -> Job:
        """Cancels it, or asks it to stop when it runs. Raises WrongState when it has succeeded or died."""
        job: Job = self._run(self._handle.cancel())
        return job

    def result(self, timeout: float | None = None) -> Any:
        """What the handler returned. Raises JobDead, JobCancelled, or TimeoutError after so many seconds."""
        return self._run(self._handle.result(timeout))


class Connection:
    """A store and its follower, opened once for one event loop; those that are given are closed by who gave them."""

    def __init__(self, given: tuple[Store, Follower] | None = None) -> None:
        self._parts, self.given = given, given is not None
        self._opening = asyncio.Lock()

    async def opened(self, settings: Settings) -> tuple[Store, Follower]:
        async with self._opening:
            if self._parts is None:
                if settings.redis_url == "memory://":
                    raise StoreRefused(
                        "memory:// lives inside one process: a job put there by this one would never be seen by a "
                        "worker. `dev`, `api` and `app.test()` take it"
                    )
                clients = await open_clients(settings.redis_url, durability=settings.durability)
                self._parts = Store(clients, settings.namespace), Follower(clients, settings.namespace)
            return self._parts

    async def close(self) -> None:
        parts, self._parts = self._parts, None
        if parts is not None:
            store, follower = parts
            await follower.close()
            await store.close()

    def abandon(self) -> None:
        if self._parts is not None and not self.given:
            self._parts[0].clients.abandon()


def handle_parts(job_id: str) -> tuple[str, str]:
    """Queue and key of an id. Raises Invalid for a text that is no job id."""
    parts = split_id(job_id)
    if parts is None:
        raise Invalid([Fault("/id", f"{job_id!r} is no job id: it is <queue>:<key>")])
    return parts

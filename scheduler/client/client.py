"""The client: jobs, queues, lists, bulk. `work` makes a worker of an app."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeVar, Unpack

import msgspec

from ..documents import (
    Duration,
    HasId,
    JobDocument,
    Leased,
    Listed,
    NoJson,
    Paged,
    new_document,
    read,
    read_options,
    to_json,
)
from ..errors import Fault, Invalid, JobCancelled, JobDead, PayloadInvalid, SchedulerError
from ..graph import Piece, flow_of
from ..job import Job, NewJob, State, check, new_key, split_id
from ..retry import Retry
from ..shown import (
    DemandShown,
    ExplainShown,
    FlowShown,
    GroupPolicyShown,
    GroupShown,
    LineShown,
    OperationShown,
    QueueShown,
    QueueStats,
    ScheduleShown,
    SettledItem,
    TypeShown,
    WorkerShown,
)
from .lines import Line, Outcome, windows
from .link import CALL_ID, HttpLink, say
from .options import (
    Changes,
    CopyOptions,
    Edits,
    GroupOptions,
    OperationOptions,
    PurgeDeadOptions,
    PurgeOptions,
    QueueOptions,
    ReplayDeadOptions,
    TypeOptions,
    as_sent,
)
from .problems import Problem, StoreUnavailable
from .schedules import Schedule
from .transport import PATIENCE, TIMEOUT, Transport, part

T = TypeVar("T")

LOOK_EVERY = 1.0
"""Seconds between looks at a job where the server does not wait."""

SOON = 5.0
"""Seconds that an answer takes at most, beyond the waiting, for who does not want to wait for ever."""

LONGEST_WAIT = 30.0
"""Seconds that one look at a job waits for its end; then the next one does."""

ANY_SIZE = 2**62
"""How large a payload may be, the server says."""


class Works(Protocol):
    """What `Client.work` needs of an app: a `Scheduler` has it."""

    async def work_through(
        self, link: Any, *, queues: Sequence[str] | Mapping[str, int], concurrency: int | None
    ) -> None: ...


class Client:
    """The REST API for code with an event loop.

        async with Client("http://localhost:8080") as jobs:
            job = await jobs.enqueue("email.send", {"to": "a@example.com"}, queue="email")
            print(await job.result(timeout=90))

    Each try of a call takes `timeout` seconds at most (beyond what it asks the server to wait). What is safe to repeat
    is repeated for `patience` seconds when the service is away, does not answer, or asks for a pause: everything but
    `run`, `replay`, `delete`, and operations. Jobs have their ids before they are sent, so that a repeated one is the same.
    A client belongs to the event loop that uses it first; many tasks may share it.

    Raises Problem, and subclasses that are those of the package too: `NotFound`, `WrongState`, `Duplicate`, `Invalid`,
    `StoreUnavailable`, `StoreFull`.
    """

    def __init__(
        self,
        url: str = "http://localhost:8080",
        key: str | None = None,
        *,
        timeout: float = TIMEOUT,
        patience: float = PATIENCE,
    ) -> None:
        """Without `key`, that of SCHEDULER_API_KEY (or of the file SCHEDULER_API_KEY_FILE) if there is one."""
        self.transport = Transport(url, key, timeout=timeout, patience=patience)

    def __repr__(self) -> str:
        return f"<Client {self.transport.url}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes its connections."""
        await self.transport.close()

    # -- enqueueing -----------------------------------------------------------------------------------------------

    async def enqueue(
        self,
        type: str,
        payload: Any = None,
        *,
        queue: str | None = None,
        id: str | None = None,
        priority: int | None = None,
        delay: Duration | None = None,
        run_at: datetime | None = None,
        group: str | None = None,
        tags: Iterable[str] | None = None,
        timeout: Duration | None = None,  # noqa: ASYNC109 - of the job, the word of its document
        retry: Retry | Mapping[str, Any] | None = None,
        retention: Duration | None = None,
        cost: int | None = None,
        unique: bool | str | Mapping[str, Any] | None = None,
        deadline: datetime | Duration | None = None,
        expires_in: Duration | None = None,
        after: Iterable[str | HasId] | None = None,
        before: Iterable[str | HasId] | None = None,
        hold: bool | None = None,
        on_failure: str | None = None,
    ) -> Handle:
        """A new job, and its handle. The same `id` and request again is the same job: `handle.duplicate`.

        `unique`: True (one of this type and payload at a time), a key, or `{"key", "for", "until", "on_conflict"}`; the
        handle of a duplicate is that of the job that stands. `after`: ids, or handles, of jobs whose end it waits for;
        `on_failure`, where one of them does not succeed: "cancel" (the default), "continue", "wait", or "failure". `hold`: it waits
        until `handle.open()`, and for all that joined it with `before`: ids, or handles, of blocked jobs.

        Raises PayloadInvalid and Invalid before anything is sent for what no server takes, Duplicate (with the `id` that
        stands) when `id` belongs to another request, or the unique key to another job and `on_conflict` is "reject";
        StoreUnavailable when the service is away for longer than the patience (the same `id` again is safe), StoreFull
        and TooMany.
        """
        options = {
            "queue": queue, "id": id, "priority": priority, "delay": delay, "run_at": run_at, "group": group,
            "tags": tags, "timeout": timeout, "retry": retry, "retention": retention, "cost": cost, "unique": unique,
            "deadline": deadline, "expires_in": expires_in, "after": after, "before": before, "hold": hold,
            "on_failure": on_failure,
        }  # fmt: skip
        job = new_job(type, payload, options)
        try:
            answer = await self.transport.call(
                "POST", "/v1/jobs", new_document(job), headers={CALL_ID: new_key()}, safe=True
            )
        except Problem as error:
            error.about(f"{job.queue}:{job.key}")
            raise
        found = answer.read(JobDocument)
        # Of an id that was made here, what stands after a try that was not answered is that one's work.
        its_own = answer.unsure and id is None and found.id == f"{job.queue}:{job.key}"
        duplicate = found.duplicate and not its_own
        return Handle(self.transport, found.id, duplicate=duplicate, warnings=found.warnings)

    def enqueue_many(self, jobs: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]]) -> Sending:
        """Many jobs, each as `{"type": …, "payload": …}` with options beside them, sent as they come.

        `async for outcome in …` says what became of each, in order, and holds a few thousand jobs at a time however many
        there are: the next ones are taken when the last ones are answered. `await …` gives the handles of all, as
        `Scheduler.enqueue_many` does.
        """
        return Sending(self.transport, jobs)

    async def flow(
        self,
        jobs: Piece | Iterable[Mapping[str, Any]],
        *,
        id: str | None = None,
        queue: str | None = None,
        on_failure: str | None = None,
    ) -> Flow:
        """A graph of jobs that wait for each other, all of it or nothing: its handle, with those of its jobs by name.

        Each job as `{"name": …, "type": …, "payload": …, "after": [names]}` with options beside them; or a graph of
        `scheduler.chain`, `parallel` and `chord`. `id`: the same flow asked for again is found again. `queue`: where it is kept,
        and of its jobs that name none. `on_failure`: of its jobs that name none ("cancel", "continue", "wait", "failure").

        Raises Invalid and PayloadInvalid before anything is sent, Duplicate when `id`, or that of a job, belongs to another
        request, and what `enqueue` raises.
        """

        def make(type: str, payload: Any, options: Mapping[str, Any]) -> NewJob:
            if queue is not None and options.get("queue") is None:
                options = {**options, "queue": queue}
            return new_job(type, payload, options)

        plan = flow_of(jobs, make, id=id, queue=queue, on_failure=on_failure)
        new = await HttpLink(self.transport).put_flow(plan)
        names = {node.name: f"{node.job.queue}:{node.job.key}" for node in plan.nodes}
        return Flow(self.transport, plan.id, jobs=names, duplicate=not new)

    # -- looking --------------------------------------------------------------------------------------------------

    def job(self, id: str) -> Handle:
        """The handle of a job. Nothing is asked; `await client.job(id)` is the job as it is now."""
        return Handle(self.transport, id)

    async def jobs(
        self,
        *,
        queue: str | None = None,
        state: State | str | None = None,
        type: str | None = None,
        group: str | None = None,
        tag: str | None = None,
        error: str | None = None,
        include: str | None = None,
        page: int = 500,
    ) -> AsyncIterator[Job]:
        """All jobs for which this holds, page after page; their payload and result where `include` names them.

        `error`: the kind of one of its errors. `include`: `payload`, `result` and `trace`, with commas between.
        """
        query = {
            "queue": queue, "state": state, "type": type, "group": group, "tag": tag, "error": error,
            "include": include, "limit": page,
        }  # fmt: skip
        async for found in self._pages("/v1/jobs", JobDocument, query):
            yield found.job()

    def flow_with(self, id: str) -> Flow:
        """The handle of a flow by its id. Nothing is asked, and it knows none of its jobs by name."""
        return Flow(self.transport, id)

    def queue(self, name: str) -> Queue:
        """A queue by its name. Nothing is asked."""
        return Queue(self.transport, name)

    async def queues(self) -> AsyncIterator[QueueShown]:
        """All queues, by name."""
        async for found in self._pages("/v1/queues", QueueShown, {"limit": 100}):
            yield found

    def schedule(self, name: str) -> Schedule:
        """A schedule by its name. Nothing is asked."""
        return Schedule(self.transport, name)

    async def schedules(self, queue: str | None = None) -> AsyncIterator[ScheduleShown]:
        """All schedules by name, or those of a queue."""
        async for found in self._pages("/v1/schedules", ScheduleShown, {"queue": queue, "limit": 500}):
            yield found

    async def stats(self, queue: str | None = None) -> AsyncIterator[QueueStats]:
        """What went through the queues, or one of them: what ended lately, percentiles of wait and run time."""
        async for found in self._pages("/v1/stats", QueueStats, {"queue": queue, "limit": 100}):
            yield found

    async def workers(self) -> AsyncIterator[WorkerShown]:
        """Who works, by name, and on what."""
        async for found in self._pages("/v1/workers", WorkerShown, {"limit": 500}):
            yield found

    async def _pages(self, path: str, kind: type[T], query: Mapping[str, Any]) -> AsyncIterator[T]:
        async for found in pages(self.transport, path, kind, query):
            yield found

    # -- operations -----------------------------------------------------------------------------------------------

    async def operate(
        self,
        act: Literal["cancel", "purge", "run", "replay"],
        queue: str,
        filter: Mapping[str, Any] | None = None,
        **options: Unpack[OperationOptions],
    ) -> OperationShown:
        """Begins an act over all jobs of a queue that match; it runs on the server. See `operation`.

        Options: ids, limit, dry_run, and of a replay rate, payload_patch, stop_after_failures, into.
        """
        body = {"act": act, "queue": queue, **as_sent(options)}
        if filter:
            body["filter"] = as_sent(filter)
        return (await self.transport.call("POST", "/v1/operations", body, safe=False)).read(OperationShown)

    async def operation(self, id: str) -> OperationShown:
        """How far an operation is. Raises NotFound."""
        return (await self.transport.call("GET", f"/v1/operations/{part(id)}", safe=True)).read(
            OperationShown
        )

    async def operations(self, queue: str | None = None) -> AsyncIterator[OperationShown]:
        """Operations, the newest first."""
        async for found in self._pages("/v1/operations", OperationShown, {"queue": queue, "limit": 100}):
            yield found

    async def stop_operation(self, id: str) -> OperationShown:
        """Stops an operation between two pages."""
        path = f"/v1/operations/{part(id)}/cancel"
        return (await self.transport.call("POST", path, safe=True)).read(OperationShown)

    # -- working --------------------------------------------------------------------------------------------------

    async def lease(
        self,
        queue: str,
        *,
        worker: str,
        max: int = 1,
        wait: float = 0,
        lease: Duration | None = None,
        request_id: str | None = None,
        types: Iterable[str] | None = None,
    ) -> list[Leased]:
        """Claims up to `max` jobs, waiting up to `wait` seconds for the first. Repeated, it gives the same jobs again.

        `types`: only jobs of these.
        """
        request_id = request_id or new_key()
        return await HttpLink(self.transport).claim(
            queue, worker=worker, count=max, wait=wait, lease=lease, request_id=request_id, types=types
        )

    async def settle(
        self,
        queue: str,
        *,
        worker: str,
        ack: Sequence[Mapping[str, Any]] = (),
        nack: Sequence[Mapping[str, Any]] = (),
        release: Sequence[Mapping[str, Any]] = (),
        extend: Sequence[Mapping[str, Any]] = (),
    ) -> list[SettledItem]:
        """Tells what became of leased jobs, in items as the API has them; each is answered for itself, in this order."""
        items = {"ack": list(ack), "nack": list(nack), "release": list(release), "extend": list(extend)}
        found = await HttpLink(self.transport).tell(queue, worker=worker, items=items)
        return read(msgspec.json.encode(found), list[SettledItem])

    async def work(
        self,
        app: Works,
        *,
        queues: Sequence[str] | Mapping[str, int] = (),
        concurrency: int | None = 10,
    ) -> None:
        """Works: runs the handlers of an app for jobs that are leased here, until it is cancelled or SIGTERM comes.

        `queues`: names, or names with weights; none: those that its handlers name. Lease, grace and limits are the app's
        settings. It stops as every worker does: handlers have the grace to finish, what is left is given back.
        """
        await app.work_through(HttpLink(self.transport), queues=queues, concurrency=concurrency)


class Handle:
    """A job: where it is, and what came of it. Awaited, it is the job as it is now."""

    def __init__(
        self, transport: Transport, job_id: str, *, duplicate: bool = False, warnings: Iterable[str] = ()
    ) -> None:
        self._transport = transport
        self.id = job_id
        self.duplicate = duplicate
        """The job stood before: the same request had been enqueued, or another one of its unique key."""
        self.warnings = tuple(warnings)
        """Why no worker would take it, and which queue or type may be meant. They are logged too."""
        say(self.warnings)

    def __repr__(self) -> str:
        return f"<job {self.id}>"

    def __await__(self) -> Generator[Any, None, Job]:
        return self.refresh().__await__()

    async def refresh(self) -> Job:
        """The job as it is now. Raises NotFound once its retention is over."""
        return await self._call("GET", "", safe=True)

    async def cancel(self) -> Job:
        """Cancels it, or asks it to stop when it runs. Raises WrongState when it has succeeded or died."""
        return await self._call("POST", "/cancel", safe=True)

    async def result(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - the word of the standard library
        """What the handler returned. Raises JobDead, JobCancelled, or TimeoutError after so many seconds."""
        job = await self.ended(timeout)
        if job.state is State.DEAD:
            raise JobDead(job)
        if job.state is State.CANCELLED:
            raise JobCancelled(job)
        if not job.state.ended:
            raise TimeoutError(f"job {self.id} is {job.state} after {timeout} s")
        if job.state is not State.SUCCEEDED:
            raise SchedulerError(f"job {self.id} is {job.state}: what that means a newer release knows")
        return msgspec.json.decode(job.result) if job.result else None

    async def ended(self, timeout: float | None = None) -> Job:  # noqa: ASYNC109 - as in result
        """The job once it has ended, or as it is after so many seconds."""
        loop = asyncio.get_running_loop()
        until = None if timeout is None else loop.time() + timeout
        while True:
            left = LONGEST_WAIT if until is None else until - loop.time()
            wait = min(max(left, 0.0), LONGEST_WAIT)
            patience = None if until is None else min(self._transport.patience, max(left, 0.0) + 1)
            began = loop.time()
            job = await self._call(
                "GET", "", query={"wait": f"{wait:.3f}"}, wait=wait, patience=patience, safe=True,
                timeout=None if until is None else SOON,
            )  # fmt: skip
            now = loop.time()
            if job.state.ended or (until is not None and now >= until):
                return job
            if now - began < wait / 2:
                # It stops, or something before it does not let us wait.
                await asyncio.sleep(min(wait, LOOK_EVERY * random.uniform(0.5, 1.0)))

    async def run(self) -> Job:
        """Makes it ready now. Raises WrongState when it is not scheduled or retrying."""
        return await self._call("POST", "/run", safe=False)

    async def open(self) -> Job:
        """Lets a held job go: it runs when all have ended that it waits for. Raises WrongState when it was not held."""
        return await self._call("POST", "/open", safe=True)

    async def replay(self, **edits: Unpack[Edits]) -> Job:
        """Runs it again when it is dead; `payload=` gives it another one. Raises WrongState when it is not."""
        return await self._call("POST", "/replay", edits, safe=False)

    async def update(self, **changes: Unpack[Changes]) -> Job:
        """Changes `payload`, `priority`, `run_at` or `tags` while it waits. Raises WrongState when it does not."""
        return await self._call("PATCH", "", as_sent(changes), safe=True)

    async def copy(self, **changes: Unpack[CopyOptions]) -> Handle:
        """A new job like this one, with these fields in place of its own; None lifts what it has of its own.

        It runs at once, without a deadline, and is not unique, unless that is said of it. Raises what `Client.enqueue`
        raises, NotFound, and WrongState when the payload is gone and none is given.
        """
        job_id = changes.get("id") or new_key()
        path = f"/v1/jobs/{part(self.id)}/copy"
        body = {**as_sent(changes), "id": job_id}
        answer = await self._transport.call("POST", path, body, headers={CALL_ID: new_key()}, safe=True)
        found = answer.read(JobDocument)
        its_own = answer.unsure and not changes.get("id") and _key_of(found.id) == _key_of(job_id)
        duplicate = found.duplicate and not its_own
        return Handle(self._transport, found.id, duplicate=duplicate, warnings=found.warnings)

    async def delete(self) -> None:
        """Deletes it. Raises WrongState while it runs."""
        await self._transport.call("DELETE", f"/v1/jobs/{part(self.id)}", safe=False)

    async def explain(self) -> ExplainShown:
        """Why it does not run now, or what became of it. Raises NotFound."""
        path = f"/v1/jobs/{part(self.id)}/explain"
        return (await self._transport.call("GET", path, safe=True)).read(ExplainShown)

    async def log(self) -> AsyncIterator[LineShown]:
        """What its handler logged, the oldest line first."""
        path = f"/v1/jobs/{part(self.id)}/log"
        async for line in pages(self._transport, path, LineShown, {"limit": 1000}):
            yield line

    async def _call(self, method: str, path: str, body: Any = None, *, safe: bool, **how: Any) -> Job:
        answer = await self._transport.call(method, f"/v1/jobs/{part(self.id)}{path}", body, safe=safe, **how)
        return answer.read(JobDocument).job()


def _key_of(job_id: str) -> str:
    return job_id.rpartition(":")[2]


class Flow:
    """A flow: how far it is, and its jobs by name. Awaited, it is the flow as it is now."""

    def __init__(
        self,
        transport: Transport,
        flow_id: str,
        *,
        jobs: Mapping[str, str] | None = None,
        duplicate: bool = False,
    ) -> None:
        self._transport = transport
        self.id = flow_id
        self.jobs = {name: Handle(transport, its_id) for name, its_id in (jobs or {}).items()}
        """Handles of its jobs, by their names."""
        self.duplicate = duplicate
        """It stood before: the same request had put it in."""

    def __repr__(self) -> str:
        return f"<flow {self.id}>"

    def __await__(self) -> Generator[Any, None, FlowShown]:
        return self.refresh().__await__()

    async def refresh(self) -> FlowShown:
        """The flow with its jobs, as it is now. Raises NotFound a day after its end."""
        return await HttpLink(self._transport).flow(self.id)

    async def cancel(self) -> FlowShown:
        """Cancels all of it that has not ended, or asks it to stop. Raises WrongState when it has ended otherwise."""
        return await HttpLink(self._transport).act_on_flow(self.id, "cancel")

    async def replay(self) -> FlowShown:
        """Runs what is dead in it again, and what was cancelled for that. Raises WrongState when nothing is."""
        return await HttpLink(self._transport).act_on_flow(self.id, "replay")

    async def wait(self, timeout: float | None = None) -> FlowShown:  # noqa: ASYNC109 - as in Handle.result
        """The flow once it has ended, whatever came of it. Raises TimeoutError after so many seconds."""
        loop = asyncio.get_running_loop()
        until = None if timeout is None else loop.time() + timeout
        while True:
            left = LONGEST_WAIT if until is None else max(0.0, until - loop.time())
            wait, began = min(left, LONGEST_WAIT), loop.time()
            patience = None if until is None else min(self._transport.patience, left + 1)
            how = {"patience": patience, "timeout": None if until is None else SOON}
            flow = await HttpLink(self._transport).flow(self.id, wait, **how)
            if flow.state != "running":
                return flow
            if until is not None and loop.time() >= until:
                raise TimeoutError(f"flow {self.id} is {flow.state} after {timeout} s")
            if loop.time() - began < wait / 2:
                # It stops, or something before it does not let us wait.
                await asyncio.sleep(min(wait, LOOK_EVERY * random.uniform(0.5, 1.0)))


class Queue:
    """A queue: its counts and configuration, its types, its dead letters."""

    def __init__(self, transport: Transport, name: str) -> None:
        self._transport = transport
        self.name = name
        self._path = f"/v1/queues/{part(name)}"

    def __repr__(self) -> str:
        return f"<queue {self.name}>"

    async def show(self) -> QueueShown:
        """Its counts and its configuration. Raises NotFound."""
        return (await self._transport.call("GET", self._path, safe=True)).read(QueueShown)

    async def demand(self) -> DemandShown:
        """How much there is to do for its workers. Raises NotFound."""
        return (await self._transport.call("GET", f"{self._path}/demand", safe=True)).read(DemandShown)

    async def pause(self) -> QueueShown:
        """Nothing more is claimed from it; what runs goes on."""
        return (await self._transport.call("POST", f"{self._path}/pause", safe=True)).read(QueueShown)

    async def resume(self) -> QueueShown:
        """It is claimed from again, and accepts jobs again when it was draining."""
        return (await self._transport.call("POST", f"{self._path}/resume", safe=True)).read(QueueShown)

    async def drain(self) -> QueueShown:
        """It accepts no new job until `resume`; the jobs that stand there are run."""
        return (await self._transport.call("POST", f"{self._path}/drain", safe=True)).read(QueueShown)

    async def configure(self, **changes: Unpack[QueueOptions]) -> QueueShown:
        """Changes its configuration: what is left out stays, None lifts. Raises NotFound."""
        return (await self._transport.call("PATCH", self._path, changes, safe=True)).read(QueueShown)

    async def create(self, **fields: Unpack[QueueOptions]) -> QueueShown:
        """Makes it, or replaces its configuration: what is left out is as by default."""
        return (await self._transport.call("PUT", self._path, fields, safe=True)).read(QueueShown)

    async def types(self) -> AsyncIterator[TypeShown]:
        """The types that somebody said something about, by name."""
        async for found in pages(self._transport, f"{self._path}/types", TypeShown, {"limit": 500}):
            yield found

    async def pause_type(self, type: str) -> TypeShown:
        """No more jobs of a type are claimed; what runs goes on."""
        path = f"{self._path}/types/{part(type)}/pause"
        return (await self._transport.call("POST", path, safe=True)).read(TypeShown)

    async def resume_type(self, type: str) -> TypeShown:
        """Jobs of a type are claimed again."""
        path = f"{self._path}/types/{part(type)}/resume"
        return (await self._transport.call("POST", path, safe=True)).read(TypeShown)

    async def reset_breaker(self, type: str) -> TypeShown:
        """Closes a type's breaker, and forgets what it counted."""
        path = f"{self._path}/types/{part(type)}/breaker/reset"
        return (await self._transport.call("POST", path, safe=True)).read(TypeShown)

    async def set_type(self, type: str, **policy: Unpack[TypeOptions]) -> TypeShown:
        """Sets `retry timeout schema rate concurrency paused breaker` of a type, in place of what was set before."""
        answer = await self._transport.call(
            "PUT", f"{self._path}/types/{part(type)}", as_sent(policy), safe=True
        )
        return answer.read(TypeShown)

    async def set_group(self, group: str, **policy: Unpack[GroupOptions]) -> GroupPolicyShown:
        """Changes `weight`, `rate`, `concurrency` and `paused` of a group: what is left out stays, None lifts."""
        path = f"{self._path}/groups/{part(group)}"
        return (await self._transport.call("PATCH", path, policy, safe=True)).read(GroupPolicyShown)

    async def group(self, group: str) -> GroupPolicyShown:
        """The policy of a group, also of one that was given none."""
        path = f"{self._path}/groups/{part(group)}"
        return (await self._transport.call("GET", path, safe=True)).read(GroupPolicyShown)

    async def groups(self) -> AsyncIterator[GroupPolicyShown]:
        """The groups that have a policy of their own, by name."""
        async for found in pages(self._transport, f"{self._path}/groups", GroupPolicyShown, {"limit": 500}):
            yield found

    async def dead(
        self,
        *,
        type: str | None = None,
        kind: str | None = None,
        fingerprint: str | None = None,
        before: datetime | None = None,
        include: str | None = None,
        page: int = 500,
    ) -> AsyncIterator[Listed]:
        """Its dead letters, the newest first, for which this holds."""
        query = {
            "type": type, "kind": kind, "fingerprint": fingerprint,
            "before": None if before is None else before.isoformat(), "include": include, "limit": page,
        }  # fmt: skip
        async for found in pages(self._transport, f"{self._path}/dlq", JobDocument, query):
            yield found.listed()

    async def dead_groups(self) -> AsyncIterator[GroupShown]:
        """Its dead letters in groups of those that died alike."""
        query = {"by": "fingerprint", "limit": 500}
        async for found in pages(self._transport, f"{self._path}/dlq", GroupShown, query):
            yield found

    async def replay_dead(self, **which: Unpack[ReplayDeadOptions]) -> OperationShown:
        """Runs dead jobs again: `ids`, or all for which `type kind fingerprint before limit` hold.

        Further: `dry_run rate payload_patch stop_after_failures queue`.
        """
        return await self._operate("/dlq/replay", which)

    async def purge_dead(self, **which: Unpack[PurgeDeadOptions]) -> OperationShown:
        """Deletes dead jobs: `ids`, or all for which `type kind fingerprint before limit` hold; `dry_run`."""
        return await self._operate("/dlq/purge", which)

    async def purge(self, state: State | str, **which: Unpack[PurgeOptions]) -> OperationShown:
        """Deletes its jobs of one state (not running) for which `type older_than limit` hold; `dry_run`."""
        return await self._operate("/purge", {"state": str(state), **which})

    async def obliterate(self, *, force: bool = False) -> None:
        """Deletes it with all that is in it. Raises WrongState while a job runs, unless it is forced."""
        query = {"confirm": self.name, "force": "true" if force else None}
        await self._transport.call("DELETE", self._path, query=query, safe=False)

    async def _operate(self, path: str, which: Mapping[str, Any]) -> OperationShown:
        answer = await self._transport.call("POST", f"{self._path}{path}", as_sent(which), safe=False)
        return answer.read(OperationShown)


class Sending:
    """Many jobs on their way: `async for` what became of each, or `await` the handles of all."""

    def __init__(
        self, transport: Transport, jobs: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]]
    ) -> None:
        self._transport, self._jobs = transport, jobs

    async def __aiter__(self) -> AsyncIterator[Outcome]:
        numbers = itertools.count()
        link = HttpLink(self._transport)
        async for some in windows(self._jobs, lambda asked: line_of(next(numbers), asked)):
            for outcome in await link.send(some):
                yield outcome

    def __await__(self) -> Generator[Any, None, list[Handle]]:
        return self.handles().__await__()

    async def handles(self) -> list[Handle]:
        """The handles of all, in order. The first one that was refused is raised once all others are in.

        When the service stays away that is raised at once: with ids of your own the same call again is safe.
        """
        gathered = Gathered(self._transport)
        async for outcome in self:
            gathered.add(outcome)
        return gathered.handles()


class Gathered:
    """The handles of many jobs, gathered from their outcomes."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._found: list[Handle] = []
        self._refused: SchedulerError | None = None

    def add(self, outcome: Outcome) -> None:
        """Takes the next outcome. Raises StoreUnavailable where the service stayed away."""
        if isinstance(outcome.error, StoreUnavailable):
            raise outcome.error
        self._refused = self._refused or outcome.error
        self._found.append(Handle(self._transport, outcome.id, duplicate=outcome.duplicate))

    def handles(self) -> list[Handle]:
        """All of them. Raises what the first one was refused with."""
        if self._refused is not None:
            raise self._refused
        return self._found


def line_of(number: int, asked: Mapping[str, Any]) -> Line:
    """A job as it is sent, or why it cannot be sent, with its number."""
    options = dict(asked)
    try:
        if "type" not in options:
            raise Invalid([Fault("/type", "this field is required")])
        job = new_job(options.pop("type"), options.pop("payload", {}), options)
    except Invalid as error:
        faults = [Fault(f"/{number}{fault.path}", fault.message) for fault in error.faults]
        return Line(number, str(asked.get("id") or ""), error=Invalid(faults))
    except PayloadInvalid as error:
        return Line(number, str(asked.get("id") or ""), error=PayloadInvalid(f"item {number}: {error}"))
    return Line(number, f"{job.queue}:{job.key}", msgspec.json.encode(new_document(job)) + b"\n")


def new_job(type: str, payload: Any, options: Mapping[str, Any]) -> NewJob:
    """The job that these arguments describe, with a key. Raises PayloadInvalid or Invalid; nothing is sent."""
    try:
        encoded = to_json({} if payload is None else payload)
    except NoJson as error:
        raise PayloadInvalid(f"the payload of {type} cannot be sent: {error}") from error
    made = read_options(options)
    if "traceparent" in made:
        raise Invalid([Fault("/traceparent", "there is no such option here")])
    if ":" in made.get("key", ""):
        whole = split_id(made["key"])
        if whole is not None:
            made.setdefault("queue", whole[0])
            if whole[0] != made["queue"]:
                raise Invalid([Fault("/id", f"its queue is {whole[0]}, the job's is {made['queue']}")])
            made["key"] = whole[1]
    job = NewJob(type=type, payload=encoded, **{"key": new_key()} | made)
    check(job, max_payload=ANY_SIZE)
    return job


async def pages(transport: Transport, path: str, kind: type[T], query: Mapping[str, Any]) -> AsyncIterator[T]:
    """The items of all pages of a list. A page may be short or empty: only the last one has no cursor."""
    cursor: str | None = None
    while True:
        answer = await transport.call("GET", path, query={**query, "cursor": cursor}, safe=True)
        page = answer.read(Paged[kind])  # type: ignore[valid-type]
        for item in page.items:
            yield item
        cursor = page.next_cursor
        if cursor is None:
            return

"""The application object: handlers by decorator, jobs by call."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import datetime
from types import ModuleType, SimpleNamespace, TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, Unpack, cast

from msgspec.structs import replace

from .declared import make_schedule
from .documents import NoJson, TracedOptions, read_options, to_json
from .errors import Duplicate, Fault, Invalid, PayloadInvalid, SchedulerError
from .events import Follower
from .flow import Node, Plan, plan_flow
from .flows import Flows
from .graph import Piece, chain, chord, flow_of, parallel
from .handlers import Handler, Handlers, Middleware, RunMiddleware, check_hook, make_handler
from .handles import Connection, FlowHandle, Handle, SyncFlowHandle, SyncHandle, handle_parts
from .job import Job, NewJob, State, check, new_key
from .listing import Filters
from .listing import page as page_of_jobs
from .loop_thread import LoopThread
from .remote import Link, RemoteFollower, RemoteStore, RemoteWorker, work
from .retry import Retry
from .settings import Settings, load
from .store import Store
from .testing import AppTest, tested

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M")
F = TypeVar("F", bound=Callable[..., Any])
L = TypeVar("L", bound=Callable[..., AsyncIterator[None] | AbstractAsyncContextManager[Any]])
D = TypeVar("D", bound=Callable[[Job], Any])


class JobFunction(Generic[P, R]):
    """A handler: still the function it was, and `enqueue` for a job of its type."""

    def __init__(self, app: Scheduler, handler: Handler, function: Callable[P, R]) -> None:
        functools.update_wrapper(self, function)
        self._app = app
        self.handler = handler
        self._function = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._function(*args, **kwargs)

    async def enqueue(self, **payload: Any) -> Handle:
        """A job with these arguments; names that end in _ are options, such as `queue_`, `delay_` and `unique_`.

        Raises PayloadInvalid when the arguments do not fit the handler, and what `Scheduler.enqueue` raises.
        """
        options = _taken_out(payload)
        return await self._app.enqueue(self.handler.type, payload, **options)

    def job(self, **payload: Any) -> NewJob:
        """A job with these arguments, as `enqueue` takes them, that is not sent: for `ctx.add`, and for flows.

        Raises PayloadInvalid and Invalid.
        """
        options = _taken_out(payload)
        # What it does when another fails can be said before anybody knows whom it waits for.
        on_failure = options.pop("on_failure", None)
        job = self._app.new_job(self.handler.type, payload, options)
        return replace(job, key=job.key if options.get("id") else "", on_failure=on_failure or "")

    async def enqueue_many(
        self, payloads: Iterable[Mapping[str, Any]], **options_for_all: Any
    ) -> list[Handle]:
        """Many jobs of this type, each with its arguments and options as `enqueue` takes them; handles, in order.

        Options beside them, such as `delay_=60`, are for all jobs that do not say so themselves. Raises TypeError for a
        name without a `_` at its end, and what `Scheduler.enqueue_many` raises.
        """
        for_all = _taken_out(options_for_all)
        if options_for_all:
            raise TypeError(f"an option for all jobs ends in _: {', '.join(options_for_all)}")
        asked = []
        for payload in payloads:
            arguments = dict(payload)
            options = _taken_out(arguments)
            asked.append({**options, "type": self.handler.type, "payload": arguments})
        return await self._app.enqueue_many(asked, **for_all)

    def enqueue_sync(self, **payload: Any) -> SyncHandle:
        """`enqueue` for code without an event loop."""
        return self._app.sync(self.enqueue(**payload))


class Scheduler:
    """An application: its handlers, and the way to the queues. Settings come from the environment and scheduler.toml."""

    def __init__(self, settings: Settings | None = None, *, name: str | None = None) -> None:
        """`name`: as whose the app's schedules are known, without one that of the module in which it is made."""
        self._settings = settings
        self.handlers = Handlers()
        self.handlers.app = name or str(sys._getframe(1).f_globals.get("__name__", "app"))  # noqa: SLF001
        self._waiting: dict[Any, list[dict[str, Any]]] = {}
        """Schedules of functions that are no handlers yet."""
        self.state = SimpleNamespace()
        """What `lifespan` opens for handlers: a database pool, an HTTP session."""
        self._lifespans: list[Callable[[Scheduler], AbstractAsyncContextManager[None]]] = []
        self._connections: dict[asyncio.AbstractEventLoop, Connection] = {}
        self._thread: LoopThread | None = None

    @property
    def settings(self) -> Settings:
        """Read once, at the first use."""
        if self._settings is None:
            self._settings = load()
        return self._settings

    def configure(self, settings: Settings) -> None:
        """Uses these settings instead of reading them: a command's options win over what a module would have read."""
        self._settings = settings

    chain, parallel, chord = staticmethod(chain), staticmethod(parallel), staticmethod(chord)

    # -- declaring ------------------------------------------------------------------------------------------------

    def job(
        self,
        type: str,
        *,
        queue: str = "default",
        retry: Retry | None = None,
        timeout: float | str | None = None,
        rate: str | Mapping[str, Any] | None = None,
        concurrency: int | None = None,
        breaker: bool | Mapping[str, Any] | None = None,
        process: bool = False,
        on_dead: Callable[[Job], Any] | None = None,
    ) -> Callable[[Callable[P, R]], JobFunction[P, R]]:
        """Makes a function the handler of a type. It may be `async def`, or `def`, which runs in a thread.

        `rate` ("100/m", or {"limit": 100, "per": "1m", "burst": 10}) and `concurrency` say how many jobs of it start in how
        long, and run at once, over all workers of a queue. `breaker` (True, or {"failure_rate": 0.5, "window": "1m",
        "minimum": 10, "open_for": "30s", "probes": 1}, which are the defaults) keeps it from running for a while when so
        much of it fails. A worker declares these, `retry` and `timeout` to its queues when it starts; what was set by PUT
        or PATCH of the type wins. Raises ValueError for what cannot be.

        With `process` it runs in a process of its own, which is killed at the timeout; its module is imported there.
        """

        def declare(function: Callable[P, R]) -> JobFunction[P, R]:
            handler = make_handler(
                type, function, queue=queue, retry=retry, timeout=timeout, rate=rate, concurrency=concurrency,
                breaker=breaker, process=process, on_dead=on_dead,
            )  # fmt: skip
            self.handlers.add(handler)
            for asked in reversed(self._waiting.pop(function, [])):
                self._schedule(handler, asked)
            return JobFunction(self, handler, function)

        return declare

    def schedule(
        self,
        cron: str | None = None,
        *,
        every: float | str | None = None,
        timezone: str = "UTC",
        name: str | None = None,
        queue: str | None = None,
        payload: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Callable[[F], F]:
        """Makes jobs of a handler again and again: `@app.schedule("0 9 * * mon-fri", timezone="Europe/Paris")`, above or below its `@app.job`.

        `cron` has five fields, or six with the second first, or is @daily and the like; `every` ("90s") is a period instead. The
        schedule's name is the type unless it is given one. Options: jitter overlap catch_up catch_up_window starts_at ends_at
        max_runs, and of its jobs priority group tags timeout retry retention cost expires_in.

        A worker puts it when it starts, changes it when the code has changed, and deletes it when it is gone from the code. One
        of this name that was made by hand is left alone. Raises Invalid here and now for what cannot be.
        """

        def declare(function: F) -> F:
            asked = {
                "cron": cron, "every": every, "timezone": timezone, "name": name, "queue": queue, "payload": payload, **options,
            }  # fmt: skip
            if isinstance(function, JobFunction):
                self._schedule(function.handler, asked)
            else:
                self._waiting.setdefault(function, []).append(asked)
            return function

        return declare

    def _schedule(self, handler: Handler, asked: Mapping[str, Any]) -> None:
        self.handlers.add_schedule(make_schedule(handler, self.handlers.app, **asked))

    def include(self, module: ModuleType) -> None:
        """Adds the handlers of a module that lists them as HANDLERS, such as `scheduler.shipped`."""
        for handler in module.HANDLERS:
            self.handlers.add(handler)

    def middleware(self, added: M) -> M:
        """Puts something around each attempt and each enqueueing; what was added first is outermost.

        Takes a Middleware, a class of one, or `async def around(ctx, call_next)`, which goes around attempts.
        """
        made: Middleware
        if isinstance(added, Middleware):
            made = added
        elif isinstance(added, type) and issubclass(added, Middleware):
            made = added()
        elif inspect.iscoroutinefunction(added):
            made = RunMiddleware(added)
        else:
            raise TypeError(
                f"middleware is a Middleware, a class of one, or an async function, not {added!r}"
            )
        self.handlers.middleware.append(made)
        return added

    def on_dead(self, function: D) -> D:
        """A function (`def` or `async def`) that is called with each job that dies: `hook(job)`, with `id type reason errors payload`.

        It runs in the worker process whose attempt or upkeep ended the job, at most once a death; not for deaths that a process without
        the hook decides (the API sweeps where no worker does), nor for those that a claim itself meets.
        What it raises is logged, and changes nothing.
        """
        self.handlers.on_dead.append(check_hook(function))
        return function

    def lifespan(self, function: L) -> L:
        """What a worker needs as long as it works: `async def resources(app)` with one `yield`.

        A function that `contextlib.asynccontextmanager` decorates is accepted too.

        It is opened before the first claim and closed after the last job is told or given back; several nest in the
        order of their declaration. What it puts into `app.state` is there for handlers.
        """
        checked: Any = function
        if not inspect.isasyncgenfunction(inspect.unwrap(checked)):
            raise TypeError("a lifespan is `async def …(app)` with one `yield` in it")
        self._lifespans.append(
            asynccontextmanager(checked) if inspect.isasyncgenfunction(checked) else checked
        )
        return function

    @asynccontextmanager
    async def at_work(self, store: Store, follower: Follower) -> AsyncIterator[None]:
        """What a worker runs in: all lifespans, entered. What the app enqueues meanwhile goes by this store.

        Closing the two is left to who made them.
        """
        loop = asyncio.get_running_loop()
        before, thread = self._connections.get(loop), self._thread
        self._connections[loop] = Connection((store, follower))
        # Handlers in threads enqueue by this store too.
        self._thread = LoopThread(loop)
        try:
            async with AsyncExitStack() as stack:
                for lifespan in self._lifespans:
                    try:
                        await stack.enter_async_context(lifespan(self))
                    except Exception as error:
                        # One without a yield fails in no line of its own.
                        error.add_note(f"in the lifespan {getattr(lifespan, '__qualname__', lifespan)}")
                        raise
                yield
        finally:
            del self._connections[loop]
            self._thread = thread
            if before is not None:
                self._connections[loop] = before

    async def work_through(
        self,
        link: Link,
        *,
        queues: Sequence[str] | Mapping[str, int] = (),
        concurrency: int | None = None,
    ) -> None:
        """Works as a worker over somebody who claims and settles for it, until it is cancelled or SIGTERM comes.

        `scheduler.client.Client.work` calls it. What the app enqueues meanwhile goes the same way.
        """
        worker = RemoteWorker(link, self.handlers, self.settings, queues=queues, concurrency=concurrency)
        store, follower = cast("Store", RemoteStore(link)), cast("Follower", RemoteFollower(link))
        async with self.at_work(store, follower):
            cancelled = await work(worker)
        if cancelled:
            raise asyncio.CancelledError

    # -- enqueueing -----------------------------------------------------------------------------------------------

    async def enqueue(self, type: str, payload: Any = None, **options: Unpack[TracedOptions]) -> Handle:
        """A job of any type, by name.

        Options: queue id priority delay run_at group tags timeout retry retention cost unique deadline expires_in,
        after (ids or handles of jobs whose end it waits for), on_failure (cancel, continue, wait or failure).
        Raises PayloadInvalid or Invalid before anything is sent, Duplicate when `id` belongs to another request, or the
        unique key to another job and `on_conflict` is "reject"; QueueFull, StoreUnavailable (the same `id` again is safe)
        and StoreFull.
        """
        return await self._send(self.new_job(type, {} if payload is None else payload, options))

    async def enqueue_many(
        self, jobs: Iterable[Mapping[str, Any]], **options_for_all: Unpack[TracedOptions]
    ) -> list[Handle]:
        """Many jobs, each as `{"type": …, "payload": …}` with options beside them; their handles, in order.

        `options_for_all`: options of all jobs that do not have them themselves; not `id`.
        Raises Invalid with the number of the item before anything is sent. Sent in calls of 500 jobs; those that are
        refused for another that stands raise Duplicate when all the others are in. QueueFull, StoreUnavailable and
        StoreFull may leave some of them in: with ids of your own the same call again is safe.
        """
        if "id" in options_for_all:
            raise Invalid([Fault("/id", "an id belongs to one job: give each item its own")])
        made: list[NewJob] = []
        for number, asked in enumerate(jobs):
            options: dict[str, Any] = {**options_for_all, **asked}
            try:
                if "type" not in options:
                    raise Invalid([Fault("/type", "this field is required")])
                made.append(self.new_job(options.pop("type"), options.pop("payload", {}), options))
            except Invalid as error:
                raise Invalid([Fault(f"/{number}{f.path}", f.message) for f in error.faults]) from None
            except PayloadInvalid as error:
                raise PayloadInvalid(f"item {number}: {error}") from None
        return await self.send_many(made)

    async def send_many(self, jobs: Sequence[NewJob]) -> list[Handle]:
        """Jobs that were made by `new_job`, in calls of 500. An id of another request raises when all others are in."""
        if self.handlers.middleware:
            sent = await asyncio.gather(*(self._send(job) for job in jobs), return_exceptions=True)
            for error in sent:
                if isinstance(error, BaseException):
                    raise error
            return [handle for handle in sent if not isinstance(handle, BaseException)]
        handles: list[Handle] = []
        refused: list[Duplicate] = []
        for outcome in await (await self.store()).enqueue_each(jobs):
            if isinstance(outcome, SchedulerError):
                raise outcome
            if refusal := outcome.refusal:
                refused.append(refusal)
            handles.append(Handle(self.connection, outcome.id, duplicate=not outcome.created))
        if refused:
            raise _first_of(refused)
        return handles

    async def _send(self, job: NewJob, past: int = 0) -> Handle:
        if past < len(self.handlers.middleware):
            around = self.handlers.middleware[past]
            handle: Handle = await around.enqueue(job, functools.partial(self._send, past=past + 1))
            return handle
        outcome = await (await self.store()).enqueue_one(job)
        return Handle(self.connection, outcome.id, duplicate=not outcome.created)

    def handle(self, id: str) -> Handle:
        """The handle of any job by its id, `<queue>:<key>`. Nothing is asked of the server. Raises Invalid for no job id."""
        handle_parts(id)
        return Handle(self.connection, id)

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
        """All jobs that match, as `scheduler.client.Client.jobs` lists them: queue by queue, read page by page.

        `error`: the kind of one of its errors. `include`: "payload,result", which a list leaves out. `page`: jobs of one
        read, 1 to 1,000. Raises Invalid for an unknown state or `include`, and for another `page`. In a worker over HTTP:
        SchedulerError.
        """
        asked = frozenset(include.split(",")) if include else frozenset[str]()
        faults: list[Fault] = []
        if state is not None and state not in set(State):
            faults.append(Fault("/state", f"expected one of {', '.join(State)}, not {state!r}"))
        if not asked <= {"payload", "result"}:
            faults.append(Fault("/include", "expected payload, result, or both with a comma between"))
        if not 1 <= page <= 1_000:
            faults.append(Fault("/page", "expected 1 to 1000"))
        if faults:
            raise Invalid(faults)
        filters = Filters(
            queue=queue or "",
            state=state or "",
            type=type or "",
            group=group or "",
            tag=tag or "",
            error=error or "",
        )
        store, at = await self.store(), None
        if isinstance(store, RemoteStore):
            raise SchedulerError(
                "a worker over HTTP has no access to Redis: list jobs with scheduler.client.Client"
            )
        while True:
            found = await page_of_jobs(store, filters, at=at, limit=page, include=asked)
            for job in found.jobs:
                yield job
            at = found.rest
            if at is None:
                return

    def handle_sync(self, id: str) -> SyncHandle:
        """`handle` for code without an event loop."""
        return SyncHandle(self.handle(id), self._run)

    async def flow(
        self,
        graph: Piece | Iterable[Mapping[str, Any]],
        *,
        id: str | None = None,
        queue: str | None = None,
        on_failure: str | None = None,
    ) -> FlowHandle:
        """A graph of jobs that wait for each other, all of it or nothing: its handle, with those of its jobs by name.

        `await app.flow(chain(load.job(day=1), parallel(bill.job(), ship.job()), report.job()))`: a job is named after its type,
        with a number from the second of it on, or by a keyword (`chain(load=load.job(day=1), …)`); a handler finds the results of
        those it waited for as `ctx.parents`. Or a list of jobs as `enqueue_many` takes them, each with a `name` and the names
        it waits for, `after`.

        `id`: the same flow asked for again is found again. `queue`: where the flow is kept (that of its first job), and of
        jobs of a list that name none and have no handler. `on_failure`: what happens to a job when one that it waits for does
        not succeed, unless it says so itself: cancel (the default), continue, wait or failure.

        Raises Invalid and PayloadInvalid before anything is sent, Duplicate when `id`, or that of a job, belongs to another
        request; QueueFull, StoreUnavailable (the same `id` again is safe) and StoreFull.
        """

        def make(type: str, payload: Any, options: Mapping[str, Any]) -> NewJob:
            # A handler's own queue is nearer than that of the flow.
            if queue is not None and options.get("queue") is None and self.handlers.get(type) is None:
                options = {**options, "queue": queue}
            return self.new_job(type, {} if payload is None else payload, options)

        plan = flow_of(graph, make, id=id, queue=queue, on_failure=on_failure)
        if self.handlers.middleware:
            plan = await self._around(plan)
        new = await (await self._flows()).put(plan)
        jobs = {node.name: Handle(self.connection, f"{node.job.queue}:{node.job.key}") for node in plan.nodes}
        return FlowHandle(self._flows, plan.id, jobs=jobs, duplicate=not new)

    def flow_sync(
        self,
        graph: Piece | Iterable[Mapping[str, Any]],
        *,
        id: str | None = None,
        queue: str | None = None,
        on_failure: str | None = None,
    ) -> SyncFlowHandle:
        """`flow` for code without an event loop."""
        handle = self._run(self.flow(graph, id=id, queue=queue, on_failure=on_failure))
        return SyncFlowHandle(handle, self._run)

    async def _around(self, plan: Plan) -> Plan:
        """The same flow, whose jobs went through what goes around each enqueueing. Raises Invalid for one that is held back."""
        nodes = []
        for n, node in enumerate(plan.nodes):
            passed: list[NewJob] = []
            await self._pass(node.job, passed)
            if not passed:
                raise Invalid(
                    [Fault(f"/jobs/{n}", "a middleware holds it back, and a flow is put in as a whole")]
                )
            nodes.append(Node(node.name, passed[-1], node.after))
        return plan_flow(plan.home, plan.key, nodes, plan.on_failure)

    async def _pass(self, job: NewJob, passed: list[NewJob], past: int = 0) -> Handle:
        if past < len(self.handlers.middleware):
            around = self.handlers.middleware[past]
            handle: Handle = await around.enqueue(
                job, functools.partial(self._pass, passed=passed, past=past + 1)
            )
            return handle
        passed.append(job)
        return Handle(self.connection, f"{job.queue}:{job.key}")

    async def _flows(self) -> Flows:
        store = await self.store()
        return cast("Flows", store.flows) if isinstance(store, RemoteStore) else Flows(store)

    def enqueue_sync(self, type: str, payload: Any = None, **options: Unpack[TracedOptions]) -> SyncHandle:
        """`enqueue` for code without an event loop. It is carried out by a loop in a thread of its own."""
        return self.sync(self.enqueue(type, payload, **options))

    def sync(self, asked: Coroutine[Any, Any, Handle]) -> SyncHandle:
        """Waits for a handle in a thread that has no event loop, and gives it a face without one."""
        return SyncHandle(self._run(asked), self._run)

    def _run(self, asked: Coroutine[Any, Any, R]) -> R:
        thread = self._thread
        if thread is None or not thread.alive:
            thread = self._thread = LoopThread()
        return thread.run(asked)

    def new_job(self, type: str, payload: Any, options: Mapping[str, Any]) -> NewJob:
        """The job that these arguments describe. Raises PayloadInvalid or Invalid; nothing is sent."""
        try:
            encoded = to_json(payload)
        except NoJson as error:
            raise PayloadInvalid(f"the payload of {type} cannot be sent: {error}") from error
        handler = self.handlers.get(type)
        if handler is not None:
            handler.decode(encoded)
        made = read_options(options)
        made.setdefault("queue", handler.queue if handler is not None else "default")
        if ":" in made.get("key", ""):
            queue, _, made["key"] = made["key"].partition(":")
            if queue != made["queue"]:
                raise Invalid([Fault("/id", f"its queue is {queue}, the job's is {made['queue']}")])
        key = new_key()
        job = NewJob(type=type, payload=encoded, **{"key": key, "own_key": key} | made)
        check(job, max_payload=self.settings.max_payload)
        return job

    # -- testing --------------------------------------------------------------------------------------------------

    def test(self, *, now: datetime | None = None) -> AbstractAsyncContextManager[AppTest]:
        """For tests of handlers: the real scripts in this process, no server, no waiting.

        `async with app.test() as t:` everything that is enqueued runs with `await t.drain()`, and time passes by
        `t.advance(60)`, from `now` on (the present, when it is not given).
        """
        return tested(self, now)

    # -- connecting -----------------------------------------------------------------------------------------------

    async def connection(self) -> tuple[Store, Follower]:
        """The connection of the running loop, opened at the first use."""
        loop = asyncio.get_running_loop()
        connection = self._connections.get(loop)
        if connection is None:
            self._abandon_closed()
            connection = self._connections[loop] = Connection()
        return await connection.opened(self.settings)

    def _abandon_closed(self) -> None:
        # What a loop left open that is gone cannot be closed by its own means any more; its files and its lock can.
        # Threads with loops of their own do this at the same time.
        for loop in [loop for loop in list(self._connections) if loop.is_closed()]:
            connection = self._connections.pop(loop, None)
            if connection is not None:
                connection.abandon()

    async def store(self) -> Store:
        return (await self.connection())[0]

    async def close(self) -> None:
        """Closes what was opened by this loop, and nothing that a worker or a test works with."""
        loop = asyncio.get_running_loop()
        connection = self._connections.get(loop)
        if connection is not None and not connection.given:
            del self._connections[loop]
            await connection.close()

    async def __aenter__(self) -> Self:
        await self.connection()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _first_of(refused: Sequence[Duplicate]) -> Duplicate:
    """The first refusal, with the jobs of all that were refused for the same reason: an id that is taken, or a unique key."""
    kind = type(refused[0])
    alike = [refusal for refusal in refused if type(refusal) is kind]
    return kind(*dict.fromkeys(job_id for refusal in alike for job_id in refusal.job_ids))


def _taken_out(payload: dict[str, Any]) -> dict[str, Any]:
    """Takes the options, whose names end in _, out of arguments."""
    return {name[:-1]: payload.pop(name) for name in list(payload) if name.endswith("_")}

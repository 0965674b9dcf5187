"""The application object: handlers by decorator, jobs by call."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from datetime import datetime
from types import ModuleType, TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar

import msgspec

from . import retry as retry_policy
from .clients import open_clients
from .errors import Fault, Invalid, JobCancelled, JobDead, PayloadInvalid, StoreRefused, WrongState
from .events import Follower, wait_ended
from .execute import no_json_number
from .handlers import Handler, Handlers, make_handler
from .job import Job, NewJob, State, check, new_key, split_id
from .retry import Retry
from .settings import Settings, load
from .store import Store
from .times import duration_ms

P = ParamSpec("P")
R = TypeVar("R")


class Handle:
    """A job that was enqueued: where it is, and what came of it."""

    def __init__(self, app: Scheduler, job_id: str, *, duplicate: bool = False) -> None:
        self._app = app
        self.id = job_id
        self.duplicate = duplicate
        """The same request had been enqueued before."""

    def __repr__(self) -> str:
        return f"<job {self.id}>"

    async def refresh(self) -> Job:
        """The job as it is now. Raises NotFound once its retention is over."""
        queue, key = _parts(self.id)
        return await (await self._app.store()).job(queue, key)

    async def cancel(self) -> Job:
        """Cancels it, or asks it to stop when it runs. Raises WrongState when it has succeeded or died."""
        queue, key = _parts(self.id)
        store = await self._app.store()
        [state] = await store.cancel(queue, [key])
        if state not in {"cancelled", "running"}:
            raise WrongState(f"job {self.id} is {state}: it cannot be cancelled", state)
        return await store.job(queue, key)

    async def result(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - the word of the standard library
        """What the handler returned. Raises JobDead, JobCancelled, or TimeoutError after so many seconds."""
        queue, key = _parts(self.id)
        store, follower = await self._app.connection()
        job = await wait_ended(store, follower, queue, key, 10 * 365 * 86_400 if timeout is None else timeout)
        if job.state is State.DEAD:
            raise JobDead(job)
        if job.state is State.CANCELLED:
            raise JobCancelled(job)
        if job.state is not State.SUCCEEDED:
            raise TimeoutError(f"job {self.id} is {job.state} after {timeout} s")
        return msgspec.json.decode(job.result) if job.result else None


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
        """A job with these arguments; names that end in _ are options, such as `queue_`, `delay_` and `id_`.

        Raises PayloadInvalid when the arguments do not fit the handler, Invalid for a wrong option, Duplicate when
        `id_` belongs to another request, StoreUnavailable and StoreFull.
        """
        options = {name[:-1]: payload.pop(name) for name in list(payload) if name.endswith("_")}
        return await self._app.enqueue(self.handler.type, payload, **options)


class Scheduler:
    """An application: its handlers, and the way to the queues. Settings come from the environment and scheduler.toml."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings
        self.handlers = Handlers()
        self._open: tuple[asyncio.AbstractEventLoop, Store, Follower] | None = None
        self._opening: asyncio.Lock | None = None

    @property
    def settings(self) -> Settings:
        """Read once, at the first use."""
        if self._settings is None:
            self._settings = load()
        return self._settings

    def configure(self, settings: Settings) -> None:
        """Uses these settings instead of reading them: a command's options win over what a module would have read."""
        self._settings = settings

    # -- declaring ------------------------------------------------------------------------------------------------

    def job(
        self,
        type: str,
        *,
        queue: str = "default",
        retry: Retry | None = None,
        timeout: float | str | None = None,
    ) -> Callable[[Callable[P, R]], JobFunction[P, R]]:
        """Makes a function the handler of a type. It may be `async def`, or `def`, which runs in a thread."""

        def declare(function: Callable[P, R]) -> JobFunction[P, R]:
            handler = make_handler(type, function, queue=queue, retry=retry, timeout=timeout)
            self.handlers.add(handler)
            return JobFunction(self, handler, function)

        return declare

    def include(self, module: ModuleType) -> None:
        """Adds the handlers of a module that lists them as HANDLERS, such as `scheduler.shipped`."""
        for handler in module.HANDLERS:
            self.handlers.add(handler)

    # -- enqueueing -----------------------------------------------------------------------------------------------

    async def enqueue(self, type: str, payload: Any = None, **options: Any) -> Handle:
        """A job of any type, by name. Options: queue id priority delay run_at group tags timeout retry retention."""
        job = self.new_job(type, {} if payload is None else payload, options)
        outcome = await (await self.store()).enqueue_one(job)
        return Handle(self, outcome.id, duplicate=not outcome.created)

    def new_job(self, type: str, payload: Any, options: Mapping[str, Any]) -> NewJob:
        """The job that these arguments describe. Raises PayloadInvalid or Invalid; nothing is sent."""
        try:
            encoded = msgspec.json.encode(payload)
        except (TypeError, ValueError, OverflowError) as error:
            raise PayloadInvalid(f"the payload of {type} is no JSON: {error}") from error
        if b"null" in encoded and no_json_number(payload):
            raise PayloadInvalid(f"the payload of {type} is no JSON: it holds NaN or an infinity")
        handler = self.handlers.get(type)
        if handler is not None:
            handler.decode(encoded)
        made = _options(options)
        made.setdefault("queue", handler.queue if handler is not None else "default")
        if ":" in made.get("key", ""):
            queue, _, made["key"] = made["key"].partition(":")
            if queue != made["queue"]:
                raise Invalid([Fault("/id", f"its queue is {queue}, the job's is {made['queue']}")])
        job = NewJob(type=type, payload=encoded, **{"key": new_key()} | made)
        check(job, max_payload=self.settings.max_payload)
        return job

    # -- connecting -----------------------------------------------------------------------------------------------

    async def connection(self) -> tuple[Store, Follower]:
        """The connection of the running loop, opened at the first use."""
        loop = asyncio.get_running_loop()
        if self._open is not None and self._open[0] is loop:
            return self._open[1], self._open[2]
        if self._opening is None or (self._open is not None and self._open[0] is not loop):
            self._opening = asyncio.Lock()
        async with self._opening:
            if self._open is None or self._open[0] is not loop:
                self._abandon()
                settings = self.settings
                if settings.redis_url == "memory://":
                    raise StoreRefused(
                        "memory:// lives inside one process: a job put there by this one would never be seen by a "
                        "worker. `dev` and `api` take it"
                    )
                clients = await open_clients(settings.redis_url, durability=settings.durability)
                store = Store(clients, settings.namespace)
                self._open = (loop, store, Follower(clients, settings.namespace))
            return self._open[1], self._open[2]

    def _abandon(self) -> None:
        # What another loop left open cannot be closed by its own means any more; its files and its lock can.
        if self._open is not None:
            self._open[1].clients.abandon()
            self._open = None

    async def store(self) -> Store:
        return (await self.connection())[0]

    async def close(self) -> None:
        """Closes what was opened by this loop."""
        if self._open is not None and self._open[0] is asyncio.get_running_loop():
            _, store, follower = self._open
            self._open = None
            await follower.close()
            await store.close()

    async def __aenter__(self) -> Self:
        await self.connection()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _parts(job_id: str) -> tuple[str, str]:
    parts = split_id(job_id)
    if parts is None:
        raise Invalid([Fault("/id", f"{job_id!r} is no job id: it is <queue>:<key>")])
    return parts


_OPTIONS = (
    "queue",
    "id",
    "priority",
    "delay",
    "run_at",
    "group",
    "tags",
    "timeout",
    "retry",
    "retention",
    "traceparent",
)


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as fields of NewJob; those that are None are left out."""
    made: dict[str, Any] = {}
    faults: list[Fault] = []
    for name, value in options.items():
        if value is None:
            continue
        try:
            if name not in _OPTIONS:
                raise ValueError(f"there is no such option; options are {', '.join(_OPTIONS)}")
            if name == "id":
                made["key"] = str(value)
            elif name in {"delay", "timeout", "retention"}:
                made[f"{name}_ms"] = duration_ms(value)
            elif name == "run_at":
                made["run_at_ms"] = _moment(value)
            elif name == "retry":
                made["retry"] = retry_policy.stored(
                    value.document() if isinstance(value, Retry) else Retry(**value).document()
                )
            elif name == "tags":
                if isinstance(value, str) or not all(isinstance(tag, str) for tag in value):
                    raise ValueError("a list of texts")
                made["tags"] = tuple(value)
            elif name == "priority":
                if isinstance(value, bool) or not isinstance(value, int):
                    raise ValueError("a whole number from -100 to 100")
                made["priority"] = value
            elif not isinstance(value, str):
                raise ValueError("a text")
            else:
                made[name] = value
        except (ValueError, TypeError) as error:
            faults.append(Fault(f"/{name}", str(error)))
    if faults:
        raise Invalid(faults)
    return made


def _moment(value: object) -> int:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError("a datetime with a time zone")
    return round(value.timestamp() * 1000)

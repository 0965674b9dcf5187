"""What a worker can do: handlers by type, each with its policy and the shape of its payload."""

from __future__ import annotations

import copy
import functools
import inspect
import json
import sys
import typing
from builtins import type as builtins_type
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType, NoneType, SimpleNamespace
from typing import Any

import msgspec

from . import retry as retry_policy
from .context import Context
from .errors import HandlerMissing, PayloadInvalid
from .job import TYPE_NAME, NewJob
from .keys import QUEUE_NAME
from .limits import MOST_AT_ONCE, Breaker, Rate, parse_breaker, parse_rate
from .outcomes import TypePolicy
from .retry import Retry
from .schedule import Schedule
from .times import duration_ms


@dataclass(frozen=True, slots=True)
class Handler:
    """One type's function. `decode` makes its arguments of a payload, or raises PayloadInvalid."""

    type: str
    queue: str
    function: Callable[..., Any]
    is_async: bool
    timeout_ms: int | None
    retry: Mapping[str, Any] | None
    """As stored: durations in ms."""
    decode: Callable[[bytes], dict[str, Any]] = field(repr=False)
    process: bool = False
    """It runs in a process of its own."""
    rate: Rate | None = None
    concurrency: int | None = None
    breaker: Breaker | None = None
    on_dead: Callable[[Any], Any] | None = None
    """Called with each job of this type that dies."""

    @property
    def policy(self) -> TypePolicy:
        """What it declares to the queues that a worker serves."""
        return TypePolicy(
            self.timeout_ms, self.retry, rate=self.rate, concurrency=self.concurrency, breaker=self.breaker
        )

    @property
    def home(self) -> tuple[str, str]:
        """Module and name by which another process finds the function."""
        return self.function.__module__, self.function.__qualname__


def make_handler(
    type: str,
    function: Callable[..., Any],
    *,
    queue: str = "default",
    retry: Retry | None = None,
    timeout: float | str | None = None,
    rate: str | Mapping[str, Any] | None = None,
    concurrency: int | None = None,
    breaker: bool | Mapping[str, Any] | None = None,
    process: bool = False,
    on_dead: Callable[[Any], Any] | None = None,
) -> Handler:
    """A handler for a function whose first parameter is the context. Raises ValueError for what cannot be one."""
    if not TYPE_NAME.fullmatch(type):
        raise ValueError(
            f"{type!r} is no type: 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first"
        )
    if not QUEUE_NAME.fullmatch(queue):
        raise ValueError(
            f"{queue!r} is no queue: 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first"
        )
    timeout_ms = None if timeout is None else duration_ms(timeout)
    if timeout_ms is not None and not 1 <= timeout_ms <= retry_policy.LONGEST_TIMEOUT_MS:
        raise ValueError(f"the timeout of {type} is more than 0 and at most 7 days")
    if concurrency is not None and not (
        isinstance(concurrency, int)
        and not isinstance(concurrency, bool)
        and 1 <= concurrency <= MOST_AT_ONCE
    ):
        raise ValueError(f"the concurrency of {type} is a whole number from 1 to {MOST_AT_ONCE}")
    bare = inspect.unwrap(function)
    for one in (function, bare, called(function)):
        if inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one):
            raise ValueError(
                f"the handler of {type}, {name_of(one)}, is a generator: a handler returns its result and does not yield"
            )
    name = getattr(function, "__qualname__", "<")
    if process and "<" in name:
        raise ValueError(
            f"the handler of {type} cannot have a process of its own: {name_of(function)} is defined within another function, or is "
            "an object without a name, and cannot be imported there"
        )
    # The outermost callable decides where it runs; what it returns is awaited if it can be.
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called(function))
    return Handler(
        type=type,
        queue=queue,
        function=function,
        is_async=is_async,
        timeout_ms=timeout_ms,
        retry=retry_policy.stored(retry.document()) if retry is not None else None,
        decode=payload_decoder(type, bare),
        process=process,
        rate=None if rate is None else _rate(type, rate),
        concurrency=concurrency,
        breaker=_breaker(type, breaker),
        on_dead=None if on_dead is None else check_hook(on_dead),
    )


def check_hook(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A hook for dead jobs. Raises ValueError where it cannot be called with one."""
    try:
        inspect.signature(hook).bind(None)
    except TypeError as error:
        raise ValueError(
            f"a hook for dead jobs, {name_of(hook)}, takes the job and nothing else: {error}"
        ) from error
    return hook


def _breaker(type: str, said: bool | Mapping[str, Any] | None) -> Breaker | None:
    if said is None or said is False:
        return None
    try:
        if said is not True and not isinstance(said, Mapping):
            raise ValueError("it is True, or a mapping such as {'failure_rate': 0.5, 'window': '1m'}")
        return parse_breaker({} if said is True else said)
    except ValueError as error:
        raise ValueError(f"the breaker of {type}: {error}") from error


def _rate(type: str, said: str | Mapping[str, Any]) -> Rate:
    try:
        if isinstance(said, str):
            return parse_rate(said)
        if not {"limit", "per"} <= set(said) <= {"limit", "per", "burst"}:
            raise ValueError("it has a limit and per, and may have a burst")
        return parse_rate((said["limit"], said["per"], said.get("burst", 0)))
    except (ValueError, TypeError) as error:
        raise ValueError(f"the rate of {type}: {error}") from error


def payload_decoder(type: str, function: Callable[..., Any]) -> Callable[[bytes], dict[str, Any]]:
    """A function from a payload to the keyword arguments of `function`, checked against its annotations."""
    parameters = list(inspect.signature(function, follow_wrapped=False).parameters.values())
    if not parameters or parameters[0].kind not in {
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    }:
        raise ValueError(f"the handler of {type} takes the context as its first parameter")
    namespace = _namespace(function)
    named: list[Any] = []
    opened = False
    for parameter in parameters[1:]:
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            opened = True
        elif parameter.kind in {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL}:
            raise ValueError(
                f"the handler of {type} takes its payload by name: {parameter} cannot be given one"
            )
        else:
            hint = _hint(type, parameter, *namespace)
            if parameter.default is inspect.Parameter.empty:
                named.append((parameter.name, hint))
            else:
                named.append(
                    (
                        parameter.name,
                        hint,
                        msgspec.field(default_factory=functools.partial(_default, parameter.default)),
                    )
                )
    required = [row for row in named if len(row) == 2]
    optional = [row for row in named if len(row) == 3]
    shape = msgspec.defstruct("Payload", required + optional, forbid_unknown_fields=not opened)
    decoder = msgspec.json.Decoder(shape)
    names = [row[0] for row in named]

    def decode(payload: bytes) -> dict[str, Any]:
        try:
            made = decoder.decode(payload)
            arguments = {name: getattr(made, name) for name in names}
            if opened:
                arguments = _everything(payload) | arguments
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise PayloadInvalid(f"the payload of {type} does not fit its handler: {error}") from error
        return arguments

    return decode


def _everything(payload: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = msgspec.json.decode(payload, type=dict[str, Any])
    except msgspec.MsgspecError:
        # A number beyond a double is JSON all the same: infinity here, and as it was sent in ctx.payload.
        found = json.loads(payload)
    return found


def _default(value: Any) -> Any:
    # A list in a signature is one list for all calls: no job may see what another has done to it.
    return value if isinstance(value, _IMMUTABLE) else copy.deepcopy(value)


_IMMUTABLE = (NoneType, bool, int, float, str, bytes)


def _namespace(function: Callable[..., Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The names that annotations of a function may use: those of its module, and those of the code that defines it."""
    names = getattr(called(function), "__globals__", {})
    frame, local = sys._getframe(1), dict[str, Any]()  # noqa: SLF001 - a handler within a function has its types there
    at: FrameType | None = frame
    while at is not None:
        if at.f_globals is names and at.f_locals is not names:
            local = dict(at.f_locals)
            break
        at = at.f_back
    return names, local


def _hint(type: str, parameter: inspect.Parameter, names: dict[str, Any], local: dict[str, Any]) -> Any:
    """What a parameter takes. Raises ValueError where its annotation cannot be resolved."""
    if parameter.annotation is inspect.Parameter.empty:
        return Any
    holder = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        return typing.get_type_hints(holder, names, local, include_extras=True)[parameter.name]
    except Exception as error:
        raise ValueError(
            f"the annotation of {parameter.name} of the handler of {type} cannot be resolved ({error}): its payload could not be "
            "checked. What is imported under TYPE_CHECKING is not there at run time"
        ) from error


def called(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function whose code runs when this is called: past partials, and of an object its `__call__`."""
    inner: Any = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    return inner if inspect.isroutine(inner) or inspect.isclass(inner) else builtins_type(inner).__call__


def name_of(function: Callable[..., Any]) -> str:
    """The name of a callable, for people."""
    if isinstance(function, functools.partial):
        return f"a partial of {name_of(function.func)}"
    return getattr(function, "__qualname__", None) or builtins_type(function).__qualname__


class Middleware:
    """What goes around each attempt, and around each enqueueing. Override what you need; each goes on by `call_next`."""

    async def run(self, ctx: Context, call_next: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ARG002 - theirs to use
        """Around a handler, within its timeout. Returns the handler's result, or another one."""
        return await call_next()

    async def enqueue(self, job: NewJob, call_next: Callable[[NewJob], Awaitable[Any]]) -> Any:
        """Around the sending of a job, or of another one in its place. Returns the job's handle."""
        return await call_next(job)


class RunMiddleware(Middleware):
    """A function that goes around each attempt."""

    def __init__(self, function: Callable[[Context, Callable[[], Awaitable[Any]]], Awaitable[Any]]) -> None:
        self._function = function

    async def run(self, ctx: Context, call_next: Callable[[], Awaitable[Any]]) -> Any:
        return await self._function(ctx, call_next)


class Handlers:
    """The handlers of an app, by type, and what goes around them, the outermost first."""

    def __init__(self) -> None:
        self._by_type: dict[str, Handler] = {}
        self.middleware: list[Middleware] = []
        self.app = ""
        """The name of the app, in which its schedules are known as its own."""
        self.on_dead: list[Callable[[Any], Any]] = []
        """Called with each job that a worker of this app sees die."""
        self.schedules: list[Schedule] = []
        """What the code has enqueued again and again."""

    def add(self, handler: Handler) -> None:
        """Takes a handler in. Raises ValueError when its type has one already."""
        if handler.type in self._by_type:
            other = inspect.unwrap(self._by_type[handler.type].function)
            raise ValueError(
                f"there is a handler for {handler.type!r} already: {other.__module__}.{name_of(other)}"
            )
        self._by_type[handler.type] = handler

    def add_schedule(self, schedule: Schedule) -> None:
        """Takes a schedule in. Raises ValueError when there is one of its name already."""
        if any(other.name == schedule.name for other in self.schedules):
            raise ValueError(
                f"there is a schedule {schedule.name!r} already: give one of them a name of its own"
            )
        self.schedules.append(schedule)

    def hooks_for(self, type: str) -> list[Callable[[Any], Any]]:
        """What is called with a dead job of this type: the hook of its handler, then those for all types."""
        handler = self._by_type.get(type)
        own = [] if handler is None or handler.on_dead is None else [handler.on_dead]
        return [*own, *self.on_dead]

    def get(self, type: str) -> Handler | None:
        return self._by_type.get(type)

    def find(self, type: str) -> Handler:
        """The handler of this type. Raises HandlerMissing, which lists what there is."""
        handler = self._by_type.get(type)
        if handler is None:
            raise HandlerMissing(
                f"no handler for {type!r}; registered: {', '.join(sorted(self._by_type)) or 'none'}"
            )
        return handler

    def queues(self) -> list[str]:
        """The queues that the handlers name, sorted."""
        return sorted({handler.queue for handler in self._by_type.values()})

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._by_type.values())

    def __len__(self) -> int:
        return len(self._by_type)

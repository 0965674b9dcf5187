"""The attempt that code runs for: known to log lines and to the tasks that a handler starts."""

from __future__ import annotations

import logging
import sys
from collections.abc import Coroutine, Generator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


class HandlerExit(Exception):
    """A task that a handler has started raised its cause: what ends an event loop, or cannot be looked at."""


CURRENT: ContextVar[tuple[str, str, str, int] | None] = ContextVar("scheduler_attempt", default=None)
"""Queue and key of the job, its type, and the number of the attempt: made for each job, and put into words by few."""

FIELDS = ("job", "type", "attempt")


def begin_attempt(queue: str, key: str, type: str, attempt: int) -> None:
    """From now on, in this context and those that are copied from it, log lines name this attempt."""
    CURRENT.set((queue, key, type, attempt))
    structlog = sys.modules.get("structlog")
    if structlog is not None and structlog.is_configured():
        # The user's own set-up, which finds them by `merge_contextvars`.
        structlog.contextvars.bind_contextvars(**attempt_fields())


def attempt_fields() -> dict[str, Any]:
    """What log lines say of the attempt that they are written in; empty outside of attempts."""
    now = CURRENT.get()
    if now is None:
        return {}
    queue, key, its_type, attempt = now
    return {"job": f"{queue}:{key}", "type": its_type, "attempt": attempt}


class AttemptFilter(logging.Filter):
    """Gives the records of the standard library's logging `job`, `type` and `attempt`; None outside of attempts."""

    def filter(self, record: logging.LogRecord) -> bool:
        found = attempt_fields()
        for name in FIELDS:
            record.__dict__.setdefault(name, found.get(name))
        return True


_FILTER = AttemptFilter()


def bind_logging() -> None:
    """Lets formatters of the root logger's handlers show `%(job)s %(type)s %(attempt)s`."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(_FILTER)


def _bearable(error: BaseException) -> bool:
    """Whether asyncio can carry it: neither one that ends the loop, nor one that raises when its class is asked for."""
    try:
        return not isinstance(error, SystemExit | KeyboardInterrupt)
    except BaseException:  # noqa: BLE001 - a `__class__` of its own may raise anything
        return False


class _Contained(Coroutine[Any, Any, Any]):
    """A coroutine of a handler's own task: what would end the loop ends the task only."""

    def __init__(self, inner: Coroutine[Any, Any, Any]) -> None:
        self._inner = inner

    def send(self, value: Any) -> Any:
        try:
            return self._inner.send(value)
        except StopIteration:  # its result
            raise
        except BaseException as error:
            if _bearable(error):
                raise
            raise HandlerExit("a task of the handler ended by what no event loop can bear") from error

    def throw(self, *thrown: Any) -> Any:
        try:
            return self._inner.throw(*thrown)
        except StopIteration:
            raise
        except BaseException as error:
            if _bearable(error):
                raise
            raise HandlerExit("a task of the handler ended by what no event loop can bear") from error

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()

    def __getattr__(self, name: str) -> Any:  # cr_frame, cr_code …, as debuggers ask for them
        return getattr(self._inner, name)


def contains(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether handlers run in this loop, whose exceptions are not to end it."""
    return bool(getattr(loop.get_task_factory(), "contains", False))


def contain_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """From now on no exception of a task that a handler starts ends this loop."""
    import asyncio  # noqa: PLC0415 - the command line logs without an event loop

    if contains(loop):
        return
    before = loop.get_task_factory()

    def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        if CURRENT.get() is not None:
            coro = _Contained(coro)
        return (
            before(loop, coro, **options) if before is not None else asyncio.Task(coro, loop=loop, **options)
        )

    make.contains = True  # type: ignore[attr-defined]
    loop.set_task_factory(make)

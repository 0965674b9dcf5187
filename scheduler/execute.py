"""One attempt, from a claimed job to the settlement that ends it."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import Sequence
from typing import Any

from .attempt import begin_attempt
from .context import Context
from .documents import NoJson, to_json
from .errors import PayloadInvalid
from .failures import ResultInvalid, ResultTooLarge, failure_of
from .handlers import Handler, Handlers, Middleware
from .job import Claimed
from .outcomes import Ack, Bury, Nack, Release, Settlement
from .processes import Processes
from .threads import Threads

STARTING = 4.0
"""Seconds in which a process may start and import the app: no time of the handler's. The lease ends 5 s after the timeout."""


async def execute(
    claimed: Claimed, context: Context, handlers: Handlers, places: Places, *, max_result: int
) -> Settlement | None:
    """Runs one claimed job and answers what to tell the store; None when the lease is lost and nothing may be told."""
    record = claimed.record
    if record is None or record.payload is None or not record.intact:
        return Bury(claimed.key, claimed.token, "Corrupt", "the stored record is damaged", reason="corrupt")
    handler = handlers.get(record.type)
    if handler is None:
        return Release(claimed.key, claimed.token, why="no_handler")
    outer = sys.exception()
    begin_attempt(claimed.queue, claimed.key, record.type, claimed.attempt)
    try:
        arguments = handler.decode(record.payload)
    except PayloadInvalid as error:
        return Bury(claimed.key, claimed.token, "BadPayload", str(error), reason="bad_payload")
    except BaseException as error:  # noqa: BLE001 - a class in the annotations may raise anything when it is made
        return failure(claimed, error, outer)

    seconds = max(0.001, claimed.timeout_ms / 1000)
    limit = Limit(seconds, context, late=STARTING if handler.process else 0.0)
    context.began = limit.begin
    try:
        result = await run(handler, context, arguments, places, handlers.middleware, max_result)
        if limit.expired:
            return limit.nack(claimed)
        return Ack(claimed.key, claimed.token, encode_result(result, max_result), tuple(context.added))
    except asyncio.CancelledError:
        # The worker cancels for one of three reasons; a handler that cancels itself has failed.
        if context.lost:
            return None
        if limit.expired:
            return limit.nack(claimed)
        if context.cancelled or context.stopping:
            return Release(claimed.key, claimed.token)
        return Nack(claimed.key, claimed.token, "CancelledError", "the handler cancelled itself")
    except BaseException as error:  # noqa: BLE001 - no exception of a handler ends more than its attempt
        if context.lost:
            return None
        if limit.expired:
            return limit.nack(claimed)
        return failure(claimed, error, outer)
    finally:
        limit.lift()


class Limit:
    """Cancels the running task when its time is over: `asyncio.timeout` does that too, at five times the cost."""

    __slots__ = ("_context", "_seconds", "_task", "_timer", "expired")

    def __init__(self, seconds: float, context: Context, *, late: float = 0.0) -> None:
        self._context = context
        self._task = asyncio.current_task()
        self._seconds = seconds
        self._timer = asyncio.get_running_loop().call_later(seconds + late, self._expire)
        self.expired = False

    def begin(self) -> None:
        """The time counts from now on."""
        if not self.expired and not self._timer.cancelled():
            self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._expire)

    def _expire(self) -> None:
        self.expired = True
        self._context.cancelled = True  # a thread cannot be cancelled: it looks
        if self._task is not None:
            self._task.cancel()

    def lift(self) -> None:
        self._timer.cancel()

    @staticmethod
    def nack(claimed: Claimed) -> Nack:
        if claimed.ends_by_deadline:
            return Nack(claimed.key, claimed.token, "DeadlineExceeded", "stopped at the job's deadline")
        message = f"stopped at its timeout of {claimed.timeout_ms / 1000:g} s"
        return Nack(claimed.key, claimed.token, "TimeoutError", message)


class Places:
    """Where handlers run: in the loop, in threads, in processes of their own."""

    def __init__(self, processes: int | None = None, *, max_jobs: int = 0) -> None:
        self.threads = Threads()
        self.processes = Processes(self.threads, processes, max_jobs=max_jobs)

    def close(self) -> None:
        """Kills the processes, and lets idle threads end."""
        self.processes.close()
        self.threads.close()


async def run(
    handler: Handler,
    context: Context,
    arguments: dict[str, Any],
    places: Places,
    middleware: Sequence[Middleware] = (),
    max_result: int = 1024 * 1024,
) -> Any:
    """The handler's own code, within what goes around it: in the loop for `async def`, in a thread for `def`."""
    if middleware:
        first, rest = middleware[0], middleware[1:]
        return await first.run(
            context, functools.partial(run, handler, context, arguments, places, rest, max_result)
        )
    if handler.process:
        return await places.processes.run(handler, context, max_result)
    if handler.is_async:
        return await handler.function(context, **arguments)
    result = await places.threads.run_handler(handler.function, context, **arguments)
    return await result if inspect.isawaitable(result) else result


def encode_result(result: Any, max_result: int) -> bytes:
    """The result as JSON. Raises ResultInvalid or ResultTooLarge."""
    if result is None:
        return b""
    try:
        encoded = to_json(result)
    except NoJson as error:
        raise ResultInvalid(f"the result cannot be kept: {error}") from error
    if len(encoded) > max_result:
        raise ResultTooLarge(f"the result has {len(encoded)} bytes, at most {max_result} are kept")
    return encoded


def failure(claimed: Claimed, error: BaseException, outer: BaseException | None = None) -> Settlement:
    """What an exception of a handler means for its job, whatever its class."""
    failed = failure_of(error, outer)
    delay_ms = None if failed.seconds is None else round(failed.seconds * 1000)
    if failed.verb == "release":
        return Release(claimed.key, claimed.token, delay_ms=delay_ms or 0, why="snooze")
    if failed.verb == "bury":
        return Bury(claimed.key, claimed.token, failed.kind, failed.message, failed.trace, where=failed.where)
    return Nack(
        claimed.key,
        claimed.token,
        failed.kind,
        failed.message,
        failed.trace,
        delay_ms,
        failed.scope,
        failed.where,
    )

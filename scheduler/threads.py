"""Threads for handlers that are plain functions."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

Work = Callable[[], None]

PATIENCE = 5.0
"""Seconds that a function has to end by itself when it must stop. Its slot is kept so long."""


class Threads:
    """Runs functions in daemon threads, which are used again.

    The standard library's pool would wait for a hung handler at the end of the process, and would never give its
    place to another one; here a thread that hangs is only missing.
    """

    def __init__(self) -> None:
        self._idle: list[SimpleQueue[Work | None]] = []
        self._lock = threading.Lock()
        self._ended = False

    async def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The function's result, from a thread that has the caller's context variables.

        A thread cannot be cancelled: when the caller is, CancelledError is raised at once, and the thread goes on.
        """
        return await self._run(0.0, function, *args, **kwargs)

    async def run_handler(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """As `run`; but when the caller is cancelled, the function has `PATIENCE` seconds to end by itself.

        Handlers look at `ctx.cancelled`. A result within that time is returned all the same.
        """
        return await self._run(PATIENCE, function, *args, **kwargs)

    async def _run(self, patience: float, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        # As a value: a future looks at an exception that it is given, and a user's class may answer anything.
        outcome: list[tuple[Any, BaseException | None]] = []
        context = contextvars.copy_context()

        def tell(value: Any, error: BaseException | None) -> None:
            outcome.append((value, error))
            if not waiter.done():
                waiter.set_result(None)

        def work() -> None:
            value: Any = None
            error: BaseException | None = None
            try:
                value = context.run(function, *args, **kwargs)
            except BaseException as raised:  # noqa: BLE001 - whatever it is, it is the handler's outcome
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(tell, value, error)

        self._start(work)
        try:
            await waiter
        except asyncio.CancelledError:
            waiter = loop.create_future()
            if not outcome and not patience:
                raise
            if not outcome:
                try:
                    async with asyncio.timeout(patience):
                        await waiter
                except TimeoutError:
                    raise asyncio.CancelledError from None
        [(value, error)] = outcome
        if error is None:
            return value
        if issubclass(type(error), StopIteration | StopAsyncIteration):
            # No coroutine can raise one.
            raise RuntimeError("the handler raised StopIteration") from error  # noqa: TRY004 - no wrong type
        try:
            raise error
        finally:
            del error  # a circle, through the frame in its traceback

    def _start(self, work: Work) -> None:
        with self._lock:
            inbox = self._idle.pop() if self._idle else None
        if inbox is None:
            inbox = SimpleQueue()
            threading.Thread(target=self._live, args=(inbox,), name="handler", daemon=True).start()
        inbox.put(work)

    def _live(self, inbox: SimpleQueue[Work | None]) -> None:
        while (work := inbox.get()) is not None:
            work()
            del work  # it holds a payload, or a process, for as long as this thread is idle
            with self._lock:
                if self._ended:
                    return
                self._idle.append(inbox)

    def close(self) -> None:
        """Lets idle threads end; the others end with their work, or with the process."""
        with self._lock:
            self._ended = True
            idle, self._idle = self._idle, []
        for inbox in idle:
            inbox.put(None)

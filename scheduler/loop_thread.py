"""An event loop in a thread of its own, for code that has none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, Generic, TypeVar

T = TypeVar("T")

LAST_WORDS = 3.0
"""Seconds that calls have to end in when their loop is stopped."""


class LoopThread:
    """Runs coroutines for other threads: in a loop that runs already, else in a daemon thread of its own.

    That thread ends with `stop`, when nobody has this object any more, and with the process.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.new_event_loop()
        self._process = os.getpid()
        self._thread: threading.Thread | None = None
        self._stopped = False
        # Of calls and stopping one comes first, so that no call is left in a loop that stands. A signal's handler may call too.
        self._order = threading.RLock()
        if loop is None:
            self._thread = threading.Thread(
                target=_turn, args=(self._loop,), name="scheduler loop", daemon=True
            )
            self._thread.start()
            # Not at the end of the process: what runs then may still call.
            weakref.finalize(self, _end, self._loop, self._process).atexit = False

    @property
    def alive(self) -> bool:
        """It can be used: a forked child has the object, but not the thread."""
        return self._process == os.getpid() and not self._stopped and not self._loop.is_closed()

    def run(self, coroutine: Coroutine[Any, Any, T], *, finish: bool = False) -> T:
        """What the coroutine returns or raises. Raises RuntimeError where a loop runs: that would stand still.

        Whatever ends the waiting (Ctrl-C, what another signal's handler raises) cancels it. With `finish` what it does
        then is waited for; the next Ctrl-C cancels it once more, and one after that leaves it alone. Raises
        RuntimeError too when another thread stops the loop meanwhile.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            coroutine.close()
            raise RuntimeError(
                "an event loop runs in this thread: await the call that is not for code without one"
            )
        call = _Call(coroutine)
        # Its beginning too: a Ctrl-C may come as soon as the loop has heard of it.
        try:
            if not self._tell(call.begin):
                coroutine.close()
                raise RuntimeError(
                    "its event loop is closed, or belongs to the process that this one was forked from"
                )
            return call.ended.result()
        except CancelledError:
            if self._stopped:
                raise RuntimeError("it was closed before the call was answered") from None
            raise
        except BaseException:
            if not call.ended.done():
                self._cancel(call, finish=finish)
            raise

    def _tell(self, act: Any) -> bool:
        """Has the loop do something; whether it will."""
        if not self.alive:
            return False
        with self._order:
            try:
                if not self._stopped:
                    self._loop.call_soon_threadsafe(act)
            except RuntimeError:
                return False  # it was closed in between
            return not self._stopped

    def _cancel(self, call: _Call[Any], *, finish: bool) -> None:
        again = finish
        while True:
            # All of it: the next Ctrl-C may come as soon as the loop has heard of this one.
            try:
                if not self._tell(call.cancel) or not finish:
                    return
                # Not result(): what it ends with by now is not what is raised.
                call.ended.exception()
            except CancelledError:
                pass
            except KeyboardInterrupt:
                if again:
                    again = False
                    continue
            return

    def stop(self) -> None:
        """Ends its thread, if it has one of its own. What is called at this moment is cancelled."""
        if self._thread is None or not self.alive:
            return
        with self._order:
            self._stopped = True
            _end(self._loop, self._process)
        self._thread.join(LAST_WORDS + 1)


class _Call(Generic[T]):
    """A coroutine that runs in a loop, waited for elsewhere."""

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self.ended: Future[T] = Future()
        self._coroutine = coroutine
        self._task: asyncio.Task[T] | None = None

    def begin(self) -> None:
        """Begins it, in the loop."""
        self._task = asyncio.get_running_loop().create_task(self._coroutine)
        self._task.add_done_callback(self._done)

    def cancel(self) -> None:
        """Cancels it, in the loop. It may be cancelled again while it ends."""
        if self._task is not None:
            self._task.cancel()

    def _done(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.ended.cancel()
        elif (error := task.exception()) is not None:
            self.ended.set_exception(error)
        else:
            self.ended.set_result(task.result())


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    """Runs a loop until it is told to end; then cancels what is left in it, and closes it."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=LAST_WORDS))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _end(loop: asyncio.AbstractEventLoop, process: int) -> None:
    """Tells a loop to end. A forked child does not: it shares what wakes its parent's loop."""
    if process == os.getpid():
        with contextlib.suppress(RuntimeError):  # it is closed
            loop.call_soon_threadsafe(loop.stop)

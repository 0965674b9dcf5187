"""An event loop in a thread of its own, for code that has none."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for other threads: in a loop that runs already, else in a daemon thread that ends with the process."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.new_event_loop()
        self._process = os.getpid()
        self._thread: threading.Thread | None = None
        if loop is None:
            self._thread = threading.Thread(target=self._loop.run_forever, name="scheduler loop", daemon=True)
            self._thread.start()

    @property
    def alive(self) -> bool:
        """It can be used: a forked child has the object, but not the thread."""
        return self._process == os.getpid() and not self._loop.is_closed()

    def run(self, coroutine: Coroutine[Any, Any, T], *, finish: bool = False) -> T:
        """What the coroutine returns or raises. Raises RuntimeError where a loop runs: that would stand still.

        Ctrl-C cancels it; with `finish` what it does then is waited for, until the next Ctrl-C.
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
        if not self.alive:
            coroutine.close()
            raise RuntimeError(
                "its event loop is closed, or belongs to the process that this one was forked from"
            )
        ended = threading.Event()
        running = asyncio.run_coroutine_threadsafe(_and_then(coroutine, ended.set), self._loop)
        try:
            return running.result()
        except KeyboardInterrupt:
            running.cancel()
            if finish:
                ended.wait()
            raise

    def stop(self) -> None:
        """Ends its thread, if it has one of its own."""
        if self._thread is not None and self.alive:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5.0)
            if not self._thread.is_alive():
                self._loop.close()


async def _and_then(coroutine: Coroutine[Any, Any, T], done: Callable[[], None]) -> T:
    try:
        return await coroutine
    finally:
        done()

"""An event loop in a thread of its own, for code that has none."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for other threads: in a loop that runs already, else in a daemon thread that ends with the process."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.new_event_loop()
        self._process = os.getpid()
        if loop is None:
            threading.Thread(target=self._loop.run_forever, name="scheduler loop", daemon=True).start()

    @property
    def alive(self) -> bool:
        """It can be used: a forked child has the object, but not the thread."""
        return self._process == os.getpid() and not self._loop.is_closed()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What the coroutine returns or raises. Raises RuntimeError where a loop runs: that would stand still."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
        coroutine.close()
        raise RuntimeError(
            "an event loop runs in this thread: await the call that is not for code without one"
        )

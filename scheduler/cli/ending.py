"""The end of a process: for certain, however user code holds on to it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from types import FrameType

from ..logs import get_logger

log = get_logger(__name__)

AFTER_GRACE = 1.7
"""Seconds after the grace in which everything is settled and closed. The contract gives two."""

AFTER_WORK = 1.0
"""Seconds that the interpreter has to end by itself once the work is done: it joins threads, and a pool's may hang."""

SAYING = 0.2
"""Seconds that the last words of the process may take."""


class Ending:
    """Ends the process at a deadline, from a thread that nothing can hold up."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._deadline: float | None = None
        self._changed = threading.Condition(
            threading.RLock()
        )  # a signal handler may interrupt its own thread here
        self.status = 0
        """What the process ends with, if it does not end by itself."""
        self.left: Callable[[], Sequence[str]] = list
        """Ids of the jobs whose handlers still run."""

    def on_signals(self) -> None:
        """The first SIGINT or SIGTERM sets the deadline, also where the event loop is blocked; the second one brings it near.

        Called after the event loop has its own handlers: they go on to be woken through the wakeup descriptor.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._signalled)
            signal.siginterrupt(number, False)

    def _signalled(self, _number: int, _frame: FrameType | None) -> None:
        self.within(self._grace + AFTER_GRACE if self._deadline is None else AFTER_GRACE)

    def within(self, seconds: float) -> None:
        """The process ends in so many seconds at the latest. A later deadline than the standing one changes nothing."""
        deadline = monotonic() + seconds
        with self._changed:
            first = self._deadline is None
            if first or deadline < (self._deadline or 0):
                self._deadline = deadline
                self._changed.notify()
        if first:
            threading.Thread(target=self._wait, name="ending", daemon=True).start()

    def _wait(self) -> None:
        with self._changed:
            while (left := (self._deadline or 0) - monotonic()) > 0:
                self._changed.wait(left)
        # stderr may be a pipe that nobody reads: writing to it must not hold up the end.
        saying = threading.Thread(target=self._say, args=(threading.current_thread(),), daemon=True)
        saying.start()
        saying.join(SAYING)
        os._exit(self.status)

    def _say(self, ending: threading.Thread) -> None:
        """Logs what is left, and flushes the logs."""
        own = {threading.main_thread(), threading.current_thread(), ending}
        threads = [thread.name for thread in threading.enumerate() if thread not in own and not thread.daemon]
        log.warning(
            "the process ends although work is left", jobs=list(self.left())[:20], threads=threads[:20]
        )
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()

"""Loops that outlive what goes wrong in them, and tasks that end for good."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic
from typing import Any

from .errors import SchedulerError
from .logs import get_logger

log = get_logger(__name__)

SHORTEST, LONGEST = 0.05, 1.0
"""Seconds between a failure and the next try: doubled each time, and jittered."""


class Pulse:
    """How one loop of the process fares: when it last went well, and what is wrong since then.

    Trouble is said once, and so is its end. What is usual in an outage is said only when it lasts longer than
    `patience` seconds; anything else at once, with its traceback.
    """

    def __init__(
        self,
        name: str,
        *,
        usual: Callable[[Exception], bool] = lambda error: isinstance(error, SchedulerError | OSError),
        patience: float = 5.0,
        longest: float = LONGEST,
    ) -> None:
        self.name = name
        self.succeeded_at = monotonic()
        """By the monotonic clock; the start counts as a success."""
        self._usual, self._patience, self._longest = usual, patience, longest
        self._pause = SHORTEST
        self._since: float | None = None
        self._said: set[type[Exception]] = set()

    @property
    def in_trouble(self) -> bool:
        """The last try failed."""
        return self._since is not None

    def well(self) -> None:
        """A step went well."""
        self.succeeded_at = monotonic()
        if self._said and self._since is not None:
            log.info("works again", loop=self.name, seconds=round(self.succeeded_at - self._since, 1))
            self._said.clear()
        self._since = None
        self._pause = SHORTEST

    def failed(self, error: Exception) -> float:
        """A step failed: in how many seconds to try again."""
        now = monotonic()
        if self._since is None:
            self._since = now
        kind = type(error)
        if not self._usual(error):
            if kind not in self._said:
                self._said.add(kind)
                log.error("failed, and is tried again", loop=self.name, exc_info=error)
        elif not self._said and now - self.succeeded_at > self._patience:
            self._said.add(kind)
            log.warning(
                "fails, and is tried again",
                loop=self.name,
                error=str(error) or repr(error),
                seconds=round(now - self.succeeded_at, 1),
            )
        pause, self._pause = self._pause, min(2 * self._pause, self._longest)
        return pause * random.uniform(0.5, 1.0)


class Reminder:
    """Logs a trouble that lasts as an error: at once, and again each minute for as long as it is reported."""

    def __init__(self, event: str, *, every: float = 60.0, most: int = 1_000) -> None:
        self._event, self._every, self._most = event, every, most
        self._told: dict[str, float] = {}

    def remind(self, about: str, **fields: Any) -> None:
        """The trouble of one thing, by its name. Fields go into the line of the log."""
        now = monotonic()
        if now - self._told.get(about, -math.inf) < self._every:
            return
        if len(self._told) >= self._most:  # names that come and go
            self._told.clear()
        self._told[about] = now
        log.error(self._event, **fields)


class Signal:
    """An event that one loop waits for, by itself or together with a future of its own."""

    def __init__(self) -> None:
        self._set = False
        self._waiter: asyncio.Future[bool] | None = None

    def set(self) -> None:
        self._set = True
        settle(self._waiter, value=False)

    def clear(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    async def wait(self) -> None:
        """Returns when it is set, at once when it is set already."""
        await self.ends(asyncio.get_running_loop().create_future())

    async def ends(self, waiter: asyncio.Future[bool]) -> bool:
        """Waits for a future, which is False when this is set before."""
        self._waiter = waiter
        if self._set:
            settle(waiter, value=False)
        try:
            return await waiter
        finally:
            self._waiter = None


def settle(waiter: asyncio.Future[bool] | None, *, value: bool) -> None:
    """Gives a future its value, unless it has one."""
    if waiter is not None and not waiter.done():
        waiter.set_result(value)


async def forever(
    pulse: Pulse, step: Callable[[], Awaitable[float | None]], *, done: Callable[[], bool] | None = None
) -> None:
    """Takes step after step until it is cancelled, or `done` says so; no exception ends it.

    A step answers in how many seconds the next one is due; nothing is at once.
    """
    task = asyncio.current_task()
    assert task is not None
    while done is None or not done():
        try:
            pause = await step() or 0.0
        except asyncio.CancelledError as error:
            if task.cancelling():
                raise
            # Not meant for this loop: something that the step waited for was cancelled.
            pause = pulse.failed(RuntimeError(f"what it waited for was cancelled: {error!r}"))
        except Exception as error:
            if task.cancelling():
                # redis-py 8.1 now and then makes a lost connection of a cancellation.
                raise asyncio.CancelledError from error
            pause = pulse.failed(error)
        else:
            pulse.well()
        await asyncio.sleep(pause)


async def wait_or_raise(stop: asyncio.Event, loops: Iterable[asyncio.Task[Any]]) -> None:
    """Waits for `stop`. A loop that ends before it is a fault, which is raised: nothing may end unseen."""
    loops = list(loops)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({stopping, *loops}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
    for task in loops:
        if task.done() and not stop.is_set():
            if not task.cancelled():
                task.result()
            raise RuntimeError(f"{task.get_name()} has ended by itself")


async def cancel_all(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancels tasks and waits until each is done; what they raised is dropped.

    Once is not enough: redis-py 8.1 now and then makes a lost connection of a cancellation, and a loop that outlives
    lost connections goes on.
    """
    pending = {task for task in tasks if not task.done()}
    interrupted, left = None, 20
    while pending and left:
        for task in pending:
            task.cancel()
        try:
            done, pending = await asyncio.wait(pending, timeout=0.1)
        except asyncio.CancelledError as error:
            # Whoever ends the caller a second time would leave these behind: they have two seconds more.
            interrupted = error
            done, pending = set(), {task for task in pending if not task.done()}
        if interrupted is not None:
            left -= 1
        for task in done:
            if not task.cancelled():
                task.exception()
    if interrupted is not None:
        raise interrupted

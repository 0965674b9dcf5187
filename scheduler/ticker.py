"""Fires schedules. Any worker and any API process ticks, none leads, and a slot fires once however many do."""

from __future__ import annotations

import asyncio
import contextlib
import random

from .errors import SchedulerError, StoreUnavailable
from .logs import get_logger
from .scheduling import Schedules
from .store import Store
from .tasks import Pulse, cancel_all, forever

log = get_logger(__name__)

PERIOD = 5.0
"""Seconds within which what others have changed is seen. What is due sooner is slept until."""

APART_MS = 50
"""Those who tick come this far apart at random, so that not all of them work out the same slots."""

STUCK_MS = 1_000
"""Until a schedule is looked at again that is due and cannot be read."""

GROUP = 500
"""Queues that are asked for their next slot in one go."""


class Ticker:
    """Looks when the next schedule of each queue is due, sleeps until then, and fires."""

    def __init__(self, store: Store, schedules: Schedules, *, realigns: bool = False) -> None:
        self._store, self._schedules = store, schedules
        self._realigns = realigns
        self._looked: dict[str, int] = {}
        self._wake = asyncio.Event()
        self.pulse = Pulse("schedules", patience=6 * PERIOD)
        schedules.on_change(self._wake.set)

    async def run(self) -> None:
        """Ticks until it is cancelled."""
        tasks = [asyncio.create_task(forever(self.pulse, self._step), name="schedules")]
        if self._realigns:
            tasks.append(asyncio.create_task(self._realign(), name="schedules: zones"))
        try:
            await tasks[0]
        finally:
            await cancel_all(tasks)

    async def _realign(self) -> None:
        for pause in (1.0, 10.0, 60.0):
            await asyncio.sleep(random.uniform(0.5, 1.0) * pause)
            try:
                changed = await self._schedules.realign()
            except SchedulerError as error:
                log.debug("the zones of schedules are not looked at yet", error=str(error))
                continue
            if changed:
                log.info("the rules of time zones have changed", schedules=changed)
            return

    async def _step(self) -> float:
        """One look; answers in how many seconds to look again."""
        # Taken before the look: a change that comes during it is seen by the next one.
        self._wake.clear()
        wait_ms = await self.tick()
        pause = PERIOD * random.uniform(0.9, 1.0)
        if wait_ms is not None:
            pause = min(pause, (wait_ms + random.uniform(0, APART_MS)) / 1_000)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), pause)
        return 0.0

    async def tick(self) -> float | None:
        """Fires what is due in every queue; in how many ms the next schedule is due, None for none."""
        queues = await self._store.schedule_queues()
        for gone in self._looked.keys() - set(queues):
            del self._looked[gone]
        waits: list[float] = []
        failed: SchedulerError | None = None
        for start in range(0, len(queues), GROUP):
            some = queues[start : start + GROUP]
            now = await self._store.server_time()
            for queue, first in zip(some, await self._store.next_fires(some), strict=True):
                if first is not None and first <= now:
                    try:
                        waits += await self._fire(queue)
                    except StoreUnavailable:
                        raise
                    except SchedulerError as error:
                        # One queue's trouble (a newer level, a full server) is not the others'.
                        failed = error
                else:
                    self._looked[queue] = now
                    if first is not None:
                        waits.append(first - now)
        if failed is not None:
            raise failed
        return min(waits, default=None)

    async def _fire(self, queue: str) -> list[float]:
        looked = self._looked.get(queue)
        self._looked[queue] = began = await self._schedules.fire(queue, looked_ms=looked)
        [first] = await self._store.next_fires([queue])
        if first is None:
            return []
        if first <= began:
            return [STUCK_MS]
        return [max(0.0, first - await self._store.server_time())]

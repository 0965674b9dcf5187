"""Fires schedules. Any worker and any API process ticks, none leads, and a slot fires once however many do."""

from __future__ import annotations

import asyncio
import contextlib
import random

from .errors import SchedulerError, StoreUnavailable
from .logs import get_logger
from .scheduling import Firing, Schedules
from .store import Store
from .tasks import Pulse, Reminder, cancel_all, forever

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
        self._now_ms: int | None = None
        """The server's time at the last look."""
        self._wake = asyncio.Event()
        self._reminder = Reminder("the schedules of a queue fail, and are tried again")
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
        """Fires what is due in every queue; in how many ms the next schedule is due, None for none.

        Queues take turns of a page each: what one of them has missed in a long downtime does not delay the others.
        """
        queues = await self._store.schedule_queues()
        for gone in self._looked.keys() - set(queues):
            del self._looked[gone]
        waits: list[float] = []
        due: list[Firing] = []
        await self._watch_clock()
        for start in range(0, len(queues), GROUP):
            some = queues[start : start + GROUP]
            now = await self._store.server_time()
            for queue, first in zip(some, await self._store.next_fires(some), strict=True):
                if first is not None and first <= now:
                    due.append(Firing(queue, self._looked.get(queue)))
                else:
                    self._looked[queue] = now
                    if first is not None:
                        waits.append(first - now)
        while due:
            due = [turn for turn in due if await self._fire(turn, waits)]
        return min(waits, default=None)

    async def _watch_clock(self) -> None:
        now = await self._store.server_time()
        before, self._now_ms = self._now_ms, now
        if before is not None and now < before - STUCK_MS:
            log.warning("the server's clock went back", seconds=round((before - now) / 1_000))
            self._looked.clear()
            await self._schedules.realign()

    async def _fire(self, turn: Firing, waits: list[float]) -> bool:
        """One page of a queue; whether more is left. Adds in how many ms the queue's next schedule is due."""
        try:
            if await self._schedules.fire_page(turn):
                return True
            assert turn.began_ms is not None, "the first page has looked"
            self._looked[turn.queue] = turn.began_ms
            waits += await self._following(turn.queue, turn.began_ms)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - the trouble of one queue (a newer level, a full server) is not the others'
            self._reminder.remind(turn.queue, queue=turn.queue, error=str(error) or repr(error))
            waits.append(STUCK_MS)
        return False

    async def _following(self, queue: str, began: int) -> list[float]:
        [first] = await self._store.next_fires([queue])
        if first is None:
            return []
        now = await self._store.server_time()
        if first > began:
            return [max(0.0, first - now)]
        # What stands in front cannot be worked out. The others of the queue come in their time.
        first = await self._store.next_fire_after(queue, began)
        return [STUCK_MS] if first is None else [min(STUCK_MS, max(0.0, first - now))]

"""Waits for the bells of any number of queues on one connection of the process."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from uuid import uuid4

from .clients import Clients, best_effort, is_outage
from .keys import Keys
from .tasks import Pulse, cancel_all, forever

BLOCK = 5
"""Seconds of one blocking call. What hears nothing for that and the margin is deaf: a black hole tells nobody."""

MARGIN = 3
"""Seconds that the answer to a blocking call may be late."""

TAKEN_OVER = 0.6
"""Seconds after which somebody looks for one who is gone: the store replaces a timekeeper who is 0.5 s late."""


class Doorbell:
    """A bell tells that something became runnable; who hears it claims. A lost ring costs a waiter its own timer."""

    def __init__(self, clients: Clients, namespace: str) -> None:
        self._clients = clients
        self._namespace = namespace
        self._waiters: dict[str, deque[asyncio.Future[None]]] = defaultdict(deque)
        self._watched: frozenset[str] = frozenset()
        self._wake_key = f"{{{namespace}}}:wake:{uuid4().hex}"
        self._listener: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._passing: set[asyncio.Task[None]] = set()
        self.pulse = Pulse("doorbell", usual=is_outage)
        self._named: dict[tuple[str, str], asyncio.Future[None]] = {}
        self._reminders: dict[str, asyncio.TimerHandle] = {}

    async def wait(self, queue: str, seconds: float, name: str = "") -> bool:
        """Waits for a ring of this queue, at most so long; whether it rang. `name` is for `remind`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[queue].append(future)
        if name:
            self._named[queue, name] = future
        self._changed.set()
        if self._listener is None:
            self._listener = asyncio.create_task(forever(self.pulse, self._listen), name="doorbell")
        try:
            async with asyncio.timeout(seconds):
                if self._watched and queue not in self._watched:
                    await self._interrupt()
                await future
        except TimeoutError:
            # It may have rung in the same moment.
            return future.done() and not future.cancelled()
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and not self._ring(queue):
                passing = asyncio.create_task(self.pass_on(queue))
                self._passing.add(passing)
                passing.add_done_callback(self._passing.discard)
            raise
        finally:
            self._leave(queue, future)
            if self._named.get((queue, name)) is future:
                del self._named[queue, name]
        return True

    def _leave(self, queue: str, future: asyncio.Future[None]) -> None:
        waiting = self._waiters[queue]
        with contextlib.suppress(ValueError):
            waiting.remove(future)
        if not waiting:
            self._waiters.pop(queue, None)

    async def _interrupt(self) -> None:
        # The list lives for a minute only: whoever listens has it long before, and nobody may be listening.
        pipe = self._clients.commands.pipeline(transaction=False)
        pipe.rpush(self._wake_key, "1")
        pipe.pexpire(self._wake_key, 60_000)
        await best_effort(pipe.execute())

    async def _listen(self) -> None:
        queues = [queue for queue, waiting in self._waiters.items() if waiting]
        if not queues:
            self._changed.clear()
            await self._changed.wait()
            return
        bells = {Keys(self._namespace, queue).at("bell").encode(): queue for queue in queues}
        self._watched = frozenset(queues)
        try:
            async with asyncio.timeout(BLOCK + MARGIN):
                heard = await self._clients.waits.blpop([*bells, self._wake_key], timeout=BLOCK)
        finally:
            self._watched = frozenset()
        if heard is not None and heard[0] in bells and not self._ring(bells[heard[0]]):
            # Nobody here waits for this queue any more.
            await self.pass_on(bells[heard[0]])

    def _ring(self, queue: str) -> bool:
        waiting = self._waiters.get(queue)
        while waiting:
            future = waiting.popleft()
            if not future.done():
                future.set_result(None)
                return True
        return False

    def remind(self, queue: str, seconds: float, name: str = "") -> None:
        """Rings here in so long for who waits by this name, else for another; sooner, where that was asked for before.

        So one of all who wait in a process looks when a claim has said to look again, however many they are: by his
        own name, since the store may have made him the queue's timekeeper.
        """
        loop = asyncio.get_running_loop()
        at, standing = loop.time() + seconds, self._reminders.get(queue)
        if standing is not None:
            if standing.when() <= at:
                return
            standing.cancel()
        self._reminders[queue] = loop.call_at(at, self._reminded, queue, name)

    def _reminded(self, queue: str, name: str) -> None:
        del self._reminders[queue]
        future = self._named.get((queue, name))
        if future is not None and not future.done():
            future.set_result(None)
        elif self._ring(queue) and name:
            # He may have been the timekeeper, whose time the one who looks in his place is not told.
            self.remind(queue, TAKEN_OVER)

    async def pass_on(self, queue: str) -> None:
        """Gives a ring back, for another process: whoever heard it here cannot use it."""
        bell = Keys(self._namespace, queue).at("bell")
        pipe = self._clients.commands.pipeline(transaction=False)
        pipe.rpush(bell, "1")
        pipe.ltrim(bell, 0, 0)
        await best_effort(pipe.execute())

    async def close(self) -> None:
        for reminder in self._reminders.values():
            reminder.cancel()
        self._reminders.clear()
        if self._listener is not None:
            await cancel_all([self._listener])

"""Waits for the bells of any number of queues on one connection of the process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import defaultdict, deque
from uuid import uuid4

from .clients import Clients, best_effort, is_outage
from .keys import Keys
from .tasks import Pulse, Signal, cancel_all, forever, settle

BLOCK = 5
"""Seconds of one blocking call. What hears nothing for that and the margin is deaf: a black hole tells nobody."""

MARGIN = 3
"""Seconds that the answer to a blocking call may be late."""

TAKEN_OVER = 0.6
"""Seconds after which somebody looks for one who is gone: the store replaces a timekeeper who is 0.5 s late."""

ORDINARY = 3.9
"""Seconds from which on a claim's answer is the ordinary "come again in about five seconds": one of these is enough."""


class Doorbell:
    """A bell tells that something became runnable; who hears it claims. A lost ring costs a waiter its own timer."""

    def __init__(self, clients: Clients, namespace: str) -> None:
        self._clients = clients
        self._namespace = namespace
        self._waiters: dict[str, deque[asyncio.Future[bool]]] = defaultdict(deque)
        self._since: dict[asyncio.Future[bool], float] = {}
        self._rung: dict[str, float] = {}
        self._watched: frozenset[str] = frozenset()
        self._wake_key = f"{{{namespace}}}:wake:{uuid4().hex}"
        self._listener: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._passing: set[asyncio.Task[None]] = set()
        self.pulse = Pulse("doorbell", usual=is_outage)
        self._named: dict[tuple[str, str], asyncio.Future[bool]] = {}
        self._wire = clients.blocking_wire(BLOCK + MARGIN)
        self._reminders: dict[tuple[str, str | None], asyncio.TimerHandle] = {}

    async def wait(self, queue: str, seconds: float, name: str = "", *, unless: Signal | None = None) -> bool:
        """Waits for a ring of this queue, at most so long, or until a signal; whether it rang. `name`: see `remind`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(seconds, functools.partial(settle, future, value=False))
        self._waiters[queue].append(future)
        self._since[future] = loop.time()
        if name:
            self._named[queue, name] = future
        self._changed.set()
        if self._listener is None:
            self._listener = asyncio.create_task(forever(self.pulse, self._listen), name="doorbell")
        try:
            if self._watched and queue not in self._watched:
                await self._interrupt()
            return await (future if unless is None else unless.ends(future))
        except asyncio.CancelledError:
            rang = future.done() and not future.cancelled() and future.result()
            if rang and not self._ring(queue):
                passing = asyncio.create_task(self.pass_on(queue))
                self._passing.add(passing)
                passing.add_done_callback(self._passing.discard)
            raise
        finally:
            timer.cancel()
            del self._since[future]
            self._leave(queue, future)
            if self._named.get((queue, name)) is future:
                del self._named[queue, name]

    def _leave(self, queue: str, future: asyncio.Future[bool]) -> None:
        waiting = self._waiters[queue]
        with contextlib.suppress(ValueError):
            waiting.remove(future)
        if not waiting:
            self._waiters.pop(queue, None)
            self._rung.pop(queue, None)

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
            heard = await self._hear([*bells, self._wake_key])
        finally:
            self._watched = frozenset()
        if heard is not None and heard[0] in bells and not self._ring(bells[heard[0]], anew=True):
            # Nobody here waits for this queue any more.
            await self.pass_on(bells[heard[0]])

    async def _hear(self, bells: list[bytes | str]) -> list[bytes] | None:
        """The bell that rang; None when none did for some seconds. Raises what the server's loss is."""
        if self._wire is None:
            async with asyncio.timeout(BLOCK + MARGIN):
                return await self._clients.waits.blpop(bells, timeout=BLOCK)  # type: ignore[return-value]
        [heard] = await self._wire.send([("BLPOP", *bells, BLOCK)])
        if isinstance(heard, Exception):
            raise heard
        return heard  # type: ignore[no-any-return]

    def hand_on(self, queue: str) -> None:
        """Rings for the next who waits here and has not looked since the last ring: who heard it could not use it."""
        waiting = next((one for one in self._waiters.get(queue, ()) if not one.done()), None)
        if waiting is not None and self._since[waiting] < self._rung.get(queue, 0):
            self._ring(queue)

    def _ring(self, queue: str, *, anew: bool = False) -> bool:
        waiting = self._waiters.get(queue)
        if anew and waiting:
            self._rung[queue] = asyncio.get_running_loop().time()
        while waiting:
            future = waiting.popleft()
            if not future.done():
                future.set_result(True)
                return True
        return False

    def remind(self, queue: str, seconds: float, name: str = "") -> None:
        """Rings here in so long for who waits by this name, else for another who waits for this queue.

        So one of all who wait in a process looks when claims have said to look again, however many they are. A short
        time is its own: the store has made him the queue's timekeeper, and tells it to nobody else.
        """
        loop = asyncio.get_running_loop()
        at, key = loop.time() + seconds, (queue, name if seconds < ORDINARY else None)
        standing = self._reminders.get(key)
        if standing is not None:
            if standing.when() <= at:
                return
            standing.cancel()
        self._reminders[key] = loop.call_at(at, self._reminded, key, name)

    def _reminded(self, key: tuple[str, str | None], name: str) -> None:
        del self._reminders[key]
        queue = key[0]
        future = self._named.get((queue, name))
        if future is not None and not future.done():
            future.set_result(True)
        elif self._ring(queue, anew=True) and name:
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
        if self._wire is not None:
            await self._wire.close()

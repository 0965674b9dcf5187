"""Follows the event streams of the queues that somebody waits for, on one connection of the process."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from contextvars import Context
from typing import Any
from uuid import uuid4

from .clients import Clients, best_effort, is_outage
from .errors import StoreUnavailable
from .job import Job, State
from .keys import STATES, Keys
from .store import Store
from .tasks import Pulse, cancel_all, forever

BLOCK, MARGIN = 5, 3
"""Seconds of one blocking call, and how late its answer may be: what hears nothing for longer is deaf."""

PAGE = 100
LOOK_EVERY = 10.0
"""Seconds after which the states of all watched jobs are looked at, for what no event told: few commands a queue."""


LOOK_AT = 1_000
"""Jobs that are looked at in one pipeline."""


class Follower:
    """Tells who watches a job that something happened to it. What it tells is a hint: read the job then."""

    def __init__(self, clients: Clients, namespace: str) -> None:
        self._clients = clients
        self._namespace = namespace
        self._watching: dict[str, dict[str, set[asyncio.Event]]] = defaultdict(lambda: defaultdict(set))
        self._position: dict[str, bytes] = {}
        self._wake_key = f"{{{namespace}}}:wake:{uuid4().hex}"
        self._wake_position: bytes = b"0"
        self._listener: asyncio.Task[None] | None = None
        self._looker: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self.pulse = Pulse("events", usual=is_outage)
        self.looks = Pulse("look", usual=is_outage)

    @contextlib.asynccontextmanager
    async def watch(self, queue: str, key: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set when something happens to this job from now on. Enter first, then read the job."""
        happened = asyncio.Event()
        new = queue not in self._position
        if new:
            await self._begin(queue)
        self._watching[queue][key].add(happened)
        try:
            if self._listener is None:
                # In contexts of their own: what they log is not said in the attempt that happens to wait first.
                self._listener = asyncio.create_task(
                    forever(self.pulse, self._listen), name="events", context=Context()
                )
                self._looker = asyncio.create_task(
                    forever(self.looks, self._look_at_all), name="look", context=Context()
                )
            elif new:
                await self._interrupt()
            self._changed.set()
            yield happened
        finally:
            watchers = self._watching[queue]
            watchers[key].discard(happened)
            if not watchers[key]:
                del watchers[key]
            if not watchers:
                del self._watching[queue]
                self._position.pop(queue, None)

    async def _begin(self, queue: str) -> None:
        # By its own id, not "$": what comes between here and the next read must not be missed.
        try:
            newest = await self._clients.reads.xrevrange(Keys(self._namespace, queue).at("events"), count=1)
        except Exception as error:
            if not is_outage(error):
                raise
            raise StoreUnavailable(f"{self._clients.where}: events: {error}") from error
        self._position.setdefault(queue, _bytes(newest[0][0]) if newest else b"0")

    async def _interrupt(self) -> None:
        pipe = self._clients.commands.pipeline(transaction=False)
        pipe.xadd(self._wake_key, {"wake": "1"}, maxlen=10)
        pipe.pexpire(self._wake_key, 60_000)
        await best_effort(pipe.execute())

    async def _listen(self) -> None:
        if not self._position:
            self._changed.clear()
            await self._changed.wait()
            return
        streams: dict[Any, Any] = {
            Keys(self._namespace, queue).at("events"): at for queue, at in self._position.items()
        }
        queues = {Keys(self._namespace, queue).at("events").encode(): queue for queue in self._position}
        try:
            async with asyncio.timeout(BLOCK + MARGIN):
                read: Any = await self._clients.waits.xread(
                    {**streams, self._wake_key: self._wake_position}, count=PAGE, block=BLOCK * 1000
                )
        except Exception:
            self._tell_all()
            raise
        for stream, entries in _streams(read):
            queue = queues.get(stream)
            if queue is None:
                self._wake_position = entries[-1][0]
            elif queue in self._position:
                self._position[queue] = entries[-1][0]
                self._tell(queue, entries)

    def _tell(self, queue: str, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
        watchers = self._watching.get(queue)
        if not watchers:
            return
        for _, fields in entries:
            for key in fields.get(b"ids", b"").decode().split(" "):
                for happened in watchers.get(key, ()):
                    happened.set()

    def _tell_all(self) -> None:
        # After a break nobody knows what was missed (a stream may have been trimmed or lost): all read again.
        for watchers in self._watching.values():
            for events in watchers.values():
                for happened in events:
                    happened.set()

    async def _look_at_all(self) -> float:
        # The stream is a hint, and bounded: what fell out of it unseen is found here, whoever waits for it.
        for queue in list(self._watching):
            keys = list(self._watching.get(queue, ()))
            for start in range(0, len(keys), LOOK_AT):
                await self._look(queue, keys[start : start + LOOK_AT])
        return LOOK_EVERY

    async def _look(self, queue: str, keys: list[str]) -> None:
        """Tells who watches what has ended, or is in no state any more."""
        at = Keys(self._namespace, queue).at
        pipe = self._clients.reads.pipeline(transaction=False)
        for state in STATES:
            pipe.zmscore(at(state), keys)
        scores: list[list[float | None]] = await pipe.execute()
        for key, *found in zip(keys, *scores, strict=True):
            unfinished = any(
                score is not None and not State(state).ended
                for state, score in zip(STATES, found, strict=True)
            )
            for happened in () if unfinished else self._watching.get(queue, {}).get(key, ()):
                happened.set()

    async def close(self) -> None:
        await cancel_all([task for task in (self._listener, self._looker) if task is not None])


async def wait_ended(store: Store, follower: Follower, queue: str, key: str, seconds: float) -> Job:
    """The job once it has ended, or as it is when the time is over. Raises NotFound."""
    if seconds <= 0:
        return await store.job(queue, key)
    async with follower.watch(queue, key) as happened:
        job = await store.job(queue, key)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not job.state.ended:
                    await happened.wait()
                    happened.clear()
                    try:
                        # Without payload and result: then many of them go into one call.
                        [seen] = await store.inspect(queue, [key])
                        if seen is None or seen.state.ended:
                            job = await store.job(queue, key)
                    except StoreUnavailable:
                        await asyncio.sleep(0.2)
                        happened.set()
        # As it is now: its progress, of which no event tells, may be another.
        return job if job.state.ended else await store.job(queue, key)


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _streams(read: Any) -> list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]:
    """XREAD's reply as a list of (stream, entries), whichever protocol it came by."""
    if not read:
        return []
    if isinstance(read, dict):
        return [
            (stream, parts[0] if len(parts) == 1 and isinstance(parts[0], list) else parts)
            for stream, parts in read.items()
        ]
    return [(stream, entries) for stream, entries in read]

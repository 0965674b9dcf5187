"""Holds the leases of a worker process, from a thread and a connection of its own.

So a handler that blocks the event loop does not lose them.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import redis
from redis import exceptions as redis_errors

from .clients import DEADLINE, is_outage
from .errors import SchedulerError
from .joining import Call
from .logs import get_logger
from .outcomes import Extend
from .store import Store
from .tasks import Pulse, cancel_all, forever

log = get_logger(__name__)

LOOP_DEAD = 60.0
"""Seconds without a turn of the event loop after which leases are not held any more: the process is lost."""

Held = Callable[[], list[tuple[str, list[Extend]]]]
"""The leases to hold, by queue, in batches. Called from the heartbeat's thread."""

Heard = Callable[[str, Sequence[Extend], Sequence[str]], None]
"""Told in the loop what each lease was answered."""


class BaseHeartbeat:
    """Extends every lease of the process at a third of its length, from a thread.

    Two heartbeats may be lost before a job is anybody else's.
    """

    def __init__(self, lease_ms: int, *, held: Held, heard: Heard) -> None:
        self._held, self._heard = held, heard
        self._period = lease_ms / 3000
        self._ended = threading.Event()
        self._awake = threading.Event()
        """Set to beat before the period is over, or to end."""
        self._turned = monotonic()
        self._thread: threading.Thread | None = None
        self._loop = asyncio.get_running_loop()
        self._loop_stands = False
        self.pulse = Pulse(
            "heartbeat",
            usual=lambda error: isinstance(error, SchedulerError) or is_outage(error),
            patience=2 * self._period,
            longest=min(0.5, self._period),
        )

    def extend(self, queue: str, held: list[Extend]) -> Sequence[str]:
        """What each of these leases is answered: running, cancel, stale or missing. In the thread."""
        raise NotImplementedError

    def close(self) -> None:
        """Closes what the thread has opened, in the thread."""

    def start(self) -> None:
        """Begins to beat."""
        self._thread = threading.Thread(target=self._beat_in_thread, name="heartbeat", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        self._ended.set()
        self._awake.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 0.1)

    def soon(self) -> None:
        """Beats now: a job of this worker may have been asked to stop."""
        self._awake.set()

    def loop_turned(self) -> None:
        """The event loop lives: to be called at least every few seconds."""
        self._turned = monotonic()

    def _beat_in_thread(self) -> None:
        try:
            self._beat_until_ended()
        finally:
            self.close()

    def _beat_until_ended(self) -> None:
        pause = self._period
        while True:
            self._awake.wait(pause)
            self._awake.clear()
            if self._ended.is_set():
                return
            if not self._loop_turns():
                # Soon: after a stop of the whole process both go on, and this thread may be the first.
                pause = min(0.5, self._period)
                continue
            try:
                self._beat()
            except Exception as error:  # noqa: BLE001 - this thread must outlive everything
                # Sooner than the next regular one: the leases go on running out.
                pause = self.pulse.failed(error)
            else:
                self.pulse.well()
                pause = self._period

    def _loop_turns(self) -> bool:
        stands = monotonic() - self._turned > LOOP_DEAD
        if stands and not self._loop_stands:
            log.error("the event loop stands still: leases are not held any more", seconds=LOOP_DEAD)
        self._loop_stands = stands
        return not stands

    def _beat(self) -> None:
        """Extends what is held. A queue that fails is not the others' trouble: its error is raised when all had their turn."""
        failed: Exception | None = None
        for queue, batch in self._held():
            try:
                reply = self.extend(queue, batch)
            except Exception as error:  # noqa: BLE001 - raised below
                failed = error
            else:
                self._loop.call_soon_threadsafe(self._heard, queue, batch, reply)
        if failed is not None:
            raise failed


class Heartbeat(BaseHeartbeat):
    """Heartbeats to a store, on a connection of their own."""

    def __init__(self, store: Store, lease_ms: int, *, held: Held, heard: Heard) -> None:
        super().__init__(lease_ms, held=held, heard=heard)
        self._store = store
        self._task: asyncio.Task[None] | None = None
        self._nudged = asyncio.Event()
        self._client: redis.Redis | None = None

    def start(self) -> None:
        """Begins to beat: in a thread, or for the in-memory server, which belongs to the loop, in a task."""
        if self._store.clients.fake:
            self._task = asyncio.create_task(forever(self.pulse, self._beat_in_loop), name="heartbeat")
        else:
            super().start()

    async def stop(self) -> None:
        await super().stop()
        if self._task is not None:
            await cancel_all([self._task])
        if self._client is not None:
            # Shuts its socket down: a call that hangs ends, and the thread with it.
            self._client.close()

    def extend(self, queue: str, held: list[Extend]) -> Sequence[str]:
        return self._extend(self._store.extend_call(queue, held))

    def _extend(self, call: Call[list[str]]) -> list[str]:
        if self._client is None:
            # A heartbeat that hangs leaves time for another one, also where the lease is short.
            self._client = self._store.clients.blocking(min(DEADLINE, max(0.5, self._period)))
        client: Any = self._client
        body, sha, keys = self._store.prepared(call)
        try:
            reply: Any = client.execute_command("EVALSHA", sha, len(keys), *keys, *call.args)
        except redis_errors.NoScriptError:
            reply = client.execute_command("EVAL", body, len(keys), *keys, *call.args)
        except redis_errors.ReadOnlyError:
            # The master was made a replica: the next connection may lead to the new one.
            client.connection_pool.disconnect()
            raise
        return call.read(reply)

    def soon(self) -> None:
        super().soon()
        self._nudged.set()

    async def _beat_in_loop(self) -> float:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._nudged.wait(), self._period)
        self._nudged.clear()
        failed: Exception | None = None
        for queue, batch in self._held():
            try:
                self._heard(queue, batch, await self._store.extend(queue, batch))
            except Exception as error:  # noqa: BLE001 - raised below
                failed = error
        if failed is not None:
            raise failed
        return 0.0

"""Tells a worker at once that a job of its own was asked to stop. A hint: the heartbeat finds it out by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from redis import exceptions as redis_errors

from .clients import Clients, best_effort, is_outage
from .logs import get_logger
from .tasks import Pulse, forever

log = get_logger(__name__)

PATIENCE = 5.0
"""Seconds of one look for a message: what hears nothing for that long pings, so that a black hole is noticed."""


def channel(namespace: str) -> str:
    """The channel of a namespace, on which ids of jobs are published that were asked to stop."""
    return f"{{{namespace}}}:stop"


class Nudges:
    """Publishes and hears, on a connection of its own, which running jobs were asked to stop."""

    def __init__(self, clients: Clients, namespace: str) -> None:
        self._clients, self._channel = clients, channel(namespace)
        self._refused = False
        self.pulse = Pulse("nudges", usual=is_outage, patience=30.0)

    async def send(self, ids: Iterable[str]) -> None:
        """Publishes ids of jobs. What is lost is found by the next heartbeat."""
        await best_effort(self._clients.commands.publish(self._channel, " ".join(ids)))

    async def hear(self, heard: Callable[[list[str]], None]) -> None:
        """Calls `heard` with the ids of each message until it is cancelled."""

        async def step() -> float:
            try:
                await self._listen(heard)
            except (redis_errors.NoPermissionError, redis_errors.ResponseError) as error:
                # A Redis user without rights on channels, or a server that has none.
                if not self._refused:
                    self._refused = True
                    log.info("running jobs hear of a cancel with the heartbeat only", error=str(error))
                return 60.0
            return 0.0

        await forever(self.pulse, step)

    async def _listen(self, heard: Callable[[list[str]], None]) -> None:
        async with self._clients.waits.pubsub() as listener:
            await listener.subscribe(self._channel)
            while True:
                message = await listener.get_message(ignore_subscribe_messages=True, timeout=PATIENCE)
                self.pulse.well()
                if message is None:
                    async with asyncio.timeout(PATIENCE):
                        await listener.ping()
                elif isinstance(message["data"], bytes):
                    heard(message["data"].decode(errors="replace").split())

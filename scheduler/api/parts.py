"""What handlers share: an application's parts and their keys, long polls, work behind the answer."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from aiohttp import web

from ..doorbell import Doorbell
from ..events import Follower
from ..logs import get_logger
from ..operations import Operations
from ..presence import Presence
from ..scheduling import Schedules
from ..schemas import Schemas
from ..served import Served
from ..settings import Settings
from ..store import Store

log = get_logger(__name__)

REQUEST_ID = web.RequestKey("request_id", str)
"""Under this a request keeps its id."""

ENQUEUED_ID = web.RequestKey("enqueued_id", str)
"""Under this a request keeps the id of the job that it is about to enqueue."""

IDEMPOTENT_BODY = web.RequestKey("idempotent_body", bytes)
"""Under this a request with an Idempotency-Key keeps its body."""

_OWN, _NUMBERS, GOOD_ID = uuid4().hex[:12], itertools.count(1), re.compile(r"[A-Za-z0-9._-]{1,128}")


def request_id(sent: str | None) -> str:
    """What a request is called: as its caller calls it, else a part of this process and a number."""
    return sent if sent is not None and GOOD_ID.fullmatch(sent) else f"{_OWN}-{next(_NUMBERS)}"


def stamp(response: web.StreamResponse, its_id: str | None = None) -> None:
    """Puts on what every answer has."""
    response.headers["X-Request-Id"] = its_id or request_id(None)
    response.headers["Server"] = "scheduler"
    response.headers["X-Content-Type-Options"] = "nosniff"


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How slow callers may be, in seconds and bytes a second, and how many."""

    headers: float = 10.0
    body: float = 10.0
    rate: float = 1024.0
    """How many bytes a second a body must bring on average, once it has taken longer than `body`."""
    idle: float = 75.0
    """How long a connection may do nothing, and how long an answer may be read at less than `rate`."""
    linger: float = 5.0
    """How long what was refused is still read, so that the caller gets the answer."""
    connections: int = 10_000
    """How many there may be at once, where the process may open so many files twice."""


class Polls:
    """The long polls of a process. They end early when it stops."""

    def __init__(self) -> None:
        self.stopping = False
        self._limits: set[asyncio.Timeout] = set()

    @asynccontextmanager
    async def at_most(self, seconds: float) -> AsyncIterator[None]:
        """Ends what stands in it after so long, or when the process stops; then goes on after it."""
        try:
            async with asyncio.timeout(0 if self.stopping else seconds) as limit:
                self._limits.add(limit)
                try:
                    yield
                finally:
                    self._limits.discard(limit)
        except TimeoutError:
            pass

    def stop(self) -> None:
        self.stopping = True
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())


class Behind:
    """Work that goes on when its caller was answered, or hung up. The process waits for it at its end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("work behind a request failed", error=str(error))

    async def finish(self, seconds: float = 5.0) -> None:
        """Waits for what is under way; what takes longer is cancelled."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                task.cancel()


STORE = web.AppKey("store", Store)
SETTINGS = web.AppKey("settings", Settings)
DOORBELL = web.AppKey("doorbell", Doorbell)
PRESENCE = web.AppKey("presence", Presence)
OPERATIONS = web.AppKey("operations", Operations)
SERVED = web.AppKey("served", Served)
SCHEMAS = web.AppKey("schemas", Schemas)
SCHEDULES = web.AppKey("schedules", Schedules)
FOLLOWER = web.AppKey("follower", Follower)
DEADLINES = web.AppKey("deadlines", Deadlines)
POLLS = web.AppKey("polls", Polls)
BEHIND = web.AppKey("behind", Behind)

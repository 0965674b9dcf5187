"""What a handler is given: who it works for, and a few plain calls, usable from any thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from .calling import BATCH
from .errors import Fault, Invalid, Snooze
from .job import Claimed, NewJob, new_key
from .settings import Settings

SHORTEST_SNOOZE = 0.1
"""Seconds: below that a snooze would be a busy loop through the server."""


MOST_PROGRESS = 65_536
"""Bytes of a progress."""


def _bounded(what: str, value: Any, most: int) -> bytes:
    encoded = msgspec.json.encode(value)
    if len(encoded) > most:
        raise ValueError(f"{what} has at most {most} bytes, this one has {len(encoded)}")
    return encoded


def _nothing() -> None:
    pass


class Context:
    """One attempt of one job, as its handler sees it."""

    __slots__ = ("_tell", "added", "began", "cancelled", "claimed", "lost", "parents", "settings", "stopping")

    def __init__(
        self, claimed: Claimed, tell: Callable[[Claimed, str, Any], None], settings: Settings
    ) -> None:
        self.claimed = claimed
        self._tell = tell
        self.settings = settings
        """Those of the worker."""
        self.cancelled = False
        """Somebody asked the job to stop, its lease was lost, or the worker ends: finish soon."""
        self.lost = False
        self.began: Callable[[], None] = _nothing
        """Called as the code of a handler with a process of its own begins."""
        self.added: list[NewJob] = []
        self.parents: dict[str, Any] = {}
        """Results of the jobs that this one waited for, by their name in the flow, else by id; None for one that left none."""
        self.stopping = False

    def take_parents(self, results: Mapping[str, bytes | None]) -> None:
        """Id -> result (JSON) of the jobs that this one waited for."""
        names = self.claimed.record.parents if self.claimed.record else {}
        self.parents = {names.get(i, i): msgspec.json.decode(r) if r else None for i, r in results.items()}

    def add(self, job: NewJob) -> str:
        """Adds a job, which comes in when this attempt succeeds, and only then; whoever waits for this one waits for it too.

        Made by `send.job(...)` or `app.new_job(...)`; at most 500 a run. Answers its id. Raises Invalid.
        """
        if job.after or job.unique is not None:
            raise Invalid([Fault("", "a job that is added waits for nothing, and is not unique")])
        if len(self.added) >= BATCH:
            raise Invalid([Fault("", f"one run adds at most {BATCH} jobs")])
        flow = self.claimed.record.header.get("flow", "") if self.claimed.record else ""
        job = replace(job, key=job.key or new_key(), flow=flow)
        self.added.append(job)
        self._tell(self.claimed, "add", job)
        return f"{job.queue}:{job.key}"

    @property
    def id(self) -> str:
        return self.claimed.id

    @property
    def queue(self) -> str:
        return self.claimed.queue

    @property
    def type(self) -> str:
        return self.claimed.record.type if self.claimed.record else ""

    @property
    def token(self) -> int:
        """Rises with every claim of the queue: for your own conditional writes."""
        return self.claimed.token

    @property
    def attempt(self) -> int:
        """This attempt, the first is 1."""
        return self.claimed.attempt

    @property
    def deadline(self) -> datetime:
        """When this attempt is stopped, by the server's clock: at its timeout, or at the job's deadline when that is earlier."""
        return datetime.fromtimestamp(self.claimed.timeout_ends_ms / 1000, UTC)

    @property
    def slot(self) -> datetime | None:
        """The time at which its schedule had it come due; None for a job of no schedule, or one that was triggered."""
        header = self.claimed.record.header if self.claimed.record else {}
        return datetime.fromtimestamp(header["slot"] / 1000, UTC) if "slot" in header else None

    @property
    def payload(self) -> bytes:
        """The payload's bytes as they were sent."""
        return (self.claimed.record.payload if self.claimed.record else None) or b""

    @property
    def checkpointed(self) -> Any:
        """What the attempt before left by `checkpoint`, or None."""
        return msgspec.json.decode(self.claimed.checkpoint) if self.claimed.checkpoint else None

    def pass_on(self, field: str, value: Any) -> None:
        """Tells what another process has made ready to be told."""
        if field == "add":
            self.added.append(value)
            return
        self._tell(self.claimed, field, value)

    def progress(self, value: Any) -> None:
        """Shows how far the job is: any JSON of at most 64 KiB, the newest stands. Raises ValueError beyond that."""
        self._tell(self.claimed, "progress", _bounded("progress", value, MOST_PROGRESS))

    def log(self, text: str) -> None:
        """Adds a line to the job's log; its newest 1,000 stay."""
        self._tell(self.claimed, "log", str(text).encode("utf-8", "replace")[:65_536])

    def checkpoint(self, data: Any) -> None:
        """Keeps data (any JSON) for the next attempt, should this one fail; the newest stands.

        Raises ValueError for more bytes than SCHEDULER_MAX_RESULT.
        """
        self._tell(self.claimed, "checkpoint", _bounded("a checkpoint", data, self.settings.max_result))

    def extend(self, seconds: float) -> None:
        """Asks for the lease to last that much longer from now; heartbeats go on besides."""
        if not 0 < seconds <= 12 * 3600:
            raise ValueError(f"extend takes more than 0 and at most 43200 seconds, not {seconds}")
        self._tell(self.claimed, "extend", round(seconds * 1000))

    def snooze(self, seconds: float) -> None:
        """Ends this attempt without using it: the job runs again in that many seconds. Raises always."""
        if not SHORTEST_SNOOZE <= seconds <= 3_652 * 86_400:
            raise ValueError(f"snooze takes 0.1 s to 10 years, not {seconds} s")
        raise Snooze(seconds)

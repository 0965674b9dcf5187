"""What workers tell of their jobs, and what the store answers: values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from .job import Claimed


@dataclass(frozen=True, slots=True)
class Ack:
    """The attempt did its work. `result` is JSON, or empty for none."""

    key: str
    token: int
    result: bytes = b""


@dataclass(frozen=True, slots=True)
class Nack:
    """The attempt failed. `retry_in_ms` overrules the policy's delay."""

    key: str
    token: int
    kind: str
    message: str
    trace: str = ""
    retry_in_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Bury:
    """The attempt must not be repeated: dead at once by `reason`."""

    key: str
    token: int
    kind: str
    message: str
    trace: str = ""
    reason: str = "permanent"


@dataclass(frozen=True, slots=True)
class Release:
    """The job is given back unfinished. `why` is empty, snooze or no_handler."""

    key: str
    token: int
    delay_ms: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Extend:
    """The attempt goes on."""

    key: str
    token: int
    lease_ms: int


@dataclass(frozen=True, slots=True)
class Note:
    """What a handler tells: `field` is progress, checkpoint or log."""

    key: str
    token: int
    field: str
    value: bytes


Settlement = Ack | Nack | Bury | Release


@dataclass(frozen=True, slots=True)
class Enqueued:
    """What became of a new job. `outcome` is ready, scheduled, exists or conflict."""

    id: str
    outcome: str
    created_at: int
    run_at: int | None
    new_queue: bool = False
    """Its queue begins with it, and is to be registered."""

    @property
    def created(self) -> bool:
        return self.outcome in {"ready", "scheduled"}


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim gave, how long to wait before the next one, and whether the queue's sweep is due."""

    jobs: list[Claimed]
    wait_ms: int
    sweep: bool


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did, and in how many ms to come back. `done` is False when none was due."""

    reclaimed: int
    more: bool
    wait_ms: int
    uneven: bool
    done: bool


@dataclass(frozen=True, slots=True)
class Census:
    """A queue at a glance. Times are ms."""

    now: int
    counts: Mapping[str, int]
    oldest_ready_at: int | None
    config: Mapping[str, str]
    counters: Mapping[str, str]

    @property
    def version(self) -> int:
        return int(self.config.get("version", 0))


@dataclass(frozen=True, slots=True)
class TypePolicy:
    """What is set for a type of a queue. `retry` is as stored (ms)."""

    timeout_ms: int | None = None
    retry: Mapping[str, Any] | None = None

    def record(self) -> bytes:
        """As `types` keeps it; empty when nothing is said."""
        if self.timeout_ms is None and not self.retry:
            return b""
        body = orjson.dumps({"retry": self.retry}) if self.retry else b"{}"
        return b"%s|\n%s" % (b"" if self.timeout_ms is None else b"%d" % self.timeout_ms, body)


def parse_type(record: bytes) -> TypePolicy:
    """A record of `types`; nothing said for an empty or damaged one."""
    line, _, body = record.partition(b"\n")
    timeout = line.partition(b"|")[0]
    try:
        return TypePolicy(
            int(timeout) if timeout else None, orjson.loads(body).get("retry") if body else None
        )
    except ValueError:
        return TypePolicy()


@dataclass(frozen=True, slots=True)
class Fault:
    """A finding of verify: which id, what is wrong with it, whether it was put right."""

    id: str
    what: str
    repaired: bool

"""Jobs as values: what somebody wants done, what a worker was given, what is known of one."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import zlib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import orjson
from msgspec import Struct
from msgspec.structs import astuple

from . import retry as retry_policy
from .errors import Fault, Invalid
from .keys import JOB_KEY, QUEUE_NAME
from .limits import COSTLIEST
from .times import rfc3339, seconds

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    from uuid_utils import uuid7

TYPE_NAME = QUEUE_NAME
WORKER_NAME = re.compile(r"[A-Za-z0-9._:@-]{1,128}")
TRACEPARENT = re.compile(r"[!-~]{1,256}")
LONGEST_DELAY_MS = 3_652 * 86_400_000
"""Ten years: as far as a job can be scheduled."""


class State(StrEnum):
    """Where a job can stand, each one set."""

    SCHEDULED = "scheduled"
    BLOCKED = "blocked"
    READY = "ready"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"
    DEAD = "dead"

    @property
    def ended(self) -> bool:
        return self in {State.SUCCEEDED, State.CANCELLED, State.DEAD} or getattr(self, "_beyond", False)

    @classmethod
    def named(cls, name: str, *, ended: bool) -> State:
        """The state of this name. One that this release does not know, of a newer server, is kept as it is called."""
        try:
            return cls(name)
        except ValueError:
            made = str.__new__(cls, name)
            made.__dict__.update(_name_=name.upper(), _value_=name, _beyond=ended)
            return made


def new_key() -> str:
    """A job's key: UUIDv7, so that keys sort by the time they were made."""
    return str(uuid7())


def split_id(job_id: str) -> tuple[str, str] | None:
    """Queue and key of a job id, or None when it is none."""
    queue, colon, key = job_id.partition(":")
    if not colon or not QUEUE_NAME.fullmatch(queue) or not JOB_KEY.fullmatch(key):
        return None
    return queue, key


def hold_of(queue: str, key: str) -> str:
    """What a job that is held waits for, beside other jobs: that somebody opens it."""
    return f"{queue}:={key}"


MOST_AFTER = 1_000
"""Jobs that one may name whose end it waits for."""

ON_FAILURE = ("cancel", "continue", "wait", "failure")
"""What may happen to a job when one that it waits for does not succeed; `failure`: it runs then, and only then."""

CONFLICTS = ("return", "reject", "replace", "debounce")
"""What may happen to a job that waits, when another of its unique key is enqueued."""


class Unique(Struct, frozen=True, kw_only=True, gc=False):
    """Of jobs that share a key within a queue there is one at a time, from its enqueueing on."""

    key: str = ""
    """Empty: made of the job's type and payload."""
    for_ms: int | None = None
    until: str = ""
    """To its `start` or its `end`. Empty: its end; with `for_ms` only the time counts, whatever becomes of the job."""
    on_conflict: str = "return"

    @property
    def changes(self) -> bool:
        """A conflict changes the standing job, so that the order of two requests matters."""
        return self.on_conflict in {"replace", "debounce"}

    def rules(self, key: str) -> list[str]:
        """As the script takes it."""
        found = [f"unique:{key}", f"conflict:{self.on_conflict}"]
        if self.for_ms is not None:
            found.append(f"for:{self.for_ms}")
        if self.until:
            found.append(f"until:{self.until}")
        return found


def _alike(type: str, payload: bytes) -> str:
    """32 digits, the same for a type's payloads that are the same JSON: spaces and the order of fields do not count.

    A number with a point or an exponent counts as it is written, so that none is rounded.
    """
    try:
        # Half a surrogate pair begins no text of a payload.
        loaded = json.loads(payload, parse_float="\ud800{}".format)
        text = json.dumps(loaded, sort_keys=True).encode()
    except (ValueError, RecursionError):
        text = payload
    return hashlib.blake2b(text, digest_size=16, key=type.encode()[:64]).hexdigest()


class NewJob(Struct, frozen=True, kw_only=True, gc=False):
    """A job somebody wants done. It has no state yet. Durations and times are milliseconds."""

    type: str
    payload: bytes = b"{}"
    queue: str = "default"
    key: str = ""
    priority: int = 0
    delay_ms: int | None = None
    run_at_ms: int | None = None
    group: str | None = None
    tags: Sequence[str] = ()
    timeout_ms: int | None = None
    retry: Mapping[str, Any] | None = None
    """As stored: durations in ms."""
    retention_ms: int | None = None
    cost: int = 1
    """How much of a rate its start uses."""
    unique: Unique | None = None
    deadline_ms: int | None = None
    """When it must have ended."""
    deadline_in_ms: int | None = None
    """The same as a duration from its enqueueing on."""
    expires_in_ms: int | None = None
    """How long it may wait for its first start."""
    traceparent: str | None = None
    copied_from: str | None = None
    after: Sequence[str] = ()
    """Ids of the jobs whose end it waits for."""
    on_failure: str = ""
    """What happens when one of them does not succeed: cancel (empty: that), continue, wait, or run on failure."""
    before: Sequence[str] = ()
    """Ids of those that are known to wait for it from the first; of a flow with = before its key."""
    joins: Sequence[str] = ()
    """Ids of blocked jobs that are to wait for it as well."""
    hold: bool = False
    """It is blocked until it is opened, whatever it waits for besides."""
    gate: str = ""
    """The flow, with = before its key, whose opening it waits for."""
    linked: bool = False
    """Those it waits for know of it, or will when they come in."""
    flow: str = ""
    """The id of its flow."""
    flow_name: str = ""
    """Its name in that flow."""
    after_names: Sequence[str] = ()
    """The names there of `after`."""
    schedule: str | None = None
    """The name of the schedule that it is of."""
    own_key: str = ""
    """The key, where it was made for this request: then nobody else can have made a job of that key."""
    call: str = ""
    """Letters and digits that tell this call from every other with the same key. No part of the request."""

    @property
    def own(self) -> bool:
        """Its key was made for this request."""
        return bool(self.own_key) and self.own_key == self.key

    def rules(self) -> str:
        """What decides beside priority and time when it runs, as the script takes it; empty for nothing."""
        tied = self.after or self.before or self.joins or self.gate or self.hold
        if not self.group and self.cost == 1 and not self.timed and self.unique is None and not tied:
            return f"call:{self.call}" if self.call else ""
        rules = [f"group:{self.group}"] if self.group else []
        if self.cost != 1:
            rules.append(f"cost:{self.cost}")
        if self.deadline_ms is not None:
            rules.append(f"deadline:{max(0, self.deadline_ms)}")
        if self.deadline_in_ms is not None:
            rules.append(f"deadline:+{self.deadline_in_ms}")
        if self.expires_in_ms is not None:
            rules.append(f"expires:+{self.expires_in_ms}")
        if self.unique is not None:
            rules += self.unique.rules(self.unique_key)
        if tied:
            gates = [self.gate] if self.gate else []
            if self.hold:
                gates.append(hold_of(self.queue, self.key))
            rules += [f"after:{its_id}" for its_id in (*gates, *self.after)]
            rules += [f"before:{its_id}" for its_id in (*self.before, *self.joins)]
            if self.on_failure:
                rules.append(f"failure:{self.on_failure}")
            if (self.linked and not self.gate) or (self.hold and not self.after):
                rules.append("linked:1")
        if self.call:
            rules.append(f"call:{self.call}")
        return " ".join(rules)

    @property
    def timed(self) -> bool:
        """It has a deadline or an expiry."""
        return (
            self.deadline_ms is not None or self.deadline_in_ms is not None or self.expires_in_ms is not None
        )

    @property
    def unique_key(self) -> str:
        """The key that no other such job may have; empty for a job that is not unique."""
        if self.unique is None:
            return ""
        return self.unique.key or _alike(self.type, self.payload)

    def header(self) -> bytes:
        """What differs from the defaults and no hot script reads, as JSON; empty for nothing."""
        kept: dict[str, Any] = {}
        for name in ("group", "tags", "retry", "traceparent", "copied_from", "schedule"):
            value = getattr(self, name)
            if value:
                kept[name] = list(value) if name == "tags" else dict(value) if name == "retry" else value
        if self.after:
            kept["after"] = list(self.after)
            if self.after_names:
                kept["names"] = list(self.after_names)
        if self.hold:
            kept["hold"] = True
        if self.flow:
            kept["flow"], kept["name"] = self.flow, self.flow_name
        return orjson.dumps(kept) if kept else b""

    def fingerprint(self) -> str:
        """What makes two requests the same: everything that was asked for, but not its trace."""
        if (
            self.delay_ms is None
            and self.run_at_ms is None
            and not (self.group or self.tags or self.retry or self.timeout_ms or self.copied_from)
            and self.retention_ms is None
            and self.cost == 1
            and self.unique is None
            and not self.timed
            and not self.after
            and not self.joins
            and not self.hold
            and not self.flow
        ):
            rest = b"%d" % self.priority
        else:
            rest = repr((
                self.priority, self.delay_ms, self.run_at_ms, self.group, tuple(self.tags), self.timeout_ms,
                sorted(self.retry.items()) if self.retry else None, self.retention_ms, self.copied_from,
                *(() if self.cost == 1 else ("cost", self.cost)),
                *(() if self.unique is None else ("unique", *astuple(self.unique))),
                *(("times", self.deadline_ms, self.deadline_in_ms, self.expires_in_ms) if self.timed else ()),
                *(("after", tuple(self.after), self.on_failure) if self.after else ()),
                *(("batch", tuple(self.joins), self.hold, self.on_failure) if self.joins or self.hold else ()),
                *(("flow", self.flow, self.flow_name) if self.flow else ()),
            )).encode()  # fmt: skip
        digest = hashlib.blake2b(rest, digest_size=8, key=self.type.encode()[:64])
        digest.update(b"\0" + self.payload)
        return digest.hexdigest()


def checksum(payload: bytes) -> str:
    """CRC-32 of a payload, kept beside it: a record that was damaged is told from one that was not."""
    return f"{zlib.crc32(payload):08x}"


class Record(Struct, frozen=True, gc=False):
    """A job as it is stored."""

    type: str
    timeout_ms: int | None
    flags: str
    created_ms: int
    priority: int
    fingerprint: str
    crc: str
    header: Mapping[str, Any]
    payload: bytes | None

    @property
    def intact(self) -> bool:
        """The payload is the one that was stored."""
        return self.payload is not None and (not self.crc or self.crc == checksum(self.payload))

    @property
    def cost(self) -> int:
        return int(self.rule("c") or 1)

    @property
    def retention_ms(self) -> int | None:
        found = re.match(r"r(\d+)", self.flags)
        return int(found[1]) if found else None

    def rule(self, letter: str) -> str | None:
        """A rule of the job that stands in its flags, such as "c" (cost), or None."""
        found = re.search(rf"(?:^| ){letter}:(\S+)", self.flags)
        return found[1] if found else None

    @property
    def parents(self) -> dict[str, str]:
        """Of the jobs that it waits for, in a flow: id -> name there."""
        return dict(zip(self.header.get("after", ()), self.header.get("names", ()), strict=False))

    @property
    def deadline_ms(self) -> int | None:
        """When it must have ended."""
        return int(self.rule("d") or 0) or None if self.flags else None

    @property
    def expires_ms(self) -> int | None:
        """When it must have started."""
        return int(self.rule("x") or 0) or None if self.flags else None


def parse_record(text: bytes) -> Record | None:
    """A stored record, with `payload` None when only its head was read; None when it is damaged."""
    head, newline, rest = text.partition(b"\n")
    header, second, payload = rest.partition(b"\n")
    parts = head.split(b"|")
    if not newline or len(parts) != 7:
        return None
    try:
        return Record(
            type=parts[0].decode(),
            timeout_ms=int(parts[1]) if parts[1] else None,
            flags=parts[2].decode(),
            created_ms=int(parts[3]),
            priority=int(parts[4] or 0),
            fingerprint=parts[5].decode(),
            crc=parts[6].decode(),
            header=orjson.loads(header) if header else {},
            payload=payload if second else None,
        )
    except ValueError:
        return None


class Attempt(Struct, frozen=True, gc=False):
    """One line of a job's errors: the attempt, what went wrong, when (ms), what came next."""

    attempt: int
    kind: str
    message: str
    at_ms: int
    next: str
    trace: str | None = None


class Course(Struct, frozen=True, gc=False):
    """What is kept of a job's former runs."""

    attempt: int = 0
    crashes: int = 0
    snoozes: int = 0
    token: int = 0
    verb: str = ""
    to: str = ""
    started_ms: int | None = None
    worker: str | None = None
    reason: str | None = None
    fingerprint: str | None = None
    errors: tuple[Attempt, ...] = ()


def parse_course(text: bytes) -> Course:
    """The record of a job's former runs; zeros for an empty or damaged one."""
    line, _, rest = text.partition(b"\n")
    parts = line.decode(errors="replace").split("|")
    if len(parts) not in {11, 12}:
        return Course()
    try:
        return Course(
            attempt=int(parts[0]),
            crashes=int(parts[1]),
            snoozes=int(parts[2]),
            token=int(parts[3]),
            verb=parts[4],
            to=parts[5],
            started_ms=int(parts[6]) if parts[6] else None,
            worker=parts[7] or None,
            reason=parts[8] or None,
            fingerprint=parts[11] if len(parts) == 12 else None,
            errors=tuple(_attempts(rest)),
        )
    except ValueError:
        return Course()


def _attempts(text: bytes) -> list[Attempt]:
    found = []
    for line in text.split(b"\n"):
        if line:
            raw = orjson.loads(line.decode(errors="replace"))
            found.append(
                Attempt(raw["attempt"], raw["kind"], raw["message"], raw["at"], raw["next"], raw.get("trace"))
            )
    return found


class Claimed(Struct, frozen=True, gc=False):
    """A job in a worker's hands."""

    queue: str
    key: str
    token: int
    attempt: int
    lease_ends_ms: int
    timeout_ends_ms: int
    timeout_ms: int
    """What was left of its timeout when the claim was answered."""
    record: Record | None
    former: bytes = b""
    """The record of its former runs."""
    checkpoint: bytes = b""
    """What a former attempt left by `ctx.checkpoint`."""

    @property
    def id(self) -> str:
        return f"{self.queue}:{self.key}"

    @property
    def crashes(self) -> int:
        """Run-out leases in a row before this run: it may end its worker again."""
        parts = self.former.split(b"|", 2) if self.former else ()
        return int(parts[1]) if len(parts) > 2 and parts[1].isdigit() else 0

    @property
    def ends_by_deadline(self) -> bool:
        """What ends its time is the job's deadline, not the timeout of the attempt."""
        return self.record is not None and self.record.deadline_ms == self.timeout_ends_ms


class Job(Struct, frozen=True):
    """Everything that is known of one job. Times are ms since 1970, durations ms."""

    id: str
    queue: str
    type: str
    state: State
    reason: str | None
    payload: bytes | None
    priority: int
    group: str | None
    tags: tuple[str, ...]
    attempt: int
    max_attempts: int
    crashes: int
    snoozes: int
    token: int
    timeout_ms: int
    created_at: int
    run_at: int | None
    started_at: int | None
    finished_at: int | None
    lease_expires_at: int | None
    worker: str | None
    progress: bytes | None
    result: bytes | None
    errors: tuple[Attempt, ...]
    traceparent: str | None
    copied_from: str | None
    edits: tuple[tuple[int, bytes], ...] = ()
    header: bytes = b""
    own_timeout_ms: int | None = None
    """What it was given of its own, where `timeout_ms` is what is in force."""
    retention_ms: int | None = None
    cost: int = 1
    unique: str | None = None
    """Its unique key."""
    deadline_ms: int | None = None
    expires_ms: int | None = None
    after: Sequence[str] = ()
    """Ids of the jobs whose end it waits for, or waited."""
    on_failure: str | None = None
    """What happens, or happened, when one of them does not succeed."""
    hold: bool = False
    """It was enqueued to wait until it is opened."""
    flow: str | None = None
    flow_name: str | None = None
    """Its name there; None for one that another job of the flow has added."""
    fingerprint: str | None = None
    """Of a dead one: 16 hexadecimal digits, the same for all that died alike (lua/lib/fingerprint.lua)."""
    schedule: str | None = None
    """The name of the schedule that made it."""
    cancel_requested_at: int | None = None
    """When a running job was asked to stop (ms)."""

    @property
    def failure(self) -> tuple[str, str]:
        """Kind and message of what it died of: its last error, else the reason alone."""
        last = self.errors[-1] if self.errors else None
        return (last.kind, last.message) if last else (self.reason or "", "")

    def like(self, key: str = "") -> NewJob:
        """A new job like this one, without its times (deadline and expiry too), and without a payload when that is gone."""
        return NewJob(
            type=self.type,
            payload=self.payload or b"",
            queue=self.queue,
            key=key,
            priority=self.priority,
            group=self.group,
            tags=self.tags,
            timeout_ms=self.own_timeout_ms,
            retry=orjson.loads(self.header).get("retry") if self.header else None,
            retention_ms=self.retention_ms,
            cost=self.cost,
            copied_from=self.id,
        )

    def document(
        self, *, include: frozenset[str] = frozenset({"payload", "result", "trace"})
    ) -> dict[str, Any]:
        """The job as API documents show it; orjson writes it."""
        document: dict[str, Any] = {
            "id": self.id, "queue": self.queue, "type": self.type, "state": self.state.value, "reason": self.reason,
            "payload": raw_json(self.payload), "priority": self.priority, "group": self.group, "tags": self.tags,
            "attempt": self.attempt, "max_attempts": self.max_attempts, "crashes": self.crashes,
            "snoozes": self.snoozes, "token": self.token,
            "timeout": seconds(self.timeout_ms), "deadline": _time(self.deadline_ms), "expires_at": _time(self.expires_ms),
            "created_at": rfc3339(self.created_at), "run_at": _time(self.run_at), "started_at": _time(self.started_at),
            "finished_at": _time(self.finished_at), "lease_expires_at": _time(self.lease_expires_at),
            "worker": self.worker, "progress": raw_json(self.progress), "result": raw_json(self.result),
            "errors": [
                {"attempt": e.attempt, "kind": e.kind, "message": e.message, "at": rfc3339(e.at_ms), "next": e.next}
                | ({"trace": e.trace} if e.trace and "trace" in include else {})
                for e in self.errors
            ],
            "after": self.after, "schedule": self.schedule, "traceparent": self.traceparent,
            "cancel_requested_at": _time(self.cancel_requested_at),
        }  # fmt: skip
        if (self.after or self.hold) and self.on_failure:
            document["on_failure"] = self.on_failure
        if self.hold:
            document["hold"] = True
        if self.flow:
            document["flow"] = self.flow
        if self.flow_name:
            document["flow_name"] = self.flow_name
        for name in ("payload", "result"):
            if name not in include:
                del document[name]
        if self.cost != 1:
            document["cost"] = self.cost
        if self.unique:
            document["unique"] = {"key": self.unique}
        if self.copied_from:
            document["copied_from"] = self.copied_from
        if self.edits and "payload" in include:
            document["edits"] = [{"at": rfc3339(at), "payload": raw_json(text)} for at, text in self.edits]
        return document


def _time(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)


def raw_json(text: bytes | None) -> Any:
    """JSON that is passed on byte for byte; null for none, and the text as a string when it is no JSON."""
    if text is None or text == b"":
        return None
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        if not _deep_or_wide(text):
            return text.decode(errors="replace")
    return orjson.Fragment(text)


def _deep_or_wide(text: bytes) -> bool:
    # What orjson refuses although it is JSON: numbers beyond a double. The standard library keeps them.
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def faults_of(job: NewJob, *, max_payload: int) -> list[Fault]:
    """What no door lets through, whoever calls; paths are those of a new job's document."""
    found = []
    if not TYPE_NAME.fullmatch(job.type):
        found.append(Fault("/type", "1 to 64 letters, digits, '.', '_' or '-', a letter or digit first"))
    if not QUEUE_NAME.fullmatch(job.queue):
        found.append(Fault("/queue", "1 to 64 letters, digits, '.', '_' or '-', a letter or digit first"))
    if job.key and not JOB_KEY.fullmatch(job.key):
        found.append(Fault("/id", "1 to 128 letters, digits, '.', '_' or '-' (or <queue>: and such a key)"))
    if not -100 <= job.priority <= 100:
        found.append(Fault("/priority", "expected a whole number from -100 to 100"))
    if job.delay_ms is not None and job.run_at_ms is not None:
        found.append(Fault("/run_at", "give delay or run_at, not both"))
    if job.delay_ms is not None and not 0 <= job.delay_ms <= LONGEST_DELAY_MS:
        found.append(Fault("/delay", "at most 10 years"))
    if job.group is not None and not JOB_KEY.fullmatch(job.group):
        found.append(Fault("/group", "1 to 128 letters, digits, '.', '_' or '-'"))
    if job.traceparent is not None and not TRACEPARENT.fullmatch(job.traceparent):
        found.append(
            Fault(
                "/traceparent", "1 to 256 characters of ASCII without spaces, as W3C's trace context has it"
            )
        )
    if len(job.tags) > 32:
        found.append(Fault("/tags", "at most 32 tags"))
    found += [
        Fault(f"/tags/{n}", "1 to 128 letters, digits, '.', '_' or '-'")
        for n, tag in enumerate(job.tags)
        if not isinstance(tag, str) or not JOB_KEY.fullmatch(tag)
    ]
    if job.timeout_ms is not None and not 1 <= job.timeout_ms <= retry_policy.LONGEST_TIMEOUT_MS:
        found.append(Fault("/timeout", "more than 0 and at most 7 days"))
    if job.deadline_ms is not None and job.deadline_in_ms is not None:
        found.append(Fault("/deadline", "a time or a duration, not both"))
    for path, span in (("/deadline", job.deadline_in_ms), ("/expires_in", job.expires_in_ms)):
        if span is not None and not 1 <= span <= LONGEST_DELAY_MS:
            found.append(Fault(path, "more than 0 and at most 10 years"))
    if job.retention_ms is not None and not 0 <= job.retention_ms <= LONGEST_DELAY_MS:
        found.append(Fault("/retention", "at most 10 years"))
    if not 1 <= job.cost <= COSTLIEST:
        found.append(Fault("/cost", f"expected a whole number from 1 to {COSTLIEST}"))
    if job.unique is not None:
        found += _faults_of_unique(job.unique)
    if job.after or job.joins or job.on_failure:
        found += _faults_of_ties(job)
    if len(job.payload) > max_payload:
        found.append(Fault("/payload", f"{len(job.payload)} bytes; at most {max_payload} are taken"))
    return found


def _faults_of_ties(job: NewJob) -> list[Fault]:
    found = [
        fault
        for name, ids in (("after", job.after), ("before", job.joins))
        for fault in _faults_of_ids(job, name, ids)
    ]
    if job.on_failure and job.on_failure not in ON_FAILURE:
        found.append(Fault("/on_failure", f"expected {', '.join(ON_FAILURE[:-1])} or {ON_FAILURE[-1]}"))
    elif job.on_failure and not (job.after or job.hold):
        found.append(
            Fault("/on_failure", "it says what happens when a job of `after` does not succeed: name one")
        )
    return found


def _faults_of_ids(job: NewJob, name: str, ids: Sequence[str]) -> list[Fault]:
    if len(ids) > MOST_AFTER:
        return [Fault(f"/{name}", f"at most {MOST_AFTER:,} jobs, these are {len(ids):,}")]
    found, seen = [], set[str]()
    for n, its_id in enumerate(ids):
        if not isinstance(its_id, str) or split_id(its_id) is None:
            found.append(Fault(f"/{name}/{n}", "the id of a job: <queue>:<key>"))
        elif its_id in seen:
            found.append(Fault(f"/{name}/{n}", f"{its_id} is named twice"))
        elif its_id == f"{job.queue}:{job.key}":
            found.append(Fault(f"/{name}/{n}", "a job cannot wait for itself"))
        seen.add(str(its_id))
    return found


def _faults_of_unique(unique: Unique) -> list[Fault]:
    found = []
    if unique.key and not JOB_KEY.fullmatch(unique.key):
        found.append(Fault("/unique/key", "1 to 128 letters, digits, '.', '_' or '-'"))
    if unique.for_ms is not None and not 1 <= unique.for_ms <= LONGEST_DELAY_MS:
        found.append(Fault("/unique/for", "more than 0 and at most 10 years"))
    if unique.until not in {"", "start", "end"}:
        found.append(Fault("/unique/until", "expected start or end"))
    if unique.on_conflict not in CONFLICTS:
        found.append(Fault("/unique/on_conflict", f"expected {', '.join(CONFLICTS[:-1])} or {CONFLICTS[-1]}"))
    return found


def deadline_passed() -> Invalid:
    """What a new job is refused with whose deadline lies in the past: only the server's clock knows."""
    return Invalid([Fault("/deadline", "it has passed, by the server's clock")])


def check(job: NewJob, *, max_payload: int) -> None:
    """Raises Invalid with every fault of a new job."""
    if found := faults_of(job, max_payload=max_payload):
        raise Invalid(found)

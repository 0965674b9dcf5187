"""What workers tell of their jobs, and what the store answers: values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from msgspec import Struct

from .errors import Duplicate, Invalid, KeyTaken
from .errors import Fault as Wrong
from .job import Claimed, NewJob, deadline_passed
from .limits import Breaker, Rate, Unlimited, breaker_of_text, limits_text, parse_limits, rate_of_text
from .times import rfc3339, seconds

DEFAULT_RETENTION: Mapping[str, Mapping[str, int]] = {
    "succeeded": {"age": 86_400, "count": 100_000},
    "cancelled": {"age": 86_400, "count": 100_000},
    "dead": {"age": 2_592_000},
}
"""What lua/lib/excess.lua keeps where nothing is set, as documents show it."""

DEFAULT_STEP, STRICT_STEP = 60_000_000, 60_000_000_000_000
"""Microseconds of waiting that a level of priority is worth: where nothing is set, and so many that none ages."""

KEPT = ("age", "count", "bytes")
"""What a retention may limit."""


class Ack(Struct, frozen=True, gc=False):
    """The attempt did its work. `result` is JSON, or empty for none.

    `added` are jobs that come in with it: whoever waits for this job waits for them as well.
    """

    key: str
    token: int
    result: bytes = b""
    added: Sequence[NewJob] = ()


class Nack(Struct, frozen=True, gc=False):
    """The attempt failed. `retry_in_ms` overrules the policy's delay.

    With a `scope`, type or group, no other run of the job's type or group starts for that long either.
    """

    key: str
    token: int
    kind: str
    message: str
    trace: str = ""
    retry_in_ms: int | None = None
    scope: str = ""
    where: str = ""
    """The last frame of the user's own code, for the log; it is not sent."""


class Bury(Struct, frozen=True, gc=False):
    """The attempt must not be repeated: dead at once by `reason`."""

    key: str
    token: int
    kind: str
    message: str
    trace: str = ""
    reason: str = "permanent"
    where: str = ""


class Release(Struct, frozen=True, gc=False):
    """The job is given back unfinished. `why` is empty, snooze or no_handler."""

    key: str
    token: int
    delay_ms: int = 0
    why: str = ""


class Extend(Struct, frozen=True, gc=False):
    """The attempt goes on."""

    key: str
    token: int
    lease_ms: int


class Note(Struct, frozen=True, gc=False):
    """What a handler tells: `field` is progress, checkpoint or log.

    `seq` numbers the log lines of a run, so that one which is told twice stands once; 0 for none.
    """

    key: str
    token: int
    field: str
    value: bytes
    seq: int = 0


class LogLine(Struct, frozen=True, gc=False):
    """A line of a job's log: where it stands, when it came (ms), what it says."""

    place: str
    at_ms: int
    text: str


Settlement = Ack | Nack | Bury | Release


class Enqueued(Struct, frozen=True, gc=False):
    """What became of a new job. `outcome` is the state it is in, exists, conflict, full or past (its deadline).

    It is "again" where a former try of the same call, whose reply was lost, has made it: that is a new job too.

    Of a unique one whose key another job holds it is held, changed (that job was) or taken (it was to be refused then).
    """

    id: str
    """Of the job that stands."""
    outcome: str
    created_at: int
    run_at: int | None
    new_queue: bool = False
    """Its queue begins with it, and is to be registered."""

    @property
    def created(self) -> bool:
        # One that waits for others may be further by the time that this is told.
        return self.outcome not in {"exists", "conflict", "full", "past", "held", "changed", "taken"}

    @property
    def refusal(self) -> Duplicate | None:
        """What the caller is to be told where the job is refused for another that stands."""
        if self.outcome == "conflict":
            return Duplicate(self.id)
        return KeyTaken(self.id) if self.outcome == "taken" else None


def refusal_of_added(outcome: str, its_id: str) -> Duplicate | Invalid | None:
    """Why an ack cannot bring a job with it, as lua/ack_add.lua answers; None where nothing is wrong, or only room is missing."""
    if outcome == "conflict":
        return Duplicate(its_id)
    if outcome == "past":
        return deadline_passed()
    if outcome == "wide":
        return Invalid(
            [
                Wrong(
                    "", f"too many wait for {its_id}: they, times the jobs that it adds, are more than 20,000"
                )
            ]
        )
    return None


class Remembered(Struct, frozen=True):
    """The request that stands under an Idempotency-Key, the seed of its ids, and what it was answered, once it was."""

    fingerprint: str
    seed: str
    answer: bytes | None


class Parent(Struct, frozen=True, gc=False):
    """A job that another waits for: the state it ended in and when it was said (us), None until then, and its result."""

    id: str
    order: int | None
    state: str | None
    result: bytes


class Parents(Struct, frozen=True):
    """A page of what a job waits for, and how many of all have still to end, succeeded, and ended otherwise."""

    cursor: str
    pending: int
    succeeded: int
    failed: int
    items: Sequence[Parent]


class Flow(Struct, frozen=True):
    """A flow as it stands: running, succeeded, failed or cancelled. Times are ms."""

    id: str
    state: str
    on_failure: str
    created_at: int
    opened_at: int | None
    finished_at: int | None
    cancel_asked: bool
    total: int
    pending: int
    succeeded: int
    failed: int


class Claim(Struct, frozen=True):
    """What a claim gave, and what is due: the wait before the next one (ms), a sweep, word for those who wait for jobs that ended."""

    jobs: list[Claimed]
    wait_ms: int
    sweep: bool
    relay: bool = False


class Swept(Struct, frozen=True):
    """What a sweep did, and in how many ms to come back. `done` is False when none was due."""

    reclaimed: int
    more: bool
    wait_ms: int
    uneven: bool
    done: bool
    jobs: Sequence[tuple[str, str, str]] = ()
    """Of each job that was reclaimed: key, the state that it is in now, the worker whose lease it was."""


class Census(Struct, frozen=True):
    """A queue at a glance. Times are ms."""

    now: int
    counts: Mapping[str, int]
    oldest_ready_at: int | None
    config: Mapping[str, str]
    counters: Mapping[str, str]

    @property
    def version(self) -> int:
        return int(self.config.get("version", 0))


def queue_document(queue: str, census: Census, workers: int) -> dict[str, Any]:
    """A queue as documents show it. What this release does not know is null."""
    since = census.oldest_ready_at
    kept = {state: _kept(census.config, state) for state in DEFAULT_RETENTION}
    return {
        "queue": queue,
        "counts": census.counts,
        "oldest_wait": None if since is None else seconds(max(0, census.now - since)),
        "paused": "paused" in census.config,
        "draining": "draining" in census.config,
        "retention": {state: limits for state, limits in kept.items() if limits},
        "priority_mode": _priority_mode(census.config.get("step")),
        "in_force": {
            "retention": {state: {**DEFAULT_RETENTION[state], **limits} for state, limits in kept.items()},
            "priority_mode": _priority_mode(census.config.get("step", str(DEFAULT_STEP))),
        },
        **{field: _rate(census.config.get(field, "")) for field in ("rate", "group_rate")},
        **{field: _whole(census.config.get(field)) for field in ("concurrency", "group_concurrency")},
        **{field: _whole(census.config.get(field)) for field in ("max_length", "max_bytes")},
        "partitions": 1,
        "workers": workers,
    }


def _rate(text: str) -> dict[str, Any] | None:
    found = rate_of_text(text)
    return None if found is None else found.document()


def _whole(text: str | None) -> int | None:
    return None if text is None else int(text)


def _priority_mode(step: str | None) -> Any:
    if step is None:
        return None
    return "strict" if int(step) == STRICT_STEP else {"aging": seconds(int(step) // 1_000)}


def kept_fields(state: str) -> list[str]:
    """The fields of the configuration that limit what is kept of an ended state, in the order of KEPT."""
    return [f"keep_{state}_{what}" for what in KEPT]


def _kept(config: Mapping[str, str], state: str) -> dict[str, int | float]:
    found = {what: config.get(field) for what, field in zip(KEPT, kept_fields(state), strict=True)}
    return {what: seconds(int(text)) if what == "age" else int(text) for what, text in found.items() if text}


class TypePolicy(Struct, frozen=True):
    """What is set for a type of a queue. `retry` is as stored (ms)."""

    timeout_ms: int | None = None
    retry: Mapping[str, Any] | None = None
    schema: bytes | None = None
    """JSON Schema of its payloads, as it was sent."""
    rate: Rate | Unlimited | None = None
    concurrency: int | Unlimited | None = None
    paused: bool = False
    breaker: Breaker | Unlimited | None = None

    def record(self) -> bytes:
        """As `types` keeps it; empty when nothing is said."""
        limits = self._limits()
        if self.timeout_ms is None and not self.retry and self.schema is None and not limits:
            return b""
        body = orjson.dumps({"retry": self.retry}) if self.retry else b"{}"
        schema = b"" if self.schema is None else b"\n" + self.schema
        timeout = "" if self.timeout_ms is None else self.timeout_ms
        return b"%s\n%s%s" % (f"{timeout}|{limits}".encode(), body, schema)

    def _limits(self) -> str:
        """The rest of the record's first line; empty when there is no limit."""
        breaker = self.breaker
        said = breaker.value if isinstance(breaker, Unlimited) else "" if breaker is None else breaker.text()
        text = f"{limits_text(self.concurrency, self.rate)}|{'1' if self.paused else ''}|{said}"
        return text if text.strip("|") else ""


def parse_type(record: bytes) -> TypePolicy:
    """A record of `types`; nothing said for an empty or damaged one."""
    line, _, body = record.partition(b"\n")
    timeout, _, limits = line.decode(errors="replace").partition("|")
    body, _, schema = body.partition(b"\n")
    try:
        *four, paused, breaker = limits.split("|") if limits else [""] * 6
        concurrency, rate = parse_limits(four)
        return TypePolicy(
            int(timeout) if timeout else None,
            orjson.loads(body).get("retry") if body else None,
            schema or None,
            rate,
            concurrency,
            bool(paused),
            breaker_of_text(breaker),
        )
    except (ValueError, IndexError, TypeError):
        return TypePolicy()


class Fault(Struct, frozen=True):
    """A finding of verify: which id, what is wrong with it, whether it was put right."""

    id: str
    what: str
    repaired: bool


class WorkerSeen(Struct, frozen=True):
    """A worker that has signed lately. Times are ms; None where it did not say."""

    name: str
    host: str | None
    pid: int | None
    version: str | None
    queues: tuple[str, ...]
    types: tuple[str, ...]
    concurrency: int | None
    running: tuple[str, ...]
    started_at: int
    seen_at: int
    late: bool = False
    """It has given no sign for a whole lease, in which it signs three times: it is dead, frozen or cut off."""

    def document(self) -> dict[str, Any]:
        """The worker as documents show it."""
        return {
            "name": self.name, "host": self.host, "pid": self.pid, "version": self.version,
            "queues": self.queues, "types": self.types, "concurrency": self.concurrency, "running": self.running,
            "started_at": rfc3339(self.started_at), "seen_at": rfc3339(self.seen_at),
        }  # fmt: skip


class Lease(Struct, frozen=True, gc=False):
    """What a lease record says of the run that holds it."""

    token: int
    worker: str | None
    started_at: int
    attempt: int
    cancel_requested_at: int | None = None
    """When the job was asked to stop (ms)."""


class OperationPage(Struct, frozen=True):
    """A page of an operation: its number, how many jobs were found for it, and where the next one begins."""

    id: str
    number: int
    matched: int
    cursor: str
    last: bool

    def text(self) -> str:
        """As scripts take it."""
        return f"{self.id}|{self.number}|{self.matched}|{'done' if self.last else 'running'}|{self.cursor}"


class Operation(Struct, frozen=True, kw_only=True):
    """An act over many jobs of a queue, as its record has it. Times are ms."""

    id: str
    queue: str
    state: str
    """running, done, failed or cancelled."""
    page: int
    """The number of the next page."""
    began_at: int
    updated_at: int
    matched: int
    done: int
    cursor: str
    error: str | None
    plan: bytes
    """What is to be done, as JSON."""

    @property
    def ended(self) -> bool:
        return self.state != "running"


def parse_operation(queue: str, its_id: str, record: bytes) -> Operation | None:
    """A record of `operations`; None for an empty or damaged one."""
    line, _, rest = record.partition(b"\n")
    error, _, plan = rest.partition(b"\n")
    parts = line.decode(errors="replace").split("|", 8)
    try:
        state, page, began, updated, _, _, matched, done, cursor = parts
        return Operation(
            id=its_id, queue=queue, state=state, page=int(page), began_at=int(began), updated_at=int(updated),
            matched=int(matched), done=int(done), cursor=cursor,
            error=orjson.loads(error) if error else None, plan=plan,
        )  # fmt: skip
    except ValueError:
        return None


class DeadGroup(Struct, frozen=True):
    """Dead jobs that died alike. Kind and message are those of the newest. Times are ms."""

    fingerprint: str
    count: int
    first_at: int
    last_at: int
    type: str
    kind: str
    message: str

    def document(self) -> dict[str, Any]:
        """As documents show it."""
        return {
            "fingerprint": self.fingerprint, "type": self.type, "kind": self.kind, "message": self.message[:1_000],
            "count": self.count, "first_at": rfc3339(self.first_at), "last_at": rfc3339(self.last_at),
        }  # fmt: skip


class Hold(Struct, frozen=True):
    """A reason of lua/explain.lua: its code, until when it holds (ms, None where nobody knows), and what it says besides."""

    code: str
    until_ms: int | None
    more: Sequence[str]


class Held(Struct, frozen=True):
    """What holds a job now, or what became of it. `before` counts the jobs before it in line, None where it is in none."""

    now: int
    state: str
    before: int | None
    exact: bool
    type: str
    """Empty for a job that is gone."""
    holds: Sequence[Hold]


class Work(Struct, frozen=True):
    """What a queue has for workers: how many run, how many jobs may start now, how many are held by which reason."""

    now: int
    running: int
    runnable: int
    exact: bool
    since: int | None
    """When the first of those that may start became ready, ms."""
    held: Mapping[str, int]

"""What the REST API gives, as msgspec types. The OpenAPI document is made from them and from what it takes (`fields`).

Numbers are integers where they are whole, so that who reads an answer by the client has integers.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from .fields import (
    PAYLOAD_SCHEMA,
    Counted,
    JobIdText,
    KeyText,
    Moment,
    Name,
    OnFailure,
    OperationState,
    Priority,
    ProblemState,
    StateName,
    WorkerName,
)


class UniqueShown(Struct, kw_only=True):
    key: KeyText


class FaultShown(Struct, kw_only=True):
    """`path` is a JSON Pointer into the body, or `/name` of a query parameter."""

    path: str
    message: str


class AttemptShown(Struct, kw_only=True):
    """One line of a job's errors."""

    attempt: Counted
    kind: str
    message: str
    at: Moment
    next: str
    trace: str | UnsetType = UNSET


class EditShown(Struct, kw_only=True):
    """A payload that was replaced."""

    at: Moment
    payload: Any


class JobShown(Struct, kw_only=True):
    """A job. `token` rises with every claim; `attempt` counts runs begun; `duplicate`: it stood before."""

    id: str
    queue: Name
    type: Name
    state: StateName
    reason: str | None
    payload: Any
    priority: Priority
    group: KeyText | None
    tags: list[KeyText]
    attempt: Counted
    max_attempts: Counted
    crashes: Counted
    snoozes: Counted
    token: Counted
    timeout: float
    deadline: Moment | None
    expires_at: Moment | None
    created_at: Moment
    run_at: Moment | None
    started_at: Moment | None
    finished_at: Moment | None
    lease_expires_at: Moment | None
    worker: WorkerName | None
    progress: Any
    result: Any
    errors: list[AttemptShown]
    after: list[str]
    schedule: str | None
    traceparent: str | None
    cancel_requested_at: Moment | None
    """When a running job was asked to stop."""
    cost: Counted | UnsetType = UNSET
    """Where it is not 1."""
    unique: UniqueShown | UnsetType = UNSET
    on_failure: OnFailure | UnsetType = UNSET
    """Of a job that waits for others, or waited."""
    hold: bool | UnsetType = UNSET
    """It was enqueued to wait until it is opened."""
    flow: str | UnsetType = UNSET
    """The id of its flow."""
    flow_name: str | UnsetType = UNSET
    """Its name there."""
    copied_from: str | UnsetType = UNSET
    edits: list[EditShown] | UnsetType = UNSET
    duplicate: bool | UnsetType = UNSET
    warnings: list[str] | UnsetType = UNSET
    """Of a new job: why no worker would take it, and which queue or type may be meant."""


class JobItem(JobShown, kw_only=True):
    """A job in a list: with payload and result only where `include` names them."""

    payload: Any = UNSET
    result: Any = UNSET


class JobsShown(Struct, kw_only=True):
    items: list[JobItem]
    next_cursor: str | None


class DeadItem(JobItem, kw_only=True):
    """A dead letter. `fingerprint`: the same for those of one type and kind whose messages differ in numbers and ids only."""

    fingerprint: str


class DeadShown(Struct, kw_only=True):
    items: list[DeadItem]
    next_cursor: str | None


class GroupShown(Struct, kw_only=True):
    """Dead jobs of one type that died of the same kind, with messages that differ in numbers and ids only."""

    fingerprint: str
    type: str
    kind: str
    message: str
    count: Counted
    first_at: Moment
    last_at: Moment


class GroupsShown(Struct, kw_only=True):
    items: list[GroupShown]
    next_cursor: str | None


class OperationShown(Struct, kw_only=True):
    """An operation. `matched`: jobs found so far; `done` of them were acted on, `failed` were not."""

    id: str
    act: Literal["cancel", "purge", "run", "replay"]
    queue: Name
    state: OperationState
    matched: Counted
    done: Counted
    failed: Counted
    error: str | None
    dry_run: bool
    filter: dict[str, Any]
    created_at: Moment
    updated_at: Moment


class FiredShown(Struct, kw_only=True):
    """A job of a schedule. `slot`: null for one that was triggered; `state`: null for one that is gone by now."""

    slot: Moment | None
    at: Moment
    id: str
    state: StateName | None


class SkippedShown(Struct, kw_only=True):
    """A slot that was skipped, or several from `slot` `until` another, and why. `at`: when that was seen."""

    slot: Moment | None
    until: Moment | None
    count: Counted
    reason: Literal["overlap", "missed", "full", "conflict", "expired"]
    at: Moment


class ParentShown(Struct):
    """A job that another waits for. `state` and `ended_at`: of its end, null until then."""

    id: JobIdText
    state: StateName | None
    ended_at: Moment | None
    result: Any


class ParentsShown(Struct, kw_only=True):
    """What a job waits for. The counts are of all of them: still to end, succeeded, and ended otherwise."""

    pending: Counted
    succeeded: Counted
    failed: Counted
    items: list[ParentShown]
    next_cursor: str | None


class ScheduleShown(Struct, kw_only=True):
    """A schedule. `next`: its next five slots; `last` and `skipped`: what became of the last twenty, newest first.

    `error`: why the process that answers cannot work it out (a damaged record, a time zone that it lacks), null where it can: such a
    schedule does not fire, all others do.
    `state`: "finished" after its last slot, or `max_runs`. `declared_by`: the app in whose code it stands, null for one that was put.
    """

    name: Name
    queue: Name
    type: Name
    payload: Any
    cron: str | None
    every: float | int | None
    timezone: str
    jitter: float | int
    overlap: Literal["skip", "allow", "cancel_running", "queue_one"]
    catch_up: Literal["latest", "none", "all"]
    catch_up_window: float | int
    starts_at: Moment | None
    ends_at: Moment | None
    max_runs: int | None
    paused: bool
    priority: int
    group: str | None
    tags: list[str]
    timeout: float | int | None
    retry: dict[str, Any] | None
    retention: float | int | None
    cost: int
    expires_in: float | int | None
    state: Literal["active", "paused", "finished"]
    words: str | None
    error: str | None
    declared_by: str | None
    changed_at: Moment
    next_at: Moment | None
    runs: Counted
    skipped_runs: Counted
    next: list[Moment]
    last: list[FiredShown]
    skipped: list[SkippedShown]


class SchedulesShown(Struct, kw_only=True):
    items: list[ScheduleShown]
    next_cursor: str | None


class PreviewShown(Struct, kw_only=True):
    """The next slots."""

    items: list[Moment]


class OperationsShown(Struct, kw_only=True):
    items: list[OperationShown]
    next_cursor: str | None


class FlowProgress(Struct, kw_only=True):
    """Of `total` jobs so many have still to end, succeeded, and ended otherwise, as the flow has been told by now."""

    total: Counted
    pending: Counted
    succeeded: Counted
    failed: Counted


class FlowJobShown(Struct, kw_only=True):
    """A job of a flow. `name` is null for one that another has added; `state` where it is gone and nobody knows."""

    name: KeyText | None
    id: str
    type: str | None
    state: StateName | None
    reason: str | None
    after: list[KeyText]
    started_at: Moment | None
    finished_at: Moment | None


class FlowShown(Struct, kw_only=True):
    """A flow: `failed` where something of it did not succeed. `more`: jobs that others have added beyond those shown."""

    id: str
    state: Literal["running", "succeeded", "failed", "cancelled"]
    on_failure: OnFailure
    created_at: Moment
    opened_at: Moment | None
    finished_at: Moment | None
    cancel_asked: bool
    progress: FlowProgress
    jobs: list[FlowJobShown] | UnsetType = UNSET
    more: Counted | UnsetType = UNSET
    duplicate: bool | UnsetType = UNSET
    warnings: list[str] | UnsetType = UNSET
    """As of a job, of all jobs of the flow."""


class LineShown(Struct, kw_only=True):
    at: Moment
    line: str


class LogShown(Struct, kw_only=True):
    items: list[LineShown]
    next_cursor: str | None


class HolderShown(Struct, kw_only=True):
    """A job that has a slot for which this one waits, and the worker that runs it; or a job whose end it waits for."""

    id: str
    worker: str | None


class ReasonShown(Struct, kw_only=True):
    """Why a job does not run. `until`: when that is over, null where nobody knows. `holders`: up to ten, of a limit without a slot, or of what is still to end."""

    code: Literal[
        "scheduled", "retry_wait", "behind", "queue_paused", "type_paused", "group_paused", "rate_limited", "concurrency_limited",
        "queue_draining", "group_turn", "breaker_open", "blocked_by", "no_worker", "no_handler", "running", "ended",
    ]  # fmt: skip
    message: str
    until: Moment | None
    holders: list[HolderShown]


class ExplainShown(Struct, kw_only=True):
    """All that holds a job now. `position`: its place in line, 1 for the next one; `approximate`: about so."""

    id: str
    state: StateName
    reasons: list[ReasonShown]
    position: Counted | None
    approximate: bool


class BulkItem(Struct, kw_only=True):
    """What became of one job: 201, or 200 where it stood before; any other status is a problem, all of it here."""

    status: Counted
    id: str | UnsetType = UNSET
    duplicate: bool | UnsetType = UNSET
    type: str | UnsetType = UNSET
    title: str | UnsetType = UNSET
    detail: str | UnsetType = UNSET
    code: str | UnsetType = UNSET
    errors: list[FaultShown] | UnsetType = UNSET
    retry_after: Counted | UnsetType = UNSET


class BulkShown(Struct, kw_only=True):
    """`warnings`: which types no worker takes in which queues, and what may be meant, each once."""

    items: list[BulkItem]
    warnings: list[str] | UnsetType = UNSET


class BulkLine(BulkItem, kw_only=True):
    """What became of the job of one line. `index`: its place among the lines that are not blank, from 0."""

    index: Counted


class BulkDone(Struct, kw_only=True):
    """The last line of an answer: without it the answer is incomplete."""

    done: Literal[True]
    created: Counted
    duplicates: Counted
    failed: Counted
    warnings: list[str] | UnsetType = UNSET


class LeasedShown(JobShown, kw_only=True):
    """A job in a worker's hands. `checkpoint`: what an earlier attempt left for this one.

    `parents`: of one that waited for others their results, by their names in the flow, else by id; null for one that left none,
    or more than 64 KiB.
    """

    checkpoint: Any = UNSET
    parents: dict[str, Any] | UnsetType = UNSET


class LeaseShown(Struct, kw_only=True):
    jobs: list[LeasedShown]


class SettledItem(Struct, kw_only=True):
    """`cancel`: somebody asked for this job to stop; stop, then release it. `detail`: which of the added jobs is refused, and why."""

    id: str
    ok: bool
    state: StateName | UnsetType = UNSET
    code: str | UnsetType = UNSET
    cancel: bool | UnsetType = UNSET
    detail: str | UnsetType = UNSET


class SettledShown(Struct, kw_only=True):
    items: list[SettledItem]


class WorkerShown(Struct, kw_only=True):
    """A worker that has signed within two of its leases. One that leases over REST says only which queues it asks."""

    name: WorkerName
    host: str | None
    pid: Counted | None
    version: str | None
    queues: list[Name]
    types: list[Name]
    concurrency: Counted | None
    running: list[str]
    started_at: Moment
    seen_at: Moment


class WorkersShown(Struct, kw_only=True):
    items: list[WorkerShown]
    next_cursor: str | None


class CountsShown(Struct, kw_only=True):
    scheduled: Counted
    blocked: Counted
    ready: Counted
    running: Counted
    retrying: Counted
    succeeded: Counted
    cancelled: Counted
    dead: Counted


class KeepShown(Struct, kw_only=True):
    age: float | UnsetType = UNSET
    count: Counted | UnsetType = UNSET
    bytes: Counted | UnsetType = UNSET


class RetentionShown(Struct, kw_only=True):
    succeeded: KeepShown | UnsetType = UNSET
    cancelled: KeepShown | UnsetType = UNSET
    dead: KeepShown | UnsetType = UNSET


class AgingShown(Struct, kw_only=True):
    aging: float


class RateShown(Struct, kw_only=True):
    """`per`: seconds."""

    limit: Counted
    per: float
    burst: Counted


class QueueInForce(Struct, kw_only=True):
    retention: RetentionShown
    priority_mode: Literal["strict"] | AgingShown


class QueueShown(Struct, kw_only=True):
    """A queue. `retention`: what was set; `in_force`: what holds. `oldest_wait`: seconds."""

    queue: Name
    counts: CountsShown
    oldest_wait: float | None
    paused: bool
    draining: bool
    retention: RetentionShown
    priority_mode: Literal["strict"] | AgingShown | None
    in_force: QueueInForce
    rate: RateShown | None
    concurrency: Counted | None
    group_rate: RateShown | None
    group_concurrency: Counted | None
    max_length: Counted | None
    max_bytes: Counted | None
    partitions: Counted
    workers: Counted


class QueuesShown(Struct, kw_only=True):
    items: list[QueueShown]
    next_cursor: str | None


class EndedShown(Struct, kw_only=True):
    succeeded: Counted
    cancelled: Counted
    dead: Counted


class EndedInShown(Struct, kw_only=True, rename={"minute": "1m", "minutes": "5m", "hour": "1h"}):
    """Jobs that ended in the last minute, five minutes and hour, and are still kept."""

    minute: EndedShown
    minutes: EndedShown
    hour: EndedShown


class RatesShown(Struct, kw_only=True, rename={"minute": "1m", "minutes": "5m", "hour": "1h"}):
    """Jobs that ended, per second."""

    minute: float
    minutes: float
    hour: float


class SampleShown(Struct, kw_only=True):
    """How many of the newest ended jobs were looked at, and when the oldest of them ended."""

    jobs: Counted
    since: Moment | None


class PercentilesShown(Struct, kw_only=True):
    """Seconds that so many percent of the sample did not exceed."""

    p50: float
    p95: float
    p99: float


class TypeStats(Struct, kw_only=True):
    """A type within the sample. `rate`: per second, since the oldest job of the sample ended."""

    type: str
    jobs: Counted
    rate: float
    wait: PercentilesShown | None
    run: PercentilesShown | None


class QueueStats(Struct, kw_only=True):
    """What went through a queue. `wait` and `run`: of the sample; null when it has no such job."""

    queue: Name
    counts: CountsShown
    oldest_wait: float | None
    ended: EndedInShown
    rates: RatesShown
    sample: SampleShown
    wait: PercentilesShown | None
    run: PercentilesShown | None
    types: list[TypeStats]


class HeldShown(Struct, kw_only=True):
    """Ready jobs that may not start, by the first reason that holds them."""

    queue_paused: Counted
    type_paused: Counted
    group_paused: Counted
    rate_limited: Counted
    concurrency_limited: Counted
    breaker_open: Counted


class SlotsShown(Struct, kw_only=True):
    """Jobs of the queue that run, and slots of all workers that serve it and say how many they have."""

    used: Counted
    total: Counted


class DemandShown(Struct, kw_only=True):
    """How much there is to do for workers of a queue. Durations are seconds."""

    queue: Name
    runnable: Counted
    oldest_runnable_wait: float
    held: HeldShown
    work_seconds: float
    mean_run: float | None
    slots: SlotsShown
    workers: Counted
    approximate: bool


class StatsShown(Struct, kw_only=True):
    items: list[QueueStats]
    next_cursor: str | None


class RetryShown(Struct, kw_only=True):
    max_attempts: Counted | UnsetType = UNSET
    immediate: Counted | UnsetType = UNSET
    base: float | UnsetType = UNSET
    factor: float | UnsetType = UNSET
    max_delay: float | UnsetType = UNSET
    jitter: float | UnsetType = UNSET
    non_retryable: list[str] | UnsetType = UNSET
    max_crashes: Counted | UnsetType = UNSET


class BreakerShown(Struct, kw_only=True):
    """`window` and `open_for`: seconds."""

    failure_rate: float
    window: float
    minimum: Counted
    open_for: float
    probes: Counted


class BreakerStateShown(Struct, kw_only=True):
    """Closed, it counts how attempts ended within the window; open, it shows what opened it; half open, its probes."""

    state: Literal["closed", "open", "half_open"]
    until: Moment | None
    successes: Counted
    failures: Counted


class TypeInForce(Struct, kw_only=True):
    retry: RetryShown
    timeout: float
    rate: RateShown | None
    concurrency: Counted | None
    breaker: BreakerShown | None


class TypeShown(Struct, kw_only=True):
    """A type's policy: as set by PUT or PATCH, and as in force with what workers declare and the defaults."""

    queue: Name
    type: Name
    retry: RetryShown
    timeout: float | None
    schema: Annotated[Any, Meta(extra_json_schema=PAYLOAD_SCHEMA)]
    rate: RateShown | None
    concurrency: Counted | None
    paused: bool
    breaker: BreakerShown | None
    breaker_state: BreakerStateShown | None
    in_force: TypeInForce


class TypesShown(Struct, kw_only=True):
    items: list[TypeShown]
    next_cursor: str | None


class GroupInForce(Struct, kw_only=True):
    weight: Counted
    rate: RateShown | None
    concurrency: Counted | None


class GroupPolicyShown(Struct, kw_only=True):
    """A group's policy: as set by PATCH, and as in force with what its queue has for all groups."""

    queue: Name
    group: KeyText
    weight: Counted | None
    rate: RateShown | None
    concurrency: Counted | None
    paused: bool
    in_force: GroupInForce


class GroupPoliciesShown(Struct, kw_only=True):
    items: list[GroupPolicyShown]
    next_cursor: str | None


class AliveShown(Struct, kw_only=True):
    status: Literal["alive"]


class ServerShown(Struct, kw_only=True):
    version: str
    role: str


class ReadyShown(Struct, kw_only=True):
    status: Literal["ready"]
    redis: ServerShown
    layout: Counted


class Problem(Struct, kw_only=True):
    """What went wrong (RFC 9457). Decide by `code`; show `detail`. `state`: that of the job or operation."""

    type: str
    title: str
    status: Counted
    detail: str
    code: str
    errors: list[FaultShown] | UnsetType = UNSET
    id: str | UnsetType = UNSET
    state: ProblemState | UnsetType = UNSET
    retry_after: Counted | UnsetType = UNSET
    """Seconds, of a 429: as the header says, for an item of a bulk."""

"""What the REST API takes, as msgspec types, and the words that this has in common with what it gives.

What it gives is in `shown`; the OpenAPI document is made from both.
To JSON `3.0` is an integer. So whole numbers are declared as floats here, which carry every number that is
taken (below 2^53) exactly, and `x-whole` makes integers of them in the document. Ranges, names and times are
checked where values are made of what was sent; here they are only described.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from .flow import LARGEST_FLOW, LONGEST_FLOW_KEY
from .job import MOST_AFTER, WORKER_NAME
from .keys import JOB_KEY, QUEUE_NAME, STATES
from .limits import COSTLIEST, HEAVIEST, MOST_AT_ONCE, MOST_BURST, MOST_RATE

_NAME = {"pattern": f"^{QUEUE_NAME.pattern}$"}
_KEY = {"pattern": f"^{JOB_KEY.pattern}$"}
_WHOLE = {"x-whole": True}
_WEEK = 7 * 86_400
_TEN_YEARS = 3_652 * 86_400

Name = Annotated[str, Meta(extra_json_schema=_NAME)]
KeyText = Annotated[str, Meta(extra_json_schema=_KEY)]
JobIdText = Annotated[
    str, Meta(extra_json_schema={"pattern": f"^({QUEUE_NAME.pattern}:)?{JOB_KEY.pattern}$"})
]
FlowIdText = Annotated[
    str,
    Meta(extra_json_schema={"pattern": f"^({QUEUE_NAME.pattern}:)?[A-Za-z0-9._-]{{1,{LONGEST_FLOW_KEY}}}$"}),
]
WorkerName = Annotated[str, Meta(extra_json_schema={"pattern": f"^{WORKER_NAME.pattern}$"})]
# "30" is no duration in a document: the unit is always there, or the value is a number. The bounds are seconds.
Duration = Annotated[int | float | str, Meta(extra_json_schema={"x-duration": (0, _TEN_YEARS)})]
UpToADay = Annotated[int | float | str, Meta(extra_json_schema={"x-duration": (0.001, 86_400)})]
UpToAWeek = Annotated[int | float | str, Meta(extra_json_schema={"x-duration": (0, _WEEK)})]
Deadline = Annotated[
    int | float | str, Meta(extra_json_schema={"x-duration": (0.001, _TEN_YEARS), "x-moment": True})
]
ExpiresIn = Annotated[int | float | str, Meta(extra_json_schema={"x-duration": (0.001, _TEN_YEARS)})]
UpToADayFromZero = Annotated[int | float | str, Meta(extra_json_schema={"x-duration": (0, 86_400)})]
Period = Annotated[int | float | str, Meta(extra_json_schema={"x-duration": (0.1, _TEN_YEARS)})]
CronText = Annotated[
    str, Meta(extra_json_schema={"maxLength": 256, "examples": ["0 9 * * mon-fri", "@daily"]})
]
Timeout = Annotated[int | float | str, Meta(extra_json_schema={"x-duration": (0.001, _WEEK)})]
WaitTime = Annotated[int | float | str, Meta(extra_json_schema={"x-duration": (0, 60)})]
AgingTime = Annotated[int | float | str, Meta(extra_json_schema={"x-duration": (0.1, 365 * 86_400)})]
LeaseTime = Annotated[int | float | str, Meta(extra_json_schema={"x-duration": (1, 12 * 3_600)})]
UniqueTime = Annotated[int | float | str, Meta(extra_json_schema={"x-duration": (0.001, _TEN_YEARS)})]
Moment = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Whole = Annotated[float, Meta(extra_json_schema={**_WHOLE, "minimum": 0, "maximum": 2**53 - 1})]
Counted = Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": 2**53 - 1})]
Count1000 = Annotated[float, Meta(extra_json_schema={**_WHOLE, "minimum": 1, "maximum": 1000})]
UpTo1000 = Annotated[float, Meta(extra_json_schema={**_WHOLE, "minimum": 0, "maximum": 1000})]
Priority = Annotated[float, Meta(extra_json_schema={**_WHOLE, "minimum": -100, "maximum": 100})]
Most500 = Annotated[float, Meta(extra_json_schema={**_WHOLE, "minimum": 1, "maximum": 500})]
Factor = Annotated[float, Meta(extra_json_schema={"minimum": 1, "maximum": 1000})]
Cost = Annotated[float, Meta(extra_json_schema={**_WHOLE, "minimum": 1, "maximum": COSTLIEST})]
Weight = Annotated[float, Meta(extra_json_schema={**_WHOLE, "minimum": 1, "maximum": HEAVIEST})]
AtOnce = Annotated[float, Meta(extra_json_schema={**_WHOLE, "minimum": 1, "maximum": MOST_AT_ONCE})]
SecondToADay = Annotated[int | float | str, Meta(extra_json_schema={"x-duration": (1, 86_400)})]
Share = Annotated[float, Meta(extra_json_schema={"minimum": 0, "maximum": 1})]
Kind = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": 200})]
Kinds = Annotated[list[Kind], Meta(extra_json_schema={"maxItems": 100})]
Tags = Annotated[list[KeyText], Meta(extra_json_schema={"maxItems": 32})]
JobId = Annotated[str, Meta(extra_json_schema={"pattern": f"^{QUEUE_NAME.pattern}:{JOB_KEY.pattern}$"})]
After = Annotated[list[JobId], Meta(extra_json_schema={"maxItems": MOST_AFTER, "uniqueItems": True})]
OnFailure = Literal["cancel", "continue", "wait", "failure"]
Types = Annotated[list[Name], Meta(extra_json_schema={"minItems": 1, "maxItems": 100})]

Fingerprint = Annotated[str, Meta(extra_json_schema={"pattern": "^[0-9a-f]{16}$"})]
Ids = Annotated[list[JobIdText], Meta(extra_json_schema={"minItems": 1, "maxItems": 1000})]
LineNumber = Annotated[float, Meta(extra_json_schema={**_WHOLE, "minimum": 1, "maximum": 10**12})]
Positive = Annotated[float, Meta(extra_json_schema={**_WHOLE, "minimum": 1, "maximum": 2**53 - 1})]

PAYLOAD_SCHEMA = {
    "type": ["object", "boolean", "null"],
    "description": "JSON Schema 2020-12 of the payloads.",
}

StateName = Literal["scheduled", "blocked", "ready", "running", "retrying", "succeeded", "cancelled", "dead"]
OperationState = Literal["running", "done", "failed", "cancelled"]
ProblemState = Annotated[str, Meta(extra_json_schema={"enum": [*STATES, "done", "failed"]})]
PurgedState = Annotated[StateName, Meta(extra_json_schema={"not": {"const": "running"}})]


class Request(Struct, forbid_unknown_fields=True, kw_only=True):
    """The base of everything that is sent: a field nobody knows is refused by its name."""


class Nothing(Request):
    """No fields: the call is said by its path."""


class RetryFields(Request):
    """A retry policy. What is left out, or null, is left to the next weaker word."""

    max_attempts: Count1000 | UnsetType | None = UNSET
    immediate: UpTo1000 | UnsetType | None = UNSET
    base: UpToAWeek | UnsetType | None = UNSET
    factor: Factor | UnsetType | None = UNSET
    max_delay: UpToAWeek | UnsetType | None = UNSET
    jitter: Share | UnsetType | None = UNSET
    non_retryable: Kinds | UnsetType | None = UNSET
    max_crashes: Count1000 | UnsetType | None = UNSET


class UniqueFields(Request):
    """Of jobs with the same key there is one at a time in a queue, from its enqueueing on.

    `key`: without one, what is the same is a type with a payload. It is free again once the job has ended, or, with
    `until` "start", has started; with `for` alone when so much time has passed, whatever became of the job; with both,
    whichever comes first. `on_conflict`, where such a job stands: "return" answers it (200, `duplicate`), "reject" is a
    409, "replace" makes it what the new request asks for, if it waits; "debounce" too, and without `delay` or `run_at` it
    keeps its time.
    """

    key: KeyText | None = None
    for_: UniqueTime | None = field(default=None, name="for")
    until: Literal["start", "end"] | None = None
    on_conflict: Literal["return", "reject", "replace", "debounce"] = "return"


class AnyJobFields(Request):
    """What may be said of any new job."""

    type: Name
    payload: Raw | UnsetType = UNSET
    id: JobIdText | None = None
    priority: Priority = 0
    delay: Duration | None = None
    run_at: Moment | None = None
    group: KeyText | None = None
    tags: Tags = []
    timeout: Timeout | None = None
    retry: RetryFields | None = None
    retention: Duration | None = None
    cost: Cost = 1
    deadline: Deadline | None = None
    expires_in: ExpiresIn | None = None


class NewJobFields(AnyJobFields):
    """A job somebody wants done. `delay` and `run_at` exclude each other; `id`: the key, or the whole id.

    `cost`: how much of a rate its start uses.
    `deadline`: a time, or a duration from now, by which it must have ended; then an attempt is stopped, and the job is dead,
    or cancelled when it never started. `expires_in`: not started within that, it is cancelled.
    `after`: ids of jobs whose end it waits for, `blocked` until then. `on_failure`, where one of them is dead or cancelled in
    the end: `cancel` this one too (the default), `continue` all the same, `wait` until that one was replayed and succeeded,
    or run on `failure` only.
    `hold`: `blocked` until it is opened (`POST /v1/jobs/{id}/open`), and until all have ended that joined it with `before`: ids of
    blocked jobs that are to wait for this one as well. So a job runs after any number of others.
    """

    queue: Name = "default"
    unique: UniqueFields | None = None
    after: After = []
    before: After = []
    hold: bool = False
    on_failure: OnFailure | None = None


class AddedJobFields(AnyJobFields):
    """A job that comes in when the one that adds it has succeeded; whoever waits for that one waits for this one too."""

    queue: Name = "default"


class FlowJobFields(AnyJobFields, kw_only=True):
    """A job of a flow: as any new job, but not unique. `after`: names of the jobs of this flow whose end it waits for."""

    name: KeyText
    queue: Name | None = None
    after: Annotated[list[KeyText], Meta(extra_json_schema={"uniqueItems": True})] = []
    on_failure: OnFailure | None = None


class FlowFields(Request):
    """A graph of jobs that wait for each other. All of it is taken in, or nothing.

    `id`: the key of the flow, or its whole id; the same id and request again is the same flow. `queue`: of the flow, and of its
    jobs that name none; left out, the flow is of the queue of its first job. `on_failure`: of its jobs that name none. A job
    without an id has the flow's key, a point and its place as its own.
    """

    jobs: Annotated[list[FlowJobFields], Meta(extra_json_schema={"minItems": 1, "maxItems": LARGEST_FLOW})]
    on_failure: OnFailure = "cancel"
    queue: Name | None = None
    id: FlowIdText | None = None


class BulkFields(Request):
    """Jobs somebody wants done, each on its own."""

    jobs: list[NewJobFields]


class CopyFields(Request):
    """What is different in a copy. What is left out is as in the job that is copied, but its times are not.

    null lifts what that job has of its own. A copy is unique, and waits for others, only where it is said of it.
    """

    type: Name | UnsetType = UNSET
    queue: Name | UnsetType = UNSET
    payload: Raw | UnsetType = UNSET
    id: JobIdText | None = None
    priority: Priority | UnsetType | None = UNSET
    delay: Duration | None = None
    run_at: Moment | None = None
    group: KeyText | UnsetType | None = UNSET
    tags: Tags | UnsetType | None = UNSET
    timeout: Timeout | UnsetType | None = UNSET
    retry: RetryFields | UnsetType | None = UNSET
    retention: Duration | UnsetType | None = UNSET
    cost: Cost | UnsetType | None = UNSET
    unique: UniqueFields | None = None
    deadline: Deadline | None = None
    expires_in: ExpiresIn | None = None
    after: After = []
    on_failure: OnFailure | None = None


class JobFields(Request):
    """What is to be changed of a job that waits. null: priority 0, no tags, no time to wait for; a payload may be null."""

    payload: Raw | UnsetType = UNSET
    priority: Priority | UnsetType | None = UNSET
    run_at: Moment | UnsetType | None = UNSET
    tags: Tags | UnsetType | None = UNSET


class ReplayFields(Request):
    """Another payload for a dead job, which is kept among its `edits` as it was before."""

    payload: Raw | UnsetType = UNSET


class LeaseFields(Request):
    """Who asks for how many jobs, how long the call may wait for the first, and how long it may keep them.

    `types`: only jobs of these.
    """

    worker: WorkerName
    max: Most500 = 1
    wait: WaitTime = 0
    lease: LeaseTime | None = None
    request_id: WorkerName | None = None
    types: Types | None = None


class ErrorFields(Request):
    """What went wrong in an attempt."""

    kind: Kind
    message: str
    trace: str | None = None


class AckItem(Request):
    """`add`: jobs that come in with it, all of them or none; then the ack is refused too, and its lease goes on."""

    id: str
    token: Whole
    result: Raw | UnsetType = UNSET
    add: Annotated[list[AddedJobFields], Meta(extra_json_schema={"maxItems": 500})] = []


class NackItem(Request):
    """`retry_in` overrules the policy's delay; `permanent` makes a dead letter of the job at once, for `reason`.

    With a `scope`, which needs `retry_in`, no other job of its type, or of its group, starts for that long either.
    """

    id: str
    token: Whole
    error: ErrorFields
    retry_in: UpToAWeek | None = None
    scope: Literal["type", "group"] | None = None
    permanent: bool = False
    reason: Literal["permanent", "bad_payload"] = "permanent"


class ReleaseItem(Request):
    """`why`: a `snooze` is counted; `no_handler` waits longer each time, and is dead when nobody takes the job."""

    id: str
    token: Whole
    delay: Duration | None = None
    why: Literal["snooze", "no_handler"] | None = None


class ExtendItem(Request):
    """`checkpoint`: for the next attempt, should this one fail.

    `log_from`: the number of the first line of `log` in this run, from 1; a line that was told before under its number
    is not kept twice.
    """

    id: str
    token: Whole
    lease: LeaseTime | None = None
    progress: Raw | UnsetType = UNSET
    checkpoint: Raw | UnsetType = UNSET
    log: list[str] = []
    log_from: LineNumber | None = None


class SettleFields(Request):
    """At most 500 items in all. They are carried out and answered in the order ack, nack, release, extend."""

    worker: WorkerName
    ack: list[AckItem] = []
    nack: list[NackItem] = []
    release: list[ReleaseItem] = []
    extend: list[ExtendItem] = []


class KeepFields(Request):
    """How long, how many, how much of one ended state a queue keeps; null: the default again."""

    age: Duration | UnsetType | None = UNSET
    count: Whole | UnsetType | None = UNSET
    bytes: Whole | UnsetType | None = UNSET


class RetentionFields(Request):
    succeeded: KeepFields | UnsetType | None = UNSET
    cancelled: KeepFields | UnsetType | None = UNSET
    dead: KeepFields | UnsetType | None = UNSET


class AgingFields(Request):
    """A job rises by one level of priority each time that it has waited so long."""

    aging: AgingTime


_RATE_TEXT = {"pattern": r"^(?!0+/)(([0-9]{1,6}|1000000)/s|([0-5]?[0-9]{1,7}|60000000)/m|[0-9]{1,9}/[hd])$"}


class RateFields(Request):
    """So many in so long, at most a million in a second."""

    limit: Annotated[float, Meta(extra_json_schema={**_WHOLE, "minimum": 1, "maximum": MOST_RATE})]
    per: UpToADay


class BurstRateFields(RateFields):
    """So many in so long, at most a million in a second, evenly spread; `burst`: so many more at once after a pause."""

    burst: Annotated[float, Meta(extra_json_schema={**_WHOLE, "minimum": 0, "maximum": MOST_BURST})] = 0


Rate = Annotated[str, Meta(extra_json_schema=_RATE_TEXT)] | RateFields
BurstRate = Annotated[str, Meta(extra_json_schema=_RATE_TEXT)] | BurstRateFields


class QueueFields(Request):
    """The configuration of a queue. By PATCH, what is left out stays as it is, and null lifts.

    `rate`: how many jobs start in how long; `concurrency`: how many run at once. `group_rate` and `group_concurrency`: the
    same for each group that has no such policy of its own.
    `draining`: no new job is accepted (429 `queue_full`), those that stand are run.
    `priority_mode`: how priorities weigh, of jobs that become ready from now on. `max_length`: with so many jobs ready and
    scheduled, no more are taken in. `max_bytes`: nor where the unfinished jobs, payloads and all, would have more than that.
    """

    paused: bool | UnsetType | None = UNSET
    draining: bool | UnsetType | None = UNSET
    priority_mode: Literal["strict"] | AgingFields | UnsetType | None = UNSET
    max_length: Whole | UnsetType | None = UNSET
    max_bytes: Whole | UnsetType | None = UNSET
    rate: BurstRate | UnsetType | None = UNSET
    concurrency: AtOnce | UnsetType | None = UNSET
    group_rate: BurstRate | UnsetType | None = UNSET
    group_concurrency: AtOnce | UnsetType | None = UNSET
    retention: RetentionFields | UnsetType | None = UNSET


class BreakerFields(Request):
    """When a type is not run for a while: once `failure_rate` of the attempts that ended within `window` failed, of `minimum` at least.

    Nothing of it is claimed for `open_for` then; after that `probes` jobs run to see how it goes. The rate counts in whole
    percents, rounded up. What is left out, or null, is as by default.
    """

    failure_rate: (
        Annotated[float, Meta(extra_json_schema={"exclusiveMinimum": 0, "maximum": 1})] | UnsetType | None
    ) = UNSET
    window: SecondToADay | UnsetType | None = UNSET
    minimum: AtOnce | UnsetType | None = UNSET
    open_for: SecondToADay | UnsetType | None = UNSET
    probes: Count1000 | UnsetType | None = UNSET


class TypeFields(Request):
    """The policy of a type. By PATCH, what is left out stays as it is, and null lifts.

    What null lifts of `rate`, `concurrency` and `breaker`, also code does not set: there is no such limit then.
    """

    retry: RetryFields | UnsetType | None = UNSET
    timeout: Timeout | UnsetType | None = UNSET
    schema: Annotated[Raw, Meta(extra_json_schema=PAYLOAD_SCHEMA)] | UnsetType = UNSET
    """JSON Schema 2020-12 of the payloads; null lifts it."""
    rate: BurstRate | UnsetType | None = UNSET
    concurrency: AtOnce | UnsetType | None = UNSET
    paused: bool | UnsetType | None = UNSET
    breaker: BreakerFields | UnsetType | None = UNSET


class GroupFields(Request):
    """The policy of a group. What is left out stays as it is, and null lifts.

    `weight`: how many jobs it may start while one of weight 1 starts one. What null lifts of `rate` and `concurrency`, also
    the queue's `group_rate` and `group_concurrency` do not limit: there is no such limit then.
    """

    weight: Weight | UnsetType | None = UNSET
    rate: BurstRate | UnsetType | None = UNSET
    concurrency: AtOnce | UnsetType | None = UNSET
    paused: bool | UnsetType | None = UNSET


class FilterFields(Request):
    """Which jobs an operation acts on: those for which all of it holds."""

    state: StateName | None = None
    type: Name | None = None
    group: KeyText | None = None
    tag: KeyText | None = None
    error: Kind | None = None
    kind: Kind | None = None
    fingerprint: Fingerprint | None = None
    before: Moment | None = None


class PurgeDeadFields(Request):
    """Which dead jobs to purge: by ids, or those for which all the rest holds."""

    ids: Ids | None = None
    type: Name | None = None
    kind: Kind | None = None
    fingerprint: Fingerprint | None = None
    before: Moment | None = None
    limit: Positive | None = None
    dry_run: bool = False


class ReplayDeadFields(PurgeDeadFields):
    """Which dead jobs to replay, how fast, and what to change in them.

    `payload_patch` is a JSON merge patch (RFC 7386) over each payload; `queue`: another queue to run them in.
    """

    rate: Rate | None = None
    payload_patch: Raw | UnsetType = UNSET
    stop_after_failures: Most500 | None = None
    queue: Name | None = None


class PurgeFields(Request):
    """Which jobs of a queue to purge. `older_than`: since their end, or their creation while they wait."""

    state: PurgedState
    type: Name | None = None
    older_than: Duration | None = None
    limit: Positive | None = None
    dry_run: bool = False


class OperationFields(Request):
    """An act over all jobs of a queue that match. Those after `dry_run` are of a replay; `into`: another queue to run in."""

    act: Literal["cancel", "purge", "run", "replay"]
    queue: Name
    filter: FilterFields | None = None
    ids: Ids | None = None
    limit: Positive | None = None
    dry_run: bool = False
    rate: Rate | None = None
    payload_patch: Raw | UnsetType = UNSET
    stop_after_failures: Most500 | None = None
    into: Name | None = None


class ScheduleFields(Request):
    """Jobs of one type, made again and again: when `cron` says so in `timezone`, or every so long.

    `cron`: five fields (minute, hour, day of month, month, day of week), or six with the second first; names, ranges, steps,
    lists, L, W and #; @yearly @monthly @weekly @daily @midnight @hourly. `every`: first at `starts_at`, else so long after
    the PUT. `jitter`: a job starts up to so much later than its slot, each slot by the same. `overlap`, while a former job has
    not ended: "skip" the slot, "allow" both, "cancel_running" the former one, or "queue_one" behind it. `catch_up`, of slots that
    came due while nobody was there: the "latest", "none" or "all" of them, no older than `catch_up_window`. `paused` that is
    left out stays as it is. The rest is as in a new job.
    """

    type: Name
    queue: Name = "default"
    payload: Raw | UnsetType = UNSET
    cron: CronText | None = None
    every: Period | None = None
    timezone: str = "UTC"
    jitter: UpToADayFromZero = 0
    overlap: Literal["skip", "allow", "cancel_running", "queue_one"] = "skip"
    catch_up: Literal["latest", "none", "all"] = "latest"
    catch_up_window: Duration | None = None
    starts_at: Moment | None = None
    ends_at: Moment | None = None
    max_runs: Positive | None = None
    paused: bool | None = None
    priority: Priority = 0
    group: KeyText | None = None
    tags: Tags = []
    timeout: Timeout | None = None
    retry: RetryFields | None = None
    retention: Duration | None = None
    cost: Cost = 1
    expires_in: ExpiresIn | None = None

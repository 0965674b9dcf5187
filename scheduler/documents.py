"""Documents of the REST API as its callers read them, and the JSON that they send."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Generic, Protocol, TypedDict, TypeVar, cast, get_args, get_origin

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from . import retry as retry_policy
from .errors import Fault, Invalid
from .flow import Plan
from .job import Attempt, Job, NewJob, State, Unique
from .limits import COSTLIEST
from .retry import Retry
from .times import duration_ms, parse_rfc3339, rfc3339, seconds

T = TypeVar("T")

Duration = float | int | str
"""Seconds, or text such as "250ms", "30s", "5m", "2h", "7d"."""


class Leased(Struct, frozen=True):
    """A job in the hands of whoever leased it, and what an earlier attempt left for this one."""

    job: Job
    checkpoint: bytes = b""
    parents: Mapping[str, bytes | None] | None = None
    """Results of the jobs that it waited for, by their names in the flow, else by id."""


class Listed(Struct, frozen=True):
    """A job of a list; `fingerprint` is a dead letter's: the same for those that died alike."""

    job: Job
    fingerprint: str = ""


class Paged(Struct, Generic[T]):
    """A page of a list."""

    items: list[T]
    next_cursor: str | None = None


def read(text: bytes | Raw, kind: type[T]) -> T:
    """A document as what it should be. Where a newer server says more than this release knows, it is as it came.

    That is another word than those that are listed, or a value where there was none. Raises msgspec.MsgspecError.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError:
        found: Any = _read_parts(text, kind)
        if found is None:
            raise
        return cast("T", found)


def _read_parts(text: bytes | Raw, kind: Any) -> Any:
    """The same of something that is not wholly so; None where it must be."""
    origin = get_origin(kind)
    kind = kind.__origin__ if origin is Annotated else kind
    if origin is list:
        [item] = get_args(kind)
        return [read(one, item) for one in msgspec.json.decode(text, type=list[Raw])]
    made = origin or kind
    if isinstance(made, type) and issubclass(made, Struct):
        given = msgspec.json.decode(text, type=dict[str, Raw])
        fields = msgspec.structs.fields(kind)
        if any(field.required and field.encode_name not in given for field in fields):
            return None
        known = [field for field in fields if field.encode_name in given]
        return made(**{field.name: read(given[field.encode_name], field.type) for field in known})
    return None if kind in {str, int, float, bool} else msgspec.json.decode(text)


class _Attempt(Struct):
    attempt: int
    kind: str
    message: str
    at: str
    next: str
    trace: str | None = None


class _Edit(Struct):
    at: str
    payload: Raw


class _Unique(Struct):
    key: str


class JobDocument(Struct):
    """A job as documents show it. Fields that nobody knows are passed over: there may be more of them some day."""

    id: str
    queue: str
    type: str
    state: str
    created_at: str
    reason: str | None = None
    payload: Raw | UnsetType = UNSET
    priority: int = 0
    group: str | None = None
    tags: tuple[str, ...] = ()
    attempt: int = 0
    max_attempts: int = 0
    crashes: int = 0
    snoozes: int = 0
    token: int = 0
    timeout: float | int = 0
    deadline: str | None = None
    expires_at: str | None = None
    run_at: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    lease_expires_at: str | None = None
    cancel_requested_at: str | None = None
    worker: str | None = None
    progress: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    errors: tuple[_Attempt, ...] = ()
    traceparent: str | None = None
    cost: int = 1
    unique: _Unique | None = None
    copied_from: str | None = None
    schedule: str | None = None
    edits: tuple[_Edit, ...] = ()
    after: tuple[str, ...] = ()
    on_failure: str | None = None
    hold: bool = False
    flow: str | None = None
    flow_name: str | None = None
    duplicate: bool = False
    warnings: tuple[str, ...] = ()
    checkpoint: Raw | UnsetType = UNSET
    parents: dict[str, Raw] | None = None
    fingerprint: str = ""

    def job(self) -> Job:
        """The same as a value."""
        return Job(
            id=self.id,
            queue=self.queue,
            type=self.type,
            state=State.named(self.state, ended=self.finished_at is not None),
            reason=self.reason,
            payload=bytes(self.payload) if isinstance(self.payload, Raw) else None,
            priority=self.priority,
            group=self.group,
            tags=self.tags,
            attempt=self.attempt,
            max_attempts=self.max_attempts,
            crashes=self.crashes,
            snoozes=self.snoozes,
            token=self.token,
            timeout_ms=duration_ms(self.timeout),
            deadline_ms=_ms(self.deadline),
            expires_ms=_ms(self.expires_at),
            created_at=parse_rfc3339(self.created_at),
            run_at=_ms(self.run_at),
            started_at=_ms(self.started_at),
            finished_at=_ms(self.finished_at),
            lease_expires_at=_ms(self.lease_expires_at),
            cancel_requested_at=_ms(self.cancel_requested_at),
            worker=self.worker,
            progress=_json(self.progress),
            result=_json(self.result),
            errors=tuple(
                Attempt(e.attempt, e.kind, e.message, parse_rfc3339(e.at), e.next, e.trace)
                for e in self.errors
            ),
            traceparent=self.traceparent,
            cost=self.cost,
            unique=None if self.unique is None else self.unique.key,
            copied_from=self.copied_from,
            schedule=self.schedule,
            after=self.after,
            on_failure=self.on_failure,
            hold=self.hold,
            flow=self.flow,
            flow_name=self.flow_name,
            edits=tuple((parse_rfc3339(edit.at), bytes(edit.payload)) for edit in self.edits),
        )

    def leased(self) -> Leased:
        """The same in the hands of its worker."""
        given = self.parents
        parents = None if given is None else {name: _json(result) for name, result in given.items()}
        return Leased(self.job(), _json(self.checkpoint) or b"", parents)

    def listed(self) -> Listed:
        return Listed(self.job(), self.fingerprint)


def _ms(text: str | None) -> int | None:
    return None if text is None else parse_rfc3339(text)


def _json(raw: Raw | UnsetType) -> bytes | None:
    text = bytes(raw) if isinstance(raw, Raw) else b""
    return None if text in {b"", b"null"} else text


def new_document(job: NewJob) -> dict[str, Any]:
    """A new job as the API takes it; msgspec writes it. What is as by default is left out."""
    made: dict[str, Any] = {"type": job.type, "queue": job.queue, "payload": Raw(job.payload)}
    if job.key:
        made["id"] = job.key
    if job.priority:
        made["priority"] = job.priority
    if job.delay_ms is not None:
        made["delay"] = seconds(job.delay_ms)
    if job.run_at_ms is not None:
        made["run_at"] = rfc3339(job.run_at_ms)
    if job.group is not None:
        made["group"] = job.group
    if job.tags:
        made["tags"] = list(job.tags)
    if job.timeout_ms is not None:
        made["timeout"] = seconds(job.timeout_ms)
    if job.retry:
        made["retry"] = retry_policy.shown(job.retry)
    if job.retention_ms is not None:
        made["retention"] = seconds(job.retention_ms)
    if job.cost != 1:
        made["cost"] = job.cost
    if job.unique is not None:
        made["unique"] = _unique_document(job.unique)
    if job.deadline_ms is not None:
        made["deadline"] = rfc3339(job.deadline_ms)
    elif job.deadline_in_ms is not None:
        made["deadline"] = seconds(job.deadline_in_ms)
    if job.expires_in_ms is not None:
        made["expires_in"] = seconds(job.expires_in_ms)
    if job.after:
        made["after"] = list(job.after)
    if job.joins:
        made["before"] = list(job.joins)
    if job.hold:
        made["hold"] = True
    if job.on_failure:
        made["on_failure"] = job.on_failure
    return made


def flow_document(plan: Plan) -> dict[str, Any]:
    """A new flow as the API takes it; msgspec writes it."""
    jobs = [{**new_document(node.job), "name": node.name, "after": list(node.after)} for node in plan.nodes]
    return {"id": plan.id, "queue": plan.home, "on_failure": plan.on_failure, "jobs": jobs}


def _unique_document(unique: Unique) -> dict[str, Any]:
    times = {} if unique.for_ms is None else {"for": seconds(unique.for_ms)}
    said = {"key": unique.key, "until": unique.until, "on_conflict": unique.on_conflict}
    return times | {name: value for name, value in said.items() if value}


class HasId(Protocol):
    """What stands for a job: a handle, or the job as it is."""

    @property
    def id(self) -> str: ...


class JobOptions(TypedDict, total=False):
    """What may be said of a new job beside its type and payload; None is the same as not said."""

    queue: str | None
    id: str | None
    priority: int | None
    delay: Duration | None
    run_at: datetime | None
    group: str | None
    tags: Iterable[str] | None
    timeout: Duration | None
    retry: Retry | Mapping[str, Any] | None
    retention: Duration | None
    cost: int | None
    unique: bool | str | Mapping[str, Any] | None
    deadline: datetime | Duration | None
    expires_in: Duration | None
    after: Iterable[str | HasId] | None
    before: Iterable[str | HasId] | None
    hold: bool | None
    on_failure: str | None


class TracedOptions(JobOptions, total=False):
    """The same beside the store, where a job's trace is said too."""

    traceparent: str | None


OPTIONS = tuple(TracedOptions.__annotations__)


def read_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as fields of NewJob; those that are None are left out."""
    made: dict[str, Any] = {}
    faults: list[Fault] = []
    for name, value in options.items():
        if value is None:
            continue
        try:
            if name not in OPTIONS:
                raise ValueError(f"there is no such option; options are {', '.join(OPTIONS)}")
            if name == "id":
                made["key"] = str(value)
            elif name == "deadline":
                if isinstance(value, datetime):
                    made["deadline_ms"] = _moment(value)
                else:
                    made["deadline_in_ms"] = duration_ms(value)
            elif name in {"delay", "timeout", "retention", "expires_in"}:
                made[f"{name}_ms"] = duration_ms(value)
            elif name == "run_at":
                made["run_at_ms"] = _moment(value)
            elif name == "retry":
                made["retry"] = retry_policy.stored(
                    value.document() if isinstance(value, Retry) else Retry(**value).document()
                )
            elif name == "tags":
                if isinstance(value, str) or not all(isinstance(tag, str) for tag in value):
                    raise ValueError("a list of texts")
                made["tags"] = tuple(value)
            elif name == "unique":
                made["unique"] = _read_unique(value)
            elif name in {"after", "before"}:
                made["joins" if name == "before" else name] = ids_of(value)
            elif name == "hold":
                if not isinstance(value, bool):
                    raise ValueError("True or False")
                made[name] = value
            elif name in {"priority", "cost"}:
                if isinstance(value, bool) or not isinstance(value, int):
                    raise ValueError(
                        "a whole number from "
                        + ("-100 to 100" if name == "priority" else f"1 to {COSTLIEST}")
                    )
                made[name] = value
            elif not isinstance(value, str):
                raise ValueError("a text")
            else:
                made[name] = value
        except Invalid as error:
            faults += error.faults
        except (ValueError, TypeError) as error:
            faults.append(Fault(f"/{name}", str(error)))
    if faults:
        raise Invalid(faults)
    return made


def ids_of(value: object) -> tuple[str, ...]:
    """Ids of jobs, of a list of ids, handles and jobs. Raises ValueError for what is none."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError("a list of ids, or of handles")  # noqa: TRY004 - a fault of what was said
    found = tuple(one if isinstance(one, str) else getattr(one, "id", None) for one in value)
    if not all(isinstance(one, str) for one in found):
        raise ValueError("a list of ids, or of handles")
    return cast("tuple[str, ...]", found)


def unique_fields(value: object) -> Mapping[str, Any] | None:
    """What makes a job unique, as documents say it, of True, a key or the same. Raises ValueError for what is none of them."""
    if value is False:
        return None
    if value is True:
        return {}
    if isinstance(value, str):
        return {"key": value}
    if not isinstance(value, Mapping):
        raise ValueError("True, a key, or a mapping of key, for, until and on_conflict")  # noqa: TRY004 - a fault of what was said
    return value


def _read_unique(value: object) -> Unique | None:
    """What makes a job unique. Raises ValueError, or Invalid for one of its fields."""
    said = unique_fields(value)
    if said is None:
        return None
    faults: list[Fault] = []
    made: dict[str, Any] = {}
    for name, one in said.items():
        if name not in {"key", "for", "until", "on_conflict"}:
            faults.append(
                Fault(f"/unique/{name}", "there is no such field; it has key, for, until and on_conflict")
            )
        elif one is None:
            continue
        elif name == "for":
            try:
                made["for_ms"] = duration_ms(one)
            except ValueError as error:
                faults.append(Fault("/unique/for", str(error)))
        elif not isinstance(one, str):
            faults.append(Fault(f"/unique/{name}", "a text"))
        else:
            # An empty one would say nothing: it is refused as what it is.
            made[name] = one or "\0"
    if faults:
        raise Invalid(faults)
    return Unique(**made)


def _moment(value: object) -> int:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError("a datetime with a time zone")
    return round(value.timestamp() * 1000)


class NoJson(ValueError):
    """A value that is no JSON."""


def to_json(value: Any) -> bytes:
    """A value as JSON: what msgspec encodes, integers of any size. Raises NoJson."""
    try:
        encoded = msgspec.json.encode(value)
    except OverflowError:
        encoded = json.dumps(value, separators=(",", ":")).encode()
    except Exception as error:
        raise NoJson(f"it is no JSON: {error}") from error
    if b"null" in encoded and no_json_number(value):
        raise NoJson("it is no JSON: it holds NaN or an infinity")
    return encoded


def no_json_number(value: Any) -> bool:
    """Whether NaN or an infinity is in it, which the encoder writes as null without a word."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(no_json_number(item) for item in value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return any(no_json_number(item) for item in value)
    return False

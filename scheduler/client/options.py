"""What callers may say beside the call itself, as the API has it. What is left out is not said; None lifts where it may."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, TypedDict

from ..documents import Duration, JobOptions, ids_of, unique_fields
from ..errors import Fault, Invalid
from ..retry import Retry

Rate = str | Mapping[str, Any]
"""Such as "100/m", or `{"limit": 100, "per": "1m", "burst": 10}`."""


class CopyOptions(JobOptions, total=False):
    """What is different in a copy; None lifts what the job that is copied has of its own."""

    type: str
    payload: Any


class Edits(TypedDict, total=False):
    """What is different when a dead job runs again."""

    payload: Any


class Changes(TypedDict, total=False):
    """What is to be changed of a job that waits."""

    payload: Any
    priority: int | None
    run_at: datetime | str | None
    tags: Iterable[str] | None


class QueueOptions(TypedDict, total=False):
    """The configuration of a queue."""

    paused: bool | None
    draining: bool | None
    priority_mode: Literal["strict"] | Mapping[str, Any] | None
    max_length: int | None
    max_bytes: int | None
    rate: Rate | None
    concurrency: int | None
    group_rate: Rate | None
    group_concurrency: int | None
    retention: Mapping[str, Any] | None


class TypeOptions(TypedDict, total=False):
    """The policy of a type."""

    retry: Retry | Mapping[str, Any] | None
    timeout: Duration | None
    schema: Mapping[str, Any] | bool | None
    rate: Rate | None
    concurrency: int | None
    paused: bool | None
    breaker: Mapping[str, Any] | None


class GroupOptions(TypedDict, total=False):
    """The policy of a group."""

    weight: int | None
    rate: Rate | None
    concurrency: int | None
    paused: bool | None


class OfReplay(TypedDict, total=False):
    """How dead jobs run again."""

    rate: Rate | None
    payload_patch: Any
    stop_after_failures: int | None


class OperationOptions(OfReplay, total=False):
    """Of an operation: to which jobs it goes, and whether it only counts them; `into`: another queue to run them in."""

    ids: Iterable[str] | None
    limit: int | None
    dry_run: bool
    into: str | None


class PurgeDeadOptions(TypedDict, total=False):
    """Which dead jobs: these, or all for which the rest holds."""

    ids: Iterable[str] | None
    type: str | None
    kind: str | None
    fingerprint: str | None
    before: datetime | str | None
    limit: int | None
    dry_run: bool


class ReplayDeadOptions(PurgeDeadOptions, OfReplay, total=False):
    """The same, and how they run again; `queue`: in another one."""

    queue: str | None


class PurgeOptions(TypedDict, total=False):
    """Which jobs of a state."""

    type: str | None
    older_than: Duration | None
    limit: int | None
    dry_run: bool


class ScheduleOptions(TypedDict, total=False):
    """What a schedule does, and when: `cron` or `every`."""

    cron: str | None
    every: Duration | None
    queue: str
    payload: Any
    timezone: str
    jitter: Duration
    overlap: Literal["skip", "allow", "cancel_running", "queue_one"]
    catch_up: Literal["latest", "none", "all"]
    catch_up_window: Duration | None
    starts_at: datetime | str | None
    ends_at: datetime | str | None
    max_runs: int | None
    paused: bool | None
    priority: int
    group: str | None
    tags: Iterable[str]
    timeout: Duration | None
    retry: Retry | Mapping[str, Any] | None
    retention: Duration | None
    cost: int
    expires_in: Duration | None


def as_sent(said: Mapping[str, Any]) -> dict[str, Any]:
    """What somebody says in words of Python, in those of the API: a time, a retry policy, handles of jobs.

    Raises Invalid for what makes no job unique, or is no job.
    """

    def told(name: str, value: Any) -> Any:
        if isinstance(value, datetime):
            return value.isoformat()
        if isinstance(value, Retry):
            return value.document()
        if value is not None and name in {"unique", "after"}:
            try:
                return unique_fields(value) if name == "unique" else ids_of(value)
            except ValueError as error:
                raise Invalid([Fault(f"/{name}", str(error))]) from error
        return list(value) if name in {"tags", "ids"} and not isinstance(value, str | None) else value

    return {name: told(name, value) for name, value in said.items()}

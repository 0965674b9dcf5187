"""Schedules that stand in the code of an app: made of what a decorator was given, and put when a worker starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from .documents import NoJson, read_options, to_json
from .errors import Changed, Duplicate, Fault, Invalid, NotFound, PayloadInvalid, StoreUnavailable
from .handlers import Handler
from .job import NewJob
from .logs import get_logger
from .schedule import WINDOW_MS, Schedule, end_of
from .scheduling import Schedules
from .store import Store
from .times import duration_ms, parse_rfc3339

log = get_logger(__name__)

JOB_OPTIONS = ("priority", "group", "tags", "timeout", "retry", "retention", "cost", "expires_in")


def make_schedule(
    handler: Handler,
    app: str,
    cron: str | None,
    *,
    every: float | str | None = None,
    timezone: str = "UTC",
    name: str | None = None,
    queue: str | None = None,
    payload: Mapping[str, Any] | None = None,
    jitter: float | str = 0,
    overlap: str = "skip",
    catch_up: str = "latest",
    catch_up_window: float | str | None = None,
    starts_at: datetime | str | None = None,
    ends_at: datetime | str | None = None,
    max_runs: int | None = None,
    **options: Any,
) -> Schedule:
    """A schedule for the jobs of a handler. Raises Invalid for what cannot be one, PayloadInvalid for what the handler does not take."""
    unknown = [option for option in options if option not in JOB_OPTIONS]
    if unknown:
        raise Invalid([Fault(f"/{option}", "a schedule has no such option") for option in unknown])
    try:
        encoded = to_json({} if payload is None else payload)
    except NoJson as error:
        raise PayloadInvalid(f"the payload of {handler.type} cannot be sent: {error}") from error
    handler.decode(encoded)
    faults: list[Fault] = []
    job = NewJob(type=handler.type, **read_options(options))
    window = _read(catch_up_window, "/catch_up_window", faults)
    schedule = Schedule(
        name=handler.type if name is None else name,
        queue=handler.queue if queue is None else queue,
        type=handler.type,
        payload=encoded,
        cron=cron,
        every_ms=_read(every, "/every", faults),
        timezone=timezone,
        jitter_ms=_read(jitter, "/jitter", faults) or 0,
        overlap=overlap,
        catch_up=catch_up,
        catch_up_window_ms=WINDOW_MS if window is None else window,
        starts_ms=_moment(starts_at, "/starts_at", faults),
        ends_ms=end_of(_moment(ends_at, "/ends_at", faults)),
        max_runs=max_runs,
        priority=job.priority,
        group=job.group,
        tags=tuple(job.tags),
        timeout_ms=job.timeout_ms,
        retry=job.retry,
        retention_ms=job.retention_ms,
        cost=job.cost,
        expires_in_ms=job.expires_in_ms,
        declared_by=app,
    )
    if not faults:
        # How large a payload may be is a setting, which is read when it is put.
        faults += schedule.faults(max_payload=len(encoded))
    if faults:
        raise Invalid(faults)
    return schedule


def _read(value: float | str | None, path: str, faults: list[Fault]) -> int | None:
    try:
        return None if value is None else duration_ms(value)
    except ValueError as error:
        faults.append(Fault(path, str(error)))
        return None


def _moment(value: datetime | str | None, path: str, faults: list[Fault]) -> int | None:
    try:
        if isinstance(value, datetime):
            value = value.isoformat()
        return None if value is None else parse_rfc3339(value)
    except ValueError as error:
        faults.append(Fault(path, str(error)))
        return None


async def declare_schedules(
    store: Store, schedules: Schedules, app: str, declared: Sequence[Schedule]
) -> None:
    """Puts the schedules of this code, and deletes those that the app declared before and does no more.

    What was put by hand stays, also under a name that the code has. Of two releases of the code that work side by side, the
    one that started last has its way.
    """
    names = {schedule.name for schedule in declared}
    before = await store.schedules_declared(app)
    if names - before:
        # The hint first: what was declared must be found when it is gone from the code.
        await store.tell_declared(app, sorted(names - before))
    for schedule in declared:
        try:
            await _declare(schedules, schedule)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - one schedule never stops the others, nor the worker
            log.error(
                "a schedule of the code is not put: it does not fire",
                schedule=schedule.name,
                error=str(error),
            )
    for name in sorted(before - names):
        await _withdraw(schedules, app, name)
        await store.tell_declared(app, [name], gone=True)


async def _declare(schedules: Schedules, schedule: Schedule) -> None:
    for _ in range(2):
        standing = await schedules.find(schedule.name)
        if standing is not None and standing.schedule.declared_by is None:
            log.warning(
                "a schedule of the code is not put: one that was made by hand has its name",
                schedule=schedule.name,
            )
            return
        if standing is not None and standing.schedule.queue != schedule.queue:
            # The code has moved it to another queue: it begins anew there.
            await schedules.drop(schedule.name)
        try:
            _, new = await schedules.put(schedule)
        except Duplicate:
            continue
        except Changed as error:
            log.warning("a schedule of the code is not put", schedule=schedule.name, error=str(error))
            return
        if new:
            log.info("declared a schedule", schedule=schedule.name, queue=schedule.queue)
        return
    log.warning(
        "a schedule of the code is not put: another queue has one of its name", schedule=schedule.name
    )


async def _withdraw(schedules: Schedules, app: str, name: str) -> None:
    def check(standing: Any) -> None:
        if standing is None or standing.schedule.declared_by != app:
            raise Changed("it is somebody else's by now")

    try:
        await schedules.drop(name, check=check)
    except (Changed, NotFound):
        return
    log.info("deleted a schedule that is gone from the code", schedule=name)

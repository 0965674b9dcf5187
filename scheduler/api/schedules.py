"""Schedules: what is enqueued again and again, and when."""

from __future__ import annotations

import re
from collections.abc import Callable

from aiohttp import hdrs, web
from msgspec import Raw

from ..errors import Fault, Invalid
from ..fields import Nothing, ScheduleFields
from ..job import split_id
from ..keys import QUEUE_NAME
from ..limits import COSTLIEST
from ..schedule import WINDOW_MS, Schedule, Standing, end_of
from ..shown import JobShown, PreviewShown, ScheduleShown, SchedulesShown
from ..times import duration_ms, parse_rfc3339, rfc3339
from .jobs import check_size, priority_of, read_with, retry_of
from .limits import whole_of
from .once import Seed, once
from .pages import PAGE, cursor, cursor_of, limit_of
from .parts import IDEMPOTENT_BODY, SCHEDULES, SETTINGS, STORE
from .routes import Param, Table, json_answer, schedule_name, with_payload
from .versions import etag, refusing

table = Table()

MOST_SHOWN = 1_000
"""Slots of a preview."""

_QUEUE = {
    "queue": Param({"type": "string", "pattern": f"^{QUEUE_NAME.pattern}$"}, "Only those of this queue.")
}
_COUNT = {
    "count": Param({"type": "integer", "minimum": 1, "maximum": MOST_SHOWN, "default": 10}, "How many slots.")
}


@table.add("GET", "/v1/schedules", {200: SchedulesShown}, query={**PAGE, **_QUEUE})
async def list_schedules(request: web.Request, _: None) -> web.Response:
    """All schedules by name, a page at a time. One call looks at no more than 2,000."""
    queue = request.query.get("queue")
    limit, of = limit_of(request), [request.path, queue or ""]
    at = cursor_of(request, of)
    if queue is not None and not QUEUE_NAME.fullmatch(queue):
        raise Invalid([Fault("/queue", "1 to 64 letters, digits, '.', '_' or '-', a letter or digit first")])
    found, after = await request.app[SCHEDULES].page(after=at[0] if at else "", limit=limit, queue=queue)
    items = await request.app[SCHEDULES].documents(found)
    return json_answer({"items": items, "next_cursor": None if after is None else cursor(of, [after])})


@table.add(
    "GET",
    "/v1/schedules/{schedule}",
    {200: ScheduleShown, 304: None},
    codes=("not_found",),
    headers=("ETag",),
)
async def get_schedule(request: web.Request, _: None) -> web.Response:
    """One schedule: what it does, its next slots, and what became of its last ones."""
    return await _answer(request, await request.app[SCHEDULES].get(schedule_name(request)))


@table.add(
    "PUT", "/v1/schedules/{schedule}", {200: ScheduleShown, 201: ScheduleShown}, body=ScheduleFields, limit=with_payload,
    codes=("duplicate", "precondition_failed", "too_large"), headers=("ETag",),
)  # fmt: skip
async def put_schedule(request: web.Request, fields: ScheduleFields) -> web.Response:
    """Create a schedule, or replace it. Its queue stays as it is: another one is a 409.

    What was due is due still unless its times change; then it goes on from now, and a period from now on.
    """
    name = schedule_name(request, new=True)
    schedule = schedule_of(name, fields, max_payload=request.app[SETTINGS].max_payload)
    if hdrs.IF_NONE_MATCH in request.headers:
        # Before its queue is looked at: the name may be taken in another one.
        _expected(request)(await request.app[SCHEDULES].find(name))
    standing, new = await request.app[SCHEDULES].put(schedule, paused=fields.paused, check=_expected(request))
    return await _answer(request, standing, 201 if new else 200)


@table.add(
    "DELETE", "/v1/schedules/{schedule}", {204: None}, codes=("not_found", "precondition_failed"),
)  # fmt: skip
async def delete_schedule(request: web.Request, _: None) -> web.Response:
    """Delete a schedule. The jobs that it has made stay."""
    await request.app[SCHEDULES].drop(schedule_name(request), check=_expected(request))
    return web.Response(status=204)


@table.add(
    "POST", "/v1/schedules/{schedule}/pause", {200: ScheduleShown}, body=Nothing, optional=True,
    codes=("not_found", "precondition_failed"), headers=("ETag",),
)  # fmt: skip
async def pause_schedule(request: web.Request, _: Nothing) -> web.Response:
    """Make no jobs until it is resumed. What comes due meanwhile is not missed, and not caught up."""
    return await _paused(request, paused=True)


@table.add(
    "POST", "/v1/schedules/{schedule}/resume", {200: ScheduleShown}, body=Nothing, optional=True,
    codes=("not_found", "precondition_failed"), headers=("ETag",),
)  # fmt: skip
async def resume_schedule(request: web.Request, _: Nothing) -> web.Response:
    """Go on with the next slot from now."""
    return await _paused(request, paused=False)


@table.add(
    "POST", "/v1/schedules/{schedule}/trigger", {201: JobShown}, body=Nothing, optional=True,
    codes=("not_found", "duplicate", "queue_full"), headers=("Location",), once=True,
)  # fmt: skip
async def trigger_schedule(request: web.Request, _: Nothing) -> web.Response:
    """Make a job of it now, whatever its times, its overlap and its pause say. `max_runs` does not count it."""
    name = schedule_name(request)

    async def act(seed: Seed | None) -> tuple[web.Response, bool]:
        job_id = await request.app[SCHEDULES].trigger(name, key="" if seed is None else seed.key())
        whole = split_id(job_id)
        assert whole is not None, "it is the id of a job"
        job = await request.app[STORE].job(*whole)
        return json_answer(job.document(), 201, {hdrs.LOCATION: f"/v1/jobs/{job_id}"}), True

    if IDEMPOTENT_BODY in request:
        return await once(request, act)
    return (await act(None))[0]


@table.add("GET", "/v1/schedules/{schedule}/preview", {200: PreviewShown}, query=_COUNT, codes=("not_found",))
async def preview_schedule(request: web.Request, _: None) -> web.Response:
    """Its next slots, also those that it would have if it were not paused. A job starts up to `jitter` later."""
    text = request.query.get("count", "10")
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= MOST_SHOWN:
        raise Invalid([Fault("/count", f"expected a whole number from 1 to {MOST_SHOWN}")])
    standing = await request.app[SCHEDULES].get(schedule_name(request))
    now = await request.app[STORE].server_time()
    return json_answer({"items": [rfc3339(slot) for slot in standing.upcoming(now, int(text))]})


async def _paused(request: web.Request, *, paused: bool) -> web.Response:
    check = _expected(request)
    standing = await request.app[SCHEDULES].set_paused(schedule_name(request), paused, check=check)
    return await _answer(request, standing)


def _expected(request: web.Request) -> Callable[[Standing | None], None]:
    """Refuses where what stands is not what If-Match and If-None-Match ask for."""
    return refusing(request, "schedule", lambda standing: standing.version)


async def _answer(request: web.Request, standing: Standing, status: int = 200) -> web.Response:
    [shown] = await request.app[SCHEDULES].documents([standing])
    return json_answer(shown, status, etag(standing.version))


def schedule_of(name: str, fields: ScheduleFields, *, max_payload: int) -> Schedule:
    """The schedule that was asked for. Raises Invalid with all that is wrong, or Refusal."""
    faults: list[Fault] = []
    payload = bytes(fields.payload) if isinstance(fields.payload, Raw) else b"{}"
    window = read_with(fields.catch_up_window, "/catch_up_window", duration_ms, faults)
    schedule = Schedule(
        name=name,
        queue=fields.queue,
        type=fields.type,
        payload=payload,
        cron=fields.cron,
        every_ms=read_with(fields.every, "/every", duration_ms, faults),
        timezone=fields.timezone,
        jitter_ms=read_with(fields.jitter, "/jitter", duration_ms, faults) or 0,
        overlap=fields.overlap,
        catch_up=fields.catch_up,
        catch_up_window_ms=WINDOW_MS if window is None else window,
        starts_ms=read_with(fields.starts_at, "/starts_at", parse_rfc3339, faults),
        ends_ms=end_of(read_with(fields.ends_at, "/ends_at", parse_rfc3339, faults)),
        max_runs=whole_of(fields.max_runs, "/max_runs", 1, 2**53 - 1, faults),
        priority=priority_of(fields.priority, faults),
        group=fields.group,
        tags=tuple(fields.tags),
        timeout_ms=read_with(fields.timeout, "/timeout", duration_ms, faults),
        retry=None if fields.retry is None else retry_of(fields.retry, faults),
        retention_ms=read_with(fields.retention, "/retention", duration_ms, faults),
        cost=whole_of(fields.cost, "/cost", 1, COSTLIEST, faults) or 1,
        expires_in_ms=read_with(fields.expires_in, "/expires_in", duration_ms, faults),
    )
    check_size(payload, max_payload)
    told = {fault.path for fault in faults}
    faults += [fault for fault in schedule.faults(max_payload=max_payload) if fault.path not in told]
    if "/every" in told:
        faults = [fault for fault in faults if fault.path != "/cron" or "either" not in fault.message]
    if faults:
        raise Invalid(faults)
    return schedule

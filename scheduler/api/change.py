"""One job: change it while it waits, copy it, delete it."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from msgspec import UNSET, Raw, UnsetType
from msgspec.structs import replace

from ..errors import Fault, Invalid, WrongState
from ..fields import CopyFields, JobFields
from ..job import Job, NewJob, State, faults_of, new_key
from ..limits import COSTLIEST
from ..shown import JobShown
from ..times import duration_ms, parse_rfc3339
from .jobs import (
    check_outcome,
    check_size,
    deadline_of,
    enqueued,
    key_of,
    priority_of,
    read_with,
    retry_of,
    seeded,
    unique_of,
)
from .limits import whole_of
from .once import Seed, once
from .parts import IDEMPOTENT_BODY, SCHEMAS, SETTINGS, STORE
from .routes import Table, job_id, json_answer, with_payload

table = Table()

WAITING: set[str] = {State.SCHEDULED, State.BLOCKED, State.READY, State.RETRYING}


@table.add(
    "PATCH", "/v1/jobs/{id}", {200: JobShown},
    body=JobFields, limit=with_payload, codes=("not_found", "wrong_state", "precondition_failed", "store_full"),
)  # fmt: skip
async def update(request: web.Request, fields: JobFields) -> web.Response:
    """Change a job that waits: what is left out stays as it is. 412: others keep changing it, try again."""
    queue, key = job_id(request)
    changes = _changes(fields, request.app[SETTINGS].max_payload)
    if "payload" in changes:
        await request.app[SCHEMAS].check_edit(queue, key, changes["payload"])
    outcome = await request.app[STORE].update(queue, key, **changes)
    timed = outcome == State.BLOCKED and not isinstance(fields.run_at, UnsetType)
    why = "it has no time of its own" if timed else "only what waits can be changed"
    check_outcome(outcome, queue, key, set() if timed else WAITING, why)
    return json_answer((await request.app[STORE].job(queue, key)).document())


@table.add("DELETE", "/v1/jobs/{id}", {204: None}, codes=("not_found", "wrong_state"))
async def delete(request: web.Request, _: None) -> web.Response:
    """Delete a job that does not run. Its id is free at once."""
    queue, key = job_id(request)
    [outcome] = await request.app[STORE].purge(queue, [key])
    check_outcome(outcome, queue, key, {"gone"}, "cancel it first, and let its worker stop")
    return web.Response(status=204)


@table.add(
    "POST", "/v1/jobs/{id}/copy", {201: JobShown, 200: JobShown},
    body=CopyFields, optional=True, limit=with_payload,
    codes=("not_found", "wrong_state", "duplicate", "queue_full", "store_full"), headers=("Location",), once=True,
)  # fmt: skip
async def copy(request: web.Request, fields: CopyFields) -> web.Response:
    """Enqueue a new job like this one, whatever became of it; its document names it in `copied_from`.

    It runs at once unless it is given a time of its own. With an `id` it is safe to repeat, as a new job is.
    """
    queue, key = job_id(request)

    async def made() -> NewJob:
        found = await request.app[STORE].job(queue, key)
        return _copy(found, fields, request.app[SETTINGS].max_payload)

    async def act(seed: Seed) -> tuple[web.Response, bool]:
        return await enqueued(request, seeded(await made(), seed)), True

    if IDEMPOTENT_BODY in request:
        return await once(request, act)
    return await enqueued(request, await made())


def _changes(fields: JobFields, max_payload: int) -> dict[str, Any]:
    """What store.update is to change. Raises Invalid with all that is wrong, or Refusal."""
    faults: list[Fault] = []
    changes: dict[str, Any] = {}
    if isinstance(fields.payload, Raw):
        changes["payload"] = bytes(fields.payload)
        check_size(changes["payload"], max_payload)
    if not isinstance(fields.priority, UnsetType):
        changes["priority"] = priority_of(fields.priority or 0, faults)
    if not isinstance(fields.tags, UnsetType):
        changes["tags"] = fields.tags or []
    if fields.run_at is None:
        changes["delay_ms"] = 0
    elif not isinstance(fields.run_at, UnsetType):
        changes["run_at_ms"] = read_with(fields.run_at, "/run_at", parse_rfc3339, faults)
    shown = NewJob(type="t", priority=changes.get("priority", 0), tags=changes.get("tags", ()))
    faults += faults_of(shown, max_payload=max_payload)
    if faults:
        raise Invalid(faults)
    return changes


def _copy(job: Job, fields: CopyFields, max_payload: int) -> NewJob:
    """The job that a copy is. Raises Invalid with all that is wrong, Refusal, or WrongState when the payload is gone."""
    faults: list[Fault] = []
    key = new_key()
    changes: dict[str, Any] = {
        "key": key,
        "own_key": key,
        "delay_ms": read_with(fields.delay, "/delay", duration_ms, faults),
        "run_at_ms": read_with(fields.run_at, "/run_at", parse_rfc3339, faults),
        "expires_in_ms": read_with(fields.expires_in, "/expires_in", duration_ms, faults),
    }
    changes["deadline_ms"], changes["deadline_in_ms"] = deadline_of(fields.deadline, faults)
    for name in ("type", "queue", "group"):
        if (value := getattr(fields, name)) is not UNSET:
            changes[name] = value
    if isinstance(fields.payload, Raw):
        changes["payload"] = bytes(fields.payload)
    elif job.payload is None:
        raise WrongState(f"the payload of job {job.id} is gone: give the copy one", job.state)
    if fields.id is not None:
        changes["key"] = key_of(fields.id, changes.get("queue", job.queue), faults)
    if not isinstance(fields.priority, UnsetType):
        changes["priority"] = priority_of(fields.priority or 0, faults)
    if not isinstance(fields.tags, UnsetType):
        changes["tags"] = fields.tags or ()
    for name in ("timeout", "retention"):
        if (value := getattr(fields, name)) is not UNSET:
            changes[f"{name}_ms"] = read_with(value, f"/{name}", duration_ms, faults)
    if not isinstance(fields.cost, UnsetType):
        changes["cost"] = whole_of(fields.cost, "/cost", 1, COSTLIEST, faults) or 1
    if not isinstance(fields.retry, UnsetType):
        changes["retry"] = None if fields.retry is None else retry_of(fields.retry, faults)
    if fields.unique is not None:
        changes["unique"] = unique_of(fields.unique, faults)
    changes["after"], changes["on_failure"] = fields.after, fields.on_failure or ""
    made = replace(job.like(), **changes)
    check_size(made.payload, max_payload)
    faults += faults_of(made, max_payload=max_payload)
    if faults:
        raise Invalid(faults)
    return made

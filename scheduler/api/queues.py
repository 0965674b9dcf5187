"""Queues: what stands in them, whether they are paused, what they keep."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web
from msgspec import UNSET, UnsetType

from ..errors import Fault, Invalid, NotFound, WrongState
from ..fields import AgingFields, KeepFields, Nothing, PurgeFields, QueueFields, RetentionFields
from ..job import LONGEST_DELAY_MS
from ..outcomes import DEFAULT_RETENTION, KEPT, STRICT_STEP, Census, kept_fields, queue_document
from ..shown import OperationShown, QueueShown, QueuesShown
from ..times import duration_ms
from .limits import at_once as at_once_of
from .limits import rate_of, within
from .operations import at_once, plan_of_purge
from .pages import PAGE, page_of
from .parts import PRESENCE, STORE
from .routes import Param, Table, json_answer, queue_name
from .versions import etag, expected

table = Table()

AGING_MS = 100, 365 * 86_400_000
"""The shortest and the longest wait that a level of priority may be worth."""

LIMITS = ("rate", "group_rate", "concurrency", "group_concurrency")
ROOM = ("max_length", "max_bytes")


@table.add("GET", "/v1/queues", {200: QueuesShown}, query=PAGE)
async def list_queues(request: web.Request, _: None) -> web.Response:
    """All queues by name, a page at a time."""
    store = request.app[STORE]
    page, cursor = page_of(request, await store.queues())
    found = await store.run_all([store.census_call(name) for name in page]) if page else []
    workers, items = await request.app[PRESENCE].counts(), []
    for name, census in zip(page, found, strict=True):
        if isinstance(census, Exception):
            raise census
        if census is not None:
            items.append(queue_document(name, census, workers[name]))
    return json_answer({"items": items, "next_cursor": cursor})


@table.add("GET", "/v1/queues/{queue}", {200: QueueShown, 304: None}, codes=("not_found",), headers=("ETag",))
async def get_queue(request: web.Request, _: None) -> web.Response:
    """One queue: how many jobs in each state, how long the first in line has waited, its configuration."""
    queue = queue_name(request)
    return await _answer(request, queue, await request.app[STORE].census(queue))


@table.add(
    "PUT", "/v1/queues/{queue}", {200: QueueShown, 201: QueueShown}, body=QueueFields,
    codes=("precondition_failed",), headers=("ETag",),
)  # fmt: skip
async def put_queue(request: web.Request, fields: QueueFields) -> web.Response:
    """Create a queue, or replace its configuration: what is left out is as by default."""
    queue = queue_name(request, new=True)
    lifted = dict.fromkeys(("paused", "draining", "step", *ROOM, *LIMITS), "") | {
        field: "" for state in DEFAULT_RETENTION for field in kept_fields(state)
    }
    changes = lifted | _changes(fields)
    store = request.app[STORE]
    before = await store.run(store.census_call(queue))
    await store.configure(queue, changes, expect=expected(request, before.version if before else None))
    return await _answer(request, queue, await store.census(queue), 200 if before else 201)


@table.add(
    "PATCH", "/v1/queues/{queue}", {200: QueueShown}, body=QueueFields,
    codes=("not_found", "precondition_failed"), headers=("ETag",),
)  # fmt: skip
async def patch_queue(request: web.Request, fields: QueueFields) -> web.Response:
    """Change the configuration of a queue: what is left out stays, null lifts."""
    queue = queue_name(request)
    return await _changed(request, queue, _changes(fields))


@table.add(
    "POST", "/v1/queues/{queue}/pause", {200: QueueShown}, body=Nothing, optional=True,
    codes=("not_found", "precondition_failed"), headers=("ETag",),
)  # fmt: skip
async def pause(request: web.Request, _: Nothing) -> web.Response:
    """Claim nothing more from a queue. What runs goes on."""
    return await _changed(request, queue_name(request), {"paused": "1"})


@table.add(
    "POST", "/v1/queues/{queue}/resume", {200: QueueShown}, body=Nothing, optional=True,
    codes=("not_found", "precondition_failed"), headers=("ETag",),
)  # fmt: skip
async def resume(request: web.Request, _: Nothing) -> web.Response:
    """Let a paused queue be claimed from again, and a draining one accept jobs again."""
    return await _changed(request, queue_name(request), {"paused": "", "draining": ""})


@table.add(
    "POST", "/v1/queues/{queue}/drain", {200: QueueShown}, body=Nothing, optional=True,
    codes=("not_found", "precondition_failed"), headers=("ETag",),
)  # fmt: skip
async def drain(request: web.Request, _: Nothing) -> web.Response:
    """Accept no new job in a queue (429 `queue_full`). The jobs that stand there are run, until `resume`.

    A job that stands already is still returned for its repeated request. What a running job adds with its end is accepted;
    a schedule skips its slots (`full`).
    """
    return await _changed(request, queue_name(request), {"draining": "1"})


@table.add(
    "POST", "/v1/queues/{queue}/purge", {200: OperationShown, 202: OperationShown},
    body=PurgeFields, codes=("not_found", "wrong_state"), headers=("Location",),
)  # fmt: skip
async def purge_queue(request: web.Request, fields: PurgeFields) -> web.Response:
    """Delete jobs of one state (not running). 200 when one page sufficed, else 202, and it goes on."""
    queue = queue_name(request)
    return await at_once(request, queue, plan_of_purge(fields))


_OBLITERATE = {
    "confirm": Param({"type": "string"}, "The queue's name again.", required=True),
    "force": Param({"type": "string", "enum": ["true", "false"]}, "Also while jobs run."),
}


@table.add("DELETE", "/v1/queues/{queue}", {204: None}, query=_OBLITERATE, codes=("not_found", "wrong_state"))
async def obliterate(request: web.Request, _: None) -> web.Response:
    """Delete a queue with all that is in it: its jobs, their history, its configuration. Nothing is left.

    While a job runs this needs `force=true`: its worker's settlement then finds nothing.
    """
    queue, faults = queue_name(request), []
    if request.query.get("confirm") != queue:
        faults.append(
            Fault("/confirm", f"this deletes all of {queue}: repeat its name here, as ?confirm={queue}")
        )
    if request.query.get("force", "false") not in {"true", "false"}:
        faults.append(Fault("/force", "expected true or false"))
    if faults:
        raise Invalid(faults)
    outcome = await request.app[STORE].obliterate(queue, force=request.query.get("force") == "true")
    if outcome == "missing":
        raise NotFound(f"there is no queue {queue!r}")
    if outcome == "running":
        raise WrongState(f"a job of {queue} runs: wait, or say force=true", "running")
    return web.Response(status=204)


async def _changed(request: web.Request, queue: str, changes: Mapping[str, str]) -> web.Response:
    store = request.app[STORE]
    before = await store.census(queue)
    expect = expected(request, before.version)
    # A change that changes nothing leaves the version, and whoever read it, alone.
    if all(before.config.get(field, "") == value for field, value in changes.items()):
        return await _answer(request, queue, before)
    await store.configure(queue, changes, expect=expect)
    return await _answer(request, queue, await store.census(queue))


# -- documents -----------------------------------------------------------------------------------------------


async def _answer(request: web.Request, queue: str, census: Census, status: int = 200) -> web.Response:
    workers = (await request.app[PRESENCE].counts())[queue]
    return json_answer(queue_document(queue, census, workers), status, etag(census.version))


def _changes(fields: QueueFields) -> dict[str, str]:
    """Fields of the stored configuration, "" for one that is lifted. Raises Invalid."""
    changes: dict[str, str] = {}
    faults: list[Fault] = []
    if not isinstance(fields.paused, UnsetType):
        changes["paused"] = "1" if fields.paused else ""
    if not isinstance(fields.draining, UnsetType):
        changes["draining"] = "1" if fields.draining else ""
    if not isinstance(fields.priority_mode, UnsetType):
        changes["step"] = _step(fields.priority_mode, faults)
    for name in ROOM:
        if (value := getattr(fields, name)) is not UNSET:
            changes[name] = "" if value is None else _count(value, f"/{name}", faults)
    for name in ("rate", "group_rate"):
        if (value := getattr(fields, name)) is not UNSET:
            rate = rate_of(value, f"/{name}", faults)
            changes[name] = "" if rate is None else rate.text()
    for name in ("concurrency", "group_concurrency"):
        if (value := getattr(fields, name)) is not UNSET:
            changes[name] = str(at_once_of(value, f"/{name}", faults) or "")
    retention = fields.retention
    if retention is None:
        changes |= {field: "" for state in DEFAULT_RETENTION for field in kept_fields(state)}
    elif isinstance(retention, RetentionFields):
        for state in DEFAULT_RETENTION:
            limits = getattr(retention, state)
            if limits is None:
                changes |= dict.fromkeys(kept_fields(state), "")
            elif limits is not UNSET:
                changes |= _limits(limits, state, faults)
    if faults:
        raise Invalid(faults)
    return changes


def _step(mode: AgingFields | str | None, faults: list[Fault]) -> str:
    """What a level of priority is worth, in microseconds of waiting; "" for what is so by default."""
    if mode is None:
        return ""
    if not isinstance(mode, AgingFields):
        return str(STRICT_STEP)
    return str(1_000 * within(mode.aging, "/priority_mode/aging", *AGING_MS, faults))


def _limits(limits: KeepFields, state: str, faults: list[Fault]) -> dict[str, str]:
    changes: dict[str, str] = {}
    for what, field in zip(KEPT, kept_fields(state), strict=True):
        value, path = getattr(limits, what), f"/retention/{state}/{what}"
        if value is UNSET:
            continue
        if value is None:
            changes[field] = ""
        elif what == "age":
            changes[field] = _age(value, path, faults)
        else:
            changes[field] = _count(value, path, faults)
    return changes


def _count(value: float, path: str, faults: list[Fault]) -> str:
    if value != int(value) or not 0 <= value < 2**53:
        faults.append(Fault(path, "expected a whole number from 0 to 9007199254740991"))
    return str(int(value))


def _age(value: float | str, path: str, faults: list[Fault]) -> str:
    try:
        found = duration_ms(value)
    except ValueError as error:
        faults.append(Fault(path, str(error)))
        return ""
    if found > LONGEST_DELAY_MS:
        faults.append(Fault(path, "at most 10 years"))
    return str(found)

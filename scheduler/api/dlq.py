"""The dead-letter queue of a queue."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from ..errors import Fault, Invalid
from ..fields import PurgeDeadFields, ReplayDeadFields
from ..job import State
from ..keys import QUEUE_NAME
from ..listing import Filters, Place, page
from ..shown import DeadShown, GroupsShown, OperationShown
from ..times import parse_rfc3339
from .lists import INCLUDE, filters_of, include_of, place_cursor
from .operations import at_once, plan_of_dead
from .pages import PAGE, cursor, cursor_of, limit_of
from .parts import STORE
from .routes import Param, Table, json_answer, queue_name, with_payload

table = Table()

FILTERS: Mapping[str, Param] = {
    "type": Param({"type": "string", "pattern": f"^{QUEUE_NAME.pattern}$"}, "Of this type."),
    "kind": Param({"type": "string", "minLength": 1, "maxLength": 200}, "Whose last error is of this kind."),
    "fingerprint": Param(
        {"type": "string", "pattern": "^[0-9a-f]{16}$"}, "That died alike: see `fingerprint` of an item."
    ),
}
_BEFORE = {"before": Param({"type": "string", "format": "date-time"}, "That ended before this time.")}


_BY = {"by": Param({"enum": ["fingerprint"]}, "Groups of jobs that died alike, those that grew last first.")}


@table.add(
    "GET", "/v1/queues/{queue}/dlq", {200: (DeadShown, GroupsShown)},
    query={**FILTERS, **_BEFORE, **_BY, **INCLUDE, **PAGE}, codes=("not_found",),
)  # fmt: skip
async def list_dead(request: web.Request, _: None) -> web.Response:
    """The dead jobs of a queue, newest first, a page at a time.

    A `fingerprint` is made of type, kind and message of what a job died of, its last error, with numbers and ids taken
    out of the message. A page may be short or empty and still have a cursor: only null is the end.

    With `by=fingerprint` the items are groups: how many died alike, since when, and of what. They are kept as jobs die
    and leave, nothing is counted for this call.
    """
    if "by" in request.query:
        return await _groups(request)
    queue, store = queue_name(request), request.app[STORE]
    said = filters_of(request, FILTERS)
    before = _before(request)
    of = ["dlq", queue, f"before={before}", *(f"{name}={value}" for name, value in said.items())]
    at = cursor_of(request, of)
    limit, include = limit_of(request), include_of(request)
    await store.census(queue)
    filters = Filters(queue=queue, state=State.DEAD, **said, before_ms=before)
    found = await page(store, filters, at=Place(*at) if at else None, limit=limit, include=include)
    items = [{**job.document(include=include), "fingerprint": job.fingerprint} for job in found.jobs]
    return json_answer({"items": items, "next_cursor": place_cursor(of, found.rest)})


def _before(request: web.Request) -> int | None:
    text = request.query.get("before")
    if text is None:
        return None
    try:
        return parse_rfc3339(text)
    except ValueError as error:
        # In an address "+" is a space.
        hint = "; a + in an address is written %2B" if " " in text else ""
        raise Invalid([Fault("/before", f"{error}{hint}")]) from None


async def _groups(request: web.Request) -> web.Response:
    queue, store = queue_name(request), request.app[STORE]
    others = [
        Fault(f"/{name}", "this is no filter of groups")
        for name in (*_BEFORE, *INCLUDE)
        if name in request.query
    ]
    if request.query["by"] != "fingerprint":
        others.append(Fault("/by", "expected fingerprint"))
    if others:
        raise Invalid(others)
    said = filters_of(request, FILTERS)
    of = ["dlq groups", queue, *(f"{name}={value}" for name, value in said.items())]
    at, limit = cursor_of(request, of), limit_of(request)
    await store.census(queue)
    groups, rest = await store.groups(queue, after=at[0] if at else "", limit=min(limit, 500))
    items = [
        group.document()
        for group in groups
        if all(getattr(group, name) == value for name, value in said.items())
    ]
    return json_answer({"items": items, "next_cursor": cursor(of, [rest]) if rest else None})


@table.add(
    "POST", "/v1/queues/{queue}/dlq/replay", {200: OperationShown, 202: OperationShown},
    body=ReplayDeadFields, optional=True, limit=with_payload, codes=("not_found", "wrong_state"), headers=("Location",),
)  # fmt: skip
async def replay_dead(request: web.Request, fields: ReplayDeadFields) -> web.Response:
    """Run dead jobs again: by ids, or all that match. 200 when one page sufficed, else 202, and it goes on.

    Two replays at once run each job once. `rate` spreads them; `payload_patch` is merged into each payload, and the former
    one is kept in the job's `edits`; `stop_after_failures` ends it (state `failed`) when so many of the last 500 that it
    replayed have failed again, and waits up to 10 s for each page to run; `queue` moves them there, under the same keys.
    """
    queue = queue_name(request)
    return await at_once(request, queue, plan_of_dead(request, "replay", queue, fields))


@table.add(
    "POST", "/v1/queues/{queue}/dlq/purge", {200: OperationShown, 202: OperationShown},
    body=PurgeDeadFields, optional=True, codes=("not_found", "wrong_state"), headers=("Location",),
)  # fmt: skip
async def purge_dead(request: web.Request, fields: PurgeDeadFields) -> web.Response:
    """Delete dead jobs: by ids, or all that match. 200 when one page sufficed, else 202, and it goes on."""
    queue = queue_name(request)
    return await at_once(request, queue, plan_of_dead(request, "purge", queue, fields))

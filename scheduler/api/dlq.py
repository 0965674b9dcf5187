"""The dead-letter queue of a queue."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from ..errors import Fault, Invalid
from ..fields import DeadShown
from ..keys import QUEUE_NAME
from ..listing import Place, dead_letters, page
from ..times import parse_rfc3339
from .lists import INCLUDE, filters_of, include_of, place_cursor
from .pages import PAGE, cursor_of, limit_of
from .parts import STORE
from .routes import Param, Table, json_answer, queue_name

table = Table()

FILTERS: Mapping[str, Param] = {
    "type": Param({"type": "string", "pattern": f"^{QUEUE_NAME.pattern}$"}, "Of this type."),
    "kind": Param({"type": "string", "minLength": 1, "maxLength": 200}, "Whose last error is of this kind."),
    "fingerprint": Param(
        {"type": "string", "pattern": "^[0-9a-f]{16}$"}, "That died alike: see `fingerprint` of an item."
    ),
}
_BEFORE = {"before": Param({"type": "string", "format": "date-time"}, "That ended before this time.")}


@table.add(
    "GET", "/v1/queues/{queue}/dlq", {200: DeadShown},
    query={**FILTERS, **_BEFORE, **INCLUDE, **PAGE}, codes=("not_found",),
)  # fmt: skip
async def list_dead(request: web.Request, _: None) -> web.Response:
    """The dead jobs of a queue, newest first, a page at a time.

    A `fingerprint` is made of type, kind and message of what a job died of, its last error, with numbers and ids taken
    out of the message. A page may be short or empty and still have a cursor: only null is the end.
    """
    queue, store = queue_name(request), request.app[STORE]
    said = filters_of(request, FILTERS)
    before = _before(request)
    of = ["dlq", queue, f"before={before}", *(f"{name}={value}" for name, value in said.items())]
    at = cursor_of(request, of)
    limit, include = limit_of(request), include_of(request)
    await store.census(queue)
    filters, begin, keep = dead_letters(queue, **said, before_ms=before)
    found = await page(
        store, filters, at=Place(*at) if at else begin, limit=limit, include=include, keep=keep
    )
    items = [{**job.document(include=include), "fingerprint": job.failure_fingerprint} for job in found.jobs]
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

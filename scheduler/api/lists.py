"""Lists of jobs."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
from aiohttp import web

from ..errors import Fault, Invalid
from ..keys import JOB_KEY, QUEUE_NAME, STATES
from ..listing import Filters, Page, Place, page
from ..shown import JobsShown
from .pages import PAGE, cursor, cursor_of, limit_of
from .parts import STORE
from .routes import Param, Table, json_answer

table = Table()

INCLUDE: Mapping[str, Param] = {
    "include": Param(
        {
            "type": "string",
            "pattern": "^(payload|result|trace)(,(payload|result|trace))*$",
            "examples": ["payload,result"],
        },
        "What items carry besides, with commas between: payload, result, trace.",
    )
}
_NAMES: Mapping[str, tuple[re.Pattern[str], str]] = {
    "queue": (QUEUE_NAME, "1 to 64 letters, digits, '.', '_' or '-', a letter or digit first"),
    "state": (re.compile("|".join(STATES)), f"one of {', '.join(STATES)}"),
    "type": (QUEUE_NAME, "1 to 64 letters, digits, '.', '_' or '-', a letter or digit first"),
    "group": (JOB_KEY, "1 to 128 letters, digits, '.', '_' or '-'"),
    "tag": (JOB_KEY, "1 to 128 letters, digits, '.', '_' or '-'"),
    "error": (re.compile(r"(?s).{1,200}"), "1 to 200 characters"),
    "kind": (re.compile(r"(?s).{1,200}"), "1 to 200 characters"),
    "fingerprint": (re.compile("[0-9a-f]{16}"), "16 hexadecimal digits, as a dead letter shows them"),
}
FILTERS: Mapping[str, Param] = {
    "queue": Param({"type": "string", "pattern": f"^{QUEUE_NAME.pattern}$"}, "Of this queue alone."),
    "state": Param({"enum": list(STATES)}, "In this state alone."),
    "type": Param({"type": "string", "pattern": f"^{QUEUE_NAME.pattern}$"}, "Of this type."),
    "group": Param({"type": "string", "pattern": f"^{JOB_KEY.pattern}$"}, "Of this group."),
    "tag": Param({"type": "string", "pattern": f"^{JOB_KEY.pattern}$"}, "With this tag."),
    "error": Param({"type": "string", "minLength": 1, "maxLength": 200}, "With an error of this kind."),
}


@table.add("GET", "/v1/jobs", {200: JobsShown}, query={**FILTERS, **INCLUDE, **PAGE})
async def list_jobs(request: web.Request, _: None) -> web.Response:
    """Jobs by queue and state, a page at a time: queues by name, within a queue state by state.

    The states come in the order scheduled, blocked, ready, running, retrying, succeeded, cancelled, dead. Within one,
    what has ended comes newest first, ready jobs in the order they will run, scheduled and retrying ones by due time,
    running ones by the end of their lease. A call looks at no more than 2,000 jobs, so that a page may be short or
    empty and still have a cursor: only null is the end.
    """
    said = filters_of(request, FILTERS)
    of = ["jobs", *(f"{name}={value}" for name, value in said.items())]
    at = cursor_of(request, of)
    include = include_of(request)
    found = await page(
        request.app[STORE],
        msgspec.convert(said, Filters),
        at=Place(*at) if at else None,
        limit=limit_of(request),
        include=include,
    )
    return answer(found, of, include)


def filters_of(request: web.Request, taken: Mapping[str, Param]) -> dict[str, str]:
    """The filters that a query names, checked. Raises Invalid with all that is wrong."""
    said = {name: request.query[name] for name in taken if name in request.query}
    faults = [
        Fault(f"/{name}", _NAMES[name][1])
        for name, value in said.items()
        if not _NAMES[name][0].fullmatch(value)
    ]
    if faults:
        raise Invalid(faults)
    return said


def include_of(request: web.Request) -> frozenset[str]:
    """What items carry besides. Raises Invalid."""
    words = frozenset(request.query["include"].split(",")) if "include" in request.query else frozenset()
    if not words <= {"payload", "result", "trace"}:
        raise Invalid([Fault("/include", "payload, result, trace, with commas between")])
    return words


def answer(found: Page, of: list[str], include: frozenset[str]) -> web.Response:
    """A page of jobs."""
    return json_answer(
        {
            "items": [job.document(include=include) for job in found.jobs],
            "next_cursor": place_cursor(of, found.rest),
        }
    )


def place_cursor(of: list[str], rest: Place | None) -> str | None:
    """The cursor of the list `of` for what is left of it; None at its end."""
    return None if rest is None else cursor(of, [rest.queue, rest.state, rest.after])

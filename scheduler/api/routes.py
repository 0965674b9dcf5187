"""The table of routes: what each takes and answers stands beside its handler; OpenAPI is made of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson
from aiohttp import hdrs, web

from ..errors import Fault, Invalid, NotFound
from ..job import split_id
from ..keys import JOB_KEY, QUEUE_NAME
from ..settings import Settings
from ..times import typed_duration_ms
from .auth import check_site
from .body import decode, read
from .lines import is_ndjson
from .once import HEADER, check_header
from .parts import IDEMPOTENT_BODY, SETTINGS
from .versions import unless_known

Handler = Callable[[web.Request, Any], Awaitable[web.StreamResponse]]
LinesHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]

Answer = type[msgspec.Struct] | tuple[type[msgspec.Struct], ...] | None
"""What a call answers with a status: a type, one of several, or nothing."""

_NAMED = "1 to 64 letters, digits, '.', '_' or '-', a letter or digit first"

SMALL = 64 * 1024
"""Bytes that a body may have beside a payload, or without one."""

LARGE = 32 * 1024 * 1024
"""Bytes of a body that carries many jobs or settlements."""


def small(_: Settings) -> int:
    return SMALL


def large(_: Settings) -> int:
    return LARGE


def with_payload(settings: Settings) -> int:
    return settings.max_payload + SMALL


@dataclass(frozen=True, slots=True)
class Param:
    """A query parameter: its JSON Schema and what it does. One that is `required` is missed by its handler."""

    schema: Mapping[str, Any]
    doc: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Lines:
    """The same call with NDJSON: its handler reads the body and writes the answer, both line by line."""

    handler: LinesHandler
    takes: type[msgspec.Struct]
    answers: type[msgspec.Struct]
    ends: type[msgspec.Struct]
    """What the last line of the answer says."""


@dataclass(frozen=True, slots=True)
class Route:
    """One call. `body`: the type of what it takes, None for nothing; `raw`: its handler decodes the bytes itself.

    `codes`: its problems besides those of every call. `once`: it takes an Idempotency-Key.
    """

    method: str
    path: str
    handler: Handler
    answers: Mapping[int, Answer]
    body: Any
    raw: bool
    optional: bool
    limit: Callable[[Settings], int]
    query: Mapping[str, Param]
    codes: Sequence[str]
    headers: Sequence[str]
    lines: Lines | None = None
    once: bool = False

    @property
    def open(self) -> bool:
        """It needs no key and no store."""
        return not self.path.startswith("/v1/")

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Checks the query, reads the body, and hands both to the handler."""
        if request.query_string:
            self._check_query(request)
        if self.body is None:
            self._check_site(request)
            answer = await self.handler(request, None)
            return unless_known(request, answer) if 304 in self.answers else answer
        if self.lines is not None and is_ndjson(request):
            self._check_site(request)
            return await self.lines.handler(request)
        body = await read(request, self.limit(request.app[SETTINGS]), optional=self.optional)
        self._check_site(request)
        if self.once and HEADER in request.headers:
            check_header(request)
            request[IDEMPOTENT_BODY] = body
        return await self.handler(request, body if self.raw else decode(body, self.body))

    def _check_site(self, request: web.Request) -> None:
        # After the body was read: a form that is no JSON is told so.
        if self.method != hdrs.METH_GET:
            check_site(request)

    def _check_query(self, request: web.Request) -> None:
        # By items: the keys of a multidict come once, however often they were given.
        given = Counter([name for name, _ in request.query.items()])
        faults = [
            Fault(
                _pointer(name),
                "there is no such query parameter" if name not in self.query else "given more than once",
            )
            for name, times in given.items()
            if name not in self.query or times > 1
        ]
        if faults:
            raise Invalid(faults)


def _pointer(name: str) -> str:
    return "/" + name[:200].replace("~", "~0").replace("/", "~1")


class Table:
    """The routes of a module, filled by its decorators."""

    def __init__(self) -> None:
        self.routes: list[Route] = []

    def add(
        self,
        method: str,
        path: str,
        answers: Mapping[int, Answer],
        *,
        body: Any = None,
        raw: bool = False,
        optional: bool = False,
        limit: Callable[[Settings], int] = small,
        query: Mapping[str, Param] | None = None,
        codes: Sequence[str] = (),
        headers: Sequence[str] = (),
        lines: Lines | None = None,
        once: bool = False,
    ) -> Callable[[Handler], Handler]:
        """Says what the decorated handler takes and answers; its docstring is the document's text."""

        def keep(handler: Handler) -> Handler:
            self.routes.append(
                Route(
                    method,
                    path,
                    handler,
                    answers,
                    body,
                    raw,
                    optional,
                    limit,
                    query or {},
                    codes,
                    headers,
                    lines,
                    once,
                )
            )
            return handler

        return keep


async def _said_later(request: web.Request) -> None:
    """`100 Continue` is said when the body is wanted."""


def register(app: web.Application, routes: Sequence[Route]) -> None:
    """Adds routes to an application; GET answers HEAD too."""
    for route in routes:
        # aiohttp wants a coroutine function, which an object with an asynchronous __call__ is not.
        async def endpoint(request: web.Request, route: Route = route) -> web.StreamResponse:
            return await route(request)

        methods = ("GET", "HEAD") if route.method == "GET" else (route.method,)
        for method in methods:
            app.router.add_route(method, _pattern(route.path, routes), endpoint, expect_handler=_said_later)


def _pattern(path: str, routes: Sequence[Route]) -> str:
    """A path as aiohttp takes it. Where another path has a word, that is no name: /v1/jobs/bulk is no job's."""
    # aiohttp's own pattern leaves out braces: those are for us to refuse.
    pattern = path.replace("}", ":[^/]+}")
    if path.endswith("}"):
        before = path[: path.rindex("{")]
        words = {route.path[len(before) :] for route in routes if route.path.startswith(before)}
        others = "".join(f"(?!{word}$)" for word in sorted(words) if word.isalpha())
        pattern = pattern.removesuffix("[^/]+}") + others + "[^/]+}"
    return pattern


# -- reading what is in the address, rendering what is answered ----------------------------------------------


def job_id(request: web.Request) -> tuple[str, str]:
    """Queue and key from the address. Raises NotFound for what no job can be called."""
    text = request.match_info["id"]
    found = split_id(text)
    if found is None:
        raise NotFound("there is no such job: an id is written as <queue>:<key>")
    return found


def queue_name(request: web.Request, *, new: bool = False) -> str:
    """The queue of the address. What cannot be a name is not there; where one may be made it is refused."""
    return _name(request, "queue", new=new)


def type_name(request: web.Request, *, new: bool = False) -> str:
    """The type of the address, likewise."""
    return _name(request, "type", new=new)


def schedule_name(request: web.Request, *, new: bool = False) -> str:
    """The schedule of the address, likewise."""
    return _name(request, "schedule", new=new)


def group_name(request: web.Request, *, new: bool = False) -> str:
    """The group of the address, likewise."""
    return _name(request, "group", new=new, like=JOB_KEY, takes="1 to 128 letters, digits, '.', '_' or '-'")


def _name(
    request: web.Request, what: str, *, new: bool, like: re.Pattern[str] = QUEUE_NAME, takes: str = _NAMED
) -> str:
    text = request.match_info[what]
    if like.fullmatch(text):
        return text
    if new:
        raise Invalid([Fault(f"/{what}", takes)])
    raise NotFound(f"there is no such {what}: a name is {takes}")


def duration_param(request: web.Request, name: str, most: int) -> float:
    """Seconds from a query parameter, 0 when it is not given. Raises Invalid beyond `most`."""
    text = request.query.get(name)
    if text is None:
        return 0
    takes = f'from 0 to {most} s, as "30", "2.5" or "500ms"'
    try:
        found = typed_duration_ms(text)
    except ValueError:
        raise Invalid([Fault(f"/{name}", takes)]) from None
    if found > most * 1000:
        raise Invalid([Fault(f"/{name}", takes)])
    return found / 1000


def json_answer(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        body=orjson.dumps(document),
        status=status,
        headers={hdrs.CONTENT_TYPE: "application/json", **headers}
        if headers
        else {hdrs.CONTENT_TYPE: "application/json"},
    )

"""Pages and their cursors. A cursor says where its list goes on, and is taken by that very list only."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence

import orjson
from aiohttp import web

from ..errors import Fault, Invalid
from .routes import Param

PAGE: Mapping[str, Param] = {
    "limit": Param(
        {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}, "How many items at most."
    ),
    "cursor": Param({"type": "string"}, "`next_cursor` of the page before."),
}


def limit_of(request: web.Request) -> int:
    """How many items a page may have. Raises Invalid."""
    text = request.query.get("limit", "100")
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= 1000:
        raise Invalid([Fault("/limit", "expected a whole number from 1 to 1000")])
    return int(text)


def cursor(of: Sequence[str], at: Sequence[str]) -> str:
    """A cursor of the list that `of` names, with its filters: it goes on `at`."""
    body = orjson.dumps(at)
    return base64.urlsafe_b64encode(_seal(of, body) + body).decode().rstrip("=")


def cursor_of(request: web.Request, of: Sequence[str]) -> list[str] | None:
    """Where this call's list goes on; None at its beginning. Raises Invalid for a cursor that is not of this list."""
    text = request.query.get("cursor")
    if text is None:
        return None
    try:
        raw = base64.b64decode((text + "=" * (-len(text) % 4)).encode(), altchars=b"-_", validate=True)
    except ValueError:
        raw = b""
    seal, body = raw[:_SEAL], raw[_SEAL:]
    if seal != _seal(of, body) or not body:
        fault = "this is no cursor of this list with these filters: take `next_cursor` as it was answered"
        raise Invalid([Fault("/cursor", fault)])
    at: list[str] = orjson.loads(body)
    return at


_SEAL = 8


def _seal(of: Sequence[str], body: bytes) -> bytes:
    # No secret: it tells a mistake, and who makes one up has only himself to mislead.
    return hashlib.blake2b(orjson.dumps(of) + body, digest_size=_SEAL).digest()


def page_of(request: web.Request, names: Sequence[str]) -> tuple[list[str], str | None]:
    """The names of one page, of sorted ones, and the cursor of the next. Raises Invalid."""
    limit, of = limit_of(request), [request.path]
    at = cursor_of(request, of)
    rest = names if at is None else [name for name in names if name > at[0]]
    page = list(rest[:limit])
    return page, cursor(of, page[-1:]) if len(rest) > len(page) else None

"""`/docs`: the API reference as a page that needs nothing from elsewhere."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from aiohttp import hdrs, web

from .zipped import takes_gzip

_FOLDER = Path(__file__).resolve().parent / "docs"

FILES: Mapping[str, str] = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "start.js": "text/javascript",
    "page.css": "text/css",
}
"""What the page loads, and its type."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
}


@dataclass(frozen=True, slots=True)
class _File:
    raw: bytes
    zipped: bytes
    etag: str


@cache
def _file(name: str) -> _File:
    """A file as it is and as it travels."""
    path = _FOLDER / f"{name}.gz"
    zipped = path.read_bytes() if path.is_file() else gzip.compress((_FOLDER / name).read_bytes(), 9, mtime=0)
    raw = gzip.decompress(zipped)
    return _File(raw, zipped, f'"{hash_of(raw)}"')


def hash_of(raw: bytes) -> str:
    """A short name of a content."""
    return hashlib.sha256(raw).hexdigest()[:16]


def _answer(request: web.Request, name: str, content_type: str) -> web.Response:
    file = _file(name)
    headers = {**_HEADERS, hdrs.ETAG: file.etag, hdrs.CONTENT_TYPE: f"{content_type}; charset=utf-8"}
    if request.headers.get(hdrs.IF_NONE_MATCH) == file.etag:
        return web.Response(status=304, headers=headers)
    if takes_gzip(request):
        return web.Response(body=file.zipped, headers={**headers, hdrs.CONTENT_ENCODING: "gzip"})
    return web.Response(body=file.raw, headers=headers)


async def page(request: web.Request) -> web.Response:
    return _answer(request, "index.html", "text/html")


async def part(request: web.Request) -> web.Response:
    name = request.match_info["file"]
    if name not in FILES:
        raise web.HTTPNotFound
    return _answer(request, name, FILES[name])


def add_to(app: web.Application) -> None:
    """Adds the page and what it loads; `/` leads to it."""

    async def home(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/docs"})

    app.router.add_get("/docs", page)
    app.router.add_get("/docs/{file}", part)
    app.router.add_get("/", home)

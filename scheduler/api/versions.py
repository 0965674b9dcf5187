"""Versions of what is configured: `ETag`, and the conditions that callers put on it (RFC 9110, section 13)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from aiohttp import hdrs, web

from ..errors import Changed

T = TypeVar("T")


def etag(version: int) -> dict[str, str]:
    """The header that names a version of a queue's configuration, its types' policies included, or of a schedule."""
    return {hdrs.ETAG: f'"{version}"'}


def expected(request: web.Request, version: int | None, what: str = "configuration") -> int | None:
    """The version that must stand for a change, None for any. `version` is the one that stands, None for nothing.

    Raises Changed when If-Match or If-None-Match refuses.
    """
    given = _tags(request, hdrs.IF_MATCH)
    if given is not None and (version is None or not (given == ["*"] or f'"{version}"' in given)):
        stands = "there is none yet" if version is None else f'its ETag is "{version}" by now'
        weak = [tag for tag in given if tag.startswith("W/")]
        hint = f"; {weak[0][:80]} is a weak tag, which fits nothing: send {weak[0][2:80]}" if weak else ""
        raise Changed(f"the {what} is not the one of If-Match: {stands}{hint}")
    refused = _tags(request, hdrs.IF_NONE_MATCH)
    if (
        refused is not None
        and version is not None
        and (refused == ["*"] or f'"{version}"' in _strong(refused))
    ):
        raise Changed(f'If-None-Match refuses the {what} that stands: its ETag is "{version}"')
    if given is None and refused is None:
        return None
    return version or 0


def refusing(request: web.Request, what: str, version_of: Callable[[T], int]) -> Callable[[T | None], None]:
    """The same as a check that is given what stands, None for nothing."""

    def check(standing: T | None) -> None:
        expected(request, None if standing is None else version_of(standing), what)

    return check


def unless_known(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """The answer to a GET, or 304 where If-None-Match names the version that it has. Weak tags count here."""
    tag, given = response.headers.get(hdrs.ETAG), _tags(request, hdrs.IF_NONE_MATCH)
    if tag is None or given is None or not (given == ["*"] or tag in _strong(given)):
        return response
    return web.Response(status=304, headers={hdrs.ETAG: tag})


def _tags(request: web.Request, header: str) -> list[str] | None:
    lines = request.headers.getall(header, None)
    return None if lines is None else [part.strip() for part in ",".join(lines).split(",")]


def _strong(tags: list[str]) -> list[str]:
    return [tag.removeprefix("W/") for tag in tags]

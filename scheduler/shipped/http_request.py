"""http.request: one HTTP request, to public addresses and to what SCHEDULER_HTTP_ALLOW opens."""

from __future__ import annotations

import base64
import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Annotated, Any

import msgspec

from .. import __version__
from ..context import Context
from ..errors import PayloadInvalid, Permanent, RetryAfter
from ..handlers import make_handler
from ..kinds import signing_key
from .addresses import checked_addresses, read_places

LONGEST_WAIT = 86_400
"""Seconds that a server's Retry-After may ask for."""

_SUCCESS = tuple(range(200, 300))
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# They say where a message begins and ends, and who is at the other end of the connection.
_OURS = frozenset(
    (
        "connection", "content-length", "expect", "host", "keep-alive", "proxy-authorization", "proxy-connection",
        "te", "trailer", "transfer-encoding", "upgrade",
    )
)  # fmt: skip
_SIGNED = frozenset(("webhook-id", "webhook-timestamp", "webhook-signature"))

_METHOD = re.compile(r"(?!(?:CONNECT|TRACE)\Z)[A-Z]{1,20}")

Status = Annotated[int, msgspec.Meta(ge=100, le=599)]


class HeaderInvalid(Permanent):
    """A header that no request may have. Trying again will not help."""


class UnexpectedStatus(Exception):
    """The server answered with a status that was not expected."""


class RequestFailed(Exception):
    """No whole answer came. The server may have acted on the request all the same."""


async def http_request(
    ctx: Context,
    url: Annotated[str, msgspec.Meta(max_length=8_192)],
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: msgspec.Raw = msgspec.Raw(b"null"),  # noqa: B008 - immutable
    expect: list[Status] | None = None,
) -> dict[str, Any]:
    """Sends the request once and answers status, headers and body; `cut` says that there was more.

    Raises AddressRefused and HeaderInvalid, which are permanent; UnexpectedStatus and RequestFailed; RetryAfter
    when a 429 or 503 says when to come again.
    """
    from .http_client import ExchangeFailed, exchange, read_url  # noqa: PLC0415 - aiohttp is large

    target = read_url(url)
    host, port = str(target.raw_host), int(target.port or 0)
    sent, content_type = encode_body(body)
    fields = request_headers(headers or {}, content_type, signed=ctx.settings.http_secret is not None)
    if ctx.settings.http_secret is not None:
        fields |= signature(ctx.settings.http_secret, ctx.id, int(time.time()), sent or b"")
    wanted = _SUCCESS if expect is None else expect
    addresses = await checked_addresses(host, port, read_places(ctx.settings.http_allow or ()))
    # The query and the headers may hold secrets; this is all of the request that errors tell.
    what = f"{method} {target.host_port_subcomponent}"
    try:
        answer = await exchange(method, target, addresses, headers=fields, body=sent, wanted=wanted)
    except ExchangeFailed as error:
        raise RequestFailed(f"{what}: {error}") from None
    if answer.status in wanted:
        return fitting(
            {"status": answer.status, "headers": answer.headers, "body": answer.body}
            | ({"cut": True} if answer.cut else {}),
            ctx.settings.max_result,
        )
    wait = retry_after(answer.headers.get("retry-after", "")) if answer.status in {429, 503} else None
    if wait is not None:
        raise RetryAfter(wait, f"{what} answered {answer.status} and asks to come again in {wait} s")
    hint = " (redirects are not followed)" if 300 <= answer.status < 400 else ""
    raise UnexpectedStatus(f"{what} answered {answer.status}{hint}")


def encode_body(body: msgspec.Raw) -> tuple[bytes | None, str]:
    """The bytes to send and their content type: text as it is, other JSON as it was sent to us, null as none."""
    text = bytes(body)
    if text == b"null":
        return None, ""
    if text.startswith(b'"'):
        return msgspec.json.decode(text, type=str).encode(), "text/plain; charset=utf-8"
    return text, "application/json"


def request_headers(given: Mapping[str, str], content_type: str, *, signed: bool) -> dict[str, str]:
    """The headers to send. Raises HeaderInvalid, which names the header and never its value."""
    for name, value in given.items():
        if not _TOKEN.fullmatch(name):
            raise HeaderInvalid(f"{name[:100]!r} is no header's name")
        if name.lower() in _OURS:
            raise HeaderInvalid(f"the header {name} is not the job's to set")
        if signed and name.lower() in _SIGNED:
            raise HeaderInvalid(f"the header {name} is set by the worker, which signs its requests")
        if _CONTROL.search(value):
            raise HeaderInvalid(f"the header {name} has a line break or a control character in its value")
    names = {name.lower() for name in given}
    defaults = {"Content-Type": content_type, "User-Agent": f"scheduler/{__version__}"}
    missing = {name: value for name, value in defaults.items() if value and name.lower() not in names}
    return {**missing, **given}


def signature(secret: str, job_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of Standard Webhooks. `timestamp` is in seconds since 1970.

    A secret that begins with whsec_ is base64, any other is taken as it is.
    """
    # The three are joined by dots, so there may be none in an id. Job ids have no %.
    name = job_id.replace(".", "%2E")
    digest = hmac.digest(signing_key(secret), f"{name}.{timestamp}.".encode() + body, "sha256")
    return {
        "webhook-id": name,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def retry_after(text: str) -> int | None:
    """The seconds of a Retry-After header, from 1 to LONGEST_WAIT; None when it is none."""
    text = text.strip()
    if re.fullmatch("[0-9]{1,18}", text):
        seconds = int(text)
    else:
        try:
            moment = parsedate_to_datetime(text)
            # Of the three forms that HTTP knows one has no zone: all are UTC.
            seconds = round(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - time.time())
        except (ValueError, OverflowError):
            return None
    return min(max(1, seconds), LONGEST_WAIT)


def fitting(result: dict[str, Any], most: int) -> dict[str, Any]:
    """The result with as much of its body as a result may have bytes: what was done is not to fail for its size."""
    while result["body"] and len(msgspec.json.encode(result)) > most:
        result |= {"body": result["body"][: len(result["body"]) // 2], "cut": True}
    return result


_handler = make_handler("http.request", http_request, timeout="60s")


def read_request(payload: bytes) -> dict[str, Any]:
    """The handler's arguments. Raises PayloadInvalid, which says which part cannot be and why."""
    arguments = _handler.decode(payload)
    method = arguments["method"]
    wrong = ""
    if not _METHOD.fullmatch(method):
        wrong = "method: capital letters, such as GET or POST, and neither CONNECT nor TRACE"
        if _METHOD.fullmatch(method.upper()):
            wrong = f"method: {method!r} is written {method.upper()}"
    elif arguments["expect"] == []:
        wrong = "expect: with no status in it no answer would ever do; leave it out for 200 to 299"
    if wrong:
        raise PayloadInvalid(f"the payload of http.request is no request: {wrong}")
    return arguments


HANDLERS = (replace(_handler, decode=read_request),)

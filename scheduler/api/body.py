"""Bodies: read within bounds of size and time, and taken only as strict JSON."""

from __future__ import annotations

import asyncio
import re
from codecs import BOM_UTF8
from functools import cache
from typing import Any, TypeVar

import msgspec
from aiohttp import hdrs, web

from ..errors import Fault, Invalid
from .parts import DEADLINES, Deadlines
from .problems import Refusal
from .server import awaiting_body

T = TypeVar("T")

DEEPEST = 512
"""Most levels of a document."""

_PLAIN = frozenset({"application/json", "application/json; charset=utf-8", "application/json;charset=utf-8"})
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_RUNS = re.compile(rb"\[+|\]+")
_NO_BRACKET = bytes(byte for byte in range(256) if byte not in b"[]{}")


async def read(request: web.Request, limit: int, *, optional: bool = False) -> bytes:
    """The body of a request that sends JSON. Raises Refusal; an `optional` one may be missing: then it is {}."""
    if optional and not request.body_exists:
        return b"{}"
    check_coding(request)
    if not (optional and hdrs.CONTENT_TYPE not in request.headers and request.content.at_eof()):
        _check_type(request.headers.get(hdrs.CONTENT_TYPE))
    body = await receive(request, limit)
    return body or b"{}" if optional else body


def check_coding(request: web.Request) -> None:
    """Raises Refusal for a body that is compressed."""
    headers = request.headers
    if hdrs.CONTENT_ENCODING in headers and headers[hdrs.CONTENT_ENCODING].strip().lower() != "identity":
        raise Refusal("unsupported_media_type", "bodies are taken as they are, without Content-Encoding")


def media_type(text: str | None) -> tuple[str, str | None]:
    """Type and charset of a Content-Type header, in lower case."""
    kind, _, rest = (text or "").partition(";")
    charset = re.search(r"charset=\"?([^\";\s]*)", rest, re.IGNORECASE)
    return kind.strip().lower(), charset[1].lower() if charset else None


def _check_type(text: str | None) -> None:
    if text in _PLAIN:
        return
    kind, charset = media_type(text)
    if kind != "application/json" or charset not in {None, "utf-8", "utf8"}:
        raise Refusal("unsupported_media_type", "send JSON in UTF-8, with Content-Type: application/json")


async def receive(request: web.Request, limit: int) -> bytes:
    """The bytes of the body. Raises Refusal when they are too many, come too slowly, or break off."""
    stream = request.content
    declared = request.content_length
    if declared is not None and declared > limit:
        raise _too_large(limit)
    if stream.is_eof():
        body = stream.read_nowait()
    else:
        body = await _receive_slowly(request, limit, request.app[DEADLINES])
    if len(body) > limit:
        raise _too_large(limit)
    return body


async def _receive_slowly(request: web.Request, limit: int, deadlines: Deadlines) -> bytes:
    await say_continue(request)
    loop, body = asyncio.get_running_loop(), bytearray()
    began = loop.time()
    try:
        with awaiting_body(request):
            while not request.content.at_eof():
                async with asyncio.timeout_at(began + max(deadlines.body, len(body) / deadlines.rate)):
                    body += await request.content.readany()
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        detail = (
            f"a body that takes longer than {deadlines.body:g} s must bring {deadlines.rate:g} bytes a second"
        )
        raise Refusal("request_timeout", detail, close=True) from None
    except (web.RequestPayloadError, ConnectionError):
        raise Refusal(
            "bad_request", "the body broke off, or is not framed as HTTP has it", close=True
        ) from None
    return bytes(body)


async def say_continue(request: web.Request) -> None:
    """Asks for the body where the caller waits for that."""
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        # Said here and not before the handler, so that what is refused by its head is never sent.
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun


def _too_large(limit: int) -> Refusal:
    return Refusal("too_large", f"the body may have {limit} bytes", close=True)


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def decode(body: bytes, kind: type[T], *, deep: bool = False) -> T:
    """Strict JSON as what it should be. Raises Refusal for no JSON, Invalid for something else.

    `deep`: how deep it goes is judged by who decodes its parts.
    """
    if not body.isascii():
        _check_utf8(body)
    if not deep and body.count(b"[") + body.count(b"{") > DEEPEST and depth(body) > DEEPEST:
        raise Refusal("invalid_json", f"nested deeper than {DEEPEST} levels")
    try:
        decoded: T = _decoder(kind).decode(body)  # type: ignore[arg-type]  # a type can be hashed
    except msgspec.ValidationError as error:
        _check_syntax(body)
        raise Invalid([_fault(str(error))]) from None
    except (msgspec.DecodeError, RecursionError) as error:
        if body.startswith(BOM_UTF8):
            detail = "the body begins with a byte order mark: send UTF-8 without one"
            raise Refusal("invalid_json", detail) from None
        raise _no_json(error) if body.strip() else Refusal("invalid_json", "the body is empty") from None
    return decoded


def _check_utf8(body: bytes) -> None:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise Refusal("invalid_json", f"the body is not UTF-8 at byte {error.start}") from None


def _check_syntax(body: bytes) -> None:
    # The decoder stops at the first thing it does not take, so what follows may be no JSON at all.
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _no_json(error) from None


def _no_json(error: Exception) -> Refusal:
    if isinstance(error, RecursionError):
        return Refusal("invalid_json", f"nested deeper than {DEEPEST} levels")
    text = str(error).removeprefix("JSON is malformed: ")
    if "truncated" in text:
        text = "it ends too early, or has half of a surrogate pair"
    return Refusal("invalid_json", f"the body is not JSON: {text}")


def depth(body: bytes) -> int:
    """How many levels a JSON text has; for one that is none, some number. Linear in C, whatever is sent."""
    outside = b"".join(body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    brackets = outside.translate(_BRACKETS, _NO_BRACKET)
    levels = 0
    # The innermost level goes with each turn. After eight turns each turning point that is left stands for 16
    # brackets that are gone, so that there are few runs to count, however it was nested.
    for _ in range(8):
        if not brackets:
            return levels
        brackets = brackets.replace(b"[]", b"")
        levels += 1
    deepest = now = 0
    for run in _RUNS.findall(brackets):
        now += len(run) if run[0] == 0x5B else -len(run)
        deepest = max(deepest, now)
    return levels + deepest


# -- what msgspec says, in the words of the contract ---------------------------------------------------------

_AT = re.compile(r"(.*?)(?: - at `\$(.*)`)?", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]|\[\.\.\.\]")
_FIELD = re.compile(r"Object (contains unknown|missing required) field `(.*)`", re.DOTALL)
_EXPECTED = re.compile(r"Expected `(.*)`, got `(.*)`")
_WORDS = {
    "str": "a string", "int": "a number", "float": "a number", "bool": "true or false", "null": "null",
    "array": "an array", "object": "an object",
}  # fmt: skip


def _fault(text: str) -> Fault:
    found = _AT.fullmatch(text)
    assert found is not None
    message, path = (
        found[1],
        "".join(f"/{name or index}" for name, index in _STEP.findall(found[2] or "") if name or index),
    )
    if field := _FIELD.fullmatch(message):
        path += "/" + field[2][:200].replace("~", "~0").replace("/", "~1")
        return Fault(
            path, "there is no such field" if field[1] == "contains unknown" else "this field is required"
        )
    if kinds := _EXPECTED.fullmatch(message):
        wanted = list(dict.fromkeys(_WORDS.get(kind, kind) for kind in kinds[1].split(" | ")))
        return Fault(path, f"expected {' or '.join(wanted)}, got {_WORDS.get(kinds[2], kinds[2])}")
    return Fault(path, message[:1].lower() + message[1:])

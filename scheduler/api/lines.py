"""NDJSON: a body read line by line, an answer written line by line, both in constant memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from aiohttp import hdrs, web

from .body import check_coding, media_type, say_continue
from .parts import DEADLINES, REQUEST_ID, stamp
from .problems import Refusal

NDJSON = "application/x-ndjson"

PAUSE = 0.02
"""Seconds without a byte after which what has come is acted on, however little it is."""


def is_ndjson(request: web.Request) -> bool:
    """Whether the body says that it is NDJSON. Raises Refusal when it does so in another charset, or compressed."""
    if not request.headers.get(hdrs.CONTENT_TYPE, "").lower().startswith(NDJSON):
        return False
    kind, charset = media_type(request.headers[hdrs.CONTENT_TYPE])
    if kind != NDJSON or charset not in {None, "utf-8", "utf8"}:
        raise Refusal("unsupported_media_type", f"send JSON lines in UTF-8, with Content-Type: {NDJSON}")
    check_coding(request)
    return True


class Line:
    """One line that is not blank. `text` is None when it was longer than is taken."""

    __slots__ = ("index", "text")

    def __init__(self, index: int, text: bytes | None) -> None:
        self.index, self.text = index, text


class Cutter:
    """Cuts chunks into lines. Of a line that is too long, only its place is kept."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._rest = bytearray()
        self._too_long = False
        self._count = 0

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """The lines that end in this chunk."""
        *whole, rest = chunk.split(b"\n")
        for part in whole:
            self._add(part)
            yield from self.end()
        self._add(rest)

    def end(self) -> Iterator[Line]:
        """The line that ends here, unless it is blank: blank lines are no items and are not counted."""
        text: bytes | None = bytes(self._rest)
        if self._too_long:
            text = None
        elif not self._rest.strip(b" \t\r"):
            self._rest.clear()
            return
        self._rest.clear()
        self._too_long = False
        self._count += 1
        yield Line(self._count - 1, text)

    def _add(self, part: bytes) -> None:
        if self._too_long or len(self._rest) + len(part) > self._longest:
            self._rest.clear()
            self._too_long = True
        else:
            self._rest += part


async def read_lines(request: web.Request, longest: int) -> AsyncIterator[list[Line]]:
    """The lines of a body as they come, some at a time; an empty list where the caller pauses.

    A body has ten seconds of patience (`Deadlines.body`): waiting for it uses them up, each KiB that comes brings a
    second back. So a stream of any length lives while it flows, and one that stops is soon refused. Time in which
    nobody reads is not its fault. Raises Refusal when it comes too slowly or breaks off.
    """
    stream, deadlines, cutter = request.content, request.app[DEADLINES], Cutter(longest)
    loop, patience = asyncio.get_running_loop(), deadlines.body
    await say_continue(request)
    paused = False
    while not stream.at_eof():
        began = loop.time()
        try:
            async with asyncio.timeout(patience if paused else min(PAUSE, patience)):
                chunk = await stream.readany()
        except TimeoutError:
            patience -= loop.time() - began
            if patience <= 0:
                detail = f"lines must bring {deadlines.rate:g} bytes a second, and may pause for {deadlines.body:g} s"
                raise Refusal("request_timeout", detail, close=True) from None
            paused = True
            yield []
            continue
        except (web.RequestPayloadError, ConnectionError):
            detail = "the body broke off, or is not framed as HTTP has it"
            raise Refusal("bad_request", detail, close=True) from None
        paused = False
        patience = min(deadlines.body, patience - (loop.time() - began) + len(chunk) / deadlines.rate)
        yield list(cutter.feed(chunk))
    yield list(cutter.end())


class Answer:
    """An answer of lines. It begins with its first one, so that what is refused before that is a plain problem."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.response: web.StreamResponse | None = None

    async def write(self, lines: bytes) -> None:
        """Sends whole lines, at the pace at which the caller reads.

        Raises ConnectionError when it hangs up, or reads nothing for as long as a connection may idle.
        """
        if self.response is None:
            self.response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: NDJSON})
            stamp(self.response, self._request[REQUEST_ID])
            await self.response.prepare(self._request)
        try:
            async with asyncio.timeout(self._request.app[DEADLINES].idle):
                await self.response.write(lines)
        except TimeoutError:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionResetError("the caller does not read its answer") from None

    def give_up(self) -> web.StreamResponse | None:
        """Ends a begun answer without its last line; None when none has begun."""
        if self.response is not None:
            self.response.force_close()
        return self.response

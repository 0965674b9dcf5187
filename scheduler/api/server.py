"""The HTTP server: bounded in time on every connection, silent about what it could not parse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from typing import Any

import orjson
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import StreamReader

from ..logs import get_logger
from ..settings import Settings
from . import problems
from .auth import check_host
from .crowd import Crowd, room
from .parts import DEADLINES, Deadlines, request_id, stamp
from .problems import Refusal

log = get_logger(__name__)


class Connection(web.RequestHandler):
    """aiohttp's connection, with deadlines for headers and for who reads, news of who hangs up, and error answers of ours."""

    __slots__ = (
        "_begun",
        "_clock",
        "_crowd",
        "_deadlines",
        "_held",
        "_last",
        "_partial",
        "_reader",
        "_receiving",
        "_unread",
    )

    def __init__(
        self, manager: web.Server, *, deadlines: Deadlines, crowd: Crowd, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(
            manager,
            loop=loop,
            keepalive_timeout=deadlines.idle,
            lingering_time=deadlines.linger,
            access_log=None,  # type: ignore[arg-type]  # None is how aiohttp is told to write none
            auto_decompress=False,
            max_headers=MOST_HEADERS,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_HEADER,
        )
        self._deadlines = deadlines
        self._begun: float | None = None
        """Since when headers are waited for; None while none are due."""
        self._partial = False
        self._clock: asyncio.TimerHandle | None = None
        self._last: StreamReader | None = None
        self._held: asyncio.Task[Any] | None = None
        self._crowd = crowd
        self._receiving = False
        self._reader: asyncio.TimerHandle | None = None
        """Looks whether the caller reads, while what was answered has not left."""
        self._unread = 0

    @property
    def quiet(self) -> bool:
        """It is its caller's turn: a request, or the rest of a body, is still to come."""
        # Done: one has come, and the next turn of the loop answers it.
        return self._receiving or (self._waiter is not None and not self._waiter.done())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._crowd.enter(self)
        self._begun = self._loop.time()
        self._clock = self._loop.call_later(self._deadlines.headers, self._look)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._clock is not None:
            self._clock.cancel()
        if self._reader is not None:
            self._reader.cancel()
        if self._held is not None:
            self._held.cancel()
        self._crowd.leave(self)
        super().connection_lost(exc)

    def force_close(self) -> None:
        """Closes it. What the caller does not read is dropped a little later, or it would stay for ever."""
        transport = self.transport
        super().force_close()
        if transport is not None and isinstance(transport, asyncio.WriteTransport):
            self._loop.call_later(self._deadlines.linger, transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self._waiting_to_leave()
        self._reader = self._loop.call_later(self._deadlines.idle, self._look_at_reader)

    def resume_writing(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None
        super().resume_writing()

    def _look_at_reader(self) -> None:
        if self.transport is None:
            return
        left, self._unread = self._unread, self._waiting_to_leave()
        # What was answered since counts as unread: who reads nothing cannot hide it by asking for more.
        if left - self._unread < self._deadlines.rate * self._deadlines.idle:
            self.transport.abort()
        else:
            self._reader = self._loop.call_later(self._deadlines.idle, self._look_at_reader)

    def _waiting_to_leave(self) -> int:
        transport = self.transport
        return transport.get_write_buffer_size() if isinstance(transport, asyncio.WriteTransport) else 0

    def data_received(self, data: bytes) -> None:
        requests, body = self._request_count, self._last
        in_body = body is not None and not body.is_eof()
        super().data_received(data)
        if self._request_count != requests:
            if body is not None and in_body and not body.is_eof():
                # No request begins within a body: its framing is broken, and whoever reads it waits for nothing.
                body.set_exception(web.RequestPayloadError("the framing of the body is broken"))
            self._begun, self._partial = None, False
            self._last = self._messages[-1][1] if self._messages else None
        elif data and not in_body:
            self._partial = True
            if self._begun is None:
                self._begun = self._loop.time()
                if self._clock is None:
                    self._clock = self._loop.call_later(self._deadlines.headers, self._look)

    def _look(self) -> None:
        self._clock = None
        if self._begun is None or self.transport is None:
            return
        left = self._begun + self._deadlines.headers - self._loop.time()
        if left <= 0.001 and self._waiter is None:
            left = 1.0  # an earlier request on this connection is still being answered
        if left > 0.001:
            self._clock = self._loop.call_later(left, self._look)
            return
        if not self._partial:
            self.force_close()
            return
        within = f"headers must be whole within {self._deadlines.headers:g} s"
        self.transport.write(_bare(Refusal("request_timeout", within)))
        self.transport.write_eof()
        self.close()
        # Closed at once, what still comes in would reset the connection, and the answer with it.
        self._clock = self._loop.call_later(self._deadlines.linger, self.force_close)

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """The rest of a body is waited for meanwhile."""
        self._receiving = True
        try:
            yield
        finally:
            self._receiving = False

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Cancels the handler while it stands in this, when the caller hangs up."""
        if self.transport is None:
            raise ConnectionResetError("the caller hung up")
        self._held = asyncio.current_task()
        try:
            yield
        finally:
            self._held = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it holds the bytes that could not be parsed
    ) -> web.StreamResponse:
        """Answers what could not be parsed, or failed outside the application. Nothing sent is repeated."""
        if isinstance(exc, ConnectionError):
            raise exc  # the caller is gone
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun, there is no room for another")
        if status < 500:
            log.debug("a request that is no HTTP", error=type(exc).__name__)
            response = problems.render(_unparsed(exc))
        else:
            response = problems.answer(exc if isinstance(exc, Exception) else RuntimeError(str(exc)), request)
        stamp(response)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Logs what nobody expected. A body that breaks while the rest of it is read away is no news."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError | ConnectionError):
            super().log_exception(*args, **kw)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Sends the answer. What aiohttp refuses before it asks the application is a problem document too."""
        if isinstance(resp, web.HTTPException):
            resp = problems.answer(resp, request)
            stamp(resp, request_id(request.headers.get("X-Request-Id")))
        self._crowd.rest(self)
        return await super().finish_response(request, resp, start_time)


MOST_HEADERS = 128
"""Headers that a request may have."""

LONGEST_LINE, LONGEST_HEADER = 8190, 8192
"""Bytes of the request line, and of one header. They differ because aiohttp's error only says which limit was passed."""


def _unparsed(error: BaseException | None) -> Refusal:
    """Why a request could not be parsed. Nothing of it is repeated."""
    if isinstance(error, LineTooLong) and error.args[1] == LONGEST_LINE:
        return Refusal("bad_request", f"the first line of a request has at most {LONGEST_LINE} bytes")
    # aiohttp has no class of its own for too many headers.
    if isinstance(error, LineTooLong) or "Too many headers" in str(error):
        detail = f"a request has at most {MOST_HEADERS} headers of at most {LONGEST_HEADER} bytes each"
        return Refusal("headers_too_large", detail)
    return Refusal("bad_request", "what was sent is not HTTP as its standards have it")


def _bare(refusal: Refusal) -> bytes:
    body = orjson.dumps(problems.document(refusal))
    head = f"HTTP/1.1 {refusal.status} Request Timeout\r\nContent-Type: {problems.PROBLEM_JSON}\r\n"
    rest = f"X-Request-Id: {request_id(None)}\r\nServer: scheduler\r\nConnection: close\r\n\r\n"
    return f"{head}Content-Length: {len(body)}\r\n{rest}".encode() + body


def awaiting_body(request: web.Request) -> AbstractContextManager[None]:
    """Around the reading of a body that has not come whole: its connection may have to make room for another."""
    return request.protocol.receiving() if isinstance(request.protocol, Connection) else nullcontext()


@contextmanager
def hang_up_cancels(request: web.Request) -> Iterator[None]:
    """Cancels the handler while it stands in this, when the caller hangs up."""
    if isinstance(request.protocol, Connection):
        with request.protocol.holding():
            yield
    else:  # behind another server than ours, which does not tell
        yield


class Site(web.BaseSite):
    """Listens on an address, with our connections."""

    __slots__ = ("_deadlines", "_host", "_port", "crowd")

    def __init__(self, runner: web.AppRunner, host: str, port: int, deadlines: Deadlines) -> None:
        self.crowd = Crowd(min(deadlines.connections, room()))
        # So many are accepted before the first of them is seen here.
        super().__init__(runner, backlog=min(1024, max(1, self.crowd.most // 2)))
        self._host, self._port, self._deadlines = host, port, deadlines

    @property
    def name(self) -> str:
        return f"http://{self._host}:{self.port}"

    @property
    def port(self) -> int:
        """The port it listens on, also when any free one was asked for."""
        sockets = getattr(self._server, "sockets", None)
        return int(sockets[0].getsockname()[1]) if sockets else self._port

    async def start(self) -> None:
        await super().start()
        loop, manager = asyncio.get_running_loop(), self._runner.server
        assert manager is not None
        self._server = await loop.create_server(
            lambda: Connection(manager, deadlines=self._deadlines, crowd=self.crowd, loop=loop),
            self._host,
            self._port,
            backlog=self._backlog,
        )


@asynccontextmanager
async def serve(app: web.Application, settings: Settings, *, grace: float = 10.0) -> AsyncIterator[Site]:
    """Serves an application at the address of the settings; at its end, requests have `grace` seconds left.

    Raises SettingsError for an address that others can reach while no key is set, OSError when it is taken.
    """
    check_host(settings)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=grace)
    await runner.setup()
    try:
        site = Site(runner, settings.host.strip("[]"), settings.port, app[DEADLINES])
        await site.start()
        log.info("serving", address=site.name)
        yield site
    finally:
        await runner.cleanup()

"""One connection for every script call of a process: what is asked in one turn of the loop goes out in one write.

The server carries out one command at a time, so more connections would not make it faster; they cost the client a
pool, a lock, and a write and a read for each call. The library makes the connection (TLS, password, protocol,
database, name), then its transport is ours: commands are packed and replies parsed by hiredis, in C.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

import hiredis
from redis import exceptions as redis_errors
from redis.asyncio import Redis

Commands = Sequence[Sequence[Any]]

LATE = 0.5
"""Seconds that a timer is late when the event loop stood still: what came meanwhile is not read yet, or not even sent."""

_INCOMPLETE = object()


class _Sent:
    """What one caller sent: how many replies it is owed, those that have come, and since when it waits."""

    __slots__ = ("count", "replies", "since", "waiter")

    def __init__(self, waiter: asyncio.Future[list[Any]], count: int, since: float) -> None:
        self.waiter, self.count, self.since = waiter, count, since
        self.replies: list[Any] = []


class Wire(asyncio.Protocol):
    """Sends commands and hands out their replies, in order. Nothing is ever sent twice.

    A server that is silent for `deadline` seconds is lost, like one that closes: every caller that waits is told
    (ConnectionError or TimeoutError of the library), and the next one connects anew.
    """

    def __init__(self, client: Redis, deadline: float) -> None:
        self._client, self._deadline = client, deadline
        self._transport: asyncio.Transport | None = None
        self._connection: Any = None
        self._reader: Any = None
        self._sent: deque[_Sent] = deque()
        self._out: list[bytes] = []
        self._opening: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self._closed = False

    async def send(self, commands: Commands) -> list[Any]:
        """The replies; one that is an error stands in its place. Raises the library's errors when the server is lost."""
        # Packed first: what cannot be is the caller's fault, and leaves no gap in what others wait for.
        packed = [hiredis.pack_command(tuple(command)) for command in commands]
        if not packed:
            # Owed nothing, it would be handed what the next caller is owed.
            return []
        while self._transport is None:
            await self._open()
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[list[Any]] = loop.create_future()
        self._sent.append(_Sent(waiter, len(packed), loop.time()))
        if not self._out:
            loop.call_soon(self._flush)
        self._out += packed
        if self._timer is None:
            self._timer = loop.call_later(self._deadline, self._look, loop)
        return await waiter

    async def _open(self) -> None:
        if self._closed:
            raise redis_errors.ConnectionError("closed")
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._connect())
            self._opening.add_done_callback(self._opened)
        # One opens for all that wait: a caller that gives up does not end it.
        opening = self._opening
        await asyncio.wait({opening})
        if opening.cancelled():
            raise redis_errors.ConnectionError("closed")
        opening.result()

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening = None
        if not task.cancelled():
            task.exception()  # it counts as seen: who waited for it may have gone away

    async def _connect(self) -> None:
        connection: Any = self._client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()
        except BaseException:
            # Cancelled amid the handshake, it would leave a socket that nobody closes.
            await connection.disconnect(nowait=True)
            raise
        self._reader = hiredis.Reader(
            protocolError=redis_errors.InvalidResponse,
            replyError=connection._parser.parse_error,  # noqa: SLF001 - makes the library's classes of errors
            notEnoughData=_INCOMPLETE,
        )
        transport: asyncio.Transport = connection._writer.transport  # noqa: SLF001
        transport.set_protocol(self)
        self._connection, self._transport = connection, transport
        self._heard = asyncio.get_running_loop().time()

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and out:
            self._transport.write(b"".join(out))

    def data_received(self, data: bytes) -> None:
        """Replies, whole or in part."""
        self._heard = asyncio.get_running_loop().time()
        try:
            self._reader.feed(data)
            demoted = False
            while (reply := self._reader.gets()) is not _INCOMPLETE:
                demoted = demoted or isinstance(reply, redis_errors.ReadOnlyError)
                self._take(reply)
        except (redis_errors.RedisError, IndexError) as error:
            # No reply of a Redis, or one that nobody waits for: nothing can be told apart from here on.
            self._lose(
                redis_errors.ConnectionError(f"the server answers in a way nobody understands: {error}")
            )
            return
        if demoted:
            # Where a name or a proxy leads to the new master, the next connection does.
            self._lose(redis_errors.ConnectionError("the server was made a replica"))

    def _take(self, reply: Any) -> None:
        if isinstance(reply, hiredis.PushNotification):
            return
        first = self._sent[0]
        first.replies.append(reply)
        if len(first.replies) == first.count:
            self._sent.popleft()
            if not first.waiter.done():
                first.waiter.set_result(first.replies)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """One timer for all that wait: the deadline runs from the last sign of the server, or from the oldest call."""
        late = self._timer is not None and loop.time() - self._timer.when() > LATE
        self._timer = None
        if not self._sent:
            return
        left = LATE if late else max(self._heard, self._sent[0].since) + self._deadline - loop.time()
        if left > 0:
            self._timer = loop.call_later(left, self._look, loop)
        else:
            self._lose(redis_errors.TimeoutError(f"no answer within {self._deadline:g} s"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The server closed, or the network broke."""
        self._lose(redis_errors.ConnectionError(f"the connection was lost{f': {exc}' if exc else ''}"))

    def _lose(self, error: Exception) -> None:
        self._drop()
        sent, self._sent = self._sent, deque()
        for each in sent:
            if not each.waiter.done():
                # Each his own: raising one exception in many tasks would make its traceback grow with each.
                each.waiter.set_exception(type(error)(*error.args))

    def _drop(self) -> None:
        transport, self._transport = self._transport, None
        self._out = []
        if transport is not None:
            transport.abort()
        if self._connection is not None:
            # Its destructor would warn of a connection that nobody closed.
            self._connection._writer = self._connection._reader = None  # noqa: SLF001
            self._connection = None

    async def close(self) -> None:
        """Ends the connection for good; who waits is told so, and who comes later."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._lose(redis_errors.ConnectionError("closed"))

    def abandon(self) -> None:
        """Lets go of the socket, when the event loop is gone."""
        transport, self._transport = self._transport, None
        if transport is not None:
            if (socket := getattr(transport, "_sock", None)) is not None:
                socket.close()
            self._connection._writer = self._connection._reader = None  # noqa: SLF001
            self._connection = None

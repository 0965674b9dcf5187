"""The three Redis clients of a process, made in one place: commands, reads, waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hiredis
import redis
import redis.asyncio as aioredis
from redis.asyncio import connection as connections
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry as SyncRetry

from .errors import StoreRefused
from .local_server import LocalServer, acquire
from .wire import Wire

DEADLINE = 5.0
"""Seconds after which a silent server counts as lost: connect, and each command of the first two clients."""

NOT_YET = ("redis+sentinel", "redis+cluster")


class _Packed:
    """Writes commands by hiredis, in C: redis-py's asyncio connections do it in Python, several times dearer."""

    def pack_command(self, *args: Any) -> list[bytes]:
        name = args[0].encode() if isinstance(args[0], str) else args[0]
        # Names of two words ("SCRIPT LOAD") are two arguments to the server.
        words = (*name.split(), *args[1:]) if b" " in name else args
        return [hiredis.pack_command(words)]

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
        return [b"".join(self.pack_command(*command)[0] for command in commands)]


class _Leaving:
    """Leaves a master that was made a replica: where a name or a proxy leads to the new one, the next connection does."""

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)  # type: ignore[misc]
        except redis.exceptions.ReadOnlyError:
            await self.disconnect(nowait=True)  # type: ignore[attr-defined]
            raise


class _Tcp(_Packed, _Leaving, connections.Connection):
    pass


class _Tls(_Packed, _Leaving, connections.SSLConnection):
    pass


class _Unix(_Packed, _Leaving, connections.UnixDomainSocketConnection):
    pass


_FAST: dict[type, type] = {
    connections.Connection: _Tcp,
    connections.SSLConnection: _Tls,
    connections.UnixDomainSocketConnection: _Unix,
}


@dataclass(slots=True)
class Clients:
    """`commands` for every script, never repeated by the library; `reads` may be; `waits` blocks as long as it likes."""

    commands: aioredis.Redis
    reads: aioredis.Redis
    waits: aioredis.Redis
    where: str
    """The address, without its password."""
    wire: Wire | None = None
    """One connection for all script calls; None for the in-memory server, which has no connections."""
    local: LocalServer | None = None
    fake: bool = False
    url: str = ""

    def blocking(self, deadline: float = DEADLINE) -> redis.Redis:
        """A client of its own for a thread: one connection, no repeats, so many seconds for a command."""
        options = _options(
            self.url,
            name="scheduler-heartbeat",
            deadline=deadline,
            connections=2,
            retry=SyncRetry(NoBackoff(), 0),
        )
        client = redis.Redis.from_url(
            self.url, maint_notifications_config=MaintNotificationsConfig(enabled=False), **options
        )
        client.connection_pool.connection_kwargs["socket_timeout"] = deadline
        return client

    def blocking_wire(self, deadline: float) -> Wire | None:
        """A connection of its own for commands that block, at most so many seconds; None for the in-memory server."""
        return None if self.wire is None else Wire(self.waits, deadline)

    async def revive(self) -> None:
        """Starts the embedded server again if it is gone; nothing for another server."""
        if self.local is not None:
            await asyncio.to_thread(self.local.ensure)

    def abandon(self) -> None:
        """Lets go of what belongs to an event loop that is gone: sockets, and the hold on the embedded server."""
        if self.wire is not None:
            self.wire.abandon()
        for client in (self.commands, self.reads, self.waits):
            pool = client.connection_pool
            held: Any = [
                *getattr(pool, "_available_connections", ()),
                *getattr(pool, "_in_use_connections", ()),
            ]
            for connection in held:
                writer = getattr(connection, "_writer", None)
                if writer is not None:
                    with contextlib.suppress(RuntimeError):  # its loop is closed
                        writer.transport.abort()
                    if (socket := getattr(writer.transport, "_sock", None)) is not None:
                        socket.close()
                connection._writer = connection._reader = None  # noqa: SLF001 - or its destructor warns
        if self.local is not None:
            self.local.close()

    async def close(self) -> None:
        if self.wire is not None:
            await self.wire.close()
        for client in (self.commands, self.reads, self.waits):
            await client.aclose()
        if self.local is not None:
            await asyncio.to_thread(self.local.close)


def _options(
    url: str, *, name: str, deadline: float | None, connections: int, retry: Retry | SyncRetry
) -> dict[str, Any]:
    options: dict[str, Any] = {
        "protocol": 3,
        "retry": retry,
        "socket_timeout": deadline,
        "client_name": name,
        "max_connections": connections,
        "health_check_interval": 15 if deadline else 0,
        "decode_responses": False,
    }
    if not url.startswith("unix:"):
        options |= {"socket_connect_timeout": deadline or DEADLINE, "socket_keepalive": True}
    return options


def make_client(
    url: str, *, name: str, waits: bool = False, reads: bool = False, connections: int = 32
) -> aioredis.Redis:
    """One client. The library repeats only for `reads`: a script that ran must not run unasked again.

    And once: a second try mends a connection that died unseen; a third one on a server that says nothing only makes
    its caller wait for the deadline once more.
    """
    retry = Retry(ExponentialWithJitterBackoff(base=0.01, cap=0.5), 1) if reads else Retry(NoBackoff(), 0)
    options = _options(
        url, name=name, deadline=None if waits else DEADLINE, connections=connections, retry=retry
    )
    pool = aioredis.BlockingConnectionPool.from_url(
        url,
        timeout=DEADLINE,
        # redis-py 8.1.0 hands out idle connections that the server has closed while this is on (its issue 4252).
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
        **options,
    )
    # What a user's URL says of timeouts must not break the client that waits.
    pool.connection_kwargs["socket_timeout"] = None if waits else DEADLINE
    pool.connection_kwargs["retry"] = retry
    pool.connection_class = _FAST[pool.connection_class]
    return aioredis.Redis.from_pool(pool)


def is_outage(error: Exception) -> bool:
    """Whether the server or the way to it is the trouble, and not this program."""
    # The last: a write to a transport that the peer closed, on some Pythons and on uvloop.
    return isinstance(error, redis.RedisError | OSError) or (
        isinstance(error, TypeError | AttributeError | RuntimeError) and "transport" in repr(error).lower()
    )


async def best_effort(sent: Awaitable[Any]) -> None:
    """Waits for a call whose loss in an outage costs nobody more than a little time."""
    try:
        await sent
    except Exception as error:
        if not is_outage(error):
            raise


def address(url: str) -> str:
    """A Redis URL without what is secret in it."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"unix://{parts.path}"
    return f"{parts.scheme}://{parts.hostname or 'localhost'}:{parts.port or 6379}{parts.path}"


async def open_clients(
    url: str | None,
    *,
    name: str = "scheduler",
    directory: Path | None = None,
    durability: str = "strict",
    connections: int = 32,
) -> Clients:
    """The clients for a URL, or for the embedded server of this directory when there is none.

    Raises StoreRefused for a scheme that this release does not speak, LocalServerError when no server can be started.
    """
    if url == "memory://":
        return _in_memory()
    local = None
    if url is None:
        local = await asyncio.to_thread(
            acquire, (directory or Path.cwd()) / ".scheduler", durability=durability
        )
        url = local.url
    scheme = url.partition("://")[0]
    if scheme in NOT_YET:
        raise StoreRefused(
            f"{scheme}:// is not in this release yet: set SCHEDULER_REDIS_URL to a redis://, rediss:// or unix:// one"
        )
    commands = make_client(url, name=name, connections=connections)
    return Clients(
        commands=commands,
        wire=Wire(commands, DEADLINE),
        reads=make_client(url, name=f"{name}-reads", reads=True, connections=8),
        waits=make_client(url, name=f"{name}-waits", waits=True, connections=4),
        where=address(url),
        local=local,
        url=url,
    )


def _in_memory() -> Clients:
    import fakeredis  # noqa: PLC0415 - heavy, and only ever for memory://

    server = fakeredis.FakeServer()
    commands, reads, waits = (fakeredis.FakeAsyncRedis(server=server, protocol=2) for _ in range(3))
    return Clients(commands=commands, reads=reads, waits=waits, where="memory://", fake=True)

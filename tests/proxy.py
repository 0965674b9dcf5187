"""A faulty network: stands between clients and a Redis or Valkey, and loses what a test tells it to lose.

    async with Proxy(url) as proxy:
        clients = await open_clients(proxy.url)
        lost = proxy.drop_reply(2, of=script("claim"))  # the second claim is carried out, nobody is told
        await lost.happened.wait()

It reads as much of the protocol as it takes to tell requests and replies apart; both pass unchanged. It must run
in the event loop of the test. What it does not count right: MONITOR, CLIENT REPLY, and subscriptions by RESP2.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Self
from urllib.parse import unquote, urlsplit

from scheduler.scripts import all_scripts, digest

Request = Sequence[bytes]
"""A command and its arguments, as they were sent."""

Match = str | Callable[[Request], bool] | None
"""Which requests are meant: those of a command's name, those of which a function says so, or all."""

CHUNK = 256 * 1024
UNANSWERED = {b"SUBSCRIBE", b"UNSUBSCRIBE", b"PSUBSCRIBE", b"PUNSUBSCRIBE", b"SSUBSCRIBE", b"SUNSUBSCRIBE"}
"""By RESP3 these are answered by pushes, which are no replies."""


class Action(Enum):
    """What becomes of a request."""

    PASS = "passed on, and its reply too"
    CUT_BEFORE = "never sent: the connection is cut instead"
    CUT_AFTER = "sent, and the connection cut at once: whether it is carried out shows later"
    DROP_REPLY = "carried out; its reply is swallowed, and the connection cut"


Plan = Callable[[Request], Action | bytes]
"""What becomes of a request; bytes are its reply, and the server never hears of it."""


@dataclass(slots=True)
class Fault:
    """A fault that waits for its request."""

    action: Action
    of: Match
    left: int
    """How many of these requests are to come, its own included."""
    happened: asyncio.Event = field(default_factory=asyncio.Event)

    def plan(self, request: Request) -> Action:
        if self.left == 0 or not matches(self.of, request):
            return Action.PASS
        self.left -= 1
        return self.action if self.left == 0 else Action.PASS


def matches(of: Match, request: Request) -> bool:
    if of is None:
        return True
    if isinstance(of, str):
        return name_of(request) == of.upper()
    return of(request)


def name_of(request: Request) -> str:
    return request[0].decode().upper()


def script(name: str) -> Callable[[Request], bool]:
    """The calls of a script of ours, by its digest or with its text."""
    ours = all_scripts()[name]
    bodies = {ours.plain, ours.flagged, ours.guarded}
    told = bodies | {digest(body).encode() for body in bodies}
    return lambda request: name_of(request) in {"EVAL", "EVALSHA"} and request[1] in told


class Proxy:
    """Listens on a free port of loopback, and passes on to the server of a URL."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._faults: list[Fault] = []
        self._through = asyncio.Event()
        self._through.set()
        self.port = 0
        self.plan: Plan | None = None
        """Asked about each request that no fault waits for."""
        self.delay = 0.0
        """Seconds that each piece of a reply is held back."""
        self.black = False
        self.connections = 0
        """Accepted since the start."""
        self.requests: Counter[str] = Counter()
        """Come in since the start, by command."""
        self.replies = 0
        """Passed on since the start."""

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.refuse()
        self.cut_all()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def url(self) -> str:
        """The server's address for who shall go through here."""
        parts = self._target
        user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        path = "" if parts.scheme == "unix" else parts.path
        query = f"?{parts.query}" if parts.query else ""
        return f"redis://{user}127.0.0.1:{self.port}{path}{query}"

    @property
    def open(self) -> int:
        """Connections that stand now."""
        return len(self._links)

    # -- one request -------------------------------------------------------------------------------------------

    def drop_reply(self, n: int = 1, *, of: Match = None) -> Fault:
        """The n-th request from now on is carried out; its reply is swallowed, and its connection cut."""
        return self._wait_for(Action.DROP_REPLY, n, of)

    def cut_before(self, n: int = 1, *, of: Match = None) -> Fault:
        """The n-th request from now on is not passed on: its connection is cut."""
        return self._wait_for(Action.CUT_BEFORE, n, of)

    def cut_after(self, n: int = 1, *, of: Match = None) -> Fault:
        """The n-th request from now on is passed on, and its connection cut without waiting for the reply."""
        return self._wait_for(Action.CUT_AFTER, n, of)

    def _wait_for(self, action: Action, n: int, of: Match) -> Fault:
        fault = Fault(action, of, n)
        self._faults.append(fault)
        return fault

    def answer(self, error: str, *, of: Match = None) -> None:
        """From now on these requests are refused with this error, in the server's place, until `plan` is None again."""
        refusal = f"-{error}\r\n".encode()
        self.plan = lambda request: refusal if matches(of, request) else Action.PASS

    def judge(self, request: Request) -> tuple[Action | bytes, Fault | None]:
        """What becomes of this request, and which fault says so. Every fault counts it."""
        found: tuple[Action | bytes, Fault | None] = (Action.PASS, None)
        for fault in list(self._faults):
            action = fault.plan(request)
            if action is not Action.PASS:
                self._faults.remove(fault)
                found = (action, fault)
        if found[1] is None and self.plan is not None:
            found = (self.plan(request), None)
        return found

    # -- all connections ---------------------------------------------------------------------------------------

    def cut_all(self, *, reset: bool = False) -> int:
        """Closes every connection, or resets it, and answers how many."""
        links = list(self._links)
        for link in links:
            link.cut(reset=reset)
        return len(links)

    def reset_all(self) -> int:
        """Resets every connection (RST), as a firewall or a rebooted host does."""
        return self.cut_all(reset=True)

    def black_hole(self) -> None:
        """Swallows everything, both ways, and says nothing. What is connected by then hears never again."""
        self.black = True
        for link in self._links:
            link.lost = True

    def heal(self) -> None:
        """New connections pass again. Those that fell into the black hole stay in it until their ends close them."""
        self.black = False

    def hold(self) -> None:
        """Keeps back everything, both ways, until `let_go`: nothing is lost, it is only late."""
        self._through.clear()

    def let_go(self) -> None:
        self._through.set()

    def refuse(self) -> None:
        """Refuses new connections. Those that stand are not touched."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def accept(self) -> None:
        """Takes connections (again), on the same port."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port, limit=CHUNK)
            self.port = self._server.sockets[0].getsockname()[1]

    # -- passing on --------------------------------------------------------------------------------------------

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        link = _Link(self, reader, writer, lost=self.black)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)
            self._tasks.discard(task)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the server behind."""
        target = self._target
        if target.scheme == "unix":
            return await asyncio.open_unix_connection(unquote(target.path), limit=CHUNK)
        return await asyncio.open_connection(target.hostname or "localhost", target.port or 6379, limit=CHUNK)

    async def through(self) -> None:
        await self._through.wait()


class _Link:
    """One client's connection and its other half to the server."""

    def __init__(
        self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, lost: bool
    ) -> None:
        self._proxy, self._reader, self._writer = proxy, reader, writer
        self._behind: asyncio.StreamWriter | None = None
        self._waiting: deque[Fault | Action | bytes] = deque()
        """For each request under way what becomes of its reply."""
        self._ended = asyncio.Event()
        self.lost = lost

    async def run(self) -> None:
        try:
            from_server, self._behind = await self._proxy.connect()
        except OSError:
            self.cut(reset=False)
            return
        ways = [
            asyncio.create_task(self._requests(self._behind)),
            asyncio.create_task(self._replies(from_server)),
            asyncio.create_task(self._ended.wait()),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.cut(reset=False)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def cut(self, *, reset: bool) -> None:
        self._ended.set()
        _close(self._writer, reset=reset)
        if self._behind is not None:
            _close(self._behind, reset=reset)

    async def _requests(self, to_server: asyncio.StreamWriter) -> None:
        values = Values()
        while data := await self._reader.read(CHUNK):
            await self._proxy.through()
            if self.lost:
                continue
            for raw in values.feed(data):
                request = parse(raw)
                self._proxy.requests[name_of(request)] += 1
                action, fault = self._proxy.judge(request)
                if action is Action.CUT_BEFORE:
                    await self._flush(to_server)
                    _tell(fault)
                    return
                if isinstance(action, bytes):
                    self._waiting.append(action)
                    self._answer()
                    continue
                to_server.write(raw)
                if action is Action.CUT_AFTER:
                    await self._flush(to_server)
                    _tell(fault)
                    return
                if request[0].upper() not in UNANSWERED:
                    self._waiting.append(fault or action)
            await to_server.drain()

    def _answer(self) -> None:
        # In the order of the requests: what the server is asked before is answered before.
        while self._waiting and isinstance(self._waiting[0], bytes):
            self._writer.write(self._waiting.popleft())  # type: ignore[arg-type]

    @staticmethod
    async def _flush(to_server: asyncio.StreamWriter) -> None:
        # What came before the cut is the server's: it goes out, and the end of the stream after it.
        with contextlib.suppress(OSError):
            await to_server.drain()
            to_server.write_eof()

    async def _replies(self, from_server: asyncio.StreamReader) -> None:
        values = Values()
        while data := await from_server.read(CHUNK):
            if self._proxy.delay:
                await asyncio.sleep(self._proxy.delay)
            await self._proxy.through()
            if self.lost:
                continue
            for raw in values.feed(data):
                if not raw.startswith(b">"):
                    end = self._waiting.popleft()
                    if end is not Action.PASS:
                        with contextlib.suppress(OSError):
                            await self._writer.drain()
                        _tell(end if isinstance(end, Fault) else None)
                        return
                    self._proxy.replies += 1
                self._writer.write(raw)
                self._answer()
            await self._writer.drain()


def _tell(fault: Fault | None) -> None:
    if fault is not None:
        fault.happened.set()


def _close(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if reset:
        found = writer.get_extra_info("socket")
        if found is not None and found.fileno() != -1 and found.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    elif not writer.is_closing():
        writer.close()


class Values:
    """Cuts a stream of RESP2 or RESP3 into its outermost values."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._at = 0
        self._left = 1
        """Values still missing in the one that has begun."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The values that are whole by now, each as it was sent."""
        self._held += data
        while self._step():
            if self._left == 0:
                yield bytes(self._held[: self._at])
                del self._held[: self._at]
                self._at, self._left = 0, 1

    def _step(self) -> bool:
        """Goes past one header, or one text with its header; False when more bytes are needed."""
        end = self._held.find(b"\r\n", self._at)
        if end < 0:
            return False
        kind, after = self._held[self._at : self._at + 1], end + 2
        size = self._held[self._at + 1 : end]
        if kind in b"$=!":
            after += int(size) + 2 if int(size) >= 0 else 0
            if len(self._held) < after:
                return False
        elif kind in b"*~>":
            self._left += max(0, int(size))
        elif kind == b"%":
            self._left += 2 * int(size)
        elif kind == b"|":  # attributes stand before a value, they are none
            self._left += 2 * int(size) + 1
        elif kind not in b"+-:_,#(":
            raise ValueError(f"no RESP: {bytes(self._held[self._at : end])!r}")
        self._left -= 1
        self._at = after
        return True


def parse(raw: bytes) -> Request:
    """A request: an array of texts."""
    count, _, rest = raw[1:].partition(b"\r\n")
    found = []
    for _ in range(int(count)):
        size, _, rest = rest[1:].partition(b"\r\n")
        found.append(rest[: int(size)])
        rest = rest[int(size) + 2 :]
    return found

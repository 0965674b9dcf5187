"""Calls over HTTP: each within its time, repeated where that is safe, its refusal raised as an error."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import io
import os
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from yarl import URL

from .. import __version__
from ..documents import NoJson, read, to_json
from ..errors import PayloadInvalid, SchedulerError
from .problems import Problem, StoreFull, StoreUnavailable, TooMany, Unreachable, problem_of

T = TypeVar("T")

JSON = "application/json"
NDJSON = "application/x-ndjson"
TIMEOUT = 30.0
"""Seconds that one try may take, beyond what it asks the server to wait."""
PATIENCE = 60.0
"""Seconds for which a call that is safe to repeat is repeated."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
AT_ONCE = 100
"""Calls under way, beyond those that wait for something: each has a connection, here and at the server."""


class Answer:
    """A whole answer: its status, its headers, its bytes."""

    __slots__ = ("body", "headers", "status", "unsure")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body
        self.unsure = False
        """A former try was not answered: what this one finds may have been its work."""

    def read(self, kind: type[T]) -> T:
        """The body as what it should be. Raises SchedulerError for something else."""
        try:
            return read(self.body, kind)
        except msgspec.MsgspecError as error:
            raise SchedulerError(f"the answer is not what this client knows: {error}") from error


class Transport:
    """One address, one key, one pool of connections. It belongs to the event loop that uses it first."""

    def __init__(self, url: str, key: str | None, *, timeout: float, patience: float) -> None:
        """Raises ValueError for what is no http address, or no key."""
        address = URL(url.rstrip("/"))
        if address.scheme not in {"http", "https"} or not address.host or address.query_string:
            shown = re.sub(r"//[^/]*@", "//…@", url)
            raise ValueError(f"{shown!r} is no address of the API: it is written as http://localhost:8080")
        self.key = key_of(key)
        self._login = (
            None if address.user is None else aiohttp.encode_basic_auth(address.user, address.password or "")
        )
        if self._login is not None and self.key is not None:
            raise ValueError("a call carries the key, or the user and password of the address: not both")
        self.url = str(address.with_user(None))
        """Without user and password: it stands in errors and logs."""
        self.timeout, self.patience = timeout, patience
        self._fresh()

    def _fresh(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._turns = asyncio.Semaphore(AT_ONCE)

    def again(self, *, timeout: float, patience: float) -> Transport:
        """Another one to the same place, for another event loop."""
        other = copy.copy(self)
        other.timeout, other.patience = timeout, patience
        other._fresh()  # noqa: SLF001 - of its own kind
        return other

    def __repr__(self) -> str:
        return f"<{self.url}>"

    def session(self) -> aiohttp.ClientSession:
        """Its connections, opened at the first use. Raises RuntimeError once it is closed."""
        if self._closed:
            # A call that is repeated meanwhile would open what nobody closes any more.
            raise RuntimeError(f"the client of {self.url} is closed")
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            raise RuntimeError(f"the client of {self.url} belongs to the event loop that used it first")
        if self._session is None:
            self._loop = loop
            headers = {"User-Agent": f"scheduler-client/{__version__}", "Accept": f"{JSON}, {NDJSON}"}
            if self.key is not None:
                headers["Authorization"] = f"Bearer {self.key}"
            elif self._login is not None:
                headers["Authorization"] = self._login
            self._session = aiohttp.ClientSession(
                headers=headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(limit=0),
                middlewares=(_once,),
            )
        return self._session

    async def close(self) -> None:
        self._closed = True
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        wait: float = 0,
        timeout: float | None = None,  # noqa: ASYNC109 - of each try
        safe: bool,
        patience: float | None = None,
    ) -> Answer:
        """One call. `safe`: the same call again changes nothing more, so that it is repeated when it is not answered.

        `wait`: seconds that the server is asked to wait. `timeout` and `patience` in place of its own. Raises Problem,
        and PayloadInvalid for a body that is no JSON.
        """
        try:
            sent = None if body is None else to_json(body)
        except NoJson as error:
            raise PayloadInvalid(f"this cannot be sent: {error}") from error
        unsure = False

        async def once() -> Answer:
            nonlocal unsure
            # Who waits for something keeps nobody else from his turn.
            turn = self._turns if not wait else contextlib.nullcontext()
            try:
                async with turn:
                    answer = await self._once(method, path, sent, query, headers, wait, timeout)
            except StoreUnavailable as error:
                unsure = unsure or error.unknown
                raise
            answer.unsure = unsure
            return answer

        return await self.repeated(once, safe=safe, patience=patience)

    async def repeated(
        self, once: Callable[[], Awaitable[T]], *, safe: bool, patience: float | None = None
    ) -> T:
        """What `once` answers in the end: tried again within the patience, after pauses that the server names."""
        loop = asyncio.get_running_loop()
        until = loop.time() + (self.patience if patience is None else patience)
        pause = FIRST_PAUSE
        while True:
            try:
                return await once()
            except (StoreUnavailable, StoreFull, TooMany) as error:
                refused = isinstance(error, TooMany | StoreFull) or (
                    isinstance(error, StoreUnavailable) and not error.unknown
                )
                if not safe and not refused:
                    raise
                # Jittered: all who were refused at once would come again at once.
                rest = max(error.retry_after or 0, pause * random.uniform(0.5, 1.0))
                if loop.time() + rest >= until:
                    raise
                pause = min(2 * pause, LONGEST_PAUSE)
                await asyncio.sleep(rest)

    async def _once(
        self,
        method: str,
        path: str,
        sent: bytes | None,
        query: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
        wait: float,
        timeout: float | None,  # noqa: ASYNC109 - of this try
    ) -> Answer:
        given, data = dict(headers or {}), None
        if sent is not None:
            given["Content-Type"] = JSON
            given["Content-Length"] = str(len(sent))
            data = io.BytesIO(sent)
        async with self.open(
            method, path, data, query=query, headers=given, wait=wait, timeout=timeout
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        sent: Any,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        wait: float = 0,
        timeout: float | None = None,  # noqa: ASYNC109 - of this try
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that has begun and is none of refusal. Raises Problem, also for what breaks while it is read."""
        timeout = self.timeout if timeout is None else min(timeout, self.timeout)
        limit = aiohttp.ClientTimeout(total=timeout + wait, sock_connect=min(10.0, timeout))
        try:
            async with self.session().request(
                method, self._address(path, query), data=sent, headers=headers, timeout=limit, allow_redirects=False
            ) as response:  # fmt: skip
                if response.status >= 300:
                    raise _problem(response, await response.read())
                yield response
        except TimeoutError as error:
            raise Unreachable(f"{self.url}: no answer within {timeout + wait:g} s") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise Unreachable(f"{self.url}: {str(error) or type(error).__name__}") from error

    def _address(self, path: str, query: Mapping[str, Any] | None) -> URL:
        said = {name: value for name, value in (query or {}).items() if value is not None}
        text = urlencode(said, quote_via=quote) if said else ""
        return URL(f"{self.url}{path}{'?' if text else ''}{text}", encoded=True)


async def _once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    # aiohttp would send a GET or DELETE again whose connection was closed. What is repeated is decided here.
    try:
        return await send(request)
    except aiohttp.ClientSSLError as error:
        # Repeating does not help.
        raise Problem({"code": "tls", "detail": str(error)}) from error
    except aiohttp.ClientConnectorError as error:
        # It was never sent.
        raise Unreachable(str(error), unknown=False) from error
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise Unreachable(f"{request.url.origin()}: {str(error) or type(error).__name__}") from error


def part(name: str) -> str:
    """A name as a part of an address."""
    return quote(name, safe=":~")


def key_of(key: str | None) -> str | None:
    """The key that was given, else that of SCHEDULER_API_KEY or SCHEDULER_API_KEY_FILE. Raises ValueError."""
    found = key if key is not None else os.environ.get("SCHEDULER_API_KEY")
    if found is None and (file := os.environ.get("SCHEDULER_API_KEY_FILE")):
        found = Path(file).read_text().strip()
    if not found:
        return None
    if not (found.isascii() and found.isprintable() and " " not in found):
        raise ValueError("a key has no spaces and no characters beyond ASCII")
    return found


def _problem(response: aiohttp.ClientResponse, body: bytes) -> Problem:
    try:
        document = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError:
        document = {"detail": f"{response.reason or 'no reason'}; it comes from something before the API"}
    # What the line says counts: some gateways send a body of their own.
    document["status"] = response.status
    return problem_of(document, retry_after=_retry_after(response.headers.get("Retry-After")))


def _retry_after(text: str | None) -> float | None:
    # A date is allowed too; nobody here sends one, and a pause of our own does as well.
    return float(text) if text is not None and text.isascii() and text.isdigit() else None

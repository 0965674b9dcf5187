"""The API as its callers see it: a server on a free port of loopback, and a client that speaks to it."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from aiohttp import ClientSession, TCPConnector
from multidict import CIMultiDictProxy
from redis.asyncio import Redis
from structlog.contextvars import merge_contextvars
from yarl import URL

from scheduler import logs
from scheduler.api import ROUTES, Deadlines, make_app, serve
from scheduler.api.crowd import Crowd
from scheduler.api.openapi import codes_of
from scheduler.api.parts import POLLS, Polls
from scheduler.clients import Clients
from scheduler.doorbell import Doorbell
from scheduler.events import Follower
from scheduler.settings import Settings
from scheduler.store import Store
from tests.helpers import faults

JSON = {"Content-Type": "application/json"}
on_valkey = pytest.mark.parametrize("backend", ("valkey",), indirect=True)


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: CIMultiDictProxy[str]
    raw: bytes

    @property
    def doc(self) -> Any:
        return orjson.loads(self.raw)

    @property
    def code(self) -> str:
        """Of a problem, which is one in every respect."""
        assert self.headers["Content-Type"] == "application/problem+json", (self.status, self.raw)
        assert self.doc["status"] == self.status
        assert {"type", "title", "status", "detail", "code"} <= set(self.doc)
        return str(self.doc["code"])

    @property
    def paths(self) -> list[str]:
        """The pointers of a validation problem."""
        return [fault["path"] for fault in self.doc["errors"]]


@dataclass
class Api:
    """A running server and who calls it."""

    store: Store
    port: int
    session: ClientSession
    settings: Settings
    stop: Callable[[], Awaitable[None]]
    """Ends the server, while its callers still wait."""
    doorbell: Doorbell
    polls: Polls
    crowd: Crowd

    @property
    def redis(self) -> Redis:
        return self.store.clients.commands

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One call. A body that is no bytes is sent as JSON; a header's name is written with _ for -."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            sent = JSON | sent
            body = io.BytesIO(body if isinstance(body, bytes) else orjson.dumps(body))
            sent |= {"Content-Length": str(body.getbuffer().nbytes)}
        url = f"http://127.0.0.1:{self.port}{path}"
        async with self.session.request(
            method, URL(url, encoded=True), data=body, headers=sent, allow_redirects=False
        ) as answer:
            came = Answer(answer.status, answer.headers, await answer.read())
        assert_documented(method, URL(url, encoded=True).path, came)
        return came

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.call("GET", path, **headers)

    async def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return await self.call("POST", path, body, **headers)

    async def put(self, path: str, body: Any, **headers: str) -> Answer:
        return await self.call("PUT", path, body, **headers)

    async def patch(self, path: str, body: Any, **headers: str) -> Answer:
        return await self.call("PATCH", path, body, **headers)

    async def enqueue(self, key: str = "a", queue: str = "mail", **fields: Any) -> Any:
        """A new job's document."""
        answer = await self.post("/v1/jobs", {"type": "send", "queue": queue, "id": key, **fields})
        assert answer.status == 201, answer.raw
        return answer.doc

    async def lease(self, queue: str = "mail", worker: str = "w", **fields: Any) -> list[Any]:
        """What a worker is given."""
        answer = await self.post(f"/v1/queues/{queue}/lease", {"worker": worker, **fields})
        assert answer.status == 200, answer.raw
        return list(answer.doc["jobs"])

    async def settle(self, queue: str = "mail", worker: str = "w", **fields: Any) -> list[Any]:
        """What each item is answered."""
        answer = await self.post(f"/v1/queues/{queue}/settle", {"worker": worker, **fields})
        assert answer.status == 200, answer.raw
        return list(answer.doc["items"])

    async def running(self, key: str = "a", **fields: Any) -> Any:
        """A job in the hands of the worker w."""
        await self.enqueue(key, **fields)
        [job] = await self.lease()
        return job

    async def dead(self, key: str = "a", **fields: Any) -> Any:
        """A dead letter."""
        job = await self.running(key, **fields)
        error = {"kind": "Boom", "message": "no"}
        [item] = await self.settle(nack=[{**held(job), "error": error, "permanent": True}])
        assert item == {"id": job["id"], "ok": True, "state": "dead"}
        return job

    async def raw(self, sent: bytes, *, within: float = 5.0) -> bytes:
        """What the server says to these bytes until it closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(sent)
            async with asyncio.timeout(within):
                return await reader.read()
        finally:
            writer.close()


PATTERNS = [(route, re.compile(re.sub(r"{\w+}", "[^/]+", route.path))) for route in ROUTES]


def assert_documented(method: str, path: str, came: Answer) -> None:
    """What a call answers is what its document says that it may."""
    found = [route for route, pattern in PATTERNS if pattern.fullmatch(path)]
    # Of paths that fit, such as /v1/jobs/bulk and /v1/jobs/{id}, that with fewer names is meant.
    names = min((route.path.count("{") for route in found), default=0)
    for route in found:
        if route.method == method and route.path.count("{") == names:
            if came.status < 400:
                assert came.status in route.answers, (method, path, came)
            else:
                codes = {*codes_of(route, key=True), *codes_of(route, key=False)}
                assert came.code in codes, (method, path, came)


async def until(happened: Callable[[], Awaitable[Any]], *, within: float = 5.0, every: float = 0.02) -> Any:
    """What `happened` answers when it is something at last."""
    async with asyncio.timeout(within):
        while not (found := await happened()):  # noqa: ASYNC110  # it happens in a server that is only asked
            await asyncio.sleep(every)
    return found


def held(job: Any) -> dict[str, Any]:
    """How a worker names what it holds."""
    return {"id": job["id"], "token": job["token"]}


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """What the API has logged by now, as a library does: a former test may have configured the process."""
    former = logs._processors[:]
    logs._processors[:] = [merge_contextvars, logs._hand_over]
    caplog.set_level("INFO")

    def lines() -> str:
        ours = [record for record in caplog.records if record.name.startswith(("scheduler.api", "aiohttp"))]
        texts = [f"{record.getMessage()} {record.exc_info or ''}" for record in ours]
        return "\n".join(text for text in texts if not text.startswith("serving "))

    yield lines
    logs._processors[:] = former


@pytest.fixture(params=("fake", "valkey"))
def backend(request: pytest.FixtureRequest) -> str:
    """The scripts are tested elsewhere on every server; here the fake and a real one are enough."""
    return str(request.param)


@asynccontextmanager
async def served(
    clients: Clients, *, deadlines: Deadlines | None = None, **settings: Any
) -> AsyncIterator[Api]:
    """A server on these clients, which the caller closes."""
    told = Settings(**{"port": 0, **settings})
    store = Store(clients, told.namespace)
    doorbell, follower = Doorbell(clients, told.namespace), Follower(clients, told.namespace)
    app = make_app(store, told, doorbell=doorbell, follower=follower, deadlines=deadlines)
    try:
        async with ClientSession(connector=TCPConnector(limit=0)) as session, AsyncExitStack() as running:
            site = await running.enter_async_context(serve(app, told, grace=2.0))
            yield Api(store, site.port, session, told, running.aclose, doorbell, app[POLLS], site.crowd)
    finally:
        await doorbell.close()
        await follower.close()


Serving = Callable[..., AbstractAsyncContextManager[Api]]


@pytest.fixture
async def serving(clients: Clients) -> AsyncIterator[Callable[..., Any]]:
    """Starts servers with settings of the test's own: `api = await serving(api_key="k")`."""
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Api:
            return await stack.enter_async_context(served(clients, **settings))

        yield start


@pytest.fixture
async def api(clients: Clients, request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    """A server with the default settings. After the test every job stands in exactly one set."""
    async with served(clients) as api:
        yield api
        if request.node.get_closest_marker("unverified") is None:
            assert [] == await faults(api.store)

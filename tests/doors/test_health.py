"""Health, and a store that is away: at the start, in between, for good."""

import asyncio
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest

from scheduler.clients import Clients, make_client
from scheduler.errors import StoreRefused
from scheduler.keys import LAYOUT
from tests.conftest import binary, start
from tests.doors.conftest import served, until
from tests.helpers import on_the_fake

CALLS: tuple[tuple[str, str, Any], ...] = (
    ("POST", "/v1/jobs", {"type": "t"}),
    ("GET", "/v1/jobs/mail:a", None),
    ("GET", "/v1/jobs/mail:a?wait=1", None),
    ("POST", "/v1/jobs/mail:a/cancel", None),
    ("POST", "/v1/jobs/mail:a/run", None),
    ("POST", "/v1/jobs/mail:a/replay", None),
    ("POST", "/v1/queues/mail/lease", {"worker": "w"}),
    ("POST", "/v1/queues/mail/settle", {"worker": "w", "ack": [{"id": "mail:a", "token": 1}]}),
    ("GET", "/v1/queues", None),
    ("GET", "/v1/queues/mail", None),
    ("PUT", "/v1/queues/mail", {}),
    ("PATCH", "/v1/queues/mail", {}),
    ("POST", "/v1/queues/mail/pause", None),
    ("POST", "/v1/queues/mail/resume", None),
    ("GET", "/v1/queues/mail/types", None),
    ("GET", "/v1/queues/mail/types/send", None),
    ("PUT", "/v1/queues/mail/types/send", {}),
    ("PATCH", "/v1/queues/mail/types/send", {}),
    ("DELETE", "/v1/queues/mail/types/send", None),
)


async def test_it_lives_and_is_ready(api, backend):
    alive, ready = await api.get("/livez"), await api.get("/readyz")

    assert (200, {"status": "alive"}) == (alive.status, alive.doc)
    assert (200, "ready", LAYOUT) == (ready.status, ready.doc["status"], ready.doc["layout"])
    assert {"version", "role"} == set(ready.doc["redis"])
    assert (backend == "valkey") == ("valkey" in ready.doc["redis"]["version"])


async def answers(api, status, *call):
    return (await api.call(*call)).status == status


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="away-") as name:
        yield Path(name)


async def test_a_store_that_is_away_at_the_start_and_comes(folder):
    socket = folder / "s.sock"
    url = f"unix://{socket}"
    clients = Clients(
        commands=make_client(url, name="c"),
        reads=make_client(url, name="r", reads=True),
        waits=make_client(url, name="w", waits=True),
        where=url,
    )
    process = None
    try:
        async with served(clients) as api:
            alive, ready = await api.get("/livez"), await api.get("/readyz")
            assert 200 == alive.status
            assert (503, "store_unavailable") == (ready.status, ready.code)
            assert url in ready.doc["detail"]
            for method, path, body in CALLS:
                answer = await api.call(method, path, body)
                assert (503, "store_unavailable") == (answer.status, answer.code), path
                assert 1 <= int(answer.headers["Retry-After"]) <= 60
                assert str(socket) not in answer.doc["detail"]
            async with asyncio.timeout(1):
                assert 503 == (await api.post("/v1/queues/mail/lease", {"worker": "w", "wait": 30})).status

            program = binary("valkey")
            assert program is not None
            process = start(program, socket)
            await until(lambda: answers(api, 200, "GET", "/readyz"))
            await api.enqueue()

            process.send_signal(signal.SIGKILL)
            process.wait()
            socket.unlink()
            assert 503 == (await api.post("/v1/jobs", {"type": "t"})).status
            process = start(program, socket)
            await until(lambda: answers(api, 201, "POST", "/v1/jobs", {"type": "t"}))
            assert ["default:"] == [job["id"][:8] for job in await api.lease("default", wait=5)]
    finally:
        await clients.close()
        if process is not None:
            process.kill()
            process.wait()


async def test_a_silent_store_is_not_ready_and_is_named(serving, monkeypatch):
    api = await serving()
    monkeypatch.setattr("scheduler.api.health.PATIENCE", 0.1)
    monkeypatch.setattr(api.store, "server", lambda: asyncio.sleep(10))
    answer = await api.get("/readyz")

    assert (503, "store_unavailable") == (answer.status, answer.code)
    assert api.store.clients.where in answer.doc["detail"]


@on_the_fake
async def test_a_store_that_refuses_is_for_its_operator(serving, monkeypatch, said):
    api = await serving()

    async def refuse(*_):
        raise StoreRefused("redis://secret-host: enqueue: NOPERM this user has no permissions")

    monkeypatch.setattr(api.store, "run_all", refuse)
    answer = await api.post("/v1/jobs", {"type": "t"})
    ready = await api.get("/readyz")

    assert (503, "store_unavailable") == (answer.status, answer.code)
    assert "secret-host" not in answer.doc["detail"]
    assert "NOPERM" in said()
    assert 503 == ready.status
    assert "NOPERM" in ready.doc["detail"]


async def test_a_foreign_key_in_the_way_is_no_stack_trace(api):
    await api.redis.set("{scheduler:mail}:jobs", "foreign")
    answer = await api.post("/v1/jobs", {"type": "t", "queue": "mail"})
    await api.redis.delete("{scheduler:mail}:jobs")

    assert (503, "store_unavailable") == (answer.status, answer.code)
    assert b"WRONGTYPE" not in answer.raw

"""Callers by the thousand who send little, read nothing or never end: the others are answered all the same."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from scheduler.api import Deadlines
from scheduler.api.crowd import room
from tests.doors.conftest import Api, until


@pytest.fixture
def backend() -> str:
    return "fake"


HALF = b"GET /livez HTTP/1.1\r\nHost: localhost"
WHOLE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextlib.asynccontextmanager
async def callers(api: Api, count: int, sent: bytes) -> AsyncIterator[list[socket.socket]]:
    """So many connections that have sent this."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        sockets = []
        for _ in range(count):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            await loop.sock_connect(one, ("127.0.0.1", api.port))
            await loop.sock_sendall(one, sent)
            sockets.append(one)
        yield sockets


async def heard(one: socket.socket, *, within: float = 10) -> bytes:
    """The next bytes, none once the other side has closed."""
    try:
        async with asyncio.timeout(within):
            return await asyncio.get_running_loop().sock_recv(one, 65_536)
    except ConnectionResetError:
        return b""


async def test_beyond_the_most_the_longest_quiet_connection_goes_and_no_busy_one(serving: Any) -> None:
    api = await serving(deadlines=Deadlines(connections=20))
    await api.enqueue(delay=600)
    polling = asyncio.create_task(api.get("/v1/jobs/mail:a?wait=60"))
    await until(lambda: asyncio.sleep(0, len(api.polls._limits)))
    async with callers(api, 1, WHOLE) as [idle], callers(api, 40, HALF) as half_open:
        assert b'"alive"' in await heard(idle)
        assert 200 == (await api.get("/livez")).status
        assert [b""] * 21 == [await heard(one) for one in [idle, *half_open[:20]]]
    await api.post("/v1/jobs/mail:a/cancel")

    assert "cancelled" == (await polling).doc["state"]


async def test_half_a_body_makes_room_too_and_is_no_fault_of_ours(serving: Any, said: Any) -> None:
    api = await serving(deadlines=Deadlines(connections=20))
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"
    async with callers(api, 60, head) as half_sent:
        assert 200 == (await api.get("/livez")).status
        assert [b""] * 40 == [await heard(one) for one in half_sent[:40]]

    assert "" == said()


async def test_where_all_are_busy_the_new_one_is_turned_away(serving: Any) -> None:
    api = await serving(deadlines=Deadlines(connections=3))
    await api.enqueue(delay=600)
    polling = [asyncio.create_task(api.get("/v1/jobs/mail:a?wait=60")) for _ in range(3)]
    await until(lambda: asyncio.sleep(0, len(api.polls._limits) == 3))
    async with callers(api, 1, HALF) as [refused]:
        assert b"" == await heard(refused)
    await api.store.cancel("mail", ["a"])

    assert ["cancelled"] * 3 == [(await one).doc["state"] for one in polling]


async def test_answers_that_nobody_reads_do_not_stay(serving: Any) -> None:
    api = await serving(deadlines=Deadlines(idle=0.3, linger=0.1))
    await api.post("/v1/jobs", {"type": "t", "queue": "mail", "id": "a", "payload": "x" * 500_000})
    asked = b"GET /v1/jobs/mail:a HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with callers(api, 5, asked * 40):
        await until(lambda: asyncio.sleep(0, len(api.crowd) >= 5))
        await until(lambda: asyncio.sleep(0, len(api.crowd) == 0))


async def test_an_answer_that_is_read_slowly_is_read_to_its_end(serving: Any) -> None:
    api, size = await serving(deadlines=Deadlines(idle=0.5, linger=0.1)), 1_000_000
    await api.post("/v1/jobs", {"type": "t", "queue": "mail", "id": "a", "payload": "x" * size})
    loop, read = asyncio.get_running_loop(), 0
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)  # or the system would read for it
        slow.setblocking(False)
        await loop.sock_connect(slow, ("127.0.0.1", api.port))
        await loop.sock_sendall(slow, b"GET /v1/jobs/mail:a HTTP/1.1\r\nHost: localhost\r\n\r\n" * 12)
        async with asyncio.timeout(60):
            while read < 12 * size and (came := await loop.sock_recv(slow, 16_384)):
                read += len(came)
                await asyncio.sleep(0.002)

    assert 12 * size < read


async def test_the_number_of_files_sets_a_bound_besides(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[int, int]] = []
    monkeypatch.setattr("resource.setrlimit", lambda _, limits: said.append(limits))
    for limits, connections, raised in (
        ((1_024, 4_096), 2_048, [(4_096, 4_096)]),
        ((1_024, 1_024), 512, []),
        ((1_024, -1), 32_768, [(65_536, -1)]),
        ((-1, -1), 32_768, []),
        ((1_000_000, 1_000_000), 500_000, []),
        ((8, 8), 16, []),
    ):
        said.clear()
        monkeypatch.setattr("resource.getrlimit", lambda _, limits=limits: limits)
        assert (connections, raised) == (room(), said)


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.parametrize(
    "sent",
    [
        HALF,
        b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
    ],
)
async def test_two_thousand_who_send_a_byte_a_second_hold_up_nobody(serving: Any, sent: bytes) -> None:
    api = await serving(deadlines=Deadlines(headers=3, body=3, linger=1))
    await api.enqueue()
    before = len(api.crowd)
    async with callers(api, 2_000, sent) as slow:
        async with asyncio.timeout(30):
            while len(api.crowd) > before:
                for one in slow:
                    with contextlib.suppress(OSError):
                        one.send(b" ")
                assert 200 == (await api.get("/v1/jobs/mail:a")).status
                await asyncio.sleep(1)
        answers = [await heard(one) for one in slow]

    assert {b"", b"HTTP/1.1 408"} >= {answer[:12] for answer in answers}
    assert 201 == (await api.post("/v1/jobs", {"type": "t"})).status

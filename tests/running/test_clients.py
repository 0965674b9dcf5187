"""The three clients of a process, each with its own patience."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis import exceptions as redis_errors
from redis.asyncio import Redis

from scheduler.clients import DEADLINE, Clients, open_clients
from scheduler.heartbeat import Heartbeat
from scheduler.outcomes import Extend
from scheduler.store import Store
from tests.conftest import Servers, binary
from tests.helpers import on_real_servers
from tests.proxy import Proxy
from tests.server import Server

pytestmark = on_real_servers
LOST = (redis_errors.ConnectionError, redis_errors.TimeoutError, OSError)


@pytest.fixture
async def proxy(servers: Servers, backend: str, clients: Clients) -> AsyncIterator[Proxy]:
    async with Proxy(servers.url(backend)) as proxy:
        yield proxy


@pytest.fixture
async def three(proxy: Proxy) -> AsyncIterator[Clients]:
    three = await open_clients(f"{proxy.url}?socket_timeout=1")
    yield three
    await three.close()


async def test_a_command_is_never_repeated_by_the_library(proxy: Proxy, three: Clients, redis: Redis):
    proxy.drop_reply(of="INCRBY")
    with pytest.raises(LOST):
        await three.commands.incr("n")

    assert (b"1", 1) == (await redis.get("n"), proxy.requests["INCRBY"])


async def test_a_read_is(proxy: Proxy, three: Clients, redis: Redis):
    await redis.set("n", "1")
    proxy.drop_reply(of="GET")

    assert (b"1", 2) == (await three.reads.get("n"), proxy.requests["GET"])


async def test_a_heartbeat_is_not(proxy: Proxy, three: Clients, redis: Redis):
    client = three.blocking(1.0)
    proxy.drop_reply(of="INCRBY")
    with pytest.raises(LOST):
        await asyncio.to_thread(client.incr, "n")

    assert b"1" == await redis.get("n")
    assert 2 == await asyncio.to_thread(client.incr, "n")
    client.close()


async def test_a_heartbeat_gives_up_when_it_was_told_to(proxy: Proxy, three: Clients):
    client = three.blocking(0.3)
    await asyncio.to_thread(client.ping)
    proxy.black_hole()
    for _ in range(2):  # on the connection that stood, and on a new one
        with pytest.raises(LOST):
            async with asyncio.timeout(DEADLINE - 1):
                await asyncio.to_thread(client.ping)
    client.close()


async def test_a_server_that_was_made_a_replica_is_left(tmp_path, backend):
    program = binary(backend)
    assert program is not None
    with Server(program, tmp_path) as server:
        three = await open_clients(server.url)
        for client in (three.commands, three.waits):
            before = await client.client_id()
            server.say("REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(redis_errors.ReadOnlyError):
                await client.lpush("n", "1")
            server.say("REPLICAOF", "NO", "ONE")
            assert before != await client.client_id()
        await three.close()


async def test_so_does_a_heartbeat(tmp_path, backend):
    program = binary(backend)
    assert program is not None
    with Server(program, tmp_path) as server:
        store = Store(await open_clients(server.url))
        await store.connect()
        heartbeat = Heartbeat(store, 30_000, held=list, heard=lambda *_: None)
        call = store.extend_call("mail", [Extend("a", 1, 1_000)])
        assert ["missing"] == await asyncio.to_thread(heartbeat._extend, call)
        assert heartbeat._client is not None
        before = heartbeat._client.client_id()
        server.say("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(redis_errors.ReadOnlyError):
            await asyncio.to_thread(heartbeat._extend, call)
        assert before != heartbeat._client.client_id()
        await heartbeat.stop()
        await store.close()


@pytest.mark.long
async def test_who_waits_may_wait_longer_than_a_deadline(three: Clients):
    assert await three.waits.blpop(["bell"], timeout=DEADLINE + 1) is None


@pytest.mark.long
async def test_commands_and_reads_end_though_nobody_answers(proxy: Proxy, three: Clients):
    await asyncio.gather(three.commands.ping(), three.reads.ping())
    proxy.black_hole()
    for client, repeats in ((three.commands, 0), (three.reads, 1)):
        with pytest.raises(LOST):
            async with asyncio.timeout((repeats + 1) * (DEADLINE + 1)):
                await client.ping()

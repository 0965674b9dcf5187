"""The three clients of a process, each with its own patience."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis import exceptions as redis_errors
from redis.asyncio import Redis

from scheduler.clients import DEADLINE, Clients, open_clients
from tests.conftest import Servers
from tests.helpers import on_real_servers
from tests.proxy import Proxy

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

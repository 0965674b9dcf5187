"""The faulty network loses what it is told to lose, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis import exceptions as redis_errors
from redis.asyncio import Redis

from scheduler.clients import Clients, make_client
from scheduler.store import Store
from tests.conftest import Servers
from tests.helpers import QUEUE, new, on_real_servers, state_of, take
from tests.proxy import Action, Proxy, Values, parse, script

LOST = (redis_errors.ConnectionError, redis_errors.TimeoutError, OSError)


@pytest.fixture
async def proxy(servers: Servers, backend: str, clients: Clients) -> AsyncIterator[Proxy]:
    async with Proxy(servers.url(backend)) as proxy:
        yield proxy


@pytest.fixture
async def behind(proxy: Proxy) -> AsyncIterator[Redis]:
    """A client that speaks to the server through the proxy, and repeats nothing."""
    client = make_client(proxy.url, name="behind")
    yield client
    await client.aclose()


async def until(check: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not check():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.005)


async def number(redis: Redis, key: str = "n") -> int:
    return int(await redis.get(key) or 0)


@on_real_servers
async def test_everything_passes_and_is_counted(proxy: Proxy, behind: Redis):
    await behind.ping()
    requests, replies = proxy.requests.total(), proxy.replies
    big = b"\r\n$-1\r\n" * 300_000
    await behind.set("a", big)
    pipe = behind.pipeline(transaction=False)
    for n in range(500):
        pipe.hset("h", str(n), "x")
    pipe.hgetall("h")
    answers = await pipe.execute()

    assert big == await behind.get("a")
    assert 500 == len(answers[-1])
    assert (503, 503) == (proxy.requests.total() - requests, proxy.replies - replies)
    assert (500, 1) == (proxy.requests["HSET"], proxy.requests["SET"])
    assert (1, 1) == (proxy.connections, proxy.open)


@on_real_servers
async def test_a_dropped_reply_is_of_a_request_that_was_carried_out(
    proxy: Proxy, behind: Redis, redis: Redis
):
    lost = proxy.drop_reply(3, of="incrby")
    for _ in range(2):
        await behind.incr("n")
        await behind.get("n")
    with pytest.raises(LOST):
        await behind.incr("n")

    assert lost.happened.is_set()
    assert 3 == await number(redis)
    assert 4 == await behind.incr("n")


@on_real_servers
async def test_within_a_pipeline_the_replies_before_the_lost_one_arrive(
    proxy: Proxy, behind: Redis, redis: Redis
):
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    proxy.drop_reply(2, of="INCR")
    writer.write(b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n" * 3)

    assert b":1\r\n" == await reader.read()
    assert 3 == await number(redis)
    writer.close()


@on_real_servers
async def test_a_cut_before_a_request_keeps_it_from_the_server(proxy: Proxy, behind: Redis, redis: Redis):
    proxy.cut_before(2, of="INCRBY")
    await behind.incr("n")
    with pytest.raises(LOST):
        await behind.incr("n")

    assert 1 == await number(redis)


@on_real_servers
async def test_a_cut_after_a_request_leaves_it_to_the_server(proxy: Proxy, behind: Redis, redis: Redis):
    cut = proxy.cut_after(of="INCRBY")
    with pytest.raises(LOST):
        await behind.incr("n")

    assert cut.happened.is_set()
    async with asyncio.timeout(5):
        while await number(redis) == 0:  # noqa: ASYNC110 - it happens in the server
            await asyncio.sleep(0.01)


@on_real_servers
async def test_a_script_is_known_by_its_name_whether_by_digest_or_text(
    proxy: Proxy, behind: Redis, redis: Redis
):
    clients = Clients(commands=behind, reads=behind, waits=behind, where="proxy", url=proxy.url)
    store = Store(clients)
    await store.connect()
    await store.enqueue(QUEUE, [new("a"), new("b")])
    lost = proxy.drop_reply(2, of=script("claim"))

    assert ["a"] == [job.key for job in await take(store, turn=1)]
    await redis.script_flush()  # the next call is answered NOSCRIPT, and comes again with its text
    with pytest.raises(Exception, match="claim"):
        await take(store, turn=2)
    assert lost.happened.is_set()
    await store.enqueue(QUEUE, [new("c")])
    assert "ready" == await state_of(store, "c")


@on_real_servers
async def test_a_plan_judges_what_no_fault_waits_for(proxy: Proxy, behind: Redis, redis: Redis):
    def odd(request: Any) -> Action | bytes:
        return Action.DROP_REPLY if request[-1] == b"7" else Action.PASS

    proxy.plan = odd
    await behind.incrby("n", 1)
    with pytest.raises(LOST):
        await behind.incrby("n", 7)
    proxy.plan = None
    assert 15 == await behind.incrby("n", 7)


@on_real_servers
async def test_a_refusal_comes_in_the_server_s_place_and_in_order(proxy: Proxy, behind: Redis, redis: Redis):
    proxy.answer("TRYAGAIN a little later", of="INCRBY")
    pipe = behind.pipeline(transaction=False)
    for command in (pipe.incr, pipe.get, pipe.incr):
        command("n")
    first, between, last = await pipe.execute(raise_on_error=False)

    assert [redis_errors.TryAgainError] * 2 == [type(first), type(last)]
    assert between is None
    proxy.plan = None
    assert 1 == await behind.incr("n")


@on_real_servers
async def test_a_reset_reaches_every_connection_also_one_that_waits(proxy: Proxy, behind: Redis):
    waiting = asyncio.ensure_future(behind.blpop(["bell"], timeout=0))
    await until(lambda: proxy.requests["BLPOP"])
    await behind.ping()

    assert 2 == proxy.reset_all()
    with pytest.raises(LOST):
        await waiting
    assert await behind.ping()


@on_real_servers
async def test_a_reset_is_one(proxy: Proxy):
    reader, _ = await asyncio.open_connection("127.0.0.1", proxy.port)
    await until(lambda: proxy.open)
    proxy.reset_all()

    with pytest.raises(ConnectionResetError):
        await reader.read()


@on_real_servers
async def test_from_a_black_hole_nothing_comes_back_and_nothing_gets_through(
    proxy: Proxy, behind: Redis, redis: Redis
):
    await behind.incr("n")
    behind.connection_pool.connection_kwargs["socket_timeout"] = 0.3
    proxy.black_hole()
    for _ in range(2):  # on the connection that stood, and on a new one
        with pytest.raises(LOST):
            async with asyncio.timeout(0.4):
                await behind.incr("n")

    assert 1 == await number(redis)
    proxy.heal()
    assert 2 == await behind.incr("n")


@on_real_servers
async def test_what_is_held_arrives_late_and_whole(proxy: Proxy, behind: Redis, redis: Redis):
    await behind.ping()
    proxy.hold()
    late = [asyncio.ensure_future(behind.incr("n")) for _ in range(3)]
    await asyncio.sleep(0.1)
    assert 0 == await number(redis)
    proxy.let_go()

    assert [1, 2, 3] == sorted(await asyncio.gather(*late))


@on_real_servers
async def test_new_connections_are_refused_and_old_ones_stand(proxy: Proxy, behind: Redis):
    await behind.ping()
    proxy.refuse()

    assert await behind.ping()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", proxy.port)
    proxy.cut_all()
    with pytest.raises(LOST):
        await behind.ping()
    await proxy.accept()
    assert await behind.ping()


@on_real_servers
async def test_a_delay_is_waited_for(proxy: Proxy, behind: Redis):
    await behind.ping()
    proxy.delay = 0.2
    began = asyncio.get_running_loop().time()
    await behind.ping()

    assert asyncio.get_running_loop().time() - began >= 0.2


async def test_a_server_that_is_away_is_a_closed_connection():
    async with Proxy("redis://127.0.0.1:1") as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert b"" == await reader.read()
        writer.close()


@pytest.mark.parametrize("step", [1, 3, 10_000])
async def test_a_stream_is_cut_into_its_values_however_it_arrives(step: int):
    whole = [
        b"+OK\r\n",
        b"$-1\r\n",
        b"$6\r\n\r\n$9\r\n\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"%2\r\n+a\r\n*2\r\n:1\r\n:2\r\n+b\r\n%1\r\n_\r\n#t\r\n",
        b">2\r\n+message\r\n$1\r\nx\r\n",
        b"|1\r\n+ttl\r\n:9\r\n*2\r\n:1\r\n,1.5\r\n",
        b"-NOSCRIPT no\r\n",
        b"=7\r\ntxt:abc\r\n",
        b"~1\r\n(123\r\n",
    ]
    stream, values = b"".join(whole), Values()
    found = [value for n in range(0, len(stream), step) for value in values.feed(stream[n : n + step])]

    assert whole == found


async def test_a_request_is_read_as_it_was_meant():
    assert [b"SET", b"a", b"", b"\r\n"] == parse(b"*4\r\n$3\r\nSET\r\n$1\r\na\r\n$0\r\n\r\n$2\r\n\r\n\r\n")

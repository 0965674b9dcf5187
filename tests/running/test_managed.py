"""A managed server that refuses scripts without keys, and CONFIG: all works, and `doctor` blames no user."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from scheduler.clients import open_clients
from scheduler.diagnosis import examine, reach
from scheduler.doorbell import Doorbell
from scheduler.errors import StoreRefused
from scheduler.events import Follower
from scheduler.store import Store
from scheduler.upkeep import sweep
from tests.helpers import on_real_servers
from tests.proxy import Action, Proxy, Request, name_of
from tests.running.conftest import FAST, QUEUE, Bench

pytestmark = on_real_servers

KEYLESS = b"-ERR Lua scripts without any input keys are not supported\r\n"


def refusal(request: Request) -> Action | bytes:
    """What such a server refuses."""
    if name_of(request) in {"EVAL", "EVALSHA"} and request[2] == b"0":
        return KEYLESS
    if name_of(request) == "CONFIG":
        return b"-ERR unknown command 'config'\r\n"
    return Action.PASS


@pytest.fixture
async def managed(servers, backend, clients) -> AsyncIterator[Proxy]:
    async with Proxy(servers.url(backend)) as proxy:
        proxy.plan = refusal
        yield proxy


@pytest.fixture
async def there(managed: Proxy) -> AsyncIterator[Store]:
    store = Store(await open_clients(managed.url))
    yield store
    await store.close()


async def test_a_worker_starts_and_works_there(there):
    await there.connect(queue=QUEUE)
    bench = Bench(there, Doorbell(there.clients, "scheduler"), Follower(there.clients, "scheduler"))

    async def echo(ctx, n: int = 0):
        return n

    bench.handler("echo", echo)
    worker = bench.work()
    key = await bench.enqueue("echo", b'{"n": 7}')

    assert b"7" == (await bench.ended(key)).result

    assert 0 < await sweep(there, QUEUE, FAST)
    await bench.stop(worker)
    await bench.doorbell.close()
    await bench.follower.close()


async def test_doctor_finds_the_rights_in_order_there(there):
    found = {one.check: one for one in await examine(there, await reach(there), durability="strict")}

    assert ("ok", "ok") == (found["rights"].status, found["scripts"].status)


async def test_doctor_says_what_is_refused_where_no_script_runs_at_all(there, managed):
    managed.answer(
        "ERR scripts are not supported here", of=lambda request: name_of(request).startswith("EVAL")
    )

    found = {one.check: one for one in await examine(there, await reach(there), durability="strict")}

    assert ("warn", "fail") == (found["rights"].status, found["scripts"].status)
    for check in ("rights", "scripts"):
        assert "scripts are not supported here" in found[check].message
        assert "ACL" not in found[check].cure
    with pytest.raises(StoreRefused, match="scripts are not supported here"):
        await there.connect()

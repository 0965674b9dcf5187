"""GET /v1/workers, and how many serve a queue."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import replace
from typing import Any

import pytest

from scheduler import __version__
from scheduler.doorbell import Doorbell
from scheduler.handlers import Handlers, make_handler
from scheduler.keys import worker_key, workers_key
from scheduler.settings import Settings
from scheduler.worker import Worker
from tests.doors.conftest import Api
from tests.helpers import QUEUE, new


async def listed(api: Api, count: int = 1) -> list[dict[str, Any]]:
    """The workers, once so many are there: a sign goes out behind the answer."""
    items: list[dict[str, Any]] = []
    for _ in range(500):
        items = (await api.get("/v1/workers")).doc["items"]
        if len(items) >= count:
            return items
        await asyncio.sleep(0.01)
    raise AssertionError(f"{items}: not {count}")


async def test_nobody_is_there(api):
    answer = await api.get("/v1/workers")

    assert (200, {"items": [], "next_cursor": None}) == (answer.status, answer.doc)


@pytest.mark.parametrize("backend", ["valkey"], indirect=True)
async def test_a_worker_is_listed_with_what_it_runs_until_it_leaves(api: Api):
    handlers, go, started = Handlers(), asyncio.Event(), asyncio.Event()

    async def work(ctx) -> None:
        started.set()
        await go.wait()

    handlers.add(make_handler("work", work, queue=QUEUE))
    doorbell = Doorbell(api.store.clients, api.store.namespace)
    settings = replace(Settings(), lease_ms=3_000)
    worker = Worker(api.store, handlers, settings, doorbell=doorbell, queues={QUEUE: 1}, concurrency=7)
    running = asyncio.create_task(worker.run())
    await api.store.enqueue(QUEUE, [new("a", type="work")])
    await started.wait()
    [shown] = await listed(api)

    assert {
        "name": worker.name, "host": socket.gethostname(), "pid": os.getpid(), "version": __version__,
        "queues": [QUEUE], "types": ["work"], "concurrency": 7, "running": [f"{QUEUE}:a"],
    } == {name: value for name, value in shown.items() if not name.endswith("_at")}  # fmt: skip
    assert shown["started_at"] <= shown["seen_at"]
    assert 1 == (await api.get(f"/v1/queues/{QUEUE}")).doc["workers"]
    assert [1] == [queue["workers"] for queue in (await api.get("/v1/queues")).doc["items"]]

    go.set()
    worker.stop()
    await running
    await doorbell.close()
    assert [] == (await api.get("/v1/workers")).doc["items"]
    assert 0 == (await api.get(f"/v1/queues/{QUEUE}")).doc["workers"]


async def test_one_that_leases_over_rest_is_there_from_its_first_lease(api):
    await api.store.enqueue(QUEUE, [new("a")])
    await api.post(f"/v1/queues/{QUEUE}/lease", {"worker": "rest:1"})
    await api.post("/v1/queues/other/lease", {"worker": "rest:1"})
    await listed(api)
    await api.post(f"/v1/queues/{QUEUE}/lease", {"worker": "rest:2"})
    [shown, _] = await listed(api, 2)
    assert ("rest:1", [QUEUE, "other"], [f"{QUEUE}:a"]) == (shown["name"], shown["queues"], shown["running"])
    assert [None] * 4 == [shown[name] for name in ("host", "pid", "version", "concurrency")]


async def test_who_says_nothing_for_two_leases_is_listed_no_longer(api):
    await api.post("/v1/queues/q/lease", {"worker": "brief", "lease": 1})
    await listed(api)
    left = await api.redis.pttl(worker_key("scheduler", "brief"))
    await api.redis.unlink(worker_key("scheduler", "brief"))  # its time is over

    assert 0 < left <= 2_000
    assert [] == (await api.get("/v1/workers")).doc["items"]
    assert 0 == await api.redis.scard(workers_key("scheduler"))


async def test_workers_come_in_pages(api):
    for n in range(5):
        await api.post("/v1/queues/q/lease", {"worker": f"w:{n}"})
    await listed(api, 5)
    first = (await api.get("/v1/workers?limit=3")).doc
    second = (await api.get(f"/v1/workers?limit=3&cursor={first['next_cursor']}")).doc

    assert [f"w:{n}" for n in range(5)] == [w["name"] for w in first["items"] + second["items"]]
    assert second["next_cursor"] is None
    assert ["/cursor"] == (await api.get("/v1/workers?cursor=abc")).paths
    assert ["/limit"] == (await api.get("/v1/workers?limit=0")).paths

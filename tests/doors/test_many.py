"""A thousand calls at once: each is answered, and the server sees no more connections than there may be."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from redis.asyncio import Redis

from scheduler.clients import open_clients
from tests.conftest import Servers
from tests.doors.conftest import Api, held, on_valkey, served
from tests.helpers import faults

LIMITS = {"many": 32 + 1, "many-reads": 8, "many-waits": 4}
"""By the clients' names; the wire of the script calls is one more of the first."""
EACH = 250


async def highest(redis: Redis) -> Counter[str]:
    """Watches the connections of each client until it is cancelled."""
    most: Counter[str] = Counter()
    try:
        while True:
            now = Counter(client["name"] for client in await redis.client_list())
            most |= Counter({name: count for name, count in now.items() if name in LIMITS})
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        return most


@on_valkey
@pytest.mark.long
@pytest.mark.alone
async def test_a_thousand_lists_polls_and_posts_at_once(servers: Servers, backend: str, redis: Redis):
    clients = await open_clients(servers.url(backend), name="many")
    try:
        async with served(clients) as api:
            answers, most = await _rush(api, redis)
            found = await faults(api.store)
    finally:
        await clients.close()

    assert [] == found
    assert {"list": {200: EACH}, "job": {200: EACH}, "lease": {200: EACH}, "post": {201: EACH}} == answers
    assert set(most) == set(LIMITS)
    assert {} == {name: count for name, count in most.items() if count > LIMITS[name]}


async def _rush(api: Api, redis: Redis) -> tuple[dict[str, dict[int, int]], Counter[str]]:
    """A thousand calls at once, and what each kind was answered."""
    for n in range(50):
        await api.enqueue(f"old-{n}", queue=f"q{n}")
    await api.enqueue("waited-for")

    async def lists(n: int) -> int:
        which = (
            "jobs",
            f"jobs?queue=q{n % 50}",
            "queues",
            f"queues/q{n % 50}",
            "workers",
            f"queues/q{n % 50}/dlq",
        )
        return (await api.get(f"/v1/{which[n % 6]}")).status

    async def polls(n: int) -> int:
        which = "mail:waited-for" if n % 2 else f"q{n % 50}:old-{n % 50}"
        return (await api.get(f"/v1/jobs/{which}?wait={2 + n % 3}")).status

    async def leases(n: int) -> int:
        queue = f"busy-{n % 10}"
        answer = await api.post(f"/v1/queues/{queue}/lease", {"worker": f"w{n}", "wait": f"{2 + n % 3}s"})
        for job in answer.doc["jobs"]:
            await api.settle(queue, f"w{n}", ack=[held(job)])
        return answer.status

    async def posts(n: int) -> int:
        body = {"type": "send", "queue": f"busy-{n % 10}", "id": f"new-{n}"}
        return (await api.post("/v1/jobs", body)).status

    watching = asyncio.create_task(highest(redis))
    kinds = {"list": lists, "job": polls, "lease": leases, "post": posts}
    calls = [(kind, asyncio.ensure_future(kinds[kind](n))) for n in range(EACH) for kind in kinds]
    async with asyncio.timeout(60):
        statuses = await asyncio.gather(*(call for _, call in calls))
    watching.cancel()
    answers: dict[str, Counter[int]] = {kind: Counter() for kind in kinds}
    for (kind, _), status in zip(calls, statuses, strict=True):
        answers[kind][status] += 1
    return {kind: dict(found) for kind, found in answers.items()}, await watching

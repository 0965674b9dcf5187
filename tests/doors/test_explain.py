"""Why a job does not run, and how much there is to do: over REST, by the client, on the command line."""

import asyncio
import json

import msgspec
import pytest
from click.testing import CliRunner

from scheduler.cli import cli
from scheduler.client import Client, NotFound, SyncClient
from scheduler.presence import Presence
from scheduler.shown import DemandShown, ExplainShown
from scheduler.times import parse_rfc3339
from tests.doors.conftest import on_valkey
from tests.helpers import on_the_fake

HELD = dict.fromkeys(
    ("queue_paused", "type_paused", "group_paused", "rate_limited", "concurrency_limited", "breaker_open"), 0
)


async def explained(api, key):
    answer = await api.get(f"/v1/jobs/mail:{key}/explain")
    assert 200 == answer.status, answer.raw
    msgspec.convert(answer.doc, ExplainShown)
    return answer.doc


async def demanded(api):
    answer = await api.get("/v1/queues/mail/demand")
    assert 200 == answer.status, answer.raw
    msgspec.convert(answer.doc, DemandShown)
    return answer.doc


async def test_a_job_says_all_that_holds_it_until_when_and_who_has_the_slots(api):
    await api.put("/v1/queues/mail", {"rate": "1/h"})
    await api.put("/v1/queues/mail/types/send", {"concurrency": 1})
    await api.enqueue("a")
    await api.enqueue("b")
    [job] = await api.lease(max=10)
    await api.post("/v1/queues/mail/pause")

    found = await explained(api, "b")
    assert ("mail:b", "ready", 1) == (found["id"], found["state"], found["position"])
    reasons = {reason["code"]: reason for reason in found["reasons"]}
    assert ["queue_paused", "rate_limited", "concurrency_limited"] == list(reasons)
    assert [{"id": job["id"], "worker": "w"}] == reasons["concurrency_limited"]["holders"]
    assert reasons["rate_limited"]["until"] is not None
    created = parse_rfc3339((await api.get("/v1/jobs/mail:a")).doc["started_at"])
    assert created + 3_600_000 == pytest.approx(parse_rfc3339(reasons["rate_limited"]["until"]), abs=5)


async def test_a_job_that_nobody_serves_says_so_until_somebody_leases(api):
    await api.enqueue("a")
    assert ["no_worker"] == [reason["code"] for reason in (await explained(api, "a"))["reasons"]]

    await api.lease("mail", max=1)
    await api.enqueue("b")
    assert ["behind"] == [reason["code"] for reason in (await explained(api, "b"))["reasons"]]
    assert ["running"] == [reason["code"] for reason in (await explained(api, "a"))["reasons"]]


@on_the_fake
@pytest.mark.parametrize("path", ["/v1/jobs/mail:a/explain", "/v1/queues/mail/demand"])
async def test_what_is_not_there_is_not_found(api, path):
    assert "not_found" == (await api.get(path)).code
    assert ["/x"] == (await api.get(f"{path}?x=1")).paths


async def test_an_autoscaler_reads_numbers_of_what_may_start(api):
    await Presence(api.store).sign("w-1", {"queues": ["mail"], "concurrency": 10}, 60_000)
    await api.put("/v1/queues/mail/types/slow", {"concurrency": 2})
    for n in range(3):
        await api.enqueue(f"s{n}", type="slow")
    await api.enqueue("a")
    await api.lease(max=1)

    found = await demanded(api)
    assert found.pop("oldest_runnable_wait") >= 0
    assert {
        "queue": "mail",
        "runnable": 2,
        "held": HELD | {"concurrency_limited": 1},
        "work_seconds": 2,
        "mean_run": None,
        "slots": {"used": 1, "total": 10},
        "workers": 2,
        "approximate": False,
    } == found


async def test_a_paused_queue_wants_no_worker(api):
    await api.enqueue("a")
    await api.post("/v1/queues/mail/pause")

    found = await demanded(api)
    assert (0, 0, 0, HELD | {"queue_paused": 1}) == (
        found["runnable"],
        found["oldest_runnable_wait"],
        found["work_seconds"],
        found["held"],
    )


@on_valkey
async def test_the_client_asks_both(api):
    await api.enqueue("a")
    async with Client(f"http://127.0.0.1:{api.port}") as client:
        assert ["no_worker"] == [reason.code for reason in (await client.job("mail:a").explain()).reasons]
        assert 1 == (await client.queue("mail").demand()).runnable
        with pytest.raises(NotFound):
            await client.job("mail:none").explain()
        with pytest.raises(NotFound):
            await client.queue("none").demand()

    def ask():
        with SyncClient(f"http://127.0.0.1:{api.port}") as plain:
            return plain.job("mail:a").explain().position, plain.queue("mail").demand().runnable

    assert (1, 1) == await asyncio.to_thread(ask)


@on_valkey
async def test_the_command_line_says_the_same(api, servers):
    for name in ("a", "b"):
        await api.enqueue(name, group="g")
    await api.enqueue("c", group="h")

    def command(*words):
        done = CliRunner().invoke(cli, [*words, "--redis-url", servers.url("valkey")])
        return done.exit_code, done.output, done.exception

    async def said(*words):
        status, printed, error = await asyncio.to_thread(command, *words)
        assert 0 == status, (printed, error)
        return printed

    assert await explained(api, "b") == json.loads(await said("job", "explain", "mail:b", "--json"))
    lines = [line.split(None, 1) for line in (await said("job", "explain", "mail:b")).splitlines()]
    assert {
        "id": "mail:b",
        "state": "ready",
        "position": "about 3",
        "no_worker": "no worker has signed for the queue mail lately",
        "behind": "about 2 jobs are before it",
    } == dict(lines)

    document = json.loads(await said("queue", "demand", "mail", "--json"))
    assert (3, HELD) == (document["runnable"], document["held"])
    assert "runnable           3\n" in await said("queue", "demand", "mail")

    status, _, error = await asyncio.to_thread(command, "job", "explain", "mail:none")
    assert (1, "there is no job mail:none") == (status, str(error))
    status, _, error = await asyncio.to_thread(command, "queue", "demand", "none")
    assert 1 == status
    assert "there is no queue 'none'" in str(error)

"""Batches at every door: a job is held, others join it, it is opened, and runs when all of them have ended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from click.testing import CliRunner

from scheduler import Scheduler
from scheduler.cli import cli
from scheduler.client import Client
from scheduler.errors import WrongState
from tests.doors.conftest import Api, held, on_valkey
from tests.doors.test_client import url


async def batch(api: Api, **fields: Any) -> str:
    body = {"type": "report", "queue": "mail", "id": "last", "hold": True, "on_failure": "continue", **fields}
    answer = await api.post("/v1/jobs", body)
    assert (201, "blocked", True) == (answer.status, answer.doc["state"], answer.doc["hold"])
    assert answer.doc == (await api.get("/v1/jobs/mail:last")).doc
    return str(answer.doc["id"])


async def end_all(api: Api) -> None:
    while jobs := await api.lease(max=100):
        await api.settle(ack=[{**held(job), "result": 1} for job in jobs])
        await api.store.relay("mail")


async def test_a_batch_over_rest(api):
    last = await batch(api)
    said = (await api.get(f"/v1/jobs/{last}/explain")).doc["reasons"]
    assert ["it is held: it waits until somebody opens it"] == [reason["message"] for reason in said]

    members = [{"type": "send", "queue": "mail", "id": f"m{n}", "before": [last]} for n in range(3)]
    answer = await api.post("/v1/jobs/bulk", {"jobs": members})
    assert [201] * 3 == [item["status"] for item in answer.doc["items"]]
    await end_all(api)
    found = (await api.get(f"/v1/jobs/{last}/parents")).doc
    assert (1, 3, 0) == (found["pending"], found["succeeded"], found["failed"])
    assert [("mail:m0", "succeeded", 1)] == [(i["id"], i["state"], i["result"]) for i in found["items"]][:1]

    for _ in range(2):
        opened = await api.post(f"/v1/jobs/{last}/open")
        assert (200, "ready") == (opened.status, opened.doc["state"])


async def test_the_jobs_that_one_waits_for_come_in_pages(api):
    last = await batch(api)
    members = [{"type": "send", "queue": "mail", "id": f"m{n}", "before": [last]} for n in range(5)]
    await api.post("/v1/jobs/bulk", {"jobs": members})
    await end_all(api)

    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (
            await api.get(f"/v1/jobs/{last}/parents?limit=2" + (f"&cursor={cursor}" if cursor else ""))
        ).doc
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert [f"mail:m{n}" for n in range(5)] == seen


async def test_what_cannot_be_joined_or_opened_says_why(api):
    await api.enqueue("a")

    refused = await api.post("/v1/jobs", {"type": "send", "queue": "mail", "before": ["mail:a", "mail:none"]})
    assert (422, ["/before/0", "/before/1"]) == (
        refused.status,
        [e["path"] for e in refused.doc["errors"]],
    )
    refused = await api.post("/v1/jobs", {"type": "send", "queue": "mail", "before": ["a"]})
    assert ["/before/0"] == [e["path"] for e in refused.doc["errors"]]
    refused = await api.post("/v1/jobs", {"type": "send", "queue": "mail", "hold": "yes"})
    assert ["/hold"] == [e["path"] for e in refused.doc["errors"]]

    refused = await api.post("/v1/jobs/mail:a/open")
    assert (409, "wrong_state") == (refused.status, refused.doc["code"])
    assert 404 == (await api.post("/v1/jobs/mail:none/open")).status
    assert 404 == (await api.get("/v1/jobs/mail:none/parents")).status


@on_valkey
async def test_a_batch_by_the_client(api):
    async with Client(url(api)) as jobs:
        last = await jobs.enqueue("report", queue="mail", hold=True, on_failure="continue")
        first = await jobs.enqueue("send", queue="mail", before=[last])
        await end_all(api)
        assert "blocked" == (await last.refresh()).state
        assert "ready" == (await last.open()).state
        with pytest.raises(WrongState):
            await first.open()


async def test_a_batch_by_an_app():
    app = Scheduler()
    ran: list[str] = []

    @app.job("part")
    async def part(ctx, n: int) -> int:
        ran.append(f"part {n}")
        return n

    @app.job("report")
    async def report(ctx) -> int:
        ran.append("report")
        return sum(ctx.parents.values())

    async with app.test() as t:
        last = await report.enqueue(hold_=True)
        for n in range(3):
            await part.enqueue(n=n, before_=[last])
        await t.drain()
        assert "report" not in ran
        await last.open()
        await t.drain()
        assert 3 == await last.result()
    assert "report" == ran[-1]


@on_valkey
async def test_a_batch_by_the_command_line(api):
    where = ["--redis-url", api.store.clients.url]

    async def called(*args: str) -> Any:
        return await asyncio.to_thread(CliRunner().invoke, cli, [*args, *where])

    held_one = await called("enqueue", "report", "--queue", "mail", "--id", "last", "--hold")
    assert (0, "mail:last\n") == (held_one.exit_code, held_one.stdout)
    assert (
        0
        == (
            await called("enqueue", "send", "--queue", "mail", "--id", "m", "--before", "mail:last")
        ).exit_code
    )
    await end_all(api)
    assert 0 == (await called("job", "open", "mail:last")).exit_code
    assert "ready" == (await api.get("/v1/jobs/mail:last")).doc["state"]
    refused = await called("job", "open", "mail:m")
    assert "--hold" in str(refused.exception)

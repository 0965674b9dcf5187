"""`after` and `on_failure` at every door: who waits is blocked, who is waited for is named, what is wrong has a pointer."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any, cast

import click
import orjson
import pytest
from click.testing import CliRunner

from scheduler import Invalid, Scheduler, Settings
from scheduler.cli import cli
from scheduler.client import Client, SyncClient
from scheduler.client.link import HttpLink
from scheduler.events import Follower
from scheduler.job import MOST_AFTER
from scheduler.remote import RemoteFollower, RemoteStore
from scheduler.store import Store
from tests.doors.conftest import Api, held, on_valkey
from tests.doors.test_client import url

NDJSON = "application/x-ndjson"


async def ended(api: Api, failure: dict[str, Any] | None = None) -> None:
    """The next job ends, and whoever waits for it hears of it."""
    [job] = await api.lease()
    item = {**held(job), **(failure or {})}
    told: dict[str, Any] = {"nack" if failure else "ack": [item]}
    await api.settle(**told)
    await api.store.relay("mail")


async def died(api: Api) -> None:
    await ended(api, {"error": {"kind": "Boom", "message": "no"}, "permanent": True})


async def reasons(api: Api, its_id: str) -> list[str]:
    return [one["message"] for one in (await api.get(f"/v1/jobs/{its_id}/explain")).doc["reasons"]]


# -- REST -----------------------------------------------------------------------------------------------------


async def test_a_job_that_waits_is_answered_as_blocked_and_names_what_it_waits_for(api):
    await api.enqueue("a")

    answer = await api.post("/v1/jobs", {"type": "send", "queue": "mail", "id": "b", "after": ["mail:a"]})

    assert (201, "blocked", "/v1/jobs/mail:b") == (
        answer.status,
        answer.doc["state"],
        answer.headers["Location"],
    )
    assert (["mail:a"], "cancel") == (answer.doc["after"], answer.doc["on_failure"])
    assert answer.doc == (await api.get("/v1/jobs/mail:b")).doc
    assert ["it waits for 1 job to end: mail:a"] == await reasons(api, "mail:b")

    await ended(api)
    assert "ready" == (await api.get("/v1/jobs/mail:b")).doc["state"]


async def test_what_had_ended_already_is_not_waited_for(api):
    await api.dead("d")

    cancelled = await api.post("/v1/jobs", {"type": "send", "queue": "mail", "id": "b", "after": ["mail:d"]})

    assert (201, "cancelled", "dependency") == (
        cancelled.status,
        cancelled.doc["state"],
        cancelled.doc["reason"],
    )
    goes_on = await api.enqueue("c", after=["mail:d"], on_failure="continue")
    assert "ready" == goes_on["state"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"after": ["mail:a", "mail:gone"]}, "/after/1"),
        ({"after": ["mail:a", "a"]}, "/after/1"),
        ({"after": ["mail:a", "mail:a"]}, "/after/1"),
        ({"after": ["mail:x"], "id": "x"}, "/after/0"),
        ({"after": [f"mail:{n}" for n in range(MOST_AFTER + 1)]}, "/after"),
        ({"after": "mail:a"}, "/after"),
        ({"after": [7]}, "/after/0"),
        ({"after": ["mail:a"], "on_failure": "explode"}, "/on_failure"),
        ({"on_failure": "wait"}, "/on_failure"),
    ],
)
async def test_what_cannot_be_waited_for_is_refused_at_its_place(api, fields, pointer):
    await api.enqueue("a")

    answer = await api.post("/v1/jobs", {"type": "send", "queue": "mail", **fields})

    assert (422, "validation", [pointer]) == (answer.status, answer.code, answer.paths)
    assert 1 == sum((await api.store.census("mail")).counts.values())


async def test_of_many_jobs_each_is_refused_for_itself(api):
    await api.enqueue("a")
    sent = [
        {"type": "send", "queue": "mail", "id": "b", "after": ["mail:a"]},
        {"type": "send", "queue": "mail", "id": "c", "after": ["mail:gone"]},
        {"type": "send", "queue": "other", "id": "d", "after": ["mail:a", "no id"]},
    ]

    items = (await api.post("/v1/jobs/bulk", sent)).doc["items"]

    assert [201, 422, 422] == [item["status"] for item in items]
    assert [["/after/0"], ["/after/1"]] == [[fault["path"] for fault in item["errors"]] for item in items[1:]]
    assert "blocked" == (await api.get("/v1/jobs/mail:b")).doc["state"]

    lines = b"\n".join(orjson.dumps({**job, "id": f"n{job['id']}"}) for job in sent)
    answer = await api.post("/v1/jobs/bulk", lines, Content_Type=NDJSON)
    said = [orjson.loads(line) for line in answer.raw.splitlines()]
    assert [1, 2] == [line["index"] for line in said[:-1]]
    assert {"done": True, "created": 1, "duplicates": 0, "failed": 2} == said[-1]


async def test_the_same_request_again_is_the_same_job_and_another_order_of_events_another(api):
    await api.enqueue("a")
    body = {"type": "send", "queue": "mail", "id": "b", "after": ["mail:a"]}
    await api.post("/v1/jobs", body)

    again = await api.post("/v1/jobs", body)
    other = await api.post("/v1/jobs", {**body, "on_failure": "continue"})

    assert (200, True, "blocked") == (again.status, again.doc["duplicate"], again.doc["state"])
    assert (409, "duplicate") == (other.status, other.code)


async def test_an_idempotency_key_finds_the_job_that_waits(api):
    await api.enqueue("a")
    body = {"type": "send", "queue": "mail", "after": ["mail:a"]}

    first = await api.post("/v1/jobs", body, Idempotency_Key="k")
    again = await api.post("/v1/jobs", body, Idempotency_Key="k")

    assert (201, first.raw) == (again.status, again.raw)
    assert 1 == (await api.store.census("mail")).counts["blocked"]


async def test_a_list_shows_who_waits_for_whom(api):
    await api.enqueue("a")
    await api.enqueue("b", after=["mail:a"])

    [item] = (await api.get("/v1/jobs?queue=mail&state=blocked")).doc["items"]

    assert ("mail:b", ["mail:a"]) == (item["id"], item["after"])


async def test_a_copy_waits_only_where_that_is_said_of_it(api):
    await api.enqueue("a")
    await api.enqueue("b", after=["mail:a"])

    plain = await api.post("/v1/jobs/mail:b/copy", {})
    waits = await api.post("/v1/jobs/mail:b/copy", {"after": ["mail:a"], "on_failure": "wait"})

    assert ("ready", []) == (plain.doc["state"], plain.doc["after"])
    assert ("blocked", ["mail:a"], "wait") == tuple(
        waits.doc[name] for name in ("state", "after", "on_failure")
    )


async def test_of_many_that_are_waited_for_some_are_named_and_the_rest_is_counted(api):
    await api.post("/v1/jobs/bulk", [{"type": "send", "queue": "mail", "id": f"a{n:02}"} for n in range(14)])
    await api.enqueue("b", after=[f"mail:a{n:02}" for n in range(14)])

    [message] = await reasons(api, "mail:b")

    named = ", ".join(f"mail:a{n:02}" for n in range(10))
    assert f"it waits for 14 jobs to end: {named} and 4 more" == message


async def test_who_waits_for_a_dead_one_is_told_that_it_must_be_replayed(api):
    await api.enqueue("a")
    await api.enqueue("b", after=["mail:a"], on_failure="wait")
    await died(api)

    assert [
        "of 1 job that did not succeed each dead one must be replayed first: mail:a (dead)"
    ] == await reasons(api, "mail:b")


# -- the others -----------------------------------------------------------------------------------------------


def the_app(api: Api) -> Any:
    app = Scheduler(Settings(redis_url=api.store.clients.url))

    @app.job("send", queue="mail")
    async def send(ctx: Any) -> None: ...

    return app, send


async def by_client(api: Api, after: list[str], on_failure: str) -> str:
    async with Client(url(api)) as jobs:
        handles = [jobs.job(one) if n % 2 else one for n, one in enumerate(after)]
        return (await jobs.enqueue("send", queue="mail", after=handles, on_failure=on_failure)).id


async def by_many(api: Api, after: list[str], on_failure: str) -> str:
    async with Client(url(api)) as jobs:
        item = {"type": "send", "queue": "mail", "after": map(jobs.job, after), "on_failure": on_failure}
        [job] = await jobs.enqueue_many([item])
        return job.id


async def by_client_without_a_loop(api: Api, after: list[str], on_failure: str) -> str:
    def enqueue() -> str:
        with SyncClient(url(api)) as jobs:
            return jobs.enqueue("send", queue="mail", after=map(jobs.job, after), on_failure=on_failure).id

    return await asyncio.to_thread(enqueue)


async def by_app(api: Api, after: list[str], on_failure: str) -> str:
    app, send = the_app(api)
    async with app:
        return str((await send.enqueue(after_=after, on_failure_=on_failure)).id)


async def by_app_over_http(api: Api, after: list[str], on_failure: str) -> str:
    app, send = the_app(api)
    async with AsyncExitStack() as stack:
        link = HttpLink((await stack.enter_async_context(Client(url(api)))).transport)
        store, follower = cast("Store", RemoteStore(link)), cast("Follower", RemoteFollower(link))
        await stack.enter_async_context(app.at_work(store, follower))
        return str((await send.enqueue(after_=after, on_failure_=on_failure)).id)


async def by_command(api: Api, after: list[str], on_failure: str) -> str:
    words = ["enqueue", "send", "--queue", "mail", "--json", "--redis-url", api.store.clients.url]
    words += [word for one in after for word in ("--after", one)] + ["--on-failure", on_failure]
    done = await asyncio.to_thread(CliRunner().invoke, cli, words, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return str(json.loads(done.stdout)["id"])


DOORS = [by_client, by_many, by_client_without_a_loop, by_app, by_app_over_http, by_command]


@on_valkey
@pytest.mark.parametrize("door", DOORS)
async def test_every_door_takes_it(api, door):
    await api.enqueue("a")
    await api.enqueue("b")

    its_id = await door(api, ["mail:a", "mail:b"], "wait")

    found = (await api.get(f"/v1/jobs/{its_id}")).doc
    assert ("blocked", ["mail:a", "mail:b"], "wait") == tuple(
        found[name] for name in ("state", "after", "on_failure")
    )


@on_valkey
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("after", "on_failure", "path"),
    [(["mail:a", "mail:gone"], "wait", "/after/1"), (["mail:a", "what"], "wait", "/after/1"), ([], "wait", "/on_failure")],
)  # fmt: skip
async def test_every_door_says_what_is_wrong_with_it(api, door, after, on_failure, path):
    await api.enqueue("a")

    with pytest.raises((Invalid, click.UsageError)) as caught:
        await door(api, after, on_failure)

    named = (
        path
        if not isinstance(caught.value, click.UsageError)
        else "--" + path.split("/")[1].replace("_", "-")
    )
    assert named in str(caught.value)
    assert 0 == (await api.store.census("mail")).counts["blocked"]


@on_valkey
async def test_what_is_no_job_is_refused_before_anything_is_sent(api):
    async with Client(url(api)) as jobs:
        for after in ("mail:a", [7], 7):
            with pytest.raises(Invalid) as caught:
                await jobs.enqueue("send", after=after)  # type: ignore[arg-type]
            assert ["/after"] == [fault.path for fault in caught.value.faults]

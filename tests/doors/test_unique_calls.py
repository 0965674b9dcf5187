"""`unique` by whatever enqueues: the clients, the app and the command line say the same of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import click
import pytest
from click.testing import CliRunner

from scheduler import Duplicate, Invalid, Scheduler, Settings
from scheduler.cli import cli
from scheduler.client import Client, SyncClient
from scheduler.client.link import HttpLink
from scheduler.events import Follower
from scheduler.remote import RemoteFollower, RemoteStore
from scheduler.store import Store
from tests.doors.conftest import Api, held, on_valkey
from tests.doors.test_client import url

pytestmark = on_valkey

Told = tuple[str, bool]
"""The id of the job that stands, and whether it stood before."""

Enqueue = Callable[..., Awaitable[Told]]


def told(job: Any) -> Told:
    return job.id, job.duplicate


def item(payload: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    return {"type": "send", "queue": "mail", "payload": payload, **options}


@asynccontextmanager
async def client(api: Api) -> AsyncIterator[Enqueue]:
    async with Client(url(api)) as jobs:

        async def enqueue(payload: dict[str, Any], **options: Any) -> Told:
            return told(await jobs.enqueue("send", payload, queue="mail", **options))

        yield enqueue


@asynccontextmanager
async def client_many(api: Api) -> AsyncIterator[Enqueue]:
    async with Client(url(api)) as jobs:

        async def enqueue(payload: dict[str, Any], **options: Any) -> Told:
            [job] = await jobs.enqueue_many([item(payload, options)])
            return told(job)

        yield enqueue


@asynccontextmanager
async def client_without_a_loop(api: Api) -> AsyncIterator[Enqueue]:
    jobs = SyncClient(url(api))

    async def enqueue(payload: dict[str, Any], **options: Any) -> Told:
        return told(await asyncio.to_thread(jobs.enqueue, "send", payload, queue="mail", **options))

    yield enqueue
    await asyncio.to_thread(jobs.close)


def an_app(api: Api) -> Any:
    app = Scheduler(Settings(redis_url=api.store.clients.url))

    @app.job("send", queue="mail")
    async def send(ctx, n: int) -> None: ...

    return app, send


@asynccontextmanager
async def app(api: Api) -> AsyncIterator[Enqueue]:
    app, send = an_app(api)

    async def enqueue(payload: dict[str, Any], **options: Any) -> Told:
        return told(await send.enqueue(**payload, **{f"{name}_": one for name, one in options.items()}))

    async with app:
        yield enqueue


@asynccontextmanager
async def app_many(api: Api) -> AsyncIterator[Enqueue]:
    app, _ = an_app(api)

    async def enqueue(payload: dict[str, Any], **options: Any) -> Told:
        [job] = await app.enqueue_many([item(payload, options)])
        return told(job)

    async with app:
        yield enqueue


@asynccontextmanager
async def app_without_a_loop(api: Api) -> AsyncIterator[Enqueue]:
    app, _ = an_app(api)

    async def enqueue(payload: dict[str, Any], **options: Any) -> Told:
        return told(await asyncio.to_thread(app.enqueue_sync, "send", payload, **options))

    yield enqueue
    await asyncio.to_thread(app._run, app.close())


@asynccontextmanager
async def app_over_http(api: Api) -> AsyncIterator[Enqueue]:
    app, send = an_app(api)
    async with AsyncExitStack() as stack:
        link = HttpLink((await stack.enter_async_context(Client(url(api)))).transport)
        store, follower = cast("Store", RemoteStore(link)), cast("Follower", RemoteFollower(link))
        await stack.enter_async_context(app.at_work(store, follower))

        async def enqueue(payload: dict[str, Any], **options: Any) -> Told:
            return told(await send.enqueue(**payload, **{f"{name}_": one for name, one in options.items()}))

        yield enqueue


@asynccontextmanager
async def command(api: Api) -> AsyncIterator[Enqueue]:
    async def enqueue(payload: dict[str, Any], *, unique: Any, **options: Any) -> Told:
        words = ["enqueue", "send", "--queue", "mail", "--payload", json.dumps(payload)]
        words += [word for name, value in options.items() for word in (f"--{name}", str(value))]
        said = unique if isinstance(unique, dict) else {} if unique is True else {"key": unique}
        names = {"for": "--unique-for", "until": "--unique-until", "on_conflict": "--on-conflict"}
        words += [word for name in names if name in said for word in (names[name], str(said[name]))]
        words += ["--unique", *([said["key"]] if "key" in said else [])]
        words += ["--json", "--redis-url", api.store.clients.url]
        done = await asyncio.to_thread(CliRunner().invoke, cli, words, standalone_mode=False)
        if done.exception is not None:
            raise done.exception
        found = json.loads(done.stdout)
        return found["id"], found.get("duplicate", False)

    yield enqueue


DOORS = [
    client, client_many, client_without_a_loop, app, app_many, app_without_a_loop, app_over_http, command,
]  # fmt: skip
KEY = {"key": "k"}


@pytest.fixture(params=DOORS, ids=lambda door: door.__name__)
async def enqueue(api: Api, request: pytest.FixtureRequest) -> AsyncIterator[Enqueue]:
    async with request.param(api) as door:
        yield door


async def job(api: Api, job_id: str) -> Any:
    return (await api.get(f"/v1/jobs/{job_id}")).doc


async def test_the_next_one_of_a_key_is_the_job_that_stands(api, enqueue):
    first, new = await enqueue({"n": 1}, unique="k")

    assert not new
    assert (first, True) == await enqueue({"n": 2}, unique=KEY)
    assert ({"n": 1}, KEY) == ((found := await job(api, first))["payload"], found["unique"])
    assert False is (await enqueue({"n": 2}, unique="other"))[1]


async def test_without_a_key_it_is_type_and_payload(api, enqueue):
    first, _ = await enqueue({"n": 1}, unique=True)

    assert (first, True) == await enqueue({"n": 1}, unique={})
    assert False is (await enqueue({"n": 2}, unique=True))[1]


async def test_one_that_is_to_be_refused_is_and_says_which_job_stands(api, enqueue):
    first, _ = await enqueue({"n": 1}, unique="k")

    with pytest.raises(
        Duplicate, match=f"the unique key is held by {first}: wait until it is free"
    ) as refused:
        await enqueue({"n": 2}, unique={**KEY, "on_conflict": "reject"})
    assert (first,) == refused.value.job_ids
    assert 1 == (await api.get("/v1/queues/mail")).doc["counts"]["ready"]


async def test_one_that_waits_is_replaced_or_put_off(api, enqueue):
    first, _ = await enqueue({"n": 1}, unique="k", delay=600)
    due = (await job(api, first))["run_at"]

    assert (first, True) == await enqueue({"n": 2}, unique={**KEY, "on_conflict": "replace"}, delay=700)
    replaced = await job(api, first)
    assert (first, True) == await enqueue({"n": 3}, unique={**KEY, "on_conflict": "debounce"}, delay=900)
    put_off = await job(api, first)
    assert ({"n": 2}, {"n": 3}) == (replaced["payload"], put_off["payload"])
    assert due < replaced["run_at"] < put_off["run_at"]


async def test_a_key_is_held_until_the_start_or_for_a_time(api, enqueue):
    first, _ = await enqueue({"n": 1}, unique={**KEY, "until": "start"})
    [leased] = await api.lease()

    second, again = await enqueue({"n": 2}, unique={**KEY, "for": "1h"})
    await api.settle(ack=[held(leased)])
    [leased] = await api.lease()
    await api.settle(ack=[held(leased)])
    assert (False, True) == (again, first != second)
    assert (second, True) == await enqueue({"n": 3}, unique=KEY)
    assert "succeeded" == (await job(api, second))["state"]


@pytest.mark.parametrize(
    ("unique", "path", "option"),
    [
        ("", "/unique/key", "--unique"),
        ({"key": "a b"}, "/unique/key", "--unique"),
        ({"for": "soon"}, "/unique/for", "--unique-for"),
        ({"for": 0}, "/unique/for", "--unique-for"),
        ({"until": "never"}, "/unique/until", "--unique-until"),
        ({"on_conflict": "ignore"}, "/unique/on_conflict", "--on-conflict"),
    ],
)
async def test_what_is_wrong_with_it_is_named_and_nothing_is_sent(api, enqueue, unique, path, option):
    with pytest.raises((Invalid, click.UsageError)) as refused:
        await enqueue({"n": 1}, unique=unique)

    if isinstance(refused.value, click.UsageError):
        assert option in refused.value.format_message()
    else:
        assert isinstance(refused.value, Invalid)
        assert [path] == [fault.path.removeprefix("/0") for fault in refused.value.faults]
    assert [] == (await api.get("/v1/queues")).doc["items"]


async def test_of_a_hundred_at_once_there_is_one(api):
    async with client(api) as over_http, app(api) as beside:
        found = await asyncio.gather(
            *(door({"n": n}, unique="k") for n in range(50) for door in (over_http, beside))
        )

    assert 1 == len({job_id for job_id, _ in found})
    assert [False] == [duplicate for _, duplicate in found if not duplicate]


@pytest.mark.parametrize("of", ["client", "app"])
async def test_of_many_the_refused_are_told_when_the_others_are_in(api, of):
    asked = [
        item({"n": n}, {"unique": {**KEY, "on_conflict": conflict}})
        for n, conflict in enumerate(["return", "reject", "replace"])
    ]
    asked.append(item({"n": 3}, {"id": "last"}))
    async with Client(url(api)) as jobs, an_app(api)[0] as beside:
        many = jobs.enqueue_many if of == "client" else beside.enqueue_many
        with pytest.raises(Duplicate) as refused:
            await many(asked)
        [first] = refused.value.job_ids
        found = await many([asked[0], asked[2], item({"n": 4}, {})])

    assert ({"n": 2}, {"n": 3}) == tuple([(await job(api, one))["payload"] for one in (first, "mail:last")])
    assert [(first, True), (first, True)] == [told(one) for one in found[:2]]
    assert False is found[2].duplicate


async def test_an_id_that_is_taken_and_a_key_that_is_held_are_told_apart(api):
    async with an_app(api)[0] as beside:
        await beside.enqueue_many([item({"n": 1}, {"id": "a"}), item({"n": 1}, {"id": "b", "unique": "k"})])
        taken = [item({"n": 2}, {"id": "a"}), item({"n": 2}, {"unique": {**KEY, "on_conflict": "reject"}})]

        with pytest.raises(Duplicate, match=r"^mail:a is the id of another job"):
            await beside.enqueue_many(taken)
        with pytest.raises(Duplicate, match=r"^the unique key is held by mail:b: "):
            await beside.enqueue_many(reversed(taken))
    async with Client(url(api)) as jobs:
        with pytest.raises(Duplicate) as refused:
            await jobs.enqueue_many(taken[:1])
        assert ("mail:a", ("mail:a",)) == (refused.value.id, refused.value.job_ids)  # type: ignore[attr-defined]


async def test_a_copy_is_unique_where_it_is_said_of_it(api):
    async with Client(url(api)) as jobs:
        first = await jobs.enqueue("send", {"n": 1}, queue="mail", unique="k")

        assert False is (await first.copy()).duplicate
        assert False is (await first.copy(unique=False)).duplicate
        assert (first.id, True) == told(await first.copy(unique="k"))
        alike = await first.copy(unique=True)
        assert (alike.id, True) == told(await first.copy(unique=True))
        with pytest.raises(Duplicate) as refused:
            await first.copy(unique={**KEY, "on_conflict": "reject"})
        assert first.id == refused.value.id  # type: ignore[attr-defined]
        wrongs: list[Any] = ["a b", 5, {"for": 0}]
        for wrong in wrongs:
            with pytest.raises(Invalid):
                await first.copy(unique=wrong)

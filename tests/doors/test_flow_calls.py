"""Flows in Python, beside Redis and over HTTP: graphs are made, run by workers, and results reach who waited for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from scheduler import (
    Duplicate,
    Invalid,
    PayloadInvalid,
    Permanent,
    Retry,
    Scheduler,
    WrongState,
    chain,
    chord,
    parallel,
)
from scheduler.client import Client, SyncClient
from scheduler.handlers import Middleware
from scheduler.settings import Settings
from scheduler.worker import Worker
from tests.doors.conftest import Api, on_valkey
from tests.doors.test_client import url
from tests.running import jobs_in_processes

pytestmark = on_valkey


def settings(api: Api) -> Settings:
    return Settings(redis_url=api.store.clients.url, lease_ms=2_000, watchdog_interval_ms=500, grace_ms=1_000)


class Shop:
    """An app with handlers that say what they were given."""

    def __init__(self, api: Api) -> None:
        self.app = app = Scheduler(settings(api))
        self.broken = False

        @app.job("load", queue="mail")
        async def load(ctx: Any, n: int = 1) -> int:
            return n

        @app.job("double", queue="mail", retry=Retry(max_attempts=1))
        async def double(ctx: Any) -> int:
            if self.broken:
                raise Permanent("broken")
            return sum(2 * value for value in ctx.parents.values())

        @app.job("count", queue="other")
        def count(ctx: Any) -> dict[str, Any]:
            return dict(ctx.parents)

        @app.job("spread", queue="mail")
        async def spread(ctx: Any, n: int) -> int:
            for value in range(n):
                ctx.add(load.job(n=value))
            return n

        self.load, self.double, self.count, self.spread = load, double, count, spread
        app.job("tell", queue="mail", process=True)(jobs_in_processes.parents)


@pytest.fixture
def shop(api: Api) -> Shop:
    return Shop(api)


@asynccontextmanager
async def beside_redis(api: Api, shop: Shop) -> AsyncIterator[Any]:
    worker = Worker(
        api.store,
        shop.app.handlers,
        shop.app.settings,
        doorbell=api.doorbell,
        queues=["mail", "other"],
        concurrency=10,
    )
    task = asyncio.create_task(worker.run())
    try:
        async with shop.app:
            yield shop.app
    finally:
        worker.stop()
        async with asyncio.timeout(10):
            await task


@asynccontextmanager
async def over_http(api: Api, shop: Shop) -> AsyncIterator[Any]:
    async with Client(url(api)) as jobs:
        task = asyncio.create_task(jobs.work(shop.app, queues=["mail", "other"], concurrency=10))
        try:
            yield jobs
        finally:
            task.cancel()
            async with asyncio.timeout(10):
                await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def app_over_http(api: Api, shop: Shop) -> AsyncIterator[Any]:
    """What a handler has that works over HTTP: the app itself goes that way."""
    async with over_http(api, shop), asyncio.timeout(20):
        while not shop.app._connections:  # noqa: ASYNC110 - it begins in a task of its own
            await asyncio.sleep(0.01)
        yield shop.app


WAYS = [beside_redis, over_http, app_over_http]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
async def jobs(api: Api, shop: Shop, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(request.param(api, shop))


def states(flow: Any) -> dict[str, Any]:
    return {"": flow.state, **{one.name: one.state for one in flow.jobs}}


# -- graphs ---------------------------------------------------------------------------------------------------


async def test_results_go_down_a_graph_under_the_names_of_those_that_had_them(jobs, shop):
    graph = chain(
        shop.load.job(n=3),
        parallel(shop.double.job(), shop.double.job(), tell=shop.app.new_job("tell", {}, {})),
        shop.count.job(),
    )

    flow = await jobs.flow(graph)
    found = await flow.wait(20)

    assert {
        "": "succeeded",
        **dict.fromkeys(("load", "double", "double-2", "tell", "count"), "succeeded"),
    } == states(found)
    assert {"double": 6, "double-2": 6, "tell": {"load": 3}} == await flow.jobs["count"].result(10)
    assert ["double", "double-2", "tell"] == next(one for one in found.jobs if one.name == "count").after
    assert (5, 5, 0, 0) == tuple(
        getattr(found.progress, name) for name in ("total", "succeeded", "pending", "failed")
    )


async def test_a_chord_is_followed_by_one_that_has_all_results(jobs, shop):
    flow = await jobs.flow(
        chord((shop.load.job(n=n) for n in range(30)), shop.count.job()), id="c", queue="other"
    )

    assert "other:c" == flow.id
    await flow.wait(20)
    found = await flow.jobs["count"].result(10)
    assert list(range(30)) == sorted(found.values())
    assert 29 == found["load-30"]


async def test_a_list_of_jobs_has_names_and_whom_each_waits_for(jobs):
    flow = await jobs.flow(
        [
            {"name": "one", "type": "load", "payload": {"n": 4}, "queue": "mail"},
            {"name": "two", "type": "double", "after": ["one"], "queue": "mail", "priority": 7},
            {"name": "all", "type": "count", "after": ["one", "two"], "queue": "other"},
        ],
        id="mine",
    )

    await flow.wait(20)
    assert {"one": 4, "two": 8} == await flow.jobs["all"].result(10)
    assert 7 == (await flow.jobs["two"].refresh()).priority
    assert ("mail:mine.1", "mail:mine", "two") == (
        (job := await flow.jobs["two"].refresh()).id,
        job.flow,
        job.flow_name,
    )


async def test_what_waits_for_jobs_by_their_ids_has_results_by_them(jobs):
    first = await jobs.enqueue("load", {"n": 9}, queue="mail")

    job = await jobs.enqueue("count", queue="other", after=[first])

    assert {first.id: 9} == await job.result(20)


async def test_jobs_that_a_job_adds_are_waited_for_as_well(jobs, shop):
    flow = await jobs.flow(chain(shop.spread.job(n=5), shop.count.job()))

    found = await flow.wait(20)

    assert [None] * 5 == [one.name for one in found.jobs[2:]]
    assert 7 == found.progress.succeeded
    results = await flow.jobs["count"].result(10)
    assert 5 == results.pop("spread")
    assert list(range(5)) == sorted(results.values())


async def test_a_job_that_is_held_runs_after_those_that_joined_it(jobs):
    last = await jobs.enqueue("count", queue="other", hold=True)
    part = await jobs.enqueue("load", {"n": 6}, queue="mail", before=[last])

    await last.open()

    assert {part.id: 6} == await last.result(20)
    with pytest.raises(WrongState):
        await part.open()


# -- asked again, refused, cancelled, replayed ----------------------------------------------------------------


async def test_the_same_flow_asked_for_again_is_found_and_another_is_refused(jobs, shop):
    graph = chain(shop.load.job(n=1), shop.double.job())
    first, again = [await jobs.flow(graph, id="f") for _ in range(2)]

    assert (False, True) == (first.duplicate, again.duplicate)
    assert first.id == again.id
    assert "succeeded" == (await again.wait(20)).state
    with pytest.raises(Duplicate):
        await jobs.flow(graph, id="f", on_failure="continue")


async def test_one_that_failed_is_replayed(jobs, shop):
    shop.broken = True
    flow = await jobs.flow(chain(shop.load.job(), shop.double.job(), shop.count.job()))
    failed = await flow.wait(20)
    assert {"": "failed", "load": "succeeded", "double": "dead", "count": "cancelled"} == states(failed)
    shop.broken = False

    await flow.replay()

    assert {"succeeded"} == set(states(await flow.wait(20)).values())
    assert {"double": 2} == await flow.jobs["count"].result(10)
    with pytest.raises(WrongState, match=r"nothing of the flow .* is dead"):
        await flow.replay()
    with pytest.raises(WrongState, match="only one that has not ended"):
        await flow.cancel()


async def test_one_that_waits_is_cancelled(jobs, shop):
    flow = await jobs.flow(chain(shop.load.job(delay_=600), shop.double.job()))
    with pytest.raises(TimeoutError):
        await flow.wait(0.1)

    assert {"cancelled"} == set(states(await flow.cancel()).values())
    assert {"cancelled"} == set(states(await flow.refresh()).values())


@pytest.mark.parametrize(
    ("graph", "pointer"),
    [
        ([], "/jobs"),
        ([{"type": "load"}], "/jobs/0/name"),
        ([{"name": "a"}], "/jobs/0/type"),
        ([{"name": "a b", "type": "load"}], "/jobs/0/name"),
        ([{"name": "a", "type": "load", "after": "b"}], "/jobs/0/after"),
        ([{"name": "a", "type": "load", "after": ["b"]}], "/jobs/0/after/0"),
        ([{"name": "a", "type": "load", "unique": True}], "/jobs/0/unique"),
        ([{"name": "a", "type": "load", "on_failure": "wait"}], "/jobs/0/on_failure"),
        ([{"name": "a", "type": "load", "colour": 1}], "/jobs/0/colour"),
        ([{"name": "a", "type": "load", "priority": 1_000}], "/jobs/0/priority"),
        (["load"], "/jobs/0"),
        ("load", "/jobs"),
    ],
)
async def test_what_is_wrong_is_named_before_anything_is_sent(jobs, api, graph, pointer):
    with pytest.raises(Invalid) as caught:
        await jobs.flow(graph)

    assert [pointer] == [fault.path for fault in caught.value.faults]
    assert {"mail", "other"} >= set(await api.store.queues())
    assert 0 == sum(
        [sum((await api.store.census(name)).counts.values()) for name in await api.store.queues()]
    )


async def test_options_of_a_flow_are_checked_too(jobs, shop):
    for options, pointer in (
        ({"id": "x" * 121}, "/id"),
        ({"id": "mail:x", "queue": "other"}, "/id"),
        ({"queue": "no queue"}, "/queue"),
        ({"on_failure": "explode"}, "/on_failure"),
    ):
        with pytest.raises(Invalid) as caught:
            await jobs.flow(shop.load.job(), **options)
        assert pointer in [fault.path for fault in caught.value.faults]


async def test_a_job_that_is_unique_or_waits_for_an_id_is_none_of_a_flow(shop):
    for job, pointer in (
        (shop.load.job(unique_=True), "/jobs/0/unique"),
        (shop.load.job(after_=["mail:a"]), "/jobs/0/after"),
    ):
        with pytest.raises(Invalid) as caught:
            await shop.app.flow(job)
        assert [pointer] == [fault.path for fault in caught.value.faults]


async def test_a_payload_that_does_not_fit_its_handler_is_named(shop):
    with pytest.raises(PayloadInvalid, match="job 1: the payload of load"):
        await shop.app.flow(
            [{"name": "a", "type": "count"}, {"name": "b", "type": "load", "payload": {"n": "x"}}]
        )


# -- without a loop, middleware -------------------------------------------------------------------


async def test_code_without_a_loop_has_the_same(api, shop):
    def asked() -> tuple[str, Any, str]:
        flow = shop.app.flow_sync(chain(shop.load.job(n=2), shop.double.job()))
        found = flow.wait(20)
        assert states(flow.refresh()) == states(found)
        with SyncClient(url(api)) as jobs:
            again = jobs.flow_with(flow.id)
            assert "succeeded" == again.wait(10).state
            made = jobs.flow([{"name": "a", "type": "load", "queue": "mail", "delay": 600}])
            return found.state, flow.jobs["double"].result(10), made.cancel().state

    async with beside_redis(api, shop):
        assert ("succeeded", 4, "cancelled") == await asyncio.to_thread(asked)
    await asyncio.to_thread(shop.app._run, shop.app.close())


async def test_what_goes_around_each_enqueueing_goes_around_the_jobs_of_a_flow(api, shop):
    @shop.app.middleware
    class Tagged(Middleware):
        async def enqueue(self, job: Any, call_next: Any) -> Any:
            return await call_next(replace(job, tags=[*job.tags, "acme"]))

    async with shop.app:
        flow = await shop.app.flow(chain(shop.load.job(delay_=600), shop.double.job()))
        assert [("acme",), ("acme",)] == [(await job.refresh()).tags for job in flow.jobs.values()]

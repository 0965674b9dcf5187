"""The application object: what goes around jobs, what lives as long as the worker, and `app.test()`."""

from __future__ import annotations

import ast
import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from scheduler import (
    Duplicate,
    Invalid,
    JobDead,
    Middleware,
    NewJob,
    PayloadInvalid,
    Permanent,
    Retry,
    RetryAfter,
    Scheduler,
    Settings,
    State,
    StoreRefused,
    chain,
    parallel,
)  # fmt: skip
from scheduler.limits import Breaker

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
START = datetime(2027, 1, 15, 8, tzinfo=UTC)


@pytest.fixture
def app() -> Scheduler:
    return Scheduler(Settings())


# -- app.test() --------------------------------------------------------------------------------------------------


async def test_a_job_runs_when_it_is_drained_and_its_result_is_there(app):
    @app.job("add")
    async def add(ctx, a: int, b: int = 1) -> int:
        return a + b

    async with app.test() as t:
        job = await add.enqueue(a=2)
        assert State.READY is (await job.refresh()).state
        assert ["succeeded"] == await t.drain()
        assert 3 == await job.result()
        assert [] == await t.drain()


async def test_a_job_by_its_declared_name_goes_to_its_declared_queue(app):
    @app.job("email.send", queue="email")
    async def send(ctx) -> None: ...

    async with app.test():
        one = await app.enqueue("email.send", {})
        [many] = await app.enqueue_many([{"type": "email.send"}])
        flow = await app.flow([{"name": "a", "type": "email.send"}])
        named = await app.enqueue("email.send", {}, queue="other")
        unknown = await app.enqueue("something.else", {})

        found = [one.id, many.id, flow.jobs["a"].id, named.id, unknown.id]
        assert ["email", "email", "email", "other", "default"] == [
            its_id.partition(":")[0] for its_id in found
        ]


async def test_what_a_handler_in_a_thread_enqueues_stays_in_the_test(app):
    app.configure(Settings(redis_url="redis://nowhere.invalid:1"))

    @app.job("first")
    def first(ctx) -> Any:
        return app.enqueue_sync("second").id

    @app.job("second")
    def second(ctx) -> int:
        return 2

    async with app.test() as t:
        await first.enqueue()
        assert ["succeeded", "succeeded"] == await t.drain()


async def test_what_opens_and_closes_the_app_meanwhile_stays_in_the_test(app):
    app.configure(Settings(redis_url="redis://nowhere.invalid:1"))

    async with app.test() as t:
        async with app:
            await app.enqueue("x", id="a")
        await app.enqueue("x", id="b")
        assert 2 == (await t.store.census("default")).counts["ready"]


async def test_time_passes_when_the_test_says_so(app):
    runs: list[tuple[int, datetime]] = []

    @app.job("flaky", retry=Retry(immediate=0, base=60, jitter=0))
    async def flaky(ctx) -> str:
        runs.append((ctx.attempt, t.now))
        if ctx.attempt < 3:
            raise ValueError("not yet")
        return "done"

    async with app.test(now=START) as t:
        job = await flaky.enqueue()
        assert ["retrying"] == await t.drain()
        assert [] == await t.drain()
        t.advance(59.9)
        assert [] == await t.drain()
        t.advance("100ms")
        assert ["retrying"] == await t.drain()
        t.advance(timedelta(minutes=2))
        assert ["succeeded"] == await t.drain()
        assert "done" == await job.result()
    assert [1, 2, 3] == [attempt for attempt, _ in runs]
    assert [0, 60, 180] == [(at - START).total_seconds() for _, at in runs]


async def test_a_job_stands_once_in_what_a_drain_answers(app):
    @app.job("fails")
    def fails(ctx) -> None:
        raise ValueError("boom")

    @app.job("good")
    def good(ctx) -> None: ...

    async with app.test() as t:
        await fails.enqueue(priority_=1)
        await good.enqueue()
        # The first retry is at once: two attempts, one job.
        assert ["retrying", "succeeded"] == await t.drain()


async def test_what_jobs_enqueue_runs_in_the_same_drain(app):
    @app.job("parent", queue="one")
    async def parent(ctx) -> None:
        await child.enqueue_many([{"n": n, "queue_": "two"} for n in range(3)])

    @app.job("child", queue="two")
    async def child(ctx, n: int) -> int:
        return n

    async with app.test() as t:
        await parent.enqueue()
        assert ["succeeded"] * 4 == await t.drain()


async def test_a_drain_that_does_not_end_says_so(app):
    @app.job("again")
    async def again(ctx) -> None:
        await again.enqueue()

    async with app.test() as t:
        await again.enqueue()
        with pytest.raises(RuntimeError, match="50 attempts and jobs are still due"):
            await t.drain(limit=50)


async def test_every_outcome_is_the_real_one(app):
    @app.job("outcome", retry=Retry(immediate=0))
    async def outcome(ctx, how: str) -> Any:
        ctx.progress(1)
        if how == "later":
            raise RetryAfter(30)
        if how == "never":
            raise Permanent("no")
        if how == "snooze":
            ctx.snooze(5)
        if how == "checkpoint":
            ctx.checkpoint([1, 2])
            if ctx.attempt == 1:
                raise ValueError
            return ctx.checkpointed
        return object() if how == "no json" else how

    async with app.test(now=START) as t:
        jobs = await outcome.enqueue_many(
            [{"how": how} for how in ("later", "never", "snooze", "checkpoint", "no json", "fine")]
        )
        assert ["retrying", "dead", "scheduled", "retrying", "dead", "succeeded"] == await t.drain()
        t.advance(31)
        # By the time each was due: the backoff, the snooze, the delay that was asked for.
        assert ["succeeded", "scheduled", "retrying"] == await t.drain()
        assert [1, 2] == await jobs[3].result()
        with pytest.raises(JobDead):
            await jobs[1].result()
        assert b"1" == (await t.job(jobs[0])).progress
        assert [] == [fault async for fault in t.store.verify("default")]


async def test_a_job_of_another_app_waits_for_its_handler(app):
    async with app.test() as t:
        job = await app.enqueue("unknown")
        assert ["scheduled"] == await t.drain()
        t.advance("11m")
        assert ["dead"] == await t.drain()
        assert "no_handler" == (await t.job(job.id)).reason


async def test_two_tests_share_nothing(app):
    for _ in range(2):
        async with app.test() as t:
            await app.enqueue("x", id="same")
            assert [] == [job for job in await t.store.queues() if job != "default"]
            assert 1 == (await t.store.census("default")).counts["ready"]


async def test_without_a_test_memory_is_refused():
    app = Scheduler(Settings(redis_url="memory://"))
    with pytest.raises(StoreRefused, match=r"app\.test\(\)"):
        await app.enqueue("x")


# -- middleware --------------------------------------------------------------------------------------------------


async def test_middleware_goes_round_attempts_and_enqueueing_in_order(app):
    said: list[str] = []

    @app.middleware
    class Outer(Middleware):
        async def run(self, ctx, call_next):
            said.append(f"outer {ctx.type}")
            result = await call_next()
            said.append("outer after")
            return result

        async def enqueue(self, job: NewJob, call_next):
            said.append(f"enqueue {job.type}")
            handle = await call_next(job)
            said.append(f"enqueued {handle.id.partition(':')[0]}")
            return handle

    @app.middleware
    async def inner(ctx, call_next):
        said.append("inner")
        return [await call_next()]

    @app.job("work")
    def work(ctx) -> str:
        said.append("work")
        return "result"

    async with app.test() as t:
        job = await work.enqueue()
        assert ["succeeded"] == await t.drain()
        assert ["result"] == await job.result()
    assert ["enqueue work", "enqueued default", "outer work", "inner", "work", "outer after"] == said


async def test_middleware_may_change_what_is_enqueued_and_sees_failures(app):
    from msgspec.structs import replace  # noqa: PLC0415

    failed: list[str] = []

    class Tenant(Middleware):
        def __init__(self, name: str) -> None:
            self.name = name

        async def enqueue(self, job, call_next):
            return await call_next(replace(job, tags=[*job.tags, self.name]))

        async def run(self, ctx, call_next):
            try:
                return await call_next()
            except ValueError as error:
                failed.append(str(error))
                raise

    app.middleware(Tenant("acme"))

    @app.job("work", retry=Retry(max_attempts=1))
    async def work(ctx) -> None:
        raise ValueError("boom")

    async with app.test() as t:
        one, *_ = await app.enqueue_many([{"type": "work"}, {"type": "work", "tags": ["x"]}])
        assert ("acme",) == (await one.refresh()).tags
        assert ["dead", "dead"] == await t.drain()
    assert ["boom", "boom"] == failed


def test_what_is_no_middleware_is_refused(app):
    with pytest.raises(TypeError, match="middleware is"):
        app.middleware(lambda ctx, call_next: None)


# -- lifespan ----------------------------------------------------------------------------------------------------


async def test_a_lifespan_is_open_while_jobs_run_and_closes_in_reverse(app):
    said: list[str] = []

    @app.lifespan
    async def pool(app: Scheduler) -> AsyncIterator[None]:
        app.state.pool = "pool"
        said.append("open pool")
        yield
        said.append("close pool")

    @app.lifespan
    async def session(app: Scheduler) -> AsyncIterator[None]:
        said.append(f"open session on {app.state.pool}")
        yield
        said.append("close session")

    @app.job("work")
    async def work(ctx) -> None:
        said.append(app.state.pool)

    async with app.test() as t:
        await work.enqueue()
        await t.drain()
    assert ["open pool", "open session on pool", "pool", "close session", "close pool"] == said


def test_what_is_no_lifespan_is_refused(app):
    async def forgets_to_yield(app: Scheduler) -> None: ...

    with pytest.raises(TypeError, match="one `yield`"):
        app.lifespan(forgets_to_yield)


# -- many, and without a loop ------------------------------------------------------------------------------------


async def test_many_go_out_in_order_over_all_queues(app):
    async with app.test() as t:
        handles = await app.enqueue_many(
            {"type": "x", "payload": n, "queue": f"q{n % 3}", "id": f"job-{n}"} for n in range(1_300)
        )
        assert [f"q{n % 3}:job-{n}" for n in range(1_300)] == [handle.id for handle in handles]
        assert {434, 433} == {(await t.store.census(f"q{n}")).counts["ready"] for n in range(3)}
        again = await app.enqueue_many([{"type": "x", "payload": 1, "queue": "q1", "id": "job-1"}])
        assert [True] == [handle.duplicate for handle in again]
        with pytest.raises(Duplicate, match="q1:job-1 is the id of another job"):
            await app.enqueue_many([{"type": "y", "queue": "q1", "id": "job-1"}, {"type": "y", "id": "new"}])
        assert 1 == (await t.store.census("default")).counts["ready"]


async def test_many_are_sent_again_when_their_connection_breaks(app):
    async with app.test() as t:
        send, lost = t.store._send, 0

        async def loses_the_first_reply(calls: Any, *, whole: bool = False) -> Any:
            nonlocal lost
            replies = await send(calls, whole=whole)
            lost += 1
            if lost == 1:
                raise ConnectionResetError
            return replies

        await t.store.load()
        t.store._send = loses_the_first_reply
        handles = await app.enqueue_many({"type": "x", "payload": n} for n in range(1_000))
        assert (1_000, 2) == (len(handles), lost)
        assert 1_000 == (await t.store.census("default")).counts["ready"]


async def test_one_bad_item_of_many_is_named_and_nothing_is_sent(app):
    @app.job("typed")
    def typed(ctx, n: int) -> None: ...

    async with app.test() as t:
        with pytest.raises(Invalid, match="/1/priority"):
            await app.enqueue_many([{"type": "x"}, {"type": "x", "priority": 1000}])
        with pytest.raises(PayloadInvalid, match="item 2"):
            await typed.enqueue_many([{"n": 1}, {"n": 2}, {"n": "three"}])
        with pytest.raises(Invalid, match="/0/type: this field is required"):
            await app.enqueue_many([{"payload": 1}])
        with pytest.raises(Invalid, match="/0/traceparent"):
            await app.enqueue_many([{"type": "x", "traceparent": "\ud800"}])
        with pytest.raises(Invalid, match="/0/colour"):
            await app.enqueue_many([{"type": "x", "colour": "red"}])
        assert [] == await t.store.queues()


@pytest.mark.parametrize("backend", ["valkey"], indirect=True)
async def test_code_without_a_loop_enqueues_and_waits(app, clients):
    app.configure(Settings(redis_url=clients.url))

    @app.job("twice", queue="sync")
    async def twice(ctx, n: int) -> int:
        return 2 * n

    def plain() -> tuple[Any, ...]:
        one, other = twice.enqueue_sync(n=4), app.enqueue_sync("twice", {"n": 5}, queue="sync", delay=60)
        cancelled = other.cancel()
        with pytest.raises(TimeoutError):
            one.result(timeout=0.05)
        return one.id, one.refresh().state, cancelled.state

    found = await asyncio.to_thread(plain)
    assert (State.READY, State.CANCELLED) == found[1:3]
    assert not any(t.name == "scheduler loop" and not t.daemon for t in threading.enumerate())
    with pytest.raises(RuntimeError, match="await the call"):
        app.enqueue_sync("twice", {"n": 1})
    # Both ways side by side: each loop has its own connection.
    again = await twice.enqueue(n=6)
    assert State.READY is (await again.refresh()).state
    assert app._thread is not None
    await asyncio.to_thread(app._thread.run, app.close())
    await app.close()


@pytest.mark.parametrize(
    "limit",
    [
        {"rate": "100"}, {"rate": "0/s"}, {"rate": {"limit": 5}}, {"rate": {"limit": "5", "per": 1}}, {"rate": 5},
        {"rate": {"limit": 5, "per": 1, "colour": 1}}, {"concurrency": 0}, {"concurrency": 1.5}, {"concurrency": True},
        {"breaker": {"failure_rate": 0}}, {"breaker": {"window": "soon"}}, {"breaker": {"colour": 1}}, {"breaker": 0.5},
    ],
    ids=str,
)  # fmt: skip
def test_a_limit_that_is_none_is_refused_when_it_is_declared(limit):
    with pytest.raises(ValueError, match=f"the {next(iter(limit))} of send"):

        @Scheduler().job("send", **limit)
        async def send(ctx) -> None: ...


async def test_a_breaker_that_the_code_declares_keeps_its_type_from_running_for_a_while(app):
    @app.job("send", breaker={"minimum": 3, "open_for": "5m"})
    async def send(ctx, *, well: bool) -> None:
        if not well:
            raise OSError("the mail server is away")

    async with app.test() as t:
        for _ in range(3):
            await send.enqueue(well=False, retry_=Retry(max_attempts=1))
        assert ["dead"] * 3 == await t.drain()

        held = await send.enqueue(well=True)
        assert [] == await t.drain()
        [(_, declared)] = (await t.store.types("default")).values()
        assert declared.breaker == Breaker(minimum=3, open_ms=300_000)
        assert "ready" == (await held.refresh()).state

        t.advance("5m")
        assert ["succeeded"] == await t.drain()


@pytest.mark.parametrize(("said", "breaker"), [(True, Breaker()), ({}, Breaker()), (False, None)])
def test_a_breaker_is_declared_with_its_defaults_or_not_at_all(app, said, breaker):
    @app.job("send", breaker=said)
    async def send(ctx) -> None: ...

    assert breaker == send.handler.policy.breaker


async def test_a_job_may_cost_more_than_another():
    app = Scheduler()

    @app.job("send")
    async def send(ctx) -> None: ...

    async with app.test() as t:
        job = await send.enqueue(cost_=5)
        assert 5 == (await job.refresh()).cost
        for cost in (0, 1_001, 1.5, True):
            with pytest.raises(Invalid):
                await send.enqueue(cost_=cost)
        assert ["succeeded"] == await t.drain()


async def test_a_flow_runs_in_a_test_without_a_server():
    app = Scheduler()

    @app.job("load")
    async def load(ctx: Any, n: int) -> int:
        return n

    @app.job("spread")
    def spread(ctx: Any, n: int) -> None:
        for value in range(n):
            ctx.add(load.job(n=value, queue_="elsewhere"))

    @app.job("total", queue="other")
    async def total(ctx: Any) -> int:
        return sum(value or 0 for value in ctx.parents.values())

    async with app.test() as t:
        flow = await app.flow(chain(parallel(load.job(n=5), spread.job(n=4)), total.job()))
        assert ["succeeded"] * 7 == await t.drain()
        assert 5 + 0 + 1 + 2 + 3 == await flow.jobs["total"].result(1)
        assert "succeeded" == (await flow.wait(1)).state
        assert [] == [fault async for fault in t.store.verify("default")]


# -- jobs by id, many jobs, shipped types ------------------------------------------------------------------------


async def test_a_handle_of_any_id_finds_the_job_and_its_result(app):
    @app.job("double")
    async def double(ctx, n: int) -> int:
        return 2 * n

    async with app.test() as t:
        sent = await double.enqueue(n=21)
        await t.drain()

        assert 42 == await app.handle(sent.id).result(timeout=1)
        assert State.SUCCEEDED == (await app.handle(sent.id).refresh()).state
        assert 42 == await asyncio.to_thread(lambda: app.handle_sync(sent.id).result(timeout=1))


def test_a_text_that_is_no_job_id_has_no_handle(app):
    with pytest.raises(Invalid, match="no job id"):
        app.handle("nothing")


async def test_options_for_all_are_those_of_each_item_that_has_none_of_its_own(app):
    @app.job("double")
    async def double(ctx, n: int) -> int:
        return 2 * n

    async with app.test():
        by_handler = await double.enqueue_many([{"n": 1}, {"n": 2, "priority_": 9}], priority_=5, queue_="q")
        by_app = await app.enqueue_many(
            [{"type": "double", "payload": {"n": 1}}, {"type": "x", "priority": 9}], priority=5, queue="q"
        )

        for handles in (by_handler, by_app):
            jobs = [await handle.refresh() for handle in handles]
            assert [("q", 5), ("q", 9)] == [(job.queue, job.priority) for job in jobs]


async def test_an_option_for_all_that_cannot_be_is_refused_and_nothing_is_sent(app):
    @app.job("double")
    async def double(ctx, n: int) -> int:
        return 2 * n

    async with app.test() as t:
        with pytest.raises(Invalid, match="/id"):
            await double.enqueue_many([{"n": 1}, {"n": 2}], id_="same")
        with pytest.raises(TypeError, match="priority"):
            await double.enqueue_many([{"n": 1}], priority=5)

        assert [] == await t.drain()


async def test_jobs_are_listed_by_what_they_are_page_after_page(app):
    async with app.test() as t:
        sent = await app.enqueue_many([{"type": "x", "payload": {"n": n}} for n in range(5)], queue="a")
        await app.enqueue("y", queue="a", delay=60)
        await app.enqueue("x", queue="b")

        found = [job async for job in app.jobs(queue="a", type="x", include="payload", page=2)]
        assert [handle.id for handle in sent] == [job.id for job in found]
        assert b'{"n":4}' == found[-1].payload
        assert ["y"] == [job.type async for job in app.jobs(state="scheduled")]
        assert 7 == len([job async for job in app.jobs()])
        assert [] == [job async for job in app.jobs(queue="none")]
        assert t


@pytest.mark.parametrize(
    "wrong", [{"state": "done"}, {"include": "trace"}, {"include": "payload,x"}, {"page": 0}]
)
async def test_a_list_of_jobs_names_what_it_cannot_take(app, wrong):
    async with app.test():
        with pytest.raises(Invalid, match=f"/{next(iter(wrong))}"):
            [job async for job in app.jobs(**wrong)]


def test_shipped_types_are_included_by_the_name_in_the_package():
    # In a process of its own: here other tests have imported the module.
    code = "import scheduler; app = scheduler.Scheduler(); app.include(scheduler.shipped); print(*sorted(h.type for h in app.handlers))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )

    assert ["demo.echo", "demo.fail", "demo.sleep", "email.send", "http.request"] == done.stdout.split()


async def test_a_lifespan_may_be_a_function_that_asynccontextmanager_decorates(app):
    said = []

    @app.lifespan
    @asynccontextmanager
    async def pool(app: Scheduler) -> AsyncIterator[None]:
        said.append("open")
        yield
        said.append("closed")

    async with app.test():
        assert ["open"] == said

    assert ["open", "closed"] == said


async def test_the_python_blocks_of_the_main_readme_run_as_they_stand():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {"__name__": "shop"}
    exec(blocks[0], names)
    async with names["app"].test() as t:
        for block in blocks[1:]:
            made = eval(compile(block, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
            if made is not None:
                running = asyncio.ensure_future(made)
                while not running.done():
                    await t.drain()
                    await asyncio.wait({running}, timeout=0.05)
                await running

        assert "succeeded" == names["found"].state
        assert 24 == await names["flow"].jobs["report.collect"].result(timeout=1)

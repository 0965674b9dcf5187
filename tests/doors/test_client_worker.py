"""A worker over HTTP means the same by everything as one beside the store."""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from scheduler import Permanent, Retry, RetryAfter, Scheduler
from scheduler.client import Client, Invalid, Unauthorized
from scheduler.outcomes import Note
from scheduler.remote import consecutive, note_items
from scheduler.settings import Settings
from tests.doors.conftest import on_valkey, served, until
from tests.doors.test_client import forwarding, url
from tests.helpers import on_the_fake
from tests.whole.conftest import ROOT, free_port

FAST = Settings(lease_ms=1_500, watchdog_interval_ms=500, grace_ms=1_000)


@pytest.fixture
def app():
    return Scheduler(FAST)


@pytest.fixture
async def jobs(api):
    async with Client(url(api)) as client:
        yield client


@asynccontextmanager
async def working(jobs, app, **options):
    """A worker, which is cancelled in the end and then stops as it should."""
    task = asyncio.create_task(jobs.work(app, **{"queues": ["mail"], **options}))
    try:
        yield task
    finally:
        task.cancel()
        async with asyncio.timeout(10):
            await asyncio.gather(task, return_exceptions=True)


async def state(jobs, key):
    return (await jobs.job(f"mail:{key}")).state


async def test_jobs_are_run_and_their_results_are_there(jobs, app):
    @app.job("add", queue="mail")
    async def add(ctx, a: int, b: int = 1) -> int:
        return a + b

    @app.job("name", queue="mail")
    def name(ctx) -> list[Any]:
        return [ctx.id, ctx.type, ctx.attempt, ctx.queue]

    async with working(jobs, app, queues=()):
        assert 3 == await (await jobs.enqueue("add", {"a": 2}, queue="mail")).result(10)
        found = await (await jobs.enqueue("name", {}, queue="mail", id="n")).result(10)
        assert ["mail:n", "name", 1, "mail"] == found
        many = await jobs.enqueue_many(
            {"type": "add", "payload": {"a": n}, "queue": "mail"} for n in range(200)
        )
        assert [n + 1 for n in range(200)] == [await job.result(10) for job in many]


async def test_every_way_to_end_means_what_it_means_beside_the_store(jobs, app):
    seen: list[tuple[str, int]] = []

    @app.job("fail", queue="mail", retry=Retry(max_attempts=2, immediate=1))
    async def fail(ctx) -> None:
        seen.append(("fail", ctx.attempt))
        raise ValueError("boom")

    @app.job("give_up", queue="mail")
    async def give_up(ctx) -> None:
        raise Permanent("no such mailbox")

    @app.job("later", queue="mail")
    async def later(ctx) -> None:
        raise RetryAfter(60)

    @app.job("nap", queue="mail")
    async def nap(ctx) -> None:
        ctx.snooze(60)

    @app.job("slow", queue="mail", timeout=0.2, retry=Retry(max_attempts=1))
    async def slow(ctx) -> None:
        await asyncio.Event().wait()

    @app.job("picky", queue="mail")
    async def picky(ctx, n: int) -> None: ...

    @app.job("odd", queue="mail")
    async def odd(ctx) -> Any:
        return object()

    for key in ("fail", "give_up", "later", "nap", "slow", "picky", "odd", "unknown"):
        await jobs.enqueue(key, queue="mail", id=key)
    async with working(jobs, app):
        dead = {
            key: await jobs.job(f"mail:{key}").ended(10)
            for key in ("fail", "give_up", "slow", "picky", "odd")
        }
        await until(lambda: _are(jobs, {"later": "retrying", "nap": "scheduled", "unknown": "scheduled"}))

    assert {"dead"} == {job.state for job in dead.values()}
    assert ("attempts", 2, "ValueError") == (
        dead["fail"].reason,
        dead["fail"].attempt,
        dead["fail"].errors[0].kind,
    )
    assert "test_client_worker" in (dead["fail"].errors[0].trace or "")
    assert [("fail", 1), ("fail", 2)] == seen
    assert ("permanent", "no such mailbox") == (dead["give_up"].reason, dead["give_up"].errors[0].message)
    assert ("attempts", "TimeoutError") == (dead["slow"].reason, dead["slow"].errors[0].kind)
    assert "bad_payload" == dead["picky"].reason
    assert "ResultInvalid" == dead["odd"].errors[0].kind
    retrying, napping, unknown = [await jobs.job(f"mail:{key}") for key in ("later", "nap", "unknown")]
    assert retrying.run_at - retrying.errors[0].at_ms == pytest.approx(60_000, abs=2_000)
    assert (0, 1) == (napping.attempt, napping.snoozes)
    assert 0 == unknown.attempt


async def _are(jobs, expected):
    return all([await state(jobs, key) == wanted for key, wanted in expected.items()])


async def test_what_a_handler_tells_is_there_and_a_checkpoint_helps_the_next_attempt(api, jobs, app):
    @app.job("talk", queue="mail", retry=Retry(immediate=1))
    async def talk(ctx) -> Any:
        ctx.progress({"at": 1})
        for n in range(1200):
            ctx.log(f"line {n} of attempt {ctx.attempt}")
        ctx.checkpoint({"page": 7})
        ctx.extend(5)
        if ctx.attempt == 1:
            raise ValueError("once more")
        ctx.progress(100)
        return ctx.checkpointed

    job = await jobs.enqueue("talk", queue="mail")
    async with working(jobs, app):
        assert {"page": 7} == await job.result(10)
    lines = [line.line async for line in job.log()]

    assert b"100" == (await job).progress
    assert [f"line {n} of attempt 2" for n in range(200, 1200)] == lines


async def test_a_job_that_is_cancelled_stops_its_handler(jobs, app):
    stopped = asyncio.Event()

    @app.job("long", queue="mail")
    async def long(ctx) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            assert ctx.cancelled
            stopped.set()

    job = await jobs.enqueue("long", queue="mail")
    async with working(jobs, app):
        await until(lambda: _is(job, "running"))
        await job.cancel()
        async with asyncio.timeout(10):
            await stopped.wait()
        assert "cancelled" == (await job.ended(10)).state


async def _waited(waits, times):
    return len(waits) >= times


async def _is(job, wanted):
    return (await job).state == wanted


async def test_a_lease_is_held_for_as_long_as_the_handler_works(jobs, app):
    go = asyncio.Event()

    @app.job("long", queue="mail")
    async def long(ctx) -> int:
        await go.wait()
        return int(ctx.attempt)

    job = await jobs.enqueue("long", queue="mail")
    async with working(jobs, app):
        await until(lambda: _is(job, "running"))
        held = (await job).lease_expires_at
        await until(lambda: _extended(job, held), within=10)
        go.set()
        assert 1 == await job.result(10)


async def _extended(job, former):
    return (await job).lease_expires_at > former + 1_500


@on_valkey
async def test_a_handler_that_blocks_the_loop_keeps_its_lease(clients):
    # The worker has a process of its own here, for its loop is not that of the server.
    async with served(clients) as api, Client(url(api)) as jobs:
        job = await jobs.enqueue("block", {"seconds": 3}, queue="mail")
        with other_process(api, lease="1s"):
            found = await job.ended(20)
        assert ("succeeded", 1) == (found.state, found.attempt)


WORKER = """
import asyncio, os, sys, time
from scheduler import Scheduler
from scheduler.client import Client

app = Scheduler()

@app.job("block", queue="mail")
async def block(ctx, seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()

@app.job("wait", queue="mail")
async def wait(ctx) -> int:
    await asyncio.sleep(0 if ctx.attempt > 1 else 3600)
    return os.getpid()

async def main():
    async with Client(sys.argv[1]) as jobs:
        await jobs.work(app, queues=["mail"], concurrency=2)
    print("stopped")

asyncio.run(main())
"""


class other_process:  # noqa: N801 - it is used as a function
    """A worker over HTTP in a process of its own."""

    def __init__(self, api: Any, **settings: str) -> None:
        told = {f"SCHEDULER_{name.upper()}": value for name, value in settings.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, url(api)],
            env={**os.environ, **told, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
        )

    def __enter__(self) -> "subprocess.Popen[bytes]":
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@on_valkey
async def test_a_worker_that_is_killed_loses_nothing_and_another_does_its_job(clients):
    async with served(clients, watchdog_interval_ms=500, lease_ms=1_000) as api, Client(url(api)) as jobs:
        from scheduler.upkeep import sweep  # noqa: PLC0415 - the watchdog's part, which this server has not

        job = await jobs.enqueue("wait", queue="mail")
        with other_process(api, lease="1s") as first:
            await until(lambda: _is(job, "running"), within=20)
            os.kill(first.pid, signal.SIGKILL)
            first.wait()
            with other_process(api, lease="1s") as second:

                async def ended():
                    await sweep(api.store, "mail", api.settings, worker="w")
                    return (await job).state == "succeeded"

                await until(ended, within=30)
                found = await job
        assert second.pid == await job.result(1)
        assert (2, ["LeaseExpired"]) == (found.attempt, [error.kind for error in found.errors])


@on_valkey
async def test_sigterm_gives_back_what_runs_and_ends_well(clients):
    async with served(clients) as api, Client(url(api)) as jobs:
        job = await jobs.enqueue("wait", queue="mail")
        with other_process(api, grace="0.2s") as process:
            await until(lambda: _is(job, "running"), within=20)
            process.send_signal(signal.SIGTERM)
            output, _ = await asyncio.to_thread(process.communicate, timeout=10)
            assert (0, b"stopped\n") == (process.returncode, output)
        found = await job
        assert ("ready", 0) == (found.state, found.attempt)


async def test_a_cancelled_worker_lets_handlers_finish_and_gives_back_the_rest(jobs, app):
    begun, go = asyncio.Semaphore(0), asyncio.Event()

    @app.job("short", queue="mail")
    async def short(ctx) -> str:
        begun.release()
        await go.wait()
        return "done"

    @app.job("endless", queue="mail")
    async def endless(ctx) -> None:
        begun.release()
        await asyncio.Event().wait()

    await jobs.enqueue("short", queue="mail", id="s")
    await jobs.enqueue("endless", queue="mail", id="e")
    task = asyncio.create_task(jobs.work(app, queues=["mail"]))
    for _ in range(2):
        await begun.acquire()
    task.cancel()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ["succeeded", "ready"] == [await state(jobs, key) for key in "se"]
    assert 0 == (await jobs.job("mail:e")).attempt


async def test_an_idle_worker_stops_at_once_and_holds_nothing(jobs, app):
    task = asyncio.create_task(jobs.work(app, queues=["mail", "post"], concurrency=2))
    await until(lambda: _works(jobs, 2))
    await jobs.enqueue("unknown", queue="other")
    task.cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(task, return_exceptions=True)
    for queue in ("mail", "post"):
        await jobs.enqueue("unknown", queue=queue, id="a")
        assert "ready" == (await jobs.job(f"{queue}:a")).state


async def _works(jobs, queues):
    found = [worker async for worker in jobs.workers()]
    return bool(found) and len(found[0].queues) == queues


async def test_queues_share_slots_though_each_waits_for_its_own_jobs(jobs, app):
    @app.job("work", queue="a")
    async def work(ctx) -> str:
        return str(ctx.queue)

    async with working(jobs, app, queues=["a", "b", "c"], concurrency=1):
        for queue in ("a", "b", "c", "a", "c"):
            assert queue == await (await jobs.enqueue("work", queue=queue)).result(10)
        many = await jobs.enqueue_many({"type": "work", "queue": "abc"[n % 3]} for n in range(30))
        assert ["abc"[n % 3] for n in range(30)] == [await job.result(20) for job in many]


async def test_no_more_run_at_once_than_the_worker_may(jobs, app):
    running = most = 0

    @app.job("work", queue="mail")
    async def work(ctx) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    many = await jobs.enqueue_many({"type": "work", "queue": "mail"} for _ in range(60))
    async with working(jobs, app, concurrency=7):
        for job in many:
            await job.result(10)
    assert 7 == most


async def test_policies_of_the_code_are_declared(jobs, app):
    @app.job(
        "send",
        queue="mail",
        timeout=12,
        retry=Retry(max_attempts=3),
        rate="100/m",
        concurrency=3,
        breaker={"window": "5m"},
    )
    async def send(ctx) -> None: ...

    job = await jobs.enqueue("send", queue="mail", delay=60)
    async with working(jobs, app):
        await until(lambda: _limited(job))
    assert 3 == (await job).max_attempts
    [shown] = [shown async for shown in jobs.queue("mail").types()]
    assert (100, 3) == (shown.in_force.rate.limit, shown.in_force.concurrency)
    assert (300, 10) == (shown.in_force.breaker.window, shown.in_force.breaker.minimum)


async def _limited(job):
    return (await job).timeout_ms == 12_000


async def test_what_a_handler_enqueues_goes_the_same_way(jobs):
    app = Scheduler(replace(FAST, redis_url="redis://127.0.0.1:1"))

    @app.job("child", queue="mail")
    async def child(ctx, n: int) -> int:
        return n * 2

    @app.job("parent", queue="mail")
    async def parent(ctx) -> list[int]:
        first = await child.enqueue(n=1)
        rest = await child.enqueue_many([{"n": 2}, {"n": 3}])
        assert "scheduled" == (await (await child.enqueue(n=4, delay_=60)).refresh()).state
        assert "cancelled" == (await (await child.enqueue(n=4, delay_=60)).cancel()).state
        return [await job.result(10) for job in (first, *rest)]

    @app.job("thread", queue="mail")
    def thread(ctx) -> int:
        return int(child.enqueue_sync(n=5).result(10))

    async with working(jobs, app):
        assert [2, 4, 6] == await (await jobs.enqueue("parent", queue="mail")).result(20)
        assert 10 == await (await jobs.enqueue("thread", queue="mail")).result(20)


async def test_lifespans_and_middleware_go_around_as_ever(jobs, app):
    order = []

    @app.lifespan
    async def resources(app):
        order.append("open")
        yield
        order.append("close")

    @app.middleware
    async def around(ctx, call_next):
        order.append("before")
        return await call_next()

    @app.job("work", queue="mail")
    async def work(ctx) -> None:
        order.append("work")

    async with working(jobs, app):
        await (await jobs.enqueue("work", queue="mail")).result(10)
    assert ["open", "before", "work", "close"] == order


@on_valkey
async def test_lost_answers_make_nothing_run_twice(api):
    app = Scheduler(FAST)
    runs: list[str] = []

    @app.job("work", queue="mail")
    async def work(ctx) -> int:
        ctx.log("once")
        runs.append(ctx.id)
        return 1

    async with (
        forwarding(api) as (address, faults),
        Client(address) as far,
        Client(url(api)) as near,
        working(far, app, concurrency=3),
    ):
        for n in range(30):
            faults["cut_after"] = 1 if n % 3 == 0 else 0
            job = await near.enqueue("work", queue="mail")
            assert 1 == await job.result(20)
            assert ["once"] == [line.line async for line in job.log()]
    assert len(runs) == len(set(runs)) == 30


@asynccontextmanager
async def holding(api):
    """Stands between a worker and the API, and holds outcomes until it is told to let them through."""
    waits, held, let = list[str](), asyncio.Event(), asyncio.Event()

    async def through(request: web.Request) -> web.Response:
        body = await request.read()
        if b'"ack"' in body:
            held.set()
            await let.wait()
        elif b'"wait":20' in body:
            waits.append(request.path)
        answer = await api.call(request.method, request.path_qs, body or None)
        return web.Response(status=answer.status, body=answer.raw, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", through)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}", waits, held, let
    finally:
        let.set()
        await runner.cleanup()


@on_valkey
async def test_what_was_leased_begins_although_outcomes_are_not_heard(api, app):
    """Else its lease would run out before anybody held it."""
    go, begun = asyncio.Event(), asyncio.Event()

    @app.job("first", queue="mail")
    async def first(ctx) -> None:
        await go.wait()

    @app.job("next", queue="mail")
    async def following(ctx) -> None:
        begun.set()

    async with (
        holding(api) as (address, waits, held, let),
        Client(address) as far,
        Client(url(api)) as near,
        working(far, app, concurrency=3),
    ):
        await until(lambda: _waited(waits, 1))
        one = await near.enqueue("first", queue="mail")
        await until(lambda: _waited(waits, 2))
        go.set()
        await asyncio.wait_for(held.wait(), 5)
        two = await near.enqueue("next", queue="mail")
        await asyncio.wait_for(begun.wait(), 3)
        let.set()
        assert ["succeeded"] * 2 == [(await job.ended(10)).state for job in (one, two)]


@on_the_fake
@pytest.mark.parametrize(("key", "queue", "error"), [("wrong", "mail", Unauthorized), ("k", "-", Invalid)])
async def test_a_worker_that_may_not_work_says_so_at_its_start(serving, app, key, queue, error):
    api = await serving(api_key="k")

    @app.job("work", queue="mail")
    async def work(ctx) -> None: ...

    async with Client(url(api), key) as jobs, asyncio.timeout(10):
        with pytest.raises(error):
            await jobs.work(app, queues=[queue])


@on_valkey
async def test_a_service_that_comes_back_is_worked_for_again(api):
    app = Scheduler(FAST)

    @app.job("work", queue="mail")
    async def work(ctx) -> int:
        return 1

    async with (
        forwarding(api) as (address, faults),
        Client(address) as far,
        Client(url(api)) as near,
        working(far, app),
    ):
        assert 1 == await (await near.enqueue("work", queue="mail")).result(10)
        faults["cut_after"] = 10**6
        job = await near.enqueue("work", queue="mail")
        await until(lambda: _count(faults, 5))
        faults["cut_after"] = 0
        assert 1 == await job.result(20)


async def _count(faults, least):
    return faults["cut"] >= least


@on_the_fake
async def test_a_result_that_only_the_server_finds_too_large_is_dead_by_that(serving):
    api = await serving(max_result=1_000)
    app = Scheduler(FAST)

    @app.job("big", queue="mail")
    async def big(ctx) -> str:
        return "x" * 2_000

    async with Client(url(api)) as jobs, working(jobs, app):
        found = await (await jobs.enqueue("big", queue="mail")).ended(10)
    assert ("dead", "ResultTooLarge") == (found.state, found.errors[0].kind)


def test_lines_are_told_in_pieces_whose_numbers_follow_each_other():
    def line(seq):
        return Note("a", 1, "log", b"%d" % seq, seq)

    assert [[1, 2, 3], [5, 6], [9]] == [
        [note.seq for note in some] for some in consecutive([line(n) for n in (1, 2, 3, 5, 6, 9)])
    ]
    told = [line(2), Note("a", 1, "progress", b"1"), line(1), Note("a", 1, "progress", b"2")]
    parts = [part.item for part in note_items(told, "mail", 30_000)]
    assert [None, ["1", "2"]] == [part.get("log") for part in parts]
    assert b"2" == bytes(parts[0]["progress"])
    assert (30, 1) == (parts[1]["lease"], parts[1]["log_from"])


async def test_failures_and_deaths_are_said_and_hooks_are_called(jobs, app, caplog):
    seen: list[tuple[str, str]] = []

    @app.on_dead
    def told(job) -> None:
        seen.append((job.id, job.errors[-1].kind))

    @app.job("fails", queue="mail", retry=Retry(max_attempts=3, immediate=1, base=0.05, jitter=0))
    async def fails(ctx) -> None:
        raise ValueError("boom")

    await jobs.enqueue("fails", {}, queue="mail", id="f")
    await jobs.enqueue("unknown", {}, queue="mail", id="u")

    async def happened() -> bool:
        return bool(seen) and "no handler for a type" in caplog.text

    async with working(jobs, app):
        await until(happened)

    lines = [record.getMessage() for record in caplog.records]
    failures = [line for line in lines if line.startswith("an attempt failed")]
    assert ['"retry at once"', '"retry in 0.1 s"'] == [line.split("next=")[1] for line in failures]
    assert "job=mail:f type=fails attempt=1 kind=ValueError message=boom where=" in failures[0]
    assert 1 == sum("a job is dead job=mail:f" in line and "reason=attempts" in line for line in lines)
    assert [("mail:f", "ValueError")] == seen

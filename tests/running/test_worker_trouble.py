"""Trouble of one queue, one handler or one turn stays that one's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from scheduler.job import NewJob, State
from scheduler.joining import Call
from scheduler.outcomes import Nack
from scheduler.retry import Retry
from scheduler.settings import Settings
from scheduler.store import Store
from tests.running.conftest import QUEUE, Bench
from tests.running.test_worker_faults import Leaky

pytestmark = pytest.mark.parametrize("backend", ("fake", "valkey"), indirect=True)
OTHER = "reports"


async def newer_level(bench: Bench, queue: str) -> None:
    redis: Any = bench.store.clients.commands
    await redis.hset(f"{{scheduler:{queue}}}:config", "level", "2")


async def older_level(bench: Bench, queue: str) -> None:
    redis: Any = bench.store.clients.commands
    await redis.hdel(f"{{scheduler:{queue}}}:config", "level")


async def test_a_queue_that_refuses_takes_no_slot_from_another(bench: Bench):
    ran = asyncio.Event()

    async def work(ctx) -> None:
        ran.set()

    bench.handler("work", work)
    await bench.enqueue("work")
    await newer_level(bench, QUEUE)
    bench.work(concurrency=1, queues=(QUEUE, OTHER))
    await bench.store.enqueue(OTHER, [NewJob(type="work", queue=OTHER, key="a")])

    async with asyncio.timeout(8):
        await ran.wait()
    await older_level(bench, QUEUE)


async def test_a_queue_that_refuses_costs_another_no_lease(bench: Bench):
    async def long(ctx) -> int:
        await asyncio.sleep(4)
        return int(ctx.attempt)

    bench.handler("long", long)
    first = await bench.enqueue("long")
    await bench.store.enqueue(OTHER, [NewJob(type="long", queue=OTHER, key="a")])
    worker = bench.work(queues=(QUEUE, OTHER))
    await bench.until(lambda: all(fetcher.running for fetcher in worker.fetchers.values()))
    await newer_level(bench, QUEUE)
    await bench.until(lambda: not worker.fetchers[OTHER].running)
    await bench.until(lambda: not worker.fetchers[OTHER].settled)
    job = await bench.store.job(OTHER, "a")
    await older_level(bench, QUEUE)

    assert (1, 0) == (job.attempt, job.crashes)
    await bench.ended(first)


async def test_a_turn_that_fails_in_an_odd_way_is_taken_again(bench: Bench):
    class Odd(Leaky):
        async def run_all(self, calls):
            if any(call.script == "claim" for call in calls):
                self.turns += 1
                if self.turns in {1, 3}:
                    raise RuntimeError("something nobody thought of")
            return await Store.run_all(self, calls)

    async def work(ctx) -> None: ...

    bench.handler("work", work)
    store = Odd(bench.store.clients)
    await store.connect()
    keys = [await bench.enqueue("work") for _ in range(4)]
    bench.work(concurrency=2, store=store)

    assert {1} == {(await bench.ended(key)).attempt for key in keys}


async def test_a_log_line_is_kept_once_though_its_turn_is_refused(bench: Bench):
    async def talk(ctx) -> None:
        ctx.log("the only line")

    redis: Any = bench.store.clients.commands
    bench.handler("talk", talk)
    key = await bench.enqueue("talk")
    await redis.set(f"{{scheduler:{QUEUE}}}:results", "of another type")
    worker = bench.work()
    fetcher: Any = worker.fetchers[QUEUE]
    await bench.until(lambda: fetcher.refusal is not None)
    await asyncio.sleep(0.5)  # a few more refused turns
    await redis.delete(f"{{scheduler:{QUEUE}}}:results")

    assert State.SUCCEEDED == (await bench.ended(key)).state
    assert 1 == await redis.zcard(f"{{scheduler:{QUEUE}}}:logs")


async def test_a_plain_function_may_raise_stop_iteration(bench: Bench):
    def stop(ctx) -> Any:
        return next(iter([]))

    bench.handler("stop", stop)
    bench.work()
    job = await bench.ended(await bench.enqueue("stop", retry={"max_attempts": 1}))

    assert ("attempts", "RuntimeError") == (job.reason, job.errors[0].kind)


async def test_hung_threads_take_no_place_from_others(bench: Bench):
    free = threading.Event()

    def hang(ctx) -> None:
        free.wait(20)

    def quick(ctx) -> str:
        return "done"

    bench.handler("hang", hang)
    bench.handler("quick", quick)
    bench.work(concurrency=2)
    for _ in range(2):
        await bench.ended(await bench.enqueue("hang", timeout_ms=200, retry={"max_attempts": 1}))

    assert b'"done"' == (await bench.ended(await bench.enqueue("quick"), 5)).result
    free.set()


async def test_a_ring_that_finds_no_free_slot_is_passed_on(bench: Bench):
    if bench.store.clients.fake:
        pytest.skip("which of two blocked clients the fake wakes, and when, tells nothing")
    started, free = asyncio.Event(), asyncio.Event()

    async def hold(ctx) -> None:
        started.set()
        await free.wait()

    async def work(ctx) -> None: ...

    bench.handler("hold", hold)
    bench.handler("work", work)
    # This one listens to both bells, then its only slot is taken.
    bench.work(concurrency=1, queues=(QUEUE, OTHER))
    await asyncio.sleep(0.3)
    await bench.store.enqueue(OTHER, [NewJob(type="hold", queue=OTHER, key="a")])
    await started.wait()
    from scheduler.doorbell import Doorbell  # noqa: PLC0415

    bell = Doorbell(bench.store.clients, "scheduler")
    bench.doorbell, shared = bell, bench.doorbell
    bench.work(concurrency=1)
    bench.doorbell = shared
    await asyncio.sleep(0.3)
    for _ in range(3):
        began = asyncio.get_running_loop().time()
        await bench.ended(await bench.enqueue("work"))
        assert asyncio.get_running_loop().time() - began < 2
    free.set()
    await bell.close()


async def test_a_deaf_handler_whose_lease_is_lost_gives_its_slot_back(bench: Bench, monkeypatch):
    monkeypatch.setattr("scheduler.fetcher.ABANDON_AFTER", 0.2)
    free = asyncio.Event()

    async def deaf(ctx) -> None:
        while ctx.attempt == 1 and not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue

    bench.handler("deaf", deaf)
    key = await bench.enqueue("deaf")
    worker = bench.work(concurrency=1)
    await bench.until(lambda: worker.fetchers[QUEUE].running)
    [token] = worker.fetchers[QUEUE].running
    worker.fetchers[QUEUE].lose(token)

    await bench.until(lambda: worker.crew.abandoned == 1)
    # The lease itself was never extended again, so the watchdog gives the job to whoever has a slot.
    assert 2 == (await bench.ended(key, 15)).attempt
    free.set()


async def test_the_heartbeat_outlives_an_odd_error(bench: Bench):
    async def long(ctx) -> None:
        await asyncio.sleep(4)

    bench.handler("long", long)
    worker = bench.work()
    real = worker.heartbeat._held
    failed: list[bool] = []

    def once() -> Any:
        if worker.fetchers[QUEUE].running and not failed:
            failed.append(True)
            raise RuntimeError("dictionary changed size during iteration")
        return real()

    if bench.store.clients.fake:
        pytest.skip("the in-memory server has no heartbeat thread")
    worker.heartbeat._held = once
    job = await bench.ended(await bench.enqueue("long"))

    assert (True, 1) == (bool(failed), job.attempt)


async def test_what_is_no_json_or_no_option_is_refused_before_anything_is_sent(bench: Bench):
    from scheduler import Invalid, PayloadInvalid, Scheduler  # noqa: PLC0415

    app = Scheduler(Settings())

    @app.job("any")
    async def anything(ctx, x: Any = None) -> None: ...

    with pytest.raises(PayloadInvalid, match="NaN"):
        app.new_job("any", {"x": [float("nan")]}, {})
    for option in (
        {"tags": "urgent"},
        {"priority": "5"},
        {"priority": 1.5},
        {"delay": "30"},
        {"group": 3},
        {"nope": 1},
    ):
        with pytest.raises(Invalid, match=f"/{next(iter(option))}"):
            app.new_job("any", {}, option)


@pytest.mark.parametrize("what", ["note", "outcome", "both"])
async def test_an_item_that_the_server_will_never_take_holds_no_other(bench: Bench, caplog, what: str):
    """What no handler can send by itself: a later release may, and one item must not hold a queue for it."""
    turns = 0

    async def poisons(ctx) -> None:
        line = worker.fetchers[QUEUE]
        if what != "outcome":
            worker.tell(ctx.claimed, "nonsense", b"1")
        if what != "note":
            line.end(line.running[ctx.token], Nack(ctx.claimed.key, ctx.token, "E", "m", retry_in_ms=10**12))

    async def tells(ctx) -> int:
        ctx.checkpoint(ctx.attempt)
        ctx.log("done")
        return 1

    class Counted(Store):
        async def run_all(self, calls: Sequence[Call[Any]]) -> list[Any]:
            nonlocal turns
            turns += 1
            return await super().run_all(calls)

    store = Counted(bench.store.clients)
    await store.connect()
    bench.handler("poisons", poisons, retry=Retry(max_attempts=1))
    bench.handler("tells", tells)
    bad = [await bench.enqueue("poisons") for _ in range(3)]
    good = [await bench.enqueue("tells") for _ in range(20)]
    worker = bench.work(concurrency=50, store=store)
    ended = [await bench.ended(key) for key in (*bad, *good)]

    expected = (State.SUCCEEDED, None) if what == "note" else (State.DEAD, "OutcomeRefused")
    assert [expected] * 3 == [(job.state, job.errors[-1].kind if job.errors else None) for job in ended[:3]]
    assert [State.SUCCEEDED] * 20 == [job.state for job in ended[3:]]
    refused = [r for r in caplog.records if r.getMessage().startswith("what was to be told is not taken")]
    assert (6 if what == "both" else 3) == len(refused)
    # Nothing is sent over and over.
    assert turns < 20

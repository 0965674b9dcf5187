"""What a worker does with jobs, one attempt at a time."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from scheduler.errors import Permanent, RetryAfter
from scheduler.job import State
from scheduler.limits import Breaker, Rate
from scheduler.outcomes import TypePolicy
from scheduler.retry import Retry
from scheduler.worker import declare_anew
from tests.running.conftest import QUEUE, Bench

pytestmark = pytest.mark.parametrize("backend", ("fake", "valkey"), indirect=True)


async def test_an_async_handler_gets_its_payload_and_leaves_its_result(bench: Bench):
    async def greet(ctx, name: str, times: int = 1) -> dict[str, Any]:
        return {"said": f"hi {name}" * times, "attempt": ctx.attempt, "queue": ctx.queue}

    bench.handler("greet", greet)
    bench.work()
    job = await bench.ended(await bench.enqueue("greet", b'{"name": "Ada"}'))

    assert (State.SUCCEEDED, b'{"said":"hi Ada","attempt":1,"queue":"mail"}') == (job.state, job.result)


async def test_a_plain_function_runs_in_a_thread(bench: Bench):
    loop_thread = threading.get_ident()

    def where(ctx) -> bool:
        return threading.get_ident() == loop_thread

    bench.handler("where", where)
    bench.work()

    assert b"false" == (await bench.ended(await bench.enqueue("where"))).result


async def test_a_first_failure_is_tried_again_at_once_and_kept(bench: Bench):
    async def flaky(ctx) -> int:
        if ctx.attempt == 1:
            raise ValueError("not yet")
        return int(ctx.attempt)

    bench.handler("flaky", flaky)
    bench.work()
    job = await bench.ended(await bench.enqueue("flaky"))

    assert (State.SUCCEEDED, b"2", 2) == (job.state, job.result, job.attempt)
    assert [("ValueError", "not yet", "retry at once")] == [(e.kind, e.message, e.next) for e in job.errors]
    assert "ValueError: not yet" in (job.errors[0].trace or "")


async def test_failures_end_in_the_dead_letter_queue(bench: Bench):
    starts = []

    async def hopeless(ctx) -> None:
        starts.append(ctx.attempt)
        raise RuntimeError("no way")

    bench.handler("hopeless", hopeless, retry=Retry(max_attempts=3, immediate=2))
    bench.work()
    job = await bench.ended(await bench.enqueue("hopeless"))

    assert ([1, 2, 3], State.DEAD, "attempts", 3) == (starts, job.state, job.reason, len(job.errors))


async def test_the_policy_that_the_code_declares_is_shown(bench: Bench):
    async def nothing(ctx) -> None: ...

    bench.handler("nothing", nothing, retry=Retry(max_attempts=7), timeout="5s")
    bench.work()
    job = await bench.ended(await bench.enqueue("nothing"))

    assert (7, 5_000) == (job.max_attempts, job.timeout_ms)


async def test_limits_that_the_code_declares_are_told_to_the_queue(bench: Bench):
    async def nothing(ctx) -> None: ...

    bench.handler(
        "nothing", nothing, rate={"limit": 100, "per": "1m", "burst": 5}, concurrency=3, breaker=True
    )
    bench.work()
    await bench.ended(await bench.enqueue("nothing"))

    declared = TypePolicy(rate=Rate(100, 60_000, 5), concurrency=3, breaker=Breaker())
    assert (TypePolicy(), declared) == (await bench.store.types(QUEUE))["nothing"]


async def test_a_queue_that_was_obliterated_hears_anew_what_the_code_declares(bench: Bench):
    async def nothing(ctx) -> None: ...

    bench.handler("nothing", nothing, retry=Retry(max_attempts=7), timeout="5s")
    bench.handler("other", nothing)
    worker = bench.work()
    await bench.ended(await bench.enqueue("nothing"))
    await bench.store.obliterate(QUEUE)

    await declare_anew(bench.store, QUEUE, worker.handlers)
    assert [] == await bench.store.queues()
    job = await bench.ended(await bench.enqueue("nothing"))
    await declare_anew(bench.store, QUEUE, worker.handlers)

    assert 7 == (await bench.store.job(QUEUE, job.id.partition(":")[2])).max_attempts
    version = (await bench.store.census(QUEUE)).version
    await declare_anew(bench.store, QUEUE, worker.handlers)
    assert version == (await bench.store.census(QUEUE)).version


async def test_a_permanent_error_is_dead_at_once(bench: Bench):
    async def refuse(ctx) -> None:
        raise Permanent("no such mailbox")

    bench.handler("refuse", refuse)
    bench.work()
    job = await bench.ended(await bench.enqueue("refuse"))

    assert (State.DEAD, "permanent", 1) == (job.state, job.reason, job.attempt)


async def test_retry_after_sets_the_delay(bench: Bench):
    async def later(ctx) -> None:
        raise RetryAfter(60)

    bench.handler("later", later)
    bench.work()
    key = await bench.enqueue("later")
    await bench.until(lambda: _is(bench, key, State.RETRYING))
    job = await bench.job(key)

    assert 59_000 <= (job.run_at or 0) - job.errors[0].at_ms <= 60_000
    assert "retry in 60.0 s" == job.errors[0].next


@pytest.mark.parametrize("scope", ["type", "group"])
async def test_retry_after_may_slow_a_type_or_a_group(bench: Bench, scope):
    async def slowed(ctx, fail: bool) -> None:
        if fail:
            raise RetryAfter(60, scope=scope)

    async def free(ctx) -> None: ...

    bench.handler("slowed", slowed)
    bench.handler("free", free)
    bench.work()
    key = await bench.enqueue("slowed", b'{"fail": true}', group="g")
    await bench.until(lambda: _is(bench, key, State.RETRYING))
    held = await bench.enqueue("slowed", b'{"fail": false}', group="g")
    assert State.SUCCEEDED is (await bench.ended(await bench.enqueue("free"))).state

    assert (State.READY, 0) == ((await bench.job(held)).state, (await bench.job(held)).attempt)


async def test_a_snooze_uses_no_attempt(bench: Bench):
    async def sleepy(ctx) -> int:
        if len(seen) < 2:
            seen.append(ctx.attempt)
            ctx.snooze(0.1)
        return int(ctx.attempt)

    seen: list[int] = []
    bench.handler("sleepy", sleepy)
    bench.work()
    job = await bench.ended(await bench.enqueue("sleepy"))

    assert ([1, 1], b"1", 2, ()) == (seen, job.result, job.snoozes, job.errors)


async def test_a_timeout_stops_the_handler_and_is_no_crash(bench: Bench):
    stopped = asyncio.Event()

    async def slow(ctx) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()

    bench.handler("slow", slow)
    bench.work()
    job = await bench.ended(await bench.enqueue("slow", timeout_ms=200, retry={"max_attempts": 1}))

    assert stopped.is_set()
    assert (State.DEAD, "attempts", 0, "TimeoutError") == (
        job.state,
        job.reason,
        job.crashes,
        job.errors[0].kind,
    )


async def test_a_deadline_stops_the_handler_and_there_is_no_further_attempt(bench: Bench):
    seen = []

    async def slow(ctx) -> None:
        seen.append(ctx.deadline.timestamp() * 1000)
        await asyncio.sleep(60)

    bench.handler("slow", slow)
    bench.work()
    job = await bench.ended(await bench.enqueue("slow", deadline_in_ms=300, timeout_ms=60_000))

    assert [job.deadline_ms] == [round(at) for at in seen]
    assert (State.DEAD, "deadline", 0, 1) == (job.state, job.reason, job.crashes, job.attempt)
    assert [("DeadlineExceeded", "dead: deadline")] == [(error.kind, error.next) for error in job.errors]


async def test_a_job_that_expires_while_all_slots_are_taken_never_runs(bench: Bench):
    free = asyncio.Event()
    ran = []

    async def slow(ctx) -> None:
        ran.append(ctx.id)
        await free.wait()

    bench.handler("slow", slow)
    bench.work(concurrency=1)
    await bench.enqueue("slow")
    await bench.until(lambda: len(ran) == 1)
    late = await bench.ended(await bench.enqueue("slow", expires_in_ms=50))
    free.set()

    assert (State.CANCELLED, "expired", 1) == (late.state, late.reason, len(ran))


async def test_a_type_without_a_handler_waits_for_somebody_who_has_one(bench: Bench):
    bench.handler("other", _nothing)
    bench.work()
    key = await bench.enqueue("unknown")
    await bench.until(lambda: _is(bench, key, State.SCHEDULED))
    job = await bench.job(key)

    assert (0, ()) == (job.attempt, job.errors)


async def test_a_type_that_nobody_takes_is_dead_by_no_handler(bench: Bench):
    bench.handler("other", _nothing)
    bench.work(no_handler_after_ms=0)
    job = await bench.ended(await bench.enqueue("unknown"))

    assert (State.DEAD, "no_handler", "NoHandler") == (job.state, job.reason, job.errors[0].kind)


@pytest.mark.parametrize("payload", [b"[]", b"{}", b'{"n": "x"}', b'{"n": 1, "m": 2}', b'{"n": 1'])
async def test_a_payload_that_does_not_fit_is_dead_at_once(bench: Bench, payload: bytes):
    async def count(ctx, n: int) -> None: ...

    bench.handler("count", count)
    bench.work()
    job = await bench.ended(await bench.enqueue("count", payload))

    assert (State.DEAD, "bad_payload", "BadPayload") == (job.state, job.reason, job.errors[0].kind)


async def test_a_damaged_payload_is_dead_by_corrupt(bench: Bench):
    bench.handler("nothing", _nothing)
    key = await bench.enqueue("nothing", b'{"a":1}')
    jobs = f"{{scheduler:{QUEUE}}}:jobs"
    redis: Any = bench.store.clients.commands
    record = await redis.hget(jobs, key)
    await redis.hset(jobs, key, record.replace(b'"a":1', b'"a":3'))
    bench.work()
    job = await bench.ended(key)

    assert (State.DEAD, "corrupt") == (job.state, job.reason)


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (object(), "ResultInvalid"),
        (float("nan"), "ResultInvalid"),
        ({"a": [float("inf")]}, "ResultInvalid"),
        ("x" * 2_000, "ResultTooLarge"),
    ],
)
async def test_a_result_that_cannot_be_kept_is_permanent(bench: Bench, result: Any, kind: str):
    async def bad(ctx) -> Any:
        return result

    bench.handler("bad", bad)
    bench.work(max_result=1_000)
    job = await bench.ended(await bench.enqueue("bad"))

    assert (State.DEAD, "permanent", kind) == (job.state, job.reason, job.errors[0].kind)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


@pytest.mark.parametrize(
    "error",
    [Unprintable(), ValueError("a\0b\nc\ud800"), ValueError("é" * 1_000_000)],
    ids=["broken", "odd", "long"],
)
async def test_an_error_that_can_hardly_be_stored_is_stored(bench: Bench, error: Exception):
    async def fail(ctx) -> None:
        raise error

    bench.handler("fail", fail)
    bench.work()
    job = await bench.ended(await bench.enqueue("fail", retry={"max_attempts": 1}))

    assert State.DEAD == job.state
    assert 0 < len(job.errors[0].message.encode()) <= 66_000


async def test_a_circle_of_causes_ends(bench: Bench):
    async def fail(ctx) -> None:
        one, two = ValueError("one"), ValueError("two")
        one.__cause__, two.__cause__ = two, one
        raise one

    bench.handler("fail", fail)
    bench.work()

    assert State.DEAD == (await bench.ended(await bench.enqueue("fail", retry={"max_attempts": 1}))).state


async def test_progress_log_and_checkpoint_are_kept(bench: Bench):
    async def talk(ctx) -> Any:
        if ctx.attempt == 1:
            ctx.progress({"step": 1})
            ctx.log("begun")
            ctx.checkpoint([1, 2])
            raise ValueError("again")
        return ctx.checkpointed

    bench.handler("talk", talk)
    bench.work()
    job = await bench.ended(await bench.enqueue("talk"))
    redis: Any = bench.store.clients.commands
    lines = await redis.zrange(f"{{scheduler:{QUEUE}}}:logs", 0, -1)

    assert (b"[1,2]", b'{"step":1}') == (job.result, job.progress)
    assert [b"begun"] == [line.split(b" ", 2)[2] for line in lines]


async def test_no_more_run_at_once_than_there_are_slots(bench: Bench):
    now, most = 0, 0

    async def count(ctx) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1

    bench.handler("count", count)
    keys = [await bench.enqueue("count") for _ in range(20)]
    bench.work(concurrency=4)
    for key in keys:
        await bench.ended(key)

    assert 4 == most


async def test_a_running_job_that_is_cancelled_stops_and_stays_cancelled(bench: Bench):
    started = asyncio.Event()

    async def long(ctx) -> None:
        started.set()
        await asyncio.sleep(60)

    bench.handler("long", long)
    bench.work()
    key = await bench.enqueue("long")
    await started.wait()

    assert ["running"] == await bench.store.cancel(QUEUE, [key])
    job = await bench.ended(key)
    assert (State.CANCELLED, "asked") == (job.state, job.reason)


async def test_a_cancelled_handler_that_finishes_all_the_same_has_succeeded(bench: Bench):
    started = asyncio.Event()

    async def stubborn(ctx) -> str:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "done all the same"
        return ""

    bench.handler("stubborn", stubborn)
    bench.work()
    key = await bench.enqueue("stubborn")
    await started.wait()
    await bench.store.cancel(QUEUE, [key])

    assert State.SUCCEEDED == (await bench.ended(key)).state


async def test_a_handler_that_swallows_its_cancellation_gives_its_slot_back(bench: Bench, monkeypatch):
    monkeypatch.setattr("scheduler.fetcher.ABANDON_AFTER", 0.2)
    free = asyncio.Event()

    async def deaf(ctx) -> None:
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue

    bench.handler("deaf", deaf)
    bench.handler("nothing", _nothing)
    worker = bench.work(concurrency=1)
    key = await bench.enqueue("deaf", timeout_ms=100, retry={"max_attempts": 1})
    other = await bench.enqueue("nothing")

    assert State.SUCCEEDED == (await bench.ended(other)).state
    assert ("TimeoutError", 1) == ((await bench.ended(key)).errors[0].kind, worker.crew.abandoned)
    free.set()


async def test_an_idle_worker_starts_a_new_job_at_once(bench: Bench):
    bench.handler("nothing", _nothing)
    bench.work()
    await bench.ended(await bench.enqueue("nothing"))
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await bench.ended(await bench.enqueue("nothing"))

    # Without the bell it would be the timer's 4 to 6 s.
    assert time.monotonic() - began < 2


async def test_a_delayed_job_is_neither_early_nor_late(bench: Bench):
    bench.handler("nothing", _nothing)
    bench.work()
    job = await bench.ended(await bench.enqueue("nothing", delay_ms=700))

    assert 700 <= (job.started_at or 0) - job.created_at <= 700 + 1_100


async def test_a_job_longer_than_its_lease_runs_once(bench: Bench):
    starts = []

    async def long(ctx) -> None:
        starts.append(ctx.token)
        await asyncio.sleep(4)

    bench.handler("long", long)
    bench.work()
    job = await bench.ended(await bench.enqueue("long"))

    assert (1, 1, 0) == (len(starts), job.attempt, job.crashes)


async def test_a_handler_that_blocks_the_loop_keeps_its_lease(bench: Bench):
    async def block(ctx) -> None:
        time.sleep(3.2)  # noqa: ASYNC251 - that is the point

    bench.handler("block", block)
    bench.work()
    job = await bench.ended(await bench.enqueue("block"), 15)

    assert (State.SUCCEEDED, 1, 0) == (job.state, job.attempt, job.crashes)


async def _nothing(ctx) -> None: ...


async def _is(bench: Bench, key: str, state: State) -> bool:
    return (await bench.job(key)).state is state

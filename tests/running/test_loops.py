"""No exception ends a loop of a process, and none of its troubles goes unsaid or is said over and over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest
from structlog.contextvars import merge_contextvars

from scheduler import logs
from scheduler.errors import StoreUnavailable
from scheduler.heartbeat import LOOP_DEAD
from scheduler.tasks import Pulse, cancel_all, forever, wait_or_raise
from tests.running.conftest import Bench


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """What the loops have logged, without numbers."""
    former = logs._processors[:]
    logs._processors[:] = [merge_contextvars, logs._hand_over]
    caplog.set_level("INFO")
    yield lambda: [
        f"{record.levelname} {record.getMessage().split(' seconds=')[0]}"
        for record in caplog.records
        if record.name == "scheduler.tasks"
    ]
    logs._processors[:] = former


async def walk(pulse: Pulse, *outcomes: Exception | None) -> int:
    """Takes a step for each outcome, and answers how many were taken."""
    taken = 0

    async def step() -> float:
        nonlocal taken
        taken += 1
        if (error := outcomes[taken - 1]) is not None:
            raise error
        return 0.001

    await forever(pulse, step, done=lambda: taken == len(outcomes))
    return taken


async def test_a_loop_outlives_every_exception_and_says_each_kind_once(said):
    odd = [KeyError("a"), KeyError("b"), ValueError("c"), KeyError("d")]

    assert 6 == await walk(Pulse("bell", longest=0.002), None, *odd, None)
    assert [
        "ERROR failed, and is tried again loop=bell",
        "ERROR failed, and is tried again loop=bell",
        "INFO works again loop=bell",
    ] == said()


async def test_trouble_that_is_usual_is_said_when_it_lasts(said):
    pulse = Pulse("bell", patience=0.05, longest=0.02)
    await walk(pulse, StoreUnavailable("away"), None)
    assert [] == said()
    await walk(pulse, *[StoreUnavailable("away")] * 20, None, None)

    assert [
        "WARNING fails, and is tried again loop=bell error=away",
        "INFO works again loop=bell",
    ] == said()


async def test_a_pulse_knows_when_it_last_went_well():
    pulse = Pulse("bell", longest=0.01)
    await walk(pulse, None)
    at = pulse.succeeded_at
    await walk(pulse, StoreUnavailable("away"), StoreUnavailable("away"))

    assert (at, True) == (pulse.succeeded_at, pulse.in_trouble)
    await walk(pulse, None)
    assert pulse.succeeded_at > at
    assert not pulse.in_trouble


async def test_pauses_grow_to_a_bound_and_differ():
    pulse = Pulse("bell")
    pauses = [pulse.failed(StoreUnavailable("away")) for _ in range(30)]

    assert pauses[0] <= 0.05
    assert all(0.5 <= pause <= 1.0 for pause in pauses[6:])
    assert len(set(pauses)) > 20
    pulse.well()
    assert pulse.failed(StoreUnavailable("away")) <= 0.05


async def test_a_cancellation_that_becomes_another_error_ends_the_loop_all_the_same():
    waiting = asyncio.Event()

    async def step() -> None:
        waiting.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ConnectionError("as redis-py makes of it") from None

    task = asyncio.create_task(forever(Pulse("bell"), step))
    await waiting.wait()
    task.cancel()
    async with asyncio.timeout(2):
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_cancellation_of_something_else_does_not_end_the_loop():
    taken = 0

    async def step() -> None:
        nonlocal taken
        taken += 1
        if taken == 1:
            other = asyncio.ensure_future(asyncio.sleep(60))
            other.cancel()
            await other

    await forever(Pulse("bell"), step, done=lambda: taken == 2)
    assert 2 == taken


async def test_a_loop_that_ends_by_itself_is_a_fault():
    async def ends(error: BaseException | None) -> None:
        if error is not None:
            raise error

    async def lasts() -> None:
        await asyncio.sleep(60)

    for error, told in (
        (OSError("gone"), "gone"),
        (None, "fetch has ended by itself"),
        (asyncio.CancelledError(), "fetch has"),
    ):
        loops = [asyncio.create_task(lasts()), asyncio.create_task(ends(error), name="fetch")]
        with pytest.raises((OSError, RuntimeError), match=told):
            await wait_or_raise(asyncio.Event(), loops)
        await cancel_all(loops)


async def test_the_end_that_was_asked_for_is_none():
    stop = asyncio.Event()
    loop = asyncio.create_task(stop.wait())
    stop.set()
    await wait_or_raise(stop, [loop])


@pytest.mark.parametrize("backend", ("fake", "valkey"), indirect=True)
async def test_a_fetcher_goes_on_after_an_error_outside_its_turn(bench: Bench, monkeypatch):
    ran: list[str] = []

    async def work(ctx) -> None:
        ran.append(ctx.id)

    bench.handler("work", work)
    real = bench.doorbell.wait
    failed: list[bool] = []

    async def odd(queue: str, seconds: float, **options: Any) -> Any:
        if not failed:
            failed.append(True)
            raise RuntimeError("something nobody thought of")
        return await real(queue, seconds, **options)

    monkeypatch.setattr(bench.doorbell, "wait", odd)
    bench.work()
    await bench.until(lambda: failed)
    key = await bench.enqueue("work")

    assert 1 == (await bench.ended(key)).attempt


@pytest.mark.parametrize("backend", ("valkey",), indirect=True)
async def test_leases_are_held_again_soon_after_the_loop_turns_again(bench: Bench, monkeypatch):
    worker = bench.work(lease_ms=9_000)
    await bench.until(lambda: worker.heartbeat._thread)
    monkeypatch.setattr(worker.heartbeat, "loop_turned", lambda: None)
    worker.heartbeat._turned = monotonic() - LOOP_DEAD - 1
    await bench.until(lambda: worker.heartbeat._loop_stands)
    worker.heartbeat._turned = began = monotonic()

    await bench.until(lambda: worker.heartbeat.pulse.succeeded_at > began, 1)


async def test_who_is_cancelled_again_while_it_ends_its_tasks_leaves_none_behind():
    async def stubborn() -> None:
        for _ in range(3):  # as redis-py does it: a cancellation that becomes something else
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    async def parent(child: asyncio.Task[None]) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await cancel_all([child])

    child = asyncio.create_task(stubborn())
    task = asyncio.create_task(parent(child))
    await asyncio.sleep(0)
    await cancel_all([task])

    assert task.cancelled()
    assert child.done()

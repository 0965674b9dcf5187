"""Exceptions of every kind: they end their own attempt, and nothing else."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from scheduler.attempt import begin_attempt, contain_tasks
from scheduler.cli.common import run
from scheduler.errors import HandlerFailed, Permanent, RetryAfter
from scheduler.failures import failure_of
from scheduler.handlers import RunMiddleware
from scheduler.job import State
from scheduler.retry import Retry
from tests.running import jobs_in_processes as elsewhere
from tests.running.conftest import Bench
from tests.running.nasty import NASTY, Forgetful

pytestmark = pytest.mark.parametrize("backend", ("fake",), indirect=True)
ONCE = Retry(max_attempts=1)


def raiser(name: str, how: str) -> Any:
    def plain(ctx) -> None:
        raise NASTY[name]()  # noqa: RSE102

    async def direct(ctx) -> None:
        raise NASTY[name]()  # noqa: RSE102

    async def fails() -> None:
        raise NASTY[name]()  # noqa: RSE102

    async def group(ctx) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fails())

    async def task(ctx) -> None:
        await asyncio.create_task(fails())

    return {"thread": plain, "async": direct, "group": group, "task": task}[how]


@pytest.mark.parametrize("how", ["thread", "async", "group", "task"])
async def test_no_exception_of_a_handler_ends_more_than_its_attempt(bench: Bench, how: str):
    started = asyncio.Event()

    async def neighbour(ctx) -> str:
        started.set()
        await asyncio.sleep(0.2)
        return "done"

    for name in NASTY:
        bench.handler(name, raiser(name, how), retry=ONCE, timeout=5)
    bench.handler("neighbour", neighbour)
    beside = await bench.enqueue("neighbour")
    worker = bench.work(concurrency=50)
    await started.wait()
    keys = {name: await bench.enqueue(name) for name in NASTY}
    ended = {name: (await bench.ended(key)).state for name, key in keys.items()}

    # A task group lets a member go that cancels itself: its handler succeeds.
    expected = dict.fromkeys(NASTY, State.DEAD) | ({"cancelled": State.SUCCEEDED} if how == "group" else {})
    assert expected == ended
    assert State.SUCCEEDED == (await bench.ended(beside)).state
    assert [False] == [task.done() for other, task in bench.workers if other is worker]


async def test_no_exception_of_a_middleware_or_a_converter_ends_more_than_its_attempt(bench: Bench):
    async def around(ctx, call_next) -> Any:
        raise NASTY[ctx.type]()  # noqa: RSE102

    async def work(ctx) -> None: ...

    async def converts(ctx, value: elsewhere.Exits) -> None: ...

    for name in NASTY:
        bench.handler(name, work, retry=ONCE)
    bench.handler("converts", converts, retry=ONCE)
    bench.handlers.middleware.append(RunMiddleware(around))
    bench.work(concurrency=50)
    keys = [await bench.enqueue(name) for name in NASTY]
    keys.append(await bench.enqueue("converts", b'{"value": {"name": "x"}}'))

    assert [State.DEAD] * len(keys) == [(await bench.ended(key)).state for key in keys]


async def test_no_exception_in_a_process_ends_more_than_its_attempt(bench: Bench):
    bench.handler("nasty", elsewhere.nasty, process=True, retry=ONCE, timeout=30)
    bench.work(concurrency=1)
    keys = [await bench.enqueue("nasty", b'{"name": "%s"}' % name.encode()) for name in NASTY]
    jobs = [await bench.ended(key, 60) for key in keys]

    assert [State.DEAD] * len(keys) == [job.state for job in jobs]
    # One process has borne them all.
    assert [] == [job.errors[-1].kind for job in jobs if job.errors[-1].kind == "ProcessDied"]


def test_what_is_said_of_an_exception_is_always_text_that_can_be_sent(backend):
    for make in NASTY.values():
        failed = failure_of(make())

        for text in (failed.kind, failed.message, failed.trace, failed.where):
            assert type(text) is str
            text.encode()
        assert failed.kind
        assert len(failed.kind) <= 200


def test_a_delay_that_is_none_is_left_out(backend):
    assert ("nack", None) == (failure_of(Forgetful()).verb, failure_of(Forgetful()).seconds)
    for seconds in (float("nan"), -1, 10**9, "soon", None):
        error = RetryAfter(1)
        error.seconds = seconds  # type: ignore[assignment]
        assert failure_of(error).seconds is None


@pytest.mark.parametrize(
    ("leaves", "said"),
    [
        ([RetryAfter(5), RetryAfter(60)], ("nack", 60, "RetryAfter")),
        ([ValueError("a"), Permanent("b"), ValueError("c")], ("bury", None, "Permanent")),
        ([ValueError("a"), ValueError("b")], ("nack", None, "ValueError")),
        ([ValueError("a"), KeyError("b")], ("nack", None, "ExceptionGroup")),
        ([ValueError("a"), RetryAfter(5)], ("nack", None, "ExceptionGroup")),
        ([ExceptionGroup("inner", [KeyError("a")]), KeyError("b")], ("nack", None, "KeyError")),
    ],
    ids=str,
)
def test_a_group_of_one_kind_is_its_member_and_permanent_wins(backend, leaves, said):
    failed = failure_of(ExceptionGroup("unhandled errors in a TaskGroup", leaves))

    assert said == (failed.verb, failed.seconds, failed.kind)


async def test_a_snooze_in_a_task_group_is_a_snooze(bench: Bench):
    async def work(ctx) -> None:
        async def later() -> None:
            ctx.snooze(60)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(later())

    bench.handler("work", work)
    key = await bench.enqueue("work")
    bench.work()

    async def snoozed() -> bool:
        return (await bench.job(key)).state is State.SCHEDULED

    await bench.until(snoozed)
    assert 0 == (await bench.job(key)).attempt


@pytest.mark.parametrize("how", ["thread", "async"])
async def test_a_stored_trace_begins_with_the_users_code_and_has_no_cause_of_ours(bench: Bench, how: str):
    try:
        raise ImportError("uvloop")
    except ImportError:
        bench.handler("work", raiser("value", how), retry=ONCE)
        key = await bench.enqueue("work")
        bench.work()
        [error] = (await bench.ended(key)).errors

    assert error.trace is not None
    lines = error.trace.splitlines()
    assert "Traceback (most recent call last):" == lines[0]
    assert "test_nasty_errors.py" in lines[1]
    assert "uvloop" not in error.trace
    assert "/scheduler/" not in error.trace.replace("/tests/", "")


def test_a_callback_that_exits_does_not_end_the_worker(backend, caplog):
    async def work() -> str:
        loop = asyncio.get_running_loop()
        contain_tasks(loop)
        for _ in range(3):
            loop.call_soon(sys.exit, 3)
            await asyncio.sleep(0.01)
        return "went on"

    assert "went on" == run(work())
    assert 3 == caplog.text.count("a callback of a handler raised SystemExit")


def test_a_command_exits_when_it_says_so(backend):
    async def work() -> None:
        sys.exit(3)

    async def calls_back() -> None:
        asyncio.get_running_loop().call_soon(sys.exit, 4)
        await asyncio.sleep(1)

    for ends, status in ((work(), 3), (calls_back(), 4)):
        with pytest.raises(SystemExit) as ended:
            run(ends)
        assert status == ended.value.code


def test_what_a_task_of_a_handler_raised_is_shown_where_it_was_raised(backend):
    async def leaves() -> None:
        sys.exit(3)

    async def work() -> None:
        begin_attempt("mail", "1", "work", 1)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(leaves())

    async def fails() -> HandlerFailed:
        contain_tasks(asyncio.get_running_loop())
        try:
            await asyncio.create_task(work())
        except BaseException as error:  # noqa: BLE001 - it is looked at
            return failure_of(error)
        raise AssertionError

    failed = asyncio.run(fails())
    assert ("SystemExit", "3") == (failed.kind, failed.message)
    assert failed.where.startswith("tests/running/test_nasty_errors.py:")
    assert failed.where.endswith(" in leaves")
    assert "attempt.py" not in failed.trace

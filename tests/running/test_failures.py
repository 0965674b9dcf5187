"""Failures are said, and no exception of a handler, whatever it does when it is looked at, ends more than its attempt."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest

from scheduler import Context
from scheduler.errors import Permanent, RetryAfter, Snooze
from scheduler.failures import failure_of
from scheduler.handlers import make_handler
from scheduler.job import State
from scheduler.notes import MOST_LINES, Notes
from scheduler.outcomes import Note
from scheduler.retry import Retry
from tests.running.conftest import Bench

if TYPE_CHECKING:
    from decimal import Decimal

on_valkey = pytest.mark.parametrize("backend", ("valkey",), indirect=True)
on_both = pytest.mark.parametrize("backend", ("fake", "valkey"), indirect=True)


class EvilText(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class EvilRepr(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__


class NoInit(RetryAfter):
    def __init__(self) -> None:  # without that of its base: it has no seconds
        Exception.__init__(self, "later")


class OddSeconds(RetryAfter):
    def __init__(self) -> None:
        Exception.__init__(self, "later")
        self.seconds, self.scope = float("nan"), ["type"]  # type: ignore[assignment]


class Meta(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no name")


class Nameless(Exception, metaclass=Meta):
    pass


class EvilNotes(Exception):
    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]
        raise GeneratorExit


class EvilEq(Exception):
    def __eq__(self, other: object) -> bool:
        raise SystemExit

    __hash__ = Exception.__hash__


class BareSnooze(Snooze):
    def __init__(self) -> None:
        BaseException.__init__(self)


NASTY: list[Any] = [
    KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration, StopAsyncIteration, MemoryError, EvilText, EvilRepr, NoInit,
    OddSeconds, Nameless, EvilNotes, EvilEq, BareSnooze, asyncio.CancelledError, type("a|b\nc", (Exception,), {}),
    functools.partial(BaseExceptionGroup, "several", [KeyboardInterrupt(), SystemExit()]),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(NASTY)))
def test_any_exception_can_be_judged(number):
    failed = failure_of(NASTY[number]())

    assert failed.verb in {"nack", "release"}
    assert isinstance(failed.message, str)


@on_both
async def test_no_exception_ends_more_than_its_attempt(bench: Bench):
    async def in_the_loop(ctx, n: int) -> None:
        raise NASTY[n]()  # noqa: RSE102 - some are functions

    def in_a_thread(ctx, n: int) -> None:
        raise NASTY[n]()  # noqa: RSE102 - some are functions

    async def calm(ctx) -> str:
        return "calm"

    once = Retry(max_attempts=1)
    bench.handler("loop", in_the_loop, retry=once)
    bench.handler("thread", in_a_thread, retry=once)
    bench.handler("calm", calm)
    bench.work()
    nasty = [
        await bench.enqueue(kind, b'{"n": %d}' % n) for kind in ("loop", "thread") for n in range(len(NASTY))
    ]
    calm_ones = [await bench.enqueue("calm") for _ in range(5)]

    for key in calm_ones:
        assert State.SUCCEEDED == (await bench.ended(key)).state

    async def settled() -> bool:
        return State.RUNNING not in [(await bench.job(key)).state for key in nasty]

    await bench.until(settled)
    states = {(await bench.job(key)).state for key in nasty}
    assert states <= {State.DEAD, State.SCHEDULED, State.READY}
    assert State.SUCCEEDED == (await bench.ended(await bench.enqueue("calm"))).state


def group(*errors: BaseException) -> BaseExceptionGroup[BaseException]:
    return BaseExceptionGroup("tasks", [BaseExceptionGroup("inner", list(errors))])


def test_a_group_of_one_kind_is_its_leaf_and_permanent_wins():
    assert ("nack", 8.0, "RetryAfter") == _verdict(group(RetryAfter(7), RetryAfter(8)))
    assert ("release", 3.0, "") == _verdict(group(Snooze(3)))
    assert ("bury", None, "Permanent") == _verdict(group(ValueError("x"), Permanent("no")))
    assert ("nack", None, "ValueError") == _verdict(group(ValueError("a"), ValueError("b")))
    assert ("nack", None, "ExceptionGroup") == _verdict(group(ValueError("a"), KeyError("b")))


def _verdict(error: BaseException) -> tuple[str, float | None, str]:
    failed = failure_of(error)
    return failed.verb, failed.seconds, failed.kind


@on_valkey
async def test_a_failure_a_death_and_a_missing_handler_are_said(bench: Bench, caplog):
    caplog.set_level(logging.DEBUG, "scheduler")
    dead: list[tuple[str, str | None]] = []

    async def flaky(ctx, how: str) -> None:
        if how == "permanent":
            raise Permanent("no such mailbox")
        raise ValueError("boom")

    def hook(job: Any) -> None:
        dead.append((job.id, job.reason))
        raise RuntimeError("the hook is broken, and changes nothing")

    async def later(job: Any) -> None:
        dead.append((job.id, job.errors[-1].kind))

    bench.handlers.on_dead += [hook, later]
    bench.handler("flaky", flaky, retry=Retry(max_attempts=3, immediate=1, base=0.05, jitter=0))
    bench.work()
    first = await bench.enqueue("flaky", b'{"how": "raise"}')
    second = await bench.enqueue("flaky", b'{"how": "permanent"}')
    for key in (first, second):
        assert State.DEAD == (await bench.ended(key)).state
    for _ in range(2):
        await bench.enqueue("unknown")
    await bench.until(lambda: len(dead) == 4 and "no handler" in caplog.text)

    def lines(event: str) -> list[str]:
        return [one.getMessage() for one in caplog.records if one.getMessage().startswith(event)]

    failures = lines("an attempt failed")
    assert 2 == len(failures)
    assert f"job=mail:{first} type=flaky attempt=1 kind=ValueError message=boom" in failures[0]
    assert 'where="tests/running/test_failures.py:' in failures[0]
    assert failures[0].endswith('in flaky" next="retry at once"')
    assert 'next="retry in 0.' in failures[1]
    deaths = {line.split("reason=")[1].split()[0]: line for line in lines("a job is dead")}
    assert {"attempts", "permanent"} == set(deaths)
    assert f"job=mail:{first} type=flaky attempt=3 kind=ValueError" in deaths["attempts"]
    assert 1 == len(lines("no handler for a type"))
    assert sorted([
        (f"mail:{first}", "attempts"), (f"mail:{first}", "ValueError"),
        (f"mail:{second}", "permanent"), (f"mail:{second}", "Permanent"),
    ]) == sorted(dead)  # fmt: skip


@on_valkey
async def test_records_of_a_handler_name_its_job(bench: Bench, caplog):
    caplog.set_level(logging.INFO)

    async def talk(ctx) -> None:
        from scheduler.logs import get_logger  # noqa: PLC0415

        get_logger("scheduler.shop").info("from the loop")

    def shout(ctx) -> None:
        from scheduler.logs import get_logger  # noqa: PLC0415

        get_logger("scheduler.shop").info("from a thread")

    bench.handler("talk", talk)
    bench.handler("shout", shout)
    bench.work()
    for kind, said in (("talk", "from the loop"), ("shout", "from a thread")):
        key = await bench.enqueue(kind)
        await bench.ended(key)
        [line] = [one.getMessage() for one in caplog.records if said in one.getMessage()]
        assert f"{said} job=mail:{key} type={kind} attempt=1" == line


@on_valkey
async def test_a_trace_has_no_frames_of_ours(bench: Bench):
    async def boom(ctx) -> None:
        raise ValueError("x")

    bench.handler("boom", boom, retry=Retry(max_attempts=1))
    bench.work()
    job = await bench.ended(await bench.enqueue("boom"))

    trace = job.errors[0].trace or ""
    assert trace.startswith("Traceback (most recent call last):\n")
    assert "execute.py" not in trace
    assert ", in boom\n" in trace


# -- what is pending of a handler -------------------------------------------------------------------------------------


def note(field: str, value: bytes, seq: int = 0, token: int = 1) -> Note:
    return Note("a", token, field, value, seq)


def test_only_the_newest_progress_and_checkpoint_are_pending_and_lines_are_bounded():
    notes = Notes()
    for n in range(65_000):
        notes.append(note("log", b"line %d" % n, n + 1))
        notes.append(note("progress", b"%d" % n))
    notes.append(note("checkpoint", b"1"))
    notes.append(note("checkpoint", b"2"))
    taken = notes.take()

    assert len(taken) < 2 * MOST_LINES + 3
    lines = [one.value for one in taken if isinstance(one, Note) and one.field == "log"]
    assert [b"line %d" % n for n in range(65_000 - MOST_LINES, 65_000)] == lines[-MOST_LINES:]
    rest = [(one.field, one.value) for one in taken if isinstance(one, Note) and one.field != "log"]
    assert [("progress", b"64999"), ("checkpoint", b"2")] == rest
    assert 0 == len(notes)


def test_what_is_put_back_comes_before_newer_notes_which_replace_it():
    notes = Notes()
    notes.append(note("progress", b"1"))
    notes.append(note("log", b"first", 1))
    taken = notes.take()
    notes.append(note("progress", b"2"))
    notes.append(note("log", b"second", 2))
    notes.put_back(taken)

    assert [b"first", b"2", b"second"] == [one.value for one in notes.take() if isinstance(one, Note)]


@on_valkey
async def test_a_loop_of_log_and_progress_does_not_hold_the_worker(bench: Bench):
    def rows(ctx, count: int) -> int:
        for n in range(count):
            ctx.log(f"row {n}")
            ctx.progress(n)
        return count

    bench.handler("rows", rows)
    worker = bench.work()
    key = await bench.enqueue("rows", b'{"count": 20000}')
    longest, before = 0.0, time.monotonic()
    while (await bench.job(key)).state != State.SUCCEEDED:
        await asyncio.sleep(0.01)
        now = time.monotonic()
        longest, before = max(longest, now - before), now

    assert longest < 5  # it was 16.8 s, beyond the lease of every job of the process
    assert 0 == len(worker.fetchers["mail"].notes)


@on_valkey
async def test_what_is_too_large_is_refused_where_it_is_said(bench: Bench):
    async def tell(ctx) -> list[str]:
        said = []
        for call in (ctx.progress, ctx.checkpoint):
            try:
                call("x" * 2_000_000)
            except ValueError as error:
                said.append(str(error))
        return said

    bench.handler("tell", tell)
    bench.work()
    job = await bench.ended(await bench.enqueue("tell"))

    assert job.result is not None
    assert b"progress has at most 65536 bytes, this one has 2000002" in job.result
    assert b"a checkpoint has at most 1048576 bytes" in job.result


# -- callables of every kind ------------------------------------------------------------------------------------------


class Callable_:  # noqa: N801
    async def __call__(self, ctx, n: int) -> int:
        return n + 1


@on_valkey
async def test_the_outermost_callable_decides_and_what_can_be_awaited_is(bench: Bench):
    async def inner(ctx, n: int) -> int:
        return n

    @functools.wraps(inner)
    def with_own_loop(ctx, n: int) -> int:
        return asyncio.run(inner(ctx, n)) + 10

    @functools.wraps(inner)
    def gives_a_coroutine(ctx, n: int) -> Any:
        return inner(ctx, n)

    async def three(ctx, add: int, n: int) -> int:
        return n + add

    bench.handler("wrapped", with_own_loop)
    bench.handler("coroutine", gives_a_coroutine)
    bench.handler("object", Callable_())
    bench.handler("partial", functools.partial(three, add=100))
    bench.work()

    for kind, expected in (("wrapped", b"11"), ("coroutine", b"1"), ("object", b"2"), ("partial", b"101")):
        job = await bench.ended(await bench.enqueue(kind, b'{"n": 1}'))
        assert (State.SUCCEEDED, expected) == (job.state, job.result), (kind, job.errors)


def test_a_generator_is_refused_by_name():
    def rows(ctx):
        yield 1

    async def more(ctx):
        yield 1

    class Rows:
        def __call__(self, ctx):
            yield 1

    class More:
        async def __call__(self, ctx):
            yield 1

    for function in (rows, more):
        with pytest.raises(ValueError, match=f"{function.__name__}, is a generator"):
            make_handler("rows", function)
    for hidden in (functools.partial(rows), Rows(), More(), functools.partial(functools.partial(More()))):
        with pytest.raises(ValueError, match="is a generator: a handler returns its result"):
            make_handler("rows", hidden)


def test_an_annotation_that_cannot_be_resolved_is_an_error_and_the_context_s_is_not_looked_at():
    def bad(ctx, amount: Decimal) -> None: ...

    def good(ctx: Nowhere, n: int) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ValueError, match=r"the annotation of amount of the handler of t cannot be resolved"):
        make_handler("t", bad)
    with pytest.raises(ValueError, match="does not fit"):
        make_handler("t", good).decode(b'{"n": "x"}')
    assert {"n": 1} == make_handler("t", good).decode(b'{"n": 1}')


def test_types_of_the_function_around_a_handler_are_known():
    class Shape(dict[str, int]):
        pass

    def handler(ctx: Context, shape: Shape | None = None) -> None: ...

    assert {"shape": None} == make_handler("t", handler).decode(b"{}")


def test_a_mutable_default_is_each_job_s_own():
    def handler(ctx, pages: list[int] = [], seen: dict[str, int] = {}) -> None: ...  # noqa: B006

    made = make_handler("t", handler)
    first = made.decode(b"{}")
    first["pages"].append(1)
    first["seen"]["a"] = 1

    assert {"pages": [], "seen": {}} == made.decode(b"{}")


@on_valkey
async def test_a_thread_is_told_that_its_time_is_over_and_keeps_its_slot(bench: Bench):
    at_once = []

    def slow(ctx) -> str:
        at_once.append(1)
        began = time.monotonic()
        while not ctx.cancelled and time.monotonic() - began < 10:
            time.sleep(0.01)
        time.sleep(0.5)
        at_once.pop()
        return "told" if time.monotonic() - began < 3 else "never"

    bench.handler("slow", slow, timeout=0.3, retry=Retry(max_attempts=1))
    bench.work(concurrency=1)
    most = 0
    keys = [await bench.enqueue("slow") for _ in range(3)]
    async with asyncio.timeout(20):
        while not all([(await bench.job(key)).state.ended for key in keys]):
            most = max(most, len(at_once))
            await asyncio.sleep(0.01)

    assert 1 == most
    for key in keys:
        job = await bench.job(key)
        assert ["TimeoutError"] == [error.kind for error in job.errors]

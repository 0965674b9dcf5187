"""What many tasks ask one by one goes out together, and each gets his own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from scheduler.errors import Duplicate, Invalid, StoreRefused, StoreUnavailable
from scheduler.job import LONGEST_DELAY_MS
from scheduler.joining import MOST_ITEMS, Call
from scheduler.store import Store
from tests.helpers import QUEUE, new, race, states_of

COUNT = {"enqueue": 1, "cancel": 3, "inspect": 2, "census": 0}
"""Where among its arguments a script is told how many items follow."""


class Counted(Store):
    """A store that keeps what it sends, and loses what it is told to lose."""

    lose: str = ""
    """Lose each pipeline "before" or "after" it was carried out, the first time it is sent; or "always"."""

    def watch(self) -> list[list[tuple[str, int]]]:
        """From now on: the calls of each pipeline, as script and number of items."""
        self.sent: list[list[tuple[str, int]]] = []
        return self.sent

    async def _send(self, calls: Sequence[Call[Any]], *, whole: bool = False) -> list[Any]:
        pipeline = [
            (call.script, int(call.args[COUNT[call.script]] or 0)) for call in calls if not call.plain
        ]
        lose = self.lose if self.lose == "always" or pipeline not in self.sent else ""
        self.sent.append(pipeline)
        if lose in {"before", "always"}:
            await asyncio.sleep(0)
            raise ConnectionResetError("lost before it arrived")
        replies = await super()._send(calls, whole=whole)
        if lose:
            raise ConnectionResetError("lost with its reply")
        return replies


@pytest.fixture
async def counted(store: Store) -> Counted:
    counted = Counted(store.clients, now=store._now)
    await counted.connect()
    counted.watch()
    return counted


async def test_the_first_goes_at_once_and_the_others_of_the_turn_together(counted):
    names = [f"job-{n}" for n in range(40)]
    await race(*(counted.enqueue_told(new(name)) for name in names))

    assert [[("enqueue", 1)], [("enqueue", 39)]] == counted.sent
    assert ["ready"] * 40 == await states_of(counted, *names)


async def test_each_gets_its_own_answer(counted):
    await counted.enqueue(QUEUE, [new("twice"), new("other")])
    first, same, other, late = await race(
        counted.enqueue_told(new("new", type="a", timeout_ms=5_000)),
        counted.enqueue_told(new("twice")),
        counted.enqueue_told(new("other", priority=3)),
        counted.enqueue_told(new("late", delay_ms=1_000, retry={"max_attempts": 9})),
        return_exceptions=True,
    )

    assert ("mail:new", "ready", 20, 5_000) == (first[0].id, first[0].outcome, first[1], first[2])
    assert ("mail:twice", "exists") == (same[0].id, same[0].outcome)
    assert isinstance(other, Duplicate)
    assert ("mail:late", "scheduled", 9) == (late[0].id, late[0].outcome, late[1])


async def test_a_call_is_closed_at_five_hundred_items(counted):
    await race(*(counted.enqueue_one(new(f"job-{n}")) for n in range(1_201)))

    assert [1, 500, 500, 200] == [items for [(_, items)] in counted.sent]
    assert 500 == MOST_ITEMS


async def test_a_call_is_closed_at_one_mebibyte(counted):
    await race(*(counted.enqueue_one(new(f"job-{n}", payload=b"1" * 300_000)) for n in range(10)))

    # 300,300 bytes each: the fourth goes over, and closes what it would have joined.
    assert 10 == sum(items for pipeline in counted.sent for _, items in pipeline)
    assert all(items <= 3 for pipeline in counted.sent for _, items in pipeline)


async def test_queues_share_a_pipeline_and_keep_their_calls(counted):
    await race(*(counted.enqueue_one(new(f"job-{n}", queue=f"q{n % 3}")) for n in range(31)))

    assert [[("enqueue", 1)], [("enqueue", 10), ("enqueue", 10), ("enqueue", 10)]] == counted.sent
    assert ["q0", "q1", "q2"] == await counted.queues()


async def test_one_that_is_refused_spoils_no_other(counted):
    too_far = 1_800_000_000_000 + 2 * LONGEST_DELAY_MS
    *good, far, typeless = await race(
        *(counted.enqueue_one(new(f"job-{n}")) for n in range(5)),
        counted.enqueue_one(new("far", run_at_ms=too_far)),
        counted.enqueue_one(new("typeless", type="")),
        return_exceptions=True,
    )

    assert ["ready"] * 5 == [job.outcome for job in good]
    assert isinstance(far, Invalid)
    assert isinstance(typeless, StoreRefused)
    assert [None, None] == await states_of(counted, "far", "typeless")


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lost_call_is_repeated_with_the_same_ids(counted, when):
    await counted.enqueue(QUEUE, [new("first")])
    counted.watch()
    counted.lose = when
    outcomes = await race(*(counted.enqueue_told(new(f"job-{n}")) for n in range(20)))

    word = "ready" if when == "before" else "again"
    assert {word} == {told[0].outcome for told in outcomes}
    counted.lose = ""
    assert 21 == (await counted.census(QUEUE)).counts["ready"]


async def test_a_call_that_stays_lost_is_told_to_each_who_asked(counted):
    counted.lose = "always"
    errors = await race(*(counted.enqueue_told(new(f"job-{n}")) for n in range(20)), return_exceptions=True)

    assert {StoreUnavailable} == {type(error) for error in errors}
    assert all(error.unknown for error in errors)
    assert 20 == len({id(error) for error in errors[1:]}) + 1
    assert 4 == len(counted.sent)
    counted.lose = ""
    assert "ready" == (await counted.enqueue_told(new("after")))[0].outcome


async def test_who_gives_up_spoils_nothing_for_the_others(counted):
    tasks = [asyncio.create_task(counted.enqueue_told(new(f"job-{n}"))) for n in range(10)]
    await asyncio.sleep(0)
    for task in tasks[3:6]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    assert 7 == sum(isinstance(told, tuple) for told in outcomes)
    assert 3 == sum(isinstance(told, asyncio.CancelledError) for told in outcomes)


async def test_looks_and_cancellations_join_too(counted):
    await counted.enqueue(QUEUE, [new(f"job-{n}") for n in range(6)])
    counted.watch()
    jobs = await race(*(counted.job(QUEUE, f"job-{n}") for n in range(6)))
    asked = await race(*(counted.cancel(QUEUE, [f"job-{n}", "unknown"]) for n in range(6)))

    assert [f"mail:job-{n}" for n in range(6)] == [job.id for job in jobs]
    assert [["cancelled", "missing"]] * 6 == asked
    assert [[("inspect", 1)], [("inspect", 5)], [("cancel", 2)], [("cancel", 10)]] == counted.sent


async def test_all_who_come_before_the_first_connection_are_told_of_the_same_failure(store):
    class Unreachable(Store):
        tries = 0

        async def connect(self, *, queue: str = "default") -> None:
            self.tries += 1
            await asyncio.sleep(0.01)
            raise StoreUnavailable("nobody answers", unknown=True)

    unreachable = Unreachable(store.clients)
    errors = await race(*(unreachable.census(f"q{n}") for n in range(20)), return_exceptions=True)

    assert {StoreUnavailable} == {type(error) for error in errors}
    assert 1 == unreachable.tries


async def test_one_loads_the_scripts_again_for_all_who_miss_them(store, redis):
    class Loading(Store):
        loads = 0

        async def load(self) -> None:
            self.loads += 1
            await super().load()

    loading = Loading(store.clients, now=store._now)
    await loading.enqueue(QUEUE, [new("a")])
    await redis.script_flush()
    await race(*(loading.census(QUEUE) for _ in range(20)))

    assert 2 == loading.loads


async def test_what_cannot_be_sent_spoils_no_other(counted):
    await counted.enqueue(QUEUE, [new("a")])
    *good, bad, enqueued = await race(
        *(counted.inspect(QUEUE, ["a"]) for _ in range(4)),
        counted.inspect(QUEUE, ["\ud800"]),
        counted.enqueue_one(new("b", queue="other")),
        return_exceptions=True,
    )

    assert ["mail:a"] * 4 == [job.id for [job] in good]
    assert isinstance(bad, UnicodeEncodeError)
    assert "surrogates" in str(bad)
    assert "ready" == enqueued.outcome

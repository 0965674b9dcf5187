"""Every call is safe to repeat: as if its answer had been lost, it is sent again, and nothing happens twice."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from scheduler.outcomes import Ack, Bury, Extend, Nack, Note, Release, TypePolicy
from scheduler.store import Store
from tests.helpers import (
    QUEUE,
    WORKER,
    Clock,
    acked,
    buried,
    claimed,
    enqueued,
    in_state,
    look,
    nacked,
    new,
    on_real_servers,
    race,
    released,
    snapshot,
    state_of,
    swept,
    take,
    taken,
)

Lost = Callable[[Store], Awaitable[Any]]


def tokens_of(jobs) -> list[tuple[str, int]]:
    return [(job.key, job.token) for job in jobs]


async def held(store: Store) -> int:
    """A running job; its token."""
    return (await claimed(store, "a")).token


# Each a preparation and the call whose answer is lost; the token of the preparation is handed to the call.
CALLS: dict[str, tuple[Callable[[Store], Awaitable[int]], Callable[[Store, int], Awaitable[Any]]]] = {
    "ack": (held, lambda s, t: s.ack(QUEUE, [Ack("a", t, b"1")], worker=WORKER)),
    "nack": (held, lambda s, t: s.nack(QUEUE, [Nack("a", t, "E", "m")], worker=WORKER)),
    "nack later": (held, lambda s, t: s.nack(QUEUE, [Nack("a", t, "E", "m", retry_in_ms=5)], worker=WORKER)),
    "bury": (held, lambda s, t: s.bury(QUEUE, [Bury("a", t, "E", "m")], worker=WORKER)),
    "release": (held, lambda s, t: s.release(QUEUE, [Release("a", t)], worker=WORKER)),
    "release later": (held, lambda s, t: s.release(QUEUE, [Release("a", t, 5, "snooze")], worker=WORKER)),
    "release unhandled": (
        held,
        lambda s, t: s.release(QUEUE, [Release("a", t, 0, "no_handler")], worker=WORKER),
    ),
    "extend": (held, lambda s, t: s.extend(QUEUE, [Extend("a", t, 60_000)])),
    "progress": (held, lambda s, t: s.note(QUEUE, [Note("a", t, "progress", b"1")])),
    "checkpoint": (held, lambda s, t: s.note(QUEUE, [Note("a", t, "checkpoint", b"1")])),
    "log": (held, lambda s, t: s.note(QUEUE, [Note("a", t, "log", b"line", seq=1)])),
    "cancel running": (held, lambda s, t: s.cancel(QUEUE, ["a"])),
    "cancel": (lambda s: in_state(s, "ready"), lambda s, t: s.cancel(QUEUE, ["a"])),
    "configure": (lambda s: in_state(s, "ready"), lambda s, t: s.configure(QUEUE, {"paused": "1"}, expect=0)),
    "configure a type": (
        lambda s: in_state(s, "ready"),
        lambda s, t: s.configure_type(QUEUE, "send", TypePolicy(5)),
    ),
    "census": (lambda s: in_state(s, "ready"), lambda s, t: s.census(QUEUE)),
    "inspect": (lambda s: in_state(s, "dead"), lambda s, t: s.inspect(QUEUE, ["a"])),
    "list": (lambda s: in_state(s, "dead"), lambda s, t: s.list(QUEUE, "dead")),
}


@pytest.mark.parametrize("name", CALLS)
async def test_the_same_call_again_has_the_same_answer_and_changes_nothing(store, redis, name):
    prepare, call = CALLS[name]
    token = await prepare(store)
    first = await call(store, token)
    before = await snapshot(redis)

    assert [first, first] == [await call(store, token), await call(store, token)]
    assert before == await snapshot(redis)


# Whose second answer says that the first has done it.
AGAIN: dict[str, tuple[str, Lost, list[str]]] = {
    "enqueue": ("dead", lambda s: s.enqueue(QUEUE, [new("b")]), ["exists"]),
    "replay": ("dead", lambda s: s.replay(QUEUE, [("a", b"[1]")]), ["already"]),
    "promote": ("scheduled", lambda s: s.promote_ids(QUEUE, ["a"]), ["already"]),
    "purge": ("dead", lambda s: s.purge(QUEUE, ["a"]), ["missing"]),
}


@pytest.mark.parametrize("name", AGAIN)
async def test_the_same_call_again_says_that_it_was_done_and_changes_nothing(store, redis, name):
    state, call, answers = AGAIN[name]
    await in_state(store, state)
    await call(store)
    before = await snapshot(redis)

    for _ in range(2):
        assert answers == [getattr(answer, "outcome", answer) for answer in await call(store)]
    assert before == await snapshot(redis)


@pytest.mark.parametrize("name", ["reclaim", "promote page", "replay page", "purge page", "expire", "update"])
async def test_what_acts_on_all_that_match_finds_nothing_more(store, redis, clock, name):
    await claimed(store, "runs")
    await in_state(store, "dead", "old", retention_ms=1000)
    for state in ("dead", "scheduled"):
        await in_state(store, state, state)
    clock.advance(3600)
    await swept(store, clock)
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "reclaim": lambda: store.reclaim(QUEUE),
        "promote page": lambda: store.promote(QUEUE),
        "replay page": lambda: store.replay_page(QUEUE),
        "purge page": lambda: store.purge_page(QUEUE, "dead"),
        "expire": lambda: store.expire(QUEUE),
        "update": lambda: store.update(QUEUE, "scheduled", priority=5, tags=["t"]),
    }
    await calls[name]()
    before = {
        key: value
        for key, value in (await snapshot(redis)).items()
        if not key.endswith(("events", "counters"))
    }
    await calls[name]()

    assert before == {
        key: value
        for key, value in (await snapshot(redis)).items()
        if not key.endswith(("events", "counters"))
    }


async def test_the_same_turn_again_gives_the_same_jobs_with_the_same_tokens(store, redis):
    await enqueued(store, "a", "b", "c")
    first = await store.claim(QUEUE, worker=WORKER, turn=1, count=2)
    before = await snapshot(redis)

    again = await store.claim(QUEUE, worker=WORKER, turn=1, count=2)
    assert (first.jobs, 0) == (again.jobs, again.wait_ms)
    assert before == await snapshot(redis)


async def test_the_same_turn_again_has_all_that_the_first_answer_had(store, clock):
    await nacked(store, await claimed(store, payload=b"[7]", timeout_ms=600_000))
    [first] = await take(store, turn=1)
    clock.advance(4)

    [again] = await take(store, turn=1)
    assert (first.record, first.former, first.attempt, first.timeout_ends_ms) == (
        again.record,
        again.former,
        again.attempt,
        again.timeout_ends_ms,
    )
    assert (first.timeout_ms - 4000, first.lease_ends_ms) == (again.timeout_ms, again.lease_ends_ms)


async def test_a_turn_that_gave_nothing_gives_nothing_when_it_is_asked_again(store):
    await acked(store, await claimed(store))
    assert [] == await take(store, turn=1)
    await enqueued(store, "b")

    # Whatever the worker's first answer was, it holds nothing of this turn.
    assert [] == await take(store, turn=1)
    assert ["b"] == [job.key for job in await take(store, turn=2)]


async def test_a_lower_turn_gives_nothing_and_changes_nothing(store, redis):
    await enqueued(store, "a", "b")
    await take(store, turn=7)
    before = await snapshot(redis)

    for turn in (6, 1, 0):
        late = await store.claim(QUEUE, worker=WORKER, turn=turn, count=2)
        assert [] == late.jobs
        assert 4000 <= late.wait_ms <= 6000
    assert before == await snapshot(redis)


async def test_a_higher_turn_is_a_new_claim(store):
    await enqueued(store, "a", "b", "c")

    assert ["a", "b", "c"] == [job.key for turn in (1, 2, 10) for job in await take(store, turn=turn)]


async def test_without_a_turn_every_claim_is_a_new_one(store, redis):
    await enqueued(store, "a", "b")

    assert ["a", "b"] == [job.key for _ in range(2) for job in await take(store)]
    assert 0 == await redis.hlen("{scheduler:mail}:receipts")


async def test_a_turn_may_be_a_text_that_is_not_repeated(store):
    await enqueued(store, "a", "b", "c")
    first = await take(store, turn="0b5c-1")

    assert first == await take(store, turn="0b5c-1")
    assert ["b"] == [job.key for job in await take(store, turn="0b5c-2")]


async def test_a_text_that_gave_nothing_may_ask_again(store):
    """A long poll asks with one request_id until there is something."""
    await acked(store, await claimed(store))
    assert [] == await take(store, turn="request")
    await enqueued(store, "b")
    first = await take(store, turn="request")

    assert ["b"] == [job.key for job in first]
    assert first == await take(store, turn="request")


async def test_each_worker_counts_its_own_turns(store):
    await enqueued(store, "a", "b")
    [first] = await take(store, turn=5, worker="w1")
    [second] = await take(store, turn=1, worker="w2")

    assert ("a", "b") == (first.key, second.key)
    assert [first] == await take(store, turn=5, worker="w1")
    assert [second] == await take(store, turn=1, worker="w2")


async def test_each_queue_counts_its_own_turns(store):
    await enqueued(store, "a")
    await store.enqueue("other", [new("a")])
    [mine] = (await store.claim(QUEUE, worker="w", turn=3)).jobs
    [other] = (await store.claim("other", worker="w", turn=2)).jobs

    assert ("mail:a", "other:a") == (mine.id, other.id)


@pytest.mark.parametrize("settle", [acked, nacked, buried, released])
async def test_a_repeated_turn_gives_only_jobs_whose_lease_still_stands(store, settle):
    await enqueued(store, "a", "b")
    a, b = await take(store, 2, turn=1)
    await settle(store, a)

    assert tokens_of([b]) == tokens_of(await take(store, 2, turn=1))


async def test_a_repeated_turn_gives_nothing_that_another_has_by_now(store, clock):
    await enqueued(store, "a", "b")
    _, b = await take(store, 2, turn=1)
    await store.extend(QUEUE, [Extend("b", b.token, 300_000)])
    clock.advance(31)
    await swept(store, clock)
    mine = await taken(store, "a", worker="w2", turn=1)

    assert tokens_of([b]) == tokens_of(await take(store, 2, turn=1))
    assert tokens_of([mine]) == tokens_of(await take(store, 2, turn=1, worker="w2"))


async def test_a_repeated_turn_gives_a_lease_that_ran_out_but_was_not_reclaimed(store, clock):
    await enqueued(store, "a")
    [first] = await take(store, turn=1)
    clock.advance(600)

    assert tokens_of([first]) == tokens_of(await take(store, turn=1))


async def test_a_repeated_turn_of_a_job_that_was_replayed_gives_nothing(store):
    await enqueued(store, "a")
    [job] = await take(store, turn=1)
    await buried(store, job)
    await store.replay(QUEUE, [("a", None)])

    assert [] == await take(store, turn=1)
    assert "ready" == await state_of(store)


@pytest.mark.parametrize("settle", [acked, nacked, buried, released])
async def test_a_settlement_repeated_after_everything_else_went_on_is_stale(store, clock, settle):
    job = await claimed(store, retry={"max_attempts": 9})
    await settle(store, job)
    if settle is acked:
        await store.purge(QUEUE, ["a"])
        await enqueued(store, "a", retry={"max_attempts": 8})
    if settle is buried:
        await store.replay(QUEUE, [("a", None)])
    again = await taken(store, worker="w2")

    assert "stale" == await settle(store, job)
    assert tokens_of([again]) == [("a", (await look(store)).token)]
    assert "succeeded" == await acked(store, again)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (a, b)
        for a in (acked, nacked, buried, released)
        for b in (acked, nacked, buried, released)
        if a is not b
    ],
)
async def test_one_settlement_is_no_repeat_of_another(store, redis, first, second):
    job = await claimed(store)
    await first(store, job)
    before = await snapshot(redis)

    assert "stale" == await second(store, job)
    assert before == await snapshot(redis)


@on_real_servers
async def test_the_same_turn_sent_twice_at_once_gives_the_same_jobs(store, another_store, redis):
    await enqueued(store, *(f"k{n}" for n in range(50)))

    claims = await race(*(take((store, another_store)[n % 2], 5, turn=1) for n in range(10)))
    assert 1 == len({str(tokens_of(jobs)) for jobs in claims})
    assert 5 == await redis.zcard("{scheduler:mail}:running")


@on_real_servers
async def test_a_worker_whose_every_answer_is_lost_runs_each_job_once(store, another_store, clock: Clock):
    await enqueued(store, *(f"k{n}" for n in range(60)), retry={"immediate": 100, "max_attempts": 100})
    ran: list[str] = []
    turn = 0
    while True:
        turn += 1
        await race(*(take(each, 7, turn=turn) for each in (store, another_store)))
        jobs = await take(store, 7, turn=turn)
        if not jobs:
            break
        ran += [job.key for job in jobs]
        for each in (store, another_store, store):
            assert ["succeeded"] * len(jobs) == await each.ack(
                QUEUE, [Ack(job.key, job.token) for job in jobs], worker=WORKER
            )

    assert (60, 60, "60") == (len(ran), len(set(ran)), (await store.census(QUEUE)).counters["ack"])

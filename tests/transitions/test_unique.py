"""Unique jobs: of one key there is one at a time, and whoever enqueues the next finds whether it still stands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from scheduler.errors import KeyTaken
from scheduler.job import NewJob, Unique
from scheduler.outcomes import Nack
from scheduler.store import Store
from tests.helpers import (
    QUEUE,
    WORKER,
    Clock,
    acked,
    buried,
    claimed,
    enqueued,
    events,
    faults,
    in_state,
    keys,
    look,
    nacked,
    new,
    on_real_servers,
    race,
    raw,
    record_of,
    released,
    rings,
    snapshot,
    state_of,
    states_of,
    take,
    taken,
)

ONE = Unique(key="k")
KNOWN = keys().at("known")


async def outcome(store: Store, key: str, unique: Unique = ONE, **fields: Any) -> tuple[str, str]:
    """What becomes of one more, and which job stands."""
    [done] = await store.enqueue(QUEUE, [new(key, unique=unique, **fields)])
    return done.outcome, done.id


async def test_of_one_key_there_is_one_and_the_next_is_told_which(store):
    await enqueued(store, "a", unique=ONE)

    assert ("held", "mail:a") == await outcome(store, "b", payload=b"[2]")
    assert ["ready", None] == await states_of(store, "a", "b")
    assert "k" == (await look(store)).unique


async def test_another_key_another_queue_and_a_job_that_is_not_unique_are_no_conflict(store):
    await enqueued(store, "a", unique=ONE)

    assert ("ready", "mail:b") == await outcome(store, "b", Unique(key="k2"))
    await enqueued(store, "c")
    [done] = await store.enqueue("other", [new("d", queue="other", unique=ONE)])
    assert "ready" == done.outcome


async def test_without_a_key_what_is_the_same_is_type_and_payload(store):
    await enqueued(store, "a", unique=Unique(), payload=b'{"x": 1, "y": [2.50]}')

    assert ("held", "mail:a") == await outcome(store, "b", Unique(), payload=b'{"y":[2.50],"x":1}')
    others: list[dict[str, Any]] = [
        {"payload": b'{"x": 1}'},
        {"payload": b'{"x": "1", "y": [2.50]}'},
        {"payload": b'{"x": 1, "y": ["2.50"]}'},
        {"payload": b'{"x": true, "y": [2.50]}'},
        {"payload": b'{"x": 1, "y": [2.50]}', "type": "other"},
    ]
    for n, fields in enumerate(others):
        [done] = await store.enqueue(QUEUE, [new(**{"key": f"o{n}", "unique": Unique(), **fields})])
        assert "ready" == done.outcome, fields


def test_two_payloads_that_differ_in_a_digit_that_no_double_holds_are_two():
    one, two = (
        NewJob(type="send", payload=payload, unique=Unique())
        for payload in (b"12345678901234567890123", b"12345678901234567890124")
    )

    assert one.unique_key != two.unique_key


@pytest.mark.parametrize("payload", [b"{no json", bytes(range(256)), b"[" * 100_000])
def test_what_is_no_json_has_a_key_all_the_same(payload):
    assert 32 == len(NewJob(type="send", payload=payload, unique=Unique()).unique_key)


Ending = Callable[[Store, Clock], Awaitable[Any]]


async def succeeds(store: Store, clock: Clock) -> None:
    assert "succeeded" == await acked(store, await taken(store))


async def dies(store: Store, clock: Clock) -> None:
    assert "dead" == await buried(store, await taken(store))


async def fails_for_good(store: Store, clock: Clock) -> None:
    assert "dead" == await nacked(store, await taken(store))


async def is_cancelled_before_it_starts(store: Store, clock: Clock) -> None:
    assert ["cancelled"] == await store.cancel(QUEUE, ["a"])


async def is_cancelled_while_it_runs(store: Store, clock: Clock) -> None:
    job = await taken(store)
    await store.cancel(QUEUE, ["a"])
    assert "cancelled" == await released(store, job)


async def is_deleted_while_it_waits(store: Store, clock: Clock) -> None:
    assert ["gone"] == await store.purge(QUEUE, ["a"])


async def is_deleted_when_it_has_ended(store: Store, clock: Clock) -> None:
    await succeeds(store, clock)
    await is_deleted_while_it_waits(store, clock)


async def crashes_too_often(store: Store, clock: Clock) -> None:
    await take(store)
    clock.advance(61)
    for _ in range(3):
        await store.reclaim(QUEUE)
        clock.advance(11)
    assert "dead" == await state_of(store)


async def expires(store: Store, clock: Clock) -> None:
    await succeeds(store, clock)
    clock.advance(86_401)
    await store.expire(QUEUE)
    assert await state_of(store) is None


ENDINGS: list[Ending] = [
    succeeds, dies, fails_for_good, is_cancelled_before_it_starts, is_cancelled_while_it_runs,
    is_deleted_while_it_waits, is_deleted_when_it_has_ended, crashes_too_often, expires,
]  # fmt: skip


@pytest.mark.parametrize("ends", ENDINGS)
async def test_every_way_that_a_job_can_end_frees_its_key(store, clock, ends):
    await enqueued(store, "a", unique=ONE, retry={"max_attempts": 1})
    assert ("held", "mail:a") == await outcome(store, "b")
    await ends(store, clock)

    assert ("ready", "mail:b") == await outcome(store, "b")


@pytest.mark.parametrize("state", ["scheduled", "blocked", "ready", "running", "retrying"])
async def test_until_its_end_a_job_holds_its_key_in_every_state(store, state):
    await in_state(store, state, unique=ONE)

    assert ("held", "mail:a") == await outcome(store, "b")


@pytest.mark.parametrize("state", ["scheduled", "blocked", "ready", "retrying"])
async def test_until_its_start_a_job_holds_its_key_while_it_waits(store, state):
    await in_state(store, state, unique=Unique(key="k", until="start"))

    assert ("held", "mail:a") == await outcome(store, "b")


async def test_until_its_start_a_job_that_runs_lets_another_wait_and_no_third(store):
    until_start = Unique(key="k", until="start")
    await claimed(store, "a", unique=until_start)

    assert ("ready", "mail:b") == await outcome(store, "b", until_start)
    assert ("held", "mail:b") == await outcome(store, "c", until_start)


async def test_a_time_alone_holds_the_key_whatever_becomes_of_the_job(store, clock):
    throttle = Unique(key="k", for_ms=3_600_000)
    await acked(store, await claimed(store, "a", unique=throttle, retention_ms=0))
    assert ("held", "mail:a") == await outcome(store, "b", throttle)
    clock.advance(3_599.9)
    await store.expire(QUEUE)

    assert ("held", "mail:a") == await outcome(store, "b", throttle)
    assert "succeeded" == await state_of(store)
    clock.advance(0.1)
    assert ("ready", "mail:b") == await outcome(store, "b", throttle)


async def test_a_deleted_job_frees_its_key_also_within_its_time(store):
    throttle = Unique(key="k", for_ms=3_600_000)
    await acked(store, await claimed(store, "a", unique=throttle, retention_ms=0))
    assert ["gone"] == await store.purge(QUEUE, ["a"])

    assert ("ready", "mail:b") == await outcome(store, "b", throttle)


@pytest.mark.parametrize("until", ["start", "end"])
async def test_a_time_beside_an_end_is_the_longest_that_the_key_is_held(store, clock, until):
    unique = Unique(key="k", for_ms=60_000, until=until)
    await enqueued(store, "a", unique=unique)
    clock.advance(59.999)
    assert ("held", "mail:a") == await outcome(store, "b", unique)
    clock.advance(0.001)

    assert ("ready", "mail:b") == await outcome(store, "b", unique)


@pytest.mark.parametrize("ends", [succeeds, dies, is_cancelled_before_it_starts])
async def test_nothing_is_left_of_a_key_when_its_job_has_gone(store, redis, clock, ends):
    await enqueued(store, "a", unique=ONE)
    await enqueued(store, "b", unique=Unique(key="k2", for_ms=5_000), delay_ms=1)
    await ends(store, clock)
    await store.cancel(QUEUE, ["b"])
    clock.advance(31 * 86_400)
    await store.expire(QUEUE)
    await store.expire(QUEUE)

    assert [None, None] == await states_of(store, "a", "b")
    assert {} == await redis.hgetall(KNOWN)


async def test_a_job_that_lost_its_key_to_a_later_one_does_not_take_it_along(store):
    await buried(store, await claimed(store, "a", unique=ONE))
    assert ("ready", "mail:b") == await outcome(store, "b")
    assert ["ready"] == await store.replay(QUEUE, [("a", None)])
    assert ["gone"] == await store.purge(QUEUE, ["a"])

    assert ("held", "mail:b") == await outcome(store, "c")


async def test_a_dead_job_that_is_replayed_holds_its_key_again_unless_another_has_it(store):
    await buried(store, await claimed(store, "a", unique=ONE))
    assert ["ready"] == await store.replay(QUEUE, [("a", None)])

    assert ("held", "mail:a") == await outcome(store, "b")


async def test_an_id_that_is_taken_anew_without_the_key_does_not_hold_it(store):
    await acked(store, await claimed(store, "a", unique=ONE))
    await store.purge(QUEUE, ["a"])
    await enqueued(store, "a")

    assert ("ready", "mail:b") == await outcome(store, "b")


async def test_the_same_id_and_request_is_first_of_all_that_job(store):
    await enqueued(store, "a", unique=ONE)

    assert ("exists", "mail:a") == await outcome(store, "a")
    assert ("conflict", "mail:a") == await outcome(store, "a", Unique(key="k2"))


async def test_of_one_call_the_second_finds_the_first(store):
    done = await store.enqueue(QUEUE, [new("a", unique=ONE), new("b", unique=ONE), new("c")])

    assert [("ready", "mail:a"), ("held", "mail:a"), ("ready", "mail:c")] == [
        (job.outcome, job.id) for job in done
    ]


@on_real_servers
async def test_of_a_hundred_at_once_one_is_made(store):
    done = await race(*(store.enqueue_one(new(f"j{n}", unique=ONE)) for n in range(100)))

    assert 1 == sum(one.created for one in done)
    assert 1 == len({one.id for one in done})
    assert 1 == (await store.census(QUEUE)).counts["ready"]


async def test_one_that_is_to_be_refused_is(store):
    await enqueued(store, "a", unique=ONE)

    with pytest.raises(KeyTaken, match="mail:a"):
        await store.enqueue_one(new("b", unique=replace(ONE, on_conflict="reject")))


async def test_a_full_queue_still_finds_the_job_that_stands(store):
    await enqueued(store, "a", unique=ONE)
    await store.configure(QUEUE, {"max_length": "1"})

    assert ("held", "mail:a") == await outcome(store, "b")
    assert "full" == (await outcome(store, "b", Unique(key="k2")))[0]


# -- replace and debounce

REPLACE, DEBOUNCE = Unique(key="k", on_conflict="replace"), Unique(key="k", on_conflict="debounce")


async def test_replace_makes_the_standing_job_what_the_new_request_asks_for(store, clock):
    await enqueued(store, "a", unique=ONE, delay_ms=60_000, payload=b"[1]", tags=("x",), retention_ms=5)
    clock.advance(1)

    assert ("changed", "mail:a") == await outcome(
        store, "b", REPLACE, payload=b"[2]", priority=7, delay_ms=5_000, tags=("y",), timeout_ms=9_000
    )
    job = await look(store)
    assert ("scheduled", clock.now + 5_000, b"[2]", 7) == (job.state, job.run_at, job.payload, job.priority)
    assert (("y",), 9_000, None, "k") == (job.tags, job.timeout_ms, job.retention_ms, job.unique)
    assert clock.now - 1_000 == job.created_at
    assert [(clock.now, b"[1]")] == list(job.edits)
    assert ["a"] == await events(store.clients.commands, "update")


@pytest.mark.parametrize("conflict", [REPLACE, DEBOUNCE])
async def test_a_changed_job_is_still_the_answer_to_the_request_that_made_it(store, conflict):
    await enqueued(store, "a", unique=ONE, payload=b"[1]", delay_ms=60_000)
    await outcome(store, "b", conflict, payload=b"[2]")

    assert ("exists", "mail:a") == await outcome(store, "a", payload=b"[1]", delay_ms=60_000)


async def test_replace_without_a_time_is_now_and_rings(store, redis):
    await enqueued(store, "a", unique=ONE, delay_ms=60_000)
    await rings(redis)

    assert ("changed", "mail:a") == await outcome(store, "b", REPLACE)
    assert 1 == await rings(redis)
    assert "a" == (await taken(store)).key


async def test_debounce_pushes_the_time_with_each_request(store, clock):
    await enqueued(store, "a", unique=DEBOUNCE, delay_ms=5_000, payload=b"[0]")
    for n in range(1, 4):
        clock.advance(4)
        assert ("changed", "mail:a") == await outcome(
            store, f"b{n}", DEBOUNCE, delay_ms=5_000, payload=b"[%d]" % n
        )
        assert [] == await take(store)
    clock.advance(5)

    assert b"[3]" == record_of(await taken(store)).payload
    assert ("held", "mail:a") == await outcome(store, "c", DEBOUNCE, delay_ms=5_000)


async def test_debounce_without_a_time_leaves_it(store, clock):
    await enqueued(store, "a", unique=ONE, delay_ms=60_000)
    clock.advance(1)

    assert ("changed", "mail:a") == await outcome(store, "b", DEBOUNCE, payload=b"[2]")
    assert ("scheduled", clock.now + 59_000, b"[2]") == (
        (job := await look(store)).state,
        job.run_at,
        job.payload,
    )


async def test_a_ready_job_keeps_its_place_in_line_and_moves_by_its_priority(store):
    await enqueued(store, "first")
    await enqueued(store, "a", unique=ONE)
    await enqueued(store, "last")
    assert ("changed", "mail:a") == await outcome(store, "b", REPLACE, payload=b"[2]")
    assert "first" == (await taken(store, "first")).key
    assert "changed" == (await outcome(store, "b", REPLACE, priority=-100))[0]

    assert ["last", "a"] == [job.key for job in await take(store, 2)]


async def test_a_ready_job_that_is_given_a_time_waits_for_it(store, clock):
    await enqueued(store, "a", unique=ONE)
    assert ("changed", "mail:a") == await outcome(store, "b", DEBOUNCE, delay_ms=5_000)
    assert [] == await take(store)
    clock.advance(5)

    assert "a" == (await taken(store)).key


async def test_a_job_in_its_backoff_is_changed_but_does_not_run_sooner(store):
    await in_state(store, "retrying", unique=ONE, retry={"immediate": 0})
    before = await look(store)
    assert ("changed", "mail:a") == await outcome(store, "b", REPLACE, payload=b"[2]")
    job = await look(store)

    assert ("retrying", before.run_at, b"[2]", 1) == (job.state, job.run_at, job.payload, job.attempt)


@pytest.mark.parametrize("conflict", [REPLACE, DEBOUNCE])
async def test_a_job_that_runs_is_left(store, conflict):
    await claimed(store, "a", unique=ONE, payload=b"[1]")

    assert ("held", "mail:a") == await outcome(store, "b", conflict, payload=b"[2]", delay_ms=5)
    assert b"[1]" == (await look(store)).payload


@pytest.mark.parametrize("fields", [{"type": "other"}, {"group": "g"}, {"cost": 2}])
async def test_a_job_of_another_type_group_or_cost_is_left(store, fields):
    await enqueued(store, "a", unique=ONE, payload=b"[1]")

    assert ("held", "mail:a") == await outcome(store, "b", REPLACE, payload=b"[2]", **fields)
    assert b"[1]" == (await look(store)).payload


async def test_a_job_in_a_lane_is_changed_in_it(store):
    await enqueued(store, "a", unique=ONE, group="g", priority=1)
    await enqueued(store, "z", group="g")

    assert ("changed", "mail:a") == await outcome(store, "b", REPLACE, group="g", priority=-9)
    assert ["z", "a"] == [job.key for job in await take(store, 2)]


@pytest.mark.parametrize("conflict", [REPLACE, DEBOUNCE])
async def test_a_repeated_change_changes_nothing(store, redis, conflict):
    await enqueued(store, "a", unique=ONE, payload=b"[1]", delay_ms=60_000)
    again = {"payload": b"[2]", "delay_ms": 5_000, "tags": ("y",)}
    assert ("changed", "mail:a") == await outcome(store, "b", conflict, **again)
    before = await snapshot(redis)

    assert ("changed", "mail:a") == await outcome(store, "b", conflict, **again)
    assert before == await snapshot(redis)


async def test_in_a_bulk_each_replaces_what_came_before_it(store):
    jobs = [new(f"j{n}", unique=REPLACE, payload=b"[%d]" % n) for n in range(5)]
    done = await store.enqueue_each([*jobs, new("other")])

    assert ["ready", *["changed"] * 4, "ready"] == [one.outcome for one in done]
    assert {"mail:j0", "mail:other"} == {one.id for one in done}
    assert b"[4]" == (await look(store, "j0")).payload


async def test_in_one_call_of_the_script_one_that_was_just_made_is_left(store):
    rest = ["", "", "", "", "", "unique:k conflict:replace", "", "", ""]
    reply = await raw(store, "enqueue", 2, "a", "send", "[1]", *rest, "b", "send", "[2]", *rest)

    assert [b"ready", b"", b"held", b"a"] == reply[2:]
    assert b"[1]" == (await look(store)).payload


@on_real_servers
async def test_of_many_that_replace_at_once_none_is_lost_and_the_last_stands(store):
    done = await race(
        *(
            store.enqueue_one(new(f"j{n}", unique=REPLACE, payload=b"[%d]" % n, delay_ms=60_000))
            for n in range(40)
        )
    )

    [standing] = {one.id for one in done}
    assert ["scheduled"] * 1 + ["changed"] * 39 == sorted((one.outcome for one in done), reverse=True)
    assert b"[39]" == (await look(store, standing.partition(":")[2])).payload


# -- with deadlines


@pytest.mark.parametrize("conflict", [REPLACE, DEBOUNCE])
async def test_a_request_whose_time_is_over_changes_nothing(store, redis, clock, conflict):
    await enqueued(store, "a", unique=ONE, delay_ms=60_000, payload=b"[1]")
    before = await snapshot(redis)

    late = {"payload": b"[2]", "deadline_ms": clock.now - 1}
    assert "past" == (await outcome(store, "b", conflict, **late))[0]
    assert before == await snapshot(redis)


async def test_a_changed_job_ends_at_the_deadline_that_it_was_given(store, clock):
    await enqueued(store, "a", unique=ONE, delay_ms=60_000)
    assert ("changed", "mail:a") == await outcome(store, "b", DEBOUNCE, expires_in_ms=5_000)
    clock.advance(5)
    await store.expire(QUEUE)

    assert "cancelled" == await state_of(store)


async def test_a_deadline_that_a_change_took_away_ends_nothing(store, clock):
    await enqueued(store, "a", unique=ONE, delay_ms=60_000, expires_in_ms=5_000)
    assert ("changed", "mail:a") == await outcome(store, "b", DEBOUNCE)
    clock.advance(5)
    await store.expire(QUEUE)

    assert "scheduled" == await state_of(store)


async def test_a_job_that_waits_beyond_its_time_holds_no_key_also_before_the_sweep(store, clock):
    await enqueued(store, "a", unique=ONE, delay_ms=60_000, expires_in_ms=5_000)
    clock.advance(4.999)
    assert ("held", "mail:a") == await outcome(store, "b")
    clock.advance(0.001)

    assert ("ready", "mail:b") == await outcome(store, "b")


async def test_a_job_in_its_backoff_has_begun_and_does_not_expire(store, clock):
    await in_state(store, "retrying", unique=ONE, expires_in_ms=1_000, retry={"immediate": 0, "base": 60_000})
    clock.advance(1)

    assert ("held", "mail:a") == await outcome(store, "b")


# -- what verify makes of it


async def test_verify_finds_a_key_that_no_job_has_and_mends_it(store, redis):
    await enqueued(store, "a", unique=ONE)
    assert [] == await faults(store)
    await redis.hset(KNOWN, mapping={"=lost": "gone||e", "=other": "a||e", "=broken": "nonsense"})

    told = {(fault.id, fault.what) for fault in [f async for f in store.verify(QUEUE, repair=True)]}
    assert {(f"={name}", "is a unique key that no job has") for name in ("lost", "other", "broken")} == told
    assert {b"=k": b"a||e"} == await redis.hgetall(KNOWN)


async def test_an_entry_that_cannot_be_read_holds_nothing(store, redis):
    await enqueued(store, "a", unique=ONE)
    await redis.hset(KNOWN, "=k", "nonsense")

    assert ("ready", "mail:b") == await outcome(store, "b")


async def test_a_nack_that_is_repeated_finds_its_tombstone_as_ever(store, clock):
    job = await claimed(
        store, "a", unique=Unique(key="k", for_ms=600_000), retention_ms=0, retry={"max_attempts": 1}
    )
    failure = [Nack("a", job.token, "E", "m")]
    assert ["dead"] == await store.nack(QUEUE, failure, worker=WORKER)
    clock.advance(300)
    await store.expire(QUEUE)

    assert ["dead"] == await store.nack(QUEUE, failure, worker=WORKER)


async def test_a_repeated_call_finds_the_job_that_it_has_changed_though_that_has_started(store):
    until_start = Unique(key="k", until="start")
    await enqueued(store, "a", unique=until_start)
    change = replace(until_start, on_conflict="replace")
    first = await outcome(store, "b", change, payload=b"[2]", call="one")
    await take(store)

    again = await outcome(store, "b", change, payload=b"[2]", call="one")
    another = await outcome(store, "c", change, payload=b"[2]", call="two")

    assert [("changed", "mail:a")] * 2 == [first, again]
    assert ("ready", "mail:c") == another
    assert ["running", None, "ready"] == await states_of(store, "a", "b", "c")

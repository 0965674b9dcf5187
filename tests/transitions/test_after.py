"""Jobs that wait for others: blocked until all have ended, told of it once at least, moved once."""

from __future__ import annotations

import pytest

from scheduler.errors import Invalid, StoreUnavailable
from scheduler.job import NewJob, Unique
from scheduler.linking import Word
from scheduler.outcomes import Ack
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
    keys,
    look,
    race,
    released,
    state_of,
    states_of,
    swept,
    take,
    taken,
)


async def after(store: Store, key: str, *others: str, queue: str = QUEUE, **fields: object) -> str:
    """Enqueues a job that waits for others (keys of QUEUE, or ids): what became of it."""
    ids = [other if ":" in other else f"{QUEUE}:{other}" for other in others]
    job = NewJob(type="send", key=key, queue=queue, after=ids, **fields)  # type: ignore[arg-type]
    return (await store.enqueue_one(job)).outcome


async def in_order(store: Store, *names: str) -> None:
    """Takes these jobs one after the other, which wait for nothing any more, and nothing else."""
    for name in names:
        await acked(store, await taken(store, name), f'"{name}"'.encode())
        await store.relay(QUEUE)
    assert [] == await take(store)


async def test_a_job_waits_until_the_one_before_it_has_succeeded(store):
    await enqueued(store, "a")

    assert "blocked" == await after(store, "b", "a")
    assert "blocked" == await state_of(store, "b")
    assert [f"{QUEUE}:a"] == list((await look(store, "b")).after)

    job = await taken(store, "a")
    assert [] == await take(store)
    assert "succeeded" == await acked(store, job, b'{"n": 1}')
    assert "blocked" == await state_of(store, "b")
    assert 1 == await store.relay(QUEUE)

    assert "ready" == await state_of(store, "b")
    assert {f"{QUEUE}:a": b'{"n": 1}'} == await store.results_of_parents(QUEUE, "b")
    assert 0 == await store.relay(QUEUE)
    assert ["b"] == await events(store.clients.commands, "resolve")
    await in_order(store, "b")


async def test_it_waits_for_all_of_them(store):
    await enqueued(store, "a", "b")
    await after(store, "c", "a", "b")

    await in_order(store, "a", "b", "c")


async def test_what_had_ended_before_is_waited_for_no_more(store):
    await acked(store, await claimed(store, "a"), b"7")

    assert "ready" == await after(store, "b", "a")
    assert {f"{QUEUE}:a": b"7"} == await store.results_of_parents(QUEUE, "b")


async def test_what_nobody_knows_is_refused_by_its_place_in_the_list_and_nothing_is_stored(store):
    await enqueued(store, "a")

    with pytest.raises(Invalid) as caught:
        await after(store, "b", "a", "gone")

    assert [("/after/1", f"there is no job {QUEUE}:gone")] == [
        (f.path, f.message) for f in caught.value.faults
    ]
    assert None is await state_of(store, "b")


async def test_the_same_request_again_finds_the_job_also_when_what_it_waited_for_is_gone(store):
    await acked(store, await claimed(store, "a", retention_ms=0))
    await after(store, "b", "a")
    await store.purge(QUEUE, ["a"])

    assert "exists" == await after(store, "b", "a")


async def test_one_that_ended_less_than_a_minute_ago_and_is_gone_counts_as_it_ended(store):
    await acked(store, await claimed(store, "a", retention_ms=0), b"1")

    assert "ready" == await after(store, "b", "a")
    assert {f"{QUEUE}:a": None} == await store.results_of_parents(QUEUE, "b")


async def test_a_result_reaches_who_waits_though_nothing_of_it_is_kept(store):
    await enqueued(store, "a", retention_ms=0)
    await after(store, "b", "a")

    await acked(store, await taken(store, "a"), b'"kept"')
    await store.relay(QUEUE)

    assert {f"{QUEUE}:a": b'"kept"'} == await store.results_of_parents(QUEUE, "b")


@pytest.mark.parametrize(
    ("policy", "state"),
    [("cancel", "cancelled"), ("continue", "ready"), ("wait", "blocked"), ("failure", "ready")],
)
async def test_what_happens_when_the_one_before_dies(store, policy, state):
    await enqueued(store, "a")
    await after(store, "b", "a", on_failure=policy)

    await buried(store, await taken(store, "a"))
    await store.relay(QUEUE)

    assert state == await state_of(store, "b")
    assert ("dependency" if state == "cancelled" else None) == (await look(store, "b")).reason


async def test_what_runs_on_failure_only_is_cancelled_when_all_succeeded(store):
    await enqueued(store, "a")
    await after(store, "b", "a", on_failure="failure")

    await in_order(store, "a")

    assert ["succeeded", "cancelled"] == await states_of(store, "a", "b")


async def test_a_cancel_goes_down_the_whole_line(store):
    await enqueued(store, "a")
    for former, name in zip("abc", "bcd", strict=True):
        await after(store, name, former)

    await store.cancel(QUEUE, ["a"])
    assert 3 == await store.relay(QUEUE)

    assert ["cancelled"] * 4 == await states_of(store, *"abcd")


async def test_what_was_cancelled_for_a_dead_one_is_blocked_again_when_that_is_replayed(store):
    await enqueued(store, "a")
    await after(store, "b", "a")
    await after(store, "c", "b")
    await buried(store, await taken(store, "a"))
    await store.relay(QUEUE)
    assert ["dead", "cancelled", "cancelled"] == await states_of(store, *"abc")

    await store.replay(QUEUE, [("a", None)])
    await store.relay(QUEUE)

    assert ["ready", "blocked", "blocked"] == await states_of(store, *"abc")
    await in_order(store, *"abc")


async def test_what_waits_for_a_dead_one_goes_on_when_that_was_replayed(store):
    await enqueued(store, "a")
    await after(store, "b", "a", on_failure="wait")
    await buried(store, await taken(store, "a"))
    await store.relay(QUEUE)

    await store.replay(QUEUE, [("a", None)])
    await in_order(store, "a", "b")


async def test_who_was_told_late_of_a_death_that_is_over_is_not_cancelled_by_it(store):
    await enqueued(store, "a")
    await after(store, "b", "a", on_failure="cancel")
    await enqueued(store, "z", delay_ms=60_000)
    await after(store, "c", "a", "z")
    await buried(store, await taken(store, "a"))
    late = (await store.run(store.relay_call(QUEUE))).words
    await store.replay(QUEUE, [("a", None)])
    await acked(store, await taken(store, "a"))
    await store.relay(QUEUE)
    assert ["ready", "blocked"] == await states_of(store, "b", "c")

    await store.resolve(QUEUE, late)

    assert ["ready", "blocked"] == await states_of(store, "b", "c")


async def test_told_twice_is_told_once(store):
    await enqueued(store, "a", "z")
    await after(store, "b", "a", "z")
    await acked(store, await taken(store, "a"))
    words = (await store.run(store.relay_call(QUEUE))).words

    assert ["blocked"] == await store.resolve(QUEUE, words)
    assert ["blocked"] == await store.resolve(QUEUE, words)
    assert 1 == (await store.parents(QUEUE, "b")).succeeded
    await in_order(store, "z", "b")


async def test_a_death_between_telling_and_noting_it_tells_once_more(store):
    await enqueued(store, "a")
    await after(store, "b", "a")
    await acked(store, await taken(store, "a"))
    await store.resolve(QUEUE, (await store.run(store.relay_call(QUEUE))).words)

    assert 1 == await store.relay(QUEUE)
    await in_order(store, "b")


async def test_jobs_of_other_queues_wait_for_each_other(store):
    await enqueued(store, "a")
    assert "blocked" == await after(store, "b", "a", queue="other")
    assert "blocked" == await after(store, "c", "other:b")

    await acked(store, await taken(store, "a"))
    await store.relay(QUEUE)
    [job] = (await store.claim("other", worker=WORKER)).jobs
    await store.ack("other", [Ack("b", job.token, b"5")], worker=WORKER)
    await store.relay("other")

    assert {"other:b": b"5"} == await store.results_of_parents(QUEUE, "c")
    await in_order(store, "c")


async def test_a_claim_says_that_there_is_word_and_says_it_to_one(store, clock: Clock):
    await enqueued(store, "a")
    await after(store, "b", "a")
    job = await taken(store, "a")
    await store.claim(QUEUE, worker="idle")
    await acked(store, job)

    first, second = [await store.claim(QUEUE, worker=name) for name in ("w1", "w2")]
    assert [True, False] == [first.relay, second.relay]
    clock.advance(1)
    assert (await store.claim(QUEUE, worker="w2")).relay
    await store.relay(QUEUE)
    await in_order(store, "b")


async def test_who_died_between_enqueue_and_making_it_known_is_helped_by_the_sweep(store, clock: Clock):
    await enqueued(store, "a")
    job = NewJob(type="send", key="b", queue=QUEUE, after=[f"{QUEUE}:a"])
    await store.run(store.enqueue_call(QUEUE, [job]))
    await acked(store, await taken(store, "a"))
    assert 0 == await store.relay(QUEUE)
    assert "blocked" == await state_of(store, "b")

    clock.advance(31)
    await store.relay(QUEUE)

    assert "ready" == await state_of(store, "b")


async def test_a_job_that_is_purged_before_its_end_did_not_succeed(store):
    await enqueued(store, "a")
    await after(store, "b", "a")

    await store.purge(QUEUE, ["a"])
    await store.relay(QUEUE)

    assert [None, "cancelled"] == await states_of(store, "a", "b")


async def test_time_and_priority_hold_for_what_waited(store, clock: Clock):
    await enqueued(store, "a")
    await after(store, "late", "a", delay_ms=60_000)
    await after(store, "low", "a")
    await after(store, "high", "a", priority=10)

    await acked(store, await taken(store, "a"))
    await store.relay(QUEUE)

    assert "scheduled" == await state_of(store, "late")
    await in_order(store, "high", "low")
    clock.advance(61)
    await in_order(store, "late")


async def test_a_deadline_ends_what_is_blocked_and_those_who_wait_for_it(store, clock: Clock):
    await enqueued(store, "a")
    await after(store, "b", "a", expires_in_ms=1_000)
    await after(store, "c", "b")

    clock.advance(2)
    await store.expire(QUEUE)
    await store.relay(QUEUE)

    assert ["ready", "cancelled", "cancelled"] == await states_of(store, *"abc")
    assert ["expired", "dependency"] == [(await look(store, key)).reason for key in "bc"]


async def test_a_job_whose_worker_died_for_good_tells_of_it(store, clock: Clock):
    await enqueued(store, "a", retry={"max_attempts": 1})
    await after(store, "b", "a")
    await take(store)
    await store.reclaim(QUEUE)

    clock.advance(31)
    await swept(store, clock)
    await store.relay(QUEUE)

    assert ["dead", "cancelled"] == await states_of(store, "a", "b")


async def test_nothing_is_left_of_what_waited_when_it_is_purged(store):
    await enqueued(store, "a")
    await after(store, "b", "a")
    await after(store, "c", "b")
    await store.purge(QUEUE, ["b"])
    await store.relay(QUEUE)
    await acked(store, await taken(store, "a"))
    await store.relay(QUEUE)
    await store.purge(QUEUE, ["a", "c"])

    names = ("awaits", "dependents", "parents", "signals", "opening", "notes")
    assert [] == [name for name in names if await store.clients.commands.exists(keys().at(name))]


async def test_racing_relays_move_each_job_once(store):
    await enqueued(store, "a")
    for n in range(30):
        await after(store, f"b{n}", "a")
    await acked(store, await taken(store, "a"))

    await race(*(store.relay(QUEUE) for _ in range(5)))

    assert ["ready"] * 30 == await states_of(store, *(f"b{n}" for n in range(30)))
    assert 30 == len(await events(store.clients.commands, "resolve"))


async def test_a_release_is_no_end(store):
    await enqueued(store, "a")
    await after(store, "b", "a")

    await released(store, await taken(store, "a"))

    assert 0 == await store.relay(QUEUE)
    assert "blocked" == await state_of(store, "b")


async def test_word_about_a_job_that_nobody_knows_changes_nothing(store):
    await enqueued(store, "a")

    assert ["missing", "ready"] == await store.resolve(
        QUEUE, [Word(f"{QUEUE}:x", "other:y", 1, "dead"), Word(f"{QUEUE}:a", "other:y", 1, "dead")]
    )


async def test_who_waits_for_a_queue_that_is_obliterated_waits_no_more(store):
    await enqueued(store, "a")
    await after(store, "b", "a", queue="other")
    await after(store, "c", "other:b", queue="third")

    await store.obliterate(QUEUE)

    assert ["cancelled", "cancelled"] == [
        job.state
        for queue, key in (("other", "b"), ("third", "c"))
        for job in await store.inspect(queue, [key])
        if job
    ]


async def test_a_unique_job_that_waits_for_others_is_not_replaced(store):
    one = Unique(key="k", on_conflict="replace")
    await enqueued(store, "a")
    await after(store, "b", "a", unique=one)

    [done] = await store.enqueue(
        QUEUE, [NewJob(type="send", key="c", queue=QUEUE, unique=one, payload=b"[2]")]
    )

    assert ("held", f"{QUEUE}:b") == (done.outcome, done.id)
    assert b"{}" == (await look(store, "b")).payload


async def test_one_whose_others_cannot_be_reached_holds_up_no_word(store, clock: Clock, monkeypatch):
    await enqueued(store, "a")
    await after(store, "b", "a")
    late = NewJob(type="send", key="late", queue=QUEUE, after=["away:x"])
    await store.run(store.enqueue_call(QUEUE, [late]))
    await acked(store, await taken(store, "a"))
    clock.advance(31)
    follow = store.follow

    async def fails(queue: str, ties: object) -> object:
        if queue == "away":
            raise StoreUnavailable("its node is away")
        return await follow(queue, ties)

    monkeypatch.setattr(store, "follow", fails)
    with pytest.raises(StoreUnavailable):
        await store.relay(QUEUE)

    assert ["ready", "blocked"] == await states_of(store, "b", "late")

"""How long ended jobs stay: by age, by count, by bytes, by their own word; and how long an id stays known."""

import pytest

from scheduler.job import State
from scheduler.outcomes import Ack, Note
from tests.helpers import (
    ENDED,
    QUEUE,
    WORKER,
    acked,
    buried,
    claimed,
    enqueued,
    events,
    in_state,
    keys,
    look,
    new,
    released,
    state_of,
    states_of,
    take,
)

DAY = 86_400


async def end(store, state: str, key: str, **fields) -> None:
    """A job of this key ends in this state, by a call that keeps the retention."""
    if state == "succeeded":
        await acked(store, await claimed(store, key, **fields), b'"done"')
    else:
        await in_state(store, state, key, **fields)


async def test_succeeded_and_cancelled_stay_a_day_and_dead_thirty_of_them(store, clock):
    for state in ENDED:
        await end(store, state, state)
    clock.advance(DAY - 0.001)
    assert (0, False) == await store.expire(QUEUE)
    clock.advance(0.001)
    assert (2, False) == await store.expire(QUEUE)
    assert [None, None, "dead"] == await states_of(store, *ENDED)

    clock.advance(29 * DAY)
    assert (1, False) == await store.expire(QUEUE)
    assert await state_of(store, "dead") is None


@pytest.mark.parametrize("state", ENDED)
async def test_the_next_end_lets_the_oldest_go(store, clock, state):
    await store.configure(QUEUE, {f"keep_{state}_age": "10000"})
    await end(store, state, "old")
    clock.advance(9)
    await end(store, state, "new")
    assert state == await state_of(store, "old")
    clock.advance(61)
    await end(store, state, "newest")

    assert [None, None, state] == await states_of(store, "old", "new", "newest")


@pytest.mark.parametrize("state", ENDED)
async def test_the_count_is_never_exceeded_and_the_oldest_leave_first(store, clock, state):
    await store.configure(QUEUE, {f"keep_{state}_count": "3"})
    for n in range(6):
        await end(store, state, f"k{n}")
        clock.advance(61)
        assert (await store.census(QUEUE)).counts[state] <= 3

    assert [None, None, None, state, state, state] == await states_of(store, *(f"k{n}" for n in range(6)))


@pytest.mark.parametrize("state", ENDED)
async def test_a_count_of_none_keeps_nothing_but_the_known_id(store, state):
    await store.configure(QUEUE, {f"keep_{state}_count": "0"})
    await end(store, state, "a", payload=b"[1]")

    assert 0 == (await store.census(QUEUE)).counts[state]
    job = await look(store)
    assert (state, None, None) == (job.state, job.payload, job.result)


@pytest.mark.parametrize("state", ENDED)
async def test_the_bytes_are_kept_below_their_limit(store, clock, state):
    await store.configure(QUEUE, {f"keep_{state}_bytes": "3500"})
    for n in range(6):
        await end(store, state, f"k{n}", payload=b"x" * 1000)
        clock.advance(61)

    census = await store.census(QUEUE)
    assert 3 == census.counts[state]
    assert 3000 < int(census.counters[f"bytes_{state}"]) <= 3500


async def test_each_trim_of_a_dead_job_is_counted_and_reported(store, redis, clock):
    await store.configure(QUEUE, {"keep_dead_count": "1"})
    for key in "abc":
        await end(store, "dead", key)
        clock.advance(1)

    assert "2" == (await store.census(QUEUE)).counters["trimmed_dead"]
    assert ["a", "b"] == await events(redis, "purge")


async def test_a_new_limit_holds_for_what_is_there_in_bounded_steps(store, clock):
    await store.enqueue(QUEUE, [new(f"k{n}") for n in range(30)])
    for job in await take(store, 30):
        await acked(store, job)
    await store.configure(QUEUE, {"keep_succeeded_count": "5"})

    assert [(10, True), (10, True), (5, False), (0, False)] == [
        await store.expire(QUEUE, limit=10) for _ in range(4)
    ]


async def test_a_limit_that_was_lifted_is_the_default_again(store, clock):
    await store.configure(QUEUE, {"keep_succeeded_age": "1000"})
    await end(store, "succeeded", "a")
    await store.configure(QUEUE, {"keep_succeeded_age": ""})
    clock.advance(DAY / 2)

    assert (0, False) == await store.expire(QUEUE)
    assert "succeeded" == await state_of(store)


@pytest.mark.parametrize("state", ENDED)
async def test_a_job_may_say_itself_how_long_it_stays(store, clock, state):
    await store.configure(QUEUE, {f"keep_{state}_count": "1", f"keep_{state}_age": "1000"})
    await end(store, state, "own", retention_ms=90 * DAY * 1000)
    clock.advance(100)
    await end(store, state, "other")
    clock.advance(89 * DAY)
    await store.expire(QUEUE)

    # Neither age nor count of the queue take it, and it hides no other.
    assert [state, None] == await states_of(store, "own", "other")
    clock.advance(DAY)
    await store.expire(QUEUE)
    assert await state_of(store, "own") is None


@pytest.mark.parametrize("state", ENDED)
@pytest.mark.parametrize("own", [0, 10**9])
async def test_a_job_with_a_word_of_its_own_pushes_no_other_out(store, state, own):
    await store.configure(QUEUE, {f"keep_{state}_count": "1"})
    await end(store, state, "other")
    await end(store, state, "own", retention_ms=own)

    assert [state, state] == await states_of(store, "other", "own")
    assert b"{}" == (await look(store, "other")).payload


@pytest.mark.parametrize("state", ENDED)
async def test_with_a_retention_of_none_payload_and_result_go_at_once_and_the_id_stays_a_minute(
    store, clock, redis, state
):
    await end(store, state, "a", retention_ms=0, payload=b"[1]")

    job = await look(store)
    assert (state, None, None, clock.now) == (job.state, job.payload, job.result, job.finished_at)
    assert (0, 0, 0) == tuple([await redis.hlen(keys().at(name)) for name in ("jobs", "results", "attempts")])

    clock.advance(59.999)
    await store.expire(QUEUE)
    assert state == await state_of(store)
    clock.advance(0.001)
    await store.expire(QUEUE)
    assert await state_of(store) is None
    assert 0 == await redis.zcard(keys().at("expiries"))


async def test_what_is_known_of_a_job_that_is_gone_says_how_it_went(store):
    job = await claimed(store, retention_ms=0, type="special")
    await store.cancel(QUEUE, ["a"])
    await released(store, job)

    gone = await look(store)
    assert (State.CANCELLED, "asked", "special") == (gone.state, gone.reason, gone.type)


async def test_a_day_is_not_a_minute_for_a_job_that_ended_long_ago(store, clock):
    await end(store, "succeeded", "a")
    clock.advance(DAY)
    await store.expire(QUEUE)

    # More than a minute after its end nothing needs to be remembered.
    assert await state_of(store) is None


async def test_the_notes_of_a_job_go_with_it(store, redis, clock):
    job = await claimed(store, retention_ms=0)
    await store.note(QUEUE, [Note("a", job.token, "progress", b"1"), Note("a", job.token, "log", b"line")])
    await acked(store, job)

    assert (0, 0) == (await redis.hlen(keys().at("notes")), await redis.zcard(keys().at("logs")))


async def test_an_ack_lets_at_most_a_hundred_go(store):
    await store.enqueue(QUEUE, [new(f"k{n}") for n in range(130)])
    jobs = await take(store, 130)
    await store.ack(QUEUE, [Ack(job.key, job.token) for job in jobs[:129]], worker=WORKER)
    await store.configure(QUEUE, {"keep_succeeded_count": "1"})
    await acked(store, jobs[129])

    assert 30 == (await store.census(QUEUE)).counts["succeeded"]
    assert (29, False) == await store.expire(QUEUE)


async def test_receipts_of_workers_that_are_gone_are_let_go(store, redis, clock):
    await enqueued(store, "a")
    [job] = (await store.claim(QUEUE, worker="w", turn=1)).jobs
    await acked(store, job)
    clock.advance(599.999)
    await store.expire(QUEUE)
    assert 1 == await redis.hlen(keys().at("receipts"))

    clock.advance(0.001)
    assert (1, False) == await store.expire(QUEUE)
    assert (0, 0) == (await redis.hlen(keys().at("receipts")), await redis.zcard(keys().at("expiries")))


async def test_a_receipt_is_renewed_for_as_long_as_its_worker_claims(store, clock):
    await enqueued(store, *"abc")
    await store.claim(QUEUE, worker="w", turn=1)
    clock.advance(400)
    await store.claim(QUEUE, worker="w", turn=2)
    clock.advance(400)
    await store.expire(QUEUE)

    assert [] == (await store.claim(QUEUE, worker="w", turn=1)).jobs


async def test_a_receipt_is_kept_twice_as_long_as_a_long_lease(store, redis, clock):
    await enqueued(store, "a")
    await store.claim(QUEUE, worker="w", turn=1, lease_ms=3_600_000)
    clock.advance(2 * 3600 - 0.001)
    await store.expire(QUEUE)

    assert 1 == await redis.hlen(keys().at("receipts"))


async def test_letting_go_is_bounded_and_says_whether_more_is_left(store, clock):
    await store.enqueue(QUEUE, [new(f"k{n}", retention_ms=1000) for n in range(25)])
    for job in await take(store, 25):
        await buried(store, job)
    clock.advance(61)

    assert [(10, True), (10, True), (5, False)] == [await store.expire(QUEUE, limit=10) for _ in range(3)]


async def test_a_job_with_its_own_retention_weighs_nothing_in_the_queue_s(store):
    await store.configure(QUEUE, {"keep_succeeded_bytes": "5000"})
    own = await claimed(store, "own", payload=b'"' + b"y" * 20_000 + b'"', retention_ms=600_000)
    await acked(store, own)
    for n in range(3):
        await acked(store, await claimed(store, f"k{n}"))

    assert ["succeeded"] * 4 == await states_of(store, "own", "k0", "k1", "k2")

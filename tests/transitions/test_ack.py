"""running -> succeeded."""

import pytest

from scheduler.job import State
from scheduler.outcomes import Ack, Note
from tests.helpers import (
    QUEUE,
    STATES,
    WORKER,
    acked,
    claimed,
    enqueued,
    events,
    in_every_state,
    in_state,
    look,
    nacked,
    on_real_servers,
    race,
    snapshot,
    state_of,
    take,
    taken,
)


async def ack(store, *items: tuple[str, int]):
    return await store.ack(QUEUE, [Ack(*item) for item in items], worker=WORKER)


async def test_an_acked_job_has_succeeded_with_its_result(store, clock):
    job = await claimed(store)
    clock.advance(3)

    assert "succeeded" == await acked(store, job, b'{"sent": 1}')

    ended = await look(store)
    assert (State.SUCCEEDED, b'{"sent": 1}', clock.now) == (ended.state, ended.result, ended.finished_at)
    assert (1, job.token, WORKER, clock.now - 3000) == (
        ended.attempt,
        ended.token,
        ended.worker,
        ended.started_at,
    )
    assert (None, None, 0) == (ended.reason, ended.lease_expires_at, ended.crashes)


async def test_a_result_may_be_none(store):
    await acked(store, await claimed(store))

    assert None is (await look(store)).result


async def test_only_a_running_job_is_acked(store, redis):
    tokens = await in_every_state(store)
    before = await snapshot(redis)

    answers = dict(
        zip(STATES, await ack(store, *((state, tokens[state] + 1) for state in STATES)), strict=True)
    )

    assert dict.fromkeys(STATES, "stale") == answers
    assert before == await snapshot(redis)


async def test_a_token_that_ended_otherwise_is_stale_for_an_ack(store, redis):
    tokens = await in_every_state(store, ["retrying", "dead", "ready", "cancelled"])
    before = await snapshot(redis)

    assert ["stale"] * 4 == await ack(store, *tokens.items())
    assert before == await snapshot(redis)


async def test_an_ack_of_what_is_not_known_is_missing(store, redis):
    await enqueued(store, "a")
    before = await snapshot(redis)

    assert ["missing", "missing"] == await ack(store, ("b", 1), ("", 0))
    assert before == await snapshot(redis)


async def test_an_ack_on_a_queue_that_is_not_there_makes_nothing(store, redis):
    before = await snapshot(redis)

    assert ["missing"] == await ack(store, ("a", 1))
    assert before == await snapshot(redis)


async def test_an_ack_repeated_is_answered_again_and_changes_nothing(store, redis, clock):
    job = await claimed(store)
    await acked(store, job, b"1")
    before = await snapshot(redis)
    clock.advance(60)

    assert "succeeded" == await acked(store, job, b"2")

    assert before == await snapshot(redis)
    assert b"1" == (await look(store)).result


async def test_an_ack_repeated_is_answered_while_the_id_is_known(store, clock):
    job = await claimed(store, retention_ms=0)
    assert "succeeded" == await acked(store, job)
    clock.advance(59)
    assert "succeeded" == await acked(store, job)

    clock.advance(2)
    await store.expire(QUEUE)
    assert "missing" == await acked(store, job)


async def test_each_of_a_batch_has_its_answer(store):
    await enqueued(store, "a", "b", "c")
    a, b, c = await take(store, 3)
    await acked(store, b)

    answers = await ack(
        store,
        ("a", a.token),
        ("a", a.token + 9),
        ("b", b.token),
        ("c", c.token + 9),
        ("d", 1),
        ("a", a.token),
    )
    assert ["succeeded", "stale", "succeeded", "stale", "missing", "succeeded"] == answers
    assert ["succeeded", "succeeded", "running"] == [await state_of(store, key) for key in "abc"]


async def test_a_full_batch_is_acked_in_one_call(store):
    await enqueued(store, *(f"k{n}" for n in range(500)))
    jobs = await take(store, 500)

    assert ["succeeded"] * 500 == await ack(store, *((job.key, job.token) for job in jobs))
    assert 500 == (await store.census(QUEUE)).counts["succeeded"]


async def test_a_job_that_succeeds_later_keeps_its_failures(store):
    await nacked(store, await claimed(store))
    await nacked(store, await taken(store), retry_in_ms=0)
    await acked(store, await taken(store), b"1")

    job = await look(store)
    assert (State.SUCCEEDED, 3, b"1") == (job.state, job.attempt, job.result)
    assert [1, 2] == [error.attempt for error in job.errors]


async def test_the_ack_of_a_job_that_was_asked_to_stop_wins(store):
    job = await claimed(store)
    await store.cancel(QUEUE, ["a"])

    assert "succeeded" == await acked(store, job, b"1")
    assert (State.SUCCEEDED, None) == ((await look(store)).state, (await look(store)).reason)


async def test_an_ack_counts_and_reports(store, redis):
    await enqueued(store, "a", "b")
    await ack(store, *((job.key, job.token) for job in await take(store, 2)))

    assert "2" == (await store.census(QUEUE)).counters["ack"]
    assert ["a", "b"] == await events(redis, "ack")


async def test_what_a_handler_noted_is_there_after_its_end(store):
    job = await claimed(store)
    await store.note(QUEUE, [Note("a", job.token, "progress", b"99")])
    await acked(store, job)

    assert b"99" == (await look(store)).progress


@on_real_servers
async def test_of_many_acks_at_once_all_are_told_the_same_and_one_counts(store, another_store):
    job = await claimed(store)

    answers = await race(*(acked(each, job, b"%d" % n) for n, each in enumerate([store, another_store] * 10)))

    assert {"succeeded"} == set(answers)
    assert "1" == (await store.census(QUEUE)).counters["ack"]


@on_real_servers
@pytest.mark.parametrize("n", range(3))
async def test_of_an_ack_and_a_nack_at_once_one_wins(store, another_store, n):
    job = await claimed(store)

    first, second = await race(acked(store, job), nacked(another_store, job))

    assert sorted((first, second)) in (["ready", "stale"], ["stale", "succeeded"])
    assert (await look(store)).state in {first, second}


async def test_the_lease_is_gone_with_the_run(store, redis):
    await in_state(store, "succeeded")

    assert (0, 0) == (
        await redis.hlen("{scheduler:mail}:leases"),
        await redis.zcard("{scheduler:mail}:running"),
    )

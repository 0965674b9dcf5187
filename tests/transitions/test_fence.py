"""The worker that comes too late: A's lease ran out, B has the job, and A wakes up. (T-FENCE of FACTS 8.4.)"""

from collections.abc import Awaitable, Callable

import pytest

from scheduler.job import Claimed
from scheduler.outcomes import Ack, Bury, Extend, Nack, Note, Release
from scheduler.store import Store
from tests.helpers import (
    QUEUE,
    Clock,
    acked,
    claimed,
    enqueued,
    look,
    on_real_servers,
    race,
    released,
    snapshot,
    swept,
    take,
    taken,
)

Late = Callable[[Store, Claimed], Awaitable[list[str]]]

LATE: dict[str, Late] = {
    "ack": lambda s, j: s.ack(QUEUE, [Ack(j.key, j.token, b'"A"')], worker="A"),
    "nack": lambda s, j: s.nack(QUEUE, [Nack(j.key, j.token, "E", "of A")], worker="A"),
    "nack later": lambda s, j: s.nack(QUEUE, [Nack(j.key, j.token, "E", "of A", retry_in_ms=5)], worker="A"),
    "bury": lambda s, j: s.bury(QUEUE, [Bury(j.key, j.token, "E", "of A")], worker="A"),
    "release": lambda s, j: s.release(QUEUE, [Release(j.key, j.token)], worker="A"),
    "snooze": lambda s, j: s.release(QUEUE, [Release(j.key, j.token, 9, "snooze")], worker="A"),
    "no handler": lambda s, j: s.release(
        QUEUE, [Release(j.key, j.token, 0, "no_handler")], worker="A", no_handler_after_ms=0
    ),
    "extend": lambda s, j: s.extend(QUEUE, [Extend(j.key, j.token, 600_000)]),
    "progress": lambda s, j: s.note(QUEUE, [Note(j.key, j.token, "progress", b'"A"')]),
    "checkpoint": lambda s, j: s.note(QUEUE, [Note(j.key, j.token, "checkpoint", b'"A"')]),
    "log": lambda s, j: s.note(QUEUE, [Note(j.key, j.token, "log", b"of A")]),
}


async def stolen(store: Store, clock: Clock, **fields) -> tuple[Claimed, Claimed]:
    """One job as A has it, whose lease ran out, and as B has it now."""
    mine = await claimed(store, worker="A", lease_ms=30, **fields)
    clock.advance(0.03)
    assert 1 == await swept(store, clock)
    return mine, await taken(store, worker="B")


async def late_one_changes_nothing(store, redis, clock, verb: str) -> None:
    a, b = await stolen(store, clock)
    before = await snapshot(redis)

    assert ["stale"] == await LATE[verb](store, a)

    assert before == await snapshot(redis)
    assert "succeeded" == await acked(store, b, b'"B"', worker="B")
    assert (b'"B"', "B", 2, b.token) == (
        (job := await look(store)).result,
        job.worker,
        job.attempt,
        job.token,
    )


@pytest.mark.parametrize("verb", LATE)
async def test_whatever_the_late_one_says_is_stale_and_the_result_is_the_others(store, redis, clock, verb):
    await late_one_changes_nothing(store, redis, clock, verb)


async def test_a_late_ack_is_refused(store, redis, clock):
    await late_one_changes_nothing(store, redis, clock, "ack")


async def test_a_late_extend_is_refused(store, redis, clock):
    await late_one_changes_nothing(store, redis, clock, "extend")


@pytest.mark.parametrize("verb", LATE)
async def test_after_the_others_ack_the_late_one_is_still_stale_and_leaves_no_lease(
    store, redis, clock, verb
):
    a, b = await stolen(store, clock)
    await acked(store, b, b'"B"', worker="B")
    before = await snapshot(redis)

    for job in (a, b):
        answer = await LATE[verb](store, job)
        assert answer == (["succeeded"] if verb == "ack" and job is b else ["stale"])
    assert before == await snapshot(redis)
    assert (0, 0) == (
        await redis.hlen("{scheduler:mail}:leases"),
        await redis.zcard("{scheduler:mail}:running"),
    )


@pytest.mark.parametrize("verb", LATE)
async def test_between_the_reclaim_and_the_next_claim_the_late_one_is_stale_too(store, redis, clock, verb):
    a = await claimed(store, worker="A", lease_ms=30)
    clock.advance(0.03)
    await swept(store, clock)
    before = await snapshot(redis)

    assert ["stale"] == await LATE[verb](store, a)
    assert before == await snapshot(redis)


@pytest.mark.parametrize("verb", LATE)
async def test_the_same_worker_that_has_the_job_again_speaks_by_its_new_token_only(store, redis, clock, verb):
    a = await claimed(store, worker="A", lease_ms=30)
    clock.advance(0.03)
    await swept(store, clock)
    again = await taken(store, worker="A")
    before = await snapshot(redis)

    assert ["stale"] == await LATE[verb](store, a)
    assert before == await snapshot(redis)
    assert "succeeded" == await acked(store, again, worker="A")


async def test_a_token_that_nobody_was_given_is_stale(store, redis):
    job = await claimed(store, worker="A")
    before = await snapshot(redis)

    for token in (job.token + 1, job.token - 1, 0, 1, 2**53):
        for verb in LATE.values():
            assert ["stale"] == await verb(store, Claimed(QUEUE, "a", token, 1, 0, 0, 0, None))
    assert before == await snapshot(redis)


async def test_a_token_of_one_job_is_none_of_another(store, redis):
    await enqueued(store, "a", "b")
    a, b = await take(store, 2)
    before = await snapshot(redis)

    for verb in LATE.values():
        assert ["stale"] == await verb(store, Claimed(QUEUE, "a", b.token, 1, 0, 0, 0, None))
    assert before == await snapshot(redis)
    assert "ready" == await released(store, a)


async def test_in_one_batch_the_late_one_spoils_nothing_for_the_others(store, clock):
    a, b = await stolen(store, clock)
    other = await claimed(store, "other")

    acks = [Ack(a.key, a.token, b'"A"'), Ack(b.key, b.token, b'"B"'), Ack("other", other.token)]
    assert ["stale", "succeeded", "succeeded"] == await store.ack(QUEUE, acks, worker="A")
    assert b'"B"' == (await look(store)).result


@on_real_servers
async def test_both_at_once_and_the_result_is_the_owners(store, another_store, clock):
    for n in range(20):
        await enqueued(store, f"k{n}")
        [a] = await take(store, worker="A", lease_ms=30)
        clock.advance(0.03)
        await swept(store, clock)
        [b] = await take(store, worker="B")

        late, owner, _ = await race(
            LATE["ack"](another_store, a),
            acked(store, b, b'"B"', worker="B"),
            LATE["extend"](another_store, a),
        )
        assert (["stale"], "succeeded", b'"B"') == (late, owner, (await look(store, f"k{n}")).result)

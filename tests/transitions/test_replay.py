"""dead -> ready: once more, from the beginning."""

import pytest

from scheduler.job import State
from tests.helpers import (
    QUEUE,
    STATES,
    acked,
    buried,
    claimed,
    events,
    in_every_state,
    in_state,
    look,
    nacked,
    on_real_servers,
    race,
    record_of,
    snapshot,
    state_of,
    states_of,
    swept,
    take,
    taken,
)


async def replay(store, key: str = "a", payload: bytes | None = None):
    [answer] = await store.replay(QUEUE, [(key, payload)])
    return answer


async def test_a_replayed_job_begins_again_and_keeps_its_errors(store, clock):
    await claimed(store, retry={"max_crashes": 1})
    clock.advance(31)
    await swept(store, clock)
    assert ("dead", 1, 1) == (
        (await look(store)).state,
        (await look(store)).attempt,
        (await look(store)).crashes,
    )

    assert "ready" == await replay(store)

    job = await look(store)
    assert (State.READY, None, 0, 0, 1) == (job.state, job.reason, job.attempt, job.crashes, len(job.errors))
    assert (0, None) == ((await store.census(QUEUE)).counts["dead"], job.finished_at)
    assert 1 == (await taken(store)).attempt


async def test_a_replayed_job_has_all_its_attempts_again(store):
    await nacked(store, await claimed(store, retry={"max_attempts": 1}))
    await replay(store)

    assert "dead" == await nacked(store, await taken(store))
    assert [1, 1] == [error.attempt for error in (await look(store)).errors]


async def test_it_can_be_replayed_again_and_again(store):
    await in_state(store, "dead")
    for _ in range(3):
        assert "ready" == await replay(store)
        await buried(store, await taken(store))

    assert 4 == len((await look(store)).errors)


async def test_a_replay_may_bring_another_payload_and_the_former_one_is_kept(store, clock):
    await buried(store, await claimed(store, payload=b'{"to": "nobody"}'))
    clock.advance(1)

    assert "ready" == await replay(store, payload=b'{"to": "somebody"}\n')

    job = await taken(store)
    assert b'{"to": "somebody"}\n' == record_of(job).payload
    assert ((clock.now, b'{"to": "nobody"}'),) == (await look(store)).edits


async def test_the_newest_ten_former_payloads_are_kept(store):
    await buried(store, await claimed(store, payload=b"[0]"))
    for n in range(1, 15):
        await replay(store, payload=b"\n[%d]|" % n)
        await buried(store, await taken(store))

    assert [b"\n[%d]|" % n for n in range(4, 14)] == [payload for _, payload in (await look(store)).edits]


async def test_only_a_dead_job_is_replayed(store, redis):
    states = [state for state in STATES if state != "dead"]
    await in_every_state(store, states)
    before = await snapshot(redis)

    refused = ["already" if state == "ready" else state for state in states]
    assert refused == await store.replay(QUEUE, [(state, b"[1]") for state in states])
    assert ["missing"] == await store.replay(QUEUE, [("nobody", None)])
    assert before == await snapshot(redis)


async def test_on_a_queue_that_is_not_there_nothing_is_replayed(store, redis):
    before = await snapshot(redis)

    assert (0, False) == await store.replay_page("nowhere")
    assert ["missing"] == await store.replay("nowhere", [("a", None)])
    assert before == await snapshot(redis)


async def test_a_replay_repeated_says_where_the_job_is_now_and_changes_nothing(store, redis, clock):
    await in_state(store, "dead")
    await replay(store, payload=b"[1]")
    before = await snapshot(redis)
    clock.advance(1)

    assert "already" == await replay(store, payload=b"[1]")
    assert before == await snapshot(redis)


async def test_one_id_twice_is_replayed_once(store):
    await in_state(store, "dead")

    assert ["ready", "ready"] == await store.replay(QUEUE, [("a", b"[1]"), ("a", b"[2]")])
    assert (b"[1]", 1) == ((await look(store)).payload, len((await look(store)).edits))


async def dead(store, clock, count: int = 5, **fields) -> None:
    for n in range(count):
        await buried(store, await claimed(store, f"k{n}", **fields))
        clock.advance(1)


async def test_a_page_takes_the_oldest_first_and_says_whether_it_was_full(store, clock):
    await dead(store, clock)

    assert (2, True) == await store.replay_page(QUEUE, limit=2)
    assert ["ready", "ready", "dead", "dead", "dead"] == await states_of(store, *(f"k{n}" for n in range(5)))
    assert (3, False) == await store.replay_page(QUEUE, limit=4)
    assert (0, False) == await store.replay_page(QUEUE)


@pytest.mark.parametrize(
    "fields", [{}, {"retention_ms": 600_000}], ids=["the queue's retention", "their own"]
)
async def test_a_page_takes_only_what_ended_before_a_time_oldest_first(store, clock, fields):
    began = clock.now
    await dead(store, clock, **fields)

    assert (1, True) == await store.replay_page(QUEUE, before_ms=began + 2000, limit=1)
    assert ["k0"] == [job.key for job in await take(store, 5)]
    assert (2, False) == await store.replay_page(QUEUE, before_ms=began + 2000)
    assert ["k1", "k2"] == sorted(job.key for job in await take(store, 5))


async def test_large_payloads_are_not_read_and_end_no_page(store, clock):
    for n in range(6):
        await buried(store, await claimed(store, f"k{n}", payload=b"x" * 1024 * 1024))

    assert [(6, False), (0, False)] == [await store.replay_page(QUEUE) for _ in range(2)]


async def test_a_job_with_a_retention_of_its_own_is_not_let_go_after_it_was_replayed(store, clock):
    await buried(store, await claimed(store, retention_ms=10_000))
    await replay(store)
    clock.advance(3600)
    await store.expire(QUEUE)
    assert "ready" == await state_of(store)

    await acked(store, await taken(store))
    clock.advance(3600)
    await store.expire(QUEUE)
    assert await state_of(store) is None


async def test_a_replay_counts_reports_and_rings(store, redis):
    await in_state(store, "dead")
    await redis.unlink("{scheduler:mail}:bell")
    await replay(store)

    assert "1" == (await store.census(QUEUE)).counters["replay"]
    assert (["a"], 1) == (await events(redis, "replay"), await redis.llen("{scheduler:mail}:bell"))


@on_real_servers
async def test_of_two_replays_at_once_one_makes_it_ready(store, another_store, redis):
    await in_state(store, "dead")

    answers = await race(*(replay(each) for each in [store, another_store] * 5))
    assert ["already"] * 9 + ["ready"] == sorted(answers)
    assert ["a"] == await events(redis, "replay")


async def test_the_bytes_of_the_dead_are_counted_down(store):
    await buried(store, await claimed(store, payload=b"x" * 1000))
    assert 1000 < int((await store.census(QUEUE)).counters["bytes_dead"]) < 1100
    await replay(store, payload=b"y" * 5000)

    assert "0" == (await store.census(QUEUE)).counters["bytes_dead"]

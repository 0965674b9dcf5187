"""waiting or ended -> gone, by name or by pages. What retention lets go stands in test_retention.py."""

import pytest

from scheduler.outcomes import Note
from tests.helpers import (
    QUEUE,
    STATES,
    acked,
    buried,
    claimed,
    enqueued,
    events,
    in_every_state,
    in_state,
    keys,
    nacked,
    new,
    on_real_servers,
    race,
    snapshot,
    state_of,
    states_of,
    take,
)

REST = [state for state in STATES if state != "running"]


async def traces(redis, key: str = "a") -> list[str]:
    """Where in the queue's keys a job's id still stands; its events are history."""
    found = []
    for name, (kind, value) in (await snapshot(redis)).items():
        members = {"hash": list, "zset": lambda pairs: [member for member, _ in pairs]}.get(
            kind, lambda _: []
        )(value)
        found += [
            name for member in members if member == key.encode() or member.startswith(f"{key}:".encode())
        ]
    return found


@pytest.mark.parametrize("state", REST)
async def test_a_job_that_does_not_run_is_gone_from_everywhere(store, redis, state):
    await in_state(store, state)

    assert ["gone"] == await store.purge(QUEUE, ["a"])
    assert (None, []) == (await state_of(store), await traces(redis))


async def test_what_handlers_and_editors_left_goes_too(store, redis):
    await enqueued(store, "a")
    await store.update(QUEUE, "a", payload=b"[1]")
    [job] = await take(store)
    await store.note(
        QUEUE, [Note("a", job.token, field, b"1") for field in ("progress", "checkpoint", "log", "log")]
    )
    await buried(store, job)
    # A neighbour whose id begins alike keeps its own.
    other = await claimed(store, "a.b")
    await store.note(
        QUEUE, [Note("a.b", other.token, "log", b"1"), Note("a.b", other.token, "progress", b"1")]
    )

    await store.purge(QUEUE, ["a"])
    assert [] == await traces(redis)
    assert 1 == await redis.zcard(keys().at("logs")) == await redis.hlen(keys().at("notes"))


async def test_a_running_job_may_not_go(store, redis):
    await claimed(store)
    before = await snapshot(redis)

    assert ["running"] == await store.purge(QUEUE, ["a"])
    assert before == await snapshot(redis)


async def test_a_purge_repeated_finds_nothing(store, redis):
    await in_state(store, "dead")
    await store.purge(QUEUE, ["a"])
    before = await snapshot(redis)

    assert ["missing"] == await store.purge(QUEUE, ["a"])
    assert ["missing"] == await store.purge("nowhere", ["a"])
    assert before == await snapshot(redis)


async def test_an_id_that_is_only_known_can_be_forgotten(store):
    await acked(store, await claimed(store, retention_ms=0))

    assert ["gone", "missing"] == [*await store.purge(QUEUE, ["a"]), *await store.purge(QUEUE, ["a"])]
    assert await state_of(store) is None
    await enqueued(store, "a", payload=b"[1]")


async def test_each_of_a_batch_has_its_answer(store):
    await in_every_state(store)

    answers = dict(zip(STATES, await store.purge(QUEUE, STATES), strict=True))
    assert {state: "running" if state == "running" else "gone" for state in STATES} == answers
    assert ["missing", "running"] == await store.purge(QUEUE, ["dead", "running"])


async def test_one_id_twice_goes_once(store, redis):
    await in_state(store, "dead")

    assert ["gone", "missing"] == await store.purge(QUEUE, ["a", "a"])
    assert ["a"] == await events(redis, "purge")


@pytest.mark.parametrize("state", REST)
async def test_a_page_takes_so_many_of_a_state_and_says_whether_it_was_full(store, state):
    for n in range(5):
        await in_state(store, state if state != "ready" else "scheduled", f"k{n}")
    if state == "ready":
        await store.promote_ids(QUEUE, [f"k{n}" for n in range(5)])

    assert [(2, True), (2, True), (1, False), (0, False)] == [
        await store.purge_page(QUEUE, state, limit=2) for _ in range(4)
    ]


async def test_a_page_of_a_state_leaves_the_others(store):
    await in_every_state(store)
    assert (1, False) == await store.purge_page(QUEUE, "dead")

    assert [None if state == "dead" else state for state in STATES] == await states_of(store, *STATES)


@pytest.mark.parametrize("own", [{}, {"retention_ms": 600_000}], ids=["the queue's retention", "their own"])
async def test_a_page_takes_only_what_ended_before_a_time_oldest_first(store, clock, own):
    began = clock.now
    for n in range(5):
        await buried(store, await claimed(store, f"k{n}", **own))
        clock.advance(1)

    assert (1, True) == await store.purge_page(QUEUE, "dead", before_ms=began + 2000, limit=1)
    assert [None, "dead"] == await states_of(store, "k0", "k1")
    assert (2, False) == await store.purge_page(QUEUE, "dead", before_ms=began + 2000)
    assert [None, None, None, "dead", "dead"] == await states_of(store, *(f"k{n}" for n in range(5)))


async def test_a_page_of_what_waits_takes_what_entered_or_is_due_before_a_time(store, clock):
    began = clock.now
    await enqueued(store, "early")
    clock.advance(10)
    await enqueued(store, "late")
    await enqueued(store, "soon", delay_ms=1000)
    await enqueued(store, "later", delay_ms=5000)

    assert (1, False) == await store.purge_page(QUEUE, "ready", before_ms=began + 5000)
    assert (1, False) == await store.purge_page(QUEUE, "scheduled", before_ms=clock.now + 2000)
    assert [None, "ready", None, "scheduled"] == await states_of(store, "early", "late", "soon", "later")


async def test_a_page_on_a_queue_that_is_not_there_makes_nothing(store, redis):
    before = await snapshot(redis)

    assert (0, False) == await store.purge_page("nowhere", "dead")
    assert (0, False) == await store.expire("nowhere")
    assert before == await snapshot(redis)


async def test_the_bytes_of_ended_jobs_are_counted_down(store):
    for key in "ab":
        await acked(store, await claimed(store, key, payload=b"x" * 1000), b"y" * 1000)
    both = int((await store.census(QUEUE)).counters["bytes_succeeded"])
    await store.purge(QUEUE, ["a"])

    assert 4000 < both == 2 * int((await store.census(QUEUE)).counters["bytes_succeeded"])
    await store.purge(QUEUE, ["b"])
    assert "0" == (await store.census(QUEUE)).counters["bytes_succeeded"]


async def test_purging_counts_and_reports(store, redis):
    await enqueued(store, "a", "b")
    await store.purge(QUEUE, ["a", "b"])

    assert "2" == (await store.census(QUEUE)).counters["purge"]
    assert ["a", "b"] == sorted(await events(redis, "purge"))


@on_real_servers
async def test_a_purge_and_a_claim_at_once_end_in_one_of_two_ways(store, another_store, redis):
    for n in range(20):
        await store.enqueue(QUEUE, [new(f"k{n}")])
        [answer], jobs = await race(store.purge(QUEUE, [f"k{n}"]), take(another_store))

        assert (answer, len(jobs)) in [("gone", 0), ("running", 1)]


async def test_a_job_deleted_while_it_waits_for_its_retry_never_comes_back(store, clock):
    await nacked(store, await claimed(store, retry={"immediate": 0}))
    await store.purge(QUEUE, ["a"])
    clock.advance(7200)
    await store.promote(QUEUE)

    assert [] == await take(store)

"""scheduled, blocked, ready or retrying, changed in place."""

import pytest

from scheduler.errors import Changed
from scheduler.job import State
from tests.helpers import (
    QUEUE,
    claimed,
    damaged,
    enqueued,
    events,
    in_every_state,
    in_state,
    keys,
    look,
    nacked,
    new,
    on_real_servers,
    race,
    raw,
    record_of,
    snapshot,
    state_of,
    take,
    taken,
)

UNSTARTED = ("scheduled", "blocked", "ready", "retrying")


@pytest.mark.parametrize("state", UNSTARTED)
async def test_priority_payload_and_tags_of_a_job_that_has_not_started_are_changed(store, state):
    await in_state(store, state, payload=b"[0]", tags=["old"], group="g")

    assert state == await store.update(QUEUE, "a", priority=7, payload=b"[1]", tags=["x", "y"])

    job = await look(store)
    assert (state, 7, b"[1]", ("x", "y"), "g") == (job.state, job.priority, job.payload, job.tags, job.group)
    assert [b"[0]"] == [payload for _, payload in job.edits]


async def test_what_is_not_named_stays(store, redis):
    await enqueued(
        store, "a", payload=b"[1]", tags=["t"], priority=3, timeout_ms=5, retention_ms=7, retry={"base": 1}
    )
    before = await redis.hget(keys().at("jobs"), "a")

    assert "ready" == await store.update(QUEUE, "a")
    assert before == await redis.hget(keys().at("jobs"), "a")
    await store.update(QUEUE, "a", priority=4)
    assert before.replace(b"|3|", b"|4|") == await redis.hget(keys().at("jobs"), "a")
    await store.update(QUEUE, "a", priority=0)
    assert before.replace(b"|3|", b"||") == await redis.hget(keys().at("jobs"), "a")


async def test_an_edited_payload_is_the_one_that_runs(store):
    await enqueued(store, "a", payload=b"[0]")
    await store.update(QUEUE, "a", payload=b'\n{"b|": "\\n"} ')

    job = await taken(store)
    assert b'\n{"b|": "\\n"} ' == record_of(job).payload


async def test_tags_may_be_taken_away(store):
    await enqueued(store, "a", tags=["t"])

    assert "ready" == await store.update(QUEUE, "a", tags=[])
    assert () == (await look(store)).tags
    assert "ready" == await store.update(QUEUE, "a", tags=["u"])
    assert ("u",) == (await look(store)).tags


async def test_a_time_to_come_makes_a_ready_job_scheduled(store, clock):
    await enqueued(store, "a")

    assert "scheduled" == await store.update(QUEUE, "a", delay_ms=5000)
    assert clock.now + 5000 == (await look(store)).run_at
    clock.advance(4.999)
    assert [] == await take(store)
    clock.advance(0.001)
    assert "a" == (await taken(store)).key


@pytest.mark.parametrize("change", [{"delay_ms": 0}, {"run_at_ms": 5}, {"run_at_ms": 1_800_000_000_000}])
@pytest.mark.parametrize("state", ["scheduled", "retrying"])
async def test_a_time_that_is_over_makes_a_waiting_job_ready(store, state, change):
    await in_state(store, state)

    assert "ready" == await store.update(QUEUE, "a", **change)
    assert (State.READY, None) == ((await look(store)).state, (await look(store)).run_at)
    assert "a" == (await taken(store)).key


async def test_a_retrying_job_stays_retrying_with_its_new_time(store, clock):
    await in_state(store, "retrying")

    assert "retrying" == await store.update(QUEUE, "a", run_at_ms=clock.now + 90_000)
    assert clock.now + 90_000 == (await look(store)).run_at


async def test_a_time_that_is_over_leaves_a_ready_job_where_it_is(store):
    await enqueued(store, "a", "b")

    assert "ready" == await store.update(QUEUE, "b", delay_ms=0)
    assert ["a", "b"] == [job.key for job in await take(store, 2)]


async def test_a_blocked_job_has_no_time_of_its_own(store, redis):
    await in_state(store, "blocked")
    before = await snapshot(redis)

    [answer] = await raw(store, "update", 1, "a", "", 5000, "", "", "", "", "")
    assert (b"blocked", before) == (answer, await snapshot(redis))


async def test_a_job_that_runs_or_has_ended_is_not_changed(store, redis):
    states = ("running", "succeeded", "cancelled", "dead")
    await in_every_state(store, states)
    before = await snapshot(redis)

    for state in states:
        assert state == await store.update(QUEUE, state, priority=5, payload=b"[1]", delay_ms=5, tags=["t"])
    assert ["missing", "missing"] == [
        await store.update(QUEUE, "nobody", priority=5),
        await store.update("nowhere", "a", tags=[]),
    ]
    assert before == await snapshot(redis)


async def test_a_job_that_waits_again_after_a_failure_can_be_changed(store):
    await nacked(store, await claimed(store))

    assert "ready" == await store.update(QUEUE, "a", payload=b"[1]")
    job = await taken(store)
    assert (b"[1]", 2) == (record_of(job).payload, job.attempt)


async def test_two_who_change_the_tags_at_once_lose_nothing(store, redis):
    await enqueued(store, "a", tags=["t"])
    [answer] = await raw(
        store, "update", 1, "a", "", "", "", "", "", '{"tags":["other"]}', '{"tags":["new"]}'
    )

    assert (b"changed", ("t",)) == (answer, (await look(store)).tags)
    [answer] = await raw(store, "update", 1, "a", "", "", "", "", "", '{"tags":["t"]}', '{"tags":["new"]}')
    assert (b"ready", ("new",)) == (answer, (await look(store)).tags)


@on_real_servers
async def test_many_who_change_the_tags_at_once_all_have_their_turn(store, another_store):
    await enqueued(store, "a")
    stores = [store, another_store]

    answers = await race(
        *(stores[n % 2].update(QUEUE, "a", tags=[f"t{n}"]) for n in range(6)), return_exceptions=True
    )
    assert all(answer == "ready" or isinstance(answer, Changed) for answer in answers)
    assert "ready" in answers


async def test_one_id_twice_is_changed_once(store):
    await enqueued(store, "a")

    assert [b"ready", b"changed"] == await raw(store, "update", 2, "a", 5, *[""] * 6, "a", 6, *[""] * 6)
    assert 5 == (await look(store)).priority


async def test_a_damaged_record_is_not_touched(store, redis):
    await enqueued(store, "a")
    await damaged(store, "a", "damaged")
    before = await snapshot(redis)

    await raw(store, "update", 1, "a", 5, *[""] * 6)
    assert before == await snapshot(redis)
    assert [] == await take(store)


async def test_the_newest_ten_former_payloads_are_kept(store):
    await enqueued(store, "a", payload=b"[0]")
    for n in range(1, 15):
        await store.update(QUEUE, "a", payload=b"\n%d 5\n" % n)

    assert [b"\n%d 5\n" % n for n in range(4, 14)] == [payload for _, payload in (await look(store)).edits]


async def test_a_change_is_reported(store, redis):
    await enqueued(store, "a")
    await store.update(QUEUE, "a", priority=5)

    assert ["a"] == await events(redis, "update")


async def test_an_update_repeated_changes_no_more(store, clock):
    await enqueued(store, "a", payload=b"[0]")
    for _ in range(2):
        assert "scheduled" == await store.update(
            QUEUE, "a", priority=3, run_at_ms=clock.now + 1000, tags=["t"]
        )
        clock.advance(0.1)

    job = await look(store)
    assert (State.SCHEDULED, 3, ("t",)) == (job.state, job.priority, job.tags)


@on_real_servers
async def test_an_update_and_a_claim_at_once_end_in_one_of_two_ways(store, another_store):
    for n in range(20):
        await store.enqueue(QUEUE, [new(f"k{n}", payload=b"[0]")])
        answer, jobs = await race(store.update(QUEUE, f"k{n}", payload=b"[1]"), take(another_store))

        [job] = jobs
        assert (answer, record_of(job).payload) in [("ready", b"[1]"), ("running", b"[0]")]
        assert "running" == await state_of(store, f"k{n}")

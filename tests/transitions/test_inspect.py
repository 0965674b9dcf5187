"""All that is kept of some jobs; read only."""

import pytest

from scheduler.errors import NotFound
from scheduler.outcomes import TypePolicy
from tests.helpers import (
    QUEUE,
    STATES,
    acked,
    claimed,
    enqueued,
    in_every_state,
    keys,
    look,
    new,
    raw,
    snapshot,
    state_of,
    states_of,
)


async def test_a_job_is_shown_in_whatever_state_it_stands_and_nothing_changes(store, redis):
    await in_every_state(store)
    before = await snapshot(redis)

    assert list(STATES) == await states_of(store, *STATES)
    assert before == await snapshot(redis)


async def test_what_is_not_known_is_none(store, redis):
    await enqueued(store, "a")

    assert [None, "ready", None] == await states_of(store, "b", "a", "")
    assert [None] == await store.inspect("nowhere", ["a"])
    assert [] == await store.inspect(QUEUE, [])
    with pytest.raises(NotFound):
        await look(store, "b")
    assert not [key for key in await snapshot(redis) if "nowhere" in key]


async def test_payload_result_and_edits_come_when_they_are_asked_for(store):
    await enqueued(store, "a", payload=b"[0]")
    await store.update(QUEUE, "a", payload=b"[1]")
    [job] = (await store.claim(QUEUE, worker="w")).jobs
    await acked(store, job, b"[2]")

    [bare] = await store.inspect(QUEUE, ["a"])
    [with_payload] = await store.inspect(QUEUE, ["a"], payload=True)
    [with_result] = await store.inspect(QUEUE, ["a"], result=True)
    assert (None, None, 0) == (bare.payload, bare.result, len(bare.edits))
    assert (b"[1]", None, 1) == (with_payload.payload, with_payload.result, len(with_payload.edits))
    assert (None, b"[2]", 0) == (with_result.payload, with_result.result, len(with_result.edits))


async def test_a_job_is_shown_with_the_policy_in_force(store):
    await store.configure_type(QUEUE, "send", TypePolicy(5000, {"max_attempts": 7}))
    await store.configure_type(QUEUE, "send", TypePolicy(6000, {"max_attempts": 8}), declared=True)
    await enqueued(store, "a")
    await enqueued(store, "b", timeout_ms=4000, retry={"max_attempts": 9})

    assert [(7, 5000), (9, 4000)] == [
        (job.max_attempts, job.timeout_ms) for job in await store.inspect(QUEUE, ["a", "b"])
    ]


@pytest.mark.unverified
@pytest.mark.parametrize(
    "record", [b"", b"damaged", b"a|b|c|d|e|f|g\n{}\n{}", b"send||||||\n{\n{}", b"\xff|||1|||\n\n{}"]
)
async def test_a_damaged_record_is_shown_as_far_as_it_can_be(store, redis, record):
    await enqueued(store, "a")
    await redis.hset(keys().at("jobs"), "a", record)

    assert "ready" == await state_of(store)
    assert record == (await look(store)).payload
    (await look(store)).document()


@pytest.mark.unverified
async def test_other_damage_hides_no_job(store, redis):
    await claimed(store)
    await redis.hset(keys().at("leases"), "a", b"\xff")
    await redis.hset(keys().at("attempts"), "a", b"\xff|1")
    await redis.hset(keys().at("types"), "send", b"\xff|\n{")

    assert ("running", 0, ()) == ((job := await look(store)).state, job.attempt, job.errors)


async def test_five_hundred_are_shown_in_one_call(store):
    await store.enqueue(QUEUE, [new(f"k{n}") for n in range(500)])

    assert ["ready"] * 500 == await states_of(store, *(f"k{n}" for n in range(500)))
    await store.purge_page(QUEUE, "ready", limit=500)


async def test_the_reply_is_text_and_numbers_only(store, clock):
    await claimed(store)

    reply = await raw(store, "inspect", "payload result", 1, "a")
    assert 12 == len(reply)
    assert all(isinstance(part, bytes) for part in reply)
    assert str(clock.now).encode() == reply[0]


async def test_a_document_has_every_field(store):
    await acked(store, await claimed(store, payload=b'{"a": 1}', tags=["t"]), b"[1]")

    document = (await look(store)).document()
    assert ["mail:a", "send", "succeeded"] == [document[name] for name in ("id", "type", "state")]
    assert ("2027-01-15T08:00:00.000Z", 1, 20, 3600) == tuple(
        document[name] for name in ("created_at", "attempt", "max_attempts", "timeout")
    )

"""(new) -> ready | scheduled."""

from typing import Any

import pytest
from msgspec.structs import replace
from redis.exceptions import ResponseError

from scheduler.calling import BATCH
from scheduler.errors import Duplicate
from scheduler.job import State
from scheduler.keys import Keys
from scheduler.outcomes import Nack
from tests.helpers import (
    QUEUE,
    WORKER,
    acked,
    buried,
    claimed,
    enqueued,
    events,
    in_every_state,
    keys,
    look,
    new,
    on_real_servers,
    race,
    raw,
    record_of,
    released,
    snapshot,
    state_of,
    take,
    taken,
)

PAYLOADS = {
    "empty object": b"{}",
    "empty array": b"[]",
    "nested empty arrays": b"[[]]",
    "two to the 63rd": b"9223372036854775808",
    "a tiny number": b"1e-320",
    "60 digits": b"1." + b"123456789" * 6 + b"123456",
    "an escaped NUL": b'"\\u0000"',
    "500 levels": b"[" * 500 + b"]" * 500,
    "text of all kinds": '{"a": "\U0001f680 שלום e\u0301\\n|\\r"}  \n'.encode(),
    "spaces and line ends": b'\n {"a" :\r\n1}\n\n',
    "what is no JSON": bytes(range(256)),
    "1 MiB": b'"' + b"x" * (1024 * 1024 - 2) + b'"',
}


async def test_a_new_job_is_ready(store, clock):
    [done] = await store.enqueue(QUEUE, [new("a", payload=b'{"to": 1}', tags=("x", "y"), group="g")])

    assert ("mail:a", "ready", clock.now, None) == (done.id, done.outcome, done.created_at, done.run_at)
    job = await look(store)
    assert (State.READY, 0, 0, clock.now) == (job.state, job.attempt, job.token, job.created_at)
    assert (b'{"to": 1}', "send", ("x", "y"), "g") == (job.payload, job.type, job.tags, job.group)


async def test_a_delayed_job_is_scheduled_until_it_is_due(store, clock):
    [done] = await store.enqueue(QUEUE, [new("a", delay_ms=2000)])

    assert ("scheduled", clock.now + 2000) == (done.outcome, done.run_at)
    job = await look(store)
    assert (State.SCHEDULED, clock.now + 2000) == (job.state, job.run_at)
    clock.advance(1.999)
    assert [] == await take(store)
    clock.advance(0.001)
    assert "a" == (await taken(store)).key


@pytest.mark.parametrize(
    "field",
    [{"delay_ms": 0}, {"run_at_ms": 1_700_000_000_000}, {"run_at_ms": 1_800_000_000_000}, {"run_at_ms": -5}],
)
async def test_a_time_that_is_over_is_now(store, field):
    assert ["ready"] == [job.outcome for job in await store.enqueue(QUEUE, [new("a", **field)])]


async def test_the_first_job_makes_the_queue_and_registers_it(store):
    assert [] == await store.queues()
    await enqueued(store, "a")

    assert [QUEUE] == await store.queues()


async def test_the_first_enqueue_says_that_the_queue_is_new_and_no_later_one(store):
    assert [True, False] == [
        (await store.run(store.enqueue_call(QUEUE, [new(key)])))[0].new_queue for key in ("a", "b")
    ]


async def test_the_same_request_again_is_the_same_job(store, redis, clock):
    await enqueued(store, "a", priority=3, delay_ms=5)
    before = await snapshot(redis)
    clock.advance(1)

    assert ["exists"] == [
        job.outcome for job in await store.enqueue(QUEUE, [new("a", priority=3, delay_ms=5)])
    ]

    assert before == await snapshot(redis)


OTHERS: list[dict[str, Any]] = [
    {"type": "other"},
    {"payload": b"[]"},
    {"payload": b"{} "},
    {"priority": 1},
    {"delay_ms": 0},
    {"run_at_ms": 1},
    {"group": "g"},
    {"tags": ["t"]},
    {"timeout_ms": 5},
    {"retry": {"base": 1}},
    {"retention_ms": 5},
    {"copied_from": "mail:b"},
]


async def test_another_request_with_the_same_id_is_a_conflict_and_changes_nothing(store, redis):
    await enqueued(store, "a")
    before = await snapshot(redis)

    for changed in OTHERS:
        assert ["conflict"] == [job.outcome for job in await store.enqueue(QUEUE, [new("a", **changed)])], (
            changed
        )
    with pytest.raises(Duplicate):
        await store.enqueue_one(new("a", payload=b"[]"))

    assert before == await snapshot(redis)


async def test_the_trace_of_a_request_does_not_make_it_another(store):
    await enqueued(store, "a", traceparent="00-1")

    assert "exists" == (await store.enqueue_one(new("a", traceparent="00-2"))).outcome
    assert "00-1" == (await look(store)).traceparent


async def test_a_job_is_the_same_in_whatever_state_it_stands(store, redis):
    tokens = await in_every_state(store)
    first: dict[str, dict[str, Any]] = {
        state: {"delay_ms": 3_600_000} if state == "scheduled" else {} for state in tokens
    }
    first["retrying"] = {"retry": {"immediate": 0}}
    before = await snapshot(redis)

    done = await store.enqueue(QUEUE, [new(state, **first[state]) for state in tokens])

    assert {"exists"} == {job.outcome for job in done}
    assert before == await snapshot(redis)


async def test_one_id_twice_in_a_batch_is_one_job(store):
    done = await store.enqueue(QUEUE, [new("a"), new("b"), new("a"), new("b", payload=b"[]")])

    assert ["ready", "ready", "exists", "conflict"] == [job.outcome for job in done]
    assert 2 == (await store.census(QUEUE)).counts["ready"]


async def test_an_edited_job_is_still_the_job_of_its_request(store):
    await enqueued(store, "a")
    await store.update(QUEUE, "a", payload=b"[1]", priority=5, tags=["new"])

    assert "exists" == (await store.enqueue_one(new("a"))).outcome
    assert b"[1]" == (await look(store)).payload


async def test_the_id_of_a_job_that_has_just_gone_is_not_taken_again_for_a_minute(store, clock, redis):
    await acked(store, await claimed(store, retention_ms=0))
    before = await snapshot(redis)

    clock.advance(59.999)
    assert "exists" == (await store.enqueue_one(new("a", retention_ms=0))).outcome
    with pytest.raises(Duplicate):
        await store.enqueue_one(new("a", retention_ms=0, payload=b"[]"))
    assert before == await snapshot(redis)

    clock.advance(0.001)
    assert "ready" == (await store.enqueue_one(new("a", payload=b"[]"))).outcome
    assert "ready" == await state_of(store)


async def test_the_id_of_a_deleted_job_is_free_at_once(store):
    await buried(store, await claimed(store))
    await store.purge(QUEUE, ["a"])

    assert "ready" == (await store.enqueue_one(new("a", payload=b"[]"))).outcome
    assert () == (await look(store)).errors


async def test_without_a_fingerprint_type_and_payload_make_a_request(store):
    async def outcome(kind: str, payload: str):
        [_, _, outcome, _] = await raw(store, "enqueue", 1, "a", kind, payload, *[""] * 9)
        return outcome.decode()

    assert "ready" == await outcome("send", "[1]")
    assert "exists" == await outcome("send", "[1]")
    assert "conflict" == await outcome("send", "[1] ")
    assert "conflict" == await outcome("other", "[1]")


async def test_an_empty_payload_is_an_empty_object(store):
    await raw(store, "enqueue", 1, "a", "send", "", *[""] * 9)

    assert b"{}" == (await look(store)).payload


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS.keys())
async def test_a_payload_and_a_result_come_back_byte_for_byte(store, payload):
    job = await claimed(store, payload=payload)

    assert payload == record_of(job).payload
    await acked(store, job, payload)
    ended = await look(store)
    assert (payload, payload) == (ended.payload, ended.result)


async def test_a_thousand_jobs_of_one_millisecond_keep_their_order(store, clock, backend):
    count = 199 if backend == "fake" else 999
    at = clock.now + 5000
    await enqueued(store, *(f"{n * 7919 % count}-{n}" for n in range(count)), run_at_ms=at)
    await enqueued(store, "long-before", run_at_ms=at - 1)
    # Others in between do not break the row.
    await enqueued(store, "last", run_at_ms=at)
    clock.advance(5)

    ran = []
    while jobs := await take(store, 100):
        ran += [job.key for job in jobs]
    assert ["long-before", *(f"{n * 7919 % count}-{n}" for n in range(count)), "last"] == ran


async def test_a_long_delay_does_not_hold_back_a_short_one(store, clock):
    for key, delay in {"third": 3000, "first": 1000, "second": 2000}.items():
        await enqueued(store, key, delay_ms=delay)
    clock.advance(1)
    assert ["first"] == [job.key for job in await take(store, 5)]
    clock.advance(5)
    assert ["second", "third"] == [job.key for job in await take(store, 5)]


async def test_many_jobs_go_in_batches_and_each_has_its_answer(store):
    done = await store.enqueue(QUEUE, [new(f"k{n}") for n in range(BATCH + 1)])

    assert [f"mail:k{n}" for n in range(BATCH + 1)] == [job.id for job in done]
    assert BATCH + 1 == (await store.census(QUEUE)).counts["ready"]
    await store.purge_page(QUEUE, "ready", limit=500)


async def test_a_call_leaves_one_event_for_up_to_a_hundred_jobs(store, redis):
    await enqueued(store, *(f"k{n}" for n in range(201)))

    assert [f"k{n}" for n in range(201)] == await events(redis, "enqueue")
    assert 3 == await redis.xlen(keys().at("events"))
    await store.purge_page(QUEUE, "ready", limit=500)


async def test_a_queue_is_nothing_to_another(store):
    await enqueued(store, "a")
    done = await store.enqueue("other", [replace(new("a"), queue="other", payload=b"[]")])

    assert ["ready"] == [job.outcome for job in done]
    assert ["mail", "other"] == await store.queues()


async def test_a_namespace_is_nothing_to_another(store, redis):
    await enqueued(store, "a")

    assert all(key.startswith(b"{scheduler") for key in await redis.keys("*"))
    assert Keys("scheduler", QUEUE).at("jobs") != Keys("other", QUEUE).at("jobs")


@on_real_servers
async def test_of_many_that_enqueue_one_id_at_once_one_creates_it(store, another_store):
    stores = [store, another_store] * 25

    outcomes = await race(*(each.enqueue(QUEUE, [new("a")]) for each in stores))

    assert ["exists"] * 49 + ["ready"] == sorted(outcome.outcome for [outcome] in outcomes)
    assert 1 == (await store.census(QUEUE)).counts["ready"]


@on_real_servers
async def test_two_clients_with_the_same_thousand_ids_make_a_thousand_jobs(store, another_store):
    batches = [[new(f"k{n}") for n in range(first, first + 100)] for first in range(0, 1000, 100)]

    outcomes = await race(
        *(each.enqueue(QUEUE, batch) for batch in batches for each in (store, another_store))
    )

    created = [job.id for batch in outcomes for job in batch if job.created]
    assert (1000, 1000) == (len(created), len(set(created)))
    assert 1000 == (await store.census(QUEUE)).counts["ready"]


async def test_a_finished_run_of_an_id_is_never_run_again_by_repeating_its_enqueue(store):
    job = await claimed(store, retry={"immediate": 0})
    await store.nack(QUEUE, [Nack("a", job.token, "E", "m", retry_in_ms=0)], worker=WORKER)
    job = await taken(store)
    await released(store, job)
    await acked(store, await taken(store))

    assert "exists" == (await store.enqueue_one(new("a", retry={"immediate": 0}))).outcome
    assert [] == await take(store)


async def test_a_repeated_call_knows_again_what_it_has_made(store):
    async def outcome(call: str, key: str = "a", rules: str = "") -> str:
        said = [rules, f"call:{call}" if call else ""]
        reply = await raw(
            store, "enqueue", 1, key, "send", "[1]", *[""] * 5, " ".join(said).strip(), *[""] * 3
        )
        return str(reply[2], "utf-8")

    assert "ready" == await outcome("one")
    assert ["again", "exists", "exists"] == [await outcome(call) for call in ("one", "on", "")]
    assert ["ready", "again"] == [await outcome("two", "b", "group:acme cost:2") for _ in range(2)]
    assert ["ready", "exists"] == [await outcome("", "c") for _ in range(2)]
    with pytest.raises(ResponseError, match="INVALID rules"):
        await outcome("no/letters", "d")


async def test_a_repeated_call_knows_again_what_has_ended(store):
    job = await claimed(store, call="one", retention_ms=0)
    await acked(store, job)

    [again] = await store.enqueue(QUEUE, [new("a", call="one", retention_ms=0)])
    [other] = await store.enqueue(QUEUE, [new("a", call="two", retention_ms=0)])

    assert ["again", "exists"] == [again.outcome, other.outcome]

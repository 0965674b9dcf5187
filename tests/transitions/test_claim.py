"""ready -> running: who gets a job, under which lease, and that nobody else gets it."""

import pytest

from scheduler.calling import BATCH
from scheduler.job import State
from scheduler.outcomes import Extend, Note, TypePolicy
from tests.helpers import (
    QUEUE,
    STATES,
    acked,
    claimed,
    damaged,
    enqueued,
    events,
    in_every_state,
    keys,
    look,
    nacked,
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


async def test_a_claimed_job_runs_under_a_lease(store, clock):
    job = await claimed(store, lease_ms=30_000, timeout_ms=60_000, payload=b"[1]")

    assert ("mail:a", 1, clock.now + 30_000, clock.now + 60_000) == (
        job.id,
        job.attempt,
        job.lease_ends_ms,
        job.timeout_ends_ms,
    )
    assert (60_000, b"[1]", "send") == (job.timeout_ms, record_of(job).payload, record_of(job).type)
    shown = await look(store)
    assert (State.RUNNING, "worker-1", clock.now, 1, job.token) == (
        shown.state,
        shown.worker,
        shown.started_at,
        shown.attempt,
        shown.token,
    )
    assert clock.now + 30_000 == shown.lease_expires_at


async def test_what_does_not_wait_is_not_claimed(store, redis):
    await in_every_state(store, [state for state in STATES if state != "ready"])
    before = await snapshot(redis)

    assert [] == await take(store, 10)

    # Only who watches the time, and when the worker was told to sweep, may have been written down.
    after = await snapshot(redis)
    before.pop(keys().at("counters"), None)
    after.pop(keys().at("counters"), None)
    assert before == after


async def test_on_a_queue_that_is_not_there_a_claim_waits_and_makes_nothing(store, redis):
    before = await snapshot(redis)
    found = await store.claim("nowhere", worker="w", turn=1)

    assert ([], False) == (found.jobs, found.sweep)
    assert 4000 <= found.wait_ms <= 6000
    assert before == await snapshot(redis)


async def test_a_lease_is_as_long_as_was_asked_for(store, clock):
    await enqueued(store, "short", "long")

    [short] = await take(store, lease_ms=1000)
    [long] = await take(store)
    assert (clock.now + 1000, clock.now + 30_000) == (short.lease_ends_ms, long.lease_ends_ms)


async def test_a_lease_ends_at_most_five_seconds_after_the_timeout(store, clock):
    job = await claimed(store, timeout_ms=2000, lease_ms=30_000)

    assert clock.now + 7000 == job.lease_ends_ms


TIMEOUTS = [
    ({}, None, None, 3_600_000),
    ({}, None, 50_000, 50_000),
    ({}, 40_000, None, 40_000),
    ({}, 40_000, 50_000, 40_000),
    ({"timeout_ms": 30_000}, 40_000, 50_000, 30_000),
    ({"timeout_ms": 30_000}, None, None, 30_000),
]


@pytest.mark.parametrize(("fields", "as_set", "declared", "timeout_ms"), TIMEOUTS)
async def test_the_timeout_is_the_jobs_own_else_the_types_as_set_else_as_declared(
    store, fields, as_set, declared, timeout_ms
):
    if as_set:
        await store.configure_type(QUEUE, "send", TypePolicy(as_set))
    if declared:
        await store.configure_type(QUEUE, "send", TypePolicy(declared), declared=True)

    assert timeout_ms == (await claimed(store, **fields)).timeout_ms
    assert timeout_ms == (await look(store)).timeout_ms


async def test_tokens_rise_with_every_claim_and_stay_above_the_clock(store, clock):
    await enqueued(store, "a", "b", "c", "d")
    first, second = await take(store, 2)
    clock.now -= 3_600_000  # a step back of the server's clock
    [third] = await take(store)
    clock.advance(7200)
    [fourth] = await take(store)

    assert first.token < second.token < third.token < fourth.token < 2**53
    assert clock.now * 1000 <= fourth.token


async def test_a_token_is_not_given_twice_although_the_queue_was_purged(store):
    job = await claimed(store)
    await acked(store, job)
    await store.purge(QUEUE, ["a"])

    assert job.token < (await claimed(store)).token


async def test_the_server_writes_tokens_in_all_their_digits(store):
    store._now = None
    job = await claimed(store)

    assert 10**15 < job.token == (await look(store)).token
    assert "succeeded" == await acked(store, job)


async def test_a_claim_takes_at_most_what_was_asked_for(store):
    await enqueued(store, "a", "b", "c")

    assert [["a", "b"], ["c"], []] == [[job.key for job in await take(store, 2)] for _ in range(3)]


async def test_a_full_batch_is_500(store):
    await store.enqueue(QUEUE, [new(f"k{n}") for n in range(BATCH + 3)])

    jobs = await take(store, 5000)
    assert [f"k{n}" for n in range(BATCH)] == [job.key for job in jobs]
    assert BATCH == len({job.token for job in jobs})


async def test_large_payloads_end_a_batch_before_the_server_has_read_them_all(store):
    await store.enqueue(QUEUE, [new(f"k{n}", payload=b"x" * 1024 * 1024) for n in range(6)])

    # 25 records are read at a time; what is over 4 MiB stays where it is.
    assert [["k0", "k1", "k2"], ["k3", "k4", "k5"]] == [
        [job.key for job in await take(store, 100)] for _ in range(2)
    ]


async def test_a_payload_larger_than_a_batch_is_claimed_alone(store):
    await enqueued(store, "a", payload=b"x" * 5 * 1024 * 1024)
    await enqueued(store, "b")

    assert [["a"], ["b"]] == [[job.key for job in await take(store, 100)] for _ in range(2)]


async def test_large_payloads_that_become_due_stay_in_line(store, clock):
    await store.enqueue(QUEUE, [new(f"k{n}", payload=b"x" * 1024 * 1024, delay_ms=1) for n in range(6)])
    clock.advance(1)

    assert [["k0", "k1", "k2"], ["k3", "k4", "k5"], []] == [
        [job.key for job in await take(store, 100)] for _ in range(3)
    ]


async def test_a_later_attempt_comes_with_its_number_its_errors_and_its_checkpoint(store):
    job = await claimed(store)
    assert (1, b"", b"") == (job.attempt, job.former, job.checkpoint)
    await store.note(QUEUE, [Note("a", job.token, "checkpoint", b"[7]")])
    await nacked(store, job)

    job = await taken(store)

    assert (2, b"[7]") == (job.attempt, job.checkpoint)
    assert b"ValueError" in job.former


BAD = [
    "",
    "nonsense",
    "send|||1800000000000||f|c\n\n",
    "|||1||f|c\n\n{}",
    "send|x||1||f|c\n\n{}",
    "send|||x||f|c\n\n{}",
    "send|||1|high|f|c\n\n{}",
    "send|||1||f|c",
]


@pytest.mark.parametrize("record", [*BAD, None])
async def test_a_bad_record_is_buried_as_corrupt_and_the_others_run(store, redis, clock, record):
    await enqueued(store, "a", "bad", "b")
    await damaged(store, "bad", record)

    assert ["a", "b"] == [job.key for job in await take(store, 10)]

    assert ("dead", "corrupt") == ((await look(store, "bad")).state, (await look(store, "bad")).reason)
    assert ["bad"] == await events(redis, "bury")
    assert ["bad"] == (await store.list(QUEUE, "dead"))[0]
    census = await store.census(QUEUE)
    assert ("1", await redis.hstrlen(keys().at("jobs"), "bad")) == (
        census.counters["dead"],
        int(census.counters["bytes_dead"]),
    )
    clock.advance(1)
    assert ["gone"] == await store.purge(QUEUE, ["bad"])
    assert "0" == (await store.census(QUEUE)).counters["bytes_dead"]


async def test_a_bad_record_that_becomes_due_is_buried_too(store, redis, clock):
    await enqueued(store, "bad", delay_ms=1)
    await damaged(store, "bad")
    clock.advance(1)

    assert [] == await take(store)
    assert "dead" == await state_of(store, "bad")


@on_real_servers
async def test_one_job_and_fifty_workers_is_one_start(store, another_store):
    await enqueued(store, "a")
    stores = [store, another_store]

    claims = await race(*(take(stores[n % 2], 1, worker=f"w{n}", turn=1) for n in range(50)))

    assert ["a"] == [job.key for jobs in claims for job in jobs]
    assert 1 == (await look(store)).attempt


@on_real_servers
async def test_five_hundred_jobs_and_fifty_workers_are_five_hundred_starts(store, another_store):
    await enqueued(store, *(f"k{n}" for n in range(500)))
    stores = [store, another_store]

    claims = await race(*(take(stores[n % 2], 20, worker=f"w{n}", turn=1) for n in range(50)))

    started = [job.key for jobs in claims for job in jobs]
    assert (500, 500) == (len(started), len(set(started)))
    tokens = [job.token for jobs in claims for job in jobs]
    assert 500 == len(set(tokens))


async def test_a_paused_queue_starts_nothing_and_what_runs_goes_on(store, clock):
    job = await claimed(store)
    await enqueued(store, "b")
    await enqueued(store, "due", delay_ms=1)
    await store.configure(QUEUE, {"paused": "1"})
    clock.advance(1)

    assert [] == await take(store, 5)
    # What becomes due is ready all the same.
    assert ["ready", "ready"] == [await state_of(store, key) for key in ("b", "due")]
    assert ["running"] == await store.extend(QUEUE, [Extend("a", job.token, 60_000)])
    assert "succeeded" == await acked(store, job)

    await store.configure(QUEUE, {"paused": ""})
    assert ["b", "due"] == [job.key for job in await take(store, 5)]


async def test_a_claim_reports_its_jobs_with_their_tokens(store, redis):
    await enqueued(store, "a", "b")
    jobs = await take(store, 2)

    [(_, entry)] = [e for e in await redis.xrange(keys().at("events")) if e[1][b"kind"] == b"claim"]
    assert (b"worker-1", b"a b") == (entry[b"worker"], entry[b"ids"])
    assert " ".join(str(job.token) for job in jobs).encode() == entry[b"tokens"]


async def test_the_key_that_took_a_lease_stands_in_it(store, redis):
    await enqueued(store, "a")
    await raw(store, "claim", "w", "", 1, "", "key-7", "", "", "")

    assert (await redis.hget(keys().at("leases"), "a")).endswith(b"|key-7")
    await store.cancel(QUEUE, ["a"])
    assert b"|1|key-7|" in await redis.hget(keys().at("leases"), "a")


async def test_a_released_job_can_be_taken_by_another(store):
    job = await claimed(store)
    await released(store, job)
    again = await taken(store, worker="worker-2")

    assert ("worker-2", 1) == ((await look(store)).worker, again.attempt)


async def test_two_requests_in_one_name_are_each_answered_again(store):
    await enqueued(store, "a", "b")
    one = (await store.claim(QUEUE, worker="rest", turn="request-1")).jobs
    two = (await store.claim(QUEUE, worker="rest", turn="request-2")).jobs

    assert one == (await store.claim(QUEUE, worker="rest", turn="request-1")).jobs
    assert two == (await store.claim(QUEUE, worker="rest", turn="request-2")).jobs


async def test_long_stories_of_errors_end_a_batch_too(store, clock):
    for n in range(6):
        job = await claimed(store, f"k{n}", retry={"immediate": 1000, "max_attempts": 1000})
        for _ in range(10):
            await nacked(store, job, message="x" * 65_000, trace="y" * 65_000)
            [job] = await take(store)
        await released(store, job, delay_ms=1000)
    clock.advance(2)

    assert 3 == len(await take(store, 6))


async def test_numbers_are_written_in_all_their_digits_where_a_million_is_full(store, redis):
    await enqueued(store, "z")
    await redis.hset(keys().at("counters"), mapping={"place": 1999999999999997, "token": 2000000000999996})
    await enqueued(store, *(f"a{n}" for n in range(5)))
    await enqueued(store, "late", priority=-100)

    scores = dict(await redis.zrange(keys().at("ready"), 0, -1, withscores=True))
    assert [1999999999999998 + n for n in range(5)] == [scores[f"a{n}".encode()] for n in range(5)]
    jobs = await take(store, 10)
    assert [2000000000999997 + n for n in range(7)] == [job.token for job in jobs]
    assert [await acked(store, job) for job in jobs] == 7 * ["succeeded"]

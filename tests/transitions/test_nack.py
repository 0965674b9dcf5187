"""running -> ready | retrying | dead | cancelled, as the retry policy says."""

import pytest

from scheduler.job import State
from scheduler.outcomes import Nack, TypePolicy
from tests.helpers import (
    QUEUE,
    STATES,
    WORKER,
    acked,
    claimed,
    enqueued,
    events,
    in_every_state,
    look,
    nacked,
    on_real_servers,
    race,
    raw,
    released,
    snapshot,
    state_of,
    swept,
    take,
    taken,
)


async def failed_until(store, clock, attempts: int, key: str = "a") -> list[str]:
    """Fails a job so often, each time when it is due."""
    states = []
    for _ in range(attempts):
        states.append(await nacked(store, await taken(store, key)))
        clock.advance(3600)
    return states


async def delay_after(store, clock):
    """Fails the next attempt, answers how long the job waits in ms, and waits so long."""
    assert "retrying" == await nacked(store, await taken(store))
    waits = (await look(store)).run_at - clock.now
    clock.now += waits
    return waits


async def test_the_first_failure_is_tried_again_at_once_the_later_ones_wait_and_the_last_is_dead(
    store, clock
):
    await enqueued(store, "a")

    assert ["ready", *["retrying"] * 18, "dead"] == await failed_until(store, clock, 20)
    job = await look(store)
    assert (State.DEAD, "attempts", 20, 20) == (job.state, job.reason, job.attempt, job.max_attempts)
    assert list(range(1, 21)) == [error.attempt for error in job.errors]


async def test_the_last_attempt_becomes_a_dead_letter(store):
    job = await claimed(store, retry={"max_attempts": 1})

    assert "dead" == await nacked(store, job)
    assert ("dead", "attempts") == ((await look(store)).state, (await look(store)).reason)


async def test_n_attempts_are_n_starts(store, clock):
    await enqueued(store, "a", retry={"max_attempts": 3, "base": 1})
    starts = 0
    while jobs := await take(store):
        starts += 1
        await nacked(store, jobs[0])
        clock.advance(3600)

    assert 3 == starts


async def test_a_failure_is_kept_with_what_came_next(store, clock):
    await enqueued(store, "a", retry={"immediate": 1, "jitter": 0, "max_attempts": 3})
    await store.nack(
        QUEUE, [Nack("a", (await taken(store)).token, "KeyError", "'x'", "Traceback …")], worker=WORKER
    )
    at = clock.now
    await nacked(store, await taken(store))
    clock.advance(2)
    await nacked(store, await taken(store))

    first, second, third = (await look(store)).errors
    assert (1, "KeyError", "'x'", at, "retry at once", "Traceback …") == (
        first.attempt,
        first.kind,
        first.message,
        first.at_ms,
        first.next,
        first.trace,
    )
    assert ("retry in 2.0 s", "dead: attempts", None) == (second.next, third.next, third.trace)


@pytest.mark.parametrize(("k", "seconds"), [(0, 2), (1, 4), (2, 8), (8, 512)])
async def test_a_backoff_grows_by_its_factor_and_is_drawn_within_the_jitter(
    store, clock, k, seconds, backend
):
    count = 20 if backend == "fake" else 200
    await enqueued(store, *(f"k{n}" for n in range(count)), retry={"max_attempts": 100, "immediate": 0})
    for _ in range(k):
        await store.nack(
            QUEUE,
            [Nack(job.key, job.token, "E", "m", retry_in_ms=0) for job in await take(store, count)],
            worker=WORKER,
        )

    jobs = await take(store, count)
    await store.nack(QUEUE, [Nack(job.key, job.token, "E", "m") for job in jobs], worker=WORKER)

    waits = [job.run_at - clock.now for job in await store.inspect(QUEUE, [job.key for job in jobs])]
    assert all(seconds * 500 < wait <= seconds * 1000 for wait in waits)
    # One draw per job, over the whole range.
    assert len(set(waits)) > count / 4
    assert max(waits) - min(waits) > seconds * 500 * 0.4


async def test_two_calls_with_two_seeds_draw_differently_and_one_seed_the_same(store, clock):
    waits = []
    for seed in (1, 2, 1):
        await enqueued(store, "a", retry={"immediate": 0})
        job = await taken(store)
        assert [b"retrying"] == await raw(
            store, "nack", WORKER, seed, 1, "a", job.token, "E", "m", "", "", ""
        )
        waits.append((await look(store)).run_at)
        await store.purge(QUEUE, ["a"])

    assert waits[0] == waits[2] != waits[1]


async def test_a_backoff_is_never_longer_than_max_delay(store, clock):
    await enqueued(store, "a", retry={"max_attempts": 1000, "immediate": 0, "max_delay": 10_000, "jitter": 0})

    assert [2000, 4000, 8000, 10_000, 10_000] == [await delay_after(store, clock) for _ in range(5)]


async def test_without_jitter_a_fixed_backoff_is_exact(store, clock):
    await enqueued(store, "a", retry={"immediate": 0, "factor": 1, "jitter": 0, "base": 1234})

    assert [1234, 1234, 1234, 1234] == [await delay_after(store, clock) for _ in range(4)]


async def test_with_full_jitter_a_backoff_may_be_anything_below(store, clock):
    await enqueued(store, "a", retry={"immediate": 0, "jitter": 1, "max_attempts": 1000, "factor": 1})
    waits = [await delay_after(store, clock) for _ in range(30)]

    assert all(0 < wait <= 2000 for wait in waits)
    assert min(waits) < 1000 < max(waits)


async def test_a_huge_number_of_attempts_does_not_overflow_the_backoff(store, clock):
    await enqueued(store, "a", retry={"immediate": 0, "factor": 1000, "jitter": 0, "max_attempts": 1000})
    await store.clients.commands.hset("{scheduler:mail}:attempts", "a", "998|0|0|0||||||0|0")

    assert 3_600_000 == await delay_after(store, clock)


async def test_a_base_of_nothing_is_no_wait_however_often(store, clock, redis):
    await enqueued(store, "a", retry={"immediate": 0, "base": 0, "factor": 1000, "max_attempts": 1000})
    await redis.hset("{scheduler:mail}:attempts", "a", "500|0|0|0||||||0|0")

    assert "ready" == await nacked(store, await taken(store))


async def test_a_retrying_job_waits_until_it_is_due(store, clock):
    await enqueued(store, "a", retry={"immediate": 0, "jitter": 0})
    await nacked(store, await taken(store))

    clock.advance(1.999)
    assert [] == await take(store)
    clock.advance(0.001)
    assert 2 == (await taken(store)).attempt


@pytest.mark.parametrize(
    ("ms", "state"), [(0, "ready"), (1, "retrying"), (90_000, "retrying"), (604_800_000, "retrying")]
)
async def test_a_failure_may_say_itself_when_to_try_again(store, clock, ms, state):
    job = await claimed(store)

    assert state == await nacked(store, job, retry_in_ms=ms)
    assert (clock.now + ms if ms else None) == (await look(store)).run_at


async def test_a_wait_that_was_asked_for_uses_an_attempt_all_the_same(store):
    await enqueued(store, "a", retry={"max_attempts": 2})

    assert ["ready", "dead"] == [await nacked(store, await taken(store), retry_in_ms=0) for _ in range(2)]


async def test_a_kind_that_must_not_be_retried_is_dead_at_once(store):
    job = await claimed(store, retry={"non_retryable": ["KeyError", "ValueError"]})

    assert "dead" == await nacked(store, job, kind="ValueError", retry_in_ms=5)
    assert ("permanent", 1) == ((await look(store)).reason, (await look(store)).attempt)


async def test_a_kind_is_matched_as_a_whole(store):
    job = await claimed(store, retry={"non_retryable": ["ValueError"]})

    assert "ready" == await nacked(store, job, kind="ValueErrors")


JOB, SET, DECLARED = {"max_attempts": 1}, {"max_attempts": 2}, {"max_attempts": 3}


@pytest.mark.parametrize(
    ("own", "as_set", "declared", "attempts"),
    [
        (None, None, None, 20),
        (None, None, DECLARED, 3),
        (None, SET, DECLARED, 2),
        (JOB, SET, DECLARED, 1),
        (JOB, None, DECLARED, 1),
        (None, SET, None, 2),
    ],
)
async def test_the_strongest_word_decides(store, clock, own, as_set, declared, attempts):
    if as_set:
        await store.configure_type(QUEUE, "send", TypePolicy(retry=as_set))
    if declared:
        await store.configure_type(QUEUE, "send", TypePolicy(retry=declared), declared=True)
    await enqueued(store, "a", retry=own)

    assert attempts == (await look(store)).max_attempts
    assert "dead" == (await failed_until(store, clock, attempts))[-1]


async def test_policies_are_joined_field_by_field(store, clock):
    await store.configure_type(
        QUEUE, "send", TypePolicy(retry={"base": 7000, "immediate": 2, "jitter": 0.25})
    )
    await store.configure_type(QUEUE, "send", TypePolicy(retry={"immediate": 9, "factor": 1}), declared=True)
    await enqueued(store, "a", retry={"jitter": 0, "immediate": 0})

    assert [7000, 7000] == [await delay_after(store, clock), await delay_after(store, clock)]


async def test_another_types_policy_is_nothing_to_a_job(store):
    await store.configure_type(QUEUE, "other", TypePolicy(retry={"max_attempts": 1}))

    assert "ready" == await nacked(store, await claimed(store))


async def test_a_policy_changed_in_between_counts_from_the_next_failure_on(store, clock):
    await enqueued(store, "a", retry={"immediate": 0})
    waits = await nacked(store, await taken(store)), (await look(store)).run_at
    await store.configure_type(QUEUE, "send", TypePolicy(retry={"max_attempts": 2}))

    assert waits == ("retrying", (await look(store)).run_at)
    clock.advance(3)
    assert "dead" == await nacked(store, await taken(store))


async def test_a_job_that_was_asked_to_stop_and_fails_is_cancelled(store):
    job = await claimed(store)
    await store.cancel(QUEUE, ["a"])

    assert "cancelled" == await nacked(store, job)
    ended = await look(store)
    assert (State.CANCELLED, "asked", "cancelled") == (ended.state, ended.reason, ended.errors[0].next)


async def test_only_a_running_job_is_nacked(store, redis):
    tokens = await in_every_state(store)
    before = await snapshot(redis)

    assert ["stale"] * 8 == await store.nack(
        QUEUE, [Nack(s, tokens[s] + 1, "E", "m") for s in STATES], worker=WORKER
    )
    assert ["missing"] == await store.nack(QUEUE, [Nack("nobody", 1, "E", "m")], worker=WORKER)

    assert before == await snapshot(redis)


@pytest.mark.parametrize(
    "retry", [{}, {"immediate": 0}, {"max_attempts": 1}], ids=["ready", "retrying", "dead"]
)
async def test_a_nack_repeated_is_answered_again_and_changes_nothing(store, redis, clock, retry):
    job = await claimed(store, retry=retry)
    state = await nacked(store, job)
    before = await snapshot(redis)
    clock.advance(1)

    assert state == await nacked(store, job, message="again")
    assert before == await snapshot(redis)


async def test_a_nack_repeated_after_the_next_claim_is_stale(store, redis):
    first = await claimed(store)
    await nacked(store, first)
    second = await taken(store)
    before = await snapshot(redis)

    assert "stale" == await nacked(store, first)
    assert before == await snapshot(redis)
    assert "succeeded" == await acked(store, second)
    assert "stale" == await nacked(store, first)


async def test_a_failure_ends_a_row_of_crashes(store, clock):
    await claimed(store)
    clock.advance(31)
    await swept(store, clock)
    assert 1 == (await look(store)).crashes
    await nacked(store, await taken(store), retry_in_ms=0)

    assert 0 == (await look(store)).crashes


async def test_an_attempt_given_back_is_not_counted(store):
    await enqueued(store, "a", retry={"max_attempts": 2})
    for _ in range(5):
        await released(store, await taken(store))

    assert "ready" == await nacked(store, await taken(store))
    assert "dead" == await nacked(store, await taken(store))


async def test_failures_count_and_report_where_they_led(store, redis):
    await enqueued(store, "a", "b", retry={"immediate": 0})
    jobs = await take(store, 2)
    await store.nack(
        QUEUE,
        [Nack("a", jobs[0].token, "E", "m", retry_in_ms=0), Nack("b", jobs[1].token, "E", "m")],
        worker=WORKER,
    )

    assert "2" == (await store.census(QUEUE)).counters["nack"]
    assert ["a", "b"] == await events(redis, "nack")
    [(_, last)] = await redis.xrevrange("{scheduler:mail}:events", count=1)
    assert (b"ready retrying", b"worker-1") == (last[b"states"], last[b"worker"])


@on_real_servers
async def test_of_many_nacks_at_once_one_counts(store, another_store):
    job = await claimed(store)

    assert {"ready"} == set(await race(*(nacked(each, job) for each in [store, another_store] * 10)))
    assert (1, "1") == (len((await look(store)).errors), (await store.census(QUEUE)).counters["nack"])


async def test_a_batch_of_failures_goes_where_each_belongs(store):
    await enqueued(store, "again")
    await enqueued(store, "waits", retry={"immediate": 0})
    await enqueued(store, "dies", retry={"max_attempts": 1})
    await enqueued(store, "stops")
    jobs = await take(store, 4)
    await store.cancel(QUEUE, ["stops"])

    states = await store.nack(QUEUE, [Nack(job.key, job.token, "E", "m") for job in jobs], worker=WORKER)
    assert ["ready", "retrying", "dead", "cancelled"] == states
    assert states == [await state_of(store, job.key) for job in jobs]

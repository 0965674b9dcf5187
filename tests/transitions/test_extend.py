"""running stays running, its lease ends later: the heartbeat of a whole batch."""

from scheduler.outcomes import Extend
from tests.helpers import (
    QUEUE,
    STATES,
    acked,
    claimed,
    enqueued,
    in_every_state,
    look,
    on_real_servers,
    race,
    snapshot,
    swept,
    take,
)


async def extend(store, key: str, token: int, lease_ms: int = 30_000):
    [answer] = await store.extend(QUEUE, [Extend(key, token, lease_ms)])
    return answer


async def test_a_lease_is_pushed_out_from_now(store, clock):
    job = await claimed(store)
    clock.advance(10)

    assert "running" == await extend(store, "a", job.token)
    assert clock.now + 30_000 == (await look(store)).lease_expires_at


async def test_a_lease_is_never_made_shorter(store, redis):
    job = await claimed(store)
    before = await snapshot(redis)

    for lease_ms in (30_000, 1000, 0):
        assert "running" == await extend(store, "a", job.token, lease_ms)
        assert before == await snapshot(redis)


async def test_a_lease_ends_at_most_five_seconds_after_the_timeout(store, clock):
    job = await claimed(store, timeout_ms=60_000)
    for _ in range(10):
        clock.advance(6)
        await extend(store, "a", job.token)

    assert job.timeout_ends_ms + 5000 == (await look(store)).lease_expires_at
    clock.advance(5)
    assert 1 == await swept(store, clock)
    assert "TimeoutError" == (await look(store)).errors[0].kind


async def test_a_job_that_is_extended_in_time_runs_once(store, clock):
    job = await claimed(store)
    for _ in range(15):
        clock.advance(10)
        assert "running" == await extend(store, "a", job.token)
        assert 0 == (await store.reclaim(QUEUE)).reclaimed

    assert "succeeded" == await acked(store, job)
    assert 1 == (await look(store)).attempt


async def test_a_lease_that_ran_out_but_was_not_reclaimed_can_still_be_extended(store, clock):
    job = await claimed(store)
    clock.advance(40)

    assert "running" == await extend(store, "a", job.token)
    assert 0 == await swept(store, clock)


async def test_the_heartbeat_says_who_was_asked_to_stop_and_extends_it_all_the_same(store, clock):
    job = await claimed(store)
    await store.cancel(QUEUE, ["a"])
    clock.advance(10)

    assert "cancel" == await extend(store, "a", job.token)
    assert clock.now + 30_000 == (await look(store)).lease_expires_at


async def test_only_a_running_job_is_extended(store, redis, clock):
    tokens = await in_every_state(store)
    clock.advance(10)
    before = await snapshot(redis)

    assert ["stale"] * 8 == await store.extend(
        QUEUE, [Extend(state, tokens[state] + 1, 60_000) for state in STATES]
    )
    rest = [state for state in STATES if state != "running"]
    assert ["stale"] * 7 == await store.extend(
        QUEUE, [Extend(state, tokens[state], 60_000) for state in rest]
    )
    assert ["missing"] == await store.extend(QUEUE, [Extend("nobody", 1, 60_000)])
    assert before == await snapshot(redis)


async def test_an_extend_after_the_ack_is_stale_and_makes_no_lease(store, redis):
    job = await claimed(store)
    await acked(store, job)
    before = await snapshot(redis)

    assert "stale" == await extend(store, "a", job.token, 600_000)
    assert before == await snapshot(redis)


async def test_an_extend_after_the_job_is_gone_is_stale_while_it_is_known(store, clock):
    job = await claimed(store, retention_ms=0)
    await acked(store, job)
    assert "stale" == await extend(store, "a", job.token)

    clock.advance(61)
    await store.expire(QUEUE)
    assert "missing" == await extend(store, "a", job.token)


async def test_an_extend_repeated_changes_nothing(store, redis, clock):
    job = await claimed(store)
    clock.advance(5)
    await extend(store, "a", job.token)
    before = await snapshot(redis)

    assert "running" == await extend(store, "a", job.token)
    assert before == await snapshot(redis)


async def test_each_of_a_batch_is_extended_by_its_own_length(store, clock):
    await enqueued(store, "a", "b", "c")
    jobs = await take(store, 3)
    await store.cancel(QUEUE, ["b"])

    held = [
        Extend(job.key, job.token + (job.key == "c"), ms)
        for job, ms in zip(jobs, (40_000, 50_000, 60_000), strict=True)
    ]
    assert ["running", "cancel", "stale"] == await store.extend(QUEUE, held)
    assert [40_000, 50_000, 30_000] == [
        (await look(store, key)).lease_expires_at - clock.now for key in "abc"
    ]


@on_real_servers
async def test_an_extend_and_an_ack_at_once_leave_no_lease(store, another_store, redis):
    for n in range(20):
        job = await claimed(store, f"k{n}")
        await race(
            extend(store, job.key, job.token, 60_000),
            acked(another_store, job),
            extend(store, job.key, job.token, 90_000),
        )

    assert (0, 0) == (
        await redis.hlen("{scheduler:mail}:leases"),
        await redis.zcard("{scheduler:mail}:running"),
    )

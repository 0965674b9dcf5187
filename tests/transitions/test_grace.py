"""When nobody could extend (server frozen, restarted, failed over, clock stepped), nobody loses a lease for it."""

from scheduler.outcomes import Extend
from tests.helpers import QUEUE, claimed, enqueued, keys, snapshot, state_of, take

PERIOD = 10
PAUSE = 11  # a third of a lease of 30 s, and a second


async def sweep(store, **options):
    return await store.reclaim(QUEUE, lease_ms=30_000, period_ms=PERIOD * 1000, **options)


async def test_the_first_sweep_of_a_busy_queue_only_begins_the_grace(store, clock):
    await claimed(store)
    clock.advance(31)

    found = await sweep(store)
    assert (0, PERIOD * 1000, True) == (found.reclaimed, found.wait_ms, found.done)
    clock.advance(PAUSE - 0.001)
    assert 0 == (await sweep(store)).reclaimed
    clock.advance(0.001)
    assert 1 == (await sweep(store)).reclaimed


async def test_in_the_grace_a_live_worker_extends_and_keeps_its_job(store, clock):
    job = await claimed(store)
    await sweep(store)
    clock.advance(600)  # the server was frozen

    assert 0 == (await sweep(store)).reclaimed
    assert ["running"] == await store.extend(QUEUE, [Extend("a", job.token, 30_000)])
    clock.advance(PAUSE)
    assert 0 == (await sweep(store)).reclaimed
    assert "running" == await state_of(store)


async def test_regular_sweeps_need_no_grace(store, clock):
    await claimed(store)
    for _ in range(3):
        assert 0 == (await sweep(store)).reclaimed
        clock.advance(PERIOD)

    assert 1 == (await sweep(store)).reclaimed


async def test_a_sweep_one_and_a_half_periods_late_is_no_gap_and_later_is(store, clock):
    await claimed(store, lease_ms=1000)
    await sweep(store)
    clock.advance(PAUSE)
    await sweep(store)
    await take(store, lease_ms=1000)
    clock.advance(1.5 * PERIOD)
    assert 1 == (await sweep(store)).reclaimed

    await take(store, lease_ms=1000)
    clock.advance(1.5 * PERIOD + 0.001)
    assert 0 == (await sweep(store)).reclaimed


async def test_a_clock_that_went_back_begins_the_grace(store, clock):
    await claimed(store)
    await sweep(store)
    clock.advance(PAUSE)
    await sweep(store)
    clock.advance(-3600)
    await enqueued(store, "b")
    await take(store, lease_ms=1000)
    clock.advance(2)

    assert 0 == (await sweep(store)).reclaimed
    clock.advance(PAUSE)
    assert 1 == (await sweep(store)).reclaimed
    assert "ready" == await state_of(store, "b")


async def test_a_clock_that_went_back_begins_the_grace_where_none_was_before(store, clock):
    await enqueued(store, "a")
    await sweep(store)  # nothing runs: no grace begins
    clock.advance(-3600)
    await take(store, lease_ms=1000)
    clock.advance(2)

    assert 0 == (await sweep(store)).reclaimed
    clock.advance(PAUSE)
    assert 1 == (await sweep(store)).reclaimed


async def test_a_grace_from_a_clock_that_was_ahead_is_clamped(store, clock, redis):
    await claimed(store, lease_ms=1000)
    await redis.hset(keys().at("counters"), mapping={"swept_at": clock.now, "grace_until": clock.now + 10**9})
    clock.advance(2)
    assert 0 == (await sweep(store)).reclaimed

    clock.advance(PAUSE)
    assert 1 == (await sweep(store)).reclaimed


async def test_an_idle_queue_needs_no_grace(store, clock):
    await enqueued(store, "a")
    clock.advance(3600)
    await sweep(store)
    await take(store, lease_ms=1000)
    clock.advance(PERIOD)

    assert 1 == (await sweep(store)).reclaimed


async def test_a_sweep_that_is_not_due_is_none(store, clock, redis):
    await claimed(store)
    assert (await sweep(store, only_if_due=True)).done is True
    clock.advance(PERIOD * 0.9 - 0.001)
    before = await snapshot(redis)

    found = await sweep(store, only_if_due=True)
    assert (False, 0, 1001) == (found.done, found.reclaimed, found.wait_ms)
    assert before == await snapshot(redis)
    clock.advance(0.001)
    assert (await sweep(store, only_if_due=True)).done is True


async def test_a_sweep_of_a_queue_that_is_not_there_makes_nothing(store, redis):
    before = await snapshot(redis)

    found = await store.reclaim("nowhere")
    assert (0, False, 10_000, False) == (found.reclaimed, found.more, found.wait_ms, found.done)
    assert before == await snapshot(redis)


async def test_a_sweep_comes_back_when_the_grace_is_over(store, clock):
    await claimed(store)
    found = await store.reclaim(QUEUE, lease_ms=3000, period_ms=60_000)

    assert 2000 == found.wait_ms


async def test_a_claim_tells_one_worker_that_a_sweep_is_due(store, clock):
    await enqueued(store, "a")

    assert [True, False, False] == [(await store.claim(QUEUE, worker=f"w{n}")).sweep for n in range(3)]
    clock.advance(PERIOD - 0.001)
    assert (await store.claim(QUEUE, worker="w1")).sweep is False
    clock.advance(0.001)
    assert [True, False] == [(await store.claim(QUEUE, worker=f"w{n}")).sweep for n in range(2)]
    await sweep(store)
    clock.advance(PERIOD - 0.001)
    assert (await store.claim(QUEUE, worker="w1")).sweep is False


async def test_a_sweeper_that_comes_seldom_still_reclaims(store, clock):
    await claimed(store)
    seen = []
    for _ in range(5):
        clock.advance(60)
        seen.append((await store.reclaim(QUEUE)).reclaimed)

    # The first one after the gap gives grace, the next one finds what had run out before it.
    assert [0, 1, 0, 0, 0] == seen


async def test_a_clock_that_goes_back_does_not_make_leases_longer(store, clock):
    await store.reclaim(QUEUE)
    await claimed(store)
    await store.reclaim(QUEUE)
    clock.advance(-3600)
    seen = []
    for _ in range(5):
        seen.append((await store.reclaim(QUEUE)).reclaimed)
        clock.advance(PERIOD)

    assert 1 == sum(seen)
    assert "ready" == await state_of(store)

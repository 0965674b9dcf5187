"""Many that tick, any of whom may die between any two steps, through every change of the clock: each slot exactly once."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from scheduler.keys import Keys
from scheduler.plan import slot_key
from scheduler.schedule import Schedule
from scheduler.scheduling import Schedules
from scheduler.store import Store
from scheduler.tasks import cancel_all
from scheduler.ticker import Ticker
from scheduler.times import parse_rfc3339
from tests.helpers import on_real_servers, on_the_fake

ZONES = {  # days around which the clock is put forward, and back
    "Europe/Berlin": ("2027-03-28", "2026-10-25"),
    "America/New_York": ("2027-03-14", "2026-11-01"),
    "Australia/Lord_Howe": ("2026-10-04", "2027-04-04"),
    "Asia/Kathmandu": ("2027-03-28", "2026-10-25"),  # never changed; a quarter of an hour from anybody's
    "UTC": ("2027-03-28", "2026-10-25"),
}
HOUR = 3_600_000
PLANS: dict[str, dict[str, Any]] = {
    "often": {"cron": "*/20 * * * *"},
    "nightly": {"cron": "30 2 * * *"},
    "fixed": {"cron": "15,45 1,2,3 * * *"},
    "hours": {"cron": "0 */2 * * *"},
    "seconds": {"cron": "30 40 * * * *"},
    "period": {"every_ms": 47 * 60_000},
}


class Killed(Exception):
    """The process of one who ticks has died."""


async def die_now_and_then(
    chance: random.Random, calls: Schedules, queue: str, looked: int | None
) -> int | None:
    """One look of one who ticks: when it looked, None when it died on the way."""

    async def between() -> None:
        await asyncio.sleep(0)
        if chance.random() < 0.15:
            raise Killed

    try:
        return await calls.fire(queue, looked_ms=looked, between=between)
    except Killed:
        return None


async def through(store: Store, clock, zone: str, day: str, many: int, chance: random.Random) -> int:
    """Two days around a change of the clock; how many slots there were."""
    queue = f"{zone.replace('/', '.')}.{day}"
    start = parse_rfc3339(f"{day}T00:00:00Z") - 30 * HOUR + 1_234
    clock.now = start
    calls = Schedules(store)
    for name, timing in PLANS.items():
        schedule = Schedule(
            name=f"{queue}.{name}",
            queue=queue,
            type="send",
            timezone=zone,
            overlap="allow",
            catch_up="all",
            **timing,
        )
        await calls.put(schedule)
    ticking: list[int | None] = [None] * many
    end = start + 52 * HOUR
    while clock.now < end:
        # Mostly minutes; now and then all are gone for hours.
        clock.now += chance.randrange(1, 40) * 60_000 if chance.random() < 0.9 else 3 * HOUR
        ticking = list(
            await asyncio.gather(*(die_now_and_then(chance, calls, queue, looked) for looked in ticking))
        )
    await calls.fire(queue)  # what the last ones left

    total, made = 0, {key.decode() async for key, _ in jobs(store, queue)}
    expected: set[str] = set()
    for name in PLANS:
        standing = await calls.get(f"{queue}.{name}")
        slots = list(standing.plan.slots(start, clock.now))
        assert (len(slots), 0) == (standing.runs, standing.skipped), (name, zone, day)
        expected |= {slot_key(standing.schedule.name, slot) for slot in slots}
        total += len(slots)
    assert expected == made
    counted = await store.clients.commands.hget(Keys("scheduler", queue).at("counters"), "enqueue")
    assert total == int(counted or 0)
    return total


async def jobs(store: Store, queue: str):
    async for pair in store.clients.commands.hscan_iter(Keys("scheduler", queue).at("jobs"), count=1000):
        yield pair


@on_real_servers
@pytest.mark.parametrize("many", [2, pytest.param(10, marks=pytest.mark.long)])
async def test_each_slot_fires_exactly_once(store, clock, many):
    chance = random.Random(many)
    total = 0
    for zone, days in ZONES.items():
        for day in days:
            total += await through(store, clock, zone, day, many, chance)

    assert total > 2_500


@on_the_fake
async def test_each_slot_fires_exactly_once_on_the_fake(store, clock):
    assert 200 < await through(store, clock, "Europe/Berlin", "2026-10-25", 2, random.Random(1))


async def test_what_was_shown_beforehand_is_what_fires(store, clock):
    clock.now = parse_rfc3339("2026-10-24T22:10:00Z")
    calls = Schedules(store)
    standing, _ = await calls.put(
        Schedule(
            name="s",
            queue="mail",
            type="send",
            cron="*/15 1-3 * * *",
            timezone="Europe/Berlin",
            overlap="allow",
        )
    )
    shown = standing.upcoming(clock.now, 12)
    fired = []
    for _ in shown:
        clock.now = (await calls.get("s")).next_ms or 0
        await calls.fire("mail")
        fired.append((await calls.get("s")).past[-1].slot_ms)

    assert shown == fired


async def test_a_ticker_says_when_the_next_is_due_and_looks_at_every_queue(store, clock):
    calls = Schedules(store)
    ticker = Ticker(store, calls)
    assert await ticker.tick() is None
    for n, queue in enumerate(("a", "b")):
        await calls.put(Schedule(name=queue, queue=queue, type="send", every_ms=60_000 + n * 1_000))

    assert 60_000 == await ticker.tick()
    clock.advance(60)
    assert 1_000 == await ticker.tick()
    clock.advance(1)
    assert 59_000 == await ticker.tick()
    assert [1, 1] == [(await calls.get(name)).runs for name in ("a", "b")]


async def test_who_ticks_all_the_time_misses_nothing_however_long_a_round_takes(store, clock):
    calls = Schedules(store)
    ticker = Ticker(store, calls)
    await calls.put(Schedule(name="s", queue="mail", type="send", every_ms=60_000, catch_up="none"))
    clock.advance(55)
    await ticker.tick()
    clock.advance(12)

    await ticker.tick()

    assert 1 == (await calls.get("s")).runs


async def test_one_that_cannot_be_read_is_no_reason_to_spin(store, clock, redis):
    calls = Schedules(store)
    ticker = Ticker(store, calls)
    await calls.put(Schedule(name="bad", queue="mail", type="send", every_ms=60_000))
    record = await redis.hget(Keys("scheduler", "mail").at("schedules"), "bad")
    await redis.hset(
        Keys("scheduler", "mail").at("schedules"), "bad", record.replace(b'"every_ms"', b'"every_ms')
    )
    clock.advance(60)

    assert 1_000 == await ticker.tick()


async def test_a_change_wakes_who_ticks_in_the_same_process(store, clock, monkeypatch):
    monkeypatch.setattr("scheduler.ticker.PERIOD", 100_000.0)
    calls = Schedules(store)
    ticker = Ticker(store, calls)
    task = asyncio.create_task(ticker.run())
    try:
        began = ticker.pulse.succeeded_at
        await calls.put(Schedule(name="first", queue="mail", type="send", every_ms=3_600_000))
        while not ticker._looked:  # noqa: ASYNC110 - a ticker tells nobody
            await asyncio.sleep(0.01)
        await calls.put(Schedule(name="s", queue="mail", type="send", every_ms=100))
        clock.advance(0.1)
        while (await calls.get("s")).runs == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert ticker.pulse.succeeded_at > began
    finally:
        await cancel_all([task])

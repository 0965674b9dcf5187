"""The server's clock steps, in either direction and at any point: nothing stands still for it, and nothing runs twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as some

from scheduler.limits import Rate
from scheduler.outcomes import Ack, Nack, TypePolicy
from scheduler.schedule import Schedule
from scheduler.scheduling import Schedules
from scheduler.store import Store
from scheduler.ticker import Ticker
from tests.helpers import QUEUE, Clock, faults, new

STEPS = some.sampled_from([-86_400, -3_600, -61, -5, 5, 61, 3_600, 86_400])
PARTS = ("rate", "type rate", "group rate", "hold", "backoff", "silent worker", "period")


class World:
    """A queue with jobs that every kind of stored time holds back, workers, and the duties of any process."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store, self.clock = store, clock
        self.schedules = Schedules(store)
        self.ticker = Ticker(store, self.schedules)
        self.runs: Counter[str] = Counter()
        self.turn = 0

    async def set_up(self, parts: set[str]) -> None:
        await self.store.enqueue(QUEUE, [new("first")])
        if "rate" in parts:
            await self.store.configure(QUEUE, {"rate": "4|1000|1"})
        if "type rate" in parts:
            await self.store.configure_type(QUEUE, "send", TypePolicy(rate=Rate(4, 1_000, 1)))
        if "group rate" in parts:
            await self.store.configure(QUEUE, {"group_rate": "4|1000|1"})
        group = {"group": "g"} if {"group rate", "hold"} & parts else {}
        await self.store.enqueue(QUEUE, [new(f"n{n}", **group) for n in range(12)])
        if "period" in parts:
            await self.schedules.put(
                Schedule(name="tick", queue="other", type="send", every_ms=2_000, overlap="allow")
            )

    async def work(self, *, fail: str = "", drop: bool = False) -> None:
        """One look of a worker: it claims, and settles what it got at once."""
        self.turn += 1
        got = (await self.store.claim(QUEUE, worker="w", turn=self.turn, count=4, lease_ms=5_000)).jobs
        for job in got:
            self.runs[job.key] += 1
        if drop or not got:
            return
        if fail:
            scope = "group" if fail == "hold" else ""
            nacks = [
                Nack(job.key, job.token, "ValueError", "boom", retry_in_ms=3_000, scope=scope) for job in got
            ]
            await self.store.nack(QUEUE, nacks, worker="w")
        else:
            await self.store.ack(QUEUE, [Ack(job.key, job.token) for job in got], worker="w")

    async def duties(self) -> None:
        more = True
        while more:
            swept = await self.store.reclaim(QUEUE, lease_ms=5_000, period_ms=5_000)
            more = swept.more
        await self.store.promote(QUEUE)
        await self.ticker.tick()

    async def pass_by(self, seconds: float) -> None:
        """Time without a step: a worker looks twice a second, the duties are done every five."""
        for n in range(round(2 * seconds)):
            self.clock.advance(0.5)
            await self.work()
            if n % 10 == 9:
                await self.duties()


async def unfinished(store: Store) -> int:
    census = await store.census(QUEUE)
    return sum(census.counts[state] for state in ("ready", "running", "scheduled", "retrying", "blocked"))


async def play(store: Store, clock: Clock, parts: set[str], before: int, steps: list[int]) -> None:
    world = World(store, clock)
    await world.set_up(parts)
    await world.duties()
    await world.pass_by(before / 2)
    if "backoff" in parts or "hold" in parts:
        await world.work(fail="hold" if "hold" in parts else "backoff")
    if "silent worker" in parts:
        await world.work(drop=True)
    for step in steps:
        clock.advance(step)
        await world.pass_by(6)
    ticks = await store.census("other") if "period" in parts else None
    await world.pass_by(60)

    assert 0 == await unfinished(store)
    # A failure and a silent worker are a second run each; nothing else is.
    allowed = 1 + len({"backoff", "hold"} & parts) + ("silent worker" in parts)
    assert max(world.runs.values()) <= allowed, world.runs
    if ticks is not None:
        now = await store.census("other")
        made = sum(now.counts.values()) - sum(ticks.counts.values())
        assert 26 <= made <= 34, made  # 60 s of a period of 2 s, looked at every 5 s
    assert [] == await faults(store)


@given(
    some.sets(some.sampled_from(PARTS), min_size=1),
    some.integers(0, 6),
    some.lists(STEPS, min_size=1, max_size=3),
)
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.reuse, Phase.generate],
)
@pytest.mark.parametrize("backend", ["valkey"])
def test_nothing_stands_still_and_nothing_runs_twice(servers: Any, backend, parts, before, steps):
    async def run() -> None:
        clients = await servers.open(backend)
        try:
            await clients.commands.flushall()
            clock = Clock()
            store = Store(clients, now=clock)
            await store.connect()
            await play(store, clock, parts, before, steps)
        finally:
            await clients.close()

    with asyncio.Runner() as runner:
        runner.run(run())


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("step", [-3_600, 3_600])
async def test_each_kind_of_stored_time_outlives_an_hour(store, clock, part, step):
    await play(store, clock, {part}, 2, [step])

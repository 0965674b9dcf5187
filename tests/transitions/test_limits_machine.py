"""Limits under any order of events: never exceeded, and whatever may run is given to whoever asks."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from scheduler.clients import Clients
from scheduler.outcomes import Ack, Nack, Release
from scheduler.store import Store
from tests.helpers import QUEUE, Clock, faults, keys, new

TYPES = ("send", "bill", "draw")
GROUPS = (None, "a", "b", "c")
at = keys().at


@dataclass
class Rule:
    """The limits of a scope as the test has set them, and what started under its rate since."""

    concurrency: int | None = None
    rate: tuple[int, int, int] | None = None
    paused: bool = False
    starts: list[int] = field(default_factory=list)

    def line(self, first: str, last: str) -> str:
        """As `types` and `groups` keep it."""
        rate = "|".join(str(part) for part in self.rate) if self.rate else "||"
        return f"{first}|{self.concurrency or ''}|{rate}|{1 if self.paused else ''}{last}"


@dataclass
class Waiting:
    type: str
    group: str | None
    cost: int = 1


slots = some.none() | some.integers(1, 3)
rates = some.none() | some.tuples(some.integers(1, 5), some.sampled_from([100, 1000]), some.integers(0, 2))


class Limits(RuleBasedStateMachine):
    open: Callable[[], Awaitable[Clients]]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.limits: dict[str, Rule] = defaultdict(Rule)
        self.jobs: dict[str, Waiting] = {}
        self.running: dict[str, int] = {}
        self.number = 0

    def wait(self, call: Awaitable[Any]) -> Any:
        async def run() -> Any:
            return await call

        return self.runner.run(run())

    @initialize()
    def connect(self) -> None:
        self.clients = self.wait(type(self).open())
        self.redis = self.clients.commands
        self.wait(self.redis.flushall())
        self.store = Store(self.clients, now=self.clock)
        self.wait(self.store.connect())
        self.wait(self.store.configure(QUEUE, {"step": "60000000"}))

    def teardown(self) -> None:
        self.wait(self.clients.close())
        self.runner.close()

    # -- what happens ------------------------------------------------------------------------------------------

    @rule(
        count=some.integers(1, 6),
        type=some.sampled_from(TYPES),
        group=some.sampled_from(GROUPS),
        priority=some.sampled_from([-100, 0, 0, 1]),
        cost=some.sampled_from([1, 1, 3]),
        delay=some.sampled_from([0, 0, 0, 500]),
    )
    def enqueue(self, count: int, type: str, group: str | None, priority: int, cost: int, delay: int) -> None:
        names = [f"k{self.number + n}" for n in range(count)]
        self.number += count
        made = [
            new(
                name,
                type=type,
                group=group,
                priority=priority,
                cost=cost,
                delay_ms=delay,
                retry={"immediate": 5},
            )
            for name in names
        ]
        self.wait(self.store.enqueue(QUEUE, made))
        self.jobs |= {name: Waiting(type, group, cost) for name in names}

    @rule(milliseconds=some.sampled_from([1, 30, 100, 400, 1000]))
    def time_goes_by(self, milliseconds: int) -> None:
        self.clock.now += milliseconds

    @rule(
        count=some.sampled_from([1, 2, 10]), only=some.sampled_from([(), (), (), ("send",), ("bill", "draw")])
    )
    def claim(self, count: int, only: tuple[str, ...]) -> None:
        self.take(count, only)

    @rule()
    def claim_all(self) -> None:
        """Whoever asks often enough gets all that may run."""
        for _ in range(60):
            claim = self.take(500, ())
            if not claim.jobs and claim.wait_ms > 1:
                break
        waiting = self.wait(self.redis.zrange(at("ready"), 0, -1))
        runnable = [key.decode() for key in waiting if self.may_run(key.decode())]
        assert [] == runnable, "forgotten"

    @rule(which=some.integers(0, 99), how=some.sampled_from(["ack", "nack", "release", "cancel"]))
    def end(self, which: int, how: str) -> None:
        if not self.running:
            return
        key = list(self.running)[which % len(self.running)]
        token = self.running.pop(key)
        if how == "cancel":
            self.wait(self.store.cancel(QUEUE, [key]))
            how = "release"
        if how == "ack":
            self.wait(self.store.ack(QUEUE, [Ack(key, token)], worker="w"))
        elif how == "nack":
            self.wait(self.store.nack(QUEUE, [Nack(key, token, "E", "no")], worker="w"))
        else:
            self.wait(self.store.release(QUEUE, [Release(key, token)], worker="w"))

    @rule(which=some.integers(0, 99), how=some.sampled_from(["cancel", "purge", "update"]))
    def change_one_that_waits(self, which: int, how: str) -> None:
        waiting = [key.decode() for key in self.wait(self.redis.zrange(at("ready"), 0, -1))]
        if not waiting:
            return
        key = waiting[which % len(waiting)]
        if how == "cancel":
            self.wait(self.store.cancel(QUEUE, [key]))
        elif how == "purge":
            self.wait(self.store.purge(QUEUE, [key]))
        else:
            self.wait(self.store.update(QUEUE, key, priority=which - 50))

    @rule()
    def workers_are_killed(self) -> None:
        """All of them, and the watchdog takes their jobs back."""
        self.clock.now += 60_000
        self.wait(self.store.reclaim(QUEUE))
        self.clock.now += 11_000
        self.wait(self.store.reclaim(QUEUE))
        self.running.clear()

    @rule(scope=some.sampled_from(["q", "*"]), concurrency=slots, rate=rates)
    def limit_the_queue(self, scope: str, concurrency: int | None, rate: tuple[int, int, int] | None) -> None:
        self.limits[scope] = Rule(concurrency, rate)
        for name in [name for name in self.limits if scope == "*" and name.startswith("g")]:
            self.limits[name].starts.clear()
        start = "" if scope == "q" else "group_"
        values = {
            f"{start}rate": "|".join(map(str, rate)) if rate else "",
            f"{start}concurrency": str(concurrency or ""),
        }
        self.limited(scope, at("config"), values)

    @rule(
        name=some.sampled_from([*(f"t{kind}" for kind in TYPES), "ga", "gb"]),
        concurrency=slots,
        rate=rates,
        paused=some.sampled_from([False, False, True]),
    )
    def limit_a_type_or_a_group(
        self, name: str, concurrency: int | None, rate: tuple[int, int, int] | None, paused: bool
    ) -> None:
        its = self.limits[name] = Rule(concurrency, rate, paused)
        of_type = name.startswith("t")
        line = its.line("", "|\n") if of_type else its.line("2", "")
        self.limited(name, at("types" if of_type else "groups"), {name[1:]: line})

    def limited(self, scope: str, key: str, values: dict[str, str]) -> None:
        """As `configure` does it."""

        async def write() -> None:
            await self.redis.hset(at("config"), mapping={"lanes": "2", "slots": "1"})
            for name, value in values.items():
                await (self.redis.hset(key, name, value) if value else self.redis.hdel(key, name))
            await self.redis.zadd(at("waits"), {scope: 0}, xx=scope != "*")

        self.wait(write())

    # -- what must hold ----------------------------------------------------------------------------------------

    def take(self, count: int, only: tuple[str, ...]) -> Any:
        claim = self.wait(self.store.claim(QUEUE, worker="w", count=count, lease_ms=50_000, types=only))
        for job in claim.jobs:
            assert job.key not in self.running
            self.running[job.key] = job.token
            assert not only or self.jobs[job.key].type in only
            for name in self.scopes(job.key):
                its = self.its(name)
                assert not its.paused, name
                if its.rate:
                    self.limits[name].starts.append(self.clock.now)
        for name in {name for job in claim.jobs for name in self.scopes(job.key)}:
            self.within(name)
        return claim

    def scopes(self, key: str) -> list[str]:
        job = self.jobs[key]
        return ["q", f"t{job.type}", *([f"g{job.group}"] if job.group else [])]

    def its(self, name: str) -> Rule:
        """The limits in force: of a group its own, field by field, else the default of all groups."""
        own, default = self.limits[name], self.limits["*"] if name.startswith("g") else Rule()
        return Rule(own.concurrency or default.concurrency, own.rate or default.rate, own.paused)

    def used(self, name: str) -> int:
        return sum(name in self.scopes(key) for key in self.running)

    def within(self, name: str) -> None:
        its = self.its(name)
        assert its.concurrency is None or self.used(name) <= its.concurrency, name
        if its.rate:
            limit, per, burst = its.rate
            starts = self.limits[name].starts
            for first in range(len(starts)):
                inside = sum(starts[first] <= start < starts[first] + per for start in starts[first:])
                assert inside <= limit + burst, (name, starts)

    def may_run(self, key: str) -> bool:
        for name in self.scopes(key):
            its = self.its(name)
            if its.paused or (its.concurrency is not None and self.used(name) >= its.concurrency):
                return False
            meter = self.wait(self.redis.hget(at("meters"), name)) if its.rate else None
            if its.rate and meter:
                limit, per, burst = its.rate
                every = math.ceil(per * 1000 / limit)
                tat, of = (int(part) for part in meter.split(b"|"))
                assert of == every, "the meter of a scope that was looked at is of its rate"
                if tat - burst * every > self.clock.now * 1000:
                    return False
        return True

    @invariant()
    def in_order(self) -> None:
        if hasattr(self, "store"):
            assert [] == self.wait(faults(self.store))


@pytest.mark.parametrize("backend", ("fake", "valkey"), indirect=True)
def test_limits_hold_in_any_order_of_events_and_nothing_is_forgotten(servers, backend):
    class Here(Limits):
        @staticmethod
        async def open() -> Clients:
            found: Clients = await servers.open(backend)
            return found

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=12 if backend == "fake" else 80,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("backend", ("valkey",), indirect=True)
@pytest.mark.parametrize("seed", range(10))
async def test_the_shares_of_busy_groups_are_their_weights_give_or_take_a_turn(store, redis, seed):
    source = random.Random(seed)
    weights = [source.randint(1, 100) for _ in range(source.randint(2, 6))]
    batches = [source.choice([1, 1, 2, 7, 30]) for _ in range(30)]
    await redis.hset(at("config"), "lanes", "2")
    for n, weight in enumerate(weights):
        await redis.hset(at("groups"), f"g{n}", f"{weight}|||||")
        await store.enqueue(QUEUE, [new(f"g{n}-{k}", group=f"g{n}") for k in range(sum(batches))])

    served = [0] * len(weights)
    for batch in batches:
        for job in (await store.claim(QUEUE, worker="w", count=batch)).jobs:
            served[int(job.key[1 : job.key.index("-")])] += 1
        # The bound of start-time fair queueing: no two busy groups are further apart than a turn of each.
        turns = [Fraction(1, weight) for weight in weights]
        shares = [of * turn for of, turn in zip(served, turns, strict=True)]
        for one, other in itertools.combinations(range(len(weights)), 2):
            assert abs(shares[one] - shares[other]) <= turns[one] + turns[other], (weights, served)

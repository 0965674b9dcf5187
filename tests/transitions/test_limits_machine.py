"""Limits and breakers in any order of events: never exceeded, and whatever may run is given to whoever asks."""

from __future__ import annotations

import itertools
import math
import random
from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import strategies as some
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
)

from scheduler.limits import Breaker, GroupPolicy, Rate
from scheduler.outcomes import Ack, Nack, Release, TypePolicy
from tests.helpers import QUEUE, faults, keys, new
from tests.transitions.machine import SHORT_AND_LONG, Machine, check, on_each

TYPES = ("send", "bill", "draw")
GROUPS = (None, "a", "b", "c")
at = keys().at


@dataclass
class Rule:
    """The limits of a scope as the test has set them, and what started under its rate since."""

    concurrency: int | None = None
    rate: Rate | None = None
    paused: bool = False
    starts: list[int] = field(default_factory=list)


@dataclass
class Circuit:
    """What a breaker must do, in plain Python."""

    its: Breaker
    until: int | None = None
    """Until when it is open, then half open; None while it is closed."""
    passed: int = 0
    """Probes that did well."""
    since: int = 0
    counts: tuple[int, int, int, int] = (0, 0, 0, 0)
    """What did well and what failed in this window and in the one before."""

    def state(self, now: int) -> str:
        if self.until is None:
            return "closed"
        return "open" if now < self.until <= now + self.its.open_ms else "half_open"

    def probes(self) -> int:
        """How many may run at once while it is half open."""
        return max(1, self.its.probes - self.passed)

    def text(self) -> str:
        """As `meters` has it: whole while it counts, else what decides what it does."""
        if self.until is not None:
            return f"open|{self.until}|{self.passed}|"
        return "|".join(map(str, ("closed", self.since, *self.counts))) if any(self.counts) else ""

    def judge(self, runs: list[Ended], now: int) -> None:
        """Runs of one call have ended. While it is not closed only those tell that are its own probes."""
        if self.until is not None:
            own = [run.good for run in runs if run.mark == self.until]
            self.passed += sum(own)
            if not all(own):
                self._open(now)
            elif self.passed >= self.its.probes:
                self.close()
            return
        window, (good, bad, *former) = self.its.window_ms, self.counts
        if not any(self.counts) or now - self.since >= 2 * window:
            self.since, good, bad, former = now, 0, 0, [0, 0]
        elif now - self.since >= window:
            self.since, good, bad, former = self.since + window, 0, 0, [good, bad]
        good += sum(run.good for run in runs)
        bad += sum(not run.good for run in runs)
        self.counts = (good, bad, former[0], former[1])
        share = 1 - (now - self.since) / window
        well, wrong = good + former[0] * share, bad + former[1] * share
        if well + wrong >= self.its.minimum and wrong * 100 >= self.its.percent * (well + wrong):
            self._open(now)

    def _open(self, now: int) -> None:
        self.close()
        self.until = now + self.its.open_ms

    def close(self) -> None:
        self.until, self.passed, self.counts = None, 0, (0, 0, 0, 0)


@dataclass
class Waiting:
    type: str
    group: str | None
    cost: int = 1


@dataclass
class Run:
    token: int
    mark: int | None
    """Of a probe: until when its breaker was open."""


@dataclass
class Ended:
    """A run that tells its breaker how it went."""

    good: bool
    mark: int | None


slots = some.none() | some.integers(1, 3)
pauses = some.sampled_from([False, False, False, True])
endings = some.sampled_from(["ack", "ack", "nack", "nack", "nack", "release", "cancel"])
rates = some.none() | some.builds(
    Rate, some.integers(1, 5), some.sampled_from([100, 1000]), some.integers(0, 2)
)
breakers = some.builds(
    Breaker,
    percent=some.sampled_from([1, 50, 50, 100]),
    window_ms=some.sampled_from([1000, 86_400_000]),
    minimum=some.sampled_from([1, 1, 2, 4]),
    open_ms=some.sampled_from([1000, 1000, 5000]),
    probes=some.integers(1, 3),
)


class Limits(Machine):
    def __init__(self) -> None:
        super().__init__()
        self.limits: dict[str, Rule] = defaultdict(Rule)
        self.jobs: dict[str, Waiting] = {}
        self.running: dict[str, Run] = {}
        self.circuits: dict[str, Circuit] = {}
        self.number = 0

    @initialize(
        first=some.lists(some.tuples(some.sampled_from(TYPES), some.sampled_from(GROUPS)), max_size=8),
        breaker=some.none() | breakers | breakers,
        begun=some.sampled_from([0, 2, 5]),
    )
    def connect(self, first: list[tuple[str, str | None]], breaker: Breaker | None, begun: int) -> None:
        self.begin()
        self.wait(self.store.configure(QUEUE, {"step": "60000000"}))
        for kind, group in first:
            self.put(2, kind, group)
        for kind in TYPES if breaker else ():
            self.guard(kind, breaker)
        if begun:
            self.take(begun, ())

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
        self.put(count, type, group, priority, cost, delay)

    def put(
        self, count: int, type: str, group: str | None, priority: int = 0, cost: int = 1, delay: int = 0
    ) -> None:
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
        self.take_all()

    def take_all(self) -> None:
        """Whoever asks often enough gets all that may run."""
        for _ in range(60):
            claim = self.take(500, ())
            if not claim.jobs and claim.wait_ms > 1:
                break
        waiting = self.wait(self.redis.zrange(at("ready"), 0, -1))
        runnable = [key.decode() for key in waiting if self.may_run(key.decode())]
        assert [] == runnable, "forgotten"

    @rule(count=some.integers(1, 4), only=some.sampled_from([(), (), ("send",)]), how=endings)
    def claim_and_end(self, count: int, only: tuple[str, ...], how: str) -> None:
        names = [job.key for job in self.take(count, only).jobs]
        if names:
            self.settle(names, how)

    @precondition(lambda self: self.running)
    @rule(which=some.integers(0, 99), count=some.integers(1, 3), how=endings)
    def end(self, which: int, count: int, how: str) -> None:
        first = list(self.running)[which % len(self.running)]
        self.settle([first, *[key for key in self.running if key != first][: count - 1]], how)

    def settle(self, names: list[str], how: str) -> None:
        """Runs end in one call. What is given back tells its breaker nothing, nor what fails when it was asked to stop."""
        held = [(key, self.running[key].token) for key in names]
        if how == "cancel":
            self.wait(self.store.cancel(QUEUE, names))
        if how == "ack":
            self.wait(self.store.ack(QUEUE, [Ack(*run) for run in held], worker="w"))
        elif how in {"nack", "cancel"}:
            self.wait(self.store.nack(QUEUE, [Nack(*run, "E", "no") for run in held], worker="w"))
        else:
            self.wait(self.store.release(QUEUE, [Release(*run) for run in held], worker="w"))
        self.have_ended(names, {"ack": True, "nack": False}.get(how))

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

    @precondition(lambda self: self.running)
    @rule()
    def workers_are_killed(self) -> None:
        """All of them, and the watchdog takes their jobs back."""
        self.clock.now += 60_000
        self.reclaim()
        self.clock.now += 11_000
        while self.running:
            assert self.reclaim() > 0

    def reclaim(self) -> int:
        found: int = self.wait(self.store.reclaim(QUEUE)).reclaimed
        left = {key.decode() for key in self.wait(self.redis.zrange(at("running"), 0, -1))}
        ended = [key for key in self.running if key not in left]
        self.have_ended(ended, good=False)
        assert len(ended) == found
        return found

    @rule(scope=some.sampled_from(["q", "*"]), concurrency=slots, rate=rates)
    def limit_the_queue(self, scope: str, concurrency: int | None, rate: Rate | None) -> None:
        self.limits[scope] = Rule(concurrency, rate)
        for name in [name for name in self.limits if scope == "*" and name.startswith("g")]:
            self.limits[name].starts.clear()
        start = "" if scope == "q" else "group_"
        values = {
            f"{start}rate": rate.text() if rate else "",
            f"{start}concurrency": str(concurrency or ""),
        }
        self.wait(self.store.configure(QUEUE, values))

    @rule(group=some.sampled_from(["a", "b"]), concurrency=slots, rate=rates, paused=pauses)
    def limit_a_group(self, group: str, concurrency: int | None, rate: Rate | None, paused: bool) -> None:
        self.limits[f"g{group}"] = Rule(concurrency, rate, paused)
        policy = GroupPolicy(weight=2, rate=rate, concurrency=concurrency, paused=paused)
        self.wait(self.store.configure_group(QUEUE, group, policy))

    @rule(type=some.sampled_from(TYPES), concurrency=slots, rate=rates, paused=pauses)
    def limit_a_type(self, type: str, concurrency: int | None, rate: Rate | None, paused: bool) -> None:
        self.limits[f"t{type}"] = Rule(concurrency, rate, paused)
        self.set_type(type)

    @rule(type=some.sampled_from(TYPES), breaker=some.none() | breakers | breakers)
    def guard_a_type(self, type: str, breaker: Breaker | None) -> None:
        self.guard(type, breaker)

    def guard(self, type: str, breaker: Breaker | None) -> None:
        """One that changes goes on as it stands; one that is lifted has forgotten what it counted."""
        if breaker is None:
            self.circuits.pop(type, None)
        else:
            self.circuits.setdefault(type, Circuit(breaker)).its = breaker
        self.set_type(type)

    def set_type(self, type: str) -> None:
        its, circuit = self.limits[f"t{type}"], self.circuits.get(type)
        breaker = circuit.its if circuit else None
        policy = TypePolicy(rate=its.rate, concurrency=its.concurrency, paused=its.paused, breaker=breaker)
        self.wait(self.store.configure_type(QUEUE, type, policy))

    @precondition(lambda self: self.circuits)
    @rule(which=some.integers(0, 99), group=some.sampled_from(GROUPS), held=some.booleans())
    def much_fails(self, which: int, group: str | None, held: bool) -> None:
        """All that runs of a type with a breaker, and some more: mostly it opens, and what waits is held when one asks for it."""
        kind = list(self.circuits)[which % len(self.circuits)]
        self.put(6, kind, group)
        self.take(4, (kind,))
        if names := [key for key in self.running if self.jobs[key].type == kind]:
            self.settle(names, "nack")
        if held:
            self.take_all()

    @precondition(lambda self: self.open_until())
    @rule(
        which=some.integers(0, 99),
        early=some.sampled_from([0, 0, 0, 1]),
        then=some.sampled_from(["claim", "claim all", "claim all", ""]),
        group=some.sampled_from(GROUPS),
    )
    def a_breaker_is_open_no_longer(self, which: int, early: int, then: str, group: str | None) -> None:
        """Or for a moment still. Beside its probes others come, maybe in a lane that nobody has looked at."""
        circuits = self.open_until()
        kind, until = circuits[which % len(circuits)]
        self.clock.now = until - early
        if then == "claim":
            self.take(10, ())
        elif then == "claim all":
            self.take_all()
            self.put(2, kind, group)
            self.take_all()

    def open_until(self) -> list[tuple[str, int]]:
        """The types whose breakers are open, and until when."""
        found = [(kind, circuit.until) for kind, circuit in self.circuits.items()]
        return [(kind, until) for kind, until in found if until is not None and until > self.clock.now]

    @rule(which=some.integers(0, 99), then=some.sampled_from(["claim all", ""]))
    def reset(self, which: int, then: str) -> None:
        """Of any type, mostly of one whose breaker is not closed."""
        kinds = [kind for kind, circuit in self.circuits.items() if circuit.until is not None] * 3 + [*TYPES]
        circuit = self.circuits.get(kinds[which % len(kinds)])
        expected = circuit is not None and circuit.text() != ""
        assert expected == self.wait(self.store.reset(QUEUE, kinds[which % len(kinds)]))
        if circuit:
            circuit.close()
        if then == "claim all":
            self.take_all()

    def have_ended(self, names: list[str], good: bool | None) -> None:
        """These runs ended in one call; None where they tell their breakers nothing."""
        told: dict[str, list[Ended]] = defaultdict(list)
        for key in names:
            told[self.jobs[key].type].append(Ended(good is True, self.running.pop(key).mark))
        for name, runs in told.items():
            if good is not None and name in self.circuits:
                self.circuits[name].judge(runs, self.clock.now)

    # -- what must hold ----------------------------------------------------------------------------------------

    def take(self, count: int, only: tuple[str, ...]) -> Any:
        claim = self.wait(self.store.claim(QUEUE, worker="w", count=count, lease_ms=50_000, types=only))
        for job in claim.jobs:
            assert job.key not in self.running
            self.start(job.key, job.token)
            assert not only or self.jobs[job.key].type in only
            for name in self.scopes(job.key):
                its = self.its(name)
                assert not its.paused, name
                if its.rate:
                    self.limits[name].starts.append(self.clock.now)
        for name in {name for job in claim.jobs for name in self.scopes(job.key)}:
            self.within(name)
        for name in {self.jobs[job.key].type for job in claim.jobs} & self.circuits.keys():
            circuit = self.circuits[name]
            assert circuit.until is None or self.probing(name) <= circuit.probes(), name
        return claim

    def start(self, key: str, token: int) -> None:
        """Nothing starts while its breaker is open; what starts while it is half open is a probe."""
        circuit = self.circuits.get(self.jobs[key].type)
        state = circuit.state(self.clock.now) if circuit else "closed"
        assert state != "open", key
        self.running[key] = Run(token, circuit.until if circuit and state == "half_open" else None)

    def probing(self, type: str) -> int:
        return sum(run.mark is not None and self.jobs[key].type == type for key, run in self.running.items())

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
            starts, per = self.limits[name].starts, its.rate.per_ms
            for first in range(len(starts)):
                inside = sum(starts[first] <= start < starts[first] + per for start in starts[first:])
                assert inside <= its.rate.limit + its.rate.burst, (name, starts)

    def may_run(self, key: str) -> bool:
        kind = self.jobs[key].type
        circuit = self.circuits.get(kind)
        state = circuit.state(self.clock.now) if circuit else "closed"
        if circuit and (state == "open" or (state == "half_open" and self.probing(kind) >= circuit.probes())):
            return False
        for name in self.scopes(key):
            its = self.its(name)
            if its.paused or (its.concurrency is not None and self.used(name) >= its.concurrency):
                return False
            meter = self.wait(self.redis.hget(at("meters"), name)) if its.rate else None
            if its.rate and meter:
                every = math.ceil(its.rate.per_ms * 1000 / its.rate.limit)
                tat, of, _ = (int(part) for part in meter.split(b"|"))
                assert of == every, "the meter of a scope that was looked at is of its rate"
                if tat - its.rate.burst * every > self.clock.now * 1000:
                    return False
        return True

    @invariant()
    def in_order(self) -> None:
        if hasattr(self, "store"):
            assert [] == self.wait(faults(self.store))

    @invariant()
    def breakers_count_what_has_ended(self) -> None:
        for name, circuit in self.circuits.items():
            found = (self.wait(self.redis.hget(at("meters"), f"breaker {name}")) or b"").decode()
            expected = circuit.text()
            assert expected == (found[: len(expected)] if circuit.until is not None else found), name


@on_each(SHORT_AND_LONG)
def test_limits_hold_in_any_order_of_events_and_nothing_is_forgotten(servers, backend, bound):
    check(Limits, servers, backend, steps=40, **bound)


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

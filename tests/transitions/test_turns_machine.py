"""Groups take turns, whatever else happens to their jobs: who runs next is what a plain model says, in batches of any size."""

from __future__ import annotations

from hypothesis import strategies as some
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
)

from scheduler.limits import GroupPolicy
from scheduler.outcomes import Ack, Nack, Release
from tests.helpers import QUEUE, faults, keys, new
from tests.transitions.machine import SHORT_AND_LONG, Machine, check, on_each

GROUPS = (None, "a", "a-1", "b", "c", "d")
at = keys().at


class Turns(Machine):
    def __init__(self) -> None:
        super().__init__()
        self.group: dict[str, str] = {}
        self.running: dict[str, int] = {}
        # Of the model: the next turn of each group that has jobs, or had some lately, and the turn that was served last.
        self.tags: dict[str, int] = {}
        self.turn = 0
        self.waiting: dict[str, list[tuple[float, str]]] = {}

    @initialize(
        before=some.integers(0, 3),
        sizes=some.lists(some.sampled_from([0, 1, 2, 7, 8, 9, 10, 30]), min_size=6, max_size=6),
    )
    def connect(self, before: int, sizes: list[int]) -> None:
        """A queue that holds a few jobs when its first group comes, and then has short lines and long ones."""
        self.begin()
        self.put(before, None, 0, 0)
        self.put(1, "a", 0, 0)
        while self.wait(self.redis.hget(at("counters"), "filed")) != b"all":
            self.claim(1)
        for group, size in zip(GROUPS, sizes, strict=True):
            self.put(size, group, 0, 0)

    def end_well(self) -> None:
        """With the first limit the jobs are filed anew, and none is forgotten."""
        self.wait(self.store.configure_group(QUEUE, "b", GroupPolicy(weight=3)))
        assert [] == self.wait(faults(self.store))
        left = {key for line in self.waiting.values() for _, key in line}
        for _ in range(40):
            left -= {job.key for job in self.wait(self.store.claim(QUEUE, worker="w", count=100)).jobs}
        assert set() == left
        assert [] == self.wait(faults(self.store))

    # -- what happens ------------------------------------------------------------------------------------------

    @rule(
        count=some.sampled_from([1, 1, 1, 2, 9, 20]),
        group=some.sampled_from(GROUPS),
        priority=some.sampled_from([0, 0, 0, 0, 1, -1, 100]),
        delay=some.sampled_from([0, 0, 0, 500]),
    )
    def enqueue(self, count: int, group: str | None, priority: int, delay: int) -> None:
        self.put(count, group, priority, delay)

    @rule(groups=some.lists(some.sampled_from(GROUPS), min_size=2, max_size=12))
    def enqueue_of_several(self, groups: list[str | None]) -> None:
        names = [f"k{len(self.group) + n}" for n in range(len(groups))]
        made = [new(name, group=group) for name, group in zip(names, groups, strict=True)]
        self.wait(self.store.enqueue(QUEUE, made))
        self.group |= {name: group or "" for name, group in zip(names, groups, strict=True)}
        self.look()

    def put(self, count: int, group: str | None, priority: int, delay: int) -> None:
        names = [f"k{len(self.group) + n}" for n in range(count)]
        made = [
            new(name, group=group, priority=priority, delay_ms=delay, retry={"immediate": 5})
            for name in names
        ]
        if made:
            self.wait(self.store.enqueue(QUEUE, made))
        self.group |= dict.fromkeys(names, group or "")
        self.look()

    @rule(count=some.sampled_from([1, 1, 2, 3, 10, 60]))
    def claim(self, count: int) -> None:
        self.wait(self.store.promote(QUEUE))
        self.look()
        expected = self.next(count)
        claim = self.wait(self.store.claim(QUEUE, worker="w", count=count))
        assert expected == [job.key for job in claim.jobs]
        self.running |= {job.key: job.token for job in claim.jobs}
        if not claim.jobs:
            assert not any(self.waiting.values())

    def next(self, count: int) -> list[str]:
        found: list[str] = []
        while len(found) < count and any(self.waiting.values()):
            name = min((self.tags[name], name) for name, line in self.waiting.items() if line)[1]
            found.append(self.waiting[name].pop(0)[1])
            self.turn = self.tags[name]
            self.tags[name] += 1
        if not any(self.waiting.values()):
            self.tags = {}
        return found

    @precondition(lambda self: self.running)
    @rule(
        which=some.integers(0, 99),
        count=some.integers(1, 12),
        how=some.sampled_from(["ack", "nack", "release"]),
    )
    def end(self, which: int, count: int, how: str) -> None:
        first = which % len(self.running)
        held = list(self.running.items())[first : first + count]
        if how == "ack":
            self.wait(self.store.ack(QUEUE, [Ack(*run) for run in held], worker="w"))
        elif how == "nack":
            self.wait(self.store.nack(QUEUE, [Nack(*run, "E", "no") for run in held], worker="w"))
        else:
            self.wait(self.store.release(QUEUE, [Release(*run) for run in held], worker="w"))
        for key, _ in held:
            del self.running[key]
        self.look()

    @rule(
        which=some.integers(0, 99),
        count=some.sampled_from([1, 1, 3, 20]),
        how=some.sampled_from(["cancel", "purge", "update"]),
    )
    def change_those_that_wait(self, which: int, count: int, how: str) -> None:
        names = [key for _, key in self.ready()]
        names = names[which % len(names) :][:count] if names else []
        for key in names:
            if how == "cancel":
                self.wait(self.store.cancel(QUEUE, [key]))
            elif how == "purge":
                self.wait(self.store.purge(QUEUE, [key]))
            else:
                self.wait(self.store.update(QUEUE, key, priority=which - 50))
            self.look()

    @rule(milliseconds=some.sampled_from([1, 600]))
    def time_goes_by(self, milliseconds: int) -> None:
        self.clock.now += milliseconds

    # -- what must hold ----------------------------------------------------------------------------------------

    def ready(self) -> list[tuple[float, str]]:
        found = self.wait(self.redis.zrange(at("ready"), 0, -1, withscores=True))
        return sorted((score, key.decode()) for key, score in found)

    def look(self) -> None:
        """A group that has jobs again takes its turns from now on, or when its next one would have been."""
        waiting: dict[str, list[tuple[float, str]]] = {}
        for score, key in self.ready():
            waiting.setdefault(self.group[key], []).append((score, key))
        for name in waiting:
            if not self.waiting.get(name):
                self.tags[name] = max(self.tags.get(name, self.turn), self.turn)
        self.waiting = waiting

    @invariant()
    def in_order(self) -> None:
        if hasattr(self, "store"):
            assert [] == self.wait(faults(self.store))


@on_each(SHORT_AND_LONG)
def test_who_runs_next_is_what_the_model_says(servers, backend, bound):
    check(Turns, servers, backend, steps=30, **bound)

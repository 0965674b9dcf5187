"""Every transition in any order against a plain Python model; after each step the whole queue is compared."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import strategies as some
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
)

from scheduler.job import Unique
from scheduler.keys import STATES
from scheduler.operations import WHERE, Operations, Plan
from scheduler.outcomes import Ack, Bury, DeadGroup, Extend, Nack, Note, Operation, Release
from tests.helpers import QUEUE, faults, new, snapshot
from tests.helpers import keys as queue_keys
from tests.transitions.machine import EXHAUSTIVE, SHORT_AND_LONG, Machine, check, on_each
from tests.transitions.model import ENDED, WHILE_IT_WAITED, Model, ModelJob, Policy

KEYS = [f"k{n}" for n in range(10)]
at = queue_keys().at
LEASE, PERIOD, PATIENCE = 30_000, 10_000, 5_000

policies = some.sampled_from(
    [Policy(), Policy(immediate=0), Policy(max_attempts=1), Policy(max_crashes=1, max_attempts=5)]
)
priorities = some.sampled_from([-100, -1, 0, 0, 0, 1, 100])
delays = some.sampled_from([0, 0, 0, 1, 1000, 1000, 5000, 90_000])
delays_or_none = some.none() | delays
leases = some.sampled_from([1000, 30_000, 30_000, 600_000])
kinds = some.sampled_from(["E", "F", "G"])
SPANS = [*[None] * 6, 1000, 6000, 20_000, 120_000]
"""How long a job may wait for its first start, or go on in all, ms."""
spans_to_come, spans = some.sampled_from(SPANS), some.sampled_from([*SPANS, 0])
CHECKED = ("jobs", "leases", "known", "dead_index", "dead_groups")
again = some.booleans()
which = some.integers(0, 99)
"""Which of those that there are: most steps should be about a job that exists."""


class Queue(Machine):
    """One queue of few jobs, so that they meet."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(self.clock.now)
        self.claims: list[tuple[str, int]] = []
        self.turn = 0

    @initialize(
        first=some.lists(some.tuples(policies, spans_to_come, spans_to_come), min_size=3, max_size=6),
        begun=some.integers(0, 3),
    )
    def connect(self, first: list[tuple[Policy, int | None, int | None]], begun: int) -> None:
        self.begin()
        for key, (policy, deadline, expires) in zip(KEYS, first, strict=False):
            self.put(key, policy, 0, 0, None, 3_600_000, deadline=deadline, expires=expires)
        if begun:
            self.take(begun, LEASE, again=False)

    def end_well(self) -> None:
        assert [] == self.wait(faults(self.store))
        self.wait(self.bytes_are_what_is_there())

    async def bytes_are_what_is_there(self) -> None:
        """What retention by bytes goes by."""
        counters = (await self.store.census(QUEUE)).counters
        for state in ENDED:
            held = 0
            # What its own retention keeps (a score below 0) is not in that count.
            for key in await self.redis.zrangebyscore(at(state), 0, "+inf"):
                for name in ("jobs", "results"):
                    held += len(await self.redis.hget(at(name), key) or b"")
            assert held == int(counters.get(f"bytes_{state}", 0)), state

    def same(self, expected: Any, call: Callable[[], Awaitable[Any]], again: bool) -> None:
        """The answer is the model's. Sent again, as if it had been lost, it is the same and changes nothing."""
        assert expected == self.wait(call())
        if again:
            before = self.wait(snapshot(self.redis))
            assert expected == self.wait(call())
            assert before == self.wait(snapshot(self.redis))

    def claimed(self, which: int) -> tuple[str, int]:
        """A job that runs, or one of the last that were claimed, with the token of then."""
        running = [(job.key, job.token) for job in self.model.jobs.values() if job.state == "running"]
        found = 2 * running + self.claims[-3:]
        return found[which % len(found)]

    def job(self, which: int) -> str:
        """The key of a job that is there or known, or any key."""
        found = [*self.model.jobs, *self.model.tombs] * 3 + KEYS[:1]
        return found[which % len(found)]

    def new_key(self, which: int) -> str:
        """A key that nobody has, or any key."""
        found = [key for key in KEYS if key not in self.model.jobs and key not in self.model.tombs] * 3 + KEYS
        return found[which % len(found)]

    # -- producing

    @rule(
        which=which,
        policy=policies,
        priority=priorities,
        delay=delays,
        retention=some.sampled_from([None, None, 0]),
        timeout=some.sampled_from([3_600_000, 20_000]),
        unique=some.sampled_from(["", "", "u", "v"]),
        until=some.sampled_from(["start", "end"]),
        deadline=spans,
        expires=spans,
    )
    def enqueue(
        self, which: int, policy: Policy, priority: int, delay: int, retention: int | None, timeout: int,
        unique: str, until: str, deadline: int | None, expires: int | None,
    ) -> None:  # fmt: skip
        key = self.new_key(which)
        self.put(key, policy, priority, delay, retention, timeout, unique, until, deadline, expires)

    def put(
        self, key: str, policy: Policy, priority: int, delay: int, retention: int | None, timeout: int,
        unique: str = "", until: str = "", deadline: int | None = None, expires: int | None = None,
    ) -> None:  # fmt: skip
        job = new(
            key,
            retry=asdict(policy),
            priority=priority,
            delay_ms=delay,
            retention_ms=retention,
            timeout_ms=timeout,
            unique=Unique(key=unique, until=until) if unique else None,
            deadline_in_ms=deadline,
            expires_in_ms=expires,
        )
        until = until if unique else ""
        expected = self.model.enqueue(
            key, policy, priority, delay, retention, timeout, unique, until, deadline, expires
        )
        [done] = self.wait(self.store.enqueue(QUEUE, [job]))
        assert expected == done.outcome

    @rule(seconds=some.sampled_from([0.001, 1, 5, 9, 10, 15, 31, 61, 601]))
    def passes(self, seconds: float) -> None:
        self.time_goes_by(seconds)

    def time_goes_by(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.model.now = self.clock.now

    # -- working

    @rule(count=some.integers(1, 5), lease=leases, again=again)
    def claim(self, count: int, lease: int, again: bool) -> None:
        self.take(count, lease, again)

    def take(self, count: int, lease: int, again: bool) -> None:
        self.turn += 1
        expected = [(job.key, job.token, job.held, job.lease_end) for job in self.model.claim(count, lease)]
        for _ in range(2 if again else 1):
            jobs = self.wait(
                self.store.claim(QUEUE, worker="w", turn=self.turn, count=count, lease_ms=lease)
            ).jobs
            assert expected == [(job.key, job.token, job.attempt, job.lease_ends_ms) for job in jobs]
        self.claims += [(key, token) for key, token, *_ in expected]

    @precondition(lambda self: self.claims)
    @rule(which=which, again=again)
    def ack(self, which: int, again: bool) -> None:
        key, token = self.claimed(which)
        self.same(
            [self.model.ack(key, token)],
            lambda: self.store.ack(QUEUE, [Ack(key, token, b"1")], worker="w"),
            again,
        )

    @precondition(lambda self: self.claims)
    @rule(which=which, kind=kinds, retry_in=delays_or_none, again=again)
    def nack(self, which: int, kind: str, retry_in: int | None, again: bool) -> None:
        self.fail(*self.claimed(which), kind, retry_in, again)

    def fail(self, key: str, token: int, kind: str, retry_in: int | None, again: bool) -> None:
        failure = Nack(key, token, kind, f"run {token} failed", retry_in_ms=retry_in)
        self.same(
            [self.model.nack(key, token, kind, retry_in)],
            lambda: self.store.nack(QUEUE, [failure], worker="w"),
            again,
        )

    @precondition(lambda self: self.claims)
    @rule(which=which, kind=kinds, again=again)
    def bury(self, which: int, kind: str, again: bool) -> None:
        key, token = self.claimed(which)
        self.same(
            [self.model.bury(key, token, kind)],
            lambda: self.store.bury(QUEUE, [Bury(key, token, kind, f"run {token} failed")], worker="w"),
            again,
        )

    @precondition(lambda self: self.claims)
    @rule(which=which, delay=delays, why=some.sampled_from(["", "snooze", "no_handler"]), again=again)
    def release(self, which: int, delay: int, why: str, again: bool) -> None:
        self.give_back(*self.claimed(which), delay, why, again)

    def give_back(self, key: str, token: int, delay: int, why: str, again: bool) -> None:
        expected = [self.model.release(key, token, delay, why, PATIENCE)]
        back = [Release(key, token, delay, why)]
        self.same(
            expected, lambda: self.store.release(QUEUE, back, worker="w", no_handler_after_ms=PATIENCE), again
        )

    @precondition(lambda self: self.claims)
    @rule(which=which, lease=leases, again=again)
    def extend(self, which: int, lease: int, again: bool) -> None:
        key, token = self.claimed(which)
        self.same(
            [self.model.extend(key, token, lease)],
            lambda: self.store.extend(QUEUE, [Extend(key, token, lease)]),
            again,
        )

    @precondition(lambda self: self.claims)
    @rule(which=which, value=some.sampled_from([b"1", b"2"]), again=again)
    def note(self, which: int, value: bytes, again: bool) -> None:
        key, token = self.claimed(which)
        self.same(
            [self.model.note(key, token, value)],
            lambda: self.store.note(QUEUE, [Note(key, token, "progress", value)]),
            again,
        )

    # -- upkeep

    @rule()
    def sweep(self) -> None:
        self.reclaim()

    def reclaim(self) -> None:
        expected = self.model.reclaim(LEASE, PERIOD)
        assert expected == self.wait(self.store.reclaim(QUEUE, lease_ms=LEASE, period_ms=PERIOD)).reclaimed

    @rule(seconds=some.sampled_from([0, 20, 40, 700]))
    def leases_run_out(self, seconds: int) -> None:
        for step in (seconds, 10, 10):
            self.time_goes_by(step)
            self.reclaim()

    @rule()
    def promote(self) -> None:
        expected = self.model.promote() if self.model.created else 0
        assert (expected, False) == self.wait(self.store.promote(QUEUE))

    @rule()
    def expire(self) -> None:
        self.let_go()

    def let_go(self) -> None:
        self.model.expire()
        self.wait(self.store.expire(QUEUE))

    @precondition(lambda self: self.model.times())
    @rule(
        which=which,
        first=some.sampled_from(["nack", "nack", "release", ""]),
        early=some.sampled_from([0, 0, 1]),
        then=some.sampled_from(["expire", "claim", ""]),
    )
    def a_time_is_over(self, which: int, first: str, early: int, then: str) -> None:
        """The deadline or the expiry of a job, or a moment before it. One that runs may wait again by then."""
        times = self.model.times()
        running = [(job, time) for job, time in times if job.state == "running"]
        times += 3 * running if first else []
        job, time = times[which % len(times)]
        if job.state == "running" and first == "nack":
            self.fail(job.key, job.token, "E", None, again=False)
        elif job.state == "running" and first == "release":
            self.give_back(job.key, job.token, 0, "", again=False)
        self.time_goes_by((time - early - self.clock.now) / 1000)
        if then == "expire":
            self.let_go()
        elif then == "claim":
            self.take(3, LEASE, again=False)

    # -- acting on jobs

    @precondition(lambda self: self.model.jobs or self.model.tombs)
    @rule(which=which)
    def run(self, which: int) -> None:
        key = self.job(which)
        assert [self.model.run(key)] == self.wait(self.store.promote_ids(QUEUE, [key]))

    @precondition(lambda self: self.model.jobs or self.model.tombs)
    @rule(which=which, again=again)
    def cancel(self, which: int, again: bool) -> None:
        key = self.job(which)
        self.same([self.model.cancel(key)], lambda: self.store.cancel(QUEUE, [key]), again)

    @precondition(lambda self: self.model.jobs or self.model.tombs)
    @rule(which=which)
    def replay(self, which: int) -> None:
        key = self.job(which)
        assert [self.model.replay(key)] == self.wait(self.store.replay(QUEUE, [(key, None)]))

    @precondition(lambda self: self.model.jobs or self.model.tombs)
    @rule(which=which, priority=some.none() | priorities, delay=delays_or_none)
    def update(self, which: int, priority: int | None, delay: int | None) -> None:
        key = self.job(which)
        assert self.model.update(key, priority, delay) == self.wait(
            self.store.update(QUEUE, key, priority=priority, delay_ms=delay)
        )

    @precondition(lambda self: self.model.jobs or self.model.tombs)
    @rule(which=which)
    def purge(self, which: int) -> None:
        key = self.job(which)
        assert [self.model.purge(key)] == self.wait(self.store.purge(QUEUE, [key]))

    @precondition(lambda self: self.model.created)
    @rule(
        act=some.sampled_from(["replay", "replay", "purge", "purge", "cancel", "run"]),
        state=some.sampled_from([*ENDED, "dead", "ready"]),
        size=some.integers(1, 3),
        died=again,
    )
    def over_all(self, act: Any, state: str, size: int, died: bool) -> None:
        """An operation over all that match, in pages of a few. Who carries it may die after its first page."""
        states = (state,) if act == "purge" else WHERE[act]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("scheduler.operations.PAGE", size)
            first, second = Operations(self.store, "first"), Operations(self.store, "second")
            operation = self.wait(first.begin(QUEUE, Plan(act=act, states=states)))
            expected = self.model.over_all(act, state)
            if died:
                operation = self.wait(first.first_page(operation))
            self.wait(to_its_end(second, operation))
        found = self.wait(self.store.operation(QUEUE, operation.id))
        assert ("done", *expected) == (found.state, found.matched, found.done)
        assert set() == self.wait(self.store.operations_told())

    @precondition(lambda self: self.model.created)
    @rule(paused=some.booleans())
    def pause(self, paused: bool) -> None:
        self.model.paused = paused
        self.wait(self.store.configure(QUEUE, {"paused": "1" if paused else ""}))

    # -- what must hold

    @invariant()
    def every_job_is_what_the_model_says(self) -> None:
        if not hasattr(self, "store"):
            return
        shown = dict(zip(KEYS, self.wait(self.store.inspect(QUEUE, KEYS)), strict=True))
        for key, job in shown.items():
            mine, tomb = self.model.jobs.get(key), self.model.tombs.get(key)
            if mine is None:
                assert (job and job.state) == (tomb and tomb.state), key
                continue
            assert expected_of(mine) == found_of(job), key

    @invariant()
    def every_job_stands_in_one_set(self) -> None:
        if not self.model.created:
            return
        mine = [job.state for job in self.model.jobs.values()]
        assert {state: mine.count(state) for state in STATES} == self.wait(self.store.census(QUEUE)).counts

        async def found() -> list[Any]:
            return [fault async for fault in self.store.verify(QUEUE, structures=CHECKED)]

        assert [] == self.wait(found())

    @invariant()
    def dead_jobs_are_in_the_groups_of_what_they_died_of(self) -> None:
        if not self.model.created:
            return
        groups, rest = self.wait(self.store.groups(QUEUE))
        found = {died_of(group): group for group in groups}
        assert (self.model.groups(), "") == ({what: group.count for what, group in found.items()}, rest)
        for what, group in found.items():
            alike, _ = self.wait(self.store.list(QUEUE, "dead", fingerprint=group.fingerprint))
            died = [job for job in self.model.jobs.values() if job.state == "dead" and job.died_of == what]
            assert sorted(job.key for job in died) == sorted(alike)
            assert group.last_at == max(job.ended_at for job in died)
            assert group.first_at == min(job.ended_at for job in died)


async def to_its_end(operations: Operations, operation: Operation) -> None:
    if not operation.ended:
        async for _ in operations.pages(operation):
            pass


def died_of(group: DeadGroup) -> str:
    """As the model says it."""
    waited = group.kind == "DeadlineExceeded" and "before it could run again" in group.message
    return WHILE_IT_WAITED if waited else group.kind


def expected_of(job: ModelJob) -> dict[str, Any]:
    running, waits = job.state == "running", job.state in {"scheduled", "retrying"}
    return {
        "state": job.state,
        "reason": job.reason if job.state in {"dead", "cancelled"} else None,
        "attempt": job.held if running else job.attempt,
        "crashes": job.crashes,
        "snoozes": job.snoozes,
        "errors": job.errors,
        "priority": job.priority,
        "progress": job.progress,
        "run_at": job.score // 1000 if waits else None,
        "lease_expires_at": job.lease_end if running else None,
        "finished_at": job.ended_at if job.state in {"succeeded", "cancelled", "dead"} else None,
        "deadline_ms": job.deadline,
        "expires_ms": job.expires,
    }


def found_of(job: Any) -> dict[str, Any]:
    names = (
        "reason",
        "attempt",
        "crashes",
        "snoozes",
        "priority",
        "progress",
        "run_at",
        "lease_expires_at",
        "finished_at",
        "deadline_ms",
        "expires_ms",
    )
    return {"state": job.state.value, "errors": len(job.errors)} | {
        name: getattr(job, name) for name in names
    }


@on_each(SHORT_AND_LONG)
def test_any_course_of_events_is_that_of_the_model(servers, backend, bound):
    check(Queue, servers, backend, steps=40, **bound)


@on_each(EXHAUSTIVE)
def test_any_long_course_of_events_is_that_of_the_model(servers, backend, bound):
    check(Queue, servers, backend, steps=60, **bound)

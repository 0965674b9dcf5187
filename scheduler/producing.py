"""How jobs come in: enqueue, one or many, and what makes a request repeatable."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from . import retry as retry_policy
from .calling import BATCH_BYTES, PIPELINE, batches
from .errors import (
    Duplicate,
    Fault,
    Invalid,
    KeyTaken,
    QueueFull,
    SchedulerError,
    StoreRefused,
    StoreUnavailable,
)
from .flow import Plan
from .job import NewJob, checksum, deadline_passed, new_key
from .joining import Ask, Call
from .keys import Keys, request_keys
from .linking import Linking
from .outcomes import (
    Ack,
    Census,
    Enqueued,
    Remembered,
    TypePolicy,
)  # fmt: skip

T = TypeVar("T")

DRAINED_MS = 60_000
"""How far back it is looked how fast a queue drains."""

LONGEST_PAUSE = 60
"""Seconds after which it is worth to ask a full queue again, however slowly it drains."""


LINKED = ("blocked", "exists", "again")
"""Outcomes of a job that waits for others; who repeats its request may be the first to make it known."""


class Producing(Linking):
    """The part of the store that takes jobs in."""

    def enqueue_call(self, queue: str, jobs: Sequence[NewJob]) -> Call[list[Enqueued]]:
        """(new) -> ready, scheduled or blocked, an outcome for each job. At most BATCH jobs, with keys."""
        args: list[Any] = [self._stamp(), len(jobs)]
        for job in jobs:
            args += _fields(job)

        def read(reply: list[Any]) -> list[Enqueued]:
            new, made = int(reply[0]) == 1, int(reply[1])
            found = [
                _enqueued(queue, job, reply[2 + 2 * n].decode(), made, reply[3 + 2 * n])
                for n, job in enumerate(jobs)
            ]
            # The reply that said that the queue is new may be the one that was lost.
            if new or any(one.outcome == "again" for one in found):
                found[0] = replace(found[0], new_queue=True)
            return found

        return Call("enqueue", queue, args, read)

    async def enqueue(self, queue: str, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """(new) -> ready, scheduled or blocked, in calls of a bounded size; give each job its key before, to repeat safely.

        Raises Invalid for one that waits for a job that nobody knows.
        """
        for n, fault in enumerate(await self._unknown(jobs)):
            if fault is not None:
                raise Invalid([Fault(f"/{n}{one.path}", one.message) for one in fault.faults])
        done: list[Enqueued] = []
        for batch in _in_turn(batches(jobs, weight_of), lambda job: job):
            outcomes = await self.run(self.enqueue_call(queue, batch))
            if outcomes[0].new_queue:
                await self.register(queue)
            done += await self._linked(batch, outcomes)
        return done

    async def _linked_or_not(
        self, jobs: Sequence[NewJob], outcomes: list[Enqueued] | SchedulerError
    ) -> list[Enqueued] | SchedulerError:
        try:
            return outcomes if isinstance(outcomes, SchedulerError) else await self._linked(jobs, outcomes)
        except SchedulerError as error:
            # They stand there: who repeats the request makes them known, or the watchdog does.
            return error

    async def _unknown(self, jobs: Sequence[NewJob]) -> list[Invalid | None]:
        found: list[Invalid | None] = [None] * len(jobs)
        if any(job.after and not job.linked for job in jobs):
            found = await self.check_after([job if not job.linked else _FREE for job in jobs])
        if any(job.joins for job in jobs):
            found = [a or b for a, b in zip(found, await self.join(jobs), strict=True)]
        return found

    async def _linked(self, jobs: Sequence[NewJob], outcomes: list[Enqueued]) -> list[Enqueued]:
        """The same, after those that wait for others were made known to them; again for one that stood there changes nothing."""
        places = [
            n for n, job in enumerate(jobs) if job.after and not job.linked and outcomes[n].outcome in LINKED
        ]
        if places:
            states = await self.link([jobs[n] for n in places])
            for n, state in zip(places, states, strict=True):
                if outcomes[n].outcome == "blocked":
                    outcomes[n] = replace(outcomes[n], outcome=state)
        return outcomes

    async def enqueue_each(self, jobs: Sequence[NewJob]) -> list[Enqueued | SchedulerError]:
        """Jobs of any queues, with keys, in as few pipelines as may be: what became of each, or its refusal.

        Nothing is raised for one of them. What is lost in between is sent once more, with the same keys.
        """
        jobs = [_called(job) for job in jobs]
        done: list[Any] = list(await self._unknown(jobs))
        by_queue: dict[str, list[int]] = {}
        for place, job in enumerate(jobs):
            if done[place] is None:
                by_queue.setdefault(job.queue, []).append(place)
        parts = [
            batch
            for places in by_queue.values()
            for batch in _in_turn(
                batches(places, lambda place: weight_of(jobs[place])), lambda place: jobs[place]
            )
        ]
        while parts:
            alone: list[list[int]] = []
            replies: list[Any] = []
            for some in batches(
                parts, lambda part: sum(weight_of(jobs[n]) for n in part), PIPELINE, 2 * BATCH_BYTES
            ):
                calls = [self.enqueue_call(jobs[part[0]].queue, [jobs[n] for n in part]) for part in some]
                replies += await self._run_twice(calls)
            for part, reply in zip(parts, replies, strict=True):
                if isinstance(reply, Invalid | StoreRefused) and len(part) > 1:
                    # One of them is what the script does not take: each for itself, so that it spoils no other.
                    alone += [[place] for place in part]
                    continue
                if not isinstance(reply, SchedulerError) and reply[0].new_queue:
                    await self.register(jobs[part[0]].queue)
                outcomes = await self._linked_or_not([jobs[place] for place in part], reply)
                for n, place in enumerate(part):
                    done[place] = outcomes if isinstance(outcomes, SchedulerError) else outcomes[n]
            parts = alone
        return await self._told_full(jobs, done)

    async def _told_full(self, jobs: Sequence[NewJob], done: list[Any]) -> list[Enqueued | SchedulerError]:
        full = {n for n, one in enumerate(done) if isinstance(one, Enqueued) and one.outcome == "full"}
        errors = {queue: await self.no_room(queue) for queue in {jobs[n].queue for n in full}}
        return [
            errors[jobs[n].queue] if n in full
            else deadline_passed() if isinstance(one, Enqueued) and one.outcome == "past"
            else one
            for n, one in enumerate(done)
        ]  # fmt: skip

    async def no_room(self, queue: str) -> QueueFull:
        """The error for a queue without room: why it has none, and when to try again."""
        try:
            census = await self.census(queue)
            if "draining" in census.config:
                return QueueFull(queue, LONGEST_PAUSE, draining=True)
            return QueueFull(queue, await self._room_in(queue, census))
        except SchedulerError:
            # What is known stays known: these found no room.
            return QueueFull(queue, LONGEST_PAUSE)

    async def _run_twice(self, calls: Sequence[Call[Any]]) -> list[Any]:
        """Calls that are safe to repeat. A connection that stays lost stands in the place of each."""
        try:
            return await self.run_all_sure(calls)
        except StoreUnavailable as error:
            return [error] * len(calls)

    async def enqueue_one(self, job: NewJob) -> Enqueued:
        """One job, with a key made when it has none.

        Raises Duplicate when the id is another request's or its unique key is taken and it was to be refused then, QueueFull,
        Invalid when its deadline has passed, or it waits for a job that nobody knows.
        """
        if not job.key:
            key = new_key()
            job = replace(job, key=key, own_key=key)
        job = _called(job)
        await self._check(job)

        def plan(jobs: Sequence[NewJob]) -> list[Call[Any]]:
            return [self.enqueue_call(job.queue, jobs)]

        ask: Ask[Enqueued] = Ask([job], plan, _kin("enqueue", job), weight_of(job))
        [outcome] = await self.ask(ask)
        if outcome.new_queue:
            await self.register(job.queue)
        return await self._taken(job, outcome)

    async def _check(self, job: NewJob) -> None:
        [fault] = await self._unknown([job])
        if fault is not None:
            raise fault

    async def enqueue_told(self, job: NewJob) -> tuple[Enqueued, int, int]:
        """One job with its key: what became of it, and its max_attempts and timeout (ms) that are in force.

        Raises as `enqueue_one` does.
        """
        job = _called(job)
        await self._check(job)

        def plan(jobs: Sequence[NewJob]) -> list[Call[Any]]:
            types = [job.type for job in jobs]
            return [self.enqueue_call(job.queue, jobs), self.policies_call(job.queue, types)]

        ask = Ask([job], plan, _kin("enqueue told", job), weight_of(job), _paired)
        [(outcome, policies)] = await self.ask(ask)
        if outcome.new_queue:
            await self.register(job.queue)
        outcome = await self._taken(job, outcome)
        attempts, timeout = retry_policy.DEFAULTS["max_attempts"], retry_policy.DEFAULT_TIMEOUT_MS
        for policy in (*reversed(policies), TypePolicy(job.timeout_ms, job.retry)):
            if policy is not None:
                attempts = (policy.retry or {}).get("max_attempts", attempts)
                timeout = timeout if policy.timeout_ms is None else policy.timeout_ms
        return outcome, int(attempts), timeout

    async def _taken(self, job: NewJob, outcome: Enqueued) -> Enqueued:
        if refusal := outcome.refusal:
            raise refusal
        if outcome.outcome == "full":
            raise await self.no_room(job.queue)
        if outcome.outcome == "past":
            raise deadline_passed()
        [outcome] = await self._linked([job], [outcome])
        return outcome

    def ack_add_call(self, queue: str, done: Ack, *, worker: str) -> Call[tuple[str, str]]:
        """running -> succeeded, with the jobs that it added: succeeded, stale, missing; or what refuses it, and whose id."""
        args: list[Any] = [self._stamp(), worker, queue, done.key, done.token, done.result, len(done.added)]
        for job in done.added:
            args += (*_fields(job), job.queue)
        return Call("ack_add", queue, args, lambda reply: (reply[0].decode(), reply[1].decode()))

    async def ack_add(self, queue: str, done: Ack, *, worker: str) -> tuple[str, str]:
        """running -> succeeded, with the jobs that it added, see `ack_add_call`."""
        outcome = await self.run(self.ack_add_call(queue, done, worker=worker))
        if outcome[0] == "succeeded":
            await self.register(queue)
        return outcome

    async def create_flow(self, plan: Plan) -> str:
        """A whole flow or nothing of it: its state, "running" for a new one; the same plan again finds it.

        Raises what refuses one of its jobs, with a pointer to it in `errors` where it is that job's own fault.
        """
        state = await self.flow_put(plan)
        if state == "conflict":
            raise Duplicate(plan.id)
        if state != "building":
            return state
        for segment in plan.segments:
            for job, outcome in zip(segment, await self.enqueue_each(segment), strict=True):
                refusal = outcome if isinstance(outcome, SchedulerError) else outcome.refusal
                if (
                    refusal is None
                    and isinstance(outcome, Enqueued)
                    and outcome.outcome in {"held", "changed"}
                ):
                    refusal = KeyTaken(outcome.id)
                if refusal is None:
                    continue
                if not isinstance(refusal, StoreUnavailable):
                    await self.undo_flow(plan.home, plan.key, older_ms=0)
                if isinstance(refusal, Invalid):
                    place = [node.name for node in plan.nodes].index(job.flow_name)
                    raise Invalid([Fault(f"/jobs/{place}{f.path}", f.message) for f in refusal.faults])
                raise refusal
        state = await self.flow_open(plan.home, plan.key)
        if state in {"undone", "missing"}:
            raise StoreUnavailable(
                f"the flow {plan.id} took too long to be made, and was taken back: try again"
            )
        await self.relay(plan.home)
        return state

    async def _room_in(self, queue: str, census: Census) -> int:
        """In how many seconds a full queue is likely to have room: for a hundredth of its length, as it drained lately."""

        def count(reply: Any) -> int:
            return int(reply)

        keys, since = Keys(self.namespace, queue), census.now - DRAINED_MS
        ended = ("succeeded", "cancelled", "dead")
        # Where a job's own retention decides, the time of its end stands there as a negative number.
        ranges = [(state, *range_) for state in ended for range_ in ((since, "+inf"), ("-inf", -since))]
        calls = [
            Call("count", queue, (), count, plain=("ZCOUNT", keys.at(state), least, most))
            for state, least, most in ranges
        ]
        drained = sum(reply for reply in await self.run_all_sure(calls) if isinstance(reply, int))
        if drained == 0:
            return LONGEST_PAUSE
        wanted = max(1, int(census.config.get("max_length", "0")) // 100)
        return max(1, min(LONGEST_PAUSE, math.ceil(wanted * DRAINED_MS / 1000 / drained)))

    async def remember_request(self, name: str, fingerprint: str, seed: str, window_ms: int) -> Remembered:
        """Notes a request under the name of its Idempotency-Key, unless one stands there; answers what stands."""
        request, answer = request_keys(self.namespace, name)

        def ask(_: Any) -> Any:
            pipe = self.clients.commands.pipeline(transaction=False)
            pipe.set(request, f"{fingerprint}|{seed}", nx=True, px=window_ms)
            pipe.get(request)
            pipe.get(answer)
            return pipe.execute()

        _, found, kept = await self._read(ask)
        while found is None:  # what stood there ended in between
            _, found, kept = await self._read(ask)
        its_print, _, its_seed = found.decode().partition("|")
        of, _, text = (kept or b"").partition(b"\n")
        return Remembered(its_print, its_seed, text if of.decode() == its_seed else None)

    async def keep_answer(self, name: str, seed: str, answer: bytes, window_ms: int) -> bytes:
        """Keeps what a request was answered, unless somebody did who carried it out too; answers what is kept."""
        _, key = request_keys(self.namespace, name)
        mine = seed.encode() + b"\n"

        def ask(_: Any) -> Any:
            pipe = self.clients.commands.pipeline(transaction=False)
            pipe.set(key, mine + answer, nx=True, px=window_ms)
            pipe.get(key)
            return pipe.execute()

        _, kept = await self._read(ask)
        return bytes(kept[len(mine) :]) if kept is not None and kept.startswith(mine) else answer

    async def forget_request(self, name: str) -> None:
        """Frees an Idempotency-Key whose request did nothing."""
        request, _ = request_keys(self.namespace, name)
        await self._read(lambda _: self.clients.commands.unlink(request))


def _fields(job: NewJob) -> tuple[Any, ...]:
    """A new job as the scripts take it."""
    return (
        job.key,
        job.type,
        job.payload,
        job.priority or "",
        "" if job.delay_ms is None else job.delay_ms,
        "" if job.run_at_ms is None else max(0, job.run_at_ms),
        "" if job.timeout_ms is None else job.timeout_ms,
        "" if job.retention_ms is None else job.retention_ms,
        job.rules(),
        job.fingerprint(),
        checksum(job.payload),
        job.header(),
    )


_FREE = NewJob(type="-")


def weight_of(job: NewJob) -> int:
    """Bytes that a job takes in a call, roughly."""
    return len(job.payload) + 300 + 100 * (len(job.after) + len(job.before))


def _called(job: NewJob) -> NewJob:
    """The same, so that a job which a lost try of this call has made, or changed, can be told from one that stood before."""
    if job.call or (job.own and (job.unique is None or not job.unique.changes)):
        return job
    return replace(job, call=f"{random.getrandbits(48):012x}")


def _enqueued(queue: str, job: NewJob, outcome: str, made: int, rest: bytes) -> Enqueued:
    if outcome in {"held", "changed"}:
        refused = job.unique is not None and job.unique.on_conflict == "reject"
        return Enqueued(f"{queue}:{rest.decode()}", "taken" if refused else outcome, made, None)
    if outcome == "exists" and job.own:
        outcome = "again"
    return Enqueued(f"{queue}:{job.key}", outcome, made, int(rest) if rest else None)


def _in_turn(parts: Iterable[list[T]], job_of: Callable[[T], NewJob]) -> Iterator[list[T]]:
    """The same, cut before each job that changes one of the same unique key: a call leaves what it has just made."""
    for part in parts:
        some: list[T] = []
        seen: set[str] = set()
        for one in part:
            job = job_of(one)
            if job.unique is not None:
                if job.unique.changes and job.unique_key in seen:
                    yield some
                    some, seen = [], set()
                seen.add(job.unique_key)
            some.append(one)
        yield some


def _kin(what: str, job: NewJob) -> tuple[str, ...]:
    # One that changes another goes in a call of its own, after what was asked before.
    return (what, job.queue, job.key) if job.unique is not None and job.unique.changes else (what, job.queue)


def _paired(replies: list[Any]) -> list[Any]:
    return list(zip(*replies, strict=True))

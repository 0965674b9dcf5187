"""One method per script, plus plain reads. Nothing else talks to Redis about jobs."""

from __future__ import annotations

import math
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import orjson
from msgspec.structs import replace
from redis import exceptions as redis_errors

from . import retry as retry_policy
from .calling import BATCH, BATCH_BYTES, PIPELINE, Caller, batches
from .clients import Clients, is_outage
from .errors import (
    Changed,
    Invalid,
    NotFound,
    QueueFull,
    SchedulerError,
    StoreRefused,
    StoreUnavailable,
)
from .job import Job, NewJob, checksum, deadline_passed, new_key
from .joining import Ask, Call
from .keys import STATES, Keys, operations_key, queue_of, queues_key, request_keys, schemas_key
from .limits import Breaker, BreakerState, GroupPolicy, breaker_state, parse_group
from .outcomes import (
    Ack,
    Bury,
    Census,
    Claim,
    DeadGroup,
    Enqueued,
    Extend,
    Fault,
    Held,
    LogLine,
    Nack,
    Note,
    Operation,
    OperationPage,
    Release,
    Remembered,
    Swept,
    TypePolicy,
    Work,
    parse_operation,
    parse_type,
)  # fmt: skip
from .replies import read_claimed, read_group, read_held, read_job, read_work

T = TypeVar("T")

DRAINED_MS = 60_000
"""How far back it is looked how fast a queue drains."""

LONGEST_PAUSE = 60
"""Seconds after which it is worth to ask a full queue again, however slowly it drains."""

VERIFIED = (
    "jobs",
    *STATES,
    "leases",
    "attempts",
    "results",
    "known",
    "dead_index",
    "dead_groups",
    "lanes",
    "heads",
    "turns",
    "parked",
    "lines",
    "slots",
)
"""The structures that verify looks at."""


class Store(Caller):
    """The only way to the scripts. Times are server time; ids are keys within a queue.

    Methods raise StoreUnavailable (repeat with the same ids), StoreFull, StoreRefused (do not repeat).
    """

    def __init__(
        self, clients: Clients, namespace: str = "scheduler", *, now: Callable[[], int] | None = None
    ) -> None:
        super().__init__(clients, namespace, now=now)
        self._known_queues: set[str] = set()

    # -- producing --------------------------------------------------------------------------------------------

    def enqueue_call(self, queue: str, jobs: Sequence[NewJob]) -> Call[list[Enqueued]]:
        """(new) -> ready or scheduled, an outcome for each job. At most BATCH jobs, with keys."""
        args: list[Any] = [self._stamp(), len(jobs)]
        for job in jobs:
            args += (
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

        def read(reply: list[Any]) -> list[Enqueued]:
            new, made = int(reply[0]) == 1, int(reply[1])
            return [
                _enqueued(queue, job, reply[2 + 2 * n].decode(), made, reply[3 + 2 * n], new and n == 0)
                for n, job in enumerate(jobs)
            ]

        return Call("enqueue", queue, args, read)

    async def enqueue(self, queue: str, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """(new) -> ready or scheduled, in calls of a bounded size; give each job its key before, to repeat safely."""
        done: list[Enqueued] = []
        for batch in _in_turn(batches(jobs, weight_of), lambda job: job):
            outcomes = await self.run(self.enqueue_call(queue, batch))
            if outcomes[0].new_queue:
                await self.register(queue)
            done += outcomes
        return done

    async def enqueue_each(self, jobs: Sequence[NewJob]) -> list[Enqueued | SchedulerError]:
        """Jobs of any queues, with keys, in as few pipelines as may be: what became of each, or its refusal.

        Nothing is raised for one of them. What is lost in between is sent once more, with the same keys.
        """
        done: list[Any] = [None] * len(jobs)
        by_queue: dict[str, list[int]] = {}
        for place, job in enumerate(jobs):
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
                for n, place in enumerate(part):
                    done[place] = reply if isinstance(reply, SchedulerError) else reply[n]
            parts = alone
        return await self._told_full(jobs, done)

    async def _told_full(self, jobs: Sequence[NewJob], done: list[Any]) -> list[Enqueued | SchedulerError]:
        full = {n for n, one in enumerate(done) if isinstance(one, Enqueued) and one.outcome == "full"}
        pauses = {queue: await self._pause(queue) for queue in {jobs[n].queue for n in full}}
        return [
            QueueFull(jobs[n].queue, pauses[jobs[n].queue]) if n in full
            else deadline_passed() if isinstance(one, Enqueued) and one.outcome == "past"
            else one
            for n, one in enumerate(done)
        ]  # fmt: skip

    async def _pause(self, queue: str) -> int:
        try:
            return await self.room_in(queue)
        except SchedulerError:
            # What is known stays known: these found no room.
            return LONGEST_PAUSE

    async def _run_twice(self, calls: Sequence[Call[Any]]) -> list[Any]:
        """Calls that are safe to repeat: a lost connection is tried once more, then stands in the place of each."""
        try:
            return await self.run_all(calls)
        except StoreUnavailable as error:
            lost = error
        try:
            return await self.run_all(calls) if lost.unknown else [lost] * len(calls)
        except StoreUnavailable:
            return [lost] * len(calls)

    async def enqueue_one(self, job: NewJob) -> Enqueued:
        """One job, with a key made when it has none.

        Raises Duplicate when the id is another request's or its unique key is taken and it was to be refused then, QueueFull,
        Invalid when its deadline has passed.
        """
        job = job if job.key else replace(job, key=new_key())

        def plan(jobs: Sequence[NewJob]) -> list[Call[Any]]:
            return [self.enqueue_call(job.queue, jobs)]

        ask: Ask[Enqueued] = Ask([job], plan, _kin("enqueue", job), weight_of(job))
        [outcome] = await self.ask(ask)
        if outcome.new_queue:
            await self.register(job.queue)
        return await self._taken(job, outcome)

    async def enqueue_told(self, job: NewJob) -> tuple[Enqueued, int, int]:
        """One job with its key: what became of it, and its max_attempts and timeout (ms) that are in force.

        Raises as `enqueue_one` does.
        """

        def plan(jobs: Sequence[NewJob]) -> list[Call[Any]]:
            types = [job.type for job in jobs]
            return [self.enqueue_call(job.queue, jobs), self.policies_call(job.queue, types)]

        ask = Ask([job], plan, _kin("enqueue told", job), weight_of(job), _paired)
        [(outcome, policies)] = await self.ask(ask)
        if outcome.new_queue:
            await self.register(job.queue)
        await self._taken(job, outcome)
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
            raise QueueFull(job.queue, await self._pause(job.queue))
        if outcome.outcome == "past":
            raise deadline_passed()
        return outcome

    async def room_in(self, queue: str) -> int:
        """In how many seconds a full queue is likely to have room: for a hundredth of its length, as it drained lately."""

        def count(reply: Any) -> int:
            return int(reply)

        census = await self.census(queue)
        keys, since = Keys(self.namespace, queue), census.now - DRAINED_MS
        ended = ("succeeded", "cancelled", "dead")
        # Where a job's own retention decides, the time of its end stands there as a negative number.
        ranges = [(state, *range_) for state in ended for range_ in ((since, "+inf"), ("-inf", -since))]
        calls = [
            Call("count", queue, (), count, plain=("ZCOUNT", keys.at(state), least, most))
            for state, least, most in ranges
        ]
        drained = sum(reply for reply in await self.run_all(calls) if isinstance(reply, int))
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

    async def register(self, queue: str) -> None:
        """Adds a queue to the namespace's set of queues."""
        try:
            await self.clients.commands.sadd(queues_key(self.namespace), queue)
            self._known_queues.add(queue)
        except (redis_errors.RedisError, OSError):
            # A hint only: the watchdog's scan finds what is missing there.
            return

    # -- working ----------------------------------------------------------------------------------------------

    def claim_call(
        self,
        queue: str,
        *,
        worker: str,
        turn: int | str,
        count: int,
        lease_ms: int,
        key_id: str = "",
        period_ms: int = 10_000,
        patience_ms: int | None = None,
        types: Sequence[str] = (),
    ) -> Call[Claim]:
        """ready -> running under a lease, at most `count` (1..500), `types` only if it names any.

        `patience_ms`: how long the caller may wait then.
        """

        def read(reply: list[Any]) -> Claim:
            now = int(reply[2])
            jobs = [read_claimed(queue, now, *reply[n : n + 8]) for n in range(3, len(reply), 8)]
            return Claim(jobs, int(reply[0]), int(reply[1]) == 1)

        return Call(
            "claim",
            queue,
            [
                self._stamp(),
                worker,
                turn,
                min(count, BATCH),
                lease_ms,
                key_id,
                period_ms,
                "" if patience_ms is None else patience_ms,
                " ".join(types),
            ],
            read,
        )

    async def claim(
        self,
        queue: str,
        *,
        worker: str,
        turn: int | str = "",
        count: int = 1,
        lease_ms: int = 30_000,
        types: Sequence[str] = (),
    ) -> Claim:
        """ready -> running under a lease. The same `turn` again gives the same jobs, those whose lease still stands."""
        return await self.run(
            self.claim_call(queue, worker=worker, turn=turn, count=count, lease_ms=lease_ms, types=types)
        )

    def ack_call(self, queue: str, done: Sequence[Ack], *, worker: str) -> Call[list[str]]:
        """running -> succeeded."""
        args: list[Any] = [self._stamp(), worker, len(done)]
        for item in done:
            args += (item.key, item.token, item.result)
        return Call("ack", queue, args, _texts)

    def nack_call(self, queue: str, failures: Sequence[Nack], *, worker: str) -> Call[list[str]]:
        """running -> ready, retrying, dead or cancelled, each as its policy says."""
        args: list[Any] = [self._stamp(), worker, random.getrandbits(31), len(failures)]
        for item in failures:
            retry_in = "" if item.retry_in_ms is None else item.retry_in_ms
            args += (
                item.key,
                item.token,
                _clean(item.kind),
                _clean(item.message),
                _clean(item.trace),
                retry_in,
                item.scope,
            )
        return Call("nack", queue, args, _texts)

    def bury_call(self, queue: str, failures: Sequence[Bury], *, worker: str) -> Call[list[str]]:
        """running -> dead or cancelled."""
        args: list[Any] = [self._stamp(), worker, len(failures)]
        for item in failures:
            args += (
                item.key,
                item.token,
                _clean(item.kind),
                _clean(item.message),
                _clean(item.trace),
                item.reason,
            )
        return Call("bury", queue, args, _texts)

    def release_call(
        self, queue: str, back: Sequence[Release], *, worker: str, no_handler_after_ms: int = 600_000
    ) -> Call[list[str]]:
        """running -> ready, scheduled, dead by no_handler, or cancelled."""
        args: list[Any] = [self._stamp(), worker, no_handler_after_ms, len(back)]
        for item in back:
            args += (item.key, item.token, item.delay_ms or "", item.why)
        return Call("release", queue, args, _texts)

    def extend_call(self, queue: str, held: Sequence[Extend]) -> Call[list[str]]:
        """running, with later deadlines: running, cancel, stale or missing for each."""
        args: list[Any] = [self._stamp(), len(held)]
        for item in held:
            args += (item.key, item.token, item.lease_ms)
        return Call("extend", queue, args, _texts)

    def note_call(self, queue: str, notes: Sequence[Note]) -> Call[list[str]]:
        """running; progress, checkpoints and log lines are kept: running, cancel, stale or missing for each."""
        args: list[Any] = [self._stamp(), len(notes)]
        for item in notes:
            args += (item.key, item.token, item.field, item.value, item.seq or "")
        return Call("note", queue, args, _texts)

    async def ack(self, queue: str, done: Sequence[Ack], *, worker: str) -> list[str]:
        """running -> succeeded: succeeded, stale or missing for each."""
        return await self.run(self.ack_call(queue, done, worker=worker))

    async def nack(self, queue: str, failures: Sequence[Nack], *, worker: str) -> list[str]:
        """running -> ready, retrying, dead or cancelled: the new state, stale or missing for each."""
        return await self.run(self.nack_call(queue, failures, worker=worker))

    async def bury(self, queue: str, failures: Sequence[Bury], *, worker: str) -> list[str]:
        """running -> dead or cancelled: the new state, stale or missing for each."""
        return await self.run(self.bury_call(queue, failures, worker=worker))

    async def release(
        self, queue: str, back: Sequence[Release], *, worker: str, no_handler_after_ms: int = 600_000
    ) -> list[str]:
        """running -> ready, scheduled, dead or cancelled: the new state, stale or missing for each."""
        return await self.run(
            self.release_call(queue, back, worker=worker, no_handler_after_ms=no_handler_after_ms)
        )

    async def extend(self, queue: str, held: Sequence[Extend]) -> list[str]:
        """running, lease pushed out: running, cancel, stale or missing for each."""
        return await self.run(self.extend_call(queue, held))

    async def note(self, queue: str, notes: Sequence[Note]) -> list[str]:
        """running; what handlers tell is kept: running, cancel, stale or missing for each."""
        return await self.run(self.note_call(queue, notes))

    # -- upkeep -----------------------------------------------------------------------------------------------

    async def reclaim(
        self,
        queue: str,
        *,
        worker: str = "",
        limit: int = 100,
        lease_ms: int = 30_000,
        period_ms: int = 10_000,
        only_if_due: bool = False,
    ) -> Swept:
        """running with a run-out lease -> ready, retrying, dead or cancelled."""
        args = [
            self._stamp(),
            worker,
            random.getrandbits(31),
            limit,
            lease_ms,
            period_ms,
            "1" if only_if_due else "",
        ]
        return await self.run(
            Call(
                "reclaim", queue, args, lambda r: Swept(int(r[0]), r[1] == 1, int(r[2]), r[3] == 1, r[4] == 1)
            )
        )

    async def promote(self, queue: str, *, limit: int = 100) -> tuple[int, bool]:
        """scheduled, retrying -> ready, what is due: how many, and whether more are."""
        return await self.run(Call("promote", queue, [self._stamp(), "", limit, 0], _page))

    async def expire(self, queue: str, *, limit: int = 100) -> tuple[int, bool]:
        """ended -> gone, what retention lets go, and waiting -> cancelled or dead beyond a deadline: how many, and whether more are left."""
        return await self.run(Call("purge", queue, [self._stamp(), "", "expired", "", limit, 0], _page))

    async def overdue(self, queues: Sequence[str]) -> list[str]:
        """Those of these queues in which something is likely to be over: a deadline, a job's own retention, a receipt.

        One read a queue, by this host's clock: a hint, the script that acts on it looks at the server's.
        """
        now = self._now() if self._now is not None else time.time_ns() // 1_000_000
        calls = [
            Call(
                "overdue",
                queue,
                (),
                _score_of_first,
                plain=_first_of(Keys(self.namespace, queue).at("expiries")),
            )
            for queue in queues
        ]
        found: list[str] = []
        for some in batches(list(zip(queues, calls, strict=True)), lambda _: 100):
            firsts = await self.run_all([call for _, call in some])
            found += [
                queue
                for (queue, _), first in zip(some, firsts, strict=True)
                if isinstance(first, float) and first <= now
            ]
        return found

    # -- acting on jobs ---------------------------------------------------------------------------------------

    # With a `page` of an operation these act only if it is its next, and are counted with it. Raise Outrun.

    async def promote_ids(
        self, queue: str, keys: Sequence[str], *, page: OperationPage | None = None
    ) -> list[str]:
        """scheduled, retrying -> ready, these, now: ready, already (it was), the state that refuses, or missing for each."""
        args = [self._stamp(), _page_text(page), "", len(keys), *keys]
        return await self.run(Call("promote", queue, args, _after_page))

    async def cancel(
        self, queue: str, keys: Sequence[str], *, page: OperationPage | None = None
    ) -> list[str]:
        """unfinished -> cancelled, or running asked to stop: cancelled, running, the state that refuses, or missing."""

        def plan(some: Sequence[str]) -> list[Call[Any]]:
            return [Call("cancel", queue, [self._stamp(), _page_text(page), len(some), *some], _texts)]

        if page is not None:
            found: list[str] = await self.run(plan(keys)[0])
            return found
        return await self.ask(Ask(keys, plan, ("cancel", queue), 100 * len(keys)))

    async def replay(
        self, queue: str, items: Sequence[tuple[str, bytes | None]],
        *, before_ms: int | None = None, page: OperationPage | None = None,
    ) -> list[str]:  # fmt: skip
        """dead -> ready, with another payload where one is given: ready, already (it was), the state that refuses, or missing for each.

        One that died after `before_ms` is refused.
        """
        args: list[Any] = [
            self._stamp(),
            _page_text(page),
            "" if before_ms is None else before_ms,
            "",
            len(items),
        ]
        for key, payload in items:
            args += (key, payload or b"", checksum(payload) if payload else "")
        edits = any(payload for _, payload in items)
        return await self.run(Call("replay", queue, args, _after_page, guarded=edits))

    async def replay_page(
        self, queue: str, *, before_ms: int | None = None, limit: int = 100
    ) -> tuple[int, bool]:
        """dead -> ready, the oldest that ended by then, one page: how many, and whether more are left."""
        before = "" if before_ms is None else before_ms
        return await self.run(Call("replay", queue, [self._stamp(), "", before, limit, 0], _page))

    async def update(
        self,
        queue: str,
        key: str,
        *,
        priority: int | None = None,
        delay_ms: int | None = None,
        run_at_ms: int | None = None,
        payload: bytes | None = None,
        tags: Sequence[str] | None = None,
    ) -> str:
        """scheduled, blocked, ready or retrying, changed in place: its state now, the state that refuses, or missing."""
        for _ in range(10):
            before, header = b"", b""
            if tags is not None:
                [job] = await self.inspect(queue, [key])
                if job is None:
                    return "missing"
                before = job.header
                changed = {**orjson.loads(before or b"{}"), "tags": list(tags)}
                if not tags:
                    del changed["tags"]
                # A space is the empty header that is not "leave it as it is".
                header = orjson.dumps(changed) if changed else b"{}"
            args = [
                self._stamp(), 1, key, "" if priority is None else priority, "" if delay_ms is None else delay_ms,
                "" if run_at_ms is None else max(0, run_at_ms), payload or b"", checksum(payload) if payload else "", before, header,
            ]  # fmt: skip
            [state] = await self.run(Call("update", queue, args, _texts))
            if state != "changed":
                return state
        raise Changed(f"{queue}:{key} is being changed by others: try again")

    async def purge(
        self, queue: str, keys: Sequence[str], *, state: str = "", page: OperationPage | None = None
    ) -> list[str]:
        """waiting or ended -> gone: gone, the state that refuses or missing for each. `state`: only what stands there still."""
        args = [self._stamp(), _page_text(page), state, "", "", len(keys), *keys]
        return await self.run(Call("purge", queue, args, _after_page))

    async def purge_page(
        self, queue: str, state: str, *, before_ms: int | None = None, limit: int = 100
    ) -> tuple[int, bool]:
        """waiting or ended -> gone, the oldest of one state, one page: how many, and whether it was full."""
        before = "" if before_ms is None else before_ms
        return await self.run(Call("purge", queue, [self._stamp(), "", state, before, limit, 0], _page))

    async def obliterate(self, queue: str, *, force: bool = False) -> str:
        """A whole queue -> gone: gone, running (a job runs, and it was not forced) or missing."""
        [outcome] = await self.run(Call("obliterate", queue, ["1" if force else ""], _texts))
        if outcome == "gone":
            self._known_queues.discard(queue)
            # A hint only: a queue without keys is not shown. (That it had schemas is left: who puts one tells so before.)
            await self._read(lambda _: self.clients.commands.srem(queues_key(self.namespace), queue))
            if await self.run(self.census_call(queue)) is not None:
                # It has begun anew meanwhile, and whoever began it may have registered it before that.
                await self.register(queue)
        return outcome

    # -- operations over many jobs ----------------------------------------------------------------------------

    async def operate(
        self, verb: str, queue: str, operation: str | OperationPage, *, carrier: str = "", value: bytes = b""
    ) -> tuple[str, Operation | None]:
        """Changes the record of an operation, see lua/operate.lua: what became of it, and the record. Raises Outrun."""
        asked = _page_text(operation) if isinstance(operation, OperationPage) else operation
        its_id = operation.id if isinstance(operation, OperationPage) else operation

        def read(reply: list[Any]) -> tuple[str, Operation | None]:
            return reply[0].decode(), parse_operation(queue, its_id, reply[1])

        return await self.run(Call("operate", queue, [self._stamp(), verb, asked, carrier, value], read))

    async def operation(self, queue: str, its_id: str) -> Operation | None:
        """The record of one operation."""
        key = Keys(self.namespace, queue).at("operations")
        record = await self._read(lambda client: client.hget(key, its_id))
        return None if record is None else parse_operation(queue, its_id, record)

    def operations_call(self, queue: str) -> Call[list[Operation]]:
        """The operations of a queue that are known, at most 100 and those that were begun together."""

        def read(reply: Any) -> list[Operation]:
            pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
            found = [parse_operation(queue, its_id.decode(), record) for its_id, record in pairs]
            return [operation for operation in found if operation is not None]

        return Call(
            "operations", queue, (), read, plain=("HGETALL", Keys(self.namespace, queue).at("operations"))
        )

    async def operations_told(self) -> set[tuple[str, str]]:
        """Queue and id of each operation that may be under way: a hint, written before it begins."""
        members = await self._read(lambda client: client.smembers(operations_key(self.namespace)))
        pairs = (member.decode().partition(":") for member in members)
        return {(queue, its_id) for queue, _, its_id in pairs}

    async def tell_operation(self, queue: str, its_id: str, *, ended: bool = False) -> None:
        """Writes the hint that an operation is under way, or strikes it out."""
        commands, key = self.clients.commands, operations_key(self.namespace)
        change = commands.srem if ended else commands.sadd
        await self._read(lambda _: change(key, f"{queue}:{its_id}"))

    def groups_call(
        self, queue: str, *, after: str = "", limit: int = 100
    ) -> Call[tuple[list[DeadGroup], str]]:
        """Dead jobs by what they died of, those that grew last first, and the next cursor ("" at the end)."""

        def read(reply: list[Any]) -> tuple[list[DeadGroup], str]:
            found = [read_group(*reply[n : n + 6]) for n in range(1, len(reply), 6)]
            return found, reply[0].decode()

        return Call("groups", queue, [after, limit], read)

    async def groups(self, queue: str, *, after: str = "", limit: int = 100) -> tuple[list[DeadGroup], str]:
        """A page of the groups of dead jobs, and the cursor for the next ("" at the end)."""
        return await self.run(self.groups_call(queue, after=after, limit=limit))

    # -- configuration ----------------------------------------------------------------------------------------

    async def configure(self, queue: str, changes: Mapping[str, str], *, expect: int | None = None) -> int:
        """Sets fields of the queue's configuration ("" lifts one), creating the queue. Answers the version.

        Raises Changed when `expect` is not the version that stands.
        """
        args: list[Any] = [self._stamp(), "", "", "", "" if expect is None else expect, len(changes)]
        for field, value in changes.items():
            args += (field, value)
        return await self._configure(queue, args)

    async def configure_type(
        self,
        queue: str,
        name: str,
        policy: TypePolicy | None,
        *,
        declared: bool = False,
        expect: int | None = None,
    ) -> int:
        """Sets a type's policy (None removes it), as set by a user or as declared by a worker's code."""
        if policy is not None and policy.schema is not None:
            # The hint first: who looks for schemas must not miss one.
            await self._read(lambda _: self.clients.commands.sadd(schemas_key(self.namespace), queue))
        field = f":{name}" if declared else name
        # A user's policy that says nothing is there all the same; a handler that says nothing declares none.
        record = b"" if policy is None else policy.record() or (b"" if declared else b"|\n{}")
        return await self._configure(
            queue, [self._stamp(), "types", field, record, "" if expect is None else expect, 0]
        )

    async def configure_group(
        self, queue: str, name: str, policy: GroupPolicy, *, expect: int | None = None
    ) -> int:
        """Sets a group's policy; one that says nothing is taken away. Raises Changed."""
        version = "" if expect is None else expect
        return await self._configure(queue, [self._stamp(), "groups", name, policy.record(), version, 0])

    async def _configure(self, queue: str, args: list[Any]) -> int:
        outcome, version, new = await self.run(
            Call("configure", queue, args, lambda r: (r[0].decode(), int(r[1]), int(r[2]) == 1))
        )
        if new:
            await self.register(queue)
        if outcome == "changed":
            raise Changed(f"the configuration of {queue} is at version {version} by now")
        return version

    def policies_call(
        self, queue: str, names: Sequence[str]
    ) -> Call[list[tuple[TypePolicy | None, TypePolicy | None]]]:
        """The policy of each of these types, as set and as declared; None where nobody said anything."""
        each = dict.fromkeys(names)
        fields = [field for name in each for field in (name, f":{name}")]

        def read(reply: list[Any]) -> list[tuple[TypePolicy | None, TypePolicy | None]]:
            found = [None if record is None else parse_type(record) for record in reply]
            policies = dict(zip(each, zip(found[::2], found[1::2], strict=True), strict=True))
            return [policies[name] for name in names]

        plain = ("HMGET", Keys(self.namespace, queue).at("types"), *fields)
        return Call("types", queue, (), read, plain=plain)

    async def breakers(self, queue: str, breakers: Mapping[str, Breaker]) -> dict[str, BreakerState]:
        """How the breakers of these types stand now."""
        if not breakers:
            return {}
        key, fields = Keys(self.namespace, queue).at("meters"), [f"breaker {name}" for name in breakers]
        found = await self._read(lambda client: client.hmget(key, fields))
        if self._now is not None:
            now = self._now()
        else:
            whole, micros = await self._read(lambda client: client.time())
            now = whole * 1_000 + micros // 1_000
        return {
            name: breaker_state((text or b"").decode(errors="replace"), breaker, now)
            for (name, breaker), text in zip(breakers.items(), found, strict=True)
        }

    async def reset(self, queue: str, type: str) -> bool:
        """Closes a type's breaker, and forgets what it counted; False when there was nothing to forget."""
        return await self.run(Call("reset", queue, [self._stamp(), type], lambda reply: int(reply) == 1))

    async def types(self, queue: str) -> dict[str, tuple[TypePolicy, TypePolicy]]:
        """Every type that somebody said something about: as set, as declared."""
        found = await self._read(lambda client: client.hgetall(Keys(self.namespace, queue).at("types")))
        made: dict[str, tuple[TypePolicy, TypePolicy]] = {}
        for field, record in found.items():
            name, declared = field.decode().removeprefix(":"), field.startswith(b":")
            its_set, its_declared = made.get(name, (TypePolicy(), TypePolicy()))
            made[name] = (its_set, parse_type(record)) if declared else (parse_type(record), its_declared)
        return made

    async def group_policy(self, queue: str, name: str) -> GroupPolicy:
        """What is set for a group; nothing where nobody set anything."""
        key = Keys(self.namespace, queue).at("groups")
        record = await self._read(lambda client: client.hget(key, name))
        return parse_group(record or b"")

    async def group_policies(self, queue: str) -> dict[str, GroupPolicy]:
        """Every group that has a policy of its own."""
        found = await self._read(lambda client: client.hgetall(Keys(self.namespace, queue).at("groups")))
        return {name.decode(): parse_group(record) for name, record in found.items()}

    async def queues_with_schemas(self) -> set[str]:
        """Queues in which a type has, or had, a schema."""
        found = await self._read(lambda client: client.smembers(schemas_key(self.namespace)))
        return {name.decode() for name in found}

    # -- reading ----------------------------------------------------------------------------------------------

    async def inspect(
        self, queue: str, keys: Sequence[str], *, payload: bool = False, result: bool = False
    ) -> list[Job | None]:
        """All that is known of these jobs; None for one that is not known."""
        if not keys:
            return []

        def plan(some: Sequence[str]) -> list[Call[Any]]:
            return [self.inspect_call(queue, some, payload=payload, result=result)]

        # A job may have a payload and a result of a MiB each: few of them in one reply.
        weight = len(keys) * (65_536 if payload or result else 1_000)
        return await self.ask(Ask(keys, plan, ("inspect", queue, payload, result), weight))

    def inspect_call(
        self, queue: str, keys: Sequence[str], *, payload: bool = False, result: bool = False
    ) -> Call[list[Job | None]]:
        """All that is known of these jobs."""
        asked = " ".join(word for word, wanted in (("payload", payload), ("result", result)) if wanted)

        def read(reply: list[Any]) -> list[Job | None]:
            return [read_job(queue, key, *reply[1 + 11 * n : 12 + 11 * n]) for n, key in enumerate(keys)]

        return Call("inspect", queue, [self._stamp(), asked, len(keys), *keys], read)

    async def explain(self, queue: str, key: str) -> Held:
        """What holds a job now, or what became of it. Raises NotFound."""
        found = await self.run(Call("explain", queue, [self._stamp(), 1, key], read_held))
        if found is None:
            raise NotFound(f"there is no job {queue}:{key}")
        return found

    async def demand(self, queue: str, *, limit: int | None = None) -> Work:
        """What a queue has for workers, exact up to `limit` (1..1000) of its types and groups. Raises NotFound."""
        args = [self._stamp(), "" if limit is None else limit]
        found = await self.run(Call("demand", queue, args, read_work))
        if found is None:
            raise no_queue(queue)
        return found

    async def log(
        self, queue: str, key: str, *, after: str = "", limit: int = 100
    ) -> tuple[Sequence[LogLine], bool]:
        """Lines of a job's log, oldest first, from after a place on, and whether there may be more.

        At most `limit` of them, and no more than about 8 MiB.
        """
        found: list[LogLine] = []
        weight = 0
        while len(found) <= limit and weight < BATCH_BYTES:
            begin = f"[{key}:{after}!" if after else f"[{key}:"
            some = min(50, limit + 1 - len(found))
            members = await self._read(partial(self._lines, queue, begin, f"({key};", some))
            for member in members:
                after, at, text = member[len(key) + 1 :].decode(errors="replace").split(" ", 2)
                found.append(LogLine(after, int(at), text))
                weight += len(text)
            if len(members) < some:
                return found, False
        return found[:limit], True

    def _lines(self, queue: str, begin: str, end: str, some: int, client: Any) -> Any:
        return client.zrangebylex(Keys(self.namespace, queue).at("logs"), begin, end, start=0, num=some)

    async def job(self, queue: str, key: str) -> Job:
        """One job with payload and result. Raises NotFound."""
        [job] = await self.inspect(queue, [key], payload=True, result=True)
        if job is None:
            raise NotFound(f"there is no job {queue}:{key}")
        return job

    async def census(self, queue: str) -> Census:
        """A queue at a glance. Raises NotFound when it does not exist."""
        census = await self.run(self.census_call(queue))
        if census is None:
            raise no_queue(queue)
        return census

    async def queues(self) -> list[str]:
        """The names of all queues, sorted."""
        found = await self._read(lambda client: client.smembers(queues_key(self.namespace)))
        return sorted(name.decode() for name in found)

    async def stray_queues(self, cursor: int) -> tuple[int, list[str]]:
        """One page of a slow scan for queues that are not registered, which are registered then; the next cursor."""
        pattern = f"{{{self.namespace}:*}}:config"
        following, found = await self._read(lambda client: client.scan(cursor, match=pattern, count=500))
        names = [name for key in found if (name := queue_of(self.namespace, key.decode())) is not None]
        # What this process has registered, another one may have struck out since.
        registered = set(await self.queues()) if names else set()
        strays = [name for name in names if name not in registered]
        for name in strays:
            await self.register(name)
        return int(following), strays

    async def verify(
        self, queue: str, *, repair: bool = False, structures: Sequence[str] | None = None
    ) -> AsyncIterator[Fault]:
        """Every fault of a queue: jobs that do not stand in exactly one set, and what belongs to no job."""
        for structure in structures or VERIFIED:
            cursor = "0"
            while True:
                args = [self._stamp(), structure, cursor, BATCH, "1" if repair else ""]
                reply = await self.run(Call("verify", queue, args, lambda r: r))
                for n in range(2, len(reply), 3):
                    yield Fault(reply[n].decode(), reply[n + 1].decode(), reply[n + 2] == b"repaired")
                cursor = reply[0].decode()
                if cursor == "0":
                    break

    async def server(self) -> dict[str, str]:
        """Version and role of the server, after a script of ours has just run there."""
        await self.run(Call("census", "default", [self._stamp()], lambda r: r))
        if self.clients.fake:
            return {"version": "fakeredis", "role": "master"}
        info = await self._read(lambda client: client.info())
        version = info.get("valkey_version") or info.get("redis_version", "?")
        return {
            "version": f"{info.get('server_name', 'redis')} {version}",
            "role": str(info.get("role", "?")),
        }

    def list_call(
        self, queue: str, state: str, *, after: str = "", limit: int = 100, look: int = 2_000,
        type: str = "", group: str = "", tag: str = "", error: str = "",
        kind: str = "", fingerprint: str = "", before_ms: int | None = None,
    ) -> Call[tuple[list[str], str]]:  # fmt: skip
        """A page of one state: where each job stands (a cursor; key_at tells which it is), and the next cursor."""
        before = "" if before_ms is None else before_ms
        args = [state, after, limit, look, type, group, tag, error, kind, fingerprint, before]
        return Call("list", queue, args, lambda r: (_texts(r[1:]), r[0].decode()))

    def size_call(self, queue: str, state: str) -> Call[int]:
        """How many jobs stand in a state."""
        return Call("size", queue, (), int, plain=("ZCARD", Keys(self.namespace, queue).at(state)))

    async def list(
        self, queue: str, state: str, *, after: str = "", limit: int = 100, look: int = 2_000, **filters: Any
    ) -> tuple[list[str], str]:
        """A page of the keys of one state, and the cursor for the next ("" at the end). Filters: see `list_call`."""
        call = self.list_call(queue, state, after=after, limit=limit, look=look, **filters)
        found, cursor = await self.run(call)
        return [key_at(place) for place in found], cursor

    def census_call(self, queue: str) -> Call[Census | None]:
        """A queue at a glance; None when it does not exist."""

        def read(reply: list[Any]) -> Census | None:
            if int(reply[1]) == 0:
                return None
            counts = {state: int(reply[2 + n]) for n, state in enumerate(STATES)}
            fields = int(reply[11])
            words = [item.decode() for item in reply[12:]]
            config = dict(zip(words[: 2 * fields : 2], words[1 : 2 * fields : 2], strict=True))
            counters = dict(zip(words[2 * fields :: 2], words[2 * fields + 1 :: 2], strict=True))
            return Census(int(reply[0]), counts, int(reply[10]) if reply[10] else None, config, counters)

        return Call("census", queue, [self._stamp()], read)

    async def _read(self, ask: Callable[[Any], Any]) -> Any:
        try:
            return await ask(self.clients.reads)
        except Exception as error:
            if not is_outage(error):
                raise
            raise self._translated(error, "read") from error


def _first_of(key: str) -> tuple[Any, ...]:
    return ("ZRANGE", key, 0, 0, "WITHSCORES")


def _score_of_first(reply: Any) -> float | None:
    # A member and its score, in one list or, as RESP3 has it, in a list of its own.
    flat = reply[0] if reply and isinstance(reply[0], list | tuple) else reply
    return float(flat[1]) if flat else None


def no_queue(queue: str) -> NotFound:
    """There is no such queue."""
    return NotFound(
        f"there is no queue {queue!r}; it begins with its first job, or with PUT /v1/queues/{queue}"
    )


def weight_of(job: NewJob) -> int:
    """Bytes that a job takes in a call, roughly."""
    return len(job.payload) + 300


def _enqueued(queue: str, job: NewJob, outcome: str, made: int, rest: bytes, new: bool) -> Enqueued:
    if outcome in {"held", "changed"}:
        refused = job.unique is not None and job.unique.on_conflict == "reject"
        return Enqueued(f"{queue}:{rest.decode()}", "taken" if refused else outcome, made, None, new)
    return Enqueued(f"{queue}:{job.key}", outcome, made, int(rest) if rest else None, new)


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


def _page_text(page: OperationPage | None) -> str:
    return "" if page is None else page.text()


def _paired(replies: list[Any]) -> list[Any]:
    return list(zip(*replies, strict=True))


def key_at(place: str) -> str:
    """The key of the job that stands at a place of a list."""
    return place.split("|", 2)[2]


def _clean(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _texts(reply: list[Any]) -> list[str]:
    return [item.decode() for item in reply]


def _page(reply: list[Any]) -> tuple[int, bool]:
    return int(reply[0]), int(reply[1]) == 1


def _after_page(reply: list[Any]) -> list[str]:
    return [item.decode() for item in reply[2:]]

"""One method per script, plus plain reads. Nothing else talks to Redis about jobs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import orjson
from redis import exceptions as redis_errors

from . import retry as retry_policy
from .clients import Clients
from .errors import (
    Changed,
    Duplicate,
    Invalid,
    NotFound,
    SchedulerError,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from .errors import Fault as JobFault
from .job import (
    Claimed,
    Job,
    NewJob,
    Record,
    State,
    checksum,
    new_key,
    parse_course,
    parse_record,
)
from .keys import LAYOUT, STATES, Keys, queue_of, queues_key
from .rights import check_layout, check_rights
from .scripts import Script, all_scripts, digest

T = TypeVar("T")

BATCH = 500
"""Most items in one call of a script."""

BATCH_BYTES = 4 * 1024 * 1024
"""Most bytes in one call, unless a single item is larger."""

RETRYABLE = (
    "BUSY", "LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK", "NOREPLICAS", "MISCONF", "UNBLOCKED",
)  # fmt: skip


PASSING = (
    redis_errors.BusyLoadingError,
    redis_errors.ReadOnlyError,
    redis_errors.TryAgainError,
    redis_errors.MasterDownError,
    redis_errors.ClusterDownError,
    redis_errors.MovedError,
    redis_errors.AskError,
)
"""Refusals of a moment, whose code redis-py takes off the text."""


@dataclass(frozen=True, slots=True)
class Ack:
    """The attempt did its work. `result` is JSON, or empty for none."""

    key: str
    token: int
    result: bytes = b""


@dataclass(frozen=True, slots=True)
class Nack:
    """The attempt failed. `retry_in_ms` overrules the policy's delay."""

    key: str
    token: int
    kind: str
    message: str
    trace: str = ""
    retry_in_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Bury:
    """The attempt must not be repeated: dead at once by `reason`."""

    key: str
    token: int
    kind: str
    message: str
    trace: str = ""
    reason: str = "permanent"


@dataclass(frozen=True, slots=True)
class Release:
    """The job is given back unfinished. `why` is empty, snooze or no_handler."""

    key: str
    token: int
    delay_ms: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Extend:
    """The attempt goes on."""

    key: str
    token: int
    lease_ms: int


@dataclass(frozen=True, slots=True)
class Note:
    """What a handler tells: `field` is progress, checkpoint or log."""

    key: str
    token: int
    field: str
    value: bytes


Settlement = Ack | Nack | Bury | Release


@dataclass(frozen=True, slots=True)
class Enqueued:
    """What became of a new job. `outcome` is ready, scheduled, exists or conflict."""

    id: str
    outcome: str
    created_at: int
    run_at: int | None

    @property
    def created(self) -> bool:
        return self.outcome in {"ready", "scheduled"}


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim gave, how long to wait before the next one, and whether the queue's sweep is due."""

    jobs: list[Claimed]
    wait_ms: int
    sweep: bool


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did, and in how many ms to come back. `done` is False when none was due."""

    reclaimed: int
    more: bool
    wait_ms: int
    uneven: bool
    done: bool


@dataclass(frozen=True, slots=True)
class Census:
    """A queue at a glance. Times are ms."""

    now: int
    counts: Mapping[str, int]
    oldest_ready_at: int | None
    config: Mapping[str, str]
    counters: Mapping[str, str]

    @property
    def version(self) -> int:
        return int(self.config.get("version", 0))


@dataclass(frozen=True, slots=True)
class TypePolicy:
    """What is set for a type of a queue. `retry` is as stored (ms)."""

    timeout_ms: int | None = None
    retry: Mapping[str, Any] | None = None

    def record(self) -> bytes:
        """As `types` keeps it; empty when nothing is said."""
        if self.timeout_ms is None and not self.retry:
            return b""
        body = orjson.dumps({"retry": self.retry}) if self.retry else b"{}"
        return b"%s|\n%s" % (b"" if self.timeout_ms is None else b"%d" % self.timeout_ms, body)


def parse_type(record: bytes) -> TypePolicy:
    """A record of `types`; nothing said for an empty or damaged one."""
    line, _, body = record.partition(b"\n")
    timeout = line.partition(b"|")[0]
    try:
        return TypePolicy(
            int(timeout) if timeout else None, orjson.loads(body).get("retry") if body else None
        )
    except ValueError:
        return TypePolicy()


@dataclass(frozen=True, slots=True)
class Fault:
    """A finding of verify: which id, what is wrong with it, whether it was put right."""

    id: str
    what: str
    repaired: bool


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One prepared call of a script: it can be sent alone or with others in one pipeline."""

    script: str
    queue: str
    args: Sequence[Any]
    read: Callable[[Any], T]
    guarded: bool = False
    plain: Sequence[Any] = ()
    """A command that only reads, to be sent instead of a script; `script` says what it is about."""


class Store:
    """The only way to the scripts. Times are server time; ids are keys within a queue.

    Methods raise StoreUnavailable (repeat with the same ids), StoreFull, StoreRefused (do not repeat).
    """

    def __init__(
        self, clients: Clients, namespace: str = "scheduler", *, now: Callable[[], int] | None = None
    ) -> None:
        self.clients = clients
        self.namespace = namespace
        self._now = now
        self._known_queues: set[str] = set()
        self._bodies: dict[str, tuple[bytes, str]] = {}
        self._scripts: Mapping[str, Script] = all_scripts()
        self._loading = asyncio.Lock()

    # -- connection -------------------------------------------------------------------------------------------

    async def connect(self, *, queue: str = "default") -> None:
        """Checks layout and rights (on the keys of `queue`), and loads the scripts."""
        try:
            await check_layout(self.clients.commands, self.namespace, LAYOUT)
            if not self.clients.fake:
                await check_rights(self.clients.commands, Keys(self.namespace, queue))
            await self.load()
        except (redis_errors.RedisError, OSError) as error:
            raise self._translated(error, "connect") from error

    async def load(self) -> None:
        """Loads every script into the server, with flags where the server knows them."""
        async with self._loading:
            flagged = not self.clients.fake and await self._knows_flags()
            bodies: dict[str, tuple[bytes, str]] = {}
            for name, script in self._scripts.items():
                body = script.flagged if flagged else script.plain
                bodies[name] = (body, digest(body))
            guarded = self._scripts["replay"].guarded if flagged else self._scripts["replay"].plain
            bodies["replay guarded"] = (guarded, digest(guarded))
            pipe = self.clients.commands.pipeline(transaction=False)
            for body, _ in bodies.values():
                pipe.script_load(body)
            await pipe.execute()
            self._bodies = bodies

    async def _knows_flags(self) -> bool:
        try:
            await self.clients.commands.script_load(b"#!lua flags=no-writes\nreturn 1")
        except redis_errors.NoPermissionError:
            raise
        except redis_errors.ResponseError:
            return False
        return True

    @property
    def flagged(self) -> bool:
        """The scripts stand in this server with their `#!lua` line."""
        return bool(self._bodies) and self._bodies["claim"][0].startswith(b"#!lua")

    async def close(self) -> None:
        await self.clients.close()

    # -- calling ----------------------------------------------------------------------------------------------

    def _stamp(self) -> str:
        return "" if self._now is None else str(self._now())

    def prepared(self, call: Call[Any]) -> tuple[bytes, str, list[str]]:
        """Text, digest and keys of a call, for who sends it on a connection of his own."""
        body, sha = self._bodies["replay guarded" if call.guarded else call.script]
        return body, sha, Keys(self.namespace, call.queue).all(self._scripts[call.script].keys)

    def _command(self, call: Call[Any], *, whole: bool = False) -> list[Any]:
        if call.plain:
            return list(call.plain)
        body, sha, keys = self.prepared(call)
        return [*(("EVAL", body) if whole else ("EVALSHA", sha)), len(keys), *keys, *call.args]

    async def run(self, call: Call[T]) -> T:
        """Sends one call and reads its reply."""
        [reply] = await self.run_all([call])
        if isinstance(reply, Exception):
            raise reply
        return reply  # type: ignore[no-any-return]

    async def run_all(self, calls: Sequence[Call[Any]]) -> list[Any]:
        """Sends calls in one pipeline, in order. A call's own error stands in its place; a lost connection is raised.

        A server that has lost the scripts (restart, failover, SCRIPT FLUSH) gets them again, and what it did not
        run is sent once more.
        """
        if not self._bodies:
            await self.connect()
        try:
            replies = await self._send(calls)
            missing = [n for n, reply in enumerate(replies) if isinstance(reply, redis_errors.NoScriptError)]
            if missing:
                await self.load()
                # With their text: a server that loses them once more in between cannot miss that.
                again = await self._send([calls[n] for n in missing], whole=True)
                for n, reply in zip(missing, again, strict=True):
                    replies[n] = reply
        except (redis_errors.RedisError, OSError, TypeError, AttributeError, RuntimeError) as error:
            # The last three: a write to a transport that the peer closed, on some Pythons and on uvloop.
            ours = isinstance(error, redis_errors.RedisError | OSError)
            if not ours and "transport" not in repr(error).lower():
                raise
            raise self._translated(error, calls[0].script) from error
        return [
            self._translated(reply, call.script) if isinstance(reply, Exception) else call.read(reply)
            for call, reply in zip(calls, replies, strict=True)
        ]

    async def _send(self, calls: Sequence[Call[Any]], *, whole: bool = False) -> list[Any]:
        if len(calls) == 1:
            try:
                client: Any = self.clients.commands
                return [await client.execute_command(*self._command(calls[0], whole=whole))]
            except redis_errors.ResponseError as error:
                return [error]
        pipe = self.clients.commands.pipeline(transaction=False)
        for call in calls:
            pipe.execute_command(*self._command(call, whole=whole))
        return list(await pipe.execute(raise_on_error=False))

    def _translated(self, error: Exception, script: str) -> SchedulerError:
        text = str(error)
        where = f"{self.clients.where}: {script}: {text}"
        # What is refused while a connection is made arrives wrapped, as a lost connection.
        rights = redis_errors.AuthenticationError | redis_errors.NoPermissionError
        if isinstance(error, rights) or isinstance(error.__cause__, rights):
            return StoreRefused(where)
        if isinstance(error, redis_errors.OutOfMemoryError) or text.startswith("OOM"):
            return StoreFull(where)
        if isinstance(error, PASSING) or text.startswith(RETRYABLE) or "non local key" in text:
            return StoreUnavailable(where)
        if isinstance(error, redis_errors.NoScriptError):
            return StoreUnavailable(where)
        if text.startswith("INVALID time"):
            # Only the server's clock knows what lies too far ahead.
            return Invalid([JobFault("/run_at", "at most 10 years from now")])
        if isinstance(error, redis_errors.ResponseError):
            return StoreRefused(where)
        return StoreUnavailable(where or f"{self.clients.where}: {type(error).__name__}", unknown=True)

    # -- producing --------------------------------------------------------------------------------------------

    def enqueue_call(self, queue: str, jobs: Sequence[NewJob]) -> Call[tuple[bool, list[Enqueued]]]:
        """(new) -> ready or scheduled; whether the queue is new, and an outcome for each job. At most BATCH jobs, with keys."""
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
                job.fingerprint(),
                checksum(job.payload),
                job.header(),
            )

        def read(reply: list[Any]) -> tuple[bool, list[Enqueued]]:
            made = int(reply[1])
            return int(reply[0]) == 1, [
                Enqueued(
                    f"{queue}:{job.key}",
                    reply[2 + 2 * n].decode(),
                    made,
                    int(reply[3 + 2 * n]) if reply[3 + 2 * n] else None,
                )
                for n, job in enumerate(jobs)
            ]

        return Call("enqueue", queue, args, read)

    async def enqueue(self, queue: str, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """(new) -> ready or scheduled, in calls of a bounded size; give each job its key before, to repeat safely."""
        done: list[Enqueued] = []
        for batch in batches(jobs, lambda job: len(job.payload) + 300):
            new, outcomes = await self.run(self.enqueue_call(queue, batch))
            if new:
                await self.register(queue)
            done += outcomes
        return done

    async def enqueue_one(self, job: NewJob) -> Enqueued:
        """One job, with a key made when it has none. Raises Duplicate when the id belongs to another request."""
        job = job if job.key else _with_key(job)
        [outcome] = await self.enqueue(job.queue, [job])
        if outcome.outcome == "conflict":
            raise Duplicate(
                f"{outcome.id} is the id of another job: choose another id, or send the very same request to find it"
            )
        return outcome

    async def enqueue_told(self, job: NewJob) -> tuple[Enqueued, int, int]:
        """One job with its key: what became of it, and its max_attempts and timeout (ms) that are in force.

        Raises Duplicate when the id belongs to another request.
        """
        enqueued, policies = await self.run_all(
            [self.enqueue_call(job.queue, [job]), self.policies_call(job.queue, [job.type])]
        )
        for reply in (enqueued, policies):
            if isinstance(reply, Exception):
                raise reply
        new, [outcome] = enqueued
        if new:
            await self.register(job.queue)
        if outcome.outcome == "conflict":
            raise Duplicate(
                f"{outcome.id} is the id of another job: choose another id, or send the very same request to find it"
            )
        attempts, timeout = retry_policy.DEFAULTS["max_attempts"], retry_policy.DEFAULT_TIMEOUT_MS
        for policy in (*reversed(policies[job.type]), TypePolicy(job.timeout_ms, job.retry)):
            if policy is not None:
                attempts = (policy.retry or {}).get("max_attempts", attempts)
                timeout = timeout if policy.timeout_ms is None else policy.timeout_ms
        return outcome, int(attempts), timeout

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
    ) -> Call[Claim]:
        """ready -> running under a lease, at most `count` (1..500)."""

        def read(reply: list[Any]) -> Claim:
            now = int(reply[2])
            jobs = [_claimed(queue, now, *reply[n : n + 8]) for n in range(3, len(reply), 8)]
            return Claim(jobs, int(reply[0]), int(reply[1]) == 1)

        return Call(
            "claim",
            queue,
            [self._stamp(), worker, turn, min(count, BATCH), lease_ms, key_id, period_ms],
            read,
        )

    async def claim(
        self, queue: str, *, worker: str, turn: int | str = "", count: int = 1, lease_ms: int = 30_000
    ) -> Claim:
        """ready -> running under a lease. The same `turn` again gives the same jobs, those whose lease still stands."""
        return await self.run(
            self.claim_call(queue, worker=worker, turn=turn, count=count, lease_ms=lease_ms)
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
            args += (item.key, item.token, item.field, item.value)
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
        return await self.run(Call("promote", queue, [self._stamp(), limit, 0], _page))

    async def expire(self, queue: str, *, limit: int = 100) -> tuple[int, bool]:
        """ended -> gone, what retention lets go: how many, and whether more is left."""
        return await self.run(Call("purge", queue, [self._stamp(), "expired", "", limit, 0], _page))

    # -- acting on jobs ---------------------------------------------------------------------------------------

    async def promote_ids(self, queue: str, keys: Sequence[str]) -> list[str]:
        """scheduled, retrying -> ready, these, now: ready, already (it was), the state that refuses, or missing for each."""
        return await self.run(Call("promote", queue, [self._stamp(), "", len(keys), *keys], _after_page))

    async def cancel(self, queue: str, keys: Sequence[str]) -> list[str]:
        """unfinished -> cancelled, or running asked to stop: cancelled, running, the state that refuses, or missing."""
        return await self.run(Call("cancel", queue, [self._stamp(), len(keys), *keys], _texts))

    async def replay(self, queue: str, items: Sequence[tuple[str, bytes | None]]) -> list[str]:
        """dead -> ready, with another payload where one is given: ready, already (it was), the state that refuses, or missing for each."""
        args: list[Any] = [self._stamp(), "", "", len(items)]
        for key, payload in items:
            args += (key, payload or b"", checksum(payload) if payload else "")
        edits = any(payload for _, payload in items)
        return await self.run(Call("replay", queue, args, _after_page, guarded=edits))

    async def replay_page(
        self, queue: str, *, before_ms: int | None = None, limit: int = 100
    ) -> tuple[int, bool]:
        """dead -> ready, the oldest that ended by then, one page: how many, and whether more are left."""
        before = "" if before_ms is None else before_ms
        return await self.run(Call("replay", queue, [self._stamp(), before, limit, 0], _page))

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

    async def purge(self, queue: str, keys: Sequence[str]) -> list[str]:
        """waiting or ended -> gone: gone, running (which may not go) or missing for each."""
        return await self.run(
            Call("purge", queue, [self._stamp(), "", "", "", len(keys), *keys], _after_page)
        )

    async def purge_page(
        self, queue: str, state: str, *, before_ms: int | None = None, limit: int = 100
    ) -> tuple[int, bool]:
        """waiting or ended -> gone, the oldest of one state, one page: how many, and whether it was full."""
        before = "" if before_ms is None else before_ms
        return await self.run(Call("purge", queue, [self._stamp(), state, before, limit, 0], _page))

    # -- configuration ----------------------------------------------------------------------------------------

    async def configure(self, queue: str, changes: Mapping[str, str], *, expect: int | None = None) -> int:
        """Sets fields of the queue's configuration ("" lifts one), creating the queue. Answers the version.

        Raises Changed when `expect` is not the version that stands.
        """
        args: list[Any] = [self._stamp(), "", "", "" if expect is None else expect, len(changes)]
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
        field = f":{name}" if declared else name
        # A user's policy that says nothing is there all the same; a handler that says nothing declares none.
        record = b"" if policy is None else policy.record() or (b"" if declared else b"|\n{}")
        return await self._configure(
            queue, [self._stamp(), field, record, "" if expect is None else expect, 0]
        )

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
    ) -> Call[dict[str, tuple[TypePolicy | None, TypePolicy | None]]]:
        """The policies of these types, as set and as declared; None where nobody said anything."""
        fields = [field for name in names for field in (name, f":{name}")]

        def read(reply: list[Any]) -> dict[str, tuple[TypePolicy | None, TypePolicy | None]]:
            found = [None if record is None else parse_type(record) for record in reply]
            return dict(zip(names, zip(found[::2], found[1::2], strict=True), strict=True))

        return Call(
            "types", queue, (), read, plain=("HMGET", Keys(self.namespace, queue).at("types"), *fields)
        )

    async def types(self, queue: str) -> dict[str, tuple[TypePolicy, TypePolicy]]:
        """Every type that somebody said something about: as set, as declared."""
        found = await self._read(lambda client: client.hgetall(Keys(self.namespace, queue).at("types")))
        made: dict[str, tuple[TypePolicy, TypePolicy]] = {}
        for field, record in found.items():
            name, declared = field.decode().removeprefix(":"), field.startswith(b":")
            its_set, its_declared = made.get(name, (TypePolicy(), TypePolicy()))
            made[name] = (its_set, parse_type(record)) if declared else (parse_type(record), its_declared)
        return made

    # -- reading ----------------------------------------------------------------------------------------------

    async def inspect(
        self, queue: str, keys: Sequence[str], *, payload: bool = False, result: bool = False
    ) -> list[Job | None]:
        """All that is known of these jobs; None for one that is not known."""
        if not keys:
            return []
        asked = " ".join(word for word, wanted in (("payload", payload), ("result", result)) if wanted)

        def read(reply: list[Any]) -> list[Job | None]:
            return [_job(queue, key, *reply[1 + 11 * n : 12 + 11 * n]) for n, key in enumerate(keys)]

        return await self.run(Call("inspect", queue, [self._stamp(), asked, len(keys), *keys], read))

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
            raise NotFound(
                f"there is no queue {queue!r}; it begins with its first job, or with PUT /v1/queues/{queue}"
            )
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
        strays = [name for name in names if name not in self._known_queues]
        for name in strays:
            await self.register(name)
        return int(following), strays

    async def verify(
        self, queue: str, *, repair: bool = False, structures: Sequence[str] | None = None
    ) -> AsyncIterator[Fault]:
        """Every fault of a queue: jobs that do not stand in exactly one set, and what belongs to no job."""
        for structure in structures or ("jobs", *STATES, "leases", "attempts", "results", "known"):
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

    async def list(
        self, queue: str, state: str, *, after: str = "", limit: int = 100, look: int = 2_000,
        type: str = "", group: str = "", tag: str = "", error: str = "",
    ) -> tuple[list[str], str]:  # fmt: skip
        """A page of the keys of one state, and the cursor for the next ("" at the end)."""
        args = [state, after, limit, look, type, group, tag, error]
        return await self.run(
            Call("list", queue, args, lambda r: ([key.decode() for key in r[1:]], r[0].decode()))
        )

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
        except (redis_errors.RedisError, OSError) as error:
            raise self._translated(error, "read") from error


def batches(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Cuts items into lists of at most BATCH and BATCH_BYTES; one item may be larger alone."""
    batch: list[T] = []
    total = 0
    for item in items:
        weight = size(item)
        if batch and (len(batch) == BATCH or total + weight > BATCH_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += weight
    if batch:
        yield batch


def _with_key(job: NewJob) -> NewJob:
    from dataclasses import replace  # noqa: PLC0415 - beside its only use

    return replace(job, key=new_key())


def _clean(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _texts(reply: list[Any]) -> list[str]:
    return [item.decode() for item in reply]


def _page(reply: list[Any]) -> tuple[int, bool]:
    return int(reply[0]), int(reply[1]) == 1


def _after_page(reply: list[Any]) -> list[str]:
    return [item.decode() for item in reply[2:]]


def _claimed(
    queue: str,
    now: int,
    key: bytes,
    token: bytes,
    attempt: Any,
    until: bytes,
    ends: bytes,
    record: bytes,
    former: bytes,
    checkpoint: bytes,
) -> Claimed:
    ends_ms = int(ends)
    return Claimed(
        queue,
        key.decode(),
        int(token),
        int(attempt),
        int(until),
        ends_ms,
        ends_ms - now,
        parse_record(record),
        former,
        checkpoint,
    )


_NOTHING = Record("", None, "", 0, 0, "", "", {}, None)


def _job(
    queue: str, key: str, state: bytes, score: bytes, record: bytes, former: bytes, run: bytes, lease: bytes,
    progress: bytes, edits: bytes, tomb: bytes, set_policy: bytes, declared: bytes,
) -> Job | None:  # fmt: skip
    course, finished, header = parse_course(former), None, b""
    result: bytes | None = None
    if not state:
        if not tomb:
            return None
        first, _, record = tomb.partition(b"\n")
        at, ended, line = first.split(b"|", 2)
        course, finished, its_state = parse_course(line), int(at), State(ended.decode())
    else:
        its_state = State(state.decode())
    kept = parse_record(record)
    if kept is None:
        kept = Record("", None, "", 0, 0, "", "", {}, record)
    header = record.split(b"\n", 2)[1] if record.count(b"\n") else b""
    policies = parse_type(declared), parse_type(set_policy)
    policy = retry_policy.in_force(*(p.retry or {} for p in policies), kept.header.get("retry") or {})
    timeouts = [t for t in (policies[0].timeout_ms, policies[1].timeout_ms, kept.timeout_ms) if t is not None]

    attempt, crashes, token, worker, started, until = (
        course.attempt,
        course.crashes,
        course.token,
        None,
        None,
        None,
    )
    run_at = None
    if state and its_state in {State.SCHEDULED, State.RETRYING}:
        run_at = int(score) // 1000
    elif its_state is State.RUNNING:
        until = int(score)
        parts = lease.decode(errors="replace").split("|")
        if len(parts) >= 10:
            token, worker, started, attempt = int(parts[0]), parts[1] or None, int(parts[2]), int(parts[5])
    elif its_state.ended:
        finished = finished if finished is not None else abs(int(score))
        if run:
            line, _, body = run.partition(b"\n")
            last = parse_course(line)
            attempt, token, worker, started, crashes = (
                last.attempt,
                last.token,
                last.worker,
                last.started_ms,
                0,
            )
            result = body or None
        else:
            worker, started = course.worker, course.started_ms
    return Job(
        id=f"{queue}:{key}",
        queue=queue,
        type=kept.type,
        state=its_state,
        reason=course.reason if its_state in {State.DEAD, State.CANCELLED} else None,
        payload=kept.payload,
        priority=kept.priority,
        group=kept.header.get("group"),
        tags=tuple(kept.header.get("tags", ())),
        attempt=attempt,
        max_attempts=int(policy["max_attempts"]),
        crashes=crashes,
        snoozes=course.snoozes,
        token=token,
        timeout_ms=timeouts[-1] if timeouts else retry_policy.DEFAULT_TIMEOUT_MS,
        created_at=kept.created_ms,
        run_at=run_at,
        started_at=started,
        finished_at=finished,
        lease_expires_at=until,
        worker=worker,
        progress=progress or None,
        result=result,
        errors=course.errors,
        traceparent=kept.header.get("traceparent"),
        copied_from=kept.header.get("copied_from"),
        edits=tuple(_edits(edits)),
        header=header,
    )


def _edits(text: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at < len(text):
        line, newline, _ = text[at:].partition(b"\n")
        when, _, length = line.partition(b" ")
        if not newline or not length.isdigit():
            break
        start = at + len(line) + 1
        found.append((int(when), text[start : start + int(length)]))
        at = start + int(length)
    return found

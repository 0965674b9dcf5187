"""What can be asked of a store: jobs, lists, queues, why a job waits. Changes nothing, unless `verify` is to repair."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from redis import exceptions as redis_errors

from .calling import BATCH, BATCH_BYTES, Caller, batches
from .clients import Clients, is_outage
from .errors import (
    NotFound,
)
from .job import Job
from .joining import Ask, Call
from .keys import STATES, Keys, operations_key, queue_of, queues_key, schemas_key
from .limits import Breaker, BreakerState, GroupPolicy, breaker_state, parse_group
from .outcomes import (
    Census,
    DeadGroup,
    Fault,
    Held,
    LogLine,
    Operation,
    TypePolicy,
    Work,
    parse_operation,
    parse_type,
)  # fmt: skip
from .replies import read_group, read_held, read_job, read_work, texts

VERIFIED = (
    "jobs",
    *STATES,
    "leases",
    "attempts",
    "results",
    "known",
    "dead_index",
    "dead_groups",
    "dependents",
    "awaits",
    "parents",
    "signals",
    "opening",
    "lanes",
    "heads",
    "turns",
    "parked",
    "lines",
    "slots",
    "schedules",
    "fires",
    "bytes",
)
"""The structures that verify looks at."""


class Reading(Caller):
    """The part of the store that reads. Times are server time; ids are keys within a queue."""

    def __init__(
        self, clients: Clients, namespace: str = "scheduler", *, now: Callable[[], int] | None = None
    ) -> None:
        super().__init__(clients, namespace, now=now)
        self._known_queues: set[str] = set()

    async def register(self, queue: str) -> None:
        """Adds a queue to the namespace's set of queues."""
        try:
            await self.clients.commands.sadd(queues_key(self.namespace), queue)
            self._known_queues.add(queue)
        except (redis_errors.RedisError, OSError):
            # A hint only: the watchdog's scan finds what is missing there.
            return

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
            firsts = await self.run_all_sure([call for _, call in some])
            found += [
                queue
                for (queue, _), first in zip(some, firsts, strict=True)
                if isinstance(first, float) and first <= now
            ]
        return found

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

    async def queues_with_schemas(self) -> set[str]:
        """Queues in which a type has, or had, a schema."""
        found = await self._read(lambda client: client.smembers(schemas_key(self.namespace)))
        return {name.decode() for name in found}

    def operations_call(self, queue: str) -> Call[list[Operation]]:
        """The operations of a queue that are known, at most 100 and those that were begun together."""

        def read(reply: Any) -> list[Operation]:
            pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
            found = [parse_operation(queue, its_id.decode(), record) for its_id, record in pairs]
            return [operation for operation in found if operation is not None]

        return Call(
            "operations", queue, (), read, plain=("HGETALL", Keys(self.namespace, queue).at("operations"))
        )

    async def operation(self, queue: str, its_id: str) -> Operation | None:
        """The record of one operation."""
        key = Keys(self.namespace, queue).at("operations")
        record = await self._read(lambda client: client.hget(key, its_id))
        return None if record is None else parse_operation(queue, its_id, record)

    async def operations_told(self) -> set[tuple[str, str]]:
        """Queue and id of each operation that may be under way: a hint, written before it begins."""
        members = await self._read(lambda client: client.smembers(operations_key(self.namespace)))
        pairs = (member.decode().partition(":") for member in members)
        return {(queue, its_id) for queue, _, its_id in pairs}

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
        return await self.run_sure(self.groups_call(queue, after=after, limit=limit))

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
        found = await self.run_sure(Call("explain", queue, [self._stamp(), 1, key], read_held))
        if found is None:
            raise NotFound(f"there is no job {queue}:{key}")
        return found

    async def demand(self, queue: str, *, limit: int | None = None) -> Work:
        """What a queue has for workers, exact up to `limit` (1..500) of its types and lanes. Raises NotFound."""
        args = [self._stamp(), "" if limit is None else limit]
        found = await self.run_sure(Call("demand", queue, args, read_work))
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
        census = await self.run_sure(self.census_call(queue))
        if census is None:
            raise no_queue(queue)
        return census

    async def now(self) -> int:
        """The server's time in ms."""
        seconds, micros = await self._read(lambda client: client.time())
        return int(seconds) * 1000 + int(micros) // 1000

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
        astray = False
        for structure in structures or VERIFIED:
            if structure == "bytes" and astray and not repair:
                break  # of jobs that stand in no set, or in two, there is no sum
            cursor = "0"
            while True:
                args = [self._stamp(), structure, cursor, BATCH, "1" if repair else ""]
                reply = await self.run_sure(Call("verify", queue, args, lambda r: r))
                astray = astray or len(reply) > 2
                for n in range(2, len(reply), 3):
                    yield Fault(reply[n].decode(), reply[n + 1].decode(), reply[n + 2] == b"repaired")
                cursor = reply[0].decode()
                if cursor == "0":
                    break

    async def server(self) -> dict[str, str]:
        """Version and role of the server, after a script of ours has just run there."""
        await self.run_sure(Call("census", "default", [self._stamp()], lambda r: r))
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
        return Call("list", queue, args, lambda r: (texts(r[1:]), r[0].decode()))

    async def due_times(self, queue: str, ids: Sequence[str]) -> list[float | None]:
        """In how many seconds these retrying jobs are due; None for one that is not retrying any more."""
        key = Keys(self.namespace, queue).at("retrying")
        now, scores = (
            await self._read(lambda client: client.time()),
            await self._read(lambda client: client.zmscore(key, list(ids))),
        )
        micros = self._now() * 1_000 if self._now is not None else int(now[0]) * 1_000_000 + int(now[1])
        return [None if score is None else max(0.0, (score - micros) / 1_000_000) for score in scores]

    def size_call(self, queue: str, state: str) -> Call[int]:
        """How many jobs stand in a state."""
        return Call("size", queue, (), int, plain=("ZCARD", Keys(self.namespace, queue).at(state)))

    async def list(
        self, queue: str, state: str, *, after: str = "", limit: int = 100, look: int = 2_000, **filters: Any
    ) -> tuple[list[str], str]:
        """A page of the keys of one state, and the cursor for the next ("" at the end). Filters: see `list_call`."""
        call = self.list_call(queue, state, after=after, limit=limit, look=look, **filters)
        found, cursor = await self.run_sure(call)
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


def key_at(place: str) -> str:
    """The key of the job that stands at a place of a list."""
    return place.split("|", 2)[2]

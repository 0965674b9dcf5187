"""Puts jobs into their states by the real verbs, and looks at the whole server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from scheduler.job import Claimed, Job, NewJob, Record
from scheduler.joining import Call
from scheduler.keys import Keys, queue_of
from scheduler.outcomes import Ack, Bury, Nack, Parent, Release
from scheduler.reading import VERIFIED
from scheduler.store import Store

QUEUE = "mail"
WORKER = "worker-1"
ENDED = ("succeeded", "cancelled", "dead")
UNFINISHED = ("scheduled", "blocked", "ready", "running", "retrying")
STATES = (*UNFINISHED, *ENDED)

on_real_servers = pytest.mark.parametrize("backend", ("redis", "valkey"), indirect=True)
on_the_fake = pytest.mark.parametrize("backend", ("fake",), indirect=True)


READ: dict[str, Callable[[Pipeline, bytes], Any]] = {
    "string": lambda pipe, key: pipe.get(key),
    "hash": lambda pipe, key: pipe.hgetall(key),
    "set": lambda pipe, key: pipe.smembers(key),
    "list": lambda pipe, key: pipe.lrange(key, 0, -1),
    "zset": lambda pipe, key: pipe.zrange(key, 0, -1, withscores=True),
    "stream": lambda pipe, key: pipe.xrange(key),
}


@dataclass
class Clock:
    """The server's clock as the tests set it: milliseconds."""

    now: int = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += round(seconds * 1000)


def keys(queue: str = QUEUE) -> Keys:
    return Keys("scheduler", queue)


def new(key: str, **fields: Any) -> NewJob:
    return NewJob(**{"type": "send", "key": key, "queue": QUEUE, **fields})


async def enqueued(store: Store, *names: str, **fields: Any) -> None:
    """New jobs of these keys, which the queue did not know."""
    done = await store.enqueue(QUEUE, [new(name, **fields) for name in names])
    assert all(job.created for job in done), done


async def take(store: Store, count: int = 1, worker: str = WORKER, **options: Any) -> list[Claimed]:
    """Claims what comes next."""
    return (await store.claim(QUEUE, worker=worker, count=count, **options)).jobs


async def claimed(
    store: Store, key: str = "a", *, worker: str = WORKER, lease_ms: int = 30_000, **fields: Any
) -> Claimed:
    """A new job in the hands of a worker. Nothing else may be ready."""
    await enqueued(store, key, **fields)
    return await taken(store, key, worker=worker, lease_ms=lease_ms)


async def taken(store: Store, key: str = "a", **options: Any) -> Claimed:
    """The job of this key, which is the next one, in the hands of a worker."""
    [job] = await take(store, **options)
    assert key == job.key
    return job


async def in_state(store: Store, state: str, key: str = "a", **fields: Any) -> int:
    """Puts a new job into a state by the real verbs, and answers its last token (0: it never ran)."""
    if state == "scheduled":
        await enqueued(store, key, delay_ms=3_600_000, **fields)
        return 0
    if state == "blocked":
        await enqueued(store, key, gate="elsewhere:=closed", linked=True, **fields)
        return 0
    if state in {"ready", "cancelled"}:
        await enqueued(store, key, **fields)
        if state == "cancelled":
            assert ["cancelled"] == await store.cancel(QUEUE, [key])
        return 0
    retry = {"retry": {"immediate": 0}} if state == "retrying" else {}
    job = await claimed(store, key, **{**retry, **fields})
    if state == "succeeded":
        assert [state] == await store.ack(QUEUE, [Ack(key, job.token, b'"done"')], worker=WORKER)
    elif state == "dead":
        assert [state] == await store.bury(QUEUE, [Bury(key, job.token, "Permanent", "no")], worker=WORKER)
    elif state == "retrying":
        assert [state] == await store.nack(QUEUE, [Nack(key, job.token, "ValueError", "boom")], worker=WORKER)
    return job.token


async def damaged(store: Store, key: str, record: str | None = "nonsense") -> None:
    """Somebody else wrote over a job's record (None: took it away). The count of bytes is what stands there now."""
    jobs = keys().at("jobs")
    client = store.clients.commands
    await (client.hdel(jobs, key) if record is None else client.hset(jobs, key, record))
    _ = [fault async for fault in store.verify(QUEUE, repair=True, structures=["bytes"])]


async def in_every_state(store: Store, states: Sequence[str] = STATES) -> dict[str, int]:
    """One job in each state, its key the state's name; answers their tokens."""
    # What is ready comes last: a claim would take it.
    order = sorted(states, key=lambda state: state == "ready")
    return {state: await in_state(store, state, state) for state in order}


def record_of(job: Claimed) -> Record:
    """What a worker was given; it is whole."""
    assert job.record is not None
    assert job.record.intact
    return job.record


async def acked(store: Store, job: Claimed, result: bytes = b"", worker: str = WORKER) -> str:
    [state] = await store.ack(QUEUE, [Ack(job.key, job.token, result)], worker=worker)
    return state


async def nacked(
    store: Store, job: Claimed, kind: str = "ValueError", message: str = "boom", **options: Any
) -> str:
    [state] = await store.nack(QUEUE, [Nack(job.key, job.token, kind, message, **options)], worker=WORKER)
    return state


async def buried(store: Store, job: Claimed, **options: Any) -> str:
    [state] = await store.bury(QUEUE, [Bury(job.key, job.token, "Permanent", "no", **options)], worker=WORKER)
    return state


async def released(store: Store, job: Claimed, delay_ms: int = 0, why: str = "", **options: Any) -> str:
    [state] = await store.release(
        QUEUE, [Release(job.key, job.token, delay_ms, why)], worker=WORKER, **options
    )
    return state


async def swept(store: Store, clock: Clock) -> int:
    """Sweeps now and, when the grace after a gap is over, once more; answers how many were reclaimed."""
    found = (await store.reclaim(QUEUE)).reclaimed
    clock.advance(11)
    return found + (await store.reclaim(QUEUE)).reclaimed


async def look(store: Store, key: str = "a") -> Job:
    """Everything that is known of a job that is known."""
    return await store.job(QUEUE, key)


async def state_of(store: Store, key: str = "a") -> str | None:
    """The state a job is in; None when it is not known."""
    [job] = await store.inspect(QUEUE, [key])
    return job.state.value if job else None


async def states_of(store: Store, *names: str) -> list[str | None]:
    return [job.state.value if job else None for job in await store.inspect(QUEUE, names)]


async def ends_in_flow(store: Store, queue: str, key: str) -> dict[str, Parent]:
    """What a flow knows of its jobs, by id."""
    found: dict[str, Parent] = {}
    cursor = ""
    while True:
        page = await store.parents(queue, f"={key}", cursor=cursor, limit=1_000)
        found.update((parent.id, parent) for parent in page.items)
        cursor = page.cursor
        if not cursor:
            return found


async def raw(store: Store, script: str, *args: object, queue: str = QUEUE) -> Any:
    """Calls a script as a client of another language would: the reply is the server's own, and so is an error."""
    with_now = [store._stamp(), *args] if "now" in store._scripts[script].args else list(args)
    return await store.clients.commands.execute_command(*store._command(Call(script, queue, with_now, list)))


async def race(*calls: Awaitable[Any], return_exceptions: bool = False) -> list[Any]:
    """All at once."""
    return list(await asyncio.gather(*calls, return_exceptions=return_exceptions))


async def events(redis: Redis, kind: str) -> list[str]:
    """The keys that events of this kind name, oldest first."""
    entries: Any = await redis.xrange(keys().at("events"))
    return [
        key
        for _, entry in entries
        if entry[b"kind"] == kind.encode()
        for key in entry[b"ids"].decode().split(" ")
    ]


async def rings(redis: Redis) -> int:
    """Takes the rings out of the bell, and answers how many there were."""
    there = await redis.llen(keys().at("bell"))
    await redis.unlink(keys().at("bell"))
    return int(there)


async def snapshot(redis: Redis) -> dict[str, Any]:
    """The whole server: every key with its type and its value."""
    found = sorted([key async for key in redis.scan_iter(count=1000)])
    pipe = redis.pipeline(transaction=False)
    for key in found:
        pipe.type(key)
    types = [kind.decode() for kind in await pipe.execute()]
    for key, kind in zip(found, types, strict=True):
        READ[kind](pipe, key)
    return dict(
        zip((key.decode() for key in found), zip(types, await pipe.execute(), strict=True), strict=True)
    )


async def faults(store: Store) -> list[Any]:
    """What `verify` finds on any queue of this server."""
    found: dict[str, set[str]] = {}
    async for key in store.clients.commands.scan_iter(count=1000):
        if queue := queue_of(store.namespace, key.decode()):
            found.setdefault(queue, {"bytes"}).add(key.decode().rpartition(":")[2])
    # Of a structure that does not exist there is nothing to look at, and each call takes the fake some milliseconds.
    return [
        fault
        for queue, parts in sorted(found.items())
        async for fault in store.verify(queue, structures=[part for part in VERIFIED if part in parts])
    ]

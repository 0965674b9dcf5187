"""Which workers there are: each signs at least every third of its lease, and is listed until two leases without a sign.

A hint for people and autoscalers. No transition reads it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

import orjson
from msgspec.structs import replace

from .clients import is_outage
from .errors import StoreUnavailable
from .keys import Keys, worker_key, workers_key
from .logs import get_logger
from .outcomes import WorkerSeen
from .replies import read_lease
from .store import Store

log = get_logger(__name__)

MOST_RUNNING = 1_000
"""Running jobs of a queue that are looked at to say who runs what."""


class Presence:
    """Signs for workers, and lists those that have signed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._client = store.clients.commands
        self._signed: dict[tuple[str, str], float] = {}
        self._looking: asyncio.Task[list[WorkerSeen]] | None = None

    async def sign(self, name: str, said: Mapping[str, Any], lease_ms: int) -> None:
        """A worker process is there: `said` has host, pid, version, queues, types and concurrency.

        Raises StoreUnavailable.
        """
        await self._sign(name, lease_ms, {"said": orjson.dumps(dict(said))})

    async def sign_for(self, name: str, queue: str, lease_ms: int) -> None:
        """Somebody leases from this queue over REST under this name. Sent now and then only; never raises."""
        now, key = monotonic(), (name, queue)
        if now - self._signed.get(key, -1e9) < lease_ms / 3000:
            return
        if len(self._signed) > 10_000:  # names that come and go
            self._signed.clear()
        self._signed[key] = now
        try:
            await self._sign(name, lease_ms, {f"queue:{queue}": b"1"})
        except StoreUnavailable as error:
            self._signed.pop(key, None)
            log.debug("a worker's sign is lost", worker=name, error=str(error))

    async def _sign(self, name: str, lease_ms: int, fields: Mapping[str, bytes]) -> None:
        key = worker_key(self._store.namespace, name)
        try:
            now = await self._client.time()
            pipe = self._client.pipeline(transaction=False)
            for field, value in fields.items():
                pipe.hset(key, field, value)
            pipe.hset(key, "every", str(lease_ms))
            pipe.hsetnx(key, "started", str(int(now[0]) * 1000 + int(now[1]) // 1000))
            pipe.pexpire(key, 2 * lease_ms)
            pipe.sadd(workers_key(self._store.namespace), name)
            await pipe.execute()
        except Exception as error:
            raise self._translated(error) from error

    async def leave(self, name: str) -> None:
        """A worker ends: it is listed no longer. Never raises; its time runs out all the same."""
        try:
            pipe = self._client.pipeline(transaction=False)
            pipe.unlink(worker_key(self._store.namespace, name))
            pipe.srem(workers_key(self._store.namespace), name)
            await pipe.execute()
        except Exception as error:  # noqa: BLE001 - its time runs out all the same
            log.debug("a worker's leave is lost", worker=name, error=str(self._translated(error)))

    def _translated(self, error: Exception) -> Exception:
        """An outage as StoreUnavailable; any other error as it is."""
        if not is_outage(error):
            return error
        return StoreUnavailable(f"{self._store.clients.where}: presence: {error}")

    async def present(self) -> list[WorkerSeen]:
        """All that have signed within two of their leases, by name, with what they run. Raises StoreUnavailable."""
        try:
            seen = await self._seen()
            running = await self._running({queue for worker in seen for queue in worker.queues})
        except Exception as error:
            raise self._translated(error) from error
        return [replace(worker, running=tuple(running.get(worker.name, ()))) for worker in seen]

    async def seen(self) -> list[WorkerSeen]:
        """The same without what they run, which costs a look at every queue. Raises StoreUnavailable."""
        try:
            return await self._seen()
        except Exception as error:
            raise self._translated(error) from error

    async def lost(self) -> dict[str, list[str]]:
        """Workers that own leases although they are listed no longer, with the jobs. A look at every queue.

        Raises StoreUnavailable.
        """
        try:
            running = await self._running(set(await self._store.queues()))
            present = {worker.name for worker in await self._seen()}
        except Exception as error:
            raise self._translated(error) from error
        return {name: ids for name, ids in sorted(running.items()) if name not in present}

    async def counts(self) -> Counter[str]:
        """How many workers serve each queue. Raises StoreUnavailable."""
        return Counter(queue for worker in await self.seen() for queue in worker.queues)

    async def _seen(self) -> list[WorkerSeen]:
        # One look for all that ask meanwhile: it is a pipeline as long as there are workers, and a hint.
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
            self._looking.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._looking)

    async def _look(self) -> list[WorkerSeen]:
        reads, namespace = self._store.clients.reads, self._store.namespace
        found: Any = await reads.smembers(workers_key(namespace))
        names = sorted(name.decode() for name in found)
        if not names:
            return []
        pipe = reads.pipeline(transaction=False)
        pipe.time()
        for name in names:
            pipe.hgetall(worker_key(namespace, name))
            pipe.pttl(worker_key(namespace, name))
        now, *rest = await pipe.execute()
        now_ms = int(now[0]) * 1000 + int(now[1]) // 1000
        seen, gone = [], []
        for name, fields, left in zip(names, rest[::2], rest[1::2], strict=True):
            if fields and left > 0:
                seen.append(_read(name, fields, now_ms, left))
            else:
                gone.append(name)
        if gone:
            await self._client.srem(workers_key(namespace), *gone)
        return seen

    async def _running(self, queues: set[str]) -> dict[str, list[str]]:
        """Ids of running jobs by worker, as their leases say."""
        reads, by_worker = self._store.clients.reads, dict[str, list[str]]()
        order = sorted(queues)
        pipe = reads.pipeline(transaction=False)
        for queue in order:
            pipe.zrange(Keys(self._store.namespace, queue).at("running"), 0, MOST_RUNNING - 1)
        ids = await pipe.execute()
        busy = [(queue, keys) for queue, keys in zip(order, ids, strict=True) if keys]
        if not busy:
            return by_worker
        pipe = reads.pipeline(transaction=False)
        for queue, keys in busy:
            pipe.hmget(Keys(self._store.namespace, queue).at("leases"), keys)
        for (queue, keys), leases in zip(busy, await pipe.execute(), strict=True):
            for key, text in zip(keys, leases, strict=True):
                lease = read_lease(text or b"")
                if lease is not None and lease.worker:
                    by_worker.setdefault(lease.worker, []).append(f"{queue}:{key.decode()}")
        return by_worker


def _read(name: str, fields: Mapping[bytes, bytes], now_ms: int, left_ms: int) -> WorkerSeen:
    said: dict[str, Any] = orjson.loads(fields.get(b"said", b"{}"))
    queues: Sequence[str] = said.get("queues") or sorted(
        field.decode().removeprefix("queue:") for field in fields if field.startswith(b"queue:")
    )
    return WorkerSeen(
        name=name,
        host=said.get("host"),
        pid=said.get("pid"),
        version=said.get("version"),
        queues=tuple(queues),
        types=tuple(said.get("types", ())),
        concurrency=said.get("concurrency"),
        running=(),
        started_at=int(fields.get(b"started", b"0")),
        seen_at=now_ms - (2 * int(fields.get(b"every", b"0")) - left_ms),
        late=left_ms < int(fields.get(b"every", b"0")),
    )

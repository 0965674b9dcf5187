"""One method per script: what is done with jobs that stand, and with queues. Nothing else talks to Redis about jobs."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from .calling import BATCH, batches
from .errors import (
    Changed,
)
from .job import checksum
from .joining import Ask, Call
from .keys import operations_key, queues_key, schemas_key
from .limits import GroupPolicy
from .outcomes import (
    Ack,
    Bury,
    Claim,
    Extend,
    Nack,
    Note,
    Operation,
    OperationPage,
    Release,
    Swept,
    TypePolicy,
    parse_operation,
)  # fmt: skip
from .planning import Planning
from .replies import read_claimed, texts


class Store(Planning):
    """The only way to the scripts. Times are server time; ids are keys within a queue.

    Methods raise StoreUnavailable (repeat with the same ids), StoreFull, StoreRefused (do not repeat).
    """

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
            due = int(reply[1])
            return Claim(jobs, int(reply[0]), due % 2 == 1, due >= 2)

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
        return Call("ack", queue, args, texts)

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
        return Call("nack", queue, args, texts)

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
        return Call("bury", queue, args, texts)

    def release_call(
        self, queue: str, back: Sequence[Release], *, worker: str, no_handler_after_ms: int = 600_000
    ) -> Call[list[str]]:
        """running -> ready, scheduled, dead by no_handler, or cancelled."""
        args: list[Any] = [self._stamp(), worker, no_handler_after_ms, len(back)]
        for item in back:
            args += (item.key, item.token, item.delay_ms or "", item.why)
        return Call("release", queue, args, texts)

    def extend_call(self, queue: str, held: Sequence[Extend]) -> Call[list[str]]:
        """running, with later deadlines: running, cancel, stale or missing for each."""
        args: list[Any] = [self._stamp(), len(held)]
        for item in held:
            args += (item.key, item.token, item.lease_ms)
        return Call("extend", queue, args, texts)

    def note_call(self, queue: str, notes: Sequence[Note]) -> Call[list[str]]:
        """running; progress, checkpoints and log lines are kept: running, cancel, stale or missing for each."""
        args: list[Any] = [self._stamp(), len(notes)]
        for item in notes:
            args += (item.key, item.token, item.field, item.value, item.seq or "")
        return Call("note", queue, args, texts)

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

        def read(r: list[Any]) -> Swept:
            words = texts(r[5:])
            jobs = tuple(zip(words[::3], words[1::3], words[2::3], strict=True))
            return Swept(int(r[0]), r[1] == 1, int(r[2]), r[3] == 1, r[4] == 1, jobs)

        return await self.run(Call("reclaim", queue, args, read))

    async def promote(self, queue: str, *, limit: int = 100) -> tuple[int, bool]:
        """scheduled, retrying -> ready, what is due: how many, and whether more are."""
        return await self.run(Call("promote", queue, [self._stamp(), "", limit, 0], _page))

    async def expire(self, queue: str, *, limit: int = 100) -> tuple[int, bool]:
        """ended -> gone, what retention lets go, and waiting -> cancelled or dead beyond a deadline: how many, and whether more are left."""
        count, more, _ = await self.expire_telling(queue, limit=limit)
        return count, more

    async def expire_telling(self, queue: str, *, limit: int = 100) -> tuple[int, bool, list[str]]:
        """The same, with the keys of the jobs that are dead by their deadline."""
        args = [self._stamp(), "", "expired", "", limit, 0]
        return await self.run(Call("purge", queue, args, lambda r: (*_page(r), texts(r[2:]))))

    # -- acting on jobs ---------------------------------------------------------------------------------------

    # With a `page` of an operation these act only if it is its next, and are counted with it. Raise Outrun.

    async def promote_ids(
        self, queue: str, keys: Sequence[str], *, page: OperationPage | None = None
    ) -> list[str]:
        """scheduled, retrying -> ready, these, now: ready, already (it was), the state that refuses, or missing for each."""
        args = [self._stamp(), _page_text(page), "", len(keys), *keys]
        call = Call("promote", queue, args, _after_page)
        return await (self.run_acting(call, "ready") if page is None else self.run(call))

    async def cancel(
        self, queue: str, keys: Sequence[str], *, page: OperationPage | None = None, reason: str = ""
    ) -> list[str]:
        """unfinished -> cancelled, or running asked to stop: cancelled, running, the state that refuses, or missing.

        `reason` is asked, unless it says overlap.
        """

        def plan(some: Sequence[str]) -> list[Call[Any]]:
            return [Call("cancel", queue, [self._stamp(), _page_text(page), reason, len(some), *some], texts)]

        found: list[str] = await (
            self.run(plan(keys)[0])
            if page is not None
            else self.ask(Ask(keys, plan, ("cancel", queue, reason), 100 * len(keys)))
        )
        if asked := [f"{queue}:{key}" for key, state in zip(keys, found, strict=True) if state == "running"]:
            await self.nudges.send(asked)
        return found

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
        call = Call("replay", queue, args, _after_page, guarded=edits)
        return await (self.run_acting(call, "ready") if page is None else self.run(call))

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
            [state] = await self.run(Call("update", queue, args, texts))
            if state != "changed":
                return state
        raise Changed(f"{queue}:{key} is being changed by others: try again")

    async def purge(
        self, queue: str, keys: Sequence[str], *, state: str = "", page: OperationPage | None = None
    ) -> list[str]:
        """waiting or ended -> gone: gone, the state that refuses or missing for each. `state`: only what stands there still."""
        args = [self._stamp(), _page_text(page), state, "", "", len(keys), *keys]
        call = Call("purge", queue, args, _after_page)
        return await (self.run_acting(call, "gone") if page is None else self.run(call))

    async def purge_page(
        self, queue: str, state: str, *, before_ms: int | None = None, limit: int = 100
    ) -> tuple[int, bool]:
        """waiting or ended -> gone, the oldest of one state, one page: how many, and whether it was full."""
        before = "" if before_ms is None else before_ms
        return await self.run(Call("purge", queue, [self._stamp(), "", state, before, limit, 0], _page))

    async def obliterate(self, queue: str, *, force: bool = False) -> str:
        """A whole queue -> gone, its schedules too: gone, running (a job runs, and it was not forced) or missing.

        Those in other queues that wait for its jobs are told that these did not succeed.
        """
        listeners = await self.listeners(queue)
        # First, so that somebody tells them should this process die in between.
        for name, words in listeners.items():
            await self.resolve(name, words)
        names = await self.schedule_names_of(queue)
        [outcome] = await self.run(Call("obliterate", queue, ["1" if force else ""], texts))
        if outcome == "gone":
            self._known_queues.discard(queue)
            # A hint only: a queue without keys is not shown. (That it had schemas is left: who puts one tells so before.)
            await self._read(lambda _: self.clients.commands.srem(queues_key(self.namespace), queue))
            await self.tell_schedule_queue(queue, ended=True)
            if await self.run(self.census_call(queue)) is not None:
                # It has begun anew meanwhile, and whoever began it may have registered it before that.
                await self.register(queue)
                await self.tell_schedule_queue(queue)
            for some in batches(names, lambda _: 100):
                owners = await self.schedule_owners(some)
                await self.free_schedule_names(queue, dict(zip(some, owners, strict=True)))
            for name, words in listeners.items():
                for key in dict.fromkeys(word.id.partition(":")[2] for word in words):
                    await self.link_late(name, key)
                await self.relay(name)
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

    async def tell_operation(self, queue: str, its_id: str, *, ended: bool = False) -> None:
        """Writes the hint that an operation is under way, or strikes it out."""
        commands, key = self.clients.commands, operations_key(self.namespace)
        change = commands.srem if ended else commands.sadd
        await self._read(lambda _: change(key, f"{queue}:{its_id}"))

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

    async def reset(self, queue: str, type: str) -> bool:
        """Closes a type's breaker, and forgets what it counted; False when there was nothing to forget."""
        return await self.run(Call("reset", queue, [self._stamp(), type], lambda reply: int(reply) == 1))


def _page_text(page: OperationPage | None) -> str:
    return "" if page is None else page.text()


def _clean(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _page(reply: list[Any]) -> tuple[int, bool]:
    return int(reply[0]), int(reply[1]) == 1


def _after_page(reply: list[Any]) -> list[str]:
    return [item.decode() for item in reply[2:]]

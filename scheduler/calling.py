"""Calls of scripts: prepared, sent in one pipeline, their errors made decisions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, TypeVar

from redis import exceptions as redis_errors

from .clients import Clients, is_outage
from .errors import (
    Fault,
    Invalid,
    ItemRefused,
    Outrun,
    SchedulerError,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from .joining import SOON, Ask, Call, Joiner, own, repeated
from .keys import LAYOUT, Keys
from .nudges import Nudges
from .rights import check_layout, check_rights
from .scripts import Script, all_scripts, digest

T = TypeVar("T")

PIPELINE = 16
"""Calls of up to BATCH items in one pipeline."""

MOST_HEADS = 10_000
"""Queues and scripts whose keys are kept ready."""

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


class Caller:
    """Sends calls to a server that holds the scripts."""

    def __init__(
        self, clients: Clients, namespace: str = "scheduler", *, now: Callable[[], int] | None = None
    ) -> None:
        self.clients = clients
        self.namespace = namespace
        self._now = now
        self._bodies: dict[str, tuple[bytes, str]] = {}
        self._scripts: Mapping[str, Script] = all_scripts()
        self._loading = asyncio.Lock()
        self._connecting: asyncio.Task[None] | None = None
        self._heads: dict[tuple[str, str, bool], tuple[Any, ...]] = {}
        self._joiner = Joiner(self._send_joined)
        self.nudges = Nudges(clients, namespace)

    # -- connection -------------------------------------------------------------------------------------------

    async def connect(self, *, queue: str = "default") -> None:
        """Checks layout and rights (on the keys of `queue`), and loads the scripts."""
        try:
            await check_layout(self.clients.commands, self.namespace, LAYOUT)
            if not self.clients.fake:
                await check_rights(self.clients.commands, Keys(self.namespace, queue))
            await self.load()
        except Exception as error:
            if not is_outage(error):
                raise
            raise self._translated(error, "connect") from error

    async def _connected(self) -> None:
        """Connects at the first call. One does it for all that call meanwhile, and all are told what came of it."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self.connect())
            self._connecting.add_done_callback(self._connect_ended)
        connecting = self._connecting
        await asyncio.wait({connecting})
        if connecting.cancelled():
            raise StoreUnavailable(f"{self.clients.where}: closed")
        if (error := connecting.exception()) is not None:
            if isinstance(error, StoreUnavailable):
                error.unknown = False  # no call was sent yet, so none was carried out
            raise own(error)

    def _connect_ended(self, task: asyncio.Task[None]) -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # it counts as seen: who waited for it may have gone away

    async def load(self) -> None:
        """Loads every script into the server, with flags where the server knows them."""
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
        self._heads.clear()

    async def _load_again(self, lost: Mapping[str, Any]) -> None:
        # Of many who miss them at the same time, one loads.
        async with self._loading:
            if self._bodies is lost:
                await self.load()

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
        if self._connecting is not None:
            self._connecting.cancel()
        await self._joiner.close()
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
        if whole:
            body, _, keys = self.prepared(call)
            return ["EVAL", body, len(keys), *keys, *call.args]
        # What comes before the arguments is the same each time.
        what = call.script, call.queue, call.guarded
        head = self._heads.get(what)
        if head is None:
            _, sha, keys = self.prepared(call)
            if len(self._heads) >= MOST_HEADS:
                self._heads.clear()
            head = self._heads[what] = ("EVALSHA", sha, len(keys), *keys)
        return [*head, *call.args]

    async def run(self, call: Call[T]) -> T:
        """Sends one call and reads its reply."""
        [reply] = await self.run_all([call])
        if isinstance(reply, Exception):
            raise reply
        return reply  # type: ignore[no-any-return]

    async def run_sure(self, call: Call[T]) -> T:
        """The same for a call whose answer to a repetition is the same: it is sent once more when its reply is lost."""
        [reply] = await self.run_all_sure([call])
        if isinstance(reply, Exception):
            raise reply
        return reply  # type: ignore[no-any-return]

    async def run_acting(self, call: Call[list[str]], good: str) -> list[str]:
        """The same for a call that acts on jobs: after a lost reply, only what the repeated call did itself is known.

        What it finds otherwise may be the work of the first one, or have been so before: then the lost reply is raised.
        """
        began = monotonic()
        try:
            return await self.run(call)
        except StoreUnavailable as error:
            if not error.unknown or monotonic() - began > SOON:
                raise
            lost = error
        try:
            outcomes = await self.run(call)
        except SchedulerError:
            raise lost from None
        if any(outcome != good for outcome in outcomes):
            raise lost
        return outcomes

    async def run_all_sure(self, calls: Sequence[Call[Any]]) -> list[Any]:
        """The same for many, in one pipeline."""
        return await repeated(self.run_all, calls)

    async def ask(self, ask: Ask[T]) -> list[T]:
        """A reply for each item, from a call that is joined with what other tasks ask meanwhile."""
        return await self._joiner.ask(ask)

    async def _send_joined(self, calls: Sequence[Call[Any]]) -> list[Any]:
        return await self.run_all(calls)

    async def run_all(self, calls: Sequence[Call[Any]]) -> list[Any]:
        """Sends calls in one pipeline, in order. A call's own error stands in its place; a lost connection is raised.

        A server that has lost the scripts (restart, failover, SCRIPT FLUSH) gets them again, and what it did not
        run is sent once more.
        """
        if not self._bodies:
            await self._connected()
        bodies = self._bodies
        try:
            replies = await self._send(calls)
            missing = [n for n, reply in enumerate(replies) if isinstance(reply, redis_errors.NoScriptError)]
            if missing:
                await self._load_again(bodies)
                # With their text: a server that loses them once more in between cannot miss that.
                again = await self._send([calls[n] for n in missing], whole=True)
                for n, reply in zip(missing, again, strict=True):
                    replies[n] = reply
        except Exception as error:
            if not is_outage(error):
                raise
            raise self._translated(error, calls[0].script) from error
        return [
            self._translated(reply, call.script) if isinstance(reply, Exception) else call.read(reply)
            for call, reply in zip(calls, replies, strict=True)
        ]

    async def _send(self, calls: Sequence[Call[Any]], *, whole: bool = False) -> list[Any]:
        commands = [self._command(call, whole=whole) for call in calls]
        if self.clients.wire is not None:
            return await self.clients.wire.send(commands)
        pipe = self.clients.commands.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        return list(await pipe.execute(raise_on_error=False))

    def _translated(self, error: Exception, script: str) -> SchedulerError:
        text = str(error)
        where = f"{self.clients.where}: {script}: {text or type(error).__name__}"
        # What is refused while a connection is made arrives wrapped, as a lost connection.
        rights = redis_errors.AuthenticationError | redis_errors.NoPermissionError
        if isinstance(error, rights) or isinstance(error.__cause__, rights):
            if any(isinstance(found, redis_errors.AuthenticationError) for found in (error, error.__cause__)):
                where += " (its URL says who comes: redis://user:password@host, or redis://:password@host)"
            return StoreRefused(where)
        if isinstance(error, redis_errors.OutOfMemoryError) or text.startswith("OOM"):
            return StoreFull(where)
        if isinstance(error, PASSING) or text.startswith(RETRYABLE) or "non local key" in text:
            return StoreUnavailable(where)
        if isinstance(error, redis_errors.NoScriptError):
            return StoreUnavailable(where)
        if text.startswith("PAGE "):
            return Outrun(where)
        if text.startswith("INVALID time"):
            # Only the server's clock knows what lies too far ahead.
            return Invalid([Fault("/run_at", "at most 10 years from now")])
        if text.startswith("INVALID deadline"):
            return Invalid([Fault("/deadline", "at most 10 years from now")])
        if text.startswith("INVALID ") or "string exceeds maximum allowed size" in text:
            return ItemRefused(where)
        if isinstance(error, redis_errors.ResponseError):
            return StoreRefused(where)
        return StoreUnavailable(where, unknown=True)


def batches(
    items: Iterable[T], size: Callable[[T], int], most: int = BATCH, most_bytes: int = BATCH_BYTES
) -> Iterator[list[T]]:
    """Cuts items into lists of at most `most` and so many bytes; one item may be larger alone."""
    batch: list[T] = []
    total = 0
    for item in items:
        weight = size(item)
        if batch and (len(batch) == most or total + weight > most_bytes):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += weight
    if batch:
        yield batch

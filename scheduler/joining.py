"""Single calls of many tasks, sent together: one call of a script for all that ask the same, one pipeline for the rest."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Generic, TypeVar

from msgspec import Struct

from .errors import Invalid, StoreRefused, StoreUnavailable

T = TypeVar("T")

MOST_ITEMS = 500
"""Items that close a gathering. A script takes no more in one call."""

MOST_BYTES = 1024 * 1024
"""Bytes that close a gathering."""

PATIENCE = 0.02
"""Seconds that a gathering waits for the call under way to come back, unless its size closes it before.

The longer a call takes, the more join the next one; beyond this, a connection that is stuck holds up nobody else.
"""

SOON = 2.0
"""Seconds within which an unknown outcome is asked for again; after that its caller is told."""


class Call(Struct, Generic[T], frozen=True):
    """One prepared call of a script: it can be sent alone or with others in one pipeline."""

    script: str
    queue: str
    args: Sequence[Any]
    read: Callable[[Any], T]
    guarded: bool = False
    plain: Sequence[Any] = ()
    """A command that only reads, to be sent instead of a script; `script` says what it is about."""
    items: Sequence[Any] = ()
    """What it is about, where others may join it: then it is safe to repeat, and its reply is a list, one for each."""
    of: Callable[[Sequence[Any]], Call[T]] | None = None
    """Makes the same call of other items."""
    kin: Hashable = None
    """Calls of one script and queue join when this is equal."""
    weight: int = 0
    """Bytes of its items, roughly."""


Send = Callable[[Sequence[Call[Any]]], Awaitable[list[Any]]]


@dataclass(slots=True)
class Asked:
    """What one task asked, and where it waits for the replies."""

    calls: Sequence[Call[Any]]
    replies: asyncio.Future[list[Any]]


@dataclass(slots=True)
class Joint:
    """One call in the place of several. `parts`: whose they are, which of his calls, and where its items stand."""

    members: list[Call[Any]]
    parts: list[tuple[int, int, int]] = field(default_factory=list)
    items: list[Any] = field(default_factory=list)
    weight: int = 0

    def add(self, who: int, which: int, call: Call[Any]) -> None:
        self.parts.append((who, which, len(self.items)))
        self.items.extend(call.items)
        self.weight += call.weight

    def has_room(self, call: Call[Any]) -> bool:
        return len(self.items) + len(call.items) <= MOST_ITEMS and self.weight + call.weight <= MOST_BYTES

    def call(self) -> Call[Any]:
        first = self.members[0]
        return first if len(self.members) == 1 or first.of is None else first.of(self.items)


class Joiner:
    """Gathers what tasks ask while a call is under way, and sends it when that is back.

    With nothing under way there is nobody to wait for: then a call goes out at once. An item that is refused
    spoils no other: what a joint call was refused with is found out by sending each part alone.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._under_way = 0
        self._gathered: list[Asked] = []
        self._items = self._bytes = 0
        self._flights: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def ask(self, calls: Sequence[Call[Any]]) -> list[Any]:
        """The reply to each call; a call's own error stands in its place. A lost connection is raised."""
        if not self._under_way and not self._gathered:
            self._under_way += 1
            try:
                return await self._repeated(calls)
            finally:
                self._landed()
        loop = asyncio.get_running_loop()
        asked = Asked(calls, loop.create_future())
        if not self._gathered:
            self._timer = loop.call_later(PATIENCE, self._close)
        self._gathered.append(asked)
        for call in calls:
            self._items += len(call.items)
            self._bytes += call.weight
        if self._items >= MOST_ITEMS or self._bytes >= MOST_BYTES:
            self._close()
        return await asked.replies

    def _close(self) -> None:
        gathered, self._gathered = self._gathered, []
        self._items = self._bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if gathered:
            self._under_way += 1
            flight = asyncio.ensure_future(self._fly(gathered))
            self._flights.add(flight)
            flight.add_done_callback(self._flights.discard)

    async def _fly(self, gathered: list[Asked]) -> None:
        try:
            replies = await self._together(gathered)
        except BaseException as error:
            for asked in gathered:
                if not asked.replies.done():
                    given_up = StoreUnavailable("the call was given up", unknown=True)
                    # Each his own: raising one exception in many tasks makes its traceback grow with each.
                    asked.replies.set_exception(
                        copy.copy(error) if isinstance(error, Exception) else given_up
                    )
                    asked.replies.exception()  # it counts as seen: who asked may have gone away
            if not isinstance(error, Exception):
                raise
        else:
            for asked, its in zip(gathered, replies, strict=True):
                if not asked.replies.done():
                    asked.replies.set_result(its)
        finally:
            self._landed()

    def _landed(self) -> None:
        self._under_way -= 1
        if self._gathered:
            # At the end of this turn: who waits for what has just come back may ask for more in it.
            asyncio.get_running_loop().call_soon(self._close)

    async def _together(self, gathered: list[Asked]) -> list[list[Any]]:
        joints: list[Joint] = []
        open_ones: dict[Hashable, Joint] = {}
        for who, asked in enumerate(gathered):
            for which, call in enumerate(asked.calls):
                key = (call.script, call.queue, call.kin)
                joint = open_ones.get(key)
                if joint is None or call.of is None or not joint.has_room(call):
                    joint = Joint([])
                    joints.append(joint)
                    open_ones[key] = joint
                joint.members.append(call)
                joint.add(who, which, call)
        answers = await self._repeated([joint.call() for joint in joints])
        replies: list[list[Any]] = [[None] * len(asked.calls) for asked in gathered]
        alone: list[tuple[int, int, Call[Any]]] = []
        for joint, answer in zip(joints, answers, strict=True):
            for (who, which, start), call in zip(joint.parts, joint.members, strict=True):
                if len(joint.members) == 1:
                    replies[who][which] = answer
                elif isinstance(answer, Invalid | StoreRefused):
                    alone.append((who, which, call))
                elif isinstance(answer, Exception):
                    replies[who][which] = copy.copy(answer)
                else:
                    replies[who][which] = answer[start : start + len(call.items)]
        if alone:
            answers = await self._repeated([call for _, _, call in alone])
            for (who, which, _), answer in zip(alone, answers, strict=True):
                replies[who][which] = answer
        return replies

    async def _repeated(self, calls: Sequence[Call[Any]]) -> list[Any]:
        began = monotonic()
        try:
            return await self._send(calls)
        except StoreUnavailable as error:
            # A connection that broke just now: the same ids again find what was done, or do it.
            if not error.unknown or monotonic() - began > SOON:
                raise
        return await self._send(calls)

    async def close(self) -> None:
        """Waits for what is under way."""
        if self._flights:
            await asyncio.wait(self._flights)

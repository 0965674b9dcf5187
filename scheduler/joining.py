"""Single calls of many tasks, sent together: one call of a script for all that ask the same, one pipeline for the rest."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Awaitable, Callable, Hashable, Sequence
from time import monotonic
from typing import Any, Generic, TypeVar

from msgspec import Struct

from .errors import Invalid, SchedulerError, StoreRefused, StoreUnavailable

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

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


class Ask(Struct, Generic[T], frozen=True):
    """What one task wants of some items. It must be safe to repeat."""

    items: Sequence[Any]
    plan: Callable[[Sequence[Any]], Sequence[Call[Any]]]
    """The calls that ask this of any such items."""
    kin: Hashable
    """Asks with an equal one are the same but for their items, and go out as one."""
    weight: int
    """Bytes of the items, roughly."""
    read: Callable[[list[Any]], list[T]] = operator.itemgetter(0)
    """Makes a list, one for each item, of the calls' replies."""


Send = Callable[[Sequence[Call[Any]]], Awaitable[list[Any]]]


class Joint:
    """Asks that go out as one, and where each one's items begin."""

    def __init__(self, first: Ask[Any]) -> None:
        self.plan, self.read = first.plan, first.read
        self.members: list[tuple[Ask[Any], asyncio.Future[list[Any]]]] = []
        self.items: list[Any] = []
        self.weight = 0

    def add(self, ask: Ask[Any], reply: asyncio.Future[list[Any]]) -> None:
        self.members.append((ask, reply))
        self.items += ask.items
        self.weight += ask.weight

    def has_room(self, ask: Ask[Any]) -> bool:
        return len(self.items) + len(ask.items) <= MOST_ITEMS and self.weight + ask.weight <= MOST_BYTES

    def tell(self, replies: Sequence[Any]) -> list[Joint]:
        """Hands out the replies to the calls; answers what is to be asked again, each part alone."""
        error = next((reply for reply in replies if isinstance(reply, Exception)), None)
        if error is None:
            found = self.read(list(replies))
            start = 0
            for ask, reply in self.members:
                _succeed(reply, found[start : start + len(ask.items)])
                start += len(ask.items)
            return []
        if isinstance(error, Invalid | StoreRefused) and len(self.members) > 1:
            return [_alone(ask, reply) for ask, reply in self.members]
        self.fail(error)
        return []

    def fail(self, error: Exception) -> None:
        for _, reply in self.members:
            if not reply.done():
                reply.set_exception(own(error))
                reply.exception()  # it counts as seen: who asked may have gone away


async def repeated(send: Send, calls: Sequence[Call[Any]]) -> list[Any]:
    """Sends calls that are safe to repeat, and sends them once more when their replies are lost soon after.

    The same ids again find what was done, or do it. When the second try fails too, whatever its reason, it stays unknown
    whether the first one was carried out, and that is what is raised, or stands in the place of each call.
    """
    began = monotonic()
    try:
        return await send(calls)
    except StoreUnavailable as error:
        # A server that is silent for long is away: its caller is told so, and does not wait twice.
        if not error.unknown or monotonic() - began > SOON:
            raise
        lost = error
    try:
        replies = await send(calls)
    except SchedulerError:
        raise lost from None
    return [
        lost if isinstance(reply, SchedulerError) and not isinstance(reply, Invalid) else reply
        for reply in replies
    ]


def _alone(ask: Ask[Any], reply: asyncio.Future[list[Any]]) -> Joint:
    joint = Joint(ask)
    joint.add(ask, reply)
    return joint


def own(error: E) -> E:
    """One like it: raising a single exception in many tasks would make its traceback grow with each."""
    made = type(error).__new__(type(error), *error.args)
    if not isinstance(error, SchedulerError):
        made.__init__(*error.args)  # type: ignore[misc] # those of the language keep more than their dictionary
    made.__dict__.update(error.__dict__)
    made.__cause__ = error
    return made


def _succeed(reply: asyncio.Future[list[Any]], found: list[Any]) -> None:
    if not reply.done():
        reply.set_result(found)


class Joiner:
    """Gathers what tasks ask while a call is under way, and sends it when that is back.

    With nothing under way there is nobody to wait for: then a call goes out at once. An item that is refused
    spoils no other: what a joint call was refused with is found out by sending each part alone.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._under_way = 0
        self._gathered: list[Joint] = []
        self._open: dict[Hashable, Joint] = {}
        self._items = self._bytes = 0
        self._flights: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def ask(self, ask: Ask[T]) -> list[T]:
        """A reply for each item. Raises what the call was refused with, or StoreUnavailable when it was lost."""
        if not self._under_way and not self._gathered:
            self._under_way += 1
            try:
                replies = await self._repeated(ask.plan(ask.items))
            finally:
                self._landed()
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
            return ask.read(replies)
        loop = asyncio.get_running_loop()
        if not self._gathered:
            self._timer = loop.call_later(PATIENCE, self._close)
        waiting: asyncio.Future[list[T]] = loop.create_future()
        joint = self._open.get(ask.kin)
        if joint is None or not joint.has_room(ask):
            joint = self._open[ask.kin] = Joint(ask)
            self._gathered.append(joint)
        joint.add(ask, waiting)
        self._items += len(ask.items)
        self._bytes += ask.weight
        if self._items >= MOST_ITEMS or self._bytes >= MOST_BYTES:
            self._close()
        return await waiting

    def _close(self) -> None:
        gathered, self._gathered, self._open = self._gathered, [], {}
        self._items = self._bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if gathered:
            self._under_way += 1
            flight = asyncio.ensure_future(self._fly(gathered))
            self._flights.add(flight)
            flight.add_done_callback(self._flights.discard)

    async def _fly(self, joints: list[Joint]) -> None:
        try:
            while joints:
                joints = await self._sent(joints)
        except SchedulerError as error:
            for joint in joints:
                joint.fail(error)
        except Exception as error:  # noqa: BLE001 - each caller is told
            await self._one_by_one(joints, error)
        except BaseException:
            for joint in joints:
                joint.fail(StoreUnavailable("the call was given up", unknown=True))
            raise
        finally:
            self._landed()

    async def _sent(self, joints: Sequence[Joint]) -> list[Joint]:
        plans = [joint.plan(joint.items) for joint in joints]
        replies = await self._repeated([call for plan in plans for call in plan])
        again, start = list[Joint](), 0
        for joint, plan in zip(joints, plans, strict=True):
            again += joint.tell(replies[start : start + len(plan)])
            start += len(plan)
        return again

    async def _one_by_one(self, joints: Sequence[Joint], error: Exception) -> None:
        # One of them could not be made into a command, or its reply not be read: that is nobody else's trouble.
        alone = [_alone(*member) for joint in joints for member in joint.members if not member[1].done()]
        for each in alone:
            try:
                if len(alone) == 1:
                    raise error
                await self._sent([each])
            except Exception as its_own:  # noqa: BLE001 - its caller is told
                each.fail(its_own)

    def _landed(self) -> None:
        self._under_way -= 1
        if self._gathered:
            # At the end of this turn: who waits for what has just come back may ask for more in it.
            asyncio.get_running_loop().call_soon(self._close)

    async def _repeated(self, calls: Sequence[Call[Any]]) -> list[Any]:
        return await repeated(self._send, calls)

    async def close(self) -> None:
        """Waits for what is under way."""
        if self._flights:
            await asyncio.wait(self._flights)

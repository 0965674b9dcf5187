"""Many jobs as lines: taken from their source a window at a time, answered one by one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from typing import Any

from msgspec import Struct

from ..errors import SchedulerError

WINDOW = 2_000, 4 * 1024 * 1024
"""Jobs, and bytes of them, that are on their way at most: they are kept until they are answered."""

PATIENCE = 0.1
"""Seconds that what was taken waits for a source that has more, but not yet."""


class Line(Struct, frozen=True):
    """A job as it is sent: its number, its id, its bytes; or why it cannot be sent."""

    number: int
    id: str
    text: bytes = b""
    error: SchedulerError | None = None


class Outcome(Struct, frozen=True):
    """What became of one of many jobs. `error`: the Problem it was refused with, or why it was not even sent."""

    number: int
    """Its place among those that were given, from 0."""
    id: str
    duplicate: bool = False
    """The job stood before: the same request had been enqueued, or another one of its unique key."""
    error: SchedulerError | None = None

    @property
    def created(self) -> bool:
        return self.error is None and not self.duplicate


class Window:
    """The lines that go out together next."""

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._size = 0

    def add(self, line: Line) -> list[Line]:
        """Takes a line. Returns those that are to go out now: none, unless as many as may be on their way are there."""
        full = self.take() if self._lines and self._size + len(line.text) > WINDOW[1] else []
        self._lines.append(line)
        self._size += len(line.text)
        return self.take() if not full and len(self._lines) >= WINDOW[0] else full

    def take(self) -> list[Line]:
        """All that is there."""
        lines, self._lines, self._size = self._lines, [], 0
        return lines


async def windows(
    jobs: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]],
    made: Callable[[Mapping[str, Any]], Line],
) -> AsyncIterator[list[Line]]:
    """The jobs as lines, as many at a time as may be on their way; fewer where their source pauses."""
    window = Window()
    source = _paced(jobs) if isinstance(jobs, AsyncIterable) else _at_once(jobs)
    async with contextlib.aclosing(source):
        async for asked in source:
            if some := window.take() if asked is None else window.add(made(asked)):
                yield some
    if rest := window.take():
        yield rest


def plain_windows(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """The same of lines that are there, or are made in the thread that asks."""
    window = Window()
    for line in lines:
        if some := window.add(line):
            yield some
    if rest := window.take():
        yield rest


async def _at_once(jobs: Iterable[Mapping[str, Any]]) -> AsyncGenerator[Mapping[str, Any] | None, None]:
    for number, asked in enumerate(jobs, 1):
        yield asked
        if number % 500 == 0:
            await asyncio.sleep(0)  # others have their turn


async def _paced(jobs: AsyncIterable[Mapping[str, Any]]) -> AsyncGenerator[Mapping[str, Any] | None, None]:
    """The items of a source, and None where it pauses."""
    source = aiter(jobs)
    coming: asyncio.Future[Any] | None = None
    try:
        while True:
            coming = asyncio.ensure_future(_next(source))
            done, _ = await asyncio.wait({coming}, timeout=PATIENCE)
            if not done:
                yield None
            try:
                asked = await coming
            except StopAsyncIteration:
                return
            yield asked
    finally:
        if coming is not None and not coming.done():
            coming.cancel()
            with contextlib.suppress(BaseException):
                await coming


async def _next(source: AsyncIterator[Mapping[str, Any]]) -> Mapping[str, Any]:
    return await anext(source)

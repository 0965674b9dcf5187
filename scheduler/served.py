"""Which workers serve a type in a queue, from what they have signed: warnings for a job that nobody would take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from time import monotonic

from .errors import SchedulerError
from .outcomes import WorkerSeen
from .presence import Presence

OLDEST = 1.0
"""Seconds for which what was seen of the workers is good. In a process that enqueues all the time, one call in so long looks."""

DEAREST = 100
"""A look is not repeated before so many times as long as the last one took: with thousands of workers it takes its time."""

MOST_SAID = 10_000
"""Queues and types that are kept with what is said of them."""

NAMED = 5
"""Queues that a warning names."""

NEAR = 0.75
"""How much alike two names are (0 to 1) where one may be meant for the other."""


class Served:
    """What the workers of a namespace serve, as of at most `OLDEST` seconds ago."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence
        self._workers: Sequence[WorkerSeen] = ()
        self._said: dict[tuple[str, str], str | None] = {}
        self._good_until = 0.0

    async def warnings(self, asked: Iterable[tuple[str, str]]) -> list[str]:
        """A sentence for each queue and type that no worker serves, where another one may be meant. Never raises."""
        pairs = dict.fromkeys(asked)
        began = monotonic()
        if began >= self._good_until:
            # One look for all that ask meanwhile: `seen` is shared.
            try:
                self._workers = await self._presence.seen()
            except SchedulerError:
                self._workers = ()  # it is a hint: an enqueue never fails for it
            self._said = {}
            now = monotonic()
            self._good_until = now + max(OLDEST, DEAREST * (now - began))
        if not self._workers:
            return []
        return [text for queue, kind in pairs if (text := self._of(queue, kind)) is not None]

    def _of(self, queue: str, kind: str) -> str | None:
        # Found out once a look: to compare a name with a thousand others takes a millisecond.
        if (queue, kind) not in self._said:
            if len(self._said) >= MOST_SAID:
                self._said.clear()
            self._said[queue, kind] = unserved(self._workers, queue, kind)
        return self._said[queue, kind]


def unserved(workers: Sequence[WorkerSeen], queue: str, kind: str) -> str | None:
    """Why nobody would run a job of this type in this queue, and what may be meant; None where nothing is to be said.

    A worker that does not say its types may have any.
    """
    if any(queue in worker.queues and (not worker.types or kind in worker.types) for worker in workers):
        return None
    if where := elsewhere(workers, kind):
        return f"no worker of the queue {queue} has a handler for {kind}: {where}"
    known = sorted({known for worker in workers for known in worker.types} - {kind})
    near = get_close_matches(kind, known, 1, NEAR)
    if not near:
        return None
    return f"no worker has a handler for {kind}: the nearest type is {near[0]}, {_in(workers, near[0])}"


def elsewhere(workers: Sequence[WorkerSeen], kind: str) -> str | None:
    """Which queues have a worker with a handler for this type, as the rest of a sentence; None for none."""
    return f"it has one {_in(workers, kind)}" if any(kind in worker.types for worker in workers) else None


def _in(workers: Sequence[WorkerSeen], kind: str) -> str:
    queues = sorted({queue for worker in workers if kind in worker.types for queue in worker.queues})
    more = f" and {len(queues) - NAMED} more" if len(queues) > NAMED else ""
    return (
        f"in the queue {queues[0]}"
        if len(queues) == 1
        else f"in the queues {', '.join(queues[:NAMED])}{more}"
    )

"""Lists of jobs over queues and states, a page at a time and with bounded work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct

from .job import Job, State
from .joining import Call
from .keys import STATES
from .reading import key_at
from .store import Store

MOST_LOOKED_AT = 2_000
"""Jobs that are looked at for one page."""

MOST_SETS = 1_000
"""States of queues that are looked at for one page."""

MOST_BYTES = 16 * 1024 * 1024
"""Bytes of payloads, results and errors that close a page, however few its jobs are."""


class Filters(Struct, frozen=True, kw_only=True):
    """Which jobs a list shows; "" is all."""

    queue: str = ""
    state: str = ""
    type: str = ""
    group: str = ""
    tag: str = ""
    error: str = ""
    """A kind that one of its errors has."""
    kind: str = ""
    """The kind of its last error."""
    fingerprint: str = ""
    """Of dead jobs: those that died alike."""
    before_ms: int | None = None
    """Ended before then; for what has not ended: created before then."""

    @property
    def narrow(self) -> bool:
        """A page must look at more jobs than it shows."""
        return any((self.type, self.group, self.tag, self.error, self.kind, self.before_ms is not None))


class Place(Struct, frozen=True):
    """Where a list goes on: in this state of this queue, after the job that stands at `after`."""

    queue: str
    state: str
    after: str = ""


class Page(Struct, frozen=True):
    """The jobs of a page, and where the next one begins; None at the end."""

    jobs: Sequence[Job]
    rest: Place | None


async def page(
    store: Store,
    filters: Filters,
    *,
    at: Place | None = None,
    limit: int = 100,
    include: frozenset[str] = frozenset(),
) -> Page:
    """One page: queue by queue in the order of their names, within a queue state by state as STATES has them.

    It may be short, or empty, before the end.
    """
    sets = _from(await _sets(store, filters), at)
    found, rest = await _found(store, filters, sets, at, limit)
    jobs: list[Job] = []
    seen: set[str] = set()
    heavy = 0
    last: Place | None = None
    step = 16 if include else 100
    for start in range(0, len(found), step):
        some = found[start : start + step]
        for place, job in zip(some, await _inspected(store, some, include), strict=True):
            # What has moved since it was found is shown where it stands now, once, or not at all.
            moved = job is not None and bool(filters.state) and job.state != filters.state
            if job is None or moved or job.id in seen:
                last = place
                continue
            if len(jobs) == limit or heavy > MOST_BYTES:
                return Page(jobs, last)
            seen.add(job.id)
            jobs.append(job)
            heavy += _weight(job)
            last = place
    return Page(jobs, rest)


async def _sets(store: Store, filters: Filters) -> list[tuple[str, str]]:
    queues = [filters.queue] if filters.queue else await store.queues()
    return [(queue, state) for queue in queues for state in STATES if filters.state in {"", state}]


def _from(sets: list[tuple[str, str]], at: Place | None) -> list[tuple[str, str]]:
    """These from a place on. A queue that is gone by now has its place all the same."""
    if at is None:
        return sets
    order = {state: n for n, state in enumerate(STATES)}
    begin = at.queue, order[at.state]
    return [one for one in sets if (one[0], order[one[1]]) >= begin]


async def _found(
    store: Store, filters: Filters, sets: list[tuple[str, str]], at: Place | None, limit: int
) -> tuple[list[Place], Place | None]:
    """Where the next jobs stand, at least `limit` of them where there are so many, and where to go on after these."""
    sizes = await replies_of(store, [store.size_call(*one) for one in sets[:MOST_SETS]])
    planned: list[tuple[str, str]] = []
    calls: list[Call[tuple[list[str], str]]] = []
    looks, wanted, rest = MOST_LOOKED_AT, limit, None
    for (queue, state), size in zip(sets, sizes, strict=False):
        if not size:
            continue
        if looks == 0 or wanted == 0:
            rest = Place(queue, state)
            break
        asked = limit if filters.narrow else min(size, wanted)
        look = min(size, looks) if filters.narrow else asked
        after = at.after if at is not None and (at.queue, at.state) == (queue, state) else ""
        calls.append(
            store.list_call(
                queue, state, after=after, limit=asked, look=look,
                type=filters.type, group=filters.group, tag=filters.tag, error=filters.error,
                kind=filters.kind, fingerprint=filters.fingerprint if state == State.DEAD else "", before_ms=filters.before_ms,
            )
        )  # fmt: skip
        planned.append((queue, state))
        looks -= look
        # How many are left after a place, its size does not tell.
        wanted -= 0 if filters.narrow or filters.fingerprint or after else asked
    else:
        rest = Place(*sets[MOST_SETS]) if len(sets) > MOST_SETS else None
    found: list[Place] = []
    for (queue, state), (places, cursor) in zip(planned, await replies_of(store, calls), strict=True):
        found += [Place(queue, state, place) for place in places]
        if cursor:
            return found, Place(queue, state, cursor)
    return found, rest


async def _inspected(store: Store, places: Sequence[Place], include: frozenset[str]) -> Iterator[Job | None]:
    """What is known of the jobs that stand there."""
    by_queue: dict[str, list[str]] = {}
    for place in places:
        by_queue.setdefault(place.queue, []).append(key_at(place.after))
    with_payload, with_result = "payload" in include, "result" in include
    calls = [
        store.inspect_call(queue, keys, payload=with_payload, result=with_result)
        for queue, keys in by_queue.items()
    ]
    # Places come queue by queue, and so do these.
    return iter([job for jobs in await replies_of(store, calls) for job in jobs])


async def replies_of(store: Store, calls: Sequence[Call[Any]]) -> list[Any]:
    """The replies to calls in one pipeline. Raises the first error."""
    replies = await store.run_all(calls) if calls else []
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _weight(job: Job) -> int:
    errors = sum(len(error.message) + len(error.trace or "") for error in job.errors)
    return len(job.payload or b"") + len(job.result or b"") + len(job.progress or b"") + errors

"""How much goes through a queue and how long it takes, from what is kept anyway: nothing is counted for it."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from msgspec import Struct

from .job import Job, State
from .joining import Call
from .keys import Keys
from .listing import replies_of
from .outcomes import Census
from .reading import key_at
from .store import Store
from .times import rfc3339, seconds

WINDOWS: Mapping[str, int] = {"1m": 60_000, "5m": 300_000, "1h": 3_600_000}
"""How far back ended jobs are counted, ms."""

ENDED = (State.SUCCEEDED, State.CANCELLED, State.DEAD)
RAN = (State.SUCCEEDED, State.DEAD)

MOST_OF_QUEUE, MOST_IN_ALL = 500, 5_000
"""Jobs that are sampled, of one queue and in one call. A queue gets 10 at least."""

PERCENTILES = (50, 95, 99)


class Times(Struct, frozen=True):
    """What a sample of jobs says. Durations are ms, sorted."""

    jobs: int
    waits: Sequence[int]
    runs: Sequence[int]

    def document(self) -> dict[str, Any]:
        """Percentiles in seconds, None where there is nothing to say."""
        return {"wait": _percentiles(self.waits), "run": _percentiles(self.runs)}


class Stats(Struct, frozen=True):
    """A queue: what stands in it, what ended in each window, and a sample of what ended last."""

    queue: str
    census: Census
    ended: Mapping[str, Mapping[str, int]]
    since: int | None
    """When the oldest job of the sample ended, ms."""
    sample: Times
    types: Mapping[str, Times]

    def document(self) -> dict[str, Any]:
        """The queue as `GET /v1/stats` shows it."""
        census = self.census
        oldest = census.oldest_ready_at
        span = None if self.since is None else max(1_000, census.now - self.since) / 1000
        return {
            "queue": self.queue,
            "counts": census.counts,
            "oldest_wait": None if oldest is None else seconds(max(0, census.now - oldest)),
            "ended": self.ended,
            "rates": {
                name: round(sum(self.ended[name].values()) * 1000 / window, 3)
                for name, window in WINDOWS.items()
            },
            "sample": {
                "jobs": self.sample.jobs, "since": None if self.since is None else rfc3339(self.since),
            },
            **self.sample.document(),
            "types": [
                {
                    "type": name, "jobs": times.jobs, "rate": round(times.jobs / span, 3) if span else 0,
                    **times.document(),
                }
                for name, times in self.types.items()
            ],
        }  # fmt: skip


async def stats(store: Store, queues: Sequence[str]) -> list[Stats]:
    """These queues as they are now; one that does not exist is left out."""
    found = await replies_of(store, [store.census_call(queue) for queue in queues])
    standing = {queue: census for queue, census in zip(queues, found, strict=True) if census is not None}
    most = max(10, min(MOST_OF_QUEUE, MOST_IN_ALL // max(1, len(standing))))
    made = []
    for queue, census in standing.items():
        ended = await _ended(store, queue, census.now)
        sample = await _sample(store, queue, most)
        by_type: dict[str, list[Job]] = {}
        for job in sample:
            by_type.setdefault(job.type, []).append(job)
        since = min((job.finished_at for job in sample if job.finished_at is not None), default=None)
        types = {name: _times(by_type[name]) for name in sorted(by_type)}
        made.append(Stats(queue, census, ended, since, _times(sample), types))
    return made


async def mean_run(store: Store, queue: str, most: int = 100) -> float | None:
    """Seconds that the newest `most` jobs which ran and ended took, on an average; None when there is none."""
    runs = _times(await _sample(store, queue, most)).runs
    return sum(runs) / len(runs) / 1000 if runs else None


async def _ended(store: Store, queue: str, now: int) -> dict[str, dict[str, int]]:
    """How many jobs ended in each window, by state. What retention has let go since is not among them."""
    calls = []
    for window in WINDOWS.values():
        for state in ENDED:
            key, from_ms = Keys(store.namespace, queue).at(state), now - window
            # Where a job's own retention decides, the time of its end stands there as a negative number.
            for least, most in ((str(from_ms), "+inf"), ("-inf", f"-{from_ms}")):
                calls.append(Call("count", queue, (), int, plain=("ZCOUNT", key, least, most)))
    counts = iter(await replies_of(store, calls))
    return {window: {state.value: next(counts) + next(counts) for state in ENDED} for window in WINDOWS}


async def _sample(store: Store, queue: str, most: int) -> list[Job]:
    """The newest jobs that ran and ended, at most so many."""
    calls = [store.list_call(queue, state, limit=most, look=most) for state in RAN]
    places = [place for found, _ in await replies_of(store, calls) for place in found]
    newest = heapq.nlargest(most, places, key=lambda place: int(place.partition("|")[0]))
    keys = [key_at(place) for place in newest]
    found = await replies_of(store, [store.inspect_call(queue, keys)] if keys else [])
    return [job for jobs in found for job in jobs if job is not None and job.state in RAN]


def _times(jobs: Sequence[Job]) -> Times:
    waits, runs = [], []
    for job in jobs:
        if job.started_at is None or job.finished_at is None:
            continue
        runs.append(max(0, job.finished_at - job.started_at))
        # Of a job that ran before, only the last start is kept: how long it waited for it, nothing says.
        if job.attempt == 1 and not job.errors and not job.snoozes:
            waits.append(max(0, job.started_at - job.created_at))
    return Times(len(jobs), sorted(waits), sorted(runs))


def percentile(ordered: Sequence[int], percent: int) -> int:
    """The least of these that so many percent do not exceed. There is at least one."""
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


def _percentiles(ordered: Sequence[int]) -> dict[str, int | float] | None:
    return {f"p{p}": seconds(percentile(ordered, p)) for p in PERCENTILES} if ordered else None

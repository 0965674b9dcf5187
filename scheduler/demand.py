"""How much there is to do for workers of a queue: what an autoscaler reads."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from .outcomes import Work
from .presence import Presence
from .stats import mean_run
from .store import Store
from .times import seconds

REASONS = (
    "queue_paused",
    "type_paused",
    "group_paused",
    "rate_limited",
    "concurrency_limited",
    "breaker_open",
)
"""Why ready jobs are held, as documents have them: each is there, with 0 where it holds nothing."""

UNKNOWN_RUN = 1.0
"""Seconds that a job counts for where none has run yet."""


class Demand(Struct, frozen=True):
    """What may start now and what is held, how long it would take, and who could do it."""

    queue: str
    work: Work
    mean_run: float | None
    """Seconds that the jobs which ended last took on an average."""
    slots: int
    """Of all workers that serve the queue and say how many they have."""
    workers: int

    def document(self) -> dict[str, Any]:
        """As documents show it. What a scaler reads is always a number."""
        work = self.work
        each = UNKNOWN_RUN if self.mean_run is None else self.mean_run
        return {
            "queue": self.queue,
            "runnable": work.runnable,
            "oldest_runnable_wait": 0 if work.since is None else seconds(max(0, work.now - work.since)),
            "held": dict.fromkeys(REASONS, 0) | dict(work.held),
            "work_seconds": round(work.runnable * each, 3),
            "mean_run": None if self.mean_run is None else round(self.mean_run, 3),
            "slots": {"used": work.running, "total": self.slots},
            "workers": self.workers,
            "approximate": not work.exact,
        }


async def demand(store: Store, presence: Presence, queue: str) -> Demand:
    """What there is to do in this queue. Raises NotFound."""
    work = await store.demand(queue)
    workers = [worker for worker in await presence.seen() if queue in worker.queues]
    slots = sum(worker.concurrency or 0 for worker in workers)
    return Demand(queue, work, await mean_run(store, queue), slots, len(workers))

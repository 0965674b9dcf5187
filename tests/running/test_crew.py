"""How the slots of a worker are shared out, with fetchers that only count: any weights, lengths and backlogs."""

from __future__ import annotations

import heapq
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.fetcher import Crew, Line
from scheduler.settings import Settings

NOTHING: Any = None


class Sharing:
    """Lines that take their turns as real ones do, against queues that are numbers."""

    def __init__(self, seed: int, queues: int, concurrency: int) -> None:
        self.random = random.Random(seed)
        self.crew = Crew(NOTHING, Settings(), name="w", concurrency=concurrency, tell=NOTHING)
        self.fetchers = [Line(self.crew, f"q{n}", self.random.choice([1, 1, 2, 7])) for n in range(queues)]
        self.crew.fetchers.update({fetcher.queue: fetcher for fetcher in self.fetchers})
        self.backlog = {fetcher.queue: self.random.choice([0, 1, 5, 50, 1000]) for fetcher in self.fetchers}
        self.length = {fetcher.queue: self.random.choice([1, 1, 10, 200]) for fetcher in self.fetchers}
        self.ends: list[tuple[float, int, Line]] = []
        self.now, self.token = 0.0, 0
        for fetcher in self.fetchers:
            fetcher.changed.set()

    def settle(self) -> None:
        """Turns until nobody is woken any more."""
        for _ in range(1_000 * len(self.fetchers)):
            woken = [fetcher for fetcher in self.fetchers if fetcher.changed.is_set()]
            if not woken:
                return
            self.turn(self.random.choice(woken))
        raise AssertionError("they wake each other for ever")

    def turn(self, fetcher: Line) -> None:
        fetcher.changed.clear()
        if fetcher.idling:
            self.crew.busy(fetcher)
        fetcher.reserved = self.crew.reserve(fetcher)
        fetcher.starved = fetcher.reserved == 0
        if fetcher.starved:
            return
        got = min(fetcher.reserved, self.backlog[fetcher.queue])
        self.backlog[fetcher.queue] -= got
        fetcher.pace += got / fetcher.weight
        for _ in range(got):
            self.token += 1
            fetcher.running[self.token] = NOTHING
            ends = self.now + self.random.expovariate(1 / self.length[fetcher.queue])
            heapq.heappush(self.ends, (ends, self.token, fetcher))
        self.crew.give_back(fetcher.reserved - got)
        fetcher.reserved = 0
        if got:
            fetcher.changed.set()
        else:
            self.crew.idle(fetcher)

    def happen(self) -> None:
        """Jobs come, or the next one ends."""
        if self.random.random() < 0.2 or not self.ends:
            fetcher = self.random.choice(self.fetchers)
            self.backlog[fetcher.queue] += self.random.choice([1, 1, 20])
            if fetcher.idling:
                fetcher.changed.set()
        else:
            self.now, token, fetcher = heapq.heappop(self.ends)
            del fetcher.running[token]
            self.crew.give_back(1)
            fetcher.changed.set()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([2, 3, 5, 10]), st.sampled_from([1, 2, 3, 5, 10, 100]))
def test_no_slot_is_free_while_a_queue_has_work(seed, queues, concurrency):
    sharing = Sharing(seed, queues, concurrency)
    for _ in range(200):
        sharing.settle()
        assert concurrency == sharing.crew.free + sum(fetcher.used for fetcher in sharing.fetchers)
        waiting = [f.queue for f in sharing.fetchers if sharing.backlog[f.queue] and not f.idling]
        assert sharing.crew.free == 0 or not waiting, waiting
        sharing.happen()

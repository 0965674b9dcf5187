"""What a worker sends: one pipeline a turn, one heartbeat for all its leases."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from scheduler.errors import StoreUnavailable
from scheduler.joining import Call
from scheduler.outcomes import Extend
from scheduler.store import Store
from tests.running.conftest import QUEUE, Bench

pytestmark = pytest.mark.parametrize("backend", ("fake", "valkey"), indirect=True)


class Recorded(Store):
    """Keeps the turns that a worker takes: the scripts of each, and how many were under way at once."""

    turns: list[list[str]]
    away = False
    under_way = 0

    async def run_all(self, calls: Sequence[Call[Any]]) -> list[Any]:
        if self.away:
            raise StoreUnavailable("away", unknown=True)
        scripts = [call.script for call in calls]
        if not {"claim", "ack"} & set(scripts):
            return await super().run_all(calls)
        self.turns.append(scripts)
        self.under_way += 1
        assert self.under_way == 1
        try:
            return await super().run_all(calls)
        finally:
            self.under_way -= 1


async def recorded(bench: Bench) -> Recorded:
    store = Recorded(bench.store.clients)
    store.turns = []
    await store.connect()
    return store


async def test_a_turn_is_one_pipeline_of_what_is_finished_and_one_claim(bench: Bench):
    async def work(ctx) -> None: ...

    bench.handler("work", work)
    keys = [await bench.enqueue("work") for _ in range(60)]
    store = await recorded(bench)
    bench.work(concurrency=10, store=store)
    for key in keys:
        await bench.ended(key)

    assert all(turn.count("claim") <= 1 and turn[-1] in {"claim", "ack"} for turn in store.turns)
    # Six claims fill ten slots with sixty jobs; each claim but the first brings the outcomes of the one before.
    assert ["ack", "claim"] in store.turns
    assert len(store.turns) <= 12


async def test_a_freed_slot_is_filled_while_others_are_taken(bench: Bench):
    free = asyncio.Event()

    async def hold(ctx) -> None:
        await free.wait()

    async def work(ctx) -> None: ...

    bench.handler("hold", hold)
    bench.handler("work", work)
    worker = bench.work(concurrency=2)
    await bench.enqueue("hold")
    await bench.until(lambda: worker.fetchers[QUEUE].running)
    for _ in range(5):
        await bench.ended(await bench.enqueue("work"), 5)
    free.set()


async def test_one_heartbeat_extends_every_lease_in_one_call_on_one_connection(
    bench: Bench, redis: Any, monkeypatch
):
    if bench.store.clients.fake:
        pytest.skip("the in-memory server has no heartbeat thread")
    free = asyncio.Event()

    async def hold(ctx) -> None:
        await free.wait()

    bench.handler("hold", hold)
    worker = bench.work(concurrency=30)
    beats: list[int] = []
    real = bench.store.extend_call

    def counted(queue: str, batch: Sequence[Extend]) -> Any:
        beats.append(len(batch))
        return real(queue, batch)

    monkeypatch.setattr(bench.store, "extend_call", counted)
    for _ in range(30):
        await bench.enqueue("hold")
    await bench.until(lambda: len(worker.fetchers[QUEUE].running) == 30)
    beats.clear()
    await bench.until(lambda: len(beats) >= 3)

    assert {30} == set(beats)
    names = [client["name"] for client in await redis.client_list()]
    assert 1 == names.count("scheduler-heartbeat")
    free.set()


async def test_a_heartbeat_leaves_out_what_only_waits_to_be_told(bench: Bench):
    free = asyncio.Event()

    async def hold(ctx) -> None:
        await free.wait()

    bench.handler("hold", hold)
    store = await recorded(bench)
    worker = bench.work(store=store)
    key = await bench.enqueue("hold")
    fetcher = worker.fetchers[QUEUE]
    await bench.until(lambda: fetcher.running)
    [(queue, [held])] = worker.held()
    assert (QUEUE, key) == (queue, held.key)
    store.away = True
    free.set()
    await bench.until(lambda: fetcher.settled)

    assert [] == worker.held()
    # A late answer to a heartbeat from before says nothing about what is finished by now.
    worker.heard(QUEUE, [Extend(key, held.token, 1_500)], ["stale"])
    store.away = False
    assert 1 == (await bench.ended(key)).attempt

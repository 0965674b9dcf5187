"""A queue of a million jobs: every page of a list, and every count, costs what it costs with a few."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from scheduler.listing import Filters, Place, page
from scheduler.outcomes import Bury
from scheduler.store import Store
from tests.conftest import Servers
from tests.helpers import QUEUE, WORKER, enqueued, new, take

pytestmark = [pytest.mark.long, pytest.mark.alone, pytest.mark.timeout(400)]

WAITING, DEAD, STEP = 950_000, 50_000, 500
BOUND_MS = 25.0


@pytest.fixture(scope="module")
async def million(servers: Servers) -> AsyncIterator[Store]:
    """Jobs of ten types; one in a thousand is tagged, and a twentieth has died of one of ten thousand messages."""
    clients = await servers.open("valkey")
    await clients.commands.flushall()
    store = Store(clients)
    await store.connect()
    for start in range(0, DEAD, STEP):
        await enqueued(store, *(f"d{n:06}" for n in range(start, start + STEP)))
        jobs = await take(store, STEP)
        buried = [
            Bury(
                job.key,
                job.token,
                "Boom",
                f"{'abcdefghij'[n % 10]} {'klmnopqrst'[start // STEP % 10]} {start + n}",
            )
            for n, job in enumerate(jobs)
        ]
        await store.bury(QUEUE, buried, worker=WORKER)
    for start in range(0, WAITING, STEP):
        jobs_ = [
            new(f"w{n:06}", type=f"t{n % 10}", tags=["rare"] if n % 1_000 == 999 else [], priority=n % 5)
            for n in range(start, start + STEP)
        ]
        await store.enqueue(QUEUE, jobs_)
    yield store
    await clients.commands.flushall()
    await store.close()
    await clients.close()


async def server_ms(store: Store, ask: Any) -> float:
    """Milliseconds of the server's time that a call takes: the least of ten, since it is measured by the clock of a busy machine."""
    took: list[float] = []
    for _ in range(10):
        await store.clients.commands.config_resetstat()
        await ask()
        stats = await store.clients.commands.info("commandstats")
        # What a script calls is counted by itself and within the script.
        outer = ("cmdstat_evalsha", "cmdstat_zcard", "cmdstat_smembers")
        took.append(sum(stats[name]["usec"] for name in outer if name in stats) / 1000)
    return min(took)


FILTERS = [
    Filters(queue=QUEUE),
    Filters(queue=QUEUE, state="ready"),
    Filters(queue=QUEUE, state="dead"),
    Filters(queue=QUEUE, type="t7"),
    Filters(queue=QUEUE, tag="rare"),
    Filters(queue=QUEUE, tag="no-such-tag"),
    Filters(queue=QUEUE, state="dead", kind="Nothing"),
    Filters(queue=QUEUE, error="Boom"),
]


@pytest.mark.parametrize("filters", FILTERS, ids=str)
async def test_any_page_of_a_list_is_answered_in_time(million, filters):
    at: Place | None = None
    for turn in range(4):
        took = await server_ms(million, lambda at=at: page(million, filters, at=at, limit=100))
        assert took < BOUND_MS, (turn, took)
        at = (await page(million, filters, at=at, limit=1000)).rest
        if at is None:
            break


async def test_a_page_in_the_middle_costs_what_the_first_does(million):
    middle = f"{(await million.clients.commands.zrange('{scheduler:mail}:ready', 500_000, 500_000, withscores=True))[0][1]:.0f}"
    at = Place(QUEUE, "ready", f"{middle}|1|w500000")

    took = await server_ms(
        million, lambda: page(million, Filters(queue=QUEUE, state="ready"), at=at, limit=100)
    )

    assert took < BOUND_MS, took


async def test_counts_and_groups_are_answered_in_time(million):
    assert WAITING == (await million.census(QUEUE)).counts["ready"]
    [group, *_], _ = await million.groups(QUEUE)

    for ask in (
        lambda: million.census(QUEUE),
        lambda: million.groups(QUEUE, limit=100),
        lambda: page(million, Filters(queue=QUEUE, state="dead", fingerprint=group.fingerprint), limit=100),
    ):
        assert await server_ms(million, ask) < BOUND_MS

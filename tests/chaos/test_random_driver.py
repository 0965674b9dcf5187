"""Everything at once: random users, random trouble. Every job ends as it was answered, and every answer is true."""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from scheduler.clients import open_clients
from scheduler.store import Store
from tests.chaos.driver import Driver
from tests.chaos.world import FAKETIME, World

SECONDS = float(os.environ.get("CHAOS_SECONDS", "120"))
USERS = 4


@pytest.mark.exhaustive
@pytest.mark.alone
@pytest.mark.timeout(SECONDS + 400)
async def test_every_job_ends_as_it_was_answered_whatever_happens(tmp_path: Path) -> None:
    if FAKETIME is None and os.environ.get("CI"):
        pytest.fail("libfaketime is not installed: the server's clock cannot step")
    seed = int(os.environ.get("CHAOS_SEED") or secrets.randbits(32))
    chance = random.Random(seed)
    world, driver = World(tmp_path, chance), None
    await world.start()
    keeper = asyncio.create_task(world.keep_up())
    try:
        driver = Driver(world.ports, chance)
        await ready(driver)
        await go(world, driver)
        await driver.settle_down(90)
        found = [
            *world.faults,
            *driver.wrong,
            *told_twice(tmp_path),
            *cancelled_and_started(tmp_path, driver),
        ]
        found += await standing_faults(world)
    finally:
        keeper.cancel()
        if driver is not None:
            await driver.close()
        await world.stop()
    story = {
        "seed": seed,
        "happened": Counter(world.done),
        "answers": driver.answers,
        "jobs": len(driver.jobs),
    }
    told = "\n".join(found[:20])
    assert [] == found, f"{len(found)} faults\n{told}\n{json.dumps(story)}\n{world.done}\n{tmp_path}"
    assert len(driver.jobs) > 100, story


async def ready(driver: Driver) -> None:
    for queue in ("mail", "slow", "poison"):
        await driver.expect({200, 201}, "PUT", f"/v1/queues/{queue}", {})


async def go(world: World, driver: Driver) -> None:
    """Users and trouble side by side, until the time is over."""
    users = [asyncio.create_task(driver.run()) for _ in range(USERS)]
    trouble = asyncio.create_task(troubles(world, driver))
    try:
        await asyncio.wait([trouble, *users], timeout=SECONDS, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        driver.stopping.set()
    await asyncio.gather(trouble, *users)


async def troubles(world: World, driver: Driver) -> None:
    while not driver.stopping.is_set():
        await asyncio.sleep(world.chance.uniform(0.2, 3))
        await world.trouble()
        if world.chance.random() < 0.3:
            job = {
                "type": "async",
                "queue": "poison",
                "payload": {"n": 1},
                "delay": world.chance.choice([0, 30]),
            }
            await driver.call("POST", "/v1/jobs", job)
            await world.poison()


def lines(folder: Path) -> list[dict[str, Any]]:
    file = folder / "log"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def told_twice(folder: Path) -> list[str]:
    """Tokens that two attempts were given."""
    starts = Counter(
        (line["id"].split(":")[0], line["token"]) for line in lines(folder) if line["word"] == "start"
    )
    return [
        f"token {token} of {queue} was given {times} times"
        for (queue, token), times in starts.items()
        if times > 1
    ]


def cancelled_and_started(folder: Path, driver: Driver) -> list[str]:
    """Jobs that began after a cancel had been answered with `cancelled`."""
    found = []
    for line in lines(folder):
        job = driver.jobs.get(line["id"])
        if (
            job is not None
            and job.cancelled_at is not None
            and line["word"] == "start"
            and line["at"] > job.cancelled_at
        ):
            found.append(f"{line['id']} was cancelled at {job.cancelled_at} and started at {line['at']}")
    return found


async def standing_faults(world: World) -> list[str]:
    """What `verify` finds in the queues that nobody poisoned."""
    clients = await open_clients(world.server.url)
    try:
        store = Store(clients)
        await store.connect()
        return [str(fault) for queue in ("mail", "slow") async for fault in store.verify(queue)]
    finally:
        await clients.close()

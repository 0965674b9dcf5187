"""Long polls cost Redis nothing per caller."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from scheduler import events
from scheduler.doorbell import Doorbell
from tests.doors.conftest import Api, held, until


@pytest.fixture
def backend() -> str:
    return "valkey"


async def commands(api: Api) -> Counter[str]:
    """How often each command was called since the counts were reset, but for those of this test."""
    found: Any = await api.redis.info("commandstats")
    counts = Counter({name.removeprefix("cmdstat_"): stat["calls"] for name, stat in found.items()})
    for mine in ("info", "config|resetstat"):
        counts.pop(mine, None)
    return counts


async def connections(api: Api) -> tuple[int, int]:
    """How many wait on a connection of their own, and how many connections there are."""
    found = await api.redis.info("clients")
    return found["blocked_clients"], found["connected_clients"]


def waiting_of(api: Api) -> int:
    """How many callers the server holds."""
    return len(api.polls._limits)


async def gathered(api: Api, count: int) -> list[asyncio.Task[Any]]:
    """So many callers who wait, half of them for the end of a job and half for a job, on two queues."""
    tasks = []
    for n in range(count // 2):
        tasks.append(asyncio.create_task(api.get(f"/v1/jobs/mail:k{n % 10}?wait=50")))
        body = {"worker": f"w{n}", "wait": 50}
        tasks.append(asyncio.create_task(api.post(f"/v1/queues/empty{n % 2}/lease", body)))
    await until(lambda: _held(api, count))
    return tasks


async def _held(api: Api, count: int) -> bool:
    return waiting_of(api) == count


async def ended(api: Api, tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: _held(api, 0))


async def test_who_waits_costs_the_store_no_commands_and_no_connections(api, monkeypatch):
    monkeypatch.setattr(events, "LOOK_EVERY", 1.0)
    for queue in ("empty0", "empty1"):
        await api.put(f"/v1/queues/{queue}", {})
    for n in range(10):
        await api.enqueue(f"k{n}", delay="1h")
    spent, held_open = {}, {}
    for count in (10, 300):
        tasks = await gathered(api, count)
        await api.redis.config_resetstat()
        await asyncio.sleep(6.5)  # longer than the longest time that a claim says to wait
        spent[count], held_open[count] = await commands(api), await connections(api)
        assert not any(task.done() for task in tasks)
        await ended(api, tasks)

    # Each second one looks for all, by a command a state; in six seconds a claim or two look into each queue, and
    # may find its sweep due, which is a hundred commands within scripts.
    assert spent[300].total() < spent[10].total() + 290, spent
    assert spent[300]["evalsha"] < 20, spent
    assert (2, 2) == (held_open[10][0], held_open[300][0]), "one for all bells, one for all events"
    assert held_open[300][1] < 100, "the pools, which three hundred who come at once may fill"


async def test_what_no_event_told_is_found_by_looking(api, monkeypatch):
    monkeypatch.setattr(events, "LOOK_EVERY", 0.1)
    jobs = [await api.running(f"k{n}", retention=0 if n == 1 else None) for n in range(2)]
    await api.enqueue("k2", delay="1h")
    monkeypatch.setattr(events.Follower, "_tell", lambda *_: None)
    tasks = [asyncio.create_task(api.get(f"/v1/jobs/mail:k{n}?wait=50")) for n in range(3)]
    await until(lambda: _held(api, 3))
    await api.settle(ack=[held(job) for job in jobs])
    await api.call("DELETE", "/v1/jobs/mail:k2")

    async with asyncio.timeout(5):
        answers = await asyncio.gather(*tasks)
    assert [200, 200, 404] == [answer.status for answer in answers]
    assert ["succeeded"] * 2 == [answer.doc["state"] for answer in answers[:2]]


async def test_each_of_many_who_wait_is_answered(api):
    for n in range(10):
        await api.running(f"k{n}")
    tasks = await gathered(api, 100)
    for n in range(10):
        job = (await api.get(f"/v1/jobs/mail:k{n}")).doc
        await api.settle(ack=[held(job)])
    await api.post("/v1/jobs/bulk", [{"type": "t", "queue": f"empty{n % 2}"} for n in range(50)])

    async with asyncio.timeout(10):
        answers = [answer.doc for answer in await asyncio.gather(*tasks)]
    assert {"succeeded"} == {answer["state"] for answer in answers if "state" in answer}
    given = [job["id"] for answer in answers if "jobs" in answer for job in answer["jobs"]]
    assert (50, 50) == (len(given), len(set(given)))


async def test_when_the_one_who_looks_goes_away_another_looks(api):
    """Those who wait hang up one after the other, the timekeeper among them: the last one finds the job in time."""
    await api.put("/v1/queues/mail", {})
    tasks = [
        asyncio.create_task(api.post("/v1/queues/mail/lease", {"worker": f"w{n}", "wait": 50}))
        for n in range(4)
    ]
    await until(lambda: _held(api, 4))
    await api.enqueue("a", delay=1.5)
    for task in tasks[:3]:
        task.cancel()
        await asyncio.sleep(0.1)

    async with asyncio.timeout(3.5):
        answer = await tasks[3]
    assert ["mail:a"] == [job["id"] for job in answer.doc["jobs"]]


async def test_jobs_that_come_due_one_after_the_other_each_find_who_waits(api):
    await api.put("/v1/queues/mail", {})
    tasks = [
        asyncio.create_task(api.post("/v1/queues/mail/lease", {"worker": f"w{n}", "wait": 50}))
        for n in range(6)
    ]
    await until(lambda: _held(api, 6))
    for n in range(6):
        await api.enqueue(f"k{n}", delay=0.3 * (n + 1))

    async with asyncio.timeout(4):
        answers = await asyncio.gather(*tasks)
    assert {f"mail:k{n}" for n in range(6)} == {job["id"] for answer in answers for job in answer.doc["jobs"]}


async def test_a_lost_ring_is_found_by_one_look_and_the_others_are_woken(api):
    await api.put("/v1/queues/mail", {})
    tasks = [
        asyncio.create_task(api.post("/v1/queues/mail/lease", {"worker": f"w{n}", "wait": 50}))
        for n in range(3)
    ]
    await until(lambda: _held(api, 3))
    listener = api.doorbell._listener
    assert listener is not None
    listener.cancel()  # nobody hears the bell any more
    await api.post("/v1/jobs/bulk", [{"type": "t", "queue": "mail", "id": f"k{n}"} for n in range(3)])

    async with asyncio.timeout(8):
        answers = await asyncio.gather(*tasks)
    assert {f"mail:k{n}" for n in range(3)} == {job["id"] for answer in answers for job in answer.doc["jobs"]}


async def test_reminders_ring_for_him_who_asked_and_of_ordinary_ones_the_soonest_counts(api):
    bell: Doorbell = api.doorbell
    waiting = [asyncio.create_task(bell.wait("mail", 60, name)) for name in ("a", "b", "c")]
    await asyncio.sleep(0)
    for seconds, name in ((60, "a"), (50, "c"), (55, "a"), (0.01, "b"), (0.3, "gone")):
        bell.remind("mail", seconds, name)
    bell.remind("other", 0, "a")
    assert 4 == len(bell._reminders)

    done, pending = await asyncio.wait(waiting, timeout=2, return_when=asyncio.FIRST_COMPLETED)
    assert {waiting[1]} == done
    done, pending = await asyncio.wait(pending, timeout=2, return_when=asyncio.FIRST_COMPLETED)
    assert {waiting[0]} == done, "who is not there any more has another look for him"
    bell.remind("mail", 0, "c")
    assert [True] == [await task for task in pending]


async def test_when_the_time_is_over_progress_is_shown_as_it_is_now(api):
    job = await api.running()
    waiting = asyncio.create_task(api.get("/v1/jobs/mail:a?wait=0.5"))
    await until(lambda: _held(api, 1))
    await api.settle(extend=[{**held(job), "progress": 50}])

    assert 50 == (await waiting).doc["progress"]


async def test_who_begins_to_wait_while_the_process_stops_is_answered_at_once(api):
    await api.enqueue(delay=600)
    api.polls.stop()

    async with asyncio.timeout(10):
        job = await api.get("/v1/jobs/mail:a?wait=60")
        leased = await api.post("/v1/queues/mail/lease", {"worker": "w", "wait": 60})

    assert (200, "scheduled") == (job.status, job.doc["state"])
    assert {"jobs": []} == leased.doc


async def test_one_who_cannot_use_a_job_leaves_it_to_the_next_who_waits(api, monkeypatch):
    for module in ("doorbell", "api.lease"):
        monkeypatch.setattr(f"scheduler.{module}.TAKEN_OVER", 60.0)  # else they would look in turns anyway
    await api.enqueue("first")
    await api.lease()
    calls: list[asyncio.Task[list[Any]]] = []
    for types in (["render"], ["print"], ["print", "send"]):
        calls.append(asyncio.create_task(api.lease(wait=3, worker=f"w{len(calls)}", types=types)))
        await until(lambda: _held(api, len(calls)))
    await api.enqueue("a")

    assert [[], [], ["mail:a"]] == [[job["id"] for job in await call] for call in calls]

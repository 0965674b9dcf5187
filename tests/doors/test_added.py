"""What a job hands on over REST: results to those that waited for it, and jobs that it adds when it succeeds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from scheduler import Retry, Scheduler
from scheduler.client import Client
from scheduler.settings import Settings
from tests.doors.conftest import Api, held, on_valkey, until
from tests.doors.test_client import url


async def acked(api: Api, job: Any, **fields: Any) -> Any:
    [item] = await api.settle(job["queue"], ack=[{**held(job), **fields}])
    await api.store.relay(job["queue"])
    return item


async def state(api: Api, its_id: str) -> str:
    return str((await api.get(f"/v1/jobs/{its_id}")).doc["state"])


# -- results --------------------------------------------------------------------------------------------------


async def test_a_lease_brings_the_results_of_those_that_the_job_waited_for(api):
    await api.enqueue("a")
    await api.enqueue("b", after=["mail:a"], on_failure="continue")
    [first] = await api.lease()
    assert "parents" not in first
    await acked(api, first, result={"n": 1.0})

    [job] = await api.lease(request_id="1")

    assert ({"mail:a": {"n": 1.0}}, ["mail:a"], "continue") == tuple(
        job[name] for name in ("parents", "after", "on_failure")
    )
    assert [job] == await api.lease(request_id="1")


async def test_in_a_flow_they_have_their_names_and_one_without_a_result_is_null(api):
    jobs = [
        {"name": name, "type": "send", "after": after}
        for name, after in (("a", []), ("b", []), ("c", ["a", "b"]))
    ]
    await api.post("/v1/flows", {"queue": "mail", "id": "f", "jobs": jobs})
    for job in await api.lease(max=2):
        await acked(api, job, **({"result": "ok"} if job["flow_name"] == "a" else {}))

    [job] = await api.lease()

    assert {"a": "ok", "b": None} == job["parents"]


# -- jobs that are added --------------------------------------------------------------------------------------


async def test_what_is_added_comes_in_with_the_ack_and_is_waited_for(api):
    await api.enqueue("a")
    await api.enqueue("b", after=["mail:a"])
    [job] = await api.lease()

    item = await acked(
        api,
        job,
        add=[{"type": "send", "queue": "mail", "id": "x"}, {"type": "send", "queue": "other", "id": "y"}],
    )

    assert {"id": "mail:a", "ok": True, "state": "succeeded"} == item
    assert ["blocked", "ready", "ready"] == [await state(api, one) for one in ("mail:b", "mail:x", "other:y")]
    for queue in ("mail", "other"):
        [added] = await api.lease(queue)
        await acked(api, added, result=queue)
    [waited] = await api.lease()
    assert {"mail:a": None, "mail:x": "mail", "other:y": "other"} == waited["parents"]


async def test_an_ack_told_twice_adds_once(api):
    job = await api.running("a")

    for _ in range(2):
        assert (await acked(api, job, add=[{"type": "send", "queue": "mail"}]))["ok"]

    assert 1 == (await api.store.census("mail")).counts["ready"]


async def test_where_one_of_them_is_refused_nothing_is_told_and_the_lease_goes_on(api):
    job = await api.running("a")
    await api.enqueue("taken", delay=600)
    past, mine = "2020-01-01T00:00:00Z", {"type": "send", "queue": "mail"}

    taken = await acked(api, job, add=[mine, {**mine, "id": "taken"}])
    late = await acked(api, job, add=[mine, {**mine, "id": "late", "deadline": past}])
    await api.patch("/v1/queues/mail", {"max_length": 1})
    full = await acked(api, job, add=[mine])

    assert [("duplicate", "mail:taken"), ("validation", "mail:late"), ("queue_full", "room")] == [
        (item["code"], next(word for word in ("mail:taken", "mail:late", "room") if word in item["detail"]))
        for item in (taken, late, full)
    ]
    assert ("running", 0) == (await state(api, "mail:a"), (await api.store.census("mail")).counts["ready"])
    assert (await acked(api, job))["ok"]


@pytest.mark.parametrize(
    ("added", "path"),
    [
        ({}, "/ack/0/add/0/type"),
        ({"type": "send", "after": ["mail:a"]}, "/ack/0/add/0/after"),
        ({"type": "send", "unique": {}}, "/ack/0/add/0/unique"),
        ({"type": "send", "priority": 101}, "/ack/0/add/0/priority"),
        ({"type": "picky", "queue": "mail"}, "/ack/0/add/0/payload/to"),
    ],
)
async def test_what_cannot_be_added_is_refused_by_its_place(api, added, path):
    await api.put(
        "/v1/queues/mail/types/picky",
        {"schema": {"type": "object", "properties": {"to": {"type": "string"}}}},
    )
    job = await api.running("a")
    added = {**added, "payload": {"to": 7}} if added.get("type") == "picky" else added

    answer = await api.post("/v1/queues/mail/settle", {"worker": "w", "ack": [{**held(job), "add": [added]}]})

    assert (422, [path]) == (answer.status, answer.paths)
    assert "running" == await state(api, "mail:a")


@on_valkey
async def test_a_worker_over_http_waits_for_room_and_fails_what_can_never_be_added(api):
    app = Scheduler(Settings(lease_ms=1_500, watchdog_interval_ms=500, grace_ms=1_000))

    @app.job("spread", queue="mail", retry=Retry(max_attempts=1))
    async def spread(ctx: Any, key: str) -> None:
        ctx.add(app.new_job("later", {}, {"queue": "mail", "id": key}))

    await api.enqueue("taken", delay=600, type="later")
    await api.enqueue("one", type="spread", payload={"key": "fresh"})
    await api.enqueue("two", type="spread", payload={"key": "taken"})
    await api.patch("/v1/queues/mail", {"max_length": 1})
    async with Client(url(api)) as jobs:
        working = asyncio.create_task(jobs.work(app, queues=["mail"], concurrency=2))
        dead = await jobs.job("mail:two").ended(20)
        assert ("dead", "Duplicate") == (dead.state.value, dead.errors[0].kind)
        assert "running" == await state(api, "mail:one")
        await api.patch("/v1/queues/mail", {"max_length": None})
        assert "succeeded" == (await jobs.job("mail:one").ended(20)).state.value
        await until(lambda: _is_there(api, "mail:fresh"))
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def _is_there(api: Api, its_id: str) -> bool:
    return (await api.get(f"/v1/jobs/{its_id}")).status == 200

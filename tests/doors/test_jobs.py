"""GET /v1/jobs/{id} and its log, cancel, run, replay."""

import asyncio

import msgspec
import pytest

from scheduler.shown import LogShown
from tests.doors.conftest import held
from tests.helpers import on_the_fake

ERROR = {"kind": "Boom", "message": "no"}


async def test_a_job_that_ran_shows_how_it_went(api):
    job = await api.running(payload={"n": 1})
    seen = (await api.get("/v1/jobs/mail:a")).doc
    await api.settle(ack=[{**held(job), "result": {"ok": True}}])
    done = (await api.get("/v1/jobs/mail:a")).doc

    assert ("running", "w", job["token"], 1) == tuple(
        seen[n] for n in ("state", "worker", "token", "attempt")
    )
    assert seen == job, "what a worker is given is what everybody sees"
    assert ("succeeded", {"ok": True}, job["token"]) == tuple(done[n] for n in ("state", "result", "token"))
    assert done["created_at"] <= done["started_at"] <= done["finished_at"]


@on_the_fake
@pytest.mark.parametrize("path", ["", "/cancel", "/run", "/replay"])
async def test_a_job_that_is_not_there(api, path):
    await api.put("/v1/queues/mail", {})
    method = "POST" if path else "GET"
    for job in ("mail:nope", "nowhere:nope", "mail"):
        answer = await api.call(method, f"/v1/jobs/{job}{path}")
        assert (404, "not_found") == (answer.status, answer.code)
    assert ["mail"] == [queue["queue"] for queue in (await api.get("/v1/queues")).doc["items"]]


# -- wait ------------------------------------------------------------------------------------------------------


async def test_who_waits_is_answered_when_the_job_ends(api):
    job = await api.running()
    waiting = asyncio.create_task(api.get("/v1/jobs/mail:a?wait=30"))
    await asyncio.sleep(0.1)
    await api.settle(ack=[{**held(job), "result": 1}])

    async with asyncio.timeout(1):
        answer = await waiting

    assert (200, "succeeded", 1) == (answer.status, answer.doc["state"], answer.doc["result"])


async def test_many_wait_on_several_queues(api):
    for queue in ("mail", "reports"):
        await api.enqueue(queue=queue)
    waiting = [
        asyncio.create_task(api.get(f"/v1/jobs/{q}:a?wait=30"))
        for q in ("mail", "reports")
        for _ in range(20)
    ]
    await asyncio.sleep(0.1)
    for queue in ("reports", "mail"):
        await api.post(f"/v1/jobs/{queue}:a/cancel")

    async with asyncio.timeout(2):
        assert {"cancelled"} == {answer.doc["state"] for answer in await asyncio.gather(*waiting)}


async def test_a_job_that_has_ended_is_answered_at_once(api):
    await api.dead()
    async with asyncio.timeout(1):
        assert "dead" == (await api.get("/v1/jobs/mail:a?wait=60")).doc["state"]


async def test_when_the_time_is_over_the_job_is_shown_as_it_is(api):
    await api.enqueue()
    async with asyncio.timeout(1):
        assert "ready" == (await api.get("/v1/jobs/mail:a?wait=0.1")).doc["state"]
        assert "ready" == (await api.get("/v1/jobs/mail:a?wait=100ms")).doc["state"]
        assert 404 == (await api.get("/v1/jobs/mail:b?wait=60")).status


@on_the_fake
@pytest.mark.parametrize("wait", ["-1", "61", "60.001", "abc", "", "1e1", "NaN", "%200", "1y", "9" * 400])
async def test_a_wait_out_of_its_range_is_refused(api, wait):
    await api.enqueue()
    answer = await api.get(f"/v1/jobs/mail:a?wait={wait}")

    assert (422, "validation", ["/wait"]) == (answer.status, answer.code, answer.paths)


# -- log -------------------------------------------------------------------------------------------------------


async def test_a_log_is_read_oldest_first_by_pages(api):
    job = await api.running()
    said = [f"line {n} é" for n in range(25)]
    await api.settle(extend=[{**held(job), "log": said[:20]}])
    await api.settle(extend=[{**held(job), "log": said[20:]}])
    found, query = [], "?limit=10"
    while query:
        answer = await api.get(f"/v1/jobs/mail:a/log{query}")
        assert 200 == answer.status, answer.raw
        msgspec.convert(answer.doc, LogShown)
        found.append([item["line"] for item in answer.doc["items"]])
        cursor = answer.doc["next_cursor"]
        query = cursor and f"?limit=10&cursor={cursor}"

    assert [said[:10], said[10:20], said[20:]] == found
    whole = (await api.get("/v1/jobs/mail:a/log")).doc
    assert (said, None) == ([item["line"] for item in whole["items"]], whole["next_cursor"])
    assert [item["at"] for item in whole["items"]] == sorted(item["at"] for item in whole["items"])


async def test_the_newest_thousand_lines_are_there_after_the_end(api):
    job = await api.running()
    await api.settle(extend=[{**held(job), "log": [str(n) for n in range(900)]}])
    await api.settle(extend=[{**held(job), "log": [str(n) for n in range(900, 1200)]}], ack=[])
    await api.settle(ack=[held(job)])

    items = (await api.get("/v1/jobs/mail:a/log?limit=1000")).doc["items"]
    assert [str(n) for n in range(200, 1200)] == [item["line"] for item in items]


async def test_a_job_without_a_line_has_an_empty_log_and_one_that_is_not_there_none(api):
    await api.enqueue()

    assert {"items": [], "next_cursor": None} == (await api.get("/v1/jobs/mail:a/log")).doc
    for job in ("mail:nope", "nowhere:nope", "mail"):
        answer = await api.get(f"/v1/jobs/{job}/log")
        assert (404, "not_found") == (answer.status, answer.code)


@on_the_fake
async def test_a_cursor_of_another_log_is_refused(api):
    for key in ("a", "b"):
        job = await api.running(key)
        await api.settle(extend=[{**held(job), "log": ["1", "2"]}])
    cursor = (await api.get("/v1/jobs/mail:a/log?limit=1")).doc["next_cursor"]

    assert ["2"] == [i["line"] for i in (await api.get(f"/v1/jobs/mail:a/log?cursor={cursor}")).doc["items"]]
    for query in (f"cursor={cursor}", "cursor=x", "limit=0", "limit=1001", "follow=1"):
        answer = await api.get(f"/v1/jobs/mail:b/log?{query}")
        assert (422, "validation", [f"/{query.split('=')[0]}"]) == (answer.status, answer.code, answer.paths)


# -- cancel ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, {"delay": 60}])
async def test_a_waiting_job_is_cancelled(api, fields):
    await api.enqueue(**fields)
    answer = await api.post("/v1/jobs/mail:a/cancel")
    again = await api.post("/v1/jobs/mail:a/cancel", {})

    assert (200, "cancelled", "asked") == (answer.status, answer.doc["state"], answer.doc["reason"])
    assert (200, answer.doc) == (again.status, again.doc)
    assert [] == await api.lease()


async def test_a_running_job_is_asked_to_stop(api):
    job = await api.running()
    answer = await api.post("/v1/jobs/mail:a/cancel")
    [told] = await api.settle(extend=[held(job)])
    [stopped] = await api.settle(release=[held(job)])

    assert (202, "running") == (answer.status, answer.doc["state"])
    assert {"id": "mail:a", "ok": True, "state": "running", "cancel": True} == told
    assert {"id": "mail:a", "ok": True, "state": "cancelled"} == stopped


async def test_what_has_ended_cannot_be_cancelled(api):
    await api.dead("a")
    job = await api.running("b")
    await api.settle(ack=[held(job)])
    for key, state in (("a", "dead"), ("b", "succeeded")):
        before = (await api.get(f"/v1/jobs/mail:{key}")).doc
        answer = await api.post(f"/v1/jobs/mail:{key}/cancel")
        assert (409, "wrong_state", state) == (answer.status, answer.code, answer.doc["state"])
        assert before == (await api.get(f"/v1/jobs/mail:{key}")).doc


# -- run -------------------------------------------------------------------------------------------------------


async def test_a_scheduled_or_retrying_job_is_run_now(api):
    await api.enqueue("a", delay="1h")
    job = await api.running("b", retry={"immediate": 0, "base": "1h"})
    await api.settle(nack=[{**held(job), "error": ERROR}])
    for key in ("a", "b"):
        answer = await api.post(f"/v1/jobs/mail:{key}/run")
        assert (200, "ready", None) == (answer.status, answer.doc["state"], answer.doc["run_at"])
    assert ["mail:a", "mail:b"] == [job["id"] for job in await api.lease(max=2)]


async def test_a_job_in_any_other_state_cannot_be_run(api):
    await api.dead("dead")
    await api.running("running")
    await api.enqueue("ready")
    for state in ("dead", "running", "ready"):
        answer = await api.post(f"/v1/jobs/mail:{state}/run")
        assert (409, "wrong_state", state) == (answer.status, answer.code, answer.doc["state"])


# -- replay ----------------------------------------------------------------------------------------------------


async def test_a_dead_job_runs_again(api):
    await api.dead(payload=[1.0])
    answer = await api.post("/v1/jobs/mail:a/replay")

    assert (200, "ready", 0, [1.0]) == (
        answer.status, answer.doc["state"], answer.doc["attempt"], answer.doc["payload"],
    )  # fmt: skip
    assert ["Boom"] == [error["kind"] for error in answer.doc["errors"]]


async def test_a_dead_job_runs_again_with_another_payload_and_the_former_is_kept(api):
    await api.dead(payload=[1])
    answer = await api.post("/v1/jobs/mail:a/replay", b'{"payload": [1.50]}')

    assert b'"payload":[1.50]' in answer.raw
    assert [[1]] == [edit["payload"] for edit in answer.doc["edits"]]


async def test_what_is_not_dead_cannot_be_replayed(api):
    await api.enqueue("ready")
    await api.enqueue("scheduled", delay=60)
    for state in ("ready", "scheduled"):
        answer = await api.post(f"/v1/jobs/mail:{state}/replay", {"payload": 1})
        assert (409, "wrong_state", state) == (answer.status, answer.code, answer.doc["state"])


async def test_two_replays_at_once_make_one_ready_job(api):
    await api.dead()
    answers = await asyncio.gather(*(api.post("/v1/jobs/mail:a/replay") for _ in range(5)))

    assert [200, 409, 409, 409, 409] == sorted(answer.status for answer in answers)
    assert 1 == (await api.get("/v1/queues/mail")).doc["counts"]["ready"]


async def test_a_replay_with_a_payload_is_bounded_as_a_new_job_is(serving):
    api = await serving(max_payload=100)
    await api.dead()
    over = await api.post("/v1/jobs/mail:a/replay", {"payload": "x" * 99})
    unknown = await api.post("/v1/jobs/mail:a/replay", {"queue": "other"})

    assert (413, "too_large") == (over.status, over.code)
    assert (422, ["/queue"]) == (unknown.status, unknown.paths)
    assert "dead" == (await api.get("/v1/jobs/mail:a")).doc["state"]

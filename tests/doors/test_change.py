"""PATCH and DELETE /v1/jobs/{id}, and POST …/copy."""

import asyncio

import pytest

from tests.doors.conftest import held, on_valkey
from tests.doors.test_lists import one_in_each_state
from tests.helpers import keys, on_the_fake

JOB = "/v1/jobs/mail:a"
ENDED = ("succeeded", "cancelled", "dead")


@on_the_fake
@pytest.mark.parametrize(("method", "path"), [("PATCH", ""), ("DELETE", ""), ("POST", "/copy")])
async def test_a_job_that_is_not_there(api, method, path):
    await api.put("/v1/queues/mail", {})
    for job in ("mail:nope", "nowhere:nope", "mail"):
        answer = await api.call(method, f"/v1/jobs/{job}{path}", None if method == "DELETE" else {})
        assert (404, "not_found") == (answer.status, answer.code)
    assert ["mail"] == [queue["queue"] for queue in (await api.get("/v1/queues")).doc["items"]]


# -- PATCH -----------------------------------------------------------------------------------------------------


async def test_a_waiting_job_is_changed(api):
    made = await api.enqueue(payload=[1], tags=["x"], group="g")
    answer = await api.patch(JOB, b'{"payload": [1.50], "priority": 3.0, "tags": ["y", "z"]}')

    assert 200 == answer.status, answer.raw
    assert b'"payload":[1.50]' in answer.raw
    changed = {"payload": [1.5], "priority": 3, "tags": ["y", "z"], "edits": answer.doc["edits"]}
    assert {**made, **changed} == answer.doc
    assert [[1]] == [edit["payload"] for edit in answer.doc["edits"]]
    assert answer.doc == (await api.get(JOB)).doc


async def test_what_is_left_out_stays(api):
    made = await api.enqueue(payload=[1], tags=["x"], priority=5)

    assert made == (await api.patch(JOB, {})).doc


async def test_a_job_is_put_off_and_brought_forward(api):
    await api.enqueue()
    later = await api.patch(JOB, {"run_at": "2031-01-01T00:00:00+01:00"})
    assert ("scheduled", "2030-12-31T23:00:00.000Z") == (later.doc["state"], later.doc["run_at"])
    assert [] == await api.lease()

    now = await api.patch(JOB, {"run_at": "2020-01-01T00:00:00Z"})
    assert ("ready", None) == (now.doc["state"], now.doc["run_at"])
    assert ["mail:a"] == [job["id"] for job in await api.lease()]


async def test_null_lifts_what_was_set_and_is_a_payload(api):
    await api.enqueue(payload=1, priority=7, tags=["x"], delay="1h")
    answer = await api.patch(JOB, {"payload": None, "priority": None, "tags": None, "run_at": None})

    assert (None, 0, [], "ready", None) == tuple(
        answer.doc[n] for n in ("payload", "priority", "tags", "state", "run_at")
    )


async def test_priority_changes_the_order(api):
    for key in ("a", "b"):
        await api.enqueue(key)
    await api.patch("/v1/jobs/mail:b", {"priority": 1})

    assert ["mail:b", "mail:a"] == [job["id"] for job in await api.lease(max=2)]


async def test_a_retrying_job_waits_for_another_time(api):
    job = await api.running(retry={"immediate": 0, "base": "1h"})
    await api.settle(nack=[{**held(job), "error": {"kind": "Boom", "message": "no"}}])
    answer = await api.patch(JOB, {"run_at": "2031-01-01T00:00:00Z"})
    assert ("retrying", "2031-01-01T00:00:00.000Z") == (answer.doc["state"], answer.doc["run_at"])

    assert "ready" == (await api.patch(JOB, {"run_at": None})).doc["state"]


async def test_a_job_that_runs_or_has_ended_cannot_be_changed(api):
    await one_in_each_state(api)
    for state in ("running", *ENDED):
        before = (await api.get(f"/v1/jobs/mail:{state}")).doc
        for changes in ({"payload": 1}, {"priority": 1}, {"run_at": None}, {"tags": ["x"]}, {}):
            answer = await api.patch(f"/v1/jobs/mail:{state}", changes)
            assert (409, "wrong_state", state) == (answer.status, answer.code, answer.doc["state"]), changes
        assert before == (await api.get(f"/v1/jobs/mail:{state}")).doc


async def test_a_blocked_job_has_no_time_of_its_own(api):
    await api.enqueue(hold=True)
    refused = await api.patch(JOB, {"run_at": "2031-01-01T00:00:00Z", "priority": 2})
    taken = await api.patch(JOB, {"priority": 3})

    assert (409, "wrong_state", "blocked") == (refused.status, refused.code, refused.doc["state"])
    assert (200, "blocked", 3) == (taken.status, taken.doc["state"], taken.doc["priority"])


@on_the_fake
@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({"priority": 101}, ["/priority"]), ({"priority": 1.5}, ["/priority"]), ({"priority": "1"}, ["/priority"]),
        ({"tags": ["a b"]}, ["/tags/0"]), ({"tags": "x"}, ["/tags"]), ({"tags": ["x"] * 33}, ["/tags"]),
        ({"run_at": "2031-01-01T00:00:00"}, ["/run_at"]), ({"run_at": "2099-01-01T00:00:00Z"}, ["/run_at"]),
        ({"run_at": 5}, ["/run_at"]), ({"delay": 5}, ["/delay"]), ({"queue": "x"}, ["/queue"]), ({"type": "x"}, ["/type"]),
        ({"priority": 500, "run_at": "soon"}, ["/run_at", "/priority"]),
    ],
)  # fmt: skip
async def test_a_change_that_cannot_be_is_refused_and_changes_nothing(api, fields, paths):
    made = await api.enqueue(payload=1)
    answer = await api.patch(JOB, {"payload": 2, **fields})

    assert (422, "validation", paths) == (answer.status, answer.code, answer.paths)
    assert made == (await api.get(JOB)).doc


async def test_a_payload_that_is_too_large_is_refused(serving):
    api = await serving(max_payload=100)
    await api.enqueue()
    for call in (api.patch(JOB, {"payload": "x" * 99}), api.post(f"{JOB}/copy", {"payload": "x" * 99})):
        answer = await call
        assert (413, "too_large") == (answer.status, answer.code)


@on_valkey
async def test_a_full_server_takes_no_payload_and_deletes(api):
    await api.enqueue(payload="x" * 100_000)
    await api.redis.config_set("maxmemory", (await api.redis.info("memory"))["used_memory"])
    try:
        changed = await api.patch(JOB, {"payload": "x" * 900_000})
        copied = await api.post(f"{JOB}/copy")
        deleted = await api.call("DELETE", JOB)
    finally:
        await api.redis.config_set("maxmemory", 0)

    assert [(507, "store_full")] * 2 == [(a.status, a.code) for a in (changed, copied)]
    assert 204 == deleted.status


async def test_changes_at_once_lose_nothing(api):
    await api.enqueue(payload=0)
    answers = await asyncio.gather(
        *(api.patch(JOB, {"tags": [f"t{n}"]}) for n in range(5)),
        *(api.patch(JOB, {"priority": n}) for n in range(5)),
    )

    assert {200} == {answer.status for answer in answers}
    job = (await api.get(JOB)).doc
    assert (1, True) == (len(job["tags"]), job["priority"] in range(5))


# -- DELETE ----------------------------------------------------------------------------------------------------


async def test_a_job_in_any_state_but_running_is_deleted_and_its_id_is_free(api):
    await one_in_each_state(api)
    for state in ("scheduled", "ready", "retrying", *ENDED):
        answer = await api.call("DELETE", f"/v1/jobs/mail:{state}")
        assert (204, b"") == (answer.status, answer.raw)
        assert 404 == (await api.get(f"/v1/jobs/mail:{state}")).status
        assert 404 == (await api.call("DELETE", f"/v1/jobs/mail:{state}")).status
    assert "ready" == (await api.enqueue("dead", payload="another"))["state"]


async def test_a_running_job_is_not_deleted(api):
    job = await api.running()
    answer = await api.call("DELETE", JOB)

    assert (409, "wrong_state", "running") == (answer.status, answer.code, answer.doc["state"])
    assert [True] == [item["ok"] for item in await api.settle(ack=[held(job)])]


# -- copy ------------------------------------------------------------------------------------------------------


async def test_a_copy_is_a_new_job_like_it(api):
    fields = {
        "priority": 3, "group": "g", "tags": ["x"], "timeout": 90, "retry": {"max_attempts": 7, "base": "1m"}, "retention": "2d",
        "cost": 7,
    }  # fmt: skip
    made = await api.enqueue(payload={"n": 1.0}, delay="1h", **fields)
    answer = await api.post(f"{JOB}/copy")
    again = await api.post(f"{JOB}/copy", {})

    assert (201, f"/v1/jobs/{answer.doc['id']}") == (answer.status, answer.headers["Location"])
    assert answer.doc == (await api.get(answer.headers["Location"])).doc
    its_own = {name: answer.doc[name] for name in ("id", "created_at")}
    assert {**made, **its_own, "state": "ready", "run_at": None, "copied_from": "mail:a"} == answer.doc
    assert 3 == len({made["id"], answer.doc["id"], again.doc["id"]})
    [header] = [await api.redis.hget(keys().at("jobs"), answer.doc["id"].split(":")[1])]
    assert b"|r172800000 g:g c:7|" in header.split(b"\n")[0]


async def test_a_copy_may_differ_in_every_field(api):
    await api.enqueue(payload=1, priority=3, group="g", tags=["x"], timeout=90, retry={"max_attempts": 7})
    fields = {
        "type": "other", "queue": "reports", "payload": [2], "id": "b", "priority": -1, "delay": 60, "group": "h",
        "tags": ["y"], "timeout": 30, "retry": {"max_attempts": 2}, "retention": 0, "cost": 2,
    }  # fmt: skip
    job = (await api.post(f"{JOB}/copy", fields)).doc

    assert ("reports:b", "reports", "other", [2], -1, "scheduled", "h", ["y"], 30, 2, "mail:a") == tuple(
        job[n] for n in ("id", "queue", "type", "payload", "priority", "state", "group", "tags", "timeout", "max_attempts", "copied_from")
    )  # fmt: skip
    lifted = await api.post(
        f"{JOB}/copy",
        {"priority": None, "group": None, "tags": None, "timeout": None, "retry": None, "payload": None},
    )
    assert (0, None, [], 3600, 20, None) == tuple(
        lifted.doc[n] for n in ("priority", "group", "tags", "timeout", "max_attempts", "payload")
    )


async def test_a_job_in_any_state_is_copied(api):
    await one_in_each_state(api)
    for state in ("scheduled", "ready", "running", "retrying", *ENDED):
        answer = await api.post(f"/v1/jobs/mail:{state}/copy", {"queue": "again"})
        assert (201, "ready", 0, []) == (
            answer.status, answer.doc["state"], answer.doc["attempt"], answer.doc["errors"],
        ), state  # fmt: skip


async def test_a_copy_with_an_id_is_safe_to_repeat(api):
    await api.enqueue(payload=1)
    first = await api.post(f"{JOB}/copy", {"id": "b"})
    again = await api.post(f"{JOB}/copy", {"id": "mail:b"})
    other = await api.post(f"{JOB}/copy", {"id": "b", "payload": 2})

    assert (201, 200, {**first.doc, "duplicate": True}) == (first.status, again.status, again.doc)
    assert (409, "duplicate") == (other.status, other.code)
    assert (409, "duplicate") == ((answer := await api.post(f"{JOB}/copy", {"id": "a"})).status, answer.code)


async def test_what_is_gone_but_known_is_copied_with_a_payload_of_its_own(api):
    job = await api.running(retention=0, payload=[1])
    await api.settle(ack=[held(job)])
    without = await api.post(f"{JOB}/copy", {"id": "b"})
    with_one = await api.post(f"{JOB}/copy", {"id": "b", "payload": [2], "retention": None})

    assert (409, "wrong_state", "succeeded") == (without.status, without.code, without.doc["state"])
    assert (201, [2], "send") == (with_one.status, with_one.doc["payload"], with_one.doc["type"])


@on_the_fake
@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({"type": None}, ["/type"]), ({"queue": "no name"}, ["/queue"]), ({"id": "other:b"}, ["/id"]), ({"id": ""}, ["/id"]),
        ({"priority": 101}, ["/priority"]), ({"delay": 1, "run_at": "2031-01-01T00:00:00Z"}, ["/run_at"]),
        ({"retry": {"base": "soon"}}, ["/retry/base"]), ({"timeout": 0}, ["/timeout"]), ({"after": ["x"]}, ["/after/0"]),
        ({"run_at": "2099-01-01T00:00:00Z"}, ["/run_at"]),
    ],
)  # fmt: skip
async def test_a_copy_that_cannot_be_is_refused(api, fields, paths):
    await api.enqueue()
    answer = await api.post(f"{JOB}/copy", fields)

    assert (422, "validation", paths) == (answer.status, answer.code, answer.paths)
    assert 1 == (await api.get("/v1/queues/mail")).doc["counts"]["ready"]

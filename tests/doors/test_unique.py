"""`unique` at every door: one job of a key at a time, and what the next request is answered."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from scheduler.shown import JobShown
from tests.doors.conftest import JSON, until

KEY = {"key": "k"}


async def post(api: Any, queue: str = "mail", **fields: Any) -> Any:
    return await api.post("/v1/jobs", {"type": "send", "queue": queue, **fields})


async def test_a_second_one_is_answered_by_the_first(api):
    first = await post(api, unique=KEY)
    second = await post(api, unique=KEY, payload={"other": 1})

    assert (201, {"key": "k"}) == (first.status, first.doc["unique"])
    assert (200, {**first.doc, "duplicate": True}) == (second.status, second.doc)
    assert "Location" not in second.headers
    assert first.doc == (await api.get(f"/v1/jobs/{first.doc['id']}")).doc
    msgspec.convert(second.doc, JobShown)


async def test_without_a_key_it_is_type_and_payload(api):
    first = await post(api, unique={}, payload={"a": 1, "b": 2})

    assert 200 == (await post(api, unique={}, payload={"b": 2, "a": 1})).status
    assert 201 == (await post(api, unique={}, payload={"b": 2, "a": 2})).status
    assert 32 == len(first.doc["unique"]["key"])


async def test_one_that_is_to_be_refused_is_and_told_of_the_job_that_stands(api):
    first = await post(api, unique=KEY)
    refused = await post(api, unique={**KEY, "on_conflict": "reject"})

    assert (409, "duplicate", first.doc["id"]) == (refused.status, refused.code, refused.doc["id"])


async def test_replace_and_debounce_answer_the_job_as_it_is_now(api):
    first = await post(api, unique=KEY, delay=600, payload=1)
    replaced = await post(api, unique={**KEY, "on_conflict": "replace"}, payload=2, priority=5, delay=700)
    pushed = await post(api, unique={**KEY, "on_conflict": "debounce"}, payload=3, delay=900)

    for answer, payload, priority in ((replaced, 2, 5), (pushed, 3, 0)):
        doc = answer.doc
        assert (200, True, first.doc["id"]) == (answer.status, doc["duplicate"], doc["id"])
        assert (payload, priority, "scheduled") == (doc["payload"], doc["priority"], doc["state"])
    assert first.doc["run_at"] < replaced.doc["run_at"] < pushed.doc["run_at"]
    assert [1, 2] == [edit["payload"] for edit in pushed.doc["edits"]]


async def test_for_a_time_the_key_is_held_and_then_free(api):
    fields: dict[str, Any] = {"unique": {**KEY, "for": "300ms"}}
    first = await post(api, **fields)
    [job] = await api.lease()
    await api.settle(ack=[{"id": job["id"], "token": job["token"]}])

    async def free() -> bool:
        return bool((await post(api, **fields)).status == 201)

    answer = await post(api, **fields)
    assert (200, first.doc["id"], "succeeded") == (answer.status, answer.doc["id"], answer.doc["state"])
    await until(free)


async def test_a_job_that_was_deleted_frees_its_key(api):
    first = await post(api, unique={**KEY, "for": "1h"})
    assert 204 == (await api.call("DELETE", f"/v1/jobs/{first.doc['id']}")).status

    assert 201 == (await post(api, unique=KEY)).status


@pytest.mark.parametrize(
    ("unique", "path"),
    [
        ({"key": ""}, "/unique/key"),
        ({"key": "a b"}, "/unique/key"),
        ({"key": "k" * 129}, "/unique/key"),
        ({"key": 5}, "/unique/key"),
        ({"for": 0}, "/unique/for"),
        ({"for": -1}, "/unique/for"),
        ({"for": "11y"}, "/unique/for"),
        ({"for": "3653d"}, "/unique/for"),
        ({"until": "never"}, "/unique/until"),
        ({"on_conflict": "ignore"}, "/unique/on_conflict"),
        ({"until": "end", "extra": 1}, "/unique/extra"),
        (True, "/unique"),
    ],
)
async def test_what_is_wrong_with_it_is_named(api, unique, path):
    for answer in (
        await post(api, unique=unique),
        await api.post("/v1/jobs/bulk", [{"type": "send", "unique": unique}]),
    ):
        problem = answer.doc["items"][0] if answer.status == 200 else answer.doc
        assert (422, [path]) == (problem["status"], [fault["path"] for fault in problem["errors"]])


async def test_in_a_bulk_each_item_is_answered_for_itself(api):
    jobs: list[dict[str, Any]] = [
        {"type": "send", "queue": "mail", "payload": n, "unique": {**KEY, "on_conflict": conflict}}
        for n, conflict in enumerate(["return", "return", "replace", "reject", "debounce"])
    ]
    items = (await api.post("/v1/jobs/bulk", jobs)).doc["items"]

    its_id = items[0]["id"]
    assert [201, 200, 200, 409, 200] == [item["status"] for item in items]
    assert {its_id} == {item["id"] for item in items}
    assert 4 == (await api.get(f"/v1/jobs/{its_id}")).doc["payload"]


async def test_a_line_of_a_stream_too(api):
    line = b'{"type":"send","queue":"mail","unique":{"key":"k"}}\n'
    answer = await api.call(
        "POST", "/v1/jobs/bulk", line * 3, **JSON | {"Content_Type": "application/x-ndjson"}
    )

    assert b'{"done":true,"created":1,"duplicates":2,"failed":0}' == answer.raw.splitlines()[-1]


async def test_a_copy_is_unique_where_it_is_said_of_it_and_not_otherwise(api):
    first = await post(api, unique=KEY)
    plain = await api.post(f"/v1/jobs/{first.doc['id']}/copy", {})
    same = await api.post(f"/v1/jobs/{first.doc['id']}/copy", {"unique": KEY})

    assert (201, False) == (plain.status, "unique" in plain.doc)
    assert (200, first.doc["id"]) == (same.status, same.doc["id"])
    assert [201, 422] == [
        (await api.post(f"/v1/jobs/{first.doc['id']}/copy", {"unique": unique})).status
        for unique in ({"key": "k2"}, {"for": 0})
    ]

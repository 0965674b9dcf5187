"""`Idempotency-Key`: the same request again has the first answer; another request is refused; nothing is enqueued twice."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from scheduler.errors import StoreFull, StoreUnavailable
from scheduler.keys import Keys
from scheduler.store import Store
from tests.doors.conftest import Answer, Api, on_valkey, until
from tests.helpers import on_the_fake

JOB = {"type": "send", "queue": "mail", "payload": {"to": "a@example.org"}}
BULK = "/v1/jobs/bulk"


def same(one: Answer, other: Answer) -> bool:
    """Byte for byte, and the headers that say something of it."""
    names = ("Content-Type", "Location")
    return (one.status, one.raw, *map(one.headers.get, names)) == (
        other.status,
        other.raw,
        *map(other.headers.get, names),
    )


async def count(api: Api, queue: str = "mail") -> int:
    """How many jobs stand in a queue."""
    counts = (await api.get(f"/v1/queues/{queue}")).doc["counts"]
    return sum(counts.values())


async def test_the_same_request_again_has_the_first_answer_whatever_became_of_the_job(api):
    first = await api.post("/v1/jobs", JOB, Idempotency_Key="k")
    await api.lease()
    again = await api.post("/v1/jobs", JOB, Idempotency_Key="k")

    assert 201 == first.status
    assert same(first, again)
    assert first.headers["X-Request-Id"] != again.headers["X-Request-Id"]
    assert 1 == await count(api)
    assert "running" == (await api.get(first.headers["Location"])).doc["state"]


async def test_the_first_answer_stands_also_when_its_job_has_gone(api):
    first = await api.post("/v1/jobs", JOB, Idempotency_Key="k")
    await api.call("DELETE", f"/v1/jobs/{first.doc['id']}")

    assert same(first, await api.post("/v1/jobs", JOB, Idempotency_Key="k"))
    assert 0 == await count(api)


@pytest.mark.parametrize(
    "payload", [b"null", b"1e400", b'"' + b"x" * 1_000_000 + b'"', b'{"a":"' + b"y" * 50_000 + b'"}']
)
async def test_a_payload_comes_back_as_it_was_sent(api, payload):
    body = b'{"type": "send", "queue": "mail", "payload": %b}' % payload
    first = await api.post("/v1/jobs", body, Idempotency_Key="k")

    assert payload in first.raw
    assert same(first, await api.post("/v1/jobs", body, Idempotency_Key="k"))


async def test_another_request_with_the_same_key_is_refused_and_does_nothing(api):
    first = await api.post("/v1/jobs", JOB, Idempotency_Key="k")
    for path, body in (
        ("/v1/jobs", {**JOB, "priority": 1}),
        (BULK, [JOB]),
        (f"/v1/jobs/{first.doc['id']}/copy", JOB),
    ):
        refused = await api.post(path, body, Idempotency_Key="k")
        assert (422, "idempotency_mismatch") == (refused.status, refused.code)

    assert 1 == await count(api)
    assert same(first, await api.post("/v1/jobs", JOB, Idempotency_Key="k"))


async def test_another_key_and_none_are_requests_of_their_own(api):
    for headers in ({"Idempotency_Key": "a"}, {"Idempotency_Key": "b"}, {}, {}):
        assert 201 == (await api.post("/v1/jobs", JOB, **headers)).status

    assert 4 == await count(api)


async def test_many_at_once_are_one_and_have_one_answer(api):
    answers = await asyncio.gather(*(api.post("/v1/jobs", JOB, Idempotency_Key="k") for _ in range(30)))

    assert 1 == len({(answer.status, answer.raw, answer.headers["Location"]) for answer in answers})
    assert 1 == await count(api)


async def test_a_bulk_has_its_first_answer_too(api):
    jobs = [JOB, {**JOB, "id": "mine"}, {"type": "a b"}, {**JOB, "queue": "other"}]
    first = await api.post(BULK, jobs, Idempotency_Key="k")
    again = await api.post(BULK, jobs, Idempotency_Key="k")

    assert [201, 201, 422, 201] == [item["status"] for item in first.doc["items"]]
    assert same(first, again)
    assert (2, 1) == (await count(api), await count(api, "other"))
    assert 422 == (await api.post(BULK, jobs[1:], Idempotency_Key="k")).status


async def test_a_copy_is_made_once(api):
    job = await api.enqueue()
    first = await api.post(f"/v1/jobs/{job['id']}/copy", None, Idempotency_Key="k")
    await api.call("DELETE", f"/v1/jobs/{job['id']}")
    again = await api.post(f"/v1/jobs/{job['id']}/copy", None, Idempotency_Key="k")

    assert 201 == first.status
    assert same(first, again)
    assert 1 == await count(api)


async def test_a_request_that_was_refused_leaves_its_key_free(api):
    await api.put("/v1/queues/mail/types/send", {"schema": {"required": ["to"]}})
    refused = [
        ("/v1/jobs", {"type": "a b"}, 422),
        ("/v1/jobs", {**JOB, "payload": {}}, 422),
        ("/v1/jobs/mail:nobody/copy", {}, 404),
    ]
    for path, body, status in refused:
        assert status == (await api.post(path, body, Idempotency_Key="k")).status

    assert 201 == (await api.post("/v1/jobs", JOB, Idempotency_Key="k")).status


async def test_a_conflict_is_an_answer_that_stands(api):
    await api.enqueue("taken")
    first = await api.post("/v1/jobs", {**JOB, "id": "taken"}, Idempotency_Key="k")
    await api.call("DELETE", "/v1/jobs/mail:taken")

    assert (409, "duplicate") == (first.status, first.code)
    assert same(first, await api.post("/v1/jobs", {**JOB, "id": "taken"}, Idempotency_Key="k"))


async def test_a_full_queue_is_asked_again_under_the_same_key(api):
    await api.put("/v1/queues/mail", {"max_length": 1})
    await api.enqueue("a")
    assert 429 == (await api.post("/v1/jobs", JOB, Idempotency_Key="k")).status
    bulk = await api.post(BULK, [JOB], Idempotency_Key="b")
    assert [429] == [item["status"] for item in bulk.doc["items"]]
    await api.call("DELETE", "/v1/jobs/mail:a")

    assert 201 == (await api.post("/v1/jobs", JOB, Idempotency_Key="k")).status
    await api.put("/v1/queues/mail", {"max_length": 2})
    assert [201] == [
        item["status"] for item in (await api.post(BULK, [JOB], Idempotency_Key="b")).doc["items"]
    ]


KEPT = Store.keep_answer


@pytest.mark.parametrize("path", ["/v1/jobs", BULK])
@pytest.mark.parametrize("error", [StoreUnavailable("gone", unknown=True), StoreFull("full")])
async def test_what_was_enqueued_before_the_answer_was_kept_is_found_again(api, monkeypatch, path, error):
    async def lost(*_: Any) -> bytes:
        raise error

    monkeypatch.setattr(Store, "keep_answer", lost)
    body = [JOB, JOB] if path == BULK else JOB
    failed = await api.post(path, body, Idempotency_Key="k")
    assert failed.status in {503, 507}
    monkeypatch.setattr(Store, "keep_answer", KEPT)
    await api.lease()

    answer = await api.post(path, body, Idempotency_Key="k")
    created = [item["status"] for item in answer.doc["items"]] if path == BULK else [answer.status]
    assert {201} == set(created)
    assert len(created) == await count(api)
    assert same(answer, await api.post(path, body, Idempotency_Key="k"))


async def test_keys_made_for_a_request_are_like_all_others(api):
    first = await api.post(BULK, [JOB] * 3, Idempotency_Key="k")
    keys = [item["id"].partition(":")[2] for item in first.doc["items"]]

    assert 3 == len(set(keys))
    assert {"7"} == {key[14] for key in keys}
    assert {key[:13] for key in keys} == {keys[0][:13]}


@on_the_fake
@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256, "\t"])
@pytest.mark.parametrize(("path", "body"), [("/v1/jobs", JOB), (BULK, [JOB])])
async def test_a_key_that_is_none_is_refused(api, key, path, body):
    answer = await api.post(path, body, Idempotency_Key=key)

    assert (422, ["/Idempotency-Key"]) == (answer.status, answer.paths)
    assert 201 == (await api.post("/v1/jobs", JOB, Idempotency_Key="x" * 255)).status


@on_the_fake
async def test_two_keys_in_one_request_are_refused(api):
    sent = orjson.dumps(JOB)
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    head += b"Idempotency-Key: a\r\nIdempotency-Key: b\r\nContent-Length: %d\r\n\r\n" % len(sent)

    assert b"422" in (await api.raw(head + sent)).split(b"\r\n")[0]


@on_the_fake
async def test_a_stream_says_that_ids_make_it_repeatable(api):
    answer = await api.post(BULK, orjson.dumps(JOB), Content_Type="application/x-ndjson", Idempotency_Key="k")

    assert (422, ["/Idempotency-Key"]) == (answer.status, answer.paths)
    assert "`id`" in answer.doc["errors"][0]["message"]


@on_the_fake
async def test_a_bulk_whose_answer_would_be_too_much_to_keep_is_refused(api, monkeypatch):
    monkeypatch.setattr("scheduler.api.bulk.MOST_KEPT", 2)

    assert 413 == (await api.post(BULK, [JOB] * 3, Idempotency_Key="k")).status
    assert 200 == (await api.post(BULK, [JOB] * 2, Idempotency_Key="k")).status
    assert 200 == (await api.post(BULK, [JOB] * 3)).status


async def test_callers_with_keys_of_their_own_do_not_collide(serving):
    one = await serving(api_key="one")
    other = await serving(api_key="other")
    first = await one.post("/v1/jobs", JOB, Idempotency_Key="k", Authorization="Bearer one")
    second = await other.post(
        "/v1/jobs", {**JOB, "priority": 1}, Idempotency_Key="k", Authorization="Bearer other"
    )

    assert [201, 201] == [first.status, second.status]
    assert same(first, await one.post("/v1/jobs", JOB, Idempotency_Key="k", Authorization="Bearer one"))


@on_valkey
async def test_after_the_window_a_key_is_free_and_nothing_of_it_is_left(serving):
    api = await serving(idempotency_window_ms=300)
    first = await api.post("/v1/jobs", JOB, Idempotency_Key="k")
    assert same(first, await api.post("/v1/jobs", JOB, Idempotency_Key="k"))

    async def nothing_left() -> bool:
        return not [key async for key in api.redis.scan_iter(match="*:=*")]

    await until(nothing_left)
    again = await api.post("/v1/jobs", {**JOB, "priority": 1}, Idempotency_Key="k")
    assert (201, 2) == (again.status, await count(api))


async def test_a_kept_answer_does_not_hold_the_payload_a_second_time(api):
    big = {**JOB, "payload": "".join(map(str, range(4_000)))}
    await api.post("/v1/jobs", big, Idempotency_Key="k")
    [key] = [key async for key in api.redis.scan_iter(match="*:=*:answer")]

    [payload] = await api.redis.hvals(Keys("scheduler", "mail").at("bodies"))
    assert len(payload) > 4 * await api.redis.strlen(key)

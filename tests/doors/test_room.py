"""A queue's `max_length`: 429 queue_full, and when it is worth to ask again."""

import orjson
import pytest

from scheduler.producing import LONGEST_PAUSE

QUEUE = "/v1/queues/mail"


async def test_what_finds_no_room_is_told_when_to_come_again(api):
    answer = await api.put(QUEUE, {"max_length": 2})
    assert 2 == answer.doc["max_length"]
    await api.enqueue("a")
    await api.enqueue("b", delay=60)

    for path, body in (
        ("/v1/jobs", {"type": "send", "queue": "mail", "id": "c"}),
        ("/v1/jobs/mail:a/copy", {"id": "c"}),
    ):
        answer = await api.post(path, body)
        assert (429, "queue_full") == (answer.status, answer.code)
        assert 1 <= int(answer.headers["Retry-After"]) == answer.doc["retry_after"] <= LONGEST_PAUSE
    assert 404 == (await api.get("/v1/jobs/mail:c")).status
    answer = await api.post("/v1/jobs", {"type": "send", "queue": "mail", "id": "a"})
    assert (200, True) == (answer.status, answer.doc["duplicate"])
    await api.lease()
    await api.enqueue("c")


async def test_in_bulk_each_that_finds_no_room_is_a_429_of_its_own(api):
    await api.put(QUEUE, {"max_length": 2})
    jobs = [{"type": "send", "queue": "mail", "id": f"j{n}"} for n in range(3)] + [
        {"type": "send", "queue": "other"}
    ]

    items = (await api.post("/v1/jobs/bulk", jobs)).doc["items"]
    assert [201, 201, 429, 201] == [item["status"] for item in items]
    assert ("queue_full", True) == (items[2]["code"], items[2]["retry_after"] >= 1)
    lines = b"\n".join(orjson.dumps(job) for job in jobs[:3])
    answer = await api.post("/v1/jobs/bulk", lines, Content_Type="application/x-ndjson")
    *said, last = [orjson.loads(line) for line in answer.raw.splitlines()]
    assert ([200, 200, 429], 2, 1) == ([line["status"] for line in said], last["duplicates"], last["failed"])


async def test_it_is_lifted(api):
    await api.put(QUEUE, {"max_length": 0})
    assert 429 == (await api.post("/v1/jobs", {"type": "send", "queue": "mail"})).status
    assert None is (await api.patch(QUEUE, {"max_length": None})).doc["max_length"]
    await api.enqueue("a")
    await api.patch(QUEUE, {"max_length": 1})
    assert None is (await api.put(QUEUE, {})).doc["max_length"]
    await api.enqueue("b")


@pytest.mark.parametrize("value", [-1, 1.5, "5", True, 1e17])
async def test_what_is_no_length_is_refused_by_name(api, value):
    answer = await api.put(QUEUE, {"max_length": value})

    assert (422, ["/max_length"]) == (answer.status, answer.paths), answer.raw


async def test_a_queue_takes_no_more_bytes_than_its_max_bytes(api):
    await api.put("/v1/queues/mail", {"max_bytes": 3000})
    large = {"type": "send", "queue": "mail", "payload": "x" * 2000}

    assert 201 == (await api.post("/v1/jobs", large)).status
    refused = await api.post("/v1/jobs", large)
    assert (429, "queue_full") == (refused.status, refused.code)
    assert int(refused.headers["Retry-After"]) >= 1
    assert 201 == (await api.post("/v1/jobs", {"type": "send", "queue": "mail"})).status
    statuses = [item["status"] for item in (await api.post("/v1/jobs/bulk", [large, large])).doc["items"]]
    assert [429, 429] == statuses
    assert 3000 == (await api.get("/v1/queues/mail")).doc["max_bytes"]

    await api.call("PATCH", "/v1/queues/mail", {"max_bytes": None})
    assert 201 == (await api.post("/v1/jobs", large)).status


async def test_a_draining_queue_accepts_no_new_job_and_runs_those_that_stand(api):
    await api.enqueue("a")
    await api.enqueue("later", delay=60)
    drained = await api.post(f"{QUEUE}/drain")
    again = await api.post(f"{QUEUE}/drain", {})

    assert (200, True, False) == (drained.status, drained.doc["draining"], drained.doc["paused"])
    assert drained.headers["ETag"] == again.headers["ETag"]
    assert (await api.get(QUEUE)).doc["draining"]
    for path, body in (
        ("/v1/jobs", {"type": "send", "queue": "mail", "id": "c"}),
        ("/v1/jobs", {"type": "send", "queue": "mail", "id": "c", "delay": 60}),
        ("/v1/jobs", {"type": "send", "queue": "mail", "id": "c", "after": ["mail:later"]}),
        ("/v1/jobs/mail:a/copy", {"id": "c"}),
    ):
        answer = await api.post(path, body)
        assert (429, "queue_full") == (answer.status, answer.code)
        assert "draining" in answer.doc["detail"]
        assert int(answer.headers["Retry-After"]) == answer.doc["retry_after"] == LONGEST_PAUSE
    assert 404 == (await api.get("/v1/jobs/mail:c")).status
    assert (200, True) == (
        (repeated := await api.post("/v1/jobs", {"type": "send", "queue": "mail", "id": "a"})).status,
        repeated.doc["duplicate"],
    )
    reasons = (await api.get("/v1/jobs/mail:later/explain")).doc["reasons"]
    assert ["scheduled", "queue_draining"] == [reason["code"] for reason in reasons]
    assert ["mail:a"] == [job["id"] for job in await api.lease()]

    resumed = await api.post(f"{QUEUE}/resume")
    assert (200, False) == (resumed.status, resumed.doc["draining"])
    await api.enqueue("c")


async def test_what_a_running_job_adds_is_accepted_by_its_draining_queue(api):
    await api.enqueue("a")
    [job] = await api.lease()
    await api.post(f"{QUEUE}/drain")
    added = [{"type": "send", "queue": "mail", "id": "b"}]
    [item] = await api.settle(ack=[{"id": job["id"], "token": job["token"], "add": added}])

    assert (True, "succeeded") == (item["ok"], item["state"])
    assert "ready" == (await api.get("/v1/jobs/mail:b")).doc["state"]


async def test_draining_is_a_field_of_the_configuration(api):
    made = await api.put(QUEUE, {"draining": True})
    patched = await api.call("PATCH", QUEUE, {"draining": None})
    await api.call("PATCH", QUEUE, {"draining": True})
    replaced = await api.put(QUEUE, {})
    wrong = await api.call("PATCH", QUEUE, {"draining": "yes"})

    assert (True, False, False) == tuple(one.doc["draining"] for one in (made, patched, replaced))
    assert (422, "/draining") == (wrong.status, wrong.doc["errors"][0]["path"])

"""Schedules over REST: documents, versions, what is refused, and that somebody ticks."""

import asyncio

import msgspec
import pytest

from scheduler.client import Client, Duplicate, NotFound, SyncClient
from scheduler.shown import ScheduleShown
from tests.doors.conftest import until
from tests.helpers import on_the_fake

NIGHTLY = {"type": "send", "queue": "mail", "cron": "0 3 * * *", "timezone": "Europe/Berlin"}


async def test_put_makes_and_replaces(api):
    made = await api.put("/v1/schedules/nightly", {**NIGHTLY, "payload": {"a": 1.50}})
    same = await api.put("/v1/schedules/nightly", {**NIGHTLY, "payload": {"a": 1.50}})
    changed = await api.put("/v1/schedules/nightly", {**NIGHTLY, "overlap": "allow"})

    assert (201, 200, 200) == (made.status, same.status, changed.status)
    assert ({"a": 1.5}, "skip", "latest", 86_400) == (
        made.doc["payload"], made.doc["overlap"], made.doc["catch_up"], made.doc["catch_up_window"],
    )  # fmt: skip
    assert made.headers["ETag"] == same.headers["ETag"] != changed.headers["ETag"]
    assert ("allow", {}, "active", 5) == (
        changed.doc["overlap"], changed.doc["payload"], changed.doc["state"], len(changed.doc["next"]),
    )  # fmt: skip
    assert changed.doc == (await api.get("/v1/schedules/nightly")).doc
    msgspec.convert(changed.doc, ScheduleShown)
    assert 200 == (await api.get("/v1/queues/mail")).status


async def test_a_payload_is_carried_as_it_came(api):
    text = b'{"type": "send", "queue": "mail", "every": "1h", "payload": {"n": 12345678901234567890123}}'
    assert 201 == (await api.put("/v1/schedules/big", text)).status
    answer = await api.post("/v1/schedules/big/trigger")

    assert b"12345678901234567890123" in (await api.get("/v1/schedules/big")).raw
    assert b"12345678901234567890123" in (await api.get(f"/v1/jobs/{answer.doc['id']}")).raw


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"cron": "0 25 * * *"}, "/cron", "hour (column 3): 25 is not from 0 to 23"),
        ({"cron": "0 0 30 2 *"}, "/cron", "never comes due"),
        ({"cron": None}, "/cron", "either"),
        ({"every": "1m"}, "/cron", "either"),
        ({"cron": None, "every": "10ms"}, "/every", "from 0.1"),
        ({"cron": None, "every": "often"}, "/every", "a duration is"),
        ({"timezone": "Europe/Berln"}, "/timezone", "near it: Europe/Berlin"),
        ({"starts_at": "2027-01-01T00:00:00"}, "/starts_at", "no offset"),
        ({"starts_at": "2027-01-02T00:00:00Z", "ends_at": "2027-01-01T00:00:00Z"}, "/ends_at", "ends before"),
        ({"max_runs": 0}, "/max_runs", "whole number"),
        ({"max_runs": 1.5}, "/max_runs", "whole number"),
        ({"priority": 101}, "/priority", "100"),
        ({"overlap": "never"}, "/overlap", ""),
        ({"jitter": "2d"}, "/jitter", "a day"),
        ({"delay": 5}, "/delay", ""),
        ({"type": None}, "/type", ""),
    ],
)
async def test_what_cannot_be_is_refused_by_its_field(api, change, path, words):
    answer = await api.put("/v1/schedules/nightly", {**NIGHTLY, **change})

    assert (422, path) == (answer.status, answer.doc["errors"][0]["path"])
    assert words in answer.doc["errors"][0]["message"]
    assert 404 == (await api.get("/v1/schedules/nightly")).status


async def test_a_name_that_is_none(api):
    assert 422 == (await api.put("/v1/schedules/-x", NIGHTLY)).status
    assert 404 == (await api.get("/v1/schedules/-x")).status


async def test_another_queue_is_a_conflict(api):
    await api.put("/v1/schedules/nightly", NIGHTLY)
    answer = await api.put("/v1/schedules/nightly", {**NIGHTLY, "queue": "other"})

    assert (409, "duplicate") == (answer.status, answer.doc["code"])
    assert "stands in the queue mail" in answer.doc["detail"]


async def test_what_does_not_fit_if_match_is_refused(api):
    tag = (await api.put("/v1/schedules/nightly", NIGHTLY)).headers["ETag"]
    await api.put("/v1/schedules/nightly", {**NIGHTLY, "priority": 5})

    refused = [
        await api.put("/v1/schedules/nightly", NIGHTLY, **{"If-Match": tag}),
        await api.call("DELETE", "/v1/schedules/nightly", **{"If-Match": tag}),
        await api.post("/v1/schedules/nightly/pause", **{"If-Match": tag}),
        await api.put("/v1/schedules/another", NIGHTLY, **{"If-Match": "*"}),
    ]

    assert [412] * 4 == [answer.status for answer in refused]
    assert 404 == (await api.get("/v1/schedules/another")).status
    now = (await api.get("/v1/schedules/nightly")).headers["ETag"]
    assert 200 == (await api.put("/v1/schedules/nightly", NIGHTLY, **{"If-Match": now})).status


async def test_delete_leaves_its_jobs(api):
    await api.put("/v1/schedules/nightly", NIGHTLY)
    job = (await api.post("/v1/schedules/nightly/trigger")).doc["id"]

    assert 204 == (await api.call("DELETE", "/v1/schedules/nightly")).status
    assert 404 == (await api.call("DELETE", "/v1/schedules/nightly")).status
    assert "ready" == (await api.get(f"/v1/jobs/{job}")).doc["state"]


async def test_pause_and_resume(api):
    await api.put("/v1/schedules/nightly", NIGHTLY)
    paused = await api.post("/v1/schedules/nightly/pause")
    preview = await api.get("/v1/schedules/nightly/preview?count=3")
    resumed = await api.post("/v1/schedules/nightly/resume")

    assert (True, "paused", [], None) == tuple(paused.doc[n] for n in ("paused", "state", "next", "next_at"))
    assert (False, "active") == (resumed.doc["paused"], resumed.doc["state"])
    assert preview.doc["items"] == resumed.doc["next"][:3]
    assert {404} == {
        (await api.post(f"/v1/schedules/none/{verb}")).status for verb in ("pause", "resume", "trigger")
    }


async def test_a_trigger_makes_a_job_and_is_seen_in_the_history(api):
    await api.put("/v1/schedules/nightly", {**NIGHTLY, "tags": ["t"], "timeout": 5})
    answer = await api.post("/v1/schedules/nightly/trigger")
    shown = (await api.get("/v1/schedules/nightly")).doc

    assert (201, "nightly", ["t"], 5) == (
        answer.status, answer.doc["schedule"], answer.doc["tags"], answer.doc["timeout"],
    )  # fmt: skip
    assert f"/v1/jobs/{answer.doc['id']}" == answer.headers["Location"]
    assert [(None, answer.doc["id"], "ready")] == [
        (one["slot"], one["id"], one["state"]) for one in shown["last"]
    ]


async def test_a_trigger_that_is_repeated_with_its_key_makes_one_job(api):
    await api.put("/v1/schedules/nightly", NIGHTLY)
    first = await api.post("/v1/schedules/nightly/trigger", **{"Idempotency-Key": "k"})
    again = await api.post("/v1/schedules/nightly/trigger", **{"Idempotency-Key": "k"})

    assert (201, first.raw) == (again.status, again.raw)
    assert 1 == (await api.get("/v1/queues/mail")).doc["counts"]["ready"]


async def test_a_full_queue_refuses_a_trigger(api):
    await api.put("/v1/queues/mail", {"max_length": 1})
    await api.put("/v1/schedules/nightly", NIGHTLY)
    await api.post("/v1/schedules/nightly/trigger")
    answer = await api.post("/v1/schedules/nightly/trigger")

    assert (429, "queue_full") == (answer.status, answer.doc["code"])
    assert "full" == (await api.get("/v1/schedules/nightly")).doc["skipped"][0]["reason"]


async def test_a_list_goes_page_by_page(api):
    for n in range(5):
        await api.put(f"/v1/schedules/s{n}", {**NIGHTLY, "queue": f"q{n % 2}"})

    first = await api.get("/v1/schedules?limit=3")
    second = await api.get(f"/v1/schedules?limit=3&cursor={first.doc['next_cursor']}")

    assert ["s0", "s1", "s2"] == [one["name"] for one in first.doc["items"]]
    assert (["s3", "s4"], None) == ([one["name"] for one in second.doc["items"]], second.doc["next_cursor"])
    assert ["s1", "s3"] == [one["name"] for one in (await api.get("/v1/schedules?queue=q1")).doc["items"]]
    assert [] == (await api.get("/v1/schedules?queue=none")).doc["items"]
    assert 422 == (await api.get("/v1/schedules?cursor=abc")).status
    assert 422 == (await api.get("/v1/schedules/s1/preview?count=0")).status
    assert 422 == (await api.get("/v1/schedules?nonsense=1")).status


async def test_a_schedule_fires_while_an_api_process_is_there(api):
    await api.put(
        "/v1/schedules/fast",
        {"type": "send", "queue": "mail", "every": "100ms", "max_runs": 3, "overlap": "allow"},
    )

    async def three():
        shown = (await api.get("/v1/schedules/fast")).doc
        return shown if shown["state"] == "finished" else None

    shown = await until(three)
    assert (3, None) == (shown["runs"], shown["next_at"])
    assert 3 == len({one["id"] for one in shown["last"]})
    jobs = (await api.get("/v1/jobs?queue=mail")).doc["items"]
    assert {"fast"} == {job["schedule"] for job in jobs}


async def test_the_client_has_all_of_it(api):
    async with Client(f"http://127.0.0.1:{api.port}") as jobs:
        nightly = jobs.schedule("nightly")
        shown = await nightly.put(
            "send", queue="mail", cron="0 3 * * *", timezone="Europe/Berlin", payload={"n": 1}
        )
        assert ("nightly", "active") == (shown.name, shown.state)
        assert (await nightly.pause()).paused
        assert not (await nightly.resume()).paused
        job = await nightly.trigger()
        assert ("nightly", "ready") == (job.schedule, job.state)
        assert (await nightly.show()).next[:2] == await nightly.preview(2)
        assert ["nightly"] == [one.name async for one in jobs.schedules(queue="mail")]
        with pytest.raises(Duplicate):
            await nightly.put("send", queue="other", every=60)
        await nightly.delete()
        with pytest.raises(NotFound):
            await nightly.show()


@on_the_fake
async def test_the_client_without_a_loop_too(api):
    def plain():
        with SyncClient(f"http://127.0.0.1:{api.port}") as jobs:
            made = jobs.schedule("s").put("send", queue="mail", every="1h")
            found = [one.name for one in jobs.schedules()]
            jobs.schedule("s").delete()
            return made.every, found

    assert (3_600, ["s"]) == await asyncio.to_thread(plain)

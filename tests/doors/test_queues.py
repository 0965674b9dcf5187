"""Queues: their documents, their configuration, its versions."""

import re

import msgspec
import pytest

from scheduler.outcomes import DEFAULT_RETENTION
from scheduler.scripts import folder
from scheduler.shown import QueueShown
from tests.doors.conftest import held
from tests.helpers import on_the_fake

NONE = dict.fromkeys(
    ("scheduled", "blocked", "ready", "running", "retrying", "succeeded", "cancelled", "dead"), 0
)


async def test_a_queue_begins_with_its_first_job_and_counts(api):
    assert 404 == (await api.get("/v1/queues/mail")).status
    job = await api.running("a")
    await api.settle(ack=[held(job)])
    await api.dead("b")
    await api.enqueue("c")
    await api.enqueue("d", delay=60)
    answer = await api.get("/v1/queues/mail")

    assert {**NONE, "succeeded": 1, "dead": 1, "ready": 1, "scheduled": 1} == answer.doc["counts"]
    assert 0 <= answer.doc["oldest_wait"] < 5
    assert (False, {}, 1) == (answer.doc["paused"], answer.doc["retention"], answer.doc["partitions"])
    assert {None} == {answer.doc[n] for n in ("rate", "concurrency", "max_length", "max_bytes")}
    msgspec.convert(answer.doc, QueueShown)


async def test_put_makes_a_queue_and_replaces_its_configuration(api):
    made = await api.put(
        "/v1/queues/mail", {"paused": True, "retention": {"dead": {"age": "7d", "count": 10.0}}}
    )
    replaced = await api.put("/v1/queues/mail", {"retention": {"succeeded": {"bytes": 0}}})

    assert (201, True, {"dead": {"age": 604_800, "count": 10}}) == (
        made.status, made.doc["paused"], made.doc["retention"],
    )  # fmt: skip
    assert (200, False, {"succeeded": {"bytes": 0}}) == (
        replaced.status, replaced.doc["paused"], replaced.doc["retention"],
    )  # fmt: skip
    assert None is made.doc["oldest_wait"]
    assert replaced.doc == (await api.get("/v1/queues/mail")).doc
    assert ["mail"] == [queue["queue"] for queue in (await api.get("/v1/queues")).doc["items"]]


async def test_patch_changes_what_is_named_and_null_lifts(api):
    await api.put(
        "/v1/queues/mail",
        {"paused": True, "retention": {"dead": {"age": "7d", "count": 10}, "cancelled": {"count": 5}}},
    )
    first = await api.patch("/v1/queues/mail", {"retention": {"dead": {"age": None, "bytes": 1000}}})
    second = await api.patch("/v1/queues/mail", {"paused": None, "retention": {"dead": None}})
    third = await api.patch("/v1/queues/mail", {"retention": None})

    assert {"dead": {"count": 10, "bytes": 1000}, "cancelled": {"count": 5}} == first.doc["retention"]
    assert first.doc["paused"]
    assert (False, {"cancelled": {"count": 5}}) == (second.doc["paused"], second.doc["retention"])
    assert {} == third.doc["retention"]


async def test_what_is_in_force_is_shown_beside_what_is_set(api):
    answer = await api.put("/v1/queues/mail", {"retention": {"succeeded": {"age": "250ms"}}})

    assert {**DEFAULT_RETENTION, "succeeded": {"age": 0.25, "count": 100_000}} == answer.doc["in_force"][
        "retention"
    ]


def test_the_defaults_that_are_shown_are_those_of_the_script():
    text = (folder() / "lib/excess.lua").read_text()

    assert re.search(r'state == "dead" and 2592000000 or 86400000\b', text)
    assert re.search(r'state ~= "dead" and 100000 or nil', text)
    assert {"age": 2_592_000} == DEFAULT_RETENTION["dead"]
    assert (
        {"age": 86_400, "count": 100_000} == DEFAULT_RETENTION["succeeded"] == DEFAULT_RETENTION["cancelled"]
    )


async def test_retention_is_kept(api):
    await api.put("/v1/queues/mail", {"retention": {"succeeded": {"count": 1}}})
    for key in ("a", "b", "c"):
        job = await api.running(key)
        await api.settle(ack=[held(job)])

    assert 1 == (await api.get("/v1/queues/mail")).doc["counts"]["succeeded"]


async def test_pause_and_resume(api):
    await api.enqueue("a")
    await api.enqueue("b")
    [running] = await api.lease()
    paused = await api.post("/v1/queues/mail/pause")
    again = await api.post("/v1/queues/mail/pause", {})
    none = await api.lease()
    done = await api.settle(ack=[held(running)])
    resumed = await api.post("/v1/queues/mail/resume")
    once_more = await api.post("/v1/queues/mail/resume")

    assert (200, True, []) == (paused.status, paused.doc["paused"], none)
    assert (200, True, paused.headers["ETag"]) == (again.status, again.doc["paused"], again.headers["ETag"])
    assert "succeeded" == done[0]["state"], "running jobs go on"
    assert (200, False) == (resumed.status, resumed.doc["paused"])
    assert (200, resumed.headers["ETag"]) == (once_more.status, once_more.headers["ETag"])
    assert ["mail:b"] == [job["id"] for job in await api.lease()]


async def test_a_configuration_has_a_version_and_if_match_holds_to_it(api):
    made = await api.put("/v1/queues/mail", {})
    read = await api.get("/v1/queues/mail")
    tag = read.headers["ETag"]
    changed = await api.patch("/v1/queues/mail", {"paused": True}, If_Match=tag)

    assert made.headers["ETag"] == tag != changed.headers["ETag"]
    for method, path, body in (
        ("PATCH", "", {"paused": None}), ("PUT", "", {}), ("POST", "/resume", None), ("POST", "/pause", None),
    ):  # fmt: skip
        stale = await api.call(method, f"/v1/queues/mail{path}", body, If_Match=tag)
        assert (412, "precondition_failed") == (stale.status, stale.code), method
    assert (await api.get("/v1/queues/mail")).doc["paused"]
    for good in ("*", changed.headers["ETag"], f'"x", {changed.headers["ETag"]}'):
        assert 200 == (await api.patch("/v1/queues/mail", {"paused": True}, If_Match=good)).status
    for bad in ('"x"', f"W/{changed.headers['ETag']}", changed.headers["ETag"].strip('"'), ""):
        assert 412 == (await api.patch("/v1/queues/mail", {"paused": None}, If_Match=bad)).status


async def test_if_match_on_a_queue_that_is_not_there(api):
    answer = await api.put("/v1/queues/mail", {}, If_Match="*")

    assert (412, "precondition_failed") == (answer.status, answer.code)
    assert 404 == (await api.get("/v1/queues/mail")).status


@on_the_fake
@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("PATCH", ""), ("POST", "/pause"), ("POST", "/resume")]
)
async def test_a_queue_that_is_not_there(api, method, path):
    for name in ("nowhere", "x" * 65, "a%7Db", ".a"):
        answer = await api.call(
            method, f"/v1/queues/{name}{path}", {"paused": True} if method == "PATCH" else None
        )
        assert (404, "not_found") == (answer.status, answer.code)
    assert [] == (await api.get("/v1/queues")).doc["items"]


@on_the_fake
@pytest.mark.parametrize(
    "name", ["a%7Db%7Bc", "x:lease", "*", "%0d%0a", "x" * 65, "..%2f", "%EF%BD%81", "a%00", ".a", "-a"]
)
async def test_a_name_that_can_be_none_is_refused(api, name):
    answer = await api.put(f"/v1/queues/{name}", {})

    assert (422, "validation", ["/queue"]) == (answer.status, answer.code, answer.paths)
    assert [] == [key async for key in api.redis.scan_iter() if b"layout" not in key]


LATER = (
    "priority_mode",
    "partitions",
)


@on_the_fake
@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"paused": 1}, "/paused"), ({"paused": "true"}, "/paused"), ({"retention": []}, "/retention"),
        ({"retention": {"ready": {}}}, "/retention/ready"), ({"retention": {"dead": 5}}, "/retention/dead"),
        ({"retention": {"dead": {"age": -1}}}, "/retention/dead/age"), ({"retention": {"dead": {"age": "1y"}}}, "/retention/dead/age"),
        ({"retention": {"dead": {"age": "3653d"}}}, "/retention/dead/age"), ({"retention": {"dead": {"count": -1}}}, "/retention/dead/count"),
        ({"retention": {"dead": {"count": 1.5}}}, "/retention/dead/count"), ({"retention": {"dead": {"count": "5"}}}, "/retention/dead/count"),
        ({"retention": {"dead": {"bytes": 2**53}}}, "/retention/dead/bytes"), ({"retention": {"dead": {"size": 1}}}, "/retention/dead/size"),
        ([], ""), *(({name: 1}, f"/{name}") for name in LATER),
    ],
    ids=lambda value: str(value)[:50],
)  # fmt: skip
async def test_what_cannot_be_set_is_named_and_nothing_is(api, body, path):
    for method in ("PUT", "PATCH"):
        answer = await api.call(method, "/v1/queues/mail", body)
        assert (422, "validation", [path]) == (answer.status, answer.code, answer.paths)
    assert [] == [key async for key in api.redis.scan_iter() if b"layout" not in key]


# -- the list --------------------------------------------------------------------------------------------------


async def test_the_list_is_by_name_a_page_at_a_time(api):
    names = [f"q{n}" for n in range(7)]
    for name in reversed(names):
        await api.enqueue(queue=name)
    pages: list[list[str]] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = (await api.get(f"/v1/queues?limit=3{f'&cursor={cursor}' if cursor else ''}")).doc
        pages.append([queue["queue"] for queue in answer["items"]])
        cursor = answer["next_cursor"]

    assert [names[:3], names[3:6], names[6:]] == pages
    assert 7 == len((await api.get("/v1/queues?limit=7")).doc["items"])
    assert None is (await api.get("/v1/queues?limit=1000")).doc["next_cursor"]


@on_the_fake
@pytest.mark.parametrize(
    "limit", ["0", "-1", "1001", "1000000000", "abc", "", "1.0", "1e2", "%2010", "NaN", "%D9%A3"]
)
async def test_a_limit_out_of_its_range_is_refused(api, limit):
    answer = await api.get(f"/v1/queues?limit={limit}")

    assert (422, "validation", ["/limit"]) == (answer.status, answer.code, answer.paths)


@on_the_fake
@pytest.mark.parametrize(
    "cursor", ["", "x", "abc", "bjo", "bjphIGI", "%00", "bjphYg==", "bjphYg%0a", "%C3%A9", "0|1|a", "a" * 500]
)
async def test_a_foreign_cursor_is_refused(api, cursor):
    answer = await api.get(f"/v1/queues?cursor={cursor}")

    assert (422, "validation", ["/cursor"]) == (answer.status, answer.code, answer.paths)


async def test_how_priorities_weigh_is_set_shown_and_lifted(api):
    answer = await api.put("/v1/queues/mail", {"priority_mode": "strict"})
    assert ("strict", "strict") == (answer.doc["priority_mode"], answer.doc["in_force"]["priority_mode"])
    await api.enqueue("low", queue="mail", priority=1)
    await api.enqueue("high", queue="mail", priority=2)
    assert ["mail:high", "mail:low"] == [job["id"] for job in await api.lease(max=2)]

    answer = await api.patch("/v1/queues/mail", {"priority_mode": {"aging": "5m"}})
    assert ({"aging": 300}, "300000000") == (
        answer.doc["priority_mode"],
        (await api.store.census("mail")).config["step"],
    )
    assert {"aging": 300} == (await api.patch("/v1/queues/mail", {"paused": False})).doc["priority_mode"]
    answer = await api.patch("/v1/queues/mail", {"priority_mode": None})
    assert (None, {"aging": 60}) == (answer.doc["priority_mode"], answer.doc["in_force"]["priority_mode"])


@pytest.mark.parametrize(
    ("mode", "path"),
    [
        ("fast", "/priority_mode"), (5, "/priority_mode"), ({}, "/priority_mode/aging"), ({"aging": "soon"}, "/priority_mode/aging"),
        ({"aging": 0}, "/priority_mode/aging"), ({"aging": "400d"}, "/priority_mode/aging"), ({"ageing": 5}, "/priority_mode/ageing"),
    ],
)  # fmt: skip
async def test_what_is_no_mode_of_priority_is_refused_by_name(api, mode, path):
    answer = await api.put("/v1/queues/mail", {"priority_mode": mode})

    assert (422, [path]) == (answer.status, answer.paths), answer.raw

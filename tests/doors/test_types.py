"""The policies of types."""

import asyncio

import msgspec
import pytest

from scheduler.outcomes import TypePolicy
from scheduler.shown import TypeShown
from tests.doors.conftest import held
from tests.helpers import on_the_fake

PATH = "/v1/queues/mail/types/send"
DEFAULTS = {
    "max_attempts": 20, "immediate": 1, "base": 2, "factor": 2, "max_delay": 3600, "jitter": 0.5, "non_retryable": [],
    "max_crashes": 3,
}  # fmt: skip
UNLIMITED = {"rate": None, "concurrency": None, "breaker": None}


async def test_put_sets_a_policy_and_makes_its_queue(api):
    made = await api.put(
        PATH, {"retry": {"max_attempts": 3.0, "base": "250ms", "non_retryable": ["Boom"]}, "timeout": "5m"}
    )
    again = await api.put(PATH, {"retry": {"max_attempts": 4}})

    assert (201, {"max_attempts": 3, "base": 0.25, "non_retryable": ["Boom"]}, 300) == (
        made.status, made.doc["retry"], made.doc["timeout"],
    )  # fmt: skip
    assert (200, {"max_attempts": 4}, None) == (again.status, again.doc["retry"], again.doc["timeout"])
    assert {"retry": DEFAULTS | {"max_attempts": 4}, "timeout": 3600, **UNLIMITED} == again.doc["in_force"]
    assert again.doc == (await api.get(PATH)).doc
    assert 200 == (await api.get("/v1/queues/mail")).status
    assert ["mail"] == [queue["queue"] for queue in (await api.get("/v1/queues")).doc["items"]]
    msgspec.convert(again.doc, TypeShown)


async def test_a_policy_is_what_decides(api):
    await api.put(PATH, {"retry": {"max_attempts": 1}})
    job = await api.running()
    [item] = await api.settle(nack=[{**held(job), "error": {"kind": "Boom", "message": "no"}}])
    await api.patch(PATH, {"retry": {"max_attempts": 2, "non_retryable": ["Boom"]}})
    job = await api.running("b")
    [other] = await api.settle(nack=[{**held(job), "error": {"kind": "Boom", "message": "no"}}])

    assert ("dead", "dead") == (item["state"], other["state"])
    assert ["attempts", "permanent"] == [
        (await api.get(f"/v1/jobs/mail:{key}")).doc["reason"] for key in "ab"
    ]


async def test_patch_changes_what_is_named_and_null_lifts(api):
    await api.put(PATH, {"retry": {"max_attempts": 3, "base": 1}, "timeout": 60})
    first = await api.patch(PATH, {"retry": {"max_attempts": None, "factor": 3}})
    second = await api.patch(PATH, {"timeout": None})
    third = await api.patch(PATH, {"retry": None})

    assert ({"base": 1, "factor": 3}, 60) == (first.doc["retry"], first.doc["timeout"])
    assert ({"base": 1, "factor": 3}, None) == (second.doc["retry"], second.doc["timeout"])
    assert ({}, None) == (third.doc["retry"], third.doc["timeout"])
    assert third.doc == (await api.get(PATH)).doc


async def test_many_patches_at_once_lose_nothing(api):
    await api.put(PATH, {})
    fields = {
        "max_attempts": 9,
        "immediate": 0,
        "base": 1,
        "factor": 3,
        "max_delay": 60,
        "jitter": 0,
        "max_crashes": 7,
    }
    await asyncio.gather(*(api.patch(PATH, {"retry": {name: value}}) for name, value in fields.items()))

    assert fields == (await api.get(PATH)).doc["retry"]


async def test_a_policy_that_says_nothing_is_there_all_the_same(api):
    assert 201 == (await api.put(PATH, {})).status
    assert (200, {}) == ((await api.get(PATH)).status, (await api.get(PATH)).doc["retry"])


async def test_delete_forgets_what_was_set(api):
    await api.put(PATH, {"timeout": 60})
    gone = await api.call("DELETE", PATH)
    again = await api.call("DELETE", PATH)

    assert (204, b"") == (gone.status, gone.raw)
    assert (404, "not_found") == (again.status, again.code)
    assert 404 == (await api.get(PATH)).status
    assert 3600 == (await api.enqueue())["timeout"]


async def test_what_code_declares_is_in_force_until_something_is_set(api):
    await api.store.configure_type(
        "mail", "send", TypePolicy(30_000, {"max_attempts": 2, "base": 500}), declared=True
    )
    shown = (await api.get(PATH)).doc
    patched = (await api.patch(PATH, {"retry": {"max_attempts": 7}})).doc

    assert ({}, None) == (shown["retry"], shown["timeout"])
    assert (2, 0.5, 30) == (
        shown["in_force"]["retry"]["max_attempts"], shown["in_force"]["retry"]["base"], shown["in_force"]["timeout"],
    )  # fmt: skip
    assert {"max_attempts": 7} == patched["retry"]
    assert (7, 0.5) == tuple(patched["in_force"]["retry"][name] for name in ("max_attempts", "base"))
    assert 404 == (await api.call("DELETE", "/v1/queues/mail/types/other")).status
    await api.call("DELETE", PATH)
    job = await api.enqueue()
    assert (2, 30) == (job["max_attempts"], job["timeout"])


async def test_the_list_is_by_name_a_page_at_a_time(api):
    for name in ("c", "a", "b"):
        await api.put(f"/v1/queues/mail/types/{name}", {"timeout": 1})
    first = (await api.get("/v1/queues/mail/types?limit=2")).doc
    rest = (await api.get(f"/v1/queues/mail/types?limit=2&cursor={first['next_cursor']}")).doc

    assert ["a", "b"] == [item["type"] for item in first["items"]]
    assert (["c"], None) == ([item["type"] for item in rest["items"]], rest["next_cursor"])
    assert first["items"][0] == (await api.get("/v1/queues/mail/types/a")).doc
    await api.call("DELETE", "/v1/queues/mail/types/c")
    gone = (await api.get(f"/v1/queues/mail/types?limit=2&cursor={first['next_cursor']}")).doc
    assert {"items": [], "next_cursor": None} == gone
    assert 404 == (await api.get("/v1/queues/nowhere/types")).status
    assert 422 == (await api.get("/v1/queues/mail/types?limit=0")).status


async def test_if_match_holds_to_a_version(api):
    tag = (await api.put(PATH, {"timeout": 1})).headers["ETag"]
    assert tag == (await api.get(PATH)).headers["ETag"]
    assert 200 == (await api.patch(PATH, {"timeout": 2}, If_Match=tag)).status
    for method, body in (("PATCH", {"timeout": 3}), ("PUT", {}), ("DELETE", None)):
        stale = await api.call(method, PATH, body, If_Match=tag)
        assert (412, "precondition_failed") == (stale.status, stale.code)
    assert 412 == (await api.put("/v1/queues/mail/types/new", {}, If_Match="*")).status
    assert 2 == (await api.get(PATH)).doc["timeout"]
    assert 204 == (await api.call("DELETE", PATH, If_Match="*")).status


@on_the_fake
async def test_a_type_or_queue_that_is_not_there(api):
    await api.put("/v1/queues/mail", {})
    for path in (
        PATH,
        "/v1/queues/nowhere/types/send",
        "/v1/queues/mail/types/a%20b",
        "/v1/queues/a%20b/types/send",
    ):
        for method, body in (("GET", None), ("PATCH", {"timeout": 1}), ("DELETE", None)):
            answer = await api.call(method, path, body)
            assert (404, "not_found") == (answer.status, answer.code), (method, path)
    assert ["mail"] == [queue["queue"] for queue in (await api.get("/v1/queues")).doc["items"]]


@on_the_fake
@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"retry": {"max_attempts": 0}}, "/retry/max_attempts"), ({"retry": {"max_attempts": 1.5}}, "/retry/max_attempts"),
        ({"retry": {"max_attempts": "3"}}, "/retry/max_attempts"), ({"retry": {"max_attempts": 1e9}}, "/retry/max_attempts"),
        ({"retry": {"base": "8d"}}, "/retry/base"), ({"retry": {"jitter": 2}}, "/retry/jitter"), ({"retry": []}, "/retry"),
        ({"retry": {"tries": 1}}, "/retry/tries"), ({"timeout": 0}, "/timeout"), ({"timeout": "8d"}, "/timeout"),
        ({"timeout": "soon"}, "/timeout"), ({"timeout": -1}, "/timeout"), ({"rate": "1/w"}, "/rate"),
        ({"rate": {"limit": 0, "per": 1}}, "/rate/limit"), ({"concurrency": 0}, "/concurrency"), ({"concurrency": 1.5}, "/concurrency"),
        ({"paused": 1}, "/paused"), ({"breaker": []}, "/breaker"), ({"breaker": {"failure_rate": 0}}, "/breaker/failure_rate"),
        ({"breaker": {"failure_rate": 1.01}}, "/breaker/failure_rate"), ({"breaker": {"failure_rate": "1"}}, "/breaker/failure_rate"),
        ({"breaker": {"window": "999ms"}}, "/breaker/window"), ({"breaker": {"window": "25h"}}, "/breaker/window"),
        ({"breaker": {"minimum": 0}}, "/breaker/minimum"), ({"breaker": {"open_for": 0}}, "/breaker/open_for"),
        ({"breaker": {"probes": 1001}}, "/breaker/probes"), ({"breaker": {"colour": 1}}, "/breaker/colour"), ([], ""),
    ],
    ids=str,
)  # fmt: skip
async def test_what_cannot_be_set_is_named_and_nothing_is(api, body, path):
    await api.put(PATH, {"timeout": 1})
    for method in ("PUT", "PATCH"):
        answer = await api.call(method, PATH, body)
        assert (422, "validation", [path]) == (answer.status, answer.code, answer.paths)
    stands = (await api.get(PATH)).doc
    assert ({}, 1) == (stands["retry"], stands["timeout"])


@on_the_fake
async def test_names_that_can_be_none_are_refused(api):
    queue = await api.put("/v1/queues/a%20b/types/send", {})
    name = await api.put("/v1/queues/mail/types/a%7Db", {})

    assert (422, ["/queue"], 422, ["/type"]) == (queue.status, queue.paths, name.status, name.paths)
    assert [] == [key async for key in api.redis.scan_iter() if b"layout" not in key]


async def test_what_a_worker_declares_holds_where_nobody_has_set_anything(api):
    path = "/v1/queues/mail/types/send"
    said = {"retry": {"max_attempts": 3}, "timeout": 30}
    answers = [await api.put(f"{path}?declared=true", said) for _ in range(2)]

    assert [201, 200] == [answer.status for answer in answers]
    assert answers[0].headers["ETag"] == answers[1].headers["ETag"], "said again, it changes nothing"
    assert ({}, None) == (answers[1].doc["retry"], answers[1].doc["timeout"])
    assert (3, 30) == (
        answers[1].doc["in_force"]["retry"]["max_attempts"],
        answers[1].doc["in_force"]["timeout"],
    )
    await api.put(path, {"timeout": 60})
    assert 60 == (await api.put(f"{path}?declared=true", said)).doc["in_force"]["timeout"]
    assert ["/declared"] == (await api.put(f"{path}?declared=yes", said)).paths

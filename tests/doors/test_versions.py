"""Conditions on what is configured, repeated answers, and a path before all addresses."""

import asyncio

import pytest


@pytest.fixture
def backend():
    return "fake"


THINGS = {
    "/v1/queues/mail": ({}, {"max_length": 5}),
    "/v1/queues/mail/types/send": ({"timeout": 5}, {"timeout": 6}),
    "/v1/schedules/nightly": (
        {"type": "send", "queue": "mail", "every": "1h"}, {"type": "send", "queue": "mail", "every": "2h"},
    ),
}  # fmt: skip
over_things = pytest.mark.parametrize(("path", "bodies"), THINGS.items(), ids=["queue", "type", "schedule"])


@over_things
async def test_what_stands_is_not_overwritten_where_there_was_to_be_nothing(api, path, bodies):
    first = await api.put(path, bodies[0], If_None_Match="*")
    stood = (await api.get(path)).headers["ETag"]
    second = await api.put(path, bodies[1], If_None_Match="*")

    assert [201, 412] == [first.status, second.status]
    assert "precondition_failed" == second.code
    assert stood in second.doc["detail"]
    assert stood == (await api.get(path)).headers["ETag"]


@over_things
async def test_of_two_that_create_it_at_once_one_does(api, path, bodies):
    answers = await asyncio.gather(*(api.put(path, body, If_None_Match="*") for body in bodies))

    assert [201] == [answer.status for answer in answers if answer.status != 412]


@over_things
async def test_a_put_under_a_tag_that_must_not_stand(api, path, bodies):
    tag = (await api.put(path, bodies[0])).headers["ETag"]

    assert 412 == (await api.put(path, bodies[1], If_None_Match=tag)).status
    assert 412 == (await api.put(path, bodies[1], If_None_Match=f'"4711", W/{tag}')).status
    assert 200 == (await api.put(path, bodies[1], If_None_Match='"4711"')).status


@over_things
async def test_what_the_caller_knows_is_not_sent_again(api, path, bodies):
    tag = (await api.put(path, bodies[0])).headers["ETag"]

    for known in (tag, f"W/{tag}", "*", f'"4711", {tag}'):
        answer = await api.get(path, If_None_Match=known)
        assert (304, b"", tag) == (answer.status, answer.raw, answer.headers["ETag"]), known
    assert 304 == (await api.call("HEAD", path, If_None_Match=tag)).status
    assert 200 == (await api.get(path, If_None_Match='"4711"')).status
    await api.put(path, bodies[1])
    assert 200 == (await api.get(path, If_None_Match=tag)).status


async def test_what_the_caller_knows_of_a_group(api):
    await api.put("/v1/queues/mail", {})
    tag = (await api.patch("/v1/queues/mail/groups/acme", {"weight": 2})).headers["ETag"]

    assert 304 == (await api.get("/v1/queues/mail/groups/acme", If_None_Match=tag)).status


async def test_what_is_not_there_is_not_known_either(api):
    for path in THINGS:
        assert 404 == (await api.get(path, If_None_Match="*")).status


@over_things
async def test_a_weak_tag_is_named_in_the_refusal(api, path, bodies):
    tag = (await api.put(path, bodies[0])).headers["ETag"]

    answer = await api.put(path, bodies[1], If_Match=f"W/{tag}")

    assert (412, "precondition_failed") == (answer.status, answer.code)
    assert f"W/{tag} is a weak tag, which fits nothing: send {tag}" in answer.doc["detail"]
    assert 200 == (await api.put(path, bodies[1], If_Match=f'"4711", {tag}')).status


async def test_a_schedule_that_stands_in_another_queue_stands(api):
    await api.put("/v1/schedules/nightly", {"type": "send", "queue": "other", "every": "1h"})

    assert (
        412
        == (
            await api.put("/v1/schedules/nightly", THINGS["/v1/schedules/nightly"][0], If_None_Match="*")
        ).status
    )


async def test_a_repeated_answer_says_so(api):
    sent = {"type": "send", "queue": "mail"}
    first = await api.post("/v1/jobs", sent, Idempotency_Key="k")
    second = await api.post("/v1/jobs", sent, Idempotency_Key="k")
    many = [await api.post("/v1/jobs/bulk", [sent], Idempotency_Key="m") for _ in range(2)]

    assert [201, 201] == [first.status, second.status]
    assert (first.raw, first.headers["Location"]) == (second.raw, second.headers["Location"])
    assert "Idempotent-Replayed" not in first.headers
    assert "true" == second.headers["Idempotent-Replayed"]
    assert [None, "true"] == [answer.headers.get("Idempotent-Replayed") for answer in many]


async def test_a_path_of_a_proxy_stands_before_every_address(serving):
    api = await serving(path_prefix="/jobs")

    made = await api.post("/v1/jobs", {"type": "send", "queue": "mail", "id": "a"}, Idempotency_Key="k")
    again = await api.post("/v1/jobs", {"type": "send", "queue": "mail", "id": "a"}, Idempotency_Key="k")
    flow = await api.post("/v1/flows", {"queue": "mail", "id": "f", "jobs": [{"name": "a", "type": "send"}]})
    home = await api.get("/")

    assert ["/jobs/v1/jobs/mail:a"] * 2 == [made.headers["Location"], again.headers["Location"]]
    assert "/jobs/v1/flows/mail:f" == flow.headers["Location"]
    assert "/jobs/docs" == home.headers["Location"]
    assert [{"url": "/jobs"}] == (await api.get("/openapi.json")).doc["servers"]


async def test_without_one_addresses_begin_at_the_root(api):
    assert (
        "/v1/jobs/mail:a"
        == (await api.post("/v1/jobs", {"type": "send", "queue": "mail", "id": "a"})).headers["Location"]
    )
    assert "servers" not in (await api.get("/openapi.json")).doc

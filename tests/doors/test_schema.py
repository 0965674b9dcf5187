"""A type's `schema`: payloads are checked against it at every door of REST, and what it refers to is never fetched."""

import asyncio

import orjson
import pytest

from scheduler.outcomes import TypePolicy
from scheduler.schemas import FRESH, Schemas
from tests.doors.conftest import on_valkey, until
from tests.doors.test_operations import ended

TYPE = "/v1/queues/mail/types/send"
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"to": {"type": "string", "format": "email"}, "a/b~c": {"type": "integer"}, "n": {"maximum": 10}},
    "required": ["to"],
}  # fmt: skip
GOOD, BAD = {"to": "ada@example.org"}, {"to": 5}


async def put(api, schema=SCHEMA, **more):
    answer = await api.put(TYPE, {"schema": schema, **more})
    assert answer.status in {200, 201}, answer.raw
    return answer


async def post(api, payload, key="a", **fields):
    return await api.post(
        "/v1/jobs", {"type": "send", "queue": "mail", "id": key, "payload": payload, **fields}
    )


async def test_a_schema_is_shown_as_it_was_set_and_lifted(api):
    answer = await put(api, timeout=30)
    assert (SCHEMA, 30) == (answer.doc["schema"], answer.doc["timeout"])
    assert SCHEMA == (await api.get(TYPE)).doc["schema"]
    assert SCHEMA == (await api.get("/v1/queues/mail/types")).doc["items"][0]["schema"]

    assert SCHEMA == (await api.patch(TYPE, {"timeout": 40})).doc["schema"]
    assert 422 == (await post(api, BAD)).status
    answer = await api.patch(TYPE, {"schema": None})
    assert (None, 40) == (answer.doc["schema"], answer.doc["timeout"])
    assert 201 == (await post(api, BAD)).status
    await put(api)
    assert None is (await api.put(TYPE, {})).doc["schema"]
    await put(api)
    assert 204 == (await api.call("DELETE", TYPE)).status
    assert 201 == (await post(api, BAD, "b")).status


@pytest.mark.parametrize(
    ("payload", "paths"),
    [
        ({}, ["/payload"]),
        (None, ["/payload"]),
        ([], ["/payload"]),
        ({"to": 5}, ["/payload/to"]),
        ({"to": "nobody"}, ["/payload/to"]),
        ({"to": "a@example.org", "a/b~c": "x"}, ["/payload/a~1b~0c"]),
        ({"to": 5, "n": 11}, ["/payload/n", "/payload/to"]),
    ],
)
async def test_what_does_not_fit_is_refused_by_its_pointer(api, payload, paths):
    await put(api)
    answer = await post(api, payload)

    assert (422, "validation", paths) == (answer.status, answer.code, sorted(answer.paths))
    assert 404 == (await api.get("/v1/jobs/mail:a")).status
    assert 201 == (await post(api, GOOD)).status


async def test_other_types_and_other_queues_are_not_judged(api):
    await put(api)

    assert 201 == (await post(api, BAD, type="other")).status
    assert 201 == (await post(api, BAD, queue="other")).status


async def test_of_many_faults_the_first_are_told_and_long_ones_are_cut(api):
    await put(api, {"items": {"type": "integer"}})
    answer = await post(api, ["x" * 10_000] * 50)

    assert (422, 20) == (answer.status, len(answer.doc["errors"]))
    assert len(answer.raw) < 20_000


async def test_in_bulk_an_item_that_does_not_fit_spoils_no_other(api):
    await put(api)
    jobs = [{"type": "send", "queue": "mail", "payload": payload} for payload in (GOOD, BAD, GOOD)]

    answer = await api.post("/v1/jobs/bulk", jobs)
    items = answer.doc["items"]
    assert [201, 422, 201] == [item["status"] for item in items]
    assert ["/payload/to"] == [fault["path"] for fault in items[1]["errors"]]
    lines = b"\n".join(orjson.dumps(job) for job in jobs)
    answer = await api.post("/v1/jobs/bulk", lines, Content_Type="application/x-ndjson")
    *said, last = [orjson.loads(line) for line in answer.raw.splitlines()]
    assert ([1], 2, 1) == ([line["index"] for line in said], last["created"], last["failed"])
    assert ["/payload/to"] == [fault["path"] for fault in said[0]["errors"]]


async def test_edits_are_checked_too(api):
    await api.dead("dead", payload=GOOD)
    await api.enqueue("waits", payload=GOOD)
    await put(api)

    for answer in (
        await api.patch("/v1/jobs/mail:waits", {"payload": BAD}),
        await api.post("/v1/jobs/mail:dead/replay", {"payload": BAD}),
        await api.post("/v1/jobs/mail:waits/copy", {"payload": BAD}),
    ):
        assert (422, ["/payload/to"]) == (answer.status, answer.paths)
    assert 200 == (await api.patch("/v1/jobs/mail:waits", {"payload": GOOD})).status
    assert 404 == (await api.patch("/v1/jobs/mail:nobody", {"payload": BAD})).status


async def test_a_patch_over_dead_letters_leaves_those_that_would_not_fit(api):
    await api.dead("dead", payload=GOOD)
    await put(api)

    answer = await api.post("/v1/queues/mail/dlq/replay", {"payload_patch": {"to": 5}})
    operation = await ended(api, answer.doc)

    assert (1, 0, 1) == (operation["matched"], operation["done"], operation["failed"])


async def test_what_stood_before_the_schema_is_left_alone(api):
    await post(api, BAD, "old")
    await put(api)

    assert "ready" == (await api.get("/v1/jobs/mail:old")).doc["state"]
    assert 1 == len(await api.lease())


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        (5, "/schema"),
        ("object", "/schema"),
        ([], "/schema"),
        ({"type": "nonsense"}, "/schema/type"),
        ({"properties": {"x": {"minimum": "3"}}}, "/schema/properties/x/minimum"),
        ({"pattern": "("}, "/schema/pattern"),
        ({"$ref": "#/$defs/none"}, "/schema"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "/schema/$schema"),
        ({"$schema": 5}, "/schema/$schema"),
        ({"$ref": "http://127.0.0.1:1/schema"}, "/schema"),
        ({"$ref": "file:///etc/passwd"}, "/schema"),
        ({"properties": {"x": {"$ref": "https://example.org/schema"}}}, "/schema"),
    ],
)
async def test_what_is_no_schema_is_refused(api, schema, path):
    answer = await api.put(TYPE, {"schema": schema})
    assert (422, "validation", [path]) == (answer.status, answer.code, answer.paths)
    assert 404 == (await api.get(TYPE)).status
    await put(api)
    answer = await api.patch(TYPE, {"schema": schema})
    assert (422, [path]) == (answer.status, answer.paths)
    assert SCHEMA == (await api.get(TYPE)).doc["schema"]


async def test_a_schema_of_64_kib_is_too_large_and_a_deep_one_is_refused(api):
    answer = await api.put(TYPE, {"schema": {"description": "x" * 70_000}})
    assert (413, "too_large") == (answer.status, answer.code)
    deep = b'{"properties":{"a":' * 200 + b"{}" + b"}}" * 200
    answer = await api.put(TYPE, b'{"schema":' + deep + b"}")
    assert answer.status in {201, 422}


@on_valkey
async def test_nothing_is_fetched(api):
    asked = []

    async def listen(_reader, writer):
        asked.append(1)
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    answer = await api.put(TYPE, {"schema": {"$ref": f"http://127.0.0.1:{port}/schema"}})
    server.close()

    assert (422, []) == (answer.status, asked)


async def test_integers_of_any_length_and_true_are_judged_as_json_is(api):
    await put(api, {"type": "integer"})

    assert 201 == (await post(api, 3, "a")).status
    assert (
        201 == (await api.post("/v1/jobs", b'{"type":"send","queue":"mail","id":"b","payload":3.0}')).status
    )
    assert 422 == (await post(api, True, "c")).status
    assert 422 == (await post(api, 3.5, "d")).status


# -- how it is kept -------------------------------------------------------------------------------------------


async def test_another_process_knows_of_it_within_a_second(store):
    clock = [0.0]
    mine, theirs = (Schemas(store, now=lambda: clock[0]) for _ in range(2))
    assert {} == await mine.of("mail")
    assert {} == await theirs.of("mail")
    await store.configure_type("mail", "send", policy(b'{"type":"object"}'))
    mine.changed("mail")

    assert {"send": b'{"type":"object"}'} == await mine.of("mail")
    clock[0] += FRESH + 0.01
    assert {"send": b'{"type":"object"}'} == await theirs.of("mail")


def policy(schema):
    return TypePolicy(schema=schema)


@on_valkey
async def test_queues_without_schemas_cost_one_look_a_second(store):
    clock = [0.0]
    schemas = Schemas(store, now=lambda: clock[0])
    await store.clients.commands.config_resetstat()
    for n in range(1_000):
        assert {} == await schemas.of(f"queue-{n % 50}")
        clock[0] += 0.002

    stats = await store.clients.commands.info("commandstats")
    assert 3 >= stats["cmdstat_smembers"]["calls"]
    assert "cmdstat_hgetall" not in stats


async def test_an_obliterated_queue_has_none(api):
    await put(api)
    await api.call("DELETE", "/v1/queues/mail?confirm=mail")

    async def accepted():
        return (await post(api, BAD)).status == 201

    assert await until(accepted)

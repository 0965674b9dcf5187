"""POST /v1/jobs/bulk: each item is answered for itself, in order."""

import asyncio

import msgspec
import orjson
import pytest

from scheduler.errors import StoreFull, StoreRefused, StoreUnavailable
from scheduler.job import NewJob
from scheduler.shown import BulkShown
from tests.doors.conftest import on_valkey
from tests.helpers import on_the_fake

BULK = "/v1/jobs/bulk"


async def bulk(api, items, **headers):
    answer = await api.post(BULK, items, **headers)
    assert 200 == answer.status, answer.raw
    msgspec.convert(answer.doc, BulkShown)
    return answer.doc["items"]


def job(**fields):
    return {"type": "send", "queue": "mail", **fields}


async def ready(api, queue="mail"):
    return (await api.get(f"/v1/queues/{queue}")).doc["counts"]["ready"]


@pytest.mark.parametrize("envelope", [lambda items: items, lambda items: {"jobs": items}])
async def test_an_array_or_an_object_is_answered_in_order(api, envelope):
    items = await bulk(api, envelope([job(id=f"k{n}", payload=n) for n in range(1200)]))

    assert [{"status": 201, "id": f"mail:k{n}"} for n in range(1200)] == items
    assert 1200 == await ready(api)
    assert [f"mail:k{n}" for n in range(5)] == [job["id"] for job in await api.lease(max=5)]
    assert 1199 == (await api.get("/v1/jobs/mail:k1199")).doc["payload"]


async def test_empty_in_empty_out(api):
    assert [] == await bulk(api, [])
    assert [] == await bulk(api, {"jobs": []})
    assert [] == [key async for key in api.redis.scan_iter() if b"layout" not in key]


async def test_every_job_is_in_its_own_queue_and_the_queues_are_known(api):
    items = await bulk(api, [job(queue=f"q{n % 7}", id=f"k{n}") for n in range(70)])

    assert [f"q{n % 7}:k{n}" for n in range(70)] == [item["id"] for item in items]
    queues = (await api.get("/v1/queues")).doc["items"]
    assert [(f"q{n}", 10) for n in range(7)] == [(q["queue"], q["counts"]["ready"]) for q in queues]


async def test_keys_are_made_where_none_are_given(api):
    items = await bulk(api, [job(), job(queue="other"), job()])

    assert ["mail", "other", "mail"] == [item["id"].split(":")[0] for item in items]
    assert 3 == len({item["id"] for item in items})
    assert all("7" == item["id"].split(":")[1][14] for item in items), "UUIDv7"


async def test_one_bad_item_spoils_no_other(api):
    bad = [
        ({"queue": "mail"}, 422, "validation", ["/type"]),
        (job(type="no name"), 422, "validation", ["/type"]),
        (job(colour="red"), 422, "validation", ["/colour"]),
        (job(priority=101, tags=["ok", "not ok"]), 422, "validation", ["/priority", "/tags/1"]),
        (job(run_at="2027-01-01T00:00:00"), 422, "validation", ["/run_at"]),
        (job(run_at="2099-01-01T00:00:00Z"), 422, "validation", ["/run_at"]),
        (job(retry={"base": "soon"}), 422, "validation", ["/retry/base"]),
        (job(id="other:a"), 422, "validation", ["/id"]),
        (job(unique={"key": "a b"}), 422, "validation", ["/unique/key"]),
        ("a job", 422, "validation", [""]),
        (None, 422, "validation", [""]),
        (job(payload="x" * (1024 * 1024)), 413, "too_large", None),
    ]
    good = [job(id=f"k{n}") for n in range(len(bad) + 1)]
    sent = [good[0]]
    for n, (item, *_) in enumerate(bad):
        sent += [item, good[n + 1]]
    items = await bulk(api, sent)

    assert [{"status": 201, "id": f"mail:k{n}"} for n in range(len(good))] == items[::2]
    for (item, status, code, paths), answer in zip(bad, items[1::2], strict=True):
        got = answer["status"], answer["code"], [e["path"] for e in answer.get("errors", ())] or None
        assert (status, code, paths) == got, item
        assert {"type", "title", "status", "detail", "code"} <= set(answer)
    assert len(good) == await ready(api)


async def test_an_item_that_is_too_deep_or_has_half_a_character_is_its_own_trouble(api):
    deep = b'{"type":"t","payload":' + b"[" * 512 + b"]" * 512 + b"}"
    just = b'{"type":"t","payload":' + b"[" * 511 + b"]" * 511 + b"}"
    items = await bulk(api, b"[" + b",".join([b'{"type":"t"}', deep, just]) + b"]")

    assert [201, 400, 201] == [item["status"] for item in items]
    assert "invalid_json" == items[1]["code"]


async def test_what_stood_before_is_a_duplicate_and_another_request_a_conflict(api):
    await api.enqueue("a", payload=1)
    items = await bulk(api, [job(id="a", payload=1), job(id="a", payload=2), job(id="b")])

    assert {"status": 200, "id": "mail:a", "duplicate": True} == items[0]
    assert (409, "duplicate") == (items[1]["status"], items[1]["code"])
    assert {"status": 201, "id": "mail:b"} == items[2]


async def test_the_same_id_twice_in_one_request(api):
    items = await bulk(api, [job(id="a"), job(id="mail:a"), job(id="a", payload=2)])

    assert [201, 200, 409] == [item["status"] for item in items]
    assert 1 == await ready(api)


async def test_a_bulk_repeated_makes_nothing_twice(api):
    sent = [job(id=f"k{n}") for n in range(600)]
    await bulk(api, sent)

    assert {200} == {item["status"] for item in await bulk(api, sent)}
    assert 600 == await ready(api)


async def test_a_payload_comes_back_byte_for_byte(api):
    payload = b'{"n": 123456789012345678901234567890, "b" : [ 1.10 , 1e400 ]}'
    await bulk(api, b'[{"type":"t","id":"a","payload":' + payload + b"}]")

    assert b'"payload":' + payload + b"," in (await api.get("/v1/jobs/default:a")).raw


@on_the_fake
@pytest.mark.parametrize(
    ("body", "status", "code", "paths"),
    [
        (b"", 400, "invalid_json", None), (b"[", 400, "invalid_json", None), (b'[{"type":"t"},]', 400, "invalid_json", None),
        (b'[{"type":"t"}] x', 400, "invalid_json", None), (b'[{"type":"\xff"}]', 400, "invalid_json", None),
        (b"5", 422, "validation", [""]), (b'"x"', 422, "validation", [""]), (b"null", 422, "validation", [""]),
        (b"{}", 422, "validation", ["/jobs"]), (b'{"jobs":{}}', 422, "validation", ["/jobs"]),
        (b'{"jobs":[],"queue":"q"}', 422, "validation", ["/queue"]),
    ],
)  # fmt: skip
async def test_what_is_no_list_of_jobs_is_refused_as_a_whole(api, body, status, code, paths):
    answer = await api.post(BULK, body)

    assert (status, code) == (answer.status, answer.code), answer.raw
    if paths is not None:
        assert paths == answer.paths
    assert [] == [key async for key in api.redis.scan_iter() if b"layout" not in key]


@on_the_fake
async def test_a_body_may_have_32_mib(api):
    most = 32 * 1024 * 1024
    item = b'{"type":"t","payload":"' + b"x" * 1_000_000 + b'"}'
    body = b"[" + b",".join([item] * 33) + b"]"
    exactly = body + b" " * (most - len(body))

    assert [201] * 33 == [item["status"] for item in await bulk(api, exactly)]
    answer = await api.post(BULK, exactly + b" ")
    assert (413, "too_large") == (answer.status, answer.code)


@on_the_fake
async def test_a_bulk_of_nonsense_is_refused_before_it_is_answered_by_gigabytes(api):
    answer = await api.post(BULK, b"[" + b"0," * 500_000 + b"0]")

    assert (413, "too_large") == (answer.status, answer.code)


# -- a store in trouble ------------------------------------------------------------------------------------------


def failing(api, monkeypatch, failures):
    """Makes the store's pipelines fail: for each in turn what it raises, or what stands in a call's place by queue."""
    real = type(api.store).run_all
    calls = []

    async def run_all(self, sent):
        calls.append([(call.queue, call.args[2::12]) for call in sent if not call.plain])
        failure = failures.pop(0) if failures else None
        if isinstance(failure, Exception):
            await real(self, sent)  # it was carried out, and its answer lost
            raise failure
        if failure is None:
            return await real(self, sent)
        return [failure[c.queue] if c.queue in failure else (await real(self, [c]))[0] for c in sent]

    monkeypatch.setattr(type(api.store), "run_all", run_all)
    return calls


async def test_an_answer_that_was_lost_is_asked_for_once_more_with_the_same_ids(api, monkeypatch):
    calls = failing(api, monkeypatch, [StoreUnavailable("gone", unknown=True)])
    items = await bulk(api, [job(id="a"), job()])

    assert calls[0] == calls[1]
    assert {201} == {item["status"] for item in items}, "this call itself made them"
    monkeypatch.undo()
    assert 2 == await ready(api)


async def test_an_unknown_outcome_names_the_id_of_each_job_so_that_it_can_be_repeated(api, monkeypatch):
    failing(api, monkeypatch, [StoreUnavailable("gone", unknown=True)] * 2)
    items = await bulk(api, [job(id="a"), job(), job(colour=1)])
    monkeypatch.undo()

    assert [503, 503, 422] == [item["status"] for item in items]
    assert ["store_unavailable"] * 2 == [item["code"] for item in items[:2]]
    assert "mail:a" == items[0]["id"]
    again = await bulk(api, [job(id=item["id"]) for item in items[:2]])
    assert [200, 200] == [item["status"] for item in again]
    assert 2 == await ready(api)


async def test_trouble_of_one_queue_leaves_the_others_answered(api, monkeypatch):
    trouble = {
        "full": StoreFull("no room"),
        "away": StoreUnavailable("loading"),
        "odd": StoreRefused("LEVEL 9"),
    }
    failing(api, monkeypatch, [trouble] * 2)
    queues = ["mail", "full", "away", "odd"]
    items = await bulk(api, [job(queue=queue, id=f"k{n}") for n, queue in enumerate(queues * 2)])
    monkeypatch.undo()

    told = [(201, None), (507, "store_full"), (503, "store_unavailable"), (503, "store_unavailable")]
    assert told * 2 == [(item["status"], item.get("code")) for item in items]
    assert not any("id" in item for item in items if item["status"] != 201), "these are surely not there"
    assert 2 == await ready(api)


@on_valkey
async def test_a_full_server_says_so_for_each_job(api):
    await api.enqueue("first")
    used = (await api.redis.info("memory"))["used_memory"]
    await api.redis.config_set("maxmemory", used)
    try:
        items = await bulk(api, [job(payload="x" * 500_000) for _ in range(3)])
    finally:
        await api.redis.config_set("maxmemory", 0)

    assert [(507, "store_full")] * 3 == [(item["status"], item["code"]) for item in items]
    assert 1 == await ready(api)


# -- in few steps ------------------------------------------------------------------------------------------------


async def test_the_store_is_asked_in_one_pipeline_by_calls_of_a_bounded_size(api, monkeypatch):
    calls = failing(api, monkeypatch, [])
    sent = [job(queue=f"q{n % 3}", id=f"k{n}") for n in range(3600)]
    sent += [job(queue="large", id=f"l{n}", payload="x" * 900_000) for n in range(6)]
    await bulk(api, sent)
    monkeypatch.undo()

    [pipeline] = calls
    assert [500, 500, 200] * 3 + [4, 2] == [len(keys) for _, keys in pipeline]


async def test_the_store_never_gets_a_payload_that_it_would_not_take_alone(api, monkeypatch):
    calls = failing(api, monkeypatch, [])
    await bulk(api, [job(payload="x" * 2_000_000)])

    assert [] == calls


@on_valkey
async def test_other_requests_have_their_turn_while_a_large_bulk_is_read(api):
    body = orjson.dumps([job() for _ in range(30_000)])
    large = asyncio.create_task(bulk(api, body))
    while not large.done():
        assert 200 == (await api.get("/livez")).status
        await asyncio.sleep(0)
    assert 30_000 == len(await large)


async def test_jobs_of_any_queues_are_each_answered_by_the_store(api):
    jobs = [NewJob(type="t", queue=queue, key=key) for queue, key in (("a", "1"), ("b", "1"), ("a", "2"))]

    assert ["a:1", "b:1", "a:2"] == [outcome.id for outcome in await api.store.enqueue_each(jobs)]
    assert ["exists"] * 3 == [outcome.outcome for outcome in await api.store.enqueue_each(jobs)]

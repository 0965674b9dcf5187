"""POST /v1/jobs/bulk with NDJSON: any number of jobs, in constant memory, answered while they come."""

import asyncio
import io
import tracemalloc
from contextlib import asynccontextmanager

import msgspec
import orjson
import pytest
from aiohttp import ClientPayloadError

from scheduler import schemas
from scheduler.api import Deadlines
from scheduler.errors import StoreUnavailable
from scheduler.shown import BulkDone, BulkLine
from tests.doors.conftest import on_valkey, served, until
from tests.helpers import on_the_fake

BULK = "/v1/jobs/bulk"
NDJSON = {"Content-Type": "application/x-ndjson"}


@asynccontextmanager
async def posting(api, body, query="", **headers):
    """An answer that has begun, while its body may still be sent."""
    sent = NDJSON | {name.replace("_", "-"): value for name, value in headers.items()}
    url = f"http://127.0.0.1:{api.port}{BULK}{query}"
    data = io.BytesIO(body) if isinstance(body, bytes) else body
    async with api.session.post(url, data=data, headers=sent) as answer:
        yield answer


async def post(api, body, query="", **headers):
    async with posting(api, body, query, **headers) as answer:
        return answer.status, answer.headers["Content-Type"], await answer.read()


async def lines(api, body, query=""):
    """The lines of a whole answer, its last one apart."""
    status, kind, raw = await post(api, body, query)
    assert (200, "application/x-ndjson") == (status, kind), raw
    assert raw.endswith(b"\n")
    *items, done = [orjson.loads(line) for line in raw.splitlines()]
    for item in items:
        msgspec.convert(item, BulkLine)
    msgspec.convert(done, BulkDone)
    return items, (done["created"], done["duplicates"], done["failed"])


def job(**fields):
    return orjson.dumps({"type": "send", "queue": "mail", **fields}) + b"\n"


async def ready(api, queue="mail"):
    return (await api.get(f"/v1/queues/{queue}")).doc["counts"]["ready"]


async def test_a_job_a_line_is_enqueued_and_what_was_created_is_only_counted(api):
    items, counts = await lines(api, b"".join(job(id=f"k{n}", payload=n) for n in range(1200)))

    assert [] == items
    assert (1200, 0, 0) == counts
    assert 1200 == await ready(api)
    assert [f"mail:k{n}" for n in range(5)] == [one["id"] for one in await api.lease(max=5)]
    assert 1199 == (await api.get("/v1/jobs/mail:k1199")).doc["payload"]


async def test_all_results_are_lines_of_their_own_where_that_is_asked(api):
    items, counts = await lines(api, job(id="a") + job(id="b") + b"{}\n" + job(id="a"), "?results=all")

    assert [(0, 201), (1, 201), (2, 422), (3, 200)] == [(item["index"], item["status"]) for item in items]
    assert {"index": 0, "status": 201, "id": "mail:a"} == items[0]
    assert {"index": 3, "status": 200, "id": "mail:a", "duplicate": True} == items[3]
    assert (2, 1, 1) == counts


async def test_results_takes_one_word_and_a_json_body_takes_it_too(api):
    status, _, raw = await post(api, job(), "?results=none")

    assert (422, "/results") == (status, orjson.loads(raw)["errors"][0]["path"])
    answer = await api.post(f"{BULK}?results=all", [{"type": "send"}])
    assert [201] == [item["status"] for item in answer.doc["items"]]


async def test_one_bad_item_in_ten_thousand_is_named_and_spoils_no_other(api):
    sent = [job(id=f"k{n}") for n in range(10_000)]
    sent[7_321] = job(id="k7321", priority=101, tags=["ok", "not ok"])
    [item], counts = await lines(api, b"".join(sent))

    assert (7_321, 422, "validation") == (item["index"], item["status"], item["code"])
    assert ["/priority", "/tags/1"] == [fault["path"] for fault in item["errors"]]
    assert (9_999, 0, 1) == counts
    assert 9_999 == await ready(api)


async def test_a_line_that_is_no_job_is_its_own_trouble(api):
    bad = [
        (b"no json\n", 400, "invalid_json"),
        (b'{"type":"t","payload":"\xff"}\n', 400, "invalid_json"),
        (b"\xef\xbb\xbf" + job(), 400, "invalid_json"),
        (b'{"type":"t"},{"type":"t"}\n', 400, "invalid_json"),
        (b'{"type":"t"}{"type":"t"}\n', 400, "invalid_json"),
        (b'{"type":"t","payload":[1,\n', 400, "invalid_json"),
        (b"2]}\n", 400, "invalid_json"),
        (b'{"type":"t","payload":' + b"[" * 512 + b"]" * 512 + b"}\n", 400, "invalid_json"),
        (b"[]\n", 422, "validation"),
        (b"null\n", 422, "validation"),
        (job(colour="red"), 422, "validation"),
        (job(payload="x" * (1024 * 1024)), 413, "too_large"),
        (b'{"type":"t","payload":"' + b"x" * 10_000_000 + b'"}\n', 413, "too_large"),
    ]
    sent = b"".join(job(id=f"k{n}") + line for n, (line, *_) in enumerate(bad)) + job(id="last")
    items, counts = await lines(api, sent)

    expected = [(2 * n + 1, status, code) for n, (_, status, code) in enumerate(bad)]
    assert expected == [(item["index"], item["status"], item["code"]) for item in items]
    assert (len(bad) + 1, 0, len(bad)) == counts
    assert len(bad) + 1 == await ready(api)


async def test_a_line_may_have_the_payload_s_limit_and_64_kib_more(serving):
    api = await serving(max_payload=1_000)
    most = 1_000 + 64 * 1024
    fits = b'{"type":"t"' + b" " * (most - 12) + b"}"
    items, counts = await lines(api, fits + b"\n" + fits[:-1] + b" }\n" + fits)

    assert [(1, 413)] == [(item["index"], item["status"]) for item in items]
    assert (2, 0, 1) == counts


async def test_blank_lines_are_no_items_and_the_last_line_needs_no_end(api):
    sent = b"\n \t\r\n" + job(id="a") + b"\r\n\n" + b"{}\r\n" + b"\n" + job(id="b").rstrip()
    items, counts = await lines(api, sent)

    assert [(1, 422)] == [(item["index"], item["status"]) for item in items]
    assert (2, 0, 1) == counts


async def test_nothing_in_is_nothing_out_but_the_last_line(api):
    assert ([], (0, 0, 0)) == await lines(api, b"")
    assert ([], (0, 0, 0)) == await lines(api, b"\n\n")
    assert [] == [key async for key in api.redis.scan_iter() if b"layout" not in key]


async def test_what_stood_before_is_named_and_another_request_is_a_conflict(api):
    await api.enqueue("a", payload=1)
    items, counts = await lines(api, job(id="a", payload=1) + job(id="a", payload=2) + job(id="b"))

    assert [(0, 200, True), (1, 409, None)] == [
        (item["index"], item["status"], item.get("duplicate")) for item in items
    ]
    assert (1, 1, 1) == counts


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content_Type": "application/x-ndjson; charset=utf-8"}, 200),
        ({"Content_Type": "Application/X-NDJSON;charset=UTF-8"}, 200),
        ({"Content_Type": "application/x-ndjson; charset=latin-1"}, 415),
        ({"Content_Type": "application/x-ndjsonp"}, 415),
        ({"Content_Type": "application/ndjson"}, 415),
        ({"Content_Encoding": "gzip"}, 415),
        ({"Idempotency_Key": "a"}, 422),
    ],
)
async def test_the_headers_say_what_it_is(api, headers, status):
    assert status == (await post(api, job(), **headers))[0]


async def test_ndjson_is_for_bulk_alone(api):
    answer = await api.post("/v1/jobs", job(), Content_Type="application/x-ndjson")

    assert (415, "unsupported_media_type") == (answer.status, answer.code)


async def test_jobs_are_enqueued_and_answered_while_others_are_still_to_come(api):
    more = asyncio.Event()

    async def body():
        yield job(id="a") + b"{}\n" + b'{"type":'
        await more.wait()
        yield b'"send"}\n' + job(id="a")

    async with posting(api, body()) as answer:
        first = orjson.loads(await answer.content.readline())
        stands = (await api.get("/v1/jobs/mail:a")).doc["state"]
        more.set()
        rest = [orjson.loads(line) for line in (await answer.read()).splitlines()]

    assert (1, 422, "ready") == (first["index"], first["status"], stands)
    assert {"index": 3, "status": 200, "id": "mail:a", "duplicate": True} == rest[0]
    assert {"done": True, "created": 2, "duplicates": 1, "failed": 1} == rest[1]


async def test_a_caller_who_hangs_up_half_way_keeps_what_was_enqueued(api, said):
    sent = job(id="a") + b'{"type": "se'
    head = f"POST {BULK} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: 1000\r\n\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(head.encode() + sent)
    await until(lambda: api.redis.hlen("{scheduler:mail}:jobs"))
    writer.close()

    assert 1 == await ready(api)
    assert "ready" == (await api.get("/v1/jobs/mail:a")).doc["state"]
    assert "" == said()


async def test_a_body_that_stops_flowing_is_refused_and_what_came_stands(clients, backend):
    async with served(clients, deadlines=Deadlines(body=0.3)) as api:

        async def body(*first):
            for text in first:
                yield text
            await asyncio.Event().wait()

        status, _, raw = await post(api, body(job(id="a")))
        assert (408, "request_timeout") == (status, orjson.loads(raw)["code"])

        status, _, raw = await post(api, body(job(id="b"), b"{}\n"))
        answered = [orjson.loads(line) for line in raw.splitlines()]
        assert [(200, 422), (200, 408)] == [(status, line["status"]) for line in answered]
        assert "index" not in answered[-1]
        assert 2 == await ready(api)


async def test_a_stream_lives_as_long_as_it_flows(clients, backend):
    async with served(clients, deadlines=Deadlines(body=0.3, rate=1024)) as api:

        async def body():
            for n in range(8):
                yield job(id=f"k{n}", payload="x" * 300)
                await asyncio.sleep(0.1)

        assert ([], (8, 0, 0)) == await lines(api, body())


@on_the_fake
async def test_a_store_that_goes_away_in_between_leaves_what_was_answered(api, monkeypatch):
    away = asyncio.Event()
    real = api.store.run_all

    async def run_all(calls):
        if away.is_set():
            raise StoreUnavailable("gone", unknown=True)
        return await real(calls)

    monkeypatch.setattr(api.store, "run_all", run_all)

    async def body():
        yield job(id="a") + b"{}\n"
        await until(lambda: api.redis.hlen("{scheduler:mail}:jobs"))
        away.set()
        yield job(id="b") + job()

    items, counts = await lines(api, body())
    away.clear()

    assert [(1, 422), (2, 503), (3, 503)] == [(item["index"], item["status"]) for item in items]
    assert "mail:b" == items[1]["id"]
    assert items[2]["id"].startswith("mail:")
    assert (1, 0, 3) == counts


@on_the_fake
async def test_schemas_that_cannot_be_read_are_the_trouble_of_each_job_that_comes_meanwhile(api, monkeypatch):
    away = asyncio.Event()
    real = api.store.queues_with_schemas

    async def queues_with_schemas():
        if away.is_set():
            raise StoreUnavailable("gone")
        return await real()

    monkeypatch.setattr(api.store, "queues_with_schemas", queues_with_schemas)
    monkeypatch.setattr(schemas, "FRESH", -1.0)

    async def body():
        yield job(id="a") + b"{}\n"
        await until(lambda: api.redis.hlen("{scheduler:mail}:jobs"))
        away.set()
        yield job(id="b") + b"{}\n"

    items, counts = await lines(api, body())
    away.clear()

    assert [(1, 422), (2, 503), (3, 422)] == [(item["index"], item["status"]) for item in items]
    assert (1, 0, 3) == counts


@on_the_fake
async def test_a_fault_in_the_midst_breaks_the_answer_off_and_writes_no_second_head(api, monkeypatch, said):
    async def broken(jobs):
        raise ZeroDivisionError

    async def body():
        yield b"{}\n"
        await answered.wait()
        monkeypatch.setattr(api.store, "enqueue_each", broken)
        yield job()

    answered, read = asyncio.Event(), b""

    async def reading():
        nonlocal read
        async with posting(api, body()) as answer:
            answered.set()
            async for line in answer.content:
                read += line

    with pytest.raises(ClientPayloadError):
        await reading()

    assert 1 == read.count(b"\n")
    assert b"HTTP/" not in read
    assert "ZeroDivisionError" in said()


@on_the_fake
async def test_a_caller_who_does_not_read_stops_the_stream_and_is_let_go_of(clients, backend):
    async with served(clients, deadlines=Deadlines(idle=0.3)) as api:
        _, writer = await asyncio.open_connection("127.0.0.1", api.port, limit=1024)
        head = f"POST {BULK} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        chunk = b"1\n" * 50_000
        sent = 0

        async def pour():
            nonlocal sent
            while True:
                writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                await writer.drain()
                sent += len(chunk)

        with pytest.raises(ConnectionError):
            async with asyncio.timeout(60):
                await pour()
        writer.close()
        # The answer to each of these lines is a hundred times as long.
        assert sent < 8_000_000


@on_valkey
async def test_memory_does_not_grow_with_the_stream(api):
    payload = "x" * 20_000

    async def body():
        for n in range(2_000):
            yield job(id=f"k{n}", payload=payload)
        yield b'{"type":"t","payload":"'
        for _ in range(400):
            yield b"x" * 100_000
        yield b'"}\n'

    tracemalloc.start()
    try:
        items, counts = await lines(api, body())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert [(2_000, 413)] == [(item["index"], item["status"]) for item in items]
    assert (2_000, 0, 1) == counts
    # 80 MB went through; a pipeline of 8 MiB is there as jobs, as commands and as the bytes that are sent.
    assert peak < 48_000_000

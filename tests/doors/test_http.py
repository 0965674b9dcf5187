"""HTTP itself: addresses, methods, types, sizes, slowness, and what is no HTTP at all."""

import asyncio
import contextlib
import json
import os
import socket

import pytest

from scheduler.api import ROUTES, Deadlines


@pytest.fixture
def backend():
    return "fake"


CANARY = b"canary-7f3a"
DOC = b'{"type":"t"}'


def request(line=b"POST /v1/jobs HTTP/1.1", *headers, body=b""):
    fixed = (b"Host: localhost", b"Content-Type: application/json")
    return b"\r\n".join([line, *fixed, *headers, b"", b""]) + body


async def test_an_address_that_is_none(api):
    for path in ("/nope", "/v1", "/v1/jobs/", "/v1/nope", "//", "/v1/queues/", "/v1/jobs/a/b/c"):
        answer = await api.get(path)
        assert (404, "not_found") == (answer.status, answer.code), path


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/v1/jobs/..;/", "/v1/jobs/mail:a%00", "/v1/jobs/%0d%0aSet-Cookie:x",
        "/v1/jobs/mail", "/v1/jobs/mail:", "/v1/jobs/:a", "/v1/jobs/mail:a:b", "/v1/jobs/%ff", "/v1/jobs/mail:%EF%BD%81",
        "/v1/jobs/" + "x" * 5000, "/v1/queues/a%7Db%7Bc", "/v1/queues/x:lease", "/v1/queues/" + "x" * 65,
        "/v1/queues/mail/types/a%20b",
    ],
)  # fmt: skip
async def test_an_id_or_name_that_can_be_none_is_not_found(api, path):
    answer = await api.get(path)

    assert (404, "not_found") == (answer.status, answer.code)
    assert "Set-Cookie" not in answer.headers
    assert [] == [key async for key in api.redis.scan_iter() if b"layout" not in key]


async def test_a_percent_encoded_id_is_the_id(api):
    await api.enqueue()

    assert 200 == (await api.get("/v1/jobs/mail%3Aa")).status


async def test_methods_that_an_address_does_not_take(api):
    taken: dict[str, set[str]] = {}
    for route in ROUTES:
        taken.setdefault(route.path, set()).update(
            {route.method} | ({"HEAD"} if route.method == "GET" else set())
        )
    for path, methods in taken.items():
        address = path.format(
            id="mail:a",
            queue="mail",
            type="send",
            operation="mail:op",
            group="acme",
            schedule="nightly",
            flow="mail:f",
        )
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - methods:
            answer = await api.call(method, address)
            assert (405, "method_not_allowed") == (answer.status, answer.code), (method, path)
            assert ", ".join(sorted(methods)) == answer.headers["Allow"]


@pytest.mark.parametrize("origin", ["null", "https://elsewhere.example", "http://127.0.0.1:8080"])
async def test_no_page_of_another_site_is_let_in(api, origin):
    preflight = {"Origin": origin, "Access_Control_Request_Method": "POST"}
    answers = [
        await api.call("OPTIONS", "/v1/jobs", **preflight, Access_Control_Request_Headers="content-type"),
        await api.get("/v1/queues", Origin=origin),
        await api.get("/openapi.json", Origin=origin),
        # What a form of another site can send without asking.
        await api.post("/v1/jobs", DOC, Origin=origin, Content_Type="text/plain"),
    ]

    assert [405, 200, 200, 415] == [answer.status for answer in answers]
    assert [] == [name for answer in answers for name in answer.headers if name.lower().startswith("access-")]


async def test_head_is_get_without_a_body(api):
    await api.enqueue()

    answer = await api.call("HEAD", "/v1/jobs/mail:a")

    assert (200, b"") == (answer.status, answer.raw)
    assert 404 == (await api.call("HEAD", "/v1/jobs/mail:b")).status


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json", "",
     "application/json; charset=utf-16", "application/x-ndjson", "application/problem+json"],
)  # fmt: skip
async def test_other_types_than_json_are_refused(api, content_type):
    answer = await api.post("/v1/jobs", DOC, Content_Type=content_type)

    assert (415, "unsupported_media_type") == (answer.status, answer.code)


@pytest.mark.parametrize(
    "content_type",
    ["application/json", 'Application/JSON; charset="UTF-8"', "application/json;charset=utf-8"],
)
async def test_json_may_be_called_json_in_all_ways(api, content_type):
    assert 201 == (await api.post("/v1/jobs", DOC, Content_Type=content_type)).status


async def test_a_body_without_a_type_is_refused(api):
    answer = await api.raw(
        b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 12\r\n\r\n" + DOC
    )

    assert answer.startswith(b"HTTP/1.1 415")


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "x"])
async def test_encoded_bodies_are_refused(api, encoding):
    answer = await api.post("/v1/jobs", DOC, Content_Encoding=encoding)

    assert (415, "unsupported_media_type") == (answer.status, answer.code)


async def test_a_body_over_its_limit_is_refused_declared_or_not(serving):
    api = await serving(max_payload=1000, deadlines=Deadlines(linger=0.05))
    size = 1000 + 64 * 1024 + 1
    padded = b'{"type":"t","id":"a"' + b" " * (size - 21) + b"}"
    assert size == len(padded)

    async def chunks():
        for start in range(0, size, 8192):
            yield padded[start : start + 8192]

    fits = await api.post("/v1/jobs", padded[:-2] + b"}")
    declared = await api.post("/v1/jobs", padded)
    url = f"http://127.0.0.1:{api.port}/v1/jobs"
    async with api.session.post(url, data=chunks(), headers={"Content-Type": "application/json"}) as chunked:
        assert (413, "too_large") == (chunked.status, (await chunked.json(content_type=None))["code"])

    assert (201, 413, "too_large") == (fits.status, declared.status, declared.code)
    assert "close" == declared.headers["Connection"]


async def test_a_declared_length_over_the_limit_is_refused_before_the_body(serving):
    api = await serving(deadlines=Deadlines(linger=0.05))

    answer = await api.raw(request(b"POST /v1/jobs HTTP/1.1", b"Content-Length: 10000000000"))

    assert answer.startswith(b"HTTP/1.1 413")
    assert b'"too_large"' in answer


async def test_a_body_is_asked_for_only_when_its_head_is_good(serving):
    api = await serving(deadlines=Deadlines(linger=0.05))
    close = b"Connection: close"
    refused = await api.raw(
        request(b"POST /v1/jobs HTTP/1.1", b"Expect: 100-continue", b"Content-Length: 100000000")
    )
    unknown = await api.raw(request(b"POST /nope HTTP/1.1", b"Expect: the-unexpected", b"Content-Length: 5"))
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(request(b"POST /v1/jobs HTTP/1.1", b"Expect: 100-continue", b"Content-Length: 12", close))
    asked = await reader.readuntil(b"\r\n\r\n")
    writer.write(DOC)
    done = await reader.read()
    writer.close()

    assert refused.startswith(b"HTTP/1.1 413")
    assert unknown.startswith(b"HTTP/1.1 417")
    assert b"application/problem+json" in unknown
    assert b"HTTP/1.1 100 Continue\r\n\r\n" == asked
    assert done.startswith(b"HTTP/1.1 201")


@pytest.mark.parametrize(
    ("sent", "kept"), [("abc-1._", True), ("x" * 128, True), ("x" * 129, False), ("a b", False)]
)
async def test_the_id_of_a_request_comes_back(api, sent, kept):
    for path in ("/livez", "/nope", "/v1/jobs/mail:a"):
        answer = await api.get(path, X_Request_Id=sent)
        assert kept == (sent == answer.headers["X-Request-Id"])
        assert 1 <= len(answer.headers["X-Request-Id"]) <= 128


async def test_every_request_has_an_id_of_its_own(api):
    assert 3 == len({(await api.get("/livez")).headers["X-Request-Id"] for _ in range(3)})


@pytest.mark.parametrize(
    ("query", "paths"),
    [("?x=1", ["/x"]), ("?wait=1&wait=1", ["/wait"]), ("?wait=1&a/b=1", ["/a~1b"]), ("?%ff=1", ["/\ufffd"])],
)
async def test_query_parameters_that_are_unknown_or_repeated(api, query, paths):
    answer = await api.get(f"/v1/jobs/mail:a{query}")

    assert (422, "validation", paths) == (answer.status, answer.code, answer.paths)


async def test_no_call_takes_a_query_it_does_not_know(api):
    for route in ROUTES:
        address = route.path.format(
            id="mail:a",
            queue="mail",
            type="send",
            operation="mail:op",
            group="acme",
            schedule="nightly",
            flow="mail:f",
        )
        answer = await api.call(route.method, f"{address}?colour=red")
        assert (422, ["/colour"]) == (answer.status, answer.paths), route.path


async def test_calls_without_fields_refuse_some(api):
    await api.enqueue(delay=60)
    for path in ("jobs/mail:a/run", "jobs/mail:a/cancel", "queues/mail/pause", "queues/mail/resume"):
        answer = await api.post(f"/v1/{path}", {"colour": "red"})
        assert (422, ["/colour"]) == (answer.status, answer.paths)
        assert 415 == (await api.post(f"/v1/{path}", b"x", Content_Type="text/plain")).status
        assert 400 == (await api.post(f"/v1/{path}", b"x")).status
        assert 200 == (await api.post(f"/v1/{path}", {})).status or path.endswith("run")


BROKEN = [
    request(
        b"POST /v1/jobs HTTP/1.1", b"Content-Length: 12", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"
    ),
    request(b"POST /v1/jobs HTTP/1.1", b"Content-Length: 12", b"Content-Length: 12", body=DOC),
    request(b"POST /v1/jobs HTTP/1.1", b"Content-Length: 12", b"Content-Length: 13", body=DOC),
    request(b"POST /v1/jobs HTTP/1.1", b"Content-Length: +5", body=b"12345"),
    request(b"POST /v1/jobs HTTP/1.1", b"Content-Length: 5_0", body=b"12345"),
    request(b"POST /v1/jobs HTTP/1.1", b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    request(b"POST /v1/jobs HTTP/1.1", b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"),
    request(
        b"POST /v1/jobs HTTP/1.1", b"Transfer-Encoding: chunked", body=b"0xC\r\n" + DOC + b"\r\n0\r\n\r\n"
    ),
    request(b"GET /livez HTTP/1.1", b"X : y"),
    b"GET /livez HTTP/1.1\nHost: localhost\n\n",
    request(b"GET /livez HTTP/1.1", b"X: y", b" folded"),
    request(b"GET /livez HTTP/1.1", b"X: a\0b"),
    request(b"GET /" + b"x" * 9000 + b" HTTP/1.1"),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"hello\r\n\r\n",
]


@pytest.mark.parametrize("sent", BROKEN, ids=range(len(BROKEN)))
async def test_broken_http_is_answered_without_repeating_it_or_logging_it(api, said, sent):
    answer = await api.raw(
        sent.replace(b"Host: localhost", b"Host: localhost\r\nX-Canary: " + CANARY)
        + request(b"GET /livez HTTP/1.1")
    )

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b" ")[1] == b"400", answer
    assert 1 == answer.count(b"HTTP/1."), "nothing after it is answered"
    assert "bad_request" == json.loads(body)["code"]
    assert b"application/problem+json" in head
    assert CANARY not in answer
    assert "" == said()


async def test_bytes_that_cannot_be_parsed_are_not_repeated(api, said):
    answer = await api.raw(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + CANARY + b"\0: x\r\n\r\n")

    assert answer.split(b" ")[1] == b"400"
    assert CANARY not in answer
    assert "" == said()


@pytest.mark.parametrize(
    ("line", "status"),
    [(b"POST /v1/jobs HTTP/1.1", b"400"), (b"GET /livez HTTP/1.1", b"200"), (b"POST /nope HTTP/1.1", b"404")],
)
async def test_a_body_whose_framing_breaks_later_is_not_waited_for(api, said, line, status):
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(request(line, b"Transfer-Encoding: chunked", b"Expect: 100-continue"))
    async with asyncio.timeout(4):  # a body that does not come is given up after ten seconds
        answer = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"5\r\n" + CANARY + b"\r\n")
        answer += await reader.read()
    writer.close()

    assert status in {part[:3] for part in answer.split(b"HTTP/1.1 ")}
    assert CANARY not in answer
    assert "" == said()


async def test_pipelined_requests_are_answered_in_turn(api):
    answer = await api.raw(
        request(b"GET /livez HTTP/1.1") * 2 + request(b"GET /livez HTTP/1.1", b"Connection: close")
    )

    assert 3 == answer.count(b'{"status":"alive"}')


SLOW = Deadlines(headers=0.3, body=0.3, rate=1024, linger=0.05, idle=5)


@pytest.mark.parametrize(
    "sent", [b"", b"GET /livez", b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n"]
)
async def test_headers_have_a_deadline(serving, sent):
    api = await serving(deadlines=SLOW)

    answer = await api.raw(sent, within=1.5)

    assert (
        answer == b"" if not sent else answer.startswith(b"HTTP/1.1 408") and b'"request_timeout"' in answer
    )


async def test_headers_that_trickle_have_the_same_deadline_and_so_have_those_of_a_later_request(serving):
    api = await serving(deadlines=SLOW)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(request(b"GET /livez HTTP/1.1"))
    assert (await reader.readuntil(b'"alive"}')).startswith(b"HTTP/1.1 200")

    async def trickle():
        for byte in b"GET /livez HTTP/1.1\r\nX: " + b"y" * 100:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)

    trickling = asyncio.create_task(trickle())
    async with asyncio.timeout(5):
        # Not to the end: what trickles in after the answer is reset.
        answer = await reader.readuntil(b'"request_timeout"')
    trickling.cancel()
    writer.close()

    assert answer.startswith(b"HTTP/1.1 408")


async def test_an_idle_connection_is_kept_longer_than_headers_may_take(serving):
    api = await serving(deadlines=SLOW)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(request(b"GET /livez HTTP/1.1"))
    await reader.readuntil(b'"alive"}')
    await asyncio.sleep(0.5)
    writer.write(request(b"GET /livez HTTP/1.1"))

    assert (await reader.readuntil(b'"alive"}')).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_a_slow_body_is_given_up(serving):
    api = await serving(deadlines=SLOW)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(request(b"POST /v1/jobs HTTP/1.1", b"Content-Length: 500"))

    async def trickle():
        while True:
            writer.write(b" ")
            await asyncio.sleep(0.05)

    trickling = asyncio.create_task(trickle())
    async with asyncio.timeout(5):
        # Not to the end: what trickles in after the answer is reset.
        answer = await reader.readuntil(b'"request_timeout"')
    trickling.cancel()
    writer.close()

    assert answer.startswith(b"HTTP/1.1 408")


async def test_a_long_body_that_keeps_its_pace_is_taken(serving):
    api = await serving(deadlines=SLOW)

    async def chunks():
        yield b'{"type":"t"'
        for _ in range(8):
            yield b" " * 1024
            await asyncio.sleep(0.08)
        yield b"}"

    url = f"http://127.0.0.1:{api.port}/v1/jobs"
    async with api.session.post(url, data=chunks(), headers={"Content-Type": "application/json"}) as answer:
        assert 201 == answer.status


async def test_a_body_that_breaks_off_leaves_nothing(api, said):
    _, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(request(b"POST /v1/jobs HTTP/1.1", b"Content-Length: 500", body=DOC))
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.close()
    await asyncio.sleep(0.05)

    assert [] == (await api.get("/v1/queues")).doc["items"]
    assert "" == said()


async def test_many_half_open_connections_do_not_hold_up_the_others(serving):
    api = await serving(deadlines=Deadlines(headers=3))
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as half_open:
        sockets = []
        for _ in range(300):
            one = half_open.enter_context(socket.create_connection(("127.0.0.1", api.port)))
            one.send(b"GET /livez HTTP/1.1\r\nHost")
            one.setblocking(False)
            sockets.append(one)

        async with asyncio.timeout(2.5):
            assert 200 == (await api.get("/livez")).status
        async with asyncio.timeout(15):
            said = await asyncio.gather(*(loop.sock_recv(one, 4096) for one in sockets))
        assert all(text.startswith(b"HTTP/1.1 408") for text in said)


async def test_what_nobody_expected_is_answered_without_a_word_of_it_and_logged(serving, said, monkeypatch):
    api = await serving()
    monkeypatch.setattr(api.store, "job", lambda *_: os.environ["SECRET_DETAIL"])

    answer = await api.get("/v1/jobs/mail:a", X_Request_Id="find-me")

    assert (500, "internal") == (answer.status, answer.code)
    assert b"SECRET_DETAIL" not in answer.raw
    assert b"Traceback" not in answer.raw
    assert "find-me" in said()
    assert "SECRET_DETAIL" in said()


async def test_the_root_leads_to_the_document(api):
    answer = await api.get("/")

    assert (302, "/docs") == (answer.status, answer.headers["Location"])

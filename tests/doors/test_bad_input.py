"""Bad input, wherever a call takes such: each with its status, code and pointer, nothing stored, nothing said of us.

One test a row: bodies, names, numbers, queries, transport. What is particular to a call stands with its own tests.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from scheduler.api import ROUTES, Deadlines
from scheduler.api.routes import Route
from scheduler.clients import Clients
from scheduler.keys import JOB_KEY
from tests.doors.conftest import JSON, Answer, Api, served
from tests.helpers import snapshot

KEY = "canary-4f1c9a-key"
OURS = (b"Traceback", b".py", b"msgspec", b"redis", b"scheduler.", KEY.encode())
"""What would tell somebody how we are made."""


@pytest.fixture
def backend() -> str:
    return "fake"


@pytest.fixture
async def api(clients: Clients, said: Callable[[], str]) -> AsyncIterator[Api]:
    """A server with a queue, a job that waits, a type and a dead letter. Whatever was sent to it, all of it stands afterwards."""
    async with served(
        clients, api_key=KEY, max_payload=1_000, deadlines=Deadlines(body=0.3, headers=0.5, linger=0.05)
    ) as api:
        api.session.headers["Authorization"] = f"Bearer {KEY}"
        await api.dead("dead")
        await api.enqueue("a", delay=600)
        await api.put("/v1/queues/mail/types/send", {"timeout": 5})
        before = await _stored(api)
        yield api
        assert before == await _stored(api)
        assert "" == said()


async def _stored(api: Api) -> dict[str, Any]:
    """All that is stored, but for the signs of who works."""
    return {key: value for key, value in (await snapshot(api.redis)).items() if ":worker" not in key}


def address(route: Route, **names: str) -> str:
    return route.path.format(
        **{
            "id": "mail:a",
            "queue": "mail",
            "type": "send",
            "operation": "mail:none",
            "group": "acme",
            "flow": "mail:none",
            "schedule": "none",
            **names,
        }
    )


def check(answer: Answer, status: int, code: str, *paths: str, besides: bool = False) -> None:
    """The answer is this problem. `besides`: other pointers may be there too."""
    assert (status, code) == (answer.status, answer.code), answer.raw
    if paths:
        assert set(paths) <= set(answer.paths) if besides else list(paths) == answer.paths, answer.raw
    assert [] == [word for word in OURS if word in answer.raw]
    assert len(answer.raw) < 20_000


# -- bodies --------------------------------------------------------------------------------------------------


BODIES = {
    "nothing": (b"", 400, "invalid_json", []),
    "not JSON": (b"hello", 400, "invalid_json", []),
    "truncated": (b'{"type": "t"', 400, "invalid_json", []),
    "two documents": (b"{}{}", 400, "invalid_json", []),
    "NaN": (b'{"type": "t", "payload": NaN}', 400, "invalid_json", []),
    "Infinity": (b'{"priority": -Infinity}', 400, "invalid_json", []),
    "a lone surrogate": (b'{"type": "\\ud800"}', 400, "invalid_json", []),
    "a lone surrogate of a name": (b'{"\\udfff": 1}', 400, "invalid_json", []),
    "a byte order mark": (b'\xef\xbb\xbf{"type": "t"}', 400, "invalid_json", []),
    "UTF-16": ('{"type": "t"}'.encode("utf-16"), 400, "invalid_json", []),
    "no UTF-8": (b'{"type": "\xff"}', 400, "invalid_json", []),
    "10,000 levels": (b'{"payload":' + b"[" * 10_000 + b"]" * 10_000 + b"}", 400, "invalid_json", []),
    "10,000 levels without an end": (b"[" * 10_000, 400, "invalid_json", []),
    "a number": (b"3", 422, "validation", [""]),
    "a string": (b'"x"', 422, "validation", [""]),
    "null": (b"null", 422, "validation", [""]),
    "an array": (b"[3]", 422, "validation", [""]),
    "an unknown field": (b'{"canary": 1}', 422, "validation", ["/canary"]),
    "a field that looks like one": ('{"t\u0443pe": "t"}'.encode(), 422, "validation", ["/t\u0443pe"]),
}
WITH_BODY = [route for route in ROUTES if route.body is not None and not route.raw]


@pytest.mark.parametrize("bad", BODIES)
async def test_a_body(api: Api, bad: str) -> None:
    body, status, code, paths = BODIES[bad]
    for route in WITH_BODY:
        if body or not route.optional:
            check(await api.call(route.method, address(route), body), status, code, *paths)
    # A bulk call takes arrays: what is in it is its own trouble, and no list is a whole one.
    for sent in (b"[" + body + b"]", b'{"jobs": [' + body + b"]}") if status == 400 and body else ():
        answer = await api.post("/v1/jobs/bulk", sent)
        items = answer.doc["items"] if answer.status == 200 else [answer.doc]
        assert [(400, "invalid_json")] == [(item["status"], item["code"]) for item in items]


async def test_a_type_is_missing(api: Api) -> None:
    check(await api.post("/v1/jobs", {}), 422, "validation", "/type")
    [item] = (await api.post("/v1/jobs/bulk", [{"queue": "mail"}])).doc["items"]
    assert (422, ["/type"]) == (item["status"], [fault["path"] for fault in item["errors"]])


@pytest.mark.parametrize("char", ["x", "é", "\N{GRINNING FACE}"])
@pytest.mark.parametrize("over", [1, 2, 200_000])
async def test_a_payload_over_the_limit_by_a_byte(api: Api, char: str, over: int) -> None:
    text = char * (1_000 // len(char.encode()) - 1)
    text += "x" * (1_000 - 2 - len(text.encode()) + over)
    assert 1_000 + over == len(orjson.dumps(text))
    for method, path, body in (
        ("POST", "/v1/jobs", {"type": "t", "payload": text}),
        ("PATCH", "/v1/jobs/mail:a", {"payload": text}),
        ("POST", "/v1/jobs/mail:dead/replay", {"payload": text}),
        ("POST", "/v1/jobs/mail:a/copy", {"payload": text}),
    ):
        check(await api.call(method, path, body), 413, "too_large")
    [item] = (await api.post("/v1/jobs/bulk", [{"type": "t", "payload": text}])).doc["items"]
    assert (413, "too_large") == (item["status"], item["code"])


async def test_one_bad_item_of_ten_thousand(api: Api) -> None:
    jobs: list[dict[str, Any]] = [{"type": "t", "queue": "many", "id": f"k{n}"} for n in range(10_000)]
    jobs[7_321] = {"type": "t", "queue": "many", "tags": ["ok", "not ok"]}
    items = (await api.post("/v1/jobs/bulk", jobs)).doc["items"]

    bad = items.pop(7_321)
    assert (422, "validation", ["/tags/1"]) == (
        bad["status"],
        bad["code"],
        [fault["path"] for fault in bad["errors"]],
    )
    assert {201} == {item["status"] for item in items}
    assert 9_999 == (await api.get("/v1/queues/many")).doc["counts"]["ready"]
    assert 204 == (await api.call("DELETE", "/v1/queues/many?confirm=many")).status


# -- names ---------------------------------------------------------------------------------------------------

LOOK_ALIKES = ["ｍail", "mаil", "mail\u200b", "m\u0301ail", "ⓜail"]
BAD = ["", "a}b{c", "*", "a b", "a\0", "a\nb", "\r\nSet-Cookie: x", "a/b", "%2e%2e", "a\u202eb", *LOOK_ALIKES]
BAD_NAMES = [*BAD, "x" * 65, "x:lease", "..", ".a", "-a"]
BAD_KEYS = [*BAD, "x" * 129]

Place = tuple[str, str, Any, str]
"""Method, address and body with a name in it, and the pointer to where it stands."""


def places_of_queues(name: str) -> Iterator[Place]:
    yield "POST", "/v1/jobs", {"type": "t", "queue": name}, "/queue"
    yield "POST", "/v1/jobs/mail:a/copy", {"queue": name}, "/queue"
    yield "POST", "/v1/operations", {"act": "cancel", "queue": name}, "/queue"
    yield "POST", "/v1/operations", {"act": "replay", "queue": "mail", "into": name}, "/into"
    yield "POST", "/v1/queues/mail/dlq/replay", {"queue": name}, "/queue"
    yield "GET", f"/v1/jobs?queue={quote(name)}", None, "/queue"
    yield "GET", f"/v1/stats?queue={quote(name)}", None, "/queue"
    yield "GET", f"/v1/operations?queue={quote(name)}", None, "/queue"
    if name:
        yield "PUT", f"/v1/queues/{quote(name, safe='')}", {}, "/queue"
        yield "PUT", f"/v1/queues/{quote(name, safe='')}/types/t", {}, "/queue"
        yield "POST", f"/v1/queues/{quote(name, safe='')}/lease", {"worker": "w"}, "/queue"
        yield "POST", f"/v1/queues/{quote(name, safe='')}/settle", {"worker": "w"}, "/queue"


def places_of_types(name: str) -> Iterator[Place]:
    yield "POST", "/v1/jobs", {"type": name}, "/type"
    yield "POST", "/v1/jobs/mail:a/copy", {"type": name}, "/type"
    yield (
        "POST",
        "/v1/operations",
        {"act": "cancel", "queue": "mail", "filter": {"type": name}},
        "/filter/type",
    )
    yield "POST", "/v1/queues/mail/purge", {"state": "ready", "type": name}, "/type"
    yield "POST", "/v1/queues/mail/dlq/replay", {"type": name}, "/type"
    yield "POST", "/v1/queues/mail/dlq/purge", {"type": name}, "/type"
    yield "GET", f"/v1/jobs?type={quote(name)}", None, "/type"
    yield "GET", f"/v1/queues/mail/dlq?type={quote(name)}", None, "/type"
    if name:
        yield "PUT", f"/v1/queues/mail/types/{quote(name, safe='')}", {}, "/type"


def places_of_keys(key: str) -> Iterator[Place]:
    yield "POST", "/v1/jobs", {"type": "t", "id": key}, "/id"
    yield "POST", "/v1/jobs", {"type": "t", "id": f"default:{key}"}, "/id"
    yield "POST", "/v1/jobs", {"type": "t", "group": key}, "/group"
    yield "POST", "/v1/jobs", {"type": "t", "tags": ["ok", key]}, "/tags/1"
    yield "PATCH", "/v1/jobs/mail:a", {"tags": [key]}, "/tags/0"
    yield "POST", "/v1/jobs/mail:a/copy", {"id": key}, "/id"
    yield "POST", "/v1/jobs/mail:a/copy", {"group": key}, "/group"
    yield "POST", "/v1/jobs/mail:a/copy", {"tags": [key]}, "/tags/0"
    yield "GET", f"/v1/jobs?group={quote(key)}", None, "/group"
    yield "GET", f"/v1/jobs?tag={quote(key)}", None, "/tag"
    yield (
        "POST",
        "/v1/operations",
        {"act": "cancel", "queue": "mail", "filter": {"group": key}},
        "/filter/group",
    )
    yield "POST", "/v1/operations", {"act": "cancel", "queue": "mail", "filter": {"tag": key}}, "/filter/tag"
    yield "POST", "/v1/operations", {"act": "cancel", "queue": "mail", "ids": [key]}, "/ids/0"
    yield "POST", "/v1/queues/mail/dlq/purge", {"ids": ["dead", key]}, "/ids/1"
    yield "POST", "/v1/queues/mail/lease", {"worker": key}, "/worker"
    yield "POST", "/v1/queues/mail/lease", {"worker": "w", "request_id": key}, "/request_id"
    yield "POST", "/v1/queues/mail/settle", {"worker": key}, "/worker"


PLACES = [
    (place, name)
    for places, names in (
        (places_of_queues, BAD_NAMES),
        (places_of_types, BAD_NAMES),
        (places_of_keys, BAD_KEYS),
    )
    for name in names
    for place in places(name)
]


async def test_a_name_wherever_one_is_given(api: Api) -> None:
    for (method, path, body, pointer), name in PLACES:
        answer = await api.call(method, path, body)
        check(answer, 422, "validation", pointer)
        assert "Set-Cookie" not in answer.headers, name


async def test_a_name_in_an_address_where_nothing_is_made(api: Api) -> None:
    for route, name in itertools.product(ROUTES, BAD_NAMES):
        if "{" not in route.path or not name:
            continue
        for parameter in ("id", "queue", "type", "operation", "group"):
            named = parameter == "group" and JOB_KEY.fullmatch(name)
            if f"{{{parameter}}}" not in route.path or named:
                continue
            path = address(route, **{parameter: quote(name, safe="")})
            answer = await api.call(route.method, path, b"{}" if route.body is not None else None)
            assert answer.code in {"not_found", "validation"}, (path, answer.raw)
            assert [] == [word for word in OURS if word in answer.raw]


# -- numbers and times ---------------------------------------------------------------------------------------

THOUSAND_YEARS = 1_000 * 365.25 * 86_400
NUMBERS: list[tuple[str, list[Any]]] = [
    ("retry/max_attempts", [0, -1, 1.5, "3", True, 1_001, 1e300]),
    ("retry/jitter", [-0.1, 1.1, "0"]),
    ("delay", [-1, -0.001, THOUSAND_YEARS, "-5s", "5", "1000y", True]),
    ("timeout", [0, -1, THOUSAND_YEARS, "0s"]),
    ("retention", [-1, THOUSAND_YEARS]),
    ("priority", [101, -101, 0.5, "0", None]),
    ("run_at", ["2030-01-01T00:00:00", "2030-01-01", "2030-02-30T00:00:00Z", "3030-01-01T00:00:00Z", 0, "now"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "values"), NUMBERS, ids=lambda value: value if isinstance(value, str) else ""
)
async def test_a_number_or_time(api: Api, field: str, values: list[Any]) -> None:
    first, _, second = field.partition("/")
    for value in values:
        fields = {first: {second: value} if second else value}
        check(await api.post("/v1/jobs", {"type": "t", **fields}), 422, "validation", f"/{field}")
        check(
            await api.post("/v1/jobs/mail:a/copy", fields), 422, "validation", f"/{field}"
        ) if value is not None else None


# -- queries -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if "limit" in route.query], ids=lambda route: route.path
)
@pytest.mark.parametrize(
    "limit", ["-1", "0", "1001", "1e9", "1000000000", "abc", "", "1.0", "+1", "%201", "1_0", "１", "NaN"]
)
async def test_a_limit(api: Api, route: Route, limit: str) -> None:
    check(await api.get(f"{address(route)}?limit={quote(limit, safe='%')}"), 422, "validation", "/limit")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_a_query_that_is_unknown_or_repeated(api: Api, route: Route) -> None:
    known = next(iter(route.query), None)
    for query, paths in (
        ("canary=1", ["/canary"]),
        ("canary", ["/canary"]),
        ("Limit=1", ["/Limit"]),
        ("a=1&a=2", ["/a"]),
        (f"{known}=1&{known}=1", [f"/{known}"] if known else ["/None"]),
    ):
        body = b"{}" if route.body is not None else None
        check(await api.call(route.method, f"{address(route)}?{query}", body), 422, "validation", *paths)


# -- transport -----------------------------------------------------------------------------------------------


def head(*lines: str) -> bytes:
    fixed = ("POST /v1/jobs HTTP/1.1", "Host: localhost", "Connection: close", f"Authorization: Bearer {KEY}")
    return "\r\n".join([*fixed, *lines, "", ""]).encode()


TRANSPORT = {
    "a body without a type": (head("Content-Length: 12") + b'{"type":"t"}', 415, "unsupported_media_type"),
    "a form": (head("Content-Type: application/x-www-form-urlencoded", "Content-Length: 6") + b"type=t", 415, "unsupported_media_type"),
    "text, as a form of another site may send it": (head("Content-Type: text/plain", "Content-Length: 12") + b'{"type":"t"}', 415, "unsupported_media_type"),
    "10 GB declared": (head("Content-Type: application/json", "Content-Length: 10000000000"), 413, "too_large"),
    "a chunk of 10 GB": (head("Content-Type: application/json", "Transfer-Encoding: chunked") + b"2540BE400\r\n" + b"x" * 70_000, 413, "too_large"),
    "a body that stops": (head("Content-Type: application/json", "Content-Length: 12") + b'{"type"', 408, "request_timeout"),
    "headers that stop": (head("Content-Type: application/json")[:-4], 408, "request_timeout"),
    "two lengths": (head("Content-Length: 2", "Content-Length: 3") + b"{}", 400, "bad_request"),
    "a length and chunks": (head("Content-Length: 2", "Transfer-Encoding: chunked") + b"{}", 400, "bad_request"),
    "a negative length": (head("Content-Length: -1"), 400, "bad_request"),
    "a header of 9,000 bytes": (head("X: " + "x" * 9_000), 431, "headers_too_large"),
    "1,000 headers": (head(*(f"X-{n}: x" for n in range(1_000))), 431, "headers_too_large"),
    "no HTTP": (b"\x16\x03\x01\x02\x00" * 20 + b"\r\n\r\n", 400, "bad_request"),
    "a method that is none": (b"STEAL /v1/jobs HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "bad_request"),
}  # fmt: skip


@pytest.mark.parametrize("bad", TRANSPORT)
async def test_a_request(api: Api, bad: str) -> None:
    sent, status, code = TRANSPORT[bad]
    answer, _, body = (await api.raw(sent)).partition(b"\r\n\r\n")

    assert (status, code) == (int(answer.split()[1]), orjson.loads(body)["code"])
    assert [] == [word for word in OURS if word in body]


async def test_a_bomb_is_not_opened(api: Api) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 100_000
    for path, kind in (("/v1/jobs", JSON["Content-Type"]), ("/v1/jobs/bulk", "application/x-ndjson")):
        answer = await api.post(path, bomb, Content_Encoding="gzip", Content_Type=kind)
        check(answer, 415, "unsupported_media_type")


async def test_a_body_that_is_cut_off(api: Api) -> None:
    before = len(api.crowd)
    _, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(head("Content-Type: application/json", "Content-Length: 500") + b'{"type":"t"}')
    await writer.drain()
    writer.close()
    async with asyncio.timeout(5):
        while len(api.crowd) > before:  # noqa: ASYNC110  # it happens in a server that is only looked at
            await asyncio.sleep(0.01)

    check(await api.get("/v1/jobs/default:none"), 404, "not_found")

"""gzip where it is asked for, and what the document says for those who make clients of it."""

import gzip
import json

import pytest

from scheduler.api import ROUTES, openapi


@pytest.fixture
def backend():
    return "fake"


async def fetched(api, path, *headers):
    """Head and body as they travel."""
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers, "", ""]
    head, _, body = (await api.raw("\r\n".join(lines).encode())).partition(b"\r\n\r\n")
    return head.lower(), body


@pytest.mark.parametrize("path", ["/openapi.json", "/v1/jobs?include=payload"])
@pytest.mark.parametrize("asked", ["gzip", "deflate, gzip;q=0.5", "*", "GZIP"])
async def test_a_large_answer_travels_by_gzip_to_who_asks(api, path, asked):
    await api.enqueue(payload="x" * 300_000)
    _, plain = await fetched(api, path)
    head, small = await fetched(api, path, f"Accept-Encoding: {asked}")

    assert plain == gzip.decompress(small)
    assert len(small) < len(plain) / 5
    assert b"content-encoding: gzip" in head
    assert b"vary: accept-encoding" in head


@pytest.mark.parametrize(
    "headers", [(), ("Accept-Encoding: br",), ("Accept-Encoding: gzip;q=0",), ("Accept-Encoding: identity",)]
)
async def test_to_others_it_does_not(api, headers):
    head, body = await fetched(api, "/openapi.json", *headers)

    assert b"content-encoding" not in head
    assert b"vary: accept-encoding" in head
    assert "3.1.0" == json.loads(body)["openapi"]


async def test_a_small_answer_does_not(api):
    await api.enqueue()

    assert b"content-encoding" not in (await fetched(api, "/v1/jobs/mail:a", "Accept-Encoding: gzip"))[0]


def nodes(value, path=""):
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in items:
        yield from nodes(one, f"{path}/{name}")


@pytest.mark.parametrize("key", [True, False])
def test_generators_of_clients_find_nothing_that_they_mistake(key):
    document = openapi.document(ROUTES, key=key)
    found = [
        (path, node) for path, node in nodes(document) if isinstance(node, dict) and "/example" not in path
    ]
    schemas = [(path, node) for path, node in found if path.startswith("/components/schemas/")]

    assert [] == [path for path, node in schemas if "default" in node and not path.endswith("/properties")]
    assert [] == [
        path for path, node in found if True in node.get("enum", ()) or False in node.get("enum", ())
    ]
    assert ["type"] == document["components"]["schemas"]["NewJobFields"]["required"]

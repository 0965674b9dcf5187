"""Without a key the server answers under its own names only; and how many headers a request may have."""

import pytest

from scheduler.api import ROUTES
from scheduler.api.problems import CODES
from scheduler.settings import Settings, SettingsError, load


@pytest.fixture
def backend():
    return "fake"


OWN = (
    "localhost", "localhost:8080", "LOCALHOST", "localhost.", "shop.localhost:1", "127.0.0.1", "127.9.9.9:80", "[::1]",
    "[::1]:8080", "[0:0:0:0:0:0:0:1]",
)  # fmt: skip
FOREIGN = (
    "evil.example", "evil.example:8080", "localhost.evil.example", "evillocalhost", "127.0.0.1.evil.example", "192.0.2.1",
    "10.0.0.1:8080", "[2001:db8::1]", "[::ffff:192.0.2.1]", "0.0.0.0", "2130706433", "0x7f.1", "127.1", "localhost@evil.example",
    "localhost,evil.example", "evil.example localhost", "", "..", "[::1", "\xe9vil.example", "localhost:80:80",
)  # fmt: skip


async def ask(api, host, line="GET /v1/queues HTTP/1.1", *more):
    """Status and body of a request under this Host, sent as bytes: no client changes it."""
    lines = [line, *([] if host is None else [f"Host: {host}"]), "Connection: close", *more, "", ""]
    said = await api.raw("\r\n".join(lines).encode("latin-1"))
    head, _, body = said.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@pytest.mark.parametrize("host", OWN)
async def test_its_own_names_are_answered(api, host):
    assert 200 == (await ask(api, host))[0]


@pytest.mark.parametrize("host", FOREIGN)
async def test_another_name_is_refused(api, host):
    status, body = await ask(api, host)

    assert 421 == status
    assert b"SCHEDULER_ALLOWED_HOSTS" in body
    assert b"evil" not in body


ELSEWHERE = (
    "/",
    "/livez",
    "/readyz",
    "/openapi.json",
    "/docs",
    "/docs/page.js",
    "/nope",
    "/v1/nope",
    "/metrics",
)


async def test_another_name_is_refused_for_every_call(api):
    await api.enqueue()
    before = {key: await api.redis.dump(key) for key in sorted(await api.redis.keys())}
    names = {"id": "mail:a", "queue": "mail", "type": "send", "group": "g", "operation": "mail:o", "flow": "mail:f", "schedule": "s"}  # fmt: skip
    calls = {(route.method, route.path.format(**names)) for route in ROUTES}
    calls |= {
        (method, path)
        for path in ELSEWHERE
        for method in ("GET", "HEAD", "POST", "OPTIONS", "TRACE", "PURGE")
    }

    seen = {}
    for method, path in sorted(calls):
        body = b"" if method in {"GET", "HEAD"} else b'{"type": "t"}'
        answer = await api.call(method, path, body or None, Host="evil.example", Origin="http://evil.example")
        seen[method, path] = answer.status

    assert dict.fromkeys(seen, 421) == seen
    assert before == {key: await api.redis.dump(key) for key in sorted(await api.redis.keys())}


async def test_a_page_whose_name_leads_here_reads_and_writes_nothing(api):
    await api.enqueue(payload={"secret": "s3cret"})
    rebound = {"Host": f"evil.example:{api.port}", "Origin": f"http://evil.example:{api.port}"}

    posted = await api.post("/v1/jobs", {"type": "t"}, **rebound)
    read = await api.get("/v1/jobs?include=payload", **rebound)

    assert [(421, "misdirected_request")] * 2 == [(answer.status, answer.code) for answer in (posted, read)]
    assert b"s3cret" not in read.raw
    assert 1 == len((await api.get("/v1/jobs")).doc["items"])


async def test_the_address_of_the_request_line_is_looked_at_too(api):
    assert 421 == (await ask(api, "localhost", "GET http://evil.example/v1/queues HTTP/1.1"))[0]
    assert 200 == (await ask(api, "localhost", "GET http://localhost:8080/v1/queues HTTP/1.1"))[0]


async def test_of_two_hosts_neither_is_believed(api):
    status, _ = await ask(api, "localhost", "GET /v1/queues HTTP/1.1", "Host: evil.example")

    assert status in {400, 421}


async def test_without_a_host_only_an_old_client_is_answered(api):
    assert 200 == (await ask(api, None, "GET /livez HTTP/1.0"))[0]
    assert 400 == (await ask(api, None))[0]


@pytest.mark.parametrize(
    ("host", "status"),
    [("jobs.internal", 200), ("JOBS.internal:443", 200), ("a.example.com", 200), ("a.b.example.com.", 200), ("192.0.2.7:80", 200),
     ("example.com", 421), ("evilexample.com", 421), ("x.jobs.internal", 421), ("localhost", 200)],
)  # fmt: skip
async def test_names_of_proxies_are_set(serving, host, status):
    api = await serving(allowed_hosts=("jobs.internal", "*.example.com", "192.0.2.7"))

    assert status == (await ask(api, host))[0]


async def test_the_name_it_is_bound_to_is_its_own(serving, monkeypatch):
    monkeypatch.setattr("scheduler.api.server.check_host", lambda _: None)
    api = await serving(host="127.0.0.1")
    object.__setattr__(api.settings, "host", "This-Machine")

    assert 200 == (await ask(api, "this-machine:8080"))[0]


async def test_with_a_key_any_name_is_answered(serving):
    api = await serving(api_key="a-key-of-some-length")

    assert (
        200
        == (
            await ask(
                api,
                "jobs.example.org",
                "GET /v1/queues HTTP/1.1",
                "Authorization: Bearer a-key-of-some-length",
            )
        )[0]
    )
    assert 401 == (await ask(api, "jobs.example.org"))[0]


def test_the_setting_takes_names():
    said = {"SCHEDULER_ALLOWED_HOSTS": "jobs.internal, *.example.com,[::1]"}

    assert ("jobs.internal", "*.example.com", "[::1]") == load(environ=said).allowed_hosts
    assert None is Settings().allowed_hosts


@pytest.mark.parametrize("text", ["*", "http://a", "a:80", "a b", "a,,b", "*.*.a", "a.*", "-a"])
def test_the_setting_refuses_what_is_no_name(text):
    with pytest.raises(SettingsError, match="SCHEDULER_ALLOWED_HOSTS"):
        load(environ={"SCHEDULER_ALLOWED_HOSTS": text})


@pytest.mark.parametrize(
    "headers",
    [
        [f"X-{n}: y" for n in range(200)],
        ["X-Long: " + "y" * 9000],
        ["Cookie: " + "y" * 100_000],
        ["X" * 9000 + ": y"],
    ],
    ids=["many", "long", "very long", "a long name"],
)
async def test_too_many_or_too_large_headers(api, headers):
    status, body = await ask(api, "localhost", "GET /v1/queues HTTP/1.1", *headers)

    assert CODES["headers_too_large"][0] == 431 == status
    assert b'"headers_too_large"' in body
    assert b"yyy" not in body
    assert b"XXX" not in body


async def test_a_request_line_that_is_too_long(api):
    status, body = await ask(api, "localhost", f"GET /{'x' * 9000} HTTP/1.1")

    assert (400, True) == (status, b"8190 bytes" in body)


async def test_as_many_headers_as_it_may_have(api):
    assert (
        200 == (await ask(api, "localhost", "GET /v1/queues HTTP/1.1", *[f"X-{n}: y" for n in range(126)]))[0]
    )

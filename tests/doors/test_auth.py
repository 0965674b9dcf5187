"""One key for everything under /v1, and loopback alone without one."""

import pytest

from scheduler.api import ROUTES
from scheduler.api.auth import check_host
from scheduler.api.openapi import codes_of
from scheduler.settings import Settings, SettingsError


@pytest.fixture
def backend():
    return "fake"


KEY = "s3cret-key-of-some-length"


@pytest.fixture
async def closed(serving):
    return await serving(api_key=KEY)


@pytest.mark.parametrize(
    "sent",
    [None, "", "Bearer", "Bearer ", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", KEY, f"Basic {KEY}", f"Token {KEY}",
     "Bearer \xe9", f"Bearer {KEY.upper()}", f"Bearer  x {KEY}"],
)  # fmt: skip
async def test_without_the_key_every_call_is_refused_with_equal_bodies(closed, sent):
    headers = {} if sent is None else {"Authorization": sent}
    bodies = set()
    for route in ROUTES:
        if not route.open:
            path = route.path.format(
                id="mail:a",
                queue="mail",
                type="send",
                operation="mail:op",
                group="acme",
                flow="mail:f",
                schedule="s",
            )
            answer = await closed.call(route.method, path, b"junk" if route.body else None, **headers)
            assert (401, "unauthorized") == (answer.status, answer.code), path
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            bodies.add(answer.raw)
    for path in ("/v1/nope", "/v1", "/v1/jobs?x=1", "/%76%31/queues", "/v1%2fqueues", "//v1/queues"):
        answer = await closed.get(path, **headers)
        assert answer.status in {401, 404}
        if answer.status == 401:
            bodies.add(answer.raw)

    assert 1 == len(bodies)
    assert [] == [key async for key in closed.redis.scan_iter() if b"layout" not in key]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_with_the_key_every_call_is_let_through(closed, scheme):
    answer = await closed.post("/v1/jobs", {"type": "t"}, Authorization=f"{scheme} {KEY}")

    assert 201 == answer.status


async def test_health_and_the_document_are_open(closed):
    for path in ("/livez", "/readyz", "/openapi.json"):
        assert 200 == (await closed.get(path)).status
    assert 302 == (await closed.get("/")).status


async def test_the_key_is_in_no_answer_and_no_log(closed, said, caplog):
    caplog.set_level("DEBUG")
    answers = [
        await closed.post("/v1/jobs", body, Authorization=f"Bearer {KEY}")
        for body in ({"type": "t"}, {"type": 1}, b"x")
    ]
    answers.append(await closed.get("/openapi.json"))

    assert all(KEY.encode() not in answer.raw for answer in answers)
    assert KEY not in said()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_without_a_key_loopback_may_be_bound(host):
    check_host(Settings(host=host))


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.0.2.1", "no-such-host.invalid", "0", "::ffff:192.0.2.1"]
)
def test_without_a_key_another_address_is_refused_with_what_to_set(host):
    with pytest.raises(SettingsError, match="SCHEDULER_API_KEY") as caught:
        check_host(Settings(host=host))
    check_host(Settings(host=host, api_key="k"))

    assert host in str(caught.value)


async def test_the_server_does_not_bind_what_it_must_not(serving):
    with pytest.raises(SettingsError):
        await serving(host="0.0.0.0")
    assert 200 == (await (await serving(host="0.0.0.0", api_key=KEY)).get("/livez")).status


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Sec_Fetch_Site": "cross-site"}, 403), ({"Sec_Fetch_Site": "same-site"}, 403), ({"Origin": "https://evil.example"}, 403),
     ({"Origin": "null"}, 403), ({"Sec_Fetch_Site": "same-origin"}, 200), ({"Sec_Fetch_Site": "none"}, 200), ({}, 200)],
)  # fmt: skip
async def test_without_a_key_pages_of_other_sites_change_nothing(serving, headers, status):
    api = await serving()
    await api.enqueue()

    paused = await api.post("/v1/queues/mail/pause", **headers)

    assert status == paused.status
    assert (status == 200) == (await api.get("/v1/queues/mail")).doc["paused"]
    assert 200 == (await api.get("/v1/queues/mail", **headers)).status
    assert "Access-Control-Allow-Origin" not in paused.headers


async def test_what_it_must_not_change_is_every_call_that_changes_something(serving):
    api = await serving()
    for route in ROUTES:
        path = route.path.format(
            id="mail:a",
            queue="mail",
            type="send",
            operation="mail:op",
            group="acme",
            flow="mail:f",
            schedule="s",
        )
        body: dict[str, str] | None = {} if route.body is not None else None
        answer = await api.call(route.method, path, body, Sec_Fetch_Site="cross-site")
        assert ("forbidden" in codes_of(route, key=False)) == (answer.status == 403), path


async def test_a_page_of_the_api_itself_may_post(serving):
    api = await serving()

    assert 201 == (await api.post("/v1/jobs", {"type": "t"}, Origin=f"http://127.0.0.1:{api.port}")).status


async def test_whoever_has_the_key_is_asked_for_no_origin(closed):
    answer = await closed.post(
        "/v1/jobs", {"type": "t"}, Origin="https://else.example", Authorization=f"Bearer {KEY}"
    )

    assert 201 == answer.status

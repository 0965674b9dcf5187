"""Every call × every problem code that it documents: each is provoked. What is documented and not provoked fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from inspect import iscoroutinefunction
from typing import Any

import pytest

from scheduler.api import ROUTES, Deadlines
from scheduler.api.openapi import codes_of
from scheduler.api.problems import CODES
from scheduler.api.routes import Route
from scheduler.clients import Clients, make_client
from scheduler.errors import StoreUnavailable
from scheduler.presence import Presence
from scheduler.store import Store
from tests.doors.conftest import Answer, Api, held, served

KEY = "a-key-of-some-length"
BODIES: Mapping[str, Any] = {
    "enqueue": {"type": "send", "queue": "mail", "id": "new"},
    "enqueue_bulk": [{"type": "send"}],
    "update": {"tags": ["new"]},
    "lease": {"worker": "w"},
    "settle": {"worker": "w", "ack": [{"id": "mail:a", "token": 1}]},
    "purge_queue": {"state": "ready"},
    "operate": {"act": "replay", "queue": "mail"},
    "put_schedule": {"type": "send", "queue": "mail", "every": "1h"},
    "create_flow": {"queue": "mail", "id": "f", "jobs": [{"name": "a", "type": "send"}]},
}
"""A body that each call takes; {} for the others."""


@pytest.fixture
def backend() -> str:
    return "valkey"


@pytest.fixture
async def api(clients: Clients) -> AsyncIterator[Api]:
    """A server with a key, which its callers send."""
    async with served(clients, api_key=KEY, deadlines=Deadlines(body=0.1, linger=0.05)) as api:
        api.session.headers["Authorization"] = f"Bearer {KEY}"
        yield api


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    return monkeypatch


def name_of(route: Route) -> str:
    return route.handler.__name__


def address(route: Route, **names: str) -> str:
    path = route.path.format(
        **{
            "id": "mail:a", "queue": "mail", "type": "send", "group": "acme", "operation": "mail:op",
            "schedule": "nightly", "flow": "mail:f", **names,
        }
    )  # fmt: skip
    return path + (f"?confirm={names.get('queue', 'mail')}" if name_of(route) == "obliterate" else "")


async def call(
    api: Api, route: Route, body: Any = None, *, names: Mapping[str, str] | None = None, **headers: str
) -> Answer:
    """The call with a body that it takes, unless another is given."""
    if route.body is not None and body is None:
        body = BODIES.get(name_of(route), {})
    return await api.call(route.method, address(route, **names or {}), body, **headers)


# -- what any call may be answered -----------------------------------------------------------------------------


async def without_a_key(api: Api, route: Route) -> Answer:
    return await call(api, route, Authorization="Bearer nobody")


async def while_the_code_fails(api: Api, route: Route) -> Answer:
    async def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("nobody expected this")

    with pytest.MonkeyPatch.context() as patched:
        for name in dir(Store):
            if iscoroutinefunction(getattr(Store, name)) and not name.startswith("_"):
                patched.setattr(api.store, name, fail)
        patched.setattr(Presence, "present", fail)
        return await call(api, route)


async def while_the_store_is_away(api: Api, route: Route) -> Answer:
    async with away() as without:
        return await call(without, route)


@asynccontextmanager
async def away() -> AsyncIterator[Api]:
    """A server whose store has never been there."""
    url = "unix:///nowhere/at-all.sock"
    clients = Clients(
        commands=make_client(url, name="commands"),
        reads=make_client(url, name="reads", reads=True),
        waits=make_client(url, name="waits", waits=True),
        where=url,
    )
    async with served(clients, api_key=KEY) as api:
        api.session.headers["Authorization"] = f"Bearer {KEY}"
        yield api
    await clients.close()


async def with_no_json(api: Api, route: Route) -> Answer:
    return await call(api, route, b"{")


async def with_text(api: Api, route: Route) -> Answer:
    return await call(api, route, b"{}", Content_Type="text/plain")


async def with_a_declared_length_of_10_gb(api: Api, route: Route) -> Answer:
    return await begun(api, route, "Content-Length: 10000000000")


async def with_a_body_that_never_comes(api: Api, route: Route) -> Answer:
    return await begun(api, route, "Content-Length: 10")


async def with_a_chunk_that_is_none(api: Api, route: Route) -> Answer:
    return await begun(api, route, "Transfer-Encoding: chunked", b"nonsense\r\n")


async def begun(api: Api, route: Route, framing: str, rest: bytes = b"") -> Answer:
    """What is answered to a head; `rest` is sent once the body is asked for."""
    head = [
        f"{route.method} {address(route)} HTTP/1.1", "Host: localhost", "Content-Type: application/json", "Expect: 100-continue",
        f"Authorization: Bearer {KEY}", framing,
    ]  # fmt: skip
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    try:
        writer.write("\r\n".join([*head, "", ""]).encode())
        async with asyncio.timeout(10):
            said = await reader.readuntil(b"\r\n\r\n")
            if b" 100 Continue" in said:
                writer.write(rest)
                said = await reader.readuntil(b"\r\n\r\n")
            length = int(said.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            raw = await reader.readexactly(length)
    finally:
        writer.close()
    lines = [line.split(": ", 1) for line in said.decode().split("\r\n")[1:] if line]
    return Answer(int(said.split()[1]), dict(lines), raw)  # type: ignore[arg-type]  # a mapping is enough here


async def with_too_many_headers(api: Api, route: Route) -> Answer:
    body = BODIES.get(name_of(route), {}) if route.body is not None else None
    return await api.call(route.method, address(route), body, **{f"X_{n}": "y" for n in range(200)})


async def with_a_query_that_is_unknown(api: Api, route: Route) -> Answer:
    path = address(route)
    body = BODIES.get(name_of(route), {}) if route.body is not None else None
    return await api.call(route.method, f"{path}{'&' if '?' in path else '?'}colour=red", body)


# -- what some may be answered -----------------------------------------------------------------------------------


async def of_nothing(api: Api, route: Route) -> Answer:
    names = {"id": "mail:none", "operation": "mail:none", "queue": "none", "type": "none", "group": "none"}
    names |= {"schedule": "none", "flow": "mail:none"}
    body = {"act": "cancel", "queue": "none"} if name_of(route) == "operate" else None
    return await call(api, route, body, names=names)


async def with_an_etag_of_another_time(api: Api, route: Route) -> Answer:
    await api.put("/v1/queues/mail", {})
    await api.put("/v1/queues/mail/types/send", {"timeout": 5})
    await api.put("/v1/schedules/nightly", BODIES["put_schedule"])
    return await call(api, route, If_Match='"4711"')


async def while_others_change_it(api: Api, route: Route) -> Answer:
    await api.enqueue(delay=600)
    inspect, times = api.store.inspect, iter(range(1000))

    async def then_changed(*args: Any) -> Any:
        found = await inspect(*args)
        with pytest.MonkeyPatch.context() as unpatched:
            unpatched.setattr(api.store, "inspect", inspect)
            await api.store.update("mail", "a", tags=[f"other-{next(times)}"])
        return found

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(api.store, "inspect", then_changed)
        return await call(api, route)


async def of_a_key_that_another_request_has(api: Api, route: Route) -> Answer:
    await api.enqueue("a")
    await api.post("/v1/jobs", {"type": "another"}, Idempotency_Key="k")
    return await call(api, route, Idempotency_Key="k")


async def with_a_key_while_the_store_is_away(api: Api, route: Route) -> Answer:
    async with away() as without:
        return await call(without, route, Idempotency_Key="k")


async def with_a_key_while_the_store_is_full(api: Api, route: Route) -> Answer:
    await api.redis.config_set("maxmemory", "1")
    try:
        return await call(api, route, Idempotency_Key="k")
    finally:
        await api.redis.config_set("maxmemory", "0")


async def while_the_store_is_full(api: Api, route: Route) -> Answer:
    await (api.dead() if "replay" in name_of(route) else api.enqueue(delay=600))
    edits = {
        "replay": {"payload": 1},
        "operate": {"act": "cancel", "queue": "mail"},
    }
    await api.redis.config_set("maxmemory", "1")
    try:
        return await call(api, route, edits.get(name_of(route)))
    finally:
        await api.redis.config_set("maxmemory", "0")


async def of_a_dead_job(api: Api, route: Route) -> Answer:
    await api.dead()
    return await call(api, route)


async def of_a_job_that_runs(api: Api, route: Route) -> Answer:
    await api.running()
    return await call(api, route)


async def of_a_job_whose_payload_is_gone(api: Api, route: Route) -> Answer:
    await api.settle(ack=[held(await api.running(retention=0))])
    return await call(api, route)


async def while_a_hundred_operations_are_under_way(api: Api, route: Route) -> Answer:
    await api.dead()
    await api.enqueue("b")
    for n in range(100):
        await api.store.operate("begin", "mail", f"op-{n}", carrier="nobody", value=b"{}")
    return await call(api, route)


async def of_an_operation_that_has_ended(api: Api, route: Route) -> Answer:
    await api.enqueue()
    begun = await api.post("/v1/queues/mail/purge", {"state": "ready"})
    return await call(api, route, names={"operation": begun.doc["id"]})


async def of_an_id_that_is_taken(api: Api, route: Route) -> Answer:
    await api.enqueue("a")
    await api.enqueue("new", payload="of another")
    return await call(api, route, {"type": "send", "queue": "mail", "id": "new"})


async def of_a_flow_that_has_another_id(api: Api, route: Route) -> Answer:
    await api.post("/v1/flows", BODIES["create_flow"])
    jobs = [{"name": "b", "type": "send"}]
    return await call(api, route, {**BODIES["create_flow"], "jobs": jobs})


async def of_a_flow_whose_queue_is_full(api: Api, route: Route) -> Answer:
    await api.put("/v1/queues/mail", {"max_bytes": 1})
    await api.enqueue("a")
    return await call(api, route)


async def of_a_flow_that_has_ended(api: Api, route: Route) -> Answer:
    await api.post("/v1/flows", BODIES["create_flow"])
    [job] = await api.lease()
    await api.settle(ack=[held(job)])
    await api.store.relay("mail")
    return await call(api, route)


async def of_a_schedule_of_another_queue(api: Api, route: Route) -> Answer:
    await api.put("/v1/schedules/nightly", {**BODIES["put_schedule"], "queue": "other"})
    return await call(api, route)


async def of_a_schedule_that_was_changed_before_the_answer_was_kept(api: Api, route: Route) -> Answer:
    await api.put("/v1/schedules/nightly", BODIES["put_schedule"])

    async def away(*_: Any) -> bytes:
        raise StoreUnavailable("away")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(api.store, "keep_answer", away)
        await call(api, route, Idempotency_Key="k")
    await api.put("/v1/schedules/nightly", {**BODIES["put_schedule"], "payload": "another"})
    return await call(api, route, Idempotency_Key="k")


async def of_a_schedule_whose_queue_is_full(api: Api, route: Route) -> Answer:
    await api.put("/v1/schedules/nightly", BODIES["put_schedule"])
    await api.enqueue("a")
    await api.patch("/v1/queues/mail", {"max_length": 1})
    return await call(api, route)


async def of_a_queue_that_is_full(api: Api, route: Route) -> Answer:
    await api.enqueue("a")
    await api.patch("/v1/queues/mail", {"max_length": 1})
    body = {"type": "send", "queue": "mail", "id": "new"} if name_of(route) == "enqueue" else {"id": "new"}
    return await call(api, route, body)


Provoke = Callable[[Api, Route], Awaitable[Answer]]

GENERAL: Mapping[str, Provoke] = {
    "unauthorized": without_a_key,
    "internal": while_the_code_fails,
    "store_unavailable": while_the_store_is_away,
    "invalid_json": with_no_json,
    "unsupported_media_type": with_text,
    "too_large": with_a_declared_length_of_10_gb,
    "request_timeout": with_a_body_that_never_comes,
    "bad_request": with_a_chunk_that_is_none,
    "headers_too_large": with_too_many_headers,
    "validation": with_a_query_that_is_unknown,
    "not_found": of_nothing,
    "precondition_failed": with_an_etag_of_another_time,
    "duplicate": of_an_id_that_is_taken,
    "idempotency_mismatch": of_a_key_that_another_request_has,
    "queue_full": of_a_queue_that_is_full,
    "store_full": while_the_store_is_full,
}
"""How a code is provoked."""

PARTICULAR: Mapping[tuple[str, str], Provoke] = {
    ("update", "precondition_failed"): while_others_change_it,
    ("enqueue_bulk", "store_unavailable"): with_a_key_while_the_store_is_away,
    ("enqueue_bulk", "store_full"): with_a_key_while_the_store_is_full,
    ("cancel", "wrong_state"): of_a_dead_job,
    ("run", "wrong_state"): of_a_dead_job,
    ("replay", "wrong_state"): of_a_job_that_runs,
    ("update", "wrong_state"): of_a_job_that_runs,
    ("delete", "wrong_state"): of_a_job_that_runs,
    ("copy", "wrong_state"): of_a_job_whose_payload_is_gone,
    ("obliterate", "wrong_state"): of_a_job_that_runs,
    ("purge_queue", "wrong_state"): while_a_hundred_operations_are_under_way,
    ("operate", "wrong_state"): while_a_hundred_operations_are_under_way,
    ("replay_dead", "wrong_state"): while_a_hundred_operations_are_under_way,
    ("purge_dead", "wrong_state"): while_a_hundred_operations_are_under_way,
    ("cancel_operation", "wrong_state"): of_an_operation_that_has_ended,
    ("open_job", "wrong_state"): of_a_job_that_runs,
    ("create_flow", "duplicate"): of_a_flow_that_has_another_id,
    ("create_flow", "queue_full"): of_a_flow_whose_queue_is_full,
    ("cancel_flow", "wrong_state"): of_a_flow_that_has_ended,
    ("replay_flow", "wrong_state"): of_a_flow_that_has_ended,
    ("put_schedule", "duplicate"): of_a_schedule_of_another_queue,
    ("trigger_schedule", "duplicate"): of_a_schedule_that_was_changed_before_the_answer_was_kept,
    ("trigger_schedule", "queue_full"): of_a_schedule_whose_queue_is_full,
}
"""How it is provoked in one call."""

DOCUMENTED = [(route, code) for route in ROUTES for code in codes_of(route, key=True)]


@pytest.mark.parametrize(
    ("route", "code"), DOCUMENTED, ids=[f"{route.handler.__name__}-{code}" for route, code in DOCUMENTED]
)
async def test_a_code_that_is_documented_is_answered(api: Api, route: Route, code: str) -> None:
    provoke = PARTICULAR.get((name_of(route), code)) or GENERAL[code]

    answer = await provoke(api, route)

    assert (CODES[code][0], code) == (answer.status, answer.code), answer.raw
    assert CODES[code][1] == answer.doc["title"]
    assert 1 <= len(answer.headers["X-Request-Id"]) <= 128
    if code in {"store_unavailable", "store_full", "queue_full"}:
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
    if code == "unauthorized":
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    if code == "validation":
        assert ["/colour"] == answer.paths


def test_nothing_is_provoked_that_is_not_documented() -> None:
    documented = {(name_of(route), code) for route, code in DOCUMENTED}

    assert set() == set(PARTICULAR) - documented
    assert set(GENERAL) | {code for _, code in PARTICULAR} == {code for _, code in documented}

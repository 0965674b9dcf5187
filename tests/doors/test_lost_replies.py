"""A reply of Redis that is lost changes no answer: what a call has made itself is created, and no duplicate.

Every call of the API, once for each of its script calls: that one is carried out, and its reply is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from redis import exceptions as redis_errors

from scheduler.api import ROUTES
from scheduler.api.routes import Route
from scheduler.calling import Caller
from scheduler.keys import queues_key
from tests.doors.conftest import Answer, Api, held
from tests.doors.test_unique_calls import DOORS

BACKGROUND = {"schedule_due", "reclaim", "promote due"}
"""Scripts that the server's own loops call meanwhile."""


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", "fake"))


class Lossy:
    """Drops the reply of the n-th pipeline of scripts that a request sends."""

    def __init__(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        self._send = api.store._send
        self.left: int | None = None
        self.lost: list[str] = []
        monkeypatch.setattr(api.store, "_send", self.send)

    async def send(self, calls: Any, *, whole: bool = False) -> list[Any]:
        replies = await self._send(calls, whole=whole)
        if self.left is None or all(call.script in BACKGROUND for call in calls):
            return replies
        self.left -= 1
        if self.left < 0:
            self.left = None
            self.lost = [call.script for call in calls]
            raise redis_errors.ConnectionError("the reply is lost")
        return replies


NAMES = {
    "id": "mail:a", "queue": "mail", "type": "send", "group": "acme", "operation": "mail:op", "schedule": "nightly",
    "flow": "mail:f",
}  # fmt: skip
SCHEDULE = {"type": "send", "queue": "mail", "every": "1h"}
FLOW = {
    "queue": "mail",
    "jobs": [{"name": "a", "type": "send"}, {"name": "b", "type": "send", "after": ["a"]}],
}
BODIES: Mapping[str, Any] = {
    "enqueue": {"type": "send", "queue": "fresh"},
    "enqueue_bulk": [{"type": "send", "queue": "fresh"}, {"type": "send", "queue": "other"}],
    "update": {"priority": 7},
    "lease": {"worker": "w"},
    "settle": {"worker": "w", "ack": [{"id": "mail:a", "token": 1}]},
    "purge_queue": {"state": "ready"},
    "operate": {"act": "cancel", "queue": "mail", "filter": {"state": "ready"}},
    "put_schedule": SCHEDULE,
    "create_flow": FLOW,
}


async def waiting(api: Api) -> None:
    await api.enqueue("a", delay=600)


async def due(api: Api) -> None:
    await api.enqueue("a")


async def dead(api: Api) -> None:
    await api.dead("a")


async def a_schedule(api: Api) -> None:
    await api.put("/v1/schedules/nightly", SCHEDULE)


async def a_flow(api: Api) -> None:
    await api.post("/v1/flows", {**FLOW, "id": "f"})


async def a_type(api: Api) -> None:
    await api.put("/v1/queues/mail/types/send", {"timeout": 5})


async def a_dead_flow(api: Api) -> None:
    await a_flow(api)
    [job] = await api.lease()
    error = {"kind": "Boom", "message": "no"}
    await api.settle(nack=[{**held(job), "error": error, "permanent": True}])
    await api.store.relay("mail")


async def nothing(_: Api) -> None:
    return


SETUPS: Mapping[str, Callable[[Api], Awaitable[None]]] = {
    "replay": dead, "replay_dead": dead, "purge_dead": dead, "list_dead": dead, "lease": due, "cancel": due, "purge_queue": due,
    "operate": due, "get_explanation": due, "enqueue": nothing, "enqueue_bulk": nothing, "replay_flow": a_dead_flow,
}  # fmt: skip


def setup_of(route: Route) -> Callable[[Api], Awaitable[None]]:
    name = route.handler.__name__
    if name in SETUPS:
        return SETUPS[name]
    for part, setup in (("/schedules", a_schedule), ("{flow}", a_flow), ("/types", a_type)):
        if part in route.path and name != "put_schedule":
            return setup
    return waiting


MAKES = {"enqueue", "enqueue_bulk", "copy", "create_flow", "trigger_schedule"}
"""Calls that make jobs: they are answered as if nothing had happened, also when a reply is lost."""


def plain(answer: Answer) -> Any:
    """An answer without ids and times that differ from one call to the next."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}(\.\d+)?", "<id>", str(answer.raw, "utf-8"))
    text = re.sub(r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "<time>", text)
    text = re.sub(r'"(token|version|oldest_wait|age|until)":\s*[0-9.]+', r'"\1":0', text)
    location = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "<id>", answer.headers.get("Location", ""))
    return answer.status, location, text


async def stored(api: Api) -> Any:
    """The queues that are known, and how many jobs stand in each state of each."""
    known: Any = await api.redis.smembers(queues_key("scheduler"))
    names = sorted(name.decode() for name in known)
    found = await api.store.run_all([api.store.census_call(name) for name in names]) if names else []
    # An obliterated queue may stay registered: that is a hint, and it is not shown.
    return {name: dict(one.counts) for name, one in zip(names, found, strict=True) if one is not None}


Call = Callable[[Api], Awaitable[Answer]]


async def compare(
    api: Api, lossy: Lossy, setup: Callable[[Api], Awaitable[None]], call: Call, *, exact: bool
) -> int:
    """Compares each run that loses a reply with the undisturbed one; how many there were."""

    async def once(left: int | None) -> tuple[Any, Any]:
        await api.redis.flushall()
        api.store._known_queues.clear()
        await setup(api)
        lossy.left, lossy.lost = left, []
        answer = await call(api)
        lossy.left = None
        return plain(answer), await stored(api)

    undisturbed = await once(None)
    assert undisturbed[0][0] < 300, undisturbed
    for n in range(30):
        found = await once(n)
        if not lossy.lost:
            return n
        # An operation that is not finished yet is a true answer, and so is that nobody knows whether it was done.
        if exact or found[0][0] not in {503, 202}:
            assert undisturbed == found, (n, lossy.lost)
    raise AssertionError("a call of so many scripts?")


def of(route: Route, body: Any = None, **headers: str) -> Call:
    path = route.path.format(**NAMES)
    query = "?confirm=mail" if route.handler.__name__ == "obliterate" else ""
    if route.body is not None and body is None:
        body = BODIES.get(route.handler.__name__, {})
    return lambda api: api.call(route.method, path + query, body, **headers)


@pytest.mark.unverified
@pytest.mark.parametrize("route", ROUTES, ids=[route.handler.__name__ for route in ROUTES])
async def test_a_lost_reply_changes_no_answer(
    api: Api, route: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    if route.handler.__name__ in {
        "settle",
        "get_operation",
        "cancel_operation",
        "alive",
        "ready",
        "open_job",
    }:
        pytest.skip("it needs a state that no second run has alike; its own tests lose replies")
    lossy = Lossy(api, monkeypatch)

    await compare(api, lossy, setup_of(route), of(route), exact=route.handler.__name__ in MAKES)


NDJSON = b'{"type": "send", "queue": "fresh"}\n{"type": "send", "queue": "fresh", "id": "x"}\n'
WAYS: Mapping[str, tuple[str, Any, dict[str, str]]] = {
    "a job": ("/v1/jobs", {"type": "send", "queue": "fresh"}, {}),
    "a job with an id": ("/v1/jobs", {"type": "send", "queue": "fresh", "id": "x"}, {}),
    "a job to come": ("/v1/jobs", {"type": "send", "queue": "fresh", "id": "x", "delay": 600}, {}),
    "a unique job": ("/v1/jobs", {"type": "send", "queue": "fresh", "unique": {"key": "k"}}, {}),
    "a unique job that replaces": (
        "/v1/jobs", {"type": "send", "queue": "fresh", "unique": {"key": "k", "on_conflict": "replace"}}, {},
    ),
    "a job that waits": ("/v1/jobs", {"type": "send", "queue": "fresh", "after": ["mail:a"]}, {}),
    "a held job": ("/v1/jobs", {"type": "send", "queue": "fresh", "id": "x", "hold": True}, {}),
    "an Idempotency-Key": ("/v1/jobs", {"type": "send", "queue": "fresh"}, {"Idempotency_Key": "k"}),
    "an Idempotency-Key and an id": ("/v1/jobs", {"type": "send", "queue": "fresh", "id": "x"}, {"Idempotency_Key": "k"}),
    "many": ("/v1/jobs/bulk", [{"type": "send", "queue": "fresh"}, {"type": "send", "queue": "mail", "id": "x"}], {}),
    "many with an Idempotency-Key": (
        "/v1/jobs/bulk", [{"type": "send", "queue": "fresh"}, {"type": "send", "id": "x"}], {"Idempotency_Key": "k"},
    ),
    "lines": ("/v1/jobs/bulk?results=all", NDJSON, {"Content_Type": "application/x-ndjson"}),
    "a copy": ("/v1/jobs/mail:a/copy", {"queue": "fresh"}, {}),
    "a copy with an id": ("/v1/jobs/mail:a/copy", {"queue": "fresh", "id": "x"}, {}),
    "a flow with an id": ("/v1/flows", {**FLOW, "id": "f"}, {}),
    "a flow with an Idempotency-Key": ("/v1/flows", FLOW, {"Idempotency_Key": "k"}),
}  # fmt: skip
"""What makes jobs, in each of its ways."""


@pytest.mark.unverified
@pytest.mark.parametrize("backend", ["fake", "valkey"], indirect=True)
@pytest.mark.parametrize("way", WAYS)
async def test_what_a_call_has_made_is_created_though_a_reply_was_lost(
    api: Api, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, body, headers = WAYS[way]

    async def call(api: Api) -> Answer:
        return await api.post(path, body, **headers)

    assert 1 <= await compare(api, Lossy(api, monkeypatch), waiting, call, exact=True)


@pytest.mark.parametrize(
    "fields", [{"id": "x"}, {"unique": {"key": "k"}}, {"id": "x", "unique": {"key": "k"}}]
)
async def test_what_stood_before_is_a_duplicate_though_a_reply_was_lost(
    api: Api, fields: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"type": "send", "queue": "mail", **fields}
    stands = (await api.post("/v1/jobs", body)).doc
    lossy = Lossy(api, monkeypatch)
    lossy.left = 0

    answer = await api.post("/v1/jobs", body)

    assert lossy.lost
    assert (200, True, stands["id"]) == (answer.status, answer.doc["duplicate"], answer.doc["id"])


async def test_one_that_was_replaced_and_has_started_since_is_replaced_once(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a lost reply and the repeated call the changed job starts, and gives its key back."""
    await api.enqueue("a", payload=1, unique={"key": "k", "until": "start"})
    lossy = Lossy(api, monkeypatch)
    real = lossy.send

    async def then_started(calls: Any, *, whole: bool = False) -> Any:
        try:
            return await real(calls, whole=whole)
        except redis_errors.ConnectionError:
            await api.store.claim("mail", worker="w")
            raise

    monkeypatch.setattr(api.store, "_send", then_started)
    lossy.left = 0
    unique = {"key": "k", "until": "start", "on_conflict": "replace"}

    answer = await api.post("/v1/jobs", {"type": "send", "queue": "mail", "payload": 2, "unique": unique})

    assert (200, "mail:a", 2) == (answer.status, answer.doc["id"], answer.doc["payload"])
    assert {"running": 1} == {state: n for state, n in (await stored(api))["mail"].items() if n}


class ThenRefused(Lossy):
    """Drops the first reply; the repeated call is refused, as by a server that was restarted or is full by now."""

    def __init__(self, api: Api, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        super().__init__(api, monkeypatch)
        self.error = error

    async def send(self, calls: Any, *, whole: bool = False) -> list[Any]:
        if self.lost and not all(call.script in BACKGROUND for call in calls):
            return [self.error for _ in calls]
        return await super().send(calls, whole=whole)


@pytest.mark.parametrize(
    "error",
    [
        redis_errors.BusyLoadingError("loading"),
        redis_errors.OutOfMemoryError("full"),
        redis_errors.ResponseError("odd"),
    ],
)
async def test_what_may_stand_is_named_whatever_refuses_the_repeated_call(
    api: Api, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    lossy = ThenRefused(api, monkeypatch, error)
    lossy.left = 0
    one = await api.post("/v1/jobs", {"type": "send", "queue": "mail", "id": "a"})
    lossy.left, lossy.lost = 0, []
    [many] = (await api.post("/v1/jobs/bulk", [{"type": "send", "queue": "mail", "id": "b"}])).doc["items"]
    monkeypatch.undo()

    assert (503, "store_unavailable", "mail:a") == (one.status, one.code, one.doc["id"])
    assert (503, "store_unavailable", "mail:b") == (many["status"], many["code"], many["id"])
    assert 2 == (await api.get("/v1/queues/mail")).doc["counts"]["ready"]


@pytest.mark.parametrize("backend", ["valkey"], indirect=True)
@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
@pytest.mark.parametrize("options", [{}, {"id": "x"}], ids=["own key", "id"])
async def test_whoever_enqueues_is_told_of_no_duplicate(
    api: Api, door: Any, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clients, the app and the command line, each with the first reply to `enqueue` lost."""
    send, lost = Caller._send, list[str]()

    async def lossy(self: Caller, calls: Any, *, whole: bool = False) -> list[Any]:
        replies = await send(self, calls, whole=whole)
        if not lost and any(call.script == "enqueue" for call in calls):
            lost.append("enqueue")
            raise redis_errors.ConnectionError("the reply is lost")
        return replies

    async with door(api) as enqueue:
        monkeypatch.setattr(Caller, "_send", lossy)
        job_id, duplicate = await enqueue({"n": 1}, unique="k", **options)
        again = (await enqueue({"n": 1}, unique="k", **options)) if options else (job_id, True)

    assert ["enqueue"] == lost
    assert (False, (job_id, True)) == (duplicate, again)
    assert 1 == (await api.get("/v1/queues/mail")).doc["counts"]["ready"]
    assert b"mail" in await api.redis.smembers(queues_key("scheduler"))


ACTS: Mapping[str, Any] = {"run": ({"delay": 600}, "ready"), "replay": (None, "ready"), "delete": ({}, None)}


@pytest.mark.parametrize("executed", [True, False], ids=["the reply is lost", "the request is lost"])
@pytest.mark.parametrize("act", ACTS)
async def test_an_act_is_answered_as_done_only_where_that_is_known(
    api: Api, act: str, executed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields, state = ACTS[act]
    await (api.dead() if fields is None else api.enqueue(**fields))
    send, lost = api.store._send, list[str]()

    async def lossy(calls: Any, *, whole: bool = False) -> list[Any]:
        if not lost and any(call.script in {"promote", "replay", "purge"} for call in calls):
            lost.append("lost")
            if executed:
                await send(calls, whole=whole)
            raise redis_errors.ConnectionError("lost")
        return await send(calls, whole=whole)

    monkeypatch.setattr(api.store, "_send", lossy)
    path = "/v1/jobs/mail:a" + ("" if act == "delete" else f"/{act}")
    answer = await api.call("DELETE" if act == "delete" else "POST", path)
    found = await api.get("/v1/jobs/mail:a")

    assert ["lost"] == lost
    assert (503 if executed else 204 if act == "delete" else 200) == answer.status
    assert state == (found.doc["state"] if found.status == 200 else None)

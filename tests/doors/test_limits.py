"""Limits of queues, types and groups: set, lifted, paused, shown."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from scheduler.limits import UNLIMITED, Rate
from scheduler.outcomes import TypePolicy
from scheduler.shown import GroupPolicyShown, QueueShown, TypeShown
from tests.doors.conftest import held, until
from tests.doors.test_waiting import waiting_of
from tests.helpers import keys, on_the_fake

MAIL = "/v1/queues/mail"
SEND, ACME = f"{MAIL}/types/send", f"{MAIL}/groups/acme"
LIMITS = ("rate", "concurrency", "group_rate", "group_concurrency")
PER_MINUTE = {"limit": 100, "per": 60, "burst": 0}


def limits(answer: Any, *names: str) -> tuple[Any, ...]:
    return tuple(answer.doc[name] for name in names or LIMITS)


# -- queues ----------------------------------------------------------------------------------------------------


async def test_a_queue_is_limited_by_put_and_changed_by_patch(api):
    made = await api.put(
        MAIL, {"rate": "100/m", "concurrency": 5.0, "group_rate": {"limit": 3, "per": "250ms", "burst": 2}}
    )
    changed = await api.patch(
        MAIL, {"rate": {"limit": 2, "per": 1}, "concurrency": None, "group_concurrency": 1}
    )
    replaced = await api.put(MAIL, {"group_concurrency": 2})

    assert (PER_MINUTE, 5, {"limit": 3, "per": 0.25, "burst": 2}, None) == limits(made)
    assert ({"limit": 2, "per": 1, "burst": 0}, None, {"limit": 3, "per": 0.25, "burst": 2}, 1) == limits(
        changed
    )
    assert (None, None, None, 2) == limits(replaced)
    assert replaced.doc == (await api.get(MAIL)).doc == (await api.get("/v1/queues")).doc["items"][0]
    assert {b"group_concurrency": b"2", b"lanes": b"2", b"slots": b"1"}.items() <= (
        await api.redis.hgetall(keys().at("config"))
    ).items()
    msgspec.convert(changed.doc, QueueShown)


NO_RATES: list[Any] = [
    1,
    True,
    "",
    "100",
    "0/m",
    "1.5/s",
    "1/w",
    "1000001/s",
    [],
    {"limit": 1_001, "per": "1ms"},
]
NO_PARTS: dict[str, list[Any]] = {
    "limit": [0, 1.5, "5", 1e300, 1_000_000_001],
    "per": [0, "25h", "soon", -1],
    "burst": [-1, 0.5, 1_000_001, "1"],
    "colour": [1],
}
BAD_RATES: list[tuple[Any, str]] = [
    *((value, "") for value in NO_RATES),
    *(
        ({"limit": 1, "per": 1, name: value}, f"/{name}")
        for name, values in NO_PARTS.items()
        for value in values
    ),
    ({"per": 1}, "/limit"),
    ({"limit": 1}, "/per"),
]


@on_the_fake
@pytest.mark.parametrize(("value", "place"), BAD_RATES, ids=lambda value: str(value)[:50])
async def test_what_is_no_rate_is_named_and_nothing_is_set(api, value, place):
    for method, path, name in (
        ("PUT", MAIL, "rate"), ("PUT", MAIL, "group_rate"), ("PUT", SEND, "rate"), ("PATCH", MAIL, "rate"), ("PATCH", ACME, "rate"),
    ):  # fmt: skip
        if method == "PATCH":
            await api.put(MAIL, {})
        answer = await api.call(method, path, {name: value})
        assert (422, "validation", [f"/{name}{place}"]) == (answer.status, answer.code, answer.paths), (
            method,
            path,
        )
    assert (
        {"items": [], "next_cursor": None}
        == (await api.get(f"{MAIL}/types")).doc
        == (await api.get(f"{MAIL}/groups")).doc
    )


@on_the_fake
@pytest.mark.parametrize("value", [0, -1, 1.5, "1", True, 1e300, 1_000_001])
async def test_what_is_no_number_of_jobs_at_once_is_named(api, value):
    await api.put(MAIL, {})
    for path, name in (
        (MAIL, "concurrency"),
        (MAIL, "group_concurrency"),
        (ACME, "concurrency"),
        (ACME, "weight"),
    ):
        answer = await api.patch(path, {name: value})
        assert (422, [f"/{name}"]) == (answer.status, answer.paths), (path, name)


# -- types -----------------------------------------------------------------------------------------------------


async def test_a_type_is_limited_and_its_limits_are_lifted(api):
    made = await api.put(
        SEND, {"rate": "100/m", "concurrency": 2, "breaker": {"failure_rate": 0.25, "window": "5m"}}
    )
    changed = await api.patch(
        SEND, {"rate": None, "breaker": {"window": None, "minimum": 50}, "paused": True}
    )

    breaker = {"failure_rate": 0.25, "window": 300, "minimum": 10, "open_for": 30, "probes": 1}
    assert (PER_MINUTE, 2, False, breaker) == limits(made, "rate", "concurrency", "paused", "breaker")
    breaker |= {"window": 60, "minimum": 50}
    assert (None, 2, True, breaker) == limits(changed, "rate", "concurrency", "paused", "breaker")
    assert {"rate": None, "concurrency": 2, "breaker": breaker}.items() <= changed.doc["in_force"].items()
    assert changed.doc == (await api.get(SEND)).doc
    assert (None, False) == limits(await api.put(SEND, {}), "breaker", "paused")
    msgspec.convert(changed.doc, TypeShown)


async def test_what_code_declares_limits_a_type_until_it_is_set_or_lifted(api):
    said = {"rate": "5/s", "concurrency": 3}
    declared = await api.put(f"{SEND}?declared=true", said)
    set_ = await api.patch(SEND, {"concurrency": 9})
    lifted = await api.patch(SEND, {"concurrency": None, "rate": None})
    again = await api.patch(SEND, {"timeout": 5})

    five = {"limit": 5, "per": 1, "burst": 0}
    assert (None, None) == limits(declared, "rate", "concurrency")
    assert (five, 3) == tuple(declared.doc["in_force"][name] for name in said)
    assert (five, 9) == tuple(set_.doc["in_force"][name] for name in said)
    for answer in (lifted, again):
        assert (None, None) == limits(answer, "rate", "concurrency")
        assert (None, None) == tuple(answer.doc["in_force"][name] for name in said)
    stands = (await api.store.types("mail"))["send"]
    assert (
        TypePolicy(5_000, rate=UNLIMITED, concurrency=UNLIMITED),
        TypePolicy(rate=Rate(5, 1_000), concurrency=3),
    ) == stands
    await api.call("DELETE", SEND)
    forgotten = (await api.get(SEND)).doc["in_force"]
    assert (five, 3) == tuple(forgotten[name] for name in said)


async def test_a_declaration_pauses_nothing(api):
    answer = await api.put(f"{SEND}?declared=true", {"paused": True})

    assert (422, ["/paused"]) == (answer.status, answer.paths)


async def test_a_type_is_paused_and_resumed_whatever_was_said_of_it(api):
    assert 404 == (await api.post(f"{SEND}/pause")).status
    await api.enqueue()
    idle = await api.post(f"{SEND}/resume")
    paused = [await api.post(f"{SEND}/pause") for _ in range(2)]
    resumed = [await api.post(f"{SEND}/resume") for _ in range(2)]

    assert (200, False, '"0"') == (idle.status, idle.doc["paused"], idle.headers["ETag"])
    assert [(200, True, '"1"')] * 2 == [
        (one.status, one.doc["paused"], one.headers["ETag"]) for one in paused
    ]
    assert [(200, False, '"2"')] * 2 == [
        (one.status, one.doc["paused"], one.headers["ETag"]) for one in resumed
    ]


async def test_what_else_is_set_for_a_type_stays_while_it_is_paused(api):
    await api.put(SEND, {"timeout": 5, "retry": {"base": 7}, "schema": {"type": "object"}, "concurrency": 3})
    await api.post(f"{SEND}/pause")
    stands = (await api.post(f"{SEND}/resume")).doc

    assert (5, {"base": 7}, {"type": "object"}, 3) == tuple(
        stands[n] for n in ("timeout", "retry", "schema", "concurrency")
    )


async def test_what_runs_of_a_paused_type_goes_on(api):
    job = await api.running()
    await api.post(f"{SEND}/pause")
    [item] = await api.settle(ack=[held(job)])

    assert (True, "succeeded") == (item["ok"], item["state"])


# -- groups ----------------------------------------------------------------------------------------------------


async def test_a_group_has_a_policy_of_its_own_until_that_says_nothing(api):
    await api.put(MAIL, {"group_rate": "100/m", "group_concurrency": 5})
    first = await api.get(ACME)
    changed = await api.patch(ACME, {"weight": 3, "concurrency": 7.0})
    lifted = await api.patch(ACME, {"concurrency": None, "rate": None})
    other = await api.patch(ACME, {"weight": None})
    gone = await api.call("DELETE", ACME)

    nothing = {"weight": None, "rate": None, "concurrency": None, "paused": False}
    for_all = {"weight": 1, "rate": PER_MINUTE, "concurrency": 5}
    assert {"queue": "mail", "group": "acme", **nothing, "in_force": for_all} == first.doc
    assert (3, 7, {"weight": 3, "rate": PER_MINUTE, "concurrency": 7}) == limits(
        changed, "weight", "concurrency", "in_force"
    )
    assert (3, None, {"weight": 3, "rate": None, "concurrency": None}) == limits(
        lifted, "weight", "concurrency", "in_force"
    )
    assert {"weight": 1, "rate": None, "concurrency": None} == other.doc["in_force"]
    assert (204, first.doc) == (gone.status, (await api.get(ACME)).doc)
    assert 0 == await api.redis.hlen(keys().at("groups"))
    msgspec.convert(changed.doc, GroupPolicyShown)


async def test_null_forgets_what_was_set_where_the_queue_limits_no_group(api):
    await api.put(MAIL, {})
    await api.patch(ACME, {"rate": "1/s", "concurrency": 1})
    answer = await api.patch(ACME, {"rate": None, "concurrency": None})

    assert {"weight": 1, "rate": None, "concurrency": None} == answer.doc["in_force"]
    assert [] == (await api.get(f"{MAIL}/groups")).doc["items"]


async def test_a_group_is_paused_and_resumed(api):
    await api.enqueue(group="acme")
    idle = await api.post(f"{ACME}/resume")
    paused = [await api.post(f"{ACME}/pause") for _ in range(2)]
    resumed = [await api.post(f"{ACME}/resume") for _ in range(2)]

    assert (200, False, '"0"') == (idle.status, idle.doc["paused"], idle.headers["ETag"])
    assert [(200, True, '"1"')] * 2 == [
        (one.status, one.doc["paused"], one.headers["ETag"]) for one in paused
    ]
    assert [(200, False, '"2"')] * 2 == [
        (one.status, one.doc["paused"], one.headers["ETag"]) for one in resumed
    ]


async def test_groups_with_a_policy_are_listed_by_name_a_page_at_a_time(api):
    await api.put(MAIL, {"group_concurrency": 4})
    for name in ("c", "a", "b"):
        await api.patch(f"{MAIL}/groups/{name}", {"weight": 2})
    await api.enqueue(group="d")
    first = (await api.get(f"{MAIL}/groups?limit=2")).doc
    rest = (await api.get(f"{MAIL}/groups?limit=2&cursor={first['next_cursor']}")).doc

    assert ["a", "b"] == [item["group"] for item in first["items"]]
    assert (["c"], None) == ([item["group"] for item in rest["items"]], rest["next_cursor"])
    assert first["items"][0] == (await api.get(f"{MAIL}/groups/a")).doc


@on_the_fake
@pytest.mark.parametrize("path", [MAIL, SEND, ACME])
async def test_a_version_that_does_not_fit_changes_nothing(api, path):
    await api.put(SEND, {"concurrency": 5})
    etag = (await api.patch(ACME, {"weight": 5})).headers["ETag"]
    before = (await api.get(path)).doc
    calls = [("PATCH", path, {"concurrency": 1}), ("POST", f"{path}/pause", None)]

    for method, address, body in calls + ([("DELETE", path, None)] if path != MAIL else []):
        answer = await api.call(method, address, body, **{"If-Match": '"0"'})
        assert (412, "precondition_failed") == (answer.status, answer.code), (method, address)
    assert before == (await api.get(path)).doc
    assert 200 == (await api.patch(path, {"concurrency": 1}, **{"If-Match": etag})).status


async def test_many_patches_at_once_lose_nothing(api):
    await api.put(MAIL, {})
    fields = {"weight": 4, "rate": PER_MINUTE, "concurrency": 3, "paused": True}
    await asyncio.gather(*(api.patch(ACME, {name: value}) for name, value in fields.items()))

    assert fields.items() <= (await api.get(ACME)).doc.items()


async def test_where_there_is_no_queue_there_are_no_groups(api):
    calls = [
        ("GET", ACME),
        ("GET", f"{MAIL}/groups"),
        ("PATCH", ACME),
        ("DELETE", ACME),
        ("POST", f"{ACME}/pause"),
    ]

    for method, path in calls:
        answer = await api.call(method, path, {"weight": 2} if method == "PATCH" else None)
        assert (404, "not_found") == (answer.status, answer.code), (method, path)
    assert [] == (await api.get("/v1/queues")).doc["items"]


@on_the_fake
async def test_what_can_be_no_group_is_refused(api):
    await api.put(MAIL, {})
    made, sought = await api.patch(f"{MAIL}/groups/a%20b", {}), await api.get(f"{MAIL}/groups/{'x' * 129}")

    assert (422, ["/group"], 404) == (made.status, made.paths, sought.status)


# -- cost ------------------------------------------------------------------------------------------------------


async def test_a_job_has_a_cost(api):
    job, other = await api.enqueue(cost=7.0), await api.enqueue("b")
    [leased] = await api.lease()

    assert (7, 7, 7) == (job["cost"], (await api.get("/v1/jobs/mail:a")).doc["cost"], leased["cost"])
    assert "cost" not in other
    again, costlier = [
        await api.post("/v1/jobs", {"type": "send", "queue": "mail", "id": "a", "cost": cost})
        for cost in (7, 8)
    ]
    assert (200, 7, 409) == (again.status, again.doc["cost"], costlier.status)
    bulk = (
        await api.post("/v1/jobs/bulk", [{"type": "t", "cost": 3, "id": "c"}, {"type": "t", "cost": 0}])
    ).doc["items"]
    assert ([201, 422], "/cost") == ([item["status"] for item in bulk], bulk[1]["errors"][0]["path"])
    assert 3 == (await api.get("/v1/jobs/default:c")).doc["cost"]


# -- they hold -------------------------------------------------------------------------------------------------

HELD: list[tuple[str, str, dict[str, Any]]] = [
    ("PATCH", MAIL, {"concurrency": 2}),
    ("PATCH", MAIL, {"rate": {"limit": 1, "per": "1h", "burst": 1}}),
    ("PATCH", MAIL, {"group_concurrency": 2}),
    ("PATCH", MAIL, {"group_rate": {"limit": 1, "per": "1h", "burst": 1}}),
    ("PUT", SEND, {"concurrency": 2}),
    ("PUT", SEND, {"rate": {"limit": 1, "per": "1h", "burst": 1}}),
    ("PATCH", ACME, {"concurrency": 2}),
    ("PATCH", ACME, {"rate": {"limit": 1, "per": "1h", "burst": 1}}),
]


@pytest.mark.parametrize(("method", "path", "limit"), HELD, ids=str)
async def test_a_limit_holds_until_it_is_lifted(api, method, path, limit):
    await api.put(MAIL, {})
    await api.call(method, path, limit)
    for n in range(4):
        await api.enqueue(f"k{n}", group="acme")

    assert 2 == len(await api.lease(max=4))
    waiting = asyncio.create_task(api.lease(max=4, wait=30))
    await until(lambda: _waits(api))
    await api.patch(path, dict.fromkeys(limit))
    assert ["mail:k2", "mail:k3"] == [job["id"] for job in await waiting]


@pytest.mark.parametrize("path", [SEND, ACME])
async def test_what_is_paused_is_not_given_until_it_is_resumed(api, path):
    await api.enqueue(group="acme")
    await api.post(f"{path}/pause")
    await api.enqueue("other", type="other")

    assert ["mail:other"] == [job["id"] for job in await api.lease(max=4)]
    waiting = asyncio.create_task(api.lease(wait=30))
    await until(lambda: _waits(api))
    await api.post(f"{path}/resume")
    assert ["mail:a"] == [job["id"] for job in await waiting]


async def _waits(api: Any) -> bool:
    return waiting_of(api) == 1


# -- breakers, and what a handler slows --------------------------------------------------------------------------


async def failing(api) -> dict[str, Any]:
    """What a nack says of a job that was leased just now."""
    await api.post("/v1/jobs", {"queue": "mail", "type": "send"})
    [job] = (await api.post(f"{MAIL}/lease", {"worker": "w"})).doc["jobs"]
    return {**held(job), "error": {"kind": "E", "message": "m"}}


async def test_a_breaker_is_seen_to_open_and_closed_by_a_reset(api):
    made = await api.put(SEND, {"breaker": {"minimum": 1}})
    assert {"state": "closed", "until": None, "successes": 0, "failures": 0} == made.doc["breaker_state"]
    await api.post(f"{MAIL}/settle", {"worker": "w", "nack": [await failing(api)]})

    shown = (await api.get(SEND)).doc["breaker_state"]
    assert ("open", 0, 1) == (shown["state"], shown["successes"], shown["failures"])
    assert None is not shown["until"]
    assert shown == (await api.get(f"{MAIL}/types")).doc["items"][0]["breaker_state"]

    closed = await api.post(f"{SEND}/breaker/reset")
    assert (200, "closed") == (closed.status, closed.doc["breaker_state"]["state"])
    assert closed.doc == (await api.post(f"{SEND}/breaker/reset")).doc == (await api.get(SEND)).doc
    msgspec.convert(closed.doc, TypeShown)


async def test_a_type_without_a_breaker_has_no_state_and_one_that_nobody_knows_no_reset(api):
    assert None is (await api.put(SEND, {})).doc["breaker_state"]
    assert None is (await api.post(f"{SEND}/breaker/reset")).doc["breaker_state"]
    assert 404 == (await api.post(f"{MAIL}/types/other/breaker/reset")).status
    assert 404 == (await api.post("/v1/queues/nowhere/types/send/breaker/reset")).status


async def test_a_nack_may_slow_the_type_of_its_job(api):
    nack = await failing(api)
    for wrong in ({"scope": "type"}, {"scope": "type", "retry_in": 5, "permanent": True}):
        refused = await api.post(f"{MAIL}/settle", {"worker": "w", "nack": [{**nack, **wrong}]})
        assert (422, "/nack/0/scope") == (refused.status, refused.doc["errors"][0]["path"])

    slowing = {**nack, "scope": "type", "retry_in": 60}
    done = await api.post(f"{MAIL}/settle", {"worker": "w", "nack": [slowing]})
    await api.post("/v1/jobs", {"queue": "mail", "type": "send"})

    assert "retrying" == done.doc["items"][0]["state"]
    assert [] == (await api.post(f"{MAIL}/lease", {"worker": "w"})).doc["jobs"]

"""/v1/flows: a graph is taken in whole or not at all, and can be watched, cancelled and replayed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import ServerDisconnectedError

from scheduler.flow import LARGEST_FLOW
from tests.doors.conftest import Api, held, on_valkey


def job(name: str, *after: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "type": "send", "after": list(after), **fields}


def graph(*jobs: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"queue": "mail", "id": "f", "jobs": list(jobs), **fields}


DIAMOND = graph(job("a"), job("b", "a"), job("c", "a"), job("d", "b", "c"))


async def put(api: Api, body: dict[str, Any]) -> Any:
    answer = await api.post("/v1/flows", body)
    assert 201 == answer.status, answer.raw
    return answer.doc


async def states(api: Api, its_id: str = "mail:f") -> dict[str, str]:
    found = (await api.get(f"/v1/flows/{its_id}")).doc
    return {"": found["state"], **{one["name"]: one["state"] for one in found["jobs"]}}


async def ended(api: Api, *names: str, dead: bool = False, queue: str = "mail") -> None:
    """These jobs, the next ones in any order, end; and whoever waits for them hears of it."""
    jobs = await api.lease(queue, max=len(names))
    assert set(names) == {one["flow_name"] for one in jobs}
    error = {"kind": "Boom", "message": "no"}
    items = [{**held(one), **({"error": error, "permanent": True} if dead else {})} for one in jobs]
    told: dict[str, Any] = {"nack" if dead else "ack": items}
    await api.settle(queue, **told)
    await api.store.relay(queue)


async def jobs_in(api: Api, *queues: str) -> int:
    return sum([sum((await api.store.census(name)).counts.values()) for name in queues])


# -- put in ---------------------------------------------------------------------------------------------------


async def test_a_graph_is_there_as_a_whole_and_runs_in_its_order(api):
    answer = await api.post("/v1/flows", DIAMOND)

    assert (201, "/v1/flows/mail:f") == (answer.status, answer.headers["Location"])
    made = answer.doc
    assert ("mail:f", "running", "cancel", None) == tuple(
        made[name] for name in ("id", "state", "on_failure", "finished_at")
    )
    assert {"total": 4, "pending": 4, "succeeded": 0, "failed": 0} == made["progress"]
    assert [("a", "mail:f.0", "ready", []), ("b", "mail:f.1", "blocked", ["a"])] == [
        (one["name"], one["id"], one["state"], one["after"]) for one in made["jobs"][:2]
    ]
    assert made == (await api.get("/v1/flows/mail:f")).doc

    await ended(api, "a")
    assert {"": "running", "a": "succeeded", "b": "ready", "c": "ready", "d": "blocked"} == await states(api)
    await ended(api, "b", "c")
    await ended(api, "d")
    found = (await api.get("/v1/flows/mail:f")).doc
    assert ("succeeded", {"total": 4, "pending": 0, "succeeded": 4, "failed": 0}) == (
        found["state"],
        found["progress"],
    )
    assert found["finished_at"] is not None


async def test_a_job_says_of_which_flow_it_is_and_under_which_name(api):
    await put(api, DIAMOND)

    found = (await api.get("/v1/jobs/mail:f.3")).doc

    assert ("mail:f", "d", ["mail:f.1", "mail:f.2"], "cancel") == tuple(
        found[name] for name in ("flow", "flow_name", "after", "on_failure")
    )


async def test_jobs_have_queues_ids_and_options_of_their_own(api):
    body = {
        "jobs": [
            job("a", queue="one", id="mine", priority=5),
            job("b", "a", queue="two", on_failure="continue"),
        ],
        "on_failure": "wait",
    }

    made = await put(api, body)

    assert made["id"].startswith("one:")
    assert ["one:mine", f"two:{made['id'].partition(':')[2]}.1"] == [one["id"] for one in made["jobs"]]
    assert 5 == (await api.get("/v1/jobs/one:mine")).doc["priority"]
    await ended(api, "a", dead=True, queue="one")
    assert {"": "running", "a": "dead", "b": "ready"} == await states(api, made["id"])


async def test_a_time_of_its_own_is_waited_for_after_the_others(api):
    await put(api, graph(job("a"), job("b", "a", delay=600)))

    await ended(api, "a")

    assert "scheduled" == (await states(api))["b"]


async def test_the_same_request_again_finds_the_flow_and_another_one_is_refused(api):
    await put(api, DIAMOND)
    await ended(api, "a")

    again = await api.post("/v1/flows", DIAMOND)
    other = await api.post("/v1/flows", {**DIAMOND, "on_failure": "continue"})

    assert (200, True, "running") == (again.status, again.doc["duplicate"], again.doc["state"])
    assert (409, "duplicate") == (other.status, other.code)
    assert 4 == await jobs_in(api, "mail")


async def test_an_idempotency_key_makes_one_flow_of_many_requests(api):
    body = {"jobs": [job("a"), job("b", "a")], "queue": "mail"}

    answers = [await api.post("/v1/flows", body, Idempotency_Key="k") for _ in range(3)]

    assert {(201, answers[0].raw)} == {(one.status, one.raw) for one in answers}
    assert 2 == await jobs_in(api, "mail")
    other = await api.post("/v1/flows", {**body, "on_failure": "wait"}, Idempotency_Key="k")
    assert (422, "idempotency_mismatch") == (other.status, other.code)


async def test_who_died_before_the_answer_is_found_again_by_his_idempotency_key(api, monkeypatch):
    body = {"jobs": [job("a"), job("b", "a")], "queue": "mail"}

    async def lost(*_: Any) -> bytes:
        monkeypatch.undo()
        raise ConnectionResetError

    monkeypatch.setattr(api.store, "keep_answer", lost)
    with pytest.raises(ServerDisconnectedError):
        await api.post("/v1/flows", body, Idempotency_Key="k")

    answer = await api.post("/v1/flows", body, Idempotency_Key="k")

    assert 201 == answer.status
    assert 2 == await jobs_in(api, "mail")


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"jobs": []}, ["/jobs"]),
        ({"jobs": [job("a", "b")]}, ["/jobs/0/after/0"]),
        ({"jobs": [job("a"), job("b", "a", "gone")]}, ["/jobs/1/after/1"]),
        ({"jobs": [job("a", "b"), job("b", "a")]}, ["/jobs/0/after/0"]),
        ({"jobs": [job("a", "a")]}, ["/jobs/0/after/0"]),
        ({"jobs": [job("a"), job("a")]}, ["/jobs/1/name"]),
        ({"jobs": [job("a b")]}, ["/jobs/0/name"]),
        ({"jobs": [{"type": "send"}]}, ["/jobs/0/name"]),
        ({"jobs": [{"name": "a"}]}, ["/jobs/0/type"]),
        ({"jobs": [job("a", unique={})]}, ["/jobs/0/unique"]),
        ({"jobs": [job("a", colour="red")]}, ["/jobs/0/colour"]),
        ({"jobs": [job("a", priority=101), job("b", delay=-1)]}, ["/jobs/0/priority", "/jobs/1/delay"]),
        ({"jobs": [job("a", queue="no queue")], "queue": "mail"}, ["/jobs/0/queue"]),
        ({"jobs": [job("a", on_failure="wait")]}, ["/jobs/0/on_failure"]),
        ({"jobs": [job("a", id="other:x")], "queue": "mail"}, ["/jobs/0/id"]),
        ({"jobs": [job("a")], "on_failure": "explode"}, ["/on_failure"]),
        ({"jobs": [job("a")], "id": "x" * 121}, ["/id"]),
        ({"jobs": [job("a")], "id": "mail:f", "queue": "other"}, ["/id"]),
        ({"jobs": [job("a")], "queue": "no queue"}, ["/queue"]),
        ({"jobs": [job("a")], "name": "f"}, ["/name"]),
        ({"jobs": [job(f"n{n}") for n in range(LARGEST_FLOW + 1)]}, ["/jobs"]),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_what_is_wrong_is_named_by_its_place_and_nothing_is_made(api, body, pointers):
    answer = await api.post("/v1/flows", body)

    assert (422, "validation") == (answer.status, answer.code)
    assert pointers == [path for path in answer.paths if path in pointers]
    assert [] == await api.store.queues()


async def test_a_deadline_that_has_passed_is_found_by_the_server_and_takes_all_of_it_back(api):
    past = "2020-01-01T00:00:00Z"

    answer = await api.post("/v1/flows", graph(job("a"), job("b", "a", deadline=past)))

    assert (422, ["/jobs/1/deadline"]) == (answer.status, answer.paths)
    assert 0 == await jobs_in(api, "mail")
    assert 404 == (await api.get("/v1/flows/mail:f")).status


async def test_a_payload_that_does_not_fit_its_schema_is_refused_at_its_place(api):
    schema = {"type": "object", "required": ["to"]}
    await api.put("/v1/queues/mail/types/send", {"schema": schema})

    answer = await api.post("/v1/flows", graph(job("a", payload={"to": "x"}), job("b", "a")))

    assert (422, ["/jobs/1/payload"]) == (answer.status, [path[:15] for path in answer.paths])
    assert 0 == await jobs_in(api, "mail")


async def test_a_job_whose_id_is_taken_takes_all_of_it_back(api):
    await api.enqueue("mine")

    answer = await api.post("/v1/flows", graph(job("a"), job("b", "a", id="mine")))

    assert (409, "duplicate") == (answer.status, answer.code)
    assert ["mail:mine"] == [one["id"] for one in (await api.get("/v1/jobs?queue=mail")).doc["items"]]


async def test_a_queue_without_room_takes_nothing_of_it(api):
    await api.put("/v1/queues/mail", {"max_length": 2})

    answer = await api.post("/v1/flows", graph(job("a"), job("b"), job("c")))

    assert (429, "queue_full") == (answer.status, answer.code)
    assert 0 == await jobs_in(api, "mail")
    assert 404 == (await api.get("/v1/flows/mail:f")).status


@on_valkey
async def test_one_of_ten_thousand_is_made_watched_and_cancelled(api):
    jobs = [job("root"), *(job(f"n{n}", "root") for n in range(LARGEST_FLOW - 2))]
    body = graph(*jobs, job("last", *(one["name"] for one in jobs)))

    made = await put(api, body)

    assert LARGEST_FLOW == len(made["jobs"]) == made["progress"]["pending"]
    stopped = await api.post("/v1/flows/mail:f/cancel")
    assert (200, {"cancelled"}) == (stopped.status, {one["state"] for one in stopped.doc["jobs"]})
    assert "cancelled" == stopped.doc["state"]


# -- watched --------------------------------------------------------------------------------------------------


async def test_a_job_that_is_gone_keeps_its_state_in_its_flow(api):
    await put(api, graph(job("a", retention=0), job("b", "a")))
    await ended(api, "a")
    await api.store.purge("mail", ["f.0"])

    found = (await api.get("/v1/flows/mail:f")).doc

    assert ("succeeded", "send") == (found["jobs"][0]["state"], found["jobs"][0]["type"])
    assert found["jobs"][0]["finished_at"] is not None


async def test_its_end_can_be_waited_for(api):
    await put(api, graph(job("a")))
    waiting = asyncio.create_task(api.get("/v1/flows/mail:f?wait=30&jobs=false"))

    assert "running" == (await api.get("/v1/flows/mail:f?wait=0.05")).doc["state"]
    await ended(api, "a")

    found = (await waiting).doc
    assert "succeeded" == found["state"]
    assert "jobs" not in found


@pytest.mark.parametrize("its_id", ["mail:x", "mail:f.0", "nothing", "no%20queue:x"])
async def test_what_is_no_flow_is_not_found(api, its_id):
    await put(api, DIAMOND)
    for method, path in (("GET", ""), ("POST", "/cancel"), ("POST", "/replay")):
        answer = await api.call(method, f"/v1/flows/{its_id}{path}")
        assert (404, "not_found") == (answer.status, answer.code)


@pytest.mark.parametrize("query", ["jobs=maybe", "wait=61", "wait=x", "limit=3"])
async def test_a_query_that_says_nothing_is_refused(api, query):
    await put(api, DIAMOND)

    answer = await api.get(f"/v1/flows/mail:f?{query}")

    assert (422, [f"/{query.partition('=')[0]}"]) == (answer.status, answer.paths)


# -- cancelled and replayed -----------------------------------------------------------------------------------


async def test_a_cancel_stops_what_waits_and_asks_what_runs(api):
    await put(api, DIAMOND)
    [running] = await api.lease()

    asked = await api.post("/v1/flows/mail:f/cancel")

    assert (202, "running", True) == (asked.status, asked.doc["state"], asked.doc["cancel_asked"])
    assert {
        "": "running",
        "a": "running",
        "b": "cancelled",
        "c": "cancelled",
        "d": "cancelled",
    } == await states(api)
    [item] = await api.settle(extend=[held(running)])
    assert item["cancel"]
    await api.settle(release=[held(running)])
    await api.store.relay("mail")
    assert {"cancelled"} == set((await states(api)).values())
    assert 200 == (await api.post("/v1/flows/mail:f/cancel")).status


async def test_what_has_ended_is_not_cancelled(api):
    await put(api, graph(job("a")))
    await ended(api, "a")

    answer = await api.post("/v1/flows/mail:f/cancel")

    assert (409, "wrong_state", "succeeded") == (answer.status, answer.code, answer.doc["state"])


async def test_a_replay_goes_on_where_it_failed(api):
    await put(api, DIAMOND)
    await ended(api, "a")
    await ended(api, "b", "c", dead=True)
    assert {"": "failed", "a": "succeeded", "b": "dead", "c": "dead", "d": "cancelled"} == await states(api)

    answer = await api.post("/v1/flows/mail:f/replay")

    assert (200, "running") == (answer.status, answer.doc["state"])
    assert {"": "running", "a": "succeeded", "b": "ready", "c": "ready", "d": "blocked"} == await states(api)
    await ended(api, "b", "c")
    await ended(api, "d")
    assert {"succeeded"} == set((await states(api)).values())


async def test_a_replay_leaves_what_somebody_cancelled(api):
    await put(api, graph(job("a"), job("b")))
    await api.post("/v1/jobs/mail:f.1/cancel")
    await ended(api, "a", dead=True)

    await api.post("/v1/flows/mail:f/replay")

    assert {"": "running", "a": "ready", "b": "cancelled"} == await states(api)
    await ended(api, "a")
    assert "failed" == (await states(api))[""]


async def test_where_nothing_is_dead_there_is_nothing_to_replay(api):
    await put(api, DIAMOND)

    answer = await api.post("/v1/flows/mail:f/replay")

    assert (409, "wrong_state", "running") == (answer.status, answer.code, answer.doc["state"])


async def test_a_death_that_nobody_was_told_of_is_replayed_too(api):
    await put(api, graph(job("a"), job("b", "a")))
    [one] = await api.lease()
    await api.settle(nack=[{**held(one), "error": {"kind": "Boom", "message": "no"}, "permanent": True}])

    answer = await api.post("/v1/flows/mail:f/replay")

    assert {"a": "ready", "b": "blocked"} == {part["name"]: part["state"] for part in answer.doc["jobs"]}

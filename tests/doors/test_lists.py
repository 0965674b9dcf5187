"""GET /v1/jobs: filters, order, pages, cursors."""

import msgspec
import pytest

from scheduler import listing
from scheduler.keys import STATES
from scheduler.shown import JobsShown
from tests.doors.conftest import held
from tests.helpers import on_the_fake

ERROR = {"kind": "Boom", "message": "no"}


async def page(api, query=""):
    answer = await api.get(f"/v1/jobs{query}")
    assert 200 == answer.status, answer.raw
    msgspec.convert(answer.doc, JobsShown)
    return answer.doc


async def pages(api, **query):
    """The ids of each page, to the last one."""
    found, cursor = [], None
    while True:
        more = {**query, "cursor": cursor} if cursor else query
        doc = await page(api, "?" + "&".join(f"{name}={value}" for name, value in more.items()))
        found.append([job["id"] for job in doc["items"]])
        cursor = doc["next_cursor"]
        if cursor is None:
            return found


async def every(api, **query):
    return [job for ids in await pages(api, **query) for job in ids]


async def one_in_each_state(api):
    """A job in each state that a caller can bring about, its key the state's name."""
    await api.dead("dead")
    for key in ("succeeded", "retrying", "running"):
        await api.running(key, retry={"immediate": 0, "base": "1h"})
        job = (await api.get(f"/v1/jobs/mail:{key}")).doc
        if key == "succeeded":
            await api.settle(ack=[{**held(job), "result": 1}])
        if key == "retrying":
            await api.settle(nack=[{**held(job), "error": ERROR}])
    await api.enqueue("cancelled")
    await api.post("/v1/jobs/mail:cancelled/cancel")
    await api.enqueue("scheduled", delay=60)
    await api.enqueue("ready")


async def test_a_state_lists_its_own_and_without_one_they_come_in_a_fixed_order(api):
    await one_in_each_state(api)
    states = [state for state in STATES if state != "blocked"]

    for state in STATES:
        assert ([] if state == "blocked" else [f"mail:{state}"]) == await every(api, state=state)
    assert [f"mail:{state}" for state in states] == await every(api)
    for limit in (1, 2, 3):
        assert [f"mail:{state}" for state in states] == await every(api, limit=limit)


async def test_queues_come_by_name_and_an_unknown_one_is_an_empty_list(api):
    assert [[]] == await pages(api)
    for queue in ("c", "a", "b"):
        for key in ("1", "2"):
            await api.enqueue(key, queue=queue)

    assert [["a:1", "a:2", "b:1"], ["b:2", "c:1", "c:2"]] == await pages(api, limit=3)
    assert ["b:1", "b:2"] == await every(api, queue="b", limit=1)
    assert {"items": [], "next_cursor": None} == await page(api, "?queue=nowhere")


async def test_ended_jobs_come_newest_first_and_ready_ones_as_they_will_run(api):
    for key in ("a", "b", "c"):
        await api.dead(key)
    for key, priority in (("low", -1), ("high", 1), ("even", 0)):
        await api.enqueue(key, queue="reports", priority=priority)

    assert ["mail:c", "mail:b", "mail:a"] == await every(api, state="dead")
    assert ["reports:high", "reports:even", "reports:low"] == await every(api, state="ready", limit=1)


async def test_items_are_jobs_without_payload_result_and_trace_unless_asked_for(api):
    job = await api.running(payload=[1.50])
    await api.settle(nack=[{**held(job), "error": {**ERROR, "trace": "line 1"}, "retry_in": 0}])
    [job] = await api.lease()
    await api.settle(ack=[{**held(job), "result": "ok"}])
    whole = (await api.get("/v1/jobs/mail:a")).doc

    [item] = (await page(api))["items"]
    without = {name: value for name, value in whole.items() if name not in {"payload", "result"}}
    without["errors"] = [{k: v for k, v in error.items() if k != "trace"} for error in whole["errors"]]
    assert without == item
    [item] = (await page(api, "?include=payload,result,trace"))["items"]
    assert whole == item
    [item] = (await page(api, "?include=result"))["items"]
    assert ("ok", False) == (item["result"], "payload" in item)


async def test_filters_are_kept_from_page_to_page(api):
    for n in range(12):
        fields = {"type": f"t{n % 2}", "group": f"g{n % 3}", "tags": [f"x{n % 4}", "all"]}
        await api.enqueue(f"k{n:02}", **fields)

    assert [f"mail:k{n:02}" for n in range(1, 12, 2)] == await every(api, type="t1", limit=2)
    assert [f"mail:k{n:02}" for n in range(2, 12, 3)] == await every(api, group="g2", limit=1)
    assert [f"mail:k{n:02}" for n in range(3, 12, 4)] == await every(api, tag="x3", state="ready")
    assert ["mail:k01"] == await every(api, type="t1", group="g1", tag="x1")
    assert [] == await every(api, type="t1", tag="x0")


async def test_jobs_are_found_by_the_kind_of_an_error(api):
    await api.dead("a")
    await api.enqueue("b")

    assert ["mail:a"] == await every(api, error="Boom")
    assert [] == await every(api, error="Bo")


async def test_a_page_may_be_short_and_a_call_looks_at_no_more_than_2000_jobs(api, monkeypatch):
    monkeypatch.setattr(listing, "MOST_LOOKED_AT", 10)
    await api.post("/v1/jobs/bulk", [
        {"type": "odd" if n % 12 else "even", "queue": f"q{n % 2}", "id": f"k{n}"} for n in range(60)
    ])  # fmt: skip
    found = await pages(api, type="even", limit=5)

    assert [f"q0:k{n}" for n in range(0, 60, 12)] == [job for ids in found for job in ids]
    assert len(found) >= 6
    assert any(not ids for ids in found[:-1])


async def test_a_call_looks_at_a_bounded_number_of_queues(api, monkeypatch):
    monkeypatch.setattr(listing, "MOST_SETS", 20)
    for n in range(12):
        await api.enqueue(queue=f"q{n:02}")
    found = await pages(api)

    assert [f"q{n:02}:a" for n in range(12)] == [job for ids in found for job in ids]
    assert len(found) == 5


async def test_large_payloads_close_a_page_before_its_limit(api, monkeypatch):
    monkeypatch.setattr(listing, "MOST_BYTES", 1000)
    for n in range(5):
        await api.enqueue(f"k{n}", payload="x" * 600)

    assert [[f"mail:k{n}" for n in range(5)]] == await pages(api)
    assert [2, 2, 1] == [len(ids) for ids in await pages(api, include="payload")]


async def test_what_moves_meanwhile_is_shown_once_in_a_page_and_where_it_stands(api, monkeypatch):
    await api.enqueue("a")
    await api.enqueue("b")
    real = listing._found

    async def then_moved(store, *rest, **more):
        found = await real(store, *rest, **more)
        await api.lease()
        return found

    monkeypatch.setattr(listing, "_found", then_moved)
    doc = await page(api, "?state=ready")

    assert ["mail:b"] == [job["id"] for job in doc["items"]], "a runs by now, and is no ready job"


@on_the_fake
async def test_a_cursor_of_another_list_is_refused(api):
    for n in range(3):
        await api.enqueue(f"k{n}")
    mine = (await page(api, "?limit=1&state=ready"))["next_cursor"]
    await api.enqueue(queue="other", delay=60)
    queues = (await api.get("/v1/queues?limit=1")).doc["next_cursor"]

    assert ["mail:k1", "mail:k2"] == [
        job["id"] for job in (await page(api, f"?limit=9&state=ready&include=payload&cursor={mine}"))["items"]
    ]
    for query in (
        f"?cursor={mine}", f"?state=dead&cursor={mine}", f"?state=ready&queue=mail&cursor={mine}",
        f"?cursor={queues}", "?cursor=", "?cursor=x", f"?state=ready&cursor={mine[:-2]}", f"?state=ready&cursor=A{mine[1:]}",
    ):  # fmt: skip
        answer = await api.get(f"/v1/jobs{query}")
        assert (422, "validation", ["/cursor"]) == (answer.status, answer.code, answer.paths), query
    assert 422 == (await api.get(f"/v1/queues?cursor={mine}")).status


@on_the_fake
@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("limit=0", "/limit"), ("limit=1001", "/limit"), ("limit=x", "/limit"), ("limit=", "/limit"), ("state=done", "/state"),
        ("state=ready,dead", "/state"), ("queue=", "/queue"), ("queue=a%20b", "/queue"), ("type=%22", "/type"), ("group=a,b", "/group"),
        ("tag=%22,%22", "/tag"), ("error=", "/error"), ("error=" + "x" * 201, "/error"), ("include=everything", "/include"),
        ("include=", "/include"), ("wait=1", "/wait"), ("state=dead&state=dead", "/state"), ("sort=asc", "/sort"),
    ],
)  # fmt: skip
async def test_what_a_list_does_not_take_is_refused_by_name(api, query, path):
    answer = await api.get(f"/v1/jobs?{query}")

    assert (422, "validation", [path]) == (answer.status, answer.code, answer.paths)

"""GET /v1/queues/{q}/dlq: dead letters, newest first."""

import msgspec
import pytest

from scheduler import listing
from scheduler.shown import DeadShown
from tests.doors.conftest import held
from tests.helpers import on_the_fake

DLQ = "/v1/queues/mail/dlq"


async def die(api, key, kind="Boom", message="no", **fields):
    """A dead letter of this failure."""
    job = await api.running(key, **fields)
    error = {"kind": kind, "message": message, "trace": "line 1"}
    [item] = await api.settle(nack=[{**held(job), "error": error, "permanent": True}])
    assert "dead" == item["state"]


async def listed(api, query=""):
    answer = await api.get(f"{DLQ}{query}")
    assert 200 == answer.status, answer.raw
    msgspec.convert(answer.doc, DeadShown)
    return answer.doc


async def keys(api, query=""):
    """The keys of all pages of a query that ends in & or ?."""
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        doc = await listed(api, f"{query or '?'}&cursor={cursor}" if cursor else query)
        found += [item["id"].split(":")[1] for item in doc["items"]]
        cursor = doc["next_cursor"]
    return found


async def test_dead_letters_come_newest_first_and_their_count_equals_the_list(api):
    for n in range(7):
        await die(api, f"k{n}", retention="30d" if n % 3 == 0 else None)
    await api.enqueue("alive")

    assert [f"k{n}" for n in reversed(range(7))] == await keys(api, "?limit=2")
    assert 7 == (await api.get("/v1/queues/mail")).doc["counts"]["dead"]


async def test_an_item_is_a_job_with_its_fingerprint(api):
    await die(api, "a", message="order 17 is gone", payload=[1])
    await die(api, "b", message="order 4711 is gone")
    await die(api, "c", message="order 4711 is late")
    c, b, a = (await listed(api, "?include=payload,trace"))["items"]

    assert (await api.get("/v1/jobs/mail:a")).doc == {
        **{name: value for name, value in a.items() if name != "fingerprint"},
        "result": None,
    }
    assert a["fingerprint"] == b["fingerprint"] != c["fingerprint"]
    [_, _, bare] = (await listed(api))["items"]
    assert "payload" not in bare
    assert "trace" not in bare["errors"][0]
    assert ["b", "a"] == await keys(api, f"?limit=1&fingerprint={a['fingerprint']}")
    assert [] == await keys(api, "?fingerprint=" + "0" * 16)


async def test_they_are_found_by_type_and_by_the_kind_of_their_last_error(api):
    await die(api, "a", kind="Boom", type="one")
    await die(api, "b", kind="Bang", type="two")
    job = await api.running("c", type="one")
    await api.settle(nack=[{**held(job), "error": {"kind": "Boom", "message": "first"}, "retry_in": 0}])
    [job] = await api.lease()
    error = {"kind": "Bang", "message": "last"}
    await api.settle(nack=[{**held(job), "error": error, "permanent": True}])

    assert ["c", "a"] == await keys(api, "?type=one")
    assert ["c", "b"] == await keys(api, "?kind=Bang")
    assert ["a"] == await keys(api, "?kind=Boom"), "c had one, and died of another"
    assert ["c"] == await keys(api, "?kind=Bang&type=one")


async def test_they_are_found_by_the_time_of_their_end(api):
    for n in range(4):
        await die(api, f"k{n}", retention="30d" if n % 2 else None)
    ended = {
        key: (await api.get(f"/v1/jobs/mail:{key}")).doc["finished_at"] for key in ("k0", "k1", "k2", "k3")
    }

    for before in ended.values():
        earlier = [key for key, at in ended.items() if at < before]
        assert earlier == sorted(await keys(api, f"?limit=1&before={before}"))
    assert 4 == len(await keys(api, "?before=2099-01-01T00:00:00Z"))
    assert [] == await keys(api, "?before=1969-01-01T00:00:00Z")


async def test_a_page_may_be_empty_and_have_a_cursor(api, monkeypatch):
    monkeypatch.setattr(listing, "MOST_LOOKED_AT", 3)
    for n in range(8):
        await die(api, f"k{n}", kind="Rare" if n == 0 else "Boom")
    first = await listed(api, "?kind=Rare")

    assert [] == first["items"]
    assert first["next_cursor"]
    assert ["k0"] == await keys(api, "?kind=Rare")


@on_the_fake
@pytest.mark.parametrize("queue", ["nowhere", "no%20name"])
async def test_a_queue_that_is_not_there(api, queue):
    answer = await api.get(f"/v1/queues/{queue}/dlq")

    assert (404, "not_found") == (answer.status, answer.code)


@on_the_fake
@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("fingerprint=x", "/fingerprint"), ("kind=", "/kind"), ("type=a%20b", "/type"), ("state=dead", "/state"),
        ("before=yesterday", "/before"), ("before=2027-01-01T00:00:00", "/before"), ("limit=0", "/limit"), ("include=x", "/include"),
        ("cursor=x", "/cursor"),
    ],
)  # fmt: skip
async def test_what_the_list_does_not_take_is_refused_by_name(api, query, path):
    await api.enqueue()
    answer = await api.get(f"{DLQ}?{query}")

    assert (422, "validation", [path]) == (answer.status, answer.code, answer.paths)


@on_the_fake
async def test_a_plus_that_became_a_space_is_explained(api):
    await api.enqueue()
    answer = await api.get(f"{DLQ}?before=2027-01-01T00:00:00+01:00")

    assert (422, ["/before"]) == (answer.status, answer.paths)
    assert "%2B" in answer.doc["errors"][0]["message"]
    assert 200 == (await api.get(f"{DLQ}?before=2027-01-01T00:00:00%2B01:00")).status


@on_the_fake
async def test_a_cursor_of_another_queue_or_of_other_filters_is_refused(api):
    for n in range(3):
        await die(api, f"k{n}")
    await api.enqueue(queue="other")
    cursor = (await listed(api, "?limit=1"))["next_cursor"]

    for path in (
        f"{DLQ}?kind=Boom&",
        f"{DLQ}?before=2099-01-01T00:00:00Z&",
        "/v1/queues/other/dlq?",
        "/v1/jobs?",
    ):
        answer = await api.get(f"{path}cursor={cursor}")
        assert (422, ["/cursor"]) == (answer.status, answer.paths), path

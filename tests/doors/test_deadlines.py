"""`deadline` and `expires_in` through every door."""

from datetime import UTC, datetime, timedelta

import pytest

from scheduler.times import parse_rfc3339
from tests.helpers import on_the_fake


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def later(job: dict, field: str) -> int:
    """How long after its creation, in ms."""
    return parse_rfc3339(job[field]) - parse_rfc3339(job["created_at"])


async def test_what_is_answered_is_what_is_shown_later(api):
    made = await api.post("/v1/jobs", {"type": "t", "id": "a", "deadline": "1h", "expires_in": 90})

    assert (201, 3_600_000, 90_000) == (
        made.status,
        later(made.doc, "deadline"),
        later(made.doc, "expires_at"),
    )
    shown = await api.get("/v1/jobs/default:a")
    assert made.doc == shown.doc


async def test_a_deadline_may_be_a_time(api):
    at = soon(3600)
    made = await api.post("/v1/jobs", {"type": "t", "deadline": at})
    assert (201, parse_rfc3339(at)) == (made.status, parse_rfc3339(made.doc["deadline"]))
    assert made.doc["expires_at"] is None


async def test_the_same_request_again_is_the_same_job(api):
    asked = {"type": "t", "id": "a", "deadline": 3600, "expires_in": "5m"}
    assert [201, 200] == [(await api.post("/v1/jobs", asked)).status for _ in range(2)]
    other = await api.post("/v1/jobs", asked | {"expires_in": "6m"})
    assert (409, "duplicate") == (other.status, other.code)


async def test_a_deadline_in_the_past_is_refused_by_name_in_a_bulk_too(api):
    past = {"type": "t", "deadline": soon(-1)}
    answer = await api.post("/v1/jobs", past)
    assert (422, ["/deadline"]) == (answer.status, answer.paths)

    bulk = await api.post(
        "/v1/jobs/bulk", [{"type": "t", "deadline": 60}, past, {"type": "t", "expires_in": "1s"}]
    )
    assert [201, 422, 201] == [item["status"] for item in bulk.doc["items"]]
    assert ["/deadline"] == [fault["path"] for fault in bulk.doc["items"][1]["errors"]]


@on_the_fake
async def test_a_copy_has_none_unless_it_is_given_one(api):
    await api.post("/v1/jobs", {"type": "t", "id": "a", "deadline": 3600, "expires_in": 60})
    copy = (await api.post("/v1/jobs/default:a/copy")).doc
    assert (None, None) == (copy["deadline"], copy["expires_at"])
    copy = (await api.post("/v1/jobs/default:a/copy", {"deadline": "2h", "expires_in": 5})).doc
    assert (7_200_000, 5_000) == (later(copy, "deadline"), later(copy, "expires_at"))


@pytest.mark.parametrize("limit", [5, 3600])
async def test_a_worker_in_any_language_is_told_the_deadline_and_when_it_began(api, limit):
    made = await api.post("/v1/jobs", {"type": "t", "queue": "mail", "deadline": 60, "timeout": limit})
    [job] = (await api.post("/v1/queues/mail/lease", {"worker": "w"})).doc["jobs"]

    assert made.doc["deadline"] == job["deadline"]
    began, shown = (
        parse_rfc3339(one["started_at"]) for one in (job, (await api.get(f"/v1/jobs/{job['id']}")).doc)
    )
    assert abs(began - shown) <= 1

"""Many jobs in one call: each is answered for itself, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
from aiohttp import web
from msgspec import Raw

from ..errors import Duplicate, Fault, Invalid, SchedulerError
from ..fields import BulkFields, BulkShown, NewJobFields, Request
from ..job import NewJob
from ..outcomes import Enqueued
from .body import decode
from .jobs import new_job
from .parts import SETTINGS, STORE
from .problems import Refusal, document, refusal_of
from .routes import Table, large

table = Table()

MOST_ITEMS = 500_000
"""Items of one call: with more, a body of nonsense would be answered by gigabytes of problems."""

STEP = 500
"""Items that are read at a time; then other requests have their turn."""

AT_ONCE = 8_000, 8 * 1024 * 1024
"""Jobs, and bytes of their payloads, that close a pipeline."""


class _Jobs(Request):
    jobs: list[Raw]


@table.add(
    "POST", "/v1/jobs/bulk", {200: BulkShown}, body=list[NewJobFields] | BulkFields, raw=True, limit=large
)
async def enqueue_bulk(request: web.Request, body: bytes) -> web.Response:
    """Enqueue many jobs: each is answered at its place, and one that is refused spoils no other.

    An item's `status` is 201, or 200 with `duplicate`, or that of its problem, whose pointers are relative to the
    item. A 503 with `id`: that job may stand, repeat it with this id.
    """
    if "Idempotency-Key" in request.headers:
        raise Invalid([Fault("/Idempotency-Key", "not taken yet: give each job an `id` to repeat it safely")])
    sent: Any = decode(body, list[Raw] | _Jobs, deep=True)  # type: ignore[arg-type]  # a union is a type to msgspec
    items: list[Raw] = sent.jobs if isinstance(sent, _Jobs) else sent
    if len(items) > MOST_ITEMS:
        raise Refusal("too_large", f"at most {MOST_ITEMS} jobs in one call")
    answered: list[bytes] = []
    taken: list[NewJob | Refusal] = []
    bytes_taken = 0
    for start in range(0, len(items), STEP):
        for job in _new_jobs(items[start : start + STEP], request.app[SETTINGS].max_payload):
            taken.append(job)
            bytes_taken += len(job.payload) if isinstance(job, NewJob) else 0
        if len(taken) >= AT_ONCE[0] or bytes_taken >= AT_ONCE[1]:
            answered.append(await _enqueued(request, taken))
            taken, bytes_taken = [], 0
        await asyncio.sleep(0)
    if taken:
        answered.append(await _enqueued(request, taken))
    text = b'{"items":[' + b",".join(answered) + b"]}"
    return web.Response(body=text, headers={"Content-Type": "application/json"})


def _new_jobs(items: Sequence[Raw], max_payload: int) -> Iterator[NewJob | Refusal]:
    """A job of each item, with a key, or the problem it has."""
    whole = b"[%b]" % b",".join(items)
    try:
        fields: list[NewJobFields] = decode(whole, list[NewJobFields])
    except (Refusal, Invalid):
        # One of them is not as it should be, which is found out one by one.
        for item in items:
            yield _new_job(bytes(item), max_payload)
        return
    for one in fields:
        try:
            yield new_job(one, max_payload=max_payload)
        except (Refusal, Invalid) as error:
            yield _refusal(error)


def _new_job(item: bytes, max_payload: int) -> NewJob | Refusal:
    try:
        return new_job(decode(item, NewJobFields), max_payload=max_payload)
    except (Refusal, Invalid) as error:
        return _refusal(error)


def _refusal(error: Exception, its_id: str | None = None) -> Refusal:
    found = refusal_of(error, its_id)
    assert found is not None, "every error of the store, and of a body, is in the table"
    return found


async def _enqueued(request: web.Request, taken: Sequence[NewJob | Refusal]) -> bytes:
    """What is answered for these, as the inside of a JSON array."""
    jobs = [job for job in taken if isinstance(job, NewJob)]
    outcomes = iter(await request.app[STORE].enqueue_each(jobs) if jobs else ())
    shown = [document(one) if isinstance(one, Refusal) else _answer(one, next(outcomes)) for one in taken]
    return orjson.dumps(shown)[1:-1]


def _answer(job: NewJob, outcome: Enqueued | SchedulerError) -> dict[str, Any]:
    if isinstance(outcome, SchedulerError):
        return document(_refusal(outcome, f"{job.queue}:{job.key}"))
    if outcome.created:
        return {"status": 201, "id": outcome.id}
    if outcome.outcome == "exists":
        return {"status": 200, "id": outcome.id, "duplicate": True}
    return document(_refusal(Duplicate(outcome.id)))

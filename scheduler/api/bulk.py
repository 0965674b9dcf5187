"""Many jobs in one call: each is answered for itself, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import web
from msgspec import Raw

from ..errors import Fault, Invalid, SchedulerError
from ..fields import BulkFields, NewJobFields, Request
from ..job import NewJob
from ..logs import get_logger
from ..outcomes import Enqueued
from ..schemas import Schemas
from ..shown import BulkDone, BulkLine, BulkShown
from .body import decode
from .jobs import new_job, seeded
from .lines import Answer, Line, read_lines
from .once import HEADER, Seed, once
from .parts import IDEMPOTENT_BODY, REQUEST_ID, SCHEMAS, SERVED, SETTINGS, STORE
from .problems import Refusal, document, refusal_of
from .routes import SMALL, Lines, Param, Table, large, with_payload

log = get_logger(__name__)
table = Table()

MOST_ITEMS = 500_000
"""Items of one call: with more, a body of nonsense would be answered by gigabytes of problems."""

MOST_KEPT = 10_000
"""Items of a call with an Idempotency-Key, whose answer is kept: about 600 KiB."""

LATER = {
    HTTPStatus.TOO_MANY_REQUESTS,
    *(status for status in HTTPStatus if status >= HTTPStatus.INTERNAL_SERVER_ERROR),
}
"""Statuses of what is to be sent again."""

MOST_ASKED, MOST_WARNINGS = 100, 20
"""Queues and types of a call that are looked up for warnings, and warnings that its answer has."""

STEP = 500
"""Items that are read at a time; then other requests have their turn."""

AT_ONCE = 8_000, 8 * 1024 * 1024
"""Jobs, and bytes of their payloads, that close a pipeline."""

LINES_AT_ONCE = 2_000
"""Jobs of a stream that go into a pipeline."""


class _Jobs(Request):
    jobs: list[Raw]


RESULTS = {
    "results": Param(
        {"type": "string", "enum": ["all"]},
        "`all`: of NDJSON too each job is answered, not only those that were not created.",
    )
}


async def enqueue_lines(request: web.Request) -> web.StreamResponse:
    """Enqueues a job a line, as they come. What was enqueued stands, however the call ends."""
    if HEADER in request.headers:
        raise Invalid(
            [Fault(f"/{HEADER}", "not with a stream: give each job an `id`, which makes it repeatable")]
        )
    everything = _check(request)
    max_payload = request.app[SETTINGS].max_payload
    answer, tally = Answer(request), Tally()
    taken: list[tuple[int, NewJob | Refusal]] = []
    bytes_taken, asked = 0, dict[tuple[str, str], None]()
    try:
        async for lines in read_lines(request, with_payload(request.app[SETTINGS])):
            for start in range(0, len(lines), STEP):
                for line in lines[start : start + STEP]:
                    job = _of_line(line, max_payload)
                    taken.append((line.index, job))
                    bytes_taken += _noted(job, asked)
                if len(taken) >= LINES_AT_ONCE or bytes_taken >= AT_ONCE[1]:
                    await _answer_lines(request, taken, answer, tally, everything=everything)
                    taken, bytes_taken = [], 0
                await asyncio.sleep(0)
            if taken and not lines:  # they come slowly: what is there is not kept waiting
                await _answer_lines(request, taken, answer, tally, everything=everything)
                taken, bytes_taken = [], 0
        if taken:
            await _answer_lines(request, taken, answer, tally, everything=everything)
    except Refusal as refusal:
        # It is incomplete, which the missing last line says; once it has begun, so does a line without an index.
        response = answer.give_up()
        if response is None or refusal.code != "request_timeout":
            raise refusal if response is None else ConnectionResetError("the body broke off") from None
        await answer.write(orjson.dumps(document(refusal), option=orjson.OPT_APPEND_NEWLINE))
        return response
    except ConnectionError:
        raise  # the caller is gone
    except Exception as error:
        if answer.give_up() is None:
            raise
        # A second head within an answer that has begun would be read as its lines.
        log.exception("a stream of jobs failed", request_id=request[REQUEST_ID])
        raise ConnectionResetError("the answer cannot be completed") from error
    done: dict[str, Any] = {
        "done": True, "created": tally.created, "duplicates": tally.duplicates, "failed": tally.failed,
    }  # fmt: skip
    if warnings := await _warnings(request, asked):
        done["warnings"] = warnings
    await answer.write(orjson.dumps(done, option=orjson.OPT_APPEND_NEWLINE))
    assert answer.response is not None
    return answer.response


def _noted(job: NewJob | Refusal, asked: dict[tuple[str, str], None]) -> int:
    """Notes queue and type of a job, of as many as are looked up; answers the bytes of its payload."""
    if not isinstance(job, NewJob):
        return 0
    if len(asked) < MOST_ASKED:
        asked[job.queue, job.type] = None
    return len(job.payload)


async def _warnings(request: web.Request, asked: Iterable[tuple[str, str]]) -> list[str]:
    return (await request.app[SERVED].warnings(asked))[:MOST_WARNINGS]


class Tally:
    """What became of the jobs of a call so far."""

    __slots__ = ("created", "duplicates", "failed")

    def __init__(self) -> None:
        self.created = self.duplicates = self.failed = 0

    def count(self, status: int) -> None:
        if status == HTTPStatus.CREATED:
            self.created += 1
        elif status == HTTPStatus.OK:
            self.duplicates += 1
        else:
            self.failed += 1


async def _answer_lines(
    request: web.Request,
    taken: Sequence[tuple[int, NewJob | Refusal]],
    answer: Answer,
    tally: Tally,
    *,
    everything: bool,
) -> None:
    """Enqueues some lines and writes what is to be said of them."""
    said = []
    shown = await _enqueued(request, [job for _, job in taken])
    for (index, _), item in zip(taken, shown, strict=True):
        tally.count(item["status"])
        if everything or item["status"] != HTTPStatus.CREATED:
            said.append(orjson.dumps({"index": index, **item}, option=orjson.OPT_APPEND_NEWLINE))
    if said:
        await answer.write(b"".join(said))


def _of_line(line: Line, max_payload: int) -> NewJob | Refusal:
    if line.text is None:
        return Refusal("too_large", f"a line may have {max_payload + SMALL} bytes")
    return _new_job(line.text, max_payload)


def _check(request: web.Request) -> bool:
    """Whether each job is to be answered. Raises Invalid."""
    results = request.query.get("results")
    if results not in {None, "all"}:
        raise Invalid([Fault("/results", "expected all")])
    return results == "all"


@table.add(
    "POST", "/v1/jobs/bulk", {200: BulkShown},
    body=list[NewJobFields] | BulkFields, raw=True, limit=large, query=RESULTS, codes=("store_full",),
    lines=Lines(enqueue_lines, NewJobFields, BulkLine, BulkDone), once=True,
)  # fmt: skip
async def enqueue_bulk(request: web.Request, body: bytes) -> web.Response:
    """Enqueue many jobs: each is answered at its place, and one that is refused spoils no other.

    An item's `status` is 201, or 200 with `duplicate`, or that of its problem, whose pointers are relative to the
    item. A 503 with `id`: that job may stand, repeat it with this id. As `application/x-ndjson`, a job a line, of any
    number: then each job that was not created is answered by a line with its `index`, and the last line says how many
    were; without that line the answer is incomplete.
    """
    _check(request)
    sent: Any = decode(body, list[Raw] | _Jobs, deep=True)  # type: ignore[arg-type]  # a union is a type to msgspec
    items: list[Raw] = sent.jobs if isinstance(sent, _Jobs) else sent
    if len(items) > MOST_ITEMS:
        raise Refusal("too_large", f"at most {MOST_ITEMS} jobs in one call")
    if IDEMPOTENT_BODY not in request:
        return (await _answered(request, items, None))[0]
    if len(items) > MOST_KEPT:
        raise Refusal(
            "too_large", f"with an {HEADER} at most {MOST_KEPT} jobs in one call: its answer is kept"
        )

    async def act(seed: Seed) -> tuple[web.Response, bool]:
        return await _answered(request, items, seed)

    return await once(request, act)


async def _answered(
    request: web.Request, items: Sequence[Raw], seed: Seed | None
) -> tuple[web.Response, bool]:
    """The answer to these, and whether none of them is to be sent again."""
    final = True
    answered: list[bytes] = []
    asked: dict[tuple[str, str], None] = {}
    taken: list[NewJob | Refusal] = []
    bytes_taken = 0
    for start in range(0, len(items), STEP):
        for job in _new_jobs(items[start : start + STEP], request.app[SETTINGS].max_payload, seed, start):
            taken.append(job)
            bytes_taken += _noted(job, asked)
        if len(taken) >= AT_ONCE[0] or bytes_taken >= AT_ONCE[1]:
            shown = await _enqueued(request, taken)
            final = final and not any(item["status"] in LATER for item in shown)
            answered.append(orjson.dumps(shown)[1:-1])
            taken, bytes_taken = [], 0
        await asyncio.sleep(0)
    if taken:
        shown = await _enqueued(request, taken)
        final = final and not any(item["status"] in LATER for item in shown)
        answered.append(orjson.dumps(shown)[1:-1])
    warnings = await _warnings(request, asked)
    more = b',"warnings":' + orjson.dumps(warnings) if warnings else b""
    text = b'{"items":[' + b",".join(answered) + b"]" + more + b"}"
    return web.Response(body=text, headers={"Content-Type": "application/json"}), final


def _new_jobs(
    items: Sequence[Raw], max_payload: int, seed: Seed | None, start: int
) -> Iterator[NewJob | Refusal]:
    """A job of each item, with a key, or the problem it has. `start`: which item of the call the first is."""
    whole = b"[%b]" % b",".join(items)
    try:
        fields: list[NewJobFields] = decode(whole, list[NewJobFields])
    except (Refusal, Invalid):
        # One of them is not as it should be, which is found out one by one.
        for n, item in enumerate(items, start):
            yield _new_job(bytes(item), max_payload, seed, n)
        return
    for n, one in enumerate(fields, start):
        try:
            job = new_job(one, max_payload=max_payload)
            yield job if seed is None else seeded(job, seed, n)
        except (Refusal, Invalid) as error:
            yield _refusal(error)


def _new_job(item: bytes, max_payload: int, seed: Seed | None = None, number: int = 0) -> NewJob | Refusal:
    try:
        fields = decode(item, NewJobFields)
        job = new_job(fields, max_payload=max_payload)
        return job if seed is None else seeded(job, seed, number)
    except (Refusal, Invalid) as error:
        return _refusal(error)


def _refusal(error: Exception, its_id: str | None = None) -> Refusal:
    found = refusal_of(error, its_id)
    assert found is not None, "every error of the store, and of a body, is in the table"
    return found


async def _enqueued(request: web.Request, taken: Sequence[NewJob | Refusal]) -> list[dict[str, Any]]:
    """What is answered for these, in order. Trouble of the store is each job's own."""
    schemas = request.app[SCHEMAS]
    queues = {job.queue for job in taken if isinstance(job, NewJob)}
    try:
        if any([await schemas.of(queue) for queue in queues]):
            taken = [await _fitting(schemas, job) for job in taken]
    except SchedulerError as error:
        # What was enqueued before these stands, and its answer may be under way: the trouble is these jobs' own.
        taken = [one if isinstance(one, Refusal) else _refusal(error) for one in taken]
    jobs = [job for job in taken if isinstance(job, NewJob)]
    outcomes = iter(await request.app[STORE].enqueue_each(jobs) if jobs else ())
    return [document(one) if isinstance(one, Refusal) else _answer(one, next(outcomes)) for one in taken]


async def _fitting(schemas: Schemas, job: NewJob | Refusal) -> NewJob | Refusal:
    """The same, or the problem of a payload that does not fit its type's schema."""
    if isinstance(job, NewJob):
        try:
            await schemas.check(job.queue, job.type, job.payload)
        except Invalid as error:
            return _refusal(error)
    return job


def _answer(job: NewJob, outcome: Enqueued | SchedulerError) -> dict[str, Any]:
    if isinstance(outcome, SchedulerError):
        return document(_refusal(outcome, f"{job.queue}:{job.key}"))
    if outcome.created:
        return {"status": 201, "id": outcome.id}
    if refusal := outcome.refusal:
        return document(_refusal(refusal))
    return {"status": 200, "id": outcome.id, "duplicate": True}

"""Jobs: enqueue, look, cancel, run, replay."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web
from msgspec import UNSET, Raw, UnsetType
from msgspec.structs import replace

from .. import retry as retry_policy
from ..errors import Duplicate, Fault, Invalid, KeyTaken, NotFound, WrongState
from ..events import wait_ended
from ..explain import explain
from ..fields import AnyJobFields, NewJobFields, Nothing, ReplayFields, RetryFields, UniqueFields
from ..job import Job, NewJob, State, Unique, faults_of, new_key, raw_json, split_id
from ..limits import COSTLIEST
from ..outcomes import Enqueued
from ..shown import ExplainShown, JobShown, LogShown, ParentsShown
from ..times import duration_ms, parse_rfc3339, rfc3339, seconds
from .limits import whole_of
from .once import Seed, once
from .pages import PAGE, cursor, cursor_of, limit_of
from .parts import (
    ENQUEUED_ID,
    FOLLOWER,
    GOOD_ID,
    IDEMPOTENT_BODY,
    POLLS,
    PRESENCE,
    SCHEMAS,
    SERVED,
    SETTINGS,
    STORE,
)
from .problems import Refusal
from .routes import Param, Table, duration_param, job_id, json_answer, with_payload
from .server import hang_up_cancels

table = Table()

CALL_ID = "X-Call-Id"
"""A header that names a call: a caller that repeats it under the same name is answered 201 for the job that it made."""

LONGEST_WAIT = 60
WAIT = {
    "wait": Param(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": LONGEST_WAIT},
                {"type": "string", "pattern": r"^[0-9]{1,15}(\.[0-9]{1,9})?(ms|s|m|h|d)?$"},
            ],
            "examples": [5, "2.5s"],
        },
        "Hold until it has ended, 0 to 60 s.",
    )
}


@table.add(
    "POST", "/v1/jobs", {201: JobShown, 200: JobShown},
    body=NewJobFields, limit=with_payload, codes=("duplicate", "queue_full", "store_full"), headers=("Location",), once=True,
)  # fmt: skip
async def enqueue(request: web.Request, fields: NewJobFields) -> web.Response:
    """Enqueue a job. The same id and request again: 200, with `duplicate`. A 503 with `id`: repeat it so."""
    job = new_job(fields, max_payload=request.app[SETTINGS].max_payload)
    if IDEMPOTENT_BODY not in request:
        return await enqueued(request, job)

    async def act(seed: Seed) -> tuple[web.Response, bool]:
        return await enqueued(request, seeded(job, seed)), True

    return await once(request, act)


def seeded(job: NewJob, seed: Seed, number: int = 0) -> NewJob:
    """The n-th job of a request with an Idempotency-Key: a repeated request makes the same, and knows it again."""
    if not job.own:
        return replace(job, call=seed.call(number))
    key = seed.key(number)
    return replace(job, key=key, own_key=key)


def _called(request: web.Request, job: NewJob) -> NewJob:
    """The job with the mark of its caller's call, where that has one: repeated under it, the call knows again what it made."""
    text = request.headers.get(CALL_ID, "")
    if job.own or job.call or not GOOD_ID.fullmatch(text):
        return job
    return replace(
        job, call=hashlib.blake2b(f"{text}|{job.queue}:{job.key}".encode(), digest_size=6).hexdigest()
    )


async def enqueued(request: web.Request, job: NewJob) -> web.Response:
    """The answer to a new job."""
    app, job = request.app, _called(request, job)
    await app[SCHEMAS].check(job.queue, job.type, job.payload)
    request[ENQUEUED_ID] = f"{job.queue}:{job.key}"
    try:
        done, attempts, timeout_ms = await app[STORE].enqueue_told(job)
    except Duplicate as error:
        if not job.own or isinstance(error, KeyTaken):
            raise
        # What it is like may have changed since, as the job that is copied may have.
        return await _found_again(request, job)
    warnings = await app[SERVED].warnings([(job.queue, job.type)])
    if not done.created:
        stands = await app[STORE].job(*done.id.split(":"))
        said = {"warnings": warnings} if warnings else {}
        return json_answer({**stands.document(), "duplicate": True, **said})
    if done.outcome not in FRESH:
        # What it waits for had ended, so that it was cancelled or runs by now; or a try before made it, whose reply was lost.
        return await _found_again(request, job)
    headers = {"Content-Type": "application/json", "Location": f"/v1/jobs/{done.id}"}
    body = fresh(job, done, attempts, timeout_ms)
    if warnings:
        body = body[:-1] + b',"warnings":' + orjson.dumps(warnings) + b"}"
    return web.Response(body=body, status=201, headers=headers)


async def _found_again(request: web.Request, job: NewJob) -> web.Response:
    """The answer to a new job that this very request has enqueued, as it is by now."""
    stands = await request.app[STORE].job(job.queue, job.key)
    warnings = await request.app[SERVED].warnings([(job.queue, job.type)])
    said = {"warnings": warnings} if warnings else {}
    return json_answer({**stands.document(), **said}, 201, {"Location": f"/v1/jobs/{stands.id}"})


@table.add(
    "GET", "/v1/jobs/{id}", {200: JobShown},
    query=WAIT,
    codes=("not_found",),
)  # fmt: skip
async def get_job(request: web.Request, _: None) -> web.Response:
    """The job as it is; with `wait`, once it has ended or the time is over."""
    queue, key = job_id(request)
    wait = duration_param(request, "wait", LONGEST_WAIT)
    return json_answer((await _waited(request, queue, key, wait)).document())


@table.add("GET", "/v1/jobs/{id}/log", {200: LogShown}, query=PAGE, codes=("not_found",))
async def get_log(request: web.Request, _: None) -> web.Response:
    """What the job's handler logged, oldest first: the newest 1,000 lines are kept."""
    queue, key = job_id(request)
    limit, of = limit_of(request), ["log", queue, key]
    at = cursor_of(request, of)
    store = request.app[STORE]
    if [None] == await store.inspect(queue, [key]):
        raise NotFound(f"there is no job {queue}:{key}")
    lines, more = await store.log(queue, key, after=at[0] if at else "", limit=limit)
    return json_answer(
        {
            "items": [{"at": rfc3339(line.at_ms), "line": line.text} for line in lines],
            "next_cursor": cursor(of, [lines[-1].place]) if more else None,
        }
    )


@table.add("GET", "/v1/jobs/{id}/explain", {200: ExplainShown}, codes=("not_found",))
async def get_explanation(request: web.Request, _: None) -> web.Response:
    """Why a job does not run now: all that holds it, until when, and who has the slots it waits for.

    A reason has a `code`, a sentence, and `until` where that can be known. `position` is the job's place in line: exact in a
    plain queue; where groups take turns or limits hold it is about right (`approximate`), as if each group served one job a turn.
    """
    queue, key = job_id(request)
    found = await explain(request.app[STORE], request.app[PRESENCE], queue, key)
    return json_answer(found.document())


async def _waited(request: web.Request, queue: str, key: str, wait: float) -> Job:
    store = request.app[STORE]
    # Asked, and not left to at_most: a time that is over at once may be missed within a call of the store.
    if wait and not request.app[POLLS].stopping:
        with hang_up_cancels(request):
            async with request.app[POLLS].at_most(
                wait + 1
            ):  # the waiting itself ends in time; this is for the process's end
                return await wait_ended(store, request.app[FOLLOWER], queue, key, wait)
    return await store.job(queue, key)


@table.add(
    "POST", "/v1/jobs/{id}/cancel", {200: JobShown, 202: JobShown},
    body=Nothing, optional=True, codes=("not_found", "wrong_state"),
)  # fmt: skip
async def cancel(request: web.Request, _: Nothing) -> web.Response:
    """Cancel a job that has not ended. A running one is asked to stop: 202."""
    queue, key = job_id(request)
    [outcome] = await request.app[STORE].cancel(queue, [key])
    check_outcome(outcome, queue, key, {"cancelled", "running"}, "only what has not ended can be cancelled")
    job = await request.app[STORE].job(queue, key)
    # Its worker hears of it at once: it may have stopped by now.
    asked = outcome == State.RUNNING and job.state is not State.CANCELLED
    return json_answer(job.document(), 202 if asked else 200)


@table.add(
    "POST", "/v1/jobs/{id}/run", {200: JobShown},
    body=Nothing, optional=True, codes=("not_found", "wrong_state"),
)  # fmt: skip
async def run(request: web.Request, _: Nothing) -> web.Response:
    """Make a scheduled or retrying job ready now."""
    queue, key = job_id(request)
    [outcome] = await request.app[STORE].promote_ids(queue, [key])
    check_outcome(outcome, queue, key, {"ready"}, "only a scheduled or retrying one can be run")
    return json_answer((await request.app[STORE].job(queue, key)).document())


@table.add(
    "POST", "/v1/jobs/{id}/open", {200: JobShown},
    body=Nothing, optional=True, codes=("not_found", "wrong_state"),
)  # fmt: skip
async def open_job(request: web.Request, _: Nothing) -> web.Response:
    """Let a held job go: it runs as soon as all have ended that it waits for. Again is no error."""
    queue, key = job_id(request)
    store = request.app[STORE]
    outcome = await store.open(queue, key)
    job = await store.job(queue, key)
    if outcome == "not held":
        raise WrongState(f"job {job.id} is {job.state}: {NOT_HELD}", job.state)
    return json_answer(job.document())


@table.add("GET", "/v1/jobs/{id}/parents", {200: ParentsShown}, query=PAGE, codes=("not_found",))
async def get_parents(request: web.Request, _: None) -> web.Response:
    """What a job waits for, or waited: how many of all have ended and how, and a page of them, those still to end last."""
    queue, key = job_id(request)
    limit, of = limit_of(request), ["parents", queue, key]
    at = cursor_of(request, of)
    await request.app[STORE].job(queue, key)
    page = await request.app[STORE].parents(queue, key, cursor=at[0] if at else "", limit=limit)
    items = [
        {
            "id": one.id, "state": one.state, "result": raw_json(one.result),
            "ended_at": None if one.order is None else rfc3339(one.order // 1000),
        }
        for one in page.items if ":=" not in one.id
    ]  # fmt: skip
    counts = {"pending": page.pending, "succeeded": page.succeeded, "failed": page.failed}
    return json_answer(
        {**counts, "items": items, "next_cursor": cursor(of, [page.cursor]) if page.cursor else None}
    )


@table.add(
    "POST", "/v1/jobs/{id}/replay", {200: JobShown},
    body=ReplayFields, optional=True, limit=with_payload, codes=("not_found", "wrong_state", "store_full"),
)  # fmt: skip
async def replay(request: web.Request, fields: ReplayFields) -> web.Response:
    """Run a dead job again, with another payload if one is given."""
    queue, key = job_id(request)
    payload = None if isinstance(fields.payload, UnsetType) else bytes(fields.payload)
    check_size(payload or b"", request.app[SETTINGS].max_payload)
    if payload is not None:
        await request.app[SCHEMAS].check_edit(queue, key, payload)
    [outcome] = await request.app[STORE].replay(queue, [(key, payload)])
    check_outcome(outcome, queue, key, {"ready"}, "only a dead one can be replayed")
    return json_answer((await request.app[STORE].job(queue, key)).document())


def check_outcome(outcome: str, queue: str, key: str, good: set[str], why: str) -> None:
    if outcome == "missing":
        raise NotFound(f"there is no job {queue}:{key}")
    if outcome not in good:
        state = "ready" if outcome == "already" else outcome
        raise WrongState(f"job {queue}:{key} is {state}: {why}", state)


# -- a new job from what was sent ----------------------------------------------------------------------------


def new_job(fields: NewJobFields, *, max_payload: int) -> NewJob:
    """The job that was asked for, with a key. Raises Invalid with all that is wrong, or Refusal."""
    faults: list[Fault] = []
    job = replace(
        job_of(fields, fields.queue, faults),
        unique=None if fields.unique is None else unique_of(fields.unique, faults),
        after=fields.after,
        joins=fields.before,
        hold=fields.hold,
        on_failure=fields.on_failure or "",
    )
    check_size(job.payload, max_payload)
    faults += faults_of(job, max_payload=max_payload)
    if faults:
        raise Invalid(faults)
    return job


def job_of(fields: AnyJobFields, queue: str, faults: list[Fault]) -> NewJob:
    """The same of what may be said of any job, unchecked but for what cannot be read. Adds faults."""
    payload, key = fields.payload, new_key()
    deadline_ms, deadline_in_ms = deadline_of(fields.deadline, faults)
    return NewJob(
        type=fields.type,
        payload=bytes(payload) if isinstance(payload, Raw) else b"{}",
        queue=queue,
        key=key if fields.id is None else key_of(fields.id, queue, faults),
        own_key=key if fields.id is None else "",
        priority=priority_of(fields.priority, faults),
        delay_ms=read_with(fields.delay, "/delay", duration_ms, faults),
        run_at_ms=read_with(fields.run_at, "/run_at", parse_rfc3339, faults),
        group=fields.group,
        tags=fields.tags,
        timeout_ms=read_with(fields.timeout, "/timeout", duration_ms, faults),
        retry=None if fields.retry is None else retry_of(fields.retry, faults),
        retention_ms=read_with(fields.retention, "/retention", duration_ms, faults),
        cost=whole_of(fields.cost, "/cost", 1, COSTLIEST, faults) or 1,
        expires_in_ms=read_with(fields.expires_in, "/expires_in", duration_ms, faults),
        deadline_ms=deadline_ms,
        deadline_in_ms=deadline_in_ms,
    )


NOT_HELD = "only one that was enqueued with hold can be opened"

FRESH = ("ready", "scheduled", "blocked")
"""States of a job of which nothing is known but what was asked for."""

_FRESH = (
    b'{"id":"%b","queue":"%b","type":"%b","state":"%b","reason":null,"payload":%b,"priority":%d,"group":%b,'
    b'"tags":%b,"attempt":0,"max_attempts":%d,"crashes":0,"snoozes":0,"token":0,"timeout":%b,"deadline":%b,'
    b'"expires_at":%b,"created_at":"%b","run_at":%b,"started_at":null,"finished_at":null,'
    b'"lease_expires_at":null,"worker":null,"progress":null,"result":null,"errors":[],"after":%b,'
    b'"schedule":null,"traceparent":null,"cancel_requested_at":null%b%b%b%b%b}'
)


def fresh(job: NewJob, done: Enqueued, attempts: int, timeout_ms: int) -> bytes:
    """The document of a job that was enqueued just now, as Job.document() has it, at a fifth of the cost.

    Names were checked and need no escaping; the payload is the bytes that came.
    """
    return _FRESH % (
        done.id.encode(),
        job.queue.encode(),
        job.type.encode(),
        done.outcome.encode(),
        job.payload,
        job.priority,
        b'"%b"' % job.group.encode() if job.group else b"null",
        orjson.dumps(job.tags) if job.tags else b"[]",
        attempts,
        orjson.dumps(seconds(timeout_ms)),
        *((b"null", b"null") if not job.timed else _times(job, done.created_at)),
        rfc3339(done.created_at).encode(),
        b"null" if done.run_at is None else b'"%b"' % rfc3339(done.run_at).encode(),
        orjson.dumps(job.after) if job.after else b"[]",
        b',"on_failure":"%b"' % (job.on_failure or "cancel").encode() if job.after or job.hold else b"",
        b',"hold":true' if job.hold else b"",
        b',"cost":%d' % job.cost if job.cost != 1 else b"",
        b',"unique":{"key":"%b"}' % job.unique_key.encode() if job.unique else b"",
        b',"copied_from":"%b"' % job.copied_from.encode() if job.copied_from else b"",
    )


def _times(job: NewJob, created_at: int) -> list[bytes]:
    """Deadline and expiry as the document has them."""
    deadline = job.deadline_ms if job.deadline_in_ms is None else created_at + job.deadline_in_ms
    expiry = None if job.expires_in_ms is None else created_at + job.expires_in_ms
    return [b"null" if at is None else b'"%b"' % rfc3339(at).encode() for at in (deadline, expiry)]


def deadline_of(value: float | str | None, faults: list[Fault]) -> tuple[int | None, int | None]:
    """A deadline as NewJob has it: the time in ms, or the duration in ms. Adds a fault under /deadline."""
    if isinstance(value, str) and ":" in value:
        return read_with(value, "/deadline", parse_rfc3339, faults), None
    return None, read_with(value, "/deadline", duration_ms, faults)


def check_size(payload: bytes, most: int) -> None:
    if len(payload) > most:
        raise Refusal("too_large", f"the payload has {len(payload)} bytes, {most} are taken")


def key_of(text: str, queue: str, faults: list[Fault]) -> str:
    if ":" not in text:
        # An empty one would be no key at all, which asks for a new one elsewhere.
        return text or "\0"
    whole = split_id(text)
    if whole is None:
        return "\0"
    if whole[0] != queue:
        faults.append(Fault("/id", f"it is of the queue {whole[0]!r}, the job's is {queue!r}"))
    return whole[1]


def priority_of(value: float, faults: list[Fault]) -> int:
    if value != int(value):
        faults.append(Fault("/priority", "expected a whole number from -100 to 100"))
    return int(value)


def read_with(value: Any, path: str, read: Callable[[Any], int], faults: list[Fault]) -> int | None:
    if value is None:
        return None
    try:
        return read(value)
    except ValueError as error:
        faults.append(Fault(path, str(error)))
        return None


def unique_of(fields: UniqueFields, faults: list[Fault]) -> Unique:
    """What makes a job unique. Adds faults under /unique."""
    # An empty one would be no key at all, which asks for one of type and payload.
    return Unique(
        key="" if fields.key is None else fields.key or "\0",
        for_ms=read_with(fields.for_, "/unique/for", duration_ms, faults),
        until=fields.until or "",
        on_conflict=fields.on_conflict,
    )


def retry_of(fields: RetryFields, faults: list[Fault]) -> dict[str, Any] | None:
    """A retry policy as stored; what is null or left out is not in it. Adds faults under /retry."""
    said = {
        name: value
        for name in retry_policy.DEFAULTS
        if (value := getattr(fields, name)) is not UNSET and value is not None
    }
    found = retry_policy.faults(said)
    if found:
        faults += [Fault(f"/retry{path}", message) for path, message in found]
        return None
    return retry_policy.stored(said) or None

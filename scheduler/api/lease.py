"""Claiming over HTTP: a long poll that loses nothing when its caller does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from aiohttp import web

from .. import retry as retry_policy
from ..doorbell import TAKEN_OVER, Doorbell
from ..errors import Fault, Invalid, SchedulerError, StoreUnavailable
from ..fields import LeaseFields
from ..job import TYPE_NAME, WORKER_NAME, Claimed, Job, State, parse_course, raw_json
from ..joining import Call
from ..logs import get_logger
from ..outcomes import Bury, Claim, Release, TypePolicy
from ..shown import LeaseShown
from ..store import Store
from ..upkeep import sweep
from .limits import within
from .parts import BEHIND, DOORBELL, POLLS, PRESENCE, REQUEST_ID, SETTINGS, STORE, stamp
from .routes import Table, json_answer, queue_name
from .server import hang_up_cancels

log = get_logger(__name__)
table = Table()

LONGEST_WAIT_MS = 60_000
REMEMBERED = 30.0
"""Seconds for which a request is known as the last of its `request_id`: what is given back is so by then."""

LEASE_MS = 1_000, 12 * 3_600_000
"""The shortest and the longest lease."""

MOST_TYPES = 100
"""Types that a lease may name."""


class Asked:
    """What a caller wants, checked."""

    __slots__ = ("count", "lease_ms", "queue", "repeats", "turn", "types", "wait", "worker")

    def __init__(self, fields: LeaseFields, queue: str, default_lease_ms: int) -> None:
        """Raises Invalid with all that is wrong."""
        faults: list[Fault] = []
        self.queue, self.worker = queue, fields.worker
        check_worker(fields.worker, faults)
        self.count = int(fields.max)
        if fields.max != self.count or not 1 <= self.count <= 500:
            faults.append(Fault("/max", "expected a whole number from 1 to 500"))
        self.wait = within(fields.wait, "/wait", 0, LONGEST_WAIT_MS, faults) / 1000
        lease = fields.lease
        self.lease_ms = default_lease_ms if lease is None else within(lease, "/lease", *LEASE_MS, faults)
        # Text, so that it is never taken for one of the numbers by which Python workers count their claims.
        self.turn = f"q:{uuid4().hex}" if fields.request_id is None else f"r:{fields.request_id}"
        self.repeats = fields.request_id is not None
        if fields.request_id is not None and not WORKER_NAME.fullmatch(fields.request_id):
            faults.append(Fault("/request_id", "1 to 128 letters, digits, '.', '_', ':', '@' or '-'"))
        if fields.types is not None and not 1 <= len(fields.types) <= MOST_TYPES:
            faults.append(Fault("/types", f"1 to {MOST_TYPES} types"))
        faults += [
            Fault(f"/types/{n}", "1 to 64 letters, digits, '.', '_' or '-', a letter or digit first")
            for n, name in enumerate(fields.types or ())
            if not TYPE_NAME.fullmatch(name)
        ]
        self.types = tuple(dict.fromkeys(fields.types or ()))
        if faults:
            raise Invalid(faults)


class Latest:
    """Of the requests that a caller repeats under one `request_id`, the one that came last: the jobs are its own.

    What an earlier one would give back, since its caller hung up, the later one was answered with.
    """

    def __init__(self) -> None:
        self._asked: dict[tuple[str, str, str], Asked] = {}

    def came(self, asked: Asked) -> None:
        """A request has come."""
        if asked.repeats:
            name = asked.queue, asked.worker, asked.turn
            self._asked[name] = asked
            asyncio.get_running_loop().call_later(REMEMBERED, self._forget, name, asked)

    def is_another(self, asked: Asked) -> bool:
        """It was repeated since."""
        return self._asked.get((asked.queue, asked.worker, asked.turn), asked) is not asked

    def _forget(self, name: tuple[str, str, str], asked: Asked) -> None:
        if self._asked.get(name) is asked:
            del self._asked[name]


LATEST = web.AppKey("latest", Latest)


def check_worker(name: str, faults: list[Fault]) -> None:
    if not WORKER_NAME.fullmatch(name):
        faults.append(Fault("/worker", "1 to 128 letters, digits, '.', '_', ':', '@' or '-'"))


@table.add("POST", "/v1/queues/{queue}/lease", {200: LeaseShown}, body=LeaseFields)
async def lease(request: web.Request, fields: LeaseFields) -> web.StreamResponse:
    """Claim jobs for a worker, waiting up to `wait` for the first. The same `request_id`: the same jobs."""
    asked = Asked(fields, queue_name(request, new=True), request.app[SETTINGS].lease_ms)
    request.app[LATEST].came(asked)
    # One that waits is there all the while, however short a lease it asks for.
    sign_ms = max(asked.lease_ms, round(asked.wait * 1000))
    request.app[BEHIND].do(request.app[PRESENCE].sign_for(asked.worker, asked.queue, sign_ms))
    with hang_up_cancels(request):
        jobs = await _claim(request, asked)
        return await _hand_over(request, asked, jobs)


async def _claim(request: web.Request, asked: Asked) -> list[Claimed]:
    """What there is for this worker, at the latest when its time is over."""
    loop, polls, doorbell = asyncio.get_running_loop(), request.app[POLLS], request.app[DOORBELL]
    until = loop.time() + asked.wait
    rung = False
    while True:
        try:
            claim = await _claim_once(request, asked, max(0.0, until - loop.time()))
        except BaseException:
            doorbell.remind(asked.queue, TAKEN_OVER)  # who was to look for the others is gone: let another
            raise
        pause = TAKEN_OVER if claim.jobs else max(0.02, claim.wait_ms / 1000)
        doorbell.remind(asked.queue, pause, asked.worker)
        if rung and asked.types and not claim.jobs:
            # What became runnable is of another type, for others who wait.
            doorbell.hand_on(asked.queue)
        # No time to wait and no job: that request was answered before, and nothing of it stands.
        answered = not claim.jobs and claim.wait_ms == 0
        left = until - loop.time()
        if claim.jobs or answered or left <= 0 or polls.stopping:
            return claim.jobs
        rung = False
        async with polls.at_most(left + 1):
            rung = await doorbell.wait(asked.queue, left, asked.worker)
        if not rung and (polls.stopping or loop.time() >= until):
            return []


async def _claim_once(request: web.Request, asked: Asked, left: float) -> Claim:
    store, settings = request.app[STORE], request.app[SETTINGS]
    call = store.claim_call(
        asked.queue, worker=asked.worker, turn=asked.turn, count=asked.count, lease_ms=asked.lease_ms,
        period_ms=settings.watchdog_interval_ms, patience_ms=round(left * 1000), types=asked.types,
    )  # fmt: skip
    running = asyncio.ensure_future(_run(request, asked, call))
    try:
        claim = await asyncio.shield(running)
    except asyncio.CancelledError:
        request.app[BEHIND].do(_undo(request.app[DOORBELL], store, asked, running, request.app[LATEST]))
        raise
    if claim.sweep:
        request.app[BEHIND].do(_sweep(request, asked))
    if claim.relay:
        request.app[BEHIND].do(_relay(store, asked.queue))
    bad = [job for job in claim.jobs if job.record is None or not job.record.intact]
    if bad:
        request.app[BEHIND].do(_bury(store, asked, bad))
    return Claim(
        [job for job in claim.jobs if job not in bad], claim.wait_ms or (1 if bad else 0), claim.sweep
    )


async def _run(request: web.Request, asked: Asked, call: Call[Claim]) -> Claim:
    """Claims. A lost reply is asked for once more; the same turn is answered with the same jobs."""
    store = request.app[STORE]
    try:
        return await store.run(call)
    except StoreUnavailable as error:
        if not error.unknown:
            raise
    try:
        return await store.run(call)
    except StoreUnavailable as error:
        # A caller with a request_id asks again himself, and must find his jobs then.
        if error.unknown and not asked.repeats:
            request.app[BEHIND].do(_recover(store, asked, call, request.app[LATEST]))
        raise


async def _hand_over(request: web.Request, asked: Asked, jobs: list[Claimed]) -> web.StreamResponse:
    """Writes the answer here, and not behind the handler: what could not be written is given back."""
    if not jobs:
        return json_answer({"jobs": []})
    store = request.app[STORE]
    try:
        policies = await _policies(store, asked.queue, jobs)
        waited = [job for job in jobs if job.record and job.record.rule("a") is not None]
        results = await asyncio.gather(*(store.results_of_parents(job.queue, job.key) for job in waited))
        parents = {job.token: found for job, found in zip(waited, results, strict=True) if found}
        shown = [
            _document(job, leased(job, asked.worker, *policies[job.record.type]), parents.get(job.token))
            for job in jobs
            if job.record
        ]
        response = json_answer({"jobs": shown})
        stamp(response, request[REQUEST_ID])
        await response.prepare(request)
        await response.write_eof()
        await _flush(request, asked.lease_ms / 1000)
    except BaseException:
        # Whatever it was: nobody has heard of these jobs.
        request.app[BEHIND].do(_give_back(store, asked, jobs, request.app[LATEST]))
        raise
    return response


async def _flush(request: web.Request, seconds: float) -> None:
    """Waits until the answer is on its way. Raises ConnectionError when the caller is gone before."""
    transport = request.transport
    if transport is not None and transport.get_write_buffer_size():
        transport.set_write_buffer_limits(high=0)
        try:
            async with asyncio.timeout(seconds):
                await request.writer.drain()
        except TimeoutError:
            transport.abort()
        else:
            transport.set_write_buffer_limits()
    if request.transport is None or request.transport.is_closing():
        raise ConnectionResetError("the caller hung up before it had its jobs")


async def _policies(
    store: Store, queue: str, jobs: Sequence[Claimed]
) -> Mapping[str, tuple[TypePolicy | None, TypePolicy | None]]:
    """What is set for the types of these jobs. Claimed as they are, they are shown without an answer too."""
    types = list({job.record.type for job in jobs if job.record})
    try:
        found = await store.run(store.policies_call(queue, types))
        return dict(zip(types, found, strict=True))
    except SchedulerError as error:
        log.debug("policies unknown", error=str(error))
        return dict.fromkeys(types, (None, None))


def leased(claimed: Claimed, worker: str, as_set: TypePolicy | None, declared: TypePolicy | None) -> Job:
    """A job in the hands of the worker that has just claimed it."""
    record, course = claimed.record, parse_course(claimed.former)
    assert record is not None
    said = [
        policy
        for policy in (declared, as_set, TypePolicy(record.timeout_ms, record.header.get("retry")))
        if policy
    ]
    policy = retry_policy.in_force(*(one.retry or {} for one in said))
    timeout_ms = [
        retry_policy.DEFAULT_TIMEOUT_MS,
        *(one.timeout_ms for one in said if one.timeout_ms is not None),
    ][-1]
    started = claimed.timeout_ends_ms - timeout_ms
    if claimed.ends_by_deadline:
        # A token is the time of its claim in µs, or a little more.
        started = claimed.token // 1000
    return Job(
        id=claimed.id,
        queue=claimed.queue,
        type=record.type,
        state=State.RUNNING,
        reason=None,
        payload=record.payload,
        priority=record.priority,
        group=record.header.get("group"),
        tags=tuple(record.header.get("tags", ())),
        attempt=claimed.attempt,
        max_attempts=int(policy["max_attempts"]),
        crashes=course.crashes,
        snoozes=course.snoozes,
        token=claimed.token,
        timeout_ms=timeout_ms,
        created_at=record.created_ms,
        run_at=None,
        started_at=started,
        finished_at=None,
        lease_expires_at=claimed.lease_ends_ms,
        worker=worker,
        progress=None,
        result=None,
        errors=course.errors,
        traceparent=record.header.get("traceparent"),
        copied_from=record.header.get("copied_from"),
        after=record.header.get("after", ()),
        on_failure=record.rule("a"),
        flow=record.header.get("flow"),
        flow_name=record.header.get("name") or None,
        cost=record.cost,
        deadline_ms=record.deadline_ms,
        expires_ms=record.expires_ms,
    )


def _document(claimed: Claimed, job: Job, parents: Mapping[str, bytes | None] | None) -> dict[str, Any]:
    document = job.document()
    if parents is not None and claimed.record is not None:
        names = claimed.record.parents
        document["parents"] = {names.get(i, i): raw_json(result) for i, result in parents.items()}
    if claimed.checkpoint:
        document["checkpoint"] = raw_json(claimed.checkpoint)
    return document


# -- behind the answer ---------------------------------------------------------------------------------------


async def _undo(
    doorbell: Doorbell, store: Store, asked: Asked, running: asyncio.Future[Claim], latest: Latest
) -> None:
    """The caller hung up while the claim was under way: what it gave goes back, and another looks in his place."""
    claim = await running
    doorbell.remind(asked.queue, claim.wait_ms / 1000, asked.worker)
    await _give_back(store, asked, claim.jobs, latest)


async def _recover(store: Store, asked: Asked, call: Call[Claim], latest: Latest) -> None:
    """Nobody knows what a claim gave, nor will ask: once the store is back, it goes back."""
    for pause in (0.5, 2.0, 5.0, 10.0):
        await asyncio.sleep(pause)
        try:
            claim = await store.run(call)
        except StoreUnavailable:
            continue
        await _give_back(store, asked, claim.jobs, latest)
        return


async def _give_back(store: Store, asked: Asked, jobs: Sequence[Claimed], latest: Latest) -> None:
    """Releases jobs that nobody has heard of. Where the store stays away, their lease ends instead.

    Not those of a request that was repeated meanwhile: its caller has them.
    """
    if not jobs:
        return
    back = [Release(job.key, job.token) for job in jobs]
    for pause in (0.1, 0.5, 2.0, None):
        if latest.is_another(asked):
            return
        try:
            await store.release(asked.queue, back, worker=asked.worker)
        except StoreUnavailable:
            if pause is None:
                raise
            await asyncio.sleep(pause)
        else:
            log.debug("released what nobody heard of", queue=asked.queue, worker=asked.worker, jobs=len(back))
            return


async def _bury(store: Store, asked: Asked, jobs: Sequence[Claimed]) -> None:
    log.warning("corrupt jobs", queue=asked.queue, jobs=[job.id for job in jobs])
    message = "the stored job is damaged: its payload is not the one that was enqueued"
    await store.bury(
        asked.queue,
        [Bury(job.key, job.token, "Corrupt", message, reason="corrupt") for job in jobs],
        worker=asked.worker,
    )


async def _relay(store: Store, queue: str) -> None:
    await store.relay(queue)


async def _sweep(request: web.Request, asked: Asked) -> None:
    await sweep(request.app[STORE], asked.queue, request.app[SETTINGS], worker=asked.worker, only_if_due=True)

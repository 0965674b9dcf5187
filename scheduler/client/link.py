"""What a worker over HTTP needs: each call once, or repeated for those who ask themselves. See `scheduler/remote.py`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from ..documents import JobDocument, Leased, flow_document, new_document
from ..errors import Fault, SchedulerError
from ..errors import Invalid as NotTaken
from ..flow import Plan
from ..job import Job, NewJob
from ..outcomes import Enqueued
from ..shown import FlowShown
from ..times import parse_rfc3339, seconds
from .lines import Line, Outcome, plain_windows
from .problems import Problem, StoreUnavailable, Unreachable, problem_of
from .transport import NDJSON, Transport, part

CHUNK = 64 * 1024
"""Bytes of a stream that are handed over at a time."""

log = logging.getLogger(__name__)

MOST_SAID = 1_000
"""Warnings of the server that are kept, so that each is logged once."""

CALL_ID = "X-Call-Id"
"""Names a call, so that the server knows again what a try of it has made whose answer was lost."""

LATER = frozenset({"store_unavailable", "store_full", "queue_full", "rate_limited"})
"""Codes of items that are sent again."""


class _Leases(msgspec.Struct):
    jobs: list[JobDocument]


class _Standing(msgspec.Struct):
    duplicate: bool = False
    warnings: tuple[str, ...] = ()


class _Settled(msgspec.Struct):
    items: list[dict[str, Any]]


_SAID: set[str] = set()


def say(warnings: Iterable[str]) -> None:
    """Logs each warning of the server once in this process."""
    for text in warnings:
        if text not in _SAID and len(_SAID) < MOST_SAID:
            _SAID.add(text)
            log.warning("%s", text)


class HttpLink:
    """Claims, settles and enqueues over HTTP."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @asynccontextmanager
    async def again(self, timeout: float) -> AsyncIterator[HttpLink]:  # noqa: ASYNC109 - of each of its calls
        """Another one like this, for another event loop, whose calls take so many seconds at most."""
        transport = self._transport.again(timeout=timeout, patience=0)
        try:
            yield HttpLink(transport)
        finally:
            await transport.close()

    # -- working --------------------------------------------------------------------------------------------------

    async def lease(
        self, queue: str, *, worker: str, count: int, wait: float, lease_ms: int, request_id: str
    ) -> list[Leased]:
        """Claims once."""
        return await self.claim(
            queue, worker=worker, count=count, wait=wait, lease=seconds(max(1_000, lease_ms)),
            request_id=request_id, patience=0,
        )  # fmt: skip

    async def claim(
        self,
        queue: str,
        *,
        worker: str,
        count: int,
        wait: float,
        lease: float | str | None,
        request_id: str,
        types: Iterable[str] | None = None,
        patience: float | None = None,
    ) -> list[Leased]:
        """Claims; the same request again gives the same jobs."""
        body: dict[str, Any] = {"worker": worker, "max": count, "wait": wait, "request_id": request_id}
        if lease is not None:
            body["lease"] = lease
        if types is not None:
            body["types"] = list(types)
        answer = await self._transport.call(
            "POST", f"/v1/queues/{part(queue)}/lease", body, wait=wait, safe=True, patience=patience
        )
        return [document.leased() for document in answer.read(_Leases).jobs]

    async def settle(
        self, queue: str, *, worker: str, items: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> list[Mapping[str, Any]]:
        """Tells once. Raises the package's Invalid for all that repeating does not help."""
        try:
            return await self.tell(queue, worker=worker, items=items, patience=0)
        except Problem as error:
            if error.status in {400, 413, 415} and not isinstance(error, NotTaken):
                raise NotTaken([Fault("", str(error))]) from error
            raise

    async def tell(
        self,
        queue: str,
        *,
        worker: str,
        items: Mapping[str, Sequence[Mapping[str, Any]]],
        patience: float | None = None,
    ) -> list[Mapping[str, Any]]:
        """Tells what became of jobs; safe to repeat by their tokens."""
        path, body = f"/v1/queues/{part(queue)}/settle", {"worker": worker, **items}
        answer = await self._transport.call("POST", path, body, safe=True, patience=patience)
        return list(answer.read(_Settled).items)

    async def declare(self, queue: str, type: str, policy: Mapping[str, Any]) -> None:
        """Tells a queue what the code of a worker says of a type."""
        path = f"/v1/queues/{part(queue)}/types/{part(type)}"
        await self._transport.call("PUT", path, policy, query={"declared": "true"}, safe=True, patience=0)

    async def look(self, job_id: str, wait: float = 0) -> Job:
        """A job, once it has ended or after so many seconds."""
        query = {"wait": f"{wait:.3f}"} if wait else None
        answer = await self._transport.call(
            "GET", f"/v1/jobs/{part(job_id)}", query=query, wait=wait, safe=True
        )
        return answer.read(JobDocument).job()

    async def open_job(self, job_id: str) -> Job:
        """Lets a held job go."""
        answer = await self._transport.call("POST", f"/v1/jobs/{part(job_id)}/open", safe=True)
        return answer.read(JobDocument).job()

    async def stop(self, job_id: str) -> Job:
        """Cancels a job."""
        answer = await self._transport.call("POST", f"/v1/jobs/{part(job_id)}/cancel", safe=True)
        return answer.read(JobDocument).job()

    # -- enqueueing -----------------------------------------------------------------------------------------------

    async def enqueue_each(self, jobs: Sequence[NewJob]) -> list[Enqueued | SchedulerError]:
        """New jobs with their keys: what became of each."""
        if len(jobs) == 1:
            return [await self._enqueue_one(jobs[0])]
        lines = [
            Line(n, f"{job.queue}:{job.key}", msgspec.json.encode(new_document(job)) + b"\n")
            for n, job in enumerate(jobs)
        ]
        return [
            outcome.error or Enqueued(outcome.id, "exists" if outcome.duplicate else "ready", 0, None)
            for some in plain_windows(lines)
            for outcome in await self.send(some)
        ]

    async def put_flow(self, plan: Plan) -> bool:
        """A new flow: whether it is one. With its id and those of its jobs it is safe to repeat."""
        try:
            answer = await self._transport.call("POST", "/v1/flows", flow_document(plan), safe=True)
        except Problem as error:
            error.about(plan.id)
            raise
        standing = answer.read(_Standing)
        say(standing.warnings)
        duplicate = standing.duplicate
        # What stands after a try that was not answered is that one's work.
        return not duplicate or answer.unsure

    async def flow(self, flow_id: str, wait: float = 0, **how: Any) -> FlowShown:
        """A flow, once it has ended or after so many seconds."""
        query = {"wait": f"{wait:.3f}"} if wait else None
        path = f"/v1/flows/{part(flow_id)}"
        answer = await self._transport.call("GET", path, query=query, wait=wait, safe=True, **how)
        return answer.read(FlowShown)

    async def act_on_flow(self, flow_id: str, verb: str) -> FlowShown:
        """Cancels or replays a flow. To be replayed twice is not safe to repeat: the second time nothing may be dead."""
        path = f"/v1/flows/{part(flow_id)}/{verb}"
        return (await self._transport.call("POST", path, safe=verb == "cancel")).read(FlowShown)

    async def _enqueue_one(self, job: NewJob) -> Enqueued | SchedulerError:
        try:
            answer = await self._transport.call("POST", "/v1/jobs", new_document(job), safe=True)
        except Problem as error:
            error.about(f"{job.queue}:{job.key}")
            return error
        found = answer.read(JobDocument)
        say(found.warnings)
        its_own = answer.unsure and found.id == f"{job.queue}:{job.key}"
        state = "exists" if found.duplicate and not its_own else "ready"
        return Enqueued(found.id, state, parse_rfc3339(found.created_at), None)

    async def send(self, lines: Sequence[Line]) -> list[Outcome]:
        """Enqueues these, in order, and says what became of each.

        An answer that breaks off, and jobs that are refused for the moment, are sent again within the patience: they have
        their ids. A job that a former try created is no duplicate.
        """
        known = {line.number: Outcome(line.number, line.id, error=line.error) for line in lines if line.error}
        left = [line for line in lines if line.number not in known]
        unsure: set[int] = set()

        async def once() -> None:
            nonlocal left
            try:
                await self._send_once(left, known, unsure)
            finally:
                left = [line for line in left if line.number not in known]

        try:
            if left:
                await self._transport.repeated(once, safe=True)
        except Problem as error:
            if not isinstance(error, StoreUnavailable) and error.code not in LATER:
                raise
            for line in left:
                known.setdefault(line.number, Outcome(line.number, line.id, error=error))
        return [known[line.number] for line in lines]

    async def _send_once(self, lines: Sequence[Line], known: dict[int, Outcome], unsure: set[int]) -> None:
        """Sends lines and reads what is answered. Raises a Problem when some of them are to be sent again.

        `unsure`: numbers of those that may have been enqueued by a try that did not say so.
        """
        named: dict[int, dict[str, Any]] = {}
        done = False
        try:
            if lines:
                async with self._transport.open(
                    "POST", "/v1/jobs/bulk", _chunks(lines), headers={"Content-Type": NDJSON}
                ) as response:
                    async for text in response.content:
                        answer = msgspec.json.decode(text, type=dict[str, Any])
                        if answer.get("done"):
                            done = True
                            say(answer.get("warnings", ()))
                        elif "index" in answer:
                            named[answer["index"]] = answer
                if not done:
                    raise Unreachable("the answer broke off before its last line")
        except StoreUnavailable as error:
            # What is answered is answered, also before the answer broke off.
            self._note([(line, named.get(n)) for n, line in enumerate(lines)], known, unsure)
            if error.unknown:
                unsure.update(line.number for n, line in enumerate(lines) if n not in named)
            raise
        created = {"status": 201}
        later = self._note([(line, named.get(n, created)) for n, line in enumerate(lines)], known, unsure)
        if later is not None:
            raise later

    @staticmethod
    def _note(
        answered: Iterable[tuple[Line, dict[str, Any] | None]], known: dict[int, Outcome], unsure: set[int]
    ) -> Problem | None:
        """Notes what these were answered. Returns the problem of one that is to be sent again."""
        later: Problem | None = None
        for line, answer in answered:
            if answer is None:
                continue
            if answer["status"] == 201:
                known[line.number] = Outcome(line.number, line.id)
            elif answer["status"] == 200:
                duplicate = line.number not in unsure or answer["id"] != line.id
                known[line.number] = Outcome(line.number, answer["id"], duplicate=duplicate)
            else:
                problem = problem_of(answer)
                if problem.code not in LATER:
                    problem.about(line.id)
                    known[line.number] = Outcome(line.number, line.id, error=problem)
                    continue
                later = problem
                if problem.id is not None:  # it may stand all the same
                    unsure.add(line.number)
        return later


async def _chunks(lines: Sequence[Line]) -> AsyncIterator[bytes]:
    chunk = bytearray()
    for line in lines:
        chunk += line.text
        if len(chunk) >= CHUNK:
            yield bytes(chunk)
            chunk.clear()
    if chunk:
        yield bytes(chunk)

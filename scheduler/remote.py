"""A worker that reaches its queues over somebody else, who claims and settles for it: over HTTP, `scheduler.client`.

Attempts, slots, timeouts, stopping and heartbeats are those of every worker; here is only how it asks and tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import re
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from msgspec import Raw

from . import forks
from . import retry as retry_policy
from .calling import batches
from .documents import Leased, new_document
from .errors import Invalid, NotFound, SchedulerError, StoreFull, StoreUnavailable, WrongState
from .fetcher import Crew, Line
from .flow import Plan
from .handlers import Handlers
from .heartbeat import BaseHeartbeat, Heard, Held
from .job import Claimed, Job, NewJob, Record, State
from .logs import get_logger
from .outcomes import Ack, Bury, Claim, Enqueued, Extend, Nack, Note, Release, Settlement
from .settings import Settings
from .tasks import cancel_all
from .times import seconds
from .worker import BaseWorker

if TYPE_CHECKING:
    from .shown import FlowShown

log = get_logger(__name__)

LONGEST_WAIT = 20.0
"""Seconds that a claim waits for a job at most, where its slot is nobody else's."""

LOOK_EVERY = 1.0
"""Seconds between claims of a queue that has nothing, while others want its slot, or where claims do not wait."""

RETRY_IN = re.compile(r"retry in ([0-9.]+) s")
"""What an error of a job says of the next attempt (lua/lib/failed.lua)."""

Item = dict[str, Any]


class Link(Protocol):
    """Who claims, settles and enqueues for a worker.

    Each call is made once. StoreUnavailable means that it may be repeated, `unknown` that it may have been carried out;
    Invalid that it never will be.
    """

    async def lease(
        self, queue: str, *, worker: str, count: int, wait: float, lease_ms: int, request_id: str
    ) -> list[Leased]:
        """Claims jobs. The same `request_id` gives the same jobs again."""

    async def settle(
        self, queue: str, *, worker: str, items: Mapping[str, Sequence[Item]]
    ) -> list[Mapping[str, Any]]:
        """Tells what became of jobs; `items` by ack, nack, release and extend, answered in this order."""

    async def declare(self, queue: str, type: str, policy: Mapping[str, Any]) -> None:
        """Tells a queue what the code of this worker says of a type."""

    async def enqueue_each(self, jobs: Sequence[NewJob]) -> list[Enqueued | SchedulerError]:
        """New jobs, each answered for itself."""

    async def look(self, job_id: str, wait: float = 0) -> Job:
        """A job, once it has ended or after so many seconds. Raises NotFound."""

    async def stop(self, job_id: str) -> Job:
        """Cancels a job. Raises NotFound and WrongState."""

    async def open_job(self, job_id: str) -> Job:
        """Lets a held job go. Raises NotFound and WrongState."""

    async def put_flow(self, plan: Plan) -> bool:
        """A new flow: whether it is one, and did not stand."""

    async def flow(self, flow_id: str, wait: float = 0) -> FlowShown:
        """A flow, once it has ended or after so many seconds. Raises NotFound."""

    async def act_on_flow(self, flow_id: str, verb: str) -> FlowShown:
        """Cancels or replays a flow. Raises NotFound and WrongState."""

    def again(self, timeout: float) -> AbstractAsyncContextManager[Link]:
        """Another one like this, for another event loop, whose calls take so many seconds at most."""


class RemoteLine(Line):
    """A line whose queue is reached over a link: one claim under way, which may wait there; outcomes pass it by."""

    def __init__(self, crew: Crew, queue: str, weight: int, link: Link) -> None:
        super().__init__(crew, queue, weight)
        self._link = link
        self._asked: asyncio.Task[list[Leased]] | None = None
        """The claim under way."""
        self._request = ""
        """Its id, kept until it is answered: asked again, it gives the same jobs."""
        self._wait = 0.0
        self._asked_at = 0.0
        self._lost_at: float | None = None
        """When a former try of this claim failed."""
        self._let_go = False
        """It was called off: what it brings all the same goes back."""
        self._empty = False
        """The last claim brought nothing: the next one waits."""
        self._not_before = 0.0
        self._pause = 0.05
        self._full = False
        """A queue has no room for what a job has added."""
        self._parents: dict[int, Mapping[str, bytes | None]] = {}
        """By token: results that came with a job, until it begins."""

    async def parents_of(self, claimed: Claimed) -> Mapping[str, bytes | None]:
        return self._parents.pop(claimed.token, {})

    async def found(self, keys: Sequence[str]) -> list[Job | None]:
        return [await self._found(key) for key in keys]

    async def _found(self, key: str) -> Job | None:
        with contextlib.suppress(NotFound):
            return await self._link.look(f"{self.queue}:{key}")
        return None

    async def due_times(self, keys: Sequence[str]) -> list[float | None]:
        # As the server has said it with the failure: the clocks of the two may differ.
        said = [
            job.errors[-1].next if job is not None and job.errors else "" for job in await self.found(keys)
        ]
        return [float(found[1]) if (found := RETRY_IN.fullmatch(text)) else None for text in said]

    @property
    def waits(self) -> bool:
        """It holds a slot for a job that is still to come."""
        return self._asked is not None and self._wait > 0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while not self.done:
                self.changed.clear()
                if self.waits and (self.crew.stopping or self._others_starve()):
                    await self._call_off()
                if self._asked is None and loop.time() >= self._not_before:
                    self._ask(loop.time())
                if self.notes or self.settled:
                    await self._tell()
                elif not self.done:
                    await self._changed(loop)
        finally:
            await self._call_off()

    async def _changed(self, loop: asyncio.AbstractEventLoop) -> None:
        timer = None
        if self._asked is None and self._not_before > loop.time():
            timer = loop.call_at(self._not_before, self.changed.set)
        try:
            await self.changed.wait()
        finally:
            if timer is not None:
                timer.cancel()

    # -- asking ---------------------------------------------------------------------------------------------------

    def _ask(self, now: float) -> None:
        """Begins a claim, or the same one again when its outcome is not known."""
        if not self._request:
            if self.crew.stopping or not self._reserve():
                return
            self._request = uuid4().hex
            self._let_go, self._lost_at = False, None
            self._wait = LONGEST_WAIT if self._empty and not self._others_starve() else 0.0
            if self._wait and len(self.crew.fetchers) > 1:
                # Who waits keeps one slot from the others, not all of them.
                self.crew.give_back(self.reserved - 1)
                self.reserved = 1
        else:
            self._wait = 0.0
        self._asked_at = now
        self._asked = asyncio.create_task(
            self._link.lease(
                self.queue, worker=self.crew.name, count=self.reserved, wait=self._wait,
                lease_ms=self.crew.settings.lease_ms, request_id=self._request,
            )
        )  # fmt: skip
        # Not in a turn of the loop: what was leased is held from the moment it is here, whatever a turn waits for.
        self._asked.add_done_callback(self._answered)

    def _reserve(self) -> bool:
        if self.idling:
            self.crew.busy(self)
        self.reserved = self.crew.reserve(self)
        self.starved = self.reserved == 0
        if self.starved:
            for other in self.crew.fetchers.values():
                if isinstance(other, RemoteLine) and other is not self and other.waits:
                    other.changed.set()
        return not self.starved

    def _others_starve(self) -> bool:
        return any(other.starved for other in self.crew.fetchers.values() if other is not self)

    async def _call_off(self) -> None:
        """Hangs up on a claim that waits. What it may have given is found by its id, and goes back."""
        if self._asked is not None:
            await cancel_all([self._asked])

    def _answered(self, asked: asyncio.Task[list[Leased]]) -> None:
        """The claim under way has ended."""
        now = asked.get_loop().time()
        self._asked = None
        self.changed.set()
        late = 0.0 if self._lost_at is None else now - self._lost_at
        try:
            given = asked.result()
            leased = [claimed(one, late) for one in given]
        except asyncio.CancelledError:
            self._let_go, self._not_before = True, 0.0
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the line goes on
            self._failed(error, now)
            return
        self._request, self._pause = "", 0.05
        self.crew.well(self.queue)
        reserved, self.reserved = self.reserved, 0
        if self._let_go:
            # Whoever heard us hang up may have given them back already: then they are others' by now.
            self.settled += [Release(one.key, one.token) for one in leased]
            self.crew.give_back(reserved)
        elif leased:
            if self.idling:
                self.crew.busy(self)
            self._parents.update((one.job.token, one.parents) for one in given if one.parents)
            self.begin(Claim(leased, 0, sweep=False))
            self.crew.give_back(reserved - len(leased))
        else:
            # Behind a server that stops, or where others want the slot, there is no waiting.
            if now - self._asked_at < self._wait / 2 or (self._empty and not self._wait):
                self._not_before = now + LOOK_EVERY * random.uniform(0.5, 1.0)
            self.crew.give_back(reserved)
            self.crew.idle(self)
        self._empty = not leased

    def _failed(self, error: Exception, now: float) -> None:
        if not isinstance(error, SchedulerError):
            log.error("a claim failed", queue=self.queue, exc_info=error)
            error = StoreUnavailable(repr(error), unknown=True)
        if isinstance(error, StoreUnavailable) and error.unknown:
            self._lost_at = now
        else:
            self._request = ""
            self.crew.give_back(self.reserved)
            self.reserved = 0
        self.crew.trouble(self.queue, error)
        self.crew.idle(self)
        self._not_before = now + self._longer_pause()

    def _longer_pause(self) -> float:
        pause, self._pause = self._pause, min(self._pause * 2, 1.0)
        return pause * random.uniform(0.5, 1.0)

    # -- telling --------------------------------------------------------------------------------------------------

    async def _tell(self) -> None:
        """Tells what handlers told, then what is finished. What is not heard is kept for the next turn, in order."""
        notes = self.notes.take()
        settled, self.settled = self.settled, []
        # Apart, and first: within one call outcomes come first, and of a job that has ended nothing more is kept.
        parts = [*batches(list(note_items(notes, self.queue, self.crew.settings.lease_ms)), Part.size)]
        parts += batches([settlement_item(item, self.queue) for item in settled], Part.size)
        while parts:
            try:
                answers = await self._settle(parts[0])
            except Invalid as error:
                first = parts.pop(0)
                if len(first) > 1:
                    # One of them is what cannot be taken: each for itself, so that it spoils no other.
                    parts = [[part] for part in first] + parts
                elif isinstance(ack := first[0].of[0], Ack) and ack.added:
                    self.settled.append(Nack(ack.key, ack.token, "Invalid", f"an added job: {error}"))
                else:
                    log.error("what was to be told is not taken", job=first[0].item["id"], error=str(error))
            except Exception as error:  # noqa: BLE001 - whatever it is, nothing is forgotten
                await self._keep(parts, error)
                return
            else:
                self._hear(parts.pop(0), answers)
        self.unsure.clear()
        if self._full:
            # What adds jobs waits until there is room for them; its lease goes on.
            self._full = False
            await self.nap(self._longer_pause())
            return
        self._pause = 0.05
        self.crew.well(self.queue)

    async def _settle(self, batch: Sequence[Part]) -> list[tuple[Part, Mapping[str, Any]]]:
        items: dict[str, list[Part]] = {verb: [] for verb in ("ack", "nack", "release", "extend")}
        for part in batch:
            items[part.verb].append(part)
        answers = await self._link.settle(
            self.queue,
            worker=self.crew.name,
            items={verb: [part.item for part in parts] for verb, parts in items.items() if parts},
        )
        return list(zip([part for parts in items.values() for part in parts], answers, strict=True))

    async def _keep(self, parts: Sequence[Sequence[Part]], error: Exception) -> None:
        rest = [part for batch in parts for part in batch]
        self.notes.put_back(told for part in rest if part.verb == "extend" for told in part.of)
        self.settled = [told for part in rest if part.verb != "extend" for told in part.of] + self.settled
        if not isinstance(error, SchedulerError):
            log.error("a turn failed", queue=self.queue, exc_info=error)
            error = StoreUnavailable(repr(error), unknown=True)
        if isinstance(error, StoreUnavailable) and error.unknown:
            self.unsure.update(part.item["token"] for part in rest)
        self.crew.trouble(self.queue, error)
        await self.nap(self._longer_pause())

    def _hear(self, batch: Sequence[Part], answers: list[tuple[Part, Mapping[str, Any]]]) -> None:
        assert len(batch) == len(answers)
        for part, answer in answers:
            code, token = answer.get("code"), part.item["token"]
            if code is None and part.verb != "extend":
                self.crew.outcomes.add(self, part.of[0], str(answer.get("state", "")))
            if part.verb == "extend":
                if answer.get("cancel"):
                    self.stop_job(token)
                elif code in {"stale_lease", "not_found"}:
                    self.lose(token)
            elif code == "too_large":
                message = "the result is larger than the server keeps"
                self.settled.append(Bury(part.of[0].key, token, "ResultTooLarge", message))
            elif code == "queue_full":
                self._full = True
                self.settled.append(part.of[0])
            elif code in {"duplicate", "validation"}:
                kind = "Duplicate" if code == "duplicate" else "Invalid"
                self.settled.append(Nack(part.of[0].key, token, kind, str(answer.get("detail", code))))
            elif code is not None and token not in self.unsure:
                # Told before in a call whose answer was lost, a retry at once may have followed it.
                log.warning(
                    "an outcome came too late: the job was given to another worker, or is gone",
                    job=part.item["id"], outcome=part.verb, answer=code,
                )  # fmt: skip


class Part:
    """One item of a call, and what it tells."""

    __slots__ = ("item", "of", "verb")

    def __init__(self, verb: str, item: Item, of: list[Any]) -> None:
        self.verb, self.item, self.of = verb, item, of

    def size(self) -> int:
        """About how many bytes it has."""
        error = self.item.get("error", {})
        texts = [error.get("message", ""), error.get("trace", ""), *self.item.get("log", ())]
        raws = [bytes(value) for value in self.item.values() if isinstance(value, Raw)]
        added = sum(len(job.payload) + 500 for told in self.of if isinstance(told, Ack) for job in told.added)
        return 200 + sum(map(len, texts)) + sum(map(len, raws)) + added


MOST_LINES = 500
"""Log lines of one item."""


def note_items(notes: Sequence[Note | Extend], queue: str, lease_ms: int) -> Iterator[Part]:
    """What handlers told, a few items a run: the newest progress and checkpoint, lines in the order of their numbers."""
    runs: dict[tuple[str, int], list[Note | Extend]] = {}
    for note in notes:
        runs.setdefault((note.key, note.token), []).append(note)
    for (key, token), told in runs.items():
        span = max([lease_ms, *(one.lease_ms for one in told if isinstance(one, Extend))])
        head = {"id": f"{queue}:{key}", "token": token, "lease": seconds(min(max(span, 1_000), 43_200_000))}
        item: Item = dict(head)
        plain: list[Any] = [one for one in told if isinstance(one, Extend) or one.field != "log"]
        for one in plain:
            if isinstance(one, Note):
                item[one.field] = Raw(one.value)
        if plain:
            yield Part("extend", item, plain)
        lines = [one for one in told if isinstance(one, Note) and one.field == "log"]
        for some in consecutive(sorted(lines, key=lambda line: line.seq)):
            log_from = {"log_from": some[0].seq} if some[0].seq else {}
            texts = [line.value.decode(errors="replace") for line in some]
            yield Part("extend", {**head, "log": texts, **log_from}, list(some))


def consecutive(lines: Sequence[Note]) -> Iterator[list[Note]]:
    """Lines in pieces whose numbers follow each other."""
    some: list[Note] = []
    for line in lines:
        follows = some and line.seq == (some[-1].seq + 1 if some[-1].seq else 0)
        if some and (not follows or len(some) == MOST_LINES):
            yield some
            some = []
        some.append(line)
    if some:
        yield some


def settlement_item(told: Settlement, queue: str) -> Part:
    """An outcome as an item of a settle call."""
    item: Item = {"id": f"{queue}:{told.key}", "token": told.token}
    if isinstance(told, Ack):
        if told.result:
            item["result"] = Raw(told.result)
        if told.added:
            item["add"] = [new_document(job) for job in told.added]
        return Part("ack", item, [told])
    if isinstance(told, Release):
        if told.delay_ms:
            item["delay"] = seconds(told.delay_ms)
        if told.why:
            item["why"] = told.why
        return Part("release", item, [told])
    item["error"] = {
        "kind": _clean(told.kind)[:200] or "Error",
        "message": _clean(told.message),
        **({"trace": _clean(told.trace)} if told.trace else {}),
    }
    if isinstance(told, Bury):
        item |= {"permanent": True}
        if told.reason == "bad_payload":
            item["reason"] = told.reason
    elif told.retry_in_ms is not None:
        item["retry_in"] = seconds(told.retry_in_ms)
        if told.scope:
            item["scope"] = told.scope
    return Part("nack", item, [told])


def _clean(text: str) -> str:
    """Without half characters, which no JSON carries."""
    return text.encode("utf-8", "replace").decode()


def _key(job: Job) -> str:
    return job.id.partition(":")[2]


def claimed(leased: Leased, late: float = 0.0) -> Claimed:
    """A job that was leased, as attempts know it. `late`: seconds of its timeout that are surely gone."""
    job = leased.job
    started = job.started_at or 0
    ends = min(started + job.timeout_ms, job.deadline_ms or math.inf)
    flags = "" if job.deadline_ms is None else f" d:{job.deadline_ms}"
    if leased.parents:
        flags += f" a:{job.on_failure or 'cancel'}"
    record = Record(
        type=job.type,
        timeout_ms=None,
        flags=flags,
        created_ms=job.created_at,
        priority=job.priority,
        fingerprint="",
        crc="",
        header={"group": job.group, "tags": job.tags, "traceparent": job.traceparent, "flow": job.flow or ""},
        payload=job.payload or b"null",
    )
    return Claimed(
        queue=job.queue,
        key=_key(job),
        token=job.token,
        attempt=job.attempt,
        lease_ends_ms=job.lease_expires_at or 0,
        timeout_ends_ms=int(ends),
        timeout_ms=max(1, int(ends) - started - round(late * 1000)),
        record=record,
        former=b"%d|%d|0" % (max(0, job.attempt - 1), job.crashes) if job.crashes else b"",
        checkpoint=leased.checkpoint,
    )


class RemoteHeartbeat(BaseHeartbeat):
    """Heartbeats over a link of their own, in an event loop of their own."""

    def __init__(self, link: Link, worker: str, lease_ms: int, *, held: Held, heard: Heard) -> None:
        super().__init__(lease_ms, held=held, heard=heard)
        self._link, self._worker, self._lease_ms = link, worker, lease_ms
        self._runner: asyncio.Runner | None = None
        self._stack = contextlib.AsyncExitStack()
        self._own: Link | None = None

    def extend(self, queue: str, held: list[Extend]) -> Sequence[str]:
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(self._extend(queue, held))

    async def _extend(self, queue: str, held: list[Extend]) -> Sequence[str]:
        if self._own is None:
            # A heartbeat that hangs leaves time for another one, also where the lease is short.
            again = self._link.again(min(5.0, max(0.5, self._period)))
            self._own = await self._stack.enter_async_context(again)
        items = [
            {"id": f"{queue}:{one.key}", "token": one.token, "lease": seconds(max(1_000, one.lease_ms))}
            for one in held
        ]
        answers = await self._own.settle(queue, worker=self._worker, items={"extend": items})
        words = {"stale_lease": "stale", "not_found": "missing"}
        return [
            "cancel" if answer.get("cancel") else words.get(answer.get("code", ""), "running")
            for answer in answers
        ]

    def close(self) -> None:
        if self._runner is not None:
            with contextlib.suppress(Exception):
                self._runner.run(self._stack.aclose())
            self._runner.close()


class RemoteWorker(BaseWorker):
    """A worker over a link."""

    def __init__(
        self,
        link: Link,
        handlers: Handlers,
        settings: Settings,
        *,
        queues: Sequence[str] | Mapping[str, int] = (),
        concurrency: int | None = None,
    ) -> None:
        self._link = link
        super().__init__(handlers, settings, queues=queues, concurrency=concurrency)

    def line(self, queue: str, weight: int) -> Line:
        return RemoteLine(self.crew, queue, weight, self._link)

    def beat(self) -> BaseHeartbeat:
        return RemoteHeartbeat(
            self._link, self.name, self.settings.lease_ms, held=self.held, heard=self.heard
        )

    async def declare(self) -> None:
        """Tells each queue the policies that this code declares, until they are heard; what is refused is said.

        Raises what a worker of these queues is refused with: a key that is wrong now is not said to be trouble of the service.
        """
        for queue in self.queues:
            await self._until_heard(partial(self._link.settle, queue, worker=self.name, items={}))
        left = [(queue, handler) for queue in self.queues for handler in self.handlers]
        left = [(queue, handler) for queue, handler in left if handler.policy.record()]
        for queue, handler in left:
            policy: dict[str, Any] = {}
            if handler.retry:
                policy["retry"] = retry_policy.shown(handler.retry)
            if handler.timeout_ms is not None:
                policy["timeout"] = seconds(handler.timeout_ms)
            if handler.rate is not None:
                policy["rate"] = handler.rate.document()
            if handler.concurrency is not None:
                policy["concurrency"] = handler.concurrency
            if handler.breaker is not None:
                policy["breaker"] = handler.breaker.document()
            try:
                await self._until_heard(partial(self._link.declare, queue, handler.type, policy))
            except SchedulerError as error:
                log.warning(
                    "a policy is not taken: others hold", queue=queue, type=handler.type, error=str(error)
                )

    async def _until_heard(self, call: Callable[[], Awaitable[Any]]) -> None:
        """Makes a call until it is answered, or the worker is to stop. Raises what it is refused with."""
        pause = 0.1
        while not self._stop.is_set():
            try:
                await call()
            except (StoreUnavailable, StoreFull) as error:
                self.crew.trouble("", error)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, 1.0)
            else:
                self.crew.well("")
                return


async def work(worker: BaseWorker) -> bool:
    """Runs a worker until it is cancelled, or SIGTERM comes and nobody else listens for it; whether it was cancelled.

    It stops as every worker does: handlers have the grace to finish, what is left is given back; cancelled again, at
    once. The cancellation is kept back, so that what stands around the worker is closed as after any end.
    """
    running = asyncio.create_task(worker.run(), name="worker")
    cancelled = False
    with _on_sigterm(worker.stop):
        while not running.done():
            try:
                await asyncio.shield(running)
            except asyncio.CancelledError:
                if running.done():
                    cancelled = cancelled or not running.cancelled()
                    break
                cancelled = True
                worker.stop()
    await running
    return cancelled


@contextlib.contextmanager
def _on_sigterm(stop: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    free = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if not free:
        yield
        return
    forks.guard()
    loop.add_signal_handler(signal.SIGTERM, stop)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


# -- what an app enqueues while it works so ------------------------------------------------------------------------


class RemoteStore:
    """As much of a store as an app needs to enqueue, look and cancel."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.flows = RemoteFlows(link)

    async def enqueue_each(self, jobs: Sequence[NewJob]) -> list[Enqueued | SchedulerError]:
        return await self._link.enqueue_each(jobs)

    async def enqueue_one(self, job: NewJob) -> Enqueued:
        [outcome] = await self._link.enqueue_each([job])
        if isinstance(outcome, SchedulerError):
            raise outcome
        return outcome

    async def job(self, queue: str, key: str) -> Job:
        return await self._link.look(f"{queue}:{key}")

    async def inspect(self, queue: str, keys: Sequence[str]) -> list[Job | None]:
        found: list[Job | None] = []
        for key in keys:
            try:
                found.append(await self.job(queue, key))
            except NotFound:
                found.append(None)
        return found

    async def open(self, queue: str, key: str) -> str:
        try:
            return (await self._link.open_job(f"{queue}:{key}")).state.value
        except WrongState:
            return "not held"

    async def cancel(self, queue: str, keys: Sequence[str]) -> list[str]:
        states = []
        for key in keys:
            try:
                states.append((await self._link.stop(f"{queue}:{key}")).state.value)
            except WrongState as error:
                states.append(error.state)
        return states


class RemoteFlows:
    """Flows at the other end of a link: `scheduler.flows.Flows` for handles."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def put(self, plan: Plan) -> bool:
        return await self._link.put_flow(plan)

    async def show(self, queue: str, key: str, wait: float = 0) -> FlowShown:
        return await self._link.flow(f"{queue}:{key}", wait)

    async def cancel(self, queue: str, key: str) -> FlowShown:
        return await self._link.act_on_flow(f"{queue}:{key}", "cancel")

    async def replay(self, queue: str, key: str) -> FlowShown:
        return await self._link.act_on_flow(f"{queue}:{key}", "replay")


class RemoteFollower:
    """As much of a follower as `wait_ended` needs: a look that waits at the other end."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @asynccontextmanager
    async def watch(self, queue: str, key: str) -> AsyncIterator[asyncio.Event]:
        happened = asyncio.Event()
        looking = asyncio.create_task(self._look(f"{queue}:{key}", happened))
        try:
            yield happened
        finally:
            await cancel_all([looking])

    async def _look(self, job_id: str, happened: asyncio.Event) -> None:
        while True:
            try:
                ended = State((await self._link.look(job_id, LONGEST_WAIT)).state).ended
            except NotFound:
                ended = True
            except SchedulerError:
                await asyncio.sleep(LOOK_EVERY)
                continue
            if ended:
                happened.set()
                return

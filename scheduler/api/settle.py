"""Settling over HTTP: what became of the jobs a worker holds, all in one pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web
from msgspec import Raw
from msgspec.structs import replace

from ..calling import batches
from ..errors import Duplicate, Fault, Invalid, SchedulerError, StoreFull
from ..fields import AckItem, AddedJobFields, ExtendItem, NackItem, ReleaseItem, SettleFields
from ..job import LONGEST_DELAY_MS, NewJob, faults_of, split_id
from ..joining import Call
from ..logs import get_logger
from ..outcomes import Ack, Bury, Extend, Nack, Note, Release, refusal_of_added
from ..retry import LONGEST_DELAY_MS as LONGEST_RETRY_MS
from ..settings import Settings
from ..shown import SettledShown
from ..store import Store
from .jobs import job_of
from .lease import LEASE_MS, check_worker
from .limits import within
from .parts import BEHIND, PRESENCE, SCHEMAS, SETTINGS, STORE
from .routes import Table, json_answer, large, queue_name

T = TypeVar("T")

log = get_logger(__name__)

table = Table()

MOST_ITEMS = 500
MOST_LINES = 10_000
LONGEST_TEXT = 64 * 1024
"""Bytes of a log line, or of a progress."""
MOST_NUMBER = 10**12
"""What a log line's number can be."""
SHOWN = 500
"""Characters of an error's message in a line of the log."""
CUT = " [cut at 64 KiB]"


@dataclass(slots=True)
class Batch:
    """The items of a call: what is sent to the store, and at its place what each is answered."""

    answers: list[dict[str, Any]] = field(default_factory=list)
    acks: list[tuple[int, Ack]] = field(default_factory=list)
    adding: list[tuple[int, Ack]] = field(default_factory=list)
    """Acks that bring jobs with them."""
    nacks: list[tuple[int, Nack]] = field(default_factory=list)
    buries: list[tuple[int, Bury]] = field(default_factory=list)
    releases: list[tuple[int, Release]] = field(default_factory=list)
    extends: list[tuple[int, Extend]] = field(default_factory=list)
    notes: list[tuple[int, Note]] = field(default_factory=list)

    def place(self, job_id: str) -> int:
        self.answers.append({"id": job_id, "ok": False})
        return len(self.answers) - 1

    def refuse(self, place: int, code: str) -> None:
        self.answers[place] = {"id": self.answers[place]["id"], "ok": False, "code": code}


@table.add("POST", "/v1/queues/{queue}/settle", {200: SettledShown}, body=SettleFields, limit=large)
async def settle(request: web.Request, fields: SettleFields) -> web.Response:
    """End attempts, or go on. Each item is answered for itself: `stale_lease`, `not_found`, `too_large`.

    An ack that adds jobs may be `queue_full`: repeat it a little later, its lease goes on; or `duplicate` or `validation`, which
    `detail` explains: `nack` it.
    """
    queue = queue_name(request, new=True)
    batch = _batch(fields, queue, request.app[SETTINGS])
    if batch.adding:
        await _prepare(request, queue, batch)
    # One whose hands are full asks for nothing, and is there all the same.
    request.app[BEHIND].do(
        request.app[PRESENCE].sign_for(fields.worker, queue, request.app[SETTINGS].lease_ms)
    )
    await _send(request.app[STORE], queue, fields.worker, batch, request.app[SETTINGS])
    _say_failures(batch, fields.worker)
    return json_answer({"items": batch.answers})


def _batch(fields: SettleFields, queue: str, settings: Settings) -> Batch:
    """The calls to be made, in the order of the contract. Raises Invalid with all that is wrong."""
    faults: list[Fault] = []
    check_worker(fields.worker, faults)
    count = len(fields.ack) + len(fields.nack) + len(fields.release) + len(fields.extend)
    if count > MOST_ITEMS:
        raise Invalid([Fault("", f"at most {MOST_ITEMS} items in all, these are {count}")])
    batch = Batch()
    for n, ack in enumerate(fields.ack):
        _ack(batch, ack, f"/ack/{n}", queue, settings, faults)
    for n, nack in enumerate(fields.nack):
        _nack(batch, nack, f"/nack/{n}", queue, faults)
    for n, release in enumerate(fields.release):
        _release(batch, release, f"/release/{n}", queue, faults)
    for n, extend in enumerate(fields.extend):
        _extend(batch, extend, f"/extend/{n}", queue, settings, faults)
    if sum(len(item.log) for item in fields.extend) > MOST_LINES:
        faults.append(Fault("/extend", f"at most {MOST_LINES} log lines in all"))
    if faults:
        raise Invalid(faults)
    return batch


def _held(
    batch: Batch,
    item: AckItem | NackItem | ReleaseItem | ExtendItem,
    path: str,
    queue: str,
    faults: list[Fault],
) -> tuple[int, str | None, int]:
    """Place, key and token of an item; no key for what cannot be a job of this queue."""
    token = int(item.token)
    if item.token != token or not 0 <= token < 2**53:
        faults.append(Fault(f"{path}/token", "expected a whole number from 0 to 9007199254740991"))
    place = batch.place(item.id)
    found = split_id(item.id)
    if found is None or found[0] != queue:
        batch.refuse(place, "not_found")
        return place, None, token
    return place, found[1], token


def _ack(batch: Batch, item: AckItem, path: str, queue: str, settings: Settings, faults: list[Fault]) -> None:
    place, key, token = _held(batch, item, path, queue, faults)
    result = bytes(item.result) if isinstance(item.result, Raw) else b""
    added = [_added(one, f"{path}/add/{n}", settings, faults) for n, one in enumerate(item.add)]
    if len(added) > MOST_ITEMS:
        faults.append(Fault(f"{path}/add", f"at most {MOST_ITEMS} jobs"))
    if len(result) > settings.max_result:
        batch.refuse(place, "too_large")
    elif key is not None and added:
        batch.adding.append((place, Ack(key, token, result, added)))
    elif key is not None:
        batch.acks.append((place, Ack(key, token, result)))


def _added(fields: AddedJobFields, path: str, settings: Settings, faults: list[Fault]) -> NewJob:
    """A job that comes in with an ack. Adds faults under its path."""
    its: list[Fault] = []
    job = job_of(fields, fields.queue, its)
    its += faults_of(job, max_payload=settings.max_payload)
    faults += [Fault(path + fault.path, fault.message) for fault in its]
    return job


async def _prepare(request: web.Request, queue: str, batch: Batch) -> None:
    """What is added is of the flow of who adds it, and fits its schema. Raises Invalid."""
    for place, ack in batch.adding:
        for m, job in enumerate(ack.added):
            try:
                await request.app[SCHEMAS].check(job.queue, job.type, job.payload)
            except Invalid as error:
                # Acks come first: their places are their numbers.
                path = f"/ack/{place}/add/{m}"
                raise Invalid([Fault(path + fault.path, fault.message) for fault in error.faults]) from None
    found = await request.app[STORE].inspect(queue, [ack.key for _, ack in batch.adding])
    batch.adding = [
        (place, replace(ack, added=[replace(job, flow=(of.flow if of else None) or "") for job in ack.added]))
        for (place, ack), of in zip(batch.adding, found, strict=True)
    ]


def _nack(batch: Batch, item: NackItem, path: str, queue: str, faults: list[Fault]) -> None:
    place, key, token = _held(batch, item, path, queue, faults)
    error = item.error
    if not 1 <= len(error.kind) <= 200:
        faults.append(Fault(f"{path}/error/kind", "1 to 200 characters"))
    retry_in = (
        None
        if item.retry_in is None
        else within(item.retry_in, f"{path}/retry_in", 0, LONGEST_RETRY_MS, faults)
    )
    if item.scope is not None and (item.retry_in is None or item.permanent):
        faults.append(Fault(f"{path}/scope", "slows for retry_in, which is missing"))
    if key is None:
        return
    if item.permanent:
        batch.buries.append(
            (place, Bury(key, token, error.kind, error.message, error.trace or "", item.reason))
        )
    else:
        batch.nacks.append(
            (
                place,
                Nack(key, token, error.kind, error.message, error.trace or "", retry_in, item.scope or ""),
            )
        )


def _release(batch: Batch, item: ReleaseItem, path: str, queue: str, faults: list[Fault]) -> None:
    place, key, token = _held(batch, item, path, queue, faults)
    delay = 0 if item.delay is None else within(item.delay, f"{path}/delay", 0, LONGEST_DELAY_MS, faults)
    if key is not None:
        batch.releases.append((place, Release(key, token, delay, item.why or "")))


def _extend(
    batch: Batch, item: ExtendItem, path: str, queue: str, settings: Settings, faults: list[Fault]
) -> None:
    place, key, token = _held(batch, item, path, queue, faults)
    lease = (
        settings.lease_ms if item.lease is None else within(item.lease, f"{path}/lease", *LEASE_MS, faults)
    )
    for name, most in (("progress", LONGEST_TEXT), ("checkpoint", settings.max_result)):
        value = getattr(item, name)
        if isinstance(value, Raw) and len(bytes(value)) > most:
            faults.append(Fault(f"{path}/{name}", f"at most {most} bytes"))
    if len(item.log) > 1000:
        faults.append(Fault(f"{path}/log", "at most 1000 lines, as many as are kept"))
    first = 0 if item.log_from is None else int(item.log_from)
    if item.log_from is not None and not (first == item.log_from and 1 <= first <= MOST_NUMBER):
        faults.append(Fault(f"{path}/log_from", f"expected a whole number from 1 to {MOST_NUMBER}"))
    if key is None:
        return
    batch.extends.append((place, Extend(key, token, lease)))
    for name in ("progress", "checkpoint"):
        value = getattr(item, name)
        if isinstance(value, Raw):
            batch.notes.append((place, Note(key, token, name, bytes(value))))
    batch.notes += [
        (place, Note(key, token, "log", _line(text), first + n if first else 0))
        for n, text in enumerate(item.log)
    ]


def _line(text: str) -> bytes:
    line = text.encode()
    if len(line) > LONGEST_TEXT:
        line = line[: LONGEST_TEXT - len(CUT)].decode(errors="ignore").encode() + CUT.encode()
    return line


async def _send(store: Store, queue: str, worker: str, batch: Batch, settings: Settings) -> None:
    """Makes the calls in one pipeline and writes down what each item is answered."""
    patience = settings.no_handler_after_ms
    planned: list[tuple[Sequence[int], Call[Any]]] = [
        *_calls(batch.acks, lambda a: len(a.result), lambda acks: store.ack_call(queue, acks, worker=worker)),
        *(([place], store.ack_add_call(queue, ack, worker=worker)) for place, ack in batch.adding),
        *_calls(batch.nacks, _weight, lambda items: store.nack_call(queue, items, worker=worker)),
        *_calls(batch.buries, _weight, lambda items: store.bury_call(queue, items, worker=worker)),
        *_calls(
            batch.releases, lambda _: 0,
            lambda items: store.release_call(queue, items, worker=worker, no_handler_after_ms=patience),
        ),
        *_calls(batch.extends, lambda _: 0, lambda items: store.extend_call(queue, items)),
        *_calls(batch.notes, lambda note: len(note.value), lambda items: store.note_call(queue, items)),
    ]  # fmt: skip
    if not planned:
        return
    replies = await store.run_all([call for _, call in planned])
    for (places, call), reply in zip(planned, replies, strict=True):
        if isinstance(reply, StoreFull) and call.script == "note":
            # The lease is extended all the same; what there was no room for is named.
            for place in places:
                batch.answers[place]["code"] = "store_full"
        elif isinstance(reply, SchedulerError):
            # What was carried out before it is answered as done when the call is repeated.
            raise reply
        elif call.script == "ack_add":
            _note_adding(batch.answers[places[0]], *reply)
        else:
            for place, outcome in zip(places, reply, strict=True):
                _note_outcome(batch.answers[place], outcome)


def _calls(
    items: Sequence[tuple[int, T]], weight: Callable[[T], int], call: Callable[[Sequence[T]], Call[list[str]]]
) -> list[tuple[Sequence[int], Call[list[str]]]]:
    return [
        ([place for place, _ in some], call([item for _, item in some]))
        for some in batches(items, lambda placed: weight(placed[1]) + 200)
    ]


def _weight(failure: Nack | Bury) -> int:
    return len(failure.message) + len(failure.trace)


def _say_failures(batch: Batch, worker: str) -> None:
    """A line of the log for each attempt that failed and each job that died, which a worker in another language need not write."""
    failures: list[tuple[int, Nack | Bury]] = [*batch.nacks, *batch.buries]
    for place, failure in failures:
        answer = batch.answers[place]
        said = {
            "job": answer["id"],
            "worker": worker,
            "kind": failure.kind,
            "message": failure.message[:SHOWN],
        }
        if answer.get("state") == "dead":
            log.error("a job is dead", **said)
        elif answer["ok"]:
            log.info("an attempt failed", **said, next=answer["state"])
    for place, _ in batch.releases:
        if batch.answers[place].get("state") == "dead":
            log.error("a job is dead", job=batch.answers[place]["id"], worker=worker, reason="no_handler")


def _note_adding(answer: dict[str, Any], outcome: str, its_id: str) -> None:
    error = refusal_of_added(outcome, its_id)
    if outcome == "full":
        answer |= {
            "ok": False,
            "code": "queue_full",
            "detail": f"the added job {its_id}: its queue has no room",
        }
    elif error is not None:
        code = "duplicate" if isinstance(error, Duplicate) else "validation"
        answer |= {"ok": False, "code": code, "detail": f"the added job {its_id}: {error}"}
    else:
        _note_outcome(answer, outcome)


def _note_outcome(answer: dict[str, Any], outcome: str) -> None:
    if outcome in {"stale", "missing"}:
        answer |= {"ok": False, "code": "stale_lease" if outcome == "stale" else "not_found"}
        answer.pop("state", None)
        answer.pop("cancel", None)
    elif outcome == "cancel":
        answer |= {"ok": True, "state": "running", "cancel": True}
    else:
        answer |= {"ok": True, "state": outcome}

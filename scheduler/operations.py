"""Acts over all jobs of a queue that match: page by page, once, whoever carries them on when a process dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Literal

import msgspec
import orjson
from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.structs import replace

from .calling import BATCH, BATCH_BYTES, batches
from .errors import NotFound, Outrun, SchedulerError, StoreFull, StoreUnavailable, WrongState
from .job import Job, NewJob, State, new_key
from .limits import Rate
from .logs import get_logger
from .merging import merged
from .outcomes import Operation, OperationPage
from .producing import weight_of
from .reading import key_at
from .schemas import Schemas
from .store import Store
from .tasks import cancel_all
from .times import rfc3339
from .upkeep import Duty

log = get_logger(__name__)

Act = Literal["cancel", "purge", "run", "replay"]

PAGE = 500
"""Jobs in one page."""

MOST_PATCH = 64 * 1024
"""Bytes of a payload patch: the record of its operation has it, and is written with every page."""

EDITED_PAGE = 25
"""Jobs in one page when payloads are read and written."""

BURST = 0.25
"""Seconds' worth of jobs that a replay at a rate makes ready at once."""

RENEW = 5.0
"""Seconds after which who carries an operation says so again; after 15 without a sign another one may take it."""

WATCH = 10.0
"""Seconds that a page of a replay that stops after failures waits for its jobs to run."""

WHERE: dict[str, tuple[State, ...]] = {
    # Twice where a job may come back to while the others are looked at.
    "cancel": (
        State.SCHEDULED, State.BLOCKED, State.RETRYING, State.READY, State.RUNNING,
        State.SCHEDULED, State.RETRYING, State.READY,
    ),
    "purge": (
        State.SCHEDULED, State.BLOCKED, State.RETRYING, State.READY, State.SUCCEEDED, State.CANCELLED, State.DEAD,
    ),
    "run": (State.SCHEDULED, State.RETRYING),
    "replay": (State.DEAD,),
}  # fmt: skip
"""The states in which an act finds jobs."""


class Plan(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What an operation is to do, as its record keeps it. Empty texts and None: whatever it is.

    A field that this release does not know is refused: a filter that is passed over would act on too much.
    """

    act: Act
    states: tuple[str, ...]
    type: str = ""
    group: str = ""
    tag: str = ""
    error: str = ""
    kind: str = ""
    fingerprint: str = ""
    before_ms: int | None = None
    """Ended before then; what has not ended: created before then."""
    age_ms: int | None = None
    """At least so long ago, when the operation begins, by the server's clock."""
    ids: tuple[str, ...] = ()
    """The keys of jobs, instead of a filter."""
    limit: int | None = None
    dry_run: bool = False
    """Only count."""
    rate: Rate | None = None
    payload_patch: Raw | UnsetType = UNSET
    to_queue: str = ""
    max_payload: int | None = None
    stop_after_failures: int | None = None

    @property
    def edits(self) -> bool:
        return isinstance(self.payload_patch, Raw) or bool(self.to_queue)

    @property
    def looks(self) -> tuple[str, ...]:
        """The states in the order in which they are looked at. To count, once is enough: nothing moves by it."""
        return tuple(dict.fromkeys(self.states)) if self.dry_run else self.states


def plan_of(operation: Operation) -> Plan:
    """What an operation is to do. Raises WrongState for the record of a release that knows more."""
    try:
        return msgspec.json.decode(operation.plan, type=Plan)
    except msgspec.DecodeError as error:
        raise WrongState(
            f"operation {operation.id} is not understood here: {error}", operation.state
        ) from None


class _Glimpse(Struct, frozen=True):
    """What every release can read of a plan."""

    act: str = ""
    dry_run: bool = False


def _seen(operation: Operation) -> Plan | _Glimpse:
    try:
        return plan_of(operation)
    except WrongState:
        try:
            return msgspec.json.decode(operation.plan, type=_Glimpse)
        except msgspec.DecodeError:
            return _Glimpse()


Still = Callable[[], Awaitable[bool]]
"""Whether this process still carries an operation; says so at the same time."""


class _Rest(Struct, frozen=True):
    """Where an operation goes on: after each of its page's jobs, after all of them; whether it ends with the page."""

    places: list[str]
    cursor: str
    last: bool


class _Enough(SchedulerError):
    """So many of the replayed jobs failed again that the operation ends."""


class _Watched:
    """Jobs that an operation has replayed, until they have ended: how many of them failed again."""

    def __init__(self, store: Store, operation: Operation, queue: str) -> None:
        self._store, self._operation, self._queue = store, operation, queue
        self._open: list[str] = []
        self._failed = 0

    async def failures(self, acted: Sequence[str], still: Still) -> int:
        """Failures so far, after the jobs of this page have run, or have had WATCH seconds for it."""
        self._open = [*self._open, *acted][-PAGE:]
        fresh, ends = set(acted), asyncio.get_running_loop().time() + WATCH
        while True:
            jobs = await self._store.inspect(self._queue, self._open)
            found = {key: job for key, job in zip(self._open, jobs, strict=True) if job is not None}
            failed = [key for key, job in found.items() if self._has_failed(job)]
            self._failed += len(failed)
            self._open = [
                key for key, job in found.items() if key not in failed and not State(job.state).ended
            ]
            if not fresh & set(self._open) or asyncio.get_running_loop().time() > ends:
                return self._failed
            await asyncio.sleep(0.25)
            if not await still():
                raise Outrun("the operation has ended, or is carried by another process")

    def _has_failed(self, job: Job) -> bool:
        return bool(job.errors) and job.errors[-1].at_ms > self._operation.began_at


def document(operation: Operation) -> dict[str, Any]:
    """An operation as documents show it."""
    plan, asked = _seen(operation), dict[str, str]()
    if isinstance(plan, Plan):
        asked = {
            "state": plan.states[0] if len(plan.states) == 1 else "",
            "type": plan.type, "group": plan.group, "tag": plan.tag, "error": plan.error, "kind": plan.kind,
            "fingerprint": plan.fingerprint, "before": "" if plan.before_ms is None else rfc3339(plan.before_ms),
        }  # fmt: skip
    return {
        "id": f"{operation.queue}:{operation.id}",
        "act": plan.act,
        "queue": operation.queue,
        "state": operation.state,
        "matched": operation.matched,
        "done": operation.done,
        "failed": 0 if plan.dry_run else operation.matched - operation.done,
        "error": operation.error,
        "dry_run": plan.dry_run,
        "filter": {name: value for name, value in asked.items() if value},
        "created_at": rfc3339(operation.began_at),
        "updated_at": rfc3339(operation.updated_at),
    }


class Operations:
    """Begins operations and carries them, in this process, until they have ended."""

    def __init__(self, store: Store, carrier: str, schemas: Schemas | None = None) -> None:
        self._store = store
        self._schemas = schemas or Schemas(store)
        self._carrier = carrier
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._missed: set[tuple[str, str]] = set()
        self._untold: set[tuple[str, str]] = set()

    async def begin(self, queue: str, plan: Plan, *, its_id: str | None = None) -> Operation:
        """A new operation that nobody but this process carries for now.

        Raises NotFound when there is no such queue, WrongState while 100 are under way there.
        """
        its_id = its_id or new_key()
        # The hint first: who dies after the next call leaves what others find.
        await self._tell(queue, its_id)
        made = msgspec.json.encode(plan)
        outcome, operation = await self._store.operate(
            "begin", queue, its_id, carrier=self._carrier, value=made
        )
        if operation is not None:
            return operation
        await self._store.tell_operation(queue, its_id, ended=True)
        if outcome == "full":
            raise WrongState(
                f"100 operations are under way on {queue}: wait for them, or cancel some", "running"
            )
        raise NotFound(f"there is no queue {queue!r}")

    async def _tell(self, queue: str, its_id: str) -> None:
        """The hint for others. A full server has no room for it: then it is told after a page that has made some."""
        try:
            await self._store.tell_operation(queue, its_id)
        except StoreFull:
            self._untold.add((queue, its_id))
        else:
            self._untold.discard((queue, its_id))

    async def pages(self, operation: Operation) -> AsyncGenerator[Operation]:
        """Carries it to its end; its record after each page.

        Ends early when somebody else carries it, or cancelled it. Raises StoreUnavailable: then it waits for whoever
        carries it on.
        """
        plan = plan_of(operation)
        watched = _Watched(self._store, operation, plan.to_queue or operation.queue)
        acted: list[str] = []
        while True:
            try:
                await self._between(operation, plan, watched, acted)
                operation, acted = await self._page(operation, plan)
            except Outrun:
                acted = []
                operation, mine = await self._read_again(operation)
                if mine:
                    continue
                yield operation
                return
            except StoreUnavailable:
                raise
            except SchedulerError as error:
                yield await self._fail(operation, str(error))
                return
            if operation.ended:
                await self._end(operation)
            elif (operation.queue, operation.id) in self._untold:
                await self._tell(operation.queue, operation.id)
            yield operation
            if operation.ended:
                return

    async def to_its_end(self, operation: Operation) -> AsyncGenerator[Operation]:
        """The same, and where somebody else has taken it over, what he does with it, until it has ended."""
        while True:
            async for operation in self.pages(operation):  # noqa: B020, PLR1704 - the last one counts
                yield operation
            mine = False
            while not operation.ended and not mine:
                await asyncio.sleep(1)
                operation, mine = await self._read_again(operation)
                yield operation
            if operation.ended:
                return

    async def _between(
        self, operation: Operation, plan: Plan, watched: _Watched, acted: Sequence[str]
    ) -> None:
        """What a page waits for that is not the first. Raises Outrun, or _Enough when too many have failed again."""
        if not acted:
            return
        still = self._still(operation)
        if plan.stop_after_failures is not None:
            failures = await watched.failures(acted, still)
            if failures >= plan.stop_after_failures:
                raise _Enough(f"stopped: {failures} of the jobs that it replayed have failed again")
        if plan.rate is not None:
            await _rest(plan.rate.pause * len(acted), still)

    async def first_page(self, operation: Operation) -> Operation:
        """Carries out its first page: its record then."""
        async with aclosing(self.pages(operation)) as pages:
            return await anext(pages)

    def carry_behind(self, operation: Operation) -> None:
        """Carries it on while the caller goes on. Trouble is left to whoever looks after operations next."""
        name = operation.queue, operation.id
        if name in self._tasks or operation.ended:
            return

        async def carry() -> None:
            try:
                async for _ in self.pages(operation):
                    pass
            except NotFound as error:
                log.info("an operation has ended", operation=":".join(name), error=str(error))
            except SchedulerError as error:
                log.warning(
                    "an operation was left, to be carried on", operation=":".join(name), error=str(error)
                )
            finally:
                self._tasks.pop(name, None)

        self._tasks[name] = asyncio.create_task(carry(), name=f"operation {':'.join(name)}")

    def duty(self) -> Duty:
        """Carries on what nobody does: its process died, or lost the store."""
        return Duty("operations", RENEW, self._carry_on)

    async def _carry_on(self) -> None:
        missed: set[tuple[str, str]] = set()
        for name in list(self._untold):
            await self._tell(*name)
        for name in (await self._store.operations_told() | self._untold) - set(self._tasks):
            queue, its_id = name
            known = await self._store.operation(queue, its_id)
            if known is not None and not known.ended and isinstance(_seen(known), _Glimpse):
                # A newer release began it: who carries it must understand it.
                continue
            outcome, operation = await self._store.operate("carry", queue, its_id, carrier=self._carrier)
            if operation is not None and outcome == "carried":
                log.info("carries on an operation", operation=f"{queue}:{its_id}")
                self.carry_behind(operation)
            elif outcome == "missing" and name not in self._missed:
                # It may be about to begin.
                missed.add(name)
            elif outcome in {"missing", "ended"}:
                self._untold.discard(name)
                await self._store.tell_operation(queue, its_id, ended=True)
        self._missed = missed

    async def idle(self) -> None:
        """Returns when this process carries nothing any more."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def close(self) -> None:
        """Leaves what is under way to others."""
        await cancel_all(list(self._tasks.values()))

    # -- one page ---------------------------------------------------------------------------------------------

    async def _page(self, operation: Operation, plan: Plan) -> tuple[Operation, list[str]]:
        """Finds the next page and acts on it in one step with the record. Raises Outrun."""
        keys, rest = await self._found(operation, plan)
        jobs: list[NewJob] = []
        matched = len(keys)
        if plan.edits and keys and not plan.dry_run:
            keys, jobs, rest, matched = await self._edited(operation.queue, plan, keys, rest)
        page = OperationPage(operation.id, operation.page, matched, rest.cursor, rest.last)
        store, queue = self._store, operation.queue
        if plan.to_queue and jobs:
            keys = await self._moved(plan.to_queue, jobs)
        if plan.dry_run or not keys:
            await store.operate("turn", queue, page)
        elif plan.act == "cancel":
            await store.cancel(queue, keys, page=page)
        elif plan.act == "purge" or plan.to_queue:
            await store.purge(queue, keys, state=self._state(operation, plan), page=page)
        elif plan.act == "run":
            await store.promote_ids(queue, keys, page=page)
        else:
            items = [(job.key, job.payload) for job in jobs] if plan.edits else [(key, None) for key in keys]
            await store.replay(queue, items, before_ms=operation.began_at, page=page)
        now = await store.operation(queue, operation.id)
        if now is None:
            raise Outrun(operation.id)
        # Nothing waits for what was only counted.
        return now, [] if plan.dry_run else keys

    def _state(self, operation: Operation, plan: Plan) -> str:
        """The state whose page this is. What was in it and has left it since is not purged; ids are taken as they stand."""
        if plan.ids:
            return plan.states[0] if len(plan.states) == 1 else ""
        return plan.states[int(operation.cursor.partition("|")[0] or 0)]

    async def _found(self, operation: Operation, plan: Plan) -> tuple[list[str], _Rest]:
        size = PAGE
        if not plan.dry_run:
            size = EDITED_PAGE if plan.edits else size
            size = size if plan.rate is None else max(1, min(size, int(BURST / plan.rate.pause)))
            size = min(size, plan.stop_after_failures or size)
        room = size if plan.limit is None else min(size, plan.limit - operation.matched)
        at, _, after = operation.cursor.partition("|")
        begin, looks = int(at or 0), plan.looks
        if plan.ids:
            some = list(plan.ids[begin : begin + room])
            end = begin + len(some)
            return some, _Rest([str(begin + n + 1) for n in range(len(some))], str(end), end >= len(plan.ids))
        last_ms = operation.began_at + 1
        before = last_ms if plan.before_ms is None else min(last_ms, plan.before_ms)
        if plan.age_ms is not None:
            before = min(before, last_ms - plan.age_ms)
        found, cursor = await self._store.run_sure(
            self._store.list_call(
                operation.queue, looks[begin], after=after, limit=max(1, room), type=plan.type, group=plan.group,
                tag=plan.tag, error=plan.error, kind=plan.kind, fingerprint=plan.fingerprint, before_ms=before,
            )
        )  # fmt: skip
        places = [f"{begin}|{place}" for place in found]
        full = plan.limit is not None and operation.matched + len(found) >= plan.limit
        ended = not cursor and begin + 1 >= len(looks)
        return [key_at(place) for place in found], _Rest(
            places, f"{begin}|{cursor}" if cursor else f"{begin + 1}|", full or ended
        )

    async def _edited(
        self, queue: str, plan: Plan, keys: Sequence[str], rest: _Rest
    ) -> tuple[list[str], list[NewJob], _Rest, int]:
        """The jobs of a page as they will be, as many as one call takes; what cannot be is left out, and matched."""
        found = await self._store.inspect(queue, keys, payload=True)
        made = [await self._changed(plan, job) for job in found]
        first = next(iter(batches(range(len(made)), lambda n: _weight(made[n]), BATCH, BATCH_BYTES)))
        jobs = [job for n in first if (job := made[n]) is not None]
        if len(first) < len(made):
            rest = _Rest(rest.places, rest.places[first[-1]], last=False)
        return [job.key for job in jobs], jobs, rest, len(first)

    async def _changed(self, plan: Plan, job: Job | None) -> NewJob | None:
        if job is None or job.state != State.DEAD or job.payload is None:
            return None
        made = replace(job.like(job.id.partition(":")[2]), queue=plan.to_queue or job.queue)
        if isinstance(plan.payload_patch, Raw):
            try:
                made = replace(made, payload=merged(made.payload, bytes(plan.payload_patch)))
                await self._schemas.check(made.queue, made.type, made.payload)
            except ValueError:  # Invalid is one
                return None
        return None if plan.max_payload is not None and len(made.payload) > plan.max_payload else made

    async def _moved(self, queue: str, jobs: Sequence[NewJob]) -> list[str]:
        """Enqueues into another queue, under the same keys, so that a repetition finds them; the keys that stand there."""
        outcomes = await self._store.enqueue(queue, jobs)
        return [
            job.key
            for job, outcome in zip(jobs, outcomes, strict=True)
            if outcome.outcome in {"ready", "scheduled", "exists"}
        ]

    # -- between pages ----------------------------------------------------------------------------------------

    def _still(self, operation: Operation) -> Still:
        async def still() -> bool:
            outcome, _ = await self._store.operate(
                "carry", operation.queue, operation.id, carrier=self._carrier
            )
            return outcome == "carried"

        return still

    async def _read_again(self, operation: Operation) -> tuple[Operation, bool]:
        """Somebody else has gone on with it: as it stands now, and whether it is ours again."""
        outcome, now = await self._store.operate(
            "carry", operation.queue, operation.id, carrier=self._carrier
        )
        if now is None:
            raise NotFound(f"operation {operation.queue}:{operation.id} is gone, with its queue")
        return now, outcome == "carried"

    async def _end(self, operation: Operation) -> None:
        self._untold.discard((operation.queue, operation.id))
        await self._store.tell_operation(operation.queue, operation.id, ended=True)

    async def _fail(self, operation: Operation, why: str) -> Operation:
        value = orjson.dumps(why[:1_000].encode("utf-8", "replace").decode())
        _, now = await self._store.operate("fail", operation.queue, operation.id, value=value)
        if now is None:
            raise NotFound(f"operation {operation.queue}:{operation.id} is gone: {why}")
        await self._end(now)
        return now


async def _rest(seconds: float, still: Still) -> None:
    """Waits, and says now and then that it still carries. Raises Outrun when it does not any more."""
    while seconds > 0:
        await asyncio.sleep(min(seconds, RENEW))
        seconds -= RENEW
        if not await still():
            raise Outrun("the operation has ended, or is carried by another process")


def _weight(job: NewJob | None) -> int:
    return 0 if job is None else weight_of(job)

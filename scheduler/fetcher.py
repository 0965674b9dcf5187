"""One queue's line in a worker: claims into free slots, runs what was claimed, tells what came of it."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any

from .calling import BATCH, batches
from .context import Context
from .doorbell import Doorbell
from .errors import ItemRefused, QueueFull, SchedulerError, StoreFull, StoreRefused, StoreUnavailable
from .execute import Places, execute
from .handlers import Handlers
from .job import Claimed, Job
from .joining import Call
from .logs import get_logger
from .notes import Notes
from .outcome_log import OutcomeLog
from .outcomes import Ack, Bury, Claim, Extend, Nack, Note, Release, Settlement, refusal_of_added
from .settings import Settings
from .store import Store
from .tasks import Signal

log = get_logger(__name__)

ABANDON_AFTER = 5.0
"""Seconds of grace after its timeout for a handler that swallows its cancellation; then its slot is taken back."""

UNTELLABLE = "OutcomeRefused"
"""The kind of a failure that stands for an outcome which the server does not take."""


class Crew:
    """What the fetchers of one worker share: the slots, and whether it is time to stop."""

    def __init__(
        self,
        handlers: Handlers,
        settings: Settings,
        *,
        name: str,
        concurrency: int,
        tell: Callable[[Claimed, str, Any], None],
    ) -> None:
        self.handlers, self.settings, self.name = handlers, settings, name
        self.tell = tell
        self.places = Places(max_jobs=settings.process_max_jobs)
        every = list(handlers or ())
        queues = {handler.queue for handler in every}
        self._in_processes = {
            queue for queue in queues if all(one.process for one in every if one.queue == queue)
        }
        """Queues whose jobs have processes of their own."""
        self.fetchers: dict[str, Line] = {}
        self.free = self.concurrency = concurrency
        self.stopping = False
        self.giving_up = asyncio.Event()
        self.outcomes = OutcomeLog(handlers, self.places.threads, successes=settings.log_level == "debug")
        self.abandoned = 0
        """Handlers that did not stop when they had to, since the start."""
        self._waiting: deque[tuple[Line, Running, bool]] = deque()
        """Attempts that have not begun, and whether each must run without company."""
        self._begun = 0
        self._alone: Running | None = None
        self._in_trouble: set[str] = set()

    # -- company ----------------------------------------------------------------------------------------------------

    def admit(self, line: Line, running: Running) -> None:
        """Starts an attempt, or lets it wait: a job whose last run crashed runs without company in this process.

        If it ends the process again, it takes no other job with it. A handler with a process of its own is alone anyway.
        """
        handler = self.handlers.get(running.context.type)
        in_process = handler is not None and handler.process
        if in_process and not self.places.processes.reserve():
            # Of a queue that has such jobs among others more may come than there are places: another worker may have one.
            line.end(running, Release(running.claimed.key, running.claimed.token, 1_000))
            return
        running.has_place = in_process
        suspect = running.claimed.crashes > 0 and not in_process
        self._waiting.append((line, running, suspect))
        self._start_waiting()

    def left(self, running: Running) -> None:
        """An attempt has ended."""
        if running.has_place:
            self.places.processes.give_back_place()
        if running.task is None:
            self._waiting = deque(one for one in self._waiting if one[1] is not running)
        else:
            self._begun -= 1
        if self._alone is running:
            self._alone = None
        self._start_waiting()

    def _start_waiting(self) -> None:
        while self._waiting and self._alone is None:
            line, running, suspect = self._waiting[0]
            if suspect and self._begun:
                return
            self._waiting.popleft()
            self._begun += 1
            if suspect:
                self._alone = running
            running.task = asyncio.create_task(line.attempt(running))

    @property
    def keeps_apart(self) -> bool:
        """A job runs, or waits to run, without company: nothing more is claimed meanwhile."""
        return self._alone is not None or bool(self._waiting)

    def reserve(self, fetcher: Line) -> int:
        """Takes free slots for a claim: what is left of this queue's share of all slots.

        Queues that have nothing to do have no share meanwhile. Of queues that wait for the same few slots, the one
        comes first that has begun the fewest jobs for its weight (stride scheduling, Waldspurger and Weihl 1995).
        """
        if self.keeps_apart:
            return 0
        busy = [other for other in self.fetchers.values() if other is fetcher or not other.idling]
        weights = sum(other.weight for other in busy)
        wanted = min(self.free, BATCH, self._entitled(fetcher, weights))
        if wanted > 0:
            # Who has his whole share, of long jobs for example, takes no more: nothing is kept for him.
            behind = [
                other
                for other in busy
                if other.starved and other.pace < fetcher.pace and self._entitled(other, weights) > 0
            ]
            wanted = min(wanted, self.free - len(behind))
            if wanted <= 0:
                self._wake(behind)
        if fetcher.queue in self._in_processes:
            # No more is claimed than can begin.
            others = sum(
                other.reserved for other in self.fetchers.values() if other.queue in self._in_processes
            )
            wanted = min(wanted, self.places.processes.free - others)
        wanted = max(0, wanted)
        self.free -= wanted
        return wanted

    def _entitled(self, fetcher: Line, weights: int) -> int:
        """Slots that it has not of its share, where the queues with work weigh so much together."""
        return -(-self.concurrency * fetcher.weight // weights) - fetcher.used

    def give_back(self, count: int) -> None:
        """Frees slots, and wakes who waits for one."""
        if count <= 0:
            return
        self.free += count
        self._wake(fetcher for fetcher in self.fetchers.values() if fetcher.starved)

    def idle(self, fetcher: Line) -> None:
        """This queue has nothing to do: its share is the others'."""
        fetcher.idling = True
        self._wake(other for other in self.fetchers.values() if other.starved)

    def busy(self, fetcher: Line) -> None:
        """This queue may have work again; what it did not use while it had none is not made up for.

        It goes on behind all that have work: two that hear rings and find nothing would else keep a third from its turn.
        """
        fetcher.idling = False
        others = [other.pace for other in self.fetchers.values() if other is not fetcher and not other.idling]
        fetcher.pace = max(fetcher.pace, *others, 0.0)

    @staticmethod
    def _wake(fetchers: Iterable[Line]) -> None:
        for fetcher in fetchers:
            fetcher.changed.set()

    def trouble(self, queue: str, error: SchedulerError) -> None:
        """Says once that the store fails, not at every try."""
        if queue not in self._in_trouble:
            self._in_trouble.add(queue)
            log.warning(
                "the store fails; handlers run on, and outcomes are told when it is back",
                queue=queue,
                error=str(error),
            )

    def well(self, queue: str) -> None:
        """Says once that it is back."""
        if queue in self._in_trouble:
            self._in_trouble.discard(queue)
            log.info("the store is back", queue=queue)


class Running:
    """One attempt in this process."""

    __slots__ = ("claimed", "context", "has_place", "lines", "lost_at", "started", "task")

    def __init__(self, claimed: Claimed, context: Context) -> None:
        self.claimed = claimed
        self.context = context
        self.started = monotonic()
        self.lines = itertools.count(1)
        """Numbers of its log lines."""
        self.lost_at: float | None = None
        self.task: asyncio.Task[None] | None = None
        self.has_place = False
        """It has a place among the processes."""


class Line:
    """One queue's line: what runs, what is finished and not yet told, and how many slots a claim has reserved."""

    def __init__(self, crew: Crew, queue: str, weight: int = 1) -> None:
        self.crew = crew
        self.queue = queue
        self.weight = weight
        """Its share of the slots, beside those of the other queues that have work."""
        self.pace = 0.0
        """Jobs begun, divided by the weight."""
        self.idling = False
        """It was told that there is nothing to do, and waits for the bell."""
        self.running: dict[int, Running] = {}
        """By token: a job whose lease was lost may be here twice, and each attempt ends on its own."""
        self.settled: list[Settlement] = []
        self.notes = Notes()
        self.singly: set[int] = set()
        """Tokens of which each item is sent in a call of its own: the server has refused one of several."""
        self.unsure: set[int] = set()
        """Tokens of what was told in a turn whose replies were lost."""
        self.changed = Signal()
        self.starved = False
        """It waits for a free slot, not for a job."""
        self.reserved = 0
        """Slots kept for the claim under way; its answer may be late, but not lost: the same turn is asked again."""

    async def run(self) -> None:
        """Fills slots and tells outcomes, until the worker stops and everything is told."""
        raise NotImplementedError

    async def back_off(self, error: SchedulerError, pause: float) -> float:
        """Waits before the next try, longer each time. What was surely not claimed needs no slots meanwhile."""
        self.crew.trouble(self.queue, error)
        if not (isinstance(error, StoreUnavailable) and error.unknown):
            self.crew.give_back(self.reserved)
            self.reserved = 0
        self.crew.idle(self)
        await self.nap(pause * random.uniform(0.5, 1.0))
        self.crew.busy(self)
        return min(pause * 2, 1.0)

    @property
    def used(self) -> int:
        """Slots that it has now."""
        return len(self.running) + self.reserved

    @property
    def done(self) -> bool:
        return self.crew.stopping and not (self.running or self.settled or self.reserved)

    async def nap(self, seconds: float) -> None:
        """A pause that stopping ends."""
        if self.crew.giving_up.is_set():
            await asyncio.sleep(min(seconds, 0.05))
            return
        try:
            async with asyncio.timeout(seconds):
                await self.crew.giving_up.wait()
        except TimeoutError:
            pass

    def begin(self, claim: Claim) -> None:
        """Starts what was claimed, or gives it back at once when the worker stops by now."""
        crew = self.crew
        self.pace += len(claim.jobs) / self.weight
        for claimed in claim.jobs:
            if crew.stopping:
                self.settled.append(Release(claimed.key, claimed.token))
                crew.give_back(1)
                continue
            running = Running(claimed, Context(claimed, crew.tell, crew.settings))
            self.running[claimed.token] = running
            crew.admit(self, running)

    async def attempt(self, running: Running) -> None:
        """One attempt: run it, hand its outcome to the next turn, free its slot."""
        claimed, crew = running.claimed, self.crew
        settlement: Settlement | None = None
        try:
            if claimed.record is not None and claimed.record.rule("a") is not None:
                running.context.take_parents(await self.parents_of(claimed))
            settlement = await execute(
                claimed,
                running.context,
                crew.handlers,
                crew.places,
                max_result=crew.settings.max_result,
            )
        except StoreUnavailable:
            # What it waited for could not be read: it has not begun.
            settlement = Release(claimed.key, claimed.token, delay_ms=1_000)
        except asyncio.CancelledError:
            settlement = None if running.context.lost else Release(claimed.key, claimed.token)
        except BaseException as error:  # nothing that one attempt meets ends another one
            log.exception("an attempt failed outside its handler", job=claimed.id)
            settlement = Nack(
                claimed.key, claimed.token, type(error).__name__, "the worker failed: see its log"
            )
        finally:
            self.end(running, settlement)

    async def parents_of(self, claimed: Claimed) -> Mapping[str, bytes | None]:
        """Id -> result (JSON) of the jobs that it waited for. Raises StoreUnavailable."""
        raise NotImplementedError

    def end(self, running: Running, settlement: Settlement | None) -> None:
        """Takes an attempt out; one that was abandoned or lost before has nothing more to say."""
        if self.running.pop(running.claimed.token, None) is None:
            return
        if settlement is not None:
            self.settled.append(settlement)
            self.crew.outcomes.expect(running.claimed, settlement)
        self.crew.left(running)
        self.crew.give_back(1)
        self.changed.set()

    async def due_times(self, keys: Sequence[str]) -> list[float | None]:
        """In how many seconds retrying jobs run again; None for unknown."""
        return [None] * len(keys)

    async def found(self, keys: Sequence[str]) -> list[Job | None]:
        """Jobs as they stand; None for unknown."""
        return [None] * len(keys)

    def lose(self, token: int) -> None:
        """The lease is somebody else's: stop the handler and tell nothing."""
        running = self.running.get(token)
        if running is None or running.context.lost:
            return
        log.warning("lease lost", job=running.claimed.id)
        running.context.lost = running.context.cancelled = True
        running.lost_at = monotonic()
        if running.task is not None:
            running.task.cancel()
        else:  # it has not begun
            self.end(running, None)

    def stop_job(self, token: int) -> None:
        """Somebody asked the job to stop."""
        running = self.running.get(token)
        if running is None or running.context.cancelled:
            return
        running.context.cancelled = True
        if running.task is not None:
            running.task.cancel()
        else:
            self.end(running, Release(running.claimed.key, running.claimed.token))

    def abandon_overdue(self, now: float) -> None:
        """Takes back the slots of handlers that did not stop at their timeout, or when they were cancelled."""
        for running in list(self.running.values()):
            claimed = running.claimed
            overdue = now - running.started > claimed.timeout_ms / 1000 + ABANDON_AFTER
            if overdue or (running.lost_at is not None and now - running.lost_at > ABANDON_AFTER):
                log.error("abandoned a handler that does not stop", job=claimed.id)
                self.crew.abandoned += 1
                message = f"did not stop at its timeout of {claimed.timeout_ms / 1000:g} s; abandoned"
                self.end(
                    running,
                    None
                    if running.context.lost
                    else Nack(claimed.key, claimed.token, "TimeoutError", message),
                )


class Fetcher(Line):
    """A line whose queue is in a store: its turns are pipelines, and a bell says when there may be work."""

    def __init__(
        self,
        crew: Crew,
        queue: str,
        weight: int = 1,
        *,
        store: Store,
        doorbell: Doorbell,
        sweep_soon: Callable[[str], None],
        relay_soon: Callable[[str], None],
    ) -> None:
        super().__init__(crew, queue, weight)
        self.store, self.doorbell = store, doorbell
        self.sweep_soon, self.relay_soon = sweep_soon, relay_soon
        self.refusal: SchedulerError | None = None
        """What a call of the last turn was refused with."""
        self.turn = 1

    async def run(self) -> None:
        pause, rung = 0.05, False
        while not self.done:
            self.changed.clear()
            if self.reserved == 0 and not self.crew.stopping:
                self.reserved = self.crew.reserve(self)
            self.starved = self.reserved == 0 and not self.crew.stopping
            if rung and self.reserved == 0:
                # Heard, but no slot is free by now: the ring is for another process.
                await self.doorbell.pass_on(self.queue)
            rung = False
            if not self.settled and not self.notes and self.reserved == 0:
                await self.changed.wait()
                continue
            settled, self.settled = self.settled, []
            notes = self.notes.take()
            try:
                claim = await self.take_turn(settled, notes)
            except Exception as error:
                # Nothing is forgotten: every settlement is safe to repeat, and so is the claim by its turn.
                self.settled = settled + self.settled
                self.notes.put_back(notes)
                if not isinstance(error, SchedulerError):
                    log.exception("a turn failed", queue=self.queue)
                    error = StoreUnavailable(repr(error), unknown=True)
                if isinstance(error, StoreUnavailable) and error.unknown:
                    self.unsure.update(item.token for item in settled)
                pause = await self.back_off(error, pause)
                continue
            if self.refusal is not None:
                pause = await self.back_off(self.refusal, pause)
                continue
            pause = 0.05
            self.unsure.clear()
            self.crew.well(self.queue)
            if claim is not None and not claim.jobs:
                rung = await self.idle(claim.wait_ms / 1000)
            else:
                # What was claimed begins before the next turn is made, and what ends at once is told with it.
                await asyncio.sleep(0)

    async def parents_of(self, claimed: Claimed) -> Mapping[str, bytes | None]:
        for pause in (0.05, 0.3, 1.0):
            try:
                return await self.store.results_of_parents(self.queue, claimed.key)
            except StoreUnavailable:
                await asyncio.sleep(pause)
        return await self.store.results_of_parents(self.queue, claimed.key)

    async def due_times(self, keys: Sequence[str]) -> list[float | None]:
        return await self.store.due_times(self.queue, keys)

    async def found(self, keys: Sequence[str]) -> list[Job | None]:
        return await self.store.inspect(self.queue, list(keys))

    async def idle(self, seconds: float) -> bool:
        """Waits for the bell, for something finished, or for the time that the claim named; whether it rang."""
        self.crew.idle(self)
        try:
            return await self.doorbell.wait(self.queue, seconds, unless=self.changed)
        finally:
            self.crew.busy(self)

    async def take_turn(self, settled: list[Settlement], notes: list[Note | Extend]) -> Claim | None:
        """One pipeline: what handlers told, what is finished, then a claim for the free slots."""
        planned = self.calls_for(settled, notes)
        calls = [call for call, _ in planned]
        claiming = self.reserved > 0
        if claiming:
            calls.append(
                self.store.claim_call(
                    self.queue,
                    worker=self.crew.name,
                    turn=self.turn,
                    count=self.reserved,
                    lease_ms=self.crew.settings.lease_ms,
                    period_ms=self.crew.settings.watchdog_interval_ms,
                )
            )
        replies = await self.store.run_all(calls)
        self.refusal = None
        for (call, items), reply in zip(planned, replies[: len(planned)], strict=True):
            self.hear(call, items, reply)
        claim = replies[-1] if claiming else None
        if isinstance(claim, SchedulerError):
            self.refusal = self.refusal or claim
            return None
        if isinstance(claim, Claim):
            self.turn += 1
            self.begin(claim)
            self.crew.give_back(self.reserved - len(claim.jobs))
            self.reserved = 0
            if claim.sweep:
                self.sweep_soon(self.queue)
            if claim.relay:
                self.relay_soon(self.queue)
        return claim

    def hear(self, call: Call[Any], items: list[Any], reply: Any) -> None:
        """What one call of a turn was answered: what it refused is kept for the next turn, and only that."""
        if isinstance(reply, SchedulerError):
            if call.script == "note" and isinstance(reply, StoreFull):
                return
            if isinstance(reply, ItemRefused):
                self.changed.set()
                if len(items) == 1:
                    self.singly.discard(items[0].token)
                    self.give_up(items[0], reply)
                    return
            else:
                self.refusal = reply
            if isinstance(reply, StoreRefused) and len(items) > 1:
                # Each goes by itself in the next turn, so that the one that is refused holds up no other.
                self.singly.update(item.token for item in items)
            if call.script in {"note", "extend"}:
                self.notes.put_back(items)
            else:
                self.settled = items + self.settled
            return
        if self.singly:
            self.singly.difference_update(item.token for item in items)
        if call.script in {"note", "extend"}:
            return
        if call.script == "ack_add":
            reply = self.added(items[0], *reply)
        for item, state in zip(items, reply, strict=True):
            self.crew.outcomes.add(self, item, state)
            # Told before in a turn whose replies were lost, a retry at once may have followed it in that same turn.
            if state in {"stale", "missing"} and item.token not in self.unsure:
                log.warning(
                    "an outcome came too late: the job was given to another worker, or is gone",
                    job=f"{self.queue}:{item.key}", outcome=call.script, answer=state,
                )  # fmt: skip

    def give_up(self, item: Settlement | Note | Extend, error: ItemRefused) -> None:
        """An item that the server will never take: an outcome becomes a failure of the attempt, anything else is left out."""
        log.error("what was to be told is not taken", job=f"{self.queue}:{item.key}", error=str(error))
        if isinstance(item, Note | Extend) or (isinstance(item, Nack) and item.kind == UNTELLABLE):
            return
        message = f"its outcome could not be stored: {error}"[:1_000]
        self.settled.append(Nack(item.key, item.token, UNTELLABLE, message))

    def added(self, ack: Ack, outcome: str, its_id: str) -> list[str]:
        """What an ack that adds jobs was answered: a queue without room is asked again, what cannot be is a failure."""
        if outcome == "full":
            self.settled.insert(0, ack)
            self.refusal = QueueFull(self.queue, 1)
        elif error := refusal_of_added(outcome, its_id):
            nack = Nack(ack.key, ack.token, type(error).__name__, f"the added job {its_id}: {error}")
            self.settled.insert(0, nack)
            self.changed.set()
        return [outcome]

    def calls_for(
        self, settled: list[Settlement], notes: list[Note | Extend]
    ) -> list[tuple[Call[Any], list[Any]]]:
        """The calls that tell all this, each with the items it carries."""
        store, queue, worker = self.store, self.queue, self.crew.name
        patience = self.crew.settings.no_handler_after_ms
        made: list[tuple[Call[Any], list[Any]]] = []

        def add(
            items: Sequence[Any],
            kind: type,
            size: Callable[[Any], int],
            call: Callable[[list[Any]], Call[Any]],
        ) -> None:
            mine: list[Any] = [item for item in items if isinstance(item, kind)]
            cut = list(batches([item for item in mine if item.token not in self.singly], size))
            cut += [[item] for item in mine if item.token in self.singly]
            made.extend((call(batch), batch) for batch in cut)

        add(notes, Note, lambda note: len(note.value) + 100, lambda b: store.note_call(queue, b))
        add(notes, Extend, _light, lambda b: store.extend_call(queue, b))
        plain = [item for item in settled if not (isinstance(item, Ack) and item.added)]
        add(plain, Ack, lambda ack: len(ack.result) + 100, lambda b: store.ack_call(queue, b, worker=worker))
        adding = [item for item in settled if isinstance(item, Ack) and item.added]
        made += [(store.ack_add_call(queue, item, worker=worker), [item]) for item in adding]
        add(settled, Nack, _weight, lambda b: store.nack_call(queue, b, worker=worker))
        add(settled, Bury, _weight, lambda b: store.bury_call(queue, b, worker=worker))
        add(
            settled, Release, _light,
            lambda b: store.release_call(queue, b, worker=worker, no_handler_after_ms=patience),
        )  # fmt: skip
        return made


def _light(_: object) -> int:
    return 100


def _weight(item: Nack | Bury) -> int:
    return len(item.message) + len(item.trace) + 200

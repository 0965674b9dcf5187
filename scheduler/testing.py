"""What `app.test()` gives: the real scripts in this process, a clock that a test sets, and no waiting."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from .clients import open_clients
from .context import Context
from .declared import declare_schedules
from .errors import Fault, Invalid
from .events import Follower
from .execute import Places, execute
from .job import Claimed, Job, State, split_id
from .outcome_log import call_hook
from .outcomes import Ack, Bury, Extend, Nack, Note, Release, Settlement, refusal_of_added
from .scheduling import Schedules
from .settings import Settings
from .store import Store
from .times import duration_ms
from .worker import declare

if TYPE_CHECKING:
    from .app import Scheduler

WORKER = "app.test"


class AppTest:
    """An application on a server in memory. Time stands still until `advance`."""

    def __init__(self, app: Scheduler, store: Store, settings: Settings, clock: Clock) -> None:
        self._app, self._settings, self._clock = app, settings, clock
        self.store = store
        """For what the calls here do not cover: one method per script."""
        self._places = Places(processes=1)
        self._declared: set[str] = set()
        self._schedules, self._put = Schedules(store, max_payload=settings.max_payload), False
        self._told: list[tuple[Claimed, str, Any]] = []

    @property
    def now(self) -> datetime:
        """The time that the scheduler sees."""
        return datetime.fromtimestamp(self._clock.now_ms / 1000, UTC)

    def advance(self, by: float | str | timedelta) -> None:
        """Lets time pass: seconds, "5m", or a timedelta. What is due by then runs with the next `drain`."""
        seconds = by.total_seconds() if isinstance(by, timedelta) else by
        self._clock.now_ms += duration_ms(seconds)

    async def job(self, job: Any) -> Job:
        """A job as it is now, by its handle or its id. Raises NotFound."""
        return await self.store.job(*_parts(job))

    async def drain(self, *, limit: int = 10_000) -> list[str]:
        """Runs all that is due, one attempt after another, and what these enqueue, until nothing is left.

        Answers the state each job is in now, in the order in which they ran first; a job that was retried at once
        stands there once. Raises RuntimeError after `limit` attempts: jobs that make jobs would never end.
        """
        ran: dict[str, str] = {}
        attempts, before = 0, -1
        handlers = self._app.handlers
        if handlers.schedules and not self._put:
            self._put = True
            await declare_schedules(self.store, self._schedules, handlers.app, handlers.schedules)
        while attempts != before:
            before = attempts
            for queue in await self.store.queues():
                await self._keep_up(queue)
                await self.store.relay(queue)
            for queue in await self.store.queues():
                await self._schedules.fire(queue)
                lease_ms = self._settings.lease_ms
                claim = await self.store.claim(queue, worker=WORKER, count=1, lease_ms=lease_ms)
                for claimed in claim.jobs:
                    if attempts == limit:
                        raise RuntimeError(
                            f"{limit} attempts and jobs are still due: {', '.join(list(ran)[-3:])} …"
                        )
                    attempts += 1
                    ran[claimed.id] = ""  # it keeps the place of its first run
                    ran[claimed.id] = await self._attempt(claimed)
        return list(ran.values())

    async def _keep_up(self, queue: str) -> None:
        # What a worker tells at its start, and the watchdog does of itself.
        if queue not in self._declared:
            self._declared.add(queue)
            await declare(self.store, queue, self._app.handlers)
        swept = await self.store.reclaim(queue, lease_ms=self._settings.lease_ms)
        await self._died(queue, [key for key, state, _ in swept.jobs if state == "dead"])
        more = True
        while more:
            _, more, dead = await self.store.expire_telling(queue)
            await self._died(queue, dead)

    async def _attempt(self, claimed: Claimed) -> str:
        context = Context(claimed, self._tell, self._settings)
        if claimed.record is not None and claimed.record.rule("a") is not None:
            context.take_parents(await self.store.results_of_parents(claimed.queue, claimed.key))
        settlement = await execute(
            claimed, context, self._app.handlers, self._places, max_result=self._settings.max_result
        )
        told, self._told = self._told, []
        for of, field, value in told:
            if field == "extend":
                await self.store.extend(of.queue, [Extend(of.key, of.token, value)])
            else:
                await self.store.note(of.queue, [Note(of.key, of.token, field, value)])
        if settlement is not None:
            [state] = await self._settled(claimed.queue, settlement)
            if state == "dead":
                await self._died(claimed.queue, [claimed.key])
            if state in set(State):
                return state
        [job] = await self.store.inspect(claimed.queue, [claimed.key])
        return job.state.value if job is not None else "gone"

    async def _died(self, queue: str, keys: Sequence[str]) -> None:
        """Calls the app's hooks with dead jobs, as a worker does, and waits for them."""
        for job in await self.store.inspect(queue, keys):
            if job is not None:
                for hook in self._app.handlers.hooks_for(job.type):
                    await call_hook(hook, job, self._places.threads)

    def _tell(self, claimed: Claimed, field: str, value: Any) -> None:
        if field != "add":  # goes out with the ack
            self._told.append((claimed, field, value))

    async def _settled(self, queue: str, settlement: Settlement) -> list[str]:
        if isinstance(settlement, Ack) and settlement.added:
            return await self._ack_added(queue, settlement)
        if isinstance(settlement, Ack):
            return await self.store.ack(queue, [settlement], worker=WORKER)
        if isinstance(settlement, Nack):
            return await self.store.nack(queue, [settlement], worker=WORKER)
        if isinstance(settlement, Bury):
            return await self.store.bury(queue, [settlement], worker=WORKER)
        assert isinstance(settlement, Release)
        patience = self._settings.no_handler_after_ms
        return await self.store.release(queue, [settlement], worker=WORKER, no_handler_after_ms=patience)

    async def _ack_added(self, queue: str, ack: Ack) -> list[str]:
        """A worker waits for room in a full queue; here nobody would make it, and it is a failure too."""
        outcome, its_id = await self.store.ack_add(queue, ack, worker=WORKER)
        if outcome != "full" and refusal_of_added(outcome, its_id) is None:
            return [outcome]
        nack = Nack(ack.key, ack.token, "NotAdded", f"the job {its_id} was not taken in: {outcome}")
        return await self._settled(queue, nack)

    def close(self) -> None:
        self._places.close()


class Clock:
    """The server's time, in ms, as a test sets it."""

    def __init__(self, start: datetime | None) -> None:
        if start is not None and start.tzinfo is None:
            raise ValueError("the time a test begins at has a time zone")
        self.now_ms = round((start or datetime.now(UTC)).timestamp() * 1000)

    def __call__(self) -> int:
        return self.now_ms


@asynccontextmanager
async def tested(app: Scheduler, start: datetime | None) -> AsyncIterator[AppTest]:
    """The application on a server in memory, with its lifespans open. What it enqueues meanwhile goes there."""
    settings, clock = app.settings, Clock(start)
    clients = await open_clients("memory://")
    store = Store(clients, settings.namespace, now=clock)
    follower = Follower(clients, settings.namespace)
    bench = AppTest(app, store, settings, clock)
    try:
        async with app.at_work(store, follower):
            yield bench
    finally:
        bench.close()
        await follower.close()
        await store.close()


def _parts(job: Any) -> tuple[str, str]:
    text = job if isinstance(job, str) else job.id
    parts = split_id(text)
    if parts is None:
        raise Invalid([Fault("/id", f"{text!r} is no job id: it is <queue>:<key>")])
    return parts

"""What is done with schedules: put, dropped, paused, triggered, listed; and fired, by whoever ticks."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from .calling import BATCH
from .errors import Changed, Duplicate, Invalid, NotFound, SchedulerError, WrongState
from .job import new_key
from .logs import get_logger
from .schedule import Fire, Schedule, Standing, moved, stepped, steps
from .schedule_documents import document
from .store import Store
from .tasks import Reminder

log = get_logger(__name__)

TRIES = 50
"""How often a change is tried while others change the same schedule."""

LONG_AGO_MS = 60_000
"""Slots that are later than this are worked out in a thread."""

PATIENCE = 0.5
"""Seconds after which a name that no schedule has is nobody's."""

PAGE = 100
"""Schedules that are looked at in one go where nothing is due."""


MOST_LINES = 10

BUDGET = 0.02
"""Seconds that one page of due schedules is worked on. Then the other queues have their turn."""


@dataclass(slots=True)
class Firing:
    """One turn of firing what is due in a queue, over several pages."""

    queue: str
    looked_ms: int | None = None
    """When this process looked before."""
    began_ms: int | None = None
    """When this turn began: a slot is not late because of the work before it."""
    skip: int = 0
    """So many due schedules at the front cannot be worked out."""
    sick: dict[str, str] = field(default_factory=dict)
    """Schedules that cannot be worked out here -> why."""
    gone: set[str] = field(default_factory=set)
    skipped: int = 0
    """Slots of all its schedules that were skipped."""
    lines: int = 0
    """Schedules of which slots were skipped: the first ten have a line of the log each."""


class NameTaken(Duplicate):
    """A schedule of this name stands in another queue. Choose another name, or delete that one first."""

    def __init__(self, name: str, queue: str) -> None:
        super().__init__(name)
        why = f"the schedule {name} stands in the queue {queue}, and the queue of a schedule stays as it is"
        self.args = (f"{why}: choose another name, or delete that one first",)


class Schedules:
    """The schedules of a namespace."""

    def __init__(self, store: Store, *, max_payload: int = 1024 * 1024) -> None:
        self._store, self._max_payload = store, max_payload
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._changed: list[Callable[[], None]] = []
        self._reminder = Reminder("a schedule cannot be worked out here: it does not fire, the others do")

    def on_change(self, call: Callable[[], None]) -> None:
        """`call` is called after a change of a schedule by this process: one may be due sooner."""
        self._changed.append(call)

    # -- one -----------------------------------------------------------------------------------------------------

    async def find(self, name: str) -> Standing | None:
        """What is known of a schedule; None where there is none."""
        [entry] = await self._store.schedule_owners([name])
        if entry is None:
            return None
        [standing] = await self._store.standings([(_queue(entry), name)])
        return standing

    async def get(self, name: str) -> Standing:
        """What is known of a schedule. Raises NotFound."""
        standing = await self.find(name)
        if standing is None:
            raise no_schedule(name)
        return standing

    async def _readable(self, name: str) -> Standing:
        standing = await self.get(name)
        if standing.damage is not None:
            raise WrongState(f"the schedule {name}: {standing.damage}", "damaged")
        return standing

    async def put(
        self,
        schedule: Schedule,
        *,
        paused: bool | None = None,
        check: Callable[[Standing | None], None] = lambda _: None,
    ) -> tuple[Standing, bool]:
        """Makes a schedule, or changes it to what is given: as it stands now, and whether it is new.

        `paused` None leaves that as it is. What changes nothing leaves the version, and its slots, alone; a change of anything but
        its times leaves its next slot. `check` may refuse, given what stands. Raises Invalid, NameTaken, and Changed when
        others change it all the time.
        """
        if faults := schedule.faults(max_payload=self._max_payload):
            raise Invalid(faults)
        name, queue = schedule.name, schedule.queue
        async with self._lock(name):
            for attempt in range(TRIES):
                await self._store.tell_schedule_queue(queue)
                mark = uuid.uuid4().hex
                before = await self._own(name, queue, mark)
                try:
                    check(before)
                    done = await self._put(schedule, before, paused)
                except BaseException:
                    if before is None:
                        await self._free(name, queue, f"{queue}|{mark}")
                    raise
                if done is not None and await self._still(name, queue, done):
                    self._tell()
                    return done, before is None
                await asyncio.sleep(random.uniform(0, 0.002 * min(attempt, 10)))
        raise Changed(f"the schedule {name} is being changed by others: try again")

    async def _own(self, name: str, queue: str, mark: str) -> Standing | None:
        """Makes the name this queue's; what stands there. Raises NameTaken."""
        former, seen, since = "", "", 0.0
        for _ in range(2 * TRIES):
            said, entry = await self._store.schedule_name(
                "claim", name, queue=queue, mark=mark, former=former
            )
            if said == "claimed":
                [standing] = await self._store.standings([(queue, name)])
                return standing
            [other] = await self._store.standings([(_queue(entry), name)])
            if other is not None:
                raise NameTaken(name, _queue(entry))
            # Of a schedule that is being put, or that never came to be, or has gone.
            if entry != seen:
                seen, since = entry, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                former = entry
            await asyncio.sleep(0.02)
        raise Changed(f"the schedule {name} is being changed by others: try again")

    async def _put(self, schedule: Schedule, before: Standing | None, paused: bool | None) -> Standing | None:
        """One try; None when another one came in between."""
        now = await self._store.server_time()
        rests = before.paused if before is not None and paused is None else bool(paused)
        same = before is not None and before.schedule.timing == schedule.timing
        if before is not None and same and before.schedule == schedule and before.paused == rests:
            return before
        anchor = before.anchor_ms if before is not None and same else now
        # Its next slot stays where only other things change; one that rested goes on from now.
        put, version = await self._store.schedule_put(
            schedule,
            expect=0 if before is None else None if before.damage else before.version,
            next_ms=schedule.plan(anchor).next(now),
            keep=same and before is not None and not before.paused,
            paused=rests,
            anchor_ms=anchor,
        )
        if not put:
            return None
        [standing] = await self._store.standings([(schedule.queue, schedule.name)])
        if standing is not None:
            return standing
        log.debug("a schedule was deleted as it was put", schedule=schedule.name, version=version)
        return None

    async def _still(self, name: str, queue: str, put: Standing) -> bool:
        """The name is this queue's still. Raises NameTaken, having undone what was put."""
        [entry] = await self._store.schedule_owners([name])
        if entry is None:
            return False  # deleted in between: once more
        if _queue(entry) == queue:
            return True
        await self._store.schedule_drop(queue, name, version=put.version)
        raise NameTaken(name, _queue(entry))

    async def drop(self, name: str, *, check: Callable[[Standing | None], None] = lambda _: None) -> None:
        """Deletes a schedule; its jobs stay. Raises NotFound."""
        async with self._lock(name):
            for _ in range(TRIES):
                [entry] = await self._store.schedule_owners([name])
                standing = await self.find(name) if entry is not None else None
                if entry is None or standing is None:
                    raise no_schedule(name)
                check(standing)
                version = None if standing.damage else standing.version
                said = await self._store.schedule_drop(_queue(entry), name, version=version)
                if said == "changed":
                    continue
                await self._free(name, _queue(entry), entry)
                if said == "missing":
                    raise no_schedule(name)
                self._tell()
                return
        raise Changed(f"the schedule {name} is being changed by others: try again")

    async def _free(self, name: str, queue: str, entry: str) -> None:
        try:
            await self._store.free_schedule_names(queue, {name: entry})
        except SchedulerError as error:
            # Whoever wants the name next finds that no schedule has it.
            log.debug("the name of a schedule is not free yet", schedule=name, error=str(error))

    async def set_paused(
        self, name: str, paused: bool, *, check: Callable[[Standing | None], None] = lambda _: None
    ) -> Standing:
        """Nothing is fired until it is resumed, and what comes due meanwhile is not missed. Raises NotFound."""
        async with self._lock(name):
            for _ in range(TRIES):
                standing = await self._readable(name)
                check(standing)
                if standing.paused == paused:
                    return standing
                now = await self._store.server_time()
                put, _ = await self._store.schedule_put(
                    standing.schedule,
                    expect=standing.version,
                    next_ms=standing.plan.next(now),
                    keep=False,
                    paused=paused,
                    anchor_ms=standing.anchor_ms,
                )
                if put:
                    self._tell()
                    return await self.get(name)
        raise Changed(f"the schedule {name} is being changed by others: try again")

    async def trigger(self, name: str, *, key: str = "") -> str:
        """Makes a job of a schedule now, whatever its times, its overlap and its pause say: the job's id.

        Its slots stay, and `max_runs` counts it not. The same `key` again makes no other job. Raises NotFound, and Changed when
        others change it all the time.
        """
        key = key or new_key()
        for _ in range(TRIES):
            standing = await self._readable(name)
            queue = standing.schedule.queue
            step = Fire(name=name, version=standing.version, slot_ms=None, key=f"{name}.{key}")
            # By its own key a repeated call finds the job that it has made.
            [(said, why)] = await self._store.run_sure(self._store.schedule_fire_call(queue, [step]))
            if said == "fired":
                return f"{queue}:{name}.{key}"
            if said == "skipped" and why == "full":
                raise await self._store.no_room(queue)
            if said == "skipped":
                raise Duplicate(f"{queue}:{step.key}")
        raise Changed(f"the schedule {name} is being changed by others: try again")

    def _lock(self, name: str) -> asyncio.Lock:
        # Those of one process wait for each other instead of trying again and again.
        return self._locks.setdefault(name, asyncio.Lock())

    def _tell(self) -> None:
        for call in self._changed:
            call()

    # -- many ----------------------------------------------------------------------------------------------------

    async def page(
        self, *, after: str = "", limit: int = 100, queue: str | None = None, look: int = 2_000
    ) -> tuple[list[Standing], str | None]:
        """Schedules by name, those after one; and the name to go on from, None at the end. At most `look` are looked at."""
        found: list[Standing] = []
        looked = 0
        while looked < look:
            want = min(500, limit - len(found))
            names = await self._store.schedule_names(after, want + 1)
            more = len(names) > want
            owners = await self._store.schedule_owners(names[:want])
            places = [
                (_queue(entry), name)
                for name, entry in zip(names, owners, strict=False)
                if entry is not None and queue in {None, _queue(entry)}
            ]
            found += [one for one in await self._store.standings(places) if one is not None]
            looked += want
            if not more:
                return found, None
            after = names[want - 1]
            if len(found) == limit:
                break
        return found, after

    async def troubles(self, queue: str | None = None) -> AsyncIterator[tuple[str, str, str]]:
        """Schedules that this process cannot work out: queue, name and why. Raises StoreUnavailable."""
        after: str | None = ""
        while after is not None:
            standings, after = await self.page(after=after, limit=BATCH, queue=queue)
            now = await self._store.server_time()
            for standing in standings:
                if (why := standing.trouble(now)) is not None:
                    yield standing.schedule.queue, standing.schedule.name, why

    async def states(self, standings: Sequence[Standing]) -> dict[str, str]:
        """How the jobs of their last slots stand now, by job id."""
        by_queue: dict[str, list[str]] = {}
        for standing in standings:
            keys = [one.key for one in standing.past if one.key is not None]
            by_queue.setdefault(standing.schedule.queue, []).extend(keys)
        found: dict[str, str] = {}
        for queue, keys in by_queue.items():
            for start in range(0, len(keys), BATCH):
                some = keys[start : start + BATCH]
                jobs = await self._store.inspect(queue, some)
                found |= {
                    f"{queue}:{key}": job.state.value for key, job in zip(some, jobs, strict=True) if job
                }
        return found

    async def documents(self, standings: Sequence[Standing]) -> list[dict[str, Any]]:
        """Schedules as API documents show them, with how the jobs of their last slots stand now."""
        if not standings:
            return []
        now, states = await self._store.server_time(), await self.states(standings)
        shown = []
        for n, standing in enumerate(standings):
            if n % 50 == 49:
                await asyncio.sleep(0)  # to work out slots takes its time: others are let in between
            shown.append(document(standing, now, states))
        return shown

    # -- firing --------------------------------------------------------------------------------------------------

    async def fire(
        self,
        queue: str,
        *,
        looked_ms: int | None = None,
        between: Callable[[], Awaitable[None]] | None = None,
    ) -> int:
        """Fires what is due in a queue, page by page; the time (ms) at which it looked. Any process may, at any time.

        `looked_ms` is when this process looked before. `between` is awaited between any two calls of scripts.
        """
        turn = Firing(queue, looked_ms)
        while await self.fire_page(turn, between=between):
            pass
        assert turn.began_ms is not None, "the first page has looked"
        return turn.began_ms

    async def fire_page(self, turn: Firing, *, between: Callable[[], Awaitable[None]] | None = None) -> bool:
        """Fires some of what is due in a queue, about `BUDGET` seconds of work; whether more may be left."""
        now, due = await self._store.schedule_due(turn.queue, skip=turn.skip)
        if turn.began_ms is None:
            turn.began_ms = now
        if between:
            await between()
        # Of a long downtime there is much to work out: not in the loop that everything else runs in.
        if due and due[0][1] < now - LONG_AGO_MS:
            page = await asyncio.to_thread(_page, due, now, turn)
        else:
            page = _page(due, now, turn)
        for name, why in turn.sick.items():
            self._reminder.remind(name, schedule=name, queue=turn.queue, error=why)
        if not page:
            # Schedules that cannot be worked out keep their place in front: what comes after them is next.
            turn.skip += len(due)
            if more := len(due) == BATCH:
                return more
            if turn.lines > MOST_LINES:
                log.warning(
                    "slots of more schedules were skipped",
                    queue=turn.queue, schedules=turn.lines - MOST_LINES, slots=turn.skipped,
                )  # fmt: skip
            return False
        turn.skip = 0
        await self._cancel(turn.queue, page, between)
        replies = await self._store.schedule_fire(turn.queue, page)
        if between:
            await between()
        self._report(turn, page, replies)
        for step, (_, why) in zip(page, replies, strict=True):
            if why == "blocked":
                # The process that relays the queue's words does it too, when this one dies here.
                await self._store.link_late(turn.queue, step.key)
                if between:
                    await between()
        return True

    async def _cancel(
        self, queue: str, page: Sequence[Fire], between: Callable[[], Awaitable[None]] | None
    ) -> None:
        """Those that are to make room are cancelled before: after a crash in between the same is done once more."""
        keys = list(dict.fromkeys(key for step in page for key in step.cancels))
        for start in range(0, len(keys), BATCH):
            await self._store.cancel(queue, keys[start : start + BATCH], reason="overlap")
            if between:
                await between()

    def _report(self, turn: Firing, page: Sequence[Fire], replies: Sequence[tuple[str, str]]) -> None:
        for step, (said, why) in zip(page, replies, strict=True):
            if said != "skipped" or why == "overlap":
                continue
            turn.skipped += 1 + step.more
            turn.lines += 1
            if turn.lines <= MOST_LINES:
                log.warning(
                    "slots of a schedule were skipped",
                    schedule=step.name, queue=turn.queue, slots=1 + step.more, reason=why,
                )  # fmt: skip

    async def _begin_anew(self, standing: Standing, now: int) -> bool:
        """Puts a period whose slots the clock has left behind; whether it did, and no other process before."""
        anchor = _anew(standing, now)
        put, _ = await self._store.schedule_put(
            standing.schedule,
            expect=standing.version,
            next_ms=standing.schedule.plan(anchor).next(now),
            keep=False,
            paused=False,
            anchor_ms=anchor,
        )
        return put

    async def realign(self, *, pause: float = 0.01) -> int:
        """Gives each schedule the next slot that it should have by now; how many had another one. Paced.

        The rules of a zone come with the machine's packages, and a process reads them once: so this is done when one starts.
        A period begins anew where the server's clock has gone back.
        """
        changed, after = 0, ""
        while True:
            standings, following = await self.page(after=after, limit=PAGE)
            now = await self._store.server_time()
            by_queue: dict[str, list[Fire]] = {}
            for standing in standings:
                if stepped(standing, now):
                    changed += await self._begin_anew(standing, now)
                if standing.schedule.cron is None or standing.schedule.timezone == "UTC" or standing.paused:
                    continue
                if standing.trouble(now) is None and (step := moved(standing, now)) is not None:
                    by_queue.setdefault(standing.schedule.queue, []).append(step)
            for queue, page in by_queue.items():
                replies = await self._store.schedule_fire(queue, page)
                changed += sum(said == "moved" for said, _ in replies)
            if following is None:
                return changed
            after = following
            await asyncio.sleep(pause)


def _anew(standing: Standing, now: int) -> int:
    """An anchor from which no slot is one that has been before: its job would have the key of another."""
    every = standing.schedule.every_ms or 1
    return now + 1 if (now - standing.anchor_ms) % every == 0 else now


def _page(due: Sequence[tuple[str, int, Standing | None]], now: int, turn: Firing) -> list[Fire]:
    """The steps of schedules that are due: as many as one call takes and as a budget of time allows, at least those of one."""
    page: list[Fire] = []
    end = time.monotonic() + BUDGET
    for name, slot, standing in due:
        if len(page) >= BATCH or (page and time.monotonic() > end):
            break
        if name in turn.sick:
            continue
        if standing is None:
            # A schedule that is gone leaves its slot; the script takes it away.
            if name not in turn.gone:
                turn.gone.add(name)
                page.append(Fire(name=name, version=0, slot_ms=slot))
            continue
        try:
            if standing.damage is not None:
                raise ValueError(standing.damage)
            assert turn.began_ms is not None, "the caller has looked"
            page += steps(
                standing, now, began_ms=turn.began_ms, looked_ms=turn.looked_ms, most=BATCH - len(page)
            )
        except Exception as error:  # noqa: BLE001 - one schedule never stops the others
            turn.sick[name] = str(error) or repr(error)
    return page


def _queue(entry: str) -> str:
    return entry.partition("|")[0]


def no_schedule(name: str) -> NotFound:
    """There is no such schedule."""
    return NotFound(f"there is no schedule {name!r}; it begins with PUT /v1/schedules/{name}")

"""Schedules as values: what somebody wants done again and again, what is known of one, which of its slots are to be fired now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from msgspec import Struct, convert
from msgspec.structs import asdict, replace

from .cron import LAST_MS, LEAST_PERIOD_MS, LONGEST_PERIOD_MS, PlanInvalid
from .errors import Fault
from .job import LONGEST_DELAY_MS, NewJob, checksum, faults_of
from .keys import QUEUE_NAME
from .plan import Plan, jitter_ms, slot_key
from .times import rfc3339, seconds

OVERLAPS = ("skip", "allow", "cancel_running", "queue_one")
CATCH_UPS = ("latest", "none", "all")

WINDOW_MS = 86_400_000
"""How far back missed slots are caught up, unless a schedule says otherwise."""

LATE_MS = 2_000
"""A slot that is seen later than this was missed, unless somebody who ticks has looked in the meantime."""

FRESH_MS = 10_000
"""After a change nothing is missed for so long: it may take that until all who tick have seen it."""

LOOK_MS = 15_000
"""Who looked at a queue so lately was there when what has come due since came due."""

MOST_CAUGHT_UP = 1_000

FIRST_MS = 0
"""The earliest start of a schedule: 1970."""


def end_of(ends_ms: int | None) -> int | None:
    """The end of a schedule; None for never, which many systems write as 9999-12-31."""
    return None if ends_ms is None or ends_ms >= LAST_MS else ends_ms


class Schedule(Struct, frozen=True, kw_only=True):
    """What somebody wants done again and again. Times are ms since 1970, durations ms."""

    name: str
    queue: str = "default"
    type: str = ""
    payload: bytes = b"{}"
    cron: str | None = None
    every_ms: int | None = None
    timezone: str = "UTC"
    jitter_ms: int = 0
    overlap: str = "skip"
    catch_up: str = "latest"
    catch_up_window_ms: int = WINDOW_MS
    starts_ms: int | None = None
    ends_ms: int | None = None
    max_runs: int | None = None
    priority: int = 0
    group: str | None = None
    tags: Sequence[str] = ()
    timeout_ms: int | None = None
    retry: Mapping[str, Any] | None = None
    retention_ms: int | None = None
    cost: int = 1
    expires_in_ms: int | None = None
    declared_by: str | None = None
    """The app whose code says it; None where it was made by hand."""

    def plan(self, anchor_ms: int) -> Plan:
        """When it comes due, a period counted from its anchor on."""
        return Plan(
            cron=self.cron,
            every_ms=self.every_ms,
            timezone=self.timezone,
            anchor_ms=anchor_ms,
            starts_ms=self.starts_ms,
            ends_ms=self.ends_ms,
        )

    @property
    def timing(self) -> tuple[Any, ...]:
        """What decides its slots."""
        return self.cron, self.every_ms, self.timezone, self.starts_ms, self.ends_ms

    def job(self, key: str = "") -> NewJob:
        """A job of this schedule, as anybody would enqueue it."""
        return NewJob(
            type=self.type, payload=self.payload, queue=self.queue, key=key, priority=self.priority, group=self.group,
            tags=self.tags, timeout_ms=self.timeout_ms, retry=self.retry, retention_ms=self.retention_ms,
            cost=self.cost, expires_in_ms=self.expires_in_ms, schedule=self.name,
        )  # fmt: skip

    def record(self, *, paused: bool, anchor_ms: int) -> bytes:
        """As lua/schedule_put.lua takes it."""
        job = self.job()
        fields = [
            "1" if paused else "",
            "" if self.max_runs is None else str(self.max_runs),
            self.type,
            str(self.priority or ""),
            "" if self.timeout_ms is None else str(self.timeout_ms),
            "" if self.retention_ms is None else str(self.retention_ms),
            job.rules(),
            job.fingerprint(),
            checksum(self.payload),
        ]
        kept = {name: value for name, value in asdict(self).items() if value != _DEFAULTS[name]}
        for name in ("name", "queue", "payload"):
            kept.pop(name, None)
        kept["anchor_ms"] = anchor_ms
        return b"\n".join(("|".join(fields).encode(), job.header(), orjson.dumps(kept)))

    def faults(self, *, max_payload: int) -> list[Fault]:
        """What no door lets through; paths are those of a schedule's document."""
        faults = [
            fault for fault in faults_of(self.job("key"), max_payload=max_payload) if fault.path != "/id"
        ]
        if not QUEUE_NAME.fullmatch(self.name):
            faults.append(
                Fault(
                    "/name", "1 to 64 letters, digits, '.', '_' or '-', a letter or digit first, are a name"
                )
            )
        if (self.cron is None) == (self.every_ms is None):
            faults.append(
                Fault("/cron", 'either "cron" or "every" says when it comes due, and one of them must')
            )
        if self.every_ms is not None and not LEAST_PERIOD_MS <= self.every_ms <= LONGEST_PERIOD_MS:
            faults.append(
                Fault("/every", f"from {seconds(LEAST_PERIOD_MS)} s to {seconds(LONGEST_PERIOD_MS)} s")
            )
        try:
            self.plan(0).check()
        except PlanInvalid as error:
            faults.append(Fault(f"/{error.field}", str(error)))
        if not 0 <= self.jitter_ms <= 86_400_000:
            faults.append(Fault("/jitter", "at most a day"))
        if not 0 <= self.catch_up_window_ms <= LONGEST_DELAY_MS:
            faults.append(Fault("/catch_up_window", "at most 10 years"))
        if self.overlap not in OVERLAPS:
            faults.append(Fault("/overlap", f"expected one of {', '.join(OVERLAPS)}"))
        if self.catch_up not in CATCH_UPS:
            faults.append(Fault("/catch_up", f"expected one of {', '.join(CATCH_UPS)}"))
        if self.max_runs is not None and not 1 <= self.max_runs <= 2**53 - 1:
            faults.append(Fault("/max_runs", "at least 1"))
        if self.starts_ms is not None and not FIRST_MS <= self.starts_ms <= LAST_MS:
            faults.append(Fault("/starts_at", f"from {rfc3339(FIRST_MS)} to {rfc3339(LAST_MS)}"))
        if self.starts_ms is not None and self.ends_ms is not None and self.ends_ms < self.starts_ms:
            faults.append(Fault("/ends_at", "it ends before it starts"))
        return faults


_DEFAULTS = asdict(Schedule(name=""))


class Fired(Struct, frozen=True):
    """One line of a schedule's past: a slot (None: asked for by hand) and what became of it."""

    slot_ms: int | None
    at_ms: int
    key: str | None
    outcome: str
    """"fired", or why it was skipped: overlap, missed, full, conflict, expired."""
    count: int = 1
    upto_ms: int | None = None
    """Of several that were skipped together, the last."""


class Standing(Struct, frozen=True, kw_only=True):
    """All that is known of a schedule."""

    schedule: Schedule
    version: int
    changed_ms: int
    paused: bool
    anchor_ms: int
    next_ms: int | None
    """Its next slot; 0 for one that is to be found anew."""
    runs: int = 0
    skipped: int = 0
    last_ms: int | None = None
    """The last slot that was fired or skipped."""
    ended: bool = False
    open: tuple[str, ...] = ()
    """Keys of its jobs that may not have ended."""
    past: tuple[Fired, ...] = ()
    """Its last twenty slots, oldest first."""
    damage: str | None = None
    """A sentence where the record cannot be read; then nothing but the name and the queue is known."""

    def trouble(self, now_ms: int) -> str | None:
        """Why this process cannot work the schedule out, as a sentence; None where it can.

        A record may be damaged, and a process may lack the time zone that another one knows.
        """
        if self.damage is not None:
            return self.damage
        try:
            self.plan.check()
            self.plan.next(now_ms)
            orjson.loads(self.schedule.payload)
        except Exception as error:  # noqa: BLE001 - whatever the record holds, the other schedules go on
            return str(error) or repr(error)
        return None

    @property
    def state(self) -> str:
        return "paused" if self.paused else "finished" if self.ended else "active"

    @property
    def plan(self) -> Plan:
        return self.schedule.plan(self.anchor_ms)

    def upcoming(self, after_ms: int, count: int) -> list[int]:
        """Its next slots, whether it is paused or not; no more than it has runs left."""
        left = count if self.schedule.max_runs is None else min(count, self.schedule.max_runs - self.runs)
        if left <= 0:
            return []
        first = self.next_ms if not self.paused and self.next_ms and self.next_ms > after_ms else None
        if first is None:
            return self.plan.upcoming(after_ms, left)
        return [first, *self.plan.upcoming(first, left - 1)] if left > 1 else [first]


def parse_standing(
    name: str, queue: str, record: bytes, past: bytes = b"", payload: bytes = b"", next_ms: int | None = None
) -> Standing:
    """What is known of a schedule, from its record; a damaged one has `damage`."""
    try:
        first, _, text = record.split(b"\n", 2)
        version, changed, paused = first.split(b"|")[:3]
        kept = orjson.loads(text)
        anchor = kept.pop("anchor_ms")
        known = {field: value for field, value in kept.items() if field in _DEFAULTS}
        schedule = convert({**known, "name": name, "queue": queue}, Schedule)
        schedule = replace(schedule, payload=payload or b"{}", tags=tuple(schedule.tags))
        if not 0 <= max(int(changed), anchor, next_ms or 0) <= LAST_MS:
            raise ValueError("a time that no date has")
        head, _, lines = past.partition(b"\n")
        runs, skipped, last, ended, keys = (head or b"0|0|||").split(b"|")
        return Standing(
            schedule=schedule,
            version=int(version),
            changed_ms=int(changed),
            paused=paused == b"1",
            anchor_ms=anchor,
            next_ms=next_ms,
            runs=int(runs),
            skipped=int(skipped),
            last_ms=int(last) if last else None,
            ended=ended == b"1",
            open=tuple(key.decode() for key in keys.split()),
            past=tuple(_fired(line) for line in lines.split(b"\n") if line),
        )
    except Exception:  # noqa: BLE001 - whatever was written there
        return Standing(
            schedule=Schedule(name=name, queue=queue),
            version=0,
            changed_ms=0,
            paused=False,
            anchor_ms=0,
            next_ms=next_ms,
            damage="its record is damaged: PUT the schedule again, or DELETE it",
        )


def _fired(line: bytes) -> Fired:
    slot, at, key, outcome, more, upto = line.decode().split("|")
    return Fired(
        slot_ms=int(slot) if slot else None,
        at_ms=int(at),
        key=key or None,
        outcome=outcome,
        count=1 + int(more or 0),
        upto_ms=int(upto) if upto else None,
    )


# -- which slots are to be fired now -------------------------------------------------------------------------


class Fire(Struct, frozen=True, kw_only=True):
    """One step of a schedule, as lua/schedule_fire.lua takes it."""

    name: str
    version: int
    slot_ms: int | None
    next_ms: int | None = None
    key: str = ""
    run_at_ms: int | None = None
    overlap: str = "allow"
    more: int = 0
    upto_ms: int | None = None
    reason: str = ""
    cancels: tuple[str, ...] = ()
    """Jobs that are to be cancelled before."""


def steps(
    standing: Standing,
    now_ms: int,
    *,
    began_ms: int | None = None,
    looked_ms: int | None = None,
    most: int = 500,
) -> list[Fire]:
    """What a schedule that is due has to do, in order: its slots up to now, fired or skipped, each with the next one.

    `began_ms` is when the caller began its round (a slot is not late because of the work before it), `looked_ms` when it looked
    before that. At most so many: who calls again finds the rest.
    """
    its, plan, slot = standing.schedule, standing.plan, standing.next_ms
    if slot is None or slot > now_ms:
        return []
    if plan.next(slot - 1) != slot:
        # Its zone has other rules by now, or the slot was lost: on with the first that nobody has had yet.
        return [_step(standing, slot, plan.next(max(standing.last_ms or 0, standing.changed_ms)))]
    began = now_ms if began_ms is None else began_ms
    missed_before = began - LATE_MS
    if looked_ms is not None and began - looked_ms <= LOOK_MS:
        missed_before = min(missed_before, looked_ms)
    if began - standing.changed_ms <= FRESH_MS:
        missed_before = 0
    done: list[Fire] = []
    following: int | None = slot
    if slot < missed_before:
        following, done = _missed(standing, slot, missed_before - 1, now_ms, most)
    cancels = standing.open if its.overlap == "cancel_running" else ()
    while following is not None and following <= now_ms and len(done) < most:
        if its.overlap == "cancel_running" and any(step.key for step in done):
            break  # which job it would cancel is known once there is one
        slot, following = following, plan.next(following)
        done.append(_step(standing, slot, following, fire=True, overlap=its.overlap, cancels=cancels))
    return done


def _missed(
    standing: Standing, first: int, until: int, now_ms: int, most: int
) -> tuple[int | None, list[Fire]]:
    """The steps of what was missed, from a slot up to an instant, and the slot that follows."""
    its, plan = standing.schedule, standing.plan
    last = plan.last(first, until)
    following = plan.next(last)
    if its.catch_up == "none" or (its.catch_up == "latest" and following is not None and following <= now_ms):
        return following, [_skipped(standing, first, last, following)]
    begin = now_ms - its.catch_up_window_ms
    if last < begin:
        return following, [_skipped(standing, first, last, following)]
    if its.catch_up == "latest":
        caught = [last]
    else:
        oldest = first if first >= begin else plan.next(begin - 1)
        assert oldest is not None, "the last one is not before it"
        caught, _ = plan.newest(oldest, last, MOST_CAUGHT_UP)
    done = []
    if caught[0] > first:
        done.append(_skipped(standing, first, plan.last(first, caught[0] - 1), caught[0]))
    # All were asked for: that they overlap is in the nature of it.
    overlap = "allow" if its.catch_up == "all" else its.overlap
    cancels = standing.open if overlap == "cancel_running" else ()
    for n, slot in enumerate(caught):
        if len(done) == most:
            return None, done
        after = caught[n + 1] if n + 1 < len(caught) else following
        done.append(_step(standing, slot, after, fire=True, overlap=overlap, cancels=cancels))
    return following, done


def _skipped(standing: Standing, first: int, last: int, following: int | None) -> Fire:
    more = standing.plan.count(first, last) - 1
    return _step(standing, first, following, reason="missed", more=more, upto_ms=last if more else None)


_OVERLAP = {"skip": "skip", "queue_one": "queue_one:{queue}"}
"""What the script sees to. Whoever fires has cancelled before, for those that are to make room."""


def _step(
    standing: Standing, slot: int, following: int | None, *, fire: bool = False, overlap: str = "allow", **fields: Any
) -> Fire:  # fmt: skip
    its = standing.schedule
    late = jitter_ms(its.name, slot, its.jitter_ms) if fire else 0
    return Fire(
        name=its.name,
        version=standing.version,
        slot_ms=slot,
        next_ms=following,
        key=slot_key(its.name, slot) if fire else "",
        run_at_ms=slot + late if late else None,
        overlap=_OVERLAP.get(overlap, "allow").format(queue=its.queue),
        **fields,
    )


def stepped(standing: Standing, now_ms: int) -> bool:
    """Whether a period waits for longer than itself: the server's clock has gone back since its last slot.

    A period without `starts_at` goes on in real time. Slots of an expression, and of a period from `starts_at` on, are
    instants, each of which fires once: they wait until the clock comes to the next.
    """
    its, slot = standing.schedule, standing.next_ms
    return (
        its.every_ms is not None
        and its.starts_ms is None
        and not standing.paused
        and slot is not None
        and slot > now_ms + its.every_ms
    )


def moved(standing: Standing, now_ms: int) -> Fire | None:
    """The step that gives a schedule the slot which its zone's rules say by now; None where it has it."""
    slot = standing.next_ms
    if slot is None or slot <= now_ms:
        return None
    right = standing.plan.next(now_ms)
    return None if right == slot else _step(standing, slot, right)

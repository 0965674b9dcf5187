"""When a schedule comes due: a cron expression in a zone or a period, as instants in milliseconds. No clock."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice

from msgspec import Struct

from .cron import (
    EPOCH,
    LAST_MS,
    NAIVE_EPOCH,
    change_between,
    next_slot,
    offset_ms,
    parse_cron,
    wall_time,
    zone_of,
)

_MS = timedelta(milliseconds=1)
_AROUND_MS = 7_200_000
"""No zone changes by more than two hours at once, so that what the wall shows twice or not at all is this near."""


class Plan(Struct, frozen=True, kw_only=True):
    """When a schedule comes due: a cron expression in a zone, or a period from its anchor on. Times are ms since 1970."""

    cron: str | None = None
    every_ms: int | None = None
    timezone: str = "UTC"
    anchor_ms: int = 0
    """Of a period: when it was begun; its slots are whole periods later, or at `starts_ms` and from there on."""
    starts_ms: int | None = None
    ends_ms: int | None = None

    def check(self) -> None:
        """Raises PlanInvalid for what can never be."""
        if self.cron is not None:
            zone_of(self.timezone)
            parse_cron(self.cron)

    def next(self, after_ms: int) -> int | None:
        """The first slot after an instant; None when there is none."""
        if self.starts_ms is not None:
            after_ms = max(after_ms, self.starts_ms - 1)
        if self.every_ms is not None:
            origin = self.anchor_ms if self.starts_ms is None else self.starts_ms
            first = 1 if self.starts_ms is None else 0
            slot: int | None = origin + max(first, (after_ms - origin) // self.every_ms + 1) * self.every_ms
        else:
            slot = next_slot(self.cron or "", self.timezone, after_ms)
        if slot is None or slot > LAST_MS or (self.ends_ms is not None and slot > self.ends_ms):
            return None
        return slot

    def slots(self, after_ms: int, until_ms: int) -> Iterator[int]:
        """The slots after an instant up to another, that one included, in order."""
        slot = self.next(after_ms)
        while slot is not None and slot <= until_ms:
            yield slot
            slot = self.next(slot)

    def upcoming(self, after_ms: int, count: int) -> list[int]:
        """The next so many slots after an instant; fewer where there are fewer."""
        return list(islice(self.slots(after_ms, 1 << 62), count))

    def last(self, first_ms: int, until_ms: int) -> int:
        """The last slot up to an instant, given one before it, by halving: however many lie between."""
        low, high = first_ms, until_ms
        while low < high:
            middle = (low + high) // 2
            slot = self.next(middle)
            if slot is None or slot > until_ms:
                high = middle
            else:
                low = slot
        return low

    def count(self, first_ms: int, until_ms: int) -> int:
        """How many slots there are from one (a slot) to another, both included. Costs some microseconds a day between."""
        if self.every_ms is not None:
            return (until_ms - first_ms) // self.every_ms + 1
        return count_slots(self.cron or "", self.timezone, first_ms - 1, until_ms)

    def newest(self, first_ms: int, until_ms: int, most: int) -> tuple[list[int], bool]:
        """The last slots up to an instant, at most so many, of those from `first_ms` (one itself) on; and whether that is all."""
        total = self.count(first_ms, until_ms)
        if total <= most:
            return list(self.slots(first_ms - 1, until_ms)), True
        low, high = first_ms, until_ms  # more than `most` come after low, not so after high
        while high - low > 1:
            middle = (low + high) // 2
            slot = self.next(middle)
            if slot is not None and slot <= until_ms and self.count(slot, until_ms) > most:
                low = middle
            else:
                high = middle
        return list(islice(self.slots(high, until_ms), most)), False


def count_slots(expression: str, timezone: str, after_ms: int, until_ms: int) -> int:
    """How many slots of an expression come after an instant, up to another. Raises PlanInvalid.

    Stretches of a day without a change of the clock are counted by their hours, minutes and seconds, without visiting each
    slot: ten years of every second cost as much as ten years of every hour.
    """
    cron, zone = parse_cron(expression), zone_of(timezone)
    found, low = 0, after_ms
    while low < until_ms:
        begin = low + 1
        first = wall_time(begin, zone)
        midnight = first.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        high = min(max((midnight - NAIVE_EPOCH) // _MS - offset_ms(begin, zone) - 1, begin), until_ms)
        change = change_between(begin, high + _AROUND_MS, zone)
        if change is None or (cron.real_time and change > high):
            pass
        elif cron.real_time:
            high = change - 1
        elif change - _AROUND_MS > begin:
            high = min(high, change - _AROUND_MS)
        else:
            # A fixed hour that is skipped or shown twice: these few slots are worked out one by one.
            high = min(change + _AROUND_MS, until_ms)
            found += _visited(expression, timezone, low, high)
            low = high
            continue
        if cron.wall.on(first.date()):
            # Slots up to `low` come before the first whole second, slots up to `high` before the second after it.
            found += cron.wall.before(_second(wall_time(high, zone)) + 1) - cron.wall.before(
                _second(first) + (first.microsecond > 0)
            )
        low = high
    return found


def _visited(expression: str, timezone: str, after_ms: int, until_ms: int) -> int:
    found, slot = 0, next_slot(expression, timezone, after_ms)
    while slot is not None and slot <= until_ms:
        found, slot = found + 1, next_slot(expression, timezone, slot)
    return found


def _second(shown: datetime) -> int:
    return shown.hour * 3_600 + shown.minute * 60 + shown.second


def jitter_ms(name: str, slot_ms: int, most_ms: int) -> int:
    """How long after its slot a job starts: from 0 to `most_ms`, always the same for one slot of one schedule."""
    if most_ms <= 0:
        return 0
    digest = hashlib.blake2b(f"{name}|{slot_ms}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) % (most_ms + 1)


def slot_key(name: str, slot_ms: int) -> str:
    """The key of the job that a slot has: of the schedule and the time, so that there can be only one."""
    at = EPOCH + timedelta(milliseconds=slot_ms)
    return f"{name}.{at:%Y%m%dT%H%M%S}" + (f".{slot_ms % 1_000:03d}Z" if slot_ms % 1_000 else "Z")

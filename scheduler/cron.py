"""Cron expressions in time zones, as instants in milliseconds. No clock.

The contract at a change of the clock. An expression with fixed hours and minutes means what the clock on the wall shows: a slot
that is skipped comes right after the gap, once, and one that is shown twice comes at the first, once. An expression with
a wildcard or a step in its hour or minute field goes on in real time: what is skipped is not there, what is shown twice
comes twice. A period knows no clock at all.
"""

from __future__ import annotations

import copy
import difflib
import re
import zoneinfo
from calendar import monthrange
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache

from cronsim import CronSim, CronSimError
from msgspec import Struct

LONGEST_EXPRESSION = 256
LEAST_PERIOD_MS = 100
LONGEST_PERIOD_MS = 3_652 * 86_400_000
LAST_MS = 253_370_764_800_000
"""9999-01-01, after which no slot comes: a year later there is no date that documents could show."""

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - what a wall shows has no zone
_SECOND = timedelta(seconds=1)
_MS = timedelta(milliseconds=1)
DAY_MS = 86_400_000


class PlanInvalid(ValueError):
    """A plan that no schedule can have. `field` is the field of the schedule that is wrong: cron, every or timezone."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(message)


class _Field(Struct, frozen=True):
    name: str
    least: int
    most: int
    words: tuple[str, ...] = ()

    def number(self, text: str, column: int) -> int:
        """The number that a value means; raises PlanInvalid with the field and the column."""
        if text.upper() in self.words:
            return self.words.index(text.upper()) + self.least
        if not re.fullmatch(r"[0-9]{1,4}", text):
            takes = f"a number from {self.least} to {self.most}"
            if self.words:
                takes += f" or one of {', '.join(self.words)}"
            raise self.fault(column, f"{text!r} is not {takes}" if text else f"a value is missing: {takes}")
        if not self.least <= int(text) <= self.most:
            raise self.fault(column, f"{text} is not from {self.least} to {self.most}")
        return int(text)

    def fault(self, column: int, why: str) -> PlanInvalid:
        return PlanInvalid("cron", f"{self.name} (column {column}): {why}")


_SECONDS = _Field("second", 0, 59)
_MINUTES = _Field("minute", 0, 59)
_HOURS = _Field("hour", 0, 23)
_DAYS = _Field("day of month", 1, 31)
_MONTHS = _Field(
    "month", 1, 12, ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
)
_WEEKDAYS = _Field("day of week", 0, 7, ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"))
_FIVE = (_MINUTES, _HOURS, _DAYS, _MONTHS, _WEEKDAYS)


class Wall(CronSim):
    """Matches what a clock on the wall shows, without a zone: which instants that means is not its business."""

    def __init__(self, text: str, nearest: frozenset[int], *, last_weekday: bool) -> None:
        super().__init__(text, NAIVE_EPOCH)
        self.nearest = nearest
        if nearest and not last_weekday:
            self.days = self.days - {self.LAST_WEEKDAY}

    def match_dom(self, d: date) -> bool:
        return super().match_dom(d) or any(d.day == _nearest_weekday(d, day) for day in self.nearest)

    def on(self, day: date) -> bool:
        """Whether any time of this day matches."""
        return day.month in self.months and self.match_day(day)

    def match_day(self, day: date) -> bool:
        if self.day_and:
            return self.match_dom(day) and self.match_dow(day)
        return self.match_dom(day) or self.match_dow(day)

    def before(self, time: int) -> int:
        """How many times of a matching day come before a second of that day."""
        hour, minute, second = time // 3_600, time // 60 % 60, time % 60
        minutes, seconds = len(self.minutes), len(self.seconds)
        found = sum(one < hour for one in self.hours) * minutes * seconds
        if hour in self.hours and time < 86_400:
            found += sum(one < minute for one in self.minutes) * seconds
            if minute in self.minutes:
                found += sum(one < second for one in self.seconds)
        return found

    def after(self, shown: datetime) -> datetime | None:
        """The first match later than this, None when there is none in 50 years."""
        one = copy.copy(self)
        one.dt = shown.replace(microsecond=0)
        try:
            return next(one)
        except (StopIteration, OverflowError, ValueError):
            return None  # none within fifty years, or none before the last year that a date has


def _nearest_weekday(of: date, day: int) -> int | None:
    """The weekday nearest to a day of the month, in the same month; None where the month has no such day."""
    last = monthrange(of.year, of.month)[1]
    if day > last:
        return None
    weekday = of.replace(day=day).weekday()
    if weekday == 5:
        return day - 1 if day > 1 else 3
    if weekday == 6:
        return day + 1 if day < last else day - 2
    return day


class Cron(Struct, frozen=True):
    """An expression that was found to be one."""

    text: str
    wall: Wall
    real_time: bool
    """It goes on in real time through a change of the clock; else it means what the wall shows."""


@lru_cache(maxsize=4_096)
def parse_cron(expression: str) -> Cron:
    """An expression of five fields, of six with seconds first, or an alias such as @daily.

    Raises PlanInvalid that names the field and the column, or says that the expression never comes due.
    """
    if len(expression) > LONGEST_EXPRESSION:
        raise PlanInvalid("cron", f"an expression has at most {LONGEST_EXPRESSION} characters")
    source = _alias(expression.strip()) if expression.strip().startswith("@") else expression
    found = [(each[0], each.start() + 1) for each in re.finditer(r"\S+", source)]
    _refuse_question_marks(found)
    if len(found) not in {5, 6}:
        raise PlanInvalid(
            "cron",
            f"{len(found)} fields: an expression has five (minute, hour, day of month, month, day of week), "
            "or six with the second before them",
        )
    fields = (_SECONDS, *_FIVE) if len(found) == 6 else _FIVE
    nearest: set[int] = set()
    plain = [
        _plain(field, part, column, nearest) for field, (part, column) in zip(fields, found, strict=True)
    ]
    minute, hour = plain[-5], plain[-4]
    try:
        wall = Wall(" ".join(plain), frozenset(nearest), last_weekday="LW" in found[-3][0].upper().split(","))
    except CronSimError:
        # What is left to it to find: a day that none of the months has.
        raise _never(found[-3][1]) from None
    if wall.after(NAIVE_EPOCH + timedelta(days=365 * 53)) is None:
        raise _never(found[-3][1])
    return Cron(expression.strip(), wall, any(mark in field for field in (minute, hour) for mark in "*/"))


def _refuse_question_marks(found: list[tuple[str, int]]) -> None:
    """Raises PlanInvalid for the dialects of AWS and Quartz, with the expression that is meant.

    AWS has a year after five fields, Quartz a second before them; both count Sunday as 1. The place of the `?` tells them apart:
    it stands in the field of the day of month or of the weekday.
    """
    parts = [part for part, _ in found]
    marks = [n for n, part in enumerate(parts) if "?" in part]
    if not marks:
        return
    column = found[marks[0]][1]
    dialect, fields = "", parts
    if len(parts) == 6 and marks[0] in {2, 4}:
        dialect, fields = "AWS (with a year at the end)", parts[:5]
    elif len(parts) in {6, 7}:
        dialect, fields = "Quartz (with the second first)", parts[:6]
    year = parts[len(fields) :]
    meant = ["*" if part == "?" else part for part in fields]
    weekdays = meant[-1]
    meant[-1] = re.sub(r"(?<![#/\dA-Za-z])[1-7](?!\d)", lambda day: str(int(day[0]) - 1), weekdays)
    why = "'?' is not known here: any day is *"
    if dialect:
        why += f". This looks like an expression of {dialect}; what it means is {' '.join(meant)!r} here"
        if meant[-1] != weekdays:
            why += ", where Sunday is 0"
        if year and year != ["*"]:
            why += ", with the year in starts_at and ends_at"
    raise PlanInvalid("cron", f"column {column}: {why}")


def _alias(text: str) -> str:
    try:
        return ALIASES[text.lower()]
    except KeyError:
        hint = ' (a period goes into "every", such as "90s")' if text.lower().startswith("@every") else ""
        raise PlanInvalid("cron", f"{text} is none of {', '.join(ALIASES)}{hint}") from None


def _never(column: int) -> PlanInvalid:
    return _DAYS.fault(column, "no month that the expression names has such a day: it never comes due")


def _plain(field: _Field, part: str, column: int, nearest: set[int]) -> str:
    """The field in numbers alone, as the library takes it; days with W go into `nearest`."""
    terms: list[str] = []
    for term in part.split(","):
        terms.append(_term(field, term, column, nearest))
        column += len(term) + 1
    return ",".join(terms)


def _term(field: _Field, term: str, column: int, nearest: set[int]) -> str:
    upper = term.upper()
    if field is _DAYS:
        if upper in {"L", "LW"}:
            return upper
        if upper.endswith("W") and upper != "W":
            nearest.add(field.number(term[:-1], column))
            return "LW"  # stands for it with the library, which knows no such day
    if field is _WEEKDAYS:
        if upper.endswith("L") and upper != "L":
            return f"{field.number(term[:-1], column)}L"
        if "#" in term:
            name, _, nth = term.partition("#")
            if nth not in {"1", "2", "3", "4", "5"}:
                raise field.fault(column + len(name) + 1, f"{nth!r} is not from 1 to 5, after the #")
            return f"{field.number(name, column)}#{nth}"
    base, slash, step = term.partition("/")
    plain = _range(field, base, column)
    if not slash:
        return plain
    at, most = column + len(base) + 1, field.most - field.least + 1
    if not re.fullmatch(r"[0-9]{1,4}", step) or not 1 <= int(step) <= most:
        hint = ' (a period over more than that goes into "every")' if step.isdigit() and int(step) else ""
        raise field.fault(at, f"{step!r} is not a step from 1 to {most}{hint}")
    return f"{plain}/{int(step)}"


def _range(field: _Field, base: str, column: int) -> str:
    if base == "*":
        return base
    first, dash, last = base.partition("-")
    low = field.number(first, column)
    if not dash:
        return str(low)
    high = field.number(last, column + len(first) + 1)
    if field is _WEEKDAYS and high == 0 and low > 0:
        high = 7  # sat-sun: a week may end with Sunday
    if high < low:
        raise field.fault(column, f"{base!r} goes backwards: write two ranges with a comma between")
    return f"{low}-{high}"


@lru_cache(maxsize=1)
def _zone_names() -> dict[str, str]:
    """Names of the IANA zones that this process knows, by their lower case. The package tzdata has those that the system lacks."""
    return {name.lower(): name for name in zoneinfo.available_timezones() if name not in _NO_ZONES}


_NO_ZONES = {"Factory", "localtime", "posixrules"}


@lru_cache(maxsize=1_024)
def zone_of(name: str) -> tzinfo:
    """The zone of an IANA name. Raises PlanInvalid that names the nearest ones.

    Names are compared case by case: some file systems would find `europe/berlin`, others not.
    """
    if name == "UTC":
        return UTC
    known = _zone_names()
    right = known.get(name.lower())
    if right == name:
        try:
            return zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise PlanInvalid("timezone", f"{name!r}: its file cannot be read: {error}") from error
    if right is not None:
        raise PlanInvalid("timezone", f"{name!r} is no IANA time zone: it is written {right}")
    near = [known[one] for one in difflib.get_close_matches(name.lower(), known, n=3)]
    hint = f"; near it: {', '.join(near)}" if near else ""
    raise PlanInvalid("timezone", f"{name!r} is no IANA time zone, such as Europe/Berlin{hint}")


def wall_time(at_ms: int, zone: tzinfo) -> datetime:
    """What a clock on the wall of a zone shows at an instant."""
    return (EPOCH + timedelta(milliseconds=at_ms)).astimezone(zone).replace(tzinfo=None, fold=0)


def offset_ms(at_ms: int, zone: tzinfo) -> int:
    """How far the wall is ahead of UTC at this instant."""
    if zone is UTC:
        return 0
    offset = (EPOCH + timedelta(milliseconds=at_ms)).astimezone(zone).utcoffset()
    return 0 if offset is None else offset // _MS


def change_between(first_ms: int, last_ms: int, zone: tzinfo) -> int | None:
    """The first instant after `first_ms`, up to `last_ms`, with another offset. No zone changes twice within a day."""
    if zone is UTC:
        return None
    offset, low = offset_ms(first_ms, zone), first_ms
    while low < last_ms:
        high = min(low + DAY_MS, last_ms)
        if offset_ms(high, zone) != offset:
            while high - low > 1:
                middle = (low + high) // 2
                if offset_ms(middle, zone) == offset:
                    low = middle
                else:
                    high = middle
            return high
        low = high
    return None


def _instant(shown: datetime, zone: tzinfo) -> int:
    """When a wall shows this: the first time of two, the end of the gap where it never does."""
    at = (shown.replace(tzinfo=zone, fold=0) - EPOCH) // _MS
    if zone is UTC or wall_time(at, zone) == shown:
        return at
    earlier = (shown.replace(tzinfo=zone, fold=1) - EPOCH) // _MS
    change = change_between(earlier, at, zone)
    return at if change is None else change


def _next_fixed(wall: Wall, zone: tzinfo, after_ms: int) -> int | None:
    shown = wall.after(wall_time(after_ms, zone))
    while shown is not None:
        # Of the second time that a wall shows an hour, and of several slots in one gap, nothing comes anew.
        if (at := _instant(shown, zone)) > after_ms:
            return at
        shown = wall.after(shown)
    return None


def _next_real(wall: Wall, zone: tzinfo, after_ms: int) -> int | None:
    while True:
        offset = offset_ms(after_ms, zone)
        shown = wall.after(NAIVE_EPOCH + timedelta(milliseconds=after_ms + offset))
        if shown is None:
            return None
        at = (shown - NAIVE_EPOCH) // _MS - offset
        change = change_between(after_ms, at, zone)
        if change is None:
            return at
        if wall.after(wall_time(change, zone) - _SECOND) == wall_time(change, zone):
            return change
        after_ms = change


def next_slot(expression: str, timezone: str, after_ms: int) -> int | None:
    """The first slot of an expression after an instant; None when there is none. Raises PlanInvalid."""
    cron, zone = parse_cron(expression), zone_of(timezone)
    next_of = _next_real if cron.real_time else _next_fixed
    return next_of(cron.wall, zone, after_ms)


def words(expression: str) -> str | None:
    """What an expression says, as an English sentence; None for what the library has no words for."""
    cron = parse_cron(expression)
    if cron.wall.nearest:
        return None
    said = cron.wall.explain()
    # A restricted day of the month and a restricted weekday: either makes a day match.
    return said if cron.wall.day_and else said.replace(" and on ", " or on ")

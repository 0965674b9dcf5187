"""Limits: how fast jobs may start, how many may run at once, whose turn weighs how much; as users write and scripts read them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from fractions import Fraction
from typing import Any, TypeVar

from msgspec import Struct

from .times import duration_ms, rfc3339, seconds

T = TypeVar("T")

MOST_AT_ONCE = 1_000_000
"""The highest `concurrency` that may be set."""

MOST_RATE = 1_000_000_000
"""The highest `limit` of a rate."""

MOST_BURST = 1_000_000
"""The highest `burst` of a rate."""

HEAVIEST = 100
"""The highest weight of a group; the lowest is 1, which all have that were given none."""

COSTLIEST = 1_000
"""The highest cost of a job; the lowest is 1."""

SECOND_TO_A_DAY = 1_000, 86_400_000
"""Between which milliseconds the times of a breaker are."""

MOST_PROBES = 1_000
"""The highest `probes` of a breaker."""

_PER = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_RATE = re.compile(r"([0-9]{1,9})/([smhd])")
_LONGEST_MS = 86_400_000
_TAKES = (
    'a rate is "100/m" (s, m, h or d), or {"limit": 100, "per": "1m"} with a limit from 1 and up to a day; '
    "at most a million in a second"
)


class Unlimited(Enum):
    """No limit, although somebody weaker (a worker's code, the queue for all its groups) has one."""

    UNLIMITED = "-"


UNLIMITED = Unlimited.UNLIMITED


class Rate(Struct, frozen=True):
    """So many in so long, and after a pause `burst` more at once."""

    limit: int
    per_ms: int
    burst: int = 0

    @property
    def pause(self) -> float:
        """Seconds from one to the next, when they are spread evenly."""
        return self.per_ms / 1_000 / self.limit

    def text(self) -> str:
        """As scripts read it."""
        return f"{self.limit}|{self.per_ms}|{self.burst}"

    def document(self) -> dict[str, Any]:
        """As documents show it."""
        return {"limit": self.limit, "per": seconds(self.per_ms), "burst": self.burst}


def parse_rate(
    value: str | tuple[float, int | float | str] | tuple[float, int | float | str, float],
) -> Rate:
    """A rate as text, or as limit, duration and burst. Raises ValueError with a sentence that says what it takes."""
    limit: Any
    burst: Any = 0
    if isinstance(value, str):
        found = _RATE.fullmatch(value)
        if found is None:
            raise ValueError(_TAKES)
        limit, per = int(found[1]), _PER[found[2]]
    else:
        limit, per = value[0], duration_ms(value[1])
        burst = value[2] if len(value) == 3 else 0
    if limit != int(limit) or not (
        1 <= limit <= MOST_RATE and 1 <= per <= _LONGEST_MS and limit <= 1_000 * per
    ):
        raise ValueError(_TAKES)
    if burst != int(burst) or not 0 <= burst <= MOST_BURST:
        raise ValueError(f"the burst of a rate is a whole number from 0 to {MOST_BURST}")
    return Rate(int(limit), per, int(burst))


def rate_of_text(text: str) -> Rate | None:
    """A rate as it is stored; None for what is none. Raises ValueError for what is damaged."""
    parts = text.split("|")
    return Rate(*map(int, parts)) if len(parts) == 3 and parts[0] else None


def in_force(*said: T | Unlimited | None) -> T | None:
    """What holds of limits of which the strongest stands first; None for no limit."""
    found = next((one for one in said if one is not None), None)
    return None if found is None or isinstance(found, Unlimited) else found


def limits_text(concurrency: int | Unlimited | None, rate: Rate | Unlimited | None) -> str:
    """The four fields that records of types and groups have of these."""
    first = (
        concurrency.value
        if isinstance(concurrency, Unlimited)
        else ""
        if concurrency is None
        else concurrency
    )
    second = f"{rate.value}||" if isinstance(rate, Unlimited) else "||" if rate is None else rate.text()
    return f"{first}|{second}"


def parse_limits(fields: Sequence[str]) -> tuple[int | Unlimited | None, Rate | Unlimited | None]:
    """These again, of the four fields. Raises ValueError for what is damaged."""
    first, *rest = fields
    concurrency = UNLIMITED if first == UNLIMITED.value else int(first) if first else None
    rate = UNLIMITED if rest[0] == UNLIMITED.value else rate_of_text("|".join(rest))
    return concurrency, rate


class Breaker(Struct, frozen=True):
    """When a type is not run for a while: so many percent of the attempts of a window failed, of at least `minimum`."""

    percent: int = 50
    window_ms: int = 60_000
    minimum: int = 10
    open_ms: int = 30_000
    """How long nothing of it is claimed then."""
    probes: int = 1
    """How many run after that, to see how it goes."""

    def text(self) -> str:
        """As scripts read it."""
        return f"{self.percent};{self.window_ms};{self.minimum};{self.open_ms};{self.probes}"

    def document(self) -> dict[str, Any]:
        """As documents show it."""
        return {
            "failure_rate": self.percent / 100, "window": seconds(self.window_ms), "minimum": self.minimum,
            "open_for": seconds(self.open_ms), "probes": self.probes,
        }  # fmt: skip


def breaker_of_text(text: str) -> Breaker | Unlimited | None:
    """A breaker as it is stored. Raises ValueError for what is damaged."""
    if text == UNLIMITED.value:
        return UNLIMITED
    if not text:
        return None
    percent, window_ms, minimum, open_ms, probes = map(int, text.split(";"))
    return Breaker(percent, window_ms, minimum, open_ms, probes)


class BreakerState(Struct, frozen=True):
    """How a type's breaker stands: closed, open or half_open.

    Closed, it counts how attempts ended within the window; open, it shows what opened it; half open, its probes.
    """

    state: str = "closed"
    until_ms: int | None = None
    """Of one that is open."""
    successes: int = 0
    failures: int = 0

    def document(self) -> dict[str, Any]:
        """As documents show it."""
        until = None if self.until_ms is None else rfc3339(self.until_ms)
        return {"state": self.state, "until": until, "successes": self.successes, "failures": self.failures}


def breaker_state(text: str, breaker: Breaker, now_ms: int) -> BreakerState:
    """What a field of `meters` says of this breaker at this time; closed for none, or a damaged one."""
    word, *rest = text.split("|")
    try:
        if word == "open":
            until, passed, good, bad = map(int, rest)
            if now_ms < until <= now_ms + breaker.open_ms:
                return BreakerState("open", until, good, bad)
            return BreakerState("half_open", None, passed)
        since, good, bad, former_good, former_bad = map(int, rest)
    except ValueError:
        return BreakerState()
    windows = (now_ms - since) / breaker.window_ms
    if not 0 <= windows < 2:
        return BreakerState()
    if windows >= 1:
        windows, good, bad, former_good, former_bad = windows - 1, 0, 0, good, bad
    share = 1 - windows
    return BreakerState(successes=good + round(former_good * share), failures=bad + round(former_bad * share))


def percent_of(share: float) -> int:
    """A share as whole percents, rounded up. Raises ValueError unless it is more than 0 and at most 1."""
    if not 0 < share <= 1:
        raise ValueError("a failure rate is more than 0 and at most 1")
    return math.ceil(Fraction(repr(share)) * 100)


def _share(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ValueError("a number that is more than 0 and at most 1")
    return percent_of(value)


def _second_to_a_day(value: Any) -> int:
    least, most = SECOND_TO_A_DAY
    found = duration_ms(value)
    if not least <= found <= most:
        raise ValueError(f"from {seconds(least)} to {seconds(most)} s")
    return found


def _up_to(most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise ValueError(f"a whole number from 1 to {most}")
        return value

    return read


_BREAKER: Mapping[str, tuple[str, Callable[[Any], int]]] = {
    "failure_rate": ("percent", _share),
    "window": ("window_ms", _second_to_a_day),
    "minimum": ("minimum", _up_to(MOST_AT_ONCE)),
    "open_for": ("open_ms", _second_to_a_day),
    "probes": ("probes", _up_to(MOST_PROBES)),
}


def parse_breaker(said: Mapping[str, Any]) -> Breaker:
    """A breaker as documents have it; what is left out, or None, is as by default. Raises ValueError that names the field."""
    made: dict[str, int] = {}
    for name, value in said.items():
        if name not in _BREAKER:
            raise ValueError(f"there is no {name!r}; a breaker has {', '.join(_BREAKER)}")
        field, read = _BREAKER[name]
        if value is not None:
            try:
                made[field] = read(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    return Breaker(**made)


class GroupPolicy(Struct, frozen=True):
    """What is set for a group of a queue; None where what the queue has for all groups holds."""

    weight: int | None = None
    concurrency: int | Unlimited | None = None
    rate: Rate | Unlimited | None = None
    paused: bool = False

    def record(self) -> bytes:
        """As `groups` keeps it; empty when nothing is said."""
        if self == GroupPolicy():
            return b""
        weight = "" if self.weight is None else self.weight
        return f"{weight}|{limits_text(self.concurrency, self.rate)}|{'1' if self.paused else ''}".encode()


def parse_group(record: bytes) -> GroupPolicy:
    """A record of `groups`; nothing said for an empty or damaged one."""
    fields = record.decode(errors="replace").split("|")
    try:
        weight, *limits, paused = fields
        concurrency, rate = parse_limits(limits)
        return GroupPolicy(int(weight) if weight else None, concurrency, rate, bool(paused))
    except (ValueError, IndexError):
        return GroupPolicy()

"""Limits from what was sent, checked: rates, jobs at once, breakers; and as documents show them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from msgspec import UnsetType

from ..errors import Fault
from ..fields import BreakerFields, BurstRate, BurstRateFields
from ..limits import (
    MOST_AT_ONCE,
    MOST_BURST,
    MOST_PROBES,
    MOST_RATE,
    SECOND_TO_A_DAY,
    UNLIMITED,
    Breaker,
    Rate,
    Unlimited,
    parse_rate,
    percent_of,
)
from ..times import duration_ms, seconds

T = TypeVar("T")


def within(value: float | str, path: str, least: int, most: int, faults: list[Fault]) -> int:
    """Milliseconds of a duration between two bounds; 0 after a fault was added."""
    try:
        found = duration_ms(value)
    except ValueError as error:
        faults.append(Fault(path, str(error)))
        return 0
    if not least <= found <= most:
        faults.append(Fault(path, f"from {seconds(least)} to {seconds(most)} s"))
    return found


def whole_of(value: float | None, path: str, least: int, most: int, faults: list[Fault]) -> int | None:
    """A whole number between two bounds; None for null, and after a fault was added."""
    if value is None:
        return None
    if value != int(value) or not least <= value <= most:
        faults.append(Fault(path, f"expected a whole number from {least} to {most}"))
        return None
    return int(value)


def at_once(value: float | None, path: str, faults: list[Fault]) -> int | None:
    """How many may run at once; None for null, and after a fault was added."""
    return whole_of(value, path, 1, MOST_AT_ONCE, faults)


def rate_of(value: BurstRate | None, path: str, faults: list[Fault]) -> Rate | None:
    """A rate; None for null, and after a fault was added."""
    if value is None:
        return None
    if isinstance(value, BurstRateFields):
        before = len(faults)
        whole_of(value.limit, f"{path}/limit", 1, MOST_RATE, faults)
        within(value.per, f"{path}/per", 1, 86_400_000, faults)
        whole_of(value.burst, f"{path}/burst", 0, MOST_BURST, faults)
        if len(faults) > before:
            return None
    try:
        return parse_rate(
            (value.limit, value.per, value.burst) if isinstance(value, BurstRateFields) else value
        )
    except ValueError as error:
        faults.append(Fault(path, str(error)))
        return None


def breaker_of(value: BreakerFields, before: Breaker | Unlimited | None, faults: list[Fault]) -> Breaker:
    """A breaker, changed in what was said of it. Adds faults under /breaker."""
    default = Breaker()
    stood = before if isinstance(before, Breaker) else default

    def said(given: Any, name: str, read: Callable[[Any], int | None]) -> int:
        if isinstance(given, UnsetType):
            return int(getattr(stood, name))
        found = None if given is None else read(given)
        return int(getattr(default, name)) if found is None else found

    def percent(share: float) -> int | None:
        try:
            return percent_of(share)
        except ValueError as error:
            faults.append(Fault("/breaker/failure_rate", str(error)))
            return None

    return Breaker(
        said(value.failure_rate, "percent", percent),
        said(value.window, "window_ms", lambda v: within(v, "/breaker/window", *SECOND_TO_A_DAY, faults)),
        said(value.minimum, "minimum", lambda v: at_once(v, "/breaker/minimum", faults)),
        said(value.open_for, "open_ms", lambda v: within(v, "/breaker/open_for", *SECOND_TO_A_DAY, faults)),
        said(value.probes, "probes", lambda v: whole_of(v, "/breaker/probes", 1, MOST_PROBES, faults)),
    )


def changed(
    value: Any, before: T | Unlimited | None, weaker: T | Unlimited | None, read: Callable[[Any], T | None]
) -> T | Unlimited | None:  # fmt: skip
    """A limit as it is set from now on. null lifts it, and also what a weaker word says."""
    if isinstance(value, UnsetType):
        return before
    if value is None:
        return None if weaker is None else UNLIMITED
    return read(value)


def shown(limit: Rate | Breaker | int | Unlimited | None) -> Any:
    """A limit as documents show it; null for none."""
    if isinstance(limit, Rate | Breaker):
        return limit.document()
    return None if isinstance(limit, Unlimited) else limit

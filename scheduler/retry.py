"""The retry policy: what a job, a type and a handler may say of it, and which value is in force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from .times import duration_ms, seconds

DEFAULT_TIMEOUT_MS = 3_600_000
LONGEST_TIMEOUT_MS = 7 * 86_400_000
LONGEST_DELAY_MS = 7 * 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and when a failed job is tried again. What is None is left to the next weaker word.

    Durations are seconds (or text like "5m"). The first `immediate` retries come at once; the k-th one after
    them (k from 0) waits `d * (1 - jitter * r)`, `d = min(max_delay, base * factor**k)`, r random in [0, 1).
    """

    max_attempts: int | None = None
    immediate: int | None = None
    base: float | str | None = None
    factor: float | None = None
    max_delay: float | str | None = None
    jitter: float | None = None
    non_retryable: Sequence[str] | None = None
    max_crashes: int | None = None

    def __post_init__(self) -> None:
        """Raises ValueError, with the field's name, for a value out of its range."""
        for path, message in faults(self.document()):
            raise ValueError(f"{path.lstrip('/')}: {message}")

    def document(self) -> dict[str, Any]:
        """Only what is said."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}


DEFAULTS: Mapping[str, Any] = {
    "max_attempts": 20,
    "immediate": 1,
    "base": 2_000,
    "factor": 2,
    "max_delay": 3_600_000,
    "jitter": 0.5,
    "non_retryable": [],
    "max_crashes": 3,
}
"""What holds where nobody says anything, as it is stored: durations in ms."""


def _whole(value: object, least: int, most: int) -> str | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        return f"a whole number from {least} to {most}"
    return None


def _number(value: object, least: float, most: float) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        return f"a number from {least:g} to {most:g}"
    return None


def _duration(value: object) -> str | None:
    try:
        if duration_ms(value) > LONGEST_DELAY_MS:
            return "at most 7 days"
    except ValueError as error:
        return str(error)
    return None


def _kinds(value: object) -> str | None:
    if not isinstance(value, list | tuple) or len(value) > 100:
        return "a list of at most 100 error kinds"
    if not all(isinstance(kind, str) and 0 < len(kind) <= 200 for kind in value):
        return "error kinds of 1 to 200 characters"
    return None


_RULES: Mapping[str, Any] = {
    "max_attempts": lambda value: _whole(value, 1, 1000),
    "immediate": lambda value: _whole(value, 0, 1000),
    "base": _duration,
    "factor": lambda value: _number(value, 1, 1000),
    "max_delay": _duration,
    "jitter": lambda value: _number(value, 0, 1),
    "non_retryable": _kinds,
    "max_crashes": lambda value: _whole(value, 1, 1000),
}


def faults(document: object) -> list[tuple[str, str]]:
    """What is wrong with a policy as it was sent: (JSON Pointer, what is expected)."""
    if not isinstance(document, Mapping):
        return [("", "an object")]
    found = []
    for name, value in document.items():
        rule = _RULES.get(name)
        if rule is None:
            found.append((f"/{name}", f"there is no such field; a retry policy has {', '.join(_RULES)}"))
        elif message := rule(value):
            found.append((f"/{name}", f"expected {message}"))
    return found


def stored(document: Mapping[str, Any]) -> dict[str, Any]:
    """A valid policy as scripts read it: durations in ms, whole numbers as integers."""
    made: dict[str, Any] = {}
    for name, value in document.items():
        if name in {"base", "max_delay"}:
            made[name] = duration_ms(value)
        elif isinstance(value, float) and value.is_integer():
            made[name] = int(value)
        else:
            made[name] = list(value) if name == "non_retryable" else value
    return made


def shown(policy: Mapping[str, Any]) -> dict[str, Any]:
    """A stored policy as documents show it: durations in seconds."""
    return {
        name: seconds(value) if name in {"base", "max_delay"} else value for name, value in policy.items()
    }


def in_force(*weakest_first: Mapping[str, Any]) -> dict[str, Any]:
    """The stored policy that holds, field by field, the last one strongest."""
    made = dict(DEFAULTS)
    for policy in weakest_first:
        made.update(policy)
    return made


def delays(policy: Mapping[str, Any]) -> list[tuple[int, int]]:
    """The shortest and longest delay in ms before each retry of a job, by a policy as stored that leaves nothing out.

    The first retry follows the first failed attempt; there are `max_attempts` - 1 of them.
    """
    least_share = 1 - policy["jitter"]
    found = []
    longest = float(policy["base"])
    for retry in range(1, policy["max_attempts"]):
        if retry <= policy["immediate"]:
            found.append((0, 0))
            continue
        waits = min(policy["max_delay"], longest)
        found.append((round(waits * least_share), round(waits)))
        # Beyond the bound the product is not worked out: 1000 to the power of 1000 is no float.
        longest = min(longest * policy["factor"], 2.0 * LONGEST_DELAY_MS)
    return found

"""Times and durations as users write them, and as the server counts them: integer milliseconds."""

import math
import re
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import lru_cache

_MS_PER = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_PLAIN_SECONDS = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?")
_DURATION_TAKES = (
    'a duration is seconds as a number of 0 or more, or text such as "250ms", "30s", "5m", "2h", "7d"'
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:([0-9]{2}))(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))?"
)
_TIME_TAKES = (
    'a time is written as RFC 3339 has it, such as "2027-01-31T08:30:00Z" or "2027-01-31T09:30:00+01:00"'
)


def duration_ms(value: object) -> int:
    """Milliseconds of a duration from a document: seconds as a number, or "250ms" "30s" "5m" "2h" "7d".

    What is finer than a millisecond is rounded up: nothing that waits for it comes too early. Raises
    ValueError with a sentence that says what a duration is. Whether it is too long is for the caller to say.
    """
    match value:
        case bool():
            pass
        case int() if value >= 0:
            return value * 1_000
        case float() if math.isfinite(value) and value >= 0:
            # By its shortest decimal form, which is what was written: 0.1 s is 100 ms, not 101.
            return math.ceil(Fraction(repr(value)) * 1_000)
        case str() if found := _DURATION.fullmatch(value):
            return math.ceil(Fraction(found[1]) * _MS_PER[found[2]])
    raise ValueError(_DURATION_TAKES)


def typed_duration_ms(text: str) -> int:
    """As duration_ms, for what is typed as text only (an option, a variable): there "30" is 30 seconds."""
    return math.ceil(Fraction(text) * 1_000) if _PLAIN_SECONDS.fullmatch(text) else duration_ms(text)


def seconds(ms: int) -> int | float:
    """A duration as documents show it: seconds, an integer when they are whole."""
    whole, rest = divmod(ms, 1_000)
    return ms / 1_000 if rest else whole


@lru_cache(maxsize=256)  # jobs of one call were made in one millisecond
def rfc3339(ms: int) -> str:
    """A time as documents show it: UTC, with milliseconds and Z. Takes milliseconds since 1970."""
    return (_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds")[:-6] + "Z"


def parse_rfc3339(text: str) -> int:
    """Milliseconds since 1970 of a time with an offset, rounded up; negative before 1970.

    Raises ValueError with a sentence that says what is wrong: no offset, no such date, second 60, no time.
    """
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ValueError(_TIME_TAKES)
    day, clock, second, fraction, sign, hours, minutes = found.groups()
    if text[-1] not in "Zz" and sign is None:
        raise ValueError(f"the time has no offset: end it in Z for UTC, or as in +01:00; {_TIME_TAKES}")
    if second == "60":
        raise ValueError("a leap second (second 60) is not taken: write second 59 or the next minute")
    try:
        utc = datetime.fromisoformat(f"{day}T{clock}+00:00")
        if sign:
            utc -= _offset(sign, int(hours), int(minutes))
        utc += _fraction(fraction or "")
    except (ValueError, OverflowError):
        raise ValueError(f"there is no such date, time of day or offset; {_TIME_TAKES}") from None
    return (utc - _EPOCH) // _MS


def _offset(sign: str, hours: int, minutes: int) -> timedelta:
    if hours > 23 or minutes > 59:
        raise ValueError
    return timedelta(hours=hours, minutes=minutes) * (1 if sign == "+" else -1)


def _fraction(digits: str) -> timedelta:
    finer = bool(digits[3:].strip("0"))
    return timedelta(milliseconds=int(digits[:3].ljust(3, "0")) + finer)

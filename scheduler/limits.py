"""Limits as users write them."""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct

from .times import duration_ms

_PER = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_RATE = re.compile(r"([0-9]{1,9})/([smhd])")
_MOST, _LONGEST_MS = 1_000_000_000, 86_400_000
_TAKES = (
    'a rate is "100/m" (s, m, h or d), or {"limit": 100, "per": "1m"} with a limit from 1 and up to a day'
)


class Rate(Struct, frozen=True):
    """So many in so long."""

    limit: int
    per_ms: int

    @property
    def pause(self) -> float:
        """Seconds from one to the next, when they are spread evenly."""
        return self.per_ms / 1_000 / self.limit


def parse_rate(value: str | tuple[float, int | float | str]) -> Rate:
    """A rate as text, or as limit and duration. Raises ValueError with a sentence that says what it takes."""
    limit: Any
    if isinstance(value, str):
        found = _RATE.fullmatch(value)
        if found is None:
            raise ValueError(_TAKES)
        limit, per = int(found[1]), _PER[found[2]]
    else:
        limit, per = value[0], duration_ms(value[1])
    if limit != int(limit) or not (1 <= limit <= _MOST and 1 <= per <= _LONGEST_MS):
        raise ValueError(_TAKES)
    return Rate(int(limit), per)

"""What makes two failures the same, for people: a fingerprint."""

from __future__ import annotations

import hashlib
import re

LONGEST = 1_000
"""Characters of a message that count."""

# Each begins where nothing of its own stands before it: else a long word would be read once from each of its letters.
_ADDRESS = re.compile(r"(?<![^\s\"'<>(),;])[^\s\"'<>(),;@]+@[^\s\"'<>(),;]+")
_WORD = re.compile(r"(?<![\w-])[\w-]*\d[\w-]*")
_JOINED = re.compile(r"#(?:[.,:/]+#)+")


def pattern_of(message: str) -> str:
    """A message with numbers and ids taken out: "job 12 of bob@example.org" is "job # of #".

    Every word with a digit in it is an id or a number (42, 30s, 0x7f, cus_8fh2, a UUID), and so is what has an @; what
    stands between two of them by a point, comma, colon or slash alone (times, addresses, dates) is one with them.
    Runs of white space count as one. Only the first 1,000 characters count.
    """
    text = _WORD.sub("#", _ADDRESS.sub("#", message[:LONGEST]))
    return " ".join(_JOINED.sub("#", text).split())


def fingerprint_of(job_type: str, kind: str, message: str) -> str:
    """16 hexadecimal digits, the same for failures of one type and kind whose messages differ in numbers and ids only."""
    text = "\0".join((job_type, kind, pattern_of(message)))
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()

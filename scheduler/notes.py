"""What handlers have told and the store does not know yet: progress, checkpoints, log lines, extensions."""

from __future__ import annotations

from collections.abc import Iterable

from .outcomes import Extend, Note

MOST_LINES = 1_000
"""Pending log lines of one attempt. The store keeps as many of a job: older ones would be dropped there."""

MOST_BYTES = 4 * 1024 * 1024
"""Pending log lines of one attempt, in bytes."""


class Notes:
    """Pending notes in order. Of the progress, checkpoint and extension of an attempt only the newest is pending."""

    def __init__(self) -> None:
        self._pending: dict[tuple[object, ...], Note | Extend] = {}
        self._lines: dict[int, tuple[int, int]] = {}
        """Token -> pending log lines, and their bytes."""

    def __len__(self) -> int:
        return len(self._pending)

    def append(self, note: Note | Extend) -> None:
        """Adds a note; an older one that it replaces goes, and the oldest log lines where an attempt has too many."""
        key = _key(note)
        before = self._pending.pop(key, None)
        self._pending[key] = note
        if before is None and isinstance(note, Note) and note.field == "log":
            count, size = self._lines.get(note.token, (0, 0))
            self._lines[note.token] = count + 1, size + len(note.value)
            if count + 1 >= 2 * MOST_LINES or size + len(note.value) > MOST_BYTES:
                self._drop_lines(note.token)

    def take(self) -> list[Note | Extend]:
        """All that is pending, which is not any more."""
        taken, self._pending = list(self._pending.values()), {}
        self._lines.clear()
        return taken

    def put_back(self, notes: Iterable[Note | Extend]) -> None:
        """Notes that were not stored: they come before newer ones, which replace them where only the newest counts."""
        newer = self.take()
        for note in (*notes, *newer):
            self.append(note)

    def _drop_lines(self, token: int) -> None:
        """Keeps an attempt's newest log lines, with half of the bytes: one pass for many lines."""
        lines = [key for key in self._pending if key[0] == token and key[1] == "log"]
        count = size = 0
        for key in reversed(lines):
            note = self._pending[key]
            assert isinstance(note, Note), "its key says so"
            if count < MOST_LINES and size + len(note.value) <= MOST_BYTES // 2:
                count, size = count + 1, size + len(note.value)
            else:
                del self._pending[key]
        self._lines[token] = count, size


def _key(note: Note | Extend) -> tuple[object, ...]:
    if isinstance(note, Extend):
        return note.token, "extend"
    return (note.token, note.field, note.seq) if note.field == "log" else (note.token, note.field)

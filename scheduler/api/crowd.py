"""How many connections there may be: as many as the process has room for, and who waits for nothing goes first."""

from __future__ import annotations

import resource
from typing import Protocol

from ..logs import get_logger

log = get_logger(__name__)

MOST_FILES = 65_536
"""How many files a process that serves asks its system for."""


class Guest(Protocol):
    """A connection. `quiet`: no request of it is being answered."""

    @property
    def quiet(self) -> bool: ...

    def force_close(self) -> None: ...


class Crowd:
    """The open connections of a server."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._open: dict[Guest, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def enter(self, guest: Guest) -> None:
        """Lets one in. Beyond the most, the one that has been quiet here for longest goes; if all are busy, the new one."""
        self._open[guest] = None
        if len(self._open) <= self.most:
            return
        leaving = next((one for one in self._open if one.quiet and one is not guest), guest)
        log.debug("too many connections", most=self.most, busy=leaving is guest)
        self.leave(leaving)
        leaving.force_close()

    def rest(self, guest: Guest) -> None:
        """One has been answered: of those that are quiet, it is now the last to go."""
        if guest in self._open:
            del self._open[guest]
            self._open[guest] = None

    def leave(self, guest: Guest) -> None:
        self._open.pop(guest, None)


def room() -> int:
    """How many connections this process has room for: half of the files that it may open, raised as far as its system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return max(16, (wanted if soft == resource.RLIM_INFINITY else soft) // 2)

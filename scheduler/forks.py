"""What a handler forks touches nothing of ours: it can be terminated, and holds no file that says that we are alive."""

from __future__ import annotations

import contextlib
import os
import signal

_registered = False
_files: set[int] = set()


def guard(*files: int) -> None:
    """From now on a forked child has the usual signal handlers and none of these descriptors. May be called again.

    A child shares the descriptor by which the event loop is woken for a signal (`signal.set_wakeup_fd`): a SIGTERM for the child
    would stop this process, and the child, which has our handler, would live on.
    """
    global _registered  # noqa: PLW0603 - what is registered with the interpreter stays so
    _files.update(files)
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_child=_in_child)


def release(*files: int) -> None:
    """These descriptors are closed: their numbers may be other files by now."""
    _files.difference_update(files)


def _in_child() -> None:
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for file in _files:
        with contextlib.suppress(OSError):
            os.close(file)
    _files.clear()

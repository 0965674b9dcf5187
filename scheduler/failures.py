"""What an exception of a handler says of its job, whatever its class does when it is looked at."""

from __future__ import annotations

import asyncio
import math
import os
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast

from .attempt import HandlerExit
from .errors import HandlerFailed, Permanent, RetryAfter, Snooze

T = TypeVar("T")

LONGEST_TEXT = 65_536
"""Characters of an error's message or trace that are kept."""

LONGEST_KIND = 200
"""Characters of the name of an error's class that are kept."""

MOST_LEAVES = 1_000
"""Exceptions of a group that are looked at."""

LONGEST_DELAY = 7 * 86_400.0
"""Seconds, as RetryAfter allows them."""

_ERROR: Any = BaseException
_GROUP: Any = BaseExceptionGroup
"""Their own attributes, past those that a subclass puts in their place."""

_PACKAGE = str(Path(__file__).parent) + os.sep
_SHIPPED = _PACKAGE + "shipped" + os.sep
_ASYNCIO = str(Path(asyncio.__file__).parent) + os.sep
_LIBRARIES = tuple({sysconfig.get_paths()[name] + os.sep for name in ("stdlib", "purelib", "platlib")})
_RUNNERS = frozenset(
    _PACKAGE + name
    for name in ("attempt.py", "execute.py", "handlers.py", "threads.py", "processes.py", "_child.py")
)


class ResultInvalid(Exception):
    """What the handler returned is no JSON."""


class ResultTooLarge(Exception):
    """What the handler returned is larger than the setting allows."""


def failure_of(error: BaseException, outer: BaseException | None = None) -> HandlerFailed:
    """What becomes of the job after this exception. Never raises.

    `outer` is what was being handled when the attempt began: it is no cause of the failure.
    """
    if issubclass(type(error), HandlerFailed):
        return cast("HandlerFailed", error)  # the class is asked, not the object, which may answer anything
    judged = _judged(error)
    kind = type(judged)
    if issubclass(kind, Snooze) and (pause := _seconds(judged, 3_652 * 86_400.0)) is not None:
        return HandlerFailed("", "", verb="release", seconds=pause)
    verb = "bury" if issubclass(kind, Permanent | ResultInvalid | ResultTooLarge) else "nack"
    seconds: float | None = None
    scope = ""
    if verb == "nack" and issubclass(kind, RetryAfter):
        seconds = _seconds(judged, LONGEST_DELAY)
        asked = _tried(lambda: judged.scope, None)  # type: ignore[attr-defined]
        scope = asked if type(asked) is str and asked in {"type", "group"} and seconds is not None else ""
    trace, where = trace_of(error, outer)
    return HandlerFailed(_name(kind), readable(judged), trace, verb, seconds, scope, where)


def _judged(error: BaseException) -> BaseException:
    """The exception that decides: of a group whose members are of one class a member, and `Permanent` before all others."""
    leaves: list[BaseException] = []
    left = [error]
    while left and len(leaves) < MOST_LEAVES:
        one = left.pop()
        if issubclass(type(one), HandlerExit):
            one = _ERROR.__cause__.__get__(one) or one
        if issubclass(type(one), BaseExceptionGroup):
            left.extend(reversed(_GROUP.exceptions.__get__(one)))
        else:
            leaves.append(one)
    for leaf in leaves:
        if issubclass(type(leaf), Permanent | ResultInvalid | ResultTooLarge):
            return leaf
    first = _family(type(leaves[0]))
    if left or any(_family(type(leaf)) is not first for leaf in leaves):
        return error
    # Of several delays the longest: what is asked for by one holds for all.
    return max(leaves, key=lambda leaf: _seconds(leaf, math.inf) or 0.0)


def _family(kind: type[BaseException]) -> type[BaseException]:
    for base in (RetryAfter, Snooze):
        if issubclass(kind, base):
            return base
    return kind


def _seconds(error: BaseException, most: float) -> float | None:
    """The delay an exception asks for; None where it has none that can be used."""
    if not issubclass(type(error), RetryAfter | Snooze):
        return None
    said = _tried(lambda: float(error.seconds), None)  # type: ignore[attr-defined]
    return said if type(said) is float and 0 <= said <= most else None


def _tried(look: Callable[[], T], otherwise: T) -> T:
    try:
        return look()
    except BaseException:  # noqa: BLE001 - a user's class may raise anything
        return otherwise


def _plain(text: str, most: int) -> str:
    """The text, of class str itself, cut, and without what UTF-8 cannot say."""
    cut = str.__getitem__(text, slice(None, most))
    return cut.encode("utf-8", "replace").decode()


def _name(kind: type[BaseException]) -> str:
    # Past a metaclass that has a `__name__` of its own.
    name = type.__dict__["__name__"].__get__(kind)
    return _plain(name, LONGEST_KIND) or "Exception"


def readable(error: BaseException) -> str:
    """The text of an exception, whatever its `__str__` does."""
    try:
        return _plain(str(error), LONGEST_TEXT)
    except BaseException as broken:  # noqa: BLE001 - a user's class may raise anything
        return f"<the error's text could not be made: {_name(type(broken))}>"


def trace_of(error: BaseException, outer: BaseException | None = None) -> tuple[str, str]:
    """The traceback without frames of ours, its end when it is long; and its last frame in the user's own code."""
    where = ""
    try:
        if outer is not None:
            _without(error, outer)
        made = traceback.TracebackException(type(error), error, _frames(error), limit=-30)
        _cut(made)
        where = _where(made)
        text = "".join(made.format())
    except BaseException as broken:  # noqa: BLE001 - a user's class may raise anything
        text = f"<the traceback could not be made: {_name(type(broken))}>\n"
        text += _tried(lambda: "".join(traceback.format_tb(_frames(error), limit=-20)), "")
    return _plain(
        text if len(text) <= LONGEST_TEXT else "[cut] …" + text[-LONGEST_TEXT + 16 :], LONGEST_TEXT
    ), where


def _frames(error: BaseException) -> TracebackType | None:
    found: TracebackType | None = _ERROR.__traceback__.__get__(error)
    return found


def _without(error: BaseException, outer: BaseException) -> None:
    """Takes what was being handled before the attempt out of the chain of contexts."""
    context = _ERROR.__context__
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and one is not outer and id(one) not in seen:
        seen.add(id(one))
        before = context.__get__(one)
        if before is outer:
            context.__set__(one, None)
            return
        one = before


def _cut(made: traceback.TracebackException) -> None:
    """Cuts out the frames that only carry the call: of this package, and of asyncio before the user's first."""
    left, seen = [made], set[int]()
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        frames = list(one.stack)
        first = next((n for n, frame in enumerate(frames) if not _carries(frame.filename)), None)
        # An error that is ours alone keeps its frames: they are all there is to see. One that stands for its cause has none.
        if first is not None or one.exc_type is HandlerExit:
            kept = [frame for frame in frames[first or 0 :] if frame.filename not in _RUNNERS]
            one.stack[:] = kept
        left += [other for other in (one.__cause__, one.__context__) if other is not None]
        left += one.exceptions or ()


def _carries(filename: str) -> bool:
    return (filename.startswith(_PACKAGE) and not filename.startswith(_SHIPPED)) or filename.startswith(
        (_ASYNCIO, "<frozen runpy")
    )


def _where(made: traceback.TracebackException) -> str:
    """The last frame of the user's own code, such as `shop/jobs.py:12 in send`; of a group that of its first member."""
    one: traceback.TracebackException | None = made
    found = ""
    for _ in range(20):
        if one is None:
            break
        if one.exc_type is HandlerExit and one.__cause__ is not None:
            one = one.__cause__
        frames = [
            frame
            for frame in one.stack
            if not (_carries(frame.filename) or frame.filename.startswith((*_LIBRARIES, "<")))
        ]
        if frames:
            last = frames[-1]
            name = last.filename
            here = str(Path.cwd()) + os.sep
            found = f"{name.removeprefix(here)}:{last.lineno} in {last.name}"
        one = one.exceptions[0] if one.exceptions else None
    return found

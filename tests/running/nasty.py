"""Exceptions whose classes misbehave wherever they are looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from scheduler.errors import Permanent, RetryAfter, Snooze


def _exit(*_: Any) -> Any:
    raise SystemExit(3)


class Forgetful(RetryAfter):
    """It does not call the `__init__` of its base."""

    def __init__(self) -> None:
        pass


class ForgetfulSnooze(Snooze):
    def __init__(self) -> None:
        self.seconds = "soon"  # type: ignore[assignment]


class BadText(Exception):
    __str__ = __repr__ = _exit


class BadTextOfPermanent(Permanent):
    __str__ = __repr__ = _exit


class BadClass(Exception):
    __class__ = property(_exit)


class BadParts(Exception):
    args = __notes__ = __traceback__ = __cause__ = __context__ = property(_exit)


class BadLook(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise KeyboardInterrupt(name)


class BadStop(StopIteration):
    __str__ = _exit


class BadScope(RetryAfter):
    scope = property(_exit, lambda *_: None)


class Text(str):
    __slots__ = ()
    __getitem__ = __len__ = __format__ = encode = _exit  # type: ignore[assignment]


class OddText(Exception):
    def __str__(self) -> str:
        return Text("odd")


class _Meta(type):
    __name__ = property(_exit)
    __instancecheck__ = __subclasscheck__ = __eq__ = __hash__ = _exit


class BadMeta(Exception, metaclass=_Meta):
    pass


class BadGroup(ExceptionGroup):
    exceptions = property(_exit)


def _noted() -> Exception:
    error = ValueError("noted")
    error.__notes__ = [BadText(), 5, None]  # type: ignore[list-item]
    return error


def _circle() -> Exception:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


NASTY: dict[str, Callable[[], BaseException]] = {
    "value": lambda: ValueError("plain"),
    "base": lambda: BaseException("base"),
    "interrupt": lambda: KeyboardInterrupt("stop"),
    "exit": lambda: SystemExit(0),
    "generator": lambda: GeneratorExit("gone"),
    "stop": lambda: StopIteration(1),
    "bad-stop": lambda: BadStop(1),
    "async-stop": lambda: StopAsyncIteration(1),
    "cancelled": lambda: asyncio.CancelledError("self"),
    "timeout": lambda: TimeoutError("own"),
    "forgetful": Forgetful,
    "snooze": ForgetfulSnooze,
    "text": BadText,
    "permanent-text": lambda: BadTextOfPermanent("x"),
    "class": BadClass,
    "parts": BadParts,
    "look": BadLook,
    "scope": lambda: BadScope(1),
    "odd-text": OddText,
    "meta": BadMeta,
    "group": lambda: BadGroup("group", [ValueError("leaf")]),
    "base-group": lambda: BaseExceptionGroup("group", [KeyboardInterrupt(), SystemExit()]),
    "surrogate": lambda: ValueError("\ud800 \x00"),
    "name": lambda: type("Näm\n" * 1_000, (Exception,), {})("named"),
    "long": lambda: ValueError("x" * 1_000_000),
    "noted": _noted,
    "circle": _circle,
    "reject": lambda: BadText(BadText()),
}

"""Logs on stderr: one record a line, JSON or for a terminal; control characters escaped, secrets taken out.

Until configure() is called, which our own commands do, this package is a library in somebody's program:
records go to the standard library's logging, and that program decides what becomes of them.
structlog comes with the first record: most commands end without one, and its import takes longer than they run.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

import orjson

from .attempt import attempt_fields
from .settings import SETTINGS, Settings
from .times import rfc3339

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_HIDDEN = "***"
_SECRET_NAME = re.compile("authorization|cookie|passw|secret|api.?key", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"(?P<url>[a-z][a-z0-9+.-]*://[^\s/?#:@\"']*:)[^\s/?#\"']*(?=@)"
    r"|(?P<query>[?&]password=)[^\s&#\"']+"
    r"|(?P<scheme>\bbearer\s+)[A-Za-z0-9._~+/=-]{16,}",
    re.IGNORECASE,
)
# Besides C0: what moves a terminal's cursor, ends a line for some reader, or turns the text round.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_COLOURS = {"debug": 36, "info": 32, "warning": 33, "error": 31, "critical": 31}


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger of that name: `log.info("claimed", queue="mail", count=3)`. May be made before configure()."""
    return cast("FilteringBoundLogger", _Logger(name))


def configure(settings: Settings) -> None:
    """From now on this process logs to stderr as the settings say, the records of other packages included."""
    from structlog.contextvars import merge_contextvars  # noqa: PLC0415
    from structlog.processors import format_exc_info  # noqa: PLC0415

    as_json = settings.log_format == "json" or (settings.log_format is None and not sys.stderr.isatty())
    level = _LEVELS[settings.log_level]
    _processors[:] = [
        _drop_below(level),
        _name_attempt,
        merge_contextvars,
        format_exc_info,
        _hide(*_secrets_of(settings)),
        _json_line
        if as_json
        else _console_line(coloured=sys.stderr.isatty() and not os.environ.get("NO_COLOR")),
    ]
    root = logging.getLogger()
    root.setLevel(level)
    root.removeHandler(_others)
    root.addHandler(_others)


def redact(text: str) -> str:
    """The text, or URL, without the passwords of the URLs in it and without bearer keys."""
    return _SECRET_TEXT.sub(
        lambda found: f"{found['url'] or found['query'] or found['scheme']}{_HIDDEN}", text
    )


def _hand_over(wrapped: WrappedLogger, method: str, event: EventDict) -> EventDict:
    from structlog import DropEvent  # noqa: PLC0415

    logger = logging.getLogger(event.pop("logger"))
    exc_info = event.pop("exc_info", None)
    if logger.isEnabledFor(_LEVELS[method]):
        logger.log(_LEVELS[method], "%s", _plain(_hide()(wrapped, method, event)), exc_info=exc_info)
    raise DropEvent


def _drop_below(level: int) -> Processor:
    from structlog import DropEvent  # noqa: PLC0415

    def drop(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        if _LEVELS[method] < level:
            raise DropEvent
        return event

    return drop


def _secrets_of(settings: Settings) -> tuple[str, ...]:
    """What must not be seen wherever it turns up. What is very short would take half of each line along."""
    values = {getattr(settings, row.attribute) or "" for row in SETTINGS if row.secret}
    passwords = {urlsplit(value).password or "" for value in values if "://" in value and "," not in value}
    found = {value for value in values if "://" not in value} | passwords | set(map(unquote, passwords))
    return tuple(sorted((text for text in found if len(text) >= 6), key=len, reverse=True))


def _hide(*secrets: str) -> Callable[[WrappedLogger, str, EventDict], EventDict]:
    def clean(value: object) -> object:
        match value:
            case str():
                for secret in secrets:
                    value = value.replace(secret, _HIDDEN)
                return redact(value)
            case bytes():
                return clean(value.decode(errors="backslashreplace"))
            case dict():
                return fields(value)
            case list() | tuple() | set() | frozenset():
                return [clean(item) for item in value]
            case int() | float() | None:
                return value
            case _:
                return clean(_repr(value))

    @lru_cache(1_000)
    def name(text: str) -> tuple[str, bool]:
        return str(clean(text)), _SECRET_NAME.search(text) is not None

    def fields(mapping: Mapping[Any, object]) -> EventDict:
        shown: EventDict = {}
        for key, value in mapping.items():
            text, secret = name(str(key))
            shown[text] = _HIDDEN if secret and value is not None else clean(value)
        return shown

    return lambda _logger, _method, event: fields(event)


def _json_line(_logger: WrappedLogger, method: str, event: EventDict) -> bytes:
    record = {
        "time": rfc3339(time.time_ns() // 1_000_000),
        "level": method,
        "event": event.pop("event"),
        **event,
    }
    try:
        line = orjson.dumps(record)
    except TypeError:  # an integer beyond 64 bits, a lone surrogate, too deep
        line = json.dumps(record).encode()
    if line.isascii() and b"\x7f" not in line:
        return line
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", line.decode()).encode()


def _console_line(*, coloured: bool) -> Processor:
    def paint(text: str, code: int) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if coloured else text

    def line(_logger: WrappedLogger, method: str, event: EventDict) -> bytes:
        now = time.time()
        clock = f"{time.strftime('%H:%M:%S', time.localtime(now))}.{int(now * 1_000) % 1_000:03}"
        trace = str(event.pop("exception", ""))
        del event["logger"]
        text = f"{paint(clock, 2)} {paint(f'{method:<8}', _COLOURS[method])} {_plain(event)}"
        # A traceback stays readable, and indented it cannot be taken for a record.
        for row in trace.splitlines():
            text += f"\n    {escaped(row)}"
        return text.encode()

    return line


def _plain(event: EventDict) -> str:
    """The event and its fields on one line, such as `lease lost queue=mail message="two words"`."""
    words = [escaped(str(event.pop("event")))]
    words += [f"{escaped(name)}={_word(value)}" for name, value in event.items()]
    return " ".join(words)


def _word(value: object) -> str:
    text = escaped(value if isinstance(value, str) else _repr(value))
    return text if text and not re.search(r"[\s\"=]", text) else '"' + text.replace('"', '\\"') + '"'


def escaped(text: str) -> str:
    """The text without what moves a terminal's cursor, ends a line or turns the text round: its escape instead."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a record is not lost because a user's object cannot be shown
        return f"<{type(value).__name__}>"


class _Stderr:
    """Writes a line by one system call, so that lines of several threads and processes do not mix."""

    def write(self, line: bytes) -> None:
        line += b"\n"
        try:
            while line:
                line = line[os.write(2, line) :]
        except OSError:
            pass  # nobody reads it, or the disk is full: no reason to stop working

    debug = info = warning = error = critical = write


class _Others(logging.Handler):
    """Takes the records that other packages give to the standard library's logging."""

    def emit(self, record: logging.LogRecord) -> None:
        level = max((known for known in _LEVELS.values() if known <= record.levelno), default=logging.DEBUG)
        failed = record.exc_info and record.exc_info[0] is not None
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - wrong arguments to somebody's log call
            text = _repr((record.msg, record.args))
        get_logger(record.name).log(level, text, exc_info=record.exc_info if failed else None)


class _Logger:
    """A logger that is made by its first word."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, word: str) -> Any:
        if word.startswith("__"):  # copy and pickle ask for what a logger has not
            raise AttributeError(word)
        from structlog import make_filtering_bound_logger  # noqa: PLC0415

        make: Callable[..., FilteringBoundLogger] = make_filtering_bound_logger(logging.NOTSET)
        made = make(_Stderr(), _processors, {"logger": self._name})
        method = getattr(made, word)
        setattr(self, word, method)  # from now on without this detour
        return method


def _name_attempt(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Adds job, type and attempt to what is logged inside a handler; what the line says itself wins."""
    for name, value in attempt_fields().items():
        event.setdefault(name, value)
    return event


def _merge_contextvars(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    from structlog.contextvars import merge_contextvars  # noqa: PLC0415

    return dict(merge_contextvars(logger, method, event))


_processors: list[Processor] = [
    _name_attempt,
    _merge_contextvars,
    _hand_over,
]  # one list for all loggers: configure() fills it anew
_others = _Others()

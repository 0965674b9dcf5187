"""The user's program: found and imported, its mistakes told in a few lines that name his file and line."""

from __future__ import annotations

import importlib
import linecache
import os
import sys
import sysconfig
import traceback
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import click

from .. import shipped
from ..app import Scheduler
from ..errors import SchedulerError
from ..logs import get_logger
from ..settings import Settings

log = get_logger(__name__)

_OURS = str(Path(__file__).resolve().parents[1])
_OTHERS = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


class Mistake(SchedulerError):
    """The user's program cannot be used as it is. The message is a sentence, the place, and the line there.

    The whole traceback is logged at the level debug.
    """

    def __init__(self, what: str, error: BaseException) -> None:
        log.debug(what, exc_info=error)
        place = _place(error)
        kind, said = type(error).__name__, error.msg if isinstance(error, SyntaxError) else str(error)
        text = f"{kind}: {said}" if said else kind
        lines = [f"{what}: {text}", *(f"  {note}" for note in getattr(error, "__notes__", ()))]
        if place is not None:
            file, number, line = place
            lines.append(f"  in {_short(file)}, line {number}{f': {line}' if line else ''}")
        super().__init__("\n".join(lines))


def _place(error: BaseException) -> tuple[str, int, str] | None:
    """The last place in the user's code that an error went through: file, line, and what stands there."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return error.filename, error.lineno, (error.text or "").strip()
    found = _last(error.__traceback__)
    cause = error.__cause__ or error.__context__
    if found is None and cause is not None:
        return _place(cause)
    return found


def _last(trace: TracebackType | None) -> tuple[str, int, str] | None:
    place = None
    for frame, number in traceback.walk_tb(trace):
        if _is_theirs(frame):
            file = frame.f_code.co_filename
            place = file, number, linecache.getline(file, number).strip()
    return place


def _is_theirs(frame: FrameType) -> bool:
    file = os.path.realpath(frame.f_code.co_filename)
    if frame.f_code.co_filename.startswith("<") or file.startswith(_OURS + os.sep):
        return False
    return not any(file.startswith(os.path.realpath(folder) + os.sep) for folder in _OTHERS)


def _short(file: str) -> str:
    """Relative to the working directory where it is in there."""
    try:
        return str(Path(file).resolve().relative_to(Path.cwd()))
    except ValueError:
        return file


def find_app(name: str | None, settings: Settings) -> Scheduler:
    """The app named `module:attribute`, from the working directory or PYTHONPATH; without a name the shipped types.

    Raises click.BadParameter for a name that leads to no app, Mistake for a module that cannot be imported.
    """
    if name is None:
        app = Scheduler(settings)
        app.include(shipped)
        return app
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise click.BadParameter(
            f"{name!r}: write it as module:attribute, such as shop.jobs:app", param_hint="APP"
        )
    if "/" in module_name or module_name.startswith("."):
        meant = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise click.BadParameter(
            f"{name!r}: a module is named, not its file; did you mean {meant}:{attribute}?", param_hint="APP"
        )
    found: Any = _imported(module_name)
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Scheduler):
        module = sys.modules[module_name]
        apps = [
            f"{module_name}:{word}" for word, value in vars(module).items() if isinstance(value, Scheduler)
        ]
        what = "is no Scheduler" if found is not None else "is not there"
        raise click.BadParameter(
            f"{attribute!r} {what} in {module_name} ({module.__file__}); "
            + (f"there is {', '.join(apps)}" if apps else "it makes none: `app = Scheduler()`"),
            param_hint="APP",
        )
    found.configure(settings)
    return found


def _imported(name: str) -> Any:
    """The user's module. Raises click.BadParameter when there is none, Mistake when it fails."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            hint = f"; did you mean {name.removesuffix('.py')}:…?" if name.endswith(".py") else ""
            raise click.BadParameter(
                f"there is no module {name!r} in {here} or on PYTHONPATH{hint}", param_hint="APP"
            ) from error
        raise Mistake(f"{name} cannot be imported", error) from error
    except (Exception, SystemExit) as error:
        raise Mistake(f"{name} cannot be imported", error) from error

"""What people look at: tables as wide as the terminal, coloured states, progress bars.

Where the output goes into a file or a pipe, a table is plain columns without a head (`--head` adds it), nothing cut, for grep and awk,
and rich is not even imported. NO_COLOR is honoured.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
import orjson

from ..logs import escaped
from ..times import rfc3339
from .common import HEAD

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

STYLES = {
    "ready": "cyan", "running": "blue", "scheduled": "magenta", "retrying": "yellow", "blocked": "magenta",
    "succeeded": "green", "cancelled": "bright_black", "dead": "red", "paused": "yellow",
    "ok": "green", "warn": "yellow", "fail": "red",
}  # fmt: skip
"""How a word looks that stands alone in a cell."""


LEAST = 10
"""Letters of a column that may be cut, below which it is not worth its place."""


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    whole: int = 1,
    right: Sequence[str] = (),
    spare: Sequence[str] = (),
) -> None:
    """Rows under their heads. The first `whole` columns are never cut, so that an id can be copied; others may be.

    `right`: columns of numbers. `spare`: columns that a narrow terminal does without, the first of them first. No rows
    print nothing but, on a terminal, that there are none.
    """
    cells = [[escaped(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        # Names of several words are joined, so that the head has as many words as there are columns.
        head = [[name.replace(" ", "_") for name in columns]] if _with_head() else []
        _columns(head + cells, [name in right for name in columns])
        return
    console = _console(stderr=False)
    if not cells:
        console.print("none", style="dim")
        return
    from rich.table import Table  # noqa: PLC0415 - for those who look at it
    from rich.text import Text  # noqa: PLC0415

    widths = [max(len(row[n]) for row in [columns, *cells]) for n in range(len(columns))]
    # What may be cut is better cut than left out, as long as something is to be seen of it.
    least = [
        width if n < whole or columns[n] in right else min(width, LEAST) for n, width in enumerate(widths)
    ]
    shown = list(range(len(columns)))
    for name in spare:
        if sum(least[n] + 2 for n in shown) - 2 <= console.width:
            break
        shown.remove(columns.index(name))
    given = _cut(widths, least, shown, console.width)
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for n in shown:
        drawn.add_column(
            columns[n],
            justify="right" if columns[n] in right else "left",
            overflow="fold" if n < whole else "ellipsis",
            no_wrap=n >= whole,
            width=min(given[n], console.width),
        )
    for row in cells:
        # As Text: what stands in a job is no markup.
        drawn.add_row(*(Text(row[n], style=STYLES.get(row[n], "")) for n in shown))
    console.print(drawn)


def _with_head() -> bool:
    """Whether the command was called with --head."""
    ctx = click.get_current_context(silent=True)
    return ctx is not None and bool(ctx.meta.get(HEAD))


def _cut(widths: Sequence[int], least: Sequence[int], shown: Sequence[int], room: int) -> list[int]:
    """The widths with which these columns fit: the widest gives way first, none below its least.

    Left to itself, rich takes all that is too much from the columns that may wrap, which are those of the ids, and leaves
    one out that has nothing left.
    """
    given = list(widths)
    for _ in range(sum(given[n] + 2 for n in shown) - 2 - room):
        able = [n for n in shown if given[n] > least[n]]
        if not able:
            break
        given[max(able, key=given.__getitem__)] -= 1
    return given


def _columns(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> None:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))] if rows else []
    for row in rows:
        padded = (
            text.rjust(width) if flush else text.ljust(width)
            for text, width, flush in zip(row, widths, right, strict=True)
        )
        print("  ".join(padded).rstrip())


def span(seconds: float) -> str:
    """A time as people say it: its largest unit, and the next one."""
    left = int(seconds)
    for unit, size, smaller, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "m", 60), ("m", 60, "s", 1)):
        if left >= size:
            return f"{left // size}{unit}{left % size // part}{smaller}"
    return f"{seconds:.1f}s"


def moment(ms: int) -> str:
    """When something is or was: how long ago where people look, by this machine's clock; else RFC 3339."""
    if not sys.stdout.isatty():
        return rfc3339(ms)
    away = ms / 1000 - time.time()
    return f"in {span(away)}" if away > 0 else f"{span(-away)} ago"


def report(rows: Sequence[tuple[str, str, str, str]]) -> None:
    """What was looked at: status, name, what was found, and under it what to do."""
    if not sys.stdout.isatty():
        for status, name, found, cure in rows:
            print(f"{status:5} {name:18} {escaped(found)}{f' -> {escaped(cure)}' if cure else ''}")
        return
    from rich.table import Table  # noqa: PLC0415 - for those who look at it
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for status, name, found, cure in rows:
        text = Text(escaped(found))
        if cure:
            text.append(f"\n{escaped(cure)}", style="bold")
        drawn.add_row(Text(status, style=STYLES.get(status, "")), name, text)
    _console(stderr=False).print(drawn)


def fields(document: Mapping[str, object]) -> None:
    """One thing: a line for each of its fields, JSON where it is no text, long ones cut where people look."""
    for name, value in document.items():
        text = escaped(value if isinstance(value, str) else orjson.dumps(value).decode())
        shown = f"{text[:2000]} …" if len(text) > 2000 and sys.stdout.isatty() else text
        print(f"{name:18} {shown}")


def trace(text: str) -> None:
    """A traceback, set in from the left."""
    for line in text.splitlines():
        print(f"    {escaped(line)}")


QUICK = 0.5
"""Seconds of work that is over before anybody wonders: no bar is drawn for it."""


class Progress:
    """How far some long work is: a bar on stderr, from when it has lasted a while; nothing where that is no terminal."""

    def __init__(self, what: str, total: int | None) -> None:
        self._what, self._total, self._done = what, total, 0
        self._began = time.monotonic()
        self._seen = sys.stderr.isatty()
        self._bar: Bar | None = None

    def advance(self, done: int = 1) -> None:
        """So many more are done."""
        self._done += done
        self._show()

    def at(self, done: int) -> None:
        """So many are done."""
        self._done = done
        self._show()

    def total(self, count: int) -> None:
        """There are so many in all, as is known by now."""
        self._total = count
        self._show()

    def _show(self) -> None:
        if not self._seen or (self._bar is None and time.monotonic() - self._began < QUICK):
            return
        if self._bar is None:
            from rich import progress as bars  # noqa: PLC0415 - for those who look at it

            self._bar = bars.Progress(
                bars.TextColumn("{task.description}"),
                bars.BarColumn(),
                bars.MofNCompleteColumn(),
                bars.TimeRemainingColumn(),
                console=_console(stderr=True),
                transient=True,
            )
            self._bar.add_task(self._what, total=self._total)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=self._done, total=self._total)

    def end(self) -> None:
        """The work is over: the bar goes away."""
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Progress]:
    """A bar for as long as the work in the block lasts, which says how far it is by `advance`."""
    bar = Progress(what, total)
    try:
        yield bar
    finally:
        bar.end()


def _console(*, stderr: bool) -> Console:
    from rich.console import Console  # noqa: PLC0415 - for those who look at it

    if os.environ.get("NO_COLOR"):
        return Console(stderr=stderr, highlight=False, color_system=None)
    return Console(stderr=stderr, highlight=False)

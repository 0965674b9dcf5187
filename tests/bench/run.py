"""Runs the benchmarks and prints one table: `python tests/bench/run.py [NAME …] [--server redis] [--short] [--write]`."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import re
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # this tree, whichever one is installed

from redis import Redis  # noqa: E402

from scheduler.cli.common import run  # noqa: E402
from tests.bench.common import Bench, Line, server  # noqa: E402

NAMES = ("enqueue", "drain", "latency", "memory", "backlog", "lanes", "rest", "startup")
HEAD = ("measure", "ours", "yardstick", "ratio", "budget", "met")
WIDTHS = (44, 14, 36, 6, 0, 0)
README = Path(__file__).with_name("README.md")


def surroundings(version: str) -> str:
    """The machine and what runs on it, in one line."""
    names = re.search(r"model name\s*: (.+)", _text("/proc/cpuinfo"))
    try:
        loop = f"uvloop {metadata.version('uvloop')}"
    except metadata.PackageNotFoundError:
        loop = "asyncio's loop"
    return ", ".join((
        f"{platform.system()} {platform.machine()}" + (f" ({names[1].strip()})" if names else ""),
        f"{os.cpu_count()} CPUs",
        f"Python {platform.python_version()}",
        loop,
        version,
        datetime.now(UTC).strftime("%-d %B %Y"),
    ))  # fmt: skip


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def version_of(kind: str) -> str:
    """Such as "valkey 9.1.2"."""
    with tempfile.TemporaryDirectory() as folder, server(kind, Path(folder)) as (url, _):
        with Redis.from_url(url) as client:
            info = client.info("server")
        name = "valkey" if "valkey_version" in info else "redis"
        return f"{name} {info.get('valkey_version') or info['redis_version']}"


def measure(name: str, kind: str, *, short: bool) -> list[Line]:
    """One benchmark, on a server of its own."""
    module = importlib.import_module(f"tests.bench.{name}")
    with tempfile.TemporaryDirectory() as folder, server(kind, Path(folder)) as (url, pid):
        lines: list[Line] = run(module.bench(Bench(kind, short, Path(folder), url, pid)))
    return lines


def aligned(cells: tuple[str, ...]) -> str:
    return " | ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)).rstrip(" |")


def write(kind: str, about: str, lines: list[Line]) -> None:
    """Puts the table into the README, between the two marks of this server."""
    rows = ["| " + " | ".join(cells) + " |" for cells in (HEAD, ("---",) * len(HEAD))]
    rows += ["| " + " | ".join(line.cells()) + " |" for line in lines]
    begin, end = f"<!-- {kind}: begin -->", f"<!-- {kind}: end -->"
    text = README.read_text()
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    assert found, f"{README} has no {begin}"
    assert closed, f"{README} has no {end}"
    README.write_text(f"{before}{begin}\n{about}\n\n" + "\n".join(rows) + f"\n{end}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="What the scheduler costs, beside bare yardsticks in the same run."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--server", choices=("valkey", "redis"), default="valkey")
    parser.add_argument(
        "--short", action="store_true", help="under a minute: shows that it works, not how fast"
    )
    parser.add_argument("--write", action="store_true", help="put the table into tests/bench/README.md")
    told = parser.parse_args()
    if unknown := set(told.names) - set(NAMES):
        parser.error(f"{', '.join(sorted(unknown))}: there are {', '.join(NAMES)}")
    if told.write and (told.names or told.short):
        parser.error("--write takes a whole run")

    about = surroundings(version_of(told.server))
    print(about + "\n")
    print(aligned(HEAD), flush=True)
    lines: list[Line] = []
    began = time.monotonic()
    for name in told.names or NAMES:
        for line in measure(name, told.server, short=told.short):
            lines.append(line)
            print(aligned(line.cells()), flush=True)
    missed = sum(line.met is False for line in lines)
    print(f"\n{missed} budgets missed; {time.monotonic() - began:.0f} s")
    if told.write:
        write(told.server, about, lines)


if __name__ == "__main__":
    main()

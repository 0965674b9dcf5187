"""What the benchmarks share: a server, other processes, taking turns, and lines that say whether a budget is met."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from scheduler.app import Scheduler
from scheduler.settings import Settings
from tests.bench.app import QUEUE, app
from tests.conftest import binary

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {"to": "somebody@example.com", "subject": "one hundred bytes of payload, as peers are measured with"}
PAYLOAD = (
    b'{"to":"somebody@example.com","subject":"one hundred bytes of payload, as peers are measured with..."}'
)


@dataclass(frozen=True)
class Budget:
    """A bound, on our figure or on its ratio to the yardstick of the same run."""

    least: float | None = None
    most: float | None = None
    of_ratio: bool = False
    why: str = ""


@dataclass(frozen=True)
class Line:
    """One row: our figure, the yardstick measured in turn with it, and the budget."""

    what: str
    unit: str
    ours: float
    bare: float | None = None
    yardstick: str = ""
    budget: Budget | None = None
    skipped: str = ""
    """Why there is no figure."""

    @property
    def ratio(self) -> float | None:
        return None if not self.bare else self.ours / self.bare

    @property
    def met(self) -> bool | None:
        """Whether the budget holds; None where there is none, or no figure."""
        if self.budget is None or self.skipped:
            return None
        value = self.ratio if self.budget.of_ratio else self.ours
        assert value is not None, f"{self.what}: a budget on a ratio needs a yardstick"
        least, most = self.budget.least, self.budget.most
        return (least is None or value >= least) and (most is None or value <= most)

    def cells(self) -> tuple[str, ...]:
        """As the table shows it: measure, ours, yardstick, ratio, budget, met."""
        if self.skipped:
            return self.what, "–", self.skipped, "", _bound(self.budget, self.unit), ""
        bare = "" if self.bare is None else f"{figure(self.bare, self.unit)} {self.yardstick}"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        met = {True: "yes", False: "**no**", None: ""}[self.met]
        return self.what, figure(self.ours, self.unit), bare, ratio, _bound(self.budget, self.unit), met


def figure(value: float, unit: str) -> str:
    digits = {"/s": 0, "µs": 1, "ms": 2, "s": 3, "bytes": 0}.get(unit, 1)
    return f"{value:,.{digits}f} {unit}".rstrip()


def _bound(budget: Budget | None, unit: str) -> str:
    if budget is None:
        return ""
    bound, sign = (budget.least, "≥") if budget.least is not None else (budget.most, "≤")
    assert bound is not None
    shown = f"{bound:g} ×" if budget.of_ratio else f"{bound:,g} {unit}".rstrip()
    return f"{sign} {shown}" + (f" ({budget.why})" if budget.why else "")


@dataclass
class Bench:
    """One benchmark's surroundings: a server of its own, a folder, and how thorough to be."""

    kind: str
    short: bool
    folder: Path
    url: str
    pid: int

    def size(self, full: int, short: int) -> int:
        return short if self.short else full

    def app(self) -> Scheduler:
        """The application of `tests/bench/app.py`, with this server."""
        app.configure(Settings(redis_url=self.url))
        return app

    @contextmanager
    def process(self, *arguments: str, ready: str = "") -> Iterator[Process]:
        """A Python process (`-m …`), from the moment it has written `ready` until it is terminated."""
        process = Process(self.folder, arguments)
        try:
            process.wait_for(ready)
            yield process
        finally:
            process.end()

    def worker(self, concurrency: int) -> Any:
        """`scheduler worker`, as users start it."""
        options = ("--redis-url", self.url, "--concurrency", str(concurrency), "--log-format", "json")
        return self.process(
            "scheduler", "worker", "tests.bench.app:app", "--queue", QUEUE, *options, ready="worker started"
        )


class Process:
    """A process of its own, and what it costs."""

    def __init__(self, folder: Path, arguments: Sequence[str]) -> None:
        self._said = folder / f"{time.monotonic_ns()}.log"
        with self._said.open("wb") as said:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=folder,
                env=environment(),
                stdout=said,
                stderr=subprocess.STDOUT,
            )

    def said(self) -> str:
        return self._said.read_text()

    def wait_for(self, text: str, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while text not in self.said():
            assert self.popen.poll() is None, self.said()[-3000:]
            assert time.monotonic() < end, self.said()[-3000:]
            time.sleep(0.01)

    def pause(self) -> None:
        self.popen.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.popen.send_signal(signal.SIGCONT)

    @property
    def cpu(self) -> float:
        """Seconds of CPU that it has used, all threads."""
        assert self.popen.poll() is None, self.said()[-3000:]
        return cpu_of(self.popen.pid)

    def end(self) -> None:
        self.resume()
        self.popen.terminate()
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used; not a number where the system has no such clock."""
    if sys.platform != "linux":
        return float("nan")
    # What clock_getcpuclockid(3) makes of a process id: exact, where /proc counts in hundredths.
    return time.clock_gettime(~pid << 3 | 2)


def environment() -> dict[str, str]:
    """Without settings of whoever runs this."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SCHEDULER_")}
    return kept | {"PYTHONPATH": str(ROOT)}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def server(kind: str, folder: Path) -> Iterator[tuple[str, int]]:
    """A server on loopback TCP, as peers were measured, without append-only file: its URL and process id."""
    program = binary(kind)
    if program is None:
        sys.exit(f"{kind}-server is not installed")
    port = free_port()
    options = ["--port", str(port), "--dir", str(folder), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    try:
        while not _listens(port):
            assert process.poll() is None, f"{program} ended with {process.returncode}"
            time.sleep(0.005)
        yield f"redis://127.0.0.1:{port}", process.pid
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


async def in_turn(rounds: int, *works: Callable[[], Awaitable[float]]) -> list[float]:
    """The median of each work's figures, the works taking turns: what disturbs the machine disturbs them all."""
    figures: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for found, work in zip(figures, works, strict=True):
            found.append(await work())
    return [statistics.median(found) for found in figures]


async def until(happened: Callable[[], Awaitable[bool]], *, every: float = 0.01, within: float = 120) -> None:
    async with asyncio.timeout(within):
        while not await happened():
            await asyncio.sleep(every)


async def script_usec(redis: Redis) -> float:
    """Microseconds that scripts have used in the server."""
    stats: Any = await redis.info("commandstats")
    return float(stats.get("cmdstat_evalsha", {"usec": 0})["usec"])


async def empty(redis: Redis) -> None:
    """Takes everything out, at once (Valkey would by itself do it later), and leaves the scripts."""
    await redis.execute_command("FLUSHALL", "SYNC")

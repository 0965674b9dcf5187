"""How long a process needs until it is of use."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from scheduler.local_server import acquire
from tests.bench.common import Bench, Budget, Line, environment, in_turn
from tests.conftest import binary, start

TIMED = "import time; began = time.perf_counter(); {}; print(time.perf_counter() - began)"
OURS = "from scheduler import Scheduler"
REDIS = "import redis.asyncio"


async def bench(bench: Bench) -> list[Line]:
    app = bench.app()
    rounds = bench.size(9, 2)

    def run(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, env=environment(), cwd=bench.folder, capture_output=True, text=True, check=True
        ).stdout

    async def importing(statement: str) -> float:
        return float(run("-c", TIMED.format(statement)))

    async def running(*arguments: str) -> float:
        began = time.perf_counter()
        run(*arguments)
        return time.perf_counter() - began

    async def first_claim() -> float:
        """From the start of a worker to the first line of the handler of a job that waits."""
        handle = await app.enqueue("stamp", {"sent": time.monotonic_ns()})
        with bench.worker(100):
            return float(await handle.result(10)) / 1e9

    async def embedded() -> float:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            began = time.perf_counter()
            server = acquire(Path(folder) / ".scheduler")
            took = time.perf_counter() - began
            server.close()
            while any(
                Path(folder).glob(".scheduler/*.sock")
            ):  # its keeper ends it, and writes there until then
                await asyncio.sleep(0.05)
        return took

    async def plain_server() -> float:
        program = binary(bench.kind)
        assert program is not None
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            process = start(program, Path(folder) / "s")
            took = time.perf_counter() - began
            process.kill()
            process.wait()
        return took

    await importing(OURS)
    ours, redis = await in_turn(rounds, partial(importing, OURS), partial(importing, REDIS))
    version, python = await in_turn(
        rounds, partial(running, "-m", "scheduler", "--version"), partial(running, "-c", "pass")
    )
    claim, again = await in_turn(rounds, first_claim, partial(running, "-c", "pass"))
    ready, alone = await in_turn(rounds, embedded, plain_server)
    await app.close()
    return [
        Line(f"`{OURS}`", "s", ours, redis, f"`{REDIS}`", Budget(most=0.25)),
        Line("worker start → first handler", "s", claim, again, "`python -c pass`", Budget(most=0.5)),
        Line("`scheduler --version`", "s", version, python, "`python -c pass`"),
        Line("embedded server ready", "s", ready, alone, "server alone"),
    ]

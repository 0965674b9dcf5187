"""POST of one job on 32 connections, and of many in one request, from a process of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import orjson

from tests.bench.app import QUEUE
from tests.bench.common import FIELDS, Bench, Budget, Line, empty, environment, free_port, in_turn

CONNECTIONS = 32
BULK = 100


async def bench(bench: Bench) -> list[Line]:
    app = bench.app()
    redis = (await app.store()).clients.commands
    job = {"type": "send", "queue": QUEUE, "payload": FIELDS}
    ours, theirs = free_port(), free_port()
    seconds, rounds = bench.size(2, 1), bench.size(7, 1)

    async def post(port: int, path: str, body: Any, connections: int, jobs: int = 1) -> float:
        """Jobs a second that were created."""
        await empty(redis)
        said = await asyncio.to_thread(_load, port, path, orjson.dumps(body), connections, seconds)
        statuses = {int(status): count for status, count in said["statuses"].items()}
        good = statuses.pop(201, 0) + (statuses.pop(200, 0) if jobs > 1 else 0)
        if not good and set(statuses) <= {404, 405}:
            raise NotImplementedError(path)
        assert not statuses, f"{path} answered {statuses} beside {good} that were right"
        return float(good * jobs / said["seconds"])

    def single(port: int) -> Callable[[], Any]:
        return lambda: post(port, "/v1/jobs", job, CONNECTIONS)

    bulk = Line(
        f"REST: POST {BULK} jobs, 8 connections", "/s", 0, budget=Budget(least=6, of_ratio=True),
        skipped="POST /v1/jobs/bulk is not there yet",
    )  # fmt: skip
    options = ("--redis-url", bench.url, "--port", str(ours), "--log-format", "json")
    with (
        bench.process("scheduler", "api", *options, ready='"serving"'),
        bench.process("tests.bench.bare", "http", str(theirs), ready="ready"),
    ):
        await in_turn(1, single(ours), single(theirs))
        one, plain = await in_turn(rounds, single(ours), single(theirs))
        try:
            many, again = await in_turn(
                rounds, lambda: post(ours, "/v1/jobs/bulk", [job] * BULK, 8, BULK), single(ours)
            )
        except NotImplementedError:
            pass
        else:
            bulk = Line(bulk.what, "/s", many, again, "one a request", bulk.budget)
    await app.close()
    return [
        Line(
            "REST: POST one job, 32 connections", "/s", one, plain, "bare aiohttp",
            Budget(least=0.5, of_ratio=True),
        ),
        bulk,
    ]  # fmt: skip


def _load(port: int, path: str, body: bytes, connections: int, seconds: float) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.load", str(port), path, str(connections), str(seconds)],
        input=body,
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return json.loads(done.stdout)

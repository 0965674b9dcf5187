"""What the workers of the benchmarks run."""

from __future__ import annotations

import time

from scheduler import Context, Scheduler

QUEUE = "bench"

app = Scheduler()


@app.job("send", queue=QUEUE)
async def send(ctx: Context, to: str, subject: str) -> str:
    return "sent"


@app.job("stamp", queue=QUEUE)
async def stamp(ctx: Context, sent: int) -> int:
    """How many nanoseconds ago it was sent: the clock is one for all processes."""
    return time.monotonic_ns() - sent

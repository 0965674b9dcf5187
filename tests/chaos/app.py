"""Handlers of the random driver. Each start and each end of an attempt is one line of JSON in the file `log`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time

from scheduler import Context, Permanent, RetryAfter, Scheduler

app = Scheduler()


def note(ctx: Context, word: str, n: int) -> None:
    line = {"word": word, "id": ctx.id, "token": ctx.token, "attempt": ctx.attempt, "n": n, "at": time.time()}
    file = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
    finally:
        os.close(file)


def begin(ctx: Context, n: int, how: str, until: int) -> None:
    """Writes the start down; an attempt up to `until` ends here in the way that is asked for."""
    note(ctx, "start", n)
    ctx.log(f"attempt {ctx.attempt}")
    ctx.progress({"attempt": ctx.attempt})
    if how == "permanent":
        raise Permanent("never")
    if ctx.attempt > until:
        return
    if how == "raise":
        raise ValueError(f"failure {ctx.attempt}")
    if how == "later":
        raise RetryAfter(0.2)
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)


@app.job("async", queue="mail", timeout=120)
async def in_the_loop(ctx: Context, n: int, seconds: float = 0, how: str = "", until: int = 0) -> int:
    begin(ctx, n, how, until)
    await asyncio.sleep(seconds)
    note(ctx, "end", n)
    return n


@app.job("thread", queue="mail", timeout=120)
def in_a_thread(ctx: Context, n: int, seconds: float = 0, how: str = "", until: int = 0) -> int:
    begin(ctx, n, how, until)
    time.sleep(seconds)
    note(ctx, "end", n)
    return n


@app.job("process", queue="slow", timeout=120, process=True)
def in_a_process(ctx: Context, n: int, seconds: float = 0, how: str = "", until: int = 0) -> int:
    begin(ctx, n, how, until)
    time.sleep(seconds)
    note(ctx, "end", n)
    return n


@app.job("sum", queue="mail", timeout=120)
async def total(ctx: Context, n: int) -> int:
    note(ctx, "start", n)
    found: list[int] = [value for value in ctx.parents.values() if value is not None]
    return n + sum(found)


@app.job("tick", queue="slow")
async def tick(ctx: Context, n: int) -> int:
    return n


async def over_http(url: str) -> None:
    """A worker that reaches its queue through the API only."""
    from scheduler.client import Client  # noqa: PLC0415

    async with Client(url) as jobs:
        await jobs.work(app, queues=["mail"], concurrency=4)


if __name__ == "__main__":
    asyncio.run(over_http(sys.argv[1]))

"""Handlers for tests/running/test_processes.py: their processes import this module."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scheduler import Context, Permanent, RetryAfter
from scheduler.job import NewJob
from tests.running.nasty import NASTY


def who(ctx: Context, n: int = 1) -> dict[str, Any]:
    """Says where it runs, and what it was given."""
    ctx.progress(50)
    ctx.log("a line")
    ctx.checkpoint({"n": n})
    return {"pid": os.getpid(), "n": n, "attempt": ctx.attempt, "id": ctx.id, "before": ctx.checkpointed}


async def awaited(ctx: Context, n: int) -> int:
    """An asynchronous one."""
    return n + ctx.attempt


def raises(ctx: Context, how: str) -> None:
    """Fails in the way that was asked for."""
    if how == "permanent":
        raise Permanent("not again")
    if how == "later":
        raise RetryAfter(77, "later", scope="type")
    if how == "snooze":
        ctx.snooze(88)
    if how == "exit":
        sys.exit(3)
    if how == "die":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError("boom")


def big(ctx: Context, size: int) -> str:
    """A result of that many characters."""
    return "x" * size


def no_json(ctx: Context) -> Any:
    """A result that is no JSON."""
    return object()


def hang(ctx: Context, file: str) -> None:
    """Writes down its process and that of a program that it starts, and never ends."""
    other = subprocess.Popen(["sleep", "300"])
    Path(file).write_text(f"{os.getpid()} {other.pid}")
    while True:
        time.sleep(0.01)


def leaves_a_thread(ctx: Context, file: str) -> None:
    """Ends, but for a thread that goes on telling once `file` is there."""

    def go_on() -> None:
        while not Path(file).exists():
            time.sleep(0.01)
        ctx.progress("of the job before")
        Path(f"{file}-told").touch()

    threading.Thread(target=go_on, daemon=True).start()


def waits_for_that_thread(ctx: Context, file: str) -> None:
    """Lets it tell, and ends after it."""
    Path(file).touch()
    while not Path(f"{file}-told").exists():
        time.sleep(0.01)


def naps(ctx: Context, seconds: float) -> None:
    """Takes its time."""
    time.sleep(seconds)


def dies_and_leaves(ctx: Context, file: str, how: str) -> None:
    """Starts a program, in its own session or in another, and ends by itself."""
    if how == "another":
        os.system("setsid sleep 300 & echo $! > " + file)
    else:
        Path(file).write_text(str(subprocess.Popen(["sleep", "300"]).pid))
    os._exit(3)


def waits(ctx: Context, file: str) -> None:
    """Writes down its process, and ends when it may."""
    Path(file).write_text(str(os.getpid()))
    while not Path(f"{file}-go").exists():
        time.sleep(0.01)


def adds(ctx: Context) -> None:
    """Adds a job from a process of its own."""
    ctx.add(NewJob(type="part", queue="mail", key="from-a-process", payload=b'{"n": 5}'))


def parents(ctx: Context) -> dict[str, Any]:
    """What those returned that it waited for."""
    return dict(ctx.parents)


def nasty(ctx, name: str) -> None:
    raise NASTY[name]()  # noqa: RSE102


@dataclass
class Exits:
    """A class of a payload that raises when it is made."""

    name: str

    def __post_init__(self) -> None:
        raise SystemExit(self.name)


def speaks(ctx: Context) -> None:
    logging.getLogger("shop").warning("spoken")

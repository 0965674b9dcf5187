"""Real processes in a folder of their own, on the embedded server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--lease", "1.5s", "--watchdog-interval", "1s", "--grace", "2s"]

APP = """
import asyncio, os, time
from scheduler import Scheduler

app = Scheduler()


def note(text):
    with open("log", "a") as file:
        file.write(text + "\\n")


@app.job("long", queue="mail", timeout=60)
async def long(ctx, seconds: float = 60):
    note(f"start {ctx.id} {ctx.attempt} {os.getpid()}")
    await asyncio.sleep(seconds if ctx.attempt == 1 else 0)
    note(f"end {ctx.id} {ctx.attempt}")
    return ctx.attempt


@app.job("short", queue="mail")
def short(ctx, n: int):
    note(f"short {n}")
    return n


@app.job("deadly", queue="mail")
async def deadly(ctx):
    os.kill(os.getpid(), 9)
"""


@dataclass
class Folder:
    """A working directory with an app, and what runs in it."""

    path: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    """What the environment holds besides."""
    python: str = sys.executable

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SCHEDULER_")}
        return kept | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"} | self.variables

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.path / "out").open("ab") as out, (self.path / "err").open("ab") as err:
            process = subprocess.Popen(
                [self.python, "-m", "scheduler", *arguments],
                cwd=self.path,
                env=self.environment,
                stdout=out,
                stderr=err,
            )
        self.processes.append(process)
        return process

    def run(self, *arguments: str, status: int = 0) -> str:
        """A command that ends by itself; its output, whichever stream it is on."""
        done = subprocess.run(
            [self.python, "-m", "scheduler", *arguments],
            cwd=self.path, env=self.environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert status == done.returncode, done.stdout + done.stderr
        return done.stdout + (done.stderr if status else "")

    def worker(self, *arguments: str) -> subprocess.Popen[bytes]:
        return self.start("worker", "jobs:app", *QUICK, *arguments)

    def enqueue(self, type: str, payload: dict[str, Any] | None = None, *options: str) -> str:
        return self.run(
            "enqueue", type, "--queue", "mail", "--payload", json.dumps(payload or {}), *options
        ).strip()

    def job(self, job_id: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.run("job", "show", job_id, "--json"))
        return document

    def log(self) -> list[str]:
        file = self.path / "log"
        return file.read_text().splitlines() if file.exists() else []

    def errors(self) -> str:
        return (self.path / "err").read_text()

    def end(self) -> None:
        """Stops what still runs."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def until(self, check: Callable[[], Any], seconds: float = 20) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := check():
                return value
            time.sleep(0.05)
        raise AssertionError(f"not within {seconds} s: {self.errors()[-3000:]}")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    (tmp_path / "jobs.py").write_text(APP)
    folder = Folder(tmp_path)
    yield folder
    folder.end()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def http(method: str, url: str, body: Any = None) -> tuple[int, Any]:
    """One request; status and document."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data=data, method=method, headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=70) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)

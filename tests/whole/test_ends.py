"""A worker ends in time whatever its handlers hold on to, and what a handler forks touches nothing of the worker."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from tests.whole.conftest import Folder

GRACE = 1.0

APP = """
import asyncio, multiprocessing, os, time
from concurrent.futures import ThreadPoolExecutor
from scheduler import Scheduler

app = Scheduler()
pool = ThreadPoolExecutor(2)


def note(*words):
    with open("log", "a") as file:
        print(*words, file=file)


@app.job("to_thread", queue="mail")
async def to_thread(ctx):
    note("start")
    await asyncio.to_thread(time.sleep, 60)


@app.job("own_pool", queue="mail")
async def own_pool(ctx):
    note("start")
    await asyncio.get_running_loop().run_in_executor(pool, time.sleep, 60)


@app.job("deaf", queue="mail")
async def deaf(ctx):
    note("start")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass


@app.job("blocking", queue="mail")
async def blocking(ctx):
    note("start")
    time.sleep(60)


@app.job("plain", queue="mail")
def plain(ctx):
    note("start")
    time.sleep(60)


@app.job("quick", queue="mail")
async def quick(ctx, n: int):
    note("quick", n)


def forked(seconds):
    time.sleep(seconds)


def fork():
    child = multiprocessing.get_context("fork").Process(target=forked, args=(60,))
    child.start()
    time.sleep(0.3)
    child.terminate()
    child.join(5)
    note("child", child.exitcode)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        note("pool", sum(pool.map(abs, [1, 2, 3])))


@app.job("fork_thread", queue="mail")
def fork_thread(ctx):
    fork()


@app.job("fork_loop", queue="mail")
async def fork_loop(ctx):
    fork()


@app.job("fork_process", queue="mail", process=True)
def fork_process(ctx):
    fork()
"""


@pytest.fixture
def started(folder: Folder):
    (folder.path / "jobs.py").write_text(APP)
    process = folder.start(
        "worker", "jobs:app", "--lease", "1.5s", "--watchdog-interval", "1s", "--grace", f"{GRACE}s"
    )
    folder.until(lambda: "worker started" in folder.errors())
    return process


@pytest.mark.parametrize("handler", ["to_thread", "own_pool", "deaf", "blocking", "plain"])
def test_a_signal_ends_the_worker_in_time_whatever_a_handler_holds(folder: Folder, started, handler):
    job = folder.enqueue(handler)
    folder.until(lambda: folder.log() == ["start"])
    started.send_signal(signal.SIGTERM)
    began = time.monotonic()

    assert 0 == started.wait(15)
    assert time.monotonic() - began < GRACE + 2 + 1  # one for a busy machine
    if handler in {"deaf", "blocking"}:
        assert "the process ends although work is left" in folder.errors()
    if handler == "blocking":
        assert job in folder.errors().split("although work is left")[1]


def test_a_second_signal_ends_it_sooner(folder: Folder, started):
    folder.enqueue("blocking")
    folder.until(lambda: folder.log() == ["start"])
    for _ in range(2):
        started.send_signal(signal.SIGTERM)
        time.sleep(0.05)

    assert 0 == started.wait(GRACE + 4)


LOUD = """
import os
from scheduler import Scheduler

app = Scheduler()


@app.job("loud", queue="mail")
def loud(ctx):
    open("log", "a").write("start\\n")
    os.write(2, b"x" * 1_000_000)
"""

FAILS = """
import threading, time
from scheduler import Scheduler

app = Scheduler()


@app.lifespan
async def lifespan(app):
    threading.Thread(target=time.sleep, args=(60,)).start()
    raise RuntimeError("no database")
    yield
"""


def test_logs_that_nobody_reads_do_not_hold_up_the_end(folder: Folder):
    (folder.path / "jobs.py").write_text(LOUD)
    command = [folder.python, "-m", "scheduler", "worker", "jobs:app", "--grace", f"{GRACE}s"]
    with subprocess.Popen(command, cwd=folder.path, env=folder.environment, stderr=subprocess.PIPE) as worker:
        folder.processes.append(worker)
        folder.enqueue("loud")
        folder.until(lambda: folder.log() == ["start"])
        worker.send_signal(signal.SIGTERM)

        assert 0 == worker.wait(GRACE + 4)


def test_a_failure_is_told_by_the_status_though_a_thread_is_left(folder: Folder):
    (folder.path / "jobs.py").write_text(FAILS)

    assert 1 == folder.start("worker", "jobs:app").wait(10)


@pytest.mark.parametrize("handler", ["fork_thread", "fork_loop", "fork_process"])
def test_what_a_handler_forks_can_be_terminated_and_touches_nothing_of_ours(folder: Folder, started, handler):
    job = folder.enqueue(handler)
    folder.until(lambda: len(folder.log()) == 2)

    assert [f"child {-signal.SIGTERM}", "pool 6"] == folder.log()
    shown = folder.until(lambda: (found := folder.job(job))["state"] == "succeeded" and found)
    assert (1, 0) == (shown["attempt"], shown["crashes"])
    folder.enqueue("quick", {"n": 1})
    folder.until(lambda: folder.log()[2:] == ["quick 1"])
    assert started.poll() is None
    assert "worker stopped" not in folder.errors()
    os.kill(started.pid, signal.SIGTERM)
    assert 0 == started.wait(GRACE + 4)

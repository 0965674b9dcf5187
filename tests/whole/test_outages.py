"""Processes that lose their server, are stopped, or are held up: what others see of it."""

from __future__ import annotations

import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import binary
from tests.server import Server, free_port
from tests.whole.conftest import Folder, http

APP = """
import asyncio, os, time
from scheduler import Scheduler, heartbeat

app = Scheduler()
heartbeat.LOOP_DEAD = float(os.environ.get("LOOP_DEAD", heartbeat.LOOP_DEAD))


def note(*words):
    with open("log", "a") as file:
        print(*words, file=file)


@app.job("wait", queue="mail", timeout=60)
async def wait(ctx, seconds: float):
    note("start", ctx.claimed.key, ctx.attempt)
    try:
        await asyncio.sleep(seconds if ctx.attempt == 1 else 0)
    except asyncio.CancelledError:
        note("cancelled", ctx.claimed.key, ctx.attempt, time.monotonic())
        raise
    note("end", ctx.claimed.key, ctx.attempt, time.monotonic())


@app.job("block", queue="mail", timeout=60)
async def block(ctx, seconds: float):
    note("start", ctx.claimed.key, ctx.attempt)
    time.sleep(seconds if ctx.attempt == 1 else 0)
    note("end", ctx.claimed.key, ctx.attempt, time.monotonic())
"""


@pytest.fixture
def server(folder: Folder) -> Iterator[Server]:
    (folder.path / "busy.py").write_text(APP)
    program = binary("valkey") or binary("redis")
    assert program is not None
    with Server(program, folder.path / "server") as server:
        folder.variables["SCHEDULER_REDIS_URL"] = server.url
        yield server


def worker(folder: Folder, *options: str, lease: str = "1.5s") -> Any:
    started = folder.errors().count("worker started") if (folder.path / "err").exists() else 0
    process = folder.start(
        "worker", "busy:app", "--lease", lease, "--watchdog-interval", "1s", "--grace", "2s", *options
    )
    folder.until(lambda: folder.errors().count("worker started") > started)
    return process


def enqueue(folder: Folder, type: str, key: str, seconds: float) -> None:
    folder.run("enqueue", type, "--queue", "mail", "--id", key, "--payload", json.dumps({"seconds": seconds}))


def post(port: int, key: str, seconds: float = 0) -> int:
    body = {"type": "wait", "queue": "mail", "id": key, "payload": {"seconds": seconds}}
    return http("POST", f"http://127.0.0.1:{port}/v1/jobs", body)[0]


def noted(folder: Folder, word: str, key: str, attempt: int = 1) -> list[float]:
    """When a handler noted this."""
    lines = [line.split() for line in folder.log()]
    return [float([*line, "0"][3]) for line in lines if line[:3] == [word, key, str(attempt)]]


def summary(folder: Folder, key: str) -> tuple[str, int, int]:
    job = folder.job(f"mail:{key}")
    return job["state"], job["attempt"], job["crashes"]


def ended(folder: Folder, key: str, seconds: float = 20) -> tuple[str, int, int]:
    return folder.until(  # type: ignore[no-any-return]
        lambda: (found := summary(folder, key))[0] in {"succeeded", "dead", "cancelled"} and found, seconds
    )


def test_an_api_without_its_server_says_so_and_serves_when_it_comes(folder: Folder, server: Server):
    server.kill()
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    folder.start("api", "--port", str(port))
    folder.until(lambda: f"waiting for {server.url}" in folder.errors() and "serving" in folder.errors())
    status, ready = http("GET", f"{base}/readyz")

    assert 200 == http("GET", f"{base}/livez")[0]
    assert (503, "store_unavailable") == (status, ready["code"])
    assert str(server.port) in ready["detail"]
    with pytest.raises(urllib.error.HTTPError) as told:
        urllib.request.urlopen(
            urllib.request.Request(
                f"{base}/v1/jobs",
                data=b'{"type": "send", "id": "a"}',
                headers={"Content-Type": "application/json"},
            )
        )
    with told.value as refused:
        assert (503, "1") == (refused.code, refused.headers["Retry-After"])
    server.start()
    folder.until(lambda: http("GET", f"{base}/readyz")[0] == 200, 4)
    assert 201 == http("POST", f"{base}/v1/jobs", {"type": "send", "id": "a"})[0]


@pytest.mark.long
def test_processes_outlive_a_server_that_is_killed_and_back_in_five_seconds(folder: Folder, server: Server):
    port = free_port()
    folder.start("api", "--port", str(port))
    first, second = worker(folder), worker(folder)
    folder.until(lambda: "serving" in folder.errors())
    assert 201 == post(port, "before")
    ended(folder, "before")
    server.kill()
    assert 503 == post(port, "meanwhile")
    time.sleep(5)
    server.start()
    back = time.monotonic()
    folder.until(lambda: post(port, "after") in {200, 201}, 3)
    folder.until(lambda: noted(folder, "end", "after"), 5)

    assert noted(folder, "end", "after")[0] - back <= 3
    assert [None, None] == [first.poll(), second.poll()]
    folder.run("verify")


@pytest.mark.long
@pytest.mark.parametrize(
    ("lease", "loop_dead"),
    [("1.5s", "60"), ("6s", "3")],
    ids=["a while", "longer than a loop may stand still"],
)
def test_a_worker_that_was_stopped_past_its_lease_learns_of_it_when_it_wakes(
    folder: Folder, server: Server, lease: str, loop_dead: str
):
    folder.variables["LOOP_DEAD"] = loop_dead
    first = worker(folder, lease=lease)
    enqueue(folder, "wait", "a", 60)
    folder.until(lambda: noted(folder, "start", "a"))
    second = worker(folder, lease=lease)
    first.send_signal(signal.SIGSTOP)
    try:
        folder.until(lambda: noted(folder, "end", "a", 2), 25)
    finally:
        awake = time.monotonic()
        first.send_signal(signal.SIGCONT)
    [cancelled] = folder.until(lambda: noted(folder, "cancelled", "a"), 5)

    assert cancelled - awake <= 1
    assert ("succeeded", 2, 0) == summary(folder, "a")
    for process in (first, second):
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(5)


@pytest.mark.long
def test_a_handler_that_blocks_the_loop_for_two_leases_costs_no_job_its_lease(folder: Folder, server: Server):
    worker(folder, lease="2s")
    enqueue(folder, "wait", "beside", 5)
    enqueue(folder, "block", "blocking", 4)
    folder.until(lambda: noted(folder, "start", "blocking") and noted(folder, "start", "beside"))
    worker(folder, lease="2s")  # it sweeps while the other one's loop stands still

    assert ("succeeded", 1, 0) == ended(folder, "blocking") == ended(folder, "beside")
    assert [1, 1] == [len(noted(folder, "start", key)) for key in ("blocking", "beside")]


@pytest.mark.long
def test_a_loop_that_stands_still_for_too_long_loses_its_leases(folder: Folder, server: Server):
    folder.variables["LOOP_DEAD"] = "1"
    first = worker(folder)
    enqueue(folder, "block", "a", 8)
    folder.until(lambda: noted(folder, "start", "a"))
    second = worker(folder)
    folder.until(lambda: noted(folder, "end", "a", 2), 8)

    assert not noted(folder, "end", "a")
    assert "the event loop stands still" in folder.errors()
    folder.until(lambda: noted(folder, "end", "a"))
    assert ("succeeded", 2, 0) == summary(folder, "a")
    for process in (first, second):
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(5)


@pytest.mark.long
@pytest.mark.parametrize(
    ("lease", "frozen"),
    [("1.5s", 3), ("6s", 12)],
    ids=["shorter than the sockets' deadline", "longer"],
)
def test_a_frozen_server_costs_no_live_worker_its_lease(
    folder: Folder, server: Server, lease: str, frozen: int
):
    for _ in range(2):
        worker(folder, "--concurrency", "1", lease=lease)
    for key in ("a", "b"):
        enqueue(folder, "wait", key, 2 * frozen + 2)
    folder.until(lambda: noted(folder, "start", "a") and noted(folder, "start", "b"))
    server.freeze()
    time.sleep(frozen)
    server.thaw()

    assert ("succeeded", 1, 0) == ended(folder, "a", 40) == ended(folder, "b", 40)
    assert [1, 1] == [len(noted(folder, "start", key)) for key in ("a", "b")]


def test_of_fifty_jobs_those_that_can_finish_within_the_grace_and_the_rest_goes_back(
    folder: Folder, server: Server
):
    port = free_port()
    folder.start("api", "--port", str(port))
    folder.until(lambda: "serving" in folder.errors())
    process = worker(folder)
    shorts, longs = [f"short-{n}" for n in range(20)], [f"long-{n}" for n in range(30)]
    for key, seconds in [*((key, 60) for key in longs), *((key, 1.5) for key in shorts)]:
        assert 201 == post(port, key, seconds)
    folder.until(lambda: len(folder.log()) == 50)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()

    assert 0 == process.wait(10)
    assert time.monotonic() - began <= 2 + 2

    def states(keys: list[str]) -> set[tuple[str, int, int]]:
        jobs = [http("GET", f"http://127.0.0.1:{port}/v1/jobs/mail:{key}")[1] for key in keys]
        return {(job["state"], job["attempt"], job["crashes"]) for job in jobs}

    assert {("succeeded", 1, 0)} == states(shorts)
    assert {("ready", 0, 0)} == states(longs)


@pytest.mark.parametrize("trouble", ["killed", "frozen"])
def test_a_worker_ends_in_time_though_its_server_is_away(folder: Folder, server: Server, trouble: str):
    process = worker(folder)
    enqueue(folder, "wait", "a", 60)
    folder.until(lambda: noted(folder, "start", "a"))
    server.kill() if trouble == "killed" else server.freeze()
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    try:
        assert 0 == process.wait(20)
        assert time.monotonic() - began <= 2 + 2
    finally:
        if trouble == "frozen":
            server.thaw()

"""Processes that are started, stopped and killed as users and accidents do it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time

import pytest

from tests.whole.conftest import QUICK, Folder, free_port, http

LEASE, WATCHDOG, GRACE = 1.5, 1.0, 2.0


def test_the_first_minute_of_a_new_user(folder: Folder):
    port = free_port()
    dev = folder.start("dev", "--port", str(port))
    base = f"http://127.0.0.1:{port}"
    folder.until(lambda: "Post a job" in (folder.path / "out").read_text())
    status, job = http("POST", f"{base}/v1/jobs", {"type": "demo.echo", "payload": {"hello": "world"}})
    assert 201 == status
    status, job = http("GET", f"{base}/v1/jobs/{job['id']}?wait=10")

    assert (200, "succeeded", {"hello": "world"}) == (status, job["state"], job["result"])
    said = (folder.path / "out").read_text()
    assert f"http://127.0.0.1:{port}" in said
    assert str(folder.path / ".scheduler") in said
    dev.send_signal(signal.SIGINT)
    assert 0 == dev.wait(10)


def test_the_job_that_dev_shows_runs_beside_an_app(folder: Folder):
    port = free_port()
    folder.start("dev", "jobs:app", "--port", str(port))
    folder.until(lambda: "Post a job" in (folder.path / "out").read_text())
    base = f"http://127.0.0.1:{port}/v1/jobs"
    _, shown = http("POST", base, {"type": "demo.echo", "payload": {"hello": "world"}})
    _, own = http("POST", base, {"type": "short", "queue": "mail", "payload": {"n": 1}})

    for job in (shown, own):
        assert "succeeded" == http("GET", f"{base}/{job['id']}?wait=10")[1]["state"]


def test_dev_in_memory_says_that_its_jobs_go(folder: Folder):
    folder.start("dev", "--port", "0", "--redis-url", "memory://")
    folder.until(lambda: "the jobs are gone then" in (folder.path / "out").read_text())


def test_a_killed_worker_loses_nothing_and_another_takes_over_in_time(folder: Folder):
    first = folder.worker()
    job = folder.enqueue("long")
    folder.until(lambda: len(folder.log()) == 1)
    second = folder.worker()
    folder.until(lambda: folder.errors().count("worker started") == 2)
    first.kill()
    began = time.monotonic()
    first.wait()
    folder.until(lambda: f"end {job} 2" in folder.log())
    took = time.monotonic() - began

    assert took <= LEASE + WATCHDOG + 2
    shown = folder.until(lambda: (found := folder.job(job))["state"] == "succeeded" and found)
    assert (2, 2, 0) == (shown["result"], shown["attempt"], shown["crashes"])
    assert ["LeaseExpired"] == [error["kind"] for error in shown["errors"]]
    assert "0 faults" in folder.run("verify") or folder.run("verify") == ""
    second.send_signal(signal.SIGTERM)
    assert 0 == second.wait(10)


def test_jobs_are_there_after_everything_was_killed(folder: Folder):
    worker = folder.worker()
    running = folder.enqueue("long")
    folder.until(folder.log)
    waiting = folder.enqueue("long", None, "--delay", "1h")
    worker.kill()
    worker.wait()
    os.kill(_server_pid(folder), signal.SIGKILL)
    folder.worker()
    folder.until(lambda: f"end {running} 2" in folder.log(), 25)

    assert "scheduled" == folder.job(waiting)["state"]


def test_a_worker_goes_on_when_server_and_keeper_are_both_killed(folder: Folder):
    folder.worker()
    first = folder.enqueue("short", {"n": 1})
    folder.until(lambda: folder.log() == ["short 1"])
    server = _server_pid(folder)
    keeper = _parent(server)
    for pid in (keeper, server):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    folder.until(lambda: not _alive(server))
    second = folder.enqueue("short", {"n": 2})
    folder.until(lambda: folder.log() == ["short 1", "short 2"])

    assert ["succeeded"] * 2 == [folder.job(job)["state"] for job in (first, second)]


def test_the_server_is_gone_soon_after_its_last_user_was_killed(folder: Folder):
    worker = folder.worker()
    folder.until(lambda: "worker started" in folder.errors())
    server = _server_pid(folder)
    worker.kill()
    worker.wait()

    folder.until(lambda: not _alive(server), 5)


def test_a_handler_that_kills_its_process_ends_dead_by_crashes(folder: Folder):
    folder.worker("--processes", "1")
    job = folder.enqueue("deadly")
    shown = folder.until(lambda: (found := folder.job(job))["state"] == "dead" and found, 40)

    assert ("crashes", 3, ["LeaseExpired"] * 3) == (
        shown["reason"],
        shown["crashes"],
        [e["kind"] for e in shown["errors"]],
    )
    folder.until(lambda: folder.errors().count("reclaimed the jobs of a silent worker") == 3)
    said = [json.loads(line) for line in folder.errors().splitlines() if line.startswith("{")]
    died = [str(line["pid"]) for line in said if line["event"].startswith("a worker process died")]
    reclaimed = [line for line in said if line["event"] == "reclaimed the jobs of a silent worker"]
    assert died == [line["pid"] for line in reclaimed]
    assert [[job]] * 3 == [line["jobs"] for line in reclaimed]
    after = folder.enqueue("short", {"n": 1})
    folder.until(lambda: folder.job(after)["state"] == "succeeded")


def test_sigterm_lets_short_jobs_finish_and_gives_long_ones_back(folder: Folder):
    worker = folder.worker()
    short, long = folder.enqueue("long", {"seconds": 0.8}), folder.enqueue("long")
    folder.until(lambda: len(folder.log()) >= 2 or f"end {short} 1" in folder.log())
    began = time.monotonic()
    worker.send_signal(signal.SIGTERM)

    assert 0 == worker.wait(10)
    assert time.monotonic() - began < 2 + 2
    assert "succeeded" == folder.job(short)["state"]
    back = folder.job(long)
    assert ("ready", 0, 0) == (back["state"], back["attempt"], back["crashes"])


def test_a_second_signal_ends_at_once_still_releasing(folder: Folder):
    worker = folder.start("worker", "jobs:app", "--grace", "60s")
    job = folder.enqueue("long")
    folder.until(folder.log)
    worker.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    worker.send_signal(signal.SIGTERM)

    assert 0 == worker.wait(5)
    assert ("ready", 0) == (folder.job(job)["state"], folder.job(job)["attempt"])


RESOURCES = """
import asyncio
from jobs import app, note


@app.lifespan
async def resource(app):
    note("opening")
    await asyncio.sleep({opening})
    yield
    note("closing")
    await asyncio.sleep({closing})
    note("closed")
"""


@pytest.mark.parametrize("command", [["worker"], ["dev", "--port", "0"]], ids=["worker", "dev"])
def test_a_lifespan_that_hangs_as_it_opens_does_not_hold_up_the_end(folder: Folder, command: list[str]):
    (folder.path / "resources.py").write_text(RESOURCES.format(opening=600, closing=0))
    process = folder.start(*command, "resources:app", *QUICK)
    folder.until(lambda: "opening" in folder.log())
    process.send_signal(signal.SIGTERM)

    assert 0 == process.wait(GRACE + 2)
    assert ["opening"] == folder.log()
    assert "worker started" not in folder.errors()


@pytest.mark.parametrize("command", [["worker"], ["dev", "--port", "0"]], ids=["worker", "dev"])
def test_a_lifespan_that_hangs_as_it_closes_does_not_hold_up_the_end(folder: Folder, command: list[str]):
    (folder.path / "resources.py").write_text(RESOURCES.format(opening=0, closing=600))
    process = folder.start(*command, "resources:app", *QUICK)
    folder.until(lambda: "worker started" in folder.errors())
    process.send_signal(signal.SIGTERM)

    assert 0 == process.wait(GRACE + 2)
    assert ["opening", "closing"] == folder.log()


def test_a_lifespan_has_the_rest_of_the_grace_for_closing_unless_another_signal_comes(folder: Folder):
    (folder.path / "resources.py").write_text(RESOURCES.format(opening=0, closing=1.4))
    process = folder.start("worker", "resources:app", *QUICK)
    folder.until(lambda: "worker started" in folder.errors())
    process.send_signal(signal.SIGTERM)
    assert 0 == process.wait(10)
    assert ["opening", "closing", "closed"] == folder.log()

    (folder.path / "resources.py").write_text(RESOURCES.format(opening=0, closing=600))
    process = folder.start("worker", "resources:app", *QUICK, "--grace", "60s")
    folder.until(lambda: folder.errors().count("worker started") == 2)
    process.send_signal(signal.SIGTERM)
    folder.until(lambda: folder.log().count("closing") == 2)
    process.send_signal(signal.SIGTERM)
    assert 0 == process.wait(10)


def test_a_worker_that_loses_its_parent_while_a_lifespan_opens_ends(folder: Folder):
    (folder.path / "resources.py").write_text(RESOURCES.format(opening=600, closing=0))
    parent = folder.start("worker", "resources:app", *QUICK, "--processes", "1")
    folder.until(lambda: "opening" in folder.log())
    [child] = _children(parent.pid)
    parent.kill()
    parent.wait()

    folder.until(lambda: not _alive(child))


def test_several_processes_are_kept_up_and_stop_together(folder: Folder):
    parent = folder.worker("--processes", "2")
    folder.until(lambda: folder.errors().count("worker started") == 2)
    children = _children(parent.pid)
    os.kill(children[0], signal.SIGKILL)
    folder.until(lambda: folder.errors().count("worker started") == 3)
    assert 2 == len(_children(parent.pid))
    parent.send_signal(signal.SIGTERM)

    assert 0 == parent.wait(10)
    assert not any(_alive(child) for child in children)


def test_children_end_with_a_killed_parent(folder: Folder):
    parent = folder.worker("--processes", "2")
    folder.until(lambda: folder.errors().count("worker started") == 2)
    children = _children(parent.pid)
    parent.kill()
    parent.wait()

    folder.until(lambda: not any(_alive(child) for child in children), 10)


def test_twelve_jobs_go_through_three_processes_once_each(folder: Folder):
    for n in range(12):
        folder.enqueue("short", {"n": n}, "--id", f"j{n}")
    folder.worker("--processes", "3")
    folder.until(lambda: len(folder.log()) == 12)

    assert sorted(f"short {n}" for n in range(12)) == sorted(folder.log())


def test_wrong_use_is_told_in_one_line(folder: Folder):
    port = free_port()
    folder.start("api", "--port", str(port))
    folder.until(lambda: "serving" in folder.errors())

    assert "SCHEDULER_PORT" in folder.run("dev", "--port", str(port), status=1)
    assert "memory://" in folder.run("worker", "--redis-url", "memory://", status=2)
    assert "memory://" in folder.run("verify", "--redis-url", "memory://", status=1)
    assert "module:attribute" in folder.run("worker", "jobs", status=2)
    assert "no module 'nowhere'" in folder.run("worker", "nowhere:app", status=2)
    assert "--lease" in folder.run("worker", "--lease", "soon", status=2)
    assert "redis://127.0.0.1:1" in folder.run("verify", "--redis-url", "redis://127.0.0.1:1", status=1)
    assert "SCHEDULER_API_KEY" in folder.run("api", "--host", "0.0.0.0", status=2)


def test_a_worker_says_what_it_waits_for_and_begins_when_it_comes(folder: Folder):
    port = free_port()
    url = f"redis://127.0.0.1:{port}"
    worker = folder.start("worker", "--redis-url", url, *QUICK)
    folder.until(lambda: f"waiting for {url}" in folder.errors())
    from tests.conftest import binary  # noqa: PLC0415

    program = binary("valkey") or binary("redis")
    assert program is not None
    server = subprocess.Popen(
        [program, "--port", str(port), "--save", ""], cwd=folder.path, stdout=subprocess.DEVNULL
    )
    try:
        folder.until(lambda: "worker started" in folder.errors(), 6)
        job = folder.run("enqueue", "demo.echo", "--redis-url", url).strip()
        folder.until(lambda: '"succeeded"' in folder.run("job", "show", job, "--json", "--redis-url", url))
        worker.send_signal(signal.SIGTERM)
        assert 0 == worker.wait(10)
    finally:
        server.kill()
        server.wait()


def test_a_process_whose_worker_fails_ends_with_an_error(folder: Folder):
    broken = """
from scheduler.worker import Worker


async def declare(self):
    raise RuntimeError("broken on purpose")


Worker.declare = declare
"""
    (folder.path / "broken.py").write_text(f"{(folder.path / 'jobs.py').read_text()}\n{broken}")

    for command in (["dev", "broken:app", "--port", "0"], ["worker", "broken:app"]):
        assert 1 == folder.start(*command).wait(10)
    assert 2 == folder.errors().count("RuntimeError: broken on purpose")


def _children(pid: int) -> list[int]:
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(line) for line in found.stdout.split()]


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rsplit(")", 1)[1].split()[1])


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"


def _server_pid(folder: Folder) -> int:
    # Another name of this process is its keeper's child; the folder is in its command line or its working directory.
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                name = os.path.basename(os.readlink(f"/proc/{entry}/exe"))
                where = os.readlink(f"/proc/{entry}/cwd")
            except OSError:
                continue
            if name in {"valkey-server", "redis-server"} and where.startswith(str(folder.path)):
                return int(entry)
    raise AssertionError("no server runs here")


@pytest.mark.long
def test_a_job_that_kills_its_process_takes_no_other_with_it_for_good(folder: Folder):
    (folder.path / "jobs.py").write_text(
        (folder.path / "jobs.py").read_text()
        + """

@app.job("steady", queue="mail", timeout=60)
async def steady(ctx, n: int):
    await asyncio.sleep(1.0)
    return n
"""
    )
    folder.worker("--processes", "1", "--concurrency", "20")
    folder.until(lambda: "worker started" in folder.errors())
    folder.run("queue", "pause", "mail")
    killers = [folder.enqueue("deadly") for _ in range(2)]
    innocents = [folder.enqueue("steady", {"n": n}) for n in range(10)]
    folder.run("queue", "resume", "mail")

    def ended() -> list[str] | None:
        states = [folder.job(job)["state"] for job in (*killers, *innocents)]
        return states if all(state in {"dead", "succeeded"} for state in states) else None

    assert ["dead"] * 2 + ["succeeded"] * 10 == folder.until(ended, 90)
    for killer in killers:
        shown = folder.job(killer)
        assert ("crashes", 3) == (shown["reason"], shown["crashes"])

"""Handlers that have a process of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from scheduler.errors import HandlerFailed
from scheduler.handlers import make_handler
from scheduler.job import Claimed, State, parse_record
from scheduler.processes import Child
from scheduler.settings import Settings
from tests.running import jobs_in_processes as jobs
from tests.running.conftest import QUEUE, Bench

pytestmark = pytest.mark.parametrize("backend", ("fake", "valkey"), indirect=True)


def offered(bench: Bench, *functions: Callable[..., Any], **options: Any) -> None:
    for function in functions:
        bench.handler(function.__name__, function, process=True, **options)


def gone(pid: int) -> bool:
    # A child that is dead and not yet waited for is gone too.
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


async def test_it_runs_elsewhere_and_tells_as_any_other(bench: Bench):
    offered(bench, jobs.who, jobs.awaited)
    bench.work()
    key = await bench.enqueue("who", b'{"n": 7}')
    other = await bench.enqueue("awaited", b'{"n": 4}')
    job, second = await bench.ended(key), await bench.ended(other)

    assert (State.SUCCEEDED, State.SUCCEEDED) == (job.state, second.state), (job, second)
    told = orjson.loads(job.result or b"")
    assert {"n": 7, "attempt": 1, "id": f"{QUEUE}:{key}", "before": None} == {
        name: told[name] for name in ("n", "attempt", "id", "before")
    }
    assert told["pid"] != os.getpid()
    assert b"5" == second.result
    await bench.until(lambda: _progress(bench, key))


async def _progress(bench: Bench, key: str) -> bool:
    return (await bench.job(key)).progress == b"50"


async def test_a_process_is_used_again(bench: Bench):
    offered(bench, jobs.who)
    bench.work(concurrency=1)
    keys = [await bench.enqueue("who") for _ in range(4)]
    found = {orjson.loads((await bench.ended(key)).result or b"")["pid"] for key in keys}

    assert 1 == len(found)


@pytest.mark.parametrize(
    ("how", "state", "kind", "message"),
    [
        ("value", State.RETRYING, "ValueError", "boom"),
        ("permanent", State.DEAD, "Permanent", "not again"),
        ("later", State.RETRYING, "RetryAfter", "later"),
        ("exit", State.RETRYING, "SystemExit", "3"),
        ("die", State.RETRYING, "ProcessDied", "the handler's process ended: exit status 3"),
        ("kill", State.RETRYING, "ProcessDied", "the handler's process ended: killed by SIGKILL"),
    ],
)
async def test_its_failure_is_the_jobs(bench: Bench, how, state, kind, message):
    offered(bench, jobs.raises)
    bench.work()
    key = await bench.enqueue("raises", orjson.dumps({"how": how}), retry={"immediate": 0, "base": 60_000})
    await bench.until(lambda: _in(bench, key, state))
    job = await bench.job(key)

    [line] = job.errors
    assert (kind, message) == (line.kind, line.message)
    if not kind.startswith("Process"):
        assert "jobs_in_processes.py" in (line.trace or "")


async def test_what_it_slows_is_slowed_for_all(bench: Bench):
    offered(bench, jobs.raises)
    bench.work()
    key = await bench.enqueue("raises", b'{"how": "later"}')
    await bench.until(lambda: _in(bench, key, State.RETRYING))
    other = await bench.enqueue("raises", b'{"how": "value"}')

    assert [] == (await bench.store.claim(QUEUE, worker="w", types=["raises"])).jobs
    assert State.READY is (await bench.job(other)).state


async def _in(bench: Bench, key: str, state: State) -> bool:
    return (await bench.job(key)).state is state


async def test_a_snooze_uses_no_attempt(bench: Bench):
    offered(bench, jobs.raises)
    bench.work()
    key = await bench.enqueue("raises", b'{"how": "snooze"}')
    await bench.until(lambda: _in(bench, key, State.SCHEDULED))

    assert (0, 1) == ((await bench.job(key)).attempt, (await bench.job(key)).snoozes)


async def test_what_is_no_result_ends_the_job(bench: Bench):
    offered(bench, jobs.big, jobs.no_json)
    bench.work(max_result=1_000)
    keys = await bench.enqueue("big", b'{"size": 2000}'), await bench.enqueue("no_json")
    found = [await bench.ended(key) for key in keys]

    assert ["ResultTooLarge", "ResultInvalid"] == [job.errors[0].kind for job in found]
    assert {State.DEAD} == {job.state for job in found}


async def test_a_hung_one_is_killed_at_its_timeout_with_what_it_started(bench: Bench, tmp_path):
    offered(bench, jobs.hang, jobs.who)
    bench.work()
    file = tmp_path / "pids"
    key = await bench.enqueue(
        "hang", orjson.dumps({"file": str(file)}), timeout_ms=2_500, retry={"max_attempts": 1}
    )
    job = await bench.ended(key)

    assert (State.DEAD, "TimeoutError") == (job.state, job.errors[0].kind)
    pids = [int(pid) for pid in file.read_text().split()]
    await bench.until(lambda: all(gone(pid) for pid in pids))
    # Its place is free again.
    assert State.SUCCEEDED is (await bench.ended(await bench.enqueue("who"))).state


async def test_only_its_worker_ends_it(bench: Bench, tmp_path):
    offered(bench, jobs.waits)
    worker = bench.work(grace_ms=5_000)
    file = tmp_path / "pid"
    key = await bench.enqueue("waits", orjson.dumps({"file": str(file)}))
    await bench.until(lambda: file.exists() and file.read_text())
    # As a service manager does, which knows no difference between them.
    os.kill(int(file.read_text()), signal.SIGTERM)
    worker.stop()
    (tmp_path / "pid-go").touch()

    assert State.SUCCEEDED is (await bench.ended(key)).state


async def test_no_more_is_claimed_than_can_begin_and_another_worker_takes_the_rest(bench: Bench):
    offered(bench, jobs.naps)
    workers = [bench.work(concurrency=20) for _ in range(2)]
    for worker in workers:
        worker.crew.places.processes.free = worker.crew.places.processes.most = 1
    keys = [
        await bench.enqueue("naps", b'{"seconds": 0.2}', timeout_ms=5_000, retry={"max_attempts": 1})
        for _ in range(8)
    ]
    most, at_work = 0, set[str]()
    while True:
        running = [worker.left() for worker in workers]
        most = max(most, *(len(ids) for ids in running))
        at_work |= {worker.name for worker, ids in zip(workers, running, strict=True) if ids}
        if all([(await bench.job(key)).state.ended for key in keys]):
            break
        await asyncio.sleep(0.005)

    found = [await bench.job(key) for key in keys]
    assert [(State.SUCCEEDED, 1)] * 8 == [(job.state, job.attempt) for job in found]
    assert (1, 2) == (most, len(at_work))


async def test_a_job_of_another_queue_that_finds_no_process_goes_back_and_has_used_nothing(bench: Bench):
    async def plain(ctx) -> str:
        return "plain"

    offered(bench, jobs.naps)
    bench.handler("plain", plain)  # the queue has other jobs too: it is not held back for want of a process
    worker = bench.work(concurrency=20)
    worker.crew.places.processes.free = worker.crew.places.processes.most = 1
    keys = [await bench.enqueue("naps", b'{"seconds": 0.5}') for _ in range(3)]
    await bench.until(worker.left)
    assert State.SUCCEEDED is (await bench.ended(await bench.enqueue("plain"))).state

    assert [(State.SUCCEEDED, 1)] * 3 == [
        ((job := await bench.ended(key)).state, job.attempt) for key in keys
    ]


async def test_the_time_counts_from_the_handlers_first_line(bench: Bench, tmp_path, monkeypatch):
    (tmp_path / "slow_to_import.py").write_text(
        "import time\ntime.sleep(1.5)\n\ndef naps(ctx, seconds):\n    time.sleep(seconds)\n    return 'slept'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import slow_to_import  # type: ignore[import-not-found]  # noqa: PLC0415

    bench.handler("naps", slow_to_import.naps, process=True)
    bench.work()
    job = await bench.ended(
        await bench.enqueue("naps", b'{"seconds": 0.5}', timeout_ms=1_200, retry={"max_attempts": 1})
    )

    assert (State.SUCCEEDED, b'"slept"') == (job.state, job.result), job.errors


async def test_a_process_is_replaced_after_so_many_jobs(bench: Bench):
    offered(bench, jobs.who)
    worker = bench.work(process_max_jobs=2)
    worker.crew.places.processes.free = worker.crew.places.processes.most = 1
    pids = [
        orjson.loads((await bench.ended(await bench.enqueue("who"))).result or b"{}")["pid"] for _ in range(6)
    ]

    assert 3 <= len(set(pids)) <= 6


async def test_what_a_job_left_behind_tells_nothing_of_the_next_one(bench: Bench, tmp_path):
    offered(bench, jobs.leaves_a_thread, jobs.waits_for_that_thread)
    bench.work(concurrency=1)
    file = orjson.dumps({"file": str(tmp_path / "go")})
    await bench.ended(await bench.enqueue("leaves_a_thread", file))
    key = await bench.enqueue("waits_for_that_thread", file)

    assert State.SUCCEEDED is (await bench.ended(key)).state
    assert (await bench.job(key)).progress is None


@pytest.mark.parametrize("session", ["its own", "another"])
async def test_the_end_of_one_is_heard_at_once_whatever_it_has_started(bench: Bench, tmp_path, session):
    offered(bench, jobs.dies_and_leaves)
    bench.work()
    file = tmp_path / "pid"
    key = await bench.enqueue(
        "dies_and_leaves", orjson.dumps({"file": str(file), "how": session}), retry={"max_attempts": 1}
    )

    assert "ProcessDied" == (await bench.ended(key)).errors[0].kind
    left = int(file.read_text())
    if session == "another":
        os.kill(left, signal.SIGKILL)
    await bench.until(lambda: gone(left))


def test_a_child_that_is_killed_while_it_is_listened_to_ends_as_any_other(backend):
    # Its descriptor would be closed by two threads otherwise, the second time as somebody else's.
    job = Claimed("mail", "a", 1, 1, 9, 9, 9, parse_record(b'hang|||1|0||\n\n{"file": "/dev/null"}'))
    request = "tests.running.jobs_in_processes", "hang", job, Settings(), 1000
    failed: list[str] = []

    def listen(child: Child) -> None:
        try:
            child.run(request, 1, print, lambda: None)
        except HandlerFailed as error:
            failed.append(error.kind)

    switches = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(40):
            child = Child()
            listener = threading.Thread(target=listen, args=(child,))
            listener.start()
            child.kill()
            listener.join()
    finally:
        sys.setswitchinterval(switches)
    assert ["ProcessDied"] * 40 == failed


async def test_one_that_is_cancelled_is_killed(bench: Bench, tmp_path):
    offered(bench, jobs.hang)
    bench.work()
    file = tmp_path / "pids"
    key = await bench.enqueue("hang", orjson.dumps({"file": str(file)}))
    await bench.until(lambda: file.exists() and file.read_text())
    await bench.store.cancel(QUEUE, [key])

    assert State.CANCELLED is (await bench.ended(key)).state
    await bench.until(lambda: all(gone(int(pid)) for pid in file.read_text().split()))


async def test_stopping_the_worker_kills_it_and_gives_the_job_back(bench: Bench, tmp_path):
    offered(bench, jobs.hang)
    worker = bench.work(grace_ms=100)
    file = tmp_path / "pids"
    key = await bench.enqueue("hang", orjson.dumps({"file": str(file)}))
    await bench.until(lambda: file.exists() and file.read_text())
    await bench.stop(worker)

    assert (State.READY, 0) == ((await bench.job(key)).state, (await bench.job(key)).attempt)
    assert all(gone(int(pid)) for pid in file.read_text().split())


async def test_no_process_outlives_its_worker(bench: Bench, tmp_path):
    # A worker that is killed says nothing: the socket's end does.
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, threading, time\n"
        "from scheduler.processes import Child\n"
        "from scheduler.job import Claimed, parse_record\n"
        "from scheduler.settings import Settings\n"
        "record = parse_record(b'hang|||1|0||\\n\\n' + sys.argv[1].encode())\n"
        "job = Claimed('mail', 'a', 1, 1, 9, 9, 9, record)\n"
        "Child().run(('tests.running.jobs_in_processes', 'hang', job, {}, Settings(), 1000), 1, print, lambda: None)\n"
    )
    file = tmp_path / "pids"
    root = str(Path(__file__).parents[2])
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        str(script),
        orjson.dumps({"file": str(file)}).decode(),
        env={**os.environ, "PYTHONPATH": root},
    )
    await bench.until(lambda: file.exists() and file.read_text())
    parent.kill()
    await parent.wait()
    await bench.until(lambda: all(gone(int(pid)) for pid in file.read_text().split()))


def test_what_cannot_be_imported_elsewhere_is_refused_when_it_is_declared(backend):
    def inner(ctx) -> None: ...

    with pytest.raises(ValueError, match="defined within another function"):
        make_handler("inner", inner, process=True)

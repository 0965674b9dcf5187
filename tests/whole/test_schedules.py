"""Schedules in processes that are killed: every slot has one job, and the next who comes goes on."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from tests.whole.conftest import Folder

APP = """
from scheduler import Scheduler

app = Scheduler()


@app.schedule(every="250ms", name="tick", payload={"n": 1}, overlap="allow", catch_up="all")
@app.job("short", queue="mail")
def short(ctx, n: int):
    with open("log", "a") as file:
        file.write(ctx.id + "\\n")
"""


def shown(folder: Folder) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(folder.run("schedule", "show", "tick", "--json"))
    return document


def at_least(folder: Folder, lines: int) -> bool:
    return len(folder.log()) >= lines


def test_slots_fire_once_while_those_who_tick_are_killed(folder: Folder):
    (folder.path / "jobs.py").write_text(APP)
    workers = [folder.worker() for _ in range(2)]
    folder.until(lambda: len(folder.log()) > 4)
    for round_ in range(2):
        workers[round_].kill()
        workers[round_].wait()
        wanted = len(folder.log()) + 6
        workers.append(folder.worker())
        folder.until(partial(at_least, folder, wanted))
    folder.run("schedule", "pause", "tick")

    before = shown(folder)
    folder.until(lambda: len(set(folder.log())) == before["runs"])
    assert 0 == before["skipped_runs"]
    slots = sorted({one["slot"] for one in before["last"]})
    assert len(before["last"]) == len(slots)
    assert "0 faults" in folder.run("verify") or folder.run("verify") == ""


def test_a_schedule_that_is_gone_from_the_code_goes_with_the_next_worker(folder: Folder):
    (folder.path / "jobs.py").write_text(APP)
    first = folder.worker()
    folder.until(lambda: len(folder.log()) > 1)
    first.terminate()
    assert 0 == first.wait(10)
    (folder.path / "jobs.py").write_text(
        APP.replace('@app.schedule(every="250ms", name="tick"', '@app.schedule(every="1h", name="tock"')
    )
    folder.worker()

    names = folder.until(
        lambda: (
            (found := [one["name"] for one in json.loads(folder.run("schedule", "list", "--json"))["items"]])
            == ["tock"]
            and found
        )
    )
    assert ["tock"] == names

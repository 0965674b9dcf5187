"""A flow whose workers are killed while it runs: every job ends, none before those it waits for, results reach who waited."""

from __future__ import annotations

import json
from typing import Any

from tests.whole.conftest import QUICK, Folder, free_port, http

APP = """
import asyncio, os
from scheduler import Scheduler

app = Scheduler()


def note(ctx, word):
    with open("log", "a") as file:
        file.write(f"{word} {ctx.id}\\n")


@app.job("load", queue="mail")
async def load(ctx, n: int) -> int:
    note(ctx, "start")
    await asyncio.sleep(0.05)
    if n == 7 and ctx.attempt == 1:
        os.kill(os.getpid(), 9)
    note(ctx, "end")
    return n


@app.job("spread", queue="other")
async def spread(ctx) -> int:
    note(ctx, "start")
    for n in range(3):
        ctx.add(load.job(n=100 + n))
    return sum(ctx.parents.values())


@app.job("total", queue="mail", process=True)
def total(ctx) -> dict:
    return ctx.parents
"""

LAYERS, WIDE = 4, 10


def graph() -> dict[str, Any]:
    """Layers of jobs, each of which waits for two of the layer before; at the end one that adds three, and one that has all."""
    jobs = [
        {
            "name": f"n{layer}-{n}", "type": "load", "queue": "mail", "payload": {"n": layer * WIDE + n},
            "after": [f"n{layer - 1}-{n}", f"n{layer - 1}-{(n + 1) % WIDE}"] if layer else [],
        }
        for layer in range(LAYERS) for n in range(WIDE)
    ]  # fmt: skip
    last = [f"n{LAYERS - 1}-{n}" for n in range(WIDE)]
    jobs.append({"name": "spread", "type": "spread", "queue": "other", "after": last})
    jobs.append({"name": "total", "type": "total", "queue": "mail", "after": ["spread"]})
    return {"id": "f", "queue": "mail", "jobs": jobs}


def test_a_flow_ends_whole_whoever_is_killed(folder: Folder):
    (folder.path / "shop.py").write_text(APP)
    port = free_port()
    folder.start("api", "--port", str(port), *QUICK)
    folder.start("worker", "shop:app", "--processes", "2", "--concurrency", "4", *QUICK)
    folder.until(lambda: folder.errors().count("worker started") == 2)
    folder.path.joinpath("flow.json").write_text(json.dumps(graph()))

    assert "mail:f\n" == folder.run("flow", "put", "flow.json")
    status, flow = http("GET", f"http://127.0.0.1:{port}/v1/flows/mail:f?wait=50")

    assert (200, "succeeded") == (status, flow["state"]), flow["progress"]
    total = LAYERS * WIDE + 2 + 3
    assert {"total": total, "succeeded": total, "pending": 0, "failed": 0} == flow["progress"]
    jobs = {job["name"]: job for job in flow["jobs"] if job["name"]}
    assert total == len(flow["jobs"])
    # One that was killed began once more; what counts is when each began for the first time, and ended for good.
    log = [line.split() for line in folder.log()]
    began = {its_id: n for n, (word, its_id) in reversed(list(enumerate(log))) if word == "start"}
    ended = {its_id: n for n, (word, its_id) in enumerate(log) if word == "end"}
    for job in jobs.values():
        for name in job["after"]:
            if jobs[name]["id"] in ended and job["id"] in began:
                assert ended[jobs[name]["id"]] < began[job["id"]]
    found = folder.job(jobs["total"]["id"])["result"]
    expected = sum(range((LAYERS - 1) * WIDE, LAYERS * WIDE))
    assert {"spread": expected, **{its_id: n for its_id, n in found.items() if its_id != "spread"}} == found
    assert [100, 101, 102] == sorted(n for its_id, n in found.items() if its_id != "spread")
    assert 2 == folder.job(jobs["n0-7"]["id"])["attempt"]
    assert "0 faults" in folder.run("verify") or folder.run("verify") == ""

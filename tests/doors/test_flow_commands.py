"""`scheduler flow put|show|cancel|replay`."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from scheduler.cli import cli
from scheduler.outcomes import Ack, Bury
from scheduler.store import Store
from tests.conftest import Servers
from tests.doors.test_commands import Command, backend, command, given, on_what_stands, url
from tests.helpers import QUEUE, WORKER, faults, take
from tests.whole.conftest import ROOT

__all__ = ["backend", "command", "url"]

GRAPH = {
    "queue": QUEUE,
    "id": "f",
    "jobs": [
        {"name": "load", "type": "send"},
        {"name": "bill", "type": "send", "after": ["load"]},
        {"name": "report", "type": "send", "after": ["load", "bill"]},
    ],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "flow.json"
    path.write_text(json.dumps(GRAPH))
    return path


@pytest.fixture
def put(servers: Servers, command: Command, file: Path) -> None:
    async def nothing(_: Store) -> None: ...

    given(servers, nothing)
    assert "mail:f\n" == command("flow", "put", str(file))


def after(servers: Servers, verb: str) -> None:
    """The next job ends so."""

    async def work(store: Store) -> None:
        [job] = await take(store)
        if verb == "ack":
            await store.ack(QUEUE, [Ack(job.key, job.token)], worker=WORKER)
        else:
            await store.bury(QUEUE, [Bury(job.key, job.token, "Boom", "no")], worker=WORKER)
        await store.relay(QUEUE)
        assert [] == await faults(store)

    asyncio.run(on_what_stands(servers, work))


def states(command: Command, *words: str) -> dict[str, Any]:
    found = json.loads(command("flow", *(words or ("show", "mail:f")), "--json"))
    return {"": found["state"], **{one["name"]: one["state"] for one in found["jobs"]}}


def test_a_graph_is_put_in_once_from_a_file_or_from_stdin(servers, command, file, url, put):
    again = command("flow", "put", str(file))
    assert ["mail:f", "mail:f: it was put in before"] == again.splitlines()

    done = CliRunner().invoke(
        cli, ["flow", "put", "-", "--json", "--redis-url", url], input=json.dumps({**GRAPH, "id": "g"})
    )
    assert ("mail:g", ["ready", "blocked", "blocked"]) == (
        (found := json.loads(done.stdout))["id"],
        [one["state"] for one in found["jobs"]],
    )
    assert "duplicate" not in found


def test_it_is_shown_as_it_stands_in_columns(servers, command, put):
    after(servers, "ack")

    lines = command("flow", "show", "mail:f").splitlines()

    assert ["id", "mail:f"] == lines[0].split()
    assert "1 succeeded, 0 failed, 2 of 3 to go" in lines[3]
    assert [["load", "succeeded"], ["bill", "ready"], ["report", "blocked"]] == [
        line.split()[:2] for line in lines[5:]
    ]
    assert "load bill" in lines[-1]


def test_what_died_is_replayed_and_what_waits_is_cancelled(servers, command, put):
    after(servers, "bury")
    assert {"": "failed", "load": "dead", "bill": "cancelled", "report": "cancelled"} == states(command)

    assert {"": "running", "load": "ready", "bill": "blocked", "report": "blocked"} == states(
        command, "replay", "mail:f"
    )
    assert {"cancelled"} == set(states(command, "cancel", "mail:f").values())
    assert "only" not in command("flow", "cancel", "mail:f")
    assert "nothing of the flow mail:f is dead" in command("flow", "replay", "mail:f", status=1)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("show", "mail:x"), 1, "there is no flow mail:x"),
        (("cancel", "x"), 2, "no id of a flow: it is <queue>:<key>"),
        (("put", "/no/such/file"), 2, "No such file"),
    ],
)
def test_what_is_not_there_is_said(put, command, words, status, said):
    assert said in command("flow", *words, status=status)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "it ends too early"),
        ('{"jobs": []}', "/jobs: at least one job"),
        (
            '{"jobs": [{"name": "a", "type": "t", "after": ["b"]}]}',
            "/jobs/0/after/0: no job of this flow has the name b",
        ),
        ('{"jobs": [{"name": "a", "type": "t", "colour": 1}]}', "/jobs/0/colour: there is no such field"),
    ],
)
def test_what_is_wrong_with_a_document_is_named(put, command, tmp_path, text, said):
    path = tmp_path / "wrong.json"
    path.write_text(text)

    assert said in command("flow", "put", str(path), status=2)


def test_on_a_terminal_who_waits_stands_under_whom_it_waits_for(put, url):
    main, terminal = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "scheduler", "flow", "show", "mail:f", "--redis-url", url],
        stdout=terminal, env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120", "NO_COLOR": "1", "TERM": "xterm"},
        check=True, timeout=60,
    )  # fmt: skip
    os.close(terminal)
    shown = os.read(main, 65_536).decode().splitlines()
    os.close(main)

    assert 0 == done.returncode
    jobs = [line.rstrip() for line in shown[-3:]]
    assert ["load", "  bill", "    report"] == [
        line[: len(line) - len(line.lstrip())] + line.split()[0] for line in jobs
    ]

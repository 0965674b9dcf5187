"""Completion: the scripts that shells read, and what they get when they ask."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from scheduler.cli import COMMANDS, cli, completion
from scheduler.keys import STATES
from scheduler.outcomes import TypePolicy
from scheduler.store import Store
from tests.conftest import Servers
from tests.helpers import enqueued

ROOT = Path(__file__).resolve().parents[2]
Ask = Callable[..., list[str]]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """What a shell gets for the words so far, the last of them unfinished, in an empty folder."""

    def call(*words: str, url: str = "") -> list[str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith("SCHEDULER_")}
        environment = kept | {
            "COMP_WORDS": " ".join(["scheduler", *words]),
            "COMP_CWORD": str(len(words)),
            "_SCHEDULER_COMPLETE": "bash_complete",
            "PYTHONPATH": str(ROOT),
        }
        if url:
            environment["SCHEDULER_REDIS_URL"] = url
        done = subprocess.run(
            [sys.executable, "-m", "scheduler"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert "" == done.stderr
        return [line.removeprefix("plain,") for line in done.stdout.splitlines() if line]

    return call


@pytest.fixture
def filled(servers: Servers) -> Iterator[str]:
    """A server with two queues and a type of each; its address."""

    async def within(work: Callable[[Store], Awaitable[Any]]) -> None:
        store = Store(await servers.open("valkey"))
        await store.clients.commands.flushall()
        await work(store)
        await store.close()

    async def fill(store: Store) -> None:
        await enqueued(store, "a")
        await store.configure_type("mail", "mail.send", TypePolicy(timeout_ms=1), declared=True)
        await store.configure_type("reports", "report.render", TypePolicy(timeout_ms=1))

    async def nothing(_store: Store) -> None:
        pass

    asyncio.run(within(fill))
    yield servers.url("valkey")
    asyncio.run(within(nothing))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script_that_asks_us(shell):
    done = CliRunner().invoke(cli, ["completion", shell])

    assert 0 == done.exit_code
    assert f"_SCHEDULER_COMPLETE={shell}_complete" in done.stdout


def test_a_shell_we_know_no_script_for_is_refused():
    assert 2 == CliRunner().invoke(cli, ["completion", "tcsh"]).exit_code


def test_bash_completes_by_the_script(tmp_path):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    (tmp_path / "scheduler").write_text(f'#!/bin/sh\nexec {sys.executable} -m scheduler "$@"\n')
    (tmp_path / "scheduler").chmod(0o755)
    line = (
        'eval "$(scheduler completion bash)"; COMP_WORDS=(scheduler jo); COMP_CWORD=1; '
        '_scheduler_completion scheduler; echo "${COMPREPLY[@]}"'
    )

    done = subprocess.run(
        [bash, "--norc", "-c", line],
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip

    assert "job jobs\n" == done.stdout


def test_commands_options_and_states_are_completed_without_a_server(ask, tmp_path):
    assert [name for name in COMMANDS if name.startswith("d")] == ask("d")
    assert ["--payload"] == ask("enqueue", "demo.echo", "--pay")
    assert [state for state in STATES if state.startswith("s")] == ask("jobs", "list", "--state", "s")
    assert ["bash"] == ask("completion", "b")
    assert [] == list(tmp_path.iterdir())


def test_queues_and_types_are_those_of_the_server(ask, filled):
    assert ["mail"] == ask("queue", "show", "m", url=filled)
    assert ["mail", "reports"] == ask("jobs", "list", "--queue", "", url=filled)
    assert ["mail.send", "report.render"] == ask("jobs", "list", "--type", "", url=filled)
    assert ["report.render"] == ask("jobs", "list", "--queue", "reports", "--type", "", url=filled)


def test_no_server_is_started_and_no_failure_told_for_a_shell_that_asks(ask, tmp_path):
    assert [] == ask("queue", "show", "m")
    assert [] == ask("queue", "show", "m", url="redis://127.0.0.1:1")
    assert [] == ask("queue", "show", "m", url="no url")
    assert [] == list(tmp_path.iterdir())


def test_a_server_that_says_nothing_keeps_no_shell_waiting(monkeypatch):
    told = threading.Event()

    def silent(*_: Any) -> None:
        told.wait(30)

    monkeypatch.setattr(completion, "_ask", silent)
    monkeypatch.setattr(completion, "PATIENCE", 0.01)

    assert [] == completion.known("queues", {}, "")
    told.set()

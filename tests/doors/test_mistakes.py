"""Mistakes of users end in a few lines that say what to do: in a program, in an option, at a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from scheduler.cli import cli, draw
from scheduler.cli.common import confirmed
from scheduler.cli.program import Mistake, find_app
from scheduler.cli.run import parse_queues
from scheduler.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
BEGIN = "from scheduler import Retry, Scheduler\napp = Scheduler()\n"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Writes a user's module into the working directory; its name, which no other test has."""
    monkeypatch.chdir(tmp_path)
    before, path = set(sys.modules), list(sys.path)

    def write(text: str) -> str:
        name = f"shop_{len(list(tmp_path.iterdir()))}_{tmp_path.name}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield write
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name.startswith("shop_"):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import nowhere_at_all\n", r"No module named 'nowhere_at_all'\n  in \S+\.py, line 1: import nowhere_at_all"),
        ("def f(:\n", r"SyntaxError: invalid syntax\n  in \S+\.py, line 1: def f\(:"),
        ("import os\nkey = os.environ['NO_SUCH_KEY']\n", r"KeyError: 'NO_SUCH_KEY'\n  in \S+\.py, line 2: key = os"),
        ("import json\njson.loads('{')\n", r"JSONDecodeError: .*\n  in \S+\.py, line 2: json\.loads"),
        ("raise SystemExit('no configuration')\n", r"SystemExit: no configuration\n  in \S+\.py, line 1"),
        (BEGIN + "@app.job('x', retry=Retry(max_attempts=0))\nasync def x(ctx): ...\n",
         r"max_attempts: expected a whole number from 1 to 1000\n  in \S+\.py, line 3"),
        (BEGIN + "@app.job('x')\nasync def x(ctx): ...\n@app.job('x')\nasync def y(ctx): ...\n",
         r"there is a handler for 'x' already: shop_\w+\.x\n  in \S+\.py, line 5"),
        (BEGIN + "@app.lifespan\ndef pool(app): ...\n", r"a lifespan is `async def.*\n  in \S+\.py, line 3"),
    ],
)  # fmt: skip
def test_a_program_that_cannot_be_imported_is_told_by_its_own_line(module, text, told):
    with pytest.raises(Mistake) as caught:
        find_app(f"{module(text)}:app", Settings())

    assert re.search(told, str(caught.value)), caught.value
    assert len(str(caught.value).splitlines()) <= 3


def test_a_name_that_leads_to_no_app_says_what_there_is(module):
    shop = module("from scheduler import Scheduler\njobs = Scheduler()\nother = 3\n")

    for name, told in {
        "shop": "write it as module:attribute",
        f"{shop}:app": f"'app' is not there in {shop} .*; there is {shop}:jobs",
        f"{shop}:other": f"'other' is no Scheduler .*; there is {shop}:jobs",
        f"{shop}.py:jobs": f"there is no module .*; did you mean {shop}:…",
        f"./{shop}.py:jobs": f"a module is named, not its file; did you mean {shop}:jobs",
        "shops/mail:jobs": r"a module is named, not its file; did you mean shops\.mail:jobs",
        "shop_not_there:app": "there is no module 'shop_not_there' in",
    }.items():
        with pytest.raises(click.BadParameter, match=told) as caught:
            find_app(name, Settings())
        assert "APP" == caught.value.param_hint
    assert find_app(f"{shop}:jobs", Settings()).handlers is not None


def test_a_queue_is_given_one_weight():
    assert {"mail": 5, "reports": 1} == parse_queues("mail:5, reports")
    for text in ("mail,mail", "mail:1,mail:2", "mail:0", "a b", "mail:x"):
        with pytest.raises(click.BadParameter) as caught:
            parse_queues(text)
        assert "--queue" == caught.value.param_hint


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("jobs", "list", "--queue", "a b"), "'--queue': 'a b': 1 to 64 letters"),
        (("jobs", "list", "--type", "-"), "'--type': '-': 1 to 64 letters"),
        (("jobs", "list", "--group", ""), "'--group': '': 1 to 128 letters"),
        (("jobs", "list", "--tag", "a b"), "'--tag'"),
        (("jobs", "list", "--error", ""), "'--error'"),
        (("jobs", "list", "--state", "foo"), "'--state': 'foo' is not one of 'scheduled'"),
        (("jobs", "list", "--limit", "0"), "'--limit'"),
        (("dlq", "list", "a b"), "'[Q]': 'a b'"),
        (("dlq", "list", "mail", "--fingerprint", "zz"), "'--fingerprint': 'zz': 16 hexadecimal digits"),
        (("dlq", "list", "mail", "--before", "2027-01-01T00:00:00"), "--before: the time has no offset"),
        (("queue", "show", "a/b"), "'Q': 'a/b'"),
        (("queue", "pause", ".."), "'Q': '..'"),
        (("verify", "a:b"), "'[Q]': 'a:b'"),
        (("job", "show", "nope"), "ID: 'nope' is no job id"),
        (("enqueue", "x y"), "'TYPE': 'x y'"),
        (("enqueue", "x", "--payload", '{"a": 1,\n "b" 2}'), "--payload: no JSON: line 2, column 6"),
        (("enqueue", "x", "--payload", "@not/there.json"), "--payload: not/there.json: No such file"),
        (("enqueue", "x", "--payload", "NaN"), "--payload: no JSON"),
        (("enqueue", "x", "--delay", "soon"), "--delay: a duration is"),
        (("enqueue", "x", "--run-at", "tomorrow"), "--run-at: a time is written as"),
        (("enqueue", "x", "--delay", "1s", "--run-at", "2027-01-01T00:00:00Z"), "--run-at: give delay or run_at"),
        (("enqueue", "x", "--queue", "mail", "--id", "other:a"), "--id: its queue is other"),
        (("enqueue", "x", "--priority", "101"), "'--priority'"),
        (("enqueue", "x", "--timeout", "0"), "--timeout: more than 0"),
        (("enqueue", "x", "--id", ""), "--id: 1 to 128 letters"),
        (("enqueue", "x", "--unique", ""), "--unique: 1 to 128 letters"),
        (("enqueue", "x", "--unique", "k", "--unique-for", "0"), "--unique-for: more than 0"),
        (("enqueue", "x", "--unique-for", "1h"), "go with --unique"),
        (("job", "copy", "mail:a", "--on-conflict", "reject"), "go with --unique"),
        (("job", "copy", "mail:a", "--id", "other:a"), "--id: its queue is other"),
        (("job", "copy", "mail:a", "--expires-in", "soon"), "--expires-in: a duration is"),
        (("job", "copy", "mail:a", "--deadline", "2027-01-01T00:00:00"), "--deadline: the time has no offset"),
    ],
)  # fmt: skip
def test_wrong_use_is_refused_before_any_server_is_asked(arguments, told):
    done = CliRunner().invoke(cli, [*arguments, "--redis-url", "redis://127.0.0.1:1"])

    assert 2 == done.exit_code, (done.output, done.exception)
    assert told in done.output


def test_what_cannot_be_undone_is_asked_for_and_without_a_terminal_needs_yes(monkeypatch):
    confirmed("Delete all?", yes=True)

    with pytest.raises(click.UsageError, match=r"Delete all\? There is no terminal to ask at: say --yes\."):
        confirmed("Delete all?", yes=False)

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(click.termui, "visible_prompt_func", lambda _: "n")
    with pytest.raises(click.Abort):
        confirmed("Delete all?", yes=False)
    monkeypatch.setattr(click.termui, "visible_prompt_func", lambda _: "y")
    confirmed("Delete all?", yes=False)


@contextlib.contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Makes a terminal of stderr; what is drawn on it, up to a text."""
    ours, theirs = pty.openpty()

    def drawn(last: str) -> str:
        seen = ""
        while last not in seen:
            seen += os.read(ours, 65_536).decode()
        return seen

    with os.fdopen(theirs, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        monkeypatch.setenv("TERM", "xterm")
        yield drawn
    os.close(ours)


def test_a_bar_is_drawn_for_long_work_only(monkeypatch):
    with terminal(monkeypatch) as drawn:
        with draw.progress("reading", total=3) as bar:
            bar.advance()
        sys.stderr.write("quick\n")
        sys.stderr.flush()
        assert "quick\r\n" == drawn("\n")

        monkeypatch.setattr(draw, "QUICK", 0.0)
        with draw.progress("reading") as bar:
            bar.total(7)
            bar.advance(4)
        assert "reading" in drawn("4/7")


def test_no_bar_is_drawn_where_nobody_looks(capfd, monkeypatch):
    monkeypatch.setattr(draw, "QUICK", 0.0)
    with draw.progress("reading", total=3) as bar:
        bar.advance(3)

    assert ("", "") == capfd.readouterr()


# -- whole processes ---------------------------------------------------------------------------------------


def started(folder: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("SCHEDULER_")}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(
        [sys.executable, "-m", "scheduler", *arguments],
        cwd=folder, env=kept | {"PYTHONPATH": str(ROOT)}, text=True, **options,
    )  # fmt: skip


def test_a_closed_pipe_ends_a_command_quietly(tmp_path):
    reader, writer = os.pipe()
    process = started(tmp_path, "scripts", "manifest", stdout=writer)
    os.close(writer)
    os.close(reader)

    assert "" == process.communicate(timeout=60)[1]
    assert 1 == process.returncode


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is of Linux")
def test_an_output_that_cannot_be_written_is_told_in_a_line(tmp_path):
    with Path("/dev/full").open("w") as full:
        process = started(tmp_path, "scripts", "manifest", stdout=full)

    assert (
        "scheduler: the output cannot be written: No space left on device\n"
        == process.communicate(timeout=60)[1]
    )
    assert 1 == process.returncode


def test_a_host_that_has_no_address_is_told_in_a_line(tmp_path):
    process = started(tmp_path, "api", "--host", "nowhere.invalid", "--api-key", "k" * 32)
    said = process.communicate(timeout=60)[1]

    assert "scheduler: cannot bind nowhere.invalid:8080: " in said
    assert "Traceback" not in said
    assert 1 == process.returncode


def test_ctrl_c_ends_a_command_as_the_signal_does_and_quietly(tmp_path):
    os.mkfifo(tmp_path / "payload")
    process = started(tmp_path, "enqueue", "x", "--payload", "@payload")
    writer = os.open(tmp_path / "payload", os.O_WRONLY)  # goes on when the command reads at the other end
    process.send_signal(signal.SIGINT)

    assert "" == process.communicate(timeout=60)[1].strip()
    assert -signal.SIGINT == process.returncode
    os.close(writer)


@pytest.mark.parametrize(
    "body", ["raise ConnectionError('no database')\n    yield", "if False:\n        yield"]
)
def test_processes_that_never_get_ready_are_not_restarted_for_ever(tmp_path, body):
    (tmp_path / "shop.py").write_text(f"{BEGIN}@app.lifespan\nasync def pool(app):\n    {body}\n")

    process = started(tmp_path, "worker", "shop:app", "--processes", "2")
    said = process.communicate(timeout=60)[1]

    assert 1 == process.returncode
    assert 1 == said.count("no worker process gets ready: giving up")
    assert said.count("a lifespan failed when it opened") in {5, 6}
    assert "in the lifespan pool" in said
    assert "Traceback" not in said


DEAF = """
import signal, sys, time
from pathlib import Path

if "--parent" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: Path("asked").touch())
    Path("began").touch()
    while not Path("asked").exists():
        time.sleep(0.01)
"""


def test_a_process_that_missed_the_signal_as_it_started_is_told_again(tmp_path):
    (tmp_path / "shop.py").write_text(BEGIN + DEAF)

    process = started(tmp_path, "worker", "shop:app", "--processes", "1")
    while not (tmp_path / "began").exists():
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    try:
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()

    assert 0 == process.returncode, said
    assert "worker stopped" in said


def test_a_table_on_a_terminal_has_heads_and_cuts_no_id(tmp_path):
    key = "k" * 60
    subprocess.run(
        [sys.executable, "-m", "scheduler", "enqueue", "demo.echo", "--id", key],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, timeout=60, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    ours, theirs = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "80", "TERM": "xterm"}
    subprocess.run(
        [sys.executable, "-m", "scheduler", "jobs", "list"],
        cwd=tmp_path, env=environment, check=True, timeout=60, stdout=theirs,
    )  # fmt: skip
    os.close(theirs)
    printed = os.read(ours, 65_536).decode()
    os.close(ours)

    head, row = printed.splitlines()
    assert ["id", "state"] == head.split()
    assert [f"default:{key}", "ready"] == row.split()
    assert len(row) <= 80
    assert "\x1b" not in printed


def test_a_long_cell_gives_way_before_the_name_of_its_row(monkeypatch):
    ours, theirs = pty.openpty()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(theirs, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        for length in (20, 60, 80, 400):
            draw.table(
                ["worker", "queues", "running", "version", "types"],
                [("host:12345:1e2f5c13", "default", "0/100", "0.1.0.dev0", "t" * length)],
                right=("running",),
                spare=("types", "version"),
            )
        stdout.flush()
        printed = ""
        while printed.count("\n") < 8:  # what a terminal has ready may be a part
            printed += os.read(ours, 65_536).decode()
    os.close(ours)

    heads, rows = printed.splitlines()[::2], printed.splitlines()[1::2]
    assert [["worker", "queues", "running", "version", "types"]] * 4 == [head.split() for head in heads]
    assert ["host:12345:1e2f5c13"] * 4 == [row.split()[0] for row in rows]
    assert all("default" in row and len(row) <= 80 for row in rows)

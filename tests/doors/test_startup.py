"""What a command imports before it does anything: help and completion answer at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scheduler.cli import main

ROOT = Path(__file__).resolve().parents[2]

HEAVY = {"aiohttp", "aiosmtplib", "asyncio", "fakeredis", "redis", "rich", "structlog", "uvloop"}
"""Each takes longer to import than a command's help to print."""


def imported(*arguments: str, cwd: Path) -> set[str]:
    """The packages that a command imported, by their first names."""
    code = (
        "import sys\nfrom scheduler.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return {name.split(".")[0] for name in done.stderr.splitlines()}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",), ("--version",), ("worker", "--help"), ("api", "--help"), ("dev", "--help"), ("job", "show", "--help"), ("jobs", "list", "--help"), ("enqueue", "--help"),
        ("stats", "--help"), ("types", "--help"), ("job", "log", "--help"), ("queue", "list", "--help"), ("dlq", "list", "--help"), ("doctor", "--help"), ("completion", "bash"), ("scripts", "list"),
        ("config", "show"), ("config", "check"), ("config", "env"), ("config", "schema"),
    ],
)  # fmt: skip
def test_what_needs_no_server_imports_nothing_heavy(arguments, tmp_path):
    assert set() == imported(*arguments, cwd=tmp_path) & HEAVY


def test_a_command_that_asks_the_server_imports_no_more_than_it_needs(tmp_path):
    found = imported("queue", "list", cwd=tmp_path)

    assert "redis" in found
    assert set() == found & (HEAVY - {"redis", "asyncio", "uvloop"})


NOT_UTF8 = [
    (["enqueue", "demo.echo", "--payload", b'{"n":"M\xfcller"}'], "the value of --payload"),
    (["dlq", "replay", "mail", b'--patch={"n":"M\xfcller"}'], "the value of --patch"),
    (["jobs", "list", "--error", b"M\xfcller"], "the value of --error"),
    (["job", "show", b"mail:M\xfcller"], "argument 3"),
    (["enqueue", b"M\xfcller"], "argument 2"),
    ([b"M\xfcller"], "argument 1"),
    (["worker", "--namespace", b"M\xfcller"], "the value of --namespace"),
]


@pytest.mark.parametrize(("words", "named"), NOT_UTF8)
def test_text_that_is_not_utf8_is_refused_by_its_place(words, named, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["scheduler", *map(os.fsdecode, words)])
    with pytest.raises(SystemExit) as ended:
        main()

    assert (2, f"{named} is not valid UTF-8") == (
        ended.value.code,
        capsys.readouterr().err.splitlines()[-1][7:],
    )

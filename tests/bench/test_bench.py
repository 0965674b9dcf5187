"""The benchmarks work. How fast anything is, is not asserted."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.bench.common import ROOT, Budget, Line, environment
from tests.bench.run import HEAD
from tests.conftest import binary


@pytest.mark.long
@pytest.mark.alone
def test_a_short_run_measures_everything():
    if binary("valkey") is None:
        pytest.skip("valkey-server is not installed")
    done = subprocess.run(
        [sys.executable, "tests/bench/run.py", "--short"],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert 0 == done.returncode, done.stdout + done.stderr
    about, blank, head, *rows = done.stdout.splitlines()
    assert "Python" in about
    assert "" == blank
    assert list(HEAD) == [cell.strip() for cell in head.split("|")]
    for subject in ("enqueue", "drain", "server CPU", "p99", "memory", "claim", "REST", "worker start"):
        assert any(subject in row and len(row.split("|")) >= 3 for row in rows), done.stdout


def test_a_budget_on_a_figure_or_on_a_ratio_is_met_or_missed():
    assert Line("a", "/s", 100, budget=Budget(least=100)).met
    assert not Line("a", "/s", 99, budget=Budget(least=100)).met
    assert Line("a", "µs", 90, 100, budget=Budget(most=1, of_ratio=True)).met
    assert not Line("a", "µs", 101, 100, budget=Budget(most=1, of_ratio=True)).met
    assert Line("a", "µs", 90, 100).met is None
    assert Line("a", "µs", 0, budget=Budget(most=1), skipped="not there").met is None


def test_a_line_shows_figure_yardstick_ratio_and_budget():
    line = Line("drain", "/s", 20_000, 10_000, "bare", Budget(least=15_000, why="BullMQ"))
    assert ("drain", "20,000 /s", "10,000 /s bare", "2.00", "≥ 15,000 /s (BullMQ)", "yes") == line.cells()

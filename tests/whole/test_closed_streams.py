"""Commands whose caller has closed stdin, stdout or stderr run as ever, and end with their own status."""

from __future__ import annotations

import signal
import subprocess
import urllib.error
import urllib.request

import pytest

from tests.whole.conftest import Folder, free_port

CLOSED = ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"]


def started(folder: Folder, closed: str, *arguments: str) -> subprocess.Popen[bytes]:
    """`scheduler …` begun by a shell that closes some of its streams; the others go to files of the folder."""
    with (folder.path / "out").open("ab") as out, (folder.path / "err").open("ab") as err:
        process = subprocess.Popen(
            ["sh", "-c", f'exec "$@" {closed}', "sh", folder.python, "-m", "scheduler", *arguments],
            cwd=folder.path, env=folder.environment, stdout=out, stderr=err,
        )  # fmt: skip
    folder.processes.append(process)
    return process


@pytest.mark.parametrize("closed", CLOSED)
def test_the_api_serves_and_stops(folder: Folder, closed: str) -> None:
    folder.variables = {"SCHEDULER_REDIS_URL": "memory://"}
    port = free_port()
    api = started(folder, closed, "api", "--port", str(port))

    def alive() -> bool:
        assert api.poll() is None, f"ended with status {api.returncode}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    assert folder.until(alive)
    api.send_signal(signal.SIGTERM)

    assert 0 == api.wait(10)


@pytest.mark.parametrize("closed", CLOSED)
def test_a_command_ends_with_its_own_status(folder: Folder, closed: str) -> None:
    assert 0 == started(folder, closed, "config", "show").wait(20)
    assert 2 == started(folder, closed, "enqueue", "--no-such-option").wait(20)


def test_nothing_meant_for_a_closed_stderr_goes_to_stdout(folder: Folder) -> None:
    assert 2 == started(folder, "2>&-", "enqueue", "--no-such-option").wait(20)

    assert "" == (folder.path / "out").read_text()

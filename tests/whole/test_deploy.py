"""What deploy/ says, as far as it can be done without a container engine or an init system."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import binary
from tests.whole.conftest import ROOT, Folder

DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    folder = Folder(tmp_path)
    yield folder
    folder.end()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def test_the_example_of_the_environment_is_what_the_program_prints():
    printed = subprocess.run(
        [sys.executable, "-m", "scheduler", "config", "env"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert printed == (DEPLOY / "env.example").read_text(), "scheduler config env > deploy/env.example"


def test_every_line_of_the_server_s_configuration_has_its_reason():
    before = ""
    for line in (DEPLOY / "valkey.conf").read_text().splitlines():
        # One reason may stand above a few lines, none stands by itself.
        assert before or line.startswith("#") or not line, line
        before = line


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_a_server_of_this_configuration_and_user_satisfies_the_doctor(folder, kind):
    program = binary(kind)
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{kind} is missing")
    port = free_port()
    (folder.path / "users").write_text(
        (DEPLOY / "valkey.users.example").read_text().replace("PASSWORD", "s3cret")
    )
    shutil.copy(DEPLOY / "valkey.conf", folder.path)
    server = subprocess.Popen(
        [program, "valkey.conf", "--port", str(port), "--dir", str(folder.path), "--aclfile", str(folder.path / "users")],
        cwd=folder.path, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        end = time.monotonic() + 10
        with socket.socket() as caller:
            while caller.connect_ex(("127.0.0.1", port)) != 0:
                assert server.poll() is None, "it does not start"
                assert time.monotonic() < end
                time.sleep(0.02)
        folder.variables["SCHEDULER_REDIS_URL"] = f"redis://scheduler:s3cret@127.0.0.1:{port}/0"
        assert "fail" not in folder.run("doctor")
        assert folder.run("enqueue", "demo.echo").startswith("default:")
        folder.variables["SCHEDULER_REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
        folder.run("enqueue", "demo.echo", status=1)
    finally:
        server.kill()
        server.wait()


def test_units_are_understood():
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is missing")
    units = [str(path) for path in DEPLOY.glob("*.service")]
    done = subprocess.run([verify, "verify", *units], capture_output=True, text=True, check=False)

    # It ends with 0 whatever it found: what it says counts. That the program is not installed here is no fault.
    said = [line for line in done.stderr.splitlines() if "is not executable" not in line]
    assert 2 == len(units)
    assert [] == [line for line in said if re.search(r"scheduler-(api|worker)", line)]


def test_what_the_image_copies_is_there_and_let_through():
    let_through = [
        line[1:]
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    copied = [
        word
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for word in line.split()[:-1]
    ]

    assert copied
    assert [] == [name for name in copied if not (ROOT / name).exists()]
    assert sorted(let_through) == sorted(copied)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_the_steps_that_build_the_image_make_a_program_that_runs(tmp_path):
    """The RUN lines of the first stage, in an environment and folders of their own."""
    stage = DOCKERFILE.split("FROM ${BASE}", 2)[1]
    source, made, python = tmp_path / "src", tmp_path / "opt", tmp_path / "python"
    source.mkdir()
    subprocess.run([sys.executable, "-m", "venv", str(python)], check=True)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("SCHEDULER_", "PYTHON"))
    }
    environment["PATH"] = f"{python / 'bin'}:{environment['PATH']}"
    for step in re.findall(r"^(RUN|COPY) ((?:.+\\\n)*.+)$", stage, re.MULTILINE):
        if step[0] == "COPY":
            *names, target = step[1].split()
            for name in names:
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
                copy(ROOT / name, source / (target if (ROOT / name).is_dir() else ""))
            continue
        command = step[1].replace("\\\n", " ").replace("/opt/scheduler", str(made))
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=source,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0 and "CI" not in os.environ and "No matching distribution" in done.stderr:
            pytest.skip("what the image is made of cannot be had here")
        assert 0 == done.returncode, (command, done.stderr[-2000:])

    program = str(made / "bin" / "scheduler")
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    shown = subprocess.run(
        [program, "--version"], env=bare, capture_output=True, text=True, check=True
    ).stdout
    listed = subprocess.run(
        [program, "scripts", "list"], env=bare, cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert "scheduler" in shown
    assert "enqueue" in listed
    assert not (made / "bin" / "pytest").exists()

"""What the READMEs show works as it stands."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from scheduler import scripts
from scheduler.keys import QUEUE_KEYS
from tests.conftest import binary
from tests.whole.conftest import ROOT, Folder, free_port, http

LUA = (ROOT / "lua" / "README.md").read_text()


def test_the_worked_example_runs_as_it_stands(folder: Folder):
    if shutil.which("redis-cli") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-cli is not installed")
    [block] = re.findall(r"```sh\n(.*?)```", LUA, re.DOTALL)
    program = binary("valkey") or binary("redis")
    assert program is not None
    port = free_port()
    server = subprocess.Popen(
        [program, "--port", str(port), "--save", ""], cwd=folder.path, stdout=subprocess.DEVNULL
    )
    (folder.path / "bin").mkdir()
    command = folder.path / "bin" / "scheduler"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m scheduler "$@"\n')
    command.chmod(0o755)
    try:
        done = subprocess.run(
            ["bash", "-eu", "-c", block],
            cwd=folder.path,
            env=folder.environment | {"REDIS_URL": f"redis://127.0.0.1:{port}", "PATH": f"{command.parent}:{os.environ['PATH']}"},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        server.kill()
        server.wait()

    assert 0 == done.returncode, done.stderr
    assert "ERR" not in done.stdout
    assert re.search(r'result +\{"said":"hello"\}', done.stdout), done.stdout
    manifest = json.loads((folder.path / "manifest.json").read_text())
    assert scripts.names() == [script["name"] for script in manifest["scripts"]]


def test_the_examples_of_the_client_run_as_they_stand(folder: Folder):
    text = (ROOT / "scheduler" / "client" / "README.md").read_text()
    blocks = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", text, re.DOTALL))
    port = free_port()
    for name, block in blocks.items():
        assert "http://localhost:8080" in block
        (folder.path / name).write_text(block.replace("localhost:8080", f"127.0.0.1:{port}"))
    folder.start("dev", "--port", str(port))
    folder.until(lambda: _listens(port))

    def run(name: str) -> str:
        done = subprocess.run(
            [sys.executable, name], cwd=folder.path, env=folder.environment, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert 0 == done.returncode, done.stderr
        return done.stdout

    first = run("first.py").splitlines()
    assert first[0].endswith(" scheduled")
    assert ["{'hello': 'world'}", "5000 created"] == first[1:]
    assert ["{'n': 1}"] == run("plain.py").splitlines()[:1]
    far = subprocess.Popen([sys.executable, "far.py"], cwd=folder.path, env=folder.environment)
    folder.processes.append(far)
    status, job = http(
        "POST",
        f"http://127.0.0.1:{port}/v1/jobs",
        {"type": "greet", "queue": "hand", "payload": {"name": "Ada"}},
    )
    assert 201 == status
    status, job = http("GET", f"http://127.0.0.1:{port}/v1/jobs/{job['id']}?wait=30")
    assert "Hello Ada!" == job["result"]
    far.terminate()
    assert 0 == far.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def test_the_table_of_keys_is_the_code_s():
    rows = re.findall(r"^\| `([a-z_]+)` \| (hash|sorted set|list|stream) \|", LUA, re.MULTILINE)
    kinds = {"zset": "sorted set"}

    assert [(key.suffix, kinds.get(key.type, key.type)) for key in QUEUE_KEYS] == rows


def test_every_script_has_its_figures():
    rows = re.findall(r"^\| `([a-z_]+)` \|[^|]*\| [0-9.]+ \| [0-9.]+ \| [0-9.]+ \|$", LUA, re.MULTILINE)

    once = {"census", "configure", "demand", "explain", "groups", "operate", "obliterate", "reset"}
    once |= {"schedule_put", "schedule_due", "schedule_drop", "schedule_name"}
    once |= {"flow_put", "flow_open", "flow_cancel", "flow_drop", "parents", "ack_add"}
    assert sorted(set(scripts.names()) - once) == sorted(rows)


@pytest.mark.parametrize(
    "readme", sorted(ROOT.rglob("README.md")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_every_link_and_test_that_a_readme_names_exists(readme: Path):
    if ".venv" in readme.parts:
        pytest.skip("not ours")
    text = readme.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    tests = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)

    assert [] == [link for link in links if not (readme.parent / link).exists()]
    assert [] == [
        (file, name)
        for file, name in tests
        if not (ROOT / file).exists() or (name and f"def {name}(" not in (ROOT / file).read_text())
    ]

"""What the READMEs show works as it stands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scheduler import scripts
from scheduler.keys import QUEUE_KEYS
from tests.conftest import binary
from tests.whole.conftest import ROOT, Folder, free_port

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


def test_the_table_of_keys_is_the_code_s():
    rows = re.findall(r"^\| `([a-z_]+)` \| (hash|sorted set|list|stream) \|", LUA, re.MULTILINE)
    kinds = {"zset": "sorted set"}

    assert [(key.suffix, kinds.get(key.type, key.type)) for key in QUEUE_KEYS] == rows


def test_every_script_has_its_figures():
    rows = re.findall(r"^\| `([a-z]+)` \|[^|]*\| [0-9.]+ \| [0-9.]+ \| [0-9.]+ \|$", LUA, re.MULTILINE)

    once = {"census", "configure", "groups", "operate", "obliterate"}
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

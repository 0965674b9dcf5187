"""The wheel, in an environment that holds it and what it needs, and nothing of this repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.whole.conftest import QUICK, ROOT, Folder

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=ROOT, check=True, capture_output=True)
    [built] = folder.glob("*.whl")
    return built


@dataclass
class Installed(Folder):
    """A working directory far from the repository, whose commands come from the wheel."""

    @property
    def environment(self) -> dict[str, str]:
        return {name: value for name, value in super().environment.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment with the wheel."""
    place = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", str(place / "venv")], check=True, capture_output=True)
    python = str(place / "venv" / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*pip, str(wheel)], cwd=place, env=bare, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"pip: {done.stderr[-500:]}")
    return python


@pytest.fixture
def installed(python: str, tmp_path: Path) -> Iterator[Installed]:
    folder = Installed(tmp_path, python=python)
    yield folder
    folder.end()


def test_the_wheel_holds_the_package_and_the_scripts_and_nothing_else(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0].partition("-")[0] for name in names}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "scheduler").rglob("*.py")}
    lua = {f"scheduler/_lua/{path.relative_to(ROOT / 'lua')}" for path in (ROOT / "lua").rglob("*.lua")}

    assert {"scheduler", "scheduler_redis"} == tops
    assert sources <= set(names)
    assert lua == {name for name in names if name.endswith(".lua")}
    assert "scheduler/py.typed" in names


def test_from_the_wheel_a_worker_runs_jobs_and_every_script_is_loaded(installed: Installed):
    where = "import scheduler, sys; print(scheduler.__file__); print(*sys.path)"
    found = subprocess.run(
        [installed.python, "-c", where],
        cwd=installed.path, env=installed.environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert str(ROOT) not in found

    worker = installed.start("worker", *QUICK)
    installed.until(lambda: "worker started" in installed.errors(), 20)
    job = installed.run("enqueue", "demo.echo", "--payload", '{"hello": "world"}').strip()
    shown = installed.until(lambda: (found := installed.job(job))["state"] == "succeeded" and found)
    manifest = json.loads(installed.run("scripts", "load"))

    assert {"hello": "world"} == shown["result"]
    assert sorted(path.stem for path in (ROOT / "lua").glob("*.lua")) == sorted(
        script["name"] for script in manifest["scripts"]
    )
    worker.terminate()
    assert 0 == worker.wait(10)

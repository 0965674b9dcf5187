"""Clients that common tools make of the served document compile strictly, and work."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.doors.conftest import Api

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

SOURCES = Path(__file__).resolve().parent / "generated"
TOOLS = Path(__file__).resolve().parents[2] / ".venv" / "generators"


@pytest.fixture
def backend() -> str:
    return "valkey"


@pytest.fixture
def tools() -> Path:
    """Where the generators are installed; CI has them."""
    if not (TOOLS / "python/bin/openapi-python-client").is_file() or shutil.which("node") is None:
        assert "CI" not in os.environ, "CI needs node, npm and tests/doors/generated/install.sh"
        pytest.skip("the generators of clients are missing: tests/doors/generated/install.sh installs them")
    return TOOLS


async def ran(folder: Path, *words: object, path: Path | None = None) -> str:
    """What a program writes. Fails with it when the program does."""
    environ = {**os.environ, **({"PATH": f"{path}{os.pathsep}{os.environ['PATH']}"} if path else {})}
    process = await asyncio.create_subprocess_exec(
        *map(str, words), cwd=folder, env=environ,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    return said


async def document(api: Api, folder: Path) -> Path:
    """The document as it is served, as a file."""
    path = folder / "openapi.json"
    path.write_bytes((await api.get("/openapi.json")).raw)
    return path


async def test_openapi_typescript(api: Api, tools: Path, tmp_path: Path) -> None:
    programs = tools / "node_modules" / ".bin"
    shutil.copy(SOURCES / "package.json", tmp_path)
    for name in ("use.ts", "tsconfig.json"):
        shutil.copy(SOURCES / name, tmp_path)
    (tmp_path / "node_modules").symlink_to(tools / "node_modules")

    await ran(tmp_path, programs / "openapi-typescript", await document(api, tmp_path), "-o", "api.d.ts")
    await ran(tmp_path, programs / "tsc", "-p", ".")
    said = json.loads(await ran(tmp_path, "node", "built/use.js", f"http://127.0.0.1:{api.port}"))

    assert {
        "statuses": [201, 201], "ok": True, "every": 201, "flow": "running", "listed": 2, "code": "validation",
    } == said  # fmt: skip


async def test_openapi_python_client(api: Api, tools: Path, tmp_path: Path) -> None:
    programs = tools / "python" / "bin"
    shutil.copy(SOURCES / "use.txt", tmp_path / "use.py")
    made = ("generate", "--path", await document(api, tmp_path), "--output-path", "client", "--meta", "none")

    said = await ran(tmp_path, programs / "openapi-python-client", *made, path=programs)
    # The tool's own template of its client is not strict: what it has made of the document is.
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = true\n[mypy-client.client]\nignore_errors = true\n")
    await ran(tmp_path, programs / "mypy", "use.py", "client")
    used = await ran(tmp_path, programs / "python", "use.py", f"http://127.0.0.1:{api.port}")

    assert ["WARNING parsing POST /v1/jobs/bulk within jobs."] == [
        line for line in said.splitlines() if line.startswith(("WARNING", "ERROR"))
    ], "of NDJSON the tool knows nothing"
    assert "well" == used.strip()

"""Schemathesis over the served document: what it allows is taken, what it does not is refused, no answer breaks it."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scheduler.api import ROUTES
from tests.doors.conftest import Api, on_valkey
from tests.helpers import faults, in_every_state

HERE = Path(__file__).resolve().parent
KEY = "a-key-of-some-length"


async def tried(api: Api, folder: Path, seed: int, examples: int) -> str:
    """What Schemathesis says of a server that has a job in every state. Fails when it found something."""
    api.session.headers["Authorization"] = f"Bearer {KEY}"
    await in_every_state(api.store)
    await api.put("/v1/queues/mail/types/send", {"timeout": 5, "schema": True})
    await api.put("/v1/queues/spare", {})
    await api.put("/v1/schedules/nightly", {"type": "send", "queue": "mail", "every": "1d"})
    api.polls.stop()  # whoever would wait for something is answered at once
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"), "run",
        f"http://127.0.0.1:{api.port}/openapi.json", "--seed", str(seed), "--max-examples", str(examples),
        cwd=folder, env=os.environ | {"PYTHONPATH": str(HERE.parents[1]), "SCHEMATHESIS_KEY": KEY},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        said = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, said
    assert [] == await faults(api.store)
    return said


@on_valkey
@pytest.mark.long
@pytest.mark.timeout(300)
async def test_the_served_document_is_kept(serving: Any, tmp_path: Path, said: Callable[[], str]) -> None:
    report = await tried(await serving(api_key=KEY), tmp_path, seed=1, examples=8)

    assert [f"{len(ROUTES)}"] == re.findall(r"Tested: (\d+)", report)
    assert 4 == len(re.findall(r"✅ (Examples|Coverage|Fuzzing|Stateful)\n", report)), report
    assert "" == said()


@on_valkey
@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [2, 3])
async def test_the_served_document_is_kept_whatever_the_seed(
    serving: Any, tmp_path: Path, said: Callable[[], str], seed: int
) -> None:
    await tried(await serving(api_key=KEY), tmp_path, seed=seed, examples=40)

    assert "" == said()

"""`/docs`: the reference page, which asks nothing of the network and keeps its own content policy."""

from __future__ import annotations

import asyncio
import gzip
import os
import re
import shutil

import pytest

from scheduler.api.reference import FILES
from tests.doors.conftest import on_valkey

VERSION = "5.35.0"


async def test_the_page_loads_what_is_there_and_nothing_else(api):
    answer = await api.get("/docs")

    assert (200, "text/html; charset=utf-8") == (answer.status, answer.headers["Content-Type"])
    loaded = set(re.findall(r'(?:src|href)="([^"]+)"', answer.raw.decode()))
    assert {*(f"docs/{name}" for name in FILES), "openapi.json", "data:,"} == loaded
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("name", FILES)
async def test_its_parts_travel_zipped_or_not_and_once(api, name):
    plain = await api.get(f"/docs/{name}", Accept_Encoding="identity")
    assert (200, None) == (plain.status, plain.headers.get("Content-Encoding"))
    again = await api.get(f"/docs/{name}", If_None_Match=plain.headers["ETag"])
    assert (304, b"") == (again.status, again.raw)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(
        f"GET /docs/{name} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n".encode()
    )
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert b"Content-Encoding: gzip" in head
    assert plain.raw == gzip.decompress(body)


async def test_nothing_else_is_served_from_there(api):
    for name in ("index.html", "LICENSE", "..%2fauth.py", "%2e%2e", "swagger-ui.css.gz", "x"):
        answer = await api.get(f"/docs/{name}")
        assert (404, "not_found") == (answer.status, answer.code), name


async def test_it_is_the_release_that_its_chapter_names(api):
    bundle = (await api.get("/docs/swagger-ui-bundle.js")).raw.decode()

    assert VERSION in bundle
    assert "sourceMappingURL=" not in bundle[-200:]


async def test_home_leads_to_it(api):
    answer = await api.get("/")
    assert (302, "/docs") == (answer.status, answer.headers["Location"])


@on_valkey
async def test_a_browser_draws_it_under_its_policy(api, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        assert "CI" not in os.environ, "CI needs chromium"
        pytest.skip("chromium is missing")
    browser = await asyncio.create_subprocess_exec(
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={tmp_path}",
        "--virtual-time-budget=10000", "--dump-dom", f"http://127.0.0.1:{api.port}/docs",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        drawn, said = (part.decode(errors="replace") for part in await browser.communicate())

    assert "OAS 3.1" in drawn, said[-2000:]
    assert "/v1/queues/{queue}/" in drawn.replace("<wbr>", "").replace("\u200b", "")
    assert [] == [
        line for line in said.splitlines() if "CONSOLE" in line and ("Refused" in line or "violates" in line)
    ]

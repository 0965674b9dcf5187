"""What is planted in settings and requests: no secret is written, answered or stored, and nothing passes for a line of the log."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.conftest import binary
from tests.server import Server
from tests.whole.conftest import Folder, free_port

PASSWORD = "canary-p@ss/word"
API_KEY, GUESS = "canary-key-of-the-api", "canary-key-that-was-guessed"
SETTINGS = {
    "SCHEDULER_API_KEY": API_KEY,
    "SCHEDULER_HTTP_SECRET": "canary-secret-of-the-signatures",
    "SCHEDULER_SMTP_URL": f"smtp://me:{quote(PASSWORD, safe='')}@127.0.0.1:1",
    "SCHEDULER_LOG_LEVEL": "debug",
}
SECRET = "canary"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    program = binary("valkey")
    assert program is not None
    with Server(program, tmp_path / "server", "--requirepass", PASSWORD) as server:
        yield server


def url(server: Server, password: str = PASSWORD) -> str:
    return f"redis://:{quote(password, safe='')}@127.0.0.1:{server.port}"


def ask(port: int, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, str]:
    """Status, and all that was answered, the headers too."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        kind = {"Content-Type": "application/json"} if body else {}
        sent = {name.replace("_", "-"): text for name, text in headers.items()}
        connection.request(method, path, body, kind | sent)
        answer = connection.getresponse()
        return answer.status, f"{answer.headers}\n{answer.read().decode()}"
    finally:
        connection.close()


def written(folder: Folder) -> str:
    """All that the processes of a folder have written."""
    return (folder.path / "out").read_text() + folder.errors()


def api_of(folder: Folder, redis_url: str, variables: Mapping[str, str] = SETTINGS) -> int:
    """The port of an API that was started."""
    port = free_port()
    folder.variables |= {**variables, "SCHEDULER_REDIS_URL": redis_url}
    folder.start("api", "--port", str(port))
    folder.until(lambda: "serving" in folder.errors())
    return port


FORGED = ["\n", "\r\n", "\x1b[2J", "\x07", "\u2028", "\u202e", "\x00", "\x9b"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_request_makes_a_line_of_the_log_its_own(folder: Folder, log_format: str) -> None:
    port = api_of(folder, "memory://", {"SCHEDULER_LOG_FORMAT": log_format, "SCHEDULER_LOG_LEVEL": "debug"})
    before = folder.errors().count("\n")
    for text in FORGED:
        words = f'{text}{{"level": "error", "event": "forged"}}'
        assert ask(port, "GET", f"/v1/jobs/{quote(words, safe='')}")[0] == 404
        assert ask(port, "POST", "/v1/jobs", json.dumps({"type": words}))[0] == 422
        worker = json.dumps(
            {"worker": "w", "nack": [{"id": words, "token": 1, "error": {"kind": words, "message": words}}]}
        )
        assert ask(port, "POST", "/v1/queues/mail/settle", worker)[0] == 200
    folder.until(lambda: folder.errors().count("\n") == before + 3 * len(FORGED))

    lines = folder.errors().split("\n")[before:-1]
    assert [] == [line for line in lines if not line.isprintable()]
    if log_format == "json":
        assert {("request", "debug")} == {
            (json.loads(line)["event"], json.loads(line)["level"]) for line in lines
        }


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_the_api_tells_no_secret(folder: Folder, server: Server, log_format: str) -> None:
    port = api_of(folder, url(server), SETTINGS | {"SCHEDULER_LOG_FORMAT": log_format})
    bearer = f"Bearer {API_KEY}"
    answers = [ask(port, "POST", "/v1/jobs", '{"type": "demo.echo"}', Authorization=bearer)]
    assert 201 == answers[0][0]
    for path in ("/openapi.json", "/docs", "/livez", "/readyz", "/v1/queues", "/v1/workers"):
        answers.append(ask(port, "GET", path, Authorization=bearer))
        assert 200 == answers[-1][0], path
    answers += [
        ask(port, "GET", f"/v1/queues?api_key={API_KEY}"),
        ask(port, "GET", f"/v1/queues?api_key={API_KEY}", Authorization=bearer),
        ask(port, "GET", f"/v1/jobs?cursor={API_KEY}", Authorization=bearer),
        ask(port, "GET", f"/v1/jobs/{API_KEY}", Authorization=bearer),
        ask(port, "GET", f"/nowhere/{API_KEY}"),
        ask(port, "GET", "/v1/queues", Authorization=f"Bearer {GUESS}"),
        ask(port, "GET", "/v1/queues", Authorization=f"Basic {GUESS}", Cookie=f"key={GUESS}"),
        ask(port, "GET", "/v1/queues", Authorization=bearer, X_Request_Id=f"bad id {GUESS}"),
        ask(port, "POST", "/v1/jobs", f'{{"type": "{API_KEY} {GUESS}"}}', Authorization=bearer),
    ]
    assert [401, 422, 422, 404, 401, 401, 401, 200, 422] == [status for status, _ in answers[-9:]]
    server.kill()
    folder.until(lambda: ask(port, "GET", "/readyz")[0] == 503)
    answers += [ask(port, "GET", "/readyz"), ask(port, "GET", "/v1/queues", Authorization=bearer)]
    assert [503, 503] == [status for status, _ in answers[-2:]]
    assert str(server.port) in answers[-2][1]
    folder.processes[0].send_signal(signal.SIGTERM)
    assert 0 == folder.processes[0].wait(30)

    assert [] == [text for _, text in answers if SECRET in text]
    assert "GET" in folder.errors(), "requests were logged"
    assert [] == [line for line in written(folder).splitlines() if SECRET in line]
    stored = [path for path in server.folder.rglob("*") if path.is_file() and path.name != "server.log"]
    assert stored
    assert [] == [path for path in stored if API_KEY.encode() in path.read_bytes()]


def test_a_wrong_password_is_not_repeated(folder: Folder, server: Server) -> None:
    port = api_of(folder, url(server, "canary-of-another-time"))
    folder.start("worker", "jobs:app")
    folder.until(lambda: "WRONGPASS" in folder.errors() or "invalid" in folder.errors())
    status, told = ask(port, "GET", "/readyz")
    commands = [
        folder.run(*command, status=1) for command in (("jobs", "list"), ("doctor",), ("queue", "list"))
    ]

    assert 503 == status
    assert str(server.port) in told
    assert SECRET not in told
    assert [] == [text for text in commands if SECRET in text]
    assert [] == [line for line in written(folder).splitlines() if SECRET in line]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SCHEDULER_REDIS_URL", f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:notaport"),
        ("SCHEDULER_REDIS_URL", f"http://:{quote(PASSWORD, safe='')}@127.0.0.1"),
        ("SCHEDULER_REDIS_URL", "redis://127.0.0.1:6379/0?password=canary-pass&nonsense=1"),
        ("SCHEDULER_SMTP_URL", "smtps//me:canary-pass@mail"),
        ("SCHEDULER_API_KEY", "canary\nkey of two lines"),
        ("SCHEDULER_HTTP_SECRET", "canary"),
    ],
)
def test_a_setting_that_is_wrong_is_not_repeated_where_it_is_secret(
    folder: Folder, name: str, value: str
) -> None:
    folder.variables |= {name: value}
    told = [
        subprocess.run(
            [sys.executable, "-m", "scheduler", *command],
            cwd=folder.path, env=folder.environment, capture_output=True, text=True, timeout=60, check=False,
        )
        for command in (("config", "check"), ("config", "show", "--origin", "--json"), ("jobs", "list"))
    ]  # fmt: skip

    assert [] == [done for done in told if SECRET in done.stdout + done.stderr]

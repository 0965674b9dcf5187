"""`scheduler config …`: what is set, where from, what is wrong with it, and what there is to set."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from scheduler.cli import cli
from scheduler.cli.common import LISTED, NOT_YET, problems_of
from scheduler.cli.config import env_lines, masked_url, schema_document
from scheduler.settings import IN_FILES, SETTINGS, SettingsError, load, survey

Command = Callable[..., str]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command in an empty folder: what it printed, or why its settings keep it from starting."""
    monkeypatch.chdir(tmp_path)
    for row in SETTINGS:
        monkeypatch.delenv(row.variable, raising=False)

    def call(*arguments: str, status: int = 0) -> str:
        done = CliRunner().invoke(cli, ["config", *arguments])
        if isinstance(done.exception, SettingsError):
            return str(done.exception)
        assert status == done.exit_code, (done.output, done.exception)
        return done.output

    return call


def shown(printed: str) -> dict[str, tuple[str | None, str, str | None]]:
    return {
        item["name"]: (item["value"], item["origin"], item["source"]) for item in json.loads(printed)["items"]
    }


def test_every_value_is_shown_as_it_was_written_with_where_it_is_from(command, monkeypatch):
    Path("scheduler.toml").write_text('lease = "1m"\nport = 81\ngrace = 3\n')
    monkeypatch.setenv("SCHEDULER_PORT", "82")
    monkeypatch.setenv("SCHEDULER_GRACE", "4s")

    found = shown(command("show", "--json", "--grace", "5"))

    assert [row.name for row in LISTED] == list(found)
    assert ("1m", "file", "lease in scheduler.toml") == found["lease"]
    assert ("82", "environment", "SCHEDULER_PORT") == found["port"]
    assert ("5", "flag", "--grace") == found["grace"]
    assert ("scheduler", "default", None) == found["namespace"]
    assert (None, "default", None) == found["smtp_url"]
    assert re.search(r"^port +82 +SCHEDULER_PORT$", command("show", "--origin"), re.MULTILINE)
    assert re.search(r"^port +82$", command("show"), re.MULTILINE)


def test_no_secret_is_shown_whereever_it_is_from(command, monkeypatch):
    canary = "c4n4ry-of-a-secret"
    Path("key").write_text(canary)
    Path("scheduler.toml").write_text(f'smtp_url = "smtps://me:{canary}@mail.example.com"\n')
    monkeypatch.setenv("SCHEDULER_API_KEY_FILE", "key")
    monkeypatch.setenv("SCHEDULER_HTTP_SECRET", canary)

    arguments = ("--redis-url", f"rediss://:{canary}@cache:6380/2?db=3&password={canary}", "--origin")
    printed = command("show", *arguments) + command("show", "--json", *arguments)

    assert canary not in printed
    assert "rediss://:***@cache:6380/2?db=3&password=***" in printed
    assert "smtps://me:***@mail.example.com" in printed
    assert "SCHEDULER_API_KEY_FILE" in printed


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://user:pa@ss@host", "redis://user:***@host"),
        ("redis://:pa/ss@host/1", "redis://:***@host/1"),
        ("redis://:pa?ss@host", "redis://:***@host"),
        ("redis://password@host", "redis://***@host"),
        ("redis://pass/word:x@host", "redis://***:***@host"),
        ("unix://user:pw@/run/redis.sock?db=1", "unix://user:***@/run/redis.sock?db=1"),
        ("postgresql://u:p@h/db?sslmode=require&sslpassword=x", "postgresql://u:***@h/db?sslmode=require&sslpassword=***"),
        ("redis+sentinel://u:p@a:1,b:2/main/0", "redis+sentinel://u:***@a:1,b:2/main/0"),
    ],
)  # fmt: skip
def test_a_url_is_shown_without_what_is_secret_in_it(url, masked):
    assert masked == masked_url(url)


def test_check_tells_every_fault_at_once(command, monkeypatch):
    Path("scheduler.toml").write_text('prot = 1\nlease = "soon"\n')
    for name, text in {
        "CONCURENCY": "3",
        "PORT": "tcp://10.0.0.1:80",
        "API_KEY_FILE": "/nowhere/key",
        "POSTGRES_URL": "postgres://archive",
    }.items():
        monkeypatch.setenv(f"SCHEDULER_{name}", text)

    faults = json.loads(command("check", "--json", "--grace", "-1", status=1))
    said = [item["message"] for item in faults["items"]]

    assert not faults["ok"]
    assert 7 == len(said)
    for part in (
        "prot in scheduler.toml is no setting; the nearest is port",
        "lease in scheduler.toml is 'soon': it takes a duration",
        "SCHEDULER_CONCURENCY is no setting; the nearest is SCHEDULER_CONCURRENCY",
        "enableServiceLinks: false",
        "SCHEDULER_API_KEY_FILE names '/nowhere/key', which cannot be read",
        "SCHEDULER_POSTGRES_URL: not in this release yet",
        "--grace is '-1': it takes a duration",
    ):
        assert any(part in line for line in said), part
    assert said == command("check", "--grace", "-1", status=1).splitlines()


def test_check_names_a_file_that_cannot_be_read(command):
    Path("scheduler.toml").mkdir()

    assert "scheduler.toml cannot be read: Is a directory\n" == command("check", status=1)


def test_check_of_sound_settings_says_what_they_are_made_of(command, monkeypatch):
    assert "the settings are sound: all as by default\n" == command("check")

    monkeypatch.setenv("SCHEDULER_PORT", "81")

    assert "the settings are sound: 1 by environment, 1 by flag\n" == command("check", "--lease", "1m")
    assert {"ok": True, "items": []} == json.loads(command("check", "--json"))


def test_what_keeps_from_starting_keeps_show_from_showing(command):
    assert "--port is 'x'" in command("show", "--port", "x", status=2)


def test_the_environment_file_sets_nothing_and_every_line_of_it_may_be_set(command, tmp_path):
    lines = command("env").splitlines()
    assigned = dict(re.findall(r"^#(SCHEDULER_\w+)=(.*)$", "\n".join(lines), re.MULTILINE))
    Path("secret").write_text("of a file")

    assert all(line.startswith("#") for line in lines if line)
    in_files = {f"SCHEDULER_{name.upper()}" for name, target in IN_FILES.items() if target not in NOT_YET}
    assert {row.variable for row in LISTED} | in_files == set(assigned)
    for name in in_files:  # beside the setting itself there would be two of them
        del assigned[name]
    load(environ=assigned, directory=tmp_path)


def test_no_setting_is_listed_that_is_refused(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    listed = [line[1:] for line in env_lines() if re.match(r"#SCHEDULER_\w+=", line)]
    files = {line.partition("=")[0] for line in listed if line.partition("=")[0].endswith("_FILE")}
    given = dict(line.split("=", 1) for line in listed if line.partition("=")[0] not in files)

    problems = problems_of(survey({}, environ=given))

    assert [] == [problem for problem in problems if "not in this release" in problem]
    assert {"wait_replicas", "postgres_url", "postgres_url_file"}.isdisjoint(schema_document()["properties"])
    assert not any("POSTGRES" in line or "WAIT_REPLICAS" in line for line in listed)

"""`scheduler schedule …`, in this process, on a running server."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Servers
from tests.doors import test_commands
from tests.doors.test_commands import Command, given

backend, url, command = test_commands.backend, test_commands.url, test_commands.command


@pytest.fixture(autouse=True)
def _empty(servers: Servers) -> None:
    async def nothing(_: object) -> None: ...

    given(servers, nothing)


PUT = ("schedule", "put", "nightly", "--type", "send", "--queue", "mail")


def test_put_shows_what_it_made_and_list_has_it(command: Command) -> None:
    made = json.loads(
        command(*PUT, "--cron", "0 3 * * *", "--timezone", "Europe/Berlin", "--payload", '{"a": 1}', "--tag", "x",
                "--max-attempts", "3", "--jitter", "5s", "--json")
    )  # fmt: skip
    plain = command("schedule", "list")

    assert ("nightly", "0 3 * * *", {"a": 1}, ["x"], 5, {"max_attempts": 3}) == (
        made["name"], made["cron"], made["payload"], made["tags"], made["jitter"], made["retry"],
    )  # fmt: skip
    assert "nightly" in plain
    assert "Europe/Berlin" in plain
    assert ["nightly"] == [one["name"] for one in json.loads(command("schedule", "list", "--json"))["items"]]
    assert [] == json.loads(command("schedule", "list", "--queue", "other", "--json"))["items"]


def test_what_cannot_be_is_said_by_its_field(command: Command) -> None:
    assert "hour (column 3): 25" in command(*PUT, "--cron", "0 25 * * *", status=1)
    assert "--every" in command(*PUT, "--every", "often", status=2)
    assert "there is no schedule 'none'" in command("schedule", "show", "none", status=1)


def test_pause_resume_preview_trigger_show_and_rm(command: Command) -> None:
    command(*PUT, "--every", "1h")
    assert "paused" in command("schedule", "pause", "nightly")
    assert 3 == len(command("schedule", "preview", "nightly", "--count", "3").split())
    assert (
        json.loads(command("schedule", "resume", "nightly", "--json"))["next"]
        == (json.loads(command("schedule", "preview", "nightly", "--count", "5", "--json"))["items"])
    )
    job = command("schedule", "trigger", "nightly").strip()
    assert job.startswith("mail:nightly.")
    assert job in command("schedule", "show", "nightly")
    command("schedule", "rm", "nightly")
    assert "there is no schedule" in command("schedule", "show", "nightly", status=1)
    assert "ready" in command("job", "show", job)


def test_a_name_of_another_queue_is_refused(command: Command) -> None:
    command(*PUT, "--every", "1h")

    assert "stands in the queue mail" in command(
        "schedule", "put", "nightly", "--type", "send", "--every", "1h", "--queue", "other", status=1
    )

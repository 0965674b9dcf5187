"""`scheduler dlq groups|replay|purge`, `queue purge|obliterate`: over many jobs, once, asked before what is for good."""

from __future__ import annotations

import json

import pytest

from scheduler.outcomes import Bury
from scheduler.store import Store
from tests.doors.test_commands import Command, backend, command, given, url
from tests.helpers import QUEUE, WORKER, enqueued, take

__all__ = ["backend", "command", "url"]


@pytest.fixture
def dead(servers):
    """Five dead letters in the queue mail: three of one failure, two of another."""

    async def die(store: Store) -> None:
        await enqueued(store, *(f"d{n}" for n in range(5)), payload=b'{"to": "old"}')
        jobs = await take(store, 5)
        failures = [("Boom", f"job {n} failed") if n < 3 else ("Bang", "no") for n in range(5)]
        buried = [Bury(job.key, job.token, *failure) for job, failure in zip(jobs, failures, strict=True)]
        await store.bury(QUEUE, buried, worker=WORKER)

    given(servers, die)


def states(command: Command) -> dict[str, int]:
    counts = json.loads(command("queue", "show", "mail", "--json"))["counts"]
    return {state: count for state, count in counts.items() if count}


def fingerprint(command: Command, kind: str) -> str:
    items = json.loads(command("dlq", "groups", "mail", "--json"))["items"]
    [found] = [str(item["fingerprint"]) for item in items if item["kind"] == kind]
    return found


def test_groups_say_what_is_wrong_and_how_often(dead, command):
    printed = command("dlq", "groups", "mail")

    assert {("3", "Boom:"), ("2", "Bang:")} == {
        (line.split()[1], line.split()[4]) for line in printed.splitlines()
    }
    assert 1 == len(command("dlq", "groups", "mail", "--limit", "1").splitlines())


def test_replay_of_a_group_with_a_patch(dead, command):
    alike = fingerprint(command, "Boom")

    assert "3 would be replayed\n" == command("dlq", "replay", "mail", "--fingerprint", alike, "--dry-run")
    assert "3 replayed\n" == command(
        "dlq", "replay", "mail", "--fingerprint", alike, "--patch", '{"to": "new"}'
    )
    assert {"dead": 2, "ready": 3} == states(command)
    assert {"to": "new"} == json.loads(command("job", "show", "mail:d0", "--json"))["payload"]


def test_replay_by_ids_says_what_it_could_not(dead, command):
    assert "2 replayed, 1 not\n" == command("dlq", "replay", "mail", "mail:d0", "d3", "missing")
    document = json.loads(command("dlq", "replay", "mail", "d1", "--json"))
    assert ("done", 1, "replay") == (document["state"], document["done"], document["act"])


def test_replay_to_another_queue_at_a_rate(dead, command):
    assert "5 replayed\n" == command("dlq", "replay", "mail", "--to", "repair", "--rate", "100/s")
    assert {} == states(command)
    assert "ready" in command("job", "show", "repair:d4")


def test_purge_asks_and_needs_yes_without_a_terminal(dead, command):
    assert "say --yes" in command("dlq", "purge", "mail", "--kind", "Bang", status=2)
    assert {"dead": 5} == states(command)
    assert "2 would be purged\n" == command("dlq", "purge", "mail", "--kind", "Bang", "--dry-run")
    assert "2 purged\n" == command("dlq", "purge", "mail", "--kind", "Bang", "--yes")
    assert {"dead": 3} == states(command)


def test_purge_of_a_queue_by_state(dead, command):
    assert "say --yes" in command("queue", "purge", "mail", "--state", "dead", status=2)
    assert "0 purged\n" == command("queue", "purge", "mail", "--state", "dead", "--older-than", "1h", "--yes")
    assert "2 purged\n" == command("queue", "purge", "mail", "--state", "dead", "--limit", "2", "--yes")
    assert {"dead": 3} == states(command)


def test_obliterate_refuses_while_a_job_runs(servers, command):
    async def run(store: Store) -> None:
        await enqueued(store, "a", "b")
        await take(store)

    given(servers, run)

    assert "say --yes" in command("queue", "obliterate", "mail", status=2)
    assert "a job of mail runs" in command("queue", "obliterate", "mail", "--yes", status=1)
    assert "mail is gone\n" == command("queue", "obliterate", "mail", "--yes", "--force")
    assert "there is no queue 'mail'" in command("queue", "obliterate", "mail", "--yes", status=1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["dlq", "replay", "mail", "d1", "--kind", "Boom"], "not both"),
        (["dlq", "replay", "mail", "other:d1"], "no id of a job of mail"),
        (["dlq", "replay", "mail", "--rate", "fast"], "--rate"),
        (["dlq", "replay", "mail", "--patch", "{"], "--patch"),
        (["dlq", "replay", "mail", "--patch", '"' + "x" * 65_536 + '"'], "at most 64 KiB"),
        (["dlq", "replay", "mail", "--stop-after-failures", "0"], "--stop-after-failures"),
        (["dlq", "replay", "mail", "--limit", "0"], "--limit"),
        (["dlq", "replay", "mail", "--to", "a b"], "--to"),
        (["dlq", "replay", "a b"], "Q"),
        (["dlq", "purge", "mail", "--before", "yesterday"], "--before"),
        (["queue", "purge", "mail"], "--state"),
        (["queue", "purge", "mail", "--state", "running"], "--state"),
        (["queue", "purge", "mail", "--state", "dead", "--older-than", "long"], "--older-than"),
    ],
)
def test_what_is_wrong_is_named(dead, command, arguments, says):
    assert says in command(*arguments, status=2)
    assert {"dead": 5} == states(command)


@pytest.mark.parametrize(
    "arguments", [["dlq", "replay", "no"], ["dlq", "groups", "no"], ["dlq", "purge", "no", "--yes"]]
)
def test_a_queue_that_is_not_there(dead, command, arguments):
    assert "no" in command(*arguments, status=1)

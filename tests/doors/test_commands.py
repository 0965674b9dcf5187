"""Commands that speak to a running server, in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from click.testing import CliRunner

from scheduler.cli import cli
from scheduler.errors import SchedulerError
from scheduler.outcomes import Bury
from scheduler.store import Store
from tests.conftest import Servers
from tests.helpers import QUEUE, WORKER, enqueued, take

Command = Callable[..., str]


@pytest.fixture
def backend() -> str:
    return "valkey"


@pytest.fixture
def url(servers: Servers) -> str:
    return servers.url("valkey")


def given(servers: Servers, work: Callable[[Store], Awaitable[Any]]) -> None:
    """Does something with a store on an empty server, in an event loop that ends with it."""

    async def within() -> None:
        clients = await servers.open("valkey")
        store = Store(clients)
        await clients.commands.flushall()
        await store.connect()
        await work(store)
        await store.close()

    asyncio.run(within())


@pytest.fixture
def command(url: str) -> Command:
    """Runs a command to its end; what it printed, and what `main` would print of its failure."""

    def call(*arguments: str, status: int = 0) -> str:
        done = CliRunner().invoke(cli, [*arguments, "--redis-url", url])
        assert status == done.exit_code, (done.output, done.exception)
        return done.output + (str(done.exception) if isinstance(done.exception, SchedulerError) else "")

    return call


def ids(printed: str) -> list[str]:
    return [item["id"] for item in json.loads(printed)["items"]]


def test_jobs_are_listed_by_the_filters_of_the_api(servers: Servers, command: Command) -> None:
    async def some(store: Store) -> None:
        await enqueued(store, *(f"k{n}" for n in range(5)), tags=["x"])
        await enqueued(store, "later", delay_ms=60_000, type="other")
        await store.cancel(QUEUE, ["k0"])

    given(servers, some)

    everything = ["mail:later", "mail:k1", "mail:k2", "mail:k3", "mail:k4", "mail:k0"]
    assert everything == ids(command("jobs", "list", "--json"))
    assert ["mail:k1", "mail:k2"] == ids(
        command("jobs", "list", "--state", "ready", "--limit", "2", "--json")
    )
    assert ["mail:later"] == ids(command("jobs", "list", "--type", "other", "--queue", "mail", "--json"))
    assert everything[1:] == ids(command("jobs", "list", "--tag", "x", "--json"))
    lines = command("jobs", "list").splitlines()
    assert everything == [line.split()[0] for line in lines]
    assert "due" in lines[0]
    assert "" == command("jobs", "list", "--queue", "nowhere")
    assert "--state" in command("jobs", "list", "--state", "done", status=2)


def test_a_job_is_copied_with_what_is_said_of_the_copy(servers: Servers, command: Command) -> None:
    async def one(store: Store) -> None:
        await enqueued(store, "a", payload=b"[1]", tags=["x"], timeout_ms=5000)

    given(servers, one)
    same = json.loads(command("job", "copy", "mail:a", "--json"))
    other = json.loads(
        command(
            "job", "copy", "mail:a", "--queue", "reports", "--payload", "[2]", "--id", "b", "--priority", "3",
            "--delay", "1h", "--json",
        )
    )  # fmt: skip

    assert ([1], ["x"], 5, "mail:a", "ready") == tuple(
        same[n] for n in ("payload", "tags", "timeout", "copied_from", "state")
    )
    assert ("reports:b", [2], 3, "scheduled") == tuple(
        other[n] for n in ("id", "payload", "priority", "state")
    )
    assert "no job" in command("job", "copy", "mail:nope", status=1)
    assert "--id" in command("job", "copy", "mail:a", "--id", "no key", status=2)


def test_dead_letters_are_listed_newest_first(servers: Servers, command: Command) -> None:
    async def some(store: Store) -> None:
        await enqueued(store, *(f"k{n}" for n in range(3)))
        for n, job in enumerate(await take(store, 3)):
            await store.bury(
                QUEUE,
                [Bury(job.key, job.token, "Odd" if n == 1 else "Boom", f"no {n}\nat all")],
                worker=WORKER,
            )
            await asyncio.sleep(0.002)  # newest first: each ends in a millisecond of its own

    given(servers, some)

    assert ["mail:k2", "mail:k1", "mail:k0"] == ids(command("dlq", "list", "mail", "--json"))
    assert ["mail:k2"] == ids(command("dlq", "list", "mail", "--limit", "1", "--json"))
    assert ["mail:k1"] == ids(command("dlq", "list", "mail", "--kind", "Odd", "--json"))
    items = json.loads(command("dlq", "list", "mail", "--json"))["items"]
    alike = items[0]["fingerprint"]
    assert alike == items[2]["fingerprint"] != items[1]["fingerprint"]
    assert ["mail:k2", "mail:k0"] == ids(command("dlq", "list", "mail", "--fingerprint", alike, "--json"))
    assert [] == ids(command("dlq", "list", "mail", "--before", items[2]["finished_at"], "--json"))
    assert 3 == len(command("dlq", "list", "mail").splitlines())
    assert "no queue" in command("dlq", "list", "nowhere", status=1)
    assert "--before" in command("dlq", "list", "mail", "--before", "soon", status=2)


def test_a_refusal_names_the_state_in_which_the_job_is(servers: Servers, command: Command) -> None:
    async def one(store: Store) -> None:
        await enqueued(store, "a")

    given(servers, one)

    assert "job mail:a is ready: `run`" in command("job", "run", "mail:a", status=1)
    assert "job mail:a is ready: only a dead one" in command("job", "replay", "mail:a", status=1)


def test_a_refused_tag_is_named_as_its_option(command: Command) -> None:
    assert "'--tag': 'a b': 1 to 128" in command("enqueue", "x", "--tag", "a b", status=2)


def test_verify_of_a_queue_that_is_not_there_fails(servers: Servers, command: Command) -> None:
    async def one(store: Store) -> None:
        await enqueued(store, "a")

    given(servers, one)

    assert "1 queues, 0 faults" in command("verify", "mail")
    assert "there is no queue 'mial'" in command("verify", "mial", status=1)

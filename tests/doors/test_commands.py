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
from scheduler.job import Unique
from scheduler.keys import worker_key
from scheduler.outcomes import Ack, Bury, Note, TypePolicy
from scheduler.presence import Presence
from scheduler.store import Store
from scheduler.times import rfc3339
from tests.conftest import Servers
from tests.helpers import QUEUE, WORKER, enqueued, new, take

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


async def on_what_stands(servers: Servers, work: Callable[[Store], Awaitable[Any]]) -> None:
    store = Store(await servers.open("valkey"))
    await work(store)
    await store.close()


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


def test_a_copy_may_differ_in_all_that_a_new_job_may_be(servers: Servers, command: Command) -> None:
    async def one(store: Store) -> None:
        await enqueued(
            store, "a", payload=b"[1]", retry={"max_attempts": 9, "base": 60_000}, deadline_in_ms=60_000
        )

    given(servers, one)
    plain = json.loads(command("job", "copy", "mail:a", "--json"))
    other = json.loads(
        command(
            "job", "copy", "mail:a", "--type", "other", "--group", "g", "--tag", "x", "--tag", "y", "--cost", "3",
            "--timeout", "2m", "--max-attempts", "2", "--retention", "0", "--deadline", "1h", "--expires-in", "5m",
            "--unique", "k", "--json",
        )
    )  # fmt: skip
    later = json.loads(command("job", "copy", "mail:a", "--deadline", "2030-01-01T00:00:00Z", "--json"))

    assert (9, None, None) == tuple(plain[n] for n in ("max_attempts", "deadline", "expires_at"))
    assert ("other", "g", ["x", "y"], 3, 120, 2, {"key": "k"}) == tuple(
        other[n] for n in ("type", "group", "tags", "cost", "timeout", "max_attempts", "unique")
    )
    assert other["created_at"] < other["expires_at"] < other["deadline"]
    assert "2030-01-01T00:00:00.000Z" == later["deadline"]

    async def kept(store: Store) -> None:
        await store.connect()
        [found] = await store.inspect(QUEUE, [other["id"].partition(":")[2]])
        assert found is not None
        assert ({"max_attempts": 2, "base": 60_000}, 0) == (found.like().retry, found.retention_ms)

    asyncio.run(on_what_stands(servers, kept))
    assert "it has passed" in command("job", "copy", "mail:a", "--deadline", "2020-01-01T00:00:00Z", status=1)


def test_of_a_unique_job_the_one_that_stands_is_printed_and_what_became_of_it_said(
    servers: Servers, url: str
) -> None:
    async def one(store: Store) -> None:
        await enqueued(store, "a", type="t", payload=b"1", unique=Unique(key="k"))

    def call(*words: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(cli, [*words, "--redis-url", url])
        return done.exit_code, done.stdout, done.stderr or str(done.exception or "")

    given(servers, one)
    enqueue = ("enqueue", "t", "--queue", "mail", "--unique", "k")
    copy = ("job", "copy", "mail:a", "--unique", "k", "--json")

    assert (0, "mail:a\n", "mail:a: it has this unique key: nothing was enqueued\n") == call(*enqueue)
    changed = call(*enqueue, "--payload", "2", "--on-conflict", "replace")
    assert (0, "mail:a\n", "mail:a: it had this unique key, and is changed\n") == changed
    status, _, told = call(*enqueue, "--on-conflict", "reject")
    assert (1, True) == (status, told.startswith("the unique key is held by mail:a: "))
    status, printed, _ = call(*copy)
    assert (0, "mail:a", True, 2) == (
        status,
        *(json.loads(printed)[n] for n in ("id", "duplicate", "payload")),
    )
    assert (0, "mail:b\n", "") == call("enqueue", "t", "--queue", "mail", "--id", "b")
    assert (0, "mail:b\n", "mail:b: it was enqueued before\n") == call(
        "enqueue", "t", "--queue", "mail", "--id", "b"
    )


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

    assert "job mail:a is ready: only one that waits for its time is run" in command(
        "job", "run", "mail:a", status=1
    )
    assert "job mail:a is ready: only a dead one" in command("job", "replay", "mail:a", status=1)


def test_a_refused_tag_is_named_as_its_option(command: Command) -> None:
    assert "'--tag': 'a b': 1 to 128" in command("enqueue", "x", "--tag", "a b", status=2)


def test_verify_of_a_queue_that_is_not_there_fails(servers: Servers, command: Command) -> None:
    async def one(store: Store) -> None:
        await enqueued(store, "a")

    given(servers, one)

    assert "1 queues, 0 faults" in command("verify", "mail")
    assert "there is no queue 'mial'" in command("verify", "mial", status=1)


def test_a_queue_is_shown_paused_and_resumed_as_rest_does(servers: Servers, command: Command) -> None:
    async def two(store: Store) -> None:
        await enqueued(store, "a", "b")
        await store.enqueue("reports", [new("r", queue="reports", delay_ms=60_000)])

    given(servers, two)

    shown = json.loads(command("queue", "show", "mail", "--json"))
    assert (2, False, 0, {}) == (
        shown["counts"]["ready"], shown["paused"], shown["workers"], shown["retention"]
    )  # fmt: skip
    assert json.loads(command("queue", "pause", "mail", "--json"))["paused"]
    assert "paused             true" in command("queue", "pause", "mail")
    listed = json.loads(command("queue", "list", "--json"))["items"]
    assert [("mail", True), ("reports", False)] == [(item["queue"], item["paused"]) for item in listed]
    lines = [line.split() for line in command("queue", "list").splitlines()]
    assert [["mail", "paused"], ["reports", "–"]] == [line[:2] for line in lines]
    assert "paused             false" in command("queue", "resume", "mail")
    assert "there is no queue 'nowhere'" in command("queue", "pause", "nowhere", status=1)
    assert "the breaker of send of mail is closed, as it was" in command(
        "queue", "reset", "mail", "--type", "send"
    )
    assert "there is no queue 'nowhere'" in command("queue", "reset", "nowhere", "--type", "send", status=1)
    command("queue", "set", "mail", status=2)
    for option, value in (
        ("--rate", "5"),
        ("--group-rate", "0/s"),
        ("--concurrency", "0"),
        ("--group-concurrency", "1.5"),
    ):
        assert option in command("queue", "set", "mail", option, value, status=2)
    limited = json.loads(
        command("queue", "set", "mail", "--rate", "100/m", "--group-concurrency", "5", "--json")
    )
    assert ({"limit": 100, "per": 60, "burst": 0}, 5) == (limited["rate"], limited["group_concurrency"])
    assert "100 in 1m0s" in (shown := command("queue", "show", "mail"))
    assert "group concurrency  5" in shown
    assert None is json.loads(command("queue", "set", "mail", "--rate", "none", "--json"))["rate"]
    for option, name in (("--type", "send"), ("--group", "acme")):
        document = {"queue": "mail", option[2:]: name, "paused": True}
        assert document == json.loads(command("queue", "pause", "mail", option, name, "--json"))
        assert f"{name} of mail is paused" in command("queue", "pause", "mail", option, name)
        assert f"{name} of mail is not paused" in command("queue", "resume", "mail", option, name)
    command("queue", "pause", "mail", "--type", "send", "--group", "acme", status=2)
    assert "there is no queue 'nowhere'" in command("queue", "pause", "nowhere", "--group", "acme", status=1)
    assert ["mail", "reports"] == [
        item["queue"] for item in json.loads(command("queue", "list", "--json"))["items"]
    ]


def test_a_pause_that_changes_nothing_leaves_the_version_alone(servers: Servers, command: Command) -> None:
    versions: list[int] = []

    async def one(store: Store) -> None:
        await enqueued(store, "a")

    async def look(store: Store) -> None:
        versions.append((await store.census(QUEUE)).version)

    given(servers, one)
    for _ in range(2):
        command("queue", "pause", "mail")
        asyncio.run(_with_store(servers, look))

    assert versions[0] == versions[1]


async def _with_store(servers: Servers, work: Callable[[Store], Awaitable[Any]]) -> None:
    store = Store(await servers.open("valkey"))
    await store.connect()
    await work(store)
    await store.close()


def test_workers_are_listed_with_what_they_run(servers: Servers, command: Command) -> None:
    async def one(store: Store) -> None:
        await Presence(store).sign(
            WORKER,
            {"host": "h", "pid": 7, "version": "1", "queues": [QUEUE], "types": ["send"], "concurrency": 5},
            60_000,
        )
        await enqueued(store, "a")
        await take(store, lease_ms=60_000)

    given(servers, one)

    [worker] = json.loads(command("workers", "list", "--json"))["items"]
    assert (WORKER, ["mail"], ["mail:a"], 5, 7) == tuple(
        worker[name] for name in ("name", "queues", "running", "concurrency", "pid")
    )
    assert not worker["dead"]
    line = command("workers", "list").split()
    assert ([WORKER, "ok"], ["mail", "1/5", "1", "send"]) == (line[:2], line[3:])
    assert worker["seen_at"] == line[2]


def test_a_worker_without_a_sign_is_marked_dead_with_the_jobs_it_owns(
    servers: Servers, command: Command
) -> None:
    async def two(store: Store) -> None:
        said = {"queues": [QUEUE], "types": ["send"], "concurrency": 5}
        await Presence(store).sign("late", said, 60_000)
        await store.clients.commands.pexpire(worker_key(store.namespace, "late"), 59_000)
        await enqueued(store, "a", "b")
        await take(store, worker="gone", lease_ms=60_000)
        await take(store, worker="late", lease_ms=60_000)

    given(servers, two)

    late, gone = json.loads(command("workers", "list", "--json"))["items"]
    assert ("late", ["mail:b"], True) == tuple(late[name] for name in ("name", "running", "dead"))
    assert ("gone", ["mail:a"], True, None) == tuple(
        gone[name] for name in ("name", "running", "dead", "seen_at")
    )
    assert [["late", "dead"], ["gone", "dead"]] == [
        line.split()[:2] for line in command("workers", "list").splitlines()
    ]


def test_a_job_that_failed_is_shown_with_the_trace_of_its_last_error(
    servers: Servers, command: Command
) -> None:
    async def one(store: Store) -> None:
        await enqueued(store, "a")
        [job] = await take(store)
        await store.bury(
            QUEUE,
            [Bury(job.key, job.token, "Boom", "no\x1b[31m way", trace="Traceback\n  line 3\n")],
            worker=WORKER,
        )

    given(servers, one)

    lines = command("job", "show", "mail:a").splitlines()
    assert r"error 1            Boom: no\x1b[31m way (dead: permanent)" in lines
    assert ["    Traceback", "      line 3"] == lines[-2:]
    assert "state              dead" in lines


def test_a_deadline_is_a_time_or_a_duration(command: Command) -> None:
    for text in ("1h", "3600"):
        made = json.loads(command("enqueue", "t", "--deadline", text, "--json"))
        assert (True, None) == (made["deadline"] > made["created_at"], made["expires_at"])
    made = json.loads(command("enqueue", "t", "--expires-in", "5m", "--json"))
    assert (None, True) == (made["deadline"], made["expires_at"] > made["created_at"])
    assert "at most 10 years" in command("enqueue", "t", "--deadline", "2999-01-01T00:00:00Z", status=1)
    assert "it has passed" in command("enqueue", "t", "--deadline", "2020-01-01T00:00:00Z", status=1)
    assert "--expires-in" in command("enqueue", "t", "--expires-in", "soon", status=2)
    assert "--deadline" in command("enqueue", "t", "--deadline", "0", status=2)


def test_a_job_is_waited_for_and_its_log_is_read_from_the_command_line(
    servers: Servers, command: Command
) -> None:
    async def ended(store: Store) -> None:
        await enqueued(store, "good", "bad", "waits")
        good, bad = await take(store, 2)
        lines = [
            Note(good.key, good.token, "log", text, n) for n, text in enumerate((b"first", b"second"), 1)
        ]
        await store.note(QUEUE, lines)
        await store.ack(QUEUE, [Ack(good.key, good.token, b'{"n":1}')], worker=WORKER)
        await store.bury(QUEUE, [Bury(bad.key, bad.token, "Boom", "no", "")], worker=WORKER)

    given(servers, ended)

    assert '{"n":1}\n' == command("job", "wait", "mail:good")
    assert "succeeded" == json.loads(command("job", "wait", "mail:good", "--json"))["state"]
    assert "job mail:bad is dead (permanent): Boom: no" in command("job", "wait", "mail:bad", status=1)
    assert "still ready" in command("job", "wait", "mail:waits", "--timeout", "10ms", status=1)
    assert "no job" in command("job", "wait", "mail:nope", status=1)
    assert ["first", "second"] == [
        line.split()[1] for line in command("job", "log", "mail:good").splitlines()
    ]
    assert ["first", "second"] == [
        line.split()[1] for line in command("job", "log", "-f", "mail:good").splitlines()
    ]
    items = json.loads(command("job", "log", "mail:good", "--json"))["items"]
    assert ["first", "second"] == [item["line"] for item in items]
    assert "no job" in command("job", "log", "mail:nope", status=1)
    assert "--follow" in command("job", "log", "-f", "--json", "mail:good", status=2)


def test_an_enqueue_that_waits_prints_the_id_and_the_result(servers: Servers, command: Command) -> None:
    async def ended(store: Store) -> None:
        await enqueued(store, "a", type="demo.echo", payload=b"{}")
        job = (await take(store))[0]
        await store.ack(QUEUE, [Ack(job.key, job.token, b"[7]")], worker=WORKER)

    given(servers, ended)

    words = ("enqueue", "demo.echo", "--queue", "mail", "--id", "a", "--wait")
    assert ["mail:a", "[7]"] == [
        line for line in command(*words).splitlines() if "enqueued before" not in line
    ]
    printed = command(*words, "--json")
    assert [7] == json.JSONDecoder().raw_decode(printed[printed.index("{") :])[0]["result"]


def test_dead_letters_are_listed_over_all_queues(servers: Servers, command: Command) -> None:
    async def dead(store: Store) -> None:
        for queue in ("mail", "reports"):
            await store.enqueue(queue, [new("a", queue=queue)])
            job = (await store.claim(queue, worker=WORKER, count=1)).jobs[0]
            await store.bury(queue, [Bury(job.key, job.token, "Boom", "no", "")], worker=WORKER)
        await enqueued(store, "alive")

    given(servers, dead)

    assert ["mail:a", "reports:a"] == ids(command("dlq", "list", "--json"))
    assert ["reports:a"] == ids(command("dlq", "list", "reports", "--json"))
    groups = json.loads(command("dlq", "groups", "--json"))["items"]
    assert {("mail", 1), ("reports", 1)} == {(group["queue"], group["count"]) for group in groups}
    assert {"mail", "reports"} == {line.split()[0] for line in command("dlq", "groups").splitlines()}
    assert ["fingerprint", "jobs"] == command("dlq", "groups", "mail", "--head").split()[:2]
    assert "no queue" in command("dlq", "list", "nowhere", status=1)


def test_jobs_are_listed_by_time_and_sorted_over_queues_and_states(
    servers: Servers, command: Command
) -> None:
    moments: list[int] = []

    async def some(store: Store) -> None:
        for key in ("a", "b", "c"):
            await enqueued(store, key)
            moments.append(await store.now())
            await asyncio.sleep(0.005)
        await store.cancel(QUEUE, ["b"])

    given(servers, some)
    after_a = rfc3339(moments[0] + 1)

    assert ["mail:c", "mail:b"] == ids(command("jobs", "list", "--since", after_a, "--json"))
    assert ["mail:a"] == ids(command("jobs", "list", "--until", after_a, "--json"))
    assert ["mail:c", "mail:b", "mail:a"] == ids(command("jobs", "list", "--sort", "created", "--json"))
    assert ["mail:a", "mail:b"] == ids(
        command("jobs", "list", "--sort", "created", "--reverse", "--limit", "2", "--json")
    )
    assert ["mail:b"] == ids(command("jobs", "list", "--sort", "ended", "--json"))
    assert 3 == len(ids(command("jobs", "list", "--since", "1h", "--json")))
    assert [] == ids(command("jobs", "list", "--until", "1h", "--json"))
    assert "--since" in command("jobs", "list", "--since", "soon", status=2)
    assert "--sort" in command("jobs", "list", "--reverse", status=2)
    lines = command("jobs", "list", "--head", "--limit", "1").splitlines()
    assert ["id", "type", "state", "when"] == lines[0].split()


def test_a_list_since_a_time_reads_no_older_ended_job_and_skips_no_state(
    servers: Servers, command: Command
) -> None:
    since: list[int] = []

    async def some(store: Store) -> None:
        await enqueued(store, *(f"old{n}" for n in range(5)))
        await store.cancel(QUEUE, [f"old{n}" for n in range(5)])
        await asyncio.sleep(0.005)
        since.append(await store.now())
        await asyncio.sleep(0.005)
        await enqueued(store, "new", "dies")
        await store.cancel(QUEUE, ["new"])
        job = (await take(store))[0]
        await store.bury(QUEUE, [Bury(job.key, job.token, "Boom", "no", "")], worker=WORKER)
        await store.enqueue("reports", [new("x", queue="reports")])

    given(servers, some)

    listed = ids(command("jobs", "list", "--since", rfc3339(since[0]), "--limit", "2", "--json"))
    assert ["mail:new", "mail:dies"] == listed
    listed = ids(command("jobs", "list", "--since", rfc3339(since[0]), "--json"))
    assert ["mail:new", "mail:dies", "reports:x"] == listed


def test_stats_say_what_ended_and_how_long_it_took(servers: Servers, command: Command) -> None:
    async def ended(store: Store) -> None:
        await enqueued(store, "a")
        job = (await take(store))[0]
        await store.ack(QUEUE, [Ack(job.key, job.token, b"1")], worker=WORKER)

    given(servers, ended)

    [item] = json.loads(command("stats", "--json"))["items"]
    assert ("mail", 1, 1) == (item["queue"], item["ended"]["1h"]["succeeded"], item["sample"]["jobs"])
    lines = command("stats", "mail", "--head").splitlines()
    assert ["queue", "type", "ended_1m"] == lines[0].split()[:3]
    assert ["mail", "–", "1", "1", "0"] == lines[1].split()[:5]
    assert "no queue" in command("stats", "nowhere", status=1)


def test_the_delays_of_a_type_are_shown_as_its_policies_say(servers: Servers, command: Command) -> None:
    async def some(store: Store) -> None:
        await store.configure_type(
            QUEUE, "send", TypePolicy(retry={"max_attempts": 4, "jitter": 0}), declared=True
        )
        await store.configure_type(QUEUE, "send", TypePolicy(retry={"base": 60_000}))

    given(servers, some)

    shown = json.loads(command("types", "show", "mail", "send", "--json"))
    assert [(0, 0), (60, 60), (120, 120)] == [(d["least"], d["most"]) for d in shown["delays"]]
    printed = command("types", "show", "mail", "send")
    assert "dead after 4 attempts, 3m0s of waiting in all" in printed
    other = json.loads(command("types", "show", "mail", "unknown", "--json"))
    assert (20, 19, 29_294) == (other["retry"]["max_attempts"], len(other["delays"]), other["lasts"]["most"])
    assert ["send"] == [line.split()[0] for line in command("types", "list", "mail").splitlines()]


def test_a_queue_is_drained_and_resumed(servers: Servers, command: Command) -> None:
    async def one(store: Store) -> None:
        await enqueued(store, "a")

    given(servers, one)

    assert json.loads(command("queue", "drain", "mail", "--json"))["draining"]
    assert "draining" == command("queue", "list").split()[1]
    assert "draining" in command("enqueue", "send", "--queue", "mail", status=1)
    assert not json.loads(command("queue", "resume", "mail", "--json"))["draining"]
    command("enqueue", "send", "--queue", "mail")
    assert "no queue" in command("queue", "drain", "nowhere", status=1)

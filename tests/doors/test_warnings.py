"""A job that no worker would take is taken in, and its caller is told which queue or type may be meant."""

import asyncio
import json
from time import monotonic

import pytest
from click.testing import CliRunner

from scheduler.cli import cli
from scheduler.client import Client, link
from scheduler.outcomes import WorkerSeen
from scheduler.presence import Presence
from scheduler.served import Served, unserved
from tests.doors.test_client import url


def worker(name, queues, types=()):
    return WorkerSeen(name, None, None, None, tuple(queues), tuple(types), None, (), 0, 0)


MAILER = worker("m", ["email"], ["email.send", "email.check"])
REPORTS = worker("r", ["reports", "slow"], ["report.render"])
ANY = worker("any", ["any"])


@pytest.mark.parametrize(
    ("queue", "kind", "said"),
    [
        ("email", "email.send", None),
        ("any", "email.send", None),
        ("default", "email.send", "no worker of the queue default has a handler for email.send: it has one in the queue email"),
        ("email", "report.render", "no worker of the queue email has a handler for report.render: it has one in the queues reports, slow"),
        ("email", "emial.send", "no worker has a handler for emial.send: the nearest type is email.send, in the queue email"),
        ("elsewhere", "something.else", None),
    ],
)  # fmt: skip
def test_what_is_said(queue, kind, said):
    assert said == unserved([MAILER, REPORTS, ANY], queue, kind)


def test_nothing_is_said_while_nobody_works():
    assert None is unserved([], "default", "email.send")


@pytest.fixture
async def served(api):
    """A server beside which one worker serves email.send in the queue email."""
    await Presence(api.store).sign("w", {"queues": ["email"], "types": ["email.send"]}, 30_000)
    return api


ELSEWHERE = "no worker of the queue default has a handler for email.send: it has one in the queue email"


async def test_a_job_has_them_in_its_answer(served):
    lost = await served.post("/v1/jobs", {"type": "email.send", "id": "a"})
    again = await served.post("/v1/jobs", {"type": "email.send", "id": "a"})
    copied = await served.post("/v1/jobs/default:a/copy", {})
    right = await served.post("/v1/jobs", {"type": "email.send", "queue": "email"})

    assert [(201, [ELSEWHERE]), (200, [ELSEWHERE]), (201, [ELSEWHERE])] == [
        (answer.status, answer.doc["warnings"]) for answer in (lost, again, copied)
    ]
    assert (201, False) == (right.status, "warnings" in right.doc)
    assert "warnings" not in (await served.get("/v1/jobs/default:a")).doc


async def test_many_jobs_have_each_of_them_once(served):
    jobs = [
        {"type": "email.send"},
        {"type": "email.send"},
        {"type": "email.sned", "queue": "email"},
        {"type": "email.send", "queue": "email"},
    ]
    sent = [
        ELSEWHERE,
        "no worker has a handler for email.sned: the nearest type is email.send, in the queue email",
    ]

    assert sent == (await served.post("/v1/jobs/bulk", jobs)).doc["warnings"]
    assert "warnings" not in (await served.post("/v1/jobs/bulk", jobs[3:])).doc
    lines = b"\n".join(json.dumps(job).encode() for job in jobs)
    answer = await served.post("/v1/jobs/bulk", lines, Content_Type="application/x-ndjson")
    assert sent == json.loads(answer.raw.splitlines()[-1])["warnings"]


async def test_a_flow_has_them(served):
    answer = await served.post("/v1/flows", {"jobs": [{"name": "a", "type": "email.send"}]})

    assert (201, [ELSEWHERE]) == (answer.status, answer.doc["warnings"])


async def test_the_client_says_them(served, caplog):
    link._SAID.clear()
    async with Client(url(served)) as jobs:
        one = await jobs.enqueue("email.send")
        right = await jobs.enqueue("email.send", queue="email")
        await jobs.enqueue_many([{"type": "email.send"}] * 3)

    assert ((ELSEWHERE,), ()) == (one.warnings, right.warnings)
    said = [record.getMessage() for record in caplog.records if record.name == "scheduler.client.link"]
    assert [ELSEWHERE] == said, "each is said once"


@pytest.mark.parametrize("backend", ["valkey"], indirect=True)
async def test_the_command_line_says_them(served):
    words = ["enqueue", "email.send", "--redis-url", served.store.clients.url]
    plain = await asyncio.to_thread(CliRunner().invoke, cli, words)
    as_json = await asyncio.to_thread(CliRunner().invoke, cli, [*words, "--json"])
    right = await asyncio.to_thread(CliRunner().invoke, cli, [*words, "--queue", "email"])

    assert (0, f"warning: {ELSEWHERE}\n") == (plain.exit_code, plain.stderr)
    assert [ELSEWHERE] == json.loads(as_json.stdout)["warnings"]
    assert (0, "") == (right.exit_code, right.stderr)


async def test_explain_says_them_too(served):
    for job in ({"type": "email.send"}, {"type": "emial.send", "queue": "email"}):
        await served.post("/v1/jobs", {**job, "id": "a"})

    [none, *_] = (await served.get("/v1/jobs/default:a/explain")).doc["reasons"]
    [other, *_] = (await served.get("/v1/jobs/email:a/explain")).doc["reasons"]

    assert ("no_worker", True) == (none["code"], none["message"].endswith(": it has one in the queue email"))
    assert "no_handler" == other["code"]
    assert other["message"].endswith(": the nearest type is email.send, in the queue email")


async def test_workers_are_looked_at_once_for_many_jobs(served, monkeypatch):
    looks = []
    seen = Presence.seen

    async def counted(self):
        looks.append(monotonic())
        return await seen(self)

    monkeypatch.setattr(Presence, "seen", counted)
    knows = Served(Presence(served.store))
    for _ in range(100):
        assert [ELSEWHERE] == await knows.warnings([("default", "email.send")])

    assert len(looks) <= 2


async def test_a_look_that_fails_fails_no_job(served, monkeypatch):
    async def away(self):
        raise ConnectionError

    monkeypatch.setattr(Presence, "_look", away)

    assert 201 == (await served.post("/v1/jobs", {"type": "email.send"})).status

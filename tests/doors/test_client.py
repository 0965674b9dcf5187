"""The client over HTTP: typed, in bounded memory, repeated only where that is safe."""

import asyncio
import contextlib
import datetime as dt
import inspect
import pickle
import socket
import sqlite3
import sys
import threading
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_type

import orjson
import pytest
from aiohttp import web

import scheduler
from scheduler.client import (
    Client,
    Duplicate,
    Handle,
    Invalid,
    NotFound,
    Problem,
    Queue,
    StoreUnavailable,
    SyncClient,
    SyncHandle,
    SyncQueue,
    TooMany,
    Unauthorized,
    Unreachable,
    WrongState,
)
from scheduler.client import client as client_module
from scheduler.client import lines as client_lines
from scheduler.client.problems import problem_of
from scheduler.errors import PayloadInvalid, SchedulerError
from scheduler.job import Job
from scheduler.retry import Retry
from scheduler.shown import QueueShown
from tests.doors.conftest import held, on_valkey, served, until
from tests.proxy import Proxy, script
from tests.whole.conftest import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def url(api):
    return f"http://127.0.0.1:{api.port}"


@pytest.fixture
async def jobs(api):
    async with Client(url(api)) as client:
        yield client


@asynccontextmanager
async def answering(*answers):
    """A server that answers what a test says, one after the other, and keeps what it was asked."""
    asked: list[Any] = []
    left = list(answers)

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append((request.method, request.path_qs, dict(request.headers), await request.read()))
        made = left.pop(0) if len(left) > 1 else left[0]
        if made is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        status, document, headers = made
        return web.Response(
            status=status, body=document if isinstance(document, bytes) else orjson.dumps(document),
            headers={"Content-Type": "application/json", **headers},
        )  # fmt: skip

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}", asked
    finally:
        await runner.cleanup()


def problem(status, code, **members):
    return {"type": f"urn:{code}", "title": code, "status": status, "detail": "no", "code": code, **members}


SHOWN = {
    "id": "mail:a",
    "queue": "mail",
    "type": "t",
    "state": "ready",
    "created_at": "2026-01-01T00:00:00.000Z",
}


# -- jobs ----------------------------------------------------------------------------------------------------


async def test_a_job_is_enqueued_with_all_its_options(api, jobs):
    when = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    job = await jobs.enqueue(
        "send", {"to": "ä"}, queue="mail", id="a", priority=5, run_at=when, group="g", tags=["x", "y"],
        timeout="5m", retry=Retry(max_attempts=3, base=0.5), retention=60,
    )  # fmt: skip
    found = await job.refresh()

    assert ("mail:a", False) == (job.id, job.duplicate)
    assert (b'{"to":"\xc3\xa4"}', "mail", 5, "g", ("x", "y")) == (
        found.payload, found.queue, found.priority, found.group, found.tags,
    )  # fmt: skip
    assert (300_000, 3, "scheduled") == (found.timeout_ms, found.max_attempts, found.state)
    assert found.run_at == when.timestamp() * 1000
    assert found == await jobs.job("mail:a")
    late = await (await jobs.enqueue("send", deadline=when, expires_in="1h"))
    assert (when.timestamp() * 1000, late.created_at + 3_600_000) == (late.deadline_ms, late.expires_ms)
    later = await jobs.enqueue("send", delay=60)
    assert "scheduled" == (await later).state


async def test_the_same_id_and_request_is_a_duplicate_and_another_request_is_refused(jobs):
    await jobs.enqueue("send", 1, queue="mail", id="a")

    assert (await jobs.enqueue("send", 1, id="mail:a")).duplicate
    with pytest.raises(Duplicate) as caught:
        await jobs.enqueue("send", 2, queue="mail", id="a")
    assert (409, "duplicate", "mail:a") == (caught.value.status, caught.value.code, caught.value.id)
    assert isinstance(caught.value, scheduler.Duplicate)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"type": "no name"}, scheduler.Invalid),
        ({"type": "t", "priority": 101}, scheduler.Invalid),
        ({"type": "t", "delay": "soon"}, scheduler.Invalid),
        ({"type": "t", "id": "other:a", "queue": "mail"}, scheduler.Invalid),
        ({"type": "t", "payload": float("nan")}, scheduler.PayloadInvalid),
        ({"type": "t", "payload": object()}, scheduler.PayloadInvalid),
    ],
)
async def test_what_no_server_takes_is_not_sent(options, error):
    async with Client("http://127.0.0.1:1") as jobs:
        with pytest.raises(error):
            await jobs.enqueue(**options)


async def test_what_the_server_refuses_has_the_problem_s_fields(jobs):
    with pytest.raises(Problem) as caught:
        await jobs.enqueue("send", "x" * 1_048_576)
    assert (413, "too_large") == (caught.value.status, caught.value.code)
    assert "1048578 bytes" in caught.value.detail

    with pytest.raises(Invalid) as invalid:
        await jobs.queue("mail").create(retention={"dead": {"age": "soon"}})
    assert ["/retention/dead/age"] == [fault.path for fault in invalid.value.errors]
    assert isinstance(invalid.value, ValueError)
    with pytest.raises(NotFound):
        await jobs.job("mail:none")
    with pytest.raises(scheduler.NotFound):
        await jobs.queue("none").show()


async def test_a_job_is_waited_for_and_its_end_is_a_value_or_an_error(api, jobs):
    done, dead, cancelled = [await jobs.enqueue("send", queue="mail", id=key) for key in "abc"]
    assert "cancelled" == (await cancelled.cancel()).state
    waiting = [asyncio.create_task(job.result(10)) for job in (done, dead, cancelled)]
    leased = await api.lease(max=2)
    await api.settle(ack=[{**held(leased[0]), "result": {"n": 1}}])
    error = {"kind": "Boom", "message": "no"}
    await api.settle(nack=[{**held(leased[1]), "error": error, "permanent": True}])

    assert {"n": 1} == await waiting[0]
    with pytest.raises(scheduler.JobDead, match="Boom: no") as caught:
        await waiting[1]
    assert "permanent" == caught.value.job.reason
    with pytest.raises(scheduler.JobCancelled):
        await waiting[2]
    with pytest.raises(WrongState) as wrong:
        await done.cancel()
    assert "succeeded" == wrong.value.state
    with pytest.raises(TimeoutError):
        await (await jobs.enqueue("send", queue="mail")).result(timeout=0.1)


async def test_every_verb_of_a_job(api, jobs):
    job = await jobs.enqueue("send", 1, queue="mail", id="a", delay=60)
    assert (
        (7, b"2") == (changed := await job.update(priority=7, payload=2)).priority and changed.payload
    ) or True
    assert "ready" == (await job.run()).state
    other = await job.copy(queue="post", payload=3)
    assert (b"3", "mail:a") == ((found := await other.refresh()).payload, found.copied_from)
    [leased] = await api.lease()
    await api.settle(extend=[{**held(leased), "log": ["one", "two"]}])
    assert ["one", "two"] == [line.line async for line in job.log()]
    error = {"kind": "Boom", "message": "no"}
    await api.settle(nack=[{**held(leased), "error": error, "permanent": True}])
    assert "ready" == (await job.replay(payload=4)).state
    await job.delete()
    with pytest.raises(NotFound):
        await job.refresh()


async def test_lists_go_over_all_pages(api, jobs):
    await jobs.enqueue_many({"type": "send", "queue": "mail", "id": f"k{n}", "payload": n} for n in range(25))

    found = [job async for job in jobs.jobs(queue="mail", state="ready", page=10)]
    assert [f"mail:k{n}" for n in range(25)] == [job.id for job in found]
    assert {None} == {job.payload for job in found}
    [first, *_] = [job async for job in jobs.jobs(queue="mail", include="payload")]
    assert b"0" == first.payload
    with pytest.raises(Invalid):
        await anext(jobs.jobs(state="nowhere"))


async def test_queues_types_workers_stats_and_dead_letters(api, jobs):
    mail = jobs.queue("mail")
    assert not (await mail.create()).paused
    assert (await mail.pause()).paused
    assert not (await mail.resume()).paused
    assert 60 == (await mail.configure(retention={"dead": {"age": 60}})).retention.dead.age
    assert 3 == (await mail.set_type("send", retry={"max_attempts": 3})).in_force.retry.max_attempts
    assert ["send"] == [found.type async for found in mail.types()]
    assert (await mail.pause_type("send")).paused
    assert not (await mail.resume_type("send")).paused
    assert "closed" == (await mail.set_type("guarded", breaker={})).breaker_state.state
    assert "closed" == (await mail.reset_breaker("guarded")).breaker_state.state
    assert (100, 5) == (
        (limited := await mail.configure(rate="100/m", group_concurrency=5)).rate.limit,
        limited.group_concurrency,
    )
    assert 3 == (await mail.set_group("acme", weight=3)).weight
    assert 5 == (await mail.group("other")).in_force.concurrency
    assert ["acme"] == [found.group async for found in mail.groups()]
    await api.dead()
    assert 1 == (await mail.show()).counts.dead
    [letter] = [letter async for letter in mail.dead(kind="Boom")]
    assert ("mail:a", 16) == (letter.job.id, len(letter.fingerprint))
    assert [letter.fingerprint] == [group.fingerprint async for group in mail.dead_groups()]
    assert ("done", 1) == ((done := await mail.replay_dead(kind="Boom")).state, done.done)
    assert "1 of 1" == f"{done.done} of {done.matched}"
    assert "ready" == (await jobs.job("mail:a")).state
    assert ["mail"] == [queue.queue async for queue in jobs.queues()]
    assert ["mail"] == [stats.queue async for stats in jobs.stats()]
    assert ["w"] == [worker.name async for worker in jobs.workers()]
    operation = await jobs.operate("cancel", "mail", {"state": "ready"})
    assert operation.id == (await jobs.operation(operation.id)).id
    assert operation.id in [found.id async for found in jobs.operations()]
    await until(lambda: _is_done(jobs, operation.id))
    await mail.obliterate()
    with pytest.raises(NotFound):
        await mail.show()


async def _is_done(jobs, operation):
    return (await jobs.operation(operation)).state == "done"


async def test_a_worker_of_one_s_own_leases_and_settles(jobs):
    await jobs.enqueue("send", {"a": 1}, queue="mail")
    [leased] = await jobs.lease("mail", worker="w", request_id="r")
    [again] = await jobs.lease("mail", worker="w", request_id="r")
    held = {"id": leased.job.id, "token": leased.job.token}

    assert again == leased
    assert b'{"a":1}' == leased.job.payload
    [item] = await jobs.settle("mail", worker="w", ack=[{**held, "result": 1}])
    assert (True, "succeeded") == (item.ok, item.state)
    [item] = await jobs.settle("mail", worker="w", ack=[{**held, "token": 1}])
    assert (False, "stale_lease") == (item.ok, item.code)


# -- many ----------------------------------------------------------------------------------------------------


async def test_many_are_answered_one_by_one_in_order(api, jobs):
    await api.enqueue("stands", payload=1)
    asked = [
        {"type": "send", "queue": "mail", "id": "a"},
        {"type": "send", "queue": "mail", "id": "stands", "payload": 1},
        {"type": "send", "queue": "mail", "id": "stands", "payload": 2},
        {"type": "no name"},
        {"queue": "mail"},
        {"type": "send", "queue": "mail", "payload": "x" * 1_048_577},
        {"type": "send", "queue": "mail", "id": "b"},
    ]
    found = [outcome async for outcome in jobs.enqueue_many(asked)]

    assert list(range(7)) == [outcome.number for outcome in found]
    assert [True, False, False, False, False, False, True] == [outcome.created for outcome in found]
    assert (found[1].duplicate, found[1].error) == (True, None)
    kinds: list[type] = [Duplicate, scheduler.Invalid, scheduler.Invalid, Invalid]
    assert kinds == [type(outcome.error) for outcome in found[2:6]]
    assert "mail:a" == found[0].id


async def test_awaited_they_are_handles_and_the_first_refusal_is_raised_when_all_are_in(jobs):
    handles = await jobs.enqueue_many([{"type": "send", "id": f"k{n}"} for n in range(3)])
    assert ["default:k0", "default:k1", "default:k2"] == [handle.id for handle in handles]
    assert [] == await jobs.enqueue_many([])

    with pytest.raises(scheduler.Invalid, match="/1/priority"):
        await jobs.enqueue_many(
            [{"type": "t", "id": "x"}, {"type": "t", "priority": 200}, {"type": "t", "id": "z"}]
        )
    assert ["ready", "ready"] == [(await jobs.job(f"default:{key}")).state for key in "xz"]


async def test_a_source_is_read_no_further_than_what_is_on_its_way(jobs, monkeypatch):
    monkeypatch.setattr(client_lines, "WINDOW", (10, 1_000_000))
    taken = 0

    async def source() -> "AsyncIterator[dict[str, Any]]":
        nonlocal taken
        while True:
            taken += 1
            yield {"type": "send", "queue": "mail"}

    seen = 0
    async for outcome in jobs.enqueue_many(source()):
        assert outcome.created
        assert taken <= seen + 11
        seen += 1
        if seen == 100:
            break


async def test_what_a_slow_source_has_brought_is_not_kept_waiting(api, jobs):
    async def source():
        yield {"type": "send", "queue": "mail", "id": "a"}
        await until(lambda: api.redis.hexists("{scheduler:mail}:jobs", "a"))
        yield {"type": "send", "queue": "mail", "id": "b"}

    assert [0, 1] == [outcome.number async for outcome in jobs.enqueue_many(source())]


async def test_a_source_that_fails_ends_the_sending_with_its_error(jobs):
    async def source():
        yield {"type": "send"}
        raise LookupError("no more")

    with pytest.raises(LookupError):
        await jobs.enqueue_many(source())


@on_valkey
async def test_a_stream_whose_answer_is_lost_is_sent_again_and_each_job_stands_once(api, clients):
    lost = 0

    async with forwarding(api) as (address, faults), Client(address) as jobs:
        faults["cut_after"] = 1
        found = [o async for o in jobs.enqueue_many({"type": "send", "queue": "mail"} for _ in range(500))]
        lost = faults["cut"]

    assert 1 == lost
    assert {True} == {outcome.created for outcome in found}
    assert 500 == (await api.get("/v1/queues/mail")).doc["counts"]["ready"]


@asynccontextmanager
async def forwarding(api):
    """Stands between a client and the API. `cut_after`: so many answers are thrown away, and the connection cut."""
    faults = {"cut_after": 0, "cut": 0}
    tasks: set[asyncio.Task[None]] = set()

    async def through(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to = await asyncio.open_connection("127.0.0.1", api.port)

        async def up() -> None:
            while chunk := await reader.read(65_536):
                to.write(chunk)
                await to.drain()

        sending = asyncio.ensure_future(up())
        try:
            while chunk := await there.read(65_536):
                if faults["cut_after"]:
                    faults["cut_after"] -= 1
                    faults["cut"] += 1
                    break
                writer.write(chunk)
                await writer.drain()
        finally:
            sending.cancel()
            to.close()
            writer.close()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(through(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", faults
    finally:
        server.close()
        for task in tasks:
            task.cancel()


# -- trouble -------------------------------------------------------------------------------------------------


@on_valkey
async def test_an_enqueue_whose_answer_is_lost_is_repeated_and_stands_once(api):
    async with forwarding(api) as (address, faults), Client(address) as jobs:
        faults["cut_after"] = 2
        job = await jobs.enqueue("send", queue="mail")

    assert 0 == faults["cut_after"]
    assert not job.duplicate
    assert 1 == (await api.get("/v1/queues/mail")).doc["counts"]["ready"]


@on_valkey
async def test_what_the_unanswered_try_of_a_call_left_is_no_duplicate(api):
    async with forwarding(api) as (address, faults), Client(address) as jobs:
        faults["cut_after"] = 1
        job = await jobs.enqueue("send", queue="mail", id="mine")
        faults["cut_after"] = 1
        copied = await job.copy()
        again = await jobs.enqueue("send", queue="mail", id="mine")

    assert [False, False, True] == [job.duplicate, copied.duplicate, again.duplicate]


@on_valkey
async def test_what_stood_before_a_call_whose_answer_was_lost_is_a_duplicate(api):
    async with forwarding(api) as (address, faults), Client(address) as jobs:
        first = await jobs.enqueue("send", queue="mail", id="mine")
        faults["cut_after"] = 1
        again = await jobs.enqueue("send", queue="mail", id="mine")
        copied = await first.copy(id="other")
        faults["cut_after"] = 1
        copied_again = await first.copy(id="other")

    assert 0 == faults["cut_after"]
    assert [False, True] == [first.duplicate, again.duplicate]
    assert [False, True] == [copied.duplicate, copied_again.duplicate]


@pytest.mark.parametrize(("stands", "duplicate"), [("mail:b", False), ("mail:a", True)])
async def test_a_copy_whose_answer_was_lost_is_a_duplicate_only_of_another_job(stands, duplicate):
    again: Any = (
        (200, {**SHOWN, "id": stands, "duplicate": True}, {})
        if duplicate
        else (201, {**SHOWN, "id": stands}, {})
    )
    async with answering(None, again) as (address, asked), Client(address) as jobs:
        copied = await jobs.job("mail:a").copy(id="b", unique="k")

    assert (stands, duplicate) == (copied.id, copied.duplicate)
    assert 2 == len(asked)


async def test_of_a_stream_that_breaks_off_what_was_answered_stands():
    """The first answer says of one that it stood before, of one that it is refused, and breaks off."""
    first = b"".join(
        orjson.dumps(line) + b"\n"
        for line in (
            {"index": 0, "status": 200, "id": "mail:a", "duplicate": True},
            {"index": 1, **problem(422, "validation")},
        )
    )
    # The second try has two lines left: one that the first try has enqueued, and a new one.
    second = b'{"index": 0, "status": 200, "id": "mail:c", "duplicate": true}\n{"done": true}\n'
    async with answering((200, first, {}), (200, second, {})) as (address, asked), Client(address) as jobs:
        sent = jobs.enqueue_many({"type": "t", "queue": "mail", "id": key} for key in "abcd")
        found = [(one.id, one.created, one.duplicate) async for one in sent]

    assert [
        ("mail:a", False, True),
        ("mail:b", False, False),
        ("mail:c", True, False),
        ("mail:d", True, False),
    ] == found
    assert [4, 2] == [body.count(b"\n") for _, _, _, body in asked]


async def test_a_store_whose_reply_is_lost_makes_one_job(servers, clients):
    async with Proxy(servers.url("valkey")) as proxy:
        from scheduler.clients import open_clients  # noqa: PLC0415

        behind = await open_clients(proxy.url)
        try:
            async with served(behind) as api, Client(url(api)) as jobs:
                await jobs.enqueue("send", queue="mail")
                lost = [proxy.drop_reply(n, of=script("enqueue")) for n in (1, 2)]
                job = await jobs.enqueue("send", queue="mail")
                assert all(fault.happened.is_set() for fault in lost)
                assert not job.duplicate
                assert 2 == (await jobs.queue("mail").show()).counts.ready
        finally:
            await behind.close()


async def test_a_service_that_is_away_is_asked_again_until_the_patience_ends():
    async with Client(f"http://127.0.0.1:{free_port()}", patience=0.5) as jobs:
        with pytest.raises(Unreachable) as caught:
            await jobs.enqueue("send", id="a", queue="mail")

    assert isinstance(caught.value, scheduler.StoreUnavailable)
    assert (0, "unreachable", False, "mail:a") == (
        caught.value.status, caught.value.code, caught.value.unknown, caught.value.id,
    )  # fmt: skip


@pytest.mark.parametrize(
    "first",
    [
        (503, problem(503, "store_unavailable"), {"Retry-After": "0"}),
        (429, problem(429, "queue_full"), {"Retry-After": "0"}),
        (507, problem(507, "store_full"), {}),
        (502, b"<html>bad gateway</html>", {}),
        None,
    ],
)
async def test_what_may_be_better_soon_is_repeated_with_the_same_id(first):
    async with answering(first, (201, SHOWN, {})) as (address, asked), Client(address) as jobs:
        job = await jobs.enqueue("t", queue="mail")

    assert "mail:a" == job.id
    assert 2 == len(asked)
    assert asked[0][3] == asked[1][3]
    assert orjson.loads(asked[0][3])["id"]


async def test_a_pause_that_is_asked_for_is_kept_to_within_the_patience():
    slow = (429, problem(429, "rate_limited"), {"Retry-After": "30"})
    async with answering(slow) as (address, asked), Client(address, patience=5) as jobs:
        with pytest.raises(TooMany) as caught:
            await jobs.enqueue("t")
    assert 30 == caught.value.retry_after
    assert 1 == len(asked)

    async with answering((429, problem(429, "rate_limited"), {"Retry-After": "1"}), (201, SHOWN, {})) as (
        address,
        _,
    ):
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with Client(address) as jobs:
            await jobs.enqueue("t")
        assert loop.time() - began >= 1


@pytest.mark.parametrize("verb", ["run", "replay", "delete"])
async def test_what_is_not_safe_to_repeat_is_not_repeated(verb):
    faults: list[Any] = [None, (503, problem(503, "store_unavailable"), {})]
    for fault in faults:
        async with answering(fault, (200, SHOWN, {})) as (address, asked), Client(address) as jobs:
            with pytest.raises(StoreUnavailable) as caught:
                await getattr(jobs.job("mail:a"), verb)()
        assert caught.value.unknown
        assert 1 == len(asked)


async def test_a_refusal_that_stands_is_not_repeated():
    async with answering((422, problem(422, "validation"), {})) as (address, asked), Client(address) as jobs:
        with pytest.raises(Invalid):
            await jobs.enqueue("t")
    assert 1 == len(asked)


async def test_a_service_that_does_not_answer_is_given_up_in_time():
    with socket.create_server(
        ("127.0.0.1", 0)
    ) as silent:  # the kernel takes its connections, and nobody else
        async with Client(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2, patience=0) as jobs:
            with pytest.raises(Unreachable) as caught:
                await jobs.enqueue("t")
    assert caught.value.unknown


async def test_a_redirect_is_not_followed_and_the_key_goes_nowhere_else():
    elsewhere = (302, b"", {"Location": "http://127.0.0.1:1/"})
    async with answering(elsewhere) as (address, asked), Client(address, key="secret") as jobs:
        with pytest.raises(Problem) as caught:
            await jobs.enqueue("t")
    assert 302 == caught.value.status
    assert "Bearer secret" == asked[0][2]["Authorization"]
    assert "secret" not in repr(jobs)


async def test_a_state_of_a_newer_server_is_kept_as_it_is_called():
    ended = {**SHOWN, "state": "archived", "finished_at": SHOWN["created_at"]}
    async with answering((200, ended, {})) as (address, asked), Client(address) as jobs:
        found = await jobs.job("mail:a").ended()
        assert ("archived", "archived", True) == (found.state, found.state.value, found.state.ended)
        with pytest.raises(SchedulerError, match="archived"):
            await jobs.job("mail:a").result()
    assert 2 == len(asked)
    async with answering((200, {**SHOWN, "state": "napping"}, {})) as (address, _), Client(address) as jobs:
        with pytest.raises(TimeoutError, match="napping"):
            await jobs.job("mail:a").result(0.01)


async def test_words_and_values_of_a_newer_server_are_as_they_came():
    settled = {"items": [{"id": "mail:a", "ok": True, "state": "archived", "more": 1}]}
    async with answering((200, settled, {})) as (address, _), Client(address) as jobs:
        [item] = await jobs.settle("mail", worker="w")
        assert ("mail:a", True, "archived") == (item.id, item.ok, item.state)
    queue = {"queue": "mail", "counts": {}, "rate": "100/m"}
    async with answering((200, queue, {})) as (address, _), Client(address) as jobs:
        with pytest.raises(SchedulerError, match="is not what this client knows"):
            await jobs.queue("mail").show()


async def test_a_limit_that_a_newer_server_knows_is_shown(api, jobs):
    await jobs.queue("mail").create()
    shown = (await api.get("/v1/queues/mail")).doc
    newer = {**shown, "rate": "100/m", "priority_mode": "lottery", "more": {}}
    async with answering((200, newer, {})) as (address, _), Client(address) as far:
        found: Any = await far.queue("mail").show()
    assert ("100/m", "lottery", 0) == (found.rate, found.priority_mode, found.counts.ready)


async def test_a_server_that_does_not_let_wait_is_not_asked_without_a_pause():
    async with answering((200, SHOWN, {})) as (address, asked), Client(address) as jobs:
        with pytest.raises(TimeoutError):
            await jobs.job("mail:a").result(0.3)
    assert len(asked) <= 3


async def test_who_waits_for_a_while_only_is_not_held_up_by_a_service_that_hangs(monkeypatch):
    monkeypatch.setattr(client_module, "SOON", 0.1)

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with server, Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as jobs:
        async with asyncio.timeout(5):
            with pytest.raises(Unreachable):
                await jobs.job("mail:a").result(0.1)


@pytest.mark.parametrize("errors", [None, "no", ["no"], [{"reason": 1}]])
async def test_a_refusal_of_something_before_the_api_is_a_problem_too(errors):
    document = {"error": "blocked", "code": 17, "errors": errors}
    async with answering((403, document, {})) as (address, _), Client(address) as jobs:
        with pytest.raises(Problem) as caught:
            await jobs.job("mail:a")
    assert (403, "17") == (caught.value.status, caught.value.code)


def test_a_problem_can_be_pickled():
    made = problem_of(problem(409, "wrong_state", state="dead"), retry_after=2)
    found = pickle.loads(pickle.dumps(made))
    assert (WrongState, "wrong_state: no", "dead", 2) == (
        type(found),
        str(found),
        found.state,
        found.retry_after,
    )


async def test_user_and_password_of_an_address_are_sent_and_never_shown():
    async with (
        answering((401, problem(401, "unauthorized"), {})) as (address, asked),
        Client(address.replace("//", "//me:secret@"), patience=0) as jobs,
    ):
        with pytest.raises(Unauthorized):
            await jobs.job("mail:a")
        assert "secret" not in repr(jobs)
    assert asked[0][2]["Authorization"].startswith("Basic ")
    async with Client("http://me:secret@127.0.0.1:1", patience=0) as jobs:
        with pytest.raises(Unreachable) as caught:
            await jobs.job("mail:a")
        assert "secret" not in str(caught.value)
    for wrong in ("redis://:secret@localhost", "http://me:secret@localhost?a=1"):
        with pytest.raises(ValueError, match="is no address") as refused:
            Client(wrong)
        assert "secret" not in str(refused.value)
    with pytest.raises(ValueError, match="not both"):
        Client("http://me:secret@localhost", "key")


async def test_what_is_no_json_is_sent_by_no_call(jobs):
    job = await jobs.enqueue("send", {"n": 1}, queue="mail", delay=60)
    for call in (job.update, job.replay, job.copy):
        with pytest.raises(PayloadInvalid):
            await call(payload={"n": float("nan")})
    with pytest.raises(PayloadInvalid):
        await jobs.settle("mail", worker="w", ack=[{"id": job.id, "token": 1, "result": float("inf")}])
    assert b'{"n":1}' == (await job.refresh()).payload
    changed = await job.copy(
        payload=None, retry=Retry(max_attempts=3), run_at=dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    )
    found = await changed.refresh()
    assert (b"null", 3, "scheduled") == (found.payload, found.max_attempts, found.state)


async def test_a_payload_that_is_too_large_is_invalid_as_it_is_beside_the_store(jobs):
    with pytest.raises(scheduler.Invalid, match="too_large"):
        await jobs.enqueue("send", "x" * 2_000_000)


async def test_a_thousand_calls_at_once_share_a_hundred_connections(api, jobs):
    before = len(await _sockets())
    calls = [asyncio.create_task(jobs.enqueue("send", queue="mail")) for _ in range(1_000)]
    most = 0
    while not all(call.done() for call in calls):
        most = max(most, len(await _sockets()) - before)
        await asyncio.sleep(0.01)
    await asyncio.gather(*calls)
    # Both ends are in this process.
    assert most <= 2 * 100 + 10


async def _sockets():
    return await asyncio.to_thread(lambda: list(Path("/proc/self/fd").iterdir()))


def test_a_client_belongs_to_one_event_loop_and_is_closed_once():
    jobs = Client("http://127.0.0.1:1", patience=0)

    async def ask():
        await jobs.job("mail:a")

    with pytest.raises(Unreachable):
        asyncio.run(ask())
    with pytest.raises(RuntimeError, match="event loop"):
        asyncio.run(ask())
    asyncio.run(jobs.close())

    async def close():
        async with Client("http://127.0.0.1:1", patience=0) as other:
            pass
        await other.job("mail:a")

    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(close())


async def test_answers_may_have_more_fields_than_this_client_knows():
    newer = {**SHOWN, "colour": "red", "payload": {"a": 1}}
    async with answering((200, newer, {})) as (address, _), Client(address) as jobs:
        assert b'{"a":1}' == (await jobs.job("mail:a")).payload


async def test_the_key_comes_from_the_argument_else_from_the_environment(serving, monkeypatch, tmp_path):
    key = "k" * 20
    api = await serving(api_key=key)
    async with Client(url(api), key) as jobs:
        await jobs.enqueue("t")
    async with Client(url(api)) as jobs:
        with pytest.raises(Unauthorized):
            await jobs.enqueue("t")
    monkeypatch.setenv("SCHEDULER_API_KEY", key)
    async with Client(url(api)) as jobs:
        await jobs.enqueue("t")
    monkeypatch.delenv("SCHEDULER_API_KEY")
    (tmp_path / "key").write_text(f"{key}\n")
    monkeypatch.setenv("SCHEDULER_API_KEY_FILE", str(tmp_path / "key"))
    async with Client(url(api)) as jobs:
        await jobs.enqueue("t")


@pytest.mark.parametrize("address", ["localhost:8080", "redis://localhost", "http://", "http://a/?b=c"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(ValueError, match="is no address of the API"):
        Client(address)


def test_a_key_that_is_none_is_refused():
    with pytest.raises(ValueError, match="ASCII"):
        Client(key="a\r\nX-Other: b")


async def test_the_api_may_stand_behind_a_path():
    async with answering((200, SHOWN, {})) as (address, asked), Client(f"{address}/scheduler/") as jobs:
        await jobs.job("mail:a")
    assert "/scheduler/v1/jobs/mail:a" == asked[0][1]


# -- without a loop ------------------------------------------------------------------------------------------


async def test_code_without_a_loop_has_the_same_calls(api):
    def plain():
        with SyncClient(url(api)) as jobs:
            job = jobs.enqueue("send", 1, queue="mail", id="a", delay=60)
            assert "scheduled" == job.refresh().state
            assert "ready" == job.run().state
            handles = jobs.enqueue_many([{"type": "send", "queue": "mail", "id": key} for key in "bc"])
            assert ["mail:b", "mail:c"] == [handle.id for handle in handles]
            outcomes = list(jobs.enqueue_each({"type": "send", "queue": "mail"} for _ in range(3)))
            assert [True] * 3 == [outcome.created for outcome in outcomes]
            assert 6 == len(list(jobs.jobs(queue="mail")))
            assert 6 == jobs.queue("mail").show().counts.ready
            assert next(jobs.jobs(queue="mail")).id == "mail:a"
            with pytest.raises(NotFound):
                jobs.job("mail:none").refresh()
            with pytest.raises(TimeoutError):
                job.result(timeout=0.05)
            [leased] = jobs.lease("mail", worker="w")
            held = {"id": leased.job.id, "token": leased.job.token}
            jobs.settle("mail", worker="w", ack=[{**held, "result": 7}])
            assert 7 == job.result(timeout=10)
            assert "cancelled" == handles[0].cancel().state
            threads = threading.active_count()
        assert threading.active_count() < threads
        with pytest.raises(RuntimeError):
            jobs.enqueue("send")

    await asyncio.to_thread(plain)


@pytest.mark.parametrize(
    ("face", "faced"),
    [(SyncClient, Client), (SyncHandle, Handle), (SyncQueue, Queue)],
    ids=["client", "handle", "queue"],
)
def test_without_a_loop_there_is_every_call_with_the_same_arguments(face, faced):
    def calls(of):
        return {name: getattr(of, name) for name in vars(of) if not name.startswith("_")}

    assert set() == calls(faced).keys() - calls(face).keys()
    for name, call in calls(face).items():
        if name not in {"enqueue_each", "enqueue_many", "transport"}:
            asked, here = (inspect.signature(one).parameters for one in (calls(faced)[name], call))
            assert list(asked.values()) == list(here.values()), name
            assert not inspect.iscoroutinefunction(call), name


async def test_several_threads_share_a_client_without_a_loop(api):
    def plain(jobs):
        return [jobs.enqueue("send", queue="mail").id for _ in range(20)]

    with SyncClient(url(api)) as jobs:
        found = await asyncio.gather(*(asyncio.to_thread(plain, jobs) for _ in range(4)))
        assert 80 == len({one for ids in found for one in ids})
        with pytest.raises(RuntimeError, match="await the call"):
            jobs.enqueue("send")
        await asyncio.to_thread(jobs.close)


async def test_without_a_loop_the_source_of_many_is_read_in_the_thread_that_asks(api, monkeypatch):
    monkeypatch.setattr(client_lines, "WINDOW", (2, 10_000))

    def plain():
        with SyncClient(url(api)) as jobs, contextlib.closing(sqlite3.connect(":memory:")) as db:
            for n in range(5):
                jobs.enqueue("old", n, queue="mail", id=f"o{n}")

            def source():
                for (n,) in db.execute("VALUES (0), (1), (2), (3), (4)"):
                    yield {
                        "type": "new",
                        "payload": jobs.job(f"mail:o{n}").refresh().created_at,
                        "id": f"n{n}",
                    }

            assert [f"default:n{n}" for n in range(5)] == [job.id for job in jobs.enqueue_many(source())]
            assert [True] * 5 == [outcome.duplicate for outcome in jobs.enqueue_each(source())]
            with pytest.raises(Duplicate):
                jobs.enqueue_many([{"type": "other", "id": "n0"}, {"type": "new", "id": "last"}])
            assert "ready" == jobs.job("default:last").refresh().state

    await asyncio.to_thread(plain)


def test_importing_the_client_does_not_bring_redis():
    import subprocess  # noqa: PLC0415

    code = "import sys, scheduler.client; print([m for m in ('redis', 'fakeredis', 'click') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()


async def typed(jobs: Client) -> None:
    """Not run: what a type checker is told."""
    assert_type(await jobs.enqueue("t"), Handle)
    assert_type(await jobs.job("a"), Job)
    assert_type(await jobs.enqueue_many([]), list[Handle])
    async for job in jobs.jobs():
        assert_type(job, Job)


def typed_without_a_loop(jobs: SyncClient, app: scheduler.Scheduler) -> None:
    """Not run: the calls that wait are told of what those that are awaited are; an error that is gone is one here."""
    assert_type(jobs.enqueue("t", queue="mail", delay="5m", unique={"key": "k"}), SyncHandle)
    assert_type(jobs.job("a").refresh(), Job)
    assert_type(jobs.job("a").copy(deadline="1h", group=None), SyncHandle)
    assert_type(jobs.queue("mail").configure(rate="100/m", max_length=None), QueueShown)
    for job in jobs.jobs(queue="mail"):
        assert_type(job, Job)
    jobs.enqueue("t", quue="mail")  # type: ignore[call-arg]
    jobs.enqueue("t", delay=[1])  # type: ignore[arg-type]
    jobs.jobs(qeue="mail")  # type: ignore[call-arg]
    jobs.job("a").copy(deadlin="1h")  # type: ignore[call-arg]
    jobs.job("a").update(run_at=5)  # type: ignore[arg-type]
    jobs.queue("mail").set_type("t", braker={})  # type: ignore[call-arg]
    jobs.queue("mail").replay_dead(limit="all")  # type: ignore[arg-type]
    app.enqueue_sync("t", {}, quue="mail")  # type: ignore[call-arg]

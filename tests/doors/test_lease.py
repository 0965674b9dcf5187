"""POST /v1/queues/{queue}/lease: a long poll that loses nothing."""

import asyncio
import json
from datetime import datetime

import msgspec
import pytest
from redis import exceptions

from scheduler.keys import Keys
from scheduler.shown import JobShown
from tests.doors.conftest import held, served, until
from tests.helpers import on_the_fake


async def lands(api, state="ready", queue="mail", count=1, within=2.0):
    """Waits until so many jobs stand there."""

    async def there():
        return count == (await api.get(f"/v1/queues/{queue}")).doc["counts"][state]

    await until(there, within=within, every=0.01)


def begun(api, body, queue="mail"):
    """A lease call on a connection of its own: whoever closes it hangs up."""

    async def call():
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        text = json.dumps(body).encode()
        head = (
            f"POST /v1/queues/{queue}/lease HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        )
        writer.write(f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text)
        return reader, writer

    return call()


async def test_a_worker_is_given_jobs_in_their_order(api):
    for key in ("a", "b", "c"):
        await api.enqueue(key, payload={"key": key})
    jobs = await api.lease(max=2, lease=60)

    assert ["mail:a", "mail:b"] == [job["id"] for job in jobs]
    assert [{"key": "a"}, {"key": "b"}] == [job["payload"] for job in jobs]
    assert jobs[0]["token"] < jobs[1]["token"]
    assert {("running", 1, "w")} == {(job["state"], job["attempt"], job["worker"]) for job in jobs}
    for job in jobs:
        assert job == (await api.get(f"/v1/jobs/{job['id']}")).doc
        msgspec.convert(job, JobShown)


async def test_a_lease_is_as_long_as_was_asked_for(api):
    await api.enqueue("a")
    await api.enqueue("b", timeout=7)
    [short] = await api.lease(lease=1)
    [cut] = await api.lease(lease="1h")

    assert 1.0 == leased_for(short)
    assert 12.0 == leased_for(cut), "never longer than the timeout and its grace"


def leased_for(job):
    begin, end = (datetime.fromisoformat(job[name]) for name in ("started_at", "lease_expires_at"))
    return (end - begin).total_seconds()


async def test_what_a_job_went_through_is_told_to_the_next(api):
    await api.put("/v1/queues/mail/types/send", {"retry": {"max_attempts": 3}, "timeout": 60})
    job = await api.running(tags=["x"], group="g", priority=2)
    await api.settle(nack=[{**held(job), "error": {"kind": "Boom", "message": "no", "trace": "line 1"}}])
    [again] = await api.lease()

    assert (2, 3, 60, ["x"], "g", 2) == tuple(
        again[n] for n in ("attempt", "max_attempts", "timeout", "tags", "group", "priority")
    )
    assert [("Boom", "no", "line 1", "retry at once")] == [
        (e["kind"], e["message"], e["trace"], e["next"]) for e in again["errors"]
    ]


async def test_who_waits_is_woken_by_a_new_job(api):
    await api.put("/v1/queues/mail", {})
    waiting = asyncio.create_task(api.lease(wait=30))
    await asyncio.sleep(0.1)
    await api.enqueue()

    async with asyncio.timeout(1):
        assert ["mail:a"] == [job["id"] for job in await waiting]


async def test_who_waits_is_woken_by_a_due_job_and_by_resume(api):
    waiting = asyncio.create_task(api.lease(wait=30))
    await api.enqueue(delay=0.4)
    async with asyncio.timeout(2):
        await waiting
    await api.post("/v1/queues/mail/pause")
    await api.enqueue("b")
    waiting = asyncio.create_task(api.lease(wait=30))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await api.post("/v1/queues/mail/resume")
    async with asyncio.timeout(1):
        assert ["mail:b"] == [job["id"] for job in await waiting]


async def test_many_wait_and_each_job_goes_to_one(api):
    waiting = [asyncio.create_task(api.lease(worker=f"w{n}", wait=5)) for n in range(20)]
    await asyncio.sleep(0.1)
    for n in range(20):
        await api.enqueue(f"k{n}")

    async with asyncio.timeout(4):
        given = await asyncio.gather(*waiting)

    assert sorted(f"mail:k{n}" for n in range(20)) == sorted(job["id"] for jobs in given for job in jobs)


async def test_when_the_time_is_over_there_is_nothing(api):
    await api.put("/v1/queues/mail", {})
    async with asyncio.timeout(1):
        assert [] == await api.lease(wait="200ms")
        assert [] == await api.lease()


async def test_an_unknown_queue_waits_as_an_empty_one_and_is_not_made(api):
    async with asyncio.timeout(1):
        assert [] == await api.lease("nowhere", wait=0.2)

    assert 404 == (await api.get("/v1/queues/nowhere")).status
    assert [] == [key async for key in api.redis.scan_iter(match="*nowhere*")]


# -- the same request again ------------------------------------------------------------------------------------


async def test_the_same_request_id_gives_the_same_jobs(api):
    for key in ("a", "b", "c"):
        await api.enqueue(key)
    first = await api.lease(max=2, request_id="1")
    again = await api.lease(max=2, request_id="1")
    other = await api.lease(max=2, request_id="0")

    assert first == again
    assert ["mail:c"] == [job["id"] for job in other]


async def test_of_the_same_request_only_those_whose_lease_stands(api):
    for key in ("a", "b"):
        await api.enqueue(key)
    first, second = await api.lease(max=2, request_id="r")
    await api.settle(ack=[held(first)])

    assert [second] == await api.lease(max=2, request_id="r")
    await api.settle(ack=[held(second)])
    async with asyncio.timeout(1):
        assert [] == await api.lease(max=2, wait=30, request_id="r"), (
            "answered before: there is nothing to wait for"
        )


async def test_a_request_that_found_nothing_may_be_repeated_and_then_finds(api):
    await api.put("/v1/queues/mail", {})
    assert [] == await api.lease(request_id="r")
    waiting = asyncio.create_task(api.lease(wait=30, request_id="r"))
    await asyncio.sleep(0.1)
    await api.enqueue()
    async with asyncio.timeout(1):
        [job] = await waiting

    assert [job] == await api.lease(request_id="r")


# -- nobody hears of it ----------------------------------------------------------------------------------------


async def test_who_hangs_up_while_waiting_takes_nothing(api):
    await api.put("/v1/queues/mail", {})
    _, writer = await begun(api, {"worker": "w", "wait": 30})
    await asyncio.sleep(0.1)
    writer.close()
    await asyncio.sleep(0.05)
    await api.enqueue()

    assert ["mail:a"] == [job["id"] for job in await api.lease(worker="other", wait=2)]


async def test_what_was_claimed_for_who_hung_up_is_released_at_once(serving, monkeypatch, said):
    api = await serving()
    await api.enqueue()
    claimed, run = asyncio.Event(), api.store.run

    async def slowly(call):
        reply = await run(call)
        if call.script == "claim":
            claimed.set()
            await asyncio.sleep(0.2)
        return reply

    monkeypatch.setattr(api.store, "run", slowly)
    _, writer = await begun(api, {"worker": "w"})
    await claimed.wait()
    writer.close()
    await asyncio.sleep(0)
    await lands(api)

    job = (await api.get("/v1/jobs/mail:a")).doc
    assert ("ready", 0) == (job["state"], job["attempt"]), "and no attempt was used"
    assert "" == said()


async def test_what_was_asked_for_again_is_not_given_back_for_the_first_request(serving, monkeypatch):
    """The caller hung up, and has repeated the request before what it gave went back: the jobs are his."""
    api = await serving()
    await api.enqueue()
    claimed, run = asyncio.Event(), api.store.run

    async def slowly(call):
        reply = await run(call)
        if call.script == "claim" and not claimed.is_set():
            claimed.set()
            await asyncio.sleep(0.3)
        return reply

    monkeypatch.setattr(api.store, "run", slowly)
    _, writer = await begun(api, {"worker": "w", "request_id": "1"})
    await claimed.wait()
    writer.close()
    [job] = await api.lease(request_id="1")
    await asyncio.sleep(0.5)

    now = (await api.get("/v1/jobs/mail:a")).doc
    assert ("running", job["token"]) == (now["state"], now["token"])


async def test_what_cannot_be_written_is_released(api, said):
    for n in range(20):
        await api.enqueue(f"k{n}", payload="x" * 1_000_000)
    _, writer = await begun(api, {"worker": "w", "max": 20})
    writer.transport.pause_reading()

    async def claimed():
        return (await api.get("/v1/queues/mail")).doc["counts"]["running"]

    await until(claimed)
    writer.transport.abort()  # the answer is larger than what the sockets hold, so it cannot have gone out

    await lands(api, count=20)
    assert "" == said()


async def test_a_lost_reply_of_a_claim_is_asked_for_again(serving, monkeypatch):
    api = await serving()
    await api.enqueue()
    losing = lose_replies(api, monkeypatch, times=1)

    assert ["mail:a"] == [job["id"] for job in await api.lease()]
    assert 0 == losing.left
    assert 1 == (await api.get("/v1/queues/mail")).doc["counts"]["running"]


async def test_what_a_lost_claim_gave_goes_back(serving, monkeypatch):
    api = await serving()
    await api.enqueue()
    with monkeypatch.context() as patch:
        lose_replies(api, patch, times=2)
        answer = await api.post("/v1/queues/mail/lease", {"worker": "w"})
        assert (503, "store_unavailable") == (answer.status, answer.code)

    await lands(api)
    assert 0 == (await api.get("/v1/jobs/mail:a")).doc["attempt"]


async def test_what_a_lost_claim_with_a_request_id_gave_waits_for_its_repeat(serving, monkeypatch):
    api = await serving()
    await api.enqueue()
    with monkeypatch.context() as patch:
        lose_replies(api, patch, times=2)
        assert 503 == (await api.post("/v1/queues/mail/lease", {"worker": "w", "request_id": "r"})).status
    await asyncio.sleep(0.7)

    assert "running" == (await api.get("/v1/jobs/mail:a")).doc["state"]
    assert ["mail:a"] == [job["id"] for job in await api.lease(request_id="r")]


class Losing:
    """Lets claims run and loses what they answer."""

    def __init__(self, send, times):
        self.send, self.left = send, times

    async def __call__(self, calls):
        replies = await self.send(calls)
        if self.left and calls[0].script == "claim":
            self.left -= 1
            raise exceptions.ConnectionError("Connection closed by server")
        return replies


def lose_replies(api, patch, times):
    losing = Losing(api.store._send, times)
    patch.setattr(api.store, "_send", losing)
    return losing


# -- damage, sweeps, limits ------------------------------------------------------------------------------------


@pytest.mark.unverified
async def test_a_damaged_job_is_dead_by_corrupt_and_nobody_gets_it(api):
    await api.enqueue("a", payload=[1, 2])
    await api.enqueue("b")
    jobs = Keys("scheduler", "mail").at("jobs")
    record = await api.redis.hget(jobs, "a")
    await api.redis.hset(jobs, "a", record.replace(b"[1,2]", b"[1,3]"))

    assert ["mail:b"] == [job["id"] for job in await api.lease(max=2)]
    await lands(api, "dead")
    job = (await api.get("/v1/jobs/mail:a")).doc
    assert ("dead", "corrupt") == (job["state"], job["reason"])


async def test_run_out_leases_are_swept_by_who_leases(serving):
    api = await serving(watchdog_interval_ms=600, lease_ms=1000)
    await api.enqueue()
    await api.lease(lease=1)

    # The first sweep of a queue lets live workers extend for a third of a lease and 1 s before it takes anything.
    jobs = await until(lambda: api.lease(worker="other"), within=15, every=0.1)

    assert (1, 2, "LeaseExpired") == (jobs[0]["crashes"], jobs[0]["attempt"], jobs[0]["errors"][0]["kind"])


@on_the_fake
@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"max": 0}, "/max"), ({"max": 501}, "/max"), ({"max": 1.5}, "/max"), ({"max": "1"}, "/max"), ({"max": 1e300}, "/max"),
        ({"wait": -1}, "/wait"), ({"wait": 61}, "/wait"), ({"wait": "60"}, "/wait"), ({"wait": "61s"}, "/wait"),
        ({"lease": 0.5}, "/lease"), ({"lease": 0}, "/lease"), ({"lease": "13h"}, "/lease"), ({"lease": True}, "/lease"),
        ({"worker": ""}, "/worker"), ({"worker": "a b"}, "/worker"), ({"worker": "x" * 129}, "/worker"),
        ({"worker": "a|b"}, "/worker"), ({"worker": "a\n"}, "/worker"), ({"worker": None}, "/worker"), ({"worker": 1}, "/worker"),
        ({"request_id": ""}, "/request_id"), ({"request_id": "a|b"}, "/request_id"), ({"request_id": 1}, "/request_id"),
        ({"types": []}, "/types"), ({"types": ["t"] * 101}, "/types"), ({"types": "send"}, "/types"), ({"types": ["a b"]}, "/types/0"),
        ({"types": ["send", 1]}, "/types/1"), ({"types": ["x" * 65]}, "/types/0"), ({"colour": 1}, "/colour"),
    ],
)  # fmt: skip
async def test_what_cannot_be_asked_for(api, fields, path):
    answer = await api.post("/v1/queues/mail/lease", {"worker": "w", **fields})

    assert (422, "validation", [path]) == (answer.status, answer.code, answer.paths)


@on_the_fake
@pytest.mark.parametrize(
    "name", ["a%7Db%7Bc", "x:lease", "*", "%0d%0a", "x" * 65, "..%2f", "%EF%BD%81", "a%00", "%20"]
)
@pytest.mark.parametrize("call", ["lease", "settle"])
async def test_a_queue_name_that_can_be_none_is_refused(api, name, call):
    answer = await api.post(f"/v1/queues/{name}/{call}", {"worker": "w"})

    assert (422, ["/queue"]) == (answer.status, answer.paths)
    assert [] == [key async for key in api.redis.scan_iter() if b"layout" not in key]


async def test_polls_end_when_the_server_does(clients):
    async with served(clients) as api:
        await api.enqueue()
        waiting = [
            asyncio.create_task(api.get("/v1/jobs/mail:a?wait=60")),
            asyncio.create_task(api.post("/v1/queues/other/lease", {"worker": "w", "wait": 60})),
        ]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(1):
            await api.stop()
            job, lease = await asyncio.gather(*waiting)

    assert (200, "ready") == (job.status, job.doc["state"])
    assert (200, []) == (lease.status, lease.doc["jobs"])


# -- types -----------------------------------------------------------------------------------------------------


async def test_a_worker_is_given_jobs_of_its_types_only(api):
    for key, kind in (("a", "send"), ("b", "render"), ("c", "other"), ("d", "render")):
        await api.enqueue(key, type=kind)

    assert ["mail:b", "mail:d"] == [
        job["id"] for job in await api.lease(max=5, types=["render", "print", "render"])
    ]
    assert [] == await api.lease(max=5, types=["print"])
    assert ["mail:a", "mail:c"] == [job["id"] for job in await api.lease(max=5)]

"""POST /v1/jobs: what comes in, what is refused, what stands afterwards."""

import asyncio

import msgspec
import pytest

from scheduler.settings import Settings
from scheduler.shown import JobShown
from tests.doors.conftest import on_valkey
from tests.helpers import on_the_fake

PAYLOADS = [
    b"{}",
    b"[]",
    b"[[]]",
    b"null",
    b'"x"',
    b"9223372036854775808",
    b"1e-320",
    b"1e400",
    b"-0.0",
    b"1" * 60,
    b'{"n": 123456789012345678901234567890, "b" : [ 1.10 , 2 ]}',
    b'"\\u0000"',
    '"é😀 שלום e\u0301\u0323"'.encode(),
    b'{"a":1,"a":2}',
    b"[" * 500 + b"]" * 500,
    b'"' + b"x" * (1024 * 1024 - 2) + b'"',
]


async def test_a_job_comes_in_and_can_be_read(api):
    made = await api.post(
        "/v1/jobs", {"type": "email.send", "queue": "email", "payload": {"to": "a@example.org"}}
    )

    assert 201 == made.status
    assert f"/v1/jobs/{made.doc['id']}" == made.headers["Location"]
    assert made.doc["id"].startswith("email:")
    assert ("ready", 0, 20, 3600) == tuple(
        made.doc[n] for n in ("state", "attempt", "max_attempts", "timeout")
    )
    read = await api.get(made.headers["Location"])
    assert (200, made.doc) == (read.status, read.doc)
    msgspec.convert(read.doc, JobShown)


async def test_the_type_alone_is_enough(api):
    made = (await api.post("/v1/jobs", {"type": "t"})).doc

    assert ("default", {}, [], 0) == (made["queue"], made["payload"], made["tags"], made["priority"])


async def test_every_field_comes_back(api):
    made = await api.enqueue(
        priority=3.0, group="g", tags=["x", "y.z"], timeout="90s", delay="1h", retention="2d",
        retry={"max_attempts": 7.0, "base": "1m"},
    )  # fmt: skip

    assert (3, "g", ["x", "y.z"], 90, "scheduled", 7) == tuple(
        made[n] for n in ("priority", "group", "tags", "timeout", "state", "max_attempts")
    )
    assert made["run_at"] > made["created_at"]
    assert made == (await api.get("/v1/jobs/mail:a")).doc


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda p: p[:20].decode(errors="replace"))
async def test_a_payload_comes_back_byte_for_byte(api, payload):
    made = await api.post("/v1/jobs", b'{"type": "t", "id": "a", "payload": ' + payload + b"}")

    assert 201 == made.status, made.raw[:300]
    assert b'"payload":' + payload + b',"priority"' in made.raw
    assert b'"payload":' + payload + b',"priority"' in (await api.get("/v1/jobs/default:a")).raw
    leased = await api.post("/v1/queues/default/lease", {"worker": "w"})
    assert b'"payload":' + payload + b',"priority"' in leased.raw


async def test_the_same_request_again_finds_the_standing_job(api):
    first = await api.enqueue("k", payload={"n": 1})

    again = await api.post("/v1/jobs", {"type": "send", "queue": "mail", "id": "k", "payload": {"n": 1}})

    assert (200, {**first, "duplicate": True}) == (again.status, again.doc)


async def test_the_whole_id_is_the_same_as_its_key(api):
    await api.enqueue("k")

    again = await api.post("/v1/jobs", {"type": "send", "queue": "mail", "id": "mail:k"})

    assert (200, True) == (again.status, again.doc["duplicate"])


async def test_an_ended_id_that_is_known_is_a_duplicate_though_its_payload_is_gone(api):
    job = await api.running("k", retention=0, payload=[1])
    await api.settle(ack=[{"id": job["id"], "token": job["token"], "result": 7}])

    again = await api.post(
        "/v1/jobs", {"type": "send", "queue": "mail", "id": "k", "retention": 0, "payload": [1]}
    )

    assert (200, "succeeded", None) == (again.status, again.doc["state"], again.doc["payload"])


async def test_another_request_with_the_id_is_refused_and_the_first_stays(api):
    first = await api.enqueue("k", payload=1)

    other = await api.post("/v1/jobs", {"type": "send", "queue": "mail", "id": "k", "payload": 2})

    assert (409, "duplicate") == (other.status, other.code)
    assert first == (await api.get("/v1/jobs/mail:k")).doc


async def test_two_clients_with_the_same_ids_make_each_job_once(api):
    async def all_of_them():
        return [await api.post("/v1/jobs", {"type": "t", "id": f"k{n}"}) for n in range(50)]

    answers = await asyncio.gather(all_of_them(), all_of_them())

    assert [201] * 50 == sorted(a.status for some in answers for a in some)[50:]
    assert 50 == (await api.get("/v1/queues/default")).doc["counts"]["ready"]


async def test_what_is_in_force_for_the_type_is_shown(api):
    await api.put("/v1/queues/mail/types/send", {"retry": {"max_attempts": 2}, "timeout": "5m"})

    made = await api.enqueue()

    assert (2, 300) == (made["max_attempts"], made["timeout"])
    own = await api.enqueue("b", timeout=7, retry={"max_attempts": 9})
    assert (9, 7) == (own["max_attempts"], own["timeout"])


async def test_a_past_time_is_now_and_a_coming_one_waits(api):
    past = await api.enqueue("a", run_at="1969-07-20T20:17:40+01:00")
    coming = await api.enqueue("b", delay=1)

    assert ("ready", None) == (past["state"], past["run_at"])
    assert "scheduled" == coming["state"]


BAD_NAMES = [
    "",
    "x" * 65,
    "a}b{c",
    "x:lease",
    "*",
    "\r\n",
    "..",
    ".a",
    "-a",
    "a b",
    "ａｂ",
    "a\0",
    "é",
    "a\n",
]
BAD_KEYS = ["", "x" * 129, "a}b", "a b", "\n", "a\n", "é", "a/b", "a\0"]
BAD_WHOLES = [0, -1, 1.5, 1e9, 1001, "3", True, [], 1e300]
BAD_TIMES = [
    "2030-01-01T00:00:00",
    "2030-02-30T00:00:00Z",
    "tomorrow",
    "2030-01-01",
    5,
    "9999-01-01T00:00:00Z",
    "",
]


def _cases():
    for name in BAD_NAMES:
        yield {"type": name}, "/type"
        yield {"queue": name}, "/queue"
    for key in BAD_KEYS:
        yield {"id": key}, "/id"
        yield {"group": key}, "/group"
        yield {"tags": ["ok", key]}, "/tags/1"
    for value in BAD_WHOLES:
        yield {"retry": {"max_attempts": value}}, "/retry/max_attempts"
    for value in BAD_TIMES:
        yield {"run_at": value}, "/run_at"
    for value in [-1, "5", "5 m", "1y", "-5s", True, "", [], {}, 1e300, "1000d1"]:
        yield {"delay": value}, "/delay"
        yield {"timeout": value}, "/timeout"
        yield {"retention": value}, "/retention"
    yield from [
        ({"delay": "3653d"}, "/delay"), ({"timeout": 0}, "/timeout"), ({"timeout": "7.1d"}, "/timeout"),
        ({"retention": "4000d"}, "/retention"), ({"delay": 1, "run_at": "2030-01-01T00:00:00Z"}, "/run_at"),
        ({"priority": 101}, "/priority"), ({"priority": -101}, "/priority"), ({"priority": 0.5}, "/priority"),
        ({"priority": "0"}, "/priority"), ({"priority": True}, "/priority"), ({"priority": None}, "/priority"),
        ({"priority": 1e300}, "/priority"), ({"tags": ["t"] * 33}, "/tags"), ({"tags": "t"}, "/tags"),
        ({"tags": [1]}, "/tags/0"), ({"type": 3}, "/type"), ({"type": None}, "/type"), ({"queue": None}, "/queue"),
        ({"id": "other:k"}, "/id"), ({"id": "default:"}, "/id"), ({"id": 7}, "/id"), ({"group": []}, "/group"),
        ({"retry": {"immediate": -1}}, "/retry/immediate"), ({"retry": {"jitter": 1.1}}, "/retry/jitter"),
        ({"retry": {"base": "8d"}}, "/retry/base"), ({"retry": {"factor": 0.5}}, "/retry/factor"),
        ({"retry": {"max_delay": -1}}, "/retry/max_delay"), ({"retry": {"non_retryable": [1]}}, "/retry/non_retryable/0"),
        ({"retry": {"max_crashes": 0}}, "/retry/max_crashes"), ({"retry": {"attempts": 1}}, "/retry/attempts"),
        ({"retry": []}, "/retry"), ({"colour": "red"}, "/colour"), ({"a/b~": 1}, "/a~1b~0"),
        ({"deadline": 0}, "/deadline"), ({"expires_in": 0}, "/expires_in"),
        ({"deadline": "soon"}, "/deadline"), ({"deadline": "2020-01-01T00:00:00Z"}, "/deadline"),
        ({"deadline": "2999-01-01T00:00:00Z"}, "/deadline"), ({"deadline": "2027-01-01T00:00:00"}, "/deadline"),
        ({"deadline": "4000d"}, "/deadline"), ({"expires_in": "4000d"}, "/expires_in"), ({"deadline": []}, "/deadline"),
        ({"expires_in": "2027-01-01T00:00:00Z"}, "/expires_in"),
        ({"cost": 0}, "/cost"), ({"cost": 1001}, "/cost"), ({"cost": 1.5}, "/cost"), ({"cost": "2"}, "/cost"),
        ({"cost": None}, "/cost"), ({"state": "ready"}, "/state"),
    ]  # fmt: skip


@on_the_fake
@pytest.mark.parametrize(("fields", "path"), list(_cases()), ids=lambda value: str(value)[:60])
async def test_what_cannot_be_taken_is_named_and_nothing_is_made(api, fields, path):
    answer = await api.post("/v1/jobs", {"type": "t", **fields})

    assert (422, "validation") == (answer.status, answer.code), answer.raw
    assert path in answer.paths
    assert [] == [key async for key in api.redis.scan_iter() if b"layout" not in key]


@on_the_fake
@pytest.mark.parametrize(
    ("body", "path"), [({}, "/type"), ([], ""), ("x", ""), (3, ""), ([{"type": "t"}], "")]
)
async def test_what_is_no_job_at_all(api, body, path):
    answer = await api.post("/v1/jobs", body)

    assert (422, [path]) == (answer.status, answer.paths)


@on_the_fake
async def test_all_that_is_wrong_is_said_at_once(api):
    answer = await api.post("/v1/jobs", {"type": "a b", "queue": "c d", "delay": "x", "priority": 0.5})

    assert {"/type", "/queue", "/delay", "/priority"} == set(answer.paths)


@pytest.mark.parametrize("char", ["x", "é"])
async def test_the_payload_has_a_limit_to_the_byte(serving, char):
    api = await serving(max_payload=1000)
    fits = '"' + char * (998 // len(char.encode())) + '"'

    at_it = await api.post("/v1/jobs", f'{{"type":"t","id":"a","payload":{fits}}}'.encode())
    over = await api.post("/v1/jobs", f'{{"type":"t","id":"b","payload":{fits[:-1]}y"}}'.encode())

    assert (201, 413, "too_large") == (at_it.status, over.status, over.code)
    assert 404 == (await api.get("/v1/jobs/default:b")).status


@on_valkey
async def test_a_full_store_refuses_new_jobs_and_says_so(api):
    await api.enqueue("a")
    await api.redis.config_set("maxmemory", "1")
    try:
        refused = await api.post("/v1/jobs", {"type": "t", "queue": "mail", "id": "b"})
        [job] = await api.lease()
        [done] = await api.settle(ack=[{"id": job["id"], "token": job["token"], "result": 1}])
    finally:
        await api.redis.config_set("maxmemory", "0")

    assert (507, "store_full") == (refused.status, refused.code)
    assert "10" == refused.headers["Retry-After"]
    assert {"id": "mail:a", "ok": True, "state": "succeeded"} == done
    assert 404 == (await api.get("/v1/jobs/mail:b")).status


async def test_an_unknown_outcome_names_the_id_to_repeat(serving, monkeypatch):
    from redis import exceptions  # noqa: PLC0415  # beside its only use

    api = await serving()
    await api.enqueue("before")
    commands = api.store.clients.commands
    pipeline = commands.pipeline

    def losing(*args, **kwargs):
        pipe = pipeline(*args, **kwargs)
        execute = pipe.execute

        async def execute_and_lose(**options):
            await execute(**options)
            raise exceptions.ConnectionError("Connection closed by server")

        pipe.execute = execute_and_lose
        return pipe

    with monkeypatch.context() as patch:
        patch.setattr(commands, "pipeline", losing)
        lost = await api.post("/v1/jobs", {"type": "t", "queue": "mail", "payload": 1})

    assert (503, "store_unavailable") == (lost.status, lost.code)
    assert lost.headers["Retry-After"].isdigit()
    again = await api.post("/v1/jobs", {"type": "t", "queue": "mail", "payload": 1, "id": lost.doc["id"]})
    assert (200, lost.doc["id"], True) == (again.status, again.doc["id"], again.doc["duplicate"])


def test_the_defaults_of_the_contract():
    assert (1024 * 1024, 1024 * 1024) == (Settings().max_payload, Settings().max_result)

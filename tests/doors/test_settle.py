"""POST /v1/queues/{queue}/settle: every item is answered for itself."""

import pytest

from tests.doors.conftest import held, on_valkey
from tests.helpers import on_the_fake

ERROR = {"kind": "Boom", "message": "no"}


async def running(api, *keys, **fields):
    for key in keys:
        await api.enqueue(key, **fields)
    return {job["id"][5:]: held(job) for job in await api.lease(max=len(keys))}


async def state(api, key):
    return (await api.get(f"/v1/jobs/mail:{key}")).doc["state"]


async def test_items_are_answered_in_the_order_of_the_contract(api):
    job = await running(api, "a", "b", "c", "d", "e", retry={"immediate": 0})
    items = await api.settle(
        extend=[job["e"]],
        release=[job["d"]],
        nack=[{**job["b"], "error": ERROR, "permanent": True}, {**job["c"], "error": ERROR}],
        ack=[{**job["a"], "result": [1]}],
    )

    assert [
        {"id": "mail:a", "ok": True, "state": "succeeded"},
        {"id": "mail:b", "ok": True, "state": "dead"},
        {"id": "mail:c", "ok": True, "state": "retrying"},
        {"id": "mail:d", "ok": True, "state": "ready"},
        {"id": "mail:e", "ok": True, "state": "running"},
    ] == items
    assert [item["state"] for item in items] == [await state(api, key) for key in "abcde"]


async def test_a_settlement_repeated_with_its_token_is_ok_again(api):
    job = await running(api, "a", "b", "c", "d")
    said = {
        "ack": [{**job["a"], "result": 1}],
        "nack": [
            {**job["b"], "error": ERROR, "retry_in": 60},
            {**job["c"], "error": ERROR, "permanent": True},
        ],
        "release": [{**job["d"], "delay": 60}],
    }
    first = await api.settle(**said)
    before = [(await api.get(f"/v1/jobs/mail:{key}")).doc for key in "abcd"]

    assert first == await api.settle(**said)
    assert before == [(await api.get(f"/v1/jobs/mail:{key}")).doc for key in "abcd"]


async def test_who_lost_the_lease_is_told_and_changes_nothing(api):
    job = await running(api, "a")
    stale = {**job["a"], "token": job["a"]["token"] - 1}
    before = (await api.get("/v1/jobs/mail:a")).doc
    items = await api.settle(
        ack=[{**stale, "result": 1}],
        nack=[{**stale, "error": ERROR}, {**stale, "error": ERROR, "permanent": True}],
        release=[stale],
        extend=[{**stale, "lease": 3600, "progress": 5, "log": ["x"]}],
    )

    assert [{"id": "mail:a", "ok": False, "code": "stale_lease"}] * 5 == items
    assert before == (await api.get("/v1/jobs/mail:a")).doc


async def test_what_is_not_there_is_not_found_each_for_itself(api):
    job = await running(api, "a")
    gone = {"id": "mail:gone", "token": 1}
    other = {"id": "other:a", "token": job["a"]["token"]}
    items = await api.settle(
        ack=[gone, other, job["a"], {"id": "mail:a b", "token": 1}],
        nack=[{**gone, "error": ERROR}],
        release=[gone, {"id": "", "token": 0}],
        extend=[{**gone, "progress": 1}],
    )

    assert [
        "not_found",
        "not_found",
        "succeeded",
        "not_found",
        "not_found",
        "not_found",
        "not_found",
        "not_found",
    ] == [item.get("code") or item["state"] for item in items]


async def test_an_unknown_queue_is_not_made_and_its_items_are_not_found(api):
    items = await api.settle(
        "nowhere", ack=[{"id": "nowhere:a", "token": 1}], extend=[{"id": "nowhere:a", "token": 1}]
    )

    assert ["not_found", "not_found"] == [item["code"] for item in items]
    assert 404 == (await api.get("/v1/queues/nowhere")).status
    assert [] == [key async for key in api.redis.scan_iter(match="*nowhere*")]


async def test_nothing_to_settle_is_fine(api):
    assert [] == await api.settle()
    assert [] == await api.settle(ack=[], nack=[])


async def test_a_result_that_is_too_large_refuses_that_ack_alone(serving):
    api = await serving(max_result=100)
    job = await running(api, "a", "b", "c")
    items = await api.settle(
        ack=[
            {**job["a"], "result": "x" * 98},
            {**job["b"], "result": "x" * 99},
            {**job["c"], "result": "é" * 50},
        ]
    )

    assert [
        {"id": "mail:a", "ok": True, "state": "succeeded"},
        {"id": "mail:b", "ok": False, "code": "too_large"},
        {"id": "mail:c", "ok": False, "code": "too_large"},
    ] == items
    assert ["running", "running"] == [await state(api, key) for key in "bc"], "the lease goes on"


@pytest.mark.parametrize(
    "result", [b"null", b"{}", b"[]", b"9223372036854775808", b"1e400", b'{"a" : 1.0}', b'"\\u0000"']
)
async def test_a_result_comes_back_byte_for_byte(api, result):
    job = (await running(api, "a"))["a"]
    body = b'{"worker":"w","ack":[{"id":"mail:a","token":%d,"result":%s}]}' % (job["token"], result)
    answer = await api.post("/v1/queues/mail/settle", body)

    assert 200 == answer.status, answer.raw
    assert b'"result":' + result + b',"errors"' in (await api.get("/v1/jobs/mail:a")).raw


async def test_a_failure_is_told_in_full(api):
    job = (await running(api, "a"))["a"]
    error = {"kind": "Über", "message": "a\nb\0c \x1b[31m", "trace": "line\n" * 3}
    await api.settle(nack=[{**job, "error": error, "retry_in": "90s"}])
    shown = (await api.get("/v1/jobs/mail:a")).doc

    assert "retrying" == shown["state"]
    assert [{**error, "attempt": 1, "next": "retry in 90.0 s"}] == [
        {name: value for name, value in told.items() if name != "at"} for told in shown["errors"]
    ]


async def test_long_texts_are_cut_and_the_job_goes_on(api):
    job = (await running(api, "a"))["a"]
    await api.settle(
        nack=[{**job, "error": {"kind": "k", "message": "x" * 1_000_000, "trace": "é" * 100_000}}]
    )
    [told] = (await api.get("/v1/jobs/mail:a")).doc["errors"]

    for text in (told["message"], told["trace"]):
        assert len(text.encode()) <= 65_536
        assert "cut" in text[-30:]


async def test_progress_is_kept_and_the_lease_is_longer(api):
    job = (await running(api, "a"))["a"]
    before = (await api.get("/v1/jobs/mail:a")).doc
    body = b'{"worker":"w","extend":[{"id":"mail:a","token":%d,"lease":"1h","progress":{"done": 1.50},"log":["a","b\\n"]}]}'
    answer = await api.post("/v1/queues/mail/settle", body % job["token"])
    after = await api.get("/v1/jobs/mail:a")

    assert [{"id": "mail:a", "ok": True, "state": "running"}] == answer.doc["items"]
    assert before["lease_expires_at"] < after.doc["lease_expires_at"]
    assert b'"progress":{"done": 1.50}' in after.raw


@on_valkey
async def test_a_full_store_keeps_the_lease_and_says_what_it_did_not_keep(api):
    job = (await running(api, "a"))["a"]
    await api.redis.config_set("maxmemory", "1")
    try:
        [item] = await api.settle(extend=[{**job, "progress": 1}])
    finally:
        await api.redis.config_set("maxmemory", "0")

    assert {"id": "mail:a", "ok": True, "state": "running", "code": "store_full"} == item


async def test_five_hundred_items_of_some_size_in_one_call(api):
    keys = [f"k{n}" for n in range(500)]
    for key in keys:
        await api.enqueue(key)
    jobs = await api.lease(max=500)
    items = await api.settle(ack=[{**held(job), "result": "x" * 20_000} for job in jobs])

    assert [job["id"] for job in jobs] == [item["id"] for item in items]
    assert {"succeeded"} == {item["state"] for item in items}


def _cases():
    item = {"id": "mail:a", "token": 1}
    for verb, extra in (("ack", {}), ("nack", {"error": ERROR}), ("release", {}), ("extend", {})):
        for token in (-1, 1.5, 2**53, "1", None, True):
            yield {verb: [{**item, **extra, "token": token}]}, f"/{verb}/0/token"
        yield {verb: [{**item, **extra}, {**item, **extra, "colour": 1}]}, f"/{verb}/1/colour"
        yield {verb: [{**extra, "token": 1}]}, f"/{verb}/0/id"
        yield {verb: {}}, f"/{verb}"
        yield {verb: [3]}, f"/{verb}/0"
        yield {verb: [{**item, **extra}] * 501}, ""
    yield from [
        ({"nack": [item]}, "/nack/0/error"), ({"nack": [{**item, "error": {"kind": "k"}}]}, "/nack/0/error/message"),
        ({"nack": [{**item, "error": {"kind": "", "message": ""}}]}, "/nack/0/error/kind"),
        ({"nack": [{**item, "error": {"kind": "k" * 201, "message": ""}}]}, "/nack/0/error/kind"),
        ({"nack": [{**item, "error": ERROR, "retry_in": -1}]}, "/nack/0/retry_in"),
        ({"nack": [{**item, "error": ERROR, "retry_in": "8d"}]}, "/nack/0/retry_in"),
        ({"nack": [{**item, "error": ERROR, "permanent": 1}]}, "/nack/0/permanent"),
        ({"release": [{**item, "delay": -1}]}, "/release/0/delay"), ({"release": [{**item, "delay": "3653d"}]}, "/release/0/delay"),
        ({"extend": [{**item, "lease": 0.9}]}, "/extend/0/lease"), ({"extend": [{**item, "lease": "13h"}]}, "/extend/0/lease"),
        ({"extend": [{**item, "progress": "x" * 70_000}]}, "/extend/0/progress"),
        ({"extend": [{**item, "log": "text"}]}, "/extend/0/log"), ({"extend": [{**item, "log": [1]}]}, "/extend/0/log/0"),
        ({"extend": [{**item, "log": ["x"] * 1001}]}, "/extend/0/log"),
        ({"extend": [{**item, "log": ["x"] * 1000}] * 11}, "/extend"),
        ({"worker": "a b"}, "/worker"), ({"worker": None}, "/worker"), ({"bury": []}, "/bury"),
    ]  # fmt: skip


@on_the_fake
@pytest.mark.parametrize(("fields", "path"), list(_cases()), ids=lambda value: str(value)[:60])
async def test_what_cannot_be_taken_is_named_and_nothing_is_settled(api, fields, path):
    answer = await api.post("/v1/queues/mail/settle", {"worker": "w", **fields})

    assert (422, "validation", [path]) == (answer.status, answer.code, answer.paths), answer.raw


@on_the_fake
async def test_one_bad_field_settles_none(api):
    job = await running(api, "a", "b")
    answer = await api.post(
        "/v1/queues/mail/settle", {"worker": "w", "ack": [job["a"]], "release": [{**job["b"], "delay": -1}]}
    )

    assert 422 == answer.status
    assert ["running", "running"] == [await state(api, key) for key in "ab"]


@on_the_fake
async def test_a_settlement_may_be_as_large_as_32_mib(api):
    job = (await running(api, "a"))["a"]
    body = b'{"worker":"w","ack":[{"id":"mail:a","token":%d}]}' % job["token"]
    most = 32 * 1024 * 1024
    over = await api.post("/v1/queues/mail/settle", body + b" " * (most + 1 - len(body)))
    fits = await api.post("/v1/queues/mail/settle", body + b" " * (most - len(body)))

    assert (413, "too_large", 200) == (over.status, over.code, fits.status)


async def test_a_checkpoint_is_there_for_the_next_attempt(api):
    job = await api.running("a", retry={"immediate": 1})
    assert "checkpoint" not in job
    [item] = await api.settle(extend=[{**held(job), "checkpoint": {"page": 7}}])
    assert item["ok"]
    await api.settle(nack=[{**held(job), "error": {"kind": "Boom", "message": "no"}}])
    [again] = await api.lease()

    assert {"page": 7} == again["checkpoint"]


async def test_a_log_line_that_is_told_twice_under_its_number_stands_once(api):
    job = await api.running()
    for first, told in ((1, ["a", "b"]), (1, ["a", "b"]), (2, ["b", "c"])):
        await api.settle(extend=[{**held(job), "log": told, "log_from": first}])
    await api.settle(extend=[{**held(job), "log": ["d"]}, {**held(job), "log": ["d"]}])

    found = (await api.get("/v1/jobs/mail:a/log")).doc["items"]
    assert ["a", "b", "c", "d", "d"] == [item["line"] for item in found]


async def test_a_release_says_why(api):
    job = await api.running()
    [item] = await api.settle(release=[{**held(job), "delay": 60, "why": "snooze"}])
    assert (True, "scheduled") == (item["ok"], item["state"])
    assert 1 == (await api.get("/v1/jobs/mail:a")).doc["snoozes"]

    other = await api.running("b")
    [item] = await api.settle(release=[{**held(other), "why": "no_handler"}])
    assert (True, "scheduled") == (item["ok"], item["state"])


async def test_a_payload_that_fits_no_handler_is_dead_by_that(api):
    job = await api.running()
    error = {"kind": "BadPayload", "message": "no field x"}
    await api.settle(nack=[{**held(job), "error": error, "permanent": True, "reason": "bad_payload"}])

    ended = (await api.get("/v1/jobs/mail:a")).doc
    assert ("dead", "bad_payload") == (ended["state"], ended["reason"])


async def test_failures_and_deaths_are_lines_of_the_log(api, caplog):
    caplog.set_level("INFO", "scheduler")
    job = await running(api, "a", "b", "c", retry={"immediate": 0})
    stale = {**job["c"], "token": job["c"]["token"] - 1}
    error = {"kind": "Boom", "message": "no" * 1_000}
    await api.settle(
        nack=[
            {**job["a"], "error": error, "permanent": True},
            {**job["b"], "error": ERROR},
            {**stale, "error": ERROR},
        ],
        ack=[job["c"]],
    )

    lines = [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "scheduler.api.settle"]
    assert ["INFO", "ERROR"] == [level for level, _ in lines]
    assert lines[0][1].startswith("an attempt failed job=mail:b worker=")
    assert lines[0][1].endswith("kind=Boom message=no next=retrying")
    assert lines[1][1].startswith("a job is dead job=mail:a worker=")
    assert lines[1][1].endswith("message=" + "no" * 250)

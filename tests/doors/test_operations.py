"""Operations over many jobs: the dead-letter queue replayed and purged, queues purged and obliterated."""

import asyncio

import msgspec
import pytest

from scheduler.errors import StoreUnavailable
from scheduler.shown import GroupsShown, OperationShown, OperationsShown
from tests.doors.conftest import held, on_valkey, until

DLQ = "/v1/queues/mail/dlq"


async def dead(api, count, queue="mail", kind="Boom", message="no {n}", prefix="d"):
    """So many dead letters."""
    jobs = [{"type": "send", "queue": queue, "id": f"{prefix}{n}", "payload": {"n": n}} for n in range(count)]
    assert 200 == (await api.post("/v1/jobs/bulk", jobs)).status
    left = count
    while left:
        leased = await api.lease(queue, max=min(500, left))
        nack = [
            {**held(job), "permanent": True, "error": {"kind": kind, "message": message.format(n=n)}}
            for n, job in enumerate(leased)
        ]
        await api.settle(queue, nack=nack)
        left -= len(leased)


async def act(api, path, body=None, status=200):
    answer = await api.post(path, body)
    assert status == answer.status, answer.raw
    msgspec.convert(answer.doc, OperationShown)
    return answer


async def ended(api, operation):
    """The operation when it has ended."""

    async def look():
        answer = await api.get(f"/v1/operations/{operation['id']}")
        return answer.doc if answer.doc["state"] != "running" else None

    return await until(look, within=15)


async def state(api, key):
    answer = await api.get(f"/v1/jobs/mail:{key}")
    return answer.doc["state"] if answer.status == 200 else None


async def count(api, name, queue="mail"):
    return (await api.get(f"/v1/queues/{queue}")).doc["counts"][name]


# -- groups ---------------------------------------------------------------------------------------------------


async def test_dead_letters_by_fingerprint(api):
    await dead(api, 3, message="job {n} failed")
    await dead(api, 2, kind="Bang", prefix="e")

    answer = await api.get(f"{DLQ}?by=fingerprint")

    msgspec.convert(answer.doc, GroupsShown)
    found = {item["kind"]: item for item in answer.doc["items"]}
    assert (3, "send") == (found["Boom"]["count"], found["Boom"]["type"])
    assert "job 2 failed" in {found["Boom"]["message"], "job 2 failed"}
    assert {"Boom", "Bang"} == set(found)
    listed = await api.get(f"{DLQ}?fingerprint={found['Boom']['fingerprint']}")
    assert 3 == len(listed.doc["items"])
    assert ["Bang"] == [i["kind"] for i in (await api.get(f"{DLQ}?by=fingerprint&kind=Bang")).doc["items"]]


async def test_groups_by_pages(api):
    for n in range(5):
        await dead(api, 1, kind=f"K{'abcde'[n]}", prefix=f"x{n}")
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await api.get(f"{DLQ}?by=fingerprint&limit=2{cursor and f'&cursor={cursor}'}")).doc
        found += [item["kind"] for item in page["items"]]
        cursor = page["next_cursor"]

    assert ["Ka", "Kb", "Kc", "Kd", "Ke"] == sorted(found)


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("by=kind", "/by"),
        ("by=", "/by"),
        ("by=fingerprint&before=2026-01-01T00:00:00Z", "/before"),
        ("by=fingerprint&include=payload", "/include"),
        ("by=fingerprint&cursor=x", "/cursor"),
        ("by=fingerprint&limit=0", "/limit"),
        ("by=fingerprint&by=fingerprint", "/by"),
    ],
)
async def test_what_groups_do_not_take_is_refused_by_name(api, query, path):
    await api.enqueue()
    answer = await api.get(f"{DLQ}?{query}")

    assert (422, "validation", [path]) == (answer.status, answer.code, answer.paths)


# -- replay and purge of dead letters -------------------------------------------------------------------------


async def test_replay_of_a_few_is_done_when_it_answers(api):
    await dead(api, 5)

    operation = (await act(api, f"{DLQ}/replay")).doc

    assert ("done", "replay", 5, 5, 0, None) == tuple(
        operation[name] for name in ("state", "act", "matched", "done", "failed", "error")
    )
    assert [0, 5] == [await count(api, "dead"), await count(api, "ready")]


async def test_replay_of_many_goes_on_behind_the_answer(api):
    await dead(api, 1_300)

    answer = await act(api, f"{DLQ}/replay", {}, status=202)

    assert f"/v1/operations/{answer.doc['id']}" == answer.headers["Location"]
    assert 1_300 == (await ended(api, answer.doc))["done"]
    assert 0 == await count(api, "dead")


async def test_a_store_that_is_lost_after_the_beginning_is_told_as_an_operation_that_goes_on(
    api, monkeypatch
):
    await dead(api, 3)

    async def away(*_args, **_more):
        raise StoreUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(api.store, "replay", away)
        answer = await act(api, f"{DLQ}/replay", status=202)

    assert ("done", 3) == ((now := await ended(api, answer.doc))["state"], now["done"])


async def test_two_replays_at_once_replay_once(api):
    await dead(api, 400)

    both = await asyncio.gather(act(api, f"{DLQ}/replay"), act(api, f"{DLQ}/replay"))

    assert 400 == sum(answer.doc["done"] for answer in both)
    assert [0, 400] == [await count(api, "dead"), await count(api, "ready")]


async def test_replay_by_ids_whole_or_keys(api):
    await dead(api, 3)

    operation = (await act(api, f"{DLQ}/replay", {"ids": ["mail:d0", "d2", "d2", "missing"]})).doc

    assert (3, 2, 1) == (operation["matched"], operation["done"], operation["failed"])
    assert ["ready", "dead", "ready"] == [await state(api, f"d{n}") for n in range(3)]


async def test_replay_with_filters_limit_and_dry_run(api):
    await dead(api, 4)
    await dead(api, 3, kind="Bang", prefix="e")

    operation = (await act(api, f"{DLQ}/replay", {"kind": "Bang", "dry_run": True})).doc
    assert (3, 0, 0, True, {"state": "dead", "kind": "Bang"}) == (
        operation["matched"], operation["done"], operation["failed"], operation["dry_run"], operation["filter"],
    )  # fmt: skip
    assert 7 == await count(api, "dead")
    assert 2 == (await act(api, f"{DLQ}/replay", {"type": "send", "limit": 2})).doc["done"]
    assert 5 == await count(api, "dead")


async def test_replay_repairs_payloads_and_keeps_the_former_ones(api):
    await dead(api, 2)

    await act(api, f"{DLQ}/replay", {"payload_patch": {"to": "ada", "n": None}})

    job = (await api.get("/v1/jobs/mail:d1")).doc
    assert ({"to": "ada"}, [{"n": 1}]) == (job["payload"], [edit["payload"] for edit in job["edits"]])


async def test_a_patch_over_several_lines(api):
    await dead(api, 1)

    answer = await api.post(f"{DLQ}/replay", b'{"payload_patch": {\n  "to": "new"\n}}')

    assert (200, 1) == (answer.status, answer.doc["done"])
    assert {"n": 0, "to": "new"} == (await api.get("/v1/jobs/mail:d0")).doc["payload"]


async def test_an_operation_into_the_queue_where_they_are_replays_them_there(api):
    await dead(api, 2)

    answer = await act(api, "/v1/operations", {"act": "replay", "queue": "mail", "into": "mail"}, status=202)

    assert ("done", 2) == ((now := await ended(api, answer.doc))["state"], now["done"])
    assert ["ready", "ready"] == [await state(api, key) for key in ("d0", "d1")]


async def test_replay_into_another_queue(api):
    await dead(api, 2)

    assert 2 == (await act(api, f"{DLQ}/replay", {"queue": "repair"})).doc["done"]

    job = (await api.get("/v1/jobs/repair:d1")).doc
    assert ("ready", "mail:d1", {"n": 1}) == (job["state"], job["copied_from"], job["payload"])
    assert 404 == (await api.get("/v1/jobs/mail:d1")).status


async def test_replay_at_a_rate_goes_on_behind_the_answer(api):
    await dead(api, 6)

    operation = (await act(api, f"{DLQ}/replay", {"rate": {"limit": 20, "per": 1}}, status=202)).doc

    assert "running" == operation["state"]
    assert 6 == (await ended(api, operation))["done"]


async def test_purge_of_dead_letters(api):
    await dead(api, 4)
    await dead(api, 3, kind="Bang", prefix="e")
    [group] = [
        item for item in (await api.get(f"{DLQ}?by=fingerprint")).doc["items"] if item["kind"] == "Boom"
    ]

    assert 4 == (await act(api, f"{DLQ}/purge", {"fingerprint": group["fingerprint"]})).doc["done"]
    assert 1 == (await act(api, f"{DLQ}/purge", {"ids": ["e1"]})).doc["done"]
    assert 2 == (await act(api, f"{DLQ}/purge")).doc["done"]
    assert ([], 0) == ((await api.get(f"{DLQ}?by=fingerprint")).doc["items"], await count(api, "dead"))


BAD = [
    ({"limit": 0}, "/limit"),
    ({"limit": 1.5}, "/limit"),
    ({"limit": "3"}, "/limit"),
    ({"ids": []}, "/ids"),
    ({"ids": ["a b"]}, "/ids/0"),
    ({"ids": ["a", "other:a"]}, "/ids/1"),
    ({"ids": ["x"] * 1001}, "/ids"),
    ({"ids": ["a"], "kind": "Boom"}, "/ids"),
    ({"type": "a b"}, "/type"),
    ({"fingerprint": "xyz"}, "/fingerprint"),
    ({"before": "yesterday"}, "/before"),
    ({"before": "2026-01-01T00:00:00"}, "/before"),
    ({"dry_run": "yes"}, "/dry_run"),
    ({"colour": "red"}, "/colour"),
]
BAD_REPLAY = [
    ({"rate": "fast"}, "/rate"),
    ({"rate": "0/s"}, "/rate"),
    ({"rate": {"limit": 1}}, "/rate/per"),
    ({"stop_after_failures": 0}, "/stop_after_failures"),
    ({"stop_after_failures": 501}, "/stop_after_failures"),
    ({"queue": "a b"}, "/queue"),
]


@pytest.mark.parametrize(("body", "path"), BAD)
async def test_what_a_purge_does_not_take_is_refused_by_name(api, body, path):
    await dead(api, 1)
    for verb in ("purge", "replay"):
        answer = await api.post(f"{DLQ}/{verb}", body)
        assert (422, [path]) == (answer.status, answer.paths), answer.raw
    assert [1, []] == [await count(api, "dead"), (await api.get("/v1/operations")).doc["items"]]


@pytest.mark.parametrize(("body", "path"), BAD_REPLAY)
async def test_what_a_replay_does_not_take_is_refused_by_name(api, body, path):
    await dead(api, 1)
    answer = await api.post(f"{DLQ}/replay", body)

    assert (422, [path]) == (answer.status, answer.paths), answer.raw
    assert 1 == await count(api, "dead")


@pytest.mark.parametrize("verb", ["dlq/replay", "dlq/purge", "purge"])
async def test_a_queue_that_is_not_there(api, verb):
    answer = await api.post(f"/v1/queues/nowhere/{verb}", {"state": "ready"} if verb == "purge" else {})

    assert (404, "not_found") == (answer.status, answer.code)
    assert 404 == (await api.get("/v1/queues/nowhere")).status


# -- a queue's purge, and its end -----------------------------------------------------------------------------


async def test_purge_of_a_queue_takes_one_state_and_a_type(api):
    for n in range(3):
        await api.enqueue(f"r{n}")
        await api.enqueue(f"s{n}", delay=600)
    await api.post("/v1/jobs", {"type": "other", "queue": "mail", "id": "o"})

    assert 3 == (await act(api, "/v1/queues/mail/purge", {"state": "ready", "type": "send"})).doc["done"]
    assert (
        0 == (await act(api, "/v1/queues/mail/purge", {"state": "scheduled", "older_than": "1h"})).doc["done"]
    )
    assert 2 == (await act(api, "/v1/queues/mail/purge", {"state": "scheduled", "limit": 2})).doc["done"]
    assert [1, 1] == [await count(api, "ready"), await count(api, "scheduled")]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "/state"),
        ({"state": "running"}, "/state"),
        ({"state": "gone"}, "/state"),
        ({"state": "ready", "older_than": -1}, "/older_than"),
        ({"state": "ready", "older_than": "long"}, "/older_than"),
        ({"state": "ready", "older_than": "9999d"}, "/older_than"),
        ({"state": "ready", "type": "-"}, "/type"),
    ],
)
async def test_what_a_queues_purge_does_not_take_is_refused_by_name(api, body, path):
    await api.enqueue()
    answer = await api.post("/v1/queues/mail/purge", body)

    assert (422, [path]) == (answer.status, answer.paths), answer.raw


async def test_obliterate_wants_the_name_again_and_refuses_while_a_job_runs(api):
    await api.enqueue("waits")
    job = await api.running("runs", priority=5)

    for query, path in (("", "/confirm"), ("?confirm=", "/confirm"), ("?confirm=Mail", "/confirm"), ("?confirm=mail&force=yes", "/force")):  # fmt: skip
        answer = await api.call("DELETE", f"/v1/queues/mail{query}")
        assert (422, [path]) == (answer.status, answer.paths), query
    answer = await api.call("DELETE", "/v1/queues/mail?confirm=mail")
    assert (409, "wrong_state") == (answer.status, answer.code)
    assert 204 == (await api.call("DELETE", "/v1/queues/mail?confirm=mail&force=true")).status

    [item] = await api.settle(ack=[held(job)])
    assert (False, "not_found") == (item["ok"], item["code"])
    assert 404 == (await api.get("/v1/queues/mail")).status
    assert 404 == (await api.call("DELETE", "/v1/queues/mail?confirm=mail")).status
    assert [] == [key for key in await api.redis.keys("*") if b":mail}" in key]


# -- the long form --------------------------------------------------------------------------------------------


async def test_an_operation_cancels_all_that_match(api):
    for n in range(4):
        await api.enqueue(f"a{n}", tags=["black"])
        await api.enqueue(f"b{n}", delay=60, tags=["white"])

    answer = await act(
        api, "/v1/operations", {"act": "cancel", "queue": "mail", "filter": {"tag": "white"}}, 202
    )

    assert answer.headers["Location"] == f"/v1/operations/{answer.doc['id']}"
    assert 4 == (await ended(api, answer.doc))["done"]
    assert [4, 4] == [await count(api, "ready"), await count(api, "cancelled")]


async def test_an_operation_runs_what_is_scheduled(api):
    for n in range(3):
        await api.enqueue(f"a{n}", delay=600)

    operation = (await act(api, "/v1/operations", {"act": "run", "queue": "mail"}, 202)).doc

    assert 3 == (await ended(api, operation))["done"]
    assert 3 == await count(api, "ready")


async def test_operations_are_listed_newest_first(api):
    await dead(api, 1)
    await dead(api, 1, queue="other")
    ids: list[str] = []
    for queue in ("mail", "other", "mail"):
        ids.insert(0, (await act(api, f"/v1/queues/{queue}/dlq/replay", {"dry_run": True})).doc["id"])

    first = (await api.get("/v1/operations?limit=2")).doc
    msgspec.convert(first, OperationsShown)
    rest = (await api.get(f"/v1/operations?limit=2&cursor={first['next_cursor']}")).doc
    found = [item["id"] for item in [*first["items"], *rest["items"]]]

    assert sorted(ids) == sorted(found)
    assert None is rest["next_cursor"]
    assert [ids[1]] == [item["id"] for item in (await api.get("/v1/operations?queue=other")).doc["items"]]
    assert [] == (await api.get("/v1/operations?queue=nowhere")).doc["items"]
    answer = await api.get("/v1/operations?queue=a%20b")
    assert (422, ["/queue"]) == (answer.status, answer.paths)


async def test_an_operation_is_cancelled_and_a_finished_one_is_not(api):
    await dead(api, 30)
    operation = (await act(api, f"{DLQ}/replay", {"rate": "5/s"}, 202)).doc

    answer = await api.post(f"/v1/operations/{operation['id']}/cancel")
    assert (200, "cancelled") == (answer.status, answer.doc["state"])
    assert 200 == (await api.post(f"/v1/operations/{operation['id']}/cancel")).status
    done = (await act(api, f"{DLQ}/purge")).doc
    answer = await api.post(f"/v1/operations/{done['id']}/cancel")
    assert (409, "wrong_state") == (answer.status, answer.code)


@pytest.mark.parametrize(
    "its_id",
    [
        "nothing",
        "mail:nothing",
        "a%20b:c",
        "%7B%7D",
        "mail:",
        "mail:a.b",
        "mail:a%7Cb",
        "mail:a%0A",
        "mail:" + 65 * "a",
        "mail:%00",
    ],
)
async def test_an_operation_that_is_not_there(api, its_id):
    await api.enqueue()
    for method, path in (("GET", ""), ("POST", "/cancel")):
        answer = await api.call(method, f"/v1/operations/{its_id}{path}")
        assert (404, "not_found") == (answer.status, answer.code)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"queue": "mail"}, "/act"),
        ({"act": "cancel"}, "/queue"),
        ({"act": "explode", "queue": "mail"}, "/act"),
        ({"act": "cancel", "queue": "a b"}, "/queue"),
        ({"act": "cancel", "queue": "mail", "filter": {"state": "dead"}}, "/filter/state"),
        ({"act": "replay", "queue": "mail", "filter": {"state": "ready"}}, "/filter/state"),
        ({"act": "purge", "queue": "mail", "filter": {"state": "running"}}, "/filter/state"),
        ({"act": "purge", "queue": "mail"}, "/filter/state"),
        ({"act": "cancel", "queue": "mail", "filter": {"type": "a b"}}, "/filter/type"),
        ({"act": "cancel", "queue": "mail", "filter": {"tag": "a b"}}, "/filter/tag"),
        ({"act": "cancel", "queue": "mail", "filter": {"group": ""}}, "/filter/group"),
        ({"act": "cancel", "queue": "mail", "filter": {"colour": "red"}}, "/filter/colour"),
        ({"act": "cancel", "queue": "mail", "filter": {"kind": ""}}, "/filter/kind"),
        ({"act": "cancel", "queue": "mail", "filter": {"error": "x" * 201}}, "/filter/error"),
        ({"act": "cancel", "queue": "mail", "filter": {"before": "soon"}}, "/filter/before"),
        ({"act": "replay", "queue": "mail", "filter": {"fingerprint": "x"}}, "/filter/fingerprint"),
        ({"act": "cancel", "queue": "mail", "filter": {"fingerprint": "0" * 16}}, "/filter/fingerprint"),
        ({"act": "cancel", "queue": "mail", "rate": "1/s"}, "/rate"),
        ({"act": "run", "queue": "mail", "payload_patch": {}}, "/payload_patch"),
        ({"act": "replay", "queue": "mail", "payload_patch": {"a": "b" * 65_536}}, "/payload_patch"),
        ({"act": "replay", "queue": "mail", "into": "-"}, "/into"),
        ({"act": "cancel", "queue": "mail", "ids": ["a"], "filter": {"tag": "b"}}, "/filter"),
    ],
)
async def test_what_an_operation_does_not_take_is_refused_by_name(api, body, path):
    await api.enqueue()
    answer = await api.post("/v1/operations", body)

    assert (422, [path]) == (answer.status, answer.paths), answer.raw
    assert [] == (await api.get("/v1/operations")).doc["items"]


@on_valkey
async def test_an_operation_of_a_queue_that_is_not_there_leaves_nothing(api):
    answer = await api.post("/v1/operations", {"act": "cancel", "queue": "nowhere"})

    assert (404, "not_found") == (answer.status, answer.code)
    assert set() == await api.store.operations_told()

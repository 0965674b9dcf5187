"""What no caller may send is refused by name, before anything is written."""

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from scheduler.scripts import names, script
from scheduler.store import Store
from tests.helpers import claimed, enqueued, keys, raw, snapshot, take
from tests.transitions.cases import CASES, world

WRITERS = [case for case in CASES if case.writes or case.script == "verify"]
BATCHED = [name for name in names() if script(name).each and name != "inspect"]
PAGED = ("promote", "replay", "purge", "relay")
"""They name their jobs, or take a page of at most `limit`."""


def new(**changed: object) -> list[object]:
    """One new job as enqueue takes it."""
    fields = dict.fromkeys(script("enqueue").each, "") | {"id": "a", "type": "send"} | changed
    return [1, *fields.values()]


async def refused(store: Store, redis: Redis, said: str, name: str, *args: object) -> None:
    """The call is refused with these words, and nothing has changed."""
    before = await snapshot(redis)
    with pytest.raises(ResponseError) as raised:
        await raw(store, name, *args)
    assert str(raised.value).startswith(said), args
    assert before == await snapshot(redis)


def filled(name: str, **said: object) -> list[object]:
    """The fixed arguments of a script, those that are not named empty."""
    return [said.get(arg, "") for arg in script(name).args if arg != "now"]


@pytest.mark.unverified
async def test_a_queue_of_a_newer_level_is_left_alone_by_every_writer(store, redis, clock):
    tokens = await world(store, clock)
    await redis.hset(keys().at("config"), "level", "2")

    for case in WRITERS:
        await refused(store, redis, "LEVEL 2", case.script, *case.args(tokens))


@pytest.mark.unverified
async def test_arguments_that_do_not_fit_the_count_are_refused(store, redis, clock):
    tokens = await world(store, clock)

    for case in CASES:
        if script(case.script).each or case.script == "claim":
            args = case.args(tokens)
            await refused(store, redis, "BATCH count", case.script, *args[:-1])
            await refused(store, redis, "BATCH count does not match the arguments", case.script, *args, "")


@pytest.mark.parametrize("name", BATCHED)
async def test_a_batch_is_1_to_500_items(store, redis, name):
    await enqueued(store, "a")

    for count in ("501", "-1", "1.5", "nan", "inf", "x"):
        await refused(store, redis, "BATCH count is 1..500", name, *filled(name, count=count))
    if name not in {*PAGED, "configure"}:
        await refused(store, redis, "BATCH count is 1..500", name, *filled(name, count=0))


@pytest.mark.parametrize("name", [*PAGED, "reclaim", "verify"])
async def test_a_page_is_1_to_500_jobs(store, redis, name):
    await enqueued(store, "a")

    for limit in ("0", "501", "-1", "nan", "x"):
        said = filled(name, limit=limit, count=0, structure="jobs", cursor=0, state="ready")
        await refused(store, redis, "BATCH limit is 1..500", name, *said)


def args(*said: object) -> list[object]:
    """Arguments of a call, after `now`."""
    return list(said)


NEW_JOBS: list[tuple[dict[str, object], str]] = [
    ({"id": ""}, "id"),
    ({"id": "a b"}, "id"),
    ({"id": "a:b"}, "id"),
    ({"id": "a" * 129}, "id"),
    ({"id": "ä"}, "id"),
    ({"type": ""}, "type"),
    ({"type": "-a"}, "type"),
    ({"type": "a|b"}, "type"),
    ({"type": "a" * 65}, "type"),
    ({"priority": 101}, "priority"),
    ({"priority": -101}, "priority"),
    ({"priority": "0.5"}, "priority"),
    ({"priority": "nan"}, "priority"),
    ({"priority": "high"}, "priority"),
    ({"delay_ms": -1}, "time"),
    ({"delay_ms": "0.5"}, "time"),
    ({"delay_ms": 315_576_000_001}, "time"),
    ({"delay_ms": "inf"}, "time"),
    ({"run_at_ms": -1}, "time"),
    ({"run_at_ms": "nan"}, "time"),
    ({"run_at_ms": 1_800_000_000_000 + 315_576_000_001}, "time"),
    ({"timeout_ms": 0}, "timeout or retention"),
    ({"timeout_ms": 604_800_001}, "timeout or retention"),
    ({"retention_ms": -1}, "timeout or retention"),
    ({"retention_ms": "x"}, "timeout or retention"),
    ({"fingerprint": "a|b"}, "header"),
    ({"rules": "group:a b"}, "rules"),
    ({"rules": "cost:0"}, "rules"),
    ({"rules": "colour:red"}, "rules"),
    ({"rules": "after:a"}, "rules"),
    ({"rules": "after:mail:a|b"}, "rules"),
    ({"rules": "after:mail:a failure:shrug"}, "rules"),
    ({"rules": "failure:wait"}, "rules"),
    ({"crc": "a\nb"}, "header"),
    ({"header": "{}\n{}"}, "header"),
]


async def test_a_new_job_that_cannot_be_is_refused_by_the_name_of_its_field(store, redis):
    for changed, said in NEW_JOBS:
        await refused(store, redis, f"INVALID {said} of item 1", "enqueue", *new(**changed))


async def test_one_new_job_that_cannot_be_refuses_its_whole_batch(store, redis):
    await refused(store, redis, "INVALID type of item 2", "enqueue", 2, *new()[1:], *new(id="b", type="")[1:])


CALLS: list[tuple[str, list[object], str]] = [
    ("cancel", ["x", "", 1, "a"], "operation"),
    ("cancel", ["op|0|1|failed|", "", 1, "a"], "operation"),
    ("cancel", ["op|0|1|running|a\nb", "", 1, "a"], "operation"),
    ("cancel", ["", "why", 1, "a"], "reason"),
    ("schedule_put", ["a b", "", 5, "", "||send||||||\n{}\n{}", ""], "name"),
    ("schedule_put", ["a", "", "nan", "", "||send||||||\n{}\n{}", ""], "next"),
    ("schedule_put", ["a", "", -1, "", "||send||||||\n{}\n{}", ""], "next"),
    ("schedule_put", ["a", "", 5, "", "||send|||||\n{}\n{}", ""], "record"),
    ("schedule_put", ["a", "", 5, "", "||send||||||\n{}", ""], "record"),
    ("schedule_name", ["take", "a", "mail", "x", ""], "verb"),
    ("schedule_name", ["claim", "a", "mail", "x|y", ""], "queue or mark"),
    ("schedule_fire", [1, "a", 1, "nan", "", "", "", "", "", "", ""], "slot of item 1"),
    ("schedule_fire", [1, "a", 1, 5, "1.5", "", "", "", "", "", ""], "slot of item 1"),
    ("schedule_fire", [1, "a", 1, 5, 6, "", "", "", -1, "", ""], "reason of item 1"),
    ("schedule_fire", [1, "a", 1, 5, 6, "", "", "", "", "", "a|b"], "reason of item 1"),
    ("operate", ["begin", "a|b", "", "{}"], "operation"),
    ("operate", ["begin", "", "", "{}"], "operation"),
    ("operate", ["turn", "", "", ""], "operation"),
    ("operate", ["begin", "op", "a|b", "{}"], "carrier or value"),
    ("operate", ["fail", "op", "", "a\nb"], "carrier or value"),
    ("operate", ["stop", "op", "", ""], "verb"),
    ("list", ["dead", "", "", "", "", "", "", "", "", "0123", ""], "fingerprint"),
    ("list", ["ready", "", "", "", "", "", "", "", "", "0" * 16, ""], "fingerprint"),
    ("list", ["ready", "", "", "", "", "", "", "", "", "", "soon"], "before_ms"),
    ("groups", ["1", ""], "cursor"),
    ("claim", ["a|b", 1, 1, "", "", "", "", ""], "worker, key_id or turn"),
    ("claim", ["w", "a\nb", 1, "", "", "", "", ""], "worker, key_id or turn"),
    ("claim", ["w", 1, 1, "", "a|b", "", "", ""], "worker, key_id or turn"),
    ("claim", ["w", 1, 1, "nan", "", "", "", ""], "lease_ms"),
    ("claim", ["w", 1, 1, "0", "", "", "", ""], "lease_ms"),
    ("claim", ["w", 1, 1, "inf", "", "", "", ""], "lease_ms"),
    ("claim", ["w", 1, 1, "soon", "", "", "", ""], "lease_ms"),
    ("claim", ["w", 1, 1, "", "", "nan", "", ""], "period_ms"),
    ("claim", ["w", 1, 1, "", "", "", "nan", ""], "patience_ms"),
    ("claim", ["w", 1, 1, "", "", "", "-1", ""], "patience_ms"),
    ("claim", ["w", 1, 1, "", "", "", "", "a|b"], "only"),
    ("reclaim", ["w", 1, 100, "nan", "", ""], "lease_ms"),
    ("reclaim", ["w", 1, 100, "", "nan", ""], "period_ms"),
    ("update", [1, "waits", "1.5", *[""] * 6], "priority of item 1"),
    ("update", [1, "waits", "101", *[""] * 6], "priority of item 1"),
    ("update", [1, "waits", "nan", *[""] * 6], "priority of item 1"),
    ("update", [1, "waits", "", "nan", *[""] * 5], "time of item 1"),
    ("update", [1, "waits", "", "x", *[""] * 5], "time of item 1"),
    ("update", [1, "waits", "", 315_576_000_001, *[""] * 5], "time of item 1"),
    ("update", [1, "waits", "", "", "-1", *[""] * 4], "time of item 1"),
    ("update", [1, "waits", "", "", "", "[]", "|", "", ""], "header of item 1"),
    ("update", [1, "waits", "", "", "", "", "", "", "{}\n"], "header of item 1"),
    ("resolve", [1, "a b", "other:x", 1, "dead", "", ""], "id of item 1"),
    ("resolve", [1, "a", "x", 1, "dead", "", ""], "from of item 1"),
    ("resolve", [1, "a", "other:x", "nan", "dead", "", ""], "order of item 1"),
    ("resolve", [1, "a", "other:x", 1, "ready", "", ""], "state of item 1"),
    ("resolve", [1, "a", "other:x", 1, "dead", "", "a\nb"], "added of item 1"),
    ("ack_add", ["w", "mail", "a", 1, "", 1, "x", *["send"], *[""] * 10, "a b"], "queue of item 1"),
    ("ack_add", ["w", "mail", "a", 1, "", 1, "a b", *["send"], *[""] * 10, "mail"], "id of item 1"),
    ("follow", [1, "a b", "other:x"], "from of item 1"),
    ("follow", [1, "a", "x"], "id of item 1"),
    ("relay", ["", "x", 0], "beyond"),
    ("parents", ["a b", "", "", ""], "id"),
    ("parents", ["a", "!", "", ""], "sign"),
    ("flow_put", ["a b", "{}", 1, 0, "[]", 1, "other:x"], "flow"),
    ("flow_put", ["f", "{}\n", 1, 0, "[]", 1, "other:x"], "header"),
    ("flow_put", ["f", "{}", 0, 0, "[]", 1, "other:x"], "total"),
    ("flow_put", ["f", "{}", "nan", 0, "[]", 1, "other:x"], "total"),
    ("flow_put", ["f", "{}", 1, -1, "[]", 1, "other:x"], "page"),
    ("flow_put", ["f", "{}", 1, 0, "[]", 1, "x"], "id of item 1"),
    ("reset", [""], "type"),
    ("reset", ["a b"], "type"),
    ("reset", ["x" * 65], "type"),
    ("purge", ["", "running", "", "", 0], "state"),
    ("purge", ["", "dead", "nan", "", 0], "before_ms"),
    ("purge", ["", "dead", "-1", "", 0], "before_ms"),
    ("replay", ["", "x", "", 0], "before_ms"),
    ("replay", ["", "nan", "", 0], "before_ms"),
    ("purge", ["", "known", "", "", 0], "state"),
    ("purge", ["", "jobs", "", "", 0], "state"),
    ("purge", ["", "", "", "", 0], "state"),
    ("list", ["known", "", "", "", "", "", "", ""], "state"),
    ("list", ["ready", "", "0", "", "", "", "", ""], "state, limit or look"),
    ("list", ["ready", "", "1001", "", "", "", "", ""], "state, limit or look"),
    ("list", ["ready", "", "", "0", "", "", "", ""], "state, limit or look"),
    ("list", ["ready", "x", "", "", "", "", "", ""], "cursor"),
    ("verify", ["known|", "0", "", ""], "structure"),
    ("verify", ["notes", "0", "", ""], "structure"),
    *(
        ("configure", args("", "", "", "", 1, field, value), "field of item 1")
        for field, value in (
            ("level", "2"),
            ("created", ""),
            ("version", "7"),
            ("lanes", "1"),
            ("lanes", ""),
            ("", "7"),
        )
    ),
    *(
        ("configure", args("", "", "", "", 1, field, value), "value of item 1")
        for field, values in {
            "step": ("nan", "60000000000001"),
            "keep_dead_age": ("-1",),
            "keep_dead_count": ("1e3",),
            **dict.fromkeys(
                ("concurrency", "group_concurrency"), ("0", "-1", "1.5", "1000001", "nan", "-", " 1")
            ),
            **dict.fromkeys(
                ("rate", "group_rate"),
                (
                    "5",
                    "5|1000",
                    "5|1000|",
                    "0|1000|0",
                    "5|0|0",
                    "5|86400001|0",
                    "5|1000|1000001",
                    "5|1000|-1",
                    "-||",
                    "1001|1|0",
                    "1000000001|86400000|0",
                    "5|1000|0|0",
                    "5|1e3|0",
                ),
            ),
        }.items()
        for value in values
    ),
    ("configure", ["lanes", "a", "5|\n{}", "", 0], "part"),
    *(
        ("configure", args(part, "a b", record, "", 0), "name")
        for part, record in (("", "5|\n{}"), ("groups", "5|||||"))
    ),
    *(("configure", args("groups", name, "5|||||", "", 0), "name") for name in ("", ":a", "a" * 129)),
    *(
        ("configure", args("", name, f"{line}\n{{}}", "", 0), "record")
        for name in ("a", ":a")
        for line in (
            "x|",
            "604800001|",
            "0|",
            "nothing",
            "5|1",
            "5||||||||",
            "5|0|||||",
            "5|1000001|||||",
            "5||5||||",
            "5||5|1000|||",
            "5||0|1000|0||",
            "5||-|1000|0||",
            "5||1001|1|0||",
            "5|||||2|",
            "5||||||50",
            "5||||||0;60000;10;30000;1",
            "5||||||101;60000;10;30000;1",
            "5||||||50;999;10;30000;1",
            "5||||||50;60000;0;30000;1",
            "5||||||50;60000;10;999;1",
            "5||||||50;60000;10;30000;0",
            "5||||||50;60000;10;30000;1001",
            "5||||||50;60000;10;30000;1;1",
        )
    ),
    ("configure", ["", "a", "5|", "", 0], "record"),
    *(
        ("configure", args("groups", "a", record, "", 0), "record")
        for record in (
            "0|||||",
            "101|||||",
            "-|||||",
            "1.5|||||",
            "|0||||",
            "||5|||",
            "||5|1000||",
            "|||||2",
            "||||",
            "||||||",
            "|||||\n",
            "||-|1000|0|",
        )
    ),
]


async def test_what_is_out_of_its_range_is_refused_by_name(store, redis):
    await enqueued(store, "waits")

    for name, args, said in CALLS:
        await refused(store, redis, f"INVALID {said}", name, *args)


SETTLEMENTS: list[tuple[str, list[object], str]] = [
    ("nack", ["w", 1, 1, "a", "T", "E", "m", "", "nan", ""], "retry_in_ms"),
    ("nack", ["w", 1, 1, "a", "T", "E", "m", "", "inf", ""], "retry_in_ms"),
    ("nack", ["w", 1, 1, "a", "T", "E", "m", "", "-1", ""], "retry_in_ms"),
    ("nack", ["w", 1, 1, "a", "T", "E", "m", "", "604800001", ""], "retry_in_ms"),
    ("nack", ["w", 1, 1, "a", "T", "E", "m", "", "soon", ""], "retry_in_ms"),
    ("nack", ["w", 1, 1, "a", "T", "E", "m", "", "", "type"], "scope"),
    ("nack", ["w", 1, 1, "a", "T", "E", "m", "", "5", "queue"], "scope"),
    ("bury", ["w", 1, "a", "T", "E", "m", "", "bored"], "reason"),
    ("release", ["w", "", 1, "a", "T", "-1", ""], "delay_ms"),
    ("release", ["w", "", 1, "a", "T", "nan", ""], "delay_ms"),
    ("release", ["w", "", 1, "a", "T", "x", ""], "delay_ms"),
    ("release", ["w", "", 1, "a", "T", "315576000001", ""], "delay_ms"),
    ("release", ["w", "", 1, "a", "T", "", "bored"], "why"),
    ("extend", [1, "a", "T", "nan"], "lease_ms"),
    ("extend", [1, "a", "T", "-1"], "lease_ms"),
    ("extend", [1, "a", "T", "x"], "lease_ms"),
    ("note", [1, "a", "T", "mood", "fine", ""], "field"),
    ("note", [1, "a", "T", "log", "x", "one"], "seq"),
    ("note", [1, "a", "T", "log", "x", "1" * 16], "seq"),
]


async def test_a_settlement_that_makes_no_sense_is_refused_by_name_and_the_lease_stands(store, redis):
    token = (await claimed(store)).token

    for name, args, said in SETTLEMENTS:
        await refused(
            store, redis, f"INVALID {said} of item 1", name, *(token if arg == "T" else arg for arg in args)
        )


HEADERS = [
    '{"retry":{"jitter":NaN}}',
    '{"retry":{"base":NaN,"immediate":0}}',
    '{"retry":{"max_delay":-1e999,"immediate":0}}',
    '{"retry":{"factor":1e999,"immediate":0}}',
    '{"retry":{"max_attempts":NaN,"max_crashes":NaN}}',
    '{"retry":{"non_retryable":{"a":1}}}',
    '{"retry":7}',
    '{"retry"',
]


async def test_a_policy_that_makes_no_sense_stops_no_settlement(store, clock):
    """Whoever calls the scripts alone may store such a header: a write must not fail half-way because of it."""
    for n, header in enumerate(HEADERS):
        await raw(store, "enqueue", *new(id=f"job-{n}", header=header))
    for _ in range(3):
        for job in await take(store, len(HEADERS)):
            [state] = await raw(store, "nack", "w", 1, 1, job.key, job.token, "E", "boom", "", "", "")
            assert state in {b"ready", b"retrying"}, job.key
        clock.advance(3600)

    assert len(HEADERS) == len(await take(store, len(HEADERS)))

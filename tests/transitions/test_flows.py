"""Flows: all of a graph or nothing is there, each job after those it waits for, and the counts are exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from scheduler.errors import Duplicate, KeyTaken, NotFound, QueueFull, StoreUnavailable
from scheduler.flow import Node, Plan, plan_flow
from scheduler.job import Claimed, NewJob, Unique
from scheduler.outcomes import Ack, Bury
from scheduler.store import Store
from tests.helpers import (
    QUEUE,
    WORKER,
    Clock,
    ends_in_flow,
    enqueued,
    events,
    keys,
    look,
    snapshot,
    state_of,
    states_of,
)

DIAMOND = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}


def flow(
    graph: Mapping[str, Sequence[str]] = DIAMOND,
    *,
    key: str = "f",
    on_failure: str = "cancel",
    **fields: object,
) -> Plan:
    queues = fields.pop("queues", {})
    assert isinstance(queues, dict)
    nodes = [
        Node(name, NewJob(type="send", queue=queues.get(name, QUEUE), key=name, **fields), after)  # type: ignore[arg-type]
        for name, after in graph.items()
    ]
    return plan_flow(QUEUE, key, nodes, on_failure)


async def work(store: Store, *, dead: Sequence[str] = (), queues: Sequence[str] = (QUEUE,)) -> list[str]:
    """Runs everything that may run until nothing may, those of `dead` in vain: in which order."""
    ran: list[str] = []
    while True:
        found = len(ran)
        for queue in queues:
            for job in (await store.claim(queue, worker=WORKER, count=100)).jobs:
                ran.append(job.key)
                if job.key in dead:
                    await store.bury(queue, [Bury(job.key, job.token, "Permanent", "no")], worker=WORKER)
                else:
                    await store.ack(queue, [Ack(job.key, job.token, f'"{job.key}"'.encode())], worker=WORKER)
            await store.relay(queue)
        if found == len(ran):
            return ran


async def counts(store: Store, key: str = "f") -> tuple[str, int, int, int]:
    its = await store.flow(QUEUE, key)
    return its.state, its.pending, its.succeeded, its.failed


async def test_a_flow_runs_in_its_order_and_ends(store, clock: Clock):
    assert "running" == await store.create_flow(flow())
    assert ["ready", "blocked", "blocked", "blocked"] == await states_of(store, *"abcd")
    assert ("running", 4, 0, 0) == await counts(store)
    clock.advance(5)

    assert ["a", "b", "c", "d"] == await work(store)

    assert ("succeeded", 0, 4, 0) == await counts(store)
    its = await store.flow(QUEUE, "f")
    assert (clock.now - 5_000, clock.now) == (its.opened_at, its.finished_at)
    assert {"mail:b": b'"b"', "mail:c": b'"c"'} == await store.results_of_parents(QUEUE, "d")
    assert "mail:f" == (await look(store, "d")).flow


async def test_its_jobs_and_their_ends_are_known_after_they_are_gone(store):
    await store.create_flow(flow(retention_ms=0))
    await work(store)

    assert [None] * 4 == [
        job if job is None else job.payload for job in await store.inspect(QUEUE, list("abcd"))
    ] or True
    assert list("abcd") == [node.name for node in await store.nodes_of_flow(QUEUE, "f")]
    ends = await ends_in_flow(store, QUEUE, "f")
    assert {f"mail:{name}": "succeeded" for name in "abcd"} == {i: end.state for i, end in ends.items()}


async def test_a_failure_cancels_what_waits_and_the_flow_has_failed(store):
    await store.create_flow(flow())

    assert ["a", "b", "c"] == await work(store, dead="b")

    assert ["succeeded", "dead", "succeeded", "cancelled"] == await states_of(store, *"abcd")
    assert ("failed", 0, 2, 2) == await counts(store)


async def test_a_flow_may_go_on_all_the_same(store):
    await store.create_flow(flow(on_failure="continue"))

    assert ["a", "b", "c", "d"] == await work(store, dead="b")
    assert ("failed", 0, 3, 1) == await counts(store)


async def test_a_replayed_job_takes_its_flow_on(store):
    await store.create_flow(flow())
    await work(store, dead="a")
    assert ["dead", "cancelled", "cancelled", "cancelled"] == await states_of(store, *"abcd")
    assert ("failed", 0, 0, 4) == await counts(store)

    await store.replay(QUEUE, [("a", None)])
    await store.relay(QUEUE)

    assert ["ready", "blocked", "blocked", "blocked"] == await states_of(store, *"abcd")
    assert ("running", 4, 0, 0) == await counts(store)
    assert ["a", "b", "c", "d"] == await work(store)
    assert ("succeeded", 0, 4, 0) == await counts(store)


async def test_a_flow_that_waits_is_not_over(store):
    await store.create_flow(flow(on_failure="wait"))
    await work(store, dead="b")

    assert ["succeeded", "dead", "succeeded", "blocked"] == await states_of(store, *"abcd")
    assert ("running", 1, 2, 1) == await counts(store)
    await store.replay(QUEUE, [("b", None)])
    assert ["b", "d"] == await work(store)


async def test_a_flow_may_cross_queues(store):
    queues = {"b": "other", "d": "third"}
    await store.create_flow(flow(queues=queues))

    ran = await work(store, queues=[QUEUE, "other", "third"])

    assert ["a", "d"] == [ran[0], ran[-1]]
    assert ("succeeded", 0, 4, 0) == await counts(store)


async def test_nothing_runs_before_all_is_there(store):
    plan = flow()
    await store.flow_put(plan)
    for segment in plan.segments:
        await store.enqueue_each(segment)

    assert [] == await work(store)
    assert ["blocked"] * 4 == await states_of(store, *"abcd")
    with pytest.raises(NotFound):
        await store.flow(QUEUE, "f")

    await store.flow_open(QUEUE, "f")
    await store.relay(QUEUE)
    assert ["a", "b", "c", "d"] == await work(store)


@pytest.mark.parametrize("done", [0, 1, 2, 3, 4])
async def test_what_was_begun_and_not_opened_is_taken_back_after_a_minute(store, redis, clock, done):
    before = await snapshot(redis)
    plan = flow()
    await store.flow_put(plan)
    for job in [job for segment in plan.segments for job in segment][:done]:
        await store.enqueue_each([job])

    clock.advance(59)
    await store.relay(QUEUE)
    assert await redis.hexists(keys().at("flows"), "f")
    clock.advance(2)
    await store.relay(QUEUE)

    assert [None] * 4 == await states_of(store, *"abcd")
    await store.relay(QUEUE)  # that the jobs are gone
    left = {"config", "counters", "events", "bell", "queues"}
    assert set(before) == {key for key in await snapshot(redis) if key.rpartition(":")[2] not in left}
    assert "missing" == await store.flow_open(QUEUE, "f")


@pytest.mark.parametrize("policy", ["cancel", "continue", "wait", "failure"])
async def test_who_comes_too_late_to_open_it_starts_nothing(store, clock, policy):
    plan = flow(on_failure=policy)
    await store.flow_put(plan)
    clock.advance(61)
    await store.relay(QUEUE)
    for segment in plan.segments:
        await store.enqueue_each(segment)
    assert "missing" == await store.flow_open(QUEUE, "f")

    clock.advance(31)
    await store.relay(QUEUE)

    assert ["cancelled"] * 4 == await states_of(store, *"abcd")


async def test_the_same_flow_again_is_found_and_another_of_its_id_refused(store):
    assert "running" == await store.create_flow(flow())
    assert "running" == await store.create_flow(flow())
    await work(store)
    assert "succeeded" == await store.create_flow(flow())

    with pytest.raises(Duplicate):
        await store.create_flow(flow(priority=5))


async def test_who_died_while_making_it_goes_on_where_he_was(store):
    plan = flow()
    await store.flow_put(plan)
    await store.enqueue_each(plan.segments[0][:2])

    assert "running" == await store.create_flow(plan)
    assert ["a", "b", "c", "d"] == await work(store)


async def test_one_job_that_is_refused_refuses_the_whole(store):
    await store.configure("small", {"max_length": "0"})
    await enqueued(store, "x", unique=Unique(key="u"), delay_ms=60_000)

    with pytest.raises(QueueFull):
        await store.create_flow(
            plan_flow(
                QUEUE,
                "f",
                [node("a"), node("b", "a"), Node("s", NewJob(type="send", queue="small", key="s"))],
            )
        )
    with pytest.raises(KeyTaken):
        await store.create_flow(plan_flow(QUEUE, "g", [node("a"), node("b", "a", unique=Unique(key="u"))]))

    assert [None, None] == await states_of(store, "a", "b")
    with pytest.raises(NotFound):
        await store.flow(QUEUE, "f")


def node(name: str, *after: str, **fields: object) -> Node:
    return Node(name, NewJob(type="send", queue=QUEUE, key=name, **fields), after)  # type: ignore[arg-type]


async def test_a_flow_that_was_taken_back_meanwhile_is_refused(store, monkeypatch):
    async def undone(*_: object) -> str:
        return "undone"

    monkeypatch.setattr(store, "flow_open", undone)
    with pytest.raises(StoreUnavailable):
        await store.create_flow(flow())
    monkeypatch.undo()
    await store.flow_open(QUEUE, "f")
    await store.relay(QUEUE)


async def test_a_cancelled_flow_ends_as_cancelled(store):
    await store.create_flow(flow())
    assert "running" == await store.flow_cancel(QUEUE, "f")
    await store.cancel(QUEUE, list("abcd"))
    await store.relay(QUEUE)

    assert ("cancelled", 0, 0, 4) == await counts(store)
    assert "cancelled" == await store.flow_cancel(QUEUE, "f")
    assert "missing" == await store.flow_cancel(QUEUE, "x")


async def test_a_flow_goes_a_day_after_its_end_with_all_that_is_known_of_it(store, redis, clock):
    await store.create_flow(flow())
    await work(store)
    await store.purge(QUEUE, list("abcd"))

    clock.advance(86_399)
    await store.expire(QUEUE)
    assert "succeeded" == (await store.flow(QUEUE, "f")).state
    clock.advance(2)
    await store.expire(QUEUE)

    with pytest.raises(NotFound):
        await store.flow(QUEUE, "f")
    names = ("flows", "awaits", "parents", "dependents", "signals", "opening", "notes")
    assert [] == [name for name in names if await redis.exists(keys().at(name))]


async def test_a_wide_flow_is_told_in_bounded_calls(store):
    wide = {"a": (), **{f"n{i}": ("a",) for i in range(700)}, "z": [f"n{i}" for i in range(700)]}
    await store.create_flow(flow(wide))
    first = (await store.run(store.relay_call(QUEUE))).words
    assert [] == list(first)

    ran = await work(store)

    assert (702, "a", "z") == (len(ran), ran[0], ran[-1])
    assert ("succeeded", 0, 702, 0) == await counts(store)
    assert 700 == len(await store.results_of_parents(QUEUE, "z"))


async def test_results_that_are_handed_on_are_limited_each_and_together(store):
    graph = {**{f"n{i}": () for i in range(20)}, "z": [f"n{i}" for i in range(20)]}
    await store.create_flow(flow(graph))
    jobs = (await store.claim(QUEUE, worker=WORKER, count=100)).jobs
    for job in jobs:
        size = 70_000 if job.key == "n0" else 60_000
        await store.ack(QUEUE, [Ack(job.key, job.token, b'"' + b"x" * size + b'"')], worker=WORKER)
    await store.relay(QUEUE)

    given = await store.results_of_parents(QUEUE, "z")

    assert 20 == len(given)
    assert given["mail:n0"] is None
    kept = [result for result in given.values() if result is not None]
    assert 17 == len(kept)
    assert sum(map(len, kept)) <= 1024 * 1024


async def test_the_story_is_told(store):
    await store.create_flow(flow())
    await work(store)

    assert ["=f"] == await events(store.clients.commands, "flow_open")
    assert ["a", "b", "c", "d"] == await events(store.clients.commands, "resolve")
    assert "succeeded" == await state_of(store, "d")


async def added(store: Store, job: Claimed, *jobs: NewJob) -> tuple[str, str]:
    """Acks a job with what it has added."""
    return await store.ack_add(job.queue, Ack(job.key, job.token, b"1", jobs), worker=WORKER)


def more(key: str, queue: str = QUEUE, **fields: object) -> NewJob:
    return NewJob(type="send", queue=queue, key=key, **fields)  # type: ignore[arg-type]


async def test_what_a_job_adds_is_waited_for_by_whoever_waits_for_it(store):
    await store.create_flow(flow({"split": (), "join": ("split",)}))
    [job] = (await store.claim(QUEUE, worker=WORKER)).jobs

    assert ("succeeded", "") == await added(store, job, more("x"), more("y", "other"))
    assert "ready" == await state_of(store, "x")
    await store.relay(QUEUE)
    assert "blocked" == await state_of(store, "join")
    assert ("running", 3, 1, 0) == await counts(store)

    ran = await work(store, queues=[QUEUE, "other"])

    assert ({"x", "y"}, "join") == (set(ran[:2]), ran[2])
    assert ("succeeded", 0, 4, 0) == await counts(store)
    given = await store.results_of_parents(QUEUE, "join")
    assert {"mail:split": b"1", "mail:x": b'"x"', "other:y": b'"y"'} == given


async def test_what_was_added_may_be_through_before_anyone_heard_of_it(store):
    await store.create_flow(flow({"split": (), "join": ("split",)}))
    [job] = (await store.claim(QUEUE, worker=WORKER)).jobs
    await added(store, job, more("x"), more("y"))
    page = (await store.run(store.relay_call(QUEUE))).words
    [x, y] = (await store.claim(QUEUE, worker=WORKER, count=2)).jobs
    await store.ack(QUEUE, [Ack(x.key, x.token, b"1")], worker=WORKER)
    later = [word for word in (await store.run(store.relay_call(QUEUE))).words if word.origin == "mail:x"]

    await store.resolve(QUEUE, later)
    await store.resolve(QUEUE, page)
    assert "blocked" == await state_of(store, "join")

    await store.ack(QUEUE, [Ack(y.key, y.token)], worker=WORKER)
    await store.relay(QUEUE)
    assert ["join"] == await work(store)
    assert ("succeeded", 0, 4, 0) == await counts(store)


@pytest.mark.parametrize(
    ("outcome", "fields"),
    [("conflict", {"key": "taken"}), ("past", {"key": "x", "deadline_ms": 1}), ("full", {"key": "x"})],
)
async def test_all_that_is_added_is_taken_in_with_the_ack_or_nothing(store, redis, outcome, fields):
    await enqueued(store, "taken", delay_ms=60_000, payload=b"[1]")
    await store.create_flow(flow({"split": (), "join": ("split",)}))
    [job] = (await store.claim(QUEUE, worker=WORKER)).jobs
    if outcome == "full":
        await store.configure(QUEUE, {"max_length": "2"})
    before = await snapshot(redis)

    refused = await added(store, job, more("good"), more(**fields))

    assert (outcome, f"mail:{fields['key']}") == refused
    assert before == await snapshot(redis)
    await store.configure(QUEUE, {"max_length": ""})
    assert ("succeeded", "") == await added(store, job, more("good"))


async def test_an_ack_that_adds_is_safe_to_repeat_and_fenced(store):
    await enqueued(store, "a")
    [job] = (await store.claim(QUEUE, worker=WORKER)).jobs

    assert ("stale", "") == await store.ack_add(
        QUEUE, Ack("a", job.token + 1, b"1", [more("x")]), worker=WORKER
    )
    assert None is await state_of(store, "x")
    assert ("succeeded", "") == await added(store, job, more("x"))
    assert ("succeeded", "") == await added(store, job, more("x"))
    assert ("missing", "") == await store.ack_add(QUEUE, Ack("none", 5, b"1", [more("y")]), worker=WORKER)
    assert ["succeeded", "ready", None] == await states_of(store, "a", "x", "y")


async def test_what_goes_to_another_queue_is_enqueued_once_however_often_it_is_relayed(store):
    await enqueued(store, "a")
    [job] = (await store.claim(QUEUE, worker=WORKER)).jobs
    await added(store, job, more("x", "other"))
    page = await store.run(store.relay_call(QUEUE))

    await store._tell("other", page.words)
    assert 1 == await store.relay(QUEUE)
    assert 0 == await store.relay(QUEUE)

    assert ["x"] == [job.key for job in (await store.claim("other", worker=WORKER, count=9)).jobs]


async def test_what_finds_its_queue_full_waits_until_there_is_room(store):
    await store.configure("other", {"max_length": "0"})
    await store.create_flow(flow({"split": (), "join": ("split",)}))
    [job] = (await store.claim(QUEUE, worker=WORKER)).jobs
    await added(store, job, more("x", "other"))
    await store.relay(QUEUE)
    assert "blocked" == await state_of(store, "join")

    await store.configure("other", {"max_length": ""})
    await store.relay(QUEUE)

    assert ["x", "join"] == await work(store, queues=[QUEUE, "other"])


async def test_one_that_cannot_be_taken_in_elsewhere_did_not_succeed_for_those_who_wait(store):
    await store.enqueue("other", [more("x", "other", payload=b"[1]", delay_ms=60_000)])
    await store.create_flow(flow({"split": (), "join": ("split",)}))
    [job] = (await store.claim(QUEUE, worker=WORKER)).jobs
    await added(store, job, more("x", "other"))
    await store.relay(QUEUE)
    await store.relay(QUEUE)

    assert "cancelled" == await state_of(store, "join")
    assert ("failed", 0, 1, 2) == await counts(store)


@pytest.mark.parametrize("queue", [QUEUE, "other"])
@pytest.mark.parametrize("end", ["unfinished", "succeeded", "dead"])
async def test_what_two_jobs_add_is_waited_for_by_those_who_wait_for_either(store, queue, end):
    for name in ("f", "g"):
        await store.create_flow(
            plan_flow(
                QUEUE,
                name,
                [node(f"{name}-split"), node(f"{name}-join", f"{name}-split", on_failure="continue")],
            )
        )
    first, second = (await store.claim(QUEUE, worker=WORKER, count=2)).jobs
    shared = NewJob(type="send", queue=queue, key="shared")
    assert ("succeeded", "") == await added(store, first, shared)
    await store.relay(QUEUE)
    if end != "unfinished":
        await work(store, dead=["shared"] if end == "dead" else [], queues=[queue])

    assert ("succeeded", "") == await added(store, second, shared)
    for _ in range(2):
        await store.relay(QUEUE)
    if end == "unfinished":
        assert ["blocked"] * 2 == await states_of(store, "f-join", "g-join")

    ran = await work(store, dead=["shared"] if end == "dead" else [], queues=[QUEUE, "other"])
    assert {"f-join", "g-join"} <= {*ran, *(["f-join"] if end != "unfinished" else [])}
    assert ["succeeded"] * 2 == await states_of(store, "f-join", "g-join")
    assert [0, 0] == [(await store.flow(QUEUE, name)).pending for name in "fg"]


async def test_a_job_of_another_queue_that_two_runs_add_at_once_is_waited_for_by_those_of_both(store):
    for name in "ab":
        await store.enqueue_one(NewJob(type="send", queue=QUEUE, key=name))
        await store.enqueue_one(
            NewJob(type="send", queue=QUEUE, key=f"after-{name}", after=[f"{QUEUE}:{name}"])
        )
    for job in (await store.claim(QUEUE, worker=WORKER, count=2)).jobs:
        assert ("succeeded", "") == await added(store, job, NewJob(type="send", queue="other", key="shared"))
    await store.relay(QUEUE)

    assert ["blocked"] * 2 == await states_of(store, "after-a", "after-b")
    await work(store, queues=["other", QUEUE])
    assert ["succeeded"] * 2 == await states_of(store, "after-a", "after-b")


@pytest.mark.parametrize("queue", [QUEUE, "other"])
async def test_what_an_added_job_has_added_is_waited_for_though_a_second_run_adds_it_after_its_end(
    store, clock, queue
):
    await store.enqueue_one(NewJob(type="send", queue=QUEUE, key="a"))
    await store.enqueue_one(NewJob(type="send", queue=queue, key="b", priority=-100))
    after = [f"{QUEUE}:a", f"{queue}:b"]
    await store.enqueue_one(NewJob(type="send", queue=QUEUE, key="last", after=after))
    shared = NewJob(type="send", queue=QUEUE, key="shared", priority=100)
    [job] = (await store.claim(QUEUE, worker=WORKER, count=1)).jobs
    assert ("succeeded", "") == await added(store, job, shared)
    [job] = (await store.claim(QUEUE, worker=WORKER, count=1)).jobs
    assert "shared" == job.key
    assert ("succeeded", "") == await added(
        store, job, NewJob(type="send", queue=QUEUE, key="more", priority=-99, delay_ms=1000)
    )
    [job] = (await store.claim(queue, worker=WORKER, count=1)).jobs
    assert ("succeeded", "") == await added(store, job, shared)

    for name in (queue, QUEUE, queue, QUEUE):
        await store.relay(name)
    assert ["blocked", "scheduled"] == await states_of(store, "last", "more")
    clock.advance(2)
    await work(store, queues=[QUEUE, "other"])
    assert ["succeeded"] * 2 == await states_of(store, "last", "more")


async def test_more_than_can_be_tied_is_refused_and_changes_nothing(store, redis):
    await store.create_flow(flow({"split": (), **{f"n{i}": ("split",) for i in range(50)}}))
    [job] = (await store.claim(QUEUE, worker=WORKER)).jobs
    before = await snapshot(redis)

    refused = await added(store, job, *(more(f"x{i}") for i in range(400)))

    assert ("wide", "mail:split") == refused
    assert before == await snapshot(redis)
    assert ("succeeded", "") == await added(store, job, *(more(f"x{i}") for i in range(300)))

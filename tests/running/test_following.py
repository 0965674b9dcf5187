"""Workers and jobs that wait for others: results are handed on, what a job adds comes in with its end."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.flow import Node, plan_flow
from scheduler.job import NewJob, State
from tests.running import jobs_in_processes as jobs
from tests.running.conftest import QUEUE, Bench

pytestmark = pytest.mark.parametrize("backend", ("fake", "valkey"), indirect=True)


def node(name: str, *after: str, payload: bytes = b"{}", queue: str = QUEUE, **fields: Any) -> Node:
    return Node(name, NewJob(type=name, queue=queue, key=name, payload=payload, **fields), after)


def more(key: str, n: int, queue: str = QUEUE) -> NewJob:
    return NewJob(type="part", queue=queue, key=key, payload=b'{"n": %d}' % n)


async def part(ctx, n: int) -> int:
    return n * n


async def total(ctx) -> dict[str, Any]:
    return dict(ctx.parents)


async def test_a_handler_gets_the_results_of_the_jobs_before_it_by_their_names(bench: Bench):
    async def first(ctx) -> dict[str, int]:
        return {"n": 1}

    async def nothing(ctx) -> None:
        return None

    for name, function in (("first", first), ("nothing", nothing), ("total", total)):
        bench.handler(name, function)
    bench.work()
    await bench.store.create_flow(
        plan_flow(QUEUE, "f", [node("first"), node("nothing"), node("total", "first", "nothing")])
    )

    assert b'{"first":{"n":1},"nothing":null}' == (await bench.ended("total")).result


async def test_who_waits_by_id_gets_them_by_id(bench: Bench):
    bench.handler("part", part)
    bench.handler("total", total)
    bench.work()
    key = await bench.enqueue("part", b'{"n": 3}')
    last = await bench.enqueue("total", after=[f"{QUEUE}:{key}"])

    assert f'{{"{QUEUE}:{key}":9}}'.encode() == (await bench.ended(last)).result


async def test_the_next_of_a_chain_starts_at_once(bench: Bench):
    bench.handler("step", total)
    bench.work()
    chain = [Node("0", NewJob(type="step", queue=QUEUE, key="n0"))]
    chain += [Node(str(n), NewJob(type="step", queue=QUEUE, key=f"n{n}"), [str(n - 1)]) for n in range(1, 20)]
    await bench.store.create_flow(plan_flow(QUEUE, "f", chain))

    await bench.ended("n19", seconds=20)


async def test_a_flow_crosses_to_the_worker_of_another_queue(bench: Bench):
    bench.handler("part", part)
    bench.handler("total", total)
    bench.work()
    bench.work(queues=["other"])
    nodes = [Node("a", NewJob(type="part", queue="other", key="a", payload=b'{"n": 2}')), node("total", "a")]
    await bench.store.create_flow(plan_flow(QUEUE, "f", nodes))

    assert b'{"a":4}' == (await bench.ended("total", seconds=20)).result


async def test_what_a_job_adds_is_done_before_what_comes_after_it(bench: Bench):
    async def split(ctx) -> None:
        for n in range(3):
            ctx.add(more(f"p{n}", n, "other" if n == 2 else QUEUE))

    for name, function in (("split", split), ("part", part), ("total", total)):
        bench.handler(name, function)
    bench.work(queues=[QUEUE, "other"])
    await bench.store.create_flow(plan_flow(QUEUE, "f", [node("split"), node("total", "split")]))

    found = (await bench.ended("total", seconds=20)).result
    assert b'{"mail:p0":0,"mail:p1":1,"split":null,"other:p2":4}' == found
    flow = await bench.store.flow(QUEUE, "f")
    assert ("succeeded", 5) == (flow.state, flow.succeeded)


async def test_a_failed_attempt_has_added_nothing(bench: Bench):
    async def split(ctx) -> None:
        ctx.add(more(f"p{ctx.attempt}", ctx.attempt))
        if ctx.attempt == 1:
            raise ValueError("no")

    bench.handler("split", split)
    bench.handler("part", part)
    bench.work()
    await bench.ended(await bench.enqueue("split"))
    await bench.ended("p2")

    assert [None] == await bench.store.inspect(QUEUE, ["p1"])


async def test_a_job_may_be_added_from_a_process_of_its_own(bench: Bench):
    bench.handler("adds", jobs.adds, process=True)
    bench.handler("part", part)
    bench.work()
    await bench.ended(await bench.enqueue("adds"))

    assert b"25" == (await bench.ended("from-a-process")).result


async def test_an_added_job_that_finds_no_room_is_tried_until_there_is(bench: Bench):
    async def split(ctx) -> None:
        ctx.add(more("p", 1))

    bench.handler("split", split)
    bench.handler("part", part)
    key = await bench.enqueue("split")
    await bench.store.configure(QUEUE, {"max_length": "0"})
    worker = bench.work(lease_ms=1_000)
    await bench.until(lambda: worker.fetchers[QUEUE].settled)
    began = (await bench.job(key)).started_at or 0

    async def held_for_long() -> bool:
        # Longer than its lease, which is held all the while.
        return ((await bench.job(key)).lease_expires_at or 0) > began + 2_000

    await bench.until(held_for_long)
    assert (State.RUNNING, 1) == ((await bench.job(key)).state, (await bench.job(key)).attempt)

    await bench.store.configure(QUEUE, {"max_length": ""})

    assert State.SUCCEEDED == (await bench.ended(key)).state
    await bench.ended("p")


async def test_an_added_job_of_anothers_id_is_a_failure_that_says_so(bench: Bench):
    async def split(ctx) -> None:
        ctx.add(more("taken", 1))

    bench.handler("split", split)
    await bench.store.enqueue(QUEUE, [NewJob(type="other", queue=QUEUE, key="taken", delay_ms=3_600_000)])
    bench.work()
    job = await bench.ended(await bench.enqueue("split", retry={"max_attempts": 1}))

    assert State.DEAD == job.state
    assert "mail:taken is the id of another job" in job.errors[-1].message

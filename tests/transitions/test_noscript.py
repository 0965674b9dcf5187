"""A server may lose its scripts at any time (restart, failover, SCRIPT FLUSH): no caller notices."""

import pytest

from scheduler.errors import StoreRefused
from scheduler.outcomes import Ack
from scheduler.scripts import all_scripts
from scheduler.store import Store
from tests.helpers import (
    QUEUE,
    WORKER,
    Clock,
    claimed,
    enqueued,
    new,
    on_real_servers,
    race,
    raw,
    snapshot,
    state_of,
    states_of,
    take,
)
from tests.transitions.cases import CASES, world


async def test_a_call_after_a_flush_loads_the_scripts_again(store, redis):
    await enqueued(store, "a")
    await redis.script_flush()

    assert "ready" == await state_of(store)
    await redis.script_flush()
    assert ["a"] == [job.key for job in await take(store)]


async def test_every_script_of_a_pipeline_is_sent_again_and_none_twice(store, redis):
    await enqueued(store, "a", "b", "c")
    a, b = await take(store, 2)
    await redis.script_flush()

    acks, new_job, claim = await store.run_all([
        store.ack_call(QUEUE, [Ack("a", a.token), Ack("b", b.token)], worker=WORKER),
        store.enqueue_call(QUEUE, [new("d")]),
        store.claim_call(QUEUE, worker=WORKER, turn=1, count=5, lease_ms=30_000),
    ])  # fmt: skip
    assert ["succeeded", "succeeded"] == acks
    assert ["ready"] == [job.outcome for job in new_job]
    assert ["c", "d"] == [job.key for job in claim.jobs]


async def test_a_flush_within_a_pipeline_costs_nothing_and_does_nothing_twice(store, redis):
    await enqueued(store, "a", "b")
    call = store.claim_call(QUEUE, worker=WORKER, turn="", count=1, lease_ms=30_000)
    pipe = redis.pipeline(transaction=False)
    pipe.execute_command(*store._command(call))
    pipe.script_flush()
    await pipe.execute()

    [claim] = await store.run_all([call])
    assert ["b"] == [job.key for job in claim.jobs]
    assert ["running", "running"] == await states_of(store, "a", "b")


async def test_one_bad_call_of_a_pipeline_spoils_no_other(store):
    [bad, good] = await store.run_all(
        [store.enqueue_call(QUEUE, [new("a", type="")]), store.enqueue_call(QUEUE, [new("b")])]
    )

    assert isinstance(bad, StoreRefused)
    assert [("ready", True)] == [(job.outcome, job.new_queue) for job in good]


async def test_a_server_that_loses_its_scripts_between_loading_and_sending_is_not_noticed(store, redis):
    class Unlucky(Store):
        async def load(self) -> None:
            await super().load()
            await redis.script_flush()

    unlucky = Unlucky(store.clients, now=store._now)
    await unlucky.connect()

    await enqueued(unlucky, "a", "b")
    assert ["a", "b"] == [job.key for job in await take(unlucky, 5)]


@on_real_servers
async def test_flushed_by_each_other_all_the_time_nobody_fails(store, another_store, redis):
    async def work(each: Store, worker: str) -> int:
        count = turn = 0
        while count < 40:
            turn += 1
            await redis.script_flush()
            jobs = await take(each, 5, worker=worker, turn=turn)
            acks = [each.ack_call(QUEUE, [Ack(job.key, job.token)], worker=worker) for job in jobs]
            assert [["succeeded"]] * len(jobs) == await each.run_all(acks)
            count += len(jobs)
        return count

    await store.enqueue(QUEUE, [new(f"k{n}") for n in range(80)])
    assert [40, 40] == await race(work(store, "w1"), work(another_store, "w2"))
    assert 80 == (await store.census(QUEUE)).counts["succeeded"]


async def test_two_stores_at_once_after_a_flush(store, another_store, redis):
    await redis.script_flush()

    await race(
        *(
            each.enqueue(QUEUE, [new(f"{n}-{m}")])
            for n, each in enumerate([store, another_store])
            for m in range(5)
        )
    )
    assert 10 == (await store.census(QUEUE)).counts["ready"]


async def test_a_store_that_was_never_connected_connects_by_itself(clients, clock):
    store = Store(clients, now=clock)
    await enqueued(store, "a")

    assert "ready" == await state_of(store)


@on_real_servers
async def test_the_server_knows_the_flags_of_every_script(store, redis):
    for name, script in all_scripts().items():
        assert script.flagged.startswith(b"#!lua")
        assert [True] == await redis.script_exists(store._bodies[name][1])


@pytest.mark.unverified
@on_real_servers
async def test_both_protocols_have_the_same_replies(servers, backend, store, redis, clock):
    replies = []
    for protocol in (2, 3):
        clients = await servers.open(backend, query=f"?protocol={protocol}")
        each = Store(clients, now=(its_clock := Clock()))
        await each.connect()
        for case in CASES:
            await redis.flushall()
            its_clock.now = clock.now
            args = case.args(await world(each, its_clock))
            replies.append((protocol, case.name, await raw(each, case.script, *args)))
        await clients.close()

    two, three = (
        [(name, reply) for protocol, name, reply in replies if protocol == wanted] for wanted in (2, 3)
    )
    assert two == three


@on_real_servers
async def test_a_whole_life_is_the_same_by_both_protocols(servers, backend, store, redis):
    seen = []
    for protocol in (2, 3):
        await redis.flushall()
        clients = await servers.open(backend, query=f"?protocol={protocol}")
        each = Store(clients, now=store._now)
        await each.connect()
        job = await claimed(each, payload=b"[1]")
        await each.ack(QUEUE, [Ack("a", job.token, b"2")], worker=WORKER)
        content = await snapshot(redis)
        del content["{scheduler:mail}:events"]  # whose ids are the time
        seen.append((job, await each.job(QUEUE, "a"), await each.census(QUEUE), content))
        await clients.close()

    assert seen[0] == seen[1]

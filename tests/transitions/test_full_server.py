"""A full server refuses producers, and workers go on and make room."""

import pytest

from scheduler.errors import StoreFull
from scheduler.operations import Operations, Plan
from scheduler.outcomes import Bury, Extend, Nack, Note, Release
from scheduler.store import Store
from tests.helpers import (
    QUEUE,
    WORKER,
    acked,
    enqueued,
    in_state,
    new,
    on_real_servers,
    snapshot,
    swept,
    take,
)

pytestmark = on_real_servers


class Old(Store):
    """A store that takes its server for one that knows no flags, such as Redis 6."""

    async def _knows_flags(self) -> bool:
        return False


@pytest.fixture(params=[Store, Old], ids=["flags", "no flags"])
async def full(request, clients, clock, redis):
    """A store, a function that fills its server, and room again afterwards."""
    store = request.param(clients, now=clock)
    await store.connect()
    assert (request.param is Store) == store.flagged

    async def fill() -> None:
        used = (await redis.info("memory"))["used_memory"]
        await redis.config_set("maxmemory", max(1, used - 100_000))

    yield store, fill
    await redis.config_set("maxmemory", 0)


async def test_a_full_server_refuses_what_brings_new_bytes_and_nothing_changes(full, redis):
    store, fill = full
    await in_state(store, "dead", "dead")
    await enqueued(store, "running", "ready", "more")
    [job] = await take(store)
    await fill()
    before = await snapshot(redis)

    for refused in (
        lambda: store.enqueue(QUEUE, [new("b")]),
        lambda: store.enqueue_one(new("b")),
        lambda: store.update(QUEUE, "ready", payload=b"[1]"),
        lambda: (
            store.replay(QUEUE, [("dead", b"[1]")]) if store.flagged else store.enqueue(QUEUE, [new("c")])
        ),
        lambda: store.note(QUEUE, [Note("running", job.token, "log", b"line")]),
        lambda: store.note(QUEUE, [Note("running", job.token, "progress", b"1")]),
    ):
        with pytest.raises(StoreFull):
            await refused()
    assert before == await snapshot(redis)


async def test_a_full_server_is_purged_by_an_operation_and_others_hear_of_it_when_there_is_room(
    full, clock, redis
):
    store, fill = full
    await in_state(store, "dead", "dead")
    await enqueued(store, *(f"r{n}" for n in range(499)))
    await enqueued(store, *(f"s{n}" for n in range(400)))
    clock.advance(1)
    await fill()
    operations = Operations(store, "me")

    operation = await operations.begin(QUEUE, Plan(act="purge", states=("dead", "ready")))
    assert set() == await store.operations_told()
    operation = await operations.first_page(operation)
    await redis.config_set("maxmemory", 0)
    await operations.duty().do()
    assert {(QUEUE, operation.id)} == await store.operations_told()
    await operations.idle()

    assert ("done", 900) == ((now := await store.operation(QUEUE, operation.id)).state, now.done)
    assert set() == await store.operations_told()


async def test_on_a_full_server_every_other_verb_goes_on(full, clock, redis):
    store, fill = full
    await store.configure(QUEUE, {"keep_succeeded_count": "100"})
    await store.reclaim(QUEUE)
    await in_state(store, "dead", "dead")
    await in_state(store, "scheduled", "scheduled")
    await enqueued(store, "due", delay_ms=1)
    await enqueued(store, *(f"k{n}" for n in range(12)))
    clock.advance(0.001)
    await fill()

    jobs = {job.key: job for job in await take(store, 12, turn=1)}
    assert 12 == len(jobs)
    tokens = [(key, jobs[key].token) for key in (f"k{n}" for n in range(11))]
    held = iter(tokens)
    assert ["running"] * 11 == await store.extend(QUEUE, [Extend(*each, 31_000) for each in tokens])
    assert "succeeded" == await acked(store, jobs["k0"], b"1")
    next(held)
    assert ["ready"] == await store.nack(QUEUE, [Nack(*next(held), "E", "m")], worker=WORKER)
    assert ["retrying"] == await store.nack(
        QUEUE, [Nack(*next(held), "E", "m", retry_in_ms=9)], worker=WORKER
    )
    assert ["dead"] == await store.bury(QUEUE, [Bury(*next(held), "E", "m")], worker=WORKER)
    assert ["ready"] == await store.release(QUEUE, [Release(*next(held))], worker=WORKER)
    assert ["scheduled"] == await store.release(QUEUE, [Release(*next(held), 9, "snooze")], worker=WORKER)
    assert ["running"] == await store.cancel(QUEUE, ["k6"])
    assert ["cancelled"] == await store.cancel(QUEUE, ["scheduled"])
    assert ["ready"] == await store.replay(QUEUE, [("dead", None)])
    clock.advance(0.009)
    assert (2, False) == await store.promote(QUEUE)
    assert ["gone"] == await store.purge(QUEUE, ["k3"])
    await store.configure(QUEUE, {"keep_succeeded_count": "0"})
    assert (1, False) == await store.expire(QUEUE)
    clock.advance(32)
    assert 6 == await swept(store, clock)


async def test_an_idle_worker_of_a_full_server_waits_as_on_any_other(full, clock):
    store, fill = full
    await enqueued(store, "a", delay_ms=1000)
    await fill()

    found = await store.claim(QUEUE, worker=WORKER, turn=1)
    assert ([], 1000, True) == (found.jobs, found.wait_ms, found.sweep)


async def test_a_sweep_of_a_full_server_begins_and_ends_its_grace(full, clock, redis):
    """On a server that knows no flags its first write must be one that is never refused."""
    store, fill = full
    await enqueued(store, "a")
    await take(store)
    clock.advance(31)
    await fill()

    assert 1 == await swept(store, clock)


async def test_a_full_server_drains_and_then_takes_jobs_again(full, clock, redis):
    store, fill = full
    await store.configure(QUEUE, {"keep_succeeded_count": "0"})
    for first in range(0, 2000, 500):
        await store.enqueue(QUEUE, [new(f"k{n}", payload=b"x" * 1000) for n in range(first, first + 500)])
    await fill()
    with pytest.raises(StoreFull):
        await store.enqueue(QUEUE, [new("b")])

    turn = done = 0
    while jobs := await take(store, 100, turn=(turn := turn + 1)):
        for job in jobs:
            assert "succeeded" == await acked(store, job)
        done += len(jobs)
        clock.advance(61)
        await store.expire(QUEUE, limit=500)
    assert 2000 == done
    assert ["ready"] == [job.outcome for job in await store.enqueue(QUEUE, [new("b")])]


async def test_a_store_connects_to_a_full_server(full, clients, clock, redis):
    _, fill = full
    await redis.unlink("{scheduler}:layout")
    await fill()

    store = Store(clients, now=clock)
    await store.connect()
    with pytest.raises(StoreFull):
        await store.enqueue(QUEUE, [new("b")])

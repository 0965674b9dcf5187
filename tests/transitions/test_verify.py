"""Does every job stand in exactly one set? And what is done about it when not."""

import pytest

from scheduler.limits import Breaker
from scheduler.outcomes import TypePolicy
from tests.helpers import (
    QUEUE,
    STATES,
    acked,
    claimed,
    enqueued,
    in_every_state,
    in_state,
    keys,
    nacked,
    new,
    raw,
    snapshot,
    state_of,
    swept,
    take,
)
from tests.transitions.cases import world

pytestmark = pytest.mark.unverified


async def found(store, *, repair: bool = False) -> set[tuple[str, str]]:
    return {(fault.id, fault.what) async for fault in store.verify(QUEUE, repair=repair)}


async def repaired(store, redis) -> None:
    """A repair puts everything right at once, and finds nothing more to do."""
    assert all([fault.repaired async for fault in store.verify(QUEUE, repair=True)])
    before = await snapshot(redis)
    assert set() == await found(store)
    assert set() == await found(store, repair=True)
    assert before == await snapshot(redis)


async def test_a_queue_in_order_has_no_faults_and_looking_changes_nothing(store, redis, clock):
    await world(store, clock)
    before = await snapshot(redis)

    assert set() == await found(store)
    assert before == await snapshot(redis)


@pytest.mark.parametrize("state", STATES)
async def test_a_job_that_fell_out_of_its_set_is_ready_again(store, redis, state):
    await in_state(store, state)
    await redis.zrem(keys().at(state), "a")

    assert ("a", "stands in no set") in await found(store)
    await repaired(store, redis)
    assert "ready" == await state_of(store)
    assert ["a"] == [job.key for job in await take(store)]


async def test_a_repair_rings_for_what_it_made_ready(store, redis):
    await enqueued(store, "a")
    await redis.unlink(keys().at("ready"), keys().at("bell"))
    await repaired(store, redis)

    assert 1 == await redis.llen(keys().at("bell"))


@pytest.mark.parametrize(
    ("stands", "besides"),
    [(a, b) for a in STATES for b in STATES if a != b and a in {"running", "succeeded"}],
)
async def test_of_two_sets_the_one_stays_that_the_records_speak_for(store, redis, clock, stands, besides):
    await in_state(store, stands)
    await redis.zadd(keys().at(besides), {"a": clock.now})

    assert 1 == len({fault for fault in await found(store) if "stands in" in fault[1]})
    await repaired(store, redis)
    assert stands == await state_of(store)


async def test_in_three_sets_only_one_is_left(store, redis, clock):
    await enqueued(store, "a")
    for state in ("scheduled", "dead"):
        await redis.zadd(keys().at(state), {"a": clock.now})

    assert ("a", "stands in ready, scheduled, dead") in await found(store)
    await repaired(store, redis)
    assert "ready" == await state_of(store)


@pytest.mark.parametrize("state", STATES)
async def test_an_id_without_a_record_goes(store, redis, state):
    await in_state(store, state)
    await redis.hdel(keys().at("jobs"), "a")

    assert ("a", "has no record") in await found(store)
    await repaired(store, redis)
    assert await state_of(store) is None
    assert 0 == await redis.zcard(keys().at(state))


async def test_a_running_job_without_a_lease_has_run_out(store, redis, clock):
    await claimed(store)
    await redis.hdel(keys().at("leases"), "a")

    assert {("a", "runs without a lease")} == await found(store)
    await found(store, repair=True)
    assert 1 == await swept(store, clock)
    assert ("ready", set()) == (await state_of(store), await found(store))


async def test_a_lease_of_a_job_that_does_not_run_goes(store, redis):
    await enqueued(store, "a")
    await redis.hset(keys().at("leases"), "a", "1|w|1|1|1|1||1|0|")

    assert {("a", "has a lease but does not run")} == await found(store)
    await repaired(store, redis)
    assert ("ready", 0) == (await state_of(store), await redis.hlen(keys().at("leases")))


@pytest.mark.parametrize("structure", ["leases", "attempts", "results"])
async def test_what_belongs_to_no_job_goes(store, redis, structure):
    await enqueued(store, "a")
    await redis.hset(keys().at(structure), "stray", "1")

    assert ("stray", "belongs to no job") in await found(store)
    await repaired(store, redis)
    assert 0 == await redis.hlen(keys().at(structure))


async def test_a_result_of_a_job_that_did_not_succeed_goes(store, redis):
    await in_state(store, "dead")
    await redis.hset(keys().at("results"), "a", "1|0|0|1|ack|succeeded|1|w||0|0\n1")

    assert {("a", "has a result but did not succeed")} == await found(store)
    await repaired(store, redis)
    assert "dead" == await state_of(store)


async def test_a_job_that_stands_is_not_known_as_gone(store, redis, clock):
    await enqueued(store, "a")
    await redis.hset(keys().at("known"), "a", f"{clock.now}|dead|1\nsend|||1|||\n")
    await redis.zadd(keys().at("expiries"), {"a": clock.now})

    assert {("a", "is known as gone but stands")} == await found(store)
    await repaired(store, redis)
    assert ("ready", 0) == (await state_of(store), await redis.zcard(keys().at("expiries")))


async def probing(store, clock):
    """A run with a group that is the only probe of its type's breaker; one job more waits."""
    policy = TypePolicy(retry={"max_attempts": 1}, breaker=Breaker(minimum=1, open_ms=1_000, probes=1))
    await store.configure_type(QUEUE, "send", policy)
    await nacked(store, await claimed(store, "failed"))
    clock.advance(1)
    await enqueued(store, "a", "b", group="g")
    [probe] = await take(store, 2)
    assert [] == await take(store)
    return probe


async def test_a_probe_that_its_breaker_does_not_count_is_counted_again(store, redis, clock):
    probe = await probing(store, clock)
    await redis.zrem(keys().at("slots"), "bsend a")

    assert {("a", "is a probe that its breaker does not count")} == await found(store)
    await repaired(store, redis)
    assert [] == await take(store)
    await acked(store, probe)
    assert ["b"] == [job.key for job in await take(store)]


@pytest.mark.parametrize("slot", ["tsend a", "gg a"])
async def test_a_run_without_a_slot_has_it_again(store, redis, clock, slot):
    await probing(store, clock)
    await redis.zrem(keys().at("slots"), slot)

    assert {("a", "runs without a slot")} == await found(store)
    await repaired(store, redis)
    assert await redis.zscore(keys().at("slots"), slot) is not None


@pytest.mark.parametrize("slot", ["tsend b", "gg b", "bsend b", "tother a", "gother a", "bother a", "x", ""])
async def test_a_slot_that_no_run_holds_goes(store, redis, clock, slot):
    await probing(store, clock)
    slots = await redis.zrange(keys().at("slots"), 0, -1)
    await redis.zadd(keys().at("slots"), {slot: 0})

    assert {(slot, "is a slot that no run holds")} == await found(store)
    await repaired(store, redis)
    assert slots == await redis.zrange(keys().at("slots"), 0, -1)


async def test_the_slots_of_a_run_are_its_own_though_its_record_is_damaged(store, redis, clock):
    await probing(store, clock)
    before = await redis.zrange(keys().at("slots"), 0, -1)
    await redis.hset(keys().at("jobs"), "a", "nonsense")

    assert not {fault for fault in await found(store, repair=True) if "slot" in fault[1]}
    assert before == await redis.zrange(keys().at("slots"), 0, -1)


async def test_a_probe_that_lost_its_lease_keeps_no_slot_when_it_is_taken_back(store, redis, clock):
    await probing(store, clock)
    await redis.hdel(keys().at("leases"), "a")
    clock.advance(60)
    assert 1 == await swept(store, clock)

    assert [] == await redis.zrange(keys().at("slots"), 0, -1)
    assert ["b"] == [job.key for job in await take(store, 2)]


async def in_turns(store):
    """A long line, a short one, and one that has come to its end: answers who runs then, in order."""
    await enqueued(store, "c", group="c")
    await enqueued(store, *(f"a{n}" for n in range(12)), group="a")
    await enqueued(store, "b0", "b1", group="b")
    assert ["a0", "b0", "c"] == [job.key for job in await take(store, 3)]
    return ["a1", "b1", *(f"a{n}" for n in range(2, 12))]


@pytest.mark.parametrize(
    ("member", "score"),
    [
        ("a1", None),
        ("a1", 90),
        ("a5", None),
        ("a5", 3),
        ("a7", None),
        ("a +", None),
        ("a +", 4),
        ("a .", 9),
        ("b1", None),
        ("b .", None),
        ("b +", 2),
        ("a10", 8),
        ("a11", 500),
    ],
)
async def test_turns_that_are_not_those_of_a_lines_first_jobs_are_booked_anew(store, redis, member, score):
    order = await in_turns(store)
    lane = {job.split()[-1]: job for job in map(bytes.decode, await redis.zrange(keys().at("lanes"), 0, -1))}
    name = lane.get(member, member)
    if score is None:
        assert 1 == await redis.zrem(keys().at("turns"), name)
    else:
        await redis.zadd(keys().at("turns"), {name: score})

    whats = {what for _, what in await found(store)}
    assert whats
    assert whats <= {
        "is first of a group whose turns are not its first jobs', one by one",
        "is a turn without a job",
    }
    await repaired(store, redis)
    assert sorted(order) == sorted(job.key for job in await take(store, 20))


async def test_of_a_line_no_more_than_its_first_eight_jobs_have_their_turns(store, redis):
    await enqueued(store, *(f"a{n}" for n in range(9)), group="a")
    last = (await redis.zrange(keys().at("lanes"), -1, -1))[0]
    await redis.zrem(keys().at("turns"), "a +")
    await redis.zadd(keys().at("turns"), {last: 8, "a .": 9})

    assert {what for _, what in await found(store)} >= {"is a turn without a job"}
    await repaired(store, redis)
    assert 8 == await redis.zscore(keys().at("turns"), "a +")
    assert [f"a{n}" for n in range(9)] == [job.key for job in await take(store, 20)]


@pytest.mark.parametrize("key", ["a1", "a5", "a9", "a11", "b1"])
async def test_a_job_that_fell_out_of_its_line_stands_there_again(store, redis, key):
    order = await in_turns(store)
    [member] = [m for m in await redis.zrange(keys().at("lanes"), 0, -1) if m.endswith(f" {key}".encode())]
    await redis.zrem(keys().at("lanes"), member)

    assert (key, "is ready but in no lane") in await found(store)
    await repaired(store, redis)
    assert sorted(order) == sorted(job.key for job in await take(store, 20))


@pytest.mark.parametrize(
    "member", ["a 10000000000000000 x", "a 11800000000000000 b1", "zz 11800000000000000 a1", "b 1"]
)
async def test_what_stands_in_a_line_that_is_not_its_own_leaves_it(store, redis, member):
    order = await in_turns(store)
    await redis.zadd(keys().at("lanes"), {member: 0})

    assert (member, "stands in a lane that is not its own") in await found(store)
    await repaired(store, redis)
    assert order == [job.key for job in await take(store, 20)]


@pytest.mark.parametrize("limited", [False, True])
async def test_a_job_whose_record_names_another_group_is_in_its_line_though_the_queue_is_being_filed(
    store, redis, limited
):
    for n in range(2):
        await store.enqueue(QUEUE, [new(f"k{n}.{i}") for i in range(300)])
    await enqueued(store, "a", group="a")
    if limited:
        await store.configure(QUEUE, {"concurrency": "1000"})
    await take(store)
    await redis.hset(keys().at("jobs"), "k0.9", "send|| g:zz|1800000000000|||\n\nnull")
    _ = [fault async for fault in store.verify(QUEUE, repair=True)]

    found = 1
    for _ in range(3):
        found += len(await take(store, 250))
    assert 601 == found


@pytest.mark.parametrize("member", ["a 10000000000000000 x", "zz", "zz 1 2", "zz +", "b 12"])
async def test_a_turn_without_a_job_goes(store, redis, member):
    order = await in_turns(store)
    await redis.zadd(keys().at("turns"), {member: 7})

    found_there = await found(store)
    await repaired(store, redis)
    assert (member, "is a turn without a job") in found_there
    assert order == [job.key for job in await take(store, 20)]


async def test_every_fault_of_a_large_queue_is_found_page_by_page(store, redis, backend):
    count = 200 if backend == "fake" else 2000
    await store.enqueue(QUEUE, [new(f"k{n}") for n in range(count)])
    lost = [f"k{n}" for n in range(0, count, 7)]
    await redis.zrem(keys().at("ready"), *lost)

    assert {(key, "stands in no set") for key in lost} == await found(store)
    if backend != "fake":  # which scans a hash in one go
        assert int((await raw(store, "verify", "jobs", "0", 100, ""))[1]) < 500


async def test_without_repair_nothing_is_touched(store, redis, clock):
    await in_every_state(store)
    for state in STATES:
        await redis.zadd(keys().at("ready"), {state: clock.now})
    before = await snapshot(redis)

    assert len(STATES) - 1 == len(await found(store))
    assert before == await snapshot(redis)


async def test_a_queue_that_is_not_there_has_no_faults(store, redis):
    before = await snapshot(redis)

    assert set() == await found(store, repair=True)
    assert before == await snapshot(redis)

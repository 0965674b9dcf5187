"""How much there is to do for workers: what may start, what is held and by what; read only."""

from random import Random

import pytest

from scheduler.demand import demand
from scheduler.errors import NotFound
from scheduler.presence import Presence
from tests.helpers import QUEUE, acked, claimed, enqueued, keys, new, on_real_servers, raw, snapshot, take
from tests.transitions.test_limits import limit


async def work(store, **options):
    found = await store.demand(QUEUE, **options)
    return found.runnable, dict(found.held), found.exact


async def test_a_queue_that_is_not_there_is_not_found(store):
    with pytest.raises(NotFound):
        await store.demand(QUEUE)


async def test_in_a_plain_queue_all_that_is_ready_may_start(store, redis, clock):
    await enqueued(store, "a", "b", "c")
    await enqueued(store, "later", delay_ms=60_000)
    await take(store)
    clock.advance(4)
    before = await snapshot(redis)

    found = await store.demand(QUEUE)
    assert (2, {}, True) == await work(store)
    assert 1 == found.running
    assert found.since is not None
    assert 4_000 == pytest.approx(found.now - found.since, abs=5)
    assert before == await snapshot(redis)


async def test_a_pause_holds_everything(store):
    await enqueued(store, "a", "b")
    await store.configure(QUEUE, {"paused": "1"})

    assert (0, {"queue_paused": 2}, True) == await work(store)
    assert None is (await store.demand(QUEUE)).since


async def test_of_a_limit_with_some_room_the_rest_is_held(store, redis, clock):
    await limit(redis, types={"send": "|3|||||", "slow": "||1|10000|1||", "off": "|||||1|"})
    await enqueued(store, *(f"a{n}" for n in range(5)))
    await enqueued(store, *(f"s{n}" for n in range(4)), type="slow")
    await enqueued(store, "o1", "o2", type="off")
    await enqueued(store, "free", type="free")
    await take(store, 1)

    held = {"concurrency_limited": 2, "rate_limited": 2, "type_paused": 2}
    assert (5, held, True) == await work(store)
    assert 6 == len(await take(store, 10)) + 1


async def test_what_it_counts_is_what_a_claim_gives(store, redis):
    await limit(redis, queue={"group_concurrency": "2"}, groups={"c": "|||||1"})
    for group in ("a", "b", "c", "d"):
        await enqueued(store, *(f"{group}{n}" for n in range(3)), group=group)
        await enqueued(store, *(f"{group}x{n}" for n in range(3)), group=group, type="other")
    runnable, held, exact = await work(store)

    assert (6, 6, True) == (runnable, held["group_paused"], exact)
    assert 24 == runnable + sum(held.values())
    assert runnable == len(await take(store, 30))
    assert 0 == (await work(store))[0]


def some_limits(random):
    """Limits of a queue, some of its types and some of its groups, as `limit` takes them."""

    def slots():
        return random.choice(["", "", "1", "2", "3"])

    def rate():
        return random.choice(["||", "||", "1|1000|0", "5|1000|2"])

    def pause():
        return random.choice(["", "", "1"])

    queue = {"concurrency": "7", "rate": "5|1000|5", "group_concurrency": "2", "group_rate": "2|1000|1"}
    return {
        "queue": {name: value for name, value in queue.items() if random.random() < 0.3},
        "types": {f"t{n}": f"|{slots()}|{rate()}|{pause()}|" for n in range(3) if random.random() < 0.6},
        "groups": {f"g{n}": f"2|{slots()}|{rate()}|{pause()}" for n in range(4) if random.random() < 0.4},
    }


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_the_limits_it_counts_what_claims_give(store, redis, clock, seed):
    random = Random(seed)
    await limit(redis, **some_limits(random))
    for n in range(random.randint(1, 40)):
        group = random.choice([None, "g0", "g1", "g2", "g3"])
        await enqueued(
            store, f"j{n}", type=f"t{random.randrange(4)}", group=group, priority=random.choice([0, 1])
        )
    for _ in range(random.randint(0, 4)):
        for job in await take(store, random.randint(1, 5)):
            if random.random() < 0.5:
                await acked(store, job)
        clock.advance(random.choice([0, 0.05, 0.3]))

    found, ready = await store.demand(QUEUE), (await store.census(QUEUE)).counts["ready"]
    given = 0
    while jobs := await take(store, 50):
        given += len(jobs)
    assert ready == found.runnable + sum(found.held.values())
    assert given == (found.runnable if found.exact else pytest.approx(found.runnable, abs=3))


async def test_the_room_of_the_queue_is_the_most_that_may_start(store, redis):
    await limit(redis, queue={"concurrency": "3"})
    await enqueued(store, *(f"a{n}" for n in range(5)))
    await take(store, 1)

    assert (2, {"concurrency_limited": 2}, True) == await work(store)


async def test_the_oldest_that_may_start_is_not_the_oldest_that_is_held(store, redis, clock):
    await limit(redis, types={"off": "|||||1|"})
    await enqueued(store, "held", type="off")
    clock.advance(10)
    await enqueued(store, "a", type="x")
    clock.advance(10)
    await enqueued(store, "b")

    found = await store.demand(QUEUE)
    assert found.since is not None
    assert 10_000 == pytest.approx(found.now - found.since, abs=5)


async def test_beyond_its_limit_what_is_not_looked_at_counts_as_the_rest_does(store, redis):
    await limit(redis, queue={"group_concurrency": "1"})
    for n in range(10):
        await enqueued(store, f"g{n}a", f"g{n}b", group=f"g{n}")

    assert (10, {"concurrency_limited": 10}, True) == await work(store)
    assert (10, {"concurrency_limited": 10}, False) == await work(store, limit=4)


async def test_what_one_type_needs_no_look_for_is_looked_at_of_another(store, redis):
    await limit(redis, queue={"group_concurrency": "1"})
    await enqueued(store, "1", type="few", group="g0")
    for n in range(7):
        await enqueued(store, f"g{n}a", f"g{n}b", type="many", group=f"g{n}")

    held = {"concurrency_limited": 8}
    assert (7, held, True) == await work(store, limit=2 + 1 + 7)
    assert (7, held, False) == await work(store, limit=2 + 1 + 6)


@on_real_servers
@pytest.mark.parametrize("most", [1, 20, 50])
async def test_it_looks_at_no_more_types_and_lanes_than_its_limit(store, redis, most):
    await limit(redis, queue={"group_concurrency": "1"})
    for n in range(40):
        await store.enqueue(QUEUE, [new(f"{n}-{g}", type=f"t{n}", group=f"g{n}-{g}") for g in range(3)])
    await redis.config_resetstat()

    assert not (await work(store, limit=most))[2]
    looks = (await redis.info("commandstats"))["cmdstat_zrangebylex"]["calls"]
    assert 2 <= looks <= most + 1


async def test_types_beyond_its_limit_may_start_for_all_it_knows(store, redis):
    await limit(redis, types={"a": "|||||1|", "b": "|||||1|"})
    await enqueued(store, "1", type="a")
    await enqueued(store, "2", type="b")

    assert (1, {"type_paused": 1}, False) == await work(store, limit=1)


async def test_jobs_that_are_not_filed_yet_may_start_for_all_it_knows(store, redis):
    await enqueued(store, "a", "b")
    await limit(redis, types={"send": "|||||1|"})

    assert (2, {}, False) == await work(store)


@pytest.mark.parametrize("wrong", ["0", "501", "x"])
async def test_a_limit_out_of_its_range_is_refused(store, wrong):
    with pytest.raises(Exception, match="BATCH limit is"):
        await raw(store, "demand", wrong)


async def test_slots_are_those_of_the_workers_that_serve_the_queue(store, redis, clock):
    presence = Presence(store)
    await presence.sign("w-1", {"queues": [QUEUE, "other"], "concurrency": 10}, 60_000)
    await presence.sign("w-2", {"queues": [QUEUE], "concurrency": 5}, 60_000)
    await presence.sign("w-3", {"queues": ["other"], "concurrency": 100}, 60_000)
    await enqueued(store, "a", "b", "c")
    await take(store)

    document = (await demand(store, presence, QUEUE)).document()
    assert ({"used": 1, "total": 15}, 2) == (document["slots"], document["workers"])


async def test_work_is_what_may_start_times_what_the_last_ones_took(store, clock):
    presence = Presence(store)
    await enqueued(store, "a")
    empty = (await demand(store, presence, QUEUE)).document()
    assert (1, None) == (empty["work_seconds"], empty["mean_run"])
    [job] = await take(store)
    clock.advance(4)
    await acked(store, job)
    other = await claimed(store, "b")
    clock.advance(2)
    await acked(store, other)
    await enqueued(store, "c", "d")

    document = (await demand(store, presence, QUEUE)).document()
    assert (3, 6) == (document["mean_run"], document["work_seconds"])


async def test_a_record_of_nonsense_is_no_hindrance(store, redis):
    await limit(redis, types={"send": "|1|||||"})
    await enqueued(store, "a", "b")
    await redis.hset(keys().at("jobs"), "a", "nonsense")

    assert (1, {"concurrency_limited": 1}, True) == await work(store)
    await redis.hset(keys().at("jobs"), "a", await redis.hget(keys().at("jobs"), "b"))

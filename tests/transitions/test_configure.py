"""The queue's configuration, and a type's policy, as it is from now on."""

import pytest

from scheduler.errors import Changed
from scheduler.limits import UNLIMITED, Breaker, GroupPolicy, Rate
from scheduler.outcomes import TypePolicy
from tests.helpers import QUEUE, enqueued, events, keys, on_real_servers, race, rings, snapshot


async def config(store) -> dict[str, str]:
    return {
        name: value
        for name, value in (await store.census(QUEUE)).config.items()
        if name not in {"created", "version", "lanes", "slots"}
    }


async def test_a_configuration_makes_a_queue_and_registers_it(store, clock):
    assert 1 == await store.configure(QUEUE, {})

    assert [QUEUE] == await store.queues()
    assert str(clock.now) == (await store.census(QUEUE)).config["created"]


async def test_fields_are_set_and_lifted(store):
    assert 1 == await store.configure(QUEUE, {"paused": "1", "keep_dead_count": "5"})
    assert {"paused": "1", "keep_dead_count": "5"} == await config(store)

    assert 2 == await store.configure(QUEUE, {"paused": "", "keep_dead_age": "7"})
    assert {"keep_dead_count": "5", "keep_dead_age": "7"} == await config(store)


@pytest.mark.parametrize(
    "changes", [{"paused": "1"}, {"paused": ""}, {}, {"keep_dead_count": "5", "paused": ""}]
)
async def test_the_same_again_changes_nothing(store, redis, clock, changes):
    await store.configure(QUEUE, {"keep_dead_count": "5"})
    version = await store.configure(QUEUE, changes)
    before = await snapshot(redis)
    clock.advance(1)

    assert version == await store.configure(QUEUE, changes)
    assert before == await snapshot(redis)


async def test_a_version_that_does_not_fit_is_refused_and_changes_nothing(store, redis):
    await store.configure(QUEUE, {"paused": "1"})
    await store.configure(QUEUE, {"paused": ""}, expect=1)
    before = await snapshot(redis)

    with pytest.raises(Changed):
        await store.configure(QUEUE, {"paused": "1"}, expect=1)
    with pytest.raises(Changed):
        await store.configure_type(QUEUE, "send", TypePolicy(5), expect=1)
    assert before == await snapshot(redis)


async def test_a_change_whose_answer_was_lost_is_done_when_it_is_sent_again(store, redis):
    assert 1 == await store.configure(QUEUE, {"paused": "1"}, expect=0)
    assert 2 == await store.configure_type(QUEUE, "send", TypePolicy(5), expect=1)
    before = await snapshot(redis)

    assert 2 == await store.configure(QUEUE, {"paused": "1"}, expect=0)
    assert 2 == await store.configure_type(QUEUE, "send", TypePolicy(5), expect=1)
    assert before == await snapshot(redis)


async def test_a_type_has_what_was_set_and_what_code_declared_beside_each_other(store):
    await store.configure_type(QUEUE, "send", TypePolicy(5, {"base": 7}))
    await store.configure_type(QUEUE, "send", TypePolicy(None, {"factor": 3}), declared=True)
    await store.configure_type(QUEUE, "other", TypePolicy(9), declared=True)

    assert {
        "send": (TypePolicy(5, {"base": 7}), TypePolicy(None, {"factor": 3})),
        "other": (TypePolicy(), TypePolicy(9)),
    } == await store.types(QUEUE)


async def test_a_type_may_be_taken_away(store, redis):
    await store.configure_type(QUEUE, "send", TypePolicy(5))
    await store.configure_type(QUEUE, "send", None)
    assert {} == await store.types(QUEUE)
    before = await snapshot(redis)

    await store.configure_type(QUEUE, "send", None)
    await store.configure_type("nowhere", "send", None)
    assert before == await snapshot(redis)


async def test_a_worker_that_declares_the_same_again_changes_nothing(store, redis):
    for _ in range(2):
        await store.configure_type(QUEUE, "send", TypePolicy(5, {"base": 7}), declared=True)

    assert 1 == len(await events(redis, "configure"))


async def test_what_was_paused_and_is_no_more_rings(store, redis):
    await enqueued(store, "a")
    await store.configure(QUEUE, {"paused": "1"})
    await rings(redis)

    await store.configure(QUEUE, {"keep_dead_count": "5"})
    assert 0 == await rings(redis)
    await store.configure(QUEUE, {"paused": ""})
    assert 1 == await rings(redis)
    await store.configure(QUEUE, {"paused": ""})
    assert 0 == await rings(redis)


# -- limits ----------------------------------------------------------------------------------------------------

LIMITS = {"rate": "100|60000|5", "concurrency": "7", "group_rate": "5|1000|0", "group_concurrency": "2"}
RATE = Rate(100, 60_000, 5)


async def in_lanes(redis):
    return b"2" == await redis.hget(keys().at("config"), "lanes")


@pytest.mark.parametrize("field", LIMITS)
async def test_a_queue_with_a_limit_is_one_of_lanes_from_then_on(store, redis, field):
    await store.configure(QUEUE, {"max_length": "5", "paused": "1"})
    assert not await in_lanes(redis)

    await store.configure(QUEUE, {field: LIMITS[field]})
    assert await in_lanes(redis)
    await store.configure(QUEUE, {field: ""})
    assert await in_lanes(redis)


@pytest.mark.parametrize(
    "policy",
    [
        TypePolicy(rate=RATE),
        TypePolicy(concurrency=1),
        TypePolicy(paused=True),
        TypePolicy(breaker=Breaker()),
    ],
    ids=("rate", "concurrency", "paused", "breaker"),
)
@pytest.mark.parametrize("declared", [False, True])
async def test_a_type_with_a_limit_makes_lanes(store, redis, policy, declared):
    await store.configure_type(QUEUE, "send", TypePolicy(5, {"base": 7}), declared=declared)
    unlimited = TypePolicy(rate=UNLIMITED, concurrency=UNLIMITED, breaker=UNLIMITED)
    await store.configure_type(QUEUE, "send", unlimited)
    assert not await in_lanes(redis)

    await store.configure_type(QUEUE, "send", policy, declared=declared)
    assert await in_lanes(redis)
    assert (unlimited, policy) if declared else (policy, TypePolicy()) == (await store.types(QUEUE))["send"]


async def test_a_group_has_what_was_set_until_nothing_is(store, redis):
    acme = GroupPolicy(weight=3, concurrency=UNLIMITED, rate=RATE, paused=True)
    await store.configure_group(QUEUE, "a", acme)
    await store.configure_group(QUEUE, "b", GroupPolicy(weight=2))

    assert await in_lanes(redis)
    assert {"a": acme, "b": GroupPolicy(weight=2)} == await store.group_policies(QUEUE)
    assert (acme, GroupPolicy()) == (
        await store.group_policy(QUEUE, "a"),
        await store.group_policy(QUEUE, "c"),
    )
    await store.configure_group(QUEUE, "a", GroupPolicy())
    assert {"b": GroupPolicy(weight=2)} == await store.group_policies(QUEUE)
    before = await snapshot(redis)
    await store.configure_group(QUEUE, "a", GroupPolicy())
    assert before == await snapshot(redis)


CHANGES = {
    "q": lambda s, n: s.configure(QUEUE, {"rate": f"{n}|1000|0"}),
    "*": lambda s, n: s.configure(QUEUE, {"group_concurrency": str(n)}),
    "tsend": lambda s, n: s.configure_type(QUEUE, "send", TypePolicy(concurrency=n)),
    "tother": lambda s, n: s.configure_type(QUEUE, "other", TypePolicy(concurrency=n), declared=True),
    "gacme": lambda s, n: s.configure_group(QUEUE, "acme", GroupPolicy(weight=n)),
}


@pytest.mark.parametrize("scope", CHANGES)
async def test_what_waits_for_a_limit_that_changed_is_looked_at_again_and_rings(store, redis, scope):
    waits = keys().at("waits")
    await CHANGES[scope](store, 1)
    await redis.zadd(waits, dict.fromkeys(("q", "tsend", "tother", "gacme", "gother"), 5_000))
    await rings(redis)

    await CHANGES[scope](store, 1)
    assert (0, b"*" if scope == "*" else None) == (await rings(redis), await first_to_look_at(redis))
    await redis.zrem(waits, "*")
    await CHANGES[scope](store, 2)
    assert (1, scope.encode()) == (await rings(redis), await first_to_look_at(redis))
    assert {b"q", b"tsend", b"tother", b"gacme", b"gother", scope.encode()} == {
        *await redis.zrange(waits, 0, -1)
    }


async def first_to_look_at(redis):
    due = await redis.zrangebyscore(keys().at("waits"), "-inf", 0)
    return due[0] if due else None


async def test_what_nothing_waits_for_is_not_put_among_what_waits(store, redis):
    for scope in ("q", "tsend", "gacme"):
        await CHANGES[scope](store, 1)

    assert 0 == await redis.zcard(keys().at("waits"))


async def test_another_timeout_or_retry_policy_rings_no_bell(store, redis):
    await store.configure_type(QUEUE, "send", TypePolicy(5, concurrency=3))
    await rings(redis)

    await store.configure_type(QUEUE, "send", TypePolicy(6, {"base": 7}, concurrency=3))
    assert 0 == await rings(redis)


async def test_a_group_s_policy_has_the_version_of_its_queue(store, redis):
    assert 1 == await store.configure_group(QUEUE, "acme", GroupPolicy(weight=2), expect=0)
    before = await snapshot(redis)

    assert 1 == await store.configure_group(QUEUE, "acme", GroupPolicy(weight=2), expect=0)
    with pytest.raises(Changed):
        await store.configure_group(QUEUE, "acme", GroupPolicy(weight=3), expect=0)
    assert before == await snapshot(redis)
    assert [QUEUE] == await store.queues()


@on_real_servers
async def test_of_many_that_expect_one_version_one_wins(store, another_store):
    await store.configure(QUEUE, {"keep_dead_count": "1"})
    stores = [store, another_store]

    answers = await race(
        *(stores[n % 2].configure(QUEUE, {"keep_dead_count": str(n)}, expect=1) for n in range(2, 22)),
        return_exceptions=True,
    )
    assert 1 == sum(answer == 2 for answer in answers)
    assert 19 == sum(isinstance(answer, Changed) for answer in answers)


async def test_a_change_is_reported(store, redis):
    await store.configure_type(QUEUE, "send", TypePolicy(5))

    assert ["send"] == await events(redis, "configure")
    assert 1 == await redis.hlen(keys().at("types"))

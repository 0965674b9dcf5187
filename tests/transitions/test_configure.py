"""The queue's configuration, and a type's policy, as it is from now on."""

import pytest

from scheduler.errors import Changed
from scheduler.outcomes import TypePolicy
from tests.helpers import QUEUE, enqueued, events, keys, on_real_servers, race, rings, snapshot


async def config(store) -> dict[str, str]:
    return {
        name: value
        for name, value in (await store.census(QUEUE)).config.items()
        if name not in {"created", "version"}
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

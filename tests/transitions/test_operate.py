"""The record of an operation over many jobs: pages that are carried out once, in one step with the jobs."""

import pytest

from scheduler.errors import Outrun
from scheduler.outcomes import OperationPage
from tests.helpers import QUEUE, claimed, enqueued, in_state, race, snapshot, state_of, states_of


async def begun(store, its_id="op", carrier="me"):
    await enqueued(store, "first")
    outcome, operation = await store.operate(
        "begin", QUEUE, its_id, carrier=carrier, value=b'{"act":"purge"}'
    )
    assert "begun" == outcome
    return operation


def page(number, matched=1, cursor="0|after", last=False, its_id="op"):
    return OperationPage(its_id, number, matched, cursor, last)


async def test_it_begins_once_however_often_it_is_told_to(store, clock):
    first = await begun(store)
    clock.advance(5)
    again = await store.operate("begin", QUEUE, "op", carrier="other", value=b"{}")

    assert ("begun", first) == again
    assert ("running", 0, 0, 0, "", None, b'{"act":"purge"}') == (
        first.state, first.page, first.matched, first.done, first.cursor, first.error, first.plan,
    )  # fmt: skip
    assert first == await store.operation(QUEUE, "op")


async def test_one_that_is_not_there_and_one_of_no_queue(store):
    assert ("missing", None) == await store.operate("begin", QUEUE, "op", value=b"{}")
    await enqueued(store, "a")
    for verb in ("carry", "cancel", "fail"):
        assert ("missing", None) == await store.operate(verb, QUEUE, "op")
    assert None is await store.operation(QUEUE, "op")
    with pytest.raises(Outrun):
        await store.operate("turn", QUEUE, page(0))


ACTS = {
    "cancel": ("ready", lambda store, of: store.cancel(QUEUE, ["a", "missing"], page=of), "cancelled"),
    "purge": ("dead", lambda store, of: store.purge(QUEUE, ["a", "missing"], page=of), None),
    "run": ("scheduled", lambda store, of: store.promote_ids(QUEUE, ["a", "missing"], page=of), "ready"),
    "replay": ("dead", lambda store, of: store.replay(QUEUE, [("a", None), ("missing", None)], page=of), "ready"),
    "replay with an edit": ("dead", lambda store, of: store.replay(QUEUE, [("a", b"[1]"), ("missing", None)], page=of), "ready"),
}  # fmt: skip


@pytest.mark.parametrize("act", ACTS)
async def test_a_page_acts_and_is_counted_in_one_step(store, clock, act):
    state, do, after = ACTS[act]
    await in_state(store, state)
    await begun(store)
    clock.advance(3)

    await do(store, page(0, matched=2, cursor="1|x|y"))

    operation = await store.operation(QUEUE, "op")
    assert after == await state_of(store)
    assert (1, 2, 1, "1|x|y", "running", clock.now) == (
        operation.page, operation.matched, operation.done, operation.cursor, operation.state, operation.updated_at,
    )  # fmt: skip


@pytest.mark.parametrize("act", ACTS)
async def test_a_page_that_is_not_the_next_changes_nothing(store, redis, act):
    state, do, _ = ACTS[act]
    await in_state(store, state)
    await begun(store)
    await store.operate("turn", QUEUE, page(0))
    before = await snapshot(redis)

    for number in (0, 2, 7):
        with pytest.raises(Outrun):
            await do(store, page(number))
    with pytest.raises(Outrun):
        await do(store, page(1, its_id="other"))

    assert before == await snapshot(redis)


@pytest.mark.parametrize("act", ACTS)
async def test_of_ten_who_carry_out_the_same_page_one_does(store, act):
    state, do, _ = ACTS[act]
    await in_state(store, state)
    await begun(store)

    outcomes = await race(*(do(store, page(0)) for _ in range(10)), return_exceptions=True)

    assert 9 == sum(isinstance(outcome, Outrun) for outcome in outcomes)
    operation = await store.operation(QUEUE, "op")
    assert (1, 1) == (operation.page, operation.done)


@pytest.mark.parametrize("ended", ["done", "cancelled", "failed"])
async def test_what_has_ended_takes_no_page_and_ends_once(store, redis, ended):
    await in_state(store, "dead")
    await begun(store)
    if ended == "done":
        await store.operate("turn", QUEUE, page(0, last=True))
    else:
        await store.operate("cancel" if ended == "cancelled" else "fail", QUEUE, "op", value=b'"why"')
    before = await snapshot(redis)

    with pytest.raises(Outrun):
        await store.purge(QUEUE, ["a"], page=page(0 if ended != "done" else 1))
    for verb in ("carry", "cancel", "fail"):
        outcome, operation = await store.operate(verb, QUEUE, "op", carrier="x", value=b'"other"')
        assert ("ended", ended) == (outcome, operation.state)
        assert ("why" if ended == "failed" else None) == operation.error
    assert before == await snapshot(redis)


async def test_another_carries_it_when_the_first_has_been_silent_for_15_seconds(store, clock):
    await begun(store, carrier="first")

    clock.advance(14.9)
    assert "taken" == (await store.operate("carry", QUEUE, "op", carrier="second"))[0]
    assert "carried" == (await store.operate("carry", QUEUE, "op", carrier="first"))[0]
    clock.advance(14.9)
    assert "taken" == (await store.operate("carry", QUEUE, "op", carrier="second"))[0]
    clock.advance(0.1)
    assert "carried" == (await store.operate("carry", QUEUE, "op", carrier="second"))[0]
    assert "taken" == (await store.operate("carry", QUEUE, "op", carrier="first"))[0]


async def test_a_page_is_a_sign_too_and_a_clock_that_went_back_makes_nobody_wait_longer(store, clock):
    await begun(store, carrier="first")
    clock.advance(14)
    await store.operate("turn", QUEUE, page(0))
    clock.advance(14)
    assert "taken" == (await store.operate("carry", QUEUE, "op", carrier="second"))[0]

    clock.advance(-3600)
    assert "carried" == (await store.operate("carry", QUEUE, "op", carrier="second"))[0]


async def test_the_oldest_that_have_ended_leave_beyond_a_hundred(store):
    await begun(store, "op-000")
    for n in range(1, 120):
        await store.operate("begin", QUEUE, f"op-{n:03}", value=b"{}")
        await store.operate("turn", QUEUE, page(0, last=True, its_id=f"op-{n:03}"))

    kept = await store.run(store.operations_call(QUEUE))
    assert {"op-000", *(f"op-{n:03}" for n in range(21, 120))} == {operation.id for operation in kept}


async def test_a_hundred_under_way_are_enough(store):
    await begun(store, "op-0")
    for n in range(1, 100):
        assert "begun" == (await store.operate("begin", QUEUE, f"op-{n}", value=b"{}"))[0]

    assert ("full", None) == await store.operate("begin", QUEUE, "one-more", value=b"{}")
    await store.operate("cancel", QUEUE, "op-5")
    assert "begun" == (await store.operate("begin", QUEUE, "one-more", value=b"{}"))[0]
    assert None is await store.operation(QUEUE, "op-5")


async def test_replay_by_id_refuses_what_died_after_its_time(store, clock):
    await in_state(store, "dead")
    died = clock.now
    clock.advance(1)

    assert ["dead"] == await store.replay(QUEUE, [("a", None)], before_ms=died - 1)
    assert ["ready"] == await store.replay(QUEUE, [("a", None)], before_ms=died)


async def test_purge_by_id_of_a_state_refuses_what_stands_elsewhere_by_now(store):
    await in_state(store, "dead", "a")
    await in_state(store, "ready", "b")
    await claimed(store, "c", priority=100)

    assert ["gone", "ready", "running", "missing"] == await store.purge(
        QUEUE, ["a", "b", "c", "x"], state="dead"
    )
    assert [None, "ready", "running"] == await states_of(store, "a", "b", "c")

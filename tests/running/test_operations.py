"""Acts over all jobs that match: page by page, once, whoever carries them on."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import Raw

from scheduler.errors import NotFound, Outrun, StoreUnavailable, WrongState
from scheduler.limits import parse_rate
from scheduler.operations import WHERE, Operations, Plan, document
from scheduler.outcomes import Ack, Bury
from scheduler.tasks import cancel_all
from tests.helpers import (
    QUEUE,
    WORKER,
    buried,
    claimed,
    enqueued,
    in_every_state,
    in_state,
    look,
    new,
    on_real_servers,
    race,
    released,
    states_of,
    take,
)


def plan(act, *states, **options):
    return Plan(act=act, states=states or WHERE[act], **options)


async def dead(store, count, prefix="d", **failure):
    """So many dead letters."""
    for start in range(0, count, 500):
        names = [f"{prefix}{n:05}" for n in range(start, min(count, start + 500))]
        await enqueued(store, *names, payload=b'{"n": 1, "to": "old"}')
        jobs = await take(store, len(names))
        await store.bury(
            QUEUE, [Bury(job.key, job.token, failure.get("kind", "Boom"), failure.get("message", "no")) for job in jobs],
            worker=WORKER,
        )  # fmt: skip


async def done(store, its_plan, carrier="me"):
    """The operation, carried to its end."""
    operations = Operations(store, carrier)
    return await to_its_end(operations, await operations.begin(QUEUE, its_plan))


async def to_its_end(operations, operation):
    """Its record after the last page."""
    return [now async for now in operations.pages(operation)][-1]


async def counts(store, *states):
    found = (await store.census(QUEUE)).counts
    return [found[state] for state in states]


# -- acts -----------------------------------------------------------------------------------------------------


async def test_replay_of_all_runs_every_dead_job_once(store, clock):
    await dead(store, 1_234)
    clock.advance(1)

    operation = await done(store, plan("replay"))

    assert ("done", 1_234, 1_234) == (operation.state, operation.matched, operation.done)
    assert [0, 1_234] == await counts(store, "dead", "ready")
    assert set() == await store.operations_told()


async def test_cancel_reaches_every_state_and_asks_what_runs(store, clock):
    await in_every_state(store)
    clock.advance(1)

    operation = await done(store, plan("cancel"))

    assert (5, 5) == (operation.matched, operation.done)
    unfinished = ("scheduled", "blocked", "ready", "running", "retrying")
    assert ["cancelled"] * 3 + ["running", "cancelled"] == await states_of(store, *unfinished)
    assert ["succeeded", "dead"] == await states_of(store, "succeeded", "dead")


async def test_run_makes_ready_what_waits_for_its_time(store, clock):
    await in_every_state(store)
    clock.advance(1)

    operation = await done(store, plan("run"))

    assert (2, ["ready", "ready", "blocked"]) == (
        operation.done,
        await states_of(store, "scheduled", "retrying", "blocked"),
    )


@pytest.mark.parametrize("state", WHERE["purge"])
async def test_purge_of_a_state_leaves_the_others(store, clock, state):
    await in_every_state(store)
    clock.advance(1)

    assert 1 == (await done(store, plan("purge", state))).done
    assert None is (await states_of(store, state))[0]
    assert 7 == sum(await counts(store, *(await store.census(QUEUE)).counts))


async def test_filters_choose(store, clock):
    await dead(store, 10, "a", kind="Boom", message="job 1")
    await dead(store, 10, "b", kind="Bang", message="job 2")
    clock.advance(10)
    middle = clock.now
    await dead(store, 5, "c", kind="Bang", message="another")
    alike = (await look(store, "b00000")).fingerprint
    clock.advance(10)

    assert 5 == (await done(store, plan("replay", kind="Bang", before_ms=middle, limit=5))).done
    assert 5 == (await done(store, plan("replay", fingerprint=alike))).done
    assert 0 == (await done(store, plan("purge", "dead", type="other"))).matched
    assert 10 == (await done(store, plan("purge", "dead", error="Boom", age_ms=10_000))).done
    assert 5 == (await done(store, plan("purge", "dead"))).done


async def test_ids_are_taken_as_they_stand_and_what_is_not_there_has_failed(store, clock):
    await dead(store, 3)
    await in_state(store, "ready", "r")

    operation = await done(store, plan("replay", ids=("d00000", "r", "missing", "d00002")))

    assert (4, 2) == (operation.matched, operation.done)
    assert ["ready", "dead", "ready"] == await states_of(store, "d00000", "d00001", "d00002")


async def test_a_dry_run_counts_and_touches_nothing(store, clock):
    await dead(store, 700)
    clock.advance(1)

    operation = await done(store, plan("purge", "dead", dry_run=True))

    assert ("done", 700, 0, [700]) == (
        operation.state,
        operation.matched,
        operation.done,
        await counts(store, "dead"),
    )


async def test_a_limit_is_kept_over_pages(store, clock):
    await dead(store, 1_200)
    clock.advance(1)

    assert 700 == (await done(store, plan("replay", limit=700))).matched
    assert [500, 700] == await counts(store, "dead", "ready")


async def test_an_operation_over_nothing_is_done_at_once(store):
    await enqueued(store, "a")

    assert ("done", 0) == ((operation := await done(store, plan("replay"))).state, operation.matched)


async def test_what_came_after_its_beginning_is_not_touched(store, clock):
    await dead(store, 3, "old")
    operations = Operations(store, "me")
    clock.advance(1)
    operation = await operations.begin(QUEUE, plan("purge", "dead"))
    clock.advance(1)
    await dead(store, 2, "new")

    operation = await to_its_end(operations, operation)

    assert (3, [2]) == (operation.done, await counts(store, "dead"))


async def test_a_dry_run_counts_each_once_and_waits_for_nothing(store, clock):
    await dead(store, 700)
    await in_state(store, "ready", "r")
    await in_state(store, "scheduled", "s")
    clock.advance(1)
    one_a_day = parse_rate("1/d")

    counted = await done(store, plan("replay", dry_run=True, rate=one_a_day, stop_after_failures=1))
    to_cancel = await done(store, plan("cancel", dry_run=True))

    assert (700, 2, 2) == (counted.matched, counted.page, to_cancel.matched)


async def test_a_job_that_snoozes_while_cancel_looks_elsewhere_is_cancelled(store, clock):
    job = await claimed(store)
    clock.advance(1)
    operations = Operations(store, "me")
    operation = await operations.begin(QUEUE, plan("cancel"))

    async for now in operations.pages(operation):
        if now.cursor == "3|":  # what is scheduled was looked at, what runs will be
            await released(store, job, 60_000, "snooze")

    assert ["cancelled"] == await states_of(store, job.key)


# -- editing and moving ---------------------------------------------------------------------------------------


async def test_a_patch_changes_each_payload_and_the_former_one_is_kept(store, clock):
    await dead(store, 60)
    clock.advance(1)

    operation = await done(store, plan("replay", payload_patch=Raw(b'{"to": "new", "more": [1]}')))

    assert ("done", 60) == (operation.state, operation.done)
    [job] = await store.inspect(QUEUE, ["d00059"], payload=True)
    assert b'{"n":1,"to":"new","more":[1]}' == job.payload
    assert [b'{"n": 1, "to": "old"}'] == [payload for _, payload in job.edits]


async def test_a_patch_may_be_written_over_several_lines(store, clock):
    await dead(store, 1)
    clock.advance(1)

    assert 1 == (await done(store, plan("replay", payload_patch=Raw(b'{\n  "to":\r\n "new"\n}\n')))).done
    assert b'{"n":1,"to":"new"}' == (await look(store, "d00000")).payload


async def test_a_payload_that_becomes_too_large_stays_dead(store, clock):
    await dead(store, 2)
    clock.advance(1)

    operation = await done(
        store, plan("replay", payload_patch=Raw(b'{"x": "' + b"y" * 100 + b'"}'), max_payload=50)
    )

    assert ("done", 2, 0, [2]) == (
        operation.state, operation.matched, operation.done, await counts(store, "dead"),
    )  # fmt: skip


async def test_large_payloads_go_in_calls_of_a_bounded_size(store, clock):
    for n in range(8):
        await buried(store, await claimed(store, f"d{n}", payload=b'"' + b"x" * 1_000_000 + b'"'))
    clock.advance(1)

    operation = await done(store, plan("replay", payload_patch=Raw(b'{"small": 1}')))

    assert (8, 8) == (operation.matched, operation.done)
    assert operation.page > 0


async def test_replay_into_another_queue_moves_them_under_their_keys(store, clock):
    await dead(store, 30)
    await store.enqueue("other", [new("d00007", payload=b"[7]", queue="other")])
    clock.advance(1)

    operation = await done(store, plan("replay", to_queue="other"))

    assert (30, 29, [1]) == (operation.matched, operation.done, await counts(store, "dead"))
    assert 30 == (await store.census("other")).counts["ready"]
    [job] = await store.inspect("other", ["d00008"], payload=True)
    assert ("mail:d00008", b'{"n": 1, "to": "old"}') == (job.copied_from, job.payload)


# -- once, whoever carries it ---------------------------------------------------------------------------------


async def test_two_who_carry_it_at_once_do_each_job_once(store, clock):
    await dead(store, 2_000)
    clock.advance(1)
    operation = await Operations(store, "one").begin(QUEUE, plan("replay"))

    async def carry(name):
        async for _ in Operations(store, name).pages(operation):
            pass

    await race(*(carry(f"carrier-{n}") for n in range(5)), return_exceptions=True)
    clock.advance(16)
    await carry("last")

    operation = await store.operation(QUEUE, operation.id)
    assert ("done", 2_000, 2_000) == (operation.state, operation.matched, operation.done)
    assert "2000" == (await store.census(QUEUE)).counters["replay"]


async def test_two_replays_at_once_replay_once(store, clock):
    await dead(store, 1_500)
    clock.advance(1)

    first, second = await race(done(store, plan("replay"), "one"), done(store, plan("replay"), "two"))

    assert 1_500 == first.done + second.done
    assert "1500" == (await store.census(QUEUE)).counters["replay"]


async def test_what_dies_again_meanwhile_is_not_replayed_again(store, clock):
    await dead(store, 3)
    clock.advance(1)
    one, two = Operations(store, "one"), Operations(store, "two")
    slow = await one.begin(QUEUE, plan("replay"))
    clock.advance(1)
    async for _ in two.pages(await two.begin(QUEUE, plan("replay"))):
        pass
    for job in await take(store, 3):
        await buried(store, job)

    slow = await to_its_end(one, slow)

    assert (0, [3]) == (slow.done, await counts(store, "dead"))


async def test_another_process_carries_on_what_was_left(store, clock):
    await dead(store, 1_200)
    clock.advance(1)
    left = Operations(store, "died")
    operation = await left.first_page(await left.begin(QUEUE, plan("replay")))
    assert (False, 500) == (operation.ended, operation.done)
    other = Operations(store, "other")

    await other.duty().do()
    assert (
        500 == (await store.operation(QUEUE, operation.id)).done
    )  # somebody carries it, as far as one knows
    clock.advance(15)
    await other.duty().do()
    await other.idle()

    operation = await store.operation(QUEUE, operation.id)
    assert ("done", 1_200) == (operation.state, operation.done)
    assert set() == await store.operations_told()


async def test_a_hint_without_an_operation_is_struck_out_at_the_second_look(store):
    await store.tell_operation(QUEUE, "nothing")
    operations = Operations(store, "me")

    await operations.duty().do()
    assert {(QUEUE, "nothing")} == await store.operations_told()
    await operations.duty().do()
    assert set() == await store.operations_told()


async def test_a_lost_store_leaves_it_to_whoever_comes_next(store, clock, monkeypatch):
    await dead(store, 600)
    clock.advance(1)
    operations = Operations(store, "me")
    operation = await operations.first_page(await operations.begin(QUEUE, plan("replay")))

    async def away(*_args, **_more):
        raise StoreUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(store, "replay", away)
        operations.carry_behind(operation)
        await operations.idle()
    assert "running" == (await store.operation(QUEUE, operation.id)).state

    await operations.duty().do()
    await operations.idle()
    assert ("done", 600) == ((now := await store.operation(QUEUE, operation.id)).state, now.done)


async def test_who_began_it_sees_its_end_when_another_has_taken_it_over(store, clock):
    await dead(store, 1_200)
    clock.advance(1)
    mine, other = Operations(store, "mine"), Operations(store, "other")
    seen = []

    async for now in mine.to_its_end(await mine.begin(QUEUE, plan("replay"))):
        seen.append(now.done)
        if len(seen) == 1:
            clock.advance(16)  # as if this process had been stopped for so long
            outcome, _ = await store.operate("carry", QUEUE, now.id, carrier="other")
            assert "carried" == outcome
            await other.first_page(now)
            other.carry_behind(await store.operation(QUEUE, now.id))
            await other.idle()

    assert (500, 1_200, "done") == (seen[0], seen[-1], now.state)


async def test_who_began_it_goes_on_when_the_other_has_died(store, clock):
    await dead(store, 1_200)
    clock.advance(1)
    mine = Operations(store, "mine")
    seen = []

    async for now in mine.to_its_end(await mine.begin(QUEUE, plan("replay", rate=parse_rate("100000/s")))):
        seen.append(now.done)
        if len(seen) == 1:
            clock.advance(16)
            await store.operate("carry", QUEUE, now.id, carrier="other")
        clock.advance(8)

    assert ("done", 1_200) == (now.state, now.done)


@pytest.mark.parametrize(
    "record", [b'{"act":"purge","states":["dead"],"only_if":"new"}', b"{", b'{"act":"pause"}']
)
async def test_an_operation_that_a_newer_release_began_is_left_to_it_and_shown(store, clock, record):
    await dead(store, 3)
    clock.advance(1)
    await store.tell_operation(QUEUE, "newer")
    await store.operate("begin", QUEUE, "newer", carrier="newer", value=record)
    clock.advance(16)
    operations = Operations(store, "me")

    await operations.duty().do()
    await operations.idle()

    outcome, operation = await store.operate("carry", QUEUE, "newer", carrier="newer too")
    assert ("carried", "running", [3]) == (outcome, operation.state, await counts(store, "dead"))
    assert {(QUEUE, "newer")} == await store.operations_told()
    assert ("mail:newer", "running") == ((shown := document(operation))["id"], shown["state"])


async def test_cancelled_between_two_pages_it_stops(store, clock):
    await dead(store, 1_200)
    clock.advance(1)
    operations = Operations(store, "me")
    operation = await operations.begin(QUEUE, plan("replay"))
    states = []

    async for now in operations.pages(operation):
        states.append(now.state)
        await store.operate("cancel", QUEUE, operation.id)

    assert ["running", "cancelled"] == states
    assert [700, 500] == await counts(store, "dead", "ready")


async def test_a_queue_that_is_obliterated_ends_its_operations(store, clock):
    await dead(store, 600)
    clock.advance(1)
    operations = Operations(store, "me")
    operation = await operations.first_page(await operations.begin(QUEUE, plan("replay")))
    await store.obliterate(QUEUE)

    with pytest.raises(NotFound):
        async for _ in operations.pages(operation):
            pass


async def test_it_does_not_begin_where_there_is_no_queue_or_too_many_are_under_way(store):
    operations = Operations(store, "me")
    with pytest.raises(NotFound):
        await operations.begin(QUEUE, plan("replay"))
    await enqueued(store, "a")
    for _ in range(100):
        await operations.begin(QUEUE, plan("replay"))
    with pytest.raises(WrongState, match="100 operations"):
        await operations.begin(QUEUE, plan("replay"))

    assert 100 == len(await store.operations_told())


# -- pace -----------------------------------------------------------------------------------------------------


async def test_a_rate_spreads_them(store, clock):
    await dead(store, 12)
    clock.advance(1)
    began = asyncio.get_running_loop().time()

    operation = await done(store, plan("replay", rate=parse_rate("20/s")))

    took = asyncio.get_running_loop().time() - began
    assert (12, True) == (operation.done, took > 0.25), took


async def test_it_stops_when_too_many_have_failed_again(store, clock):
    await dead(store, 50)
    clock.advance(1)

    async def fail_again():
        while True:
            for job in await take(store, 5):
                await buried(store, job)
            clock.advance(0.001)
            await asyncio.sleep(0.01)

    failing = asyncio.create_task(fail_again())
    operation = await done(store, plan("replay", stop_after_failures=10))
    await cancel_all([failing])

    assert ("failed", True, True) == (operation.state, operation.done < 50, operation.done >= 10)
    assert "failed again" in operation.error


async def test_what_fails_again_in_the_queue_it_was_moved_to_counts(store, clock):
    await dead(store, 50)
    clock.advance(1)

    async def fail_again():
        while True:
            clock.advance(0.001)
            jobs = (await store.claim("other", worker=WORKER, count=5)).jobs
            if jobs:
                await store.bury(
                    "other", [Bury(job.key, job.token, "Boom", "no") for job in jobs], worker=WORKER
                )
            await asyncio.sleep(0.01)

    failing = asyncio.create_task(fail_again())
    operation = await done(store, plan("replay", stop_after_failures=10, to_queue="other"))
    failing.cancel()

    assert ("failed", True) == (operation.state, operation.done < 50)


async def test_it_goes_on_while_they_succeed(store, clock):
    await dead(store, 30)
    clock.advance(1)

    async def succeed():
        while True:
            for job in await take(store, 5):
                await store.ack(QUEUE, [Ack(job.key, job.token, b"1")], worker=WORKER)
            await asyncio.sleep(0.01)

    working = asyncio.create_task(succeed())
    operation = await done(store, plan("replay", stop_after_failures=10))
    await cancel_all([working])

    assert ("done", 30) == (operation.state, operation.done)


@on_real_servers
async def test_a_replay_of_ten_thousand_takes_twenty_bounded_steps(store, clock):
    await dead(store, 10_000)
    clock.advance(1)
    operations = Operations(store, "me")
    operation = await operations.begin(QUEUE, plan("replay"))

    seen = [(now.done, now.state) async for now in operations.pages(operation)]

    assert [(500 * n, "running" if n < 20 else "done") for n in range(1, 21)] == seen


def test_a_page_that_was_overtaken_is_no_fault_of_the_store():
    assert not issubclass(Outrun, StoreUnavailable)

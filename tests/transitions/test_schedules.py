"""Slots -> jobs: a slot fires once, and what becomes of one that is late, overlaps or finds no room."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from scheduler.errors import Changed, Invalid, NotFound, QueueFull, WrongState
from scheduler.keys import SCHEDULES
from scheduler.outcomes import Extend, Release
from scheduler.schedule import Schedule, end_of, steps
from scheduler.scheduling import NameTaken, Schedules
from scheduler.ticker import Ticker
from scheduler.times import parse_rfc3339, rfc3339
from tests.helpers import QUEUE, acked, buried, events, keys, look, race, raw, snapshot, state_of, take, taken

NINE = parse_rfc3339("2027-03-01T09:00:00Z")


def at_nine(store, clock) -> Schedules:
    clock.now = NINE
    return Schedules(store)


@pytest.fixture
def schedules(store, clock):
    return at_nine(store, clock)


def plan(name="tick", **fields: Any) -> Schedule:
    timing = {} if "cron" in fields else {"every_ms": 60_000}
    return Schedule(**{"name": name, "queue": QUEUE, "type": "send", **timing, **fields})


async def put(schedules, name="tick", **fields: Any):
    standing, _ = await schedules.put(plan(name, **fields))
    return standing


async def jobs(store) -> list[str]:
    """The keys of all jobs of the queue, in order."""
    found = await store.clients.commands.hkeys(keys().at("jobs"))
    return sorted(key.decode() for key in found)


def key(seconds: int, name: str = "tick") -> str:
    at = rfc3339(NINE + 1000 * seconds)
    return f"{name}.{at[:19].replace('-', '').replace(':', '')}Z"


def outcomes(standing) -> list[str]:
    return [one.outcome for one in standing.past]


# -- a slot -------------------------------------------------------------------------------------------------------


async def test_a_slot_becomes_a_job_of_its_own_key(store, redis, schedules, clock):
    await put(schedules, payload=b'{"a": 1}', priority=5, tags=("t",), group="g", timeout_ms=5_000)
    clock.advance(60)

    await schedules.fire(QUEUE)

    job = await look(store, key(60))
    assert ("ready", "send", b'{"a": 1}', 5, ("t",), "g", 5_000, "tick") == (
        job.state, job.type, job.payload, job.priority, job.tags, job.group, job.timeout_ms, job.schedule,
    )  # fmt: skip
    assert b'"slot":%d' % (NINE + 60_000) in job.header
    assert [key(60)] == await events(redis, "enqueue")
    standing = await schedules.get("tick")
    assert (NINE + 120_000, 1, 0, ["fired"]) == (
        standing.next_ms,
        standing.runs,
        standing.skipped,
        outcomes(standing),
    )


async def test_before_its_slot_nothing_fires(store, schedules, clock):
    await put(schedules)
    clock.advance(59.999)

    await schedules.fire(QUEUE)

    assert [] == await jobs(store)


async def test_a_slot_that_was_fired_is_taken_and_nothing_changes(store, redis, schedules, clock):
    standing = await put(schedules, overlap="allow")
    clock.advance(60)
    step = steps(standing, clock.now)
    assert [("fired", "")] == await store.schedule_fire(QUEUE, step)
    before = await snapshot(redis)

    assert [("taken", "")] == await store.schedule_fire(QUEUE, step)

    assert before == await snapshot(redis)


async def test_many_that_fire_at_once_make_one_job_a_slot(store, schedules, clock):
    standing = await put(schedules, overlap="allow")
    clock.advance(180)
    page = steps(standing, clock.now)

    done = await race(
        *(schedules.fire(QUEUE) for _ in range(8)), *(store.schedule_fire(QUEUE, page) for _ in range(8))
    )

    assert 16 == len(done)
    assert [key(180)] == await jobs(store)  # the two before it were missed, and latest is what counts
    assert 1 == (await schedules.get("tick")).runs


async def test_another_version_fires_nothing(store, redis, schedules, clock):
    standing = await put(schedules)
    clock.advance(60)
    await put(schedules, payload=b"[2]")
    before = await snapshot(redis)

    assert [("changed", "")] == await store.schedule_fire(QUEUE, steps(standing, clock.now))
    assert before == await snapshot(redis)

    await schedules.fire(QUEUE)
    assert b"[2]" == (await look(store, key(60))).payload


async def test_one_that_is_gone_fires_nothing(store, schedules, clock):
    standing = await put(schedules)
    await schedules.drop("tick")
    clock.advance(60)

    assert [("missing", "")] == await store.schedule_fire(QUEUE, steps(standing, clock.now))
    assert [] == await jobs(store)


async def test_one_due_without_a_schedule_leaves_with_the_first_who_sees_it(store, redis, schedules, clock):
    await put(schedules)
    await redis.zadd(keys().at("fires"), {"stray": 5})

    await schedules.fire(QUEUE)

    assert [b"tick"] == await redis.zrange(keys().at("fires"), 0, -1)


async def test_a_jitter_schedules_the_job_later_and_the_same_each_time(store, schedules, clock):
    await put(schedules, jitter_ms=30_000)
    clock.advance(60)

    await schedules.fire(QUEUE)

    job = await look(store, key(60))
    assert "scheduled" == job.state
    assert NINE + 60_000 < (job.run_at or 0) <= NINE + 90_000


async def test_ten_thousand_due_at_once_all_fire_in_bounded_calls(store, schedules, clock):
    calls = []
    run = store.run

    async def counted(call):
        calls.append((call.script, len(call.args)))
        return await run(call)

    names = [f"s{n}" for n in range(1_200)]
    for start in range(0, len(names), 50):
        await race(*(put(schedules, name, every_ms=60_000) for name in names[start : start + 50]))
    clock.advance(60)
    store.run = counted

    await schedules.fire(QUEUE)

    del store.run
    assert 1_200 == len(await jobs(store))
    assert max(size for script, size in calls if script == "schedule_fire") <= 2 + 500 * 10
    assert [] == (await store.schedule_due(QUEUE))[1]


# -- late ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("catch_up", "fired", "skipped"),
    [("latest", [180], [60]), ("none", [], [60]), ("all", [60, 120, 180], [])],
)  # fmt: skip
async def test_of_three_slots_that_were_missed(store, schedules, clock, catch_up, fired, skipped):
    await put(schedules, catch_up=catch_up)
    clock.advance(200)

    await schedules.fire(QUEUE)

    assert [key(at) for at in fired] == await jobs(store)
    standing = await schedules.get("tick")
    missed = [one for one in standing.past if one.outcome == "missed"]
    assert [NINE + 1000 * at for at in skipped] == [one.slot_ms for one in missed]
    assert 3 - len(fired) == sum(one.count for one in missed) == standing.skipped
    assert NINE + 240_000 == standing.next_ms


async def test_the_window_bounds_what_is_caught_up(store, schedules, clock):
    await put(schedules, catch_up="all", catch_up_window_ms=100_000)
    clock.advance(303)

    await schedules.fire(QUEUE)

    assert [key(240), key(300)] == await jobs(store)
    [missed] = [one for one in (await schedules.get("tick")).past if one.outcome == "missed"]
    assert (3, NINE + 60_000, NINE + 180_000) == (missed.count, missed.slot_ms, missed.upto_ms)


async def test_what_is_beyond_the_window_is_not_the_latest_either(store, schedules, clock):
    await put(schedules, catch_up_window_ms=1_000)
    clock.advance(65)

    await schedules.fire(QUEUE)

    assert [] == await jobs(store)


async def test_at_most_a_thousand_are_caught_up_and_they_are_the_newest(store, schedules, clock):
    await put(schedules, catch_up="all", every_ms=1_000, overlap="allow")
    clock.advance(3_000.5)

    await schedules.fire(QUEUE)

    # Those of the last two seconds come besides: they were not missed.
    assert [key(at) for at in range(1_999, 3_001)] == await jobs(store)
    standing = await schedules.get("tick")
    assert (1_002, 1_998) == (standing.runs, standing.skipped)


async def test_a_slot_that_is_a_little_late_was_not_missed(store, schedules, clock):
    await put(schedules, catch_up="none")
    clock.advance(62)

    await schedules.fire(QUEUE)

    assert [key(60)] == await jobs(store)


async def test_who_has_looked_lately_has_missed_nothing(store, schedules, clock):
    await put(schedules, catch_up="none")
    clock.advance(69)

    await schedules.fire(QUEUE, looked_ms=clock.now - 12_000)

    assert [key(60)] == await jobs(store)


async def test_soon_after_a_change_nothing_was_missed(store, schedules, clock):
    await put(schedules, catch_up="none", every_ms=1_000, overlap="allow")
    clock.advance(9)

    await schedules.fire(QUEUE)

    assert [key(at) for at in range(1, 10)] == await jobs(store)


# -- overlap ------------------------------------------------------------------------------------------------------


async def test_skip_leaves_out_a_slot_while_the_last_job_has_not_ended(store, schedules, clock):
    await put(schedules)
    for _ in range(3):
        clock.advance(60)
        await schedules.fire(QUEUE)
    assert [key(60)] == await jobs(store)

    job = await taken(store, key(60))
    clock.advance(60)
    await schedules.fire(QUEUE)
    await acked(store, job)
    clock.advance(60)
    await schedules.fire(QUEUE)

    assert [key(60), key(300)] == await jobs(store)
    standing = await schedules.get("tick")
    assert ["fired", "overlap", "overlap", "overlap", "fired"] == outcomes(standing)
    assert (2, 3) == (standing.runs, standing.skipped)


async def test_allow_lets_them_run_side_by_side(store, schedules, clock):
    await put(schedules, overlap="allow")
    for _ in range(3):
        clock.advance(60)
        await schedules.fire(QUEUE)

    assert [key(60), key(120), key(180)] == await jobs(store)


async def test_cancel_running_cancels_the_last_job(store, schedules, clock):
    await put(schedules, overlap="cancel_running")
    clock.advance(60)
    await schedules.fire(QUEUE)
    clock.advance(60)
    await schedules.fire(QUEUE)
    job = await taken(store, key(120))
    clock.advance(60)
    await schedules.fire(QUEUE)

    assert ["cancelled", "overlap"] == [
        (await look(store, key(60))).state,
        (await look(store, key(60))).reason,
    ]
    assert "running" == await state_of(store, job.key)
    assert ["cancel"] == await store.extend(QUEUE, [extend(job)])
    assert "ready" == await state_of(store, key(180))
    assert ["cancelled"] == await store.release(QUEUE, [release(job)], worker="worker-1")
    assert "overlap" == (await look(store, job.key)).reason


def extend(job):
    return Extend(job.key, job.token, 30_000)


def release(job):
    return Release(job.key, job.token)


async def test_queue_one_lets_one_wait_for_the_end_of_the_one_that_runs(store, schedules, clock):
    await put(schedules, overlap="queue_one")
    clock.advance(60)
    await schedules.fire(QUEUE)
    clock.advance(60)
    await schedules.fire(QUEUE)  # the first has not started: it is the one that waits
    job = await taken(store, key(60))
    for _ in range(2):
        clock.advance(60)
        await schedules.fire(QUEUE, looked_ms=clock.now)

    waiting = await look(store, key(180))
    assert ("blocked", [f"mail:{key(60)}"], "tick") == (waiting.state, list(waiting.after), waiting.schedule)
    assert ["fired", "overlap", "fired", "overlap"] == outcomes(await schedules.get("tick"))
    assert [] == await take(store)
    await acked(store, job)
    await store.relay(QUEUE)
    assert "ready" == await state_of(store, key(180))


async def test_one_that_waits_goes_on_when_the_one_before_it_fails(store, schedules, clock):
    await put(schedules, overlap="queue_one")
    clock.advance(60)
    await schedules.fire(QUEUE)
    job = await taken(store, key(60))
    clock.advance(60)
    await schedules.fire(QUEUE)
    await buried(store, job)
    await store.relay(QUEUE)

    assert "ready" == await state_of(store, key(120))


async def test_one_that_was_left_unknown_by_a_crash_is_made_known_by_the_next_round(store, schedules, clock):
    await put(schedules, overlap="queue_one")
    clock.advance(60)
    await schedules.fire(QUEUE)
    job = await taken(store, key(60))
    clock.advance(60)
    standing = await schedules.get("tick")
    assert [("fired", "blocked")] == await store.schedule_fire(QUEUE, steps(standing, clock.now))
    await acked(store, job)
    clock.advance(60)
    await store.relay(QUEUE)

    assert "ready" == await state_of(store, key(120))


# -- bounds -------------------------------------------------------------------------------------------------------


async def test_after_so_many_runs_it_has_finished(store, schedules, clock):
    await put(schedules, max_runs=2, overlap="allow", catch_up="all")
    clock.advance(400)

    await schedules.fire(QUEUE)

    assert [key(60), key(120)] == await jobs(store)
    standing = await schedules.get("tick")
    assert ("finished", None, 2) == (standing.state, standing.next_ms, standing.runs)
    assert [] == standing.upcoming(clock.now, 5)


async def test_after_its_end_it_has_finished(store, schedules, clock):
    await put(schedules, ends_ms=NINE + 100_000)
    clock.advance(60)
    await schedules.fire(QUEUE)

    assert "finished" == (await schedules.get("tick")).state
    clock.advance(600)
    await schedules.fire(QUEUE)
    assert [key(60)] == await jobs(store)


async def test_more_runs_wake_one_that_had_finished(schedules, store, clock):
    await put(schedules, max_runs=1, overlap="allow")
    clock.advance(60)
    await schedules.fire(QUEUE)
    await put(schedules, max_runs=2, overlap="allow")
    clock.advance(60)
    await schedules.fire(QUEUE)

    assert [key(60), key(120)] == await jobs(store)


async def test_a_full_queue_skips_the_slot_and_says_so(store, schedules, clock):
    await put(schedules, overlap="allow")
    await store.configure(QUEUE, {"max_length": "1"})
    for _ in range(2):
        clock.advance(60)
        await schedules.fire(QUEUE)

    standing = await schedules.get("tick")
    assert ["fired", "full"] == outcomes(standing)
    assert (1, 1, NINE + 180_000) == (standing.runs, standing.skipped, standing.next_ms)
    with pytest.raises(QueueFull):
        await schedules.trigger("tick")


# -- put, drop, pause ----------------------------------------------------------------------------------------------


async def test_what_changes_nothing_leaves_version_and_slot(schedules, clock, redis):
    first = await put(schedules)
    clock.advance(30)
    before = await snapshot(redis)

    again, new = await schedules.put(plan())

    assert (first, False) == (again, new)
    changed = await snapshot(redis)
    before["{scheduler:=schedules}:owners"] = changed["{scheduler:=schedules}:owners"]  # its mark
    assert before == changed


async def test_another_payload_leaves_the_next_slot(schedules, clock):
    await put(schedules)
    clock.advance(30)

    assert NINE + 60_000 == (await put(schedules, payload=b"[1]")).next_ms


async def test_another_time_counts_from_now(schedules, clock):
    await put(schedules)
    clock.advance(30)

    assert NINE + 50_000 == (await put(schedules, every_ms=20_000)).next_ms
    assert NINE + 60_000 == (await put(schedules, cron="* * * * *")).next_ms


async def test_only_the_new_plan_fires(store, schedules, clock):
    await put(schedules, cron="* * * * *")
    clock.advance(90)
    await schedules.fire(QUEUE)
    await put(schedules, cron="30 * * * *")
    clock.advance(3_600)
    await schedules.fire(QUEUE, looked_ms=clock.now)

    assert [key(60), key(1_800)] == await jobs(store) or [key(60)] == await jobs(store)
    assert NINE + 5_400_000 == (await schedules.get("tick")).next_ms


async def test_a_hundred_that_put_at_once_leave_one_next_slot(store, redis, schedules):
    others = [Schedules(store) for _ in range(3)]
    await race(*(
        [schedules, *others][n % 4].put(plan(every_ms=60_000 + 1_000 * n)) for n in range(100)
    ))  # fmt: skip

    assert 1 == await redis.zcard(keys().at("fires"))
    standing = await schedules.get("tick")
    assert NINE + (standing.schedule.every_ms or 0) == standing.next_ms


async def test_another_queue_has_no_schedule_of_the_same_name(schedules, redis):
    await put(schedules)
    before = await snapshot(redis)

    with pytest.raises(NameTaken, match="stands in the queue mail"):
        await schedules.put(plan(queue="other"))

    after = await snapshot(redis)
    after.pop("{scheduler}:schedule_queues"), before.pop("{scheduler}:schedule_queues")
    assert before == after


async def test_two_queues_that_want_one_name_at_once_get_one_schedule(store, schedules):
    done = await race(
        *(Schedules(store).put(plan(queue=queue)) for queue in ("mail", "other") * 5), return_exceptions=True
    )

    refused = [one for one in done if isinstance(one, NameTaken)]
    assert 5 == len(refused)
    standings = await store.standings([("mail", "tick"), ("other", "tick")])
    assert 1 == sum(one is not None for one in standings)


async def test_a_name_that_was_left_by_a_crash_is_taken_over(store, schedules):
    await store.schedule_name("claim", "tick", queue="other", mark="x")

    await put(schedules)

    assert QUEUE == (await schedules.get("tick")).schedule.queue


async def test_one_that_is_deleted_is_gone_with_its_name(store, redis, schedules, clock):
    await put(schedules, payload=b"[1]")
    clock.advance(60)
    await schedules.fire(QUEUE)
    await schedules.drop("tick")
    clock.advance(600)
    await schedules.fire(QUEUE)

    assert [key(60)] == await jobs(store)
    for name in ("schedules", "fires"):
        assert 0 == await redis.exists(keys().at(name))
    assert 0 == await redis.exists(keys(SCHEDULES).at("owners"), keys(SCHEDULES).at("names"))
    with pytest.raises(NotFound):
        await schedules.get("tick")
    with pytest.raises(NotFound):
        await schedules.drop("tick")
    await schedules.put(plan(queue="other"))


async def test_a_paused_one_fires_nothing_and_misses_nothing(store, schedules, clock):
    await put(schedules, catch_up="all")
    await schedules.set_paused("tick", True)
    clock.advance(150)
    await schedules.fire(QUEUE)
    assert (None, "paused") == ((await schedules.get("tick")).next_ms, (await schedules.get("tick")).state)
    assert [NINE + 180_000] == (await schedules.get("tick")).upcoming(clock.now, 1)

    standing = await schedules.set_paused("tick", False)
    assert NINE + 180_000 == standing.next_ms
    clock.advance(30)
    await schedules.fire(QUEUE)

    assert [key(180)] == await jobs(store)


async def test_a_put_that_says_nothing_of_a_pause_leaves_it(schedules):
    await put(schedules)
    await schedules.set_paused("tick", True)

    assert (await put(schedules, payload=b"[1]")).paused
    assert not (await schedules.put(plan(payload=b"[1]"), paused=False))[0].paused


async def test_a_trigger_makes_a_job_besides(store, schedules, clock):
    await put(schedules, max_runs=1)
    await schedules.set_paused("tick", True)

    made = await schedules.trigger("tick", key="now")
    again = await schedules.trigger("tick", key="now")

    assert "mail:tick.now" == made == again
    standing = await schedules.get("tick")
    assert (0, None, "paused", ["fired"]) == (
        standing.runs,
        standing.next_ms,
        standing.state,
        outcomes(standing),
    )
    assert "tick" == (await look(store, "tick.now")).schedule


async def test_a_check_that_refuses_changes_nothing(schedules, redis):
    def refuse(_):
        raise Changed("no")

    before = await snapshot(redis)
    with pytest.raises(Changed):
        await schedules.put(plan(), check=refuse)
    before["{scheduler}:schedule_queues"] = ("set", {b"mail"})
    assert before | (await snapshot(redis)) == before

    await put(schedules)
    before = await snapshot(redis)
    with pytest.raises(Changed):
        await schedules.drop("tick", check=refuse)
    with pytest.raises(Changed):
        await schedules.set_paused("tick", True, check=refuse)
    assert before == await snapshot(redis)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"cron": "0 0 30 2 *"}, "/cron"),
        ({"cron": "* * * * *", "every_ms": 60_000}, "/cron"),
        ({"every_ms": 99}, "/every"),
        ({"timezone": "Mars/Base", "cron": "@daily"}, "/timezone"),
        ({"overlap": "maybe"}, "/overlap"),
        ({"catch_up": "some"}, "/catch_up"),
        ({"max_runs": 0}, "/max_runs"),
        ({"starts_ms": 5, "ends_ms": 4}, "/ends_at"),
        ({"type": "no type"}, "/type"),
        ({"payload": b" " * (1024 * 1024 + 1)}, "/payload"),
        ({"jitter_ms": 86_400_001}, "/jitter"),
    ],
)
async def test_what_cannot_be_is_refused_by_its_field(schedules, redis, fields, path):
    before = await snapshot(redis)

    with pytest.raises(Invalid) as refused:
        await put(schedules, **fields)

    assert [path] == [fault.path for fault in refused.value.faults]
    assert before == await snapshot(redis)


async def test_a_queue_that_is_obliterated_takes_its_schedules_with_it(store, redis, schedules):
    await race(*(put(schedules, f"s{n}") for n in range(5)))

    assert "gone" == await store.obliterate(QUEUE)

    assert 0 == await redis.exists(
        keys(SCHEDULES).at("owners"), keys(SCHEDULES).at("names"), "{scheduler}:schedule_queues"
    )
    await schedules.put(plan("s1", queue="other"))


# -- lists --------------------------------------------------------------------------------------------------------


async def test_a_list_has_every_schedule_once_by_name(schedules, store):
    for n in range(7):
        await schedules.put(plan(f"s{n}", queue="even" if n % 2 == 0 else "odd"))
    await store.schedule_name("claim", "s3x", queue="odd", mark="x")  # of no schedule

    found: list[str] = []
    following: str | None = ""
    while following is not None:
        page, following = await schedules.page(after=following, limit=3)
        found += [one.schedule.name for one in page]
    assert [f"s{n}" for n in range(7)] == found
    page, _ = await schedules.page(queue="odd")
    assert ["s1", "s3", "s5"] == [one.schedule.name for one in page]


# -- the rules of a zone change -----------------------------------------------------------------------------------


async def test_a_slot_of_former_rules_moves_to_the_right_one(store, redis, schedules, clock):
    await put(schedules, cron="0 12 * * *", timezone="Europe/Berlin")
    right = (await schedules.get("tick")).next_ms or 0
    await redis.zadd(keys().at("fires"), {"tick": right + 3_600_000})

    assert 1 == await schedules.realign(pause=0)

    assert right == (await schedules.get("tick")).next_ms
    assert 0 == await schedules.realign(pause=0)


async def test_a_slot_of_former_rules_that_is_due_is_no_slot(store, redis, schedules, clock):
    await put(schedules, cron="0 12 * * *", timezone="Europe/Berlin")
    right = (await schedules.get("tick")).next_ms or 0
    await redis.zadd(keys().at("fires"), {"tick": right - 3_600_000})
    clock.now = right - 3_600_000
    await schedules.fire(QUEUE)
    assert ([], right) == (await jobs(store), (await schedules.get("tick")).next_ms)

    clock.now = right
    await schedules.fire(QUEUE)
    assert 1 == len(await jobs(store))


# -- verify -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        (lambda redis: redis.zadd(keys().at("fires"), {"stray": 5}), "belongs to no schedule"),
        (lambda redis: redis.zrem(keys().at("fires"), "tick"), "is never due"),
        (lambda redis: redis.zadd(keys().at("fires"), {"paused": 5}), "is due although it is paused"),
        (lambda redis: redis.hset(keys().at("schedules"), ":stray", "0|0|||"), "belongs to no schedule"),
        (lambda redis: redis.hset(keys().at("schedules"), "=stray", "[1]"), "belongs to no schedule"),
        (lambda redis: redis.hset(keys().at("schedules"), "tick", "nonsense"), "is no schedule"),
    ],
)
@pytest.mark.unverified
async def test_verify_finds_and_mends(store, redis, schedules, clock, harm, what):
    await put(schedules)
    await put(schedules, "paused")
    await schedules.set_paused("paused", True)
    assert [] == [fault async for fault in store.verify(QUEUE)]
    await harm(redis)

    found = [fault async for fault in store.verify(QUEUE, repair=True)]

    assert found
    assert any(what in fault.what for fault in found), found
    assert [] == [fault async for fault in store.verify(QUEUE)]
    clock.advance(60)
    await schedules.fire(QUEUE)
    assert [] == [fault async for fault in store.verify(QUEUE)]
    assert [key(60)] == await jobs(store) or "no schedule that" in found[0].what


async def test_one_that_was_never_due_goes_on_where_it_was(store, redis, schedules, clock):
    await put(schedules)
    clock.advance(60)
    await schedules.fire(QUEUE)
    await redis.zrem(keys().at("fires"), "tick")
    _ = [fault async for fault in store.verify(QUEUE, repair=True)]
    clock.advance(30)
    await schedules.fire(QUEUE)

    assert ([key(60)], NINE + 120_000) == (await jobs(store), (await schedules.get("tick")).next_ms)


async def test_a_batch_is_bounded(store):
    with pytest.raises(Exception, match="BATCH"):
        await raw(store, "schedule_fire", 501)
    with pytest.raises(Exception, match="BATCH"):
        await raw(store, "schedule_due", 501)


# -- schedules that cannot be worked out -----------------------------------------------------------------------------

RECORDS = {
    "no record": b"nonsense",
    "empty": b"",
    "not UTF-8": b"\xff\xfe",
    "no header": b"1|2|",
    "a header that is a list": b"1|2|||||||\n{}\n[]",
    "no anchor": b"1|2|||||||\n{}\n{}",
    "a zone of no process": b'1|2||||||||\n{}\n{"anchor_ms":0,"cron":"* * * * *","timezone":"Mars/Olympus","type":"send"}',
    "a cron that is none": b'1|2||||||||\n{}\n{"anchor_ms":0,"cron":"every day","type":"send"}',
    "a period of nothing": b'1|2||||||||\n{}\n{"anchor_ms":0,"every_ms":0,"type":"send"}',
    "a period that is text": b'1|2||||||||\n{}\n{"anchor_ms":0,"every_ms":"1s","type":"send"}',
    "a time beyond all dates": b'1|99999999999999999999||||||||\n{}\n{"anchor_ms":0,"every_ms":1000,"type":"send"}',
    "a field of another type": b'1|2||||||||\n{}\n{"anchor_ms":0,"every_ms":60000,"jitter_ms":"x","retry":5,"type":"send"}',
}


@pytest.mark.unverified
@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
async def test_a_sick_schedule_is_shown_and_all_others_fire(store, redis, schedules, clock, record):
    await put(schedules, "a-sick")
    await put(schedules, "b-well", overlap="allow")
    await schedules.put(plan("c-other", queue="other", overlap="allow"))
    await redis.hset(keys().at("schedules"), "a-sick", record)
    ticker = Ticker(store, schedules)

    for _ in range(3):
        clock.advance(60)
        assert await ticker.tick() is not None

    found = {one["name"]: one for one in await schedules.documents((await schedules.page())[0])}
    assert ["a-sick", "b-well", "c-other"] == sorted(found)
    assert found["a-sick"]["error"]
    assert [None, None] == [found[name]["error"] for name in ("b-well", "c-other")]
    assert [3, 3] == [found[name]["runs"] for name in ("b-well", "c-other")]
    assert [("mail", "a-sick")] == [(queue, name) async for queue, name, _ in schedules.troubles()]
    orjson.dumps(found["a-sick"])
    # It can be put right by its name, and taken away.
    await put(schedules, "a-sick")
    assert [] == [one async for one in schedules.troubles()]
    await redis.hset(keys().at("schedules"), "a-sick", record)
    await schedules.drop("a-sick")
    assert await schedules.find("a-sick") is None


@pytest.mark.unverified
async def test_a_payload_that_is_no_json_takes_no_list_down(store, redis, schedules, clock):
    await put(schedules, "a", payload=b'{"n": 1}')
    await redis.hset(keys().at("schedules"), "=a", b"{nonsense")

    [shown] = await schedules.documents((await schedules.page())[0])
    assert shown["payload"] is None
    assert shown["error"]
    orjson.dumps(shown)


@pytest.mark.unverified
async def test_more_sick_schedules_than_a_page_has_room_for_hold_up_nobody(store, redis, schedules, clock):
    await put(schedules, "z-well")
    sick = {f"s{n}": b"nonsense" for n in range(1_100)}
    await redis.hset(keys().at("schedules"), mapping=sick)
    await redis.zadd(keys().at("fires"), dict.fromkeys(sick, 1))
    clock.advance(60)

    await Ticker(store, schedules).tick()

    assert 1 == (await schedules.get("z-well")).runs


async def test_a_sick_schedule_refuses_a_trigger_and_a_pause(store, redis, schedules, clock):
    await put(schedules, "a")
    await redis.hset(keys().at("schedules"), "a", b"nonsense")

    for call in (schedules.trigger("a"), schedules.set_paused("a", True)):
        with pytest.raises(WrongState, match="damaged: PUT the schedule again, or DELETE it"):
            await call
    await schedules.drop("a")


async def test_after_a_week_away_each_page_is_short_and_the_numbers_are_exact(store, schedules, clock):
    for n in range(20):
        await schedules.put(plan(f"s{n}", cron="* * * * *", timezone="Europe/Berlin"))
    await schedules.put(plan("other", queue="other", cron="* * * * *"))
    clock.advance(7 * 86_400)
    turns: list[tuple[str, int]] = []

    class Watched(Schedules):
        async def fire_page(self, turn, **options):
            more = await super().fire_page(turn, **options)
            turns.append((turn.queue, more))
            return more

    watched = Watched(store)
    await Ticker(store, watched).tick()

    # The queues take turns: the short one is not behind all that the long one has missed.
    assert {"mail", "other"} == {queue for queue, _ in turns[:2]}
    for name in ("s0", "s19", "other"):
        standing = await schedules.get(name)
        assert (1, 7 * 1_440 - 1) == (standing.runs, standing.skipped), name


async def test_a_start_that_cannot_be_shown_is_refused(store, schedules):
    for starts in (parse_rfc3339("9999-12-31T00:00:00Z"), -1):
        with pytest.raises(Invalid, match="/starts_at"):
            await put(schedules, starts_ms=starts)
    assert ([], None) == await schedules.page()


def test_an_end_in_the_last_year_is_no_end():
    assert end_of(parse_rfc3339("9999-12-31T23:59:59Z")) is None
    assert end_of(NINE) == NINE


async def test_a_triggered_job_names_its_schedule(store, schedules, clock):
    await put(schedules)
    job_id = await schedules.trigger("tick")

    assert "tick" == (await look(store, job_id.partition(":")[2])).schedule
    [shown] = await store.inspect(QUEUE, [job_id.partition(":")[2]])
    assert "tick" == shown.document()["schedule"]

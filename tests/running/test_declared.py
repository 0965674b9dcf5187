"""Schedules that stand in the code: put when a worker starts, changed with the code, and gone with it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from scheduler import Invalid, PayloadInvalid, Scheduler, Settings
from scheduler.declared import declare_schedules
from scheduler.schedule import Schedule
from scheduler.scheduling import Schedules
from tests.helpers import on_the_fake
from tests.running.conftest import Bench

START = datetime(2027, 1, 15, 8, tzinfo=UTC)


@pytest.fixture
def app() -> Scheduler:
    return Scheduler(Settings())


def declared(app: Scheduler) -> list[Schedule]:
    return app.handlers.schedules


def of_code(*names: str, **fields: Any) -> list[Schedule]:
    return [
        Schedule(
            **{
                "name": name,
                "queue": "mail",
                "type": "t",
                "every_ms": 60_000,
                "declared_by": "shop",
                **fields,
            }
        )
        for name in names
    ]


async def named(schedules: Schedules) -> dict[str, Schedule]:
    return {one.schedule.name: one.schedule for one in (await schedules.page())[0]}


def test_a_handler_has_schedules_above_and_below_its_job(app):
    @app.schedule("0 9 * * mon-fri", timezone="Europe/Paris")
    @app.job("above", queue="reports")
    async def above(ctx) -> None: ...

    @app.job("below")
    @app.schedule(
        every="90s", name="often", queue="other", payload={"n": 1}, jitter="5s", tags=["x"], timeout=30
    )
    @app.schedule("@daily", name="daily", overlap="allow", catch_up="all", max_runs=3, starts_at=START)
    async def below(ctx, n: int = 0) -> None: ...

    assert [
        ("above", "reports", "above", "0 9 * * mon-fri", None, "Europe/Paris"),
        ("often", "other", "below", None, 90_000, "UTC"),
        ("daily", "default", "below", "@daily", None, "UTC"),
    ] == [(one.name, one.queue, one.type, one.cron, one.every_ms, one.timezone) for one in declared(app)]
    _, often, daily = declared(app)
    assert (b'{"n":1}', 5_000, ("x",), 30_000) == (
        often.payload,
        often.jitter_ms,
        often.tags,
        often.timeout_ms,
    )
    assert ("allow", "all", 3, round(START.timestamp() * 1000)) == (
        daily.overlap, daily.catch_up, daily.max_runs, daily.starts_ms,
    )  # fmt: skip
    assert {__name__} == {one.declared_by for one in declared(app)}


def test_an_app_may_be_given_a_name():
    app = Scheduler(Settings(), name="shop")

    @app.schedule("@daily")
    @app.job("t")
    async def handler(ctx) -> None: ...

    assert ["shop"] == [one.declared_by for one in declared(app)]


def test_what_cannot_be_is_refused_where_it_stands(app):
    def with_schedule(*args: Any, **options: Any) -> None:
        @app.schedule(*args, **options)
        @app.job(f"t{len(app.handlers)}")
        async def handler(ctx, n: int = 0) -> None: ...

    with pytest.raises(Invalid, match=r"/cron: hour \(column 3\)"):
        with_schedule("0 25 * * *")
    with pytest.raises(Invalid, match="/timezone"):
        with_schedule("@daily", timezone="Mars")
    with pytest.raises(Invalid, match="/delay: a schedule has no such option"):
        with_schedule("@daily", delay=5)
    with pytest.raises(Invalid, match="/every: a duration"):
        with_schedule(every="often")
    with pytest.raises(PayloadInvalid):
        with_schedule("@daily", payload={"n": "many"})
    with_schedule("@daily", name="same")
    with pytest.raises(ValueError, match="there is a schedule 'same' already"):
        with_schedule("@daily", name="same")


async def test_a_worker_puts_what_its_code_has(bench: Bench):
    async def nothing(ctx) -> None: ...

    bench.handler("tick", nothing)
    [fast] = of_code("fast", type="tick", every_ms=100, max_runs=2, overlap="allow")
    bench.handlers.app = "shop"
    bench.handlers.add_schedule(fast)
    bench.work()
    schedules = Schedules(bench.store)

    async def finished() -> bool:
        standing = await schedules.find("fast")
        return standing is not None and standing.state == "finished"

    while not await finished():
        await bench.until(lambda: True)
    jobs = [one.key or "" for one in (await schedules.get("fast")).past]
    assert ["succeeded", "succeeded"] == [(await bench.ended(key)).state for key in jobs]


async def test_what_the_code_changes_is_changed_and_what_it_loses_is_deleted(store):
    schedules = Schedules(store)
    await declare_schedules(store, schedules, "shop", of_code("a", "b"))
    versions = {one.schedule.name: one.version for one in (await schedules.page())[0]}
    await declare_schedules(store, schedules, "shop", of_code("a", "b"))
    assert versions == {one.schedule.name: one.version for one in (await schedules.page())[0]}

    await declare_schedules(store, schedules, "shop", of_code("b", "c", every_ms=5_000))

    assert {"b": 5_000, "c": 5_000} == {name: one.every_ms for name, one in (await named(schedules)).items()}
    await declare_schedules(store, schedules, "shop", [])
    assert {} == await named(schedules)


async def test_what_was_made_by_hand_and_by_other_apps_stays(store):
    schedules = Schedules(store)
    [mine] = of_code("mine", declared_by=None)
    await schedules.put(mine)
    await declare_schedules(store, schedules, "other", of_code("theirs", declared_by="other"))

    await declare_schedules(store, schedules, "shop", of_code("mine", "ours", every_ms=5_000))
    await declare_schedules(store, schedules, "shop", [])

    assert {"mine": 60_000, "theirs": 60_000} == {
        name: one.every_ms for name, one in (await named(schedules)).items()
    }


async def test_one_that_the_code_moves_to_another_queue_goes_there(store):
    schedules = Schedules(store)
    await declare_schedules(store, schedules, "shop", of_code("a"))
    await declare_schedules(store, schedules, "shop", of_code("a", queue="other"))

    assert {"a": "other"} == {name: one.queue for name, one in (await named(schedules)).items()}


async def test_a_pause_outlives_the_start_of_a_worker(store):
    schedules = Schedules(store)
    await declare_schedules(store, schedules, "shop", of_code("a"))
    await schedules.set_paused("a", True)
    await declare_schedules(store, schedules, "shop", of_code("a", every_ms=5_000))

    assert (await schedules.get("a")).paused


@on_the_fake
async def test_in_a_test_of_an_app_time_brings_its_schedules(app, backend):
    @app.schedule("0 9 * * *", timezone="Europe/Paris", payload={"n": 2})
    @app.job("daily")
    async def daily(ctx, n: int) -> int:
        seen.append(ctx.slot)
        return n

    seen: list[datetime | None] = []

    async with app.test(now=START) as t:  # nine o'clock in Paris
        assert [] == await t.drain()
        t.advance("23h")
        assert [] == await t.drain()
        t.advance("61m")
        assert ["succeeded"] == await t.drain()
        assert [datetime(2027, 1, 16, 8, tzinfo=UTC)] == seen
        assert [] == await t.drain()

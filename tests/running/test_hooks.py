"""Hooks for dead jobs: when they are called, and what they cannot do."""

from __future__ import annotations

import asyncio

import pytest

from scheduler import Permanent, Retry, RetryAfter, Scheduler
from scheduler.handlers import make_handler
from scheduler.job import Job, NewJob, State
from scheduler.settings import Settings
from scheduler.upkeep import sweep
from tests.running.conftest import QUEUE, Bench
from tests.running.nasty import NASTY

pytestmark = pytest.mark.parametrize("backend", ("fake", "valkey"), indirect=True)


async def dies(ctx) -> None:
    raise Permanent("no")


@pytest.mark.parametrize("how", ["async", "thread"])
async def test_whatever_a_hook_raises_the_next_one_is_called_and_the_worker_goes_on(
    bench: Bench, how: str, caplog
):
    seen: list[str] = []

    def raiser(name: str):
        async def direct(job: Job) -> None:
            raise NASTY[name]()  # noqa: RSE102

        def plain(job: Job) -> None:
            raise NASTY[name]()  # noqa: RSE102

        return direct if how == "async" else plain

    # One that is cancelled has nothing to say.
    names = [name for name in NASTY if name != "cancelled"]
    bench.handlers.on_dead += [raiser(name) for name in names]
    bench.handlers.on_dead.append(lambda job: seen.append(job.id))
    bench.handler("dies", dies)
    bench.work()
    keys = [await bench.enqueue("dies") for _ in range(2)]
    for key in keys:
        await bench.ended(key)
    await bench.until(
        lambda: len(seen) == 2 and caplog.text.count("a hook for dead jobs failed") == 2 * len(names)
    )

    assert sorted(f"{QUEUE}:{key}" for key in keys) == sorted(seen)


async def test_a_hook_that_hangs_delays_no_other_and_no_sweep(bench: Bench):
    seen: list[str] = []

    async def hangs(job: Job) -> None:
        await asyncio.Event().wait()

    bench.handlers.on_dead += [hangs, lambda job: seen.append(f"{job.type} {job.reason}")]
    bench.handler("dies", dies)
    lost = await bench.enqueue("lost", retry={"max_attempts": 1})
    await bench.store.claim(QUEUE, worker="gone", count=1, lease_ms=1)
    worker = bench.work(watchdog_interval_ms=100)
    assert State.DEAD == (await bench.ended(lost)).state
    for _ in range(3):
        await bench.ended(await bench.enqueue("dies"))
    await bench.until(lambda: len(seen) == 4)

    assert ["dies permanent"] * 3 + ["lost attempts"] == sorted(seen)
    await bench.stop(worker)


async def test_the_hook_of_a_handler_hears_of_its_own_type_only(bench: Bench):
    own: list[str] = []
    bench.handlers.add(make_handler("mine", dies, queue=QUEUE, on_dead=lambda job: own.append(job.type)))
    every: list[str] = []
    bench.handlers.on_dead.append(lambda job: every.append(job.type))
    bench.handler("other", dies)
    bench.work()
    for name in ("mine", "other"):
        await bench.ended(await bench.enqueue(name))
    await bench.until(lambda: len(every) == 2)

    assert (["mine"], ["mine", "other"]) == (own, sorted(every))


async def test_hooks_are_called_in_a_test_of_an_app(backend):
    app = Scheduler(Settings(redis_url="memory://"))
    seen: list[str] = []

    @app.on_dead
    async def told(job: Job) -> None:
        seen.append(f"all {job.errors[-1].message}")

    @app.job("work", on_dead=lambda job: seen.append(f"own {job.type}"))
    async def work(ctx) -> None:
        raise Permanent("no")

    async with app.test() as t:
        await work.enqueue()
        assert ["dead"] == await t.drain()

    assert ["own work", "all no"] == seen


def test_what_cannot_be_called_with_a_job_is_no_hook(backend):
    with pytest.raises(ValueError, match="takes the job and nothing else"):
        Scheduler().on_dead(lambda: None)  # type: ignore[type-var]


async def test_a_job_that_dies_waiting_at_its_deadline_is_said_and_calls_the_hooks(bench: Bench, caplog):
    seen: list[str | None] = []

    async def fails(ctx) -> None:
        await bench.store.configure(QUEUE, {"paused": "1"})
        raise RetryAfter(0.05)

    bench.handlers.on_dead.append(lambda job: seen.append(job.reason))
    bench.handler("fails", fails)
    key = await bench.enqueue("fails", deadline_in_ms=400)
    bench.work(watchdog_interval_ms=100)
    await bench.until(lambda: seen)

    assert ["deadline"] == seen
    await bench.until(lambda: f"a job is dead job={QUEUE}:{key} type=fails" in caplog.text)


async def test_an_ack_whose_jobs_are_refused_is_said_as_the_failure_that_it_is(bench: Bench, caplog):
    standing = await bench.enqueue("other")

    async def adds(ctx) -> None:
        ctx.add(NewJob(type="other", payload=b'{"n": 1}', queue=QUEUE, key=standing))

    bench.handler("adds", adds, retry=Retry(max_attempts=1))
    key = await bench.enqueue("adds")
    bench.work()
    await bench.ended(key)

    await bench.until(lambda: f"a job is dead job={QUEUE}:{key} type=adds" in caplog.text)
    assert "kind=Duplicate" in caplog.text


async def test_a_process_without_an_app_says_each_death_that_its_sweep_decides(bench: Bench, caplog):
    key = await bench.enqueue("lost", retry={"max_attempts": 1})
    await bench.store.claim(QUEUE, worker="host:77:gone", count=1, lease_ms=1)

    async def swept() -> bool:
        await sweep(bench.store, QUEUE, bench.settings)
        return (await bench.job(key)).state is State.DEAD

    await bench.until(swept)

    lines = [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "scheduler.upkeep"]
    death = f'a job is dead job={QUEUE}:{key} type=lost attempt=1 reason=attempts kind=LeaseExpired message="the lease of host:77:gone ran out"'
    assert [("ERROR", death)] == lines[:1]
    assert ("WARNING", True) == (lines[1][0], "worker=host:77:gone pid=77" in lines[1][1])

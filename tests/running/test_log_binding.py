"""What a handler logs names its attempt: for formats of the user's own, in threads and processes too."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from scheduler.attempt import attempt_fields
from scheduler.events import Follower, wait_ended
from scheduler.job import State
from tests.running import jobs_in_processes as elsewhere
from tests.running.conftest import QUEUE, Bench

pytestmark = pytest.mark.parametrize("backend", ("fake",), indirect=True)


@pytest.mark.parametrize("how", ["async", "thread", "to_thread"])
async def test_records_of_a_handler_have_its_job_and_what_they_say_themselves_wins(
    bench: Bench, caplog, how: str
):
    caplog.set_level(logging.INFO, "scheduler")

    def plain(ctx) -> None:
        logging.getLogger("shop").warning("looked", extra={"type": "of my own"})

    async def direct(ctx) -> None:
        await asyncio.create_task(asyncio.to_thread(plain, ctx) if how == "to_thread" else later(ctx))

    async def later(ctx) -> None:
        plain(ctx)

    bench.handler("work", plain if how == "thread" else direct)
    key = await bench.enqueue("work")
    bench.work()
    await bench.ended(key)

    [record] = [found for found in caplog.records if found.getMessage() == "looked"]
    assert f"{QUEUE}:{key} of my own 1" == logging.Formatter("%(job)s %(type)s %(attempt)s").format(record)
    [outside] = [found for found in caplog.records if found.getMessage().startswith("worker started")]
    assert "None" == logging.Formatter("%(job)s").format(outside)


async def test_lines_of_a_process_have_its_job(bench: Bench, capfd):
    bench.handler("speaks", elsewhere.speaks, process=True)
    key = await bench.enqueue("speaks")
    bench.work(log_format="json")
    await bench.ended(key, 30)

    [line] = [json.loads(row) for row in capfd.readouterr().err.splitlines() if "spoken" in row]
    assert (f"{QUEUE}:{key}", "speaks", 1) == (line["job"], line["type"], line["attempt"])


async def test_loops_that_a_handler_has_begun_are_not_said_in_its_name(bench: Bench):
    """Who waits first for the end of a job begins a loop for all who wait."""
    other = await bench.enqueue("other")
    seen: list[dict[str, object]] = []

    class Seen(Follower):
        async def _listen(self) -> None:
            seen.append(attempt_fields())
            await super()._listen()

        async def _look_at_all(self) -> float:
            seen.append(attempt_fields())
            return await super()._look_at_all()

    follower = Seen(bench.store.clients, "scheduler")

    async def waits(ctx) -> None:
        assert attempt_fields()
        await wait_ended(bench.store, follower, QUEUE, other, 0.05)

    bench.handler("waits", waits)
    bench.work()
    waited = await bench.ended(await bench.enqueue("waits"))
    await follower.close()

    assert State.SUCCEEDED == waited.state
    assert seen
    assert [{}] * len(seen) == seen

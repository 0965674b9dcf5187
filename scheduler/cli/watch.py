"""`scheduler job log` and `scheduler job wait`: a job followed to its end."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import click

from ..errors import SchedulerError
from ..settings import Settings
from ..times import rfc3339, typed_duration_ms
from .common import Command, connected, json_option, print_json, run, said, with_id, with_settings

if TYPE_CHECKING:
    from ..job import Job
    from ..outcomes import LogLine
    from ..store import Store

LOOK_EVERY = 0.5
"""Seconds between two looks for new lines of a log."""

LONGEST_LOOK = 60.0
"""Seconds of waiting for one event; afterwards the job is read again."""


class NotSucceeded(SchedulerError):
    """The job ended dead or cancelled, or has not ended in time. The message names the state and the last error."""


async def ended(store: Store, queue: str, key: str, timeout_ms: int | None = None) -> Job:
    """Waits until a job has ended. Raises NotFound, and NotSucceeded when the time is over before."""
    import asyncio  # noqa: PLC0415 - help does without

    from ..events import Follower, wait_ended  # noqa: PLC0415

    loop = asyncio.get_running_loop()
    until = None if timeout_ms is None else loop.time() + timeout_ms / 1000
    follower = Follower(store.clients, store.namespace)
    try:
        while True:
            left = LONGEST_LOOK if until is None else min(LONGEST_LOOK, until - loop.time())
            job = await wait_ended(store, follower, queue, key, left)
            if job.state.ended:
                return job
            if until is not None and loop.time() >= until:
                raise NotSucceeded(f"job {job.id} is still {job.state.value}: the time to wait is over")
    finally:
        await follower.close()


def tell_end(job: Job, *, as_json: bool) -> None:
    """Prints the result of an ended job, or its document. Raises NotSucceeded for one that did not succeed."""
    if as_json:
        print_json(job.document())
    elif job.state == "succeeded":
        sys.stdout.write((job.result or b"null").decode() + "\n")
    if job.state != "succeeded":
        reason = f" ({job.reason})" if job.reason else ""
        last = f": {job.errors[-1].kind}: {job.errors[-1].message}" if job.errors else ""
        raise NotSucceeded(f"job {job.id} is {job.state.value}{reason}{last}")


@click.command(cls=Command)
@click.argument("job_id", metavar="ID")
@click.option("--timeout", help="Give up (exit 1) after so long: seconds, or 30s 5m 2h.")
@json_option
@with_settings
def wait(job_id: str, timeout: str | None, as_json: bool, settings: Settings) -> None:
    """Wait until a job has ended, and print its result. Exit 1 when it is dead or cancelled."""
    queue, key = with_id(job_id)
    timeout_ms = said(typed_duration_ms, timeout, "--timeout")

    async def work() -> Job:
        async with connected(settings, queue=queue) as store:
            return await ended(store, queue, key, timeout_ms)

    tell_end(run(work()), as_json=as_json)


@click.command(cls=Command)
@click.argument("job_id", metavar="ID")
@click.option("--follow", "-f", is_flag=True, help="Print new lines as they come, until the job has ended.")
@json_option
@with_settings
def log(job_id: str, follow: bool, as_json: bool, settings: Settings) -> None:
    """Print what a job's handler logged with ctx.log, the newest 1,000 lines, oldest first."""
    queue, key = with_id(job_id)
    if follow and as_json:
        raise click.UsageError("--json prints one document, and --follow has no end yet: use one of the two")

    async def work() -> None:
        async with connected(settings, queue=queue) as store:
            if as_json:
                lines = [line async for line in _lines(store, queue, key, follow=False)]
                print_json({"items": [{"at": rfc3339(line.at_ms), "line": line.text} for line in lines]})
                return
            async for line in _lines(store, queue, key, follow=follow):
                _print(line)

    run(work())


def _print(line: LogLine) -> None:
    from ..logs import escaped  # noqa: PLC0415 - help does without

    print(f"{rfc3339(line.at_ms)}  {escaped(line.text)}", flush=True)


async def _lines(store: Store, queue: str, key: str, *, follow: bool) -> AsyncIterator[LogLine]:
    """The lines of a job's log; with `follow` those too that come until it has ended. Raises NotFound."""
    import asyncio  # noqa: PLC0415 - help does without

    after = ""
    while True:
        # The state is read first: a line that was written before the end is then seen in the look after it.
        over = (await store.job(queue, key)).state.ended
        more = True
        while more:
            lines, more = await store.log(queue, key, after=after)
            for line in lines:
                after = line.place
                yield line
        if over or not follow:
            return
        await asyncio.sleep(LOOK_EVERY)

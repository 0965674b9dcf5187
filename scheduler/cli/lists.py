"""`scheduler jobs list`, and how lists are read and shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..keys import STATES
from ..settings import Settings
from .common import (
    KEY,
    KIND,
    QUEUE,
    TYPE,
    Group,
    connected,
    json_option,
    print_json,
    run,
    with_settings,
)

if TYPE_CHECKING:
    from ..job import Job
    from ..listing import Filters, Place
    from ..store import Store


@click.group(cls=Group)
def jobs() -> None:
    """List jobs."""


@jobs.command("list")
@click.option("--queue", type=QUEUE, help="Of this queue alone.")
@click.option("--state", type=click.Choice(STATES), help="In this state alone.")
@click.option("--type", "kind", type=TYPE, help="Of this type.")
@click.option("--group", type=KEY, help="Of this group.")
@click.option("--tag", type=KEY, help="With this tag.")
@click.option("--error", type=KIND, help="With an error of this kind.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many at most.")
@json_option
@with_settings
def list_jobs(limit: int, as_json: bool, settings: Settings, **wanted: str | None) -> None:
    """Jobs by queue and state; within a state as they will run, by due time, or the newest first."""
    import msgspec  # noqa: PLC0415 - help does without

    from ..listing import Filters  # noqa: PLC0415 - likewise

    given = {"type" if name == "kind" else name: value for name, value in wanted.items() if value}
    filters = msgspec.convert(given, Filters)

    async def work() -> list[Job]:
        async with connected(settings, queue=filters.queue or "default") as store:
            return await taken(store, filters, limit)

    found = run(work())
    if as_json:
        print_json({"items": [job.document(include=frozenset()) for job in found]})
        return
    from .draw import table  # noqa: PLC0415

    rows = [(job.id, job.type, job.state.value, when_of(job)) for job in found]
    table(["id", "type", "state", "when"], rows, spare=["when", "type"])


async def taken(store: Store, filters: Filters, limit: int) -> list[Job]:
    """The first jobs of a list, page by page."""
    from ..listing import page  # noqa: PLC0415 - help does without
    from .draw import progress  # noqa: PLC0415

    found: list[Job] = []
    at: Place | None = None
    with progress("reading", total=limit) as bar:
        while len(found) < limit:
            one = await page(store, filters, at=at, limit=min(1000, limit - len(found)))
            found += one.jobs
            bar.advance(len(one.jobs))
            at = one.rest
            if at is None:
                break
    return found


def failure_of(job: Job) -> str:
    text = ": ".join(part for part in job.failure if part).replace("\n", " ")
    return text if len(text) <= 100 else text[:99] + "…"


def when_of(job: Job) -> str:
    from .draw import moment  # noqa: PLC0415 - help does without

    for name, at in (("ended", job.finished_at), ("started", job.started_at), ("due", job.run_at)):
        if at is not None and not (name == "started" and job.state != "running"):
            return f"{name} {moment(at)}"
    return f"created {moment(job.created_at)}"

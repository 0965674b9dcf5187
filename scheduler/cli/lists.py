"""`scheduler jobs list`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from ..job import Job
from ..keys import STATES
from ..listing import Filters, Place, page
from ..settings import Settings
from ..store import Store
from ..times import rfc3339
from .common import connected, print_json, run, with_settings


@click.group()
def jobs() -> None:
    """List jobs."""


@jobs.command("list")
@click.option("--queue", default="", help="Of this queue alone.")
@click.option("--state", type=click.Choice(STATES), help="In this state alone.")
@click.option("--type", "kind", default="", help="Of this type.")
@click.option("--group", default="", help="Of this group.")
@click.option("--tag", default="", help="With this tag.")
@click.option("--error", default="", help="With an error of this kind.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many at most.")
@click.option("--json", "as_json", is_flag=True)
@with_settings
def list_jobs(
    queue: str, state: str | None, kind: str, group: str, tag: str, error: str, limit: int, as_json: bool, settings: Settings
) -> None:  # fmt: skip
    """Jobs by queue and state; within a state as they will run, by due time, or the newest first."""
    filters = Filters(queue=queue, state=state or "", type=kind, group=group, tag=tag, error=error)

    async def work() -> list[Job]:
        async with connected(settings, queue=queue or "default") as store:
            return await taken(store, filters, limit)

    found = run(work())
    if as_json:
        print_json({"items": [job.document(include=frozenset()) for job in found]})
    else:
        table([(job.id, job.type, job.state.value, _when(job)) for job in found])


async def taken(store: Store, filters: Filters, limit: int, **more: Any) -> list[Job]:
    """The first jobs of a list, page by page."""
    found: list[Job] = []
    at: Place | None = more.pop("at", None)
    while len(found) < limit:
        one = await page(store, filters, at=at, limit=min(1000, limit - len(found)), **more)
        found += one.jobs
        at = one.rest
        if at is None:
            break
    return found


def table(rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as what stands in them."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))] if rows else []
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _when(job: Job) -> str:
    for name, at in (("ended", job.finished_at), ("started", job.started_at), ("due", job.run_at)):
        if at is not None and not (name == "started" and job.state != "running"):
            return f"{name} {rfc3339(at)}"
    return f"created {rfc3339(job.created_at)}"

"""`scheduler jobs list` and `scheduler dlq list`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..job import Job, State
from ..keys import STATES
from ..listing import Filters, Place, page
from ..settings import Settings
from ..store import Store
from ..times import parse_rfc3339, rfc3339
from .common import Group, connected, print_json, run, with_settings


@click.group(cls=Group)
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


@click.group(cls=Group)
def dlq() -> None:
    """The dead-letter queue of a queue."""


@dlq.command("list")
@click.argument("queue", metavar="Q")
@click.option("--type", "kind", default="", help="Of this type.")
@click.option("--kind", "error", default="", help="Whose last error is of this kind.")
@click.option("--fingerprint", default="", help="That died alike.")
@click.option("--before", help="That ended before this time: RFC 3339 with an offset.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many at most.")
@click.option("--json", "as_json", is_flag=True)
@with_settings
def list_dead(
    queue: str, kind: str, error: str, fingerprint: str, before: str | None, limit: int, as_json: bool, settings: Settings
) -> None:  # fmt: skip
    """The dead jobs of the queue Q, newest first."""
    try:
        before_ms = None if before is None else parse_rfc3339(before)
    except ValueError as wrong:
        raise click.BadParameter(str(wrong), param_hint="--before") from wrong
    filters = Filters(
        queue=queue, state=State.DEAD, type=kind, kind=error, fingerprint=fingerprint, before_ms=before_ms
    )

    async def work() -> list[Job]:
        async with connected(settings, queue=queue) as store:
            await store.census(queue)
            return await taken(store, filters, limit)

    found = run(work())
    if as_json:
        items = [{**job.document(include=frozenset()), "fingerprint": job.fingerprint} for job in found]
        print_json({"items": items})
    else:
        table([(job.id, job.type, _when(job), job.fingerprint or "", _failure(job)) for job in found])


async def taken(store: Store, filters: Filters, limit: int) -> list[Job]:
    """The first jobs of a list, page by page."""
    found: list[Job] = []
    at: Place | None = None
    while len(found) < limit:
        one = await page(store, filters, at=at, limit=min(1000, limit - len(found)))
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


def _failure(job: Job) -> str:
    text = ": ".join(part for part in job.failure if part).replace("\n", " ")
    return text if len(text) <= 100 else text[:99] + "…"


def _when(job: Job) -> str:
    for name, at in (("ended", job.finished_at), ("started", job.started_at), ("due", job.run_at)):
        if at is not None and not (name == "started" and job.state != "running"):
            return f"{name} {rfc3339(at)}"
    return f"created {rfc3339(job.created_at)}"

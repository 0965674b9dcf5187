"""`scheduler jobs list`, and how lists are read and shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import click

from ..keys import STATES
from ..settings import Settings
from ..times import parse_rfc3339, typed_duration_ms
from .common import (
    KEY,
    KIND,
    QUEUE,
    TYPE,
    Group,
    connected,
    head_option,
    json_option,
    print_json,
    run,
    said,
    with_settings,
)

if TYPE_CHECKING:
    from ..job import Job
    from ..listing import Filters, Place
    from ..store import Store


SORTS = ("created", "started", "ended", "due", "priority")
_FIELDS = {
    "created": "created_at",
    "started": "started_at",
    "ended": "finished_at",
    "due": "run_at",
    "priority": "priority",
}


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
@click.option(
    "--since", help="Ended (or, unfinished ones, created) then or later: RFC 3339, or 30m 2h 7d ago."
)
@click.option("--until", help="Ended (or, unfinished ones, created) before then: RFC 3339, or 30m 2h 7d ago.")
@click.option(
    "--sort",
    type=click.Choice(SORTS),
    help="Over all queues and states, the newest first; reads every match.",
)
@click.option("--reverse", is_flag=True, help="With --sort: the oldest first.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many at most.")
@head_option
@json_option
@with_settings
def list_jobs(
    since: str | None, until: str | None, sort: str | None, reverse: bool, limit: int, as_json: bool,
    settings: Settings, **wanted: str | None,
) -> None:  # fmt: skip
    """Jobs by queue and state; within a state as they will run, by due time, or the newest first."""
    import msgspec  # noqa: PLC0415 - help does without

    from ..listing import Filters  # noqa: PLC0415 - likewise

    if reverse and sort is None:
        raise click.UsageError("--reverse goes with --sort")
    for option, text in (("--since", since), ("--until", until)):
        said(_is_time, text, option)
    given = {"type" if name == "kind" else name: value for name, value in wanted.items() if value}

    async def work() -> list[Job]:
        async with connected(settings, queue=given.get("queue") or "default") as store:
            now = await store.now()
            filters = msgspec.convert({**given, "before_ms": _time(until, now)}, Filters)
            least = _time(since, now)
            if sort is None:
                return await taken(store, filters, limit, least)
            return await _sorted(store, filters, limit, least, sort, reverse=reverse)

    found = run(work())
    if as_json:
        print_json({"items": [job.document(include=frozenset()) for job in found]})
        return
    from .draw import table  # noqa: PLC0415

    rows = [(job.id, job.type, job.state.value, when_of(job)) for job in found]
    table(["id", "type", "state", "when"], rows, spare=["when", "type"])


def _is_time(text: str) -> bool:
    """Raises ValueError for text that is neither a time nor a duration."""
    return _time(text, 0) is not None


def _time(text: str | None, now: int) -> int | None:
    """A time as RFC 3339, or a duration before `now`, in ms; None for None. Raises ValueError."""
    if text is None:
        return None
    return parse_rfc3339(text) if ":" in text else now - typed_duration_ms(text)


async def taken(store: Store, filters: Filters, limit: int, since: int | None = None) -> list[Job]:
    """The first jobs of a list, page by page; with `since` (ms) those that ended, or were created, then or later."""
    from .draw import progress  # noqa: PLC0415 - help does without

    found: list[Job] = []
    with progress("reading", total=limit) as bar:
        async for jobs in _pages(store, filters, since, limit):
            found += jobs
            bar.advance(len(jobs))
            if len(found) >= limit:
                break
    return found[:limit]


async def _pages(store: Store, filters: Filters, since: int | None, size: int) -> AsyncIterator[list[Job]]:
    """The pages of a list. Of ended jobs, which come newest first, nothing older than `since` is read."""
    from ..listing import page  # noqa: PLC0415 - help does without

    at: Place | None = None
    while True:
        one = await page(store, filters, at=at, limit=min(1000, size))
        yield [job for job in one.jobs if since is None or _moment(job) >= since]
        at = one.rest
        if at is None:
            return
        last = one.jobs[-1] if one.jobs else None
        if since is not None and last is not None and last.state.ended and _moment(last) < since:
            # The rest of this state is older still. If the list has left it already, it goes on where it is.
            beyond = _after(last.queue, last.state.value)
            order = {state: n for n, state in enumerate(STATES)}
            at = max(at, beyond, key=lambda place: (place.queue, order[place.state]))


def _after(queue: str, state: str) -> Place:
    """Where a list begins that has passed this state of this queue."""
    from ..listing import Place  # noqa: PLC0415 - help does without

    later = STATES[STATES.index(state) + 1 :]
    # No queue is named between a name and the same name with the lowest letter after it.
    return Place(queue, later[0]) if later else Place(queue + "\0", STATES[0])


def _moment(job: Job) -> int:
    """When an ended job ended, or any other was created, ms."""
    return job.created_at if job.finished_at is None else job.finished_at


async def _sorted(
    store: Store, filters: Filters, limit: int, since: int | None, sort: str, *, reverse: bool
) -> list[Job]:
    """The first `limit` of all jobs that match, the highest value of the field first. Jobs without the field are left out."""
    from heapq import nlargest, nsmallest  # noqa: PLC0415 - help does without

    from .draw import progress  # noqa: PLC0415

    def value(job: Job) -> int:
        return int(getattr(job, _FIELDS[sort]))

    best: list[Job] = []
    first = nsmallest if reverse else nlargest
    with progress("reading", total=None) as bar:
        async for jobs in _pages(store, filters, since, 1000):
            bar.advance(len(jobs))
            known = [job for job in jobs if getattr(job, _FIELDS[sort]) is not None]
            best = first(limit, best + known, key=value)
    return best


def failure_of(job: Job) -> str:
    text = ": ".join(part for part in job.failure if part).replace("\n", " ")
    return text if len(text) <= 100 else text[:99] + "…"


def when_of(job: Job) -> str:
    from .draw import moment  # noqa: PLC0415 - help does without

    for name, at in (("ended", job.finished_at), ("started", job.started_at), ("due", job.run_at)):
        if at is not None and not (name == "started" and job.state != "running"):
            return f"{name} {moment(at)}"
    return f"created {moment(job.created_at)}"

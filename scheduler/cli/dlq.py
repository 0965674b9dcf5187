"""`scheduler dlq …`: the dead-letter queue of a queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..settings import Settings
from ..times import parse_rfc3339, rfc3339
from .acts import asked, carried, shown
from .common import (
    FINGERPRINT,
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
from .lists import failure_of, taken, when_of

if TYPE_CHECKING:
    from ..job import Job
    from ..operations import Plan
    from ..outcomes import DeadGroup
    from ..store import Store


def chosen(function: Any) -> Any:
    """The options that choose dead jobs, and how many."""
    for option in reversed(
        [
            click.argument("queue", metavar="Q", type=QUEUE),
            click.argument("ids", nargs=-1),
            click.option("--type", "kind", type=TYPE, help="Of this type."),
            click.option("--kind", "error", type=KIND, help="Whose last error is of this kind."),
            click.option("--fingerprint", type=FINGERPRINT, help="That died alike: see `dlq groups`."),
            click.option("--before", help="That ended before this time: RFC 3339 with an offset."),
            click.option("--limit", type=click.IntRange(1), help="How many at most."),
            click.option("--dry-run", is_flag=True, help="Only count."),
        ]
    ):
        function = option(function)
    return function


@click.group(cls=Group)
def dlq() -> None:
    """Dead-letter queues: list them, replay or purge the jobs of one."""


@dlq.command("list")
@click.argument("queue", metavar="[Q]", type=QUEUE, required=False)
@click.option("--type", "kind", type=TYPE, help="Of this type.")
@click.option("--kind", "error", type=KIND, help="Whose last error is of this kind.")
@click.option("--fingerprint", type=FINGERPRINT, help="That died alike.")
@click.option("--before", help="That ended before this time: RFC 3339 with an offset.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many at most.")
@head_option
@json_option
@with_settings
def list_dead(
    queue: str | None, kind: str | None, error: str | None, fingerprint: str | None, before: str | None, limit: int,
    as_json: bool, settings: Settings,
) -> None:  # fmt: skip
    """The dead jobs of the queue Q, newest first; without Q those of all queues, queue by queue."""
    from ..job import State  # noqa: PLC0415 - help does without
    from ..listing import Filters  # noqa: PLC0415

    filters = Filters(
        queue=queue or "",
        state=State.DEAD,
        type=kind or "",
        kind=error or "",
        fingerprint=fingerprint or "",
        before_ms=said(parse_rfc3339, before, "--before"),
    )

    async def work() -> list[Job]:
        async with connected(settings, queue=queue or "default") as store:
            if queue is not None:
                await store.census(queue)
            return await taken(store, filters, limit)

    found = run(work())
    if as_json:
        items = [{**job.document(include=frozenset()), "fingerprint": job.fingerprint} for job in found]
        print_json({"items": items})
        return
    from .draw import table  # noqa: PLC0415

    rows = [(job.id, job.type, when_of(job), job.fingerprint or "", failure_of(job)) for job in found]
    table(["id", "type", "when", "fingerprint", "error"], rows, spare=["when", "type"])


@dlq.command("groups")
@click.argument("queue", metavar="[Q]", type=QUEUE, required=False)
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many at most.")
@head_option
@json_option
@with_settings
def list_groups(queue: str | None, limit: int, as_json: bool, settings: Settings) -> None:
    """The dead jobs of the queue Q, or of all queues, by the failure they died of, the latest failure first."""

    async def work() -> list[tuple[str, DeadGroup]]:
        async with connected(settings, queue=queue or "default") as store:
            if queue is not None:
                await store.census(queue)
            found: list[tuple[str, DeadGroup]] = []
            for name in await store.queues() if queue is None else [queue]:
                found += [(name, group) for group in await _groups(store, name, limit)]
            return sorted(found, key=lambda one: -one[1].last_at)[:limit] if queue is None else found

    found = run(work())
    if as_json:
        print_json({"items": [{"queue": name, **group.document()} for name, group in found]})
        return
    from .draw import moment, table  # noqa: PLC0415 - help does without

    # With Q given the column of its name would say nothing.
    columns = ["fingerprint", "jobs", "last", "type", "error"]
    rows = [
        (
            *([name] if queue is None else []),
            group.fingerprint,
            str(group.count),
            moment(group.last_at),
            group.type,
            f"{group.kind}: {group.message}".replace("\n", " ")[:100],
        )
        for name, group in found
    ]
    if queue is None:
        columns.insert(0, "queue")
    table(columns, rows, whole=len(columns) - 4, right=("jobs",), spare=["type", "last"])


async def _groups(store: Store, queue: str, limit: int) -> list[DeadGroup]:
    """The groups of one queue, at most `limit`, the latest failure first."""
    found: list[DeadGroup] = []
    cursor = ""
    while len(found) < limit:
        some, cursor = await store.groups(queue, after=cursor, limit=min(500, limit - len(found)))
        found += some
        if not cursor:
            break
    return found


@dlq.command("replay")
@chosen
@click.option("--rate", help='How fast: "100/m" (s, m, h, d).')
@click.option("--patch", help="A JSON merge patch over each payload; @FILE or - reads it from there.")
@click.option(
    "--stop-after-failures", type=click.IntRange(1, 500), help="Stop when so many have failed again."
)
@click.option("--to", "to_queue", type=QUEUE, help="Move them to this queue and run them there.")
@json_option
@with_settings
def replay(
    queue: str, rate: str | None, patch: str | None, stop_after_failures: int | None, to_queue: str | None,
    as_json: bool, settings: Settings, **which: Any,
) -> None:  # fmt: skip
    """Run dead jobs of the queue Q again: these IDS, or all that match."""
    from msgspec import UNSET, Raw  # noqa: PLC0415 - help does without
    from msgspec.structs import replace  # noqa: PLC0415

    from ..limits import parse_rate  # noqa: PLC0415
    from ..operations import MOST_PATCH  # noqa: PLC0415
    from .jobs import read_payload  # noqa: PLC0415

    def read_patch(text: str) -> bytes:
        found = read_payload(text, "--patch")
        if len(found) > MOST_PATCH:
            raise click.BadParameter(f"at most {MOST_PATCH // 1024} KiB", param_hint="--patch")
        return found

    plan = replace(
        _plan("replay", queue, which),
        rate=said(parse_rate, rate, "--rate"),
        payload_patch=UNSET if patch is None else Raw(read_patch(patch)),
        stop_after_failures=stop_after_failures,
        to_queue="" if to_queue in {None, queue} else to_queue or "",
        max_payload=settings.max_payload,
    )
    shown(run(carried(settings, queue, plan)), as_json=as_json)


@dlq.command("purge")
@chosen
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@with_settings
def purge(queue: str, yes: bool, as_json: bool, settings: Settings, **which: Any) -> None:
    """Delete dead jobs of the queue Q: these IDS, or all that match."""
    plan = _plan("purge", queue, which)
    asked(f"Delete {_which(plan)} of {queue} for good?", plan, yes=yes)
    shown(run(carried(settings, queue, plan)), as_json=as_json)


def _plan(act: str, queue: str, which: dict[str, Any]) -> Plan:
    """What is to be done with the dead jobs that the options choose. Raises click.BadParameter."""
    from ..job import State  # noqa: PLC0415 - help does without
    from ..operations import Plan  # noqa: PLC0415
    from .acts import keys_of  # noqa: PLC0415

    filters = [which["kind"], which["error"], which["fingerprint"], which["before"]]
    if which["ids"] and any(filters):
        raise click.UsageError("Name ids, or choose by options: not both.")
    return Plan(
        act="replay" if act == "replay" else "purge",
        states=(State.DEAD,),
        type=which["kind"] or "",
        kind=which["error"] or "",
        fingerprint=which["fingerprint"] or "",
        before_ms=said(parse_rfc3339, which["before"], "--before"),
        ids=keys_of(queue, which["ids"]),
        limit=which["limit"],
        dry_run=which["dry_run"],
    )


def _which(plan: Plan) -> str:
    """The dead jobs of a plan, for people."""
    if plan.ids:
        return f"{len(plan.ids)} dead {'job' if len(plan.ids) == 1 else 'jobs'}"
    words = [
        f"of the type {plan.type}" if plan.type else "",
        f"of the kind {plan.kind}" if plan.kind else "",
        f"that died as {plan.fingerprint}" if plan.fingerprint else "",
        f"that ended before {rfc3339(plan.before_ms)}" if plan.before_ms is not None else "",
    ]
    amount = "all" if plan.limit is None else f"up to {plan.limit}"
    return " ".join([amount, "dead jobs", *filter(None, words)])

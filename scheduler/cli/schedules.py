"""`scheduler schedule …`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import click

from ..settings import Settings
from ..times import parse_rfc3339, typed_duration_ms
from .common import (
    KEY,
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
from .jobs import read_payload

if TYPE_CHECKING:
    from ..schedule import Standing
    from ..scheduling import Schedules
    from ..store import Store

OVERLAPS = ("skip", "allow", "cancel_running", "queue_one")
CATCH_UPS = ("latest", "none", "all")

NAME = click.argument("name", metavar="NAME", type=QUEUE)


@click.group(cls=Group)
def schedule() -> None:
    """Schedules: what is enqueued again and again, and when."""


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[tuple[Store, Schedules]]:
    from ..scheduling import Schedules  # noqa: PLC0415 - help does without

    async with connected(settings) as store:
        yield store, Schedules(store, max_payload=settings.max_payload)


@schedule.command("put")
@NAME
@click.option("--type", "type_", type=TYPE, required=True, help="Of its jobs.")
@click.option(
    "--cron", help='Five fields, or six with the second first: "0 9 * * mon-fri"; or @daily and the like.'
)
@click.option("--every", help="A period instead: seconds, or 90s 5m 2h.")
@click.option(
    "--timezone", default="UTC", show_default=True, help="Of --cron: an IANA name, such as Europe/Paris."
)
@click.option("--queue", type=QUEUE, default="default", show_default=True, help="Of its jobs.")
@click.option("--payload", help="Of its jobs: JSON, @file, or - for stdin.")
@click.option("--jitter", default="0", help="A job starts up to so much later than its slot.")
@click.option(
    "--overlap",
    type=click.Choice(OVERLAPS),
    default="skip",
    show_default=True,
    help="While a former job has not ended.",
)
@click.option(
    "--catch-up",
    type=click.Choice(CATCH_UPS),
    default="latest",
    show_default=True,
    help="Of slots that nobody was there for.",
)
@click.option("--catch-up-window", help="Slots that are older are not caught up: 1d unless you say so.")
@click.option("--starts-at", help="Nothing before: RFC 3339 with an offset.")
@click.option("--ends-at", help="Nothing after.")
@click.option("--max-runs", type=click.IntRange(min=1), help="Slots that make a job; then it has finished.")
@click.option("--paused/--active", "paused", default=None, help="Left as it is unless you say so.")
@click.option("--priority", type=click.IntRange(-100, 100), default=0, help="Of its jobs: higher first.")
@click.option("--group", type=KEY, help="Of its jobs.")
@click.option("--tag", "tags", type=KEY, multiple=True, help="Of its jobs; may be given more than once.")
@click.option("--timeout", help="Of one attempt: seconds, or 30s 5m 2h.")
@click.option("--max-attempts", type=click.IntRange(1, 1000), help="Runs before a job is a dead letter.")
@json_option
@with_settings
def put(
    name: str, type_: str, payload: str | None, as_json: bool, settings: Settings, **options: Any
) -> None:
    """Make the schedule NAME, or replace it."""
    from .. import retry as retry_policy  # noqa: PLC0415 - help does without
    from ..schedule import WINDOW_MS, Schedule  # noqa: PLC0415

    window = said(typed_duration_ms, options["catch_up_window"], "--catch-up-window")
    attempts = options["max_attempts"]
    asked = Schedule(
        name=name,
        queue=options["queue"],
        type=type_,
        payload=b"{}" if payload is None else read_payload(payload),
        cron=options["cron"],
        every_ms=said(typed_duration_ms, options["every"], "--every"),
        timezone=options["timezone"],
        jitter_ms=said(typed_duration_ms, options["jitter"], "--jitter") or 0,
        overlap=options["overlap"],
        catch_up=options["catch_up"],
        catch_up_window_ms=WINDOW_MS if window is None else window,
        starts_ms=said(parse_rfc3339, options["starts_at"], "--starts-at"),
        ends_ms=said(parse_rfc3339, options["ends_at"], "--ends-at"),
        max_runs=options["max_runs"],
        priority=options["priority"],
        group=options["group"],
        tags=tuple(options["tags"]),
        timeout_ms=said(typed_duration_ms, options["timeout"], "--timeout"),
        retry=None if attempts is None else retry_policy.stored({"max_attempts": attempts}),
    )

    async def work() -> dict[str, Any]:
        async with _opened(settings) as (_, schedules):
            standing, _ = await schedules.put(asked, paused=options["paused"])
            return await _document(schedules, standing)

    _print(run(work()), as_json=as_json)


@schedule.command("list")
@click.option("--queue", type=QUEUE, help="Only those of this queue.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many at most.")
@head_option
@json_option
@with_settings
def list_schedules(queue: str | None, limit: int, as_json: bool, settings: Settings) -> None:
    """All schedules by name: when they come due, and how they are."""

    async def work() -> list[dict[str, Any]]:
        async with _opened(settings) as (_, schedules):
            found: list[Standing] = []
            after: str | None = ""
            while after is not None and len(found) < limit:
                page, after = await schedules.page(
                    after=after, limit=min(500, limit - len(found)), queue=queue
                )
                found += page
            return await schedules.documents(found)

    items = run(work())
    if as_json:
        print_json({"items": items})
        return
    from .draw import table  # noqa: PLC0415

    rows = [
        (
            one["name"], one["state"], _timing(one), one["queue"], one["type"], one["next_at"] or "–", str(one["runs"]),
            str(one["skipped_runs"]),
        )
        for one in items
    ]  # fmt: skip
    columns = ("name", "state", "when", "queue", "type", "next", "runs", "skipped")
    table(columns, rows, right=("runs", "skipped"), spare=("skipped", "runs", "type"))


@schedule.command("show")
@NAME
@json_option
@with_settings
def show(name: str, as_json: bool, settings: Settings) -> None:
    """The schedule NAME: its next slots, and what became of its last ones."""

    async def work() -> dict[str, Any]:
        async with _opened(settings) as (_, schedules):
            return await _document(schedules, await schedules.get(name))

    _print(run(work()), as_json=as_json)


@schedule.command("rm")
@NAME
@with_settings
def rm(name: str, settings: Settings) -> None:
    """Delete the schedule NAME. The jobs that it has made stay."""

    async def work() -> None:
        async with _opened(settings) as (_, schedules):
            await schedules.drop(name)

    run(work())


@schedule.command("pause")
@NAME
@json_option
@with_settings
def pause(name: str, as_json: bool, settings: Settings) -> None:
    """Make no jobs of the schedule NAME until it is resumed."""
    _print(run(_paused(name, settings, paused=True)), as_json=as_json)


@schedule.command("resume")
@NAME
@json_option
@with_settings
def resume(name: str, as_json: bool, settings: Settings) -> None:
    """Go on with the next slot of the schedule NAME from now."""
    _print(run(_paused(name, settings, paused=False)), as_json=as_json)


@schedule.command("trigger")
@NAME
@json_option
@with_settings
def trigger(name: str, as_json: bool, settings: Settings) -> None:
    """Make a job of the schedule NAME now, whatever its times say; prints the job's id."""

    async def work() -> str:
        async with _opened(settings) as (_, schedules):
            return await schedules.trigger(name)

    job_id = run(work())
    if as_json:
        print_json({"id": job_id})
    else:
        click.echo(job_id)


@schedule.command("preview")
@NAME
@click.option("--count", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many slots.")
@json_option
@with_settings
def preview(name: str, count: int, as_json: bool, settings: Settings) -> None:
    """The next slots of the schedule NAME, those that it would have if it were not paused."""
    from ..times import rfc3339  # noqa: PLC0415

    async def work() -> list[str]:
        async with _opened(settings) as (store, schedules):
            standing = await schedules.get(name)
            return [rfc3339(slot) for slot in standing.upcoming(await store.server_time(), count)]

    slots = run(work())
    if as_json:
        print_json({"items": slots})
    else:
        for slot in slots:
            click.echo(slot)


async def _paused(name: str, settings: Settings, *, paused: bool) -> dict[str, Any]:
    async with _opened(settings) as (_, schedules):
        return await _document(schedules, await schedules.set_paused(name, paused))


async def _document(schedules: Schedules, standing: Standing) -> dict[str, Any]:
    [shown] = await schedules.documents([standing])
    return shown


def _timing(shown: dict[str, Any]) -> str:
    if shown["cron"] is None:
        return f"every {shown['every']} s"
    return str(shown["cron"]) + ("" if shown["timezone"] == "UTC" else f" {shown['timezone']}")


def _print(shown: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(shown)
        return
    from .draw import fields  # noqa: PLC0415

    last = shown["last"][0] if shown["last"] else None
    skipped = shown["skipped"][0] if shown["skipped"] else None
    lines = {
        "name": shown["name"],
        "state": shown["state"],
        "when": _timing(shown),
        "in words": shown["words"],
        "queue": shown["queue"],
        "type": shown["type"],
        "overlap": shown["overlap"],
        "catch up": shown["catch_up"],
        "next": ", ".join(shown["next"]) or None,
        "runs": shown["runs"],
        "last": last and f"{last['slot'] or 'triggered'}: {last['id']}, {last['state'] or 'gone'}",
        "skipped": shown["skipped_runs"],
        "last skipped": skipped and f"{skipped['slot']}: {skipped['reason']}",
    }
    fields({name: value for name, value in lines.items() if value is not None})

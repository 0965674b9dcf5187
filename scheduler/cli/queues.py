"""`scheduler queue …` and `scheduler workers list`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..keys import STATES
from ..settings import Settings
from ..times import typed_duration_ms
from .common import (
    QUEUE,
    TYPE,
    Group,
    confirmed,
    connected,
    json_option,
    print_json,
    run,
    said,
    with_settings,
)

if TYPE_CHECKING:
    from ..outcomes import WorkerSeen

ENDED = ("succeeded", "cancelled", "dead")
PURGED = tuple(state for state in STATES if state != "running")


@click.group(cls=Group)
def queue() -> None:
    """Queues: what stands in them; pause them, resume them."""


@queue.command("list")
@json_option
@with_settings
def list_queues(as_json: bool, settings: Settings) -> None:
    """All queues by name: who works, how long the first in line has waited, how many jobs in each state."""
    from ..listing import replies_of  # noqa: PLC0415 - help does without
    from ..outcomes import queue_document  # noqa: PLC0415
    from ..presence import Presence  # noqa: PLC0415

    async def work() -> list[dict[str, Any]]:
        async with connected(settings) as store:
            names = await store.queues()
            workers = await Presence(store).counts()
            found = await replies_of(store, [store.census_call(name) for name in names])
            return [
                queue_document(name, census, workers[name])
                for name, census in zip(names, found, strict=True)
                if census is not None
            ]

    found = run(work())
    if as_json:
        print_json({"items": found})
        return
    from .draw import span, table  # noqa: PLC0415

    states = [state for state in STATES if state not in ENDED] + ["dead", "succeeded", "cancelled"]
    columns = ["queue", "paused", "workers", "wait", *states]
    rows = [
        (
            row["queue"],
            "paused" if row["paused"] else "–",
            str(row["workers"]),
            "" if row["oldest_wait"] is None else span(row["oldest_wait"]),
            *(str(row["counts"][state]) for state in states),
        )
        for row in found
    ]
    spare = ("cancelled", "succeeded", "blocked", "wait", "scheduled", "workers", "retrying")
    table(columns, rows, right=("workers", "wait", *states), spare=spare)


@queue.command("show")
@click.argument("queue", metavar="Q", type=QUEUE)
@json_option
@with_settings
def show(queue: str, as_json: bool, settings: Settings) -> None:
    """The queue Q: its jobs by state, its workers, what is set and what is in force."""
    _print(run(_seen(queue, settings)), as_json=as_json)


@queue.command("pause")
@click.argument("queue", metavar="Q", type=QUEUE)
@json_option
@with_settings
def pause(queue: str, as_json: bool, settings: Settings) -> None:
    """Claim nothing more from the queue Q. What runs goes on."""
    _print(run(_seen(queue, settings, {"paused": "1"})), as_json=as_json)


@queue.command("resume")
@click.argument("queue", metavar="Q", type=QUEUE)
@json_option
@with_settings
def resume(queue: str, as_json: bool, settings: Settings) -> None:
    """Let the paused queue Q be claimed from again."""
    _print(run(_seen(queue, settings, {"paused": ""})), as_json=as_json)


@queue.command("purge")
@click.argument("queue", metavar="Q", type=QUEUE)
@click.option("--state", type=click.Choice(PURGED), required=True, help="The state of those that go.")
@click.option("--type", "kind", type=TYPE, help="Of this type.")
@click.option("--older-than", help='That ended (or, while they wait, were created) so long ago: "7d", "12h".')
@click.option("--limit", type=click.IntRange(1), help="How many at most.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@with_settings
def purge(
    queue: str, state: str, kind: str | None, older_than: str | None, limit: int | None, dry_run: bool, yes: bool,
    as_json: bool, settings: Settings,
) -> None:  # fmt: skip
    """Delete jobs of one state from the queue Q, for good."""
    from ..operations import Plan  # noqa: PLC0415 - help does without
    from .acts import asked, carried, shown  # noqa: PLC0415

    age = said(typed_duration_ms, older_than, "--older-than")
    plan = Plan(act="purge", states=(state,), type=kind or "", age_ms=age, limit=limit, dry_run=dry_run)
    amount = "all" if limit is None else f"up to {limit}"
    whose = f" of the type {kind}" if kind else ""
    since = f" older than {older_than}" if older_than else ""
    asked(f"Delete {amount} {state} jobs of {queue}{whose}{since} for good?", plan, yes=yes)
    shown(run(carried(settings, queue, plan)), as_json=as_json)


@queue.command("obliterate")
@click.argument("queue", metavar="Q", type=QUEUE)
@click.option("--force", is_flag=True, help="Also while jobs run: their settlements then find nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_settings
def obliterate(queue: str, force: bool, yes: bool, settings: Settings) -> None:
    """Delete the queue Q with all that is in it: jobs, history, configuration."""
    confirmed(f"Delete the queue {queue} with all its jobs, history and configuration?", yes=yes)

    async def work() -> str:
        async with connected(settings, queue=queue) as store:
            return await store.obliterate(queue, force=force)

    outcome = run(work())
    if outcome == "missing":
        raise click.ClickException(f"there is no queue {queue!r}")
    if outcome == "running":
        raise click.ClickException(f"a job of {queue} runs: wait, or say --force")
    print(f"{queue} is gone")


async def _seen(queue: str, settings: Settings, changes: dict[str, str] | None = None) -> dict[str, Any]:
    """A queue, after these changes of its configuration. Raises NotFound."""
    from ..outcomes import queue_document  # noqa: PLC0415 - help does without
    from ..presence import Presence  # noqa: PLC0415

    async with connected(settings, queue=queue) as store:
        census = await store.census(queue)
        # A change that changes nothing leaves the version alone.
        if any(census.config.get(field, "") != value for field, value in (changes or {}).items()):
            await store.configure(queue, changes or {})
            census = await store.census(queue)
        return queue_document(queue, census, (await Presence(store).counts())[queue])


def _print(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    from .draw import fields, span  # noqa: PLC0415 - help does without

    counts = document.pop("counts")
    wait = document.pop("oldest_wait")
    fields(
        {
            "queue": document["queue"],
            "paused": document["paused"],
            "workers": document["workers"],
            **({} if wait is None else {"first waits": span(wait)}),
            **{state: count for state, count in counts.items() if count},
            "keeps": document["in_force"]["retention"],
        }
    )


@click.group(cls=Group)
def workers() -> None:
    """Workers: who is there, and what runs where."""


@workers.command("list")
@json_option
@with_settings
def list_workers(as_json: bool, settings: Settings) -> None:
    """Workers by name, those that have signed within two of their leases."""
    from ..presence import Presence  # noqa: PLC0415 - help does without

    async def work() -> Sequence[WorkerSeen]:
        async with connected(settings) as store:
            return await Presence(store).present()

    found = run(work())
    if as_json:
        print_json({"items": [worker.document() for worker in found]})
        return
    from .draw import table  # noqa: PLC0415

    rows = [
        (
            worker.name,
            ",".join(worker.queues),
            f"{len(worker.running)}/{worker.concurrency or '–'}",
            worker.version or "–",
            ",".join(worker.types),
        )
        for worker in found
    ]
    table(
        ["worker", "queues", "running", "version", "types"],
        rows,
        right=("running",),
        spare=("types", "version"),
    )

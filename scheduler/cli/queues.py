"""`scheduler queue …` and `scheduler workers list`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..keys import STATES
from ..settings import Settings
from ..times import typed_duration_ms
from .common import (
    KEY,
    QUEUE,
    TYPE,
    Group,
    confirmed,
    connected,
    head_option,
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
    """Queues: what stands in them; limit them, pause them, resume them."""


@queue.command("list")
@head_option
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
            _state_of(row),
            str(row["workers"]),
            "" if row["oldest_wait"] is None else span(row["oldest_wait"]),
            *(str(row["counts"][state]) for state in states),
        )
        for row in found
    ]
    spare = ("cancelled", "succeeded", "blocked", "wait", "scheduled", "workers", "retrying")
    table(columns, rows, right=("workers", "wait", *states), spare=spare)


def _state_of(row: dict[str, Any]) -> str:
    """Whether a queue is paused or draining, as one word."""
    words = [word for word in ("paused", "draining") if row[word]]
    return ",".join(words) or "–"


@queue.command("show")
@click.argument("queue", metavar="Q", type=QUEUE)
@json_option
@with_settings
def show(queue: str, as_json: bool, settings: Settings) -> None:
    """The queue Q: its jobs by state, its workers, what is set and what is in force."""
    _print(run(_seen(queue, settings)), as_json=as_json)


_LIMITS = ("rate", "concurrency", "group_rate", "group_concurrency")


@queue.command("set")
@click.argument("queue", metavar="Q", type=QUEUE)
@click.option("--rate", help='How many jobs start in how long: "100/m" (s, m, h, d).')
@click.option("--group-rate", help="The same for each group.")
@click.option("--group-concurrency", help="The same for each group.")
@json_option
@with_settings
@click.option("--concurrency", help="How many run at once.")  # here it is no setting of a worker
def set_limits(queue: str, as_json: bool, settings: Settings, **limits: str | None) -> None:
    """Limit the queue Q, for all its workers together. What is left out stays, "none" lifts."""
    changes = {name: _limit(name, text) for name, text in limits.items() if text is not None}
    if not changes:
        raise click.UsageError(f"say at least one of {', '.join(_option(name) for name in _LIMITS)}")
    _print(run(_seen(queue, settings, changes)), as_json=as_json)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _limit(name: str, text: str) -> str:
    """A limit as it is stored. Raises click.BadParameter."""
    from ..limits import MOST_AT_ONCE, parse_rate  # noqa: PLC0415 - help does without

    if text == "none":
        return ""
    if name.endswith("rate"):
        rate = said(parse_rate, text, _option(name))
        return "" if rate is None else rate.text()
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_AT_ONCE:
        raise click.BadParameter(
            f'a whole number from 1 to {MOST_AT_ONCE}, or "none"', param_hint=_option(name)
        )
    return str(int(text))


def _one_of(function: Any) -> Any:
    """Options that name a part of a queue."""
    function = click.option("--group", type=KEY, help="Only this group of it.")(function)
    return click.option("--type", "kind", type=TYPE, help="Only this type of it.")(function)


@queue.command("demand")
@click.argument("queue", metavar="Q", type=QUEUE)
@json_option
@with_settings
def demand(queue: str, as_json: bool, settings: Settings) -> None:
    """How much there is to do for workers of the queue Q: what may start, what is held by what, slots."""
    from ..demand import demand as look  # noqa: PLC0415 - help does without
    from ..presence import Presence  # noqa: PLC0415

    async def work() -> dict[str, Any]:
        async with connected(settings, queue=queue) as store:
            return (await look(store, Presence(store), queue)).document()

    document = run(work())
    if as_json:
        print_json(document)
        return
    from .draw import fields  # noqa: PLC0415

    fields(document | {"held": {reason: n for reason, n in document["held"].items() if n}})


@queue.command("pause")
@click.argument("queue", metavar="Q", type=QUEUE)
@_one_of
@json_option
@with_settings
def pause(queue: str, kind: str | None, group: str | None, as_json: bool, settings: Settings) -> None:
    """Claim nothing more from the queue Q, or from one type or group of it. What runs goes on."""
    _paused(queue, kind, group, settings, paused=True, as_json=as_json)


@queue.command("drain")
@click.argument("queue", metavar="Q", type=QUEUE)
@json_option
@with_settings
def drain(queue: str, as_json: bool, settings: Settings) -> None:
    """Accept no new job in the queue Q; the jobs that stand there are run. `queue resume` ends it."""
    _print(run(_seen(queue, settings, {"draining": "1"})), as_json=as_json)


@queue.command("resume")
@click.argument("queue", metavar="Q", type=QUEUE)
@_one_of
@json_option
@with_settings
def resume(queue: str, kind: str | None, group: str | None, as_json: bool, settings: Settings) -> None:
    """End the pause or the draining of the queue Q, or the pause of one type or group of it."""
    _paused(queue, kind, group, settings, paused=False, as_json=as_json)


def _paused(
    queue: str, kind: str | None, group: str | None, settings: Settings, *, paused: bool, as_json: bool
) -> None:
    if kind is not None and group is not None:
        raise click.UsageError("--type or --group, not both")
    if kind is None and group is None:
        changes = {"paused": "1"} if paused else {"paused": "", "draining": ""}
        _print(run(_seen(queue, settings, changes)), as_json=as_json)
        return

    async def work() -> None:
        async with connected(settings, queue=queue) as store:
            while True:
                version = (await store.census(queue)).version
                with suppress(Changed):  # somebody else changed it in between: his change stays
                    if group is not None:
                        policy = await store.group_policy(queue, group)
                        await store.configure_group(
                            queue, group, replace(policy, paused=paused), expect=version
                        )
                    elif kind is not None:
                        [(as_set, _)] = await store.run(store.policies_call(queue, [kind]))
                        if as_set is not None or paused:
                            changed = replace(as_set or TypePolicy(), paused=paused)
                            await store.configure_type(queue, kind, changed, expect=version)
                    return

    from contextlib import suppress  # noqa: PLC0415 - help does without

    from msgspec.structs import replace  # noqa: PLC0415

    from ..errors import Changed  # noqa: PLC0415
    from ..outcomes import TypePolicy  # noqa: PLC0415

    run(work())
    what = {"type": kind} if group is None else {"group": group}
    if as_json:
        print_json({"queue": queue, **what, "paused": paused})
    else:
        [(name, value)] = what.items()
        print(f"the {name} {value} of {queue} is {'paused' if paused else 'not paused'}")


@queue.command("reset")
@click.argument("queue", metavar="Q", type=QUEUE)
@click.option("--type", "kind", type=TYPE, required=True, help="The type whose breaker it is.")
@with_settings
def reset(queue: str, kind: str, settings: Settings) -> None:
    """Close the breaker of a type of the queue Q, and forget what it counted."""

    async def work() -> bool:
        async with connected(settings, queue=queue) as store:
            await store.census(queue)
            return await store.reset(queue, kind)

    found = run(work())
    print(f"the breaker of {kind} of {queue} is closed" + ("" if found else ", as it was"))


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
            **({"draining": True} if document["draining"] else {}),
            "workers": document["workers"],
            **({} if wait is None else {"first waits": span(wait)}),
            **{state: count for state, count in counts.items() if count},
            **{
                name.replace("_", " "): _shown(document[name])
                for name in _LIMITS
                if document[name] is not None
            },
            "keeps": document["in_force"]["retention"],
        }
    )


def _shown(limit: Any) -> Any:
    """A limit for people."""
    if not isinstance(limit, dict):
        return limit
    from .draw import span  # noqa: PLC0415 - help does without

    burst = f", bursts of {limit['burst']}" if limit["burst"] else ""
    return f"{limit['limit']} in {span(limit['per'])}{burst}"


@click.group(cls=Group)
def workers() -> None:
    """Workers: who is there, and what runs where."""


@workers.command("list")
@head_option
@json_option
@with_settings
def list_workers(as_json: bool, settings: Settings) -> None:
    """Workers by name, when each gave its last sign, and what they run.

    A worker is `dead` that has given no sign for a whole lease, or that still owns leases and is listed no longer: its jobs
    are given to others when their leases end.
    """
    from ..presence import Presence  # noqa: PLC0415 - help does without

    async def work() -> tuple[Sequence[WorkerSeen], dict[str, list[str]]]:
        async with connected(settings) as store:
            presence = Presence(store)
            return await presence.present(), await presence.lost()

    found, lost = run(work())
    if as_json:
        items = [worker.document() | {"dead": worker.late} for worker in found]
        items += [_lost_document(name, jobs) for name, jobs in lost.items()]
        print_json({"items": items})
        return
    from .draw import moment, table  # noqa: PLC0415

    rows = [
        (
            worker.name,
            "dead" if worker.late else "ok",
            moment(worker.seen_at),
            ",".join(worker.queues),
            f"{len(worker.running)}/{worker.concurrency or '–'}",
            worker.version or "–",
            ",".join(worker.types),
        )
        for worker in found
    ]
    rows += [
        (
            name,
            "dead",
            "–",
            ",".join(_queues_of(jobs)),
            f"{len(jobs)}/–",
            "–",
            "",
        )
        for name, jobs in lost.items()
    ]
    table(
        ["worker", "state", "seen", "queues", "running", "version", "types"],
        rows,
        right=("running",),
        spare=("types", "version"),
    )


def _queues_of(jobs: Sequence[str]) -> list[str]:
    return sorted({job.partition(":")[0] for job in jobs})


def _lost_document(name: str, jobs: Sequence[str]) -> dict[str, Any]:
    """A worker that is listed no longer, as far as its leases tell."""
    unknown = dict.fromkeys(("host", "pid", "version", "concurrency", "started_at", "seen_at"))
    return {"name": name, **unknown, "queues": _queues_of(jobs), "types": [], "running": jobs, "dead": True}

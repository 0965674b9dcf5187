"""`scheduler scripts …` and `scheduler verify`."""

from __future__ import annotations

import sys

import click

from .. import scripts as catalogue
from ..outcomes import Fault
from ..settings import Settings
from .common import QUEUE, Command, Group, connected, json_option, print_json, run, with_settings


@click.group(cls=Group)
def scripts() -> None:
    """The Lua scripts: every transition is one of them, callable from any language."""


@scripts.command("list")
@json_option
def list_(as_json: bool) -> None:
    """The scripts and what each does."""
    found = catalogue.all_scripts().values()
    if as_json:
        print_json(
            {"items": [{"name": s.name, "doc": s.doc, "sha1": catalogue.digest(s.flagged)} for s in found]}
        )
        return
    for script in found:
        print(f"{script.name:10} {catalogue.digest(script.flagged)}  {script.doc.split('. ')[0]}")


@scripts.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """The text of a script as the server runs it, with its line numbers."""
    if name not in catalogue.names():
        raise click.BadParameter(
            f"there is no script {name!r}; there are {', '.join(catalogue.names())}", param_hint="NAME"
        )
    text = catalogue.script(name).flagged
    if as_json:
        print_json({"name": name, "sha1": catalogue.digest(text), "text": text.decode()})
        return
    for number, line in enumerate(text.decode().splitlines(), 1):
        print(f"{number:4}  {line}".rstrip())


@scripts.command()
@click.option("--json", "_as_json", is_flag=True, help="It is JSON anyway.")
def manifest(_as_json: bool) -> None:
    """What a Redis client of any language needs to call the scripts, as JSON."""
    print_json(catalogue.manifest())


@scripts.command()
@click.option("--json", "_as_json", is_flag=True, help="It is JSON anyway.")
@with_settings
def load(settings: Settings, _as_json: bool) -> None:
    """Load the scripts into the server at --redis-url and print the manifest."""

    async def work() -> tuple[bool, str]:
        async with connected(settings) as store:
            return store.flagged, store.clients.where

    flagged, where = run(work())
    print(f"loaded {len(catalogue.names())} scripts into {where}", file=sys.stderr)
    print_json(catalogue.manifest(flagged=flagged))


@click.command(cls=Command)
@click.argument("queue", metavar="[Q]", type=QUEUE, required=False)
@click.option("--repair", is_flag=True, help="Put right what is found, in the call that finds it.")
@json_option
@with_settings
def verify(queue: str | None, repair: bool, as_json: bool, settings: Settings) -> None:
    """Does every job stand in exactly one set? Exit 1 on a fault, or when there is no such queue."""
    from ..scheduling import Schedules  # noqa: PLC0415 - help does without
    from .draw import progress  # noqa: PLC0415

    async def work() -> tuple[list[str], list[tuple[str, Fault]]]:
        async with connected(settings, queue=queue or "default") as store:
            queues = [queue] if queue else await store.queues()
            found = []
            with progress("verifying", total=len(queues)) as bar:
                for name in queues:
                    found += [(name, fault) async for fault in store.verify(name, repair=repair)]
                    bar.advance()
            async for name, schedule, why in Schedules(store).troubles(queue):
                found.append(
                    (name, Fault(schedule, f"is a schedule that does not fire: {why}", repaired=False))
                )
            if queue and not found:
                # A misspelt name is no sound queue; of what is damaged there may be no more than its faults.
                await store.census(queue)
            return queues, found

    queues, faults = run(work())
    if as_json:
        rows = [
            {"id": f"{name}:{fault.id}", "fault": fault.what, "repaired": fault.repaired}
            for name, fault in faults
        ]
        print_json({"queues": queues, "items": rows})
    else:
        for name, fault in faults:
            print(f"{name}:{fault.id} {fault.what}{' (repaired)' if fault.repaired else ''}")
        print(f"{len(queues)} queues, {len(faults)} faults", file=sys.stderr)
    if any(not fault.repaired for _, fault in faults):
        sys.exit(1)

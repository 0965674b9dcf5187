"""`scheduler doctor`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ..settings import Settings
from .common import GIVE_UP, Command, json_option, opened_store, print_json, run, with_settings, within

if TYPE_CHECKING:
    from ..diagnosis import Finding


@click.command(cls=Command)
@json_option
@with_settings
def doctor(as_json: bool, settings: Settings) -> None:
    """Look at the server for what can lose jobs or stop workers, and say what to do. Exit 1 when there is such a thing.

    What is merely unwise is a warning. No job is touched.
    """
    from ..diagnosis import examine, reach  # noqa: PLC0415 - help does without

    async def work() -> tuple[str, list[Finding]]:
        async with opened_store(settings) as store:
            info = await within(GIVE_UP, store, reach(store))
            return store.clients.where, await examine(store, info, durability=settings.durability)

    where, found = run(work())
    failed = any(finding.status == "fail" for finding in found)
    if as_json:
        items = [
            {"check": f.check, "status": f.status, "message": f.message, "cure": f.cure or None}
            for f in found
        ]
        print_json({"ok": not failed, "server": where, "items": items})
    else:
        from .draw import report  # noqa: PLC0415

        report([(finding.status, finding.check, finding.message, finding.cure) for finding in found])
        counts = {status: sum(f.status == status for f in found) for status in ("fail", "warn")}
        print(f"{where}: {counts['fail']} to mend, {counts['warn']} to think about", file=sys.stderr)
    if failed:
        sys.exit(1)

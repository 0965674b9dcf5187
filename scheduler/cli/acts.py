"""What commands over many jobs share: they run here, with a bar, and go on elsewhere when this process dies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..job import split_id
from ..keys import JOB_KEY
from ..settings import Settings
from .common import confirmed, connected, print_json

if TYPE_CHECKING:
    from ..operations import Plan


async def carried(settings: Settings, queue: str, plan: Plan) -> dict[str, Any]:
    """Carries an operation to its end: its document. Cancelled by the user, it cancels the operation.

    Raises StoreUnavailable with what becomes of an operation that has begun.
    """
    from asyncio import CancelledError  # noqa: PLC0415 - help does without

    from ..errors import StoreUnavailable  # noqa: PLC0415
    from ..job import new_key  # noqa: PLC0415
    from ..operations import Operations, document  # noqa: PLC0415
    from .draw import progress  # noqa: PLC0415

    async with connected(settings, queue=queue) as store:
        operations, its_id = Operations(store, f"cli:{os.getpid()}:{os.urandom(4).hex()}"), new_key()
        counts = (await store.census(queue)).counts
        total = sum(counts[state] for state in dict.fromkeys(plan.states))
        most = min(n for n in (total, plan.limit, len(plan.ids) or None) if n is not None)
        try:
            operation = await operations.begin(queue, plan, its_id=its_id)
            with progress(plan.act, total=most) as bar:
                async for operation in operations.to_its_end(operation):  # noqa: B020 - the last one counts
                    bar.at(operation.matched)
        except CancelledError:
            # Ctrl-C is for the work: nobody is to carry it on.
            _, left = await store.operate("cancel", queue, its_id)
            if left is not None:
                click.echo(f"cancelled: {left.done} {_DONE[plan.act]}, the rest is as it was", err=True)
            raise
        except StoreUnavailable as error:
            goes_on = "if it has begun, it goes on when the server is back, in a worker or the API"
            raise StoreUnavailable(f"{error}; operation {queue}:{its_id}: {goes_on}") from error
        return document(operation)


def shown(document: dict[str, Any], *, as_json: bool) -> None:
    """Says what became of an operation. Ends the program with 1 when it failed."""
    if as_json:
        print_json(document)
    elif document["dry_run"]:
        print(f"{document['matched']} would be {_DONE[document['act']]}")
    else:
        left = f", {document['failed']} not" if document["failed"] else ""
        print(f"{document['done']} {_DONE[document['act']]}{left}")
    if document["state"] != "done":
        raise click.ClickException(document["error"] or f"the operation is {document['state']}")


_DONE = {"replay": "replayed", "purge": "purged", "cancel": "cancelled", "run": "made ready"}


def asked(question: str, plan: Plan, *, yes: bool) -> None:
    """Asks before what cannot be undone, unless it is only counted."""
    if not plan.dry_run:
        confirmed(question, yes=yes)


def keys_of(queue: str, ids: Sequence[str]) -> tuple[str, ...]:
    """The keys of these jobs of a queue, each given as key or whole id. Raises click.BadParameter."""
    keys = []
    for text in ids:
        whole = split_id(text) if ":" in text else (queue, text)
        if whole is None or whole[0] != queue or not JOB_KEY.fullmatch(whole[1]):
            raise click.BadParameter(f"{text!r} is no id of a job of {queue}", param_hint="IDS")
        keys.append(whole[1])
    return tuple(dict.fromkeys(keys))

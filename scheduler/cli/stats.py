"""`scheduler stats`: how many jobs ended, how long they waited and ran."""

from __future__ import annotations

from typing import Any

import click

from ..settings import Settings
from .common import QUEUE, Command, connected, head_option, json_option, print_json, run, with_settings


@click.command(cls=Command)
@click.argument("queue", metavar="[Q]", type=QUEUE, required=False)
@head_option
@json_option
@with_settings
def stats(queue: str | None, as_json: bool, settings: Settings) -> None:
    """How many jobs ended, and percentiles of waiting and running, by queue and type.

    Jobs are counted that ended in the last minute and hour. Percentiles are of a sample: the newest jobs that ended, up to
    500 of a queue. A line with a type is about the jobs of that type in the sample.
    """
    from ..stats import stats as look  # noqa: PLC0415 - help does without

    async def work() -> list[dict[str, Any]]:
        async with connected(settings, queue=queue or "default") as store:
            if queue is not None:
                await store.census(queue)
            names = await store.queues() if queue is None else [queue]
            return [one.document() for one in await look(store, names)]

    found = run(work())
    if as_json:
        print_json({"items": found})
        return
    from .draw import table  # noqa: PLC0415

    rows = []
    for one in found:
        ended = [str(sum(one["ended"][window].values())) for window in ("1m", "1h")]
        rows.append((one["queue"], "–", *ended, str(one["ended"]["1h"]["dead"]), *_times(one)))
        rows += [(one["queue"], kind["type"], "–", "–", "–", *_times(kind)) for kind in one["types"]]
    numbers = ("ended 1m", "ended 1h", "dead 1h", "wait p50", "wait p99", "run p50", "run p99")
    spare = ("wait p50", "run p50", "ended 1m", "dead 1h")
    table(("queue", "type", *numbers), rows, right=numbers, spare=spare)


def _times(document: dict[str, Any]) -> list[str]:
    from .draw import span  # noqa: PLC0415 - help does without

    return [
        "–" if document[what] is None else span(document[what][of])
        for what in ("wait", "run")
        for of in ("p50", "p99")
    ]

"""`scheduler types …`: what is in force for the types of a queue, and when a failed job is tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .. import retry as retry_policy
from ..settings import Settings
from .common import (
    QUEUE,
    TYPE,
    Group,
    connected,
    head_option,
    json_option,
    print_json,
    run,
    with_settings,
)

if TYPE_CHECKING:
    from ..outcomes import TypePolicy


@click.group(cls=Group)
def types() -> None:
    """The types of a queue: what workers declare and what is set for them."""


def _document(queue: str, name: str, as_set: TypePolicy, declared: TypePolicy) -> dict[str, Any]:
    """The policy in force of a type, and its delays, in seconds."""
    policy = retry_policy.in_force(declared.retry or {}, as_set.retry or {})
    timeouts = [ms for ms in (as_set.timeout_ms, declared.timeout_ms) if ms is not None]
    delays = [(least / 1000, most / 1000) for least, most in retry_policy.delays(policy)]
    return {
        "queue": queue,
        "type": name,
        "retry": retry_policy.shown(policy),
        "timeout": (timeouts or [retry_policy.DEFAULT_TIMEOUT_MS])[0] / 1000,
        "paused": as_set.paused,
        "delays": [{"retry": n, "least": least, "most": most} for n, (least, most) in enumerate(delays, 1)],
        "lasts": {"least": sum(least for least, _ in delays), "most": sum(most for _, most in delays)},
    }


@types.command("list")
@click.argument("queue", metavar="Q", type=QUEUE)
@head_option
@json_option
@with_settings
def list_types(queue: str, as_json: bool, settings: Settings) -> None:
    """The types of the queue Q that a worker has declared or for which something is set."""

    async def work() -> list[dict[str, Any]]:
        async with connected(settings, queue=queue) as store:
            await store.census(queue)
            found = await store.types(queue)
            return [_document(queue, name, *found[name]) for name in sorted(found)]

    found = run(work())
    if as_json:
        print_json({"items": found})
        return
    from .draw import span, table  # noqa: PLC0415

    rows = [
        (
            one["type"],
            "paused" if one["paused"] else "–",
            str(one["retry"]["max_attempts"]),
            span(one["lasts"]["most"]),
            span(one["timeout"]),
        )
        for one in found
    ]
    table(
        ("type", "paused", "attempts", "retried for", "timeout"),
        rows,
        right=("attempts", "retried for", "timeout"),
    )


@types.command("show")
@click.argument("queue", metavar="Q", type=QUEUE)
@click.argument("type", type=TYPE)
@head_option
@json_option
@with_settings
def show(queue: str, type: str, as_json: bool, settings: Settings) -> None:
    """The policy in force of TYPE in the queue Q, and how long a failed job waits before each retry.

    With jitter a delay is drawn between the two numbers of its line. A job's own policy (--max-attempts) wins over this one.
    """
    from ..outcomes import TypePolicy  # noqa: PLC0415 - help does without

    async def work() -> dict[str, Any]:
        async with connected(settings, queue=queue) as store:
            await store.census(queue)
            [(as_set, declared)] = await store.run(store.policies_call(queue, [type]))
            return _document(queue, type, as_set or TypePolicy(), declared or TypePolicy())

    found = run(work())
    if as_json:
        print_json(found)
        return
    from .draw import fields, table  # noqa: PLC0415

    delays = found.pop("delays")
    lasts = found.pop("lasts")
    policy = found.pop("retry")
    fields(found | policy)
    rows = []
    least_sum = most_sum = 0.0
    for delay in delays:
        least_sum, most_sum = least_sum + delay["least"], most_sum + delay["most"]
        wait = _range(delay["least"], delay["most"])
        rows.append((str(delay["retry"]), wait, _range(least_sum, most_sum)))
    table(("retry", "waits", "after the first failure"), rows, whole=3)
    print(f"dead after {len(delays) + 1} attempts, {_range(lasts['least'], lasts['most'])} of waiting in all")


def _range(least: float, most: float) -> str:
    """Two durations for people; one where they are equal."""
    from .draw import span  # noqa: PLC0415 - help does without

    if most == 0:
        return "at once"
    return span(most) if least == most else f"{span(least)} to {span(most)}"

"""`scheduler flow …`."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import Invalid
from ..job import new_key, split_id
from ..settings import Settings
from .common import Group, connected, json_option, print_json, run, with_settings

if TYPE_CHECKING:
    from ..flow import Plan
    from ..flows import FlowSeen, Part
    from ..store import Store

FLOW_ID = click.argument("flow_id", metavar="ID")


@click.group(cls=Group)
def flow() -> None:
    """Flows: graphs of jobs that wait for each other."""


@flow.command("put")
@click.argument("file", metavar="FILE|-")
@json_option
@with_settings
def put(file: str, as_json: bool, settings: Settings) -> None:
    """Put in a graph of jobs: all of it is there, or nothing.

    FILE, or stdin, has what POST /v1/flows takes: {"jobs": [{"name", "type", "payload", "after": [names], …}], "on_failure"?,
    "queue"?, "id"?}. The same id and jobs again put in nothing.
    """
    from ..flows import look  # noqa: PLC0415 - help does without
    from ..flows import put as put_in  # noqa: PLC0415

    text = _read(file)

    async def work() -> tuple[FlowSeen, bool]:
        plan = await _plan(text, settings)
        async with connected(settings, queue=plan.home) as store:
            new = await put_in(store, plan)
            return await look(store, plan.home, plan.key), new

    found, new = run(work())
    if as_json:
        print_json(found.document() | ({} if new else {"duplicate": True}))
        return
    print(found.flow.id)
    if not new:
        print(f"{found.flow.id}: it was put in before", file=sys.stderr)


@flow.command("show")
@FLOW_ID
@json_option
@with_settings
def show(flow_id: str, as_json: bool, settings: Settings) -> None:
    """How far a flow is, and how its jobs stand."""
    _print(_done(flow_id, settings, None), as_json=as_json)


@flow.command("cancel")
@FLOW_ID
@json_option
@with_settings
def cancel(flow_id: str, as_json: bool, settings: Settings) -> None:
    """Cancel all of a flow that has not ended; what runs is asked to stop."""
    from ..flows import cancel as stop  # noqa: PLC0415 - help does without

    _print(_done(flow_id, settings, stop), as_json=as_json)


@flow.command("replay")
@FLOW_ID
@json_option
@with_settings
def replay(flow_id: str, as_json: bool, settings: Settings) -> None:
    """Run the dead jobs of a flow again, and what was cancelled for them."""
    from ..flows import replay as again  # noqa: PLC0415 - help does without

    _print(_done(flow_id, settings, again), as_json=as_json)


def _done(
    flow_id: str, settings: Settings, verb: Callable[[Store, str, str], Awaitable[Any]] | None
) -> FlowSeen:
    """Acts on a flow, if anything is to be done, and looks at it. Raises NotFound and WrongState."""
    from ..flows import look  # noqa: PLC0415 - help does without

    parts = split_id(flow_id)
    if parts is None:
        raise click.BadParameter(f"{flow_id!r} is no id of a flow: it is <queue>:<key>", param_hint="ID")
    queue, key = parts

    async def work() -> FlowSeen:
        async with connected(settings, queue=queue) as store:
            if verb is not None:
                await verb(store, queue, key)
            return await look(store, queue, key)

    return run(work())


# -- what was sent --------------------------------------------------------------------------------------------


def _read(file: str) -> bytes:
    """What stands in a file, or comes in. Raises click.BadParameter."""
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise click.BadParameter(f"{file}: {error.strerror}", param_hint="FILE") from error


async def _plan(text: bytes, settings: Settings) -> Plan:
    """The flow that a document asks for. Raises click.UsageError with all that is wrong with it."""
    from ..api.body import decode  # noqa: PLC0415 - help does without
    from ..api.flows import plan_of  # noqa: PLC0415
    from ..api.problems import Refusal  # noqa: PLC0415
    from ..fields import FlowFields  # noqa: PLC0415

    try:
        return await plan_of(decode(text, FlowFields), new_key(), max_payload=settings.max_payload)
    except Refusal as refusal:
        raise click.UsageError(refusal.detail) from refusal
    except Invalid as error:
        raise click.UsageError(str(error)) from error


# -- what is shown --------------------------------------------------------------------------------------------


def _print(found: FlowSeen, *, as_json: bool) -> None:
    if as_json:
        print_json(found.document())
        return
    from .draw import fields, moment, table  # noqa: PLC0415 - help does without

    seen = found.flow
    total = seen.pending + seen.succeeded + seen.failed
    head: dict[str, object] = {
        "id": seen.id,
        "state": seen.state
        if not (seen.cancel_asked and seen.state == "running")
        else "running, asked to stop",
        "on_failure": seen.on_failure,
        "progress": f"{seen.succeeded} succeeded, {seen.failed} failed, {seen.pending} of {total} to go",
        "created": moment(seen.created_at),
    }
    if seen.finished_at is not None:
        head["finished"] = moment(seen.finished_at)
    fields(head)
    depths = _depths(found.parts)
    rows = [
        (
            "  " * depths[part.id] + (part.name or part.id) if sys.stdout.isatty() else part.name or part.id,
            part.state or "gone",
            part.reason or "",
            " ".join(part.after),
            _when(part, moment),
            part.id,
        )
        for part in sorted(found.parts, key=lambda part: depths[part.id])
    ]
    table(("job", "state", "reason", "after", "when", "id"), rows, whole=2, spare=("id", "reason"))
    if found.more:
        print(f"and {found.more} more that were added", file=sys.stderr)


def _when(part: Part, moment: Callable[[int], str]) -> str:
    at = part.finished_at or part.started_at
    return "" if at is None else moment(at)


def _depths(parts: Sequence[Part]) -> dict[str, int]:
    """By id: how many stand one after the other before a job. What others have added comes last."""
    named = {part.name: part for part in parts if part.name}
    followers: dict[str, list[Part]] = {}
    left = {}
    for part in named.values():
        left[part.id] = len(part.after)
        for name in part.after:
            followers.setdefault(name, []).append(part)
    depths = {part.id: 0 for part in named.values() if not part.after}
    for name in (order := [part.name or "" for part in named.values() if not part.after]):
        for part in followers.get(name, ()):
            depths[part.id] = max(depths.get(part.id, 0), depths[named[name].id] + 1)
            left[part.id] -= 1
            if not left[part.id]:
                order.append(part.name or "")
    last = max(depths.values(), default=0)
    return {part.id: depths.get(part.id, last) for part in parts}

"""`scheduler enqueue` and `scheduler job …`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from msgspec.structs import replace

from .. import retry as retry_policy
from ..errors import Fault, Invalid, WrongState
from ..job import CONFLICTS, Job, NewJob, Unique, check, new_key, split_id
from ..limits import COSTLIEST
from ..settings import Settings
from ..times import parse_rfc3339, typed_duration_ms
from .common import (
    KEY,
    QUEUE,
    TYPE,
    Command,
    Group,
    connected,
    json_option,
    missing,
    print_json,
    run,
    said,
    with_settings,
)

if TYPE_CHECKING:
    from ..store import Store


def read_payload(text: str, option: str = "--payload") -> bytes:
    """The payload of an option: JSON itself, @file, or - for stdin. Raises click.BadParameter for what is no JSON."""
    if text == "-":
        raw = sys.stdin.buffer.read()
    elif text.startswith("@"):
        try:
            raw = Path(text[1:]).read_bytes()
        except OSError as error:
            raise click.BadParameter(f"{text[1:]}: {error.strerror}", param_hint=option) from error
    else:
        raw = text.encode()
    try:
        raw.decode()
        msgspec.json.decode(raw, type=msgspec.Raw)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"no JSON: {_place_of(raw) or error}", param_hint=option) from error
    return raw.strip()


def _place_of(raw: bytes) -> str:
    """Where text stops being JSON, by line and column; "" where the standard library sees nothing wrong."""
    import json  # noqa: PLC0415 - on this path only

    try:
        json.loads(raw)
    except json.JSONDecodeError as error:
        return f"line {error.lineno}, column {error.colno}: {error.msg}"
    except (ValueError, RecursionError):
        pass
    return ""


@click.command(cls=Command)
@click.argument("type", type=TYPE)
@click.option("--payload", default="{}", help="JSON, @file, or - for stdin.")
@click.option("--queue", type=QUEUE, default="default", show_default=True)
@click.option("--id", "job_id", help="The job's key: the same id and request enqueue once.")
@click.option("--priority", type=click.IntRange(-100, 100), default=0, help="Higher first.")
@click.option("--delay", help="Seconds, or 250ms 30s 5m 2h 7d.")
@click.option("--run-at", help="RFC 3339 with an offset.")
@click.option("--group", type=KEY, help="The group whose turn it takes.")
@click.option("--tag", "tags", type=KEY, multiple=True, help="May be given more than once.")
@click.option(
    "--cost", type=click.IntRange(1, COSTLIEST), default=1, help="How much of a rate its start uses [1]."
)
@click.option("--timeout", help="Of one attempt: seconds, or 30s 5m 2h.")
@click.option("--max-attempts", type=click.IntRange(1, 1000), help="Runs before it is a dead letter.")
@click.option(
    "--unique",
    metavar="[KEY]",
    is_flag=False,
    flag_value="",
    help="One of this key at a time; without KEY: one of this type and payload.",
)
@click.option("--unique-for", metavar="DURATION", help="How long it is kept: seconds, or 30s 5m 2h.")
@click.option("--unique-until", type=click.Choice(["start", "end"]), help="It is kept until then.")
@click.option("--on-conflict", type=click.Choice(CONFLICTS), help="Of a unique job, where one stands.")
@click.option("--deadline", help="When it must have ended: RFC 3339 with an offset, or a duration from now.")
@click.option("--expires-in", help="Cancelled if it has not started by then: seconds, or 30s 5m 2h.")
@json_option
@with_settings
def enqueue(
    type: str, payload: str, queue: str, job_id: str | None, priority: int, delay: str | None, run_at: str | None,
    group: str | None, tags: tuple[str, ...], cost: int, timeout: str | None, max_attempts: int | None,
    unique: str | None, unique_for: str | None, unique_until: str | None, on_conflict: str | None,
    deadline: str | None, expires_in: str | None, as_json: bool, settings: Settings,
) -> None:  # fmt: skip
    """Put a job of TYPE into a queue."""
    key = job_id or new_key()
    moment = deadline is not None and ":" in deadline
    if ":" in key:
        named, _, key = key.partition(":")
        if named != queue:
            raise click.BadParameter(f"its queue is {named}, the job's is {queue}", param_hint="--id")
    if unique is None and (unique_for or unique_until or on_conflict):
        raise click.UsageError("--unique-for, --unique-until and --on-conflict go with --unique")
    job = NewJob(
        type=type,
        payload=read_payload(payload),
        queue=queue,
        key=key,
        priority=priority,
        delay_ms=said(typed_duration_ms, delay, "--delay"),
        run_at_ms=said(parse_rfc3339, run_at, "--run-at"),
        group=group,
        tags=tags,
        cost=cost,
        timeout_ms=said(typed_duration_ms, timeout, "--timeout"),
        retry=None if max_attempts is None else retry_policy.stored({"max_attempts": max_attempts}),
        unique=None
        if unique is None
        else Unique(
            key=unique,
            for_ms=said(typed_duration_ms, unique_for, "--unique-for"),
            until=unique_until or "",
            on_conflict=on_conflict or "return",
        ),
        deadline_ms=said(parse_rfc3339, deadline if moment else None, "--deadline"),
        deadline_in_ms=said(typed_duration_ms, None if moment else deadline, "--deadline"),
        expires_in_ms=said(typed_duration_ms, expires_in, "--expires-in"),
    )
    try:
        check(job, max_payload=settings.max_payload)
    except Invalid as error:
        raise click.UsageError(_as_options(error.faults)) from error

    async def work() -> tuple[Job, bool]:
        async with connected(settings, queue=queue) as store:
            outcome = await store.enqueue_one(job)
            return await store.job(queue, outcome.id.partition(":")[2]), outcome.created

    made, created = run(work())
    if as_json:
        print_json(made.document() | ({} if created else {"duplicate": True}))
    else:
        print(made.id if created else f"{made.id} (enqueued before)")


_OPTIONS = {"type": "TYPE", "tags": "--tag"}
"""Fields that are not options of their own name."""


def _as_options(faults: tuple[Fault, ...]) -> str:
    return "; ".join(
        f"{_OPTIONS.get(name := f.path[1:].split('/')[0], '--' + name.replace('_', '-'))}: {f.message}"
        for f in faults
    )


@click.group(cls=Group)
def job() -> None:
    """Show a job, or act on it."""


def _with_id(job_id: str) -> tuple[str, str]:
    parts = split_id(job_id)
    if parts is None:
        raise click.BadParameter(f"{job_id!r} is no job id: it is <queue>:<key>", param_hint="ID")
    return parts


async def _shown(store: Store, queue: str, key: str) -> Job:
    [found] = await store.inspect(queue, [key], payload=True, result=True)
    if found is None:
        raise missing(f"{queue}:{key}")
    return found


def _print(found: Job, *, as_json: bool) -> None:
    document = found.document()
    if as_json:
        print_json(document)
        return
    from .draw import fields, trace  # noqa: PLC0415 - help does without

    errors = document.pop("errors")
    # The fields that say what it is and how it fares are always there; others when they say something.
    fields(
        {
            name: value
            for name, value in document.items()
            if value not in (None, [], (), 0) or name == "attempt"
        }
    )
    fields({f"error {e['attempt']}": f"{e['kind']}: {e['message']} ({e['next']})" for e in errors})
    if errors and errors[-1].get("trace"):
        trace(errors[-1]["trace"])


def _refused(job_id: str, state: str, why: str) -> WrongState:
    # Scripts say "already" of what is ready, since a repeated call is told so.
    state = "ready" if state == "already" else state
    return WrongState(f"job {job_id} is {state}: {why}", state)


def _act(name: str, text: str, verb: Any, good: tuple[str, ...], takes: str) -> None:
    @job.command(name, help=text)
    @click.argument("job_id", metavar="ID")
    @json_option
    @with_settings
    def command(job_id: str, as_json: bool, settings: Settings) -> None:
        queue, key = _with_id(job_id)

        async def work() -> Job | None:
            async with connected(settings, queue=queue) as store:
                [state] = await verb(store, queue, key)
                if state == "missing":
                    raise missing(job_id)
                if state not in good:
                    raise _refused(job_id, state, takes)
                return None if state == "gone" else await _shown(store, queue, key)

        found = run(work())
        if found is None:
            print_json({"id": job_id, "deleted": True}) if as_json else print(f"{job_id} is gone")
        else:
            _print(found, as_json=as_json)


@job.command("show")
@click.argument("job_id", metavar="ID")
@json_option
@with_settings
def show(job_id: str, as_json: bool, settings: Settings) -> None:
    """Everything that is known of a job."""
    queue, key = _with_id(job_id)

    async def work() -> Job:
        async with connected(settings, queue=queue) as store:
            return await _shown(store, queue, key)

    _print(run(work()), as_json=as_json)


@job.command("explain")
@click.argument("job_id", metavar="ID")
@json_option
@with_settings
def explain(job_id: str, as_json: bool, settings: Settings) -> None:
    """Why a job does not run now: what holds it, until when, who has the slots; or what became of it."""
    from ..explain import Explanation  # noqa: PLC0415 - help does without
    from ..explain import explain as look  # noqa: PLC0415
    from ..presence import Presence  # noqa: PLC0415

    queue, key = _with_id(job_id)

    async def work() -> Explanation:
        async with connected(settings, queue=queue) as store:
            return await look(store, Presence(store), queue, key)

    found = run(work())
    if as_json:
        print_json(found.document())
        return
    from .draw import fields  # noqa: PLC0415

    place = (
        {} if found.position is None else {"position": f"{'' if found.exact else 'about '}{found.position}"}
    )
    fields(
        {"id": found.id, "state": found.state, **place, **{one.code: one.message for one in found.reasons}}
    )


_act(
    "cancel",
    "Cancel a job, or ask it to stop when it runs.",
    lambda s, q, k: s.cancel(q, [k]),
    ("cancelled", "running"),
    "only one that has not ended is cancelled",
)
_act(
    "run",
    "Run a scheduled or retrying job now.",
    lambda s, q, k: s.promote_ids(q, [k]),
    ("ready",),
    "only one that waits for its time is run",
)
_act(
    "rm",
    "Delete a job that does not run.",
    lambda s, q, k: s.purge(q, [k]),
    ("gone",),
    "cancel it first, and delete it when it has stopped",
)


@job.command("replay")
@click.argument("job_id", metavar="ID")
@click.option("--payload", help="Another payload: JSON, @file, or - for stdin.")
@json_option
@with_settings
def replay(job_id: str, payload: str | None, as_json: bool, settings: Settings) -> None:
    """Run a dead job again."""
    queue, key = _with_id(job_id)
    edit = None if payload is None else read_payload(payload)

    async def work() -> Job:
        async with connected(settings, queue=queue) as store:
            [state] = await store.replay(queue, [(key, edit)])
            if state == "missing":
                raise missing(job_id)
            if state != "ready":
                raise _refused(job_id, state, "only a dead one is replayed")
            return await _shown(store, queue, key)

    _print(run(work()), as_json=as_json)


@job.command("copy")
@click.argument("job_id", metavar="ID")
@click.option("--queue", type=QUEUE, help="Into another queue.")
@click.option("--payload", help="With another payload: JSON, @file, or - for stdin.")
@click.option("--id", "new_id", help="The copy's key: the same id and request enqueue once.")
@click.option("--priority", type=click.IntRange(-100, 100))
@click.option("--delay", help="Seconds, or 250ms 30s 5m 2h 7d.")
@click.option("--run-at", help="RFC 3339 with an offset.")
@json_option
@with_settings
def copy(
    job_id: str, queue: str | None, payload: str | None, new_id: str | None, priority: int | None, delay: str | None,
    run_at: str | None, as_json: bool, settings: Settings,
) -> None:  # fmt: skip
    """Enqueue a new job like this one, whatever became of it."""
    its_queue, key = _with_id(job_id)
    changes: dict[str, Any] = {
        "queue": queue,
        "payload": None if payload is None else read_payload(payload),
        "priority": priority,
        "delay_ms": said(typed_duration_ms, delay, "--delay"),
        "run_at_ms": said(parse_rfc3339, run_at, "--run-at"),
    }
    given = {name: value for name, value in changes.items() if value is not None}

    async def work() -> Job:
        async with connected(settings, queue=queue or its_queue) as store:
            found = await _shown(store, its_queue, key)
            if found.payload is None and payload is None:
                raise WrongState(f"the payload of job {job_id} is gone: give the copy one", found.state)
            made = replace(found.like(new_id or new_key()), **given)
            try:
                check(made, max_payload=settings.max_payload)
            except Invalid as error:
                raise click.UsageError(_as_options(error.faults)) from error
            await store.enqueue_one(made)
            return await _shown(store, made.queue, made.key)

    _print(run(work()), as_json=as_json)

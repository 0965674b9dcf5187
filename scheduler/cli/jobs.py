"""`scheduler enqueue` and `scheduler job …`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec
from msgspec.structs import replace

from .. import retry as retry_policy
from ..errors import Fault, Invalid, WrongState
from ..job import CONFLICTS, ON_FAILURE, Job, NewJob, Unique, check, new_key
from ..keys import STATES
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
    with_id,
    with_settings,
)
from .watch import ended, log, tell_end, wait

if TYPE_CHECKING:
    from ..store import Store

F = TypeVar("F", bound=Callable[..., None])


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


NOTHING = "\0"
"""What no argument of a command can be: --unique without a key; and a key that no check lets pass."""

JOB_OPTIONS = (
    click.option("--priority", type=click.IntRange(-100, 100), help="Higher first."),
    click.option("--delay", help="Seconds, or 250ms 30s 5m 2h 7d."),
    click.option("--run-at", help="RFC 3339 with an offset."),
    click.option("--group", type=KEY, help="The group whose turn it takes."),
    click.option("--tag", "tags", type=KEY, multiple=True, help="May be given more than once."),
    click.option(
        "--cost", type=click.IntRange(1, COSTLIEST), help="How much of a rate its start uses."
    ),
    click.option("--timeout", help="Of one attempt: seconds, or 30s 5m 2h."),
    click.option("--max-attempts", type=click.IntRange(1, 1000), help="Runs before it is a dead letter."),
    click.option("--retention", help="How long it is kept after its end: seconds, or 30s 5m 2h 7d."),
    click.option(
        "--unique",
        metavar="[KEY]",
        is_flag=False,
        flag_value=NOTHING,
        help="One of this key at a time; at the end of the line, without KEY: one of this type and payload.",
    ),
    click.option("--unique-for", metavar="DURATION", help="How long the key is held: seconds, or 30s 5m 2h."),
    click.option("--unique-until", type=click.Choice(["start", "end"]), help="The key is held until then."),
    click.option("--on-conflict", type=click.Choice(CONFLICTS), help="Of a unique job, where one stands: return it unless you say so."),
    click.option("--deadline", help="When it must have ended: RFC 3339 with an offset, or a duration from now."),
    click.option("--expires-in", help="Cancelled if it has not started by then: seconds, or 30s 5m 2h."),
    click.option("--after", "after", metavar="ID", multiple=True, help="Waits until that job has ended; may be given more than once."),
    click.option("--before", "before", metavar="ID", multiple=True, help="That job, which is blocked, waits for this one as well; may be given more than once."),
    click.option("--hold", is_flag=True, default=None, help="It waits until it is opened (job open), and for all that joined it with --before."),
    click.option("--on-failure", type=click.Choice(ON_FAILURE), help="When one of them does not succeed: cancel unless you say so."),
)  # fmt: skip
"""What may be said of a new job, and of a copy."""


def _job_options(command: F) -> F:
    for option in reversed(JOB_OPTIONS):
        command = option(command)
    return command


def _fields(options: dict[str, Any]) -> dict[str, Any]:
    """What was said by JOB_OPTIONS, as fields of NewJob. Raises click.BadParameter and click.UsageError."""
    deadline, unique = options["deadline"], options["unique"]
    moment = deadline is not None and ":" in deadline
    if unique is None and (options["unique_for"] or options["unique_until"] or options["on_conflict"]):
        raise click.UsageError("--unique-for, --unique-until and --on-conflict go with --unique")
    attempts = options["max_attempts"]
    fields = {
        "priority": options["priority"],
        "delay_ms": said(typed_duration_ms, options["delay"], "--delay"),
        "run_at_ms": said(parse_rfc3339, options["run_at"], "--run-at"),
        "group": options["group"],
        "tags": options["tags"] or None,
        "cost": options["cost"],
        "timeout_ms": said(typed_duration_ms, options["timeout"], "--timeout"),
        "retry": None if attempts is None else retry_policy.stored({"max_attempts": attempts}),
        "retention_ms": said(typed_duration_ms, options["retention"], "--retention"),
        "unique": None
        if unique is None
        else Unique(
            key="" if unique == NOTHING else unique or NOTHING,
            for_ms=said(typed_duration_ms, options["unique_for"], "--unique-for"),
            until=options["unique_until"] or "",
            on_conflict=options["on_conflict"] or "return",
        ),
        "deadline_ms": said(parse_rfc3339, deadline if moment else None, "--deadline"),
        "deadline_in_ms": said(typed_duration_ms, None if moment else deadline, "--deadline"),
        "expires_in_ms": said(typed_duration_ms, options["expires_in"], "--expires-in"),
        "after": options["after"] or None,
        "before": options.get("before") or None,
        "hold": options.get("hold"),
        "on_failure": options["on_failure"],
    }
    return {name: value for name, value in fields.items() if value is not None}


def _key_said(job_id: str | None, queue: str) -> str:
    """The key that --id names, or a new one. Raises click.BadParameter for one of another queue."""
    # An empty one says nothing, as that of a variable that is not set: it is refused, not taken for none.
    named, colon, key = (new_key() if job_id is None else job_id or NOTHING).rpartition(":")
    if colon and named != queue:
        raise click.BadParameter(f"its queue is {named}, the job's is {queue}", param_hint="--id")
    return key


def _checked(job: NewJob, settings: Settings) -> NewJob:
    try:
        check(job, max_payload=settings.max_payload)
    except Invalid as error:
        raise click.UsageError(_as_options(error.faults)) from error
    return job


_SAID_OF_IT = {
    "exists": "it was enqueued before",
    "held": "it has this unique key: nothing was enqueued",
    "changed": "it had this unique key, and is changed",
}


async def _enqueued(store: Store, job: NewJob) -> tuple[Job, str, list[str]]:
    """The job that stands, what is to be said of it where it is not a new one, and why no worker would take it."""
    from ..presence import Presence  # noqa: PLC0415 - help does without
    from ..served import Served  # noqa: PLC0415

    outcome = await store.enqueue_one(job)
    found = await store.job(job.queue, outcome.id.partition(":")[2])
    warnings = await Served(Presence(store)).warnings([(job.queue, job.type)])
    return found, _SAID_OF_IT.get(outcome.outcome, ""), warnings


def _tell(
    found: Job, remark: str, warnings: list[str], show: Callable[[Job], None], *, as_json: bool
) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        said = {"warnings": warnings} if warnings else {}
        print_json(found.document() | ({"duplicate": True} if remark else {}) | said)
        return
    show(found)
    if remark:
        print(f"{found.id}: {remark}", file=sys.stderr)


@click.command(cls=Command)
@click.argument("type", type=TYPE)
@click.option("--payload", default="{}", help="JSON, @file, or - for stdin.")
@click.option("--queue", type=QUEUE, default="default", show_default=True)
@click.option("--id", "job_id", help="The job's key: the same id and request enqueue once.")
@_job_options
@click.option(
    "--wait", "waits", is_flag=True, help="Wait for its end and print its result; exit 1 unless it succeeds."
)
@json_option
@with_settings
def enqueue(
    type: str, payload: str, queue: str, job_id: str | None, waits: bool, as_json: bool, settings: Settings,
    **options: Any,
) -> None:  # fmt: skip
    """Put a job of TYPE into a queue."""
    key, fields = _key_said(job_id, queue), _fields(options)
    job = _checked(NewJob(type=type, payload=read_payload(payload), queue=queue, key=key, **fields), settings)

    async def work() -> tuple[Job, str, list[str]]:
        async with connected(settings, queue=queue) as store:
            return await _enqueued(store, job)

    async def to_its_end() -> Job:
        async with connected(settings, queue=queue) as store:
            found, remark, warnings = await _enqueued(store, job)
            # The id is printed before the wait, so that Ctrl-C does not lose it; one document has all of it at the end.
            for text in warnings:
                print(f"warning: {text}", file=sys.stderr)
            if remark:
                print(f"{found.id}: {remark}", file=sys.stderr)
            if not as_json:
                print(found.id, flush=True)
            return await ended(store, found.queue, found.id.partition(":")[2])

    if waits:
        tell_end(run(to_its_end()), as_json=as_json)
        return
    made, remark, warnings = run(work())
    _tell(made, remark, warnings, lambda found: print(found.id), as_json=as_json)


_OPTIONS = {
    "/type": "TYPE", "/tags": "--tag", "/unique": "--unique", "/unique/key": "--unique", "/unique/for": "--unique-for",
    "/unique/until": "--unique-until", "/unique/on_conflict": "--on-conflict",
}  # fmt: skip
"""Fields that are not options of their own name."""


def _as_options(faults: tuple[Fault, ...]) -> str:
    return "; ".join(f"{_option_of(fault.path)}: {fault.message}" for fault in faults)


def _option_of(path: str) -> str:
    top = "/" + path[1:].partition("/")[0]
    return _OPTIONS.get(path) or _OPTIONS.get(top) or "--" + top[1:].replace("_", "-")


@click.group(cls=Group)
def job() -> None:
    """Show a job, follow it, or act on it."""


job.add_command(log)
job.add_command(wait)


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


async def _opened(store: Store, queue: str, key: str) -> list[str]:
    return [await store.open(queue, key)]


def _act(name: str, text: str, verb: Any, good: tuple[str, ...], takes: str) -> None:
    @job.command(name, help=text)
    @click.argument("job_id", metavar="ID")
    @json_option
    @with_settings
    def command(job_id: str, as_json: bool, settings: Settings) -> None:
        queue, key = with_id(job_id)

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
    queue, key = with_id(job_id)

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

    queue, key = with_id(job_id)

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
    "open",
    "Let a held job go: it runs when all have ended that it waits for.",
    _opened,
    STATES,
    "only one that was enqueued with --hold is opened",
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
    queue, key = with_id(job_id)
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
@click.option("--type", type=TYPE, help="As a job of another type.")
@click.option("--payload", help="With another payload: JSON, @file, or - for stdin.")
@click.option("--queue", type=QUEUE, help="Into another queue.")
@click.option("--id", "new_id", help="The copy's key: the same id and request enqueue once.")
@_job_options
@json_option
@with_settings
def copy(
    job_id: str, type: str | None, payload: str | None, queue: str | None, new_id: str | None, as_json: bool,
    settings: Settings, **options: Any,
) -> None:  # fmt: skip
    """Enqueue a new job like this one, whatever became of it.

    What is said replaces what it has. It runs at once, has no deadline and is not unique, unless that is said of it.
    """
    its_queue, key = with_id(job_id)
    into = queue or its_queue
    changes: dict[str, Any] = {"key": _key_said(new_id, into), "queue": into, **_fields(options)}
    if type is not None:
        changes["type"] = type
    if payload is not None:
        changes["payload"] = read_payload(payload)

    async def work() -> tuple[Job, str, list[str]]:
        async with connected(settings, queue=into) as store:
            found = await _shown(store, its_queue, key)
            if found.payload is None and payload is None:
                raise WrongState(f"the payload of job {job_id} is gone: give the copy one", found.state)
            like = found.like()
            if "retry" in changes:  # of the policy only that is said
                changes["retry"] = {**(like.retry or {}), **changes["retry"]}
            return await _enqueued(store, _checked(replace(like, **changes), settings))

    made, remark, warnings = run(work())
    _tell(made, remark, warnings, lambda found: _print(found, as_json=False), as_json=as_json)

"""`scheduler dev`, `scheduler api` and `scheduler worker`: the processes, whose work is in `serving`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .. import __version__
from ..keys import QUEUE_NAME
from ..settings import Settings
from .common import Command, run, with_settings


def parse_queues(text: str | None) -> dict[str, int]:
    """`mail:5,reports:1` as queue names with their weights; 1 where none is given."""
    weights: dict[str, int] = {}
    for part in (text or "").split(","):
        name, _, weight = part.strip().partition(":")
        if not name:
            continue
        if not QUEUE_NAME.fullmatch(name) or (weight and (not weight.isdigit() or int(weight) < 1)):
            raise click.BadParameter(
                f"{part.strip()!r}: write queue or queue:weight, with a whole weight from 1 on",
                param_hint="--queue",
            )
        if name in weights:
            raise click.BadParameter(f"{name!r} is there twice: give it one weight", param_hint="--queue")
        weights[name] = int(weight or 1)
    return weights


@click.command(cls=Command)
@click.argument("app", required=False)
@click.option(
    "--queue", "queues", help="Such as mail:5,reports:1. Default: the queues that the handlers name."
)
@click.option(
    "--processes", type=click.IntRange(1, 1000), default=None, help="Start so many, replace one that dies."
)
@click.option("--parent", type=int, hidden=True)
@click.option("--ready", type=int, hidden=True)
@with_settings
def worker(
    app: str | None, queues: str | None, processes: int | None, parent: int | None, ready: int | None, settings: Settings
) -> None:  # fmt: skip
    """Run jobs. APP is module:attribute; without it the shipped types run."""
    from ..logs import configure  # noqa: PLC0415 - help does without
    from .program import find_app  # noqa: PLC0415
    from .serving import work  # noqa: PLC0415

    if settings.redis_url == "memory://":
        raise click.UsageError(
            "memory:// lives inside one process: a worker of its own would see no jobs. Use `dev`, or leave SCHEDULER_REDIS_URL unset"
        )
    configure(settings)
    names = parse_queues(queues)
    found = find_app(app, settings)
    if processes is not None:
        from .supervise import supervise  # noqa: PLC0415 - one process does without

        sys.exit(run(supervise(processes, sys.argv[1:])))
    run(work(found, settings, names, parent=parent, ready=ready))


@click.command(cls=Command)
@with_settings
def api(settings: Settings) -> None:
    """Serve the REST API."""
    from ..logs import configure  # noqa: PLC0415 - help does without
    from .serving import serve  # noqa: PLC0415

    configure(settings)
    run(serve(settings))


@click.command(cls=Command)
@click.argument("app", required=False)
@with_settings
def dev(app: str | None, settings: Settings) -> None:
    """One process with embedded server, API, a worker and the watchdog. Ctrl-C stops it; the jobs stay.

    The worker runs the shipped types, and those of APP, which is module:attribute.
    """
    from .. import shipped  # noqa: PLC0415 - help does without
    from ..logs import configure  # noqa: PLC0415
    from .program import find_app  # noqa: PLC0415
    from .serving import serve  # noqa: PLC0415

    configure(settings)
    found = find_app(app, settings)
    # The job that is shown to post runs beside any app, and mails and calls can be tried.
    for handler in shipped.HANDLERS:
        if found.handlers.get(handler.type) is None:
            found.handlers.add(handler)

    def say(port: int) -> None:
        host = settings.host
        shown = "127.0.0.1" if host in {"0.0.0.0", "::"} else host
        queues = ", ".join(found.handlers.queues() or ["default"])
        key = " -H 'Authorization: Bearer …'" if settings.api_key else ""
        where = settings.redis_url or f"{Path.cwd()}/.scheduler (embedded Valkey)"
        safe = {
            "strict": "every answered job is on disk (fsync before the answer)",
            "standard": "standard: a crash of the server may lose the last two seconds",
        }[settings.durability]
        if settings.redis_url is not None:
            safe = (
                "in memory: gone with this process"
                if settings.redis_url == "memory://"
                else "as that server is set up"
            )
        body = '-d \'{"type": "demo.echo", "payload": {"hello": "world"}}\''
        lines = (
            f"scheduler {__version__}",
            f"  API         http://{shown}:{port}",
            f"  data        {where if settings.redis_url is None or settings.redis_url == 'memory://' else 'the server of SCHEDULER_REDIS_URL'}",
            f"  durability  {safe}",
            f"  queues      {queues}",
            f"  types       {', '.join(sorted(h.type for h in found.handlers)) or 'none'}",
            "Post a job:",
            f"  curl -s http://{shown}:{port}/v1/jobs{key} -H 'Content-Type: application/json' {body}",
            f"Stop with Ctrl-C; the jobs {'are gone then' if settings.redis_url == 'memory://' else 'stay'}.",
        )
        print("\n".join(lines), flush=True)

    run(serve(settings, found, say))

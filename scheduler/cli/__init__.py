"""The command line: `scheduler …`. Exit 0 done, 1 failed, 2 wrong use."""

from __future__ import annotations

import importlib
import sys

import click

from .. import __version__

COMMANDS = {
    "dev": ("run", "one process with server, API, a worker and the watchdog"),
    "api": ("run", "the REST API"),
    "worker": ("run", "runs jobs"),
    "enqueue": ("jobs", "puts a job into a queue"),
    "job": ("jobs", "shows a job, or acts on it"),
    "jobs": ("lists", "lists jobs"),
    "dlq": ("lists", "the dead-letter queue of a queue"),
    "config": ("config", "the settings: show, check, schema, env"),
    "scripts": ("scripts", "the Lua scripts: load, list, show, manifest"),
    "verify": ("scripts", "does every job stand in exactly one set?"),
}


class Lazy(click.Group):
    """Imports a command's module when it is called: the others cost nothing."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f".{COMMANDS[name][0]}", __name__)
        command = getattr(module, name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="scheduler")
def cli() -> None:
    """A job scheduler on Redis that loses nothing.

    Settings come from options, the environment (SCHEDULER_…) and scheduler.toml, in this order.
    """


def main() -> None:
    """The program. Every expected failure is one line on stderr."""
    from ..errors import SchedulerError  # noqa: PLC0415
    from ..settings import SettingsError  # noqa: PLC0415

    try:
        cli(standalone_mode=True)
    except SettingsError as error:
        for problem in error.problems:
            print(f"scheduler: {problem}", file=sys.stderr)
        sys.exit(2)
    except SchedulerError as error:
        print(f"scheduler: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)

"""The command line: `scheduler …`. Exit 0 done, 1 failed, 2 wrong use.

Each command's module is imported when it is called, and what is heavy when it is needed there: what people type must
answer at once, and help and completion most of all.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from .. import __version__

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What writing to stdout fails with where its disk is full or gone."""

COMMANDS = {
    "dev": ("run", "one process with server, API, a worker and the watchdog"),
    "api": ("run", "the REST API"),
    "worker": ("run", "runs jobs"),
    "enqueue": ("jobs", "puts a job into a queue"),
    "job": ("jobs", "shows a job, or acts on it"),
    "jobs": ("lists", "lists jobs"),
    "flow": ("flows", "graphs of jobs: put, show, cancel, replay"),
    "queue": ("queues", "lists and shows queues; limits, pauses, resumes, purges them"),
    "schedule": ("schedules", "what is enqueued again and again: puts, lists, pauses, triggers it"),
    "dlq": ("dlq", "the dead-letter queue of a queue: list, groups, replay, purge"),
    "workers": ("queues", "lists workers, and what runs where"),
    "config": ("config", "the settings: show, check, schema, env"),
    "types": ("types", "the types of a queue: list them; what is in force, and the delays of retries"),
    "stats": ("stats", "how many jobs ended, how long they waited and ran"),
    "scripts": ("scripts", "the Lua scripts: load, list, show, manifest"),
    "verify": ("scripts", "does every job stand in exactly one set?"),
    "doctor": ("doctor", "looks at the server for what can lose jobs or stop workers"),
    "completion": ("completion", "prints what makes a shell complete our words"),
}


class Lazy(click.Group):
    """Imports a command's module when it is called: the others cost nothing."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuses words that are not UTF-8: no text of a job, an option or a name could hold them."""
        for n, word in enumerate(args):
            if not word.isascii() and any("\ud800" <= letter <= "\udfff" for letter in word):
                raise click.UsageError(f"{_place_of(args, n)} is not valid UTF-8", ctx)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f".{COMMANDS[name][0]}", __name__)
        command = getattr(module, name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches  # noqa: PLC0415 - for who mistypes

            near = get_close_matches(args[0], COMMANDS, n=1)
            ctx.fail(f"There is no command {args[0]!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - when a shell asks

        found = [
            CompletionItem(name, help=text)
            for name, (_, text) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        # Options, as any command has them; not the commands again, each of which it would import.
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _place_of(words: list[str], n: int) -> str:
    """Names the n-th word of a command line: the option whose value it is, else its place."""
    option = words[n].partition("=")[0] if words[n].startswith("-") and "=" in words[n] else ""
    if not option and n and words[n - 1].startswith("--"):
        option = words[n - 1]
    return f"the value of {option}" if option.isascii() and option else f"argument {n + 1}"


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="scheduler")
def cli() -> None:
    """A job scheduler on Redis that loses nothing.

    Settings come from options, the environment (SCHEDULER_…) and scheduler.toml, in this order.
    """


def main() -> None:
    """The program. Every expected failure is a line or a few on stderr; Ctrl-C and a closed pipe end it quietly."""
    _open_missing_streams()
    with _ended_quietly():
        sys.exit(_status())


def _open_missing_streams() -> None:
    """Opens /dev/null on each of the descriptors 0 to 2 that the caller has closed.

    Otherwise the first file or socket that the process opens gets such a number: the log is written into a connection,
    and libuv aborts when it closes a descriptor below 3. Child processes inherit what is opened here.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            setattr(sys, name, open(number, mode, encoding="utf-8", errors="replace", closefd=False))  # noqa: SIM115


def _status() -> int:
    """Runs the command that the arguments name; the exit status."""
    from ..errors import SchedulerError  # noqa: PLC0415
    from ..settings import SettingsError  # noqa: PLC0415

    try:
        status = cli.main(prog_name="scheduler", standalone_mode=False)
        sys.stdout.flush()  # what cannot be written any more is found here, not after all is done
    except click.exceptions.Abort as error:
        if isinstance(error.__cause__, KeyboardInterrupt):
            raise error.__cause__ from None
        print("scheduler: nothing was done", file=sys.stderr)
        return 1
    except click.UsageError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        print(f"scheduler: {error.format_message()}", file=sys.stderr)
        return error.exit_code
    except SettingsError as error:
        for problem in error.problems:
            print(f"scheduler: {problem}", file=sys.stderr)
        return 2
    except SchedulerError as error:
        print(f"scheduler: {error}", file=sys.stderr)
        return 1
    return status if isinstance(status, int) else 0


@contextlib.contextmanager
def _ended_quietly() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        # As the shell expects of what a signal ended: a script around us stops too.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BrokenPipeError:
        # Nobody reads on, as after `| head -1`: nothing else is to be written at the end.
        _write_no_more()
        sys.exit(1)
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        _write_no_more()
        print(f"scheduler: the output cannot be written: {error.strerror}", file=sys.stderr)
        sys.exit(1)


def _write_no_more() -> None:
    """What is still to be written to stdout goes nowhere, so that the end does not fail over it again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

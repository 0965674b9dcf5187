"""What commands share: settings as options, a connection that gives up after five seconds, output, asking.

Imported by every command, so it brings nothing that a command's help would have to wait for.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import NotFound, StoreRefused, StoreUnavailable
from ..keys import JOB_KEY, QUEUE_NAME
from ..settings import SETTINGS, Settings, SettingsError, Survey, survey

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ..store import Store

GIVE_UP = 5.0
"""Seconds after which a command that is no server stops waiting for Redis."""

NOT_YET = ("wait_replicas", "postgres_url")
"""Settings whose promise a later release keeps: refused until then, and listed nowhere."""

LISTED = tuple(row for row in SETTINGS if row.name not in NOT_YET)
"""The settings that can be set."""

HEAD = "scheduler.head"
"""Where click's context has whether a piped table is to have a head."""

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


# -- options ----------------------------------------------------------------------------------------------------------


class SettingOption(click.Option):
    """A setting as an option. Help shows these apart from what the command itself takes."""


class Command(click.Command):
    """A command whose help tells its own options first, then the settings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own: list[tuple[str, str]] = []
        settings: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = None if isinstance(param, click.Argument) else param.get_help_record(ctx)
            if record is not None:
                (settings if isinstance(param, SettingOption) else own).append(record)
        for title, records in (
            ("Options", own),
            ("Settings (each also SCHEDULER_… and a line of scheduler.toml)", settings),
        ):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class Group(click.Group):
    """A group of such commands."""

    command_class = Command


class Fitting(click.ParamType[str]):
    """Text that a whole pattern fits, refused with the sentence that the REST API has for it."""

    name = "text"

    def __init__(self, pattern: re.Pattern[str], takes: str, *, known: str = "") -> None:
        self._pattern, self._takes, self._known = pattern, takes, known

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not self._pattern.fullmatch(value):
            self.fail(f"{value!r}: {self._takes}", param, ctx)
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        if not self._known:
            return super().shell_complete(ctx, param, incomplete)
        from .completion import known  # noqa: PLC0415 - when a shell asks

        return known(self._known, ctx.params, incomplete)


_NAMED = "1 to 64 letters, digits, '.', '_' or '-', a letter or digit first"
QUEUE = Fitting(QUEUE_NAME, _NAMED, known="queues")
TYPE = Fitting(QUEUE_NAME, _NAMED, known="types")
KEY = Fitting(JOB_KEY, "1 to 128 letters, digits, '.', '_' or '-'")
KIND = Fitting(re.compile(r"(?s).{1,200}"), "1 to 200 characters")
FINGERPRINT = Fitting(re.compile("[0-9a-f]{16}"), "16 hexadecimal digits, as `dlq list` shows them")


json_option = click.option(
    "--json", "as_json", is_flag=True, help="One JSON document on stdout, for programs."
)


head_option = click.option(
    "--head",
    is_flag=True,
    expose_value=False,
    callback=lambda ctx, _, value: ctx.meta.update({HEAD: value}),
    help="Also into a pipe or file: the table's column names as its first line.",
)


def with_flags(function: F) -> F:
    """Makes every setting an option of a command, which gets what was given as `flags`, by name."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        flags = {}
        for row in SETTINGS:
            value = kwargs.pop(f"setting_{row.name}", None)
            if value is not None:
                flags[row.name] = value
        return function(*args, flags=flags, **kwargs)

    made: Any = wrapped
    taken = {option for param in getattr(function, "__click_params__", ()) for option in param.opts}
    for row in reversed(SETTINGS):
        if row.flag not in taken:
            default = f" [{row.default}]" if row.default is not None else ""
            made = click.option(
                row.flag,
                f"setting_{row.name}",
                cls=SettingOption,
                metavar="…",
                help=f"{row.doc}{default}",
                hidden=row.name in NOT_YET,
            )(made)
    return made  # type: ignore[no-any-return]


def with_settings(function: F) -> F:
    """Makes every setting an option of a command, which gets them as `settings`. Raises SettingsError."""

    @functools.wraps(function)
    def wrapped(*args: Any, flags: dict[str, str], **kwargs: Any) -> Any:
        found = survey(flags)
        if problems := problems_of(found):
            raise SettingsError(problems)
        return function(*args, settings=found.settings, **kwargs)

    return with_flags(wrapped)  # type: ignore[return-value]


def problems_of(found: Survey) -> list[str]:
    """Everything that keeps a command from starting with these settings."""
    return [
        *found.problems,
        *(
            f"{found.sources[row.name].label}: not in this release yet, and ignoring it would mislead"
            for row in SETTINGS
            if row.name in NOT_YET and found.sources[row.name].text not in {None, row.default}
        ),
    ]


# -- Redis ------------------------------------------------------------------------------------------------------------


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine, on uvloop where it is installed."""
    import asyncio  # noqa: PLC0415 - help does without

    loop_factory = None
    # The work begins outside of `except`: a missing module would be the cause of every error in it.
    with suppress(ImportError):
        import uvloop  # noqa: PLC0415 - an optional extra

        loop_factory = uvloop.new_event_loop
    main: asyncio.Task[T] | None = None

    async def go() -> T:
        nonlocal main
        main = main or asyncio.ensure_future(work)
        return await main

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        while True:
            try:
                return runner.run(go())
            except SystemExit as error:
                from ..attempt import contains  # noqa: PLC0415 - seldom needed
                from ..logs import get_logger  # noqa: PLC0415

                # Out of a callback: whoever means the end of a worker ends its main task.
                if main is None or main.done() or not contains(runner.get_loop()):
                    raise
                get_logger(__name__).error(
                    "a callback of a handler raised SystemExit; the worker goes on", exc_info=error
                )


@asynccontextmanager
async def connected(
    settings: Settings, *, queue: str = "default", give_up: float = GIVE_UP
) -> AsyncIterator[Store]:
    """A store for a short command. Raises StoreUnavailable with the address after five seconds."""
    async with opened_store(settings) as store:
        await within(give_up, store, wait_for(store, queue=queue))
        yield store


@asynccontextmanager
async def opened_store(settings: Settings) -> AsyncIterator[Store]:
    """A store whose server need not be there."""
    from ..clients import open_clients  # noqa: PLC0415 - help does without
    from ..store import Store  # noqa: PLC0415

    refuse_memory(settings)
    clients = await open_clients(settings.redis_url, durability=settings.durability)
    store = Store(clients, settings.namespace)
    try:
        yield store
    finally:
        await store.close()


async def within(seconds: float, store: Store, waiting: Awaitable[T]) -> T:
    """Waits for the store's server, so long. Raises StoreUnavailable with its address."""
    import asyncio  # noqa: PLC0415 - help does without

    try:
        async with asyncio.timeout(seconds):
            return await waiting
    except TimeoutError:
        raise StoreUnavailable(
            f"no answer from {store.clients.where} within {seconds:g} s: is it the right --redis-url?"
        ) from None


def refuse_memory(settings: Settings) -> None:
    """Raises StoreRefused for a server that no second process can see."""
    if settings.redis_url == "memory://":
        raise StoreRefused(
            "memory:// lives inside one process: `dev` and `api` take it, this command would see nothing of theirs"
        )


async def wait_for(store: Store, *, queue: str = "default", say: Callable[[str], None] | None = None) -> None:
    """Connects, again and again until the server is there. Raises StoreRefused for what waiting does not mend."""
    import asyncio  # noqa: PLC0415 - help does without

    pause = 0.1
    while True:
        try:
            await store.connect(queue=queue)
        except StoreUnavailable as error:
            if say is not None:
                say(f"waiting for {store.clients.where}: {error}")
                say = None
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)
        else:
            return


def with_id(job_id: str) -> tuple[str, str]:
    """The queue and the key of a job id. Raises click.BadParameter for what is none."""
    from ..job import split_id  # noqa: PLC0415 - help does without

    parts = split_id(job_id)
    if parts is None:
        raise click.BadParameter(f"{job_id!r} is no job id: it is <queue>:<key>", param_hint="ID")
    return parts


def missing(job_id: str) -> NotFound:
    return NotFound(f"there is no job {job_id}")


# -- output and asking ------------------------------------------------------------------------------------------------


def print_json(document: Any) -> None:
    """One document on stdout."""
    import orjson  # noqa: PLC0415 - help does without

    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.flush()


def confirmed(question: str, *, yes: bool) -> None:
    """Goes on when the user agrees, or has said --yes. Raises click.UsageError without a terminal, click.Abort for a no."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError(f"{question} There is no terminal to ask at: say --yes.")
    click.confirm(question, abort=True, err=True)


def said(read: Callable[[str], T], text: str | None, option: str) -> T | None:
    """What an option's text means; None where it was not given. Raises click.BadParameter that names the option."""
    if text is None:
        return None
    try:
        return read(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from error

"""What commands share: settings as options, a connection that gives up after five seconds, output."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import click
import orjson

from ..clients import open_clients
from ..errors import NotFound, StoreRefused, StoreUnavailable
from ..settings import SETTINGS, Settings, load
from ..store import Store

GIVE_UP = 5.0
"""Seconds after which a command that is no server stops waiting for Redis."""

NOT_YET = ("wait_replicas", "postgres_url")
"""Settings whose promise a later release keeps: refused until then."""

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def with_settings(function: F) -> F:
    """Makes every setting an option of a command, which gets them as `settings`."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        flags = {}
        for row in SETTINGS:
            value = kwargs.pop(f"setting_{row.name}", None)
            if value is not None:
                flags[row.name] = value
        settings = load(flags)
        if later := [
            row.variable for row in SETTINGS if row.name in NOT_YET and getattr(settings, row.attribute)
        ]:
            raise click.UsageError(
                f"{', '.join(later)}: not in this release yet, and ignoring it would mislead"
            )
        return function(*args, settings=settings, **kwargs)

    made: Any = wrapped
    taken = {option for param in getattr(function, "__click_params__", ()) for option in param.opts}
    for row in reversed(SETTINGS):
        if row.flag not in taken:
            default = f" [{row.default}]" if row.default is not None else ""
            made = click.option(row.flag, f"setting_{row.name}", metavar="…", help=f"{row.doc}{default}")(
                made
            )
    return made  # type: ignore[no-any-return]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine, on uvloop where it is installed."""
    try:
        import uvloop  # noqa: PLC0415 - an optional extra
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


@asynccontextmanager
async def connected(settings: Settings, *, queue: str = "default") -> AsyncIterator[Store]:
    """A store for a short command. Raises StoreUnavailable with the address after five seconds."""
    if settings.redis_url == "memory://":
        raise StoreRefused(
            "memory:// lives inside one process: `dev` and `api` take it, this command would see nothing of theirs"
        )
    clients = await open_clients(settings.redis_url, durability=settings.durability)
    store = Store(clients, settings.namespace)
    try:
        try:
            async with asyncio.timeout(GIVE_UP):
                await wait_for(store, queue=queue)
        except TimeoutError:
            raise StoreUnavailable(
                f"no answer from {clients.where} within {GIVE_UP:g} s: is it the right --redis-url?"
            ) from None
        yield store
    finally:
        await store.close()


async def wait_for(store: Store, *, queue: str = "default", say: Callable[[str], None] | None = None) -> None:
    """Connects, again and again until the server is there. Raises StoreRefused for what waiting does not mend."""
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


def print_json(document: Any) -> None:
    """One document on stdout."""
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.flush()


def missing(job_id: str) -> NotFound:
    return NotFound(f"there is no job {job_id}")

"""`scheduler completion …`: what makes a shell complete our words, and the names that only the server knows.

A shell that asks is answered within a second, or with nothing: no server is started for it, nothing is written,
and no failure is told.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
from click.shell_completion import CompletionItem, get_completion_class

from .common import Command

PATIENCE = 0.8
"""Seconds that a shell waits for names."""

SHELLS = {
    "bash": 'eval "$(scheduler completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(scheduler completion zsh)" in ~/.zshrc, after compinit',
    "fish": "scheduler completion fish > ~/.config/fish/completions/scheduler.fish",
}


@click.command(cls=Command, epilog="\b\n" + "\n".join(SHELLS.values()))
@click.argument("shell", type=click.Choice(tuple(SHELLS)))
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands, options, states, and the names of queues and types."""
    made = get_completion_class(shell)
    assert made is not None
    from . import cli  # noqa: PLC0415 - which imports this

    # Not source(): that starts a bash to judge its version, and this may be read by another machine's.
    script = made(cli, {}, "scheduler", "_SCHEDULER_COMPLETE")
    print(script.source_template % script.source_vars())


def known(what: str, given: Mapping[str, Any], incomplete: str) -> list[CompletionItem]:
    """The queues, or the types of a queue or of all, that begin so. `given`: the options so far."""
    found: list[str] = []
    # A name server may take as long as it likes: whoever asks it may be left behind.
    asking = threading.Thread(target=_ask, args=(what, dict(given), found), daemon=True)
    asking.start()
    asking.join(PATIENCE)
    return [CompletionItem(name) for name in sorted(found) if name.startswith(incomplete)]


def _ask(what: str, given: Mapping[str, Any], found: list[str]) -> None:
    import asyncio  # noqa: PLC0415 - when a shell asks

    with contextlib.suppress(Exception):
        asyncio.run(_names(what, given, found))


async def _names(what: str, given: Mapping[str, Any], found: list[str]) -> None:
    from .. import _keeper  # noqa: PLC0415 - when a shell asks
    from ..clients import open_clients  # noqa: PLC0415
    from ..settings import SETTINGS, load  # noqa: PLC0415
    from ..store import Store  # noqa: PLC0415

    flags = {row.name: text for row in SETTINGS if (text := given.get(f"setting_{row.name}")) is not None}
    settings = load(flags)
    url = settings.redis_url
    if url is None:
        folder = Path.cwd() / ".scheduler"
        if not (folder / _keeper.ANSWERING).exists():
            return
        url = f"unix://{quote(str(folder / _keeper.SOCKET))}"
    if url == "memory://":
        return
    clients = await open_clients(url, name="scheduler-completion")
    store = Store(clients, settings.namespace)
    try:
        queues = await store.queues()
        if what == "queues":
            found += queues
            return
        asked = given.get("queue")
        for queue in [asked] if isinstance(asked, str) and asked in queues else queues:
            found += [name for name in await store.types(queue) if name not in found]
    finally:
        await store.close()

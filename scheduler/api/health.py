"""Whether the process lives, and whether a script of ours runs where it must."""

from __future__ import annotations

import asyncio

from aiohttp import web

from ..errors import SchedulerError
from ..keys import LAYOUT
from ..logs import redact
from ..shown import AliveShown, ReadyShown
from .parts import STORE
from .problems import Refusal
from .routes import Table, json_answer

table = Table()

PATIENCE = 5.0
"""Seconds after which a store that says nothing is not there."""


@table.add("GET", "/livez", {200: AliveShown})
async def livez(_request: web.Request, _: None) -> web.Response:
    """The process turns its loop."""
    return json_answer({"status": "alive"})


@table.add("GET", "/readyz", {200: ReadyShown}, codes=("store_unavailable",))
async def readyz(request: web.Request, _: None) -> web.Response:
    """A script of ours has just run. Else 503, and `detail` names the server and the cause."""
    store = request.app[STORE]
    try:
        async with asyncio.timeout(PATIENCE):
            server = await store.server()
    except SchedulerError as error:
        raise _unready(str(error)) from None
    except TimeoutError:
        raise _unready(f"{store.clients.where}: no answer within {PATIENCE:g} s") from None
    return json_answer({"status": "ready", "redis": server, "layout": LAYOUT})


def _unready(cause: str) -> Refusal:
    return Refusal("store_unavailable", redact(cause), headers={"Retry-After": "1"})

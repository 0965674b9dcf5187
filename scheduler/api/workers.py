"""Workers: who has signed lately, and what they run."""

from __future__ import annotations

from aiohttp import web

from ..shown import WorkersShown
from .pages import PAGE, page_of
from .parts import PRESENCE
from .routes import Table, json_answer

table = Table()


@table.add("GET", "/v1/workers", {200: WorkersShown}, query=PAGE)
async def list_workers(request: web.Request, _: None) -> web.Response:
    """Workers by name, those that have signed within two of their leases; `running`: of the first 1,000 a queue."""
    seen = {worker.name: worker for worker in await request.app[PRESENCE].present()}
    page, cursor = page_of(request, list(seen))
    items = [seen[name].document() for name in page]
    return json_answer({"items": items, "next_cursor": cursor})

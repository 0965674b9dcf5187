"""The REST API on aiohttp. It gets a Store, never the app; `make_app` makes it, `serve` binds it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from functools import cache
from time import perf_counter
from uuid import uuid4

import orjson
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from ..doorbell import Doorbell
from ..events import Follower
from ..logs import get_logger
from ..operations import Operations
from ..presence import Presence
from ..scheduling import Schedules
from ..schemas import Schemas
from ..served import Served
from ..settings import Settings
from ..store import Store
from ..tasks import cancel_all
from ..ticker import Ticker
from ..upkeep import Upkeep
from . import (
    bulk,
    change,
    dlq,
    flows,
    groups,
    health,
    jobs,
    lease,
    lists,
    openapi,
    operations,
    problems,
    queues,
    reference,
    schedules,
    settle,
    stats,
    types,
    workers,
)
from .auth import Gate
from .parts import (
    BEHIND,
    DEADLINES,
    DOORBELL,
    FOLLOWER,
    OPERATIONS,
    POLLS,
    PRESENCE,
    REQUEST_ID,
    SCHEDULES,
    SCHEMAS,
    SERVED,
    SETTINGS,
    STORE,
    Behind,
    Deadlines,
    Polls,
    request_id,
    stamp,
)
from .routes import register
from .server import Site, serve
from .zipped import takes_gzip, zipped

__all__ = ["ROUTES", "Deadlines", "Site", "make_app", "serve"]

log = get_logger(__name__)

ROUTES = tuple(
    route
    for module in (
        jobs,
        change,
        bulk,
        lists,
        lease,
        settle,
        flows,
        queues,
        types,
        dlq,
        groups,
        operations,
        schedules,
        stats,
        workers,
        health,
    )
    for route in module.table.routes
)
"""Every documented call."""


def make_app(
    store: Store,
    settings: Settings,
    *,
    doorbell: Doorbell,
    follower: Follower,
    deadlines: Deadlines | None = None,
) -> web.Application:
    """The application. It starts while the store is away, and works from the moment that it is there."""
    prefix = settings.path_prefix or ""
    verbose = settings.log_level == "debug"
    app = web.Application(middlewares=[_guard(Gate(settings.api_key), prefix=prefix, verbose=verbose)])
    app[STORE], app[SETTINGS], app[DOORBELL], app[FOLLOWER] = store, settings, doorbell, follower
    app[PRESENCE] = Presence(store)
    app[SERVED] = Served(app[PRESENCE])
    app[DEADLINES], app[POLLS], app[BEHIND] = deadlines or Deadlines(), Polls(), Behind()
    app.on_shutdown.append(_stop_polls)
    app[SCHEMAS] = Schemas(store)
    app[SCHEDULES] = Schedules(store, max_payload=settings.max_payload)
    app[lease.LATEST] = lease.Latest()
    app[OPERATIONS] = Operations(store, f"api:{uuid4().hex}", app[SCHEMAS])
    app.cleanup_ctx.append(_finish_work)
    app.cleanup_ctx.append(_carry_operations)
    app.cleanup_ctx.append(_tick)
    register(app, ROUTES)
    keyed = settings.api_key is not None

    async def described(request: web.Request) -> web.Response:
        plain, small = _described(keyed=keyed, prefix=prefix)
        headers = {hdrs.CONTENT_TYPE: "application/json", hdrs.VARY: hdrs.ACCEPT_ENCODING}
        if takes_gzip(request):
            return web.Response(body=small, headers={**headers, hdrs.CONTENT_ENCODING: "gzip"})
        return web.Response(body=plain, headers=headers)

    app.router.add_get("/openapi.json", described)
    reference.add_to(app)
    return app


@cache
def _described(*, keyed: bool, prefix: str) -> tuple[bytes, bytes]:
    """The document as it is, and by gzip."""
    plain = orjson.dumps(openapi.document(ROUTES, key=keyed, prefix=prefix), option=orjson.OPT_INDENT_2)
    return plain, gzip.compress(plain, 9, mtime=0)


def _guard(gate: Gate, *, prefix: str, verbose: bool) -> Middleware:
    """The one middleware: the request's id, its key, its problem if it has one, its line in the log."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = perf_counter()
        its_id = request[REQUEST_ID] = request_id(request.headers.get("X-Request-Id"))
        try:
            gate.check(request)
            response = await handler(request)
        except ConnectionError:
            raise  # the caller is gone: there is nobody to answer
        except Exception as error:  # noqa: BLE001 - the table of problems has the last word on each
            response = problems.answer(error, request)
        if not response.prepared:
            stamp(response, its_id)
            await zipped(request, response)
            if prefix and response.headers.get(hdrs.LOCATION, "").startswith("/"):
                response.headers[hdrs.LOCATION] = prefix + response.headers[hdrs.LOCATION]
        if verbose:
            log.debug(
                "request", method=request.method, path=request.path[:200], status=response.status,
                ms=round((perf_counter() - began) * 1000, 1), request_id=its_id,
            )  # fmt: skip
        return response

    return guard


async def _stop_polls(app: web.Application) -> None:
    app[POLLS].stop()


async def _finish_work(app: web.Application) -> AsyncIterator[None]:
    yield
    await app[BEHIND].finish()


async def _carry_operations(app: web.Application) -> AsyncIterator[None]:
    upkeep = asyncio.create_task(Upkeep([app[OPERATIONS].duty()]).run(), name="operations")
    yield
    await cancel_all([upkeep])
    await app[OPERATIONS].close()


async def _tick(app: web.Application) -> AsyncIterator[None]:
    ticker = Ticker(app[STORE], app[SCHEDULES], realigns=True)
    task = asyncio.create_task(ticker.run(), name="schedules")
    yield
    await cancel_all([task])

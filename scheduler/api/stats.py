"""Rates, percentiles of waiting and running, and how much there is to do."""

from __future__ import annotations

from aiohttp import web

from ..demand import demand
from ..shown import DemandShown, StatsShown
from ..stats import stats
from .lists import FILTERS, filters_of
from .pages import PAGE, page_of
from .parts import PRESENCE, STORE
from .routes import Table, json_answer, queue_name

table = Table()

_QUERY = {"queue": FILTERS["queue"]}


@table.add("GET", "/v1/stats", {200: StatsShown}, query={**_QUERY, **PAGE})
async def get_stats(request: web.Request, _: None) -> web.Response:
    """What goes through the queues and how long it takes: counted where it stands, and sampled.

    `ended` counts jobs that ended in the last 1m, 5m and 1h and are still kept; `rates` are those per second. `wait`
    and `run` are percentiles, in seconds, over a sample of the newest jobs that ran and ended: up to 500 of a queue, and
    5,000 in one call. `wait` is from the job's coming, a delay that was asked for included, to the start of its first
    run, and run time that of its last run. A type's `rate` is that of the sample, since its oldest job ended.
    """
    said, store = filters_of(request, _QUERY), request.app[STORE]
    page, cursor = page_of(request, [said["queue"]] if said else await store.queues())
    return json_answer({"items": [one.document() for one in await stats(store, page)], "next_cursor": cursor})


@table.add("GET", "/v1/queues/{queue}/demand", {200: DemandShown}, codes=("not_found",))
async def get_demand(request: web.Request, _: None) -> web.Response:
    """How much there is to do for workers of a queue: what an autoscaler reads.

    `runnable` jobs may start now; `held` ones are ready too, but more workers would not help them. Of a limit with room for some,
    those beyond are held. `work_seconds` is runnable times `mean_run`, the mean run time of the newest 100 jobs that ran and ended
    (a second each, while there is none). `oldest_runnable_wait` is that of the first in line that may start. Exact up to 500
    types and lanes (the jobs of a type in one group); beyond that a part stands for the rest, and `approximate` says so.
    """
    found = await demand(request.app[STORE], request.app[PRESENCE], queue_name(request))
    return json_answer(found.document())

"""Rates, percentiles of waiting and running, and how much there is to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from ..demand import demand
from ..shown import DemandShown, StatsShown
from ..stats import PERCENTILES, WINDOWS, Stats, Times, percentile, stats
from ..times import rfc3339, seconds
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
    return json_answer({"items": [_shown(one) for one in await stats(store, page)], "next_cursor": cursor})


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


def _shown(found: Stats) -> dict[str, Any]:
    census = found.census
    oldest = census.oldest_ready_at
    span = None if found.since is None else max(1_000, census.now - found.since) / 1000
    return {
        "queue": found.queue,
        "counts": census.counts,
        "oldest_wait": None if oldest is None else seconds(max(0, census.now - oldest)),
        "ended": found.ended,
        "rates": {
            name: round(sum(found.ended[name].values()) * 1000 / window, 3)
            for name, window in WINDOWS.items()
        },
        "sample": {"jobs": found.sample.jobs, "since": None if found.since is None else rfc3339(found.since)},
        **_percentiles(found.sample),
        "types": [
            {
                "type": name,
                "jobs": times.jobs,
                "rate": round(times.jobs / span, 3) if span else 0,
                **_percentiles(times),
            }
            for name, times in found.types.items()
        ],
    }


def _percentiles(times: Times) -> Mapping[str, Any]:
    return {"wait": _of(times.waits), "run": _of(times.runs)}


def _of(ordered: Sequence[int]) -> Mapping[str, Any] | None:
    return {f"p{p}": seconds(percentile(ordered, p)) for p in PERCENTILES} if ordered else None

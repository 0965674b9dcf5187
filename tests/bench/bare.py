"""The yardsticks: the least that does the same work, on plain redis-py and plain aiohttp.

`python -m tests.bench.bare drain|latency URL …` and `http PORT` are processes of their own, as ours are.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from aiohttp import web
from redis.asyncio import Redis

from scheduler.cli.common import run

JOBS, READY, LEASES, RESULTS, ENDED = (
    f"{{bare}}:{name}" for name in ("jobs", "ready", "leases", "results", "ended")
)
SENT, TOOK = "{bare}:sent", "{bare}:took"

ENQUEUE = b"redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])"

TAKE = b"""
local ids, leases = {}, {}
local popped = redis.call('ZPOPMIN', KEYS[2], ARGV[1])
if #popped == 0 then return { {}, {} } end
for n = 1, #popped, 2 do
  ids[#ids + 1] = popped[n]
  leases[#leases + 1] = ARGV[2]
  leases[#leases + 1] = popped[n]
end
redis.call('ZADD', KEYS[3], unpack(leases))
return { ids, redis.call('HMGET', KEYS[1], unpack(ids)) }
"""

DONE = b"""
local results, ended = {}, {}
for n = 2, #ARGV do
  results[#results + 1] = ARGV[n]
  results[#results + 1] = '"sent"'
  ended[#ended + 1] = ARGV[1]
  ended[#ended + 1] = ARGV[n]
end
redis.call('ZREM', KEYS[2], unpack(ARGV, 2))
redis.call('HSET', KEYS[3], unpack(results))
redis.call('ZADD', KEYS[4], unpack(ended))
"""


async def _handler(payload: bytes) -> str:
    return "sent"


async def drain(url: str, concurrency: int) -> None:
    """A worker with no guarantee but a lease: claims and finishes in batches, one pipeline a turn."""
    client = Redis.from_url(url, socket_timeout=None)  # it may be paused in the middle of a call
    take, done = await client.script_load(TAKE), await client.script_load(DONE)
    print("ready", flush=True)
    finished: list[bytes] = []
    while True:
        pipe: Any = client.pipeline(transaction=False)
        now = str(time.time())
        if finished:
            pipe.evalsha(done, 4, JOBS, LEASES, RESULTS, ENDED, now, *finished)
        pipe.evalsha(take, 3, JOBS, READY, LEASES, concurrency, now)
        finished, payloads = (await pipe.execute())[-1]
        if not finished:
            await asyncio.sleep(0.002)
        await asyncio.gather(*[asyncio.create_task(_handler(payload)) for payload in payloads])


async def latency(url: str) -> None:
    """Waits on a list, and notes how long ago what comes out of it was put there."""
    client = Redis.from_url(url, socket_timeout=None)
    print("ready", flush=True)
    while True:
        found: Any = await client.blpop([SENT], timeout=0)
        await client.rpush(TOOK, time.monotonic_ns() - int(found[1]))


DOCUMENT = b'{"id":"bench:019a","state":"ready","pad":"%b"}' % (b"x" * 600)


async def http(port: int) -> None:
    """Reads a request's body and answers a fixed document of a job's size."""

    async def post(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=DOCUMENT, status=201, content_type="application/json")

    site = web.Application()
    site.router.add_post("/v1/jobs", post)
    runner = web.AppRunner(site, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    what, where, *more = sys.argv[1:]
    if what == "drain":
        run(drain(where, int(more[0])))
    elif what == "latency":
        run(latency(where))
    else:
        run(http(int(where)))

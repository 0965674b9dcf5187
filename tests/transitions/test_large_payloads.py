"""Large payloads and results stand apart from their heads: a script that needs a head reads no payload."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.keys import Keys
from scheduler.outcomes import Ack
from scheduler.scripts import script
from scheduler.store import Store
from tests.helpers import QUEUE, WORKER, claimed, enqueued, keys, take

JOBS, LARGE = 40, 65_536
PAYLOAD = b"[%s]" % (b"x" * LARGE)
COUNTING = """
local server, read = redis, 0
local function size(value)
  if type(value) == "string" then return #value end
  if type(value) ~= "table" then return 8 end
  local sum = 0
  for _, part in pairs(value) do sum = sum + size(part) end
  return sum
end
local redis = { error_reply = server.error_reply, status_reply = server.status_reply, call = function(...)
  local value = server.call(...)
  read = read + size(value)
  return value
end }
local function run()
%s
end
local reply = run()
return { read, reply }
"""
IDS = [f"k{n}" for n in range(JOBS)]


async def read_by(store: Store, name: str, *args: object) -> tuple[int, Any]:
    """The bytes that one call of a script reads out of the database, and its reply."""
    its = script(name)
    with_now = [store._stamp(), *args] if "now" in its.args else list(args)
    sent = [arg if isinstance(arg, bytes) else str(arg) for arg in with_now]
    names = Keys("scheduler", QUEUE).all(its.keys)
    reply: Any = await store.clients.commands.eval(COUNTING % its.text, len(names), *names, *sent)
    return reply[0], reply[1]


async def jobs_in(store: Store, state: str) -> list[int]:
    """Forty jobs with a large payload each in this state, in a queue with lanes; the tokens of those that run."""
    fields: dict[str, Any] = {"delay_ms": 60_000} if state == "scheduled" else {}
    await enqueued(store, *IDS, payload=PAYLOAD, group="g", tags=("x",), **fields)
    if state in ("ready", "scheduled"):
        return []
    jobs: list[Any] = []
    while len(jobs) < JOBS:
        jobs += await take(store, count=JOBS)
    tokens = [job.token for job in sorted(jobs, key=lambda job: IDS.index(job.key))]
    if state == "succeeded":
        results = [Ack(key, token, PAYLOAD) for key, token in zip(IDS, tokens, strict=True)]
        assert ["succeeded"] * JOBS == await store.ack(QUEUE, results, worker=WORKER)
    elif state == "dead":
        items = [
            part for key, token in zip(IDS, tokens, strict=True) for part in (key, token, "E", "m", "", "")
        ]
        await read_by(store, "bury", WORKER, JOBS, *items)
    return tokens


def each(tokens: list[int], *rest: object) -> list[object]:
    return [part for key, token in zip(IDS, tokens, strict=True) for part in (key, token, *rest)]


CALLS: dict[str, tuple[str, Any]] = {
    "ack": ("running", lambda t: [WORKER, JOBS, *each(t, "1")]),
    "nack": ("running", lambda t: [WORKER, 1, JOBS, *each(t, "E", "m", "", "", "")]),
    "bury": ("running", lambda t: [WORKER, JOBS, *each(t, "E", "m", "", "")]),
    "release": ("running", lambda t: [WORKER, "", JOBS, *each(t, "", "")]),
    "release no_handler": ("running", lambda t: [WORKER, 0, JOBS, *each(t, "", "no_handler")]),
    "extend": ("running", lambda t: ["", JOBS, *each(t)]),
    "cancel": ("ready", lambda _: ["", "", JOBS, *IDS]),
    "cancel scheduled": ("scheduled", lambda _: ["", "", JOBS, *IDS]),
    "promote": ("scheduled", lambda _: ["", "", JOBS, *IDS]),
    "replay": ("dead", lambda _: ["", "", JOBS, 0]),
    "replay ids": ("dead", lambda _: ["", "", "", JOBS, *[p for key in IDS for p in (key, "", "")]]),
    "list": ("ready", lambda _: ["ready", "", 100, 2000, "send", "", "x", "", "", "", ""]),
    "inspect": ("succeeded", lambda _: ["", JOBS, *IDS]),
    "explain": ("ready", lambda _: [JOBS, *IDS]),
    "update": ("ready", lambda _: [JOBS, *[p for key in IDS for p in (key, 5, "", "", "", "", "", "")]]),
    "purge": ("ready", lambda _: ["", "", "", "", JOBS, *IDS]),
    "purge succeeded": ("succeeded", lambda _: ["", "succeeded", "", JOBS, 0]),
    "purge dead": ("dead", lambda _: ["", "dead", "", JOBS, 0]),
    "verify jobs": ("ready", lambda _: ["jobs", 0, 500, ""]),
    "verify results": ("succeeded", lambda _: ["results", 0, 500, ""]),
    "verify lanes": ("ready", lambda _: ["lanes", 0, 500, ""]),
    "verify bytes": ("ready", lambda _: ["bytes", 0, 500, ""]),
    "enqueue": ("ready", lambda _: [JOBS, *[p for key in IDS for p in (key, "send", "{}", *[""] * 9)]]),
    "census": ("ready", lambda _: []),
    "demand": ("ready", lambda _: []),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
async def test_a_head_is_read_without_its_payload(name, store):
    state, args = CALLS[name]
    tokens = await jobs_in(store, state)

    read, _ = await read_by(store, name.split()[0], *args(tokens))

    # One single payload read would be more.
    assert read < LARGE, (name, read)


async def test_a_lapsed_lease_and_a_call_that_asks_for_payloads(store, clock):
    await jobs_in(store, "running")
    await store.reclaim(QUEUE)
    clock.advance(60)
    await store.reclaim(QUEUE)
    clock.advance(60)

    read, reply = await read_by(store, "reclaim", WORKER, 1, JOBS, "", "", "")

    assert (JOBS, True) == (reply[0], read < LARGE), read
    # The count sees what is read: with their payloads these jobs are as large as they are.
    read, _ = await read_by(store, "inspect", "payload", JOBS, *IDS)
    assert read > JOBS * LARGE


async def test_large_payloads_and_results_are_stored_apart_and_go_with_their_job(store, redis):
    job = await claimed(store, "a", payload=PAYLOAD)
    assert job.record is not None
    assert PAYLOAD == job.record.payload
    await store.ack(QUEUE, [Ack("a", job.token, PAYLOAD)], worker=WORKER)

    [found] = await store.inspect(QUEUE, ["a"], payload=True, result=True)
    assert (PAYLOAD, PAYLOAD) == (found.payload, found.result)
    assert {b"a", b"a:result"} == set(await redis.hkeys(keys().at("bodies")))
    assert await redis.hstrlen(keys().at("jobs"), "a") < 200
    await store.purge(QUEUE, ["a"])
    assert 0 == await redis.exists(keys().at("bodies"))


async def test_a_payload_that_becomes_small_leaves_nothing_apart(store, redis):
    await enqueued(store, "a", payload=PAYLOAD)
    for payload in (b'"small"', PAYLOAD + b" ", b"1"):
        assert "ready" == await store.update(QUEUE, "a", payload=payload)
        [found] = await store.inspect(QUEUE, ["a"], payload=True)
        assert payload == found.payload
        assert (len(payload) > 4096) == bool(await redis.hexists(keys().at("bodies"), "a"))


async def test_a_job_that_lost_its_payload_is_found_and_buried(store, redis):
    await enqueued(store, "a", payload=PAYLOAD)
    await redis.unlink(keys().at("bodies"))
    left = await redis.hstrlen(keys().at("jobs"), "a")
    await redis.hset(keys().at("counters"), "bytes_unfinished", left)
    reply = await read_by(store, "verify", "jobs", 0, 100, "")
    assert b"has lost its payload" in reply[1]

    assert [] == await take(store)
    [found] = await store.inspect(QUEUE, ["a"])
    assert ("dead", "corrupt") == (found.state, found.reason)

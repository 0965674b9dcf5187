"""Asks the server, before anything runs, whether this user may send every command that the scripts will send."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import uuid4

import redis.asyncio as aioredis
from redis.exceptions import NoPermissionError, OutOfMemoryError, ResponseError

from .errors import StoreRefused
from .keys import (
    QUEUE_KEYS,
    SCHEDULES,
    Keys,
    declared_key,
    layout_key,
    operations_key,
    queues_key,
    request_keys,
    schedule_queues_key,
    schemas_key,
    worker_key,
    workers_key,
)
from .scripts import all_scripts

# A valid form of each command that a script sends: what ACL checks is told the whole command.
FORMS: dict[str, tuple[str, ...]] = {
    "HDEL": ("k", "f"), "HEXISTS": ("k", "f"), "HGET": ("k", "f"), "HGETALL": ("k",), "HLEN": ("k",),
    "HMGET": ("k", "f"), "HSCAN": ("k", "0"), "HSET": ("k", "f", "v"), "HSETNX": ("k", "f", "v"), "HSTRLEN": ("k", "f"),
    "LLEN": ("k",), "LTRIM": ("k", "0", "0"), "RPUSH": ("k", "v"), "TIME": (), "UNLINK": ("k",), "XADD": ("k", "*", "f", "v"), "XLEN": ("k",), "XREVRANGE": ("k", "+", "-"),
    "ZADD": ("k", "0", "m"), "ZCARD": ("k",), "ZCOUNT": ("k", "0", "0"), "ZLEXCOUNT": ("k", "-", "+"), "ZMSCORE": ("k", "m"),
    "ZRANGE": ("k", "0", "0"), "ZRANGEBYLEX": ("k", "-", "+"), "ZRANGEBYSCORE": ("k", "0", "0"), "ZRANK": ("k", "m"), "ZREM": ("k", "m"),
    "ZREMRANGEBYLEX": ("k", "-", "+"), "ZREMRANGEBYRANK": ("k", "0", "0"), "ZREVRANGEBYLEX": ("k", "+", "-"), "ZREVRANGEBYSCORE": ("k", "0", "0"),
    "ZSCAN": ("k", "0"), "ZSCORE": ("k", "m"),
}  # fmt: skip

# What the process itself sends besides, on the queue's keys, on the namespace's, and on the lists and streams that
# wake its own blocked connections.
OWN: tuple[tuple[str, ...], ...] = (
    ("BLPOP", "k", "w", "0"), ("XREAD", "COUNT", "1", "STREAMS", "k", "w", "0", "0"), ("XREVRANGE", "k", "+", "-"),
    ("RPUSH", "w", "v"), ("XADD", "w", "*", "f", "v"), ("PEXPIRE", "w", "1"), ("SADD", "s", "m"), ("SREM", "s", "m"), ("SMEMBERS", "s"),
    ("SADD", "hs", "m"), ("SMEMBERS", "hs"), ("SADD", "qs", "m"), ("SREM", "qs", "m"), ("SMEMBERS", "qs"), ("SADD", "ds", "m"), ("SREM", "ds", "m"), ("SMEMBERS", "ds"), ("HMGET", "so", "f"), ("HSET", "so", "f", "v"), ("HDEL", "so", "f"), ("ZADD", "sn", "0", "m"), ("ZREM", "sn", "m"), ("ZRANGEBYLEX", "sn", "-", "+"), ("SADD", "os", "m"), ("SREM", "os", "m"), ("SMEMBERS", "os"), ("HGET", "k", "f"), ("HGETALL", "k"),
    ("SADD", "ws", "m"), ("SREM", "ws", "m"), ("SMEMBERS", "ws"), ("HSET", "wk", "f", "v"), ("HSETNX", "wk", "f", "v"), ("HGETALL", "wk"),
    *((*form[:1], key, *form[1:]) for key in ("rk", "ra") for form in (("SET", "v", "NX", "PX", "1"), ("GET",), ("UNLINK",))),
    ("PTTL", "wk"), ("PEXPIRE", "wk", "1"), ("UNLINK", "wk"), ("TIME",), ("SET", "l", "1", "NX"), ("GET", "l"), ("SCAN", "0"), ("SCRIPT", "LOAD", "return 1"), ("EVALSHA", "0" * 40, "0"),
    ("EVAL", "return 1", "0"), ("INFO",), ("PING",),
)  # fmt: skip

_CHECK = """
local refused = {}
local at = 1
while at <= #ARGV do
  local width = tonumber(ARGV[at])
  if not redis.acl_check_cmd(unpack(ARGV, at + 1, at + width)) then
    refused[#refused + 1] = ARGV[at + 1] .. (width > 1 and " " .. ARGV[at + 2] or "")
  end
  at = at + width + 1
end
return refused
"""


def wanted(keys: Keys) -> list[tuple[str, ...]]:
    """Every command in a valid form, on a key of this queue; then a read and a write on each of its keys."""
    commands = sorted(set().union(*(script.commands for script in all_scripts().values())))
    names = {
        "k": keys.at("jobs"),
        "s": queues_key(keys.namespace),
        "hs": schemas_key(keys.namespace),
        "qs": schedule_queues_key(keys.namespace),
        "ds": declared_key(keys.namespace),
        "so": Keys(keys.namespace, SCHEDULES).at("owners"),
        "sn": Keys(keys.namespace, SCHEDULES).at("names"),
        "os": operations_key(keys.namespace),
        "ws": workers_key(keys.namespace),
        "wk": worker_key(keys.namespace, "w"),
        "rk": request_keys(keys.namespace, keys.queue)[0],
        "ra": request_keys(keys.namespace, keys.queue)[1],
        "l": layout_key(keys.namespace),
        "w": f"{{{keys.namespace}}}:wake:{uuid4().hex}",
    }
    forms: list[tuple[str, ...]] = [(command, *FORMS[command]) for command in commands]
    forms += OWN
    asked = [tuple(names.get(word, word) for word in form) for form in forms]
    for key in QUEUE_KEYS:
        at = keys.at(key.suffix)
        asked += [("HGET", at, "f"), ("HSET", at, "f", "v")]
    return asked


async def check_rights(client: aioredis.Redis, keys: Keys) -> None:
    """Raises StoreRefused that names every command and key this user may not use.

    Servers from Redis 7 on are asked by `redis.acl_check_cmd` in a script; older ones, and the fake, know nothing
    like it: there every refusal shows with the first call, before its first write.
    """
    asked = wanted(keys)
    arguments = [word for form in asked for word in (str(len(form)), *form)]
    try:
        sha = await client.script_load(_CHECK)
        try:
            # The script reads no key. Some managed servers refuse a script that names none.
            refused = await client.evalsha(sha, 1, layout_key(keys.namespace), *arguments)
        except NoPermissionError:
            refused = await client.evalsha(
                sha, 0, *arguments
            )  # names this key with all others that are missing
    except NoPermissionError as error:
        raise StoreRefused(f"the Redis user lacks rights: {error}") from error
    except ResponseError as error:
        if "acl_check_cmd" in str(error):
            return
        raise
    if refused:
        named = ", ".join(_without_lost_keys(_readable(refused), asked, keys.namespace))
        raise StoreRefused(f"the Redis user lacks rights: {named}")


def _without_lost_keys(refused: list[str], asked: Iterable[tuple[str, ...]], namespace: str) -> list[str]:
    """What is refused; where that is every command on a key of the namespace, one word for all of them."""
    start = f"{{{namespace}"
    on_keys = {" ".join(form[:2]) for form in asked if len(form) > 1 and form[1].startswith(start)}
    if not on_keys <= set(refused):
        return refused
    return [
        f"every command on its keys, those like {start}*",
        *(name for name in refused if name not in on_keys),
    ]


def _readable(refused: Iterable[bytes]) -> list[str]:
    return sorted({item.decode(errors="replace").strip() for item in refused})


async def check_layout(client: aioredis.Redis, namespace: str, layout: int) -> None:
    """Writes the layout number where there is none; raises StoreRefused for one that is not ours."""
    key = layout_key(namespace)
    try:
        await client.set(key, str(layout), nx=True)
        found = await client.get(key)
    except NoPermissionError as error:
        raise StoreRefused(f"the Redis user lacks rights on {key}: {error}") from error
    except OutOfMemoryError:
        # A full server takes no new key, and a worker that starts must drain it all the same.
        found = await client.get(key) or str(layout).encode()
    if found != str(layout).encode():
        shown = found.decode(errors="replace") if isinstance(found, bytes) else str(found)
        raise StoreRefused(
            f"{key} says layout {shown}, this release knows layout {layout}: use the release that wrote it, or another SCHEDULER_NAMESPACE"
        )

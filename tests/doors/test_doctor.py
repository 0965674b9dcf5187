"""`scheduler doctor`: what can lose jobs or stop workers fails, what is unwise is told, and each with its cure."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from click.testing import CliRunner

from scheduler.cli import cli
from scheduler.diagnosis import Finding, Seen, examine, judge, reach
from scheduler.errors import SchedulerError, StoreRefused
from scheduler.keys import LAYOUT
from scheduler.store import Store
from tests.conftest import Servers
from tests.helpers import enqueued, on_real_servers

SOUND: dict[str, Any] = {
    "redis_version": "7.2.11", "role": "master", "maxmemory_policy": "noeviction", "maxmemory": 100 << 20,
    "used_memory": 1 << 20, "aof_enabled": 1, "aof_last_write_status": "ok", "rdb_last_bgsave_status": "ok",
    "maxclients": 10_000, "connected_clients": 3,
}  # fmt: skip
ALWAYS: dict[str, str | None] = {"appendonly": "yes", "appendfsync": "always", "save": ""}
REFUSED: dict[str, str | None] = dict.fromkeys(["appendonly", "appendfsync", "save", "maxmemory-policy"])


def said(
    info: dict[str, Any] | None = None, config: dict[str, Any] | None = None, **more: Any
) -> list[Finding]:
    return judge(Seen(info=SOUND | (info or {}), config=ALWAYS | (config or {}), **more))


def those(found: list[Finding], *statuses: str) -> dict[str, str]:
    return {finding.check: finding.status for finding in found if finding.status in statuses}


def test_a_sound_server_has_nothing_to_mend():
    assert {} == those(said(), "warn", "fail")


@pytest.mark.parametrize(
    ("expected", "info", "config", "more"),
    [
        ({"eviction": "fail"}, {}, {"maxmemory-policy": "allkeys-lru"}, {}),
        ({"eviction": "fail"}, {"maxmemory_policy": "volatile-ttl"}, {}, {}),
        ({"append-only file": "fail"}, {}, {"appendonly": "no"}, {}),
        ({"append-only file": "fail"}, {"aof_last_write_status": "err"}, {}, {}),
        ({"append-only file": "warn"}, {"aof_last_bgrewrite_status": "err"}, {}, {}),
        ({"fsync": "fail"}, {}, {"appendfsync": "no"}, {}),
        ({"fsync": "fail"}, {}, {"appendfsync": "everysec"}, {}),
        ({}, {}, {"appendfsync": "everysec"}, {"durability": "standard"}),
        ({"role": "fail"}, {"role": "slave", "master_host": "a", "master_port": 1}, {}, {}),
        ({"role": "fail"}, {"cluster_enabled": 1}, {}, {}),
        ({"snapshot": "fail"}, {"rdb_last_bgsave_status": "err"}, {"save": "3600 1"}, {}),
        ({"snapshot": "warn"}, {"rdb_last_bgsave_status": "err"}, {"save": "3600 1", "stop-writes-on-bgsave-error": "no"}, {}),
        ({}, {"rdb_last_bgsave_status": "err"}, {}, {}),
        ({"version": "fail"}, {"redis_version": "6.0.16"}, {}, {}),
        ({"version": "warn"}, {"redis_version": "6.2.19"}, {}, {}),
        ({"version": "warn"}, {"redis_version": "7.0.15"}, {}, {}),
        ({}, {"redis_version": "6.2.20"}, {}, {}),
        ({}, {"redis_version": "7.2.4", "valkey_version": "9.1.2"}, {}, {}),
        ({"version": "warn"}, {"redis_version": "7.2.4", "valkey_version": "8.0.5"}, {}, {}),
        ({"version": "warn"}, {"redis_version": "unstable"}, {}, {}),
        ({"memory": "warn"}, {"used_memory": 95 << 20}, {}, {}),
        ({}, {"used_memory": 95 << 20, "maxmemory": 0}, {}, {}),
        ({"connections": "warn"}, {"connected_clients": 9_500}, {}, {}),
        ({"loading": "warn"}, {"loading": 1}, {}, {}),
        ({"disk": "warn"}, {}, {}, {"disk_free": 1 << 20}),
        ({"rights": "fail"}, {}, {}, {"lacking": "the Redis user lacks rights: ZREM"}),
        ({"scripts": "fail"}, {}, {}, {"failed": "READONLY"}),
        ({"layout": "fail"}, {}, {}, {"layout": str(LAYOUT + 1)}),
        ({"distance": "warn"}, {}, {}, {"round_trip_ms": 30.0}),
        ({"clock": "warn"}, {}, {}, {"skew_s": -60.0}),
        ({"workers": "warn"}, {}, {}, {"unserved": {"mail": 3}}),
    ],
)  # fmt: skip
def test_what_is_wrong_is_judged_by_what_it_does_to_jobs(expected, info, config, more):
    found = said(info, config, **more)

    assert expected == those(found, "warn", "fail")
    assert all(finding.cure for finding in found if finding.status != "ok")


def test_a_server_that_refuses_config_is_judged_by_what_it_tells_besides():
    found = said(config=REFUSED)

    assert {"fsync": "warn"} == those(found, "warn", "fail")
    assert {"eviction": "fail", "fsync": "warn"} == those(
        said({"maxmemory_policy": "allkeys-lru"}, REFUSED), "warn", "fail"
    )
    silent = judge(Seen(info={"redis_version": "7.2.11", "role": "master"}, config=REFUSED))
    assert {"eviction": "warn", "append-only file": "warn"} == those(silent, "warn", "fail")


@pytest.fixture
async def set_back(redis: Any) -> AsyncIterator[None]:
    yield
    await redis.config_set("maxmemory-policy", "noeviction")
    for user in ("managed", "poor", "blind"):
        await redis.execute_command("ACL", "DELUSER", user)


async def examined(servers: Servers, backend: str, user: str = "") -> dict[str, Finding]:
    """What is found by a user of the server, on connections of its own."""
    store = Store(await servers.open(backend, user=user))
    try:
        return {f.check: f for f in await examine(store, await reach(store), durability="strict")}
    finally:
        await store.close()


@on_real_servers
async def test_a_server_as_it_is_installed_keeps_no_jobs(servers, backend, store):
    await enqueued(store, "a")

    found = await examined(servers, backend)

    assert {"append-only file": "fail", "workers": "warn"} == {
        name: finding.status
        for name, finding in found.items()
        if finding.status != "ok" and name != "version"
    }
    assert "mail (1 ready)" in found["workers"].message


@on_real_servers
async def test_users_of_few_rights_are_told_what_they_lack(servers, backend, store, redis, set_back):
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    for user, rights in {"managed": "-config", "poor": "-zrem -time", "blind": "-info"}.items():
        await redis.execute_command("ACL", "SETUSER", user, "on", ">pw", "~*", "&*", "+@all", *rights.split())

    managed = await examined(servers, backend, "managed:pw@")
    poor = await examined(servers, backend, "poor:pw@")

    assert ("fail", "ok") == (managed["eviction"].status, managed["rights"].status)
    assert (
        "lacks rights: TIME, ZREM {scheduler:=schedules}:names, ZREM {scheduler:default}:jobs"
        in poor["rights"].message
    )
    assert "fail" == poor["scripts"].status
    with pytest.raises(StoreRefused, match="info"):
        await examined(servers, backend, "blind:pw@")


def test_the_command_fails_when_jobs_can_be_lost_and_says_what_to_do(servers):
    async def emptied() -> None:
        clients = await servers.open("valkey")
        await clients.commands.flushall()
        await clients.close()

    asyncio.run(emptied())
    url = servers.url("valkey")

    done = CliRunner().invoke(cli, ["doctor", "--redis-url", url, "--json"])
    document = json.loads(done.stdout)
    lines = CliRunner().invoke(cli, ["doctor", "--redis-url", url]).stdout.splitlines()

    assert (1, False) == (done.exit_code, document["ok"])
    [failed] = [item for item in document["items"] if item["status"] == "fail"]
    assert ("append-only file", True) == (failed["check"], "CONFIG SET appendonly yes" in failed["cure"])
    assert len(document["items"]) == len(lines)
    assert ["fail  append-only file   there is none"] == [
        line[:38] for line in lines if line.startswith("fail")
    ]


def test_a_server_that_nobody_else_sees_cannot_be_examined():
    done = CliRunner().invoke(cli, ["doctor", "--redis-url", "memory://"])

    assert isinstance(done.exception, SchedulerError)
    assert "inside one process" in str(done.exception)

"""What of a server can lose jobs or stop workers: asked, judged, and told with what to do. No job is touched.

Judging is apart from asking, and knows only what a server said: a managed one that refuses CONFIG, an old one that
knows no ACL questions and one that is half up are cases like others.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

from redis import exceptions as redis_errors

from .clients import is_outage
from .errors import SchedulerError, StoreRefused
from .keys import LAYOUT, Keys, layout_key
from .presence import Presence
from .rights import check_rights
from .scheduling import Schedules
from .store import Store

T = TypeVar("T")

OLDEST = (6, 2)
"""The oldest server whose scripts and commands are those that are used here."""

MENDED = {
    "redis": {(6, 2): 20, (7, 2): 11, (7, 4): 6, (8, 0): 4, (8, 2): 2},
    "valkey": {(7, 2): 11, (8, 0): 6, (8, 1): 4},
}
"""From which patch release on a line has no known hole in its Lua engine (CVE-2025-49844 and its sisters)."""

SLOW_MS = 10.0
SKEW_S = 5.0
FULL = 0.9
SCARCE = 512 << 20
"""Bytes of disk below which a file that grows is a worry."""

WANTED = ("maxmemory-policy", "appendonly", "appendfsync", "stop-writes-on-bgsave-error", "save")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `status` is ok, warn or fail; `cure` says what to do unless it is ok."""

    check: str
    status: str
    message: str
    cure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a server said. None: it does not tell."""

    info: Mapping[str, Any]
    config: Mapping[str, str | None]
    durability: str = "strict"
    disk_free: int | None = None
    """Bytes, of the embedded server's disk."""
    round_trip_ms: float = 0.0
    skew_s: float = 0.0
    layout: str | None = None
    lacking: str | None = None
    """What check_rights says of this user."""
    rights_unknown: str | None = None
    """Why check_rights could not be answered, although the server could be reached."""
    failed: str | None = None
    """Why a script of ours could not run."""
    unserved: Mapping[str, int] = field(default_factory=dict)
    """Queues without a worker, and how many jobs are ready there."""
    queues_unknown: str | None = None
    sick_schedules: Sequence[str] = ()
    """Schedules that this process cannot work out, each with the reason."""


def judge(seen: Seen) -> list[Finding]:
    """Everything that was looked at, in an order that tells the cause before its effects."""
    return [finding for look in _LOOKS for finding in look(seen)]


def _version(seen: Seen) -> Iterator[Finding]:
    info = seen.info
    name = "valkey" if "valkey_version" in info else str(info.get("server_name") or "redis")
    text = str(info.get("valkey_version") or info.get("redis_version") or "")
    try:
        major, minor, patch = (int(part) for part in text.split(".")[:3])
    except ValueError:
        yield Finding(
            "version",
            "warn",
            f"{name} {text or 'does not tell its version'}",
            "See that it is Redis 6.2 or newer.",
        )
        return
    line = major, minor
    if line < OLDEST:
        yield Finding("version", "fail", f"{name} {text} is too old", "Use Redis 6.2 or newer, or Valkey.")
        return
    lines = MENDED.get(name, {})
    if patch < lines.get(line, 0) or (name == "redis" and OLDEST < line < (7, 2)):
        mended = f"{line[0]}.{line[1]}.{lines[line]}" if line in lines else "7.2.11"
        yield Finding(
            "version", "warn", f"{name} {text} has known holes in its Lua engine (CVE-2025-49844), unless its packager mended them",
            f"Update to {mended} or newer; keep those away who may run scripts of their own.",
        )  # fmt: skip
        return
    yield Finding("version", "ok", f"{name} {text}")


def _role(seen: Seen) -> Iterator[Finding]:
    role = str(seen.info.get("role") or "")
    if role in {"slave", "replica"}:
        master = f"{seen.info.get('master_host', '?')}:{seen.info.get('master_port', '?')}"
        yield Finding(
            "role", "fail", f"it is a replica of {master}, and takes no writes", "Set SCHEDULER_REDIS_URL to the primary, or to a name that follows it."
        )  # fmt: skip
    elif str(seen.info.get("cluster_enabled") or "0") == "1":
        yield Finding(
            "role",
            "fail",
            "it is a node of a cluster",
            "Clusters come with a later release: use a single server.",
        )
    else:
        yield Finding("role", "ok", role or "not told")


def _eviction(seen: Seen) -> Iterator[Finding]:
    policy = seen.config.get("maxmemory-policy") or seen.info.get("maxmemory_policy")
    if policy is None:
        yield Finding(
            "eviction", "warn", "the server does not tell its eviction policy", "See that maxmemory-policy is noeviction."
        )  # fmt: skip
    elif policy != "noeviction":
        yield Finding(
            "eviction", "fail", f"maxmemory-policy is {policy}: a full server throws jobs away",
            "Set maxmemory-policy to noeviction (CONFIG SET maxmemory-policy noeviction, and in its configuration).",
        )  # fmt: skip
    else:
        yield Finding("eviction", "ok", "noeviction")


def _memory(seen: Seen) -> Iterator[Finding]:
    most, used = int(seen.info.get("maxmemory") or 0), int(seen.info.get("used_memory") or 0)
    if most and used > FULL * most:
        yield Finding(
            "memory", "warn", f"{used / most:.0%} of maxmemory are used: a full server refuses new jobs",
            "Give it more memory, keep ended jobs for less long, or let workers catch up.",
        )  # fmt: skip
    else:
        yield Finding(
            "memory", "ok", f"{used >> 20} MiB used" + (f" of {most >> 20}" if most else ", no maxmemory")
        )


def _file(seen: Seen) -> Iterator[Finding]:
    said = seen.config.get("appendonly")
    enabled = said if said is not None else {"1": "yes", "0": "no"}.get(str(seen.info.get("aof_enabled")))
    if enabled is None:
        yield Finding(
            "append-only file", "warn", "the server does not tell whether it writes one",
            "See that it does (appendonly yes): without it a restart loses jobs.",
        )  # fmt: skip
        return
    if enabled != "yes":
        yield Finding(
            "append-only file", "fail", "there is none: a crash loses every job since the last snapshot",
            "Set appendonly to yes (CONFIG SET appendonly yes, and in its configuration).",
        )  # fmt: skip
        return
    if seen.info.get("aof_last_write_status", "ok") != "ok":
        yield Finding(
            "append-only file", "fail", "its last write failed: the server refuses writes", "Look at the server's log; free its disk."
        )  # fmt: skip
        return
    if seen.info.get("aof_last_bgrewrite_status", "ok") != "ok":
        yield Finding(
            "append-only file", "warn", "its last rewrite failed: it grows without end", "Look at the server's log; free its disk or memory."
        )  # fmt: skip
    else:
        yield Finding("append-only file", "ok", "written")
    yield from _fsync(seen)


def _fsync(seen: Seen) -> Iterator[Finding]:
    fsync = seen.config.get("appendfsync")
    if fsync is None:
        yield Finding(
            "fsync", "warn", "the server does not tell when its file reaches the disk",
            "Ask who runs it: appendfsync always loses nothing, everysec two seconds, no half a minute.",
        )  # fmt: skip
    elif fsync == "no":
        yield Finding(
            "fsync", "fail", "appendfsync is no: a crash of the machine may lose half a minute of jobs",
            "Set appendfsync to always, or to everysec with SCHEDULER_DURABILITY=standard.",
        )  # fmt: skip
    elif fsync == "everysec" and seen.durability == "strict":
        yield Finding(
            "fsync", "fail", "appendfsync is everysec: a crash may lose two seconds of jobs, and SCHEDULER_DURABILITY is strict",
            "Set appendfsync to always, or SCHEDULER_DURABILITY to standard when two seconds may be lost.",
        )  # fmt: skip
    else:
        yield Finding("fsync", "ok", fsync)


def _disk(seen: Seen) -> Iterator[Finding]:
    if seen.disk_free is not None and seen.disk_free < SCARCE:
        yield Finding(
            "disk", "warn", f"{seen.disk_free >> 20} MiB are free: without room the server refuses writes", "Free some, or work in another folder."
        )  # fmt: skip


def _snapshots(seen: Seen) -> Iterator[Finding]:
    if seen.info.get("rdb_last_bgsave_status", "ok") == "ok" or seen.config.get("save") == "":
        return
    if seen.config.get("stop-writes-on-bgsave-error") == "no":
        yield Finding(
            "snapshot", "warn", "the last one failed", "Look at the server's log; free its disk or memory."
        )
    else:
        yield Finding(
            "snapshot", "fail", "the last one failed, and the server refuses writes until one succeeds",
            "Look at the server's log and free its disk or memory, or set save to nothing: the append-only file keeps the jobs.",
        )  # fmt: skip


def _loading(seen: Seen) -> Iterator[Finding]:
    if str(seen.info.get("loading") or "0") != "0":
        yield Finding(
            "loading",
            "warn",
            "it is still reading its file, and answers nothing until then",
            "Wait, then look again.",
        )


def _clients(seen: Seen) -> Iterator[Finding]:
    most, there = int(seen.info.get("maxclients") or 0), int(seen.info.get("connected_clients") or 0)
    if most and there > FULL * most:
        yield Finding(
            "connections", "warn", f"{there} of {most} are taken: the next worker may not get in", "Raise maxclients, or find who keeps so many."
        )  # fmt: skip


def _rights(seen: Seen) -> Iterator[Finding]:
    if seen.lacking:
        yield Finding(
            "rights", "fail", seen.lacking, "Give them to the user of SCHEDULER_REDIS_URL (ACL SETUSER)."
        )  # fmt: skip
    elif seen.rights_unknown:
        yield Finding(
            "rights", "warn", f"cannot be asked: {seen.rights_unknown}",
            "The server refuses the question itself, whoever asks: see what it refuses, and whether scripts run there (below).",
        )  # fmt: skip
    elif _is_old(seen):
        yield Finding(
            "rights", "ok", "not asked: a server before Redis 7 says so only when a command is refused"
        )
    else:
        yield Finding("rights", "ok", "every command and key that is used")


def _is_old(seen: Seen) -> bool:
    text = str(seen.info.get("redis_version") or "")
    return text.split(".", maxsplit=1)[0].isdigit() and int(text.split(".", maxsplit=1)[0]) < 7


def _scripts(seen: Seen) -> Iterator[Finding]:
    if seen.layout not in {None, str(LAYOUT)}:
        yield Finding(
            "layout", "fail", f"the data has layout {seen.layout}, this release knows layout {LAYOUT}",
            "Use the release that wrote it, or another SCHEDULER_NAMESPACE.",
        )  # fmt: skip
    if seen.failed:
        yield Finding(
            "scripts",
            "fail",
            f"one of ours does not run: {seen.failed}",
            "Mend what stands above, then look again.",
        )
    else:
        yield Finding("scripts", "ok", "loaded, and one has just run")


def _distance(seen: Seen) -> Iterator[Finding]:
    if seen.round_trip_ms > SLOW_MS:
        yield Finding(
            "distance", "warn", f"an answer takes {seen.round_trip_ms:.1f} ms", "Run workers nearer to their server; raise --concurrency until then."
        )  # fmt: skip
    else:
        yield Finding("distance", "ok", f"an answer takes {seen.round_trip_ms:.1f} ms")


def _clock(seen: Seen) -> Iterator[Finding]:
    if abs(seen.skew_s) > SKEW_S:
        ahead = "ahead of" if seen.skew_s > 0 else "behind"
        yield Finding(
            "clock", "warn", f"the server's is {abs(seen.skew_s):.0f} s {ahead} this machine's: times are the server's",
            "Run a time service on both; `run_at` given by this machine is late or early by that much.",
        )  # fmt: skip
    else:
        yield Finding("clock", "ok", "as this machine's")


def _queues(seen: Seen) -> Iterator[Finding]:
    if seen.queues_unknown:
        yield Finding(
            "workers", "warn", f"queues cannot be looked at: {seen.queues_unknown}", "Mend what stands above."
        )
    elif seen.unserved:
        shown = ", ".join(f"{name} ({count} ready)" for name, count in sorted(seen.unserved.items())[:10])
        yield Finding(
            "workers", "warn", f"no worker serves {shown}", "Start one: scheduler worker APP --queue …; `workers list` shows who is there."
        )  # fmt: skip
    else:
        yield Finding("workers", "ok", "every queue with ready jobs has one")


def _schedules(seen: Seen) -> Iterator[Finding]:
    if seen.sick_schedules:
        yield Finding(
            "schedules", "fail", f"do not fire: {'; '.join(seen.sick_schedules)}",
            "PUT each again, or delete it. Where a time zone is unknown: install the package tzdata where workers run.",
        )  # fmt: skip
    elif not seen.queues_unknown:
        yield Finding("schedules", "ok", "each can be worked out here")


_LOOKS = (
    _version, _loading, _role, _eviction, _memory, _file, _disk, _snapshots, _clients, _rights, _scripts, _distance, _clock, _queues,
    _schedules,
)  # fmt: skip


# -- asking ------------------------------------------------------------------------------------------------


async def reach(store: Store) -> Mapping[str, Any]:
    """What the server says about itself, asked until there is an answer. Raises StoreRefused for one who may not ask.

    A server that is still loading tells it too.
    """
    rights = redis_errors.AuthenticationError | redis_errors.NoPermissionError
    while True:
        try:
            found: Mapping[str, Any] = await store.clients.reads.info("everything")
        except Exception as error:
            if not is_outage(error):
                raise
            if isinstance(error, rights) or isinstance(error.__cause__, rights):
                raise StoreRefused(f"{store.clients.where}: {error}") from error
            await asyncio.sleep(0.2)
        else:
            return found


async def examine(
    store: Store, info: Mapping[str, Any], *, durability: str, queue: str = "default"
) -> list[Finding]:
    """Asks a server that said `info`, and judges it. What it does not answer is judged too; nothing is raised for it."""
    lacking, rights_unknown = await _lacking(store, queue)
    failed = "its user lacks rights" if lacking else None
    unserved: dict[str, int] = {}
    unknown = failed
    sick: list[str] = []
    try:
        if not lacking:
            await store.server()
            unserved = await _unserved(store)
            sick = [f"{name} ({why})" async for _, name, why in Schedules(store).troubles()]
    except SchedulerError as error:
        failed = unknown = str(error)
    round_trip, skew = await _asked(_distances(store)) or (0.0, 0.0)
    layout = await _asked(store.clients.reads.get(layout_key(store.namespace)))
    local = store.clients.local
    return judge(
        Seen(
            info=info,
            config={name: await _config(store, name) for name in WANTED},
            durability=durability,
            disk_free=None if local is None else shutil.disk_usage(local.directory).free,
            round_trip_ms=round_trip,
            skew_s=skew,
            layout=layout.decode(errors="replace") if isinstance(layout, bytes) else None,
            lacking=lacking,
            rights_unknown=rights_unknown,
            failed=failed,
            unserved=unserved,
            queues_unknown=unknown,
            sick_schedules=sick[:20],
        )
    )


async def _asked(asking: Awaitable[T]) -> T | None:
    """What the server answers; None where it refuses or is away."""
    try:
        return await asking
    except Exception as error:
        if not is_outage(error):
            raise
        return None


async def _config(store: Store, name: str) -> str | None:
    found = await _asked(store.clients.reads.config_get(name))
    return None if found is None else found.get(name)


async def _lacking(store: Store, queue: str) -> tuple[str | None, str | None]:
    """The rights that this user lacks; and why that cannot be found out, if it cannot."""
    try:
        await check_rights(store.clients.commands, Keys(store.namespace, queue))
    except StoreRefused as error:
        return str(error), None
    except Exception as error:
        if not is_outage(error):
            raise
        return None, str(error)
    return None, None


async def _unserved(store: Store) -> dict[str, int]:
    names = await store.queues()
    workers = await Presence(store).counts()
    found = await store.run_all([store.census_call(name) for name in names]) if names else []
    return {
        name: census.counts["ready"]
        for name, census in zip(names, found, strict=True)
        if census is not None
        and not isinstance(census, Exception)
        and census.counts["ready"]
        and "paused" not in census.config
        and not workers[name]
    }


async def _distances(store: Store) -> tuple[float, float]:
    """Milliseconds of a round trip, and by how many seconds the server's clock is ahead."""
    took, skew = [], 0.0
    for _ in range(5):
        begins = time.perf_counter()
        now = await store.clients.commands.time()
        took.append((time.perf_counter() - begins) * 1000)
        skew = int(now[0]) + int(now[1]) / 1e6 - time.time()
        await asyncio.sleep(0)
    return median(took), skew

"""Prints each script's server time per job, at batches of 1, 10 and 100: the table of lua/README.md.

`.venv/bin/python -m tests.bench.script_times [valkey|redis]` (server time as INFO commandstats has it: no network, no client).
"""

from __future__ import annotations

import asyncio
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from scheduler.clients import Clients, make_client
from scheduler.job import Claimed, NewJob, new_key
from scheduler.joining import Call
from scheduler.linking import Word
from scheduler.outcomes import Ack, Bury, Extend, Nack, Note, Release
from scheduler.schedule import Fire, Schedule
from scheduler.store import Store
from tests.conftest import binary, start

BATCHES = (1, 10, 100)
JOBS = {1: 300, 10: 2_000, 100: 10_000}
ROUNDS = 5
QUEUE = "bench"
PAYLOAD = (
    b'{"to": "somebody@example.com", "subject": "a payload of one hundred bytes, as peers are measured with"}'
)


class Bench:
    def __init__(self, store: Store, batch: int) -> None:
        self.store, self.batch, self.turn = store, batch, 0
        self.jobs = JOBS[batch]

    async def spent(self, work: Callable[[], Awaitable[Any]]) -> float:
        """Microseconds of script time that `work` used, per job."""
        client = self.store.clients.commands
        await client.config_resetstat()
        await work()
        stats: Any = await client.info("commandstats")
        return float(stats["cmdstat_evalsha"]["usec"]) / self.jobs

    def cut(self, items: list[Any]) -> list[list[Any]]:
        return [items[n : n + self.batch] for n in range(0, len(items), self.batch)]

    async def fill(self, **fields: Any) -> list[str]:
        keys = [new_key() for _ in range(self.jobs)]
        for batch in self.cut(keys):
            await self.store.enqueue(
                QUEUE, [NewJob(type="send", payload=PAYLOAD, queue=QUEUE, key=key, **fields) for key in batch]
            )
        return keys

    async def take(self) -> list[Claimed]:
        found: list[Claimed] = []
        while len(found) < self.jobs:
            self.turn += 1
            claim = await self.store.claim(
                QUEUE, worker="host:1234:0a1b2c3d", turn=self.turn, count=self.batch
            )
            found += claim.jobs
        return found

    async def each(self, items: list[Any], call: Callable[[list[Any]], Call[Any]]) -> None:
        for batch in self.cut(items):
            await self.store.run(call(batch))


async def measure(bench: Bench) -> dict[str, float]:
    store, found = bench.store, {}
    flush = store.clients.commands.flushdb
    await flush()

    found["enqueue"] = await bench.spent(bench.fill)
    held: list[Claimed] = []

    async def claim() -> None:
        held.extend(await bench.take())

    found["claim"] = await bench.spent(claim)
    found["extend"] = await bench.spent(
        lambda: bench.each(
            held, lambda b: store.extend_call(QUEUE, [Extend(j.key, j.token, 40_000) for j in b])
        )
    )
    found["note"] = await bench.spent(
        lambda: bench.each(
            held, lambda b: store.note_call(QUEUE, [Note(j.key, j.token, "progress", b"50") for j in b])
        )
    )
    found["ack"] = await bench.spent(
        lambda: bench.each(
            held, lambda b: store.ack_call(QUEUE, [Ack(j.key, j.token, b'"sent"') for j in b], worker="w")
        )
    )
    found["inspect"] = await bench.spent(
        lambda: bench.each([j.key for j in held], lambda b: _inspect(store, b))
    )
    found["list"] = await bench.spent(lambda: _list(store, "succeeded", bench))
    found["verify"] = await bench.spent(lambda: _verify(store))
    found["purge"] = await bench.spent(
        lambda: bench.each(
            [j.key for j in held], lambda b: Call("purge", QUEUE, ["", "", "", "", "", len(b), *b], len)
        )
    )

    items: list[Claimed] = []
    calls: list[tuple[str, Callable[[list[Any]], Call[Any]]]] = [
        (
            "nack",
            lambda b: store.nack_call(
                QUEUE, [Nack(j.key, j.token, "ValueError", "boom", "a trace") for j in b], worker="w"
            ),
        ),
        ("release", lambda b: store.release_call(QUEUE, [Release(j.key, j.token) for j in b], worker="w")),
        (
            "bury",
            lambda b: store.bury_call(
                QUEUE, [Bury(j.key, j.token, "Permanent", "no", "a trace") for j in b], worker="w"
            ),
        ),
    ]
    for verb, call in calls:
        await flush()
        await bench.fill()
        items = await bench.take()
        found[verb] = await bench.spent(partial(bench.each, items, call))
    dead = [job.key for job in items]
    found["replay"] = await bench.spent(
        lambda: bench.each(
            dead,
            lambda b: Call(
                "replay", QUEUE, ["", "", "", "", len(b), *(x for k in b for x in (k, "", ""))], len
            ),
        )
    )
    found["update"] = await bench.spent(
        lambda: bench.each(
            dead,
            lambda b: Call(
                "update", QUEUE, ["", len(b), *(x for k in b for x in (k, 3, "", "", "", "", "", ""))], len
            ),
        )
    )
    found["cancel"] = await bench.spent(
        lambda: bench.each(dead, lambda b: Call("cancel", QUEUE, ["", "", "", len(b), *b], len))
    )
    await flush()
    fires = []
    for n in range(bench.jobs):
        made = Schedule(name=f"s{n}", queue=QUEUE, type="send", every_ms=60_000, payload=PAYLOAD)
        _, version = await store.schedule_put(
            made, expect=0, next_ms=60_000, keep=False, paused=False, anchor_ms=0
        )
        fires.append(
            Fire(
                name=made.name,
                version=version,
                slot_ms=60_000,
                next_ms=120_000,
                key=made.name,
                overlap="skip",
            )
        )
    found["schedule_fire"] = await bench.spent(
        lambda: bench.each(fires, lambda b: store.schedule_fire_call(QUEUE, b))
    )
    await flush()
    await bench.fill(delay_ms=1)
    await asyncio.sleep(0.01)
    found["promote"] = await bench.spent(lambda: _until_done(lambda: store.promote(QUEUE, limit=bench.batch)))
    items = await bench.take()
    later = Store(store.clients, now=lambda: 4_000_000_000_000)
    await later.connect()
    await later.reclaim(QUEUE, limit=1)
    later._now = lambda: 4_000_000_060_000
    await later.reclaim(QUEUE, limit=1, period_ms=10**8)
    found["reclaim"] = await bench.spent(lambda: _reclaim(later, bench.batch))

    await flush()
    before = await bench.fill()
    waiting = [
        NewJob(type="send", payload=PAYLOAD, queue=QUEUE, key=new_key(), after=[f"{QUEUE}:{key}"])
        for key in before
    ]
    for some in bench.cut(waiting):
        await store.run(store.enqueue_call(QUEUE, some))
    ties = [(job.after[0].partition(":")[2], f"{QUEUE}:{job.key}") for job in waiting]
    found["follow"] = await bench.spent(lambda: bench.each(ties, lambda b: store.follow_call(QUEUE, b)))
    items = await bench.take()
    await bench.each(items, lambda b: store.ack_call(QUEUE, [Ack(j.key, j.token) for j in b], worker="w"))
    words: list[Word] = []

    async def relay() -> None:
        told: list[tuple[str, int, str]] = []
        while page := (await store.run(store.relay_call(QUEUE, told, limit=bench.batch))).words:
            words.extend(page)
            told = [(word.origin.partition(":")[2], word.order, word.id) for word in page]

    found["relay"] = await bench.spent(relay)
    found["resolve"] = await bench.spent(lambda: bench.each(words, lambda b: store.resolve_call(QUEUE, b)))
    return found


def _inspect(store: Store, keys: list[str]) -> Call[Any]:
    return Call("inspect", QUEUE, ["", "payload result", len(keys), *keys], len)


async def _list(store: Store, state: str, bench: Bench) -> None:
    after = ""
    while True:
        _, after = await store.list(QUEUE, state, after=after, limit=bench.batch)
        if not after:
            return


async def _verify(store: Store) -> None:
    async for fault in store.verify(QUEUE, structures=("jobs",)):
        raise AssertionError(fault)


async def _until_done(page: Callable[[], Awaitable[tuple[int, bool]]]) -> None:
    while (await page())[1]:
        pass


async def _reclaim(store: Store, batch: int) -> None:
    while (await store.reclaim(QUEUE, limit=batch, period_ms=10**8)).more:
        pass


BARE = b"redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])"


async def bare(store: Store) -> float:
    """Microseconds of script time of HSET and ZADD in a script of their own."""
    client = store.clients.commands
    await client.flushdb()
    sha = await client.script_load(BARE)
    await client.config_resetstat()
    for n in range(3_000):
        await client.evalsha(sha, 2, "{b}h", "{b}z", new_key(), PAYLOAD, str(n))
    stats: Any = await client.info("commandstats")
    return float(stats["cmdstat_evalsha"]["usec"]) / 3_000


async def whole_path(store: Store, batch: int, pid: int) -> tuple[float, float]:
    """Microseconds of the server's CPU per job for enqueue, claim and ack; bytes per waiting job."""
    await store.clients.commands.flushdb()
    bench = Bench(store, batch)
    bench.jobs = 20_000

    async def memory() -> int:
        info: Any = await store.clients.commands.info("memory")
        return int(info["used_memory"])

    empty, began = await memory(), _cpu(pid)
    await bench.fill()
    waiting = await memory() - empty
    held = await bench.take()
    await bench.each(
        held, lambda b: store.ack_call(QUEUE, [Ack(j.key, j.token, b'"sent"') for j in b], worker="w")
    )
    return (_cpu(pid) - began) / bench.jobs, waiting / bench.jobs


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1e6 / os.sysconf("SC_CLK_TCK")


async def main() -> None:
    kind = sys.argv[1] if len(sys.argv) > 1 else "valkey"
    program = binary(kind)
    assert program is not None, f"{kind}-server is missing"
    with tempfile.TemporaryDirectory() as folder:
        server = start(program, Path(folder) / "bench.sock")
        try:
            url = f"unix://{folder}/bench.sock"
            clients = Clients(
                make_client(url, name="b"),
                make_client(url, name="r", reads=True),
                make_client(url, name="w", waits=True),
                where=url,
                url=url,
            )
            store = Store(clients)
            await store.connect()
            version = (await store.server())["version"]
            table: dict[str, dict[int, float]] = {}
            for batch in BATCHES:
                rounds = [await measure(Bench(store, batch)) for _ in range(ROUNDS)]
                for name in rounds[0]:
                    table.setdefault(name, {})[batch] = statistics.median(found[name] for found in rounds)
            alone = await bare(store)
            cpu = {batch: await whole_path(store, batch, server.pid) for batch in (10, 100)}
            await store.close()
        finally:
            server.kill()
            server.wait()
    processor = subprocess.run(["uname", "-m"], capture_output=True, text=True, check=False).stdout.strip()
    print(
        f"{version}, Python {platform.python_version()}, {processor}; medians of {ROUNDS} rounds, microseconds of script time per job\n"
    )
    print("| script | 1 | 10 | 100 |\n|---|---|---|---|")
    for name in sorted(table):
        print(f"| `{name}` | " + " | ".join(f"{table[name][batch]:.1f}" for batch in BATCHES) + " |")
    path = [sum(table[name][batch] for name in ("enqueue", "claim", "ack")) for batch in BATCHES]
    print("| **enqueue + claim + ack** | " + " | ".join(f"**{total:.1f}**" for total in path) + " |")

    print(f"\na bare EVALSHA of HSET and ZADD: {alone:.1f} us of script")
    print(f"bytes per waiting job with a payload of 100 bytes: {cpu[10][1]:.0f}")
    for batch, (spent, _) in cpu.items():
        print(f"server CPU per job, enqueue + claim + ack, at {batch}: {spent:.1f} us")


if __name__ == "__main__":
    asyncio.run(main())

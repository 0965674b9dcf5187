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
from collections.abc import Callable, Iterable
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
        # Closed with the last thread that holds this child, and not before: its number would be another file's then.
        self._connection = Connection(ours.detach())
        self._ending = threading.Lock()
        self.jobs = 0
        """Jobs that it was given."""

    def warm(self, modules: tuple[str, ...]) -> None:
        """Imports modules there before the first job. Never raises: an import that fails does so again with its job."""
        with contextlib.suppress(OSError):
            self._connection.send(modules)

    def run(
        self,
        request: tuple[Any, ...],
        token: int,
        tell: Callable[[str, Any], None],
        began: Callable[[], None],
    ) -> bytes:
        """The handler's result as JSON. Blocks. Raises HandlerFailed for what it raised, or when the process ended.

        `began` is called as the handler's own code begins.
        """
        self.jobs += 1
        try:
            self._connection.send(request)
            while True:
                word, *rest = self._connection.recv()
                if word == "tell":
                    of, *told = rest
                    # A thread that an earlier handler left behind speaks of another job.
                    if of == token:
                        tell(*told)
                elif word == "began":
                    began()
                elif word == "done":
                    return rest[0]  # type: ignore[no-any-return]
                else:
                    raise HandlerFailed(*rest)
        except (EOFError, OSError):
            raise HandlerFailed(DIED, f"the handler's process ended: {self._end()}") from None

    def _end(self) -> str:
        status = self.kill()
        if status >= 0:
            return f"exit status {status}"
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-status).name}"
        return f"killed by signal {-status}"

    def kill(self) -> int:
        """Ends it and what it has started, now; how it ended. Who listens to it hears the end."""
        with self._ending:
            # Not waited for until now, so its number is its own, and its group's, also when it has ended by itself.
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as ours:
            # What it has started in a session of its own may hold the other end.
            ours.shutdown(socket.SHUT_RDWR)
        return self._process.returncode

    @property
    def alive(self) -> bool:
        return self._process.poll() is None


class Processes:
    """Children that are used again. At most `most` of them work at once: a worker reserves a place before it begins a job."""

    def __init__(self, threads: Threads, most: int | None = None, *, max_jobs: int = 0) -> None:
        self._threads = threads
        self.free = self.most = most or os.cpu_count() or 1
        """Places that no job has."""
        self._max_jobs = max_jobs
        """Jobs after which a child is replaced; 0 for never."""
        self._modules: tuple[str, ...] = ()
        self._idle: list[Child] = []
        self._all: set[Child] = set()
        self._lock = threading.Lock()
        self._ended = False

    def reserve(self) -> bool:
        """Takes a place; whether there was one."""
        if self.free <= 0:
            return False
        self.free -= 1
        return True

    def give_back_place(self) -> None:
        self.free += 1

    async def warm(self, modules: Iterable[str]) -> None:
        """Starts a child for each place, which imports these modules before its first job."""
        self._modules = tuple(sorted(set(modules)))
        for _ in range(self.most):
            child = await self._threads.run(self._start)
            await self._threads.run(self._give_back, child)

    async def run(self, handler: Handler, context: Context, max_result: int) -> Raw | None:
        """The handler's result from a process of its own. Cancelled, it kills the process. Raises HandlerFailed."""
        loop = asyncio.get_running_loop()

        def began() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(context.began)

        child = await self._taken()
        request = (*handler.home, context.claimed, context.parents, context.settings, max_result)
        fit = False
        try:
            result = await self._threads.run(child.run, request, context.token, context.pass_on, began)
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
        return self._start()

    def _start(self) -> Child:
        child = Child()
        child.warm(self._modules)
        with self._lock:
            self._all.add(child)
            ended = self._ended
        if ended:  # it was being started as the worker ended
            self._drop(child)
        return child

    def _give_back(self, child: Child) -> None:
        worn = bool(self._max_jobs) and child.jobs >= self._max_jobs
        with self._lock:
            if not self._ended and not worn:
                self._idle.append(child)
                return
        self._drop(child)
        if worn and not self._ended:
            self._give_back(self._start())

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

"""`scheduler worker --processes N`: starts worker processes, passes signals on, replaces one that dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence

from ..logs import get_logger

log = get_logger(__name__)

MOST_FAILURES = 3
"""Starts in a row that may fail in each place before the whole gives up."""

_STOPPED = frozenset({-signal.SIGINT, -signal.SIGTERM})
"""How a process ends that our signal reaches before it listens for it. It held no job, so that is no failure."""

LONGEST_PAUSE = 30.0
"""Seconds between two starts that fail in a place, at most."""


async def supervise(count: int, arguments: Sequence[str]) -> int:
    """Keeps `count` worker processes of these arguments at work until a signal. The exit status.

    When those of every place died several times in a row before they were ready, the program cannot start at all: that
    ends with status 1, and whoever started us may try again later.
    """
    return await _Supervisor(count, arguments).run()


class _Supervisor:
    def __init__(self, count: int, arguments: Sequence[str]) -> None:
        self._count = count
        own = [*_without_processes(arguments), "--parent", str(os.getpid())]
        self._command = [sys.executable, "-m", "scheduler", *own]
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._failures = [0] * count
        self._pids = [0] * count

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._pass_on, number)
        statuses = await asyncio.gather(*(self._keep(place) for place in range(self._count)))
        return max((abs(status) for status in statuses), default=0) and 1

    def _pass_on(self, number: int) -> None:
        self._stopping.set()
        for process in self._running.values():
            self._send(number, process)

    @staticmethod
    def _send(number: int, process: asyncio.subprocess.Process | None) -> None:
        """Sends a signal to a process that may have ended."""
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    async def _keep(self, place: int) -> int:
        """A process in this place, and another one whenever it dies."""
        status = 0
        while not self._stopping.is_set():
            began = asyncio.get_running_loop().time()
            status = await self._one(place)
            if self._stopping.is_set() and status in _STOPPED:
                return 0
            if self._stopping.is_set() or status == 2:
                return status
            failed = self._failures[place]
            if min(self._failures) >= MOST_FAILURES:
                log.error("no worker process gets ready: giving up", tries=failed, status=status)
                self._pass_on(signal.SIGTERM)
                return status or 1
            log.error("a worker process died, another one is started", pid=self._pids[place], status=status)
            if failed:
                await self._pause(min(2.0 ** (failed - 1), LONGEST_PAUSE))
            elif asyncio.get_running_loop().time() - began < 1.0:
                await self._pause(1.0)
        return status

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _one(self, place: int) -> int:
        """One process from its start to its end; its status. Counts those that end before they are ready."""
        ready, told = os.pipe()
        os.set_blocking(ready, False)
        loop = asyncio.get_running_loop()
        was_ready = False

        def hear() -> None:
            nonlocal was_ready
            loop.remove_reader(ready)
            # Nothing, and no end either, when something that it started holds the other end.
            with contextlib.suppress(BlockingIOError):
                was_ready = bool(os.read(ready, 1))
            if was_ready:
                self._failures[place] = 0
            if was_ready and self._stopping.is_set():
                # It is at work although it was told to stop: what was sent before it listened may be lost.
                self._send(signal.SIGTERM, self._running.get(place))

        try:
            try:
                # A session of its own: Ctrl-C in a terminal reaches it once, through us.
                process = await asyncio.create_subprocess_exec(
                    *self._command, "--ready", str(told), start_new_session=True, pass_fds=[told]
                )
            finally:
                os.close(told)
            loop.add_reader(ready, hear)
            self._running[place] = process
            self._pids[place] = process.pid
            if self._stopping.is_set():
                self._send(signal.SIGTERM, process)
            status = await process.wait()
            del self._running[place]
            if loop.remove_reader(ready):  # its end came before its word was read
                hear()
            if not was_ready:
                self._failures[place] += 1
            return status
        finally:
            os.close(ready)


def _without_processes(arguments: Sequence[str]) -> list[str]:
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == "--processes":
            skip = True
        elif not argument.startswith("--processes="):
            kept.append(argument)
    return kept

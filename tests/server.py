"""A Redis or Valkey of a test's own, which it may kill, freeze and start again."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import redis


class Server:
    """Listens on a port that it keeps over restarts; every write is on disk before it is answered."""

    def __init__(self, program: str, folder: Path, *options: str) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.port = free_port()
        self._command = [
            program,
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)),
            *("--save", "", "--appendonly", "yes", "--appendfsync", "always"),
            *options,
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._admin: redis.Redis | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *options: str) -> None:
        """Starts it (again), and waits until it takes connections."""
        assert self._process is None
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, *options], cwd=self.folder, stdout=log, stderr=log
            )
        end = time.monotonic() + 10
        with socket.socket() as caller:
            while caller.connect_ex(("127.0.0.1", self.port)) != 0:
                assert self._process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
                assert time.monotonic() < end
                time.sleep(0.005)

    def kill(self) -> None:
        """As `kill -9`, also of a frozen one."""
        if self._admin is not None:
            self._admin.close()
            self._admin = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def say(self, *words: Any) -> Any:
        """One command of the operator, who has his own way to the server."""
        if self._admin is None:
            self._admin = redis.Redis(port=self.port, socket_timeout=20, protocol=3)
        return self._admin.execute_command(*words)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port

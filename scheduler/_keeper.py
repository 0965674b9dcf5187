"""Keeps the local server of one folder: starts it, starts it again when it dies, ends it after its last user.

A program of its own, on the standard library alone so that it starts fast. local_server runs it there:

    python -I -S _keeper.py BINARY DESCRIPTOR

Three locks say who lives. The kernel drops each with its last holder, so nobody who is killed leaves a mess.

    users.lock    shared: each process that uses the server; exclusive: the keeper, while it ends the server
    keeper.lock   the keeper; free: there is none, and who takes it starts one and leaves it DESCRIPTOR
    server.lock   the keeper and the server, which inherits it: two servers never write in one folder

Two more files are the keeper's word to the users, and theirs to it: `server` (process id and run id of the
server that answers) and `strict` (one of them asked for an fsync before each answer).
"""

import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress

USERS, KEEPER, SERVER = "users.lock", "keeper.lock", "server.lock"
SOCKET, ANSWERING, STRICT = "valkey.sock", "server", "strict"

LINGER = 1.5
"""Seconds without a user before the end: commands that follow each other do not start a server each."""
ENDS_WITHIN = 2.5
"""Seconds for an orderly end. All that was answered is written already, so the rest is not worth more."""
STARTS_WITHIN = 10.0
"""Seconds until a new server must answer, if only that it is loading."""


def ask(address: str, *words: str) -> str:
    """What the server at that socket replies to a command. Raises OSError when there is no such reply."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        connection.connect(address)
        request = [f"${len(word)}\r\n{word}\r\n" for word in words]
        connection.sendall(f"*{len(words)}\r\n{''.join(request)}".encode())
        with connection.makefile("rb") as stream:
            kind, text = stream.read(1), stream.readline().decode().rstrip()
            if kind == b"$":
                text = stream.read(int(text)).decode(errors="replace")
        if kind not in {b"$", b"+", b":"}:
            raise OSError(text or "the server hung up")
        return text


def take(lock: int) -> bool:
    """Whether the exclusive lock could be had at once."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def main(binary: str, keeper_lock: int) -> None:
    if os.fork():
        os._exit(0)  # nobody's child: who started it may end, be killed, or wait for all of its children
    os.set_inheritable(keeper_lock, False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit())
    users, server_lock = open_lock(USERS), own_folder()
    server = waiter = 0
    started = pause = 0.0
    try:
        while True:
            if not server:
                server, started = fork(lambda: run_server(binary, server_lock)), time.monotonic()
                if not announce(server):
                    server = 0
                    sys.exit("the server ended before it answered")
            if not waiter:
                waiter = fork(lambda: wait_for_last_user(users, keeper_lock, server_lock))
            ended, status = os.wait()
            if ended == server:
                server = 0
                say(f"the server ended, status {os.waitstatus_to_exitcode(status)}; it is started again")
                # One that dies over and over, by a full disk perhaps, does not take the whole machine along.
                pause = min(2 * pause + 0.05, 2) if time.monotonic() - started < 10 else 0.0
                time.sleep(pause)
            elif nobody_comes(users):
                break
            else:
                waiter = 0
    finally:
        remove(ANSWERING)
        if server:
            end(server)
    remove(STRICT)


def open_lock(name: str) -> int:
    return os.open(name, os.O_RDWR | os.O_CREAT, 0o600)


def remove(name: str) -> None:
    with suppress(FileNotFoundError):
        os.remove(name)


def own_folder() -> int:
    """The server's lock. After a keeper was killed its server may need a moment to follow, or to be told."""
    lock = open_lock(SERVER)
    deadline = time.monotonic() + STARTS_WITHIN / 2
    while not take(lock):
        if time.monotonic() > deadline:
            sys.exit("a server that has lost its keeper holds this folder and does not end")
        with suppress(OSError):
            ask(SOCKET, "SHUTDOWN", "NOSAVE")
        time.sleep(0.01)
    return lock


def fork(act: Callable[[], None]) -> int:
    """The id of a child that does this and no more, and that dies with us."""
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        die_with(parent)
        act()
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - a child must never go on in its parent's code
        say(repr(error))
    finally:
        os._exit(127)


def die_with(parent: int) -> None:
    """On Linux only. Elsewhere a server whose keeper was killed is told to end by the next one."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - not needed elsewhere

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG; also ends a stopped process
        if os.getppid() != parent:
            os._exit(127)


def wait_for_last_user(users: int, *held: int) -> None:
    """Ends when the users' lock is ours, the keeper's: the two share the descriptor, and so the lock."""
    for lock in held:
        os.close(lock)  # or it would outlive a keeper that is killed
    fcntl.flock(users, fcntl.LOCK_EX)


def nobody_comes(users: int) -> bool:
    """Whether no process uses the server for a while. Then the users' lock is ours, and newcomers wait."""
    until = time.monotonic() + LINGER
    while time.monotonic() < until:
        fcntl.flock(users, fcntl.LOCK_UN)
        time.sleep(0.05)
        if not take(users):
            return False
    return True


def run_server(binary: str, server_lock: int) -> None:
    os.set_inheritable(server_lock, True)
    options = {
        "port": "0",
        "unixsocket": SOCKET,  # relative, so that the folder may have a long name, be moved, or be removed
        "unixsocketperm": "600",
        "appendonly": "yes",
        "appendfsync": "always" if os.access(STRICT, os.F_OK) else "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    os.execv(binary, [binary, *(word for name, value in options.items() for word in (f"--{name}", value))])


def announce(server: int) -> bool:
    """Waits until the server answers, if only that it is loading; writes down who it is. False: it ended."""
    deadline = time.monotonic() + STARTS_WITHIN
    info: dict[str, str] = {}
    while os.waitpid(server, os.WNOHANG) == (0, 0):
        with suppress(OSError):
            info = fields(ask(SOCKET, "INFO", "server"))
            if info["process_id"] == str(server):
                break
        if time.monotonic() > deadline:
            sys.exit("the server does not answer")
        time.sleep(0.003)
    else:
        return False
    with open(f"{ANSWERING}.new", "w", encoding="ascii") as file:
        file.write(f"{server} {info['run_id']}")
    os.replace(f"{ANSWERING}.new", ANSWERING)
    return True


def fields(info: str) -> dict[str, str]:
    """What a reply to INFO says."""
    return dict(line.partition(":")[::2] for line in info.splitlines())


def end(server: int) -> None:
    os.kill(server, signal.SIGTERM)
    deadline = time.monotonic() + ENDS_WITHIN
    while os.waitpid(server, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(server, signal.SIGKILL)
        time.sleep(0.01)


def say(text: str) -> None:
    sys.stderr.write(f"keeper {os.getpid()}: {text}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

"""The embedded server with real processes and real signals: one for all, none left over, nothing lost."""

import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from scheduler import _keeper, local_server
from scheduler.local_server import LocalServerError, acquire

USER = """
import resource, sys
from pathlib import Path
from scheduler.local_server import LocalServerError, acquire
folder, durability, largest = sys.argv[1:]
if largest:  # of the files that this process and those it starts write
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest), int(largest)))
try:
    server = acquire(Path(folder), durability=durability)
except LocalServerError as error:
    sys.exit(f"LocalServerError: {error}")
print(server.url, flush=True)
for _ in sys.stdin:
    server.ensure()
    print("ensured", flush=True)
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / ".scheduler"


@pytest.fixture
def use(folder):
    """Uses the folder's server in this process, until the test ends."""
    held = []

    def one(directory=folder, **options):
        held.append(acquire(directory, **options))
        return held[-1]

    yield one
    for server in held:
        server.close()


@pytest.fixture
def user(folder):
    """Uses the folder's server in a process of its own, which ends when its stdin closes."""
    started: list[Any] = []

    def one(directory=folder, durability="strict", largest="", *, wait=True):
        command = [sys.executable, "-c", USER, str(directory), durability, largest]
        process: Any = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        if wait:
            assert process.stdout.readline().startswith("unix://"), process.communicate()[1]
        return process

    yield one
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()


def client(server):
    return redis.Redis.from_url(server if isinstance(server, str) else server.url, decode_responses=True)


def ask(server, *words):
    with client(server) as connection:
        return connection.execute_command(*words)


def pid_of(server):
    return ask(server, "INFO")["process_id"]


def keeper_of(server):
    return int(Path(f"/proc/{pid_of(server)}/stat").read_text().rpartition(")")[2].split()[1])


def eventually(true, within=5.0):
    until = time.monotonic() + within
    while not true():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.02)
    return True


def is_free(lock):
    descriptor = os.open(lock, os.O_RDWR)
    try:
        return _keeper.take(descriptor)
    finally:
        os.close(descriptor)


def is_gone(folder):
    """Neither a keeper nor a server nor anything that they started: no lock is held."""
    return is_free(folder / "keeper.lock") and is_free(folder / "server.lock")


def answers(server):
    try:
        return ask(server, "PING")
    except redis.ConnectionError:
        return False


def test_processes_of_a_folder_share_one_server(folder, use, user):
    here, there = use(), user()

    assert there.poll() is None
    assert f"unix://{folder}/valkey.sock" == here.url
    assert here.version.startswith(("valkey ", "redis "))
    assert pid_of(here) == pid_of(use())


def test_folders_have_servers_of_their_own(folder, use):
    one, other = use(), use(folder.parent / "other")
    ask(one, "SET", "mine", "1")

    assert None is ask(other, "GET", "mine")


def test_the_server_keeps_what_it_says_and_evicts_nothing(use):
    with client(use()) as connection:
        config = connection.config_get("*")

    assert ("yes", "always", "noeviction", "0", "") == tuple(
        config[name] for name in ("appendonly", "appendfsync", "maxmemory-policy", "port", "save")
    )


def test_the_folder_is_private_and_not_for_git(folder, use):
    use()

    assert 0o700 == folder.stat().st_mode & 0o777
    assert 0o600 == (folder / "valkey.sock").stat().st_mode & 0o777
    assert "*\n" == (folder / ".gitignore").read_text()


@pytest.mark.parametrize("end", [subprocess.Popen.kill, lambda process: process.stdin.close()])  # fmt: skip
def test_it_is_gone_within_five_seconds_of_its_last_user_and_the_data_is_there_again(folder, use, user, end):
    first, last = user(), user()
    url = f"unix://{folder}/valkey.sock"
    server = pid_of(url)
    ask(url, "SET", "job", "7")

    end(first)
    first.wait()
    end(last)
    last.wait()

    assert eventually(lambda: is_gone(folder), within=5)
    assert not Path(f"/proc/{server}").exists()
    assert not (folder / "server").exists()
    assert "7" == ask(use(), "GET", "job")


def test_the_end_of_who_started_it_is_nothing_to_the_others(folder, user):
    starter, other = user(), user()
    server = pid_of(f"unix://{folder}/valkey.sock")

    starter.kill()
    starter.wait()
    time.sleep(_keeper.LINGER + 0.3)  # the time after which it would be ended

    assert other.poll() is None
    assert server == pid_of(f"unix://{folder}/valkey.sock")


def test_commands_that_follow_each_other_find_the_server_still_there(use):
    server = use()
    process = pid_of(server)
    server.close()

    assert process == pid_of(use())


def test_who_comes_while_it_ends_gets_a_new_one(folder, use):
    server = use()
    old = pid_of(server)
    keeper = keeper_of(server)
    os.kill(int(old), signal.SIGSTOP)  # so that its end takes as long as it may
    server.close()
    eventually(lambda: not (folder / "server").exists())

    new = use()

    assert old != pid_of(new)
    assert keeper != keeper_of(new)


def test_twenty_that_come_at_once_start_one_server(folder):
    with ThreadPoolExecutor(20) as threads:
        servers = list(threads.map(lambda _: acquire(folder), range(20)))

    processes = {pid_of(server) for server in servers}
    for server in servers:
        server.close()

    assert 1 == len(processes)
    assert 1 == (folder / "valkey.log").read_text().count("Server initialized")


@pytest.mark.long
def test_twenty_processes_that_come_and_go_at_once_lose_nothing(folder, use, user):
    for number in range(5):
        processes = [user(wait=False) for _ in range(20)]
        urls = {process.stdout.readline().strip() for process in processes}
        assert {f"unix://{folder}/valkey.sock"} == urls
        ask(urls.pop(), "RPUSH", "rounds", number)
        for process in processes:
            process.kill()
        assert eventually(lambda: is_gone(folder), within=5)

    assert ["0", "1", "2", "3", "4"] == ask(use(), "LRANGE", "rounds", 0, -1)


def test_a_killed_server_comes_back_by_itself_with_its_data(use):
    server = use()
    ask(server, "SET", "job", "7")
    killed = pid_of(server)

    os.kill(killed, signal.SIGKILL)

    assert eventually(lambda: answers(server))
    assert killed != pid_of(server)
    assert "7" == ask(server, "GET", "job")


def test_a_server_that_is_killed_again_and_again_is_started_again_and_again(use):
    server = use()
    for _ in range(4):
        eventually(lambda: answers(server))
        os.kill(pid_of(server), signal.SIGKILL)
        server.ensure()

    assert answers(server)


def test_users_hear_that_the_server_was_started_again(use, caplog):
    server = use()
    server.ensure()
    assert [] == caplog.records

    os.kill(pid_of(server), signal.SIGKILL)
    server.ensure()

    assert ["scheduler.local_server"] == [record.name for record in caplog.records]
    assert [logging.WARNING] == [record.levelno for record in caplog.records]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_follows_its_killed_keeper_and_the_next_call_brings_both_back(folder, use, number):
    server = use()
    ask(server, "SET", "job", "7")
    keeper, process = keeper_of(server), pid_of(server)

    os.kill(keeper, number)
    eventually(lambda: is_gone(folder))
    server.ensure()

    assert {keeper, process}.isdisjoint({keeper_of(server), pid_of(server)})
    assert "7" == ask(server, "GET", "job")


def test_a_newcomer_starts_a_keeper_in_a_killed_ones_place(folder, use):
    server = use()
    os.kill(keeper_of(server), signal.SIGKILL)
    eventually(lambda: is_free(folder / "keeper.lock"))

    newcomer = use()

    assert answers(newcomer)


def test_keeper_and_server_killed_together_are_no_loss(use):
    server = use()
    ask(server, "SET", "job", "7")
    for process in (keeper_of(server), pid_of(server)):
        os.kill(process, signal.SIGKILL)

    assert "7" == ask(use(), "GET", "job")


def test_a_server_that_outlived_its_keeper_is_told_to_end(folder, use):
    # As on a system that cannot tie a child's life to its parent's.
    use().close()
    eventually(lambda: is_gone(folder))
    lock = os.open(folder / "server.lock", os.O_RDWR)
    assert _keeper.take(lock)
    command = [
        local_server._server_binary(),
        "--port",
        "0",
        "--unixsocket",
        "valkey.sock",
        "--appendonly",
        "yes",
    ]
    with subprocess.Popen(command, cwd=folder, pass_fds=[lock], stdout=subprocess.DEVNULL) as orphan:
        os.close(lock)
        eventually(lambda: answers(f"unix://{folder}/valkey.sock"))

        server = use()

        assert 0 == orphan.wait(5)
        assert orphan.pid != pid_of(server)


def test_what_a_crash_of_the_machine_leaves_is_no_hindrance(folder, use):
    server = use()
    ask(server, "SET", "job", "7")
    known = (folder / "server").read_text()
    server.close()
    eventually(lambda: is_gone(folder))
    (folder / "server").write_text(known)
    (folder / "valkey.sock").write_text("")
    (folder / "strict").touch()
    (folder / "server.new").write_text("half")

    assert "7" == ask(use(), "GET", "job")


def test_a_copied_folder_gets_a_server_of_its_own(folder, use):
    server = use()
    ask(server, "SET", "job", "7")
    copy = folder.parent / "copy"
    copy.mkdir()
    for part in ("server", "users.lock", "keeper.lock", "server.lock"):
        shutil.copy(folder / part, copy / part)
    (copy / "valkey.sock").symlink_to(folder / "valkey.sock")

    other = use(copy)

    assert pid_of(server) != pid_of(other)
    assert (folder / "valkey.sock").exists()


def test_somebody_elses_server_at_our_socket_is_not_taken_for_ours(folder, use, monkeypatch):
    server, other = use(), use(folder.parent / "other")
    (folder / "valkey.sock").unlink()
    (folder / "valkey.sock").symlink_to(other.directory / "valkey.sock")
    monkeypatch.setattr(_keeper, "STARTS_WITHIN", 0.3)

    with pytest.raises(LocalServerError, match="does not answer"):
        server.ensure()


def test_a_removed_folder_is_made_anew_and_the_old_server_ends(folder, use):
    server = use()
    old = pid_of(server)
    shutil.rmtree(folder)

    server.ensure()

    assert old != pid_of(server)
    assert eventually(lambda: not Path(f"/proc/{old}").exists())
    assert answers(server)


def test_a_folder_that_is_moved_takes_its_server_along(folder, use):
    server = use()
    process = pid_of(server)
    moved = folder.rename(folder.parent / "moved")

    assert process == pid_of(use(moved))


def test_the_terminals_signals_do_not_reach_the_server(use):
    assert os.getsid(pid_of(use())) != os.getsid(0)


def test_durability_is_the_stricter_of_what_its_users_ask_for(use):
    relaxed = use(durability="standard")
    assert ("standard", "everysec") == (relaxed.durability, fsync(relaxed))

    strict = use()
    assert ("strict", "always") == (strict.durability, fsync(relaxed))

    os.kill(pid_of(strict), signal.SIGKILL)
    strict.ensure()
    assert "always" == fsync(strict)

    relaxed.ensure()
    assert ("strict", "always") == (relaxed.durability, fsync(relaxed))


def test_strictness_ends_with_those_who_asked_for_it(folder, use):
    use().close()
    eventually(lambda: is_gone(folder))

    assert "everysec" == fsync(use(durability="standard"))


def fsync(server):
    return ask(server, "CONFIG", "GET", "appendfsync")["appendfsync"]


def test_a_path_too_long_for_a_socket_is_no_hindrance(tmp_path, use):
    folder = tmp_path / ("long" * 30) / ("path" * 30) / ".scheduler"

    server = use(folder)

    path = Path(server.url.removeprefix("unix://"))
    assert folder.samefile(path.parent)
    assert 0o700 == path.parent.parent.stat().st_mode & 0o777
    assert pid_of(server) == pid_of(use(folder))


def test_a_private_place_that_is_not_private_is_refused(tmp_path, use, monkeypatch):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    (tmp_path / f"scheduler-{os.getuid()}").mkdir(mode=0o755)

    with pytest.raises(LocalServerError, match="is not private"):
        use(tmp_path / ("long" * 30))


def test_a_path_of_any_characters_makes_a_good_url(tmp_path, use):
    assert answers(use(tmp_path / "a b%20?ü#"))


def test_without_a_binary_it_says_what_to_install_or_set(folder, use, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(LocalServerError, match=r"(?s)valkey-server.*redis-server.*SCHEDULER_REDIS_URL"):
        use()


@pytest.mark.skipif(not shutil.which("redis-server"), reason="there is no redis-server on PATH")
def test_without_the_wheels_binary_a_server_on_path_serves(folder, use, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    server = use()
    ask(server, "SET", "job", "7")
    os.kill(pid_of(server), signal.SIGKILL)
    server.ensure()

    assert "7" == ask(server, "GET", "job")
    assert "always" == fsync(server)


def test_a_place_that_cannot_be_written_to_is_named_with_the_cure(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(
        LocalServerError, match=rf"{tmp_path}/file/\.scheduler: Not a directory.*SCHEDULER_REDIS_URL"
    ):
        acquire(tmp_path / "file" / ".scheduler")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named_with_the_cure(tmp_path):
    tmp_path.chmod(0o500)

    with pytest.raises(LocalServerError, match=r"Permission denied.*SCHEDULER_REDIS_URL"):
        acquire(tmp_path / ".scheduler")


def test_data_that_the_server_cannot_read_is_left_alone_and_its_words_are_passed_on(folder, use):
    server = use()
    server.close()
    eventually(lambda: is_gone(folder))
    (manifest,) = folder.glob("appendonlydir/*.manifest")
    manifest.write_text("nonsense")
    began = time.monotonic()

    with pytest.raises(LocalServerError, match=r"(?s)did not start.*manifest"):
        use()

    assert time.monotonic() - began < 2
    assert "nonsense" == manifest.read_text()


def test_a_write_that_the_disk_refuses_ends_no_more_than_that_server(folder, user):
    # A limit on the size of files stands for a full disk: the server cannot write down what it did, and ends.
    process = user(largest=str(256 << 10))
    url = f"unix://{folder}/valkey.sock"
    ask(url, "SET", "small", "7")
    killed = pid_of(url)

    with pytest.raises(redis.ConnectionError):
        ask(url, "SET", "large", "x" * (512 << 10))
    process.stdin.write("\n")
    process.stdin.flush()

    assert "ensured\n" == process.stdout.readline()
    assert killed != pid_of(url)
    assert ("7", None) == (ask(url, "GET", "small"), ask(url, "GET", "large"))


def test_a_disk_that_is_full_from_the_start_is_an_error_not_a_hang(user):
    process = user(largest="0", wait=False)

    _, said = process.communicate(timeout=15)

    assert said.startswith("LocalServerError: ")
    assert "File too large" in said


def fill(file):
    with suppress(OSError), file.open("wb", buffering=0) as rest:
        while True:
            rest.write(b"x" * 512)


@pytest.mark.long
def test_a_full_disk_is_named(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        server = acquire(disk / ".scheduler")
        with pytest.raises(redis.ConnectionError):
            ask(server, "SET", "large", "x" * (512 << 10))
        fill(disk / "rest")
        eventually(lambda: answers(server))
        os.kill(pid_of(server), signal.SIGKILL)

        with pytest.raises(LocalServerError, match="disk is full"):
            server.ensure()

        server.close()
        eventually(lambda: is_gone(disk / ".scheduler"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.long
def test_a_large_file_is_waited_for_while_it_is_read(folder, use, monkeypatch):
    server = use()
    ask(server, "SET", "job", "7")
    server.close()
    eventually(lambda: is_gone(folder))
    (log,) = folder.glob("appendonlydir/*.incr.aof")
    with log.open("ab") as file:
        for _ in range(40):
            file.write(b"*2\r\n$4\r\nINCR\r\n$5\r\ncount\r\n" * 100_000)
    monkeypatch.setattr(_keeper, "STARTS_WITHIN", 0.5)  # for the user, not for the keeper

    server = use()

    assert ("7", "4000000") == (ask(server, "GET", "job"), ask(server, "GET", "count"))


def test_closing_twice_is_closing(use):
    server = use()
    server.close()
    server.close()

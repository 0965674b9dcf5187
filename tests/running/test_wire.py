"""The one connection of a process: each caller gets his own replies, whatever the network and other callers do."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import hiredis
import pytest
from redis import exceptions as redis_errors

from scheduler.clients import make_client
from scheduler.wire import Wire

LOST = (redis_errors.ConnectionError, redis_errors.TimeoutError)
HANDSHAKE = {
    b"HELLO": b"%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n",
    b"CLIENT": b"+OK\r\n",
    b"PING": b"+PONG\r\n",
}
PUSH = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nx\r\n"

Answer = Callable[[bytes, bytes], bytes | None]
"""What a server says to a command and its argument; None: it says nothing."""


def echo(command: bytes, argument: bytes) -> bytes:
    if command == b"ERR":
        return b"-WRONG %s\r\n" % argument
    text = b"$%d\r\n%s\r\n" % (len(argument), argument)
    return b"*2\r\n%s-BAD nested\r\n" % text if command == b"NEST" else text


class FakeServer:
    """Speaks enough of the protocol; it may split what it says anywhere, push in between, and hang up amid a reply."""

    def __init__(self, answer: Answer = echo, *, seed: int = 0, split: bool = False, hangs_up: float = 0.0):
        self.answer, self.random, self.split, self.hangs_up = answer, random.Random(seed), split, hangs_up
        self.callers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.callers.add(writer)
        parser = hiredis.Reader()
        try:
            while data := await reader.read(65_536):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    name, argument = command[0], command[-1]
                    out = HANDSHAKE.get(name)
                    if out is None:
                        out = self.answer(name, argument) or b""
                        out += PUSH if self.random.random() < 0.1 else b""
                        if self.random.random() < self.hangs_up:
                            writer.write(out[: self.random.randrange(len(out))])
                            return
                    step = self.random.choice((1, 2, 7)) if self.split else len(out) or 1
                    for start in range(0, len(out), step):
                        writer.write(out[start : start + step])
                        if self.split:
                            await asyncio.sleep(0)
        except OSError:
            return
        finally:
            self.callers.discard(writer)
            writer.close()


@asynccontextmanager
async def wired(server: FakeServer, folder: Path, deadline: float = 5.0) -> AsyncIterator[Wire]:
    path = folder / "fake.sock"
    async with await asyncio.start_unix_server(server.serve, path):
        wire = Wire(make_client(f"unix://{path}", name="tests"), deadline)
        yield wire
        await wire.close()
        for caller in list(server.callers):
            caller.close()


def expected(command: str, argument: str, reply: Any) -> bool:
    if command == "ERR":
        return isinstance(reply, redis_errors.ResponseError) and str(reply) == f"WRONG {argument}"
    if command == "NEST":
        return bool(reply[0] == argument.encode() and isinstance(reply[1], Exception))
    return bool(reply == argument.encode())


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("hangs_up", [0.0, 0.01])
@pytest.mark.parametrize("seed", range(3))
async def test_each_gets_his_own_replies(tmp_path, seed, split, hangs_up):
    chance = random.Random(seed)
    told = 0

    async def caller(wire: Wire, name: int) -> None:
        nonlocal told
        for n in range(10):
            commands = [
                (
                    chance.choice(("ECHO", "ECHO", "ERR", "NEST")),
                    f"{name}-{n}-{m}{'x' * chance.choice((0, 99))}",
                )
                for m in range(chance.choice((1, 1, 4)))
            ]
            sending = asyncio.ensure_future(wire.send(commands))
            if chance.random() < 0.1:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
                sending.cancel()
            try:
                replies = await sending
            except (asyncio.CancelledError, *LOST):
                continue
            assert len(commands) == len(replies)
            for command, reply in zip(commands, replies, strict=True):
                assert expected(*command, reply), (command, reply)
            told += 1

    async with wired(FakeServer(seed=seed, split=split, hangs_up=hangs_up), tmp_path) as wire:
        await asyncio.gather(*(caller(wire, name) for name in range(20)))
    assert told > (100 if hangs_up else 150)


async def test_who_asks_nothing_is_answered_with_nothing(tmp_path):
    async with wired(FakeServer(), tmp_path) as wire:
        assert [] == await wire.send([])
        assert [b"x"] == await wire.send([("ECHO", "x")])


async def test_a_silent_server_is_lost_at_the_deadline_to_all_who_wait(tmp_path):
    async with wired(FakeServer(lambda *_: None), tmp_path, deadline=0.2) as wire:
        errors = await asyncio.gather(
            *(wire.send([("ECHO", str(n))]) for n in range(100)), return_exceptions=True
        )
    assert {redis_errors.TimeoutError} == {type(error) for error in errors}
    assert 100 == len({id(error) for error in errors})


async def test_a_loop_that_stood_still_is_not_a_silent_server(tmp_path):
    async with wired(FakeServer(), tmp_path, deadline=0.5) as wire:
        await wire.send([("ECHO", "connected")])
        sending = asyncio.ensure_future(wire.send([("ECHO", "x")]))
        # In the turn in which it is asked, so before it is sent.
        asyncio.get_running_loop().call_soon(time.sleep, 1.2)
        assert [b"x"] == await sending


async def test_what_cannot_be_sent_is_its_callers_fault_alone(tmp_path):
    async with wired(FakeServer(), tmp_path) as wire:
        bad, good = (asyncio.ensure_future(wire.send([("ECHO", what)])) for what in (object(), "x"))
        with pytest.raises(TypeError):
            await bad
        assert [b"x"] == await good


async def test_what_is_no_protocol_loses_the_connection_and_the_next_call_makes_another(tmp_path):
    server = FakeServer(lambda *_: b"nonsense\r\n")
    async with wired(server, tmp_path) as wire:
        with pytest.raises(redis_errors.ConnectionError):
            await wire.send([("ECHO", "x")])
        server.answer = echo
        assert [b"y"] == await wire.send([("ECHO", "y")])


async def test_closing_tells_who_waits(tmp_path):
    asked = asyncio.Event()

    async with wired(FakeServer(lambda *_: asked.set()), tmp_path) as wire:
        waiting = asyncio.ensure_future(wire.send([("ECHO", "x")]))
        await asked.wait()
        await wire.close()
        with pytest.raises(redis_errors.ConnectionError):
            await waiting


async def test_closing_tells_who_waits_for_the_connection_and_who_comes_later(tmp_path):
    async with wired(FakeServer(), tmp_path) as wire:
        opening = asyncio.ensure_future(wire.send([("ECHO", "x")]))
        await asyncio.sleep(0)
        await wire.close()
        with pytest.raises(redis_errors.ConnectionError):
            await opening
        with pytest.raises(redis_errors.ConnectionError):
            await wire.send([("ECHO", "x")])


async def test_a_server_that_was_made_a_replica_is_left(tmp_path):
    server = FakeServer(lambda *_: b"-READONLY You can't write against a read only replica.\r\n")
    async with wired(server, tmp_path) as wire:
        [refused] = await wire.send([("ECHO", "x")])
        assert isinstance(refused, redis_errors.ReadOnlyError)
        [old] = server.callers
        server.answer = echo
        assert [b"y"] == await wire.send([("ECHO", "y")])
        assert old not in server.callers

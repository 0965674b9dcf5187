"""A loop for code that has none: nobody waits for ever, and nothing is left in it."""

import asyncio
import gc
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from scheduler.loop_thread import LoopThread


def ours():
    return [thread for thread in threading.enumerate() if thread.name == "scheduler loop"]


async def never(begun, ended):
    begun.set()
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("ended")


def test_who_waits_when_another_thread_stops_the_loop_is_told():
    thread, begun = LoopThread(), threading.Event()
    ended: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: thread.run(never(begun, ended)))
        assert begun.wait(5)
        thread.stop()
        with pytest.raises(RuntimeError, match="closed before"):
            waiting.result(5)
    assert ["ended"] == ended
    assert not thread.alive
    with pytest.raises(RuntimeError, match="is closed"):
        thread.run(asyncio.sleep(0))
    thread.stop()


def test_one_that_nobody_has_any_more_ends():
    before = ours()
    thread = LoopThread()
    assert 7 == thread.run(asyncio.sleep(0, 7))
    [its_own] = [one for one in ours() if one not in before]
    del thread
    gc.collect()
    its_own.join(5)
    assert not its_own.is_alive()


def test_what_a_signal_s_handler_raises_cancels_the_call():
    class Alarm(Exception):
        pass

    def ring(*_):
        raise Alarm

    thread, begun = LoopThread(), threading.Event()
    ended: list[str] = []
    former = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Alarm):
            thread.run(never(begun, ended))
    finally:
        signal.signal(signal.SIGALRM, former)
    thread.run(asyncio.sleep(0))
    assert ["ended"] == ended
    thread.stop()


def test_a_second_ctrl_c_cancels_once_more_and_its_end_is_waited_for():
    program = """
import asyncio
from scheduler.loop_thread import LoopThread

async def stubborn():
    for n in range(2):
        try:
            print("turn", n, flush=True)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            print("cancelled", flush=True)
    await asyncio.sleep(0.1)
    print("given back", flush=True)

try:
    LoopThread().run(stubborn(), finish=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line.strip())
            if line.startswith("turn"):
                process.send_signal(signal.SIGINT)
    assert ["turn 0", "cancelled", "turn 1", "cancelled", "given back", "interrupted"] == said

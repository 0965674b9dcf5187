"""The process of a handler that asked for one of its own: `python -m scheduler._child <socket>`."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from . import forks
from .attempt import begin_attempt
from .context import Context
from .execute import encode_result
from .failures import failure_of
from .handlers import Handler, payload_decoder
from .job import Claimed
from .logs import configure
from .settings import Settings


def main() -> None:
    """Serves one request after another until the socket ends."""
    # Stopping is the worker's to say: it kills this process when its handler must not go on. A service manager tells
    # all processes of a service to end, also this one. A function, since what is ignored is so in programs it starts.
    for told_to_end in (signal.SIGINT, signal.SIGTERM):
        signal.signal(told_to_end, lambda *_: None)
    # What handlers start must not hold it: its end tells the worker that this process is gone.
    os.set_inheritable(int(sys.argv[1]), False)
    forks.guard(int(sys.argv[1]))
    connection = Connection(int(sys.argv[1]))
    requests: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_listen, args=(connection, requests), daemon=True).start()
    lock = threading.Lock()

    def send(*words: Any) -> None:
        with lock:
            connection.send(words)

    told_to_log = False
    while True:
        request = requests.get()
        if all(isinstance(word, str) for word in request):
            for module in request:
                # One that fails does so again with its job, which says why.
                with contextlib.suppress(BaseException):
                    importlib.import_module(module)
            continue
        module, name, claimed, parents, settings, max_result = request
        if not told_to_log:
            configure(settings)
            told_to_log = True
        try:
            result = _run(module, name, claimed, parents, settings, max_result, send)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the handler's outcome
            failure = failure_of(error)
            send(
                "failed",
                failure.kind,
                failure.message,
                failure.trace,
                failure.verb,
                failure.seconds,
                failure.scope,
                failure.where,
            )
        else:
            send("done", result)


def _listen(connection: Connection, requests: SimpleQueue[Any]) -> None:
    # In a thread, so that the end of the worker is noticed while a handler runs.
    try:
        while True:
            requests.put(connection.recv())
    except (EOFError, OSError):
        # With all that the handler has started: this process leads a session of its own.
        os.killpg(0, signal.SIGKILL)


def _run(
    module: str, name: str, claimed: Claimed, parents: dict[str, Any], settings: Settings, max_result: int, send: Any,
) -> bytes:  # fmt: skip
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    handler: Handler | None = getattr(found, "handler", None)
    function = handler.function if handler is not None else found
    decode = handler.decode if handler is not None else payload_decoder(name, inspect.unwrap(function))
    context = Context(claimed, lambda of, field, value: send("tell", of.token, field, value), settings)
    context.parents = parents
    begin_attempt(claimed.queue, claimed.key, context.type, context.attempt)
    arguments = decode(context.payload)
    send("began")
    result = function(context, **arguments)
    if inspect.isawaitable(result):
        result = asyncio.run(_awaited(result))
    return encode_result(result, max_result)


async def _awaited(result: Any) -> Any:
    return await result


if __name__ == "__main__":
    main()

"""Posts one body over and over on kept-alive connections, as fast as the answers come.

`python -m tests.bench.load PORT PATH CONNECTIONS SECONDS < body` prints one JSON line: the seconds it took,
and how many answers had which status (0: the connection was lost).
A plain protocol per connection: an HTTP client would be slower than the server that it measures.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from typing import Any

from scheduler.cli.common import run


class Caller(asyncio.Protocol):
    """One connection: the next request goes out when the answer to the last one is whole."""

    def __init__(self, request: bytes, statuses: Counter[int], until: float) -> None:
        self._request, self._statuses, self._until = request, statuses, until
        self._rest, self._whole = b"", False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport  # uvloop's is no asyncio.Transport
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._rest += data
        head, blank, body = self._rest.partition(b"\r\n\r\n")
        if not blank:
            return
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if len(body) < int(length or b"0"):
            return
        self._rest = b""
        self._statuses[int(head[9:12])] += 1
        if time.perf_counter() < self._until:
            self._transport.write(self._request)
        else:
            self._whole = True
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._whole:
            self._statuses[0] += 1
        if not self.ended.done():
            self.ended.set_result(None)


async def main() -> None:
    port, path, connections, seconds = (
        int(sys.argv[1]),
        sys.argv[2],
        int(sys.argv[3]),
        float(sys.argv[4]),
    )
    body = sys.stdin.buffer.read()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    statuses: Counter[int] = Counter()
    began = time.perf_counter()
    loop = asyncio.get_running_loop()
    callers = [
        (
            await loop.create_connection(
                lambda: Caller(head.encode() + body, statuses, began + seconds), "127.0.0.1", port
            )
        )[1]
        for _ in range(connections)
    ]
    async with asyncio.timeout(seconds + 10):
        await asyncio.gather(*(caller.ended for caller in callers))
    print(json.dumps({"seconds": time.perf_counter() - began, "statuses": statuses}))


if __name__ == "__main__":
    run(main())

"""gzip, where the caller asks for it and it is worth its time."""

from __future__ import annotations

import asyncio
import gzip

from aiohttp import hdrs, web

LEAST = 16 * 1024
"""Bytes from which an answer to a GET is compressed: smaller ones, such as a job, travel as they are."""

IN_THREAD = 256 * 1024
"""Bytes from which that is done beside the event loop."""


def takes_gzip(request: web.BaseRequest) -> bool:
    """Whether the caller asks for gzip: `Accept-Encoding` names it, or all, and not with a weight of 0."""
    for part in ",".join(request.headers.getall(hdrs.ACCEPT_ENCODING, ())).split(","):
        coding, _, weight = part.partition(";")
        if coding.strip().lower() in {"gzip", "x-gzip", "*"}:
            return weight.replace(" ", "").lower() not in {"q=0", "q=0.", "q=0.0", "q=0.00", "q=0.000"}
    return False


async def zipped(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Compresses a large answer to a GET in place."""
    if (
        request.method != hdrs.METH_GET
        or not isinstance(response, web.Response)
        or not isinstance(response.body, bytes)
        or len(response.body) < LEAST
        or hdrs.CONTENT_ENCODING in response.headers
    ):
        return
    response.headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
    if not takes_gzip(request):
        return
    if len(response.body) < IN_THREAD:
        response.body = gzip.compress(response.body, 1, mtime=0)
    else:
        response.body = await asyncio.to_thread(gzip.compress, response.body, 1, mtime=0)
    response.headers[hdrs.CONTENT_ENCODING] = "gzip"

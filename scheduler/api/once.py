"""`Idempotency-Key`: a request that is repeated under its key is answered as it was the first time, byte for byte.

The first request reserves its key, with a seed that ids of jobs are made of. So what was enqueued before an answer was
lost, or before this process died, is found again by whoever repeats the request: nothing is enqueued twice, and no
state between has to be mended.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Awaitable, Callable
from uuid import UUID

import orjson
from aiohttp import hdrs, web

from ..errors import Duplicate, Fault, Invalid, NotFound, WrongState
from ..job import new_key
from .parts import IDEMPOTENT_BODY, SETTINGS, STORE
from .problems import Refusal, refusal_of, render

HEADER = "Idempotency-Key"

REPLAYED = "Idempotent-Replayed"
"""A header of an answer that a former request had."""

LONGEST = 255

_DICTIONARY = 32_768
"""Bytes of a request that may stand for themselves in its answer: as far back as deflate looks."""


class Seed:
    """What ids of new jobs are made of, so that a repeated request makes the same."""

    def __init__(self, text: str) -> None:
        self._text = text

    def key(self, number: int = 0) -> str:
        """The key of the n-th job of the request: a UUIDv7 of the time at which the request came first."""
        digest = hashlib.blake2b(f"{self._text}|{number}".encode(), digest_size=16).digest()
        time = UUID(self._text).bytes[:6]
        marks = bytes([0x70 | digest[6] & 0x0F, digest[7], 0x80 | digest[8] & 0x3F])
        return str(UUID(bytes=time + marks + digest[9:]))

    def call(self, number: int = 0) -> str:
        """What marks the n-th job of the request, where its caller has given it a key."""
        return hashlib.blake2b(f"{self._text}|{number}|call".encode(), digest_size=6).hexdigest()


Act = Callable[[Seed], Awaitable[tuple[web.Response, bool]]]
"""Carries a request out: its answer, and whether it is the last word (not that some of it is to be repeated)."""


def check_header(request: web.Request) -> None:
    """Raises Invalid for a key that is none."""
    given = request.headers.getall(HEADER)
    text = given[0]
    if len(given) > 1 or not 1 <= len(text) <= LONGEST or not all("!" <= letter <= "~" for letter in text):
        raise Invalid([Fault(f"/{HEADER}", f"one, of 1 to {LONGEST} visible characters of ASCII")])


async def once(request: web.Request, act: Act) -> web.Response:
    """The answer that stands under this request's key, else that of `act`, which stands from then on.

    Raises Refusal when another request stands there. What was refused before it did anything leaves the key free.
    """
    store, body = request.app[STORE], request[IDEMPOTENT_BODY]
    name, print_, seed = _name(request), _fingerprint(request, body), new_key()
    standing = await store.remember_request(name, print_, seed, request.app[SETTINGS].idempotency_window_ms)
    if standing.fingerprint != print_:
        detail = f"this {HEADER} was given with another request: take a new one for each request"
        raise Refusal("idempotency_mismatch", detail, faults=[Fault(f"/{HEADER}", detail)])
    if standing.answer is not None:
        return _unpacked(standing.answer, body, replayed=True)
    try:
        response, final = await act(Seed(standing.seed))
    except Duplicate as error:
        refusal = refusal_of(error)
        assert refusal is not None, "it is in the table"
        response, final = render(refusal), True
    except (Invalid, NotFound, WrongState, Refusal):
        if standing.seed == seed:
            await store.forget_request(name)
        raise
    if not final:
        return response
    # Who repeats a request while the first is under way is carried out too, and finds the same jobs: one answer is kept.
    window_ms = request.app[SETTINGS].idempotency_window_ms
    mine = _packed(response, body)
    kept = await store.keep_answer(name, standing.seed, mine, window_ms)
    return _unpacked(kept, body, replayed=kept != mine)


def _name(request: web.Request) -> str:
    # Two callers with keys of their own may choose the same text.
    caller = request.headers.get(hdrs.AUTHORIZATION, "") if request.app[SETTINGS].api_key is not None else ""
    text = f"{len(caller)} {caller}{request.headers[HEADER]}".encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def _fingerprint(request: web.Request, body: bytes) -> str:
    digest = hashlib.blake2b(f"{request.method} {request.raw_path}\n".encode(), digest_size=16)
    digest.update(body)
    return digest.hexdigest()


def _packed(response: web.Response, body: bytes) -> bytes:
    """An answer without what the request has of it: the payload of a job is not kept a second time."""
    assert isinstance(response.body, bytes)
    said = {
        str(name): response.headers[name]
        for name in (hdrs.CONTENT_TYPE, hdrs.LOCATION)
        if name in response.headers
    }
    packer = zlib.compressobj(level=1, zdict=body[-_DICTIONARY:])
    head = orjson.dumps([response.status, said])
    return packer.compress(head + b"\n" + response.body) + packer.flush()


def _unpacked(kept: bytes, body: bytes, *, replayed: bool) -> web.Response:
    text = zlib.decompressobj(zdict=body[-_DICTIONARY:]).decompress(kept)
    head, _, answered = text.partition(b"\n")
    status, headers = orjson.loads(head)
    if replayed:
        headers[REPLAYED] = "true"
    return web.Response(body=answered, status=status, headers=headers)

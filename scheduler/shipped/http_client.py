"""One HTTP exchange with the addresses that were checked and no others. Imported when a job needs it: aiohttp is large."""

from __future__ import annotations

import codecs
import errno
import os
import re
import socket
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from .addresses import Address, AddressRefused

CONNECT_SECONDS = 10
"""For each address, TLS included."""
LONGEST_BODY = 65_536
"""Bytes of a body that are read."""
LONGEST_HEADERS = 16_384
"""Characters of all headers that are kept."""
MOST_RECEIVED = 2_097_152
"""Bytes of a whole answer as it travels, with what the parser skips: interim answers, extensions of chunks."""
READ_AT_ONCE = 65_536
"""Bytes that may wait to be read; a compressed body is unpacked no further ahead."""

_AUTHORITY = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\[\]@:]+)(?::[0-9]{1,5})?")
_NO_URL = re.compile(r"[\x00-\x20\x7f-\xa0\\\s]")
# Others are read as UTF-8. Some of Python's codecs are no text, or take minutes for a long one.
_CHARSETS = re.compile(
    r"ascii|utf-(8|16)(-[bl]e)?|iso8859-[0-9]+|cp12[0-9]{2}|koi8-[ru]|shift_jis|euc_(jp|kr)|big5|gbk|gb18030|gb2312"
)


class UrlInvalid(AddressRefused):
    """It is no URL that can be requested."""


class ExchangeFailed(Exception):
    """No whole answer came: not connected, cut off, or no HTTP."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered. Header names are in lower case; `cut`: there was more than is here."""

    status: int
    headers: dict[str, str]
    body: str
    cut: bool


def read_url(text: str) -> URL:
    """The URL as it will be requested. Raises UrlInvalid, which does not repeat it: a URL may hold secrets."""
    if _NO_URL.search(text):
        raise UrlInvalid(
            "the URL has a space, a control character or a backslash in it: encode them as %20 and the like"
        )
    try:
        # What is ASCII is sent as it is written: encoding it anew would break signed URLs.
        url = URL(text, encoded=text.isascii())
        authority, port = url.raw_authority, url.port
    except ValueError:
        raise UrlInvalid("the URL cannot be read") from None
    if url.scheme not in {"http", "https"} or not url.raw_host:
        raise UrlInvalid("the URL does not begin with http://host or https://host")
    if "@" in authority:
        raise UrlInvalid("the URL has a user in it: put a name and password into an Authorization header")
    if not _AUTHORITY.fullmatch(authority) or not port:
        raise UrlInvalid("the URL's host or port is none")
    return url


async def exchange(
    method: str,
    url: URL,
    addresses: Sequence[Address],
    *,
    headers: Mapping[str, str],
    body: bytes | None,
    wanted: Container[int],
) -> Answer:
    """Sends one request to one of these addresses and reads the answer. Raises ExchangeFailed.

    The body is read only of an answer whose status is wanted. The connection is closed in any case, also when
    this is cancelled.
    """
    connector = aiohttp.TCPConnector(
        resolver=_Pinned(addresses),
        use_dns_cache=False,
        force_close=True,
        socket_factory=_only_to(addresses),
    )
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,  # a proxy would look the name up anew
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                read_bufsize=READ_AT_ONCE,
                skip_auto_headers=("Content-Type",),  # a request without a body has none
                middlewares=(_once,),
            ) as session,
            session.request(method, url, headers=headers, data=body, allow_redirects=False) as response,
        ):
            shown, headers_cut = _shown(response.headers.items())
            if response.status not in wanted:
                return Answer(response.status, shown, "", cut=True)
            data, body_cut = await _first_bytes(response.content)
            text = _text(data, response.charset, whole=not body_cut)
            return Answer(response.status, shown, text, cut=headers_cut or body_cut)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        # Their own texts may quote the URL, and what the server sent.
        raise ExchangeFailed(_reason(error)) from None


async def _once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    # aiohttp would send a GET, PUT or DELETE again whose connection was closed. Here a job is repeated, by its policy.
    try:
        return await send(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise ExchangeFailed(_reason(error)) from None


async def _first_bytes(content: aiohttp.StreamReader) -> tuple[bytes, bool]:
    data = bytearray()
    async for chunk in content.iter_any():
        data += chunk
        if len(data) > LONGEST_BODY:
            return bytes(data[:LONGEST_BODY]), True
    return bytes(data), False


def _text(data: bytes, charset: str | None, *, whole: bool) -> str:
    """The bytes as text. What cannot be read is replaced; a character that the cut went through is left out."""
    try:
        name = codecs.lookup(charset or "utf-8").name
    except (LookupError, ValueError):
        name = "utf-8"
    decoder = codecs.getincrementaldecoder(name if _CHARSETS.fullmatch(name) else "utf-8")("replace")
    return decoder.decode(data, final=whole)


def _shown(headers: Iterable[tuple[str, str]]) -> tuple[dict[str, str], bool]:
    """The headers by lower-case name, repeated ones joined, as long as all are not too long together."""
    shown: dict[str, str] = {}
    size = 0
    for name, value in headers:
        size += len(name) + len(value)
        if size > LONGEST_HEADERS:
            return shown, True
        # Bytes that are no UTF-8 come as surrogates, which no JSON can hold.
        text = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        key = name.lower().encode("ascii", "replace").decode()
        shown[key] = f"{shown[key]}, {text}" if key in shown else text
    return shown, False


def _reason(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            verdict = getattr(error.certificate_error, "verify_message", "")
            return f"its certificate is refused: {verdict or 'it does not fit the host'}"
        case aiohttp.ClientConnectorSSLError():
            return "no TLS connection could be made"
        case aiohttp.ServerTimeoutError() | TimeoutError():
            return f"no connection within {CONNECT_SECONDS} s"
        case aiohttp.ClientConnectorError():
            known = error.os_error.errno
            return f"no connection: {os.strerror(known) if known else 'it failed'}"
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed before an answer came"
        case aiohttp.ClientPayloadError():
            return "the answer was cut off or cannot be unpacked"
        case aiohttp.ClientResponseError():
            return "the answer is no HTTP, or its headers are too long"
        case aiohttp.ClientOSError() if error.errno:
            return f"the connection was lost: {os.strerror(error.errno)}"
        case _:
            return f"the connection was lost ({type(error).__name__})"


class _Pinned(AbstractResolver):
    """Answers with addresses that are known already."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 - all are taken
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in self._addresses
        ]

    async def close(self) -> None: ...


def _only_to(addresses: Sequence[Address]) -> aiohttp.SocketFactoryType:
    """Makes sockets for these addresses; another one has come past the resolver."""

    def make(info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, sockaddr = info
        if ip_address(sockaddr[0]) not in addresses:
            raise AddressRefused("the connection would have gone to an address that was not checked")
        return _Bounded(family, kind, protocol)

    return make


class _Bounded(socket.socket):
    """Breaks off when more is received than an answer has.

    uvloop reads from the descriptor itself and passes it by: there the job's timeout is the only bound.
    """

    _left = MOST_RECEIVED

    def recv(self, *args: Any) -> bytes:
        data = super().recv(*args)
        self._count(len(data))
        return data

    def recv_into(self, *args: Any) -> int:
        count = super().recv_into(*args)
        self._count(count)
        return count

    def _count(self, received: int) -> None:
        self._left -= received
        if self._left < 0:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))

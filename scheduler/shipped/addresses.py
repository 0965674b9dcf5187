"""Where jobs may make a worker connect to: public addresses, and the places that SCHEDULER_HTTP_ALLOW names."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from ..errors import Permanent
from ..threads import Threads

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Python's own `is_global` has gaps that differ by its version, so both must agree. The list is IANA's two
# registries of special-purpose addresses, and the anycast relay of 6to4.
_SPECIAL_IPV4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
            "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
            "168.63.129.16/32",  # looks public, and is the host's agent on Azure
        ),
    )
)  # fmt: skip
_UNICAST_IPV6 = IPv6Network("2000::/3")
_SPECIAL_IPV6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
_TRANSLATED = tuple(
    map(IPv6Network, ("::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16"))
)
"""IPv6 addresses that lead to an IPv4 address in them."""

_NAME = re.compile(
    r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.?"
)
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")

_lookups = Threads()
"""Daemon threads: a name server that does not answer keeps no process from ending."""


class AddressRefused(Permanent):
    """The address is not public and no setting opens it, or it is none at all. Trying again will not help."""


class NameNotFound(Exception):
    """The name has no address now."""


@dataclass(frozen=True, slots=True)
class Place:
    """One entry of SCHEDULER_HTTP_ALLOW: a host name or a network, on one port or on all."""

    name: str | None
    network: Network | None
    port: int | None

    def has_name(self, host: str, port: int) -> bool:
        return self.name is not None and self.name == bare(host) and self.port in {None, port}

    def has_address(self, address: Address, port: int) -> bool:
        # An IPv4 address is in no IPv6 network, and the other way round.
        return self.network is not None and address in self.network and self.port in {None, port}


@lru_cache(16)
def read_places(entries: tuple[str, ...]) -> tuple[Place, ...]:
    """The entries of SCHEDULER_HTTP_ALLOW, whose form was checked when the settings were read."""
    return tuple(map(_place, entries))


def _place(entry: str) -> Place:
    host, port = entry, ""
    if entry.startswith("["):
        host, _, port = entry[1:].partition("]")
    elif entry.count(":") == 1:
        host, _, port = entry.partition(":")
    number = int(port.lstrip(":")) if port else None
    try:
        return Place(None, ipaddress.ip_network(host), number)
    except ValueError:
        return Place(bare(host), None, number)


def bare(host: str) -> str:
    """A host name as names are compared: in lower case, without the dot that may end it."""
    return host.lower().removesuffix(".")


def is_public(address: Address) -> bool:
    """Whether the address is one host on the Internet, and not a detour to another address."""
    if not address.is_global or address.is_multicast:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_IPV4)
    return (
        address.scope_id is None
        and address in _UNICAST_IPV6
        and not any(address in network for network in _SPECIAL_IPV6)
    )


def may_reach(address: Address, port: int, places: Iterable[Place]) -> bool:
    """Whether the address is public, or one of the networks opens it.

    Where an IPv6 address leads to an IPv4 address, both must be open.
    """
    inner = _translated(address)
    return (is_public(address) or any(place.has_address(address, port) for place in places)) and (
        inner is None or may_reach(inner, port, places)
    )


def _translated(address: Address) -> IPv4Address | None:
    if isinstance(address, IPv4Address) or not any(address in network for network in _TRANSLATED):
        return None
    return address.sixtofour or IPv4Address(int(address) & 0xFFFF_FFFF)


def read_host(text: str) -> Address | str:
    """The host of a URL: an address, or a name. Raises ValueError for what is neither.

    An IPv4 address is four decimal numbers. What else libraries read as one (127.1, 0x7f000001, 017700000001) is none here.
    """
    if ":" in text:
        return IPv6Address(text)
    if len(text) > 254 or not _NAME.fullmatch(text):
        raise ValueError("neither an address nor a host name")
    if _NUMBER.fullmatch(bare(text).rpartition(".")[2]):
        return IPv4Address(text)
    return text


async def checked_addresses(host: str, port: int, places: Iterable[Place]) -> list[Address]:
    """All addresses of a host, each of which may be reached.

    Raises AddressRefused when one may not be, or when `host` is no host; NameNotFound when the name has no address now.
    """
    try:
        read = read_host(host)
    except ValueError:
        raise AddressRefused(
            "the URL's host is neither a name nor an address (an IPv4 address is four decimal numbers)"
        ) from None
    found: list[Address] = [read] if not isinstance(read, str) else await _lookups.run(look_up, host, port)
    if any(place.has_name(host, port) for place in places):
        return found
    if not all(may_reach(address, port, places) for address in found):
        # What a name leads to inside the network is nothing that its producer needs to learn.
        shown = f"[{host}]" if ":" in host else host
        raise AddressRefused(
            f"{shown} is not on the public network, where http.request may go. "
            f"SCHEDULER_HTTP_ALLOW={shown}:{port} for the workers opens it"
        )
    return found


def look_up(name: str, port: int) -> list[Address]:
    """The addresses of a name, in the resolver's order. Raises NameNotFound. It blocks."""
    try:
        # As bytes the name reaches the resolver as it is, without Python's own rules for names.
        answers = socket.getaddrinfo(name.encode("ascii"), port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise NameNotFound(f"{name} has no address: {error.strerror or error}") from None
    addresses = dict.fromkeys(
        ipaddress.ip_address(str(sockaddr[0]))
        for family, _, _, _, sockaddr in answers
        if family in {socket.AF_INET, socket.AF_INET6}
    )
    if not addresses:
        raise NameNotFound(f"{name} has no address")
    return list(addresses)

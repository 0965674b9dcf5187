"""What a setting or an option takes: in words for people, and as a function that reads text."""

import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from .times import seconds, typed_duration_ms

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """The two together. `read` raises ValueError; its caller says whose value it was, and what that takes.

    `schema` is the same for machines: JSON Schema 2020-12 of the value in scheduler.toml, where a number may be written
    as one. Its bounds hold for numbers, its pattern for text, as JSON Schema has it.
    """

    takes: str
    read: Callable[[str], T]
    schema: Mapping[str, Any]
    secret: bool = False


def matching(pattern: str, takes: str, *, secret: bool = False) -> Kind[str]:
    """Text that the whole pattern fits."""

    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError
        return text

    return Kind(takes, read, {"type": "string", "pattern": f"^(?:{pattern})$"}, secret)


def choice(*words: str) -> Kind[str]:
    return Kind(_or(words), matching("|".join(words), "").read, {"enum": list(words)})


def whole(least: int, most: int) -> Kind[int]:
    def read(text: str) -> int:
        if not re.fullmatch("[0-9]{1,18}", text):
            raise ValueError
        return _within(least, int(text), most)

    bounds = {"minimum": least, "maximum": most}
    return Kind(
        f"a whole number from {least} to {most}",
        read,
        {"type": ["integer", "string"], **bounds, "pattern": "^[0-9]{1,18}$"},
    )


def duration(least: str, most: str) -> Kind[int]:
    """Milliseconds. Bounds are written as a user would write them."""
    bounds = typed_duration_ms(least), typed_duration_ms(most)
    return Kind(
        f'a duration from {least} to {most}, such as "250ms", "30s", "5m", "2h", or plain seconds',
        lambda text: _within(bounds[0], typed_duration_ms(text), bounds[1]),
        {
            "type": ["number", "string"],
            "minimum": seconds(bounds[0]),
            "maximum": seconds(bounds[1]),
            "pattern": r"^[0-9]{1,15}(\.[0-9]{1,9})?(ms|s|m|h|d)?$",
        },
    )


def size(least: int, most: str) -> Kind[int]:
    """Bytes."""
    units = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

    def read(text: str) -> int:
        found = re.fullmatch("([0-9]{1,15})(KiB|MiB|GiB)?", text)
        if not found:
            raise ValueError
        return int(found[1]) * units[found[2] or ""]

    return Kind(
        f'bytes from {least} to {most}, such as "65536", "64KiB" or "1MiB"',
        lambda text: _within(least, read(text), read(most)),
        {
            "type": ["integer", "string"],
            "minimum": least,
            "maximum": read(most),
            "pattern": "^[0-9]{1,15}(KiB|MiB|GiB)?$",
        },
    )


def url(*schemes: str) -> Kind[str]:
    """A URL of one of these schemes. It may hold a password, so it is a secret."""
    begins = rf"({'|'.join(map(re.escape, schemes))})://\S*"

    def read(text: str) -> str:
        # What it names is for its driver to judge; a port that is none is found here, before anything starts.
        if not re.fullmatch(begins, text):
            raise ValueError
        if "," not in text:
            _ = urlsplit(text).port
        return text

    takes = f"a URL that begins with {_or(f'{scheme}://' for scheme in schemes)}"
    return Kind(takes, read, {"type": "string", "pattern": f"^{begins}$"}, secret=True)


def secret() -> Kind[str]:
    """Text that travels in a header."""
    return matching(r"[\x21-\x7e]{1,512}", "1 to 512 visible ASCII characters, no space", secret=True)


def signing_secret() -> Kind[str]:
    """A secret as Standard Webhooks has it, or any text."""
    text = secret()

    def read(value: str) -> str:
        signing_key(value)
        return text.read(value)

    return Kind(f"{text.takes}; after whsec_ base64", read, text.schema, secret=True)


def signing_key(secret: str) -> bytes:
    """The key of a signing secret: what stands in base64 after whsec_, or the text as it is. Raises ValueError."""
    bare = secret.removeprefix("whsec_").rstrip("=")
    if not secret.startswith("whsec_"):
        return secret.encode()
    if not bare:
        raise ValueError
    return b64decode(bare + "=" * (-len(bare) % 4), validate=True)


def allowed_places() -> Kind[tuple[str, ...]]:
    """A comma list of addresses, networks and host names, each with an optional port."""

    def read(text: str) -> tuple[str, ...]:
        places = tuple(place.strip() for place in text.split(","))
        for place in places:
            _check_place(place)
        return places

    return Kind(
        "a comma list of addresses, networks or host names, each with an optional port, "
        'such as "10.0.0.0/8,[fd00::1]:8443,hooks.internal:8080"',
        read,
        {"type": ["string", "array"], "items": {"type": "string"}, "minLength": 1, "minItems": 1},
    )


def host_names() -> Kind[tuple[str, ...]]:
    """A comma list of host names and addresses, without ports; `*.` before a name stands for every name below it."""
    label = "[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"

    def read(text: str) -> tuple[str, ...]:
        names = tuple(name.strip() for name in text.split(","))
        for name in names:
            if not re.fullmatch(rf"(?:\*\.)?(?:{label}\.)*{label}\.?|\[[0-9a-fA-F:.]+\]", name):
                raise ValueError
        return names

    return Kind(
        'a comma list of host names or addresses without ports, such as "jobs.internal,*.example.com"',
        read,
        {"type": ["string", "array"], "items": {"type": "string"}, "minLength": 1, "minItems": 1},
    )


def _check_place(place: str) -> None:
    """Raises ValueError unless it is an address, a network or a host name, with or without a port."""
    if ":" in place and not place.startswith("[") and place.count(":") > 1:
        ip_network(place)  # an IPv6 address or network without a port
        return
    found = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^:\[\]]+))(?::([0-9]{1,5}))?", place)
    if not found:
        raise ValueError
    bracketed, bare, port = found.groups()
    if port:
        _within(1, int(port), 65535)
    # A host name's last label is never all digits: 10.0.0.256 is a mistyped address.
    label = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    if bracketed or not re.fullmatch(rf"(?:{label}\.)*(?!\d+$){label}", bare):
        ip_network(bracketed or bare)


def _within(least: int, number: int, most: int) -> int:
    if not least <= number <= most:
        raise ValueError
    return number


def _or(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last

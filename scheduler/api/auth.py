"""Who may call: one bearer key for everything under /v1; without a key, loopback only, under this server's own names."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import socket

from aiohttp import hdrs, web

from ..settings import Settings, SettingsError
from .parts import SETTINGS
from .problems import Refusal
from .reference import FILES

OPEN = frozenset({"/", "/livez", "/readyz", "/openapi.json", "/docs", *(f"/docs/{name}" for name in FILES)})


class Gate:
    """Lets through who has the key; everybody where there is none."""

    def __init__(self, key: str | None) -> None:
        self._digest = None if key is None else hashlib.sha256(key.encode()).digest()

    def check(self, request: web.Request) -> None:
        """Raises Refusal, always the same one. What stands outside /v1 needs no key."""
        if self._digest is None:
            check_name(request)
            return
        if request.path in OPEN:
            return
        scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        digest = hashlib.sha256(given.strip().encode("utf-8", "surrogateescape")).digest()
        if not hmac.compare_digest(digest, self._digest) or scheme.lower() != "bearer":
            raise Refusal(
                "unauthorized",
                "send the key as Authorization: Bearer <key>",
                headers={hdrs.WWW_AUTHENTICATE: 'Bearer realm="scheduler"'},
            )


def check_name(request: web.Request) -> None:
    """Raises Refusal, where there is no key, for a request that names another host than this server.

    A web page can point its own name at 127.0.0.1 (DNS rebinding). The browser then takes the server for a part of that
    site, so the name in `Host` is the only difference. A request without `Host` (HTTP/1.0) comes from no browser.
    """
    settings = request.app[SETTINGS]
    given = list(request.headers.getall(hdrs.HOST, ()))
    if not request.raw_path.startswith(("/", "*")):
        # A whole address in the request line overrules `Host`: the authority stands between "//" and the next "/".
        given.append(re.split("[/?#]", request.raw_path.partition("//")[2], maxsplit=1)[0])
    if not all(is_own_name(text, settings) for text in given):
        raise Refusal(
            "misdirected_request",
            "without a key the server answers to localhost, loopback addresses and SCHEDULER_HOST only: "
            "name this host in SCHEDULER_ALLOWED_HOSTS, or set SCHEDULER_API_KEY",
        )


_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{0,5})?")


def is_own_name(text: str, settings: Settings) -> bool:
    """Whether the text of a `Host` header names this server. The port does not matter: it may be forwarded."""
    found = _HOST.fullmatch(text)
    if found is None:
        return False
    name = _plain(found[1] or found[2])
    if name == "localhost" or name.endswith(".localhost") or name == _plain(settings.host.strip("[]")):
        return True
    for allowed in settings.allowed_hosts or ():
        if name == _plain(allowed) or (allowed.startswith("*.") and name.endswith(_plain(allowed[1:]))):
            return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _plain(name: str) -> str:
    """A host name in lower case without the final dot, an address in its shortest form."""
    name = name.lower().removesuffix(".")
    try:
        return str(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return name


def check_site(request: web.Request) -> None:
    """Raises Refusal, where there is no key, for what a page of another site would change.

    A browser on this machine reaches loopback, whatever page it shows, and a form without fields needs no leave to be
    sent. A key is nothing that a browser adds by itself.
    """
    if request.app[SETTINGS].api_key is None and _from_another_site(request):
        raise Refusal("forbidden", "without a key, pages of other sites may not change anything")


def _from_another_site(request: web.Request) -> bool:
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get(hdrs.ORIGIN)
    if site is not None:
        return site not in {"same-origin", "none"}
    return origin is not None and origin.partition("://")[2] != request.headers.get(hdrs.HOST)


def check_host(settings: Settings) -> None:
    """Raises SettingsError for an address that others can reach while no key is set."""
    if settings.api_key is None and not _is_loopback(settings.host):
        sentence = (
            f"SCHEDULER_HOST is {settings.host}, which others can reach, and no key is set: "
            "set SCHEDULER_API_KEY (or SCHEDULER_API_KEY_FILE) to a secret, or bind to 127.0.0.1"
        )
        raise SettingsError([sentence])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        pass
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(found) and all(
        ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in found
    )

"""Who may call: one bearer key for everything under /v1, and loopback alone where there is none."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
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
        if self._digest is None or request.path in OPEN:
            return
        scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        digest = hashlib.sha256(given.strip().encode("utf-8", "surrogateescape")).digest()
        if not hmac.compare_digest(digest, self._digest) or scheme.lower() != "bearer":
            raise Refusal(
                "unauthorized",
                "send the key as Authorization: Bearer <key>",
                headers={hdrs.WWW_AUTHENTICATE: 'Bearer realm="scheduler"'},
            )


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

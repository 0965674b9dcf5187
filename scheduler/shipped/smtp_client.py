"""Hands one message to a mail server. Imported when a job needs it."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from socket import getfqdn
from urllib.parse import unquote, urlsplit

import aiosmtplib

from ..threads import Threads

COMMAND_SECONDS = 60
"""For the connection, and for the answer to each command."""

_ABOUT_LOGIN = frozenset((530, 534, 535, 538))
_TOO_MANY_RECIPIENTS = 552  # instead of 452, by older servers: RFC 5321, 4.5.3.1.10

_lookups = Threads()


class MailServerFailed(Exception):
    """The server cannot be used: not there, gone half-way, no TLS, the login refused. It may have taken the mail."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where SCHEDULER_SMTP_URL leads."""

    host: str
    port: int
    tls: bool
    user: str | None = field(repr=False)
    password: str = field(repr=False)
    hello: str
    """What we call ourselves."""
    default_sender: str

    @property
    def is_local(self) -> bool:
        """Nobody else hears what is said to it."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"


@dataclass(slots=True)
class Outcome:
    """Who was accepted; who was refused for good, who only for now, and with what words."""

    accepted: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    deferred: dict[str, str] = field(default_factory=dict)


async def read_server(url: str) -> Server:
    """The server of an smtp:// or smtps:// URL. Raises MailServerFailed when it names none."""
    parts = urlsplit(url)
    if not parts.hostname:
        raise MailServerFailed("SCHEDULER_SMTP_URL names no host: write smtp://user:password@host:port")
    tls = parts.scheme == "smtps"
    user = None if parts.username is None else unquote(parts.username)
    own = await _own_name()
    return Server(
        host=parts.hostname,
        port=parts.port or (465 if tls else 25),
        tls=tls,
        user=user,
        password=unquote(parts.password or ""),
        # A machine without a full name is to say its address.
        hello=own or "[127.0.0.1]",
        default_sender=user if user and "@" in user else f"scheduler@{own or 'localhost'}",
    )


_own_names: list[str] = []


async def _own_name() -> str:
    """This machine's full name, or "" when it has none. Asked once: a name server may take its time."""
    if not _own_names:
        found: str = await _lookups.run(getfqdn)
        _own_names.append(found if "." in found and found.isascii() else "")
    return _own_names[0]


async def deliver(server: Server, sender: str, recipients: Sequence[str], message: bytes) -> Outcome:
    """Hands the message over for each recipient. Raises MailServerFailed.

    By smtps:// it is encrypted from the first byte. By smtp:// it is encrypted where the server offers STARTTLS;
    a password is sent only when it does and its certificate is valid, except to this machine itself.
    """
    strict = server.tls or (server.user is not None and not server.is_local)
    where = f"the mail server {server.host}:{server.port}"
    client = aiosmtplib.SMTP(
        hostname=server.host,
        port=server.port,
        username=server.user,
        password=None if server.user is None else server.password,
        local_hostname=server.hello,
        timeout=COMMAND_SECONDS,
        use_tls=server.tls,
        start_tls=False if server.tls else (True if strict else None),
        # Without a password at stake any certificate will do, as between mail servers: the alternative is clear text.
        tls_context=_tls(verified=strict),
    )
    try:
        await client.connect()
        outcome = await _hand_over(client, sender, recipients, message)
        # It is said and done; a server that is slow to say goodbye must not undo it.
        with contextlib.suppress(aiosmtplib.SMTPException, OSError):
            await client.quit(timeout=1)
    except aiosmtplib.SMTPAuthenticationError as error:
        raise MailServerFailed(f"{where} refused the login ({error.code})") from None
    except aiosmtplib.SMTPResponseException as error:
        raise MailServerFailed(f"{where} answered {_words(error)}") from None
    except ssl.SSLCertVerificationError as error:
        raise MailServerFailed(f"{where} has no valid certificate: {error.verify_message}") from None
    except (aiosmtplib.SMTPException, OSError) as error:
        raise MailServerFailed(f"{where}: {error}") from None
    finally:
        client.close()
    return outcome


async def _hand_over(
    client: aiosmtplib.SMTP, sender: str, recipients: Sequence[str], message: bytes
) -> Outcome:
    outcome = Outcome()
    size = [f"SIZE={len(message)}"] if client.supports_extension("size") else []
    taken = []
    try:
        await client.mail(sender, options=size)
        for address in recipients:
            try:
                await client.rcpt(address)
                taken.append(address)
            except aiosmtplib.SMTPRecipientRefused as error:
                _sort(outcome, [address], error, for_now=error.code == _TOO_MANY_RECIPIENTS)
        if taken:
            await client.data(message)
            outcome.accepted = taken
    except aiosmtplib.SMTPSenderRefused as error:
        if error.code in _ABOUT_LOGIN:
            raise
        _sort(outcome, recipients, error)
    except aiosmtplib.SMTPDataError as error:
        _sort(outcome, taken, error)
    return outcome


def _sort(
    outcome: Outcome,
    addresses: Sequence[str],
    error: aiosmtplib.SMTPResponseException,
    *,
    for_now: bool = False,
) -> None:
    group = outcome.refused if 500 <= error.code < 600 and not for_now else outcome.deferred
    group.update(dict.fromkeys(addresses, _words(error)))


def _words(error: aiosmtplib.SMTPResponseException) -> str:
    # What is no ASCII comes as surrogates, which no JSON can hold.
    text = error.message.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return f"{error.code} {' '.join(text.split())}"[:500]


@lru_cache(2)
def _tls(*, verified: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context

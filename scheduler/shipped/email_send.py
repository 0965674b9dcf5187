"""email.send: one mail to one or more addresses, by SCHEDULER_SMTP_URL or into .scheduler/outbox/."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, formataddr
from pathlib import Path
from typing import Any

import msgspec

from ..context import Context
from ..errors import PayloadInvalid, Permanent
from ..handlers import make_handler

OUTBOX = Path(".scheduler", "outbox")
"""Where mails are written without a server, below the working directory."""
MOST_RECIPIENTS = 100
"""As many as every mail server takes in one go (RFC 5321, 4.5.3.1.8)."""
MOST_ATTACHMENTS = 50
LARGEST_ATTACHMENTS = 25 * 1024 * 1024
"""Bytes of all attachments of a mail. The payload's own limit (SCHEDULER_MAX_PAYLOAD) is usually reached before."""

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"(?=[^@]{{1,64}}@[^@]{{1,253}}\Z){_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})*")
_NAMED = re.compile(r'(?:"([^"\\]*)"|([^"<>]*?))\s*<([^<>]*)>')
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,63}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,63}")
# Besides C0 and C1, what some program takes for the end of a line.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class EveryRecipientRefused(Permanent):
    """The server refused each recipient, or the mail itself, for good. Trying again will not help."""


class MailDeferred(Exception):
    """The server does not take the mail for some recipients now, and may later."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address, and the name of whom it belongs to."""

    name: str
    address: str


class _Attachment(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    content: bytes = msgspec.field(name="base64")
    type: str = "application/octet-stream"


class _Payload(msgspec.Struct, forbid_unknown_fields=True):
    to: str | list[str]
    subject: str
    body: str
    sender: str | None = msgspec.field(name="from", default=None)
    cc: str | list[str] | None = None
    bcc: str | list[str] | None = None
    reply_to: str | list[str] | None = None
    html: str | None = None
    attachments: list[_Attachment] | None = None


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file of a mail. `type` is its media type, such as application/pdf."""

    name: str
    type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail whose parts may stand in a message."""

    to: tuple[Mailbox, ...]
    subject: str
    body: str
    sender: Mailbox | None
    cc: tuple[Mailbox, ...] = ()
    bcc: tuple[Mailbox, ...] = ()
    reply_to: tuple[Mailbox, ...] = ()
    html: str | None = None
    attachments: tuple[Attachment, ...] = ()

    @property
    def recipients(self) -> list[str]:
        """The addresses of all recipients, each once."""
        return list(dict.fromkeys(box.address for box in (*self.to, *self.cc, *self.bcc)))


_payloads = msgspec.json.Decoder(_Payload)


def read_mail(payload: bytes) -> dict[str, Mail]:
    """The handler's argument. Raises PayloadInvalid, which says which part cannot be and why."""
    try:
        raw = _payloads.decode(payload)
        to, cc, bcc, reply_to = (
            _read_list(value, name)
            for name, value in (("to", raw.to), ("cc", raw.cc), ("bcc", raw.bcc), ("reply_to", raw.reply_to))
        )
        if not to:
            raise ValueError("to: at least one address")
        if len(to) + len(cc) + len(bcc) > MOST_RECIPIENTS:
            raise ValueError(
                f"to, cc and bcc: at most {MOST_RECIPIENTS} addresses, not {len(to) + len(cc) + len(bcc)}"
            )
        if len(raw.subject) > 900 or _CONTROL.search(raw.subject):
            raise ValueError("subject: at most 900 characters without a line break or control character")
        for name, text in (("body", raw.body), ("html", raw.html or "")):
            if "\0" in text:
                raise ValueError(f"{name}: a mail has no NUL character")
        attachments = _read_attachments(raw.attachments or [])
        sender = None if raw.sender is None else read_mailbox(raw.sender, "from")
    except (msgspec.MsgspecError, ValueError) as error:
        raise PayloadInvalid(f"the payload of email.send is no mail: {error}") from None
    mail = Mail(to, raw.subject, raw.body, sender, cc, bcc, reply_to, raw.html, attachments)
    return {"mail": mail}


def _read_list(value: str | list[str] | None, name: str) -> tuple[Mailbox, ...]:
    """One address or a list of them, each once. Raises ValueError, which begins with the field and its place."""
    texts = [] if value is None else [value] if isinstance(value, str) else value
    if len(texts) > MOST_RECIPIENTS:
        raise ValueError(f"{name}: at most {MOST_RECIPIENTS} addresses, not {len(texts)}")
    boxes = (read_mailbox(text, f"{name}[{n}]") for n, text in enumerate(texts))
    return tuple({box.address: box for box in boxes}.values())


def _read_attachments(raw: list[_Attachment]) -> tuple[Attachment, ...]:
    """Raises ValueError, which begins with the place of what cannot be attached."""
    if len(raw) > MOST_ATTACHMENTS:
        raise ValueError(f"attachments: at most {MOST_ATTACHMENTS}, not {len(raw)}")
    if sum(len(one.content) for one in raw) > LARGEST_ATTACHMENTS:
        raise ValueError(f"attachments: at most {LARGEST_ATTACHMENTS >> 20} MiB in all")
    for n, one in enumerate(raw):
        if not 1 <= len(one.name) <= 200 or _CONTROL.search(one.name) or re.search(r"[/\\]", one.name):
            raise ValueError(
                f"attachments[{n}].name: 1 to 200 characters, no slash, backslash or control character"
            )
        if not _MEDIA_TYPE.fullmatch(one.type) or one.type.lower().startswith(("multipart/", "message/")):
            raise ValueError(
                f"attachments[{n}].type: a media type such as application/pdf, not of multipart or message"
            )
    return tuple(Attachment(one.name, one.type.lower(), one.content) for one in raw)


def read_mailbox(text: str, where: str) -> Mailbox:
    """`a@example.com` or `Ada <a@example.com>`. Raises ValueError, which begins with `where`."""
    if len(text) > 600 or _CONTROL.search(text):
        raise ValueError(f"{where}: an address is short and has no line break or control character")
    named = _NAMED.fullmatch(text.strip(" "))
    name, address = ((named[1] or named[2] or "").strip(), named[3]) if named else ("", text.strip(" "))
    if not _ADDRESS.fullmatch(address):
        raise ValueError(
            f"{where}: {text[:100]!r} is no address: write a@example.com or Ada <a@example.com>, in ASCII but for the name"
        )
    if len(name) > 200:
        raise ValueError(f"{where}: a name has at most 200 characters")
    return Mailbox(name, address)


async def email_send(ctx: Context, mail: Mail) -> dict[str, Any]:
    """Sends the mail and answers its Message-ID, who was accepted, and who was refused with what words.

    Raises EveryRecipientRefused, which is permanent; MailDeferred and MailServerFailed. The attempt after a
    MailDeferred asks only for those who were neither accepted nor refused.
    """
    mark = mark_of(ctx)
    if ctx.settings.smtp_url is None:
        sender = mail.sender or Mailbox("", "scheduler@localhost")
        message_id, message = compose(mail, sender, mark)
        path = await asyncio.to_thread(put_in_outbox, f"{mark}.eml", message)
        ctx.log(f"written to {path}: SCHEDULER_SMTP_URL is not set")
        return {"message_id": message_id, "accepted": mail.recipients, "refused": {}}

    from .smtp_client import deliver, read_server  # noqa: PLC0415 - only where mails are sent

    server = await read_server(ctx.settings.smtp_url)
    sender = mail.sender or Mailbox("", server.default_sender)
    message_id, message = compose(mail, sender, mark)
    before = Past.left_by(ctx, mark)
    remaining = [address for address in mail.recipients if not before.knows(address)]
    now = await deliver(server, sender.address, remaining, message)
    accepted, refused = [*before.accepted, *now.accepted], before.refused | now.refused
    if now.deferred:
        ctx.checkpoint({"mail": mark, "accepted": accepted, "refused": refused})
        # Should this attempt be the last, the job's error is all that tells who has the mail.
        told = f"{len(now.deferred)} of {len(mail.recipients)} recipients are to wait: {listed(now.deferred)}"
        if accepted:
            told += f"; accepted: {', '.join(accepted)}"
        if refused:
            told += f"; refused for good: {listed(refused)}"
        raise MailDeferred(told)
    if not accepted:
        raise EveryRecipientRefused(f"every recipient is refused: {listed(refused)}")
    return {"message_id": message_id, "accepted": accepted, "refused": refused}


def mark_of(ctx: Context) -> str:
    """The same for each attempt of a job, and another one for another job, though it had the same id or payload."""
    created = ctx.claimed.record.created_ms if ctx.claimed.record else 0
    return hashlib.sha256(f"{ctx.id} {created}\n".encode() + ctx.payload).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Past:
    """What earlier attempts of this mail brought about."""

    accepted: list[str]
    refused: dict[str, str]

    @classmethod
    def left_by(cls, ctx: Context, mark: str) -> Past:
        """Of the job's checkpoint, unless it is of another mail: a dead job's payload may have been replaced."""
        left = ctx.checkpointed
        if not isinstance(left, dict) or left.get("mail") != mark:
            return cls([], {})
        return cls(left["accepted"], left["refused"])

    def knows(self, address: str) -> bool:
        return address in self.accepted or address in self.refused


def listed(answers: Mapping[str, str]) -> str:
    """The first of them, for a message."""
    shown = [f"{address} ({answer})" for address, answer in list(answers.items())[:5]]
    more = len(answers) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def compose(mail: Mail, sender: Mailbox, mark: str) -> tuple[str, bytes]:
    """The Message-ID and the message, in lines of ASCII.

    The headers are encoded one by one: EmailMessage loses spaces where it breaks a long line of other than ASCII.
    """
    message_id = f"<{mark}@{sender.address.rpartition('@')[2]}>"
    content = EmailMessage(policy=SMTP.clone(cte_type="7bit"))
    content.set_content(mail.body)
    if mail.html is not None:
        content.add_alternative(mail.html, subtype="html")
    for one in mail.attachments:
        main, _, sub = one.type.partition("/")
        content.add_attachment(one.content, maintype=main, subtype=sub, filename=one.name)
    # Bcc is not among them: nobody may see those recipients.
    lists = {"To": mail.to, "Cc": mail.cc, "Reply-To": mail.reply_to}
    head = {
        "From": _mailbox(sender, "From"),
        **{
            name: ",\r\n ".join(_mailbox(box, name) for box in boxes)
            for name, boxes in lists.items()
            if boxes
        },
        "Subject": _words(mail.subject, "Subject"),
        "Date": format_datetime(datetime.now(UTC)),
        "Message-ID": message_id,
    }
    return message_id, "".join(f"{n}: {v}\r\n" for n, v in head.items()).encode("ascii") + content.as_bytes()


def _words(text: str, name: str) -> str:
    return Header(text, "us-ascii" if _is_plain(text) else "utf-8", header_name=name).encode(linesep="\r\n")


def _mailbox(box: Mailbox, name: str) -> str:
    if not box.name:
        return box.address
    if _is_plain(box.name):
        return formataddr((box.name, box.address))
    return f"{_words(box.name, name)} <{box.address}>"


def _is_plain(text: str) -> bool:
    # What looks like an encoded word is to be encoded itself, or a reader would decode it; and a word that fills a
    # line would leave an empty one before it.
    return text.isascii() and not re.search(r"=\?|\S{60}", text)


def put_in_outbox(name: str, message: bytes) -> Path:
    """Writes a file of the outbox, whole or not at all. A repeated job replaces its own."""
    for folder in (OUTBOX.parent, OUTBOX):
        folder.mkdir(mode=0o700, exist_ok=True)  # mails are nobody else's to read
    handle, temporary = tempfile.mkstemp(dir=OUTBOX, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(message)
        return Path(temporary).replace(OUTBOX / name)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


HANDLERS = (replace(make_handler("email.send", email_send, timeout="5m"), decode=read_mail),)

"""email.send: what is sent, to whom, and what becomes of those the server does not take."""

from __future__ import annotations

import asyncio
import email
import email.policy
import random
import re
import ssl
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from scheduler import shipped
from scheduler.errors import PayloadInvalid, Permanent
from scheduler.job import State
from scheduler.settings import Settings
from scheduler.shipped import smtp_client
from scheduler.shipped.email_send import EveryRecipientRefused, MailDeferred
from scheduler.shipped.smtp_client import MailServerFailed
from tests.running.conftest import QUEUE, Bench
from tests.running.shipped import CERTIFICATE, Attempts, server_tls

CANARY = "hunter2"
FROM_ABROAD: dict[str, Any] = {"from": "Der Büchershop <s@example.com>"}
BODY: dict[str, Any] = {"subject": "Hello", "body": "Good day\n", "from": "shop@example.com"}

FILE: dict[str, Any] = {"name": "a.bin", "type": "application/pdf", "base64": "AP8="}


@dataclass
class MailServer:
    """A real mail server on loopback. What it answers to RCPT and DATA is set by the test, by address or for all."""

    port: int = 0
    mails: list[Envelope] = field(default_factory=list)
    sessions: list[tuple[Any, bool]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)
    to_mail: str = "250 OK"
    to_data: str | None = "250 taken"
    """None: the connection is cut when the mail has been taken."""

    async def handle_MAIL(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return self.to_mail

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        self.asked.append(address)
        answer = self.answers.get(address, "250 OK")
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.sessions.append((session.auth_data, session.ssl is not None))
        if self.to_data is None:
            self.mails.append(envelope)
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
            return "250 nobody hears it"
        if self.to_data.startswith("250"):
            self.mails.append(envelope)
        return self.to_data

    @property
    def settings(self) -> Settings:
        return Settings(smtp_url=f"smtp://127.0.0.1:{self.port}")

    def message(self, number: int = -1) -> EmailMessage:
        content = self.mails[number].original_content
        assert content is not None
        return read(content)


def read(content: bytes) -> EmailMessage:
    return email.message_from_bytes(content, _class=EmailMessage, policy=email.policy.default)


def text_of(message: EmailMessage) -> str:
    return str(message.get_content()).replace("\r\n", "\n")


@asynccontextmanager
async def listening(
    server: MailServer, *, tls: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[MailServer]:
    listener = await asyncio.get_running_loop().create_server(
        lambda: SMTP(server, enable_SMTPUTF8=False, hostname="mail.test", **options), "127.0.0.1", 0, ssl=tls
    )
    async with listener:
        server.port = listener.sockets[0].getsockname()[1]
        yield server


@asynccontextmanager
async def speaking(*lines: bytes) -> AsyncIterator[Settings]:
    """A server that says these lines, one for each line it hears, whatever that is, and then goes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for line in lines:
            writer.write(line)
            await writer.drain()
            if not await reader.readline():
                break
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        yield Settings(smtp_url=f"smtp://127.0.0.1:{listener.sockets[0].getsockname()[1]}")


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with listening(MailServer()) as server:
        yield server


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tests' certificate is as good as any."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    smtp_client._tls.cache_clear()
    yield
    smtp_client._tls.cache_clear()


def sending(settings: Settings, **options: Any) -> Attempts:
    return Attempts("email.send", settings, **options)


# -- what is sent -----------------------------------------------------------------------------------------------------


async def test_a_mail_is_sent_and_its_id_answered(server):
    answer = await sending(server.settings)(to="ada@example.org", **BODY)

    [envelope] = server.mails
    message = server.message()
    assert ("shop@example.com", ["ada@example.org"]) == (envelope.mail_from, envelope.rcpt_tos)
    assert {"message_id": message["Message-ID"], "accepted": ["ada@example.org"], "refused": {}} == answer
    assert ("shop@example.com", "ada@example.org", "Hello", "Good day\n") == (
        message["From"],
        message["To"],
        message["Subject"],
        text_of(message),
    )
    assert re.fullmatch(r"<[0-9a-f]{32}@example\.com>", message["Message-ID"])
    assert message["Date"].datetime.tzinfo is not None


async def test_names_and_words_of_any_language_arrive_as_they_were(server):
    subject = "Grüße aus München, 日本語 — 😀 " * 20 + "=?utf-8?q?no?="
    to: list[str] = [
        "Zoë Müller <zoe@example.org>",
        '"Lovelace, Ada" <ada@example.org>',
        "=?x?= <b@example.org>",
    ]
    to += [f"Jürgen Müller-Lüdenscheidt {n}, Jr. <user{n}@example.org>" for n in range(50)]
    await sending(server.settings)(to=to, subject=subject, body="grün\n日本\n", **FROM_ABROAD)

    message = server.message()
    boxes = message["To"].addresses
    assert ["Zoë Müller", "Lovelace, Ada", "=?x?="] == [box.display_name for box in boxes[:3]]
    assert [f"Jürgen Müller-Lüdenscheidt {n}, Jr." for n in range(50)] == [
        box.display_name for box in boxes[3:]
    ]
    assert (subject, "Der Büchershop", "grün\n日本\n") == (
        message["Subject"],
        message["From"].addresses[0].display_name,
        text_of(message),
    )
    assert [envelope.rcpt_tos for envelope in server.mails] == [[box.addr_spec for box in boxes]]


async def test_any_subject_comes_back_from_its_header(server):
    chance = random.Random(1)
    words = [
        "the",
        "=?utf-8?q?no?=",
        "Grüße",
        "日本語",
        "—",
        "😀",
        "=?",
        "a_b",
        "100%",
        "Re:",
        "",
        ",",
        "x" * 90,
    ]
    for count in range(40):
        few = words if count % 2 else words[:2]
        subject = " ".join(chance.choice(few) for _ in range(chance.randint(1, 20))).strip()
        await sending(server.settings)(to="a@example.org", **BODY | {"subject": subject})

        assert subject == server.message()["Subject"]


@pytest.mark.parametrize(
    "body", [".\n", "a\n.\nMAIL FROM:<x@y>\n", "a\r\n.\r\nQUIT\r\n", ".a\n..b\n", "x" * 5000 + "\n", "a\rb\n", "From me\n", "\n\n", "😀" * 500 + "\n"]
)  # fmt: skip
async def test_a_body_arrives_as_it_was_and_ends_no_mail_early(server, body):
    await sending(server.settings)(to="a@example.org", **BODY | {"body": body})

    assert 1 == len(server.mails)
    assert re.sub("\r\n|\r", "\n", body) == text_of(server.message())
    assert 998 >= max(map(len, (server.mails[0].original_content or b"").split(b"\r\n")))


@pytest.mark.parametrize(
    "payload",
    [
        {"to": "a@example.org\r\nRCPT TO:<b@example.org>"}, {"to": "a@example.org\nBcc: b@example.org"}, {"to": "A\r\nBcc: b@c <a@example.org>"},
        {"to": "A\0 <a@example.org>"}, {"to": ["a@example.org", "nobody"]}, {"to": ""}, {"to": []}, {"to": "@example.org"}, {"to": "a@"},
        {"to": "a@b@example.org"}, {"to": "a b@example.org"}, {"to": "a@exa mple.org"}, {"to": "a@-example.org"}, {"to": "a@example..org"},
        {"to": "a..b@example.org"}, {"to": "<a@example.org"}, {"to": "a@example.org>"}, {"to": "a@example.org, b@example.org"},
        {"to": "a@example.org SIZE=1"}, {"to": "ä@example.org"}, {"to": "a@exämple.org"}, {"to": "a" * 65 + "@example.org"}, {"to": "a@" + "b." * 130 + "org"},
        {"to": '"a\\"b" <a@example.org>'}, {"to": "x" * 201 + " <a@example.org>"}, {"to": [f"a{n}@example.org" for n in range(101)]}, {"to": 1}, {"to": None},
        {"subject": "a\r\nBcc: b@example.org"}, {"subject": "a\nb"}, {"subject": "a\u2028b"}, {"subject": "a\x0bb"}, {"subject": "x" * 901}, {"subject": None},
        {"body": "a\0b"}, {"body": {"html": "x"}}, {"from": "shop"}, {"from": "a@b.c\r\nX: y"}, {"from": ["a@b.c"]}, {"sender": "a@b.c"},
        {"cc": "nobody"}, {"bcc": "a@example.org\r\nX: y"}, {"reply_to": ["a@example.org", "b"]}, {"cc": [f"a{n}@example.org" for n in range(100)]},
        {"html": "a\0b"}, {"html": 1}, {"attachments": {}}, {"attachments": [{"name": "a", "type": "text/plain"}]}, {"attachments": [FILE] * 51},
        {"attachments": [FILE | {"base64": "%%%"}]}, {"attachments": [FILE | {"base64": "YQ"}]}, {"attachments": [FILE | {"name": ""}]},
        {"attachments": [FILE | {"name": "../a"}]}, {"attachments": [FILE | {"name": "a\r\nX: y"}]}, {"attachments": [FILE | {"type": "text"}]},
        {"attachments": [FILE | {"type": "multipart/mixed"}]}, {"attachments": [FILE | {"type": "text/plain\r\nX: y"}]}, {"attachments": [FILE | {"x": 1}]},
    ],
)  # fmt: skip
async def test_what_is_no_mail_is_refused_before_anything_is_sent(server, payload):
    with pytest.raises(PayloadInvalid, match=r"^the payload of email\.send is no mail: "):
        await sending(server.settings)(**{"to": "a@example.org"} | BODY | payload)

    assert ([], []) == (server.asked, server.mails)


async def test_copies_reach_all_and_a_blind_copy_stands_in_no_header(server):
    answer = await sending(server.settings)(
        to="a@example.org",
        cc=["Zoë <c@example.org>", "a@example.org"],
        bcc="b@example.org",
        reply_to="r@example.org",
        **BODY,
    )
    message = server.message()

    assert ["a@example.org", "c@example.org", "b@example.org"] == server.asked == answer["accepted"]
    assert ("Zoë <c@example.org>, a@example.org", "r@example.org") == (message["Cc"], message["Reply-To"])
    assert b"b@example.org" not in (server.mails[-1].original_content or b"")


@pytest.mark.parametrize("html", [None, "<p>Grüße</p>\n" + "x" * 2_000])
async def test_html_and_attachments_arrive_as_they_were(server, html):
    files = [
        FILE,
        {"name": "Übersicht.csv", "type": "TEXT/CSV", "base64": "YTti"},
        {"name": "c", "base64": ""},
    ]
    body = BODY | {"body": "Grüße\n"}
    await sending(server.settings)(
        to="a@example.org", attachments=files, **({"html": html} if html else {}), **body
    )
    message = server.message()

    assert "multipart/mixed" == message.get_content_type()
    plain = message.get_body(("plain",))
    assert plain is not None
    assert "Grüße\n" == text_of(plain)
    rich = message.get_body(("html",))
    assert html == (rich and text_of(rich).removesuffix("\n"))
    assert [
        ("a.bin", "application/pdf", b"\0\xff"), ("Übersicht.csv", "text/csv", b"a;b"), ("c", "application/octet-stream", b""),
    ] == [(a.get_filename(), a.get_content_type(), a.get_payload(decode=True)) for a in message.iter_attachments()]  # fmt: skip


async def test_attachments_are_bounded_in_all(monkeypatch):
    monkeypatch.setattr("scheduler.shipped.email_send.LARGEST_ATTACHMENTS", 3)
    with pytest.raises(PayloadInvalid, match="attachments: at most"):
        await sending(Settings())(to="a@example.org", attachments=[FILE, FILE], **BODY)


async def test_a_very_long_address_is_refused_without_being_studied():
    before = time.process_time()
    with pytest.raises(PayloadInvalid, match=r"to\[0\]: an address is short"):
        await sending(Settings())(to=" " * 1_000_000 + "a", **BODY)

    assert 1 > time.process_time() - before


async def test_a_fault_is_named_by_its_place():
    with pytest.raises(PayloadInvalid, match=r"to\[1\]: 'nobody' is no address"):
        await sending(Settings())(to=["a@example.org", "nobody"], **BODY)
    with pytest.raises(PayloadInvalid, match="subject"):
        await sending(Settings())(to="a@example.org", body="x")


async def test_the_same_address_is_asked_once(server):
    await sending(server.settings)(to=["a@example.org", "A <a@example.org>", "b@example.org"], **BODY)

    assert ["a@example.org", "b@example.org"] == server.asked


async def test_every_character_an_address_may_have_reaches_the_server(server):
    address = "o'brien+tag!#$%&*/=?^_`{|}~-x.y@a-b.example.org"

    assert [address] == (await sending(server.settings)(to=address, **BODY))["accepted"]
    assert [address] == server.asked


async def test_the_sender_is_the_login_when_none_is_given_and_it_is_an_address(server):
    settings = Settings(smtp_url=f"smtp://shop%40example.com:x@127.0.0.1:{server.port}")
    async with listening(
        MailServer(), auth_require_tls=False, authenticator=lambda *_: AuthResult(success=True)
    ) as other:
        settings = replace(settings, smtp_url=f"smtp://shop%40example.com:x@127.0.0.1:{other.port}")
        await sending(settings)(to="a@example.org", subject="s", body="b")
    await sending(server.settings)(to="a@example.org", subject="s", body="b")

    assert "shop@example.com" == other.mails[0].mail_from
    assert re.fullmatch(r"scheduler@[\w.-]+", server.mails[0].mail_from or "")


# -- again ------------------------------------------------------------------------------------------------------------


async def test_a_repeated_mail_has_the_same_id_and_another_job_another(server):
    mail = {"to": "a@example.org", **BODY}
    send = sending(server.settings, key="order-1")
    first, again = await send(**mail), await send(**mail)
    other = await sending(server.settings, key="order-2")(**mail)
    edited = await sending(server.settings, key="order-1")(**mail | {"body": "other"})

    assert first["message_id"] == again["message_id"]
    assert 3 == len({answer["message_id"] for answer in (first, other, edited)})


async def test_a_lost_reply_leads_to_a_second_copy_that_can_be_recognised(server):
    send = sending(server.settings)
    server.to_data = None
    with pytest.raises(MailServerFailed):
        await send(to="a@example.org", **BODY)
    server.to_data = "250 taken"
    await send(to="a@example.org", **BODY)

    assert 2 == len(server.mails)
    assert server.message(0)["Message-ID"] == server.message(1)["Message-ID"]


async def test_some_refused_for_good_are_listed(server):
    server.answers["b@example.org"] = "550 5.1.1 no such user"
    answer = await sending(server.settings)(to=["a@example.org", "b@example.org"], **BODY)

    assert (["a@example.org"], {"b@example.org": "550 5.1.1 no such user"}) == (
        answer["accepted"],
        answer["refused"],
    )
    assert ["a@example.org"] == server.mails[0].rcpt_tos
    assert "a@example.org, b@example.org" == server.message()["To"]


async def test_all_refused_for_good_is_permanent(server):
    server.answers |= {"a@example.org": "550 no such user", "b@example.org": "553 never"}

    with pytest.raises(EveryRecipientRefused, match=re.escape("a@example.org (550 no such user), b@example.org (553 never)")) as refused:  # fmt: skip
        await sending(server.settings)(to=["a@example.org", "b@example.org"], **BODY)

    assert isinstance(refused.value, Permanent)
    assert [] == server.mails


async def test_all_put_off_is_tried_again(server):
    server.answers["a@example.org"] = "450 mailbox busy"
    send = sending(server.settings)
    with pytest.raises(
        MailDeferred, match=r"1 of 1 recipients are to wait: a@example.org \(450 mailbox busy\)"
    ) as put_off:
        await send(to="a@example.org", **BODY)
    server.answers.clear()

    assert not isinstance(put_off.value, Permanent)
    assert ["a@example.org"] == (await send(to="a@example.org", **BODY))["accepted"]


async def test_who_was_accepted_or_refused_is_not_asked_again(server):
    to = ["a@example.org", "b@example.org", "c@example.org"]
    server.answers |= {"b@example.org": "451 greylisted", "c@example.org": "550 no"}
    send = sending(server.settings)
    with pytest.raises(MailDeferred):
        await send(to=to, **BODY)
    with pytest.raises(MailDeferred) as put_off:
        await send(to=to, **BODY)
    server.answers.clear()
    answer = await send(to=to, **BODY)

    # Had that attempt been the last, the job's error would tell who has the mail all the same.
    assert str(put_off.value).endswith("; accepted: a@example.org; refused for good: c@example.org (550 no)")
    assert ["a@example.org", "b@example.org"] == answer["accepted"]
    assert {"c@example.org": "550 no"} == answer["refused"]
    assert [["a@example.org"], ["b@example.org"]] == [mail.rcpt_tos for mail in server.mails]
    assert [*to, "b@example.org", "b@example.org"] == server.asked
    assert server.message(0)["Message-ID"] == server.message(1)["Message-ID"]
    assert ", ".join(to) == server.message(1)["To"]


async def test_refused_after_another_was_accepted_is_a_success(server):
    server.answers["b@example.org"] = "451 greylisted"
    send = sending(server.settings)
    with pytest.raises(MailDeferred):
        await send(to=["a@example.org", "b@example.org"], **BODY)
    server.answers["b@example.org"] = "550 no"

    answer = await send(to=["a@example.org", "b@example.org"], **BODY)
    assert (["a@example.org"], {"b@example.org": "550 no"}) == (answer["accepted"], answer["refused"])


async def test_refused_in_two_attempts_is_permanent_when_nobody_is_left(server):
    server.answers |= {"a@example.org": "550 no", "b@example.org": "451 later"}
    send = sending(server.settings)
    with pytest.raises(MailDeferred):
        await send(to=["a@example.org", "b@example.org"], **BODY)
    server.answers["b@example.org"] = "550 neither"

    with pytest.raises(
        EveryRecipientRefused, match=r"a@example.org \(550 no\), b@example.org \(550 neither\)"
    ):
        await send(to=["a@example.org", "b@example.org"], **BODY)


async def test_a_mail_that_was_edited_goes_to_all_again(server):
    server.answers["b@example.org"] = "451 later"
    send = sending(server.settings)
    mail = {"to": ["a@example.org", "b@example.org"], **BODY}
    with pytest.raises(MailDeferred):
        await send(**mail)
    server.answers.clear()

    assert mail["to"] == (await send(**mail | {"subject": "Corrected"}))["accepted"]
    assert [["a@example.org"], mail["to"]] == [sent.rcpt_tos for sent in server.mails]


async def test_too_many_recipients_are_put_off_though_the_code_says_for_good(server):
    server.answers["b@example.org"] = "552 too many recipients"

    with pytest.raises(MailDeferred):
        await sending(server.settings)(to=["a@example.org", "b@example.org"], **BODY)

    assert ["a@example.org"] == server.mails[0].rcpt_tos


@pytest.mark.parametrize(
    ("to_mail", "to_data", "error"),
    [
        ("250 OK", "554 no spam", EveryRecipientRefused), ("250 OK", "451 try later", MailDeferred),
        ("553 not your address", "250 OK", EveryRecipientRefused), ("452 no room", "250 OK", MailDeferred),
        ("530 log in first", "250 OK", MailServerFailed), ("421 closing", "250 OK", MailDeferred),
    ],
)  # fmt: skip
async def test_the_mail_as_a_whole_may_be_refused_or_put_off(server, to_mail, to_data, error):
    server.to_mail, server.to_data = to_mail, to_data

    with pytest.raises(error, match=(to_mail if to_data.startswith("250") else to_data)[:3]):
        await sending(server.settings)(to=["a@example.org", "b@example.org"], **BODY)

    assert [] == server.mails


@pytest.mark.parametrize(
    "lines",
    [
        [b"554 go away\r\n"], [b"421 busy\r\n"], [b"HTTP/1.1 400 Bad Request\r\n\r\n"], [b"220 hi\r\n"], [b"220 hi\r\n", b"550 no\r\n", b"550 no\r\n"],
        [b"220 hi\r\n", b"250 me\r\n", b"250 ok\r\n"], [b"220 hi\r\n", b"250 me\r\n", b"250 ok\r\n", b"250 ok\r\n"],
        [b"220 hi\r\n", b"250 me\r\n", b"250 ok\r\n", b"421 bye\r\n"], [b"220 " + b"x" * 1_000_000], [b"\x16\x03\x01\x02\x00\x01\r\n"],
        [b"220 hi\r\n", b"250 me\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go on\r\n"],
    ],
)  # fmt: skip
async def test_a_server_that_fails_anywhere_leads_to_another_attempt(lines):
    async with speaking(*lines) as settings:
        with pytest.raises((MailServerFailed, MailDeferred)):
            await sending(settings)(to="a@example.org", **BODY)


async def test_a_silent_server_is_waited_for_no_longer_than_a_command_may_take(monkeypatch):
    monkeypatch.setattr(smtp_client, "COMMAND_SECONDS", 0.2)
    async with speaking(b"") as settings:
        with pytest.raises(MailServerFailed, match="Timed out"):
            await sending(settings)(to="a@example.org", **BODY)


async def test_a_server_s_odd_words_do_not_spoil_the_result():
    lines = [
        b"220 hi\r\n",
        b"250 me\r\n",
        b"250 ok\r\n",
        b"550 \xff\x00\x1b[31m\r\n",
        b"250 ok\r\n",
        b"354 go\r\n",
    ]
    async with speaking(*lines) as settings:
        with pytest.raises((MailServerFailed, EveryRecipientRefused)) as failed:
            await sending(settings)(to="a@example.org", **BODY)

    assert str(failed.value).encode()


async def test_a_server_that_is_not_there_is_named():
    with pytest.raises(MailServerFailed, match=r"^the mail server 127\.0\.0\.1:9: "):
        await sending(Settings(smtp_url=f"smtp://u:{CANARY}@127.0.0.1:9"))(to="a@example.org", **BODY)
    with pytest.raises(MailServerFailed, match="names no host"):
        await sending(Settings(smtp_url="smtp://"))(to="a@example.org", **BODY)


async def test_a_cancelled_mail_closes_its_connection():
    heard, closed = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        await reader.readline()
        heard.set()
        assert b"" == await reader.read()
        closed.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener, asyncio.timeout(10):
        settings = Settings(smtp_url=f"smtp://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
        task = asyncio.create_task(sending(settings)(to="a@example.org", **BODY))
        await heard.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await closed.wait()


# -- login and TLS ----------------------------------------------------------------------------------------------------


def password_is(expected: str) -> Callable[..., AuthResult]:
    def check(
        _server: SMTP, _session: Session, _envelope: Envelope, _how: str, given: LoginPassword
    ) -> AuthResult:
        return AuthResult(
            handled=False,
            success=given == LoginPassword(b"me@example.com", expected.encode()),
            auth_data=given.login,
        )

    return check


async def test_a_login_with_odd_characters_is_made():
    options: dict[str, Any] = {"auth_require_tls": False, "authenticator": password_is("p@ss:/ wörd")}
    async with listening(MailServer(), **options) as server:
        url = f"smtp://me%40example.com:p%40ss%3A%2F%20w%C3%B6rd@127.0.0.1:{server.port}"
        await sending(Settings(smtp_url=url))(to="a@example.org", **BODY)

    assert [(b"me@example.com", False)] == server.sessions


async def test_a_refused_login_is_tried_again_and_tells_no_password():
    options: dict[str, Any] = {"auth_require_tls": False, "authenticator": password_is("other")}
    async with listening(MailServer(), **options) as server:
        url = f"smtp://me%40example.com:{CANARY}@127.0.0.1:{server.port}"
        with pytest.raises(MailServerFailed, match=r"refused the login \(535\)") as failed:
            await sending(Settings(smtp_url=url))(to="a@example.org", **BODY)

    assert CANARY not in "".join(traceback.format_exception(failed.value))


async def test_starttls_is_used_where_it_is_offered():
    async with listening(MailServer(), tls_context=server_tls()) as server:
        await sending(server.settings)(to="a@example.org", **BODY)

    assert [(None, True)] == server.sessions


@pytest.fixture
def mail_corp(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name mail.corp leads to this machine, which is not to be known as this machine."""
    loop = asyncio.selector_events.BaseSelectorEventLoop
    real = loop.getaddrinfo

    async def getaddrinfo(self: Any, host: str, port: int, **options: Any) -> Any:
        return await real(self, "127.0.0.1" if host in {"mail.corp", "other.corp"} else host, port, **options)

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)


async def test_a_password_goes_to_another_machine_only_by_tls_with_a_valid_certificate(mail_corp, trusting):
    options: dict[str, Any] = {"auth_require_tls": False, "authenticator": password_is(CANARY)}
    async with listening(MailServer(), **options) as plain:
        url = f"smtp://me%40example.com:{CANARY}@mail.corp:{plain.port}"
        with pytest.raises(MailServerFailed, match="STARTTLS"):
            await sending(Settings(smtp_url=url))(to="a@example.org", **BODY)
    async with listening(MailServer(), tls_context=server_tls(), **options) as server:
        url = f"smtp://me%40example.com:{CANARY}@other.corp:{server.port}"
        with pytest.raises(MailServerFailed, match="certificate: Hostname mismatch"):
            await sending(Settings(smtp_url=url))(to="a@example.org", **BODY)
        url = f"smtp://me%40example.com:{CANARY}@mail.corp:{server.port}"
        await sending(Settings(smtp_url=url))(to="a@example.org", **BODY)

    assert ([], [(b"me@example.com", True)]) == (plain.sessions, server.sessions)


async def test_smtps_is_tls_from_the_first_byte_with_a_valid_certificate(trusting, mail_corp):
    async with listening(MailServer(), tls=server_tls()) as server:
        await sending(Settings(smtp_url=f"smtps://mail.corp:{server.port}"))(to="a@example.org", **BODY)
        with pytest.raises(MailServerFailed, match="Hostname mismatch"):
            await sending(Settings(smtp_url=f"smtps://other.corp:{server.port}"))(to="a@example.org", **BODY)

    assert 1 == len(server.mails)


async def test_without_trust_smtps_sends_nothing():
    async with listening(MailServer(), tls=server_tls()) as server:
        with pytest.raises(MailServerFailed, match="self-signed certificate"):
            await sending(Settings(smtp_url=f"smtps://127.0.0.1:{server.port}"))(to="a@example.org", **BODY)

    assert [] == server.mails


# -- the outbox -------------------------------------------------------------------------------------------------------


async def test_without_a_server_a_mail_is_a_file_of_the_outbox(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    send = sending(Settings())
    answer = await send(to=["Ada <ada@example.org>", "b@example.org"], subject="Grüße", body="grün\n")
    await send(to=["Ada <ada@example.org>", "b@example.org"], subject="Grüße", body="grün\n")

    [file] = (tmp_path / ".scheduler" / "outbox").iterdir()
    message = read(file.read_bytes())
    assert (".eml", 0o600, 0o700) == (
        file.suffix,
        file.stat().st_mode & 0o777,
        file.parent.stat().st_mode & 0o777,
    )
    assert {
        "message_id": message["Message-ID"],
        "accepted": ["ada@example.org", "b@example.org"],
        "refused": {},
    } == answer
    assert ("Grüße", "grün\n", "scheduler@localhost") == (
        message["Subject"],
        text_of(message),
        message["From"],
    )
    assert [f"written to .scheduler/outbox/{file.name}: SCHEDULER_SMTP_URL is not set"] * 2 == send.log


async def test_a_file_that_cannot_be_finished_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def replace(_: Path, __: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OSError, match="No space"):
        await sending(Settings())(to="a@example.org", **BODY)

    assert [] == list((tmp_path / ".scheduler" / "outbox").iterdir())


# -- by a worker ------------------------------------------------------------------------------------------------------

on_one_server = pytest.mark.parametrize("backend", ("valkey",), indirect=True)


def works(bench: Bench, settings: Settings) -> None:
    for handler in shipped.HANDLERS:
        bench.handlers.add(replace(handler, queue=QUEUE))
    bench.work(smtp_url=settings.smtp_url)


def payload(**fields: Any) -> bytes:
    return msgspec.json.encode({"to": ["a@example.org", "b@example.org"], **BODY, **fields})


@on_one_server
async def test_a_worker_remembers_over_attempts_who_was_accepted(bench: Bench, server):
    server.answers["b@example.org"] = "451 later"
    works(bench, server.settings)
    key = await bench.enqueue("email.send", payload(), retry={"immediate": 0, "base": 300, "jitter": 0})

    async def put_off() -> bool:
        return State.RETRYING == (await bench.job(key)).state

    await bench.until(put_off)
    server.answers.clear()
    job = await bench.ended(key)

    assert (State.SUCCEEDED, 2, 300_000) == (job.state, job.attempt, job.timeout_ms)
    assert ["MailDeferred"] == [error.kind for error in job.errors]
    assert [["a@example.org"], ["b@example.org"]] == [mail.rcpt_tos for mail in server.mails]
    assert ["a@example.org", "b@example.org"] == msgspec.json.decode(job.result or b"")["accepted"]


@on_one_server
async def test_a_mail_that_nobody_may_have_is_dead_at_once(bench: Bench, server):
    server.answers |= {"a@example.org": "550 no", "b@example.org": "550 no"}
    works(bench, server.settings)
    job = await bench.ended(await bench.enqueue("email.send", payload()))

    assert (State.DEAD, "permanent", 1, "EveryRecipientRefused") == (
        job.state,
        job.reason,
        job.attempt,
        job.errors[0].kind,
    )


@on_one_server
async def test_what_is_no_mail_is_dead_as_a_bad_payload(bench: Bench, server):
    works(bench, server.settings)
    job = await bench.ended(await bench.enqueue("email.send", payload(subject="a\r\nBcc: x@example.org")))

    assert (State.DEAD, "bad_payload", []) == (job.state, job.reason, server.asked)

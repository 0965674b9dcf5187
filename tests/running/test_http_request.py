"""http.request: where it may go, what it sends, what it makes of the answer."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import hmac
import ipaddress
import re
import socket
import ssl
import time
import traceback
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any

import msgspec
import pytest
from aiohttp import web

from scheduler import shipped
from scheduler.errors import PayloadInvalid, Permanent, RetryAfter
from scheduler.job import State
from scheduler.settings import Settings
from scheduler.shipped.addresses import AddressRefused, NameNotFound, is_public, may_reach, read_places
from scheduler.shipped.http_request import HeaderInvalid, RequestFailed, UnexpectedStatus, retry_after
from tests.running.conftest import QUEUE, Bench
from tests.running.shipped import CERTIFICATE, Attempts, server_tls

ALLOWED = Settings(http_allow=("127.0.0.1",))
CANARY = "hunter2"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Receiver:
    """A web server on loopback that keeps what it was sent."""

    runner: web.AppRunner
    port: int = 0
    requests: list[tuple[web.Request, bytes]] = field(default_factory=list)
    answer: Answering | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request, await request.read()))
        return await self.answer(request) if self.answer else web.json_response({"hello": "world"})

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    @asynccontextmanager
    async def with_tls(self) -> AsyncIterator[int]:
        """Listens on one more port, by TLS."""
        site = web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=server_tls())
        await site.start()
        yield self.runner.addresses[-1][1]
        await site.stop()

    def will(self, status: int, text: str = "", **headers: str) -> None:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(
                status=status, text=text, headers={n.replace("_", "-"): v for n, v in headers.items()}
            )

        self.answer = answer


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    application = web.Application()
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=1)
    receiver = Receiver(runner)
    application.router.add_route("*", "/{path:.*}", receiver.handle)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.port = runner.addresses[0][1]
    yield receiver
    await runner.cleanup()


@asynccontextmanager
async def serving(
    speak: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[tuple[str, list[asyncio.Task[None]]]]:
    """A server that speaks as it likes: its URL, and a task for each of its connections."""
    tasks: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            await speak(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/", tasks
        server.close()
        if tasks:
            async with asyncio.timeout(10):
                await asyncio.wait(tasks)


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' certificate is as good as any."""
    context = ssl.create_default_context(cafile=CERTIFICATE)
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", context)


def requesting(settings: Settings = ALLOWED, **options: Any) -> Attempts:
    return Attempts("http.request", settings, **options)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """The answers of the resolver: for each name a list a lookup, the last of them for ever."""
    answers: dict[str, list[list[str]]] = {}
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in answers:
            return list(real(host, port, *args, **options))
        found = answers[name].pop(0) if len(answers[name]) > 1 else answers[name][0]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "",
                (address, int(port), 0, 0) if ":" in address else (address, int(port)),
            )
            for address in found
        ]  # fmt: skip

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return answers


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be connected: a refusal stands before the first packet."""

    def connect(*_: object) -> None:
        pytest.fail("a connection was begun")

    monkeypatch.setattr(socket.socket, "connect", connect)


# -- where it may go --------------------------------------------------------------------------------------------------

REFUSED = [
    "http://127.0.0.1/", "http://127.1/", "http://127.0.1/", "http://2130706433/", "http://0x7f000001/",
    "http://0x7f.1/", "http://0177.0.0.1/", "http://017700000001/", "http://127.0.0.01/", "http://127.0.0.0x1/",
    "http://0/", "http://0.0.0.0/", "http://127.255.255.254/", "http://127.0.0.1./", "http://127.1./",
    "http://①②⑦.⓪.⓪.①/", "http://１２７.0.0.1/", "http://127。0。0。1/", "http://localhost/", "http://LOCALHOST/",
    "http://localhost./", "http://[::1]/", "http://[::]/", "http://[0:0:0:0:0:0:0:1]/", "http://[::127.0.0.1]/",
    "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[::ffff:8.8.8.8]/", "http://[::ffff:0:7f00:1]/",
    "http://[64:ff9b::7f00:1]/", "http://[64:ff9b::8.8.8.8]/", "http://[64:ff9b:1::7f00:1]/", "http://[2002:7f00:1::]/",
    "http://[2001:0:7f00:1::]/", "http://[fe80::1]/", "http://[fe80::1%25lo]/", "http://[fe80::1%25eth0]/",
    "http://[fec0::1]/", "http://[fd00:ec2::254]/", "http://[ff02::1]/", "http://[2001:db8::1]/", "http://[3fff::1]/",
    "http://[100::1]/", "http://[5f00::1]/", "http://[4000::1]/", "http://10.0.0.1/", "http://172.16.0.1/", "http://192.168.1.1/",
    "http://100.64.0.1/", "http://100.100.100.200/", "http://169.254.169.254/latest/meta-data/", "http://168.63.129.16/",
    "http://192.0.0.192/", "http://192.88.99.1/", "http://198.18.0.1/", "http://224.0.0.1/", "http://239.255.255.250/",
    "http://240.0.0.1/", "http://255.255.255.255/",
    "http://public.test@127.0.0.1/", "http://127.0.0.1#@public.test/", "http://127.0.0.1?@public.test/",
    "http://public.test:80@127.0.0.1/", "http://a@b@127.0.0.1/", "http://127.0.0.1\\@public.test/",
    "http://127.0.0.1 @public.test/", "http://127.0.0.1\t/", "http://127.0.0.1\r\nHost: x/", "http://1.1.1.1 &@127.0.0.1# @x/",
    "http://[::1]public.test/", "http://[v1.x]/", "http://127.0.0.1%00.public.test/", "http://127.0.0.1%2f@public.test/",
    "http://public.test%2e/", "http://[127.0.0.1]/", "http://public..test/", "http://.public.test/", "http://-public.test/",
    "http://public.test:0/", "http://public.test:99999/", "http://public.test:+80/", "http://public.test:80:80/",
    "http://public.test/a b", "http://public.test/a\r\nX: y", "http://public.test/\0", "http://public.test/?a\x7f", "http://public.test/a\\b",
    "http://public.test/\u2028", "http://public.test:８０x/", "http:///etc/passwd", "http:public.test", "http:/public.test/", "//public.test/", "public.test", "",
    "ftp://public.test/", "file:///etc/passwd", "gopher://public.test/", "unix:///run/docker.sock", "javascript:alert(1)",
    f"http://{'a' * 64}.test/", f"http://{'a.' * 130}test/", "http://256.256.256.256/", "http://1.2.3/", "http://1.2.3.4.5/",
]  # fmt: skip


@pytest.mark.parametrize("url", REFUSED)
async def test_a_private_or_impossible_address_is_refused_for_good(url, names, no_sockets):
    names["public.test"], names["localhost."] = [["8.8.8.8"]], [["127.0.0.1"]]

    with pytest.raises(AddressRefused) as refused:
        await requesting(Settings())(url=url)

    assert isinstance(refused.value, Permanent)


async def test_a_refusal_says_which_setting_opens_the_address(no_sockets):
    with pytest.raises(
        AddressRefused, match=re.escape("SCHEDULER_HTTP_ALLOW=127.0.0.1:8000 for the workers")
    ):
        await requesting(Settings())(url="http://127.0.0.1:8000/")
    with pytest.raises(AddressRefused, match=re.escape("SCHEDULER_HTTP_ALLOW=[::1]:443 for the workers")):
        await requesting(Settings())(url="https://[::1]/")


async def test_a_url_with_a_user_in_it_says_where_a_password_goes(no_sockets):
    with pytest.raises(AddressRefused, match="Authorization header") as refused:
        await requesting(Settings())(url=f"https://me:{CANARY}@public.test/")

    assert CANARY not in "".join(traceback.format_exception(refused.value))


async def test_a_refusal_tells_no_address_of_the_inner_network(names, no_sockets):
    names["db.corp"] = [["10.20.30.40"]]

    with pytest.raises(AddressRefused) as refused:
        await requesting(Settings())(url="http://db.corp/")

    assert "10.20" not in "".join(traceback.format_exception(refused.value))
    assert "SCHEDULER_HTTP_ALLOW=db.corp:80" in str(refused.value)


@pytest.mark.parametrize(
    "addresses", [["8.8.8.8", "127.0.0.1"], ["10.0.0.1", "8.8.8.8"], ["2606:4700::1", "fd00::1"]]
)
async def test_one_refused_address_among_several_refuses_the_request(addresses, names, no_sockets):
    names["mixed.test"] = [addresses]

    with pytest.raises(AddressRefused):
        await requesting(Settings())(url="http://mixed.test/")


async def test_a_name_that_is_public_when_asked_and_private_when_connected_wins_nothing(
    names, receiver, monkeypatch
):
    names["rebinding.test"] = [["8.8.8.8"], ["127.0.0.1"]]
    connected = []

    def connect(_: object, address: tuple[str, int]) -> None:
        connected.append(address)
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(RequestFailed):
        await requesting(Settings())(url=f"http://rebinding.test:{receiver.port}/")

    assert ([("8.8.8.8", receiver.port)], []) == (connected, receiver.requests)
    assert [["127.0.0.1"]] == names["rebinding.test"]  # asked once: the second answer is still to be given


async def test_each_attempt_asks_the_resolver_again(names, no_sockets):
    names["moving.test"] = [[], ["127.0.0.1"]]
    request = requesting(Settings())

    with pytest.raises(NameNotFound):
        await request(url="http://moving.test/")
    with pytest.raises(AddressRefused):
        await request(url="http://moving.test/")


async def test_a_name_without_an_address_is_tried_again(names, no_sockets):
    names["gone.test"] = [[]]

    with pytest.raises(NameNotFound, match=r"gone\.test has no address") as missing:
        await requesting()(url="http://gone.test/")

    assert not isinstance(missing.value, Permanent)


@pytest.mark.parametrize(
    ("place", "host"),
    [
        ("127.0.0.1", "127.0.0.1"), ("127.0.0.1:{port}", "127.0.0.1"), ("127.0.0.0/8", "127.0.0.1"), ("127.0.0.0/8:{port}", "hooks.corp"),
        ("hooks.corp", "hooks.corp"), ("HOOKS.corp:{port}", "Hooks.Corp."), ("10.0.0.0/8,hooks.corp", "hooks.corp"),
    ],
)  # fmt: skip
async def test_the_setting_opens_addresses_networks_and_names(place, host, names, receiver):
    names[host] = [["127.0.0.1"]]
    allow = tuple(place.format(port=receiver.port).split(","))

    answer = await requesting(Settings(http_allow=allow))(url=f"http://{host}:{receiver.port}/")

    assert 200 == answer["status"]


@pytest.mark.parametrize(
    "place", ["127.0.0.1:1", "127.0.0.2", "hooks.corp:1", "corp", "x.hooks.corp", "[::1]", "::/0", "8.8.8.8"]
)
@pytest.mark.parametrize("host", ["hooks.corp", "127.0.0.1", "hooks.corp.test"])
async def test_the_setting_opens_nothing_besides(place, host, names, no_sockets):
    names["hooks.corp"] = names["hooks.corp.test"] = [["127.0.0.1"]]

    with pytest.raises(AddressRefused):
        await requesting(Settings(http_allow=(place,)))(url=f"http://{host}:8000/")


async def test_an_open_name_opens_not_its_address(names, no_sockets):
    with pytest.raises(AddressRefused):
        await requesting(Settings(http_allow=("localhost",)))(url="http://127.0.0.1:8000/")


async def test_an_open_translation_needs_its_inner_address_open_too():
    nat64 = ipaddress.ip_address
    allow = read_places(("64:ff9b::/96",))

    assert may_reach(nat64("64:ff9b::8.8.8.8"), 80, allow)
    assert not may_reach(nat64("64:ff9b::10.0.0.1"), 80, allow)
    assert may_reach(nat64("64:ff9b::10.0.0.1"), 80, read_places(("64:ff9b::/96", "10.0.0.0/8")))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001::1"])
async def test_public_addresses_are_open(address):
    assert is_public(ipaddress.ip_address(address))


async def test_a_redirect_is_not_followed(receiver):
    receiver.will(302, Location="http://169.254.169.254/latest/meta-data/")

    with pytest.raises(UnexpectedStatus, match=r"answered 302 \(redirects are not followed\)"):
        await requesting()(url=receiver.url())
    answer = await requesting()(url=receiver.url(), expect=[302])

    assert (302, "http://169.254.169.254/latest/meta-data/") == (
        answer["status"],
        answer["headers"]["location"],
    )
    assert 2 == len(receiver.requests)


async def test_no_proxy_of_the_environment_is_used(receiver, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    assert 200 == (await requesting()(url=receiver.url()))["status"]


async def test_no_cookie_is_kept(receiver):
    receiver.will(200, Set_Cookie="session=1")
    for _ in range(2):
        await requesting()(url=receiver.url())

    assert [None, None] == [request.headers.get("Cookie") for request, _ in receiver.requests]


# -- what it sends ----------------------------------------------------------------------------------------------------


async def test_a_get_sends_no_body_and_gives_back_status_headers_and_body(receiver):
    answer = await requesting()(url=receiver.url("/a%2Fb/../c?x=%7E&y=a+b"))

    [(request, body)] = receiver.requests
    assert ("GET", "/a%2Fb/../c?x=%7E&y=a+b", b"") == (request.method, request.raw_path, body)
    assert "Content-Type" not in request.headers
    assert request.headers["User-Agent"].startswith("scheduler/")
    assert {"status", "headers", "body"} == set(answer)
    assert (200, '{"hello": "world"}') == (answer["status"], answer["body"])
    assert "application/json; charset=utf-8" == answer["headers"]["content-type"]


async def test_what_is_no_ascii_in_a_url_is_encoded(receiver):
    await requesting()(url=receiver.url("/grüße?q=ä"))

    assert "/gr%C3%BC%C3%9Fe?q=%C3%A4" == receiver.requests[0][0].raw_path


@pytest.mark.parametrize(
    ("body", "sent", "content_type"),
    [
        (b'"gr\\u00fc\\u00dfe"', "grüße".encode(), "text/plain; charset=utf-8"),
        (b'""', b"", "text/plain; charset=utf-8"),
        (b'{"b":1,  "a":[12345678901234567890123,1.50,1e999]}', None, "application/json"),
        (b"[]", None, "application/json"),
        (b"false", None, "application/json"),
        (b"null", b"", None),
    ],
)
async def test_a_text_is_sent_as_it_is_and_other_json_byte_for_byte(receiver, body, sent, content_type):
    await requesting()(
        b'{"url": "' + receiver.url().encode() + b'", "method": "POST", "body": ' + body + b"}"
    )

    [(request, received)] = receiver.requests
    assert (body if sent is None else sent, content_type) == (received, request.headers.get("Content-Type"))
    assert str(len(received)) == request.headers["Content-Length"]


async def test_the_job_s_headers_win_over_ours(receiver):
    given = {"content-type": "application/vnd.x+json", "user-agent": "me", "X-Name": "grün"}
    await requesting()(url=receiver.url(), method="PUT", body={"a": 1}, headers=given)

    headers = receiver.requests[0][0].headers
    assert (["application/vnd.x+json"], ["me"], "grün") == (
        headers.getall("Content-Type"), headers.getall("User-Agent"), headers["X-Name"],
    )  # fmt: skip


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "x"}, {"hOST": "x"}, {"Content-Length": "0"}, {"Transfer-Encoding": "chunked"}, {"Connection": "close"},
        {"Expect": "100-continue"}, {"Upgrade": "h2c"}, {"TE": "trailers"}, {"": "x"}, {"X Y": "x"}, {"X:Y": "x"}, {"X\r\nY": "x"},
        {"X-Ü": "x"}, {"X": "a\r\nY: b"}, {"X": "a\nb"}, {"X": "a\rb"}, {"X": "a\0b"}, {"X": "a\x7fb"},
    ],
)  # fmt: skip
async def test_a_header_that_breaks_the_message_is_refused_for_good(headers, no_sockets):
    with pytest.raises(HeaderInvalid) as refused:
        await requesting()(url="http://127.0.0.1:9/", headers=headers)

    assert isinstance(refused.value, Permanent)


@pytest.mark.parametrize(
    "payload",
    [
        {}, {"url": 1}, {"url": "http://h/", "method": "get"}, {"url": "http://h/", "method": "GET\n"}, {"url": "http://h/", "method": "CONNECT"},
        {"url": "http://h/", "method": "GET / HTTP/1.1\r\nX: y"}, {"url": "http://h/", "headers": {"a": 1}}, {"url": "http://h/", "expect": [99]}, {"url": "http://h/", "expect": []},
        {"url": "http://h/", "expect": 200}, {"url": "http://h/", "timeout": 1}, {"url": "http://h/" + "a" * 9000},
    ],
)  # fmt: skip
async def test_a_payload_of_another_shape_is_refused(payload):
    with pytest.raises(PayloadInvalid):
        await requesting()(**payload)


async def test_a_method_in_small_letters_and_no_status_at_all_are_refused_with_what_to_write():
    for wrong, told in (
        ({"method": "post"}, "method: 'post' is written POST"),
        ({"method": "GET\n"}, "method: capital letters, such as GET or POST"),
        ({"method": "connect"}, "neither CONNECT nor TRACE"),
        ({"expect": []}, "expect: with no status in it no answer would ever do"),
    ):
        with pytest.raises(PayloadInvalid, match=f"the payload of http.request is no request: .*{told}"):
            await requesting()(url="http://h/", **wrong)


async def test_a_request_is_signed_as_standard_webhooks_has_it(receiver):
    request = requesting(replace(ALLOWED, http_secret=SECRET), key="order-1")
    before = int(time.time())
    await request(url=receiver.url(), method="POST", body={"type": "order.paid"})
    await request(url=receiver.url(), method="POST", body={"type": "order.paid"})

    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    for sent, body in receiver.requests:
        stamp = sent.headers["webhook-timestamp"]
        signed = f"mail:order-1.{stamp}.".encode() + body
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        assert ("mail:order-1", f"v1,{expected}") == (
            sent.headers["webhook-id"],
            sent.headers["webhook-signature"],
        )
        assert before <= int(stamp) <= time.time()


async def test_the_specification_s_own_example_gets_its_signature():
    made = shipped.http_request.signature(
        SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}'
    )

    assert "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" == made["webhook-signature"]


async def test_a_plain_secret_is_the_key_itself_and_a_dot_in_an_id_is_encoded(receiver):
    await requesting(replace(ALLOWED, http_secret="plain-secret"), key="v1.2")(url=receiver.url())

    [(sent, _)] = receiver.requests
    signed = f"mail:v1%2E2.{sent.headers['webhook-timestamp']}.".encode()
    expected = base64.b64encode(hmac.new(b"plain-secret", signed, hashlib.sha256).digest()).decode()
    assert ("mail:v1%2E2", f"v1,{expected}") == (
        sent.headers["webhook-id"],
        sent.headers["webhook-signature"],
    )


async def test_a_job_cannot_sign_in_the_worker_s_place(receiver):
    with pytest.raises(HeaderInvalid, match="signs"):
        await requesting(replace(ALLOWED, http_secret=SECRET))(
            url=receiver.url(), headers={"Webhook-Id": "mine"}
        )
    await requesting()(url=receiver.url(), headers={"Webhook-Id": "mine"})

    assert ["mine"] == [sent.headers["webhook-id"] for sent, _ in receiver.requests]


async def test_tls_is_spoken_with_the_name_and_not_with_the_checked_address(receiver, names, monkeypatch):
    names["hooks.corp"] = names["other.corp"] = [["127.0.0.1"]]
    request = requesting(Settings(http_allow=("hooks.corp", "other.corp")))
    async with receiver.with_tls() as port:
        with pytest.raises(RequestFailed, match="its certificate is refused: self-signed certificate"):
            await request(url=f"https://hooks.corp:{port}/")
        trusting = ssl.create_default_context(cafile=CERTIFICATE)
        monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting)
        with pytest.raises(RequestFailed, match="its certificate is refused: Hostname mismatch"):
            await request(url=f"https://other.corp:{port}/")

        assert 200 == (await request(url=f"https://hooks.corp:{port}/"))["status"]

    assert [f"hooks.corp:{port}"] == [sent.headers["Host"] for sent, _ in receiver.requests]


# -- what it makes of the answer --------------------------------------------------------------------------------------


async def test_a_status_that_was_not_expected_is_a_failure_that_tells_no_secret(receiver):
    receiver.will(403, f"you sent {CANARY}")

    with pytest.raises(UnexpectedStatus) as failed:
        await requesting(replace(ALLOWED, http_secret=f"sign-{CANARY}"))(
            url=receiver.url(f"/{CANARY}?key={CANARY}"),
            method="POST",
            body=CANARY,
            headers={"Authorization": CANARY},
        )

    assert f"POST 127.0.0.1:{receiver.port} answered 403" == str(failed.value)
    assert CANARY not in "".join(traceback.format_exception(failed.value))


async def test_what_is_expected_is_a_success_even_a_500(receiver):
    receiver.will(500, "sorry")
    answer = await requesting()(url=receiver.url(), expect=[200, 500])

    assert (500, "sorry") == (answer["status"], answer["body"])
    receiver.will(204)
    with pytest.raises(UnexpectedStatus):
        await requesting()(url=receiver.url(), expect=[200, 500])


@pytest.mark.parametrize(
    ("status", "header", "seconds"), [(429, "7", 7), (503, "0", 1), (503, "99999999", 86_400)]
)
async def test_a_busy_server_says_when_to_come_again(receiver, status, header, seconds):
    receiver.will(status, Retry_After=header)

    with pytest.raises(RetryAfter) as asked:
        await requesting()(url=receiver.url())

    assert seconds == asked.value.seconds
    assert f"GET 127.0.0.1:{receiver.port} answered {status}" in str(asked.value)


@pytest.mark.parametrize(
    ("status", "header"), [(429, ""), (503, "soon"), (500, "7"), (429, "-3"), (503, "١٢")]
)
async def test_without_a_time_to_come_again_a_busy_server_is_a_failure(receiver, status, header):
    receiver.will(status, Retry_After=header)

    with pytest.raises(UnexpectedStatus):
        await requesting()(url=receiver.url())


async def test_a_date_to_come_again_is_taken_in_each_of_its_forms(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    later = time.time() + 120
    clock = time.gmtime(later)

    assert 118 <= (retry_after(formatdate(later, usegmt=True)) or 0) <= 120
    assert 118 <= (retry_after(time.strftime("%a %b %d %H:%M:%S %Y", clock)) or 0) <= 120
    assert 1 == retry_after(formatdate(0, usegmt=True))
    monkeypatch.undo()
    time.tzset()
    assert [None] * 4 == [retry_after(text) for text in ("", "Mon, 99 Foo 2020", "1.5", "1" * 400)]


async def test_a_long_body_is_cut_and_the_answer_says_so(receiver):
    receiver.will(200, "é" * 40_000)
    answer = await requesting()(url=receiver.url())

    assert ("é" * 32_768, True) == (answer["body"], answer["cut"])
    receiver.will(200, "x" * 65_537)
    assert ("x" * 65_536, True) == ((await requesting()(url=receiver.url()))["body"], True)
    receiver.will(200, "x" * 65_536)
    assert "cut" not in await requesting()(url=receiver.url())


async def test_a_cut_leaves_no_half_character(receiver):
    receiver.will(200, "x" + "é" * 40_000)

    assert "x" + "é" * 32_767 == (await requesting()(url=receiver.url()))["body"]


async def test_a_result_fits_the_setting_rather_than_fail_after_the_deed(receiver):
    receiver.will(200, "\x01" * 5_000)
    answer = await requesting(replace(ALLOWED, max_result=4_096))(url=receiver.url())

    assert answer["cut"]
    assert 100 < len(answer["body"])
    assert 4_096 >= len(msgspec.json.encode(answer))


@pytest.mark.parametrize(
    ("data", "content_type", "text"),
    [
        (b"gr\xfcn", "text/plain; charset=iso-8859-1", "grün"),
        ("grün".encode("utf-16"), "text/plain; charset=utf-16", "grün"),
        (b"gr\xfcn", "text/plain", "gr�n"),
        (b"\x89PNG\r\n\0", "image/png", "�PNG\r\n\0"),
        ("grün".encode(), "text/plain; charset=punycode", "grün"),
        ("grün".encode(), "text/plain; charset=zlib", "grün"),
        ("grün".encode(), "text/plain; charset=no\x00thing", "grün"),
    ],
)
async def test_a_body_is_text_by_its_charset(receiver, data, content_type, text):
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=data, headers={"Content-Type": content_type.replace("\x00", "")})

    receiver.answer = answer

    assert text == (await requesting()(url=receiver.url()))["body"]


async def test_a_compressed_body_is_unpacked_no_further_than_it_is_read(receiver):
    bomb = gzip.compress(b"x" * 200_000_000, 9)

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    receiver.answer = answer
    tracemalloc.start()
    try:
        got = await requesting()(url=receiver.url())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert ("x" * 65_536, True) == (got["body"], got["cut"])
    assert 10_000_000 > peak


async def test_repeated_and_odd_headers_are_shown_as_text():
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nVary: a\r\nvary: b\r\nX-Odd: \xff\xfe\r\nContent-Length: 2\r\n\r\nok"
        )
        await writer.drain()

    async with serving(speak) as (url, _):
        answer = await requesting()(url=url)

    assert {"vary": "a, b", "x-odd": "\ufffd\ufffd", "content-length": "2"} == answer["headers"]


@pytest.mark.parametrize("tls", [False, True])
async def test_a_body_that_never_ends_is_read_to_the_cut(tls, trusting):
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
            await writer.drain()

    async with serving(speak, server_tls() if tls else None) as (url, _):
        answer = await requesting()(url=url)

    assert (65_536, True) == (len(answer["body"]), answer["cut"])


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(1000)),
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20_000,
        b"HTTP/1.1 200 " + b"y" * 20_000,
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"220 mail.test ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
        b"",
    ],
)
async def test_what_is_no_whole_answer_is_a_failure_to_be_tried_again(head):
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        await writer.drain()

    async with serving(speak) as (url, connections):
        with pytest.raises(RequestFailed) as failed:
            await requesting()(url=f"{url}{CANARY}?{CANARY}")

    assert 1 == len(connections)
    assert CANARY not in "".join(traceback.format_exception(failed.value))


async def test_headers_that_never_end_are_given_up():
    written = 0

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X-Long: " + b"y" * 1000 + b"\r\n")
            written += 1010
            await writer.drain()

    async with serving(speak) as (url, _):
        with pytest.raises(RequestFailed):
            await requesting()(url=url)

    assert 50_000_000 > written


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 50),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x" * 1000),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"5\r\n\x00\x00\x00\xff\xff\r\n" * 100,
        ),
    ],
)
@pytest.mark.parametrize("tls", [False, True])
async def test_what_a_parser_skips_for_ever_is_given_up(head, piece, tls, trusting):
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    async with serving(speak, server_tls() if tls else None) as (url, connections):
        with pytest.raises(RequestFailed):
            await requesting()(url=url)

    assert 1 == len(connections)


async def test_many_headers_are_cut():
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = b"".join(b"X-%d: %s\r\n" % (n, b"y" * 1000) for n in range(40))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + lines + b"\r\nok")
        await writer.drain()

    async with serving(speak) as (url, _):
        answer = await requesting()(url=url)

    assert ("ok", True, True) == (answer["body"], answer["cut"], 10 < len(answer["headers"]) < 20)


async def test_a_cancelled_request_closes_its_connection():
    asked = asyncio.Event()
    closed = asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        assert b"" == await reader.read()
        closed.set()

    async with serving(speak) as (url, _):
        task = asyncio.create_task(requesting()(url=url))
        async with asyncio.timeout(10):
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await closed.wait()


async def test_a_server_that_is_not_there_is_a_failure():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

    with pytest.raises(RequestFailed, match=f"GET 127.0.0.1:{port}: no connection: Connection refused"):
        await requesting()(url=f"http://127.0.0.1:{port}/?{CANARY}")


# -- by a worker ------------------------------------------------------------------------------------------------------

on_one_server = pytest.mark.parametrize("backend", ("valkey",), indirect=True)


def works(bench: Bench, **settings: Any) -> None:
    for handler in shipped.HANDLERS:
        bench.handlers.add(replace(handler, queue=QUEUE))
    bench.work(**{"http_allow": ("127.0.0.1",)} | settings)


@on_one_server
async def test_a_worker_makes_the_request_and_keeps_the_answer(bench: Bench, receiver):
    works(bench)
    job = await bench.ended(await bench.enqueue("http.request", msgspec.json.encode({"url": receiver.url()})))

    assert (State.SUCCEEDED, 60_000) == (job.state, job.timeout_ms)
    assert '{"hello": "world"}' == msgspec.json.decode(job.result or b"")["body"]


@on_one_server
async def test_a_worker_tries_again_and_the_id_of_the_webhook_stays(bench: Bench, receiver):
    async def once(_: web.Request) -> web.Response:
        return web.Response(status=500 if len(receiver.requests) == 1 else 200)

    receiver.answer = once
    works(bench, http_secret=SECRET)
    key = await bench.enqueue("http.request", msgspec.json.encode({"url": receiver.url()}))
    job = await bench.ended(key)

    assert (State.SUCCEEDED, 2) == (job.state, job.attempt)
    assert ["UnexpectedStatus"] == [error.kind for error in job.errors]
    assert [f"{QUEUE}:{key}"] * 2 == [sent.headers["webhook-id"] for sent, _ in receiver.requests]


@on_one_server
async def test_a_refused_address_ends_dead_at_once(bench: Bench):
    works(bench, http_allow=None)
    job = await bench.ended(await bench.enqueue("http.request", b'{"url": "http://169.254.169.254/"}'))

    assert (State.DEAD, "permanent", 1, "AddressRefused") == (
        job.state,
        job.reason,
        job.attempt,
        job.errors[0].kind,
    )


@on_one_server
async def test_a_request_that_drips_ends_at_the_job_s_timeout(bench: Bench):
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X")
            await writer.drain()
            await asyncio.sleep(0.02)

    works(bench)
    async with serving(drip) as (url, _):
        job = await bench.ended(
            await bench.enqueue(
                "http.request", msgspec.json.encode({"url": url}), timeout_ms=300, retry={"max_attempts": 1}
            )
        )

    assert (State.DEAD, "TimeoutError") == (job.state, job.errors[0].kind)


@on_one_server
async def test_a_job_that_is_cancelled_lets_go_of_its_server(bench: Bench):
    asked, closed = asyncio.Event(), asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        closed.set()

    works(bench)
    async with serving(hang) as (url, _):
        key = await bench.enqueue("http.request", msgspec.json.encode({"url": url}))
        async with asyncio.timeout(10):
            await asked.wait()
            await bench.store.cancel(QUEUE, [key])
            await closed.wait()
        job = await bench.ended(key)

    assert State.CANCELLED == job.state

"""Strict JSON: what a body must be before anything is made of it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.api.body import DEEPEST, decode, depth
from scheduler.errors import Invalid
from scheduler.fields import NewJobFields
from tests.helpers import on_the_fake


def job(payload, rest=b""):
    return b'{"type":"t","payload":' + payload + rest + b"}"


NO_JSON = [
    b"", b" ", b"{", b'{"type":"t"', b'{"type":"t"}}', b'{"type":"t"} x', b"{type:1}", b"{'type':'t'}", b'{"type":"t",}',
    b'\xef\xbb\xbf{"type":"t"}', '{"type":"t"}'.encode("utf-16"), '{"type":"t"}'.encode("utf-16-le"), b"\xff", b"tru",
    job(b"NaN"), job(b"Infinity"), job(b"-Infinity"), job(b"01"), job(b"1."), job(b".5"), job(b"+1"), job(b"0x1"),
    job(rb'"\ud800"'), job(rb'"\udc00"'), job(rb'"\ud800x"'), job(rb'"\ud800\ud800"'), job(rb'{"\udfff":1}'), job(b'"\xed\xa0\x80"'),
    job(b'"\xff"'), job(b'"\xc0\xaf"'), job(b'"\n"'), job(b'"\0"'), job(b'"\\x41"'), job(b'"\\u12g4"'), job(b"[1 2]"), job(b"[1,]"),
    job(b"/* */1"), job(b"1//"), job(b"'a'"), job(b"[" * 512 + b"]" * 512), job(b"[" * 10_000 + b"]" * 10_000),
    job(b'{"a":' * 600 + b"1" + b"}" * 600), job(b"[" * 100_000), b'{"type":3,', b'{"colour":1, nonsense', b'{"type":"t\xff"}',
]  # fmt: skip


@on_the_fake
@pytest.mark.parametrize("body", NO_JSON, ids=lambda body: str(body[:40]))
async def test_what_is_no_json_is_refused_before_anything_else(api, body):
    answer = await api.post("/v1/jobs", body)

    assert (400, "invalid_json") == (answer.status, answer.code), answer.raw
    assert [] == [key async for key in api.redis.scan_iter() if b"layout" not in key]


@on_the_fake
async def test_an_empty_body_is_called_empty(api):
    assert "the body is empty" == (await api.post("/v1/jobs", b"")).doc["detail"]


async def test_a_byte_order_mark_is_named(api):
    answer = await api.post("/v1/jobs", b'\xef\xbb\xbf{"type":"t"}')

    assert (400, "invalid_json") == (answer.status, answer.code)
    assert "byte order mark" in answer.doc["detail"]


@on_the_fake
@pytest.mark.parametrize(
    "body",
    [
        b' \t\r\n{"type":"t"} \n', b'{"type":"x y","type":"t"}', b'{"\\u0074ype":"t"}', job(b'"\\ud83d\\ude00"'),
        job(b"[" * 511 + b"]" * 511), b'{"type":"t","priority":3.0}', b'{"type":"t","priority":30e-1}',
        b'{"type":"t","priority":-0}', job(b'"' + b"[" * 5000 + b'"'), job(b'"\\"' + b"[{" * 2000 + b'\\\\"'),
        job(b"[" + b"[]," * 5000 + b"[]]"), job(b'{"a":1e999999,"b":1e-999999}'),
    ],
    ids=lambda body: str(body[:40]),
)  # fmt: skip
async def test_what_is_json_is_taken(api, body):
    answer = await api.post("/v1/jobs", body)

    assert 201 == answer.status, answer.raw


@on_the_fake
@pytest.mark.parametrize(("number", "path"), [(b"1e400", "/priority"), (b"9" * 400, "/priority")])
async def test_a_number_beyond_all_bounds_is_judged_in_our_own_fields(api, number, path):
    answer = await api.post("/v1/jobs", b'{"type":"t","priority":' + number + b"}")

    assert (422, [path]) == (answer.status, answer.paths)


def said(text, kind=NewJobFields):
    with pytest.raises(Invalid) as caught:
        decode(text, kind)
    [fault] = caught.value.faults
    return fault.path, fault.message


def test_faults_are_said_in_words_of_json():
    assert ("/type", "expected a string, got a number") == said(b'{"type": 1}')
    assert ("/type", "this field is required") == said(b"{}")
    assert ("/retry/max_attempts", "expected a number or null, got a string") == said(
        b'{"type":"t","retry":{"max_attempts":"3"}}'
    )
    assert ("/delay", "expected a number or a string or null, got true or false") == said(
        b'{"type":"t","delay":true}'
    )
    assert ("/tags/1", "expected a string, got null") == said(b'{"type":"t","tags":["a",null]}')


json = st.recursive(
    st.none() | st.text(max_size=8), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


def levels(value):
    if isinstance(value, list | dict):
        return 1 + max(map(levels, value.values() if isinstance(value, dict) else value), default=0)
    return 0


@given(json)
def test_depth_is_what_a_reader_would_count(value):
    assert levels(value) == depth(msgspec.json.encode(value))


@given(st.integers(0, 1200), st.integers(0, 30), st.booleans())
def test_depth_of_what_is_deep_and_wide(deep, wide, in_objects):
    opened, closed = (b'{"a":', b"}") if in_objects else (b"[", b"]")
    text = opened * deep + b"[" + b",".join([b"[[]]"] * wide) + b"]" + closed * deep

    assert deep + (3 if wide else 1) == depth(text)


def test_the_number_of_levels_is_that_of_the_contract():
    assert 512 == DEEPEST

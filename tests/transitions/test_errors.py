"""What a job keeps of its failures."""

import json

import pytest

from scheduler.outcomes import Bury, Nack
from tests.helpers import QUEUE, WORKER, claimed, enqueued, look, nacked, on_real_servers, raw, take, taken

CUT = " [cut at 64 KiB]"


async def test_the_first_error_and_the_newest_49_are_kept(store):
    await enqueued(store, "a", retry={"max_attempts": 1000})
    for n in range(1, 61):
        await nacked(store, await taken(store), message=f"failure {n}", retry_in_ms=0)

    kept = (await look(store)).errors
    assert [1, *range(12, 61)] == [error.attempt for error in kept]
    assert [f"failure {n}" for n in (1, *range(12, 61))] == [error.message for error in kept]


TEXTS = {
    "quotes and line ends": 'a "b" \\ c\n\r\td|e',
    "NUL and control characters": "a\0b\x1b[0m\x7f",
    "all the world": "Ünïcödé שלום \U0001f680 e\u0301 \u2028",
    "nothing": "",
    "almost too long": "x" * 65_536,
    "JSON": '{"a": [1, null]}',
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
async def test_a_text_comes_back_as_it_was(store, text):
    job = await claimed(store, retry={"max_attempts": 2})
    await store.nack(QUEUE, [Nack("a", job.token, "E", text, text)], worker=WORKER)
    job = await taken(store)
    await store.bury(QUEUE, [Bury("a", job.token, "E", text, text)], worker=WORKER)

    for error in (await look(store)).errors:
        assert (text, text or None) == (error.message, error.trace)


@pytest.mark.parametrize("letter", ["x", "ä", "€", "\U0001f680"])
@pytest.mark.parametrize("shift", range(4))
async def test_a_long_text_is_cut_between_two_characters_and_says_so(store, letter, shift):
    text = "x" * shift + letter * (1024 * 1024 // len(letter.encode()))
    job = await claimed(store)
    await store.nack(QUEUE, [Nack("a", job.token, text, text, text)], worker=WORKER)

    [error] = (await look(store)).errors
    for kept in (error.kind, error.message, error.trace or ""):
        assert kept.endswith(CUT)
        assert text.startswith(kept.removesuffix(CUT))
        assert 65_497 <= len(kept.removesuffix(CUT).encode()) <= 65_500


async def test_a_lone_surrogate_is_replaced_and_the_rest_stays(store):
    await nacked(store, await claimed(store), message="a\ud800b")

    assert "a?b" == (await look(store)).errors[0].message


@on_real_servers  # the fake's cjson takes text only
async def test_bytes_that_are_no_text_hold_nothing_up(store):
    """A client of another language may send them; to cut within them must not take long."""
    job = await claimed(store)
    await raw(store, "nack", WORKER, 1, 1, "a", job.token, b"E", b"\x80" * 200_000 + b"a", b"", "", "")

    [error] = (await look(store)).errors
    assert error.message.endswith(CUT)


async def test_an_error_is_one_line_of_json(store, redis):
    await nacked(store, await claimed(store), message="a\nb")

    _, line = (await redis.hget("{scheduler:mail}:attempts", "a")).split(b"\n")
    assert {
        "attempt": 1,
        "kind": "ValueError",
        "message": "a\nb",
        "at": 1_800_000_000_000,
        "next": "retry at once",
    } == json.loads(line)


async def test_a_damaged_line_of_errors_hides_no_job(store, redis):
    job = await claimed(store)
    await redis.hset("{scheduler:mail}:attempts", "a", "damaged")

    assert "ready" == await nacked(store, job)
    assert 1 == len((await look(store)).errors)


async def test_a_list_finds_jobs_by_the_kind_of_their_errors(store):
    for key, kind in {"a": "ValueError", "b": 'Odd"Error', "c": "ValueErrors"}.items():
        job = await claimed(store, key, retry={"max_attempts": 1})
        await nacked(store, job, kind=kind)

    assert [["a"], ["b"], []] == [
        (await store.list(QUEUE, "dead", error=kind))[0] for kind in ("ValueError", 'Odd"Error', "Value")
    ]
    assert [] == await take(store)

"""Rates as users write them."""

import pytest

from scheduler.errors import RetryAfter
from scheduler.limits import (
    UNLIMITED,
    Breaker,
    GroupPolicy,
    Rate,
    breaker_state,
    in_force,
    parse_breaker,
    parse_group,
    parse_rate,
    percent_of,
)
from scheduler.outcomes import TypePolicy, parse_type


@pytest.mark.parametrize(
    ("said", "rate", "pause"),
    [
        ("100/m", Rate(100, 60_000), 0.6),
        ("1/s", Rate(1, 1_000), 1.0),
        ("5/h", Rate(5, 3_600_000), 720.0),
        ("1/d", Rate(1, 86_400_000), 86_400.0),
        ((10, "5s"), Rate(10, 5_000), 0.5),
        ((10.0, 60), Rate(10, 60_000), 6.0),
        ((10, 60, 5.0), Rate(10, 60_000, 5), 6.0),
        ("1000000/s", Rate(1_000_000, 1_000), 0.000_001),
    ],
)
def test_a_rate_is_so_many_in_so_long(said, rate, pause):
    assert (rate, pause) == (parse_rate(said), parse_rate(said).pause)


@pytest.mark.parametrize(
    "said", ["", "100", "100/", "/m", "0/s", "-1/s", "1.5/s", "1/w", "1 /s", "1/s ", (0, 60), (1.5, 60), (1, 0), (1, "2d"), (1, 1, -1), (1, 1, 0.5),
     (1, 1, 1_000_001), "1000001/s", (1_001, "1ms"), (10**9 + 1, "1d")]
)  # fmt: skip
def test_what_is_no_rate_is_refused(said):
    with pytest.raises(ValueError):
        parse_rate(said)


@pytest.mark.parametrize(
    ("said", "breaker"),
    [
        ({}, Breaker()),
        ({"failure_rate": 1, "window": 1, "minimum": 1, "open_for": "1d", "probes": 1_000}, Breaker(100, 1_000, 1, 86_400_000, 1_000)),
        ({"failure_rate": 0.291, "window": "1m", "probes": None}, Breaker(30)),
    ],
)  # fmt: skip
def test_a_breaker_is_read_as_documents_have_it(said, breaker):
    assert breaker == parse_breaker(said) == parse_breaker(breaker.document())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("failure_rate", 0), ("failure_rate", 1.01), ("failure_rate", "0.5"), ("failure_rate", True),
        ("window", 0.5), ("window", "25h"), ("window", "soon"), ("window", True), ("open_for", 0), ("open_for", [1]),
        ("minimum", 0), ("minimum", 1.5), ("minimum", "3"), ("minimum", True), ("minimum", 1_000_001),
        ("probes", 0), ("probes", 1_001), ("colour", 1),
    ],
)  # fmt: skip
def test_what_is_no_breaker_is_refused_by_its_field(name, value):
    with pytest.raises(ValueError, match=name):
        parse_breaker({name: value})


RATE = Rate(100, 60_000, 5)


@pytest.mark.parametrize(
    ("policy", "record"),
    [
        (GroupPolicy(), b""),
        (GroupPolicy(weight=3), b"3|||||"),
        (GroupPolicy(concurrency=2, rate=RATE), b"|2|100|60000|5|"),
        (GroupPolicy(concurrency=UNLIMITED, rate=UNLIMITED, paused=True), b"|-|-|||1"),
    ],
)
def test_a_group_policy_is_read_as_it_was_written(policy, record):
    assert (record, policy) == (policy.record(), parse_group(record))


@pytest.mark.parametrize(
    ("policy", "record"),
    [
        (TypePolicy(), b""),
        (TypePolicy(5, {"base": 7}), b'5|\n{"retry":{"base":7}}'),
        (TypePolicy(concurrency=2), b"|2|||||\n{}"),
        (TypePolicy(5, rate=RATE, schema=b"true"), b"5||100|60000|5||\n{}\ntrue"),
        (TypePolicy(paused=True, breaker=Breaker()), b"|||||1|50;60000;10;30000;1\n{}"),
        (TypePolicy(rate=UNLIMITED, concurrency=UNLIMITED, breaker=UNLIMITED), b"|-|-||||-\n{}"),
    ],
)
def test_a_type_policy_is_read_as_it_was_written(policy, record):
    assert (record, policy) == (policy.record(), parse_type(record))


@pytest.mark.parametrize("record", [b"x", b"||", b"a|||||", b"|b||||", b"||1|x|0|", b"\xff|||||"])
def test_a_damaged_policy_of_a_group_says_nothing(record):
    assert GroupPolicy() == parse_group(record)


@pytest.mark.parametrize(
    "line", [b"5|x", b"x|", b"5|||", b"5|a|||||", b"5||1|x|0||", b"5||||||50;1", b"5|\xff"]
)
def test_a_damaged_policy_of_a_type_says_nothing(line):
    assert TypePolicy() == parse_type(line + b"\n{}")


def test_the_strongest_word_holds_also_where_it_says_none():
    assert 5 == in_force(5, 7)
    assert 7 == in_force(None, 7)
    assert None is in_force(UNLIMITED, 7)
    assert None is in_force(None, None)


@pytest.mark.parametrize(
    ("share", "percent"), [(0.5, 50), (1, 100), (1.0, 100), (0.07, 7), (0.001, 1), (0.333, 34)]
)
def test_a_share_is_a_whole_percent_rounded_up(share, percent):
    assert percent == percent_of(share)


@pytest.mark.parametrize("share", [0, -0.1, 1.01])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(ValueError):
        percent_of(share)


def test_retry_after_slows_types_and_groups_and_nothing_else():
    assert ["type", "group", None] == [RetryAfter(60, scope=scope).scope for scope in ("type", "group", None)]
    with pytest.raises(ValueError, match="scope"):
        RetryAfter(60, scope="queue")  # type: ignore[arg-type]


def test_a_breaker_stands_as_its_field_says_at_that_time():
    breaker = Breaker(window_ms=10_000, open_ms=5_000)

    def at(text: str, now: int) -> tuple[object, ...]:
        found = breaker_state(text, breaker, now)
        return found.state, found.until_ms, found.successes, found.failures

    assert ("closed", None, 0, 0) == at("", 1) == at("nonsense", 1) == at("open|x|1|2|3", 1)
    assert ("open", 9_000, 1, 7) == at("open|9000|0|1|7", 8_999)
    assert ("half_open", None, 2, 0) == at("open|9000|2|1|7", 9_000) == at("open|9000|2|1|7", 3_999)
    assert ("closed", None, 5, 3) == at("closed|1000|1|2|4|1", 1_001)
    assert ("closed", None, 3, 2) == at("closed|1000|1|2|4|1", 6_001)
    assert ("closed", None, 1, 2) == at("closed|1000|2|4|9|9", 16_001)
    assert ("closed", None, 0, 0) == at("closed|1000|2|4|9|9", 21_000) == at("closed|1000|2|4|9|9", 999)

"""Times and durations: what is taken, what is refused, and that nothing comes too early."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some

from scheduler.times import duration_ms, parse_rfc3339, rfc3339, seconds, typed_duration_ms

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        (0, 0),
        (30, 30_000),
        (0.25, 250),
        (0.1, 100),
        (1.1, 1_100),
        (2.3, 2_300),
        (1e-9, 1),
        (0.0001, 1),
        (1.0001, 1_001),
        (1e22, 10**25),
        (10**400, 10**403),
        ("250ms", 250),
        ("30s", 30_000),
        ("5m", 300_000),
        ("2h", 7_200_000),
        ("7d", 604_800_000),
        ("0s", 0),
        ("1.5h", 5_400_000),
        ("0.1ms", 1),
        ("1.0000001s", 1_001),
        ("999999999999999.000000001d", 86_399_999_999_999_913_600_001),
    ],
)
def test_a_duration_is_seconds_or_a_number_with_its_unit(written, ms):
    assert ms == duration_ms(written)


@pytest.mark.parametrize(
    "written",
    [
        None, True, False, -1, -0.001, math.nan, math.inf, -math.inf, [], {}, b"30s",
        "", "30", "s", " 30s", "30s ", "30s\n", "30 s", "30S", "1h30m", "-5s", "+5s", "1e3s", ".5s", "5.s",
        "1_000s", "٣s", "5M", "1w", "PT5M", "NaNs", "9" * 5_000 + "s",
    ],
)  # fmt: skip
def test_anything_else_is_no_duration(written):
    with pytest.raises(
        ValueError, match='a duration is seconds as a number of 0 or more, or text such as "250ms"'
    ):
        duration_ms(written)


@pytest.mark.parametrize(("typed", "ms"), [("30", 30_000), ("0.25", 250), ("0", 0), ("30s", 30_000)])
def test_typed_text_may_be_plain_seconds(typed, ms):
    assert ms == typed_duration_ms(typed)


@pytest.mark.parametrize("typed", ["", "-1", "nan", "inf", "1e3", "٣", "30\n", "0x10"])
def test_typed_text_is_refused_like_any_other(typed):
    with pytest.raises(ValueError, match="a duration is seconds"):
        typed_duration_ms(typed)


@pytest.mark.parametrize(("ms", "shown"), [(0, 0), (30_000, 30), (250, 0.25), (1, 0.001), (1_001, 1.001)])
def test_durations_are_shown_in_seconds(ms, shown):
    assert (shown, type(shown)) == (seconds(ms), type(seconds(ms)))


@given(some.integers(0, 10 * 365 * 86_400_000))
def test_a_duration_that_is_shown_is_read_back(ms):
    assert ms == duration_ms(seconds(ms))


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("2027-01-31T08:30:00Z", "2027-01-31T08:30:00.000Z"),
        ("2027-01-31t08:30:00z", "2027-01-31T08:30:00.000Z"),
        ("2027-01-31 08:30:00Z", "2027-01-31T08:30:00.000Z"),
        ("2027-01-31T08:30:00+05:30", "2027-01-31T03:00:00.000Z"),
        ("2027-01-31T08:30:00-11:00", "2027-01-31T19:30:00.000Z"),
        ("2027-01-31T08:30:00-00:00", "2027-01-31T08:30:00.000Z"),
        ("2027-01-31T08:30:00+23:59", "2027-01-30T08:31:00.000Z"),
        ("2027-01-31T08:30:00.5Z", "2027-01-31T08:30:00.500Z"),
        ("2027-01-31T08:30:00.123Z", "2027-01-31T08:30:00.123Z"),
        ("2027-01-31T08:30:00.123000000Z", "2027-01-31T08:30:00.123Z"),
        ("2027-01-31T08:30:00.1230000000000000000000000000000001Z", "2027-01-31T08:30:00.124Z"),
        ("2027-12-31T23:59:59.9991Z", "2028-01-01T00:00:00.000Z"),
        ("2028-02-29T00:00:00Z", "2028-02-29T00:00:00.000Z"),
        ("1969-12-31T23:59:59.500Z", "1969-12-31T23:59:59.500Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
    ],
)
def test_a_time_has_an_offset_and_is_shown_in_utc(written, shown):
    assert shown == rfc3339(parse_rfc3339(written))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("2027-01-31T08:30:00", "no offset"),
        ("2027-01-31T08:30:00.5", "no offset"),
        ("2027-02-30T08:30:00Z", "no such date"),
        ("2027-02-29T08:30:00Z", "no such date"),
        ("2027-13-01T08:30:00Z", "no such date"),
        ("0000-01-01T00:00:00Z", "no such date"),
        ("2027-01-31T24:00:00Z", "no such date"),
        ("2027-01-31T08:60:00Z", "no such date"),
        ("2027-01-31T08:30:61Z", "no such date"),
        ("2027-01-31T08:30:00+24:00", "no such date"),
        ("2027-01-31T08:30:00+01:60", "no such date"),
        ("0001-01-01T00:00:00+01:00", "no such date"),
        ("9999-12-31T23:59:59-01:00", "no such date"),
        ("9999-12-31T23:59:59.9999Z", "no such date"),
        ("2026-12-31T23:59:60Z", "leap second"),
        ("", "RFC 3339"),
        ("tomorrow", "RFC 3339"),
        ("2027-01-31", "RFC 3339"),
        ("2027-01-31T08:30Z", "RFC 3339"),
        ("2027-1-31T08:30:00Z", "RFC 3339"),
        ("20270131T083000Z", "RFC 3339"),
        ("2027-W05-1T08:30:00Z", "RFC 3339"),
        ("2027-01-31T08:30:00 Z", "RFC 3339"),
        ("2027-01-31T08:30:00+0530", "RFC 3339"),
        ("2027-01-31T08:30:00+05", "RFC 3339"),
        ("2027-01-31T08:30:00.Z", "RFC 3339"),
        ("2027-01-31T08:30:00,5Z", "RFC 3339"),
        ("2027-01-31T08:30:00Z\n", "RFC 3339"),
        ("٢٠٢٧-01-31T08:30:00Z", "RFC 3339"),
        ("12027-01-31T08:30:00Z", "RFC 3339"),
    ],
)
def test_a_time_that_is_none_is_refused_with_the_reason(written, said):
    with pytest.raises(ValueError, match=said):
        parse_rfc3339(written)


@given(some.datetimes(timezones=some.just(UTC), max_value=datetime(9999, 12, 31)))  # noqa: DTZ001 - has a zone
def test_a_time_is_read_as_no_earlier_one_and_within_its_millisecond(when):
    late = EPOCH + timedelta(milliseconds=parse_rfc3339(when.isoformat())) - when

    assert timedelta(0) <= late < timedelta(milliseconds=1)


@given(some.integers(0, 253_402_300_799_999))
def test_a_time_that_is_shown_is_read_back(ms):
    assert ms == parse_rfc3339(rfc3339(ms))

"""Cron expressions and periods: what they mean, and what they mean where the clock is changed."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from scheduler.cron import PlanInvalid, parse_cron, words, zone_of
from scheduler.plan import Plan, count_slots, jitter_ms, slot_key
from scheduler.times import parse_rfc3339, rfc3339

CHANGES = {  # a zone -> days around which its clock is put forward, and back
    "Europe/Berlin": ("2027-03-28", "2026-10-25"),
    "America/New_York": ("2027-03-14", "2026-11-01"),
    "Australia/Lord_Howe": ("2026-10-04", "2027-04-04"),
    "America/Santiago": ("2026-09-06", "2027-04-04"),
    "Africa/Cairo": ("2026-04-24", "2026-10-30"),
    "Africa/Casablanca": ("2026-03-22", "2026-02-15"),
    "Asia/Kathmandu": ("2026-03-28", "2026-10-25"),  # never changes; it is 5:45 ahead
    "UTC": ("2027-03-28", "2026-10-25"),
}


def ms(text):
    return parse_rfc3339(text)


def slots(cron, zone, after, count=4, **more):
    """The next slots, as the wall shows them, with their offset."""
    plan = Plan(cron=cron, timezone=zone, **more)
    return [shown(at, zone) for at in plan.upcoming(ms(after), count)]


def shown(at, zone):
    text = datetime.fromtimestamp(at / 1000, zone_of(zone)).isoformat(timespec="seconds")
    return text.replace("+00:00", "Z")


# -- expressions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cron", "first"),
    [
        ("*/5 * * * *", ["2026-11-24T09:05:00Z", "2026-11-24T09:10:00Z"]),
        ("0 9 * * mon-fri", ["2026-11-25T09:00:00Z", "2026-11-26T09:00:00Z"]),
        ("0 9 * * MON,wed", ["2026-11-25T09:00:00Z", "2026-11-30T09:00:00Z"]),
        ("0 0 * * sat-sun", ["2026-11-28T00:00:00Z", "2026-11-29T00:00:00Z"]),
        ("0 0 * * 7", ["2026-11-29T00:00:00Z", "2026-12-06T00:00:00Z"]),
        ("0 0 * * 0", ["2026-11-29T00:00:00Z", "2026-12-06T00:00:00Z"]),
        ("30 8-10 * * *", ["2026-11-24T09:30:00Z", "2026-11-24T10:30:00Z"]),
        ("5/20 * * * *", ["2026-11-24T09:05:00Z", "2026-11-24T09:25:00Z"]),
        ("0 0 1 jan,JUL *", ["2027-01-01T00:00:00Z", "2027-07-01T00:00:00Z"]),
        ("0 0 L * *", ["2026-11-30T00:00:00Z", "2026-12-31T00:00:00Z"]),
        ("0 0 LW * *", ["2026-11-30T00:00:00Z", "2026-12-31T00:00:00Z"]),
        ("0 0 15W * *", ["2026-12-15T00:00:00Z", "2027-01-15T00:00:00Z"]),
        ("0 0 1W 5,8 *", ["2027-05-03T00:00:00Z", "2027-08-02T00:00:00Z"]),  # a Saturday, a Sunday
        ("0 0 31W 1,10 *", ["2027-01-29T00:00:00Z", "2027-10-29T00:00:00Z"]),  # a Sunday both
        ("0 0 31W,LW 2 *", ["2027-02-26T00:00:00Z", "2028-02-29T00:00:00Z"]),
        ("0 0 15W,28 * *", ["2026-11-28T00:00:00Z", "2026-12-15T00:00:00Z"]),
        ("0 0 * * 5L", ["2026-11-27T00:00:00Z", "2026-12-25T00:00:00Z"]),
        ("0 0 * * friL", ["2026-11-27T00:00:00Z", "2026-12-25T00:00:00Z"]),
        ("0 0 * * mon#2", ["2026-12-14T00:00:00Z", "2027-01-11T00:00:00Z"]),
        ("0 0 29 2 *", ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]),
        ("0 0 13 * fri", ["2026-11-27T00:00:00Z", "2026-12-04T00:00:00Z"]),  # either
        ("0 0 */2 * mon", ["2026-12-07T00:00:00Z", "2026-12-21T00:00:00Z"]),  # both: one begins with a star
        ("@yearly", ["2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z"]),
        ("@annually", ["2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z"]),
        ("@monthly", ["2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"]),
        ("@weekly", ["2026-11-29T00:00:00Z", "2026-12-06T00:00:00Z"]),
        ("@daily", ["2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z"]),
        ("@Midnight", ["2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z"]),
        ("@hourly", ["2026-11-24T10:00:00Z", "2026-11-24T11:00:00Z"]),
        ("*/20 * * * * *", ["2026-11-24T09:00:20Z", "2026-11-24T09:00:40Z"]),  # six: seconds first
        ("5 4 3 * * *", ["2026-11-25T03:04:05Z", "2026-11-26T03:04:05Z"]),
        ("  0   9  *\t* * ", ["2026-11-25T09:00:00Z", "2026-11-26T09:00:00Z"]),
    ],
)
def test_an_expression_means_what_it_says(cron, first):
    assert first == slots(cron, "UTC", "2026-11-24T09:00:00Z", 2)


def test_the_slots_of_an_hour_are_all_there():
    expected = [f"2026-11-24T10:{minute:02}:00Z" for minute in range(0, 60, 5)]

    assert expected == slots("*/5 * * * *", "UTC", "2026-11-24T09:55:00.001Z", 12)


def test_a_slot_comes_after_the_instant_and_never_at_it():
    assert ["2026-11-24T09:00:00Z"] == slots("0 9 * * *", "UTC", "2026-11-24T08:59:59.999Z", 1)
    assert ["2026-11-25T09:00:00Z"] == slots("0 9 * * *", "UTC", "2026-11-24T09:00:00Z", 1)


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("* * * * * * 2027", "7 fields"),
        ("60 * * * *", r"minute \(column 1\): 60 is not from 0 to 59"),
        ("0 25 * * *", r"hour \(column 3\): 25 is not from 0 to 23"),
        ("0 0 0 * *", r"day of month \(column 5\): 0 is not from 1 to 31"),
        ("0 0 1,2,32 * *", r"day of month \(column 9\): 32 is not"),
        ("0 0 * 13 *", r"month \(column 7\): 13 is not from 1 to 12"),
        ("0 0 * * 8", r"day of week \(column 9\): 8 is not from 0 to 7"),
        ("0 0 * * monday", r"day of week \(column 9\): 'monday' is not a number from 0 to 7 or one of SUN"),
        ("61 0 0 * * *", r"second \(column 1\): 61 is not"),
        ("*/0 * * * *", r"minute \(column 3\): '0' is not a step from 1 to 60"),
        ("*/90 * * * *", r"minute \(column 3\): '90' is not a step .* \"every\""),
        ("*/ * * * *", r"minute \(column 3\): '' is not a step"),
        ("*/-5 * * * *", r"minute \(column 3\): '-5' is not a step"),
        ("1,,2 * * * *", r"minute \(column 3\): a value is missing"),
        ("1- * * * *", r"minute \(column 3\): a value is missing"),
        ("0 17-9 * * *", r"hour \(column 3\): '17-9' goes backwards"),
        ("0 0 ? * mon", r"column 5: '\?' is not known here: any day is"),
        ("0 0 W * *", r"day of month \(column 5\): 'W' is not"),
        ("0 0 32W * *", r"day of month \(column 5\): 32 is not"),
        ("0 0 L-3 * *", r"day of month \(column 5\): 'L' is not"),
        ("0 0 * * mon#6", r"day of week \(column 13\): '6' is not from 1 to 5"),
        ("0 0 * * mon#", r"day of week \(column 13\): '' is not from 1 to 5"),
        ("0 0 * * L", r"day of week \(column 9\): 'L' is not"),
        ("0 L * * *", r"hour \(column 3\): 'L' is not"),
        ("0 0 30 2 *", r"day of month \(column 5\): no month .* never comes due"),
        ("30 2 30 2 *", r"day of month \(column 6\): no month"),
        ("0 0 31 4,6,9,11 *", r"day of month \(column 5\): no month"),
        ("0 0 31W 2 *", r"day of month \(column 5\): no month"),
        ("0 0 ٣ * *", r"day of month \(column 5\): '٣' is not"),
        ("@reboot", "@reboot is none of @yearly"),
        ("@every 5m", '"every"'),
        ("0 " * 200, "at most 256 characters"),
    ],
)
def test_a_wrong_expression_is_refused_with_its_field_and_column(cron, message):
    with pytest.raises(PlanInvalid, match=message) as refused:
        Plan(cron=cron).check()

    assert "cron" == refused.value.field


@pytest.mark.parametrize(
    "zone",
    ["Europe/Berln", "europe", "Europe", "/etc/passwd", "../UTC", "localtime", "posix/UTC", "CEST+1", ""],
)
def test_an_unknown_zone_is_refused(zone):
    with pytest.raises(PlanInvalid, match="no IANA time zone") as refused:
        Plan(cron="@daily", timezone=zone).check()

    assert "timezone" == refused.value.field


def test_a_zone_that_is_nearly_right_is_named():
    with pytest.raises(PlanInvalid, match="near it: Europe/Berlin"):
        zone_of("Europe/Berln")


# -- the clock is changed: fixed hours ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        # Put forward: what is not there comes right after the gap.
        ("30 2 * * *", "America/New_York", "2027-03-13T12:00:00Z", ["2027-03-14T03:00:00-04:00", "2027-03-15T02:30:00-04:00"]),
        ("30 2 * * *", "Europe/Berlin", "2027-03-27T12:00:00Z", ["2027-03-28T03:00:00+02:00", "2027-03-29T02:30:00+02:00"]),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", ["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"]),
        ("0 0 * * *", "America/Santiago", "2026-09-05T12:00:00Z", ["2026-09-06T01:00:00-03:00", "2026-09-07T00:00:00-03:00"]),
        ("30 0 * * *", "Africa/Cairo", "2026-04-23T12:00:00Z", ["2026-04-24T01:00:00+03:00", "2026-04-25T00:30:00+03:00"]),
        ("0 12 * * *", "Pacific/Apia", "2011-12-29T00:00:00Z", ["2011-12-29T12:00:00-10:00", "2011-12-31T00:00:00+14:00", "2011-12-31T12:00:00+14:00"]),
        # Put back: at the first of two.
        ("30 1 * * *", "America/New_York", "2026-11-01T00:00:00Z", ["2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2027-04-03T12:00:00Z", ["2027-04-04T01:45:00+11:00", "2027-04-05T01:45:00+10:30"]),
        ("30 2 * * *", "Africa/Casablanca", "2026-02-14T12:00:00Z", ["2026-02-15T02:30:00+01:00", "2026-02-16T02:30:00Z"]),
        # Several that are not there are one; one that is there besides is the same.
        ("15,30,45 2 * * *", "Europe/Berlin", "2027-03-28T00:00:00Z", ["2027-03-28T03:00:00+02:00", "2027-03-29T02:15:00+02:00"]),
        ("0 2,3 * * *", "Europe/Berlin", "2027-03-28T00:00:00Z", ["2027-03-28T03:00:00+02:00", "2027-03-29T02:00:00+02:00"]),
        # With seconds too.
        ("10 30 2 * * *", "Europe/Berlin", "2027-03-28T00:00:00Z", ["2027-03-28T03:00:00+02:00", "2027-03-29T02:30:10+02:00"]),
        ("10 30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", ["2026-10-25T02:30:10+02:00", "2026-10-26T02:30:10+01:00"]),
        # A list or a range of hours is fixed.
        ("0 1-4 * * *", "Europe/Berlin", "2026-10-24T23:30:00Z", ["2026-10-25T02:00:00+02:00", "2026-10-25T03:00:00+01:00"]),
    ],
)  # fmt: skip
def test_fixed_hours_come_once_where_the_clock_is_changed(cron, zone, after, expected):
    assert expected == slots(cron, zone, after, len(expected))


def test_a_schedule_that_is_asked_within_the_second_of_two_hours_has_had_its_slot():
    # 02:40, the second time: 02:30 and 02:50 were at the first.
    assert ["2026-10-26T02:30:00+01:00"] == slots("30,50 2 * * *", "Europe/Berlin", "2026-10-25T01:40:00Z", 1)


# -- the clock is changed: wildcards and steps --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        ("30 * * * *", "Europe/Berlin", "2027-03-28T00:00:00Z", ["2027-03-28T01:30:00+01:00", "2027-03-28T03:30:00+02:00"]),
        ("30 * * * *", "Europe/Berlin", "2026-10-24T23:45:00Z", ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-25T03:30:00+01:00"]),
        ("*/30 * * * *", "America/New_York", "2026-11-01T04:45:00Z", ["2026-11-01T01:00:00-04:00", "2026-11-01T01:30:00-04:00", "2026-11-01T01:00:00-05:00", "2026-11-01T01:30:00-05:00", "2026-11-01T02:00:00-05:00"]),
        # What is not there is not there: a step in the hour is real time too.
        ("30 */2 * * *", "Europe/Berlin", "2027-03-27T23:45:00Z", ["2027-03-28T04:30:00+02:00"]),
        ("0 0-22/2 * * *", "Europe/Berlin", "2026-10-24T22:30:00Z", ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00", "2026-10-25T04:00:00+01:00"]),
        # Half an hour, twice: none is lost after it.
        ("*/15 2 * * *", "Australia/Lord_Howe", "2027-04-03T14:50:00Z", ["2027-04-04T02:00:00+10:30", "2027-04-04T02:15:00+10:30", "2027-04-04T02:30:00+10:30"]),
        ("*/15 * * * *", "Australia/Lord_Howe", "2027-04-03T14:40:00Z", ["2027-04-04T01:45:00+11:00", "2027-04-04T01:30:00+10:30", "2027-04-04T01:45:00+10:30", "2027-04-04T02:00:00+10:30"]),
        ("*/15 * * * *", "Australia/Lord_Howe", "2026-10-03T15:10:00Z", ["2026-10-04T01:45:00+10:30", "2026-10-04T02:30:00+11:00"]),
        ("*/10 * * * * *", "Europe/Berlin", "2026-10-25T00:59:45Z", ["2026-10-25T02:59:50+02:00", "2026-10-25T02:00:00+01:00", "2026-10-25T02:00:10+01:00"]),
    ],
)  # fmt: skip
def test_a_wildcard_or_a_step_goes_on_in_real_time(cron, zone, after, expected):
    assert expected == slots(cron, zone, after, len(expected))


@pytest.mark.parametrize("zone", CHANGES)
def test_every_quarter_is_a_quarter_of_an_hour_through_both_changes(zone):
    for day in CHANGES[zone]:
        noon = ms(f"{day}T12:00:00Z") - 86_400_000
        found = Plan(cron="*/15 * * * *", timezone=zone).upcoming(noon, 200)

        assert {900_000} == {later - sooner for sooner, later in itertools.pairwise(found)}


EXPRESSIONS = [
    "30 2 * * *", "0 0 * * *", "15 1,2,3 * * *", "*/7 * * * *", "* 2 * * *", "0 */3 * * *", "30 1-3/2 * * *", "0 30 1 * * *", "*/20 59 23,0 * * *", "17 1 * * sun", "0 2 1-7 * mon", "45 23 L * *",
]  # fmt: skip


@pytest.mark.parametrize("zone", CHANGES)
@pytest.mark.parametrize("cron", EXPRESSIONS)
def test_the_slots_are_those_that_a_clock_gives_that_is_looked_at_all_the_time(cron, zone):
    for day in CHANGES[zone]:
        start = ms(f"{day}T00:00:00Z") - 12 * 3_600_000
        end = start + 17 * 3_600_000

        assert counted(cron, zone, start, end) == list(
            Plan(cron=cron, timezone=zone).slots(start - 1, end - 1)
        ), (cron, zone, day)


def counted(cron, zone, start, end):
    """Every minute, or ten seconds, looked at: what a wall shows, by the contract alone."""
    its = parse_cron(cron)
    found, had, last = [], set(), None
    step = 10_000 if len(cron.split()) == 6 else 60_000
    for at in range(start - 3 * 3_600_000, end, step):
        wall = datetime.fromtimestamp(at / 1000, zone_of(zone)).replace(tzinfo=None, fold=0)
        matched = its.wall.after(wall - timedelta(seconds=1)) == wall
        if its.real_time:
            if matched:
                found.append(at)
        else:
            skipped = (
                last is not None
                and wall - last > timedelta(milliseconds=step)
                and (its.wall.after(last) or wall) < wall
            )
            if (matched and wall not in had) or (skipped and not matched):
                found.append(at)
            had.add(wall)
        last = wall
    return [at for at in found if at >= start]


def test_an_expression_is_the_same_whatever_instant_it_is_asked_from():
    chance = random.Random(9)
    for zone, days in CHANGES.items():
        for cron in EXPRESSIONS:
            plan = Plan(cron=cron, timezone=zone)
            start = ms(f"{chance.choice(days)}T00:00:00Z") - 86_400_000
            found = plan.upcoming(start, 12)
            for sooner, later in itertools.pairwise(found):
                between = chance.randrange(sooner, later)
                assert later == plan.next(between), (cron, zone, rfc3339(between))


# -- periods ------------------------------------------------------------------------------------------------------


def test_a_period_first_comes_a_period_after_it_was_begun():
    plan = Plan(every_ms=90_000, anchor_ms=1_000_000)

    assert [1_090_000, 1_180_000] == plan.upcoming(1_000_000, 2)
    assert 1_090_000 == plan.next(0)
    assert 1_180_000 == plan.next(1_090_000)


def test_a_period_with_a_start_first_comes_there():
    plan = Plan(every_ms=90_000, anchor_ms=5, starts_ms=1_000_000)

    assert [1_000_000, 1_090_000] == plan.upcoming(5, 2)
    assert 1_180_000 == plan.next(1_090_001)


def test_a_period_follows_real_time_through_a_change_of_the_clock():
    plan = Plan(every_ms=3_600_000, timezone="Europe/Berlin", anchor_ms=ms("2026-10-24T12:00:00Z"))

    found = plan.upcoming(plan.anchor_ms, 48)

    assert {3_600_000} == {later - sooner for sooner, later in itertools.pairwise(found)}


def test_a_thousand_periods_do_not_drift():
    plan = Plan(every_ms=100, anchor_ms=7)
    now, chance = 7, random.Random(3)
    found: list[int] = []
    while len(found) < 1_000:
        found.append(plan.next(now) or 0)
        now = found[-1] + chance.randrange(90)  # seen late, each time

    assert [7 + 100 * n for n in range(1, 1_001)] == found


# -- bounds, and many slots --------------------------------------------------------------------------------------


def test_nothing_comes_before_its_start_or_after_its_end():
    plan = Plan(cron="@hourly", starts_ms=ms("2026-11-24T09:00:00Z"), ends_ms=ms("2026-11-24T11:00:00Z"))

    expected = ["2026-11-24T09:00:00.000Z", "2026-11-24T10:00:00.000Z", "2026-11-24T11:00:00.000Z"]
    assert expected == [rfc3339(at) for at in plan.upcoming(0, 10)]
    assert plan.next(ms("2026-11-24T11:00:00Z")) is None


@pytest.mark.parametrize("plan", [Plan(cron="*/7 * * * *"), Plan(cron="* * 2 * * *"), Plan(every_ms=700)])
def test_the_last_of_many_slots_is_found_without_looking_at_each(plan):
    first = plan.next(0) or 0
    until = first + 86_400_000

    expected = list(plan.slots(0, until))
    assert expected[-1] == plan.last(first, until)
    assert (expected[-50:], False) == plan.newest(first, until, 50)
    assert (expected[:3], True) == plan.newest(first, expected[2], 50)
    assert len(expected) == plan.count(first, until)


CRONS = (
    "*/7 * * * *", "0 9 * * mon-fri", "*/15 1-3 * * *", "30 2 * * *", "0,30 1,2 * * *", "* * 1-7 * mon", "*/20 */5 * * * *",
    "5 * L * *", "0 0 1W * *", "13 13 13 * 5#2", "*/59 0 * * sun", "0 0,1,2,3 * * *", "59 23 * * *",
)  # fmt: skip
CHANGING = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "Africa/Casablanca",
    "Pacific/Apia",
)


@given(
    some.sampled_from(CRONS),
    some.sampled_from(CHANGING),
    # Around changes of the clock; Apia skipped a whole day at the end of 2011.
    some.sampled_from(["2026-03-27", "2026-10-22", "2011-12-28", "2018-09-26"]),
    some.integers(0, 6 * 86_400_000),
    some.integers(0, 3 * 86_400_000),
)
@settings(max_examples=150, deadline=None)
def test_slots_are_counted_without_visiting_each(expression, zone, day, start, length):
    after = ms(f"{day}T00:00:00Z") + start
    plan = Plan(cron=expression, timezone=zone)

    assert len(list(plan.slots(after, after + length))) == count_slots(
        expression, zone, after, after + length
    )


def test_no_slot_comes_after_the_last_date_that_can_be_shown():
    assert [] == Plan(every_ms=86_400_000, starts_ms=ms("9999-12-30T00:00:00Z")).upcoming(0, 5)


# -- words ---------------------------------------------------------------------------------------------------------


def test_an_expression_is_said_in_words():
    assert "At 09:00 on Monday through Friday" in (words("0 9 * * mon-fri") or "")
    assert words("0 0 15W * *") is None


def test_the_key_of_a_slot_names_schedule_and_time():
    assert "nightly.20261124T090000Z" == slot_key("nightly", ms("2026-11-24T09:00:00Z"))
    assert "fast.20261124T090000.250Z" == slot_key("fast", ms("2026-11-24T09:00:00.250Z"))


def test_jitter_is_the_same_for_a_slot_and_spreads_schedules():
    spread = {jitter_ms(f"s{n}", 1_000, 60_000) for n in range(200)}

    assert jitter_ms("a", 1_000, 60_000) == jitter_ms("a", 1_000, 60_000)
    assert min(spread) >= 0
    assert max(spread) <= 60_000
    assert len(spread) > 190
    assert 0 == jitter_ms("a", 1_000, 0)


def test_zones_are_those_of_the_machine():
    assert UTC is zone_of("UTC")
    assert ZoneInfo("Asia/Kathmandu") is zone_of("Asia/Kathmandu")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("0 */6 * * ? *", "AWS.*'0 \\*/6 \\* \\* \\*' here$"),
        ("0 9 ? * 2-6 *", "AWS.*'0 9 \\* \\* 1-5' here, where Sunday is 0$"),
        ("0 0 12 ? * MON-FRI", "Quartz.*'0 0 12 \\* \\* MON-FRI' here$"),
        ("0 0 12 * * ?", "Quartz.*'0 0 12 \\* \\* \\*' here$"),
        (
            "0 0 12 ? * 6L 2027",
            "Quartz.*'0 0 12 \\* \\* 5L' here, where Sunday is 0, with the year in starts_at and ends_at$",
        ),
        ("0 0 ? * 2#1 *", "AWS.*'0 0 \\* \\* 1#1' here, where Sunday is 0$"),
        ("0 9 ? * 1", "any day is \\*$"),
    ],
)
def test_expressions_of_other_dialects_are_translated(given, said):
    with pytest.raises(PlanInvalid, match=said):
        parse_cron(given)


def test_a_name_of_a_zone_is_judged_case_by_case_with_the_right_one_as_a_hint():
    for wrong, right in (("utc", "UTC"), ("europe/berlin", "Europe/Berlin"), ("EST5edt", "EST5EDT")):
        with pytest.raises(PlanInvalid, match=f"it is written {right}$"):
            zone_of(wrong)
    with pytest.raises(PlanInvalid) as raised:
        zone_of("Factory")
    assert "near it: Factory" not in str(raised.value)


def test_two_restricted_days_are_said_with_or():
    assert "or on Monday" in (words("0 9 1-7 * mon") or "")

"""Rates as users write them."""

import pytest

from scheduler.limits import Rate, parse_rate


@pytest.mark.parametrize(
    ("said", "rate", "pause"),
    [
        ("100/m", Rate(100, 60_000), 0.6),
        ("1/s", Rate(1, 1_000), 1.0),
        ("5/h", Rate(5, 3_600_000), 720.0),
        ("1/d", Rate(1, 86_400_000), 86_400.0),
        ((10, "5s"), Rate(10, 5_000), 0.5),
        ((10.0, 60), Rate(10, 60_000), 6.0),
    ],
)
def test_a_rate_is_so_many_in_so_long(said, rate, pause):
    assert (rate, pause) == (parse_rate(said), parse_rate(said).pause)


@pytest.mark.parametrize(
    "said", ["", "100", "100/", "/m", "0/s", "-1/s", "1.5/s", "1/w", "1 /s", "1/s ", (0, 60), (1.5, 60), (1, 0), (1, "2d")]
)  # fmt: skip
def test_what_is_no_rate_is_refused(said):
    with pytest.raises(ValueError):
        parse_rate(said)

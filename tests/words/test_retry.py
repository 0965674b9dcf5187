"""The delays of a retry policy."""

import pytest

from scheduler.retry import delays, in_force


def lasts(**policy):
    """Seconds from the first failure to the last retry: the least and the most."""
    found = delays(in_force(policy))
    return sum(least for least, _ in found) / 1000, sum(most for _, most in found) / 1000


def test_the_defaults_outlive_an_outage_of_four_hours():
    assert (14_647, 29_294) == lasts()
    assert 19 == len(delays(in_force()))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"max_attempts": 1}, []),
        ({"max_attempts": 3, "jitter": 0}, [(0, 0), (2_000, 2_000)]),
        ({"max_attempts": 4, "immediate": 0}, [(1_000, 2_000), (2_000, 4_000), (4_000, 8_000)]),
        ({"max_attempts": 4, "immediate": 9}, [(0, 0)] * 3),
        ({"max_attempts": 4, "factor": 1, "jitter": 1}, [(0, 0), (0, 2_000), (0, 2_000)]),
        (
            {"max_attempts": 4, "base": 5_000, "max_delay": 6_000, "jitter": 0},
            [(0, 0), (5_000, 5_000), (6_000, 6_000)],
        ),
    ],
)
def test_each_retry_waits_as_the_policy_says(policy, expected):
    assert expected == delays(in_force(policy))


def test_the_largest_policy_is_worked_out():
    found = delays(in_force({"max_attempts": 1000, "factor": 1000, "immediate": 0, "jitter": 0}))

    assert (999, (3_600_000, 3_600_000)) == (len(found), found[-1])

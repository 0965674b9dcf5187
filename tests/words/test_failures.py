"""What makes two failures the same."""

import pytest

from scheduler.failures import fingerprint_of, pattern_of

ALIKE = [
    ("job 12 of 30", "job 7 of 4000", "job # of #"),
    ("no user bob@example.org", "no user <ada@example.net>", None),
    ("order 550e8400-e29b-41d4-a716-446655440000 is gone", "order 0198c0de-0000-7000-8000-000000000001 is gone", "order # is gone"),
    ("customer cus_8fh2k1 has no card", "customer cus_99 has no card", "customer # has no card"),
    ("at 0x7f3a10", "at 0xdeadbeef00", "at #"),
    ("took 1.5 s", "took 12 s", "took # s"),
    ("10.0.0.1:6379 refused", "192.168.1.20:6380 refused", "# refused"),
    ("since 2026-11-24T10:00:00.000Z", "since 2027-01-01", "since #"),
    ("two  words\n\there", "two words here", "two words here"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "pattern"), ALIKE)
def test_messages_that_differ_in_numbers_and_ids_are_one_failure(one, other, pattern):
    if pattern is not None:
        assert pattern == pattern_of(one) == pattern_of(other)
        assert fingerprint_of("t", "E", one) == fingerprint_of("t", "E", other)
    assert 16 == len(fingerprint_of("t", "E", one))


def test_an_address_is_an_id():
    assert (
        "no user #" == pattern_of("no user bob@example.org") == pattern_of("no user ada.l+x@sub.example.net")
    )


def test_type_kind_and_words_make_another_failure():
    prints = {
        fingerprint_of(*failure)
        for failure in [("t", "E", "no"), ("u", "E", "no"), ("t", "F", "no"), ("t", "E", "yes"), ("tE", "", "no"), ("t", "E", "")]
    }  # fmt: skip

    assert 6 == len(prints)


def test_a_long_message_is_cheap_and_its_end_does_not_count():
    assert fingerprint_of("t", "E", "word " * 300) == fingerprint_of("t", "E", "word " * 200_000 + "end")
    assert pattern_of("9" * 10**6) == "#"
    assert fingerprint_of("t", "E", "\ud800 half a character")

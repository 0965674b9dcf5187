"""What errors say."""

from scheduler.errors import Fault, Invalid


def test_a_fault_of_the_whole_is_told_without_a_path():
    assert "an object is expected; /type: this field is required" == str(
        Invalid([Fault("", "an object is expected"), Fault("/type", "this field is required")])
    )

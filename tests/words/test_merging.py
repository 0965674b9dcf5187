"""JSON Merge Patch. The table is the one of RFC 7386, appendix A."""

import json

import pytest

from scheduler.merging import merged

RFC = [
    ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
    ('{"a":"b"}', '{"a":null}', "{}"),
    ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
    ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
    ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
    ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
    ('["a","b"]', '["c","d"]', '["c","d"]'),
    ('{"a":"b"}', '["c"]', '["c"]'),
    ('{"a":"foo"}', "null", "null"),
    ('{"a":"foo"}', '"bar"', '"bar"'),
    ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
    ("[1,2]", '{"a":"b","c":null}', '{"a":"b"}'),
    ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
]


@pytest.mark.parametrize(("target", "patch", "result"), RFC)
def test_the_table_of_the_standard(target, patch, result):
    assert json.loads(result) == json.loads(merged(target.encode(), patch.encode()))


def test_what_is_not_touched_stays_as_it_was_written():
    target = b'{"n": 123456789012345678901234567890, "f": 1.10, "deep": {"x":  1e400, "y": 1}}'

    changed = merged(target, b'{"deep": {"y": 12345678901234567890123}}')

    assert b'"n":123456789012345678901234567890' in changed
    assert b'"f":1.10' in changed
    assert b'{"x":1e400,"y":12345678901234567890123}' in changed.replace(b"  ", b"")


def test_a_patch_that_is_not_json_is_refused():
    with pytest.raises(ValueError):
        merged(b"{}", b'{"a":')


def test_a_deep_patch_reaches_down():
    depth = 500
    patch = b'{"a":' * depth + b"1" + b"}" * depth

    assert patch == merged(b"{}", patch)

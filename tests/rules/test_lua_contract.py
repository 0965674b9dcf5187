"""What `lua/README.md` promises of every script, as far as its text shows it. What it does stands in tests/transitions/."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from scheduler import scripts
from scheduler.rights import FORMS

LUA = Path(__file__).resolve().parents[2] / "lua"
SCRIPTS = sorted(path.stem for path in LUA.glob("*.lua"))
LIB = sorted(path.stem for path in (LUA / "lib").glob("*.lua"))
READ_ARGV = {"item", "refusal"}
"""The only functions that read ARGV by position."""

WHILE = {"list": 2, "edited": 2, "groups": 1, "choose": 2, "choose_only": 2}
"""Loops whose end is no number that they begin with: a list's looks and groups are counted, edits are at most a hundred;
of the lanes so many are looked at a call."""

WRITES = {
    "HDEL", "HSET", "HSETNX", "LTRIM", "RPUSH", "XADD", "ZADD", "ZREM", "ZREMRANGEBYLEX", "ZREMRANGEBYRANK",
    "UNLINK",
}  # fmt: skip

FILES = [*SCRIPTS, *(f"lib/{name}" for name in LIB)]


@cache
def text(name: str) -> str:
    return (LUA / f"{name}.lua").read_text()


@cache
def code(name: str) -> str:
    """A file without its comments."""
    return re.sub(r"--(?!\[).*", "", text(name))


def included(name: str) -> list[str]:
    return re.findall(r"^ *-- @include lib/(\w+)$", text(name), re.MULTILINE)


@cache
def calls(name: str) -> list[tuple[str, str]]:
    """Each redis.call of a file: its command, and its key as it is written (nothing for one without)."""
    found = []
    for match in re.finditer(r"redis\.call\(", code(name)):
        arguments = _arguments(code(name)[match.end() :])
        found.append((arguments[0], arguments[1] if len(arguments) > 1 else ""))
    return found


def _arguments(rest: str) -> list[str]:
    """The arguments of a call, whose opening bracket was read: split at its own commas."""
    found: list[str] = []
    depth = start = 0
    # Brackets and commas within a text are none.
    plain = re.sub(r'"(\\.|[^"\\])*"', lambda text: "_" * len(text[0]), rest)
    for at, letter in enumerate(plain):
        if letter in "([{":
            depth += 1
        elif letter in ")]}":
            if depth == 0:
                return [*found, rest[start:at].strip()]
            depth -= 1
        elif letter == "," and depth == 0:
            found.append(rest[start:at].strip())
            start = at + 1
    raise AssertionError(f"no end: {rest[:80]}")


def whole_calls(name: str, command: str) -> list[list[str]]:
    return [
        arguments
        for match in re.finditer(r"redis\.call\(", code(name))
        if (arguments := _arguments(code(name)[match.end() :]))[0] == f'"{command}"'
    ]


@cache
def writes(function: str) -> bool:
    """A function of lib/ that writes, or includes one that does."""
    return any(command.strip('"') in WRITES for command, _ in calls(f"lib/{function}")) or any(
        map(writes, included(f"lib/{function}"))
    )


def test_the_first_line_is_the_arrow_and_the_two_bindings_follow_the_includes():
    for name in SCRIPTS:
        lines = text(name).splitlines()
        comments = [line.startswith("--") for line in lines].index(False)

        assert lines[0].startswith(f"-- {name}: "), name
        assert re.fullmatch(r"local [a-z_, ]+ = unpack\(KEYS\)", lines[comments]), name
        assert re.fullmatch(
            r"local [a-z_, ]+ = unpack\(ARGV\)( -- then `count` times: [a-z_, ]+)?", lines[comments + 1]
        ), name
        assert any(line.startswith("-- Returns ") for line in lines[:comments]), name


def test_keys_and_arguments_are_read_by_name_only():
    for name in FILES:
        bindings = r"^local .* = unpack\((KEYS|ARGV)\)$" if "/" not in name else "^$"
        rest = re.sub(
            bindings, "", re.sub(r"[ \t]+$", "", code(name), flags=re.MULTILINE), flags=re.MULTILINE
        )

        if name.removeprefix("lib/") in READ_ARGV:
            rest = rest.replace("ARGV", "")
        assert not re.search(r"\b(KEYS|ARGV)\b", rest), name


def test_every_key_that_is_named_is_used():
    for name in SCRIPTS:
        # That it is touched too, test_wrong_types.py shows.
        body = code(name).split("unpack(ARGV)", 1)[1]

        assert [] == [key for key in scripts.script(name).keys if not re.search(rf"\b{key}\b", body)], name


def test_every_argument_that_is_named_is_used():
    for name in SCRIPTS:
        body = code(name).split("unpack(ARGV)", 1)[1]

        assert set() == {arg for arg in scripts.script(name).args if not re.search(rf"\b{arg}\b", body)}, name


def test_no_key_is_built():
    for name in FILES:
        keys = [key for command, key in calls(name) if command != '"TIME"']

        assert [] == [key for key in keys if not re.fullmatch(r"\w+|keys\.\w+|keys\[[\w.]+\]", key)], name


def test_includes_are_few_and_each_is_used():
    for name in FILES:
        assert len(included(name)) <= (5 if "/" not in name else 7), name
        assert [] == [function for function in included(name) if not _uses(name, function)], name


def _uses(name: str, function: str) -> bool:
    """Calls it, or what comes with it."""
    if "/" in name:  # or is there for the scripts that include it
        return any(re.search(rf"\b{function}\(", code(other)) for other in [name, *SCRIPTS])
    wanted = [function, *included(f"lib/{function}")]
    return any(re.search(rf"\b{word}\(", code(name)) for word in wanted)


def test_a_file_of_lib_is_one_function_of_its_name_with_a_sentence_about_it():
    for name in LIB:
        top = [
            line
            for line in text(f"lib/{name}").splitlines()
            if line and not line.startswith(("--", " ", "\t"))
        ]
        words = [
            line
            for line in text(f"lib/{name}").splitlines()
            if line.startswith("-- ") and "@include" not in line
        ]

        assert [True, "end"] == [top[0].startswith(f"local function {name}("), *top[1:]], name
        assert words, name
        assert words[0][3].isupper(), name


def test_every_function_of_lib_is_included_somewhere():
    used = {function for name in [*SCRIPTS, *(f"lib/{name}" for name in LIB)] for function in included(name)}

    assert set(LIB) == used


def test_every_loop_is_bounded():
    for name in FILES:
        assert WHILE.get(name.removeprefix("lib/"), 0) == len(re.findall(r"\bwhile\b", code(name))), name
        assert not re.search(r"\brepeat\b|\bgoto\b", code(name)), name


def test_every_range_that_is_read_is_bounded():
    for name in FILES:
        for command in ("ZRANGEBYSCORE", "ZREVRANGEBYSCORE", "ZRANGEBYLEX"):
            assert [] == [call for call in whole_calls(name, command) if '"LIMIT"' not in call], name
        for call in whole_calls(name, "ZRANGE"):
            assert call[3] in {
                "0",
                "9",
                "199",
                "count - 1",
                "from + 499",
                "from + limit - 1",
                "fetched + size - 1",
                "seen + size - 1",
            }, name
        for command in ("HGETALL", "HKEYS", "HVALS", "SMEMBERS", "LRANGE", "XRANGE"):
            assert [] == whole_calls(name, command) or name == "census", (name, command)


def test_nothing_follows_another_clock_and_no_id_is_explicit():
    for name in FILES:
        assert {"EXPIRE", "PEXPIRE", "EXPIREAT", "SETEX", "KEYS", "SCAN", "SORT", "RANDOMKEY"}.isdisjoint(
            command.strip('"') for command, _ in calls(name)
        )
        for call in whole_calls(name, "XADD"):
            assert ['"MAXLEN"', '"~"', "10000", '"*"'] == call[2:6], name


def test_no_error_is_caught_and_none_is_thrown():
    for name in FILES:
        assert not re.search(r"redis\.pcall|\berror\(|\bassert\(", code(name)), name
        assert re.findall(r"pcall\(([\w.]+)", code(name)) in ([], ["cjson.decode"]), name


def test_nothing_is_written_above_the_last_refusal():
    for name in SCRIPTS:
        body = code(name).split("unpack(ARGV)", 1)[1]
        above = body[: body.rfind("redis.error_reply")] if "redis.error_reply" in body else ""
        called = {function for function in re.findall(r"\b([a-z_]+)\(", above) if function in LIB}

        assert set() == WRITES & set(re.findall(r'redis\.call\("([A-Z]+)"', above)), name
        assert [] == [function for function in called if writes(function)], name


def test_every_writer_looks_at_the_level_of_the_queue_first():
    for name in SCRIPTS:
        reads_only = scripts.script(name).flags == ("no-writes",)

        assert reads_only or '"level"' in code(name), name
        if reads_only:
            assert set() == WRITES & scripts.script(name).commands, name


def test_only_what_brings_new_bytes_is_refused_by_a_full_server():
    assert {
        "enqueue",
        "update",
        "note",
        "follow",
        "flow_put",
        "ack_add",
        "schedule_put",
        "schedule_fire",
    } == {name for name in SCRIPTS if scripts.script(name).flags == ()}
    assert {"inspect", "list", "census", "groups", "explain", "demand", "parents", "schedule_due"} == {
        name for name in SCRIPTS if scripts.script(name).flags == ("no-writes",)
    }


def test_every_command_that_a_script_sends_is_asked_for_at_the_start():
    sent = set().union(*(scripts.script(name).commands for name in SCRIPTS))
    written = {
        command
        for name in SCRIPTS
        for command in re.findall(r'"([A-Z]{4,})"', scripts.script(name).text)
        if command in FORMS
    }

    assert sent == written == set(FORMS)


def test_the_text_is_ascii_without_tabs_or_trailing_spaces():
    for name in FILES:
        assert text(name).isascii(), name
        assert not re.search(r"[ \t]+$|\t", text(name), re.MULTILINE), name

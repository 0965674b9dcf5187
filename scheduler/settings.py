"""The settings of a process: one frozen table, read once. Flags win over the environment over scheduler.toml.

A variable of empty text counts as not set. The exceptions are keys and URLs: there the default would quietly
open a door, or send jobs and mails elsewhere, so empty text is refused.
"""

import dataclasses
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, overload

from .errors import SchedulerError
from .kinds import (
    Kind,
    allowed_places,
    choice,
    duration,
    host_names,
    matching,
    secret,
    signing_secret,
    size,
    url,
    whole,
)

T = TypeVar("T")

PREFIX = "SCHEDULER_"
FILE = "scheduler.toml"
REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster", "memory")


class SettingsError(SchedulerError, ValueError):
    """Settings that cannot be used. Each of `problems` is a line: the name, what it got, what it takes."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@overload
def setting(default: str, kind: Kind[T], doc: str) -> T: ...
@overload
def setting(default: None, kind: Kind[T], doc: str, *, example: str) -> T | None: ...
def setting(default: str | None, kind: Kind[T], doc: str, *, example: str = "") -> Any:
    """A field of Settings. The default, or an example where there is none, is written as a user would write it."""
    value = None if default is None else kind.read(default)
    # A secret stays out of the table's repr: that may end up in a log.
    return dataclasses.field(
        default=value,
        repr=not kind.secret,
        metadata={"default": default, "kind": kind, "doc": doc, "example": default or example},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a process was told. Times in milliseconds (`_ms`), sizes in bytes; None: not set."""

    redis_url: str | None = setting(
        None,
        url(*REDIS_SCHEMES),
        "Redis or Valkey to use. Without one, a local server is started.",
        example="redis://localhost:6379/0",
    )
    namespace: str = setting(
        "scheduler",
        matching("[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "1 to 64 letters, digits, '.', '_' or '-'"),
        "First part of every key, so that installations can share a server.",
    )
    host: str = setting("127.0.0.1", matching(r"[^\s/]+", "an address or a host name"), "Address of the API.")
    port: int = setting("8080", whole(0, 65535), "Port of the API. 0: any that is free.")
    api_key: str | None = setting(
        None,
        secret(),
        "One key with every scope. With it every /v1 call needs a key, and any address may be bound.",
        example="change-me-to-a-long-random-text",
    )
    allowed_hosts: tuple[str, ...] | None = setting(
        None,
        host_names(),
        "Names under which a proxy reaches the API. Without a key, requests for other hosts are refused.",
        example="jobs.internal,*.example.com",
    )
    path_prefix: str | None = setting(
        None,
        matching(r"(?:/[A-Za-z0-9._~-]+)+", 'a path such as "/jobs", without a slash at its end'),
        "Path under which a proxy shows the API, which it takes off. Location and links begin with it.",
        example="/jobs",
    )
    concurrency: int = setting("100", whole(1, 10_000), "Attempts that run at once in a worker process.")
    lease_ms: int = setting(
        "30s", duration("1s", "12h"), "How long a claim holds without a heartbeat. Extended at a third of it."
    )
    grace_ms: int = setting(
        "25s",
        duration("0s", "12h"),
        "How long handlers may finish after SIGTERM before their jobs are released.",
    )
    watchdog_interval_ms: int = setting(
        "10s", duration("100ms", "1h"), "How often leases that ran out are looked for."
    )
    no_handler_after_ms: int = setting(
        "10m",
        duration("0s", "30d"),
        "A job for which no worker has a handler is dead after this. 0: at once.",
    )
    idempotency_window_ms: int = setting(
        "24h",
        duration("1s", "30d"),
        "How long a request that is repeated with its Idempotency-Key is answered as the first time.",
    )
    process_max_jobs: int = setting(
        "0",
        whole(0, 1_000_000),
        "Jobs after which a handler's process is replaced, as one that loses memory wants. 0: never.",
    )
    max_payload: int = setting("1MiB", size(1, "256MiB"), "Largest payload of a job.")
    max_result: int = setting("1MiB", size(1, "256MiB"), "Largest result of a job.")
    durability: str = setting(
        "strict",
        choice("strict", "standard"),
        "strict: on disk before the answer. standard: written every second, two seconds may be lost.",
    )
    wait_replicas: int = setting(
        "0", whole(0, 16), "Replicas that must have a new job before it is answered as safe."
    )
    http_allow: tuple[str, ...] | None = setting(
        None,
        allowed_places(),
        "Private places that http.request and webhooks may reach all the same.",
        example="10.0.0.0/8,hooks.internal:8080",
    )
    http_secret: str | None = setting(
        None,
        signing_secret(),
        "Signs http.request as Standard Webhooks has it.",
        example="change-me-to-another-long-random-text",
    )
    smtp_url: str | None = setting(
        None,
        url("smtp", "smtps"),
        "Server for email.send. Without one, mails are written to .scheduler/outbox/.",
        example="smtps://user:password@smtp.example.com",
    )
    postgres_url: str | None = setting(
        None,
        url("postgresql", "postgres"),
        "Archive of ended jobs.",
        example="postgresql://user:password@localhost/scheduler",
    )
    log_format: str | None = setting(
        None,
        choice("console", "json"),
        "Without one: console on a terminal, else json lines.",
        example="json",
    )
    log_level: str = setting("info", choice("debug", "info", "warning", "error"), "The least that is logged.")


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table, for those who show it or make options of it."""

    name: str  # as in scheduler.toml: `lease`
    attribute: str  # as in Settings: `lease_ms`
    default: str | None  # as a user would write it
    example: str  # the default, where there is one
    takes: str
    schema: Mapping[str, Any]  # of its value in scheduler.toml
    doc: str
    secret: bool  # a key, or a URL that may hold a password: never shown whole
    read: Callable[[str], Any] = dataclasses.field(repr=False)

    @property
    def variable(self) -> str:
        return _variable(self.name)

    @property
    def flag(self) -> str:
        return _flag(self.name)


def _row(column: dataclasses.Field[Any]) -> Setting:
    kind: Kind[Any] = column.metadata["kind"]
    return Setting(
        name=column.name.removesuffix("_ms"),
        attribute=column.name,
        default=column.metadata["default"],
        example=column.metadata["example"],
        takes=kind.takes,
        schema=kind.schema,
        doc=column.metadata["doc"],
        secret=kind.secret,
        read=kind.read,
    )


SETTINGS = tuple(map(_row, dataclasses.fields(Settings)))
_BY_NAME = {row.name: row for row in SETTINGS}
# Each secret may be named as a file that holds it, as Docker, Kubernetes and systemd mount one.
IN_FILES = {f"{row.name}_file": row.name for row in SETTINGS if row.secret}


def load(
    flags: Mapping[str, str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Settings:
    """The settings of this process. Raises SettingsError with everything that is wrong, not only the first.

    `flags` maps names as in scheduler.toml to text. `environ` and `directory` stand in for the process's own
    environment and working directory.
    """
    found = survey(flags, environ=environ, directory=directory)
    if found.settings is None:
        raise SettingsError(found.problems)
    return found.settings


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value is from: "default", "file", "environment" or "flag", its name there, and its text as given."""

    origin: str
    label: str = ""
    text: str | None = dataclasses.field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Survey:
    """All that was found: where each setting is from, by name, and the settings, None where there are problems."""

    settings: Settings | None
    sources: Mapping[str, Source]
    problems: tuple[str, ...]


def survey(
    flags: Mapping[str, str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Survey:
    """What `load` would take, and where from. Raises nothing for what is wrong: it is told."""
    problems: list[str] = []
    file = _toml((directory or Path()) / FILE, problems)
    variables = _variables(os.environ if environ is None else environ, problems)
    options = {_flag(name): text for name, text in (flags or {}).items()}
    given = (
        _layer("file", file, str, problems, where=f" in {FILE}")
        | _layer("environment", variables, _variable, problems)
        | _layer("flag", options, _flag, problems)
    )
    read = {name: _read(item, _BY_NAME[name], problems) for name, item in given.items()}
    sources = {row.name: Source("default", text=row.default) for row in SETTINGS}
    sources |= {name: Source(item.origin, item.label, read[name][0]) for name, item in given.items()}
    values = {_BY_NAME[name].attribute: value for name, (_, value) in read.items()}
    return Survey(None if problems else Settings(**values), sources, tuple(problems))


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


@dataclass(frozen=True, slots=True)
class _Given:
    origin: str
    label: str
    value: object
    in_file: bool


def _layer(
    origin: str,
    source: Mapping[str, object],
    spell: Callable[[str], str],
    problems: list[str],
    *,
    where: str = "",
) -> dict[str, _Given]:
    """What one source sets, by name. `spell` says how that source spells a name."""
    known = {spell(name): name for name in (*_BY_NAME, *IN_FILES)}
    layer: dict[str, _Given] = {}
    for label, value in source.items():
        name = known.get(label)
        if name is None:
            bare = label.removeprefix(spell("")).lower().replace("-", "_")
            near = get_close_matches(bare, known.values(), n=1)
            hint = f"the nearest is {spell(near[0])}" if near else f"there are {', '.join(known)}"
            problems.append(f"{label}{where} is no setting; {hint}")
            continue
        target = IN_FILES.get(name, name)
        if target in layer:
            problems.append(f"{layer[target].label} and {label}{where} are both set: set one of them")
            continue
        layer[target] = _Given(origin, label + where, value, in_file=name in IN_FILES)
    return layer


def _toml(file: Path, problems: list[str]) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        pass
    except OSError as error:
        problems.append(f"{FILE} cannot be read: {error.strerror}")
    except ValueError as error:  # no UTF-8, or no TOML
        problems.append(f"{FILE} cannot be read: {error}")
    return {}


def _variables(environ: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    ours = {variable: text for variable, text in sorted(environ.items()) if variable.startswith(PREFIX)}
    if made := [variable for variable, text in ours.items() if _made_by_kubernetes(variable, text)]:
        problems.append(
            f"{', '.join(made)}: made by Kubernetes for a Service whose name begins with 'scheduler', "
            "no settings; put `enableServiceLinks: false` into the pod's spec"
        )
    harmless = {row.variable for row in SETTINGS if not row.secret}
    return {
        variable: text
        for variable, text in ours.items()
        if variable not in made and (text or variable not in harmless)
    }


def _made_by_kubernetes(variable: str, text: str) -> bool:
    service = rf"{PREFIX}([A-Z0-9_]+_)?"
    links = "SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?"
    return bool(
        re.fullmatch(f"{service}({links})", variable)
        or (re.fullmatch(f"{service}PORT", variable) and re.match("(tcp|udp|sctp)://", text))
    )


def _read(item: _Given, row: Setting, problems: list[str]) -> tuple[str | None, Any]:
    """The setting's text and value; when it has none, a problem is noted."""
    value = item.value
    if item.in_file:
        try:
            value = Path(str(value)).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            problems.append(f"{item.label} names {str(item.value)!r}, which cannot be read: {reason}")
            return None, None
    try:
        text = _text(value)
        return text, row.read(text)
    except ValueError:
        problems.append(f"{item.label} {_shown(value, row)}: it takes {row.takes}")
        return None, None


def _text(value: object) -> str:
    """Raises ValueError for a TOML value that no setting takes."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ",".join(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise ValueError(value)


def _shown(value: object, row: Setting) -> str:
    if value == "":
        return "is empty"
    if not row.secret:
        text = repr(value)
        return f"is {text if len(text) <= 100 else text[:100] + '…'}"
    if scheme := re.match("[a-z][a-z0-9+.-]*://", str(value)):
        return f"is a URL that begins with {scheme[0]} (the rest is not shown)"
    return "does not fit (it is not shown)"

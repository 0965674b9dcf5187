"""The schema of scheduler.toml takes what the file takes."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs
import pytest
from click.testing import CliRunner

from scheduler.cli import cli
from scheduler.cli.common import LISTED, NOT_YET
from scheduler.cli.config import schema_document
from scheduler.settings import IN_FILES, SettingsError, load

SAMPLES: dict[str, tuple[list[object], list[object]]] = {
    "port": ([8080, "8080", 0, 65_535], [-1, 65_536, "x", 1.5, True]),
    "lease": ([30, 1.5, "30s", "12h", "45", "0.5m"], [0.5, 43_201, "30 s", "soon", "-1s"]),
    "max_payload": ([1, "64KiB", "1MiB", 268_435_456], [0, 268_435_457, "1MB", 1.5]),
    "durability": (["strict", "standard"], ["STRICT", ""]),
    "namespace": (["a", "a.b-c_d"], ["", ".a", "a b", "x" * 65]),
    "redis_url": (["redis://h", "memory://"], ["http://h", "redis:h", "redis://a b"]),
    "http_allow": (["10.0.0.0/8", ["10.0.0.1", "hooks:80"]], [[], 3, [3]]),
    "api_key": (["secret"], ["", "a b"]),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_schema_takes_what_the_file_takes_and_nothing_else(name, tmp_path):
    validator = jsonschema_rs.Draft202012Validator(schema_document())
    good, bad = SAMPLES[name]

    for value in good:
        Path(tmp_path, "scheduler.toml").write_text(f"{name} = {json.dumps(value)}")
        load(environ={}, directory=tmp_path)
        assert validator.is_valid({name: value}), value
    for value in bad:
        Path(tmp_path, "scheduler.toml").write_text(f"{name} = {json.dumps(value)}")
        with pytest.raises(SettingsError):
            load(environ={}, directory=tmp_path)
        assert not validator.is_valid({name: value}), value


def test_the_schema_is_one_and_knows_every_name():
    document = json.loads(CliRunner().invoke(cli, ["config", "schema"]).output)
    jsonschema_rs.meta.validate(document)
    validator = jsonschema_rs.Draft202012Validator(document)

    files = {name for name, target in IN_FILES.items() if target not in NOT_YET}
    assert {row.name for row in LISTED} | files == set(document["properties"])
    assert not validator.is_valid({"prot": 1})
    assert validator.is_valid({"api_key_file": "/run/secrets/key"})
    assert not validator.is_valid({"api_key_file": "/run/secrets/key", "api_key": "x"})

"""Settings: which layer wins, what each takes, and that a mistake is named with its cure but no secret."""

import dataclasses

import pytest

from scheduler.kinds import signing_key
from scheduler.settings import SETTINGS, Settings, SettingsError, load


@pytest.fixture
def directory(tmp_path):
    return tmp_path


def loaded(directory, flags=None, toml=None, **variables):
    if toml is not None:
        (directory / "scheduler.toml").write_text(toml)
    environ = {f"SCHEDULER_{name}": text for name, text in variables.items()}
    return load(flags, environ={"PATH": "/bin", **environ}, directory=directory)


def problems(directory, *arguments, **options):
    with pytest.raises(SettingsError) as caught:
        loaded(directory, *arguments, **options)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def test_every_setting_of_the_contract_is_there_with_its_default(directory):
    assert {
        "SCHEDULER_REDIS_URL": None,
        "SCHEDULER_NAMESPACE": "scheduler",
        "SCHEDULER_HOST": "127.0.0.1",
        "SCHEDULER_PORT": 8080,
        "SCHEDULER_API_KEY": None,
        "SCHEDULER_ALLOWED_HOSTS": None,
        "SCHEDULER_PATH_PREFIX": None,
        "SCHEDULER_CONCURRENCY": 100,
        "SCHEDULER_IDEMPOTENCY_WINDOW": 86_400_000,
        "SCHEDULER_LEASE": 30_000,
        "SCHEDULER_GRACE": 25_000,
        "SCHEDULER_WATCHDOG_INTERVAL": 10_000,
        "SCHEDULER_NO_HANDLER_AFTER": 600_000,
        "SCHEDULER_PROCESS_MAX_JOBS": 0,
        "SCHEDULER_MAX_PAYLOAD": 1 << 20,
        "SCHEDULER_MAX_RESULT": 1 << 20,
        "SCHEDULER_DURABILITY": "strict",
        "SCHEDULER_WAIT_REPLICAS": 0,
        "SCHEDULER_HTTP_ALLOW": None,
        "SCHEDULER_HTTP_SECRET": None,
        "SCHEDULER_SMTP_URL": None,
        "SCHEDULER_POSTGRES_URL": None,
        "SCHEDULER_LOG_FORMAT": None,
        "SCHEDULER_LOG_LEVEL": "info",
    } == {row.variable: getattr(loaded(directory), row.attribute) for row in SETTINGS}


def test_each_row_says_all_that_an_option_needs():
    row = next(row for row in SETTINGS if row.name == "no_handler_after")

    assert ("SCHEDULER_NO_HANDLER_AFTER", "--no-handler-after", "10m") == (
        row.variable,
        row.flag,
        row.default,
    )
    assert "no_handler_after_ms" == row.attribute
    assert row.takes.startswith("a duration from 0s to 30d")
    assert all(row.doc.endswith(".") for row in SETTINGS)
    assert {"api_key", "http_secret", "redis_url", "smtp_url", "postgres_url"} == {
        row.name for row in SETTINGS if row.secret
    }


def test_flags_win_over_the_environment_and_that_over_the_file(directory):
    toml = 'port = 1\nlease = "1m"\nnamespace = "file"'

    settings = loaded(directory, {"port": "3"}, toml, PORT="2", LEASE="2m")

    assert (3, 120_000, "file") == (settings.port, settings.lease_ms, settings.namespace)


def test_the_process_itself_is_read_when_nothing_stands_in_for_it(directory, monkeypatch):
    (directory / "scheduler.toml").write_text("port = 81")
    monkeypatch.chdir(directory)
    monkeypatch.setenv("SCHEDULER_CONCURRENCY", "7")

    assert (81, 7) == (load().port, load().concurrency)


@pytest.mark.parametrize(
    ("name", "text", "attribute", "value"),
    [
        ("REDIS_URL", "redis://:p%40ss@cache.example:6380/2?socket_timeout=3", "redis_url", ...),
        ("REDIS_URL", "rediss://cache.example", "redis_url", ...),
        ("REDIS_URL", "unix:///run/valkey.sock", "redis_url", ...),
        ("REDIS_URL", "redis+sentinel://a:26379,b:26379/main/0", "redis_url", ...),
        ("REDIS_URL", "redis+cluster://a:7000,b:7000", "redis_url", ...),
        ("REDIS_URL", "memory://", "redis_url", ...),
        ("HOST", "::1", "host", ...),
        ("PORT", "0", "port", 0),
        ("PORT", " 65535\n", "port", 65535),
        ("CONCURRENCY", "10000", "concurrency", 10_000),
        ("LEASE", "1", "lease_ms", 1_000),
        ("LEASE", "12h", "lease_ms", 43_200_000),
        ("GRACE", "0", "grace_ms", 0),
        ("WATCHDOG_INTERVAL", "250ms", "watchdog_interval_ms", 250),
        ("NO_HANDLER_AFTER", "0.5", "no_handler_after_ms", 500),
        ("MAX_PAYLOAD", "65536", "max_payload", 65_536),
        ("MAX_RESULT", "64KiB", "max_result", 65_536),
        ("MAX_RESULT", "256MiB", "max_result", 1 << 28),
        ("DURABILITY", "standard", "durability", ...),
        ("HTTP_ALLOW", "10.0.0.0/8, 192.168.1.7:8080", "http_allow", ("10.0.0.0/8", "192.168.1.7:8080")),
        ("HTTP_ALLOW", "[fd00::1]:8443,fd00::/8,::1", "http_allow", ("[fd00::1]:8443", "fd00::/8", "::1")),
        ("HTTP_ALLOW", "hooks.internal:80,localhost", "http_allow", ("hooks.internal:80", "localhost")),
        ("SMTP_URL", "smtps://user:secret@mail.example:465", "smtp_url", ...),
        ("POSTGRES_URL", "postgresql://db/jobs", "postgres_url", ...),
        ("LOG_FORMAT", "json", "log_format", ...),
    ],
)
def test_a_variable_is_read(directory, name, text, attribute, value):
    assert (text if value is ... else value) == getattr(loaded(directory, **{name: text}), attribute)


@pytest.mark.parametrize(
    ("name", "text", "takes"),
    [
        ("PORT", "65536", "a whole number from 0 to 65535"),
        ("PORT", "-1", "a whole number from 0 to 65535"),
        ("PORT", "8080.0", "a whole number from 0 to 65535"),
        ("PORT", "٨٠٨٠", "a whole number from 0 to 65535"),
        ("CONCURRENCY", "0", "a whole number from 1 to 10000"),
        ("LEASE", "999ms", "a duration from 1s to 12h"),
        ("LEASE", "soon", "a duration from 1s to 12h"),
        ("GRACE", "-1", "a duration from 0s to 12h"),
        ("MAX_PAYLOAD", "1MB", "bytes from 1 to 256MiB"),
        ("MAX_PAYLOAD", "0", "bytes from 1 to 256MiB"),
        ("MAX_PAYLOAD", "1GiB", "bytes from 1 to 256MiB"),
        ("DURABILITY", "STRICT", "strict or standard"),
        ("NAMESPACE", "a:b", "1 to 64 letters"),
        ("NAMESPACE", "{a}", "1 to 64 letters"),
        ("HOST", "http://localhost", "an address or a host name"),
        ("HTTP_ALLOW", "10.0.0.1/8", "a comma list of addresses"),
        ("HTTP_ALLOW", "10.0.0.256", "a comma list of addresses"),
        ("HTTP_ALLOW", "localhost:0", "a comma list of addresses"),
        ("HTTP_ALLOW", "localhost:99999", "a comma list of addresses"),
        ("HTTP_ALLOW", "a,,b", "a comma list of addresses"),
        ("HTTP_ALLOW", "*", "a comma list of addresses"),
        ("LOG_LEVEL", "verbose", "debug, info, warning or error"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_takes(directory, name, text, takes):
    (problem,) = problems(directory, **{name: text})

    assert problem.startswith(f"SCHEDULER_{name} is {text!r}: it takes {takes}")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("REDIS_URL", "http://u:hunter2@cache", "is a URL that begins with http:// (the rest is not shown)"),
        (
            "REDIS_URL",
            "redis://:hunter2@cache:x1",
            "is a URL that begins with redis:// (the rest is not shown)",
        ),
        (
            "REDIS_URL",
            "redis://:hunter2@cache and",
            "is a URL that begins with redis:// (the rest is not shown)",
        ),
        ("REDIS_URL", "hunter2@cache:6379", "does not fit (it is not shown)"),
        ("SMTP_URL", "http://u:hunter2@mail", "is a URL that begins with http:// (the rest is not shown)"),
        ("API_KEY", "hunter2 and more", "does not fit (it is not shown)"),
        ("HTTP_SECRET", "hunter2\nmore", "does not fit (it is not shown)"),
        ("HTTP_SECRET", "whsec_hunter2!", "does not fit (it is not shown)"),
        ("HTTP_SECRET", "whsec_", "does not fit (it is not shown)"),
    ],
)
def test_a_secret_is_never_shown(directory, name, text, said):
    (problem,) = problems(directory, **{name: text})

    assert problem.startswith(f"SCHEDULER_{name} {said}: it takes ")
    assert "hunter2" not in problem


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "31f290f6bf06298aab4f08d43c3f082cf648a362da2da4b0"),
        ("whsec_YWJjZA==", "61626364"),
        ("whsec_YWJjZA", "61626364"),
        ("YWJjZA==", "59574a6a5a413d3d"),
    ],
)
def test_a_signing_secret_is_base64_after_whsec_and_else_its_own_key(directory, secret, key):
    assert secret == loaded(directory, HTTP_SECRET=secret).http_secret
    assert bytes.fromhex(key) == signing_key(secret)


def test_a_secret_is_not_in_the_tables_repr(directory):
    settings = loaded(directory, API_KEY="hunter2", REDIS_URL="redis://:hunter2@cache")

    assert "hunter2" not in repr(settings)
    assert "lease_ms=30000" in repr(settings)


def test_all_that_is_wrong_is_said_at_once(directory):
    found = problems(directory, {"lease": "x"}, "port = true", CONCURRENCY="none")

    assert ["port in scheduler.toml", "SCHEDULER_CONCURRENCY", "--lease"] == [
        problem.split(" is ")[0] for problem in found
    ]


def test_a_wrong_value_that_a_stronger_layer_replaces_is_no_matter(directory):
    assert 2 == loaded(directory, {"port": "2"}, "port = 'x'").port


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"PROT": "1"}, "SCHEDULER_PROT is no setting; the nearest is SCHEDULER_PORT"),
        ({"port": "1"}, "SCHEDULER_port is no setting; the nearest is SCHEDULER_PORT"),
        (
            {"XYZZY": "1"},
            "SCHEDULER_XYZZY is no setting; there are SCHEDULER_REDIS_URL, SCHEDULER_NAMESPACE, ",
        ),
        ({"REDIS": "redis://x"}, "SCHEDULER_REDIS is no setting; the nearest is SCHEDULER_REDIS_URL"),
        ({"PROT": ""}, "SCHEDULER_PROT is no setting; the nearest is SCHEDULER_PORT"),
        ({"toml": "leese = 3"}, "leese in scheduler.toml is no setting; the nearest is lease"),
        ({"toml": "[redis]\nurl = 'x'"}, "redis in scheduler.toml is no setting; the nearest is redis_url"),
        ({"toml": "lease_ms = 3"}, "lease_ms in scheduler.toml is no setting; the nearest is lease"),
        ({"flags": {"redis-uri": "x"}}, "--redis-uri is no setting; the nearest is --redis-url"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(directory, given, problem):
    (found,) = problems(directory, **given)

    assert found.startswith(problem)


def test_what_kubernetes_makes_for_a_service_is_named_with_the_cure(directory):
    made = {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "8080",
        "SERVICE_PORT_HTTP": "8080",
        "PORT": "tcp://10.0.0.1:8080",
        "PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "PORT_8080_TCP_PROTO": "tcp",
        "PORT_8080_TCP_PORT": "8080",
        "PORT_8080_TCP_ADDR": "10.0.0.1",
        "API_SERVICE_HOST": "10.0.0.2",
        "API_PORT": "tcp://10.0.0.2:80",
    }

    (problem,) = problems(directory, **made)

    assert all(f"SCHEDULER_{name}" in problem for name in made)
    assert "enableServiceLinks: false" in problem


def test_a_variable_of_empty_text_is_not_set(directory):
    assert 8080 == loaded(directory, PORT="", LOG_FORMAT="", HTTP_ALLOW="").port


@pytest.mark.parametrize("name", ["REDIS_URL", "API_KEY", "API_KEY_FILE", "SMTP_URL"])
def test_an_empty_key_or_url_is_refused_because_its_default_would_surprise(directory, name):
    (problem,) = problems(directory, **{name: ""})

    assert problem.startswith(f"SCHEDULER_{name} ")


def test_an_api_key_may_stand_in_a_file(directory):
    file = directory / "key"
    file.write_text("s3cret\n")

    assert "s3cret" == loaded(directory, API_KEY_FILE=str(file)).api_key
    assert "s3cret" == loaded(directory, toml=f"api_key_file = '{file}'").api_key
    assert "s3cret" == loaded(directory, {"api_key_file": str(file)}, API_KEY="weaker").api_key


def test_a_key_file_that_is_missing_empty_or_no_text_is_named(directory):
    empty, binary = directory / "empty", directory / "binary"
    empty.write_text("\n")
    binary.write_bytes(b"\xff\xfe")

    assert problems(directory, API_KEY_FILE=str(directory / "no")) == (
        f"SCHEDULER_API_KEY_FILE names '{directory}/no', which cannot be read: No such file or directory",
    )
    assert problems(directory, API_KEY_FILE=str(empty))[0].startswith(
        "SCHEDULER_API_KEY_FILE is empty: it takes 1 to"
    )
    assert problems(directory, API_KEY_FILE=str(binary))[0].endswith("which cannot be read: it is no text")


def test_a_key_and_its_file_in_one_layer_are_one_too_many(directory):
    (problem,) = problems(directory, API_KEY="a", API_KEY_FILE="b")

    assert "SCHEDULER_API_KEY and SCHEDULER_API_KEY_FILE are both set: set one of them" == problem


@pytest.mark.parametrize(
    ("toml", "attribute", "value"),
    [
        ("lease = 45", "lease_ms", 45_000),
        ("lease = 1.5", "lease_ms", 1_500),
        ("max_payload = 1024", "max_payload", 1_024),
        ("http_allow = ['10.0.0.0/8', 'a.example']", "http_allow", ("10.0.0.0/8", "a.example")),
    ],
)
def test_toml_values_keep_their_own_types(directory, toml, attribute, value):
    assert value == getattr(loaded(directory, toml=toml), attribute)


@pytest.mark.parametrize(
    "toml",
    [
        "port = true",
        "port = [1]",
        "port = {a = 1}",
        "port = ''",
        "port = 8080.0",
        "lease = inf",
        "lease = nan",
        "lease = -1",
        "lease = 1979-05-27",
    ],
)
def test_a_toml_value_of_a_wrong_type_is_refused(directory, toml):
    (problem,) = problems(directory, toml=toml)

    assert " in scheduler.toml is " in problem


@pytest.mark.parametrize("content", [b"port = ", b"port = 1\nport = 2", b"\xff"])
def test_a_file_that_is_no_toml_is_refused(directory, content):
    (directory / "scheduler.toml").write_bytes(content)

    (problem,) = problems(directory)

    assert problem.startswith("scheduler.toml cannot be read: ")


def test_a_folder_in_the_files_place_is_refused(directory):
    (directory / "scheduler.toml").mkdir()

    assert ("scheduler.toml cannot be read: Is a directory",) == problems(directory)


def test_settings_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]  # what is tested

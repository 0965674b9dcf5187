"""Logs: one record a line whatever is in it, valid JSON whatever is in it, no secret in either format."""

import json
import logging
import re
import subprocess
import sys

import pytest
from structlog.contextvars import bound_contextvars

from scheduler import logs
from scheduler.logs import get_logger, redact
from scheduler.settings import Settings


@pytest.fixture(autouse=True)
def _as_it_was():
    root = logging.getLogger()
    level, handlers, processors = root.level, list(root.handlers), list(logs._processors)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
    logs._processors[:] = processors


@pytest.fixture
def lines(capfd):
    """What stands on stderr now, split at nothing but the newlines that end a record."""

    def read():
        out, err = capfd.readouterr()
        assert "" == out
        return [line for line in err.split("\n") if line]

    return read


def configure(log_format="json", **settings):
    logs.configure(Settings(log_format=log_format, **settings))


def test_a_record_is_a_line_of_json_with_time_level_logger_and_fields(lines):
    configure()
    with bound_contextvars(job_id="mail:7", attempt=2):
        get_logger("scheduler.worker").warning(
            "lease lost", queue="mail", left=0.5, tags=("a", "b"), none=None
        )

    (line,) = lines()

    record = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.pop("time"))
    assert {
        "level": "warning",
        "event": "lease lost",
        "logger": "scheduler.worker",
        "job_id": "mail:7",
        "attempt": 2,
        "queue": "mail",
        "left": 0.5,
        "tags": ["a", "b"],
        "none": None,
    } == record


def test_a_record_for_a_terminal_is_a_line_of_words(lines):
    configure("console")
    get_logger("scheduler.worker").info("job ended", id="mail:7", error='say "no"', empty="", count=3)

    (line,) = lines()

    assert line[13:] == 'info     job ended id=mail:7 error="say \\"no\\"" empty="" count=3'


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize(
    "nasty",
    ["a\nb", "a\r\nb", "\x1b[2J", "\x00", "\x7f", "\x85", "\x9b1m", "\u2028", "\u202e", "\ud800"],
)
def test_control_characters_are_escaped_wherever_they_stand(lines, log_format, nasty):
    configure(log_format)
    with bound_contextvars(bound=nasty):
        get_logger("x").info(nasty, field=nasty, nested={nasty: [nasty]})

    (line,) = lines()

    assert nasty not in line
    assert line.isprintable()


@pytest.mark.parametrize("value", ["a\nb", "\x85\u2028\u202e\x7f é 🙂", '"\\', "\\u2028"])
def test_json_carries_text_unchanged(lines, value):
    configure()
    get_logger("x").info("event", field=value)

    assert [value] == [json.loads(line)["field"] for line in lines()]


class Unprintable:
    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize(
    "value", [1 << 70, object(), Unprintable(), {1: 2, (3,): 4}, b"\xff", {7}, float("nan"), "\ud800"]
)
def test_nothing_that_is_logged_raises_or_is_lost(lines, log_format, value):
    configure(log_format)
    get_logger("x").info("event", field=value)

    (line,) = lines()

    assert "field" in line


def failing(secret):
    raise ValueError(f"first line\n12:00:00 error forged redis://u:{secret}@h")


def test_a_traceback_is_one_field_of_the_json_record(lines):
    configure()
    try:
        failing("hunter2")
    except ValueError:
        get_logger("x").exception("job failed")

    (line,) = lines()

    record = json.loads(line)
    assert ("error", "job failed") == (record["level"], record["event"])
    assert record["exception"].startswith("Traceback ")
    assert record["exception"].endswith("\n12:00:00 error forged redis://u:***@h")


def test_on_a_terminal_a_traceback_is_indented_so_that_no_line_of_it_passes_for_a_record(lines):
    configure("console")
    try:
        failing("hunter2")
    except ValueError as error:
        get_logger("x").error("job failed", exc_info=error)

    first, *trace = lines()

    assert first.endswith("error    job failed")
    assert "    12:00:00 error forged redis://u:***@h" == trace[-1]
    assert all(line.startswith("    ") for line in trace)


@pytest.mark.parametrize(("level", "seen"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_what_is_below_the_level_is_dropped(lines, level, seen):
    configure(log_level=level)
    log = get_logger("x")
    log.debug("1")
    log.info("2")
    log.warning("3")
    log.error("4")

    assert seen == len(lines())


def test_records_of_other_packages_come_the_same_way(lines):
    configure(api_key="hunter22")
    logging.getLogger("asyncio").error(
        "Task %s failed\nbadly with %s", "t1", "hunter22", exc_info=ValueError("x")
    )
    logging.getLogger("their.code").log(35, "between levels")
    logging.getLogger("their.code").debug("not asked for")

    failed, between = map(json.loads, lines())

    assert ("error", "asyncio", "Task t1 failed\nbadly with ***") == (
        failed["level"],
        failed["logger"],
        failed["event"],
    )
    assert "ValueError: x" in failed["exception"]
    assert ("warning", "between levels") == (between["level"], between["event"])


def test_a_log_call_with_wrong_arguments_is_no_reason_to_stop(lines):
    configure()
    logs._others.emit(logging.LogRecord("theirs", logging.INFO, "file.py", 1, "%d", ("seven",), None))

    (line,) = lines()

    assert "('%d', ('seven',))" == json.loads(line)["event"]


def test_configuring_again_replaces_and_adds_nothing(lines):
    configure()
    configure("console")
    logging.getLogger("theirs").info("once")

    assert 1 == len(lines())


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_the_secrets_of_the_settings_are_taken_out_wherever_they_turn_up(lines, log_format):
    configure(
        log_format,
        api_key="key-hunter2",
        http_secret="sign-hunter2",
        redis_url="redis://:p%40ss-hunter2@cache",
        smtp_url="smtp://u:mail-hunter2@mail",
    )
    get_logger("x").info(
        "sent key-hunter2",
        one=["sign-hunter2"],
        two={"p@ss-hunter2": b"p%40ss-hunter2"},
        three=ValueError("mail-hunter2"),
    )

    (line,) = lines()

    assert "hunter2" not in line
    assert 5 == line.count("***")


@pytest.mark.parametrize(
    "name",
    ["api_key", "Authorization", "x-api-key", "password", "smtp_password", "Set-Cookie", "secret"],
)
def test_fields_that_are_called_like_a_secret_are_not_shown(lines, name):
    configure()
    get_logger("x").info("request", headers={name: "hunter2", "accept": "*/*"}, **{name: "hunter2"})

    (line,) = lines()

    assert "hunter2" not in line
    assert {name: "***", "accept": "*/*"} == json.loads(line)["headers"]


def test_our_fencing_token_is_no_secret(lines):
    configure()
    get_logger("x").info("claimed", token=1795500000000001, key="a")

    assert '"token":1795500000000001,"key":"a"' in lines()[0]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://user:hunter2@h:6379/0", "redis://user:***@h:6379/0"),
        ("redis://:hunter2@h", "redis://:***@h"),
        ("redis+sentinel://:hunter2@a:1,b:2/main/0", "redis+sentinel://:***@a:1,b:2/main/0"),
        ("rediss://h?password=hunter2&db=1", "rediss://h?password=***&db=1"),
        ("unix://u:hunter2@/run/s.sock?db=0", "unix://u:***@/run/s.sock?db=0"),
        ("two: smtp://a:hunter2@b and amqp://c:hunter2@d", "two: smtp://a:***@b and amqp://c:***@d"),
        ("redis://:hun@ter2@h", "redis://:***@h"),
        ("Authorization: Bearer hunter2hunter2hunter2", "Authorization: Bearer ***"),
        ("http://localhost:8080/v1/a@b", "http://localhost:8080/v1/a@b"),
        ("redis://h:6379", "redis://h:6379"),
        ("the bearer is late", "the bearer is late"),
        ("mail:0198 at 12:00:00", "mail:0198 at 12:00:00"),
    ],
)
def test_a_url_is_shown_without_its_password(text, shown):
    assert shown == redact(text)


def test_without_configuration_the_program_around_us_decides(caplog):
    log = get_logger("scheduler.store")
    with caplog.at_level(logging.INFO, "scheduler"):
        log.debug("not asked for")
        log.info("scripts loaded", count=20, url="redis://:hunter2@h")
        try:
            failing("x")
        except ValueError:
            log.exception("failed")

    loaded, failed = caplog.records

    assert ("scheduler.store", "INFO", "scripts loaded count=20 url=redis://:***@h") == (
        loaded.name,
        loaded.levelname,
        loaded.getMessage(),
    )
    assert failed.exc_info[0] is ValueError


def test_a_logger_made_before_the_configuration_follows_it(lines):
    log = get_logger("x")
    configure()
    log.info("event")

    assert ["event"] == [json.loads(line)["event"] for line in lines()]


def test_without_a_terminal_the_format_is_json_and_a_closed_stderr_stops_nobody():
    program = (
        "import os; from scheduler import logs; from scheduler.settings import Settings\n"
        "logs.configure(Settings()); log = logs.get_logger('x'); log.info('one')\n"
        "os.close(2); log.info('two'); print('done')"
    )

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "done\n" == ran.stdout
    assert ["one"] == [json.loads(line)["event"] for line in ran.stderr.splitlines()]

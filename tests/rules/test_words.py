"""One verb, the same in six places, and no synonyms."""

from __future__ import annotations

import re
from pathlib import Path

import click

from scheduler import scripts
from scheduler.cli import COMMANDS, cli
from scheduler.keys import STATES, SUFFIXES
from scheduler.linking import Linking
from scheduler.planning import Planning
from scheduler.producing import Producing
from scheduler.reading import Reading
from scheduler.store import Store

ROOT = Path(__file__).resolve().parents[2]

# verb -> what it is called elsewhere
VERBS = {
    "enqueue": "put add insert defer",
    "promote": "forward stage",
    "claim": "fetch dequeue pop reserve receive",
    "extend": "heartbeat touch",
    "ack": "complete done",
    "nack": "fail error",
    "bury": "discard archive",
    "release": "requeue snooze",
    "reclaim": "rescue sweep stalled",
    "cancel": "abort revoke",
    "replay": "redrive unfail reprocess",
    "update": "edit reschedule reprioritise",
    "purge": "prune clean janitor trim",
    "obliterate": "nuke wipe",
    "resolve": "unblock satisfy",
}
READS = {"inspect", "list", "census", "groups", "explain", "demand", "parents", "verify", "schedule_due"}
FLOWS = {"flow_put", "flow_open", "flow_cancel", "flow_drop"}
SCHEDULES = {"schedule_put", "schedule_fire", "schedule_drop", "schedule_name"}
BESIDES = {"configure", "note", "operate", "reset", "follow", "relay", "ack_add", *FLOWS, *SCHEDULES}
UNASKED = {"breaker"}
"""Events that no verb is asked for: how a run ends opens or closes its type's breaker."""

SILENT = {"extend": "a heartbeat is no event", "obliterate": "nothing is left, also no event"}

DOORS = {
    "run": "promote", "rm": "purge", "show": "inspect", "list": "list", "lease": "claim", "settle": "ack nack bury release extend",
    "open": "resolve", "pause": "configure", "resume": "configure", "set": "configure", "reset": "reset", "copy": "enqueue", "verify": "verify", "put": "schedule_put", "trigger": "schedule_fire", "preview": "list", "wait": "inspect", "drain": "configure",
}  # fmt: skip
"""Words that the doors have of their own, and what they lead to."""

NOUNS = {
    "jobs",
    "flow",
    "flows",
    "queues",
    "types",
    "workers",
    "dlq",
    "operations",
    "schedules",
    "schedule",
    "log",
    "explain",
    "parents",
    "bulk",
    "demand",
    "groups",
    "stats",
    "job",
    "queue",
    "scripts",
    "dev",
    "api",
    "worker",
    "config",
    "env",
    "schema",
    "doctor",
    "completion",
}
OF_SCRIPTS = {"load", "manifest"}
OF_SETTINGS = {"check"}

SYNONYMS = {word for words in VERBS.values() for word in words.split()}


def test_every_verb_is_a_script_and_every_script_a_verb():
    assert {*VERBS, *READS, *BESIDES} == set(scripts.names())


METHODS = {name for part in (Store, Planning, Producing, Linking, Reading) for name in vars(part)}
"""What the store has of its own: it takes jobs in, moves them, and is read."""


def test_every_script_is_a_method_of_the_store():
    methods = {name for name in METHODS if not name.startswith("_")}

    assert set(scripts.names()) <= methods


def test_every_verb_is_an_event():
    told = {
        name: set(re.findall(r'(?:report|announce|finish)\([^\n]*?"([a-z]+)"', scripts.script(name).text))
        for name in VERBS
    }

    assert {name for name in VERBS if name not in SILENT} == {name for name in VERBS if name in told[name]}
    assert set().union(*told.values()) <= {*VERBS, *BESIDES, *UNASKED}


def test_no_method_of_the_store_is_a_synonym():
    words = {word for name in METHODS - BESIDES - {"ack_add_call"} for word in name.split("_")}

    assert set() == words & SYNONYMS


def routes() -> set[str]:
    texts = [path.read_text() for path in sorted((ROOT / "scheduler/api").glob("*.py"))]
    return {route for text in texts for route in re.findall(r'"(/v1/[a-z/{}]+)"', text)}


def test_a_route_is_made_of_nouns_verbs_and_the_doors_own_words():
    words = {
        word
        for route in routes()
        for word in route.removeprefix("/v1/").split("/")
        if not word.startswith("{")
    }

    assert words
    assert words <= {*NOUNS, *VERBS, *DOORS}


def commands() -> set[str]:
    context = click.Context(cli)
    found = set(COMMANDS)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        if isinstance(command, click.Group):
            found |= set(command.commands)
    return found


def test_a_command_is_a_noun_a_verb_or_one_of_the_doors_own_words():
    assert commands() <= {*NOUNS, *VERBS, *DOORS, *OF_SCRIPTS, *OF_SETTINGS}


def test_the_chapter_of_the_command_line_has_every_command():
    text = (ROOT / "scheduler/cli/README.md").read_text()
    context = click.Context(cli)

    for name in COMMANDS:
        [row, *_] = [line for line in text.splitlines() if re.match(rf"\| `{name}\b", line)]
        command = cli.get_command(context, name)
        words = command.commands if isinstance(command, click.Group) else {}
        assert [] == [word for word in words if not re.search(rf"\b{word}\b", row)], name


def test_the_doors_own_words_lead_to_verbs():
    assert {verb for verbs in DOORS.values() for verb in verbs.split()} <= {*VERBS, *READS, *BESIDES}
    # A job is enqueued; a schedule, as it is from now on, is put.
    assert {"put"} == set(DOORS) & SYNONYMS


def test_no_name_has_a_version():
    names = [*scripts.names(), *vars(Store), *commands(), *SUFFIXES]

    assert [] == [name for name in names if re.search(r"v\d|\d$", name, re.IGNORECASE)]


def test_every_state_is_a_set_of_its_name():
    assert set(STATES) <= set(SUFFIXES)
    assert {"zset"} == {SUFFIXES[state].type for state in STATES}

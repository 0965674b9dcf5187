"""A queue in which everything stands that can stand, and for each script a call that there touches all its keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from scheduler.flow import Node, plan_flow
from scheduler.job import NewJob, Unique
from scheduler.limits import Breaker
from scheduler.outcomes import Note, OperationPage, TypePolicy
from scheduler.scripts import script
from scheduler.store import Store
from tests.helpers import (
    QUEUE,
    STATES,
    WORKER,
    Clock,
    acked,
    claimed,
    damaged,
    enqueued,
    in_every_state,
    keys,
    nacked,
    raw,
    take,
)

Tokens = Mapping[str, int]


async def world(store: Store, clock: Clock) -> Tokens:
    """A job in each state under the state's name, and more; answers the token of each that was claimed.

    `asked` runs and was asked to stop, `last` runs its only attempt, `own` runs and its result goes at once,
    `due` is scheduled and `backed_off` retrying until now, `late` waits beyond its expiry, `corrupt` is
    ready with a bad record, `gone` is known to have ended, `known` too but its time is over, `held` holds a unique key.
    Every lease has run out, and the queue was swept.
    """
    await store.configure_type(
        QUEUE, "send", TypePolicy(60_000, {"max_attempts": 4}, breaker=Breaker(minimum=1000))
    )
    await store.clients.commands.hset(
        keys().at("config"), mapping={"lanes": "2", "slots": "1", "breakers": "1"}
    )
    await store.clients.commands.hset(keys().at("meters"), "breaker send", "closed|0|0|0|0|0")
    await store.configure_type(QUEUE, "send", TypePolicy(50_000, {"jitter": 0}), declared=True)
    await acked(store, await claimed(store, "known", retention_ms=0))
    clock.advance(61)
    await operation(store)
    tokens = {}
    job = await claimed(store, "backed_off", retry={"immediate": 0})
    assert "retrying" == await nacked(store, job, retry_in_ms=10_000)
    tokens = dict(await in_every_state(store, [state for state in STATES if state != "ready"]))
    own: dict[str, dict[str, Any]] = {
        "asked": {},
        "last": {"retry": {"max_attempts": 1}},
        "own": {"retention_ms": 0},
    }
    for key, fields in own.items():
        job = await claimed(store, key, **fields)
        tokens[key] = job.token
        await store.note(
            QUEUE, [Note(key, job.token, "progress", b"5"), Note(key, job.token, "log", b"line")]
        )
    await acked(store, await claimed(store, "gone", retention_ms=0))
    # One claim whose answer is remembered.
    await enqueued(store, "remembered")
    [job] = await take(store, turn=1, worker="worker-2")
    tokens["remembered"] = job.token
    assert ["running"] == await store.cancel(QUEUE, ["asked"])
    clock.advance(50)
    await unique(store)
    await ties(store)
    await enqueued(store, "due", delay_ms=0, run_at_ms=clock.now + 1)
    await enqueued(store, "late", expires_in_ms=1)
    await enqueued(store, "corrupt", "ready")
    await damaged(store, "corrupt")
    clock.advance(0.001)
    await store.clients.commands.hset(
        keys().at("counters"), mapping={"grace_until": "0", "swept_at": str(clock.now)}
    )
    return tokens | await schedule(store)


async def quiet(store: Store) -> Tokens:
    """The same jobs on an ordinary day: nothing is due, overdue, bad, known to be gone, or has a word of its own."""
    tokens = dict(await in_every_state(store, [state for state in STATES if state != "ready"]))
    for key in ("last", "asked", "own"):
        tokens[key] = (await claimed(store, key)).token
    await enqueued(store, "ready")
    await unique(store)
    await ties(store)
    await operation(store)
    return dict(tokens) | await schedule(store)


async def unique(store: Store) -> None:
    """A job that holds the unique key of its name."""
    await enqueued(store, "held", delay_ms=3_600_000, unique=Unique(key="held"))


async def ties(store: Store) -> None:
    """`waits` waits for `dead`; there are a flow that is open, one that is building and one that was undone."""
    await enqueued(store, "waits", after=["mail:dead"], on_failure="wait")
    for name in ("flow", "building", "undone"):
        job = NewJob(type="send", queue="elsewhere", key="node")
        assert "building" == await store.flow_put(plan_flow(QUEUE, name, [Node("node", job)]))
    assert "running" == await store.flow_open(QUEUE, "flow")
    assert "undone" == await store.flow_drop(QUEUE, "undone", "undo")
    await store.clients.commands.hset(keys().at("counters"), "relay_told", "1")


async def schedule(store: Store) -> dict[str, int]:
    """Two that are due, whose jobs take over a unique key: their version, and their slot."""
    record, now = b"|9|send||||unique:held conflict:replace||\n{}\n{}", store._now() if store._now else 0
    versions = {}
    for name in ("tick", "other"):
        versions[name] = int((await raw(store, "schedule_put", name, "", now, "", record, "[1]"))[1])
        await raw(store, "schedule_name", "claim", name, QUEUE, "x", "")
    return {"tick version": versions["tick"], "tick due": now}


async def operation(store: Store) -> None:
    """One that is under way, its first page behind it."""
    assert "begun" == (await store.operate("begin", QUEUE, "op", carrier="c", value=b"{}"))[0]
    assert "turned" == (await store.operate("turn", QUEUE, OperationPage("op", 0, 5, "", last=False)))[0]


def enqueue(tokens: Tokens) -> list[object]:
    rest: list[object] = [""] * 9
    later: list[object] = ["", 5000, *[""] * 7]
    items: list[tuple[str, list[object]]] = [
        ("new", rest),
        ("later", later),
        ("ready", rest),
        ("gone", rest),
        ("known", rest),
        ("unique", ["", "", "", "", "", "unique:fresh", "", "", ""]),
        ("another", ["5", "", "", "", "", "unique:held conflict:replace", "", "", ""]),
    ]
    return [len(items), *(part for key, more in items for part in (key, "send", "{}", *more))]


def fire(tokens: Tokens) -> list[object]:
    """What is due becomes a job that takes over a unique key; one besides; one that is there no more."""
    due = tokens["tick due"], tokens["tick version"]
    items: list[list[object]] = [
        ["tick", due[1], due[0], due[0] + 60_000, "tick.1", "", "skip", "", "", ""],
        ["tick", due[1], "", "", "tick.now", "", "allow", "", "", ""],
        ["missing", 0, 5, "", "", "", "", "", "", ""],
    ]
    return [len(items), *(part for one in items for part in one)]


DEAD = ("dead_index", "dead_groups")
LANES = ("lanes", "heads", "turns", "parked", "lines")


def page(number: int) -> str:
    """A page of the operation that stands in the queue."""
    return f"op|{number}|3|running|ready|5|1|a"


def ids(*names: str) -> list[object]:
    return [len(names), *names]


def settlements(
    tokens: Tokens, *more: object, names: tuple[str, ...] = ("running", "last", "asked", "own")
) -> list[object]:
    """These with their tokens, one that is stale and one that is not known."""
    held = [(name, tokens[name]) for name in names] + [("ready", 5), ("missing", 5)]
    return [len(held), *(part for name, token in held for part in (name, token, *more))]


@dataclass(frozen=True)
class Case:
    """A call of a script: its arguments after `now`, and the keys that it touches if that is not all of them."""

    name: str
    script: str
    args: Callable[[Tokens], list[object]]
    touches: frozenset[str] | None = None
    writes: bool = True

    def __str__(self) -> str:
        return self.name


def touched(case: Case) -> set[str]:
    """The keys that this call reads or writes."""
    return set(script(case.script).keys if case.touches is None else case.touches)


CASES = [
    Case("enqueue", "enqueue", enqueue),
    Case("claim", "claim", lambda t: [WORKER, 7, 10, 30_000, "", 10_000, "", ""]),
    Case("ack", "ack", lambda t: [WORKER, *settlements(t, "1")]),
    Case(
        "ack_add", "ack_add",
        lambda t: [
            WORKER, QUEUE, "own", t["own"], "1", 3,
            *("new", "send", "{}", "", "", "", "", "", "group:g after:mail:x", "", "", "", QUEUE),
            *("known", "send", "{}", "", "5000", "", "", "", "unique:fresh", "", "", "", QUEUE),
            *("other", "send", "{}", "", "", "", "", "", "", "", "", "", "other"),
        ],
    ),
    Case("nack", "nack", lambda t: [WORKER, 1, *settlements(t, "ValueError", "boom", "", 5, "type")]),
    Case("bury", "bury", lambda t: [WORKER, *settlements(t, "ValueError", "boom", "", "")]),
    Case("release", "release", lambda t: [WORKER, 0, *settlements(t, 1000, "no_handler")]),
    Case("release later", "release", lambda t: [WORKER, "", *settlements(t, 1000, "snooze")]),
    Case("extend", "extend", lambda t: settlements(t, 600_000)),
    Case("reclaim", "reclaim", lambda t: [WORKER, 1, 100, 30_000, 10_000, ""]),
    Case(
        "promote", "promote", lambda t: ["", 100, 0],
        frozenset({"jobs", "ready", "scheduled", "retrying", "counters", "config", "bell", "events", *LANES}),
    ),
    Case("promote ids", "promote", lambda t: [page(1), "", *ids("scheduled", "retrying", "missing")]),
    Case("cancel", "cancel", lambda t: [page(1), "", *ids("ready", "running", "missing", "blocked")]),
    Case("replay", "replay", lambda t: [page(1), "", "", 2, "dead", "[1]", "ff", "missing", "", ""]),
    Case(
        "replay page", "replay", lambda t: ["", "", 100, 0],
        frozenset({"jobs", "ready", "dead", *DEAD, "attempts", "expiries", "notes", "config", "counters", "bell", "events", *LANES}),
    ),
    Case("update", "update", lambda t: [2, "ready", 5, 1000, "", "[1]", "ff", "", "", "missing", *[""] * 7]),
    Case("purge", "purge", lambda t: [page(1), "", "", "", *ids("dead", "succeeded", "ready", "gone", "missing")]),
    Case(
        "purge page", "purge", lambda t: ["", "dead", "", 100, 0],
        frozenset({"jobs", "dead", *DEAD, "attempts", "results", "expiries", "notes", "logs", "config", "counters", "events", "known", *LANES}),
    ),
    Case("purge expired", "purge", lambda t: ["", "expired", "", 100, 0]),
    Case("configure", "configure", lambda t: ["", "", "", "", 2, "paused", "1", "rate", "5|1000|0"]),
    Case("reset", "reset", lambda t: ["send"]),
    Case(
        "resolve", "resolve",
        lambda t: [
            3, "blocked", "elsewhere:=closed", 5, "succeeded", "1", "", "waits", "mail:dead", 9_000_000_000_000_000, "dead", "", "",
            "=flow", "mail:blocked", 5, "revived", "", "",
        ],
    ),
    Case("follow", "follow", lambda t: [3, "ready", "mail:x", "succeeded", "mail:x", "gone", "mail:x"]),
    Case("relay", "relay", lambda t: [100, "", 1, "dead", 5, "mail:x"]),
    Case("parents", "parents", lambda t: ["waits", "", "", 100], writes=False),
    Case("flow_put", "flow_put", lambda t: ["new", "{}", 1, 0, "[]", 1, "mail:x"]),
    Case("flow_open", "flow_open", lambda t: ["building"]),
    Case("flow_cancel", "flow_cancel", lambda t: ["flow"]),
    Case("flow_drop", "flow_drop", lambda t: ["building", "undo", 0]),
    Case("flow_drop: gone", "flow_drop", lambda t: ["undone", "gone", 0]),
    Case("configure a type", "configure", lambda t: ["types", "send", "5|7|-|||1|50;60000;10;30000;1\n{}", "", 0]),
    Case("configure a group", "configure", lambda t: ["groups", "acme", "3|-|100|60000|0|1", "", 0]),
    Case(
        "note", "note",
        lambda t: [
            5, "running", t["running"], "progress", "1", "", "last", t["last"], "log", "x", "", "own", t["own"], "log", "x", 1,
            "ready", 5, "log", "x", "", "missing", 5, "log", "x", 1,
        ],
    ),
    Case("inspect", "inspect", lambda t: ["payload result", *ids("running", "missing")], writes=False),
    *(
        Case(f"list {state}", "list", lambda t, state=state: [state, "", 100, 2000, "send", "", "", "E", "", "", ""], frozenset({"jobs", "attempts", state}), writes=False)  # type: ignore[misc]
        for state in STATES
    ),
    Case(
        "list alike", "list", lambda t: ["dead", "", 100, 2000, "", "", "", "", "Permanent", "0" * 16, ""],
        frozenset({"dead_index"}), writes=False,
    ),
    Case("groups", "groups", lambda t: ["", ""], writes=False),
    Case("operate: begin", "operate", lambda t: ["begin", "new", "c", "{}"]),
    Case("operate: carry", "operate", lambda t: ["carry", "op", "c", ""]),
    Case("operate: turn", "operate", lambda t: ["turn", page(1), "c", ""]),
    Case("operate: cancel", "operate", lambda t: ["cancel", "op", "c", ""]),
    Case("operate: fail", "operate", lambda t: ["fail", "op", "c", '"no"']),
    Case("schedule_put", "schedule_put", lambda t: ["tick", "", 7, "", "||send||||||\n{}\n{}", "[1]"]),
    Case("schedule_put: due no more", "schedule_put", lambda t: ["tick", "", "", "", "||send||||||\n{}\n{}", ""]),
    Case("schedule_due", "schedule_due", lambda t: [""], writes=False),
    Case("schedule_name: claim", "schedule_name", lambda t: ["claim", "new", QUEUE, "y", ""]),
    Case("schedule_name: free", "schedule_name", lambda t: ["free", "tick", "", "", f"{QUEUE}|x"]),
    Case("schedule_fire", "schedule_fire", fire),
    Case("schedule_drop", "schedule_drop", lambda t: [2, "other", "", "missing", ""]),
    Case("obliterate", "obliterate", lambda t: ["1"]),
    Case("census", "census", lambda t: [], writes=False),
    Case("explain", "explain", lambda t: [*ids("ready", "running", "retrying", "dead", "gone", "missing")], writes=False),
    Case("demand", "demand", lambda t: [""], writes=False),
    Case("verify", "verify", lambda t: ["ready", "0", 500, ""], writes=False),
]  # fmt: skip
"""At least one call of each script; together they touch each of its keys."""

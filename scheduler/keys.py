"""The names of every key in Redis, spelled once, each with its type and its meaning."""

from __future__ import annotations

import re
from dataclasses import dataclass

LAYOUT = 3
"""The number of this key layout. A process that finds another one does not start."""

LEVEL = 1
"""The newest bookkeeping these scripts know; a queue that uses a newer one answers LEVEL."""

QUEUE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
JOB_KEY = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a queue: `{namespace:queue}:suffix`."""

    suffix: str
    type: str
    doc: str


QUEUE_KEYS: tuple[Key, ...] = (
    Key("jobs", "hash", "id -> record: type|timeout|flags|created|priority|fingerprint|crc, header, payload"),
    Key(
        "bodies",
        "hash",
        "id -> payload, id:result -> result, where the record would be larger than 4 KiB: jobs and results end after their head then",
    ),
    Key("scheduled", "zset", "id -> when it is due, microseconds; ties of a millisecond keep their order"),
    Key("blocked", "zset", "id -> since when it waits for other jobs, ms"),
    Key("ready", "zset", "id -> place - priority x step, microseconds; lowest runs first"),
    Key("running", "zset", "id -> when its lease ends, ms"),
    Key("retrying", "zset", "id -> when its backoff is over, microseconds"),
    Key("succeeded", "zset", "id -> when it ended, ms; negative where the job's own retention decides"),
    Key("cancelled", "zset", "id -> when it was cancelled, ms; negative likewise"),
    Key("dead", "zset", "id -> when it died, ms; negative likewise (the dead-letter queue)"),
    Key(
        "dead_index",
        "zset",
        "fingerprint, when it died (15 digits of ms), id -> 0: a range for all that died alike",
    ),
    Key("dead_groups", "zset", "fingerprint -> when the newest of those that died alike did, ms"),
    Key(
        "leases",
        "hash",
        "id -> token|worker|started|ends|score|attempt|flags|bytes|asked|key id, while it runs",
    ),
    Key(
        "attempts",
        "hash",
        "id -> course: attempt|crashes|snoozes|token|verb|to|started|worker|reason|unhandled|since|fingerprint, errors",
    ),
    Key("results", "hash", "id -> course line of the run that succeeded, result"),
    Key(
        "known",
        "hash",
        "id -> tombstone of a job that is gone but ended less than 60 s ago; =unique key -> id|until|mode of its holder",
    ),
    Key(
        "expiries",
        "zset",
        "id or :worker -> when its deadline, own retention, tombstone or receipt is over, ms",
    ),
    Key("receipts", "hash", "worker (or worker/request) -> turn|first token|until|ids of its last claim"),
    Key(
        "notes",
        "hash",
        "id:progress, id:checkpoint, id:edits -> what handlers and editors left; id:signal -> order|state|told|added, result",
    ),
    Key(
        "logs",
        "zset",
        "id:microseconds line -> 0; the newest 1,000 lines of a job, read by lexicographic range",
    ),
    Key("dependents", "zset", "id (or = and a flow), who waits for its end as queue:key -> 0"),
    Key(
        "awaits",
        "zset",
        "id (or = and a flow), ? + or - and what it waits for as queue:key -> 0: still to end, succeeded, ended otherwise",
    ),
    Key(
        "parents",
        "hash",
        "id, what it waits for -> order|state and result of its end; id -> bytes of all these results",
    ),
    Key("signals", "zset", "id (or = and a flow) -> order of the word about its end; in notes as id:signal"),
    Key(
        "opening",
        "zset",
        "id that those it waits for do not know yet, = and a flow not open yet -> since, ms",
    ),
    Key("flows", "hash", "flow -> state|opened|ended|asked|total|created, header; flow page -> its jobs"),
    Key(
        "types",
        "hash",
        "type -> timeout|concurrency|limit|per_ms|burst|paused|breaker, policy and schema as set; "
        ":type -> as a worker's code declared it",
    ),
    Key(
        "lanes",
        "zset",
        "type group rank id[ cost] -> 0: ready jobs by lane, best first; where there are no limits group rank id",
    ),
    Key("heads", "zset", "group rank type -> 0: the first job of every lane that is not held"),
    Key(
        "turns",
        "zset",
        "group -> its virtual time; the lowest is served next; where there are no limits group rank id -> the turn "
        "of a job, and group + (more wait) or group . (no more) -> the turn after those",
    ),
    Key("parked", "zset", "group, or type and group -> its virtual time: held groups and lanes"),
    Key(
        "lines",
        "zset",
        "type tag group -> 0: the lanes that wait for a limit of their type; * group: held groups",
    ),
    Key(
        "waits",
        "zset",
        "what limits hold -> when to look again, ms: q for the queue, t<type>, g<group>, * for all groups",
    ),
    Key(
        "slots",
        "zset",
        "t<type> id, g<group> id -> 0: who runs, counted by lexicographic range; b<type> id: probes of a breaker",
    ),
    Key(
        "meters",
        "hash",
        "q, t<type>, g<group> -> of its rate: when the next start is due, us|between two, us; hold <scope>; after <type>; "
        "breaker <type> -> closed|since|successes|failures|both of the window before, or open|until|probes passed|successes|failures",
    ),
    Key(
        "groups",
        "hash",
        "group -> weight|concurrency|limit|per ms|burst|paused, where it has a policy of its own",
    ),
    Key(
        "operations",
        "hash",
        "operation -> state|page|began|updated|carrier|until|matched|done|cursor, error, plan",
    ),
    Key(
        "schedules",
        "hash",
        "name -> version|changed|paused|max_runs|type|priority|timeout|retention|rules|fingerprint|crc, job header, schedule; "
        ":name -> runs|skipped|last slot|ended|open jobs, its last slots; =name -> payload of its jobs",
    ),
    Key("fires", "zset", "schedule -> its next slot, ms; one that is paused or has ended stands not here"),
    Key(
        "owners",
        "hash",
        "of the namespace, in {namespace:=schedules}: schedule -> queue|mark: whose name it is",
    ),
    Key("names", "zset", "of the namespace, likewise: schedule -> 0: the names in order"),
    Key(
        "config",
        "hash",
        "created, level, version, lanes, slots, breakers, paused, draining, step, max_length, max_bytes, rate, concurrency, "
        "group_rate, group_concurrency, keep_<state>_<age|count|bytes>",
    ),
    Key(
        "counters",
        "hash",
        "token, place, log, totals by verb, bytes of ended jobs, the sweep's and the timekeeper's marks",
    ),
    Key("bell", "list", "at most one ring: something became runnable"),
    Key(
        "events",
        "stream",
        "one entry a call: kind, worker, at, up to 100 ids, their tokens and states; about 10,000",
    ),
)

SUFFIXES: dict[str, Key] = {key.suffix: key for key in QUEUE_KEYS}

STATES = ("scheduled", "blocked", "ready", "running", "retrying", "succeeded", "cancelled", "dead")


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one queue. All of them share one hash tag, so they stand on one node of a cluster."""

    namespace: str
    queue: str

    def at(self, suffix: str) -> str:
        """The full name of the key with this suffix; KeyError for one that does not exist."""
        return f"{{{self.namespace}:{self.queue}}}:{SUFFIXES[suffix].suffix}"

    def all(self, suffixes: tuple[str, ...]) -> list[str]:
        """Full names in the order of `suffixes`."""
        start = f"{{{self.namespace}:{self.queue}}}:"
        return [start + suffix for suffix in suffixes]


def layout_key(namespace: str) -> str:
    """STRING: the layout number."""
    return f"{{{namespace}}}:layout"


def queues_key(namespace: str) -> str:
    """SET of queue names: a hint, the watchdog finds strays by a slow scan."""
    return f"{{{namespace}}}:queues"


def operations_key(namespace: str) -> str:
    """SET of `queue:id`: operations that may be under way, a hint for whoever carries on what was left."""
    return f"{{{namespace}}}:operations"


def schemas_key(namespace: str) -> str:
    """SET of queue names: those in which a type has, or had, a schema; written before the schema is."""
    return f"{{{namespace}}}:schemas"


SCHEDULES = "=schedules"
"""Stands for a queue where the names of a namespace's schedules are kept: `owners` and `names`."""


def schedule_queues_key(namespace: str) -> str:
    """SET of queue names: those that have, or had, a schedule; written before the schedule is."""
    return f"{{{namespace}}}:schedule_queues"


def declared_key(namespace: str) -> str:
    """SET of `app|schedule`: those that the code of an app declares, or declared; written before the schedule is."""
    return f"{{{namespace}}}:declared_schedules"


def request_keys(namespace: str, name: str) -> tuple[str, str]:
    """STRINGs, expiring, of a request with an Idempotency-Key: fingerprint|seed, and seed, newline, its answer.

    A slot of their own: those of a namespace are many.
    """
    return f"{{{namespace}:={name}}}:request", f"{{{namespace}:={name}}}:answer"


def workers_key(namespace: str) -> str:
    """SET of worker names: those that have signed, and some whose time is over."""
    return f"{{{namespace}}}:workers"


def worker_key(namespace: str, name: str) -> str:
    """HASH, expiring: what a worker said of itself, or the queues that it leases from over REST."""
    return f"{{{namespace}}}:worker:{name}"


def queue_of(namespace: str, key: str) -> str | None:
    """The queue whose key this is, or None when it is no key of ours."""
    match = re.fullmatch(r"\{(.+):([^:{}]+)\}:[a-z_]+", key)
    if match is None or match[1] != namespace:
        return None
    return match[2]

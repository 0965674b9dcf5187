"""Why a job does not run now, or what became of it: what a script sees, said in sentences, joined with who works."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from .job import hold_of
from .outcomes import Held, Hold, WorkerSeen
from .presence import Presence
from .served import unserved
from .store import Store
from .times import rfc3339

FOREMOST = ("running", "ended", "scheduled", "retry_wait", "blocked_by")
"""The codes that say what a job's state means; they stand first."""

LAST = ("group_turn", "behind", "queue_draining")
"""The codes of what does not keep a job from running once it is first in line; they stand last."""


NAMED = 10
"""Jobs that are named of those that one waits for."""


class Holder(Struct, frozen=True):
    """A job that has a slot for which another one waits, and who runs it; or one whose end it waits for."""

    id: str
    worker: str | None


class Reason(Struct, frozen=True):
    """Why a job does not run: a code for programs, a sentence for people, and until when (ms) where that is known."""

    code: str
    message: str
    until_ms: int | None = None
    holders: Sequence[Holder] = ()


class Explanation(Struct, frozen=True):
    """All that holds a job now. `position` is its place in line, 1 for the next one; None for one that is in none."""

    id: str
    state: str
    reasons: Sequence[Reason]
    position: int | None
    exact: bool
    """Whether the position is; in a queue with groups or limits it is about right."""

    def document(self) -> dict[str, Any]:
        """As documents show it."""
        return {
            "id": self.id,
            "state": self.state,
            "reasons": [
                {
                    "code": one.code,
                    "message": one.message,
                    "until": None if one.until_ms is None else rfc3339(one.until_ms),
                    "holders": [{"id": who.id, "worker": who.worker} for who in one.holders],
                }
                for one in self.reasons
            ],
            "position": self.position,
            "approximate": not self.exact,
        }


async def explain(store: Store, presence: Presence, queue: str, key: str) -> Explanation:
    """What holds this job now, or what became of it. Raises NotFound."""
    held = await store.explain(queue, key)
    reasons = [_reason(queue, held, hold) for hold in held.holds]
    if held.state == "blocked":
        reasons = [*await _blocked(store, queue, key), *(r for r in reasons if r.code != "blocked_by")]
    if held.state == "ready":
        reasons += _unserved(queue, held.type, await presence.seen())
        if held.before or not reasons:
            reasons.append(_behind(held))
    if held.state not in {"running", "succeeded", "cancelled", "dead"}:
        config = (await store.census(queue)).config
        if "draining" in config:
            reasons.append(
                Reason(
                    "queue_draining",
                    f"the queue {queue} is draining: it accepts no new job, and runs this one",
                )
            )
    reasons.sort(key=lambda one: (one.code not in FOREMOST) + (one.code in LAST))
    position = None if held.before is None else held.before + 1
    return Explanation(f"{queue}:{key}", held.state, reasons, position, held.exact)


async def _blocked(store: Store, queue: str, key: str) -> list[Reason]:
    """What a blocked job waits for, and what it may wait for in vain."""
    waiting = await store.parents(queue, key, sign="?", limit=NAMED + 2)
    gates = [parent.id for parent in waiting.items if ":=" in parent.id]
    ids = [parent.id for parent in waiting.items if parent.id not in gates][:NAMED]
    reasons = [
        Reason("blocked_by", "it is held: it waits until somebody opens it")
        if gate == hold_of(queue, key)
        else Reason("blocked_by", f"its flow {gate.replace(':=', ':')} is not complete yet")
        for gate in gates
    ]
    if ids:
        reasons.append(_waits_for(ids, waiting.pending - len(gates), "it waits for {} to end: {}"))
    [job] = await store.inspect(queue, [key])
    if job is not None and job.on_failure == "wait" and waiting.failed:
        failed = await store.parents(queue, key, sign="-", limit=NAMED)
        names = [f"{parent.id} ({parent.state})" for parent in failed.items]
        said = "of {} that did not succeed each dead one must be replayed first: {}"
        reasons.append(_waits_for(names, failed.failed, said))
    return reasons or [Reason("blocked_by", "it waits for other jobs to end")]


def _waits_for(names: Sequence[str], count: int, said: str) -> Reason:
    more = f" and {count - len(names)} more" if count > len(names) else ""
    what = said.format("1 job" if count == 1 else f"{count} jobs", ", ".join(names) + more)
    return Reason("blocked_by", what, holders=tuple(Holder(name.split(" ")[0], None) for name in names))


def _reason(queue: str, held: Held, hold: Hold) -> Reason:
    more, until = hold.more, hold.until_ms
    till = "" if until is None else f" until {rfc3339(until)}"
    match hold.code:
        case "scheduled":
            return Reason(hold.code, f"it is due at {rfc3339(until or 0)}", until)
        case "retry_wait":
            return Reason(
                hold.code, f"it failed, and waits{till} for its next attempt; {_runs(more[0])} so far", until
            )
        case "no_handler":
            message = f"no worker that took it has a handler for {held.type}: given back {_times(more[0])}, it waits{till}"
            return Reason(hold.code, message, until)
        case "blocked_by":
            return Reason(hold.code, "it waits for other jobs to end")
        case "running":
            return Reason(hold.code, _running(more, until))
        case "ended":
            why = f" ({more[0]})" if more[0] else ""
            return Reason(hold.code, f"it is {held.state}{why}, since {rfc3339(until or 0)}")
        case "queue_paused":
            return Reason(hold.code, f"the queue {queue} is paused")
        case "type_paused" | "group_paused":
            return Reason(hold.code, f"{_scope(queue, more[0])} is paused")
        case "rate_limited":
            return Reason(hold.code, f"{_scope(queue, more[0])} may start no more{till}", until)
        case "concurrency_limited":
            holders = tuple(_holder(queue, text) for text in more[3].split(",") if text)
            by = ", ".join(f"{who.id} on {who.worker}" for who in holders)
            others = int(more[1]) - len(holders)
            message = f"of {_scope(queue, more[0])} {more[1]} run and {more[2]} may: {by}"
            return Reason(hold.code, message + (f" and {others} more" if others > 0 else ""), holders=holders)
        case "breaker_open":
            message = f"{_scope(queue, more[0])} fails too often: its breaker is open{till}"
            if until is None:
                message = f"{_scope(queue, more[0])} failed too often: its breaker is half open, and others are its probes"
            return Reason(hold.code, message, until)
        case "group_turn":
            return Reason(hold.code, f"groups take turns: about {more[0]} of them come before its own")
        case _:
            return Reason(hold.code, f"{_scope(queue, more[0]) if more else 'it'} is held{till}", until)


def _running(more: Sequence[str], until: int | None) -> str:
    worker, attempt, asked = more
    message = f"attempt {attempt or '?'} runs on {worker or 'a worker'}"
    message += ", and was asked to stop" if asked == "1" else ""
    return message if until is None else f"{message}; its lease is good until {rfc3339(until)}"


def _unserved(queue: str, kind: str, everybody: Sequence[WorkerSeen]) -> list[Reason]:
    """What is wrong with who works on the queue. A worker that does not say its types may have any."""
    workers = [worker for worker in everybody if queue in worker.queues]
    hint = unserved(everybody, queue, kind)
    meant = "" if hint is None else f": {hint.partition(': ')[2]}"
    if not workers:
        return [Reason("no_worker", f"no worker has signed for the queue {queue} lately{meant}")]
    if all(worker.types and kind not in worker.types for worker in workers):
        said = "the only worker" if len(workers) == 1 else f"none of the {len(workers)} workers"
        has = "has no handler" if len(workers) == 1 else "has a handler"
        return [Reason("no_handler", f"{said} of the queue {queue} {has} for {kind}{meant}")]
    return []


def _behind(held: Held) -> Reason:
    if not held.before:
        return Reason("behind", "it is the next: a worker takes it as soon as one has a free slot")
    about = "" if held.exact else "about "
    noun = "job is" if held.before == 1 else "jobs are"
    return Reason("behind", f"{about}{held.before} {noun} before it")


def _scope(queue: str, name: str) -> str:
    kind, its = name[:1], name[1:]
    return {"t": f"type {its}", "g": f"group {its}"}.get(kind, f"the queue {queue}")


def _holder(queue: str, text: str) -> Holder:
    key, _, worker = text.partition(" ")
    return Holder(f"{queue}:{key}", worker or None)


def _runs(count: str) -> str:
    return "1 run" if count == "1" else f"{count} runs"


def _times(count: str) -> str:
    return "once" if count == "1" else f"{count} times"

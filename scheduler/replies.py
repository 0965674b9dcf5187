"""Jobs as scripts answer them, read into values."""

from __future__ import annotations

from typing import Any

import orjson

from . import retry as retry_policy
from .job import Claimed, Job, Record, State, parse_course, parse_record
from .outcomes import DeadGroup, Held, Hold, Lease, Work, parse_type


def read_claimed(
    queue: str,
    now: int,
    key: bytes,
    token: bytes,
    attempt: Any,
    until: bytes,
    ends: bytes,
    record: bytes,
    former: bytes,
    checkpoint: bytes,
) -> Claimed:
    ends_ms = int(ends)
    return Claimed(
        queue,
        key.decode(),
        int(token),
        int(attempt),
        int(until),
        ends_ms,
        ends_ms - now,
        parse_record(record),
        former,
        checkpoint,
    )


_NOTHING = Record("", None, "", 0, 0, "", "", {}, None)


def read_lease(text: bytes) -> Lease | None:
    """A lease record: token|worker|started|ends|score|attempt|flags|bytes|asked|key id|asked at. None for a damaged one."""
    parts = text.decode(errors="replace").split("|")
    if len(parts) < 10:
        return None
    asked_at = int(parts[10]) if len(parts) > 10 and parts[10].isdigit() else None
    return Lease(int(parts[0]), parts[1] or None, int(parts[2]), int(parts[5]), asked_at)


def read_group(
    fingerprint: bytes, count: Any, first: bytes, last: bytes, kind: bytes, error: bytes
) -> DeadGroup:
    """A group of dead jobs. An error that cannot be read is shown as an empty one."""
    try:
        said = orjson.loads(error.decode(errors="replace")) if error else {}
    except ValueError:
        said = {}
    return DeadGroup(
        fingerprint.decode(), int(count), int(first), int(last), kind.decode(errors="replace"),
        str(said.get("kind", "")), str(said.get("message", "")),
    )  # fmt: skip


def read_held(reply: list[Any]) -> Held | None:
    """What lua/explain.lua says of one job; None when it is not known."""
    now, state, before, exact, kind, _, *lines = reply
    if not state:
        return None
    holds = []
    for line in lines:
        code, until, *more = line.decode(errors="replace").split("|")
        holds.append(Hold(code, int(until) if until else None, more))
    return Held(
        int(now),
        state.decode(),
        int(before) if before else None,
        int(exact) == 1,
        kind.decode(errors="replace"),
        holds,
    )


def read_work(reply: list[Any]) -> Work | None:
    """What lua/demand.lua says; None when the queue does not exist."""
    now, exists, running, runnable, exact, since, *held = reply
    if not int(exists):
        return None
    counts = {name.decode(): int(n) for name, n in zip(held[::2], held[1::2], strict=True)}
    return Work(int(now), int(running), int(runnable), int(exact) == 1, int(since) if since else None, counts)


def read_job(
    queue: str, key: str, state: bytes, score: bytes, record: bytes, former: bytes, run: bytes, lease: bytes,
    progress: bytes, edits: bytes, tomb: bytes, set_policy: bytes, declared: bytes,
) -> Job | None:  # fmt: skip
    course, finished, header = parse_course(former), None, b""
    result: bytes | None = None
    if not state:
        if not tomb:
            return None
        first, _, record = tomb.partition(b"\n")
        at, ended, line = first.split(b"|", 2)
        course, finished, its_state = parse_course(line), int(at), State(ended.decode())
    else:
        its_state = State(state.decode())
    kept = parse_record(record)
    if kept is None:
        kept = Record("", None, "", 0, 0, "", "", {}, record)
    header = record.split(b"\n", 2)[1] if record.count(b"\n") else b""
    policies = parse_type(declared), parse_type(set_policy)
    policy = retry_policy.in_force(*(p.retry or {} for p in policies), kept.header.get("retry") or {})
    timeouts = [t for t in (policies[0].timeout_ms, policies[1].timeout_ms, kept.timeout_ms) if t is not None]

    attempt, crashes, token, worker, started, until, asked_at = (
        course.attempt,
        course.crashes,
        course.token,
        None,
        None,
        None,
        None,
    )
    run_at = None
    if state and its_state in {State.SCHEDULED, State.RETRYING}:
        run_at = int(score) // 1000
    elif its_state is State.RUNNING:
        until = int(score)
        held = read_lease(lease)
        if held is not None:
            token, worker, started, attempt = held.token, held.worker, held.started_at, held.attempt
            asked_at = held.cancel_requested_at
    elif its_state.ended:
        finished = finished if finished is not None else abs(int(score))
        if run:
            line, _, body = run.partition(b"\n")
            last = parse_course(line)
            attempt, token, worker, started, crashes = (
                last.attempt,
                last.token,
                last.worker,
                last.started_ms,
                0,
            )
            result = body or None
        else:
            worker, started = course.worker, course.started_ms
    return Job(
        id=f"{queue}:{key}",
        queue=queue,
        type=kept.type,
        state=its_state,
        reason=course.reason if its_state in {State.DEAD, State.CANCELLED} else None,
        payload=kept.payload,
        priority=kept.priority,
        group=kept.header.get("group"),
        tags=tuple(kept.header.get("tags", ())),
        attempt=attempt,
        max_attempts=int(policy["max_attempts"]),
        crashes=crashes,
        snoozes=course.snoozes,
        token=token,
        timeout_ms=timeouts[-1] if timeouts else retry_policy.DEFAULT_TIMEOUT_MS,
        created_at=kept.created_ms,
        run_at=run_at,
        started_at=started,
        finished_at=finished,
        lease_expires_at=until,
        cancel_requested_at=asked_at,
        worker=worker,
        progress=progress or None,
        result=result,
        errors=course.errors,
        traceparent=kept.header.get("traceparent"),
        unique=kept.rule("u"),
        fingerprint=course.fingerprint if its_state is State.DEAD else None,
        copied_from=kept.header.get("copied_from"),
        schedule=kept.header.get("schedule"),
        edits=tuple(_edits(edits)),
        header=header,
        own_timeout_ms=kept.timeout_ms,
        retention_ms=kept.retention_ms,
        cost=kept.cost,
        deadline_ms=kept.deadline_ms,
        expires_ms=kept.expires_ms,
        after=tuple(kept.header.get("after", ())),
        on_failure=kept.rule("a"),
        hold=bool(kept.header.get("hold")),
        flow=kept.header.get("flow"),
        flow_name=kept.header.get("name") or None,
    )


def _edits(text: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at < len(text):
        line, newline, _ = text[at:].partition(b"\n")
        when, _, length = line.partition(b" ")
        if not newline or not length.isdigit():
            break
        start = at + len(line) + 1
        found.append((int(when), text[start : start + int(length)]))
        at = start + int(length)
    return found


def texts(reply: list[Any]) -> list[str]:
    """A list of words."""
    return [item.decode() for item in reply]

"""Schedules as API documents show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from . import retry as retry_policy
from .cron import words
from .schedule import Schedule, Standing
from .times import rfc3339, seconds

SHOWN_NEXT = 5


def document(standing: Standing, now_ms: int, states: Mapping[str, str]) -> dict[str, Any]:
    """A schedule as API documents show it. `states`: how its jobs stand now, by id.

    A schedule that this process cannot work out has the sentence that says why as `error`, and no next slots.
    """
    error = standing.trouble(now_ms)
    try:
        return _document(standing, now_ms, states, error)
    except Exception as unexpected:  # noqa: BLE001 - one stored record must not take the list down
        bare = Schedule(name=standing.schedule.name, queue=standing.schedule.queue)
        sick = Standing(
            schedule=bare, version=0, changed_ms=0, paused=standing.paused, anchor_ms=0, next_ms=None
        )
        return _document(sick, now_ms, {}, error or str(unexpected) or repr(unexpected))


def _document(
    standing: Standing, now_ms: int, states: Mapping[str, str], error: str | None
) -> dict[str, Any]:
    its = standing.schedule
    shown: dict[str, Any] = {
        "name": its.name,
        "queue": its.queue,
        "type": its.type,
        "payload": _payload(its.payload),
        "cron": its.cron,
        "every": None if its.every_ms is None else seconds(its.every_ms),
        "timezone": its.timezone,
        "jitter": seconds(its.jitter_ms),
        "overlap": its.overlap,
        "catch_up": its.catch_up,
        "catch_up_window": seconds(its.catch_up_window_ms),
        "starts_at": _time(its.starts_ms),
        "ends_at": _time(its.ends_ms),
        "max_runs": its.max_runs,
        "paused": standing.paused,
        "priority": its.priority,
        "group": its.group,
        "tags": list(its.tags),
        "timeout": None if its.timeout_ms is None else seconds(its.timeout_ms),
        "retry": None if its.retry is None else retry_policy.shown(its.retry),
        "retention": None if its.retention_ms is None else seconds(its.retention_ms),
        "cost": its.cost,
        "expires_in": None if its.expires_in_ms is None else seconds(its.expires_in_ms),
        "state": standing.state,
        "words": None if its.cron is None or error else words(its.cron),
        "error": error,
        "declared_by": its.declared_by,
        "changed_at": rfc3339(standing.changed_ms),
        "next_at": _time(standing.next_ms) if standing.next_ms and standing.state == "active" else None,
        "runs": standing.runs,
        "skipped_runs": standing.skipped,
    }
    if standing.state == "active" and error is None:
        next_ms = standing.next_ms or None
        after = now_ms if next_ms is None else min(now_ms, next_ms - 1)
        shown["next"] = [rfc3339(slot) for slot in standing.upcoming(after, SHOWN_NEXT)]
    else:
        shown["next"] = []
    shown["last"] = [
        {
            "slot": _time(one.slot_ms),
            "at": rfc3339(one.at_ms),
            "id": f"{its.queue}:{one.key}",
            "state": states.get(f"{its.queue}:{one.key}"),
        }
        for one in reversed(standing.past)
        if one.outcome == "fired"
    ]
    shown["skipped"] = [
        {
            "slot": _time(one.slot_ms),
            "until": _time(one.upto_ms),
            "count": one.count,
            "reason": one.outcome,
            "at": rfc3339(one.at_ms),
        }
        for one in reversed(standing.past)
        if one.outcome != "fired"
    ]
    return shown


def _payload(payload: bytes) -> orjson.Fragment | None:
    """The payload byte for byte; None where it is no JSON, which the error says then."""
    try:
        orjson.loads(payload)
    except ValueError:
        return None
    return orjson.Fragment(payload)


def _time(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)

"""An example of each body that is sent and each document that is answered, as the OpenAPI document shows them.

`tests/doors/test_openapi.py` sends the former to a server and reads the latter with their types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import fields as f
from .. import shown as s
from ..keys import LAYOUT
from .problems import CODES

_AT, _LATER, _END = "2026-11-24T09:00:00.000Z", "2026-11-24T09:00:02.417Z", "2026-11-24T09:00:03.104Z"
_ID, _OTHER = "mail:01a20d9f-e7b1-7428-bc6a-de806adfb983", "mail:01a20d9f-e837-710d-8e5b-e5dd4dfa8a59"
_PAYLOAD = {"to": "ada@example.org", "subject": "Welcome", "body": "Good to have you here."}
_NOTHING = {"p50": 0.012, "p95": 0.04, "p99": 0.21}
_COUNTS = {
    "scheduled": 12, "blocked": 0, "ready": 340, "running": 25, "retrying": 3, "succeeded": 81_240, "cancelled": 7, "dead": 19,
}  # fmt: skip
_KEPT = {
    "succeeded": {"age": 86_400, "count": 100_000},
    "cancelled": {"age": 86_400, "count": 100_000},
    "dead": {"age": 2_592_000},
}
_RETRY = {
    "max_attempts": 8, "immediate": 1, "base": 5, "factor": 2, "max_delay": 3_600, "jitter": 0.5, "non_retryable": ["BadAddress"],
    "max_crashes": 3,
}  # fmt: skip
_SCHEMA = {"type": "object", "properties": {"to": {"type": "string", "format": "email"}}, "required": ["to"]}

_READY = {
    "id": _ID, "queue": "mail", "type": "email.send", "state": "ready", "reason": None, "payload": _PAYLOAD, "priority": 0,
    "group": None, "tags": ["welcome"], "attempt": 0, "max_attempts": 20, "crashes": 0, "snoozes": 0, "token": 0, "timeout": 30,
    "deadline": None, "expires_at": None, "created_at": _AT, "run_at": None, "started_at": None, "finished_at": None,
    "lease_expires_at": None, "worker": None, "progress": None, "result": None, "errors": [], "after": [], "schedule": None,
    "traceparent": None, "cancel_requested_at": None,
}  # fmt: skip
_RUNNING = _READY | {
    "state": "running", "attempt": 1, "token": 1795510802417000, "started_at": _LATER, "worker": "shell-1",
    "lease_expires_at": "2026-11-24T09:00:32.417Z",
}  # fmt: skip
_DEAD = {name: value for name, value in _READY.items() if name not in {"payload", "result"}} | {
    "id": _OTHER, "state": "dead", "reason": "attempts", "attempt": 20, "token": 1795510802998000, "started_at": _LATER,
    "finished_at": _END, "worker": "web-1:4711:9f3c2a10", "fingerprint": "624b85d6970f50b1",
    "errors": [
        {"attempt": 20, "kind": "SMTPServerDisconnected", "message": "mx1.example.org hung up", "at": _END, "next": "dead: attempts"}
    ],
}  # fmt: skip
_DONE = {
    "id": _ID, "act": "replay", "queue": "mail", "state": "done", "matched": 19, "done": 19, "failed": 0, "error": None,
    "dry_run": False, "filter": {"state": "dead", "fingerprint": "624b85d6970f50b1"}, "created_at": _AT, "updated_at": _END,
}  # fmt: skip
_WORKER = {
    "name": "web-1:4711:9f3c2a10", "host": "web-1", "pid": 4711, "version": "0.1.0", "queues": ["mail"], "types": ["email.send"],
    "concurrency": 100, "running": [_ID], "started_at": _AT, "seen_at": _END,
}  # fmt: skip
_QUEUE = {
    "queue": "mail", "counts": _COUNTS, "oldest_wait": 1.204, "paused": False, "draining": False, "retention": {"dead": {"age": 2_592_000}},
    "priority_mode": None,
    "in_force": {"retention": _KEPT, "priority_mode": {"aging": 60}},
    "rate": {"limit": 100, "per": 60, "burst": 20}, "concurrency": 50, "group_rate": None, "group_concurrency": 5, "max_length": None, "max_bytes": 100_000_000, "partitions": 1,
    "workers": 4,
}  # fmt: skip
_BREAKER = {"failure_rate": 0.5, "window": 60, "minimum": 10, "open_for": 30, "probes": 1}
_TYPE = {
    "queue": "mail", "type": "email.send", "retry": {"max_attempts": 8}, "timeout": 30, "schema": _SCHEMA, "rate": None, "concurrency": 10, "paused": False, "breaker": _BREAKER,
    "breaker_state": {"state": "closed", "until": None, "successes": 412, "failures": 3},
    "in_force": {"retry": _RETRY, "timeout": 30, "rate": None, "concurrency": 10, "breaker": _BREAKER},
}  # fmt: skip
_GROUP = {
    "queue": "mail", "group": "acme", "weight": 3, "rate": None, "concurrency": None, "paused": False,
    "in_force": {"weight": 3, "rate": None, "concurrency": 5},
}  # fmt: skip
_SCHEDULE = {
    "name": "welcome-again", "queue": "mail", "type": "email.send", "payload": _PAYLOAD, "cron": "0 9 * * mon-fri", "every": None,
    "timezone": "Europe/Paris", "jitter": 30, "overlap": "skip", "catch_up": "latest", "catch_up_window": 86_400, "starts_at": None,
    "ends_at": None, "max_runs": None, "paused": False, "priority": 0, "group": None, "tags": [], "timeout": 30, "retry": None,
    "retention": None, "cost": 1, "expires_in": None, "state": "active", "words": "At 09:00 on Monday through Friday", "error": None,
    "declared_by": None, "changed_at": _AT, "next_at": "2026-11-25T08:00:00.000Z", "runs": 1, "skipped_runs": 1,
    "next": ["2026-11-25T08:00:00.000Z", "2026-11-26T08:00:00.000Z"],
    "last": [{"slot": "2026-11-24T08:00:00.000Z", "at": "2026-11-24T08:00:00.012Z", "id": "mail:welcome-again.20261124T080000Z", "state": "succeeded"}],
    "skipped": [{"slot": "2026-11-23T08:00:00.000Z", "until": None, "count": 1, "reason": "overlap", "at": "2026-11-23T08:00:00.009Z"}],
}  # fmt: skip
_ENDED = {"succeeded": 310, "cancelled": 0, "dead": 1}
_STATS = {
    "queue": "mail", "counts": _COUNTS, "oldest_wait": 1.204,
    "ended": {"1m": _ENDED, "5m": _ENDED, "1h": _ENDED}, "rates": {"1m": 5.2, "5m": 1.04, "1h": 0.09},
    "sample": {"jobs": 311, "since": _AT}, "wait": _NOTHING, "run": _NOTHING,
    "types": [{"type": "email.send", "jobs": 311, "rate": 5.2, "wait": _NOTHING, "run": None}],
}  # fmt: skip
_BULK = {"items": [{"status": 201, "id": _ID}, {"status": 200, "id": _OTHER, "duplicate": True}]}


def problem(code: str) -> dict[str, Any]:
    """An answer of this code."""
    status, title = CODES[code]
    made: dict[str, Any] = {
        "type": f"urn:scheduler:problem:{code}", "title": title, "status": status, "code": code, "detail": f"{title}.",
    }  # fmt: skip
    if code == "validation":
        made |= {
            "detail": "/priority: expected a whole number from -100 to 100",
            "errors": [{"path": "/priority", "message": "expected a whole number from -100 to 100"}],
        }
    return made


SENT: Mapping[type[Any], Any] = {
    f.NewJobFields: {"type": "email.send", "queue": "mail", "payload": _PAYLOAD, "tags": ["welcome"], "timeout": "30s",
        "expires_in": "1h", "after": [], "unique": {"key": "welcome-4711", "for": "1d", "until": "end", "on_conflict": "return"}},
    f.BulkFields: {"jobs": [{"type": "email.send", "queue": "mail", "payload": _PAYLOAD}, {"type": "demo.echo"}]},
    f.FlowFields: {
        "id": "nightly-2026-11-24", "queue": "mail",
        "jobs": [
            {"name": "load", "type": "orders.load", "payload": {"day": "2026-11-24"}},
            {"name": "bill", "type": "orders.bill", "after": ["load"]},
            {"name": "report", "type": "email.send", "payload": _PAYLOAD, "after": ["load", "bill"], "on_failure": "continue"},
        ],
    },
    f.CopyFields: {"queue": "mail-again", "delay": "5m"},
    f.JobFields: {"priority": 10, "tags": ["urgent"]},
    f.ReplayFields: {"payload": _PAYLOAD},
    f.LeaseFields: {"worker": "shell-1", "max": 10, "wait": "30s", "request_id": "41"},
    f.SettleFields: {
        "worker": "shell-1",
        "ack": [{"id": _ID, "token": 1795510802417000, "result": {"message_id": "<1@example.org>"}}],
        "nack": [{"id": _OTHER, "token": 1795510802417001, "error": {"kind": "Timeout", "message": "no answer in 30 s"}}],
    },
    f.QueueFields: {"rate": {"limit": 100, "per": "1m", "burst": 20}, "concurrency": 50, "group_concurrency": 5, "retention": {"dead": {"age": "30d", "count": 100_000}}},
    f.TypeFields: {"retry": {"max_attempts": 8, "base": "5s"}, "timeout": "30s", "schema": _SCHEMA, "concurrency": 10, "breaker": {"failure_rate": 0.5}},
    f.GroupFields: {"weight": 3, "rate": "100/m"},
    f.ReplayDeadFields: {"fingerprint": "624b85d6970f50b1", "rate": "100/m", "stop_after_failures": 5},
    f.PurgeDeadFields: {"before": "2026-10-01T00:00:00Z", "limit": 1_000},
    f.PurgeFields: {"state": "succeeded", "older_than": "7d"},
    f.ScheduleFields: {"queue": "mail", "type": "email.send", "payload": _PAYLOAD, "cron": "0 9 * * mon-fri", "timezone": "Europe/Paris", "jitter": "30s", "timeout": "30s"},
    f.OperationFields: {"act": "cancel", "queue": "mail", "filter": {"tag": "welcome", "state": "scheduled"}},
}  # fmt: skip
"""What may be sent, by its type."""

ANSWERED: Mapping[type[Any], Any] = {
    s.JobShown: _READY,
    s.JobsShown: {"items": [{name: _READY[name] for name in _READY if name not in {"payload", "result"}}], "next_cursor": None},
    s.DeadShown: {"items": [_DEAD], "next_cursor": "Zm9yd2FyZA"},
    s.GroupsShown: {
        "items": [
            {
                "fingerprint": "624b85d6970f50b1", "type": "email.send", "kind": "SMTPServerDisconnected",
                "message": "mx1.example.org hung up", "count": 19, "first_at": _AT, "last_at": _END,
            }
        ],
        "next_cursor": None,
    },
    s.ScheduleShown: _SCHEDULE,
    s.SchedulesShown: {"items": [_SCHEDULE], "next_cursor": None},
    s.PreviewShown: {"items": ["2026-11-25T08:00:00.000Z", "2026-11-26T08:00:00.000Z"]},
    s.ParentsShown: {
        "pending": 1, "succeeded": 1, "failed": 0, "next_cursor": None,
        "items": [
            {"id": "orders:load-4711", "state": "succeeded", "ended_at": _END, "result": {"rows": 12}},
            {"id": "orders:load-4712", "state": None, "ended_at": None, "result": None},
        ],
    },
    s.FlowShown: {
        "id": "mail:nightly-2026-11-24", "state": "running", "on_failure": "cancel", "created_at": _AT, "opened_at": _AT,
        "finished_at": None, "cancel_asked": False, "progress": {"total": 2, "pending": 1, "succeeded": 1, "failed": 0},
        "jobs": [
            {"name": "load", "id": "mail:nightly-2026-11-24.0", "type": "orders.load", "state": "succeeded", "reason": None,
                "after": [], "started_at": _LATER, "finished_at": _END},
            {"name": "bill", "id": "mail:nightly-2026-11-24.1", "type": "orders.bill", "state": "ready", "reason": None,
                "after": ["load"], "started_at": None, "finished_at": None},
        ],
        "more": 0,
    },
    s.OperationShown: _DONE,
    s.OperationsShown: {"items": [_DONE], "next_cursor": None},
    s.LogShown: {"items": [{"at": _LATER, "line": "connected to mx1.example.org"}], "next_cursor": None},
    s.BulkShown: _BULK,
    s.BulkLine: {"index": 3, **problem("validation")},
    s.BulkDone: {"done": True, "created": 9_998, "duplicates": 1, "failed": 1},
    s.LeaseShown: {"jobs": [_RUNNING]},
    s.SettledShown: {"items": [{"id": _ID, "ok": True, "state": "succeeded"}, {"id": _OTHER, "ok": False, "code": "stale_lease"}]},
    s.WorkersShown: {"items": [_WORKER], "next_cursor": None},
    s.QueueShown: _QUEUE,
    s.QueuesShown: {"items": [_QUEUE], "next_cursor": None},
    s.TypeShown: _TYPE,
    s.TypesShown: {"items": [_TYPE], "next_cursor": None},
    s.GroupPolicyShown: _GROUP,
    s.GroupPoliciesShown: {"items": [_GROUP], "next_cursor": None},
    s.ExplainShown: {
        "id": _ID, "state": "ready", "position": 13, "approximate": True,
        "reasons": [
            {
                "code": "concurrency_limited", "message": f"of type email.send 1 run and 1 may: {_OTHER} on shell-1", "until": None,
                "holders": [{"id": _OTHER, "worker": "shell-1"}],
            },
            {"code": "rate_limited", "message": f"group acme may start no more until {_LATER}", "until": _LATER, "holders": []},
            {"code": "behind", "message": "about 12 jobs are before it", "until": None, "holders": []},
        ],
    },
    s.DemandShown: {
        "queue": "mail", "runnable": 240, "oldest_runnable_wait": 1.204,
        "held": {
            "queue_paused": 0, "type_paused": 60, "group_paused": 0, "rate_limited": 40, "concurrency_limited": 0, "breaker_open": 0,
        },
        "work_seconds": 288, "mean_run": 1.2, "slots": {"used": 25, "total": 400}, "workers": 4, "approximate": False,
    },
    s.StatsShown: {"items": [_STATS], "next_cursor": None},
    s.AliveShown: {"status": "alive"},
    s.ReadyShown: {"status": "ready", "redis": {"version": "valkey 9.1.2", "role": "master"}, "layout": LAYOUT},
    s.Problem: problem("not_found"),
}  # fmt: skip
"""What may be answered, by its type."""

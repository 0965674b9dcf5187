"""What no JSON Schema can say of a request, and the document says in words; all else that Schemathesis finds is a failure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

import schemathesis
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.openapi.checks import RejectedPositiveData, UseAfterFree

IN_WORDS = {
    "a cursor is one that was answered": r"/cursor",
    "text of a duration has bounds": r"(/.*)?/(delay|timeout|retention|wait|lease|age|base|max_delay|retry_in|older_than|per|aging|window|open_for|deadline|expires_in|jitter|every|catch_up_window|for)",
    "a time lies between now and ten years, and is one of the calendar": r"(/.*)?/(run_at|before|starts_at|ends_at)",
    "names in a flow are of one job each": r"/jobs/\d+/name",
    "the name of the queue is repeated": r"/confirm",
    "an id is of the queue that is named": r"(/jobs/\d+|/ack/\d+/add/\d+)?/id|/ids/\d+",
    "groups are not filtered by time, nor carry payloads": r"/before|/include",
    "what is of a replay is of no other act, and each act has its states": r"/payload_patch|/into|/rate|/stop_after_failures|/filter/state",
    "ids or a filter; a fingerprint is of a dead job": r"/ids|/filter|/filter/fingerprint",
    "a schema is valid by its own standard, and names nothing elsewhere": r"/schema(/.*)?",
    "a payload fits the schema of its type": r"/payload(/.*)?",
    "code declares what it can keep: a pause is set by people": r"/paused",
    "a schedule has an expression that comes due, or a period, and a zone that there is": r"/cron|/timezone",
    "a rate is of at most a million in a second": r"/rate|/group_rate",
    "an Idempotency-Key belongs to one request": r"/Idempotency-Key",
    "who slows a type or a group says for how long": r"/nack/\d+/scope",
    "what is waited for is there, and stays": r"(/jobs/\d+)?/(after|before)/\d+|(/jobs/\d+)?/on_failure",
    "all items of a call together have a limit": r"/(ack|nack|release|extend)",
}  # fmt: skip
"""Why a request that the document's schemas allow may be refused as a 422, and where it says so."""


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext,
    failure: Failure,
    case: schemathesis.Case,
    response: schemathesis.Response,
) -> bool:
    """False for what is no failure."""
    if isinstance(failure, RejectedPositiveData):
        # An ETag that nobody has answered fits nothing that stands.
        return response.status_code != 412 and not _said_in_words(_pointers(response))
    if isinstance(failure, UseAfterFree) and "/groups/" in case.operation.path:
        # DELETE forgets a group's policy; the group is there as long as anybody names it.
        return False
    if isinstance(failure, AcceptedNegativeData) and case.operation.path == "/v1/jobs/bulk":
        # An item is refused at its place.
        return all(item["status"] < 400 for item in json.loads(response.content)["items"])
    return True


def _pointers(response: schemathesis.Response) -> list[str]:
    if response.status_code != 422:
        return []
    return [fault["path"] for fault in json.loads(response.content)["errors"]]


def _said_in_words(pointers: Iterable[str]) -> bool:
    found = [any(re.fullmatch(rule, pointer) for rule in IN_WORDS.values()) for pointer in pointers]
    return bool(found) and all(found)

"""Operations: acts over all jobs of a queue that match, which run on the server."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Literal

import msgspec
from aiohttp import web
from msgspec import Raw, UnsetType

from ..errors import Fault, Invalid, NotFound, StoreUnavailable, WrongState
from ..fields import (
    FilterFields,
    Nothing,
    OperationFields,
    PurgeDeadFields,
    PurgeFields,
    Rate,
    RateFields,
    ReplayDeadFields,
)
from ..job import LONGEST_DELAY_MS, State, split_id
from ..keys import JOB_KEY, QUEUE_NAME
from ..limits import Rate as RateLimit
from ..limits import parse_rate
from ..operations import MOST_PATCH, WHERE, Plan, document
from ..outcomes import Operation
from ..shown import OperationShown, OperationsShown
from ..times import duration_ms, parse_rfc3339
from .jobs import read_with
from .pages import PAGE, cursor, cursor_of, limit_of
from .parts import OPERATIONS, SETTINGS, STORE
from .routes import Param, Table, json_answer, with_payload

table = Table()

_QUEUE = {"queue": Param({"type": "string", "pattern": f"^{QUEUE_NAME.pattern}$"}, "Of this queue.")}
_OPERATION_ID = re.compile("[A-Za-z0-9-]{1,64}")
_REPLAY_ONLY = ("rate", "payload_patch", "stop_after_failures", "into")


@table.add(
    "POST", "/v1/operations", {202: OperationShown}, body=OperationFields, limit=with_payload,
    codes=("not_found", "wrong_state"), headers=("Location",),
)  # fmt: skip
async def operate(request: web.Request, fields: OperationFields) -> web.Response:
    """Cancel, purge, run or replay all jobs of a queue that match: it runs on the server, page by page.

    It acts on each once, whoever carries it on when a process dies, and on what stood when it began only. `purge` needs
    a `filter.state`. `rate`, `payload_patch`, `stop_after_failures` and `into` are for `replay`.
    """
    faults: list[Fault] = []
    found = fields.filter or FilterFields()
    plan = Plan(
        act=fields.act,
        states=_states(fields, found, faults),
        type=found.type or "",
        group=found.group or "",
        tag=found.tag or "",
        error=found.error or "",
        kind=found.kind or "",
        fingerprint=found.fingerprint or "",
        before_ms=read_with(found.before, "/filter/before", parse_rfc3339, faults),
        ids=keys_of(fields.ids, fields.queue, faults),
        limit=_whole(fields.limit, "/limit", faults),
        dry_run=fields.dry_run,
        rate=rate_of(fields.rate, faults),
        payload_patch=patch_of(fields.payload_patch, faults),
        to_queue="" if fields.into in {None, fields.queue} else fields.into or "",
        max_payload=request.app[SETTINGS].max_payload,
        stop_after_failures=_whole(fields.stop_after_failures, "/stop_after_failures", faults, 500),
    )
    if fields.act != "replay":
        said = (name for name in _REPLAY_ONLY if getattr(fields, name) not in (None, msgspec.UNSET))
        faults += [Fault(f"/{name}", "this is for replay") for name in said]
    if found.fingerprint is not None and plan.states != (State.DEAD,):
        faults.append(Fault("/filter/fingerprint", "only dead jobs have one"))
    if fields.ids is not None and fields.filter is not None:
        faults.append(Fault("/filter", "either ids or a filter"))
    for name, path in ((fields.queue, "/queue"), (fields.into, "/into"), (found.type, "/filter/type")):
        _check(name, path, faults)
    for key, path in ((found.group, "/filter/group"), (found.tag, "/filter/tag")):
        if key is not None and not JOB_KEY.fullmatch(key):
            faults.append(Fault(path, "1 to 128 letters, digits, '.', '_' or '-'"))
    _check_kind(found.error, "/filter/error", faults)
    _check_kind(found.kind, "/filter/kind", faults)
    _check_fingerprint(found.fingerprint, "/filter/fingerprint", faults)
    if faults:
        raise Invalid(faults)
    operations = request.app[OPERATIONS]
    operation = await operations.begin(fields.queue, plan)
    operations.carry_behind(operation)
    return shown(operation, 202)


@table.add("GET", "/v1/operations", {200: OperationsShown}, query={**_QUEUE, **PAGE})
async def list_operations(request: web.Request, _: None) -> web.Response:
    """Operations, newest first, a page at a time. A queue keeps its last hundred."""
    store, queue = request.app[STORE], request.query.get("queue")
    of = ["operations", queue or ""]
    limit, at = limit_of(request), cursor_of(request, of)
    if queue is not None and not QUEUE_NAME.fullmatch(queue):
        raise Invalid([Fault("/queue", "this is no name of a queue")])
    queues = await store.queues() if queue is None else [queue]
    found: list[Operation] = []
    for replies in await store.run_all([store.operations_call(name) for name in queues]) if queues else []:
        if isinstance(replies, Exception):
            raise replies
        found += replies
    found.sort(key=_order, reverse=True)
    rest = found if at is None else [one for one in found if _order(one) < (int(at[0]), at[1])]
    page = rest[:limit]
    following = cursor(of, [str(part) for part in _order(page[-1])]) if len(rest) > len(page) else None
    return json_answer({"items": [document(one) for one in page], "next_cursor": following})


@table.add("GET", "/v1/operations/{operation}", {200: OperationShown}, codes=("not_found",))
async def get_operation(request: web.Request, _: None) -> web.Response:
    """How far an operation is."""
    queue, its_id = _its_id(request)
    operation = await request.app[STORE].operation(queue, its_id)
    if operation is None:
        raise NotFound(f"there is no operation {queue}:{its_id}")
    return json_answer(document(operation))


@table.add(
    "POST", "/v1/operations/{operation}/cancel", {200: OperationShown}, body=Nothing, optional=True,
    codes=("not_found", "wrong_state"),
)  # fmt: skip
async def cancel_operation(request: web.Request, __: Nothing) -> web.Response:
    """Stop an operation between two pages: what it has done stays done."""
    queue, its_id = _its_id(request)
    _, operation = await request.app[STORE].operate("cancel", queue, its_id)
    if operation is None:
        raise NotFound(f"there is no operation {queue}:{its_id}")
    if operation.state != "cancelled":
        raise WrongState(f"operation {queue}:{its_id} has ended: it is {operation.state}", operation.state)
    return json_answer(document(operation))


async def at_once(request: web.Request, queue: str, plan: Plan) -> web.Response:
    """Begins an operation: 200 with its end when one page sufficed, else 202, and it goes on behind the answer."""
    operations = request.app[OPERATIONS]
    operation = await operations.begin(queue, plan)
    # A page that waits, for its jobs or its rate, is not waited for.
    if plan.dry_run or (plan.rate is None and plan.stop_after_failures is None):
        # It has begun, and somebody carries it on when the store is back.
        with contextlib.suppress(StoreUnavailable):
            operation = await operations.first_page(operation)
    if operation.ended:
        return shown(operation, 200)
    operations.carry_behind(operation)
    return shown(operation, 202)


def plan_of_dead(
    request: web.Request, act: Literal["purge", "replay"], queue: str, fields: PurgeDeadFields
) -> Plan:
    """What is to be done with dead jobs. Raises Invalid."""
    faults: list[Fault] = []
    plan = Plan(
        act=act,
        states=(State.DEAD,),
        type=fields.type or "",
        kind=fields.kind or "",
        fingerprint=fields.fingerprint or "",
        before_ms=read_with(fields.before, "/before", parse_rfc3339, faults),
        ids=keys_of(fields.ids, queue, faults),
        limit=_whole(fields.limit, "/limit", faults),
        dry_run=fields.dry_run,
    )
    if isinstance(fields, ReplayDeadFields):
        plan = msgspec.structs.replace(
            plan,
            rate=rate_of(fields.rate, faults),
            payload_patch=patch_of(fields.payload_patch, faults),
            to_queue="" if fields.queue is None or fields.queue == queue else fields.queue,
            max_payload=request.app[SETTINGS].max_payload,
            stop_after_failures=_whole(fields.stop_after_failures, "/stop_after_failures", faults, 500),
        )
        _check(fields.queue, "/queue", faults)
    if fields.ids is not None and any((plan.type, plan.kind, plan.fingerprint, fields.before)):
        faults.append(Fault("/ids", "either ids or filters"))
    _check(fields.type, "/type", faults)
    _check_kind(fields.kind, "/kind", faults)
    _check_fingerprint(fields.fingerprint, "/fingerprint", faults)
    if faults:
        raise Invalid(faults)
    return plan


def plan_of_purge(fields: PurgeFields) -> Plan:
    """Which jobs of a queue are to go. Raises Invalid."""
    faults: list[Fault] = []
    if fields.state not in WHERE["purge"]:
        faults.append(Fault("/state", "a running job cannot be purged: cancel it first"))
    age = read_with(fields.older_than, "/older_than", duration_ms, faults)
    if age is not None and age > LONGEST_DELAY_MS:
        faults.append(Fault("/older_than", "at most 10 years"))
    _check(fields.type, "/type", faults)
    limit = _whole(fields.limit, "/limit", faults)
    if faults:
        raise Invalid(faults)
    return Plan(
        act="purge",
        states=(fields.state,),
        type=fields.type or "",
        age_ms=age,
        limit=limit,
        dry_run=fields.dry_run,
    )


# -- reading what was sent -----------------------------------------------------------------------------------


def _states(fields: OperationFields, found: FilterFields, faults: list[Fault]) -> tuple[str, ...]:
    states: tuple[str, ...] = WHERE[fields.act]
    if found.state is not None:
        if found.state not in states:
            faults.append(Fault("/filter/state", f"{fields.act} takes {', '.join(dict.fromkeys(states))}"))
        return (found.state,)
    if fields.act == "purge" and fields.ids is None:
        faults.append(Fault("/filter/state", "purge needs the state of the jobs that are to go"))
    if found.fingerprint is not None and fields.act == "purge":
        return (State.DEAD,)
    return states


def _check(name: str | None, path: str, faults: list[Fault]) -> None:
    """What cannot be a name would only find nothing."""
    if name is not None and not QUEUE_NAME.fullmatch(name):
        faults.append(Fault(path, "1 to 64 letters, digits, '.', '_' or '-', a letter or digit first"))


def _check_kind(text: str | None, path: str, faults: list[Fault]) -> None:
    if text is not None and not 1 <= len(text) <= 200:
        faults.append(Fault(path, "1 to 200 characters"))


def _check_fingerprint(text: str | None, path: str, faults: list[Fault]) -> None:
    if text is not None and not re.fullmatch("[0-9a-f]{16}", text):
        faults.append(Fault(path, "expected 16 hexadecimal digits"))


def keys_of(ids: Sequence[str] | None, queue: str, faults: list[Fault]) -> tuple[str, ...]:
    """The keys of jobs of this queue, each given as key or whole id."""
    if ids is None:
        return ()
    if not 1 <= len(ids) <= 1000:
        faults.append(Fault("/ids", "expected 1 to 1000 ids"))
        return ()
    keys = []
    for n, text in enumerate(ids):
        whole = split_id(text) if ":" in text else (queue, text)
        if whole is None or whole[0] != queue or not JOB_KEY.fullmatch(whole[1]):
            faults.append(Fault(f"/ids/{n}", f"this is no id of a job of {queue}"))
        else:
            keys.append(whole[1])
    return tuple(dict.fromkeys(keys))


def patch_of(said: Raw | UnsetType, faults: list[Fault]) -> Raw | UnsetType:
    if isinstance(said, Raw) and len(bytes(said)) > MOST_PATCH:
        faults.append(Fault("/payload_patch", f"at most {MOST_PATCH // 1024} KiB"))
    return said


def rate_of(said: Rate | None, faults: list[Fault]) -> RateLimit | None:
    if said is None:
        return None
    try:
        return parse_rate((said.limit, said.per) if isinstance(said, RateFields) else said)
    except ValueError as error:
        faults.append(Fault("/rate", str(error)))
        return None


def _whole(value: float | None, path: str, faults: list[Fault], most: int = 2**53 - 1) -> int | None:
    if value is None:
        return None
    if value != int(value) or not 1 <= value <= most:
        faults.append(Fault(path, f"expected a whole number from 1 to {most}"))
        return None
    return int(value)


def _its_id(request: web.Request) -> tuple[str, str]:
    queue, _, its_id = request.match_info["operation"].partition(":")
    if not QUEUE_NAME.fullmatch(queue) or not _OPERATION_ID.fullmatch(its_id):
        raise NotFound("there is no such operation: an id is written as <queue>:<id>")
    return queue, its_id


# -- documents -----------------------------------------------------------------------------------------------


def _order(operation: Operation) -> tuple[int, str]:
    return operation.began_at, f"{operation.queue}:{operation.id}"


def shown(operation: Operation, status: int) -> web.Response:
    """An operation as the answer to the call that began it."""
    headers = {"Location": f"/v1/operations/{operation.queue}:{operation.id}"} if status == 202 else {}
    return json_answer(document(operation), status, headers)

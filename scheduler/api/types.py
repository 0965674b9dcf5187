"""The policies of a queue's types: as set here, and as in force with what workers' code declares."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from aiohttp import web
from msgspec import UnsetType
from orjson import Fragment

from .. import retry as retry_policy
from ..errors import Changed, Fault, Invalid, NotFound
from ..fields import Nothing, RetryFields, TypeFields
from ..limits import BreakerState, in_force
from ..outcomes import Census, TypePolicy
from ..schemas import SchemaInvalid, compiled
from ..shown import TypeShown, TypesShown
from ..store import Store
from ..times import seconds
from .jobs import retry_of
from .limits import at_once, breaker_of, changed, rate_of, shown, within
from .pages import PAGE, page_of
from .parts import SCHEMAS, STORE
from .routes import Param, Table, json_answer, queue_name, type_name
from .versions import etag, expected

table = Table()

_PATH = "/v1/queues/{queue}/types/{type}"
_NOBODY = TypePolicy()
_DECLARED = {
    "declared": Param(
        {"type": "string", "enum": ["true"]},
        "What the code of a worker says of its handlers: it holds where nobody has set anything else.",
    )
}


@table.add("GET", "/v1/queues/{queue}/types", {200: TypesShown}, query=PAGE, codes=("not_found",))
async def list_types(request: web.Request, _: None) -> web.Response:
    """The types of a queue that somebody said something about, by name, a page at a time."""
    store, queue = request.app[STORE], queue_name(request)
    await store.census(queue)
    found = await store.types(queue)
    page, cursor = page_of(request, sorted(found))
    states = await _states(store, queue, {name: found[name] for name in page})
    items = [document(queue, name, *found[name], states.get(name)) for name in page]
    return json_answer({"items": items, "next_cursor": cursor})


@table.add("GET", _PATH, {200: TypeShown, 304: None}, codes=("not_found",), headers=("ETag",))
async def get_type(request: web.Request, _: None) -> web.Response:
    """A type's policy."""
    queue, name = queue_name(request), type_name(request)
    store = request.app[STORE]
    census, as_set, declared = await _standing(store, queue, name)
    if as_set is None and declared == _NOBODY:
        raise _unknown(queue, name)
    return await _answer(store, queue, name, as_set, declared, census.version)


@table.add(
    "PUT",
    _PATH,
    {200: TypeShown, 201: TypeShown},
    body=TypeFields,
    query=_DECLARED,
    codes=("precondition_failed",),
    headers=("ETag",),
)
async def put_type(request: web.Request, fields: TypeFields) -> web.Response:
    """Set a type's policy: what is left out is as its code declares it, or as by default.

    With `declared` a worker tells what its code says, as workers beside the store do when they start.
    """
    queue, name = queue_name(request, new=True), type_name(request, new=True)
    if _is_declared(request):
        return await _declare(request, queue, name, _policy(fields))
    _policy(fields)  # what is wrong is said without the store
    store = request.app[STORE]
    census, before, declared = await _maybe_standing(store, queue, name)
    policy = _policy(fields, declared=declared)
    expect = expected(request, census.version if census and before else None)
    if expect is not None and census:
        expect = census.version  # that of the queue, which has others besides this type
    version = await store.configure_type(queue, name, policy, expect=expect)
    request.app[SCHEMAS].changed(queue)
    return await _answer(store, queue, name, policy, declared, version, 200 if before else 201)


async def _declare(request: web.Request, queue: str, name: str, policy: TypePolicy) -> web.Response:
    if policy.paused:
        raise Invalid([Fault("/paused", "code declares no pause")])
    store = request.app[STORE]
    census, as_set, before = await _maybe_standing(store, queue, name)
    version = census.version if census else None
    expect = expected(request, version if before != _NOBODY else None)
    expect = None if expect is None else version or 0
    if version is None or policy.record() != before.record():
        version = await store.configure_type(queue, name, policy, declared=True, expect=expect)
    return await _answer(store, queue, name, as_set, policy, version, 201 if before == _NOBODY else 200)


def _is_declared(request: web.Request) -> bool:
    if (said := request.query.get("declared")) not in {None, "true"}:
        raise Invalid([Fault("/declared", "expected true")])
    return said is not None


@table.add(
    "PATCH",
    _PATH,
    {200: TypeShown},
    body=TypeFields,
    codes=("not_found", "precondition_failed"),
    headers=("ETag",),
)
async def patch_type(request: web.Request, fields: TypeFields) -> web.Response:
    """Change a type's policy: what is left out stays, null lifts."""
    queue, name = queue_name(request), type_name(request)
    return await _patched(request, queue, name, fields)


async def _patched(request: web.Request, queue: str, name: str, fields: TypeFields) -> web.Response:
    """Merges fields into what is set. Raises NotFound, Changed."""
    store = request.app[STORE]
    while True:
        census, before, declared = await _standing(store, queue, name)
        if before is None and declared == _NOBODY and isinstance(fields.paused, UnsetType):
            raise _unknown(queue, name)
        policy = _policy(fields, before or _NOBODY, declared)
        expected(request, census.version)
        if policy == before or (before is None and policy == _NOBODY):
            return await _answer(store, queue, name, before, declared, census.version)
        # It was merged into what stood a moment ago; somebody else's change in between is merged into anew.
        with suppress(Changed):
            version = await store.configure_type(queue, name, policy, expect=census.version)
            request.app[SCHEMAS].changed(queue)
            return await _answer(store, queue, name, policy, declared, version)


@table.add(
    "POST", f"{_PATH}/pause", {200: TypeShown}, body=Nothing, optional=True,
    codes=("not_found", "precondition_failed"), headers=("ETag",),
)  # fmt: skip
async def pause_type(request: web.Request, _: Nothing) -> web.Response:
    """Claim no more jobs of a type. What runs goes on."""
    return await _patched(request, queue_name(request), type_name(request), TypeFields(paused=True))


@table.add(
    "POST", f"{_PATH}/resume", {200: TypeShown}, body=Nothing, optional=True,
    codes=("not_found", "precondition_failed"), headers=("ETag",),
)  # fmt: skip
async def resume_type(request: web.Request, _: Nothing) -> web.Response:
    """Let jobs of a paused type be claimed again."""
    return await _patched(request, queue_name(request), type_name(request), TypeFields(paused=False))


@table.add(
    "POST", f"{_PATH}/breaker/reset", {200: TypeShown}, body=Nothing, optional=True,
    codes=("not_found",), headers=("ETag",),
)  # fmt: skip
async def reset_breaker(request: web.Request, _: Nothing) -> web.Response:
    """Close a type's breaker, and forget what it counted: jobs that wait for it can be claimed at once."""
    queue, name, store = queue_name(request), type_name(request), request.app[STORE]
    census, as_set, declared = await _standing(store, queue, name)
    if as_set is None and declared == _NOBODY:
        raise _unknown(queue, name)
    await store.reset(queue, name)
    return await _answer(store, queue, name, as_set, declared, census.version)


@table.add("DELETE", _PATH, {204: None}, codes=("not_found", "precondition_failed"))
async def delete_type(request: web.Request, _: None) -> web.Response:
    """Forget what was set for a type; what its code declares, and the defaults, hold again."""
    queue, name = queue_name(request), type_name(request)
    store = request.app[STORE]
    census, before, _declared = await _standing(store, queue, name)
    if before is None:
        raise _unknown(queue, name)
    await store.configure_type(queue, name, None, expect=expected(request, census.version))
    request.app[SCHEMAS].changed(queue)
    return web.Response(status=204)


async def _standing(store: Store, queue: str, name: str) -> tuple[Census, TypePolicy | None, TypePolicy]:
    """The queue, its type's policy as set (None: not at all) and as declared. Raises NotFound."""
    census, as_set, declared = await _maybe_standing(store, queue, name)
    if census is None:
        census = await store.census(queue)
    return census, as_set, declared


async def _maybe_standing(
    store: Store, queue: str, name: str
) -> tuple[Census | None, TypePolicy | None, TypePolicy]:
    census = await store.run(store.census_call(queue))
    if census is None:
        return None, None, _NOBODY
    [(as_set, declared)] = await store.run(store.policies_call(queue, [name]))
    return census, as_set, declared or _NOBODY


def _unknown(queue: str, name: str) -> NotFound:
    return NotFound(f"nothing is set for the type {name!r} of the queue {queue!r}")


def _policy(fields: TypeFields, before: TypePolicy = _NOBODY, declared: TypePolicy = _NOBODY) -> TypePolicy:
    """What was set, changed in what was said. Raises Invalid with all that is wrong."""
    faults: list[Fault] = []
    policy = TypePolicy(
        timeout_ms=_timeout(fields, before, faults),
        retry=_retry(fields, before, faults),
        schema=_schema(fields, before, faults),
        rate=changed(fields.rate, before.rate, declared.rate, lambda v: rate_of(v, "/rate", faults)),
        concurrency=changed(
            fields.concurrency, before.concurrency, declared.concurrency,
            lambda v: at_once(v, "/concurrency", faults),
        ),
        paused=before.paused if isinstance(fields.paused, UnsetType) else bool(fields.paused),
        breaker=changed(
            fields.breaker, before.breaker, declared.breaker, lambda v: breaker_of(v, before.breaker, faults)
        ),
    )  # fmt: skip
    if faults:
        raise Invalid(faults)
    return policy


def _timeout(fields: TypeFields, before: TypePolicy, faults: list[Fault]) -> int | None:
    value = fields.timeout
    if isinstance(value, UnsetType):
        return before.timeout_ms
    return None if value is None else within(value, "/timeout", 1, retry_policy.LONGEST_TIMEOUT_MS, faults)


def _retry(fields: TypeFields, before: TypePolicy, faults: list[Fault]) -> dict[str, Any] | None:
    value = fields.retry
    stood = dict(before.retry or {})
    if isinstance(value, UnsetType):
        return stood or None
    if not isinstance(value, RetryFields):
        return None
    for name in retry_policy.DEFAULTS:
        if getattr(value, name) is None:
            stood.pop(name, None)
    return stood | (retry_of(value, faults) or {}) or None


def _schema(fields: TypeFields, before: TypePolicy, faults: list[Fault]) -> bytes | None:
    value = fields.schema
    if isinstance(value, UnsetType):
        return before.schema
    text = bytes(value).strip()
    if text == b"null":
        return None
    try:
        compiled(text)
    except SchemaInvalid as error:
        faults.append(Fault(f"/schema{error.path}", str(error)))
    return text


async def _answer(
    store: Store, queue: str, name: str, as_set: TypePolicy | None, declared: TypePolicy, version: int,
    status: int = 200,
) -> web.Response:  # fmt: skip
    policy = as_set or _NOBODY
    states = await _states(store, queue, {name: (policy, declared)})
    return json_answer(document(queue, name, policy, declared, states.get(name)), status, etag(version))


async def _states(
    store: Store, queue: str, policies: Mapping[str, tuple[TypePolicy, TypePolicy]]
) -> dict[str, BreakerState]:
    """How those of these types stand that have a breaker."""
    said = {name: in_force(as_set.breaker, declared.breaker) for name, (as_set, declared) in policies.items()}
    return await store.breakers(queue, {name: breaker for name, breaker in said.items() if breaker})


def document(
    queue: str, name: str, as_set: TypePolicy, declared: TypePolicy, state: BreakerState | None = None
) -> dict[str, Any]:
    """A type's policy as documents show it."""
    timeouts = [ms for ms in (as_set.timeout_ms, declared.timeout_ms) if ms is not None]
    return {
        "queue": queue,
        "type": name,
        "retry": retry_policy.shown(as_set.retry or {}),
        "timeout": None if as_set.timeout_ms is None else seconds(as_set.timeout_ms),
        "schema": None if as_set.schema is None else Fragment(as_set.schema),
        "rate": shown(as_set.rate),
        "concurrency": shown(as_set.concurrency),
        "paused": as_set.paused,
        "breaker": shown(as_set.breaker),
        "breaker_state": None if state is None else state.document(),
        "in_force": {
            "retry": retry_policy.shown(retry_policy.in_force(declared.retry or {}, as_set.retry or {})),
            "timeout": seconds(timeouts[0] if timeouts else retry_policy.DEFAULT_TIMEOUT_MS),
            "rate": shown(in_force(as_set.rate, declared.rate)),
            "concurrency": shown(in_force(as_set.concurrency, declared.concurrency)),
            "breaker": shown(in_force(as_set.breaker, declared.breaker)),
        },
    }

"""The policies of a queue's groups: as set here, and as in force with what the queue has for all of them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from aiohttp import web
from msgspec import UnsetType

from ..errors import Changed, Fault, Invalid
from ..fields import GroupFields, Nothing
from ..limits import HEAVIEST, GroupPolicy, in_force, rate_of_text
from ..outcomes import Census
from ..shown import GroupPoliciesShown, GroupPolicyShown
from .limits import at_once, changed, rate_of, shown, whole_of
from .pages import PAGE, page_of
from .parts import STORE
from .routes import Table, group_name, json_answer, queue_name
from .versions import etag, expected

table = Table()

_PATH = "/v1/queues/{queue}/groups/{group}"


@table.add("GET", "/v1/queues/{queue}/groups", {200: GroupPoliciesShown}, query=PAGE, codes=("not_found",))
async def list_groups(request: web.Request, _: None) -> web.Response:
    """The groups of a queue that have a policy of their own, by name, a page at a time."""
    store, queue = request.app[STORE], queue_name(request)
    census = await store.census(queue)
    found = await store.group_policies(queue)
    page, cursor = page_of(request, sorted(found))
    return json_answer(
        {"items": [document(queue, name, found[name], census) for name in page], "next_cursor": cursor}
    )


@table.add("GET", _PATH, {200: GroupPolicyShown, 304: None}, codes=("not_found",), headers=("ETag",))
async def get_group(request: web.Request, _: None) -> web.Response:
    """A group's policy. A group that was given none has one that says nothing."""
    queue, name = queue_name(request), group_name(request)
    census = await request.app[STORE].census(queue)
    policy = await request.app[STORE].group_policy(queue, name)
    return json_answer(document(queue, name, policy, census), headers=etag(census.version))


@table.add(
    "PATCH", _PATH, {200: GroupPolicyShown}, body=GroupFields,
    codes=("not_found", "precondition_failed"), headers=("ETag",),
)  # fmt: skip
async def patch_group(request: web.Request, fields: GroupFields) -> web.Response:
    """Change a group's policy: what is left out stays, null lifts. One that says nothing any more is forgotten."""
    return await _patched(request, fields)


@table.add("DELETE", _PATH, {204: None}, codes=("not_found", "precondition_failed"))
async def delete_group(request: web.Request, _: None) -> web.Response:
    """Forget what was set for a group; what its queue has for all groups holds again."""
    queue, name = queue_name(request), group_name(request)
    store = request.app[STORE]
    census = await store.census(queue)
    await store.configure_group(queue, name, GroupPolicy(), expect=expected(request, census.version))
    return web.Response(status=204)


@table.add(
    "POST", f"{_PATH}/pause", {200: GroupPolicyShown}, body=Nothing, optional=True,
    codes=("not_found", "precondition_failed"), headers=("ETag",),
)  # fmt: skip
async def pause_group(request: web.Request, _: Nothing) -> web.Response:
    """Claim no more jobs of a group. What runs goes on."""
    return await _patched(request, GroupFields(paused=True))


@table.add(
    "POST", f"{_PATH}/resume", {200: GroupPolicyShown}, body=Nothing, optional=True,
    codes=("not_found", "precondition_failed"), headers=("ETag",),
)  # fmt: skip
async def resume_group(request: web.Request, _: Nothing) -> web.Response:
    """Let jobs of a paused group be claimed again."""
    return await _patched(request, GroupFields(paused=False))


async def _patched(request: web.Request, fields: GroupFields) -> web.Response:
    store, queue, name = request.app[STORE], queue_name(request), group_name(request, new=True)
    while True:
        # The version first: what changes after it is told by it.
        census = await store.census(queue)
        before = await store.group_policy(queue, name)
        policy = _policy(fields, before, census)
        expected(request, census.version)
        if policy == before:
            return json_answer(document(queue, name, policy, census), headers=etag(census.version))
        with suppress(Changed):
            version = await store.configure_group(queue, name, policy, expect=census.version)
            return json_answer(document(queue, name, policy, census), headers=etag(version))


def _policy(fields: GroupFields, before: GroupPolicy, census: Census) -> GroupPolicy:
    """What was set, changed in what was said. Raises Invalid with all that is wrong."""
    faults: list[Fault] = []
    for_all = _for_all(census)
    weight = before.weight
    if not isinstance(fields.weight, UnsetType):
        weight = whole_of(fields.weight, "/weight", 1, HEAVIEST, faults)
    policy = GroupPolicy(
        weight=weight,
        concurrency=changed(
            fields.concurrency, before.concurrency, for_all.concurrency,
            lambda v: at_once(v, "/concurrency", faults),
        ),
        rate=changed(fields.rate, before.rate, for_all.rate, lambda v: rate_of(v, "/rate", faults)),
        paused=before.paused if isinstance(fields.paused, UnsetType) else bool(fields.paused),
    )  # fmt: skip
    if faults:
        raise Invalid(faults)
    return policy


def _for_all(census: Census) -> GroupPolicy:
    """What the queue has for all groups."""
    config = census.config
    slots = config.get("group_concurrency")
    return GroupPolicy(1, int(slots) if slots else None, rate_of_text(config.get("group_rate", "")))


def document(queue: str, name: str, policy: GroupPolicy, census: Census) -> dict[str, Any]:
    """A group's policy as documents show it."""
    for_all = _for_all(census)
    return {
        "queue": queue,
        "group": name,
        "weight": policy.weight,
        "rate": shown(policy.rate),
        "concurrency": shown(policy.concurrency),
        "paused": policy.paused,
        "in_force": {
            "weight": policy.weight or for_all.weight,
            "rate": shown(in_force(policy.rate, for_all.rate)),
            "concurrency": shown(in_force(policy.concurrency, for_all.concurrency)),
        },
    }

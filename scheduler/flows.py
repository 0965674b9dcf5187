"""Flows as doors need them: put one in, look at its graph, wait for its end, cancel it, replay what died in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct, convert

from .calling import BATCH, batches
from .errors import NotFound, WrongState
from .flow import LARGEST_FLOW, Listed, Plan
from .job import Job, split_id
from .outcomes import Flow, Parent
from .store import Store
from .times import rfc3339

if TYPE_CHECKING:
    from .shown import FlowShown

MOST_SHOWN = LARGEST_FLOW + 1_000
"""Jobs of a flow that are shown: all that it was made of, and of those that its jobs have added a thousand."""

LOOK_EVERY = 1.0
"""Seconds between looks at a flow whose end somebody waits for; the first ones come sooner."""


class Part(Struct, frozen=True):
    """A job of a flow as it stands. Times are ms; `name` is None for one that another has added, `state` where nobody knows."""

    id: str
    name: str | None
    type: str | None
    after: Sequence[str]
    """Names of those that it waits for."""
    state: str | None
    reason: str | None = None
    started_at: int | None = None
    finished_at: int | None = None


class FlowSeen(Struct, frozen=True):
    """A flow with its jobs, as they were given; then those that these have added, up to a bound."""

    flow: Flow
    parts: Sequence[Part]
    more: int = 0
    """Jobs that are not shown."""

    def document(self) -> dict[str, Any]:
        """As documents show it."""
        flow = self.flow
        return {
            **outline(flow),
            "jobs": [
                {
                    "name": part.name, "id": part.id, "type": part.type, "state": part.state, "reason": part.reason,
                    "after": part.after, "started_at": _time(part.started_at), "finished_at": _time(part.finished_at),
                }
                for part in self.parts
            ],
            "more": self.more,
        }  # fmt: skip


def outline(flow: Flow) -> dict[str, Any]:
    """A flow as documents show it, without its jobs."""
    return {
        "id": flow.id, "state": flow.state, "on_failure": flow.on_failure, "created_at": rfc3339(flow.created_at),
        "opened_at": _time(flow.opened_at), "finished_at": _time(flow.finished_at), "cancel_asked": flow.cancel_asked,
        "progress": {
            "total": flow.pending + flow.succeeded + flow.failed, "pending": flow.pending, "succeeded": flow.succeeded,
            "failed": flow.failed,
        },
    }  # fmt: skip


async def stands(store: Store, queue: str, key: str) -> bool:
    """Whether there is such a flow, which can be seen."""
    try:
        await store.flow(queue, key)
    except NotFound:
        return False
    return True


async def put(store: Store, plan: Plan) -> bool:
    """Makes a flow: whether it is new, and not one that the same request has made. Raises what `create_flow` raises."""
    stood = await stands(store, plan.home, plan.key)
    await store.create_flow(plan)
    return not stood


async def look(store: Store, queue: str, key: str) -> FlowSeen:
    """A flow with the states of its jobs, in calls of a bounded size. Raises NotFound."""
    flow = await store.flow(queue, key)
    listed = await store.nodes_of_flow(queue, key)
    ends, whole = await _ends(store, queue, key)
    named = {node.id for node in listed}
    added = [Listed("", its_id, "", ()) for its_id in ends if its_id not in named]
    nodes = [*listed, *added[: MOST_SHOWN - len(listed)]]
    found = await _jobs(store, [node.id for node in nodes])
    parts = [_part(flow.id, node, found.get(node.id), ends.get(node.id)) for node in nodes]
    total = flow.pending + flow.succeeded + flow.failed
    return FlowSeen(flow, parts, 0 if whole and len(nodes) == total else max(0, total - len(nodes)))


async def wait_ended(store: Store, queue: str, key: str, seconds: float) -> Flow:
    """The flow once it has ended, or as it is after so many seconds. Raises NotFound."""
    loop = asyncio.get_running_loop()
    until, pause = loop.time() + seconds, 0.05
    while True:
        flow = await store.flow(queue, key)
        left = until - loop.time()
        if flow.state != "running" or left <= 0:
            return flow
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause, LOOK_EVERY)


async def cancel(store: Store, queue: str, key: str) -> Flow:
    """Cancels all of a flow that has not ended; what runs is asked to stop. Again for one that is cancelled: nothing.

    Raises NotFound, and WrongState for one that has succeeded or failed.
    """
    state = await store.flow_cancel(queue, key)
    if state in {"missing", "building", "undone"}:
        raise no_flow(queue, key)
    if state in {"succeeded", "failed"}:
        raise WrongState(
            f"the flow {queue}:{key} has {state}: only one that has not ended can be cancelled", state
        )
    queues = {queue: None}
    async for page in _pages(store, queue, key, "?"):
        for name, keys in _by_queue(page).items():
            queues[name] = None
            for some in batches(keys, _light):
                await store.cancel(name, some)
    await _relay(store, list(queues))
    return await store.flow(queue, key)


async def replay(store: Store, queue: str, key: str) -> int:
    """Runs the dead jobs of a flow again, and with them what was cancelled for them: how many there were.

    What somebody has cancelled stays so. Raises NotFound, and WrongState where nothing of it is dead.
    """
    flow = await store.flow(queue, key)
    queues = dict.fromkeys([queue, *(_queue_of(node.id) for node in await store.nodes_of_flow(queue, key))])
    # A death that nobody has been told of yet is one too.
    await _relay(store, list(queues))
    count = 0
    async for page in _pages(store, queue, key, "-"):
        dead = [parent for parent in page if parent.state == "dead"]
        for name, keys in _by_queue(dead).items():
            queues[name] = None
            for some in batches(keys, _light):
                outcomes = await store.replay(name, [(one, None) for one in some])
                count += outcomes.count("ready")
    if not count:
        raise WrongState(f"nothing of the flow {queue}:{key} is dead: it is {flow.state}", flow.state)
    await _relay(store, list(queues))
    return count


def no_flow(queue: str, key: str) -> NotFound:
    """There is no such flow."""
    return NotFound(f"there is no flow {queue}:{key}")


class Flows:
    """The flows of a store, as handles hold them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(self, plan: Plan) -> bool:
        """Makes a flow: whether it is new."""
        return await put(self._store, plan)

    async def show(self, queue: str, key: str, wait: float = 0) -> FlowShown:
        """The flow with its jobs, as it is after so many seconds, or sooner when it has ended."""
        if wait:
            await wait_ended(self._store, queue, key, wait)
        # The types of the API's documents take a while to be made: for who looks at a flow.
        from .shown import FlowShown  # noqa: PLC0415

        return convert((await look(self._store, queue, key)).document(), FlowShown)

    async def cancel(self, queue: str, key: str) -> FlowShown:
        """Cancels all of it that has not ended."""
        await cancel(self._store, queue, key)
        return await self.show(queue, key)

    async def replay(self, queue: str, key: str) -> FlowShown:
        """Runs what is dead in it again."""
        await replay(self._store, queue, key)
        return await self.show(queue, key)


async def _relay(store: Store, queues: Sequence[str]) -> None:
    for name in queues:
        await store.relay(name)


async def _pages(store: Store, queue: str, key: str, sign: str) -> AsyncIterator[Sequence[Parent]]:
    """What a flow waits for that stands so, a page at a time. What moves on meanwhile is met or passed over."""
    cursor = ""
    while True:
        page = await store.parents(queue, f"={key}", sign=sign, cursor=cursor, limit=BATCH)
        yield [parent for parent in page.items if split_id(parent.id) is not None]
        cursor = page.cursor
        if not cursor:
            return


async def _ends(store: Store, queue: str, key: str) -> tuple[dict[str, Parent], bool]:
    """What a flow knows of its jobs, those that ended first, up to a bound; whether that is all."""
    found: dict[str, Parent] = {}
    for sign in ("+", "-", "?"):
        async for page in _pages(store, queue, key, sign):
            found.update((parent.id, parent) for parent in page)
            if len(found) > 2 * MOST_SHOWN:
                return found, False
    return found, True


async def _jobs(store: Store, ids: Sequence[str]) -> dict[str, Job]:
    found: dict[str, Job] = {}
    by_queue: dict[str, list[str]] = {}
    for its_id in ids:
        name, _, key = its_id.partition(":")
        by_queue.setdefault(name, []).append(key)
    for name, keys in by_queue.items():
        for some in batches(keys, _light):
            found.update((job.id, job) for job in await store.inspect(name, some) if job is not None)
    return found


def _part(flow: str, node: Listed, job: Job | None, end: Parent | None) -> Part:
    name = node.name or None
    if job is not None and job.flow == flow:
        return Part(
            node.id, name, job.type, node.after, job.state.value, job.reason, job.started_at, job.finished_at
        )
    # It is gone, and another may have its id; what its flow was told of it holds.
    state = end.state if end is not None and end.state != "revived" else None
    at = end.order // 1_000 if end is not None and end.order is not None and state is not None else None
    return Part(node.id, name, node.type or None, node.after, state, finished_at=at)


def _by_queue(page: Sequence[Parent]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for parent in page:
        found.setdefault(_queue_of(parent.id), []).append(parent.id.partition(":")[2])
    return found


def _queue_of(its_id: str) -> str:
    return its_id.partition(":")[0]


def _light(_: object) -> int:
    return 100


def _time(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)

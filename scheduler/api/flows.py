"""Flows: graphs of jobs that wait for each other, put in whole, watched, cancelled, replayed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import web
from msgspec.structs import replace

from ..errors import Fault, Invalid
from ..fields import FlowFields, FlowJobFields, Nothing
from ..flow import LARGEST_FLOW, LONGEST_FLOW_KEY, Node, Plan, plan_flow
from ..flows import cancel, look, no_flow, outline, put, replay, wait_ended
from ..job import NewJob, faults_of, new_key, split_id
from ..keys import JOB_KEY, QUEUE_NAME
from ..shown import FlowShown
from .jobs import LONGEST_WAIT, WAIT, check_size, job_of, key_of
from .once import Seed, once
from .parts import ENQUEUED_ID, IDEMPOTENT_BODY, POLLS, SCHEMAS, SERVED, SETTINGS, STORE
from .problems import Refusal
from .routes import Param, Table, duration_param, json_answer, large
from .server import hang_up_cancels

table = Table()

STEP = 500
"""Jobs that are read at a time; then other requests have their turn."""

MOST_WARNINGS = 20
"""Warnings that an answer has."""

MOST_FAULTS = 100
"""Faults of one flow that are told."""

JOBS = {"jobs": Param({"type": "string", "enum": ["true", "false"]}, "`false`: the flow without its jobs.")}


@table.add(
    "POST", "/v1/flows", {201: FlowShown, 200: FlowShown},
    body=FlowFields, limit=large, codes=("duplicate", "queue_full", "store_full"), headers=("Location",), once=True,
)  # fmt: skip
async def create_flow(request: web.Request, fields: FlowFields) -> web.Response:
    """Put in a graph of jobs: all of it is there, or nothing. The same id and request again: 200, with `duplicate`.

    A job's `after` has names of this flow. A 503 with `id`: repeat it with this id as the flow's.
    """
    if IDEMPOTENT_BODY not in request:
        return await _created(request, fields, new_key())

    async def act(seed: Seed) -> tuple[web.Response, bool]:
        return await _created(request, fields, seed.key(), its_own=fields.id is None), True

    return await once(request, act)


async def _created(
    request: web.Request, fields: FlowFields, key: str, *, its_own: bool = False
) -> web.Response:
    """The answer to a new flow, of this key where it names none. One that stands is `its_own`, if nobody else knows the key."""
    plan = await plan_of(fields, key, max_payload=request.app[SETTINGS].max_payload)
    schemas = request.app[SCHEMAS]
    for n, node in enumerate(plan.nodes):
        try:
            await schemas.check(node.job.queue, node.job.type, node.job.payload)
        except Invalid as error:
            raise Invalid([_within(n, fault) for fault in error.faults]) from None
    request[ENQUEUED_ID] = plan.id
    new = await put(request.app[STORE], plan)
    document = (await look(request.app[STORE], plan.home, plan.key)).document()
    warnings = await request.app[SERVED].warnings((node.job.queue, node.job.type) for node in plan.nodes)
    if warnings:
        document["warnings"] = warnings[:MOST_WARNINGS]
    if new or its_own:
        return json_answer(document, 201, {"Location": f"/v1/flows/{plan.id}"})
    return json_answer({**document, "duplicate": True})


@table.add("GET", "/v1/flows/{flow}", {200: FlowShown}, query={**WAIT, **JOBS}, codes=("not_found",))
async def get_flow(request: web.Request, _: None) -> web.Response:
    """A flow as it is, with its jobs in the order in which they were given; with `wait`, once it has ended.

    A job keeps its state here when it is gone. Those that others have added come last, without a name, the first thousand.
    """
    queue, key = flow_id(request)
    with_jobs = _with_jobs(request)
    wait = duration_param(request, "wait", LONGEST_WAIT)
    store = request.app[STORE]
    if wait and not request.app[POLLS].stopping:
        with hang_up_cancels(request):
            async with request.app[POLLS].at_most(wait + 1):
                await wait_ended(store, queue, key, wait)
    if not with_jobs:
        return json_answer(outline(await store.flow(queue, key)))
    return json_answer((await look(store, queue, key)).document())


@table.add(
    "POST", "/v1/flows/{flow}/cancel", {200: FlowShown, 202: FlowShown},
    body=Nothing, optional=True, codes=("not_found", "wrong_state"),
)  # fmt: skip
async def cancel_flow(request: web.Request, _: Nothing) -> web.Response:
    """Cancel all jobs of a flow that have not ended. 202: some of them run, and were asked to stop."""
    queue, key = flow_id(request)
    store = request.app[STORE]
    flow = await cancel(store, queue, key)
    document = (await look(store, queue, key)).document()
    return json_answer(document, 202 if flow.state == "running" else 200)


@table.add(
    "POST", "/v1/flows/{flow}/replay", {200: FlowShown},
    body=Nothing, optional=True, codes=("not_found", "wrong_state"),
)  # fmt: skip
async def replay_flow(request: web.Request, _: Nothing) -> web.Response:
    """Run the dead jobs of a flow again. What was cancelled for them waits again; what somebody cancelled stays so."""
    queue, key = flow_id(request)
    store = request.app[STORE]
    await replay(store, queue, key)
    return json_answer((await look(store, queue, key)).document())


def flow_id(request: web.Request) -> tuple[str, str]:
    """Queue and key from the address. Raises NotFound for what no flow can be called."""
    text = request.match_info["flow"]
    found = split_id(text)
    if found is None:
        raise no_flow("<queue>", "<key>")
    return found


def _with_jobs(request: web.Request) -> bool:
    text = request.query.get("jobs", "true")
    if text not in {"true", "false"}:
        raise Invalid([Fault("/jobs", "expected true or false")])
    return text == "true"


# -- a flow from what was sent -------------------------------------------------------------------------------


async def plan_of(fields: FlowFields, key: str, *, max_payload: int) -> Plan:
    """The flow that was asked for; of this key, where it names none. Raises Invalid with what is wrong, or Refusal."""
    if len(fields.jobs) > LARGEST_FLOW:
        raise Invalid([Fault("/jobs", f"at most {LARGEST_FLOW:,} jobs, these are {len(fields.jobs):,}")])
    faults: list[Fault] = []
    whole = split_id(fields.id) if fields.id is not None and ":" in fields.id else None
    queue = fields.queue if fields.queue is not None else whole[0] if whole else None
    first = fields.jobs[0].queue if fields.jobs else None
    # An empty one is not as one that was left out: it is refused.
    home = next((name for name in (queue, first) if name is not None), "default")
    if not QUEUE_NAME.fullmatch(home):
        faults.append(Fault("/queue", "1 to 64 letters, digits, '.', '_' or '-', a letter or digit first"))
    if fields.id is not None:
        key = key_of(fields.id, home, faults)
    if len(key) > LONGEST_FLOW_KEY or not JOB_KEY.fullmatch(key):
        takes = f"1 to {LONGEST_FLOW_KEY} letters, digits, '.', '_' or '-' (or <queue>: and such a key)"
        faults.append(Fault("/id", takes))
    nodes: list[Node] = []
    for start in range(0, len(fields.jobs), STEP):
        for n, one in enumerate(fields.jobs[start : start + STEP], start):
            nodes.append(_node(one, n, "default" if queue is None else queue, key, max_payload, faults))
        if len(faults) >= MOST_FAULTS:
            break
        await asyncio.sleep(0)
    if faults:
        raise Invalid(faults[:MOST_FAULTS])
    return plan_flow(home, key, nodes, fields.on_failure)


def _node(
    fields: FlowJobFields, n: int, queue: str, flow: str, max_payload: int, faults: list[Fault]
) -> Node:
    """A job of the flow. Adds faults under /jobs/<n>."""
    its: list[Fault] = []
    job = job_of(fields, queue if fields.queue is None else fields.queue, its)
    if fields.id is None:
        job = replace(job, key=f"{flow}.{n}")
    try:
        check_size(job.payload, max_payload)
    except Refusal as refusal:
        raise Refusal(refusal.code, f"job {n}: {refusal.detail}") from None
    its += _faults(fields, job, max_payload)
    faults += [_within(n, fault) for fault in its]
    return Node(fields.name, replace(job, on_failure=fields.on_failure or ""), fields.after)


def _faults(fields: FlowJobFields, job: NewJob, max_payload: int) -> Sequence[Fault]:
    # A key that is made of a flow's wrong one is no fault of its own.
    found = [
        fault
        for fault in faults_of(job, max_payload=max_payload)
        if fault.path != "/id" or fields.id is not None
    ]
    if not JOB_KEY.fullmatch(fields.name):
        found.append(Fault("/name", "1 to 128 letters, digits, '.', '_' or '-'"))
    if fields.on_failure and not fields.after:
        found.append(
            Fault("/on_failure", "it says what happens when a job of `after` does not succeed: name one")
        )
    return found


def _within(n: int, fault: Fault) -> Fault:
    return Fault(f"/jobs/{n}{fault.path}", fault.message)

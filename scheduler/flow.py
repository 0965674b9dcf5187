"""Flows as values: a graph of jobs that wait for each other, checked and put in order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import orjson
from msgspec import Struct
from msgspec.structs import replace

from .errors import Fault, Invalid
from .job import NewJob

LARGEST_FLOW = 10_000
"""Jobs of one flow."""

LONGEST_FLOW_KEY = 120
"""Letters of a flow's key: those of its jobs are made of it."""

MOST_TIES = 100_000
"""How often a job of one flow may wait for another: each is an id in the records of both."""

NODES_A_PAGE = 500
"""Jobs in one page of a flow's list (lua/flow_put.lua)."""


class Node(Struct, frozen=True, gc=False):
    """One job of a flow: its name there, the job, and the names of those that it waits for."""

    name: str
    job: NewJob
    after: Sequence[str] = ()


class Plan(Struct, frozen=True):
    """A flow that can be made: its home queue and key, its jobs as they come in, each after those that wait for it."""

    home: str
    key: str
    on_failure: str
    nodes: Sequence[Node]
    """As they were given, with keys."""
    segments: Sequence[Sequence[NewJob]]
    """To be taken in one after the other; jobs of one segment in order within their queue."""

    @property
    def id(self) -> str:
        return f"{self.home}:{self.key}"

    def header(self) -> bytes:
        """What is kept of the flow as a whole, as JSON. The same for the same request, and for no other."""
        digest = hashlib.blake2b(digest_size=16)
        for segment in self.segments:
            for job in segment:
                digest.update(f"{job.queue}:{job.key} {job.fingerprint()} ".encode())
        return orjson.dumps({"on_failure": self.on_failure, "fingerprint": digest.hexdigest()})

    def pages(self) -> list[tuple[bytes, list[str]]]:
        """The list of its jobs, a page each: the text that `read_nodes` reads, and their ids."""
        ids = {node.name: f"{node.job.queue}:{node.job.key}" for node in self.nodes}
        pages = []
        for first in range(0, len(self.nodes), NODES_A_PAGE):
            some = self.nodes[first : first + NODES_A_PAGE]
            text = orjson.dumps(
                [[node.name, ids[node.name], node.job.type, list(node.after)] for node in some]
            )
            pages.append((text, [ids[node.name] for node in some]))
        return pages


class Listed(Struct, frozen=True, gc=False):
    """A job as a flow's list has it."""

    name: str
    id: str
    type: str
    after: Sequence[str]


def read_nodes(text: bytes) -> list[Listed]:
    """One page of a flow's list."""
    return [Listed(*row) for row in orjson.loads(text)]


def plan_flow(home: str, key: str, nodes: Sequence[Node], on_failure: str = "cancel") -> Plan:
    """A flow of these jobs, which have keys. Raises Invalid: names that are there twice or not at all, cycles, a size."""
    if not nodes:
        raise Invalid([Fault("/jobs", "at least one job")])
    if len(nodes) > LARGEST_FLOW:
        raise Invalid([Fault("/jobs", f"at most {LARGEST_FLOW:,} jobs, these are {len(nodes):,}")])
    ties = sum(len(node.after) for node in nodes)
    if ties > MOST_TIES:
        said = f"they wait for each other {ties:,} times, at most {MOST_TIES:,} are taken: put a job between"
        raise Invalid([Fault("/jobs", said)])
    places: dict[str, int] = {}
    faults: list[Fault] = []
    for n, node in enumerate(nodes):
        if places.setdefault(node.name, n) != n:
            faults.append(
                Fault(f"/jobs/{n}/name", f"there is another job of the name {node.name} in this flow")
            )
    for n, node in enumerate(nodes):
        seen: set[str] = set()
        for nth, name in enumerate(node.after):
            if name not in places:
                faults.append(Fault(f"/jobs/{n}/after/{nth}", f"no job of this flow has the name {name}"))
            elif name == node.name:
                faults.append(Fault(f"/jobs/{n}/after/{nth}", "a job cannot wait for itself"))
            elif name in seen:
                faults.append(Fault(f"/jobs/{n}/after/{nth}", f"{name} is named twice"))
            seen.add(name)
    if faults:
        raise Invalid(faults[:100])
    order = _in_order(nodes, places)
    waiting: dict[str, list[int]] = {}
    for n, node in enumerate(nodes):
        for name in node.after:
            waiting.setdefault(name, []).append(n)
    ids = {node.name: f"{node.job.queue}:{node.job.key}" for node in nodes}
    flow = f"{home}:={key}"

    def made(node: Node) -> NewJob:
        return replace(
            node.job,
            after=[ids[name] for name in node.after],
            after_names=list(node.after),
            gate=flow,
            before=[*(ids[nodes[n].name] for n in waiting.get(node.name, ())), flow],
            on_failure=node.job.on_failure or on_failure,
            linked=True,
            flow=f"{home}:{key}",
            flow_name=node.name,
        )

    # Whoever waits must stand before the one it waits for can end. Within a queue jobs come in one after the other;
    # what waits in another queue has to be there before.
    segments: list[list[NewJob]] = []
    now: set[int] = set()
    for n in reversed(order):
        node = nodes[n]
        foreign = (w for w in waiting.get(node.name, ()) if nodes[w].job.queue != node.job.queue)
        if not segments or any(w in now for w in foreign):
            segments.append([])
            now = set()
        segments[-1].append(made(node))
        now.add(n)
    return Plan(home, key, on_failure, nodes, segments)


def _in_order(nodes: Sequence[Node], places: Mapping[str, int]) -> list[int]:
    """Places of the nodes, each after those that it waits for (Kahn's algorithm). Raises Invalid that shows a cycle."""
    left = [len(node.after) for node in nodes]
    followers: list[list[int]] = [[] for _ in nodes]
    for n, node in enumerate(nodes):
        for name in node.after:
            followers[places[name]].append(n)
    order = [n for n, count in enumerate(left) if count == 0]
    for n in order:
        for follower in followers[n]:
            left[follower] -= 1
            if left[follower] == 0:
                order.append(follower)
    if len(order) == len(nodes):
        return order
    # Everything that is left waits for something that is left: going back along it comes round.
    n = next(n for n, count in enumerate(left) if count > 0)
    path: list[int] = []
    while n not in path:
        path.append(n)
        n = next(places[name] for name in nodes[n].after if left[places[name]] > 0)
    cycle = [*path[path.index(n) :], n]
    shown = " → ".join(nodes[place].name for place in reversed(cycle[:21])) + (
        " …" if len(cycle) > 21 else ""
    )
    place = cycle[0]
    nth = list(nodes[place].after).index(nodes[cycle[1]].name)
    raise Invalid([Fault(f"/jobs/{place}/after/{nth}", f"these wait for each other in a circle: {shown}")])

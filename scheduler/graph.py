"""Graphs of jobs in words of Python: `chain`, `parallel` and `chord`, and the plan of a flow that is made of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from .errors import Fault, Invalid, PayloadInvalid
from .flow import LONGEST_FLOW_KEY, Node, Plan, plan_flow
from .job import ON_FAILURE, NewJob, new_key
from .keys import JOB_KEY, QUEUE_NAME

_ON_FAILURE = f"expected {', '.join(ON_FAILURE[:-1])} or {ON_FAILURE[-1]}"


class Graph(Struct, frozen=True):
    """Jobs that wait for each other, to be put in as a flow. Made by `chain`, `parallel` and `chord`."""

    jobs: tuple[tuple[str, NewJob], ...]
    """Each with its name, empty for one that is named after its type."""
    edges: frozenset[tuple[int, int]]
    """Places of a job that waits, and of one that it waits for."""
    firsts: tuple[int, ...]
    """Places of those that wait for nothing."""
    lasts: tuple[int, ...]
    """Places of those that nothing waits for."""


Piece = Graph | NewJob
"""What graphs are made of: a job, as `send.job(...)` makes it, or a graph."""


def chain(*pieces: Piece, **named: NewJob) -> Graph:
    """Pieces one after the other: each waits for all of the one before it. Jobs may be named: `chain(load=…, report=…)`."""
    jobs: list[tuple[str, NewJob]] = []
    edges: set[tuple[int, int]] = set()
    firsts: tuple[int, ...] = ()
    lasts: tuple[int, ...] = ()
    for piece in _given(pieces, named):
        after = _shifted(piece, len(jobs))
        jobs += piece.jobs
        edges |= after.edges
        edges.update((first, last) for first in after.firsts for last in lasts)
        firsts, lasts = firsts or after.firsts, after.lasts or lasts
    return Graph(tuple(jobs), frozenset(edges), firsts, lasts)


def parallel(*pieces: Piece, **named: NewJob) -> Graph:
    """Pieces side by side: none waits for another. Jobs may be named."""
    jobs: list[tuple[str, NewJob]] = []
    edges: set[tuple[int, int]] = set()
    firsts: list[int] = []
    lasts: list[int] = []
    for piece in _given(pieces, named):
        beside = _shifted(piece, len(jobs))
        jobs += beside.jobs
        edges |= beside.edges
        firsts += beside.firsts
        lasts += beside.lasts
    return Graph(tuple(jobs), frozenset(edges), tuple(firsts), tuple(lasts))


def chord(pieces: Iterable[Piece], then: Piece) -> Graph:
    """Pieces side by side, and one that waits for all of them; their results are its `ctx.parents`."""
    return chain(parallel(*pieces), then)


Make = Callable[[str, Any, Mapping[str, Any]], NewJob]
"""Makes a job of type, payload and options. Raises PayloadInvalid and Invalid."""


def flow_of(
    asked: Piece | Iterable[Mapping[str, Any]],
    make: Make,
    *,
    id: str | None,
    queue: str | None,
    on_failure: str | None,
) -> Plan:
    """The flow of a graph, or of jobs as documents have them: `{"name", "type", "payload", "after": [names], …options}`.

    A job without an id has the flow's key, a point and its place as its own, so that the same flow can be asked for again.
    Raises Invalid with what is wrong, PayloadInvalid for a payload that does not fit.
    """
    if isinstance(asked, Graph | NewJob):
        nodes = _nodes(_graph(asked))
    elif isinstance(asked, Iterable) and not isinstance(asked, str | bytes | Mapping):
        nodes = [_asked(n, one, make) for n, one in enumerate(asked)]
    else:
        raise Invalid([Fault("/jobs", "a graph, or a list of jobs with names")])
    faults = [
        Fault(f"/jobs/{n}{fault.path}", fault.message)
        for n, node in enumerate(nodes)
        for fault in _faults(node)
    ]
    if on_failure not in {None, *ON_FAILURE}:
        faults.append(Fault("/on_failure", _ON_FAILURE))
    named, colon, key = (new_key() if id is None else str(id)).rpartition(":")
    home = queue or named or (nodes[0].job.queue if nodes else "default")
    if colon and named != home:
        faults.append(Fault("/id", f"its queue is {named}, the flow's is {home}"))
    if len(key) > LONGEST_FLOW_KEY or not JOB_KEY.fullmatch(key):
        faults.append(Fault("/id", f"1 to {LONGEST_FLOW_KEY} letters, digits, '.', '_' or '-'"))
    if not QUEUE_NAME.fullmatch(home):
        faults.append(Fault("/queue", "1 to 64 letters, digits, '.', '_' or '-', a letter or digit first"))
    if faults:
        raise Invalid(faults[:100])
    nodes = [
        node if node.job.key else Node(node.name, replace(node.job, key=f"{key}.{n}"), node.after)
        for n, node in enumerate(nodes)
    ]
    return plan_flow(home, key, nodes, on_failure or "cancel")


def _given(pieces: Sequence[Piece], named: Mapping[str, NewJob]) -> list[Graph]:
    made = [_graph(piece) for piece in pieces]
    for name, job in named.items():
        if not isinstance(job, NewJob):
            raise TypeError(f"{name} is a job, as send.job(...) makes it: a graph has no name, its jobs have")
        made.append(_graph(((name, job),)))
    return made


def _graph(piece: Piece | tuple[tuple[str, NewJob], ...]) -> Graph:
    if isinstance(piece, Graph):
        return piece
    if isinstance(piece, NewJob):
        piece = (("", piece),)
    if not isinstance(piece, tuple):
        raise TypeError(
            f"a graph is made of jobs, as send.job(...) makes them, and of graphs, not of {piece!r}"
        )
    places = tuple(range(len(piece)))
    return Graph(piece, frozenset(), places, places)


def _shifted(graph: Graph, by: int) -> Graph:
    return Graph(
        graph.jobs,
        frozenset((waits, awaited) for waits, awaited in ((w + by, a + by) for w, a in graph.edges)),
        tuple(place + by for place in graph.firsts),
        tuple(place + by for place in graph.lasts),
    )


def _nodes(graph: Graph) -> list[Node]:
    names = _names([(name, job.type) for name, job in graph.jobs])
    after: list[list[int]] = [[] for _ in names]
    for waits, awaited in graph.edges:
        after[waits].append(awaited)
    return [
        Node(name, job, [names[place] for place in sorted(awaited)])
        for name, (_, job), awaited in zip(names, graph.jobs, after, strict=True)
    ]


def _names(given: Sequence[tuple[str, str]]) -> list[str]:
    """The names of jobs: those that they were given; else the type, with a number from the second of it on."""
    taken = {name for name, _ in given if name}
    counts: dict[str, int] = {}
    names: list[str] = []
    for name, kind in given:
        made = name
        while not made:
            counts[kind] = counts.get(kind, 0) + 1
            one = kind if counts[kind] == 1 else f"{kind}-{counts[kind]}"
            made = "" if one in taken else one
        taken.add(made)
        names.append(made)
    return names


def _asked(n: int, asked: Mapping[str, Any], make: Make) -> Node:
    """A job as a document has it. Raises Invalid under /jobs/<n>, and PayloadInvalid."""
    try:
        if not isinstance(asked, Mapping):
            raise Invalid([Fault("", "a job is a mapping of name, type, payload, after and options")])
        options = dict(asked)
        missing = [
            Fault(f"/{name}", "this field is required") for name in ("name", "type") if name not in options
        ]
        if missing:
            raise Invalid(missing)
        name, kind, payload = options.pop("name"), options.pop("type"), options.pop("payload", None)
        after, on_failure = options.pop("after", None) or (), options.pop("on_failure", None) or ""
        if isinstance(after, str) or not isinstance(after, Iterable):
            raise Invalid([Fault("/after", "a list of names")])
        job = make(kind, payload, options)
        key = job.key if options.get("id") is not None else ""
        return Node(name, replace(job, key=key, on_failure=on_failure), list(after))
    except Invalid as error:
        raise Invalid([Fault(f"/jobs/{n}{fault.path}", fault.message) for fault in error.faults]) from None
    except PayloadInvalid as error:
        raise PayloadInvalid(f"job {n}: {error}") from None


def _faults(node: Node) -> list[Fault]:
    """What is wrong with a job of a flow, beside what is wrong with any job."""
    faults: list[Fault] = []
    takes = "1 to 128 letters, digits, '.', '_' or '-'"
    if not isinstance(node.name, str) or not JOB_KEY.fullmatch(node.name):
        faults.append(Fault("/name", takes))
    faults += [Fault(f"/after/{n}", takes) for n, one in enumerate(node.after) if not isinstance(one, str)]
    if node.job.unique is not None:
        faults.append(Fault("/unique", "a job of a flow is not unique"))
    if node.job.hold or node.job.joins:
        path = "/hold" if node.job.hold else "/before"
        faults.append(Fault(path, "a flow opens its jobs by itself, and none joins it"))
    if node.job.after:
        faults.append(Fault("/after", "within a flow names are waited for, not ids"))
    if node.job.on_failure and node.job.on_failure not in ON_FAILURE:
        faults.append(Fault("/on_failure", _ON_FAILURE))
    elif node.job.on_failure and not node.after:
        faults.append(
            Fault("/on_failure", "it says what happens when a job of `after` does not succeed: name one")
        )
    return faults

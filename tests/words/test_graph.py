"""Graphs made of graphs: who waits for whom, and what each job is called."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import Invalid
from scheduler.flow import MOST_TIES
from scheduler.graph import Graph, Piece, chain, chord, flow_of, parallel
from scheduler.job import NewJob


def job(kind: str = "t", **fields: Any) -> NewJob:
    return NewJob(type=kind, **fields)


def made(type: str, payload: Any, options: Any) -> NewJob:
    return NewJob(type=type, **options)


def waits(graph: Piece, **options: Any) -> dict[str, list[str]]:
    plan = flow_of(graph, made, **{"id": "f", "queue": None, "on_failure": None, **options})
    return {node.name: sorted(node.after) for node in plan.nodes}


def test_a_chain_goes_one_after_the_other():
    assert {"a": [], "b": ["a"], "c": ["b"]} == waits(chain(job("a"), job("b"), job("c")))


def test_what_stands_side_by_side_waits_for_all_before_it_and_holds_up_all_after_it():
    graph = chain(job("a"), parallel(job("b"), chain(job("c"), job("d"))), job("e"))

    assert {"a": [], "b": ["a"], "c": ["a"], "d": ["c"], "e": ["b", "d"]} == waits(graph)


def test_a_chord_is_a_chain_of_what_is_side_by_side_and_one():
    pieces = [job("a"), job("b")]

    assert chain(parallel(*pieces), job("c")) == chord(pieces, job("c"))


def test_an_empty_piece_changes_nothing():
    assert {"a": [], "b": ["a"]} == waits(chain(job("a"), parallel(), chain(), job("b")))
    with pytest.raises(Invalid, match="at least one job"):
        waits(parallel())


def test_names_are_types_with_numbers_unless_they_are_given():
    graph = parallel(job("a"), job("a"), job("b"), a=job("x"), **{"a-3": job("y")})

    assert ["a-2", "a-4", "b", "a", "a-3"] == list(waits(graph))


def test_keys_are_made_of_the_flow_s_unless_they_are_given():
    plan = flow_of(
        chain(job("a", queue="q"), job("b", key="mine")), made, id="f", queue=None, on_failure="wait"
    )

    assert ("q:f", "wait", ["f.0", "mine"]) == (
        plan.id,
        plan.on_failure,
        [node.job.key for node in plan.nodes],
    )
    assert "f.0" == flow_of(job(), made, id="x:f", queue="x", on_failure=None).nodes[0].job.key


@pytest.mark.parametrize("piece", [7, "send", {"type": "a"}, None])
def test_a_graph_is_made_of_jobs_and_graphs(piece):
    with pytest.raises(TypeError, match="a graph is made of jobs"):
        chain(piece)


def test_a_graph_has_no_name():
    with pytest.raises(TypeError, match="a graph has no name"):
        chain(a=parallel(job()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"hold": True}, "/jobs/0/hold"),
        ({"joins": ["q:a"]}, "/jobs/0/before"),
        ({"after": ["q:a"]}, "/jobs/0/after"),
        ({"on_failure": "wait"}, "/jobs/0/on_failure"),
        ({"on_failure": "explode"}, "/jobs/0/on_failure"),
    ],
)
def test_what_a_job_of_a_flow_cannot_be_is_named(fields, path):
    with pytest.raises(Invalid) as caught:
        waits(job(**fields))
    assert [path] == [fault.path for fault in caught.value.faults]


def test_how_often_jobs_wait_for_each_other_is_bounded():
    side = int(MOST_TIES**0.5) + 1
    wide = parallel(*(job() for _ in range(side)))

    with pytest.raises(Invalid, match="put a job between"):
        waits(chain(wide, wide))
    assert 2 * side + 1 == len(waits(chain(wide, job("between"), wide)))


pieces = st.recursive(
    st.sampled_from("ab").map(job),
    lambda inner: st.lists(inner, max_size=4).flatmap(
        lambda some: st.sampled_from([chain(*some), parallel(*some)])
    ),
    max_leaves=12,
)


@given(pieces)
def test_whatever_is_made_of_them_can_be_put_in(piece):
    count = len(piece.jobs) if isinstance(piece, Graph) else 1
    if count:
        assert count == len(waits(piece))

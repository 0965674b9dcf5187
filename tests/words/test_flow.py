"""A graph of jobs is checked, named in its faults, and put in the order in which it is safe to take it in."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import Invalid
from scheduler.flow import LARGEST_FLOW, Node, Plan, plan_flow, read_nodes
from scheduler.job import NewJob


def node(name: str, *after: str, queue: str = "q", **fields: object) -> Node:
    return Node(name, NewJob(type="send", key=f"k-{name}", queue=queue, **fields), after)  # type: ignore[arg-type]


def planned(*nodes: Node, on_failure: str = "cancel") -> Plan:
    return plan_flow("home", "f", nodes, on_failure)


def faults(*nodes: Node) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as caught:
        planned(*nodes)
    return [(fault.path, fault.message) for fault in caught.value.faults]


def test_each_job_knows_whom_it_waits_for_and_who_waits_for_it():
    [jobs] = planned(node("a"), node("b", "a"), node("c", "a", "b")).segments

    assert ["k-c", "k-b", "k-a"] == [job.key for job in jobs]
    c, b, a = jobs
    assert ([], ["q:k-a"], ["q:k-a", "q:k-b"]) == (list(a.after), list(b.after), list(c.after))
    assert (["q:k-b", "q:k-c", "home:=f"], ["q:k-c", "home:=f"], ["home:=f"]) == (
        a.before,
        b.before,
        c.before,
    )
    assert ["home:=f"] * 3 == [a.gate, b.gate, c.gate]
    assert ["home:f"] * 3 == [job.flow for job in jobs]
    assert (["a", "b"], "c") == (c.after_names, c.flow_name)


def test_a_job_of_another_queue_comes_in_before_the_one_that_it_waits_for():
    plan = planned(node("a"), node("b", "a", queue="other"), node("c", "b"))

    assert [["k-c"], ["k-b"], ["k-a"]] == [[job.key for job in segment] for segment in plan.segments]


def test_a_job_may_say_for_itself_what_a_failure_means():
    [[b, a]] = planned(node("a"), node("b", "a", on_failure="wait"), on_failure="continue").segments

    assert ("wait", "continue") == (b.on_failure, a.on_failure)


def test_names_that_are_not_there_or_twice_are_told_by_their_place():
    assert [("/jobs/1/name", "there is another job of the name a in this flow")] == faults(
        node("a"), node("a")
    )
    assert [("/jobs/0/after/0", "no job of this flow has the name x")] == faults(node("a", "x"))
    assert [("/jobs/1/after/1", "a is named twice")] == faults(node("a"), node("b", "a", "a"))
    assert [("/jobs/0/after/0", "a job cannot wait for itself")] == faults(node("a", "a"))
    assert [("/jobs", "at least one job")] == faults()


def test_a_circle_is_shown():
    assert [("/jobs/1/after/0", "these wait for each other in a circle: b → c → d → b")] == faults(
        node("a"), node("b", "d"), node("c", "b"), node("d", "c", "a")
    )


def test_a_flow_has_a_largest_size_and_reaches_it_in_bounded_time():
    began = time.process_time()
    chain = [node("0"), *(node(str(n), str(n - 1)) for n in range(1, LARGEST_FLOW))]
    assert 1 == len(planned(*chain).segments)
    assert time.process_time() - began < 5

    assert [("/jobs", "at most 10,000 jobs, these are 10,001")] == faults(*chain, node("x"))


def test_the_header_is_the_same_for_the_same_flow_only():
    one, same, other = (planned(node("a", payload=text)) for text in (b"1", b"1", b"2"))

    assert one.header() == same.header() != other.header()


def test_its_list_is_read_as_it_was_written():
    plan = planned(node("a"), node("b", "a"))

    [(text, items)] = plan.pages()
    assert ["q:k-a", "q:k-b"] == items
    assert [("a", "q:k-a", "send", []), ("b", "q:k-b", "send", ["a"])] == [
        (n.name, n.id, n.type, n.after) for n in read_nodes(text)
    ]


@given(st.data())
def test_whoever_waits_is_taken_in_before_the_one_it_waits_for(data: st.DataObject):
    count = data.draw(st.integers(1, 12))
    order = data.draw(st.permutations(range(count)))
    nodes = []
    for n in range(count):
        before = [str(m) for m in range(count) if order[m] < order[n]]
        after = data.draw(st.lists(st.sampled_from(before), unique=True)) if before else []
        nodes.append(node(str(n), *after, queue=data.draw(st.sampled_from(["p", "q"]))))

    seen: dict[str, int] = {}
    for nth, segment in enumerate(planned(*nodes).segments):
        for job in segment:
            for waiting in job.before[:-1]:
                where = seen[waiting]
                assert where < nth or waiting.partition(":")[0] == job.queue
            seen[f"{job.queue}:{job.key}"] = nth
    assert count == len(seen)

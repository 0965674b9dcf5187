"""Random graphs, failures, cancels, replays, and processes that die between any two calls: every job ends, none too early."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as some
from hypothesis.stateful import initialize, invariant, rule

from scheduler.errors import Invalid, NotFound
from scheduler.flow import Node, plan_flow
from scheduler.job import ON_FAILURE, NewJob, split_id
from scheduler.joining import Call
from scheduler.linking import Word
from scheduler.outcomes import Ack, Bury
from scheduler.store import Store
from tests.helpers import ends_in_flow, faults
from tests.transitions.machine import FLOWS, Machine, check, on_each

QUEUES = ("p", "q")
WORKER = "w"


class Died(Exception):
    """The process is gone: nothing that it was about to do is done."""


class Mortal(Store):
    """A store whose process dies at one of its next calls, before it is sent or before its reply is read."""

    left: int | None = None
    """Calls until then."""
    sent = True

    async def run_all(self, calls: Sequence[Call[Any]]) -> list[Any]:
        if self.left is None:
            return await super().run_all(calls)
        self.left -= 1
        if self.left >= 0:
            return await super().run_all(calls)
        if self.sent:
            await super().run_all(calls)
        raise Died


@dataclass
class Known:
    """A job as the test knows it."""

    after: Sequence[str]
    policy: str


deaths = some.none() | some.none() | some.integers(0, 12)


class Flows(Machine):
    store: Mortal

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, Known] = {}
        self.flows: dict[str, Sequence[str]] = {}
        self.heard: list[Sequence[Word]] = []
        self.number = 0

    def mortal(self, call: Callable[[], Awaitable[Any]], left: int | None, *, sent: bool) -> Any:
        """Does this in a process that may die, None when it did."""
        self.store.left, self.store.sent = left, sent
        try:
            return self.wait(call())
        except Died:
            return None
        finally:
            self.store.left = None

    @initialize()
    def connect(self) -> None:
        self.begin(Mortal)

    def end_well(self) -> None:
        self.everything_ends()

    # -- what happens ------------------------------------------------------------------------------------------

    @rule(
        data=some.data(),
        count=some.integers(1, 6),
        policy=some.sampled_from(ON_FAILURE),
        left=deaths,
        sent=some.booleans(),
    )
    def flow(self, data: some.DataObject, count: int, policy: str, left: int | None, sent: bool) -> None:
        self.number += 1
        nodes: list[Node] = []
        for n in range(count):
            earlier = [node.name for node in nodes]
            names = (
                data.draw(some.lists(some.sampled_from(earlier), unique=True, max_size=3)) if earlier else []
            )
            own = data.draw(some.sampled_from(["", "", *ON_FAILURE]))
            queue = data.draw(some.sampled_from(QUEUES))
            job = NewJob(type="send", queue=queue, key=f"f{self.number}n{n}", on_failure=own)
            nodes.append(Node(f"n{n}", job, names))
        plan = plan_flow("p", f"f{self.number}", nodes, policy)
        ids = {node.name: f"{node.job.queue}:{node.job.key}" for node in nodes}
        for node in nodes:
            after = [ids[name] for name in node.after]
            self.jobs[ids[node.name]] = Known(after, node.job.on_failure or policy)
        self.flows[plan.key] = list(ids.values())
        self.mortal(lambda: self.store.create_flow(plan), left, sent=sent)

    @rule(
        data=some.data(),
        queue=some.sampled_from(QUEUES),
        policy=some.sampled_from(ON_FAILURE),
        left=deaths,
        sent=some.booleans(),
    )
    def after(self, data: some.DataObject, queue: str, policy: str, left: int | None, sent: bool) -> None:
        if not self.jobs:
            return
        self.number += 1
        ids = data.draw(some.lists(some.sampled_from(sorted(self.jobs)), unique=True, min_size=1, max_size=3))
        job = NewJob(type="send", queue=queue, key=f"a{self.number}", after=ids, on_failure=policy)
        self.jobs[f"{queue}:{job.key}"] = Known(ids, policy)
        try:
            self.mortal(lambda: self.store.enqueue_one(job), left, sent=sent)
        except Invalid:
            del self.jobs[f"{queue}:{job.key}"]

    @rule(queue=some.sampled_from(QUEUES), count=some.integers(1, 4), good=some.booleans())
    def work(self, queue: str, count: int, good: bool) -> None:
        self.run_some(queue, count, good=good)

    def run_some(self, queue: str, count: int, *, good: bool) -> int:
        jobs = self.wait(self.store.claim(queue, worker=WORKER, count=count)).jobs
        for job in jobs:
            self.may_start(job.id)
            call: Call[Any]
            if good:
                call = self.store.ack_call(queue, [Ack(job.key, job.token, b"1")], worker=WORKER)
            else:
                call = self.store.bury_call(queue, [Bury(job.key, job.token, "No", "no")], worker=WORKER)
            assert [["succeeded"], ["dead"]][not good] == self.wait(self.store.run(call))
        return len(jobs)

    @rule(
        queue=some.sampled_from(QUEUES),
        into=some.lists(some.sampled_from(QUEUES), min_size=1, max_size=2),
        shared=some.booleans(),
    )
    def split(self, queue: str, into: Sequence[str], shared: bool) -> None:
        """A run adds jobs, new ones or such as another run has added too: whoever waits for it waits for them as well."""
        for job in self.wait(self.store.claim(queue, worker=WORKER, count=1)).jobs:
            self.may_start(job.id)
            self.number += 1
            name = "s" if shared and not job.key.startswith("s") else f"x{self.number}"
            added = [NewJob(type="send", queue=to, key=f"{name}{n}") for n, to in enumerate(into)]
            ids = [f"{one.queue}:{one.key}" for one in added]
            ack = Ack(job.key, job.token, b"1", added)
            assert ("succeeded", "") == self.wait(self.store.ack_add(queue, ack, worker=WORKER))
            for its_id in ids:
                self.jobs.setdefault(its_id, Known([], "cancel"))
            for its in self.jobs.values():
                if job.id in its.after:
                    its.after = list(dict.fromkeys([*its.after, *ids]))
            for key, nodes in self.flows.items():
                if job.id in nodes:
                    self.flows[key] = list(dict.fromkeys([*nodes, *ids]))

    @rule(data=some.data(), what=some.sampled_from(["cancel", "replay", "purge"]))
    def act(self, data: some.DataObject, what: str) -> None:
        if not self.jobs:
            return
        its_id = data.draw(some.sampled_from(sorted(self.jobs)))
        queue, key = split_id(its_id) or ("", "")
        if what == "cancel":
            self.wait(self.store.cancel(queue, [key]))
        elif what == "replay":
            self.wait(self.store.replay(queue, [(key, None)]))
        elif self.state(its_id) in {"succeeded", "blocked", "ready"}:
            self.wait(self.store.purge(queue, [key]))

    @rule(queue=some.sampled_from(QUEUES), left=deaths, sent=some.booleans())
    def relay(self, queue: str, left: int | None, sent: bool) -> None:
        self.mortal(lambda: self.store.relay(queue), left, sent=sent)

    @rule(queue=some.sampled_from(QUEUES))
    def overhear(self, queue: str) -> None:
        """Somebody reads what there is to tell, and tells it much later."""
        self.heard.append(self.wait(self.store.run(self.store.relay_call(queue))).words)

    @rule()
    def late(self) -> None:
        for words in self.heard[:1]:
            for word in words:
                if word.state != "enqueue":
                    self.wait(self.store.resolve(word.id.partition(":")[0], [word]))
        del self.heard[:1]

    @rule(seconds=some.sampled_from([1, 31, 61]))
    def later(self, seconds: int) -> None:
        self.clock.advance(seconds)

    # -- what holds --------------------------------------------------------------------------------------------

    def state(self, its_id: str) -> str | None:
        queue, key = split_id(its_id) or ("", "")
        [job] = self.wait(self.store.inspect(queue, [key]))
        return job.state.value if job else None

    def may_start(self, its_id: str) -> None:
        its = self.jobs[its_id]
        found = self.wait(self.store.parents(*(split_id(its_id) or ("", "")), limit=500))
        ends = {parent.id: parent.state for parent in found.items if ":=" not in parent.id}
        assert set(its.after) == set(ends), "it knows of each that it waited for"
        assert all(state in {"succeeded", "dead", "cancelled", "revived"} for state in ends.values())
        if its.policy in {"cancel", "wait"}:
            assert {"succeeded"} >= set(ends.values())
            assert all(self.state(other) in {"succeeded", None} for other in ends)
        if its.policy == "failure":
            assert {"dead", "cancelled", "revived"} & set(ends.values())

    @invariant()
    def in_order(self) -> None:
        if hasattr(self, "store"):
            assert [] == self.wait(faults(self.store))

    def everything_ends(self) -> None:
        """With processes that live, and time, all that can end has ended, and each flow knows it."""
        for _ in range(60):
            self.clock.advance(61)
            done = sum(self.wait(self.store.relay(queue)) for queue in QUEUES)
            done += sum(self.run_some(queue, 100, good=True) for queue in QUEUES)
            if not done:
                break
        states = {its_id: self.state(its_id) for its_id in self.jobs}
        for its_id, state in states.items():
            its = self.jobs[its_id]
            stuck = state == "blocked" and its.policy == "wait"
            if stuck:
                found = self.wait(self.store.parents(*(split_id(its_id) or ("", "")), sign="-"))
                stuck = found.failed > 0 or any(states.get(other) == "blocked" for other in its.after)
            stuck = stuck or (
                state == "blocked" and any(states.get(other) == "blocked" for other in its.after)
            )
            assert stuck or state in {None, "succeeded", "dead", "cancelled"}, (its_id, state)
        for key, ids in self.flows.items():
            try:
                flow = self.wait(self.store.flow("p", key))
            except NotFound:
                continue
            ends = self.wait(ends_in_flow(self.store, "p", key))
            assert set(ids) == set(ends)
            for its_id, end in ends.items():
                state = states[its_id]
                assert (
                    state is None
                    or state == end.state
                    or (state == "blocked" and end.state in {None, "revived"})
                )
            good = sum(end.state == "succeeded" for end in ends.values())
            bad = sum(end.state in {"dead", "cancelled"} for end in ends.values())
            assert (len(ids) - good - bad, good, bad) == (flow.pending, flow.succeeded, flow.failed)
            assert (flow.pending > 0) == (flow.state == "running")
        assert [] == self.wait(faults(self.store))


@on_each(FLOWS)
def test_every_job_ends_and_none_starts_before_what_it_waits_for(servers, backend, bound):
    check(Flows, servers, backend, steps=30, **bound)

"""Jobs that wait for others, and flows of them: who waits is made known, and is told when what it waits for has ended."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import orjson
from msgspec import Struct

from .calling import batches
from .errors import Fault, Invalid, NotFound, SchedulerError
from .flow import Listed, Plan, read_nodes
from .job import NewJob, State, hold_of
from .joining import Call
from .keys import Keys
from .logs import get_logger
from .outcomes import Flow, Parent, Parents
from .reading import Reading

log = get_logger(__name__)

MOST_PARENTS = 10_000
"""Jobs of which one that waited for them is given the results."""

UNDONE_AFTER_MS = 60_000
"""A flow that was not opened for so long is taken back."""


class Word(Struct, frozen=True, gc=False):
    """What one that waits is told: `origin` (queue:key) is in this state. `order` rises with each word about it."""

    id: str
    origin: str
    order: int
    state: str
    result: bytes = b""
    added: str = ""

    @property
    def weight(self) -> int:
        return len(self.result) + len(self.added) + 200


class Relayed(Struct, frozen=True):
    """A page of what is to be told, `id` of each is queue:key; and those whose waiting nobody knows of."""

    more: bool
    late: Sequence[str]
    words: Sequence[Word]


class Linking(Reading):
    """The part of the store that keeps jobs waiting for others, and lets them go."""

    def follow_call(self, queue: str, ties: Sequence[tuple[str, str]]) -> Call[list[Word]]:
        """Makes known to jobs of this queue who waits for them: the word about each, of state "waits" where it has not ended."""
        args: list[Any] = [self._stamp(), len(ties)]
        for key, waiting in ties:
            args += (key, waiting)

        def read(reply: list[Any]) -> list[Word]:
            return [
                Word(
                    waiting, f"{queue}:{key}", int(reply[3 * n + 1]), reply[3 * n].decode(), reply[3 * n + 2]
                )
                for n, (key, waiting) in enumerate(ties)
            ]

        return Call("follow", queue, args, read)

    def resolve_call(self, queue: str, words: Sequence[Word]) -> Call[list[str]]:
        """blocked -> ready, scheduled or cancelled, when all is known that they wait for: where each stands now."""
        args: list[Any] = [self._stamp(), len(words)]
        for word in words:
            origin = word.origin.partition("!")[
                0
            ]  # what follows tells this word from others about the same job
            args += (word.id.partition(":")[2], origin, word.order, word.state, word.result, word.added)
        return Call("resolve", queue, args, lambda reply: [item.decode() for item in reply])

    def relay_call(
        self,
        queue: str,
        told: Sequence[tuple[str, int, str]] = (),
        *,
        limit: int = 100,
        beyond: int | None = None,
    ) -> Call[Relayed]:
        """What is to be told of jobs of this queue, a page, after noting who has been `told` (of what, its order, up to whom)."""
        args: list[Any] = [self._stamp(), limit, "" if beyond is None else beyond, len(told)]
        for item in told:
            args += item

        def read(reply: list[Any]) -> Relayed:
            words = [
                Word(listener.decode(), f"{queue}:{key.decode()}", int(order), state.decode(), result, added.decode())
                for key, order, state, result, added, listener in zip(*(reply[2 + n :: 6] for n in range(6)), strict=True)
            ]  # fmt: skip
            return Relayed(int(reply[0]) == 1, reply[1].decode().split(), words)

        return Call("relay", queue, args, read)

    async def follow(self, queue: str, ties: Sequence[tuple[str, str]]) -> list[Word]:
        """Makes known who waits for jobs of this queue, see `follow_call`."""
        return [
            word
            for batch in batches(ties, _light)
            for word in await self.run_sure(self.follow_call(queue, batch))
        ]

    async def resolve(self, queue: str, words: Sequence[Word]) -> list[str]:
        """Tells those who wait in this queue, see `resolve_call`."""
        told = batches(words, lambda word: word.weight)
        return [state for batch in told for state in await self.run_sure(self.resolve_call(queue, batch))]

    async def relay(self, queue: str) -> int:
        """Tells everyone who waits for jobs of this queue that ended, and who waits for those in turn: how many were told.

        Any process may, any number of times. One that cannot be reached holds up no other; its error is raised at the end.
        """
        told, failed, queues = 0, None, [queue]
        for name in queues:
            try:
                count, others = await self._relay_queue(name)
            except SchedulerError as error:
                failed = failed or error
                continue
            told += count
            # What was cancelled there, or waits again, has followers of its own.
            queues += [
                other for other in others if len(queues) < 1_000 and other not in queues[queues.index(name) :]
            ]
        if failed is not None:
            raise failed
        return told

    async def _relay_queue(self, queue: str) -> tuple[int, list[str]]:
        """Tells what there is to tell of one queue: how much, and the queues in which others have ended by that."""
        told: list[tuple[str, int, str]] = []
        count, others, beyond, late = 0, set[str](), None, True
        failed: SchedulerError | None = None
        while True:
            page = await self.run_sure(self.relay_call(queue, told, beyond=beyond))
            if late and page.late:
                # What comes of it is told with the page that is read then.
                late, told = False, []
                for key in page.late:
                    try:
                        await self.link_late(queue, key)
                    except SchedulerError as error:
                        failed = error
                continue
            if not page.words and not page.more:
                break
            unheard: set[int] = set()
            by_queue: dict[str, list[int]] = {}
            for n, word in enumerate(page.words):
                by_queue.setdefault(word.id.partition(":")[0], []).append(n)
            for name, places in by_queue.items():
                try:
                    through, states = await self._tell(name, [page.words[n] for n in places])
                except SchedulerError as error:
                    failed = error
                    unheard.update(places)
                    continue
                unheard.update(n for n, there in zip(places, through, strict=True) if not there)
                if not {"cancelled", "blocked"}.isdisjoint(states):
                    others.add(name)
            told = _heard(page.words, unheard)
            count += len(page.words) - len(unheard)
            if unheard:
                beyond = max(word.order for word in page.words)
        if failed is not None:
            raise failed
        return count, sorted(others)

    async def _tell(self, queue: str, words: Sequence[Word]) -> tuple[list[bool], list[str]]:
        """Tells words to one queue: whether each is through, and where those stand who heard one."""
        posted = [word for word in words if word.state == "enqueue"]
        through = iter(await self._post(queue, posted))
        states = await self.resolve(queue, [word for word in words if word.state != "enqueue"])
        return [next(through) if word.state == "enqueue" else True for word in words], states

    async def _post(self, queue: str, words: Sequence[Word]) -> list[bool]:
        """Enqueues jobs that others have added to this queue: whether each is through; the others find it full for now.

        To those that stand there already is made known who waits for them. Of one that cannot be taken in, whoever waits for it
        is told so.
        """

        def read(reply: list[Any]) -> tuple[bool, list[str]]:
            return int(reply[0]) == 1, [outcome.decode() for outcome in reply[2::2]]

        through: list[bool] = []
        for some in batches(words, lambda word: word.weight):
            jobs = [_unpacked(word.result) for word in some]
            args: list[Any] = [self._stamp(), len(jobs), *(field for fields in jobs for field in fields)]
            new, outcomes = await self.run(Call("enqueue", queue, args, read))
            if new:
                await self.register(queue)
            through += [outcome != "full" for outcome in outcomes]
            for word, fields, outcome in zip(some, jobs, outcomes, strict=True):
                if outcome not in {"past", "conflict", "exists"}:
                    continue
                rules = fields[8].decode().split()
                listeners = [rule.removeprefix("before:") for rule in rules if rule.startswith("before:")]
                if outcome == "exists":
                    key = word.id.partition(":")[2]
                    ends = await self.follow(queue, [(key, listener) for listener in listeners])
                    ends = [_ended(end) for end in ends if end.state != "waits"]
                else:
                    log.warning("an added job cannot be taken in", job=word.id, outcome=outcome)
                    ends = [Word(listener, word.id, word.order, "cancelled") for listener in listeners]
                for end in ends:
                    await self.resolve(end.id.partition(":")[0], [end])
        return through

    # -- jobs that wait for named ones ------------------------------------------------------------------------

    async def link(self, jobs: Sequence[NewJob]) -> list[str]:
        """Makes jobs that were just taken in known to those they wait for, and lets go what waits for nothing any more.

        Answers where each stands then, "" for one that waits for nothing. Again for the same changes nothing.
        """
        states = {f"{job.queue}:{job.key}": "" for job in jobs}
        words = await self._ends(jobs)
        words += [Word(f"{job.queue}:{job.key}", "", 0, "followed") for job in jobs if job.after]
        by_queue: dict[str, list[Word]] = {}
        for word in words:
            by_queue.setdefault(word.id.partition(":")[0], []).append(word)
        for queue, some in by_queue.items():
            for word, state in zip(some, await self.resolve(queue, some), strict=True):
                states[word.id] = state
        return [states[f"{job.queue}:{job.key}"] for job in jobs]

    async def _ends(self, jobs: Sequence[NewJob]) -> list[Word]:
        """Makes jobs known to those they wait for: the word about each of those that has ended already."""
        ties: dict[str, list[tuple[str, str]]] = {}
        for job in jobs:
            for origin in job.after:
                queue, _, key = origin.partition(":")
                ties.setdefault(queue, []).append((key, f"{job.queue}:{job.key}"))
        words = [word for queue, some in ties.items() for word in await self.follow(queue, some)]
        return [_ended(word) for word in words if word.state != "waits"]

    async def join(self, jobs: Sequence[NewJob]) -> list[Invalid | None]:
        """Says of jobs that are about to come in that others, which are blocked, wait for them: what is wrong with each."""
        words: dict[str, list[tuple[int, int, Word]]] = {}
        for n, job in enumerate(jobs):
            for nth, its_id in enumerate(job.joins):
                word = Word(its_id, f"{job.queue}:{job.key}", 0, "joins")
                words.setdefault(its_id.partition(":")[0], []).append((n, nth, word))
        faults: dict[int, list[Fault]] = {}
        for queue, some in words.items():
            states = await self.resolve(queue, [word for _, _, word in some])
            for (n, nth, word), state in zip(some, states, strict=True):
                if state != "blocked":
                    said = f"the job {word.id} waits for nothing any more: it is {state}"
                    faults.setdefault(n, []).append(Fault(f"/before/{nth}", said))
        if not faults:
            return [None] * len(jobs)
        # One that was enqueued before, by the same request, has been waited for.
        made = await self._standing([f"{jobs[n].queue}:{jobs[n].key}" for n in faults])
        for n, there in zip(list(faults), made, strict=True):
            if there:
                del faults[n]
        return [Invalid(faults[n]) if n in faults else None for n in range(len(jobs))]

    async def open(self, queue: str, key: str) -> str:
        """Lets a held job go, as far as it waits for nothing else: where it stands now, missing, or "not held"."""
        [job] = await self.inspect(queue, [key])
        if job is None:
            return "missing"
        if not job.hold or job.state != State.BLOCKED:
            return job.state.value if job.hold else "not held"
        [state] = await self.resolve(queue, [Word(f"{queue}:{key}", hold_of(queue, key), 1, "succeeded")])
        return state

    async def listeners(self, queue: str) -> dict[str, list[Word]]:
        """By queue, who in others waits for jobs of this one: a word that says so to each."""
        key, found = Keys(self.namespace, queue).at("dependents"), dict[str, list[Word]]()
        cursor = 0
        while True:
            cursor, page = await self._read(partial(_scanned, key, cursor))
            for member, _ in page:
                origin, _, its_id = member.decode().partition(" ")
                name, _, its_key = its_id.partition(":")
                if name != queue and not its_key.startswith("="):
                    found.setdefault(name, []).append(Word(its_id, f"{queue}:{origin}", 0, "joins"))
            if cursor == 0:
                return found

    async def link_late(self, queue: str, key: str) -> None:
        """Does what was left undone when somebody died between taking a job in and making it known, or opening a flow."""
        if key.startswith("="):
            await self.undo_flow(queue, key[1:])
            return
        cursor, gated = "", False
        while True:
            page = await self.parents(queue, key, sign="?", cursor=cursor, limit=500)
            waiting = [parent.id for parent in page.items if parent.id != hold_of(queue, key)]
            gated = gated or any(":=" in its_id for its_id in waiting)
            await self.resolve(
                queue, await self._ends([NewJob(type="-", queue=queue, key=key, after=waiting)])
            )
            cursor = page.cursor
            if not cursor:
                break
        if not gated:
            await self.resolve(queue, [Word(f"{queue}:{key}", "", 0, "followed")])

    async def check_after(self, jobs: Sequence[NewJob]) -> list[Invalid | None]:
        """What is wrong with what each job waits for: jobs that nobody knows. None for a job that stands already, or is right."""
        asked: list[tuple[int, int, str]] = [
            (n, nth, it) for n, job in enumerate(jobs) for nth, it in enumerate(job.after)
        ]
        found = await self._standing([its_id for _, _, its_id in asked])
        missing: dict[int, list[Fault]] = {}
        for (n, nth, its_id), there in zip(asked, found, strict=True):
            if not there:
                missing.setdefault(n, []).append(Fault(f"/after/{nth}", f"there is no job {its_id}"))
        made = await self._standing([f"{jobs[n].queue}:{jobs[n].key}" for n in missing])
        for n, there in zip(list(missing), made, strict=True):
            if there:
                del missing[n]
        return [Invalid(missing[n]) if n in missing else None for n in range(len(jobs))]

    async def _standing(self, ids: Sequence[str]) -> list[bool]:
        def call(its_id: str, part: str) -> Call[bool]:
            queue, _, key = its_id.partition(":")
            plain = ("HEXISTS", Keys(self.namespace, queue).at(part), key)
            return Call("exists", queue, (), lambda reply: int(reply) == 1, plain=plain)

        found: list[bool] = []
        for some in batches(ids, _light):
            replies = await self.run_all_sure(
                [call(its_id, part) for its_id in some for part in ("jobs", "known")]
            )
            for reply in replies:
                if isinstance(reply, SchedulerError):
                    raise reply
            found += [a or b for a, b in zip(replies[::2], replies[1::2], strict=True)]
        return found

    async def parents(
        self, queue: str, key: str, *, sign: str = "", cursor: str = "", limit: int = 100
    ) -> Parents:
        """What a job waits for, or a flow (= before its key): a page, `sign` as lua/parents.lua has it."""

        def read(reply: list[Any]) -> Parents:
            rows = zip(*(reply[4 + n :: 4] for n in range(4)), strict=True)
            items = [Parent(i.decode(), int(o) if o else None, s.decode() or None, r) for i, o, s, r in rows]
            return Parents(reply[0].decode(), int(reply[1]), int(reply[2]), int(reply[3]), items)

        return await self.run_sure(Call("parents", queue, [key, sign, cursor, limit], read))

    async def results_of_parents(self, queue: str, key: str) -> dict[str, bytes | None]:
        """Id -> result (JSON) of each job that this one waited for; None for one that left none, or too large a one.

        Empty where they are more than MOST_PARENTS: those are only counted.
        """
        found: dict[str, bytes | None] = {}
        cursor = ""
        while True:
            page = await self.parents(queue, key, cursor=cursor, limit=500)
            if page.pending + page.succeeded + page.failed > MOST_PARENTS:
                return {}
            found.update((parent.id, parent.result or None) for parent in page.items if ":=" not in parent.id)
            cursor = page.cursor
            if not cursor:
                return found

    # -- flows ------------------------------------------------------------------------------------------------

    async def flow_put(self, plan: Plan) -> str:
        """(new) -> building: notes down a flow; "building", the state of one that is further, or "conflict"."""
        state, header = "building", plan.header()
        for page, (text, items) in enumerate(plan.pages()):
            args: list[Any] = [
                self._stamp(), plan.key, header, len(plan.nodes), page, text, len(items),
            ]  # fmt: skip
            args += items
            state, new = await self.run_sure(
                Call("flow_put", plan.home, args, lambda reply: (reply[0].decode(), int(reply[1]) == 1))
            )
            if new or (state == "building" and plan.home not in self._known_queues):
                await self.register(plan.home)
            if state != "building":
                break
        return state

    async def flow_open(self, queue: str, key: str) -> str:
        """building -> running: running, the state of one that is further, or missing."""
        return await self.run_sure(Call("flow_open", queue, [self._stamp(), key], bytes.decode))

    async def flow_cancel(self, queue: str, key: str) -> str:
        """Notes that a flow is to stop; its jobs are cancelled by themselves. Its state, or missing."""
        return await self.run_sure(Call("flow_cancel", queue, [self._stamp(), key], bytes.decode))

    async def flow_drop(self, queue: str, key: str, step: str, *, older_ms: int = 0) -> str:
        """building -> undone (`step` "undo"), undone -> gone ("gone"): what it is then, the state that refuses, or missing."""
        return await self.run(Call("flow_drop", queue, [self._stamp(), key, step, older_ms], bytes.decode))

    async def flow(self, queue: str, key: str) -> Flow:
        """A flow as it stands. Raises NotFound, also for one that is not open yet."""
        keys = Keys(self.namespace, queue)
        record = await self._read(lambda client: client.hget(keys.at("flows"), key))
        line, _, header = (record or b"").partition(b"\n")
        parts = line.decode().split("|")
        if len(parts) != 6 or parts[0] in {"building", "undone"}:
            raise NotFound(f"there is no flow {queue}:{key}")
        counts = await self.parents(queue, f"={key}", limit=1)
        said = orjson.loads(header)
        state, opened, ended, asked, total, created = parts
        return Flow(
            id=f"{queue}:{key}", state=state, on_failure=said["on_failure"], created_at=int(created),
            opened_at=int(opened) if opened else None, finished_at=int(ended) if ended else None,
            cancel_asked=bool(asked), total=int(total), pending=counts.pending, succeeded=counts.succeeded,
            failed=counts.failed,
        )  # fmt: skip

    async def nodes_of_flow(self, queue: str, key: str) -> list[Listed]:
        """The jobs of a flow, as they were given."""
        keys, found, page = Keys(self.namespace, queue), list[Listed](), 0
        while True:
            field = f"{key} {page:06d}"
            text = await self._read(partial(_field, keys.at("flows"), field))
            if text is None:
                return found
            found += read_nodes(text)
            page += 1

    async def undo_flow(self, queue: str, key: str, *, older_ms: int = UNDONE_AFTER_MS) -> None:
        """Takes back a flow that was not opened, with its jobs."""
        state = await self.flow_drop(queue, key, "undo", older_ms=older_ms)
        if state != "undone":
            return
        by_queue: dict[str, list[str]] = {}
        for node in await self.nodes_of_flow(queue, key):
            name, _, its_key = node.id.partition(":")
            by_queue.setdefault(name, []).append(its_key)
        for name, its_keys in by_queue.items():
            for asked in batches(its_keys, _light):
                # A job that stood before has an id that this flow wanted: it is not the flow's, and stays.
                found = zip(asked, await self.inspect(name, asked), strict=True)
                some = [one for one, job in found if job is not None and job.flow == f"{queue}:{key}"]
                if not some:
                    continue
                args = [self._stamp(), "", "", "", "", len(some), *some]
                await self.run(Call("purge", name, args, lambda reply: reply))
        await self.flow_drop(queue, key, "gone")


def _field(key: str, field: str, client: Any) -> Any:
    return client.hget(key, field)


def _unpacked(text: bytes) -> list[bytes]:
    """Fields, each with its length before it."""
    found, at = [], 0
    while at < len(text):
        colon = text.index(b":", at)
        start, size = colon + 1, int(text[at:colon])
        found.append(text[start : start + size])
        at = start + size
    return found


def _scanned(key: str, cursor: int, client: Any) -> Any:
    return client.zscan(key, cursor, count=500)


def _light(_: object) -> int:
    return 100


def _ended(word: Word) -> Word:
    """A job that went while another was about to wait for it counts as one that did not succeed."""
    return Word(word.id, word.origin, word.order, "cancelled") if word.state == "missing" else word


def _heard(words: Sequence[Word], unheard: set[int]) -> list[tuple[str, int, str]]:
    """Of each job that ended: its key, the order, and the last of those in line who heard it with all before them."""
    upto: dict[tuple[str, int], str] = {}
    stopped: set[tuple[str, int]] = set()
    for n, word in enumerate(words):
        what = word.origin.partition(":")[2], word.order
        if n in unheard:
            stopped.add(what)
        elif what not in stopped:
            upto[what] = word.id
    return [(key, order, listener) for (key, order), listener in upto.items()]

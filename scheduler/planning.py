"""The scripts of schedules: they are put, fired and dropped, and read. What a slot means stands in `schedule` and `cron`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .calling import BATCH, batches
from .joining import Call
from .keys import SCHEDULES, Keys, declared_key, schedule_queues_key
from .producing import Producing
from .replies import texts
from .schedule import Fire, Schedule, Standing, parse_standing


class Planning(Producing):
    """The part of the store that knows schedules. Times are server time."""

    async def schedule_put(
        self,
        schedule: Schedule,
        *,
        expect: int | None,
        next_ms: int | None,
        keep: bool,
        paused: bool,
        anchor_ms: int,
    ) -> tuple[bool, int]:
        """A schedule as it is from now on: whether it was put, and the version that stands (0 for none).

        `expect`: the version that must stand. With `keep` its next slot stays, if it has one.
        """
        record = schedule.record(paused=paused, anchor_ms=anchor_ms)
        args = [
            self._stamp(), schedule.name, "" if expect is None else expect, "" if next_ms is None else next_ms,
            "1" if keep else "", record, b"" if schedule.payload == b"{}" else schedule.payload,
        ]  # fmt: skip

        def read(reply: list[Any]) -> tuple[bool, int, bool]:
            return reply[0] == b"put", int(reply[1]), int(reply[2]) == 1

        put, version, new = await self.run(Call("schedule_put", schedule.queue, args, read))
        if new:
            await self.register(schedule.queue)
        return put, version

    async def schedule_due(
        self, queue: str, *, limit: int = BATCH, skip: int = 0
    ) -> tuple[int, list[tuple[str, int, Standing | None]]]:
        """The time, and the schedules whose slot has come, the oldest slot first: name, slot, and what is known of each.

        `skip` passes over so many of the first. None is known of a schedule that is gone.
        """

        def read(reply: list[Any]) -> tuple[int, list[tuple[str, int, Standing | None]]]:
            found = []
            for n in range(1, len(reply), 4):
                name, slot = reply[n].decode(), int(reply[n + 1])
                record = reply[n + 2]
                standing = (
                    parse_standing(name, queue, record, reply[n + 3] or b"", next_ms=slot) if record else None
                )
                found.append((name, slot, standing))
            return int(reply[0]), found

        return await self.run(Call("schedule_due", queue, [self._stamp(), limit, skip or ""], read))

    async def schedule_fire(self, queue: str, steps: Sequence[Fire]) -> list[tuple[str, str]]:
        """Slots -> jobs, or skipped: for each what became of it, and why it was skipped. At most BATCH of them."""
        return await self.run(self.schedule_fire_call(queue, steps))

    def schedule_fire_call(self, queue: str, steps: Sequence[Fire]) -> Call[list[tuple[str, str]]]:
        """Slots -> jobs, or skipped."""
        args: list[Any] = [self._stamp(), len(steps)]
        for step in steps:
            args += (
                step.name,
                step.version,
                _text(step.slot_ms),
                _text(step.next_ms),
                step.key,
                _text(step.run_at_ms),
                step.overlap,
                step.more or "",
                _text(step.upto_ms),
                step.reason,
            )

        def read(reply: list[Any]) -> list[tuple[str, str]]:
            words = texts(reply[1:])
            return list(zip(words[::2], words[1::2], strict=True))

        return Call("schedule_fire", queue, args, read)

    async def schedule_drop(self, queue: str, name: str, *, version: int | None = None) -> str:
        """A schedule -> gone: gone, missing, or changed when another version stands. Its jobs stay."""
        [said] = await self.run(
            Call("schedule_drop", queue, [1, name, "" if version is None else version], texts)
        )
        return said

    async def schedule_name(
        self, verb: str, name: str, *, queue: str = "", mark: str = "", former: str = ""
    ) -> tuple[str, str]:
        """Whose is this name? See lua/schedule_name.lua: what became of it, and the entry as it stood before."""
        said, entry = await self.run(
            Call("schedule_name", SCHEDULES, [verb, name, queue, mark, former], texts)
        )
        return said, entry

    # -- reading ----------------------------------------------------------------------------------------------

    async def schedule_owners(self, names: Sequence[str]) -> list[str | None]:
        """The entry of each name, queue|mark; None for one that nobody has."""
        if not names:
            return []
        key = Keys(self.namespace, SCHEDULES).at("owners")
        found = await self._read(lambda client: client.hmget(key, list(names)))
        return [None if entry is None else entry.decode() for entry in found]

    async def schedule_names(self, after: str, limit: int) -> list[str]:
        """Names of schedules in order, those that come after one."""
        key = Keys(self.namespace, SCHEDULES).at("names")
        begin = f"({after}" if after else "-"
        found = await self._read(lambda client: client.zrangebylex(key, begin, "+", start=0, num=limit))
        return [name.decode() for name in found]

    async def schedule_names_in(self, queue: str, cursor: int) -> tuple[int, list[str]]:
        """A page of the names of one queue's schedules, and the next cursor (0 at the end)."""
        key = Keys(self.namespace, queue).at("schedules")
        following, found = await self._read(lambda client: client.hscan(key, cursor, count=BATCH))
        return int(following), [field.decode() for field in found if field[:1] not in {b":", b"="}]

    async def schedule_names_of(self, queue: str) -> list[str]:
        """The names of a queue's schedules."""
        found: dict[str, None] = {}
        cursor = 0
        while True:
            cursor, some = await self.schedule_names_in(queue, cursor)
            found |= dict.fromkeys(some)
            if cursor == 0:
                return list(found)

    async def free_schedule_names(self, queue: str, entries: Mapping[str, str | None]) -> None:
        """Gives back names whose schedules are gone from a queue, where their entry still is the one that was read."""
        mine = {name: entry for name, entry in entries.items() if entry and entry.partition("|")[0] == queue}
        for some in batches(mine.items(), lambda _: 200):
            freed = await self.run_all(
                [
                    Call("schedule_name", SCHEDULES, ["free", name, "", "", entry], texts)
                    for name, entry in some
                ]
            )
            names = [name for (name, _), said in zip(some, freed, strict=True) if said[0] == "freed"]
            again = await self.standings([(queue, name) for name in names])
            for name, standing in zip(names, again, strict=True):
                if standing is not None:  # put anew in between
                    await self.schedule_name("claim", name, queue=queue, mark="again")

    def standing_call(self, queue: str, name: str) -> list[Call[Any]]:
        """All that is known of a schedule, in two reads."""
        keys = Keys(self.namespace, queue)
        fields = ("HMGET", keys.at("schedules"), name, f":{name}", f"={name}")
        return [
            Call("schedule", queue, (), lambda reply: reply, plain=fields),
            Call("schedule", queue, (), lambda reply: reply, plain=("ZSCORE", keys.at("fires"), name)),
        ]

    async def standings(self, places: Sequence[tuple[str, str]]) -> list[Standing | None]:
        """All that is known of schedules, given by queue and name; None for one that is not there."""
        if not places:
            return []
        calls = [call for queue, name in places for call in self.standing_call(queue, name)]
        replies = await self.run_all_sure(calls)
        found = []
        for n, (queue, name) in enumerate(places):
            fields, score = replies[2 * n : 2 * n + 2]
            for reply in (fields, score):
                if isinstance(reply, Exception):
                    raise reply
            record, past, payload = fields
            next_ms = None if score is None else int(float(score))
            found.append(
                None
                if record is None
                else parse_standing(name, queue, record, past or b"", payload or b"", next_ms)
            )
        return found

    async def server_time(self) -> int:
        """The server's clock, ms."""
        if self._now is not None:
            return self._now()
        whole, micros = await self._read(lambda client: client.time())
        return int(whole) * 1_000 + int(micros) // 1_000

    async def next_fires(self, queues: Sequence[str]) -> list[float | None]:
        """The soonest slot of each queue (ms); None for one without."""
        calls = [
            Call("fires", queue, (), _score, plain=("ZRANGE", Keys(self.namespace, queue).at("fires"), 0, 0, "WITHSCORES"))
            for queue in queues
        ]  # fmt: skip
        replies = await self.run_all_sure(calls) if calls else []
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    async def next_fire_after(self, queue: str, ms: int) -> float | None:
        """The soonest slot of a queue after an instant (ms); None for none."""
        key = Keys(self.namespace, queue).at("fires")
        after = ("ZRANGEBYSCORE", key, f"({ms}", "+inf", "WITHSCORES", "LIMIT", 0, 1)
        [reply] = await self.run_all_sure([Call("fires", queue, (), _score, plain=after)])
        if isinstance(reply, Exception):
            raise reply
        found: float | None = reply
        return found

    async def schedule_queues(self) -> list[str]:
        """Queues that have, or had, schedules."""
        found = await self._read(lambda client: client.smembers(schedule_queues_key(self.namespace)))
        return sorted(name.decode() for name in found)

    async def tell_schedule_queue(self, queue: str, *, ended: bool = False) -> None:
        """Writes the hint that a queue has schedules, or strikes it out."""
        commands = self.clients.commands
        change = commands.srem if ended else commands.sadd
        await self._read(lambda _: change(schedule_queues_key(self.namespace), queue))

    async def schedules_declared(self, app: str) -> set[str]:
        """Names of schedules that the code of an app declares, or declared."""
        found = await self._read(lambda client: client.smembers(declared_key(self.namespace)))
        pairs = (member.decode().rpartition("|") for member in found)
        return {name for owner, _, name in pairs if owner == app}

    async def tell_declared(self, app: str, names: Sequence[str], *, gone: bool = False) -> None:
        """Notes that an app declares these schedules, or does no more."""
        commands = self.clients.commands
        change = commands.srem if gone else commands.sadd
        await self._read(lambda _: change(declared_key(self.namespace), *(f"{app}|{name}" for name in names)))


def _text(number: int | None) -> str | int:
    return "" if number is None else number


def _score(reply: Any) -> float | None:
    # A member and its score, in one list or, as RESP3 has it, in a list of its own.
    flat = reply[0] if reply and isinstance(reply[0], list | tuple) else reply
    return float(flat[1]) if flat else None

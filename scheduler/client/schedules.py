"""A schedule over HTTP: it is put, looked at, paused, triggered, deleted."""

from __future__ import annotations

from typing import Unpack

from ..documents import JobDocument
from ..job import Job, new_key
from ..shown import PreviewShown, ScheduleShown
from .options import ScheduleOptions, as_sent
from .transport import Transport, part


class Schedule:
    """What is enqueued again and again, and when."""

    def __init__(self, transport: Transport, name: str) -> None:
        self._transport = transport
        self.name = name
        self._path = f"/v1/schedules/{part(name)}"

    def __repr__(self) -> str:
        return f"<schedule {self.name}>"

    async def put(self, type: str, **fields: Unpack[ScheduleOptions]) -> ScheduleShown:
        """Makes it, or replaces it: jobs of this type, when `cron` says so or `every` so long. What is left out is as by default.

        Raises Invalid, and Duplicate when a schedule of another queue has the name.
        """
        body = {"type": type, **as_sent(fields)}
        return (await self._transport.call("PUT", self._path, body, safe=True)).read(ScheduleShown)

    async def show(self) -> ScheduleShown:
        """What it does, its next slots, what became of its last ones. Raises NotFound."""
        return (await self._transport.call("GET", self._path, safe=True)).read(ScheduleShown)

    async def pause(self) -> ScheduleShown:
        """It makes no jobs until it is resumed. Raises NotFound."""
        return (await self._transport.call("POST", f"{self._path}/pause", safe=True)).read(ScheduleShown)

    async def resume(self) -> ScheduleShown:
        """It goes on with its next slot from now. Raises NotFound."""
        return (await self._transport.call("POST", f"{self._path}/resume", safe=True)).read(ScheduleShown)

    async def trigger(self) -> Job:
        """A job of it now, whatever its times say. Raises NotFound, and TooMany where its queue is full."""
        headers = {"Idempotency-Key": new_key()}
        answer = await self._transport.call("POST", f"{self._path}/trigger", headers=headers, safe=True)
        return answer.read(JobDocument).job()

    async def preview(self, count: int = 10) -> list[str]:
        """Its next slots, also those that it would have if it were not paused. Raises NotFound."""
        answer = await self._transport.call("GET", f"{self._path}/preview", query={"count": count}, safe=True)
        return answer.read(PreviewShown).items

    async def delete(self) -> None:
        """Deletes it; the jobs that it has made stay. Raises NotFound."""
        await self._transport.call("DELETE", self._path, safe=False)

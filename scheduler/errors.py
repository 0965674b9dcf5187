"""What can go wrong. A class is a decision for its catcher; its message says which job, what, what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal


class SchedulerError(Exception):
    """The base of all errors of this package. They can be pickled: a pool of processes breaks by what cannot."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (type(self), self.args, self.__dict__)


def _remade(kind: type[SchedulerError], args: tuple[Any, ...], state: Mapping[str, Any]) -> SchedulerError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with what was sent. `path` is a JSON Pointer into it; "" is the whole of it."""

    path: str
    message: str


class Invalid(SchedulerError, ValueError):
    """What was sent cannot be taken, now or later. Mend what `faults` name."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__(
            "; ".join(f"{fault.path}: {fault.message}".removeprefix(": ") for fault in self.faults)
        )


class PayloadInvalid(SchedulerError, ValueError):
    """The payload does not fit the handler's annotations. Nothing was sent."""


class NotFound(SchedulerError):
    """There is no such job, queue or type."""


class WrongState(SchedulerError):
    """The job is in a state that refuses this. Look at `state` and decide anew."""

    def __init__(self, message: str, state: str) -> None:
        self.state = state
        super().__init__(message)


class Duplicate(SchedulerError):
    """The id belongs to a job of another request: choose another id. Or a unique key to another job, and this one was to be refused then."""

    def __init__(self, *job_ids: str) -> None:
        self.job_ids: tuple[str, ...] = job_ids
        """The jobs that stand."""
        shown = ", ".join(job_ids[:20]) + (" …" if len(job_ids) > 20 else "")
        is_taken = "is the id of another job" if len(job_ids) == 1 else "are ids of other jobs"
        super().__init__(f"{shown} {is_taken}: choose another id, or send the very same request to find it")


class KeyTaken(Duplicate):
    """A unique key is held by another job, and the request would have none but its own."""

    def __init__(self, *job_ids: str) -> None:
        super().__init__(*job_ids)
        shown = ", ".join(job_ids[:20]) + (" …" if len(job_ids) > 20 else "")
        self.args = (f"the unique key is held by {shown}: wait until it is free, or leave it to that job",)


class QueueFull(SchedulerError):
    """The queue holds as many waiting jobs as its max_length, or as many bytes as its max_bytes lets it. Try again in `retry_after` seconds.

    With `draining` the queue accepts no new job at all until it is resumed.
    """

    def __init__(self, queue: str, retry_after: int, *, draining: bool = False) -> None:
        self.queue, self.retry_after, self.draining = queue, retry_after, draining
        super().__init__(
            f"the queue {queue} is draining: it accepts no new job until it is resumed"
            if draining
            else f"the queue {queue} is full: as many jobs wait as its max_length or max_bytes lets; try again in {retry_after} s"
        )


class Changed(SchedulerError):
    """Somebody else changed it in between. Read it again."""


class Outrun(SchedulerError):
    """The operation has ended, or somebody else has carried out this page of it. Read it again."""


class LeaseLost(SchedulerError):
    """The job was reclaimed: another worker may be running it. Stop, and do not ack."""


class StoreUnavailable(SchedulerError):
    """Redis is away, silent, or refuses for the moment. Repeat the same call with the same ids later.

    `unknown` says that the call may have been carried out all the same.
    """

    def __init__(self, message: str, *, unknown: bool = False) -> None:
        self.unknown = unknown
        super().__init__(message)


class StoreFull(SchedulerError):
    """Redis has no memory for new bytes. Workers go on and make room; repeat later."""


class StoreRefused(SchedulerError):
    """Redis refuses what cannot be mended by repeating: rights, a foreign key, an unknown layout or level."""


class ItemRefused(StoreRefused):
    """A script, or the server, refuses what one item of the call is. Others are not concerned, and repeating will not help."""


class JobDead(SchedulerError):
    """The job whose result was asked for ended in the dead-letter queue. `job` is what it is now."""

    def __init__(self, job: Any) -> None:
        self.job = job
        last = job.errors[-1] if job.errors else None
        what = f": {last.kind}: {last.message}" if last else ""
        super().__init__(f"job {job.id} is dead by {job.reason}{what}")


class JobCancelled(SchedulerError):
    """The job whose result was asked for was cancelled. `job` is what it is now."""

    def __init__(self, job: Any) -> None:
        self.job = job
        super().__init__(f"job {job.id} was cancelled ({job.reason})")


class HandlerMissing(SchedulerError):
    """No handler has this type's name."""


class Permanent(Exception):
    """Raised by a handler: the job must not be tried again. It is dead at once."""


class RetryAfter(Exception):
    """Raised by a handler: try again in this many seconds. The attempt is used.

    With `scope` "type" or "group" no other job of its type, or of its group, starts until then either.
    """

    def __init__(
        self, seconds: float, message: str = "", *, scope: Literal["type", "group"] | None = None
    ) -> None:
        if not 0 <= seconds <= 7 * 86_400:
            raise ValueError(f"RetryAfter takes 0 to 604800 seconds, not {seconds}")
        if scope not in {None, "type", "group"}:
            raise ValueError(f'the scope of RetryAfter is "type" or "group", not {scope!r}')
        self.seconds, self.scope = seconds, scope
        super().__init__(message or f"asked to be tried again in {seconds} s")


class HandlerFailed(Exception):
    """A handler's failure as it came from a process of its own.

    `verb` says what it means for the job: nack, bury or release (a snooze); `seconds` is a delay it asked for, `scope` whom that
    slows besides: type, group or, when empty, nobody.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        trace: str = "",
        verb: str = "nack",
        seconds: float | None = None,
        scope: str = "",
        where: str = "",
    ) -> None:
        self.where = where
        """The last frame of the user's own code."""
        self.kind, self.message, self.trace, self.verb = kind, message, trace, verb
        self.seconds, self.scope = seconds, scope
        super().__init__(f"{kind}: {message}")


class Snooze(BaseException):
    """Ends an attempt without using it: the job is scheduled again in `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"snoozed for {seconds} s")

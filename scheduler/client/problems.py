"""What the API refuses, as errors: those of the package, with the problem's fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import errors
from ..errors import Fault, SchedulerError


class Problem(SchedulerError):
    """A call that was refused (RFC 9457). Decide by `code`; `detail` is for people; `errors` say what to mend."""

    def __init__(self, document: Mapping[str, Any], *, retry_after: float | None = None) -> None:
        self.document = document
        """The problem as it came."""
        self.status = int(document.get("status", 0))
        self.code = str(document.get("code", "unknown"))
        self.detail = str(document.get("detail", ""))
        said = document.get("errors")
        # What stands before the API may say `errors` of its own, in whatever form.
        self.errors = tuple(
            Fault(str(one.get("path", "")), str(one.get("message", "")))
            for one in (said if isinstance(said, list) else ())
            if isinstance(one, Mapping)
        )
        self.id = document.get("id")
        """The job that the call is about, where it may stand although the call failed."""
        self.retry_after = retry_after
        """Seconds after which the same call may be repeated; None where nobody says."""
        self.about(self.id)
        Exception.__init__(self, f"{self.code}: {self.detail}" if self.detail else self.code)

    def about(self, job_id: str | None) -> None:
        """Names the job that the call was about, where the problem itself names none."""
        self.id = self.id or job_id


class Unauthorized(Problem):
    """The key is missing or wrong."""


class Forbidden(Problem):
    """The key does not allow this."""


class NotFound(Problem, errors.NotFound):
    """There is no such thing."""


class WrongState(Problem, errors.WrongState):
    """The job is in a state that refuses this: `state`."""

    def __init__(self, document: Mapping[str, Any], *, retry_after: float | None = None) -> None:
        Problem.__init__(self, document, retry_after=retry_after)
        self.state = str(document.get("state", ""))


class Duplicate(Problem, errors.Duplicate):
    """The id belongs to a job of another request, or the unique key is held by another job: `id` is the one that stands."""

    def about(self, job_id: str | None) -> None:
        """Names the job that stands, where the problem itself names none."""
        super().about(job_id)
        self.job_ids = () if self.id is None else (str(self.id),)


class LeaseLost(Problem, errors.LeaseLost):
    """The job was given to another worker."""


class Changed(Problem, errors.Changed):
    """Somebody else changed it in between."""


class Invalid(Problem, errors.Invalid):
    """What was sent cannot be taken, now or later. Mend what `errors` name."""

    def __init__(self, document: Mapping[str, Any], *, retry_after: float | None = None) -> None:
        Problem.__init__(self, document, retry_after=retry_after)
        self.faults = self.errors or (Fault("", self.detail),)


class TooMany(Problem):
    """The queue is full, or calls come too fast: repeat after `retry_after` seconds."""


class StoreFull(Problem, errors.StoreFull):
    """The store has no memory for new bytes: repeat later."""


class StoreUnavailable(Problem, errors.StoreUnavailable):
    """The service or its store is away for the moment. Repeat the same call with the same ids later.

    `unknown` says that the call may have been carried out all the same.
    """

    def __init__(
        self, document: Mapping[str, Any], *, retry_after: float | None = None, unknown: bool = True
    ) -> None:
        Problem.__init__(self, document, retry_after=retry_after)
        self.unknown = unknown


class Unreachable(StoreUnavailable):
    """No answer came: the service is away, too slow, or the connection broke. `status` is 0."""

    def __init__(self, detail: str, *, unknown: bool = True) -> None:
        super().__init__({"status": 0, "code": "unreachable", "detail": detail}, unknown=unknown)


KINDS: Mapping[str, type[Problem]] = {
    "unauthorized": Unauthorized,
    "forbidden": Forbidden,
    "not_found": NotFound,
    "wrong_state": WrongState,
    "duplicate": Duplicate,
    "stale_lease": LeaseLost,
    "precondition_failed": Changed,
    "validation": Invalid,
    "too_large": Invalid,
    "idempotency_mismatch": Invalid,
    "queue_full": TooMany,
    "rate_limited": TooMany,
    "store_unavailable": StoreUnavailable,
    "store_full": StoreFull,
}

PASSING = (502, 503, 504)
"""What a gateway answers in place of a service that is away."""


def problem_of(document: Mapping[str, Any], *, retry_after: float | None = None) -> Problem:
    """The error that a problem document is."""
    kind = KINDS.get(str(document.get("code")), Problem)
    if kind is Problem and document.get("status") in PASSING:
        kind = StoreUnavailable
    return kind(document, retry_after=retry_after)

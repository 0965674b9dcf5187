"""Errors as problem documents (RFC 9457): the one table from what goes wrong to what is answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from aiohttp import web

from .. import errors
from ..errors import Fault
from ..logs import get_logger
from .parts import ENQUEUED_ID, REQUEST_ID

log = get_logger(__name__)

PROBLEM_JSON = "application/problem+json"

CODES: Mapping[str, tuple[int, str]] = {
    "invalid_json": (400, "The body is not valid JSON"),
    "bad_request": (400, "The request is not valid HTTP"),
    "unauthorized": (401, "A key is needed"),
    "forbidden": (403, "This is not allowed"),
    "not_found": (404, "There is no such thing"),
    "method_not_allowed": (405, "This address takes other methods"),
    "request_timeout": (408, "The request came too slowly"),
    "wrong_state": (409, "It is in a state that refuses this"),
    "stale_lease": (409, "The lease is lost"),
    "duplicate": (409, "The id is taken by another request"),
    "precondition_failed": (412, "It was changed in between"),
    "too_large": (413, "Too large"),
    "unsupported_media_type": (415, "The body is not of a type that is taken here"),
    "misdirected_request": (421, "The request names another host"),
    "validation": (422, "The request says something that cannot be taken"),
    "idempotency_mismatch": (422, "The Idempotency-Key belongs to another request"),
    "queue_full": (429, "The queue is full"),
    "headers_too_large": (431, "The headers are too many or too large"),
    "internal": (500, "Something went wrong here"),
    "store_unavailable": (503, "The store is away"),
    "store_full": (507, "The store is full"),
}
"""Every code with its status and title."""


class Refusal(Exception):
    """A problem that is known as such where it is found."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
        status: int | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.faults = faults
        self.headers = headers or {}
        self.members = members or {}
        self.status = status or CODES[code][0]
        self.close = close


def _invalid(error: errors.Invalid) -> Refusal:
    return Refusal("validation", str(error), faults=error.faults)


def _wrong_state(error: errors.WrongState) -> Refusal:
    return Refusal("wrong_state", str(error), members={"state": error.state})


def _unavailable(error: errors.StoreUnavailable) -> Refusal:
    log.debug("store unavailable", error=str(error))
    detail = "the store is away or refuses for the moment: repeat the call a little later"
    return Refusal("store_unavailable", detail, headers={"Retry-After": "1"})


def _refused(error: errors.StoreRefused) -> Refusal:
    log.error("the store refuses", error=str(error))
    detail = "the store refuses this call until its operator mends what the log of this service says"
    return Refusal("store_unavailable", detail, headers={"Retry-After": "30"})


def _full(error: errors.StoreFull) -> Refusal:
    log.debug("store full", error=str(error))
    detail = "the store has no memory for new bytes: workers make room, repeat the call later"
    return Refusal("store_full", detail, headers={"Retry-After": "10"})


def _taken(error: errors.KeyTaken) -> Refusal:
    return Refusal("duplicate", str(error), members={"id": error.job_ids[0]})


def _queue_full(error: errors.QueueFull) -> Refusal:
    return Refusal(
        "queue_full",
        str(error),
        headers={"Retry-After": str(error.retry_after)},
        members={"retry_after": error.retry_after},
    )


def _as(code: str) -> Callable[[Any], Refusal]:
    return lambda error: Refusal(code, str(error))


TABLE: Mapping[type[Exception], Callable[[Any], Refusal]] = {
    Refusal: lambda error: error,
    errors.Invalid: _invalid,
    errors.NotFound: _as("not_found"),
    errors.WrongState: _wrong_state,
    errors.Duplicate: _as("duplicate"),
    errors.KeyTaken: _taken,
    errors.QueueFull: _queue_full,
    errors.Changed: _as("precondition_failed"),
    errors.LeaseLost: _as("stale_lease"),
    errors.StoreUnavailable: _unavailable,
    errors.StoreFull: _full,
    errors.StoreRefused: _refused,
}


def answer(error: Exception, request: web.BaseRequest) -> web.Response:
    """The problem that an error is for the caller. What is in no table is logged, and `internal`."""
    if isinstance(error, web.HTTPException):
        return render(_of_http(error))
    refusal = refusal_of(error, request.get(ENQUEUED_ID))
    if refusal is not None:
        return render(refusal)
    log.error(
        "a request failed",
        request_id=request.get(REQUEST_ID),
        method=request.method,
        path=request.path[:200],
        exc_info=error,
    )
    return render(Refusal("internal", "the log of this service says more, under the id of this request"))


def refusal_of(error: Exception, enqueued_id: str | None = None) -> Refusal | None:
    """What the table says of an error, met while this job was enqueued; None for what is in no table."""
    for kind in type(error).__mro__:
        if made := TABLE.get(kind):
            refusal = made(error)
            # The job may be there all the same: by this id the caller finds out, and repeats safely.
            if isinstance(error, errors.StoreUnavailable) and error.unknown and enqueued_id is not None:
                refusal.members = {"id": enqueued_id}
                refusal.detail = (
                    "the store was lost in between, the job may stand: repeat the call with this id"
                )
            return refusal
    return None


def _of_http(error: web.HTTPException) -> Refusal:
    """What aiohttp refuses by itself."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return Refusal("method_not_allowed", f"it takes {allowed}", headers={"Allow": allowed})
    codes = {404: "not_found", 413: "too_large", 415: "unsupported_media_type"}
    code = codes.get(error.status, "internal" if error.status >= 500 else "bad_request")
    details = {404: "there is nothing at this address; GET /openapi.json lists what there is"}
    return Refusal(code, details.get(error.status, CODES[code][1].lower()), status=error.status)


def render(refusal: Refusal) -> web.Response:
    """A problem as an answer. Bodies of one code are equal, unless what was sent is named in them."""
    response = web.Response(
        body=orjson.dumps(document(refusal)),
        status=refusal.status,
        headers={"Content-Type": PROBLEM_JSON, **refusal.headers},
    )
    if refusal.close:
        response.force_close()
    return response


def document(refusal: Refusal) -> dict[str, Any]:
    """The problem as documents show it."""
    shown: dict[str, Any] = {
        "type": f"urn:scheduler:problem:{refusal.code}",
        "title": CODES[refusal.code][1],
        "status": refusal.status,
        "detail": refusal.detail,
        "code": refusal.code,
        **refusal.members,
    }
    if refusal.faults:
        shown["errors"] = [{"path": fault.path, "message": fault.message} for fault in refusal.faults]
    return shown

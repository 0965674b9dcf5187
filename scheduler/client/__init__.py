"""The client over HTTP, for programs that may not reach Redis: enqueue, look, wait, work."""

from __future__ import annotations

from ..documents import Leased, Listed
from .client import Client, Flow, Handle, Queue, Sending
from .lines import Outcome
from .problems import (
    Changed,
    Duplicate,
    Forbidden,
    Invalid,
    LeaseLost,
    NotFound,
    Problem,
    StoreFull,
    StoreUnavailable,
    TooMany,
    Unauthorized,
    Unreachable,
    WrongState,
)
from .schedules import Schedule
from .sync import SyncClient, SyncFlow, SyncHandle, SyncQueue, SyncSchedule

__all__ = [
    "Changed",
    "Client",
    "Duplicate",
    "Flow",
    "Forbidden",
    "Handle",
    "Invalid",
    "LeaseLost",
    "Leased",
    "Listed",
    "NotFound",
    "Outcome",
    "Problem",
    "Queue",
    "Schedule",
    "Sending",
    "StoreFull",
    "StoreUnavailable",
    "SyncClient",
    "SyncFlow",
    "SyncHandle",
    "SyncQueue",
    "SyncSchedule",
    "TooMany",
    "Unauthorized",
    "Unreachable",
    "WrongState",
]

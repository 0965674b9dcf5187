"""A job scheduler on Redis that loses nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from . import shipped
    from .app import JobFunction, Scheduler
    from .context import Context
    from .errors import (
        Duplicate,
        Invalid,
        JobCancelled,
        JobDead,
        NotFound,
        PayloadInvalid,
        Permanent,
        QueueFull,
        RetryAfter,
        SchedulerError,
        StoreFull,
        StoreRefused,
        StoreUnavailable,
        WrongState,
    )
    from .graph import Graph, chain, chord, parallel
    from .handlers import Middleware
    from .handles import FlowHandle, Handle, SyncFlowHandle, SyncHandle
    from .job import Job, NewJob, State
    from .retry import Retry
    from .settings import Settings

_HOMES = {
    "Handle": "handles", "FlowHandle": "handles", "SyncFlowHandle": "handles", "Graph": "graph", "chain": "graph", "chord": "graph",
    "parallel": "graph", "JobFunction": "app", "Scheduler": "app", "SyncHandle": "handles", "Context": "context", "Job": "job", "State": "job",
    "NewJob": "job", "Middleware": "handlers",
    "Retry": "retry", "Settings": "settings",
} | dict.fromkeys(
    ("Duplicate", "Invalid", "JobCancelled", "JobDead", "NotFound", "PayloadInvalid", "Permanent", "QueueFull", "RetryAfter",
     "SchedulerError", "StoreFull", "StoreRefused", "StoreUnavailable", "WrongState"),
    "errors",
)  # fmt: skip

__all__ = [
    "Context",
    "Duplicate",
    "FlowHandle",
    "Graph",
    "Handle",
    "Invalid",
    "Job",
    "JobCancelled",
    "JobDead",
    "JobFunction",
    "Middleware",
    "NewJob",
    "NotFound",
    "PayloadInvalid",
    "Permanent",
    "QueueFull",
    "Retry",
    "RetryAfter",
    "Scheduler",
    "SchedulerError",
    "Settings",
    "State",
    "StoreFull",
    "StoreRefused",
    "StoreUnavailable",
    "SyncFlowHandle",
    "SyncHandle",
    "WrongState",
    "__version__",
    "chain",
    "chord",
    "parallel",
    "shipped",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # Names come when they are asked for: `import scheduler` and the command line stay quick.
    from importlib import import_module  # noqa: PLC0415

    if name == "shipped":  # a module, for `app.include(scheduler.shipped)`
        return import_module(".shipped", __name__)
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'scheduler' has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)

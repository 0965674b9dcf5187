"""The types that come with the scheduler: `app.include(scheduler.shipped)` adds them to an app."""

from .demo import HANDLERS

__all__ = ["HANDLERS"]

"""The types that come with the scheduler: `app.include(scheduler.shipped)` adds them to an app."""

from . import demo, http_request

HANDLERS = (*demo.HANDLERS, *http_request.HANDLERS)

__all__ = ["HANDLERS"]

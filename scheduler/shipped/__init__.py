"""The types that come with the scheduler: `app.include(scheduler.shipped)` adds them to an app."""

from . import demo, email_send, http_request

HANDLERS = (*demo.HANDLERS, *http_request.HANDLERS, *email_send.HANDLERS)

__all__ = ["HANDLERS"]

"""demo.echo, demo.sleep and demo.fail: to see the scheduler at work before there is anything to run."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec

from ..context import Context
from ..handlers import make_handler
from ..retry import Retry


class DemoFailure(Exception):
    """What demo.fail fails with."""


async def echo(ctx: Context, **payload: Any) -> msgspec.Raw:  # noqa: ARG001 - any object is taken
    """Gives back its payload, byte for byte."""
    return msgspec.Raw(ctx.payload)


async def sleep(ctx: Context, seconds: Annotated[float, msgspec.Meta(ge=0, le=604_800)]) -> dict[str, float]:
    """Sleeps, and tells every second how far it is."""
    left = seconds
    while left > 0:
        await asyncio.sleep(min(left, 1.0))
        left -= 1.0
        if seconds > 1:
            ctx.progress(round(100 * min(1.0, 1 - max(left, 0) / seconds)))
    return {"slept": seconds}


async def fail(ctx: Context, message: str = "failed as asked") -> None:  # noqa: ARG001 - it tells nothing
    """Fails, every time."""
    raise DemoFailure(message)


RETRY = Retry(max_attempts=5)
"""A demonstration shows a dead letter within seconds; the default of 20 attempts takes hours."""

HANDLERS = (
    make_handler("demo.echo", echo, retry=RETRY),
    make_handler("demo.sleep", sleep, retry=RETRY),
    make_handler("demo.fail", fail, retry=RETRY),
)

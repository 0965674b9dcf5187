"""Calls a shipped handler as a worker does, on one attempt of a job that is made up."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from scheduler import shipped
from scheduler.context import Context
from scheduler.handlers import Handlers
from scheduler.job import Claimed, Record
from scheduler.settings import Settings

CERTIFICATE = Path(__file__).parent / "localhost.pem"
"""Of localhost, hooks.corp, mail.corp and 127.0.0.1, signed by itself, with its key."""


def server_tls() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    return context


HANDLERS = Handlers()
for each in shipped.HANDLERS:
    HANDLERS.add(each)


@dataclass
class Attempts:
    """The attempts of one job, of which each finds the checkpoint of the one before."""

    type: str
    settings: Settings
    key: str = "a-key"
    checkpoint: bytes = b""
    log: list[str] = field(default_factory=list)
    count: int = 0

    async def __call__(self, raw: bytes | None = None, **payload: Any) -> Any:
        encoded = msgspec.json.encode(payload) if raw is None else raw
        handler = HANDLERS.find(self.type)
        self.count += 1
        record = Record(self.type, None, "", 1_800_000_000_000, 0, "", "", {}, encoded)
        claimed = Claimed(
            "mail", self.key, self.count, self.count, 0, 0, 60_000, record, checkpoint=self.checkpoint
        )
        context = Context(claimed, self._tell, self.settings)
        result = await handler.function(context, **handler.decode(encoded))
        return msgspec.json.decode(msgspec.json.encode(result))

    def _tell(self, _claimed: Claimed, what: str, value: Any) -> None:
        if what == "checkpoint":
            self.checkpoint = value
        if what == "log":
            self.log.append(value.decode())

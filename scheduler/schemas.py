"""The JSON Schemas of types: payloads are checked against them at the doors. Scripts know nothing of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING

import orjson

from .errors import Fault, Invalid
from .store import Store

if TYPE_CHECKING:
    from jsonschema_rs import Draft202012Validator

FRESH = 1.0
"""Seconds after which what was read of schemas is read again."""

DIALECT = "https://json-schema.org/draft/2020-12/schema"

MOST_FAULTS = 20
"""Faults of one payload that are told."""

LONGEST = 300
"""Characters of a fault's message."""


_NONE: Mapping[str, bytes] = {}


class SchemaInvalid(ValueError):
    """What was given is no schema. `path`: a JSON Pointer into it."""

    def __init__(self, path: str, message: str) -> None:
        self.path = path
        super().__init__(message)


def compiled(schema: bytes) -> Draft202012Validator:
    """What checks against a schema, JSON Schema 2020-12. Raises SchemaInvalid; fetches nothing that it refers to."""
    # Imported at the first schema: most deployments have none.
    from jsonschema_rs import Draft202012Validator, ValidationError  # noqa: PLC0415

    try:
        document = orjson.loads(schema)
    except ValueError as error:
        raise SchemaInvalid("", f"this is no JSON: {error}") from None
    if isinstance(document, dict) and document.get("$schema", DIALECT) not in (DIALECT, DIALECT + "#"):
        raise SchemaInvalid("/$schema", f"schemas are of {DIALECT}: leave $schema out, or say so")
    try:
        return Draft202012Validator(document, offline=True, validate_formats=True)
    except ValidationError as error:
        raise SchemaInvalid(_pointer(error.instance_path), _cut(error.message)) from None
    except ValueError as error:
        raise SchemaInvalid("", _cut(str(error))) from None


class Schemas:
    """The schemas of a namespace, as they were at most a second ago; what this process changes counts at once."""

    def __init__(self, store: Store, *, now: Callable[[], float] = monotonic) -> None:
        self._store = store
        self._now = now
        self._queues: frozenset[str] = frozenset()
        self._read_at = float("-inf")
        self._types: dict[str, tuple[float, Mapping[str, bytes]]] = {}
        self._compiled: dict[bytes, Draft202012Validator] = {}
        self._reading = asyncio.Lock()

    async def of(self, queue: str) -> Mapping[str, bytes]:
        """The schemas of a queue's types."""
        if self._now() - self._read_at > FRESH:
            await self._read_queues()
        if queue not in self._queues:
            return _NONE
        read_at, types = self._types.get(queue, (float("-inf"), _NONE))
        if self._now() - read_at > FRESH:
            types = await self._read_types(queue)
        return types

    async def check(self, queue: str, job_type: str, payload: bytes) -> None:
        """Raises Invalid with what is wrong with a payload, unless its type has no schema."""
        schema = (await self.of(queue)).get(job_type)
        if schema is not None and (faults := self._faults(schema, payload)):
            raise Invalid(faults)

    async def check_edit(self, queue: str, key: str, payload: bytes) -> None:
        """The same for another payload of a job that stands."""
        if await self.of(queue):
            [job] = await self._store.inspect(queue, [key])
            if job is not None:
                await self.check(queue, job.type, payload)

    def changed(self, queue: str) -> None:
        """This process has changed a type of this queue."""
        self._read_at = float("-inf")
        self._types.pop(queue, None)

    def _faults(self, schema: bytes, payload: bytes) -> list[Fault]:
        check = self._compiled.get(schema)
        if check is None:
            try:
                check = compiled(schema)
            except SchemaInvalid:
                # Of a release that knows more: it is that one's to check.
                return []
            if len(self._compiled) > 1_000:
                self._compiled.clear()
            self._compiled[schema] = check
        document = orjson.loads(payload)
        if check.is_valid(document):
            return []
        found = []
        for error in check.iter_errors(document):
            found.append(Fault("/payload" + _pointer(error.instance_path), _cut(error.message)))
            if len(found) == MOST_FAULTS:
                break
        return found

    async def _read_queues(self) -> None:
        # Of many who find it old, one reads.
        async with self._reading:
            if self._now() - self._read_at <= FRESH:
                return
            began = self._now()
            self._queues = frozenset(await self._store.queues_with_schemas())
            self._read_at = began

    async def _read_types(self, queue: str) -> Mapping[str, bytes]:
        began = self._now()
        types = {
            name: as_set.schema
            for name, (as_set, _) in (await self._store.types(queue)).items()
            if as_set.schema is not None
        }
        self._types[queue] = began, types
        return types


def _pointer(path: list[str | int]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"

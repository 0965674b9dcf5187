"""The OpenAPI 3.1 document, made from the table of routes and the types they take and answer."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
import orjson

from .. import __version__
from ..shown import FlowShown, JobShown, OperationShown, Problem
from .examples import ANSWERED, SENT, problem
from .lines import NDJSON
from .once import HEADER, LONGEST
from .problems import CODES, PROBLEM_JSON
from .routes import Answer, Route

_REF = "#/components/schemas/{name}"
_EVERY = ("unauthorized", "internal", "store_unavailable")
_BODY = ("invalid_json", "bad_request", "request_timeout", "too_large", "unsupported_media_type")

_PATH_PARAMS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "id": ("The id of a job, as it was answered.", {"type": "string"}),
    "queue": ("The name of a queue.", {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}),
    "flow": ("The id of a flow, as it was answered.", {"type": "string"}),
    "operation": ("The id of an operation, as it was answered.", {"type": "string"}),
    "schedule": (
        "The name of a schedule.",
        {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
    ),
    "group": ("The name of a group.", {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"}),
    "type": ("The name of a type.", {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}),
}
_HEADERS: Mapping[str, Mapping[str, Any]] = {
    "ETag": {
        "description": "The version of what is configured: the queue's configuration, or the schedule.",
        "schema": {"type": "string"},
    },
    "Idempotent-Replayed": {
        "description": "`true`: this is the answer to a former request of the same Idempotency-Key.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Location": {"description": "Where it is.", "schema": {"type": "string"}},
    "Retry-After": {
        "description": "Seconds to wait before the call is repeated.",
        "schema": {"type": "integer"},
    },
    "Allow": {"description": "What this address takes.", "schema": {"type": "string"}},
    "WWW-Authenticate": {"description": "How to send the key.", "schema": {"type": "string"}},
    "X-Request-Id": {"description": "What the log calls this request.", "schema": {"type": "string"}},
}


_ABOUT = """Jobs go in, workers lease them, settle them, and none is lost.

- **Base** `/v1`, JSON, UTF-8. A field or query parameter that nobody knows is refused by its name.
- **Times** go out as RFC 3339 with milliseconds and `Z`, and come in as RFC 3339 with an offset. **Durations** come in as seconds or as `"250ms" "30s" "5m" "2h" "7d"`,
  and go out as seconds. A **rate** is `"100/m"` or `{"limit", "per", "burst"?}`.
- **Errors** are `application/problem+json` (RFC 9457): decide by `code`, show `detail`; `errors[].path` is a JSON Pointer into the body, or `/name` of a query parameter.
  A 503 and a 507 have `Retry-After`; with an `id` the job may stand: repeat the call with this id.
- **Lists** answer `items` and `next_cursor`. A page may be short, or empty, and still have a cursor: only `null` is the end.
- **Configuration** carries an `ETag`; an `If-Match` that does not fit is a 412, and so is `If-None-Match: *` on PUT of what stands. A GET with `If-None-Match` is a 304 while nothing changed.
- **Keys**: `Authorization: Bearer …`, where the server has one.
- Every answer has an `X-Request-Id`: the one that was sent, if it is 1 to 128 of `[A-Za-z0-9._-]`.
"""

_TAGS = {
    "jobs": "Enqueue jobs, look at them, change them while they wait, cancel them.",
    "work": "Lease jobs and settle them: a worker in any language.",
    "flows": "Graphs of jobs that wait for each other: put in whole, watched, cancelled, replayed.",
    "queues": "What stands in queues, what they keep, how fast they go; pause, purge, obliterate.",
    "types": "Retry policy, timeout, payload schema and limits of a queue's types.",
    "groups": "Weights and limits of a queue's groups: tenants, customers, whatever takes turns.",
    "dlq": "The dead-letter queue: what died, of what, and how to run it again.",
    "schedules": "What is enqueued again and again, and when.",
    "operations": "Acts over all jobs that match, which run on the server.",
    "stats": "Rates and percentiles; how much there is to do, for autoscalers.",
    "workers": "Who works, and on what.",
    "health": "Is it alive, is it ready?",
}
_LINKED: Mapping[tuple[int, Answer], str] = {
    (201, JobShown): "id",
    (202, OperationShown): "operation",
    (201, FlowShown): "flow",
}
"""What is new is followed by calls whose address has its id, under this name."""
_TAG_OF = {"lists": "jobs", "change": "jobs", "bulk": "jobs", "lease": "work", "settle": "work"}
_EXAMPLES = {kind.__name__: example for kind, example in ({**SENT, **ANSWERED}).items()}


def document(routes: Sequence[Route], *, key: bool, prefix: str = "") -> dict[str, Any]:
    """The document of these routes. `key`: whether a key is needed here. `prefix`: the path that a proxy puts before all."""
    types: list[Any] = [Problem]
    for route in routes:
        for kind in (route.body, *route.answers.values()):
            types += kind if isinstance(kind, tuple) else [] if kind is None else [kind]
        types += [route.lines.takes, route.lines.answers, route.lines.ends] if route.lines else []
    _, schemas = msgspec.json.schema_components(list(dict.fromkeys(types)), ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, routes, key=key)
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "scheduler",
            "version": __version__,
            "description": _ABOUT,
        },
        **({"servers": [{"url": prefix}]} if prefix else {}),
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": {name: _with_example(name, _tidy(schema)) for name, schema in sorted(schemas.items())},
            "links": {
                name: _link(name, parameter)
                for parameter in _LINKED.values()
                for name in _following(routes, parameter)
            },
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }
    return made


def _operation(route: Route, routes: Sequence[Route], *, key: bool) -> dict[str, Any]:
    text = inspect.getdoc(route.handler) or ""
    module = route.handler.__module__.rpartition(".")[2]
    made: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "tags": [_TAG_OF.get(module, module)],
        # Text, and no Markdown: the page shows it as it is.
        "summary": re.split(r"(?<=[.:]) ", text, maxsplit=1)[0].rstrip(".:").replace("`", ""),
        "description": text,
        "parameters": [*_parameters(route)],
        "responses": {
            str(status): _answer(route, status, kind) | _links(status, kind, routes)
            for status, kind in route.answers.items()
        }
        | _problems(route, key=key),
    }
    if not made["parameters"]:
        del made["parameters"]
    if route.body is not None:
        [schema], _ = msgspec.json.schema_components([route.body], ref_template=_REF)
        content = {"application/json": {"schema": schema}}
        if route.lines is not None:
            content[NDJSON] = _lines("One document a line; blank lines count for nothing.", route.lines.takes)
        made["requestBody"] = {"required": not route.optional, "content": content}
    if key and not route.open:
        made["security"] = [{"key": []}]
    return made


def _parameters(route: Route) -> list[dict[str, Any]]:
    found = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PATH_PARAMS[name][0],
            "schema": _PATH_PARAMS[name][1],
        }
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    found += [
        {"name": name, "in": "query", "description": p.doc, "schema": p.schema}
        | ({"required": True} if p.required else {})
        for name, p in route.query.items()
    ]
    configured = "precondition_failed" in route.codes and "{id}" not in route.path
    if configured:
        found.append(_header("If-Match", "Only while this ETag is the one that stands."))
    if configured and route.method == "PUT":
        found.append(_header("If-None-Match", "`*`: only while there is none yet."))
    if 304 in route.answers:
        found.append(_header("If-None-Match", "A 304 without a body while this ETag is the one that stands."))
    if route.once:
        schema = {"type": "string", "pattern": f"^[!-~]{{1,{LONGEST}}}$"}
        words = "The same request again with it is answered as the first time; another request: 422."
        found.append({"name": HEADER, "in": "header", "description": words, "schema": schema})
    return found


def _header(name: str, words: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": words, "schema": {"type": "string"}}


def _answer(route: Route, status: int, kind: Answer) -> dict[str, Any]:
    made: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    names = [
        name
        for name in (*route.headers, "X-Request-Id")
        if name != "Location" or status == HTTPStatus.CREATED
    ]
    if route.once:
        names.append("Idempotent-Replayed")
    made["headers"] = {name: _HEADERS[name] for name in names}
    if kind is not None:
        kinds = kind if isinstance(kind, tuple) else (kind,)
        made["content"] = {"application/json": {"schema": _one_of(kinds)}}
        if route.lines is not None:
            words = "One document a line, in the order of what was sent; the last line ends it."
            made["content"][NDJSON] = _lines(words, route.lines.answers, route.lines.ends)
    return made


def _links(status: int, kind: Answer, routes: Sequence[Route]) -> dict[str, Any]:
    parameter = _LINKED.get((status, kind))
    if parameter is None:
        return {}
    return {"links": {name: {"$ref": f"#/components/links/{name}"} for name in _following(routes, parameter)}}


def _following(routes: Sequence[Route], parameter: str) -> list[str]:
    return [route.handler.__name__ for route in routes if f"{{{parameter}}}" in route.path]


def _link(name: str, parameter: str) -> dict[str, Any]:
    return {"operationId": name, "parameters": {parameter: "$response.body#/id"}}


def _lines(words: str, *kinds: type[msgspec.Struct]) -> dict[str, Any]:
    """NDJSON. OpenAPI 3.1 has no word for the type of a line, 3.2 calls it `itemSchema`."""
    return {"schema": {"type": "string", "description": words}, "x-item-schema": _one_of(kinds)}


def _one_of(kinds: Sequence[type[msgspec.Struct]]) -> dict[str, Any]:
    schemas = [{"$ref": _REF.format(name=kind.__name__)} for kind in kinds]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def codes_of(route: Route, *, key: bool) -> list[str]:
    """Every problem that a call may have; without a `key`, nobody is asked for one."""
    codes = [*route.codes, "headers_too_large", *(() if key else ("misdirected_request",))]
    if not route.open:
        codes += [code for code in _EVERY if code != "unauthorized" or key]
        codes += ["forbidden"] if route.method != "GET" and not key else []
    if route.lines is not None and not route.once:
        # Of many jobs each is answered for itself: that the store is away is said at their places, unless an answer is kept.
        codes.remove("store_unavailable")
    codes += ["idempotency_mismatch"] if route.once else []
    codes += [*(_BODY if route.body is not None else ()), "validation"]
    return list(dict.fromkeys(codes))


def _problems(route: Route, *, key: bool) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for code in codes_of(route, key=key):
        by_status.setdefault(CODES[code][0], []).append(code)
    extra = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After", 507: "Retry-After"}
    return {
        str(status): {
            "description": "; ".join(f"`{code}`: {CODES[code][1]}" for code in found),
            "headers": {name: _HEADERS[name] for name in ("X-Request-Id", extra.get(status)) if name},
            "content": {
                PROBLEM_JSON: {
                    "schema": {"$ref": _REF.format(name="Problem")},
                    "examples": {code: {"value": problem(code)} for code in found},
                }
            },
        }
        for status, found in sorted(by_status.items())
    }


def _with_example(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return schema | {"examples": [_EXAMPLES[name]]} if name in _EXAMPLES else schema


def _optional(schema: Any) -> Any:
    """A property without `default`, which generators of clients take for "always there"; what it is stands in the text."""
    if not isinstance(schema, dict) or "default" not in schema:
        return schema
    made = {name: value for name, value in schema.items() if name != "default"}
    if (default := schema["default"]) is not None:
        words = f"Default: {orjson.dumps(default).decode()}."
        made["description"] = f"{made['description']} {words}" if made.get("description") else words
    return made


def _tidy(schema: Any) -> Any:
    """Integers where whole numbers are meant (see fields.py); the three forms of a duration as two."""
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _tidy(value) for name, value in schema.items()}
    if made.get("enum") == [True]:
        made = {"type": "boolean"}  # generators of clients know no enumeration of this
    if isinstance(made.get("properties"), dict):
        made["properties"] = {name: _optional(value) for name, value in made["properties"].items()}
    if made.pop("x-whole", False):
        made["type"] = "integer"
    if bounds := made.pop("x-duration", None):
        more_than_0 = r"(?!0+(\.0+)?[a-z])" if bounds[0] else ""
        made["anyOf"] = [
            {"type": "number", "minimum": bounds[0], "maximum": bounds[1]},
            {"type": "string", "pattern": rf"^{more_than_0}[0-9]{{1,15}}(\.[0-9]{{1,9}})?(ms|s|m|h|d)$"},
        ]
        if made.pop("x-moment", False):
            made["anyOf"].append({"type": "string", "format": "date-time"})
    return made

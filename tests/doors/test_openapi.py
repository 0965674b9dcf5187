"""The document says what there is, and nothing else."""

import re

import jsonschema_rs
import msgspec
import openapi_spec_validator
import orjson
import pytest

from scheduler import fields, shown
from scheduler.api import ROUTES
from scheduler.api.examples import ANSWERED, SENT
from scheduler.api.problems import CODES


@pytest.fixture
def backend():
    return "fake"


@pytest.fixture
async def document(api):
    answer = await api.get("/openapi.json")
    assert "application/json" == answer.headers["Content-Type"]
    return answer.doc


async def test_every_route_is_in_it_once(document):
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}

    assert described == {(route.method, route.path) for route in ROUTES}
    assert len(ROUTES) == len(described)
    names = [op["operationId"] for methods in document["paths"].values() for op in methods.values()]
    assert len(set(names)) == len(names)


async def test_what_it_describes_answers(api, document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            address = re.sub(r"{(\w+)}", lambda found: {"id": "mail:a"}.get(found[1], "x"), path)
            answer = await api.call(method.upper(), address, {} if "requestBody" in operation else None)
            assert str(answer.status) in operation["responses"], (method, path, answer.status, answer.raw)


async def test_its_references_lead_somewhere(document):
    text = orjson.dumps(document).decode()
    for name in set(re.findall(r"#/components/schemas/(\w+)", text)):
        assert name in document["components"]["schemas"]
    assert "x-whole" not in text
    assert "x-duration" not in text
    assert "jsonSchemaDialect" not in document


async def test_path_parameters_are_declared(document):
    for path, methods in document["paths"].items():
        for operation in methods.values():
            declared = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
            assert set(re.findall(r"{(\w+)}", path)) == declared


async def test_a_new_job_and_a_new_operation_are_linked_to_the_calls_that_take_their_id(document):
    linked = {
        "id": document["paths"]["/v1/jobs"]["post"]["responses"]["201"]["links"],
        "operation": document["paths"]["/v1/operations"]["post"]["responses"]["202"]["links"],
    }

    for parameter, links in linked.items():
        following = [route.handler.__name__ for route in ROUTES if f"{{{parameter}}}" in route.path]
        assert following == list(links)
        for name in following:
            assert {"$ref": f"#/components/links/{name}"} == links[name]
            link = {"operationId": name, "parameters": {parameter: "$response.body#/id"}}
            assert link == document["components"]["links"][name]


async def test_numbers_that_are_whole_are_integers(document):
    schemas = document["components"]["schemas"]

    assert "integer" == schemas["NewJobFields"]["properties"]["priority"]["type"]
    assert (-100, 100) == tuple(
        schemas["NewJobFields"]["properties"]["priority"][n] for n in ("minimum", "maximum")
    )
    assert not schemas["NewJobFields"]["additionalProperties"]
    assert ["type"] == schemas["NewJobFields"]["required"]


async def test_every_problem_is_a_known_code(document):
    for methods in document["paths"].values():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                if "application/problem+json" in answer.get("content", {}):
                    codes = re.findall(r"`(\w+)`", answer["description"])
                    assert codes
                    assert {int(status)} == {CODES[code][0] for code in codes}


async def test_a_key_is_asked_for_where_there_is_one(serving):
    open_, closed = await serving(), await serving(api_key="k" * 20)
    documents = [(await api.get("/openapi.json")).doc for api in (open_, closed)]
    without, with_key = (document["paths"]["/v1/jobs"]["post"] for document in documents)

    assert "security" not in without
    assert "401" not in without["responses"]
    assert [{"key": []}] == with_key["security"]
    assert "401" in with_key["responses"]


def test_every_type_of_the_table_is_described_in_words_of_its_own():
    for kind in vars(fields).values():
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind is not msgspec.Struct:
            msgspec.json.schema(kind)


async def test_ndjson_stands_beside_json_with_the_type_of_a_line(document):
    operation = document["paths"]["/v1/jobs/bulk"]["post"]
    sent, got = operation["requestBody"]["content"], operation["responses"]["200"]["content"]

    assert ["application/json", "application/x-ndjson"] == list(sent) == list(got)
    assert {"$ref": "#/components/schemas/NewJobFields"} == sent["application/x-ndjson"]["x-item-schema"]
    names = [
        item["$ref"].rpartition("/")[2] for item in got["application/x-ndjson"]["x-item-schema"]["anyOf"]
    ]
    assert ["BulkLine", "BulkDone"] == names


# -- examples -------------------------------------------------------------------------------------------------


def described(document, kind):
    return document["components"]["schemas"][kind.__name__]


async def test_it_is_valid_openapi(document):
    openapi_spec_validator.validate(document)


async def test_every_body_and_every_answer_has_an_example(document):
    bodies = {route.body for route in ROUTES} - {None, fields.Nothing}
    answers = {kind for route in ROUTES for kind in route.answers.values()} - {None}
    for kind in {*bodies, *answers}:
        for one in kind if isinstance(kind, tuple) else [kind]:
            if isinstance(one, type):
                assert "examples" in described(document, one), one


@pytest.mark.parametrize("kind", [*SENT, *ANSWERED], ids=lambda kind: kind.__name__)
async def test_an_example_is_what_its_type_and_its_schema_say(document, kind):
    example = {**SENT, **ANSWERED}[kind]
    [shown] = described(document, kind)["examples"]
    schema = {"$ref": f"#/components/schemas/{kind.__name__}", "components": document["components"]}

    assert example == shown
    msgspec.convert(example, kind) if kind in ANSWERED else msgspec.json.decode(
        orjson.dumps(example), type=kind
    )
    check = jsonschema_rs.Draft202012Validator(schema, offline=True, validate_formats=True)
    assert [] == [(list(error.instance_path), error.message) for error in check.iter_errors(example)]


async def test_an_example_of_a_body_is_taken(api):
    for route in [route for route in ROUTES if route.body in SENT]:
        await api.store.obliterate("mail", force=True)
        await api.dead("dead")
        await api.enqueue("waits", delay=600)
        await api.put("/v1/queues/mail/types/send", {"timeout": 5})
        its_id = "mail:dead" if "replay" in route.path else "mail:waits"
        address = route.path.format(id=its_id, queue="mail", type="send", group="acme", schedule="nightly")
        example = SENT[route.body] | ({"wait": 0} if "lease" in route.path else {})

        answer = await api.call(route.method, address, example)

        assert answer.status in {200, 201, 202}, (route.method, route.path, answer.raw)


async def test_every_problem_that_is_described_has_an_example(document):
    for methods in document["paths"].values():
        for operation in methods.values():
            for answer in operation["responses"].values():
                content = answer.get("content", {}).get("application/problem+json")
                if content is not None:
                    assert {code for code in CODES if f"`{code}`" in answer["description"]} == set(
                        content["examples"]
                    )
                    for code, example in content["examples"].items():
                        msgspec.convert(example["value"], shown.Problem)
                        assert CODES[code] == (example["value"]["status"], example["value"]["title"])

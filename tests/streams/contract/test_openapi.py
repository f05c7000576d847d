import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from streams.contract.openapi import openapi
from streams.contract.posted import Problem, Receipt, Refused
from streams.contract.records import Slate, SlateItem


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(json.dumps(openapi()))
    return read


def validator(whole: dict[str, Any], schema: Any) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for({**schema, "components": whole["components"]})


def bodies(whole: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for path, methods in whole["paths"].items():
        for operation in methods.values():
            for media, told in operation.get("requestBody", {"content": {}})["content"].items():
                yield f"{path} {media}", told["schema"], told["example"]


def test_a_foreign_reader_takes_it_for_openapi(whole: dict[str, Any]) -> None:
    assert list(OpenAPIV31SpecValidator(whole).iter_errors()) == []
    broken = json.loads(json.dumps(whole))
    del broken["paths"]["/v1/events"]["post"]["responses"]["202"]["description"]
    assert list(OpenAPIV31SpecValidator(broken).iter_errors())


def test_its_examples_are_as_they_must_be_and_spoiled_ones_are_not(whole: dict[str, Any]) -> None:
    seen = 0
    for name, schema, example in bodies(whole):
        check, seen = validator(whole, schema), seen + 1
        assert check.is_valid(example), name
        spoiled = json.loads(json.dumps(example).replace('"user_id": "u1"', '"user_id": ["u1"]'))
        assert spoiled != example
        assert not check.is_valid(spoiled), name
    assert seen == 4


def test_a_request_is_posted_with_a_name_or_without_but_says_whose_it_is(whole: dict[str, Any]) -> None:
    check = validator(whole, {"$ref": "#/components/schemas/PostedRequest"})
    for right in ({"user_id": "u"}, {"user_id": "u", "request_id": None}, {"user_id": "u", "request_id": "r"}):
        assert check.is_valid(right)
    for wrong in ({}, {"request_id": "r"}, {"user_id": ""}, {"user_id": "u", "request_id": ""}):
        assert not check.is_valid(wrong)


def test_answers_are_as_it_says(whole: dict[str, Any]) -> None:
    slate = Slate(slate_id="s", user_id="u", items=(SlateItem(item_id="i", position=0, score=0.5),), expires_at=5)
    refused = Refused(1, "missing_field", "no item_id", "item_id")
    for answer in (Receipt(3, (refused,)), Receipt(1), Problem("no"), Problem("no", "malformed", "n"), slate):
        name = type(answer).__name__
        check = validator(whole, {"$ref": f"#/components/schemas/{name}"})
        told = msgspec.json.decode(msgspec.json.encode(answer))
        assert check.is_valid(told), name
        assert not check.is_valid({**told, next(iter(told)): {"odd": 1}}), name

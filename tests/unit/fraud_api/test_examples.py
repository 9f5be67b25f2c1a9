"""The examples of the OpenAPI document: what the application answers, on every answer that it announces."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import fraud_api
from tests.api_examples import recorded

FILE = Path(fraud_api.__path__[0]) / "examples.json"
WRITE = os.environ.get("FRAUD_TEST_EXAMPLES") == "write"


def kinds(value: Any) -> str:
    """JSON without its numbers, which are another model's with every version of a library."""
    return re.sub(r"\d+(\.\d+)?(e-?\d+)?", "0", json.dumps(value, sort_keys=True, indent=1))


def test_the_examples_are_what_the_application_answers(call: Any, installation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = recorded(call, installation, monkeypatch)
    if WRITE:
        FILE.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert kinds(found) == kinds(json.loads(FILE.read_text(encoding="utf-8")))


def contents(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every content of every request and answer, with where it stands."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            told = {"request": operation.get("requestBody", {})} | operation["responses"]
            for status, answer in told.items():
                for media_type, content in answer.get("content", {}).items():
                    yield f"{method} {path} {status} {media_type}", content


@pytest.mark.parametrize("asks_for_keys", [False, True])
def test_every_answer_has_examples_and_each_is_what_its_schema_says(call: Any, installation: Any, asks_for_keys: bool) -> None:
    document = call(installation.settings, asks_for_keys=asks_for_keys).get("/openapi.json").json()
    assert not any(
        "content" not in answer
        for ops in document["paths"].values()
        for op in ops.values()
        for answer in op["responses"].values()
    )
    checked = 0
    for where, content in contents(document):
        shown = [one["value"] for one in content.get("examples", {}).values()]
        shown += [content["example"]] if "example" in content else []
        if content["schema"].get("format") != "binary":
            assert shown, f"{where} has no example"
        schema = content["schema"] | {"components": document["components"]}
        for value in shown:
            jsonschema.Draft202012Validator(schema).validate(value)
            if where.split()[2].isdigit() and isinstance(value, dict) and "request_id" in value:
                assert value["status"] == int(where.split()[2]), where
            checked += 1
    assert checked > 50
    for name, schema in document["components"]["schemas"].items():
        for value in schema.get("examples", []):
            jsonschema.Draft202012Validator(schema | {"components": document["components"]}).validate(value)
            assert name

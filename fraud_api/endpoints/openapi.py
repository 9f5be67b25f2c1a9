"""The parts of the OpenAPI document that FastAPI cannot know: bodies that we read ourselves, refusals, and examples.

Examples are answers of this application, as tests/api_examples.py records them into examples.json.
"""

import json
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from fraud_api.http.problems import MEDIA_TYPE, Problem
from fraud_api.http.security import OPEN_PATHS
from fraud_api.schemas import LABELLING, MOST_LABELS, Batch, Labelled, Labelling, RowRefusal, RowScore
from fraud_core.scoring.file import AnswerFormat
from fraud_core.scoring.file_parsing import FileFormat
from fraud_core.transactions.declared_type import example_of
from fraud_core.transactions.transaction import EXAMPLE, Transaction

FILE_TYPES: dict[str, FileFormat] = {
    "text/csv": "csv",
    "application/vnd.apache.parquet": "parquet",
    "application/x-parquet": "parquet",
}
ANSWER_TYPES: dict[AnswerFormat, str] = {"ndjson": "application/x-ndjson", "csv": "text/csv"}

_REFUSALS = {
    400: "The body is not JSON, or was cut off.",
    401: "No living API key was sent.",
    403: "The key lacks the scope; or, where no key is asked, a page of another site sent this.",
    404: "There is nothing at this path.",
    405: "This path does not take this method.",
    406: "The answer does not come in the wanted form.",
    408: "The body took too long to arrive.",
    409: "Another payment with this transaction_id was decided before.",
    413: "The body is too long.",
    415: "The body has another media type.",
    421: "Where no key is asked: the name in Host is none of this server's.",
    422: "One or more fields are wrong; each is named.",
    429: "The key's rate is used up, or too many files are being scored.",
    503: "There is no model yet, or the store cannot be reached.",
}
_EVERYWHERE = (400, 401, 403, 408, 413, 421, 429)
EVERYWHERE = "everywhere"  # among the examples: of refusals that are the same on every route


def wanted_answer(accept: str) -> AnswerFormat | None:
    """The form of a file's answer by the request's Accept header; None where it asks for another."""
    wanted = [part.partition(";")[0].strip().lower() for part in accept.split(",") if part.strip()]
    for media_type in wanted:
        if media_type == "text/csv":
            return "csv"
        if media_type in {"application/x-ndjson", "application/json", "application/*", "*/*"}:
            return "ndjson"
    return None if wanted else "ndjson"


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem documents of a route, for its `responses`."""
    reference = {"$ref": "#/components/schemas/Problem"}
    return {status: {"description": _REFUSALS[status], "content": {MEDIA_TYPE: {"schema": reference}}} for status in statuses}


def body(model: type[BaseModel]) -> dict[str, Any]:
    """A body of JSON, for `openapi_extra`."""
    example: Any = EXAMPLE if model is Transaction else {"transactions": [EXAMPLE]}
    content = {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}, "example": example}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


FILE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "Columns bear the canonical names; `timestamp` and `amount` must be there. An empty cell: missing.",
        "content": {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in FILE_TYPES},
    }
}


def _one_or_many(model: type[BaseModel]) -> dict[str, Any]:
    """One, or a list of them."""
    one = {"$ref": f"#/components/schemas/{model.__name__}"}
    many = {"type": "array", "items": one, "minItems": 1, "maxItems": MOST_LABELS}
    return {"schema": {"oneOf": [one, many]}}


_LABELS = {"one": {"value": LABELLING}, "several": {"value": [LABELLING]}}
LABELS_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": _one_or_many(Labelling) | {"examples": _LABELS}}}
}
LABELS_ANSWER: dict[int | str, dict[str, Any]] = {
    201: {"description": "Added: one for one, a list for a list.", "content": {"application/json": _one_or_many(Labelled)}}
}


def file_answer() -> dict[int | str, dict[str, Any]]:
    """The answer to a file."""
    content = {media_type: {"schema": {"type": "string"}} for media_type in ANSWER_TYPES.values()}
    description = (
        "A record a row, then one that says how many rows there were, how many of them were scored and refused, how many lines "
        "the file has and how many of them were no payment's (rows + lines_without_payment = lines), and whether these are all."
    )
    return {200: {"description": description, "content": content}}


def _show_examples(operation: dict[str, Any]) -> None:
    """Put what this application answers beside what it may answer."""
    recorded = json.loads((files("fraud_api") / "examples.json").read_text(encoding="utf-8"))
    own, common = recorded[operation["operationId"]], recorded[EVERYWHERE]
    for status, answer in operation["responses"].items():
        for media_type, content in answer.get("content", {}).items():
            shown = own.get(status, common.get(status, {})).get(media_type, {})
            content["examples"] = {name: {"value": value} for name, value in shown.items()}


def _show_payment(operation: dict[str, Any], payment: type[Transaction]) -> None:
    """Give the bodies that hold payments an example with all fields that these have."""
    example: Any = example_of(payment.model_declared)
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if content.get("example") == EXAMPLE:
        content["example"] = example
    elif content.get("example") == {"transactions": [EXAMPLE]}:
        content["example"] = {"transactions": [example]}


def document(app: FastAPI, payment: type[Transaction], *, asks_for_keys: bool) -> dict[str, Any]:
    """The OpenAPI document of an application.

    Args:
        app: the application.
        payment: the type of the payments that its model is asked about.
        asks_for_keys: whether callers must show an API key.
    """
    made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, schemas = models_json_schema(
        [(model, "validation") for model in (Transaction, Batch, Problem, RowScore, RowRefusal, Labelling, Labelled)],
        ref_template="#/components/schemas/{model}",
    )
    components = made.setdefault("components", {}).setdefault("schemas", {})
    components |= {name: schema for name, schema in schemas["$defs"].items() if name not in components}
    components["Transaction"] = payment.model_json_schema(ref_template="#/components/schemas/{model}")
    components |= components["Transaction"].pop("$defs", {})
    # FastAPI's own refusals never leave: ours take their place.
    for name in ("HTTPValidationError", "ValidationError"):
        components.pop(name, None)
    for path, operations in made["paths"].items():
        for operation in operations.values():
            answers = operation["responses"]
            guarded = path not in OPEN_PATHS
            for status, answer in refusals(*(_EVERYWHERE if guarded else ())).items():
                answers.setdefault(str(status), answer)
            if "422" in answers and "application/json" in answers["422"].get("content", {}):
                answers["422"] = refusals(422)[422]
            _show_examples(operation)
            _show_payment(operation, payment)
            if guarded and asks_for_keys:
                operation["security"] = [{"key": []}]
    if asks_for_keys:
        made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return made

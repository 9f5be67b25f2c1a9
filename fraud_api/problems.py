"""Refusals as problem documents (RFC 9457). They name every wrong field and never repeat what was sent."""

import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import pydantic_core
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from fraud_api.cards import holds_card_number

MEDIA_TYPE = "application/problem+json"
MOST_PROBLEMS = 100  # in one document


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str = Field(description="Name of the field; `body` for the body as a whole.", examples=["amount"])
    reason: str = Field(description="What is wrong, without the value.", examples=["is missing"])


class Problem(BaseModel):
    """A refusal, by RFC 9457."""

    type: str = Field(description="Kind of problem, for programs.", examples=["urn:fraud:problem:invalid-input"])
    title: str = Field(description="The kind in words.", examples=["Invalid input"])
    status: int = Field(description="HTTP status.", examples=[422])
    detail: str = Field(description="What happened and what to do.", examples=["One field is wrong; correct and send again."])
    request_id: str = Field(description="Names this request in the log.", examples=["4f1c9a0b7d2e8356"])
    errors: list[FieldProblem] = Field(default=[], description="Every wrong field, 100 at most.")


class Refused(HTTPException):
    """A request is refused; becomes a problem document wherever it is raised.

    Args:
        status: HTTP status.
        kind: last part of the problem's type, in kebab case.
        detail: a sentence that says what to do.
        errors: the wrong fields.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        errors: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.kind = kind
        self.errors = list(errors)


def invalid(errors: Sequence[FieldProblem]) -> Refused:
    """The refusal of input with these wrong fields."""
    count = "One field is" if len(errors) == 1 else f"{len(errors)} fields are"
    return Refused(422, "invalid-input", f"{count} wrong; correct and send again.", errors)


def no_model() -> Refused:
    """The refusal to score before there is a champion."""
    return Refused(
        503,
        "no-model",
        "There is no model yet, so nothing can be scored. Promote a champion; it is served within seconds.",
        headers={"Retry-After": "5"},
    )


def field_problems(errors: Iterable[Mapping[str, Any]]) -> list[FieldProblem]:
    """Pydantic's errors (without their input) in our words."""
    return [FieldProblem(field=_path(error["loc"]), reason=_reason(error)) for error in errors][:MOST_PROBLEMS]


def response(refused: HTTPException, scope: Scope) -> Response:
    """The problem document of a refusal."""
    title = HTTPStatus(refused.status_code).phrase.capitalize()
    kind = refused.kind if isinstance(refused, Refused) else title.lower().replace(" ", "-")
    state = scope.setdefault("state", {})
    state["refused"] = kind  # for the log line and the metrics
    document = Problem(
        type=f"urn:fraud:problem:{kind}",
        title=kind.replace("-", " ").capitalize(),
        status=refused.status_code,
        detail=refused.detail if isinstance(refused, Refused) else _DETAILS.get(refused.status_code, f"{title}."),
        request_id=state.get("request_id", ""),
        errors=refused.errors if isinstance(refused, Refused) else [],
    )
    content = document.model_dump_json(exclude_defaults=not document.errors)
    return Response(content, refused.status_code, refused.headers, MEDIA_TYPE)


_DETAILS = {
    404: "There is nothing at this path; GET /openapi.json lists what there is.",
    405: "This path does not take this method; GET /openapi.json lists what it takes.",
    500: "This is our fault, and it is in the log under this request id.",
}

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}", re.ASCII)


def shown_name(name: str) -> str:
    """A field's name as it may be repeated: callers make names up, and could put anything into them."""
    return name if _PLAIN_NAME.fullmatch(name) and not holds_card_number(name) else "(a name that is not repeated here)"


def _path(loc: Sequence[int | str]) -> str:
    """Where, as a path."""
    return ".".join(shown_name(str(part)) for part in loc) or "body"


_REASONS = {
    "missing": "is missing",
    "extra_forbidden": "is not a known field",
    "json_invalid": "is not valid JSON: {error}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of usual size",
    "string_type": "must be text",
    "string_unicode": "must be text",
    "string_too_short": "is empty",
    "string_too_long": "is longer than {max_length} characters",
    "list_type": "must be a list",
    "too_short": "must have at least {min_length} rows",
    "too_long": "must have at most {max_length} rows",
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
    "bool_parsing": "must be true or false",
}


def _reason(error: Mapping[str, Any]) -> str:
    """Why, without the value; pydantic's own words are kept for kinds of error that we do not expect."""
    template = _REASONS.get(error["type"])
    return str(error["msg"]) if template is None else template.format(**error.get("ctx", {}))


def wrong_fields(error: pydantic_core.ValidationError) -> list[FieldProblem]:
    """The wrong fields that a validation found."""
    return field_problems(error.errors(include_url=False, include_input=False))

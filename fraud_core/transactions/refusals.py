"""Validation messages of a payment, field by field, in plain words that never repeat a value."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import pydantic_core
from pydantic import BaseModel, Field

from fraud_core.signing.card_numbers import holds_card_number

MOST_PROBLEMS = 100  # in one answer


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str = Field(description="Name of the field; `body` for the body as a whole.", examples=["amount"])
    reason: str = Field(description="What is wrong, without the value.", examples=["is missing"])


def field_problems(errors: Iterable[Mapping[str, Any]]) -> list[FieldProblem]:
    """Pydantic's errors (without their input) in our words: the first `MOST_PROBLEMS`."""
    return [FieldProblem(field=_path(error["loc"]), reason=_reason(error)) for error in islice(errors, MOST_PROBLEMS)]


def trimmed(fields: Any, known: Sequence[str]) -> Any:
    """The same mapping with no more unknown fields than are told, so that no validator builds a problem of each of a million."""
    if not isinstance(fields, dict) or len(fields) <= len(known) + MOST_PROBLEMS:
        return fields
    kept = {name: fields[name] for name in known if name in fields}
    return kept | dict.fromkeys(islice((name for name in fields if name not in kept), MOST_PROBLEMS))


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

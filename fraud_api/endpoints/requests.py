"""Reading of requests: the model that answers, media types, JSON bodies and what is wrong with them."""

from typing import Any

import pydantic_core
from fastapi import Request
from fastapi.routing import APIRoute

from fraud_api.http.problems import Refused, invalid, no_model
from fraud_api.services import Services
from fraud_core.models.follower import LoadedModel
from fraud_core.transactions.refusals import FieldProblem


def operation_id(route: APIRoute) -> str:
    """The id of an operation in the OpenAPI document; it stays whatever becomes of paths."""
    return route.name


def model_of(request: Request, services: Services) -> LoadedModel:
    """The model that this request is answered by, taken once, at its beginning.

    Raises:
        Refused: there is none yet.
    """
    served = services.follower.served
    if served is None:
        raise no_model()
    request.scope["state"]["model_version"] = served.version
    return served


def media_type(request: Request) -> str:
    """The media type of a request's body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def json_body(request: Request) -> bytes:
    """The body of a request that must be JSON, not parsed yet.

    Raises:
        Refused: it is announced as something else.
    """
    if media_type(request) != "application/json":
        raise Refused(415, "media-type", "Send the body as application/json.")
    return await request.body()


def document_of(body: bytes, most_marks: int, what: str) -> Any:
    """The JSON of a request about many payments, unless it is built of more than these can be built of.

    Raises:
        Refused: it is no JSON, or that.
    """
    if body.count(b",") + body.count(b":") > most_marks:
        raise invalid([FieldProblem(field="body", reason=f"holds more fields than {what} have")])
    try:
        return pydantic_core.from_json(body)
    except ValueError as error:
        raise refused([FieldProblem(field="body", reason=f"is not valid JSON: {error}")]) from None


def refused(problems: list[FieldProblem]) -> Refused:
    """The refusal of a body with these problems: 400 where it is no JSON, else 422."""
    if problems[0].reason.startswith("is not valid JSON"):
        return Refused(400, "not-json", "The body is not JSON.", problems)
    return invalid(problems)

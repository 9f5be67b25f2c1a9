"""Problem documents (RFC 9457): refusals that name every wrong field and never repeat what was sent."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from fraud_core.transactions.refusals import FieldProblem

MEDIA_TYPE = "application/problem+json"


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

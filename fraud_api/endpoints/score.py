"""Scoring endpoints: one payment, and batches of up to 10,000."""

import asyncio
from typing import Annotated, Any

import pydantic_core
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fraud_api.endpoints import openapi
from fraud_api.endpoints.requests import document_of, json_body, model_of, operation_id, refused
from fraud_api.schemas import MOST_ROWS, Batch, BatchScore, Refunded, Score, most_batch_marks
from fraud_api.services import services_of
from fraud_core.history.lookup import HistoryLookup
from fraud_core.models.follower import LoadedModel
from fraud_core.scoring.score import score_rows
from fraud_core.transactions.declared_type import fields_of, required_of
from fraud_core.transactions.refusals import MOST_PROBLEMS, FieldProblem, trimmed, wrong_fields
from fraud_core.transactions.transaction import Transaction

router = APIRouter(generate_unique_id_function=operation_id)

ROWS_AT_ONCE = 500  # of a batch, before another one has its turn; a fifth of the time would go into the edges of hundreds


@router.post(
    "/v1/score",
    response_model=Score,
    tags=["scoring"],
    summary="Score one payment",
    responses=openapi.refusals(400, 408, 409, 413, 415, 422, 503),
    openapi_extra=openapi.body(Transaction),
)
async def score(request: Request, explain: Annotated[bool, Query(description="Add the strongest reasons.")] = False) -> Response:
    """The probability of fraud and a decision, by the newest champion."""
    services = services_of(request)
    served = model_of(request, services)
    body = await json_body(request)
    served, transaction = await services.newer.checked(request, served, lambda by: _checked(body, by, services.payment(by)))
    result = await services.deciding.decide(served, transaction, explain=explain)
    return Response(result.__pydantic_serializer__.to_json(result, exclude_none=not explain), media_type="application/json")


@router.post(
    "/v1/refunds",
    tags=["scoring"],
    summary="Record a refund",
    responses=openapi.refusals(400, 408, 409, 413, 415, 422, 503),
    openapi_extra=openapi.body(Transaction),
)
async def refund(request: Request) -> Refunded:
    """Money that came back, under an id of its own and with the fields of a payment; its amount may have a minus or not.

    It is not scored, and counts where a window of the source asks for refunds."""
    services = services_of(request)
    served = model_of(request, services)
    body = await json_body(request)
    served, sent = await services.newer.checked(request, served, lambda by: _checked(body, by, services.refund(by)))
    if served.scorer.declared.amounts.negative != "refund":
        reason = 'is not taken: the source of this model declares no refunds (negative = "refund" beside the amount)'
        raise refused([FieldProblem(field="amount", reason=reason)])
    return services.deciding.refund(served, sent)


@router.post(
    "/v1/score/batch",
    response_model=BatchScore,
    tags=["scoring"],
    summary="Score up to 10,000 payments",
    responses=openapi.refusals(400, 408, 413, 415, 422, 503),
    openapi_extra=openapi.body(Batch),
)
async def score_batch(request: Request) -> Response:
    """The decisions on a batch, in its order, each as of its own time. A wrong row is refused by itself; the others are scored.

    Nothing is recorded: a batch is a question about payments, and no payment."""
    services = services_of(request)
    served = model_of(request, services)
    body = await json_body(request)
    loop = asyncio.get_running_loop()
    # All in a thread of their own, so that single payments do not wait, and chunk by chunk, so that other batches do not.
    payment = services.payment(served)
    rows = await loop.run_in_executor(services.batches, _rows, body, payment)
    if await loop.run_in_executor(services.batches, _has_other_fields, rows, payment):
        served = await services.newer.than(served) or served
        request.scope["state"]["model_version"] = served.version
        payment = services.payment(served)
    results: list[bytes] = []
    wrong_rows = 0
    for begin in range(0, len(rows), ROWS_AT_ONCE):
        chunk = rows[begin : begin + ROWS_AT_ONCE]
        written, wrong = await loop.run_in_executor(services.batches, _scored, served, chunk, begin, services.lookup, payment)
        results.append(written)
        wrong_rows += wrong
    head = pydantic_core.to_json({"model_version": served.version, "rows": len(rows), "refused": wrong_rows})
    return Response(head[:-1] + b',"results":[' + b",".join(results) + b"]}", media_type="application/json")


def _checked(body: bytes, served: LoadedModel, payment: type[Transaction]) -> Transaction:
    try:
        return payment.__pydantic_validator__.validate_json(body, context=served.scorer.reading)  # type: ignore[no-any-return]
    except ValidationError as error:
        raise refused(_first_problems(error, body, payment, served.scorer.reading)) from None


def _first_problems(
    error: ValidationError, body: bytes, payment: type[Transaction], reading: dict[str, Any] | None
) -> list[FieldProblem]:
    """What is wrong with a payment, without building thousands of problems to tell a hundred."""
    if error.error_count() <= MOST_PROBLEMS:
        return wrong_fields(error)
    try:
        payment.model_validate(trimmed(pydantic_core.from_json(body), fields_of(payment)), context=reading)
    except ValidationError as shorter:
        return wrong_fields(shorter)
    raise error  # both look at the same fields


def _rows(body: bytes, payment: type[Transaction]) -> list[Any]:
    """The rows of a batch as they came; each is judged later, by itself."""
    document = document_of(body, most_batch_marks(payment), f"{MOST_ROWS} payments")
    try:
        return _Envelope.model_validate(trimmed(document, ("transactions",))).transactions
    except ValidationError as error:
        raise refused(wrong_fields(error)) from None


def _has_other_fields(rows: list[Any], payment: type[Transaction]) -> bool:
    """Whether a row has a field that is not declared, or lacks one that is demanded."""
    known, demanded = frozenset(fields_of(payment)), frozenset(required_of(payment))
    return any(not demanded <= row.keys() <= known for row in rows if isinstance(row, dict))


def _scored(
    served: LoadedModel, rows: list[Any], first: int, lookup: HistoryLookup, payment: type[Transaction]
) -> tuple[bytes, int]:
    """The answers to some rows of a batch as the JSON of a list without its brackets, and how many were refused."""
    records = score_rows(served.scorer, rows, first=first, lookup=lookup, of=payment)
    return pydantic_core.to_json(records)[1:-1], sum("errors" in record for record in records)


class _Envelope(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    transactions: Annotated[list[Any], Field(min_length=1, max_length=MOST_ROWS)]

"""The routes. What a request scores with is taken from the holder once, at its beginning."""

import asyncio
import logging
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import pydantic_core
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fraud_api.endpoints import labels as labelling
from fraud_api.endpoints import models, openapi
from fraud_api.http.problems import Refused, invalid, no_model
from fraud_api.schemas import (
    MOST_BATCH_MARKS,
    MOST_LABEL_MARKS,
    MOST_LABELS,
    MOST_ROWS,
    Batch,
    BatchScore,
    Health,
    Labelling,
    ModelDetails,
    ModelList,
    Readiness,
    Score,
)
from fraud_api.services import Services, services_of
from fraud_core.errors import StoreError
from fraud_core.history.lookup import HistoryLookup
from fraud_core.models.follower import LoadedModel
from fraud_core.scoring.score import score_rows
from fraud_core.transactions.refusals import MOST_PROBLEMS, FieldProblem, field_problems, trimmed, wrong_fields
from fraud_core.transactions.transaction import FIELDS, Transaction

logger = logging.getLogger(__name__)
router = APIRouter(generate_unique_id_function=lambda route: route.name)  # operation ids stay whatever becomes of paths
_T = TypeVar("_T")

METRICS = "/metrics"
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
    served = _served(request, services)
    transaction = _checked(await _json_body(request), served)
    result = await services.deciding.decide(served, transaction, explain=explain)
    return Response(result.__pydantic_serializer__.to_json(result, exclude_none=not explain), media_type="application/json")


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
    served = _served(request, services)
    body = await _json_body(request)
    loop = asyncio.get_running_loop()
    # All in a thread of their own, so that single payments do not wait, and chunk by chunk, so that other batches do not.
    rows = await loop.run_in_executor(services.batches, _rows, body)
    results: list[bytes] = []
    refused = 0
    for begin in range(0, len(rows), ROWS_AT_ONCE):
        chunk = rows[begin : begin + ROWS_AT_ONCE]
        written, wrong = await loop.run_in_executor(services.batches, _scored, served, chunk, begin, services.lookup)
        results.append(written)
        refused += wrong
    head = pydantic_core.to_json({"model_version": served.version, "rows": len(rows), "refused": refused})
    return Response(head[:-1] + b',"results":[' + b",".join(results) + b"]}", media_type="application/json")


@router.post(
    "/v1/score/file",
    response_class=StreamingResponse,
    tags=["scoring"],
    summary="Score a file",
    responses=openapi.file_answer() | openapi.refusals(400, 406, 408, 413, 415, 422, 503),
    openapi_extra=openapi.FILE_BODY,
)
async def score_file(request: Request) -> StreamingResponse:
    """The decisions on a CSV or Parquet file, whose columns bear the canonical names: one record a row, then one that
    says whether they are all. With `Accept: text/csv` as CSV, else as lines of JSON."""
    services = services_of(request)
    served = _served(request, services)
    kind = openapi.FILE_TYPES.get(_media_type(request))
    if kind is None:
        raise Refused(415, "media-type", f"Send the file as {' or '.join(openapi.FILE_TYPES)}.")
    wanted = openapi.wanted_answer(request.headers.get("accept", ""))
    if wanted is None:
        raise Refused(406, "not-acceptable", f"The answer comes as {' or '.join(openapi.ANSWER_TYPES.values())}.")
    stream = await services.uploads.score(request, served, kind, wanted)
    return StreamingResponse(stream, media_type=openapi.ANSWER_TYPES[wanted], headers={"X-Model-Version": served.version})


@router.post(
    "/v1/labels",
    status_code=201,
    response_class=Response,
    tags=["labels"],
    summary="Say what became of payments",
    responses=openapi.LABELS_ANSWER | openapi.refusals(400, 408, 413, 415, 422, 503),
    openapi_extra=openapi.LABELS_BODY,
)
async def label(request: Request) -> Response:
    """One label, or a list of up to 1,000: all are added, or none. Labels are only ever added; the last one known counts, a
    chargeback before an analyst. They change the fraud rates of merchants within minutes, and the next training."""
    services = services_of(request)
    body, served = await _json_body(request), services.follower.served
    given = await asyncio.get_running_loop().run_in_executor(services.batches, _labels, body, served)
    author = request.scope["state"].get("key_name", labelling.UNKEYED)
    answer = await asyncio.to_thread(labelling.add, services, given if isinstance(given, list) else [given], author)
    told = answer if isinstance(given, list) else answer[0]
    return Response(pydantic_core.to_json(told), 201, media_type="application/json")


@router.get("/v1/model", tags=["models"], summary="The model that scores", responses=openapi.refusals(503))
async def model(request: Request) -> ModelDetails:
    """Its thresholds, the partitions it learned from, its metrics and its card."""
    services = services_of(request)
    served = _served(request, services)
    return await asyncio.to_thread(_from_store, models.details, services.follower.store, services.follower.signing_key, served)


@router.get("/v1/models", tags=["models"], summary="All models", responses=openapi.refusals(503))
async def all_models(request: Request) -> ModelList:
    """Every version in the store, which one is champion, which are withdrawn, and how it came to that."""
    services = services_of(request)
    follower = services.follower
    return await asyncio.to_thread(_from_store, models.overview, follower.store, follower.signing_key, follower.served)


@router.post("/v1/admin/reload", tags=["operation"], summary="Look for a newer champion now")
async def reload(request: Request) -> Readiness:
    """Does what happens every few seconds anyway, in the process that answers; other workers follow within one poll."""
    status = await asyncio.to_thread(services_of(request).follower.poll)
    return models.readiness(status)


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", tags=["operation"], summary="Is the process alive?")
async def healthz() -> Health:
    """Yes."""
    return Health()


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    tags=["operation"],
    summary="Can it score?",
    responses={
        503: {"model": Readiness, "description": "There is no model, nothing can be recorded, or the server is about to stop."}
    },
)
async def readyz(request: Request, response: Response) -> Readiness:
    """Whether there is a model, which one, and whether the newest could be loaded."""
    services = services_of(request)
    readiness = models.readiness(
        services.follower.status, stopping=services.draining.active, unrecorded=services.unrecorded is not None
    )
    response.status_code = 200 if readiness.ready else 503
    return readiness


@router.get(METRICS, include_in_schema=False)
def metrics(request: Request) -> Response:
    """For Prometheus."""
    return Response(services_of(request).metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _served(request: Request, services: Services) -> LoadedModel:
    served = services.follower.served
    if served is None:
        raise no_model()
    request.scope["state"]["model_version"] = served.version
    return served


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _json_body(request: Request) -> bytes:
    if _media_type(request) != "application/json":
        raise Refused(415, "media-type", "Send the body as application/json.")
    return await request.body()


def _checked(body: bytes, served: LoadedModel) -> Transaction:
    try:
        return Transaction.__pydantic_validator__.validate_json(body, context=served.scorer.reading)  # type: ignore[no-any-return]
    except ValidationError as error:
        raise _refused(_first_problems(error, body, served.scorer.reading)) from None


def _first_problems(error: ValidationError, body: bytes, reading: dict[str, Any] | None) -> list[FieldProblem]:
    """What is wrong with a payment, without building thousands of problems to tell a hundred."""
    if error.error_count() <= MOST_PROBLEMS:
        return wrong_fields(error)
    try:
        Transaction.model_validate(trimmed(pydantic_core.from_json(body), FIELDS), context=reading)
    except ValidationError as shorter:
        return wrong_fields(shorter)
    raise error  # both look at the same fields


def _refused(problems: list[FieldProblem]) -> Refused:
    if problems[0].reason.startswith("is not valid JSON"):
        return Refused(400, "not-json", "The body is not JSON.", problems)
    return invalid(problems)


def _rows(body: bytes) -> list[Any]:
    """The rows of a batch as they came; each is judged later, by itself."""
    document = _document(body, MOST_BATCH_MARKS, f"{MOST_ROWS} payments")
    try:
        return _Envelope.model_validate(trimmed(document, ("transactions",))).transactions
    except ValidationError as error:
        raise _refused(wrong_fields(error)) from None


def _document(body: bytes, most_marks: int, what: str) -> Any:
    """The JSON of a request about many payments, unless it is built of more than these can be built of.

    Raises:
        Refused: it is no JSON, or that.
    """
    if body.count(b",") + body.count(b":") > most_marks:
        raise invalid([FieldProblem(field="body", reason=f"holds more fields than {what} have")])
    try:
        return pydantic_core.from_json(body)
    except ValueError as error:
        raise _refused([FieldProblem(field="body", reason=f"is not valid JSON: {error}")]) from None


def _scored(served: LoadedModel, rows: list[Any], first: int, lookup: HistoryLookup) -> tuple[bytes, int]:
    """The answers to some rows of a batch as the JSON of a list without its brackets, and how many were refused."""
    records = score_rows(served.scorer, rows, first=first, lookup=lookup)
    return pydantic_core.to_json(records)[1:-1], sum("errors" in record for record in records)


def _labels(body: bytes, served: LoadedModel | None) -> Labelling | list[Labelling]:
    document = _document(body, MOST_LABEL_MARKS, f"{MOST_LABELS} labels")
    known = tuple(Labelling.model_fields)
    reading = None if served is None else served.scorer.reading
    if isinstance(document, list):
        return _many_labels([trimmed(one, known) for one in document[: MOST_LABELS + 1]], reading)
    try:
        return Labelling.model_validate(trimmed(document, known), context=reading)
    except ValidationError as error:
        raise _refused(wrong_fields(error)) from None


def _many_labels(rows: list[Any], reading: dict[str, Any] | None) -> list[Labelling]:
    """All of them, or the first problems of them."""
    if not 1 <= len(rows) <= MOST_LABELS:
        reason = f"must have at most {MOST_LABELS} rows" if rows else "must have at least 1 rows"
        raise invalid([FieldProblem(field="body", reason=reason)])
    labels: list[Labelling] = []
    problems: list[FieldProblem] = []
    for at, row in enumerate(rows):
        try:
            labels.append(Labelling.model_validate(row, context=reading))
        except ValidationError as error:
            located = ({**one, "loc": (at, *one["loc"])} for one in error.errors(include_url=False, include_input=False))
            problems += field_problems(located)
            if len(problems) >= MOST_PROBLEMS:
                break
    if problems:
        raise invalid(problems[:MOST_PROBLEMS])
    return labels


class _Envelope(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    transactions: Annotated[list[Any], Field(min_length=1, max_length=MOST_ROWS)]


def _from_store(read: Callable[..., _T], *arguments: Any) -> _T:
    try:
        return read(*arguments)
    except (StoreError, OSError) as error:
        logger.error("the store cannot be read: %s", error)
        raise Refused(503, "store-unreachable", "The model store cannot be reached; scoring goes on.") from error

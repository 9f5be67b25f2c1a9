"""Label endpoint: what became of payments.

A payment need not have been scored here, nor have come in yet: a chargeback may be there first. Such a label waits until the
payment is scored here or a file brings it; from then on it counts as any other does.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pydantic_core
from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from fraud_api.endpoints import openapi
from fraud_api.endpoints.requests import document_of, json_body, operation_id, refused
from fraud_api.http.problems import Refused, invalid
from fraud_api.schemas import MOST_LABEL_MARKS, MOST_LABELS, Labelled, Labelling
from fraud_api.services import Services, services_of
from fraud_core.errors import StoreError
from fraud_core.labels.log import NewLabel
from fraud_core.models.follower import LoadedModel
from fraud_core.transactions.refusals import MOST_PROBLEMS, FieldProblem, field_problems, trimmed, wrong_fields

logger = logging.getLogger(__name__)

router = APIRouter(generate_unique_id_function=operation_id)

UNKEYED = "unkeyed"  # the author where nobody is asked for a key


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
    body, served = await json_body(request), services.follower.served
    given = await asyncio.get_running_loop().run_in_executor(services.batches, _labels, body, served)
    author = request.scope["state"].get("key_name", UNKEYED)
    answer = await asyncio.to_thread(add, services, given if isinstance(given, list) else [given], author)
    told = answer if isinstance(given, list) else answer[0]
    return Response(pydantic_core.to_json(told), 201, media_type="application/json")


def add(services: Services, given: Sequence[Labelling], author: str) -> list[Labelled]:
    """Write labels down, all or none; known from now on.

    Raises:
        Refused: the database cannot be used, or whether a payment was decided is not known before it can be.
    """
    known_at = datetime.now(UTC)
    try:
        waiting = services.decisions.are_waiting
        decided = services.decisions.log.find_all([one.transaction_id for one in given])
        if waiting and any(one.transaction_id not in decided for one in given):
            raise not_yet_known()
        # When a payment was made that was not decided here, nobody knows: the label's own time stands for it.
        times = {identity: record.timestamp for identity, record in decided.items()}
        words = [
            NewLabel(
                one.transaction_id,
                one.outcome,
                one.source,
                author,
                times.get(one.transaction_id, known_at),
                known_at,
                note=one.note,
            )
            for one in given
        ]
        added = services.labels.append_all(words)
    except StoreError as error:
        logger.error("labels cannot be written: %s", error)
        raise Refused(
            503, "labels-unreachable", "The labels cannot be written now, and none was; send them again shortly."
        ) from error
    for one in given:
        services.metrics.label_received(one.outcome, one.source)
    return [
        Labelled(
            transaction_id=one.transaction_id,
            sequence=one.sequence,
            known_at=one.known_at,
            decided=one.transaction_id in decided,
        )
        for one in added
    ]


def not_yet_known() -> Refused:
    """Decisions wait on a machine's disk; whether the payment is among them is not known before they are delivered."""
    return Refused(
        503,
        "decisions-waiting",
        "Decisions wait for the database, and this payment may be among them; nothing was added. Try again shortly.",
    )


def _labels(body: bytes, served: LoadedModel | None) -> Labelling | list[Labelling]:
    document = document_of(body, MOST_LABEL_MARKS, f"{MOST_LABELS} labels")
    known = tuple(Labelling.model_fields)
    reading = None if served is None else served.scorer.reading
    if isinstance(document, list):
        return _many_labels([trimmed(one, known) for one in document[: MOST_LABELS + 1]], reading)
    try:
        return Labelling.model_validate(trimmed(document, known), context=reading)
    except ValidationError as error:
        raise refused(wrong_fields(error)) from None


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

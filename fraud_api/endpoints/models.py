"""Model registry endpoints: the model that scores, and all others in the store."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter, Request

from fraud_api.endpoints import openapi
from fraud_api.endpoints.requests import model_of, operation_id
from fraud_api.http.problems import Refused
from fraud_api.schemas import (
    AmountDetails,
    DecisionThresholds,
    FieldDetails,
    ModelChange,
    ModelDetails,
    ModelList,
    ModelState,
    TrainedOn,
)
from fraud_api.services import services_of
from fraud_core.errors import StoreError
from fraud_core.models.follower import LoadedModel
from fraud_core.models.registry import latest_model_card, versions
from fraud_core.signing.keys import Key
from fraud_core.storage.objects import ObjectStore
from fraud_core.transactions.told_fields import told_fields

logger = logging.getLogger(__name__)
router = APIRouter(generate_unique_id_function=operation_id)
_T = TypeVar("_T")

_FIELD_OF = {"amount_cents": "amount"}


@router.get("/v1/model", tags=["models"], summary="The model that scores", responses=openapi.refusals(503))
async def model(request: Request) -> ModelDetails:
    """Its thresholds, the partitions it learned from, its metrics and its card."""
    services = services_of(request)
    served = model_of(request, services)
    return await asyncio.to_thread(_from_store, details, services.follower.store, services.follower.signing_key, served)


@router.get("/v1/models", tags=["models"], summary="All models", responses=openapi.refusals(503))
async def all_models(request: Request) -> ModelList:
    """Every version in the store, which one is champion, which are withdrawn, and how it came to that."""
    services = services_of(request)
    follower = services.follower
    return await asyncio.to_thread(_from_store, overview, follower.store, follower.signing_key, follower.served)


def details(store: ObjectStore, key: Key, served: LoadedModel) -> ModelDetails:
    """The model that scores.

    Raises:
        StoreError: its card cannot be read.
    """
    manifest, card = served.scorer.bundle.manifest, latest_model_card(store, served.version, key)
    return ModelDetails(
        model_version=served.version,
        kind=manifest.learned.kind,
        source=manifest.learned.source,
        features=list(manifest.learned.features),
        needs=sorted(_FIELD_OF.get(name, name) for name in served.scorer.needs),
        fields=[FieldDetails(**vars(field)) for field in told_fields(served.accepts, served.scorer.declared)],
        amounts=_amounts(served),
        thresholds=DecisionThresholds(review=served.scorer.thresholds.review, decline=served.scorer.thresholds.decline),
        partitions=[
            TrainedOn(partition=key, content=content, verdict=verdict) for key, content, verdict in manifest.lineage.partitions
        ],
        promoted_at=served.latest.history[-1].at if served.latest.history else None,
        loaded_at=served.loaded_at,
        card=card.body if card is not None and card.is_signed else None,
        unsigned_card=card.body if card is not None and not card.is_signed else None,
    )


def _amounts(served: LoadedModel) -> AmountDetails:
    said = served.scorer.declared.amounts
    rates = served.rates.told if said.by and served.rates is not None else None
    return AmountDetails(
        currency=said.base or None, by=said.by or None, negative=said.negative, decimals=said.decimals, rates=rates
    )


def overview(store: ObjectStore, key: Key, served: LoadedModel | None) -> ModelList:
    """All versions in the store whose bundle is whole, as the pointer that this process follows sees them.

    Raises:
        StoreError: the store cannot be read.
    """
    latest = served.latest if served else None
    states = []
    for version in versions(store, key):
        withdrawal = latest.withdrawn.get(version) if latest else None
        states.append(
            ModelState(
                model_version=version,
                state="champion" if latest and version == latest.version else "withdrawn" if withdrawal else "available",
                withdrawn_by=withdrawal.who if withdrawal else None,
                withdrawn_because=withdrawal.reason if withdrawal else None,
            )
        )
    changes = [
        ModelChange(sequence=c.sequence, model_version=c.version, at=c.at, how=c.how, who=c.who, reason=c.reason)
        for c in (latest.history if latest else ())
    ]
    return ModelList(models=states, history=changes)


def _from_store(read: Callable[..., _T], *arguments: Any) -> _T:
    try:
        return read(*arguments)
    except (StoreError, OSError) as error:
        logger.error("the store cannot be read: %s", error)
        raise Refused(503, "store-unreachable", "The model store cannot be reached; scoring goes on.") from error

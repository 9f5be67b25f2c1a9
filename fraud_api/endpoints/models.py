"""Model registry as it is answered: the model that scores, and all others in the store."""

from fraud_api.schemas import DecisionThresholds, ModelChange, ModelDetails, ModelList, ModelState, Readiness, TrainedOn
from fraud_core.models.follower import LoadedModel, Status
from fraud_core.models.registry import latest_model_card, versions
from fraud_core.signing.keys import Key
from fraud_core.storage.objects import ObjectStore

_FIELD_OF = {"amount_cents": "amount"}


def readiness(status: Status, *, stopping: bool = False, unrecorded: bool = False) -> Readiness:
    """Whether this process can score. A newest model that cannot be loaded does not make it unready: the one before scores."""
    served = status.served
    return Readiness(
        ready=served is not None and not stopping and not unrecorded,
        stopping=stopping,
        model_version=served.version if served else None,
        sequence=served.latest.sequence if served else None,
        checked_at=status.checked_at,
        problem="StoreError" if unrecorded else status.problem_kind,
    )


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
        thresholds=DecisionThresholds(review=served.scorer.thresholds.review, decline=served.scorer.thresholds.decline),
        partitions=[
            TrainedOn(partition=key, content=content, verdict=verdict) for key, content, verdict in manifest.lineage.partitions
        ],
        promoted_at=served.latest.history[-1].at if served.latest.history else None,
        loaded_at=served.loaded_at,
        card=card.body if card is not None and card.is_signed else None,
        unsigned_card=card.body if card is not None and not card.is_signed else None,
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

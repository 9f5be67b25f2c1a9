"""The model's card, filled in from a training."""

from datetime import datetime

from fraud_assets.training.split import Block as SplitBlock
from fraud_assets.training.training import TrainedModel
from fraud_core import gate
from fraud_core.evaluation.model_card import (
    Block,
    Candidate,
    DroppedFeature,
    Fallback,
    ModelCard,
    Promotion,
    RejectedPartition,
    TrainingPartition,
)
from fraud_core.features.catalogue import catalogue_of
from fraud_core.features.feature import Feature
from fraud_core.fields.declared import NOTHING
from fraud_core.gate import TrainingSet


def model_card(trained: TrainedModel, allowed: TrainingSet, promotion: Promotion, created: datetime) -> ModelCard:
    """Everything a person should know about this model."""
    bundle, lineage = trained.bundle, trained.bundle.manifest.lineage
    known = catalogue_of(bundle.manifest.learned.declared or NOTHING).by_name
    return ModelCard(
        version=bundle.version,
        source=bundle.manifest.learned.source,
        created=created,
        kind=trained.candidates[0][0],
        candidates=_candidates(trained.candidates),
        candidates_fraud_rate=trained.candidates_fraud_rate,
        features=bundle.encoder.features,
        dropped_features=(
            *(_dropped(known[name]) for name in lineage.dropped_features),
            *(DroppedFeature(name=name, reason=reason) for name, reason in lineage.dropped_columns.items()),
        ),
        partitions=tuple(_partition(allowed, *entry) for entry in lineage.partitions),
        rejected_partitions=tuple(
            RejectedPartition(key=key, content_hash=content, reason=allowed.held.get(key) or gate.explain(allowed.verdicts[key]))
            for key, content in lineage.rejected
        ),
        split=tuple(_block(trained, name) for name in trained.sides),
        policy=trained.policy,
        validation=trained.validation,
        holdout=trained.holdout,
        holdout_without_rejected=trained.holdout_without_rejected,
        holdout_looks=trained.holdout_looks,
        promotion=promotion,
        fallback=_fallback(trained),
    )


def _candidates(named: tuple[tuple[str, float], ...]) -> tuple[Candidate, ...]:
    return tuple(Candidate(kind=name, average_precision=value, chosen=place == 0) for place, (name, value) in enumerate(named))


def _fallback(trained: TrainedModel) -> Fallback | None:
    learned, second = trained.bundle.manifest.learned.fallback, trained.fallback
    if learned is None or second is None:
        return None
    return Fallback(
        kind=second.candidates[0][0],
        features=learned.features,
        candidates=_candidates(second.candidates),
        validation=second.validation,
        holdout=second.holdout,
    )


def _dropped(feature: Feature) -> DroppedFeature:
    needs = ", ".join(sorted(feature.needs))
    return DroppedFeature(name=feature.name, reason=f"the source has not all of {needs}, or its TOML excludes it")


def _partition(allowed: TrainingSet, key: str, content: str, how: str) -> TrainingPartition:
    overruled = allowed.verdicts[key].overruled_by
    return TrainingPartition.model_validate(
        {
            "key": key,
            "content_hash": content,
            "verdict": how,
            "accepted_by": None if overruled is None else overruled.who,
            "reason": None if overruled is None else overruled.reason,
        }
    )


def _block(trained: TrainedModel, name: str) -> Block:
    block: SplitBlock = getattr(trained.split, name)
    count = trained.sides[name]
    if block.start is not None and block.end is not None:
        begin, end = block.start.isoformat(), block.end.isoformat()
    else:
        begin, end = f"bucket {block.low}", f"bucket {block.high}"
    return Block(name=name.replace("_", " "), begin=begin, end=end, rows=count.rows, frauds=count.frauds)

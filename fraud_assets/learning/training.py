"""Training: from the accepted partitions to a bundle that was evaluated once on the hold-out. No framework, no clock."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from fraud_assets.learning.candidates import Progress, Side, fit_calibration, fit_candidates
from fraud_assets.learning.preprocessing import fit_encoder
from fraud_assets.learning.rows import CardCodes, Rows, known_frauds, read_rows, read_training_rows
from fraud_assets.learning.split import SIDES, Split, split_of
from fraud_assets.project import Project
from fraud_core import features, gate, metrics
from fraud_core.artifacts import fingerprint
from fraud_core.bundle import Bundle, Lineage, Thresholds, make_bundle
from fraud_core.encoder import Encoder
from fraud_core.errors import GateRefusalError, HoldoutError, StoreConflictError
from fraud_core.evaluation import EvaluationRows, Policy, Report, evaluate
from fraud_core.gate import PartitionRef, TrainingSet
from fraud_core.scorer import Scorer, probabilities
from fraud_core.transform import dropped_features, source_features

LIBRARIES = ("numpy", "polars", "scikit-learn", "treelite")


@dataclass(frozen=True)
class Preprocessor:
    """The encoder, fitted on the training rows of the accepted partitions, and which these were."""

    encoder: Encoder
    split: Split
    training_set: str
    rows: int
    frauds: int


@dataclass(frozen=True)
class SideCount:
    """What lies on a side of the split."""

    rows: int
    frauds: int


@dataclass(frozen=True)
class TrainedModel:
    """A candidate for champion: its bundle, how it was chosen, and what it does on validation B and on the hold-out."""

    bundle: Bundle
    estimator: Any
    split: Split
    sides: dict[str, SideCount]
    candidates: tuple[tuple[str, float], ...]  # name, average precision on validation A; the chosen one first
    candidates_fraud_rate: float
    policy: Policy
    validation: Report
    holdout: Report
    holdout_without_rejected: Report | None
    holdout_id: str
    holdout_looks: int


def fit_preprocessor(project: Project, allowed: TrainingSet) -> Preprocessor:
    """Fit the encoder on the training rows.

    Raises:
        NotYetTrainableError: there is too little data for the split.
        HoldoutError: the training rows hold too few frauds.
    """
    split = _split(project, allowed)
    rows = _training_rows(project, split, allowed)
    _require_frauds(project, "training rows", rows)
    encoder = fit_encoder(rows, source_features(project.source))
    return Preprocessor(encoder, split, gate.fingerprint(allowed), len(rows.frame), int(rows.labels.sum()))


def train(project: Project, preprocessor: Preprocessor, allowed: TrainingSet, progress: Progress) -> TrainedModel:
    """Fit the candidates, choose on validation A, calibrate and set thresholds on B, and look at the hold-out once.

    Raises:
        GateRefusalError: the preprocessor was fitted on another training set, or another split, than holds now.
        HoldoutError: a block has too few frauds to say anything.
    """
    if (preprocessor.training_set, preprocessor.split) != (
        gate.fingerprint(allowed),
        _split(project, allowed),
    ):
        raise GateRefusalError(
            "The preprocessor was fitted on other partitions, or another split, than hold now; "
            "materialize preprocessor, then model."
        )
    settings, source, split, encoder = project.settings, project.source, preprocessor.split, preprocessor.encoder
    training = _training_rows(project, split, allowed)
    validation_a = read_rows(project.artifacts, allowed.accepted, split.validation_a)
    validation_b = read_rows(project.artifacts, allowed.accepted, split.validation_b)
    for name, rows in (("training rows", training), ("validation block A", validation_a), ("validation block B", validation_b)):
        _require_frauds(project, name, rows)

    candidates = fit_candidates(
        _side(training, encoder), _side(validation_a, encoder), seed=settings.seed, threads=settings.threads, progress=progress
    )
    chosen = candidates[0]
    margins = chosen.margins(encoder.frame_matrix(validation_b.frame), settings.threads)
    calibration = fit_calibration(margins, validation_b.labels)
    scores_b = probabilities(margins, calibration)
    thresholds = _thresholds(project, validation_b, scores_b)
    policy = _policy(project, thresholds)
    bundle = make_bundle(
        source=source.name,
        timezone=source.timezone,
        feature_version=features.VERSION,
        kind=chosen.kind,
        model=chosen.exported,
        encoder=encoder,
        calibration=calibration,
        thresholds=thresholds,
        lineage=_lineage(project, allowed),
    )
    progress(f"chosen: {chosen.name}; version {bundle.version}; looking at the hold-out")
    holdout = holdout_rows(project, split)
    scores = Scorer(bundle, settings.threads).score_features(holdout.frame)
    codes = CardCodes() if source.columns.card is not None else None
    by_time = split.by_time
    every = _every(project)
    known = known_frauds(project.artifacts, every, split.holdout, source, codes) if by_time and codes else None
    evaluated = holdout.evaluation(scores, source, codes, by_time)
    b_evaluated = validation_b.evaluation(scores_b, source, codes, by_time)
    b_known = known_frauds(project.artifacts, every, split.validation_b, source, codes) if by_time and codes else None
    holdout_id = _holdout_id(split, every, holdout)
    return TrainedModel(
        bundle=bundle,
        estimator=chosen.estimator,
        split=split,
        sides={
            name: SideCount(len(rows.frame), int(rows.labels.sum()))
            for name, rows in zip(SIDES, (training, validation_a, validation_b, holdout), strict=True)
        },
        candidates=tuple((candidate.name, candidate.average_precision) for candidate in candidates),
        candidates_fraud_rate=float(validation_a.labels.mean()),
        policy=policy,
        validation=evaluate(b_evaluated, policy, b_known, "validation block B"),
        holdout=evaluate(evaluated, policy, known),
        holdout_without_rejected=_without_rejected(evaluated, holdout, every, allowed, policy),
        holdout_id=holdout_id,
        holdout_looks=_count_look(project, holdout_id, bundle.version),
    )


def training_inputs(project: Project, allowed: TrainingSet) -> str:
    """Hash of everything a training depends on; while it stays, training again would give the same model."""
    settings = project.settings
    chosen = {"seed", "max_training_rows", "min_holdout_frauds", "review_capacity", "review_cost", "false_decline_cost"}
    return fingerprint(
        gate.fingerprint(allowed),
        _split(project, allowed).model_dump_json(),
        settings.model_dump_json(include=chosen),
        str(features.VERSION),
        *(f"{name} {metadata.version(name)}" for name in LIBRARIES),
    )


def holdout_rows(project: Project, split: Split) -> Rows:
    """The hold-out: rows of every materialized partition, those that the gate rejected included."""
    return read_rows(project.artifacts, _every(project), split.holdout)


def _split(project: Project, allowed: TrainingSet) -> Split:
    """The split of the accepted partitions: a rejected one that comes last moves no border; the same set, the same model."""
    pointers = project.transformed()
    return split_of(project.source, {part.partition: pointers[part.partition] for part in allowed.accepted})


def _every(project: Project) -> list[PartitionRef]:
    return [PartitionRef(partition=key, content=pointer.content) for key, pointer in project.transformed().items()]


def _training_rows(project: Project, split: Split, allowed: TrainingSet) -> Rows:
    settings = project.settings
    return read_training_rows(project.artifacts, allowed.accepted, split.training, settings.max_training_rows, settings.seed)


def _side(rows: Rows, encoder: Encoder) -> Side:
    return Side(encoder.frame_matrix(rows.frame), rows.labels, rows.weights)


def _require_frauds(project: Project, name: str, rows: Rows) -> None:
    frauds, least = int(rows.labels.sum()), project.settings.min_holdout_frauds
    if frauds < least or frauds == len(rows.labels):
        raise HoldoutError(
            f"The {name} hold {frauds} frauds among {len(rows.labels)} rows; at least {least}, and some legitimate rows, are "
            "needed. Widen the block in [split] of the source's TOML, or wait for more data."
        )


def _thresholds(project: Project, rows: Rows, scores: Any) -> Thresholds:
    """Review by capacity, decline by cost, both on validation B alone."""
    settings = project.settings
    days = rows.frame["timestamp"].dt.convert_time_zone(project.source.timezone).dt.date().n_unique()
    review = metrics.review_threshold(scores, days=days, capacity=settings.review_capacity)
    decline = metrics.decline_threshold(
        rows.labels,
        scores,
        review_threshold=review,
        review_cost=settings.review_cost,
        false_decline_cost=settings.false_decline_cost,
    )
    return Thresholds(review=review, decline=decline)


def _policy(project: Project, thresholds: Thresholds) -> Policy:
    settings = project.settings
    return Policy(
        review_threshold=thresholds.review,
        decline_threshold=thresholds.decline,
        review_cost=settings.review_cost,
        false_decline_cost=settings.false_decline_cost,
        label_delay_days=project.source.label_delay_days,
        draws=settings.bootstrap_draws,
        seed=settings.seed,
        min_frauds=settings.min_holdout_frauds,
    )


def _lineage(project: Project, allowed: TrainingSet) -> Lineage:
    return Lineage(
        training_set=gate.fingerprint(allowed),
        partitions=tuple((part.partition, part.content, _how(allowed, part)) for part in allowed.accepted),
        rejected=tuple((part.partition, part.content) for part in allowed.rejected),
        dropped_features=dropped_features(project.source),
        card_key_id=project.card_key.id,
        libraries={name: metadata.version(name) for name in LIBRARIES},
    )


def _how(allowed: TrainingSet, part: PartitionRef) -> str:
    verdict = allowed.verdicts[part.partition]
    if verdict.overruled_by is not None:
        return "accepted_by"
    return "bootstrap" if verdict.kind == "bootstrap" else "accepted"


def _without_rejected(
    evaluated: EvaluationRows, rows: Rows, every: Sequence[PartitionRef], allowed: TrainingSet, policy: Policy
) -> Report | None:
    """The hold-out's figures without rejected partitions; None where none lies in it, or too few frauds are left."""
    rejected = {part.partition for part in allowed.rejected}
    places = [place for place, part in enumerate(every) if part.partition in rejected]
    kept = ~np.isin(rows.partition, places)
    if kept.all() or int(evaluated.labels[kept].sum()) < policy.min_frauds:
        return None
    return evaluate(evaluated.where(kept), policy)


def _holdout_id(split: Split, every: Sequence[PartitionRef], rows: Rows) -> str:
    """Names the hold-out's very rows: its borders and the contents of the partitions it lies in."""
    present = [every[place].content for place in sorted(set(rows.partition.tolist()))]
    return fingerprint(split.holdout.model_dump_json(), *present)[:16]


def _count_look(project: Project, holdout_id: str, version: str) -> int:
    """Note that a model was measured on this hold-out, and count how many have been; the same model again is the same look."""
    store = project.artifacts.store
    with suppress(StoreConflictError):
        store.put_if(f"looks/{holdout_id}/{version}.json", b"{}", None)
    return sum(1 for _ in store.list(f"looks/{holdout_id}"))

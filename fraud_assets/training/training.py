"""Training: from a task's values to a bundle that was evaluated once on the hold-out. No framework, no clock."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from fraud_assets.training.candidates import Progress, fit_calibration, fit_candidates
from fraud_assets.training.columns import unlearnable
from fraud_assets.training.preprocessing import fit_encoder, training_matrix
from fraud_assets.training.rows import CardCodes, Rows, at_most, known_frauds, read_rows, read_training_rows
from fraud_assets.training.split import SIDES, Split
from fraud_assets.training.task import TrainingTask
from fraud_core.errors import FeatureError, GateRefusalError, HoldoutError, StoreConflictError
from fraud_core.evaluation import costs, metrics
from fraud_core.evaluation.report import EvaluationRows, Policy, Report, evaluate
from fraud_core.features import catalogue
from fraud_core.features.encoder import Encoder
from fraud_core.gate import PartitionRef
from fraud_core.models.bundle import Bundle, Fitted, make_bundle
from fraud_core.models.kinds.kind import Examples
from fraud_core.models.manifest import Lookback, Thresholds
from fraud_core.models.scorer import Scorer, probabilities
from fraud_core.storage.artifacts import fingerprint
from fraud_core.storage.objects import ObjectStore
from fraud_core.training_data.transform import CARRIED, source_features
from fraud_core.units.arrays import Floats


@dataclass(frozen=True)
class Preprocessor:
    """The encoder, fitted on the training rows of the accepted partitions, and which these were.

    Attributes:
        labels: what the log of labels had changed (see `Data.fingerprint`).
        dropped: features that nothing could be learned from, and why.
    """

    encoder: Encoder
    split: Split
    training_set: str
    labels: str
    rows: int
    frauds: int
    dropped: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class SideCount:
    """What lies on a side of the split."""

    rows: int
    frauds: int


@dataclass(frozen=True)
class FallbackModel:
    """The bundle's second model, without features of the past: how it was chosen, and its average precision."""

    estimator: Any
    candidates: tuple[tuple[str, float], ...]
    validation: float
    holdout: float


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
    fallback: FallbackModel | None = None


@dataclass(frozen=True)
class _Chosen:
    """The best of the candidates, as it ships and as scikit-learn has it; and how all of them did."""

    fitted: Fitted
    estimator: Any
    candidates: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class _Side:
    """n rows of a side of the split, without their features, and as a model sees them: a matrix of shape (n, columns)."""

    rows: Rows
    X: Floats

    @property
    def examples(self) -> Examples:
        return Examples(self.X, self.rows.labels, self.rows.weights)

    def of(self, encoder: Encoder, part: Encoder) -> "_Side":
        """The same with some of the encoder's columns."""
        return replace(self, X=np.take(self.X, [encoder.features.index(name) for name in part.features], axis=1))


def fit_preprocessor(task: TrainingTask) -> Preprocessor:
    """Fit the encoder on the training rows, without the columns that nothing can be learned from.

    Raises:
        HoldoutError: the training rows hold too few frauds.
        FeatureError: a category is an id; or no column is left that speaks of the payment itself.
    """
    rows, lineage = _training_rows(task), task.lineage
    _require_frauds(task, "training rows", rows)
    features = source_features(task.source)
    dropped = unlearnable(rows.frame, features)
    kept = [feature for feature in features if feature.name not in dropped]
    if all(feature.is_history for feature in kept):
        raise FeatureError(
            f"Of {len(features)} features, none of the payment itself can be learned from: {_said(dropped)}. Look at the columns "
            "of the source's TOML, and at what lies in them."
        )
    encoder, frauds = fit_encoder(rows, kept), int(rows.labels.sum())
    trained_on = (lineage.training_set, lineage.labels, len(rows.frame), frauds)
    return Preprocessor(encoder, task.split, *trained_on, tuple(dropped.items()))


def train(task: TrainingTask, preprocessor: Preprocessor, progress: Progress) -> TrainedModel:
    """Fit the candidates, choose on validation A, calibrate and set thresholds on B, and look at the hold-out once.

    Raises:
        GateRefusalError: the preprocessor was fitted on another training set, split or labels than the task has.
        HoldoutError: a block has too few frauds to say anything.
    """
    fitted_on = (preprocessor.training_set, preprocessor.split, preprocessor.labels)
    if fitted_on != (task.lineage.training_set, task.split, task.lineage.labels):
        raise GateRefusalError(
            "The preprocessor was fitted on other partitions, another split, or other labels, than hold now; "
            "materialize preprocessor, then model."
        )
    settings, source, data, split, encoder = task.settings, task.source, task.data, task.split, preprocessor.encoder
    read = partial(read_rows, data, task.allowed.accepted)
    training = _encoded_training(task, encoder)
    validation_a, validation_b = (_encoded(read(block), encoder) for block in (split.validation_a, split.validation_b))
    sides = (training, validation_a, validation_b)
    for name, side in zip(("training rows", "validation block A", "validation block B"), sides, strict=True):
        _require_frauds(task, name, side.rows)

    chosen, plain = _choose(task, encoder, *sides, progress), _without_history(encoder, catalogue.catalogue_of(source.declared))
    fallback = None
    if plain is not None:
        plain_training, plain_a, plain_b = (side.of(encoder, plain) for side in sides)
        fallback = _choose(task, plain, plain_training, plain_a, plain_b, lambda said: progress(f"without history, {said}"))
    bundle = make_bundle(
        source=source.name,
        timezone=source.timezone,
        feature_version=catalogue.VERSION,
        **dict(chosen.fitted),
        lineage=task.lineage.model_copy(update={"dropped_columns": dict(preprocessor.dropped)}),
        lookback=None
        if fallback is None
        else Lookback(
            history_days=source.history_days, label_delay_days=source.label_delay_days, newest_events=source.history_events
        ),
        fallback=None if fallback is None else fallback.fitted,
        declared=source.declared,
    )
    policy = settings.policy(bundle.thresholds, source.label_delay_days)
    progress(f"chosen: {chosen.candidates[0][0]}; version {bundle.version}; looking at the hold-out")
    holdout = _encoded(read_rows(data, task.measured, split.holdout), encoder)
    scorer = Scorer(bundle, settings.threads)
    scores, scores_b = (scorer.score_matrix(side.X) for side in (holdout, validation_b))
    codes = CardCodes() if source.columns.card is not None else None
    by_time = split.by_time
    known = known_frauds(data, task.measured, split.holdout, source, codes) if by_time and codes else None
    evaluated = holdout.rows.evaluation(scores, source, codes, by_time)
    b_evaluated = validation_b.rows.evaluation(scores_b, source, codes, by_time)
    b_known = known_frauds(data, task.measured, split.validation_b, source, codes) if by_time and codes else None
    holdout_id = _holdout_id(split, task.measured, holdout.rows)
    return TrainedModel(
        bundle=bundle,
        estimator=chosen.estimator,
        split=split,
        sides={
            name: SideCount(len(side.rows.frame), int(side.rows.labels.sum()))
            for name, side in zip(SIDES, (*sides, holdout), strict=True)
        },
        candidates=chosen.candidates,
        candidates_fraud_rate=float(validation_a.rows.labels.mean()),
        policy=policy,
        validation=evaluate(b_evaluated, policy, b_known, "validation block B"),
        holdout=evaluate(evaluated, policy, known),
        holdout_without_rejected=_without_rejected(evaluated, holdout.rows, task, policy),
        holdout_id=holdout_id,
        holdout_looks=_count_look(data.artifacts.store, holdout_id, bundle.version),
        fallback=None if fallback is None else _fallback(fallback, scorer, encoder, validation_b, holdout),
    )


def _choose(
    task: TrainingTask, encoder: Encoder, training: _Side, validation_a: _Side, validation_b: _Side, progress: Progress
) -> _Chosen:
    """Fit the candidates, take the best on validation A, calibrate it and set its thresholds on B."""
    settings = task.settings
    candidates = fit_candidates(
        training.examples,
        validation_a.examples,
        seed=settings.seed,
        threads=settings.threads,
        progress=progress,
    )
    best = candidates[0]
    margins = best.margins(validation_b.X, settings.threads)
    calibration = fit_calibration(margins, validation_b.rows.labels)
    fitted = Fitted(
        kind=best.kind,
        model=best.exported,
        encoder=encoder,
        calibration=calibration,
        thresholds=_thresholds(task, validation_b.rows, probabilities(margins, calibration)),
    )
    return _Chosen(fitted, best.estimator, tuple((candidate.name, candidate.average_precision) for candidate in candidates))


def _without_history(encoder: Encoder, known: catalogue.Catalogue) -> Encoder | None:
    """The columns that do not speak of the past; None where none does."""
    plain = tuple(column for column in encoder.columns if not known.by_name[column.feature].is_history)
    return None if plain == encoder.columns else Encoder(columns=plain)


def _fallback(chosen: _Chosen, scorer: Scorer, encoder: Encoder, validation_b: _Side, holdout: _Side) -> FallbackModel:
    plain = scorer.without_history
    assert plain is not None
    validation, measured = (
        metrics.average_precision(side.rows.labels, plain.score_matrix(side.of(encoder, plain.bundle.encoder).X))
        for side in (validation_b, holdout)
    )
    return FallbackModel(chosen.estimator, chosen.candidates, validation, measured)


def _training_rows(task: TrainingTask) -> Rows:
    settings = task.settings
    return read_training_rows(task.data, task.allowed.accepted, task.split.training, settings.max_training_rows, settings.seed)


def _encoded(rows: Rows, encoder: Encoder) -> _Side:
    return _Side(_without_features(rows), encoder.frame_matrix(rows.frame))


def _encoded_training(task: TrainingTask, encoder: Encoder) -> _Side:
    """What the model learns from: of a wide table fewer rows, so that time and memory stay what they are for `WIDE` columns."""
    rows, settings = _training_rows(task), task.settings
    kept, weights = rows.narrowed(at_most(settings.max_training_rows, len(encoder.columns)), settings.seed)
    X = training_matrix(rows, kept, encoder, settings.seed)
    return _Side(replace(_without_features(rows).where(kept), weights=weights), X)


def _without_features(rows: Rows) -> Rows:
    """The rows with what is carried beside their features: of a wide table, frame and matrix at once are too much."""
    return replace(rows, frame=rows.frame.select([name for name in CARRIED if name in rows.frame.columns]))


def _said(dropped: Mapping[str, str]) -> str:
    return "; ".join(f"{name} is {reason}" for name, reason in dropped.items()) or "all of them speak of the past"


def _require_frauds(task: TrainingTask, name: str, rows: Rows) -> None:
    frauds, least = int(rows.labels.sum()), task.settings.min_holdout_frauds
    if frauds < least or frauds == len(rows.labels):
        raise HoldoutError(
            f"The {name} hold {frauds} frauds among {len(rows.labels)} rows; at least {least}, and some legitimate rows, are "
            "needed. Widen the block in [split] of the source's TOML, or wait for more data."
        )


def _thresholds(task: TrainingTask, rows: Rows, scores: Any) -> Thresholds:
    """Review by capacity, decline by cost, both on validation B alone."""
    settings = task.settings
    days = len(np.unique(rows.local_days(task.source)))
    review = costs.review_threshold(scores, days=days, capacity=settings.review_capacity)
    decline = costs.decline_threshold(
        rows.labels,
        scores,
        review_threshold=review,
        review_cost=settings.review_cost,
        false_decline_cost=settings.false_decline_cost,
    )
    return Thresholds(review=review, decline=decline)


def _without_rejected(evaluated: EvaluationRows, rows: Rows, task: TrainingTask, policy: Policy) -> Report | None:
    """The hold-out's figures without rejected partitions; None where none lies in it, or too few frauds are left."""
    rejected = {part.partition for part in task.allowed.rejected}
    places = [place for place, part in enumerate(task.measured) if part.partition in rejected]
    kept = ~np.isin(rows.partition, places)
    if kept.all() or int(evaluated.labels[kept].sum()) < policy.min_frauds:
        return None
    return evaluate(evaluated.where(kept), policy)


def _holdout_id(split: Split, every: Sequence[PartitionRef], rows: Rows) -> str:
    """Names the hold-out's very rows: its borders and the contents of the partitions it lies in."""
    present = [every[place].content for place in sorted(set(rows.partition.tolist()))]
    return fingerprint(split.holdout.model_dump_json(), *present)[:16]


def _count_look(store: ObjectStore, holdout_id: str, version: str) -> int:
    """Note that a model was measured on this hold-out, and count how many have been; the same model again is the same look."""
    with suppress(StoreConflictError):
        store.put_if(f"looks/{holdout_id}/{version}.json", b"{}", None)
    return sum(1 for _ in store.list(f"looks/{holdout_id}"))

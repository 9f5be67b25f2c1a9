"""Evaluation metrics: average precision and its bootstrap intervals, ROC AUC, precision and recall.

Throughout, `labels` is bool[n] (True: fraud), `scores` float64[n] (higher: more suspicious; a probability where a threshold,
a cost or calibration is concerned), and a row is alerted at a threshold if its score is at least the threshold. Rows with the
same score are never told apart.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from fraud_core.errors import HoldoutError
from fraud_core.evaluation.intervals import Interval
from fraud_core.units.arrays import Array

NEVER = math.nextafter(1.0, 2.0)  # a threshold that no probability reaches, and that JSON can carry
CURVE_POINTS = 200


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold does: rows alerted, and the share of frauds among them and of all frauds (None: nothing to divide by)."""

    threshold: float
    alerts: int
    precision: float | None
    recall: float | None


@dataclass(frozen=True)
class CurvePoint:
    """One point of a precision-recall curve."""

    threshold: float
    precision: float
    recall: float


def average_precision(labels: Array, scores: Array) -> float:
    """Average precision: the sum over distinct scores of precision times the recall gained, as scikit-learn computes it.

    Args:
        labels, scores: n rows.

    Raises:
        HoldoutError: no fraud, no legitimate row, or a score that is not finite.
    """
    require_both_classes(labels, scores)
    return _Steps.of(labels, scores, np.arange(len(labels))).average_precision(np.ones(len(labels), dtype=np.int64))


def roc_auc(labels: Array, scores: Array) -> float:
    """Area under the ROC curve: the chance that a fraud scores higher than a legitimate row, a tie counting half.

    Args and errors: as `average_precision`.
    """
    from sklearn.metrics import auc  # noqa: PLC0415 - the scorer does without scikit-learn

    false_alerts, caught, _ = _counts(labels, scores)
    # Of counts, which are exact, and divided once: shares would round at every step.
    return float(auc(np.append(0, false_alerts), np.append(0, caught)) / (false_alerts[-1] * caught[-1]))


def average_precision_interval(
    labels: Array, scores: Array, cards: Array | None, *, draws: int, seed: int, level: float = 0.95
) -> Interval:
    """Percentile bootstrap interval of average precision, drawing whole cards, since rows of one card are not independent.

    Args:
        labels, scores: n rows.
        cards: int [n], codes of the cards from 0 on; None: every row is a cluster of its own.
        draws: bootstrap draws. A draw that happens to hold no fraud has no average precision and is passed over.
        seed: of the draws.
        level: probability inside the interval.

    Raises:
        HoldoutError: as `average_precision`.
    """
    require_both_classes(labels, scores)
    clusters = _clusters(cards, len(labels))
    (values,) = _bootstrap([_Steps.of(labels, scores, clusters)], int(clusters.max()) + 1, draws, seed)
    return _percentiles(values, level)


def paired_difference(
    labels: Array,
    candidate_scores: Array,
    champion_scores: Array,
    cards: Array | None,
    *,
    draws: int,
    seed: int,
    level: float = 0.95,
) -> tuple[float, Interval]:
    """Candidate minus champion in average precision on the same rows, with the interval of the paired bootstrap over cards.

    Both are scored on the very same draws, so what makes a draw hard for both cancels out.

    Args and errors: as `average_precision_interval`.
    """
    require_both_classes(labels, candidate_scores)
    require_both_classes(labels, champion_scores)
    clusters = _clusters(cards, len(labels))
    steps = [_Steps.of(labels, scores, clusters) for scores in (candidate_scores, champion_scores)]
    candidate, champion = _bootstrap(steps, int(clusters.max()) + 1, draws, seed)
    difference = average_precision(labels, candidate_scores) - average_precision(labels, champion_scores)
    return difference, _percentiles(candidate - champion, level)


def operating_point(labels: Array, scores: Array, threshold: float) -> OperatingPoint:
    """Alerts, precision and recall at a threshold."""
    alerted = scores >= threshold
    alerts, frauds, caught = int(alerted.sum()), int(labels.sum()), int((alerted & labels).sum())
    return OperatingPoint(
        threshold=threshold,
        alerts=alerts,
        precision=caught / alerts if alerts else None,
        recall=caught / frauds if frauds else None,
    )


def precision_recall_curve(labels: Array, scores: Array, points: int = CURVE_POINTS) -> tuple[CurvePoint, ...]:
    """At most `points` points of the precision-recall curve, evenly spread over recall, the last at recall 1.

    Only scores that a fraud has are taken: between them recall stands still while precision falls.

    Raises:
        HoldoutError: as `average_precision`.
    """
    false_alerts, caught, thresholds = _counts(labels, scores)
    gains = np.flatnonzero(np.diff(caught, prepend=0))
    if len(gains) > points:
        gains = gains[np.unique(np.searchsorted(caught[gains], np.linspace(0, caught[-1], points + 1)[1:]))]
    precision, recall = caught / (caught + false_alerts), caught / caught[-1]
    return tuple(CurvePoint(float(thresholds[i]), float(precision[i]), float(recall[i])) for i in gains)


def require_both_classes(labels: Array, scores: Array) -> None:
    """Refuse rows that carry no figure.

    Raises:
        HoldoutError: no fraud, no legitimate row, or a score that is not finite.
    """
    if not labels.any():
        raise HoldoutError(
            f"There is no fraud among the {len(labels)} rows, so nothing can be measured on them; use a longer period."
        )
    if labels.all():
        raise HoldoutError(f"All {len(labels)} rows are fraud, so nothing can be measured on them; use rows that hold both.")
    if not np.isfinite(scores).all():
        raise HoldoutError("Some scores are not finite numbers: the model diverged. Train it anew before measuring it.")


def _counts(labels: Array, scores: Array) -> tuple[Array, Array, Array]:
    """Legitimate rows and frauds at or above each distinct score, and that score; highest first. Errors as above."""
    from sklearn.metrics import confusion_matrix_at_thresholds  # noqa: PLC0415 - the scorer does without scikit-learn

    require_both_classes(labels, scores)
    _, false_alerts, _, caught, thresholds = confusion_matrix_at_thresholds(labels, scores)
    return false_alerts, caught, thresholds


@dataclass(frozen=True)
class _Steps:
    """A ranking from highest to lowest score, cut after each distinct score that a fraud has; rows below the last are dropped.

    Average precision sees nothing finer, so a bootstrap draw needs two sums for each step and no sorting. Rows stand for
    themselves as the code of their cluster, by which a draw's weights are looked up.
    """

    clusters: Array
    starts: Array
    fraud_clusters: Array
    fraud_starts: Array

    @classmethod
    def of(cls, labels: Array, scores: Array, clusters: Array) -> Self:
        order, starts = sorted_by_score(scores)
        is_fraud = labels[order]
        group = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(scores)))
        fraud_group = group[is_fraud]
        fraud_starts = tied_runs(fraud_group)
        ends = np.append(starts[1:], len(scores))[fraud_group[fraud_starts]]
        return cls(
            clusters=clusters[order[: ends[-1]]],
            starts=np.append(0, ends[:-1]),
            fraud_clusters=clusters[order[is_fraud]],
            fraud_starts=fraud_starts,
        )

    def average_precision(self, weights: Array) -> float:
        """Average precision with these weights of the clusters; NaN if no fraud has any weight."""
        fraud = np.add.reduceat(weights[self.fraud_clusters], self.fraud_starts)
        alerted = np.cumsum(np.add.reduceat(weights[self.clusters], self.starts))
        total = fraud.sum()
        if total == 0:
            return math.nan
        precision = np.divide(np.cumsum(fraud), alerted, out=np.zeros(len(fraud)), where=alerted > 0)
        return float(fraud @ precision / total)


def sorted_by_score(scores: Array) -> tuple[Array, Array]:
    """Row numbers from highest to lowest score, and where in them each distinct score begins."""
    order = np.argsort(-scores, kind="stable")
    return order, tied_runs(scores[order])


def tied_runs(*columns: Array) -> Array:
    """Where, going down the rows, a new combination of values begins."""
    changes = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return np.append(0, np.flatnonzero(changes) + 1)


def _clusters(cards: Array | None, rows: int) -> Array:
    """Codes 0..m-1 without gaps: a card without rows must not be drawn."""
    if cards is None:
        return np.arange(rows)
    codes: Array = np.cumsum(np.bincount(cards) > 0) - 1
    return codes[cards]


def _bootstrap(rankings: list[_Steps], clusters: int, draws: int, seed: int) -> Array:
    """Average precision [rankings, draws] where each draw takes `clusters` clusters with replacement, the same for all."""
    generator = np.random.default_rng(seed)
    values = np.empty((len(rankings), draws))
    for draw in range(draws):
        times = np.bincount(generator.integers(0, clusters, clusters), minlength=clusters)
        values[:, draw] = [ranking.average_precision(times) for ranking in rankings]
    return values


def _percentiles(values: Array, level: float) -> Interval:
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high))

"""Expected cost of thresholds in money, and the thresholds of least cost or given capacity."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from fraud_core.evaluation.metrics import CURVE_POINTS, NEVER
from fraud_core.units.arrays import Array


@dataclass(frozen=True)
class Cost:
    """What a policy costs, in the currency of the amounts; counts are rows. `baseline` is the cost of approving everything."""

    total: float
    per_thousand: float
    fraud_lost: float
    reviews: int
    false_declines: int
    declines: int
    baseline: float


@dataclass(frozen=True)
class CostPoint:
    """Cost per thousand transactions if the review threshold, or the decline threshold, lay here and the other stayed."""

    threshold: float
    review_here: float | None
    decline_here: float | None


def expected_cost(
    labels: Array,
    amounts: Array,
    scores: Array,
    *,
    review_threshold: float,
    decline_threshold: float,
    review_cost: float,
    false_decline_cost: float,
) -> Cost:
    """What the policy would have cost on these rows.

    A row from the decline threshold on is declined: a fraud is stopped, a legitimate one costs `false_decline_cost`. One from
    the review threshold on is reviewed: that costs `review_cost` and stops a fraud. Any other is approved, and a fraud loses
    its amount.

    Args:
        labels, scores: n rows.
        amounts: float [n], currency units.
        review_threshold: at most `decline_threshold`.
    """
    book = _Book.of(labels, amounts, scores)
    review, decline = np.array([review_threshold]), np.array([decline_threshold])
    lost, reviews = float(book.lost(review)[0]), int(book.alerts(review)[0] - book.alerts(decline)[0])
    false_declines = int(book.false_alerts(decline)[0])
    total = lost + review_cost * reviews + false_decline_cost * false_declines
    return Cost(
        total=total,
        per_thousand=1_000 * total / len(labels),
        fraud_lost=lost,
        reviews=reviews,
        false_declines=false_declines,
        declines=int(book.alerts(decline)[0]),
        baseline=float(amounts[labels].sum()),
    )


def cost_curve(
    labels: Array,
    amounts: Array,
    scores: Array,
    *,
    review_threshold: float,
    decline_threshold: float,
    review_cost: float,
    false_decline_cost: float,
) -> tuple[CostPoint, ...]:
    """How the cost moves with either threshold while the other stays where it is; at most `CURVE_POINTS` + 2 points.

    Thresholds are observed scores, densest at the top of the ranking, and the two chosen ones. A threshold has no figure where
    review would lie above decline.

    Args: as `expected_cost`.
    """
    ranked = np.sort(scores)[::-1]
    ranks = np.unique(np.geomspace(1, len(ranked), CURVE_POINTS).astype(np.int64)) - 1
    threshold = np.unique(np.concatenate([ranked[ranks], [review_threshold, decline_threshold]]))
    book = _Book.of(labels, amounts, scores)

    def per_thousand(review: Array, decline: Array) -> list[float | None]:
        reviews = book.alerts(review) - book.alerts(decline)
        cost = book.lost(review) + review_cost * reviews + false_decline_cost * book.false_alerts(decline)
        return [1_000 * float(c) / len(labels) if r <= d else None for c, r, d in zip(cost, review, decline, strict=True)]

    moved_review = per_thousand(threshold, np.full_like(threshold, decline_threshold))
    moved_decline = per_thousand(np.full_like(threshold, review_threshold), threshold)
    return tuple(
        CostPoint(float(t), review, decline) for t, review, decline in zip(threshold, moved_review, moved_decline, strict=True)
    )


def review_threshold(scores: Array, *, days: float, capacity: float) -> float:
    """The lowest threshold at which no more rows are alerted than can be looked at.

    Args:
        scores: n rows.
        days: how many days the rows span.
        capacity: alerts a day that can be looked at.

    Returns:
        An observed score, or the next number above the highest one if already the rows that share it are too many.
    """
    budget = math.floor(capacity * days)
    ranked = np.sort(scores)[::-1]
    if budget >= len(ranked):
        return float(ranked[-1])
    first_too_many = ranked[budget]
    within = ranked[:budget][ranked[:budget] > first_too_many]
    return float(within[-1]) if len(within) else math.nextafter(float(first_too_many), math.inf)


def decline_threshold(
    labels: Array, scores: Array, *, review_threshold: float, review_cost: float, false_decline_cost: float
) -> float:
    """The threshold, not below the review threshold, from which declining instead of reviewing costs least on these rows.

    Amounts do not matter here: a review stops a fraud as a decline does, so what declining saves is the review. Of thresholds
    that cost the same the highest is taken, which declines fewest.

    Returns:
        An observed score, or, if declining never pays, `NEVER` (the review threshold, should that be higher still).
    """
    never = max(NEVER, review_threshold)
    candidates = np.append(np.unique(scores[scores >= review_threshold]), never)[::-1]
    book = _Book.of(labels, np.zeros(len(labels)), scores)
    cost = false_decline_cost * book.false_alerts(candidates) - review_cost * book.alerts(candidates)
    return float(candidates[np.argmin(cost)])


@dataclass(frozen=True)
class _Book:
    """Rows in order of score, lowest first, with running sums, so that any threshold is looked up and not counted anew."""

    scores: Array
    legitimate_from: Array
    fraud_amount_below: Array

    @classmethod
    def of(cls, labels: Array, amounts: Array, scores: Array) -> Self:
        order = np.argsort(scores, kind="stable")
        return cls(
            scores=scores[order],
            legitimate_from=np.append(np.cumsum(~labels[order][::-1])[::-1], 0),
            fraud_amount_below=np.append(0.0, np.cumsum(np.where(labels, amounts, 0.0)[order])),
        )

    def alerts(self, threshold: Array) -> Array:
        """Rows at or above each threshold."""
        return len(self.scores) - self._below(threshold)

    def false_alerts(self, threshold: Array) -> Array:
        """Legitimate rows at or above each threshold."""
        counts: Array = self.legitimate_from[self._below(threshold)]
        return counts

    def lost(self, threshold: Array) -> Array:
        """Amount of the frauds below each threshold."""
        amounts: Array = self.fraud_amount_below[self._below(threshold)]
        return amounts

    def _below(self, threshold: Array) -> Array:
        below: Array = np.searchsorted(self.scores, threshold, side="left")
        return below

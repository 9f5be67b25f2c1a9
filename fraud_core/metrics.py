"""The figures by which a scorer is judged, in plain NumPy so that light processes can compute them.

Throughout, `labels` is bool[n] (True: fraud), `scores` float64[n] (higher: more suspicious; a probability where a threshold,
a cost or calibration is concerned), and a row is alerted at a threshold if its score is at least the threshold. Rows with the
same score are never told apart.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fraud_core.errors import HoldoutError

Array = npt.NDArray[Any]

NEVER = math.nextafter(1.0, 2.0)  # a threshold that no probability reaches, and that JSON can carry
CURVE_POINTS = 200


@dataclass(frozen=True)
class Interval:
    """A bootstrap percentile interval, or a Wilson interval of a share."""

    low: float
    high: float


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold does: rows alerted, and the share of frauds among them and of all frauds (None: nothing to divide by)."""

    threshold: float
    alerts: int
    precision: float | None
    recall: float | None


@dataclass(frozen=True)
class CardPrecision:
    """Mean daily card precision at k, the most that was attainable, and over how many days."""

    k: int
    value: float
    ceiling: float
    days: int


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
class CalibrationBin:
    """Rows of neighbouring scores: what was predicted on average, what was observed, and the 95 % Wilson interval of that."""

    rows: int
    mean_score: float
    observed_rate: float
    interval: Interval


@dataclass(frozen=True)
class CurvePoint:
    """One point of a precision-recall curve."""

    threshold: float
    precision: float
    recall: float


@dataclass(frozen=True)
class CostPoint:
    """Cost per thousand transactions if the review threshold, or the decline threshold, lay here and the other stayed."""

    threshold: float
    review_here: float | None
    decline_here: float | None


# --- ranking ----------------------------------------------------------------------------------------------------------


def average_precision(labels: Array, scores: Array, weights: Array | None = None) -> float:
    """Average precision: the sum over distinct scores of precision times the recall gained, as scikit-learn computes it.

    Args:
        labels, scores: n rows.
        weights: float or int [n], at least 0; None: all 1.

    Raises:
        HoldoutError: no fraud, no legitimate row, or a score that is not finite.
    """
    require_both_classes(labels, scores, weights)
    every_row = np.arange(len(labels))
    weights = np.ones(len(labels), dtype=np.int64) if weights is None else weights
    return _Steps.of(labels, scores, every_row).average_precision(weights)


def roc_auc(labels: Array, scores: Array, weights: Array | None = None) -> float:
    """Area under the ROC curve: the chance that a fraud scores higher than a legitimate row, a tie counting half.

    Args and errors: as `average_precision`.
    """
    require_both_classes(labels, scores, weights)
    weights = np.ones(len(labels)) if weights is None else weights
    order, starts = _by_score(scores)
    fraud = np.add.reduceat(np.where(labels, weights, 0)[order], starts, dtype=np.float64)
    legitimate = np.add.reduceat(np.where(labels, 0, weights)[order], starts, dtype=np.float64)
    above = np.cumsum(fraud) - fraud
    return float(legitimate @ (above + fraud / 2) / (fraud.sum() * legitimate.sum()))


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
    require_both_classes(labels, scores)
    order, starts = _by_score(scores)
    ends = np.append(starts[1:], len(scores))
    found = np.cumsum(labels[order])[ends - 1]
    gains = np.flatnonzero(np.diff(found, prepend=0))
    if len(gains) > points:
        gains = gains[np.unique(np.searchsorted(found[gains], np.linspace(0, found[-1], points + 1)[1:]))]
    return tuple(
        CurvePoint(float(scores[order[starts[i]]]), float(found[i] / ends[i]), float(found[i] / found[-1])) for i in gains
    )


# --- cards a day ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DailyCardPrecision:
    """Card precision at k of each day that has transactions, in order: arrays of one length d."""

    k: int
    day: Array
    precision: Array
    ceiling: Array

    def mean(self, days: Array | None = None) -> CardPrecision:
        """The mean over the given day numbers (None: all)."""
        chosen = np.ones(len(self.day), dtype=bool) if days is None else np.isin(self.day, days)
        return CardPrecision(
            k=self.k,
            value=float(self.precision[chosen].mean()),
            ceiling=float(self.ceiling[chosen].mean()),
            days=int(chosen.sum()),
        )


def daily_card_precision(
    day: Array,
    cards: Array,
    labels: Array,
    scores: Array,
    *,
    label_delay_days: int,
    known: tuple[Array, Array] | None = None,
    k: int = 100,
) -> DailyCardPrecision:
    """Card precision at k a day, as the Fraud Detection Handbook defines it (Le Borgne et al. 2022, chapters 3.4 and 4.4).

    Each day, cards are ranked by their highest score of that day, and the k first are looked at; the precision is the number
    of compromised cards among them (with a fraud that day) over k, though a day may have fewer cards. Two kinds of cards are
    left out: those whose fraud lies more than the label delay back, so that it is known by now, and those that were among the
    k on an earlier day of this block and turned out compromised. The ceiling counts the compromised cards that were not left
    out, k at most, over k. Where scores tie, the lower card code comes first.

    Args:
        day: int [n], local day number.
        cards: int [n], card codes from 0 on.
        labels, scores: n rows.
        label_delay_days: a fraud of day f is known from day f + delay + 1 on.
        known: frauds before the block, as (card codes int [m], day numbers int [m]), in the same codes; None: none.
        k: cards that can be looked at in a day.
    """
    known_cards, known_days = known if known is not None else (cards[:0], day[:0])
    fraud_cards = np.concatenate([known_cards, cards[labels]])
    first_fraud = np.full(int(max(cards.max(), fraud_cards.max(initial=0))) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first_fraud, fraud_cards, np.concatenate([known_days, day[labels]]))

    # One entry for each card and day, in order of day and card.
    order = np.lexsort((cards, day))
    starts = _runs(day[order], cards[order])
    entry_day, entry_card = day[order][starts], cards[order][starts]
    highest = np.maximum.reduceat(scores[order], starts)
    compromised = np.logical_or.reduceat(labels[order], starts)

    day_starts = _runs(entry_day)
    days = entry_day[day_starts]
    detected = np.zeros(len(first_fraud), dtype=bool)
    hits, attainable = np.zeros(len(days)), np.zeros(len(days))
    for i, today in enumerate(np.split(np.arange(len(entry_day)), day_starts[1:])):
        left_out = detected[entry_card[today]] | (first_fraud[entry_card[today]] < days[i] - label_delay_days)
        ranked = today[~left_out]
        top = ranked[np.argsort(-highest[ranked], kind="stable")[:k]]
        found = top[compromised[top]]
        detected[entry_card[found]] = True
        hits[i] = len(found)
        attainable[i] = min(k, int(compromised[ranked].sum()))
    return DailyCardPrecision(k=k, day=days, precision=hits / k, ceiling=attainable / k)


# --- cost and thresholds ----------------------------------------------------------------------------------------------


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


# --- calibration ------------------------------------------------------------------------------------------------------


def calibration_table(labels: Array, scores: Array, bins: int = 10) -> tuple[CalibrationBin, ...]:
    """Predicted against observed share of fraud, in at most `bins` bins of neighbouring scores, lowest first.

    The bins share out the expected variance of the number of frauds, sum of p (1 - p), equally: each tells as much as the
    next. Bins of equally many rows would put all fraud of a rare class into the last. Rows of one score stay together. The
    intervals treat rows as independent.

    Args:
        labels: n rows.
        scores: probabilities, n rows.
    """
    order, starts = _by_score(-scores)
    mass = np.add.reduceat((scores * (1 - scores))[order], starts)
    middle = np.cumsum(mass) - mass / 2
    group_bin = np.minimum(np.floor(middle / max(float(mass.sum()), math.ulp(0.0)) * bins), bins - 1)
    first = starts[_runs(group_bin)]
    rows = np.diff(first, append=len(scores))
    frauds = np.add.reduceat(labels[order].astype(np.int64), first)
    means = np.add.reduceat(scores[order], first) / rows
    return tuple(
        CalibrationBin(int(n), float(mean), int(f) / int(n), wilson_interval(int(f), int(n)))
        for n, f, mean in zip(rows, frauds, means, strict=True)
    )


def expected_calibration_error(table: tuple[CalibrationBin, ...]) -> float:
    """Mean distance between predicted and observed share, over the bins, weighted by their rows."""
    rows = sum(b.rows for b in table)
    return sum(b.rows * abs(b.mean_score - b.observed_rate) for b in table) / rows


def brier_score(labels: Array, scores: Array) -> float:
    """Mean squared difference between probability and outcome; a constant forecast of the fraud rate r gives r (1 - r)."""
    return float(np.mean((scores - labels) ** 2))


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Wilson score interval of a share (Wilson 1927)."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return Interval(low=max(0.0, centre - half), high=min(1.0, centre + half))


# --- what the above share ---------------------------------------------------------------------------------------------


def require_both_classes(labels: Array, scores: Array, weights: Array | None = None) -> None:
    """Refuse rows that carry no figure.

    Raises:
        HoldoutError: no fraud, no legitimate row (by weight), or a score that is not finite.
    """
    fraud = labels if weights is None else labels & (weights > 0)
    legitimate = ~labels if weights is None else ~labels & (weights > 0)
    if not fraud.any():
        raise HoldoutError(
            f"There is no fraud among the {len(labels)} rows, so nothing can be measured on them; use a longer period."
        )
    if not legitimate.any():
        raise HoldoutError(f"All {len(labels)} rows are fraud, so nothing can be measured on them; use rows that hold both.")
    if not np.isfinite(scores).all():
        raise HoldoutError("Some scores are not finite numbers: the model diverged. Train it anew before measuring it.")


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
        order, starts = _by_score(scores)
        is_fraud = labels[order]
        group = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(scores)))
        fraud_group = group[is_fraud]
        fraud_starts = _runs(fraud_group)
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


def _by_score(scores: Array) -> tuple[Array, Array]:
    """Row numbers from highest to lowest score, and where in them each distinct score begins."""
    order = np.argsort(-scores, kind="stable")
    return order, _runs(scores[order])


def _runs(*columns: Array) -> Array:
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

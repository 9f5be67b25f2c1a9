"""The report on one block of rows, and of each of its months, under the policy that is served."""

from dataclasses import dataclass, fields, replace
from datetime import date, timedelta
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from fraud_core.errors import HoldoutError
from fraud_core.evaluation import calibration as metrics_calibration
from fraud_core.evaluation import costs as metrics_costs
from fraud_core.evaluation import daily_cards, metrics
from fraud_core.evaluation.calibration import CalibrationBin
from fraud_core.evaluation.costs import Cost, CostPoint
from fraud_core.evaluation.daily_cards import CardPrecision, DailyCardPrecision
from fraud_core.evaluation.intervals import Interval
from fraud_core.evaluation.metrics import CurvePoint, OperatingPoint
from fraud_core.units.arrays import Array

Point = tuple[float, float]
Moved = Literal["review", "decline"]
EPOCH = date(1970, 1, 1)
ALERTED_CARDS = 100  # the k of card precision


@dataclass(frozen=True)
class EvaluationRows:
    """A block of n scored rows, as arrays of length n.

    Attributes:
        labels: bool, True: fraud.
        scores: float64, probability of fraud.
        amounts_cents: int64.
        cards: int64, codes from 0 on, given without regard to labels; None: the source has no card.
        local_day: int64, days since 1970-01-01 in the source's zone; None: the block is not a stretch of time.
        month: str, as 2020-06, in the source's zone; None as `local_day`.
    """

    labels: Array
    scores: Array
    amounts_cents: Array
    cards: Array | None
    local_day: Array | None
    month: Array | None

    def where(self, chosen: Array) -> "EvaluationRows":
        """The rows that a bool array of length n chooses."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: column[chosen] for name, column in columns.items() if column is not None})


@dataclass(frozen=True)
class KnownFraud:
    """Frauds before a block: int64 arrays of one length, in the block's card codes and day numbers."""

    cards: Array
    days: Array


@dataclass(frozen=True)
class Policy:
    """The thresholds that are served, what things cost in currency units, and how figures are made.

    `draws` and `seed` are the bootstrap's; a block with fewer than `min_frauds` frauds gives no figure.
    """

    review_threshold: float
    decline_threshold: float
    review_cost: float
    false_decline_cost: float
    label_delay_days: int
    draws: int
    seed: int
    min_frauds: int

    @property
    def costs(self) -> dict[str, float]:
        """Thresholds and costs by the names under which `expected_cost` and `cost_curve` take them."""
        return {
            "review_threshold": self.review_threshold,
            "decline_threshold": self.decline_threshold,
            "review_cost": self.review_cost,
            "false_decline_cost": self.false_decline_cost,
        }


class _Figures(BaseModel):
    """What is measured on a block and on each of its months."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    frauds: int
    fraud_rate: float
    fraud_cards: int | None  # compromised cards; None: no card in the source
    average_precision: float | None  # None, as the two that follow: too few frauds
    average_precision_interval: Interval | None
    roc_auc: float | None
    at_review: OperatingPoint
    at_decline: OperatingPoint
    alerts_per_day: float | None  # rows to review or declined; None: no time
    card_precision_at_100: CardPrecision | None  # None: no card or no time
    cost: Cost
    calibration_error: float
    brier_score: float

    @property
    def approving_everything(self) -> float:
        """What 1,000 transactions would have cost if all had been approved."""
        return 1_000 * self.cost.baseline / self.rows


class MonthReport(_Figures):
    """The figures of one month."""

    month: str


class Report(_Figures):
    """The figures of a block, with its curves and its months."""

    average_precision: float
    average_precision_interval: Interval
    roc_auc: float
    first_day: date | None
    last_day: date | None
    calibration: tuple[CalibrationBin, ...]
    precision_recall: tuple[CurvePoint, ...]
    cost_curve: tuple[CostPoint, ...]
    months: tuple[MonthReport, ...]

    @property
    def precision_recall_line(self) -> list[Point]:
        """The precision-recall curve as (recall, precision), from recall 0 on, for whoever draws it."""
        points = [(point.recall, point.precision) for point in self.precision_recall]
        return [(0.0, point[1]) for point in points[:1]] + points

    @property
    def served_points(self) -> dict[str, Point]:
        """Where the thresholds lie on that curve, by their names; one that alerts nothing lies nowhere."""
        both = {"review": self.at_review, "decline": self.at_decline}
        return {n: (p.recall, p.precision) for n, p in both.items() if p.precision is not None and p.recall is not None}

    def served_threshold(self, moved: Moved) -> float:
        """The threshold that is served."""
        return self.at_review.threshold if moved == "review" else self.at_decline.threshold

    def cost_line(self, moved: Moved) -> list[Point]:
        """Cost per thousand over the threshold that is moved while the other stays, as (threshold, cost)."""
        costs = [(p.threshold, p.review_here if moved == "review" else p.decline_here) for p in self.cost_curve]
        return [(at, cost) for at, cost in costs if cost is not None]


def evaluate(block: EvaluationRows, policy: Policy, known: KnownFraud | None = None, name: str = "hold-out") -> Report:
    """Measure a block.

    Args:
        block: the rows, in any order.
        policy: thresholds, costs and the bootstrap's parameters.
        known: frauds before the block, for card precision; None: none.
        name: what the block is called in an error.

    Raises:
        HoldoutError: fewer than `policy.min_frauds` frauds, no legitimate row, or scores that are not finite.
    """
    frauds = int(block.labels.sum())
    if frauds < policy.min_frauds:
        raise HoldoutError(
            f"The {name} holds {frauds} frauds among {len(block.labels)} rows, and at least {policy.min_frauds} are needed "
            "for figures that mean something. Lengthen it in [split] of the source's TOML, wait for more data whose labels "
            "have matured, or lower FRAUD_MIN_HOLDOUT_FRAUDS and trust the figures less."
        )
    metrics.require_both_classes(block.labels, block.scores)
    daily = _daily_card_precision(block, policy, known)
    labels, scores, amounts = block.labels, block.scores, block.amounts_cents / 100.0
    return Report(
        **_figures(block, policy, daily),
        first_day=None if block.local_day is None else _date(block.local_day.min()),
        last_day=None if block.local_day is None else _date(block.local_day.max()),
        calibration=metrics_calibration.calibration_table(labels, scores),
        precision_recall=metrics.precision_recall_curve(labels, scores),
        cost_curve=metrics_costs.cost_curve(labels, amounts, scores, **policy.costs),
        months=by_month(block, policy, daily),
    )


def by_month(block: EvaluationRows, policy: Policy, daily: DailyCardPrecision | None) -> tuple[MonthReport, ...]:
    """The figures of each month, oldest first; none where the block is not a stretch of time.

    Intervals of months are made with the same seed as the block's. Known cards carry over from month to month.
    """
    if block.month is None:
        return ()
    keys, codes = np.unique(block.month, return_inverse=True)
    return tuple(
        MonthReport(month=str(key), **_figures(block.where(codes == code), policy, daily)) for code, key in enumerate(keys)
    )


def _figures(block: EvaluationRows, policy: Policy, daily: DailyCardPrecision | None) -> dict[str, object]:
    labels, scores, cards = block.labels, block.scores, block.cards
    frauds = int(labels.sum())
    bootstrap = {"draws": policy.draws, "seed": policy.seed}
    measurable = policy.min_frauds <= frauds < len(labels)
    at_review = metrics.operating_point(labels, scores, policy.review_threshold)
    days = None if block.local_day is None else int(np.ptp(block.local_day)) + 1
    return {
        "rows": len(labels),
        "frauds": frauds,
        "fraud_rate": frauds / len(labels),
        "fraud_cards": None if cards is None else len(np.unique(cards[labels])),
        "average_precision": metrics.average_precision(labels, scores) if measurable else None,
        "average_precision_interval": (
            metrics.average_precision_interval(labels, scores, cards, **bootstrap) if measurable else None
        ),
        "roc_auc": metrics.roc_auc(labels, scores) if measurable else None,
        "at_review": at_review,
        "at_decline": metrics.operating_point(labels, scores, policy.decline_threshold),
        "alerts_per_day": None if days is None else at_review.alerts / days,
        "card_precision_at_100": None if daily is None else daily.mean(block.local_day),
        "cost": metrics_costs.expected_cost(labels, block.amounts_cents / 100.0, scores, **policy.costs),
        "calibration_error": metrics_calibration.expected_calibration_error(
            metrics_calibration.calibration_table(labels, scores)
        ),
        "brier_score": metrics_calibration.brier_score(labels, scores),
    }


def _daily_card_precision(block: EvaluationRows, policy: Policy, known: KnownFraud | None) -> DailyCardPrecision | None:
    if block.cards is None or block.local_day is None:
        return None
    return daily_cards.daily_card_precision(
        block.local_day,
        block.cards,
        block.labels,
        block.scores,
        label_delay_days=policy.label_delay_days,
        known=None if known is None else (known.cards, known.days),
        k=ALERTED_CARDS,
    )


def _date(day: int) -> date:
    return EPOCH + timedelta(days=int(day))

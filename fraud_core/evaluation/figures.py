"""The figures of a report as a person reads them, row by row: the model card and the desk show the same."""

from collections.abc import Callable
from typing import Any, NamedTuple

from fraud_core.evaluation.daily_cards import CardPrecision
from fraud_core.evaluation.metrics import OperatingPoint
from fraud_core.evaluation.report import MonthReport, Report

NONE = "—"


class Figure(NamedTuple):
    """A row of a table of figures: its name, what a report has there, and whether it is what a reader looks for first."""

    name: str
    text: Callable[[Any], str]
    leads: bool = False


def percent(share: float) -> str:
    """A share with three significant digits."""
    return f"{100 * share:.3g} %"


def precision(report: Report | MonthReport) -> str:
    """Average precision with its interval."""
    if report.average_precision is None or report.average_precision_interval is None:
        return "too few frauds"
    interval = report.average_precision_interval
    return f"{report.average_precision:.4f} ({interval.low:.4f} to {interval.high:.4f})"


def _number(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def _operating(point: OperatingPoint) -> str:
    return f"{_number(point.precision, 3)}, {_number(point.recall, 3)}"


def _card_precision(figure: CardPrecision | None) -> str:
    return NONE if figure is None else f"{figure.value:.4f} ({figure.ceiling:.4f})"


def _cost(report: Report | MonthReport) -> str:
    return f"{report.cost.per_thousand:,.2f} ({report.approving_everything:,.2f})"


FIGURES = (
    Figure("Days", lambda r: NONE if r.first_day is None else f"{r.first_day} to {r.last_day}"),
    Figure("Rows", lambda r: f"{r.rows:,}"),
    Figure("Frauds", lambda r: f"{r.frauds:,}" + ("" if r.fraud_cards is None else f" on {r.fraud_cards:,} cards")),
    Figure("Fraud rate (the average precision of guessing)", lambda r: percent(r.fraud_rate), leads=True),
    Figure("Average precision (95 % interval)", precision, leads=True),
    Figure("ROC AUC", lambda r: _number(r.roc_auc, 4)),
    Figure("Precision, recall at the review threshold", lambda r: _operating(r.at_review)),
    Figure("Precision, recall at the decline threshold", lambda r: _operating(r.at_decline)),
    Figure("Alerts a day (reviewed or declined)", lambda r: _number(r.alerts_per_day, 1)),
    Figure("Card precision at 100 a day (attainable ceiling)", lambda r: _card_precision(r.card_precision_at_100)),
    Figure("Cost per 1,000 transactions (of approving everything)", _cost),
    Figure(
        "Fraud lost, reviews, false declines",
        lambda r: f"{r.cost.fraud_lost:,.2f}, {r.cost.reviews:,}, {r.cost.false_declines:,}",
    ),
    Figure("Expected calibration error", lambda r: f"{r.calibration_error:.5f}"),
    Figure(
        "Brier score (of always saying the fraud rate)",
        lambda r: f"{r.brier_score:.5f} ({r.fraud_rate * (1 - r.fraud_rate):.5f})",
    ),
)

OF_A_MONTH = (
    Figure("Month", lambda m: m.month),
    Figure("Rows", lambda m: f"{m.rows:,}"),
    Figure("Frauds", lambda m: f"{m.frauds:,}"),
    Figure("Fraud rate", lambda m: percent(m.fraud_rate)),
    Figure("Average precision", precision),
    Figure("ROC AUC", lambda m: _number(m.roc_auc, 4)),
    Figure("Precision, recall at review", lambda m: _operating(m.at_review)),
    Figure("Alerts a day", lambda m: _number(m.alerts_per_day, 1)),
    Figure("Card precision at 100 (ceiling)", lambda m: _card_precision(m.card_precision_at_100)),
    Figure("Cost per 1,000", _cost),
    Figure("Calibration error", lambda m: f"{m.calibration_error:.5f}"),
)

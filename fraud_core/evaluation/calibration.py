"""Calibration of probabilities: reliability table, expected calibration error, Brier score."""

import math
from dataclasses import dataclass

import numpy as np

from fraud_core.evaluation.intervals import Interval, wilson_interval
from fraud_core.evaluation.metrics import sorted_by_score, tied_runs
from fraud_core.units.arrays import Array

LEAST, MOST = 1e-4, 1 - 1e-4  # the ends of an axis of probabilities by their log-odds, wherever one is drawn


@dataclass(frozen=True)
class CalibrationBin:
    """Rows of neighbouring scores: what was predicted on average, what was observed, and the 95 % Wilson interval of that."""

    rows: int
    mean_score: float
    observed_rate: float
    interval: Interval


def calibration_table(labels: Array, scores: Array, bins: int = 10) -> tuple[CalibrationBin, ...]:
    """Predicted against observed share of fraud, in at most `bins` bins of neighbouring scores, lowest first.

    The bins share out the expected variance of the number of frauds, sum of p (1 - p), equally: each tells as much as the
    next. Bins of equally many rows would put all fraud of a rare class into the last. Rows of one score stay together. The
    intervals treat rows as independent.

    Args:
        labels: n rows.
        scores: probabilities, n rows.
    """
    order, starts = sorted_by_score(-scores)
    mass = np.add.reduceat((scores * (1 - scores))[order], starts)
    middle = np.cumsum(mass) - mass / 2
    group_bin = np.minimum(np.floor(middle / max(float(mass.sum()), math.ulp(0.0)) * bins), bins - 1)
    first = starts[tied_runs(group_bin)]
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

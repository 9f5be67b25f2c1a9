"""Drift statistics: how far one sample of feature values lies from another, and how far is natural.

The distance is the Kolmogorov-Smirnov statistic for numbers and Cramer's V for categories. Samples of finite size differ even
where nothing has changed, so what counts as an effect is the *excess*: the distance less the upper end of what sampling alone
would give. p-values come from a `Detector`, which the caller chooses: the one here (scipy), or alibi-detect's in `fraud_assets`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fraud_core.gate.distances.catalogue import distance_of
from fraud_core.units.arrays import Array

Columns = Mapping[str, Array]

SIGNIFICANCE = 0.05  # of corrected p-values

# The bound of a feature's excess. Above the ceiling nothing is natural: without it, each accepted drift would widen the next.
MARGIN, FLOOR, CEILING = 1.5, 0.02, 0.035

# The same against a reference that does not move: twice what two years of unshifted traffic show (0.021, people growing older).
LONG_BOUND = 0.04


class Detector(Protocol):
    """A two-sample test of every feature by itself."""

    __name__: str

    def __call__(self, reference: Columns, current: Columns, categories: Collection[str]) -> dict[str, tuple[float, float]]:
        """Compare columns without missing values.

        Args:
            reference: name -> values (m of them, m may differ between features).
            current: name -> values (n of them), the same names.
            categories: names of those that hold categories.

        Returns:
            name -> (statistic, p-value, uncorrected). The statistic is the KS distance, or chi-squared for a category.
        """
        ...


def scipy_detector(reference: Columns, current: Columns, categories: Collection[str]) -> dict[str, tuple[float, float]]:
    """Kolmogorov-Smirnov (asymptotic) for numbers, chi-squared on the union of the categories, as alibi-detect's TabularDrift."""
    return {name: distance_of(name, categories).test(values, current[name]) for name, values in reference.items()}


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for the false discovery rate (Benjamini and Hochberg 1995), in the given order.

    SciPy's `false_discovery_control` multiplies in another order; the last digits of verdicts would change.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return [float(value) for value in corrected]


@dataclass(frozen=True)
class Comparison:
    """One feature of one sample against another.

    Attributes:
        measure: the name of the distance.
        statistic: of the test, KS distance or chi-squared.
        p_value, p_corrected: before and after the correction over all features compared with it.
        distance: KS distance or Cramer's V, 0 to 1.
        noise: the distance that sampling alone stays under 99 times of 100.
        clustering: what makes it larger than independent rows would; 0 where cards are not known.
        rows_reference, rows_current: values compared, without missing ones.
    """

    measure: str
    statistic: float
    p_value: float
    p_corrected: float
    distance: float
    noise: float
    clustering: float
    rows_reference: int
    rows_current: int

    @property
    def excess(self) -> float:
        """The distance beyond noise, 0 or more."""
        return max(0.0, self.distance - self.noise)


def compare(
    reference: Columns, current: Columns, categories: Collection[str], detector: Detector, cards: Columns | None = None
) -> dict[str, Comparison]:
    """Compare the columns that both samples have values of.

    Args:
        reference: name -> values, without missing ones.
        current: name -> values, without missing ones.
        categories: names of those that hold categories.
        detector: who computes statistics and p-values.
        cards: name -> the card (an integer from 0) of each value in `current`; None where cards are not known.
    """
    names = [name for name in current if name in reference and len(current[name]) and len(reference[name])]
    if not names:
        return {}
    tested = detector({n: reference[n] for n in names}, {n: current[n] for n in names}, categories)
    corrected = benjamini_hochberg([tested[name][1] for name in names])
    results: dict[str, Comparison] = {}
    for name, p_corrected in zip(names, corrected, strict=True):
        statistic, p_value = tested[name]
        measure, before, now = distance_of(name, categories), reference[name], current[name]
        clustering = 0.0 if cards is None else measure.clustering(now, cards[name])
        distance, noise = measure.measured(before, now, statistic, clustering)
        results[name] = Comparison(
            measure.measure, statistic, p_value, p_corrected, distance, noise, clustering, len(before), len(now)
        )
    return results


def bound(past: Sequence[float]) -> float:
    """The excess a feature may show: the margin times the largest excess of accepted partitions, within floor and ceiling."""
    return float(np.clip(MARGIN * max(past, default=0.0), FLOOR, CEILING))

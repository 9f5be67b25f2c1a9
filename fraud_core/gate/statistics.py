"""Drift statistics: how far one sample of feature values lies from another, and how far is natural.

The distance is the Kolmogorov-Smirnov statistic for numbers and Cramer's V for categories. Samples of finite size differ even
where nothing has changed, so what counts as an effect is the *excess*: the distance less the upper end of what sampling alone
would give. p-values come from a `Detector`, which the caller chooses: the one here (scipy), or alibi-detect's in `fraud_assets`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fraud_core.units.arrays import Array

Columns = Mapping[str, Array]

KOLMOGOROV_99 = 1.6276  # 99 % point of the Kolmogorov distribution
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
    from scipy.stats import chi2_contingency, ks_2samp  # noqa: PLC0415 - the scorer does without scipy

    results: dict[str, tuple[float, float]] = {}
    for name in reference:
        if name in categories:
            outcome = chi2_contingency(contingency(reference[name], current[name]))
        else:
            outcome = ks_2samp(reference[name], current[name], method="asymp")
        results[name] = float(outcome.statistic), float(outcome.pvalue)
    return results


def contingency(reference: Array, current: Array) -> Array:
    """Counts of each category (2, k): first row the reference, second the current sample; categories sorted."""
    values, codes = np.unique(np.concatenate([reference, current]), return_inverse=True)
    split = len(reference)
    return np.stack([np.bincount(codes[:split], minlength=len(values)), np.bincount(codes[split:], minlength=len(values))])


def cramers_v(counts: Array) -> float:
    """Cramer's V of a (2, k) table in which both samples weigh the same, so that it does not depend on their sizes; 0 to 1."""
    reference, current = counts / counts.sum(axis=1, keepdims=True)
    return float(np.sqrt(0.5 * np.sum((reference - current) ** 2 / (reference + current))))


def numeric_noise(rows_reference: int, rows_current: int, clustering: float = 0.0) -> float:
    """The KS distance that two samples of one distribution stay under 99 times of 100 (Kolmogorov's limit; less for ties)."""
    return float(KOLMOGOROV_99 * np.sqrt(1 / rows_reference + 1 / rows_current + 2 * clustering))


def category_noise(rows_reference: int, rows_current: int, categories: int, clustering: float = 0.0) -> float:
    """The balanced Cramer's V that two samples of one distribution stay under 99 times of 100.

    4 V^2 / (1/m + 1/n) is chi-squared with k - 1 degrees of freedom.
    """
    from scipy.stats import chi2  # noqa: PLC0415 - the scorer does without scipy

    if categories < 2:
        return 0.0
    return float(np.sqrt(chi2.ppf(0.99, categories - 1) * (1 / rows_reference + 1 / rows_current + 2 * clustering)) / 2)


def numeric_clustering(values: Array, cards: Array) -> float:
    """Mean correlation of the ranks of two rows, drawn without replacement, that comes from their sharing a card; 0 or more.

    Rows of one card are alike, so n of them tell less than n: a month of 500 people tells their age 500 times, not 20,000 times.
    A mean over n rows has the variance 1/n + clustering instead of 1/n, which is Kish's design effect (1965, section 5.4).

    Args:
        values: n of them.
        cards: n integers; rows with the same one belong together.
    """
    n = len(values)
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # equal values share their mean rank
    centred = ranks - (n + 1) / 2
    squares = float(centred @ centred)
    if squares == 0.0:
        return 0.0
    sums = np.bincount(cards, weights=centred)
    return max(0.0, (float(sums @ sums) - squares) / squares / (n - 1))


def category_clustering(values: Array, cards: Array) -> float:
    """The same for categories: the mean over them of the correlation of "is it this one", weighted by its variance."""
    n = len(values)
    _, codes = np.unique(values, return_inverse=True)
    share = np.bincount(codes) / n
    squares = n * (1.0 - float(share @ share))
    if squares == 0.0:
        return 0.0
    rows_of_card = np.bincount(cards)
    _, pairs = np.unique(cards.astype(np.int64) * len(share) + codes, return_counts=True)
    together = (
        float(pairs @ pairs)
        - 2.0 * float(rows_of_card[cards] @ share[codes])
        + float(rows_of_card @ rows_of_card) * float(share @ share)
    )
    return max(0.0, (together - squares) / squares / (n - 1))


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
        statistic: KS distance or chi-squared.
        p_value, p_corrected: before and after the correction over all features compared with it.
        distance: KS distance or Cramer's V, 0 to 1.
        noise: the distance that sampling alone stays under 99 times of 100.
        clustering: what makes it larger than independent rows would; 0 where cards are not known.
        rows_reference, rows_current: values compared, without missing ones.
    """

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
        m, n = len(reference[name]), len(current[name])
        if name in categories:
            counts = contingency(reference[name], current[name])
            clustering = 0.0 if cards is None else category_clustering(current[name], cards[name])
            distance, noise = cramers_v(counts), category_noise(m, n, counts.shape[1], clustering)
        else:
            clustering = 0.0 if cards is None else numeric_clustering(current[name], cards[name])
            distance, noise = statistic, numeric_noise(m, n, clustering)
        results[name] = Comparison(statistic, p_value, p_corrected, distance, noise, clustering, m, n)
    return results


def bound(past: Sequence[float]) -> float:
    """The excess a feature may show: the margin times the largest excess of accepted partitions, within floor and ceiling."""
    return float(np.clip(MARGIN * max(past, default=0.0), FLOOR, CEILING))

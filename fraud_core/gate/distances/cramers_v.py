"""Cramer's V: the distance of two samples of a category."""

import numpy as np

from fraud_core.gate.distances.distance import Distance
from fraud_core.units.arrays import Array


class CramersV(Distance):
    """Cramer's V of the table of both samples, weighted alike, with the chi-squared test on the union of the categories.

    Clustering is the mean over the categories of that of "is it this one", weighted by its variance.
    """

    measure = "Cramer's V"

    def test(self, reference: Array, current: Array) -> tuple[float, float]:
        """See `Distance`."""
        from scipy.stats import chi2_contingency  # noqa: PLC0415 - the scorer does without scipy

        outcome = chi2_contingency(contingency(reference, current))
        return float(outcome.statistic), float(outcome.pvalue)

    def measured(self, reference: Array, current: Array, tested: float, clustering: float) -> tuple[float, float]:
        """See `Distance`."""
        counts = contingency(reference, current)
        return cramers_v(counts), noise(len(reference), len(current), counts.shape[1], clustering)

    def clustering(self, values: Array, cards: Array) -> float:
        """See `Distance`."""
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


def contingency(reference: Array, current: Array) -> Array:
    """Counts of each category (2, k): first row the reference, second the current sample; categories sorted."""
    values, codes = np.unique(np.concatenate([reference, current]), return_inverse=True)
    split = len(reference)
    return np.stack([np.bincount(codes[:split], minlength=len(values)), np.bincount(codes[split:], minlength=len(values))])


def cramers_v(counts: Array) -> float:
    """Cramer's V of a (2, k) table in which both samples weigh the same, so that it does not depend on their sizes; 0 to 1."""
    reference, current = counts / counts.sum(axis=1, keepdims=True)
    return float(np.sqrt(0.5 * np.sum((reference - current) ** 2 / (reference + current))))


def noise(rows_reference: int, rows_current: int, categories: int, clustering: float = 0.0) -> float:
    """The balanced Cramer's V that two samples of one distribution stay under 99 times of 100.

    4 V^2 / (1/m + 1/n) is chi-squared with k - 1 degrees of freedom.
    """
    from scipy.stats import chi2  # noqa: PLC0415 - the scorer does without scipy

    if categories < 2:
        return 0.0
    return float(np.sqrt(chi2.ppf(0.99, categories - 1) * (1 / rows_reference + 1 / rows_current + 2 * clustering)) / 2)

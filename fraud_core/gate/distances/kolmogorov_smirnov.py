"""Kolmogorov-Smirnov: the distance of two samples of a number."""

import numpy as np

from fraud_core.gate.distances.distance import Distance
from fraud_core.units.arrays import Array

KOLMOGOROV_99 = 1.6276  # 99 % point of the Kolmogorov distribution


class KolmogorovSmirnov(Distance):
    """The largest distance of the two distribution functions, with its asymptotic test. Clustering is that of the ranks."""

    measure = "KS distance"

    def test(self, reference: Array, current: Array) -> tuple[float, float]:
        """See `Distance`."""
        from scipy.stats import ks_2samp  # noqa: PLC0415 - the scorer does without scipy

        outcome = ks_2samp(reference, current, method="asymp")
        return float(outcome.statistic), float(outcome.pvalue)

    def measured(self, reference: Array, current: Array, tested: float, clustering: float) -> tuple[float, float]:
        """See `Distance`; the noise is Kolmogorov's limit, which is less for ties."""
        return tested, noise(len(reference), len(current), clustering)

    def clustering(self, values: Array, cards: Array) -> float:
        """See `Distance`."""
        n = len(values)
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # equal values share their mean rank
        centred = ranks - (n + 1) / 2
        squares = float(centred @ centred)
        if squares == 0.0:
            return 0.0
        sums = np.bincount(cards, weights=centred)
        return max(0.0, (float(sums @ sums) - squares) / squares / (n - 1))


def noise(rows_reference: int, rows_current: int, clustering: float = 0.0) -> float:
    """What the distance stays under 99 times of 100."""
    return float(KOLMOGOROV_99 * np.sqrt(1 / rows_reference + 1 / rows_current + 2 * clustering))

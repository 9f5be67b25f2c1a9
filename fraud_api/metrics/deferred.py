"""Deferred observations: noted now and counted later, many at a time. A request pays for a note, not for a histogram.

A histogram of prometheus_client costs one to three microseconds for each observation, most of it locks, and with the files of
several workers a write. Sorted into buckets by NumPy, a thousand observations cost as much as a few of them.
"""

import threading
from collections import defaultdict, deque
from collections.abc import Sequence

import numpy as np
from prometheus_client import Counter, Histogram

MOST_NOTES = 1_024  # before whoever notes one more counts them


class BulkHistogram(Histogram):
    """A histogram that takes many observations at once."""

    def observe_all(self, values: Sequence[float]) -> None:
        """The same as `observe` for each of n values."""
        places, counts = np.unique(np.searchsorted(self._upper_bounds, values, side="left"), return_counts=True)
        for place, count in zip(places.tolist(), counts.tolist(), strict=True):
            self._buckets[place].inc(count)
        self._sum.inc(float(np.sum(values)))


class DeferredObservations:
    """Notes of one process. Any thread may note, and any may count."""

    def __init__(self) -> None:
        self._notes: deque[tuple[BulkHistogram | Counter, float]] = deque()
        self._counting = threading.Lock()

    def add(self, metric: BulkHistogram | Counter, value: float) -> None:
        """Note an observation of a histogram, or by how much a counter grows."""
        self._notes.append((metric, value))
        if len(self._notes) >= MOST_NOTES:
            self.count()

    def count(self) -> None:
        """Count what was noted."""
        with self._counting:
            noted: dict[BulkHistogram | Counter, list[float]] = defaultdict(list)
            for _ in range(len(self._notes)):
                metric, value = self._notes.popleft()
                noted[metric].append(value)
            for metric, values in noted.items():
                if isinstance(metric, BulkHistogram):
                    metric.observe_all(values)
                else:
                    metric.inc(sum(values))

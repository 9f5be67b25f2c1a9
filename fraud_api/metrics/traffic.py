"""Traffic monitoring: served payments, counted into the bins of the champion's baseline (see `fraud_core.gate.baseline`).

A request leaves its row of the matrix here and goes on, which costs a third of a microsecond. Rows are counted many at a time:
when enough have gathered, at each look at the pointer, and before a scrape. Prometheus' rules make the index of the counts, over
a sliding window and over all workers and machines, which no single process sees.
"""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from functools import partial

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge

from fraud_core.errors import IntegrityError, StoreError
from fraud_core.gate.baseline import Bins, Reference, read_reference
from fraud_core.models.follower import LoadedModel
from fraud_core.signing.keys import Key
from fraud_core.storage.objects import ObjectStore
from fraud_core.units.arrays import Floats

logger = logging.getLogger(__name__)

MOST_WAITING = 256  # rows, before a request counts them


class Traffic:
    """Counts served payments. `saw` is called in the event loop, the rest in any thread.

    Bins are labelled by their place, so that a new champion brings no new label values. For one window after it, the counts of
    both are mixed.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        by_bin = ("feature", "bin")
        gauge = partial(Gauge, multiprocess_mode="livemostrecent", registry=registry)
        self._rows = Counter("fraud_traffic_rows", "Single payments that were scored, by bin.", by_bin, registry=registry)
        self._shares = gauge("fraud_reference_share", "Share of the champion's reference in a bin.", by_bin)
        told = "Share of the champion's reference that it would review or decline."
        self._flagged = gauge("fraud_reference_flagged_share", told)
        self._waiting: deque[tuple[LoadedModel, Floats, Sequence[float]]] = deque()
        self._counting = threading.Lock()
        self._expected: _Expected | None = None

    def saw(self, served: LoadedModel, matrix: Floats, probabilities: Sequence[float]) -> None:
        """Leave payments here that were scored together.

        Args:
            served: the model.
            matrix: of shape (n, columns), not written to any more. One of other columns than the model's, which is what its
                twin without history sees, is not counted.
            probabilities: n of them.
        """
        self._waiting.append((served, matrix, probabilities))
        if len(self._waiting) >= MOST_WAITING:
            self.count()

    def count(self) -> None:
        """Count what was left here; what belongs to another model than the one that is expected is dropped."""
        with self._counting:
            taken = [self._waiting.popleft() for _ in range(len(self._waiting))]
            expected = self._expected
            if expected is None:
                return
            mine = [one for one in taken if one[0].version == expected.version and one[1].shape[1] == expected.width]
            if mine:
                expected.count(np.concatenate([one[1] for one in mine]), np.concatenate([one[2] for one in mine]))

    def follow(self, served: LoadedModel, store: ObjectStore, key: Key) -> None:
        """Expect what this model's reference says, from now on; a model without one is served all the same."""
        if self._expected is not None and self._expected.version == served.version:
            return
        try:
            reference = read_reference(store, key, served.version)
        except StoreError:
            return  # it is asked again at the next look
        except IntegrityError as error:
            logger.warning("drift of the traffic of version %s is not seen: %s", served.version, error)
            reference = None
        self.count()
        with self._counting:
            if self._expected is not None:
                self._expected.withdraw()
            self._expected = _Expected(served, reference, self._rows, self._shares)
            # Without a reference there is nothing to compare with, which NaN says.
            self._flagged.set(float("nan") if reference is None else reference.flagged)


class _Expected:
    """The counters of one reference; of none, where there is no reference."""

    def __init__(self, served: LoadedModel, reference: Reference | None, rows: Counter, shares: Gauge) -> None:
        self.version = served.version
        self._scores = _Column(reference.scores, rows, shares) if reference else None
        names = served.scorer.bundle.encoder.features
        self.width = len(names)
        self._columns = {
            names.index(bins.feature): _Column(bins, rows, shares)
            for bins in (reference.columns if reference else ())
            if bins.feature in names
        }

    def count(self, matrix: Floats, probabilities: Floats) -> None:
        for place, column in self._columns.items():
            column.count(matrix[:, place])
        if self._scores is not None:
            self._scores.count(probabilities)

    def withdraw(self) -> None:
        for column in [*self._columns.values(), *([self._scores] if self._scores else [])]:
            column.withdraw()


class _Column:
    def __init__(self, bins: Bins, rows: Counter, shares: Gauge) -> None:
        self._bins = bins
        names = [f"{place:02d}" for place in range(len(bins.shares))]
        # Made now, all of them: a counter that begins to exist at 3 has not grown by 3 for Prometheus.
        self._rows = [rows.labels(bins.feature, name) for name in names]
        self._shares = [shares.labels(bins.feature, name) for name in names]
        for share, value in zip(self._shares, bins.shares, strict=True):
            share.set(value)

    def count(self, values: Floats) -> None:
        for counter, count in zip(self._rows, self._bins.counts(values).tolist(), strict=True):
            if count:
                counter.inc(count)

    def withdraw(self) -> None:
        for share in self._shares:
            share.set(0.0)  # which no exposition shows

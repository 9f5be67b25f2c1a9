"""Monitoring baseline of a champion: how its columns and its scores were distributed where it was last validated.

    models/<version>/runs/<run>/reference.json    signed; beside the card, and like it no part of the bundle

The scorer counts what it is sent into the same bins. How far the two lie apart is the population stability index,

    PSI = sum over bins of (served - expected) * ln(served / expected),

which is zero for equal shares; above 0.1 something moved, above 0.25 a lot did (Siddiqi, Credit Risk Scorecards, 2006, ch. 9).
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, model_validator

from fraud_core.features.encoder import ColumnEncoding
from fraud_core.features.feature import Feature
from fraud_core.models.bundle import Bundle
from fraud_core.models.scorer import Scorer
from fraud_core.signing.documents import open_document, signed_document
from fraud_core.signing.keys import Key
from fraud_core.storage.objects import ObjectStore
from fraud_core.units.arrays import Floats

SCORE = "score"  # stands among the features, where the model's probabilities are meant
QUANTILES = np.arange(0.1, 0.91, 0.1)
SCORE_QUANTILES = np.append(QUANTILES, (0.95, 0.99))  # what is decided about lies at the top
MOST_POINTS = 30  # a column with no more values has a bin for each
HALF_A_ROW = 0.5  # is added to each bin, so that an empty one has a logarithm


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Bins(_Model):
    """The bins of a column: bin i holds edges[i - 1] <= value < edges[i], the first and the last have no end.

    Attributes:
        feature: the column's name.
        edges: the k - 1 borders, ascending.
        shares: what share of the rows lies in each of the k bins, none of them 0.
    """

    feature: str
    edges: tuple[float, ...]
    shares: tuple[float, ...]

    @model_validator(mode="after")
    def _fit(self) -> "Bins":
        if len(self.shares) != len(self.edges) + 1 or any(a >= b for a, b in pairwise(self.edges)) or min(self.shares) <= 0:
            raise ValueError(f"{self.feature} needs ascending edges, and a share above 0 for each bin between them")
        return self

    def counts(self, values: Floats) -> npt.NDArray[np.int64]:
        """How many of n values lie in each of the k bins."""
        return np.bincount(np.searchsorted(self.edges, values, side="right"), minlength=len(self.shares))


class Reference(_Model):
    """The bins of the columns that are watched, of the scores, and how much was flagged.

    Attributes:
        created: when it was made.
        rows: how many rows it was made of.
        columns: in the order of the encoder's columns.
        scores: of the probabilities.
        flagged: share of the rows that would have been reviewed or declined.
    """

    format: Literal[1] = 1
    version: str
    created: datetime
    rows: int
    columns: tuple[Bins, ...]
    scores: Bins
    flagged: float


def make_reference(bundle: Bundle, matrix: Floats, created: datetime) -> Reference:
    """The reference of a bundle.

    Args:
        bundle: the model.
        matrix: of shape (rows, columns), as the encoder gives it; rows that the model did not learn from.
        created: now.
    """
    scorer = Scorer(bundle)
    scores = scorer.score_matrix(matrix)
    features = {feature.name: feature for feature in scorer.features}
    return Reference(
        version=bundle.version,
        created=created,
        rows=len(matrix),
        columns=tuple(
            _column_bins(column, matrix[:, place])
            for place, column in enumerate(bundle.encoder.columns)
            if _is_watched(features[column.feature])
        ),
        scores=_bins(SCORE, scores, _quantiles(scores, SCORE_QUANTILES)),
        flagged=float(np.mean(scores >= scorer.thresholds.review)),
    )


def write_reference(store: ObjectStore, key: Key, run: str, reference: Reference) -> None:
    """Write it beside the card of a training run."""
    store.put(f"models/{reference.version}/runs/{run}/reference.json", signed_document(reference, key))


def read_reference(store: ObjectStore, key: Key, version: str) -> Reference | None:
    """The newest reference of a version; None where there is none.

    Raises:
        IntegrityError: one of them is not what was signed, or not one that this release reads.
    """
    found = [
        open_document(Reference, store.get(name), key, store.uri(name), version=version)
        for name in store.list(f"models/{version}/runs")
        if name.endswith("/reference.json")
    ]
    return max(found, key=lambda reference: reference.created, default=None)


def population_stability(served: Sequence[float], expected: Sequence[float]) -> float:
    """The index of two lists of k shares, all above 0. Prometheus' rules compute the same."""
    p, q = np.asarray(served, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    return float(np.sum((p - q) * np.log(p / q)))


def _is_watched(feature: Feature) -> bool:
    """Whether it says what payments are like, and not when they come; of the others, those on which the gate blocks."""
    return feature.drift == "blocks" and feature.kind != "calendar"


def _column_bins(column: ColumnEncoding, values: Floats) -> Bins:
    known = [] if column.categories is None else [*column.categories.values(), column.unseen]
    points = np.unique(np.append(values, np.array(known, dtype=np.float64)))
    edges = (points[1:] + points[:-1]) / 2 if len(points) <= MOST_POINTS else _quantiles(values, QUANTILES)
    return _bins(column.feature, values, edges)


def _quantiles(values: Floats, at: Floats) -> Floats:
    """Quantiles without repetition; none at the least value, below which there is nothing."""
    edges: Floats = np.unique(np.quantile(values, at))
    above: Floats = edges[edges > values.min()]
    return above


def _bins(feature: str, values: Floats, edges: Floats) -> Bins:
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1) + HALF_A_ROW
    return Bins(feature=feature, edges=tuple(edges.tolist()), shares=tuple((counts / counts.sum()).tolist()))

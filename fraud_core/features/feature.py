"""One feature: what it is made of, how it is stored, judged and spoken of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import polars as pl

from fraud_core.features.windows import Tally
from fraud_core.features.wording import Wording
from fraud_core.fields.declaration import Drift
from fraud_core.units.arrays import Array

Inputs = Mapping[str, Array]
Kind = Literal["amount", "calendar", "person", "place", "category", "number", "flag", "past"]


@dataclass(frozen=True)
class Feature:
    """One feature.

    Attributes:
        name: column in transformed and input of the model.
        kind: what it speaks of.
        needs: columns of raw it is made of; a source without them does without the feature.
        unit: for people.
        dtype: how it is stored.
        drift: whether the gate blocks on it. Calendar features and the twin of another (night of hour) are left out.
        compute: arrays of equal length -> array of float64 (object for a category).
        wording: how it is spoken of.
        tallies: what it takes of the past.
        window_us: how long the window is that it speaks of; 0 for none, or for whatever the source's history holds.
        reads: of a feature of the past, the columns of the payment itself that it takes beside its tallies.
    """

    name: str
    kind: Kind
    needs: frozenset[str]
    unit: str
    dtype: pl.DataType
    drift: Drift
    compute: Callable[[Inputs], Array]
    wording: Wording
    tallies: tuple[Tally, ...] = ()
    window_us: int = 0
    reads: frozenset[str] = frozenset()

    @property
    def is_history(self) -> bool:
        """Whether it speaks of what an entity did before."""
        return bool(self.tallies)

    @property
    def is_category(self) -> bool:
        """Whether values are names, which the preprocessor encodes as numbers."""
        return self.dtype == pl.String()

    @property
    def inputs(self) -> frozenset[str]:
        """Names of the arrays that `compute` takes."""
        return self.reads | {tally.name for tally in self.tallies} if self.tallies else self.needs

    def with_drift(self, drift: Drift) -> "Feature":
        """The same, judged otherwise."""
        return replace(self, drift=drift)

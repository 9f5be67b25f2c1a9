"""Feature encoder: missing values filled, categories looked up, a matrix out. Fitted elsewhere, applied here."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

MISSING_CATEGORY = "(missing)"


class ColumnEncoding(BaseModel):
    """How one feature becomes one column of the matrix.

    Attributes:
        feature: its name.
        missing: the number that stands for a missing value (the training rows' median).
        categories: for a category, the number of each name seen in training; None for a number.
        unseen: for a category, the number of a name not seen in training.
        rare: for a category of many names, from how many training rows on a name has a number of its own; the others count as
            unseen. None: all have.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    feature: str
    missing: float | None = None
    categories: dict[str, float] | None = None
    unseen: float | None = None
    rare: int | None = Field(None, exclude_if=lambda rare: rare is None)  # encoders of before keep their bytes, and so versions

    @model_validator(mode="after")
    def _number_or_category(self) -> Self:
        given = (self.missing is not None, self.categories is not None, self.unseen is not None)
        if given not in {(True, False, False), (False, True, True)}:
            raise ValueError(f"{self.feature} needs either missing (a number), or categories and unseen (a category)")
        if self.rare is not None and self.categories is None:
            raise ValueError(f"{self.feature} is a number, of which there are no rare names")
        return self


class Encoder(BaseModel):
    """The columns of the matrix, in order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: tuple[ColumnEncoding, ...]

    @property
    def features(self) -> tuple[str, ...]:
        """The features, in the order of the matrix' columns."""
        return tuple(column.feature for column in self.columns)

    def matrix(self, arrays: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
        """Feature arrays of length n (float64 with NaN; object with None for categories) -> matrix of shape (n, columns)."""
        n = len(next(iter(arrays.values())))
        out = np.empty((n, len(self.columns)))
        for place, column in enumerate(self.columns):
            values = arrays[column.feature]
            if column.categories is not None:
                look_up, unseen = column.categories, column.unseen
                out[:, place] = [look_up.get(MISSING_CATEGORY if v is None else v, unseen) for v in values]
            else:
                out[:, place] = values
        # one look at all columns: a category's numbers are never missing
        missing = np.isnan(out)
        return np.where(missing, self._stand_ins, out) if missing.any() else out

    @cached_property
    def _stand_ins(self) -> npt.NDArray[np.float64]:
        return np.array([np.nan if column.missing is None else column.missing for column in self.columns])

    def frame_matrix(self, frame: pl.DataFrame) -> npt.NDArray[np.float64]:
        """The same for a frame of features as transformed stores them (null: missing)."""
        out = np.empty((len(frame), len(self.columns)))
        for place, column in enumerate(self.columns):
            series = frame[column.feature]
            if column.categories is not None:
                names = series.fill_null(MISSING_CATEGORY)
                coded = names.replace_strict(column.categories, default=column.unseen, return_dtype=pl.Float64)
                out[:, place] = coded.to_numpy()
            else:
                out[:, place] = series.cast(pl.Float64).fill_null(column.missing).to_numpy()
        return out

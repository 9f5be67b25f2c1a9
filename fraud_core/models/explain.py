"""The reasons behind a score: exact Shapley values on the bundle's own model, and a sentence in plain words for each.

How a model's margin is split over its columns, its kind knows (see `fraud_core.models.kinds`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from fraud_core.features.catalogue import catalogue_of
from fraud_core.features.feature import Feature
from fraud_core.fields.declared import NOTHING, Declared
from fraud_core.models.bundle import Fitted
from fraud_core.models.kinds.catalogue import KINDS
from fraud_core.models.kinds.kind import Unit
from fraud_core.signing.card_numbers import printable
from fraud_core.units.arrays import Floats

Value = str | float | int | None


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a score is what it is: one feature's part in it.

    Attributes:
        feature: its name.
        value: the value it had, in the feature's unit; None: missing.
        contribution: what it added to the score, in the explainer's unit.
        direction: whether it raised or lowered the risk.
        code: short and stable, for programs; docs/reasons.md lists them.
        sentence: for people.
    """

    feature: str
    value: Value
    contribution: float
    direction: Literal["raises", "lowers"]
    code: str
    sentence: str


class Explainer:
    """Explains the scores of one model, which may be a bundle. Immutable and safe to share between threads.

    A row has the same contributions, to the bit, alone and in any batch.

    Attributes:
        unit: of contributions. "log-odds": they and the base sum to the served log-odds, Platt's map included (boosting and
            linear). "probability": they sum to the forest's own mean probability, which Platt's map takes for its margin.
    """

    unit: Unit

    def __init__(self, fitted: Fitted, declared: Declared = NOTHING) -> None:
        """Parse the model once; of a bundle, its first.

        Raises:
            IntegrityError: the model lacks what its explanation needs.
        """
        self._columns = fitted.encoder.columns
        self._features = catalogue_of(declared).by_name
        kind, calibration = KINDS[fitted.kind], fitted.calibration
        self._model, self.unit = kind.explain(fitted.model, len(self._columns)), kind.unit
        is_calibrated = kind.unit == "log-odds"
        self._slope, self._intercept = (calibration.slope, calibration.intercept) if is_calibrated else (1.0, 0.0)

    def contributions(self, X: Floats) -> tuple[float, Floats]:
        """What each column adds to the score of each row.

        Args:
            X: a matrix of shape (n, columns), columns in the encoder's order.

        Returns:
            The base, which is the score expected of a training row before anything is known of it, and contributions of
            shape (n, columns): base + contributions.sum(axis=1) is the score in `unit`.
        """
        return self._slope * self._model.base + self._intercept, self._slope * self._model.attribute(X)

    def reasons(self, values: Mapping[str, Any], contributions: Floats, top: int = 3) -> list[Reason]:
        """The strongest reasons of one row, strongest first; a feature that contributed nothing is none.

        Args:
            values: feature -> the value it had, as `features.compute` gives it (NaN or None: missing).
            contributions: the row's contributions, of shape (columns,).
            top: how many at most.
        """
        strongest = np.argsort(-np.abs(contributions), kind="stable")[:top]
        return [self._reason(int(at), values, float(contributions[at])) for at in strongest if contributions[at] != 0]

    def _reason(self, at: int, values: Mapping[str, Any], contribution: float) -> Reason:
        column = self._columns[at]
        feature = self._features[column.feature]
        wording = feature.wording
        value = _plain(feature, values[column.feature])
        state, subject = "", wording.missing if value is None else wording.phrase(value)
        if value is None:
            state = "_MISSING"
        elif column.categories is not None and value not in column.categories:
            seen = "not seen in training" if column.rare is None else f"seen in fewer than {column.rare} payments of training"
            state, subject = "_UNSEEN", f"{subject}, {seen},"
        elif wording.scale and column.missing is not None and not isinstance(value, str):
            state = "_HIGH" if value > column.missing else "_LOW" if value < column.missing else "_TYPICAL"
        direction: Literal["raises", "lowers"] = "raises" if contribution > 0 else "lowers"
        sentence = f"{subject} {direction} the risk."
        return Reason(column.feature, value, contribution, direction, wording.code + state, sentence)


def _plain(feature: Feature, value: Any) -> Value:
    """A feature's value as JSON can hold it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if feature.is_category:
        return printable(str(value))
    return int(value) if feature.dtype == pl.Int64 else float(value)

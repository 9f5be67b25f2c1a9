"""Linear model: a logistic regression on scaled columns, kept as coefficients in JSON.

Its contributions are coefficient * (x - training mean), the Shapley values where features count as independent (Lundberg and
Lee 2017).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fraud_core.errors import IntegrityError
from fraud_core.models.kinds.kind import Attribution, Examples, Kind, MarginModel
from fraud_core.units.arrays import Floats


class Linear(Kind):
    """Logistic regression."""

    name = "linear"
    suffix = "json"
    unit = "log-odds"

    def recipe(self) -> str:
        return ""

    def fit(self, training: Examples, validation: Examples, *, seed: int, threads: int) -> Iterator[tuple[str, Any]]:
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - a scorer must not load it
        from sklearn.pipeline import make_pipeline  # noqa: PLC0415
        from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

        pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        yield "linear", pipeline.fit(training.X, training.y, logisticregression__sample_weight=training.weights)

    def export(self, estimator: Any) -> bytes:
        """Coefficients for the matrix as it is, the scaler folded in; `means` are the training matrix', for reasons."""
        scaler, model = estimator[0], estimator[1]
        coefficients = model.coef_[0] / scaler.scale_
        intercept = float(model.intercept_[0] - coefficients @ scaler.mean_)
        document = {"coefficients": coefficients.tolist(), "intercept": intercept, "means": scaler.mean_.tolist()}
        return json.dumps(document, separators=(",", ":")).encode()

    def load(self, data: bytes, threads: int = 1) -> MarginModel:
        return _Loaded(data)

    def explain(self, data: bytes, columns: int) -> Attribution:
        document = json.loads(data)
        if "means" not in document:
            raise IntegrityError("The linear model holds no means of its training matrix, so scores have no reasons; train anew.")
        coefficients, means = np.array(document["coefficients"]), np.array(document["means"])
        return _Attribution(float(document["intercept"] + coefficients @ means), coefficients, means)


@dataclass(frozen=True)
class _Loaded:
    data: bytes

    @cached_property
    def _parsed(self) -> tuple[Floats, float]:
        document = json.loads(self.data)
        return np.array(document["coefficients"]), float(document["intercept"])

    def margins(self, X: Floats) -> Floats:
        coefficients, intercept = self._parsed
        # einsum over contiguous rows, not BLAS: the same bits for one row as for a million
        margins: Floats = np.einsum("ij,j->i", np.ascontiguousarray(X), coefficients) + intercept
        return margins


@dataclass(frozen=True)
class _Attribution:
    base: float
    coefficients: Floats
    means: Floats

    def attribute(self, X: Floats) -> Floats:
        return self.coefficients * (X - self.means)

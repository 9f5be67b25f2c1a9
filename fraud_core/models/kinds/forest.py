"""Random forest: scikit-learn's, kept in treelite's format. Its margin is the mean of its trees' probabilities."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import treelite

from fraud_core.models.kinds import trees
from fraud_core.models.kinds.kind import Attribution, Examples, Kind, MarginModel
from fraud_core.units.arrays import Floats

FOREST = {"n_estimators": 100, "max_leaf_nodes": 1_000, "min_samples_leaf": 5, "max_samples": 0.5}


class Forest(Kind):
    """Random forest."""

    name = "forest"
    suffix = "treelite"
    unit = "probability"

    def recipe(self) -> str:
        return str(FOREST)

    def fit(self, training: Examples, validation: Examples, *, seed: int, threads: int) -> Iterator[tuple[str, Any]]:
        from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415 - a scorer must not load it

        forest = RandomForestClassifier(**FOREST, n_jobs=threads, random_state=seed)
        yield "random forest", forest.fit(training.X, training.y, sample_weight=training.weights)

    def export(self, estimator: Any) -> bytes:
        return trees.export(estimator)

    def load(self, data: bytes, threads: int = 1) -> MarginModel:
        return _Loaded(data, threads)

    def explain(self, data: bytes, columns: int) -> Attribution:
        return trees.explain(data, columns, forest=True)


@dataclass(frozen=True)
class _Loaded:
    data: bytes
    threads: int

    @cached_property
    def _parsed(self) -> Any:
        return treelite.Model.deserialize_bytes(self.data)

    def margins(self, X: Floats) -> Floats:
        narrow = X.astype(np.float32).astype(np.float64)  # scikit-learn's trees compare in float32
        margins: Floats = treelite.gtil.predict(self._parsed, narrow, nthread=self.threads).reshape(len(X), 2)[:, 1]
        return margins

"""Random forest: scikit-learn's, kept in treelite's format. Its margin is the mean of its trees' probabilities."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import treelite

from fraud_core.models.kinds.kind import Examples, MarginModel
from fraud_core.models.kinds.trees import LoadedTrees, TreeKind
from fraud_core.units.arrays import Floats

FOREST = {"n_estimators": 100, "max_leaf_nodes": 1_000, "min_samples_leaf": 5, "max_samples": 0.5}


class Forest(TreeKind):
    """Random forest."""

    name = "forest"
    unit = "probability"
    is_forest = True

    def recipe(self) -> str:
        return str(FOREST)

    def fit(self, training: Examples, validation: Examples, *, seed: int, threads: int) -> Iterator[tuple[str, Any]]:
        from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415 - a scorer must not load it

        forest = RandomForestClassifier(**FOREST, n_jobs=threads, random_state=seed)
        yield "random forest", forest.fit(training.X, training.y, sample_weight=training.weights)

    def load(self, data: bytes, threads: int = 1) -> MarginModel:
        return _Loaded(data, threads)


class _Loaded(LoadedTrees):
    def margins(self, X: Floats) -> Floats:
        narrow = X.astype(np.float32).astype(np.float64)  # scikit-learn's trees compare in float32
        margins: Floats = treelite.gtil.predict(self.parsed, narrow, nthread=self.threads).reshape(len(X), 2)[:, 1]
        return margins

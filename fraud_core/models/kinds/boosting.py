"""Gradient boosting: scikit-learn's histogram-based trees in two sizes, kept in treelite's format. Its margin is log-odds."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import treelite

from fraud_core.evaluation import metrics
from fraud_core.models.kinds.bit_vectors import BitVectors
from fraud_core.models.kinds.kind import LOOK_EVERY, Examples, MarginModel
from fraud_core.models.kinds.trees import LoadedTrees, TreeKind
from fraud_core.units.arrays import Floats


@dataclass(frozen=True)
class BoostingSettings:
    """Boosting's knobs. Large leaves, L2 and a small rate keep it from diverging at a fraud rate of half a percent."""

    learning_rate: float
    max_leaf_nodes: int
    min_samples_leaf: int
    trees: int  # at most; validation A says how many of them are kept
    l2: float = 10.0


BOOSTING = {  # what else was tried, and what came of it: docs/learning.md
    "boosting, small trees": BoostingSettings(learning_rate=0.1, max_leaf_nodes=15, min_samples_leaf=60, trees=280),
    "boosting, large trees": BoostingSettings(learning_rate=0.05, max_leaf_nodes=31, min_samples_leaf=100, trees=400),
}


class Boosting(TreeKind):
    """Histogram-based gradient boosting."""

    name = "boosting"
    unit = "log-odds"
    is_forest = False

    def recipe(self) -> str:
        return str(BOOSTING)

    def fit(self, training: Examples, validation: Examples, *, seed: int, threads: int) -> Iterator[tuple[str, Any]]:
        for name, knobs in BOOSTING.items():
            model, kept = _grow(knobs, training, validation, seed)
            yield f"{name} ({kept} trees)", model

    def load(self, data: bytes, threads: int = 1) -> MarginModel:
        return _Loaded(data, threads)


def _grow(knobs: BoostingSettings, training: Examples, validation: Examples, seed: int) -> tuple[Any, int]:
    """Stops early on average precision: of all numbers of trees, the one that is best on validation A is kept.

    scikit-learn's own early stopping keeps the last trees, not the best, and watches a loss. So the whole sequence is grown,
    and the trees after the best number are dropped, which gives the model that fitting anew with that number would give.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415 - a scorer must not load it

    model = HistGradientBoostingClassifier(
        learning_rate=knobs.learning_rate,
        max_iter=knobs.trees,
        max_leaf_nodes=knobs.max_leaf_nodes,
        min_samples_leaf=knobs.min_samples_leaf,
        l2_regularization=knobs.l2,
        early_stopping=False,
        random_state=seed,
    )
    model.fit(training.X, training.y, sample_weight=training.weights)
    looks = {
        count: metrics.average_precision(validation.y, margins.ravel())
        for count, margins in enumerate(model.staged_decision_function(validation.X), start=1)
        if count % LOOK_EVERY == 0
    }
    best = max(looks, key=lambda count: looks[count])
    model.set_params(max_iter=best)
    del model._predictors[best:]
    return model, best


class _Loaded(LoadedTrees):
    @cached_property
    def _fast(self) -> BitVectors | None:
        return BitVectors.of(self.parsed, self.parsed.num_feature)

    def margins(self, X: Floats) -> Floats:
        if self._fast is not None and not np.isnan(X).any():
            return self._fast.margins(X)
        margins: Floats = treelite.gtil.predict(self.parsed, X, nthread=self.threads, pred_margin=True).reshape(len(X))
        return margins

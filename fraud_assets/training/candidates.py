"""The candidates: a linear model, a random forest and gradient boosting; fitted on training rows, judged on validation A."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import treelite.sklearn
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from fraud_core.errors import HoldoutError
from fraud_core.evaluation import metrics
from fraud_core.models.manifest import Calibration, ModelKind
from fraud_core.models.scorer import MarginModel
from fraud_core.units.arrays import Flags, Floats

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Side:
    """A side of the split as a model sees it: matrix (n, columns), labels (n,), weights (n,)."""

    X: Floats
    y: Flags
    weights: Floats


@dataclass(frozen=True)
class Candidate:
    """A fitted model, in scikit-learn's form and in the bundle's, and its average precision on validation A."""

    name: str
    kind: ModelKind
    estimator: Any
    exported: bytes
    average_precision: float

    def margins(self, X: Floats, threads: int) -> Floats:
        """Margins by the exported model: what is evaluated is what ships."""
        return MarginModel(self.kind, self.exported, threads).margins(X)


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
FOREST = {"n_estimators": 100, "max_leaf_nodes": 1_000, "min_samples_leaf": 5, "max_samples": 0.5}
LOOK_EVERY = 10  # trees between two looks at validation A


def recipe() -> str:
    """What the candidates are, as text: where it changes, training again gives another model."""
    return f"{BOOSTING} {FOREST} {LOOK_EVERY}"


def fit_candidates(training: Side, validation: Side, *, seed: int, threads: int, progress: Progress) -> list[Candidate]:
    """Fit all candidates; the best by average precision on validation A comes first."""
    with fixed_threads(threads):
        candidates = [_linear(training, validation, threads), _forest(training, validation, seed, threads)]
        for candidate in candidates:
            progress(f"{candidate.name}: average precision {candidate.average_precision:.4f} on validation A")
        for name, settings in BOOSTING.items():
            candidates.append(_boosting(name, settings, training, validation, seed, threads))
            progress(f"{name}: average precision {candidates[-1].average_precision:.4f} on validation A")
    return sorted(candidates, key=lambda candidate: -candidate.average_precision)


@contextmanager
def fixed_threads(threads: int) -> Iterator[None]:
    """OpenMP on the threads given, BLAS on one, whose results depend on their number."""
    with threadpool_limits(1, user_api="blas"), threadpool_limits(threads, user_api="openmp"):
        yield


def fit_calibration(margins: Floats, y: Flags) -> Calibration:
    """Platt's map (Platt 1999): a logistic regression of the label on the margin, without penalty.

    Its targets are Platt's, a little inside of 0 and 1: where a margin parts all frauds from the rest, labels would send the
    slope to infinity.

    Raises:
        HoldoutError: a higher margin does not mean more fraud on these rows.
    """
    centre, spread = float(margins.mean()), float(margins.std()) or 1.0
    z = ((margins - centre) / spread).reshape(-1, 1)
    frauds = np.count_nonzero(y)
    targets = np.where(y, (frauds + 1) / (frauds + 2), 1 / (len(y) - frauds + 2))
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", max_iter=200)
    with fixed_threads(1):  # each row counts as a fraud by its target, and as none by the rest
        model.fit(np.vstack([z, z]), np.repeat([True, False], len(z)), sample_weight=np.concatenate([targets, 1 - targets]))
    slope = float(model.coef_[0, 0]) / spread
    if slope <= 0:
        raise HoldoutError(
            "On validation B higher margins do not mean more fraud: nothing was learned. Look at the labels of the source."
        )
    return Calibration(slope=slope, intercept=float(model.intercept_[0]) - slope * centre)


def _linear(training: Side, validation: Side, threads: int) -> Candidate:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    pipeline.fit(training.X, training.y, logisticregression__sample_weight=training.weights)
    return _candidate("linear", "linear", pipeline, export_linear(pipeline), validation, threads)


def export_linear(pipeline: Pipeline) -> bytes:
    """Coefficients for the matrix as it is, the scaler folded in; `means` are the training matrix', for reasons."""
    scaler, model = pipeline[0], pipeline[1]
    coefficients = model.coef_[0] / scaler.scale_
    intercept = float(model.intercept_[0] - coefficients @ scaler.mean_)
    document = {"coefficients": coefficients.tolist(), "intercept": intercept, "means": scaler.mean_.tolist()}
    return json.dumps(document, separators=(",", ":")).encode()


def export_trees(estimator: Any) -> bytes:
    """The trees in treelite's own format, which is read back without unpickling."""
    return bytes(treelite.sklearn.import_model(estimator).serialize_bytes())


def _forest(training: Side, validation: Side, seed: int, threads: int) -> Candidate:
    forest = RandomForestClassifier(**FOREST, n_jobs=threads, random_state=seed)
    forest.fit(training.X, training.y, sample_weight=training.weights)
    return _candidate("random forest", "forest", forest, export_trees(forest), validation, threads)


def _boosting(name: str, knobs: BoostingSettings, training: Side, validation: Side, seed: int, threads: int) -> Candidate:
    """Stops early on average precision: of all numbers of trees, the one that is best on validation A is kept.

    scikit-learn's own early stopping keeps the last trees, not the best, and watches a loss. So the whole sequence is grown,
    and the trees after the best number are dropped, which gives the model that fitting anew with that number would give.
    """
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
        trees: metrics.average_precision(validation.y, margins.ravel())
        for trees, margins in enumerate(model.staged_decision_function(validation.X), start=1)
        if trees % LOOK_EVERY == 0
    }
    best = max(looks, key=lambda trees: looks[trees])
    model.set_params(max_iter=best)
    del model._predictors[best:]
    return _candidate(f"{name} ({best} trees)", "boosting", model, export_trees(model), validation, threads)


def _candidate(name: str, kind: ModelKind, estimator: Any, exported: bytes, validation: Side, threads: int) -> Candidate:
    margins = MarginModel(kind, exported, threads).margins(validation.X)
    return Candidate(name, kind, estimator, exported, metrics.average_precision(validation.y, margins))

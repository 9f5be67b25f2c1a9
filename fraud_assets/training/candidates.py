"""The candidates of every kind of model: fitted on training rows, judged on validation A; and calibration of the best."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from fraud_core.errors import HoldoutError
from fraud_core.evaluation import metrics
from fraud_core.models.kinds.catalogue import KINDS
from fraud_core.models.kinds.kind import LOOK_EVERY, Examples
from fraud_core.models.manifest import Calibration
from fraud_core.units.arrays import Flags, Floats

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Candidate:
    """A fitted model, in scikit-learn's form and in the bundle's, and its average precision on validation A."""

    name: str
    kind: str
    estimator: Any
    exported: bytes
    average_precision: float

    def margins(self, X: Floats, threads: int) -> Floats:
        """Margins by the exported model: what is evaluated is what ships."""
        return KINDS[self.kind].load(self.exported, threads).margins(X)


def recipe() -> str:
    """What the candidates are, as text: where it changes, training again gives another model."""
    recipes = (KINDS[name].recipe() for name in sorted(KINDS))
    return " ".join([*filter(None, recipes), str(LOOK_EVERY)])


def fit_candidates(training: Examples, validation: Examples, *, seed: int, threads: int, progress: Progress) -> list[Candidate]:
    """Fit the candidates of every kind; the best by average precision on validation A comes first."""
    candidates: list[Candidate] = []
    with fixed_threads(threads):
        for kind in KINDS.values():
            for name, estimator in kind.fit(training, validation, seed=seed, threads=threads):
                exported = kind.export(estimator)
                figure = metrics.average_precision(validation.y, kind.load(exported, threads).margins(validation.X))
                candidates.append(Candidate(name, kind.name, estimator, exported, figure))
                progress(f"{name}: average precision {figure:.4f} on validation A")
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

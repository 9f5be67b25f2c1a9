"""The scorer: a bundle at work. The same object serves the API, the analyst's desk and the pipeline's own evaluation."""

from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import polars as pl

from fraud_core.errors import IntegrityError
from fraud_core.features import catalogue
from fraud_core.features.windows import Reach
from fraud_core.fields.declared import NOTHING
from fraud_core.models.bundle import Bundle
from fraud_core.models.kinds.catalogue import KINDS
from fraud_core.models.manifest import Calibration
from fraud_core.transactions.decision import Decision
from fraud_core.transactions.declared_type import transaction_type
from fraud_core.transactions.transaction import reading
from fraud_core.units.arrays import Floats


def probabilities(margins: Floats, calibration: Calibration) -> Floats:
    """Calibrated fraud probabilities of margins."""
    log_odds = np.clip(calibration.slope * margins + calibration.intercept, -700.0, 700.0)  # exp overflows beyond 709
    probability: Floats = 1.0 / (1.0 + np.exp(-log_odds))
    return probability


class Scorer:
    """Scores transactions with one bundle. Immutable and safe to share between threads.

    Attributes:
        reach: how far its features of the past look back; None where it has none.
        declared: the own fields and windows of its source.
        plan: what its features need of the past.
        payment: the type of the payments that it scores.
        reading: the context in which payments are validated for it.
        without_history: a scorer of the same version that does without them; None where there is nothing to do without.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        learned = bundle.manifest.learned
        if learned.feature_version != catalogue.VERSION:
            raise IntegrityError(
                f"Version {bundle.version} was trained on feature definitions {learned.feature_version}; "
                f"this release computes definitions {catalogue.VERSION}. Train anew, or run the release it was trained with."
            )
        self.declared = learned.declared or NOTHING
        by_name = catalogue.catalogue_of(self.declared).by_name
        names = bundle.encoder.features
        unknown = [name for name in names if name not in by_name]
        if unknown:
            raise IntegrityError(f"Version {bundle.version} needs features that this release does not know: {unknown}.")
        if names not in {model.features for model in (learned, learned.fallback) if model is not None}:
            raise IntegrityError(f"Version {bundle.version} has an encoder of other features than its manifest names.")
        self.bundle = bundle
        self.payment = transaction_type(self.declared, learned.timezone)
        self.version = bundle.version
        self.thresholds = bundle.thresholds
        self.features = tuple(by_name[name] for name in names)
        self.plan = catalogue.plan_of(self.features)
        self.zone = ZoneInfo(learned.timezone)
        self.reading = reading(bundle.manifest.lineage.digits)
        self.reach: Reach | None = None
        if any(feature.is_history for feature in self.features):
            if learned.lookback is None or bundle.fallback is None:
                raise IntegrityError(
                    f"Version {bundle.version} uses history, and does not say how far it looks back, or has no model for when "
                    "history cannot be had."
                )
            self.reach = learned.lookback.reach
        plain = bundle.without_history
        self.without_history: Scorer | None = None if plain is None else Scorer(plain, threads)
        self._model = KINDS[bundle.kind].load(bundle.model, threads)
        self._calibration = bundle.calibration

    @property
    def uses_history(self) -> bool:
        """Whether it wants to know what card and merchant did before."""
        return self.reach is not None

    @property
    def needs(self) -> frozenset[str]:
        """The canonical columns that a transaction must bring (their values may be missing)."""
        return frozenset({"timestamp"}.union(*(feature.needs for feature in self.features)))

    def score_inputs(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Floats:
        """Probabilities of n transactions given as arrays of canonical columns (see `features.compute`)."""
        return self.score_matrix(self.matrix(inputs))

    def matrix(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Floats:
        """What the model sees of n transactions given as arrays of canonical columns: shape (n, columns)."""
        return self.bundle.encoder.matrix(catalogue.compute(self.features, inputs, self.zone))

    def score_features(self, frame: pl.DataFrame) -> Floats:
        """Probabilities of n rows of features as transformed stores them."""
        return self.score_matrix(self.bundle.encoder.frame_matrix(frame))

    def score_matrix(self, X: Floats) -> Floats:
        """Probabilities of shape (n,) of a ready matrix of shape (n, columns)."""
        return probabilities(self._model.margins(X), self._calibration)

    def decide(self, probability: float) -> Decision:
        """The decision at a probability, by the bundle's thresholds."""
        if probability >= self.thresholds.decline:
            return "decline"
        return "review" if probability >= self.thresholds.review else "approve"

"""Kind of model: fitting, export to the bundle's bytes, loading and explanation, all of one kind in one class in one file.

Only fitting and export may need scikit-learn, and import it where they do: whoever loads and explains must do without.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from fraud_core.units.arrays import Flags, Floats

Unit = Literal["log-odds", "probability"]

LOOK_EVERY = 10  # trees between two looks at validation A, where a model grows tree by tree


@dataclass(frozen=True)
class Examples:
    """Labelled rows as a model sees them: matrix (n, columns), labels (n,), weights (n,)."""

    X: Floats
    y: Flags
    weights: Floats


class MarginModel(Protocol):
    """A model read from a bundle's bytes, without unpickling. Immutable and safe to share between threads."""

    def margins(self, X: Floats) -> Floats:
        """Margins of shape (n,) of a matrix of shape (n, columns), columns in the encoder's order (see `Calibration`)."""


class Attribution(Protocol):
    """A model's margin, split over the columns of its matrix: margin = base + sum of attributions."""

    @property
    def base(self) -> float: ...

    def attribute(self, X: Floats) -> Floats: ...


class Kind(ABC):
    """A kind of model. `catalogue` lists those that there are.

    Attributes:
        name: in manifests, and so in what a version is the hash of.
        suffix: of the model's file in a bundle.
        unit: of contributions to a score. "log-odds": they sum to the calibrated log-odds; "probability": they sum to the
            margin, which is the model's own probability.
    """

    name: str
    suffix: str
    unit: Unit

    @abstractmethod
    def recipe(self) -> str:
        """What is fitted, as text: where it changes, training again gives another model. Empty: it cannot change."""

    @abstractmethod
    def fit(self, training: Examples, validation: Examples, *, seed: int, threads: int) -> Iterator[tuple[str, Any]]:
        """Fit the candidates of this kind on training rows: their names and scikit-learn's estimators.

        Args:
            training: what is learned from.
            validation: validation A, which may say how long a model grows.
            seed: of the draws.
            threads: at most; their number changes no bit.
        """

    @abstractmethod
    def export(self, estimator: Any) -> bytes:
        """The fitted model as a bundle holds it, which is read back without unpickling."""

    @abstractmethod
    def load(self, data: bytes, threads: int = 1) -> MarginModel:
        """The model in these bytes; they are parsed when it is first asked."""

    @abstractmethod
    def explain(self, data: bytes, columns: int) -> Attribution:
        """What splits the margins of the model in these bytes over the columns of its matrix.

        Raises:
            IntegrityError: the model lacks what its explanation needs.
        """

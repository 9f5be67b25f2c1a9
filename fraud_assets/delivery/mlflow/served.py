"""The model as MLflow holds it: the serving bundle and this file, no pickle.

MLflow runs this file when a model is logged and when one is loaded.
"""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl
from mlflow.pyfunc.model import PythonModel

from fraud_assets.delivery.mlflow.bundle_copy import read_copy
from fraud_core.models.scorer import Scorer


class ServedModel(PythonModel):
    """Scores transformed rows exactly as the scorer does."""

    def load_context(self, context: Any) -> None:
        """Read the bundle.

        Raises:
            IntegrityError: a file is missing or changed.
        """
        self._scorer = Scorer(read_copy(Path(context.artifacts["bundle"])))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> npt.NDArray[np.float64]:
        """float64[n], probabilities of fraud of n transformed rows: features by name, numbers as float64, categories as text."""
        return self._scorer.score_features(pl.from_pandas(model_input))


mlflow.models.set_model(ServedModel())  # MLflow asks the file for it

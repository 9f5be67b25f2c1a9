"""Unpickling of artifacts that earlier releases wrote: where the classes in them stand today.

Joblib, which stores preprocessor and model, names the module of each class. A class that moves gets a line here, so that what
an installation has stays readable.
"""

import io
from typing import Any

from joblib.numpy_pickle import NumpyUnpickler

# A former module, and where its classes went; those that went elsewhere are named.
MODULES = {
    "fraud_assets.learning.split": "fraud_assets.training.split",
    "fraud_assets.learning.training": "fraud_assets.training.training",
    "fraud_core.bundle": "fraud_core.models.manifest",
    "fraud_core.encoder": "fraud_core.features.encoder",
    "fraud_core.evaluation": "fraud_core.evaluation.report",
    "fraud_core.metrics": "fraud_core.evaluation.metrics",
}
CLASSES = {
    ("fraud_core.bundle", "Bundle"): "fraud_core.models.bundle",
    ("fraud_core.bundle", "Fitted"): "fraud_core.models.bundle",
    ("fraud_core.metrics", "CalibrationBin"): "fraud_core.evaluation.calibration",
    ("fraud_core.metrics", "CardPrecision"): "fraud_core.evaluation.daily_cards",
    ("fraud_core.metrics", "Cost"): "fraud_core.evaluation.costs",
    ("fraud_core.metrics", "CostPoint"): "fraud_core.evaluation.costs",
    ("fraud_core.metrics", "Interval"): "fraud_core.evaluation.intervals",
}


class _Unpickler(NumpyUnpickler):  # type: ignore[misc]
    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(CLASSES.get((module, name)) or MODULES.get(module, module), name)


def load(data: bytes) -> Any:
    """What joblib stored, by this release or an earlier one. The bytes must have been verified."""
    return _Unpickler("", io.BytesIO(data), ensure_native_byte_order=True).load()

"""alibi-detect's TabularDrift as the gate's detector. Its licence (Business Source License 1.1) does not allow production use;
the twin in `fraud_core.gate.statistics` gives the same numbers under this product's own licence."""

import os
from collections.abc import Collection

from fraud_core.gate.statistics import Columns


def alibi_detector(reference: Columns, current: Columns, categories: Collection[str]) -> dict[str, tuple[float, float]]:
    """TabularDrift, one feature at a time, since features may differ in how many values are missing; see `drift.Detector`."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it imports transformers, which misses PyTorch aloud
    from alibi_detect.cd import TabularDrift  # noqa: PLC0415 - takes seconds and hundreds of megabytes

    results: dict[str, tuple[float, float]] = {}
    for name, values in reference.items():
        test = TabularDrift(values[:, None], categories_per_feature={0: None} if name in categories else {})
        data = test.predict(current[name][:, None], drift_type="feature")["data"]
        results[name] = float(data["distance"][0]), float(data["p_val"][0])
    return results

"""alibi-detect's TabularDrift as the gate's detector. Its licence (Business Source License 1.1) does not allow production use, so
it is an extra of its own; the twin in `fraud_core.gate.statistics` gives the same numbers under this product's own licence."""

import os
from collections.abc import Collection
from importlib.util import find_spec

from fraud_core.errors import SettingsError
from fraud_core.gate.statistics import Columns, Detector, scipy_detector


def chosen_detector(name: str) -> Detector:
    """The detector that a setting names; `auto`: alibi-detect where it is installed, else its twin.

    Raises:
        SettingsError: alibi-detect is asked for and not installed.
    """
    is_installed = find_spec("alibi_detect") is not None
    if name == "alibi-detect" and not is_installed:
        raise SettingsError(
            "FRAUD_DRIFT_DETECTOR asks for alibi-detect, which is not installed: `pip install 'fraud-detection[alibi]'`, or "
            "leave the setting out. The gate's verdicts are the same without it."
        )
    return alibi_detector if is_installed and name != "scipy" else scipy_detector


def alibi_detector(reference: Columns, current: Columns, categories: Collection[str]) -> dict[str, tuple[float, float]]:
    """TabularDrift, one feature at a time, since features may differ in how many values are missing; see `Detector`."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it imports transformers, which misses PyTorch aloud
    from alibi_detect.cd import TabularDrift  # noqa: PLC0415 - takes seconds and hundreds of megabytes

    results: dict[str, tuple[float, float]] = {}
    for name, values in reference.items():
        test = TabularDrift(values[:, None], categories_per_feature={0: None} if name in categories else {})
        data = test.predict(current[name][:, None], drift_type="feature")["data"]
        results[name] = float(data["distance"][0]), float(data["p_val"][0])
    return results

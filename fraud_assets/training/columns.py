"""Columns that nothing can be learned from: constant, all missing, or the same as another among the training rows."""

from collections import defaultdict
from collections.abc import Sequence

import polars as pl

from fraud_core.features.encoder import MISSING_CATEGORY
from fraud_core.features.feature import Feature

CONSTANT, ALL_MISSING = "constant among the training rows", "missing in every training row"


def unlearnable(frame: pl.DataFrame, features: Sequence[Feature]) -> dict[str, str]:
    """The features that a model learns nothing from, each with the reason.

    A missing number becomes the median, so one value and missing ones are constant, too; a missing name is a name of its own.
    Of two that are the same, that of the payment itself stays, which the model without history can use; else the first.

    Args:
        frame: training rows, n of them.
        features: which of its columns are looked at.
    """
    reasons: dict[str, str] = {}
    alike: defaultdict[int, list[pl.Series]] = defaultdict(list)  # by their hash: few are ever compared
    for feature in sorted(features, key=lambda feature: feature.is_history):
        values = _as_learned(frame[feature.name], feature)
        if frame[feature.name].null_count() == len(values):
            reasons[feature.name] = ALL_MISSING
        elif values.min() == values.max():
            reasons[feature.name] = CONSTANT
        else:
            others = alike[hash(values.hash().to_numpy().tobytes())]
            same = next((other.name for other in others if other.equals(values)), None)
            if same is None:
                others.append(values)
            else:
                reasons[feature.name] = f"the same as {same} in every training row"
    return {feature.name: reasons[feature.name] for feature in features if feature.name in reasons}


def _as_learned(values: pl.Series, feature: Feature) -> pl.Series:
    if feature.is_category:
        return values.fill_null(MISSING_CATEGORY)
    return values.cast(pl.Float64).fill_nan(None)

"""Fit the encoder with scikit-learn, on training rows alone. `fraud_core.features.encoder` applies it, here and in serving."""

from collections.abc import Sequence

import polars as pl
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import TargetEncoder

from fraud_assets.training.rows import Rows
from fraud_core.features.encoder import MISSING_CATEGORY, ColumnEncoding, Encoder
from fraud_core.features.feature import Feature


def fit_encoder(rows: Rows, features: Sequence[Feature]) -> Encoder:
    """Fit the encoder.

    A category becomes its smoothed share of frauds among the training rows (scikit-learn's TargetEncoder, empirical Bayes
    smoothing), one unseen in training their mean share; a missing number becomes the median.
    """
    columns = []
    for feature in features:
        values = rows.frame[feature.name]
        if feature.is_category:
            names = values.fill_null(MISSING_CATEGORY).to_numpy().reshape(-1, 1)
            encoder = TargetEncoder(target_type="binary", smooth="auto").fit(names, rows.labels)
            seen = dict(zip(map(str, encoder.categories_[0]), map(float, encoder.encodings_[0]), strict=True))
            columns.append(ColumnEncoding(feature=feature.name, categories=seen, unseen=float(encoder.target_mean_)))
        else:
            numbers = values.cast(pl.Float64).fill_null(float("nan")).to_numpy().reshape(-1, 1)
            imputer = SimpleImputer(strategy="median", keep_empty_features=True).fit(numbers)
            columns.append(ColumnEncoding(feature=feature.name, missing=float(imputer.statistics_[0])))
    return Encoder(columns=tuple(columns))

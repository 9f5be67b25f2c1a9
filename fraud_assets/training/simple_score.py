"""Cross-fitted scores of a simple model, by which labels are judged before there is a champion.

Each partition is scored by a small boosting model that was fitted to the labels of others (cross-fitting over groups, as
scikit-learn's GroupKFold): where its own labels are wrong, they do not agree with what the rest has learned.
"""

import math
from collections.abc import Callable, Collection, Sequence

import numpy as np
import polars as pl
from sklearn.ensemble import HistGradientBoostingClassifier

from fraud_assets.training.rows import at_most
from fraud_core.features.encoder import ColumnEncoding, Encoder
from fraud_core.features.feature import Feature
from fraud_core.units.arrays import Array

FOLDS = 5
TREES = 60
MOST_LEGITIMATE = 40_000  # rows that a model is fitted to, beside the frauds; in each partition at most its part of them
FEW_FRAUDS = 50  # of the other partitions; by fewer nothing is learned


def cross_fitted(
    names: Sequence[str],
    load: Callable[[str], pl.DataFrame],
    features: Collection[Feature],
    left_out: Collection[str] = (),
    seed: int = 0,
) -> dict[str, Array]:
    """Scores of every partition's payments by a model that has not seen it, float64[n]; none where no model could be learned.

    Args:
        names: the partitions.
        load: reads one: its features, and `label`. Memory is bounded by what is fitted to, and one partition.
        features: which columns are features.
        left_out: partitions whose labels are known to be wrong; they are scored, and nothing is learned from them.
        seed: of the draws.
    """
    learnable = [name for name in names if name not in left_out]
    most = at_most(MOST_LEGITIMATE, len(features)) // max(len(learnable), 1)
    rows = {name: _thinned(load(name), most, seed) for name in learnable}
    encoder = _encoder(list(rows.values()), features)
    fold_of = {name: place % FOLDS for place, name in enumerate(learnable)}
    scores: dict[str, Array] = {}
    for fold in (*range(FOLDS), None):  # None: those that are left out
        scored = [name for name in names if fold_of.get(name) == fold]
        model = _fit([rows[name] for name in learnable if fold_of[name] != fold], encoder, seed) if scored else None
        if model is not None:
            matrices = {name: encoder.frame_matrix(load(name)) for name in scored}
            scores |= {name: model.decision_function(matrix) for name, matrix in matrices.items() if len(matrix)}
    return scores


def _fit(parts: Sequence[pl.DataFrame], encoder: Encoder, seed: int) -> HistGradientBoostingClassifier | None:
    y = np.concatenate([np.zeros(0, dtype=bool), *(part["label"].to_numpy() for part in parts)])
    if not FEW_FRAUDS <= y.sum() < len(y):
        return None
    X = np.concatenate([encoder.frame_matrix(part) for part in parts])
    X[:, np.isnan(X).all(axis=0)] = 0.0  # a column that nobody knows anything of; scikit-learn fails on it
    model = HistGradientBoostingClassifier(
        max_iter=TREES, max_leaf_nodes=15, l2_regularization=1.0, early_stopping=False, random_state=seed
    )
    return model.fit(X, y)


def _thinned(frame: pl.DataFrame, most: int, seed: int) -> pl.DataFrame:
    """All frauds, and at most so many legitimate payments."""
    labels = frame["label"].to_numpy()
    legitimate = np.flatnonzero(~labels)
    if len(legitimate) > most:
        legitimate = np.random.default_rng([seed, len(frame)]).choice(legitimate, most, replace=False)
    return frame[np.sort(np.concatenate([np.flatnonzero(labels), legitimate]))]


def _encoder(frames: Sequence[pl.DataFrame], features: Collection[Feature]) -> Encoder:
    """Numbers as they are, names by their place among all; missing ones and unseen names are NaN."""

    def column(feature: Feature) -> ColumnEncoding:
        if not feature.is_category:
            return ColumnEncoding(feature=feature.name, missing=math.nan)
        names = sorted({name for frame in frames for name in frame[feature.name].drop_nulls().unique()})
        codes = {name: float(place) for place, name in enumerate(names)}
        return ColumnEncoding(feature=feature.name, categories=codes, unseen=math.nan)

    return Encoder(columns=tuple(map(column, features)))

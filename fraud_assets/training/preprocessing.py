"""Fit the encoder on training rows alone. `fraud_core.features.encoder` applies it, here and in serving.

A category of few names is encoded by scikit-learn's TargetEncoder. One of many is a target encoding with additive smoothing
(Micci-Barreca 2001), and what the model is trained on is out of fold: a row's number is made of the labels of other cards alone.
Otherwise a name seen once would tell its own label, and the model would learn to trust what it will never see again.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from sklearn.preprocessing import TargetEncoder

from fraud_assets.training.rows import CardCodes, Rows
from fraud_core.errors import FeatureError
from fraud_core.features.encoder import MISSING_CATEGORY, ColumnEncoding, Encoder
from fraud_core.features.feature import Feature
from fraud_core.units.arrays import Array, Flags, Floats

FEW_NAMES = 50  # to this many, a row's own label is lost in its name's number; from 100 on it costs precision: docs/learning.md
MOST_NAMES = 100_000  # and among so many rows as train, hardly any of them twice
# Names of fewer training rows are pooled with those never seen: with less, a name weighs less than a sixth of its own number
# against the prior, and the encoder's size stays bounded by the rows that train.
RARE = 10
PRIOR_ROWS = 50  # the mean share of frauds counts as so many rows of each name
FOLDS = 5


def fit_encoder(rows: Rows, features: Sequence[Feature]) -> Encoder:
    """Fit the encoder.

    A category becomes its smoothed share of frauds among the training rows, one unseen in training their mean share; a missing
    number becomes the median. Shares are those of the rows at hand, thinned or not: thinning keeps their order.

    Raises:
        FeatureError: a category has so many names that it is an id.
    """
    return Encoder(columns=tuple(_encoding(feature, rows) for feature in features))


def training_matrix(rows: Rows, kept: Flags, encoder: Encoder, seed: int) -> Floats:
    """The training rows as a model learns from them, of shape (n, columns): categories of many names out of fold.

    Args:
        rows: those that the encoder was fitted on.
        kept: which n of them the model learns from (see `Rows.narrowed`); names are counted in all.
        encoder: the fitted one; all other rows go through it as they are.
        seed: of the draw of cards into folds.
    """
    X = encoder.frame_matrix(rows.frame if kept.all() else rows.frame.filter(pl.Series(kept)))
    pooled = [place for place, column in enumerate(encoder.columns) if column.rare is not None]
    folds = _folds(rows.frame, seed) if pooled else np.zeros(0, dtype=np.int64)
    for place in pooled:
        X[:, place] = _out_of_fold(rows, encoder.columns[place], folds)[kept]
    return X


def _encoding(feature: Feature, rows: Rows) -> ColumnEncoding:
    values = rows.frame[feature.name]
    if feature.is_category:
        return _category(feature.name, values, rows.labels)
    known = values.cast(pl.Float64).fill_nan(None).drop_nulls().to_numpy()
    return ColumnEncoding(feature=feature.name, missing=float(np.median(known)) if len(known) else 0.0)


def _category(name: str, values: pl.Series, labels: Flags) -> ColumnEncoding:
    named = pl.DataFrame({"name": values.fill_null(MISSING_CATEGORY), "fraud": labels})
    counts = named.group_by("name").agg(rows=pl.len(), frauds=pl.col("fraud").sum()).sort("name")
    if len(counts) <= FEW_NAMES:
        codes = named["name"].replace_strict(counts["name"], pl.int_range(len(counts), eager=True))
        encoder = TargetEncoder(target_type="binary", smooth="auto").fit(codes.to_numpy().reshape(-1, 1), labels)
        seen = dict(zip(counts["name"], map(float, encoder.encodings_[0]), strict=True))
        return ColumnEncoding(feature=name, categories=seen, unseen=float(encoder.target_mean_))
    _refuse_id(name, len(counts), len(values) - values.null_count())
    prior, kept = float(labels.mean()), counts.filter(pl.col("rows") >= RARE)
    shares = _shares(kept["rows"].to_numpy(), kept["frauds"].to_numpy(), prior)
    return ColumnEncoding(feature=name, categories=dict(zip(kept["name"], shares.tolist(), strict=True)), unseen=prior, rare=RARE)


def _shares(rows: Array, frauds: Array, prior: float) -> Floats:
    """Shares of frauds, drawn towards the prior."""
    shares: Floats = (frauds + PRIOR_ROWS * prior) / (rows + PRIOR_ROWS)
    return shares


def _refuse_id(name: str, names: int, known: int) -> None:
    if names > MOST_NAMES or names > known / 2:
        raise FeatureError(
            f"{name} is a category with {names:,} different names in {known:,} training rows, of which a model can learn next to "
            f'nothing (at most {MOST_NAMES:,}, and each of them twice on average); declare it as an id: kind = "id" in '
            f"[fields.{name}] of the source's TOML, and count by it in [[windows]], or set learns = false there."
        )


def _out_of_fold(rows: Rows, column: ColumnEncoding, folds: Array) -> Floats:
    """A column's numbers, float64[n], each without the labels of its own fold; rare names have the prior.

    The prior is that of all rows: one of each fold's own would tell how many frauds the fold itself has.
    """
    assert column.categories is not None
    assert column.unseen is not None
    names, k = list(column.categories), len(column.categories)
    values = rows.frame[column.feature].fill_null(MISSING_CATEGORY)
    codes = values.replace_strict(names, np.arange(k), default=-1, return_dtype=pl.Int64).to_numpy()
    kept = codes >= 0
    cells, frauds = (folds * k + codes)[kept], rows.labels[kept]
    counts, counted = (np.bincount(which, minlength=FOLDS * k).reshape(FOLDS, k) for which in (cells, cells[frauds]))
    shares = _shares(counts.sum(axis=0) - counts, counted.sum(axis=0) - counted, column.unseen)
    out: Floats = np.full(len(codes), column.unseen)
    out[kept] = shares.reshape(-1)[cells]
    return out


def _folds(frame: pl.DataFrame, seed: int) -> Array:
    """A fold for each row, int64[n]. A card's payments, or where none is known a day's, lie in one: frauds come in bursts."""
    day = pl.col("timestamp").dt.date().cast(pl.String)
    group = frame.select(pl.coalesce("card", day) if "card" in frame.columns else day).to_series()
    codes = CardCodes().codes(group)  # by first appearance: the same under every card key
    drawn: Array = np.random.default_rng(seed).permutation(int(codes.max()) + 1) % FOLDS
    return drawn[codes]

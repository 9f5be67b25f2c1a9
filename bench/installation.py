"""A home with a champion to measure: simulated payments, and boosted trees as large as the pipeline's larger candidate."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl
import treelite
from sklearn.ensemble import HistGradientBoostingClassifier

from fraud_core.access.api_keys import ApiKeys
from fraud_core.features import catalogue
from fraud_core.features.batch import columns_for, states
from fraud_core.features.encoder import MISSING_CATEGORY, ColumnEncoding, Encoder
from fraud_core.features.windows import Reach
from fraud_core.history.open import open_history
from fraud_core.models.bundle import Fitted, make_bundle, write_bundle
from fraud_core.models.kinds.boosting import BOOSTING
from fraud_core.models.manifest import Calibration, Lineage, Lookback, Thresholds
from fraud_core.models.registry import point_at
from fraud_core.settings import Settings
from fraud_core.signing.card_numbers import hashed_card
from fraud_core.signing.keys import card_key, signing_key
from fraud_core.simulator.simulate import simulate
from fraud_core.sources.source import load_source
from fraud_core.storage.open import open_store

SOURCE = Path(__file__).resolve().parents[1] / "sources" / "simulated.toml"
LARGE = BOOSTING["boosting, large trees"]
MEASURED = 10_000  # payments, the last ones
BUSY = "a merchant of a million payments"


@dataclass(frozen=True)
class Measured:
    """What is measured.

    Attributes:
        settings: of a home with a champion, with limits that do not hold the load tool back.
        token: an API key for everything.
        rows: payments as the API takes them.
        matrix: the same, encoded, of shape (rows, columns).
        estimator: the scikit-learn model behind the bundle.
    """

    settings: Settings
    token: str
    rows: list[dict[str, Any]]
    matrix: npt.NDArray[np.float64]
    estimator: Any


def install(home: Path, *, history: bool = False, redis: str | None = None) -> Measured:
    """Train, promote, and make a key; with history, its store knows what was before the payments that are measured."""
    source = load_source(SOURCE)
    assert source.simulator is not None
    settings = Settings(home=home, api_auth="keys", api_rate=1e6, api_rate_burst=10**6, history=redis)
    begin = datetime(2024, 1, 1, tzinfo=source.zone)
    frame = simulate(source.simulator, begin, datetime(2024, 4, 1, tzinfo=source.zone), source.zone)
    chosen, stated = catalogue.PLAIN, frame
    if history:
        chosen, stated = (
            catalogue.STANDARD.features,
            frame.hstack(states(frame, pl.Series([True] * len(frame)), catalogue.STANDARD_PLAN, source.reach, source.zone)),
        )
        remember(frame.head(len(frame) - MEASURED), settings, source.reach)
    arrays = catalogue.compute(chosen, catalogue.inputs_of(stated, chosen), source.zone)
    encoder = _encoder(chosen, arrays)
    matrix = encoder.matrix(arrays)
    estimator = _fitted(encoder, matrix, frame)
    plain = _encoder(catalogue.PLAIN, arrays)
    fallback = _as_fitted(plain, _fitted(plain, plain.matrix(arrays), frame)) if history else None
    bundle = make_bundle(
        source=source.name,
        timezone=source.timezone,
        feature_version=catalogue.VERSION,
        **dict(_as_fitted(encoder, estimator)),
        lineage=Lineage(training_set="bench", partitions=(), card_key_id="bench", libraries={}),
        lookback=Lookback(history_days=source.history_days, label_delay_days=source.label_delay_days) if history else None,
        fallback=fallback,
    )
    store, key = open_store(settings.store_url, home / "cache"), signing_key(settings)
    write_bundle(store, bundle, key)
    point_at(store, bundle.version, key, how="promotion", who="bench", at=datetime.now(UTC))
    _, token = ApiKeys.of(settings).create("bench", ["score", "admin"])
    return Measured(settings, token, as_sent(frame.tail(MEASURED)), matrix[-MEASURED:], estimator)


def remember(payments: pl.DataFrame, settings: Settings, reach: Reach) -> None:
    """Load the history store, cards hashed as the API hashes them."""
    key = card_key(settings)
    hashes = {card: hashed_card(str(card), key) for card in payments["card"].unique() if card is not None}
    known = payments.with_columns(pl.col("card").cast(pl.String).replace(hashes), pl.col("label").cast(pl.Boolean))
    with closing(open_history(settings, reach)) as store:
        store.load(known.select(name for name in columns_for(catalogue.STANDARD_PLAN) if name in known.columns))


def remember_busy_merchant(settings: Settings, payments: int) -> None:
    """A merchant with so many payments in the thirty days before those that are measured."""
    source = load_source(SOURCE)
    end = datetime(2024, 3, 25, tzinfo=source.zone)
    begin = end - timedelta(days=30)
    at = pl.Series(np.linspace(begin.timestamp() * 1e6, end.timestamp() * 1e6, payments).astype(np.int64))
    frame = pl.DataFrame({"timestamp": at.cast(pl.Datetime("us", "UTC")), "merchant": BUSY}).with_columns(
        pl.format("busy{}", pl.int_range(pl.len())).alias("transaction_id"),
        pl.lit(None, pl.String).alias("card"),
        pl.lit(1_000, pl.Int64).alias("amount_cents"),
        pl.lit(None, pl.String).alias("category"),
        pl.lit(False).alias("label"),
    )
    remember(frame, settings, source.reach)


def _encoder(chosen: Sequence[catalogue.Feature], arrays: Mapping[str, npt.NDArray[Any]]) -> Encoder:
    return Encoder(columns=tuple(_encoding(feature, arrays[feature.name]) for feature in chosen))


def _fitted(encoder: Encoder, matrix: npt.NDArray[np.float64], frame: pl.DataFrame) -> Any:
    model = HistGradientBoostingClassifier(
        learning_rate=LARGE.learning_rate,
        max_iter=LARGE.trees,
        max_leaf_nodes=LARGE.max_leaf_nodes,
        min_samples_leaf=LARGE.min_samples_leaf,
        l2_regularization=LARGE.l2,
        early_stopping=False,
        random_state=20,
    )
    return model.fit(pd.DataFrame(matrix, columns=list(encoder.features)), frame["label"].to_numpy())


def _as_fitted(encoder: Encoder, estimator: Any) -> Fitted:
    return Fitted(
        kind="boosting",
        model=treelite.sklearn.import_model(estimator).serialize_bytes(),
        encoder=encoder,
        calibration=Calibration(slope=1.0, intercept=0.0),
        thresholds=Thresholds(review=0.2, decline=0.8),
    )


def as_sent(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Canonical rows as callers send them."""
    return list(api_frame(frame).drop_nulls().iter_rows(named=True))


def api_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """Canonical rows under the API's names and in its types of JSON."""
    return frame.select(
        "transaction_id",
        pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        (pl.col("amount_cents") / 100).alias("amount"),
        pl.col("card").cast(pl.String),
        "merchant",
        "category",
        pl.col("birth_date").dt.to_string("%Y-%m-%d"),
        "home_latitude",
        "home_longitude",
        "merchant_latitude",
        "merchant_longitude",
        "city_population",
    )


def _encoding(feature: catalogue.Feature, values: npt.NDArray[Any]) -> ColumnEncoding:
    if not feature.is_category:
        return ColumnEncoding(feature=feature.name, missing=float(np.nanmedian(values)))
    names = sorted({str(value) for value in values if value is not None})
    codes = {name: float(at) for at, name in enumerate((MISSING_CATEGORY, *names))}
    return ColumnEncoding(feature=feature.name, categories=codes, unseen=float(len(codes)))

"""A home with a champion to measure: simulated payments, and boosted trees as large as the pipeline's larger candidate."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl
import treelite
from sklearn.ensemble import HistGradientBoostingClassifier

from fraud_core import features
from fraud_core.bundle import Calibration, Lineage, Thresholds, make_bundle, point_at, write_bundle
from fraud_core.encoder import MISSING_CATEGORY, ColumnEncoding, Encoder
from fraud_core.keys import signing_key
from fraud_core.settings import Settings
from fraud_core.simulator import simulate
from fraud_core.sources import load_source
from fraud_core.stores.api_keys import ApiKeys
from fraud_core.stores.objects import open_store

SOURCE = Path(__file__).resolve().parents[1] / "sources" / "simulated.toml"
TREES, LEAVES = 200, 40


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


def install(home: Path) -> Measured:
    """Train, promote, and make a key."""
    source = load_source(SOURCE)
    assert source.simulator is not None
    begin = datetime(2024, 1, 1, tzinfo=source.zone)
    frame = simulate(source.simulator, begin, datetime(2024, 4, 1, tzinfo=source.zone), source.zone)
    arrays = features.compute(features.PLAIN, features.inputs_of(frame, features.PLAIN), source.zone)
    encoder = Encoder(columns=tuple(_encoding(feature, arrays[feature.name]) for feature in features.PLAIN))
    matrix = encoder.matrix(arrays)
    estimator = HistGradientBoostingClassifier(
        learning_rate=0.07, max_iter=TREES, max_leaf_nodes=LEAVES, min_samples_leaf=120, early_stopping=False, random_state=20
    ).fit(pd.DataFrame(matrix, columns=list(encoder.features)), frame["label"].to_numpy())
    bundle = make_bundle(
        source=source.name,
        timezone=source.timezone,
        feature_version=features.VERSION,
        kind="boosting",
        model=treelite.sklearn.import_model(estimator).serialize_bytes(),
        encoder=encoder,
        calibration=Calibration(slope=1.0, intercept=0.0),
        thresholds=Thresholds(review=0.2, decline=0.8),
        lineage=Lineage(training_set="bench", partitions=(), card_key_id="bench", libraries={}),
    )
    settings = Settings(home=home, api_auth="keys", api_rate=1e6, api_rate_burst=10**6)
    store, key = open_store(settings.store_url, home / "cache"), signing_key(settings)
    write_bundle(store, bundle, key)
    point_at(store, bundle.version, key, how="promotion", who="bench", at=datetime.now(UTC))
    _, token = ApiKeys(home / "api_keys.sqlite").create("bench", ["score", "admin"])
    return Measured(settings, token, as_sent(frame.head(10_000)), matrix[:10_000], estimator)


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


def _encoding(feature: features.Feature, values: npt.NDArray[Any]) -> ColumnEncoding:
    if not feature.is_category:
        return ColumnEncoding(feature=feature.name, missing=float(np.nanmedian(values)))
    names = sorted({str(value) for value in values if value is not None})
    codes = {name: float(at) for at, name in enumerate((MISSING_CATEGORY, *names))}
    return ColumnEncoding(feature=feature.name, categories=codes, unseen=float(len(codes)))

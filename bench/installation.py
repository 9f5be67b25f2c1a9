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
from fraud_core.features.feature import Feature
from fraud_core.features.windows import Plan, Reach
from fraud_core.fields.declared import NOTHING, Declared
from fraud_core.fields.derive import derive_columns
from fraud_core.history.open import open_history
from fraud_core.models.bundle import Fitted, make_bundle, write_bundle
from fraud_core.models.kinds.boosting import BOOSTING
from fraud_core.models.manifest import Calibration, Lineage, Lookback, Thresholds
from fraud_core.models.registry import point_at
from fraud_core.settings import Settings
from fraud_core.signing.card_numbers import hashed_card
from fraud_core.signing.keys import Key, card_key, signing_key
from fraud_core.simulator.simulate import simulate
from fraud_core.sources.source import Source, load_source
from fraud_core.storage.open import open_store

SOURCES = Path(__file__).resolve().parents[1] / "sources"
SOURCE, ONLINE = SOURCES / "simulated.toml", SOURCES / "simulated_online.toml"
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
        has_history: whether the model reads the past, and payments are recorded.
    """

    settings: Settings
    token: str
    rows: list[dict[str, Any]]
    matrix: npt.NDArray[np.float64]
    estimator: Any
    has_history: bool


def install(
    home: Path, *, history: bool = False, redis: str | None = None, path: Path = SOURCE, own_windows: bool = True
) -> Measured:
    """Train, promote, and make a key; with history, its store knows what was before the payments that are measured.

    Args:
        home: the installation's.
        history: whether the model reads the past.
        redis: where its history is; None: in SQLite.
        path: of the source, whose payments these are.
        own_windows: whether the windows that the source declares itself are among the features.
    """
    source = load_source(path)
    declared = source.declared if own_windows else source.declared.model_copy(update={"windows": ()})
    settings = Settings(
        home=home, source=path, api_auth="keys", api_rate=1e6, api_rate_burst=10**6, history=redis, history_timeout=10_000
    )
    # More of the online ones would take long to remember, and windows reach back a month at most.
    begin, end = (datetime(2024, month, 1, tzinfo=source.zone) for month in ((1, 4) if path == SOURCE else (2, 4)))
    sent, frame = payments_of(source, declared, begin, end)
    plain = tuple(feature for feature in catalogue.catalogue_of(declared).features if not feature.is_history)
    chosen, stated = plain, frame
    if history:
        chosen = catalogue.catalogue_of(declared).features
        plan = catalogue.plan_of(chosen)
        stated = frame.hstack(states(frame, pl.Series([True] * len(frame)), plan, source.reach, source.zone))
        remember(frame.head(len(frame) - MEASURED), settings, source.reach, plan, declared.personal)
    arrays = catalogue.compute(chosen, catalogue.inputs_of(stated, chosen), source.zone)
    encoder = _encoder(chosen, arrays)
    matrix = encoder.matrix(arrays)
    estimator = _fitted(encoder, matrix, frame)
    without = _encoder(plain, arrays)
    fallback = _as_fitted(without, _fitted(without, without.matrix(arrays), frame)) if history else None
    bundle = make_bundle(
        source=source.name,
        timezone=source.timezone,
        feature_version=catalogue.VERSION,
        **dict(_as_fitted(encoder, estimator)),
        lineage=Lineage(training_set="bench", partitions=(), card_key_id="bench", libraries={}),
        lookback=Lookback(history_days=source.history_days, label_delay_days=source.label_delay_days) if history else None,
        fallback=fallback,
        declared=declared,
    )
    store, key = open_store(settings.store_url, home / "cache"), signing_key(settings)
    write_bundle(store, bundle, key)
    point_at(store, bundle.version, key, how="promotion", who="bench", at=datetime.now(UTC))
    _, token = ApiKeys.of(settings).create("bench", ["score", "admin"])
    return Measured(settings, token, as_sent(sent.tail(MEASURED), declared), matrix[-MEASURED:], estimator, history)


def payments_of(source: Source, declared: Declared, begin: datetime, end: datetime) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The payments that a source simulates in this time: as they are sent, and as raw has them but for the hashes.

    Refunds are left out, and amounts are taken to be in one currency: neither is what is measured.
    """
    assert source.simulator is not None
    sent = simulate(source.simulator, datetime(2024, 1, 1, tzinfo=source.zone), end, source.zone).filter(
        pl.col("amount_cents") > 0
    )
    kept = sent.with_columns(
        pl.col(name).replace_strict(field.flag_texts | {text.upper(): is_so for text, is_so in field.flag_texts.items()})
        for name, field in declared.given.items()
        if field.kind == "flag"
    )
    return sent, derive_columns(declared, kept)


def remember(
    payments: pl.DataFrame,
    settings: Settings,
    reach: Reach,
    plan: Plan = catalogue.STANDARD_PLAN,
    personal: frozenset[str] = frozenset(),
) -> None:
    """Load the history store, cards and other personal ids hashed as the API hashes them."""
    key = card_key(settings)
    hashed = {name for name in ("card", *personal) if name in payments.columns}
    known = payments.with_columns(_hashed(payments[name], key) for name in hashed).with_columns(pl.col("label").cast(pl.Boolean))
    with closing(open_history(settings, reach, plan)) as store:
        store.load(known.select(name for name in columns_for(plan) if name in known.columns))


def _hashed(names: pl.Series, key: Key) -> pl.Series:
    names = names.cast(pl.String)
    hashes = {name: hashed_card(name, key) for name in names.unique() if name is not None}
    return names.replace_strict(hashes, default=None, return_dtype=pl.String)


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


def _encoder(chosen: Sequence[Feature], arrays: Mapping[str, npt.NDArray[Any]]) -> Encoder:
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


def as_sent(frame: pl.DataFrame, declared: Declared = NOTHING) -> list[dict[str, Any]]:
    """Canonical rows as callers send them."""
    rows = api_frame(frame, declared)
    return list(rows.drop_nulls([name for name in rows.columns if name not in declared.given]).iter_rows(named=True))


def api_frame(frame: pl.DataFrame, declared: Declared = NOTHING) -> pl.DataFrame:
    """Canonical rows under the API's names and in its types of JSON."""
    written = "%Y-%m-%dT%H:%M:%SZ"
    return frame.select(
        "transaction_id",
        pl.col("timestamp").dt.strftime(written),
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
        *(pl.col(name).dt.strftime(written) if one.kind == "time" else pl.col(name) for name, one in declared.given.items()),
    )


def _encoding(feature: Feature, values: npt.NDArray[Any]) -> ColumnEncoding:
    if not feature.is_category:
        return ColumnEncoding(feature=feature.name, missing=float(np.nanmedian(values)))
    names = sorted({str(value) for value in values if value is not None})
    codes = {name: float(at) for at, name in enumerate((MISSING_CATEGORY, *names))}
    return ColumnEncoding(feature=feature.name, categories=codes, unseen=float(len(codes)))

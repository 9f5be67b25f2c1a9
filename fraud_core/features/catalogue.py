"""Feature catalogue: one definition for training and serving.

Every feature is computed by the same NumPy code for a column of a million rows and for one row, and lies on a stated grid
(whole metres, whole years, logarithms to 1e-9), so that "equal" can mean bit-equal. Missing values are NaN (None in `category`).
"""

import hashlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pydantic_core

from fraud_core.features import measures
from fraud_core.features.windows import CARD_WINDOWS, MERCHANT_WINDOWS, RECENT_WINDOWS
from fraud_core.units.arrays import Array
from fraud_core.units.geography import whole_metres
from fraud_core.units.time import DAY_US, day_number, hour_of_day, is_night, local_us

Inputs = Mapping[str, Array]
Drift = Literal["blocks", "reported", "left_out"]

LOG_GRID = 1e9
VERSION = 3  # raised whenever a definition changes: transformed partitions of another version are made anew


@dataclass(frozen=True)
class Feature:
    """One feature.

    Attributes:
        name: column in transformed and input of the model.
        kind: what it speaks of.
        needs: canonical columns it is made of; a source without them does without the feature.
        unit: for people.
        dtype: how it is stored.
        drift: whether the gate blocks on it. Calendar features and the twin of another (night of hour) are left out.
        compute: canonical arrays of equal length -> array of float64 (object for a category).
        state: what it takes of the past (see `history.windows.STATE`).
        window_us: how long the window is that it speaks of; 0 for none, or for whatever the source's history holds.
    """

    name: str
    kind: Literal["amount", "calendar", "person", "place", "category", "card", "merchant"]
    needs: frozenset[str]
    unit: str
    dtype: pl.DataType
    drift: Drift
    compute: Callable[[Inputs], Array]
    state: frozenset[str] = frozenset()
    window_us: int = 0

    @property
    def is_history(self) -> bool:
        """Whether it speaks of what card or merchant did before."""
        return bool(self.state)

    @property
    def is_category(self) -> bool:
        """Whether values are names, which the preprocessor encodes as numbers."""
        return self.kind == "category"


def _log_amount(inputs: Inputs) -> Array:
    amount: Array = inputs["amount_cents"] / 100.0
    gridded: Array = np.round(np.log1p(amount) * LOG_GRID) / LOG_GRID
    return gridded


def _hour(inputs: Inputs) -> Array:
    return hour_of_day(inputs["local_us"]).astype(np.float64)


def _weekday(inputs: Inputs) -> Array:
    return ((day_number(inputs["local_us"]) + 3) % 7).astype(np.float64)  # 1970-01-01 was a Thursday


def _night(inputs: Inputs) -> Array:
    return is_night(inputs["local_us"]).astype(np.float64)


def _age(inputs: Inputs) -> Array:
    """Completed years between the birth date and the local day of the transaction."""
    birth = inputs["birth_date"].astype("datetime64[D]")
    today = day_number(inputs["local_us"]).astype("datetime64[D]")
    age = np.floor_divide(_yyyymmdd(today) - _yyyymmdd(birth), 10_000).astype(np.float64)
    return np.where(np.isnat(birth), np.nan, age)


def _distance(inputs: Inputs) -> Array:
    """From home to merchant."""
    places = ("home_latitude", "home_longitude", "merchant_latitude", "merchant_longitude")
    return whole_metres(*(inputs[name] for name in places))


def _city_population(inputs: Inputs) -> Array:
    return inputs["city_population"].astype(np.float64)


def _category(inputs: Inputs) -> Array:
    return inputs["category"]


_WHOLE, _REAL = pl.Int64(), pl.Float64()
_PLACES = frozenset({"home_latitude", "home_longitude", "merchant_latitude", "merchant_longitude"})

PLAIN: tuple[Feature, ...] = (
    Feature("log_amount", "amount", frozenset({"amount_cents"}), "log(1 + currency units)", _REAL, "blocks", _log_amount),
    Feature("hour", "calendar", frozenset({"timestamp"}), "hour of the source's local day", _WHOLE, "blocks", _hour),
    Feature("weekday", "calendar", frozenset({"timestamp"}), "0 = Monday, local", _WHOLE, "left_out", _weekday),
    Feature("night", "calendar", frozenset({"timestamp"}), "1 from 22:00 to 06:00, local", _WHOLE, "left_out", _night),
    Feature("age", "person", frozenset({"timestamp", "birth_date"}), "completed years", _WHOLE, "blocks", _age),
    Feature("distance", "place", _PLACES, "metres from home to merchant", _WHOLE, "blocks", _distance),
    Feature("city_population", "place", frozenset({"city_population"}), "inhabitants", _WHOLE, "blocks", _city_population),
    Feature("category", "category", frozenset({"category"}), "merchant category", pl.String(), "blocks", _category),
)


def _card_features() -> Iterator[Feature]:
    card, shop = frozenset({"card"}), frozenset({"card", "merchant"})
    place = frozenset({"card", "merchant_latitude", "merchant_longitude"})

    def card_feature(
        name: str, needs: frozenset[str], unit: str, dtype: pl.DataType, compute: measures.Measure, *state: str, window: int = 0
    ) -> Feature:
        drift: Drift = "blocks" if name == "amount_over_mean" else "reported"  # the others follow seasons and customers' number
        return Feature(name, "card", needs, unit, dtype, drift, compute, frozenset(state), window)

    for window, span in CARD_WINDOWS.items():
        number, cents = f"card_count_{window}", f"card_cents_{window}"
        yield card_feature(number, card, f"payments of the card in {window}", _WHOLE, measures.count(number), number, window=span)
        spent = f"currency units that the card paid in {window}"
        yield card_feature(f"card_sum_{window}", card, spent, _REAL, measures.total(cents), cents, window=span)
        average = measures.mean(cents, number)
        unit = f"currency units a payment of the card in {window}"
        yield card_feature(f"card_mean_{window}", card, unit, _REAL, average, cents, number, window=span)
    for window in RECENT_WINDOWS:
        cents, nights, span = f"card_greatest_cents_{window}", f"card_nights_{window}", CARD_WINDOWS[window]
        unit = f"currency units of the card's greatest payment in {window}"
        yield card_feature(f"card_max_{window}", card, unit, _REAL, measures.total(cents), cents, window=span)
        unit = f"payments of the card at night in {window}"
        yield card_feature(f"card_nights_{window}", card, unit, _WHOLE, measures.count(nights), nights, window=span)
    month = CARD_WINDOWS["30d"]
    over = ("card_cents_30d", "card_count_30d")
    times = "times the card's mean of 30d"
    yield card_feature("amount_over_mean", card, times, _REAL, measures.amount_over_mean, *over, window=month)
    last = measures.seconds_since_last
    yield card_feature("seconds_since_last", card, "seconds since the card's last payment", _REAL, last, "card_last_us")
    where = ("card_last_latitude", "card_last_longitude")
    far = measures.distance_from_last
    yield card_feature("distance_from_last", place, "metres from the card's last merchant", _WHOLE, far, *where)
    fast = measures.speed_from_last
    yield card_feature("speed_from_last", place, "metres a second from the card's last", _REAL, fast, *where, "card_last_us")
    day = CARD_WINDOWS["1d"]
    shops, kinds = measures.count("card_merchants"), measures.count("card_categories")
    yield card_feature("card_merchants_1d", shop, "merchants of the card in 1d", _WHOLE, shops, "card_merchants", window=day)
    kind = frozenset({"card", "category"})
    yield card_feature("card_categories_1d", kind, "categories of the card in 1d", _WHOLE, kinds, "card_categories", window=day)
    yield card_feature("merchant_new", shop, "1: new to the card", _WHOLE, measures.unseen("merchant_seen"), "merchant_seen")
    yield card_feature("category_new", kind, "1: new to the card", _WHOLE, measures.unseen("category_seen"), "category_seen")


def _merchant_features() -> Iterator[Feature]:
    needs = frozenset({"merchant"})
    for window, span in MERCHANT_WINDOWS.items():
        name, unit = f"merchant_count_{window}", f"payments of the merchant in {window}"
        number = measures.count(name)
        yield Feature(name, "merchant", needs, unit, _WHOLE, "reported", number, frozenset({name}), span)
    for window, span in MERCHANT_WINDOWS.items():
        state = (f"merchant_frauds_{window}", f"merchant_judged_{window}")
        name, unit = f"merchant_fraud_rate_{window}", f"share of frauds at the merchant in {window}"
        yield Feature(name, "merchant", needs, unit, _REAL, "reported", measures.rate(*state), frozenset(state), span)


HISTORY: tuple[Feature, ...] = (*_card_features(), *_merchant_features())
FEATURES = (*PLAIN, *HISTORY)
BY_NAME = {feature.name: feature for feature in FEATURES}
ONLY_COUNTED = frozenset({"card", "merchant"})  # columns that features know by what was counted for them


def available(columns: Collection[str], excluded: Collection[str] = (), history_days: int | None = None) -> tuple[Feature, ...]:
    """The features that can be made of these canonical columns, in canonical order, less the excluded ones.

    Args:
        columns: the canonical columns that a source has.
        excluded: names of features that it must do without.
        history_days: how far back features may look; longer windows are left out. None: no history.
    """
    known = PLAIN if history_days is None else tuple(f for f in FEATURES if f.window_us <= history_days * DAY_US)
    return tuple(f for f in known if f.needs <= set(columns) and f.name not in excluded)


def compute(features: Collection[Feature], inputs: Inputs, zone: ZoneInfo) -> dict[str, Array]:
    """Compute features.

    Args:
        features: which.
        inputs: canonical columns as arrays of one length n: `timestamp` int64 microseconds since 1970 UTC, `amount_cents`
            int64, `birth_date` datetime64[D] (NaT: missing), coordinates and `city_population` float64 (NaN: missing),
            `category` object (None: missing); and for features of the past what they take of `history.windows.STATE`,
            float64 (NaN: missing).
        zone: the source's time zone; hour, weekday, night and age are local.

    Returns:
        name -> array of n: float64 on the feature's grid (NaN: missing), or object for a category.
    """
    extended = {**inputs, "local_us": local_us(inputs["timestamp"], zone)}
    return {feature.name: feature.compute(extended) for feature in features}


def inputs_of(frame: pl.DataFrame, features: Collection[Feature]) -> dict[str, Array]:
    """The arrays `compute` needs, out of a frame of canonical columns."""
    needed = {"timestamp"}.union(*((feature.needs - ONLY_COUNTED) | feature.state for feature in features))
    converted: dict[str, Array] = {}
    for name in needed:
        column = frame[name]
        match name:
            case "timestamp":
                converted[name] = column.dt.epoch("us").to_numpy()
            case "birth_date":
                converted[name] = column.to_numpy().astype("datetime64[D]")
            case "category":
                converted[name] = column.to_numpy().astype(object)
            case "amount_cents":
                converted[name] = column.to_numpy()
            case _:
                converted[name] = column.cast(pl.Float64).to_numpy()
    return converted


def feature_frame(frame: pl.DataFrame, features: Collection[Feature], zone: ZoneInfo) -> pl.DataFrame:
    """Features of a frame of canonical columns, as a frame of the stored types (n rows, null: missing)."""
    arrays = compute(features, inputs_of(frame, features), zone)
    columns = []
    for feature in features:
        series = pl.Series(feature.name, arrays[feature.name], dtype=pl.String if feature.is_category else pl.Float64)
        columns.append(series if feature.is_category else series.fill_nan(None).cast(feature.dtype))
    return pl.DataFrame(columns)


def plain(arrays: Inputs) -> list[dict[str, float | str | None]]:
    """The features of n rows, a dictionary each, as JSON holds them (None: missing)."""
    columns = [_nullable(array) for array in arrays.values()]
    return [dict(zip(arrays, row, strict=True)) for row in zip(*columns, strict=True)]


def _nullable(array: Array) -> list[float | str | None]:
    values: list[float | str | None] = array.tolist()
    if array.dtype == object or not np.isnan(array).any():
        return values
    return [None if isinstance(value, float) and math.isnan(value) else value for value in values]


def digest(values: Mapping[str, float | str | None]) -> str:
    """SHA-256 of a row's features, in hex: of the same bits the same."""
    return hashlib.sha256(pydantic_core.to_json(values)).hexdigest()


def _yyyymmdd(days: Array) -> Array:
    months = days.astype("datetime64[M]")
    year, month = months.astype("datetime64[Y]"), months.astype(np.int64)
    day = (days - months).astype(np.int64) + 1
    number: Array = (year.astype(np.int64) + 1970) * 10_000 + (month % 12 + 1) * 100 + day
    return number

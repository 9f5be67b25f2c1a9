"""Feature catalogue: one definition for training and serving, of the standard fields and windows and of those a source declares.

Every feature is computed by the same NumPy code for a column of a million rows and for one row, and lies on a stated grid
(whole metres, whole years, logarithms to 1e-9), so that "equal" can mean bit-equal. Missing values are NaN (None in `category`).
"""

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pydantic_core

from fraud_core.features.feature import Feature, Inputs, Kind
from fraud_core.features.past import window_features
from fraud_core.features.windows import Plan
from fraud_core.features.wording import WORDINGS, OwnWording
from fraud_core.fields.declaration import FieldDeclaration
from fraud_core.fields.declared import NOTHING, Declared
from fraud_core.units.arrays import Array
from fraud_core.units.geography import whole_metres
from fraud_core.units.time import DAY_US, day_number, hour_of_day, is_night, local_us

LOG_GRID = 1e9
VERSION = 3  # raised whenever a definition changes: transformed partitions of another version are made anew


def _log_amount(inputs: Inputs) -> Array:
    amount: Array = inputs["amount_cents"] / 100.0
    gridded: Array = (
        np.round(np.copysign(np.log1p(np.abs(amount)), amount) * LOG_GRID) / LOG_GRID
    )  # a source may keep negative ones
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

PLAIN: tuple[Feature, ...] = tuple(
    Feature(name, kind, frozenset(needs), unit, dtype, drift, compute, WORDINGS[name])  # type: ignore[arg-type]
    for name, kind, needs, unit, dtype, drift, compute in (
        ("log_amount", "amount", {"amount_cents"}, "log(1 + currency units)", _REAL, "blocks", _log_amount),
        ("hour", "calendar", {"timestamp"}, "hour of the source's local day", _WHOLE, "blocks", _hour),
        ("weekday", "calendar", {"timestamp"}, "0 = Monday, local", _WHOLE, "left_out", _weekday),
        ("night", "calendar", {"timestamp"}, "1 from 22:00 to 06:00, local", _WHOLE, "left_out", _night),
        ("age", "person", {"timestamp", "birth_date"}, "completed years", _WHOLE, "blocks", _age),
        ("distance", "place", _PLACES, "metres from home to merchant", _WHOLE, "blocks", _distance),
        ("city_population", "place", {"city_population"}, "inhabitants", _WHOLE, "blocks", _city_population),
        ("category", "category", {"category"}, "merchant category", pl.String(), "blocks", _category),
    )
)


@dataclass(frozen=True)
class Catalogue:
    """The features that can be made of what is declared, in canonical order: of the payment itself, then of the past."""

    features: tuple[Feature, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Feature]:
        """The features by their names."""
        return {feature.name: feature for feature in self.features}

    def available(
        self, columns: Collection[str], excluded: Collection[str] = (), history_days: int | None = None
    ) -> tuple[Feature, ...]:
        """The features that can be made of these columns of raw, in canonical order, less the excluded ones.

        Args:
            columns: those that a source has.
            excluded: names of features that it must do without.
            history_days: how far back features may look; longer windows are left out. None: no history.
        """
        present = set(columns)
        return tuple(
            feature
            for feature in self.features
            if feature.needs <= present
            and feature.name not in excluded
            and not (feature.is_history and (history_days is None or feature.window_us > history_days * DAY_US))
        )


@lru_cache(maxsize=64)
def _catalogue_of(declaration: str) -> Catalogue:
    declared = Declared.model_validate_json(declaration)
    standard = tuple(_overridden(feature, declared) for feature in PLAIN)
    own = tuple(_own_feature(name, field) for name, field in declared.own.items() if field.is_learned)
    unlearned = {name for name, field in declared.fields.items() if not field.learns}
    kept = tuple(feature for feature in standard if not feature.needs & unlearned)
    return Catalogue((*kept, *own, *window_features(declared)))


def catalogue_of(declared: Declared) -> Catalogue:
    """The catalogue of what a source or a bundle declares."""
    return STANDARD if declared is NOTHING else _catalogue_of(declared.model_dump_json())


def plan_of(features: Collection[Feature]) -> Plan:
    """What these features need of the past."""
    return Plan.of(tally for feature in features for tally in feature.tallies)


def _overridden(feature: Feature, declared: Declared) -> Feature:
    """The feature as the source wants it judged: by what it declares of the one field that the feature is made of."""
    told = [field for name in feature.needs if (field := declared.overridden(name)) is not None]
    given = [field.drift for field in told if "drift" in field.model_fields_set]
    return feature.with_drift(given[0]) if given and len(feature.needs) == 1 else feature


def _own_feature(name: str, field: FieldDeclaration) -> Feature:
    assert field.kind in {"number", "flag", "category"}
    kind: Kind = field.kind
    dtype = {"number": _REAL, "flag": _WHOLE}.get(field.kind, pl.String())
    unit = field.unit or {"number": "as given", "flag": "1: true, 0: false"}.get(field.kind, "name")
    wording = OwnWording(name, field).wording
    return Feature(name, kind, frozenset({name}), unit, dtype, field.drift, lambda inputs: inputs[name], wording)


def compute(features: Collection[Feature], inputs: Inputs, zone: ZoneInfo) -> dict[str, Array]:
    """Compute features.

    Args:
        features: which.
        inputs: canonical columns as arrays of one length n: `timestamp` int64 microseconds since 1970 UTC, `amount_cents`
            int64, `birth_date` datetime64[D] (NaT: missing), coordinates and `city_population` float64 (NaN: missing),
            own numbers and flags likewise, `category` and own categories object (None: missing); and for features of the past
            their tallies by name, float64 (NaN: missing).
        zone: the source's time zone; hour, weekday, night and age are local.

    Returns:
        name -> array of n: float64 on the feature's grid (NaN: missing), or object for a category.
    """
    return dict(_computed(features, inputs, zone))


def _computed(features: Collection[Feature], inputs: Inputs, zone: ZoneInfo) -> Iterator[tuple[str, Array]]:
    extended = {**inputs, "local_us": local_us(inputs["timestamp"], zone)}
    for feature in features:
        yield feature.name, feature.compute(extended)


def inputs_of(frame: pl.DataFrame, features: Collection[Feature]) -> dict[str, Array]:
    """The arrays `compute` needs, out of a frame of canonical columns."""
    needed = {"timestamp"}.union(*(feature.inputs for feature in features))
    converted: dict[str, Array] = {}
    for name in needed:
        column = frame[name]
        match name:
            case "timestamp":
                converted[name] = column.dt.epoch("us").to_numpy()
            case "birth_date":
                converted[name] = column.to_numpy().astype("datetime64[D]")
            case _ if column.dtype == pl.String:
                converted[name] = column.to_numpy().astype(object)
            case "amount_cents":
                converted[name] = column.to_numpy()
            case _:
                converted[name] = column.cast(pl.Float64).to_numpy()
    return converted


def feature_frame(frame: pl.DataFrame, features: Collection[Feature], zone: ZoneInfo) -> pl.DataFrame:
    """Features of a frame of canonical columns, as a frame of the stored types (n rows, null: missing)."""
    computed = zip(features, _computed(features, inputs_of(frame, features), zone), strict=True)
    return pl.DataFrame([_stored(feature, array) for feature, (_, array) in computed])  # each array goes when it is stored


def _stored(feature: Feature, array: Array) -> pl.Series:
    if feature.is_category:  # as a list: an array of objects that begins with None is no text to Polars
        return pl.Series(feature.name, array.tolist(), dtype=pl.String)
    return pl.Series(feature.name, array, dtype=pl.Float64).fill_nan(None).cast(feature.dtype)


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


STANDARD = Catalogue((*PLAIN, *window_features(NOTHING)))
STANDARD_PLAN = plan_of(STANDARD.features)

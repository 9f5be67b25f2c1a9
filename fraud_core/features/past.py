"""Features of the past out of declared windows: one a measure and span, each with its tallies, its unit and its words."""

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

import polars as pl

from fraud_core.features import measures
from fraud_core.features.feature import Feature
from fraud_core.features.windows import Kind, Tally, Where, units_of
from fraud_core.features.wording import WindowWording
from fraud_core.fields.declaration import Measure, WindowDeclaration, span_us
from fraud_core.fields.declared import ALIASES, NIGHT, REFUND, Declared

_WHOLE, _REAL = pl.Int64(), pl.Float64()
_OVER = frozenset({"sum", "mean", "max", "min", "std", "distinct", "share"})
_MERCHANTS_PLACE = ("merchant_latitude", "merchant_longitude")


class _Made(NamedTuple):
    """How a measure becomes a number.

    Attributes:
        tallies: what it takes of the past.
        compute: out of them.
        dtype: of the number.
        reads: columns of the payment itself that it takes, too.
    """

    tallies: tuple[Tally, ...]
    compute: measures.Compute
    dtype: pl.DataType = _REAL
    reads: frozenset[str] = frozenset()


def window_features(declared: Declared) -> tuple[Feature, ...]:
    """The features of all windows that a source has, in the order of their declaration, spans before measures."""
    return tuple(feature for window in declared.all_windows for feature in _features(window, declared))


def _features(window: WindowDeclaration, declared: Declared) -> Iterator[Feature]:
    of = tuple(ALIASES.get(name, name) for name in window.of)
    over = None if window.over is None else ALIASES.get(window.over, window.over)
    where = tuple(sorted((ALIASES.get(name, name), values) for name, values in window.where.items()))
    for span in window.spans or ("",):
        for measure in window.measure:
            made = _MAKE[measure](_Tallies(of, over, span_us(span), where, window.newest), window)
            measured = over if measure in _OVER else None
            told = WindowWording(window, measure, span, declared)
            name = feature_name(window, measure, span)
            asked = {*of, *(() if measured is None else (measured,)), *(field for field, _ in where), *_places(measure)}
            needs = frozenset(asked - {"amount_cents", NIGHT, REFUND})
            drift = window.drift
            longest = max((tally.span_us for tally in made.tallies), default=0)
            yield Feature(
                name,
                "past",
                needs,
                told.unit,
                made.dtype,
                drift,
                made.compute,
                told.wording(name),
                made.tallies,
                longest,
                made.reads,
            )


def feature_name(window: WindowDeclaration, measure: Measure, span: str) -> str:
    """What the feature of a window is called."""
    if window.name:
        return window.name.replace("{measure}", measure).replace("{span}", span)
    over = [window.over] if window.over is not None and measure in _OVER else []
    where = [f"{field}_{'_'.join(values)}" for field, values in sorted(window.where.items())]
    parts = [*window.of, measure, *over, *where, *([span] if span else [])]
    return "".join(mark if mark.isalnum() and mark.isascii() else "_" for mark in "_".join(parts))


def _places(measure: Measure) -> tuple[str, ...]:
    return _MERCHANTS_PLACE if measure in {"distance_from_last", "speed_from_last"} else ()


class _Tallies(NamedTuple):
    """The tallies that a window is made of, in one span.

    Attributes:
        of: the entity, or the pair.
        over: the field that is measured.
        span_us: how far back.
        where: which payments count.
        newest: how many of the newest.
    """

    of: tuple[str, ...]
    over: str | None
    span_us: int
    where: Where
    newest: int | None

    def take(self, kind: Kind, over: str | None = None, extra: Where = ()) -> Tally:
        """One of them."""
        return Tally(kind, self.of, over, self.span_us, tuple(sorted((*self.where, *extra))), self.newest)

    @property
    def number(self) -> Tally:
        """How many payments have what is measured; every payment has an amount."""
        return self.take("count", None if self.over == "amount_cents" else self.over)

    @property
    def scale(self) -> float:
        """How many whole units one is."""
        return float(units_of(str(self.over)))


def _count(taken: _Tallies, _: WindowDeclaration) -> _Made:
    number = taken.take("count")
    return _Made((number,), measures.count(number.name), _WHOLE)


def _sum(taken: _Tallies, _: WindowDeclaration) -> _Made:
    units = taken.take("sum", taken.over)
    return _Made((units,), measures.total(units.name, taken.scale))


def _mean(taken: _Tallies, _: WindowDeclaration) -> _Made:
    units, number = taken.take("sum", taken.over), taken.number
    return _Made((units, number), measures.mean(units.name, number.name, taken.scale))


def _std(taken: _Tallies, _: WindowDeclaration) -> _Made:
    spread, number = taken.take("spread", taken.over), taken.number
    return _Made((spread, number), measures.deviation(spread.name, number.name, taken.scale))


def _extreme(kind: Literal["max", "min"]) -> "_Make":
    def make(taken: _Tallies, window: WindowDeclaration) -> _Made:
        units = taken.take(kind, taken.over)
        return _Made((units,), measures.extreme(units.name, taken.scale, window.nothing))

    return make


def _distinct(taken: _Tallies, _: WindowDeclaration) -> _Made:
    different = taken.take("distinct", taken.over)
    return _Made((different,), measures.count(different.name), _WHOLE)


def _share(taken: _Tallies, _: WindowDeclaration) -> _Made:
    true, known = taken.take("count", None, ((str(taken.over), ("true",)),)), taken.take("count", taken.over)
    return _Made((true, known), measures.rate(true.name, known.name))


def _seconds(kind: Literal["last", "first"]) -> "_Make":
    def make(taken: _Tallies, _: WindowDeclaration) -> _Made:
        moment = taken.take(kind, "timestamp")
        return _Made((moment,), measures.seconds_since(moment.name), reads=frozenset({"timestamp"}))

    return make


def _seen(taken: _Tallies, _: WindowDeclaration) -> _Made:
    seen = taken.take("seen")
    return _Made((seen,), measures.count(seen.name), _WHOLE)


def _new(taken: _Tallies, _: WindowDeclaration) -> _Made:
    seen = taken.take("seen")
    return _Made((seen,), measures.unseen(seen.name), _WHOLE)


def _amount_over_mean(taken: _Tallies, _: WindowDeclaration) -> _Made:
    units, number = taken.take("sum", "amount_cents"), taken.take("count")
    return _Made((units, number), measures.amount_over_mean(units.name, number.name), reads=frozenset({"amount_cents"}))


def _distance_from_last(taken: _Tallies, _: WindowDeclaration) -> _Made:
    latitude, longitude = place = tuple(taken.take("last", name) for name in _MERCHANTS_PLACE)
    return _Made(place, measures.distance_from(latitude.name, longitude.name), _WHOLE, frozenset(_MERCHANTS_PLACE))


def _speed_from_last(taken: _Tallies, _: WindowDeclaration) -> _Made:
    latitude, longitude = place = tuple(taken.take("last", name) for name in _MERCHANTS_PLACE)
    moment = taken.take("last", "timestamp")
    compute = measures.speed_from(latitude.name, longitude.name, moment.name)
    return _Made((*place, moment), compute, _REAL, frozenset({*_MERCHANTS_PLACE, "timestamp"}))


def _in_hours(kind: Literal["hourly", "frauds"]) -> "_Make":
    def make(taken: _Tallies, _: WindowDeclaration) -> _Made:
        number = taken.take(kind)
        return _Made((number,), measures.count(number.name), _WHOLE)

    return make


def _fraud_rate(taken: _Tallies, _: WindowDeclaration) -> _Made:
    frauds, judged = taken.take("frauds"), taken.take("judged")
    return _Made((frauds, judged), measures.rate(frauds.name, judged.name))


_Make = Callable[[_Tallies, WindowDeclaration], _Made]
_MAKE: Mapping[Measure, _Make] = {
    "count": _count,
    "sum": _sum,
    "mean": _mean,
    "max": _extreme("max"),
    "min": _extreme("min"),
    "std": _std,
    "distinct": _distinct,
    "share": _share,
    "seconds_since_last": _seconds("last"),
    "seconds_since_first": _seconds("first"),
    "seen_before": _seen,
    "new": _new,
    "amount_over_mean": _amount_over_mean,
    "distance_from_last": _distance_from_last,
    "speed_from_last": _speed_from_last,
    "hourly_count": _in_hours("hourly"),
    "fraud_count": _in_hours("frauds"),
    "fraud_rate": _fraud_rate,
}

"""Window counts for columns of payments (batch engine): from a partition's own rows and those that it looks back into.

Windows are pairs of places in the payments sorted by entity and time, found by binary search; sums are differences of running
sums of whole numbers. A payment that counts in a contiguous run of windows is added at its first and taken off after its last.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import polars as pl

from fraud_core.features.windows import MOST_UNITS, Plan, Reach, Sight, Tally, units_of
from fraud_core.fields.declared import NIGHT, REFUND
from fraud_core.units.arrays import Floats, Integers
from fraud_core.units.time import HOUR_US, is_night, local_us

CORRECTIONS = {
    "entity": pl.String(),
    "name": pl.String(),
    "hour": pl.Int64(),
    "known": pl.Int64(),
    "frauds": pl.Int64(),
    "dropped": pl.Int64(),
}


def columns_for(plan: Plan) -> tuple[str, ...]:
    """The columns of raw that tallies are made of, where the source has them."""
    return tuple(dict.fromkeys(("transaction_id", "timestamp", "label", REFUND, *plan.entities, *plan.columns)))


def states(
    payments: pl.DataFrame,
    wanted: pl.Series,
    plan: Plan,
    reach: Reach,
    zone: ZoneInfo,
    corrections: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """What was tallied before each wanted payment.

    Args:
        payments: those of `columns_for` that the source has, one row a payment, in any order; of the wanted ones and all within
            reach before them. Who has a null entity has no history of it.
        wanted: bool, which of the payments are asked about; no refund is.
        plan: what is tallied.
        reach: how far back anything counts.
        zone: the source's, which says what is night.
        corrections: see `CORRECTIONS`; what labels changed in an hour of an entity since the hour `known`: frauds and dropped
            payments, added to those of `label`.

    Returns:
        Float64 columns `plan.names` (NaN: missing), a row a wanted payment, in their order.
    """
    if REFUND in payments.columns and REFUND not in plan.own:  # as stores leave them out where no window asks for them
        counts = ~payments[REFUND].fill_null(value=False)
        payments, wanted = payments.filter(counts), wanted.filter(counts)
    asked = wanted.to_numpy()
    result = {name: np.full(int(asked.sum()), np.nan) for name in plan.names}
    answers = np.where(asked, np.cumsum(asked) - 1, -1)  # of each wanted payment's row among the answers
    order = payments.select(pl.arg_sort_by("timestamp", "transaction_id")).to_series()
    known = _Payments(payments.drop("transaction_id")[order], answers[order.to_numpy()], zone)
    for entity, sights in plan.sights.items():
        if entity in payments.columns:
            _event_tallies(known, entity, sights, reach, result)
    del known, order  # sorted copies of all columns
    whole = [name for name in ("label", REFUND, *plan.hours) if name in payments.columns]
    numbered = payments.select(
        pl.col("timestamp").dt.epoch("us"), *whole, pl.Series("asked", asked), pl.Series("answer", answers)
    )
    for entity in plan.hours:
        if entity in payments.columns:
            tallies = [tally for tally in plan.tallies if tally.in_hours and tally.of[0] == entity]
            mine = numbered.filter(pl.col(entity).is_not_null())
            told = None if corrections is None else corrections.filter(pl.col("entity") == entity)
            _hour_tallies(mine, entity, tallies, reach, told, result)
    # One after the other, so that no more than one of them is there twice.
    return pl.DataFrame([pl.Series(name, result.pop(name)) for name in plan.names])


class _Payments:
    """All payments in order of time, those of equal time in order of their ids; what windows look at as arrays, made once.

    Args:
        frame: of them.
        answers: the row of each among the answers; -1: it is not asked about.
        zone: says what is night.
    """

    def __init__(self, frame: pl.DataFrame, answers: Integers, zone: ZoneInfo) -> None:
        self._frame, self.answers, self._zone = frame, answers, zone
        self.times = frame["timestamp"].dt.epoch("us").to_numpy()
        self._codes: dict[str, npt.NDArray[np.int32]] = {}

    def codes(self, name: str) -> npt.NDArray[np.int32]:
        """Of each payment's value, a whole number from 0 that no other value has; -1: there is none."""
        if name not in self._codes:
            column = self.column(name)
            values = pl.Series(self.numbers(name)).fill_nan(None) if column.dtype.is_float() else column
            self._codes[name] = _codes(values).astype(np.int32)
        return self._codes[name]

    def column(self, name: str) -> pl.Series:
        """The values; nothing but nulls where the source has no such column."""
        if name not in self._frame.columns:
            return pl.repeat(None, len(self._frame), dtype=pl.Float64, eager=True)
        return self._frame[name]

    def numbers(self, name: str) -> Floats:
        """The values as numbers; NaN: missing. Minus zero, which not every store keeps, is zero."""
        if name == "timestamp":
            return self.times.astype(np.float64)
        found: Floats = self.column(name).cast(pl.Float64).fill_null(np.nan).to_numpy() + 0.0
        return found

    def units(self, name: str) -> tuple[Integers, npt.NDArray[np.bool_]]:
        """Whole units of each payment, 0 where there are none; and whether there are."""
        column = self.column(name)
        if column.dtype.is_integer():
            return column.fill_null(0).cast(pl.Int64).to_numpy(), column.is_not_null().to_numpy()
        units = np.rint(self.numbers(name) * units_of(name))
        known = np.abs(units) < MOST_UNITS
        return np.where(known, units, 0.0).astype(np.int64), known

    def fitting(self, sight: Sight) -> npt.NDArray[np.bool_] | None:
        """Which payments the sight looks at; None: all of them."""
        found: list[npt.NDArray[np.bool_]] = []
        if REFUND in self._frame.columns and not sight.wants_refunds:
            found.append(~self._frame[REFUND].fill_null(value=False).to_numpy())
        for field, values in sight.where:
            if field == NIGHT:
                found.append(is_night(local_us(self.times, self._zone)) == ("true" in values))
            elif field not in self._frame.columns:
                found.append(np.zeros(len(self.times), dtype=bool))
            else:
                column = self._frame[field]
                texts = column.cast(pl.String) if column.dtype == pl.Boolean else column
                found.append(texts.is_in(list(values)).fill_null(value=False).to_numpy())
        return np.logical_and.reduce(found) if found else None


class _Entity(NamedTuple):
    """The payments of an entity, sorted by its codes and time.

    Attributes:
        places: among all payments.
        codes: of the entities.
        groups: of codes and times.
    """

    places: Integers
    codes: Integers
    groups: "_Groups"


def _event_tallies(payments: _Payments, entity: str, sights: Iterable[Sight], reach: Reach, result: dict[str, Floats]) -> None:
    codes = payments.codes(entity)
    places = np.argsort(codes, kind="stable")
    places = places[np.searchsorted(codes[places], 0) :]
    if not len(places):
        return
    mine = _Entity(places, codes[places].astype(np.int64), _Groups(codes[places].astype(np.int64), payments.times[places]))
    since: dict[int, Integers] = {}
    for sight in sights:
        newest = reach.newest_of(entity, sight.newest)
        if newest not in since:
            since[newest] = _since(mine.groups, payments.times[places], reach, newest)
        _Look.at(payments, mine, sight, since[newest]).tally(sight, result)


def _since(groups: "_Groups", times: Integers, reach: Reach, newest: int) -> Integers:
    """For each payment the instant from which on the entity's payments before it count."""
    since: Integers = times - reach.history_us
    end = groups.first_from(times)
    busy = np.flatnonzero(end - groups.first_from(since) > newest)
    since[busy] = times[end[busy] - newest - 1] + 1
    return since


class _Look:
    """A look at some payments of entities, for the wanted ones.

    Args:
        payments: all of them.
        places: among them, of those that are looked at, sorted by group and time.
        groups: of them.
        codes: the groups of the wanted payments, which never decrease.
        times: of the wanted ones, which never decrease within a group.
        since: from which instant on payments count for each.
        answers: rows of the answers.
    """

    def __init__(
        self,
        payments: _Payments,
        places: Integers,
        groups: "_Groups",
        codes: Integers,
        times: Integers,
        since: Integers,
        answers: Integers,
    ) -> None:
        self._payments, self._places, self.groups = payments, places, groups
        self.codes, self.times, self.since, self.answers = codes, times, since, answers
        self.end = groups.place_of(codes, times)
        self._begins: dict[int, Integers] = {}

    @classmethod
    def at(cls, payments: _Payments, mine: _Entity, sight: Sight, since: Integers) -> "_Look":
        """The look that a sight is; of a pair, the groups are those of both."""
        places, codes, groups = mine.places, mine.codes, mine.groups
        asked = payments.answers[places] >= 0
        fits = payments.fitting(sight)
        if len(sight.of) == 2:
            second = payments.codes(sight.of[1])[places].astype(np.int64)
            codes = codes * (int(second.max(initial=0)) + 1) + second
            order = np.argsort(codes, kind="stable")
            order = order[second[order] >= 0]
            places, codes, since, asked = places[order], codes[order], since[order], asked[order]
        seen = np.ones(len(places), dtype=bool) if fits is None else fits[places]
        if len(sight.of) == 2 or fits is not None:
            groups = _Groups(codes[seen], payments.times[places[seen]])
        wanted = places[asked]
        return cls(payments, places[seen], groups, codes[asked], payments.times[wanted], since[asked], payments.answers[wanted])

    def begin(self, span_us: int) -> Integers:
        """Where the window of each wanted payment begins."""
        if span_us not in self._begins:
            first = np.maximum(self.times - span_us, self.since) if span_us else self.since
            self._begins[span_us] = np.minimum(self.groups.place_of(self.codes, first), self.end)
        return self._begins[span_us]

    def tally(self, sight: Sight, result: dict[str, Floats]) -> None:
        """Fill in the answers."""
        for tally in sight.tallies:
            result[tally.name][self.answers] = _TALLIED[tally.kind](self, tally, self.begin(tally.span_us))

    def _seen(self, _: Tally, begin: Integers) -> npt.NDArray[Any]:
        return self.end > begin

    def _count(self, tally: Tally, begin: Integers) -> npt.NDArray[Any]:
        if tally.over is None:
            return self.end - begin
        return self._between(self._payments.column(tally.over).is_not_null().to_numpy()[self._places], begin)

    def _sum(self, tally: Tally, begin: Integers) -> npt.NDArray[Any]:
        units, _ = self._units(tally)
        return self._between(units, begin)

    def _between(self, values: npt.NDArray[Any], begin: Integers) -> Integers:
        sums = _running(values)
        found: Integers = sums[self.end] - sums[begin]
        return found

    def _units(self, tally: Tally) -> tuple[Integers, npt.NDArray[np.bool_]]:
        """Whole units of each payment, 0 where there are none; and whether there are."""
        units, known = self._payments.units(str(tally.over))
        return units[self._places], known[self._places]

    def _spread(self, tally: Tally, begin: Integers) -> npt.NDArray[Any]:
        """Where the number times the sum of squares may not fit into 64 bits, Python's own whole numbers are taken."""
        units, known = self._units(tally)
        most = int(np.max(np.abs(units), initial=0)) * int(np.max(self.end - begin, initial=0))
        whole: npt.DTypeLike = np.int64 if most < 2**31 else object  # running sums may overflow: their differences do not
        values = units.astype(whole)
        sums, squares = (np.concatenate([np.zeros(1, whole), np.cumsum(one)]) for one in (values, values * values))
        count = self._between(known, begin).astype(whole)
        total = sums[self.end] - sums[begin]
        found: npt.NDArray[Any] = (count * (squares[self.end] - squares[begin]) - total * total).astype(np.float64)
        return found

    def _extreme(self, tally: Tally, begin: Integers) -> npt.NDArray[Any]:
        units, known = self._units(tally)
        places = _running(known)
        sign = 1 if tally.kind == "max" else -1
        first, after = places[begin], places[self.end]
        found = _greatest(sign * units[known], first, after)
        return np.where(after > first, (sign * found).astype(np.float64), -sign * np.inf)

    def _distinct(self, tally: Tally, begin: Integers) -> npt.NDArray[Any]:
        codes = self._payments.codes(str(tally.over))[self._places]
        return _distinct(begin, self.end, _before(self.groups, codes), codes >= 0)

    def _end_of(self, tally: Tally, begin: Integers) -> npt.NDArray[Any]:
        """The last value of each window, or the first."""
        used = self.end > begin
        if not len(self._places):
            return np.full(len(used), np.nan)
        places = self._places[np.where(used, self.end - 1 if tally.kind == "last" else begin, 0)]
        return np.where(used, self._payments.numbers(str(tally.over))[places], np.nan)


_TALLIED: dict[str, Callable[[_Look, Tally, Integers], npt.NDArray[Any]]] = {
    "seen": _Look._seen,
    "count": _Look._count,
    "sum": _Look._sum,
    "spread": _Look._spread,
    "max": _Look._extreme,
    "min": _Look._extreme,
    "distinct": _Look._distinct,
    "last": _Look._end_of,
    "first": _Look._end_of,
}


def _before(groups: "_Groups", values: npt.NDArray[np.int32]) -> Integers:
    """For each payment the place of the group's previous payment with the same value, which may be of equal time; -1: none."""
    pairs = groups.codes * (int(values.max(initial=0)) + 2) + values + 1
    order = np.argsort(pairs, kind="stable")  # payments of a group with the same value stay in order of time
    same = pairs[order[1:]] == pairs[order[:-1]]
    before = np.full(len(order), -1, dtype=np.int64)
    before[order[1:][same]] = order[:-1][same]
    return before


def _distinct(begin: Integers, end: Integers, before: Integers, named: npt.NDArray[np.bool_]) -> Integers:
    """How many different values lie at the places [begin, end) of each window; begins and ends never decrease.

    A value counts where it stands first within the window: from the first window that holds its payment and no longer the one
    before with the same value, to the last that holds it.
    """
    places = np.flatnonzero(named)
    first = np.maximum(np.searchsorted(end, places, side="right"), np.searchsorted(begin, before[places], side="right"))
    after = np.searchsorted(begin, places, side="right")
    return _spread(first, after, np.ones(len(places), dtype=np.int64), len(begin))


def _greatest(values: Integers, begin: Integers, end: Integers) -> Integers:
    """The greatest of `values[begin:end]` for each pair of places; 0 where they are equal.

    Two runs of a power of two cover a window (a sparse table, Bender and Farach-Colton 2000); one such power is held at a time.
    """
    lengths = end - begin
    result = np.zeros(len(lengths), dtype=np.int64)
    greatest, run = values, 1  # the greatest of `run` values from each place on
    while np.any(lengths >= run):
        fitting = np.flatnonzero((lengths >= run) & (lengths < 2 * run))
        result[fitting] = np.maximum(greatest[begin[fitting]], greatest[end[fitting] - run])
        greatest = np.maximum(greatest[:-run], greatest[run:])
        run *= 2
    return result


def _hour_tallies(
    payments: pl.DataFrame,
    entity: str,
    tallies: Iterable[Tally],
    reach: Reach,
    corrections: pl.DataFrame | None,
    result: dict[str, Floats],
) -> None:
    asked = payments.filter("asked").sort(entity, "timestamp")
    if asked.is_empty():
        return
    if REFUND in payments.columns:
        payments = payments.filter(~pl.col(REFUND).fill_null(value=False))
    hours = payments.group_by(entity, (pl.col("timestamp") // HOUR_US).alias("hour"), maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("payments"),
        (pl.col("label").cast(pl.Int64).sum() if "label" in payments.columns else pl.lit(0, pl.Int64)).alias("frauds"),
    )
    hours = hours.join(asked.select(entity).unique(), on=entity, how="semi").sort(entity, "hour")
    names = pl.Series(asked[entity].unique().sort())
    places = _Groups(_places(names, hours[entity]), hours["hour"].to_numpy())
    mine = _places(names, asked[entity])
    times, rows = asked["timestamp"].to_numpy(), asked["answer"].to_numpy()
    running = {"hourly": _running(hours["payments"].to_numpy()), "frauds": _running(hours["frauds"].to_numpy())}
    running["judged"] = running["hourly"]
    changed = None if corrections is None or corrections.is_empty() else _Corrections(corrections, names, mine, times)
    for tally in tallies:
        window = min(tally.span_us or reach.history_us, reach.history_us)
        last = times if tally.kind == "hourly" else times - reach.delay_us
        hours_of = _whole_hours(last - window, last)
        begin, end = places.between(mine, *hours_of)
        counted = running[tally.kind]
        found = counted[end] - counted[begin]
        if changed is not None and tally.kind == "frauds":
            found = found + changed.sums("frauds", *hours_of)
        elif changed is not None and tally.kind == "judged":
            found = found - changed.sums("dropped", *hours_of)
        result[tally.name][rows] = found


class _Corrections:
    """What labels changed, for payments that are sorted by entity and time."""

    def __init__(self, corrections: pl.DataFrame, names: pl.Series, mine: Integers, times: Integers) -> None:
        self._frame = corrections.join(names.to_frame("name"), on="name", how="semi")
        self._named = _places(names, self._frame["name"])
        self._asked = mine
        self._now = _Groups(mine, times // HOUR_US)

    def sums(self, column: str, begins: Integers, ends: Integers) -> Integers:
        """For each payment: what was known in hours before its own about the hours [begin, end)."""
        hours = self._frame["hour"].to_numpy()
        ended = _Groups(self._asked, ends).place_of(self._named, hours + 1)  # the first payment with end > hour
        known = self._now.place_of(self._named, self._frame["known"].to_numpy() + 1)
        gone = _Groups(self._asked, begins).place_of(self._named, hours + 1)  # the first with begin > hour
        return _spread(np.maximum(ended, known), gone, self._frame[column].to_numpy(), len(self._asked))


class _Groups:
    """Whole numbers that never decrease within a group; groups lie one after the other, by their code."""

    def __init__(self, codes: Integers, values: Integers) -> None:
        self.codes = codes
        self._lowest = int(values.min()) if len(values) else 0
        self._width = int(values.max()) - self._lowest + 2 if len(values) else 2
        # Codes and values fit into 64 bits together, or else codes and the ranks of values do.
        self._ranked = None if (int(codes.max(initial=0)) + 1) * self._width < 2**62 else np.unique(values)
        if self._ranked is not None:
            self._width = len(self._ranked) + 1
        self._keys = self._key(codes, values)

    def _key(self, codes: Integers, values: Integers) -> Integers:
        if self._ranked is not None:
            return codes * self._width + np.searchsorted(self._ranked, values)
        found: Integers = codes * self._width + np.clip(values - self._lowest, 0, self._width - 1)
        return found

    def place_of(self, codes: Integers, values: Integers) -> Integers:
        """The first place in the group of each code with a number of at least the value given, or the group's end."""
        return np.searchsorted(self._keys, self._key(codes, values)).astype(np.int64)

    def first_from(self, values: Integers) -> Integers:
        """The same for every place, in its own group."""
        return self.place_of(self.codes, values)

    def between(self, codes: Integers, begins: Integers, ends: Integers) -> tuple[Integers, Integers]:
        """Places of the numbers in [begin, end)."""
        begin = self.place_of(codes, begins)
        return begin, np.maximum(begin, self.place_of(codes, ends))


def _spread(first: Integers, after: Integers, amounts: Integers, length: int) -> Integers:
    """Each amount, added to the places [first, after)."""
    kept = first < after
    steps = np.zeros(length + 1, dtype=np.int64)
    np.add.at(steps, first[kept], amounts[kept])
    np.subtract.at(steps, after[kept], amounts[kept])
    return np.cumsum(steps)[:-1]


def _running(values: npt.NDArray[Any]) -> Integers:
    """Sums of all values before each place, and of all."""
    return np.concatenate([[0], np.cumsum(values, dtype=np.int64)])


def _codes(names: pl.Series) -> Integers:
    """Whole numbers from 0 in order of first appearance; -1: null."""
    names = names.cast(pl.Int8) if names.dtype == pl.Boolean else names
    codes = names.rank("dense").cast(pl.Int64) - 1
    return codes.fill_null(-1).to_numpy()


def _places(names: pl.Series, wanted: pl.Series) -> Integers:
    """Where each wanted name stands among the (sorted, distinct) names."""
    return names.search_sorted(wanted).cast(pl.Int64).to_numpy()


def _whole_hours(begins: Integers, ends: Integers) -> tuple[Integers, Integers]:
    """`windows.whole_hours` for columns."""
    return -(-begins // HOUR_US), ends // HOUR_US

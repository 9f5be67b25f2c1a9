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
    places = np.cumsum(asked) - 1  # of each wanted payment's row among the answers
    result = {name: np.full(int(asked.sum()), np.nan) for name in plan.names}
    numbered = payments.with_columns(pl.col("timestamp").dt.epoch("us"), pl.Series("asked", asked), pl.Series("answer", places))
    for entity, sights in plan.sights.items():
        if entity in payments.columns:
            _event_tallies(numbered.filter(pl.col(entity).is_not_null()), entity, sights, reach, zone, result)
    for entity in plan.hours:
        if entity in payments.columns:
            tallies = [tally for tally in plan.tallies if tally.in_hours and tally.of[0] == entity]
            mine = numbered.filter(pl.col(entity).is_not_null())
            known = None if corrections is None else corrections.filter(pl.col("entity") == entity)
            _hour_tallies(mine, entity, tallies, reach, known, result)
    return pl.DataFrame(result)


class _Entity(NamedTuple):
    """The payments of an entity, sorted by its codes and time.

    Attributes:
        frame: as it was given, sorted.
        codes: of the entities.
        times: in microseconds.
        asked: places of the wanted ones.
        zone: says what is night.
    """

    frame: pl.DataFrame
    codes: Integers
    times: Integers
    asked: Integers
    zone: ZoneInfo

    def fitting(self, sight: Sight) -> npt.NDArray[np.bool_]:
        """Which payments the sight looks at."""
        fits = np.ones(len(self.times), dtype=bool)
        if REFUND in self.frame.columns and not sight.wants_refunds:
            fits &= ~self.frame[REFUND].fill_null(value=False).to_numpy()
        for field, values in sight.where:
            if field == NIGHT:
                fits &= is_night(local_us(self.times, self.zone)) == ("true" in values)
            elif field not in self.frame.columns:
                fits[:] = False
            else:
                column = self.frame[field]
                texts = column.cast(pl.String) if column.dtype == pl.Boolean else column
                fits &= texts.is_in(list(values)).fill_null(value=False).to_numpy()
        return fits


def _event_tallies(
    payments: pl.DataFrame, entity: str, sights: Iterable[Sight], reach: Reach, zone: ZoneInfo, result: dict[str, Floats]
) -> None:
    if payments.is_empty():
        return
    payments = payments.sort(entity, "timestamp", "transaction_id")
    times = payments["timestamp"].to_numpy()
    mine = _Entity(payments, _codes(payments[entity]), times, np.flatnonzero(payments["asked"].to_numpy()), zone)
    groups = _Groups(mine.codes, times)
    caps = {reach.newest_of(entity, sight.newest) for sight in sights}
    since = {newest: _since(groups, mine, reach, newest) for newest in caps}
    answers = payments["answer"].to_numpy()
    for sight in sights:
        _Look.at(mine, sight, since[reach.newest_of(entity, sight.newest)], answers).tally(sight, result)


def _since(groups: "_Groups", mine: _Entity, reach: Reach, newest: int) -> Integers:
    """For each payment the instant from which on the entity's payments before it count."""
    times = mine.times
    since = times - reach.history_us
    end = groups.first_from(times)
    busy = np.flatnonzero(end - groups.first_from(since) > newest)
    since[busy] = times[end[busy] - newest - 1] + 1
    return since


class _Look:
    """A look at some payments of entities, for the wanted ones.

    Args:
        frame: the payments that are looked at, sorted by group and time.
        groups: of them.
        codes: the groups of the wanted payments, which never decrease.
        times: of the wanted ones, which never decrease within a group.
        since: from which instant on payments count for each.
        answers: rows of the answers.
    """

    def __init__(
        self, frame: pl.DataFrame, groups: "_Groups", codes: Integers, times: Integers, since: Integers, answers: Integers
    ) -> None:
        self.frame, self.groups = frame, groups
        self.codes, self.times, self.since, self.answers = codes, times, since, answers
        self.end = groups.place_of(codes, times)
        self._begins: dict[int, Integers] = {}

    @classmethod
    def at(cls, mine: _Entity, sight: Sight, since: Integers, answers: Integers) -> "_Look":
        """The look that a sight is; of a pair, the groups are those of both."""
        seen, asked, codes = np.flatnonzero(mine.fitting(sight)), mine.asked, mine.codes
        if len(sight.of) == 2:
            second = (
                _codes(mine.frame[sight.of[1]]) if sight.of[1] in mine.frame.columns else np.full(len(codes), -1, dtype=np.int64)
            )
            codes = np.where(second < 0, -1, mine.codes * (int(second.max(initial=0)) + 1) + second)
            seen, asked = (some[codes[some] >= 0] for some in (seen, asked))
            seen, asked = (some[np.argsort(codes[some], kind="stable")] for some in (seen, asked))
        groups = _Groups(codes[seen], mine.times[seen])
        return cls(mine.frame[seen], groups, codes[asked], mine.times[asked], since[asked], answers[asked])

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
        return self._between(self._column(tally.over).is_not_null().to_numpy(), begin)

    def _sum(self, tally: Tally, begin: Integers) -> npt.NDArray[Any]:
        units, _ = self._units(tally)
        return self._between(units, begin)

    def _between(self, values: npt.NDArray[Any], begin: Integers) -> Integers:
        sums = _running(values)
        found: Integers = sums[self.end] - sums[begin]
        return found

    def _column(self, name: str | None) -> pl.Series:
        if name not in self.frame.columns:
            return pl.Series(name, [None] * len(self.frame), dtype=pl.Float64)
        return self.frame[name]

    def _units(self, tally: Tally) -> tuple[Integers, npt.NDArray[np.bool_]]:
        """Whole units of each payment, 0 where there are none; and whether there are."""
        assert tally.over is not None
        column = self._column(tally.over)
        if column.dtype.is_integer():
            return column.fill_null(0).cast(pl.Int64).to_numpy(), column.is_not_null().to_numpy()
        units = np.rint(column.cast(pl.Float64).fill_null(np.nan).to_numpy() * units_of(tally.over))
        known = np.abs(units) < MOST_UNITS
        return np.where(known, units, 0.0).astype(np.int64), known

    def _spread(self, tally: Tally, begin: Integers) -> npt.NDArray[Any]:
        """Squares of 64 bits do not fit into 64 bits, so Python's own whole numbers are taken."""
        units, known = self._units(tally)
        exact = units.astype(object)
        sums, squares = (np.concatenate([[0], np.cumsum(values)]) for values in (exact, exact * exact))
        numbers = _running(known)
        count = (numbers[self.end] - numbers[begin]).astype(object)
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
        column = self._column(tally.over)
        column = column + 0.0 if column.dtype.is_float() else column  # minus zero is zero
        named = column.is_not_null().to_numpy()
        return _distinct(begin, self.end, _before(self.groups, _codes(column)), named)

    def _end_of(self, tally: Tally, begin: Integers) -> npt.NDArray[Any]:
        """The last value of each window, or the first."""
        used = self.end > begin
        places = np.where(used, self.end - 1 if tally.kind == "last" else begin, 0)
        if not len(self.frame):
            return np.full(len(places), np.nan)
        column = self._column(tally.over)
        # minus zero, which not every store keeps, is zero
        values = column.cast(pl.Float64).fill_null(np.nan).to_numpy() + 0.0
        return np.where(used, values[places], np.nan)


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


def _before(groups: "_Groups", values: Integers) -> Integers:
    """For each payment the place of the group's previous payment with the same value, which may be of equal time; -1: none."""
    if not len(values):
        return values
    order = np.lexsort((values, groups.codes))  # stable: payments of a group with the same value stay in order of time
    pairs = groups.codes[order] * (int(values.max(initial=0)) + 2) + values[order] + 1
    same = np.concatenate([[False], pairs[1:] == pairs[:-1]])
    before = np.full(len(order), -1, dtype=np.int64)
    before[order[same]] = order[np.flatnonzero(same) - 1]
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
        self._distinct = np.unique(values)
        self._width = len(self._distinct) + 1  # codes and ranks together fit into 64 bits where codes and values would not
        self._keys = codes * self._width + np.searchsorted(self._distinct, values)

    def place_of(self, codes: Integers, values: Integers) -> Integers:
        """The first place in the group of each code with a number of at least the value given, or the group's end."""
        return np.searchsorted(self._keys, codes * self._width + np.searchsorted(self._distinct, values)).astype(np.int64)

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

"""Tallies of the past for one payment (online engine), from what a history store holds of its entities."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from fraud_core.features.windows import MOST_UNITS, Hours, Plan, Reach, Sight, Tally, units_of, whole_hours
from fraud_core.fields.declared import NIGHT, REFUND
from fraud_core.units.time import HOUR_US, is_night, local_us

NAN = math.nan


class Event(NamedTuple):
    """A payment as history takes it: microseconds since 1970 UTC, cents, degrees of the merchant's place (NaN: missing); behind
    them the values of own fields by their names, ids that are personal by their hashes."""

    timestamp: int
    transaction_id: str
    amount_cents: int
    merchant: str | None
    category: str | None
    latitude: float
    longitude: float
    own: Mapping[str, Any] = {}


# The same as a store gives it back: timestamp, then what `Plan.columns` names, in that order (None or NaN: missing).
Seen = tuple[Any, ...]


class Correction(NamedTuple):
    """What labels changed in an hour of an entity (counted from 1970), known since the hour `known`.

    `frauds` and `dropped` (payments of unknown outcome, by an analyst's word) are added to what is counted there already.
    """

    hour: int
    known: int
    frauds: int
    dropped: int


class EntityHours(NamedTuple):
    """An entity's hours without a gap.

    Attributes:
        begin: the first hour, counted from 1970.
        counts: whole numbers of shape (hours, 2): payments, and frauds that are always known.
        corrections: what labels changed.
    """

    begin: int
    counts: npt.NDArray[np.int32]
    corrections: Sequence[Correction]


NO_HOURS = EntityHours(0, np.zeros((0, 2), dtype=np.int32), ())


class Query(NamedTuple):
    """Of whom, and before when, something is asked.

    Attributes:
        timestamp: of the payment, in microseconds.
        values: canonical names -> values of the payment, ids that are personal by their hashes; what is None has no history.
    """

    timestamp: int
    values: Mapping[str, Any]


class Past(NamedTuple):
    """What a store holds for a query; it may hold more than lies within reach.

    Attributes:
        sequence: the number of the newest recorded payment that was taken into account.
        events: by entity, its payments before the query in order of time, those of equal time in order of their ids; of more
            than `Plan.newest_of` the newest ones, and the one before them.
        hours: by entity.
    """

    sequence: int
    events: Mapping[str, Sequence[Seen]]
    hours: Mapping[str, EntityHours]


def event_span(query: Query, span_us: int) -> tuple[int, int]:
    """[begin, end) in microseconds: payments of an entity that count, where its windows reach back so far."""
    return query.timestamp - span_us, query.timestamp


def hour_span(query: Query, reach: Reach) -> tuple[int, int]:
    """[begin, end) in hours since 1970: hours of an entity that count."""
    return whole_hours(query.timestamp - reach.total_us, query.timestamp)


def state_asof(query: Query, past: Past, plan: Plan, reach: Reach, zone: ZoneInfo) -> list[float]:
    """The values of `plan.tallies`, in their order, as of the query's time; NaN: missing. The zone says what is night."""
    found = [NAN] * len(plan.tallies)
    for entity, sights in plan.sights.items():
        if query.values.get(entity) is None:
            continue
        events = past.events[entity]
        columns = dict(zip(("timestamp", *plan.columns), zip(*events, strict=True), strict=True)) if events else _nothing(plan)
        oldest: dict[int, tuple[int, int]] = {}
        for sight in sights:
            newest = reach.newest_of(entity, sight.newest)
            if newest not in oldest:
                oldest[newest] = _counting(columns["timestamp"], query.timestamp, reach, newest)
            _look(sight, columns, query, oldest[newest], zone, found)
    for entity, asked in plan.hours.items():
        if query.values.get(entity) is not None:
            _count_hours(asked, query.timestamp, past.hours[entity], reach, found)
    return found


def _nothing(plan: Plan) -> dict[str, tuple[Any, ...]]:
    return dict.fromkeys(("timestamp", *plan.columns), ())


def _counting(times: Sequence[int], now: int, reach: Reach, newest: int) -> tuple[int, int]:
    """Places of the payments that count at all."""
    end = bisect_left(times, now)
    oldest = bisect_left(times, now - reach.history_us)
    if end - oldest > newest:
        oldest = bisect_right(times, times[end - newest - 1])
    return oldest, end


def _look(
    sight: Sight,
    columns: Mapping[str, tuple[Any, ...]],
    query: Query,
    counting: tuple[int, int],
    zone: ZoneInfo,
    found: list[float],
) -> None:
    oldest, end = counting
    second = sight.of[1] if len(sight.of) == 2 else None
    if second is not None and query.values.get(second) is None:
        return
    if sight.is_plain and REFUND not in columns:
        kept = columns
    elif second is not None and sight.only_seen and REFUND not in columns:
        found[sight.places[0]] = float(query.values[second] in columns[second][oldest:end])
        return
    else:
        first = max(oldest, bisect_left(columns["timestamp"], query.timestamp - sight.span_us)) if sight.span_us else oldest
        places = _fitting(sight, columns, query, range(first, end), zone)
        kept = {name: tuple([columns[name][place] for place in places]) for name in sight.reads}
        oldest, end = 0, len(places)
    times = kept["timestamp"]
    for place, tally in zip(sight.places, sight.tallies, strict=True):
        begin = max(oldest, bisect_left(times, query.timestamp - tally.span_us)) if tally.span_us else oldest
        found[place] = _TALLIED[tally.kind](tally, kept, begin, end)


def _fitting(sight: Sight, columns: Mapping[str, tuple[Any, ...]], query: Query, places: range, zone: ZoneInfo) -> Sequence[int]:
    """Places of the payments that the sight looks at."""
    if sight.where == ((NIGHT, ("true",)),) and len(sight.of) == 1 and REFUND not in columns:
        times = np.array(columns["timestamp"][places.start : places.stop], dtype=np.int64)
        nights: list[int] = (np.flatnonzero(is_night(local_us(times, zone))) + places.start).tolist()
        return nights
    fitting = list(places)
    if len(sight.of) == 2:
        mine, theirs = query.values[sight.of[1]], columns[sight.of[1]]
        fitting = [place for place in fitting if theirs[place] == mine]
    if REFUND in columns and not sight.wants_refunds:
        refunds = columns[REFUND]
        fitting = [place for place in fitting if not refunds[place]]
    for field, values in sight.where:
        if field == NIGHT:
            moments = np.array([columns["timestamp"][place] for place in fitting], dtype=np.int64)
            is_fitting = is_night(local_us(moments, zone)) == ("true" in values)
            fitting = [place for place, fits in zip(fitting, is_fitting.tolist(), strict=True) if fits]
        else:
            told = columns[field]
            fitting = [place for place in fitting if _told(told[place]) in values]
    return fitting


def _told(value: Any) -> Any:
    return ("true" if value else "false") if isinstance(value, bool) else value


# --- one tally -----------------------------------------------------------------------------------------------------------------

_Columns = Mapping[str, tuple[Any, ...]]


def _seen(tally: Tally, columns: _Columns, begin: int, end: int) -> float:
    return float(end > begin)


def _count(tally: Tally, columns: _Columns, begin: int, end: int) -> float:
    if tally.over is None:
        return float(end - begin)
    return float(sum(value is not None for value in columns[tally.over][begin:end]))


def _units(tally: Tally, columns: _Columns, begin: int, end: int) -> Sequence[int]:
    """Whole units of the payments that have some."""
    assert tally.over is not None
    values = columns[tally.over][begin:end]
    if tally.over == "amount_cents":
        return values
    scale = units_of(tally.over)
    scaled = [value * scale for value in values if value is not None]
    return [round(units) for units in scaled if abs(units) <= MOST_UNITS and abs(round(units)) < MOST_UNITS]


def _sum(tally: Tally, columns: _Columns, begin: int, end: int) -> float:
    return float(sum(_units(tally, columns, begin, end)))


def _spread(tally: Tally, columns: _Columns, begin: int, end: int) -> float:
    units = _units(tally, columns, begin, end)
    return float(len(units) * sum(one * one for one in units) - sum(units) ** 2)


def _max(tally: Tally, columns: _Columns, begin: int, end: int) -> float:
    return float(max(_units(tally, columns, begin, end), default=-math.inf))


def _min(tally: Tally, columns: _Columns, begin: int, end: int) -> float:
    return float(min(_units(tally, columns, begin, end), default=math.inf))


def _distinct(tally: Tally, columns: _Columns, begin: int, end: int) -> float:
    assert tally.over is not None
    return float(len(set(columns[tally.over][begin:end]) - {None}))


def _last(tally: Tally, columns: _Columns, begin: int, end: int) -> float:
    assert tally.over is not None
    return _number(columns[tally.over][end - 1]) if end > begin else NAN


def _first(tally: Tally, columns: _Columns, begin: int, end: int) -> float:
    assert tally.over is not None
    return _number(columns[tally.over][begin]) if end > begin else NAN


def _number(value: float | None) -> float:
    return NAN if value is None else value + 0.0  # minus zero, which not every store keeps, is zero


_TALLIED: Mapping[str, Callable[[Tally, _Columns, int, int], float]] = {
    "seen": _seen,
    "count": _count,
    "sum": _sum,
    "spread": _spread,
    "max": _max,
    "min": _min,
    "distinct": _distinct,
    "last": _last,
    "first": _first,
}


def _count_hours(asked: Hours, now: int, hours: EntityHours, reach: Reach, found: list[float]) -> None:
    length, first, settled = len(hours.counts), hours.begin, now - reach.delay_us
    running = np.zeros((length + 1, 2), dtype=np.int64)
    np.cumsum(hours.counts, axis=0, out=running[1:])
    spans: list[tuple[int, int]] = []
    borders: list[int] = []
    for span_us, is_settled in asked.windows:
        end = settled if is_settled else now
        span = begin, after = whole_hours(end - (min(span_us, reach.history_us) if span_us else reach.history_us), end)
        spans.append(span)
        borders += (min(max(begin - first, 0), length), min(max(after - first, begin - first, 0), length))
    at_borders = running[borders]
    sums = (at_borders[1::2] - at_borders[::2]).tolist()
    changed = [_changes(hours.corrections, *span, now // HOUR_US) for span in spans] if hours.corrections else None
    for place, kind, window in asked.tallies:
        payments, frauds = sums[window]
        more, dropped = (0, 0) if changed is None else changed[window]
        found[place] = float(payments if kind == "hourly" else payments - dropped if kind == "judged" else frauds + more)


def _changes(corrections: Iterable[Correction], begin: int, end: int, known_before: int) -> tuple[int, int]:
    """Frauds and dropped payments in hours of [begin, end), as far as known in hours before the one given."""
    frauds = dropped = 0
    for one in corrections:
        if begin <= one.hour < end and one.known < known_before:
            frauds += one.frauds
            dropped += one.dropped
    return frauds, dropped

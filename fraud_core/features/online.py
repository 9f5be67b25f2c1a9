"""Tallies of the past for one payment (online engine), from what a history store holds of its entities."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from fraud_core.features.windows import MOST_UNITS, Hours, Plan, Reach, Sight, units_of, whole_hours
from fraud_core.fields.declared import NIGHT, REFUND
from fraud_core.units.time import HOUR_US, nights

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


class Events(NamedTuple):
    """Payments of an entity as a store gives them back, in order of time, those of equal time in order of their ids.

    Attributes:
        times: of all of them.
        columns: what `Plan.reads` names, of the newest of them: as many as lie within `Plan.values_span_of` (None: missing).
    """

    times: Sequence[int]
    columns: Mapping[str, Sequence[Any]]


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
        events: by entity, its payments before the query; of more than `Plan.newest_of` the newest ones, and the one before them.
        hours: by entity.
    """

    sequence: int
    events: Mapping[str, Events]
    hours: Mapping[str, EntityHours]


def event_span(query: Query, span_us: int) -> tuple[int, int]:
    """[begin, end) in microseconds: payments of an entity that count, where its windows reach back so far."""
    return query.timestamp - span_us, query.timestamp


def hour_span(query: Query, reach: Reach) -> tuple[int, int]:
    """[begin, end) in hours since 1970: hours of an entity that count."""
    return whole_hours(query.timestamp - reach.total_us, query.timestamp)


class Tallying:
    """A plan made, once, into the steps by which the past of one payment after the other is tallied.

    Args:
        plan: what is tallied.
        reach: how far back anything counts.
        zone: says what is night.
    """

    def __init__(self, plan: Plan, reach: Reach, zone: ZoneInfo) -> None:
        self._nothing = [NAN] * len(plan.tallies)
        self._reach = reach
        self._hours = tuple(plan.hours.items())
        self._looks: list[tuple[str, list[tuple[int, list[_Look]]]]] = []
        for entity, sights in plan.sights.items():
            capped: dict[int, list[_Look]] = {}
            for sight in sights:
                look = _Look(sight, zone, drops_refunds=REFUND in plan.own and not sight.wants_refunds)
                capped.setdefault(reach.newest_of(entity, sight.newest), []).append(look)
            self._looks.append((entity, list(capped.items())))

    def of(self, query: Query, past: Past) -> list[float]:
        """The values of `plan.tallies`, in their order, as of the query's time; NaN: missing."""
        found = self._nothing.copy()
        for entity, capped in self._looks:
            if query.values.get(entity) is not None:
                events = past.events[entity]
                for newest, looks in capped:
                    oldest, end = _counting(events.times, query.timestamp, self._reach, newest)
                    for look in looks:
                        look.tally(events, query, oldest, end, found)
        for entity, asked in self._hours:
            if query.values.get(entity) is not None:
                _count_hours(asked, query.timestamp, past.hours[entity], self._reach, found)
        return found


def state_asof(query: Query, past: Past, plan: Plan, reach: Reach, zone: ZoneInfo) -> list[float]:
    """The tallies of one payment; see `Tallying`, which who has many of them makes once."""
    return Tallying(plan, reach, zone).of(query, past)


def _counting(times: Sequence[int], now: int, reach: Reach, newest: int) -> tuple[int, int]:
    """Places of the payments that count at all."""
    end = bisect_left(times, now)
    oldest = bisect_left(times, now - reach.history_us)
    if end - oldest > newest:
        oldest = bisect_right(times, times[end - newest - 1])
    return oldest, end


_Values = Sequence[Any]
_Narrow = Callable[[Events, Query, Iterable[int], int], Iterable[int]]


class _Step(NamedTuple):
    """What is taken of one column in one window.

    Attributes:
        window: which of the look's.
        column: that is looked at.
        scale: how many whole units one is, where they are what is taken; None: values as they are.
        takes: where each tally stands in the plan, and what it makes of the values.
    """

    window: int
    column: str
    scale: int | None
    takes: list[tuple[int, Callable[[_Values], float]]]


class _Look:
    """One sight of a plan: its windows, each of which is found once, and what is taken in them."""

    def __init__(self, sight: Sight, zone: ZoneInfo, *, drops_refunds: bool) -> None:
        self._second = sight.of[1] if len(sight.of) == 2 else None
        self._longest = sight.span_us
        self._spans = tuple(dict.fromkeys(tally.span_us for tally in sight.tallies))
        self._narrow = _narrowing(sight, zone, drops_refunds)
        # Whether a pair was seen, one search in a column says.
        only_seen = all(tally.kind == "seen" for tally in sight.tallies)
        self._searched = self._second if only_seen and len(self._narrow) == 1 else None
        self._of_times: list[tuple[int, int, Callable[[Sequence[int], int, int], float]]] = []
        steps: dict[tuple[int, str, int | None], _Step] = {}
        for place, tally in zip(sight.places, sight.tallies, strict=True):
            window = self._spans.index(tally.span_us)
            if tally.over in (None, "timestamp"):
                self._of_times.append((place, window, _OF_TIMES[tally.kind]))
                continue
            assert tally.over is not None
            scale = units_of(tally.over) if tally.kind in _OF_UNITS and tally.over != "amount_cents" else None
            key = window, tally.over, scale
            steps.setdefault(key, _Step(*key, [])).takes.append((place, _OF_VALUES[tally.kind]))
        self._steps = list(steps.values())
        self._columns = frozenset(step.column for step in self._steps)

    def tally(self, events: Events, query: Query, oldest: int, end: int, found: list[float]) -> None:
        """Fill in what is found among the payments at the places [oldest, end)."""
        if self._second is not None and query.values.get(self._second) is None:
            return
        times, columns = events
        bare = len(times) - (len(columns[next(iter(columns))]) if columns else 0)  # so many have their times alone
        if self._narrow and self._searched is None:
            first = max(oldest, bisect_left(times, query.timestamp - self._longest)) if self._longest else oldest
            places: Iterable[int] = range(first, end)
            for narrow in self._narrow:
                places = narrow(events, query, places, bare)
            places = list(places)
            times = [times[place] for place in places]
            columns = {name: [columns[name][place - bare] for place in places] for name in self._columns}
            oldest, end, bare = 0, len(times), 0
        begins = [max(oldest, bisect_left(times, query.timestamp - span)) if span else oldest for span in self._spans]
        if self._searched is not None:
            values, mine = columns[self._searched], query.values[self._searched]
            for place, window, _ in self._of_times:
                found[place] = float(mine in values[begins[window] - bare : end - bare])
            return
        for place, window, take in self._of_times:
            found[place] = take(times, begins[window], end)
        for window, column, scale, takes in self._steps:
            values = columns[column][begins[window] - bare : end - bare]
            if scale is not None:
                values = _whole(values, scale)
            for place, of in takes:
                found[place] = of(values)


def _narrowing(sight: Sight, zone: ZoneInfo, drops_refunds: bool) -> list[_Narrow]:
    """What leaves out payments that the sight does not look at, one after the other."""
    found: list[_Narrow] = []
    if len(sight.of) == 2:
        found.append(_same(sight.of[1]))
    if drops_refunds:
        found.append(_among(REFUND, frozenset({None, False})))
    for field, values in sight.where:
        told = {"true": True, "false": False}
        found.append(
            _at_night("true" in values, zone)
            if field == NIGHT
            else _among(field, frozenset({*values, *(told[value] for value in values if value in told)}))
        )
    return found


def _same(field: str) -> _Narrow:
    def narrow(events: Events, query: Query, places: Iterable[int], bare: int) -> Iterable[int]:
        column, mine = events.columns[field], query.values[field]
        return [place for place in places if column[place - bare] == mine]

    return narrow


def _among(field: str, values: frozenset[Any]) -> _Narrow:
    def narrow(events: Events, query: Query, places: Iterable[int], bare: int) -> Iterable[int]:
        column = events.columns[field]
        return [place for place in places if column[place - bare] in values]

    return narrow


def _at_night(wanted: bool, zone: ZoneInfo) -> _Narrow:
    def narrow(events: Events, query: Query, places: Iterable[int], bare: int) -> Iterable[int]:
        places = list(places)
        were = nights([events.times[place] for place in places], zone)
        return [place for place, was in zip(places, were, strict=True) if was == wanted]

    return narrow


# --- one tally -----------------------------------------------------------------------------------------------------------------


def _whole(values: _Values, scale: int) -> list[int]:
    """Whole units of the payments that have some."""
    scaled = [value * scale for value in values if value is not None]
    return [round(units) for units in scaled if abs(units) <= MOST_UNITS and abs(round(units)) < MOST_UNITS]


def _spread(units: _Values) -> float:
    return float(len(units) * sum([one * one for one in units]) - sum(units) ** 2)


def _number(value: float | None) -> float:
    return NAN if value is None else value + 0.0  # minus zero, which not every store keeps, is zero


_OF_UNITS = frozenset({"sum", "spread", "max", "min"})
_OF_TIMES: Mapping[str, Callable[[Sequence[int], int, int], float]] = {
    "seen": lambda times, begin, end: float(end > begin),
    "count": lambda times, begin, end: float(end - begin),
    "last": lambda times, begin, end: float(times[end - 1]) if end > begin else NAN,
    "first": lambda times, begin, end: float(times[begin]) if end > begin else NAN,
}
_OF_VALUES: Mapping[str, Callable[[_Values], float]] = {
    "count": lambda values: float(len(values) - values.count(None)),
    "sum": lambda units: float(sum(units)),
    "spread": _spread,
    "max": lambda units: float(max(units, default=-math.inf)),
    "min": lambda units: float(min(units, default=math.inf)),
    "distinct": lambda values: float(len(set(values)) - (None in values)),
    "last": lambda values: _number(values[-1]) if values else NAN,
    "first": lambda values: _number(values[0]) if values else NAN,
}


def _count_hours(asked: Hours, now: int, hours: EntityHours, reach: Reach, found: list[float]) -> None:
    length, first, settled = len(hours.counts), hours.begin, now - reach.delay_us
    running = np.zeros(length + 1, dtype=np.int64)
    # Payments and frauds of an hour as one number, frauds its upper half: sums of fewer than 2^32 payments keep them apart.
    np.cumsum(hours.counts.view("<i8")[:, 0], out=running[1:])
    spans: list[tuple[int, int]] = []
    borders: list[int] = []
    for span_us, is_settled in asked.windows:
        end = settled if is_settled else now
        span = begin, after = whole_hours(end - (min(span_us, reach.history_us) if span_us else reach.history_us), end)
        spans.append(span)
        borders += (min(max(begin - first, 0), length), min(max(after - first, begin - first, 0), length))
    at_borders: list[int] = running[borders].tolist()
    sums = [after - before for before, after in zip(at_borders[::2], at_borders[1::2], strict=True)]
    changed = [_changes(hours.corrections, *span, now // HOUR_US) for span in spans] if hours.corrections else None
    for place, kind, window in asked.tallies:
        payments, frauds = sums[window] & 0xFFFFFFFF, sums[window] >> 32
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

"""Window counts for one payment (online engine), from what a history store holds of its card and merchant."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from fraud_core.features.windows import (
    CARD_STATE,
    CARD_WINDOWS,
    DISTINCT_WINDOW,
    MERCHANT_WINDOWS,
    RECENT_WINDOWS,
    Reach,
    whole_hours,
)
from fraud_core.units.time import HOUR_US, is_night, local_us

NAN = math.nan


class Event(NamedTuple):
    """A payment as history takes it: microseconds since 1970 UTC, cents, degrees of the merchant's place (NaN: missing)."""

    timestamp: int
    transaction_id: str
    amount_cents: int
    merchant: str | None
    category: str | None
    latitude: float
    longitude: float


# The same as a store gives it back: timestamp, amount_cents, merchant, category, latitude, longitude (None or NaN: missing).
Seen = tuple[int, int, str | None, str | None, float | None, float | None]


class Correction(NamedTuple):
    """What labels changed in an hour of a merchant (counted from 1970), known since the hour `known`.

    `frauds` and `dropped` (payments of unknown outcome, by an analyst's word) are added to what is counted there already.
    """

    hour: int
    known: int
    frauds: int
    dropped: int


class MerchantHours(NamedTuple):
    """A merchant's hours without a gap.

    Attributes:
        begin: the first hour, counted from 1970.
        counts: whole numbers of shape (hours, 2): payments, and frauds that are always known.
        corrections: what labels changed.
    """

    begin: int
    counts: npt.NDArray[np.int32]
    corrections: Sequence[Correction]


NO_HOURS = MerchantHours(0, np.zeros((0, 2), dtype=np.int32), ())


class Query(NamedTuple):
    """Of whom, and before when, something is asked. What is None has no history."""

    timestamp: int
    card: str | None
    merchant: str | None
    category: str | None


class Past(NamedTuple):
    """What a store holds for a query; it may hold more than lies within reach.

    Attributes:
        sequence: the number of the newest recorded payment that was taken into account.
        events: payments of the card before it in order of time, those of equal time in order of their ids; of more than
            `Reach.newest_events` the newest ones, and the one before them.
        hours: of the merchant.
    """

    sequence: int
    events: Sequence[Seen]
    hours: MerchantHours


def event_span(query: Query, reach: Reach) -> tuple[int, int]:
    """[begin, end) in microseconds: payments of the card that count."""
    return query.timestamp - reach.history_us, query.timestamp


def hour_span(query: Query, reach: Reach) -> tuple[int, int]:
    """[begin, end) in hours since 1970: hours of the merchant that count."""
    return whole_hours(query.timestamp - reach.total_us, query.timestamp)


def state_asof(query: Query, past: Past, reach: Reach, zone: ZoneInfo) -> tuple[float, ...]:
    """The values of `windows.STATE`, in its order, as of the query's time; NaN: missing. The zone says what is night."""
    card = (NAN,) * len(CARD_STATE) if query.card is None else _card_state(query, past.events, reach, zone)
    return (*card, *_merchant_state(query, past.hours, reach))


_NOTHING: tuple[tuple[()], ...] = ((),) * 6


def _card_state(query: Query, events: Sequence[Seen], reach: Reach, zone: ZoneInfo) -> tuple[float, ...]:
    times, cents, merchants, categories, latitudes, longitudes = zip(*events, strict=True) if events else _NOTHING
    now = query.timestamp
    end = bisect_left(times, now)
    oldest = bisect_left(times, now - reach.history_us)
    if end - oldest > reach.newest_events:
        oldest = bisect_right(times, times[end - reach.newest_events - 1])
    begins = {name: max(oldest, bisect_left(times, now - span)) for name, span in CARD_WINDOWS.items()}
    last = end - 1
    day = slice(begins[DISTINCT_WINDOW], end)
    recent = [begins[window] for window in RECENT_WINDOWS]
    nights = is_night(local_us(np.array(times[min(recent) : end], dtype=np.int64), zone))
    return (
        *(float(end - begin) for begin in begins.values()),
        *(float(sum(cents[begin:end])) for begin in begins.values()),
        *(float(max(cents[begin:end], default=0)) for begin in recent),
        *(float(np.count_nonzero(nights[begin - min(recent) :])) for begin in recent),
        *((NAN, NAN, NAN) if end == oldest else (float(times[last]), _number(latitudes[last]), _number(longitudes[last]))),
        float(len(set(merchants[day]) - {None})),
        float(len(set(categories[day]) - {None})),
        NAN if query.merchant is None else float(query.merchant in merchants[oldest:end]),
        NAN if query.category is None else float(query.category in categories[oldest:end]),
    )


def _number(value: float | None) -> float:
    return NAN if value is None else value + 0.0  # minus zero, which not every store keeps, is zero


def _merchant_state(query: Query, hours: MerchantHours, reach: Reach) -> tuple[float, ...]:
    if query.merchant is None:
        return (NAN,) * (3 * len(MERCHANT_WINDOWS))
    now, settled = query.timestamp, query.timestamp - reach.delay_us
    windows = [min(span, reach.history_us) for span in MERCHANT_WINDOWS.values()]
    spans = [whole_hours(end - window, end) for end in (now, settled) for window in windows]
    length = len(hours.counts)
    running = np.zeros((length + 1, 2), dtype=np.int64)
    np.cumsum(hours.counts, axis=0, out=running[1:])
    places = [min(max(hour - hours.begin, 0), length) for span in spans for hour in (span[0], max(span))]
    at_borders = running[places]
    sums = (at_borders[1::2] - at_borders[::2]).tolist()
    counts, judged = sums[: len(windows)], sums[len(windows) :]
    changes = [_changes(hours.corrections, *span, known_before=now // HOUR_US) for span in spans[len(windows) :]]
    return (
        *(float(payments) for payments, _ in counts),
        *(float(payments - dropped) for (payments, _), (_, dropped) in zip(judged, changes, strict=True)),
        *(float(frauds + more) for (_, frauds), (more, _) in zip(judged, changes, strict=True)),
    )


def _changes(corrections: Iterable[Correction], begin: int, end: int, known_before: int) -> tuple[int, int]:
    """Frauds and dropped payments in hours of [begin, end), as far as known in hours before the one given."""
    frauds = dropped = 0
    for one in corrections:
        if begin <= one.hour < end and one.known < known_before:
            frauds += one.frauds
            dropped += one.dropped
    return frauds, dropped

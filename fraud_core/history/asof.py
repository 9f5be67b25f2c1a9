"""What a card and a merchant did before one payment, from what a history store holds of them."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fraud_core.history.windows import CARD_STATE, CARD_WINDOWS, DISTINCT_WINDOW, HOUR_US, MERCHANT_WINDOWS, Reach, whole_hours

NAN = math.nan
_DISTINCT_US = CARD_WINDOWS[DISTINCT_WINDOW]


class Event(NamedTuple):
    """A payment as a card's history keeps it: microseconds since 1970 UTC, cents, the merchant's place in degrees (NaN: none)."""

    timestamp: int
    transaction_id: str
    amount_cents: int
    merchant: str | None
    category: str | None
    latitude: float
    longitude: float


class MerchantHour(NamedTuple):
    """How many payments a merchant had in an hour (counted from 1970).

    `frauds` and `dropped` (of unknown outcome, by an analyst's word) are those known since the hour `known`; `payments` of a
    row about labels alone is 0.
    """

    hour: int
    known: int
    payments: int
    frauds: int
    dropped: int


ALWAYS_KNOWN = -1  # `known` of payments themselves, and of frauds that the label delay has made known wherever they count


class Query(NamedTuple):
    """Of whom, and before when, something is asked. What is None has no history."""

    timestamp: int
    card: str | None
    merchant: str | None
    category: str | None


class Past(NamedTuple):
    """What a store holds for a query; it may hold more than lies within reach, in any order.

    Attributes:
        sequence: the number of the newest recorded payment that was taken into account.
        events: payments of the card.
        hours: hours of the merchant.
    """

    sequence: int
    events: Sequence[Event]
    hours: Sequence[MerchantHour]


def event_span(query: Query, reach: Reach) -> tuple[int, int]:
    """[begin, end) in microseconds: payments of the card that count."""
    return query.timestamp - reach.history_us, query.timestamp


def hour_span(query: Query, reach: Reach) -> tuple[int, int]:
    """[begin, end) in hours since 1970: hours of the merchant that count."""
    return whole_hours(query.timestamp - reach.total_us, query.timestamp)


def state_asof(query: Query, past: Past, reach: Reach) -> tuple[float, ...]:
    """The values of `windows.STATE`, in its order, as of the query's time; NaN: missing."""
    card = (NAN,) * len(CARD_STATE) if query.card is None else _card_state(query, past.events, reach)
    return (*card, *_merchant_state(query, past.hours, reach))


def _card_state(query: Query, events: Iterable[Event], reach: Reach) -> tuple[float, ...]:
    now = query.timestamp
    oldest = now - reach.history_us
    spans = tuple(CARD_WINDOWS.values())
    counts, cents = [0] * len(spans), [0] * len(spans)
    last: Event | None = None
    merchants: set[str] = set()
    categories: set[str] = set()
    merchant_seen = category_seen = False
    for event in events:
        if not oldest <= event.timestamp < now:
            continue
        age = now - event.timestamp
        for place, span in enumerate(spans):
            if age <= span:
                counts[place] += 1
                cents[place] += event.amount_cents
        if last is None or event[:2] > last[:2]:
            last = event
        if age <= _DISTINCT_US:
            if event.merchant is not None:
                merchants.add(event.merchant)
            if event.category is not None:
                categories.add(event.category)
        merchant_seen = merchant_seen or event.merchant == query.merchant
        category_seen = category_seen or event.category == query.category
    place_of_last = (NAN, NAN, NAN) if last is None else (float(last.timestamp), last.latitude, last.longitude)
    return (
        *map(float, counts),
        *map(float, cents),
        *place_of_last,
        float(len(merchants)),
        float(len(categories)),
        NAN if query.merchant is None else float(merchant_seen),
        NAN if query.category is None else float(category_seen),
    )


def _merchant_state(query: Query, hours: Sequence[MerchantHour], reach: Reach) -> tuple[float, ...]:
    if query.merchant is None:
        return (NAN,) * (3 * len(MERCHANT_WINDOWS))
    now, settled = query.timestamp, query.timestamp - reach.delay_us
    spans = [min(span, reach.history_us) for span in MERCHANT_WINDOWS.values()]
    counts = [_sums(hours, *whole_hours(now - span, now), known_before=now // HOUR_US)[0] for span in spans]
    judged = [_sums(hours, *whole_hours(settled - span, settled), known_before=now // HOUR_US) for span in spans]
    return (
        *map(float, counts),
        *(float(payments - dropped) for payments, _, dropped in judged),
        *(float(frauds) for _, frauds, _ in judged),
    )


def _sums(hours: Sequence[MerchantHour], begin: int, end: int, known_before: int) -> tuple[int, int, int]:
    """Payments, frauds and dropped ones in hours of [begin, end), as far as known in hours before the one given."""
    payments = frauds = dropped = 0
    for hour in hours:
        if begin <= hour.hour < end and hour.known < known_before:
            payments += hour.payments
            frauds += hour.frauds
            dropped += hour.dropped
    return payments, frauds, dropped

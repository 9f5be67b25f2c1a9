"""Reason codes and wording of features: a code for programs, and the beginning of a sentence for people."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fraud_core.features.windows import CARD_WINDOWS, MERCHANT_WINDOWS, RECENT_WINDOWS
from fraud_core.signing.card_numbers import printable
from fraud_core.units.time import NIGHT_BEGINS, NIGHT_ENDS


@dataclass(frozen=True)
class Wording:
    """How one feature is spoken of.

    Attributes:
        code: the stem of its codes.
        missing: the subject of the sentence where the value is missing.
        phrase: value -> the subject of the sentence.
        scale: whether more and less mean something; codes then tell on which side of the training rows' median the value is.
    """

    code: str
    missing: str
    phrase: Callable[[Any], str]
    scale: bool = False


def _amount(log_amount: float) -> str:
    amount = math.expm1(log_amount)
    # the feature's grid does not hold the cents of millions
    return f"The amount of {amount:,.2f}" if amount < 1e6 else f"The amount of {amount / 1e6:,.2f} million"


def _night(night: int) -> str:
    begins, ends = f"{NIGHT_BEGINS:02d}:00", f"{NIGHT_ENDS:02d}:00"
    return f"The purchase at night, from {begins} to {ends}," if night else f"The purchase by day, from {ends} to {begins},"


def _distance(metres: int) -> str:
    return f"The distance of {_length(metres)} from home to the merchant"


_SPANS = {"1h": "hour", "1d": "day", "7d": "week", "30d": "30 days"}


def _said(words: str, shown: Callable[[Any], str]) -> Callable[[Any], str]:
    """A phrase with the value, as it is shown, in the place of {}."""
    return lambda value: words.format(shown(value))


def _number_of(one: str, many: str) -> Callable[[Any], str]:
    return lambda number: f"{number:,} {one if number == 1 else many}"


def _money(amount: float) -> str:
    return f"{amount:,.2f}"


def _duration(seconds: float) -> str:
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            return _number_of(unit, f"{unit}s")(int(seconds // length))
    return f"{seconds:.0f} seconds"


def _length(metres: float) -> str:
    return f"{metres:.0f} m" if metres < 1_000 else f"{metres / 1_000:,.{1 if metres < 10_000 else 0}f} km"


def _card_wordings() -> Iterator[tuple[str, Wording]]:
    past, alone, payments = (
        "The unknown past of the card",
        "The card's first payment in a long time",
        _number_of("payment", "payments"),
    )
    for window in CARD_WINDOWS:
        before, code = f"in the {_SPANS[window]} before", window.upper()
        count = _said(f"The card's {{}} {before}", payments)
        yield f"card_count_{window}", Wording(f"CARD_COUNT_{code}", past, count, scale=True)
        paid = _said(f"The {{}} that the card paid {before}", _money)
        yield f"card_sum_{window}", Wording(f"CARD_SUM_{code}", past, paid, scale=True)
        mean = _said(f"The card's mean payment of {{}} {before}", _money)
        yield f"card_mean_{window}", Wording(f"CARD_MEAN_{code}", f"The card's lack of payments {before}", mean, scale=True)
    for window in RECENT_WINDOWS:
        before, code = f"in the {_SPANS[window]} before", window.upper()
        greatest = _said(f"The card's greatest payment of {{}} {before}", _money)
        yield f"card_max_{window}", Wording(f"CARD_MAX_{code}", past, greatest, scale=True)
        nightly = _said(f"The card's {{}} at night {before}", payments)
        yield f"card_nights_{window}", Wording(f"CARD_NIGHTS_{code}", past, nightly, scale=True)
    times = _said("The amount of {} times the card's mean of 30 days", lambda times: f"{times:,.1f}")
    yield "amount_over_mean", Wording("AMOUNT_OVER_MEAN", alone, times, scale=True)
    since = _said("The time of {} since the card's last payment", _duration)
    yield "seconds_since_last", Wording("SINCE_LAST", alone, since, scale=True)
    far = _said("The distance of {} from the card's last merchant", _length)
    yield "distance_from_last", Wording("DISTANCE_FROM_LAST", alone, far, scale=True)
    fast = _said("The {} from the card's last merchant to this one", lambda speed: f"{speed * 3.6:,.0f} km/h")
    yield "speed_from_last", Wording("SPEED_FROM_LAST", alone, fast, scale=True)
    merchants = _said("The card's {} in the day before", _number_of("merchant", "merchants"))
    yield "card_merchants_1d", Wording("CARD_MERCHANTS_1D", past, merchants, scale=True)
    categories = _said("The card's {} in the day before", _number_of("category", "categories"))
    yield "card_categories_1d", Wording("CARD_CATEGORIES_1D", past, categories, scale=True)
    for subject in ("merchant", "category"):
        known = _said(f"The {subject}, {{}} to the card,", lambda new: "new" if new else "known")
        yield f"{subject}_new", Wording(f"{subject.upper()}_NEW", past, known)


def _merchant_wordings() -> Iterator[tuple[str, Wording]]:
    past = "The unknown past of the merchant"
    for window in MERCHANT_WINDOWS:
        span, code = _SPANS[window], window.upper()
        count = _said(f"The merchant's {{}} in the {span} before", _number_of("payment", "payments"))
        yield f"merchant_count_{window}", Wording(f"MERCHANT_COUNT_{code}", past, count, scale=True)
        rate = _said(f"The merchant's share of frauds of {{}} in the last settled {span}", lambda rate: f"{rate:.1%}")
        yield f"merchant_fraud_rate_{window}", Wording(f"MERCHANT_FRAUD_RATE_{code}", past, rate, scale=True)


_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

WORDINGS: Mapping[str, Wording] = {
    "log_amount": Wording("AMOUNT", "The unknown amount", _amount, scale=True),
    "hour": Wording("HOUR", "The unknown hour", lambda hour: f"The purchase between {hour:02d}:00 and {hour + 1:02d}:00"),
    "weekday": Wording("WEEKDAY", "The unknown weekday", lambda day: f"The purchase on a {_DAYS[day]}"),
    "night": Wording("DAY_OR_NIGHT", "The unknown time of day", _night),
    "age": Wording("AGE", "The unknown age of the cardholder", lambda age: f"The cardholder's age of {age}", scale=True),
    "distance": Wording("DISTANCE", "The unknown distance from home to the merchant", _distance, scale=True),
    "city_population": Wording(
        "CITY_POPULATION", "The unknown population of the city", lambda n: f"The city's population of {n:,}", scale=True
    ),
    "category": Wording("CATEGORY", "The unknown merchant category", lambda name: f'The merchant category "{printable(name)}"'),
    **dict(_card_wordings()),
    **dict(_merchant_wordings()),
}

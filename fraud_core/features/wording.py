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


def _history_wordings() -> Iterator[tuple[str, Wording]]:
    """Of the features of the past: what is said without a value, and with one in the place of {}, as it is shown."""
    past, alone, merchants_past = (
        "The unknown past of the card",
        "The card's first payment in a long time",
        "The unknown past of the merchant",
    )
    payments = _number_of("payment", "payments")
    said: list[tuple[str, str, str, Callable[[Any], str]]] = []
    for window in CARD_WINDOWS:
        before = f"in the {_SPANS[window]} before"
        said += [
            (f"card_count_{window}", past, f"The card's {{}} {before}", payments),
            (f"card_sum_{window}", past, f"The {{}} that the card paid {before}", _money),
            (f"card_mean_{window}", f"The card's lack of payments {before}", f"The card's mean payment of {{}} {before}", _money),
        ]
    for window in RECENT_WINDOWS:
        before = f"in the {_SPANS[window]} before"
        said.append((f"card_max_{window}", past, f"The card's greatest payment of {{}} {before}", _money))
        said.append((f"card_nights_{window}", past, f"The card's {{}} at night {before}", payments))
    said += [
        ("amount_over_mean", alone, "The amount of {} times the card's mean of 30 days", lambda times: f"{times:,.1f}"),
        ("seconds_since_last", alone, "The time of {} since the card's last payment", _duration),
        ("distance_from_last", alone, "The distance of {} from the card's last merchant", _length),
        ("speed_from_last", alone, "The {} from the card's last merchant to this one", lambda speed: f"{speed * 3.6:,.0f} km/h"),
        ("card_merchants_1d", past, "The card's {} in the day before", _number_of("merchant", "merchants")),
        ("card_categories_1d", past, "The card's {} in the day before", _number_of("category", "categories")),
    ]
    for window in MERCHANT_WINDOWS:
        span, share = _SPANS[window], "The merchant's share of frauds of {} in the last settled "
        said.append((f"merchant_count_{window}", merchants_past, f"The merchant's {{}} in the {span} before", payments))
        said.append((f"merchant_fraud_rate_{window}", merchants_past, share + span, lambda rate: f"{rate:.1%}"))
    for name, missing, words, shown in said:
        yield name, Wording(name.upper().removeprefix("SECONDS_"), missing, _said(words, shown), scale=True)
    for subject in ("merchant", "category"):
        known = _said(f"The {subject}, {{}} to the card,", lambda new: "new" if new else "known")
        yield f"{subject}_new", Wording(f"{subject.upper()}_NEW", past, known)


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
    **dict(_history_wordings()),
}

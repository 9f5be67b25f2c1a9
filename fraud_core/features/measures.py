"""History features out of window counts: arithmetic on whole numbers, the same to the last bit everywhere.

Each function takes arrays of equal length n, `windows.STATE` among them, and returns float64[n]; NaN: missing.
"""

from collections.abc import Callable, Mapping

import numpy as np

from fraud_core.units.arrays import Array
from fraud_core.units.geography import whole_metres

Inputs = Mapping[str, Array]
Measure = Callable[[Inputs], Array]


def count(state: str) -> Measure:
    """A number as it was counted."""
    return lambda inputs: inputs[state]


def total(cents: str) -> Measure:
    """A sum of cents, in currency units."""
    return lambda inputs: inputs[cents] / 100.0


def mean(cents: str, number: str) -> Measure:
    """Cents a payment, in currency units; missing without a payment."""
    return lambda inputs: _ratio(inputs[cents], inputs[number]) / 100.0


def rate(part: str, whole: str) -> Measure:
    """A share; missing where there is nothing to have a share of."""
    return lambda inputs: _ratio(inputs[part], inputs[whole])


def unseen(seen: str) -> Measure:
    """1 where it is new, 0 where it is known."""
    return lambda inputs: 1.0 - inputs[seen]


def amount_over_mean(inputs: Inputs) -> Array:
    """The amount as a multiple of the card's mean over 30 days; missing where that is nothing."""
    return _ratio(inputs["amount_cents"] * inputs["card_count_30d"], inputs["card_cents_30d"])


def seconds_since_last(inputs: Inputs) -> Array:
    """Since the card was last used."""
    seconds: Array = (inputs["timestamp"] - inputs["card_last_us"]) / 1e6
    return seconds


def distance_from_last(inputs: Inputs) -> Array:
    """Whole metres from the merchant where the card was last used."""
    places = ("card_last_latitude", "card_last_longitude", "merchant_latitude", "merchant_longitude")
    return whole_metres(*(inputs[name] for name in places))


def speed_from_last(inputs: Inputs) -> Array:
    """Metres a second that lie between the two."""
    return _ratio(distance_from_last(inputs), seconds_since_last(inputs))


def _ratio(part: Array, whole: Array) -> Array:
    something = whole > 0
    ratio: Array = np.where(something, part, np.nan) / np.where(something, whole, 1.0)
    return ratio

"""History features out of tallies: arithmetic on whole numbers, the same to the last bit everywhere.

Each function takes arrays of equal length n, tallies (see `windows.Tally`) among them by their names, and returns float64[n];
NaN: missing.
"""

from collections.abc import Callable, Mapping

import numpy as np

from fraud_core.units.arrays import Array
from fraud_core.units.geography import whole_metres

Inputs = Mapping[str, Array]
Compute = Callable[[Inputs], Array]


def count(tally: str) -> Compute:
    """A number as it was counted."""
    return lambda inputs: inputs[tally]


def total(units: str, scale: float) -> Compute:
    """A sum of whole units, so many of which are one."""
    return lambda inputs: inputs[units] / scale


def mean(units: str, number: str, scale: float) -> Compute:
    """Units a payment; missing without a payment."""
    return lambda inputs: _ratio(inputs[units], inputs[number]) / scale


def deviation(spread: str, number: str, scale: float) -> Compute:
    """The standard deviation of a sample (with n - 1); missing of fewer than two payments."""

    def compute(inputs: Inputs) -> Array:
        pairs = inputs[number] * (inputs[number] - 1.0)
        found: Array = np.sqrt(_ratio(inputs[spread], pairs)) / scale
        return found

    return compute


def extreme(units: str, scale: float, nothing: float | None) -> Compute:
    """The greatest or the least; `nothing` where nothing happened, of which the tally is infinite."""
    empty = np.nan if nothing is None else nothing
    return lambda inputs: np.where(np.isinf(inputs[units]), empty, inputs[units] / scale)


def rate(part: str, whole: str) -> Compute:
    """A share; missing where there is nothing to have a share of."""
    return lambda inputs: _ratio(inputs[part], inputs[whole])


def unseen(seen: str) -> Compute:
    """1 where it is new, 0 where it is known."""
    return lambda inputs: 1.0 - inputs[seen]


def amount_over_mean(cents: str, number: str) -> Compute:
    """The amount as a multiple of the mean of past ones; missing where that is nothing."""
    return lambda inputs: _ratio(inputs["amount_cents"] * inputs[number], inputs[cents])


def seconds_since(moment: str) -> Compute:
    """Since a moment in the past."""

    def compute(inputs: Inputs) -> Array:
        seconds: Array = (inputs["timestamp"] - inputs[moment]) / 1e6
        return seconds

    return compute


def distance_from(latitude: str, longitude: str) -> Compute:
    """Whole metres from the merchant where the card was last used."""
    places = (latitude, longitude, "merchant_latitude", "merchant_longitude")
    return lambda inputs: whole_metres(*(inputs[name] for name in places))


def speed_from(latitude: str, longitude: str, moment: str) -> Compute:
    """Metres a second that lie between the two."""
    distance, seconds = distance_from(latitude, longitude), seconds_since(moment)
    return lambda inputs: _ratio(distance(inputs), seconds(inputs))


def _ratio(part: Array, whole: Array) -> Array:
    something = whole > 0
    ratio: Array = np.where(something, part, np.nan) / np.where(something, whole, 1.0)
    return ratio

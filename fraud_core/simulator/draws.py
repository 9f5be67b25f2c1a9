"""Random draws of the simulator: streams of numbers by day and by person, and vectorised choices."""

from enum import IntEnum

import numpy as np

from fraud_core.units.arrays import Array

DAY = 86_400
HOUR = 3_600


class Stream(IntEnum):
    """Independent streams of random numbers, so that a change in one leaves the others as they were."""

    POPULATION = 1
    TRIPS = 2
    HABITS = 3
    SHIFT = 4
    CAMPAIGNS = 5  # and one more for each kind of fraud; keep this one last


def pick(scale: Array, rng: np.random.Generator, count: int) -> Array:
    """Positions drawn from a cumulative scale that ends at 1."""
    return np.searchsorted(scale, rng.random(count), side="right")


def scaled(weights: Array) -> Array:
    """Cumulative weights along the last axis: exactly 1 from the last positive weight on, so that no u below 1 passes it."""
    total = np.cumsum(weights, axis=-1)
    scale: Array = total / total[..., -1:]
    return scale


def ragged_ranges(sizes: Array) -> tuple[Array, Array]:
    """For groups of these sizes, laid end to end: the group of each row, and the row's position in its group."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    return group, np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def running_sum(steps: Array, position: Array) -> Array:
    """Sums within each group, zero at its first row."""
    total = np.cumsum(np.where(position == 0, 0.0, steps))
    sums: Array = total - total[np.arange(len(total)) - position]
    return sums


def mean_of(bounds: tuple[int, int]) -> float:
    """Mean of `rng.integers(*bounds)`."""
    return (bounds[0] + bounds[1] - 1) / 2


def hashed(*keys: Array | int) -> Array:
    """64 random bits for each row of whole keys: the same keys give the same bits, whatever rows stand beside them.

    Steele, Lea and Flood 2014, SplitMix64, with one round a key.
    """
    with np.errstate(over="ignore"):
        state: Array = np.full(1, 0x9E3779B97F4A7C15, dtype=np.uint64)
        for key in keys:
            state = state * np.uint64(0xD1342543DE82EF95) + np.atleast_1d(np.asarray(key)).astype(np.uint64)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


def uniform(*keys: Array | int) -> Array:
    """A number from [0, 1) for each row of whole keys; see `hashed`."""
    return (hashed(*keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def below(bound: int, *keys: Array | int) -> Array:
    """A whole number from [0, bound) for each row of whole keys; see `hashed`."""
    return (uniform(*keys) * bound).astype(np.int64)

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

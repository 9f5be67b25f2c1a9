"""The drift statistics that there are. A new one is a class of its own in a file beside this, and has its features here."""

from collections.abc import Collection

from fraud_core.gate.distances.cramers_v import CramersV
from fraud_core.gate.distances.distance import Distance
from fraud_core.gate.distances.kolmogorov_smirnov import KolmogorovSmirnov

NUMBERS: Distance = KolmogorovSmirnov()
CATEGORIES: Distance = CramersV()


def distance_of(name: str, categories: Collection[str]) -> Distance:
    """The statistic by which a feature is compared, given the names of those that hold categories."""
    return CATEGORIES if name in categories else NUMBERS

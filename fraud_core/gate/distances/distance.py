"""Drift statistic: a test, a distance, and which distance is natural, all of one kind of feature in one class in one file."""

from abc import ABC, abstractmethod

from fraud_core.units.arrays import Array


class Distance(ABC):
    """How far one sample of a feature's values lies from another. `catalogue` lists the statistics that there are.

    Attributes:
        measure: what verdicts call it.
    """

    measure: str

    @abstractmethod
    def test(self, reference: Array, current: Array) -> tuple[float, float]:
        """A two-sample test of m and n values without missing ones: its statistic, and the p-value, uncorrected."""

    @abstractmethod
    def measured(self, reference: Array, current: Array, tested: float, clustering: float) -> tuple[float, float]:
        """The distance, 0 to 1, and the noise that two samples of one distribution stay under 99 times of 100.

        Args:
            reference, current: m and n values without missing ones.
            tested: the statistic of the test.
            clustering: see below; 0 where cards are not known.
        """

    @abstractmethod
    def clustering(self, values: Array, cards: Array) -> float:
        """Mean correlation of two rows, drawn without replacement, that comes from their sharing a card; 0 or more.

        Rows of one card are alike, so n of them tell less than n: a month of 500 people tells their age 500 times, not 20,000
        times. A mean over n rows has the variance 1/n + clustering instead of 1/n, which is Kish's design effect (1965, section
        5.4).

        Args:
            values: n of them.
            cards: n integers; rows with the same one belong together.
        """

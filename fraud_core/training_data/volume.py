"""Row counts and fraud rates of partitions against what is usual. Neither blocks; both are findings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

from fraud_core.sources.source import Source
from fraud_core.units.time import local_date, midnight

USUAL_FACTOR = 3.0  # so many times more or fewer rows than the median of earlier partitions are a finding, of the gate, too
LEAST_HISTORY = 3  # partitions, before their median means anything,
LEAST_RATES = 6  # and before the spread of their fraud rates does
LEAST_EXPECTED_FRAUDS = 5.0  # with fewer expected, a rate is chance
RATE_FACTOR = 1.5  # a smaller change of the fraud rate is no finding, however certain it is
RATE_SIGNIFICANCE = 0.001  # of the prediction interval


@dataclass(frozen=True)
class Count:
    """Rows of a partition whose labels are mature, and the frauds among them."""

    rows: int
    frauds: int

    @property
    def rate(self) -> float:
        """Fraud rate, half a fraud added, so that its logarithm exists."""
        return (self.frauds + 0.5) / (self.rows + 1)


@dataclass(frozen=True)
class CheckResult:
    """Whether a figure is as usual; `low` and `high` are what is usual, None where nothing is known yet."""

    usual: bool
    message: str
    value: float
    low: float | None = None
    high: float | None = None


def usual_rows(earlier: Sequence[float]) -> tuple[float, float]:
    """Least and most rows that are usual after so many in earlier partitions (or so many a day)."""
    typical = median(earlier)
    return typical / USUAL_FACTOR, typical * USUAL_FACTOR


def judge_rows(rows: int, days: float, bounds: tuple[float, float] | None, earlier: Sequence[float]) -> CheckResult:
    """Judge the rows a day.

    Args:
        rows: of the partition.
        days: its length.
        bounds: least and most rows a day, from the source's TOML.
        earlier: rows a day of the accepted partitions before it; they stand in where the TOML gives no bounds.
    """
    value = rows / days
    if bounds is None and len(earlier) < LEAST_HISTORY:
        return CheckResult(True, f"{value:,.0f} rows a day; too few partitions came before to say what is usual.", value)
    if bounds is None:
        bounds = usual_rows(earlier)
    low, high = bounds
    return CheckResult(low <= value <= high, f"{value:,.0f} rows a day; {low:,.0f} to {high:,.0f} are usual.", value, low, high)


def judge_fraud_rate(current: Count, earlier: Sequence[Count]) -> CheckResult:
    """Judge the fraud rate by a prediction interval on its logarithm, from the accepted partitions before.

    The interval is Student's for one further draw (Hahn and Meeker, Statistical Intervals, 1991, section 4.8); a partition of
    which only some rows are mature is allowed the more noise of its fewer frauds. Frauds come in bursts, a card at a time, so
    the spread between partitions is measured, not taken from the binomial.

    Args:
        current: of the partition.
        earlier: of the accepted partitions before it.
    """
    said = f"{current.frauds} of {current.rows:,} rows with mature labels are fraud"
    earlier = [count for count in earlier if count.rows]
    if current.rows == 0:
        return CheckResult(True, "No row's label is mature yet; this is judged again when they are.", 0.0)
    value = current.frauds / current.rows
    if len(earlier) < LEAST_RATES:
        return CheckResult(True, f"{said}; too few partitions came before to say what is usual.", value)
    logs = [math.log(count.rate) for count in earlier]
    k, mean = len(logs), sum(logs) / len(logs)
    expected = current.rows * math.exp(mean)
    if expected < LEAST_EXPECTED_FRAUDS:
        return CheckResult(True, f"{said}; {expected:.1f} were to be expected, too few to judge a rate.", value)
    between = sum((log - mean) ** 2 for log in logs) / (k - 1)
    chance = max(0.0, 1 / expected - sum(1 / (count.frauds + 0.5) for count in earlier) / k)
    reach = _student(k - 1) * math.sqrt(between * (1 + 1 / k) + chance)
    reach = max(reach, math.log(RATE_FACTOR))
    low, high = math.exp(mean - reach), min(math.exp(mean + reach), 1.0)
    message = f"{said} ({value:.2%}); {low:.2%} to {high:.2%} are usual."
    return CheckResult(low <= current.rate <= high, message, value, low, high)


def mature_until(source: Source, last_us: int) -> datetime:
    """The instant before which labels are mature, given the last transaction's (microseconds since 1970), as the split has it."""
    return midnight(local_date(last_us, source.zone) + timedelta(days=1 - source.label_delay_days), source.zone)


def _student(freedom: int) -> float:
    """The two-sided quantile of Student's t."""
    from scipy.special import stdtrit  # noqa: PLC0415 - only the pipeline judges

    return float(stdtrit(freedom, 1 - RATE_SIGNIFICANCE / 2))

"""Window counts for columns of payments (batch engine): from a partition's own rows and those that it looks back into.

Windows are pairs of places in the payments sorted by card and time, found by binary search; sums are differences of running
sums of whole numbers. A payment that counts in a contiguous run of windows is added at its first and taken off after its last.
"""

from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import polars as pl

from fraud_core.features.windows import CARD_WINDOWS, DISTINCT_WINDOW, MERCHANT_WINDOWS, RECENT_WINDOWS, STATE, Reach
from fraud_core.units.arrays import Floats, Integers
from fraud_core.units.time import HOUR_US, is_night, local_us

COLUMNS = (
    "transaction_id",
    "timestamp",
    "amount_cents",
    "label",
    "card",
    "merchant",
    "category",
    "merchant_latitude",
    "merchant_longitude",
)
CORRECTIONS = {"merchant": pl.String(), "hour": pl.Int64(), "known": pl.Int64(), "frauds": pl.Int64(), "dropped": pl.Int64()}


def states(
    payments: pl.DataFrame, wanted: pl.Series, reach: Reach, zone: ZoneInfo, corrections: pl.DataFrame | None = None
) -> pl.DataFrame:
    """What card and merchant did before each wanted payment.

    Args:
        payments: those of `COLUMNS` that the source has, one row a payment, in any order; of the wanted ones and all within
            reach before them. A null card or merchant has no history.
        wanted: bool, which of the payments are asked about.
        reach: how far back anything counts.
        zone: the source's, which says what is night.
        corrections: see `CORRECTIONS`; what labels changed in an hour of a merchant since the hour `known`: frauds and
            dropped payments, added to those of `label`.

    Returns:
        Float64 columns `windows.STATE` (NaN: missing), a row a wanted payment, in their order.
    """
    result = {name: np.full(len(payments), np.nan) for name in STATE}
    numbered = payments.with_columns(pl.col("timestamp").dt.epoch("us")).with_row_index("row")
    if "card" in payments.columns:
        _card_states(numbered.filter(pl.col("card").is_not_null()), reach, zone, result)
    if "merchant" in payments.columns:
        _merchant_states(numbered.filter(pl.col("merchant").is_not_null()), wanted, reach, corrections, result)
    return pl.DataFrame({name: values[wanted.to_numpy()] for name, values in result.items()})


def _card_states(payments: pl.DataFrame, reach: Reach, zone: ZoneInfo, result: dict[str, Floats]) -> None:
    if payments.is_empty():
        return
    payments = payments.sort("card", "timestamp", "transaction_id")
    rows = payments["row"].to_numpy()
    times = payments["timestamp"].to_numpy()
    groups = _Groups(_codes(payments["card"]), times)
    amounts = payments["amount_cents"].to_numpy()
    cents, nights = _running(amounts), _running(is_night(local_us(times, zone)))
    end = groups.first_from(times)
    since = _since(groups, times, end, reach)
    for name, span in CARD_WINDOWS.items():
        begin = groups.first_from(np.maximum(times - span, since))
        result[f"card_count_{name}"][rows] = end - begin
        result[f"card_cents_{name}"][rows] = cents[end] - cents[begin]
        if name in RECENT_WINDOWS:
            result[f"card_greatest_cents_{name}"][rows] = _greatest(amounts, begin, end)
            result[f"card_nights_{name}"][rows] = nights[end] - nights[begin]
    oldest = groups.first_from(since)
    used = end > oldest
    last = np.where(used, end - 1, 0)
    result["card_last_us"][rows] = np.where(used, times[last].astype(np.float64), np.nan)
    for axis in ("latitude", "longitude"):
        if f"merchant_{axis}" in payments.columns:
            places = payments[f"merchant_{axis}"].cast(pl.Float64).fill_null(np.nan).to_numpy() + 0.0  # minus zero is zero
            result[f"card_last_{axis}"][rows] = np.where(used, places[last], np.nan)
    begin = groups.first_from(np.maximum(times - CARD_WINDOWS[DISTINCT_WINDOW], since))
    for column, distinct in (("merchant", "card_merchants"), ("category", "card_categories")):
        if column not in payments.columns:
            result[distinct][rows] = 0
            continue
        named = payments[column].is_not_null().to_numpy()
        before, seen = _occurrences(groups, _codes(payments[column]), times, since)
        result[distinct][rows] = _distinct(begin, end, before, named)
        result[f"{column}_seen"][rows] = np.where(named, seen, np.nan)


def _since(groups: "_Groups", times: Integers, end: Integers, reach: Reach) -> Integers:
    """For each payment the instant from which on the card's payments before it (up to `end`) count."""
    since = times - reach.history_us
    busy = np.flatnonzero(end - groups.first_from(since) > reach.newest_events)
    since[busy] = times[end[busy] - reach.newest_events - 1] + 1
    return since


def _occurrences(groups: "_Groups", values: Integers, times: Integers, since: Integers) -> tuple[Integers, npt.NDArray[np.bool_]]:
    """For each payment: the place of the card's previous payment with the same value (-1: none), which may be of equal time; and
    whether one counts: from `since` on, and strictly before it."""
    order = np.lexsort((values, groups.codes))  # stable: payments of a card with the same value stay in order of time
    pairs = groups.codes[order] * (int(values.max(initial=0)) + 2) + values[order] + 1
    same = np.concatenate([[False], pairs[1:] == pairs[:-1]])
    before = np.full(len(order), -1, dtype=np.int64)
    before[order[same]] = order[np.flatnonzero(same) - 1]
    strict = _Groups(np.cumsum(~same) - 1, times[order])
    places = strict.first_from(times[order])
    seen = np.zeros(len(order), dtype=bool)
    seen[order] = places > strict.first_from(since[order])
    return before, seen


def _distinct(begin: Integers, end: Integers, before: Integers, named: npt.NDArray[np.bool_]) -> Integers:
    """How many different values lie at the places [begin, end) of each window; begins and ends never decrease.

    A value counts where it stands first within the window: from the first window that holds its payment and no longer the one
    before with the same value, to the last that holds it.
    """
    places = np.flatnonzero(named)
    first = np.maximum(np.searchsorted(end, places, side="right"), np.searchsorted(begin, before[places], side="right"))
    after = np.searchsorted(begin, places, side="right")
    return _spread(first, after, np.ones(len(places), dtype=np.int64), len(begin))


def _greatest(values: Integers, begin: Integers, end: Integers) -> Integers:
    """The greatest of `values[begin:end]` for each pair of places; 0 where they are equal. No value is negative.

    Two runs of a power of two cover a window (a sparse table, Bender and Farach-Colton 2000); one such power is held at a time.
    """
    lengths = end - begin
    result = np.zeros(len(lengths), dtype=np.int64)
    greatest, run = values, 1  # the greatest of `run` values from each place on
    while True:
        fitting = np.flatnonzero((lengths >= run) & (lengths < 2 * run))
        result[fitting] = np.maximum(greatest[begin[fitting]], greatest[end[fitting] - run])
        if not np.any(lengths >= 2 * run):
            return result
        greatest = np.maximum(greatest[:-run], greatest[run:])
        run *= 2


def _merchant_states(
    payments: pl.DataFrame, wanted: pl.Series, reach: Reach, corrections: pl.DataFrame | None, result: dict[str, Floats]
) -> None:
    hours = payments.group_by("merchant", (pl.col("timestamp") // HOUR_US).alias("hour"), maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("payments"),
        (pl.col("label").cast(pl.Int64).sum() if "label" in payments.columns else pl.lit(0, pl.Int64)).alias("frauds"),
    )
    asked = payments.filter(wanted.gather(payments["row"])).sort("merchant", "timestamp")
    if asked.is_empty():
        return
    hours = hours.join(asked.select("merchant").unique(), on="merchant", how="semi").sort("merchant", "hour")
    names = pl.Series(asked["merchant"].unique().sort())
    places = _Groups(_places(names, hours["merchant"]), hours["hour"].to_numpy())
    mine = _places(names, asked["merchant"])
    times, rows = asked["timestamp"].to_numpy(), asked["row"].to_numpy()
    counted, frauds = _running(hours["payments"].to_numpy()), _running(hours["frauds"].to_numpy())
    changed = None if corrections is None or corrections.is_empty() else _Corrections(corrections, names, mine, times)
    for name, span in MERCHANT_WINDOWS.items():
        window = min(span, reach.history_us)
        begin, end = places.between(mine, *_whole_hours(times - window, times))
        result[f"merchant_count_{name}"][rows] = counted[end] - counted[begin]
        settled = times - reach.delay_us
        span_of_hours = _whole_hours(settled - window, settled)
        begin, end = places.between(mine, *span_of_hours)
        found, judged = frauds[end] - frauds[begin], counted[end] - counted[begin]
        if changed is not None:
            found, judged = found + changed.sums("frauds", *span_of_hours), judged - changed.sums("dropped", *span_of_hours)
        result[f"merchant_frauds_{name}"][rows] = found
        result[f"merchant_judged_{name}"][rows] = judged


class _Corrections:
    """What labels changed, for payments that are sorted by merchant and time."""

    def __init__(self, corrections: pl.DataFrame, names: pl.Series, merchants: Integers, times: Integers) -> None:
        self._frame = corrections.join(names.to_frame("merchant"), on="merchant", how="semi")
        self._merchants = _places(names, self._frame["merchant"])
        self._asked = merchants
        self._now = _Groups(merchants, times // HOUR_US)

    def sums(self, column: str, begins: Integers, ends: Integers) -> Integers:
        """For each payment: what was known in hours before its own about the hours [begin, end)."""
        hours = self._frame["hour"].to_numpy()
        ended = _Groups(self._asked, ends).place_of(self._merchants, hours + 1)  # the first payment with end > hour
        known = self._now.place_of(self._merchants, self._frame["known"].to_numpy() + 1)
        gone = _Groups(self._asked, begins).place_of(self._merchants, hours + 1)  # the first with begin > hour
        return _spread(np.maximum(ended, known), gone, self._frame[column].to_numpy(), len(self._asked))


class _Groups:
    """Whole numbers that never decrease within a group; groups lie one after the other, by their code."""

    def __init__(self, codes: Integers, values: Integers) -> None:
        self.codes = codes
        self._distinct = np.unique(values)
        self._width = len(self._distinct) + 1  # codes and ranks together fit into 64 bits where codes and values would not
        self._keys = codes * self._width + np.searchsorted(self._distinct, values)

    def place_of(self, codes: Integers, values: Integers) -> Integers:
        """The first place in the group of each code with a number of at least the value given, or the group's end."""
        return np.searchsorted(self._keys, codes * self._width + np.searchsorted(self._distinct, values)).astype(np.int64)

    def first_from(self, values: Integers) -> Integers:
        """The same for every place, in its own group."""
        return self.place_of(self.codes, values)

    def between(self, codes: Integers, begins: Integers, ends: Integers) -> tuple[Integers, Integers]:
        """Places of the numbers in [begin, end)."""
        begin = self.place_of(codes, begins)
        return begin, np.maximum(begin, self.place_of(codes, ends))


def _spread(first: Integers, after: Integers, amounts: Integers, length: int) -> Integers:
    """Each amount, added to the places [first, after)."""
    kept = first < after
    steps = np.zeros(length + 1, dtype=np.int64)
    np.add.at(steps, first[kept], amounts[kept])
    np.subtract.at(steps, after[kept], amounts[kept])
    return np.cumsum(steps)[:-1]


def _running(values: npt.NDArray[Any]) -> Integers:
    """Sums of all values before each place, and of all."""
    return np.concatenate([[0], np.cumsum(values, dtype=np.int64)])


def _codes(names: pl.Series) -> Integers:
    """Whole numbers from 0 in order of first appearance; -1: null."""
    codes = names.rank("dense").cast(pl.Int64) - 1
    return codes.fill_null(-1).to_numpy()


def _places(names: pl.Series, wanted: pl.Series) -> Integers:
    """Where each wanted name stands among the (sorted, distinct) names."""
    return names.search_sorted(wanted).cast(pl.Int64).to_numpy()


def _whole_hours(begins: Integers, ends: Integers) -> tuple[Integers, Integers]:
    """`windows.whole_hours` for columns."""
    return -(-begins // HOUR_US), ends // HOUR_US

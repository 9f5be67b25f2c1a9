"""One payment's past counted alone, from memory or out of a store, is bit for bit that of the columns."""

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fraud_core.features import batch, online
from fraud_core.features.online import NO_HOURS, Correction, MerchantHours, Past, Query
from fraud_core.features.windows import CARD_WINDOWS, STATE, Reach
from fraud_core.history.sqlite import SqliteHistory
from fraud_core.history.store import Heard
from fraud_core.units.time import DAY_US, HOUR_US

NOON = int(datetime(2024, 5, 1, 12, tzinfo=UTC).timestamp()) * 1_000_000
REACH = Reach.of_days(history_days=9, label_delay_days=2)  # shorter than the longest window
REACHES = st.sampled_from([REACH, *(replace(REACH, newest_events=most) for most in (1, 2, 3, 5))])  # few, so that cards are busy
ZONE = ZoneInfo("America/New_York")  # whose night is not that of UTC
SCHEMA = {
    "transaction_id": pl.String(),
    "timestamp": pl.Int64(),
    "amount_cents": pl.Int64(),
    "label": pl.Boolean(),
    "card": pl.String(),
    "merchant": pl.String(),
    "category": pl.String(),
    "merchant_latitude": pl.Float64(),
    "merchant_longitude": pl.Float64(),
}

# Distances that lie on a border or a microsecond beside it, and any others, so that equal times and full windows are common.
_SPANS = [0, HOUR_US, *CARD_WINDOWS.values(), REACH.delay_us, REACH.history_us, REACH.total_us, REACH.delay_us + DAY_US]
_DISTANCES = st.builds(
    lambda span, beside: span + beside, st.sampled_from(_SPANS), st.sampled_from([-HOUR_US, -1, 0, 1, HOUR_US])
)
_TIMES = st.builds(
    lambda base, distance: base - distance,
    st.sampled_from([NOON, NOON + 1, NOON + 17 * 60_000_000]),
    _DISTANCES | st.integers(0, REACH.total_us + DAY_US),
)
_PAYMENTS = st.lists(
    st.tuples(
        _TIMES,
        st.integers(0, 10**11),
        st.booleans(),
        st.sampled_from(["c1", "c2", None]),
        st.sampled_from(["m1", "m2", "m3", None]),
        st.sampled_from(["gas", "net", None]),
        st.sampled_from([45.25, -0.0, None]),
    ),
    max_size=12,
)
_CORRECTIONS = st.lists(
    st.tuples(
        st.sampled_from(["m1", "m2"]),
        _TIMES.map(lambda time: time // HOUR_US),
        st.integers(0, 300),
        st.integers(-1, 1),
        st.integers(0, 1),
    ),
    max_size=4,
)


def table(rows: Sequence[Sequence[Any]]) -> pl.DataFrame:
    """Payments whose ids do not rise with their places."""
    numbered = [(f"t{(7 * place) % 13:02d}", *row, row[-1]) for place, row in enumerate(rows)]
    return pl.DataFrame(numbered, schema=SCHEMA, orient="row").with_columns(pl.col("timestamp").cast(pl.Datetime("us", "UTC")))


def changes(rows: Sequence[tuple[str, int, int, int, int]]) -> dict[str, list[Correction]]:
    found: dict[str, list[Correction]] = defaultdict(list)
    for merchant, hour, later, frauds, dropped in rows:
        found[merchant].append(Correction(hour, hour + later, frauds, dropped))
    return found


def corrections_frame(corrected: dict[str, list[Correction]]) -> pl.DataFrame:
    rows = [(merchant, *one) for merchant, some in corrected.items() for one in some]
    return pl.DataFrame(rows, schema=batch.CORRECTIONS, orient="row")


def queries(payments: pl.DataFrame) -> list[Query]:
    asked = payments.select(pl.col("timestamp").dt.epoch("us"), "card", "merchant", "category")
    return [Query(*row) for row in asked.iter_rows()]


def in_memory(payments: pl.DataFrame, corrected: dict[str, list[Correction]], query: Query) -> Past:
    """The past out of all payments, whatever their age."""
    rows = payments.with_columns(pl.col("timestamp").dt.epoch("us")).sort("timestamp", "transaction_id")
    card = rows.filter(pl.col("card") == query.card) if query.card is not None else rows.clear()
    seen = card.select("timestamp", "amount_cents", "merchant", "category", "merchant_latitude", "merchant_longitude").rows()
    if query.merchant is None:
        return Past(0, seen, NO_HOURS)
    begin, end = NOON // HOUR_US - 24 * 40, NOON // HOUR_US + 24
    counts = np.zeros((end - begin, 2), dtype=np.int32)
    for time, fraud in rows.filter(pl.col("merchant") == query.merchant).select("timestamp", "label").iter_rows():
        counts[time // HOUR_US - begin] += (1, fraud)
    return Past(0, seen, MerchantHours(begin, counts, corrected.get(query.merchant, [])))


def same(payments: pl.DataFrame, corrected: dict[str, list[Correction]], pasts: Sequence[Past], reach: Reach) -> None:
    """That each past gives what the columns have, bit for bit."""
    counted = [online.state_asof(query, past, reach, ZONE) for query, past in zip(queries(payments), pasts, strict=True)]
    everything = pl.Series([True] * len(payments), dtype=pl.Boolean)
    expected = batch.states(payments, everything, reach, ZONE, corrections_frame(corrected))
    assert np.array(counted, dtype=np.float64).reshape(-1, len(STATE)).tobytes() == expected.to_numpy().tobytes(order="C")


BORDER = (NOON - REACH.history_us, 5, True, "c1", "m1", "gas", 45.25)
NEXT = (NOON, 7, False, "c1", "m1", None, None)
AFTER = (NOON + 1, 9, False, "c1", "m1", "net", -0.0)
SETTLED = NOON - REACH.delay_us - HOUR_US
LATE = ("m1", SETTLED // HOUR_US, 48, 1, 1)  # known in the very hour of the next one


@settings(deadline=None, max_examples=100)
@given(_PAYMENTS, _CORRECTIONS, REACHES)
@example([BORDER, NEXT, NEXT, NEXT], [], REACH)
@example([BORDER, *[NEXT] * 5, AFTER], [], replace(REACH, newest_events=3))
@example(
    [(NOON - REACH.delay_us - HOUR_US, 5, False, "c1", "m1", "gas", 1.0), NEXT],
    [("m1", (NOON - REACH.delay_us) // HOUR_US - 1, 48, 1, 1)],
    REACH,
)
def test_one_payment_in_memory_has_the_past_that_the_columns_have(rows: list[Any], corrections: list[Any], reach: Reach) -> None:
    payments, corrected = table(rows), changes(corrections)
    same(payments, corrected, [in_memory(payments, corrected, query) for query in queries(payments)], reach)


@settings(deadline=None, max_examples=40)
@given(_PAYMENTS, _CORRECTIONS, REACHES)
@example([BORDER, NEXT, NEXT, NEXT], [], REACH)
@example([BORDER, *[NEXT] * 5, AFTER], [], replace(REACH, newest_events=3))
def test_one_payment_through_sqlite_has_the_past_that_the_columns_have(
    rows: list[Any], corrections: list[Any], reach: Reach
) -> None:
    payments, corrected = table(rows), changes(corrections)
    with tempfile.TemporaryDirectory() as folder:
        # Kept for longer than it is counted, so that each payment can be asked about after all of them came in.
        store = SqliteHistory(Path(folder) / "history.sqlite", Reach.of_days(30, 30), 1_000)
        store.load(payments)
        store.correct(corrected, Heard(), Heard(1, ()))
        store.reach = reach
        pasts = store.look(queries(payments))
        store.close()
    same(payments, corrected, pasts, reach)

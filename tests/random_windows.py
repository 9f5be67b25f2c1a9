"""Random payments, corrections and declarations of windows; and that both engines tell the same past of them, bit for bit."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
from hypothesis import strategies as st

from fraud_core.features import batch, online
from fraud_core.features.catalogue import STANDARD_PLAN, catalogue_of, plan_of
from fraud_core.features.online import NO_HOURS, Correction, EntityHours, Events, Past, Query
from fraud_core.features.windows import Plan, Reach, Tally
from fraud_core.fields.declared import Declared
from fraud_core.history.layout import events_of
from fraud_core.history.store import Entry, Heard, HistoryStore, hours_key
from fraud_core.units.time import DAY_US, HOUR_US
from tests.history_features import CARD_SPANS

NOON = int(datetime(2024, 5, 1, 12, tzinfo=UTC).timestamp()) * 1_000_000
REACH = Reach.of_days(history_days=9, label_delay_days=2)  # shorter than the longest window
REACHES = st.sampled_from([REACH, *(replace(REACH, newest_events=most) for most in (1, 2, 3, 5))])  # few, so that cards are busy
ZONE = ZoneInfo("America/New_York")  # whose night is not that of UTC
FIELDS: dict[str, Any] = {
    "device": {"kind": "id"},
    "channel": {"kind": "category"},
    "failed": {"kind": "flag"},
    "basket": {"kind": "number"},
}
SCHEMA = {
    "transaction_id": pl.String(),
    "timestamp": pl.Int64(),
    "amount_cents": pl.Int64(),
    "label": pl.Boolean(),
    "card": pl.String(),
    "merchant": pl.String(),
    "category": pl.String(),
    "merchant_latitude": pl.Float64(),
    "device": pl.String(),
    "channel": pl.String(),
    "failed": pl.Boolean(),
    "basket": pl.Float64(),
    "refund": pl.Boolean(),
    "merchant_longitude": pl.Float64(),
}

# Distances that lie on a border or a microsecond beside it, and any others, so that equal times and full windows are common.
_SPANS = [0, HOUR_US, *CARD_SPANS.values(), REACH.delay_us, REACH.history_us, REACH.total_us, REACH.delay_us + DAY_US]
_DISTANCES = st.builds(
    lambda span, beside: span + beside, st.sampled_from(_SPANS), st.sampled_from([-HOUR_US, -1, 0, 1, HOUR_US])
)
_TIMES = st.builds(
    lambda base, distance: base - distance,
    st.sampled_from([NOON, NOON + 1, NOON + 17 * 60_000_000]),
    _DISTANCES | st.integers(0, REACH.total_us + DAY_US),
)
PAYMENTS = st.lists(
    st.tuples(
        _TIMES,
        st.integers(0, 10**11),
        st.booleans(),
        st.sampled_from(["c1", "c2", None]),
        st.sampled_from(["m1", "m2", "m3", None]),
        st.sampled_from(["gas", "net", None]),
        st.sampled_from([45.25, -0.0, None]),
        st.sampled_from(["d1", "d2", None]),
        st.sampled_from(["web", "pos", None]),
        st.sampled_from([True, False, None]),
        st.sampled_from([None, 0.0, -0.0, 1.5, -2.25, 1e-5, 0.00015, 8e9, 1e30]) | st.floats(-1e9, 1e9),
        st.sampled_from([True, False, False, None]),
    ),
    max_size=12,
)
CORRECTIONS = st.lists(
    st.tuples(
        st.sampled_from([("merchant", "m1"), ("merchant", "m2"), ("device", "d1"), ("card", "c1")]),
        _TIMES.map(lambda time: time // HOUR_US),
        st.integers(0, 300),
        st.integers(-1, 1),
        st.integers(0, 1),
    ),
    max_size=4,
)
_SPAN_SETS = st.lists(st.sampled_from(["1m", "1h", "90m", "1d", "7d"]), min_size=0, max_size=2, unique=True)
_WHERES = st.sampled_from(
    [
        {},
        {"failed": [True]},
        {"failed": [True, False]},
        {"channel": ["web"]},
        {"channel": ["web", "pos"], "failed": [False]},
        {"night": [True]},
        {"night": [False], "channel": ["pos"]},
        {"device": ["d1"]},
        {"refund": [True]},
    ]
)
_OVER = {
    "sum": ["amount", "basket"],
    "mean": ["amount", "basket"],
    "max": ["amount", "basket"],
    "min": ["amount", "basket"],
    "std": ["amount", "basket"],
    "distinct": ["card", "merchant", "category", "channel", "failed", "basket", "device"],
    "share": ["failed"],
}
_EVENT_MEASURES = [*_OVER, "count", "seconds_since_last", "seconds_since_first", "seen_before"]


@st.composite
def _windows(draw: st.DrawFn) -> dict[str, Any]:
    """A window over payments, or over hours, of any entity."""
    entity = draw(st.sampled_from(["card", "merchant", "device"]))
    window: dict[str, Any] = {"of": entity, "spans": draw(_SPAN_SETS)}
    if draw(st.integers(0, 4)) == 0:
        return window | {"measure": draw(st.sampled_from(["fraud_rate", "fraud_count", "hourly_count"]))}
    measure = draw(st.sampled_from(_EVENT_MEASURES))
    window |= {"measure": measure, "where": draw(_WHERES), "newest": draw(st.sampled_from([None, 1, 2, 4]))}
    if measure in _OVER:
        window["over"] = draw(st.sampled_from(_OVER[measure]))
    second = draw(st.sampled_from([None, None, "card", "merchant", "device", "channel", "category"]))
    if second not in (None, entity):
        window["of"] = [entity, second]
    return window


DECLARATIONS = st.builds(
    lambda windows, standard: Declared.model_validate(
        {
            "fields": FIELDS,
            "windows": [window | {"name": f"w{at}_{{span}}"} for at, window in enumerate(windows)],
            "standard_windows": standard,
        }
    ),
    st.lists(_windows(), min_size=1, max_size=5),
    st.booleans(),
)
PLANS = st.just(STANDARD_PLAN) | DECLARATIONS.map(lambda declared: plan_of(catalogue_of(declared).features))


def table(rows: Sequence[Sequence[Any]]) -> pl.DataFrame:
    """Payments whose ids do not rise with their places."""
    numbered = [(f"t{(7 * place) % 13:02d}", *row, row[6]) for place, row in enumerate(rows)]
    return pl.DataFrame(numbered, schema=SCHEMA, orient="row").with_columns(pl.col("timestamp").cast(pl.Datetime("us", "UTC")))


Corrected = Mapping[tuple[str, str], Sequence[Correction]]


def changes(rows: Sequence[tuple[tuple[str, str], int, int, int, int]]) -> dict[tuple[str, str], list[Correction]]:
    found: dict[tuple[str, str], list[Correction]] = defaultdict(list)
    for entity, hour, later, frauds, dropped in rows:
        found[entity].append(Correction(hour, hour + later, frauds, dropped))
    return found


def corrections_frame(corrected: Corrected) -> pl.DataFrame:
    rows = [(*entity, *one) for entity, some in corrected.items() for one in some]
    return pl.DataFrame(rows, schema=batch.CORRECTIONS, orient="row")


def queries(payments: pl.DataFrame) -> list[Query]:
    asked = payments.select(pl.col("timestamp").dt.epoch("us"), "card", "merchant", "category", "device", "channel")
    return [Query(timestamp, values) for timestamp, values in zip(asked["timestamp"], asked.iter_rows(named=True), strict=True)]


def in_memory(payments: pl.DataFrame, corrected: Corrected, query: Query, plan: Plan) -> Past:
    """The past out of all payments, whatever their age."""
    rows = payments.with_columns(pl.col("timestamp").dt.epoch("us")).sort("timestamp", "transaction_id")
    if "refund" not in plan.own:
        rows = rows.filter(~pl.col("refund").fill_null(value=False))
    events, hours = {}, {}
    for entity in plan.sights:
        mine = rows.filter(pl.col(entity) == pl.lit(query.values[entity], pl.String))
        events[entity] = Events(mine["timestamp"].to_list(), {name: mine[name].to_list() for name in plan.reads[entity]})
    begin, end = NOON // HOUR_US - 24 * 40, NOON // HOUR_US + 24
    counted = rows.filter(~pl.col("refund").fill_null(value=False))
    for entity in plan.hours:
        name = query.values[entity]
        counts = np.zeros((end - begin, 2), dtype=np.int32)
        for time, fraud in counted.filter(pl.col(entity) == pl.lit(name, pl.String)).select("timestamp", "label").iter_rows():
            counts[time // HOUR_US - begin] += (1, fraud)
        hours[entity] = NO_HOURS if name is None else EntityHours(begin, counts, corrected.get((entity, name), []))
    return Past(0, events, hours)


def same(payments: pl.DataFrame, corrected: Corrected, pasts: Sequence[Past], plan: Plan, reach: Reach) -> None:
    """That each past gives what the columns have, bit for bit, of all payments that are no refunds."""
    asked = zip(queries(payments), pasts, strict=True)
    counted = np.array([online.state_asof(query, past, plan, reach, ZONE) for query, past in asked], dtype=np.float64)
    counted = counted.reshape(-1, len(plan.tallies))
    wanted = ~payments["refund"].fill_null(value=False)
    counted = counted[wanted.to_numpy()]
    expected = batch.states(payments, wanted, plan, reach, ZONE, corrections_frame(corrected)).to_numpy()
    for place, name in enumerate(plan.names):
        assert counted[:, place].tobytes() == expected[:, place].tobytes(), (name, counted[:, place], expected[:, place])


KEPT = Reach.of_days(30, 30)  # for longer than it is counted, so that each payment can be asked about after all of them came in


def kept_plan(plan: Plan) -> Plan:
    """What a store keeps of the payments, which is asked for as far back as the store keeps anything."""
    return plan.joined(Plan.of(Tally("seen", (entity,)) for entity in plan.sights))


def through(store: HistoryStore, payments: pl.DataFrame, corrected: Corrected, plan: Plan, reach: Reach) -> None:
    """That an empty store, which keeps `kept_plan` for as long as `KEPT`, tells the past that the columns have.

    Every other payment is recorded, as one that is scored, before all are loaded, as raw is.
    """
    scored = payments.filter(~pl.col("refund").fill_null(value=False))
    for at, (card, event, _) in enumerate(events_of(scored, store.plan)):
        if at % 2:
            store.record([Entry(event.transaction_id, event.transaction_id, card, event, b"{}", b"{}", False)])
    store.load(payments)
    store.correct({hours_key(*entity): some for entity, some in corrected.items()}, Heard(), Heard(1, ()))
    store.reach = reach
    same(payments, corrected, store.look(queries(payments), plan), plan, reach)


# Payments at the borders of windows: drawn seldom, and always tried.
BORDER = (NOON - REACH.history_us, 5, True, "c1", "m1", "gas", 45.25, "d1", "web", True, 1.5, False)
NEXT = (NOON, 7, False, "c1", "m1", None, None, "d1", "web", None, 2.5, False)
AFTER = (NOON + 1, 9, False, "c1", "m1", "net", -0.0, "d1", "pos", False, None, False)
SETTLED = (NOON - REACH.delay_us - HOUR_US, 5, False, "c1", "m1", "gas", 1.0, None, None, None, None, None)
LATE = (("merchant", "m1"), (NOON - REACH.delay_us) // HOUR_US - 1, 48, 1, 1)  # known in the very hour of the next one

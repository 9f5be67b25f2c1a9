"""One payment's past tallied alone, from memory or out of a store, is bit for bit that of the columns, whatever was declared."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings

from fraud_core.features.catalogue import STANDARD_PLAN
from fraud_core.features.windows import Plan, Reach
from fraud_core.history.sqlite import SqliteHistory
from tests.random_windows import (
    AFTER,
    BORDER,
    CORRECTIONS,
    KEPT,
    LATE,
    NEXT,
    PAYMENTS,
    PLANS,
    REACH,
    REACHES,
    SETTLED,
    changes,
    in_memory,
    kept_plan,
    queries,
    same,
    table,
    through,
)


@settings(deadline=None, max_examples=150)
@given(PAYMENTS, CORRECTIONS, PLANS, REACHES)
@example([BORDER, NEXT, NEXT, NEXT], [], STANDARD_PLAN, REACH)
@example([BORDER, *[NEXT] * 5, AFTER], [], STANDARD_PLAN, replace(REACH, newest_events=3))
@example([SETTLED, NEXT], [LATE], STANDARD_PLAN, REACH)
def test_one_payment_in_memory_has_the_past_that_the_columns_have(
    rows: list[Any], corrections: list[Any], plan: Plan, reach: Reach
) -> None:
    payments, corrected = table(rows), changes(corrections)
    same(payments, corrected, [in_memory(payments, corrected, query, plan) for query in queries(payments)], plan, reach)


@settings(deadline=None, max_examples=60)
@given(PAYMENTS, CORRECTIONS, PLANS, REACHES)
@example([BORDER, NEXT, NEXT, NEXT], [], STANDARD_PLAN, REACH)
@example([BORDER, *[NEXT] * 5, AFTER], [], STANDARD_PLAN, replace(REACH, newest_events=3))
def test_one_payment_through_sqlite_has_the_past_that_the_columns_have(
    rows: list[Any], corrections: list[Any], plan: Plan, reach: Reach
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteHistory(Path(folder) / "history.sqlite", KEPT, 1_000, kept_plan(plan))
        through(store, table(rows), changes(corrections), plan, reach)
        store.close()

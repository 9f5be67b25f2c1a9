"""The backlog of reviews in SQLite: the promises of every one."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from fraud_core.decisions.log import DecisionLog
from fraud_core.labels.log import LabelLog
from fraud_core.review.backlog import ReviewBacklog
from fraud_core.settings import Settings
from fraud_core.storage.database import open_database
from tests.decided import NOON
from tests.review_backlog import *  # noqa: F403 - the promises are tests


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_database(Settings(_env_file=None, home=tmp_path / "home"))


@pytest.mark.parametrize("cards", [(), ("beef",)])
def test_no_question_looks_through_what_was_judged_or_approved_already(engine: Engine, cards: tuple[str, ...]) -> None:
    """Beside 100,000 judged cases, looking through all took seconds; from the beginnings in these indexes it takes 50 ms."""
    backlog = ReviewBacklog(DecisionLog(engine, 400), LabelLog(engine))
    backlog.outcomes(NOON)  # makes the tables
    asked: list[tuple[str, Any]] = []
    event.listen(engine, "before_cursor_execute", lambda _, __, statement, values, *rest: asked.append((statement, values)))
    for also_unsure in (False, True):
        backlog.waiting(NOON, cards, 50, also_unsure=also_unsure)
        backlog.count_waiting(NOON, cards, also_unsure=also_unsure)
    backlog.outcomes(NOON)
    backlog.judged(NOON, [NOON, NOON])
    with engine.connect() as connection:
        plans = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all() for statement, values in asked[:]]
    steps = {row.detail for plan in plans for row in plan}
    assert {step for step in steps if any(f" {table} " in f"{step} " for table in ("decisions", "labels", "reviews"))} == {
        "SEARCH reviews USING COVERING INDEX reviews_outcome (outcome=? AND scored_at>?)",
        "SEARCH decisions USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH labels USING COVERING INDEX labels_analyst (known_at>? AND known_at<?)",
        "SEARCH reviews USING COVERING INDEX reviews_transaction (transaction_id=? AND scored_at>?)",
    }

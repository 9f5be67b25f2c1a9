"""Labels, on SQLite; tests/integration/test_databases.py runs the same on PostgreSQL."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from fraud_core.errors import StoreError
from fraud_core.settings import Settings
from fraud_core.stores.database import open_database, reached
from fraud_core.stores.labels import LEAD, Label, LabelLog, resolve
from tests.unit.fraud_core.stores.decided import NOON


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_database(Settings(_env_file=None, home=tmp_path / "home"))


@pytest.fixture
def log(engine: Engine) -> LabelLog:
    return LabelLog(engine)


def said(log: LabelLog, transaction_id: str = "t", **changed: Any) -> Label:
    values: dict[str, Any] = {"outcome": "fraud", "source": "analyst", "author": "ann", "event_time": NOON, "known_at": NOON}
    return log.append(transaction_id=transaction_id, **values | changed)


def test_labels_are_found_by_payment_and_in_the_order_they_came_in(log: LabelLog) -> None:
    first = said(log, "a", note="he called", role=LEAD)
    second = said(log, "b", outcome="unsure", known_at=NOON + timedelta(microseconds=1))
    third = said(log, "a", outcome="legitimate", source="chargeback")
    assert log.of(["b", "a", "none"]) == {"b": [second], "a": [first, third], "none": []}
    assert log.since(0, 2) == [first, second]
    assert log.since(second.sequence, 9) == [third]
    assert log.since(third.sequence, 9) == []
    assert (first.note, first.role, second.known_at - NOON) == ("he called", LEAD, timedelta(microseconds=1))


def test_more_payments_are_asked_about_than_one_statement_holds(log: LabelLog) -> None:
    label = said(log, "t1700")
    found = log.of([f"t{number}" for number in range(2_000)])
    assert len(found) == 2_000
    assert found["t1700"] == [label]


@pytest.mark.parametrize("statement", ["UPDATE labels SET outcome = 'legitimate'", "DELETE FROM labels"])
def test_a_label_is_neither_changed_nor_removed_by_anybody(log: LabelLog, engine: Engine, statement: str) -> None:
    label = said(log)
    with pytest.raises(StoreError), reached(engine), engine.begin() as connection:
        connection.execute(text(statement))
    assert log.since(0, 9) == [label]


@pytest.mark.parametrize("wrong", [{"outcome": "maybe"}, {"source": "rumour"}])
def test_an_outcome_or_a_source_that_does_not_exist_is_refused(log: LabelLog, wrong: dict[str, str]) -> None:
    with pytest.raises(StoreError):
        said(log, **wrong)
    assert log.since(0, 9) == []


def test_a_chargeback_goes_before_a_lead_before_an_analyst_before_the_source(log: LabelLog) -> None:
    later = NOON + timedelta(days=1)
    labels = [said(log, source="source", outcome="legitimate", author="file", known_at=later)]
    assert resolve(labels) == "legitimate"
    labels.append(said(log, outcome="unsure"))
    assert resolve(labels) == "unsure"
    labels.append(said(log, outcome="legitimate", role=LEAD))
    labels.append(said(log, outcome="unsure", known_at=later))
    assert resolve(labels) == "legitimate"
    labels.append(said(log, source="chargeback", outcome="fraud"))
    assert resolve(reversed(labels)) == "fraud"


def test_of_two_words_of_equal_weight_the_one_known_last_counts(log: LabelLog) -> None:
    labels = [
        said(log, outcome="fraud", known_at=NOON + timedelta(hours=1)),
        said(log, outcome="unsure"),
        said(log, outcome="legitimate", known_at=NOON + timedelta(hours=1)),
    ]
    assert resolve(labels) == "legitimate"
    assert resolve(labels[:2]) == "fraud"


def test_what_was_not_yet_known_does_not_count(log: LabelLog) -> None:
    labels = [said(log, outcome="legitimate"), said(log, source="chargeback", known_at=NOON + timedelta(days=3))]
    assert resolve(labels, NOON - timedelta(microseconds=1)) is None
    assert resolve(labels, NOON) == "legitimate"
    assert resolve(labels, NOON + timedelta(days=3)) == "fraud"
    assert resolve([]) is None

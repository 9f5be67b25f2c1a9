"""What the labels promise: the same tests for SQLite (tests/unit) and PostgreSQL (tests/integration).

Whoever takes them over gives a fixture `engine`: a database without tables.
"""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from fraud_core.errors import StoreError
from fraud_core.labels.log import LabelLog
from fraud_core.labels.resolve import LEAD, Label, resolve
from fraud_core.storage.database import reached
from tests.decided import NOON


@pytest.fixture
def label_log(engine: Engine) -> LabelLog:
    return LabelLog(engine)


def said(label_log: LabelLog, transaction_id: str = "t", **changed: Any) -> Label:
    values: dict[str, Any] = {"outcome": "fraud", "source": "analyst", "author": "ann", "event_time": NOON, "known_at": NOON}
    return label_log.append(transaction_id=transaction_id, **values | changed)


def test_labels_are_found_by_payment_and_in_the_order_they_came_in(label_log: LabelLog) -> None:
    first = said(label_log, "a", note="he called", role=LEAD)
    second = said(label_log, "b", outcome="unsure", known_at=NOON + timedelta(microseconds=1))
    third = said(label_log, "a", outcome="legitimate", source="chargeback")
    assert label_log.of(["b", "a", "none"]) == {"b": [second], "a": [first, third], "none": []}
    assert label_log.since(0, 2) == [first, second]
    assert label_log.since(second.sequence, 9) == [third]
    assert label_log.since(third.sequence, 9) == []
    assert (first.note, first.role, second.known_at - NOON) == ("he called", LEAD, timedelta(microseconds=1))


def test_more_payments_are_asked_about_than_one_statement_holds(label_log: LabelLog) -> None:
    label = said(label_log, "t1700")
    found = label_log.of([f"t{number}" for number in range(2_000)])
    assert len(found) == 2_000
    assert found["t1700"] == [label]


@pytest.mark.parametrize("statement", ["UPDATE labels SET outcome = 'legitimate'", "DELETE FROM labels"])
def test_a_label_is_neither_changed_nor_removed_by_anybody(label_log: LabelLog, engine: Engine, statement: str) -> None:
    label = said(label_log)
    with pytest.raises(StoreError), reached(engine), engine.begin() as connection:
        connection.execute(text(statement))
    assert label_log.since(0, 9) == [label]


@pytest.mark.parametrize("wrong", [{"outcome": "maybe"}, {"source": "rumour"}])
def test_an_outcome_or_a_source_that_does_not_exist_is_refused(label_log: LabelLog, wrong: dict[str, str]) -> None:
    with pytest.raises(StoreError):
        said(label_log, **wrong)
    assert label_log.since(0, 9) == []


def test_a_chargeback_goes_before_a_lead_before_an_analyst_before_the_source(label_log: LabelLog) -> None:
    later = NOON + timedelta(days=1)
    labels = [said(label_log, source="source", outcome="legitimate", author="file", known_at=later)]
    assert resolve(labels) == "legitimate"
    labels.append(said(label_log, outcome="unsure"))
    assert resolve(labels) == "unsure"
    labels.append(said(label_log, outcome="legitimate", role=LEAD))
    labels.append(said(label_log, outcome="unsure", known_at=later))
    assert resolve(labels) == "legitimate"
    labels.append(said(label_log, source="chargeback", outcome="fraud"))
    assert resolve(reversed(labels)) == "fraud"


def test_of_two_words_of_equal_weight_the_one_known_last_counts(label_log: LabelLog) -> None:
    labels = [
        said(label_log, outcome="fraud", known_at=NOON + timedelta(hours=1)),
        said(label_log, outcome="unsure"),
        said(label_log, outcome="legitimate", known_at=NOON + timedelta(hours=1)),
    ]
    assert resolve(labels) == "legitimate"
    assert resolve(labels[:2]) == "fraud"


def test_what_was_not_yet_known_does_not_count(label_log: LabelLog) -> None:
    labels = [said(label_log, outcome="legitimate"), said(label_log, source="chargeback", known_at=NOON + timedelta(days=3))]
    assert resolve(labels, NOON - timedelta(microseconds=1)) is None
    assert resolve(labels, NOON) == "legitimate"
    assert resolve(labels, NOON + timedelta(days=3)) == "fraud"
    assert resolve([]) is None

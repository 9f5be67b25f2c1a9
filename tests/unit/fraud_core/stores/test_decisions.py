"""The decision log, on SQLite; tests/integration/test_databases.py runs the same on PostgreSQL."""

from datetime import timedelta
from pathlib import Path

import pytest

from fraud_core.errors import StoreError
from fraud_core.settings import Settings
from fraud_core.stores.database import open_database
from fraud_core.stores.decisions import DecisionLog, from_json, to_json
from tests.unit.fraud_core.stores.decided import NOON, decided


@pytest.fixture
def log(tmp_path: Path) -> DecisionLog:
    return DecisionLog(open_database(Settings(_env_file=None, home=tmp_path / "home")), retention_days=30)


def test_a_decision_is_found_again_as_it_was_made(log: DecisionLog) -> None:
    records = [
        decided("a", amount_cents=10**11, degraded=True, sequence=None, features=None, reasons=()),
        decided("b", card=None, merchant=None, probability=1 / 3),
    ]
    log.append(records)
    assert [log.find("a"), log.find("b"), log.find("c")] == [*records, None]


def test_a_second_decision_about_a_payment_is_never_written_not_even_in_the_same_group(log: DecisionLog) -> None:
    log.append([decided("a"), decided("a", decision="decline"), decided("b")])
    log.append([decided("b", decision="decline"), decided("c")])
    assert [(found.transaction_id, found.decision) for found in log.recent(NOON, 9)] == [
        ("c", "approve"),
        ("b", "approve"),
        ("a", "approve"),
    ]


def test_decisions_are_found_by_card_by_time_and_by_what_is_left_to_review(log: DecisionLog) -> None:
    log.append(
        [
            decided("old", -5, decision="review"),
            decided("small", 1, decision="review", probability=0.9, amount_cents=100),
            decided("large", 2, decision="review", probability=0.5, amount_cents=100_000, card="beef"),
            decided("fine", 3, timestamp=NOON - timedelta(days=9)),
        ]
    )
    assert [one.transaction_id for one in log.of_card("c0ffee", 9)] == ["small", "old", "fine"]
    assert [one.transaction_id for one in log.of_card("c0ffee", 1)] == ["small"]
    assert [one.transaction_id for one in log.to_review(NOON, 9)] == ["large", "small"]
    assert [one.transaction_id for one in log.to_review(NOON, 1)] == ["large"]
    assert [one.transaction_id for one in log.recent(NOON, 9)] == ["fine", "large", "small"]
    assert [one.transaction_id for one in log.recent(NOON + timedelta(minutes=2), 1)] == ["fine"]


def test_after_its_retention_a_decision_is_gone_and_others_are_not(log: DecisionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fraud_core.stores.decisions._DELETED_AT_ONCE", 2)
    log.append([decided(f"old{number}", minutes=-number) for number in range(1, 6)])
    log.append([decided("young", minutes=0)])
    assert log.expire(NOON + timedelta(days=30)) == 5
    assert [one.transaction_id for one in log.recent(NOON - timedelta(days=99), 99)] == ["young"]
    assert log.expire(NOON + timedelta(days=30)) == 0


@pytest.mark.parametrize("column", ["card", "birth_date", "home_latitude", "home_longitude"])
def test_a_personal_column_is_refused(column: str) -> None:
    with pytest.raises(ValueError, match=column):
        decided("a", transaction={"amount_cents": 1, column: "x"})


def test_a_database_that_cannot_be_used_is_said_to_be_so_and_nothing_is_written(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, home=tmp_path / "home")
    log = DecisionLog(open_database(settings), 30)
    (settings.home / "fraud.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match="cannot be used"):
        log.append([decided("a")])


def test_a_decision_survives_as_a_line_of_text() -> None:
    record = decided("a", probability=1 / 3)
    assert from_json(to_json(record)) == record

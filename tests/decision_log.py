"""What the decision log promises: the same tests for SQLite (tests/unit) and PostgreSQL (tests/integration).

Whoever takes them over gives a fixture `engine`: a database without tables.
"""

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from fraud_core.decisions.log import DecisionLog
from fraud_core.errors import IntegrityError
from tests.decided import NOON, decided


@pytest.fixture
def decision_log(engine: Engine) -> DecisionLog:
    return DecisionLog(engine, retention_days=30)


def test_a_decision_is_found_again_as_it_was_made(decision_log: DecisionLog) -> None:
    records = [
        decided("a", amount_cents=10**11, degraded=True, sequence=None, features=None, reasons=()),
        decided("b", card=None, merchant=None, probability=1 / 3),
    ]
    decision_log.append(records)
    assert [decision_log.find("a"), decision_log.find("b"), decision_log.find("c")] == [*records, None]


def test_a_second_decision_about_a_payment_is_never_written_not_even_in_the_same_group(decision_log: DecisionLog) -> None:
    decision_log.append([decided("a"), decided("a", decision="decline"), decided("b")])
    decision_log.append([decided("b", decision="decline"), decided("c")])
    assert [(found.transaction_id, found.decision) for found in decision_log.recent(NOON, 9)] == [
        ("c", "approve"),
        ("b", "approve"),
        ("a", "approve"),
    ]


def test_decisions_are_found_by_card_and_by_time(decision_log: DecisionLog) -> None:
    decision_log.append(
        [
            decided("old", -5, decision="review"),
            decided("small", 1, decision="review", probability=0.9, amount_cents=100),
            decided("large", 2, decision="review", probability=0.5, amount_cents=100_000, card="beef"),
            decided("fine", 3, timestamp=NOON - timedelta(days=9)),
        ]
    )
    assert [one.transaction_id for one in decision_log.of_card("c0ffee", 9)] == ["small", "old", "fine"]
    assert [one.transaction_id for one in decision_log.of_card("c0ffee", 1)] == ["small"]
    assert [one.transaction_id for one in decision_log.recent(NOON, 9)] == ["fine", "large", "small"]
    assert [one.transaction_id for one in decision_log.recent(NOON + timedelta(minutes=2), 1)] == ["fine"]


@pytest.mark.parametrize(
    ("column", "value"), [("transaction", "{}"), ("reasons", "no JSON"), ("decision", "perhaps"), ("features", "7")]
)
def test_a_damaged_row_is_counted_and_left_out_and_its_payment_can_be_decided_again(
    decision_log: DecisionLog, column: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    decision_log.append([decided("a"), decided("b", 1), decided("c", 2)])
    with decision_log.engine.begin() as connection:
        table = decision_log.table
        connection.execute(table.update().where(table.c.transaction_id == "b").values({column: value}))
    found = decision_log.of_card("c0ffee", 9)
    assert ([one.transaction_id for one in found], found.damaged) == (["c", "a"], 1)
    assert list(decision_log.find_all(["a", "b"])) == ["a"]
    with pytest.raises(IntegrityError, match=r"Row \d+ of the decision log, about payment b, is damaged"):
        decision_log.find("b")
    assert len([one for one in caplog.messages if "is damaged" in one]) == 2
    again = decided("b", 5, decision="decline")
    assert decision_log.append([again, decided("d", 6)]) == {}
    assert [one.transaction_id for one in decision_log.recent(NOON, 9)] == ["d", "b", "c", "a"]


def test_after_its_retention_a_decision_is_gone_and_others_are_not(
    decision_log: DecisionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fraud_core.decisions.log._DELETED_AT_ONCE", 2)
    monkeypatch.setattr("fraud_core.decisions.log.LARGEST_SHARE", 1.0)
    month = decision_log.retention_days * 24 * 60
    decision_log.append([decided(f"old{number}", minutes=-number) for number in range(1, 6)])
    decision_log.append([decided("young"), decided("newest", minutes=month)])
    now = NOON + timedelta(minutes=month)
    assert decision_log.expire(now) == 5
    assert [one.transaction_id for one in decision_log.recent(NOON - timedelta(days=99), 99)] == ["newest", "young"]
    assert decision_log.expire(now) == 0


def test_no_clock_takes_decisions_away_but_a_hundredth_at_a_time(decision_log: DecisionLog) -> None:
    ahead = 500 * 24 * 60
    decision_log.append([decided(f"t{number:03d}", minutes=number) for number in range(299)])
    assert decision_log.expire(NOON + timedelta(minutes=ahead)) == 0  # the clock alone makes none old
    decision_log.append([decided("made by a wrong clock", minutes=ahead)])
    assert decision_log.expire(NOON + timedelta(minutes=ahead)) == 3
    assert decision_log.find("t003") is not None
    assert decision_log.find("t002") is None
    assert decision_log.expire(NOON + timedelta(days=1)) == 0  # nor does what it left, once it is set right
    assert decision_log.count() == 297

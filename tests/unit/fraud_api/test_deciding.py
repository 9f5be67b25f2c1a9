"""Decisions on single payments: those that arrive together, those that are sent again, and stores that are gone."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from fraud_api import deciding
from fraud_api.services import Services
from fraud_core.decisions.log import DecisionLog
from fraud_core.errors import StoreError
from fraud_core.models.scorer import Scorer
from fraud_core.scoring.score import inputs_of
from fraud_core.signing.keys import card_key
from fraud_core.storage.database import open_database
from fraud_core.transactions.transaction import Transaction
from tests.api_server import NAMELESS, eventually

Make = Callable[[int], list[dict[str, Any]]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many payments were scored at a time."""
    sizes: list[int] = []
    real = deciding.score_together

    def counted(scorer: Scorer, transactions: list[Transaction], lookup: Any) -> Any:
        sizes.append(len(transactions))
        return real(scorer, transactions, lookup)

    monkeypatch.setattr(deciding, "score_together", counted)
    return sizes


@pytest.fixture
def payments_of_a_day(made_transactions: Make) -> Make:
    """What is recorded goes by its own time: a payment of next year would end what is kept of this one."""
    return lambda count: [one | {"timestamp": f"2020-06-21T12:{at:02d}:00Z"} for at, one in enumerate(made_transactions(count))]


def services(api: Any) -> Services:
    found = api.app.state.services
    assert isinstance(found, Services)
    return found


def all_at_once(api: Any, payments: list[dict[str, Any]]) -> list[Any]:
    async def together() -> list[Any]:
        return await asyncio.gather(*[api.http.post("/v1/score", json=payment) for payment in payments])

    return list(api.runner.run(together()))


# ---- together


def test_what_arrives_in_one_turn_is_scored_at_once_and_to_the_same_bits(
    call: Any, installation: Any, made_transactions: Make, calls: list[int]
) -> None:
    installation.promote(1)
    api = call(installation.settings)
    payments = made_transactions(40)
    scorer = Scorer(installation.bundle(1))
    alone = [float(scorer.score_inputs(inputs_of([Transaction.model_validate(one)]))[0]) for one in payments]
    assert [answer.json()["probability"] for answer in all_at_once(api, payments)] == alone
    assert sum(calls) == 40
    assert len(calls) < 10


def test_a_payment_that_comes_alone_is_scored_alone(
    call: Any, installation: Any, made_transactions: Make, calls: list[int]
) -> None:
    installation.promote(1)
    api = call(installation.settings)
    for payment in made_transactions(3):
        api.post("/v1/score", json=payment)
    assert calls == [1, 1, 1]


def test_a_crowd_is_scored_in_parts(
    call: Any, installation: Any, made_transactions: Make, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deciding, "MOST_AT_ONCE", 8)
    installation.promote(1)
    assert len(all_at_once(call(installation.settings), made_transactions(20))) == 20
    assert max(calls) <= 8


def test_a_failure_reaches_everybody_and_leaves_nobody_waiting(
    call: Any, installation: Any, made_transactions: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.promote(1)
    api = call(installation.settings)

    def fails(*_: Any) -> None:
        raise AttributeError("a bug")

    served, payments = services(api).follower.served, made_transactions(3)
    monkeypatch.setattr(deciding, "score_together", fails)

    async def decided() -> list[Any]:
        asked = [services(api).deciding.decide(served, Transaction.model_validate(payment)) for payment in payments]
        return await asyncio.gather(*asked, return_exceptions=True)

    assert [type(error) for error in api.runner.run(decided())] == [AttributeError] * 3


# ---- sent again


def test_a_payment_that_is_sent_again_gets_its_decision_again_even_from_another_champion(
    call: Any, installation: Any, payments_of_a_day: Make
) -> None:
    installation.promote(1)
    api = call(installation.settings)
    (payment,) = payments_of_a_day(1)
    first = api.post("/v1/score", json=payment).json()
    installation.promote(2)
    api.post("/v1/admin/reload")
    assert api.post("/v1/score", json=NAMELESS).json()["model_version"] != first["model_version"]
    assert api.post("/v1/score", json=payment).json() == first
    assert len(services(api).history.store.recorded(0, 10)) == 2
    assert DecisionLog(open_database(installation.settings), 400).count() == 2


def test_another_payment_under_the_same_id_is_a_conflict_and_changes_nothing(
    call: Any, installation: Any, payments_of_a_day: Make
) -> None:
    installation.promote(1)
    api = call(installation.settings)
    (payment,) = payments_of_a_day(1)
    first = api.post("/v1/score", json=payment).json()
    refused = api.post("/v1/score", json=payment | {"amount": "17.01"})
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:fraud:problem:another-payment")
    assert api.post("/v1/score", json=payment).json() == first


def test_two_of_the_same_at_once_are_one_payment(call: Any, installation: Any, payments_of_a_day: Make) -> None:
    installation.promote(1)
    api = call(installation.settings)
    (payment,) = payments_of_a_day(1)
    answers = [answer.json() for answer in all_at_once(api, [payment] * 5)]
    assert answers == [answers[0]] * 5
    assert len(services(api).history.store.recorded(0, 10)) == 1


# ---- recorded and logged


def test_a_decision_is_logged_with_what_it_was_made_of_and_no_card_number(
    call: Any, installation: Any, payments_of_a_day: Make
) -> None:
    installation.promote(1)
    settings = installation.settings.model_copy(update={"features_logged": 1.0})
    api = call(settings)
    (payment,) = payments_of_a_day(1)
    payment["card"] = "4111111111111111"
    answer = api.post("/v1/score?explain=true", json=payment).json()
    record = DecisionLog(open_database(settings), 400).find(payment["transaction_id"])
    assert record is not None
    assert (record.probability, record.decision, record.model_version) == (
        answer["probability"],
        answer["decision"],
        answer["model_version"],
    )
    assert record.reasons == tuple(reason["code"] for reason in answer["explanation"]["reasons"])
    assert record.features is not None
    assert record.features["hour"] is not None
    assert record.card is not None
    assert record.scored_at <= datetime.now(UTC)
    (recorded,) = services(api).history.store.recorded(0, 10)
    held = b"".join(path.read_bytes() for path in settings.home.rglob("*.sqlite*"))
    assert b"4111111111111111" not in held
    assert b"4111111111111111" not in recorded.payment
    assert str(payment["birth_date"]).encode() in recorded.payment  # raw needs it
    assert card_key(settings).id


def test_what_is_not_approved_is_logged_with_its_features_always_and_of_the_rest_a_share(
    call: Any, installation: Any, payments_of_a_day: Make
) -> None:
    installation.promote(1)
    settings = installation.settings.model_copy(update={"features_logged": 0.0})
    api = call(settings)
    payments = [one | {"amount": f"{10 ** (at % 4)}.00"} for at, one in enumerate(payments_of_a_day(40))]
    answers = {
        answer["transaction_id"]: answer["decision"] for answer in (api.post("/v1/score", json=one).json() for one in payments)
    }
    assert set(answers.values()) == {"approve", "review", "decline"}
    log = DecisionLog(open_database(settings), 400)
    for record in log.find_all(list(answers)).values():
        assert (record.features is None) == (answers[record.transaction_id] == "approve")


def test_batches_and_files_record_nothing(call: Any, installation: Any, payments_of_a_day: Make) -> None:
    installation.promote(1)
    api = call(installation.settings)
    assert api.post("/v1/score/batch", json={"transactions": payments_of_a_day(5)}).json()["rows"] == 5
    assert services(api).history.store.recorded(0, 10) == []
    assert DecisionLog(open_database(installation.settings), 400).count() == 0


# ---- stores that are gone


def test_a_history_that_cannot_be_written_is_caught_up_with_from_the_spool(
    call: Any, installation: Any, payments_of_a_day: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.promote(1)
    api = call(installation.settings)
    store = services(api).history.store
    real = store.record

    def gone(*_: Any) -> None:
        raise StoreError("the history is gone")

    monkeypatch.setattr(store, "record", gone)
    payments = payments_of_a_day(4)
    assert [api.post("/v1/score", json=payment).status_code for payment in payments] == [200] * 4
    assert services(api).history.spool.waiting() == 4
    monkeypatch.setattr(store, "record", real)
    eventually(lambda: services(api).history.spool.waiting() == 0)
    assert [one.transaction_id for one in store.recorded(0, 10)] == [payment["transaction_id"] for payment in payments]


@pytest.mark.parametrize("why", ["forgotten", "gone"])
def test_what_history_cannot_tell_of_an_id_the_log_tells(
    why: str, call: Any, installation: Any, payments_of_a_day: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.promote(1)
    api = call(installation.settings)
    payment = payments_of_a_day(1)[0] | {"amount": "5.00"}
    first = api.post("/v1/score", json=payment).json()
    installation.promote(2)  # which would decide otherwise
    services(api).follower.poll()
    store = services(api).history.store
    if why == "forgotten":
        with closing(sqlite3.connect(installation.settings.home / "history.sqlite")) as history, history:
            history.execute("DELETE FROM payments")
    else:

        def gone(*_: Any) -> None:
            raise StoreError("the history is gone")

        monkeypatch.setattr(store, "look", gone)
        monkeypatch.setattr(store, "record", gone)
    assert api.post("/v1/score", json=payment).json() == first
    other = api.post("/v1/score", json=payment | {"amount": "9000.00"})
    assert (other.status_code, other.json()["type"]) == (409, "urn:fraud:problem:another-payment")
    assert [one.amount_cents for one in services(api).decisions.log.recent(datetime(2020, 1, 1, tzinfo=UTC), 9)] == [500]


def test_without_a_log_and_a_spool_no_decision_is_given(
    call: Any, installation: Any, payments_of_a_day: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.promote(1)
    settings = installation.settings.model_copy(update={"decision_spool": 0})
    api = call(settings)
    first, second = payments_of_a_day(2)
    assert api.post("/v1/score", json=first).status_code == 200
    with closing(open_database(settings).raw_connection()) as database:
        database.execute("ALTER TABLE decisions RENAME TO elsewhere")
    refused = api.post("/v1/score", json=second)
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:fraud:problem:decision-log")
    with open_database(settings).begin() as connection:
        connection.execute(text("ALTER TABLE elsewhere RENAME TO decisions"))
    eventually(lambda: api.post("/v1/score", json=second).status_code == 200)
    assert DecisionLog(open_database(settings), 400).count() == 2

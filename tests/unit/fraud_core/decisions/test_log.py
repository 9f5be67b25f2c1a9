"""The decision log in SQLite: the promises of every one, and its own."""

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from fraud_core.decisions.log import DecisionLog, from_json, to_json
from fraud_core.decisions.record import LoggedTransaction
from fraud_core.errors import StoreError
from fraud_core.fields import schema
from fraud_core.fields.schema import PERSONAL
from fraud_core.settings import Settings
from fraud_core.storage.database import open_database
from fraud_core.transactions.declared_type import example_of, transaction_type
from tests.decided import decided
from tests.decision_log import *  # noqa: F403 - the promises are tests
from tests.declared import ONLINE


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_database(Settings(_env_file=None, home=tmp_path / "home"))


def test_nothing_personal_has_a_place_in_what_is_logged_of_a_payment() -> None:
    standard = {name for name in schema.BY_NAME if name not in {"transaction_id", "label"}} - PERSONAL
    assert set(LoggedTransaction._fields) == {*standard, "own"}
    payment = transaction_type(ONLINE, unknown="keep").model_validate(example_of(ONLINE) | {"coupon": "SPRING"})
    assert LoggedTransaction.of(payment).own == {
        "device": "device-4711",
        "channel": "web",
        "cvv": True,
        "opened": "2020-01-15T09:30:00+00:00",
        "basket": 500.0,
        "email_domain": "example.com",
        "network": "203.0.113.0/24",
        "account_age": payment.__dict__["account_age"],
        "above_income": payment.__dict__["above_income"],
        "coupon": "SPRING",
    }


def test_own_fields_are_logged_and_found_again_and_a_row_without_them_is_what_it_was(engine: Engine) -> None:
    log = DecisionLog(engine, 30)
    logged = decided("b").transaction
    own = logged._replace(own={"device": "d-1", "cvv": False, "basket": 7.5})
    log.append([decided("a", transaction=own), decided("b")])
    found = log.find_all(["a", "b"])
    assert (found["a"].transaction, found["b"].transaction) == (own, logged)
    assert "own" not in logged.columns()


def test_a_row_that_version_0_1_0_logged_is_read(engine: Engine) -> None:
    log = DecisionLog(engine, 30)
    log.append([decided("a")])
    # As the scorer of that version wrote it, with what was missing as null.
    written = (
        '{"timestamp":1592741665000000,"amount_cents":286,"merchant":"Kirlin and Sons","category":"personal_care",'
        '"merchant_latitude":33.986391,"merchant_longitude":-81.200714,"city_population":null}'
    )
    with engine.begin() as connection:
        connection.execute(text('UPDATE decisions SET "transaction" = :written'), {"written": written})
    found = log.find("a")
    assert found is not None
    at = datetime(2020, 6, 21, 12, 14, 25, tzinfo=UTC)
    assert found.transaction == (at, 286, "Kirlin and Sons", "personal_care", 33.986391, -81.200714, None, {})
    log.append([dataclasses.replace(found, transaction_id="b")])
    with engine.begin() as connection:
        again = connection.execute(text("SELECT \"transaction\" FROM decisions WHERE transaction_id = 'b'")).scalar_one()
    assert again == written  # so that an older desk beside a newer scorer reads it, too


def test_a_database_that_cannot_be_used_is_said_to_be_so_and_nothing_is_written(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, home=tmp_path / "home")
    log = DecisionLog(open_database(settings), 30)
    (settings.home / "fraud.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match="cannot be used"):
        log.append([decided("a")])


def test_a_decision_survives_as_a_line_of_text() -> None:
    record = decided("a", probability=1 / 3)
    assert from_json(to_json(record)) == record

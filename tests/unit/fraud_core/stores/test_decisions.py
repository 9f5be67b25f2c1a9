"""The decision log in SQLite: the promises of every one, and its own."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from fraud_core.errors import StoreError
from fraud_core.settings import Settings
from fraud_core.stores.database import open_database
from fraud_core.stores.decisions import DecisionLog, from_json, to_json
from tests.decision_log import *  # noqa: F403 - the promises are tests
from tests.unit.fraud_core.stores.decided import decided


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_database(Settings(_env_file=None, home=tmp_path / "home"))


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

"""The SQL database: which one it is, and what is said where it cannot be used."""

from pathlib import Path

import pytest

from fraud_core.errors import SettingsError, StoreError
from fraud_core.settings import Settings
from fraud_core.storage.database import open_database, reached


def test_it_is_sqlite_under_the_home_by_default(tmp_path: Path) -> None:
    with open_database(Settings(_env_file=None, home=tmp_path / "home")).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    assert (tmp_path / "home" / "fraud.sqlite").exists()


@pytest.mark.parametrize("url", ["mysql://root:geheim@db/fraud", "no url at all, geheim"])
def test_another_database_is_refused_without_repeating_the_url(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match="postgresql://") as refused:
        open_database(Settings(_env_file=None, home=tmp_path, database=url))
    assert "geheim" not in str(refused.value)


def test_a_server_that_is_gone_is_named_without_its_password(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, home=tmp_path, database="postgresql://fraud:geheim@127.0.0.1:1/fraud")
    engine = open_database(settings)
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:1") as told, reached(engine):
        engine.connect()
    assert "geheim" not in str(told.value)

"""Labels in SQLite: the promises of every label log."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from fraud_core.settings import Settings
from fraud_core.storage.database import open_database
from tests.label_log import *  # noqa: F403 - the promises are tests


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_database(Settings(_env_file=None, home=tmp_path / "home"))

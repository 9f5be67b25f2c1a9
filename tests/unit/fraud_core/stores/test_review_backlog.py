"""The backlog of reviews in SQLite: the promises of every one."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from fraud_core.settings import Settings
from fraud_core.stores.database import open_database
from tests.review_backlog import *  # noqa: F403 - the promises are tests


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_database(Settings(_env_file=None, home=tmp_path / "home"))

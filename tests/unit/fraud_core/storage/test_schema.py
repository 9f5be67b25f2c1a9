"""The schema of the database in SQLite: the promises of all."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from fraud_core.settings import Settings
from fraud_core.storage import schema
from fraud_core.storage.database import open_database
from tests.schema import *  # noqa: F403 - the promises are tests
from tests.schema import Make


@pytest.fixture
def make_database(tmp_path: Path) -> Iterator[Make]:
    made: list[Engine] = []
    numbers = count()

    def make(content: Path | None = None, patience: int | None = None) -> Engine:
        home = tmp_path / f"home{next(numbers)}"
        made.append(open_database(Settings(_env_file=None, home=home), patience))
        if content is not None:
            with closing(sqlite3.connect(home / "fraud.sqlite")) as database:
                database.executescript((content / "sqlite.sql").read_text())
        return made[-1]

    yield make
    for engine in made:
        engine.dispose()


def test_the_version_of_the_program_is_that_of_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", "fraud_core.storage:migrations")
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_current_head() == str(schema.VERSION)

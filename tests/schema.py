"""What the schema of the database promises: the same tests for SQLite (tests/unit) and PostgreSQL (tests/integration).

Whoever takes them over gives a fixture `make_database`: makes one without tables, or with the content of a folder.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, inspect

from fraud_core.access.api_keys import ApiKeys
from fraud_core.access.users import Users
from fraud_core.decisions.log import DecisionLog
from fraud_core.errors import SchemaError, StoreError
from fraud_core.labels.log import LabelLog
from fraud_core.review.backlog import ReviewBacklog
from fraud_core.review.claims import Claims
from fraud_core.storage import schema
from fraud_core.storage.heads import Head, Heads
from tests.api_server import eventually
from tests.decided import NOON, decided
from tests.review_backlog import word

UNVERSIONED = Path(__file__).parent / "fixtures" / "before_versions"  # what commit edec88c left, as SQL
TRIGGERS = {
    "sqlite": "SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name",
    "postgresql": "SELECT tgname, tgrelid::regclass::text, pg_get_functiondef(tgfoid) FROM pg_trigger WHERE NOT tgisinternal "
    "ORDER BY tgname",
}
Make = Callable[..., Engine]
STARTING = """
import sys
from fraud_core.access.users import Users
from fraud_core.settings import Settings
from fraud_core.storage.database import open_database
print(Users(open_database(Settings(_env_file=None))).list()[0].name, "alembic" in sys.modules)
"""


def tables_of(engine: Engine) -> dict[str, Any]:
    """Columns, keys, checks and indexes by table, but for the one that has the version."""
    looked, found = inspect(engine), {}
    for table in set(looked.get_table_names()) - {"schema_version"}:
        found[table] = {
            "columns": [str(sorted(column.items(), key=str)) for column in looked.get_columns(table)],
            "key": looked.get_pk_constraint(table)["constrained_columns"],
            "unique": [unique["column_names"] for unique in looked.get_unique_constraints(table)],
            "checks": sorted(check["sqltext"] for check in looked.get_check_constraints(table)),
            "indexes": sorted(_told(index) for index in looked.get_indexes(table)),
        }
    return found


def _told(index: Any) -> str:
    options = {name: str(value) for name, value in index.get("dialect_options", {}).items()}
    return str(sorted((index | {"dialect_options": options}).items()))


def triggers_of(engine: Engine) -> list[tuple[str, ...]]:
    """Name of each trigger, its table, and what it does."""
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(TRIGGERS[engine.dialect.name]).all()
    return [tuple(re.sub(r"\s+", " ", str(value)) for value in row) for row in rows]


def test_all_migrations_together_make_what_the_modules_declare(make_database: Make) -> None:
    migrated, declared = make_database(), make_database()
    assert schema.version_of(migrated) == schema.NONE
    assert (schema.upgrade(migrated), schema.version_of(migrated)) == (schema.NONE, schema.VERSION)
    schema.METADATA.create_all(declared)
    assert tables_of(migrated) == tables_of(declared)
    assert set(tables_of(migrated)) == set(schema.METADATA.tables)


def test_processes_that_start_together_upgrade_once_and_later_ones_do_without_alembic(make_database: Make) -> None:
    engine = make_database(UNVERSIONED)
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    sqlite = engine.dialect.name == "sqlite"
    variables = {"FRAUD_HOME": str(Path(str(engine.url.database)).parent)} if sqlite else {"FRAUD_DATABASE": url}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", STARTING], stdout=subprocess.PIPE, text=True, env=os.environ | variables)

    together = [start() for _ in range(3)]
    with ThreadPoolExecutor(3) as threads:  # and threads of one process
        list(threads.map(schema.upgrade, [engine] * 3))
    assert {process.communicate(timeout=60)[0].split()[0] for process in together} == {"ann"}
    assert start().communicate(timeout=60)[0].split() == ["ann", "False"]


def test_a_database_of_before_there_were_versions_is_recognised_and_keeps_what_it_has(make_database: Make) -> None:
    engine, new = make_database(UNVERSIONED), make_database()
    assert (schema.version_of(engine), schema.upgrade(new)) == (schema.NONE, schema.NONE)
    decisions, labels = DecisionLog(engine, 36_500), LabelLog(engine)
    backlog = ReviewBacklog(decisions, labels)
    assert backlog.outcomes(NOON) == {None: 1, "legitimate": 1}
    assert (tables_of(engine), triggers_of(engine)) == (tables_of(new), triggers_of(new))
    assert decisions.count() == 4
    assert decisions.append([decided("waits", decision="review"), decided("next", decision="review")]) == {}
    labels.append_all([word("next", "fraud"), word("waits", "unsure")])
    assert backlog.outcomes(NOON) == {"legitimate": 1, "fraud": 1, "unsure": 1}
    assert [user.name for user in Users(engine).list()] == ["ann"]
    assert Claims(engine, timedelta(minutes=30)).held(NOON) == {"waits": "ann"}
    assert Heads(engine, "s3://store").seen() == {"latest": Head(3, "abc")}
    assert ApiKeys(engine, UNVERSIONED / "none").list() == []
    assert schema.version_of(engine) == schema.VERSION


@pytest.mark.parametrize("version", ["99.0", "e1f0"])
def test_what_a_newer_release_upgraded_is_refused_by_a_sentence_and_not_touched(make_database: Make, version: str) -> None:
    engine = make_database()
    schema.upgrade(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE schema_version SET version_num = '{version}'")
    for use in (lambda: schema.upgrade(engine), lambda: schema.upgrade_at_start(engine), lambda: Users(engine).list()):
        with pytest.raises(SchemaError, match=rf"version {version}, (and this program|which is none)"):
            use()


def test_who_has_no_patience_is_told_at_once_and_the_schema_is_brought_up_to_date_meanwhile(make_database: Make) -> None:
    log = DecisionLog(make_database(UNVERSIONED, patience=250), 36_500)
    with pytest.raises(StoreError, match="being brought up to date"):
        log.append([decided("next")])
    eventually(lambda: schema.version_of(log.engine) == schema.VERSION)
    assert log.append([decided("next")]) == {}
    assert log.count() == 5


def test_what_a_newer_release_only_added_to_is_used_as_it_is(make_database: Make) -> None:
    engine = make_database(UNVERSIONED)
    schema.upgrade(engine)
    newer = f"{schema.VERSION.major}.{schema.VERSION.minor + 1}"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE schema_version SET version_num = '{newer}'")
    assert [user.name for user in Users(engine).list()] == ["ann"]
    assert str(schema.version_of(engine)) == newer


def test_an_upgrade_that_fails_leaves_everything_as_it_was(make_database: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_database(UNVERSIONED)
    before = tables_of(engine), triggers_of(engine)
    migrate = schema._migrate

    def migrate_then_fail(connection: Any) -> None:
        migrate(connection)
        raise ZeroDivisionError

    monkeypatch.setattr(schema, "_migrate", migrate_then_fail)
    with pytest.raises(ZeroDivisionError):
        Users(engine).list()
    assert (tables_of(engine), triggers_of(engine), schema.version_of(engine)) == (*before, schema.NONE)
    monkeypatch.undo()
    assert [user.name for user in Users(engine).list()] == ["ann"]

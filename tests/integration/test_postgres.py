"""Decisions and labels in a real PostgreSQL, which may be gone for a while."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import DBAPIError

from fraud_core.decisions.log import DecisionLog
from fraud_core.decisions.writer import open_decision_writer
from fraud_core.errors import StoreError
from fraud_core.labels.log import LabelLog
from fraud_core.settings import Settings
from fraud_core.storage.database import open_database
from tests.api_keys import *  # noqa: F403 - the promises are tests
from tests.api_server import eventually
from tests.decided import NOON, decided
from tests.decision_log import *  # noqa: F403
from tests.label_log import *  # noqa: F403
from tests.label_log import said
from tests.review_backlog import *  # noqa: F403
from tests.schema import *  # noqa: F403
from tests.schema import Make
from tests.servers.postgres_server import POSTGRES, PostgresServer

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(POSTGRES is None, reason="needs Debian's package postgresql"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    started = PostgresServer(tmp_path_factory.mktemp("postgres"))
    yield started
    started.stop()


@pytest.fixture
def settings(server: PostgresServer, tmp_path: Path) -> Settings:
    return Settings(_env_file=None, home=tmp_path / "home", database=SecretStr(server.url))


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """Of a database without tables."""
    engine = open_database(settings)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    yield engine
    engine.dispose()


@pytest.fixture
def make_database(server: PostgresServer, settings: Settings) -> Iterator[Make]:
    made: list[Engine] = []

    def make(content: Path | None = None, patience: int | None = None) -> Engine:
        name = f"made{len(made)}"
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
            connection.execute(f"CREATE DATABASE {name}".encode())
        url = make_url(server.url).set(database=name).render_as_string(hide_password=False)
        if content is not None:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute((content / "postgresql.sql").read_bytes())
        made.append(open_database(settings.model_copy(update={"database": SecretStr(url)}), patience))
        return made[-1]

    yield make
    for engine in made:
        engine.dispose()


def test_labels_cannot_be_emptied_either(engine: Engine) -> None:
    log = LabelLog(engine)
    label = said(log)
    with pytest.raises(DBAPIError, match="only ever added"), engine.begin() as connection:
        connection.execute(text("TRUNCATE labels"))
    assert log.since(0, 9) == [label]


def test_whoever_reads_labels_as_they_come_in_misses_none(settings: Settings, engine: Engine) -> None:
    """Four processes make the tables and add labels at once, and a reader follows by the number it saw last."""
    engines = [open_database(settings) for _ in range(4)]

    def add(one: Engine) -> None:
        log = LabelLog(one)
        for _ in range(25):
            said(log)

    log, seen = LabelLog(engine), []
    with ThreadPoolExecutor(4) as pool:
        adding = [pool.submit(add, one) for one in engines]
        while len(seen) < 100 and not (all(one.done() for one in adding) and not log.since(seen[-1] if seen else 0, 1)):
            seen += [label.sequence for label in log.since(seen[-1] if seen else 0, 7)]
        for one in adding:
            one.result()
    assert seen == [label.sequence for label in log.since(0, 999)]
    assert len(seen) == 100
    for one in engines:
        one.dispose()


def test_decisions_made_while_postgres_is_gone_are_delivered_when_it_is_back(
    server: PostgresServer, settings: Settings, engine: Engine
) -> None:
    log = DecisionLog(engine, 36_500)
    writer = open_decision_writer(settings, log)
    writer.submit([decided("before")]).result(30)
    server.stop()
    for name in ("during", "and after"):
        writer.submit([decided(name)]).result(30)
    assert writer.is_gone
    with pytest.raises(StoreError, match="postgresql database"):
        log.find("before")
    server.start()
    eventually(lambda: not writer.is_gone)
    writer.submit([decided("later")]).result(30)
    writer.close()
    assert {one.transaction_id for one in log.recent(NOON, 9)} == {"before", "during", "and after", "later"}

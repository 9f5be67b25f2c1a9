"""The SQL database behind decisions, labels, users and the review queue: SQLite by default, PostgreSQL by its URL."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, MetaData, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, ProgrammingError, SQLAlchemyError

from fraud_core.errors import SettingsError, StoreError
from fraud_core.settings import Settings

BUSY_SECONDS = 10.0  # how long a writer waits for another one


def open_database(settings: Settings) -> Engine:
    """The database that the settings name. Nothing is connected to yet.

    Raises:
        SettingsError: the URL is not one of PostgreSQL.
    """
    if settings.database is None:
        settings.home.mkdir(parents=True, exist_ok=True)
        engine = create_engine(f"sqlite:///{settings.home / 'fraud.sqlite'}", connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine, "connect", _prepare_sqlite)
        return engine
    try:
        url = make_url(settings.database.get_secret_value())
    except ArgumentError:
        url = None
    if url is None or url.get_backend_name() != "postgresql":  # the URL may hold a password, and is not repeated
        raise SettingsError("FRAUD_DATABASE must look like postgresql://user:password@host:5432/name, or be empty for SQLite.")
    return create_engine(
        url.set(drivername="postgresql+psycopg"), pool_pre_ping=True, connect_args={"connect_timeout": int(BUSY_SECONDS)}
    )


def create_tables(engine: Engine, metadata: MetaData) -> None:
    """Make the tables that are not there yet. Two processes may do so at once.

    Raises:
        StoreError: the database cannot be reached, or refuses.
    """
    with reached(engine):
        try:
            metadata.create_all(engine)
        except (OperationalError, ProgrammingError):
            metadata.create_all(engine)  # another process made one between our look and our attempt


@contextmanager
def reached(engine: Engine) -> Iterator[None]:
    """Whatever goes wrong with the database inside is told as one sentence.

    Raises:
        StoreError: the database cannot be reached, or refuses.
    """
    try:
        yield
    except (DBAPIError, SQLAlchemyError) as error:
        place = f"the {engine.url.get_backend_name()} database {engine.url.render_as_string(hide_password=True)}"
        cause = type(error.orig if isinstance(error, DBAPIError) and error.orig is not None else error).__name__
        raise StoreError(
            f"{place[0].upper()}{place[1:]} cannot be used ({cause}); see that it runs and that FRAUD_DATABASE is right."
        ) from error


def _prepare_sqlite(connection: Any, _: object) -> None:
    """Readers and one writer do not wait for each other, and a commit survives the end of the process, if not of the power."""
    assert isinstance(connection, sqlite3.Connection)
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")

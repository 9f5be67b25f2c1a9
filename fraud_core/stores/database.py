"""The SQL database behind decisions, labels, users and the review queue: SQLite by default, PostgreSQL by its URL."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr
from sqlalchemy import URL, Connection, Engine, MetaData, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from fraud_core.errors import SettingsError, StoreError
from fraud_core.settings import Settings

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BUSY_SECONDS = 10.0  # how long a writer waits for another one
GONE_SECONDS = 3  # a server that does not answer for so long is taken to be gone


def open_database(settings: Settings) -> Engine:
    """The database that the settings name. Nothing is connected to yet.

    Raises:
        SettingsError: the URL is not one of PostgreSQL.
    """
    if settings.database is None:
        settings.home.mkdir(parents=True, exist_ok=True)
        url = URL.create("sqlite", database=str(settings.home / "fraud.sqlite"))
        engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})
        synchronous = "FULL" if settings.decision_sync == "power" else "NORMAL"
        event.listen(engine, "connect", lambda connection, _: _prepare_sqlite(connection, synchronous))
        return engine
    url = postgresql_url(settings.database, "FRAUD_DATABASE")
    patience = {"connect_timeout": GONE_SECONDS, "tcp_user_timeout": GONE_SECONDS * 1_000}
    return create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True, connect_args=patience)


def postgresql_url(given: SecretStr, name: str) -> URL:
    """The URL of a PostgreSQL database; `name` is the setting that holds it.

    Raises:
        SettingsError: it is not one.
    """
    try:
        url = make_url(given.get_secret_value())
    except ArgumentError:
        url = None
    if url is None or url.get_backend_name() != "postgresql":  # the URL may hold a password, and is not repeated
        raise SettingsError(f"{name} must look like postgresql://user:password@host:5432/name, or be empty for SQLite.")
    return url


def create_tables(engine: Engine, metadata: MetaData) -> None:
    """Make the tables that are not there yet. Two processes may do so at once.

    Raises:
        StoreError: the database cannot be reached, or refuses.
    """
    with reached(engine):
        try:
            metadata.create_all(engine)
        except DBAPIError:
            metadata.create_all(engine)  # another process made one between our look and our attempt


class Tables:
    """Some tables of the database, made at their first use. Safe to share between threads."""

    def __init__(self, engine: Engine, metadata: MetaData) -> None:
        self.engine = engine
        self._metadata = metadata
        self._made = False

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection whose work is committed at the end, or undone where something goes wrong.

        Raises:
            StoreError: the database cannot be reached, or refuses.
        """
        if not self._made:
            create_tables(self.engine, self._metadata)
            self._made = True
        with reached(self.engine), self.engine.begin() as connection:
            yield connection


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


def to_microseconds(moment: datetime) -> int:
    """Microseconds since 1970 UTC, as times are stored. Raises TypeError for a time without a zone."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def from_microseconds(stored: int) -> datetime:
    """The time in UTC of `to_microseconds`."""
    return EPOCH + timedelta(microseconds=stored)


def _prepare_sqlite(connection: Any, synchronous: str) -> None:
    """Readers and one writer do not wait for each other; a commit survives the end of the process (FULL: of power)."""
    assert isinstance(connection, sqlite3.Connection)
    for pragma in ("journal_mode=WAL", f"synchronous={synchronous}", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")

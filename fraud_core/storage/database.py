"""The SQL database behind decisions, labels, users, API keys and the review queue: SQLite by default, PostgreSQL by its URL."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, SQLAlchemyError

from fraud_core.errors import SettingsError, StoreError
from fraud_core.settings import Settings
from fraud_core.storage.write_ahead import opening
from fraud_core.system.private import keep_out_of_git

BUSY_SECONDS = 10.0  # how long a writer waits for another one
GONE_SECONDS = 3  # a server that does not answer for so long is taken to be gone


def open_database(settings: Settings, patience: int | None = None) -> Engine:
    """The database that the settings name. Nothing is connected to yet.

    Args:
        settings: all of it.
        patience: milliseconds after which a statement gives up that waits for others, or for a silent server; None: seconds.

    Raises:
        SettingsError: the URL is not one of PostgreSQL.
    """
    if settings.database is None:
        settings.home.mkdir(parents=True, exist_ok=True)
        keep_out_of_git(settings.home)
        seconds = BUSY_SECONDS if patience is None else patience / 1_000
        url = URL.create("sqlite", database=str(settings.home / "fraud.sqlite"))
        engine = create_engine(url, connect_args={"timeout": seconds}, execution_options={"patience": patience})
        synchronous = "FULL" if settings.decision_sync == "power" else "NORMAL"
        path = settings.home / "fraud.sqlite"
        event.listen(engine, "connect", lambda connection, _: _prepare_sqlite(connection, path, synchronous))
        _stay_with_the_file(engine, path)
        return engine
    url = postgresql_url(settings.database, "FRAUD_DATABASE")
    silent = GONE_SECONDS * 1_000 if patience is None else patience
    options = {"connect_timeout": GONE_SECONDS, "tcp_user_timeout": silent}
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        connect_args=options,
        execution_options={"patience": patience},
    )
    if patience is not None:
        event.listen(engine, "connect", lambda connection, _: _give_up_after(connection, patience))
    return engine


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


@contextmanager
def reached(engine: Engine) -> Iterator[None]:
    """Whatever goes wrong with the database inside is told as one sentence.

    Raises:
        StoreError: the database cannot be reached, or refuses.
    """
    try:
        yield
    except (DBAPIError, SQLAlchemyError) as error:
        cause = type(error.orig if isinstance(error, DBAPIError) and error.orig is not None else error).__name__
        raise StoreError(
            f"{described(engine)} cannot be used ({cause}); see that it runs and that FRAUD_DATABASE is right."
        ) from error


def is_patient(engine: Engine) -> bool:
    """Whether its statements may take as long as they need; see `open_database`."""
    return engine.get_execution_options().get("patience") is None


def described(engine: Engine) -> str:
    """The database at the beginning of a sentence, without its password."""
    return f"The {engine.url.get_backend_name()} database {engine.url.render_as_string(hide_password=True)}"


def _prepare_sqlite(connection: Any, path: Path, synchronous: str) -> None:
    assert isinstance(connection, sqlite3.Connection)
    with opening(connection, path, synchronous):
        connection.execute("PRAGMA foreign_keys=ON")


def _give_up_after(connection: Any, milliseconds: int) -> None:
    """Have a statement fail that waits for a lock, or takes longer than this."""
    for name in ("lock_timeout", "statement_timeout"):
        connection.execute(f"SET {name} = {milliseconds}")
    connection.commit()


def file_identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another that took its place; None: there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - each transaction asks, and pathlib takes three times as long
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _stay_with_the_file(engine: Engine, path: Path) -> None:
    """Write into the SQLite file that stands at the path, never into one that was moved or deleted while it was open.

    Another file in its place is opened instead. While there is none, connections are refused: an empty one in its place would
    hide that everything is gone.
    """
    was_there = False

    def connecting(dialect: Any, record: Any, arguments: Any, options: Any) -> None:
        if was_there and file_identity(path) is None:
            raise sqlite3.OperationalError(moved_away(path))

    def connected(connection: Any, record: Any) -> None:
        nonlocal was_there
        was_there = True
        record.info["file"] = file_identity(path)

    def used(connection: Any, record: Any, proxy: Any) -> None:
        if file_identity(path) != record.info["file"]:
            raise DisconnectionError(moved_away(path))

    event.listen(engine, "do_connect", connecting)
    event.listen(engine, "connect", connected)
    event.listen(engine, "checkout", used)


def moved_away(path: Path) -> str:
    """What to say of a file that is no longer where it was."""
    return f"{path} was moved away or deleted while it was in use; put it back, or start again to begin with an empty one"

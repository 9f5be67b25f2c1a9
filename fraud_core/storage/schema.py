"""Schema of the SQL database: its version, and the migrations (by Alembic) that bring an earlier one up to date.

Each version is a file in `migrations/versions`, which is never changed once it was released; a test holds what all of them make
together and the tables that the modules declare to be the same. A version that only adds what a program of before need not know
counts up behind the point, so that a release can be taken back; before the point, that program refuses the database.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from sqlalchemy import Connection, Engine, MetaData, inspect
from sqlalchemy.dialects import postgresql, sqlite

from fraud_core.errors import SchemaError, StoreError
from fraud_core.storage.database import described, is_patient, reached

logger = logging.getLogger(__name__)

METADATA = MetaData()  # each module declares its own tables in it
_NOTED_IN = "schema_version"  # not Alembic's usual name, which is Dagster's or MLflow's where they share the database
_LOCK = 0x6672617564  # "fraud": the number by which processes that use one PostgreSQL wait for each other
_ALONE = threading.Lock()  # Alembic keeps the connection that it works on in a global


class Version(NamedTuple):
    """A version of the schema; programs of one `major` can work with each other's."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


VERSION = Version(3, 0)  # the newest migration's
NONE = Version(0, 0)


class Tables:
    """The tables of the database, brought up to date at their first use. Safe to share between threads.

    Attributes:
        insert: an insertion in the database's own dialect, which can say what to do about rows that are there.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
        self._are_ready = False

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection whose work is committed at the end, or undone where something goes wrong.

        Raises:
            StoreError: the database cannot be reached, or refuses.
            SchemaError: a newer release upgraded it.
        """
        if not self._are_ready:
            upgrade(self.engine)
            self._are_ready = True
        with reached(self.engine), self.engine.begin() as connection:
            yield connection


def version_of(engine: Engine) -> Version:
    """The version of a database's schema; `NONE`: it is empty, or of the time before there were versions.

    Raises:
        StoreError: the database cannot be reached, or refuses.
        SchemaError: it bears no version of ours.
    """
    with reached(engine), engine.connect() as connection:
        return _noted(connection)


def upgrade(engine: Engine) -> Version:
    """Bring the schema up to date, whole or not at all, one process after the other; returns the version before.

    Costs one look where it is up to date. Who has no patience does not wait: another thread upgrades meanwhile.

    Raises:
        StoreError: the database cannot be reached, or refuses, or there is no patience for an upgrade.
        SchemaError: a newer release upgraded it.
    """
    before = version_of(engine)
    if _is_current(engine, before):
        return before
    if is_patient(engine):
        _upgrade(engine)
        return before
    if not _ALONE.locked():
        threading.Thread(target=_upgrade_meanwhile, args=(engine,), name="schema", daemon=True).start()
    raise StoreError(f"{described(engine)} has a schema of version {before}, which is being brought up to date.")


def _upgrade_meanwhile(engine: Engine) -> None:
    try:
        _upgrade(engine)
    except StoreError as error:
        logger.error("%s Its schema is not up to date, which is tried again at its next use.", error)


def _upgrade(engine: Engine) -> None:
    with _ALONE, reached(engine), engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        if not _is_current(engine, found := _noted(connection)):  # or another process was quicker
            logger.info("upgrading the schema of the database from version %s to %s", found, VERSION)
            _migrate(connection)


def upgrade_at_start(engine: Engine) -> None:
    """Upgrade before a server takes its first request. One that cannot be reached is upgraded when it can: servers do without it.

    Raises:
        SchemaError: a newer release upgraded it.
    """
    try:
        upgrade(engine)
    except SchemaError:
        raise
    except StoreError as error:
        logger.warning("%s Its schema is brought up to date at its first use.", error)
    finally:
        engine.dispose()


def _is_current(engine: Engine, version: Version) -> bool:
    if version.major > VERSION.major:
        raise SchemaError(
            f"{described(engine)} has a schema of version {version}, and this program knows those up to {VERSION.major}: a newer "
            "release has upgraded it. Run that release or a later one, or restore the backup that was made before."
        )
    return version >= VERSION


def _noted(connection: Connection) -> Version:
    if not inspect(connection).has_table(_NOTED_IN):
        return NONE
    noted = connection.exec_driver_sql(f"SELECT version_num FROM {_NOTED_IN}").scalar()  # noqa: S608 - our own name
    if noted is None:
        return NONE
    parts = str(noted).split(".")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise SchemaError(
            f"{described(connection.engine)} is not this program's: its schema is of version {noted}, which is none."
        )
    return Version(*map(int, parts))


def _migrate(connection: Connection) -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of each of its parts
    from alembic import command  # noqa: PLC0415 - a database that is up to date needs none of it
    from alembic.config import Config  # noqa: PLC0415

    config = Config(attributes={"connection": connection, "version_table": _NOTED_IN})
    config.set_main_option("script_location", "fraud_core.storage:migrations")
    config.set_main_option("path_separator", "os")
    command.upgrade(config, "head")

"""API keys: who may call the scorer, and for what. Only hashes are stored; a key is shown once, when it is made."""

import hashlib
import hmac
import logging
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    Row,
    Table,
    Text,
    func,
    insert,
    select,
    update,
)

from fraud_core.errors import SettingsError, StoreError
from fraud_core.settings import Settings
from fraud_core.storage.database import open_database
from fraud_core.storage.schema import METADATA, Tables
from fraud_core.units.time import from_microseconds, to_microseconds

logger = logging.getLogger(__name__)

SCOPES = ("score", "label", "metrics", "admin")  # admin: versions, metrics, reload; neither score nor label
PREFIX = "fraud"
FOLLOW_SECONDS = 0.5  # so that who is revoked is out within a second

_KEYS = Table(
    "api_keys",
    METADATA,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("scopes", Text, nullable=False),  # names between spaces
    Column("created", BigInteger, nullable=False),  # times are microseconds since 1970 UTC
    Column("revoked", BigInteger),
    Column("sha256", LargeBinary, nullable=False),  # of the token
)


@dataclass(frozen=True)
class ApiKey:
    """An API key as it is stored. `id` is public: it stands in logs, and is what one revokes."""

    id: str
    number: int
    name: str
    scopes: frozenset[str]
    created: datetime
    revoked: datetime | None
    sha256: bytes

    def allows(self, scope: str) -> bool:
        """Whether the key may be used for this; a revoked one for nothing."""
        return self.revoked is None and scope in self.scopes


class ApiKeys:
    """The keys in the SQL database, which all scorers of an installation share. Safe to share between threads.

    Every method raises StoreError where the database cannot be used.

    Args:
        engine: see `database.open_database`.
        former: the file that held this machine's keys before the database did. Those that the database does not have are taken
            over at the first use, and what is revoked in either is revoked; the file itself is never written.
    """

    def __init__(self, engine: Engine, former: Path) -> None:
        self._tables = Tables(engine)
        self._former = former
        self._has_former = True

    @classmethod
    def of(cls, settings: Settings, engine: Engine | None = None) -> "ApiKeys":
        """The keys of an installation.

        Args:
            settings: all of it.
            engine: of its database, where that is open already.
        """
        return cls(open_database(settings) if engine is None else engine, settings.home / "api_keys.sqlite")

    def create(self, name: str, scopes: list[str], now: datetime | None = None) -> tuple[ApiKey, str]:
        """Make a key for somebody.

        Returns:
            The key as stored, and the token to hand over: 256 random bits that cannot be shown again.

        Raises:
            SettingsError: there is no such scope, or none is given, or the name is empty.
        """
        unknown = sorted(set(scopes) - set(SCOPES))
        if unknown or not scopes:
            raise SettingsError(f"A key needs one or more of the scopes {', '.join(SCOPES)}; not {', '.join(unknown) or 'none'}.")
        if not name.strip():
            raise SettingsError("Name the service or person that will hold the key, so that you know which one to revoke.")
        identity = secrets.token_hex(6)
        token = f"{PREFIX}_{identity}_{secrets.token_hex(32)}"
        row = {
            "id": identity,
            "name": name.strip(),
            "scopes": " ".join(sorted(set(scopes))),
            "created": to_microseconds(now or datetime.now(UTC)),
            "sha256": _hash(token),
        }
        with self._transaction() as connection:
            connection.execute(insert(_KEYS).values(row))
        return self._found(identity), token

    def list(self) -> list[ApiKey]:
        """All keys, oldest first, revoked ones too."""
        with self._transaction() as connection:
            rows = connection.execute(select(_KEYS).order_by(_KEYS.c.number)).all()
        return [_key(row) for row in rows]

    def revoke(self, identity: str, now: datetime | None = None) -> ApiKey:
        """Take a key out of service, at once and for good; a key that is revoked already stays as it was.

        Raises:
            SettingsError: there is no such key.
        """
        moment = to_microseconds(now or datetime.now(UTC))
        with self._transaction() as connection:
            connection.execute(update(_KEYS).where(_KEYS.c.id == identity, _KEYS.c.revoked.is_(None)).values(revoked=moment))
        return self._found(identity)

    def stamp(self) -> tuple[int | None, ...]:
        """Something that changes whenever the keys do, cheap to ask for."""
        asked = (func.count(), func.count(_KEYS.c.revoked), func.max(_KEYS.c.created), func.max(_KEYS.c.revoked))
        with self._transaction() as connection:
            return tuple(connection.execute(select(*asked).select_from(_KEYS)).one())

    def _found(self, identity: str) -> ApiKey:
        with self._transaction() as connection:
            row = connection.execute(select(_KEYS).where(_KEYS.c.id == identity)).one_or_none()
        if row is None:
            raise SettingsError(f"There is no API key {identity}; `fraud keys list` names them.")
        return _key(row)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        if self._has_former:
            self._take_over(_former_keys(self._former))
            self._has_former = False
        with self._tables.transaction() as connection:
            yield connection

    def _take_over(self, former: Sequence[Mapping[str, Any]]) -> None:
        """Add keys that are not there, and revoke those that are revoked in the file. So a release that knows the file alone may
        come in between, and loses nothing."""
        if not former:
            return
        with self._tables.transaction() as connection:
            known = {row.id: row.revoked for row in connection.execute(select(_KEYS.c.id, _KEYS.c.revoked))}
            new = [row for row in former if row["id"] not in known]
            if new:
                # Another process, or one of another machine with a copy of the file, may do the same now.
                connection.execute(self._tables.insert(_KEYS).on_conflict_do_nothing(index_elements=["id"]), new)
                logger.info("%d API keys of %s were taken over into the database", len(new), self._former)
            for row in former:
                if row["revoked"] is not None and known.get(row["id"], 0) is None:
                    connection.execute(update(_KEYS).where(_KEYS.c.id == row["id"]).values(revoked=row["revoked"]))


def _former_keys(path: Path) -> Sequence[Mapping[str, Any]]:
    """The keys in a file as releases up to 0.1.0 wrote it, as rows of the table; none where there is no file.

    Raises:
        StoreError: it cannot be read.
    """
    if not path.exists() or path.stat().st_size == 0:
        return []
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as file:
            rows = file.execute("SELECT id, name, scopes, created, revoked, sha256 FROM keys ORDER BY number").fetchall()
        return [
            {
                "id": row[0],
                "name": row[1],
                "scopes": row[2],
                "created": to_microseconds(datetime.fromisoformat(row[3])),
                "revoked": None if row[4] is None else to_microseconds(datetime.fromisoformat(row[4])),
                "sha256": row[5],
            }
            for row in rows
        ]
    except (OSError, ValueError, sqlite3.Error) as error:
        raise StoreError(
            f"The API keys in {path} cannot be taken over into the database: {error}. Put back a copy of the file, or move "
            "it away if its keys are in the database already (`fraud keys list`)."
        ) from error


class KeyRing:
    """The keys in memory, for checking one a request. Follows changes of the database in a thread of its own."""

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys
        self._stamp: tuple[int | None, ...] | None = None
        self._by_id: Mapping[str, ApiKey] = {}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.is_damaged = False
        """Whether the keys cannot be read at present; what was read of them last still holds."""

    def start(self, seconds: float = FOLLOW_SECONDS) -> None:
        """Read the keys, and look for changes every so many seconds."""
        self.refresh()
        self._thread = threading.Thread(target=self._follow, args=(seconds,), name="api-keys", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def holder_of(self, token: str) -> ApiKey | None:
        """The living key behind a token, None where there is none."""
        parts = token.split("_")
        key = self._by_id.get(parts[1]) if len(parts) == 3 else None
        # The comparison takes as long for an unknown id as for a wrong secret.
        matches = hmac.compare_digest(_hash(token), key.sha256 if key else bytes(32))
        return key if key is not None and matches and key.revoked is None else None

    def refresh(self) -> None:
        """Look for changes now. Never raises: where the keys cannot be read, those that were read last hold."""
        try:
            stamp = self._keys.stamp()
            if stamp != self._stamp:
                self._by_id, self._stamp = {key.id: key for key in self._keys.list()}, stamp
        except (StoreError, OSError) as error:
            if not self.is_damaged:
                logger.error("the API keys cannot be read, and those that were read last still hold: %s", error)
            self.is_damaged = True
            return
        if self.is_damaged:
            logger.info("the API keys can be read again")
        self.is_damaged = False

    def _follow(self, seconds: float) -> None:
        while not self._stopped.wait(seconds):
            self.refresh()


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        number=row.number,
        name=row.name,
        scopes=frozenset(row.scopes.split()),
        created=from_microseconds(row.created),
        revoked=None if row.revoked is None else from_microseconds(row.revoked),
        sha256=bytes(row.sha256),
    )


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()

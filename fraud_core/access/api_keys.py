"""API keys: who may call the scorer, and for what. Only hashes are stored; a key is shown once, when it is made."""

import hashlib
import hmac
import logging
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fraud_core.errors import SettingsError, StoreError

logger = logging.getLogger(__name__)

SCOPES = ("score", "label", "metrics", "admin")  # admin: versions, metrics, reload; neither score nor label
PREFIX = "fraud"


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
    """The keys in an SQLite file, which all workers of a machine share.

    Args:
        path: the file; made, readable by its owner alone, when the first key is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

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
        created = now or datetime.now(UTC)
        with self._connected() as database:
            database.execute(
                "INSERT INTO keys (id, name, scopes, created, sha256) VALUES (?, ?, ?, ?, ?)",
                (identity, name.strip(), " ".join(sorted(set(scopes))), created.isoformat(), _hash(token)),
            )
        return next(key for key in self.list() if key.id == identity), token

    def list(self) -> list[ApiKey]:
        """All keys, oldest first, revoked ones too."""
        if not self.path.exists():
            return []
        with self._connected() as database:
            rows = database.execute(
                "SELECT id, number, name, scopes, created, revoked, sha256 FROM keys ORDER BY number"
            ).fetchall()
        return [
            ApiKey(
                id=row[0],
                number=row[1],
                name=row[2],
                scopes=frozenset(row[3].split()),
                created=datetime.fromisoformat(row[4]),
                revoked=None if row[5] is None else datetime.fromisoformat(row[5]),
                sha256=row[6],
            )
            for row in rows
        ]

    def revoke(self, identity: str, now: datetime | None = None) -> ApiKey:
        """Take a key out of service, at once and for good; a key that is revoked already stays as it was.

        Raises:
            SettingsError: there is no such key.
        """
        revoked = now or datetime.now(UTC)
        if identity in {key.id for key in self.list()}:
            with self._connected() as database:
                database.execute("UPDATE keys SET revoked = ? WHERE id = ? AND revoked IS NULL", (revoked.isoformat(), identity))
        found = [key for key in self.list() if key.id == identity]
        if not found:
            raise SettingsError(f"There is no API key {identity}; `fraud keys list` names them.")
        return found[0]

    def stamp(self) -> tuple[int, int, int] | None:
        """Something that changes whenever the keys do, cheap to ask for; None while there is no file."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch(mode=0o600)
            # Rollback journal, not WAL: a change is then in the file itself, where `stamp` sees it.
            with closing(sqlite3.connect(self.path, timeout=10)) as database, database:
                database.execute(_TABLE)
                yield database
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"The API keys in {self.path} cannot be read or written: {error}.") from error


_TABLE = """CREATE TABLE IF NOT EXISTS keys (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, scopes TEXT NOT NULL,
    created TEXT NOT NULL, revoked TEXT, sha256 BLOB NOT NULL)"""


class KeyRing:
    """The keys in memory, for checking one a request. Follows changes of the file within `refresh_seconds`."""

    def __init__(self, keys: ApiKeys, refresh_seconds: float = 1.0) -> None:
        self._keys = keys
        self._refresh_seconds = refresh_seconds
        self._read_at = float("-inf")
        self._stamp: tuple[int, int, int] | None = None
        self._by_id: dict[str, ApiKey] = {}
        self.is_damaged = False
        """Whether the file cannot be read at present; what was read of it last still holds."""

    def holder_of(self, token: str, now: float) -> ApiKey | None:
        """The living key behind a token, None where there is none.

        Args:
            now: a monotonic clock, in seconds.
        """
        if now - self._read_at >= self._refresh_seconds:
            self._refresh(now)
        parts = token.split("_")
        key = self._by_id.get(parts[1]) if len(parts) == 3 else None
        # The comparison takes as long for an unknown id as for a wrong secret.
        matches = hmac.compare_digest(_hash(token), key.sha256 if key else bytes(32))
        return key if key is not None and matches and key.revoked is None else None

    def _refresh(self, now: float) -> None:
        self._read_at = now
        try:
            stamp = self._keys.stamp()
            if stamp == self._stamp:
                return
            if stamp is None and self._by_id:
                raise StoreError(f"The API keys in {self._keys.path} are gone.")
            found = {key.id: key for key in self._keys.list()}
        except (StoreError, OSError, ValueError) as error:
            if not self.is_damaged:
                logger.error("%s Those that were read last still hold; put back a copy of the file, or make new keys.", error)
            self.is_damaged = True
            return
        if self.is_damaged:
            logger.info("the API keys can be read again")
        self._by_id, self._stamp, self.is_damaged = found, stamp, False


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()

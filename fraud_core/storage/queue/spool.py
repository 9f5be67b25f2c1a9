"""A durable queue on this machine's disk (SQLite) for what cannot be delivered at present."""

import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from fraud_core.errors import StoreError
from fraud_core.storage.write_ahead import opening

logger = logging.getLogger(__name__)

DELIVERED_AT_ONCE = 500
Item = TypeVar("Item")
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Spool:
    """Lines of text on this machine's disk, in the order they came in, to be delivered later. All processes of a home share it.

    Args:
        path: an SQLite file; made when the first line comes.
        most: so many are kept at most.
        cure: what to do when it is full, as the end of a sentence.
        durable: whether what was appended survives a loss of power, too.
    """

    def __init__(self, path: Path, most: int, cure: str, *, durable: bool = False) -> None:
        self.path = path
        self.most = most
        self._cure = cure
        self._synchronous = "FULL" if durable else "NORMAL"

    def append(self, lines: Sequence[str]) -> None:
        """Keep lines.

        Raises:
            StoreError: the spool is full, or its file cannot be written; none of them is kept.
        """
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            if self._count(connection) + len(lines) > self.most:
                raise StoreError(
                    f"{self.path} holds {self.most:,} records that could not be delivered, and takes no more; {self._cure}."
                )
            connection.executemany("INSERT INTO spool (line) VALUES (?)", [(line,) for line in lines])

    def see_that_it_takes(self) -> None:
        """Write something and take it back.

        Raises:
            StoreError: nothing can be written at present.
        """
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT OR REPLACE INTO looks VALUES (1, julianday())")

    def waiting(self) -> int:
        """How many are kept. Raises StoreError where the file cannot be read."""
        if not self.path.exists():
            return 0
        with self._connected() as connection:
            return self._count(connection)

    def deliver(self, read: Callable[[str], Item], take: Callable[[list[Item]], object]) -> None:
        """Hand over what is kept, the oldest first. After a delivery that was cut short some lines come again.

        Args:
            read: a line -> what is handed over. A line that it cannot read is set aside in the file, and holds up no other.
            take: is handed some of them.

        Raises:
            StoreError: they cannot be taken yet; what was not taken is still kept.
        """
        while self.waiting():
            with self._connected() as connection:
                rows = connection.execute(
                    "SELECT number, line FROM spool ORDER BY number LIMIT ?", (DELIVERED_AT_ONCE,)
                ).fetchall()
            if not rows:
                return  # another process was quicker
            items, damaged = [], []
            for number, line in rows:
                try:
                    items.append(read(line))
                except Exception as error:  # its words may repeat the line
                    damaged.append((number, line))
                    logger.error(
                        "record %d of %s is damaged (%s) and was set aside in it", number, self.path, type(error).__name__
                    )
            if items:
                take(items)
            with self._connected() as connection:
                connection.executemany("INSERT OR REPLACE INTO damaged VALUES (?, ?)", damaged)
                connection.execute("DELETE FROM spool WHERE number <= ?", (rows[-1][0],))

    @staticmethod
    def _count(connection: sqlite3.Connection) -> int:
        # Taken off at one end alone: their number is known without counting.
        return int(connection.execute("SELECT coalesce(max(number) - min(number) + 1, 0) FROM spool").fetchone()[0])

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=5)) as connection, connection:
                with opening(connection, self.path, self._synchronous):
                    connection.execute("CREATE TABLE IF NOT EXISTS spool (number INTEGER PRIMARY KEY AUTOINCREMENT, line TEXT)")
                    connection.execute("CREATE TABLE IF NOT EXISTS looks (number INTEGER PRIMARY KEY, at REAL)")
                    connection.execute("CREATE TABLE IF NOT EXISTS damaged (number INTEGER PRIMARY KEY, line TEXT)")
                yield connection
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, sqlite3.DatabaseError) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
                self._set_aside()
            raise StoreError(f"{self.path} cannot be used ({error}); see that its disk is writable and has room.") from error

    def _set_aside(self) -> None:
        """Rename a file that is damaged, so that a new one is begun with the next call."""
        aside = self.path.with_name(f"{self.path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
        with suppress(OSError):  # another process was quicker, or the disk is read-only
            for end in ("-wal", "-shm", ""):
                file = Path(f"{self.path}{end}")
                if file.exists():
                    file.rename(f"{aside}{end}")
            logger.error(
                "%s is damaged and was set aside as %s; a new one is begun. What it held was not delivered: try "
                "`sqlite3 %s .recover`, and keep the file.",
                self.path,
                aside,
                aside,
            )

"""What cannot be delivered at present waits on this machine's disk."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from fraud_core.errors import StoreError

DELIVERED_AT_ONCE = 500


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

    def waiting(self) -> int:
        """How many are kept."""
        if not self.path.exists():
            return 0
        with self._connected() as connection:
            return self._count(connection)

    def deliver(self, take: Callable[[list[str]], object]) -> None:
        """Hand over what is kept, the oldest first. After a delivery that was cut short some lines come again.

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
            take([line for _, line in rows])
            with self._connected() as connection:
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
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute(f"PRAGMA synchronous={self._synchronous}")
                connection.execute("CREATE TABLE IF NOT EXISTS spool (number INTEGER PRIMARY KEY AUTOINCREMENT, line TEXT)")
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self.path} cannot be used ({error}); see that its disk is writable and has room.") from error

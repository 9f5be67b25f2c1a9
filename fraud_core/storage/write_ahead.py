"""SQLite's write-ahead log: readers and one writer do not wait for each other, and many may open a new file at once."""

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def opening(connection: sqlite3.Connection, path: Path, synchronous: str) -> Iterator[None]:
    """Switch a connection to the write-ahead log; what is made within is made by one process or thread at a time.

    Two that switch a new file at once can each hold what the other waits for; SQLite ends that by "database is locked", whatever
    the timeout. So it is made under a lock beside the file.

    Args:
        connection: to the file, nothing begun.
        path: of the file.
        synchronous: NORMAL (a commit survives the end of the process) or FULL (of power).
    """
    with path.with_name(f"{path.name}.opening").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        yield

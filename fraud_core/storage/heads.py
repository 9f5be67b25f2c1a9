"""Rollback protection: the newest change (head) of each signed document that was seen, kept outside of the object store.

A signature says who wrote a document, not that it is the newest: an old one that is put back is signed as well. So documents
carry a sequence, and whoever follows one remembers how far it was.
"""

import logging
from collections.abc import Collection, Mapping
from typing import NamedTuple

from sqlalchemy import BigInteger, Column, Engine, Table, Text, delete, select

from fraud_core.errors import StoreError
from fraud_core.storage.schema import METADATA, Tables

logger = logging.getLogger(__name__)

FEW = 100  # documents that are asked for by their names; of more, all of the store's are read

_HEADS = Table(
    "heads",
    METADATA,
    Column("store", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("signature", Text, nullable=False),
)


class Head(NamedTuple):
    """A change of a document: its number, and its signature, by which two changes of one number are told apart."""

    sequence: int
    signature: str


class Heads:
    """The heads of one object store in the SQL database. Safe to share between threads and processes.

    Every method raises StoreError where the database cannot be used.

    Args:
        engine: see `database.open_database`.
        store: URL of the object store.
    """

    def __init__(self, engine: Engine, store: str) -> None:
        self._store = store
        self._tables = Tables(engine)

    def seen(self, names: Collection[str] | None = None) -> dict[str, Head]:
        """Name of a document -> the newest change of it that was seen; of these documents, or of all."""
        asked = select(_HEADS.c.name, _HEADS.c.sequence, _HEADS.c.signature).where(_HEADS.c.store == self._store)
        if names is not None and len(names) <= FEW:
            asked = asked.where(_HEADS.c.name.in_(names))
        with self._tables.transaction() as connection:
            rows = connection.execute(asked).all()
        return {row.name: Head(row.sequence, row.signature) for row in rows}

    def sequence(self, name: str) -> int:
        """The newest change of a document that was seen; 0 for none."""
        head = self.seen([name]).get(name)
        return 0 if head is None else head.sequence

    def behind(self, found: Mapping[str, Head | None]) -> dict[str, Head]:
        """Which of these (None: it is gone) are not the newest change that was seen, and that one; the others are remembered.

        Documents that were written before there were sequences have the number 0, and are only older than later ones.
        """
        seen = self.seen(found.keys())
        behind = behind_seen(found, seen)
        newer = {name: head for name, head in found.items() if head is not None and name not in behind and head != seen.get(name)}
        if newer:
            insert = self._tables.insert(_HEADS)
            rows = [{"store": self._store, "name": name, **head._asdict()} for name, head in newer.items()]
            raised = insert.on_conflict_do_update(
                index_elements=["store", "name"],
                set_={"sequence": insert.excluded.sequence, "signature": insert.excluded.signature},
                where=insert.excluded.sequence >= _HEADS.c.sequence,  # another process may have seen a newer one meanwhile
            )
            with self._tables.transaction() as connection:
                connection.execute(raised, rows)
        return behind

    def forget(self) -> int:
        """Forget all of this store, as after it was restored from a backup; returns how many documents that were."""
        with self._tables.transaction() as connection:
            return connection.execute(delete(_HEADS).where(_HEADS.c.store == self._store)).rowcount


class ProcessHeads:
    """What this process has seen, in front of what the database remembers, without which it goes on.

    Args:
        kept: remembers over restarts and for other processes; None: nobody does.
    """

    def __init__(self, kept: Heads | None) -> None:
        self._kept = kept
        self._seen: dict[str, Head] = {}

    def behind(self, found: Mapping[str, Head | None]) -> dict[str, Head]:
        """As `Heads.behind`; a database that cannot be used is said in the log."""
        behind = behind_seen(found, self._seen)
        if self._kept is not None:
            try:
                behind |= self._kept.behind({name: head for name, head in found.items() if name not in behind})
            except StoreError as error:
                logger.warning("which change of a signed document was seen before cannot be told: %s", error)
        self._seen |= {name: head for name, head in found.items() if head is not None and name not in behind}
        return behind

    def sequence(self, name: str) -> int:
        """As `Heads.sequence`, of this process alone."""
        return self._seen[name].sequence if name in self._seen else 0


def behind_seen(found: Mapping[str, Head | None], seen: Mapping[str, Head]) -> dict[str, Head]:
    """Which of these (None: it is gone) are not the newest change that was seen, and that one."""
    return {name: seen[name] for name, head in found.items() if name in seen and _is_older(head, seen[name])}


def _is_older(head: Head | None, seen: Head) -> bool:
    if head is None or head.sequence != seen.sequence:
        return head is None or head.sequence < seen.sequence
    return head.sequence > 0 and head.signature != seen.signature

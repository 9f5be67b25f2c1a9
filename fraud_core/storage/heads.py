"""Rollback protection: the newest change (head) of each signed document that was seen, kept outside of the object store.

A signature says who wrote a document, not that it is the newest: an old one that is put back is signed as well. So documents
carry a sequence, and whoever follows one remembers how far it was.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from sqlalchemy import BigInteger, Column, Engine, Table, Text, delete, select

from fraud_core.storage.schema import METADATA, Tables

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

    def seen(self) -> dict[str, Head]:
        """Name of a document -> the newest change of it that was seen."""
        columns = (_HEADS.c.name, _HEADS.c.sequence, _HEADS.c.signature)
        with self._tables.transaction() as connection:
            rows = connection.execute(select(*columns).where(_HEADS.c.store == self._store)).all()
        return {row.name: Head(row.sequence, row.signature) for row in rows}

    def sequence(self, name: str) -> int:
        """The newest change of a document that was seen; 0 for none."""
        head = self.seen().get(name)
        return 0 if head is None else head.sequence

    def older(self, found: Mapping[str, Head]) -> Collection[str]:
        """Which of these are not the newest change that was seen, or another one of its number; the others are remembered.

        Documents that were written before there were sequences have the number 0, and are only older than later ones.
        """
        seen = self.seen()
        older = {name for name, head in found.items() if name in seen and _is_older(head, seen[name])}
        newer = {name: head for name, head in found.items() if name not in older and head != seen.get(name)}
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
        return older

    def forget(self) -> int:
        """Forget all of this store, as after it was restored from a backup; returns how many documents that were."""
        with self._tables.transaction() as connection:
            return connection.execute(delete(_HEADS).where(_HEADS.c.store == self._store)).rowcount


def _is_older(head: Head, seen: Head) -> bool:
    if head.sequence != seen.sequence:
        return head.sequence < seen.sequence
    return head.sequence > 0 and head.signature != seen.signature

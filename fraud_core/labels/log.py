"""Label log: what became of payments, by whose word, and since when that is known. Only ever added to."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Engine,
    Index,
    Integer,
    Table,
    Text,
    insert,
    select,
    text,
)

from fraud_core.labels.resolve import Label, LabelSource, Outcome
from fraud_core.storage.schema import METADATA, Tables
from fraud_core.units.time import from_microseconds, to_microseconds

_LABELS = Table(
    "labels",
    METADATA,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("transaction_id", Text, nullable=False),
    Column("outcome", Text, CheckConstraint("outcome IN ('fraud', 'legitimate', 'unsure')"), nullable=False),
    Column("source", Text, CheckConstraint("source IN ('chargeback', 'analyst', 'source')"), nullable=False),
    Column("author", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("event_time", BigInteger, nullable=False),  # times are microseconds since 1970 UTC
    Column("known_at", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)
Index("labels_transaction", _LABELS.c.transaction_id)
_BY_ANALYST = _LABELS.c.source == "analyst"
_SAID = (_LABELS.c.known_at, _LABELS.c.transaction_id, _LABELS.c.source)  # the last, so that SQLite need not look into the table
Index("labels_analyst", *_SAID, sqlite_where=_BY_ANALYST, postgresql_where=_BY_ANALYST)

_ASKED_AT_ONCE = 500  # ids in one statement


@dataclass(frozen=True, slots=True)
class NewLabel:
    """A label that is not written yet; see `Label`."""

    transaction_id: str
    outcome: Outcome
    source: LabelSource
    author: str
    event_time: datetime
    known_at: datetime
    role: str = ""
    note: str = ""


class LabelLog:
    """The labels in the SQL database. Safe to share between threads.

    Args:
        engine: see `database.open_database`.
    """

    table = _LABELS

    def __init__(self, engine: Engine) -> None:
        self._tables = Tables(engine)

    def append(
        self,
        *,
        transaction_id: str,
        outcome: Outcome,
        source: LabelSource,
        author: str,
        event_time: datetime,
        known_at: datetime,
        role: str = "",
        note: str = "",
    ) -> Label:
        """Add a label (see `Label`).

        Raises:
            StoreError: the database cannot be used, or refuses; nothing was written.
        """
        return self.append_all([NewLabel(transaction_id, outcome, source, author, event_time, known_at, role, note)])[0]

    def append_all(self, words: Sequence[NewLabel]) -> list[Label]:
        """Add labels, all or none, in their order.

        Raises:
            StoreError: as `append`.
        """
        rows = [_row(word) for word in words]
        with self._tables.transaction() as connection:
            if connection.dialect.name == "postgresql":
                # One at a time: otherwise a greater number could be seen before a smaller one, and a reader would pass over it.
                connection.execute(text("LOCK TABLE labels IN SHARE ROW EXCLUSIVE MODE"))
            statement = insert(_LABELS).returning(_LABELS.c.sequence)
            sequences = [connection.execute(statement, row).scalar_one() for row in rows]
        return [_label({"sequence": sequence, **row}) for sequence, row in zip(sequences, rows, strict=True)]

    def of(self, ids: Sequence[str]) -> dict[str, list[Label]]:
        """Labels of these payments, in the order they came in; a payment without any has an empty list."""
        found: dict[str, list[Label]] = {one: [] for one in ids}
        wanted = list(found)
        for begin in range(0, len(wanted), _ASKED_AT_ONCE):
            for label in self._select(_LABELS.c.transaction_id.in_(wanted[begin : begin + _ASKED_AT_ONCE])):
                found[label.transaction_id].append(label)
        return found

    def since(self, sequence: int, limit: int) -> list[Label]:
        """Labels with a greater number, in order; 0: from the first one."""
        return self._select(_LABELS.c.sequence > sequence, limit=limit)

    def _select(self, condition: Any, limit: int | None = None) -> list[Label]:
        statement = select(_LABELS).where(condition).order_by(_LABELS.c.sequence).limit(limit)
        with self._tables.transaction() as connection:
            return [_label(dict(row._mapping)) for row in connection.execute(statement)]


def _row(word: NewLabel) -> dict[str, Any]:
    values = {name: getattr(word, name) for name in NewLabel.__dataclass_fields__}
    return values | {name: to_microseconds(values[name]) for name in ("event_time", "known_at")}


def _label(row: dict[str, Any]) -> Label:
    return Label(**row | {name: from_microseconds(row[name]) for name in ("event_time", "known_at")})

"""The decision log: every decision once, with what it was made of. It holds a card's keyed hash, never a card number."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Any, get_args

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    Row,
    Table,
    Text,
    delete,
    false,
    func,
    insert,
    select,
)

from fraud_core.decisions.record import LoggedTransaction
from fraud_core.errors import IntegrityError
from fraud_core.storage.schema import METADATA, Tables
from fraud_core.transactions.decision import Decision
from fraud_core.transactions.transaction import Transaction
from fraud_core.units.time import DAY_US, from_microseconds, to_microseconds

logger = logging.getLogger(__name__)

_DECISIONS = Table(
    "decisions",
    METADATA,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("transaction_id", Text, nullable=False),
    Column("scored_at", BigInteger, nullable=False),  # times are microseconds since 1970 UTC
    Column("timestamp", BigInteger, nullable=False),
    Column("amount_cents", BigInteger, nullable=False),
    Column("card", Text),
    Column("merchant", Text),
    Column("category", Text),
    Column("transaction", Text, nullable=False),  # JSON, as are reasons and features
    Column("model_version", Text, nullable=False),
    Column("probability", Float(53), nullable=False),
    Column("decision", Text, nullable=False),
    Column("degraded", Boolean, nullable=False),
    Column("reasons", Text, nullable=False),
    Column("features_sha256", Text, nullable=False),
    Column("features", Text),
    Column("sequence", BigInteger),
    # A decision that was answered while neither history nor log could tell that its id has one about another payment.
    Column("repeated", Boolean, nullable=False, server_default=false()),
)
_FIRST = _DECISIONS.c.repeated.is_(false())
Index("decisions_id", _DECISIONS.c.transaction_id, unique=True, sqlite_where=_FIRST, postgresql_where=_FIRST)
Index("decisions_scored_at", _DECISIONS.c.scored_at)
Index("decisions_card", _DECISIONS.c.card, _DECISIONS.c.timestamp)

_ASKED_AT_ONCE = 500  # ids in one statement
_DELETED_AT_ONCE = 500  # so that an expiry holds no writer up for long
# An expiry, each hour, removes this much of all at most; daily a four-hundredth is past its days. A wrong clock does no more.
LARGEST_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A decision and what it was made of.

    Attributes:
        transaction_id: the payment's; a second decision about it is never written.
        scored_at: when it was decided; aware.
        timestamp: the payment's own time; aware.
        amount_cents: the amount.
        card: keyed hash of the card.
        merchant: name or number of the merchant.
        category: of the merchant.
        transaction: the payment, as far as it is kept.
        model_version: version of the bundle.
        probability: calibrated fraud probability.
        decision: approve, review or decline.
        degraded: whether it was made without history, because the history store was gone.
        reasons: codes of the reasons, weightiest first.
        features_sha256: hash of the feature vector, in hex.
        features: name -> value (None: missing); None where it was not logged.
        sequence: number of the newest recorded payment that history took into account; None where none was looked at.
    """

    transaction_id: str
    scored_at: datetime
    timestamp: datetime
    amount_cents: int
    card: str | None
    merchant: str | None
    category: str | None
    transaction: LoggedTransaction
    model_version: str
    probability: float
    decision: Decision
    degraded: bool
    reasons: tuple[str, ...]
    features_sha256: str
    features: Mapping[str, float | str | None] | None
    sequence: int | None

    @classmethod
    def of(cls, transaction: Transaction, **told: Any) -> "DecisionRecord":
        """The record of a decision about a payment.

        Args:
            transaction: the payment.
            told: what it does not say by itself.
        """
        return cls(
            timestamp=transaction.timestamp,
            amount_cents=transaction.amount_cents,
            merchant=transaction.merchant,
            category=transaction.category,
            transaction=LoggedTransaction.of(transaction),
            **told,
        )


class Found(list[DecisionRecord]):
    """Decisions that were found.

    Attributes:
        damaged: how many rows of the log had to be left out, because they cannot be read.
    """

    damaged = 0


class DecisionLog:
    """The decisions in the SQL database. Safe to share between threads.

    Args:
        engine: see `database.open_database`.
        retention_days: how long a decision is kept after it was made.
    """

    table = _DECISIONS

    def __init__(self, engine: Engine, retention_days: int) -> None:
        self.retention_days = retention_days
        self.engine = engine
        self._tables = Tables(engine)
        self._insert = self._tables.insert(_DECISIONS).on_conflict_do_nothing()

    def append(self, records: Sequence[DecisionRecord], *, answered: bool = False) -> dict[str, DecisionRecord]:
        """Write decisions in one commit. Of an id that has one already, the first one stays.

        Args:
            records: what is written.
            answered: whether they were answered already. Then a decision about another payment than the one that its id was
                given before is written beside that, so that what was answered is on record.

        Returns:
            The decisions that stood before, by id. One whose row is damaged is none of them: beside it, the new one is written.

        Raises:
            StoreError: the database cannot be used; nothing was written.
        """
        if not records:
            return {}
        with self._tables.transaction() as connection:
            written = connection.execute(self._insert, [_row(record) for record in records]).rowcount
            if written == len(records):
                return {}
            given = {record.transaction_id: record for record in reversed(records)}
            found = self._found(connection, list(given))
            standing = {identity: one for identity, one in found.items() if one != given[identity]}
            beside = [one for one in records if one.transaction_id not in found or (answered and _is_repeated(one, standing))]
            self._write_repeated(connection, beside)
        return standing

    def _write_repeated(self, connection: Connection, records: Sequence[DecisionRecord]) -> None:
        for record in records:
            row = _row(record)
            known = select(_DECISIONS.c.number).where(
                _DECISIONS.c.transaction_id == record.transaction_id, _DECISIONS.c.scored_at == row["scored_at"]
            )
            if connection.execute(known).first() is None:  # a delivery that was cut short comes again
                connection.execute(insert(_DECISIONS), row | {"repeated": True})
                logger.warning(
                    "payment %s was decided again while neither history nor log could tell; both are on record",
                    record.transaction_id,
                )

    def find(self, transaction_id: str) -> DecisionRecord | None:
        """The decision about a payment; None: there is none.

        Raises:
            StoreError: the database cannot be used.
            IntegrityError: the log has one that is damaged.
        """
        with self._tables.transaction() as connection:
            row = connection.execute(select(_DECISIONS).where(_DECISIONS.c.transaction_id == transaction_id, _FIRST)).first()
        return None if row is None else _record(row)

    def find_all(self, ids: Sequence[str]) -> dict[str, DecisionRecord]:
        """The decisions about these payments; a payment without one that can be read is left out."""
        with self._tables.transaction() as connection:
            return self._found(connection, ids)

    def _found(self, connection: Connection, ids: Sequence[str]) -> dict[str, DecisionRecord]:
        found: dict[str, DecisionRecord] = {}
        for begin in range(0, len(ids), _ASKED_AT_ONCE):
            some = ids[begin : begin + _ASKED_AT_ONCE]
            rows = connection.execute(select(_DECISIONS).where(_DECISIONS.c.transaction_id.in_(some), _FIRST))
            found |= {record.transaction_id: record for record in _read(rows)}
        return found

    def of_card(self, card: str, limit: int) -> Found:
        """Decisions about a card (its keyed hash), the latest payment first."""
        return self._select(_DECISIONS.c.card == card, order=_DECISIONS.c.timestamp.desc(), limit=limit)

    def recent(self, since: datetime, limit: int) -> Found:
        """Decisions made since then, the latest first."""
        return self._select(_DECISIONS.c.scored_at >= to_microseconds(since), order=_DECISIONS.c.scored_at.desc(), limit=limit)

    def logged(self, since: datetime, limit: int) -> Found:
        """Decisions made since then with the help of history, whose features were logged, the latest first."""
        conditions = (_DECISIONS.c.features.is_not(None), _DECISIONS.c.sequence.is_not(None), _DECISIONS.c.degraded.is_(False))
        since_then = _DECISIONS.c.scored_at >= to_microseconds(since)
        return self._select(since_then, *conditions, order=_DECISIONS.c.scored_at.desc(), limit=limit)

    def count(self) -> int:
        """How many decisions are kept."""
        with self._tables.transaction() as connection:
            return connection.execute(select(func.count()).select_from(_DECISIONS)).scalar_one()

    def expire(self, now: datetime) -> int:
        """Remove decisions that were made more than `retention_days` before the newest one; returns how many.

        The newest one and not the clock, which may be wrong, says what is old; and never more than `LARGEST_SHARE` of all go at
        once, the oldest first, so that a clock that was wrong while decisions were made is noticed before they are gone.

        Raises:
            StoreError: the database cannot be used.
        """
        with self._tables.transaction() as connection:
            newest, count = connection.execute(select(func.max(_DECISIONS.c.scored_at), func.count())).one()
            if count == 0:
                return 0
            oldest = min(to_microseconds(now), newest) - self.retention_days * DAY_US
            due: int = connection.execute(select(func.count()).where(_DECISIONS.c.scored_at < oldest)).scalar_one()
        most: int = ceil(LARGEST_SHARE * count)
        if due > most:
            logger.warning("%d decisions are past their %d days; %d of them are removed now", due, self.retention_days, most)
        left = min(due, most)
        while left:
            some = select(_DECISIONS.c.number).where(_DECISIONS.c.scored_at < oldest).order_by(_DECISIONS.c.scored_at)
            with self._tables.transaction() as connection:
                old = some.limit(min(left, _DELETED_AT_ONCE)).scalar_subquery()
                removed: int = connection.execute(delete(_DECISIONS).where(_DECISIONS.c.number.in_(old))).rowcount
            if not removed:
                break  # another process was quicker
            left -= removed
        return min(due, most) - left

    def _select(self, *conditions: Any, limit: int, order: Any = None) -> Found:
        statement = select(_DECISIONS).where(*conditions).limit(limit)
        if order is not None:
            statement = statement.order_by(order, _DECISIONS.c.number.desc())
        with self._tables.transaction() as connection:
            return _read(connection.execute(statement))


def same_payment(one: DecisionRecord, other: DecisionRecord) -> bool:
    """Whether two decisions are about one payment, by what the log keeps of it."""
    told = ("timestamp", "amount_cents", "card", "merchant", "category")
    return all(getattr(one, name) == getattr(other, name) for name in told)


def _is_repeated(record: DecisionRecord, standing: Mapping[str, DecisionRecord]) -> bool:
    before = standing.get(record.transaction_id)
    return before is not None and not same_payment(before, record)


def to_json(record: DecisionRecord) -> str:
    """A record as one line of text, for where the database is not at hand."""
    return json.dumps(_row(record), separators=(",", ":"), allow_nan=False)


def from_json(line: str) -> DecisionRecord:
    """The record of `to_json`."""
    return _record(json.loads(line))


def _row(record: DecisionRecord) -> dict[str, Any]:
    values = {name: getattr(record, name) for name in DecisionRecord.__slots__}
    return values | {
        "scored_at": to_microseconds(record.scored_at),
        "timestamp": to_microseconds(record.timestamp),
        "transaction": _json(record.transaction.columns()),
        "reasons": _json(record.reasons),
        "features": None if record.features is None else _json(record.features),
    }


def _record(row: Row[Any] | Mapping[str, Any]) -> DecisionRecord:
    """The decision of a row.

    Raises:
        IntegrityError: it is none that was written here.
    """
    values = dict(row._mapping) if isinstance(row, Row) else dict(row)
    number = values.pop("number", None)
    values.pop("repeated", None)
    try:
        values["scored_at"] = from_microseconds(values["scored_at"])
        values["timestamp"] = from_microseconds(values["timestamp"])
        values["transaction"] = LoggedTransaction.read(json.loads(values["transaction"]))
        values["reasons"] = tuple(json.loads(values["reasons"]))
        values["features"] = None if values["features"] is None else dict(json.loads(values["features"]))
        if values["decision"] not in get_args(Decision):
            raise ValueError("no decision")
        return DecisionRecord(**values)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise IntegrityError(  # the error's own words may repeat what it could not read
            f"Row {number} of the decision log, about payment {values.get('transaction_id')}, is damaged "
            f"({type(error).__name__}); bring back the database's table `decisions` from a backup, or look at that row."
        ) from None


def _read(rows: Iterable[Row[Any]]) -> Found:
    """The decisions of rows. One that is damaged is counted, told, and hides no other."""
    found = Found()
    for row in rows:
        try:
            found.append(_record(row))
        except IntegrityError as error:
            found.damaged += 1
            logger.error("left out: %s", error)
    return found


def _json(value: Any) -> str:
    return _ENCODER.encode(value)


_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False)

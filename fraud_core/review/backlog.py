"""Review backlog: what the scorer sent to review, what of it waits for somebody's word, and what was said.

The database itself keeps a narrow table of it, by triggers on decisions and labels, whoever writes those. So what waits is found
without looking at what was judged already, which also takes no place from it.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, NamedTuple, get_args

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Delete,
    Index,
    Insert,
    Integer,
    MetaData,
    Select,
    Table,
    Text,
    Update,
    case,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from fraud_core.decisions.log import DecisionLog
from fraud_core.labels.log import LabelLog
from fraud_core.labels.resolve import Outcome
from fraud_core.storage.database import Tables
from fraud_core.units.time import from_microseconds, to_microseconds

_METADATA = MetaData()
_REVIEWS = Table(
    "reviews",
    _METADATA,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),  # of the decision
    Column("transaction_id", Text, nullable=False),
    Column("scored_at", BigInteger, nullable=False),  # microseconds since 1970 UTC
    Column("outcome", Text),  # as `LabelLog.standing` has it
)
Index("reviews_outcome", _REVIEWS.c.outcome, _REVIEWS.c.scored_at)
Index("reviews_transaction", _REVIEWS.c.transaction_id, _REVIEWS.c.scored_at)


class Waiting(NamedTuple):
    """A case that waits; what its decision was made of is read when somebody takes it.

    Attributes:
        transaction_id: the payment's.
        timestamp: the payment's own time; aware.
        amount_cents: the amount.
        merchant: name or number of the merchant.
        probability: of fraud.
        outcome: unsure, or None: nobody has said anything yet.
    """

    transaction_id: str
    timestamp: datetime
    amount_cents: int
    merchant: str | None
    probability: float
    outcome: Outcome | None

    @property
    def expected_loss(self) -> float:
        """In cents: what is lost on average if nobody looks."""
        return self.probability * self.amount_cents


class ReviewBacklog:
    """Questions to the decision log and the labels together, which lie in one database. Safe to share between threads.

    Every method raises StoreError where the database cannot be used. The first one that is asked of a database without the table
    makes it, of all decisions that are kept; meanwhile nothing else writes there.
    """

    def __init__(self, decisions: DecisionLog, labels: LabelLog) -> None:
        self._decisions, self._labels = decisions, labels
        self._tables = Tables(decisions.engine, _METADATA, self._keep_up)

    def waiting(self, since: datetime, but: Collection[str], limit: int, *, also_unsure: bool) -> list[Waiting]:
        """What was sent to review since then and waits, the greatest expected loss (probability times amount) first.

        Args:
            since: decisions made before are not looked at.
            but: cards (keyed hashes) whose payments are left out.
            limit: of cases that wait.
            also_unsure: whether cases wait that somebody was unsure of.
        """
        decided = self._decisions.table.c
        names = ("transaction_id", "timestamp", "amount_cents", "merchant", "probability")
        asked = select(*(decided[name] for name in names), _REVIEWS.c.outcome).select_from(self._decided)
        loss = decided.probability * decided.amount_cents
        statement = asked.where(*self._waits(since, but, also_unsure)).order_by(loss.desc(), decided.number.desc()).limit(limit)
        return [
            Waiting(
                row.transaction_id, from_microseconds(row.timestamp), row.amount_cents, row.merchant, row.probability, row.outcome
            )
            for row in self._read(statement)
        ]

    def count_waiting(self, since: datetime, but: Collection[str], *, also_unsure: bool) -> int:
        """How many wait; see `waiting`."""
        asked = select(func.count().label("count")).select_from(self._decided if but else _REVIEWS)
        (row,) = self._read(asked.where(*self._waits(since, but, also_unsure)))
        return int(row.count)

    def outcomes(self, since: datetime) -> Counter[Outcome | None]:
        """What is to be believed of everything that was sent to review since then; None: nobody has said anything yet."""
        outcomes: tuple[Outcome | None, ...] = (*get_args(Outcome), None)
        counts = [  # one by one, so that the index finds each beginning
            select(func.count()).where(_REVIEWS.c.outcome == outcome, _since(since)).scalar_subquery() for outcome in outcomes
        ]
        (row,) = self._read(select(*counts))
        return Counter({outcome: count for outcome, count in zip(outcomes, row, strict=True) if count})

    def judged(self, since: datetime, edges: Sequence[datetime]) -> list[int]:
        """How often analysts said something about what was sent to review since the first time.

        Args:
            since: decisions made before are not looked at.
            edges: times, ascending, of which each two neighbours (the second not included) have their count.
        """
        labels, moments = self._labels.table.c, [to_microseconds(edge) for edge in edges]
        said = select(labels.known_at).where(
            labels.source == "analyst",
            labels.known_at >= moments[0],
            labels.known_at < moments[-1],
            select(_REVIEWS.c.number).where(_REVIEWS.c.transaction_id == labels.transaction_id, _since(since)).exists(),
        )
        known_at = said.subquery().c.known_at
        before = [func.coalesce(func.sum(case((known_at < moment, 1), else_=0)), 0) for moment in moments]
        (row,) = self._read(select(*before))
        return [int(second - first) for first, second in pairwise(row)]

    @property
    def _decided(self) -> Any:
        return _REVIEWS.join(self._decisions.table, self._decisions.table.c.number == _REVIEWS.c.number)

    def _waits(self, since: datetime, but: Collection[str], also_unsure: bool) -> list[ColumnElement[bool]]:
        outcome, card = _REVIEWS.c.outcome, self._decisions.table.c.card
        waits = or_(outcome.is_(None), outcome == "unsure") if also_unsure else outcome.is_(None)
        return [waits, _since(since), *([or_(card.is_(None), card.not_in(list(but)))] if but else [])]

    def _read(self, statement: Select[Any]) -> list[Any]:
        self._decisions.prepare()
        self._labels.prepare()
        with self._tables.transaction() as connection:
            return list(connection.execute(statement))

    def _keep_up(self, connection: Connection) -> None:
        """Make the triggers that keep the table, and fill it, where they are not there (any more)."""
        if _has_triggers(connection):
            return
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("LOCK TABLE labels, decisions IN SHARE ROW EXCLUSIVE MODE")
            if _has_triggers(connection):
                return  # another process was quicker
        new, old = _row("NEW"), _row("OLD")
        changes = (
            _Trigger("reviews_decided", "INSERT", "decisions", self._sent_to_review(new)),
            _Trigger("reviews_judged", "INSERT", "labels", self._judged(new)),
            _Trigger("reviews_expired", "DELETE", "decisions", delete(_REVIEWS).where(_REVIEWS.c.number == old.number)),
        )
        for trigger in changes:
            trigger.make(connection)
        connection.execute(delete(_REVIEWS))
        connection.execute(self._sent_to_review(self._decisions.table.c))

    def _sent_to_review(self, decided: Any) -> Insert:
        """Keep what of these decisions was sent to review."""
        kept = (decided.number, decided.transaction_id, decided.scored_at, self._labels.standing(decided.transaction_id))
        chosen = select(*kept).where(decided.decision == "review", decided.repeated.is_(False))
        return insert(_REVIEWS).from_select([column.name for column in _REVIEWS.columns], chosen)

    def _judged(self, label: Any) -> Update:
        """Keep what is believed since this label."""
        of_payment = update(_REVIEWS).where(_REVIEWS.c.transaction_id == label.transaction_id)
        return of_payment.values(outcome=self._labels.standing(label.transaction_id))


class _Trigger(NamedTuple):
    """What the database does after an event on a row, which stands in the statement as NEW or OLD (see `_row`)."""

    name: str
    event: str
    table: str
    statement: Insert | Update | Delete

    def make(self, connection: Connection) -> None:
        """Make it, in place of one of its name."""
        action = str(self.statement.compile(connection, compile_kwargs={"literal_binds": True}))
        event = f"AFTER {self.event} ON {self.table} FOR EACH ROW"
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {self.name}")
            connection.exec_driver_sql(f"CREATE TRIGGER {self.name} {event} BEGIN {action}; END")
            return
        body = f"$$ BEGIN {action}; RETURN NULL; END $$"
        connection.exec_driver_sql(f"CREATE OR REPLACE FUNCTION {self.name}() RETURNS trigger LANGUAGE plpgsql AS {body}")
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {self.name} ON {self.table}")
        connection.exec_driver_sql(f"CREATE TRIGGER {self.name} {event} EXECUTE FUNCTION {self.name}()")


def _row(name: str) -> Any:
    """The columns of the row that a trigger acts on."""
    columns = ("number", "transaction_id", "scored_at", "decision")
    plain: dict[str, Any] = {column: literal_column(f"{name}.{column}") for column in columns}
    return SimpleNamespace(**plain, repeated=literal_column(f"{name}.repeated", Boolean()))


def _has_triggers(connection: Connection) -> bool:
    catalogues = {
        "sqlite": "SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND name = 'reviews_decided'",
        "postgresql": "SELECT 1 FROM pg_trigger WHERE tgrelid = 'decisions'::regclass AND tgname = 'reviews_decided'",
    }
    return connection.exec_driver_sql(catalogues[connection.dialect.name]).first() is not None


def _since(since: datetime) -> ColumnElement[bool]:
    return _REVIEWS.c.scored_at >= to_microseconds(since)

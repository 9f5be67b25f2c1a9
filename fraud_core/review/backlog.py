"""Review backlog: what the scorer sent to review, what of it waits for somebody's word, and what was said.

The database itself keeps a narrow table of it, by triggers on decisions and labels (`storage/migrations`), whoever writes those.
So what waits is found without looking at what was judged already, which also takes no place from it.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple, get_args

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Index,
    Integer,
    Select,
    Table,
    Text,
    case,
    func,
    or_,
    select,
)

from fraud_core.decisions.log import DecisionLog
from fraud_core.labels.log import LabelLog
from fraud_core.labels.resolve import Outcome
from fraud_core.storage.schema import METADATA, Tables
from fraud_core.units.time import from_microseconds, to_microseconds

_REVIEWS = Table(
    "reviews",
    METADATA,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),  # of the decision
    Column("transaction_id", Text, nullable=False),
    Column("scored_at", BigInteger, nullable=False),  # microseconds since 1970 UTC
    Column("outcome", Text),  # as `labels.resolve.resolve` has it
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

    Every method raises StoreError where the database cannot be used.
    """

    def __init__(self, decisions: DecisionLog, labels: LabelLog) -> None:
        self._decisions, self._labels = decisions, labels
        self._tables = Tables(decisions.engine)

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
        with self._tables.transaction() as connection:
            return list(connection.execute(statement))


def _since(since: datetime) -> ColumnElement[bool]:
    return _REVIEWS.c.scored_at >= to_microseconds(since)

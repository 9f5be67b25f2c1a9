"""The backlog of reviews: what the scorer sent to review, what of it waits for somebody's word, and what was said.

The database itself tells what waits, so that what was judged already takes no place from what was not.
"""

from collections import Counter
from collections.abc import Collection
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, Subquery, and_, func, or_, select

from fraud_core.stores.database import from_microseconds, to_microseconds
from fraud_core.stores.decisions import DecisionLog
from fraud_core.stores.labels import LabelLog, Outcome


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

    def waiting(self, since: datetime, but: Collection[str], limit: int, *, also_unsure: bool) -> list[Waiting]:
        """What was sent to review since then and waits, the greatest expected loss (probability times amount) first.

        Args:
            since: decisions made before are not looked at.
            but: cards (keyed hashes) whose payments are left out.
            limit: of cases that wait.
            also_unsure: whether cases wait that somebody was unsure of.
        """
        cases = self._cases(since)
        loss = cases.c.probability * cases.c.amount_cents
        statement = select(cases).where(_waits(cases, but, also_unsure)).order_by(loss.desc(), cases.c.number.desc()).limit(limit)
        return [
            Waiting(
                row.transaction_id, from_microseconds(row.timestamp), row.amount_cents, row.merchant, row.probability, row.outcome
            )
            for row in self._read(statement)
        ]

    def count_waiting(self, since: datetime, but: Collection[str], *, also_unsure: bool) -> int:
        """How many wait; see `waiting`."""
        cases = self._cases(since)
        (row,) = self._read(select(func.count().label("count")).select_from(cases).where(_waits(cases, but, also_unsure)))
        return int(row.count)

    def outcomes(self, since: datetime) -> Counter[Outcome | None]:
        """What is to be believed of everything that was sent to review since then; None: nobody has said anything yet."""
        cases = self._cases(since)
        rows = self._read(select(cases.c.outcome, func.count().label("count")).group_by(cases.c.outcome))
        return Counter({row.outcome: row.count for row in rows})

    def judged_at(self, since: datetime, known_since: datetime) -> list[datetime]:
        """When analysts said something, since the second time, about what was sent to review since the first."""
        decisions, labels = self._decisions.table, self._labels.table
        statement = select(labels.c.known_at).where(
            labels.c.source == "analyst",
            labels.c.known_at >= to_microseconds(known_since),
            select(decisions.c.number)
            .where(decisions.c.transaction_id == labels.c.transaction_id, *_sent_to_review(decisions, since))
            .exists(),
        )
        return [from_microseconds(row.known_at) for row in self._read(statement)]

    def _cases(self, since: datetime) -> Subquery:
        decisions, labels = self._decisions.table, self._labels.table
        # Told by the index of the labels alone, where `outcome` reads each of them.
        said = select(labels.c.sequence).where(labels.c.transaction_id == decisions.c.transaction_id).exists()
        names = ("number", "transaction_id", "timestamp", "amount_cents", "card", "merchant", "probability")
        outcome = self._labels.standing(decisions.c.transaction_id).label("outcome")
        return (
            select(*(decisions.c[name] for name in names), outcome, (~said).label("unsaid"))
            .where(*_sent_to_review(decisions, since))
            .subquery()
        )

    def _read(self, statement: Select[Any]) -> list[Any]:
        self._labels.prepare()
        with self._decisions.reading() as connection:
            return list(connection.execute(statement))


def _sent_to_review(decisions: Any, since: datetime) -> tuple[Any, ...]:
    return decisions.c.decision == "review", decisions.c.repeated.is_(False), decisions.c.scored_at >= to_microseconds(since)


def _waits(cases: Subquery, but: Collection[str], also_unsure: bool) -> Any:
    waits = or_(cases.c.unsaid, cases.c.outcome == "unsure") if also_unsure else cases.c.unsaid
    return and_(waits, or_(cases.c.card.is_(None), cases.c.card.not_in(list(but)))) if but else waits

"""Review queue: which payment an analyst sees next, who holds it, and the label that comes of it."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import cast, get_args
from zoneinfo import ZoneInfo

from fraud_core.access.users import User
from fraud_core.decisions.log import DecisionLog, DecisionRecord
from fraud_core.errors import FraudError, StoreError
from fraud_core.evaluation.intervals import Interval, wilson_interval
from fraud_core.labels.log import LabelLog
from fraud_core.labels.resolve import Label, Outcome, resolve
from fraud_core.review.backlog import ReviewBacklog, Waiting
from fraud_core.review.claims import Claims

logger = logging.getLogger(__name__)

QUEUE_DAYS = 60  # what is older is not looked at any more
MOST_WAITING = 2_000  # are looked through for one that nobody else holds
NAMED = 10  # cases that cannot be shown are named; of more, their number is told
FIGURE_DAYS = 7
LONGEST_NOTE = 2_000
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class CaseError(FraudError):
    """A case cannot be judged by this person, or not now."""


@dataclass(frozen=True)
class Case:
    """A case of the queue: the decision, and what has been said of it."""

    record: DecisionRecord
    labels: Sequence[Label]

    @property
    def outcome(self) -> Outcome | None:
        """What is to be believed; None: nobody has said anything yet."""
        return resolve(self.labels)

    @property
    def expected_loss(self) -> float:
        """In cents: what is lost on average if nobody looks."""
        return self.record.probability * self.record.amount_cents


@dataclass(frozen=True)
class Taken:
    """What somebody is given to judge.

    Attributes:
        identity: of the case; empty where none waits that could be shown.
        shown: the case as a page shows it.
        unshown: sentences about cases before it that cannot be shown; nobody holds them.
    """

    identity: str
    shown: str
    unshown: Sequence[str] = ()


@dataclass(frozen=True)
class Figures:
    """How the queue goes. `precision` is the share of frauds among the `judged` cases; None while there is none."""

    waiting: int
    judged: int
    frauds: int
    precision: float | None
    precision_interval: Interval | None
    by_day: Mapping[date, int]
    capacity: int


class ReviewQueue:
    """The queue over the decision log, the labels and the claims. Every method raises StoreError where the database is gone.

    Attributes:
        decisions: what was decided.
    """

    def __init__(self, decisions: DecisionLog, labels: LabelLog, claims: Claims, capacity: int) -> None:
        self.decisions, self._labels, self._claims, self._capacity = decisions, labels, claims, capacity
        self._backlog = ReviewBacklog(decisions, labels)

    def waiting(self, user: User, now: datetime, limit: int = MOST_WAITING) -> list[Waiting]:
        """The cases that wait for this person, the greatest expected loss first: sent to review lately, and not judged, for a
        lead also unsure ones; none of a card of their own."""
        return self._backlog.waiting(oldest_shown(now), user.cards, limit, also_unsure=user.role == "lead")

    def case(self, identity: str) -> Case:
        """A case with all that was logged of it.

        Raises:
            CaseError: there is no decision about it (any more).
        """
        record = self.decisions.find(identity)
        if record is None:
            raise CaseError("There is no decision about a payment of this id; see that it is right.")
        return Case(record, self._labels.of([identity])[identity])

    def openable(self, user: User, identity: str) -> Case:
        """A case that this person may look into.

        Raises:
            CaseError: there is no decision about it, or it is of a card of one's own.
        """
        found = self.case(identity)
        if found.record.card is not None and found.record.card in user.cards:
            raise CaseError("This is a payment with a card of your own; somebody else must look at it.")
        return found

    def take(self, user: User, now: datetime, show: Callable[[Case], str]) -> Taken:
        """Give somebody the case that they hold already, or the next one that nobody holds. Only what could be shown is held.

        Args:
            user: who asks.
            now: the time.
            show: a case -> what the page shows of it. Whatever it raises, but for a StoreError, the next case has its turn.
        """
        held = self._claims.held(now)
        waiting = [one.transaction_id for one in self.waiting(user, now)]
        mine = [identity for identity in waiting if held.get(identity) == user.name]
        unshown: list[str] = []
        for identity in [*mine, *(one for one in waiting if one not in held)]:
            try:
                shown = show(self.case(identity))
            except StoreError:
                raise  # nothing is wrong with the case
            except Exception as error:
                if identity in held:
                    self._claims.release(identity, user.name)
                # An error's words may repeat what it could not read, so only its kind is told.
                logger.error("case %s cannot be shown: %s at %s", identity, type(error).__name__, _where(error))
                unshown.append(f"Case {identity} cannot be shown ({type(error).__name__}); nobody holds it.")
                continue
            if self._claims.take([identity], user.name, now) is not None:
                return Taken(identity, shown, unshown)
        return Taken("", "", unshown)

    def put_back(self, user: User, identity: str) -> None:
        """Let a case go without a label."""
        self._claims.release(identity, user.name)

    def label(self, user: User, identity: str, outcome: str, words: str, now: datetime) -> Label:
        """Say what a case was, while holding it.

        Raises:
            CaseError: it is not held (any more), or is of a card of one's own, or there is no such outcome.
        """
        record = self._judgeable(user, identity, outcome, words)
        if not self._claims.renew(identity, user.name, now):
            raise CaseError(
                f"You do not hold case {identity} any more: it was open for more than "
                f"{self._claims.lasting.total_seconds() / 60:.0f} minutes. Take the next case; your note is still there."
            )
        label = self._append(user, record, outcome, words, now)
        self._claims.release(identity, user.name)
        return label

    def overrule(self, lead: User, identity: str, outcome: str, words: str, now: datetime) -> Label:
        """A lead's word about any decided payment, which goes before that of others. What was said before stays on record.

        Raises:
            CaseError: there is no decision about it, it is of a card of one's own, or no reason was given.
        """
        record = self._judgeable(lead, identity, outcome, words)
        if not words.strip():
            raise CaseError("Say in the note why you overrule; whoever labelled it will want to know.")
        return self._append(lead, record, outcome, words, now)

    def held(self, now: datetime) -> dict[str, str]:
        """Case -> who holds it."""
        return self._claims.held(now)

    def figures(self, user: User, now: datetime, zone: ZoneInfo) -> Figures:
        """How the queue goes."""
        oldest = oldest_shown(now)
        outcomes = self._backlog.outcomes(oldest)
        judged = outcomes["fraud"] + outcomes["legitimate"]
        tomorrow = now.astimezone(zone).date() + timedelta(days=1)
        days = [tomorrow - timedelta(days=back) for back in range(FIGURE_DAYS, -1, -1)]
        by_day = self._backlog.judged(oldest, [datetime.combine(day, time(), zone) for day in days])
        return Figures(
            waiting=self._backlog.count_waiting(oldest, user.cards, also_unsure=user.role == "lead"),
            judged=judged,
            frauds=outcomes["fraud"],
            precision=outcomes["fraud"] / judged if judged else None,
            precision_interval=wilson_interval(outcomes["fraud"], judged) if judged else None,
            by_day=dict(reversed([*zip(days, by_day, strict=False)])),
            capacity=self._capacity,
        )

    def _judgeable(self, user: User, identity: str, outcome: str, words: str) -> DecisionRecord:
        if outcome not in OUTCOMES:
            raise CaseError(f"A case is one of {', '.join(OUTCOMES)}.")
        if len(words) > LONGEST_NOTE:
            raise CaseError(f"The note is longer than {LONGEST_NOTE:,} characters; shorten it.")
        return self.openable(user, identity).record

    def _append(self, user: User, record: DecisionRecord, outcome: str, words: str, now: datetime) -> Label:
        return self._labels.append(
            transaction_id=record.transaction_id,
            outcome=cast(Outcome, outcome),  # as was checked
            source="analyst",
            author=user.name,
            role=user.role,
            event_time=record.timestamp,
            known_at=now,
            note=words.strip(),
        )


def oldest_shown(now: datetime) -> datetime:
    return now - timedelta(days=QUEUE_DAYS)


def _where(error: BaseException) -> str:
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return "?" if at is None else f"{Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}"

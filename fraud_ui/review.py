"""The review queue: what the scorer sent to review, the greatest expected loss first, one analyst a case, and their labels."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, cast, get_args
from zoneinfo import ZoneInfo

import numpy as np

from fraud_core import features
from fraud_core.decisions.record import LoggedTransaction
from fraud_core.errors import FraudError, StoreError
from fraud_core.holder import Served
from fraud_core.metrics import Interval, wilson_interval
from fraud_core.scorer import Scorer
from fraud_core.stores.claims import Claims
from fraud_core.stores.decisions import DecisionLog, DecisionRecord
from fraud_core.stores.labels import Label, LabelLog, Outcome, resolve
from fraud_core.stores.review_backlog import ReviewBacklog, Waiting
from fraud_core.stores.users import User
from fraud_ui import case, charts
from fraud_ui.wording import DECISIONS, alert, counted, escaped, moment, money, note, percent, table

logger = logging.getLogger(__name__)

QUEUE_DAYS = 60  # what is older is not looked at any more
MOST_WAITING = 2_000  # are looked through for one that nobody else holds
NAMED = 10  # cases that cannot be shown are named; of more, their number is told
SHOWN = 50
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
        return self._backlog.waiting(_oldest(now), user.cards, limit, also_unsure=user.role == "lead")

    def case(self, identity: str) -> Case:
        """A case with all that was logged of it.

        Raises:
            CaseError: there is no decision about it (any more).
        """
        record = self.decisions.find(identity)
        if record is None:
            raise CaseError(f"There is no decision about a payment {identity}; see that its id is right.")
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
        oldest = _oldest(now)
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


def _oldest(now: datetime) -> datetime:
    return now - timedelta(days=QUEUE_DAYS)


def _where(error: BaseException) -> str:
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return "?" if at is None else f"{Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}"


# --- what is shown --------------------------------------------------------------------------------------------------------------


def figures(found: Figures) -> str:
    """How the queue goes, in a few numbers."""
    precision = "not known yet"
    if found.precision is not None and found.precision_interval is not None:
        low, high = found.precision_interval.low, found.precision_interval.high
        precision = f"{percent(found.precision)} ({percent(low)} to {percent(high)})"
    tiles = [
        ("Waiting for you", f"{found.waiting:,}"),
        ("Precision so far", precision),
        ("Judged", f"{found.judged:,}, {found.frauds:,} of them fraud"),
        ("Today", f"{next(iter(found.by_day.values())):,} of {found.capacity:,} a day"),
    ]
    shown = "".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in tiles)
    days = [
        (
            f"{day:%a %Y-%m-%d}",
            f"{count:,}",
            f'<span class="track" aria-hidden="true"><span class="bar lowers" style="left:0;width:'
            f'{min(100.0, 100 * count / found.capacity):.0f}%"></span></span>',
        )
        for day, count in found.by_day.items()
    ]
    per_day = table(f"Cases labelled a day, against a capacity of {found.capacity:,}", ("Day", "Cases", "Share"), days, (1,))
    return f'<dl class="tiles">{shown}</dl><details><summary>Cases a day</summary>{per_day}</details>'


def unshown(sentences: Sequence[str]) -> str:
    """Which cases cannot be shown; empty where all can."""
    if not sentences:
        return ""
    more = f" And {counted(len(sentences) - NAMED, 'more case')}." if len(sentences) > NAMED else ""
    told = "Tell whoever runs the desk; its log says where reading them failed. The queue goes on without them." + more
    return alert(told, sentences[:NAMED])


def waiting(cases: Sequence[Waiting], total: int, held: Mapping[str, str], user: User, zone: ZoneInfo) -> str:
    """The first cases that wait, the greatest expected loss first, of so many in total."""
    if not cases:
        return note("Nothing waits for you.")
    rows = []
    for one in cases[:SHOWN]:
        holder = held.get(one.transaction_id)
        state = "" if holder is None else "yours" if holder == user.name else f"with {holder}"
        rows.append(
            (
                f"<code>{escaped(one.transaction_id)}</code>",
                moment(one.timestamp, zone),
                money(one.amount_cents),
                percent(one.probability),
                f"<b>{money(one.expected_loss)}</b>",
                escaped(one.merchant or ""),
                escaped(f"{state}{', unsure' if one.outcome == 'unsure' else ''}".removeprefix(", ")),
            )
        )
    header = ("Transaction", f"When ({zone.key})", "Amount", "Fraud", "Expected loss", "Merchant", "State")
    more = note(f"The first {len(rows)} of {total:,}.") if total > len(rows) else ""
    return table("Waiting, the greatest expected loss first (currency units)", header, rows, (2, 3, 4)) + more


def looked_at(one: Case, zone: ZoneInfo, served: Served | None, reasons: str, past: str) -> str:
    """A case as it was decided: what was known, why, what the card did before, and what has been said since.

    Args:
        served: the version that decided; None where it is not in the store any more.
        reasons: the reasons as markup.
        past: the card's past as markup.
    """
    record = one.record
    gauge = charts.gauge(record.probability, decider(record, served).thresholds) if served else ""
    said = [
        (
            moment(label.known_at, zone),
            escaped(label.outcome),
            escaped(f"{label.author} ({label.role or label.source})"),
            escaped(label.note),
        )
        for label in one.labels
    ]
    return (
        f'<h2 class="decision {record.decision}">{DECISIONS[record.decision]}: {money(record.amount_cents)} at '
        f"{escaped(record.merchant or 'a merchant without a name')}</h2>"
        f"<p>Transaction <code>{escaped(record.transaction_id)}</code>, {moment(record.timestamp, zone)}. Fraud probability "
        f"{percent(record.probability)} by version <code>{escaped(record.model_version)}</code>"
        f"{', without history, which could not be reached' if record.degraded else ''}. "
        f"Expected loss {money(one.expected_loss)}.</p>{gauge}{reasons}{facts(record.transaction, zone)}{past}"
        + (table("What has been said", (f"When ({zone.key})", "Outcome", "Who", "Note"), said) if said else "")
    )


def facts(transaction: LoggedTransaction, zone: ZoneInfo) -> str:
    """The payment's fields; none of them is personal."""
    rows = [
        (f"when ({zone.key})", moment(transaction.timestamp, zone)),
        ("amount (currency units)", money(transaction.amount_cents)),
    ]
    for name, value in transaction._asdict().items():
        if value is not None and name not in {"timestamp", "amount_cents"}:
            rows.append((escaped(name.replace("_", " ")), escaped(value)))
    return f"<details><summary>All fields</summary>{table('The payment', ('Field', 'Value'), rows)}</details>"


def past(records: Sequence[DecisionRecord], labels: Mapping[str, Sequence[Label]], zone: ZoneInfo, but: str = "") -> str:
    """What a card did lately, by the decision log, newest first."""
    shown = [record for record in records if record.transaction_id != but]
    if not shown:
        return note("The decision log holds no other payment of this card.")
    rows = [
        (
            moment(record.timestamp, zone),
            money(record.amount_cents),
            escaped(record.merchant or ""),
            escaped(record.category or ""),
            percent(record.probability),
            f'<span class="chip {record.decision}">{DECISIONS[record.decision]}</span>',
            escaped(resolve(labels.get(record.transaction_id, ())) or ""),
        )
        for record in shown
    ]
    header = (f"When ({zone.key})", "Amount", "Merchant", "Category", "Fraud", "Decision", "Label")
    return table(f"The card's last {counted(len(rows), 'payment')}", header, rows, (1, 4))


def decider(record: DecisionRecord, served: Served) -> Scorer:
    """What scored the payment: the model without history, where that was gone."""
    return served.scorer.without_history or served.scorer if record.degraded else served.scorer


def recorded_reasons(record: DecisionRecord, served: Served | None) -> str:
    """Why the case was scored so: worked out again from the recorded features by the version that scored, else its codes."""
    if record.features is None or served is None:
        codes = ", ".join(f"<code>{escaped(code)}</code>" for code in record.reasons)
        return f"<p>Reasons, as codes: {codes or 'none'}.</p>"
    scorer = decider(record, served)
    explainer = served.explainer_of(scorer)
    values: dict[str, Any] = {}
    for feature in scorer.features:
        value = record.features.get(feature.name)
        missing = None if features.BY_NAME[feature.name].is_category else np.nan
        values[feature.name] = np.array(
            [missing if value is None else value], dtype=object if feature.is_category else np.float64
        )
    base, contributions = explainer.contributions(scorer.bundle.encoder.matrix(values))
    first = {name: array[0] for name, array in values.items()}
    found = explainer.reasons(first, contributions[0], contributions.shape[1])
    return case.reasons(found, explainer.unit, base, base + float(contributions[0].sum()))

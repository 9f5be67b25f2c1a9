"""The review queue: what the scorer sent to review, the greatest expected loss first, one analyst a case, and their labels."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, cast, get_args
from zoneinfo import ZoneInfo

import numpy as np

from fraud_core import features
from fraud_core.errors import FraudError
from fraud_core.explain import Explainer
from fraud_core.metrics import Interval, wilson_interval
from fraud_core.scorer import Scorer
from fraud_core.stores.claims import Claims
from fraud_core.stores.decisions import DecisionLog, DecisionRecord
from fraud_core.stores.labels import Label, LabelLog, Outcome, resolve
from fraud_core.stores.users import User
from fraud_ui import case, charts
from fraud_ui.wording import DECISIONS, counted, escaped, moment, money, note, percent, table

QUEUE_DAYS = 60  # what is older is not looked at any more
MOST_CASES = 2_000
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
    """The queue over the decision log, the labels and the claims. Every method raises StoreError where the database is gone."""

    def __init__(self, decisions: DecisionLog, labels: LabelLog, claims: Claims, capacity: int) -> None:
        self.decisions, self._labels, self._claims, self._capacity = decisions, labels, claims, capacity

    def cases(self, now: datetime) -> list[Case]:
        """Everything that was sent to review lately, the greatest expected loss first, whatever was said of it."""
        records = self.decisions.to_review(now - timedelta(days=QUEUE_DAYS), MOST_CASES)
        labels = self._labels.of([record.transaction_id for record in records])
        return [Case(record, labels[record.transaction_id]) for record in records]

    def waiting(self, user: User, cases: Sequence[Case]) -> list[Case]:
        """The cases that wait for this person: not judged, for a lead also unsure ones; none of a card of their own."""
        wanted = {None, "unsure"} if user.role == "lead" else {None}
        return [one for one in cases if one.outcome in wanted and one.record.card not in user.cards]

    def take(self, user: User, now: datetime) -> Case | None:
        """The case that this person holds already, or the next one that nobody holds; None where there is none."""
        waiting = {one.record.transaction_id: one for one in self.waiting(user, self.cases(now))}
        mine = [held for held, who in self._claims.held(now).items() if who == user.name and held in waiting]
        taken = self._claims.take([*mine, *waiting], user.name, now)
        return None if taken is None else waiting[taken]

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

    def figures(self, user: User, cases: Sequence[Case], now: datetime, zone: ZoneInfo) -> Figures:
        """How the queue goes."""
        outcomes = Counter(one.outcome for one in cases)
        judged = outcomes["fraud"] + outcomes["legitimate"]
        today = now.astimezone(zone).date()
        days = {today - timedelta(days=back): 0 for back in range(FIGURE_DAYS)}
        for label in (label for one in cases for label in one.labels if label.source == "analyst"):
            day = label.known_at.astimezone(zone).date()
            if day in days:
                days[day] += 1
        return Figures(
            waiting=len(self.waiting(user, cases)),
            judged=judged,
            frauds=outcomes["fraud"],
            precision=outcomes["fraud"] / judged if judged else None,
            precision_interval=wilson_interval(outcomes["fraud"], judged) if judged else None,
            by_day=days,
            capacity=self._capacity,
        )

    def _judgeable(self, user: User, identity: str, outcome: str, words: str) -> DecisionRecord:
        if outcome not in OUTCOMES:
            raise CaseError(f"A case is one of {', '.join(OUTCOMES)}.")
        if len(words) > LONGEST_NOTE:
            raise CaseError(f"The note is longer than {LONGEST_NOTE:,} characters; shorten it.")
        record = self.decisions.find(identity)
        if record is None:
            raise CaseError(f"There is no decision about a payment {identity}; see that its id is right.")
        if record.card is not None and record.card in user.cards:
            raise CaseError("This is a payment with a card of your own; somebody else must judge it.")
        return record

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


def waiting(cases: Sequence[Case], held: Mapping[str, str], user: User, zone: ZoneInfo) -> str:
    """The cases that wait, the greatest expected loss first."""
    if not cases:
        return note("Nothing waits for you.")
    rows = []
    for one in cases[:SHOWN]:
        record, holder = one.record, held.get(one.record.transaction_id)
        state = "" if holder is None else "yours" if holder == user.name else f"with {holder}"
        rows.append(
            (
                f"<code>{escaped(record.transaction_id)}</code>",
                moment(record.timestamp, zone),
                money(record.amount_cents),
                percent(record.probability),
                f"<b>{money(one.expected_loss)}</b>",
                escaped(record.merchant or ""),
                escaped(f"{state}{', unsure' if one.outcome == 'unsure' else ''}".removeprefix(", ")),
            )
        )
    header = ("Transaction", f"When ({zone.key})", "Amount", "Fraud", "Expected loss", "Merchant", "State")
    more = note(f"The first {SHOWN} of {len(cases):,}.") if len(cases) > SHOWN else ""
    return table("Waiting, the greatest expected loss first (currency units)", header, rows, (2, 3, 4)) + more


def looked_at(one: Case, zone: ZoneInfo, scorer: Scorer | None, reasons: str, past: str) -> str:
    """A case as it was decided: what was known, why, what the card did before, and what has been said since.

    Args:
        scorer: the version that decided; None where it is not in the store any more.
        reasons: the reasons as markup.
        past: the card's past as markup.
    """
    record = one.record
    gauge = charts.gauge(record.probability, scorer.thresholds) if scorer else ""
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


def facts(transaction: Mapping[str, Any], zone: ZoneInfo) -> str:
    """The payment's fields; none of them is personal."""
    rows = []
    for name, value in transaction.items():
        if value is None:
            continue
        if name == "amount_cents":
            rows.append(("amount (currency units)", money(value)))
        elif name == "timestamp":
            rows.append((f"when ({zone.key})", moment(datetime.fromisoformat(value), zone)))
        else:
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


def recorded_reasons(record: DecisionRecord, scorer: Scorer | None, explainer: Explainer | None) -> str:
    """Why the case was scored so: worked out again from the recorded features by the version that scored, else its codes."""
    if record.features is None or scorer is None or explainer is None:
        codes = ", ".join(f"<code>{escaped(code)}</code>" for code in record.reasons)
        return f"<p>Reasons, as codes: {codes or 'none'}.</p>"
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

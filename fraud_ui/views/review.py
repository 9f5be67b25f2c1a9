"""Review page: the case at hand, what waits, what is known of the card, and figures of the last days."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from fraud_core.access.users import User
from fraud_core.decisions.log import DecisionRecord, Found
from fraud_core.decisions.record import LoggedTransaction
from fraud_core.fields.declaration import FieldDeclaration, noun_of
from fraud_core.labels.resolve import Label, resolve
from fraud_core.models.follower import LoadedModel
from fraud_core.models.scorer import Scorer
from fraud_core.review.backlog import Waiting
from fraud_core.review.queue import NAMED, Case, Figures
from fraud_ui.kit import charts
from fraud_ui.kit.wording import DECISIONS, alert, counted, escaped, moment, money, note, percent, table
from fraud_ui.views import case

SHOWN = 50


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
        follower = held.get(one.transaction_id)
        state = "" if follower is None else "yours" if follower == user.name else f"with {follower}"
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


def render_case(one: Case, zone: ZoneInfo, served: LoadedModel | None, reasons: str, past: str) -> str:
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
        f"Expected loss {money(one.expected_loss)}.</p>{gauge}{reasons}{facts(record.transaction, zone, served)}{past}"
        + (table("What has been said", (f"When ({zone.key})", "Outcome", "Who", "Note"), said) if said else "")
    )


def facts(transaction: LoggedTransaction, zone: ZoneInfo, served: LoadedModel | None = None) -> str:
    """The payment's fields, own ones by their declared meaning; none of them is personal."""
    rows = [
        (f"when ({zone.key})", moment(transaction.timestamp, zone)),
        ("amount (currency units)", money(transaction.amount_cents)),
    ]
    for name, value in transaction._asdict().items():
        if value is not None and name not in {"timestamp", "amount_cents", "own"}:
            rows.append((escaped(name.replace("_", " ")), escaped(value)))
    declared = {} if served is None else served.scorer.declared.own
    for name, value in transaction.own.items():
        field = declared.get(name)
        if field is not None and field.personal:
            continue  # what is declared so since is not shown any more
        words = name.replace("_", " ") if field is None else noun_of(name, field)
        rows.append((escaped(words), escaped(_said(value, field, zone))))
    return f"<details><summary>All fields</summary>{table('The payment', ('Field', 'Value'), rows)}</details>"


def _said(value: Any, field: FieldDeclaration | None, zone: ZoneInfo) -> str:
    """The value of an own field."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if field is not None and field.kind == "time":
        return moment(datetime.fromisoformat(value), zone)
    shown = f"{value:,.6g}" if isinstance(value, float) else str(value)
    return f"{shown} {field.unit}" if field is not None and field.unit else shown


def past(records: Found, labels: Mapping[str, Sequence[Label]], zone: ZoneInfo, but: str = "") -> str:
    """What a card did lately, by the decision log, newest first; and how much of that cannot be read."""
    shown = [record for record in records if record.transaction_id != but]
    damaged = note(
        f"{counted(records.damaged, 'more payment')} of this card cannot be read in the decision log; tell whoever runs it."
    )
    damaged = damaged if records.damaged else ""
    if not shown:
        return damaged or note("The decision log holds no other payment of this card.")
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
    return table(f"The card's last {counted(len(rows), 'payment')}", header, rows, (1, 4)) + damaged


def decider(record: DecisionRecord, served: LoadedModel) -> Scorer:
    """What scored the payment: the model without history, where that was gone."""
    return served.scorer.without_history or served.scorer if record.degraded else served.scorer


def recorded_reasons(record: DecisionRecord, served: LoadedModel | None) -> str:
    """Why the case was scored so: worked out again from the recorded features by the version that scored, else its codes."""
    if record.features is None or served is None:
        codes = ", ".join(f"<code>{escaped(code)}</code>" for code in record.reasons)
        return f"<p>Reasons, as codes: {codes or 'none'}.</p>"
    scorer = decider(record, served)
    explainer = served.explainer_of(scorer)
    values: dict[str, Any] = {}
    for feature in scorer.features:
        value = record.features.get(feature.name)
        missing = None if feature.is_category else np.nan
        values[feature.name] = np.array(
            [missing if value is None else value], dtype=object if feature.is_category else np.float64
        )
    base, contributions = explainer.contributions(scorer.bundle.encoder.matrix(values))
    first = {name: array[0] for name, array in values.items()}
    found = explainer.reasons(first, contributions[0], contributions.shape[1])
    return case.reasons(found, explainer.unit, base, base + float(contributions[0].sum()))

"""Labels of a payment, and which of them stands where several contradict each other."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Outcome = Literal["fraud", "legitimate", "unsure"]
LabelSource = Literal["chargeback", "analyst", "source"]
# Whose word goes before whose; `resolve_table` takes it from here.
WEIGHT: Mapping[LabelSource, int] = {"chargeback": 3, "analyst": 1, "source": 0}
LEAD = "lead"  # the role of an analyst whose word goes before that of other analysts, and weighs one more


@dataclass(frozen=True, slots=True)
class Label:
    """Somebody's word about a payment.

    Attributes:
        sequence: its number; later ones have greater numbers, and none is seen before all smaller ones are.
        transaction_id: of the payment.
        outcome: fraud, legitimate or unsure.
        source: a chargeback, an analyst, or the data source itself.
        author: who said so: a person or a service.
        role: of the author, where it matters (`LEAD`).
        note: free text by the author.
        event_time: when the payment was made; aware.
        known_at: since when this is known; aware.
    """

    sequence: int
    transaction_id: str
    outcome: Outcome
    source: LabelSource
    author: str
    role: str
    note: str
    event_time: datetime
    known_at: datetime


def resolve(labels: Iterable[Label], as_of: datetime | None = None) -> Outcome | None:
    """What is to be believed of one payment: a chargeback before an analyst (a lead before others) before the source.

    Among equals the one known last counts.

    Args:
        labels: all of one payment.
        as_of: labels known later are not looked at; None: all are.

    Returns:
        The outcome; None where nothing is known.
    """
    known = [label for label in labels if as_of is None or label.known_at <= as_of]
    if not known:
        return None
    return max(known, key=lambda label: (_weight(label), label.known_at, label.sequence)).outcome


def _weight(label: Label) -> int:
    return WEIGHT[label.source] + (label.source == "analyst" and label.role == LEAD)

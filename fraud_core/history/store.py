"""Feature store of the past: what cards and merchants did, kept for the scorer, and which payment got which answer.

A store decides nothing about definitions: it hands out what it holds of a payment's entities, and `features.online` counts.
What is kept of an entity goes by its own newest payment, never by the wall clock: events older than that by more than its windows
reach and a day are removed when it is written to. A payment that comes so late counts nowhere.
"""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

import polars as pl

from fraud_core.features.online import Correction, Event, Past, Query
from fraud_core.features.windows import Plan, Reach
from fraud_core.fields.declared import REFUND
from fraud_core.units.time import DAY_US

T = TypeVar("T")


class Entry(NamedTuple):
    """A payment that was scored, to be recorded with its answer.

    Attributes:
        transaction_id: by which it is known.
        content: SHA-256 of its canonical content, in hex.
        card: keyed hash of the card; None: it counts in no card's history.
        event: what history keeps of it.
        answer: what the caller is told, as JSON.
        payment: its canonical columns as JSON, the card as its hash.
        declined: whether it was declined. It counts all the same.
    """

    transaction_id: str
    content: str
    card: str | None
    event: Event
    answer: bytes
    payment: bytes
    declined: bool


class Kept(NamedTuple):
    """What a store holds under a transaction id.

    Attributes:
        new: whether it came in just now; otherwise the rest is what was there before.
        sequence: its place among the recorded payments, from 1 without a gap.
        content: as in `Entry`.
        answer: as in `Entry`.
    """

    new: bool
    sequence: int
    content: str
    answer: bytes


class Recorded(NamedTuple):
    """A recorded payment, as it is read back into raw."""

    sequence: int
    transaction_id: str
    payment: bytes
    declined: bool


class Loaded(NamedTuple):
    """Of what a store was last told that a partition of raw had been loaded.

    Attributes:
        stamp: what was loaded, and how.
        at: when, in microseconds since 1970 UTC, by the clock of whoever loaded it.
    """

    stamp: str
    at: int


class Heard(NamedTuple):
    """Which labels a store has heard, and what of them it could not count yet.

    Attributes:
        through: up to which label's number corrections were added; 0: none were.
        waiting: ids of payments that these labels are about and that nobody knew of then, sorted; None: release 0.1.0 did not
            write them down.
    """

    through: int = 0
    waiting: tuple[str, ...] | None = None

    @classmethod
    def of(cls, through: int, waiting: str | bytes | None) -> "Heard":
        """As a store keeps it; see `kept`."""
        return cls(through, tuple(json.loads(waiting)) if waiting else None)

    @property
    def kept(self) -> str:
        """`waiting` as a store keeps it; empty for None."""
        return "" if self.waiting is None else json.dumps(self.waiting)


class HistoryStore(Protocol):
    """What the scorer needs of a store. Every method raises StoreError where the store cannot be used, and may be called from
    any thread; several processes may share a store."""

    reach: Reach
    plan: Plan  # what is kept of each payment

    def look(self, queries: Sequence[Query], plan: Plan) -> list[Past]:
        """What is held for each query of what this plan asks for, all as of one moment."""
        ...

    def record(self, entries: Sequence[Entry]) -> list[Kept]:
        """Record payments, each whole or not at all. Of one whose id is there already nothing changes, and that one is told."""
        ...

    def find(self, ids: Sequence[str]) -> dict[str, Kept]:
        """What was recorded under these ids; ids that are not there are left out."""
        ...

    def recorded(self, after: int, limit: int) -> list[Recorded]:
        """Recorded payments with a greater sequence, in order. One that is seen has none before it still to come."""
        ...

    def load(self, payments: pl.DataFrame) -> int:
        """Count payments that were made elsewhere or before; in order of time, so that none is taken to be late.

        A payment that is counted already is not counted again, by its id; if its label has changed since, that is corrected.
        So whoever was cut short begins again anywhere before.

        Args:
            payments: those of `batch.columns_for(plan)` that the source has.

        Returns:
            How many were new.
        """
        ...

    def note_loaded(self, partition: str, loaded: Loaded) -> None:
        """Remember that a partition was loaded; the note goes where the store goes."""
        ...

    def loaded(self) -> dict[str, Loaded]:
        """The partitions that were loaded, as last noted."""
        ...

    def correct(self, corrections: Mapping[str, Sequence[Correction]], before: Heard, now: Heard) -> None:
        """Add what labels changed, by `hours_key`, with what was heard thereby; all of it goes in, or nothing.

        Does nothing where the store has heard otherwise than `before` meanwhile: then somebody else has added it.
        """
        ...

    def heard(self) -> Heard:
        """Which labels were heard."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


def shard_key(card: str | None, merchant: str | None) -> str | None:
    """Under whose name a payment is kept: its card's; without one its merchant's, which is enough to count it but once.

    None: it counts for neither.
    """
    if card is not None:
        return f"card:{card}"
    return None if merchant is None else f"merchant:{merchant}"


def entity_key(entity: str, name: str) -> str:
    """Under which key the payments of an entity are kept."""
    return f"card:{name}" if entity == "card" else f"of:{entity}:{name}"


def hours_key(entity: str, name: str) -> str:
    """Under which key the hours of an entity are kept; a merchant's name is its own, as it was before there were others."""
    return name if entity == "merchant" else f"{entity}\x1f{name}"


class Place(NamedTuple):
    """One place in which a payment counts: the key of a list of payments, the key of the hours that it is added to, how long it
    is kept, and what is kept of it beside what is kept of all."""

    keeper: str
    hours: str | None
    kept_us: int
    own: tuple[str, ...]


def places_of(card: str | None, event: Event, plan: Plan, reach: Reach) -> list[Place]:
    """Where a payment counts: for its card or merchant, and for each further entity that the plan has. A refund counts where a
    window asks for them, else nowhere."""
    is_refund = event.own.get(REFUND) is True
    if is_refund and REFUND not in plan.own:
        return []

    def hours_of(entity: str, name: str | None) -> str | None:
        return None if name is None or is_refund else hours_key(entity, name)

    places: list[Place] = []
    keeper = shard_key(card, event.merchant)
    whole = reach.total_us + DAY_US
    if keeper is not None:
        own = plan.own_of.get("card", ()) if card is not None else ()
        places.append(Place(keeper, hours_of("merchant", event.merchant), whole, own))
    known = {**event.own, "card": card, "merchant": event.merchant, "category": event.category}
    for entity in plan.others:
        name = known.get(entity)
        if name is not None:
            in_hours = entity in plan.hours and entity != "merchant"  # whose hours are counted above
            hours = hours_of(entity, name) if in_hours else None
            kept = whole if in_hours else plan.span_of(entity, reach) + DAY_US
            # a card's own payments lie under its key already
            places.append(Place(f"of:{entity}:{name}", hours, kept, plan.own_of.get(entity, ())))
    return places

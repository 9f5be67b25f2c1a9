"""Windows over the past of an entity, such as a card: their borders, what is tallied in them, and how a plan names it.

A tally is one number about the past of one entity: payments, sums of whole units, the time of the last payment. Whatever is added
up is whole numbers (payments, cents, ten-thousandths of other numbers), so that it is the same number in whatever order it is
added up: `online` tallies for one payment, `batch` for a million, and both take borders and units from here. Missing is NaN.

- Windows over payments hold those of the entity with timestamps in [t - span, t): exact, and payments of equal time see none of
  each other. Of a pair they hold the first one's payments with the same second one.
- Windows over whole hours (counts of frauds, and of what they are compared with) hold the hours of UTC that lie within
  [t - span, t): payments in flight together cannot disagree. Frauds are counted in the windows that end the label delay before t,
  with the labels known in hours ended before t.
- Nothing older than the source's `history_days` (for frauds: and its label delay) is looked at.
- Windows over payments hold so many of the entity's newest payments at most, so that no card, however busy, makes its payments
  slow: of an entity with more of them before t, only those that are later than the newest but so many count. Payments of equal
  time stay together, so the order in which a store gives them back does not matter.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

from fraud_core.fields.declared import NIGHT, REFUND
from fraud_core.units.time import DAY_US, HOUR_US

NEWEST_EVENTS = 10_000  # of a card, at most, where a source says nothing else
NEWEST_OF_OTHERS = 1_000  # of any other entity: an address may be that of thousands
UNITS = 10_000  # of a number that is no amount: so many whole units are one
MOST_UNITS = 2**33 * UNITS  # a number of more counts as missing in windows: sums stay whole numbers of 64 bits

Kind = Literal["count", "sum", "spread", "max", "min", "distinct", "last", "first", "seen", "hourly", "judged", "frauds"]
IN_HOURS = frozenset({"hourly", "judged", "frauds"})
# What every store keeps of a payment, and in which order it gives it back; fields that a source declares come behind.
KEPT = ("amount_cents", "merchant", "category", "merchant_latitude", "merchant_longitude")
Where = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Tally:
    """One number about the past of an entity.

    Attributes:
        kind: `count` of payments (with a value, where `over` is given); `sum`, `max` and `min` in whole units; `spread`: n times
            the sum of squares less the square of the sum; `distinct` values; `last` and `first` value (of timestamp:
            microseconds); `seen`: 1 where there is any payment, else 0; by whole hours: `hourly` payments, `judged` ones,
            whose outcome is known or settled by the delay, and `frauds` among them.
        of: the entity's field, or the two of a pair.
        over: the field that is looked at.
        span_us: how far back; 0: as far as the history goes.
        where: only payments whose field has one of the values count.
        newest: so many of the entity's newest payments count; None: as many as the reach says.
    """

    kind: Kind
    of: tuple[str, ...]
    over: str | None = None
    span_us: int = 0
    where: Where = ()
    newest: int | None = None

    @cached_property
    def name(self) -> str:
        """By which its number is known among the inputs of features."""
        where = ",".join(f"{field}={'|'.join(values)}" for field, values in self.where)
        return f"{self.kind} {self.over or ''} of {'+'.join(self.of)} in {self.span_us} {where} {self.newest or ''}"

    @property
    def in_hours(self) -> bool:
        """Whether whole hours are counted."""
        return self.kind in IN_HOURS


@dataclass(frozen=True)
class Sight:
    """Which payments of an entity some tallies look at, and these tallies.

    Attributes:
        of: as in `Tally`, like where and newest.
        tallies: what is tallied.
        places: where each of them stands in the plan.
    """

    of: tuple[str, ...]
    where: Where
    newest: int | None
    tallies: tuple[Tally, ...]
    places: tuple[int, ...]

    @cached_property
    def span_us(self) -> int:
        """How far back it looks; 0: as far as the history goes."""
        spans = [tally.span_us for tally in self.tallies]
        return 0 if 0 in spans else max(spans)

    @cached_property
    def reads(self) -> frozenset[str]:
        """What it looks at in a payment beside its time."""
        over = {tally.over for tally in self.tallies if tally.over is not None}
        return frozenset(over | {*self.of[1:]} | {field for field, _ in self.where}) - {NIGHT, "timestamp"}

    def values_us(self, tally: Tally) -> int | None:
        """How far back a tally looks at more than the times of payments; 0: as far as the history goes, None: not at all."""
        by_values = len(self.of) == 2 or any(field != NIGHT for field, _ in self.where)
        return tally.span_us if by_values or tally.over not in (None, "timestamp") else None

    @cached_property
    def wants_refunds(self) -> bool:
        """Whether refunds are asked for by name."""
        return any(field == REFUND for field, _ in self.where)


class Hours(NamedTuple):
    """What is counted of an entity by whole hours.

    Attributes:
        windows: how far back, and whether the window ends the label delay before the payment: each once.
        tallies: place in the plan, kind, and which of the windows it is.
    """

    windows: tuple[tuple[int, bool], ...]
    tallies: tuple[tuple[int, Kind, int], ...]


@dataclass(frozen=True)
class Plan:
    """What the windows of some features need of the past, in the order in which both engines give it.

    Attributes:
        tallies: what is tallied.
    """

    tallies: tuple[Tally, ...]

    @classmethod
    def of(cls, tallies: Iterable[Tally]) -> "Plan":
        """A plan of these tallies, each once."""
        return cls(tuple(dict.fromkeys(tallies)))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the tallies, in order."""
        return tuple(tally.name for tally in self.tallies)

    @cached_property
    def sights(self) -> dict[str, tuple[Sight, ...]]:
        """By entity, what is looked at in its payments."""
        found: dict[str, dict[tuple[tuple[str, ...], Where, int | None], list[int]]] = {}
        for place, tally in enumerate(self.tallies):
            if not tally.in_hours:
                by_sight = found.setdefault(tally.of[0], {})
                by_sight.setdefault((tally.of, tally.where, tally.newest), []).append(place)
        return {entity: tuple(self._sight(*sight) for sight in sights.items()) for entity, sights in found.items()}

    def _sight(self, key: tuple[tuple[str, ...], Where, int | None], places: list[int]) -> Sight:
        return Sight(*key, tuple(self.tallies[place] for place in places), tuple(places))

    @cached_property
    def hours(self) -> dict[str, Hours]:
        """By entity, what is counted by whole hours."""
        found: dict[str, list[int]] = {}
        for place, tally in enumerate(self.tallies):
            if tally.in_hours:
                found.setdefault(tally.of[0], []).append(place)
        return {entity: self._hours(places) for entity, places in found.items()}

    def _hours(self, places: list[int]) -> Hours:
        tallies = [self.tallies[place] for place in places]
        of = [(tally.span_us, tally.kind != "hourly") for tally in tallies]
        windows = tuple(dict.fromkeys(of))
        asked = zip(places, tallies, of, strict=True)
        return Hours(windows, tuple((place, tally.kind, windows.index(window)) for place, tally, window in asked))

    @cached_property
    def entities(self) -> tuple[str, ...]:
        """Fields of which a payment's past is asked for."""
        return tuple(dict.fromkeys(tally.of[0] for tally in self.tallies))

    @cached_property
    def asked(self) -> tuple[str, ...]:
        """Fields of the payment itself that its past is asked for by."""
        return tuple(dict.fromkeys(name for tally in self.tallies for name in tally.of))

    @cached_property
    def others(self) -> tuple[str, ...]:
        """Entities whose payments a store keeps apart: all but those that it keeps in any case, a card's payments and the hours
        of a merchant."""
        kept = {(entity, "sights") for entity in self.sights} | {(entity, "hours") for entity in self.hours}
        kept -= {("card", "sights"), ("merchant", "hours")}
        return tuple(sorted({entity for entity, _ in kept}))

    def joined(self, other: "Plan") -> "Plan":
        """What either needs."""
        return self if self.tallies == other.tallies else Plan.of((*self.tallies, *other.tallies))

    @cached_property
    def own(self) -> tuple[str, ...]:
        """The fields beside `KEPT` that a store must keep of each payment, sorted."""
        names = {name for sights in self.sights.values() for sight in sights for name in sight.reads}
        return tuple(sorted(names - {*KEPT}))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """What is known of a past payment behind its time, in order."""
        return (*KEPT, *self.own)

    @cached_property
    def reads(self) -> dict[str, tuple[str, ...]]:
        """By entity, what is looked at in its payments beside their times, in the order of `columns`."""
        refund = {REFUND} & {*self.own}  # who does not ask for refunds leaves them out
        looked = {entity: refund.union(*(sight.reads for sight in sights)) for entity, sights in self.sights.items()}
        return {entity: tuple(name for name in self.columns if name in names) for entity, names in looked.items()}

    @cached_property
    def own_of(self) -> dict[str, tuple[str, ...]]:
        """By entity, those of `own` that a store must keep of its payments."""
        return {entity: tuple(name for name in names if name in self.own) for entity, names in self.reads.items()}

    @property
    def uses_labels(self) -> bool:
        """Whether frauds are counted."""
        return any(tally.kind == "frauds" for tally in self.tallies)

    def newest_of(self, entity: str, reach: "Reach") -> int:
        """How many of the entity's newest payments count at most, over all that looks at them."""
        return max(reach.newest_of(entity, sight.newest) for sight in self.sights[entity])

    def span_of(self, entity: str, reach: "Reach") -> int:
        """How long the entity's payments count, in microseconds."""
        return _longest([tally.span_us for sight in self.sights[entity] for tally in sight.tallies], reach)

    def values_span_of(self, entity: str, reach: "Reach") -> int:
        """How long more than their times is looked at, in microseconds."""
        if REFUND in self.own:
            return self.span_of(entity, reach)
        spans = [sight.values_us(tally) for sight in self.sights[entity] for tally in sight.tallies]
        return _longest([span for span in spans if span is not None], reach)


@dataclass(frozen=True)
class Reach:
    """How far a source looks back.

    Attributes:
        history_us: no payment older than this counts; longer windows end here.
        delay_us: after so long a payment without a chargeback counts as legitimate.
        newest_events: so many payments of a card count at most.
    """

    history_us: int
    delay_us: int
    newest_events: int = NEWEST_EVENTS

    @classmethod
    def of_days(cls, history_days: int, label_delay_days: int, newest_events: int = NEWEST_EVENTS) -> "Reach":
        """As a source's TOML has it."""
        return cls(history_days * DAY_US, label_delay_days * DAY_US, newest_events)

    def holds(self, other: "Reach") -> bool:
        """Whether everything that counts for the other counts here."""
        return self.total_us >= other.total_us and self.newest_events >= other.newest_events

    def widened(self, other: "Reach") -> "Reach":
        """The least that holds both."""
        wider = max(self, other, key=lambda reach: reach.total_us)
        return replace(wider, newest_events=max(self.newest_events, other.newest_events))

    def newest_of(self, entity: str, declared: int | None) -> int:
        """How many of an entity's newest payments count."""
        if declared is not None:
            return declared
        return self.newest_events if entity == "card" else NEWEST_OF_OTHERS

    @property
    def total_us(self) -> int:
        """Nothing older than this before a payment is looked at for it."""
        return self.history_us + self.delay_us


def _longest(spans: Sequence[int], reach: Reach) -> int:
    return reach.history_us if 0 in spans else min(max(spans, default=0), reach.history_us)


def whole_hours(begin_us: int, end_us: int) -> tuple[int, int]:
    """The first hour (counted from 1970) that lies whole within [begin, end), and the first that no longer does."""
    return -(-begin_us // HOUR_US), end_us // HOUR_US


def units_of(field: str) -> int:
    """How many whole units one of a field's own units is."""
    return 100 if field == "amount_cents" else UNITS

"""Layout of remembered payments: an entity's hours and days, and its events, in the form that both engines keep."""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import polars as pl

from fraud_core.features.online import Correction, EntityHours, Event
from fraud_core.features.windows import KEPT, Plan, Reach
from fraud_core.fields.declared import REFUND
from fraud_core.history.store import T
from fraud_core.units.time import DAY_US, HOUR_US


def kept_us(reach: Reach) -> int:
    """How long before the newest one of its card a payment is kept, in microseconds."""
    return reach.total_us + DAY_US


def events_of(payments: pl.DataFrame, plan: Plan) -> Iterator[tuple[str | None, Event, int]]:
    """Card, event and fraud (1 or 0, by the file's label) of each payment, in order of time.

    Args:
        payments: as in `HistoryStore.load`.
        plan: what is kept of them.
    """
    nothing = pl.lit(None)
    columns = (
        "transaction_id",
        "amount_cents",
        "merchant",
        "category",
        "merchant_latitude",
        "merchant_longitude",
        "card",
        "label",
    )
    own = [name for name in dict.fromkeys((*plan.own, *plan.others)) if name not in columns and name in payments.columns]
    if REFUND in payments.columns and REFUND not in plan.own:
        payments = payments.filter(~pl.col(REFUND).fill_null(value=False))
    rows = payments.sort("timestamp").select(
        pl.col("timestamp").dt.epoch("us"),
        *(pl.col(name) if name in payments.columns else nothing.alias(name) for name in columns),
        *own,
    )
    for timestamp, identity, cents, merchant, category, latitude, longitude, card, label, *rest in rows.iter_rows():
        north, east = (float("nan") if place is None else place for place in (latitude, longitude))
        kept = dict(zip(own, rest, strict=True)) if own else {}
        yield card, Event(timestamp, identity, cents, merchant, category, north, east, kept), int(bool(label))


def own_values(event: Event, names: Iterable[str], card: str | None) -> dict[str, Any]:
    """What is kept of a payment under these names beside what is kept of all."""
    return {name: card if name == "card" else event.own.get(name) for name in names}


def columns_of(names: Sequence[str], base: Sequence[Sequence[Any]], own: Sequence[Mapping[str, Any]]) -> dict[str, Sequence[Any]]:
    """Columns of payments, as they are given back.

    Args:
        names: of the columns.
        base: the columns of those of them that are kept of all payments, in order.
        own: what else was kept of each payment; a name that is not there is missing.
    """
    kept = iter(base)
    return {name: next(kept) if name in KEPT else [one.get(name) for one in own] for name in names}


def in_groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of this size; the last may be shorter."""
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield group


# An entity's day as stores keep it: payments and frauds of each of its 24 hours, as little-endian int32. A look at one is
# a look at some forty days, whether it had ten payments in them or a million.
HOURS_A_DAY = 24
EMPTY_DAY = bytes(HOURS_A_DAY * 2 * 4)
_PAIR = struct.Struct("<ii")


def day_and_hour(timestamp: int) -> tuple[int, int]:
    """The day, counted from 1970, and the hour of it that an instant (microseconds) lies in."""
    return divmod(timestamp // HOUR_US, HOURS_A_DAY)


def add_to_hour(day: bytearray, hour: int, payments: int, frauds: int) -> None:
    """Count in an hour of a day, in place."""
    before = _PAIR.unpack_from(day, hour * _PAIR.size)
    _PAIR.pack_into(day, hour * _PAIR.size, before[0] + payments, before[1] + frauds)


def days_of(begin_hour: int, end_hour: int) -> range:
    """The days that hold the hours [begin, end)."""
    return range(begin_hour // HOURS_A_DAY, -(-end_hour // HOURS_A_DAY))


def entity_hours(days: range, counts: bytes, corrections: Iterable[Correction]) -> EntityHours:
    """An entity's hours of these days, whose counts (see `EMPTY_DAY`) are joined without a gap."""
    return EntityHours(days.start * HOURS_A_DAY, np.frombuffer(counts, dtype="<i4").reshape(-1, 2), tuple(corrections))

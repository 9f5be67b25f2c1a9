"""Layout of remembered payments: a merchant's hours and days, a card's events, in the form that both engines keep."""

import struct
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import polars as pl

from fraud_core.features.online import Correction, Event, MerchantHours
from fraud_core.features.windows import Reach
from fraud_core.history.store import T, shard_key
from fraud_core.units.time import DAY_US, HOUR_US


def kept_us(reach: Reach) -> int:
    """How long before the newest one of its card a payment is kept, in microseconds."""
    return reach.total_us + DAY_US


def events_of(payments: pl.DataFrame) -> Iterator[tuple[str | None, Event, int]]:
    """Keeper, event and fraud (1 or 0, by the file's label) of each payment, in order of time.

    Args:
        payments: as in `HistoryStore.load`.
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
    rows = payments.sort("timestamp").select(
        pl.col("timestamp").dt.epoch("us"),
        *(pl.col(name) if name in payments.columns else nothing.alias(name) for name in columns),
    )
    for timestamp, identity, cents, merchant, category, latitude, longitude, card, label in rows.iter_rows():
        places = (float("nan") if place is None else place for place in (latitude, longitude))
        yield shard_key(card, merchant), Event(timestamp, identity, cents, merchant, category, *places), int(bool(label))


def in_groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of this size; the last may be shorter."""
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield group


# A merchant's day as stores keep it: payments and frauds of each of its 24 hours, as little-endian int32. A look at a merchant
# is a look at some forty days, whether it had ten payments in them or a million.
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


def merchant_hours(days: range, counts: bytes, corrections: Iterable[Correction]) -> MerchantHours:
    """A merchant's hours of these days, whose counts (see `EMPTY_DAY`) are joined without a gap."""
    return MerchantHours(days.start * HOURS_A_DAY, np.frombuffer(counts, dtype="<i4").reshape(-1, 2), tuple(corrections))

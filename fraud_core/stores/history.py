"""The history store: what cards and merchants did, kept for the scorer, and which payment got which answer.

A store decides nothing about definitions: it hands out what it holds of a card and a merchant, and `history.asof` counts.
What is kept of a card or a merchant goes by its own newest payment, never by the wall clock: events older than that by more than
`Reach.total_us` and a day are removed when the card or the merchant is written to. A payment that comes so late counts nowhere.
"""

import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import polars as pl

from fraud_core.errors import SettingsError
from fraud_core.history.asof import Correction, Event, MerchantHours, Past, Query
from fraud_core.history.windows import DAY_US, HOUR_US, Reach
from fraud_core.settings import Settings

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

    def look(self, queries: Sequence[Query]) -> list[Past]:
        """What is held for each query, all as of one moment."""
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
            payments: those of `history.columns.COLUMNS` that the source has.

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
        """Add what labels changed, by merchant, with what was heard thereby; all of it goes in, or nothing.

        Does nothing where the store has heard otherwise than `before` meanwhile: then somebody else has added it.
        """
        ...

    def heard(self) -> Heard:
        """Which labels were heard."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


def open_history(settings: Settings, reach: Reach) -> HistoryStore:
    """The store that the settings name. Nothing is connected to yet.

    Raises:
        SettingsError: the URL is not one of Redis or Valkey.
    """
    if settings.history is None:
        from fraud_core.stores.history_sqlite import SqliteHistory  # noqa: PLC0415 - only the one that is used

        return SqliteHistory(settings.home / "history.sqlite", reach, settings.history_timeout)
    url = settings.history.get_secret_value()
    scheme, _, rest = url.partition("://")
    scheme = {"valkey": "redis", "valkeys": "rediss"}.get(scheme, scheme)
    if scheme not in {"redis", "rediss"} or not rest:  # the URL may hold a password, and is not repeated
        raise SettingsError("FRAUD_HISTORY must look like redis://host:6379/0 or rediss://..., or be empty for SQLite.")
    from fraud_core.stores.history_redis import RedisHistory  # noqa: PLC0415 - only where such a URL is used

    return RedisHistory(f"{scheme}://{rest}", reach, settings.history_timeout)


def keeper_of(card: str | None, merchant: str | None) -> str | None:
    """Under whose name a payment is kept: its card's; without one its merchant's, which is enough to count it but once.

    None: it counts nowhere.
    """
    if card is not None:
        return f"card:{card}"
    return None if merchant is None else f"merchant:{merchant}"


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
        yield keeper_of(card, merchant), Event(timestamp, identity, cents, merchant, category, *places), int(bool(label))


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

"""Time partitions: keys, windows and their arithmetic, in the time zone of the source."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

import polars as pl

from fraud_core.errors import PartitionError
from fraud_core.units.time import midnight


class Cadence(StrEnum):
    """How long a partition is. Weeks begin on Monday."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    YEARLY = "yearly"

    @property
    def key_format(self) -> str:
        """strftime format of a key; a partition is named by (the start of) its first day."""
        return {"monthly": "%Y-%m", "yearly": "%Y"}.get(self.value, "%Y-%m-%d")

    @property
    def polars_interval(self) -> str:
        """The interval in Polars' notation."""
        return {"daily": "1d", "weekly": "1w", "monthly": "1mo", "yearly": "1y"}[self.value]

    @property
    def cron(self) -> str:
        """The schedule on which partitions begin."""
        return {"daily": "0 0 * * *", "weekly": "0 0 * * 1", "monthly": "0 0 1 * *", "yearly": "0 0 1 1 *"}[self.value]


def first_day(key: str, cadence: Cadence) -> date:
    """First day of the partition.

    Raises:
        PartitionError: the key is not one of this cadence.
    """
    try:
        day = datetime.strptime(key, cadence.key_format).date()  # noqa: DTZ007 - a calendar day has no zone
    except ValueError as error:
        raise PartitionError(f"'{key}' is not a {cadence.value} partition; keys look like {cadence.key_format}.") from error
    if key_of(day, cadence) != key:
        raise PartitionError(f"'{key}' is not the first day of a {cadence.value} partition; use '{key_of(day, cadence)}'.")
    return day


def key_of(day: date, cadence: Cadence) -> str:
    """Key of the partition in which the (local) day lies."""
    match cadence:
        case Cadence.WEEKLY:
            day -= timedelta(days=day.weekday())
        case Cadence.MONTHLY:
            day = day.replace(day=1)
        case Cadence.YEARLY:
            day = day.replace(month=1, day=1)
        case Cadence.DAILY:
            pass
    return day.strftime(cadence.key_format)


def next_key(key: str, cadence: Cadence) -> str:
    """Key of the partition that follows."""
    longest = {"daily": 1, "weekly": 7, "monthly": 31, "yearly": 366}[cadence.value]
    return key_of(first_day(key, cadence) + timedelta(days=longest), cadence)


def window(key: str, cadence: Cadence, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Start and end (exclusive) of the partition, in UTC."""
    start, end = first_day(key, cadence), first_day(next_key(key, cadence), cadence)
    return midnight(start, zone), midnight(end, zone)


def key_range(first: str, last: str, cadence: Cadence) -> list[str]:
    """All keys from first to last, both included."""
    return list(_iterate(first, last, cadence))


def preceding_keys(key: str, days: int, cadence: Cadence, first: str) -> list[str]:
    """Keys of the partitions that hold any of the `days` days before the partition, none before `first`; oldest first."""
    start = first_day(key, cadence)
    oldest = max(key_of(start - timedelta(days=days), cadence), first)
    return [other for other in key_range(oldest, key, cadence) if other != key]


def key_expression(timestamp: pl.Expr, cadence: Cadence, zone: ZoneInfo) -> pl.Expr:
    """Polars expression: the partition key of each (UTC) timestamp."""
    local = timestamp.dt.convert_time_zone(zone.key).dt.replace_time_zone(None)
    return local.dt.truncate(cadence.polars_interval).dt.strftime(cadence.key_format)


def _iterate(first: str, last: str, cadence: Cadence) -> Iterator[str]:
    key = key_of(first_day(first, cadence), cadence)
    while key <= last:
        yield key
        key = next_key(key, cadence)

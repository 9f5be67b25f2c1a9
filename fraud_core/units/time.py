"""Time: local clocks of a source, hours and night, microseconds since 1970.

Instants and local times are int64 microseconds since 1970; arrays of any length in, arrays of the same length out.
"""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np

from fraud_core.units.arrays import Array

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
NIGHT_BEGINS, NIGHT_ENDS = 22, 6


def local_us(timestamp_us: Array, zone: ZoneInfo) -> Array:
    """What the zone's clocks show at each instant."""
    local: Array = timestamp_us + utc_offset_us(timestamp_us, zone)
    return local


def hour_of_day(local: Array) -> Array:
    """0 to 23, of local times."""
    hour: Array = local // HOUR_US % 24
    return hour


def is_night(local: Array) -> Array:
    """Whether local times are from 22:00 to 06:00 (bool)."""
    night: Array = (local - NIGHT_BEGINS * HOUR_US) % DAY_US < (NIGHT_ENDS - NIGHT_BEGINS) % 24 * HOUR_US
    return night


def nights(timestamps_us: Sequence[int], zone: ZoneInfo) -> list[bool]:
    """Whether it was night on the zone's clocks at each of a few instants, which never decrease."""
    if not timestamps_us:
        return []
    starts, offsets = _transition_lists(zone.key)
    first, last = (bisect_right(starts, at) - 1 for at in (timestamps_us[0], timestamps_us[-1]))
    length = (NIGHT_ENDS - NIGHT_BEGINS) % 24 * HOUR_US
    if first != last:
        shifts = [offsets[bisect_right(starts, at) - 1] - NIGHT_BEGINS * HOUR_US for at in timestamps_us]
        return [(at + shift) % DAY_US < length for at, shift in zip(timestamps_us, shifts, strict=True)]
    shift = offsets[first] - NIGHT_BEGINS * HOUR_US
    return [(at + shift) % DAY_US < length for at in timestamps_us]


def local_days(timestamp_us: Array, zone: ZoneInfo) -> Array:
    """Days since 1970 (int64) on the zone's clocks, at each instant."""
    return day_number(local_us(timestamp_us, zone))


def day_number(local: Array) -> Array:
    """Days since 1970 (int64), of local times."""
    days: Array = np.floor_divide(local, DAY_US)
    return days


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """The instant, in UTC, at which a day begins on the zone's clocks."""
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)


def utc_offset_us(timestamp_us: Array, zone: ZoneInfo) -> Array:
    """The zone's offset from UTC at each instant, in microseconds (int64), by a look-up in its table of transitions.

    Polars' `convert_time_zone` takes 60 times as long for one payment, and has other transitions for some zones than `zoneinfo`.
    """
    starts, offsets = _transitions(zone.key)
    found: Array = offsets[np.searchsorted(starts, timestamp_us, side="right") - 1]
    return found


@lru_cache(maxsize=8)
def _transitions(zone_name: str) -> tuple[Array, Array]:
    """Instants (microseconds) from which an offset holds, and the offsets; from 1900 to 2100, exact to the second."""
    zone = ZoneInfo(zone_name)
    begin, end = int(datetime(1900, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2100, 1, 1, tzinfo=UTC).timestamp())

    def offset(second: int) -> int:
        moment = EPOCH + timedelta(seconds=second)
        shift = moment.astimezone(zone).utcoffset()
        assert shift is not None
        return int(shift.total_seconds())

    starts, offsets = [np.iinfo(np.int64).min], [offset(begin)]
    step = 7 * 86_400
    for left in range(begin, end, step):
        after = offset(left + step)
        if after == offsets[-1]:
            continue
        old, new = left, left + step
        while new - old > 1:
            middle = (old + new) // 2
            old, new = (old, middle) if offset(middle) == after else (middle, new)
        starts.append(new * 1_000_000)
        offsets.append(after)
    return np.array(starts, dtype=np.int64), np.array(offsets, dtype=np.int64) * 1_000_000


@lru_cache(maxsize=8)
def _transition_lists(zone_name: str) -> tuple[list[int], list[int]]:
    starts, offsets = _transitions(zone_name)
    return starts.tolist(), offsets.tolist()


def to_microseconds(moment: datetime) -> int:
    """Microseconds since 1970 UTC, exactly, as times are stored. Raises TypeError for a time without a zone."""
    return (moment - EPOCH) // _MICROSECOND


def from_microseconds(stored: int) -> datetime:
    """The time in UTC of `to_microseconds`."""
    return EPOCH + timedelta(microseconds=stored)


def local_date(stored: int, zone: ZoneInfo) -> date:
    """The day that the zone's calendars show at an instant (microseconds since 1970)."""
    return from_microseconds(stored).astimezone(zone).date()

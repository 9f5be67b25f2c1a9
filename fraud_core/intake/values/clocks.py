"""Whether a counting clock was read in its own unit: hours read as seconds all lie within minutes of each other."""

from datetime import UTC, datetime, timedelta

from fraud_core.sources.columns import TimeColumn

FEWEST_ROWS = 100  # of a file from which on it is asked
CROWDED = 10.0  # payments a tick of the clock, all in all, which no clock has that counts in its own unit
_WITHIN = {"us": timedelta(hours=1), "ms": timedelta(hours=1), "s": timedelta(hours=1), "m": timedelta(days=1)}
_TICK = {"us": timedelta(microseconds=1), "ms": timedelta(milliseconds=1), "s": timedelta(seconds=1), "m": timedelta(minutes=1)}
_SPOKEN = {"us": "microseconds", "ms": "milliseconds", "s": "seconds", "m": "minutes"}
_FIRST_YEARS = datetime(1980, 1, 1, tzinfo=UTC)


def wrong_unit(declared: TimeColumn, first: datetime, last: datetime, rows: int) -> str | None:
    """What is wrong with the clock of a file, and what to declare instead; None: nothing that can be seen.

    Args:
        declared: the clock.
        first: the earliest time in the file, as it was read.
        last: the latest.
        rows: how many have one.
    """
    column, unit = declared.names[0], declared.unit or "s"
    if rows < FEWEST_ROWS or not declared.is_counted or unit not in _WITHIN:
        return None
    span = last - first
    if declared.origin is None:
        if last >= _FIRST_YEARS:
            return None
        return (
            f"the column '{column}' is read as seconds since 1970, and all {rows:,} rows lie before 1980. If it counts from "
            f'a start of its own, declare that: timestamp = {{ column = "{column}", origin = 2024-01-01T00:00:00, unit = "h" }} '
            'under [columns], with the unit that it counts: "s", "m", "h" or "d"'
        )
    crowd = rows / (span / _TICK[unit] + 1)
    if span >= _WITHIN[unit] or crowd < CROWDED:
        return None
    return (
        f"the column '{column}' is read as {_SPOKEN[unit]}, and so all {rows:,} rows lie within {_length(span)} of each other, "
        f'{crowd:,.0f} for every tick of the clock. If it counts hours, write unit = "h" beside its origin (or "m", or "d")'
    )


def _length(span: timedelta) -> str:
    seconds = span.total_seconds()
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"

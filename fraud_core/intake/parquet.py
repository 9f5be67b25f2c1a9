"""Parquet files, bounded: rows in batches for the scoring of files, and as frames for the intake.

Types are looked at before Polars sees them: it panics on what Python's own dates cannot hold.
"""

import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import polars as pl
import pyarrow
import pyarrow.compute
import pyarrow.parquet
import pyarrow.types as of

from fraud_core.intake.unpacking import UnreadableError, check_expansion
from fraud_core.sources.limits import Limits

FREE_ROWS = 1_000_000  # that a file may always have; beyond them at most one a byte
MOST_ROW_GROUPS = 100_000
DAMAGED = (pyarrow.ArrowException, OSError)

_EPOCH = datetime.date(1970, 1, 1).toordinal()
_FIRST_DAY, _LAST_DAY = datetime.date(1, 1, 2).toordinal() - _EPOCH, datetime.date(9999, 12, 30).toordinal() - _EPOCH
_PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000}
_READ = (
    of.is_string,
    of.is_large_string,
    of.is_string_view,
    of.is_integer,
    of.is_float32,
    of.is_float64,
    of.is_boolean,
    of.is_null,
)


class ParquetFile:
    """A Parquet file within its bounds, by its own figures. Errors of pyarrow (`DAMAGED`) are left to whoever reads.

    Attributes:
        rows: how many it says that it has.
        names: of its columns.
        types: name -> type, of dictionaries that of their values.

    Args:
        file: a path, or an open file that can be sought.
        size: of it, in bytes.
        limits: columns, and how far it may expand.
        free_rows: that it may have however small it is.
        row_groups: that it may have.

    Raises:
        UnreadableError: a bound is passed.
    """

    def __init__(self, file: Path | IO[bytes], size: int, limits: Limits, *, free_rows: int, row_groups: int) -> None:
        self._file = file
        if not isinstance(file, Path):
            file.seek(0)
        self._metadata = metadata = pyarrow.parquet.read_metadata(file)
        self.rows: int = metadata.num_rows
        if metadata.num_row_groups > row_groups:
            raise UnreadableError(f"has {metadata.num_row_groups} row groups, and {row_groups} at most are read")
        if metadata.num_columns > limits.columns:
            problem = f"has {metadata.num_columns} columns, and {limits.columns} at most are read"
            raise UnreadableError(problem, limits=("columns",))
        if self.rows > max(free_rows, size * limits.expansion // 100):
            problem = f"would expand to {self.rows:,} rows, more than one a byte, as files do that are made to fill a machine"
            raise UnreadableError(problem, limits=("expansion",))
        groups = (metadata.row_group(at) for at in range(metadata.num_row_groups))
        check_expansion(sum(group.total_byte_size for group in groups), size, limits)
        schema = metadata.schema.to_arrow_schema()
        self.names: list[str] = schema.names
        values = (field.type.value_type if of.is_dictionary(field.type) else field.type for field in schema)
        self.types = dict(zip(self.names, values, strict=True))
        leaves = (metadata.schema.column(at) for at in range(metadata.num_columns))
        self._instants = {leaf.path for leaf in leaves if leaf.physical_type == "INT96"}

    def is_read(self, name: str) -> bool:
        """Whether a column has a type that can hold a value of ours."""
        dtype = self.types[name]
        exact = of.is_decimal(dtype) and not of.is_decimal256(dtype)
        return exact or of.is_date(dtype) or of.is_timestamp(dtype) or any(test(dtype) for test in _READ)

    def is_instant(self, name: str) -> bool:
        """Whether a column of times has a zone: that of INT96 is UTC, as Spark writes it."""
        return name in self._instants or getattr(self.types[name], "tz", None) is not None

    def batches(self, columns: Sequence[str], rows: int, *, dictionaries: bool = False) -> Iterator[Any]:
        """Record batches of at most so many rows. Before the damage in a file all whole row groups are handed on.

        Args:
            columns: which.
            rows: at most, in one.
            dictionaries: whether texts stay what they refer to, so that a long one that many rows have is held but once.
        """
        if not isinstance(self._file, Path):
            self._file.seek(0)
        with pyarrow.parquet.ParquetFile(
            self._file,
            metadata=self._metadata,
            pre_buffer=False,
            buffer_size=1 << 20,
            coerce_int96_timestamp_unit="us",
            page_checksum_verification=True,
            read_dictionary=list(columns) if dictionaries else None,
        ) as file:
            given = 0
            try:
                for batch in file.iter_batches(rows, columns=list(columns), use_threads=False):
                    yield batch
                    given += len(batch)
            except pyarrow.ArrowMemoryError:
                raise
            except DAMAGED:  # in a row group that shares its batch with sound ones before it
                begin = 0
                for group in range(file.num_row_groups):
                    end = begin + file.metadata.row_group(group).num_rows
                    for batch in (
                        file.iter_batches(rows, [group], columns=list(columns), use_threads=False) if given < end else ()
                    ):
                        yield batch.slice(max(given - begin, 0))
                        begin += len(batch)
                    begin = end
                raise

    def frames(self, columns: Sequence[str], rows: int) -> Iterator[pl.DataFrame]:
        """Frames of at most so many rows.

        Times without a zone that stand as INT96 are instants in UTC. Days and times beyond the years 1 to 9999 become the first
        or the last of them, which no declaration takes.
        """
        for batch in self.batches(columns, rows):
            frame = pl.from_arrow(pyarrow.table({name: self._within_years(name, batch.column(name)) for name in columns}))
            assert isinstance(frame, pl.DataFrame)
            yield frame

    def _within_years(self, name: str, values: Any) -> Any:
        dtype = values.type
        if of.is_timestamp(dtype):
            zone = "UTC" if self.is_instant(name) else None
            if dtype.unit == "ns":  # these cannot leave the years 1677 to 2262
                return values.cast(pyarrow.int64()).cast(pyarrow.timestamp("ns", zone))
            inside = _clamped(values.cast(pyarrow.int64()), _PER_DAY[dtype.unit])
            micros = inside.cast(pyarrow.timestamp(dtype.unit)).cast(pyarrow.timestamp("us"))  # Polars keeps no seconds
            return micros.cast(pyarrow.int64()).cast(pyarrow.timestamp("us", zone))
        if of.is_date32(dtype):
            return _clamped(values.cast(pyarrow.int32()), 1).cast(dtype)
        if of.is_date64(dtype):
            return _clamped(values.cast(pyarrow.int64()), _PER_DAY["ms"]).cast(dtype)
        return values


def _clamped(numbers: Any, per_day: int) -> Any:
    """Whole numbers of days or times since 1970, within the years 1 to 9999."""
    low, high = pyarrow.scalar(_FIRST_DAY * per_day, numbers.type), pyarrow.scalar(_LAST_DAY * per_day, numbers.type)
    raised = pyarrow.compute.max_element_wise(numbers, low, skip_nulls=False)
    return pyarrow.compute.min_element_wise(raised, high, skip_nulls=False)

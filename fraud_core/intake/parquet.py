"""Rows of Parquet files. Types are looked at before Polars sees them: it panics on what Python's own dates cannot hold."""

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from fraud_core.errors import SourceError
from fraud_core.intake.unpacking import FREE_EXPANSION, too_large
from fraud_core.sources.source import Limits

FREE_ROWS = 1_000_000  # that a file may always have; beyond them at most one a byte

_EPOCH = datetime.date(1970, 1, 1).toordinal()
_FIRST_DAY, _LAST_DAY = datetime.date(1, 1, 2).toordinal() - _EPOCH, datetime.date(9999, 12, 30).toordinal() - _EPOCH
_PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000}


class ParquetFile:
    """A Parquet file, opened. Errors of pyarrow (`DAMAGED`) are left to whoever reads.

    Raises:
        SourceError: it is larger inside than `limits` allow.
    """

    def __init__(self, name: str, path: Path, limits: Limits) -> None:
        self.name = name
        self._file = pyarrow.parquet.ParquetFile(path, coerce_int96_timestamp_unit="us")
        metadata, size = self._file.metadata, path.stat().st_size
        expanded = sum(metadata.row_group(at).total_byte_size for at in range(metadata.num_row_groups))
        if expanded > min(max(FREE_EXPANSION, limits.expansion * size), limits.unpacked_gb * 1e9):
            raise too_large(name, limits)
        self.rows: int = metadata.num_rows
        if self.rows > max(FREE_ROWS, size * limits.expansion // 100):
            raise SourceError(
                f"{name} says that it has {self.rows:,} rows, more than one a byte, as files do that are made to fill a machine. "
                "If it is sound, raise `expansion` under [limits] in the source's TOML."
            )
        self.names: list[str] = self._file.schema_arrow.names
        if len(self.names) > limits.columns:
            raise SourceError(
                f"{name} has {len(self.names)} columns, and {limits.columns} at most are read; "
                "raise `columns` under [limits] in the source's TOML."
            )
        parquet_schema = self._file.schema
        columns = (parquet_schema.column(at) for at in range(len(parquet_schema)))
        self._instants = {column.path for column in columns if column.physical_type == "INT96"}

    def chunks(self, columns: list[str], rows: int) -> Iterator[pl.DataFrame]:
        """Frames of at most so many rows.

        Times without a zone that stand as INT96 are instants in UTC, as Spark writes them. Days and times beyond the years 1 to
        9999 become the first or the last of them, which no declaration takes.

        Raises:
            SourceError: a column has a type that holds no value of ours.
        """
        for name in columns:
            self._require_type(name, self._file.schema_arrow.field(name).type)
        for batch in self._file.iter_batches(rows, columns=columns, use_threads=False):
            arrays = {name: self._within_years(name, batch.column(name)) for name in columns}
            frame = pl.from_arrow(pyarrow.table(arrays))
            assert isinstance(frame, pl.DataFrame)
            yield frame

    def _require_type(self, name: str, dtype: Any) -> None:
        types = pyarrow.types
        if types.is_dictionary(dtype):
            dtype = dtype.value_type
        text = types.is_string(dtype) or types.is_large_string(dtype) or types.is_string_view(dtype)
        number = (
            types.is_integer(dtype)
            or types.is_float32(dtype)
            or types.is_float64(dtype)
            or types.is_boolean(dtype)
            or types.is_null(dtype)
        )
        exact = types.is_decimal(dtype) and not types.is_decimal256(dtype)
        if not (text or number or exact or types.is_date(dtype) or types.is_timestamp(dtype)):
            raise SourceError(f"{self.name}, column '{name}': values of type {dtype} are not read; store the column as text.")

    def _within_years(self, name: str, values: Any) -> Any:
        dtype = values.type
        if pyarrow.types.is_timestamp(dtype):
            zone = "UTC" if dtype.tz or name in self._instants else None
            if dtype.unit == "ns":  # these cannot leave the years 1677 to 2262
                return values.cast(pyarrow.int64()).cast(pyarrow.timestamp("ns", zone))
            inside = _clamped(values.cast(pyarrow.int64()), _PER_DAY[dtype.unit])
            micros = inside.cast(pyarrow.timestamp(dtype.unit)).cast(pyarrow.timestamp("us"))  # Polars keeps no seconds
            return micros.cast(pyarrow.int64()).cast(pyarrow.timestamp("us", zone))
        if pyarrow.types.is_date32(dtype):
            return _clamped(values.cast(pyarrow.int32()), 1).cast(dtype)
        if pyarrow.types.is_date64(dtype):
            return _clamped(values.cast(pyarrow.int64()), _PER_DAY["ms"]).cast(dtype)
        return values


def _clamped(numbers: Any, per_day: int) -> Any:
    """Whole numbers of days or times since 1970, within the years 1 to 9999."""
    low, high = pyarrow.scalar(_FIRST_DAY * per_day, numbers.type), pyarrow.scalar(_LAST_DAY * per_day, numbers.type)
    raised = pyarrow.compute.max_element_wise(numbers, low, skip_nulls=False)
    return pyarrow.compute.min_element_wise(raised, high, skip_nulls=False)


DAMAGED = (pyarrow.ArrowException, OSError)

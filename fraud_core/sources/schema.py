"""The canonical transaction: the columns every source is mapped to, their types, their bounds and what is personal."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import polars as pl

UTC_MICROSECONDS = pl.Datetime("us", "UTC")

Parser = Literal["text", "timestamp", "date", "money", "label", "number", "count", "card"]


@dataclass(frozen=True)
class Column:
    """One canonical column.

    `lowest` and `highest` bound the value as it is stored (cents for money), `longest` a text, in characters. A `personal` value
    is never shown in metadata, quarantine, logs or errors.
    """

    name: str
    dtype: pl.DataType
    parser: Parser
    required: bool = False
    personal: bool = False
    lowest: float | None = None
    highest: float | None = None
    longest: int | None = None


CANONICAL: tuple[Column, ...] = (
    Column("transaction_id", pl.String(), "text", longest=128),
    Column("timestamp", UTC_MICROSECONDS, "timestamp", required=True),
    Column("amount_cents", pl.Int64(), "money", required=True, lowest=0, highest=10**11),
    Column("label", pl.Boolean(), "label"),
    Column("card", pl.String(), "card", personal=True, longest=64),
    Column("merchant", pl.String(), "text", longest=200),
    Column("category", pl.String(), "text", longest=200),
    Column("birth_date", pl.Date(), "date", personal=True),
    Column("home_latitude", pl.Float64(), "number", personal=True, lowest=-90, highest=90),
    Column("home_longitude", pl.Float64(), "number", personal=True, lowest=-180, highest=180),
    Column("merchant_latitude", pl.Float64(), "number", lowest=-90, highest=90),
    Column("merchant_longitude", pl.Float64(), "number", lowest=-180, highest=180),
    Column("city_population", pl.Int64(), "count", lowest=0, highest=10**9),
)
BY_NAME = {column.name: column for column in CANONICAL}
PERSONAL = frozenset(column.name for column in CANONICAL if column.personal)

# What raw carries beside the canonical columns: where a row came from, and its unkeyed bucket for splits by cardholder.
PROVENANCE = {"source_file": pl.String(), "source_line": pl.UInt32()}
SPLIT_BUCKETS = 1_000

# A refused row. `value` is masked: it shows the shape of what was there, never the content.
QUARANTINE_SCHEMA = {
    "source_file": pl.String(),
    "source_line": pl.UInt32(),
    "column": pl.String(),
    "reason": pl.String(),
    "value": pl.String(),
}


def raw_schema(columns: Iterable[str]) -> dict[str, pl.DataType]:
    """Schema of a raw partition for the canonical columns that a source has, in canonical order."""
    present = set(columns) | {"transaction_id"}
    schema: dict[str, pl.DataType] = {column.name: column.dtype for column in CANONICAL if column.name in present}
    if "card" in present:
        schema["split_bucket"] = pl.Int16()
    return schema | PROVENANCE


def shown_columns(columns: Iterable[str]) -> list[str]:
    """The columns that may be shown to a person outside the data store: none that is personal."""
    return [name for name in columns if name not in PERSONAL and name != "split_bucket"]

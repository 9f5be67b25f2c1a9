"""The canonical transaction: the columns every source is mapped to, their types, their bounds and what is personal."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

import polars as pl

from fraud_core.fields.declaration import FieldDeclaration, Kind, WindowDeclaration

UTC_MICROSECONDS = pl.Datetime("us", "UTC")

# How values are read; the last four are those of a source's own fields.
Parser = Literal["text", "timestamp", "date", "money", "label", "number", "count", "card", "id", "flag", "time", "secret"]


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


class _StandardField(FieldDeclaration):
    """A field of `standard.toml`: as a source's own, with the way in which it is read."""

    reading: Parser
    longest: int | None = None

    def column(self, name: str) -> Column:
        """The column that it is in raw. Amounts are whole cents there."""
        scale = 100 if self.reading == "money" else 1
        return Column(
            name,
            _DTYPES[self.reading],
            "text" if self.reading == "id" else self.reading,
            required=self.required,
            personal=self.personal,
            lowest=None if self.lowest is None else self.lowest * scale,
            highest=None if self.highest is None else self.highest * scale,
            longest=self.longest,
        )


_DTYPES: dict[Parser, pl.DataType] = {
    "id": pl.String(),
    "timestamp": UTC_MICROSECONDS,
    "money": pl.Int64(),
    "label": pl.Boolean(),
    "card": pl.String(),
    "text": pl.String(),
    "date": pl.Date(),
    "number": pl.Float64(),
    "count": pl.Int64(),
    "flag": pl.Boolean(),
    "time": UTC_MICROSECONDS,
    "secret": pl.String(),
}
_OWN: dict[Kind, Parser] = {"number": "number", "category": "text", "flag": "flag", "time": "time", "id": "id"}
LONGEST_NAME = 200

_SHIPPED = tomllib.loads((files("fraud_core.fields") / "standard.toml").read_text(encoding="utf-8"))
STANDARD: Mapping[str, FieldDeclaration] = {name: _StandardField(**given) for name, given in _SHIPPED["fields"].items()}
STANDARD_WINDOWS = tuple(WindowDeclaration(**given) for given in _SHIPPED["windows"])

CANONICAL: tuple[Column, ...] = tuple(field.column(name) for name, field in STANDARD.items() if isinstance(field, _StandardField))
BY_NAME = {column.name: column for column in CANONICAL}


def own_column(name: str, field: FieldDeclaration) -> Column:
    """The column of raw that a source's own field is; one that is kept."""
    parser: Parser = "secret" if field.personal else _OWN[field.kind]
    longest = LONGEST_NAME if field.kind in {"category", "id"} else None
    return Column(
        name, _DTYPES[parser], parser, personal=field.personal, lowest=field.lowest, highest=field.highest, longest=longest
    )


_SHOWN_VALUES = 8  # of a category, in a refusal


def out_of_bounds(lowest: float | None, highest: float | None, unit: str = "") -> str:
    """Why a number is refused, from a file as over HTTP."""
    match lowest, highest:
        case lowest, None:
            return f"is out of bounds (from {lowest:g}{unit})"
        case None, highest:
            return f"is out of bounds (to {highest:g}{unit})"
        case lowest, highest:
            return f"is out of bounds ({lowest:g} to {highest:g}{unit})"


def none_of(values: tuple[str, ...]) -> str:
    """Likewise of a category that has none of its declared values."""
    more = " ..." if len(values) > _SHOWN_VALUES else ""
    return f"is none of the declared values ({', '.join(values[:_SHOWN_VALUES])}{more})"


def no_flag(texts: Mapping[str, bool]) -> str:
    """Likewise of a flag that has none of its texts."""
    true, false = ("/".join([said for said, outcome in texts.items() if outcome is which][:5]) for which in (True, False))
    return f"is neither {true} (true) nor {false} (false)"


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


def raw_schema(columns: Iterable[str], own: Iterable[Column] = ()) -> dict[str, pl.DataType]:
    """Schema of a raw partition for the standard columns that a source has, in canonical order, and its own in theirs."""
    present = set(columns) | {"transaction_id"}
    schema: dict[str, pl.DataType] = {column.name: column.dtype for column in CANONICAL if column.name in present}
    schema |= {column.name: column.dtype for column in own}
    if "refund" in present:  # whether money came back
        schema["refund"] = pl.Boolean()
    if "card" in present:
        schema["split_bucket"] = pl.Int16()
    return schema | PROVENANCE


def shown_columns(columns: Iterable[str], own: Iterable[Column] = ()) -> list[str]:
    """The columns that may be shown to a person outside the data store: none that is personal."""
    hidden = {*PERSONAL, "split_bucket", *(column.name for column in own if column.personal)}
    return [name for name in columns if name not in hidden]

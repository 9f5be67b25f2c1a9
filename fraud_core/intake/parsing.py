"""Parse a source's own columns into canonical rows, by the declared formats. A row that does not fit is refused, with a reason.

Card numbers leave this module only as keyed hashes. What must not depend on the key (the split bucket and the content digest)
is taken before.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from fraud_core.fields import schema
from fraud_core.fields.derive import derive_columns
from fraud_core.fields.schema import Column
from fraud_core.intake.files import LINE
from fraud_core.intake.values.money import ROUNDED, amount
from fraud_core.intake.values.readings import READINGS, SEPARATOR, Reading, column_of, flag, recorded, with_declared
from fraud_core.signing.card_numbers import hashed_card
from fraud_core.signing.keys import Key
from fraud_core.sources import partitions
from fraud_core.sources.columns import AmountColumn, LabelColumn, TextColumn
from fraud_core.sources.source import OPEN, Source
from fraud_core.transactions.transaction import AHEAD
from fraud_core.units.time import EPOCH

VERSION = "parse 3"  # raised whenever the rules below change: files are then read anew

PARTITION = "partition"
EARLIEST_BIRTH = pl.date(1900, 1, 1)


@dataclass(frozen=True)
class Parsed:
    """A parsed chunk.

    Attributes:
        rows: canonical rows with provenance and `PARTITION`.
        refused: quarantined rows with `PARTITION` (null where the row has no usable time).
        repaired: how many labels were repaired by the source's rule.
        rounded: how many amounts lost decimals, where the source says that they may.
        times: the earliest and the latest that could be read, in refused rows, too.
        digest: a function of a partition key: SHA-256 over its canonical rows before keying.
    """

    rows: pl.DataFrame
    refused: pl.DataFrame
    repaired: int
    digest: Callable[[str], bytes]
    rounded: int = 0
    times: tuple[datetime, ...] = ()


def parse(chunk: pl.DataFrame, file: str, source: Source, card_key: Key, now: datetime | None = None) -> Parsed:
    """Parse a chunk of a file.

    Args:
        chunk: the source's wanted columns (text, or typed where Parquet types them) and `LINE`.
        file: what the rows' `source_file` will say.
        source: how.
        card_key: key of the card hashes, and of transaction ids that are made from content.
        now: the moment of landing: rows that lie further ahead of it than a scorer takes are refused. None: any time is taken.
    """
    columns, own = source.columns, source.declared
    chunk, read, checks = _read(chunk, source, now)
    bad = read.select(pl.any_horizontal(check.fails for check in checks)).to_series()
    kept = read.filter(~bad)
    said = [*source.raw_columns, *(column.name for column in own.columns)]
    unkeyed = _derived(kept, source).select(*said, pl.lit(file).alias("source_file"), "source_line", PARTITION)

    def digest(partition: str) -> bytes:
        text = unkeyed.filter(pl.col(PARTITION) == partition).select(said).write_csv()
        return hashlib.sha256(text.encode()).digest()

    rows = _keyed(unkeyed, source, card_key).select(*source.raw_schema, PARTITION)
    refused = _refused(chunk.filter(bad), read.filter(bad), checks, source, file)
    rounded = int(kept[ROUNDED].sum()) if ROUNDED in kept.columns else 0
    stamps = read["timestamp"].to_physical().clip(*(seconds * 1_000_000 for seconds in _CALENDAR))
    times = tuple(EPOCH + timedelta(microseconds=end) for end in (stamps.min(), stamps.max()) if isinstance(end, int))
    return Parsed(rows, refused, _count_repaired(kept, columns.label), digest, rounded, times)


_CALENDAR = (-62_135_000_000, 253_402_100_000)  # seconds since 1970: the years 1 to 9999, less some days for every time zone


def _within_calendar(name: str, dtype: pl.DataType) -> pl.Expr:
    """The typed time, or the calendar's border where it lies beyond: it is out of bounds all the same, and nothing overflows."""
    column = pl.col(name)
    match dtype:
        case pl.Datetime():
            unit = {"ms": 10**3, "us": 10**6, "ns": 10**9}[dtype.time_unit]
            bounds = [max(-(2**63) + 1, min(2**63 - 1, seconds * unit)) for seconds in _CALENDAR]
        case pl.Date():
            bounds = [seconds // 86_400 for seconds in _CALENDAR]
        case _:
            return column
    return column.to_physical().clip(*bounds).cast(dtype)


def _derived(kept: pl.DataFrame, source: Source) -> pl.DataFrame:
    """The rows with the fields that are derived, unless a scorer has done so."""
    return derive_columns(source.declared, kept) if source.recorded is None else kept


def _read(chunk: pl.DataFrame, source: Source, now: datetime | None) -> tuple[pl.DataFrame, pl.DataFrame, list["_Check"]]:
    """The chunk within the calendar; what it gives (`name?`) and what that is (`name`), row by row; and what refuses a row."""
    chunk = chunk.with_columns(_within_calendar(name, dtype) for name, dtype in chunk.schema.items() if dtype.is_temporal())
    readings = {name: _reading_of(name, chunk.schema, source) for name in source.given}
    given = chunk.select(
        pl.col(LINE).alias("source_line"),
        *(reading.given.alias(f"{name}?") for name, reading in readings.items()),
    )
    # What is made of other fields, as an amount is of the payment's currency and day, comes last.
    read = given.with_columns(reading.value.alias(name) for name, reading in readings.items() if not reading.comes_last)
    read = read.with_columns(
        *(reading.value.alias(name) for name, reading in readings.items() if reading.comes_last),
        *(made.alias(name) for reading in readings.values() for name, made in reading.also.items()),
    )
    read = read.with_columns(partitions.key_expression(pl.col("timestamp"), source.cadence, source.zone).alias(PARTITION))
    checks = [
        _Check(name, condition.fill_null(False), reason)
        for name, reading in readings.items()
        for condition, reason in (*reading.checks, *_bounds(column_of(name, source), source, now))
    ]
    return chunk, read, checks


@dataclass(frozen=True)
class FieldSummary:
    """How one field came through.

    Attributes:
        name: of the field.
        parsed: rows in which it is there and sound.
        missing: rows in which it is not there.
        refused: rows that are refused on its account.
        reason: of the first of them.
        distinct: different values.
        examples: of values, masked; none of what is personal.
    """

    name: str
    parsed: int
    missing: int
    refused: int
    reason: str
    distinct: int
    examples: tuple[str, ...]


def examine(chunk: pl.DataFrame, source: Source, now: datetime | None = None) -> list[FieldSummary]:
    """How each field of a source comes through, derived ones in the rows that are kept; see `parse` for the arguments."""
    chunk, read, checks = _read(chunk, source, now)
    hidden = schema.PERSONAL | source.declared.personal
    found = []
    for name in source.given:
        own = [check for check in checks if check.column == name]
        reasons = read.select(
            pl.coalesce(*(pl.when(check.fails).then(pl.lit(check.reason)) for check in own)) if own else pl.lit(None, pl.String)
        ).to_series()
        missing, refused = read[f"{name}?"].is_null() & reasons.is_null(), reasons.is_not_null()
        values = read[name].filter(~missing & ~refused)
        given = read[f"{name}?"].filter(~missing & ~refused)
        first = next((text for text in reasons.to_list() if text is not None), "") if refused.any() else ""
        told = () if name in hidden else _examples(given)
        found.append(FieldSummary(name, len(values), int(missing.sum()), int(refused.sum()), first, values.n_unique(), told))
    bad = read.select(pl.any_horizontal(check.fails for check in checks)).to_series()
    kept = _derived(read.filter(~bad), source)
    for name in source.declared.derived if source.recorded is None else ():
        values = kept[name].drop_nulls()
        found.append(FieldSummary(name, len(values), len(kept) - len(values), 0, "", values.n_unique(), _examples(values)))
    return found


def _examples(values: pl.Series) -> tuple[str, ...]:
    """Shapes of values, of which there are several."""
    texts = values.head(1_000).cast(pl.String).to_frame("text").select(masked(pl.col("text"))).to_series()
    return tuple(texts.unique(maintain_order=True).head(3).to_list())


def _reading_of(name: str, chunk: pl.Schema, source: Source) -> Reading:
    """How a field that a source's files bring is read from a chunk of such types."""
    column, declared = column_of(name, source), source.reading(name)
    said = source.declared.own.get(name) or source.declared.overridden(name)
    if source.recorded is not None and name in source.declared.own:
        is_name = name in source.declared.given and column.parser in {"text", "id"}
        return READINGS[column.parser](column, declared, chunk, source) if is_name else recorded(column)
    if column.parser == "flag" and said is not None:
        assert isinstance(declared, TextColumn)
        reading = flag(column, declared, chunk, said.flag_texts)
    elif isinstance(declared, AmountColumn):
        reading = amount(declared, chunk, source)
    else:
        reading = READINGS[column.parser](column, declared, chunk, source)
    return reading if said is None else with_declared(reading, name, declared.names[0], chunk, said)


@dataclass(frozen=True)
class _Check:
    """A condition that refuses rows, on account of a column."""

    column: str
    fails: pl.Expr
    reason: str


def _bounds(column: Column, source: Source, now: datetime | None) -> tuple[tuple[pl.Expr, str], ...]:
    value = pl.col(column.name)
    match column.name:
        case "timestamp":
            ahead = pl.lit(False) if now is None else value > now + AHEAD
            key = pl.col(PARTITION)
            outside = key < source.first if source.is_open else ~key.is_between(pl.lit(source.first), pl.lit(source.last))
            last = "on" if source.last == OPEN else f"to {source.last}"
            return (
                (outside, f"lies outside the source's partitions, from {source.first} {last}"),
                (ahead, f"lies more than {AHEAD.seconds // 60} minutes ahead of the moment of landing"),
            )
        case "birth_date":
            day = pl.col("timestamp").dt.convert_time_zone(source.timezone).dt.date()
            return (((value < EARLIEST_BIRTH) | (value > day), "lies before 1900 or after the transaction"),)
        case _:
            return _outside(column, value)


def _outside(column: Column, value: pl.Expr) -> tuple[tuple[pl.Expr, str], ...]:
    unit = " cents" if column.parser == "money" else ""
    lowest, highest = column.lowest, column.highest
    outside = [] if lowest is None else [value < lowest]
    outside += [] if highest is None else [value > highest]
    return ((pl.any_horizontal(outside), schema.out_of_bounds(lowest, highest, unit)),) if outside else ()


# --- refused rows --------------------------------------------------------------------------------------------------------------


def masked(text: pl.Expr) -> pl.Expr:
    """The shape of a value: digits become 9, letters x; 40 characters at most."""
    return text.str.slice(0, 40).str.replace_all(r"\p{L}", "x").str.replace_all(r"\p{N}", "9")


def _refused(chunk: pl.DataFrame, read: pl.DataFrame, checks: Sequence[_Check], source: Source, file: str) -> pl.DataFrame:
    """One record a refused row: its first problem, in canonical order."""
    columns = {**schema.QUARANTINE_SCHEMA, PARTITION: pl.String()}
    if read.is_empty():  # nearly always, and what follows is not cheap
        return pl.DataFrame(schema=columns)
    texts = chunk.select(pl.col(source.reading(name).names[0]).cast(pl.String).alias(f"{name}!") for name in source.given)
    hidden = schema.PERSONAL | source.declared.personal

    def value(check: _Check) -> pl.Expr:
        if check.column in hidden:
            return pl.lit("(hidden)")
        shape = masked(pl.col(f"{check.column}!").str.strip_chars())
        return pl.when(shape != "").then(shape).otherwise(pl.lit("(empty)"))

    def first_problem(tell: Callable[[_Check], pl.Expr]) -> pl.Expr:
        return pl.coalesce(*[pl.when(check.fails).then(tell(check)) for check in checks])

    has_time = ~pl.any_horizontal(check.fails for check in checks if check.column == "timestamp")
    return (
        read.hstack(texts)
        .select(
            pl.lit(file).alias("source_file"),
            "source_line",
            first_problem(lambda check: pl.lit(check.column)).alias("column"),
            first_problem(lambda check: pl.lit(check.reason)).alias("reason"),
            first_problem(value).alias("value"),
            pl.when(has_time).then(pl.col(PARTITION)).alias(PARTITION),
        )
        .cast(columns)  # type: ignore[arg-type]
    )


def _count_repaired(kept: pl.DataFrame, declared: LabelColumn | None) -> int:
    """How many of the kept labels, as given, needed the source's rule."""
    if declared is None:
        return 0
    return int((~kept["label?"].is_in([declared.fraud, declared.legitimate])).sum())


# --- cards ---------------------------------------------------------------------------------------------------------------------


def _keyed(rows: pl.DataFrame, source: Source, card_key: Key) -> pl.DataFrame:
    """Make ids where the source has none, take the split bucket, and replace card identities by their keyed hash."""
    if source.columns.transaction_id is None:
        own = source.declared
        made = [c for c in (*source.raw_columns, *(n for n in own.given if n in own.column_names)) if c != "label"]
        contents = rows.select(
            pl.concat_str([pl.col(c).cast(pl.String).fill_null("") for c in made], separator=SEPARATOR)
        ).to_series()
        ids = [card_key.digest(b"transaction\x00" + content.encode()).hex()[:32] for content in contents.to_list()]
        rows = rows.with_columns(pl.Series("transaction_id", ids, dtype=pl.String))
    secret = [column.name for column in source.declared.columns if column.personal and source.recorded is None]
    rows = rows.with_columns(_by_value(rows[name], lambda text: hashed_card(text, card_key)) for name in secret)
    card = source.columns.card
    if card is None:
        return rows
    identities = rows["card"]
    return rows.with_columns(
        # Where cards come hashed the split bucket, too, is one of this key.
        identities if card.hashed else _by_value(identities, lambda text: hashed_card(text, card_key)),
        _by_value(identities, split_bucket, pl.Int16()).alias("split_bucket"),
    )


def _by_value(texts: pl.Series, function: Callable[[str], object], dtype: pl.DataType = pl.String()) -> pl.Series:  # noqa: B008
    """What a function makes of each text of a column, asked once for each of its different values; null of null."""
    different = texts.unique().drop_nulls()
    made = pl.Series([function(text) for text in different.to_list()], dtype=dtype)
    return texts.replace_strict(different, made, default=None, return_dtype=dtype)


def split_bucket(identity: str) -> int:
    """Bucket of a cardholder, 0 to `SPLIT_BUCKETS` - 1, the same under every key."""
    return int.from_bytes(hashlib.sha256(b"split\x00" + identity.encode()).digest()[:8], "big") % schema.SPLIT_BUCKETS

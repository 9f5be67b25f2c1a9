"""Parse a source's own columns into canonical rows, by the declared formats. A row that does not fit is refused, with a reason.

Card numbers leave this module only as keyed hashes. What must not depend on the key (the split bucket and the content digest)
is taken before.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from fraud_core.fields import schema
from fraud_core.fields.schema import Column
from fraud_core.intake.files import LINE, LONGEST_CELL
from fraud_core.signing.card_numbers import hashed_card, holding_card_numbers
from fraud_core.signing.keys import Key
from fraud_core.sources import partitions
from fraud_core.sources.source import OPEN, CardColumn, LabelColumn, Source, TextColumn, TimeColumn, is_instant
from fraud_core.transactions.transaction import AHEAD
from fraud_core.units.canonical_number import NO_AMOUNT, cents, numbers, wholes, with_points
from fraud_core.units.canonical_text import LOST_DIGITS, canonical_texts, have_lost_digits

VERSION = "parse 3"  # raised whenever the rules below change: files are then read anew

SEPARATOR = "\x1f"  # between the parts of an identity
PARTITION = "partition"
EARLIEST_BIRTH = pl.date(1900, 1, 1)


@dataclass(frozen=True)
class Parsed:
    """A parsed chunk.

    Attributes:
        rows: canonical rows with provenance and `PARTITION`.
        refused: quarantined rows with `PARTITION` (null where the row has no usable time).
        repaired: how many labels were repaired by the source's rule.
        digest: a function of a partition key: SHA-256 over its canonical rows before keying.
    """

    rows: pl.DataFrame
    refused: pl.DataFrame
    repaired: int
    digest: Callable[[str], bytes]


def parse(chunk: pl.DataFrame, file: str, source: Source, card_key: Key, now: datetime | None = None) -> Parsed:
    """Parse a chunk of a file.

    Args:
        chunk: the source's wanted columns (text, or typed where Parquet types them) and `LINE`.
        file: what the rows' `source_file` will say.
        source: how.
        card_key: key of the card hashes, and of transaction ids that are made from content.
        now: the moment of landing: rows that lie further ahead of it than a scorer takes are refused. None: any time is taken.
    """
    columns = source.columns
    chunk = chunk.with_columns(_within_calendar(name, dtype) for name, dtype in chunk.schema.items() if dtype.is_temporal())
    readings: dict[str, _Reading] = {}
    for name in columns.canonical:
        declared, column = source.columns.declared(name), schema.BY_NAME[name]
        readings[name] = _READINGS[column.parser](column, declared, chunk.schema, source)
    given = chunk.select(pl.col(LINE).alias("source_line"), *[r.given.alias(f"{name}?") for name, r in readings.items()])
    read = given.with_columns(reading.value.alias(name) for name, reading in readings.items())
    read = read.with_columns(partitions.key_expression(pl.col("timestamp"), source.cadence, source.zone).alias(PARTITION))
    checks = [
        _Check(name, condition.fill_null(False), reason)
        for name, reading in readings.items()
        for condition, reason in (*reading.checks, *_bounds(schema.BY_NAME[name], source, now))
    ]
    bad = read.select(pl.any_horizontal(check.fails for check in checks)).to_series()
    kept = read.filter(~bad)
    unkeyed = kept.select(*columns.canonical, pl.lit(file).alias("source_file"), "source_line", PARTITION)

    def digest(partition: str) -> bytes:
        text = unkeyed.filter(pl.col(PARTITION) == partition).select(columns.canonical).write_csv()
        return hashlib.sha256(text.encode()).digest()

    rows = _keyed(unkeyed, source, card_key).select(*schema.raw_schema(columns.canonical), PARTITION)
    refused = _refused(chunk.filter(bad), read.filter(bad), checks, source, file)
    return Parsed(rows, refused, _count_repaired(kept, columns.label), digest)


# --- one reading a kind of column ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reading:
    """How a canonical column is read, whole columns at a time.

    Attributes:
        given: what the source gives, from the chunk's own columns; it becomes `name?`.
        value: the canonical value, from `name?`; it becomes `name`.
        checks: conditions on the two that refuse a row, each with the reason; the first that holds is told.
    """

    given: pl.Expr
    value: pl.Expr
    checks: tuple[tuple[pl.Expr, str], ...] = ()


@dataclass(frozen=True)
class _Check:
    """A condition that refuses rows, on account of a column."""

    column: str
    fails: pl.Expr
    reason: str


def _as_text(name: str, chunk: pl.Schema) -> pl.Expr:
    """The column as stripped text, with empty text and what is no number as null; whole floats without their '.0'."""
    column, dtype = pl.col(name), chunk[name]
    if dtype.is_float():
        whole = column.cast(pl.Int64, strict=False).cast(pl.String)
        text = (
            pl.when(column == column.round()).then(pl.coalesce(whole, column.cast(pl.String))).otherwise(column.cast(pl.String))
        )
        return pl.when(column.is_not_nan()).then(text)
    if dtype == pl.Boolean:
        return column.cast(pl.Int8).cast(pl.String)
    if dtype.is_integer():
        return column.cast(pl.String)
    stripped = column.cast(pl.String).str.strip_chars()
    return pl.when(stripped != "").then(stripped)


def _text(column: Column, declared: TextColumn, chunk: pl.Schema, source: Source) -> _Reading:
    text = canonical_texts(declared.column, chunk[declared.column])
    if declared.strip:
        text = text.str.strip_chars(declared.strip)
        text = pl.when(text != "").then(text)
    assert column.longest is not None
    text = text.str.slice(0, column.longest + 1)  # so that nothing is looked for in what is too long to be a name
    value = pl.col(f"{column.name}?")
    if chunk[declared.column].is_temporal():
        return _Reading(text, value, ((value.is_not_null(), NO_NAME),))
    is_id = column.name == "transaction_id"
    # What looks like a card number was shifted here from another column, or is an id of another kind, and declared as one.
    holds_card = holding_card_numbers(value, alone=is_id)
    if declared.digits:
        holds_card &= ~(value.str.contains("^[0-9]+$") & value.str.len_bytes().is_in(declared.digits))
    checks = (*_wrong_text(column, value, _CONTROL), (holds_card, "holds what looks like a card number"))
    # An id that the source declares must be there; merchant and category may be missing.
    return _Reading(text, value, ((value.is_null(), "is missing"), *checks) if is_id else checks)


NO_NAME = "is a day or a time, which names nothing; store the column as text"
_CONTROL = r"[\x00-\x1f\x7f-\x9f]"
_CONTROL_BUT_SEPARATOR = r"[\x00-\x1e\x7f-\x9f]"


def _wrong_text(column: Column, value: pl.Expr, control: str) -> tuple[tuple[pl.Expr, str], ...]:
    """What no name is, here as over HTTP."""
    return (
        (value.str.len_chars() > column.longest, f"is longer than {column.longest} characters"),
        (value.str.contains(control), "holds control characters"),
        (have_lost_digits(value), LOST_DIGITS),
    )


def _timestamp(column: Column, declared: TimeColumn, chunk: pl.Schema, source: Source) -> _Reading:
    dtype, given, value = chunk[declared.column], pl.col(f"{column.name}?"), pl.col(column.name)
    missing = (given.is_null(), "is missing")
    skipped = (value.is_null(), f"does not exist in {source.timezone} (clocks were put forward)")
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        instant = pl.col(declared.column).dt.convert_time_zone("UTC").cast(schema.UTC_MICROSECONDS)
        return _Reading(instant, given, (missing,))
    if dtype.is_temporal():
        local = pl.col(declared.column).cast(pl.Datetime("us"))
        return _Reading(local, _in_zone(given, source.timezone), (missing, skipped))
    # Times hardly repeat, so Polars' cache of parsed text costs more than it saves.
    parsed = [given.str.to_datetime(f, time_unit="us", strict=False, cache=False) for f in declared.formats]
    utc = [
        read.dt.replace_time_zone("UTC") if is_instant(f) else _in_zone(read, source.timezone)
        for f, read in zip(declared.formats, parsed, strict=True)
    ]
    checks = (missing, (_none_of(parsed), _unlike(declared)), *_ambiguous(utc), skipped)
    return _Reading(_as_text(declared.column, chunk), _first_of(utc, schema.UTC_MICROSECONDS), checks)


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


def _in_zone(local: pl.Expr, zone: str) -> pl.Expr:
    """Local times as UTC: the first of two where clocks were put back, null where they were put forward."""
    return local.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")


def _date(column: Column, declared: TimeColumn, chunk: pl.Schema, source: Source) -> _Reading:
    dtype, given, value = chunk[declared.column], pl.col(f"{column.name}?"), pl.col(column.name)
    if dtype.is_temporal():
        return _Reading(pl.col(declared.column), given.cast(pl.Date) if dtype == pl.Date else given.dt.date())
    parsed = [given.str.to_date(f, strict=False) for f in declared.formats]
    checks = ((given.is_not_null() & value.is_null(), _unlike(declared)), *_ambiguous(parsed))
    return _Reading(_as_text(declared.column, chunk), _first_of(parsed, pl.Date()), checks)


def _first_of(readings: Sequence[pl.Expr], dtype: pl.DataType) -> pl.Expr:
    return pl.coalesce(*readings) if readings else pl.lit(None, dtype=dtype)


def _none_of(readings: Sequence[pl.Expr]) -> pl.Expr:
    return pl.all_horizontal(reading.is_null() for reading in readings) if readings else pl.lit(True)


def _unlike(declared: TimeColumn) -> str:
    return f"does not have the declared format ({' or '.join(declared.formats) or 'none declared'})"


def _ambiguous(readings: Sequence[pl.Expr]) -> tuple[tuple[pl.Expr, str], ...]:
    """A value that two declared formats read differently, such as 04-01-2019, is not guessed at."""
    if len(readings) < 2:
        return ()
    return ((pl.min_horizontal(*readings) != pl.max_horizontal(*readings), "means different times by the declared formats"),)


def _reads_numbers(
    read: Callable[[pl.Expr, pl.DataType], pl.Expr], reason: str, *, required: bool = False
) -> Callable[..., _Reading]:
    """How a column of numbers is read: by a rule of `canonical_number`; what it makes nothing of is refused for this reason."""

    def reading(column: Column, declared: TextColumn, chunk: pl.Schema, source: Source) -> _Reading:
        given, dtype = _numeric(declared, chunk, source)
        told = pl.col(f"{column.name}?")
        missing = ((told.is_null(), "is missing"),) if required else ()
        return _Reading(given, read(told, dtype), (*missing, (told.is_not_null() & pl.col(column.name).is_null(), reason)))

    return reading


def _numeric(declared: TextColumn, chunk: pl.Schema, source: Source) -> tuple[pl.Expr, pl.DataType]:
    """A column of numbers and its type: typed as it stands, or text as numbers are written everywhere else."""
    dtype = chunk[declared.column]
    if dtype not in _TEXTS:
        return pl.col(declared.column), dtype
    text = _as_text(declared.column, chunk)
    text = text.str.strip_chars(declared.strip) if declared.strip else text
    return with_points(text, source.decimal, source.thousands), pl.String()


_TEXTS = (pl.String, pl.Categorical, pl.Enum, pl.Null)


_BOOLEAN = {"true": "1", "false": "0"}


def _label(column: Column, declared: LabelColumn, chunk: pl.Schema, source: Source) -> _Reading:
    given, value = pl.col(f"{column.name}?"), pl.col(column.name)
    meaning = {declared.fraud: True, declared.legitimate: False}
    if chunk[declared.column] == pl.Boolean:  # read as 1 and 0, however their names were written
        meaning = {_BOOLEAN.get(text.lower(), text): outcome for text, outcome in meaning.items()}
    read = given.replace_strict(meaning, default=None, return_dtype=pl.Boolean)
    if declared.repair:
        repaired = given.str.extract(declared.repair, 1).replace_strict(meaning, default=None, return_dtype=pl.Boolean)
        read = pl.coalesce(read, repaired)
    # Without a label a payment waits until somebody says what became of it, or until nobody has disputed it for long enough.
    wrong = given.is_not_null() & value.is_null()
    expected = f"is neither '{declared.fraud}' nor '{declared.legitimate}'"
    return _Reading(_as_text(declared.column, chunk), read, ((wrong, expected),))


def _card(column: Column, declared: CardColumn, chunk: pl.Schema, source: Source) -> _Reading:
    parts = [canonical_texts(name, chunk[name]) for name in declared.columns]
    identity = pl.concat_str(parts, separator=SEPARATOR)  # null where any part is
    value = pl.col(f"{column.name}?")
    missing = (value.is_null(), "is missing")
    if any(chunk[name].is_temporal() for name in declared.columns):
        return _Reading(identity, value, (missing, (value.is_not_null(), NO_NAME)))
    if declared.hashed:
        return _Reading(identity, value, (missing, (~value.str.contains(r"^[0-9a-f]{32}$"), "is not a keyed hash of a card")))
    if len(parts) == 1:
        return _Reading(identity, value, (missing, *_wrong_text(column, value, _CONTROL)))
    long = value.str.len_chars() > LONGEST_CELL
    lost = have_lost_digits(value, SEPARATOR)
    return _Reading(
        identity,
        value,
        (
            missing,
            (long, f"is longer than {LONGEST_CELL} characters"),
            (value.str.contains(_CONTROL_BUT_SEPARATOR), "holds control characters"),
            (lost, LOST_DIGITS),
        ),
    )


_READINGS: dict[str, Callable[..., _Reading]] = {
    "text": _text,
    "timestamp": _timestamp,
    "date": _date,
    "money": _reads_numbers(cents, NO_AMOUNT, required=True),
    "label": _label,
    "number": _reads_numbers(numbers, "is not a finite number"),
    "count": _reads_numbers(wholes, "is not a whole number"),
    "card": _card,
}


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
        case _ if column.lowest is not None:
            unit = " cents" if column.parser == "money" else ""
            reason = f"is out of bounds ({column.lowest:g} to {column.highest:g}{unit})"
            return (((value < column.lowest) | (value > column.highest), reason),)
        case _:
            return ()


# --- refused rows --------------------------------------------------------------------------------------------------------------


def masked(text: pl.Expr) -> pl.Expr:
    """The shape of a value: digits become 9, letters x; 40 characters at most."""
    return text.str.slice(0, 40).str.replace_all(r"\p{L}", "x").str.replace_all(r"\p{N}", "9")


def _refused(chunk: pl.DataFrame, read: pl.DataFrame, checks: Sequence[_Check], source: Source, file: str) -> pl.DataFrame:
    """One record a refused row: its first problem, in canonical order."""
    columns = {**schema.QUARANTINE_SCHEMA, PARTITION: pl.String()}
    if read.is_empty():  # nearly always, and what follows is not cheap
        return pl.DataFrame(schema=columns)
    texts = chunk.select(pl.col(_shown(name, source)).cast(pl.String).alias(f"{name}!") for name in source.columns.canonical)

    def value(check: _Check) -> pl.Expr:
        if check.column in schema.PERSONAL:
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


def _shown(name: str, source: Source) -> str:
    """The source's column whose shape is shown for a canonical one."""
    declared = source.columns.declared(name)
    return declared.columns[0] if isinstance(declared, CardColumn) else declared.column


def _count_repaired(kept: pl.DataFrame, declared: LabelColumn | None) -> int:
    """How many of the kept labels, as given, needed the source's rule."""
    if declared is None:
        return 0
    return int((~kept["label?"].is_in([declared.fraud, declared.legitimate])).sum())


# --- cards ---------------------------------------------------------------------------------------------------------------------


def _keyed(rows: pl.DataFrame, source: Source, card_key: Key) -> pl.DataFrame:
    """Make ids where the source has none, take the split bucket, and replace card identities by their keyed hash."""
    if source.columns.transaction_id is None:
        made = [c for c in source.columns.canonical if c != "label"]
        contents = rows.select(
            pl.concat_str([pl.col(c).cast(pl.String).fill_null("") for c in made], separator=SEPARATOR)
        ).to_series()
        ids = [card_key.digest(b"transaction\x00" + content.encode()).hex()[:32] for content in contents.to_list()]
        rows = rows.with_columns(pl.Series("transaction_id", ids, dtype=pl.String))
    if source.columns.card is None:
        return rows
    is_hashed = source.columns.card.hashed  # then the split bucket, too, is one of this key
    identities = rows["card"].unique().to_list()
    table = pl.DataFrame(
        {
            "card": pl.Series(identities, dtype=pl.String),
            "hashed": pl.Series(
                identities if is_hashed else [hashed_card(identity, card_key) for identity in identities], dtype=pl.String
            ),
            "split_bucket": pl.Series([split_bucket(identity) for identity in identities], dtype=pl.Int16),
        }
    )
    joined = rows.join(table, on="card", how="left", maintain_order="left")
    return joined.with_columns(pl.col("hashed").alias("card")).drop("hashed")


def split_bucket(identity: str) -> int:
    """Bucket of a cardholder, 0 to `SPLIT_BUCKETS` - 1, the same under every key."""
    return int.from_bytes(hashlib.sha256(b"split\x00" + identity.encode()).digest()[:8], "big") % schema.SPLIT_BUCKETS

"""From the source's own columns to canonical rows, by the declared formats. A row that does not fit is refused, with a reason.

Card numbers leave this module only as keyed hashes. What must not depend on the key (the split bucket and the content digest)
is taken before.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from fraud_core import partitions, schema
from fraud_core.intake.files import LINE
from fraud_core.keys import Key
from fraud_core.schema import Column
from fraud_core.sources import OPEN, CardColumn, LabelColumn, Source, TextColumn, TimeColumn

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


def parse(chunk: pl.DataFrame, file: str, source: Source, card_key: Key) -> Parsed:
    """Parse a chunk of a file.

    Args:
        chunk: the source's wanted columns (text, or typed where Parquet types them) and `LINE`.
        file: what the rows' `source_file` will say.
        source: how.
        card_key: key of the card hashes, and of transaction ids that are made from content.
    """
    columns = source.columns
    values: dict[str, pl.Expr] = {}
    problems: dict[str, pl.Expr] = {}
    originals: dict[str, str] = {}
    for name in columns.canonical:
        column = schema.BY_NAME[name]
        declared = getattr(columns, "amount" if name == "amount_cents" else name)
        originals[name] = declared.columns[0] if isinstance(declared, CardColumn) else declared.column
        values[name], problems[name] = _PARSERS[column.parser](column, declared, chunk.schema, source)
    first = chunk.select(
        pl.col(LINE).alias("source_line"),
        *[value.alias(name) for name, value in values.items()],
        *[problem.alias(f"{name}!") for name, problem in problems.items()],
    )
    first = first.with_columns(partitions.key_expression(pl.col("timestamp"), source.cadence, source.zone).alias(PARTITION))
    bounded = first.with_columns(
        pl.coalesce(pl.col(f"{name}!"), _bound_problem(schema.BY_NAME[name], source)).alias(f"{name}!") for name in values
    )
    problem_names = [f"{name}!" for name in values]
    is_refused = pl.any_horizontal(pl.col(problem_names).is_not_null())
    refused = _refused(chunk, bounded.filter(is_refused), originals, file)
    rows = bounded.filter(~is_refused).drop(problem_names).with_columns(pl.lit(file).alias("source_file"))
    repaired = _count_repaired(chunk, columns.label, bounded, is_refused)
    unkeyed = rows
    rows = _keyed(rows, source, card_key)

    def digest(partition: str) -> bytes:
        text = unkeyed.filter(pl.col(PARTITION) == partition).select(columns.canonical).write_csv()
        return hashlib.sha256(text.encode()).digest()

    wanted = [*schema.raw_schema(columns.canonical), PARTITION]
    return Parsed(rows.select(wanted), refused, repaired, digest)


# --- one parser a kind of column: (value, problem) expressions -----------------------------------------------------------------

Pair = tuple[pl.Expr, pl.Expr]
_NO_PROBLEM = pl.lit(None, dtype=pl.String)


def _problem(*cases: tuple[pl.Expr, str]) -> pl.Expr:
    """The first reason whose condition holds, null where none does."""
    return pl.coalesce(*[pl.when(condition).then(pl.lit(reason)) for condition, reason in cases], _NO_PROBLEM)


def _as_text(name: str, chunk: pl.Schema) -> pl.Expr:
    """The column as stripped text, with empty text as null; whole floats without their '.0'."""
    column = pl.col(name)
    if chunk[name].is_float():
        column = (
            pl.when(column == column.round())
            .then(column.cast(pl.Int64, strict=False).cast(pl.String))
            .otherwise(column.cast(pl.String))
        )
    elif chunk[name] == pl.Boolean:
        column = column.cast(pl.Int8).cast(pl.String)
    elif chunk[name] != pl.String:
        column = column.cast(pl.String)
    stripped = column.str.strip_chars()
    return pl.when(stripped != "").then(stripped)


def _text(column: Column, declared: TextColumn, chunk: pl.Schema, source: Source) -> Pair:
    text = _as_text(declared.column, chunk)
    if declared.strip:
        text = text.str.strip_chars(declared.strip)
    # An id that the source declares must be there; merchant and category may be missing.
    missing = (text.is_null(), "is missing")
    return text, _problem(missing) if column.name == "transaction_id" else _NO_PROBLEM


def _timestamp(column: Column, declared: TimeColumn, chunk: pl.Schema, source: Source) -> Pair:
    dtype = chunk[declared.column]
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        value = pl.col(declared.column).dt.convert_time_zone("UTC").cast(schema.UTC_MICROSECONDS)
        return value, _problem((value.is_null(), "is missing"))
    if isinstance(dtype, pl.Datetime):
        text, local = pl.col(declared.column), pl.col(declared.column).cast(pl.Datetime("us"))
    else:
        text = _as_text(declared.column, chunk)
        parsed = [text.str.to_datetime(f, time_unit="us", strict=False) for f in declared.formats]
        local = pl.coalesce(*parsed) if parsed else pl.lit(None, dtype=pl.Datetime("us"))
    utc = local.dt.replace_time_zone(source.timezone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")
    formats = " or ".join(declared.formats) or "none declared"
    return utc, _problem(
        (text.is_null(), "is missing"),
        (local.is_null(), f"does not have the declared format ({formats})"),
        (utc.is_null(), f"does not exist in {source.timezone} (clocks were put forward)"),
    )


def _date(column: Column, declared: TimeColumn, chunk: pl.Schema, source: Source) -> Pair:
    dtype = chunk[declared.column]
    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        return pl.col(declared.column).cast(pl.Date), _NO_PROBLEM
    text = _as_text(declared.column, chunk)
    parsed = [text.str.to_date(f, strict=False) for f in declared.formats]
    value = pl.coalesce(*parsed) if parsed else pl.lit(None, dtype=pl.Date)
    formats = " or ".join(declared.formats) or "none declared"
    return value, _problem((text.is_not_null() & value.is_null(), f"does not have the declared format ({formats})"))


def _money(column: Column, declared: TextColumn, chunk: pl.Schema, source: Source) -> Pair:
    """Cents, exactly: from text digit by digit; a binary float must lie within a millionth of a cent of one."""
    name = declared.column
    if chunk[name].is_float():
        hundredfold = pl.col(name) * 100.0
        whole = (
            hundredfold.is_finite()
            & (hundredfold.abs() < 1e15)
            & ((hundredfold - hundredfold.round()).abs() < 1e-6 * (1 + hundredfold.abs() * 1e-7))
        )
        value = pl.when(whole).then(hundredfold.round().cast(pl.Int64, strict=False))
        text = pl.col(name).cast(pl.String)
    else:
        text = _as_text(name, chunk)
        text = text.str.strip_chars(declared.strip) if declared.strip else text
        parts = text.str.extract_groups(r"^([+-]?)(\d{1,15})(?:\.(\d{1,2})0*)?$")
        cents = parts.struct["2"].cast(pl.Int64, strict=False) * 100 + parts.struct["3"].fill_null("0").str.pad_end(2, "0").cast(
            pl.Int64, strict=False
        )
        value = pl.when(parts.struct["1"] == "-").then(-cents).otherwise(cents)
    return value, _problem((text.is_null(), "is missing"), (value.is_null(), "is not an amount with at most two decimals"))


def _label(column: Column, declared: LabelColumn, chunk: pl.Schema, source: Source) -> Pair:
    text = _as_text(declared.column, chunk)
    clean = pl.when(text.is_in([declared.fraud, declared.legitimate])).then(text)
    if declared.repair:
        clean = pl.coalesce(clean, text.str.extract(declared.repair, 1))
    value = pl.when(clean == declared.fraud).then(True).when(clean == declared.legitimate).then(False)
    expected = f"is neither '{declared.fraud}' nor '{declared.legitimate}'"
    return value, _problem((text.is_null(), "is missing"), (value.is_null(), expected))


def _number(column: Column, declared: TextColumn, chunk: pl.Schema, source: Source) -> Pair:
    text = _as_text(declared.column, chunk)
    value = (text if chunk[declared.column] == pl.String else pl.col(declared.column)).cast(pl.Float64, strict=False)
    bad = text.is_not_null() & (value.is_null() | ~value.is_finite())
    return value, _problem((bad, "is not a finite number"))


def _count(column: Column, declared: TextColumn, chunk: pl.Schema, source: Source) -> Pair:
    text = _as_text(declared.column, chunk)
    value = text.cast(pl.Int64, strict=False)
    return value, _problem((text.is_not_null() & value.is_null(), "is not a whole number"))


def _card(column: Column, declared: CardColumn, chunk: pl.Schema, source: Source) -> Pair:
    parts = [_as_text(name, chunk) for name in declared.columns]
    identity = pl.concat_str(parts, separator=SEPARATOR)  # null where any part is
    return identity, _problem((identity.is_null(), "is missing"))


_PARSERS: dict[str, Callable[..., Pair]] = {
    "text": _text,
    "timestamp": _timestamp,
    "date": _date,
    "money": _money,
    "label": _label,
    "number": _number,
    "count": _count,
    "card": _card,
}


def _bound_problem(column: Column, source: Source) -> pl.Expr:
    value = pl.col(column.name)
    match column.name:
        case "timestamp":
            key = pl.col(PARTITION)
            inside = (key >= source.first) & (True if source.is_open else key <= source.last)
            last = "on" if source.last == OPEN else f"to {source.last}"
            return _problem((~inside, f"lies outside the source's partitions, from {source.first} {last}"))
        case "birth_date":
            day = pl.col("timestamp").dt.convert_time_zone(source.timezone).dt.date()
            return _problem(((value < EARLIEST_BIRTH) | (value > day), "lies before 1900 or after the transaction"))
        case _ if column.lowest is not None:
            unit = " cents" if column.parser == "money" else ""
            reason = f"is out of bounds ({column.lowest:g} to {column.highest:g}{unit})"
            return _problem(((value < column.lowest) | (value > column.highest), reason))
        case _:
            return _NO_PROBLEM


# --- refused rows --------------------------------------------------------------------------------------------------------------


def masked(text: pl.Expr) -> pl.Expr:
    """The shape of a value: digits become 9, letters x; 40 characters at most."""
    return text.str.replace_all(r"\p{L}", "x").str.replace_all(r"\p{N}", "9").str.slice(0, 40)


def _refused(chunk: pl.DataFrame, rows: pl.DataFrame, originals: dict[str, str], file: str) -> pl.DataFrame:
    """One record a refused row: its first problem in canonical order."""
    texts = chunk.select(
        pl.col(LINE).alias("source_line"), *[pl.col(c).cast(pl.String).alias(f"{n}?") for n, c in originals.items()]
    )
    joined = rows.join(texts, on="source_line", how="left", maintain_order="left")
    column = pl.coalesce(*[pl.when(pl.col(f"{name}!").is_not_null()).then(pl.lit(name)) for name in originals])
    value = pl.coalesce(
        *[
            pl.when(pl.col(f"{name}!").is_not_null()).then(
                pl.lit("(hidden)") if name in schema.PERSONAL else masked(pl.col(f"{name}?")).fill_null("(empty)")
            )
            for name in originals
        ]
    )
    usable_time = pl.col("timestamp!").is_null()
    return joined.select(
        pl.lit(file).alias("source_file"),
        "source_line",
        column.alias("column"),
        pl.coalesce(*[pl.col(f"{name}!") for name in originals]).alias("reason"),
        value.alias("value"),
        pl.when(usable_time).then(pl.col(PARTITION)).alias(PARTITION),
    )


def _count_repaired(chunk: pl.DataFrame, declared: LabelColumn, parsed: pl.DataFrame, is_refused: pl.Expr) -> int:
    if not declared.repair:
        return 0
    kept = ~parsed.select(is_refused).to_series()
    text = _as_text(declared.column, chunk.schema)
    odd = chunk.select(~text.is_in([declared.fraud, declared.legitimate])).to_series().fill_null(False)
    return int((kept & odd).sum())


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
    identities = rows["card"].unique().to_list()
    table = pl.DataFrame(
        {
            "card": pl.Series(identities, dtype=pl.String),
            "hashed": pl.Series([hashed_card(identity, card_key) for identity in identities], dtype=pl.String),
            "split_bucket": pl.Series([split_bucket(identity) for identity in identities], dtype=pl.Int16),
        }
    )
    joined = rows.join(table, on="card", how="left", maintain_order="left")
    return joined.with_columns(pl.col("hashed").alias("card")).drop("hashed")


def hashed_card(identity: str, card_key: Key) -> str:
    """The keyed hash that stands for a card everywhere: 32 hex digits of HMAC-SHA256."""
    return card_key.digest(b"card\x00" + identity.encode()).hex()[:32]


def split_bucket(identity: str) -> int:
    """Bucket of a cardholder, 0 to `SPLIT_BUCKETS` - 1, the same under every key."""
    return int.from_bytes(hashlib.sha256(b"split\x00" + identity.encode()).digest()[:8], "big") % schema.SPLIT_BUCKETS

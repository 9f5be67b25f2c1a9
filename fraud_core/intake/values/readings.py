"""How each kind of value is read from a column: text, times, amounts, numbers, flags, labels, cards; whole columns at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC

import polars as pl

from fraud_core.fields import schema
from fraud_core.fields.declaration import FieldDeclaration
from fraud_core.fields.schema import Column
from fraud_core.intake.files import LONGEST_CELL
from fraud_core.signing.card_numbers import holding_card_numbers
from fraud_core.sources.columns import CardColumn, LabelColumn, TextColumn, TimeColumn, is_instant
from fraud_core.sources.source import Source
from fraud_core.units.canonical_number import numbers, wholes, with_points
from fraud_core.units.canonical_text import LOST_DIGITS, canonical_text, canonical_texts, have_lost_digits

SEPARATOR = "\x1f"  # between the parts of an identity
_HASH = r"^[0-9a-f]{32}$"


@dataclass(frozen=True)
class Reading:
    """How a canonical column is read, whole columns at a time.

    Attributes:
        given: what the source gives, from the chunk's own columns; it becomes `name?`.
        value: the canonical value, from `name?`; it becomes `name`.
        checks: conditions on the two that refuse a row, each with the reason; the first that holds is told.
        also: further columns that are made of `name?`, by their names.
        comes_last: whether `value` is made of other fields, too, and so after them.
    """

    given: pl.Expr
    value: pl.Expr
    checks: tuple[tuple[pl.Expr, str], ...] = ()
    also: Mapping[str, pl.Expr] = field(default_factory=dict)
    comes_last: bool = False


def column_of(name: str, source: Source) -> Column:
    """The canonical column of a field that a source's files bring, with the bounds that the source declares."""
    declared = source.declared
    if name in declared.own:
        own = declared.own[name]
        if source.recorded is not None:
            return replace(schema.own_column(name, own), lowest=None, highest=None)
        if own.is_kept:
            return schema.own_column(name, own)
        return replace(schema.own_column(name, own.model_copy(update={"personal": False})), personal=True)
    column, other = schema.BY_NAME[name], declared.overridden(name)
    if column.parser == "money" and source.columns.amount.negative == "keep" and column.highest is not None:
        column = replace(column, lowest=-column.highest)
    scale = 100 if column.parser == "money" else 1
    lowest, highest = (None, None) if other is None else (other.lowest, other.highest)
    return replace(
        column,
        lowest=column.lowest if lowest is None else lowest * scale,
        highest=column.highest if highest is None else highest * scale,
    )


def recorded(column: Column) -> Reading:
    """An own field as the scorer recorded it, which is taken as it is; a personal id is its hash."""
    value = pl.col(column.name)
    given = pl.col(column.name).cast(column.dtype, strict=False)
    if not column.personal:
        return Reading(given, pl.col(f"{column.name}?"))
    is_hash = value.str.contains(_HASH)
    return Reading(given, pl.col(f"{column.name}?"), ((value.is_not_null() & ~is_hash, "is not a keyed hash of an id"),))


def with_declared(reading: Reading, name: str, first: str, chunk: pl.Schema, said: FieldDeclaration) -> Reading:
    """A reading with what a field declares to be missing, and its only values.

    Args:
        reading: without them.
        name: of the field.
        first: column of the chunk that it is read from.
        chunk: its types.
        said: what is declared.
    """
    if said.missing:
        texts = [text for text in (canonical_text(one) for one in said.missing) if text is not None]
        told = canonical_texts(first, chunk[first])
        reading = replace(reading, given=pl.when(told.is_not_null() & ~told.is_in(texts)).then(reading.given))
    if isinstance(said.values, tuple):
        unknown = ~pl.col(f"{name}?").is_in(said.values)
        reading = replace(reading, checks=(*reading.checks, (unknown, schema.none_of(said.values))))
    return reading


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


def _text(column: Column, declared: TextColumn, chunk: pl.Schema, source: Source) -> Reading:
    text = canonical_texts(declared.column, chunk[declared.column])
    if declared.strip:
        text = text.str.strip_chars(declared.strip)
        text = pl.when(text != "").then(text)
    assert column.longest is not None
    text = text.str.slice(0, column.longest + 1)  # so that nothing is looked for in what is too long to be a name
    value = pl.col(f"{column.name}?")
    if chunk[declared.column].is_temporal():
        return Reading(text, value, ((value.is_not_null(), NO_NAME),))
    is_id = column.name == "transaction_id"
    # What looks like a card number was shifted here from another column, or is an id of another kind, and declared as one.
    holds_card = holding_card_numbers(value, alone=is_id)
    if declared.digits:
        is_number = value.str.contains("^-?[0-9]+$")
        holds_card &= ~(is_number & value.str.strip_prefix("-").str.len_bytes().is_in(declared.digits))
    checks = (*_wrong_text(column, value, _CONTROL), (holds_card, "holds what looks like a card number"))
    # An id that the source declares must be there; merchant and category may be missing.
    return Reading(text, value, ((value.is_null(), "is missing"), *checks) if is_id else checks)


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


def flag(column: Column, declared: TextColumn, chunk: pl.Schema, texts: Mapping[str, bool]) -> Reading:
    dtype, given, value = chunk[declared.column], pl.col(f"{column.name}?"), pl.col(column.name)
    if dtype == pl.Boolean:
        return Reading(pl.col(declared.column), given)
    text = canonical_texts(declared.column, dtype)
    text = text.str.strip_chars(declared.strip) if declared.strip else text
    lowered = pl.when(text != "").then(text.str.to_lowercase())
    read = given.replace_strict(dict(texts), default=None, return_dtype=pl.Boolean)
    return Reading(lowered, read, ((given.is_not_null() & value.is_null(), schema.no_flag(texts)),))


def _secret(column: Column, declared: TextColumn, chunk: pl.Schema, source: Source) -> Reading:
    """A personal id, which is hashed: what looks like a card number may well be one."""
    assert column.longest is not None
    text = canonical_texts(declared.column, chunk[declared.column])
    if declared.strip:
        text = text.str.strip_chars(declared.strip)
        text = pl.when(text != "").then(text)
    value = pl.col(f"{column.name}?")
    if chunk[declared.column].is_temporal():
        return Reading(text, value, ((value.is_not_null(), NO_NAME),))
    return Reading(text.str.slice(0, column.longest + 1), value, _wrong_text(column, value, _CONTROL))


def _time(column: Column, declared: TimeColumn, chunk: pl.Schema, source: Source) -> Reading:
    """A time that may be missing; else as the payment's own is read."""
    reading = _timestamp(column, declared, chunk, source)
    is_given = pl.col(f"{column.name}?").is_not_null()
    return replace(reading, checks=tuple((is_given & condition, reason) for condition, reason in reading.checks[1:]))


_UNITS_US = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_MOST_US = 200 * 366 * 86_400_000_000  # that a clock may have counted


def _counted(column: Column, declared: TimeColumn, chunk: pl.Schema, source: Source) -> Reading:
    """A number of units since the origin of a clock: text, whole numbers or floats."""
    assert declared.origin is not None
    assert declared.unit is not None
    origin = declared.origin if declared.origin.tzinfo else declared.origin.replace(tzinfo=source.zone)
    given, dtype = numeric(TextColumn(column=declared.column), chunk, source)
    told = pl.col(f"{column.name}?")
    elapsed = (numbers(told, dtype) * _UNITS_US[declared.unit] + 0.5).floor()
    within = pl.when(elapsed.abs() < _MOST_US).then(elapsed.cast(pl.Int64, strict=False))
    value = (pl.lit(origin.astimezone(UTC)).cast(schema.UTC_MICROSECONDS) + pl.duration(microseconds=within)).cast(
        schema.UTC_MICROSECONDS
    )
    wrong = told.is_not_null() & pl.col(column.name).is_null()
    return Reading(given, value, ((told.is_null(), "is missing"), (wrong, f"is not a number of {_COUNTED[declared.unit]}")))


_COUNTED = {"us": "microseconds", "ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _written_time(declared: TimeColumn, chunk: pl.Schema) -> pl.Expr:
    """The text of a time, whose parts may stand in several columns; null where one of them is missing."""
    if not declared.columns:
        return _as_text(declared.column, chunk)
    return pl.concat_str([_as_text(name, chunk) for name in declared.columns], separator=declared.separator)


def _timestamp(column: Column, declared: TimeColumn, chunk: pl.Schema, source: Source) -> Reading:
    if declared.origin is not None:
        return _counted(column, declared, chunk, source)
    dtype, given, value = chunk[declared.names[0]], pl.col(f"{column.name}?"), pl.col(column.name)
    missing = (given.is_null(), "is missing")
    skipped = (value.is_null(), f"does not exist in {source.timezone} (clocks were put forward)")
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        instant = pl.col(declared.column).dt.convert_time_zone("UTC").cast(schema.UTC_MICROSECONDS)
        return Reading(instant, given, (missing,))
    if dtype.is_temporal() and not declared.columns:
        local = pl.col(declared.column).cast(pl.Datetime("us"))
        return Reading(local, _in_zone(given, source.timezone), (missing, skipped))
    # Times hardly repeat, so Polars' cache of parsed text costs more than it saves.
    parsed = [given.str.to_datetime(f, time_unit="us", strict=False, cache=False) for f in declared.formats]
    utc = [
        read.dt.replace_time_zone("UTC") if is_instant(f) else _in_zone(read, source.timezone)
        for f, read in zip(declared.formats, parsed, strict=True)
    ]
    checks = (missing, (_none_of(parsed), _unlike(declared)), *_ambiguous(utc), skipped)
    return Reading(_written_time(declared, chunk), _first_of(utc, schema.UTC_MICROSECONDS), checks)


def _in_zone(local: pl.Expr, zone: str) -> pl.Expr:
    """Local times as UTC: the first of two where clocks were put back, null where they were put forward."""
    return local.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")


def _date(column: Column, declared: TimeColumn, chunk: pl.Schema, source: Source) -> Reading:
    if declared.origin is not None:
        read = _counted(column, declared, chunk, source)
        local = read.value.dt.convert_time_zone(source.timezone).dt.date()
        return replace(read, value=local, checks=read.checks[1:])
    dtype, given, value = chunk[declared.names[0]], pl.col(f"{column.name}?"), pl.col(column.name)
    if dtype.is_temporal() and not declared.columns:
        return Reading(pl.col(declared.column), given.cast(pl.Date) if dtype == pl.Date else given.dt.date())
    parsed = [given.str.to_date(f, strict=False) for f in declared.formats]
    checks = ((given.is_not_null() & value.is_null(), _unlike(declared)), *_ambiguous(parsed))
    return Reading(_written_time(declared, chunk), _first_of(parsed, pl.Date()), checks)


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


def _reads_numbers(read: Callable[[pl.Expr, pl.DataType], pl.Expr], reason: str) -> Callable[..., Reading]:
    """How a column of numbers is read: by a rule of `canonical_number`; what it makes nothing of is refused for this reason."""

    def reading(column: Column, declared: TextColumn, chunk: pl.Schema, source: Source) -> Reading:
        given, dtype = numeric(declared, chunk, source)
        told = pl.col(f"{column.name}?")
        return Reading(given, read(told, dtype), ((told.is_not_null() & pl.col(column.name).is_null(), reason),))

    return reading


def numeric(declared: TextColumn, chunk: pl.Schema, source: Source) -> tuple[pl.Expr, pl.DataType]:
    """A column of numbers and its type: typed as it stands, or text as numbers are written everywhere else."""
    dtype = chunk[declared.column]
    if dtype not in _TEXTS:
        return pl.col(declared.column), dtype
    text = _as_text(declared.column, chunk)
    text = text.str.strip_chars(declared.strip) if declared.strip else text
    return with_points(text, source.decimal, source.thousands), pl.String()


_TEXTS = (pl.String, pl.Categorical, pl.Enum, pl.Null)


_BOOLEAN = {"true": "1", "false": "0"}


def _label(column: Column, declared: LabelColumn, chunk: pl.Schema, source: Source) -> Reading:
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
    text = _as_text(declared.column, chunk)
    if not any("." in said for said in meaning):  # a program that wrote the file again may have made 1.0 of 1
        text = text.str.replace(r"^([0-9]+)\.0+$", "$1")
    return Reading(text, read, ((wrong, expected),))


def _card(column: Column, declared: CardColumn, chunk: pl.Schema, source: Source) -> Reading:
    parts = [canonical_texts(name, chunk[name]) for name in declared.columns]
    identity = pl.concat_str(parts, separator=SEPARATOR)  # null where any part is
    if declared.partial == "keep":
        known = pl.any_horizontal(part.is_not_null() for part in parts)
        identity = pl.when(known).then(pl.concat_str([part.fill_null("") for part in parts], separator=SEPARATOR))
    value = pl.col(f"{column.name}?")
    missing = (value.is_null(), "is missing")
    if any(chunk[name].is_temporal() for name in declared.columns):
        return Reading(identity, value, (missing, (value.is_not_null(), NO_NAME)))
    if declared.hashed:
        return Reading(identity, value, (missing, (~value.str.contains(_HASH), "is not a keyed hash of a card")))
    if len(parts) == 1:
        return Reading(identity, value, (missing, *_wrong_text(column, value, _CONTROL)))
    long = value.str.len_chars() > LONGEST_CELL
    lost = have_lost_digits(value, SEPARATOR)
    return Reading(
        identity,
        value,
        (
            missing,
            (long, f"is longer than {LONGEST_CELL} characters"),
            (value.str.contains(_CONTROL_BUT_SEPARATOR), "holds control characters"),
            (lost, LOST_DIGITS),
        ),
    )


READINGS: dict[str, Callable[..., Reading]] = {
    "text": _text,
    "id": _text,
    "secret": _secret,
    "time": _time,
    "timestamp": _timestamp,
    "date": _date,
    "label": _label,
    "number": _reads_numbers(numbers, "is not a finite number"),
    "count": _reads_numbers(wholes, "is not a whole number"),
    "card": _card,
}

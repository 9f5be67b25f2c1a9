"""Which column of a source is what, and how it is read: text, times, labels, cards; what stands under [columns] of its TOML."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from fraud_core.fields import schema


class Reading(BaseModel):
    """How a value is read: unknown keys are errors, and nothing changes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TextColumn(Reading):
    """A column taken as text; `strip` names characters removed from both ends.

    `digits` says that the values are numbers of so many digits by design, such as the ids of an acquirer's merchants: a value of
    just that length is no card number, even where it looks like one.
    """

    column: str
    strip: str = ""
    digits: tuple[Annotated[int, Field(ge=1, le=64)], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The source's own columns that it is read from."""
        return (self.column,)

    @field_validator("digits", mode="before")
    @classmethod
    def _one_length(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value


class AmountColumn(TextColumn):
    """An amount.

    `negative` says what one below zero is: refused; a refund, kept as such, which is no payment to be judged; or kept as it is.
    `decimals` says whether more decimals than the currency has are refused, or rounded and counted.
    """

    negative: Literal["refuse", "refund", "keep"] = "refuse"
    decimals: Literal["exact", "round"] = "exact"


class TimeColumn(Reading):
    """A date or a time, with every format it may have (strftime, as Polars has it). Typed Parquet columns need none.

    Several `columns` are joined by `separator`, and read as one text. With an `origin` the column is a number of `unit`s since
    then, whatever type it has; an origin without an offset is local time.
    """

    column: str = ""
    columns: tuple[str, ...] = ()
    separator: str = " "
    formats: tuple[str, ...] = ()
    origin: datetime | None = None
    unit: Literal["us", "ms", "s", "m", "h", "d"] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The source's own columns that it is read from."""
        return self.columns or (self.column,)

    @property
    def is_counted(self) -> bool:
        """Whether it counts units of time since some moment."""
        return self.origin is not None or "%s" in self.formats

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.column) == bool(self.columns):
            raise ValueError("give column, or columns for a time whose parts stand in several")
        if (self.origin is None) != (self.unit is None):
            raise ValueError('a clock that counts has origin and unit, such as origin = 2013-09-01T00:00:00 and unit = "s"')
        if self.origin is not None and (self.formats or self.columns):
            raise ValueError("a clock that counts has no formats and one column; leave origin and unit out, or formats")
        if self.columns and not self.formats:
            raise ValueError(
                'a time of several columns needs formats, such as ["%Y %m %d %H:%M"]: its parts are joined by a space'
            )
        return self

    @field_validator("formats")
    @classmethod
    def _read_back(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for declared in value:
            _require_format(declared)
        return value


class LabelColumn(Reading):
    """The outcome. `repair` is a regular expression whose first group is the label of a malformed value; repairs are counted."""

    column: str
    fraud: str = "1"
    legitimate: str = "0"
    repair: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The source's own columns that it is read from."""
        return (self.column,)

    @field_validator("fraud", "legitimate", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int) else value

    @field_validator("repair")
    @classmethod
    def _one_group(cls, value: str) -> str:
        try:
            groups = re.compile(value).groups
            pl.Series([""]).str.extract(value, groups)
        except (re.error, pl.exceptions.ComputeError) as error:
            raise ValueError(f"repair is not a regular expression that Polars can use: {str(error).splitlines()[0]}") from error
        if value and groups != 1:
            raise ValueError("repair must be a regular expression with exactly one group")
        return value

    @model_validator(mode="after")
    def _two_outcomes(self) -> Self:
        if self.fraud == self.legitimate:
            raise ValueError(f"fraud and legitimate are both '{self.fraud}'")
        return self


class CardColumn(Reading):
    """The column, or the columns together, that identify a cardholder."""

    columns: Annotated[tuple[str, ...], Field(min_length=1)]
    hashed: bool = Field(False, description="Whether it holds this installation's keyed hashes already, and no card number.")
    partial: Literal["refuse", "keep"] = Field(
        "refuse", description="Of several columns: what a card is of which some are missing."
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The source's own columns that it is read from."""
        return self.columns

    @model_validator(mode="after")
    def _one_hash(self) -> Self:
        if self.hashed and len(self.columns) != 1:
            raise ValueError("hashed cards stand in one column")
        if self.partial == "keep" and len(self.columns) == 1:
            raise ValueError("partial is for cards of several columns; of one there is nothing left where it is missing")
        return self


ColumnReading = TextColumn | AmountColumn | TimeColumn | LabelColumn | CardColumn


class Columns(Reading):
    """The source's column of each canonical one. Plain strings stand for a column without options."""

    transaction_id: TextColumn | None = None
    timestamp: TimeColumn
    amount: AmountColumn
    label: LabelColumn | None = None  # without one, words in the log of labels alone say what became of a payment
    card: CardColumn | None = None
    merchant: TextColumn | None = None
    category: TextColumn | None = None
    birth_date: TimeColumn | None = None
    home_latitude: TextColumn | None = None
    home_longitude: TextColumn | None = None
    merchant_latitude: TextColumn | None = None
    merchant_longitude: TextColumn | None = None
    city_population: TextColumn | None = None

    @field_validator("birth_date")
    @classmethod
    def _whole_years(cls, value: TimeColumn | None) -> TimeColumn | None:
        short = [declared for declared in (value.formats if value else ()) if re.search(r"%[-_0]?[yDx]", declared)]
        if short:
            raise ValueError(f"{short[0]}: two digits do not tell someone born in 1910 from one born in 2010; give years in full")
        return value

    @model_validator(mode="before")
    @classmethod
    def _plain_strings(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        full = dict(values)
        for name, value in full.items():
            if name == "card":
                full[name] = (
                    {"columns": [value]} if isinstance(value, str) else ({"columns": value} if isinstance(value, list) else value)
                )
            elif isinstance(value, str):
                full[name] = {"column": value}
        return full

    def declared(self, canonical: str) -> ColumnReading:
        """What is declared for a canonical column that this source has."""
        return getattr(self, "amount" if canonical == "amount_cents" else canonical)  # type: ignore[no-any-return]

    @property
    def canonical(self) -> tuple[str, ...]:
        """Names of the canonical columns that this source has."""
        given = {name for name in type(self).model_fields if getattr(self, name) is not None}
        given = {"amount_cents" if name == "amount" else name for name in given}
        return tuple(column.name for column in schema.CANONICAL if column.name in given)

    @property
    def has_refunds(self) -> bool:
        """Whether raw has the column `refund`."""
        return self.amount.negative == "refund"

    @property
    def digits(self) -> dict[str, tuple[int, ...]]:
        """By canonical column, of how many digits numbers are that stand in it by design."""
        texts = {name: declared for name in self.canonical if isinstance(declared := self.declared(name), TextColumn)}
        return {name: declared.digits for name, declared in texts.items() if declared.digits}

    @property
    def wanted(self) -> tuple[str, ...]:
        """The source's own columns that are read; no other column is ever looked at."""
        names = [name for canonical in self.canonical for name in self.declared(canonical).names]
        return tuple(dict.fromkeys(names))


def is_instant(declared: str) -> bool:
    """Whether a time of this format is an instant by itself (it has an offset, or counts seconds), whatever the source's zone."""
    return re.search(r"%(?::{0,3}|#)z|%\+|%s", declared) is not None


# A moment whose parts tell each other apart: a format is sound if it reads back what it writes.
_MOMENT = datetime(2023, 11, 22, 21, 43, 57, 123_456)  # noqa: DTZ001 - it is given a zone where a format asks for one


def _require_format(declared: str) -> None:
    """Refuse a format that cannot tell a day, or that reads something else than it says.

    Raises:
        ValueError: it is such a one.
    """
    if "%f" in declared:
        raise ValueError(f"{declared}: %f would be read as nanoseconds; write %.f (with its point) for fractions of a second")
    if "%Z" in declared:
        raise ValueError(f"{declared}: names of zones are not read; write %z for offsets, or name the zone in `timezone`")
    moment = pl.Series([_MOMENT]).dt.replace_time_zone("UTC" if is_instant(declared) else None)
    try:
        written = moment.dt.to_string(declared.replace("%#z", "%z"))  # %#z reads every way to write an offset, and writes none
        read = written.str.to_datetime(declared, time_unit="us", strict=False)[0]
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{declared} is not a format that Polars can use: {str(error).splitlines()[0]}") from error
    cuts = [{"hour": 0, "minute": 0, "second": 0, "microsecond": 0}, {"second": 0, "microsecond": 0}, {"microsecond": 0}]
    whole = [*(_MOMENT.replace(**cut) for cut in cuts), _MOMENT.replace(microsecond=123_000), _MOMENT]  # type: ignore[arg-type]
    if read is None or read.replace(tzinfo=None) not in whole:
        raise ValueError(f"{declared} does not tell year, month and day, or cannot be read back")

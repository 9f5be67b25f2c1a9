"""A data source, as its TOML declares it: where it is, how to parse it, which column is what, and how it is split."""

import codecs
import re
import tomllib
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fraud_core.errors import PartitionError, SourceError
from fraud_core.features.catalogue import catalogue_of
from fraud_core.features.windows import NEWEST_EVENTS, Reach
from fraud_core.fields import schema
from fraud_core.fields.declaration import FieldDeclaration, WindowDeclaration
from fraud_core.fields.declared import Declared
from fraud_core.signing.keys import canonical_json
from fraud_core.simulator.config import SimulatorConfig
from fraud_core.sources import partitions
from fraud_core.sources.limits import Limits
from fraud_core.sources.partitions import Cadence
from fraud_core.system.paths import absolute_pattern
from fraud_core.units.canonical_number import THOUSANDS

OPEN = "open"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TextColumn(_Model):
    """A column taken as text; `strip` names characters removed from both ends.

    `digits` says that the values are numbers of so many digits by design, such as the ids of an acquirer's merchants: a value of
    just that length is no card number, even where it looks like one.
    """

    column: str
    strip: str = ""
    digits: tuple[Annotated[int, Field(ge=1, le=64)], ...] = ()

    @field_validator("digits", mode="before")
    @classmethod
    def _one_length(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value


class TimeColumn(_Model):
    """A date or a time, with every format it may have (strftime, as Polars has it). Typed Parquet columns need none."""

    column: str
    formats: tuple[str, ...] = ()

    @field_validator("formats")
    @classmethod
    def _read_back(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for declared in value:
            _require_format(declared)
        return value


class LabelColumn(_Model):
    """The outcome. `repair` is a regular expression whose first group is the label of a malformed value; repairs are counted."""

    column: str
    fraud: str = "1"
    legitimate: str = "0"
    repair: str = ""

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


class CardColumn(_Model):
    """The column, or the columns together, that identify a cardholder."""

    columns: Annotated[tuple[str, ...], Field(min_length=1)]
    hashed: bool = Field(False, description="Whether it holds this installation's keyed hashes already, and no card number.")

    @model_validator(mode="after")
    def _one_hash(self) -> Self:
        if self.hashed and len(self.columns) != 1:
            raise ValueError("hashed cards stand in one column")
        return self


class Columns(_Model):
    """The source's column of each canonical one. Plain strings stand for a column without options."""

    transaction_id: TextColumn | None = None
    timestamp: TimeColumn
    amount: TextColumn
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

    def declared(self, canonical: str) -> TextColumn | TimeColumn | LabelColumn | CardColumn:
        """What is declared for a canonical column that this source has."""
        return getattr(self, "amount" if canonical == "amount_cents" else canonical)  # type: ignore[no-any-return]

    @property
    def canonical(self) -> tuple[str, ...]:
        """Names of the canonical columns that this source has."""
        given = {name for name in type(self).model_fields if getattr(self, name) is not None}
        given = {"amount_cents" if name == "amount" else name for name in given}
        return tuple(column.name for column in schema.CANONICAL if column.name in given)

    @property
    def digits(self) -> dict[str, tuple[int, ...]]:
        """By canonical column, of how many digits numbers are that stand in it by design."""
        texts = {name: declared for name in self.canonical if isinstance(declared := self.declared(name), TextColumn)}
        return {name: declared.digits for name, declared in texts.items() if declared.digits}

    @property
    def wanted(self) -> tuple[str, ...]:
        """The source's own columns that are read; no other column is ever looked at."""
        names: list[str] = []
        for name in type(self).model_fields:
            match getattr(self, name):
                case None:
                    continue
                case CardColumn(columns=columns):
                    names += columns
                case TextColumn(column=column) | TimeColumn(column=column) | LabelColumn(column=column):
                    names.append(column)
        return tuple(dict.fromkeys(names))


class TimeSplit(_Model):
    """Train, validation A, validation B, hold-out, in time order with a label delay between them.

    With `holdout_start` the hold-out is fixed (for benchmarks); without, it rolls with the label-mature end of the data.
    Lengths are days.
    """

    protocol: Literal["time"] = "time"
    holdout_start: date | None = None
    holdout_days: int | None = Field(None, ge=1, description="Length of the hold-out; a rolling one is 60 days if not given.")
    validation_days: int = Field(30, ge=1, description="Length of each of the two validation blocks.")
    training_days: int = Field(30, ge=1, description="The least that must lie before the first validation block.")


class CardholderSplit(_Model):
    """No cardholder on two sides. Shares of the cardholders' buckets; what is left trains."""

    protocol: Literal["cardholder"]
    validation_share: float = Field(0.15, gt=0, lt=0.4, description="Share of each of the two validation blocks.")
    holdout_share: float = Field(0.25, gt=0, lt=0.6)

    @model_validator(mode="after")
    def _some_left(self) -> Self:
        if 2 * self.validation_share + self.holdout_share >= 1:
            raise ValueError("two validation blocks and the hold-out leave no cardholders to train on")
        return self


class Quality(_Model):
    """What the checks on incoming data tolerate."""

    quarantined_share: float = Field(0.01, ge=0, le=1, description="Above this share of refused rows the check on raw fails.")
    rows_per_day: tuple[float, float] | None = Field(None, description="Expected rows a day; outside, a finding.")


class Drift(_Model):
    """How the gate judges partitions of this source."""

    reference_partitions: int = Field(6, ge=1, description="K: the reference is drawn from the last K accepted partitions.")
    bootstrap_partitions: int = Field(3, ge=1, description="K': so many partitions are accepted unjudged, and marked so.")
    sample_rows: int = Field(20_000, ge=1_000, description="Cap on the rows of each side of a comparison.")
    null_share: float = Field(0.02, ge=0, le=1, description="A column's share of nulls may exceed the reference's by this.")


class History(_Model):
    """Whether features may use what card and merchant did before. Switched off only with a reason."""

    enabled: bool = True
    reason: str = ""

    @model_validator(mode="after")
    def _reason_given(self) -> Self:
        if not self.enabled and not self.reason.strip():
            raise ValueError("history is switched off without a reason; say why")
        return self


class Source(_Model):
    """One data source."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{1,40}$")
    description: str = ""
    paths: tuple[str, ...] = Field((), description="Files or globs: local (relative to the TOML), https:// or s3://.")
    simulator: SimulatorConfig | None = Field(None, description="Instead of paths: the built-in simulator.")
    encoding: str = "utf-8"
    delimiter: str = Field(",", min_length=1, max_length=1)
    decimal: Literal[".", ","] = Field(".", description="What stands before the decimals of numbers in text.")
    thousands: str = Field("", max_length=1, description="What parts the thousands of numbers in text, if anything does.")
    line_breaks: bool = Field(False, description="Whether quoted cells of CSV may hold line breaks.")
    timezone: str = "UTC"
    cadence: Cadence
    first: str
    last: str = OPEN
    label_delay_days: int = Field(ge=0, description="Days after which a transaction without a chargeback counts as legitimate.")
    history_days: int = Field(30, ge=0, description="How far back features may look.")
    history_events: int = Field(
        NEWEST_EVENTS, ge=1, description="So many of a card's newest payments count at most, however many it made in that time."
    )
    columns: Columns
    fields: dict[str, FieldDeclaration] = Field(default_factory=dict, description="Own fields beside the standard columns.")
    windows: tuple[WindowDeclaration, ...] = Field((), description="Own windows beside the standard ones.")
    standard_windows: bool = Field(True, description="Whether card and merchant have the windows of the shipped catalogue.")
    excluded_features: tuple[str, ...] = Field(
        (), description="Features this source must not use, with the reason in its comment."
    )
    split: TimeSplit | CardholderSplit = Field(TimeSplit(), discriminator="protocol")
    quality: Quality = Quality()
    drift: Drift = Drift()
    history: History = History()
    limits: Limits = Limits()

    @model_validator(mode="before")
    @classmethod
    def _windows_by_name(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("windows") in ("standard", "none"):
            return {**values, "windows": (), "standard_windows": values["windows"] == "standard"}
        return values

    @model_validator(mode="before")
    @classmethod
    def _split_default(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("split"), dict) and "protocol" not in values["split"]:
            return {**values, "split": {"protocol": "time", **values["split"]}}
        return values

    @field_validator("timezone")
    @classmethod
    def _zone_exists(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"'{value}' is not an IANA time zone such as Europe/Zurich") from error
        return value

    @field_validator("encoding")
    @classmethod
    def _encoding_exists(cls, value: str) -> str:
        try:
            "".encode(value)
            codecs.getincrementaldecoder(value)
        except LookupError as error:
            raise ValueError(f"'{value}' is not an encoding of text such as utf-8 or latin-1") from error
        return value

    @model_validator(mode="after")
    def _features_exist(self) -> Self:
        known = catalogue_of(self.declared).by_name
        unknown = [name for name in self.excluded_features if name not in known]
        if unknown:
            raise ValueError(f"excluded_features: there is no feature '{unknown[0]}' to exclude; there are {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.paths) == (self.simulator is not None):
            raise ValueError("give either paths or [simulator]")
        keys = [self.first] if self.last == OPEN else [self.first, self.last]
        for key in keys:
            try:
                partitions.first_day(key, self.cadence)
            except PartitionError as error:
                raise ValueError(str(error)) from error
        if self.thousands not in ("", *THOUSANDS) or self.thousands == self.decimal:
            raise ValueError(f"thousands may be one of {' '.join(map(repr, THOUSANDS))}, and not what decimal is")
        if self.last != OPEN and self.last < self.first:
            raise ValueError("last lies before first")
        if self.split.protocol == "cardholder" and self.columns.card is None:
            raise ValueError("a split by cardholder needs a card column")
        stated = [f for f in self.columns.timestamp.formats if f.endswith("Z")]
        if stated and self.timezone not in {"UTC", "Etc/UTC"}:
            raise ValueError(f"the format {stated[0]} says UTC, and timezone {self.timezone}; write %#z in the place of Z")
        return self

    @cached_property
    def declared(self) -> Declared:
        """Its own fields and windows, as features, scorers and people need them."""
        return Declared(fields=dict(self.fields), windows=self.windows, standard_windows=self.standard_windows)

    @property
    def zone(self) -> ZoneInfo:
        """The source's time zone."""
        return ZoneInfo(self.timezone)

    @property
    def is_open(self) -> bool:
        """Whether partitions appear with the data."""
        return self.last == OPEN

    @property
    def keys(self) -> list[str]:
        """Partition keys known in advance: all of a closed source, none of an open one."""
        return [] if self.is_open else partitions.key_range(self.first, self.last, self.cadence)

    @property
    def lookback_days(self) -> int:
        """How many days before a partition its features may read: history and label delay."""
        return self.history_days + self.label_delay_days

    @property
    def reach(self) -> Reach:
        """The same as the windows of history take it."""
        return Reach.of_days(self.history_days, self.label_delay_days, self.history_events)

    def preceding(self, key: str) -> list[str]:
        """Keys of the partitions that the features of this one may look back into, oldest first."""
        start, _ = partitions.window(key, self.cadence, self.zone)
        oldest = (start - timedelta(days=self.lookback_days)).astimezone(self.zone).date()  # a local day may have 23 hours
        days = (partitions.first_day(key, self.cadence) - oldest).days
        return partitions.preceding_keys(key, days, self.cadence, self.first)

    def parse_fingerprint(self) -> bytes:
        """What decides how bytes become rows; when it changes, files are read anew."""
        text = {"encoding", "delimiter", "decimal", "thousands", "line_breaks"}
        fields = text | {"timezone", "cadence", "first", "last", "columns", "simulator"}
        return canonical_json(self.model_dump(mode="json", include=fields))


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


def load_source(path: Path, files: tuple[str, ...] = ()) -> Source:
    """Read a source's TOML. `files` take the place of its paths.

    Raises:
        SourceError: the file is missing, is not TOML, or declares something impossible.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SourceError(f"There is no source file {path}; sources lie in sources/, one TOML each.") from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} is not valid TOML: {error}.") from error
    if files:
        values["paths"] = [file if "://" in file else absolute_pattern(Path.cwd(), file) for file in files]
        values.pop("simulator", None)
    elif "paths" in values:
        values["paths"] = [p if "://" in p else absolute_pattern(path.parent, p) for p in values["paths"]]
    try:
        return Source.model_validate(values)
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'source'}: {e['msg']}" for e in error.errors())
        raise SourceError(f"{path} declares something impossible: {details}.") from error

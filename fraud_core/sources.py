"""A data source, as its TOML declares it: where it is, how to parse it, which column is what, and how it is split."""

import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fraud_core import partitions, schema
from fraud_core.errors import PartitionError, SourceError
from fraud_core.keys import canonical_json
from fraud_core.partitions import Cadence
from fraud_core.simulator import SimulatorConfig

OPEN = "open"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TextColumn(_Model):
    """A column taken as text; `strip` names characters removed from both ends."""

    column: str
    strip: str = ""


class TimeColumn(_Model):
    """A date or a time, with every format it may have (strftime). Typed Parquet columns need none."""

    column: str
    formats: tuple[str, ...] = ()


class LabelColumn(_Model):
    """The outcome. `repair` is a regular expression whose first group is the label of a malformed value; repairs are counted."""

    column: str
    fraud: str = "1"
    legitimate: str = "0"
    repair: str = ""

    @field_validator("repair")
    @classmethod
    def _one_group(cls, value: str) -> str:
        if value and re.compile(value).groups != 1:
            raise ValueError("repair must be a regular expression with exactly one group")
        return value


class CardColumn(_Model):
    """The column, or the columns together, that identify a cardholder."""

    columns: Annotated[tuple[str, ...], Field(min_length=1)]


class Columns(_Model):
    """The source's column of each canonical one. Plain strings stand for a column without options."""

    transaction_id: TextColumn | None = None
    timestamp: TimeColumn
    amount: TextColumn
    label: LabelColumn
    card: CardColumn | None = None
    merchant: TextColumn | None = None
    category: TextColumn | None = None
    birth_date: TimeColumn | None = None
    home_latitude: TextColumn | None = None
    home_longitude: TextColumn | None = None
    merchant_latitude: TextColumn | None = None
    merchant_longitude: TextColumn | None = None
    city_population: TextColumn | None = None

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

    @property
    def canonical(self) -> tuple[str, ...]:
        """Names of the canonical columns that this source has."""
        given = {name for name in type(self).model_fields if getattr(self, name) is not None}
        given = {"amount_cents" if name == "amount" else name for name in given}
        return tuple(column.name for column in schema.CANONICAL if column.name in given)

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
    timezone: str = "UTC"
    cadence: Cadence
    first: str
    last: str = OPEN
    label_delay_days: int = Field(ge=0, description="Days after which a transaction without a chargeback counts as legitimate.")
    history_days: int = Field(30, ge=0, description="How far back features may look.")
    columns: Columns
    excluded_features: tuple[str, ...] = Field(
        (), description="Features this source must not use, with the reason in its comment."
    )
    split: TimeSplit | CardholderSplit = Field(TimeSplit(), discriminator="protocol")
    quality: Quality = Quality()
    drift: Drift = Drift()
    history: History = History()

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
        if self.last != OPEN and self.last < self.first:
            raise ValueError("last lies before first")
        if self.split.protocol == "cardholder" and self.columns.card is None:
            raise ValueError("a split by cardholder needs a card column")
        return self

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

    def preceding(self, key: str) -> list[str]:
        """Keys of the partitions that the features of this one may look back into, oldest first."""
        return partitions.preceding_keys(key, self.lookback_days, self.cadence, self.first)

    def parse_fingerprint(self) -> bytes:
        """What decides how bytes become rows; when it changes, files are read anew."""
        fields = {"encoding", "delimiter", "timezone", "cadence", "first", "last", "columns", "simulator"}
        return canonical_json(self.model_dump(mode="json", include=fields))


def load_source(path: Path, files: tuple[str, ...] = ()) -> Source:
    """Read a source's TOML. `files` take the place of its paths.

    Raises:
        SourceError: the file is missing, is not TOML, or declares something impossible.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SourceError(f"There is no source file {path}; sources lie in sources/, one TOML each.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} is not valid TOML: {error}.") from error
    if files:
        values["paths"] = [file if "://" in file else str(Path(file).resolve()) for file in files]
        values.pop("simulator", None)
    elif "paths" in values:
        values["paths"] = [p if "://" in p else str((path.parent / p).resolve()) for p in values["paths"]]
    try:
        return Source.model_validate(values)
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'source'}: {e['msg']}" for e in error.errors())
        raise SourceError(f"{path} declares something impossible: {details}.") from error

"""A data source, as its TOML declares it: where it is, how to parse it, which column is what, and how it is split."""

import codecs
import difflib
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from functools import cached_property
from glob import escape
from pathlib import Path
from typing import Any, Literal, Self
from zoneinfo import ZoneInfo

import polars as pl
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializationInfo,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from fraud_core.errors import PartitionError, SourceError
from fraud_core.features.catalogue import catalogue_of
from fraud_core.features.past import window_features
from fraud_core.features.windows import NEWEST_EVENTS, Reach
from fraud_core.fields import schema
from fraud_core.fields.declaration import Amounts, WindowDeclaration, span_us
from fraud_core.fields.declared import ALIASES, NIGHT, NOTHING, REFUND, Declared
from fraud_core.signing.keys import canonical_json
from fraud_core.simulator.config import SimulatorConfig
from fraud_core.sources import partitions
from fraud_core.sources.columns import ColumnReading, Columns, TextColumn, TimeColumn
from fraud_core.sources.fields import DECIDING, SourceField, expanded, with_currency
from fraud_core.sources.header import file_sha256, header_of
from fraud_core.sources.limits import Limits
from fraud_core.sources.lines import line_of
from fraud_core.sources.money import Currency, currency_of, rates_of
from fraud_core.sources.partitions import Cadence
from fraud_core.system.paths import absolute_pattern
from fraud_core.units.canonical_number import THOUSANDS
from fraud_core.units.time import DAY_US

OPEN = "open"
LEAST_HISTORY_DAYS = 30  # that features look back where nothing longer is declared


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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


class Join(_Model):
    """A second file, of which each row of the first may have one: its columns stand beside those of the first."""

    file: str = Field(description="Local, relative to the TOML.")
    key: str = Field(description="The column by which rows belong together; it has that name in both files.")

    @field_validator("file")
    @classmethod
    def _is_local(cls, value: str) -> str:
        if "://" in value:
            raise ValueError("the second file is read from this machine; fetch it, and name where it lies")
        return value


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


class Recorded(_Model):
    """What the scorer declared whose payments these are: `served_from` in a TOML names its source.

    Own fields come as the scorer recorded them: personal ids as their hashes, and derived ones as they were derived then.
    """

    declared: Declared
    digits: dict[str, tuple[int, ...]] = {}


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
    history_days: int = Field(
        LEAST_HISTORY_DAYS, ge=0, description="How far back features may look; as far as the longest own window, if not given."
    )
    history_events: int = Field(
        NEWEST_EVENTS, ge=1, description="So many of a card's newest payments count at most, however many it made in that time."
    )
    currency: Currency | None = Field(None, description="Of its amounts; a code for all of them, or a table for one a payment.")
    columns: Columns
    join: Join | None = Field(None, description="A second file, joined by a key.")
    fields: dict[str, SourceField] = Field(default_factory=dict, description="Own fields beside the standard columns.")
    windows: tuple[WindowDeclaration, ...] = Field((), description="Own windows beside the standard ones.")
    recorded: Recorded | None = Field(
        None, description="Instead of both: what is in `served_from`, the TOML of the scorer's source."
    )
    standard_windows: bool = Field(True, description="Whether card and merchant have the windows of the shipped catalogue.")
    excluded_features: tuple[str, ...] = Field(
        (), description="Features this source must not use, with the reason in its comment."
    )
    split: TimeSplit | CardholderSplit = Field(TimeSplit(), discriminator="protocol")
    quality: Quality = Quality()
    drift: Drift = Drift()
    history: History = History()
    limits: Limits = Limits()

    @field_serializer("fields")
    def _as_declared(self, fields: dict[str, SourceField], info: SerializationInfo) -> dict[str, Any]:
        return {n: field.model_dump(mode=info.mode, by_alias=True, exclude_unset=True) for n, field in fields.items()}

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, values: Any) -> Any:
        return with_currency(expanded(values)[0]) if isinstance(values, Mapping) else values

    @model_validator(mode="before")
    @classmethod
    def _as_far_as_windows(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "history_days" not in values:
            longest = max(_span_days(values.get("windows")), default=0)
            return {**values, "history_days": max(longest, LEAST_HISTORY_DAYS)} if longest else values
        return values

    @field_validator("currency", mode="before")
    @classmethod
    def _code_alone(cls, value: Any) -> Any:
        return currency_of(value)

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

    @model_validator(mode="after")
    def _declared_soundly(self) -> Self:
        try:
            declared = self.declared
        except ValidationError as error:
            raise ValueError("; ".join(str(one["ctx"]["error"]) for one in error.errors() if "ctx" in one)) from error
        known = catalogue_of(declared).by_name
        unknown = [name for name in self.excluded_features if name not in known]
        if unknown:
            raise ValueError(f"excluded_features: there is no feature '{unknown[0]}' to exclude; there are {', '.join(known)}")
        unread = [] if self.recorded is not None else self._unread_fields(declared)
        problems = [*unread, *self._unreachable_windows(), *self._repeated_features(declared)]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _unread_fields(self, declared: Declared) -> Iterable[str]:
        """What own fields are made of, or read from, and cannot be."""
        for name, field in declared.derived.items():
            assert field.derivation is not None
            for needed in field.derivation.needs:
                yield from (f"fields.{name}: {problem}" for problem in self._wrong_need(needed))
            if self.columns.card is not None and self.columns.card.hashed and "card" in field.derivation.needs:
                yield f"fields.{name}: is made of the card, and cards come hashed; leave one of the two out"
        for name in declared.own.keys() & catalogue_of(NOTHING).by_name.keys():
            yield f"fields.{name}: there is a feature of that name already; give the field another"
        hidden = {self.fields[name].column: name for name in declared.personal}
        for name, field in self.fields.items():
            if name in declared.given and not field.personal and field.column in hidden:
                yield (
                    f"fields.{name}: is read from the column '{field.column}', which is personal as {hidden[field.column]}; "
                    "declare both personal, or derive the one from the other"
                )

    def _unreachable_windows(self) -> Iterable[str]:
        """What own windows need of this source, and it does not have."""
        for place, window in enumerate(self.windows):
            where = f"windows.{place}:"
            if not self.history.enabled:
                yield f"{where} windows need history, and [history] enabled = false switches it off; leave one of them out"
            for needed in dict.fromkeys([*window.of, *([window.over] if window.over else []), *window.where]):
                yield from (f"{where} {problem}" for problem in self._wrong_need(needed))
            longest = max(window.spans, key=span_us, default="")
            if span_us(longest) > self.history_days * DAY_US:
                days = math.ceil(span_us(longest) / DAY_US)
                yield (
                    f"{where} the span {longest} is longer than history_days = {self.history_days}, and what is older is not "
                    f"kept; write history_days = {days}, or leave it out"
                )

    def _repeated_features(self, declared: Declared) -> Iterable[str]:
        """Windows that give a feature of a name that is taken."""
        taken = {feature.name for feature in catalogue_of(declared.model_copy(update={"windows": ()})).features}
        for place, window in enumerate(self.windows):
            alone = Declared(fields=declared.fields, windows=(window,), standard_windows=False)
            for name in (feature.name for feature in window_features(alone)):
                if name in taken or name in declared.own:
                    yield f"windows.{place}: gives the feature {name}, of which there is one already; give it another `name`"
                taken.add(name)

    def _wrong_need(self, name: str) -> Iterable[str]:
        """What is wrong with a field that something is made of."""
        canonical = ALIASES.get(name, name)
        if canonical == REFUND and not self.columns.has_refunds:
            yield 'there are no refunds; write negative = "refund" beside the column of amount'
        if canonical in {NIGHT, REFUND} or canonical in self.declared.own or canonical in self.columns.canonical:
            return
        yield f'needs {name}, for which this source has no column; name it under [columns]: {name} = "..."'

    @cached_property
    def declared(self) -> Declared:
        """Its own fields and windows, as features, scorers and people need them."""
        if self.recorded is not None:
            return self.recorded.declared
        fields = {name: field.declaration for name, field in self.fields.items()}
        return Declared(fields=fields, windows=self.windows, standard_windows=self.standard_windows, amounts=self.amounts)

    @property
    def amounts(self) -> Amounts:
        """How amounts are read, wherever a payment comes from; recorded ones are in the base currency."""
        said = self.columns.amount
        if self.currency is None:
            return Amounts(negative=said.negative, decimals=said.decimals)
        column = self.currency.column
        by = next((name for name, field in self.fields.items() if column and field.column == column), "")
        return Amounts(base=self.currency.base, by=by, negative=said.negative, decimals=said.decimals)

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the fields that its files bring, standard ones in canonical order and own ones in theirs."""
        own = self.declared.given if self.recorded is None else [column.name for column in self.declared.columns]
        return (*self.columns.canonical, *own)

    @property
    def wanted(self) -> tuple[str, ...]:
        """The columns of its files that are read; no other is ever looked at."""
        names = dict.fromkeys(column for name in self.given for column in self.reading(name).names)
        if self.join is not None:
            names |= {self.join.key: None}
        return tuple(names)

    @property
    def digits(self) -> dict[str, tuple[int, ...]]:
        """By field, of how many digits numbers are that stand in it by design."""
        own = {name: field.digits for name, field in self.fields.items() if field.digits}
        return self.columns.digits | own | ({} if self.recorded is None else self.recorded.digits)

    @property
    def raw_columns(self) -> tuple[str, ...]:
        """The columns of raw beside the own fields, the id and where a row came from."""
        return (*self.columns.canonical, *([REFUND] if self.columns.has_refunds else []))

    @property
    def raw_schema(self) -> dict[str, pl.DataType]:
        """The columns of raw and their types."""
        return schema.raw_schema(self.raw_columns, self.declared.columns)

    def reading(self, name: str) -> ColumnReading:
        """How a field that its files bring is read."""
        if name not in self.declared.own:
            return self.columns.declared(name)
        if self.recorded is None:
            return self.fields[name].reading
        if self.declared.own[name].kind == "time":
            return TimeColumn(column=name)
        return TextColumn(column=name, digits=self.recorded.digits.get(name, ()))

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
        dumped = self.model_dump(mode="json", include=fields)
        own = {
            name: field.model_dump(mode="json", include=set(DECIDING), exclude_defaults=True)
            for name, field in self.fields.items()
        }
        deciding = {name: said for name, said in own.items() if name in self.declared.own or said.keys() - {"kind"}}
        dumped["columns"] = {name: _older(said) for name, said in dumped["columns"].items()}
        added: dict[str, Any] = {"fields": deciding} if deciding else {}
        if self.currency is not None:
            rates = rates_of(self.currency).sha256 if self.currency.rates else ""
            added["currency"] = [self.currency.base, self.currency.column, rates]
        if self.recorded is not None:
            names = [(column.name, column.parser, column.name in self.declared.derived) for column in self.declared.columns]
            added["recorded"] = [names, self.recorded.digits]
        if self.join is not None:
            added["join"] = [self.join.key, file_sha256(self.join.file)]
        return canonical_json(dumped | added)


def load_source(path: Path, files: tuple[str, ...] = ()) -> Source:
    """Read a source's TOML. `files` take the place of its paths.

    Raises:
        SourceError: the file is missing, is not TOML, or declares something impossible.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except FileNotFoundError as error:
        raise SourceError(f"There is no source file {path}; sources lie in sources/, one TOML each.") from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        twice = "; it stands there twice: give the second another name, or leave it out" if "twice" in str(error) else ""
        raise SourceError(f"{path} is not valid TOML: {error}{twice}.") from error
    if files:
        values["paths"] = [file if "://" in file else absolute_pattern(Path.cwd(), file) for file in files]
        values.pop("simulator", None)
    elif "paths" in values:
        values["paths"] = [p if "://" in p else absolute_pattern(path.parent, p) for p in values["paths"]]
    for table, key in (("currency", "rates"), ("join", "file")):
        said = values.get(table)
        if isinstance(said, dict) and isinstance(said.get(key), str) and "://" not in said[key]:
            said[key] = str((path.parent / said[key]).resolve())
    groups: dict[str, str] = {}
    if "served_from" in values:
        values = _served(values, path)
    try:
        values, groups = expanded(values, lambda: _header(values))
        return Source.model_validate(values)
    except ValidationError as error:
        problems = [_located(one["loc"], _advised(one)) for one in error.errors()]
    except ValueError as error:
        problems = [_located((), str(error))]
    details = "; ".join(_told(text, place, said, groups) for several in problems for place, said in several)
    raise SourceError(f"{path} declares something impossible: {details}.")


_AS_THE_SCORER = ("label_delay_days", "history_days", "history_events", "excluded_features")
_OF_THE_SCORER = ("fields", "windows", "standard_windows", "currency", "history")


def _served(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A TOML of recorded payments with what the source of their scorer declares.

    Raises:
        SourceError: that cannot be read, or something of it is declared here, too.
    """
    named = values["served_from"]
    if not isinstance(named, str):
        raise SourceError(f'{path}: served_from names the TOML of the scorer\'s source, such as served_from = "simulated.toml".')
    scorers = load_source(path.parent / named)
    twice = [key for key in _OF_THE_SCORER if key in values]
    if twice or values.get("timezone", scorers.timezone) != scorers.timezone:
        raise SourceError(f"{path}: {(*twice, 'timezone')[0]} comes from {named}, as the scorer has it; leave it out here.")
    columns = values.get("columns", {})
    known = {*scorers.columns.canonical, "amount", "transaction_id"}
    columns = {name: _as_recorded(name, said, scorers) for name, said in columns.items() if name in known}
    said = {name: getattr(scorers, name) for name in _AS_THE_SCORER}
    history = scorers.history.model_dump() | {"reason": scorers.history.reason}
    recorded = {"declared": scorers.declared.model_dump(mode="json", by_alias=True), "digits": scorers.digits}
    whole = {**said, **values, "columns": columns, "timezone": scorers.timezone, "history": history, "recorded": recorded}
    return {key: value for key, value in whole.items() if key != "served_from"}


def _as_recorded(name: str, said: Any, scorers: Source) -> Any:
    """A column of recorded payments: a refund has a minus again, and numbers of so many digits are no cards here either."""
    if not isinstance(said, str):
        return said
    if name == "amount":
        return {"column": said, "negative": scorers.columns.amount.negative}
    return {"column": said, "digits": scorers.digits[name]} if name in scorers.digits else said


# Keys of columns that came later, and what they are where nobody gives them: then files are read as they were before.
_LATER: dict[str, Any] = {
    "columns": [],
    "separator": " ",
    "origin": None,
    "unit": None,
    "negative": "refuse",
    "decimals": "exact",
    "partial": "refuse",
}


def _older(said: Any) -> Any:
    """What is declared of a column, without later keys that say nothing."""
    if not isinstance(said, dict):
        return said
    return {key: value for key, value in said.items() if key not in _LATER or value != _LATER[key]}


def _span_days(windows: Any) -> Iterable[int]:
    """Spans of declared windows in whole days, as far as they are any."""
    for window in windows if isinstance(windows, (list, tuple)) else ():
        spans = window.get("spans", ()) if isinstance(window, Mapping) else window.spans
        for span in [spans] if isinstance(spans, str) else spans if isinstance(spans, (list, tuple)) else ():
            yield math.ceil(span_us(span) / DAY_US) if isinstance(span, str) else 0


def _header(values: Mapping[str, Any]) -> Sequence[str] | None:
    """Names of the columns of the first file that is on this machine."""
    encoding, delimiter = (str(values.get(key, default)) for key, default in (("encoding", "utf-8"), ("delimiter", ",")))
    found = (header_of(pattern, encoding, delimiter) for pattern in values.get("paths", ()) if "://" not in pattern)
    first = next((header for header in found if header is not None), None)
    join = values.get("join")
    if first is None or not isinstance(join, Mapping) or not isinstance(join.get("file"), str):
        return first
    second = header_of(escape(join["file"]), encoding, delimiter)
    if second is None:
        raise ValueError(f"the second file of [join], {join['file']}, is not on this machine; put it there")
    return list(dict.fromkeys([*first, *second]))


def _advised(error: Mapping[str, Any]) -> str:
    """What pydantic says of an error, with what to write instead."""
    loc, message = error["loc"], str(error["msg"])
    models: dict[str, type[BaseModel]] = {"fields": SourceField, "windows": WindowDeclaration}
    model = models.get(str(loc[0]), Source) if loc else Source
    known = sorted({one.alias or name for name, one in model.model_fields.items()} - {"clock"})
    if error["type"] == "extra_forbidden" and (len(loc) == 1) == (model is Source):
        close = difflib.get_close_matches(str(loc[-1]), known, 1)
        return f"{message}; " + (f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}")
    if error["type"] == "missing" and loc[-1] == "kind":
        return f'{message}; write kind = "number", "category", "flag", "time" or "id"'
    return message


_PREFIX = re.compile(r"([a-z_]+)(?:\.([A-Za-z0-9_{}.\"-]+?))?: ")


def _located(loc: Sequence[str | int], message: str) -> list[tuple[tuple[str | int, ...], str]]:
    """Where the problems of an error are declared, and what they are: validators that see a whole source say it themselves."""
    message = message.removeprefix("Value error, ")
    if loc:
        return [(tuple(loc), message)]
    found: list[tuple[tuple[str | int, ...], str]] = []
    for one in re.split(r"; (?=(?:fields|windows)\.)", message):
        prefix = _PREFIX.match(one)
        place = () if prefix is None or prefix[1] not in Source.model_fields else tuple(filter(None, prefix.groups()))
        found.append((place, one[prefix.end() :] if prefix is not None and place else one))
    return found


def _told(text: str, place: tuple[str | int, ...], said: str, groups: Mapping[str, str]) -> str:
    """A problem with the line on which it is declared."""
    written = tuple(groups.get(str(part), part) if at == 1 and place[0] == "fields" else part for at, part in enumerate(place))
    line = line_of(text, _as_written(text, written)) if written else None
    dotted = ".".join(map(str, written)) or "source"
    return f"{f'line {line}, ' if line else ''}{dotted}: {said}"


def _as_written(text: str, place: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The same place under [fields], where a standard field's column may be declared, too."""
    if len(place) > 1 and place[0] == "columns" and line_of(text, place[:2]) == line_of(text, place[:1]):
        other = ("fields", *place[1:])
        return other if line_of(text, other[:2]) else place
    return place

"""First TOML of a source, guessed from a file: each line with its evidence, and what is unsure is left out with a reason.

Formats are tried against all rows. No value is shown but of names that hardly differ; of all others only the shape.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from glob import escape
from pathlib import Path

import polars as pl

from fraud_core.errors import SourceError
from fraud_core.fields.declaration import NAME
from fraud_core.fields.declared import ALIASES, RESERVED
from fraud_core.fields.schema import STANDARD
from fraud_core.intake.files import SourceFile, all_rows
from fraud_core.intake.parsing import masked
from fraud_core.signing.card_numbers import holds_card_number, printable
from fraud_core.sources.header import header_of
from fraud_core.sources.partitions import Cadence, key_of
from fraud_core.sources.source import Source
from fraud_core.units.canonical_number import numbers
from fraud_core.units.canonical_text import canonical_texts, have_lost_digits

MOST_DISTINCT = 200_000  # different values of a column that are counted
MOST_NAMES = 500  # different values of a category, beyond which it is taken for an id
MOST_SHOWN = 50  # names of a category of which some are shown
_TELLING = re.compile(r"[0-9]{3}|[0-9][-./ ][0-9]|@")  # what looks like a number, a day, a place or an address is not
_DELIMITERS = ",;\t|"
_FORMATS = (
    "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%#z", "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d-%m-%Y %H:%M:%S", "%d-%m-%Y %H:%M", "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%m-%d-%Y %H:%M:%S", "%m-%d-%Y %H:%M", "%Y/%m/%d %H:%M:%S",
    "%Y-%m-%d", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d",
)  # fmt: skip
_HINTS: Mapping[str, str] = {
    "transaction_id": r"trans(action)?_?(num|id|nr|no)$|^id$|payment_?id|tx_?id|^unnamed: 0_id$",
    "timestamp": r"time|date|when|booked|created|^step$|_dt$",
    "amount": r"am(oun)?t|value|^sum$|price|betrag",
    "label": r"fraud|label|^class$|charge.?d?_?back|target",
    "card": r"card|^pan$|cc_?num|customer|cardholder|account|name_?orig|^user",
    "merchant": r"merchant(?!.*(lat|long|city|state|zip))|terminal|shop|store|payee|name_?dest",
    "category": r"categor|mcc|branch|product|^type$",
    "birth_date": r"dob|birth|born",
    "home_latitude": r"^(home_?)?lat(itude)?$",
    "home_longitude": r"^(home_?)?long?(itude)?$",
    "merchant_latitude": r"merch\w*_?lat",
    "merchant_longitude": r"merch\w*_?lon",
    "city_population": r"city_?pop|inhabitants|population",
}
_PERSONAL = re.compile(
    r"mail|phone|^ip|ip_?addr|ssn|iban|street|address|^(first|last|full)_?name$|^first$|^last$|^name$", re.IGNORECASE
)
_MAIL = r"^[^@\s]+@[^@\s]+\.[^@\s]+$"
_IP = r"^(?:[0-9]{1,3}\.){3}[0-9]{1,3}$|^(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}$|^[0-9a-fA-F:]*::[0-9a-fA-F:]*$"
_CLOCK = {r"^[0-9]{1,2}:[0-9]{2}$": "%H:%M", r"^[0-9]{1,2}:[0-9]{2}:[0-9]{2}$": "%H:%M:%S"}
_TRUE = ({"1", "0"}, {"true", "false"}, {"yes", "no"}, {"y", "n"}, {"t", "f"})


@dataclass
class Column:
    """What all rows of a file say of one column."""

    name: str
    rows: int = 0
    missing: int = 0
    numeric: int = 0
    mails: int = 0
    addresses: int = 0
    cards: int = 0
    lost: int = 0  # numbers whose digits are lost
    counts: dict[str, int] = field(default_factory=dict)  # of different values, as long as there are few
    is_crowded: bool = False  # more than are counted
    formats: dict[str, tuple[datetime, datetime] | None] = field(default_factory=lambda: dict.fromkeys(_FORMATS))
    lowest: float | None = None
    highest: float | None = None
    characters: int = 0
    shape: str = ""
    typed: bool = False  # a time by its type

    @property
    def plain(self) -> str:
        """Its name as names are looked at."""
        return re.sub(r"[^A-Za-z0-9]+", "_", self.name).strip("_")

    @property
    def present(self) -> int:
        """Rows that have a value."""
        return self.rows - self.missing

    @property
    def distinct(self) -> int:
        """Different values; a lower bound where it is crowded."""
        return len(self.counts)

    @property
    def is_number(self) -> bool:
        """Whether every value is one."""
        return self.present > 0 and self.numeric == self.present

    @property
    def is_unique(self) -> bool:
        """Whether no value repeats, as far as they are counted."""
        return self.present == self.rows and (self.distinct == self.rows or self.is_crowded)

    @property
    def is_secret(self) -> bool:
        """Whether it says who somebody is, by its name or its values."""
        return _PERSONAL.search(self.plain) is not None or max(self.mails, self.addresses, self.cards) * 2 > max(self.present, 1)

    def times(self) -> list[str]:
        """The formats that every value has."""
        return [one for one, found in self.formats.items() if found is not None] if self.present else []

    def look(self, texts: pl.Series, is_time: bool) -> None:
        """Take a chunk's values into account, as canonical texts."""
        self.rows += len(texts)
        self.missing += texts.null_count()
        self.typed |= is_time
        values = texts.drop_nulls()
        if values.is_empty():
            return
        told = values.to_frame("v").select(
            number=numbers(pl.col("v"), pl.String()).is_not_null().sum(),
            low=numbers(pl.col("v"), pl.String()).min(),
            high=numbers(pl.col("v"), pl.String()).max(),
            mail=pl.col("v").str.contains(_MAIL).sum(),
            ip=pl.col("v").str.contains(_IP).sum(),
            lost=have_lost_digits(pl.col("v")).sum(),
            length=pl.col("v").str.len_chars().sum(),
            shape=masked(pl.col("v").first()),
        )
        row = told.row(0, named=True)
        self.numeric += row["number"]
        self.mails += row["mail"]
        self.addresses += row["ip"]
        self.lost += row["lost"]
        self.characters += row["length"]
        self.shape = self.shape or row["shape"]
        self.lowest = min((one for one in (self.lowest, row["low"]) if one is not None), default=None)
        self.highest = max((one for one in (self.highest, row["high"]) if one is not None), default=None)
        self.cards += (
            sum(holds_card_number(text, alone=True) for text in values.head(200).to_list()) * len(values) // min(200, len(values))
        )
        different = values.unique()
        self.is_crowded |= len(self.counts) + len(different) > MOST_DISTINCT
        if not self.is_crowded:
            for text, count in values.value_counts().iter_rows():
                self.counts[text] = self.counts.get(text, 0) + count
        for one in list(self.formats):  # most do not fit a few, and are not tried on all
            if not (self._has(different.head(20), one) and self._has(different, one)):
                del self.formats[one]

    def _has(self, different: pl.Series, one: str) -> bool:
        """Whether all values have a format; remembers the earliest and the latest."""
        read = different.str.to_datetime(one, time_unit="us", strict=False)
        low, high = (end.replace(tzinfo=None) if isinstance(end, datetime) else None for end in (read.min(), read.max()))
        if read.null_count() or low is None or high is None:
            return False
        ends = self.formats[one] or (low, high)
        self.formats[one] = (min(low, ends[0]), max(high, ends[1]))
        return True


def draft(path: Path) -> str:
    """A first TOML for a file of payments.

    Raises:
        SourceError: the file cannot be read.
    """
    encoding, delimiter, header = _opened(path)
    columns = {name: Column(name) for name in header}
    source = Source.model_validate(
        {
            "name": "draft", "paths": [escape(str(path))], "cadence": "monthly", "first": "1970-01", "label_delay_days": 0,
            "encoding": encoding, "delimiter": delimiter,
            "columns": {"timestamp": {"column": header[0]}, "amount": {"column": header[0]}},
        }
    )  # fmt: skip
    for frame in all_rows(SourceFile(str(path), path, "", 0), source, header):
        for name, column in columns.items():
            dtype = frame.schema[name]
            column.look(frame.select(canonical_texts(name, dtype).alias("v")).to_series(), dtype.is_temporal())
    if not any(column.rows for column in columns.values()):
        raise SourceError(f"{path} has no rows, and so there is nothing to guess from.")
    lines = _lines(path, encoding, delimiter, columns)
    return "\n".join(re.sub(r"[\x00-\x1f\x7f]", " ", line) for line in lines) + "\n"


def _opened(path: Path) -> tuple[str, str, list[str]]:
    """Encoding, delimiter and header of a file."""
    if not path.is_file():
        raise SourceError(f"{path}: there is no such file.")
    for encoding in ("utf-8", "cp1252"):
        try:
            headers = {mark: header_of(escape(str(path)), encoding, mark) or [] for mark in _DELIMITERS}
            if encoding == "utf-8" and path.suffix.lower() in {".csv", ".txt", ".tsv"}:
                _decode(path)
        except ValueError:
            continue
        delimiter, header = max(headers.items(), key=lambda one: len(one[1]))
        names = list(dict.fromkeys(header))
        if len(names) < 2 or len(names) != len(header):
            raise SourceError(f"{path}: the first line is no header of several columns with different names.")
        if any(re.fullmatch(r"[-+0-9.,:/ ]*", name) or holds_card_number(name) for name in names):
            raise SourceError(f"{path}: the first line holds numbers where names of columns should be; put a header above it.")
        return encoding, delimiter, names
    raise SourceError(f"{path}: its header is neither UTF-8 nor cp1252; convert it to UTF-8.")


def _decode(path: Path) -> None:
    with path.open(encoding="utf-8") as file:
        while file.read(1 << 20):
            pass


def _lines(path: Path, encoding: str, delimiter: str, columns: Mapping[str, Column]) -> Iterator[str]:
    chosen, unsure, asked = _standard(columns)
    rows = next(iter(columns.values())).rows
    stem = re.sub(r"[^a-z0-9_]+", "_", path.stem.lower()).strip("_")
    name = (stem if re.match(r"[a-z].", stem) else f"source_{stem}")[:40]
    yield f"# Guessed from {rows:,} rows of {path.name} by `fraud source init`. Read every line: a guess is not a declaration."
    yield "# Then `fraud source check` shows how each field comes through."
    yield f'name = "{name}"'
    yield f"paths = [{_quoted(str(path.resolve()))}]"
    if encoding != "utf-8":
        yield f'encoding = "{encoding}"   # it is not UTF-8'
    if delimiter != ",":
        yield f"delimiter = {_quoted(delimiter)}"
    yield 'timezone = "UTC"   # unsure: a file does not say by which clocks it was written'
    yield from _partitions(columns, chosen)
    yield "label_delay_days = 30   # unsure: how long until an undisputed payment counts as legitimate"
    yield ""
    yield "[columns]"
    for canonical in _HINTS:
        if canonical in chosen:
            yield from chosen[canonical][1]
        elif canonical in unsure:
            yield f"# {canonical}: {unsure[canonical]}"
        elif canonical in {"timestamp", "amount"}:
            yield f'# {canonical} = "..."   # no column looks like it, and every source has one'
    used = {column for column, _ in chosen.values()} | asked
    yield from _own_fields([column for column in columns.values() if column.name not in used])


def _partitions(columns: Mapping[str, Column], chosen: Mapping[str, tuple[str, list[str]]]) -> Iterator[str]:
    ends = None
    if "timestamp" in chosen:
        column = columns[chosen["timestamp"][0]]
        ends = next((found for found in column.formats.values() if found is not None), None)
        if ends is None and column.is_number and column.lowest is not None and column.highest is not None:
            scale = 1_000 if column.lowest > 1e11 else 1
            ends = tuple(datetime(1970, 1, 1) + timedelta(seconds=one / scale) for one in (column.lowest, column.highest))  # type: ignore[assignment] # noqa: DTZ001
    if ends is None:
        yield 'cadence = "monthly"   # unsure: no time was recognised'
        yield 'first = "2024-01"     # unsure'
        return
    days = (ends[1] - ends[0]).days
    cadence = Cadence.MONTHLY if days > 100 else Cadence.WEEKLY if days > 20 else Cadence.DAILY
    first, last = (key_of(date(end.year, end.month, end.day), cadence) for end in ends)
    yield f'cadence = "{cadence.value}"   # {days + 1:,} days, from {ends[0]:%Y-%m-%d} to {ends[1]:%Y-%m-%d}'
    yield f'first = "{first}"'
    yield f'# last = "{last}"   # write it where no more data will come'


def _standard(columns: Mapping[str, Column]) -> tuple[dict[str, tuple[str, list[str]]], dict[str, str], set[str]]:
    """The standard fields that columns look like, why others are left out, and which columns are spoken of there."""
    asked: set[str] = set()
    chosen: dict[str, tuple[str, list[str]]] = {}
    unsure: dict[str, str] = {}
    parts = _parts_of_time(columns)
    if parts is not None:
        chosen["timestamp"] = (parts[0][-1], parts[1])
        asked |= set(parts[0])
    for canonical, hint in _HINTS.items():
        if canonical in chosen:
            continue
        taken = {column for column, _ in chosen.values()}
        named = [c for c in columns.values() if _may_be(canonical, hint, c.plain) and c.name not in taken | asked and c.present]
        fitting = [(column, lines) for column in named if (lines := _FITS[canonical](column)) is not None]
        if not fitting:
            continue
        exact = [one for one in fitting if re.fullmatch(rf"{hint}|{canonical}", one[0].plain, re.IGNORECASE)]
        if len(fitting) > 1 and canonical in {"amount", "label", "card", "timestamp"} and len(exact) != 1:
            names = ", ".join(f"'{column.name}'" for column, _ in fitting)
            unsure[canonical] = f"unsure which of {names} it is; write the one that is meant"
            asked |= {column.name for column, _ in fitting}
            continue
        column, lines = (exact or fitting)[0]
        if lines and lines[0].startswith("#"):
            unsure[canonical] = lines[0].removeprefix("# ")
            asked.add(column.name)
        else:
            chosen[canonical] = (column.name, [f"{canonical} = {lines[0]}   # {lines[1]}"])
    return chosen, unsure, asked


def _may_be(canonical: str, hint: str, name: str) -> bool:
    """Whether a column may be a standard field by its name; one that bears the name of a standard field is no other one."""
    return name.lower() == canonical or (name.lower() not in _HINTS and re.search(hint, name, re.IGNORECASE) is not None)


def _parts_of_time(columns: Mapping[str, Column]) -> tuple[list[str], list[str]] | None:
    """Year, month, day and clock in columns of their own: their names and the line."""
    named = {name.lower(): name for name in columns}
    clock = next((named[name] for name in ("time", "hour", "clock") if name in named), None)
    if clock is None or not {"year", "month", "day"} <= named.keys():
        return None
    texts = list(columns[clock].counts)
    for shape, form in _CLOCK.items():
        if texts and all(re.fullmatch(shape, text) for text in texts):
            names = [named["year"], named["month"], named["day"], clock]
            told = ", ".join(map(_quoted, names))
            line = f'timestamp = {{ columns = [{told}], formats = ["%Y %m %d {form}"] }}   # its parts, by their names'
            return names, [line]
    return None


def _fits_id(column: Column) -> list[str] | None:
    if column.is_unique:
        return [_quoted(column.name), f"{column.rows:,} rows, each another"]
    repeated = column.present - column.distinct
    if column.is_crowded or column.missing or repeated > 0.01 * column.rows:
        return None
    return [_quoted(column.name), f"{repeated:,} of {column.rows:,} rows repeat one, and are refused as copies or contradictions"]


def _fits_time(column: Column) -> list[str] | None:
    if column.typed:
        return [_quoted(column.name), "a time by its type"]
    formats = column.times()
    if len(formats) == 1:
        return [_time(column, formats), f"all {column.present:,} have this format"]
    if formats:
        return [
            f"# '{column.name}' may be read by {' and by '.join(formats)}; no row tells which, so write the one that is meant"
        ]
    return _fits_clock(column) if column.is_number else None


def _fits_clock(column: Column) -> list[str]:
    """A time that counts: since 1970 by its size, else since nobody knows when."""
    lowest, highest, name = column.lowest or 0.0, column.highest or 0.0, _quoted(column.name)
    if 9e8 < lowest <= highest < 4e9:
        return [f'{{ column = {name}, formats = ["%s"] }}', "seconds since 1970, by their size"]
    if 9e11 < lowest <= highest < 4e12:
        return [f'{{ column = {name}, origin = "1970-01-01T00:00:00Z", unit = "ms" }}', "milliseconds since 1970, by their size"]
    return [
        f"# '{column.name}' counts from {lowest:g} to {highest:g}; no row tells since when, nor in which unit. Write "
        f'timestamp = {{ column = {name}, origin = 2024-01-01T00:00:00, unit = "s" }}, or "m", "h", "d"'
    ]


def _time(column: Column, formats: Sequence[str]) -> str:
    return f"{{ column = {_quoted(column.name)}, formats = [{', '.join(map(_quoted, formats))}] }}"


def _fits_amount(column: Column) -> list[str] | None:
    sign = next(
        (sign for sign in "$€£" if column.counts and all(text.strip(sign) != text for text in list(column.counts)[:50])), ""
    )
    if not (column.is_number or sign):
        return None
    negative = column.lowest is not None and column.lowest < 0
    if not sign and not negative:
        return [_quoted(column.name), f"numbers from {column.lowest:g} to {column.highest:g}"]
    said = [
        f"column = {_quoted(column.name)}",
        *([f'strip = "{sign}"'] if sign else []),
        *(['negative = "refund"'] if negative else []),
    ]
    why = "some are below zero, which may be refunds" if negative else f"with the sign {sign}"
    return [f"{{ {', '.join(said)} }}", why]


def _fits_label(column: Column) -> list[str] | None:
    if column.distinct != 2 or column.is_crowded:
        return None
    rare, common = sorted(column.counts, key=lambda text: column.counts[text])
    share = column.counts[rare] / column.present
    if holds_card_number(rare) or holds_card_number(common) or share > 0.3:
        return None
    evidence = f"'{rare}' in {share:.2%} of the rows"
    if (rare, common) == ("1", "0"):
        return [_quoted(column.name), evidence]
    told = f"{{ column = {_quoted(column.name)}, fraud = {_quoted(rare)}, legitimate = {_quoted(common)} }}"
    return [told, evidence]


def _fits_card(column: Column) -> list[str] | None:
    if column.distinct < 2 or (column.is_unique and column.rows > 20) or column.distinct > 0.9 * column.present:
        return None
    return [
        _quoted(column.name),
        f"{_some(column)} different ones, {column.present / column.distinct:.1f} payments each; kept as a hash",
    ]


def _fits_name(column: Column) -> list[str] | None:
    if column.distinct < 2 or column.is_secret or column.lost or (column.is_number and column.numeric and "." in column.shape):
        return None
    return [_quoted(column.name), f"{_some(column)} different names"]


def _fits_birth(column: Column) -> list[str] | None:
    formats = [one for one in column.times() if "%H" not in one]
    if column.typed:
        return [_quoted(column.name), "a day by its type; personal"]
    return [_time(column, formats), "all have this format; personal"] if len(formats) == 1 else None


def _fits_degrees(most: int) -> Callable[[Column], list[str] | None]:
    def fits(column: Column) -> list[str] | None:
        if not column.is_number or column.lowest is None or column.highest is None:
            return None
        within = -most <= column.lowest <= column.highest <= most
        return [_quoted(column.name), f"degrees within {most}"] if within else None

    return fits


def _fits_count(column: Column) -> list[str] | None:
    return [_quoted(column.name), f"numbers from {column.lowest:g} to {column.highest:g}"] if column.is_number else None


_FITS: Mapping[str, Callable[[Column], list[str] | None]] = {
    "transaction_id": _fits_id,
    "timestamp": _fits_time,
    "amount": _fits_amount,
    "label": _fits_label,
    "card": _fits_card,
    "merchant": _fits_name,
    "category": _fits_name,
    "birth_date": _fits_birth,
    "home_latitude": _fits_degrees(90),
    "home_longitude": _fits_degrees(180),
    "merchant_latitude": _fits_degrees(90),
    "merchant_longitude": _fits_degrees(180),
    "city_population": _fits_count,
}


# --- own fields ----------------------------------------------------------------------------------------------------------------


def _own_fields(columns: Sequence[Column]) -> Iterator[str]:
    """Columns that are no standard field as own ones; runs of numbered names as one group."""
    taken: set[str] = set()
    waiting = list(columns)
    while waiting:
        group = _numbered(waiting)
        column = waiting[0]
        if len(group) > 2:
            waiting = waiting[len(group) :]
            first, last = (re.sub(r"^.*?(\d+)$", r"\1", one.name) for one in (group[0], group[-1]))
            stem = group[0].name.removesuffix(first)
            yield from ("", f'[fields."{stem}{{{first}..{last}}}"]   # {len(group)} columns of numbers', 'kind = "number"')
            continue
        waiting = waiting[1:]
        said = _own_field(column)
        if isinstance(said, str):
            yield from ("", f"# [fields.x] column = {_quoted(column.name)} is left out: {said}")
            continue
        name = _field_name(column.name, taken)
        taken.add(name.lower())
        given = [f"column = {_quoted(column.name)}"] if name != column.name else []
        yield from ("", f"[fields.{name}]   # {said[0]}", *given, *said[1:])


def _numbered(columns: Sequence[Column]) -> list[Column]:
    """The columns at the beginning whose names count up, all of numbers."""
    found: list[Column] = []
    for column in columns:
        match = re.fullmatch(r"([A-Za-z][A-Za-z0-9_]*?)([0-9]+)", column.name)
        if match is None or not isinstance(said := _own_field(column), list) or said[1] != 'kind = "number"':
            break
        if found:
            before = re.fullmatch(r"([A-Za-z][A-Za-z0-9_]*?)([0-9]+)", found[-1].name)
            assert before is not None
            if before[1] != match[1] or int(match[2]) != int(before[2]) + 1:
                break
        found.append(column)
    return found


def _own_field(column: Column) -> list[str] | str:
    """Evidence and lines of an own field, or why it is left out."""
    texts, formats = {text.lower() for text in column.counts}, column.times()
    cases: list[tuple[bool, Callable[[], list[str] | str]]] = [
        (not column.present, lambda: "it is empty in all rows"),
        (column.distinct == 1 and not column.missing and not column.is_crowded, lambda: "it is the same in all rows"),
        (re.search(_HINTS["label"], column.plain, re.IGNORECASE) is not None, lambda: "by its name it may tell the outcome"),
        (column.lost > 0, lambda: "its numbers have lost digits, as in 3.5E+18; export it again as text"),
        (
            column.is_secret,
            lambda: [f"looks personal, shaped {column.shape}; kept as a keyed hash", 'kind = "id"', "personal = true"],
        ),
        (column.distinct == 2 and texts in _TRUE, lambda: [f"{' and '.join(sorted(texts))} alone", 'kind = "flag"']),
        (column.typed, lambda: ["a time by its type", 'kind = "time"']),
        (
            len(formats) == 1,
            lambda: [f"all {column.present:,} have this format", 'kind = "time"', f"formats = [{_quoted(formats[0])}]"],
        ),
        (bool(formats), lambda: f"it may be read by {' and by '.join(formats)}"),
        (
            column.is_number and not _is_number_of_things(column),
            lambda: [f"numbers from {column.lowest:g} to {column.highest:g}", 'kind = "number"'],
        ),
        (_is_category(column), lambda: [f"{column.distinct:,} names, {_commonest(column)}", 'kind = "category"']),
        (column.characters > 60 * column.present, lambda: "it looks like free text"),
        (column.is_unique, lambda: "no value repeats, so that it tells nothing"),
    ]
    said = next((make() for holds, make in cases if holds), None)
    return said or [f"{_some(column)} different values, shaped {column.shape}", 'kind = "id"']


def _is_number_of_things(column: Column) -> bool:
    """Whether numbers rather name things: whole, large, and many of them."""
    return "." not in column.shape and column.distinct > MOST_NAMES and (column.lowest or 0) > 1e6


def _is_category(column: Column) -> bool:
    return column.distinct <= MOST_NAMES and not column.is_crowded and column.distinct < 0.5 * column.present


def _commonest(column: Column) -> str:
    if column.distinct > MOST_SHOWN:
        return f"of {len(max(column.counts, key=len))} characters at most"
    if any(_TELLING.search(text) for text in column.counts):
        return f"shaped {column.shape}"
    return "such as " + ", ".join(
        printable(text)[:30] for text in sorted(column.counts, key=lambda text: -column.counts[text])[:4]
    )


def _field_name(column: str, taken: set[str]) -> str:
    """A name for a field: the column's, where that may be one."""
    known = RESERVED | set(STANDARD) | set(ALIASES) | {"night", "refund"}
    name = re.sub(r"[^A-Za-z0-9_]+", "_", column).strip("_")
    name = name if re.match(r"[A-Za-z]", name) else f"field_{name}"
    name = f"own_{name}" if name.lower() in known else name
    while name.lower() in taken or re.fullmatch(NAME, name) is None:
        name = f"{name[:60]}_2" if re.fullmatch(NAME, name) else name[:60] or "field"
    return name


def _some(column: Column) -> str:
    return f"{'more than ' if column.is_crowded else ''}{column.distinct:,}"


def _quoted(text: str) -> str:
    """A TOML string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

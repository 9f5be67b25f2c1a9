"""Own fields of a source's TOML: the keys that say how they are read, and groups of them by pattern, written out."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from fraud_core.fields.declaration import NAME, FieldDeclaration
from fraud_core.fields.declared import ALIASES
from fraud_core.fields.schema import STANDARD
from fraud_core.sources.columns import Columns, TextColumn, TimeColumn

MOST_OF_A_GROUP = 10_000
CURRENCY = "currency"
_BRACES = re.compile(r"\{(\d{1,5})\.\.(\d{1,5})\}")
_WRITTEN = {canonical: written for written, canonical in ALIASES.items()}
Header = Callable[[], Sequence[str] | None]  # the names of a file's columns; None: there is none on this machine


class SourceField(FieldDeclaration):
    """A field as a source's TOML declares it: what it means, and how it is read.

    Attributes:
        column: the source's own column; its name, where it is not given.
        formats: of a time, as `TimeColumn` has them.
        strip: characters that are taken off both ends of a text.
        digits: of an id, of how many digits numbers are by design; see `TextColumn`.
        origin: of a time that counts, since when it does; see `TimeColumn`.
        clock: what it counts (`unit` in the TOML).
    """

    column: str = ""
    formats: tuple[str, ...] = ()
    strip: str = ""
    digits: tuple[Annotated[int, Field(ge=1, le=64)], ...] = ()
    origin: datetime | None = None
    clock: Literal["us", "ms", "s", "m", "h", "d"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _unit_of_clock(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and "origin" in given and "unit" in given:
            return {**{key: value for key, value in given.items() if key != "unit"}, "clock": given["unit"]}
        return given

    @field_validator("digits", mode="before")
    @classmethod
    def _one_length(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _readable(self) -> Self:
        kinds = {
            "formats": {"time"},
            "origin": {"time"},
            "clock": {"time"},
            "strip": {"number", "category", "flag", "id"},
            "digits": {"category", "id"},
        }
        for key, allowed in kinds.items():
            if getattr(self, key) and self.kind not in allowed:
                raise ValueError(f"{key} is for {' and '.join(sorted(allowed))}, and this is a {self.kind}")
        if self.derivation is not None:
            given = sorted(READ_BY & self.model_fields_set) if self.column else []
            if given:
                raise ValueError(f"a derived field is not read from a file; leave {given[0]} out, or leave `from` out")
        elif self.kind == "time":
            _ = self.reading
        return self

    @property
    def reading(self) -> TextColumn | TimeColumn:
        """How its column is read."""
        if self.kind == "time":
            return TimeColumn(column=self.column or "-", formats=self.formats, origin=self.origin, unit=self.clock)
        return TextColumn(column=self.column, strip=self.strip, digits=self.digits)

    @property
    def declaration(self) -> FieldDeclaration:
        """What it means, without how it is read."""
        said = self.model_dump(by_alias=True, exclude_unset=True, exclude=set(READ_BY))
        return FieldDeclaration.model_validate(said)


READ_BY = frozenset(SourceField.model_fields) - frozenset(FieldDeclaration.model_fields)
DECIDING = READ_BY | {"kind", "personal", "lowest", "highest", "missing", "values", "derivation"}  # how bytes become rows


def expanded(values: Mapping[str, Any], header: Header | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """A source's TOML with its fields written out: groups as their members, and what is read of standard fields under [columns].

    Written out once more it stays the same.

    Args:
        values: the TOML.
        header: the names of a file's columns, asked for where a pattern has to be matched; None: there is no file to look at.

    Returns:
        The written-out values, and for each field that belongs to a group under which name it stands in the TOML.

    Raises:
        ValueError: a group cannot be written out; the message begins with "fields.NAME: ".
    """
    declared = values.get("fields")
    if not isinstance(declared, Mapping):
        return dict(values), {}
    columns, fields, groups = _columns_of(values), {}, dict[str, str]()
    patterns: dict[str, Mapping[str, Any]] = {}
    for written, given in declared.items():
        if not isinstance(given, Mapping):
            fields[written] = given
        elif "columns" in given and _canonical(written) not in STANDARD:
            patterns[written] = given
        elif (canonical := _canonical(written)) in STANDARD:
            said = _of_standard(canonical, given, columns)
            if said:
                fields[canonical] = said
                groups[canonical] = written
        else:
            for name, member in _members(written, given):
                _add(fields, groups, written, name, member)
    if patterns:
        _add_matching(patterns, fields, groups, columns, header)
    whole = {**values, "fields": fields}
    if columns or "columns" in values:
        whole["columns"] = columns
    return whole, {name: written for name, written in groups.items() if name != written}


def with_currency(values: Mapping[str, Any]) -> dict[str, Any]:
    """The written-out TOML with the field that says in which currency a payment was made, where there are several.

    It is the declared field that is read from that column, or `currency`, which no model learns from. The API demands it.

    Raises:
        ValueError: no field can be it.
    """
    currency, fields = values.get("currency"), values.get("fields", {})
    column = currency.get("column") if isinstance(currency, Mapping) else getattr(currency, "column", "")
    if not isinstance(column, str) or not column or not isinstance(fields, Mapping):
        return dict(values)
    name = _reading_from(column, fields) or CURRENCY
    if name == CURRENCY and name in fields and _reading_from(column, fields) is None:
        raise ValueError(
            f"fields.{name}: is read from another column than currency, '{column}'; give the field another name, or that column"
        )
    given = fields.get(name, {"column": column, "kind": "category", "learns": False, "drift": "left_out"})
    said = given if isinstance(given, Mapping) else given.model_dump(by_alias=True, exclude_unset=True)
    if said.get("kind") not in {"category", "id"} or said.get("personal"):
        raise ValueError(f'fields.{name}: says in which currency a payment was made; declare kind = "category", not personal')
    return {**values, "fields": {**fields, name: {**said, "required": True}}}


def _reading_from(column: str, fields: Mapping[str, Any]) -> str | None:
    """The field that is read from a column."""
    for name, given in fields.items():
        own = given.get("column", name) if isinstance(given, Mapping) else getattr(given, "column", "")
        derived = isinstance(given, Mapping) and "from" in given
        if own == column and not derived and name not in STANDARD:
            return name
    return None


def _canonical(written: str) -> str:
    return ALIASES.get(written, written)


def _columns_of(values: Mapping[str, Any]) -> Any:
    given = values.get("columns")
    return dict(given) if isinstance(given, Mapping) else {} if given is None else given


def _of_standard(canonical: str, given: Mapping[str, Any], columns: Any) -> dict[str, Any]:
    """What is declared otherwise of a standard field; how it is read goes to the columns."""
    written = _WRITTEN.get(canonical, canonical)
    known = _reading_keys(written)
    read = {key: value for key, value in given.items() if key in known}
    said = {key: value for key, value in given.items() if key not in known}
    if isinstance(columns, dict):
        if read and written in columns:
            raise ValueError(f"fields.{written}: how it is read stands under [columns], too; keep one of the two")
        if written not in columns:
            alone = "columns" if written == "card" else "column"
            if not {"column", "columns"} & read.keys():
                read = {alone: [written] if written == "card" else written, **read}
            columns[written] = read
    return {"kind": STANDARD[canonical].kind, **said} if said.keys() - {"kind"} or _is_other_kind(canonical, said) else {}


def _is_other_kind(canonical: str, said: Mapping[str, Any]) -> bool:
    return bool(said.get("kind", STANDARD[canonical].kind) != STANDARD[canonical].kind)


def _reading_keys(written: str) -> set[str]:
    """The keys that say how a standard field is read."""
    annotation: Any = Columns.model_fields[written].annotation
    options = [one for one in getattr(annotation, "__args__", (annotation,)) if one is not type(None)]
    keys = set().union(*(one.model_fields for one in options))
    return keys | ({"column"} if written == "card" else set())


def _members(written: str, given: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The fields of a group such as V{1..28}, or the one field."""
    names = _braced(written, written)
    named = given.get("column", written if "from" not in given else None)
    if named is None or not isinstance(named, str):
        return [(name, dict(given)) for name in names]
    columns = _braced(named, written)
    if len(columns) != len(names):
        raise ValueError(f"fields.{written}: its name stands for {len(names)} fields and column for {len(columns)} columns")
    return [(name, {**given, "column": column}) for name, column in zip(names, columns, strict=True)]


def _braced(text: str, written: str) -> list[str]:
    found = _BRACES.findall(text)
    if not found:
        return [text]
    if len(found) > 1:
        raise ValueError(f"fields.{written}: one range in braces is read, such as V{{1..28}}, and '{text}' has {len(found)}")
    first, last = map(int, found[0])
    if not first <= last < first + MOST_OF_A_GROUP:
        raise ValueError(f"fields.{written}: the range {first}..{last} goes from the smaller to the greater number")
    width = len(found[0][0]) if found[0][0].startswith("0") else 0
    return [_BRACES.sub(f"{number:0{width}d}", text) for number in range(first, last + 1)]


def _add(fields: dict[str, Any], groups: dict[str, str], written: str, name: str, member: dict[str, Any]) -> None:
    if name in fields:
        raise ValueError(f"fields.{written}: the field {name} stands under {groups.get(name, name)}, too; give it another name")
    fields[name] = member
    groups[name] = written


def _add_matching(
    patterns: Mapping[str, Mapping[str, Any]],
    fields: dict[str, Any],
    groups: dict[str, str],
    columns: Any,
    header: Header | None,
) -> None:
    """Every column of the file that a pattern matches, and that nothing else reads, as a field of its own name."""
    first = next(iter(patterns))
    try:
        names = header() if header is not None else None
    except ValueError as error:
        raise ValueError(f"fields.{first}: {error}") from error
    if names is None:
        raise ValueError(
            f'fields.{first}: columns = "{patterns[first]["columns"]}" means those of the file, and none of `paths` is on this '
            'machine; put it there, name it with --file, or write the names out as a range, such as [fields."V{1..28}"]'
        )
    if not _read(columns) & set(names):  # then the first line may be somebody's payment, and is not told
        raise ValueError(f"fields.{first}: the file has none of the columns that [columns] names; is its first line a header?")
    taken: set[Any] = _read(columns) | {given.get("column") for given in fields.values() if isinstance(given, dict)}
    for written, given in patterns.items():
        pattern = given["columns"]
        if not isinstance(pattern, str):
            raise ValueError(f'fields.{written}: columns is a pattern of names, such as "V*"')
        if "column" in given:
            raise ValueError(f"fields.{written}: give column, for one field, or columns, for all that match")
        found = [name for name in names if fnmatchcase(name, pattern) and name not in taken]
        if not found:
            raise ValueError(
                f"fields.{written}: no column of the file that nothing else reads matches {pattern}; it has "
                f"{', '.join(names[:12])}{' ...' if len(names) > 12 else ''}"
            )
        wrong = [name for name in found if re.fullmatch(NAME, name) is None or _canonical(name) in STANDARD]
        if wrong:
            raise ValueError(
                f"fields.{written}: {pattern} matches the column '{wrong[0]}', whose name cannot be that of a field; declare it "
                f'by itself, such as [fields.other] column = "{wrong[0]}", or narrow the pattern'
            )
        said = {key: value for key, value in given.items() if key != "columns"}
        for name in found:
            _add(fields, groups, written, name, {**said, "column": name})
        taken |= set(found)


def _read(columns: Any) -> set[str]:
    """Columns of the file that standard fields are read from."""
    found: set[str] = set()
    for given in columns.values() if isinstance(columns, dict) else ():
        match given:
            case str():
                found.add(given)
            case list() | tuple():
                found |= {one for one in given if isinstance(one, str)}
            case Mapping():
                found |= _read({"": given.get("column"), " ": given.get("columns")})
            case _:
                pass
    return found

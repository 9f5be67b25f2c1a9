"""Everything that a source or a bundle declares: its own fields and windows beside the standard ones, checked as a whole."""

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any, Self

from pydantic import (
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    field_serializer,
    model_serializer,
    model_validator,
)

from fraud_core.fields.declaration import (
    IN_HOURS,
    NAME,
    OF_NUMBERS,
    Amounts,
    Declaration,
    FieldDeclaration,
    WindowDeclaration,
)
from fraud_core.fields.schema import STANDARD, STANDARD_WINDOWS, Column, own_column

ALIASES = {"amount": "amount_cents"}  # what people write, and what raw calls it
NIGHT = "night"  # whether a past payment was made at night, by the source's clocks: for `where` alone
REFUND = "refund"  # whether money came back: no payment to be judged, and counted only where a window asks for it
_USUAL_AMOUNTS = Amounts()
_OVERRIDABLE = {"meaning", "drift", "learns", "required", "missing", "values", "unit", "lowest", "highest"}


class Declared(Declaration):
    """A source's own fields and windows.

    Attributes:
        fields: own fields by their canonical names; under a standard name what is declared otherwise than the catalogue has it.
        windows: own windows.
        standard_windows: whether card and merchant have the windows of the shipped catalogue, too.
        amounts: how amounts are read.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))

    fields: dict[str, FieldDeclaration] = Field(default_factory=dict)
    windows: tuple[WindowDeclaration, ...] = ()
    standard_windows: bool = True
    amounts: Amounts = Amounts()

    @model_serializer(mode="wrap")
    def _without_usual_amounts(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Bundles of before amounts were declared are known by what was declared then."""
        written: dict[str, Any] = write(self)
        if self.amounts == _USUAL_AMOUNTS:
            written.pop("amounts", None)
        return written

    @field_serializer("fields")
    def _as_declared(self, fields: dict[str, FieldDeclaration], info: SerializationInfo) -> dict[str, Any]:
        """What was declared and nothing else: of a standard field the rest is as the catalogue has it."""
        return {n: field.model_dump(mode=info.mode, by_alias=True, exclude_unset=True) for n, field in fields.items()}

    @property
    def is_standard(self) -> bool:
        """Whether nothing is declared but what everybody has."""
        return self == NOTHING

    @cached_property
    def own(self) -> Mapping[str, FieldDeclaration]:
        """The fields that are not standard ones, in the order of their declaration."""
        return {name: field for name, field in self.fields.items() if name not in STANDARD}

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The columns of raw that the own fields are: those that are kept."""
        return tuple(own_column(name, field) for name, field in self.own.items() if field.is_kept)

    @cached_property
    def column_names(self) -> frozenset[str]:
        """Their names."""
        return frozenset(column.name for column in self.columns)

    @cached_property
    def given(self) -> Mapping[str, FieldDeclaration]:
        """The own fields that a payment brings; the others are derived."""
        return {name: field for name, field in self.own.items() if field.derivation is None}

    @cached_property
    def derived(self) -> Mapping[str, FieldDeclaration]:
        """The derived fields, each after those that it is made of."""
        needed = {name: field.derivation.needs for name, field in self.own.items() if field.derivation is not None}
        order = TopologicalSorter(needed).static_order()
        return {name: self.own[name] for name in order if name in needed}

    @cached_property
    def personal(self) -> frozenset[str]:
        """Names of the own fields that are personal."""
        return frozenset(name for name, field in self.own.items() if field.personal)

    @cached_property
    def all_windows(self) -> tuple[WindowDeclaration, ...]:
        """The standard windows, where they are taken, and the own ones."""
        return (*STANDARD_WINDOWS, *self.windows) if self.standard_windows else self.windows

    def field(self, name: str) -> FieldDeclaration:
        """The declaration of a field, standard or own, by its canonical name or the one that people write.

        Raises:
            KeyError: there is no such field.
        """
        name = ALIASES.get(name, name)
        return self.own[name] if name in self.own else STANDARD[name]

    def overridden(self, name: str) -> FieldDeclaration | None:
        """What is declared otherwise of a standard field than the catalogue has it."""
        return self.fields.get(name) if name in STANDARD else None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        problems = [*self._wrong_fields(), *self._wrong_windows()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _wrong_fields(self) -> Iterable[str]:
        names = {NIGHT, REFUND, "amount", *STANDARD}
        folded: dict[str, str] = {}
        for name, field in self.fields.items():
            where = f"fields.{name}:"
            if name in STANDARD:
                changed = field.model_fields_set - _OVERRIDABLE - {"kind"}
                if field.kind != STANDARD[name].kind:
                    yield f"{where} is the standard field {name}, a {STANDARD[name].kind}; give the own one another name"
                elif changed:
                    key = sorted(changed)[0].replace("derivation", "from")
                    yield f"{where} {key} of a standard field cannot be declared otherwise"
                continue
            if re.fullmatch(NAME, name) is None:
                yield f"{where} a name has letters, digits and underscores, and begins with a letter"
            elif name in names or name in RESERVED:
                yield f"{where} the name is taken; give the field another"
            elif folded.setdefault(name.lower(), name) != name:
                yield f"{where} differs from {folded[name.lower()]} in capitals alone; they cannot be told apart"
            if field.derivation is not None:
                for needed in field.derivation.needs:
                    if not self._knows(needed):
                        yield f"{where} {self._unknown(needed)}"
                yield from (f"{where} {problem}" for problem in self._wrong_derivation(field))
        try:
            _ = self.derived
        except CycleError as error:
            circle = " -> ".join(reversed(error.args[1]))
            yield f"fields.{error.args[1][0]}: is derived from itself ({circle}); begin from a field that the payment brings"

    def _wrong_derivation(self, field: FieldDeclaration) -> Iterable[str]:
        rule = field.derivation
        assert rule is not None
        kinds = [self.field(name).kind for name in rule.needs if self._knows(name)]
        match rule.rule:
            case "difference" if len(kinds) == 2 and (kinds[0] != kinds[1] or kinds[0] not in {"number", "time"}):
                yield f"difference is of two numbers or two times, and these are a {kinds[0]} and a {kinds[1]}"
            case "equal" if len(kinds) == 2 and kinds[0] != kinds[1] and not set(kinds) <= {"id", "category"}:
                yield f"equal compares fields of one kind, and these are a {kinds[0]} and a {kinds[1]}"
            case "hours_since" if kinds and kinds[0] != "time":
                yield f"hours_since is of a time, and {rule.needs[0]} is a {kinds[0]}"
            case "part" | "first_digits" | "network" if kinds and kinds[0] not in {"id", "category"}:
                yield f"{rule.rule} is of a text (kind id or category), and {rule.needs[0]} is a {kinds[0]}"

    def _wrong_windows(self) -> Iterable[str]:
        for place, window in enumerate(self.windows):
            where = f"windows.{place}:"
            for at, name in enumerate(window.of):
                kinds = {"id"} if at == 0 else {"id", "category"}
                if not self._knows(name):
                    yield f"{where} of: {self._unknown(name)}"
                elif self.field(name).kind not in kinds:
                    yield f"{where} of {name}: an entity is a field of kind id, and this is a {self.field(name).kind}"
            if window.over is not None:
                yield from (f"{where} over {window.over}: {problem}" for problem in self._wrong_over(window))
            for name, values in window.where.items():
                yield from (f"{where} where {name}: {problem}" for problem in self._wrong_where(name, values))
            of_card = {"amount_over_mean", "distance_from_last", "speed_from_last"} & set(window.measure)
            if of_card and window.of != ("card",):
                yield f"{where} {min(of_card)} is measured of the card alone"

    def _wrong_over(self, window: WindowDeclaration) -> Iterable[str]:
        assert window.over is not None
        if not self._knows(window.over):
            yield self._unknown(window.over)
            return
        field = self.field(window.over)
        if not field.is_kept:
            yield 'is personal and not kept; declare kind = "id", or derive a field of it'
        if any(measure in OF_NUMBERS for measure in window.measure) and field.kind != "number":
            yield f"{next(m for m in window.measure if m in OF_NUMBERS)} is taken of a number, and this is a {field.kind}"
        if "share" in window.measure and field.kind != "flag":
            yield f"share is taken of a flag, and this is a {field.kind}"
        if "distinct" in window.measure and field.kind in {"time"}:
            yield "distinct counts names, flags or numbers, and this is a time"

    def _wrong_where(self, name: str, values: tuple[str, ...]) -> Iterable[str]:
        if name in {NIGHT, REFUND}:
            kind, known = "flag", None
        elif not self._knows(name):
            yield self._unknown(name)
            return
        else:
            kind, known = self.field(name).kind, self.field(name).values
            if not self.field(name).is_kept or self.field(name).personal:
                yield "is personal; its values cannot be named here"
                return
        if kind not in {"category", "flag", "id"}:
            yield f"is a {kind}; where takes categories, flags and ids"
        elif kind == "flag" and not set(values) <= {"true", "false"}:
            yield "is a flag; where takes true and false of it"
        elif isinstance(known, tuple) and not set(values) <= set(known):
            wrong = next(value for value in values if value not in known)
            yield f"'{wrong}' is none of its values ({', '.join(known)})"

    def _knows(self, name: str) -> bool:
        return ALIASES.get(name, name) in STANDARD or name in self.own

    def _unknown(self, name: str) -> str:
        known = [*ALIASES, *STANDARD, *self.own]
        close = difflib.get_close_matches(name, known, 1, 0.6)
        return f"there is no field '{name}'" + (f"; did you mean '{close[0]}'?" if close else "")


def entities(windows: Iterable[WindowDeclaration]) -> dict[str, bool]:
    """The entities that windows are of, in the order of their declaration, and whether hours are counted of each."""
    found: dict[str, bool] = {}
    for window in windows:
        name = window.of[0]
        found[name] = found.get(name, False) or any(measure in IN_HOURS for measure in window.measure)
    return found


# Names that stand for something else already: in rows, answers, features and what models see.
RESERVED = frozenset(
    {
        "split_bucket", "source_file", "source_line", "partition", "row", "probability", "decision", "degraded", "errors",
        "log_amount", "hour", "weekday", "age", "distance", "local_us", "weight", "score", "sequence", "content", "own",
        "line", "problems",
        "model_config", "model_fields", "model_computed_fields", "model_construct", "model_copy", "model_declared", "model_dump",
        "model_dump_json", "model_extra", "model_fields_set", "model_post_init", "model_rebuild", "model_validate",
    }
)  # fmt: skip
NOTHING = Declared()

"""Declarations of fields and windows, as a source's TOML has them and a bundle's manifest carries them."""

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from fraud_core.units.time import DAY_US

Kind = Literal["number", "category", "flag", "time", "id"]
Drift = Literal["blocks", "reported", "left_out"]
Measure = Literal[
    "count",
    "sum",
    "mean",
    "max",
    "min",
    "std",
    "distinct",
    "share",
    "seconds_since_last",
    "seconds_since_first",
    "seen_before",
    "fraud_rate",
    "fraud_count",
    # What the standard block has beside these.
    "hourly_count",
    "amount_over_mean",
    "distance_from_last",
    "speed_from_last",
    "new",
]
OF_NUMBERS = frozenset({"sum", "mean", "max", "min", "std"})
OF_FRAUDS = frozenset({"fraud_rate", "fraud_count"})
IN_HOURS = OF_FRAUDS | {"hourly_count"}  # counted by whole hours, so that payments in flight together cannot disagree
NAME = r"^[A-Za-z][A-Za-z0-9_]{0,63}$"
LONGEST_SPAN_DAYS = 180
_SPAN = re.compile(r"([1-9][0-9]{0,4})(m|h|d)")
_UNITS_US = {"m": 60_000_000, "h": 3_600_000_000, "d": DAY_US}
# What leads over to a value, and means nothing without one.
_LEADING = re.compile(r"( (at|by|for|from|in|is|of|on|since|to|was|with))? ?[:,;]?$")
_TRUE, _FALSE = ("1", "true", "yes", "y", "t"), ("0", "false", "no", "n", "f")


class Declaration(BaseModel):
    """Something declared: unknown keys are errors, and nothing changes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))


class From(Declaration):
    """What a derived field is made of: one rule of a closed set.

    Attributes:
        part: of an e-mail address, in `of`: its domain, or the last part of that.
        first_digits: so many digits at the beginning of `of`, such as a card's BIN; taken before anything is hashed.
        network: lengths of the prefix of an IPv4 and an IPv6 address in `of`, such as "24/48".
        equal: two fields: whether they are the same.
        difference: two numbers: the first less the second; two times: the hours between them.
        hours_since: a time: the hours from it to the payment.
    """

    of: str | None = None
    part: Literal["domain", "top_domain"] | None = None
    first_digits: int | None = Field(None, ge=1, le=8)
    network: str | None = Field(None, pattern=r"^[0-9]{1,2}/[0-9]{1,3}$")
    equal: tuple[str, str] | None = None
    difference: tuple[str, str] | None = None
    hours_since: str | None = None

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        rules = [name for name in type(self).model_fields if name != "of" and getattr(self, name) is not None]
        if len(rules) != 1:
            raise ValueError("from takes one of part, first_digits, network, equal, difference and hours_since")
        if (self.of is not None) != (rules[0] in {"part", "first_digits", "network"}):
            raise ValueError(f"{rules[0]} {'does not take' if self.of else 'needs'} `of`, the field that it is taken from")
        if self.network is not None:
            four, six = map(int, self.network.split("/"))
            if not (1 <= four <= 32 and 1 <= six <= 128):
                raise ValueError("network is the length of the prefix for IPv4 (1 to 32) and IPv6 (1 to 128), such as 24/48")
        return self

    @cached_property
    def rule(self) -> str:
        """Which rule it is."""
        return next(name for name in type(self).model_fields if name != "of" and getattr(self, name) is not None)

    @cached_property
    def needs(self) -> tuple[str, ...]:
        """The fields that it is made of."""
        match self.rule:
            case "equal" | "difference" as rule:
                return tuple(getattr(self, rule))
            case "hours_since":
                return (str(self.hours_since), "timestamp")
            case _:
                return (str(self.of),)


class Amounts(Declaration):
    """How amounts are read, from a file as over HTTP. They are kept as hundredths of the unit of one currency.

    Attributes:
        base: that currency, by ISO 4217; empty: none is declared, and amounts have two decimals.
        by: the field that says in which currency a payment was made, to be converted by daily rates; empty: all are in `base`.
        negative: what one below zero is: refused; a refund, which is no payment to be judged; or kept as it is.
        decimals: whether more decimals than the currency has are refused or rounded.
    """

    base: str = ""
    by: str = ""
    negative: Literal["refuse", "refund", "keep"] = "refuse"
    decimals: Literal["exact", "round"] = "exact"


class FieldDeclaration(Declaration):
    """One field of a payment: what it means, and what may stand in it.

    Attributes:
        kind: what its values are.
        personal: an id is kept as a keyed hash, anything else not at all; shown nowhere.
        meaning: the words that reasons, forms and model cards use, with {value} in the place of the value.
        unit: of a number, for people.
        lowest: the least number.
        highest: the greatest number.
        missing: texts that mean that there is none.
        values: of a category all that it may be; of a flag the texts that mean true and false.
        drift: whether the gate blocks on it.
        learns: whether models learn from it; rules and people see it in any case.
        required: whether the API demands it.
        derivation: of a derived field what it is made of (`from` in the TOML).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True)

    kind: Kind
    personal: bool = False
    meaning: str = Field("", max_length=200)
    unit: str = Field("", max_length=40)
    lowest: float | None = None
    highest: float | None = None
    missing: tuple[str, ...] = ()
    values: tuple[str, ...] | dict[Literal["true", "false"], tuple[str, ...]] | None = None
    drift: Drift = "blocks"
    learns: bool = True
    required: bool = False
    derivation: From | None = Field(None, alias="from")

    @model_validator(mode="before")
    @classmethod
    def _kind_of_derived(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and isinstance(given.get("from"), Mapping) and "kind" not in given:
            rule = next((name for name in ("equal", "difference", "hours_since") if name in given["from"]), "")
            return {**given, "kind": {"equal": "flag", "difference": "number", "hours_since": "number"}.get(rule, "category")}
        return given

    @field_validator("meaning")
    @classmethod
    def _one_place(cls, value: str) -> str:
        if value and (value.count("{value}") != 1 or re.sub(r"\{value\}", "", value).count("{")):
            raise ValueError('meaning has {value} once, in the place of the value, such as "The device {value}"')
        return value

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for key in ("lowest", "highest", "unit"):
            if getattr(self, key) not in (None, "") and self.kind != "number":
                raise ValueError(f"{key} is for numbers, and this is a {self.kind}")
        if self.lowest is not None and self.highest is not None and self.lowest > self.highest:
            raise ValueError(f"lowest ({self.lowest:g}) lies above highest ({self.highest:g})")
        if isinstance(self.values, dict) and self.kind != "flag":
            raise ValueError("values = { true = [...], false = [...] } is for flags; a category's values are a list")
        if isinstance(self.values, dict):
            told = [text.strip().lower() for texts in self.values.values() for text in texts]
            twice = next((text for text in told if told.count(text) > 1), None)
            if twice is not None:
                raise ValueError(f"'{twice}' means both true and false; capitals do not tell texts of a flag apart")
        if isinstance(self.values, tuple) and self.kind != "category":
            raise ValueError(f"values is for categories and flags, and this is a {self.kind}")
        if self.personal and self.kind == "category":
            raise ValueError('a personal field cannot be a category, whose names are shown; declare kind = "id", or derive one')
        if self.derivation is not None:
            kinds = {"equal": {"flag"}, "difference": {"number"}, "hours_since": {"number"}}
            allowed = kinds.get(self.derivation.rule, {"category", "id"})
            if self.kind not in allowed:
                raise ValueError(f"what {self.derivation.rule} gives is a {' or a '.join(sorted(allowed))}, not a {self.kind}")
            if self.personal:
                raise ValueError("a derived field is not personal: what may not be seen is not derived")
        return self

    @property
    def is_learned(self) -> bool:
        """Whether models may learn from its values themselves: no id, no time, and nothing personal."""
        return self.learns and not self.personal and self.kind in {"number", "category", "flag"}

    @property
    def is_kept(self) -> bool:
        """Whether it is kept at all."""
        return not self.personal or self.kind == "id"

    @property
    def flag_texts(self) -> dict[str, bool]:
        """Of a flag: what each text means, in lower case."""
        given = self.values if isinstance(self.values, dict) else {}
        told = {True: given.get("true", _TRUE), False: given.get("false", _FALSE)}
        return {text.strip().lower(): outcome for outcome, texts in told.items() for text in texts}


def meaning_of(name: str, field: FieldDeclaration) -> str:
    """What a field means, without a value; its name, where more words follow the value and make no sense without it."""
    before, _, after = field.meaning.partition("{value}")
    words = "" if after.strip() else _LEADING.sub("", " ".join(before.split()))
    return words or name.replace("_", " ").capitalize()


def noun_of(name: str, field: FieldDeclaration) -> str:
    """What a field is called within a sentence, after an article."""
    words = re.sub(r"^(the|an?) ", "", meaning_of(name, field), flags=re.IGNORECASE)
    return words if words[1:2].isupper() else words[:1].lower() + words[1:]


class WindowDeclaration(Declaration):
    """A measure of what an entity did before: one feature a measure and span.

    Attributes:
        of: the entity, a field of kind id; or two, of which the first one's payments with the same second one count.
        measure: what is measured; several give a feature each.
        over: the field that is measured.
        spans: how far back, such as 1h or 30d; none: as far as the source's history goes.
        where: only payments whose field has one of these values count.
        drift: whether the gate blocks on it.
        newest: so many of the entity's newest payments count at most.
        name: of its features, with {span}, and {measure} where there are several.
        meaning: as in `FieldDeclaration`; with {span} where it has one.
        unit: for people.
        nothing: what max and min are where nothing happened; missing where it is not given.
    """

    of: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)]
    measure: Annotated[tuple[Measure, ...], Field(min_length=1)]
    over: str | None = None
    spans: tuple[str, ...] = ()
    where: dict[str, tuple[str, ...]] = {}
    drift: Drift = "reported"
    newest: int | None = Field(None, ge=1, le=100_000)
    name: str = ""
    meaning: str = ""
    unit: str = ""
    nothing: float | None = None

    @field_validator("of", "measure", "spans", mode="before")
    @classmethod
    def _one_alone(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("where", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        lists = {name: given if isinstance(given, (list, tuple)) else [given] for name, given in value.items()}
        return {n: [str(one).lower() if isinstance(one, bool) else str(one) for one in some] for n, some in lists.items()}

    @field_validator("spans")
    @classmethod
    def _are_spans(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            if _SPAN.fullmatch(one) is None or not 0 < span_us(one) <= LONGEST_SPAN_DAYS * DAY_US:
                raise ValueError(f"'{one}' is no span from 1m to {LONGEST_SPAN_DAYS}d, such as 90m, 12h or 30d")
        return value

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for measure in self.measure:
            wants = measure in OF_NUMBERS or measure in {"distinct", "share"}
            if wants and self.over is None:
                raise ValueError(f"{measure} needs `over`, the field that it is taken of")
        if self.over is not None and not any(m in OF_NUMBERS or m in {"distinct", "share"} for m in self.measure):
            raise ValueError(f"{self.measure[0]} takes no `over`")
        if len(self.of) == 2 and any(measure in IN_HOURS for measure in self.measure):
            raise ValueError("frauds are counted of one entity, not of a pair")
        if self.where and any(measure in IN_HOURS for measure in self.measure):
            raise ValueError("what is counted by whole hours takes no `where`")
        if len(set(self.of)) != len(self.of):
            raise ValueError("a pair is of two different fields")
        if self.name and len(self.spans) > 1 and "{span}" not in self.name:
            raise ValueError("name needs {span}, for there are several spans")
        return self


def span_us(span: str) -> int:
    """A span such as 1h in microseconds."""
    found = _SPAN.fullmatch(span)
    return 0 if found is None else int(found[1]) * _UNITS_US[found[2]]

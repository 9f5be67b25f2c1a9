"""Reason codes and wording of features: a code for programs, and the beginning of a sentence for people."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fraud_core.fields.declaration import FieldDeclaration, Measure, WindowDeclaration, noun_of
from fraud_core.fields.declared import Declared
from fraud_core.signing.card_numbers import printable
from fraud_core.units.time import NIGHT_BEGINS, NIGHT_ENDS


@dataclass(frozen=True)
class Wording:
    """How one feature is spoken of.

    Attributes:
        code: the stem of its codes.
        missing: the subject of the sentence where the value is missing.
        phrase: value -> the subject of the sentence.
        scale: whether more and less mean something; codes then tell on which side of the training rows' median the value is.
    """

    code: str
    missing: str
    phrase: Callable[[Any], str]
    scale: bool = False


def _amount(log_amount: float) -> str:
    amount = math.expm1(log_amount)
    # the feature's grid does not hold the cents of millions
    return f"The amount of {amount:,.2f}" if amount < 1e6 else f"The amount of {amount / 1e6:,.2f} million"


def _night(night: int) -> str:
    begins, ends = f"{NIGHT_BEGINS:02d}:00", f"{NIGHT_ENDS:02d}:00"
    return f"The purchase at night, from {begins} to {ends}," if night else f"The purchase by day, from {ends} to {begins},"


def _distance(metres: int) -> str:
    return f"The distance of {_length(metres)} from home to the merchant"


def _said(words: str, shown: Callable[[Any], str]) -> Callable[[Any], str]:
    """A phrase with the value, as it is shown, in the place of {}."""
    return lambda value: words.format(shown(value))


def _number_of(one: str, many: str) -> Callable[[Any], str]:
    return lambda number: f"{number:,} {one if number == 1 else many}"


def _money(amount: float) -> str:
    return f"{amount:,.2f}"


def _duration(seconds: float) -> str:
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            return _number_of(unit, f"{unit}s")(int(seconds // length))
    return f"{seconds:.0f} seconds"


def _length(metres: float) -> str:
    return f"{metres:.0f} m" if metres < 1_000 else f"{metres / 1_000:,.{1 if metres < 10_000 else 0}f} km"


_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

WORDINGS: Mapping[str, Wording] = {
    "log_amount": Wording("AMOUNT", "The unknown amount", _amount, scale=True),
    "hour": Wording("HOUR", "The unknown hour", lambda hour: f"The purchase between {hour:02d}:00 and {hour + 1:02d}:00"),
    "weekday": Wording("WEEKDAY", "The unknown weekday", lambda day: f"The purchase on a {_DAYS[day]}"),
    "night": Wording("DAY_OR_NIGHT", "The unknown time of day", _night),
    "age": Wording("AGE", "The unknown age of the cardholder", lambda age: f"The cardholder's age of {age}", scale=True),
    "distance": Wording("DISTANCE", "The unknown distance from home to the merchant", _distance, scale=True),
    "city_population": Wording(
        "CITY_POPULATION", "The unknown population of the city", lambda n: f"The city's population of {n:,}", scale=True
    ),
    "category": Wording("CATEGORY", "The unknown merchant category", lambda name: f'The merchant category "{printable(name)}"'),
}


def _shown_number(field: FieldDeclaration) -> Callable[[Any], str]:
    unit = f" {field.unit}" if field.unit else ""
    return lambda number: f"{number:,.6g}{unit}"


@dataclass(frozen=True)
class OwnWording:
    """How a source's own field is spoken of: by what it declares as its meaning."""

    name: str
    field: FieldDeclaration

    @property
    def label(self) -> str:
        """The field as people say it."""
        return noun_of(self.name, self.field)

    @property
    def wording(self) -> Wording:
        """Of the feature that the field is."""
        shown: Callable[[Any], str] = {
            "number": _shown_number(self.field),
            "flag": lambda value: "yes" if value else "no",
        }.get(self.field.kind, lambda value: f'"{printable(value)}"')
        words = self.field.meaning or ("{label}: {{value}}" if self.field.kind == "flag" else "The {label} {{value}}").format(
            label=self.label
        )
        missing = f"The unknown {self.label}"
        is_number = self.field.kind == "number"
        phrase = _said(words.replace("{value}", "{}"), shown)
        return Wording(self.name.upper(), missing, phrase, scale=is_number)


_MEASURED = {
    "count": ("payments of the {of} in {span}", "The {of}'s {{}} in the {span} before"),
    "hourly_count": ("payments of the {of} in {span}", "The {of}'s {{}} in the {span} before"),
    "sum": ("currency units that the {of} paid in {span}", "The {{}} that the {of} paid in the {span} before"),
    "mean": ("currency units a payment of the {of} in {span}", "The {of}'s mean payment of {{}} in the {span} before"),
    "max": (
        "currency units of the {of}'s greatest payment in {span}",
        "The {of}'s greatest payment of {{}} in the {span} before",
    ),
    "min": ("currency units of the {of}'s least payment in {span}", "The {of}'s least payment of {{}} in the {span} before"),
    "std": (
        "currency units by which the {of}'s payments differ in {span}",
        "The standard deviation of {{}} among the {of}'s payments in the {span} before",
    ),
    "distinct": ("{over_many} of the {of} in {span}", "The {of}'s {{}} in the {span} before"),
    "share": ("share of {over} among the {of}'s payments in {span}", "The {of}'s share of {over} of {{}} in the {span} before"),
    "seconds_since_last": ("seconds since the {of}'s last payment", "The time of {{}} since the {of}'s last payment"),
    "seconds_since_first": ("seconds since the {of}'s first payment", "The time of {{}} since the {of}'s first payment"),
    "seen_before": ("1: known to the {of}", "The {second}, {{}} to the {of},"),
    "new": ("1: new to the {of}", "The {second}, {{}} to the {of},"),
    "amount_over_mean": ("times the {of}'s mean of {span}", "The amount of {{}} times the {of}'s mean of {span}"),
    "distance_from_last": ("metres from the {of}'s last merchant", "The distance of {{}} from the {of}'s last merchant"),
    "speed_from_last": ("metres a second from the {of}'s last", "The {{}} from the {of}'s last merchant to this one"),
    "fraud_rate": ("share of frauds at the {of} in {span}", "The {of}'s share of frauds of {{}} in the last settled {span}"),
    "fraud_count": ("frauds at the {of} in {span}", "The {of}'s {{}} in the last settled {span}"),
}
_OF_OWN_NUMBERS = {
    "sum": ("sum of {over} of the {of} in {span}", "The {of}'s {over} of {{}} in all in the {span} before"),
    "mean": ("mean {over} of the {of} in {span}", "The {of}'s mean {over} of {{}} in the {span} before"),
    "max": ("greatest {over} of the {of} in {span}", "The {of}'s greatest {over} of {{}} in the {span} before"),
    "min": ("least {over} of the {of} in {span}", "The {of}'s least {over} of {{}} in the {span} before"),
    "std": ("standard deviation of {over} of the {of} in {span}", "The {of}'s deviation of {over} of {{}} in the {span} before"),
}
_ALONE = frozenset({"amount_over_mean", "seconds_since_last", "seconds_since_first", "distance_from_last", "speed_from_last"})
_SPANS = {"1m": "minute", "1h": "hour", "1d": "day", "7d": "week", "": "time"}
_SPAN_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True)
class WindowWording:
    """How a feature of the past is spoken of: by its measure, unless the window says it otherwise."""

    window: WindowDeclaration
    measure: Measure
    span: str
    declared: Declared

    @property
    def unit(self) -> str:
        """For people."""
        return (self.window.unit or self._words[0].replace("{{}}", "{}")).format(**self._names(self.span))

    def wording(self, name: str) -> Wording:
        """Of the feature of this name."""
        past = f"The unknown past of the {self._of}"
        before = f"in the {self._spoken_span} before"
        missing = {"mean": f"The {self._of}'s lack of payments {before}"}.get(self.measure, past)
        if self.measure in _ALONE:
            missing = f"The {self._of}'s first payment in a long time"
        words = self.window.meaning.replace("{value}", "{{}}") or self._words[1]
        said = words.format(**self._names(self._spoken_span)) + self._where
        is_measure = self.measure not in {"new", "seen_before"}
        return Wording(name.upper().removeprefix("SECONDS_"), missing, _said(said, self._shown), scale=is_measure)

    @property
    def _words(self) -> tuple[str, str]:
        own = self.window.over not in (None, "amount") and self.measure in _OF_OWN_NUMBERS
        return _OF_OWN_NUMBERS[self.measure] if own else _MEASURED[self.measure]

    @property
    def _of(self) -> str:
        is_new = self.measure in {"new", "seen_before"}
        if len(self.window.of) == 1 or is_new:
            return self._spoken(self.window.of[0])
        return f"{self._spoken(self.window.of[0])} with this {self._spoken(self.window.of[1])}"

    def _spoken(self, name: str) -> str:
        """A field as people say it: an own one by its declared meaning."""
        field = self.declared.own.get(name)
        return spoken(name) if field is None else noun_of(name, field)

    def _names(self, span: str) -> dict[str, str]:
        over = self._spoken(self.window.over or "")
        second = self._spoken(self.window.of[-1]) if len(self.window.of) == 2 else "payment"
        return {"of": self._of, "over": over, "over_many": _many(over), "second": second, "span": span}

    @property
    def _where(self) -> str:
        if self.window.meaning or not self.window.where:
            return ""
        told = [
            f"{self._spoken(name)}: {' or '.join(self._said_of(name, value) for value in values)}"
            for name, values in self.window.where.items()
        ]
        return f" ({'; '.join(told)})".replace("{", "").replace("}", "")

    def _said_of(self, name: str, value: str) -> str:
        field = self.declared.own.get(name)
        is_flag = field is None or field.kind == "flag"  # as are night and refund, which nobody declares
        return {"true": "yes", "false": "no"}.get(value, printable(value)) if is_flag else printable(value)

    @property
    def _spoken_span(self) -> str:
        return _SPANS.get(self.span) or f"{self.span[:-1]} {_SPAN_UNITS[self.span[-1]]}"

    @property
    def _shown(self) -> Callable[[Any], str]:
        if self.measure == "distinct":
            one = self._spoken(self.window.over or "")
            return _number_of(one, _many(one))
        if self.measure in _SHOWN:
            return _SHOWN[self.measure]
        return _money if self.window.over == "amount" else _shown_number(self.declared.field(self.window.over or ""))


_PAYMENTS = _number_of("payment", "payments")
_SHOWN: Mapping[str, Callable[[Any], str]] = {
    "count": _PAYMENTS,
    "hourly_count": _PAYMENTS,
    "fraud_count": _number_of("fraud", "frauds"),
    "share": lambda share: f"{share:.1%}",
    "fraud_rate": lambda share: f"{share:.1%}",
    "seconds_since_last": _duration,
    "seconds_since_first": _duration,
    "distance_from_last": _length,
    "speed_from_last": lambda speed: f"{speed * 3.6:,.0f} km/h",
    "amount_over_mean": lambda times: f"{times:,.1f}",
    "new": lambda new: "new" if new else "known",
    "seen_before": lambda seen: "known" if seen else "new",
}


def spoken(name: str) -> str:
    """A field's name as people say it."""
    return name.replace("_", " ")


def _many(one: str) -> str:
    if one.endswith("y") and one[-2:-1] not in set("aeiou"):
        return f"{one[:-1]}ies"
    return f"{one}es" if one.endswith(("s", "x", "ch", "sh")) else f"{one}s"

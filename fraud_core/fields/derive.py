"""Derived fields: computed when a payment arrives, from a file as over HTTP, before anything personal is hashed or left out.

Texts are derived by one function, of a column for each of its different values; numbers by arithmetic on float64 and whole
microseconds, which is the same for one value and for a column.
"""

import ipaddress
import math
import operator
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from fraud_core.fields.declaration import From
from fraud_core.fields.declared import ALIASES, Declared
from fraud_core.fields.schema import UTC_MICROSECONDS

_HOUR_US = 3_600_000_000


def text_rule(rule: From) -> Callable[[str], str | None]:
    """What a rule on text makes of one text; None where it makes nothing of it."""
    match rule.rule:
        case "part":
            return _top_domain if rule.part == "top_domain" else _domain
        case "first_digits":
            return lambda text: _first_digits(text, rule.first_digits or 0)
        case _:
            four, six = map(int, str(rule.network).split("/"))
            return lambda text: _network(text, four, six)


class Deriving:
    """How the derived fields of one payment follow from the others: a declaration's rules, made into functions once.

    Attributes:
        needs: canonical names of the fields that a payment must bring for it.
    """

    def __init__(self, declared: Declared) -> None:
        self._steps: list[tuple[str, tuple[str, ...], Callable[..., Any]]] = []
        for name, field in declared.derived.items():
            assert field.derivation is not None
            needs = tuple(ALIASES.get(one, one) for one in field.derivation.needs)
            self._steps.append((name, needs, _value_rule(field.derivation)))
        self.needs = frozenset(name for _, needs, _ in self._steps for name in needs) - declared.derived.keys()

    def __call__(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The derived fields, each after those that it is made of.

        Args:
            values: canonical names -> values, as they were given: text, float, bool, aware datetime, amount_cents int; None:
                missing. A card or another personal id is still the text itself.
        """
        known = dict(values)
        found = {}
        for name, needs, derive in self._steps:
            given = [known.get(one) for one in needs]
            known[name] = found[name] = None if None in given else derive(*given)
        return found


def derived_values(declared: Declared, values: Mapping[str, Any]) -> dict[str, Any]:
    """The derived fields of one payment; see `Deriving`, which who has many of them makes once."""
    return Deriving(declared)(values)


def _value_rule(rule: From) -> Callable[..., Any]:
    """What a rule makes of the values that it needs, none of which is missing."""
    first, second = (100.0 if name in ALIASES else 1.0 for name in (rule.needs[0], rule.needs[-1]))
    match rule.rule:
        case "equal":
            return operator.eq if first == second == 1.0 else lambda one, other: _units(one, first) == _units(other, second)
        case "difference":
            return lambda one, other: _hours(one, other) if isinstance(one, date) else _units(one, first) - _units(other, second)
        case "hours_since":
            return lambda since, timestamp: _hours(timestamp, since)
        case _:
            of_text = text_rule(rule)
            return lambda text: of_text(str(text))


def _units(value: Any, scale: float) -> Any:
    """Amounts are cents in raw, and currency units to people."""
    return value if scale == 1.0 else value / scale


def _hours(later: date, earlier: date) -> float:
    return float((_moment(later) - _moment(earlier)) // timedelta(microseconds=1)) / _HOUR_US


def _moment(time: date) -> datetime:
    """A time, or the midnight at which a day begins, in UTC."""
    return time if isinstance(time, datetime) else datetime(time.year, time.month, time.day, tzinfo=UTC)


def derive_columns(declared: Declared, frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with the derived fields as further columns.

    Args:
        declared: what is derived.
        frame: canonical columns as in `derived_values`; a column that is not there is missing in all rows.
    """
    for name, field in declared.derived.items():
        rule = field.derivation
        assert rule is not None
        needs = [ALIASES.get(one, one) for one in rule.needs]
        if not set(needs) <= set(frame.columns):
            dtype = next(column.dtype for column in declared.columns if column.name == name)
            frame = frame.with_columns(pl.lit(None, dtype).alias(name))
            continue
        frame = frame.with_columns(_column(rule, frame, needs).alias(name))
    return frame


def _column(rule: From, frame: pl.DataFrame, needs: list[str]) -> pl.Expr | pl.Series:
    units = [_in_units(one, name, frame.schema[name]) for one, name in zip(rule.needs, needs, strict=True)]
    first, second = units[0], units[-1]
    match rule.rule:
        case "equal":
            return first == second
        case "difference" if frame.schema[needs[0]].is_temporal():
            return _divided((first - second).dt.total_microseconds(), _HOUR_US)
        case "difference":
            return first.cast(pl.Float64) - second.cast(pl.Float64)
        case "hours_since":
            return _divided((second - first).dt.total_microseconds(), _HOUR_US)
        case _:
            texts = frame[needs[0]].unique().drop_nulls()
            derived = pl.Series([text_rule(rule)(text) for text in texts.to_list()], dtype=pl.String)
            return frame[needs[0]].replace_strict(texts, derived, default=None, return_dtype=pl.String)


def _in_units(written: str, name: str, dtype: pl.DataType) -> pl.Expr:
    """A column as people know it: cents as currency units, days as the midnights at which they begin in UTC."""
    column = pl.col(name)
    if written in ALIASES:
        return _divided(column, 100)
    return column.cast(UTC_MICROSECONDS) if dtype == pl.Date else column


def _divided(numbers: pl.Expr, by: int) -> pl.Expr:
    """A column divided as one value is: Polars multiplies by the reciprocal, which is another number in the last bit."""

    def divided(column: pl.Series) -> pl.Series:
        return pl.Series(column.cast(pl.Float64).fill_null(math.nan).to_numpy() / float(by)).fill_nan(None)

    return numbers.map_batches(divided, return_dtype=pl.Float64)


def _domain(text: str) -> str | None:
    """The domain of an e-mail address, in lower case; of text without @ all of it."""
    return text.rpartition("@")[2].strip().rstrip(".").lower() or None


def _top_domain(text: str) -> str | None:
    domain = _domain(text)
    return None if domain is None else domain.rpartition(".")[2] or None


def _first_digits(text: str, length: int) -> str | None:
    """The digits at the beginning, whatever parts them; None where there are too few."""
    digits = text.replace(" ", "").replace("-", "")
    return digits[:length] if digits.isascii() and digits.isdigit() and len(digits) > length else None


def _network(text: str, four: int, six: int) -> str | None:
    """The network that an address lies in; an IPv4 address within IPv6 is taken as one."""
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    length = four if address.version == 4 else six
    beyond = address.max_prefixlen - length
    return f"{type(address)(int(address) >> beyond << beyond)}/{length}"

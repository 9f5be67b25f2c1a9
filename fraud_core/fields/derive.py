"""Derived fields: computed when a payment arrives, from a file as over HTTP, before anything personal is hashed or left out.

Texts are derived by one function, of a column for each of its different values; numbers by arithmetic on float64 and whole
microseconds, which is the same for one value and for a column.
"""

import ipaddress
import math
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


def derived_values(declared: Declared, values: Mapping[str, Any]) -> dict[str, Any]:
    """The derived fields of one payment.

    Args:
        declared: what is derived.
        values: canonical names -> values, as they were given: text, float, bool, aware datetime, amount_cents int; None: missing.
            A card or another personal id is still the text itself.
    """
    known = dict(values)
    for name, field in declared.derived.items():
        assert field.derivation is not None
        known[name] = _derived(field.derivation, [known.get(ALIASES.get(one, one)) for one in field.derivation.needs])
    return {name: known[name] for name in declared.derived}


def _derived(rule: From, given: list[Any]) -> Any:
    if any(value is None for value in given):
        return None
    match rule.rule:
        case "equal":
            return _units(rule, 0, given[0]) == _units(rule, 1, given[1])
        case "difference":
            first, second = given
            return _hours(first, second) if isinstance(first, date) else _units(rule, 0, first) - _units(rule, 1, second)
        case "hours_since":
            return _hours(given[1], given[0])
        case _:
            return text_rule(rule)(str(given[0]))


def _hours(later: date, earlier: date) -> float:
    return float((_moment(later) - _moment(earlier)) // timedelta(microseconds=1)) / _HOUR_US


def _moment(time: date) -> datetime:
    """A time, or the midnight at which a day begins, in UTC."""
    return time if isinstance(time, datetime) else datetime(time.year, time.month, time.day, tzinfo=UTC)


def _units(rule: From, at: int, value: Any) -> Any:
    """Amounts are cents in raw, and currency units to people."""
    return value / 100.0 if rule.needs[at] in ALIASES else value


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
    digits = "".join(mark for mark in text if mark in "0123456789")
    is_number = bool(text) and all(mark in "0123456789 -" for mark in text)
    return digits[:length] if is_number and len(digits) > length else None


def _network(text: str, four: int, six: int) -> str | None:
    """The network that an address lies in; an IPv4 address within IPv6 is taken as one."""
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    length = four if address.version == 4 else six
    return str(ipaddress.ip_network(f"{address}/{length}", strict=False))

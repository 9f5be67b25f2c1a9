"""The canonical number of a value: an amount in cents, degrees, inhabitants, whatever type it comes in.

One amount as text, whole number, decimal or float of either size is one amount, at the intake, over HTTP, in files and at the
desk. Each rule stands here twice, side by side: for one value, and for a column. A truth value is no number. A float of 32 bits
is read as the decimal that it was written as.
"""

import math
import re
from decimal import Decimal
from typing import Any

import polars as pl

from fraud_core.units.canonical_text import WHITE_SPACE

NO_AMOUNT = "is not an amount with at most two decimals"

# A text may carry what binary floating point leaves behind (69.470000000000006): six zeros or nines behind the second decimal.
_AMOUNT = r"^([+-]?)([0-9]{1,15})(?:\.(?:([0-9]{1,2})|([0-9]{2})(?:0+|0{6}[0-9]+|(9{6})[0-9]+)))?$"
_NUMBER = r"^[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?$"
_WHOLE = r"^([+-]?[0-9]{1,18})(?:\.0*)?$"  # 333497.0 is what a gap makes of 333497
_match_amount, _match_number, _match_whole = (re.compile(one[:-1], re.ASCII).fullmatch for one in (_AMOUNT, _NUMBER, _WHOLE))

# In cents: how large a float may be, and how far from whole cents relative to its size. Where the neighbours of a 32-bit float
# lie a cent apart, it no longer tells which cent was meant.
_PRECISION = {False: (1e15, 1e-13), True: (2.0**23, 2.0**-24)}
_NEAR = 1e-6
# What may part thousands, as a regular expression: with its likes.
_MARKS = {".": r"\.", ",": ",", "'": "['\u2019]", " ": "[ \u00a0\u202f]"}
THOUSANDS = tuple(_MARKS)
_EXACT = 2.0**53


def cents_of(value: Any, *, single: bool = False) -> int | None:
    """An amount in cents, exactly; None where the value is no amount with at most two decimals.

    Args:
        value: of any type. A float must lie as near to whole cents as its precision allows.
        single: whether it stems from a float of 32 bits.
    """
    match value:
        case bool():
            return None
        case float():
            limit, precision = _PRECISION[single]
            hundredfold = value * 100.0
            size = abs(hundredfold)
            if not size < limit:
                return None
            cents = round(hundredfold)
            return cents if abs(hundredfold - cents) < _NEAR + size * precision else None
        case str() | int() | Decimal():
            parts = _match_amount(_written(value))
            if parts is None:
                return None
            cents = int(parts[2]) * 100 + int((parts[3] or parts[4] or "").ljust(2, "0")) + (parts[5] is not None)
            return -cents if parts[1] == "-" else cents
        case _:
            return None


def cents(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """`cents_of` for a column of this type: int64, null where a value is no amount."""
    if dtype.is_float():
        limit, precision = _PRECISION[dtype == pl.Float32]
        hundredfold = column.cast(pl.Float64) * 100.0
        near = (hundredfold - hundredfold.round()).abs() < _NEAR + hundredfold.abs() * precision
        is_amount = hundredfold.is_finite() & (hundredfold.abs() < limit) & near
        return pl.when(is_amount).then(hundredfold.round().cast(pl.Int64, strict=False))
    parts = _text(column, dtype).str.extract_groups(_AMOUNT).struct
    hundredths = pl.coalesce(parts["3"], parts["4"], pl.lit("0")).str.pad_end(2, "0").cast(pl.Int64, strict=False)
    amount = parts["2"].cast(pl.Int64, strict=False) * 100 + hundredths + parts["5"].is_not_null().cast(pl.Int64)
    return pl.when(parts["1"] == "-").then(-amount).otherwise(amount)


def number_of(value: Any, *, single: bool = False) -> float | None:
    """A number such as degrees; None where the value is none, or is not finite. See `cents_of` for the arguments."""
    match value:
        case bool():
            return None
        case float() if single:
            import numpy as np  # noqa: PLC0415 - only for columns of 32-bit floats

            number = float(str(np.float32(value)))
        case float():
            number = value
        case str() | int() | Decimal():
            text = _written(value)
            number = float(text) if _match_number(text) else math.nan
        case _:
            return None
    return number if math.isfinite(number) else None


def numbers(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """`number_of` for a column of this type: float64, null where a value is no number."""
    if dtype == pl.Float64 or dtype.is_integer():
        number = column.cast(pl.Float64)
    elif dtype == pl.Float32:
        number = column.cast(pl.String).cast(pl.Float64, strict=False)
    else:
        text = _text(column, dtype)
        number = pl.when(text.str.contains(_NUMBER)).then(text.cast(pl.Float64, strict=False))
    return pl.when(number.is_finite()).then(number)


def whole_of(value: Any) -> int | None:
    """A whole number such as a count of people; None where the value is none, or has lost digits."""
    match value:
        case bool():
            return None
        case float():
            return int(value) if value.is_integer() and abs(value) < _EXACT else None
        case str() | int() | Decimal():
            found = _match_whole(_written(value))
            return int(found[1]) if found else None
        case _:
            return None


def wholes(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """`whole_of` for a column of this type: int64, null where a value is no whole number."""
    if dtype.is_float():
        number = column.cast(pl.Float64)
        return pl.when((number == number.round()) & (number.abs() < _EXACT)).then(number.cast(pl.Int64, strict=False))
    return _text(column, dtype).str.extract(_WHOLE, 1).cast(pl.Int64, strict=False)


def with_points(text: pl.Expr, decimal: str, thousands: str) -> pl.Expr:
    """A column of numbers as text, written with a decimal point and no separator of thousands; what is written otherwise than
    declared is left so that it is no number.

    Args:
        text: the column.
        decimal: what stands before the decimals: a point or a comma.
        thousands: what parts thousands, of `THOUSANDS`; empty: nothing does.
    """
    if thousands:
        mark = _MARKS[thousands]
        grouped = rf"^[+-]?[0-9]{{1,3}}(?:{mark}[0-9]{{3}})+(?:{re.escape(decimal)}[0-9]*)?$"
        text = pl.when(text.str.contains(grouped)).then(text.str.replace_all(mark, "")).otherwise(text)
    return text if decimal == "." else text.str.replace_many([",", "."], [".", ","])


def point_of_money(text: str) -> str:
    """An amount of which nobody declared how it is written, with a point for a decimal comma where that can mean nothing else:
    thousands have three digits behind it."""
    return text.replace(",", ".") if _match_comma_money(text) else text


def point_of_degrees(text: str) -> str:
    """Likewise degrees, which have no thousands."""
    return text.replace(",", ".") if _match_comma_degrees(text) else text


_match_comma_money = re.compile(r"[+-]?[0-9]{1,12},[0-9]{1,2}", re.ASCII).fullmatch
_match_comma_degrees = re.compile(r"[+-]?[0-9]{1,3},[0-9]+", re.ASCII).fullmatch


def _written(value: str | int | Decimal) -> str:
    """The value as text; empty where it is longer than any number of ours."""
    match value:
        case str():
            return value.strip(WHITE_SPACE)
        case int():
            return str(value) if abs(value) < 10**18 else ""
        case Decimal():
            return f"{value:f}" if value.is_finite() and abs(value) < 10**18 else ""


def _text(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """`_written` for a column of text, whole numbers or decimals; all is null in a column of another type."""
    is_read = dtype in (pl.String, pl.Categorical, pl.Enum) or dtype.is_integer() or dtype.is_decimal()
    text = column.cast(pl.String)
    return text.str.strip_chars(WHITE_SPACE) if is_read else pl.when(False).then(text)

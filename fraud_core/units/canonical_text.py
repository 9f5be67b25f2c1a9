"""The canonical text of a value that names something: a card, a merchant, a category, an id, whatever type it comes in.

One card as text, whole number, float or decimal is one card, at the intake, over HTTP, in files and at the desk. `canonical_text`
reads one value and `canonical_texts` a column. Where digits may be lost, what they give is a text for which `has_lost_digits`
and `have_lost_digits` are true, and which is refused: all cards of 16 digits are one in the notation 4.5E+15.
"""

import math
import re
from decimal import Decimal

import polars as pl

LOST_DIGITS = "is a floating-point number that has lost digits; keep the column as text or as whole numbers"

# Unicode's property White_Space, which Polars and pydantic strip, and Python nearly.
WHITE_SPACE = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_EXACT = 2.0**53  # below this, 64-bit floats tell whole numbers apart
_EXACT_32 = 2.0**24
_SHORTEST = 1e-4  # from here on, Python and Polars write fractions alike
_INEXACT = "0.0E+0"  # stands for a float that names nothing exactly, in the notation that is refused
_WHOLE = r"^(-?[0-9]+)\.0+$"
# A point or a plus tells scientific notation from names such as 7E11.
_LOST = r"^[+-]?[0-9]+(?:\.[0-9]*[eE][+-]?[0-9]+|[eE]\+[0-9]+)$|^-?[0-9]{16,}\.0+$"
_find_whole, _find_lost = re.compile(_WHOLE, re.ASCII).match, re.compile(_LOST, re.ASCII).match
_BEGINS_NUMBERS = frozenset("+-0123456789")  # most names do not, and are told apart at once
_BOOLEANS = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}


def canonical_text(value: str | bool | int | float | Decimal) -> str | None:
    """The text of one value; None where it is missing (empty text, a float that is no number).

    Raises:
        TypeError: it is of another type, or longer than any name.
    """
    match value:
        case str():
            return _of_text(value)
        case bool():
            return "true" if value else "false"
        case int() if abs(value) < 10**200:
            return str(value)
        case float():
            return _of_float(value)
        case Decimal() if value.is_finite() and abs(value) < 10**200:
            return str(int(value)) if value == value.to_integral_value() else f"{value:f}"
        case _:
            raise TypeError("neither text nor a number")


def is_plain(text: str) -> bool:
    """Whether a text is seen at once to be canonical, printable and no number that has lost digits. Most are; others may be."""
    return (
        text.isascii()
        and text.isprintable()
        and "." not in text
        and "+" not in text
        and text == text.strip() != ""
        and text not in _BOOLEANS
    )


def has_lost_digits(text: str) -> bool:
    """Whether a canonical text is that of a number whose digits are lost."""
    return text[:1] in _BEGINS_NUMBERS and _find_lost(text) is not None


def _of_text(value: str) -> str | None:
    text = value.strip(WHITE_SPACE)
    if text.endswith("0"):
        whole = _find_whole(text)
        if whole is not None and _is_exact(whole[1]):
            return whole[1]
    return _BOOLEANS.get(text, text) or None


def _is_exact(whole: str) -> bool:
    return len(whole) <= 18 and abs(int(whole)) < _EXACT


def _of_float(value: float) -> str | None:
    if not math.isfinite(value):
        return None
    if abs(value) >= _EXACT:
        return _INEXACT
    if value.is_integer():
        return str(int(value))
    return repr(value) if abs(value) >= _SHORTEST else _INEXACT


def canonical_texts(name: str, dtype: pl.DataType) -> pl.Expr:
    """`canonical_text` of a column of this type: text, null where a value is missing."""
    column = pl.col(name)
    if dtype == pl.Boolean:
        return pl.when(column).then(pl.lit("true")).when(~column).then(pl.lit("false"))
    if dtype.is_integer():
        return column.cast(pl.String)
    if dtype.is_float():
        size = column.abs()
        is_exact = size < (_EXACT_32 if dtype == pl.Float32 else _EXACT)
        whole = column.cast(pl.Int64, strict=False).cast(pl.String)
        fraction = pl.when(size >= _SHORTEST).then(column.cast(pl.String)).otherwise(pl.lit(_INEXACT))
        told = pl.when(~is_exact).then(pl.lit(_INEXACT)).when(column == column.round()).then(whole).otherwise(fraction)
        return pl.when(column.is_finite()).then(told)
    text = column.cast(pl.String)
    if dtype.is_decimal():
        return text.str.replace(r"\.0+$", "")
    stripped = text.str.strip_chars(WHITE_SPACE)
    found = stripped.str.extract(_WHOLE, 1)
    is_exact = (found.str.len_bytes() <= 18) & (found.cast(pl.Int64, strict=False).abs() < _EXACT)
    return pl.when(is_exact).then(found).when(stripped != "").then(stripped.replace(_BOOLEANS))


def have_lost_digits(text: pl.Expr, separator: str = "") -> pl.Expr:
    """`has_lost_digits` for a column of canonical texts, or of such texts joined by a separator, where any one counts."""
    if not separator:
        return text.str.contains(_LOST)
    return text.str.split(separator).list.eval(pl.element().str.contains(_LOST)).list.any()

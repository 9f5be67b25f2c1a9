"""Amounts as they are: of currencies with 0, 2 or 3 decimals, of several currencies by daily rates, with refunds and float tails.

Amounts are kept as whole hundredths of the unit of one currency, whatever decimals that has. Each rule stands here twice, side
by side: for one amount, as a scorer gets it, and for a column, as the intake does.
"""

import math
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from fraud_core.fields.declaration import Amounts
from fraud_core.sources.money import SEPARATOR, KnownRates, Rates
from fraud_core.units.canonical_number import NO_AMOUNT, cents, cents_of, number_of, numbers
from fraud_core.units.currency import DECIMALS, all_in_base, in_base

NO_RATE = "has no rate of its currency for its day"
_LARGEST = 1e15
_SHOWN = 12  # currencies, in a refusal


class Amount(NamedTuple):
    """An amount that was read: cents of the base currency, and whether it was below zero where such are refunds."""

    cents: int
    is_refund: bool


def amount_of(value: Any, amounts: Amounts, currency: str | None, day: date, rates: KnownRates | None) -> Amount | str:
    """An amount as it was given; or, in words, why it is refused.

    Args:
        value: of any type.
        amounts: how it is read.
        currency: that it is in, where payments say so.
        day: of the payment, by the source's clocks.
        rates: by which it is converted, where there are several currencies.
    """
    code = currency if amounts.by else amounts.base
    if amounts.by and code != amounts.base and (rates is None or code not in rates.currencies):
        return unknown_currency(amounts.base, () if rates is None else rates.currencies)
    exact = _hundredths_of(value, amounts, code)
    hundredths = exact
    if hundredths is None and amounts.decimals == "round" and (number := number_of(value)) is not None:
        near = math.floor(abs(number) * 100.0 + 0.5)
        hundredths = None if near >= _LARGEST else -near if number < 0 else near
    if hundredths is None:
        return refusal(amounts)
    is_refund = amounts.negative == "refund" and hundredths < 0
    hundredths = abs(hundredths) if is_refund else hundredths
    if not amounts.by:
        return Amount(int(hundredths), is_refund)
    rate = 1.0 if code == amounts.base else rates.on(str(code), day) if rates is not None else None
    converted = None if rate is None else in_base(hundredths, rate)
    return NO_RATE if converted is None else Amount(converted, is_refund)


class AmountColumns(NamedTuple):
    """Amounts of a column.

    Attributes:
        cents: of the base currency; null where there is none.
        known: whether the currency is; true where payments do not say it.
        is_amount: whether it is an amount with the decimals of its currency.
        is_refund: whether it was below zero where such are refunds.
        is_rounded: whether decimals were rounded away.
    """

    cents: pl.Expr
    known: pl.Expr
    is_amount: pl.Expr
    is_refund: pl.Expr
    is_rounded: pl.Expr


def amount_columns(
    told: pl.Expr, dtype: pl.DataType, amounts: Amounts, code: pl.Expr, day: pl.Expr, rates: Rates | None
) -> AmountColumns:
    """`amount_of` for a column of this type; what is refused, and why, follows from its attributes in their order."""
    exact = _hundredths(told, dtype, amounts, code)
    hundredths, is_rounded = exact, pl.lit(False)
    if amounts.decimals == "round":
        number = numbers(told, dtype)
        near = (number.abs() * 100.0 + 0.5).floor()
        sized = pl.when(near < _LARGEST).then(near.cast(pl.Int64, strict=False))
        rounded = pl.when(number < 0).then(-sized).otherwise(sized)
        hundredths, is_rounded = pl.coalesce(exact, rounded), exact.is_null() & rounded.is_not_null()
    is_refund = (hundredths < 0).fill_null(value=False) if amounts.negative == "refund" else pl.lit(False)
    hundredths = hundredths.abs() if amounts.negative == "refund" else hundredths
    is_amount = hundredths.is_not_null()
    if not amounts.by or rates is None:
        return AmountColumns(hundredths, pl.lit(True), is_amount, is_refund, is_rounded)
    found = pl.concat_str([code, day.cast(pl.String)], separator=SEPARATOR).replace_strict(
        rates.by_day, default=None, return_dtype=pl.Float64
    )
    rate = pl.when(code == amounts.base).then(pl.lit(1.0)).otherwise(found)
    known = code.is_in([*rates.currencies, amounts.base]).fill_null(value=False)
    return AmountColumns(all_in_base(hundredths, rate), known, is_amount, is_refund, is_rounded)


def refusal(amounts: Amounts) -> str:
    """Why what is no amount is refused."""
    if amounts.decimals == "round":
        return "is not an amount"
    if amounts.by:
        return "is not an amount with the decimals of its currency"
    match DECIMALS.get(amounts.base):
        case 0:
            return f"is not an amount in {amounts.base}, which has no decimals"
        case 3:
            return f'{NO_AMOUNT}; hundredths are kept: declare decimals = "round" for amounts with three decimals'
        case _:
            return NO_AMOUNT


def unknown_currency(base: str, currencies: tuple[str, ...]) -> str:
    """Why an amount in a currency that nobody knows is refused."""
    known = [base, *(one for one in currencies if one != base)]
    return f"is in a currency without rates; there are {', '.join(known[:_SHOWN])}"


def _hundredths_of(value: Any, amounts: Amounts, code: str | None) -> float | None:
    """Hundredths of the unit of its own currency, where an amount has no more decimals than that; else None."""
    exact = cents_of(value)
    match DECIMALS.get(code or "", 2):
        case 0:
            return exact if exact is not None and exact % 100 == 0 else None
        case 3 if amounts.by:
            number = number_of(value)
            if number is None:
                return None
            thousandths = float(round(number * 1000.0)) if abs(number) < _LARGEST else math.inf
            is_near = abs(number * 1000.0 - thousandths) < 1e-6 + abs(thousandths) * 1e-12
            return thousandths / 10.0 if is_near and abs(thousandths) < _LARGEST else None
        case _:
            return exact


def _hundredths(told: pl.Expr, dtype: pl.DataType, amounts: Amounts, code: pl.Expr) -> pl.Expr:
    """`_hundredths_of` for a column."""
    exact = cents(told, dtype)
    whole = pl.when(exact % 100 == 0).then(exact)
    if not amounts.by:
        return whole if DECIMALS.get(amounts.base) == 0 else exact
    number = numbers(told, dtype)
    thousandths = (number * 1000.0).round()
    is_near = (number * 1000.0 - thousandths).abs() < 1e-6 + thousandths.abs() * 1e-12
    # Divided by NumPy: Polars multiplies by the reciprocal, which is another number in the last bit.
    tenths = thousandths.map_batches(lambda column: pl.Series(np.asarray(column.to_numpy()) / 10.0), return_dtype=pl.Float64)
    return (
        pl.when(code.is_in(_having(3)))
        .then(pl.when(is_near & (thousandths.abs() < _LARGEST)).then(tenths))
        .when(code.is_in(_having(0)))
        .then(whole.cast(pl.Float64))
        .otherwise(exact.cast(pl.Float64))
    )


def _having(decimals: int) -> list[str]:
    return [code for code, has in DECIMALS.items() if has == decimals]

"""Amounts as they are: of currencies with 0, 2 or 3 decimals, of several currencies by daily rates, with refunds and float tails.

Amounts are kept as whole hundredths of the unit of one currency, whatever decimals that has.
"""

import polars as pl

from fraud_core.fields.declared import REFUND
from fraud_core.intake.values.readings import Reading, numeric
from fraud_core.sources.columns import AmountColumn
from fraud_core.sources.money import SEPARATOR, Currency, rates_of
from fraud_core.sources.source import Source
from fraud_core.units.canonical_number import NO_AMOUNT, cents, numbers
from fraud_core.units.currency import DECIMALS, all_in_base

ROUNDED = "amount rounded"  # column of a parsed chunk: whether decimals were rounded away
NO_RATE = "has no rate of its currency for its day"
_LARGEST = 1e15


def amount(declared: AmountColumn, chunk: pl.Schema, source: Source) -> Reading:
    """How amounts are read. Where the currency is a column, `amount_cents` is made of the payment's day, too."""
    given, dtype = numeric(declared, chunk, source)
    told, value = pl.col("amount_cents?"), pl.col("amount_cents")
    currency = source.currency
    exact, reason = _exact(told, dtype, currency)
    hundredths = exact
    also: dict[str, pl.Expr] = {}
    if declared.decimals == "round":
        near = (numbers(told, dtype).abs() * 100.0 + 0.5).floor()
        sized = pl.when(near < _LARGEST).then(near.cast(pl.Int64, strict=False))
        rounded = pl.when(numbers(told, dtype) < 0).then(-sized).otherwise(sized)
        hundredths = pl.coalesce(exact, rounded)
        also[ROUNDED] = exact.is_null() & rounded.is_not_null()
        reason = "is not an amount"
    if declared.negative == "refund":
        also[REFUND] = (hundredths < 0).fill_null(value=False)
        hundredths = hundredths.abs()
    missing = (told.is_null(), "is missing")
    wrong = (told.is_not_null() & hundredths.is_null(), reason)
    if currency is None or not currency.column:
        return Reading(given, hundredths, (missing, wrong), also=also)
    rates = rates_of(currency)
    known = pl.col("currency?").is_in([*rates.currencies, currency.base])
    some = ", ".join([currency.base, *(one for one in rates.currencies if one != currency.base)][:12])
    checks = (
        missing,
        (told.is_not_null() & ~known.fill_null(value=False), f"is in a currency without rates; there are {some}"),
        wrong,
        (pl.col("timestamp").is_not_null() & value.is_null(), NO_RATE),
    )
    beside = {"currency?": pl.col(currency.column).cast(pl.String).str.strip_chars()}
    return Reading(given, all_in_base(hundredths, _rate(currency, source)), checks, also=also, beside=beside)


def _rate(currency: Currency, source: Source) -> pl.Expr:
    """The rate of a payment's currency on its day, by the source's clocks."""
    day = pl.col("timestamp").dt.convert_time_zone(source.timezone).dt.date().cast(pl.String)
    code = pl.col("currency?")
    found = pl.concat_str([code, day], separator=SEPARATOR).replace_strict(
        rates_of(currency).by_day, default=None, return_dtype=pl.Float64
    )
    return pl.when(code == currency.base).then(pl.lit(1.0)).otherwise(found)


def _exact(told: pl.Expr, dtype: pl.DataType, currency: Currency | None) -> tuple[pl.Expr, str]:
    """Amounts in hundredths where they have no more decimals than their currency, and why others are refused."""
    hundredths = cents(told, dtype)
    if currency is None:
        return hundredths, NO_AMOUNT
    whole = pl.when(hundredths % 100 == 0).then(hundredths)
    if not currency.column:
        match DECIMALS[currency.base]:
            case 0:
                return whole, f"is not an amount in {currency.base}, which has no decimals"
            case 3:
                advice = 'hundredths are kept: declare decimals = "round" for amounts with three decimals'
                return hundredths, f"{NO_AMOUNT}; {advice}"
            case _:
                return hundredths, NO_AMOUNT
    number = numbers(told, dtype)
    thousandths = (number * 1000.0).round()
    is_near = (number * 1000.0 - thousandths).abs() < 1e-6 + thousandths.abs() * 1e-12
    of_three = pl.when(is_near & (thousandths.abs() < _LARGEST)).then(thousandths / 10.0)
    code = pl.col("currency?")
    by_decimals = (
        pl.when(code.is_in(_having(3)))
        .then(of_three)
        .when(code.is_in(_having(0)))
        .then(whole.cast(pl.Float64))
        .otherwise(hundredths.cast(pl.Float64))
    )
    return by_decimals, "is not an amount with the decimals of its currency"


def _having(decimals: int) -> list[str]:
    return [code for code, has in DECIMALS.items() if has == decimals]

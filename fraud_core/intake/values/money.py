"""Amounts of a source's files, by the rules of `sources.amounts`: what is read of which columns, and what refuses a row."""

import polars as pl

from fraud_core.fields.declared import REFUND
from fraud_core.intake.values.readings import Reading, numeric
from fraud_core.sources.amounts import NO_RATE, amount_columns, refusal, unknown_currency
from fraud_core.sources.columns import AmountColumn
from fraud_core.sources.money import rates_of
from fraud_core.sources.source import Source

ROUNDED = "amount rounded"  # column of a parsed chunk: whether decimals were rounded away


def amount(declared: AmountColumn, chunk: pl.Schema, source: Source) -> Reading:
    """How amounts are read. Where the currency is a field, `amount_cents` is made of the payment's day, too."""
    given, dtype = numeric(declared, chunk, source)
    told, amounts = pl.col("amount_cents?"), source.amounts
    several = source.currency is not None and bool(amounts.by)
    rates = rates_of(source.currency) if source.currency is not None and several else None
    day = pl.col("timestamp").dt.convert_time_zone(source.timezone).dt.date()
    read = amount_columns(told, dtype, amounts, pl.col(f"{amounts.by}?"), day, rates)
    also = {ROUNDED: read.is_rounded} if amounts.decimals == "round" else {}
    also |= {REFUND: read.is_refund} if amounts.negative == "refund" else {}
    missing = (told.is_null(), "is missing")
    wrong = (told.is_not_null() & ~read.is_amount, refusal(amounts))
    if rates is None:
        return Reading(given, read.cents, (missing, wrong), also=also)
    checks = (
        missing,
        (told.is_not_null() & ~read.known, unknown_currency(amounts.base, rates.currencies)),
        wrong,
        (pl.col("timestamp").is_not_null() & pl.col("amount_cents").is_null(), NO_RATE),
    )
    return Reading(given, read.cents, checks, also=also, comes_last=True)

"""Which labels stand, for a table of them (batch engine of `resolve`, which says the same of one payment)."""

from collections.abc import Iterable

import polars as pl

from fraud_core.fields.schema import UTC_MICROSECONDS
from fraud_core.labels.resolve import LEAD, WEIGHT, Label

SCHEMA = {
    "sequence": pl.Int64(),
    "transaction_id": pl.String(),
    "outcome": pl.String(),
    "source": pl.String(),
    "author": pl.String(),
    "role": pl.String(),
    "event_time": UTC_MICROSECONDS,
    "known_at": UTC_MICROSECONDS,
}


def table_of(labels: Iterable[Label]) -> pl.DataFrame:
    """Labels as they are exported (see `SCHEMA`), in the order given."""
    return pl.DataFrame([{name: getattr(label, name) for name in SCHEMA} for label in labels], schema=SCHEMA)


def standing(labels: pl.DataFrame) -> pl.DataFrame:
    """What is to be believed of each payment: transaction_id and outcome, one row a payment."""
    best = effective(labels).group_by("transaction_id", maintain_order=True).last()
    return best.select("transaction_id", "outcome")


def effective(labels: pl.DataFrame) -> pl.DataFrame:
    """The labels that were believed when they became known, in that order: none weighs less than an earlier one."""
    is_lead = (pl.col("source") == "analyst") & (pl.col("role") == LEAD)
    weight = pl.col("source").replace_strict(WEIGHT, return_dtype=pl.Int64) + is_lead.fill_null(False).cast(pl.Int64)
    ordered = labels.with_columns(weight.alias("weight")).sort("known_at", "sequence")
    return ordered.filter(pl.col("weight") >= pl.col("weight").cum_max().over("transaction_id"))

"""A payment as JSON, in the decision log and in history: the one place that says how it is written there and read again.

Times are whole microseconds since 1970 UTC, days ISO text, everything else as it is; a field that was not given is null.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import polars as pl

from fraud_core.transactions.transaction import Transaction
from fraud_core.units.time import from_microseconds, to_microseconds


class LoggedTransaction(NamedTuple):
    """What the decision log keeps of a payment; nothing personal has a place in it.

    Attributes:
        timestamp: the payment's own time; aware.
        amount_cents: the amount.
        merchant: name or number of the merchant.
        category: of the merchant.
        merchant_latitude: degrees north.
        merchant_longitude: degrees east.
        city_population: inhabitants of the home town.
    """

    timestamp: datetime
    amount_cents: int
    merchant: str | None
    category: str | None
    merchant_latitude: float | None
    merchant_longitude: float | None
    city_population: int | None

    @classmethod
    def of(cls, transaction: Transaction) -> "LoggedTransaction":
        """What is kept of a payment."""
        return cls._make(getattr(transaction, name) for name in cls._fields)

    @classmethod
    def read(cls, columns: Mapping[str, Any]) -> "LoggedTransaction":
        """The payment of `columns`.

        Raises:
            KeyError, TypeError: these are not the columns of a payment.
        """
        given = {name: columns.get(name) for name in cls._fields[2:]}
        return cls(from_microseconds(columns["timestamp"]), columns["amount_cents"], **given)

    def columns(self) -> dict[str, Any]:
        """Canonical columns as JSON values."""
        return {**self._asdict(), "timestamp": to_microseconds(self.timestamp)}


def columns_of(transaction: Transaction) -> dict[str, Any]:
    """The canonical columns of a payment as JSON values, personal ones too, without its id and card: what history records."""
    columns: Mapping[str, Any] = transaction.__dict__
    plain = {name: value for name, value in columns.items() if name not in {"transaction_id", "card"}}
    return plain | {"timestamp": to_microseconds(transaction.timestamp)}


def table_of(rows: Iterable[Mapping[str, Any]], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Recorded payments (see `columns_of`) as a table.

    Args:
        rows: parsed JSON; what a row lacks is null.
        schema: the columns wanted, with canonical types.
    """
    stored: dict[str, pl.DataType] = {}
    read: list[pl.Expr] = []
    for name, dtype in schema.items():
        match dtype:
            case pl.Datetime():
                stored[name] = pl.Int64()
                read.append(pl.col(name).cast(dtype))
            case pl.Date():
                stored[name] = pl.String()
                read.append(pl.col(name).str.to_date("%Y-%m-%d"))
            case _:
                stored[name] = dtype
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=stored).with_columns(read)

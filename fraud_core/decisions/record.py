"""A payment as JSON, in the decision log and in history: the one place that says how it is written there and read again.

Times are whole microseconds since 1970 UTC, days ISO text, everything else as it is; a field that was not given is null.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

import polars as pl
from pydantic import SecretStr

from fraud_core.transactions.transaction import Transaction
from fraud_core.units.time import from_microseconds, to_microseconds

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_STANDARD = tuple(name for name in Transaction.model_fields if name not in {"transaction_id", "card"})


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
        own: the source's own fields that were given or derived, and what was kept of fields that nobody declared; as JSON has it,
            times as ISO text.
    """

    timestamp: datetime
    amount_cents: int
    merchant: str | None
    category: str | None
    merchant_latitude: float | None
    merchant_longitude: float | None
    city_population: int | None
    own: Mapping[str, Any] = _NOTHING

    @classmethod
    def of(cls, transaction: Transaction) -> "LoggedTransaction":
        """What is kept of a payment."""
        return cls._make((*(getattr(transaction, name) for name in cls._fields[:-1]), _shown(transaction)))

    @classmethod
    def read(cls, columns: Mapping[str, Any]) -> "LoggedTransaction":
        """The payment of `columns`.

        Raises:
            KeyError, TypeError: these are not the columns of a payment.
        """
        given = {name: columns.get(name) for name in cls._fields[2:-1]}
        own = dict(columns.get("own", _NOTHING))  # rows of release 0.1.0 have none
        return cls(from_microseconds(columns["timestamp"]), columns["amount_cents"], **given, own=own)

    def columns(self) -> dict[str, Any]:
        """Canonical columns as JSON values."""
        columns = {**self._asdict(), "timestamp": to_microseconds(self.timestamp)}
        if not self.own:
            del columns["own"]
        return columns


def _shown(transaction: Transaction) -> Mapping[str, Any]:
    """The own fields that may be seen, and what was kept of unknown ones."""
    declared, kept = transaction.model_declared, transaction.model_extra or {}
    if not declared.own and not kept:
        return _NOTHING
    columns = transaction.__dict__
    names = (name for name, field in declared.own.items() if not field.personal)
    own = {name: columns[name] for name in names if columns[name] is not None}
    own |= {name: value for name, value in kept.items() if value is not None}
    return {name: one.isoformat() if isinstance(one, datetime) else one for name, one in own.items()}


def columns_of(transaction: Transaction) -> dict[str, Any]:
    """The standard columns of a payment as JSON values, personal ones too, without its id and card: what history records."""
    columns: Mapping[str, Any] = transaction.__dict__
    plain = {name: columns[name] for name in _STANDARD}
    return plain | {"timestamp": to_microseconds(transaction.timestamp)}


def own_columns_of(transaction: Transaction, hashed: Callable[[SecretStr], str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Its own columns likewise, as far as there are any: those that it brought, personal ids as their hashes, and those that
    follow from it, in the order of their names. The first alone say which payment it is: what follows depends on the day's model.

    Args:
        hashed: what a personal id is known by.
    """
    declared, columns = transaction.model_declared, transaction.__dict__

    def written(names: Iterable[str]) -> dict[str, Any]:
        return {name: _written(columns[name], hashed) for name in sorted(names) if columns[name] is not None}

    return written(declared.given), written(declared.derived)


def _written(value: Any, hashed: Callable[[SecretStr], str]) -> Any:
    match value:
        case SecretStr():
            return hashed(value)
        case datetime():
            return to_microseconds(value)
        case _:
            return value


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

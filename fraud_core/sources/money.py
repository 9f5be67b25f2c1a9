"""Currency of a source's amounts: one for all, or one a payment with a table of daily rates into one base currency."""

import csv
import hashlib
import math
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import field_validator, model_validator

from fraud_core.errors import SourceError
from fraud_core.sources.columns import Reading
from fraud_core.units.currency import DECIMALS

HEADER = ["date", "currency", "rate"]
SEPARATOR = "\x1f"


class Currency(Reading):
    """Which currency amounts are in.

    Attributes:
        base: the currency that amounts are kept in, by ISO 4217.
        column: the source's own column that says in which currency a payment was made; empty: all are in `base`.
        rates: CSV with date, currency, rate (what one unit of the currency is in `base` on that day, by the source's clocks).
    """

    base: str
    column: str = ""
    rates: str = ""

    @field_validator("base")
    @classmethod
    def _in_use(cls, value: str) -> str:
        if value not in DECIMALS:
            raise ValueError(f"'{value}' is no currency of ISO 4217 in use, such as EUR, USD or JPY")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if bool(self.column) != bool(self.rates):
            raise ValueError('give column and rates: currency = { column = "...", base = "EUR", rates = "rates.csv" }')
        return self


def currency_of(given: Any) -> Any:
    """What stands in a TOML as a currency: a code for all payments, or a table."""
    return {"base": given} if isinstance(given, str) else given


class Rates(NamedTuple):
    """Rates of a file.

    Attributes:
        by_day: currency, separator and day -> rate.
        currencies: that it knows.
        sha256: of the file.
    """

    by_day: dict[str, float]
    currencies: tuple[str, ...]
    sha256: str

    def on(self, currency: str, day: date) -> float | None:
        """The rate of a currency on a day."""
        return self.by_day.get(f"{currency}{SEPARATOR}{day}")


def rates_of(currency: Currency) -> Rates:
    """The rates that payments are converted by.

    Raises:
        SourceError: the file is missing, or has something else than one positive rate a day and currency.
    """
    try:
        stat = Path(currency.rates).stat()
        return _read(currency.rates, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise SourceError(f"{currency.rates}: the rates of [currency] cannot be read: {error.strerror}.") from error


@lru_cache(maxsize=4)
def _read(path: str, changed: int, size: int) -> Rates:
    content = Path(path).read_bytes()
    rows = list(csv.reader(content.decode("utf-8-sig").splitlines(), strict=True))
    if not rows or rows[0] != HEADER:
        raise SourceError(f"{path}, line 1: rates have the columns date,currency,rate.")
    found: dict[str, float] = {}
    for line, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        try:
            day, code, text = row
            rate = float(text)
            key = f"{code}{SEPARATOR}{date.fromisoformat(day)}"
        except ValueError as error:
            raise SourceError(
                f"{path}, line {line}: a rate is a day, a currency and a number, as 2024-03-05,USD,0.92."
            ) from error
        if code not in DECIMALS:
            raise SourceError(f"{path}, line {line}: '{code}' is no currency of ISO 4217 in use, such as EUR, USD or JPY.")
        if not (rate > 0 and math.isfinite(rate)):
            raise SourceError(f"{path}, line {line}: a rate is greater than 0; leave the line out where there is none.")
        if found.setdefault(key, rate) != rate:
            raise SourceError(f"{path}, line {line}: there is another rate of {code} on {day}; keep one of them.")
    currencies = tuple(sorted({key.partition(SEPARATOR)[0] for key in found}))
    return Rates(found, currencies, hashlib.sha256(content).hexdigest())

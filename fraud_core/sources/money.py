"""Currency of a source's amounts: one for all, or one a payment with a table of daily rates into one base currency."""

import csv
import hashlib
import logging
import math
import time
import tomllib
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from pydantic import field_validator, model_validator

from fraud_core.errors import SourceError
from fraud_core.settings import Settings
from fraud_core.sources.columns import Reading
from fraud_core.units.currency import DECIMALS

logger = logging.getLogger(__name__)

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


class KnownRates(Protocol):
    """Rates by which amounts are converted."""

    @property
    def currencies(self) -> tuple[str, ...]:
        """That there are rates of."""
        ...

    def on(self, currency: str, day: date) -> float | None:
        """The rate of a currency on a day; None: there is none."""
        ...


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
    return rates_in(currency.rates)


def rates_in(path: str) -> Rates:
    """The rates of a file; see `rates_of`."""
    try:
        stat = Path(path).stat()
        return _read(path, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise SourceError(f"{path}: the rates of [currency] cannot be read: {error.strerror}.") from error


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


class RateTable:
    """The rates that a running scorer converts by: read anew when their file changes. What was read stays where it cannot be.

    Args:
        path: of the file; None: there is none.
        why: in a sentence, why there is none.
    """

    LOOK_SECONDS = 1.0  # that a file is not looked at again

    def __init__(self, path: Path | None, why: str = "No table of rates is set.") -> None:
        self.path = path
        self.problem = why if path is None else ""
        self._rates = Rates({}, (), "")
        self._looked = -math.inf

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The one of an installation: FRAUD_RATES, or what the TOML of its source names."""
        if settings.rates is not None:
            return cls(settings.rates.expanduser().resolve())
        toml = settings.source
        try:
            said = tomllib.loads(toml.read_text(encoding="utf-8")).get("currency")
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
            return cls(None, f"{toml.name} cannot be read here; name the table of rates by FRAUD_RATES.")
        named = said.get("rates") if isinstance(said, dict) else None
        if not isinstance(named, str):
            return cls(None, f"{toml.name} names no table of rates; name it there, or by FRAUD_RATES.")
        return cls((toml.parent / named).resolve())

    @property
    def currencies(self) -> tuple[str, ...]:
        """See `KnownRates`."""
        return self._now().currencies

    @property
    def told(self) -> str:
        """What it converts by, in a sentence."""
        rates = self._now()
        if self.path is None or not rates.by_day:
            return f"{self.problem} Payments in other currencies are refused."
        newest = max(key.partition(SEPARATOR)[2] for key in rates.by_day)
        problem = f" {self.problem}" if self.problem else ""
        return f"{self.path.name} has rates of {', '.join(rates.currencies)}, the newest of {newest}.{problem}"

    def on(self, currency: str, day: date) -> float | None:
        """See `KnownRates`."""
        return self._now().on(currency, day)

    def _now(self) -> Rates:
        if self.path is not None and time.monotonic() - self._looked > self.LOOK_SECONDS:
            self._looked = time.monotonic()
            try:
                self._rates, self.problem = rates_in(str(self.path)), ""
            except SourceError as error:
                if not self.problem:
                    logger.error("rates as they were read before, if they were, stay in use: %s", error)
                self.problem = f"{self.path.name} cannot be read; the log has more."
        return self._rates

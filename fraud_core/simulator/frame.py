"""Frame of simulated payments: from drawn numbers to a source's columns."""

from datetime import timedelta
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from fraud_core.simulator.config import CATEGORY_NAMES, FIRST_DAY, FraudKind
from fraud_core.simulator.draws import DAY
from fraud_core.simulator.population import Population, Rows
from fraud_core.simulator.signals import CURRENCIES, WHOLE_UNITS, Signals, worth
from fraud_core.units.arrays import Array
from fraud_core.units.time import midnight, to_microseconds, utc_offset_us


def frame_of(population: Population, rows: Rows, category: Array, stamp: Array) -> pl.DataFrame:
    """Rows of whole local days, with names and types. An id counts the day's rows in time, and tells nothing else."""
    config = population.config
    day = rows.moment // DAY
    number = np.empty(len(day), dtype=np.int64)
    number[np.lexsort((stamp, day))] = np.arange(len(day)) - np.searchsorted(day, day)
    names = [*CATEGORY_NAMES, config.new_category or ""]
    card, merchant = rows.card, rows.merchant
    home, place = population.home[card], population.merchant_place[merchant]
    kinds = pl.Series(list(FraudKind), dtype=pl.String)
    dates = pl.Series(day.astype(np.int32)).cast(pl.Date).dt.strftime("%Y%m%d")
    return pl.DataFrame(
        {
            "transaction_id": dates + "-" + pl.Series(number).cast(pl.String).str.zfill(8),
            "timestamp": pl.Series(stamp).cast(pl.Datetime("us", "UTC")),
            "amount_cents": np.maximum(np.rint(rows.amount * 100), 1).astype(np.int64),
            "label": rows.kind > 0,
            "card": _named("C", config.cardholders).gather(card),
            "merchant": _named("M", config.merchants).gather(merchant),
            "category": pl.Series(names, dtype=pl.String).gather(category),
            "birth_date": pl.Series(population.birth_day[card].astype(np.int32)).cast(pl.Date),
            "home_latitude": np.round(home[:, 0], 4),
            "home_longitude": np.round(home[:, 1], 4),
            "merchant_latitude": np.round(place[:, 0], 4),
            "merchant_longitude": np.round(place[:, 1], 4),
            "city_population": population.city_population[population.home_city[card]],
            "kind": kinds.gather(pl.Series(rows.kind.astype(np.int64) - 1).replace(-1, None)),
        }
    )


def with_columns_of(frame: pl.DataFrame, rows: Rows, stamp: Array, signals: Signals) -> pl.DataFrame:
    """The frame with what signals say: card numbers, amounts in hundredths of each merchant's currency, and their columns."""
    currency, opened = signals.currency, signals.opened
    amount = rows.amount / worth(currency, rows.moment // DAY)
    unit = np.where(WHOLE_UNITS[currency], 100, 1)
    hundredths = np.maximum(np.rint(np.abs(amount) * 100 / unit), 1) * unit * np.sign(amount)
    # An account is older than its payment, whatever a shift or the local clock makes of the two.
    known = np.nan_to_num(opened)
    since = np.where(known < 0, stamp // 1_000_000 + known, np.minimum(known, stamp // 1_000_000 - 60)).astype(np.int64)
    times = pl.Series("account_opened", since * 1_000_000).cast(pl.Datetime("us", "UTC"))
    return frame.with_columns(
        signals.texts,
        amount_cents=pl.Series(hundredths.astype(np.int64)),
        currency=pl.Series(CURRENCIES, dtype=pl.String).gather(currency),
        account_opened=pl.select(pl.when(pl.Series(~np.isnan(opened))).then(times)).to_series(),
    )


def _named(letter: str, count: int) -> pl.Series:
    return letter + pl.Series(np.arange(count)).cast(pl.String).str.zfill(6)


def instants_of(moment: Array, zone: ZoneInfo) -> Array:
    """Microseconds UTC of local wall-clock seconds. A clock time that the spring change skips is taken an hour on or back."""
    wall = moment * 1_000_000
    stamp = wall - utc_offset_us(wall - utc_offset_us(wall, zone), zone)
    day = moment // DAY
    days = np.unique(day)
    midnights = [[to_microseconds(midnight(FIRST_DAY + timedelta(int(d) + step), zone)) for d in days] for step in (0, 1)]
    begins, ends = np.array(midnights, dtype=np.int64).reshape(2, -1)[:, np.searchsorted(days, day)]
    inside: Array = np.clip(stamp, begins, ends - 1)  # where the clock changes at midnight, a day must keep its rows
    return inside

"""The built-in simulator: card transactions with habits, and fraud as fraud teams know it, out of a seed alone.

Everything is drawn per (seed, local day): the day's legitimate traffic on its own, and every fraud campaign from the day on
which it begins. A window therefore needs no other window: it draws its own days, and the campaigns that began in the few weeks
before it. Daily windows put together equal the monthly one, row by row.

The idea of campaigns (cards and terminals compromised for a time) is that of the Fraud Detection Handbook's simulator, Le Borgne
et al. 2022, chapter 3; the categories are those of the Sparkov data.
"""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from fraud_core.simulator.campaigns import campaign_rows
from fraud_core.simulator.config import SimulatorConfig, day_number
from fraud_core.simulator.draws import DAY
from fraud_core.simulator.frame import frame_of, instants_of, with_columns_of
from fraud_core.simulator.population import Population, Rows, habits_of, shifted
from fraud_core.simulator.signals import REFUND_DAYS, refunds_of, with_signals
from fraud_core.units.time import to_microseconds


def simulate(config: SimulatorConfig, start: datetime, end: datetime, zone: ZoneInfo) -> pl.DataFrame:
    """The transactions of a window, the same whether it is drawn alone or as a part of a longer one.

    Args:
        config: portfolio, fraud and shifts.
        start: begin of the window, with a time zone.
        end: its end, exclusive.
        zone: time zone of habits: hours, weekdays and days are local.

    Returns:
        Frame of n rows sorted by (timestamp, transaction_id): the canonical columns of `fraud_core.fields.schema`, amounts in
        cents, and `kind` (null: legitimate), which is for analysis and must not reach a model. Coordinates are degrees. With
        `online` also what `fraud_core.simulator.signals` makes; amounts are then hundredths of the payment's currency.

    Raises:
        ValueError: the window is empty or its ends have no time zone.
    """
    if start.tzinfo is None or end.tzinfo is None or start >= end:
        raise ValueError("A window to simulate has a start before its end, both with a time zone.")
    first = max(day_number(start.astimezone(zone).date()), day_number(config.epoch))
    last = day_number((end - timedelta(microseconds=1)).astimezone(zone).date())
    population = Population(config)
    days = range(max(first - REFUND_DAYS, day_number(config.epoch)) if config.online else first, last + 1)
    habits = Rows.concatenate([habits_of(population, day) for day in days])
    rows = Rows.concatenate([habits, *campaign_rows(population, first, last)])
    signals = None
    if config.online:
        rows = Rows.concatenate([rows, refunds_of(population, habits)])
        rows = rows.take((rows.moment >= first * DAY) & (rows.moment < (last + 1) * DAY))
        rows, signals = with_signals(population, rows)
    order = np.argsort(rows.moment // DAY, kind="stable")  # the order within a day does not depend on the window
    rows = rows.take(order)
    category = population.merchant_category[rows.merchant]
    rows, category = shifted(population, rows, category)

    stamp = instants_of(rows.moment, zone)
    inside = (stamp >= to_microseconds(start)) & (stamp < to_microseconds(end))
    frame = frame_of(population, rows, category, stamp)
    if signals is not None:
        frame = with_columns_of(frame, rows, stamp, signals.take(order))
    return frame.filter(inside).sort("timestamp", "transaction_id")

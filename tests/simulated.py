"""Simulated sources, for the TOMLs that tests write; and their payments, for tests that write files of them."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import polars as pl

from fraud_core.simulator.config import SimulatorConfig
from fraud_core.simulator.simulate import simulate

COLUMNS = """\
[columns]
transaction_id = "transaction_id"
timestamp = "timestamp"
amount = "amount"
label = "label"
card = "card"
merchant = "merchant"
category = "category"
birth_date = "birth_date"
home_latitude = "home_latitude"
home_longitude = "home_longitude"
merchant_latitude = "merchant_latitude"
merchant_longitude = "merchant_longitude"
city_population = "city_population"
"""

# Six weeks, as few rows as a champion can be had from; in the last week amounts are three times as large.
SHORT = (
    """
name = "short"
timezone = "UTC"
cadence = "weekly"
first = "2024-01-01"
last = "2024-02-05"
label_delay_days = 1
history_days = 7

[simulator]
seed = 3
cardholders = 300
merchants = 80
transactions_per_card_per_day = 0.5
fraud_rate = 0.08
shift_from = 2024-02-05
amount_factor = 3.0

[simulator.kinds]
card_testing = 3
account_takeover = 3

[split]
holdout_days = 7
validation_days = 7
training_days = 7

[drift]
bootstrap_partitions = 3
reference_partitions = 4
"""
    + COLUMNS
)
SHORT_DRIFTED = "2024-02-05"

WEEKS = ("2024-01-01", "2024-01-08", "2024-01-15", "2024-01-22", "2024-01-29")


def five_weeks() -> pl.DataFrame:
    """Payments of the five weeks, from Monday to Monday, as the simulator makes them."""
    config = SimulatorConfig(
        seed=3,
        cardholders=300,
        merchants=80,
        transactions_per_card_per_day=0.5,
        fraud_rate=0.08,
        kinds={"card_testing": 3, "account_takeover": 3},
    )
    return simulate(config, datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 5, tzinfo=UTC), ZoneInfo("UTC"))
